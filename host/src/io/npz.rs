//! Inputs as NumPy `.npz` archives: a zip of `.npy` files, stored or deflated.

use std::{
    fs::File,
    io::{BufReader, Read},
};

use zip::{CompressionMethod, ZipArchive, read::ZipFile, result::ZipError};

use super::{
    InputFault, ReadOptions,
    element::read_floats,
    npy,
    plan::{Declared, Plan, for_each_tensor},
};
use crate::tensor::{Qkv, TensorData};

pub(super) const MAGIC: &[u8] = b"PK\x03\x04";

const FORMAT: &str = ".npz archive";
const SAVE_AGAIN: &str = "save it again with numpy.savez";

/// Deflate turns one byte into at most 1032: a member that claims more is no honest archive.
const MAX_DEFLATE_RATIO: u64 = 1032;

type Archive = ZipArchive<BufReader<File>>;

fn broken(expected: impl Into<String>, got: impl Into<String>) -> InputFault {
    InputFault::Broken { format: FORMAT.into(), expected: expected.into(), got: got.into(), help: SAVE_AGAIN }
}

fn zip_fault(error: ZipError) -> InputFault {
    match error {
        ZipError::Io(error) if error.kind() != std::io::ErrorKind::UnexpectedEof => error.into(),
        other => broken("a readable zip file", other.to_string()),
    }
}

/// Reads the members q.npy, k.npy and v.npy.
pub(super) fn read(file: File, options: &ReadOptions, source: String) -> Result<Qkv, InputFault> {
    let file_len = file.metadata()?.len();
    let mut archive = ZipArchive::new(BufReader::new(file)).map_err(zip_fault)?;
    // Headers first: shapes that make no problem are refused before anything is unpacked.
    let headers = for_each_tensor(|_, tensor| read_header(&mut archive, tensor, file_len))?;
    let plan = Plan::new(&headers.each_ref().map(|(_, declared)| declared.clone()), None, options)?;
    let tensors = for_each_tensor(|i, tensor| {
        let (header, declared) = &headers[i];
        read_data(&mut archive, tensor, *header, declared, plan.len(i))
    })?;
    plan.finish(tensors, source)
}

fn member<'a>(
    archive: &'a mut Archive,
    tensor: &'static str,
) -> Result<ZipFile<'a, BufReader<File>>, InputFault> {
    let name = format!("{tensor}.npy");
    let Some(index) = archive.index_for_name(&name) else {
        let found = archive.file_names().map(|n| n.strip_suffix(".npy").unwrap_or(n).to_owned());
        return Err(InputFault::MissingTensor { tensor, found: found.collect() });
    };
    archive.by_index(index).map_err(zip_fault)
}

/// Reads a member's header and checks the member's size against it and against what its bytes can unpack to.
fn read_header(
    archive: &mut Archive,
    tensor: &'static str,
    file_len: u64,
) -> Result<(usize, Declared), InputFault> {
    let mut member = member(archive, tensor)?;
    let (packed, size) = (member.compressed_size(), member.size());
    let possible = match member.compression() {
        CompressionMethod::Stored => packed,
        CompressionMethod::Deflated => packed.saturating_mul(MAX_DEFLATE_RATIO),
        other => return Err(broken("stored or deflated members", format!("{other} for '{tensor}.npy'"))),
    };
    if packed > file_len || size > possible {
        let got =
            format!("{size} bytes declared for '{tensor}.npy', {packed} packed, in a file of {file_len}");
        return Err(broken("sizes that fit the file", got));
    }
    let checked = npy::read_header(tensor, &mut member).and_then(|(header, declared)| {
        npy::check_data(&declared, size.saturating_sub(header as u64))?;
        Ok((header, declared))
    });
    checked.map_err(|fault| match fault {
        InputFault::Broken { expected, got, help, .. } => {
            InputFault::Broken { format: format!("member '{tensor}.npy'"), expected, got, help }
        }
        other => other,
    })
}

/// Unpacks a member behind its header; its size has been checked.
fn read_data(
    archive: &mut Archive,
    tensor: &'static str,
    header: usize,
    declared: &Declared,
    len: usize,
) -> Result<TensorData, InputFault> {
    let mut member = member(archive, tensor)?;
    let unpack = |member: &mut ZipFile<'_, BufReader<File>>| -> std::io::Result<TensorData> {
        member.read_exact(&mut vec![0; header])?;
        let data = read_floats(member, declared.element, len)?;
        // The checksum is compared when the end is reached, and bytes beyond the declared size are a lie.
        match member.read(&mut [0])? {
            0 => Ok(data),
            _ => Err(std::io::Error::other("more bytes than declared")),
        }
    };
    unpack(&mut member)
        .map_err(|error| broken(format!("'{tensor}.npy' to unpack to its declared size"), error.to_string()))
}
