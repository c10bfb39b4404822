//! Bulk copies of lines and of tensor boxes, both ways, and what the report of each misuse says.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on stops")]

use super::{
    bytes, fault, kernel, launch_in, modes, options, place, run, run_bytes, says, threads, wait, words,
};
use nabla_emulator::{Completion, DevicePtr, Memory, OutOfBounds, Param, Swizzle, TensorElement, TensorMap};

const MBAR: &str = "smem+32760";

/// Thread 0 makes a barrier of one arrival at the end of shared memory.
fn start() -> String {
    format!(
        "
    setp.eq.u32 %p0, %r0, 0;
    @%p0 mbarrier.init.shared::cta.b64 [{MBAR}], 1;
    fence.mbarrier_init.release.cluster;
    bar.sync 0;"
    )
}

/// A load of `bytes` bytes from `in` to address 0, announced and waited for.
fn load(bytes: u32) -> String {
    format!(
        "{}
    @%p0 mbarrier.arrive.expect_tx.shared::cta.b64 _, [{MBAR}], {bytes};
    @%p0 cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [smem], [%rd0], {bytes}, [{MBAR}];{}",
        start(),
        wait(MBAR, "0", "LOADED")
    )
}

#[test]
fn a_line_is_loaded_and_stored() {
    let body = format!(
        "{}
    mad.lo.s32 %r1, %r0, 4, 0;
    ld.shared.b32 %r2, [%r1];
    add.s32 %r2, %r2, 1;
    st.shared.b32 [%r1], %r2;
    fence.proxy.async.shared::cta;
    bar.sync 0;
    @%p0 cp.async.bulk.global.shared::cta.bulk_group [%rd1], [smem], 256;
    @%p0 cp.async.bulk.commit_group;
    @%p0 cp.async.bulk.wait_group 0;",
        load(256)
    );
    let input: Vec<u32> = (0..64).collect();
    assert_eq!(run(&body, threads(64), &input, 64), (1..65).collect::<Vec<u32>>());
    // The newer spelling of the destination.
    let newer = body.replace("shared::cluster.global", "shared::cta.global");
    assert_eq!(run(&newer, threads(64), &input, 64)[63], 64);
    let (_, report) =
        run_bytes(&body, threads(64), &bytes(&input), 256, &options(Completion::Late, 0)).unwrap();
    assert_eq!(report.counters.bulk_load_bytes, 256);
    assert_eq!(report.counters.bulk_store_bytes, 256);
}

#[test]
fn lines_are_reduced_into_global_memory() {
    // `in` holds 16 words to load; the output starts as zeros and is added to twice.
    let body = |op: &str| {
        format!(
            "{}
    @%p0 cp.reduce.async.bulk.global.shared::cta.bulk_group.{op} [%rd1], [smem], 64;
    @%p0 cp.reduce.async.bulk.global.shared::cta.bulk_group.{op} [%rd1], [smem], 64;
    @%p0 cp.async.bulk.commit_group;
    @%p0 cp.async.bulk.wait_group 0;",
            load(64)
        )
    };
    let twice = |op: &str, input: Vec<u32>| run(&body(op), threads(1), &input, 16);
    let integers: Vec<u32> = (0..16).map(|i| i * 3).collect();
    assert_eq!(twice("add.u32", integers.clone()), integers.iter().map(|x| 2 * x).collect::<Vec<_>>());
    assert_eq!(twice("max.s32", vec![5; 16]), [5; 16]);
    assert_eq!(twice("xor.b32", integers.clone()), [0; 16]);
    let singles: Vec<u32> = (0..16).map(|i| (i as f32 * 0.5).to_bits()).collect();
    assert_eq!(twice("add.f32", singles), (0..16).map(|i| (i as f32).to_bits()).collect::<Vec<_>>());
    // 1.5 and -2 as pairs of 16-bit floats, doubled: 3 and -4.
    assert_eq!(twice("add.noftz.bf16", vec![0xc000_3fc0; 16]), [0xc080_4040; 16]);
    assert_eq!(twice("add.noftz.f16", vec![0xc000_3e00; 16]), [0xc400_4200; 16]);
}

