"""Chat, responses and batches with the base model, the tuned one and a checkpoint."""

import asyncio
import json
import math
import threading
import time
from typing import Literal

import openai
import pydantic

from session import QUESTION, rows, text_of


class Form(pydantic.BaseModel):
    kind: Literal["form", "table"]
    wide: bool
    columns: Literal[1, 2, 3]


def chat(session, report):
    """10 chat"""
    ask = session.ask
    models = (session.base, session.tuned, session.checkpoint)
    texts = {model: text_of(ask(model, temperature=0)) for model in models}
    report.check("training shows", texts[session.tuned] != texts[session.base] != texts[session.checkpoint], texts)
    report.check("greedy repeats", text_of(ask(session.tuned, temperature=0)) == texts[session.tuned])
    report.check("a seed repeats", text_of(ask(seed=5)) == text_of(ask(seed=5)))
    report.check("the alias", ask("ui-agent").model == session.base)
    two = ask(n=2, seed=1)
    report.check("n", [choice.index for choice in two.choices] == [0, 1], two)
    report.check("n differ", two.choices[0].message.content != two.choices[1].message.content, two)
    usage = two.usage
    report.check("usage", usage.total_tokens == usage.prompt_tokens + usage.completion_tokens > 0, usage)
    short = ask(max_tokens=None, max_completion_tokens=3, seed=1)
    seen = (short.choices[0].finish_reason, short.usage.completion_tokens)
    report.check("max_completion_tokens", seen == ("length", 3), short)
    whole = text_of(ask(seed=9))
    cut = whole.split(whole[5:8])[0]
    stopped = ask(seed=9, stop=[whole[5:8]])
    report.check("stop", (text_of(stopped), stopped.choices[0].finish_reason) == (cut, "stop"), stopped)
    report.check("stop as one string", text_of(ask(seed=9, stop=whole[5:8])) == cut)
    parts = [{"role": "user", "content": [{"type": "text", "text": "Make a form."}]}]
    report.check("content in parts", text_of(ask(seed=9, messages=parts)) == whole)
    for role in ("system", "developer"):
        told = ask(messages=[{"role": role, "content": "Be brief."}] + QUESTION)
        report.check(role, told.usage.prompt_tokens > usage.prompt_tokens, told.usage)
    report.refused("temperature 3", openai.BadRequestError, lambda: ask(temperature=3), param="temperature")
    report.refused("no messages", openai.BadRequestError, lambda: ask(messages=[]), param="messages")
    long = QUESTION[:0] + [{"role": "user", "content": "x" * 20_000}]
    code = "context_length_exceeded"
    report.refused("too long", openai.BadRequestError, lambda: ask(messages=long), code=code)
    for stream in (False, True):
        unknown = lambda: ask("nobody", stream=stream)
        report.refused(f"unknown model, stream={stream}", openai.NotFoundError, unknown, code="model_not_found")


def logprobs(session, report):
    """10 logprobs"""
    reply = session.ask(temperature=0, logprobs=True, top_logprobs=3)
    tokens = reply.choices[0].logprobs.content
    report.check("one a token", len(tokens) in (reply.usage.completion_tokens, reply.usage.completion_tokens - 1), reply)
    text = b"".join(bytes(token.bytes) for token in tokens).decode(errors="replace")
    report.check("they spell the answer", text.startswith(text_of(reply)[:4]), (text, text_of(reply)))
    for token in tokens:
        top = [alternative.logprob for alternative in token.top_logprobs]
        ordered = top == sorted(top, reverse=True) and len(top) == 3
        mass = sum(math.exp(logprob) for logprob in top)
        # Greedy: what is said is what is likeliest.
        if not (ordered and mass <= 1.000001 and math.isclose(token.logprob, top[0], abs_tol=1e-4)):
            report.fail("top_logprobs", token)
            break
    else:
        report.check("top_logprobs", True)
    chunks = list(session.ask(temperature=0, logprobs=True, stream=True))
    streamed = [token for chunk in chunks for choice in chunk.choices if choice.logprobs for token in choice.logprobs.content]
    report.check("streamed", [token.token for token in streamed] == [token.token for token in tokens], streamed)
    report.refused("top_logprobs 21", openai.BadRequestError, lambda: session.ask(logprobs=True, top_logprobs=21))


