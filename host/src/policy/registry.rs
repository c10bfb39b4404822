//! Every rule by name.

use std::sync::Arc;

use super::{
    Rule,
    files::{Heads, Lists},
    pooled::{Nabla, Sparge, Stripe, TopShare, Vmoba},
    tokens::Antidiagonal,
    windows::{Iwin, Radial, Svg, Vdit, Window},
};
use crate::ParseError;

/// A rule: how it is written, what it keeps, who published it.
#[derive(Debug, Clone, Copy)]
pub struct Entry {
    /// Its name.
    pub name: &'static str,
    /// How it is written: the name with its arguments.
    pub usage: &'static str,
    /// What the arguments are.
    pub arguments: &'static str,
    /// What it keeps.
    pub keeps: &'static str,
    /// Where it comes from.
    pub source: &'static str,
    /// An example.
    pub example: &'static str,
    make: fn(&Arguments<'_>) -> Result<Arc<dyn Rule>, ParseError>,
}

/// Arguments of a term.
struct Arguments<'a> {
    entry: &'static Entry,
    term: &'a str,
    list: Vec<&'a str>,
    file: Option<&'a str>,
}

impl Arguments<'_> {
    fn error(&self) -> ParseError {
        let Entry { usage, arguments, example, .. } = self.entry;
        ParseError::new(format!("{usage} ({arguments}), for example {example}"), self.written())
    }

    fn written(&self) -> String {
        self.file.map_or_else(|| self.term.to_owned(), |file| format!("{}:{file}", self.term))
    }

    /// Checks that there are so many, and no file.
    fn none_but(&self, count: usize) -> Result<(), ParseError> {
        if self.list.len() == count && self.file.is_none() { Ok(()) } else { Err(self.error()) }
    }

    fn share(&self, at: usize) -> Result<f64, ParseError> {
        let value: f64 = self.text(at)?.parse().map_err(|_| self.error())?;
        if (0.0..=1.0).contains(&value) { Ok(value) } else { Err(self.error()) }
    }

    fn positive(&self, at: usize) -> Result<f64, ParseError> {
        let value: f64 = self.text(at)?.parse().map_err(|_| self.error())?;
        if value > 0.0 && value.is_finite() { Ok(value) } else { Err(self.error()) }
    }

    fn count(&self, at: usize) -> Result<usize, ParseError> {
        match self.text(at)?.parse::<u32>() {
            Ok(value) if value > 0 => Ok(value as usize),
            _ => Err(self.error()),
        }
    }

    fn text(&self, at: usize) -> Result<&str, ParseError> {
        self.list.get(at).copied().ok_or_else(|| self.error())
    }

    fn file(&self) -> Result<&str, ParseError> {
        self.file.filter(|file| !file.is_empty()).ok_or_else(|| self.error())
    }
}

fn window(of: &Arguments<'_>, clamped: bool) -> Result<Arc<dyn Rule>, ParseError> {
    of.none_but(3)?;
    Ok(Arc::new(Window { extents: [of.count(0)?, of.count(1)?, of.count(2)?], clamped }))
}

/// Every rule, in the order of their publication where they have one.
pub fn registry() -> &'static [Entry] {
    REGISTRY
}

