//! Reorder and pooling on one case: every token in its place bit by bit, every mean within its roundings.

use super::{Verdict, catalogue::Case};
use crate::{
    Dtype, ParseError,
    backend::{Orders, Reordered},
    tensor::{Qkv, Tensor},
    token_order::TokenOrder,
    variant::MaskBlock,
};

/// Makes the tensors of a case and their block order.
pub(super) fn inputs(case: &Case, head_dim: usize, dtype: Dtype) -> Result<(Qkv, Orders), ParseError> {
    let qkv = case.qkv(head_dim, dtype);
    let arrangement = case.arrangement();
    let orders = Orders::arranged(&qkv.problem(), MaskBlock::square(case.block), &arrangement)?;
    Ok((qkv, orders))
}

/// Judges what a reorder wrote.
pub(super) fn judge(qkv: &Qkv, orders: &Orders, got: &Reordered) -> Verdict {
    tensor("queries", &qkv.q, &orders.q, &got.q, &got.pooled_q)
        .and_then(|()| tensor("keys", &qkv.k, &orders.kv, &got.k, &got.pooled_k))
        .into()
}

fn tensor(
    what: &str,
    tensor: &Tensor,
    order: &TokenOrder,
    ordered: &[u8],
    pooled: &[f32],
) -> Result<(), String> {
    let [batch, heads, tokens, d] = tensor.shape;
    let row = d * tensor.data.dtype().size_bytes();
    for head in 0..batch * heads {
        for (position, &token) in order.source(head).iter().enumerate() {
            let (got, want) = (head * tokens + position, head * tokens + token as usize);
            if ordered[got * row..][..row] != tensor.data.bytes()[want * row..][..row] {
                return Err(format!(
                    "{what}: expected token {token} of head {head} at place {position}, got other bytes"
                ));
            }
        }
    }
    let values = tensor.data.to_f32();
    let layout = order.layout();
    for (i, &mean) in pooled.iter().enumerate() {
        let (head, block, c) = (i / d / layout.blocks(), i / d % layout.blocks(), i % d);
        let block_tokens = &order.source(head)[layout.range(block)];
        let column = block_tokens.iter().map(|&t| f64::from(values[(head * tokens + t as usize) * d + c]));
        let (sum, size) = column.fold((0.0, 0.0), |(sum, size), x| (sum + x, size + x.abs()));
        // A rounding of float32 for each token added.
        let bound = size * Dtype::F32.unit_roundoff() + f64::MIN_POSITIVE;
        let exact = sum / block_tokens.len() as f64;
        let error = (f64::from(mean) - exact).abs();
        // NaN, the poison, is within no bound.
        if error.is_nan() || error > bound {
            return Err(format!(
                "{what}: mean of block {block}, head {head}, element {c} is {mean}, expected {exact} within {bound:.1e}"
            ));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{check::catalogue::REORDER, token_order::Arrangement};

    fn right(case: &str) -> (Qkv, Orders, Reordered) {
        let case = REORDER.iter().find(|known| known.name == case).unwrap();
        let (qkv, orders) = inputs(case, 32, Dtype::Bf16).unwrap();
        let of = |tensor: &Tensor, order: &TokenOrder| {
            let (values, layout) = (tensor.data.to_f32(), order.layout());
            let (mut bytes, mut means) = (Vec::new(), Vec::new());
            for head in 0..case.batch * case.heads {
                let at = |t: u32| (head * tensor.shape[2] + t as usize) * 32;
                for &t in order.source(head) {
                    bytes.extend_from_slice(&tensor.data.bytes()[at(t) * 2..][..64]);
                }
                for block in 0..layout.blocks() {
                    let tokens = &order.source(head)[layout.range(block)];
                    means.extend((0..32).map(|c| {
                        let sum: f64 = tokens.iter().map(|&t| f64::from(values[at(t) + c])).sum();
                        (sum / tokens.len() as f64) as f32
                    }));
                }
            }
            (bytes, means)
        };
        let ((q, pooled_q), (k, pooled_k)) = (of(&qkv.q, &orders.q), of(&qkv.k, &orders.kv));
        (qkv, orders, Reordered { q, pooled_q, k, pooled_k })
    }

    #[test]
    fn what_is_right_passes_and_each_planted_fault_is_found() {
        let (qkv, orders, good) = right("ragged-grid");
        assert_eq!(judge(&qkv, &orders, &good), Verdict::Passed);
        type Spoil = fn(&mut Reordered);
        let faults: [(&str, Spoil); 4] = [
            ("other bytes", |r| r.k.swap(0, 64)),
            ("mean of block 0", |r| r.pooled_q[3] *= 1.0001),
            ("is NaN", |r| r.pooled_k[40] = f32::NAN),
            ("keys: expected token", |r| {
                let last = r.k.len() - 1;
                r.k[last] ^= 1;
            }),
        ];
        for (words, spoil) in faults {
            let mut bad = good.clone();
            spoil(&mut bad);
            let Verdict::Failed(reason) = judge(&qkv, &orders, &bad) else { panic!("{words} passed") };
            assert!(reason.contains(words), "{reason}");
        }
    }
    #[test]
    fn a_head_in_the_order_of_another_is_found() {
        let (qkv, orders, good) = right("sorted-heads");
        assert_eq!(judge(&qkv, &orders, &good), Verdict::Passed);
        assert_eq!(orders.q.tables().count(), 4);
        let first = orders.q.arrangement().clone();
        let Arrangement::Sorted(mut of_heads) = first else { panic!("{first:?}") };
        of_heads.swap(0, 1);
        let swapped = Arrangement::Sorted(of_heads);
        let problem = qkv.problem();
        let swapped = Orders::arranged(&problem, orders.mask_block(), &swapped).unwrap();
        let Verdict::Failed(reason) = judge(&qkv, &swapped, &good) else { panic!("it passed") };
        assert!(reason.contains("of head 0 at place"), "{reason}");
    }
}
