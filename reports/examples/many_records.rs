//! Times the report of 100,000 synthetic records, from the file to the page:
//! `cargo run --release -p nabla-reports --example many_records -- OUT_FOLDER`.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::PathBuf;
use std::time::Instant;

use nabla_reports::{Collection, Line, RECORDS_FILE, read_run, write_report};

#[path = "../tests/all/synthetic.rs"]
mod synthetic;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let out = PathBuf::from(std::env::args().nth(1).ok_or("give a folder to write into")?);
    let sides = [16, 32, 48, 64, 96, 128, 160, 192, 224, 256];
    let sweep = synthetic::Sweep {
        grids: (1..=12).map(|t| [t * 4, 32, 32]).collect(),
        thresholds: (1..=28).map(|t| f64::from(t) * 0.03125).collect(),
        mask_blocks: vec![32, 64, 128],
        tiles: sides.iter().flat_map(|m| sides.iter().map(move |n| (*m, *n))).collect(),
    };
    std::fs::create_dir_all(&out)?;
    let path = out.join(RECORDS_FILE);
    let mut file = BufWriter::new(File::create(&path)?);
    let run = sweep.run();
    let header = Line::Header(Box::new(run.header));
    let trials = run.records.into_iter().map(|record| Line::Trial(Box::new(record)));
    for line in std::iter::once(header).chain(trials) {
        serde_json::to_writer(&mut file, &line)?;
        file.write_all(b"\n")?;
    }
    file.flush()?;
    println!("{} MB of records", std::fs::metadata(&path)?.len() >> 20);

    let started = Instant::now();
    let run = read_run(&path)?;
    println!("read {} records: {:?}", run.records.len(), started.elapsed());
    let files = write_report(&Collection::new(vec![run]), &out)?;
    println!(
        "everything: {:?}, page of {} MB",
        started.elapsed(),
        std::fs::metadata(&files.html)?.len() >> 20
    );
    for (title, why) in files.left_out {
        println!("  {title}: {why}");
    }
    Ok(())
}
