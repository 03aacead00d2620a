"""Drives a server with OpenAI's SDK in strict mode: python conformance.py BASE_URL BASE_MODEL"""

import base64
import io
import json
import sys
import threading
import time

import openai
from openai import OpenAI

URL, BASE = sys.argv[1:3]
strict = OpenAI(base_url=URL, api_key="sk-local", max_retries=0, _strict_response_validation=True)
plain = OpenAI(base_url=URL, api_key="sk-local", max_retries=0)
done = 0


def check(what, holds, seen=None):
    global done
    if not holds:
        sys.exit(f"FAILED: {what}: {seen!r}")
    done += 1


def refused(what, kind, call):
    try:
        call()
    except kind as error:
        check(what, error.request_id and error.request_id.startswith("req_"), error.request_id)
        return error
    sys.exit(f"FAILED: {what}: no {kind.__name__}")


def rows(count, answer="import streamlit"):
    row = {"messages": [{"role": "user", "content": "Make a form."}, {"role": "assistant", "content": answer}]}
    return ("\n".join([json.dumps(row)] * count) + "\n").encode()


def upload(content, name="train.jsonl", purpose="fine-tune", **more):
    return strict.files.create(file=(name, content), purpose=purpose, **more)


def finish(job):
    while job.status not in ("succeeded", "failed", "cancelled"):
        time.sleep(0.05)
        job = strict.fine_tuning.jobs.retrieve(job.id)
    return job


def files():
    made = [upload(rows(10)) for _ in range(5)]
    check("processed", strict.files.wait_for_processing(made[0].id).status == "processed")
    check("content", strict.files.content(made[0].id).read() == rows(10))
    expiring = upload(rows(1), expires_after={"anchor": "created_at", "seconds": 3600})
    check("expires_at", expiring.expires_at == expiring.created_at + 3600, expiring)
    listed = [file.id for file in strict.files.list(purpose="fine-tune", limit=1, order="asc")]
    check("files page by page", listed == [file.id for file in made] + [expiring.id], listed)
    check("deleted", strict.files.delete(expiring.id).deleted)
    refused("deleted file", openai.NotFoundError, lambda: strict.files.retrieve(expiring.id))
    refused("no JSON lines", openai.BadRequestError, lambda: upload(b"hello\n"))
    refused("purpose", openai.BadRequestError, lambda: upload(rows(1), purpose="nope"))
    return made[0].id


def models():
    check("base listed", BASE in [model.id for model in strict.models.list()])
    check("base", strict.models.retrieve(BASE).id == BASE)
    error = refused("unknown model", openai.NotFoundError, lambda: strict.models.retrieve("ft:x:y::z"))
    check("its code", error.code == "model_not_found", error.code)
    refused("base cannot go", openai.BadRequestError, lambda: strict.models.delete(BASE))


def jobs(file):
    create = strict.fine_tuning.jobs.create
    bad = [
        {"training_file": "file-nobody"},
        {"model": "gpt-9"},
        {"suffix": "x" * 65},
        {"seed": -1},
        {"metadata": {str(n): "x" for n in range(17)}},
        {"method": {"type": "dpo"}},
        {"method": {"type": "supervised", "supervised": {"hyperparameters": {"n_epochs": 51}}}},
        {"hyperparameters": {"n_epochs": 0}},
        {"training_file": upload(rows(10), purpose="batch").id},
    ]
    for change in bad:
        arguments = {"model": BASE, "training_file": file} | change
        refused(f"{change}", openai.BadRequestError, lambda: create(**arguments))

    method = {"type": "supervised", "supervised": {"hyperparameters": {"n_epochs": 5, "learning_rate_multiplier": 10}}}
    job = create(model=BASE, training_file=file, validation_file=upload(rows(2)).id, suffix="agent", seed=3,
                 metadata={"k": "v"}, method=method)
    check("created", job.id.startswith("ftjob-") and job.seed == 3 and job.error is None, job)
    job = finish(job)
    check("succeeded", job.status == "succeeded" and job.trained_tokens > 0, job)
    check("resolved", job.hyperparameters.n_epochs == 5 and job.hyperparameters.batch_size == 1, job.hyperparameters)
    check("times", job.finished_at >= job.created_at)
    check("model id", job.fine_tuned_model.startswith(f"ft:{BASE}:local:agent:"), job.fine_tuned_model)
    csv = base64.b64decode(strict.files.content(job.result_files[0]).read()).decode()
    check("result file", csv.startswith("step,train_loss,train_accuracy,valid_loss,valid_mean_token_accuracy\n"), csv[:80])

    events = list(strict.fine_tuning.jobs.list_events(job.id, limit=7))
    check("events newest first", "completed" in events[0].message and "Created" in events[-1].message, events[0])
    check("events are all there once", len({event.id for event in events}) == len(events) > 50, len(events))
    check("metrics", sum(event.type == "metrics" for event in events) == 50)
    checkpoints = list(strict.fine_tuning.jobs.checkpoints.list(job.id, limit=2))
    check("three checkpoints", [c.step_number for c in checkpoints] == [50, 40, 30], checkpoints)
    check("the last is the model", checkpoints[0].fine_tuned_model_checkpoint == job.fine_tuned_model)

    legacy = finish(create(model=BASE, training_file=file, hyperparameters={"n_epochs": 1}))
    check("legacy hyperparameters", legacy.hyperparameters.n_epochs == 1, legacy.hyperparameters)
    few = finish(create(model=BASE, training_file=upload(rows(9)).id))
    check("too few", few.status == "failed" and few.error.code == "invalid_n_examples", few)
    broken = finish(create(model=BASE, training_file=upload(rows(10) + b'{"messages":[]}\n').id))
    check("bad line", broken.error.code == "invalid_training_file" and "line 11" in broken.error.message, broken)
    check("error event", any(event.level == "error" for event in strict.fine_tuning.jobs.list_events(broken.id)))

    long = create(model=BASE, training_file=upload(rows(100)).id, hyperparameters={"n_epochs": 50})
    check("cancelled", strict.fine_tuning.jobs.cancel(long.id).status == "cancelled")
    refused("cancel again", openai.BadRequestError, lambda: strict.fine_tuning.jobs.cancel(long.id))
    refused("unknown job", openai.NotFoundError, lambda: strict.fine_tuning.jobs.retrieve("ftjob-nobody"))
    found = [job.id for job in strict.fine_tuning.jobs.list(extra_query={"metadata[k]": "v"})]
    check("by metadata", found == [job.id], found)
    everything = [job.id for job in strict.fine_tuning.jobs.list(limit=2)]
    check("jobs page by page", len(everything) == len(set(everything)) == 5, everything)
    return job.fine_tuned_model, checkpoints[1].fine_tuned_model_checkpoint


