//! Files, fine-tuning jobs, batches and models: what a provider keeps.

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::{
    batches::{Batches, Batching, Written},
    fireworks::Fireworks,
    http::{Answer, End, Outcome, Request},
    meter, refusal,
    together::Together,
};

/// How jobs go.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Tuning {
    /// Each look at a job moves it on, to its end.
    #[default]
    Succeeds,
    /// It stays in `validating_files`, for as many minutes already.
    Stuck { minutes: i64 },
    /// It runs for ever.
    Slow,
    /// It fails with this code.
    Fails(String),
    /// Its status is a word that nobody knows, and then it succeeds.
    Odd,
    /// 403 `training_not_available`.
    Forbidden,
    /// 429 `insufficient_quota`.
    NoQuota,
    /// The next creations are done, and the connection is reset instead of an answer.
    AnswerLost(u32),
    /// The next creations are done, and answered with status 500.
    AnswerFails(u32),
    /// The next creations are done, and never answered.
    AnswerStalls(u32),
    /// The next creations are answered with status 500, and not done.
    NotCreated(u32),
}

#[derive(Debug)]
struct Job {
    value: Value,
    looks: u32,
    tuning: Tuning,
}

#[derive(Debug)]
struct File {
    value: Value,
    content: Vec<u8>,
}

/// All that is kept.
#[derive(Debug)]
pub(crate) struct Shelf {
    tuning: Tuning,
    files: Vec<File>,
    jobs: Vec<Job>,
    batches: Batches,
    together: Together,
    fireworks: Fireworks,
}

/// Models that are listed, the last of them with an end.
const MODELS: [&str; 3] = ["m", "gpt-4o-2024-08-06", "gpt-4o-mini-2024-07-18"];

impl Shelf {
    pub fn new(tuning: Tuning, batches: Batches) -> Self {
        Self {
            tuning,
            files: Vec::new(),
            jobs: Vec::new(),
            batches,
            together: Together::default(),
            fireworks: Fireworks::default(),
        }
    }

    pub fn set_batching(&mut self, batching: Batching) {
        self.batches.batching = batching;
    }

    pub fn set_tuning(&mut self, tuning: Tuning) {
        self.tuning = tuning;
    }

    /// Answers all but chat; none when there is no such route.
    pub fn route(&mut self, request: &Request, meter: &meter::Shared) -> Option<Outcome> {
        if let Some(outcome) = self.together.route(request, &mut self.tuning, meter) {
            return Some(outcome);
        }
        if let Some(outcome) = self.fireworks.route(request, &mut self.tuning, meter) {
            return Some(outcome);
        }
        let path = request.parts();
        if let Some(at) = path.windows(2).position(|parts| parts == ["messages", "batches"]) {
            let Batches { batching, of_messages, .. } = &mut self.batches;
            return of_messages.route(request, &path[at + 2..], batching, meter);
        }
        let from =
            path.iter().position(|part| matches!(*part, "models" | "files" | "fine_tuning" | "batches"))?;
        let answer = match (request.method.as_str(), &path[from..]) {
            ("GET", ["models"]) => {
                let cards: Vec<Value> = MODELS.iter().map(|id| card(id)).collect();
                Answer::json(200, &json!({"object": "list", "data": cards}))
            }
            ("GET", ["models", rest @ ..]) => self.model(&rest.join("/")),
            ("POST", ["files"]) => self.upload(request, meter),
            ("GET", ["files"]) => list(self.files.iter().map(|file| &file.value), request),
            ("GET", ["files", id]) => self.look_at_file(id),
            ("GET", ["files", id, "content"]) => self.file(id, |file| Answer {
                body: file.content.clone(),
                content_type: "application/octet-stream",
                ..Answer::json(200, &Value::Null)
            }),
            ("POST", ["fine_tuning", "jobs"]) => return Some(self.create(request, meter)),
            ("GET", ["fine_tuning", "jobs"]) => list(self.jobs.iter().map(|job| &job.value), request),
            ("GET", ["fine_tuning", "jobs", id]) => self.job(id, Job::look),
            ("GET", ["fine_tuning", "jobs", id, "events"]) => self.job(id, |job| job.events(request)),
            ("GET", ["fine_tuning", "jobs", id, "checkpoints"]) => self.job(id, |_| list([].iter(), request)),
            ("POST", ["fine_tuning", "jobs", id, verb]) => self.job(id, |job| job.told(verb)),
            ("POST", ["batches"]) => return Some(self.create_batch(request, meter)),
            ("GET", ["batches"]) => list(self.batches.values(), request),
            ("GET", ["batches", id]) => self.look_at_batch(id, meter),
            ("POST", ["batches", id, "cancel"]) => self.batches.cancel(id),
            _ => return None,
        };
        Some(Outcome::Whole(answer))
    }

