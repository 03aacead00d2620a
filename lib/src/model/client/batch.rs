//! Batches: many chat calls at once, answered when there is time. OpenAI's and Azure's take a file of them, Anthropic's the
//! calls themselves.

use std::path::Path;

use bytes::Bytes;
use serde_json::{Value, json};

use super::{
    Client, ModelError, Replay, answer,
    call::{Body, Call},
    retry::Failure,
};
use crate::model::{
    provider::{Access, Batches, Dialect},
    wire::{Batch, BatchLine, BatchRequest, ChatReply, ChatRequest, MessageBatch, MessageLine, MessagePage},
};
use crate::store::StoreError;

/// Why a line of a batch holds no answer.
#[derive(Debug)]
pub(in crate::model) enum Unanswered {
    /// The provider says no to it, and will do so again.
    Refused(ModelError),
    /// It was not carried out, and another time it may be.
    NotRun,
    /// It was carried out, and what came of it cannot be used.
    Garbled(String),
}

impl Client {
    /// Where the calls of a batch go, as its input names it.
    pub(in crate::model) fn batch_endpoint(&self) -> &'static str {
        let access = &self.endpoint.access;
        match access.provider.dialect {
            // Deployments are in the bodies, and the version is in the address of the batch.
            Dialect::Azure => "/chat/completions",
            _ => "/v1/chat/completions",
        }
    }

    /// A call as a line of a batch's input, without its end.
    pub(in crate::model) fn batch_line(&self, request: &ChatRequest, id: &str) -> Result<String, ModelError> {
        // Nothing is streamed into a file.
        let access = Access { stream: Some(false), ..self.endpoint.access.clone() };
        let body = access.body(request).map_err(unwritable)?;
        let line = match access.provider.batch {
            Some(Batches::Messages) => json!({"custom_id": id, "params": body}),
            _ => json!({"custom_id": id, "method": "POST", "url": self.batch_endpoint(), "body": body}),
        };
        Ok(line.to_string())
    }

    /// Creates a batch of messages from a file of lines. As little as any creation is it repeated when it is in doubt.
    pub(in crate::model) async fn create_message_batch(&self, input: &Path) -> Result<Batch, ModelError> {
        let lines = tokio::fs::read(input).await.map_err(|e| StoreError::new("read", input, e))?;
        let call = Call::post(&["messages", "batches"], Body::Written(requests(&lines)));
        let made: MessageBatch = self.fetch(Call { replay: Replay::WhenRefused, ..call }).await?;
        Ok(made.into())
    }

    /// Batches of messages, newest first, until the first that was made before `since` (Unix seconds).
    pub(in crate::model) async fn message_batches_since(&self, since: i64) -> Result<Vec<Batch>, ModelError> {
        let (mut found, mut after) = (Vec::new(), None);
        loop {
            let call = Call::get(&["messages", "batches"]).query("limit", Some("100".into()));
            let page: MessagePage = self.fetch(call.query("after_id", after.clone())).await?;
            let (next, is_last) = (page.last_id, !page.has_more || page.data.is_empty());
            for batch in page.data.into_iter().map(Batch::from) {
                if batch.created_at < since {
                    return Ok(found);
                }
                found.push(batch);
            }
            // A page that names no other, or itself, is the last.
            if is_last || next.is_none() || next == after {
                return Ok(found);
            }
            after = next;
        }
    }

    /// What a batch has written: lines for [`Client::batch_result`].
    pub(in crate::model) async fn batch_results(&self, file: &str) -> Result<Bytes, ModelError> {
        match self.endpoint.access.provider.batch {
            // The address that the answer names is where the key would go to: ours is as good.
            Some(Batches::Messages) => {
                self.bytes(&Call::get(&["messages", "batches", file, "results"])).await
            }
            _ => self.file_content(file).await,
        }
    }

    /// Reads a line of what a batch has written.
    pub(in crate::model) fn batch_result(&self, line: &[u8]) -> serde_json::Result<BatchLine> {
        match self.endpoint.access.provider.batch {
            Some(Batches::Messages) => serde_json::from_slice::<MessageLine>(line).map(BatchLine::from),
            _ => serde_json::from_slice(line),
        }
    }

    /// Creates a batch. An answer that is lost or in doubt is not asked for again, because the batch may exist: see
    /// [`ModelError::is_in_doubt`].
    pub(in crate::model) async fn create_batch(
        &self,
        request: &BatchRequest,
        idempotency_key: &str,
    ) -> Result<Batch, ModelError> {
        let body = serde_json::to_value(request).map_err(unwritable)?;
        let replay =
            if self.endpoint.access.provider.idempotent { Replay::Always } else { Replay::WhenRefused };
        let call = Call::post(&["batches"], Body::Json(body));
        self.fetch(Call { idempotency_key: Some(idempotency_key.into()), replay, ..call }).await
    }

    pub(in crate::model) async fn batch(&self, id: &str) -> Result<Batch, ModelError> {
        match self.endpoint.access.provider.batch {
            Some(Batches::Messages) => {
                let batch: MessageBatch = self.fetch(Call::get(&["messages", "batches", id])).await?;
                Ok(batch.into())
            }
            _ => self.fetch(Call::get(&["batches", id])).await,
        }
    }

    /// Batches, newest first, until the first that was made before `since` (Unix seconds).
    pub(in crate::model) async fn batches_since(&self, since: i64) -> Result<Vec<Batch>, ModelError> {
        self.pages(&["batches"], usize::MAX, |batch: &Batch| batch.created_at < since).await
    }

    /// What a line of a batch's output or error file says.
    pub(in crate::model) fn batch_answer(&self, line: BatchLine) -> Result<ChatReply, Unanswered> {
        let Some(response) = line.response else {
            tracing::debug!(line.custom_id, error = ?line.error, "a call of a batch was not run");
            return Err(Unanswered::NotRun);
        };
        let body = response.body.to_string();
        if (200..300).contains(&response.status_code) {
            let reply = self.endpoint.access.reply(body.as_bytes());
            return reply.map_err(|why| Unanswered::Garbled(why.to_string()));
        }
        let bytes = if response.body == Value::Null { &[][..] } else { body.as_bytes() };
        let (code, message) = answer::refusal(bytes, self.endpoint.access.provider.dialect);
        let (status, failure) = (response.status_code, code.clone());
        let failure = Failure { status: Some(status), code: failure, ..Failure::default() };
        if failure.is_worth_retrying() {
            return Err(Unanswered::NotRun);
        }
        let (provider, request_id) = (self.endpoint.name.clone(), Some(response.request_id));
        Err(Unanswered::Refused(ModelError::Refused { provider, status, code, message, request_id }))
    }
}