def chat(tuned, checkpoint):
    messages = [{"role": "user", "content": "Make a form."}]

    def ask(model, client=strict, **more):
        return client.chat.completions.create(model=model, messages=messages, **({"max_tokens": 24} | more))

    texts = {model: ask(model, temperature=0).choices[0].message.content for model in (BASE, tuned, checkpoint)}
    check("training shows", texts[tuned] != texts[BASE] != texts[checkpoint], texts)
    check("greedy repeats", ask(tuned, temperature=0).choices[0].message.content == texts[tuned])
    check("the alias", ask("ui-agent").model == BASE)
    two = ask(BASE, n=2, seed=1)
    check("n", len(two.choices) == 2)
    check("usage", two.usage.total_tokens == two.usage.prompt_tokens + two.usage.completion_tokens, two.usage)
    short = ask(BASE, max_tokens=None, max_completion_tokens=3, seed=1)
    check("length", short.choices[0].finish_reason == "length" and short.usage.completion_tokens == 3, short)
    whole = ask(BASE, seed=9).choices[0].message.content
    stopped = ask(BASE, seed=9, stop=[whole[5:8]])
    check("stop", stopped.choices[0].message.content == whole.split(whole[5:8])[0], stopped)

    chunks = list(ask(BASE, seed=9, stream=True, stream_options={"include_usage": True}))
    streamed = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    check("streamed", streamed == whole, (streamed, whole))
    check("streamed usage", chunks[-1].usage.completion_tokens > 0 and not chunks[-1].choices)
    check("role first", chunks[0].choices[0].delta.role == "assistant")
    with plain.chat.completions.stream(model=BASE, messages=messages, max_tokens=24, seed=9) as stream:
        kinds = {event.type for event in stream}
        check("helper", {"chunk", "content.delta", "content.done"} <= kinds, kinds)
        check("helper's text", stream.current_completion_snapshot.choices[0].message.content == whole)

    refused("temperature", openai.BadRequestError, lambda: ask(BASE, temperature=3))
    refused("unknown model", openai.NotFoundError, lambda: ask("nobody"))
    refused("unknown model, streamed", openai.NotFoundError, lambda: ask("nobody", stream=True))
    raw = strict.chat.completions.with_raw_response.create(model=BASE, messages=messages, max_tokens=1)
    check("raw", raw.headers["x-request-id"].startswith("req_") and raw.parse().object == "chat.completion")

    errors = []

    def one():
        try:
            list(ask(BASE, client=plain, stream=True, max_tokens=40))
        except Exception as error:  # whatever it is, it is wrong
            errors.append(error)

    threads = [threading.Thread(target=one) for _ in range(8)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    check("eight at once", not errors, errors)
    check("tuned model goes", strict.models.delete(tuned).deleted)
    refused("and is gone", openai.NotFoundError, lambda: ask(tuned))


file = files()
models()
chat(*jobs(file))
print(f"{done} checks hold with openai {openai.__version__}")
