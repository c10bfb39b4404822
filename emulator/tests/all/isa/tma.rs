//! Bulk copies against the PTX ISA: tiles of tensors with every swizzle, what lies outside, strides, stores, plain bulk
//! copies, bytes counted at the barrier (section "Data Movement and Conversion Instructions: Asynchronous copy").

use super::hopper::{Setup, dump, fault, fill, run, wait};
use nabla_emulator::{DevicePtr, OutOfBounds, Swizzle, TensorElement, TensorMap};

/// Position of the 16-byte chunk `chunk` of the row of `span` bytes number `row`, by the tables of the ISA: for 128 bytes
/// the chunk's number is combined with the row's, for 64 with that of every second row, for 32 of every fourth.
fn chunk_of(span: u32, row: u32, chunk: u32) -> u32 {
    const TABLE_128: [[u32; 8]; 8] = [
        [0, 1, 2, 3, 4, 5, 6, 7],
        [1, 0, 3, 2, 5, 4, 7, 6],
        [2, 3, 0, 1, 6, 7, 4, 5],
        [3, 2, 1, 0, 7, 6, 5, 4],
        [4, 5, 6, 7, 0, 1, 2, 3],
        [5, 4, 7, 6, 1, 0, 3, 2],
        [6, 7, 4, 5, 2, 3, 0, 1],
        [7, 6, 5, 4, 3, 2, 1, 0],
    ];
    const TABLE_64: [[u32; 4]; 8] = [
        [0, 1, 2, 3],
        [0, 1, 2, 3],
        [1, 0, 3, 2],
        [1, 0, 3, 2],
        [2, 3, 0, 1],
        [2, 3, 0, 1],
        [3, 2, 1, 0],
        [3, 2, 1, 0],
    ];
    const TABLE_32: [[u32; 2]; 8] = [[0, 1], [0, 1], [0, 1], [0, 1], [1, 0], [1, 0], [1, 0], [1, 0]];
    let (row, chunk) = (row as usize % 8, chunk as usize);
    match span {
        128 => TABLE_128[row][chunk],
        64 => TABLE_64[row][chunk],
        32 => TABLE_32[row][chunk],
        _ => chunk as u32,
    }
}

fn span(swizzle: Swizzle) -> u32 {
    match swizzle {
        Swizzle::None => 0,
        Swizzle::B32 => 32,
        Swizzle::B64 => 64,
        Swizzle::B128 => 128,
    }
}

/// Where byte `offset` of a box lies in shared memory, from the start of the box.
fn swizzled(swizzle: Swizzle, offset: u32) -> u32 {
    match span(swizzle) {
        0 => offset,
        span => {
            let (row, inside) = (offset / span, offset % span);
            row * span + chunk_of(span, row, inside / 16) * 16 + inside % 16
        }
    }
}

/// A tensor of bytes `7 i + i / 256`, dense but for `padding` bytes behind each row.
struct Tensor {
    element: TensorElement,
    sizes: Vec<u64>,
    padding: u64,
}

impl Tensor {
    fn strides(&self) -> Vec<u64> {
        let mut stride = self.sizes[0] * u64::from(self.element.bytes()) + self.padding;
        let mut strides = Vec::new();
        for size in &self.sizes[1..] {
            strides.push(stride);
            stride *= size;
        }
        strides
    }

    fn bytes(&self) -> u64 {
        match self.strides().last() {
            Some(stride) => stride * self.sizes[self.sizes.len() - 1],
            None => self.sizes[0] * u64::from(self.element.bytes()),
        }
    }

    fn byte(at: u64) -> u8 {
        (7 * at + at / 256) as u8
    }

    fn words(&self) -> Vec<u32> {
        (0..self.bytes().div_ceil(4))
            .map(|word| u32::from_le_bytes(std::array::from_fn(|i| Self::byte(4 * word + i as u64))))
            .collect()
    }

    fn map(
        &self,
        tile: &[u32],
        strides: &[u32],
        swizzle: Swizzle,
        fill: OutOfBounds,
    ) -> impl Fn(DevicePtr) -> TensorMap {
        move |address| TensorMap {
            element: self.element,
            address,
            sizes: self.sizes.clone(),
            strides: self.strides(),
            box_sizes: tile.to_vec(),
            element_strides: strides.to_vec(),
            swizzle,
            out_of_bounds: fill,
        }
    }

