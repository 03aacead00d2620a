//! Anthropic's batches of messages, which go the same ways as the others.

use serde_json::{Value, json};

use crate::{
    batches::Batching,
    http::{Answer, End, Outcome, Request},
    meter::{self, Price},
    refusal,
    replies::Question,
    shelf::{iso, now, query},
};

#[derive(Debug)]
struct Batch {
    value: Value,
    requests: Vec<Value>,
    results: Vec<Value>,
    looks: u32,
}

/// All of them, oldest first.
#[derive(Debug)]
pub(crate) struct MessageBatches {
    price: Price,
    seed: u64,
    batches: Vec<Batch>,
}

impl MessageBatches {
    pub fn new(price: Price, seed: u64) -> Self {
        Self { price, seed, batches: Vec::new() }
    }

    /// Answers a request for `messages/batches` and what is below.
    pub fn route(
        &mut self,
        request: &Request,
        rest: &[&str],
        batching: &mut Batching,
        meter: &meter::Shared,
    ) -> Option<Outcome> {
        let answer = match (request.method.as_str(), rest) {
            ("POST", []) => return Some(self.create(request, batching, meter)),
            ("GET", []) => self.list(request, *batching, meter),
            ("GET", [id]) => self.look(id, *batching, meter),
            ("GET", [id, "results"]) => self.results(id),
            _ => return None,
        };
        Some(Outcome::Whole(answer))
    }

    fn create(&mut self, request: &Request, batching: &mut Batching, meter: &meter::Shared) -> Outcome {
        if *batching == Batching::Missing {
            return Outcome::Whole(refusal(404, "not_found_error", "there are no batches here"));
        }
        let body: Value = serde_json::from_slice(&request.body).unwrap_or_default();
        let requests = body["requests"].as_array().cloned().unwrap_or_default();
        let is_whole = |request: &Value| {
            let id = request["custom_id"].as_str().unwrap_or_default();
            let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
            (1..=64).contains(&id.len()) && id.chars().all(plain) && request["params"]["max_tokens"].is_u64()
        };
        if requests.is_empty() || !requests.iter().all(is_whole) {
            return Outcome::Whole(refusal(400, "invalid_request_error", "a request is not whole"));
        }
        let value = json!({"id": format!("msgbatch_{:024}", self.batches.len()), "type": "message_batch",
            "processing_status": "in_progress", "created_at": iso(now()), "expires_at": iso(now() + 86_400),
            "ended_at": null, "cancel_initiated_at": null, "archived_at": null, "results_url": null,
            "request_counts": counts(requests.len(), &[])});
        meter.lock().batches += 1;
        self.batches.push(Batch { value: value.clone(), requests, results: Vec::new(), looks: 0 });
        match batching {
            Batching::AnswerLost(times) if *times > 0 => {
                *times -= 1;
                Outcome::Nothing(End::Reset)
            }
            Batching::AnswerFails(times) if *times > 0 => {
                *times -= 1;
                Outcome::Whole(refusal(500, "api_error", "the server is in trouble"))
            }
            _ => Outcome::Whole(Answer::json(200, &value)),
        }
    }

    /// Newest first. A list is a look at each batch: time passes for all.
    fn list(&mut self, request: &Request, batching: Batching, meter: &meter::Shared) -> Answer {
        (0..self.batches.len()).for_each(|index| self.move_on(index, batching, meter));
        let limit = query(request, "limit").and_then(|limit| limit.parse().ok()).unwrap_or(20);
        let after = query(request, "after_id");
        let newest = self.batches.iter().rev().map(|batch| &batch.value);
        let mut rest: Vec<&Value> = match &after {
            None => newest.collect(),
            Some(id) => newest.skip_while(|value| value["id"] != id.as_str()).skip(1).collect(),
        };
        let has_more = rest.len() > limit;
        rest.truncate(limit);
        let end = |value: Option<&&Value>| value.map(|value| value["id"].clone());
        Answer::json(
            200,
            &json!({"data": rest, "has_more": has_more, "first_id": end(rest.first()), "last_id": end(rest.last())}),
        )
    }

