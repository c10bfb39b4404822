//! Records in; CSV, plots and a one-file HTML report out.
//!
//! This crate owns the stored form of a trial and everything drawn from it. It never touches a device and
//! depends on no other crate of the workspace: whoever has a `records.jsonl` can report on it anywhere.

mod best;
mod collection;
mod compare;
mod embed;
mod figures;
mod format;
mod mask_file;
mod masks;
mod page;
mod problem;
mod read;
pub mod record;
mod scene;
mod summary;
#[cfg(test)]
#[path = "../tests/all/synthetic.rs"]
mod synthetic;
#[cfg(test)]
#[path = "../tests/all/synthetic_tuning.rs"]
mod synthetic_tuning;
mod table;
mod write;

// The synthetic records are shared with the integration tests, which know this crate by its name.
#[cfg(test)]
extern crate self as nabla_reports;

pub use best::{BestSetting, TimeBasis, TimeInterval, best_settings};
pub use collection::{Collection, DeviceRecords, Source};
pub use compare::{Change, RunComparison, compare_runs};
pub use figures::quality::{QualityPlot, QualitySeries, write_quality};
pub use figures::replay::{PictureFiles, ReplayPlot, ReplaySeries, write_replay};
pub use mask_file::{MaskFileError, read_masks};
pub use masks::{MaskPicture, MaskPictureError, write_block_masks};
pub use problem::Problem;
pub use read::{RECORDS_FILE, ReadError, Run, read_run};
pub use record::{
    Comparison, Identity, Line, Machine, Protocol, Record, RunHeader, SCHEMA_VERSION, Stage, Status, Tuning,
    Verdict,
};
pub use scene::render::DrawError;
pub use summary::{markdown, one_line};
pub use table::write_csv;
pub use write::{FigureFiles, ReportError, ReportFiles, write_report};
