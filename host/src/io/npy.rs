//! Inputs as NumPy `.npy` files: magic, version, header, data.
//!
//! The header is a Python literal. Only the three keys that the format has are read, by a flat scanner: nothing
//! nests, so no input can exhaust the stack.

use std::{
    fs,
    io::{self, Read},
    path::Path,
};

use super::{
    Element, InputError, InputFault, ReadOptions,
    element::read_floats,
    error::excerpt,
    map, open_regular,
    plan::{Declared, Plan, for_each_tensor},
};
use crate::tensor::Qkv;

pub(super) const MAGIC: &[u8] = b"\x93NUMPY";

const FORMAT: &str = ".npy file";
const SAVE_AGAIN: &str = "save it again with numpy.save";

/// NumPy pads headers to a few hundred bytes and itself refuses more than 10,000.
const MAX_HEADER_BYTES: usize = 1 << 16;

fn broken(expected: impl Into<String>, got: impl Into<String>) -> InputFault {
    InputFault::Broken { format: FORMAT.into(), expected: expected.into(), got: got.into(), help: SAVE_AGAIN }
}

/// Reads q.npy, k.npy and v.npy of a folder.
pub(super) fn read_folder(folder: &Path, options: &ReadOptions) -> Result<Qkv, InputError> {
    let paths = ["q.npy", "k.npy", "v.npy"].map(|name| folder.join(name));
    let files = for_each_tensor(|i, tensor| {
        let fail = |fault| InputError::new(&paths[i], fault);
        let file_type = match fs::metadata(&paths[i]) {
            Ok(metadata) => metadata.file_type(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(InputError::new(
                    folder,
                    InputFault::MissingTensor { tensor, found: arrays_in(folder) },
                ));
            }
            Err(error) => return Err(fail(error.into())),
        };
        let map = open_regular(&paths[i], file_type).and_then(|file| map(&file)).map_err(fail)?;
        if map.is_empty() {
            return Err(fail(InputFault::Empty));
        }
        let (header, declared) = read_header(tensor, &mut &map[..]).map_err(fail)?;
        check_data(&declared, (map.len() - header) as u64).map_err(fail)?;
        Ok((map, header, declared))
    })?;
    let fail = |fault| InputError::new(folder, fault);
    let declared = files.each_ref().map(|(_, _, declared)| declared.clone());
    let plan = Plan::new(&declared, None, options).map_err(fail)?;
    let tensors = for_each_tensor(|i, _| {
        let (map, header, declared) = &files[i];
        let floats = read_floats(&mut &map[*header..], declared.element, plan.len(i));
        floats.map_err(|e| InputError::new(&paths[i], e))
    })?;
    plan.finish(tensors, folder.display().to_string()).map_err(fail)
}

/// Names the arrays of a folder, for the message that one is missing.
fn arrays_in(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let mut names: Vec<String> = entries
        .filter_map(|entry| entry.file_name().to_str()?.strip_suffix(".npy").map(str::to_owned))
        .collect();
    names.sort();
    names
}

/// Checks that the data is exactly what type and shape ask for.
pub(super) fn check_data(declared: &Declared, data_len: u64) -> Result<(), InputFault> {
    if declared.bytes() == Some(data_len) {
        return Ok(());
    }
    let shape: Vec<u64> = declared.shape.iter().copied().take(16).collect();
    let what = format!("data for {} {shape:?}", declared.element.safetensors_name());
    let expected = match declared.bytes() {
        Some(bytes) => format!("{bytes} bytes of {what}"),
        None => format!("{what}, more than memory can address"),
    };
    Err(broken(expected, format!("{data_len} bytes")))
}

