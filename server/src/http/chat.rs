//! `/chat/completions`, whole or streamed.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use axum::{
    Json,
    body::{Body as HttpBody, Bytes},
    extract::State,
    response::{IntoResponse, Response},
};
use futures::stream;
use hone::model::wire::{ChatChoice, ChatChunk, ChatReply, ChatRequest, ChunkChoice, Message, Usage};
use hone_engine::{
    chat::{ChatMessage, Role},
    generate::{Finish, SamplingParams},
};
use rand::RngExt;
use serde::Serialize;
use serde_json::Value;

use super::extract::Body;
use crate::{
    app::App,
    engine::{Answer, Ask, Update},
    error::ApiError,
    ids,
};

/// Most answers per request.
const MOST_ANSWERS: u32 = 16;
/// A silent stream says this often that it is alive.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

pub async fn create(
    State(app): State<Arc<App>>,
    Body(request): Body<ChatRequest>,
) -> Result<Response, ApiError> {
    check(&request)?;
    let messages = request.messages.iter().enumerate().map(chat_message).collect::<Result<_, _>>()?;
    let model = app.resolve(&request.model)?;
    let reply = ChatReply::new(ids::random("chatcmpl-"), ids::now(), &model.id);
    let adapters = model.chain.iter().map(|id| app.tuned.folder(id)).collect();
    let mut answer = app.engine.ask(Ask { model, adapters, messages, params: params(&request) })?;
    // Refusals come before the first token, so a stream can still answer with a status of its own.
    let prompt_tokens = match answer.next().await {
        Update::Started { prompt_tokens } => prompt_tokens,
        Update::Failed(error) => return Err(error),
        Update::Text { .. } | Update::Done { .. } => {
            return Err(ApiError::internal("an answer without a start"));
        }
    };
    let collected = Collected::new(reply, prompt_tokens, request.n.unwrap_or(1));
    if request.stream == Some(true) {
        let usage = request.stream_options.is_some_and(|options| options.include_usage);
        return Ok(stream_of(answer, collected, usage));
    }
    Ok(Json(whole(answer, collected).await?).into_response())
}

fn check(request: &ChatRequest) -> Result<(), ApiError> {
    let refuse = |param: &str, rule: &str| Err(ApiError::bad_param(param, format!("`{param}` {rule}")));
    if request.messages.is_empty() {
        return refuse("messages", "must hold at least one message");
    }
    if request.temperature.is_some_and(|value| !(0.0..=2.0).contains(&value)) {
        return refuse("temperature", "must be from 0 to 2");
    }
    if request.top_p.is_some_and(|value| !(value > 0.0 && value <= 1.0)) {
        return refuse("top_p", "must be above 0 and at most 1");
    }
    if request.n.is_some_and(|n| n == 0 || n > MOST_ANSWERS) {
        return refuse("n", "must be from 1 to 16");
    }
    if request
        .stop
        .as_ref()
        .is_some_and(|stop| stop.texts().len() > 4 || stop.texts().iter().any(String::is_empty))
    {
        return refuse("stop", "may hold up to 4 texts, none of them empty");
    }
    for (name, limit) in
        [("max_tokens", request.max_tokens), ("max_completion_tokens", request.max_completion_tokens)]
    {
        if limit == Some(0) {
            return refuse(name, "must be at least 1");
        }
    }
    check_extra(request)
}

/// What would change the answer and cannot be had is refused; the rest is ignored with a word in the log.
fn check_extra(request: &ChatRequest) -> Result<(), ApiError> {
    for (name, value) in &request.extra {
        let wanted = match name.as_str() {
            "logprobs" => value == &Value::Bool(true),
            "top_logprobs" => value.as_u64().is_some_and(|n| n > 0),
            "tools" | "functions" => value.as_array().is_some_and(|items| !items.is_empty()),
            "response_format" => !value.is_null() && value["type"] != "text",
            _ => {
                tracing::info!(name, "ignoring a chat parameter that has no effect here");
                false
            }
        };
        if wanted {
            return Err(ApiError::bad_param(name, format!("`{name}` is not supported by this server")));
        }
    }
    Ok(())
}

