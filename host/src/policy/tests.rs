//! Parsing, and each rule against loops written from its published text.

use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::{
    Grid,
    backend::Orders,
    generate::{GenerateSpec, generate_video},
    token_order::TokenOrder,
    variant::MaskBlock,
};

fn policy(text: &str) -> Policy {
    text.parse().unwrap_or_else(|error| panic!("{error}"))
}

/// A generated problem with blocks of 64.
struct Case {
    qkv: Qkv,
    orders: Orders,
}

/// Ragged: 64-token patches divide neither axis.
const RAGGED: &str = "video:3,20,27,2,16";

impl Case {
    fn new(spec: &str) -> Self {
        let spec: GenerateSpec = spec.parse().unwrap();
        let qkv = generate_video(&spec, 7);
        let orders = Orders::new(&qkv.problem(), MaskBlock::square(64)).unwrap();
        Self { qkv, orders }
    }

    fn mask(&self, text: &str) -> BlockMask {
        policy(text).build(&self.qkv, &self.orders).unwrap_or_else(|error| panic!("{error}"))
    }

    /// Tokens of each block of a head, by the raster index of the token.
    fn blocks(&self, tensor: &crate::tensor::Tensor, head: usize) -> Vec<Vec<Vec<f64>>> {
        let [_, _, seqlen, d] = tensor.shape;
        let layout = self.orders.q.layout();
        (0..layout.blocks())
            .map(|block| {
                layout
                    .range(block)
                    .map(|at| {
                        let at = (head * seqlen + self.orders.q.source(head)[at] as usize) * d;
                        tensor.data.iter_f32(at..at + d).map(f64::from).collect()
                    })
                    .collect()
            })
            .collect()
    }

    /// Softmax of products of means, row by row.
    fn pooled_map(&self, head: usize) -> Vec<Vec<f64>> {
        let mean = |tokens: &Vec<Vec<f64>>| -> Vec<f64> {
            (0..tokens[0].len())
                .map(|d| tokens.iter().map(|token| token[d]).sum::<f64>() / tokens.len() as f64)
                .collect()
        };
        let q: Vec<Vec<f64>> = self.blocks(&self.qkv.q, head).iter().map(mean).collect();
        let k: Vec<Vec<f64>> = self.blocks(&self.qkv.k, head).iter().map(mean).collect();
        let scale = f64::from(self.qkv.problem().softmax_scale);
        q.iter()
            .map(|q| {
                let e: Vec<f64> = k.iter().map(|k| (dot(q, k) * scale).exp()).collect();
                let sum: f64 = e.iter().sum();
                e.iter().map(|e| e / sum).collect()
            })
            .collect()
    }

    /// Compares a mask with rows of what has to be kept.
    fn compare(&self, text: &str, expected: impl Fn(usize) -> Vec<Vec<bool>>) {
        let mask = self.mask(text);
        for head in 0..mask.batch_heads() {
            for (i, row) in expected(head).iter().enumerate() {
                let kept: Vec<bool> =
                    (0..row.len()).map(|j| mask.row(head, i).contains(&(j as i32))).collect();
                assert_eq!(&kept, row, "{text}, head {head}, row {i}");
            }
        }
    }

    fn grid(&self) -> Grid {
        self.orders.q.layout().block_grid().unwrap()
    }

