"""The units of a campaign, in the order of what they tell: what each runs, and what part of the time it gets."""

import ctypes
import json
import os
import shutil
import signal
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path

from fieldlog import latest, rows_in
from plan import GRACE_S, told
from shapes import CLIP, Shape, policies_of, shapes_for, thresholds_for

HERE = Path(__file__).resolve().parent
# Cases that every kernel has one of, with work for every part of it; those of the plain kernel and the selection apart.
USUAL_CASES = "on ragged-grid,on flat block,on video mass 0.8"
# How a command says on a line of its own that it ended by its share, and how far it got.
BOUNDED = "bounded: "
# The least of every unit where only the way is tested.
SMOKE_LEAST_S = 4
# Thresholds of a tuning, ordered by how much they tell.
TUNED = (0.7, 0.9, 0.4)


@dataclass
class Unit:
    """One command with its log. Cut, it goes on where it was if its command keeps a log of its own, else starts again."""

    name: str
    stage: str
    # Takes the results folder, the options that give the input, and the seconds it has; returns the command line.
    command: callable
    # The part of the time that it gets beyond its least, next to those of the others.
    weight: float
    # It is not started for fewer seconds.
    least_s: float
    # Whose input it reads; None where it needs none.
    shape: Shape | None = None
    # Takes the results folder, returns what there is of its results, "" where there are none.
    reached: callable = lambda results: ""
    # Why it cannot run here; None where it can.
    skip: str | None = None


class Pack:
    """The packed folder: program, kernels, and what it was made for."""

    def __init__(self, folder, manifest):
        self.folder = folder
        self.backend = manifest["backend"]
        self.smoke = manifest["smoke"]
        self.program = folder / "nabla"
        self.kernels = folder / "kernels"

    def kernel_cache(self):
        """Options that name the prebuilt kernels; none on the CPU."""
        return ["--kernel-cache", str(self.kernels)] if self.kernels.is_dir() else []

    def device(self):
        """Options that name the device; the same for every command that takes one."""
        return ["--backend", self.backend, *self.kernel_cache()]

    def nabla(self, *words):
        return [str(self.program), *map(str, words)]


def units_of(pack):
    """Lists all units of a pack."""
    shapes = shapes_for(pack.backend, pack.smoke)
    # A look at every kernel and the headline shape first, then the clip, then all the rest in turn. What reads the same
    # input stands together.
    units = [_check(pack, "check-usual", USUAL_CASES, weight=2, least_s=12), *_same_ptx(pack)]
    units += _shape(pack, shapes[0], weight=3)
    # The clip against the field takes a minute of compiling: not where only the way is tested.
    has_clip = not pack.smoke and pack.backend != "emulator"
    units += _shape(pack, CLIP, weight=1) if has_clip else [_sweep(pack, CLIP, 1), _tune(pack, CLIP, 1)]
    for shape in shapes[1:]:
        units += _shape(pack, shape, weight=1)
    units += [_sanitized(pack, tool) for tool in ("memcheck", "racecheck", "synccheck")]
    units += _check_all(pack)
    # Tiny inputs need no more.
    return [replace(unit, least_s=SMOKE_LEAST_S) for unit in units] if pack.smoke else units


def _shape(pack, shape, weight):
    return [_field(pack, shape, weight), _sweep(pack, shape, weight), _tune(pack, shape, weight)]


def _check(pack, name, cases, weight, least_s, skip=None):
    if pack.smoke:
        # Dense kernels on one case show that checks run; the usual ones are checked wherever the program is built.
        cases = "on one-token dense"
    elif pack.backend == "cpu" and name == "check-usual":
        # Every tile and type has every case there.
        cases = "on ragged-grid"
    words = ["check", "--backend", pack.backend, *pack.kernel_cache(), "--filter", cases]
    if pack.backend == "emulator":
        words += ["--completion", "late", *(["--arch", "sm_80"] if pack.smoke else [])]

    def command(results, _input, _seconds):
        return pack.nabla(*words, "--json", results / "check" / f"{name}.json")

    return Unit(name, "check", command, weight, least_s, skip=skip)