const REGISTRY: &[Entry] = &[
    Entry {
        name: "nabla",
        usage: "nabla-MASS",
        arguments: "MASS: share of each row's pooled attention to keep, 0 to 1",
        keeps: "the key blocks that carry the share MASS of softmax(mean(Q) mean(K)^T scale)",
        source: "NABLA, arXiv 2507.13546",
        example: "nabla-0.7",
        make: |of| {
            of.none_but(1)?;
            Ok(Arc::new(Nabla { mass: of.share(0)? }))
        },
    },
    Entry {
        name: "sta",
        usage: "sta-T-H-W",
        arguments: "T, H, W: extents of the window over frames, block rows, block columns",
        keeps: "blocks at most T/2 frames, H/2 rows and W/2 columns away; a window at an edge is cut off",
        source: "Sliding Tile Attention, arXiv 2502.04507, as NABLA's released code has it",
        example: "sta-11-3-3",
        make: |of| window(of, false),
    },
    Entry {
        name: "stac",
        usage: "stac-T-H-W",
        arguments: "T, H, W: extents of the window over frames, block rows, block columns",
        keeps: "the same, but a window at an edge is moved inwards, so that every block has as many neighbours",
        source: "Sliding Tile Attention, arXiv 2502.04507, its reference implementation",
        example: "stac-3-3-3",
        make: |of| window(of, true),
    },
    Entry {
        name: "svg",
        usage: "svg-spatial-W or svg-temporal-W",
        arguments: "W: width of the band in frames",
        keeps: "spatial: blocks fewer than W frames away; temporal: those in a band as wide where frames run fastest; \
                either with the first frame",
        source: "Sparse VideoGen, arXiv 2502.01776; by blocks, the choice for each head is heads:FILE's",
        example: "svg-spatial-2",
        make: |of| {
            of.none_but(2)?;
            match of.text(0)? {
                "spatial" => Ok(Arc::new(Svg::Spatial(of.count(1)?))),
                "temporal" => Ok(Arc::new(Svg::Temporal(of.count(1)?))),
                _ => Err(of.error()),
            }
        },
    },
    Entry {
        name: "sparge",
        usage: "sparge-MASS-SIMILARITY",
        arguments: "MASS: share of pooled attention, 0 to 1; SIMILARITY: least mean cosine within a block, 0 to 1",
        keeps: "the best blocks that together stay within the share MASS, at least one; blocks whose tokens are less alike than \
                SIMILARITY are kept whole, as rows and as columns",
        source: "SpargeAttn, arXiv 2502.18137",
        example: "sparge-0.9-0.6",
        make: |of| {
            of.none_but(2)?;
            Ok(Arc::new(Sparge { mass: of.share(0)?, similarity: of.share(1)? }))
        },
    },
    Entry {
        name: "xattn",
        usage: "xattn-STRIDE-MASS",
        arguments: "STRIDE: tokens between antidiagonals, a divisor of the mask block; MASS: share to keep, 0 to 1",
        keeps: "the best blocks of each row by sums over antidiagonals, until they have the share MASS of the estimate",
        source: "XAttention, arXiv 2503.16428, without causality",
        example: "xattn-8-0.9",
        make: |of| {
            of.none_but(2)?;
            Ok(Arc::new(Antidiagonal { stride: of.count(0)?, mass: of.share(1)? }))
        },
    },
    Entry {
        name: "vsa",
        usage: "vsa-SHARE",
        arguments: "SHARE: share of the key blocks to keep, 0 to 1",
        keeps: "the ceil(SHARE x blocks) best key blocks of each row by products of means",
        source: "Video Sparse Attention, arXiv 2505.13389, its coarse stage",
        example: "vsa-0.1",
        make: |of| {
            of.none_but(1)?;
            Ok(Arc::new(TopShare { share: of.share(0)?, up: true }))
        },
    },
    Entry {
        name: "sla",
        usage: "sla-SHARE",
        arguments: "SHARE: share of the key blocks to keep, 0 to 1",
        keeps: "the floor(SHARE x blocks) best, at least one; that the mean of K is subtracted first adds the same to every \
                score of a row and so changes no order",
        source: "SLA, arXiv 2509.24006, its critical blocks",
        example: "sla-0.1",
        make: |of| {
            of.none_but(1)?;
            Ok(Arc::new(TopShare { share: of.share(0)?, up: false }))
        },
    },
    Entry {
        name: "chipmunk",
        usage: "chipmunk",
        arguments: "none",
        keeps: "columns of single keys for 192 queries: not a block mask, so it is refused",
        source: "Chipmunk, arXiv 2506.03275",
        example: "chipmunk",
        make: |of| {
            Err(ParseError::new(
                "a block mask; chipmunk keeps single keys for each 192 queries, which no list of blocks can say: use vsa or \
                 nabla",
                of.written(),
            ))
        },
    },
    Entry {
        name: "vdit",
        usage: "vdit-full, vdit-skip, vdit-diagonal-W, vdit-diagonals-W or vdit-stripe-N",
        arguments: "W: blocks to either side of a diagonal, at least 1; N: key blocks that all queries attend to",
        keeps: "everything; nothing (the head's output is 0); a band; a band for each pair of frames; the N key blocks with the \
                most pooled attention of the head",
        source: "Sparse-vDiT, arXiv 2506.03065; the choice for each head is heads:FILE's",
        example: "vdit-diagonals-2",
        make: |of| match (of.text(0)?, of.list.len()) {
            ("full", 1) => of.none_but(1).map(|()| Arc::new(Vdit::Full) as Arc<dyn Rule>),
            ("skip", 1) => of.none_but(1).map(|()| Arc::new(Vdit::Skip) as Arc<dyn Rule>),
            (pattern, 2) => {
                of.none_but(2)?;
                Ok(match pattern {
                    "diagonal" => Arc::new(Vdit::Diagonal(of.count(1)?)),
                    "diagonals" => Arc::new(Vdit::Diagonals(of.count(1)?)),
                    "stripe" => Arc::new(Stripe { blocks: of.count(1)? }),
                    _ => return Err(of.error()),
                })
            }
            _ => Err(of.error()),
        },
    },
    Entry {
        name: "fps",
        usage: "fps-T-H-W",
        arguments: "T, H, W: extents of the window over frames, block rows, block columns",
        keeps: "the windows of stac; FPSAttention also computes in FP8, which no kernel here does yet",
        source: "FPSAttention, arXiv 2506.04648",
        example: "fps-3-3-3",
        make: |of| window(of, true),
    },
    Entry {
        name: "dam",
        usage: "dam-LEAST:FILE",
        arguments: "LEAST: least mean attention of a block that is kept; FILE: safetensors with map [B,H,Q,K] or [H,Q,K]",
        keeps: "blocks whose attention, averaged over inputs beforehand, reaches LEAST",
        source: "DAM, arXiv 2506.11104, coarsened to blocks",
        example: "dam-0.001:map.safetensors",
        make: |of| {
            if of.list.len() != 1 {
                return Err(of.error());
            }
            Ok(Arc::new(Lists::read_map(of.file()?, of.positive(0)?)?))
        },
    },
    Entry {
        name: "paro",
        usage: "paro-AXES:FILE",
        arguments: "AXES: the grid's axes from slowest to fastest, one of thw, twh, htw, hwt, wth, wht; FILE: safetensors with \
                    mask [B,H,Q,K] or [H,Q,K] of blocks of that order, Q = K = ceil(tokens / block)",
        keeps: "a static map of blocks that are runs of tokens, sorted by an order of the axes; it joins only rules of the same \
                blocks, not those of patches",
        source: "PAROAttention, arXiv 2506.16054; an order for each head is heads:FILE's",
        example: "paro-hwt:maps.safetensors",
        make: |of| {
            let order = of.text(0)?.parse().map_err(|_| of.error())?;
            if of.list.len() != 1 {
                return Err(of.error());
            }
            Ok(Arc::new(Lists::read_sorted(of.file()?, order)?))
        },
    },
    Entry {
        name: "radial",
        usage: "radial or radial-FACTOR",
        arguments: "FACTOR: factor on the width of every band, 1 unless said otherwise",
        keeps: "between frames d apart a band around the same place, half as wide whenever d doubles; where that is less than a \
                block, only every so many frames; all of the first frame",
        source: "Radial Attention, arXiv 2506.19852, by blocks",
        example: "radial-1",
        make: |of| {
            if of.list.is_empty() {
                of.none_but(0)?;
                return Ok(Arc::new(Radial { decay: 1.0 }));
            }
            of.none_but(1)?;
            Ok(Arc::new(Radial { decay: of.positive(0)? }))
        },
    },
    Entry {
        name: "vmoba",
        usage: "vmoba-MASS",
        arguments: "MASS: share of a head's pooled attention to keep, 0 to 1",
        keeps: "the best pairs of a head, all rows together, until they have the share MASS; of each row at least the best",
        source: "VMoBA, arXiv 2506.23858, by blocks: means stand for queries, too",
        example: "vmoba-0.5",
        make: |of| {
            of.none_but(1)?;
            Ok(Arc::new(Vmoba { mass: of.share(0)? }))
        },
    },
    Entry {
        name: "iwin",
        usage: "iwin-STRIDE",
        arguments: "STRIDE: every so many block rows and columns make a window",
        keeps: "blocks of the same frame whose row and column leave the same rest by STRIDE",
        source: "Iwin, arXiv 2507.18405, by blocks",
        example: "iwin-2",
        make: |of| {
            of.none_but(1)?;
            Ok(Arc::new(Iwin { stride: of.count(0)? }))
        },
    },
    Entry {
        name: "lists",
        usage: "lists:FILE",
        arguments: "FILE: safetensors with kv_num_blocks and kv_indices as nabla mask and FlexAttention's BlockMask have them, \
                    or mask [B,H,Q,K] or [H,Q,K] of booleans or bytes",
        keeps: "what the file lists; of nabla mask, in the order of tokens that it was made for",
        source: "a file of nabla mask, or exported from PyTorch",
        example: "lists:mask.safetensors",
        make: |of| {
            if !of.list.is_empty() {
                return Err(of.error());
            }
            Ok(Arc::new(Lists::read(of.file()?)?))
        },
    },
    Entry {
        name: "heads",
        usage: "heads:FILE",
        arguments: "FILE: a JSON list of policies, one for each head",
        keeps: "for each head what its own policy keeps; those of paro sort each head's tokens by its own order",
        source: "here",
        example: "heads:policies.json",
        make: |of| {
            if !of.list.is_empty() {
                return Err(of.error());
            }
            Ok(Arc::new(Heads::read(of.file()?)?))
        },
    },
];

