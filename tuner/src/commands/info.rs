//! `nabla info`: the machine, its backends, and what the program was built from.

use std::io::Write;

use nabla_host::{
    backend::{Backend, Isa, cuda_status},
    codegen::{CUDA_TOOL_MISSING, CudaTool, Sources, Toolchain, cache::cache_dir},
    provenance,
};

use crate::{cli::DeviceArgs, failure::Failure, input};

/// Prints what a bug report needs.
pub(crate) fn run(args: &DeviceArgs) -> Result<(), Failure> {
    let backend = input::cpu_backend(args)?;
    let device = backend.device();
    let isas: Vec<&str> = Isa::available().into_iter().map(Isa::name).collect();
    let mut out = anstream::stdout().lock();
    writeln!(out, "nabla      {} ({})", env!("CARGO_PKG_VERSION"), env!("NABLA_GIT_COMMIT"))?;
    writeln!(out, "toolchain  {}", provenance::TOOLCHAIN)?;
    writeln!(out, "sources    {}", provenance::SOURCE_HASH)?;
    writeln!(out, "platform   {}-{}", std::env::consts::OS, std::env::consts::ARCH)?;
    writeln!(out)?;
    write_device_tools(&mut out)?;
    writeln!(out)?;
    writeln!(out, "backend    cpu")?;
    writeln!(out, "device     {}", device.name)?;
    writeln!(out, "threads    {}", device.threads.unwrap_or(1))?;
    writeln!(out, "isa        {} (this CPU has: {})", device.isa, isas.join(", "))?;
    let (f32_peak, bf16_peak) = backend.measure_peaks_gflops();
    writeln!(out, "f32 peak   {f32_peak:.0} GFLOP/s measured, all threads")?;
    if let Some(bf16_peak) = bf16_peak {
        writeln!(out, "bf16 peak  {bf16_peak:.0} GFLOP/s measured, all threads")?;
    }
    writeln!(out)?;
    cuda(&mut out)?;
    Ok(())
}

/// Prints the state of the cuda backend.
fn cuda(out: &mut impl Write) -> std::io::Result<()> {
    let status = cuda_status();
    writeln!(out, "backend    cuda")?;
    if let Some(driver) = &status.driver {
        writeln!(out, "driver     for CUDA {driver}")?;
    }
    match &status.devices {
        Ok(devices) => {
            for device in devices {
                writeln!(
                    out,
                    "device {}   {}, {}, {} multiprocessors, {}",
                    device.ordinal, device.name, device.architecture, device.multiprocessors, device.memory
                )?;
                if let Some(reason) = &device.unusable {
                    writeln!(out, "           cannot be used: {reason}")?;
                }
            }
        }
        Err(error) => writeln!(out, "           {error}")?,
    }
    Ok(())
}

/// Prints what compiles kernels for a GPU, or what to do where there is nothing.
fn write_device_tools(out: &mut impl Write) -> std::io::Result<()> {
    match Toolchain::find() {
        Ok(Toolchain { version, rustc, .. }) => writeln!(out, "compiler   {version}, {}", rustc.display())?,
        Err(error) => writeln!(out, "compiler   {error}")?,
    }
    for (name, tool) in [("ptxas", CudaTool::ptxas()), ("nvdisasm", CudaTool::nvdisasm())] {
        match tool {
            Some(CudaTool { program, version }) => {
                writeln!(out, "{name:<10} {version}, {}", program.display())?
            }
            None => writeln!(out, "{name:<10} {CUDA_TOOL_MISSING}")?,
        }
    }
    writeln!(out, "kernels    sources {}, cache {}", Sources::built_in().hash(), cache_dir(None).display())
}