/// Where the swizzle of a span puts a chunk of a row: within 128-byte lines, chunk numbers are XORed with line numbers.
fn swizzled(swizzle: Swizzle, at: usize) -> usize {
    let lines = at / 128 % 8;
    let flips = match swizzle {
        Swizzle::None => 0,
        Swizzle::B32 => lines & 1,
        Swizzle::B64 => lines & 3,
        Swizzle::B128 => lines,
    };
    at / 128 * 128 + ((at % 128 / 16) ^ flips) * 16 + at % 16
}

/// Runs a body with the map's address as first parameter; the output has `output` bytes of zeros.
fn with_map(body: &str, map: &TensorMap, memory: &mut Memory, output: usize) -> Vec<Result<Vec<u8>, String>> {
    let at = place(memory, map);
    let each = |options| {
        let to = memory.alloc_from(&vec![0; output]);
        let params = [Param::Ptr(at), Param::Ptr(to)];
        launch_in(memory, &kernel(body), threads(32), &params, options)?;
        Ok(memory.read(to, output as u64).unwrap())
    };
    modes().iter().map(each).collect()
}

/// Loads the box at these coordinates and returns shared memory as it lies.
fn load_box(map: &TensorMap, memory: &mut Memory, coordinates: &[i32], bytes: usize) -> Vec<u8> {
    let rank = coordinates.len();
    let list: Vec<String> = coordinates.iter().map(ToString::to_string).collect();
    let body = format!(
        "{}
    @%p0 prefetch.tensormap [%rd0];
    @%p0 mbarrier.arrive.expect_tx.shared::cta.b64 _, [{MBAR}], {bytes};
    @%p0 cp.async.bulk.tensor.{rank}d.shared::cluster.global.tile.mbarrier::complete_tx::bytes [smem], [%rd0, {{{}}}], [{MBAR}];{}
    @%p0 cp.async.bulk.global.shared::cta.bulk_group [%rd1], [smem], {bytes};
    @%p0 cp.async.bulk.commit_group;
    @%p0 cp.async.bulk.wait_group 0;",
        start(),
        list.join(", "),
        wait(MBAR, "0", "LOADED")
    );
    let mut results = with_map(&body, map, memory, bytes);
    let first = results.pop().unwrap().unwrap_or_else(|fault| panic!("{fault}"));
    results.into_iter().for_each(|other| assert_eq!(other.unwrap(), first));
    first
}

#[test]
fn boxes_are_loaded_with_every_swizzle() {
    let mut memory = Memory::new();
    let (rows, columns) = (40_usize, 96_usize);
    let tensor: Vec<u8> = (0..rows * columns).flat_map(|i| (i as u16).to_le_bytes()).collect();
    let at = memory.alloc_from(&tensor);
    for (swizzle, width) in [(Swizzle::None, 64), (Swizzle::B32, 16), (Swizzle::B64, 32), (Swizzle::B128, 64)]
    {
        let mut map = TensorMap::rows(TensorElement::U16, at, rows as u64, columns as u64, [24, width]);
        map.swizzle = swizzle;
        let (row0, column0, width) = (3, 8, width as usize);
        let got = load_box(&map, &mut memory, &[column0, row0], 24 * width * 2);
        for row in 0..24 {
            for column in 0..width {
                let at = swizzled(swizzle, (row * width + column) * 2);
                let expected = ((row + row0 as usize) * columns + column + column0 as usize) as u16;
                assert_eq!(got[at..at + 2], expected.to_le_bytes(), "{swizzle:?} {row} {column}");
            }
        }
    }
}