    fn model(&self, id: &str) -> Answer {
        let id = id.replace("%2F", "/").replace("%3A", ":");
        let tuned = self.jobs.iter().any(|job| job.value["fine_tuned_model"] == id.as_str());
        match MODELS.contains(&id.as_str()) || tuned || id.starts_with("fault-") {
            true => Answer::json(200, &card(&id)),
            false => refusal(404, "model_not_found", &format!("the model `{id}` does not exist")),
        }
    }

    fn upload(&mut self, request: &Request, meter: &meter::Shared) -> Answer {
        let Some((purpose, name, content)) = multipart(request) else {
            return refusal(400, "invalid_request_error", "no file came");
        };
        let id = format!(
            "file-{}",
            crate::hex(&Sha256::digest(format!("{}{name}", self.files.len())))[..24].to_owned()
        );
        // Azure, whose requests name a version, reads a file before it can be used.
        let status = if query(request, "api-version").is_some() { "pending" } else { "processed" };
        let value = json!({"id": id, "object": "file", "bytes": content.len(), "created_at": 1_760_000_000,
            "filename": name, "purpose": purpose, "status": status, "status_details": null, "expires_at": null});
        meter.lock().uploads += 1;
        self.files.push(File { value: value.clone(), content });
        Answer::json(200, &value)
    }

    /// Shows a file; the next look finds it read.
    fn look_at_file(&mut self, id: &str) -> Answer {
        let shown = self.file(id, |file| Answer::json(200, &file.value));
        for file in self.files.iter_mut().filter(|file| file.value["id"] == id) {
            file.value["status"] = json!("processed");
        }
        shown
    }

    fn file(&self, id: &str, show: impl Fn(&File) -> Answer) -> Answer {
        match self.files.iter().find(|file| file.value["id"] == id) {
            Some(file) => show(file),
            None => refusal(404, "file_not_found", &format!("no such file: {id}")),
        }
    }

    fn create(&mut self, request: &Request, meter: &meter::Shared) -> Outcome {
        let Ok(asked) = serde_json::from_slice::<Value>(&request.body) else {
            return Outcome::Whole(refusal(400, "invalid_json", "the body is no JSON"));
        };
        if let Some(no) = forbidden(&mut self.tuning) {
            return Outcome::Whole(no);
        }
        let training = asked["training_file"].as_str().unwrap_or_default();
        if !self.files.iter().any(|file| file.value["id"] == training) {
            return Outcome::Whole(refusal(
                400,
                "invalid_training_file",
                &format!("no such file: {training}"),
            ));
        }
        let job = Job::new(self.jobs.len(), &asked, &self.tuning, now());
        meter.lock().jobs += 1;
        let value = job.value.clone();
        self.jobs.push(job);
        delivered(&mut self.tuning, &value)
    }

    fn job(&mut self, id: &str, show: impl FnOnce(&mut Job) -> Answer) -> Answer {
        match self.jobs.iter_mut().find(|job| job.value["id"] == id) {
            Some(job) => show(job),
            None => refusal(404, "fine_tune_not_found", &format!("no such job: {id}")),
        }
    }

    fn create_batch(&mut self, request: &Request, meter: &meter::Shared) -> Outcome {
        let asked: Value = serde_json::from_slice(&request.body).unwrap_or_default();
        let Some(input) = asked["input_file_id"].as_str() else {
            return Outcome::Whole(refusal(400, "missing_required_parameter", "`input_file_id` is missing"));
        };
        match self.files.iter().find(|file| file.value["id"] == input) {
            Some(file) if file.value["status"] != "processed" => {
                Outcome::Whole(refusal(400, "invalid_value", &format!("{input} is not processed")))
            }
            Some(file) if file.value["purpose"] != "batch" => {
                Outcome::Whole(refusal(400, "invalid_value", &format!("{input} is for no batch")))
            }
            Some(file) => self.batches.create(&asked, &file.content, now(), meter),
            None => Outcome::Whole(refusal(400, "invalid_value", &format!("no such file: {input}"))),
        }
    }

    fn look_at_batch(&mut self, id: &str, meter: &meter::Shared) -> Answer {
        let (answer, written) = self.batches.look(id, meter);
        for Written { id, content } in written {
            let value = json!({"id": id, "object": "file", "bytes": content.len(), "created_at": now(),
                "filename": "output.jsonl", "purpose": "batch_output", "status": "processed"});
            self.files.push(File { value, content });
        }
        answer
    }
}

