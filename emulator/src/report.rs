//! What a launch counted.

use std::collections::BTreeMap;

/// Sums over all CTAs of a launch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Counters {
    /// CTAs run.
    pub ctas: u64,
    /// Instructions executed, once for each lane.
    pub thread_instructions: u64,
    /// `mma` executed, once for each warp.
    pub mma: u64,
    /// `ldmatrix` executed, once for each warp.
    pub ldmatrix: u64,
    /// Arrivals of warps at barriers.
    pub barriers: u64,
    /// Bytes read from global memory by loads and `cp.async`.
    pub global_load_bytes: u64,
    /// Bytes written to global memory by stores and atomics.
    pub global_store_bytes: u64,
    /// Bytes read from and written to shared memory.
    pub shared_bytes: u64,
    /// Bytes read from and written to local memory: spills and arrays that did not fit registers.
    pub local_bytes: u64,
    /// `cp.async` of threads that exited without waiting for them.
    pub unwaited_copies: u64,
    /// Arrivals of warps that wait for the barrier to open: all but `.arrive`.
    pub barrier_waits: u64,
    /// Loads and `cp.async` of warps that read global memory.
    pub global_load_requests: u64,
    /// Different 32-byte sectors that those touch, each counted by itself.
    pub global_load_sectors: u64,
    /// Stores and atomics of warps to global memory.
    pub global_store_requests: u64,
    /// Different 32-byte sectors that those touch, each counted by itself.
    pub global_store_sectors: u64,
    /// Loads, stores, atomics, `ldmatrix` and `cp.async` of warps that read or write shared memory.
    pub shared_requests: u64,
    /// Times that the banks of shared memory deliver for those: at least one for every 128 bytes' worth of lanes.
    pub shared_wavefronts: u64,
    /// Wavefronts beyond that least number: bank conflicts.
    pub shared_conflicts: u64,
}

impl Counters {
    pub(crate) fn add(&mut self, other: &Self) {
        self.ctas += other.ctas;
        self.thread_instructions += other.thread_instructions;
        self.mma += other.mma;
        self.ldmatrix += other.ldmatrix;
        self.barriers += other.barriers;
        self.global_load_bytes += other.global_load_bytes;
        self.global_store_bytes += other.global_store_bytes;
        self.shared_bytes += other.shared_bytes;
        self.local_bytes += other.local_bytes;
        self.unwaited_copies += other.unwaited_copies;
        self.barrier_waits += other.barrier_waits;
        self.global_load_requests += other.global_load_requests;
        self.global_load_sectors += other.global_load_sectors;
        self.global_store_requests += other.global_store_requests;
        self.global_store_sectors += other.global_store_sectors;
        self.shared_requests += other.shared_requests;
        self.shared_wavefronts += other.shared_wavefronts;
        self.shared_conflicts += other.shared_conflicts;
    }
}

/// Tells what a launch executed. The numbers are deterministic and are no times.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Report {
    /// Sums over the launch.
    pub counters: Counters,
    /// Instructions executed, once for each warp.
    pub warp_instructions: u64,
    /// The same by opcode, with its modifiers.
    pub by_opcode: BTreeMap<String, u64>,
    /// For each instruction of the kernel, in the order of the text: PTX line and how often a warp executed it.
    pub by_line: Vec<(u32, u64)>,
}
