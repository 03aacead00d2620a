//! A response as the protocol has it, and the events by which it grows.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::{Value, json};

use super::request::ResponseRequest;
use crate::{error::ApiError, http::logprobs::TokenLikelihood, ids};

/// How far a response is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    InProgress,
    Completed,
    Incomplete,
    Failed,
}

/// A response. The keys beyond those of the local server's own say what holds here.
#[derive(Clone, Debug, Serialize)]
pub struct ResponseObject {
    pub id: String,
    object: &'static str,
    created_at: i64,
    completed_at: Option<i64>,
    pub status: Status,
    background: bool,
    error: Option<Value>,
    incomplete_details: Option<Value>,
    instructions: Option<String>,
    max_output_tokens: Option<u32>,
    metadata: BTreeMap<String, String>,
    model: String,
    pub output: Vec<OutputMessage>,
    parallel_tool_calls: bool,
    previous_response_id: Option<String>,
    reasoning: Value,
    service_tier: &'static str,
    store: bool,
    temperature: f32,
    text: Value,
    tool_choice: &'static str,
    tools: [Value; 0],
    top_logprobs: u32,
    top_p: f32,
    truncation: &'static str,
    usage: Option<Value>,
    safety_identifier: Option<String>,
    user: Option<String>,
}

/// The message that is the answer.
#[derive(Clone, Debug, Serialize)]
pub struct OutputMessage {
    pub id: String,
    r#type: &'static str,
    status: Status,
    role: &'static str,
    pub content: Vec<OutputText>,
}

/// Its text.
#[derive(Clone, Debug, Serialize)]
pub struct OutputText {
    r#type: &'static str,
    annotations: [Value; 0],
    pub logprobs: Vec<TokenLikelihood>,
    pub text: String,
}

impl OutputMessage {
    /// A message of which nothing has been said.
    pub fn opening() -> Self {
        Self {
            id: ids::random("msg_"),
            r#type: "message",
            status: Status::InProgress,
            role: "assistant",
            content: Vec::new(),
        }
    }
}

impl OutputText {
    pub fn new(text: String, logprobs: Vec<TokenLikelihood>) -> Self {
        Self { r#type: "output_text", annotations: [], logprobs, text }
    }
}

impl ResponseObject {
    /// A response of which nothing has been said; `model` is the one that answers.
    pub fn opening(request: &ResponseRequest, model: &str) -> Self {
        Self {
            id: ids::random("resp_"),
            object: "response",
            created_at: ids::now(),
            completed_at: None,
            status: Status::InProgress,
            background: false,
            error: None,
            incomplete_details: None,
            instructions: request.instructions.clone(),
            max_output_tokens: request.max_output_tokens,
            metadata: request.metadata.clone(),
            model: model.to_owned(),
            output: Vec::new(),
            parallel_tool_calls: true,
            previous_response_id: request.previous.clone(),
            reasoning: json!({"effort": null, "summary": null}),
            service_tier: "default",
            store: request.store,
            temperature: request.params.choice.temperature,
            text: json!({"format": request.format_echo, "verbosity": "medium"}),
            tool_choice: request.tool_choice,
            tools: [],
            top_logprobs: request.top_logprobs,
            top_p: request.params.choice.top_p,
            truncation: "disabled",
            usage: None,
            safety_identifier: request.safety_identifier.clone(),
            user: request.user.clone(),
        }
    }

    /// The response with its answer in it.
    pub fn complete(&mut self, mut message: OutputMessage, cut: bool, usage: Usage) -> OutputMessage {
        let status = if cut { Status::Incomplete } else { Status::Completed };
        if cut {
            self.incomplete_details = Some(json!({"reason": "max_output_tokens"}));
        } else {
            self.completed_at = Some(ids::now());
        }
        (self.status, message.status) = (status, status);
        self.usage = Some(usage.value());
        self.output.push(message.clone());
        message
    }

    /// The response that came to nothing.
    pub fn fail(&mut self, error: ApiError) {
        self.status = Status::Failed;
        // The protocol has few codes here, and this one for whatever is wrong with the request.
        let code = if error.is_refusal() { "invalid_prompt" } else { "server_error" };
        self.error = Some(json!({"code": code, "message": error.envelope().error.message}));
    }
}

/// Tokens that a response used.
#[derive(Clone, Copy, Debug)]
pub struct Usage {
    pub input: usize,
    pub cached: usize,
    pub output: usize,
}

impl Usage {
    fn value(self) -> Value {
        let Self { input, cached, output } = self;
        json!({
            "input_tokens": input,
            "input_tokens_details": {"cached_tokens": cached, "cache_write_tokens": 0},
            "output_tokens": output,
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": input + output,
        })
    }
}
