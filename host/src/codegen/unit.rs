//! One compilation: which kernel of the device crate, with which constants.

use nabla_kernels_gpu::instances::{Arch, Instance};

use super::{BuildError, LaunchBounds};

/// One kernel with all its constants, as the compiler is asked for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KernelUnit {
    /// Stable name of the variant; names its file, so it consists of letters, digits, `_` and `-`.
    pub id: String,
    /// Value of `cfg(nabla_kernel)`: which source of the crate.
    pub kernel: String,
    /// Symbol the source exports.
    pub entry: String,
    /// Instruction set that the source needs.
    pub instructions: Arch,
    /// Variables that the source reads at compile time.
    pub constants: Vec<(String, u32)>,
    /// Bounds of its launches.
    pub bounds: LaunchBounds,
    /// Dynamic shared memory of a launch in bytes.
    pub shared_bytes: u32,
    /// Whether it may spill, use local memory, or lose speed in other ways that the assembler reports.
    pub slow_allowed: bool,
}

impl KernelUnit {
    /// Describes an instance of this project's kernels.
    ///
    /// # Errors
    /// When its constants contradict each other or a limit.
    pub fn of(instance: &Instance) -> Result<Self, BuildError> {
        let id = variant_id(instance);
        if let Err(reason) = instance.check() {
            return Err(BuildError::Ineligible { id, reason: reason.to_owned() });
        }
        Ok(Self {
            id,
            kernel: instance.kernel.name().to_owned(),
            entry: instance.entry().to_owned(),
            instructions: instance.kernel.arch(),
            constants: instance.env().map(|(name, value)| (name.to_owned(), value)).to_vec(),
            bounds: LaunchBounds {
                threads: instance.threads(),
                min_blocks_per_sm: instance.min_blocks_per_sm(),
                cluster: instance.constants.cluster,
            },
            shared_bytes: instance.shared_bytes(),
            slow_allowed: false,
        })
    }

    /// Says whether it can be built for an architecture such as `sm_80`.
    ///
    /// # Errors
    /// When the architecture lacks instructions that the source needs.
    pub fn builds_for(&self, arch: &str) -> Result<(), BuildError> {
        self.instructions.builds_for(arch).map_err(|reason| BuildError::Ineligible {
            id: self.id.clone(),
            reason: format!("{reason}, not {arch}"),
        })
    }

    /// Checks what file names and compiler options are made of.
    ///
    /// # Errors
    /// When a name has other characters than letters, digits, `_` and `-`.
    pub(super) fn check(&self) -> Result<(), BuildError> {
        let is_name = |text: &str| {
            !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-')
        };
        let names = [&self.id, &self.kernel, &self.entry];
        match names.into_iter().chain(self.constants.iter().map(|(name, _)| name)).find(|name| !is_name(name))
        {
            Some(name) => Err(BuildError::Ineligible {
                id: self.id.clone(),
                reason: format!("expected a name of letters, digits, `_` and `-`, got `{name}`"),
            }),
            None => Ok(()),
        }
    }
}

/// Returns the stable name of an instance.
pub fn variant_id(instance: &Instance) -> String {
    let mut id = String::new();
    // A string takes all that is written to it.
    let _ = instance.id(&mut id);
    id
}

/// Checks an architecture: `sm_` and a number, with an `a` or `f` for features that no later one has.
pub(super) fn check_arch(arch: &str) -> Result<(), BuildError> {
    let number = arch.strip_prefix("sm_").map(|rest| rest.trim_end_matches(['a', 'f']));
    match number {
        Some(digits) if matches!(digits.len(), 2..=3) && digits.bytes().all(|b| b.is_ascii_digit()) => Ok(()),
        _ => Err(BuildError::UnknownArch { arch: arch.to_owned() }),
    }
}

#[cfg(test)]
mod tests {
    use nabla_kernels_gpu::instances::INSTANCES;

    use super::*;

    #[test]
    fn architectures_are_sm_and_a_number() {
        for arch in ["sm_80", "sm_90a", "sm_100a", "sm_120f"] {
            assert!(check_arch(arch).is_ok(), "{arch}");
        }
        for arch in ["", "sm_", "80", "sm_8", "sm_90b", "sm_80 -O0", "../sm_80", "compute_80"] {
            assert!(check_arch(arch).unwrap_err().to_string().contains("sm_80"), "{arch}");
        }
    }

    #[test]
    fn an_instruction_set_of_one_architecture_is_built_for_no_other() {
        let hopper = INSTANCES.iter().find(|instance| instance.kernel.arch() == Arch::Sm90a).unwrap();
        let unit = KernelUnit::of(hopper).unwrap();
        assert!(unit.builds_for("sm_90a").is_ok());
        for arch in ["sm_80", "sm_90", "sm_100a"] {
            let message = unit.builds_for(arch).unwrap_err().to_string();
            assert!(message.contains(&unit.id) && message.contains("only sm_90a has, not sm_"), "{message}");
        }
        assert!(KernelUnit::of(&INSTANCES[0]).unwrap().builds_for("sm_100a").is_ok());
    }

    #[test]
    fn names_that_could_leave_the_cache_are_refused() {
        let bounds = LaunchBounds { threads: 32, min_blocks_per_sm: 1, cluster: 1 };
        let unit = |id: &str| KernelUnit {
            id: id.to_owned(),
            kernel: "copy".into(),
            entry: "copy".into(),
            instructions: Arch::Sm80,
            constants: vec![("NABLA_N".into(), 1)],
            bounds,
            shared_bytes: 0,
            slow_allowed: false,
        };
        assert!(unit("copy_m64-x").check().is_ok());
        for id in ["", "../copy", "a b", "a\"b"] {
            assert!(unit(id).check().is_err(), "{id}");
        }
    }
}
