"""`hone prepare` against the same work in Python: time, memory, near-copies and leaks found."""

import json
import os
import pathlib
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

import logs
from engines import ROOT

HONE = ROOT / "target/release/hone"
O200K = "fb374d419588a4632f3f557e76b4b70aebbca790"


def compare(args):
    with tempfile.TemporaryDirectory(dir=ROOT / "target") as folder:
        workspace = pathlib.Path(folder, "workspace")
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


def run(command, **environment):
    """Seconds on the clock, peak memory, standard output. Who waits for this one child knows what it took."""
    started = time.perf_counter()
    child = subprocess.Popen([str(part) for part in command], stdout=subprocess.PIPE, env={**os.environ, **environment})
    out = child.stdout.read()
    _, status, usage = os.wait4(child.pid, 0)
    if status:
        sys.exit(f"{command[0]} ended with {os.waitstatus_to_exitcode(status)}")
    return {"wall": time.perf_counter() - started, "peak_mb": usage.ru_maxrss / 1024}, out


def hone(workspace):
    result, _ = run([HONE, "-C", workspace, "--quiet", "--json", "prepare", "--no-run"])
    manifest = json.loads((workspace / "data/ui_agent_openai_finetuning.manifest.json").read_text())
    rows = [row for row in manifest["rows"] if row["row"] == "positive"]
    kept = {f"{row['log'].removesuffix('.json')}#{row['iteration']}" for row in rows}
    return {**result, "kept": kept, "rows": len(manifest["rows"]), "tokens": manifest["tokens"]}


def python(folder, workspace, heldout):
    worker = ROOT / "bench/prepare_worker.py"
    result, out = run([sys.executable, worker, workspace, heldout, pathlib.Path(folder, "rows.jsonl")], TIKTOKEN_CACHE_DIR=vocabulary(folder))
    answer = json.loads(out)
    return {**result, **answer, "kept": set(answer["kept"])}


def vocabulary(folder):
    """tiktoken's file, which the crate of that name brings along: there may be no network."""
    cache = pathlib.Path(folder, "tiktoken")
    cache.mkdir(exist_ok=True)
    home = pathlib.Path(os.environ.get("CARGO_HOME", pathlib.Path.home() / ".cargo"))
    found = sorted(home.glob("registry/src/*/tiktoken-rs-*/assets/o200k_base.tiktoken"))
    if found:
        shutil.copy(found[-1], cache / O200K)
    return str(cache)


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
