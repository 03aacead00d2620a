"""The asynchronous client, responses, batches, full queues and large files."""

import asyncio
import json
import threading
import time

import openai

from chat import Form
from session import QUESTION, rows, text_of


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
            together = await asyncio.gather(*[session.ask(client=client, seed=seed) for seed in range(12)])
            alone = [text_of(await session.ask(client=client, seed=seed)) for seed in range(12)]
            report.check("company changes nothing", [text_of(reply) for reply in together] == alone, together)
            seed, whole, _ = session.wordy
            stream = await session.ask(client=client, seed=seed, stream=True)
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
    told = create(instructions="Be brief.", metadata={"k": "v"})
    report.check("instructions", told.usage.input_tokens > reply.usage.input_tokens, told.usage)
    report.check("metadata", told.metadata == {"k": "v"}, told.metadata)
    on = create(previous_response_id=told.id, input="And now?")
    report.check("goes on", on.previous_response_id == told.id and on.usage.input_tokens > told.usage.input_tokens, on)
    report.check("retrieve", session.client.responses.retrieve(told.id).output_text == told.output_text)
    session.client.responses.delete(told.id)
    report.refused("deleted", openai.NotFoundError, lambda: session.client.responses.retrieve(told.id))
    report.refused("its next", openai.NotFoundError, lambda: create(previous_response_id=told.id))
    report.refused("tools", openai.BadRequestError, lambda: create(tools=[{"type": "web_search"}]))
    # Greedy: a drawn answer may be empty.
    likely = create(temperature=0, include=["message.output_text.logprobs"], top_logprobs=2).output[0].content[0].logprobs
    report.check("logprobs", len(likely[0].top_logprobs) == 2, likely)
    tuned = create(model=session.tuned, temperature=0)
    report.check("tuned", tuned.output_text != reply.output_text, tuned)
    events = list(create(temperature=0, stream=True))
    kinds = [event.type for event in events]
    report.check("first event", kinds[0] == "response.created", kinds)
    report.check("last event", kinds[-1] in ("response.completed", "response.incomplete"), kinds)
    report.check("numbered", [event.sequence_number for event in events] == list(range(len(events))), kinds)
    text = "".join(event.delta for event in events if event.type == "response.output_text.delta")
    report.check("streamed", text == reply.output_text, text)
    with session.client.responses.stream(
        model=session.base, input="Make a form.", max_output_tokens=24, temperature=0
    ) as stream:
        stream.until_done()
        report.check("helper", stream.get_final_response().output_text == reply.output_text)
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

    # Answers that end early may leave room for all.
    for _ in range(20):
        threads = [threading.Thread(target=ask, args=(client, refusals)) for _ in range(8)]
        [thread.start() for thread in threads]
        [thread.join() for thread in threads]
        if refusals:
            break
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


CALLS = [asynchronous, responses, batches, guarded, parallel]
