//! Batches in OpenAI's form: many chat calls in a file, answered when there is time.

use serde_json::{Value, json};

use super::{
    Client, ModelError, Replay, answer,
    call::{Body, Call},
    retry::Failure,
};
use crate::model::{
    provider::{Access, Dialect},
    wire::{Batch, BatchLine, BatchRequest, ChatReply, ChatRequest},
};

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
            // Deployments are in the bodies, and the version in the address of the batch.
            Dialect::Azure if access.api_version.is_some() => "/chat/completions",
            _ => "/v1/chat/completions",
        }
    }

    /// A call as a line of a batch's input, without its end.
    pub(in crate::model) fn batch_line(&self, request: &ChatRequest, id: &str) -> Result<String, ModelError> {
        // Nothing is streamed into a file.
        let access = Access { stream: Some(false), ..self.endpoint.access.clone() };
        let body = access.body(request).map_err(unwritable)?;
        let line = json!({"custom_id": id, "method": "POST", "url": self.batch_endpoint(), "body": body});
        Ok(line.to_string())
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
        self.fetch(Call::get(&["batches", id])).await
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
        check(azure.clone(), "/v1/chat/completions", deployed.clone());
        check(Access { api_version: Some("2025-01-01".into()), ..azure }, "/chat/completions", deployed);
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
