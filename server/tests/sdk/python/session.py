"""What the calls share: the clients, the data, and what earlier calls made."""

import dataclasses
import json
import time

from openai import AsyncOpenAI, OpenAI

KEY = "sk-local"
QUESTION = [{"role": "user", "content": "Make a form."}]


@dataclasses.dataclass
class Session:
    url: str
    base: str
    strict: bool
    # A second server, with a key and room for one answer; none: what needs it is left out.
    guarded: str | None
    guarded_key: str | None
    # Process of the server, to look at its memory.
    pid: int | None
    file: str | None = None
    job: object = None
    tuned: str | None = None
    checkpoint: str | None = None

    def __post_init__(self):
        options = {"base_url": self.url, "api_key": KEY, "max_retries": 0}
        self.client = OpenAI(**options, _strict_response_validation=self.strict)
        self.asynchronous = lambda: AsyncOpenAI(**options, _strict_response_validation=self.strict)

    def upload(self, content, name="train.jsonl", purpose="fine-tune", **more):
        return self.client.files.create(file=(name, content), purpose=purpose, **more)

    def training_file(self):
        if self.file is None:
            self.file = self.upload(rows(10)).id
        return self.file

    def create(self, **more):
        arguments = {"model": self.base, "training_file": self.training_file()} | more
        return self.client.fine_tuning.jobs.create(**arguments)

    def until(self, job, states=("succeeded", "failed", "cancelled")):
        """Looks at a job until it is in one of these states, or over."""
        while job.status not in (*states, "succeeded", "failed", "cancelled"):
            time.sleep(0.05)
            job = self.client.fine_tuning.jobs.retrieve(job.id)
        return job

    def ask(self, model=None, client=None, **more):
        arguments = {"model": model or self.base, "messages": QUESTION, "max_tokens": 24} | more
        return (client or self.client).chat.completions.create(**arguments)


def text_of(reply):
    return reply.choices[0].message.content


def rows(count, answer="import streamlit"):
    row = {"messages": QUESTION + [{"role": "assistant", "content": answer}]}
    return ("\n".join([json.dumps(row)] * count) + "\n").encode()


def pairs(count):
    row = {
        "input": {"messages": QUESTION},
        "preferred_output": [{"role": "assistant", "content": "import streamlit"}],
        "non_preferred_output": [{"role": "assistant", "content": "print('a form')"}],
    }
    return ("\n".join([json.dumps(row)] * count) + "\n").encode()