#[test]
fn outside_the_tensor_lie_zeros_or_nan() {
    let mut memory = Memory::new();
    let values: Vec<u8> = (1..=80_u32).flat_map(|i| (i as f32).to_bits().to_le_bytes()).collect();
    let at = memory.alloc_from(&values);
    for fill in [OutOfBounds::Zero, OutOfBounds::Nan] {
        let mut map = TensorMap::rows(TensorElement::F32, at, 10, 8, [4, 8]);
        (map.out_of_bounds, map.swizzle) = (fill, Swizzle::None);
        for (column0, row0) in [(-3, -2), (5, 8), (0, 9), (-9, 0), (100, 100), (i32::MIN, i32::MAX)] {
            let got = words(&load_box(&map, &mut memory, &[column0, row0], 128));
            for row in 0..4_i64 {
                for column in 0..8_i64 {
                    let (y, x) = (row + i64::from(row0), column + i64::from(column0));
                    let found = f32::from_bits(got[(row * 8 + column) as usize]);
                    if (0..10).contains(&y) && (0..8).contains(&x) {
                        assert_eq!(found, (y * 8 + x + 1) as f32);
                    } else if fill == OutOfBounds::Zero {
                        assert_eq!(found.to_bits(), 0);
                    } else {
                        assert!(found.is_nan());
                    }
                }
            }
        }
    }
}

#[test]
fn boxes_have_one_to_five_dimensions_and_strides() {
    let mut memory = Memory::new();
    let sizes = [16_u64, 3, 4, 2, 3];
    let pitch = [16_u64, 16 * 4, 16 * 4 * 5, 16 * 4 * 5 * 2];
    let all = 16 * 4 * 5 * 2 * 3;
    let data: Vec<u8> = (0..all).map(|i| (i * 7 + i / 256) as u8).collect();
    let at = memory.alloc_from(&data);
    for rank in 1..=5 {
        for stride in [1, 2] {
            let map = TensorMap {
                element: TensorElement::U8,
                address: at,
                sizes: sizes[..rank].to_vec(),
                strides: pitch[..rank - 1].to_vec(),
                box_sizes: [16, 2, 3, 2, 2][..rank].to_vec(),
                element_strides: [1, 1, stride, 1, 1][..rank].to_vec(),
                swizzle: Swizzle::None,
                out_of_bounds: OutOfBounds::Zero,
            };
            let origin = [0_i32, 1, 0, 1, 1];
            let lengths: Vec<u32> =
                (0..rank).map(|d| map.box_sizes[d].div_ceil(map.element_strides[d])).collect();
            let count: u32 = lengths.iter().product();
            let got = load_box(&map, &mut memory, &origin[..rank], count as usize);
            for (number, found) in got.iter().enumerate() {
                let (mut rest, mut offset, mut inside) = (number as u32, 0, true);
                for d in 0..rank {
                    let index = u64::from(rest % lengths[d] * map.element_strides[d]) + origin[d] as u64;
                    rest /= lengths[d];
                    inside &= index < sizes[d];
                    offset += index * if d == 0 { 1 } else { pitch[d - 1] };
                }
                let expected = if inside { data[offset as usize] } else { 0 };
                assert_eq!(*found, expected, "rank {rank}, stride {stride}, byte {number}");
            }
        }
    }
}

/// Fills 1024 bytes of shared memory with the numbers of its words and stores or reduces the box at (4, -1).
fn store_box(operation: &str) -> String {
    format!(
        "
    mov.u32 %r1, %r0;
FILL:
    mad.lo.s32 %r2, %r1, 4, 0;
    st.shared.b32 [%r2], %r1;
    add.s32 %r1, %r1, 32;
    setp.lt.u32 %p1, %r1, 256;
    @%p1 bra FILL;
    fence.proxy.async;
    bar.sync 0;
    setp.eq.u32 %p0, %r0, 0;
    mov.b64 %rd9, 0;
    @%p0 cp{operation}.L2::cache_hint [%rd0, {{4, -1}}], [smem], %rd9;
    @%p0 cp.async.bulk.commit_group;
    @%p0 cp.async.bulk.wait_group 0;"
    )
}

