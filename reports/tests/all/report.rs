//! The files a report writes.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use nabla_reports::{Collection, MaskPicture, ReportError, ReportFiles, Run, write_block_masks};

use crate::synthetic::Sweep;

fn write_report(run: &Run, out: &Path) -> Result<ReportFiles, ReportError> {
    nabla_reports::write_report(&Collection::new(vec![run.clone()]), out)
}

/// Fails unless every tag is closed in order; returns the texts between tags.
fn texts_of_well_formed(xml: &str) -> Vec<String> {
    let mut open = Vec::new();
    let mut texts = Vec::new();
    let mut rest = xml.trim();
    while let Some((text, after)) = rest.split_once('<') {
        let (tag, after) = after.split_once('>').expect("a tag ends");
        assert!(!text.contains('&') || text.contains(';'), "bare ampersand in {text:?}");
        if !text.trim().is_empty() {
            texts.push(text.trim().to_owned());
        }
        if let Some(name) = tag.strip_prefix('/') {
            assert_eq!(open.pop(), Some(name), "closing tags in order");
        } else if !tag.ends_with('/') {
            assert_eq!(tag.matches('"').count() % 2, 0, "quotes pair up in {tag:?}");
            open.push(tag.split_whitespace().next().expect("a tag has a name"));
        }
        rest = after;
    }
    assert!(open.is_empty() && rest.is_empty(), "{open:?} stay open, {rest:?} stands behind");
    texts
}

/// Returns width, height and the pixels of a PNG by asking the decoder of the drawing library's own image crate.
fn png_facts(path: &Path) -> (u32, u32, usize) {
    let image = image::open(path).expect("a PNG that decodes").to_rgb8();
    let colours: std::collections::HashSet<_> = image.pixels().map(|p| p.0).collect();
    (image.width(), image.height(), colours.len())
}

#[test]
fn a_report_has_every_figure_twice_a_table_and_a_page() {
    let out = tempfile::tempdir().unwrap();
    let files = write_report(&Sweep::default().run(), out.path()).unwrap();
    let titles: Vec<_> = files.figures.iter().map(|f| f.title.as_str()).collect();
    let expected = [
        (
            "Speedup over sparsity",
            vec!["speedup over dense attention", "ideal: 1 / density", "16,384 tokens"],
        ),
        (
            "Latency over sequence length",
            vec!["sequence length (tokens)", "dense attention", "nabla-0.5", "100 ms"],
        ),
        ("TFLOPS over sequence length", vec!["executed TFLOP/s", "nabla-0.5"]),
        ("Where the time goes", vec!["reorder (once a pass)", "dense attention", "attention"]),
        (
            "Error over threshold",
            vec!["threshold (probability mass kept)", "sparsity error", "mask block 128"],
        ),
        ("Latency against error", vec!["mask + attention", "sparsity error (relative RMSE against dense)"]),
        ("Tile sizes", vec!["BLOCK_M", "BLOCK_N", "mask block 32", "cannot run", "1.00"]),
        ("Tile sizes by length and policy", vec!["16,384 tokens", "nabla-0.5", "128"]),
        ("Which knob matters", vec!["mask block", "BLOCK_M", "relative time"]),
        ("Roofline", vec!["arithmetic intensity (FLOP per byte)", "roof not known"]),
    ];
    assert_eq!(titles, expected.each_ref().map(|(title, _)| *title));
    assert_eq!(files.left_out, []);
    for (figure, (title, labels)) in files.figures.iter().zip(expected) {
        let texts = texts_of_well_formed(&fs::read_to_string(&figure.svg).unwrap());
        for label in labels.into_iter().chain([title]) {
            assert!(texts.iter().any(|text| text == label), "{title} lacks {label:?}: {texts:?}");
        }
        let (width, height, colours) = png_facts(&figure.png);
        assert_eq!(width, 1920, "{title}");
        assert!(height > 300 && colours > 50, "{title}: {width} x {height}, {colours} colours");
    }
    for figure in &files.figures {
        let plotted = fs::read_to_string(&figure.csv).unwrap();
        assert!(plotted.lines().count() > 3, "{}: {plotted}", figure.title);
    }
    let csv = fs::read_to_string(&files.csv).unwrap();
    assert_eq!(csv.lines().count(), 1 + Sweep::default().records().len());
}

fn page(run: &Run) -> String {
    let out = tempfile::tempdir().unwrap();
    fs::read_to_string(write_report(run, out.path()).unwrap().html).unwrap()
}

#[test]
fn the_page_loads_nothing() {
    let page = page(&Sweep::default().run());
    let without_namespace = page.replace("xmlns=\"http://www.w3.org/2000/svg\"", "");
    let library = "https://github.com/leeoniya/uPlot (v";
    assert_eq!(page.matches("https:").count(), page.matches(library).count());
    let local = without_namespace.replace("href=\"#", "").replace("<link rel=\"icon\" href=\"data:,\">", "");
    for word in ["http:", "src=", "href=", "@import", "url(", "<link", "<iframe", "fetch(", "XMLHttpRequest"]
    {
        assert!(!local.contains(word), "{word} in the page");
    }
    assert!(page.contains("default-src 'none'") && !page.contains("script-src 'unsafe"));
    assert_eq!(page.matches("<script").count(), 3);
    assert_eq!(page.matches("<svg ").count(), 10);
}

