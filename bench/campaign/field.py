"""Times our kernels and those of PyTorch on one shape, in turns: a line of JSON a comparison, flushed as it is done.

Policies come in the order of what they tell. What there is no time for is listed as not measured; with less time, fewer
configurations are tried, rounds are fewer, and FlexAttention is not tuned.

Runs without torch too: then our own times are taken alone and every peer is listed as not measured.
"""

import argparse
import json
import random
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from fieldlog import UNREACHED, Log
from shapes import CLIP, DENSE, policies_of, shapes_for
from units import BOUNDED, Pack
from worker import Worker, WorkerError

BLOCK = 64
# Heads whose outputs are compared: they cost the memory of float32.
COMPARED_HEADS = 2
# What takes so many times the best is not timed again.
FAR_BEHIND = 1.3
# Rounds of a comparison, and the seconds after which no further one starts once those of an interval are there.
ROUNDS, INTERVAL_ROUNDS, ROW_SECONDS = 11, 6, 12.0
# Rounds however late it is: a median of fewer says nothing, and has no interval.
LEAST_ROUNDS = 3
# Seconds of a policy that have to be left for the options of FlexAttention to be tried: each is compiled.
TUNING_S = 20.0
# Part of a policy's time in which the configuration of ours is chosen.
CHOOSING = 0.3


class Clock:
    """The seconds that this process has, divided among the policies that are left."""

    # At least so many policies share what is left: the first ones tell most.
    AT_ONCE = 3

    def __init__(self, seconds, clock=time.monotonic):
        self._now = clock
        self._end = clock() + seconds
        self._longest = 0.0
        self._begun = clock()
        self._once = 0.0
        self._policy_end = self._end

    def begin(self, left):
        """Begins a policy, so many with it being left to measure; tells whether there is time for it.

        The first is begun however late it is, the others if they may end as the longest before them did.
        """
        now = self._now()
        if self._longest and now + self._longest > self._end:
            return False
        self._begun, self._once = now, 0.0
        self._policy_end = now + (self._end - now) / min(left, self.AT_ONCE)
        return True

    def compiled(self, seconds):
        """Takes note of seconds that no policy after the first one takes again."""
        if not self._longest:
            self._once += seconds

    def finish(self):
        self._longest = max(self._longest, self._now() - self._begun - self._once)

    def left(self):
        """Returns the seconds of the policy that are left."""
        return max(0.0, self._policy_end - self._now())

    def spare(self):
        """Returns the seconds in which a further peer may begin: of the first policy, which compiles, all that is left."""
        return self.left() if self._longest else max(0.0, self._end - self._now())


class Ours:
    """Our side of one problem: the configuration that is fastest here, verified."""

    def __init__(self, worker, policy, has_times, clock):
        self.worker = worker
        # Whether every configuration was tried.
        self.is_whole = True
        self.opened = worker.open(policy, None if policy == DENSE else BLOCK)
        self.configs = self.opened["space"]["configurations"]
        self.has_times = has_times
        self.number = self._choose(clock) if has_times else self._default()
        worker.verify(self.number, self.configs[self.number])

    def _default(self):
        default = self.opened["default"]
        if default not in self.configs:
            self.configs.append(default)
        return self.configs.index(default)

    def _choose(self, clock):
        """Takes the fastest by the median of three rounds, in an order drawn afresh; what is far behind drops out.

        The default comes first; what there is no time to prepare and time is not tried.
        """
        enough = clock.left() * (1 - CHOOSING)
        default = self._default()
        times = {}
        for number in sorted(range(len(self.configs)), key=lambda number: number != default):
            if any(None not in all_us for all_us in times.values()) and clock.left() <= enough:
                self.is_whole = False
                break
            self.worker.prepare(number, self.configs[number])
            times[number] = self.worker.time_us([{"candidate": number}])
        for seed in range(2):
            times = self._near(times)
            if len(times) == 1 or clock.left() <= enough:
                break
            order = random.Random(seed).sample(sorted(times), len(times))
            for number, time_us in zip(order, self.worker.time_us([{"candidate": n} for n in order]), strict=True):
                times[number].append(time_us)
        times = self._near(times)
        return min(times, key=lambda number: statistics.median(times[number]))

    @staticmethod
    def _near(times):
        """Keeps what works and is not far behind the best."""
        works = {number: statistics.median(all_us) for number, all_us in times.items() if None not in all_us}
        if not works:
            raise WorkerError("no configuration could be timed")
        best = min(works.values())
        return {number: times[number] for number in works if works[number] <= FAR_BEHIND * best}

    @property
    def config(self):
        return " ".join(f"{name}={value}" for name, value in sorted(self.configs[self.number].items()))

    def time_us(self, part):
        item = {"candidate": self.number} if part == "attention" else part
        return self.worker.time_us([item])[0]


