"""The report of a campaign: tables that people read and files that programs read, from what the units left."""

import csv
import html
import json
import subprocess

from fieldlog import UNREACHED, latest, rows_in
from ratios import median_interval, paired_ratio, with_interval
from shapes import CLIP, policies_of, shapes_for, thresholds_for

PEER_COLUMNS = (
    "comparison,peer,ours_us_median,ours_us_min,ours_us_max,peer_us_median,peer_us_min,peer_us_max,ratio,ratio_low,"
    "ratio_high,rounds,shape,policy,density,dtype,padded,convention,device,torch,ours,note"
).split(",")
SPLIT_COLUMNS = (
    "shape,policy,density,dtype,config,reorder_us,mask_us,attention_us,dense_us,tflops_executed,tflops_dense_equivalent,"
    "speedup_over_dense,speedup_with_mask"
).split(",")


def rows_of(results, shapes):
    """Reads the rows of all comparisons, in the order of the shapes: those of policies that are finished."""
    paths = [results / "field" / f"{shape.name}.jsonl" for shape in shapes]
    return [row for path in paths if path.exists() for row in latest(rows_in(path))]


def unmeasured(plan, state, rows, policies):
    """Lists what was not measured as (peer, shape, policy, why): single peers, and policies without rows."""
    listed = [(row["peer"], row["shape"], row["policy"], row["reason"]) for row in rows if row["kind"] == "missing"]
    finished = {(row["shape"], row["policy"]) for row in rows if row["kind"] == "finished"}
    for unit in plan:
        if unit.stage == "field":
            entry = state.units.get(unit.name, {})
            why = UNREACHED if entry.get("status") in (None, "bounded", "not reached") else entry["reason"]
            left = [policy for policy in policies if (unit.shape.name, policy) not in finished]
            listed += [("all of them", unit.shape.name, policy, why) for policy in left]
    return listed


def peer_record(row):
    """Makes the record of one comparison from its samples."""
    ratio, low, high = paired_ratio(row["ours_us"], row["theirs_us"])
    record = {column: row.get(column, "") for column in PEER_COLUMNS}
    for side, samples in (("ours", row["ours_us"]), ("peer", row["theirs_us"])):
        median = median_interval(samples)[0]
        record |= {f"{side}_us_median": f"{median:.1f}", f"{side}_us_min": f"{min(samples):.1f}"}
        record |= {f"{side}_us_max": f"{max(samples):.1f}"}
    end = {"ratio_low": low, "ratio_high": high}
    record |= {name: "" if value is None else f"{value:.4f}" for name, value in end.items()}
    return record | {"ratio": f"{ratio:.4f}", "rounds": len(row["ours_us"])}


def split_record(row):
    """Makes the record of where our time goes from the samples of one problem."""
    part = {name: median_interval(samples)[0] for name, samples in row["parts_us"].items() if samples}
    flops = 4 * row["head_dim"] * row["pairs"]
    dense_flops = 4 * row["head_dim"] * row["heads"] * row["tokens"] ** 2
    record = {name: row[name] for name in ("shape", "policy", "dtype")}
    record |= {"density": f"{row['density']:.4f}", "config": row["config"]}
    record |= {f"{name}_us": f"{part[name]:.1f}" if name in part else "" for name in ("reorder", "mask", "attention", "dense")}
    if "attention" in part:
        record["tflops_executed"] = f"{flops / part['attention'] / 1e6:.3f}"
        record["tflops_dense_equivalent"] = f"{dense_flops / part['attention'] / 1e6:.3f}"
        if "dense" in part:
            record["speedup_over_dense"] = f"{part['dense'] / part['attention']:.3f}"
            record["speedup_with_mask"] = f"{part['dense'] / (part['attention'] + part.get('mask', 0)):.3f}"
    return record


def write_csv(path, columns, records):
    with open(path, "w", newline="") as file:
        out = csv.DictWriter(file, columns, restval="")
        out.writeheader()
        out.writerows(records)


def ratio_table(records):
    """Lists ratios as rows of (comparison, peer, ours, theirs, ratio)."""
    rows = [("comparison", "peer", "ours, ms", "theirs, ms", "theirs / ours", "notes")]
    for r in records:
        ends = [float(r[name]) if r[name] else None for name in ("ratio_low", "ratio_high")]
        ratio = with_interval(float(r["ratio"]), *ends, unit="x")
        times = [f"{float(r[name]) / 1e3:.3f}" for name in ("ours_us_median", "peer_us_median")]
        notes = "; ".join(note for note in ("padded" if r["padded"] else "", str(r["note"])) if note)
        rows.append((r["comparison"], r["peer"], *times, ratio, notes))
    return rows


def markdown(rows):
    head, *body = [[str(cell).replace("|", "\\|") for cell in row] for row in rows]
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    return "\n".join(lines + ["| " + " | ".join(row) + " |" for row in body]) + "\n"


def table(rows):
    head, *body = [[html.escape(str(cell)) for cell in row] for row in rows]
    line = lambda cells, tag: "<tr>" + "".join(f"<{tag}>{cell}</{tag}>" for cell in cells) + "</tr>"
    return "<table>" + line(head, "th") + "".join(line(row, "td") for row in body) + "</table>"


