//! One instance at a time, on inputs of the caller: what checks of every kernel need.

use nabla_kernels_gpu::instances::{Instance, Kernel};

use super::{
    super::{
        BackendError, KernelWorkspace, LaunchCounts, Pattern,
        kernel_backend::{Reordered, Selected, SelectionRule},
    },
    Device, DeviceError,
    workspace::DeviceWorkspace,
};
use crate::codegen::variant_id;

impl<D: Device> DeviceWorkspace<'_, D> {
    fn during<T>(instance: &Instance, result: Result<T, DeviceError>) -> Result<T, BackendError> {
        result.map_err(|error| error.during(D::BACKEND, &variant_id(instance)))
    }

    /// Refuses an instance of another kernel: its parameters are not those of the launch.
    fn expect(instance: &Instance, kernels: &[Kernel]) -> Result<(), DeviceError> {
        if kernels.contains(&instance.kernel) {
            return Ok(());
        }
        let names: Vec<&str> = kernels.iter().map(|kernel| kernel.name()).collect();
        Err(DeviceError::Kernel(format!(
            "expected an instance of {}, got one of {}",
            names.join(" or "),
            instance.kernel.name()
        )))
    }
}

impl<D: Device> KernelWorkspace for DeviceWorkspace<'_, D> {
    fn attention_of(&mut self, instance: &Instance, pattern: &Pattern) -> Result<f64, BackendError> {
        let fitting: &[Kernel] = match pattern {
            Pattern::Dense => &[Kernel::AttentionDense, Kernel::HopperDense],
            Pattern::Mask(_) => &[Kernel::AttentionSparse, Kernel::HopperSparse, Kernel::AttentionPlain],
        };
        let launched =
            Self::expect(instance, fitting).and_then(|()| self.launch_attention(instance, pattern));
        Self::during(instance, launched)
    }

    fn reorder_of(&mut self, instance: &Instance) -> Result<Reordered, BackendError> {
        let reordered =
            Self::expect(instance, &[Kernel::ReorderPool]).and_then(|()| self.reordered(instance));
        Self::during(instance, reordered)
    }

    fn select_of(&mut self, instance: &Instance, rule: &SelectionRule<'_>) -> Result<Selected, BackendError> {
        let selected =
            Self::expect(instance, &[Kernel::Select]).and_then(|()| self.select_with(Some(instance), rule));
        Self::during(instance, selected)
    }

    fn take_counts(&mut self) -> Vec<LaunchCounts> {
        self.counts()
    }
}
