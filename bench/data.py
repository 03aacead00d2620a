"""`hone validate` and `hone cost` beside the Python that a user would write, on the same file.

The other side is a process of its own: `json`, the checks of OpenAI's cookbook, `tiktoken`, `ast.parse`:

    python data.py validate|cost FILE
"""

import ast
import collections
import json
import os
import pathlib
import re
import subprocess
import sys
import time

MOST_EPOCHS, LEAST_EPOCHS, TARGET_EPOCHS = 25, 1, 3
LEAST_EXAMPLES, MOST_EXAMPLES = 100, 25_000
CONTEXT = 65_536


def format_errors(rows):
    """The checks of the cookbook's notebook, by line."""
    errors = collections.defaultdict(list)
    for line, row in enumerate(rows, 1):
        if not isinstance(row, dict):
            errors["data_type"].append(line)
            continue
        messages = row.get("messages", None)
        if not messages:
            errors["missing_messages_list"].append(line)
            continue
        for message in messages:
            if "role" not in message or "content" not in message:
                errors["message_missing_key"].append(line)
            if any(key not in ("role", "content", "name", "function_call", "weight") for key in message):
                errors["message_unrecognized_key"].append(line)
            if message.get("role", None) not in ("system", "user", "assistant", "function"):
                errors["unrecognized_role"].append(line)
            content = message.get("content", None)
            if (not content and not message.get("function_call", None)) or not isinstance(content, str):
                errors["missing_content"].append(line)
        if not any(message.get("role", None) == "assistant" for message in messages):
            errors["example_missing_assistant_message"].append(line)
    return errors


def tokens_of(encoding, messages):
    tokens = 3
    for message in messages:
        tokens += 3
        for key, value in message.items():
            tokens += len(encoding.encode_ordinary(value))
            if key == "name":
                tokens += 1
    return tokens


BLOCK = re.compile(r"^```(\w*)[^\n]*\n(.*?)^```", re.MULTILINE | re.DOTALL)


def code_errors(rows):
    """Rows whose Python does not parse, and rows that begin with another language."""
    broken, config_first = [], []
    for line, row in enumerate(rows, 1):
        for message in row["messages"]:
            if message["role"] != "assistant":
                continue
            blocks = BLOCK.findall(message["content"])
            if blocks and (blocks[0][0] != "python" or "import streamlit" not in blocks[0][1]):
                config_first.append(line)
            for language, code in blocks:
                if language == "python":
                    try:
                        ast.parse(code)
                    except SyntaxError:
                        broken.append(line)
    return broken, config_first


class Parts:
    """Seconds of each part of the work."""

    def __init__(self):
        self.seconds, self.since = {}, time.perf_counter()

    def end(self, name):
        now = time.perf_counter()
        self.seconds[name], self.since = now - self.since, now


