"""`hone prepare` against the same work in Python: time, memory, near-copies and leaks found."""

import json
import pathlib
import statistics
import sys
import tempfile

import data
import logs
from engines import ROOT

HONE = ROOT / "target/release/hone"


def compare(args):
    with tempfile.TemporaryDirectory(dir=ROOT / "target") as folder:
        workspace = pathlib.Path(folder, "workspace")
        data.table(pathlib.Path(folder, "tiktoken"))
        truth = logs.write(workspace, args.logs, args.seed)
        heldout = pathlib.Path(folder, "heldout.jsonl")
        heldout.write_text("\n".join(json.dumps(brief) for brief in logs.heldout()) + "\n")
        size = sum(path.stat().st_size for path in workspace.rglob("*.json"))
        print(f"{args.logs} logs of {size / 1e6:.0f} MB: {len(truth['twins'])} near-copies and {len(truth['leaks'])} leaks planted")
        ours, theirs = [], []
        for _ in range(args.repeat):
            ours.append(hone(workspace))
            if not args.without_python:
                theirs.append(python(folder, workspace, heldout))
        print_side("hone", ours, truth)
        if theirs:
            print_side("Python", theirs, truth)
            for step, seconds in theirs[-1]["seconds"].items():
                print(f"    {step:12} {seconds:6.1f} s")
            ratio = statistics.median(r["wall"] for r in theirs) / statistics.median(r["wall"] for r in ours)
            print(f"hone takes a {ratio:.1f}th of the time")


def hone(workspace):
    command = [HONE, "-C", workspace, "--quiet", "--json", "prepare", "--no-run"]
    _, wall, _, peak_mb = data.run(command, workspace)
    manifest = json.loads((workspace / "data/ui_agent_openai_finetuning.manifest.json").read_text())
    rows = [row for row in manifest["rows"] if row["row"] == "positive"]
    kept = {f"{row['log'].removesuffix('.json')}#{row['iteration']}" for row in rows}
    return {"wall": wall, "peak_mb": peak_mb, "kept": kept, "rows": len(manifest["rows"])}


def python(folder, workspace, heldout):
    worker = ROOT / "bench/prepare_worker.py"
    command = [sys.executable, worker, workspace, heldout, pathlib.Path(folder, "rows.jsonl")]
    answer, wall, _, peak_mb = data.run(command, folder)
    return {**answer, "wall": wall, "peak_mb": peak_mb, "kept": set(answer["kept"])}


def print_side(name, runs, truth):
    walls = [run["wall"] for run in runs]
    kept = runs[-1]["kept"]
    twins = [pair for pair in truth["twins"]]
    both = sum(f"{a}#{i}" in kept and f"{b}#{j}" in kept for a, i, b, j, _ in twins)
    print(
        f"{name:7} {statistics.median(walls):6.2f} s ({min(walls):.2f} to {max(walls):.2f}), {runs[-1]['peak_mb']:.0f} MB, {runs[-1]['rows']} rows; "
        f"near-copies found {len(twins) - both} of {len(twins)}; leaks that got through {leaked(kept, truth)} of {len(truth['leaks'])}"
    )


def leaked(kept, truth):
    """Planted leaks of which a row is left."""
    through = 0
    for log, iteration, *_ in truth["leaks"]:
        places = [f"{log}#{iteration}"] if iteration else [f"{log}#{n}" for n in (1, 2, 3)]
        through += any(place in kept for place in places)
    return through
