#!/usr/bin/env python3
"""Says whether a campaign on the CPU or the emulator came out as it must where PyTorch is there: what is missing or differs is
a fault, named on a line of its own, and the exit code is then 1. Needs the standard library alone."""

import argparse
import csv
import html
import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "campaign"))

from fieldlog import latest, rows_in
from shapes import DENSE, policies_of, shapes_for, thresholds_for

ENOUGH = ("one case is enough to test the way", "one kind is enough to test the way", "one problem is enough to test the way")
# Why a unit may be skipped.
SKIPPED = {
    "cpu": (*ENOUGH, "the CPU's kernels are not PTX", "compute-sanitizer watches GPUs"),
    "emulator": (*ENOUGH, "the emulator has no times", "compute-sanitizer watches GPUs"),
}
# What PyTorch has for GPUs alone, with what its absence is put down to.
OF_GPUS = {
    "FlexAttention, tuned options": "kernel options are those of GPU kernels",
    "SDPA cuDNN": "cuDNN is for GPUs",
}
MASK = "PyTorch: mean, matmul, softmax, sort, ..."
# Start of the reason of a peer whose results agreed where there are no times.
COMPARED = "results compared ("


def peers_of(policy):
    """Returns the peers of a policy, each with what its note has to say."""
    agree = "outputs agree"
    if policy == DENSE:
        return {"SDPA flash": agree}
    return {"FlexAttention": agree, MASK: "blocks differ", "SDPA flash": "its outputs are compared in the dense row"}


def faults_of_units(units, backend):
    for name, unit in units.items():
        status, reason = unit["status"], unit.get("reason", "")
        is_fine = status == "done" or status == "skipped" and reason.startswith(SKIPPED[backend])
        if not is_fine:
            yield f"unit {name}: {status}: {reason}"


def faults_of_field(rows, backend, shape, policies):
    """Lists what is wrong with the comparisons of one shape."""
    has_times = backend == "cpu"
    for policy in policies:
        of = [row for row in rows if row["policy"] == policy]
        where = f"{shape} {policy}"
        if not any(row["kind"] == "finished" and row["whole"] for row in of):
            yield f"{where}: not measured as a whole"
        for peer, says in peers_of(policy).items():
            found = [row for row in of if row.get("peer") == peer and row["kind"] in ("peer", "missing")]
            if len(found) != 1:
                yield f"{where}: {peer}: expected one row, got {len(found)}"
                continue
            row = found[0]
            note = row.get("note", "") if has_times else row.get("reason", "").removeprefix(COMPARED)
            is_compared = row["kind"] == "peer" if has_times else row.get("reason", "").startswith(COMPARED)
            if not is_compared or says not in note:
                yield f"{where}: {peer}: expected '{says}', got {row['kind']}: {row.get('note') or row.get('reason')}"
            elif has_times and not all(time > 0 for time in row["ours_us"] + row["theirs_us"]):
                yield f"{where}: {peer}: times are not all positive"
        for row in of:
            known = row.get("peer") in peers_of(policy) or OF_GPUS.get(row.get("peer"), "\0") in row.get("reason", "")
            if row["kind"] == "missing" and not known:
                yield f"{where}: {row['peer']} is missing: {row['reason']}"


def faults_of_report(results, rows):
    """Lists the rows that the report does not hold."""
    ratios, page = (results / "ratios.md").read_text(), (results / "report.html").read_text()
    with open(results / "peers.csv", newline="") as file:
        recorded = {(row["shape"], row["policy"], row["peer"]) for row in csv.DictReader(file)}
    for row in rows:
        text = row.get("comparison") if row["kind"] == "peer" else row.get("reason")
        if row["kind"] not in ("peer", "missing"):
            continue
        where = f"{row['shape']} {row['policy']}: {row['peer']}"
        if text not in ratios or html.escape(text) not in page:
            yield f"{where} is not in the report"
        if row["kind"] == "peer" and (row["shape"], row["policy"], row["peer"]) not in recorded:
            yield f"{where} is not in peers.csv"


def check(results):
    """Returns what was checked, as lines, and the faults found."""
    pack = json.loads((results / "environment.json").read_text())["pack"]
    backend, smoke = pack["backend"], pack["smoke"]
    units = json.loads((results / "campaign.json").read_text())["units"]
    counts = [sum(unit["status"] == status for unit in units.values()) for status in ("done", "skipped")]
    said = [f"units: {counts[0]} done, {counts[1]} skipped for a reason of the {backend} backend, of {len(units)}"]
    faults = list(faults_of_units(units, backend))
    policies = list(policies_of(thresholds_for(backend, smoke)))
    every = []
    for shape in shapes_for(backend, smoke):
        path = results / "field" / f"{shape.name}.jsonl"
        rows = latest(rows_in(path)) if path.exists() else []
        every += rows
        faults += faults_of_field(rows, backend, shape.name, policies)
        peers = sum(len(peers_of(policy)) for policy in policies)
        said.append(f"{shape.name}: {peers} peers at {', '.join(policies)}: outputs agree, masks within rounding")
    if sum(row["kind"] == "finished" for row in every) == 0:
        faults.append("nothing was compared at all")
    faults += faults_of_report(results, every)
    held = sum(row["kind"] in ("peer", "missing") for row in every)
    return [*said, f"report: {held} rows of the logs are in report.html, ratios.md and peers.csv"], faults


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("results", type=Path, help="results folder of a campaign")
    results = parser.parse_args().results
    said, faults = check(results)
    for fault in faults:
        print(f"FAULT: {fault}")
    for line in [] if faults else said:
        print(f"checked {line}")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
