//! From an instance to a function on the device: built or read once, loaded once.

use std::{cell::RefCell, collections::HashMap, path::Path, rc::Rc};

use nabla_kernels_gpu::instances::{Instance, Sizes};

use super::{
    driver::{Context, Function},
    error::{CudaError, Version},
    launch::{Arguments, parameters_of, target_of},
};
use crate::codegen::{BuildError, Built, KernelCacheError, KernelStore, variant_id};

/// Heads of a launch: blocks along y.
const MAX_GRID_Y: u32 = 65_535;

/// The kernels of one device.
#[derive(Debug)]
pub(super) struct Kernels {
    context: Rc<Context>,
    store: KernelStore,
    loaded: RefCell<HashMap<Instance, Rc<LoadedKernel>>>,
}

/// A kernel on the device.
#[derive(Debug)]
pub(super) struct LoadedKernel {
    instance: Instance,
    id: String,
    function: Function,
}

/// Returns the architectures to take a kernel for, best first: PTX of a plain architecture runs on every later one,
/// PTX of `sm_90a` on that alone.
fn architectures(capability: Version) -> &'static [&'static str] {
    match capability {
        Version { major: 9, minor: 0 } => &["sm_90a", "sm_80"],
        _ => &["sm_80"],
    }
}

/// Says whether PTX for a target runs on a device: `sm_80` on that and later, `sm_90a` on that alone, `sm_100f` on
/// that and later ones of its family.
fn runs_on(target: &str, capability: Version) -> bool {
    let Some(name) = target.strip_prefix("sm_") else { return false };
    let digits = name.trim_end_matches(['a', 'f']);
    let Ok(number) = digits.parse::<i32>() else { return false };
    let built_for = Version { major: number / 10, minor: number % 10 };
    match &name[digits.len()..] {
        "" => capability >= built_for,
        "a" => capability == built_for,
        "f" => capability >= built_for && capability.major == built_for.major,
        _ => false,
    }
}

impl Kernels {
    /// Opens a folder of kernels, `None` for the user's.
    pub(super) fn open(context: &Rc<Context>, folder: Option<&Path>) -> Result<Self, CudaError> {
        let store = KernelStore::open(folder).map_err(|error| CudaError::Build(error.to_string()))?;
        Ok(Self { context: Rc::clone(context), store, loaded: RefCell::default() })
    }

    /// Says whether there is anything to get kernels from.
    pub(super) fn ready(&self) -> Result<(), CudaError> {
        self.store.ready().map_err(|error| CudaError::Build(error.to_string()))
    }

    /// Returns a kernel, built and loaded at the first call.
    pub(super) fn get(&self, instance: &Instance) -> Result<Rc<LoadedKernel>, CudaError> {
        if let Some(kernel) = self.loaded.borrow().get(instance) {
            return Ok(Rc::clone(kernel));
        }
        let kernel = Rc::new(self.load(instance)?);
        self.loaded.borrow_mut().insert(*instance, Rc::clone(&kernel));
        Ok(kernel)
    }

    fn load(&self, instance: &Instance) -> Result<LoadedKernel, CudaError> {
        let built = self.built(instance)?;
        let facts = self.context.facts();
        let id = variant_id(instance);
        let target = target_of(&built.ptx).unwrap_or("no architecture");
        if !runs_on(target, facts.capability) {
            return Err(CudaError::WrongArchitecture {
                kernel: id,
                target: target.to_owned(),
                device: facts.name.clone(),
                have: facts.capability,
                expected: architectures(facts.capability)[0],
            });
        }
        let parameters = parameters_of(&built.ptx, instance.entry()).ok_or_else(|| {
            CudaError::Kernel(format!(
                "the PTX of {id} has no entry {} with scalar parameters: build it again",
                instance.entry()
            ))
        })?;
        let function = Function::load(
            &self.context,
            &id,
            &built.ptx,
            instance.entry(),
            parameters,
            [instance.threads(), instance.shared_bytes()],
        )?;
        Ok(LoadedKernel { instance: *instance, id, function })
    }

    /// Builds or reads a kernel for the best architecture there is one for.
    fn built(&self, instance: &Instance) -> Result<Built, CudaError> {
        let mut first = None;
        for arch in architectures(self.context.facts().capability) {
            match self.store.get(instance, arch) {
                Ok(built) => return Ok(built),
                // A folder of prebuilt kernels may hold another that will do.
                Err(error @ BuildError::Prebuilt(KernelCacheError::NoVariant { .. })) => {
                    first.get_or_insert(error.to_string());
                }
                Err(error) => return Err(CudaError::Build(error.to_string())),
            }
        }
        Err(CudaError::Build(first.unwrap_or_default()))
    }
}

impl LoadedKernel {
    /// Returns the stable name.
    pub(super) fn id(&self) -> &str {
        &self.id
    }

    /// Queues the kernel on a problem of some size.
    pub(super) fn launch(&self, sizes: &Sizes, arguments: &Arguments) -> Result<(), CudaError> {
        if sizes.batch_heads > MAX_GRID_Y {
            return Err(CudaError::Kernel(format!(
                "expected at most {MAX_GRID_Y} heads in all batches, got {}: launch fewer at a time",
                sizes.batch_heads
            )));
        }
        let instance = &self.instance;
        self.function.launch(instance.grid(sizes), instance.threads(), instance.shared_bytes(), arguments)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn capability(major: i32, minor: i32) -> Version {
        Version { major, minor }
    }

    #[test]
    fn ptx_runs_where_its_architecture_allows() {
        for (target, device, expected) in [
            ("sm_80", capability(8, 0), true),
            ("sm_80", capability(8, 9), true),
            ("sm_80", capability(12, 0), true),
            ("sm_90", capability(8, 9), false),
            ("sm_90a", capability(9, 0), true),
            ("sm_90a", capability(8, 0), false),
            ("sm_90a", capability(10, 0), false),
            ("sm_100f", capability(10, 3), true),
            ("sm_100f", capability(11, 0), false),
            ("compute_80", capability(8, 0), false),
            ("sm_", capability(8, 0), false),
        ] {
            assert_eq!(runs_on(target, device), expected, "{target} on {device}");
        }
    }

    #[test]
    fn every_architecture_asked_for_runs() {
        for device in
            [capability(8, 0), capability(8, 6), capability(9, 0), capability(10, 0), capability(12, 1)]
        {
            let archs = architectures(device);
            assert!(
                !archs.is_empty() && archs.iter().all(|arch| runs_on(arch, device)),
                "{device}: {archs:?}"
            );
        }
    }
}
