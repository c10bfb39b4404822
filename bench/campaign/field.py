"""Times our kernels and those of PyTorch on one shape, in turns: a line of JSON a comparison, flushed as it is done.

Runs without torch too: then our own times are taken alone and every peer is listed as not measured.
"""

import argparse
import json
import random
import statistics
import sys
import tempfile
import time
from pathlib import Path

from shapes import CLIP, shapes_for
from units import Pack
from worker import Worker, WorkerError

BLOCK = 64
# Heads whose outputs are compared: they cost the memory of float32.
COMPARED_HEADS = 2
# The policy that keeps everything.
DENSE = "dense"
# What takes so many times the best is not timed again.
FAR_BEHIND = 1.3
# Rounds of a comparison, and the seconds after which no further one starts once the least are there.
ROUNDS, LEAST_ROUNDS, ROW_SECONDS = 11, 6, 12.0


class Log:
    """The lines of one shape. What an earlier, cut attempt has finished is not measured again."""

    def __init__(self, path):
        path.parent.mkdir(parents=True, exist_ok=True)
        self.done = set()
        if path.exists():
            text = path.read_text()
            # A kill may have cut the last line short.
            whole = text[: text.rfind("\n") + 1]
            path.write_text(whole)
            for row in map(json.loads, whole.splitlines()):
                if row["kind"] == "finished":
                    self.done.add(row["policy"])
            kept = [line for line in whole.splitlines() if json.loads(line)["policy"] in self.done]
            path.write_text("".join(line + "\n" for line in kept))
        self._file = open(path, "a")

    def write(self, **row):
        self._file.write(json.dumps(row) + "\n")
        self._file.flush()


class Ours:
    """Our side of one problem: the configuration that is fastest here, verified."""

    def __init__(self, worker, policy, has_times):
        self.worker = worker
        self.opened = worker.open(policy, None if policy == DENSE else BLOCK)
        self.configs = self.opened["space"]["configurations"]
        self.has_times = has_times
        self.number = self._choose() if has_times else self._default()
        worker.verify(self.number, self.configs[self.number])

    def _default(self):
        default = self.opened["default"]
        if default not in self.configs:
            self.configs.append(default)
        return self.configs.index(default)

    def _choose(self):
        """Takes the fastest by the median of three rounds, in an order drawn afresh; what is far behind drops out."""
        for number, config in enumerate(self.configs):
            self.worker.prepare(number, config)
        times = {number: [] for number in range(len(self.configs))}
        for seed in range(3):
            order = random.Random(seed).sample(sorted(times), len(times))
            for number, time_us in zip(order, self.worker.time_us([{"candidate": n} for n in order]), strict=True):
                times[number].append(time_us)
            works = {number: statistics.median(all_us) for number, all_us in times.items() if None not in all_us}
            if not works:
                raise WorkerError("no configuration could be timed")
            best = min(works, key=works.get)
            times = {number: times[number] for number in works if works[number] <= FAR_BEHIND * works[best]}
        return best

    @property
    def config(self):
        return " ".join(f"{name}={value}" for name, value in sorted(self.configs[self.number].items()))

    def time_us(self, part):
        item = {"candidate": self.number} if part == "attention" else part
        return self.worker.time_us([item])[0]


def parts_of(ours, rounds):
    """Takes our own times of all parts, interleaved."""
    parts = {"attention": [], "mask": [], "reorder": [], "dense": []}
    for seed in range(rounds):
        for part in random.Random(seed).sample(list(parts), len(parts)):
            time_us = ours.time_us(part)
            if time_us is not None:
                parts[part].append(time_us)
    return parts


def in_turns(ours, part, run, settle_s, rounds):
    """Times ours and theirs in turns, who is first drawn afresh, after a round that does not count."""
    samples, start = ([], []), time.monotonic()
    for i in range(rounds + 1):
        sample = [0.0, 0.0]
        for side in random.Random(i).sample((0, 1), 2):
            time.sleep(settle_s)
            sample[side] = ours.time_us(part) if side == 0 else run()
        if sample[0] is None:
            raise WorkerError(f"our {part} could not be timed")
        if i > 0:
            samples[0].append(sample[0])
            samples[1].append(sample[1])
        if i >= LEAST_ROUNDS and time.monotonic() - start > ROW_SECONDS:
            break
    return samples


