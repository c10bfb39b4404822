//! `nabla tune`: the configuration to use for each problem, found and proven.

mod device;

pub(crate) use device::run;
