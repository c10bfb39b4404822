//! From an instance to a function on the device: built or read once, loaded once.

use std::{cell::RefCell, collections::HashMap, path::Path, rc::Rc};

use nabla_kernels_gpu::instances::{Arch, Instance, Sizes};

use super::{
    Code, Device,
    arguments::{Arguments, parameters_of, target_of},
    error::{DeviceError, Version},
};
use crate::{
    backend::NotBuilt,
    codegen::{BuildError, Built, KernelCacheError, KernelStore, KernelUnit, variant_id},
    variant::Ineligible,
};

/// Heads of a launch: blocks along y.
const MAX_GRID_Y: u32 = 65_535;

/// The kernels of one device.
#[derive(Debug)]
pub(super) struct Kernels<D: Device> {
    device: Rc<D>,
    store: KernelStore,
    loaded: RefCell<HashMap<Instance, Rc<LoadedKernel<D>>>>,
    /// What [`Kernels::has`] found: looking for a compiler takes a while.
    found: RefCell<HashMap<Instance, bool>>,
}

/// A kernel on the device.
#[derive(Debug)]
pub(super) struct LoadedKernel<D: Device> {
    device: Rc<D>,
    instance: Instance,
    id: String,
    function: D::Function,
}

/// Returns the architectures to take a kernel for, best first: PTX of a plain architecture runs on every later one,
/// PTX of `sm_90a` on that alone.
fn architectures(capability: Version) -> &'static [&'static str] {
    match capability {
        Version { major: 9, minor: 0 } => &["sm_90a", "sm_80"],
        _ => &["sm_80"],
    }
}

