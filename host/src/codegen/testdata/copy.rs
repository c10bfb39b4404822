//! The smallest device crate: copies a buffer, a few elements a thread. For the tests of code generation alone.
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
    unsafe { trap() }
}

#[unsafe(no_mangle)]
pub unsafe extern "ptx-kernel" fn copy(from: *const u32, to: *mut u32) {
    unsafe {
        let thread = (_block_idx_x() * _block_dim_x() + _thread_idx_x()) as usize;
        let mut i = 0;
        while i < ELEMENTS {
            to.add(thread * ELEMENTS + i).write(from.add(thread * ELEMENTS + i).read());
            i += 1;
        }
    }
}

#[cfg(nabla_kernel = "local_memory")]
#[unsafe(no_mangle)]
pub unsafe extern "ptx-kernel" fn unrelated() {}
