//! The agent's chat model: which one, where, how it decodes; every reply on disk before it is used.

use crate::model::{
    client::{Client, ModelError},
    journal::Journal,
    wire::{ChatRequest, Message, Usage},
};

/// A chat model with its decoding.
#[derive(Clone, Debug)]
pub struct Agent {
    pub client: Client,
    /// The model as its endpoint knows it; never an alias, whose meaning changes.
    pub model: String,
    pub temperature: f64,
    /// Longest reply, in tokens of the model.
    pub max_tokens: u32,
    pub journal: Journal,
}

/// What the model answered.
#[derive(Clone, Debug, PartialEq)]
pub struct Reply {
    pub text: String,
    pub usage: Usage,
    /// `stop`, or `length` when the limit cut it.
    pub finish_reason: String,
    pub took_ms: u64,
}

impl Agent {
    /// What a call costs in US dollars: nothing on this machine, elsewhere unknown.
    pub fn price(&self) -> Option<f64> {
        self.client.is_local().then_some(0.0)
    }

    /// One reply. The seed goes with the request, so that a re-run reads it from the journal.
    pub async fn reply(&self, messages: &[Message], seed: u64) -> Result<Reply, ModelError> {
        let request = ChatRequest {
            temperature: Some(self.temperature),
            max_completion_tokens: Some(self.max_tokens),
            seed: i64::try_from(seed).ok(),
            ..ChatRequest::new(&self.model, messages.to_vec())
        };
        let answer = self.journal.chat(&self.client, &request, "").await?;
        let finish_reason =
            answer.reply.choices.first().and_then(|choice| choice.finish_reason.clone()).unwrap_or_default();
        Ok(Reply {
            text: answer.reply.text().to_owned(),
            usage: answer.reply.usage.unwrap_or_default(),
            finish_reason,
            took_ms: answer.took_ms,
        })
    }
}
