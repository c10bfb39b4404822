//! How many blocks of a kernel fit on one multiprocessor, from the published limits of an architecture.

/// Limits of one multiprocessor, from the compute capability table of the CUDA programming guide.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SmLimits {
    /// A GPU that has them.
    pub gpu: &'static str,
    /// Architecture whose code it runs.
    pub arch: &'static str,
    /// Threads resident at once.
    pub threads: u32,
    /// Blocks resident at once.
    pub blocks: u32,
    /// 32-bit registers.
    pub registers: u32,
    /// Shared memory of all blocks in bytes.
    pub shared_bytes: u32,
    /// Shared memory one block may ask for in bytes.
    pub shared_bytes_per_block: u32,
}

/// Registers are given to a warp in units of this many.
const REGISTER_UNIT: u32 = 256;
/// Warps are given to the four partitions of a multiprocessor alike.
const PARTITIONS: u32 = 4;
/// Shared memory is given out in units of this many bytes.
const SHARED_UNIT: u32 = 128;
/// Shared memory the system takes of each block.
const SHARED_RESERVED: u32 = 1024;
const WARP: u32 = 32;

/// The GPUs that resources are reported for.
pub const GPUS: [SmLimits; 2] = [
    SmLimits {
        gpu: "A100",
        arch: "sm_80",
        threads: 2048,
        blocks: 32,
        registers: 65_536,
        shared_bytes: 164 * 1024,
        shared_bytes_per_block: 163 * 1024,
    },
    SmLimits {
        gpu: "H100",
        arch: "sm_90a",
        threads: 2048,
        blocks: 32,
        registers: 65_536,
        shared_bytes: 228 * 1024,
        shared_bytes_per_block: 227 * 1024,
    },
];

/// What a kernel's residency on a multiprocessor is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Occupancy {
    /// Blocks resident at once; 0 when not even one fits.
    pub blocks: u32,
    /// Warps resident at once.
    pub warps: u32,
    /// What keeps a further block out.
    pub limited_by: &'static str,
}

impl SmLimits {
    /// Counts the blocks that fit: threads of a block, registers of a thread, shared bytes of a block (static and
    /// dynamic together).
    pub fn occupancy(&self, threads: u32, registers: u32, shared_bytes: u32) -> Occupancy {
        let warps = threads.div_ceil(WARP).max(1);
        let registers_of_warp = (registers * WARP).next_multiple_of(REGISTER_UNIT).max(1);
        let warps_by_registers = self.registers / PARTITIONS / registers_of_warp * PARTITIONS;
        let shared_of_block = (shared_bytes + SHARED_RESERVED).next_multiple_of(SHARED_UNIT);
        let by_shared =
            if shared_bytes > self.shared_bytes_per_block { 0 } else { self.shared_bytes / shared_of_block };
        let limits = [
            (self.blocks, "blocks"),
            (self.threads / WARP / warps, "threads"),
            (warps_by_registers / warps, "registers"),
            (by_shared, "shared memory"),
        ];
        let (blocks, limited_by) =
            limits.into_iter().min_by_key(|(blocks, _)| *blocks).unwrap_or((0, "nothing"));
        Occupancy { blocks, warps: blocks * warps, limited_by }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_limit_can_be_the_one_that_counts() {
        let [a100, h100] = GPUS;
        let of = |sm: SmLimits, threads, registers, shared| {
            let occupancy = sm.occupancy(threads, registers, shared);
            (occupancy.blocks, occupancy.warps, occupancy.limited_by)
        };
        assert_eq!(of(a100, 32, 16, 0), (32, 32, "blocks"));
        assert_eq!(of(a100, 1024, 32, 0), (2, 64, "threads"));
        // 170 registers are 5632 of a warp: 2 warps in each of the four partitions, two blocks of 4.
        assert_eq!(of(a100, 128, 170, 0), (2, 8, "registers"));
        assert_eq!(of(a100, 128, 64, 48 * 1024), (3, 12, "shared memory"));
        assert_eq!(of(h100, 128, 64, 48 * 1024), (4, 16, "shared memory"));
        assert_eq!(of(a100, 128, 64, 164 * 1024), (0, 0, "shared memory"));
        assert_eq!(of(h100, 384, 168, 200 * 1024), (1, 12, "registers"));
    }
}