def parts_of(ours, rounds, clock):
    """Takes our own times of all parts, interleaved; for a quarter of the policy's time once the least are there, and once
    where none of it is left."""
    parts = {"attention": [], "mask": [], "reorder": [], "dense": []}
    end = clock.left() * 3 / 4
    for seed in range(rounds):
        if seed >= (LEAST_ROUNDS if clock.left() else 1) and clock.left() <= end:
            break
        for part in random.Random(seed).sample(list(parts), len(parts)):
            time_us = ours.time_us(part)
            if time_us is not None:
                parts[part].append(time_us)
    return parts


def in_turns(ours, part, run, settle_s, rounds, clock):
    """Times ours and theirs in turns, who is first drawn afresh, after a round that does not count."""
    samples, start = ([], []), time.monotonic()
    # Others of the policy want time, too.
    end = clock.left() / 2
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
        if i >= INTERVAL_ROUNDS and time.monotonic() - start > ROW_SECONDS:
            break
        if i >= LEAST_ROUNDS and clock.left() <= end:
            break
    return samples


def measure(pack, shape, thresholds, results, clock, given):
    """Measures a shape at every threshold that is not done yet and that there is time for; `given` names its input.

    Returns how far it got where that is not the end.
    """
    log = Log(results / "field" / f"{shape.name}.jsonl")
    policies = policies_of(thresholds)
    left = [policy for policy in policies if policy not in log.whole]
    # What has no rows yet comes before what has some.
    left.sort(key=lambda policy: policy in log.measured)
    if not left:
        return ""
    has_times = pack.backend != "emulator"
    rounds = 3 if pack.smoke else ROUNDS
    try:
        from torch_peers import Peers
    except ImportError as error:
        Peers, why = None, f"torch cannot be imported: {error}"
    command = pack.nabla("worker", *given, *pack.device(), "--error-rows", 64, "--peers", 1)
    worker = Worker(command)
    with tempfile.TemporaryDirectory(prefix="nabla-field-") as scratch:
        try:
            peers = Peers(pack, input_file(pack, given, results, Path(scratch))) if Peers else None
            for count, policy in enumerate(left):
                if not clock.begin(len(left) - count):
                    break
                ours = Ours(worker, policy, has_times, clock)
                opened = ours.opened
                common = {
                    "shape": shape.name, "policy": policy, "density": round(opened["density"], 5), "dtype": shape.dtype,
                }  # fmt: skip
                parts = parts_of(ours, rounds, clock) if has_times else {}
                whole = ours.is_whole and (not has_times or len(parts["attention"]) >= min(rounds, INTERVAL_ROUNDS))
                problem = opened["problem"]
                log.write(
                    kind="split", **common, config=ours.config, parts_us=parts, pairs=opened["pairs"],
                    heads=problem["heads"], head_dim=problem["head_dim"], tokens=problem["seqlen_q"],
                )  # fmt: skip
                if peers is None:
                    for peer in ("FlexAttention", "SDPA", "PyTorch's mask"):
                        log.write(kind="missing", **common, peer=peer, reason=why)
                else:
                    whole &= against(peers, ours, policies[policy], shape, common, log, rounds, Path(scratch), clock)
                log.finish(whole, **common)
                clock.finish()
                print(f"{shape.name} {policy}: density {opened['density']:.3f}", flush=True)
        finally:
            worker.close()
    unreached = [policy for policy in policies if policy not in log.measured]
    for policy in unreached:
        # Of no attempt that finishes: it is gone as soon as somebody goes on.
        log.write(kind="missing", shape=shape.name, policy=policy, peer="all of them", reason=UNREACHED)
    parts = len(log.measured - log.whole)
    if not unreached and not parts:
        return ""
    return f"{len(log.measured)} of {len(policies)} policies" + (f", {parts} of them in part" if parts else "")