    /// Offset of the first byte of an element; `None` outside.
    fn at(&self, index: &[i64]) -> Option<u64> {
        let inside = index.iter().zip(&self.sizes).all(|(i, size)| *i >= 0 && (*i as u64) < *size);
        let strides = self.strides();
        inside.then(|| {
            let outer: u64 = index[1..].iter().zip(strides).map(|(i, stride)| *i as u64 * stride).sum();
            outer + index[0] as u64 * u64::from(self.element.bytes())
        })
    }
}

/// Elements of a box in their order in shared memory: the place in the tensor of each.
fn elements(tile: &[u32], steps: &[u32], start: &[i64]) -> Vec<Vec<i64>> {
    let counts: Vec<u32> = tile.iter().zip(steps).map(|(size, step)| size.div_ceil(*step)).collect();
    let total: u32 = counts.iter().product();
    (0..total)
        .map(|at| {
            let mut rest = at;
            counts
                .iter()
                .zip(steps)
                .zip(start)
                .map(|((count, step), start)| {
                    let i = rest % count;
                    rest /= count;
                    start + i64::from(i * step)
                })
                .collect()
        })
        .collect()
}

/// Loads one box and compares every byte of it, and that the barrier got exactly its bytes.
#[track_caller]
fn check_load(
    tensor: &Tensor,
    tile: &[u32],
    steps: &[u32],
    start: &[i64],
    swizzle: Swizzle,
    fill: OutOfBounds,
    base: u32,
) {
    let size = tensor.element.bytes();
    let elements = elements(tile, steps, start);
    let total = elements.len() as u32 * size;
    let map = tensor.map(tile, steps, swizzle, fill);
    let coordinates: Vec<String> = (0..tile.len()).map(|i| format!("%r{}", 20 + i)).collect();
    let mut body = String::new();
    for (register, start) in coordinates.iter().zip(start) {
        body += &format!("    mov.b32 {register}, {start};\n");
    }
    body += &format!(
        "
    setp.eq.u32 %p1, %r0, 0;
    add.s32 %r10, %r1, {};
    add.s32 %r11, %r1, {base};
    @%p1 mbarrier.init.shared::cta.b64 [%r10], 1;
    fence.mbarrier_init.release.cluster;
    bar.sync 0;
    @%p1 mbarrier.arrive.expect_tx.shared::cta.b64 _, [%r10], {total};
    @%p1 cp.async.bulk.tensor.{}d.shared::cluster.global.mbarrier::complete_tx::bytes [%r11], [%rd2, {{{}}}], [%r10];{}
    mov.b32 %r1, %r11;",
        base + total.next_multiple_of(16),
        tile.len(),
        coordinates.join(", "),
        wait("W", "%r10", "0"),
    );
    body += &dump(total as usize / 4);
    let setup = Setup {
        input: tensor.words(),
        output: total as usize / 4,
        map: Some(&map),
        shared: base + total + 1024,
        ..Setup::default()
    };
    let out = run(&body, &setup);
    let got: Vec<u8> = out.iter().flat_map(|word| word.to_le_bytes()).collect();
    for (at, index) in elements.iter().enumerate() {
        for byte in 0..size {
            let expected = match (tensor.at(index), fill) {
                (Some(start), _) => Tensor::byte(start + u64::from(byte)),
                (None, OutOfBounds::Zero) => 0,
                (None, OutOfBounds::Nan) => continue,
            };
            let place = swizzled(swizzle, at as u32 * size + byte);
            assert_eq!(
                got[place as usize], expected,
                "{swizzle:?}, box {tile:?} by {steps:?} at {start:?}: element {index:?}, byte {byte}"
            );
        }
    }
}

const ZERO: OutOfBounds = OutOfBounds::Zero;

fn matrix(element: TensorElement, columns: u64, rows: u64, padding: u64) -> Tensor {
    Tensor { element, sizes: vec![columns, rows], padding }
}

/// Chunks of 16 bytes move as the tables say, for whole patterns and rows of a span.
#[test]
fn swizzles_follow_the_tables() {
    for (swizzle, columns) in
        [(Swizzle::None, 64), (Swizzle::B32, 16), (Swizzle::B64, 32), (Swizzle::B128, 64)]
    {
        let tensor = matrix(TensorElement::Bf16, 128, 40, 0);
        for start in [[0, 0], [64, 8], [8, 3]] {
            check_load(&tensor, &[columns, 32], &[1, 1], &start, swizzle, ZERO, 0);
        }
        check_load(&tensor, &[columns, 32], &[1, 1], &[0, 0], swizzle, ZERO, 2048);
    }
}

