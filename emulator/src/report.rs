//! What a launch counted.

use std::collections::BTreeMap;
use std::fmt;

use crate::kind::{Kind, matrix_operations};
use crate::module::Module;

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
    /// `wgmma` executed, once for each warpgroup.
    pub wgmma: u64,
    /// Additions and multiplications of `wgmma`.
    pub wgmma_flops: u64,
    /// Bytes bulk copies read from global memory (a multicast counts once), fills outside the tensor included.
    pub bulk_load_bytes: u64,
    /// Bytes multicast copies wrote to CTAs beyond the first.
    pub bulk_multicast_bytes: u64,
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
        self.barrier_waits += other.barrier_waits;
        self.global_load_requests += other.global_load_requests;
        self.global_load_sectors += other.global_load_sectors;
        self.global_store_requests += other.global_store_requests;
        self.global_store_sectors += other.global_store_sectors;
        self.shared_requests += other.shared_requests;
        self.shared_wavefronts += other.shared_wavefronts;
        self.shared_conflicts += other.shared_conflicts;
        self.wgmma += other.wgmma;
        self.wgmma_flops += other.wgmma_flops;
        self.bulk_load_bytes += other.bulk_load_bytes;
        self.bulk_multicast_bytes += other.bulk_multicast_bytes;
        self.bulk_store_bytes += other.bulk_store_bytes;
        self.bulk_cluster_bytes += other.bulk_cluster_bytes;
        self.mbarrier_waits += other.mbarrier_waits;
        self.cluster_arrivals += other.cluster_arrivals;
    }

    /// Every counter by name, in a fixed order.
    fn rows(&self) -> Vec<(&'static str, u64)> {
        // Names every field, so that none is left out.
        let Self {
            ctas,
            thread_instructions,
            mma,
            ldmatrix,
            barriers,
            global_load_bytes,
            global_store_bytes,
            shared_bytes,
            local_bytes,
            unwaited_copies,
            barrier_waits,
            global_load_requests,
            global_load_sectors,
            global_store_requests,
            global_store_sectors,
            shared_requests,
            shared_wavefronts,
            shared_conflicts,
            wgmma,
            wgmma_flops,
            bulk_load_bytes,
            bulk_multicast_bytes,
            bulk_store_bytes,
            bulk_cluster_bytes,
            mbarrier_waits,
            cluster_arrivals,
        } = *self;
        vec![
            ("ctas", ctas),
            ("thread_instructions", thread_instructions),
            ("mma", mma),
            ("wgmma", wgmma),
            ("wgmma_flops", wgmma_flops),
            ("ldmatrix", ldmatrix),
            ("barriers", barriers),
            ("barrier_waits", barrier_waits),
            ("mbarrier_waits", mbarrier_waits),
            ("cluster_arrivals", cluster_arrivals),
            ("global_load_requests", global_load_requests),
            ("global_load_sectors", global_load_sectors),
            ("global_load_bytes", global_load_bytes),
            ("global_store_requests", global_store_requests),
            ("global_store_sectors", global_store_sectors),
            ("global_store_bytes", global_store_bytes),
            ("shared_requests", shared_requests),
            ("shared_wavefronts", shared_wavefronts),
            ("shared_conflicts", shared_conflicts),
            ("shared_bytes", shared_bytes),
            ("bulk_load_bytes", bulk_load_bytes),
            ("bulk_multicast_bytes", bulk_multicast_bytes),
            ("bulk_store_bytes", bulk_store_bytes),
            ("bulk_cluster_bytes", bulk_cluster_bytes),
            ("local_bytes", local_bytes),
            ("unwaited_copies", unwaited_copies),
        ]
    }
}

/// How much of a kernel's text was executed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Coverage {
    /// Lines of which a warp executed an instruction.
    pub executed: u64,
    /// Lines that have instructions.
    pub lines: u64,
}

/// Tells what a launch executed. The numbers are deterministic, whatever the number of CPU threads, and are no times.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Report {
    /// Sums over the launch.
    pub counters: Counters,
    /// Instructions executed, once for each warp; not those that the guard switches off in all lanes.
    pub warp_instructions: u64,
    /// `ex2` executed, once for each warp.
    pub ex2: u64,
    /// Floating-point operations of matrix products, two for each product.
    pub mma_operations: u64,
    /// Instructions executed by kind, once for each warp; kinds that were not executed are absent.
    pub by_kind: BTreeMap<Kind, u64>,
    /// The same by opcode, with its modifiers.
    pub by_opcode: BTreeMap<String, u64>,
    /// For each instruction of the kernel, in the order of the text: PTX line and how often a warp executed it.
    pub by_line: Vec<(u32, u64)>,
    /// What ran without its effect being modelled, and what to do about it.
    pub notes: Vec<String>,
}

impl Report {
    /// Counts executions of an opcode.
    pub(crate) fn tally(&mut self, opcode: &str, count: u64) {
        *self.by_opcode.entry(opcode.to_owned()).or_default() += count;
        *self.by_kind.entry(Kind::of(opcode)).or_default() += count;
        self.mma_operations += matrix_operations(opcode) * count;
        if opcode.starts_with("ex2.") {
            self.ex2 += count;
        }
    }

    /// Executions by line: the most frequent instruction of each line that has any.
    fn lines(&self) -> BTreeMap<u32, u64> {
        let mut lines = BTreeMap::new();
        for (line, count) in &self.by_line {
            let most: &mut u64 = lines.entry(*line).or_default();
            *most = (*most).max(*count);
        }
        lines
    }

    /// Counts the lines with instructions and those that were executed.
    pub fn coverage(&self) -> Coverage {
        let lines = self.lines();
        let executed = lines.values().filter(|count| **count > 0).count() as u64;
        Coverage { executed, lines: lines.len() as u64 }
    }

    /// Lists the lines with instructions that no warp executed: number and text without the space around it. `module` is
    /// the one that was launched.
    pub fn never_executed<'m>(&self, module: &'m Module) -> Vec<(u32, &'m str)> {
        let lines = self.lines().into_iter().filter(|(_, count)| *count == 0);
        lines.map(|(line, _)| (line, module.source.line(line).trim())).collect()
    }

    /// Lists every number of the report but those by opcode and by line, by name and in a fixed order; kinds that were not
    /// executed have zeros.
    pub fn rows(&self) -> Vec<(String, u64)> {
        let Coverage { executed, lines } = self.coverage();
        let mut rows = vec![("warp_instructions".to_owned(), self.warp_instructions)];
        for kind in Kind::ALL {
            let count = self.by_kind.get(&kind).copied().unwrap_or(0);
            rows.push((format!("kind_{}", kind.name()), count));
        }
        rows.push(("ex2".to_owned(), self.ex2));
        rows.push(("mma_operations".to_owned(), self.mma_operations));
        rows.extend(self.counters.rows().into_iter().map(|(name, count)| (name.to_owned(), count)));
        rows.push(("lines".to_owned(), lines));
        rows.push(("lines_executed".to_owned(), executed));
        rows
    }
}

impl fmt::Display for Report {
    /// Writes [`Report::rows`], one a line, numbers to the right.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rows = self.rows();
        let names = rows.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
        let numbers = rows.iter().map(|(_, count)| count.to_string().len()).max().unwrap_or(0);
        for (name, count) in rows {
            writeln!(f, "{name:<names$}  {count:>numbers$}")?;
        }
        Ok(())
    }
}
