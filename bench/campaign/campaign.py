#!/usr/bin/env python3
"""Measures everything against the field on this machine and writes one results folder. Needs python3 alone; the
comparisons with PyTorch need torch and are listed as not measured without it. One call gives every unit its share of the
time; a further one goes deeper into those that ended by it."""

import argparse
import datetime
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import report
import units
from inputs import Inputs
from machine import describe, slug_of
from plan import Budget, Shares
from state import State

# Kept for the report, which is written last and always.
REPORT_S = 20

EXIT_CODES = """Exit codes: 0 every unit has results and nothing failed (the last line says how many are bounded: a further call
goes deeper into them); 2 bad usage; 4 the device is missing; 5 a unit failed, the report says which; 9 a unit has no
results yet: run it again; 130 interrupted."""


def main():
    parser = argparse.ArgumentParser(description=__doc__, epilog=EXIT_CODES)
    parser.add_argument("--budget", type=float, default=570, help="seconds this call may take (default: 570)")
    parser.add_argument(
        "--results",
        type=Path,
        help="results folder (default: the last results/<device>/<date> of this pack, else a new one)",
    )
    parser.add_argument("--new", action="store_true", help="start a results folder of its own, whatever is there")
    parser.add_argument("--only", action="append", metavar="STAGE", help="run this stage alone; may be repeated")
    parser.add_argument("--retry", action="store_true", help="run what failed or was skipped again")
    parser.add_argument("--list", action="store_true", help="list the units and stop")
    args = parser.parse_args()

    pack_folder = Path(__file__).resolve().parents[1]
    manifest = json.loads((pack_folder / "manifest.json").read_text())
    pack = units.Pack(pack_folder, manifest)
    plan = units.units_of(pack)
    if args.list:
        for unit in plan:
            skipped = f"; skipped: {unit.skip}" if unit.skip else ""
            print(f"{unit.stage:<10} {unit.name:<24} weight {unit.weight:g}, at least {unit.least_s:g} s{skipped}")
        return 0
    stages = {unit.stage for unit in plan}
    if unknown := set(args.only or ()) - stages:
        parser.error(f"expected stages among {', '.join(sorted(stages))}, got {', '.join(sorted(unknown))}")
    budget = Budget(args.budget - REPORT_S)

    machine = describe(pack)
    if machine["device"] is None:
        print(f"campaign: no usable {pack.backend} device: {machine['device_error']}", file=sys.stderr)
        return 4
    results = args.results and args.results.resolve()
    results = results or results_folder(Path.cwd() / "results" / slug_of(machine), manifest["identity"], args.new)
    for name in ("check", "logs", "runs"):
        (results / name).mkdir(parents=True, exist_ok=True)
    state = State(results / "campaign.json", manifest["identity"])
    started = datetime.datetime.now().astimezone().isoformat(timespec="seconds")
    state.sessions.append({"started": started, "budget_s": args.budget})
    state.save()
    (results / "environment.json").write_text(json.dumps({"pack": manifest, "machine": machine}, indent=1) + "\n")
    print(f"campaign: results in {results}", flush=True)

    # A kill by the system's own means ends the unit in flight too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    interrupted = False
    wanted = [unit for unit in plan if not args.only or unit.stage in args.only]
    if args.retry:
        state.forget([u.name for u in wanted if state.units.get(u.name, {}).get("status") in ("failed", "skipped")])
    try:
        run_all(wanted, pack, state, results, budget)
    except KeyboardInterrupt:
        interrupted = True
    counts = state.counts([unit.name for unit in wanted])
    report.write(pack, plan, state, results)
    archive(results)
    ended = ", ".join(f"{number} {name}" for name, number in counts.items())
    deeper = f"; {counts['bounded']} ended by their share, a further call goes deeper" if counts["bounded"] else ""
    print(f"campaign: {ended}{deeper}; {results / 'report.html'}")
    if interrupted:
        return 130
    if counts["left"]:
        return 9
    return 5 if counts["failed"] else 0


def run_all(wanted, pack, state, results, budget):
    """Runs the units that are not finished, each for its share: those without results first, then the bounded ones."""
    for unit in wanted:
        if unit.skip and not state.is_finished(unit.name):
            state.end(unit.name, "skipped", unit.skip, 0)
            print(f"campaign: {unit.name}: skipped: {unit.skip}", flush=True)
    ahead = [unit for unit in wanted if not state.is_finished(unit.name)]
    ahead.sort(key=lambda unit: state.status(unit.name) == "bounded")
    shares, inputs = Shares(budget, ahead), Inputs(pack, results)
    shape = None
    try:
        for unit in ahead:
            if shape is not None and unit.shape != shape:
                inputs.drop()
            shape = unit.shape
            seconds = shares.take(unit)
            if seconds is None:
                state.pass_over(unit.name)
            else:
                one(unit, state, results, seconds, inputs)
    finally:
        inputs.drop()


def one(unit, state, results, seconds, inputs):
    """Runs a unit for its share, which the making of its input counts to."""
    state.start(unit.name)
    start = time.monotonic()
    given, why_not = inputs.options(unit.shape, seconds) if unit.shape else ([], "")
    left = seconds - (time.monotonic() - start)
    log_there = (results / "runs" / unit.name / "records.jsonl").exists()
    if why_not and (left < unit.least_s / 2 or log_there):
        # A run that is there was begun with the file.
        reached = unit.reached(results)
        status, reason = "bounded" if reached else "cut", "; ".join(filter(None, (reached, why_not)))
    else:
        status, reason = units.run(unit, results, left, given)
        reason = "; ".join(filter(None, (reason, why_not)))
    state.end(unit.name, status, reason, time.monotonic() - start)
    took = time.monotonic() - start
    text = f"campaign: {unit.name}: {status} in {took:.1f} of {seconds:.1f} s"
    print(text + (f": {reason}" if reason else ""), flush=True)


def results_folder(of_device, identity, new):
    """Returns the last folder of this pack, to go on in it, else one named by the date."""
    states = [] if new else sorted(of_device.glob("*/campaign.json"), key=lambda path: path.stat().st_mtime)
    for path in reversed(states):
        if json.loads(path.read_text())["identity"] == identity:
            return path.parent
    today = datetime.date.today().isoformat()
    names = [today, *(f"{today}-{n}" for n in range(2, 1000))]
    return next(of_device / name for name in names if not (of_device / name).exists())


def archive(results):
    """Packs the results into one file beside them, to be carried away."""
    path = results.parent / f"{results.parent.name}-{results.name}.tar.gz"
    packed = ["tar", "-czf", str(path), "--exclude", f"{results.name}/inputs", "-C", str(results.parent), results.name]
    subprocess.run(packed, check=True)
    print(f"campaign: {path}, {os.path.getsize(path) / 1e6:.1f} MB")


if __name__ == "__main__":
    sys.exit(main())
