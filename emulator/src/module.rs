//! A parsed PTX module.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::decode::{Decoding, decode};
use crate::diagnostic::{Diagnostic, Source};
use crate::fault::CodePlace;
use crate::parser::parse;
use crate::program::{Instr, Kernel};

/// Holds the kernels of one PTX text, decoded.
#[derive(Debug)]
pub struct Module {
    pub(crate) source: Source,
    pub(crate) decoding: Decoding,
    /// Tells modules apart whose variables live in the same memory.
    pub(crate) id: u64,
    pub(crate) target: String,
    /// `.file` numbers and paths.
    files: Vec<(u64, String)>,
}

impl Module {
    /// Parses and decodes a PTX text; `name` is what errors and faults call it. Anything outside the subset is an error
    /// that shows line, column and text.
    pub fn parse(name: &str, ptx: &str) -> Result<Self, Diagnostic> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let source = Source::new(name, ptx);
        let ast = parse(ptx).map_err(|error| source.diagnose(&error))?;
        let mut decoding = decode(&ast).map_err(|error| source.diagnose(&error))?;
        for kernel in &mut decoding.kernels {
            kernel.lines = kernel.code.iter().map(|instr| source.line_of(instr.span.start)).collect();
        }
        let target = ast.target.to_owned();
        let files = ast.files.iter().map(|(number, path)| (*number, (*path).to_owned())).collect();
        Ok(Self { source, decoding, id: NEXT.fetch_add(1, Ordering::Relaxed), target, files })
    }

    /// Lists the names of the kernels.
    pub fn entries(&self) -> impl Iterator<Item = &str> {
        self.decoding.kernels.iter().map(|kernel| kernel.name.as_str())
    }

    /// Lists a kernel's parameters in order, each with its size in bytes; `None` if there is no such kernel.
    pub fn params(&self, entry: &str) -> Option<Vec<(String, u32)>> {
        let kernel = self.kernel(entry)?;
        Some(kernel.params.iter().map(|param| (param.name.clone(), param.bytes)).collect())
    }

    pub(crate) fn kernel(&self, entry: &str) -> Option<&Kernel> {
        self.decoding.kernels.iter().find(|kernel| kernel.name == entry)
    }

    pub(crate) fn place(&self, instr: &Instr) -> CodePlace {
        let (line, column) = self.source.position(instr.span.start);
        let (file, source_line) = instr.location;
        let path =
            self.files.iter().find(|(number, _)| *number == u64::from(file)).map(|(_, path)| path.clone());
        CodePlace {
            file: self.source.name.clone(),
            line,
            column,
            text: self.source.line(line).trim().to_owned(),
            source: path.map(|path| (path, source_line)),
        }
    }

    /// The opcode of an instruction with its modifiers.
    pub(crate) fn opcode(&self, instr: &Instr) -> &str {
        let text = &self.source.text[instr.span.start as usize..instr.span.end as usize];
        text.split([' ', '\t', ';', '\n']).next().unwrap_or(text)
    }
}
