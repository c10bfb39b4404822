//! Matrix products of a warpgroup ("Asynchronous Warpgroup Level Matrix Multiply-Accumulate Instructions").
//!
//! A product of tiles is one block of assembly: `wgmma.fence`, its k-steps of 16, `wgmma.commit_group`. It runs while
//! the threads go on, so its accumulators and A registers belong to the tensor core until a wait that names them: the
//! wait takes them as operands, and what is computed from them cannot move before it.
//!
//! The macros make a wrapper of each shape: a template must be a literal.
//!
//! All functions are unsafe for one reason besides those stated: all 128 threads of the warpgroup come here together,
//! and with the same descriptors.

use core::arch::asm;

use crate::config::Dtype;

/// Writes a product: kind, type, columns, k-steps, then accumulators, A and B.
macro_rules! product {
    ($kind:ident, $type:literal, $n:tt, $steps:tt, $c:ident, $a:ident, $b:ident) => {
        registers!($n, product_of_steps, $kind, $type, $n, $steps, $c, $a, $b)
    };
}

/// Hands a macro the numbers of the accumulators but the first, by columns.
macro_rules! registers {
    (64, $then:ident, $($rest:tt)*) => {
        $then!([1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24 25 26 27 28 29 30 31], $($rest)*)
    };
    (96, $then:ident, $($rest:tt)*) => {
        $then!([1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24 25 26 27 28 29 30 31
            32 33 34 35 36 37 38 39 40 41 42 43 44 45 46 47], $($rest)*)
    };
    (128, $then:ident, $($rest:tt)*) => {
        $then!([1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24 25 26 27 28 29 30 31
            32 33 34 35 36 37 38 39 40 41 42 43 44 45 46 47
            48 49 50 51 52 53 54 55 56 57 58 59 60 61 62 63], $($rest)*)
    };
}

/// Adds the k-steps: names of operands, number, and whether what is in the accumulators counts.
macro_rules! product_of_steps {
    ($regs:tt, shared, $type:literal, $n:literal, $steps:tt, $c:ident, $a:ident, $b:ident) => {
        product_of_steps!(@shared $steps, $regs, $regs, $type, $n, $c, $a, $b)
    };
    ($regs:tt, registers, $type:literal, $n:literal, $steps:tt, $c:ident, $a:ident, $b:ident) => {
        product_of_steps!(@registers $steps, $regs, $regs, $type, $n, $c, $a, $b)
    };
    (@shared 4, $($rest:tt)*) => {
        shared_product!([a0 b0 0 0] [a1 b1 1 1] [a2 b2 2 1] [a3 b3 3 1], $($rest)*)
    };
    (@shared 6, $($rest:tt)*) => {
        shared_product!([a0 b0 0 0] [a1 b1 1 1] [a2 b2 2 1] [a3 b3 3 1] [a4 b4 4 1] [a5 b5 5 1], $($rest)*)
    };
    (@shared 8, $($rest:tt)*) => {
        shared_product!([a0 b0 0 0] [a1 b1 1 1] [a2 b2 2 1] [a3 b3 3 1] [a4 b4 4 1] [a5 b5 5 1] [a6 b6 6 1]
            [a7 b7 7 1], $($rest)*)
    };
    (@registers 4, $($rest:tt)*) => {
        register_product!([p0 q0 r0 s0 b0 0] [p1 q1 r1 s1 b1 1] [p2 q2 r2 s2 b2 2] [p3 q3 r3 s3 b3 3], $($rest)*)
    };
    (@registers 8, $($rest:tt)*) => {
        register_product!([p0 q0 r0 s0 b0 0] [p1 q1 r1 s1 b1 1] [p2 q2 r2 s2 b2 2] [p3 q3 r3 s3 b3 3]
            [p4 q4 r4 s4 b4 4] [p5 q5 r5 s5 b5 5] [p6 q6 r6 s6 b6 6] [p7 q7 r7 s7 b7 7], $($rest)*)
    };
}

/// The accumulators as an operand: `{ {0}, {1}, ... }`.
macro_rules! accumulators {
    ([$($i:literal)*]) => { concat!("{{{0}" $(, ", {", $i, "}")*, "}}") };
}

