//! From options to tensors and a backend.

use std::sync::Arc;

use nabla_host::{
    Problem,
    backend::{
        Backend, BackendError, CpuBackend, CpuOptions, CudaOptions, EmulatorOptions, Isa, KernelBackend,
        cuda_backend, emulator_backend,
    },
    generate::generate_video,
    io::{ReadOptions, read_qkv, read_safetensors_bytes},
    reference::RowSample,
    tensor::Qkv,
    token_order::TokenOrder,
};

use crate::{
    cli::{BackendName, DeviceArgs, InputArgs, IsaName},
    failure::Failure,
};

/// The bundled clip, part of the program: the first run needs no file.
const BUNDLED_CLIP: &[u8] = include_bytes!("../../data/bbb_t4h32w32_n2d64.safetensors");

/// FLOPs of a float64 reference that stay within a second or so on two cores.
const REFERENCE_FLOPS: usize = 10_000_000_000;

/// Reads or makes the input the options name.
pub(crate) fn load(args: &InputArgs) -> Result<Arc<Qkv>, Failure> {
    let options = ReadOptions { grid: args.grid, ..ReadOptions::default() };
    let mut qkv = match (&args.input, &args.generate) {
        (Some(path), _) => read_qkv(path, &options)?,
        (None, Some(spec)) => generate_video(spec, args.seed),
        (None, None) => read_safetensors_bytes(BUNDLED_CLIP, "bundled clip", &options)?,
    };
    if let Some(dtype) = args.dtype {
        qkv = qkv.cast(dtype);
    }
    Ok(Arc::new(qkv))
}

/// Starts the backend the options name.
pub(crate) fn backend(args: &DeviceArgs) -> Result<Box<dyn Backend>, Failure> {
    match args.backend {
        BackendName::Cpu => Ok(Box::new(cpu_backend(args)?)),
        BackendName::Cuda => Ok(cuda(args)?),
        BackendName::Emulator => Ok(emulator(args)?),
        BackendName::Auto => auto_backend(args),
    }
}

/// Takes CUDA if there is a device that will do and something to get kernels from, else the CPU, and says which.
fn auto_backend(args: &DeviceArgs) -> Result<Box<dyn Backend>, Failure> {
    let why_cpu = if args.threads.is_some() || args.isa.is_some() || args.no_pin {
        "--threads, --isa and --no-pin are the CPU's".to_owned()
    } else {
        match cuda(args).and_then(|backend| backend.kernels_ready().map(|()| backend)) {
            Ok(backend) => {
                anstream::eprintln!("backend: cuda, {} (--backend cpu takes the CPU)", backend.device().name);
                return Ok(backend);
            }
            // A GPU without its compiler must not stop whoever named no backend.
            Err(BackendError::Unavailable { reason, .. } | BackendError::Build { reason, .. }) => reason,
            Err(other) => return Err(other.into()),
        }
    };
    anstream::eprintln!("backend: cpu; {why_cpu}");
    Ok(Box::new(cpu_backend(args)?))
}

fn cuda(args: &DeviceArgs) -> Result<Box<dyn KernelBackend>, BackendError> {
    cuda_backend(&CudaOptions { device: args.device, kernel_cache: args.kernel_cache.clone() })
}

fn emulator(args: &DeviceArgs) -> Result<Box<dyn KernelBackend>, BackendError> {
    emulator_backend(&EmulatorOptions {
        arch: args.emulated_arch,
        kernel_cache: args.kernel_cache.clone(),
        ..EmulatorOptions::default()
    })
}

/// Starts the CPU backend.
pub(crate) fn cpu_backend(args: &DeviceArgs) -> Result<CpuBackend, Failure> {
    let isa = args.isa.map(|name| match name {
        IsaName::Portable => Isa::Portable,
        IsaName::Avx2 => Isa::Avx2,
        IsaName::Avx512 => Isa::Avx512,
        IsaName::Avx512bf16 => Isa::Avx512Bf16,
    });
    let options = CpuOptions { threads: args.threads.map(|n| n as usize), isa, pin: !args.no_pin };
    Ok(CpuBackend::new(options)?)
}

/// Chooses the query tokens errors are computed on: whole blocks of the coarsest order, at least as many as asked for.
pub(crate) fn error_sample(
    problem: &Problem,
    rows: Option<usize>,
    seed: u64,
) -> Result<Arc<RowSample>, Failure> {
    let affordable =
        REFERENCE_FLOPS / (4 * problem.batch_heads() * problem.seqlen_k * problem.head_dim).max(1);
    let rows = rows.unwrap_or_else(|| affordable.max(256)).max(1);
    let coarsest = TokenOrder::new(problem.grid, problem.seqlen_q, 128)?;
    Ok(Arc::new(RowSample::blocks(&coarsest, rows, seed)))
}
