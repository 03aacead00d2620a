//! Batches: they answer their calls at the second look, or go another way.

use serde_json::{Value, json};

use crate::{
    http::{Answer, End, Outcome},
    message_batches::MessageBatches,
    meter::{self, Price},
    refusal,
    replies::Question,
};

/// How batches go.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Batching {
    /// The second look finds a batch answered, in the other order.
    #[default]
    Answers,
    /// Every third call fails in a way that passes, and every third in one that does not.
    PartlyFails,
    /// The first half is answered, then the time is over.
    Expires,
    /// The first half is answered when somebody cancels it.
    Cancelled,
    /// Its input is refused.
    Fails,
    /// It is never over.
    Never,
    /// The next creations are done, and the connection is reset instead of an answer.
    AnswerLost(u32),
    /// The next creations are done, and answered with status 500.
    AnswerFails(u32),
    /// There are no batches here.
    Missing,
}

#[derive(Debug)]
struct Batch {
    value: Value,
    input: Vec<u8>,
}

/// What a look at a batch has written.
pub(crate) struct Written {
    pub id: String,
    pub content: Vec<u8>,
}

/// All batches.
#[derive(Debug)]
pub(crate) struct Batches {
    pub batching: Batching,
    price: Price,
    seed: u64,
    batches: Vec<Batch>,
    pub of_messages: MessageBatches,
}

impl Batches {
    pub fn new(batching: Batching, price: Price, seed: u64) -> Self {
        let of_messages = MessageBatches::new(price, seed);
        Self { batching, price, seed, batches: Vec::new(), of_messages }
    }

    pub fn values(&self) -> impl DoubleEndedIterator<Item = &Value> {
        self.batches.iter().map(|batch| &batch.value)
    }

    /// Creates one of a file's content.
    pub fn create(&mut self, asked: &Value, input: &[u8], now: i64, meter: &meter::Shared) -> Outcome {
        if self.batching == Batching::Missing {
            return Outcome::Whole(refusal(404, "unknown_url", "there are no batches here"));
        }
        let value = json!({"id": format!("batch_{:024}", self.batches.len()), "object": "batch",
            "endpoint": asked["endpoint"], "errors": null, "input_file_id": asked["input_file_id"],
            "completion_window": "24h", "status": "validating", "output_file_id": null, "error_file_id": null,
            "created_at": now, "request_counts": {"total": 0, "completed": 0, "failed": 0},
            "metadata": asked["metadata"]});
        meter.lock().batches += 1;
        self.batches.push(Batch { value: value.clone(), input: input.to_vec() });
        match &mut self.batching {
            Batching::AnswerLost(times) if *times > 0 => {
                *times -= 1;
                Outcome::Nothing(End::Reset)
            }
            Batching::AnswerFails(times) if *times > 0 => {
                *times -= 1;
                Outcome::Whole(refusal(500, "server_error", "the server is in trouble"))
            }
            _ => Outcome::Whole(Answer::json(200, &value)),
        }
    }

    /// Shows a batch and moves it on; files that it writes on the way.
    pub fn look(&mut self, id: &str, meter: &meter::Shared) -> (Answer, Vec<Written>) {
        let Some(index) = self.batches.iter().position(|batch| batch.value["id"] == id) else {
            return (refusal(404, "batch_not_found", &format!("no such batch: {id}")), Vec::new());
        };
        let status = self.batches[index].value["status"].as_str().unwrap_or_default().to_owned();
        let mut written = Vec::new();
        match (status.as_str(), self.batching) {
            ("validating", Batching::Fails) => {
                let value = &mut self.batches[index].value;
                value["status"] = json!("failed");
                value["errors"] = json!({"object": "list", "data": [{"code": "token_limit_exceeded",
                    "message": "too many tokens are enqueued", "param": null, "line": null}]});
            }
            ("validating", _) => self.batches[index].value["status"] = json!("in_progress"),
            ("in_progress", Batching::Never) => {}
            ("in_progress", _) => written = self.answer(index, meter),
            _ => {}
        }
        (Answer::json(200, &self.batches[index].value), written)
    }

    pub fn cancel(&mut self, id: &str) -> Answer {
        match self.batches.iter_mut().find(|batch| batch.value["id"] == id) {
            Some(batch) => {
                batch.value["status"] = json!("cancelled");
                Answer::json(200, &batch.value)
            }
            None => refusal(404, "batch_not_found", &format!("no such batch: {id}")),
        }
    }

    /// Answers the calls of a batch, and bills those that it answers at half the price.
    fn answer(&mut self, index: usize, meter: &meter::Shared) -> Vec<Written> {
        let text = String::from_utf8_lossy(&self.batches[index].input).into_owned();
        let lines: Vec<Value> = text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
        let half = lines.len().div_ceil(2);
        let (mut good, mut bad) = (Vec::new(), Vec::new());
        for (n, line) in lines.iter().enumerate().rev() {
            let refused = match (self.batching, n % 3) {
                (Batching::PartlyFails, 1) => Some(failed(line, 500, "server_error")),
                (Batching::PartlyFails, 2) => Some(failed(line, 400, "invalid_request_error")),
                (Batching::Expires, _) if n >= half => Some(not_run(line, "batch_expired")),
                (Batching::Cancelled, _) if n >= half => Some(not_run(line, "batch_cancelled")),
                _ => None,
            };
            match refused {
                Some(line) => bad.push(line),
                None => good.push(self.answered(line, meter)),
            }
        }
        let status = match self.batching {
            Batching::Expires => "expired",
            Batching::Cancelled => "cancelled",
            _ => "completed",
        };
        let value = &mut self.batches[index].value;
        value["status"] = json!(status);
        value["request_counts"] =
            json!({"total": lines.len(), "completed": good.len(), "failed": lines.len() - good.len()});
        let mut written = Vec::new();
        for (key, lines) in [("output_file_id", good), ("error_file_id", bad)] {
            if !lines.is_empty() {
                let id = format!("file-{}-{index}", &key[..5]);
                value[key] = json!(id);
                let content = lines.iter().map(|line| format!("{line}\n")).collect::<String>().into_bytes();
                written.push(Written { id, content });
            }
        }
        written
    }

    fn answered(&self, line: &Value, meter: &meter::Shared) -> Value {
        let (question, sha) = (Question::read(&line["body"]), crate::sha_of(&line["body"]));
        let reply = question.reply(self.seed, &sha);
        let Price { input, output } = self.price;
        let mut meter = meter.lock();
        meter.billed += (reply.input * input + reply.output * output).div_ceil(2);
        *meter.batched.entry(sha.clone()).or_default() += 1;
        let body = reply.chat(&question.model, &sha[..12]);
        json!({"id": format!("batch_req_{}", &sha[..12]), "custom_id": line["custom_id"], "error": null,
            "response": {"status_code": 200, "request_id": "req_fake", "body": body}})
    }
}

fn failed(line: &Value, status: u16, code: &str) -> Value {
    let body = crate::error(code, "it went wrong");
    json!({"id": "batch_req_failed", "custom_id": line["custom_id"], "error": null,
        "response": {"status_code": status, "request_id": "req_fake", "body": body}})
}

fn not_run(line: &Value, code: &str) -> Value {
    json!({"id": "batch_req_not_run", "custom_id": line["custom_id"], "response": null,
        "error": {"code": code, "message": "this request was not carried out"}})
}