    /// Compares with a rule over places of blocks.
    fn compare_places(&self, text: &str, keeps: impl Fn([i64; 3], [i64; 3]) -> bool) {
        let grid = self.grid();
        let mut places = Vec::new();
        for t in 0..grid.t as i64 {
            for h in 0..grid.h as i64 {
                for w in 0..grid.w as i64 {
                    places.push([t, h, w]);
                }
            }
        }
        let rows: Vec<Vec<bool>> =
            places.iter().map(|&q| places.iter().map(|&k| keeps(q, k)).collect()).collect();
        self.compare(text, |_| rows.clone());
    }
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// Keeps the largest values one after the other until `enough(sum before, count before)`.
fn largest_until(values: &[f64], enough: impl Fn(f64, usize) -> bool) -> Vec<bool> {
    let mut kept = vec![false; values.len()];
    let (mut sum, mut count) = (0.0, 0);
    while count < values.len() && !enough(sum, count) {
        let best = (0..values.len()).filter(|&j| !kept[j]).max_by(|&a, &b| values[a].total_cmp(&values[b]));
        let best = best.unwrap();
        kept[best] = true;
        sum += values[best];
        count += 1;
    }
    kept
}

#[test]
fn published_strings_read_as_they_are_written() {
    for text in ["dense", "nabla-0.7", "sta-11-3-3", "nabla-0.6_sta-11-3-3", "vsa-0.2@stac-3-3-3_sta-1-1-1"] {
        assert_eq!(policy(text).to_string(), text);
    }
    assert_eq!(policy("nabla-0.70_sta-03-3-3").to_string(), "nabla-0.7_sta-3-3-3");
    assert_eq!(policy("nabla-0.7"), Policy::nabla(0.7));
}

#[test]
fn every_example_of_the_registry_reads_or_says_what_it_lacks() {
    for entry in registry() {
        match entry.example.parse::<Policy>() {
            Ok(policy) => assert_eq!(policy.to_string(), entry.example),
            Err(error) if entry.example.contains(':') => {
                assert!(
                    error.to_string().contains("no such file") || error.to_string().contains("os error"),
                    "{error}"
                );
            }
            Err(error) => {
                assert!(entry.name == "chipmunk" && error.to_string().contains("block mask"), "{error}")
            }
        }
        assert!(entry.usage.starts_with(entry.name) && entry.example.starts_with(entry.name));
    }
}

#[test]
fn malformed_policies_are_refused() {
    for text in [
        "",
        "nabla",
        "nabla-",
        "nabla-1.1",
        "nabla--0.1",
        "nabla-NaN",
        "sta-3-3",
        "sta-0-3-3",
        "sta-3-3-3-3",
        "nabla-0.5_nabla-0.6",
        "topk-5",
        "dense_sta-3-3-3",
        "sta-99999999999999999999-1-1",
        "_",
        "@",
        "nabla-0.5@",
        "vdit",
        "vdit-full-2",
        "vdit-diagonal-0",
        "vdit-zigzag-2",
        "svg-2",
        "svg-sideways-2",
        "xattn-0-0.9",
        "xattn-8",
        "radial-0",
        "radial-inf",
        "iwin-0",
        "lists",
        "lists-1:x",
        "dam-0.1",
        "paro-abc:x",
        "heads:",
        "nabla-0.5:x",
    ] {
        assert!(text.parse::<Policy>().is_err(), "{text}");
    }
    let message = "nabbla-0.5".parse::<Policy>().unwrap_err().to_string();
    let list = message.split("(both): ").nth(1).unwrap();
    assert!(list.starts_with("nabla-MASS") && list.contains("heads:FILE"), "the nearest first: {message}");
}

#[test]
fn a_window_is_not_clamped_at_the_edges_and_its_clamped_twin_is() {
    let order = TokenOrder::fractal(Grid { t: 1, h: 8, w: 32 }, 64).unwrap();
    let orders = Orders { q: order.clone(), kv: order };
    let bits = |text| policy(text).static_bitmap(&orders).unwrap().unwrap();
    assert_eq!(bits("sta-1-1-3"), [0b0011, 0b0111, 0b1110, 0b1100]);
    assert_eq!(bits("stac-1-1-3"), [0b0111, 0b0111, 0b1110, 0b1110]);
    // "STA by NATTEN's definition": every query of a clamped window has as many neighbours.
    let mask = Case::new("video:5,40,40,1,8").mask("stac-3-3-3");
    assert!(mask.kv_num_blocks().iter().all(|&count| count == 27));
}

#[test]
fn a_policy_that_needs_a_grid_says_what_to_do() {
    let order = TokenOrder::linear(256, 64).unwrap();
    let orders = Orders { q: order.clone(), kv: order };
    for text in ["sta-1-1-3", "stac-1-1-3", "radial", "svg-spatial-1", "iwin-2", "vdit-diagonals-1"] {
        let message = policy(text).check(1, &orders).unwrap_err().to_string();
        assert!(message.contains("--grid") && message.contains(text), "{message}");
    }
}

#[test]
fn rules_of_places_keep_what_they_say() {
    let case = Case::new(RAGGED);
    let grid = case.grid();
    assert_eq!((grid.t, grid.h, grid.w), (3, 3, 4));
    case.compare_places("sta-3-1-3", |q, k| {
        (q[0] - k[0]).abs() <= 1 && q[1] == k[1] && (q[2] - k[2]).abs() <= 1
    });
    let clamp = |x: i64, low: i64, high: i64| {
        if x < low {
            low
        } else if x > high {
            high
        } else {
            x
        }
    };
    case.compare_places("stac-3-3-3", |q, k| {
        let sizes = [3, 3, 4];
        (0..3).all(|a| (clamp(q[a], 1, sizes[a] - 2) - k[a]).abs() <= 1)
    });
    case.compare_places("fps-1-3-3", |q, k| {
        q[0] == k[0] && (clamp(q[1], 1, 1) - k[1]).abs() <= 1 && (clamp(q[2], 1, 2) - k[2]).abs() <= 1
    });
    case.compare_places("iwin-2", |q, k| q[0] == k[0] && (q[1] - k[1]) % 2 == 0 && (q[2] - k[2]) % 2 == 0);
    let index = |p: [i64; 3]| (p[0] * 3 + p[1]) * 4 + p[2];
    case.compare_places("svg-spatial-1", |q, k| (index(q) - index(k)).abs() < 12 || k[0] == 0);
    // 2 frames of 12 places in an order where the 3 frames of a place stand together: 8 places.
    let at = |p: [i64; 3]| p[1] * 4 + p[2];
    case.compare_places("svg-temporal-2", |q, k| (at(q) - at(k)).abs() < 8 || k[0] == 0);
    case.compare_places("vdit-diagonal-2", |q, k| (index(q) - index(k)).abs() <= 2);
    case.compare_places("vdit-diagonals-1", |q, k| (at(q) - at(k)).abs() <= 1);
    case.compare_places("vdit-full", |_, _| true);
    case.compare_places("vdit-skip", |_, _| false);
}

#[test]
fn radial_bands_halve_with_the_distance_in_frames() {
    // 16 frames of 32 x 32 tokens: 1,024 of them, 16 blocks. By the published formula the band between frames d apart is
    // 2^bits(1024) / 2^bits(d) = 2048 / 2^bits(d) tokens: 512 for 2 and 3, 256 for 4 to 7, 128 for 8 to 15.
    let case = Case::new("video:16,32,32,1,8");
    let at = |p: [i64; 3]| p[1] * 4 + p[2];
    case.compare_places("radial", |q, k| {
        let width = match (q[0] - k[0]).abs() {
            0 => 1024,
            1..=3 => 512,
            4..=7 => 256,
            _ => 128,
        };
        k[0] == 0 || (at(q) - at(k)).abs() * 64 <= width
    });
    // Of 128 tokens a frame, bands of less than a block: 256 / 2^bits(d) is 64 for 2 and 3, 32 for 4 to 7 (every second
    // frame), 16 for 8 to 15 (every fourth).
    let case = Case::new("video:16,8,16,1,8");
    case.compare_places("radial", |q, k| {
        let (d, apart) = ((q[0] - k[0]).abs(), (q[2] - k[2]).abs());
        let kept = match d {
            0 => true,
            1 => apart * 64 <= 64,
            2 | 3 => apart * 64 <= 64,
            4..=7 => d % 2 == 0 && apart * 64 <= 64,
            _ => d % 4 == 0 && apart * 64 <= 64,
        };
        k[0] == 0 || kept
    });
}

#[test]
fn rules_of_means_keep_what_they_say() {
    let case = Case::new(RAGGED);
    let blocks = case.orders.q.layout().blocks();
    case.compare("nabla-0.6", |head| {
        // What may be dropped: the smallest, while their sum stays below 1 - 0.6.
        case.pooled_map(head)
            .iter()
            .map(|row| {
                let mut sorted = row.clone();
                sorted.sort_by(f64::total_cmp);
                let mut sum = 0.0;
                let dropped = sorted
                    .iter()
                    .take_while(|p| {
                        sum += **p;
                        sum < 0.4
                    })
                    .count();
                let least = sorted[dropped];
                row.iter().map(|p| *p >= least).collect()
            })
            .collect()
    });
    for (text, count) in [("vsa-0.1", 4), ("sla-0.1", 3), ("vsa-0.5", 18), ("sla-0.01", 1)] {
        assert_eq!(blocks, 36);
        case.compare(text, |head| {
            case.pooled_map(head).iter().map(|row| largest_until(row, |_, kept| kept == count)).collect()
        });
    }
    case.compare("vdit-stripe-3", |head| {
        let map = case.pooled_map(head);
        let columns: Vec<f64> = (0..blocks).map(|j| map.iter().map(|row| row[j]).sum()).collect();
        vec![largest_until(&columns, |_, kept| kept == 3); blocks]
    });
    case.compare("vmoba-0.5", |head| {
        let map = case.pooled_map(head);
        let cells: Vec<f64> = map.iter().flatten().copied().collect();
        let kept = largest_until(&cells, |sum, _| sum >= 0.5 * blocks as f64);
        let best = |row: &[f64], j: usize| row.iter().all(|p| *p <= row[j]);
        map.iter()
            .enumerate()
            .map(|(i, row)| (0..blocks).map(|j| kept[i * blocks + j] || best(row, j)).collect())
            .collect()
    });
}

#[test]
fn blocks_that_differ_within_are_kept_whole_by_sparge() {
    let case = Case::new(RAGGED);
    let cosine = |a: &[f64], b: &[f64]| dot(a, b) / (dot(a, a).sqrt() * dot(b, b).sqrt());
    let alike = |tokens: &Vec<Vec<f64>>, least: f64| {
        let all = tokens.iter().flat_map(|a| tokens.iter().map(move |b| cosine(a, b)));
        all.sum::<f64>() / (tokens.len() * tokens.len()) as f64 > least
    };
    for least in [0.3, 0.6] {
        let mut mixed = [0, 0];
        let expected = |head: usize| -> Vec<Vec<bool>> {
            let q: Vec<bool> = case.blocks(&case.qkv.q, head).iter().map(|t| alike(t, least)).collect();
            let k: Vec<bool> = case.blocks(&case.qkv.k, head).iter().map(|t| alike(t, least)).collect();
            let map = case.pooled_map(head);
            map.iter()
                .zip(&q)
                .map(|(row, q)| {
                    // Softmax over the blocks that are alike alone.
                    let sum: f64 = row.iter().zip(&k).filter(|(_, k)| **k).map(|(p, _)| p).sum();
                    let own: Vec<f64> =
                        row.iter().zip(&k).map(|(p, k)| if *k { p / sum } else { -1.0 }).collect();
                    // Published: a count of the sorted cumulative sums that are at most 0.7; here at least one.
                    let mut sorted = own.clone();
                    sorted.sort_by(|a, b| b.total_cmp(a));
                    let cumulative = |n: usize| sorted[..=n].iter().sum::<f64>();
                    let within = (0..sorted.len()).filter(|&n| sorted[n] >= 0.0 && cumulative(n) <= 0.7);
                    let count = within.count().max(1);
                    let chosen = largest_until(&own, |_, kept| kept == count);
                    (0..row.len()).map(|j| !q || !k[j] || chosen[j]).collect()
                })
                .collect()
        };
        case.compare(&format!("sparge-0.7-{least}"), expected);
        for head in 0..2 {
            for tokens in case.blocks(&case.qkv.k, head) {
                mixed[usize::from(alike(&tokens, least))] += 1;
            }
        }
        assert!(mixed[0] + mixed[1] == 72 && mixed[1] > 0, "{mixed:?}");
    }
}

#[test]
fn antidiagonals_stand_for_their_block() {
    let case = Case::new("video:2,16,16,2,16");
    let (stride, mass) = (8, 0.8);
    case.compare("xattn-8-0.8", |head| {
        let (q, k) = (case.blocks(&case.qkv.q, head), case.blocks(&case.qkv.k, head));
        let scale = f64::from(case.qkv.problem().softmax_scale);
        let blocks = q.len();
        let mut estimate = vec![vec![0.0; blocks]; blocks];
        for (i, q) in q.iter().enumerate() {
            for m in 0..q.len() / stride {
                // The sum over the antidiagonal that starts at row m * stride + stride - 1 and column n * stride.
                let score = |k: &Vec<Vec<f64>>, n: usize| {
                    (0..stride).map(|s| dot(&q[m * stride + stride - 1 - s], &k[n * stride + s])).sum::<f64>()
                };
                let e: Vec<Vec<f64>> = k
                    .iter()
                    .map(|k| {
                        (0..k.len() / stride).map(|n| (score(k, n) * scale / stride as f64).exp()).collect()
                    })
                    .collect();
                let sum: f64 = e.iter().flatten().sum();
                for (j, e) in e.iter().enumerate() {
                    estimate[i][j] += e.iter().sum::<f64>() / sum;
                }
            }
        }
        estimate
            .iter()
            .map(|row| {
                let total: f64 = row.iter().sum();
                largest_until(row, |sum, _| sum >= mass * total)
            })
            .collect()
    });
    let message = policy("xattn-7-0.8").build(&case.qkv, &case.orders).unwrap_err().to_string();
    assert!(message.contains("multiple of its stride of 7") && message.contains("64"), "{message}");
}

#[test]
fn unions_and_intersections_are_those_of_their_terms() {
    let case = Case::new(RAGGED);
    let bytes = |text: &str| case.mask(text).to_bytes();
    let (a, b) = (bytes("vsa-0.3"), bytes("sta-3-3-1"));
    let join = |f: fn((&u8, &u8)) -> u8| a.iter().zip(&b).map(f).collect::<Vec<u8>>();
    assert_eq!(bytes("vsa-0.3_sta-3-3-1"), join(|(a, b)| a | b));
    assert_eq!(bytes("vsa-0.3@sta-3-3-1"), join(|(a, b)| a & b));
    let both = bytes("nabla-0.5@sta-3-3-3_sta-1-1-1");
    assert!(both.iter().zip(bytes("nabla-0.5_sta-1-1-1")).all(|(a, b)| *a <= b));
}

#[test]
fn kernels_build_what_they_can_and_the_host_the_rest() {
    for text in ["nabla-0.5", "sta-3-3-3", "nabla-0.5_stac-3-3-3_radial"] {
        assert!(policy(text).is_for_kernels(), "{text}");
    }
    for text in ["dense", "nabla-0.5@sta-3-3-3", "vsa-0.1", "nabla-0.5_vsa-0.1"] {
        assert!(!policy(text).is_for_kernels(), "{text}");
    }
    assert_eq!(policy("sta-1-1-1_nabla-0.25").mass(), Some(0.25));
    assert_eq!(policy("nabla-0.25@sta-1-1-1").mass(), None, "what is cut has no such threshold");
}

#[test]
fn files_say_what_is_kept_for_each_head() {
    use crate::io::{Element, NamedTensor, write_safetensors};
    let case = Case::new(RAGGED);
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).display().to_string();
    let mask = case.mask("vsa-0.3");
    let write = |name: &str, tensors: &[NamedTensor<'_>]| {
        write_safetensors(std::path::Path::new(&path(name)), tensors, &Default::default()).unwrap();
    };
    let cells = mask.to_bytes();
    let bytes = NamedTensor { name: "mask", shape: &[1, 2, 36, 36], element: Element::U8, bytes: &cells };
    write("cells_a-b@c.safetensors", &[bytes]);
    assert_eq!(case.mask(&format!("lists:{}", path("cells_a-b@c.safetensors"))), mask);
    let lists = [
        NamedTensor {
            name: "kv_num_blocks",
            shape: &[1, 2, 36],
            element: Element::I32,
            bytes: bytemuck::cast_slice(mask.kv_num_blocks()),
        },
        NamedTensor {
            name: "kv_indices",
            shape: &[1, 2, 36, mask.max_blocks()],
            element: Element::I32,
            bytes: bytemuck::cast_slice(mask.kv_indices()),
        },
    ];
    write("lists.safetensors", &lists);
    assert_eq!(case.mask(&format!("lists:{}", path("lists.safetensors"))), mask);

