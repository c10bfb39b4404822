//! Writes records as CSV.

use std::io::Write;

use crate::record::Record;

/// Writes a header line and a line per record, in the order given; what was not measured is an empty cell.
///
/// Columns and their order are those of [`Record::columns`]. Times end in `_us*` and are microseconds; densities,
/// errors and speedups are plain ratios.
pub fn write_csv<'a>(
    records: impl IntoIterator<Item = &'a Record>,
    out: impl Write,
) -> Result<(), csv::Error> {
    let mut writer = csv::Writer::from_writer(out);
    writer.write_record(Record::column_names())?;
    for record in records {
        writer.write_record(record.columns().iter().map(|(_, cell)| cell))?;
    }
    writer.flush()?;
    Ok(())
}
