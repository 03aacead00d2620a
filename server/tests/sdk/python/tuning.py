"""Fine-tuning jobs, from the request to the model, and what goes wrong; checkpoints' permissions and graders."""

import base64
import re

import openai

from session import pairs, rows

MODEL_ID = re.compile(r"^ft:([^:]+):([^:]*):([^:]*):([A-Za-z0-9]+)(?::ckpt-step-(\d+))?$")


def supervised(**hyperparameters):
    return {"type": "supervised", "supervised": {"hyperparameters": hyperparameters}}


def refused_jobs(session, report):
    """5 jobs that are refused"""
    batch = session.upload(b'{"custom_id":"1"}\n', purpose="batch").id
    bad = [
        ("unknown training file", {"training_file": "file-nobody"}, "training_file"),
        ("unknown validation file", {"validation_file": "file-nobody"}, "validation_file"),
        ("unknown model", {"model": "gpt-9"}, "model"),
        ("file of another purpose", {"training_file": batch}, "training_file"),
        ("suffix of 65 characters", {"suffix": "x" * 65}, "suffix"),
        ("seed -1", {"seed": -1}, "seed"),
        ("17 pairs of metadata", {"metadata": {str(n): "x" for n in range(17)}}, "metadata"),
        ("0 epochs", {"method": supervised(n_epochs=0)}, None),
        ("51 epochs", {"method": supervised(n_epochs=51)}, None),
        ("batch of 257", {"method": supervised(batch_size=257)}, None),
        ("learning rate 0", {"method": supervised(learning_rate_multiplier=0)}, None),
        ("0 epochs, legacy", {"hyperparameters": {"n_epochs": 0}}, None),
        ("beta 3", {"method": {"type": "dpo", "dpo": {"hyperparameters": {"beta": 3}}}}, None),
        ("reinforcement", {"method": {"type": "reinforcement"}}, None),
        ("n_epoch", {"method": supervised(n_epoch=3)}, "method.supervised.hyperparameters.n_epoch"),
        ("hyperparameters beside a method", {"method": supervised(), "hyperparameters": {"n_epochs": 3}}, "hyperparameters.n_epochs"),
    ]
    for what, change, param in bad:
        report.refused(what, openai.BadRequestError, lambda: session.create(**change), param=param)
    unknown = lambda: session.client.fine_tuning.jobs.retrieve("ftjob-nobody")
    report.refused("unknown job", openai.NotFoundError, unknown)
    again = [session.create(extra_headers={"Idempotency-Key": "once"}, metadata={"only": "once"}) for _ in range(2)]
    report.check("Idempotency-Key", again[0].id == again[1].id, again)
    session.client.fine_tuning.jobs.cancel(again[0].id)


def success(session, report):
    """6 a job to its model"""
    client = session.client
    job = session.create(
        validation_file=session.upload(rows(2)).id, suffix="agent", seed=3, metadata={"k": "v"},
        method=supervised(n_epochs=5, learning_rate_multiplier=10, batch_size=1),
    )
    report.check("created", job.id.startswith("ftjob-") and job.seed == 3 and job.error is None, job)
    report.check("its first state", job.status in ("validating_files", "queued"), job.status)
    job = session.job = session.until(job)
    report.check("succeeded", job.status == "succeeded", job)
    report.check("trained_tokens", job.trained_tokens and job.trained_tokens > 0, job.trained_tokens)
    report.check("finished_at", job.finished_at >= job.created_at, job)
    resolved = job.hyperparameters
    report.check("hyperparameters", (resolved.n_epochs, resolved.batch_size) == (5, 1), resolved)
    report.check("method", job.method.supervised.hyperparameters.n_epochs == 5, job.method)
    report.check("metadata", job.metadata == {"k": "v"}, job.metadata)
    parts = MODEL_ID.match(job.fine_tuned_model)
    report.check("model id", parts and parts.groups()[0::2] == (session.base, "agent", None), job.fine_tuned_model)
    report.check("is a model", client.models.retrieve(job.fine_tuned_model).id == job.fine_tuned_model)
    content = client.files.content(job.result_files[0]).read()
    csv = base64.b64decode(content).decode()
    header = "step,train_loss,train_accuracy,valid_loss,valid_mean_token_accuracy\n"
    report.check("result file", csv.startswith(header) and csv.count("\n") == 51, csv[:80])
    session.tuned = job.fine_tuned_model

    legacy = session.until(session.create(hyperparameters={"n_epochs": 1}))
    report.check("legacy hyperparameters", legacy.hyperparameters.n_epochs == 1, legacy.hyperparameters)
    auto = session.until(session.create())
    numbers = (auto.hyperparameters.n_epochs, auto.hyperparameters.batch_size)
    report.check("auto becomes numbers", all(isinstance(n, int) for n in numbers), auto.hyperparameters)
    further = session.create(model=job.fine_tuned_model, hyperparameters={"n_epochs": 1})
    further = session.until(further)
    report.check("trained further", further.status == "succeeded", further)
    needed = lambda: client.models.delete(job.fine_tuned_model)
    report.refused("delete what another model needs", openai.BadRequestError, needed)
    report.check("delete", client.models.delete(further.fine_tuned_model).deleted)
    preference = session.until(session.create(
        training_file=session.upload(pairs(10)).id,
        method={"type": "dpo", "dpo": {"hyperparameters": {"n_epochs": 1, "beta": 0.1}}},
    ))
    report.check("dpo", preference.status == "succeeded" and preference.method.type == "dpo", preference)
    report.check("dpo's beta", preference.method.dpo.hyperparameters.beta == 0.1, preference.method)


