#!/usr/bin/env python3
"""Measures everything against the field on this machine and writes one results folder. Needs python3 alone; the
comparisons with PyTorch need torch and are counted as skipped without it. Run again, it goes on where it was."""

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
from machine import describe, slug_of
from state import Budget, State

# Kept for the report, which is written last and always.
REPORT_S = 20
# A unit is not started for less.
LEAST_S = 5

EXIT_CODES = """Exit codes: 0 everything is finished and nothing failed; 2 bad usage; 4 the device is missing; 5 a unit
failed, the report says which; 9 the budget ended before everything was finished: run it again; 130 interrupted."""


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
            print(f"{unit.stage:<10} {unit.name:<24} at most {unit.cap_s:.0f} s{skipped}")
        return 0
    stages = {unit.stage for unit in plan}
    if unknown := set(args.only or ()) - stages:
        parser.error(f"expected stages among {', '.join(sorted(stages))}, got {', '.join(sorted(unknown))}")
    budget = Budget(args.budget)

    machine = describe(pack)
    if machine["device"] is None:
        print(f"campaign: no usable {pack.backend} device: {machine['device_error']}", file=sys.stderr)
        return 4
    results = args.results or results_folder(Path.cwd() / "results" / slug_of(machine), manifest["identity"], args.new)
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
        for unit in wanted:
            one(unit, state, results, budget)
    except KeyboardInterrupt:
        interrupted = True
    counts = state.counts([unit.name for unit in wanted])
    report.write(pack, plan, state, results)
    archive(results)
    ended = ", ".join(f"{number} {name}" for name, number in counts.items())
    print(f"campaign: {ended}; {results / 'report.html'}")
    if interrupted:
        return 130
    if counts["left"]:
        return 9
    return 5 if counts["failed"] else 0


def one(unit, state, results, budget):
    """Runs a unit unless it is finished, cannot run here, or there is no time for it."""
    if state.is_finished(unit.name):
        return
    if unit.skip:
        state.end(unit.name, "skipped", unit.skip, 0)
        print(f"campaign: {unit.name}: skipped: {unit.skip}", flush=True)
        return
    seconds = min(unit.cap_s, budget.left() - REPORT_S)
    if seconds < LEAST_S:
        return
    state.start(unit.name)
    start = time.monotonic()
    status, reason = units.run(unit, results, seconds)
    state.end(unit.name, status, reason, time.monotonic() - start)
    seconds = time.monotonic() - start
    print(f"campaign: {unit.name}: {status} in {seconds:.1f} s" + (f": {reason}" if reason else ""), flush=True)


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
    subprocess.run(["tar", "-czf", str(path), "-C", str(results.parent), results.name], check=True)
    print(f"campaign: {path}, {os.path.getsize(path) / 1e6:.1f} MB")


if __name__ == "__main__":
    sys.exit(main())
