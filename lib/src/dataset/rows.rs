//! The rows of OpenAI's fine-tuning files.

use serde::{Deserialize, Serialize};

use crate::model::wire::Message;

/// A line of a chat file: system, user, assistant.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChatRow {
    pub messages: Vec<Message>,
}

/// A line of a preference (DPO) file: two answers to the same prompt.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PreferenceRow {
    pub input: PreferenceInput,
    pub preferred_output: Vec<Message>,
    pub non_preferred_output: Vec<Message>,
}

/// What both answers of a pair answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PreferenceInput {
    pub messages: Vec<Message>,
}

impl ChatRow {
    /// A conversation that asks, and the answer to learn.
    pub fn new(mut prompt: Vec<Message>, answer: String) -> Self {
        prompt.push(Message::assistant(answer));
        Self { messages: prompt }
    }
}

impl PreferenceRow {
    /// Everything that the line says.
    pub fn texts(&self) -> impl Iterator<Item = &Message> {
        let answers = self.preferred_output.iter().chain(&self.non_preferred_output);
        self.input.messages.iter().chain(answers)
    }
}