def progress(session, report):
    """7 lists, events, checkpoints"""
    client, job = session.client, session.job
    found = [job.id for job in client.fine_tuning.jobs.list(metadata={"k": "v"})]
    report.check("by metadata", found == [job.id], found)
    everything = [job.id for job in client.fine_tuning.jobs.list(limit=2)]
    report.check("page by page", len(everything) == len(set(everything)) >= 5, everything)
    rest = [job.id for job in client.fine_tuning.jobs.list(after=everything[1])]
    report.check("after", rest == everything[2:], rest)
    events = list(client.fine_tuning.jobs.list_events(job.id, limit=7))
    first, last = events[-1].message, events[0].message
    report.check("events newest first", "completed" in last and "Created" in first, (first, last))
    report.check("events all there, each once", len({event.id for event in events}) == len(events) > 50, len(events))
    metrics = [event for event in events if event.type == "metrics"]
    report.check("metrics", len(metrics) == 50, len(metrics))
    keys = {"step", "total_steps", "train_loss", "train_mean_token_accuracy", "valid_loss", "full_valid_loss"}
    report.check("their data", keys <= set(metrics[0].data), metrics[0].data)
    page = client.fine_tuning.jobs.list_events(job.id).data
    report.check("20 by default", len(page) == 20, len(page))
    checkpoints = list(client.fine_tuning.jobs.checkpoints.list(job.id, limit=2))
    report.check("the last three epochs", [c.step_number for c in checkpoints] == [50, 40, 30], checkpoints)
    report.check("the last is the model", checkpoints[0].fine_tuned_model_checkpoint == session.tuned, checkpoints)
    report.check("checkpoint metrics", checkpoints[0].metrics.full_valid_loss > 0, checkpoints[0].metrics)
    session.checkpoint = checkpoints[1].fine_tuned_model_checkpoint
    report.check("checkpoint id", MODEL_ID.match(session.checkpoint).group(5) == "40", session.checkpoint)


def failures(session, report):
    """8 jobs that fail with a reason"""
    dpo = {"type": "dpo", "dpo": {"hyperparameters": {}}}
    silent = b'{"messages":[{"role":"user","content":"q"}]}\n'
    for what, content, more, code, words in (
        ("nine examples", rows(9), {}, "invalid_n_examples", "10"),
        ("no messages", rows(10) + b'{"messages":[]}\n', {}, "invalid_training_file", "line 11"),
        ("no assistant", rows(10) + silent, {}, "invalid_training_file", "line 11"),
        ("chat rows for dpo", rows(10), {"method": dpo}, "invalid_training_file", "line 1"),
        ("pairs for supervised", pairs(10), {}, "invalid_training_file", "line 1"),
    ):
        job = session.until(session.create(training_file=session.upload(content).id, **more))
        if not report.check(f"{what}: failed", job.status == "failed" and job.error is not None, job):
            continue
        report.check(f"{what}: code", (job.error.code, job.error.param) == (code, "training_file"), job.error)
        report.check(f"{what}: message", words in job.error.message, job.error.message)
        report.check(f"{what}: no model", job.fine_tuned_model is None and job.result_files == [], job)
        events = session.client.fine_tuning.jobs.list_events(job.id)
        report.check(f"{what}: error event", any(event.level == "error" for event in events))
    broken = session.upload(rows(2) + silent).id
    job = session.until(session.create(validation_file=broken))
    report.check("validation file", job.error and job.error.param == "validation_file", job)


