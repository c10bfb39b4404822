//! `nabla mask`: the block mask of an input, in FlexAttention's format.

use std::{collections::BTreeMap, io::Write, path::Path, sync::Arc};

use nabla_host::{
    BlockMask, Problem,
    backend::Orders,
    io::{Element, NamedTensor, write_safetensors},
    policy::{ORDER, SORTED_BY},
    token_order::Arrangement,
    variant::MaskBlock,
};
use nabla_reports::{MaskPicture, write_block_masks};

use crate::{cli::MaskArgs, failure::Failure, input, output};

type Metadata = BTreeMap<String, String>;

/// Builds the mask, writes it, and prints the density of every head.
pub(crate) fn run(args: &MaskArgs) -> Result<(), Failure> {
    let qkv = input::load(&args.input)?;
    let backend = input::backend(&args.device)?;
    let problem = qkv.problem();
    let arrangement = args.mask.policy.arrangement(&problem)?;
    let orders = Arc::new(Orders::arranged(&problem, MaskBlock::square(args.mask.block), &arrangement)?);
    let mut workspace = backend.load(Arc::clone(&qkv), orders)?;
    let (mask, time_us) = workspace.build_mask(&args.mask.policy)?;

    let order = match (&arrangement, problem.grid) {
        (Arrangement::Sorted(_), _) => arrangement.to_string(),
        (Arrangement::Patches, Some(_)) => "blocks by frame, patch row, patch column".to_owned(),
        (Arrangement::Patches, None) => "blocks as the tokens stand".to_owned(),
    };
    let mut metadata = Metadata::from([
        ("policy".to_owned(), args.mask.policy.to_string()),
        ("block".to_owned(), args.mask.block.to_string()),
        ("density".to_owned(), mask.density().to_string()),
        ("grid".to_owned(), problem.grid.map(|g| g.to_string()).unwrap_or_default()),
        (ORDER.to_owned(), order),
    ]);
    metadata.extend(arrangement.sorted_by().map(|orders| (SORTED_BY.to_owned(), orders)));
    write_mask(&args.out, &problem, &mask, &metadata)?;
    if let Some(path) = &args.png {
        write_block_masks(path, &pictures(&problem, &mask))?;
    }

    let mut out = anstream::stdout().lock();
    writeln!(out, "input    {}", qkv.source)?;
    writeln!(out, "policy   {}, blocks of {} tokens", args.mask.policy, args.mask.block)?;
    writeln!(out, "blocks   {} x {} per head", mask.q_layout().blocks(), mask.kv_layout().blocks())?;
    writeln!(
        out,
        "density  {} ({} sparse)",
        output::percent(mask.density()),
        output::percent(1.0 - mask.density())
    )?;
    for head in 0..mask.batch_heads() {
        writeln!(
            out,
            "  batch {} head {}: {} kept of {}, density {}",
            head / problem.heads,
            head % problem.heads,
            mask.kept_blocks(head),
            mask.q_layout().blocks() * mask.kv_layout().blocks(),
            output::percent(mask.head_density(head))
        )?;
    }
    writeln!(out, "time     {}", output::time(time_us))?;
    writeln!(out, "{}", args.out.display())?;
    if let Some(path) = &args.png {
        writeln!(out, "{}", path.display())?;
    }
    Ok(())
}

/// Writes the mask in FlexAttention's format.
fn write_mask(path: &Path, problem: &Problem, mask: &BlockMask, metadata: &Metadata) -> Result<(), Failure> {
    let (b, h) = (problem.batch, problem.heads);
    let (q, k) = (mask.q_layout().blocks(), mask.kv_layout().blocks());
    let densities: Vec<f32> = (0..mask.batch_heads()).map(|head| mask.head_density(head) as f32).collect();
    let cells = mask.to_bytes();
    let counts = bytemuck::cast_slice(mask.kv_num_blocks());
    let indices = bytemuck::cast_slice(mask.kv_indices());
    let tensors = [
        NamedTensor { name: "kv_num_blocks", shape: &[b, h, q], element: Element::I32, bytes: counts },
        NamedTensor {
            name: "kv_indices",
            shape: &[b, h, q, mask.max_blocks()],
            element: Element::I32,
            bytes: indices,
        },
        NamedTensor { name: "mask", shape: &[b, h, q, k], element: Element::U8, bytes: &cells },
        NamedTensor {
            name: "density",
            shape: &[b, h],
            element: Element::F32,
            bytes: bytemuck::cast_slice(&densities),
        },
    ];
    write_safetensors(path, &tensors, metadata).map_err(|e| Failure::write(path, &e))
}

fn pictures(problem: &Problem, mask: &BlockMask) -> Vec<MaskPicture> {
    let (q_blocks, kv_blocks) = (mask.q_layout().blocks(), mask.kv_layout().blocks());
    let cells = mask.to_bytes();
    cells
        .chunks_exact(q_blocks * kv_blocks)
        .enumerate()
        .map(|(head, cells)| MaskPicture {
            title: if problem.batch > 1 {
                format!("batch {} head {}", head / problem.heads, head % problem.heads)
            } else {
                format!("head {head}")
            },
            q_blocks,
            kv_blocks,
            density: mask.head_density(head),
            kept: cells.iter().map(|&cell| cell != 0).collect(),
        })
        .collect()
}