/// Why no job is created, if none is.
pub(crate) fn forbidden(tuning: &mut Tuning) -> Option<Answer> {
    match tuning {
        Tuning::Forbidden => {
            let answer =
                refusal(403, "training_not_available", "fine-tuning is not available for this organization");
            Some(answer.with("x-should-retry", "false"))
        }
        Tuning::NoQuota => {
            let answer = refusal(429, "insufficient_quota", "you exceeded your current quota");
            Some(answer.with("x-should-retry", "false"))
        }
        Tuning::NotCreated(times) if *times > 0 => {
            *times -= 1;
            Some(refusal(500, "server_error", "the server is in trouble"))
        }
        _ => None,
    }
}

/// How the answer to a creation that was done arrives.
pub(crate) fn delivered(tuning: &mut Tuning, value: &Value) -> Outcome {
    match tuning {
        Tuning::AnswerLost(times) if *times > 0 => {
            *times -= 1;
            Outcome::Nothing(End::Reset)
        }
        Tuning::AnswerFails(times) if *times > 0 => {
            *times -= 1;
            Outcome::Whole(refusal(500, "server_error", "the server is in trouble"))
        }
        Tuning::AnswerStalls(times) if *times > 0 => {
            *times -= 1;
            Outcome::Nothing(End::Stall)
        }
        _ => Outcome::Whole(Answer::json(200, value)),
    }
}

impl Job {
    fn new(number: usize, asked: &Value, tuning: &Tuning, now: i64) -> Self {
        let created = match tuning {
            Tuning::Stuck { minutes } => now - minutes * 60,
            _ => now,
        };
        let value = json!({
            "id": format!("ftjob-{number:024}"), "object": "fine_tuning.job", "created_at": created, "finished_at": null,
            "model": asked["model"], "fine_tuned_model": null, "organization_id": "org-fake", "status": "validating_files",
            "training_file": asked["training_file"], "validation_file": asked["validation_file"],
            "hyperparameters": {"n_epochs": "auto", "batch_size": "auto", "learning_rate_multiplier": "auto"},
            "method": asked["method"], "trained_tokens": null, "result_files": [], "seed": 1, "error": null,
            "estimated_finish": null, "integrations": [], "metadata": asked["metadata"],
            "user_provided_suffix": asked["suffix"],
        });
        Self { value, looks: 0, tuning: tuning.clone() }
    }

    /// Shows the job and moves it on.
    fn look(&mut self) -> Answer {
        self.looks += 1;
        let status = match (&self.tuning, self.looks) {
            _ if self.is_over() => return Answer::json(200, &self.value),
            (Tuning::Stuck { .. }, _) | (_, 1) => "validating_files",
            (_, 2) => "queued",
            (Tuning::Slow, _) | (_, 3) => "running",
            (Tuning::Odd, 4) => "polishing",
            (Tuning::Fails(_), _) => "failed",
            _ => "succeeded",
        };
        if self.value["status"] != "paused" {
            self.value["status"] = json!(status);
        }
        match (status, &self.tuning) {
            ("succeeded", _) => {
                let (base, suffix) = (&self.value["model"], &self.value["user_provided_suffix"]);
                let id = format!(
                    "ft:{}:fake:{}:{:08}",
                    base.as_str().unwrap_or("m"),
                    suffix.as_str().unwrap_or_default(),
                    self.looks
                );
                self.value["fine_tuned_model"] = json!(id);
                self.value["trained_tokens"] = json!(12_345);
                self.value["finished_at"] = json!(now());
            }
            ("failed", Tuning::Fails(code)) => {
                self.value["error"] =
                    json!({"code": code, "message": format!("the job failed: {code}"), "param": null});
                self.value["finished_at"] = json!(now());
            }
            _ => {}
        }
        Answer::json(200, &self.value)
    }

    fn is_over(&self) -> bool {
        ["succeeded", "failed", "cancelled"].iter().any(|status| self.value["status"] == *status)
    }

    /// Newest first, as OpenAI lists them.
    fn events(&self, request: &Request) -> Answer {
        let id = self.value["id"].as_str().unwrap_or_default();
        let texts = [
            "Created fine-tuning job",
            "Validating training file",
            "Files validated, moving job to queued state",
            "Fine-tuning job started",
        ];
        let events: Vec<Value> = texts
            .iter()
            .take(1 + self.looks as usize)
            .enumerate()
            .map(|(index, text)| {
                json!({"object": "fine_tuning.job.event", "id": format!("ftevent-{id}-{index}"),
                    "created_at": self.value["created_at"], "level": "info", "message": text, "type": "message", "data": {}})
            })
            .collect();
        list(events.iter(), request)
    }