/// A product whose A lies in shared memory. What was in the accumulators is not read: `scale-d` of the first step is 0.
macro_rules! shared_product {
    ($([$ak:ident $bk:ident $k:literal $add:literal])*, $all:tt, [$($i:literal)*], $type:literal, $n:literal,
        $c:ident, $a:ident, $b:ident) => {
        asm!(
            "wgmma.fence.sync.aligned;",
            $(concat!("wgmma.mma_async.sync.aligned.m64n", $n, "k16.f32.", $type, ".", $type, " ",
                accumulators!($all), ", {", stringify!($ak), "}, {", stringify!($bk), "}, ", $add, ", 1, 1, 0, 0;"),)*
            "wgmma.commit_group.sync.aligned;",
            out(reg32) $c[0], $(out(reg32) $c[$i],)*
            $($ak = in(reg64) $a[$k], $bk = in(reg64) $b[$k],)*
            options(nostack)
        )
    };
}

/// A product whose A lies in registers and whose B is MN-major.
macro_rules! register_product {
    ($([$p:ident $q:ident $r:ident $s:ident $bk:ident $k:literal])*, $all:tt, [$($i:literal)*], $type:literal,
        $n:literal, $c:ident, $a:ident, $b:ident) => {
        asm!(
            "wgmma.fence.sync.aligned;",
            $(concat!("wgmma.mma_async.sync.aligned.m64n", $n, "k16.f32.", $type, ".", $type, " ",
                accumulators!($all), ", {{{", stringify!($p), "}, {", stringify!($q), "}, {", stringify!($r), "}, {",
                stringify!($s), "}}}, {", stringify!($bk), "}, 1, 1, 1, 1;"),)*
            "wgmma.commit_group.sync.aligned;",
            inout(reg32) $c[0], $(inout(reg32) $c[$i],)*
            $($p = in(reg32) $a[$k][0], $q = in(reg32) $a[$k][1], $r = in(reg32) $a[$k][2], $s = in(reg32) $a[$k][3],
                $bk = in(reg64) $b[$k],)*
            options(nostack)
        )
    };
}

/// A wait that names accumulators, in a comment: operands must be used.
macro_rules! wait {
    ($pending:ident, $n:tt, $c:ident) => {
        registers!($n, wait_for, $pending, $c)
    };
}

macro_rules! wait_for {
    ([$($i:literal)*], $pending:ident, $c:ident) => {
        asm!(
            concat!("wgmma.wait_group.sync.aligned {pending}; // {0}" $(, " {", $i, "}")*),
            inout(reg32) $c[0], $(inout(reg32) $c[$i],)*
            pending = const $pending,
            options(nostack)
        )
    };
}

/// Accumulators of a 64-row tile: fragment `n` is columns `8n..8n + 8`, register `2r + i` of it is row
/// `16 warp + lane / 4 + 8r`, column `lane % 4 * 2 + i` ("Register Fragments": accumulator D of `m64nNk16`).
pub type Fragments = [[f32; 4]; 16];
/// A operand in registers: four for each k-step, as those of `mma.m16n8k16` for the 16 rows of a warp.
pub type Operands = [[u32; 4]; 8];
/// Descriptors of a tile in shared memory, one for each k-step.
pub type Descriptors = [u64; 8];

/// Starts `c = a b` for a in shared memory, 64 x 16 `steps`, and b in shared memory, 16 `steps` x `n`, both K-major
/// ("wgmma.mma_async").
///
/// `n` is 64 or 128 and `steps` 4, 6 or 8; both are constants after inlining.
///
/// # Safety
/// The tiles are there, for the async proxy, and stay until a wait; so do the registers.
#[inline(always)]
pub unsafe fn multiply_shared(
    dtype: Dtype,
    n: u32,
    steps: u32,
    c: &mut Fragments,
    a: &Descriptors,
    b: &Descriptors,
) {
    let c = c.as_flattened_mut();
    // SAFETY: the caller's.
    unsafe {
        match (dtype, n, steps) {
            (Dtype::Bf16, 64, 4) => product!(shared, "bf16", 64, 4, c, a, b),
            (Dtype::Bf16, 64, 6) => product!(shared, "bf16", 64, 6, c, a, b),
            (Dtype::Bf16, 64, _) => product!(shared, "bf16", 64, 8, c, a, b),
            (Dtype::Bf16, _, 4) => product!(shared, "bf16", 128, 4, c, a, b),
            (Dtype::Bf16, _, 6) => product!(shared, "bf16", 128, 6, c, a, b),
            (Dtype::Bf16, _, _) => product!(shared, "bf16", 128, 8, c, a, b),
            (Dtype::F16, 64, 4) => product!(shared, "f16", 64, 4, c, a, b),
            (Dtype::F16, 64, 6) => product!(shared, "f16", 64, 6, c, a, b),
            (Dtype::F16, 64, _) => product!(shared, "f16", 64, 8, c, a, b),
            (Dtype::F16, _, 4) => product!(shared, "f16", 128, 4, c, a, b),
            (Dtype::F16, _, 6) => product!(shared, "f16", 128, 6, c, a, b),
            (Dtype::F16, _, _) => product!(shared, "f16", 128, 8, c, a, b),
        }
    }
}

