//! Writes the report of a synthetic sweep and pictures of synthetic masks, for looking at them:
//! `cargo run -p nabla-reports --example synthetic_report -- OUT_FOLDER`.

use std::path::PathBuf;

use nabla_reports::{Collection, MaskPicture, write_block_masks, write_report};

#[path = "../tests/all/synthetic.rs"]
mod synthetic;
#[path = "../tests/all/synthetic_tuning.rs"]
mod synthetic_tuning;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let out = PathBuf::from(std::env::args().nth(1).ok_or("give a folder to write into")?);
    let sweep = synthetic::Sweep::default();
    let one = synthetic::Sweep { grids: vec![[4, 32, 32]], mask_blocks: vec![64], ..sweep.clone() };
    let wide = synthetic::Sweep {
        grids: (1..=9).map(|t| [t * 4, 32, 32]).collect(),
        thresholds: vec![0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95],
        tiles: [16, 32, 64, 96, 128, 192]
            .iter()
            .flat_map(|m| [16, 32, 64, 96, 128, 192, 256].map(|n| (*m, n)))
            .collect(),
        ..sweep.clone()
    };
    let tuning = synthetic_tuning::run;
    for (name, runs) in [
        ("usual", vec![sweep.run()]),
        ("one-length", vec![one.run()]),
        ("wide", vec![wide.run()]),
        ("tuning", vec![tuning()]),
        ("two-devices", vec![sweep.run(), tuning()]),
    ] {
        let started = std::time::Instant::now();
        let mut all = Collection::new(runs);
        if name == "tuning" {
            all.masks = (0..12).map(|head| mask(head, 64, 64)).collect();
        }
        let files = write_report(&all, &out.join(name))?;
        println!("{}: {} records, {:?}", files.html.display(), all.records().count(), started.elapsed());
        for (title, why) in files.left_out {
            println!("  {title}: {why}");
        }
    }
    for (heads, q, kv) in
        [(1, 16, 16), (2, 64, 64), (12, 160, 160), (40, 512, 512), (64, 4, 4000), (3, 3660, 3660)]
    {
        let masks: Vec<_> = (0..heads).map(|head| mask(head, q, kv)).collect();
        let path = out.join(format!("masks-{heads}-heads-{q}x{kv}.png"));
        let started = std::time::Instant::now();
        write_block_masks(&path, &masks)?;
        println!("{}: {:?}", path.display(), started.elapsed());
    }
    Ok(())
}

/// Makes a mask of a diagonal band, frame-to-frame bands and some scattered blocks.
fn mask(head: usize, q_blocks: usize, kv_blocks: usize) -> MaskPicture {
    let frame = (kv_blocks / 8).max(1) as f64;
    let kept: Vec<_> = (0..q_blocks * kv_blocks)
        .map(|i| {
            let (q, k) =
                ((i / kv_blocks) as f64 * kv_blocks as f64 / q_blocks as f64, (i % kv_blocks) as f64);
            let offset = (q - k).abs() % frame;
            offset.min(frame - offset) <= frame * 0.02 * (head % 7 + 1) as f64
                || i.wrapping_mul(2_654_435_761) % 97 < head
        })
        .collect();
    let density = kept.iter().filter(|k| **k).count() as f64 / kept.len() as f64;
    MaskPicture { title: format!("head {head}"), q_blocks, kv_blocks, density, kept }
}
