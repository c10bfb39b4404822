//! One kernel a file; `lanes` and `walk` are what they share.

pub(crate) mod attention;
pub(crate) mod lanes;
pub(crate) mod plain;
pub(crate) mod reorder_pool;
pub(crate) mod select;
pub(crate) mod walk;