/// Starts `c += a b` for a in registers, 64 x 16 `steps`, and b in shared memory, 16 `steps` x `n`, MN-major
/// ("wgmma.mma_async", `imm-trans-b` 1).
///
/// `n` is 64, 96 or 128 and `steps` 4 or 8; both are constants after inlining.
///
/// # Safety
/// The tile is there, for the async proxy, and stays until a wait; so do the registers.
#[inline(always)]
pub unsafe fn multiply_registers(
    dtype: Dtype,
    n: u32,
    steps: u32,
    c: &mut Fragments,
    a: &Operands,
    b: &Descriptors,
) {
    let c = c.as_flattened_mut();
    // SAFETY: the caller's.
    unsafe {
        match (dtype, n, steps) {
            (Dtype::Bf16, 64, 4) => product!(registers, "bf16", 64, 4, c, a, b),
            (Dtype::Bf16, 96, 4) => product!(registers, "bf16", 96, 4, c, a, b),
            (Dtype::Bf16, _, 4) => product!(registers, "bf16", 128, 4, c, a, b),
            (Dtype::Bf16, 64, _) => product!(registers, "bf16", 64, 8, c, a, b),
            (Dtype::Bf16, 96, _) => product!(registers, "bf16", 96, 8, c, a, b),
            (Dtype::Bf16, _, _) => product!(registers, "bf16", 128, 8, c, a, b),
            (Dtype::F16, 64, 4) => product!(registers, "f16", 64, 4, c, a, b),
            (Dtype::F16, 96, 4) => product!(registers, "f16", 96, 4, c, a, b),
            (Dtype::F16, _, 4) => product!(registers, "f16", 128, 4, c, a, b),
            (Dtype::F16, 64, _) => product!(registers, "f16", 64, 8, c, a, b),
            (Dtype::F16, 96, _) => product!(registers, "f16", 96, 8, c, a, b),
            (Dtype::F16, _, _) => product!(registers, "f16", 128, 8, c, a, b),
        }
    }
}

/// Waits until at most `PENDING` of the products, the youngest, still run; `c`, `n` columns wide, is then the
/// threads' again ("wgmma.wait_group").
///
/// # Safety
/// `c` is of a product that is older.
#[inline(always)]
pub unsafe fn wait_accumulators<const PENDING: u32>(n: u32, c: &mut Fragments) {
    let c = c.as_flattened_mut();
    // SAFETY: the caller's.
    unsafe {
        match n {
            64 => wait!(PENDING, 64, c),
            96 => wait!(PENDING, 96, c),
            _ => wait!(PENDING, 128, c),
        }
    }
}

/// Closes a group of no products, which a wait counts like any ("wgmma.commit_group").
///
/// # Safety
/// All threads of the warpgroup come here.
#[inline(always)]
pub unsafe fn commit_nothing() {
    // SAFETY: the caller's.
    unsafe { asm!("wgmma.commit_group.sync.aligned;", options(nostack)) }
}

/// Keeps `a`, of `steps` k-steps, in its registers up to here: for after the wait for a product that reads it.
#[inline(always)]
pub fn keep_operands(steps: u32, a: &mut Operands) {
    for k in 0..steps as usize {
        let [p, q, r, s] = &mut a[k];
        // SAFETY: a comment. Operands must be named.
        unsafe {
            asm!(
                "// {} {} {} {}",
                inout(reg32) * p,
                inout(reg32) * q,
                inout(reg32) * r,
                inout(reg32) * s,
                options(nomem, nostack)
            );
        }
    }
}
