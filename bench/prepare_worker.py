"""What `hone prepare` does, as one writes it in Python: json, ast, datasketch, tiktoken. One process, told on the command line
where the logs are; prints seconds by step and what it kept as JSON.

    python prepare_worker.py WORKSPACE HELDOUT.jsonl OUT.jsonl
"""

import ast
import hashlib
import json
import pathlib
import re
import resource
import sys
import time

import tiktoken
from datasketch import MinHash, MinHashLSH

WORDS = re.compile(r"[a-z0-9]+")
TOKENS = re.compile(r"\w+|[^\w\s]")
COMMENTS = re.compile(r"#[^\n]*")
SYSTEM = "You are an expert UI developer. Answer with the user interface first."
clock = {}


def timed(name, since):
    clock[name] = clock.get(name, 0.0) + time.perf_counter() - since


def grams(text, n):
    words = WORDS.findall(text.lower())
    return {tuple(words[i:i + n]) for i in range(len(words) - n + 1)}


class Leaks:
    """Shared runs of 13 words, and texts of which half of the runs of three words are there."""

    def __init__(self, briefs):
        texts = [b["description"] for b in briefs] + [r for b in briefs for r in b.get("requirements", [])]
        self.long = set().union(*(grams(text, 13) for text in texts))
        self.index, self.sizes = {}, []
        for number, text in enumerate(texts):
            runs = grams(text, 3)
            self.sizes.append(len(runs))
            for run in runs:
                self.index.setdefault(run, []).append(number)

    def __call__(self, text):
        if not self.long.isdisjoint(grams(text, 13)):
            return True
        hits = {}
        for run in grams(text, 3):
            for number in self.index.get(run, ()):
                hits[number] = hits.get(number, 0) + 1
        return any(self.sizes[number] >= 6 and count >= 0.5 * self.sizes[number] for number, count in hits.items())


def main(workspace, heldout, out):
    briefs = [json.loads(line) for line in pathlib.Path(heldout).read_text().splitlines()]
    leaks, encoding = Leaks(briefs), tiktoken.get_encoding("o200k_base")
    start, candidates = time.perf_counter(), []
    for path in sorted(pathlib.Path(workspace, "data/evolutionary_logs").glob("*.json")):
        log = json.loads(path.read_text())
        for entry in log["evolution_history"]:
            run = entry["evidence"].get("run") or {}
            if entry["critique"]["overall_score"] >= 7.0 and run.get("status") == "ready":
                candidates.append((path.stem, log, entry))
    timed("read", start)
    seen, lsh, kept, hashes = set(), MinHashLSH(threshold=0.75, num_perm=128), {}, {}
    lines, counted = [], 0
    candidates.sort(key=lambda c: (c[0], -c[2]["critique"]["overall_score"]))
    for name, log, entry in candidates:
        code = "\n".join(file["content"] for file in entry["files"])
        start = time.perf_counter()
        wishes = "\n".join(log.get("requirements", []))
        leaked = leaks(code) or leaks(log["description"]) or leaks(wishes)
        timed("leaks", start)
        if leaked or kept.get(name, 0) >= 2:
            continue
        start = time.perf_counter()
        try:
            tree = ast.dump(ast.parse(code))
        except SyntaxError:
            continue
        key = hashlib.sha256(tree.encode()).digest()
        timed("parse", start)
        if key in seen:
            continue
        seen.add(key)
        start = time.perf_counter()
        tokens = TOKENS.findall(COMMENTS.sub("", code))
        print_ = MinHash(num_perm=128)
        print_.update_batch([" ".join(tokens[i:i + 5]).encode() for i in range(len(tokens) - 4)])
        like = any(hashes[other].jaccard(print_) >= 0.75 for other in lsh.query(print_))
        if not like:
            place = f"{name}#{entry['iteration']}"
            lsh.insert(place, print_)
            hashes[place] = print_
        timed("near-copies", start)
        if like:
            continue
        kept[name] = kept.get(name, 0) + 1
        start = time.perf_counter()
        answer = "\n\n".join(f"```python\n# {f['path']}\n{f['content']}```" for f in entry["files"])
        user = f"Create a Streamlit UI: {log['description']}" + "".join(f"\n- {r}" for r in log.get("requirements", []))
        row = {"messages": [{"role": "system", "content": SYSTEM}, {"role": "user", "content": user}, {"role": "assistant", "content": answer}]}
        counted += sum(len(encoding.encode_ordinary(m["content"])) + 4 for m in row["messages"]) + 3
        timed("tokens", start)
        start = time.perf_counter()
        lines.append(json.dumps(row))
        timed("write", start)
    start = time.perf_counter()
    pathlib.Path(out).write_text("\n".join(lines) + "\n")
    timed("write", start)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({"seconds": clock, "rows": len(lines), "tokens": counted, "peak_mb": peak, "kept": sorted(hashes)}))


main(*sys.argv[1:])
