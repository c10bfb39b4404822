//! Runs a kernel of any PTX file of the subset on buffers and prints what it did.
//!
//! ```text
//! run_ptx FILE KERNEL --grid X,Y,Z --block X,Y,Z [--cluster X,Y,Z] [--shared BYTES] [--seed N] [--eager 1] [PARAM...]
//! ```
//! Each PARAM is one of
//! `u32:7`, `u64:7`, `f32:0.5` (values), `zero:BYTES` (a buffer of zeros), `out:BYTES` (an unwritten buffer),
//! `file:PATH` (a buffer with a file's bytes) and `ramp:COUNT` (the floats 0, 1, 2, ...). After the run every buffer is
//! printed as its first eight floats and words.

use nabla_emulator::{Completion, DevicePtr, LaunchConfig, Memory, Module, Options, Param, launch_with};

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

fn triple(text: &str) -> Result<[u32; 3]> {
    let mut sizes = [1; 3];
    for (size, part) in sizes.iter_mut().zip(text.split(',')) {
        *size = part.parse()?;
    }
    Ok(sizes)
}

fn param(text: &str, memory: &mut Memory, buffers: &mut Vec<(String, DevicePtr, u64)>) -> Result<Param> {
    let (kind, value) =
        text.split_once(':').ok_or_else(|| format!("`{text}` is not of the form kind:value"))?;
    let bytes = match kind {
        "u32" => return Ok(Param::U32(value.parse()?)),
        "u64" => return Ok(Param::U64(value.parse()?)),
        "f32" => return Ok(Param::F32(value.parse()?)),
        "zero" => vec![0; value.parse()?],
        "file" => std::fs::read(value)?,
        "ramp" => (0..value.parse::<u32>()?).flat_map(|i| (i as f32).to_le_bytes()).collect(),
        "out" => {
            let bytes = value.parse()?;
            let ptr = memory.alloc(bytes);
            buffers.push((text.to_owned(), ptr, bytes));
            return Ok(Param::Ptr(ptr));
        }
        _ => return Err(format!("`{kind}` is none of u32, u64, f32, zero, out, file, ramp").into()),
    };
    let ptr = memory.alloc_from(&bytes);
    buffers.push((text.to_owned(), ptr, bytes.len() as u64));
    Ok(Param::Ptr(ptr))
}

fn main() -> Result<()> {
    let mut args = std::env::args().skip(1);
    let (Some(path), Some(entry)) = (args.next(), args.next()) else {
        return Err(
            "usage: run_ptx FILE KERNEL --grid X,Y,Z --block X,Y,Z [--cluster X,Y,Z] [--shared BYTES] [--seed N] [--eager 1] \
             [PARAM...]"
                .into()
        );
    };
    let mut config = LaunchConfig { block: [32, 1, 1], ..LaunchConfig::default() };
    let mut options = Options::default();
    let (mut memory, mut buffers, mut params) = (Memory::new(), Vec::new(), Vec::new());
    while let Some(arg) = args.next() {
        let mut value = || args.next().ok_or_else(|| format!("`{arg}` needs a value"));
        match arg.as_str() {
            "--grid" => config.grid = triple(&value()?)?,
            "--block" => config.block = triple(&value()?)?,
            "--cluster" => config.cluster = triple(&value()?)?,
            "--seed" => options.seed = value()?.parse()?,
            "--eager" => {
                options.completion = if value()? == "0" { Completion::Late } else { Completion::Eager };
            }
            "--shared" => config.dynamic_shared_bytes = value()?.parse()?,
            _ => params.push(param(&arg, &mut memory, &mut buffers)?),
        }
    }
    let module = match Module::parse(&path, &std::fs::read_to_string(&path)?) {
        Ok(module) => module,
        Err(diagnostic) => {
            eprintln!("{diagnostic}");
            std::process::exit(1);
        }
    };
    let start = std::time::Instant::now();
    match launch_with(&module, &entry, config, &params, &mut memory, &options) {
        Ok(report) => {
            println!("{} warp-instructions in {:.1?}", report.warp_instructions, start.elapsed());
            print!("{report}");
            for (opcode, count) in &report.by_opcode {
                println!("{count:>12} {opcode}");
            }
        }
        Err(fault) => {
            eprintln!("{fault}");
            std::process::exit(1);
        }
    }
    for (name, ptr, bytes) in buffers {
        let head = memory.read(ptr, bytes.min(32))?;
        let words: Vec<u32> = head
            .chunks_exact(4)
            .map(|word| u32::from_le_bytes([word[0], word[1], word[2], word[3]]))
            .collect();
        let floats: Vec<f32> = words.iter().map(|word| f32::from_bits(*word)).collect();
        println!("{name}: {words:x?} {floats:?}, {} bytes unwritten", memory.unwritten(ptr, bytes)?);
    }
    Ok(())
}