/// Makes the rule of a term and writes the term as it is always written.
pub(super) fn parse(term: &str, file: Option<&str>) -> Result<(String, Arc<dyn Rule>), ParseError> {
    let mut parts = term.split('-');
    let name = parts.next().unwrap_or_default();
    let Some(entry) = REGISTRY.iter().find(|entry| entry.name == name) else {
        return Err(unknown(name, term));
    };
    let (file, expected) = file.map(split_hash).unzip();
    let arguments = Arguments { entry, term, list: parts.collect(), file };
    let rule = (entry.make)(&arguments)?;
    let hash = rule.file_hash();
    if let (Some(Some(expected)), Some(hash)) = (expected, &hash)
        && expected != hash
    {
        let expected = format!("a file with the hash {expected} in {}", arguments.written());
        return Err(ParseError::new(expected, format!("{hash}: what it says has changed since")));
    }
    // Numbers in their shortest form: `nabla-0.70` is `nabla-0.7`.
    let short = |argument: &&str| match (argument.parse::<u64>(), argument.parse::<f64>()) {
        (Ok(count), _) => count.to_string(),
        (_, Ok(number)) => number.to_string(),
        _ => (*argument).to_owned(),
    };
    let list = arguments.list.iter().map(short);
    let mut text = [name.to_owned()].into_iter().chain(list).collect::<Vec<_>>().join("-");
    if let Some(file) = file {
        text += &format!(":{file}");
    }
    if let Some(hash) = hash {
        text += &format!("#{hash}");
    }
    Ok((text, rule))
}

/// Parts the name of a file from the hash that a policy is written with.
fn split_hash(file: &str) -> (&str, Option<&str>) {
    let is_hash =
        |text: &str| text.len() == 16 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    match file.rsplit_once('#') {
        Some((name, hash)) if is_hash(hash) => (name, Some(hash)),
        _ => (file, None),
    }
}

/// Says that there is no such rule, and which ones there are, those that look alike first.
fn unknown(name: &str, term: &str) -> ParseError {
    let shared = |other: &str| name.chars().zip(other.chars()).take_while(|(a, b)| a == b).count();
    let mut known: Vec<&Entry> = REGISTRY.iter().collect();
    known.sort_by_key(|entry| std::cmp::Reverse(shared(entry.name)));
    let usages: Vec<&str> = known.iter().map(|entry| entry.usage).collect();
    ParseError::new(
        format!("dense, or rules joined by '_' (either) and '@' (both): {}", usages.join(", ")),
        term,
    )
}
