"""The PyTorch side of a comparison, for any device: inputs from files, NABLA's mask as PyTorch ports build it, and
whether two results agree."""

import json
import math
import mmap
import struct
import time

import torch

BLOCK = 64
# PyTorch threads spin for a while after their work; neither side may be timed against that.
SETTLE_S = 0.02

DTYPES = {
    "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16, "I32": torch.int32, "I64": torch.int64,
    "U8": torch.uint8,
}  # fmt: skip


def read_safetensors(path):
    """Reads a safetensors file into tensors by name, and its metadata. The tensors are views of the file."""
    with open(path, "rb") as file:
        data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
    (length,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + length])
    metadata = header.pop("__metadata__", {})
    tensors = {}
    for name, entry in header.items():
        start, end = entry["data_offsets"]
        dtype = DTYPES[entry["dtype"]]
        count = (end - start) // dtype.itemsize
        flat = torch.frombuffer(data, dtype=dtype, count=count, offset=8 + length + start)
        tensors[name] = flat.view(entry["shape"])
    return tensors, metadata


def nabla_mask(q, k, mass, sizes=None):
    """Builds the block lists the way PyTorch ports do: mean, matmul, softmax, sort, cumsum, gather back, argsort.

    `q`, `k` are [B, H, S, D] in block order, S a multiple of the block. Where edge blocks are padded with zeros, `sizes`
    [blocks] counts the tokens of each.
    """
    batch, heads, seqlen, dim = q.shape
    pooled_q = q.view(batch, heads, seqlen // BLOCK, BLOCK, dim).mean(-2)
    pooled_k = k.view(batch, heads, seqlen // BLOCK, BLOCK, dim).mean(-2)
    if sizes is not None:
        share = (BLOCK / sizes)[:, None].to(q.dtype)
        pooled_q, pooled_k = pooled_q * share, pooled_k * share
    scores = torch.softmax(pooled_q @ pooled_k.transpose(-2, -1) / math.sqrt(dim), dim=-1)
    values, order = scores.sort(-1)
    kept = (values.cumsum(-1) >= 1 - mass).int()
    mask = kept.gather(-1, order.argsort(-1))
    return mask.sum(-1).int(), mask.argsort(dim=-1, descending=True).int()


def kept_of(count, indices, blocks):
    """Turns counts [B, H, Q] and lists into booleans [B, H, Q, K] of so many key blocks."""
    columns = torch.arange(indices.shape[-1], device=indices.device)
    listed = (columns < count[..., None]).int()
    # Entries past a row's count may name any block: they must not unlist it, so they add nothing.
    kept = torch.zeros(*count.shape, blocks, dtype=torch.int32, device=indices.device)
    return kept.scatter_add(-1, indices.long().clamp(min=0), listed) > 0


def elapsed_us(work):
    """Times work of the CPU."""
    start = time.perf_counter()
    work()
    return (time.perf_counter() - start) * 1e6


def difference(ours, theirs, dtype):
    """Returns the relative difference of two results and the most that both doing the same may differ by."""
    error = (ours.float() - theirs.float()).norm() / theirs.float().norm()
    return error.item(), 1e-5 if dtype == torch.float32 else 2e-2