def _check_all(pack):
    """The whole catalogue, one unit a kind of kernel: what is done is not done again."""
    if pack.backend == "cpu":
        kinds = {"dense": "densefwd_", "sparse": "bsfwd_"}
    else:
        kinds = {
            "reorder": "reorder_", "select": "select_", "plain": "plain_", "dense": "dnfwd_", "sparse-sm80": "bsfwd_sm80",
            "sparse-sm90a": "bsfwd_sm90a",
        }  # fmt: skip
    skip = "one case is enough to test the way" if pack.smoke else None
    return [_check(pack, f"check-all-{kind}", name, weight=1, least_s=5, skip=skip) for kind, name in kinds.items()]


def _same_ptx(pack):
    """One unit a kind of case: the emulator takes its time, and what is done is not done again."""
    skip = None if pack.backend != "cpu" else "the CPU's kernels are not PTX: nothing to compare with the emulator"
    kinds = {"reorder": "reorder_", "plain": "plain_", "attention": "on ragged-grid", "selection": "on video mass 0.8"}
    for kind, cases in kinds.items():
        words = ["check", "--backend", pack.backend, "--against", "emulator", "--filter", cases, *pack.kernel_cache()]
        if pack.smoke and pack.backend == "emulator":
            words += ["--arch", "sm_80"]
        name = f"same-ptx-{kind}"
        if pack.smoke and kind != "reorder":
            skip = skip or "one kind is enough to test the way"

        def command(results, _input, _seconds, words=words, name=name):
            return pack.nabla(*words, "--json", results / "check" / f"{name}.json")

        yield Unit(name, "same-ptx", command, weight=1, least_s=6, skip=skip)


def _sanitized(pack, tool):
    sanitizer = shutil.which("compute-sanitizer") or "/usr/local/cuda/bin/compute-sanitizer"
    skip = None
    if pack.backend != "cuda":
        skip = "compute-sanitizer watches GPUs"
    elif not Path(sanitizer).exists():
        skip = "compute-sanitizer is not on this machine"
    words = ["check", "--backend", "cuda", *pack.kernel_cache(), "--filter", USUAL_CASES]

    def command(results, _input, _seconds):
        checked = pack.nabla(*words, "--json", results / "check" / f"{tool}.json")
        return [sanitizer, "--tool", tool, "--error-exitcode", "5", "--print-limit", "20", *checked]

    return Unit(f"sanitizer-{tool}", "check", command, weight=1, least_s=8, skip=skip)


def _field(pack, shape, weight):
    thresholds = thresholds_for(pack.backend, pack.smoke)
    words = [sys.executable, str(HERE / "field.py"), "--pack", str(pack.folder), "--shape", shape.name]

    def command(results, given, seconds):
        listed = ",".join(str(t) for t in thresholds)
        measured = ["--thresholds", listed, "--results", str(results), "--seconds", str(seconds)]
        return [*words, *measured, f"--input={' '.join(given)}"]

    def reached(results):
        path = results / "field" / f"{shape.name}.jsonl"
        rows = latest(rows_in(path)) if path.exists() else []
        count = sum(row["kind"] == "finished" for row in rows)
        return f"{count} of {len(policies_of(thresholds))} policies" if count else ""

    return Unit(f"field-{shape.name}", "field", command, 2 * weight, 18, shape, reached)


NO_TIMES = "the emulator has no times"


def _sweep(pack, shape, weight):
    words = ["sweep", *pack.device(), "--no-report", "--thresholds"]
    words.append(",".join(str(t) for t in thresholds_for(pack.backend, pack.smoke)))
    if pack.smoke:
        # One tile, one mask block, one length.
        words += ["--frames", 1, "--blocks", 64, "--rounds", 3, "--block-m", 64, "--block-n", 64]
    elif not shape.is_clip:
        words += ["--frames", shape.grid[0], "--blocks", 64, "--rounds", 7, "--error-rows", 64]
    skip = NO_TIMES if pack.backend == "emulator" else None
    name = f"sweep-{shape.name}"

    def command(results, given, seconds):
        folder = results / "runs" / name
        budget = ["--budget-seconds", seconds]
        if (folder / "records.jsonl").exists():
            return pack.nabla("sweep", "--resume", folder, *budget)
        return pack.nabla(*words, *given, *budget, "--out", folder)

    def reached(results):
        rows = _measured(results / "runs" / name)
        return f"{rows} configurations" if rows else ""

    return Unit(name, "sweep", command, weight, 12, shape, reached, skip)


