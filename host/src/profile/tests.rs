//! Lookups, merges and files.

use super::*;
use crate::{Dtype, parameters::Parameters, variant::TileConfig};

fn device(model: &str, architecture: &str) -> Device {
    Device { backend: "cuda".into(), model: model.into(), architecture: architecture.into(), threads: None }
}

fn shape(seqlen: u64, density: f64) -> Shape {
    Shape { dtype: Dtype::Bf16, head_dim: 64, q_block: 64, kv_block: 64, seqlen, density, overlap: 0.5 }
}

fn entry(device: &Device, shape: &Shape, block_n: usize, when: &str) -> Entry {
    Entry {
        key: shape.key(device),
        shape: shape.clone(),
        config: Parameters::of_tile(TileConfig { block_m: 64, block_n }),
        margin: Margin {
            standing: Standing::Proven,
            ratio: 0.9,
            ratio_low: 0.88,
            ratio_high: 0.92,
            pairs: 32,
        },
        found: Found {
            strategy: "random".into(),
            evaluations: 10,
            space: 100,
            seed: 0,
            when: when.into(),
            sources: "0".into(),
            toolchain: "test".into(),
        },
    }
}

fn profile() -> Profile {
    let mut profile = Profile::default();
    let (mine, relative) = (device("A", "sm_90"), device("B", "sm_90"));
    profile.put(entry(&mine, &shape(4096, 0.3), 32, "2026-01-01T00:00:00Z"));
    profile.put(entry(&mine, &shape(16_384, 0.3), 64, "2026-01-01T00:00:00Z"));
    profile.put(entry(&relative, &shape(65_536, 0.3), 128, "2026-01-01T00:00:00Z"));
    profile
}

fn found(profile: &Profile, device: &Device, shape: &Shape) -> (Level, Option<usize>, bool) {
    let found = profile.lookup(device, shape);
    let block_n = found.entry.and_then(|entry| entry.config.tile()).map(|tile| tile.block_n);
    (found.level, block_n, found.warning().is_some())
}

#[test]
fn each_level_of_a_match_is_named() {
    let profile = profile();
    let (mine, stranger) = (device("A", "sm_90"), device("C", "sm_80"));
    // 5,000 tokens share a bucket with 4,096, a density of 0.25 one with 0.3.
    assert_eq!(found(&profile, &mine, &shape(5000, 0.25)), (Level::Exact, Some(32), false));
    assert_eq!(found(&profile, &mine, &shape(70_000, 0.3)), (Level::SameArchitecture, Some(128), true));
    assert_eq!(found(&profile, &mine, &shape(10_000, 0.3)), (Level::NearestShape, Some(64), true));
    assert_eq!(
        found(&profile, &device("Z", "sm_90"), &shape(9000, 0.6)),
        (Level::NearestShape, Some(64), true)
    );
    assert_eq!(found(&profile, &stranger, &shape(4096, 0.3)), (Level::Default, None, true));
}

#[test]
fn another_type_head_dimension_or_mask_block_is_never_near() {
    let profile = profile();
    let mine = device("A", "sm_90");
    for other in [
        Shape { dtype: Dtype::F16, ..shape(4096, 0.3) },
        Shape { head_dim: 128, ..shape(4096, 0.3) },
        Shape { q_block: 128, kv_block: 128, ..shape(4096, 0.3) },
    ] {
        assert_eq!(profile.lookup(&mine, &other).level, Level::Default);
    }
}

#[test]
fn merging_keeps_one_entry_a_key_and_the_later_one() {
    let mut profile = profile();
    let mine = device("A", "sm_90");
    let mut other = Profile::default();
    other.put(entry(&mine, &shape(4096, 0.3), 256, "2026-02-01T00:00:00Z"));
    other.put(entry(&mine, &shape(16_384, 0.3), 256, "2025-02-01T00:00:00Z"));
    other.put(entry(&mine, &shape(16_384, 0.9), 512, "2025-02-01T00:00:00Z"));
    profile.merge(other);
    assert_eq!(profile.entries.len(), 4);
    assert!(profile.entries.is_sorted_by(|a, b| a.key < b.key));
    assert_eq!(found(&profile, &mine, &shape(4096, 0.3)).1, Some(256));
    assert_eq!(found(&profile, &mine, &shape(16_384, 0.3)).1, Some(64));
}

#[test]
fn a_profile_is_read_as_it_was_written_and_other_files_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("profile.json");
    profile().write(&path).unwrap();
    assert_eq!(Profile::read(&path).unwrap(), profile());
    let message = |text: &str| {
        std::fs::write(&path, text).unwrap();
        Profile::read(&path).unwrap_err().to_string()
    };
    let mut overclaiming = profile();
    overclaiming.entries[0].margin.ratio_high = 1.01;
    let mut moved = profile();
    moved.entries[0].shape.seqlen = 100_000;
    for (text, words) in [
        ("{", "EOF"),
        ("{}", "no format"),
        (r#"{"format":2,"entries":[]}"#, "format 2"),
        (r#"{"format":1,"entries":[{}]}"#, "missing field"),
        (&serde_json::to_string(&overclaiming).unwrap(), "proven"),
        (&serde_json::to_string(&moved).unwrap(), "100000"),
    ] {
        let message = message(text);
        assert!(message.contains(words) && message.contains("profile.json"), "{words}: {message}");
    }
    assert!(Profile::read(&folder.path().join("none")).unwrap_err().to_string().contains("cannot read"));
}

/// Every object of the schema names exactly the fields that are written.
#[test]
fn the_published_schema_has_the_fields_that_are_written() {
    let schema = include_str!("../../../docs/profile.schema.json");
    let schema: serde_json::Value = serde_json::from_str(schema).unwrap();
    let mut profile = profile();
    profile.entries[0].key.device.threads = Some(2);
    let written = serde_json::to_value(profile).unwrap();
    agree(&schema, &schema, &written, "profile");
}

fn agree(root: &serde_json::Value, schema: &serde_json::Value, value: &serde_json::Value, path: &str) {
    let schema = match schema["$ref"].as_str() {
        Some(reference) => {
            root.pointer(reference.trim_start_matches('#')).unwrap_or_else(|| panic!("{reference}"))
        }
        None => schema,
    };
    match value {
        serde_json::Value::Object(fields) => {
            let Some(properties) = schema["properties"].as_object() else {
                assert!(schema["additionalProperties"].is_object(), "{path}: fields are not described");
                return;
            };
            let names = |map: &serde_json::Map<String, serde_json::Value>| -> Vec<String> {
                let mut names: Vec<String> = map.keys().cloned().collect();
                names.sort();
                names
            };
            for required in schema["required"].as_array().into_iter().flatten() {
                assert!(fields.contains_key(required.as_str().unwrap()), "{path}: {required}");
            }
            let known = names(properties);
            for (name, field) in fields {
                assert!(known.contains(name), "{path}: {name} is not in the schema");
                agree(root, &properties[name], field, &format!("{path}.{name}"));
            }
        }
        serde_json::Value::Array(items) => {
            items.iter().for_each(|item| agree(root, &schema["items"], item, path));
        }
        other => {
            let kind = match other {
                serde_json::Value::String(_) => "string",
                serde_json::Value::Number(n) if n.is_f64() => "number",
                _ => "integer",
            };
            let allowed = schema["type"].as_str().unwrap_or("string");
            assert!(
                allowed == kind || (allowed == "number" && kind == "integer"),
                "{path}: {allowed}, {kind}"
            );
        }
    }
}