    /// Shows a batch; the second look finds it ended.
    fn look(&mut self, id: &str, batching: Batching, meter: &meter::Shared) -> Answer {
        let Some(index) = self.batches.iter().position(|batch| batch.value["id"] == id) else {
            return refusal(404, "not_found_error", &format!("no such batch: {id}"));
        };
        self.move_on(index, batching, meter);
        Answer::json(200, &self.batches[index].value)
    }

    fn move_on(&mut self, index: usize, batching: Batching, meter: &meter::Shared) {
        self.batches[index].looks += 1;
        let is_open = self.batches[index].value["processing_status"] == "in_progress";
        if is_open && self.batches[index].looks > 1 && batching != Batching::Never {
            self.end(index, batching, meter);
        }
    }

    fn end(&mut self, index: usize, batching: Batching, meter: &meter::Shared) {
        let requests = self.batches[index].requests.clone();
        let half = requests.len().div_ceil(2);
        let errored = |word: &str| {
            let error = json!({"type": "error", "error": {"type": word, "message": "it went wrong"}, "request_id": "req"});
            json!({"type": "errored", "error": error})
        };
        let result = |(n, request): (usize, &Value)| {
            let result = match (batching, n % 3) {
                (Batching::PartlyFails, 1) => errored("overloaded_error"),
                (Batching::PartlyFails, 2) => errored("invalid_request_error"),
                (Batching::Expires, _) if n >= half => json!({"type": "expired"}),
                (Batching::Cancelled, _) if n >= half => json!({"type": "canceled"}),
                (Batching::Fails, _) => errored("api_error"),
                _ => self.answered(&request["params"], meter),
            };
            json!({"custom_id": request["custom_id"], "result": result})
        };
        let results: Vec<Value> = requests.iter().enumerate().rev().map(result).collect();
        let batch = &mut self.batches[index];
        let kinds: Vec<&str> = results.iter().filter_map(|line| line["result"]["type"].as_str()).collect();
        batch.value["request_counts"] = counts(0, &kinds);
        batch.value["processing_status"] = json!("ended");
        batch.value["ended_at"] = json!(iso(now()));
        let id = batch.value["id"].as_str().unwrap_or_default();
        batch.value["results_url"] =
            json!(format!("https://elsewhere.invalid/v1/messages/batches/{id}/results"));
        batch.results = results;
    }

    /// Bills a call at half the price.
    fn answered(&self, params: &Value, meter: &meter::Shared) -> Value {
        let (question, sha) = (Question::read(params), crate::sha_of(params));
        let reply = question.reply(self.seed, &sha);
        let Price { input, output } = self.price;
        let mut meter = meter.lock();
        meter.billed += (reply.input * input + reply.output * output).div_ceil(2);
        *meter.batched.entry(sha.clone()).or_default() += 1;
        json!({"type": "succeeded", "message": reply.message(&question.model, &sha[..12])})
    }

    fn results(&self, id: &str) -> Answer {
        match self.batches.iter().find(|batch| batch.value["id"] == id && !batch.results.is_empty()) {
            Some(batch) => Answer {
                body: batch.results.iter().map(|line| format!("{line}\n")).collect::<String>().into_bytes(),
                content_type: "application/binary",
                ..Answer::json(200, &Value::Null)
            },
            None => refusal(404, "not_found_error", "there are no results"),
        }
    }
}

fn counts(processing: usize, kinds: &[&str]) -> Value {
    let of = |kind: &str| kinds.iter().filter(|other| **other == kind).count();
    json!({"processing": processing, "succeeded": of("succeeded"), "errored": of("errored"),
        "canceled": of("canceled"), "expired": of("expired")})
}
