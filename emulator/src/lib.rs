//! Runs PTX on the CPU: parses a module, decodes its kernels, executes them warp by warp, and reports what a GPU would
//! silently let pass: reads of memory nobody wrote, accesses outside every allocation, asynchronous copies and products
//! nobody waited for, lanes that miss a `.sync` operation, barriers that never open.
//!
//! The crate knows PTX and nothing of the kernels it runs. What it models, and what it does not, is in
//! `docs/emulator.md`.
//!
//! ```
//! use nabla_emulator::{LaunchConfig, Memory, Module, Param, launch};
//!
//! let ptx = r"
//! .version 8.0
//! .target sm_80
//! .address_size 64
//! .visible .entry double(.param .u64 data)
//! {
//!     .reg .b32 %r<3>;
//!     .reg .b64 %rd<3>;
//!     ld.param.b64 %rd0, [data];
//!     mov.u32 %r0, %tid.x;
//!     mad.wide.u32 %rd1, %r0, 4, %rd0;
//!     ld.global.b32 %r1, [%rd1];
//!     add.s32 %r2, %r1, %r1;
//!     st.global.b32 [%rd1], %r2;
//!     ret;
//! }";
//! let module = Module::parse("double.ptx", ptx)?;
//! let mut memory = Memory::new();
//! let data = memory.alloc_from(&[1, 0, 0, 0, 2, 0, 0, 0]);
//! let config = LaunchConfig { grid: [1, 1, 1], block: [2, 1, 1], ..LaunchConfig::default() };
//! launch(&module, "double", config, &[Param::Ptr(data)], &mut memory)?;
//! assert_eq!(memory.read(data, 8)?, [2, 0, 0, 0, 4, 0, 0, 0]);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod ast;
mod decode;
mod diagnostic;
mod exec;
mod fault;
mod hopper;
mod kernel;
mod kind;
mod launch;
mod lexer;
mod memory;
mod module;
mod mutate;
mod parser;
mod program;
mod report;
mod scalar;
mod tensor_map;

pub use diagnostic::Diagnostic;
pub use fault::{CodePlace, DataRace, Earlier, Fault, FaultKind, MemorySpace, Waiting};
pub use kind::Kind;
pub use launch::{Completion, LaunchConfig, Numerics, Options, Param, launch, launch_with};
pub use memory::{DevicePtr, Memory, MemoryError};
pub use module::Module;
pub use mutate::{Mutant, MutationKind, mutants};
pub use report::{Counters, Coverage, Report};
pub use tensor_map::{OutOfBounds, Swizzle, TensorElement, TensorMap, TensorMapError};
