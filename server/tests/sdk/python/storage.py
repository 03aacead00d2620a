"""Models, files and uploads."""

import hashlib
import pathlib
import tempfile

import openai

from session import rows


def models(session, report):
    """1 models"""
    client, base = session.client, session.base
    listed = [model.id for model in client.models.list()]
    report.check("the base is listed", base in listed, listed)
    report.check("retrieve", client.models.retrieve(base).id == base)
    unknown = lambda: client.models.retrieve("ft:x:y::z")
    report.refused("retrieve unknown", openai.NotFoundError, unknown, code="model_not_found")
    slash = lambda: client.models.retrieve("org/name")
    report.refused("retrieve with a slash", openai.NotFoundError, slash, code="model_not_found")
    report.refused("delete the base", openai.BadRequestError, lambda: client.models.delete(base))


def files(session, report):
    """2 files"""
    client = session.client
    made = [session.upload(rows(10)).id for _ in range(4)]
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "by path.jsonl"
        path.write_bytes(rows(3))
        by_path = client.files.create(file=path, purpose="fine-tune")
    made.append(by_path.id)
    report.check("by path", (by_path.filename, by_path.bytes) == ("by path.jsonl", len(rows(3))), by_path)
    expiring = session.upload(rows(1), expires_after={"anchor": "created_at", "seconds": 3600})
    report.check("expires_after", expiring.expires_at == expiring.created_at + 3600, expiring)
    made.append(expiring.id)
    report.check("retrieve", client.files.retrieve(made[0]).bytes == len(rows(10)))
    report.check("wait_for_processing", client.files.wait_for_processing(made[0]).status == "processed")
    report.check("content", client.files.content(made[0]).text == rows(10).decode())
    report.check("content as bytes", client.files.content(made[0]).read() == rows(10))
    listed = [file.id for file in client.files.list(purpose="fine-tune", limit=1, order="asc")]
    report.check("six pages, oldest first", [id for id in listed if id in made] == made, listed)
    report.check("each once", len(listed) == len(set(listed)), listed)
    newest = client.files.list(limit=2).data
    report.check("newest first", [file.id for file in newest] == [made[-1], made[-2]], newest)
    after = client.files.list(after=made[1], order="asc", limit=1).data
    report.check("after", [file.id for file in after] == [made[2]], after)
    report.check("delete", client.files.delete(made[-1]).deleted)
    report.refused("retrieve deleted", openai.NotFoundError, lambda: client.files.retrieve(made[-1]))
    report.refused("content deleted", openai.NotFoundError, lambda: client.files.content(made[-1]))
    hostile = session.upload(rows(1), name="../../../etc/cron.d/train.jsonl")
    report.check("names lose their path", hostile.filename == "train.jsonl", hostile)
    session.file = made[0]


def bad_files(session, report):
    """3 files that are refused"""
    for content in (b"hello\n", b"{}\n[1]\n", b"", b"\xff\xfe\n"):
        upload = lambda: session.upload(content)
        report.refused(f"no JSON lines: {content}", openai.BadRequestError, upload, param="file")
    nope = lambda: session.upload(rows(1), purpose="nope")
    report.refused("purpose", openai.BadRequestError, nope, param="purpose")
    soon = lambda: session.upload(rows(1), expires_after={"anchor": "created_at", "seconds": 60})
    report.refused("expires too soon", openai.BadRequestError, soon)


def uploads(session, report):
    """4 uploads in parts"""
    client, content = session.client, rows(10)
    start = lambda: client.uploads.create(
        bytes=len(content), filename="parts.jsonl", mime_type="text/jsonl", purpose="fine-tune"
    )
    part = lambda upload, data: client.uploads.parts.create(upload.id, data=data).id
    upload = start()
    report.check("create", (upload.status, upload.file) == ("pending", None), upload)
    # Sent in the wrong order, put together in the right one.
    second, first = part(upload, content[100:]), part(upload, content[:100])
    digest = hashlib.md5(content).hexdigest()
    whole = client.uploads.complete(upload.id, part_ids=[first, second], md5=digest)
    report.check("complete", whole.status == "completed" and whole.file.filename == "parts.jsonl", whole)
    report.check("content", client.files.content(whole.file.id).read() == content)
    job = session.create(training_file=whole.file.id, hyperparameters={"n_epochs": 1})
    report.check("trains", session.until(job).status == "succeeded", job)

    wrong = start()
    ids = [part(wrong, content)]
    complete = lambda **more: client.uploads.complete(wrong.id, part_ids=ids, **more)
    report.refused("wrong md5", openai.BadRequestError, lambda: complete(md5="0" * 32))
    cancelled = client.uploads.cancel(start().id)
    report.check("cancel", cancelled.status == "cancelled", cancelled)
    report.refused("a part of it", openai.BadRequestError, lambda: part(cancelled, content))
    short = start()
    ids = [part(short, content[:50])]
    report.refused("too short", openai.BadRequestError, lambda: client.uploads.complete(short.id, part_ids=ids))
    unknown = lambda: client.uploads.cancel("upload_nobody")
    report.refused("unknown", openai.NotFoundError, unknown)

    chunked = client.uploads.upload_file_chunked(
        file=content, filename="chunked.jsonl", bytes=len(content), mime_type="text/jsonl",
        purpose="fine-tune", part_size=200,
    )
    report.check("upload_file_chunked", client.files.content(chunked.file.id).read() == content, chunked)


CALLS = [models, files, bad_files, uploads]
