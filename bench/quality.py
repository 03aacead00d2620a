"""What the fast kernels cost in quality: one dataset, trained and served with them and in f32, on the same held-out briefs."""

import contextlib
import json
import math
import random
import shutil
import statistics
import subprocess
import sys
import time
import urllib.request
import uuid

from engines import ROOT, TARGET

HONE = ROOT / "target" / "release" / "hone"
DATASET = "ui_agent_openai_finetuning.jsonl"
# Kernels of the server, precision of training.
VARIANTS = {"fast": ("auto", "auto"), "f32": ("f32", "f32")}
MODEL = "smollm2-135m-instruct"
DRAWS = 10_000


def call(url, body=None, content_type="application/json"):
    request = urllib.request.Request(url, body, {"content-type": content_type} if body else {})
    with urllib.request.urlopen(request, timeout=600) as answer:
        return json.load(answer)


@contextlib.contextmanager
def serving(workspace, kernels):
    command = [HONE, "serve", "-C", workspace, "--port", "0", "--kernels", kernels, "--json"]
    server = subprocess.Popen([str(word) for word in command], stdout=subprocess.PIPE, text=True)
    try:
        yield json.loads(server.stdout.readline())["base_url"]
    finally:
        server.terminate()
        server.wait()


def upload(base_url, path):
    mark = uuid.uuid4().hex
    head = f'--{mark}\r\ncontent-disposition: form-data; name="purpose"\r\n\r\nfine-tune\r\n'
    head += f'--{mark}\r\ncontent-disposition: form-data; name="file"; filename="{path.name}"\r\n\r\n'
    body = head.encode() + path.read_bytes() + f"\r\n--{mark}--\r\n".encode()
    return call(f"{base_url}/files", body, f"multipart/form-data; boundary={mark}")["id"]


def train(base_url, dataset, precision, epochs):
    values = {"n_epochs": epochs, "precision": precision}
    body = {
        "model": MODEL, "training_file": upload(base_url, dataset), "seed": 1,
        "method": {"type": "supervised", "supervised": {"hyperparameters": values}},
    }
    job = call(f"{base_url}/fine_tuning/jobs", json.dumps(body).encode())
    while job["status"] not in ("succeeded", "failed", "cancelled"):
        time.sleep(2)
        job = call(f"{base_url}/fine_tuning/jobs/{job['id']}")
    if job["status"] != "succeeded":
        sys.exit(f"error: training in {precision} {job['status']}: {job['error']}")
    return job["fine_tuned_model"]


def answers(name, source, args):
    """Answers of one variant's tuned model by (brief, sample)."""
    kernels, precision = VARIANTS[name]
    workspace = TARGET / "quality" / name
    shutil.rmtree(workspace, ignore_errors=True)
    workspace.mkdir(parents=True)
    for part in ("hone.toml", "briefs"):
        if (source / part).is_dir():
            shutil.copytree(source / part, workspace / part)
        elif (source / part).exists():
            shutil.copy(source / part, workspace / part)
    with serving(workspace, kernels) as base_url:
        started = time.monotonic()
        model = train(base_url, source / "data" / DATASET, precision, args.epochs)
        print(f"{name}: trained in {time.monotonic() - started:.0f} s", file=sys.stderr, flush=True)
        command = [HONE, "test", model, "-C", workspace, "--samples", args.samples]
        # Its verdict is on tuned against base, which is not the question here.
        subprocess.run([str(word) for word in command], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    rows = {}
    for path in (workspace / "data" / "trials").glob("*/results.jsonl"):
        for line in path.read_text().splitlines():
            row = json.loads(line)
            if row["arm"] == "tuned":
                rows[row["brief"], row["sample"]] = row
    return rows


def by_brief(rows, measure):
    values = {}
    for (brief, _), row in rows.items():
        values.setdefault(brief, []).append(measure(row))
    return {brief: statistics.fmean(of_brief) for brief, of_brief in values.items()}


def interval(differences):
    """95%, by the percentiles of means of briefs drawn again."""
    draw = random.Random(1)
    means = sorted(statistics.fmean(draw.choices(differences, k=len(differences))) for _ in range(DRAWS))
    return means[math.floor(0.025 * DRAWS)], means[math.ceil(0.975 * DRAWS) - 1]


def compare(args):
    rows = {name: answers(name, args.workspace, args) for name in VARIANTS}
    measures = {
        "mean score (0-10)": lambda row: row["score"],
        "runs (%)": lambda row: 100 * row["runs"],
        "ui-first (%)": lambda row: 100 * row["ui_first"],
    }
    for name, measure in measures.items():
        fast, exact = (by_brief(rows[variant], measure) for variant in VARIANTS)
        differences = [fast[brief] - exact[brief] for brief in sorted(fast.keys() & exact.keys())]
        if not differences:
            sys.exit("error: no brief was answered by both")
        low, high = interval(differences)
        print(f"{name:18} fast {statistics.fmean(fast.values()):6.2f}  f32 {statistics.fmean(exact.values()):6.2f}  "
              f"difference {statistics.fmean(differences):+.2f} [{low:+.2f}, {high:+.2f}] over {len(differences)} briefs")
