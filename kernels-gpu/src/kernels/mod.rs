//! One kernel a file or folder; `lanes`, `rows`, `union` and `walk` are what they share.

pub mod attention;
pub mod hopper;
pub mod lanes;
pub mod plain;
pub mod reorder_pool;
pub mod rows;
pub mod select;
pub mod union;
pub mod walk;