def python_side(what, file):
    import tiktoken

    parts = Parts()
    encoding = tiktoken.get_encoding("o200k_base")
    parts.end("table")
    with open(file, encoding="utf-8") as lines:
        rows = [json.loads(line) for line in lines]
    parts.end("json")
    found = {"examples": len(rows)}
    if what == "validate":
        found["errors"] = sum(len(lines) for lines in format_errors(rows).values())
        parts.end("checks")
    tokens = [tokens_of(encoding, row["messages"]) for row in rows]
    found["tokens"] = sum(tokens)
    parts.end("tokens")
    if what == "validate":
        broken, config_first = code_errors(rows)
        found |= {"broken": len(broken), "config_first": len(config_first)}
        parts.end("code")
        seen = collections.Counter(json.dumps(row, sort_keys=True) for row in rows)
        found["duplicates"] = sum(count - 1 for count in seen.values())
        parts.end("duplicates")
    else:
        epochs = TARGET_EPOCHS
        if len(rows) * epochs < LEAST_EXAMPLES:
            epochs = min(MOST_EPOCHS, LEAST_EXAMPLES // len(rows))
        elif len(rows) * epochs > MOST_EXAMPLES:
            epochs = max(LEAST_EPOCHS, MOST_EXAMPLES // len(rows))
        found |= {"epochs": epochs, "billable": epochs * sum(min(CONTEXT, count) for count in tokens)}
        parts.end("cost")
    print(json.dumps({"found": found, "parts": parts.seconds}))


def run(command, cwd):
    """Its answer, seconds on the clock and of CPU, and MB at most."""
    start = time.perf_counter()
    with subprocess.Popen([str(word) for word in command], stdout=subprocess.PIPE, cwd=cwd) as process:
        output = process.stdout.read()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    taken = time.perf_counter() - start
    if process.returncode != 0:
        sys.exit(f"error: {command[0]} has ended with {process.returncode}: {output[-500:]!r}")
    return json.loads(output), taken, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024


def table(folder):
    """tiktoken's table where it looks for it, from the crate that carries it: nothing is downloaded."""
    crates = pathlib.Path(os.environ.get("CARGO_HOME", pathlib.Path.home() / ".cargo"))
    found = sorted(crates.glob("registry/src/*/tiktoken-rs-*/assets/o200k_base.tiktoken"))
    if not found:
        sys.exit("error: the table of o200k_base is not there: `cargo fetch` first")
    folder.mkdir(parents=True, exist_ok=True)
    # The SHA-1 of the address that tiktoken would load.
    (folder / "fb374d419588a4632f3f557e76b4b70aebbca790").write_bytes(found[-1].read_bytes())
    os.environ["TIKTOKEN_CACHE_DIR"] = str(folder)


def corpus(folder, rows):
    file = folder / f"rows-{rows}.jsonl"
    if not file.exists():
        import engines

        with open(file, "wb") as to:
            subprocess.run([engines.EXAMPLES / "corpus", str(rows)], stdout=to, check=True)
    return file


def compare(args):
    import engines

    folder = engines.TARGET / "data"
    folder.mkdir(parents=True, exist_ok=True)
    table(folder / "tiktoken")
    file = corpus(folder, args.rows)
    print(f"{file.name}: {file.stat().st_size / 1e6:.0f} MB, {args.rows} rows")
    hone = engines.ROOT / "target" / "release" / "hone"
    for what, needed in (("validate", 20), ("cost", 10)):
        rates, cpu, memory = engines.Rates(), collections.defaultdict(list), collections.defaultdict(int)
        for _ in range(args.repeat):
            sides = {
                "hone": [hone, what, file, "--model", "gpt-4.1", "--json"],
                "python": [sys.executable, __file__, what, file],
            }
            found = {}
            for name, command in sides.items():
                found[name], seconds, used, most = run(command, folder)
                rates.add(name, args.rows / seconds)
                cpu[name].append(used)
                memory[name] = max(memory[name], most)
            agree(what, found["hone"], found["python"]["found"])
        rates.show(what, "rows/s")
        parts = ", ".join(f"{name} {seconds:.1f}" for name, seconds in found["python"]["parts"].items())
        print(f"  python's seconds of the last run: {parts}")
        for name in ("hone", "python"):
            print(f"  {name:6}  {min(cpu[name]):6.2f} s CPU at least  {memory[name]:6.0f} MB at most")
        print(f"  CPU: {min(cpu['python']) / min(cpu['hone']):.1f} x")
        engines.verdict(f"{what} (wanted: {needed} x)", "hone", "python", rates)
    flat(hone, file, folder)


def agree(what, ours, theirs):
    """Both counted the same."""
    same = {"examples": ours["examples"] == theirs["examples"]}
    if what == "validate":
        same |= {
            "tokens": ours["tokens"] == theirs["tokens"],
            "broken": ours["code"]["does_not_parse"] == theirs["broken"],
            "duplicates": ours["duplicates"] == theirs["duplicates"],
        }
    else:
        same |= {"tokens": ours["tokens"]["o200k_base"] == theirs["tokens"], "epochs": ours["epochs"] == theirs["epochs"]}
    if not all(same.values()):
        sys.exit(f"error: the two do not agree: {same}\n{ours}\n{theirs}")


def flat(hone, file, folder):
    """Memory of a file ten times as large, through stdin so that it need not be written."""
    small = run([hone, "validate", file, "--model", "gpt-4.1", "--json"], folder)[3]
    script = f"for n in 1 2 3 4 5 6 7 8 9 10; do cat '{file}'; done | '{hone}' validate - --model gpt-4.1 --json"
    answer, seconds, _, large = run(["bash", "-c", script], folder)
    rows = answer["examples"]
    print(f"memory: {small:.0f} MB for the file, {large:.0f} MB for ten of it ({rows} rows in {seconds:.1f} s)")


if __name__ == "__main__":
    python_side(*sys.argv[1:])
