"""Workers of the engines, each a process that waits for orders, and tables of what they took."""

import json
import os
import pathlib
import statistics
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).parent.parent
TARGET = ROOT / "target" / "bench"
PYTHON = TARGET / "venv" / "bin" / "python"
EXAMPLES = ROOT / "target" / "release" / "examples"
# What each comparison runs of ours.
PROGRAMS = {
    "inference": [["-p", "hone-engine", "--example", "compare_inference"]],
    "training": [["-p", "hone-engine", "--example", "compare_training"]],
    "loss": [["-p", "hone-engine", "--example", "compare_training"]],
    "data": [["-p", "hone-cli"], ["-p", "hone", "--example", "corpus"]],
    "prepare": [["-p", "hone-cli"]],
    "quality": [["-p", "hone-cli"]],
}
# After an order: threads that spin while they wait for work go to sleep.
REST = 0.2


class Worker:
    """A process that takes one order at a time: while one works the others sleep."""

    def __init__(self, name, command, **environment):
        self.name = name
        self.process = subprocess.Popen(
            [str(word) for word in command], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            env=os.environ | environment,
        )

    def ask(self, do, **rest):
        time.sleep(REST)
        self.process.stdin.write(json.dumps({"do": do} | rest) + "\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline()
        if not answer:
            sys.exit(f"error: {self.name} has ended with {self.process.wait()}")
        return json.loads(answer)

    def close(self):
        self.process.stdin.close()
        self.process.wait()


def build(what):
    """What was built before may be of older code, whose figures these would be."""
    for program in PROGRAMS[what]:
        subprocess.run(["cargo", "build", "--release", "--locked", "--quiet", *program], cwd=ROOT, check=True)


def has(flag):
    """Whether this processor has an instruction set, by its name in /proc/cpuinfo."""
    return flag in pathlib.Path("/proc/cpuinfo").read_text().split()


def machine():
    lines = pathlib.Path("/proc/cpuinfo").read_text().splitlines()
    model = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), "unknown processor")
    sets = ("avx2", "avx512f", "avx_vnni", "avx512_vnni", "avx512_bf16", "amx_int8", "amx_bf16")
    sets = [flag for flag in sets if has(flag)]
    load = ", ".join(f"{value:.1f}" for value in os.getloadavg())
    return f"{model}, {len(os.sched_getaffinity(0))} cores, {' '.join(sets)}; load {load}"


def weights(path=None):
    if path is None:
        path = json.loads((TARGET / "setup.json").read_text())["weights"]
    return pathlib.Path(path)


def level(args):
    """Hone's kernels, as an argument, when they are forced."""
    # The best of what is left without AMX: every processor with AMX has AVX-512.
    without = "avx512" if args.without_amx and has("amx_tile") else None
    name = args.level or without
    return [name] if name else []


class Rates:
    """Rates of several contestants, a figure for each repetition."""

    def __init__(self):
        self.by_name = {}

    def add(self, name, rate):
        self.by_name.setdefault(name, []).append(rate)

    def median(self, name):
        return statistics.median(self.by_name[name])

    def best(self, names):
        return max((name for name in names if name in self.by_name), key=self.median)

    def show(self, title, unit="tok/s"):
        print(f"\n{title} ({unit}: median, least to most)")
        width = max(len(name) for name in self.by_name)
        for name in sorted(self.by_name, key=self.median, reverse=True):
            rates = self.by_name[name]
            spread = f"{min(rates):.0f} to {max(rates):.0f}"
            print(f"  {name:{width}}  {self.median(name):8.0f}  {spread}, {len(rates)} runs")


def verdict(title, ours, theirs, rates, reached=""):
    """A ratio of medians of one run, and how far single repetitions, which are neighbours in time, lie from it; and the share of the
    machine's limit that ours reached.
    """
    pairs = sorted(a / b for a, b in zip(rates.by_name[ours], rates.by_name[theirs], strict=True))
    ratio = rates.median(ours) / rates.median(theirs)
    print(f"{title:24} {ratio:6.2f} x  ({pairs[0]:.2f} to {pairs[-1]:.2f})  {ours} against {theirs}{reached}", flush=True)
    return ratio
