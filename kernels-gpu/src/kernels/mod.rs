//! One kernel a file or folder; `lanes`, `rows`, `union` and `walk` are what they share.

pub(crate) mod attention;
// Other kernels do without: parsing its instructions takes as long as a whole kernel.
#[cfg(any(nabla_kernel = "hopper_sparse", nabla_kernel = "hopper_dense"))]
pub(crate) mod hopper;
pub(crate) mod lanes;
pub(crate) mod plain;
pub(crate) mod reorder_pool;
pub(crate) mod rows;
pub(crate) mod select;
pub(crate) mod union;
pub(crate) mod walk;
