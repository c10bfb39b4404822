//! The records inside the page: columns, so that names are written once and like stands by like.
//!
//! Each column is either numbers (`null` where nothing was measured) or choices: its texts once, and for each record
//! which of them. Small sets are plain JSON; larger ones are deflated (zlib) and written in base64, which the page
//! unpacks with the browser's own `DecompressionStream`.

use std::borrow::Cow;
use std::collections::HashMap;
use std::io::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Serialize;

use crate::figures::mask_block;
use crate::record::Record;

/// Plain JSON up to so many bytes: a sweep of some hundred records needs nothing but the page's own script.
const PLAIN_BYTES: usize = 256 << 10;

/// What the page holds.
pub(crate) struct Embedded {
    /// `json`, or `deflate` for base64 of zlib's format.
    pub(crate) encoding: &'static str,
    /// The text of the script element that holds it.
    pub(crate) text: String,
}

/// How a column's values are written for people.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Unit {
    /// Text.
    Choice,
    /// A whole number.
    Count,
    /// Microseconds.
    Time,
    /// A ratio, as a percentage.
    Percent,
    /// A ratio, as a factor.
    Factor,
    /// Any other number.
    Number,
}

enum Values {
    Text(fn(&Record) -> Cow<'_, str>),
    Number(fn(&Record) -> Option<f64>),
}

struct Column {
    name: &'static str,
    label: &'static str,
    unit: Unit,
    values: Values,
}

const fn text(name: &'static str, label: &'static str, get: fn(&Record) -> Cow<'_, str>) -> Column {
    Column { name, label, unit: Unit::Choice, values: Values::Text(get) }
}

const fn number(
    name: &'static str,
    label: &'static str,
    unit: Unit,
    get: fn(&Record) -> Option<f64>,
) -> Column {
    Column { name, label, unit, values: Values::Number(get) }
}

fn whole(value: u64) -> Option<f64> {
    Some(value as f64)
}

const COLUMNS: &[Column] = &[
    text("status", "status", |r| r.status.name().into()),
    text("device", "device", |r| format!("{} ({})", r.device, r.backend).into()),
    text("dtype", "type", |r| r.dtype.as_str().into()),
    number("seqlen", "tokens", Unit::Count, |r| whole(r.seqlen)),
    text("policy", "policy", |r| r.policy.as_str().into()),
    number("threshold", "threshold", Unit::Number, |r| r.threshold),
    text("mask_block", "mask block", |r| mask_block(r.q_block, r.kv_block).into()),
    number("block_m", "BLOCK_M", Unit::Count, |r| whole(r.block_m)),
    number("block_n", "BLOCK_N", Unit::Count, |r| whole(r.block_n)),
    number("sparsity", "sparsity", Unit::Percent, |r| r.density.map(|d| 1.0 - d)),
    number("total_us", "mask + attention", Unit::Time, |r| r.total_us_median),
    number("time_us", "attention", Unit::Time, |r| r.time_us_median),
    number("time_us_low", "attention, 95 % from", Unit::Time, |r| r.time_us_ci_low),
    number("time_us_high", "attention, 95 % to", Unit::Time, |r| r.time_us_ci_high),
    number("mask_us", "mask", Unit::Time, |r| r.mask_us_median),
    number("reorder_us", "reorder", Unit::Time, |r| r.reorder_us_median),
    number("dense_us", "dense attention", Unit::Time, |r| r.dense_us_median),
    number("speedup_total", "speedup with mask", Unit::Factor, |r| r.speedup_total_vs_dense),
    number("speedup", "speedup of attention", Unit::Factor, |r| r.speedup_vs_dense),
    number("tflops", "executed TFLOP/s", Unit::Number, |r| r.tflops_executed),
    number("sparsity_error", "sparsity error", Unit::Number, |r| r.sparsity_rel_rmse),
    number("kernel_error", "kernel error", Unit::Number, |r| r.kernel_rel_rmse),
    number("batch", "batch", Unit::Count, |r| whole(r.batch)),
    number("heads", "heads", Unit::Count, |r| whole(r.heads)),
    number("head_dim", "head size", Unit::Count, |r| whole(r.head_dim)),
    text("grid", "grid", |r| r.grid.map(|[t, h, w]| format!("{t}×{h}×{w}")).unwrap_or_default().into()),
    text("strategy", "strategy", |r| r.tuning.as_ref().map_or("", |t| t.strategy.as_str()).into()),
    text("stage", "stage", |r| r.tuning.as_ref().map_or("", |t| t.stage.name()).into()),
    number("evaluation", "evaluation", Unit::Count, |r| whole(r.tuning.as_ref()?.evaluation)),
    text("config", "config", |r| r.tuning.as_ref().map(|t| t.config_text()).unwrap_or_default().into()),
    number("rejected", "rejected samples", Unit::Count, |r| whole(r.tuning.as_ref()?.rejected_samples)),
    text("contended", "contended", |r| if crate::collection::is_contended(r) { "yes" } else { "no" }.into()),
    text("variant", "variant", |r| r.variant.as_str().into()),
    text("input", "input", |r| r.input_hash.as_str().into()),
    text("commit", "commit", |r| r.git_commit.as_str().into()),
    text("reason", "reason", |r| r.reason.as_str().into()),
];

#[derive(Serialize)]
struct Out<'a> {
    name: &'static str,
    label: &'static str,
    unit: Unit,
    #[serde(skip_serializing_if = "Option::is_none")]
    levels: Option<Vec<Cow<'a, str>>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    codes: Option<Vec<u32>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    values: Option<Vec<Option<f64>>>,
}

