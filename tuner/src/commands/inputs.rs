//! `nabla inputs`: an input as a file, for programs that are no part of this one.

use std::{collections::BTreeMap, io::Write as _};

use nabla_host::{
    Dtype,
    io::{Element, NamedTensor, write_safetensors},
};

use crate::{cli::InputsArgs, failure::Failure, input};

/// Writes q, k and v, tokens in raster order, with the token grid where there is one.
pub(crate) fn run(args: &InputsArgs) -> Result<(), Failure> {
    let qkv = input::load(&args.input)?;
    let mut metadata = BTreeMap::from([("source".to_owned(), qkv.source.clone())]);
    metadata.extend(qkv.grid.map(|grid| ("grid".to_owned(), grid.to_string())));
    let tensors = [("q", &qkv.q), ("k", &qkv.k), ("v", &qkv.v)].map(|(name, tensor)| NamedTensor {
        name,
        shape: &tensor.shape,
        element: match tensor.data.dtype() {
            Dtype::F32 => Element::F32,
            Dtype::F16 => Element::F16,
            Dtype::Bf16 => Element::Bf16,
        },
        bytes: tensor.data.bytes(),
    });
    write_safetensors(&args.out, &tensors, &metadata).map_err(|e| Failure::write(&args.out, &e))?;
    let mut out = anstream::stdout().lock();
    writeln!(out, "input    {}", qkv.source)?;
    writeln!(out, "hash     {}", qkv.short_hash())?;
    writeln!(out, "{}", args.out.display())?;
    Ok(())
}