/// Reads magic, version and header; returns their length in bytes and what they declare.
pub(super) fn read_header(
    tensor: &'static str,
    from: &mut impl Read,
) -> Result<(usize, Declared), InputFault> {
    let mut start = [0; 8];
    fill(from, &mut start, "magic and version")?;
    if !start.starts_with(MAGIC) {
        return Err(broken(
            "a file that starts with \\x93NUMPY",
            format!("'{}'", excerpt(&String::from_utf8_lossy(&start))),
        ));
    }
    let (length, length_bytes) = match start[6] {
        1 => {
            let mut length = [0; 2];
            fill(from, &mut length, "header length")?;
            (usize::from(u16::from_le_bytes(length)), 2)
        }
        2 | 3 => {
            let mut length = [0; 4];
            fill(from, &mut length, "header length")?;
            (u32::from_le_bytes(length) as usize, 4)
        }
        other => return Err(broken("format version 1, 2 or 3", other.to_string())),
    };
    if length > MAX_HEADER_BYTES {
        return Err(broken(
            format!("a header of at most {MAX_HEADER_BYTES} bytes"),
            format!("a declared length of {length}"),
        ));
    }
    let mut header = vec![0; length];
    fill(from, &mut header, "header")?;
    let header = String::from_utf8_lossy(&header);
    let declared = parse_header(tensor, &header)?;
    Ok((start.len() + length_bytes + length, declared))
}

fn fill(from: &mut impl Read, to: &mut [u8], what: &str) -> Result<(), InputFault> {
    from.read_exact(to).map_err(|error| match error.kind() {
        io::ErrorKind::UnexpectedEof => {
            broken(format!("{} bytes of {what}", to.len()), "one that ends earlier")
        }
        _ => error.into(),
    })
}

fn parse_header(tensor: &'static str, header: &str) -> Result<Declared, InputFault> {
    let fault = || {
        broken(
            "a header {'descr': ..., 'fortran_order': ..., 'shape': ...}",
            format!("'{}'", excerpt(header)),
        )
    };
    let descr = value_of(header, "descr").ok_or_else(fault)?;
    let fortran_order = value_of(header, "fortran_order").ok_or_else(fault)?;
    let shape = value_of(header, "shape").ok_or_else(fault)?;

    let element = element_of(tensor, descr)?;
    let shape = parse_shape(shape).ok_or_else(fault)?;
    if fortran_order.starts_with("True") {
        return Err(InputFault::Unsupported {
            tensor,
            expected: "C order (last index fastest)",
            got: "Fortran order".into(),
            help: "save numpy.ascontiguousarray(x)",
        });
    }
    if !fortran_order.starts_with("False") {
        return Err(fault());
    }
    Ok(Declared { element, shape })
}

/// Returns the text after `'key':`, without leading blanks.
fn value_of<'h>(header: &'h str, key: &str) -> Option<&'h str> {
    ['\'', '"'].into_iter().find_map(|quote| {
        let (_, after) = header.split_once(&format!("{quote}{key}{quote}"))?;
        Some(after.trim_start().strip_prefix(':')?.trim_start())
    })
}

fn element_of(tensor: &'static str, descr: &str) -> Result<Element, InputFault> {
    let unsupported = |got: String, help| InputFault::Unsupported {
        tensor,
        expected: "little-endian f2, f4 or f8",
        got,
        help,
    };
    let name = quoted(descr).ok_or_else(|| {
        unsupported("a structured type".into(), "save the field with the numbers as an array of its own")
    })?;
    let (order, kind) = match name.as_bytes().first() {
        Some(b'<' | b'>' | b'=' | b'|') => name.split_at(1),
        _ => ("", name),
    };
    let got = format!("'{}'", excerpt(name));
    let element = match kind {
        "f8" => Element::F64,
        "f4" => Element::F32,
        "f2" => Element::F16,
        _ if kind.starts_with('O') => {
            return Err(unsupported(
                got + " (pickled Python objects)",
                "save a numeric array, x.astype('<f4')",
            ));
        }
        "V2" | "bfloat16" => {
            return Err(unsupported(
                got + " (bfloat16, which NumPy lacks)",
                "write bf16 as safetensors, or save x.astype('<f4')",
            ));
        }
        _ => return Err(unsupported(got, "save x.astype('<f4')")),
    };
    if order == ">" {
        return Err(unsupported(got + " (big-endian)", "save x.astype(x.dtype.newbyteorder('<'))"));
    }
    Ok(element)
}

