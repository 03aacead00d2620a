"""Prompts and decoding: Hone against llama.cpp."""

import itertools
import os
import subprocess
import sys

from engines import EXAMPLES, PYTHON, ROOT, TARGET, Rates, Worker, has, level, verdict, weights

PROMPT, CONTEXT, STEPS, BATCHES = 512, 128, 32, (1, 8, 16)
METRICS = ["prompt", *(f"decode, batch {batch}" for batch in BATCHES)]
FORMATS = ["as shipped", "q4_0", "q8_0", "bf16", "f16"]


def ids(count, seed):
    """Speed does not depend on which tokens these are."""
    return [100 + (i * 7919 + seed * 104_729) % 40_000 for i in range(count)]


def measure(worker, metric, more, scale=1):
    """Tokens per second; `scale` makes the work smaller, to choose by."""
    if metric == "prompt":
        answer = worker.ask("prompt", ids=ids(PROMPT // scale, 1), **more)
        return PROMPT // scale / answer["seconds"]
    batch = int(metric.split()[-1])
    prompts = [ids(CONTEXT // scale, seed) for seed in range(batch)]
    then = [ids(STEPS // scale, seed + 100) for seed in range(batch)]
    return batch * (STEPS // scale) / worker.ask("decode", prompts=prompts, then=then, **more)["seconds"]


def builds(without_amx):
    made = sorted(path.parent.name.removeprefix("llama-") for path in TARGET.glob("llama-*/made"))
    # The build of its own choice uses AMX where there is any.
    return [name for name in made if not (without_amx and has("amx_int8") and name in ("native", "amx"))]


def llama(build, source, **environment):
    command = [PYTHON, ROOT / "bench" / "llama_worker.py", source]
    path = os.pathsep.join([str(TARGET / f"llama-{build}"), str(ROOT / "bench")])
    return Worker(f"llama.cpp {build}", command, PYTHONPATH=path, **environment)


def formats(source, build):
    """The weights in every format that is tried, made by llama.cpp itself."""
    files = {"as shipped": source}
    for name in FORMATS[1:]:
        files[name] = TARGET / f"{source.stem}.{name}.gguf"
        if not files[name].exists():
            command = [PYTHON, ROOT / "bench" / "llama_worker.py", "quantize", source, files[name], name]
            environment = os.environ | {"PYTHONPATH": str(TARGET / f"llama-{build}")}
            subprocess.run([str(word) for word in command], check=True, env=environment)
    return files


def choose(files, names, repeat=2):
    """Every build, format, number of threads and kind of attention on a smaller task: the best two for each metric."""
    rates = {metric: Rates() for metric in METRICS}
    cores = len(os.sched_getaffinity(0))
    for build, (form, path) in itertools.product(names, files.items()):
        worker = llama(build, path)
        for threads, flash in itertools.product(sorted({1, cores}), (False, True)):
            name = f"llama.cpp {build}, {form}, {threads} threads, flash {'on' if flash else 'off'}"
            for metric, _ in itertools.product(METRICS, range(repeat)):
                more = {"threads": threads, "flash": flash}
                rates[metric].add((name, build, form, threads, flash), measure(worker, metric, more, scale=4))
        worker.close()
        print(f"tried {build}, {form}", file=sys.stderr, flush=True)
    chosen = {}
    for metric, seen in rates.items():
        ordered = sorted(seen.by_name, key=seen.median, reverse=True)
        shown = Rates()
        shown.by_name = {contestant[0]: seen.by_name[contestant] for contestant in ordered}
        shown.show(f"choosing llama.cpp's settings: {metric}, a quarter of the work")
        chosen[metric] = ordered[:2]
    return chosen


def compare(args):
    source = weights(args.weights)
    names = builds(args.without_amx)
    files = formats(source, names[0])
    chosen = choose(files, names)
    hone = Worker("hone", [EXAMPLES / "compare_inference", source, *level(args)])
    about = hone.ask("about")
    assert not (args.without_amx and about["system"] == "amx"), "AMX is used"
    us = f"hone, {about['system']}, {about['threads']} threads"
    workers = {}
    for contestants in chosen.values():
        for contestant in contestants:
            key = contestant[1:3]
            workers.setdefault(key, None)
    workers = {(build, form): llama(build, files[form]) for build, form in workers}
    for worker in workers.values():
        # A worker that still loads its weights would take time from the first that is measured.
        worker.ask("about")

    rates = {metric: Rates() for metric in METRICS}
    for repetition in range(args.repeat):
        for metric in METRICS:
            rates[metric].add(us, measure(hone, metric, {}))
            for name, build, form, threads, flash in chosen[metric]:
                more = {"threads": threads, "flash": flash}
                rates[metric].add(name, measure(workers[build, form], metric, more))
        print(f"repetition {repetition + 1} of {args.repeat}", file=sys.stderr, flush=True)
    for metric in METRICS:
        rates[metric].show(metric)

    agree(hone, llama(names[0], source))
    print("\npeak memory")
    print(f"  {hone.ask('peak')['mb']:6.0f} MB  {us}")
    for (build, form), worker in workers.items():
        print(f"  {worker.ask('peak')['mb']:6.0f} MB  llama.cpp {build}, {form}, with Python")
    limits = hone.ask("limits")
    print("\nHone against the fastest llama.cpp, ratios of this run, and the share of the machine's limit")
    ratios = {}
    for metric in METRICS:
        theirs = rates[metric].best([contestant[0] for contestant in chosen[metric]])
        ratios[metric] = verdict(metric, us, theirs, rates[metric], reached(metric, rates[metric].median(us), limits))
    for worker in (hone, *workers.values()):
        worker.close()
    return ratios


def reached(metric, rate, limits):
    """Shares of what the machine could do: of products of bytes, and where tokens are written one by one, of reading the weights."""
    shares = []
    operations = limits["operations"]
    if metric != "prompt":
        passes = rate / int(metric.split()[-1])
        reading = limits["reading"]
        shares.append(f"{100 * passes * limits['token_bytes'] / reading:.0f}% of reading at {reading / 1e9:.0f} GB/s")
        operations += limits["head_operations"]
    if limits["bytes"]:
        shares.append(f"{100 * rate * operations / limits['bytes']:.0f}% of {limits['bytes'] / 1e12:.1f} TOP/s in bytes")
    return f"; {', '.join(shares)}" if shares else ""


def agree(hone, other, prompts=20):
    """That both compute the same model: the likeliest next token after the same prompts, by the same weights."""
    settings = {"threads": len(os.sched_getaffinity(0)), "flash": True}
    same = 0
    for seed in range(prompts):
        prompt = ids(24, seed)
        same += hone.ask("prompt", ids=prompt)["top"] == other.ask("prompt", ids=prompt, **settings)["top"]
    other.close()
    print(f"\nthe likeliest next token is the same after {same} of {prompts} prompts of arbitrary tokens")
