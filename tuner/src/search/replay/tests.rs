use super::*;

#[test]
#[ignore = "bench"]
fn bench() {
    let strategies = std::env::var("S").unwrap_or_else(|_| "default".into());
    let repeats: u64 = std::env::var("R").ok().and_then(|v| v.parse().ok()).unwrap_or(20);
    let base: u64 = std::env::var("K").ok().and_then(|v| v.parse().ok()).unwrap_or(0);
    for file in std::env::var("F").unwrap_or_default().split(',') {
        for recording in read(std::path::Path::new(file)).unwrap_or_else(|e| panic!("{e}")) {
            let n = recording.space.len();
            let budget = std::env::var("B").ok().and_then(|v| v.parse().ok()).unwrap_or((n / 25).max(50));
            println!(
                "{} n={n} 2%={} failed {:.2} random 90/95/99: {:?}",
                recording.name,
                n / 50,
                recording.failed_share(),
                Curve::MARKS.map(|m| recording.random_median(m))
            );
            for strategy in strategies.split(',') {
                let t = std::time::Instant::now();
                let half = repeats / 2;
                let mut runs: Vec<Vec<f64>> = Vec::new();
                std::thread::scope(|scope| {
                    let r = &recording;
                    let a = scope.spawn(move || {
                        (0..half)
                            .map(|s| simulate(r, strategy, budget, base + s).unwrap_or_default())
                            .collect::<Vec<_>>()
                    });
                    let b = scope.spawn(move || {
                        (half..repeats)
                            .map(|s| simulate(r, strategy, budget, base + s).unwrap_or_default())
                            .collect::<Vec<_>>()
                    });
                    runs.extend(a.join().unwrap_or_default());
                    runs.extend(b.join().unwrap_or_default());
                });
                let curve = Curve::new(&runs);
                println!(
                    "  {strategy:12} to 90/95/99: {:?} shares {:?}; at 1% {:.3} 2% {:.3} end {:.3}  {:.1}s",
                    [0, 1, 2].map(|m| curve.median_evaluations(m)),
                    [0, 1, 2].map(|m| curve.share(m)),
                    curve.median_at(n / 100),
                    curve.median_at(n / 50),
                    curve.median_at(budget),
                    t.elapsed().as_secs_f64()
                );
            }
        }
    }
}
