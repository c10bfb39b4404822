//! Inputs in the safetensors format: header length, JSON header, data.
//!
//! The header is checked here rather than by the `safetensors` crate: what is wrong is told with the tensor and
//! numbers concerned, repeated names are noticed, and sums of hostile offsets cannot overflow.

use std::{collections::BTreeMap, fmt};

use serde::{
    Deserialize, Deserializer,
    de::{Error as _, MapAccess, Visitor},
};

use super::{
    Element, InputFault, ReadOptions,
    element::read_floats,
    error::{excerpt, excerpt_of},
    plan::{Declared, Plan, for_each_tensor},
};
use crate::{Grid, tensor::Qkv};

const FORMAT: &str = "safetensors file";
const COPY_AGAIN: &str = "copy or download it again";
const WRITE_AGAIN: &str = "write it again";

/// The format's own bound on headers, so that a lying length is told from a long one.
const MAX_HEADER_BYTES: u64 = 100_000_000;

/// Token orders this project reads: its files name them `raster t,h,w`.
const RASTER_ORDERS: [&str; 2] = ["raster t,h,w", "raster"];

/// Tells whether the first 16 bytes are a plausible header length and the start of a JSON object.
pub(super) fn looks_alike(first: &[u8]) -> bool {
    first.get(6..9) == Some(&[0, 0, b'{'])
}

/// Reads q, k and v from the bytes of a whole file.
pub(super) fn read(file: &[u8], options: &ReadOptions, source: String) -> Result<Qkv, InputFault> {
    let (header, data) = split_header(file)?;
    let header = parse_header(header)?;
    check_offsets(&header, data.len() as u64)?;

    let entries = for_each_tensor(|_, tensor| header.tensor(tensor))?;
    let declared = for_each_tensor(|i, tensor| {
        let element = input_element(tensor, &entries[i].dtype)?;
        Ok::<_, InputFault>(Declared { element, shape: entries[i].shape.clone() })
    })?;
    let grid = if options.grid.is_some() { None } else { header.grid()? };
    header.check_order()?;
    let plan = Plan::new(&declared, grid, options)?;
    let tensors = for_each_tensor(|i, _| {
        // The offsets were checked to ascend and to end with the data.
        let (begin, end) = entries[i].data_offsets;
        read_floats(&mut &data[begin as usize..end as usize], declared[i].element, plan.len(i))
    })?;
    plan.finish(tensors, source)
}

/// A tensor of a file: its name, type and extents, and its bytes.
pub(super) struct Raw<'a> {
    pub(super) name: String,
    pub(super) dtype: String,
    pub(super) shape: Vec<u64>,
    pub(super) bytes: &'a [u8],
}

/// Finds every tensor in the bytes of a whole file.
pub(super) fn tensors(file: &[u8]) -> Result<(BTreeMap<String, String>, Vec<Raw<'_>>), InputFault> {
    let (header, data) = split_header(file)?;
    let header = parse_header(header)?;
    check_offsets(&header, data.len() as u64)?;
    let raw = |(name, entry): (String, Entry)| {
        let (begin, end) = entry.data_offsets;
        Raw { name, dtype: entry.dtype, shape: entry.shape, bytes: &data[begin as usize..end as usize] }
    };
    Ok((header.metadata, header.tensors.into_iter().map(raw).collect()))
}

pub(super) fn broken(expected: impl Into<String>, got: impl Into<String>, help: &'static str) -> InputFault {
    InputFault::Broken { format: FORMAT.into(), expected: expected.into(), got: got.into(), help }
}

fn split_header(file: &[u8]) -> Result<(&[u8], &[u8]), InputFault> {
    let Some((length, rest)) = file.split_first_chunk::<8>() else {
        return Err(broken("8 bytes of header length", format!("{} bytes in all", file.len()), COPY_AGAIN));
    };
    let length = u64::from_le_bytes(*length);
    if length > MAX_HEADER_BYTES {
        let expected = format!("a header of at most {MAX_HEADER_BYTES} bytes");
        return Err(broken(expected, format!("a declared length of {length}"), "it may be another format"));
    }
    rest.split_at_checked(length as usize).ok_or_else(|| {
        broken(
            format!("a header of {length} bytes"),
            format!("a file that ends after {} of them", rest.len()),
            COPY_AGAIN,
        )
    })
}

/// One tensor of a header.
#[derive(Debug, Deserialize)]
struct Entry {
    dtype: String,
    shape: Vec<u64>,
    data_offsets: (u64, u64),
}

/// A header: metadata and tensors in the order they stand.
#[derive(Debug, Default)]
struct Header {
    metadata: BTreeMap<String, String>,
    tensors: BTreeMap<String, Entry>,
}

