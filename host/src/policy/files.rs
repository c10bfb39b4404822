//! Rules that a file decides.

use std::{fs, path::Path, sync::Arc};

use super::{Bits, Blocks, Misfit, Policy, Rule, Scene};
use crate::{
    ParseError,
    io::{StoredFile, StoredTensor, read_tensors},
    provenance::short_hash,
    token_order::AxisOrder,
};

/// Most bytes of such a file.
const MAX_BYTES: u64 = 4 << 30;

/// Entry of a mask file's metadata: the order of axes that all heads' tokens are sorted by, or one for each head, with commas
/// between them. Without it, blocks are patches of one frame, or tokens as they stand.
pub const SORTED_BY: &str = "sorted_by";
/// Entry of a mask file's metadata that says in words what the blocks are.
pub const ORDER: &str = "order";

/// A map of blocks from a file: for each head which blocks are kept.
#[derive(Debug)]
pub(super) struct Lists {
    file: String,
    kept: Stored,
    /// What tokens are sorted by: an order for all heads, or for each one of the file; empty where blocks are patches.
    sorted_by: Vec<AxisOrder>,
}

/// What a file holds.
#[derive(Debug)]
enum Stored {
    /// `[heads, q_blocks, kv_blocks]`, one number a block and the least of it that is kept.
    Map { shape: [usize; 3], values: Vec<f64>, least: f64 },
    /// `[heads, q_blocks]` counts and `[heads, q_blocks, width]` lists.
    Lists { shape: [usize; 3], counts: Vec<f64>, indices: Vec<f64> },
}

impl Stored {
    /// Hashes shapes, numbers and orders of tokens, not what else the file has.
    fn hash(&self, sorted_by: &[AxisOrder]) -> String {
        let (kind, shape, numbers) = match self {
            Self::Map { shape, values, .. } => (0, shape, [&values[..], &[]]),
            Self::Lists { shape, counts, indices } => (1, shape, [&counts[..], &indices[..]]),
        };
        let mut bytes: Vec<u8> = vec![kind];
        bytes.extend(shape.iter().flat_map(|&extent| (extent as u64).to_le_bytes()));
        bytes.extend(numbers.iter().copied().flatten().flat_map(|number| number.to_le_bytes()));
        bytes.extend(sorted_by.iter().flat_map(|order| order.name().bytes()));
        short_hash(&bytes)
    }

    /// Returns heads, rows, and columns or entries of a list.
    fn shape(&self) -> [usize; 3] {
        match self {
            Self::Map { shape, .. } | Self::Lists { shape, .. } => *shape,
        }
    }
}

impl Lists {
    /// Reads a mask in FlexAttention's format, `kv_num_blocks` with `kv_indices`, or a tensor `mask`.
    pub(super) fn read(file: &str) -> Result<Self, ParseError> {
        let stored = stored(file)?;
        let kept = match (stored.tensor("kv_num_blocks"), stored.tensor("kv_indices"), stored.tensor("mask"))
        {
            (Some(counts), Some(indices), _) => {
                let shape = heads_first(indices, file)?;
                if counts.shape.iter().product::<usize>() != shape[0] * shape[1] {
                    let expected =
                        format!("as many numbers in kv_num_blocks as rows in kv_indices of {file}");
                    return Err(ParseError::new(
                        expected,
                        format!("{:?} and {:?}", counts.shape, indices.shape),
                    ));
                }
                Stored::Lists { shape, counts: counts.numbers.clone(), indices: indices.numbers.clone() }
            }
            (_, _, Some(mask)) => map(mask, 0.5, file)?,
            _ => {
                let expected = format!("kv_num_blocks with kv_indices, or mask, in {file}");
                return Err(ParseError::new(expected, stored.names()));
            }
        };
        let sorted_by = sorted_by(&stored, file)?;
        if !matches!(sorted_by.len(), 0 | 1) && sorted_by.len() != kept.shape()[0] {
            let expected = format!("an order of axes for all heads or for each of {}", kept.shape()[0]);
            let got = format!("{} in the metadata '{SORTED_BY}' of {file}", sorted_by.len());
            return Err(ParseError::new(expected, got));
        }
        Ok(Self { file: file.to_owned(), kept, sorted_by })
    }