/// Lines as the body of a creation.
fn requests(lines: &[u8]) -> Bytes {
    let lines = lines.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    let all = lines.collect::<Vec<_>>().join(&b","[..]);
    [&br#"{"requests":["#[..], &all, b"]}"].concat().into()
}

fn unwritable(error: serde_json::Error) -> ModelError {
    ModelError::Endpoint(format!("the request cannot be written: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{client::Endpoint, provider::provider, wire::Message};

    fn client(access: Access) -> Client {
        Client::new(Endpoint::new("test", "http://h/v1").with_access(access)).unwrap()
    }

    #[test]
    fn a_line_holds_what_a_call_would_send() {
        let request = ChatRequest { max_tokens: Some(9), ..ChatRequest::new("m", vec![Message::user("a")]) };
        let check = |access: Access, url: &str, body: Value| {
            let line: Value =
                serde_json::from_str(&client(access).batch_line(&request, "k").unwrap()).unwrap();
            assert_eq!(line, json!({"custom_id": "k", "method": "POST", "url": url, "body": body}));
        };
        let of = |name: &str| Access::to(provider(name).unwrap());
        let said = json!([{"role": "user", "content": "a"}]);
        let body = json!({"model": "m", "messages": said, "max_completion_tokens": 9});
        check(Access { stream: Some(true), ..of("openai") }, "/v1/chat/completions", body.clone());
        let deployed = json!({"model": "d", "messages": said, "max_completion_tokens": 9});
        let azure = Access { deployment: Some("d".into()), ..of("azure") };
        check(azure.clone(), "/chat/completions", deployed.clone());
        check(Access { api_version: Some("2025-01-01".into()), ..azure }, "/chat/completions", deployed);
    }

    #[test]
    fn messages_are_sent_as_they_are() {
        let request =
            ChatRequest { max_tokens: Some(9000), ..ChatRequest::new("m", vec![Message::user("a")]) };
        let client = client(Access::to(provider("anthropic").unwrap()));
        let line = |id: &str| client.batch_line(&request, id).unwrap();
        let body: Value =
            serde_json::from_slice(&requests(format!("{}\n{}\n", line("k1"), line("k2")).as_bytes()))
                .unwrap();
        // Long ones are streamed when they are asked for live, and never in a batch.
        let params =
            json!({"model": "m", "max_tokens": 9000, "messages": [{"role": "user", "content": "a"}]});
        let of = |id: &str| json!({"custom_id": id, "params": params});
        assert_eq!(body, json!({"requests": [of("k1"), of("k2")]}));
        assert_eq!(requests(b""), r#"{"requests":[]}"#);
    }

    #[test]
    fn a_line_is_an_answer_or_says_why_not() {
        let check = |response: Value, expected: &str| {
            let line = json!({"id": "b", "custom_id": "k", "response": response, "error": null});
            let read = client(Access::default()).batch_answer(serde_json::from_value(line).unwrap());
            let said = match read {
                Ok(reply) => reply.text().to_owned(),
                Err(Unanswered::NotRun) => "not run".into(),
                Err(Unanswered::Garbled(why)) => why,
                Err(Unanswered::Refused(error)) => error.to_string(),
            };
            assert!(said.starts_with(expected), "{response}: {said}");
        };
        let of = |status: u16, body: Value| json!({"status_code": status, "request_id": "r", "body": body});
        let choice =
            json!({"index": 0, "message": {"role": "assistant", "content": "yes"}, "finish_reason": "stop"});
        check(of(200, json!({"choices": [choice]})), "yes");
        check(of(200, json!({"choices": []})), "it holds no choices");
        check(of(200, Value::Null), "");
        check(Value::Null, "not run");
        check(of(500, json!({"error": {"message": "busy"}})), "not run");
        check(of(429, json!({"error": {"message": "busy", "code": "rate_limit_exceeded"}})), "not run");
        let full = json!({"error": {"message": "no credit", "code": "insufficient_quota"}});
        check(of(429, full), "test refused: no credit (HTTP 429, insufficient_quota)");
        check(of(400, json!({"error": {"message": "too long"}})), "test refused: too long (HTTP 400)");
        check(of(404, Value::Null), "test refused: no reason given (HTTP 404)");
    }
}