impl<'de> Deserialize<'de> for Header {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct HeaderVisitor;

        impl<'de> Visitor<'de> for HeaderVisitor {
            type Value = Header;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of tensors")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Header, A::Error> {
                let mut header = Header::default();
                while let Some(name) = map.next_key::<String>()? {
                    if name == "__metadata__" {
                        header.metadata = map.next_value()?;
                    } else {
                        let shown = excerpt(&name);
                        if header.tensors.insert(name, map.next_value()?).is_some() {
                            return Err(A::Error::custom(format_args!(
                                "tensor '{shown}' stands there twice"
                            )));
                        }
                    }
                }
                Ok(header)
            }
        }

        deserializer.deserialize_map(HeaderVisitor)
    }
}

fn parse_header(header: &[u8]) -> Result<Header, InputFault> {
    serde_json::from_slice(header).map_err(|error| {
        let expected = "a JSON header of {name: {dtype, shape, data_offsets}}";
        // A parser's message may quote the file.
        broken(expected, format!("one with an error: {}", excerpt_of(&error.to_string(), 200)), WRITE_AGAIN)
    })
}

/// Checks that the tensors lie one after the other and fill the data exactly, as the format demands.
fn check_offsets(header: &Header, data_len: u64) -> Result<(), InputFault> {
    let mut tensors: Vec<_> = header.tensors.iter().collect();
    tensors.sort_by_key(|(_, entry)| entry.data_offsets);
    let mut position = 0;
    for (name, entry) in tensors {
        let (begin, end) = entry.data_offsets;
        let span = format!("data_offsets [{begin}, {end}] of tensor '{}'", excerpt(name));
        if begin > end {
            return Err(broken("offsets [begin, end] that ascend", span, WRITE_AGAIN));
        }
        if end > data_len {
            return Err(broken(format!("{end} bytes of data for {span}"), format!("{data_len}"), COPY_AGAIN));
        }
        if begin != position {
            let how = if begin < position { "an overlap" } else { "a gap" };
            return Err(broken(format!("{span} to begin at {position}"), how, WRITE_AGAIN));
        }
        position = end;
        if let Some(element) = Element::from_safetensors_name(&entry.dtype) {
            let needed = Declared { element, shape: entry.shape.clone() }.bytes();
            if needed != Some(end - begin) {
                let needed = needed
                    .map_or_else(|| "more than memory can address".to_owned(), |n| format!("{n} bytes"));
                let shape: Vec<u64> = entry.shape.iter().copied().take(16).collect();
                let got = format!("{needed} for {} {shape:?}", entry.dtype);
                return Err(broken(format!("{span} to span its type and shape"), got, WRITE_AGAIN));
            }
        }
    }
    if position == data_len {
        Ok(())
    } else {
        Err(broken(
            format!("{position} bytes of data, the end of the last tensor"),
            format!("{data_len}"),
            WRITE_AGAIN,
        ))
    }
}

fn input_element(tensor: &'static str, name: &str) -> Result<Element, InputFault> {
    Element::from_safetensors_name(name).filter(|element| element.input_dtype().is_some()).ok_or_else(|| {
        InputFault::Unsupported {
            tensor,
            expected: "F32, F16, BF16 or F64",
            got: excerpt(name),
            help: "convert it to one of these",
        }
    })
}

impl Header {
    fn tensor(&self, tensor: &'static str) -> Result<&Entry, InputFault> {
        self.tensors.get(tensor).ok_or_else(|| {
            // A few names and the count of the rest are all that a message shows.
            InputFault::MissingTensor { tensor, found: self.tensors.keys().cloned().collect() }
        })
    }

    fn grid(&self) -> Result<Option<Grid>, InputFault> {
        let Some(text) = self.metadata.get("grid") else { return Ok(None) };
        text.parse().map(Some).map_err(|_| InputFault::Metadata {
            key: "grid",
            expected: "T,H,W, each at least 1",
            got: excerpt(text),
            help: "correct it or give --grid T,H,W",
        })
    }

