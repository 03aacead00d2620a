//! Fireworks' shape of datasets and jobs, as its SDK expects it: see `lib/tests/sdk/fireworks.json`.

use serde_json::{Value, json};

use crate::{
    http::{Answer, Outcome, Request},
    meter, refusal,
    shelf::{Tuning, delivered, forbidden, iso, now, query},
};

const JOBS: &str = "supervisedFineTuningJobs";
/// Models that are there, beside those that jobs make.
const MODELS: [&str; 1] = ["accounts/fireworks/models/llama-v3p1-8b-instruct"];

#[derive(Debug, Default)]
pub(crate) struct Fireworks {
    datasets: Vec<Value>,
    jobs: Vec<Job>,
}

#[derive(Debug)]
struct Job {
    value: Value,
    looks: u32,
    tuning: Tuning,
}

impl Fireworks {
    pub fn route(
        &mut self,
        request: &Request,
        tuning: &mut Tuning,
        meter: &meter::Shared,
    ) -> Option<Outcome> {
        let path = request.parts();
        let answer = match (request.method.as_str(), path.as_slice()) {
            ("PUT", ["fireworks-storage", id]) => self.put(id, request, meter),
            ("POST", ["accounts", account, "datasets"]) => self.make(account, request),
            ("POST", ["accounts", account, "datasets", named]) => self.fill(account, named, request),
            ("GET", ["accounts", account, "datasets", id]) => {
                let name = format!("accounts/{account}/datasets/{id}");
                found(self.datasets.iter().find(|dataset| dataset["name"] == name.as_str()))
            }
            ("POST", ["accounts", account, JOBS]) => {
                return Some(self.create(account, request, tuning, meter));
            }
            ("GET", ["accounts", _, JOBS]) => {
                let data: Vec<&Value> = self.jobs.iter().rev().map(|job| &job.value).collect();
                Answer::json(200, &json!({JOBS: data, "nextPageToken": ""}))
            }
            ("GET", ["accounts", account, JOBS, id]) => self.job(account, id, Job::look),
            ("POST", ["accounts", account, JOBS, named]) => {
                let (id, verb) = named.split_once(':')?;
                let state = if verb == "cancel" { "JOB_STATE_CANCELLED" } else { "JOB_STATE_PENDING" };
                self.job(account, id, |job| {
                    job.value["state"] = json!(state);
                    Answer::json(200, &json!({}))
                })
            }
            ("GET", ["accounts", rest @ ..]) => self.model(&format!("accounts/{}", rest.join("/"))),
            _ => return None,
        };
        Some(Outcome::Whole(answer))
    }

    fn make(&mut self, account: &str, request: &Request) -> Answer {
        let asked: Value = serde_json::from_slice(&request.body).unwrap_or_default();
        let name = format!("accounts/{account}/datasets/{}", asked["datasetId"].as_str().unwrap_or_default());
        if self.datasets.iter().any(|dataset| dataset["name"] == name.as_str()) {
            return exists(&name);
        }
        let dataset =
            json!({"name": name, "state": "UPLOADING", "exampleCount": asked["dataset"]["exampleCount"]});
        self.datasets.push(dataset.clone());
        Answer::json(200, &dataset)
    }

    fn fill(&mut self, account: &str, named: &str, request: &Request) -> Answer {
        let (id, verb) = named.split_once(':').unwrap_or((named, ""));
        let name = format!("accounts/{account}/datasets/{id}");
        let Some(dataset) = self.datasets.iter_mut().find(|dataset| dataset["name"] == name.as_str()) else {
            return missing();
        };
        let asked: Value = serde_json::from_slice(&request.body).unwrap_or_default();
        match verb {
            "getUploadEndpoint" => {
                let host = request.header("host").unwrap_or_default();
                let names = asked["filenameToSize"].as_object().cloned().unwrap_or_default();
                let urls: serde_json::Map<_, _> = names
                    .into_iter()
                    .map(|(name, _)| (name, json!(format!("http://{host}/fireworks-storage/{id}"))))
                    .collect();
                Answer::json(200, &json!({ "filenameToSignedUrls": urls }))
            }
            "validateUpload" if dataset["bytes"].is_number() => {
                dataset["state"] = json!("READY");
                Answer::json(200, &json!({}))
            }
            _ => refusal(400, "FAILED_PRECONDITION", "nothing was uploaded"),
        }
    }