#[test]
fn elements_of_every_size() {
    for element in [
        TensorElement::U8,
        TensorElement::U16,
        TensorElement::F16,
        TensorElement::Bf16,
        TensorElement::U32,
        TensorElement::I32,
        TensorElement::F32,
        TensorElement::U64,
        TensorElement::I64,
        TensorElement::F64,
    ] {
        let columns = 128 / element.bytes();
        let tensor = matrix(element, u64::from(columns) * 2, 16, 32);
        for swizzle in [Swizzle::None, Swizzle::B128] {
            check_load(&tensor, &[columns, 8], &[1, 1], &[16, 5], swizzle, ZERO, 0);
        }
    }
}

/// The innermost dimension comes first in shared memory.
#[test]
fn tensors_of_every_rank() {
    let sizes = [40_u64, 5, 4, 3, 3];
    let tiles = [8_u32, 3, 2, 2, 2];
    let start = [16_i64, 1, 1, 0, 1];
    for rank in 1..=5 {
        let tensor = Tensor { element: TensorElement::U16, sizes: sizes[..rank].to_vec(), padding: 0 };
        let steps = vec![1; rank];
        check_load(&tensor, &tiles[..rank], &steps, &start[..rank], Swizzle::None, ZERO, 0);
    }
    let tensor = Tensor { element: TensorElement::U16, sizes: vec![32, 6, 5], padding: 0 };
    check_load(&tensor, &[32, 4, 3], &[1, 1, 1], &[0, 1, 1], Swizzle::B64, ZERO, 0);
}

/// Elements outside are zero on every side, and count as bytes all the same.
#[test]
fn what_lies_outside_is_filled() {
    let tensor = matrix(TensorElement::U16, 24, 10, 16);
    for swizzle in [Swizzle::None, Swizzle::B64] {
        for start in [
            [-8, 0],
            [-3, -2],
            [0, -7],
            [8, 6],
            [20, 9],
            [-100, 0],
            [0, 1000],
            [24, 0],
            [0, 10],
            [i64::from(i32::MIN), -1],
        ] {
            check_load(&tensor, &[32, 8], &[1, 1], &start, swizzle, ZERO, 0);
        }
    }
    let cube = Tensor { element: TensorElement::U32, sizes: vec![8, 3, 3], padding: 0 };
    for start in [[-4, -1, -1], [4, 2, 2], [0, 0, -2]] {
        check_load(&cube, &[8, 2, 2], &[1, 1, 1], &start, Swizzle::None, ZERO, 0);
    }
    let floats = matrix(TensorElement::F32, 8, 4, 0);
    check_load(&floats, &[8, 4], &[1, 1], &[4, 2], Swizzle::None, OutOfBounds::Nan, 0);
}

/// Every how-many-th element along a dimension; the box counts elements of the tensor.
#[test]
fn strides_skip_elements() {
    let tensor = matrix(TensorElement::U16, 64, 40, 0);
    for (rows, step) in [(8, 2), (9, 2), (16, 3), (8, 8), (1, 4)] {
        for start in [[0, 0], [8, 5], [0, 36], [0, -3]] {
            check_load(&tensor, &[32, rows], &[1, step], &start, Swizzle::None, ZERO, 0);
            check_load(&tensor, &[32, rows], &[1, step], &start, Swizzle::B64, ZERO, 0);
        }
    }
}