def _tune(pack, shape, weight):
    thresholds = (0.5,) if pack.smoke else TUNED
    words = ["tune", *pack.device(), "--effort", "quick", "--thresholds", ",".join(str(t) for t in thresholds)]
    words += ["--frames", 1, "--evaluations", 2] if pack.smoke else ["--error-rows", 64]
    skip = "one problem is enough to test the way" if pack.smoke and not shape.is_clip else None
    if pack.backend == "emulator":
        skip = NO_TIMES
    name = f"tune-{shape.name}"

    def command(results, given, seconds):
        folder = results / "runs" / name
        if (folder / "records.jsonl").exists():
            return pack.nabla("tune", "--resume", folder)
        # Searching takes a part of the time: the best meet the default, and the winner is measured afresh.
        search = max(1, int(seconds * SEARCHING))
        return pack.nabla(*words, *given, "--budget-seconds", search, "--out", folder)

    def reached(results):
        folder = results / "runs" / name
        path, rows = folder / "profile.json", _measured(folder)
        finished = len(json.loads(path.read_text()).get("entries", [])) if path.exists() else 0
        return f"{finished} of {len(thresholds)} problems, {rows} timed rows" if rows else ""

    return Unit(name, "tune", command, weight, 12, shape, reached, skip)


# Part of a tuning's time that its search may take.
SEARCHING = 0.4


def _measured(folder):
    """Counts the rows of a run that have times."""
    path = folder / "records.jsonl"
    return path.read_text().count('"status":"ok"') if path.exists() else 0


def run(unit, results, seconds, given=()):
    """Runs a unit for at most so many seconds, its grace included; `given` are the options that name its input.

    Returns how it ended (done, bounded, failed or cut) and why. The log of every attempt is kept.
    """
    log = results / "logs" / f"{unit.name}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    runs_s = max(1.0, seconds - GRACE_S)
    command = unit.command(results, list(given), told(runs_s))
    with open(log, "ab") as file:
        file.write(f"$ {' '.join(command)}\n".encode())
        file.flush()
        start = file.tell()
        # A group of its own: the end of the budget reaches what the command started.
        process = subprocess.Popen(
            command, cwd=results, stdout=file, stderr=subprocess.STDOUT, start_new_session=True,
            preexec_fn=_die_with_parent,
        )  # fmt: skip
        try:
            code = process.wait(timeout=runs_s)
        except subprocess.TimeoutExpired:
            _end(process)
            reached = unit.reached(results)
            return ("bounded", reached) if reached else ("cut", f"nothing was measured within its {runs_s:.0f} s")
        except BaseException:
            _end(process)
            raise
    said = log.read_bytes()[start:].decode(errors="replace")
    lines = [line for line in said.splitlines() if line.strip()]
    if code == 0:
        bounded = [line for line in lines if line.startswith(BOUNDED)]
        return ("bounded", bounded[-1].removeprefix(BOUNDED)) if bounded else ("done", "")
    reason = next((line for line in reversed(lines) if "error" in line.lower()), lines[-1] if lines else "")
    return "failed", f"exit code {code}: {reason[:300]}"


def _die_with_parent():
    """Lets a unit end with a campaign that is killed: two that write one log would spoil it."""
    set_death_signal = 1
    try:
        ctypes.CDLL(None).prctl(set_death_signal, signal.SIGKILL)
    except (OSError, AttributeError):
        pass  # not Linux: who kills a campaign there ends its unit too


def _end(process):
    """Asks a group of processes to end, waits a little, and ends what is left of it."""
    for order in (signal.SIGINT, signal.SIGKILL):
        try:
            os.killpg(process.pid, order)
            process.wait(GRACE_S / 2)
        except (ProcessLookupError, subprocess.TimeoutExpired):
            pass