fn chat_message((index, message): (usize, &Message)) -> Result<ChatMessage, ApiError> {
    let role = match message.role.as_str() {
        "system" | "developer" => Role::System,
        "user" => Role::User,
        "assistant" => Role::Assistant,
        "tool" | "function" => Role::Tool,
        other => {
            let message = format!("message {index} has the role `{other}`: use system, user or assistant");
            return Err(ApiError::bad_param("messages", message));
        }
    };
    Ok(ChatMessage::new(role, &message.content))
}

/// One set of sampling options per answer; each has a seed of its own.
fn params(request: &ChatRequest) -> Vec<SamplingParams> {
    let seed = request.seed.map_or_else(|| rand::rng().random(), i64::cast_unsigned);
    let one = |index: u32| SamplingParams {
        temperature: request.temperature.unwrap_or(1.0) as f32,
        top_p: request.top_p.unwrap_or(1.0) as f32,
        seed: seed.wrapping_add(u64::from(index)),
        max_tokens: request.token_limit().map_or(usize::MAX, |limit| limit as usize),
        stop: request.stop.as_ref().map(|stop| stop.texts().to_vec()).unwrap_or_default(),
        logprobs: false,
    };
    (0..request.n.unwrap_or(1)).map(one).collect()
}

/// The answers as far as they have come.
struct Collected {
    reply: ChatReply,
    prompt_tokens: usize,
    completion_tokens: usize,
    texts: Vec<String>,
    finished: Vec<Option<Finish>>,
}

impl Collected {
    fn new(reply: ChatReply, prompt_tokens: usize, n: u32) -> Self {
        let n = n as usize;
        Self {
            reply,
            prompt_tokens,
            completion_tokens: 0,
            texts: vec![String::new(); n],
            finished: vec![None; n],
        }
    }

    fn finish(&mut self, index: usize, finish: Finish, tokens: usize) {
        self.finished[index] = Some(finish);
        self.completion_tokens += tokens;
    }

    fn is_complete(&self) -> bool {
        self.finished.iter().all(Option::is_some)
    }

    fn usage(&self) -> Usage {
        Usage::new(self.prompt_tokens as u64, self.completion_tokens as u64)
    }
}

fn reason(finish: Finish) -> &'static str {
    match finish {
        Finish::Stop => "stop",
        Finish::Length => "length",
    }
}

async fn whole(mut answer: Answer, mut collected: Collected) -> Result<ChatReply, ApiError> {
    while !collected.is_complete() {
        match answer.next().await {
            Update::Started { .. } => {}
            Update::Text { index, text } => collected.texts[index].push_str(&text),
            Update::Done { index, finish, tokens } => collected.finish(index, finish, tokens),
            Update::Failed(error) => return Err(error),
        }
    }
    let usage = collected.usage();
    let answers = collected.texts.into_iter().zip(collected.finished).zip(0..);
    let choices =
        answers.map(|((text, finish), index)| ChatChoice::new(index, text, finish.map_or("stop", reason)));
    Ok(ChatReply { choices: choices.collect(), usage: Some(usage), ..collected.reply })
}

/// A streamed answer: what still has to go out, and where more comes from.
struct Streaming {
    answer: Answer,
    collected: Collected,
    usage: bool,
    ready: VecDeque<Bytes>,
    over: bool,
}