def streaming(session, report):
    """11 streaming"""
    whole = text_of(session.ask(seed=9))
    for usage in (False, True):
        options = {"stream_options": {"include_usage": True}} if usage else {}
        chunks = list(session.ask(seed=9, stream=True, **options))
        text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
        report.check(f"the same text, usage={usage}", text == whole, (text, whole))
        report.check("one id", len({chunk.id for chunk in chunks}) == 1)
        report.check("role first", chunks[0].choices[0].delta.role == "assistant", chunks[0])
        reasons = [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices]
        report.check("a reason at the end only", reasons[-1] and not any(reasons[:-1]), reasons)
        bare = [chunk for chunk in chunks if not chunk.choices]
        report.check(f"usage={usage}", len(bare) == usage, chunks[-1])
        if usage:
            report.check("its figures", chunks[-1].usage.completion_tokens > 0, chunks[-1])
    with session.client.chat.completions.stream(
        model=session.base, messages=QUESTION, max_tokens=24, seed=9
    ) as stream:
        kinds = {event.type for event in stream}
        report.check("helper's events", {"chunk", "content.delta", "content.done"} <= kinds, kinds)
        report.check("helper's text", text_of(stream.current_completion_snapshot) == whole)
    two = list(session.ask(seed=9, n=2, stream=True))
    report.check("n", {choice.index for chunk in two for choice in chunk.choices} == {0, 1}, two[-1])
    left = session.ask(stream=True, max_tokens=4000)
    next(iter(left))
    left.close()
    report.check("goes on after one who left", text_of(session.ask(seed=9)) == whole)


def schema(session, report):
    """11 answers in a form"""
    for model in (session.base, session.tuned):
        reply = session.client.chat.completions.parse(
            model=model, messages=QUESTION, response_format=Form, max_tokens=200, temperature=1.5, seed=4
        )
        report.check("parse", isinstance(reply.choices[0].message.parsed, Form), reply)
    with session.client.chat.completions.stream(
        model=session.base, messages=QUESTION, response_format=Form, max_tokens=200, seed=5
    ) as stream:
        final = stream.get_final_completion()
        report.check("streamed", isinstance(final.choices[0].message.parsed, Form), final)
    bad = {"type": "json_schema", "json_schema": {"name": "x", "strict": True, "schema": {"type": "nothing"}}}
    report.refused("no schema", openai.BadRequestError, lambda: session.ask(response_format=bad))


def asynchronous(session, report):
    """12 the asynchronous client, raw and streamed responses"""

    async def run():
        async with session.asynchronous() as client:
            report.check("models", session.base in [model.id async for model in client.models.list()])
            file = await client.files.create(file=("a.jsonl", rows(10)), purpose="fine-tune")
            report.check("content", (await client.files.content(file.id)).text == rows(10).decode())
            job = await client.fine_tuning.jobs.create(
                model=session.base, training_file=file.id, hyperparameters={"n_epochs": 1}
            )
            while job.status not in ("succeeded", "failed", "cancelled"):
                await asyncio.sleep(0.05)
                job = await client.fine_tuning.jobs.retrieve(job.id)
            report.check("job", job.status == "succeeded", job)
            events = [event async for event in client.fine_tuning.jobs.list_events(job.id, limit=4)]
            report.check("events", "completed" in events[0].message, events[0])
            whole = text_of(session.ask(seed=9))
            replies = await asyncio.gather(*[session.ask(client=client, seed=9) for _ in range(4)])
            report.check("four at once", [text_of(reply) for reply in replies] == [whole] * 4, replies)
            stream = await session.ask(client=client, seed=9, stream=True)
            text = "".join([chunk.choices[0].delta.content or "" async for chunk in stream])
            report.check("streamed", text == whole, text)

    asyncio.run(run())
    arguments = {"model": session.base, "messages": QUESTION, "max_tokens": 1}
    raw = session.client.chat.completions.with_raw_response.create(**arguments)
    report.check("with_raw_response", raw.parse().object == "chat.completion", raw)
    headers = raw.headers
    report.check("x-request-id", headers["x-request-id"].startswith("req_"), headers)
    report.check("content-type", headers["content-type"].startswith("application/json"), headers)
    for name in ("limit", "remaining"):
        value = headers.get(f"x-ratelimit-{name}-requests", "")
        report.check(f"x-ratelimit-{name}-requests", value.isdigit(), headers)
    report.check("x-ratelimit-reset-requests", headers.get("x-ratelimit-reset-requests"), headers)
    with session.client.chat.completions.with_streaming_response.create(**arguments) as response:
        report.check("with_streaming_response", json.loads(b"".join(response.iter_bytes()))["usage"])