    let map: Vec<f32> = (0..2 * 36 * 36).map(|n| (n % 97) as f32 / 97.0).collect();
    let map_bytes = bytemuck::cast_slice(&map);
    write(
        "map.safetensors",
        &[NamedTensor { name: "map", shape: &[2, 36, 36], element: Element::F32, bytes: map_bytes }],
    );
    let dam = case.mask(&format!("dam-0.5:{}", path("map.safetensors"))).to_bytes();
    assert!(dam.iter().zip(&map).all(|(kept, p)| (*kept == 1) == (*p >= 0.5)));

    std::fs::write(path("heads.json"), r#"["vsa-0.3", "vdit-diagonal-2"]"#).unwrap();
    let heads = case.mask(&format!("heads:{}", path("heads.json"))).to_bytes();
    assert_eq!(heads[..36 * 36], cells[..36 * 36]);
    assert_eq!(heads[36 * 36..], case.mask("vdit-diagonal-2").to_bytes()[36 * 36..]);

    let short = Case::new("video:1,16,16,2,16");
    let wrong = policy(&format!("lists:{}", path("lists.safetensors"))).build(&short.qkv, &short.orders);
    let message = wrong.unwrap_err().to_string();
    assert!(message.contains("4 x 4") && message.contains("36"), "{message}");
    let message = format!("lists:{}", path("map.safetensors")).parse::<Policy>().unwrap_err().to_string();
    assert!(message.contains("kv_num_blocks") && message.contains("map"), "{message}");
    std::fs::write(path("loop.json"), format!(r#"["heads:{}"]"#, path("loop.json"))).unwrap();
    assert!(format!("heads:{}", path("loop.json")).parse::<Policy>().is_err());
}

#[test]
fn the_text_of_a_policy_says_what_its_file_does() {
    use crate::io::{Element, NamedTensor, write_safetensors};
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).display().to_string();
    let write = |cells: [u8; 4], more: &[(&str, &str)]| {
        let mask = NamedTensor { name: "mask", shape: &[1, 2, 2], element: Element::U8, bytes: &cells };
        let metadata = more.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        write_safetensors(path("mask.safetensors").as_ref(), &[mask], &metadata).unwrap();
    };
    write([1, 0, 0, 1], &[]);
    let lists = format!("sta-1-1-1_lists:{}", path("mask.safetensors"));
    std::fs::write(path("heads.json"), format!(r#"["lists:{}", "dense"]"#, path("mask.safetensors")))
        .unwrap();
    let heads = format!("heads:{}", path("heads.json"));
    let (first, of_heads) = (policy(&lists), policy(&heads));
    assert!(first.has_file() && !policy("sta-1-1-1").has_file());
    let text = first.to_string();
    let (name, hash) = text.rsplit_once('#').unwrap();
    assert_eq!((name, hash.len()), (lists.as_str(), 16), "{text}");
    assert_eq!(policy(&text), first, "what is written reads again");

    write([1, 0, 0, 1], &[("made", "elsewhere")]);
    assert_eq!(policy(&lists), first, "numbers count, what else a file has does not");
    write([1, 1, 0, 1], &[]);
    assert_ne!(policy(&lists), first);
    assert_ne!(policy(&heads), of_heads, "a list says what the files of its policies say");
    let message = text.parse::<Policy>().unwrap_err().to_string();
    assert!(message.contains(hash) && message.contains("has changed since"), "{message}");
}

proptest! {
    #[test]
    fn no_text_makes_parsing_panic(text in "[a-z0-9._@:-]{0,40}") {
        if let Ok(policy) = text.parse::<Policy>() {
            let again: Policy = policy.to_string().parse().unwrap();
            prop_assert_eq!(again.to_string(), policy.to_string());
        }
    }

    #[test]
    fn every_row_keeps_something_where_the_rule_promises_it(
        rule in prop::sample::select(vec!["nabla-0", "vsa-0", "sla-0", "vmoba-0", "sparge-0-0", "xattn-8-0", "radial", "svg-spatial-1"]),
        seed in 0u64..4,
    ) {
        let spec: GenerateSpec = "video:2,12,20,1,8".parse().unwrap();
        let qkv = generate_video(&spec, seed);
        let orders = Orders::new(&qkv.problem(), MaskBlock::square(64)).unwrap();
        let mask = policy(rule).build(&qkv, &orders).unwrap();
        prop_assert!(mask.kv_num_blocks().iter().all(|&count| count > 0), "{}", rule);
    }
}

#[test]
fn a_policy_is_shared_between_threads() {
    fn assert_shared<T: Send + Sync + Clone>(_: T) {}
    assert_shared(Arc::new(policy("nabla-0.5_sta-3-3-3")));
}
