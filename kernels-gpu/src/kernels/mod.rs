//! One kernel a file; `walk` is what attention kernels share.

pub(crate) mod attention;
pub(crate) mod plain;
pub(crate) mod reorder_pool;
pub(crate) mod select;
pub(crate) mod walk;
