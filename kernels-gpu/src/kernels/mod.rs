//! One kernel a file; what attention kernels share.

#[cfg(any(nabla_kernel = "attention_sparse", nabla_kernel = "attention_dense"))]
pub(crate) mod attention;
#[cfg(nabla_kernel = "attention_plain")]
pub(crate) mod plain;
#[cfg(nabla_kernel = "reorder_pool")]
pub(crate) mod reorder_pool;
#[cfg(nabla_kernel = "select")]
pub(crate) mod select;
pub(crate) mod walk;