def input_file(pack, given, results, scratch):
    """Returns the file of the input, which is made where the options do not name one."""
    if given[0] == "--input":
        return results / given[1]
    path = scratch / "inputs.safetensors"
    subprocess.run(pack.nabla("inputs", *given, "--out", path), check=True, stdout=subprocess.DEVNULL)
    return path


def against(peers, ours, threshold, shape, common, log, rounds, scratch, clock):
    """Compares with every peer: results first, then times. Tells whether all was measured that there is."""
    whole = True
    path = scratch / "ours.safetensors"
    ours.worker.save(ours.number, path, COMPARED_HEADS)
    peers.take(path, threshold)
    path.unlink()
    for peer in peers.all():
        row = {**common, "peer": peer.name}
        is_tuning = peer.is_tuned and peers.is_untuned
        if clock.left() < TUNING_S if is_tuning else clock.spare() < 0.1:
            log.write(kind="missing", **row, reason=UNREACHED)
            whole = False
            continue
        start = time.monotonic()
        try:
            note = peer.prepare()
        except Exception as error:  # whatever a compiler or driver throws: the peer is missing, the rest goes on
            lines = str(error).strip().splitlines() or [repr(error)]
            log.write(kind="missing", **row, reason=f"{type(error).__name__}: {lines[0][:300]}")
            continue
        finally:
            clock.compiled(time.monotonic() - start)
        padded = peer.is_padded
        if not ours.has_times:
            log.write(kind="missing", **row, reason=f"results compared ({note}), but the emulator has no times")
            continue
        samples = in_turns(ours, peer.part, peer.run, peers.settle_s, rounds, clock)
        whole &= len(samples[0]) >= min(rounds, INTERVAL_ROUNDS)
        log.write(
            kind="peer", **row, comparison=f"{shape.title}, {common['policy']}: {peer.what}", ours_us=samples[0],
            theirs_us=samples[1], padded=padded, convention=peers.convention, note=note, ours=ours.config,
        )  # fmt: skip
        time_us = peers.do_bench(peer)
        if time_us is not None:
            log.write(kind="do_bench", **row, time_us_median=time_us, padded=padded)
    return whole


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pack", type=Path, required=True)
    parser.add_argument("--shape", required=True)
    parser.add_argument("--thresholds", required=True)
    parser.add_argument("--results", type=Path, required=True)
    parser.add_argument("--seconds", type=float, default=3600, help="time for all of it (default: an hour)")
    parser.add_argument("--input", default="", help="options that name the input (default: make the shape's anew)")
    args = parser.parse_args()
    # Before anything is imported or started that takes long.
    clock = Clock(args.seconds)
    pack = Pack(args.pack, json.loads((args.pack / "manifest.json").read_text()))
    shape = next(s for s in (CLIP, *shapes_for(pack.backend, pack.smoke)) if s.name == args.shape)
    given = args.input.split(" ") if args.input else shape.input_options
    thresholds = [float(t) for t in args.thresholds.split(",")]
    try:
        bounded = measure(pack, shape, thresholds, args.results, clock, given)
    except WorkerError as error:
        sys.exit(f"error: {error}")
    if bounded:
        print(BOUNDED + bounded, flush=True)


if __name__ == "__main__":
    main()
