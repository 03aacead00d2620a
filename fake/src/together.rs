//! Together's shape of files and jobs, as its SDK expects it: see `lib/tests/sdk/together.json`.

use serde_json::{Value, json};

use crate::{
    http::{Answer, Outcome, Request},
    meter, refusal,
    shelf::{Tuning, delivered, field, forbidden, iso, now, query},
};

/// Models that can be trained.
const MODELS: [&str; 2] = ["m", "meta-llama/Meta-Llama-3.1-8B-Instruct-Reference"];

#[derive(Debug, Default)]
pub(crate) struct Together {
    files: Vec<File>,
    jobs: Vec<Job>,
}

#[derive(Debug)]
struct File {
    id: String,
    checksum: String,
    bytes: Option<usize>,
}

#[derive(Debug)]
struct Job {
    value: Value,
    looks: u32,
    tuning: Tuning,
}

impl Together {
    pub fn route(
        &mut self,
        request: &Request,
        tuning: &mut Tuning,
        meter: &meter::Shared,
    ) -> Option<Outcome> {
        let path = request.parts();
        let answer = match (request.method.as_str(), path.as_slice()) {
            ("POST", ["files"]) => self.offer(request, &field(request, "checksum")?),
            ("PUT", ["together-storage", id]) => self.put(id, request, meter),
            ("POST", ["files", id, "preprocess"]) | ("GET", ["files", id]) => self.file(id)?,
            ("GET", ["fine-tunes", "models", "limits"]) => limits(query(request, "model_name").as_deref()),
            ("POST", ["fine-tunes", "estimate-price"]) => estimate(tuning),
            ("POST", ["fine-tunes"]) => return Some(self.create(request, tuning, meter)),
            ("GET", ["fine-tunes"]) => {
                let data: Vec<&Value> = self.jobs.iter().map(|job| &job.value).collect();
                Answer::json(200, &json!({ "data": data }))
            }
            ("GET", ["fine-tunes", id]) => self.job(id, Job::look),
            ("GET", ["fine-tunes", id, "events"]) => {
                self.job(id, |job| Answer::json(200, &json!({"data": job.value["events"]})))
            }
            ("GET", ["fine-tunes", id, "checkpoints"]) => {
                self.job(id, |_| Answer::json(200, &json!({"data": []})))
            }
            ("POST", ["fine-tunes", id, "cancel"]) => self.job(id, |job| {
                job.value["status"] = json!("cancelled");
                Answer::json(200, &job.value)
            }),
            _ => return None,
        };
        Some(Outcome::Whole(answer))
    }

    /// Where a file goes; one that is there already keeps its id.
    fn offer(&mut self, request: &Request, checksum: &str) -> Answer {
        if let Some(file) = self.files.iter().find(|file| file.checksum == checksum && file.bytes.is_some()) {
            return Answer::json(409, &json!({ "file_id": file.id }));
        }
        let id = format!("file-together-{}", self.files.len());
        self.files.push(File { id: id.clone(), checksum: checksum.to_owned(), bytes: None });
        let host = request.header("host").unwrap_or_default();
        Answer::json(302, &Value::Null)
            .with("location", format!("http://{host}/together-storage/{id}"))
            .with("x-together-file-id", id)
    }

    /// Storage takes bytes from whoever has the address, and must not be shown the key.
    fn put(&mut self, id: &str, request: &Request, meter: &meter::Shared) -> Answer {
        let Some(file) = self.files.iter_mut().find(|file| file.id == id) else {
            return refusal(404, "NoSuchKey", "no such upload");
        };
        if !request.key().is_empty() {
            return refusal(400, "InvalidArgument", "only one way of authentication is allowed");
        }
        file.bytes = Some(request.body.len());
        meter.lock().uploads += 1;
        Answer::json(200, &Value::Null)
    }

    /// None when the file is of another shape.
    fn file(&self, id: &str) -> Option<Answer> {
        let file = self.files.iter().find(|file| file.id == id)?;
        Some(Answer::json(
            200,
            &json!({
                "id": file.id, "object": "file", "bytes": file.bytes, "created_at": now(), "filename": "data.jsonl",
                "FileType": "jsonl", "purpose": "fine-tune", "LineCount": 0, "Processed": file.bytes.is_some(),
            }),
        ))
    }

