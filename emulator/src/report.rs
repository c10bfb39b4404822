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
    /// `wgmma` executed, once for each warpgroup.
    pub wgmma: u64,
    /// Additions and multiplications of `wgmma`.
    pub wgmma_flops: u64,
    /// Bytes bulk copies read from global memory (a multicast counts once), fills outside the tensor included.
    pub bulk_load_bytes: u64,
    /// Bytes bulk copies and reductions wrote to global memory.
    pub bulk_store_bytes: u64,
    /// Bytes bulk copies, `st.async` and `red.async` moved between CTAs of a cluster.
    pub bulk_cluster_bytes: u64,
    /// Waits for an mbarrier that saw its phase end, once for each warp.
    pub mbarrier_waits: u64,
    /// Arrivals of warps at the barrier of their cluster.
    pub cluster_arrivals: u64,
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
        self.wgmma += other.wgmma;
        self.wgmma_flops += other.wgmma_flops;
        self.bulk_load_bytes += other.bulk_load_bytes;
        self.bulk_store_bytes += other.bulk_store_bytes;
        self.bulk_cluster_bytes += other.bulk_cluster_bytes;
        self.mbarrier_waits += other.mbarrier_waits;
        self.cluster_arrivals += other.cluster_arrivals;
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
    /// What ran without its effect being modelled, and what to do about it.
    pub notes: Vec<String>,
}
