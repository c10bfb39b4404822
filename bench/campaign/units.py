"""The units of a campaign, in the order of what they tell: what each runs and how long it may take."""

import ctypes
import os
import shutil
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from shapes import CLIP, shapes_for, thresholds_for

HERE = Path(__file__).resolve().parent
# A program that was asked to end has so long before it is killed.
GRACE_S = 10
# Cases that every kernel has one of, with work for every part of it; those of the plain kernel and the selection apart.
USUAL_CASES = "on ragged-grid,on flat block,on video mass 0.8"


@dataclass
class Unit:
    """One command with its log. Cut, it goes on where it was if its command keeps a log of its own, else starts again."""

    name: str
    stage: str
    # Takes the results folder, returns the command line.
    command: callable
    # The most seconds one attempt may take.
    cap_s: float
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
    fields = [_field(pack, shape) for shape in shapes]
    sweeps = [_sweep(pack, shape) for shape in shapes]
    # A look at every kernel and the headline shape first, then the clip, then all the rest in turn.
    units = [_check(pack, "check-usual", USUAL_CASES, cap_s=150), *_same_ptx(pack), fields[0]]
    # The clip against the field takes a minute of compiling: not where only the way is tested.
    units += [] if pack.smoke or pack.backend == "emulator" else [_field(pack, CLIP)]
    units += [_sweep(pack, CLIP), _tune(pack, CLIP), sweeps[0], _tune(pack, shapes[0])]
    units += [_sanitized(pack, tool) for tool in ("memcheck", "racecheck", "synccheck")]
    for shape, peers, sweep in zip(shapes[1:], fields[1:], sweeps[1:], strict=True):
        units += [peers, sweep, _tune(pack, shape)]
    units.append(_check(pack, "check-all", "", cap_s=280))
    return units


def _check(pack, name, cases, cap_s):
    skip = None
    if pack.smoke:
        # Dense kernels on one case show that checks run; the usual ones are checked wherever the program is built.
        cases = "on one-token dense"
        skip = None if name == "check-usual" else "one case is enough to test the way"
    elif pack.backend == "cpu":
        # Every tile and type has every case there.
        cases = cases and "on ragged-grid"
    words = ["check", "--backend", pack.backend, *pack.kernel_cache(), *(["--filter", cases] if cases else [])]
    if pack.backend == "emulator":
        words += ["--completion", "late", *(["--arch", "sm_80"] if pack.smoke else [])]
    return Unit(name, "check", lambda results: pack.nabla(*words, "--json", results / "check" / f"{name}.json"), cap_s, skip)


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

        def command(results, words=words, name=name):
            return pack.nabla(*words, "--json", results / "check" / f"{name}.json")

        yield Unit(name, "same-ptx", command, cap_s=90, skip=skip)


def _sanitized(pack, tool):
    sanitizer = shutil.which("compute-sanitizer") or "/usr/local/cuda/bin/compute-sanitizer"
    skip = None
    if pack.backend != "cuda":
        skip = "compute-sanitizer watches GPUs"
    elif not Path(sanitizer).exists():
        skip = "compute-sanitizer is not on this machine"
    words = ["check", "--backend", "cuda", *pack.kernel_cache(), "--filter", USUAL_CASES]
    return Unit(
        f"sanitizer-{tool}",
        "check",
        lambda results: [
            sanitizer, "--tool", tool, "--error-exitcode", "5", "--print-limit", "20",
            *pack.nabla(*words, "--json", results / "check" / f"{tool}.json"),
        ],
        cap_s=120,
        skip=skip,
    )  # fmt: skip


def _field(pack, shape):
    thresholds = ",".join(str(t) for t in thresholds_for(pack.backend, pack.smoke))
    command = [sys.executable, str(HERE / "field.py"), "--pack", str(pack.folder), "--shape", shape.name]
    return Unit(
        f"field-{shape.name}",
        "field",
        lambda results: [*command, "--thresholds", thresholds, "--results", str(results)],
        cap_s=240,
    )


NO_TIMES = "the emulator has no times"


def _sweep(pack, shape):
    words = ["sweep", *pack.device(), "--no-report", *shape.input_options, "--thresholds"]
    words.append(",".join(str(t) for t in thresholds_for(pack.backend, pack.smoke)))
    if pack.smoke:
        # One tile, one mask block, one length.
        words += ["--frames", 1, "--blocks", 64, "--rounds", 3, "--block-m", 64, "--block-n", 64]
    elif not shape.is_clip:
        words += ["--frames", shape.grid[0], "--blocks", 64, "--rounds", 7, "--error-rows", 64]
    return _run(pack, f"sweep-{shape.name}", "sweep", words, cap_s=60 if shape.is_clip else 120)


def _tune(pack, shape):
    words = ["tune", *pack.device(), *shape.input_options, "--effort", "quick"]
    if pack.smoke:
        words += ["--frames", 1, "--thresholds", 0.5, "--budget-seconds", 2, "--evaluations", 2]
    else:
        words += ["--thresholds", "0.4,0.7,0.9", "--budget-seconds", 40, "--error-rows", 64]
    skip = "one problem is enough to test the way" if pack.smoke and not shape.is_clip else None
    return _run(pack, f"tune-{shape.name}", "tune", words, cap_s=90, skip=skip)


def _run(pack, name, stage, words, cap_s, skip=None):
    """A unit whose command keeps a log of its own and goes on with it."""
    skip = NO_TIMES if pack.backend == "emulator" else skip

    def command(results):
        folder = results / "runs" / name
        if (folder / "records.jsonl").exists():
            return pack.nabla(words[0], "--resume", folder)
        return pack.nabla(*words, "--out", folder)

    return Unit(name, stage, command, cap_s, skip)


def run(unit, results, seconds):
    """Runs a unit for at most so many seconds.

    Returns how it ended (done, failed or cut) and why. The log of every attempt is kept.
    """
    log = results / "logs" / f"{unit.name}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    command = unit.command(results)
    with open(log, "ab") as file:
        file.write(f"$ {' '.join(command)}\n".encode())
        file.flush()
        # A group of its own: the end of the budget reaches what the command started.
        process = subprocess.Popen(
            command, stdout=file, stderr=subprocess.STDOUT, start_new_session=True, preexec_fn=_die_with_parent
        )
        try:
            code = process.wait(timeout=seconds)
        except subprocess.TimeoutExpired:
            _end(process)
            return "cut", f"it did not end within {seconds:.0f} s"
        except BaseException:
            _end(process)
            raise
    if code == 0:
        return "done", ""
    lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
    said = next((line for line in reversed(lines) if "error" in line.lower()), lines[-1] if lines else "")
    return "failed", f"exit code {code}: {said[:300]}"


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
            process.wait(GRACE_S)
        except (ProcessLookupError, subprocess.TimeoutExpired):
            pass