/// Returns the instruction sets that the architectures of a device have kernels of, best first.
fn instruction_sets(capability: Version) -> &'static [Arch] {
    match capability {
        Version { major: 9, minor: 0 } => &[Arch::Sm90a, Arch::Sm80],
        _ => &[Arch::Sm80],
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

/// Says whether machine code for an architecture is a device's own: `sm_80` of 8.0, `sm_90a` of 9.0, and no other.
fn is_machine_code_of(arch: &str, capability: Version) -> bool {
    let digits = arch.trim_start_matches("sm_").trim_end_matches(['a', 'f']);
    digits == format!("{}{}", capability.major, capability.minor)
}

impl<D: Device> Kernels<D> {
    /// Opens a folder of kernels, `None` for the user's.
    pub(super) fn open(device: &Rc<D>, folder: Option<&Path>) -> Result<Self, DeviceError> {
        let store = KernelStore::open(folder).map_err(|error| DeviceError::Build(error.to_string()))?;
        Ok(Self { device: Rc::clone(device), store, loaded: RefCell::default(), found: RefCell::default() })
    }

    /// Says whether there is anything to get kernels from.
    pub(super) fn ready(&self) -> Result<(), DeviceError> {
        self.store.ready().map_err(|error| DeviceError::Build(error.to_string()))
    }

    /// Says whether a kernel can be built for an architecture that the device runs.
    pub(super) fn runs(&self, instance: &Instance) -> Result<(), Ineligible> {
        let architectures = architectures(self.device.limits().capability);
        if architectures.iter().any(|arch| instance.kernel.arch().builds_for(arch).is_ok()) {
            return Ok(());
        }
        let why = architectures.iter().find_map(|arch| instance.kernel.arch().builds_for(arch).err());
        let name = &self.device.limits().name;
        Err(Ineligible {
            reason: format!("{}; this is {name}", why.unwrap_or("it is for another architecture")),
        })
    }

    /// Returns the instruction sets whose kernels the device runs, its own before the portable one.
    pub(super) fn instruction_sets(&self) -> &'static [Arch] {
        instruction_sets(self.device.limits().capability)
    }

    /// Says whether a kernel is to be had for an architecture that the device runs: prebuilt, or there is a compiler.
    pub(super) fn has(&self, instance: &Instance) -> bool {
        let look =
            || architectures(self.device.limits().capability).iter().any(|a| self.store.has(instance, a));
        *self.found.borrow_mut().entry(*instance).or_insert_with(look)
    }

    /// Says whether a kernel is one to try: who gives a folder of prebuilt kernels wants those.
    ///
    /// # Errors
    /// Why it is not.
    pub(super) fn offers(&self, instance: &Instance) -> Result<(), Ineligible> {
        if architectures(self.device.limits().capability).iter().any(|a| self.store.offers(instance, a)) {
            return Ok(());
        }
        Err(Ineligible { reason: "it is not in the folder of prebuilt kernels".to_owned() })
    }

    /// Returns a kernel, built and loaded at the first call.
    pub(super) fn get(&self, instance: &Instance) -> Result<Rc<LoadedKernel<D>>, DeviceError> {
        if let Some(kernel) = self.loaded.borrow().get(instance) {
            return Ok(Rc::clone(kernel));
        }
        let kernel = Rc::new(self.load(instance)?);
        self.loaded.borrow_mut().insert(*instance, Rc::clone(&kernel));
        Ok(kernel)
    }

    /// Takes other PTX for an instance from now on.
    pub(super) fn substitute(&self, instance: &Instance, ptx: &str) -> Result<(), DeviceError> {
        let kernel = Rc::new(self.load_code(instance, ptx, None)?);
        self.loaded.borrow_mut().insert(*instance, kernel);
        Ok(())
    }

    fn load(&self, instance: &Instance) -> Result<LoadedKernel<D>, DeviceError> {
        let built = self.built(instance)?;
        let mut cubin = None;
        if D::TAKES_MACHINE_CODE && is_machine_code_of(&built.arch, self.device.limits().capability) {
            cubin = self.store.machine_code(&built).map_err(|error| DeviceError::Build(error.to_string()))?;
        }
        self.load_code(instance, &built.ptx, cubin.as_deref())
    }

    fn load_code(
        &self,
        instance: &Instance,
        ptx: &str,
        cubin: Option<&[u8]>,
    ) -> Result<LoadedKernel<D>, DeviceError> {
        let limits = self.device.limits();
        let id = variant_id(instance);
        let target = target_of(ptx).unwrap_or("no architecture");
        if !runs_on(target, limits.capability) {
            return Err(DeviceError::WrongArchitecture {
                kernel: id,
                target: target.to_owned(),
                device: limits.name.clone(),
                have: limits.capability,
                expected: architectures(limits.capability)[0],
            });
        }
        let parameters = parameters_of(ptx, instance.entry()).ok_or_else(|| {
            DeviceError::Kernel(format!(
                "the PTX of {id} has no entry {} with scalar parameters: build it again",
                instance.entry()
            ))
        })?;
        let code = Code {
            id: &id,
            ptx,
            cubin,
            entry: instance.entry(),
            parameters,
            threads: instance.threads(),
            shared_bytes: instance.shared_bytes(),
        };
        let function = D::load(&self.device, code)?;
        Ok(LoadedKernel { device: Rc::clone(&self.device), instance: *instance, id, function })
    }

    /// Builds kernels into the cache, several at once. What a folder of prebuilt kernels has is done already.
    pub(super) fn prebuild(
        &self,
        instances: &[(usize, Instance)],
        jobs: usize,
        on_done: &(dyn Fn(usize, Result<(), NotBuilt>) + Sync),
    ) {
        let not_built = |error: &BuildError| NotBuilt {
            rejected: matches!(error, BuildError::Rejected { .. }),
            reason: error.to_string(),
        };
        let mut indices = Vec::new();
        let mut requests = Vec::new();
        for (index, instance) in instances {
            let arch = architectures(self.device.limits().capability)
                .iter()
                .find(|arch| instance.kernel.arch().builds_for(arch).is_ok());
            match (arch, KernelUnit::of(instance)) {
                (_, Err(error)) => on_done(*index, Err(not_built(&error))),
                (Some(arch), Ok(unit)) if self.store.prebuilt(&unit, arch).is_none() => {
                    indices.push(*index);
                    requests.push((unit, (*arch).to_owned()));
                }
                // Loading says what is missing.
                _ => on_done(*index, Ok(())),
            }
        }
        if requests.is_empty() {
            return;
        }
        match self.store.compiler() {
            Ok(compiler) => {
                compiler.build_many(&requests, jobs, |i, result| {
                    on_done(indices[i], result.as_ref().map(|_| ()).map_err(not_built));
                });
            }
            Err(error) => indices.iter().for_each(|&index| on_done(index, Err(not_built(&error)))),
        }
    }

    /// Builds or reads a kernel for the best architecture there is one for.
    pub(super) fn built(&self, instance: &Instance) -> Result<Built, DeviceError> {
        let mut first = None;
        for arch in architectures(self.device.limits().capability) {
            match self.store.get(instance, arch) {
                Ok(built) => return Ok(built),
                // A folder of prebuilt kernels may hold another that will do.
                Err(error @ BuildError::Prebuilt(KernelCacheError::NoVariant { .. })) => {
                    first.get_or_insert(error.to_string());
                }
                Err(error) => return Err(DeviceError::Build(error.to_string())),
            }
        }
        Err(DeviceError::Build(first.unwrap_or_default()))
    }
}

impl<D: Device> LoadedKernel<D> {
    /// Returns the stable name.
    pub(super) fn id(&self) -> &str {
        &self.id
    }

    /// Queues the kernel on a problem of some size.
    pub(super) fn launch(&self, sizes: &Sizes, arguments: &Arguments) -> Result<(), DeviceError> {
        if sizes.batch_heads > MAX_GRID_Y {
            return Err(DeviceError::Kernel(format!(
                "expected at most {MAX_GRID_Y} heads in all batches, got {}: launch fewer at a time",
                sizes.batch_heads
            )));
        }
        let grid = self.instance.launch_grid(sizes, self.device.limits().multiprocessors);
        self.device.launch(&self.function, grid, arguments)
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
    fn machine_code_is_for_one_architecture_alone() {
        for (arch, device, expected) in [
            ("sm_80", capability(8, 0), true),
            ("sm_80", capability(8, 6), false),
            ("sm_80", capability(9, 0), false),
            ("sm_90a", capability(9, 0), true),
            ("sm_90a", capability(10, 0), false),
            ("sm_100a", capability(10, 0), true),
        ] {
            assert_eq!(is_machine_code_of(arch, device), expected, "{arch} on {device}");
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
            for set in instruction_sets(device) {
                assert!(archs.iter().any(|arch| set.builds_for(arch).is_ok()), "{device}: {set:?}");
            }
        }
    }
}