    /// Reads a tensor `mask` of blocks of tokens that are sorted by an order of axes.
    pub(super) fn read_sorted(file: &str, order: AxisOrder) -> Result<Self, ParseError> {
        let stored = stored(file)?;
        let Some(mask) = stored.tensor("mask") else {
            return Err(ParseError::new(format!("a tensor mask in {file}"), stored.names()));
        };
        // A file that says nothing is from elsewhere; what nabla mask wrote says what its blocks are.
        let got = match (sorted_by(&stored, file)?.as_slice(), stored.metadata.get(ORDER)) {
            ([], Some(words)) => Some(words.clone()),
            (of_heads, _) if of_heads.iter().any(|of_head| *of_head != order) => {
                stored.metadata.get(SORTED_BY).cloned()
            }
            _ => None,
        };
        if let Some(got) = got {
            return Err(ParseError::new(format!("a mask of tokens sorted by {order} in {file}"), got));
        }
        Ok(Self { file: file.to_owned(), kept: map(mask, 0.5, file)?, sorted_by: vec![order] })
    }

    /// Reads an attention map that was averaged over inputs, `map` of `[B,H,Q,K]` or `[H,Q,K]` for blocks, and keeps what
    /// reaches `least`.
    pub(super) fn read_map(file: &str, least: f64) -> Result<Self, ParseError> {
        let stored = stored(file)?;
        let Some(means) = stored.tensor("map") else {
            return Err(ParseError::new(format!("a tensor map in {file}"), stored.names()));
        };
        Ok(Self { file: file.to_owned(), kept: map(means, least, file)?, sorted_by: Vec::new() })
    }
}

fn map(tensor: &StoredTensor, least: f64, file: &str) -> Result<Stored, ParseError> {
    Ok(Stored::Map { shape: heads_first(tensor, file)?, values: tensor.numbers.clone(), least })
}

/// Returns what a file says its tokens are sorted by; nothing where its blocks are patches.
fn sorted_by(stored: &StoredFile, file: &str) -> Result<Vec<AxisOrder>, ParseError> {
    let Some(names) = stored.metadata.get(SORTED_BY) else { return Ok(Vec::new()) };
    let orders: Result<Vec<AxisOrder>, ParseError> = names.split(',').map(str::parse).collect();
    orders.map_err(|_| {
        let expected = format!("orders of axes, such as hwt,thw, in the metadata '{SORTED_BY}' of {file}");
        ParseError::new(expected, names.as_str())
    })
}

fn stored(file: &str) -> Result<StoredFile, ParseError> {
    read_tensors(Path::new(file), MAX_BYTES)
        .map_err(|error| ParseError::new("a safetensors file of a mask", error.to_string()))
}

/// Returns the shape with batch and heads as one axis.
fn heads_first(tensor: &StoredTensor, file: &str) -> Result<[usize; 3], ParseError> {
    match tensor.shape[..] {
        // Their product is the number of elements, which was checked against the file.
        [batch, heads, q, kv] => Ok([batch * heads, q, kv]),
        [heads, q, kv] => Ok([heads, q, kv]),
        _ => {
            let expected = format!("{} of [B,H,Q,K] or [H,Q,K] in {file}", tensor.name);
            Err(ParseError::new(expected, format!("{:?}", tensor.shape)))
        }
    }
}