/// Returns the string literal a text starts with; escapes do not occur in type names.
fn quoted(text: &str) -> Option<&str> {
    let quote = text.chars().next().filter(|c| matches!(c, '\'' | '"'))?;
    text[1..].split_once(quote).map(|(inside, _)| inside)
}

fn parse_shape(text: &str) -> Option<Vec<u64>> {
    let (inside, _) = text.strip_prefix('(')?.split_once(')')?;
    let parts: Vec<&str> = inside.split(',').map(str::trim).collect();
    let (last, first) = parts.split_last()?;
    // A trailing comma is part of the literal of one extent, and allowed after more.
    let extents = if last.is_empty() { first } else { &parts[..] };
    extents.iter().map(|extent| extent.strip_suffix('L').unwrap_or(extent).parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(header: &str) -> Result<Declared, String> {
        parse_header("q", header).map_err(|e| e.to_string())
    }

    #[test]
    fn headers_of_numpy_and_others_are_read() {
        let declared = |element, shape: &[u64]| Ok(Declared { element, shape: shape.to_vec() });
        assert_eq!(
            parse("{'descr': '<f4', 'fortran_order': False, 'shape': (1, 2, 3, 4), }     \n"),
            declared(Element::F32, &[1, 2, 3, 4])
        );
        assert_eq!(
            parse(r#"{"shape":(7,),"descr":"=f2","fortran_order":False}"#),
            declared(Element::F16, &[7])
        );
        assert_eq!(
            parse("{'descr': 'f8', 'fortran_order' : False, 'shape': (2L, 3L)}"),
            declared(Element::F64, &[2, 3])
        );
        assert_eq!(
            parse("{'descr': '<f4', 'fortran_order': False, 'shape': ()}"),
            declared(Element::F32, &[])
        );
    }

    #[test]
    fn types_numpy_has_and_attention_lacks_say_what_to_do() {
        for (descr, expected) in [
            ("'>f4'", "newbyteorder"),
            ("'|O'", "pickled"),
            ("'<V2'", "bfloat16"),
            ("'<i8'", "astype('<f4')"),
            ("'<c8'", "astype('<f4')"),
            ("[('a', '<f4')]", "structured"),
        ] {
            let message =
                parse(&format!("{{'descr': {descr}, 'fortran_order': False, 'shape': (1,)}}")).unwrap_err();
            assert!(message.contains(expected), "{message}");
        }
        let fortran = parse("{'descr': '<f4', 'fortran_order': True, 'shape': (1,)}").unwrap_err();
        assert!(fortran.contains("ascontiguousarray"), "{fortran}");
    }

    #[test]
    fn rubbish_is_refused() {
        for header in [
            "",
            "{}",
            "{'descr': '<f4'}",
            "{'descr': '<f4', 'fortran_order': Maybe, 'shape': (1,)}",
            "{'descr': '<f4', 'fortran_order': False, 'shape': 1}",
            "{'descr': '<f4', 'fortran_order': False, 'shape': (-1,)}",
            "{'descr': '<f4', 'fortran_order': False, 'shape': (1,,2)}",
            "{'descr': '<f4', 'fortran_order': False, 'shape': (99999999999999999999,)}",
            "{'descr': '<f4', 'fortran_order': False, 'shape': (1, 2",
            "{'descr': 'ü",
        ] {
            assert!(parse(header).is_err(), "{header}");
        }
    }

    #[test]
    fn every_version_s_header_length_is_read() {
        let header = b"{'descr': '<f4', 'fortran_order': False, 'shape': (1,)}\n";
        for version in 1..=4u8 {
            let mut file = [MAGIC, &[version, 0]].concat();
            let length = (header.len() as u32).to_le_bytes();
            file.extend(if version == 1 { &length[..2] } else { &length[..] });
            file.extend(header);
            let read = read_header("q", &mut &file[..]);
            if version <= 3 {
                assert_eq!(read.unwrap().0, file.len());
            } else {
                assert!(read.unwrap_err().to_string().contains("version 1, 2 or 3"));
            }
        }
    }
}
