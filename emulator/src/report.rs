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

impl Report {
    /// Lists the sums by name, in a fixed order.
    pub fn rows(&self) -> impl Iterator<Item = (String, u64)> {
        let c = &self.counters;
        [
            ("ctas", c.ctas),
            ("warp_instructions", self.warp_instructions),
            ("thread_instructions", c.thread_instructions),
            ("mma", c.mma),
            ("ldmatrix", c.ldmatrix),
            ("barriers", c.barriers),
            ("global_load_bytes", c.global_load_bytes),
            ("global_store_bytes", c.global_store_bytes),
            ("shared_bytes", c.shared_bytes),
            ("local_bytes", c.local_bytes),
            ("unwaited_copies", c.unwaited_copies),
        ]
        .into_iter()
        .map(|(name, count)| (name.to_owned(), count))
    }
}
