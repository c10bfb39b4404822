//! Runs NVIDIA's assembler on PTX and reads what it says of registers, memory and lost performance.

use std::{fs, io, process::Command};

use serde::{Deserialize, Serialize};

use super::cuda_tools::CudaTool;

/// What one compiled kernel takes of a multiprocessor, as the assembler reports it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resources {
    /// Registers of a thread.
    pub registers: u32,
    /// Static shared memory of a block in bytes; dynamic shared memory is the launch's to say.
    pub shared_bytes: u32,
    /// Bytes a thread writes to local memory because registers ran out.
    pub spill_stores: u32,
    /// Bytes it reads back.
    pub spill_loads: u32,
    /// Local memory of a thread in bytes: spills and arrays that could not be kept in registers.
    pub stack_bytes: u32,
    /// Constant memory in bytes, parameters included.
    pub constant_bytes: u32,
    /// Warnings and notes about lost performance, one line each.
    pub messages: Vec<String>,
}

impl Resources {
    /// Lists what makes a kernel slower than its source says: spills, local memory, ignored or serialised
    /// instructions (messages C75xx).
    pub fn faults(&self) -> Vec<String> {
        let mut faults = Vec::new();
        if self.spill_stores + self.spill_loads > 0 {
            let Self { spill_stores, spill_loads, .. } = self;
            faults.push(format!("{spill_stores} bytes spill stores, {spill_loads} bytes spill loads"));
        } else if self.stack_bytes > 0 {
            faults.push(format!("{} bytes of local memory", self.stack_bytes));
        }
        faults.extend(self.messages.iter().filter(|message| message.contains("(C75")).cloned());
        faults
    }

    /// Reads the report of `ptxas -v` on a module of one entry; functions it calls count with it.
    pub fn parse(report: &str) -> Self {
        let mut resources = Self::default();
        for line in report.lines() {
            let message = line.split_once(" : ").map_or(line, |(_, message)| message).trim();
            if line.starts_with("ptxas warning") || message.starts_with("(C") {
                resources.messages.push(message.to_owned());
                continue;
            }
            for part in message.trim_start_matches("Used ").split(", ") {
                let Some((number, what)) = part.trim().split_once(' ') else { continue };
                let Ok(number) = number.parse::<u32>() else { continue };
                match what {
                    "registers" => resources.registers = resources.registers.max(number),
                    "bytes smem" => resources.shared_bytes += number,
                    "bytes spill stores" => resources.spill_stores += number,
                    "bytes spill loads" => resources.spill_loads += number,
                    "bytes stack frame" => resources.stack_bytes += number,
                    what if what.starts_with("bytes cmem[") => resources.constant_bytes += number,
                    _ => {}
                }
            }
        }
        resources
    }
}

/// PTX the assembler did not take, or an assembler that did not run.
#[derive(Debug, thiserror::Error)]
pub enum PtxasError {
    /// It refused the PTX.
    #[error("ptxas refused the PTX for {arch}:\n{message}")]
    Refused {
        /// The architecture assembled for.
        arch: String,
        /// Its own words.
        message: String,
    },
    /// It did not start, or its output could not be read.
    #[error("cannot run {program}: {error}")]
    NotRun {
        /// The program.
        program: String,
        /// Why.
        error: io::Error,
    },
}

/// Assembles PTX for an architecture; returns the resources and the machine code (an ELF image).
///
/// # Errors
/// When the assembler refuses the PTX or does not run.
pub fn assemble(ptxas: &CudaTool, ptx: &str, arch: &str) -> Result<(Resources, Vec<u8>), PtxasError> {
    let not_run = |error| PtxasError::NotRun { program: ptxas.program.display().to_string(), error };
    let scratch = tempfile::tempdir().map_err(not_run)?;
    let scratch = scratch.path();
    let (input, output) = (scratch.join("kernel.ptx"), scratch.join("kernel.cubin"));
    fs::write(&input, ptx).map_err(not_run)?;
    let mut command = Command::new(&ptxas.program);
    // In its folder, so that its messages name the file alone.
    command.current_dir(scratch).args(["-v", &format!("-arch={arch}"), "kernel.ptx", "-o", "kernel.cubin"]);
    let run = command.output().map_err(not_run)?;
    let report = [run.stdout, run.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
    if !run.status.success() {
        let errors: Vec<&str> = report.lines().filter(|line| !line.contains("info    :")).collect();
        return Err(PtxasError::Refused { arch: arch.to_owned(), message: errors.join("\n") });
    }
    Ok((Resources::parse(&report), fs::read(&output).map_err(not_run)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLEAN: &str = include_str!("testdata/ptxas_clean.txt");
    const SPILLS: &str = include_str!("testdata/ptxas_spills.txt");
    const SHARED_AND_STACK: &str = include_str!("testdata/ptxas_shared_and_stack.txt");
    const SETMAXNREG_IGNORED: &str = include_str!("testdata/ptxas_c7508.txt");

    #[test]
    fn a_clean_report_has_no_faults() {
        let resources = Resources::parse(CLEAN);
        let expected = Resources { registers: 170, constant_bytes: 404, ..Resources::default() };
        assert_eq!(resources, expected);
        assert!(resources.faults().is_empty());
    }

    #[test]
    fn spills_are_a_fault() {
        let resources = Resources::parse(SPILLS);
        assert_eq!((resources.registers, resources.stack_bytes), (64, 352));
        assert_eq!((resources.spill_stores, resources.spill_loads), (672, 520));
        assert_eq!(resources.faults(), ["672 bytes spill stores, 520 bytes spill loads"]);
    }

    #[test]
    fn shared_memory_and_an_array_in_local_memory_are_read() {
        let resources = Resources::parse(SHARED_AND_STACK);
        assert_eq!((resources.shared_bytes, resources.stack_bytes), (1024, 64));
        assert_eq!((resources.spill_stores, resources.spill_loads), (0, 0));
        assert_eq!(resources.faults(), ["64 bytes of local memory"]);
    }

    #[test]
    fn an_ignored_instruction_is_a_fault() {
        let resources = Resources::parse(SETMAXNREG_IGNORED);
        assert_eq!(resources.registers, 96);
        let faults = resources.faults();
        assert!(faults.len() == 1 && faults[0].contains("(C7508) Potential Performance Loss"), "{faults:?}");
    }

    #[test]
    fn warnings_are_kept_and_are_no_faults() {
        let resources = Resources::parse("ptxas warning : Value of threads exceeds the limit\n");
        assert_eq!(resources.messages, ["Value of threads exceeds the limit"]);
        assert!(resources.faults().is_empty());
    }
}