fn stream_of(answer: Answer, collected: Collected, usage: bool) -> Response {
    let mut streaming = Streaming { answer, collected, usage, ready: VecDeque::new(), over: false };
    for index in 0..streaming.collected.texts.len() {
        streaming.say(vec![ChunkChoice::opening(number(index))]);
    }
    let body = stream::unfold(streaming, async |mut streaming| {
        let bytes = streaming.next().await?;
        Some((Ok::<_, std::convert::Infallible>(bytes), streaming))
    });
    let headers = [("content-type", "text/event-stream"), ("cache-control", "no-cache")];
    (headers, HttpBody::from_stream(Box::pin(body))).into_response()
}

impl Streaming {
    async fn next(&mut self) -> Option<Bytes> {
        while self.ready.is_empty() && !self.over {
            match tokio::time::timeout(KEEP_ALIVE, self.answer.next()).await {
                Err(_) => self.ready.push_back(Bytes::from_static(b": keepalive\n\n")),
                Ok(update) => self.take(update),
            }
        }
        self.ready.pop_front()
    }

    fn take(&mut self, update: Update) {
        match update {
            Update::Started { .. } => {}
            Update::Text { index, text } => self.say(vec![ChunkChoice::text(number(index), text)]),
            Update::Done { index, finish, tokens } => {
                self.collected.finish(index, finish, tokens);
                self.say(vec![ChunkChoice::end(number(index), reason(finish))]);
                if self.collected.is_complete() {
                    self.close();
                }
            }
            Update::Failed(error) => {
                self.send(&error.envelope());
                self.over = true;
            }
        }
    }

    fn say(&mut self, choices: Vec<ChunkChoice>) {
        self.send(&ChatChunk::of(&self.collected.reply, choices));
    }

    fn close(&mut self) {
        if self.usage {
            let usage = Some(self.collected.usage());
            self.send(&ChatChunk { usage, ..ChatChunk::of(&self.collected.reply, Vec::new()) });
        }
        self.ready.push_back(Bytes::from_static(b"data: [DONE]\n\n"));
        self.over = true;
    }

    fn send(&mut self, value: &impl Serialize) {
        let json = serde_json::to_string(value).unwrap_or_default();
        self.ready.push_back(Bytes::from(format!("data: {json}\n\n")));
    }
}

fn number(index: usize) -> u32 {
    u32::try_from(index).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn check_request(change: Value, expected: Option<&str>) {
        let mut request = json!({"model": "m", "messages": [{"role": "user", "content": "hi"}]});
        request.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
        let request: ChatRequest = serde_json::from_value(request).unwrap();
        let param = check(&request).err().map(|error| error.envelope().error.param.unwrap_or_default());
        assert_eq!(param.as_deref(), expected, "{change}");
    }

    #[test]
    fn requests_are_checked_before_they_reach_the_engine() {
        check_request(json!({}), None);
        check_request(json!({"user": "me", "store": true, "logprobs": false, "tools": []}), None);
        check_request(json!({"response_format": {"type": "text"}}), None);
        check_request(json!({"temperature": 2.1}), Some("temperature"));
        check_request(json!({"temperature": -0.1}), Some("temperature"));
        check_request(json!({"top_p": 0}), Some("top_p"));
        check_request(json!({"n": 0}), Some("n"));
        check_request(json!({"n": 17}), Some("n"));
        check_request(json!({"stop": ["a", "b", "c", "d", "e"]}), Some("stop"));
        check_request(json!({"stop": ""}), Some("stop"));
        check_request(json!({"max_tokens": 0}), Some("max_tokens"));
        check_request(json!({"messages": []}), Some("messages"));
        check_request(json!({"logprobs": true}), Some("logprobs"));
        check_request(json!({"tools": [{}]}), Some("tools"));
        check_request(json!({"response_format": {"type": "json_object"}}), Some("response_format"));
    }

    #[test]
    fn every_answer_has_its_own_seed() {
        let request = ChatRequest { n: Some(3), seed: Some(-1), ..ChatRequest::default() };
        let seeds: Vec<u64> = params(&request).into_iter().map(|params| params.seed).collect();
        assert_eq!(seeds, [u64::MAX, 0, 1]);
    }
}
