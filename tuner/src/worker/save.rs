//! Results of a worker as a file, for whoever compares with other programs: mask, order of the tokens, output and lse.

use std::{collections::BTreeMap, io, path::Path};

use nabla_host::{
    BlockMask, Problem,
    backend::{AttentionOutput, Orders},
    io::{Element, NamedTensor, write_safetensors},
    token_order::TokenOrder,
};

/// Writes a safetensors file; everything is in the order of the mask blocks.
///
/// * `q_order`, `kv_order` i32 `[S]`, or `[B,H,S]` where heads differ in it: the raster position of each token; `q_starts`,
///   `kv_starts` i32 `[blocks+1]`: where blocks begin.
/// * `kv_num_blocks` i32 `[B,H,Q]`, `kv_indices` i32 `[B,H,Q,max]` in FlexAttention's format, unless dense.
/// * `out` f32 `[heads,S,D]`, `lse` f32 `[heads,S]` of the first `heads` heads of the first batch.
pub(super) fn save(
    path: &Path,
    problem: &Problem,
    orders: &Orders,
    mask: Option<&BlockMask>,
    result: &AttentionOutput,
    heads: usize,
) -> io::Result<()> {
    let Problem { batch, heads: all, seqlen_q, head_dim, .. } = *problem;
    let heads = heads.min(all);
    let (out, lse) = (&result.out[..heads * seqlen_q * head_dim], &result.lse[..heads * seqlen_q]);
    let [q_order, kv_order] = [&orders.q, &orders.kv].map(TokenOrder::tables);
    let [q_starts, kv_starts] = [&orders.q, &orders.kv].map(|order| order.layout().starts());
    let order_shapes = [q_order, kv_order].map(|tables| match tables.count() {
        1 => vec![tables.tokens()],
        _ => vec![batch, all, tables.tokens()],
    });
    let start_shapes = [[q_starts.len()], [kv_starts.len()]];
    let (out_shape, lse_shape) = ([heads, seqlen_q, head_dim], [heads, seqlen_q]);
    let rows = mask.map(|mask| {
        let blocks = mask.q_layout().blocks();
        ([batch, all, blocks], [batch, all, blocks, mask.max_blocks()])
    });
    let mut tensors = vec![
        integers("q_order", &order_shapes[0], bytemuck::cast_slice(q_order.all())),
        integers("kv_order", &order_shapes[1], bytemuck::cast_slice(kv_order.all())),
        integers("q_starts", &start_shapes[0], bytemuck::cast_slice(q_starts)),
        integers("kv_starts", &start_shapes[1], bytemuck::cast_slice(kv_starts)),
        NamedTensor {
            name: "out",
            shape: &out_shape,
            element: Element::F32,
            bytes: bytemuck::cast_slice(out),
        },
        NamedTensor {
            name: "lse",
            shape: &lse_shape,
            element: Element::F32,
            bytes: bytemuck::cast_slice(lse),
        },
    ];
    if let (Some(mask), Some((counts, indices))) = (mask, &rows) {
        tensors.push(integers("kv_num_blocks", counts, bytemuck::cast_slice(mask.kv_num_blocks())));
        tensors.push(integers("kv_indices", indices, bytemuck::cast_slice(mask.kv_indices())));
    }
    write_safetensors(path, &tensors, &BTreeMap::new())
}

fn integers<'a>(name: &'a str, shape: &'a [usize], bytes: &'a [u8]) -> NamedTensor<'a> {
    NamedTensor { name, shape, element: Element::I32, bytes }
}
