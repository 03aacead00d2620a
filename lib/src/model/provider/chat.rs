//! OpenAI's chat completions.

use serde_json::{Value, json};

use super::{Access, CUT, Limit, Step, Unusable};
use crate::model::wire::{ChatChoice, ChatReply, ChatRequest, ReplyMessage, StreamOptions};

/// The request with the names and knobs that the provider takes.
pub(super) fn body(request: &ChatRequest, access: &Access, stream: bool) -> serde_json::Result<Value> {
    let (provider, limit) = (access.provider, request.token_limit());
    let (newer, older) = match provider.limit {
        Limit::MaxCompletionTokens => (limit, None),
        Limit::MaxTokens => (None, limit),
    };
    let sampling = access.sampling;
    let request = ChatRequest {
        max_completion_tokens: newer,
        max_tokens: older,
        temperature: request.temperature.filter(|_| sampling.unwrap_or(provider.temperature)),
        top_p: request.top_p.filter(|_| sampling.unwrap_or(provider.temperature)),
        seed: request.seed.filter(|_| provider.seed && sampling != Some(false)),
        stream: stream.then_some(true),
        stream_options: (stream && provider.usage_in_stream)
            .then_some(StreamOptions { include_usage: Some(true) }),
        ..request.clone()
    };
    serde_json::to_value(request)
}

/// A streamed answer so far.
#[derive(Debug, Default)]
pub(in crate::model) struct Pieces {
    id: String,
    model: String,
    created: i64,
    usage: Option<Value>,
    choices: Vec<ChatChoice>,
}

/// Answers of one request at most: an index beyond it is no answer of ours.
const MAX_CHOICES: usize = 128;

impl Pieces {
    pub(super) fn event(&mut self, chunk: &Value) -> Result<Step, Unusable> {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        if self.id.is_empty() {
            self.id = text(&chunk["id"]);
            self.model = text(&chunk["model"]);
            self.created = chunk["created"].as_i64().unwrap_or_default();
        }
        if chunk["usage"].is_object() {
            self.usage = Some(chunk["usage"].clone());
        }
        for choice in chunk["choices"].as_array().into_iter().flatten() {
            let index = choice["index"].as_u64().unwrap_or(0) as usize;
            if index >= MAX_CHOICES {
                return Err(format!("there is no answer {index}").into());
            }
            while self.choices.len() <= index {
                self.choices.push(ChatChoice {
                    index: self.choices.len() as u32,
                    message: ReplyMessage { content: None, ..ReplyMessage::new("") },
                    logprobs: None,
                    finish_reason: None,
                });
            }
            let whole = &mut self.choices[index];
            push(&mut whole.message.content, &choice["delta"]["content"]);
            push(&mut whole.message.refusal, &choice["delta"]["refusal"]);
            if let Some(reason) = choice["finish_reason"].as_str() {
                whole.finish_reason = Some(reason.to_owned());
            }
        }
        Ok(Step::More)
    }

    pub(super) fn reply(mut self) -> Result<ChatReply, Unusable> {
        if self.choices.is_empty() || self.choices.iter().any(|choice| choice.finish_reason.is_none()) {
            return Err(Unusable::Content(CUT.into()));
        }
        for choice in &mut self.choices {
            // A stream opens with an empty text, also where a refusal follows.
            if choice.message.refusal.is_some() {
                choice.message.content = choice.message.content.take().filter(|text| !text.is_empty());
            }
        }
        let head = json!({"id": self.id, "model": self.model, "created": self.created, "choices": [], "usage": self.usage});
        Ok(ChatReply { choices: self.choices, ..serde_json::from_value(head)? })
    }
}

fn push(whole: &mut Option<String>, piece: &Value) {
    if let Some(piece) = piece.as_str() {
        whole.get_or_insert_default().push_str(piece);
    }
}
