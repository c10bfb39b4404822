//! Rules that a file decides.

use std::{fs, path::Path, sync::Arc};

use super::{Bits, Misfit, Policy, Rule, Scene};
use crate::{
    Grid, ParseError,
    io::{StoredTensor, read_tensors},
    provenance::short_hash,
};

/// Most bytes of such a file.
const MAX_BYTES: u64 = 4 << 30;

/// A map of blocks from a file: for each head which blocks are kept.
#[derive(Debug)]
pub(super) struct Lists {
    file: String,
    kept: Stored,
    /// Axes of the grid from the slowest to the fastest in the map's order of blocks; `None` where that is ours.
    axes: Option<[usize; 3]>,
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
    /// Hashes shapes and numbers, not what else the file has.
    fn hash(&self) -> String {
        let (kind, shape, numbers) = match self {
            Self::Map { shape, values, .. } => (0, shape, [&values[..], &[]]),
            Self::Lists { shape, counts, indices } => (1, shape, [&counts[..], &indices[..]]),
        };
        let mut bytes: Vec<u8> = vec![kind];
        bytes.extend(shape.iter().flat_map(|&extent| (extent as u64).to_le_bytes()));
        bytes.extend(numbers.iter().copied().flatten().flat_map(|number| number.to_le_bytes()));
        short_hash(&bytes)
    }
}

impl Lists {
    /// Reads a mask in FlexAttention's format, `kv_num_blocks` with `kv_indices`, or a tensor `mask`.
    pub(super) fn read(file: &str) -> Result<Self, ParseError> {
        let tensors = tensors(file)?;
        let find = |name: &str| tensors.iter().find(|tensor| tensor.name == name);
        let kept = match (find("kv_num_blocks"), find("kv_indices"), find("mask")) {
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
            (_, _, Some(mask)) => {
                Stored::Map { shape: heads_first(mask, file)?, values: mask.numbers.clone(), least: 0.5 }
            }
            _ => {
                let names: Vec<&str> = tensors.iter().map(|tensor| tensor.name.as_str()).collect();
                let expected = format!("kv_num_blocks with kv_indices, or mask, in {file}");
                return Err(ParseError::new(expected, names.join(", ")));
            }
        };
        Ok(Self { file: file.to_owned(), kept, axes: None })
    }

    /// Reads a tensor `mask` of blocks in another order of the grid's axes.
    pub(super) fn read_ordered(file: &str, axes: [usize; 3]) -> Result<Self, ParseError> {
        let lists = Self::read(file)?;
        match lists.kept {
            Stored::Map { .. } => Ok(Self { axes: Some(axes), ..lists }),
            Stored::Lists { .. } => {
                Err(ParseError::new(format!("a tensor mask in {file}"), "lists of blocks".to_owned()))
            }
        }
    }

    /// Reads an attention map that was averaged over inputs, `map` of `[B,H,Q,K]` or `[H,Q,K]` for blocks, and keeps what
    /// reaches `least`.
    pub(super) fn read_map(file: &str, least: f64) -> Result<Self, ParseError> {
        let tensors = tensors(file)?;
        let Some(map) = tensors.iter().find(|tensor| tensor.name == "map") else {
            let names: Vec<&str> = tensors.iter().map(|tensor| tensor.name.as_str()).collect();
            return Err(ParseError::new(format!("a tensor map in {file}"), names.join(", ")));
        };
        let kept = Stored::Map { shape: heads_first(map, file)?, values: map.numbers.clone(), least };
        Ok(Self { file: file.to_owned(), kept, axes: None })
    }
}

fn tensors(file: &str) -> Result<Vec<StoredTensor>, ParseError> {
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
        let shape = match &self.kept {
            Stored::Map { shape, .. } | Stored::Lists { shape, .. } => *shape,
        };
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
        let order = match self.axes {
            Some(axes) => Some(positions(scene.grid()?, axes)),
            None => None,
        };
        let there = |block: usize| order.as_ref().map_or(block, |order| order[block]);
        for head in 0..scene.heads() {
            let of = head % shape[0];
            for i in 0..rows {
                match &self.kept {
                    Stored::Map { values, least, .. } => {
                        let row = &values[(of * rows + there(i)) * columns..][..columns];
                        let reaches = (0..columns).filter(|&j| row[there(j)] >= *least);
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

    fn file_hash(&self) -> Option<String> {
        Some(self.kept.hash())
    }
}

/// Returns for each block of our order, frames slowest, its position in the order of `axes`.
fn positions(grid: Grid, axes: [usize; 3]) -> Vec<usize> {
    let sizes = [grid.t, grid.h, grid.w];
    (0..grid.tokens())
        .map(|block| {
            let place = [block / (grid.h * grid.w), block / grid.w % grid.h, block % grid.w];
            axes.iter().fold(0, |position, &axis| position * sizes[axis] + place[axis])
        })
        .collect()
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

    fn file_hash(&self) -> Option<String> {
        // The policies' texts have the hashes of their own files.
        let texts: Vec<String> = self.policies.iter().map(|policy| policy.to_string()).collect();
        Some(short_hash(texts.join("\n").as_bytes()))
    }
}