def control(session, report):
    """9 cancel, pause, resume"""
    jobs = session.client.fine_tuning.jobs
    long = lambda: session.create(training_file=session.upload(rows(100)).id, hyperparameters={"n_epochs": 50})
    job = session.until(long(), ("running",))
    report.check("runs", job.status == "running", job)
    report.check("cancel", jobs.cancel(job.id).status == "cancelled")
    for what, call in (("cancel", jobs.cancel), ("pause", jobs.pause), ("resume", jobs.resume)):
        report.refused(f"{what} what is over", openai.BadRequestError, lambda: call(job.id))
    report.refused("cancel unknown", openai.NotFoundError, lambda: jobs.cancel("ftjob-nobody"))
    if session.strict:
        return  # the SDK's own types have no word for a paused job
    job = session.until(long(), ("running",))
    try:
        report.check("pause", jobs.pause(job.id).status in ("pausing", "paused"))
        job = session.until(job, ("paused",))
        report.check("paused", job.status == "paused", job)
        report.refused("pause again", openai.BadRequestError, lambda: jobs.pause(job.id))
        report.check("resume", jobs.resume(job.id).status in ("queued", "running"))
        job = session.until(job, ("running",))
        report.check("runs again", job.status == "running", job)
    finally:
        # What comes next would wait for it.
        jobs.cancel(job.id)


def graders(session, report):
    """15 graders and permissions"""
    graders = session.client.fine_tuning.alpha.graders
    same = {"type": "string_check", "name": "same", "input": "{{sample.output_text}}",
            "reference": "{{item.answer}}", "operation": "eq"}
    close = {"type": "text_similarity", "name": "close", "input": "{{sample.output_text}}",
             "reference": "{{item.answer}}", "evaluation_metric": "fuzzy_match"}
    both = {"type": "multi", "name": "both", "graders": {"same": same, "close": close},
            "calculate_output": "0.5 * same + 0.5 * close"}
    if session.strict:
        # The SDK's own types have room for one grader only, unlike the documentation.
        both |= {"graders": same, "calculate_output": "same"}
    for grader in (same, close, both):
        valid = graders.validate(grader=grader).grader
        report.check(f"validate {grader['type']}", valid.name == grader["name"], valid)
        run = lambda sample: graders.run(grader=grader, model_sample=sample, item={"answer": "a form"})
        right, wrong = run("a form"), run("zzz")
        report.check(f"run {grader['type']}", right.reward == 1 and wrong.reward < 0.5, (right, wrong))
        report.check(f"{grader['type']}'s metadata", right.metadata.name == grader["name"], right.metadata)
    parts = {"same"} if session.strict else {"same", "close"}
    report.check("sub_rewards", set(right.sub_rewards) == parts, right.sub_rewards)
    python = {"type": "python", "name": "p", "source": "def grade(sample, item):\n    return 1.0"}
    report.refused("python grader", openai.BadRequestError, lambda: graders.validate(grader=python))
    broken = both | {"calculate_output": "same +"}
    report.refused("broken formula", openai.BadRequestError, lambda: graders.validate(grader=broken))

    permissions = session.client.fine_tuning.checkpoints.permissions
    refusal = (openai.PermissionDeniedError, openai.NotFoundError)
    create = lambda: permissions.create(session.checkpoint, project_ids=["proj_1"])
    error = report.refused("permissions", refusal, create)
    report.check("permissions say why", error and len(error.message) > 20, error)


CALLS = [refused_jobs, success, progress, failures, control, graders]
