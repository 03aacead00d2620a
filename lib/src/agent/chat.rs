//! The agent's chat model: which one, where, how it decodes; every reply on disk before it is used.

use crate::model::{
    client::{Client, ModelError},
    journal::Journal,
    wire::{ChatRequest, Finish, Message, Usage},
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
    pub finish: Finish,
    /// What it cost in US dollars, now or when it was first asked for; none when no price is known.
    pub usd: Option<f64>,
    /// True when it was asked for before: nothing was paid now.
    pub replayed: bool,
    pub took_ms: u64,
}

impl Agent {
    /// One reply. The seed goes with the request, so that a re-run reads it from the journal.
    pub async fn reply(&self, messages: &[Message], seed: u64) -> Result<Reply, ModelError> {
        let request = ChatRequest {
            temperature: Some(self.temperature),
            max_completion_tokens: Some(self.max_tokens),
            seed: i64::try_from(seed).ok(),
            ..ChatRequest::new(&self.model, messages.to_vec())
        };
        let answer = self.journal.chat(&self.client, &request, "").await?;
        Ok(Reply {
            finish: answer.reply.finish(),
            text: answer.reply.text().to_owned(),
            usage: answer.reply.usage.unwrap_or_default(),
            usd: answer.usd,
            replayed: answer.replayed,
            took_ms: answer.took_ms,
        })
    }
}