def measure(pack, shape, thresholds, results):
    """Measures a shape at every threshold that is not done yet."""
    log = Log(results / "field" / f"{shape.name}.jsonl")
    policies = {DENSE: None, **{f"nabla-{threshold}": threshold for threshold in thresholds}}
    left = [policy for policy in policies if policy not in log.done]
    if not left:
        return
    has_times = pack.backend != "emulator"
    rounds = 3 if pack.smoke else ROUNDS
    try:
        from torch_peers import Peers
    except ImportError as error:
        Peers, why = None, f"torch cannot be imported: {error}"
    command = pack.nabla("worker", *shape.input_options, *pack.device(), "--error-rows", 64, "--peers", 1)
    worker = Worker(command)
    with tempfile.TemporaryDirectory(prefix="nabla-field-") as scratch:
        try:
            peers = Peers(pack, shape, Path(scratch)) if Peers else None
            for policy in left:
                ours = Ours(worker, policy, has_times)
                opened = ours.opened
                common = {
                    "shape": shape.name, "policy": policy, "density": round(opened["density"], 5), "dtype": shape.dtype,
                }  # fmt: skip
                parts = parts_of(ours, rounds) if has_times else {}
                problem = opened["problem"]
                log.write(
                    kind="split", **common, config=ours.config, parts_us=parts, pairs=opened["pairs"],
                    heads=problem["heads"], head_dim=problem["head_dim"], tokens=problem["seqlen_q"],
                )  # fmt: skip
                if peers is None:
                    for peer in ("FlexAttention", "SDPA", "PyTorch's mask"):
                        log.write(kind="missing", **common, peer=peer, reason=why)
                else:
                    against(peers, ours, policies[policy], shape, common, log, rounds, Path(scratch))
                log.write(kind="finished", **common)
                print(f"{shape.name} {policy}: density {opened['density']:.3f}", flush=True)
        finally:
            worker.close()


def against(peers, ours, threshold, shape, common, log, rounds, scratch):
    """Compares with every peer: results first, then times."""
    path = scratch / "ours.safetensors"
    ours.worker.save(ours.number, path, COMPARED_HEADS)
    peers.take(path, threshold)
    path.unlink()
    for peer in peers.all():
        row = {**common, "peer": peer.name}
        try:
            note = peer.prepare()
        except Exception as error:  # whatever a compiler or driver throws: the peer is missing, the rest goes on
            lines = str(error).strip().splitlines() or [repr(error)]
            log.write(kind="missing", **row, reason=f"{type(error).__name__}: {lines[0][:300]}")
            continue
        padded = peer.is_padded
        if not ours.has_times:
            log.write(kind="missing", **row, reason=f"results compared ({note}), but the emulator has no times")
            continue
        samples = in_turns(ours, peer.part, peer.run, peers.settle_s, rounds)
        log.write(
            kind="peer", **row, comparison=f"{shape.title}, {common['policy']}: {peer.what}", ours_us=samples[0],
            theirs_us=samples[1], padded=padded, convention=peers.convention, note=note, ours=ours.config,
        )  # fmt: skip
        time_us = peers.do_bench(peer)
        if time_us is not None:
            log.write(kind="do_bench", **row, time_us_median=time_us, padded=padded)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pack", type=Path, required=True)
    parser.add_argument("--shape", required=True)
    parser.add_argument("--thresholds", required=True)
    parser.add_argument("--results", type=Path, required=True)
    args = parser.parse_args()
    pack = Pack(args.pack, json.loads((args.pack / "manifest.json").read_text()))
    shape = next(s for s in (CLIP, *shapes_for(pack.backend, pack.smoke)) if s.name == args.shape)
    try:
        measure(pack, shape, [float(t) for t in args.thresholds.split(",")], args.results)
    except WorkerError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