#[test]
fn boxes_are_stored_and_reduced_inside_the_tensor_only() {
    for (operation, base) in [
        (".async.bulk.tensor.2d.global.shared::cta.tile.bulk_group", 0),
        (".reduce.async.bulk.tensor.2d.global.shared::cta.add.tile.bulk_group", 1000),
    ] {
        let mut memory = Memory::new();
        let at = memory.alloc_from(&bytes(&vec![1000; 6 * 36]));
        let map = TensorMap::rows(TensorElement::U32, at, 6, 36, [8, 32]);
        assert_eq!(map.swizzle, Swizzle::B128);
        for result in with_map(&store_box(operation), &map, &mut memory, 4) {
            result.unwrap_or_else(|fault| panic!("{fault}"));
        }
        let runs = if base == 0 { 1 } else { modes().len() as u32 };
        let got = words(&memory.read(at, 6 * 36 * 4).unwrap());
        for row in 0..6_usize {
            for column in 0..36_usize {
                let expected = match column.checked_sub(4) {
                    Some(column) => {
                        let shared = swizzled(Swizzle::B128, ((row + 1) * 32 + column) * 4) / 4;
                        base + runs * shared as u32
                    }
                    None => 1000,
                };
                assert_eq!(got[row * 36 + column], expected, "{operation} {row} {column}");
            }
        }
    }
}

#[test]
fn prefetches_are_checked_and_do_nothing() {
    let fine = "    cp.async.bulk.prefetch.L2.global [%rd0], 64;";
    assert_eq!(run(fine, threads(1), &[7; 16], 1), [0]);
    says(&fault("    cp.async.bulk.prefetch.L2.global [%rd0], 65536;", threads(1)), &["out-of-bounds"]);
    says(
        &fault("    cp.async.bulk.prefetch.tensor.2d.L2.global.tile [%rd0, {%r0, %r0}];", threads(1)),
        &["no tensor map"],
    );
}

#[test]
fn a_missing_wait_shows() {
    let body = format!("{}\n    ld.shared.b32 %r1, [smem+4];", load(64));
    for completion in [Completion::Late, Completion::Eager] {
        let result =
            |body: &str| run_bytes(body, threads(1), &[1; 64], 4, &options(completion, 0)).map(|_| ());
        result(&body).unwrap();
        if completion == Completion::Late {
            let unlooped = body.replace("@!%p15 bra LOADED;", "");
            says(
                &result(&unlooped).unwrap_err(),
                &["read of 4 bytes at shared address 0x4 while a bulk copy"],
            );
        }
        // Nobody expects the bytes: the phase ends without them, or never.
        let unexpected =
            body.replace(".expect_tx", "").replace("b64 _, [smem+32760], 64;", "b64 _, [smem+32760];");
        let late = "    ld.shared.b32 %r1, [smem+4];";
        let fault = result(&unexpected);
        if completion == Completion::Late {
            says(&fault.unwrap_err(), &["while a bulk copy to them is in flight", late.trim()]);
        }
    }
}

#[test]
fn bytes_that_never_come_are_a_deadlock() {
    let body = load(64).replace("_, [smem+32760], 64;", "_, [smem+32760], 80;");
    says(&fault(&body, threads(1)), &["deadlock", "still needs 0 arrivals and 16 bytes"]);
    let body = load(64).replace("_, [smem+32760], 64;", "_, [smem+32760], 48;");
    says(&fault(&body, threads(1)), &["deadlock", "still needs 0 arrivals and -16 bytes"]);
}