def responses(session, report):
    """13 responses"""
    create = lambda **more: session.client.responses.create(
        **({"model": session.base, "input": "Make a form.", "max_output_tokens": 24} | more)
    )
    reply = create(temperature=0)
    report.check("output_text", reply.output_text == text_of(session.ask(temperature=0)), reply)
    report.check("status", reply.status in ("completed", "incomplete"), reply.status)
    report.check("usage", reply.usage.total_tokens == reply.usage.input_tokens + reply.usage.output_tokens, reply.usage)
    items = [{"role": "user", "content": [{"type": "input_text", "text": "Make a form."}]}]
    report.check("items", create(temperature=0, input=items).output_text == reply.output_text)
    told = create(instructions="Be brief.")
    report.check("instructions", told.usage.input_tokens > reply.usage.input_tokens, told.usage)
    tuned = create(model=session.tuned, temperature=0)
    report.check("tuned", tuned.output_text != reply.output_text, tuned)
    events = list(create(temperature=0, stream=True))
    kinds = [event.type for event in events]
    report.check("first event", kinds[0] == "response.created", kinds)
    report.check("last event", kinds[-1] in ("response.completed", "response.incomplete"), kinds)
    report.check("numbered", [event.sequence_number for event in events] == list(range(len(events))), kinds)
    text = "".join(event.delta for event in events if event.type == "response.output_text.delta")
    report.check("streamed", text == reply.output_text, text)
    report.refused("unknown model", openai.NotFoundError, lambda: create(model="nobody"), code="model_not_found")
    parsed = session.client.responses.parse(
        model=session.base, input="Make a form.", text_format=Form, max_output_tokens=200
    )
    report.check("parse", isinstance(parsed.output_parsed, Form), parsed)


def batches(session, report):
    """14 batches"""
    client = session.client
    line = lambda id, model: json.dumps({
        "custom_id": id, "method": "POST", "url": "/v1/chat/completions",
        "body": {"model": model, "messages": QUESTION, "max_tokens": 4},
    })
    send = lambda content: client.batches.create(
        input_file_id=session.upload(content.encode(), "batch.jsonl", "batch").id,
        endpoint="/v1/chat/completions", completion_window="24h", metadata={"night": "1"},
    )

    def over(batch):
        while batch.status not in ("completed", "failed", "expired", "cancelled"):
            time.sleep(0.05)
            batch = client.batches.retrieve(batch.id)
        return batch

    def answers(file):
        lines = [json.loads(text) for text in client.files.content(file).text.splitlines()]
        return {line["custom_id"]: line for line in lines}

    asked = [f"q{n}" for n in range(5)]
    batch = over(send("\n".join(line(id, session.tuned) for id in asked) + "\n"))
    report.check("completed", batch.status == "completed" and batch.error_file_id is None, batch)
    report.check("counts", (batch.request_counts.total, batch.request_counts.completed) == (5, 5), batch)
    output = answers(batch.output_file_id)
    report.check("every custom_id", sorted(output) == asked, output)
    body = output["q0"]["response"]["body"]
    report.check("an answer", body["object"] == "chat.completion" and body["model"] == session.tuned, body)
    purpose = client.files.retrieve(batch.output_file_id).purpose
    report.check("purpose", purpose == "batch_output", purpose)
    nobody = over(send(line("lost", "nobody") + "\n"))
    if nobody.error_file_id:
        status = answers(nobody.error_file_id)["lost"]["response"]["status_code"]
        report.check("a request that fails", status == 404, status)
    else:
        report.check("a request that fails", nobody.status == "failed" and nobody.errors.data, nobody)
    failed = over(send(line("a", session.base) + "\n" + line("a", session.base) + "\n"))
    report.check("twice the same id", failed.status == "failed" and failed.errors.data[0].line == 2, failed)
    long = send("\n".join(line(f"l{n}", session.base) for n in range(2000)) + "\n")
    report.check("cancel", client.batches.cancel(long.id).status in ("cancelling", "cancelled"), long)
    report.check("cancelled", over(long).status == "cancelled", long)
    listed = [batch.id for batch in client.batches.list(limit=1)]
    report.check("listed newest first", listed[0] == long.id and listed[-1] == batch.id, listed)
    report.refused("unknown", openai.NotFoundError, lambda: client.batches.retrieve("batch_nobody"))
    report.refused("cancel what is over", openai.BadRequestError, lambda: client.batches.cancel(batch.id))


