"""A session with the `openai` command of the Python package, which ends with version 2.33: it sends the whole local path as
the name of a file, and hyperparameters where they were before there were methods.
"""

import argparse
import json
import pathlib
import re
import subprocess
import sys
import tempfile
import time

import openai

from report import Report
from session import rows

PROGRAM = pathlib.Path(sys.executable).with_name("openai")


class CommandLine:
    def __init__(self, url, base, folder):
        # The command joins its paths to the address as they are, so that has to end in a slash.
        self.url, self.base, self.folder = url.rstrip("/") + "/", base, folder
        self.job = None

    def run(self, *arguments):
        command = [PROGRAM, "-b", self.url, "-k", "sk-local", "api", *arguments]
        done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL)
        if done.returncode != 0:
            raise RuntimeError(done.stderr.strip())
        return done.stdout

    def ask(self, *arguments):
        return json.loads(self.run(*arguments))

    def ids(self, *arguments):
        """Of a list that the command prints as one object after another, not as a list."""
        return re.findall(r'^  "id": "(.*)",$', self.run(*arguments), re.MULTILINE)

    def refused(self, *arguments):
        try:
            return f"not refused: {self.run(*arguments)}"
        except RuntimeError as error:
            return str(error)

    def upload(self, name, content):
        path = self.folder / name
        path.write_bytes(content)
        return self.ask("files.create", "-f", str(path), "-p", "fine-tune")

    def finish(self, job):
        while job["status"] not in ("succeeded", "failed", "cancelled"):
            time.sleep(0.2)
            job = self.ask("fine_tuning.jobs.retrieve", "-i", job["id"])
        return job


def models(line, report):
    """1 models"""
    report.check("list", line.base in line.ids("models.list"))
    report.check("retrieve", line.ask("models.retrieve", "-i", line.base)["id"] == line.base)
    refusal = line.refused("models.retrieve", "-i", "ft:x:y::z")
    report.check("retrieve unknown", "404" in refusal, refusal)


def files(line, report):
    """2 files"""
    file = line.upload("cli.jsonl", rows(10))
    report.check("the name has no path", file["filename"] == "cli.jsonl", file)
    # Its `files.retrieve` and `files.delete` refuse every argument before they ask anybody.
    report.check("list", line.ids("files.list")[0] == file["id"], file)
    (line.folder / "bad.jsonl").write_bytes(b"hello\n")
    refusal = line.refused("files.create", "-f", str(line.folder / "bad.jsonl"), "-p", "fine-tune")
    report.check("no JSON lines", "400" in refusal and "line 1" in refusal, refusal)


def jobs(line, report):
    """6 jobs"""
    train, valid = line.upload("train.jsonl", rows(10))["id"], line.upload("valid.jsonl", rows(2))["id"]
    create = lambda *more: line.ask("fine_tuning.jobs.create", "-m", line.base, "-F", train, *more)
    hyperparameters = json.dumps({"n_epochs": 3, "learning_rate_multiplier": 10, "batch_size": 1})
    job = line.finish(create("-V", valid, "-s", "cli", "-H", hyperparameters))
    line.job = job
    report.check("succeeded", job["status"] == "succeeded", job)
    report.check("hyperparameters", job["hyperparameters"]["n_epochs"] == 3, job)
    report.check("model id", f"ft:{line.base}:local:cli:" in job["fine_tuned_model"], job)
    listed = [job["id"] for job in line.ask("fine_tuning.jobs.list", "-l", "1")["data"]]
    report.check("list", listed == [job["id"]], listed)
    events = line.ask("fine_tuning.jobs.list_events", "-i", job["id"], "-l", "3")["data"]
    report.check("events", len(events) == 3 and "completed" in events[0]["message"], events)
    older = line.ask("fine_tuning.jobs.list_events", "-i", job["id"], "-a", events[-1]["id"])["data"]
    report.check("events after", older and older[0]["id"] not in [event["id"] for event in events], older)

    few = line.upload("few.jsonl", rows(9))["id"]
    failed = line.finish(line.ask("fine_tuning.jobs.create", "-m", line.base, "-F", few))
    report.check("failed with a reason", failed["error"]["code"] == "invalid_n_examples", failed)
    train = line.upload("long.jsonl", rows(100))["id"]
    long = create("-H", '{"n_epochs": 50}')
    cancelled = line.ask("fine_tuning.jobs.cancel", "-i", long["id"])
    report.check("cancel", cancelled["status"] == "cancelled", cancelled)
    refusal = line.refused("fine_tuning.jobs.cancel", "-i", long["id"])
    report.check("cancel again", "400" in refusal, refusal)
    refusal = line.refused("fine_tuning.jobs.create", "-m", line.base, "-F", "file-nobody")
    report.check("unknown file", "400" in refusal, refusal)


def chat(line, report):
    """10 chat"""
    ask = lambda model, *more: line.run(
        "chat.completions.create", "-m", model, "-g", "user", "Make a form.", "-M", "24", "-t", "0", *more
    )
    tuned = line.job["fine_tuned_model"]
    base_says, tuned_says = ask(line.base), ask(tuned)
    report.check("training shows", base_says != tuned_says, (base_says, tuned_says))
    report.check("streamed", ask(tuned, "--stream").strip() == tuned_says.strip(), tuned_says)
    report.check("delete the tuned model", line.ask("models.delete", "-i", tuned)["deleted"])
    refusal = line.refused("chat.completions.create", "-m", tuned, "-g", "user", "x")
    report.check("it is gone", "404" in refusal, refusal)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("url")
    parser.add_argument("base", help="a model that can be trained in moments")
    args = parser.parse_args()
    report = Report()
    with tempfile.TemporaryDirectory() as folder:
        line = CommandLine(args.url, args.base, pathlib.Path(folder))
        for call in (models, files, jobs, chat):
            report.run(call, line)
    report.close(f"the command line of openai {openai.__version__}")


if __name__ == "__main__":
    main()