    fn check_order(&self) -> Result<(), InputFault> {
        match self.metadata.get("order") {
            Some(order) if !RASTER_ORDERS.contains(&order.trim()) => Err(InputFault::Metadata {
                key: "order",
                expected: "'raster t,h,w'",
                got: excerpt(order),
                help: "reorder the tokens to raster order (columns fastest, frames slowest): blocks are cut here",
            }),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use ::safetensors::tensor::{Dtype as CrateDtype, TensorView, serialize};
    use proptest::prelude::*;

    use super::*;
    use crate::{
        Dtype,
        io::{NamedTensor, read_qkv, read_safetensors_bytes, write_safetensors},
        tensor::{Tensor, TensorData},
    };

    /// Writes q, k and v of shape [1,1,2,2] in f32 with the format's own writer.
    fn file(metadata: &[(&str, &str)]) -> Vec<u8> {
        let bytes: Vec<u8> = [1f32, 2.0, 3.0, 4.0].iter().flat_map(|x| x.to_le_bytes()).collect();
        let view = || TensorView::new(CrateDtype::F32, vec![1, 1, 2, 2], &bytes).unwrap();
        let metadata = metadata.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        serialize(["q", "k", "v"].map(|name| (name, view())), Some(metadata)).unwrap()
    }

    fn read(bytes: &[u8], grid: Option<&str>) -> Result<Qkv, String> {
        let options = ReadOptions { grid: grid.map(|g| g.parse().unwrap()), ..ReadOptions::default() };
        read_safetensors_bytes(bytes, "built in", &options).map_err(|e| e.to_string())
    }

    #[test]
    fn files_of_the_format_s_own_writer_are_read() {
        let qkv = read(&file(&[("grid", "1,2,1"), ("order", "raster t,h,w")]), None).unwrap();
        assert_eq!(qkv.v.data, TensorData::F32(vec![1.0, 2.0, 3.0, 4.0]));
        assert_eq!(qkv.grid, Some(Grid { t: 1, h: 2, w: 1 }));
        assert_eq!(qkv.source, "built in");
    }

    #[test]
    fn the_grid_given_replaces_the_grid_of_the_file() {
        for metadata in [&[][..], &[("grid", "1,2,1")], &[("grid", "rubbish")]] {
            let qkv = read(&file(metadata), Some("2,1,1")).unwrap();
            assert_eq!(qkv.grid, Some(Grid { t: 2, h: 1, w: 1 }));
        }
        assert_eq!(read(&file(&[]), None).unwrap().grid, None);
    }

    #[test]
    fn other_token_orders_are_refused() {
        for order in ["fractal: t, h/8, w/8, 8, 8", "raster h,w,t", ""] {
            let message = read(&file(&[("order", order)]), None).unwrap_err();
            assert!(message.contains("expected 'raster t,h,w'") && message.contains(order), "{message}");
        }
    }

    #[test]
    fn bytes_at_odd_addresses_are_read() {
        let mut shifted = vec![0];
        shifted.extend(file(&[]));
        assert!(read(&shifted[1..], None).is_ok());
    }

    #[test]
    fn extents_whose_sum_overflows_are_refused() {
        let json = format!(r#"{{"q":{{"dtype":"U8","shape":[{0}],"data_offsets":[0,{0}]}}}}"#, u64::MAX);
        let mut bytes = (json.len() as u64).to_le_bytes().to_vec();
        bytes.extend(json.as_bytes());
        assert!(read(&bytes, None).unwrap_err().contains("expected 18446744073709551615 bytes of data"));
    }

    proptest! {
        // Every case waits for the disk.
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn what_is_written_is_read_bit_for_bit(
            (b, h, t, rows, w, d) in (1usize..3, 1usize..3, 1usize..4, 1usize..4, 1usize..4, 1usize..9),
            dtype in prop::sample::select(vec![Dtype::F32, Dtype::F16, Dtype::Bf16]),
            seed in any::<u32>(),
        ) {
            let grid = Grid { t, h: rows, w };
            let shape = [b, h, grid.tokens(), d];
            let tensor = |offset: u32| {
                let number = |i: usize| f32::from_bits((seed.wrapping_add(offset) ^ i as u32).wrapping_mul(0x9E37_79B9));
                // Clamped so that no type overflows; NaN becomes 0.
                let values: Vec<f32> = (0..shape.iter().product())
                    .map(|i| if number(i).is_nan() { 0.0 } else { number(i).clamp(-6e4, 6e4) })
                    .collect();
                Tensor { shape, data: TensorData::from_f32(&values, dtype) }
            };
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("in.safetensors");
            let written = Qkv { q: tensor(1), k: tensor(2), v: tensor(3), grid: Some(grid), softmax_scale: None, source: path.display().to_string() };
            let named = [("q", &written.q), ("k", &written.k), ("v", &written.v)].map(|(name, tensor)| NamedTensor {
                name, shape: &tensor.shape, element: dtype.into(), bytes: tensor.data.bytes(),
            });
            let metadata = [("grid".to_owned(), grid.to_string())].into();
            write_safetensors(&path, &named, &metadata).unwrap();
            let read = read_qkv(&path, &ReadOptions::default()).unwrap();
            prop_assert_eq!(read.content_hash(), written.content_hash());
            prop_assert_eq!(read, written);
        }
    }
}