#[test]
fn misuse_is_a_fault_that_says_what_to_do() {
    let start = start();
    let copy = "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes";
    let cases = [
        (format!("{copy} [smem+8], [%rd0], 64, [{MBAR}];"), "must be a multiple of 16"),
        (format!("{copy} [smem], [%rd0+4], 64, [{MBAR}];"), "the global address"),
        (format!("{copy} [smem], [%rd0], 40, [{MBAR}];"), "a positive multiple of 16 bytes, not 40"),
        (format!("{copy} [smem], [%rd0], 65536, [{MBAR}];"), "out-of-bounds"),
        (format!("{copy} [smem+32736], [%rd0], 64, [{MBAR}];"), "out-of-bounds"),
        (format!("{copy} [smem], [%rd0], 64, [smem+512];"), "no mbarrier at shared address 0x200"),
        (format!("{copy} [smem+32752], [%rd0], 16, [{MBAR}];"), "where an mbarrier lives"),
        (
            format!("{copy} [smem], [%rd0], 64, [{MBAR}];\n    {copy} [smem+48], [%rd0], 64, [{MBAR}];"),
            "write to 64 bytes at shared address 0x30 while a bulk copy to them is in flight",
        ),
        (
            format!("{copy} [smem], [%rd0], 64, [{MBAR}];\n    st.shared.b32 [smem], 1;"),
            "write to 4 bytes at shared address 0x0 while a bulk copy to them is in flight",
        ),
        (
            format!("{copy} [smem], [%rd0], 64, [{MBAR}];"),
            "the CTA exits while this operation still works on its shared memory",
        ),
        (
            "cp.async.bulk.global.shared::cta.bulk_group [%rd1], [smem], 64;".to_owned(),
            "that were never written",
        ),
        (
            format!("{copy}.multicast::cluster [smem], [%rd0], 64, [{MBAR}], 2;"),
            "the CTA mask 0x2 must name CTAs of a cluster of 1",
        ),
        (
            "cp.async.bulk.tensor.1d.shared::cluster.global.mbarrier::complete_tx::bytes [smem], [%rd0+32, {0}], [smem+32760];"
                .to_owned(),
            "a tensor map lies at a multiple of 64",
        ),
        (
            "cp.async.bulk.tensor.1d.shared::cluster.global.mbarrier::complete_tx::bytes [smem], [%rd0, {0}], [smem+32760];"
                .to_owned(),
            "are no tensor map",
        ),
    ];
    for (body, text) in cases {
        let body = body.replace(", 2;", ", %rs0;");
        let body = format!("{start}\n    mov.b16 %rs0, 2;\n    {body}");
        says(&fault(&body, threads(1)), &[text, "test.ptx:"]);
    }
}

#[test]
fn maps_must_suit_the_copy() {
    let copy = |rank: u32, coordinates: &str, to: &str| {
        format!(
            "{}
    @%p0 cp.async.bulk.tensor.{rank}d.shared::cta.global.mbarrier::complete_tx::bytes [{to}], [%rd0, {{{coordinates}}}], [{MBAR}];",
            start()
        )
    };
    let mut memory = Memory::new();
    let tensor = memory.alloc_from(&[0; 4096]);
    let map = TensorMap::rows(TensorElement::U8, tensor, 32, 128, [8, 128]);
    let fault = |body: &str, map: &TensorMap, memory: &mut Memory| {
        with_map(body, map, memory, 4).swap_remove(0).unwrap_err()
    };
    says(&fault(&copy(1, "0", "smem"), &map, &mut memory), &["the tensor has 2 dimensions, the copy 1"]);
    says(&fault(&copy(2, "0, 0", "smem+64"), &map, &mut memory), &["must be a multiple of 128"]);
    // A row of 32 bytes, moved about within 128: also where it is the only one.
    let lone = TensorMap { box_sizes: vec![32, 1], ..map.clone() };
    says(&fault(&copy(2, "0, 0", "smem+256"), &lone, &mut memory), &["rows of 32 bytes swizzled by 128"]);
    let large = TensorMap { box_sizes: vec![128, 256], sizes: vec![128, 64, 64], ..map.clone() };
    let large = TensorMap {
        strides: vec![128, 8192],
        box_sizes: vec![128, 256, 256],
        element_strides: vec![1; 3],
        ..large
    };
    says(
        &fault(&copy(3, "0, 0, 0", "smem"), &large, &mut memory),
        &["8388608 bytes, which no shared memory holds"],
    );
    let narrow = TensorMap { box_sizes: vec![64, 8], ..map.clone() };
    says(&fault(&copy(2, "0, 0", "smem"), &narrow, &mut memory), &["rows of 64 bytes swizzled by 128"]);
    // The map says more than there is.
    let map = TensorMap { sizes: vec![128, 1000], ..map };
    says(&fault(&copy(2, "0, 28", "smem"), &map, &mut memory), &["out-of-bounds", "allocation 0"]);
    let map = TensorMap { address: DevicePtr::from_address(0x100), ..map };
    says(&fault(&copy(2, "0, 0", "smem"), &map, &mut memory), &["below every allocation"]);
}

