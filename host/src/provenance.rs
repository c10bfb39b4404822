//! What the kernels of this build were made from.

/// Hash of the kernel sources.
pub const SOURCE_HASH: &str = env!("NABLA_SOURCE_HASH");

/// Version line of the compiler that built the kernels.
pub const TOOLCHAIN: &str = env!("NABLA_TOOLCHAIN");

/// Returns a short content hash: 16 hexadecimal digits.
pub fn short_hash(bytes: &[u8]) -> String {
    blake3::hash(bytes).to_hex()[..16].to_owned()
}