def check_rows(results):
    """Counts the checks of each suite."""
    rows = [("suite", "device", "passed", "failed", "skipped", "seconds")]
    for path in sorted((results / "check").glob("*.json")):
        for suite in json.loads(path.read_text())["suites"]:
            counts = [suite[name] for name in ("passed", "failed", "skipped")]
            rows.append((f"{path.stem}: {suite['name']}", suite["device"], *counts, f"{suite['seconds']:.1f}"))
    return rows


def unit_rows(plan, state):
    rows = [("unit", "ended", "seconds", "attempts", "how far, or why")]
    for unit in plan:
        entry = state.units.get(unit.name, {"status": "not run yet", "seconds": 0, "attempts": 0})
        rows.append((unit.name, entry["status"], entry["seconds"], entry["attempts"], entry.get("reason", "")))
    return rows


def draw_runs(pack, results):
    """Draws figures and page of all sweeps and tunings together; returns a sentence where that cannot be."""
    runs = [path.parent for path in sorted((results / "runs").glob("*/records.jsonl")) if '"trial"' in path.read_text()]
    runs = runs or [path.parent for path in sorted((results / "runs").glob("*/records.jsonl"))]
    if not runs:
        return "No sweep or tuning has left records yet."
    command = pack.nabla("report", *runs, "--out", results / "sweeps")
    drawn = subprocess.run(command, capture_output=True, text=True)
    return "" if drawn.returncode == 0 else f"The records could not be drawn: {drawn.stderr.strip()}"


STYLE = (
    "body{font:15px/1.5 system-ui,sans-serif;margin:2em auto;max-width:75em;padding:0 1em;color-scheme:light dark}"
    "table{border-collapse:collapse;margin:1em 0}td,th{padding:.2em .8em;border-bottom:1px solid #8884;text-align:left}"
    "img{max-width:100%}"
)


def write(pack, plan, state, results):
    """Writes every table, the figures and the page."""
    environment = json.loads((results / "environment.json").read_text())
    machine, made = environment["machine"], environment["pack"]
    rows = rows_of(results, (*shapes_for(pack.backend, pack.smoke), CLIP))
    of_machine = {"device": machine["device"], "torch": machine["peers"].get("torch", "")}
    peers = [peer_record(row) | of_machine for row in rows if row["kind"] == "peer"]
    splits = [split_record(row) for row in rows if row["kind"] == "split"]
    triton = [row for row in rows if row["kind"] == "do_bench"]
    missing = unmeasured(plan, state, rows, policies_of(thresholds_for(pack.backend, pack.smoke)))
    write_csv(results / "peers.csv", PEER_COLUMNS, peers)
    write_csv(results / "time_split.csv", SPLIT_COLUMNS, splits)
    write_csv(results / "do_bench.csv", ("shape", "policy", "peer", "time_us_median", "padded"), [
        {name: row.get(name, "") for name in ("shape", "policy", "peer", "time_us_median", "padded")} for row in triton
    ])  # fmt: skip
    undrawn = draw_runs(pack, results)
    counts = state.counts([unit.name for unit in plan])
    status = ", ".join(f"{number} {name}" for name, number in counts.items())
    facts = [("", "")] + [(name, value) for name, value in machine.items() if name != "info"] + [("commit", made["commit"])]
    skipped = [("peer", "shape", "policy", "why it was not measured")]
    skipped += missing
    convention = (
        "Ratios are medians of theirs over ours, round by round, both timed in turns in one run; intervals are "
        "distribution-free, 95 %. On a GPU every launch meets a cold second-level cache. Times by Triton's do_bench stand "
        "apart, in do_bench.csv: they follow other rules and are in no ratio."
    )
    smoke = "A test of the way on tiny inputs: its numbers say nothing about speed." if made["smoke"] else ""
    ratios = f"# Against the field\n\n{machine['device']}, commit {made['commit']}. {status}.\n{smoke}\n\n{convention}\n\n"
    ratios += markdown(ratio_table(peers)) if peers else "No peer was measured.\n"
    if missing:
        ratios += "\nNot measured:\n\n" + markdown(skipped)
    (results / "ratios.md").write_text(ratios)
    split_table = [SPLIT_COLUMNS] + [[record.get(column, "") for column in SPLIT_COLUMNS] for record in splits]
    figures = sorted((results / "sweeps").glob("figures/**/speedup_over_sparsity.svg"))
    pictures = "".join(f'<img src="{path.relative_to(results)}" alt="speedup over sparsity">' for path in figures)
    page = [
        f"<!doctype html><meta charset=utf-8><title>nabla campaign: {html.escape(machine['device'])}</title>",
        f"<style>{STYLE}</style><h1>{html.escape(machine['device'])}</h1><p>{status}. {smoke}</p>",
        f"<h2>Against the field</h2><p>{convention}</p>",
        table(ratio_table(peers)) if peers else "<p>No peer was measured.</p>",
        table(skipped) if missing else "",
        "<h2>Where our time goes</h2>" + table(split_table) if splits else "",
        "<h2>Checks</h2>" + table(check_rows(results)),
        "<h2>Sweeps and tuning</h2>" + (f"<p>{html.escape(undrawn)}</p>" if undrawn else ""),
        '<p><a href="sweeps/report.html">Every record, with figures</a></p>' + pictures if not undrawn else "",
        "<h2>Units</h2>" + table(unit_rows(plan, state)) + "<h2>Machine</h2>" + table(facts),
        f"<pre>{html.escape(machine['info'])}</pre>",
    ]
    (results / "report.html").write_text("\n".join(page) + "\n")