#[test]
fn a_source_is_kept_until_it_was_read() {
    let body = |between: &str, end: &str| {
        format!(
            "{}
    cp.async.bulk.global.shared::cta.bulk_group [%rd1], [smem], 32;
    cp.async.bulk.global.shared::cta.bulk_group [%rd1+32], [smem+16], 32;
    cp.async.bulk.commit_group;
    {between}
    st.shared.b32 [smem+20], 9;
    {end}",
            load(64)
        )
    };
    let read = "cp.async.bulk.wait_group.read 0;";
    // Both copies read word 5 before it is overwritten.
    let out = run(&body(read, ""), threads(1), &(0..16).collect::<Vec<_>>(), 16);
    assert_eq!((out[5], out[9]), (5, 5));
    says(
        &fault(&body("", ""), threads(1)),
        &["write to 4 bytes at shared address 0x14 while a bulk copy still reads them", "wait_group.read"],
    );
    says(&fault(&body("cp.async.bulk.wait_group.read 1;", ""), threads(1)), &["still reads them"]);
    // Of two groups that read the same bytes one may be over before the other.
    let two = body("", "").replacen("cp.async.bulk.global", "cp.async.bulk.global.shared::cta.bulk_group [%rd1], [smem+16], 16;\n    cp.async.bulk.commit_group;\n    cp.async.bulk.global", 1);
    let two = two.replace(
        "st.shared.b32 [smem+20], 9;",
        "cp.async.bulk.wait_group.read 1;\n    st.shared.b32 [smem+20], 9;",
    );
    let result =
        |seed| run_bytes(&two, threads(1), &[0; 64], 64, &options(Completion::Late, seed)).map(|_| ());
    let faults =
        (0..8).filter_map(|seed| result(seed).err()).inspect(|text| says(text, &["still reads them"]));
    assert!(faults.count() > 0);
    let exits = body("", "").replace("st.shared.b32 [smem+20], 9;", "");
    says(&fault(&exits, threads(1)), &["the CTA exits while this copy still reads its shared memory"]);
    let uncommitted = body(read, "").replace("cp.async.bulk.commit_group;", "");
    says(&fault(&uncommitted, threads(1)), &["still reads them"]);
}

#[test]
fn data_nobody_waits_for_is_told_of_at_the_exit() {
    let body = format!(
        "{}
    @%p0 mbarrier.init.shared::cta.b64 [smem+32752], 1;
    fence.mbarrier_init.release.cluster;
    @%p0 mbarrier.arrive.expect_tx.shared::cta.b64 _, [smem+32752], 16;
    @%p0 cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [smem+1024], [%rd0], 16, [smem+32752];",
        load(64)
    );
    for completion in [Completion::Late, Completion::Eager] {
        let result = run_bytes(&body, threads(1), &[0; 64], 4, &options(completion, 0));
        says(&result.unwrap_err(), &["the CTA exits"]);
    }
}

#[test]
fn results_are_there_after_the_full_wait_only() {
    let body = |read: &str| {
        format!(
            "{}
    cp.async.bulk.global.shared::cta.bulk_group [%rd1+16], [smem], 16;
    cp.async.bulk.commit_group;
    cp.async.bulk.wait_group{read} 0;
    ld.global.b32 %r1, [%rd1+16];
    st.global.b32 [%rd1], %r1;",
            load(16)
        )
    };
    assert_eq!(run(&body(""), threads(1), &[8; 4], 8), [8, 0, 0, 0, 8, 8, 8, 8]);
    // The wait for the reading alone lets the thread see what was there before.
    let early = run_bytes(&body(".read"), threads(1), &bytes(&[8; 4]), 32, &options(Completion::Late, 0));
    assert_eq!(words(&early.unwrap().0), [0, 0, 0, 0, 8, 8, 8, 8]);
}