def guarded(session, report):
    """16 a server with a key and little room"""
    if session.guarded is None:
        return
    stranger = openai.OpenAI(base_url=session.guarded, api_key="sk-wrong", max_retries=0)
    error = report.refused("wrong key", openai.AuthenticationError, stranger.models.list, code="invalid_api_key")
    report.check("the key is not repeated", error and "sk-wrong" not in error.message, error)
    client = stranger.with_options(api_key=session.guarded_key)
    report.check("right key", session.base in [model.id for model in client.models.list()])

    refusals, patient = [], []

    def ask(client, into):
        try:
            text_of(session.ask(client=client, max_tokens=200))
        except openai.RateLimitError as error:
            into.append(error)

    threads = [threading.Thread(target=ask, args=(client, refusals)) for _ in range(8)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    if report.check("429 when full", refusals):
        error = refusals[0]
        wait = error.response.headers.get("retry-after", "")
        report.check("Retry-After", wait.isdigit() and 0 < int(wait) <= 120, error.response.headers)
        report.check("code", error.code == "rate_limit_exceeded", error.code)
    retrying = client.with_options(max_retries=20)
    threads = [threading.Thread(target=ask, args=(retrying, patient)) for _ in range(4)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    report.check("who tries again is served", not patient, patient)


def resident(pid):
    with open(f"/proc/{pid}/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmHWM")) >> 10


def parallel(session, report):
    """17 many at once, and a large file"""
    errors = []
    job = session.create(training_file=session.upload(rows(100)).id, hyperparameters={"n_epochs": 50})
    session.until(job, ("running",))

    def one():
        try:
            list(session.ask(stream=True, max_tokens=40))
        except Exception as error:  # whatever it is, it is wrong
            errors.append(error)

    threads = [threading.Thread(target=one) for _ in range(8)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    report.check("eight streams during a job", not errors, errors)
    job = session.client.fine_tuning.jobs.retrieve(job.id)
    report.check("the job goes on", job.status == "running", job)
    session.client.fine_tuning.jobs.cancel(job.id)

    if session.pid is not None:
        before = resident(session.pid)
        content = rows(1, "x" * 1000) * (200 << 20 >> 10)
        file = session.upload(content)
        grown = resident(session.pid) - before
        report.check("200 MB come whole", file.bytes == len(content) >= 200 << 20, file)
        report.check("200 MB in flat memory", grown < 64, f"{grown} MB more")
        session.client.files.delete(file.id)
    report.check("delete the tuned model", session.client.models.delete(session.tuned).deleted)
    report.refused("it is gone", openai.NotFoundError, lambda: session.ask(session.tuned), code="model_not_found")


CALLS = [chat, logprobs, streaming, schema, asynchronous, responses, batches, guarded, parallel]