impl Rule for Lists {
    fn decide(&self, scene: &Scene<'_>, kept: &mut Bits) -> Result<(), Misfit> {
        let (rows, columns) = (scene.q_blocks(), scene.kv_blocks());
        let shape = self.kept.shape();
        let fits = match &self.kept {
            Stored::Map { .. } => shape[1..] == [rows, columns],
            Stored::Lists { .. } => shape[1] == rows && shape[2] <= columns,
        };
        // One mask may serve every head and batch.
        if !fits || shape[0] == 0 || !scene.heads().is_multiple_of(shape[0]) {
            let needs =
                format!("a mask of {} heads, {rows} x {columns} blocks in {}", scene.heads(), self.file);
            return Err(Misfit::new(needs, format!("{} heads, {} x {}", shape[0], shape[1], shape[2])));
        }
        for head in 0..scene.heads() {
            let of = head % shape[0];
            for i in 0..rows {
                match &self.kept {
                    Stored::Map { values, least, .. } => {
                        let row = &values[(of * rows + i) * columns..][..columns];
                        let reaches = (0..columns).filter(|&j| row[j] >= *least);
                        reaches.for_each(|j| kept.set(head, i, j));
                    }
                    Stored::Lists { counts, indices, .. } => {
                        let row = of * rows + i;
                        let count = counts[row];
                        let list = &indices[row * shape[2]..][..shape[2]];
                        let valid = count >= 0.0 && count <= shape[2] as f64;
                        // Entries past the count mean nothing; their order does not either.
                        let list = if valid { &list[..count as usize] } else { list };
                        if !valid || list.iter().any(|&j| j < 0.0 || j >= columns as f64) {
                            let needs = format!("lists of blocks 0..{columns} in {}", self.file);
                            return Err(Misfit::new(
                                needs,
                                format!("{count} blocks, {list:?}, in row {row}"),
                            ));
                        }
                        list.iter().for_each(|&j| kept.set(head, i, j as usize));
                    }
                }
            }
        }
        Ok(())
    }

    fn needs_numbers(&self) -> bool {
        false
    }

    fn is_alike_for_heads(&self) -> bool {
        false
    }

    fn blocks(&self, head: usize) -> Result<Blocks, Misfit> {
        let sorted_by = &self.sorted_by;
        Ok(sorted_by
            .get(head % sorted_by.len().max(1))
            .map_or(Blocks::Patches, |order| Blocks::Sorted(*order)))
    }

    fn file_hash(&self) -> Option<String> {
        Some(self.kept.hash(&self.sorted_by))
    }
}

/// A policy of its own for each head.
#[derive(Debug)]
pub(super) struct Heads {
    file: String,
    policies: Vec<Arc<Policy>>,
}

impl Heads {
    /// Reads a JSON list of policies, one for each head.
    pub(super) fn read(file: &str) -> Result<Self, ParseError> {
        let expected = || format!("a JSON list of policies, one for each head, in {file}");
        let text =
            fs::read_to_string(file).map_err(|error| ParseError::new(expected(), error.to_string()))?;
        let names: Vec<String> =
            serde_json::from_str(&text).map_err(|error| ParseError::new(expected(), error.to_string()))?;
        if names.is_empty() {
            return Err(ParseError::new(expected(), "an empty list"));
        }
        let policies = names.iter().map(|name| {
            // A list that names itself would never end.
            if name.contains("heads:") {
                return Err(ParseError::new(expected(), format!("{name}, which is a list again")));
            }
            name.parse().map(Arc::new)
        });
        Ok(Self { file: file.to_owned(), policies: policies.collect::<Result<_, _>>()? })
    }
}

impl Rule for Heads {
    fn decide(&self, scene: &Scene<'_>, kept: &mut Bits) -> Result<(), Misfit> {
        if !scene.heads().is_multiple_of(self.policies.len()) {
            let needs = format!("one policy for each of {} heads in {}", scene.heads(), self.file);
            return Err(Misfit::new(needs, self.policies.len().to_string()));
        }
        for (n, policy) in self.policies.iter().enumerate() {
            if self.policies[..n].contains(policy) {
                continue;
            }
            let whole = policy.kept(scene).map_err(|error| Misfit::new(error.needs, error.got))?;
            let wanted = |head: &usize| self.policies[head % self.policies.len()] == *policy;
            (0..scene.heads()).filter(wanted).for_each(|head| kept.copy_head(&whole, head));
        }
        Ok(())
    }

    fn needs_numbers(&self) -> bool {
        self.policies.iter().any(|policy| policy.needs_numbers())
    }

    fn is_alike_for_heads(&self) -> bool {
        false
    }

    fn blocks(&self, head: usize) -> Result<Blocks, Misfit> {
        self.policies[head % self.policies.len()].blocks(head)
    }

    fn file_hash(&self) -> Option<String> {
        // The policies' texts have the hashes of their own files.
        let texts: Vec<String> = self.policies.iter().map(|policy| policy.to_string()).collect();
        Some(short_hash(texts.join("\n").as_bytes()))
    }
}