#[derive(Serialize)]
struct All<'a> {
    rows: usize,
    columns: Vec<Out<'a>>,
}

impl Column {
    /// Returns the column of the records, or nothing where no record has a value.
    fn of<'a>(&self, records: &[&'a Record]) -> Option<Out<'a>> {
        let Self { name, label, unit, .. } = *self;
        let out = Out { name, label, unit, levels: None, codes: None, values: None };
        match self.values {
            Values::Number(get) => {
                let values: Vec<_> =
                    records.iter().map(|r| get(r).filter(|v| v.is_finite()).map(five_digits)).collect();
                values.iter().any(Option::is_some).then_some(Out { values: Some(values), ..out })
            }
            Values::Text(get) => {
                let mut places: HashMap<Cow<'a, str>, u32> = HashMap::new();
                let codes: Vec<u32> = records
                    .iter()
                    .map(|r| {
                        let next = places.len() as u32;
                        *places.entry(get(r)).or_insert(next)
                    })
                    .collect();
                let mut levels = vec![Cow::Borrowed(""); places.len()];
                for (level, place) in places {
                    levels[place as usize] = level;
                }
                let any = levels.iter().any(|level| !level.is_empty());
                any.then_some(Out { levels: Some(levels), codes: Some(codes), ..out })
            }
        }
    }
}

/// Rounds to five significant digits: more is noise, and noise does not pack.
fn five_digits(value: f64) -> f64 {
    if value == 0.0 {
        return 0.0;
    }
    let exponent = 4 - value.abs().log10().floor() as i32;
    // Dividing by a power of ten, rather than multiplying by its inverse, gives the nearest number to the decimal.
    let rounded = match exponent {
        0..=22 => (value * 10f64.powi(exponent)).round() / 10f64.powi(exponent),
        -22..0 => (value / 10f64.powi(-exponent)).round() * 10f64.powi(-exponent),
        _ => value,
    };
    if rounded.is_finite() { rounded } else { value }
}

/// Packs records for the page.
pub(crate) fn embed<'a>(records: impl Iterator<Item = &'a Record>) -> Embedded {
    let records: Vec<&Record> = records.collect();
    let columns: Vec<Out<'_>> = COLUMNS.iter().filter_map(|column| column.of(&records)).collect();
    // Maps with names for keys always become JSON; were it not so, the page would say that it has no data.
    let json = serde_json::to_string(&All { rows: records.len(), columns }).unwrap_or_default();
    if json.len() <= PLAIN_BYTES {
        // No text of a record may end the element it stands in.
        return Embedded { encoding: "json", text: json.replace('<', "\\u003c") };
    }
    let mut packer = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::fast());
    // Writing to memory cannot fail; should it, the page says that its data cannot be read.
    let packed = packer.write_all(json.as_bytes()).and_then(|()| packer.finish()).unwrap_or_default();
    Embedded { encoding: "deflate", text: STANDARD.encode(packed) }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;
    use crate::synthetic::Sweep;

    #[test]
    fn five_digits_are_kept_without_a_tail() {
        for (value, text) in [
            (0.123456789, "0.12346"),
            (123456.7, "123460.0"),
            (1e-7 / 3.0, "3.3333e-8"),
            (-2.5, "-2.5"),
            (0.3, "0.3"),
        ] {
            assert_eq!(format!("{:?}", five_digits(value)), text);
        }
    }

    #[test]
    fn packed_and_plain_hold_the_same_columns() {
        let records = Sweep::default().records();
        let plain = embed(records.iter().take(20));
        assert_eq!(plain.encoding, "json");
        let many: Vec<&Record> = records.iter().cycle().take(20_000).collect();
        let packed = embed(many.into_iter());
        assert_eq!(packed.encoding, "deflate");
        let bytes = STANDARD.decode(&packed.text).unwrap();
        let mut json = String::new();
        flate2::read::ZlibDecoder::new(&bytes[..]).read_to_string(&mut json).unwrap();
        let [plain, packed]: [serde_json::Value; 2] =
            [&plain.text, &json].map(|text| serde_json::from_str(text).unwrap());
        let names = |v: &serde_json::Value| {
            v["columns"].as_array().unwrap().iter().map(|c| c["name"].clone()).collect::<Vec<_>>()
        };
        assert_eq!((plain["rows"].as_u64(), packed["rows"].as_u64()), (Some(20), Some(20_000)));
        assert_eq!(names(&plain), names(&packed));
    }

    #[test]
    fn no_text_of_a_record_ends_the_element() {
        let mut record = Sweep::default().records().remove(0);
        record.policy = "</script><script>".into();
        let embedded = embed(std::iter::once(&record));
        assert!(!embedded.text.contains('<'), "{}", embedded.text);
        let value: serde_json::Value = serde_json::from_str(&embedded.text).unwrap();
        assert!(value.to_string().contains("</script><script>"));
    }
}
