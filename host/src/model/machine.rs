//! Published rates of GPUs. Owns the one table of them; what fits on a multiprocessor is `codegen::occupancy`'s.

use nabla_kernels_gpu::instances::{Arch, Instance};

use crate::codegen::occupancy::{self, SmLimits};

/// What a GPU can do in a clock or a second, at most.
///
/// Sources: A100 and H100 Tensor Core GPU architecture whitepapers (multiprocessors, tensor cores, clock, caches, memory);
/// CUDA C++ Programming Guide, table of arithmetic throughput (f32, special functions); H200 data sheet.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Machine {
    /// Name.
    pub name: &'static str,
    /// Architecture whose code it runs.
    pub arch: &'static str,
    /// Multiprocessors.
    pub multiprocessors: u32,
    /// Clock that the published peak is stated at, in Hz.
    pub clock_hz: f64,
    /// Floating-point operations of 16-bit matrix products with f32 sums, a clock and multiprocessor.
    pub tensor_flops: f64,
    /// The share of `tensor_flops` that `mma.sync` reaches; `wgmma` reaches all.
    ///
    /// On Hopper it is measured, not published: Luo et al., "Benchmarking and Dissecting the Nvidia Hopper GPU
    /// Architecture" (arXiv 2402.13499), section on tensor cores.
    pub mma_sync_share: f64,
    /// Special functions (`ex2`, `rcp`, ...) a clock and multiprocessor.
    pub special: f64,
    /// f32 operations (a fused multiply-add is one) a clock and multiprocessor.
    pub fp32: f64,
    /// Instructions of warps issued a clock and multiprocessor: one for each of four schedulers.
    pub issue: f64,
    /// Bytes of shared memory a clock and multiprocessor: 32 banks of 4 bytes.
    pub shared_bytes: f64,
    /// Bytes from the L2 cache a clock, all multiprocessors together.
    ///
    /// Published for the A100 (5,120); taken for Hopper, too, where none is published and measurements lie on either side.
    pub l2_bytes: f64,
    /// Bytes that the L2 cache holds.
    pub l2_capacity: f64,
    /// Bytes of device memory a second.
    pub memory_bytes_per_second: f64,
}

const H100: Machine = Machine {
    name: "H100 SXM",
    arch: "sm_90a",
    multiprocessors: 132,
    clock_hz: 1.83e9,
    tensor_flops: 4096.0,
    mma_sync_share: 0.63,
    special: 16.0,
    fp32: 128.0,
    issue: 4.0,
    shared_bytes: 128.0,
    l2_bytes: 5120.0,
    l2_capacity: 50e6,
    memory_bytes_per_second: 3.35e12,
};

/// The GPUs that predictions are made for.
pub const MACHINES: [Machine; 3] = [
    H100,
    Machine { name: "H200", memory_bytes_per_second: 4.8e12, ..H100 },
    Machine {
        name: "A100",
        arch: "sm_80",
        multiprocessors: 108,
        clock_hz: 1.41e9,
        tensor_flops: 2048.0,
        mma_sync_share: 1.0,
        special: 16.0,
        fp32: 64.0,
        issue: 4.0,
        shared_bytes: 128.0,
        l2_bytes: 5120.0,
        l2_capacity: 40e6,
        memory_bytes_per_second: 2.039e12,
    },
];

impl Machine {
    /// Finds a machine by its name, in any case.
    pub fn named(name: &str) -> Option<Self> {
        MACHINES.into_iter().find(|machine| machine.name.eq_ignore_ascii_case(name))
    }

    /// Finds the machine that a driver's name of a device means, such as `NVIDIA H100 80GB HBM3`; those of another clock
    /// or size of the same model are taken for it.
    pub fn of_device(name: &str) -> Option<Self> {
        let model = |machine: &Machine| machine.name.split(' ').next().unwrap_or(machine.name);
        MACHINES.into_iter().find(|machine| name.split([' ', '-']).any(|word| word == model(machine)))
    }

    /// Says whether it runs an instance.
    pub fn runs(&self, instance: &Instance) -> bool {
        instance.kernel.arch().builds_for(self.arch).is_ok()
    }

    /// Returns the floating-point operations of matrix products a clock and multiprocessor, by the instruction that a
    /// kernel has for them.
    pub fn tensor_flops_of(&self, arch: Arch) -> f64 {
        match arch {
            Arch::Sm80 => self.tensor_flops * self.mma_sync_share,
            Arch::Sm90a => self.tensor_flops,
        }
    }

    /// Returns the peak of matrix products in floating-point operations a second.
    pub fn peak_flops(&self) -> f64 {
        self.tensor_flops * f64::from(self.multiprocessors) * self.clock_hz
    }

    /// Returns what a multiprocessor holds, if it is known.
    pub fn limits(&self) -> Option<SmLimits> {
        occupancy::GPUS.into_iter().find(|limits| limits.arch == self.arch)
    }
}
