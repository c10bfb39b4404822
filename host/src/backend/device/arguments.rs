//! Kernel arguments as the driver wants them, and the parameters a kernel's PTX declares.

use std::ffi::c_void;

use super::error::DeviceError;

/// Arguments of a launch, in the order of the kernel's parameters.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(in crate::backend) struct Arguments {
    /// Each argument in the low bytes of a word of its own.
    words: Vec<u64>,
    bytes: Vec<usize>,
}

impl Arguments {
    /// Appends a device address; 0 is a null pointer.
    #[must_use]
    pub(in crate::backend) fn pointer(self, address: u64) -> Self {
        self.with(address, 8)
    }

    /// Appends a size.
    #[must_use]
    pub(in crate::backend) fn u32(self, value: u32) -> Self {
        self.with(low_bytes(value), 4)
    }

    /// Appends a factor.
    #[must_use]
    pub(in crate::backend) fn f32(self, value: f32) -> Self {
        self.with(low_bytes(value.to_bits()), 4)
    }

    fn with(mut self, word: u64, bytes: usize) -> Self {
        self.words.push(word);
        self.bytes.push(bytes);
        self
    }

    /// Checks number and sizes against what the kernel declares: the driver reads as much as that.
    pub(in crate::backend) fn check(&self, kernel: &str, parameters: &[usize]) -> Result<(), DeviceError> {
        if self.bytes == parameters {
            return Ok(());
        }
        Err(DeviceError::Kernel(format!(
            "{kernel} declares parameters of {parameters:?} bytes, it was to be launched with {:?}; its PTX belongs to \
             another version of this program: build it again",
            self.bytes
        )))
    }

    /// Lists each argument's bytes, as many as it has.
    pub(in crate::backend) fn contents(&self) -> impl Iterator<Item = Vec<u8>> {
        self.words.iter().zip(&self.bytes).map(|(word, &bytes)| word.to_ne_bytes()[..bytes].to_vec())
    }

    /// Returns the address of each argument; they hold while `self` is borrowed, and are only read.
    pub(in crate::backend) fn pointers(&self) -> Vec<*mut c_void> {
        self.words.iter().map(ptr_of).collect()
    }
}

fn ptr_of(word: &u64) -> *mut c_void {
    std::ptr::from_ref(word).cast_mut().cast()
}

/// Puts four bytes where a reader of the word's first four bytes finds them.
fn low_bytes(value: u32) -> u64 {
    let mut word = [0; 8];
    word[..4].copy_from_slice(&value.to_ne_bytes());
    u64::from_ne_bytes(word)
}

/// Reads the bytes of each parameter of an entry from its PTX; `None` if there is no such entry or its list holds
/// anything but scalars.
pub(in crate::backend) fn parameters_of(ptx: &str, entry: &str) -> Option<Vec<usize>> {
    let head = ptx.match_indices(".entry").find_map(|(at, word)| {
        let rest = ptx[at + word.len()..].trim_start().strip_prefix(entry)?;
        // A longer name may start with this one.
        (!rest.starts_with(|c: char| c.is_alphanumeric() || "_$".contains(c))).then(|| rest.trim_start())
    })?;
    let Some(list) = head.strip_prefix('(') else { return Some(Vec::new()) };
    let list = &list[..list.find(')')?];
    if list.trim().is_empty() {
        return Some(Vec::new());
    }
    list.split(',').map(bytes_of).collect()
}

/// Reads `.param .u64 .ptr .global .align 16 name` and the like.
fn bytes_of(parameter: &str) -> Option<usize> {
    let mut words = parameter.split_whitespace();
    if words.next() != Some(".param") || parameter.contains('[') {
        return None;
    }
    let bits = words.find_map(|word| {
        let bits = word.strip_prefix('.')?.strip_prefix(['b', 'u', 's', 'f'])?;
        bits.parse::<usize>().ok()
    })?;
    Some(bits / 8)
}

/// Reads the architecture of PTX, such as `sm_90a`.
pub(in crate::backend) fn target_of(ptx: &str) -> Option<&str> {
    let line = ptx.lines().find_map(|line| line.trim_start().strip_prefix(".target"))?;
    line.split([',', ' ', '\t']).find(|word| !word.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    const PTX: &str = "//\n.version 8.0\n.target sm_90a, debug\n.address_size 64\n\
        .visible .entry other_name_2(.param .u64 a){ret;}\n\
        .visible .entry other_name(\n\t.param .u64 .ptr .align 1 other_name_param_0,\n\t.param .u32 b,\n\
        \t.param .f32 c\n)\n.maxntid 128,1,1\n{ret;}\n.visible .entry none() {ret;}\n\
        .entry large(.param .align 8 .b8 x[16]) {ret;}";

    #[test]
    fn parameters_are_read_from_the_entry_of_that_name() {
        assert_eq!(parameters_of(PTX, "other_name"), Some(vec![8, 4, 4]));
        assert_eq!(parameters_of(PTX, "other_name_2"), Some(vec![8]));
        assert_eq!(parameters_of(PTX, "none"), Some(vec![]));
        assert_eq!(parameters_of(PTX, "absent"), None);
        assert_eq!(parameters_of(PTX, "large"), None);
    }

    #[test]
    fn the_target_is_read_without_its_options() {
        assert_eq!(target_of(PTX), Some("sm_90a"));
        assert_eq!(target_of(".target\tsm_80\n"), Some("sm_80"));
        assert_eq!(target_of("no PTX"), None);
    }

    #[test]
    fn each_argument_is_found_where_its_pointer_points() {
        let arguments = Arguments::default().pointer(0x1234_5678_9abc_def0).u32(77).f32(-0.5);
        let pointers = arguments.pointers();
        // SAFETY: each points to a word of `arguments` that holds a value of this type.
        let read = unsafe {
            (
                pointers[0].cast::<u64>().read(),
                pointers[1].cast::<u32>().read(),
                pointers[2].cast::<f32>().read(),
            )
        };
        assert_eq!(read, (0x1234_5678_9abc_def0, 77, -0.5));
    }

    #[test]
    fn arguments_that_are_not_the_kernels_are_refused() {
        let arguments = Arguments::default().pointer(0).u32(1);
        assert_eq!(arguments.check("k", &[8, 4]), Ok(()));
        for declared in [&[8][..], &[8, 8], &[8, 4, 4], &[4, 8]] {
            let message = arguments.check("k", declared).unwrap_err().to_string();
            assert!(message.contains("build it again"), "{message}");
        }
    }
}