#[test]
fn the_page_tells_what_was_measured_where_and_what_failed() {
    let mut run = Sweep::default().run();
    run.torn = true;
    let page = page(&run);
    let identity = &run.header.identity;
    let facts = [
        &identity.device,
        &identity.backend,
        &identity.isa,
        &identity.platform,
        &identity.toolchain,
        &identity.source_hash,
        &identity.git_commit,
        &identity.input,
        &identity.input_hash,
        &identity.space_hash,
        &run.header.protocol.description,
        &run.header.started,
        &run.header.warnings[0],
    ];
    for fact in facts {
        assert!(page.contains(fact.as_str()), "{fact} is missing");
    }
    for text in [
        "The run was stopped in the middle of writing a trial",
        "<td>BLOCK_M 128 is no divisor of q_block 32</td><td class=\"num\">45</td>",
        "<td>worker ended with signal 9</td><td class=\"num\">5</td>",
        "340 ok, 15 incorrect, 45 ineligible, 5 launch_error",
        "<td>nabla-0.4</td>",
    ] {
        assert!(page.contains(text), "{text} is missing");
    }
}

#[test]
fn hostile_text_in_records_stays_text() {
    let mut run = Sweep::default().run();
    let evil = "<script>alert('&')</script>\"onload=\"x";
    run.header.identity.device = evil.into();
    run.header.identity.input = evil.into();
    run.header.warnings = vec![evil.into()];
    run.header.command = vec![evil.into()];
    for (n, record) in run.records.iter_mut().enumerate() {
        record.device = format!("{evil}{}", n % 2);
        record.policy = format!("{evil}{}", record.policy);
        if !record.reason.is_empty() {
            record.reason = evil.into();
        }
    }
    let out = tempfile::tempdir().unwrap();
    let files = write_report(&run, out.path()).unwrap();
    let page = fs::read_to_string(&files.html).unwrap();
    assert!(!page.contains("<script>alert") && !page.contains("</script>\"onload"));
    assert_eq!(page.matches("<script").count(), 3);
    assert!(page.contains("&#60;script&#62;"));
    for figure in &files.figures {
        texts_of_well_formed(&fs::read_to_string(&figure.svg).unwrap());
    }
}

#[test]
fn figures_that_do_not_apply_are_explained_and_their_old_files_removed() {
    let out = tempfile::tempdir().unwrap();
    let before = write_report(&Sweep::default().run(), out.path()).unwrap();
    let latency = before.figures.iter().find(|f| f.title == "Latency over sequence length").unwrap().clone();
    assert!(latency.png.exists() && latency.svg.exists());
    let one_length = Sweep { grids: vec![[4, 32, 32]], ..Sweep::default() };
    let after = write_report(&one_length.run(), out.path()).unwrap();
    assert_eq!(after.figures.len(), 8);
    assert!(!latency.png.exists() && !latency.svg.exists());
    let page = fs::read_to_string(&after.html).unwrap();
    assert!(page.contains("All timed trials have one sequence length, 4,096 tokens."));
    assert_eq!(page.matches("<svg ").count(), 8);
}

#[test]
fn a_run_without_trials_still_has_a_page() {
    let empty = Sweep { grids: vec![], ..Sweep::default() };
    let out = tempfile::tempdir().unwrap();
    let files = write_report(&empty.run(), out.path()).unwrap();
    assert_eq!((files.figures.len(), files.left_out.len()), (0, 10));
    let page = fs::read_to_string(files.html).unwrap();
    assert!(page.contains("0 trials, started") && !page.contains("<svg "));
}

#[test]
fn a_folder_that_cannot_be_made_is_one_clear_error() {
    let out = tempfile::tempdir().unwrap();
    let file = out.path().join("file");
    fs::write(&file, "").unwrap();
    let error = write_report(&Sweep::default().run(), &file).unwrap_err().to_string();
    assert!(
        error.contains("/file/figures: cannot write: ") && error.ends_with("or give another folder"),
        "{error}"
    );
}

#[test]
fn five_thousand_records_take_seconds() {
    let sweep = Sweep {
        grids: (1..=10).map(|t| [t * 4, 32, 32]).collect(),
        thresholds: (1..=19).map(|t| f64::from(t) * 0.05).collect(),
        ..Sweep::default()
    };
    let run = sweep.run();
    assert!(run.records.len() > 5_000);
    let out = tempfile::tempdir().unwrap();
    let started = Instant::now();
    let files = write_report(&run, out.path()).unwrap();
    // One second on two cores; the bound only catches something quadratic.
    assert!(started.elapsed() < Duration::from_secs(30), "{:?}", started.elapsed());
    assert!(fs::metadata(files.html).unwrap().len() < 4 << 20);
}

#[test]
fn masks_of_any_size_make_a_readable_picture() {
    let out = tempfile::tempdir().unwrap();
    for (heads, q_blocks, kv_blocks) in [(1, 4, 4), (2, 1, 1), (12, 64, 60), (64, 33, 31), (2, 1500, 4000)] {
        let mask = |head: usize| {
            let kept = (0..q_blocks * kv_blocks)
                .map(|i: usize| (i / kv_blocks).abs_diff(i % kv_blocks) <= head + 1)
                .collect();
            MaskPicture { title: format!("head {head}"), q_blocks, kv_blocks, density: 0.25, kept }
        };
        let path = out.path().join(format!("{heads}-{q_blocks}.png"));
        write_block_masks(&path, &(0..heads).map(mask).collect::<Vec<_>>()).unwrap();
        let (width, height, colours) = png_facts(&path);
        assert!(
            width >= 400 && height >= 150 && colours > 20,
            "{heads} heads: {width} x {height}, {colours}"
        );
        assert!(width <= 6_000 && height <= 6_000, "{heads} heads: {width} x {height}");
    }
}