    fn create(&mut self, request: &Request, tuning: &mut Tuning, meter: &meter::Shared) -> Outcome {
        if let Some(no) = forbidden(tuning) {
            return Outcome::Whole(no);
        }
        let asked: Value = serde_json::from_slice(&request.body).unwrap_or_default();
        let file = asked["training_file"].as_str().unwrap_or_default();
        if !self.files.iter().any(|known| known.id == file && known.bytes.is_some()) {
            return Outcome::Whole(refusal(400, "invalid_training_file", &format!("no such file: {file}")));
        }
        let id = format!("ft-{:08}-fake", self.jobs.len());
        let mut value = asked.clone();
        value["id"] = json!(id);
        value["status"] = json!("pending");
        value["user_id"] = json!("user-1");
        value["created_at"] = json!(iso(match tuning {
            Tuning::Stuck { minutes } => now() - *minutes * 60,
            _ => now(),
        }));
        value["events"] = json!([event("job_pending", "info", "Job created", &value["created_at"])]);
        meter.lock().jobs += 1;
        self.jobs.push(Job { value: value.clone(), looks: 0, tuning: tuning.clone() });
        delivered(tuning, &value)
    }

    fn job(&mut self, id: &str, show: impl FnOnce(&mut Job) -> Answer) -> Answer {
        match self.jobs.iter_mut().find(|job| job.value["id"] == id) {
            Some(job) => show(job),
            None => refusal(404, "not_found", &format!("no such job: {id}")),
        }
    }
}

impl Job {
    /// Shows the job and moves it on.
    fn look(&mut self) -> Answer {
        let over = ["completed", "error", "cancelled"].iter().any(|word| self.value["status"] == *word);
        self.looks += 1;
        let status = match (&self.tuning, self.looks) {
            _ if over => return Answer::json(200, &self.value),
            (Tuning::Stuck { .. }, _) | (_, 1) => "pending",
            (_, 2) => "queued",
            (Tuning::Slow, _) | (_, 3) => "running",
            (Tuning::Odd, 4) => "polishing",
            (Tuning::Fails(_), _) => "error",
            _ => "completed",
        };
        self.value["status"] = json!(status);
        self.value["updated_at"] = json!(iso(now()));
        match &self.tuning {
            Tuning::Fails(code) if status == "error" => {
                let kind = if code == "exceeded_quota" { "billing_limit" } else { code };
                let event =
                    event(kind, "error", &format!("the job failed: {code}"), &self.value["updated_at"]);
                if let Some(events) = self.value["events"].as_array_mut() {
                    events.push(event);
                }
            }
            _ if status == "completed" => {
                let base = self.value["model"]
                    .as_str()
                    .unwrap_or("m")
                    .rsplit('/')
                    .next()
                    .unwrap_or_default()
                    .to_owned();
                let suffix = self.value["suffix"].as_str().unwrap_or_default().to_owned();
                self.value["model_output_name"] = json!(format!("fake/{base}-{suffix}-1"));
                self.value["token_count"] = json!(12_345);
            }
            _ => {}
        }
        Answer::json(200, &self.value)
    }
}

fn event(kind: &str, level: &str, message: &str, at: &Value) -> Value {
    json!({"object": "fine-tune-event", "type": kind, "level": level, "message": message, "created_at": at})
}

fn estimate(tuning: &Tuning) -> Answer {
    Answer::json(
        200,
        &json!({
            "estimation_available": true, "allowed_to_proceed": *tuning != Tuning::NoQuota, "estimated_total_price": 4.25,
            "estimated_train_token_count": 12_345,
        }),
    )
}

fn limits(model: Option<&str>) -> Answer {
    match model.filter(|model| MODELS.contains(model)) {
        Some(model) => Answer::json(
            200,
            &json!({
                "model_name": model, "max_num_epochs": 20, "supports_vision": false,
                "lora_training": {"default_rank": 8, "max_rank": 64, "min_batch_size": 1, "max_batch_size": 8},
            }),
        ),
        None => refusal(404, "not_found", "the model cannot be fine-tuned"),
    }
}
