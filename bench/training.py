"""Training, and the loss curve: Hone against PyTorch with PEFT."""

import itertools
import json
import sys
import tempfile

from engines import EXAMPLES, PYTHON, ROOT, Rates, Worker, level, verdict, weights

BATCH, STEPS = 4, 4
# Losses are compared step by step; runs drift apart, since every step starts from the rounding of the last one.
TOLERANCE = 0.002


def rows(count):
    """Conversations as a fine-tuning file has them: a brief, and source text of about the length of an app."""
    lines = (ROOT / "lib/src/brief/train.jsonl").read_text().splitlines()
    briefs = [json.loads(line)["description"] for line in lines]
    sources = sorted((ROOT / "docs/design/critic-apps").glob("*/app.py"))
    lines = "".join(source.read_text() for source in sources).splitlines(keepends=True)
    answer = lambda n: "".join((lines * 2)[n * 17 % len(lines):][:60])
    return [{"prompt": briefs[n % len(briefs)], "completion": answer(n)} for n in range(count)]


def examples(hone, count):
    """Rows as tokens, each cut to a length of its own: lengths tell later in which order they were seen."""
    rendered = hone.ask("render", rows=rows(count))["examples"]
    cut = []
    for n, row in enumerate(rendered):
        length = 240 + n * 37 % 120
        assert len(row["ids"]) >= length, f"row {n} has {len(row['ids'])} tokens"
        cut.append({"ids": row["ids"][:length], "trained": row["trained"][:length]})
    return cut


def hone_worker(args, precision):
    command = [EXAMPLES / "compare_training", weights(args.weights), precision, *level(args)]
    return Worker(f"hone {precision}", command)


def torch_worker(args, precision):
    environment = {"ONEDNN_MAX_CPU_ISA": "AVX512_CORE_BF16"} if args.without_amx else {}
    command = [PYTHON, ROOT / "bench" / "torch_worker.py", weights(args.weights), precision]
    return Worker(f"PyTorch {precision}", command, **environment)


def hone_rate(worker, data, steps):
    """Tokens and operations per second. The first step has the run's start in it and the last one the checkpoint: neither counts."""
    with tempfile.TemporaryDirectory() as folder:
        rows = data[:BATCH * (steps + 2)]
        settings = {"batch": BATCH, "learning_rate": 1e-3, "warmup": 3, "seed": 1, "folder": folder}
        answer = worker.ask("train", examples=rows, **settings)
    seconds = sum(answer["seconds"][1:-1])
    return sum(answer["tokens"][1:-1]) / seconds, sum(answer["operations"][1:-1]) / seconds, answer["peak_mb"]


def torch_rate(worker, data, steps, padded, picked):
    answer = worker.ask("train", examples=data, batch=BATCH, rates=[1e-3] * (steps + 1), padded=padded, picked=picked)
    seen = data[BATCH:BATCH * (steps + 1)]
    return sum(len(row["ids"]) for row in seen) / sum(answer["seconds"][1:]), answer


def label(precision, padded, picked):
    rows, head = "padded" if padded else "one by one", "trained tokens" if picked else "all tokens"
    return f"PyTorch {precision}, {rows}, logits of {head}"


def compare(args):
    ours = {precision: hone_worker(args, precision) for precision in ("f32", "bf16")}
    for precision, worker in ours.items():
        system = worker.ask("about")["system"]
        assert not (args.without_amx and "amx" in system), f"AMX is used: {system}"
        print(f"hone {precision} computes in {system}")
    theirs = {precision: torch_worker(args, precision) for precision in ("f32", "bf16")}
    data = examples(ours["f32"], BATCH * (STEPS + 2))

    tried = Rates()
    ways = list(itertools.product(theirs, (True, False), (True, False)))
    for precision, padded, picked in ways:
        rate, _ = torch_rate(theirs[precision], data, 1, padded, picked)
        tried.add(label(precision, padded, picked), rate)
        print(f"tried {label(precision, padded, picked)}", file=sys.stderr, flush=True)
    tried.show("choosing PyTorch's settings, one step after the first")
    finalists = []
    for precision in theirs:
        same = [way for way in ways if way[0] == precision]
        same.sort(key=lambda way: tried.median(label(*way)), reverse=True)
        finalists += same[:2]

    rates, useful, peaks = Rates(), Rates(), {}
    for repetition in range(args.repeat):
        for precision, worker in ours.items():
            rate, operations, peak = hone_rate(worker, data, STEPS)
            rates.add(f"hone {precision}", rate)
            useful.add(f"hone {precision}", operations)
            peaks[f"hone {precision}"] = f"{peak:6.0f} MB"
        for precision, padded, picked in finalists:
            name = label(precision, padded, picked)
            rate, answer = torch_rate(theirs[precision], data, STEPS, padded, picked)
            rates.add(name, rate)
            bare = f"{answer['bare_mb']:.0f} MB of them Python and PyTorch themselves"
            peaks[name] = f"{answer['peak_mb']:6.0f} MB, {bare}"
        print(f"repetition {repetition + 1} of {args.repeat}", file=sys.stderr, flush=True)
    rates.show("training")
    print("\npeak memory")
    for name, peak in peaks.items():
        print(f"  {peak}  {name}")
    print("\nHone against the fastest PyTorch, ratios of this run, and the share of the machine's limit")
    us = rates.best([f"hone {precision}" for precision in ours])
    precision = us.removeprefix("hone ")
    limit = ours[precision].ask("limits")[precision]
    share = f"; {100 * useful.median(us) / limit:.0f}% of {limit / 1e9:.0f} GFLOP/s in {precision}" if limit else ""
    for precision in theirs:
        best = rates.best([label(*way) for way in finalists if way[0] == precision])
        verdict(f"training, {precision}", us, best, rates, share)
    for worker in (*ours.values(), *theirs.values()):
        worker.close()


def loss(args):
    """The same data, first adapter, order and learning rates in f32: the losses of every step side by side."""
    hone, torch = hone_worker(args, "f32"), torch_worker(args, "f32")
    steps = args.steps
    data = examples(hone, steps)
    settings = {"batch": 1, "warmup": 3, "seed": 1}
    with tempfile.TemporaryDirectory() as first, tempfile.TemporaryDirectory() as folder:
        # A step that moves nothing writes down the adapter that a run begins with.
        hone.ask("train", examples=data[:1], learning_rate=1e-30, folder=first, **settings)
        ours = hone.ask("train", examples=data, learning_rate=1e-3, folder=folder, **settings)
        by_length = {len(row["ids"]): row for row in data}
        order = [by_length[tokens] for tokens in ours["tokens"]]
        start = f"{first}/checkpoint-000001"
        theirs = torch.ask(
            "train", examples=order, batch=1, rates=ours["rates"], padded=False, picked=True, adapter=start
        )
    print("\nstep  tokens      Hone   PyTorch  difference")
    off = 0.0
    curve = zip(ours["tokens"], ours["losses"], theirs["losses"], strict=True)
    for step, (tokens, a, b) in enumerate(curve, 1):
        off = max(off, abs(a - b) / theirs["losses"][0])
        print(f"{step:4}  {tokens:6}  {a:8.5f}  {b:8.5f}  {a - b:+.6f}")
    within = off <= TOLERANCE
    limit = f"{'within' if within else 'OVER'} {100 * TOLERANCE}%"
    print(f"\nlargest difference: {100 * off:.4f}% of the first loss, {limit}")
    for worker in (hone, torch):
        worker.close()
    return within