    /// Storage takes bytes from whoever has the address with what was signed, and must not be shown the key.
    fn put(&mut self, id: &str, request: &Request, meter: &meter::Shared) -> Answer {
        let size = request.body.len();
        let signed = request.header("x-goog-content-length-range") == Some(format!("{size},{size}").as_str())
            && request.header("content-type") == Some("application/octet-stream");
        if !signed || !request.key().is_empty() {
            return refusal(403, "SignatureDoesNotMatch", "the request is not the one that was signed");
        }
        let end = format!("/{id}");
        let named = |dataset: &&mut Value| dataset["name"].as_str().is_some_and(|name| name.ends_with(&end));
        match self.datasets.iter_mut().find(named) {
            Some(dataset) => {
                dataset["bytes"] = json!(size);
                meter.lock().uploads += 1;
                Answer::json(200, &Value::Null)
            }
            None => missing(),
        }
    }

    fn create(
        &mut self,
        account: &str,
        request: &Request,
        tuning: &mut Tuning,
        meter: &meter::Shared,
    ) -> Outcome {
        if let Some(no) = forbidden(tuning) {
            return Outcome::Whole(no);
        }
        let id =
            query(request, "supervisedFineTuningJobId").unwrap_or_else(|| format!("job-{}", self.jobs.len()));
        let name = format!("accounts/{account}/{JOBS}/{id}");
        if self.jobs.iter().any(|job| job.value["name"] == name.as_str()) {
            return Outcome::Whole(exists(&name));
        }
        let mut value: Value = serde_json::from_slice(&request.body).unwrap_or_default();
        let ready = |dataset: &Value| dataset["name"] == value["dataset"] && dataset["state"] == "READY";
        if !self.datasets.iter().any(ready) {
            return Outcome::Whole(refusal(400, "INVALID_ARGUMENT", "the dataset is not ready"));
        }
        value["name"] = json!(name);
        value["state"] = json!("JOB_STATE_CREATING");
        value["createTime"] = json!(iso(match tuning {
            Tuning::Stuck { minutes } => now() - *minutes * 60,
            _ => now(),
        }));
        meter.lock().jobs += 1;
        self.jobs.push(Job { value: value.clone(), looks: 0, tuning: tuning.clone() });
        delivered(tuning, &value)
    }

    fn job(&mut self, account: &str, id: &str, show: impl FnOnce(&mut Job) -> Answer) -> Answer {
        let name = format!("accounts/{account}/{JOBS}/{id}");
        self.jobs.iter_mut().find(|job| job.value["name"] == name.as_str()).map_or_else(missing, show)
    }

    fn model(&self, name: &str) -> Answer {
        let made = |job: &Job| {
            let tuned = job.value["outputModel"].as_str().unwrap_or_default();
            job.value["state"] == "JOB_STATE_COMPLETED" && name.ends_with(&format!("/models/{tuned}"))
        };
        match MODELS.contains(&name) || self.jobs.iter().any(made) {
            true => Answer::json(200, &json!({ "name": name })),
            false => missing(),
        }
    }
}

impl Job {
    /// Shows the job and moves it on.
    fn look(&mut self) -> Answer {
        let over = ["COMPLETED", "FAILED", "CANCELLED"];
        let over = over.iter().any(|word| self.value["state"] == format!("JOB_STATE_{word}").as_str());
        self.looks += 1;
        let state = match (&self.tuning, self.looks) {
            _ if over => return Answer::json(200, &self.value),
            (Tuning::Stuck { .. }, _) | (_, 1) => "VALIDATING",
            (_, 2) => "PENDING",
            (Tuning::Slow, _) | (_, 3) => "RUNNING",
            (Tuning::Odd, 4) => "POLISHING",
            (Tuning::Fails(_), _) => "FAILED",
            _ => "COMPLETED",
        };
        self.value["state"] = json!(format!("JOB_STATE_{state}"));
        self.value["jobProgress"] = json!({"percent": (self.looks * 20).min(100), "epoch": 0});
        if !matches!(self.tuning, Tuning::Stuck { .. }) {
            self.value["updateTime"] = json!(iso(now()));
        }
        match &self.tuning {
            Tuning::Fails(code) if state == "FAILED" => {
                let word = match code.as_str() {
                    "exceeded_quota" => "RESOURCE_EXHAUSTED",
                    "invalid_training_file" => "INVALID_ARGUMENT",
                    _ => "INTERNAL",
                };
                self.value["status"] = json!({"code": word, "message": format!("the job failed: {code}")});
            }
            _ => {}
        }
        Answer::json(200, &self.value)
    }
}

fn found(value: Option<&Value>) -> Answer {
    value.map_or_else(missing, |value| Answer::json(200, value))
}

fn missing() -> Answer {
    refusal(404, "NOT_FOUND", "there is no such resource")
}

fn exists(name: &str) -> Answer {
    refusal(409, "ALREADY_EXISTS", &format!("{name} exists"))
}