    fn told(&mut self, verb: &str) -> Answer {
        let status = match verb {
            "cancel" => "cancelled",
            "pause" => "paused",
            "resume" => "queued",
            _ => return refusal(404, "unknown_url", "no such verb"),
        };
        if self.is_over() {
            return refusal(400, "invalid_request_error", "the job is over");
        }
        self.value["status"] = json!(status);
        Answer::json(200, &self.value)
    }
}

/// A list page: newest first, `limit` items after `after`.
fn list<'a>(items: impl DoubleEndedIterator<Item = &'a Value>, request: &Request) -> Answer {
    let option = |name| query(request, name);
    let limit = option("limit").and_then(|limit| limit.parse().ok()).unwrap_or(20);
    let mut items: Vec<&Value> = items.rev().collect();
    if let Some(after) = option("after") {
        let from =
            items.iter().position(|item| item["id"] == after.as_str()).map_or(items.len(), |at| at + 1);
        items.drain(..from);
    }
    let has_more = items.len() > limit;
    items.truncate(limit);
    Answer::json(200, &json!({"object": "list", "data": items, "has_more": has_more}))
}

/// A value of the query.
pub(crate) fn query(request: &Request, name: &str) -> Option<String> {
    let mut pairs = request.query.split('&').filter_map(|pair| pair.split_once('='));
    let value = pairs.find(|(key, _)| *key == name)?.1;
    Some(value.replace("%2F", "/").replace("%3A", ":"))
}

/// A field of a form that is no file.
pub(crate) fn field(request: &Request, name: &str) -> Option<String> {
    let text = String::from_utf8_lossy(&request.body);
    let rest = text.split(&format!("name=\"{name}\"\r\n")).nth(1)?;
    Some(rest.split_once("\r\n")?.1.split("\r\n").next()?.to_owned())
}

fn card(id: &str) -> Value {
    let mut card = json!({"id": id, "object": "model", "created": 1_760_000_000, "owned_by": "fake"});
    if id == MODELS[2] {
        card["shutdown_date"] = json!("2027-01-14");
    }
    card
}

/// Purpose, name and content of an upload.
fn multipart(request: &Request) -> Option<(String, String, Vec<u8>)> {
    let boundary = request.header("content-type")?.split("boundary=").nth(1)?.trim_matches('"').to_owned();
    let (mut purpose, mut file) = (String::new(), None);
    for part in split(&request.body, format!("--{boundary}").as_bytes()) {
        let Some(head_end) = find(part, b"\r\n\r\n") else { continue };
        let head = String::from_utf8_lossy(&part[..head_end]).into_owned();
        let content = part[head_end + 4..].strip_suffix(b"\r\n").unwrap_or(&part[head_end + 4..]);
        if let Some(name) = head.split("filename=\"").nth(1).and_then(|rest| rest.split('"').next()) {
            file = Some((name.to_owned(), content.to_vec()));
        } else if head.contains("name=\"purpose\"") {
            purpose = String::from_utf8_lossy(content).into_owned();
        }
    }
    file.map(|(name, content)| (purpose, name, content))
}

fn find(bytes: &[u8], what: &[u8]) -> Option<usize> {
    bytes.windows(what.len()).position(|window| window == what)
}

fn split<'a>(mut bytes: &'a [u8], at: &[u8]) -> Vec<&'a [u8]> {
    let mut parts = Vec::new();
    while let Some(next) = find(bytes, at) {
        parts.push(&bytes[..next]);
        bytes = &bytes[next + at.len()..];
    }
    parts
}

pub(crate) fn now() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(0, |since| since.as_secs() as i64)
}

/// Unix seconds as ISO 8601 writes them.
pub(crate) fn iso(seconds: i64) -> String {
    let (days, rest) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    // The civil calendar by eras of 400 years, from March on: leap days are the last of their year.
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted.div_euclid(146_097), shifted.rem_euclid(146_097));
    let year = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day = day_of_era - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let (day, civil) = (day - (153 * month + 2) / 5 + 1, if month < 10 { month + 3 } else { month - 9 });
    let year = year + era * 400 + i64::from(civil <= 2);
    format!("{year:04}-{civil:02}-{day:02}T{:02}:{:02}:{:02}Z", rest / 3_600, rest / 60 % 60, rest % 60)
}

#[cfg(test)]
mod tests {
    #[test]
    fn days_of_the_calendar() {
        assert_eq!(super::iso(0), "1970-01-01T00:00:00Z");
        assert_eq!(super::iso(951_827_696), "2000-02-29T12:34:56Z");
        assert_eq!(super::iso(1_795_687_200), "2026-11-26T10:00:00Z");
    }
}
