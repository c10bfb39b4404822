#!/usr/bin/env python3
"""Times PyTorch and our CPU kernels on the same inputs, in turns, and prints the ratios."""

import argparse
import csv
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

try:
    import torch
    from torch_side import BLOCK, SETTLE_S, difference, elapsed_us, kept_of, nabla_mask, read_safetensors
except ImportError:
    sys.exit("peers: PyTorch is missing: .venv/bin/pip install -r bench/peers/requirements.txt")

ROOT = Path(__file__).resolve().parents[2]
CLIP = ROOT / "data" / "bbb_t4h32w32_n2d64.safetensors"
# Tiles tried once before timing; the fastest is timed, as a sweep would choose it.
TILES = [(m, n) for m in (64, 128) for n in (64, 128, 256)]
PATCH = 8


@dataclass
class Row:
    """One comparison: every sample of both sides in microseconds."""

    name: str
    peer: str
    ours_us: list = field(default_factory=list)
    theirs_us: list = field(default_factory=list)
    note: str = ""

    @property
    def ratio(self):
        return statistics.median(self.theirs_us) / statistics.median(self.ours_us)


class Ours:
    """The helper program that runs our kernels; it keeps its inputs between requests."""

    def __init__(self, threads, work):
        target = os.environ.get("CARGO_TARGET_DIR", str(ROOT / "target"))
        build = ["cargo", "build", "--release", "--package", "nabla-bench", "--bin", "peer_server"]
        subprocess.run(build, check=True, cwd=ROOT)
        program = Path(target) / "release" / "peer_server"
        self.process = subprocess.Popen(
            [str(program), str(threads)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.work = work

    def ask(self, op, **fields):
        self.process.stdin.write(json.dumps({"op": op, **fields}) + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line:
            sys.exit(f"peers: peer_server ended while it worked on '{op}'")
        answer = json.loads(line)
        if "error" in answer:
            sys.exit(f"peers: peer_server refused '{op}': {answer['error']}")
        return answer

    def load(self, q, k, v):
        """Hands over [1, H, S, D] tensors in block order."""
        path = self.work / "qkv.bin"
        with open(path, "wb") as file:
            for tensor in (q, k, v):
                file.write(tensor.contiguous().view(torch.uint8).numpy().tobytes())
        _, heads, seqlen, head_dim = q.shape
        names = {torch.float32: "f32", torch.bfloat16: "bf16"}
        self.ask(
            "load", path=str(path), dtype=names[q.dtype], batch_heads=heads, seqlen=seqlen, head_dim=head_dim
        )
        self.shape = q.shape
        path.unlink()

    def fastest_tile(self, op):
        times = {}
        for _ in range(2):
            for tile in TILES:
                times.setdefault(tile, []).append(self.attention(op, tile))
        return min(times, key=lambda tile: min(times[tile]))

    def attention(self, op, tile):
        return self.ask(op, block_m=tile[0], block_n=tile[1])["time_us"]

    def output(self):
        path = self.work / "out.bin"
        self.ask("write_output", path=str(path))
        return torch.from_file(str(path), size=self.shape.numel(), dtype=torch.float32).clone().view(self.shape)

    def mask(self, kv_blocks):
        """Returns kv_num_blocks [1, H, Q] and kv_indices [1, H, Q, kv_blocks] of the last mask."""
        path = self.work / "mask.bin"
        width = self.ask("write_mask", path=str(path))["max_blocks"]
        heads = self.shape[1]
        values = torch.frombuffer(bytearray(path.read_bytes()), dtype=torch.int32)
        rows = heads * kv_blocks
        indices = torch.zeros(rows, kv_blocks, dtype=torch.int32)
        indices[:, :width] = values[rows:].view(rows, width)
        return values[:rows].view(1, heads, kv_blocks), indices.view(1, heads, kv_blocks, kv_blocks)


def read_clip():
    """Reads q, k, v of the bundled clip and brings them into block order (8x8 patches of a frame)."""
    stored, metadata = read_safetensors(CLIP)
    t, h, w = (int(x) for x in metadata["grid"].split(","))
    tensors = []
    for name in "qkv":
        x = stored[name]
        batch, heads, seqlen, dim = x.shape
        x = x.view(batch, heads, t, h // PATCH, PATCH, w // PATCH, PATCH, dim)
        tensors.append(x.permute(0, 1, 2, 3, 5, 4, 6, 7).reshape(batch, heads, seqlen, dim).contiguous().float())
    return tensors


def smooth(heads, seqlen, dim, seed):
    """Makes q, k, v whose tokens resemble their neighbours, so that the pooled map has structure."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.randn(3, heads, seqlen // (4 * BLOCK) + 1, dim, generator=generator)
    slow = torch.nn.functional.interpolate(
        coarse.flatten(0, 1).transpose(1, 2), size=seqlen, mode="linear", align_corners=True
    )
    slow = slow.transpose(1, 2).reshape(3, 1, heads, seqlen, dim)
    noise = torch.randn(3, 1, heads, seqlen, dim, generator=generator)
    return [(x + 0.5 * n).contiguous() for x, n in zip(1.5 * slow, noise)]


def alternate(row, rounds, ours, theirs):
    """Times both sides in turns, after one round of each that does not count."""
    for i in range(rounds + 1):
        sample = []
        for side in (ours, theirs):
            time.sleep(SETTLE_S)
            sample.append(side())
        if i > 0:
            row.ours_us.append(sample[0])
            row.theirs_us.append(sample[1])
    return row


def agree(name, ours, theirs, dtype):
    """Stops when both sides do not compute the same thing: their times would mean nothing."""
    error, limit = difference(ours, theirs, dtype)
    if not error <= limit:
        sys.exit(f"peers: {name}: outputs differ by {error:.1e} relative, at most {limit:.0e} expected")
    return f"outputs agree to {error:.0e}"


def dense(ours, rounds, dtype):
    generator = torch.Generator().manual_seed(1)
    q, k, v = (torch.randn(1, 4, 4096, 128, generator=generator).to(dtype) for _ in range(3))
    ours.load(q, k, v)
    tile = ours.fastest_tile("dense")
    sdpa = torch.nn.functional.scaled_dot_product_attention
    name = f"dense {str(dtype).removeprefix('torch.')} B1 H4 S4096 D128"
    note = agree(name, ours.output(), sdpa(q, k, v), dtype)
    row = Row(name, "scaled_dot_product_attention", note=f"tile {tile[0]}x{tile[1]}, {note}")
    return alternate(row, rounds, lambda: ours.attention("dense", tile), lambda: elapsed_us(lambda: sdpa(q, k, v)))


def sparse(ours, rounds, dtype):
    from torch.nn.attention.flex_attention import BlockMask, flex_attention

    q, k, v = (x.to(dtype) for x in read_clip())
    ours.load(q, k, v)
    density = ours.ask("mask", mass=0.5, block=BLOCK)["density"]
    blocks = q.shape[2] // BLOCK
    count, indices = ours.mask(blocks)
    # The lists go in as ordinary blocks with an empty mask_mod, which costs nothing: given as full blocks, the C++
    # that torch 2.11 generates for a CPU does not compile.
    block_mask = BlockMask.from_kv_blocks(count, indices, BLOCK_SIZE=BLOCK, mask_mod=None)
    peer, flex = "flex_attention, compiled", torch.compile(flex_attention)
    with torch.no_grad():
        try:
            theirs = flex(q, k, v, block_mask=block_mask)
        except Exception as error:  # whatever the compiler throws: say it, and label what is timed instead
            lines = str(error).splitlines()
            reason = next((line for line in lines if "error:" in line), lines[0] if lines else repr(error))
            print(f"peers: compiled flex_attention failed: {reason}", file=sys.stderr)
            # Without compilation the lists are ignored and the rule alone counts.
            listed = torch.arange(blocks) < count[0, :, :, None]
            kept = torch.zeros(*listed.shape, dtype=torch.int32).scatter_add(-1, indices[0].long(), listed.int())
            block_mask.mask_mod = lambda b, h, i, j: kept[h, i // BLOCK, j // BLOCK] > 0
            peer, flex = "flex_attention, EAGER (not compiled)", flex_attention
            theirs = flex(q, k, v, block_mask=block_mask)
        tile = ours.fastest_tile("sparse")
        name = f"nabla-0.5 {str(dtype).removeprefix('torch.')} clip, density {density:.2f}"
        note = agree(name, ours.output(), theirs, dtype)
        row = Row(name, peer, note=f"tile {tile[0]}x{tile[1]}, {note}")

        def run():
            with torch.no_grad():
                flex(q, k, v, block_mask=block_mask)

        return alternate(row, rounds, lambda: ours.attention("sparse", tile), lambda: elapsed_us(run))


def masks(ours, rounds, dtype):
    q, k, v = (x.to(dtype) for x in smooth(2, 16_000, 128, 2))
    ours.load(q, k, v)
    answer = ours.ask("mask", mass=0.5, block=BLOCK)
    blocks = q.shape[2] // BLOCK
    theirs = kept_of(*nabla_mask(q.float(), k.float(), 0.5), blocks)
    mine = kept_of(*ours.mask(blocks), blocks)
    differing = (mine != theirs).sum().item()
    # Single precision sums of a few hundred terms leave a block open in a row now and then.
    if differing > 1e-3 * mine.sum():
        sys.exit(f"peers: masks differ in {differing} of {mine.sum()} blocks")
    name = f"mask {str(dtype).removeprefix('torch.')} H2 S16000 D128, density {answer['density']:.2f}"
    row = Row(name, "mean, matmul, softmax, sort, ...", note=f"{differing} of {mine.sum()} blocks differ")
    return alternate(
        row,
        rounds,
        lambda: ours.ask("mask", mass=0.5, block=BLOCK)["time_us"],
        lambda: elapsed_us(lambda: nabla_mask(q, k, 0.5)),
    )


def proportionality(ours, rounds, dtype):
    """Compares our sparse with our dense attention: the "peer" is density times dense."""
    q, k, v = (x.to(dtype) for x in smooth(2, 16_000, 128, 2))
    ours.load(q, k, v)
    # The mass that keeps about a fifth of the blocks, by bisection.
    low, high = 0.0, 1.0
    for _ in range(12):
        mass = (low + high) / 2
        density = ours.ask("mask", mass=mass, block=BLOCK)["density"]
        low, high = (mass, high) if density < 0.2 else (low, mass)
    tile = ours.fastest_tile("sparse")
    row = Row(f"density x dense {str(dtype).removeprefix('torch.')} H2 S16000 D128", "our dense x density")
    alternate(
        row,
        max(2, rounds // 3),
        lambda: ours.attention("sparse", tile),
        lambda: density * ours.attention("dense", tile),
    )
    dense_us = statistics.median(row.theirs_us) / density
    row.note = f"density {density:.3f}, tile {tile[0]}x{tile[1]}, sparse / (density x dense) = {1 / row.ratio:.3f}"
    row.dense_us = dense_us
    return row


def cpu_model():
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


COMPARISONS = {"dense": dense, "sparse": sparse, "mask": masks, "proportion": proportionality}


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=2, help="threads of both sides (default: 2)")
    parser.add_argument("--rounds", type=int, default=9, help="timed rounds of each comparison (default: 9)")
    parser.add_argument("--only", choices=COMPARISONS, action="append", help="run this comparison; may be repeated")
    parser.add_argument("--csv", type=Path, default=Path("peers.csv"), help="file to write (default: peers.csv)")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)

    rows = []
    with tempfile.TemporaryDirectory(prefix="nabla-peers-") as work:
        ours = Ours(args.threads, Path(work))
        for name in args.only or COMPARISONS:
            for dtype in (torch.float32, torch.bfloat16):
                rows.append(COMPARISONS[name](ours, args.rounds, dtype))
                print(f"peers: {rows[-1].name}: {rows[-1].ratio:.2f}x", file=sys.stderr)
        isa = ours.ask("mask", mass=0.5, block=BLOCK)["isa"]

    print(f"{cpu_model()}, {isa}, {args.threads} threads each, torch {torch.__version__}")
    print("median (min..max) in ms; ratio = theirs / ours\n")

    def ms(samples):
        return f"{statistics.median(samples) / 1e3:.3f} ({min(samples) / 1e3:.3f}..{max(samples) / 1e3:.3f})"

    table = [("comparison", "ours", "theirs", "ratio", "peer", "note")]
    table += [(r.name, ms(r.ours_us), ms(r.theirs_us), f"{r.ratio:.2f}x", r.peer, r.note) for r in rows]
    widths = [max(len(line[i]) for line in table) for i in range(len(table[0]))]
    for line in table:
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths)).rstrip())

    columns = "comparison,peer,ours_us_median,ours_us_min,ours_us_max,peer_us_median,peer_us_min,peer_us_max,"
    columns += "ratio,rounds,threads,isa,cpu,torch,note"
    with open(args.csv, "w", newline="") as file:
        out = csv.writer(file)
        out.writerow(columns.split(","))
        for r in rows:
            sides = [f(side) for side in (r.ours_us, r.theirs_us) for f in (statistics.median, min, max)]
            machine = [len(r.ours_us), args.threads, isa, cpu_model(), torch.__version__]
            out.writerow([r.name, r.peer, *(f"{x:.1f}" for x in sides), f"{r.ratio:.3f}", *machine, r.note])
    print(f"\nwrote {args.csv}")


if __name__ == "__main__":
    main()
