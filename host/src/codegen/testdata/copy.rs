//! The smallest device crate, for the tests of code generation alone: a copy, a few elements a thread.
#![no_std]
#![feature(abi_ptx, stdarch_nvptx)]

use core::arch::nvptx::{_block_dim_x, _block_idx_x, _thread_idx_x, trap};

const ELEMENTS: usize = parse(option_env!("NABLA_ELEMENTS"));

const fn parse(text: Option<&str>) -> usize {
    let Some(text) = text else { return 1 };
    let (mut value, mut i) = (0, 0);
    while i < text.len() {
        value = value * 10 + (text.as_bytes()[i] - b'0') as usize;
        i += 1;
    }
    assert!(value > 0, "NABLA_ELEMENTS must be at least 1");
    value
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo) -> ! {
    // SAFETY: traps need nothing.
    unsafe { trap() }
}

fn thread() -> usize {
    // SAFETY: every thread has an index.
    unsafe { (_block_idx_x() * _block_dim_x() + _thread_idx_x()) as usize }
}

/// Copies `ELEMENTS` words for each thread.
#[cfg(not(nabla_kernel = "local_memory"))]
#[unsafe(no_mangle)]
pub unsafe extern "ptx-kernel" fn copy(from: *const u32, to: *mut u32) {
    let mut i = 0;
    while i < ELEMENTS {
        let at = thread() * ELEMENTS + i;
        // SAFETY: both buffers hold `ELEMENTS` words for each thread of the launch.
        unsafe { to.add(at).write_volatile(from.add(at).read_volatile()) };
        i += 1;
    }
}

/// A second entry beside `copy`.
#[cfg(nabla_kernel = "two_entries")]
#[unsafe(no_mangle)]
pub unsafe extern "ptx-kernel" fn unrelated() {}

/// Looks up words by run-time indices, which registers do not have.
#[cfg(nabla_kernel = "local_memory")]
#[unsafe(no_mangle)]
pub unsafe extern "ptx-kernel" fn reverse(from: *const u32, to: *mut u32) {
    let mut words = [0; ELEMENTS];
    for (i, word) in words.iter_mut().enumerate() {
        // SAFETY: the buffer holds `ELEMENTS` words.
        *word = unsafe { from.add(i).read_volatile() };
    }
    let at = words[thread() % ELEMENTS] as usize % ELEMENTS;
    words[at] = 1;
    for i in 0..ELEMENTS {
        // SAFETY: the buffer holds `ELEMENTS` words.
        unsafe { to.add(i).write_volatile(words[words[i] as usize % ELEMENTS]) };
    }
}
