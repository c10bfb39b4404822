//! Decoded instructions of sm_90: mbarriers, bulk copies, `wgmma`, clusters. What they do is in `exec`.

use crate::program::{Address, AtomOp, Slot};
use crate::scalar::{Scalar, Space};

/// An address of shared memory, of the own CTA or of another one of the cluster.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Site {
    /// `Shared`, `Cluster` or `Generic`.
    pub(crate) space: Space,
    pub(crate) address: Address,
}

/// `mbarrier.arrive` and `mbarrier.arrive_drop`
#[derive(Clone, Copy, Debug)]
pub(crate) struct Arrive {
    pub(crate) at: Site,
    /// The state's destination, or `NONE`.
    pub(crate) state: Slot,
    /// Arrivals, or `NONE` for one.
    pub(crate) count: Slot,
    /// Bytes to expect first, or `NONE`.
    pub(crate) expect: Slot,
    pub(crate) drop: bool,
    pub(crate) no_complete: bool,
    pub(crate) release: bool,
}

/// `mbarrier.test_wait` and `mbarrier.try_wait`
#[derive(Clone, Copy, Debug)]
pub(crate) struct BarrierWait {
    pub(crate) at: Site,
    pub(crate) p: Slot,
    /// A parity in the narrow file or a state in the wide one.
    pub(crate) phase: Slot,
    pub(crate) parity: bool,
    /// `try_wait`
    pub(crate) blocks: bool,
    pub(crate) acquire: bool,
}

/// The tensor map and the coordinates of a tensor copy.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tensor {
    pub(crate) map: Address,
    pub(crate) coordinates: [Slot; 5],
    pub(crate) rank: u8,
}

/// The global side of a bulk copy.
#[derive(Clone, Copy, Debug)]
pub(crate) enum GlobalSide {
    /// Address and size.
    Linear(Address, Slot),
    Tensor(Tensor),
}

/// `cp.async.bulk` and `cp.reduce.async.bulk`
#[derive(Clone, Copy, Debug)]
pub(crate) enum Bulk {
    Load {
        to: Site,
        from: GlobalSide,
        barrier: Site,
        /// CTAs that get the data, or `NONE` for the one `to` lies in.
        mask: Slot,
    },
    Store {
        to: GlobalSide,
        from: Site,
        /// Operation, and its type where a tensor map does not give it.
        reduce: Option<(AtomOp, Option<Scalar>)>,
    },
    /// From the own CTA's shared memory to that of a CTA of the cluster.
    Copy { to: Site, from: Site, bytes: Slot, barrier: Site, reduce: Option<(AtomOp, Scalar)> },
    /// To the L2 cache: checked, moves nothing.
    Prefetch(GlobalSide),
}

/// `st.async` and `red.async`
#[derive(Clone, Copy, Debug)]
pub(crate) struct StoreAsync {
    pub(crate) to: Site,
    pub(crate) barrier: Site,
    pub(crate) scalar: Scalar,
    pub(crate) count: u8,
    pub(crate) values: [Slot; 4],
    pub(crate) reduce: Option<AtomOp>,
}

/// Where `wgmma` finds matrix A.
#[derive(Clone, Copy, Debug)]
pub(crate) enum MatrixA {
    /// Descriptor, and true for M-major.
    Shared(Slot, bool),
    Registers([Slot; 4]),
}

/// `wgmma.mma_async` m64nNk16
#[derive(Clone, Debug)]
pub(crate) struct Wgmma {
    pub(crate) n: u32,
    pub(crate) bf16: bool,
    /// Accumulators are pairs of f16 instead of f32.
    pub(crate) half: bool,
    pub(crate) d: Vec<Slot>,
    pub(crate) a: MatrixA,
    pub(crate) b: Slot,
    /// B is N-major.
    pub(crate) b_transposed: bool,
    /// Predicate slot: accumulate.
    pub(crate) scale_d: Slot,
    pub(crate) scale_d_negated: bool,
    /// The product of the two scales is -1.
    pub(crate) negative: bool,
}

impl Wgmma {
    /// What must agree for accumulators to be passed on without a fence.
    pub(crate) fn shape(&self) -> u16 {
        self.n as u16 | u16::from(self.half) << 12
    }
}

/// Which fence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fence {
    /// `fence.proxy.async`: all of shared and global memory, or one of them.
    ProxyAsync { shared: bool, global: bool },
    /// `fence.proxy.tensormap`
    ProxyTensorMap,
    /// `fence.mbarrier_init.release.cluster`
    BarrierInit,
    /// `fence.acq_rel` and its like
    Memory,
}

/// One instruction of sm_90.
#[derive(Clone, Debug)]
pub(crate) enum Hopper {
    BarrierInit {
        at: Site,
        count: Slot,
    },
    BarrierInvalidate(Site),
    Arrive(Arrive),
    ExpectBytes {
        at: Site,
        bytes: Slot,
    },
    CompleteBytes {
        at: Site,
        bytes: Slot,
    },
    Wait(BarrierWait),
    PendingCount {
        d: Slot,
        state: Slot,
    },
    /// `cp.async.mbarrier.arrive`
    CopyArrive {
        at: Site,
        no_increment: bool,
    },
    Bulk(Bulk),
    BulkCommit,
    BulkWait {
        groups: u32,
        read: bool,
    },
    StoreAsync(StoreAsync),
    Fence(Fence),
    /// `prefetch.tensormap`
    PrefetchMap(Address),
    /// `mapa`: destination, address, rank.
    MapAddress {
        d: Slot,
        a: Slot,
        rank: Slot,
        wide: bool,
        space: Space,
    },
    /// `getctarank`
    CtaRank {
        d: Slot,
        a: Slot,
        wide: bool,
        space: Space,
    },
    Elect {
        d: Slot,
        p: Slot,
    },
    ClusterArrive {
        release: bool,
    },
    ClusterWait {
        acquire: bool,
    },
    StoreMatrix {
        at: Site,
        count: u8,
        transposed: bool,
        slots: [Slot; 4],
    },
    /// `setmaxnreg`
    SetRegisters {
        increase: bool,
        count: u32,
    },
    /// `griddepcontrol`
    GridControl,
    WgmmaFence,
    WgmmaCommit,
    WgmmaWait(u32),
    Wgmma(Box<Wgmma>),
    /// `createpolicy`: an opaque value.
    CreatePolicy(Slot),
}
