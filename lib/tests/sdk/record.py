"""What the published Python SDKs of Together and Fireworks send for one fine-tuning job, as JSON on stdout.

    python record.py together|fireworks DATASET.jsonl

A stub on loopback answers as the provider does and writes down each request; tests compare Hone's own requests with these.
"""

import json
import sys
import threading
from email.parser import BytesParser
from email.policy import HTTP
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.metadata import version
from urllib.parse import parse_qsl, urlsplit

KEPT_HEADERS = ("x-goog-content-length-range",)
BASE = "meta-llama/Meta-Llama-3.1-8B-Instruct-Reference"
recorded = []


def body_of(kind, raw):
    """JSON and forms as values, anything else by its length."""
    if kind.startswith("application/json"):
        return json.loads(raw) if raw else None
    if kind.startswith("multipart/form-data"):
        message = BytesParser(policy=HTTP).parsebytes(b"Content-Type: " + kind.encode() + b"\r\n\r\n" + raw)
        return {part.get_param("name", header="content-disposition"): part.get_content() for part in message.iter_parts()}
    return {"bytes": len(raw)} if raw else None


def record(method, url, headers, raw):
    parts = urlsplit(url)
    kind = headers.get("content-type", "") if raw else ""
    recorded.append(
        {
            "method": method,
            "path": parts.path,
            "query": dict(parse_qsl(parts.query)),
            "with_key": headers.get("authorization") == "Bearer sk-stub",
            "content_type": kind.split(";")[0],
            "headers": {name: headers[name] for name in KEPT_HEADERS if name in headers},
            "body": body_of(kind, raw),
        }
    )


class Stub(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def handle_any(self):
        raw = self.rfile.read(int(self.headers.get("content-length", 0)))
        record(self.command, self.path, {k.lower(): v for k, v in self.headers.items()}, raw)
        status, headers, answer = self.server.answer(self.command, urlsplit(self.path).path, raw)
        text = json.dumps(answer).encode()
        self.send_response(status)
        for name, value in {"Content-Type": "application/json", "Content-Length": str(len(text)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(text)

    do_GET = do_POST = do_PUT = do_DELETE = handle_any


def serve(answer):
    server = ThreadingHTTPServer(("127.0.0.1", 0), Stub)
    server.answer = answer
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return f"http://127.0.0.1:{server.server_port}"


def together(dataset):
    from together import Together

    job = {"id": "ft-1", "status": "running", "user_id": "u", "model": BASE, "training_file": "file-1"}
    lora = {"default_rank": 8, "max_batch_size": 8, "max_batch_size_dpo": 4, "max_rank": 64, "min_batch_size": 1}
    limits = {
        "model_name": BASE, "lora_training": {**lora, "target_modules": ["q_proj"]}, "max_learning_rate": 1.0,
        "min_learning_rate": 0.0, "max_num_checkpoints": 10, "max_num_epochs": 20, "max_num_evals": 100,
        "max_seq_length_dpo": 8192, "max_seq_length_sft": 8192, "min_max_seq_length": 32,
        "default_gradient_accumulation_steps": 1, "merge_output_lora": True, "supports_full_training": False,
        "supports_reasoning": False, "supports_tools": True, "supports_vision": False,
    }
    file = {
        "id": "file-1", "object": "file", "bytes": 1, "created_at": 1, "filename": "d.jsonl", "FileType": "jsonl",
        "purpose": "fine-tune", "LineCount": 1, "Processed": True, "processing_status": "COMPLETED",
    }

    def answer(method, path, _raw):
        if (method, path) == ("POST", "/v1/files"):
            return 302, {"Location": base + "/storage/1", "X-Together-File-Id": "file-1"}, {}
        if path.startswith("/v1/files"):
            return 200, {}, file
        if path.endswith("/limits"):
            return 200, {}, limits
        if path.endswith("/estimate-price"):
            return 200, {}, {"estimation_available": True, "allowed_to_proceed": True, "estimated_total_price": 4.0}
        if path.endswith("/events") or path.endswith("/checkpoints") or (method, path) == ("GET", "/v1/fine-tunes"):
            return 200, {}, {"data": []}
        return 200, {}, job

    base = serve(answer)
    client = Together(api_key="sk-stub", base_url=base, max_retries=0)
    uploaded = client.files.upload(dataset, purpose="fine-tune", check=False)
    client.files.retrieve(uploaded.id)
    client.fine_tuning.create(
        training_file=uploaded.id, model=BASE, n_epochs=3, batch_size=8, lora=True, lora_r=16, suffix="ui-agent-v1",
        validation_file=None, random_seed=7,
    )
    client.fine_tuning.list()
    client.fine_tuning.retrieve("ft-1")
    client.fine_tuning.list_events("ft-1")
    client.fine_tuning.list_checkpoints("ft-1")
    client.fine_tuning.cancel("ft-1")
    return version("together")


def fireworks(dataset):
    import httpx
    from fireworks import Fireworks
    from fireworks.lib import dataset_upload

    account = "/v1/accounts/acme"
    job = {"name": account[4:] + "/supervisedFineTuningJobs/job-1", "dataset": "d", "state": "JOB_STATE_RUNNING"}

    def answer(method, path, raw):
        if path.endswith(":getUploadEndpoint"):
            names = json.loads(raw)["filenameToSize"]
            return 200, {}, {"filenameToSignedUrls": {name: "https://storage.invalid/" + name for name in names}}
        if "/datasets" in path:
            return 200, {}, {} if ":" in path else {"name": "accounts/acme/datasets/data-1", "state": "UPLOADING"}
        if (method, path) == ("GET", account + "/supervisedFineTuningJobs"):
            return 200, {}, {"supervisedFineTuningJobs": [], "nextPageToken": ""}
        return 200, {}, job

    class Storage(httpx.Client):
        """The signed addresses are elsewhere and https; what is put there is written down instead."""

        def put(self, url, content, headers):
            record("PUT", url, {name.lower(): value for name, value in headers.items()}, content.read())
            return httpx.Response(200, request=httpx.Request("PUT", url))

    dataset_upload.httpx = type("Httpx", (), {"Client": Storage, "URL": httpx.URL})
    client = Fireworks(api_key="sk-stub", account_id="acme", base_url=serve(answer), max_retries=0)
    count = dataset_upload.count_dataset_examples(dataset)
    client.datasets.create(dataset_id="data-1", dataset={"user_uploaded": {}, "example_count": str(count)})
    dataset_upload.upload_dataset_shards(client, "data-1", dataset)
    jobs = client.supervised_fine_tuning_jobs
    jobs.create(
        supervised_fine_tuning_job_id="job-1", dataset="accounts/acme/datasets/data-1",
        base_model="accounts/fireworks/models/llama-v3p1-8b-instruct", output_model="ui-agent-v1-1",
        display_name="ui-agent-v1", epochs=3, lora_rank=16, batch_size_samples=8,
    )
    jobs.get("job-1")
    jobs.list(page_size=100)
    jobs.cancel("job-1", body={})
    jobs.resume("job-1", body={})
    return version("fireworks-ai")


if __name__ == "__main__":
    provider, dataset = sys.argv[1:]
    sdk = {"together": together, "fireworks": fireworks}[provider](dataset)
    json.dump({"sdk": sdk, "requests": recorded}, sys.stdout, indent=1)
    print()