/// Writes a box from shared memory: what lies outside the tensor stays as it was.
#[test]
fn stores_write_what_lies_inside() {
    let tensor = matrix(TensorElement::U16, 24, 10, 16);
    for swizzle in [Swizzle::None, Swizzle::B64] {
        for start in [[0, 0], [-8, -2], [16, 7], [24, 0]] {
            let (tile, steps) = ([32_u32, 8], [1, 1]);
            let map = tensor.map(&tile, &steps, swizzle, ZERO);
            let body = fill(128)
                + &format!(
                    "
    setp.eq.u32 %p1, %r0, 0;
    mov.b32 %r20, {};
    mov.b32 %r21, {};
    @!%p1 bra DONE;
    cp.async.bulk.tensor.2d.global.shared::cta.bulk_group [%rd2, {{%r20, %r21}}], [%r1];
    cp.async.bulk.commit_group;
    cp.async.bulk.wait_group 0;
DONE:",
                    start[0], start[1]
                );
            let input: Vec<u32> = (0..128).map(|word| (word * 2) | ((word * 2 + 1) << 16)).collect();
            let words = tensor.bytes() as usize / 4;
            let setup = Setup { input, output: words, map: Some(&map), map_output: true, ..Setup::default() };
            let out = run(&body, &setup);
            let mut expected = vec![0xeeee_u16; 2 * words];
            for (at, index) in elements(&tile, &steps, &start).iter().enumerate() {
                if let Some(place) = tensor.at(index) {
                    expected[place as usize / 2] = (swizzled(swizzle, 2 * at as u32) / 2) as u16;
                }
            }
            let got: Vec<u16> = out.iter().flat_map(|word| [*word as u16, (*word >> 16) as u16]).collect();
            assert_eq!(got, expected, "{swizzle:?} at {start:?}");
        }
    }
}

/// Plain bulk copies there and back; their size is a multiple of 16.
#[test]
fn bulk_copies_move_bytes() {
    for bytes in [16_u32, 48, 1024, 4096] {
        let words = bytes as usize / 4;
        let body = format!(
            "
    setp.eq.u32 %p1, %r0, 0;
    add.s32 %r10, %r1, 8192;
    add.s32 %r11, %r1, 64;
    add.s64 %rd10, %rd0, 16;
    @%p1 mbarrier.init.shared::cta.b64 [%r10], 1;
    fence.mbarrier_init.release.cluster;
    bar.sync 0;
    @%p1 mbarrier.arrive.expect_tx.shared::cta.b64 _, [%r10], {bytes};
    @%p1 cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%r11], [%rd10], {bytes}, [%r10];{}
    @!%p1 bra DONE;
    cp.async.bulk.global.shared::cta.bulk_group [%rd1], [%r11], {bytes};
    cp.async.bulk.commit_group;
    cp.async.bulk.wait_group 0;
DONE:",
            wait("W", "%r10", "0")
        );
        let input: Vec<u32> = (0..words as u32 + 8).map(|i| i * 3 + 1).collect();
        let setup = Setup { input: input.clone(), output: words, ..Setup::default() };
        assert_eq!(run(&body, &setup), input[4..4 + words]);
    }
}

/// Several copies may share a barrier, and each brings its own bytes.
#[test]
fn a_barrier_counts_the_bytes_of_all_copies() {
    let body = format!(
        "
    setp.eq.u32 %p1, %r0, 0;
    add.s32 %r10, %r1, 8192;
    @%p1 mbarrier.init.shared::cta.b64 [%r10], 1;
    fence.mbarrier_init.release.cluster;
    bar.sync 0;
    @!%p1 bra JOIN;
    mbarrier.arrive.expect_tx.shared::cta.b64 _, [%r10], 256;
    mov.b32 %r11, 0;
COPY:
    mad.lo.s32 %r12, %r11, 64, %r1;
    mad.wide.u32 %rd10, %r11, 64, %rd0;
    cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%r12], [%rd10], 64, [%r10];
    add.s32 %r11, %r11, 1;
    setp.lt.u32 %p2, %r11, 4;
    @%p2 bra COPY;
JOIN:{}{}",
        wait("W", "%r10", "0"),
        dump(64)
    );
    let setup = Setup { input: (100..164).collect(), output: 64, ..Setup::default() };
    assert_eq!(run(&body, &setup), (100..164).collect::<Vec<u32>>());
    // One byte count too small: the phase opens early or its bytes are left over.
    fault(&body.replace("[%r10], 256;", "[%r10], 192;"), &setup, "in flight");
    // Too large: it never opens.
    fault(&body.replace("[%r10], 256;", "[%r10], 272;"), &setup, "16 bytes");
}

