//! Broken input files: each gets one message that says what was expected, what was got, and what to do.

use std::{
    fs,
    io::{Cursor, Write},
    path::Path,
};

use nabla_host::io::{ReadOptions, read_qkv};
use proptest::test_runner::{RngAlgorithm, TestRng};
use zip::{CompressionMethod, ZipWriter, write::SimpleFileOptions};

/// A safetensors file of any header and data.
fn safetensors(header: &str, data: &[u8]) -> Vec<u8> {
    let mut file = (header.len() as u64).to_le_bytes().to_vec();
    file.extend(header.as_bytes());
    file.extend(data);
    file
}

fn entry(name: &str, dtype: &str, shape: &str, begin: u64, end: u64) -> String {
    format!(r#""{name}":{{"dtype":"{dtype}","shape":{shape},"data_offsets":[{begin},{end}]}}"#)
}

/// q, k and v of one type and shape, each of `bytes` zero bytes.
fn even(dtype: &str, shape: &str, bytes: u64) -> Vec<u8> {
    each(dtype, [shape; 3], [bytes; 3], "")
}

fn each(dtype: &str, shapes: [&str; 3], bytes: [u64; 3], metadata: &str) -> Vec<u8> {
    let mut position = 0;
    let mut entries = Vec::new();
    for ((name, shape), bytes) in ["q", "k", "v"].into_iter().zip(shapes).zip(bytes) {
        entries.push(entry(name, dtype, shape, position, position + bytes));
        position += bytes;
    }
    safetensors(&format!("{{{metadata}{}}}", entries.join(",")), &vec![0; position as usize])
}

fn with_metadata(metadata: &str) -> Vec<u8> {
    each("F32", ["[1,1,4,2]"; 3], [32; 3], &format!(r#""__metadata__":{metadata},"#))
}

/// A good file with one number of one tensor replaced.
fn with_number(tensor: usize, element: usize, value: f32) -> Vec<u8> {
    let mut file = even("F32", "[1,2,3,4]", 96);
    let at = file.len() - (3 - tensor) * 96 + element * 4;
    file[at..at + 4].copy_from_slice(&value.to_le_bytes());
    file
}

fn npy_header(header: &str) -> Vec<u8> {
    let mut file = b"\x93NUMPY\x01\x00".to_vec();
    file.extend((header.len() as u16).to_le_bytes());
    file.extend(header.as_bytes());
    file
}

fn npy(descr: &str, fortran_order: &str, shape: &str, data: &[u8]) -> Vec<u8> {
    let mut file =
        npy_header(&format!("{{'descr': {descr}, 'fortran_order': {fortran_order}, 'shape': {shape}, }}\n"));
    file.extend(data);
    file
}

fn good_npy() -> Vec<u8> {
    npy("'<f4'", "False", "(1, 2, 3, 4)", &[0; 96])
}

fn npz(members: &[(&str, &[u8])], method: CompressionMethod) -> Vec<u8> {
    let mut archive = ZipWriter::new(Cursor::new(Vec::new()));
    for (name, bytes) in members {
        archive
            .start_file(*name, SimpleFileOptions::default().compression_method(method))
            .expect("memory takes it");
        archive.write_all(bytes).expect("memory takes it");
    }
    archive.finish().expect("memory takes it").into_inner()
}

/// An archive in which k.npy is replaced.
fn npz_with_k(k: &[u8]) -> Vec<u8> {
    npz(&[("q.npy", &good_npy()), ("k.npy", k), ("v.npy", &good_npy())], CompressionMethod::Deflated)
}

/// An archive whose directory and local header claim another unpacked size for k.npy.
fn npz_lying_about_k(k: &[u8], size: u32) -> Vec<u8> {
    let mut file = npz_with_k(k);
    // Of the records that name k.npy, the local one has the size 8 bytes before the name, the directory's 22.
    for (signature, name_at, size_at) in [(b"PK\x03\x04", 30, 22), (b"PK\x01\x02", 46, 24)] {
        let record = (0..file.len() - 50)
            .find(|&i| file[i..].starts_with(signature) && file[i + name_at..].starts_with(b"k.npy"))
            .expect("the archive has such a record");
        file[record + size_at..record + size_at + 4].copy_from_slice(&size.to_le_bytes());
    }
    file
}

/// An archive with one byte of the packed numbers of k.npy changed, the checksum left as it was.
fn npz_with_flipped_byte() -> Vec<u8> {
    let mut file = npz(
        &[("q.npy", &good_npy()), ("k.npy", &good_npy()), ("v.npy", &good_npy())],
        CompressionMethod::Stored,
    );
    let k = file.windows(5).position(|w| w == b"k.npy").expect("the archive has it");
    file[k + good_npy().len()] ^= 1;
    file
}

/// Every broken file of the corpus, by name.
fn corpus() -> Vec<(&'static str, Vec<u8>)> {
    let huge = u64::MAX;
    vec![
        // No file of any format.
        ("empty.safetensors", vec![]),
        ("text.txt", b"q = 1\nk = 2\nv = 3\n".to_vec()),
        ("one.npy", good_npy()),
        ("text.npz", b"not a zip".to_vec()),
        // Header of a safetensors file.
        ("short.safetensors", vec![1, 2, 3]),
        ("header_truncated.safetensors", even("F32", "[1,1,4,2]", 32)[..40].to_vec()),
        ("header_length_2_pow_63.safetensors", [&(1u64 << 63).to_le_bytes()[..], b"{}"].concat()),
        ("header_length_max.safetensors", [&huge.to_le_bytes()[..], b"{}"].concat()),
        ("header_length_90_million.safetensors", [&90_000_000u64.to_le_bytes()[..], b"{}"].concat()),
        ("header_no_json.safetensors", safetensors("this is no JSON at all", &[])),
        ("header_no_utf8.safetensors", [&4u64.to_le_bytes()[..], b"{\"\xff\xfe"].concat()),
        ("header_list.safetensors", safetensors("[1,2,3]", &[])),
        ("header_nested.safetensors", safetensors(&"[".repeat(100_000), &[])),
        ("header_no_shape.safetensors", safetensors(r#"{"q":{"dtype":"F32"}}"#, &[])),
        (
            "header_negative_extent.safetensors",
            safetensors(&format!("{{{}}}", entry("q", "F32", "[-1]", 0, 0)), &[]),
        ),
        (
            "name_twice.safetensors",
            safetensors(&format!("{{{0},{0}}}", entry("q", "U8", "[2]", 0, 2)), &[0; 2]),
        ),
        // Data of a safetensors file.
        ("data_truncated.safetensors", {
            let file = even("F32", "[1,1,4,2]", 32);
            file[..file.len() - 1].to_vec()
        }),
        ("data_trailing.safetensors", [even("F32", "[1,1,4,2]", 32), vec![0; 3]].concat()),
        (
            "offsets_overlap.safetensors",
            safetensors(
                &format!("{{{},{}}}", entry("q", "U8", "[4]", 0, 4), entry("k", "U8", "[4]", 2, 6)),
                &[0; 6],
            ),
        ),
        (
            "offsets_gap.safetensors",
            safetensors(
                &format!("{{{},{}}}", entry("q", "U8", "[4]", 0, 4), entry("k", "U8", "[4]", 6, 10)),
                &[0; 10],
            ),
        ),
        (
            "offsets_reversed.safetensors",
            safetensors(&format!("{{{}}}", entry("q", "U8", "[4]", 4, 0)), &[0; 4]),
        ),
        (
            "offsets_out_of_range.safetensors",
            safetensors(&format!("{{{}}}", entry("q", "U8", "[4]", huge - 4, huge)), &[0; 4]),
        ),
        (
            "size_lies.safetensors",
            safetensors(&format!("{{{}}}", entry("q", "F32", "[1,1,4,2]", 0, 4)), &[0; 4]),
        ),
        (
            "size_overflows.safetensors",
            safetensors(&format!("{{{}}}", entry("q", "F32", "[4294967296,4294967296,1,1]", 0, 4)), &[0; 4]),
        ),
        (
            "size_gigantic.safetensors",
            safetensors(
                &format!("{{{}}}", entry("q", "F32", "[1,64,1000000,128]", 0, 32_768_000_000)),
                &[0; 4],
            ),
        ),
        // Tensors that make no problem.
        ("no_tensors.safetensors", safetensors("{}", &[])),
        (
            "no_v.safetensors",
            safetensors(
                &format!(
                    "{{{},{}}}",
                    entry("q", "F32", "[1,1,1,1]", 0, 4),
                    entry("k", "F32", "[1,1,1,1]", 4, 8)
                ),
                &[0; 8],
            ),
        ),
        ("int.safetensors", even("I32", "[1,1,4,2]", 32)),
        ("fp8.safetensors", even("F8_E4M3", "[1,1,4,2]", 8)),
        ("rank_2.safetensors", even("F32", "[4,2]", 32)),
        ("rank_5.safetensors", even("F32", "[1,1,1,4,2]", 32)),
        ("zero_tokens.safetensors", even("F32", "[1,1,0,2]", 0)),
        ("head_dims.safetensors", each("F32", ["[1,1,4,2]", "[1,1,2,4]", "[1,1,4,2]"], [32; 3], "")),
        ("heads.safetensors", each("F32", ["[1,1,4,2]", "[1,1,4,2]", "[1,2,2,2]"], [32; 3], "")),
        ("batches.safetensors", each("F32", ["[2,1,2,2]", "[1,1,4,2]", "[1,1,4,2]"], [32; 3], "")),
        (
            "k_and_v_tokens.safetensors",
            each("F32", ["[1,1,4,2]", "[1,1,4,2]", "[1,1,2,2]"], [32, 32, 16], ""),
        ),
        (
            "types_differ.safetensors",
            safetensors(
                &format!(
                    "{{{},{},{}}}",
                    entry("q", "F32", "[1,1,1,1]", 0, 4),
                    entry("k", "BF16", "[1,1,1,1]", 4, 6),
                    entry("v", "BF16", "[1,1,1,1]", 6, 8)
                ),
                &[0; 8],
            ),
        ),
        ("nan.safetensors", with_number(1, 17, f32::NAN)),
        ("infinity.safetensors", with_number(2, 0, f32::NEG_INFINITY)),
        // Metadata of a safetensors file.
        ("metadata_number.safetensors", with_metadata(r#"{"grid":4}"#)),
        ("grid_product.safetensors", with_metadata(r#"{"grid":"1,2,3"}"#)),
        ("grid_rubbish.safetensors", with_metadata(r#"{"grid":"wide"}"#)),
        ("grid_overflows.safetensors", with_metadata(r#"{"grid":"4294967296,4294967296,2"}"#)),
        ("order_fractal.safetensors", with_metadata(r#"{"order":"fractal: t, h/8, w/8, 8, 8"}"#)),
        // Archives.
        ("truncated.npz", npz_with_k(&good_npy())[..150].to_vec()),
        ("no_k.npz", npz(&[("q.npy", &good_npy()), ("key.npy", &good_npy())], CompressionMethod::Stored)),
        ("checksum.npz", npz_with_flipped_byte()),
        ("bomb_declared_4_gib.npz", npz_lying_about_k(&good_npy(), u32::MAX)),
        ("declared_too_small.npz", npz_lying_about_k(&good_npy(), 100)),
        (
            "bomb_unpacks_past_its_size.npz",
            npz_lying_about_k(&[good_npy(), vec![0; 1_000_000]].concat(), good_npy().len() as u32),
        ),
        (
            "bomb_100_mb_of_zeros.npz",
            npz_with_k(&[npy("'<f4'", "False", "(1, 2, 3, 4)", &[]), vec![0; 100_000_000]].concat()),
        ),
        ("shape_gigantic.npz", npz_with_k(&npy("'<f4'", "False", "(1, 64, 1000000, 128)", &[0; 96]))),
        ("no_npy_inside.npz", npz_with_k(b"just some text in a member")),
        ("pickled.npz", npz_with_k(&npy("'|O'", "False", "(1, 2, 3, 4)", &[0; 96]))),
    ]
}

/// Broken `k.npy` of a folder whose other files are good.
fn npy_corpus() -> Vec<(&'static str, Vec<u8>)> {
    vec![
        ("empty", vec![]),
        ("magic", b"\x93NUMPI\x01\x00v\x00{'descr'".to_vec()),
        ("version", b"\x93NUMPY\x07\x00v\x00{'descr'".to_vec()),
        ("magic_truncated", b"\x93NUM".to_vec()),
        ("length_truncated", b"\x93NUMPY\x01\x00v".to_vec()),
        ("header_truncated", good_npy()[..30].to_vec()),
        ("header_length_4_gib", b"\x93NUMPY\x02\x00\xff\xff\xff\xff{}".to_vec()),
        ("header_rubbish", npy_header("import os")),
        ("header_no_shape", npy_header("{'descr': '<f4', 'fortran_order': False}")),
        ("data_truncated", npy("'<f4'", "False", "(1, 2, 3, 4)", &[0; 95])),
        ("data_trailing", npy("'<f4'", "False", "(1, 2, 3, 4)", &[0; 97])),
        ("shape_overflows", npy("'<f4'", "False", "(4294967296, 4294967296, 1, 1)", &[0; 96])),
        ("shape_gigantic", npy("'<f4'", "False", "(1, 64, 1000000, 128)", &[0; 96])),
        ("fortran_order", npy("'<f4'", "True", "(1, 2, 3, 4)", &[0; 96])),
        ("big_endian", npy("'>f4'", "False", "(1, 2, 3, 4)", &[0; 96])),
        ("pickled", npy("'|O'", "False", "(1, 2, 3, 4)", &[0; 96])),
        ("integers", npy("'<i4'", "False", "(1, 2, 3, 4)", &[0; 96])),
        ("bfloat16", npy("'|V2'", "False", "(1, 2, 3, 4)", &[0; 48])),
        ("structured", npy("[('re', '<f4')]", "False", "(1, 2, 3, 4)", &[0; 96])),
        ("rank_1", npy("'<f4'", "False", "(24,)", &[0; 96])),
        ("heads", npy("'<f4'", "False", "(1, 1, 6, 4)", &[0; 96])),
        ("double_beyond_single", {
            let numbers: Vec<u8> =
                (0..24).flat_map(|i| if i == 5 { 1e300f64 } else { 0.0 }.to_le_bytes()).collect();
            npy("'<f8'", "False", "(1, 2, 3, 4)", &numbers)
        }),
    ]
}

/// Reads what must not be readable; returns the message without the folder's name.
fn message(folder: &Path, input: &Path) -> String {
    let error = read_qkv(input, &ReadOptions::default()).expect_err(&input.display().to_string());
    let text = error.to_string();
    let name = input.file_name().expect("inputs have names").to_string_lossy().into_owned();
    assert!(text.contains(&name), "'{text}' names {name}");
    assert!(text.len() < 500, "a message is one or two lines: {text}");
    text.replace(&format!("{}/", folder.display()), "")
}

#[test]
fn each_broken_file_gets_one_message() {
    let folder = tempfile::tempdir().unwrap();
    let table: Vec<String> = corpus()
        .into_iter()
        .map(|(name, bytes)| {
            let path = folder.path().join(name);
            fs::write(&path, bytes).unwrap();
            message(folder.path(), &path)
        })
        .collect();
    insta::assert_snapshot!(table.join("\n\n"));
}

#[test]
fn each_broken_array_of_a_folder_gets_one_message() {
    let folder = tempfile::tempdir().unwrap();
    let table: Vec<String> = npy_corpus()
        .into_iter()
        .map(|(name, k)| {
            let input = folder.path().join(name);
            fs::create_dir(&input).unwrap();
            fs::write(input.join("q.npy"), good_npy()).unwrap();
            fs::write(input.join("k.npy"), k).unwrap();
            fs::write(input.join("v.npy"), good_npy()).unwrap();
            message(folder.path(), &input)
        })
        .collect();
    insta::assert_snapshot!(table.join("\n\n"));
}

#[test]
fn names_that_are_no_file_get_one_message() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    fs::create_dir_all(path("folder_of_folders/q.npy")).unwrap();
    fs::create_dir(path("folder_empty")).unwrap();
    fs::create_dir(path("folder_without_v")).unwrap();
    for name in ["q.npy", "k.npy", "value.npy"] {
        fs::write(path("folder_without_v").join(name), good_npy()).unwrap();
    }
    let _socket = std::os::unix::net::UnixListener::bind(path("socket")).unwrap();
    let inputs = ["missing.safetensors", "folder_of_folders", "folder_empty", "folder_without_v", "socket"];
    let mut table: Vec<String> = inputs.map(|name| message(folder.path(), &path(name))).into();
    table.push(message(folder.path(), Path::new("/dev/null")));
    insta::assert_snapshot!(table.join("\n\n"));
}

#[test]
fn a_file_that_may_not_be_read_says_so() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("locked.safetensors");
    fs::write(&path, even("F32", "[1,1,4,2]", 32)).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o000)).unwrap();
    // A superuser may read it all the same: then it must be read, not refused.
    let may_read = fs::File::open(&path).is_ok();
    match read_qkv(&path, &ReadOptions::default()) {
        Ok(_) => assert!(may_read),
        Err(error) => {
            assert!(!may_read && error.to_string().contains("no permission to read it"), "{error}");
        }
    }
}

#[test]
fn a_file_over_the_limit_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("in.safetensors");
    fs::write(&path, even("F32", "[1,1,4,2]", 32)).unwrap();
    let limited = |max_bytes| read_qkv(&path, &ReadOptions { max_bytes, ..ReadOptions::default() });
    assert!(limited(96).is_ok());
    assert!(limited(95).unwrap_err().to_string().contains("at most 95 bytes together, got 96"));
}

#[test]
fn the_good_files_the_broken_ones_are_made_of_are_read() {
    let folder = tempfile::tempdir().unwrap();
    let input = folder.path().join("arrays");
    fs::create_dir(&input).unwrap();
    for name in ["q.npy", "k.npy", "v.npy"] {
        fs::write(input.join(name), good_npy()).unwrap();
    }
    let arrays = read_qkv(&input, &ReadOptions::default()).unwrap();
    assert_eq!(arrays.q.shape, [1, 2, 3, 4]);
    for (name, bytes) in good_files() {
        let path = folder.path().join(name);
        fs::write(&path, bytes).unwrap();
        let qkv = read_qkv(&path, &ReadOptions::default()).unwrap_or_else(|e| panic!("{e}"));
        assert_eq!(qkv.q, arrays.q, "{name}");
    }
}

fn good_files() -> Vec<(&'static str, Vec<u8>)> {
    let members = [("q.npy", &good_npy()[..]), ("k.npy", &good_npy()), ("v.npy", &good_npy())];
    vec![
        (
            "in.safetensors",
            each(
                "F32",
                ["[1,2,3,4]"; 3],
                [96; 3],
                r#""__metadata__":{"grid":"1,1,3","order":"raster t,h,w"},"#,
            ),
        ),
        ("stored.npz", npz(&members, CompressionMethod::Stored)),
        ("deflated.npz", npz(&members, CompressionMethod::Deflated)),
    ]
}

/// Changes a file here and there: bits, bytes with a meaning at borders, runs cut out, doubled or cut off.
fn mutate(file: &mut Vec<u8>, rng: &mut TestRng) {
    use proptest::prelude::Rng;
    for _ in 0..1 + rng.next_u32() % 4 {
        if file.is_empty() {
            return;
        }
        let at = rng.next_u32() as usize % file.len();
        let end = (at + 1 + rng.next_u32() as usize % 16).min(file.len());
        match rng.next_u32() % 6 {
            0 => file[at] ^= 1 << (rng.next_u32() % 8),
            1 => file[at] = [0, 0xff, b'9', b'-', b'{', b'"'][rng.next_u32() as usize % 6],
            2 => file[at..end].fill(0xff),
            3 => drop(file.drain(at..end)),
            4 => file.truncate(at),
            _ => file.extend_from_within(at..end),
        }
    }
}

/// Writes a new file: some file systems wait for the disk when an old one is overwritten.
fn write_anew(path: &Path, bytes: &[u8]) {
    // There is none the first time.
    let _ = fs::remove_file(path);
    fs::write(path, bytes).expect("the folder may be written to");
}

#[test]
fn no_mutation_of_a_good_file_makes_the_reader_panic() {
    const MUTATIONS: usize = 3000;
    let folder = tempfile::tempdir().unwrap();
    let mut rng = TestRng::from_seed(RngAlgorithm::ChaCha, &[42; 32]);
    for (name, good) in good_files() {
        let path = folder.path().join(name);
        let mut refused = 0;
        for _ in 0..MUTATIONS {
            let mut file = good.clone();
            mutate(&mut file, &mut rng);
            write_anew(&path, &file);
            match read_qkv(&path, &ReadOptions::default()) {
                Ok(qkv) => assert!(qkv.v.data.to_f32().iter().all(|x| x.is_finite())),
                Err(error) => {
                    assert!(error.to_string().len() < 600, "{error}");
                    refused += 1;
                }
            }
        }
        assert!(refused > MUTATIONS / 4, "{name}: mutations reach what is checked, {refused} were refused");
    }

    let input = folder.path().join("arrays");
    fs::create_dir(&input).unwrap();
    for name in ["q.npy", "k.npy", "v.npy"] {
        fs::write(input.join(name), good_npy()).unwrap();
    }
    for _ in 0..MUTATIONS {
        let mut file = good_npy();
        mutate(&mut file, &mut rng);
        write_anew(&input.join("k.npy"), &file);
        if let Ok(qkv) = read_qkv(&input, &ReadOptions::default()) {
            assert!(qkv.k.data.to_f32().iter().all(|x| x.is_finite()));
        }
    }
}