/// Groups of stores: a wait that leaves N under way covers the older ones; `.read` frees the source alone.
#[test]
fn groups_of_stores_are_waited_for() {
    let body = |wait: &str| {
        fill(64)
            + &format!(
                "
    setp.eq.u32 %p1, %r0, 0;
    @!%p1 bra DONE;
    cp.async.bulk.global.shared::cta.bulk_group [%rd1], [%r1], 128;
    cp.async.bulk.commit_group;
    add.s64 %rd10, %rd1, 128;
    add.s32 %r10, %r1, 128;
    cp.async.bulk.global.shared::cta.bulk_group [%rd10], [%r10], 128;
    cp.async.bulk.commit_group;
    {wait}
    mov.b32 %r11, 9;
    st.shared.b32 [%r1], %r11;
    cp.async.bulk.wait_group 0;
DONE:"
            )
    };
    let setup = Setup { input: (0..64).collect(), output: 64, ..Setup::default() };
    for wait in [
        "cp.async.bulk.wait_group.read 1;",
        "cp.async.bulk.wait_group.read 0;",
        "cp.async.bulk.wait_group 1;",
    ] {
        assert_eq!(run(&body(wait), &setup), (0..64).collect::<Vec<u32>>(), "{wait}");
    }
    // The source of a store that may still read it.
    fault(&body("cp.async.bulk.wait_group.read 2;"), &setup, "still reads");
}

/// Data and barrier of a load belong to the copy until the phase is over.
#[test]
fn loads_are_not_there_before_their_barrier() {
    let body = "
    setp.eq.u32 %p1, %r0, 0;
    add.s32 %r10, %r1, 8192;
    @%p1 mbarrier.init.shared::cta.b64 [%r10], 1;
    fence.mbarrier_init.release.cluster;
    bar.sync 0;
    @%p1 mbarrier.arrive.expect_tx.shared::cta.b64 _, [%r10], 128;
    @%p1 cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%r1], [%rd0], 128, [%r10];
    bar.sync 0;
    ld.shared.b32 %r11, [%r1];
    st.global.b32 [%rd1], %r11;";
    fault(body, &Setup { input: (0..32).collect(), ..Setup::default() }, "in flight");
}

#[test]
fn limits_of_addresses_and_sizes_are_checked() {
    let bulk = |to: u32, from: u32, bytes: u32| {
        format!(
            "
    add.s32 %r10, %r1, 8192;
    mbarrier.init.shared::cta.b64 [%r10], 1;
    fence.mbarrier_init.release.cluster;
    mbarrier.arrive.expect_tx.shared::cta.b64 _, [%r10], {bytes};
    add.s32 %r11, %r1, {to};
    add.s64 %rd10, %rd0, {from};
    cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%r11], [%rd10], {bytes}, [%r10];{}",
            wait("W", "%r10", "0")
        )
    };
    let setup = Setup { threads: 1, input: vec![1; 64], ..Setup::default() };
    run(&bulk(16, 16, 32), &setup);
    for (to, from, bytes, says) in [
        (8, 0, 32, "multiple of 16"),
        (0, 8, 32, "multiple of 16"),
        (0, 0, 24, "multiple of 16"),
        (0, 240, 32, "out-of-bounds"),
        (32768, 0, 16, "out-of-bounds"),
    ] {
        fault(&bulk(to, from, bytes), &setup, says);
    }
}

/// A cache policy is a hint; prefetches bring nothing that a kernel could see.
#[test]
fn hints_change_no_value() {
    let tensor = matrix(TensorElement::U32, 8, 8, 0);
    let map = tensor.map(&[8, 4], &[1, 1], Swizzle::None, ZERO);
    let body = format!(
        "
    setp.eq.u32 %p1, %r0, 0;
    add.s32 %r10, %r1, 8192;
    mov.b32 %r20, 0;
    mov.b32 %r21, 2;
    mov.b64 %rd10, 0x1000000000000000;
    @%p1 mbarrier.init.shared::cta.b64 [%r10], 1;
    fence.mbarrier_init.release.cluster;
    bar.sync 0;
    @!%p1 bra JOIN;
    prefetch.tensormap [%rd2];
    cp.async.bulk.prefetch.tensor.2d.L2.global.tile [%rd2, {{%r20, %r21}}];
    mbarrier.arrive.expect_tx.shared::cta.b64 _, [%r10], 128;
    cp.async.bulk.tensor.2d.shared::cluster.global.tile.mbarrier::complete_tx::bytes.L2::cache_hint [%r1], [%rd2, {{%r20, %r21}}], [%r10], %rd10;
JOIN:{}{}",
        wait("W", "%r10", "0"),
        dump(32)
    );
    let setup = Setup { input: tensor.words(), output: 32, map: Some(&map), ..Setup::default() };
    assert_eq!(run(&body, &setup), tensor.words()[16..48]);
}
