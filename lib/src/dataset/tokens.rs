//! Tokens by OpenAI's o200k_base and the cookbook's counting rule.
//!
//! The table is part of the program and is loaded at the first count. A local model counts by its own tokeniser: these
//! numbers are for comparing and for prices, not for its context.

use std::{ops::AddAssign, sync::Arc};

use crate::model::wire::Message;
pub use crate::text::tokens as text_tokens;

/// What frames each message: its start, the end of its role, its end.
const PER_MESSAGE: usize = 3;
/// What primes the reply, once per example.
const PER_EXAMPLE: usize = 3;
/// What ChatML puts around a message beside its role: start, newline, end, newline.
const PER_LOCAL_MESSAGE: usize = 4;

/// Counts the tokens of a text by some tokeniser.
pub type Counter = Arc<dyn Fn(&str) -> usize + Send + Sync>;

/// Tokens of one example: the training tokens of one epoch.
pub fn chat_tokens(messages: &[Message]) -> usize {
    let of = |m: &Message| PER_MESSAGE + text_tokens(&m.role) + text_tokens(&m.content);
    PER_EXAMPLE + messages.iter().map(of).sum::<usize>()
}

/// The base of a model's name: of a tuned one, what it was tuned from.
pub fn base_of(model: &str) -> &str {
    let name = model.strip_prefix("ft:").unwrap_or(model);
    name.split_once(':').map_or(name, |(base, _)| base)
}

/// The local model's tokeniser.
#[derive(Clone)]
pub struct Local {
    pub counter: Counter,
    /// Tokens of an example that its training reads.
    pub context: u64,
}

/// Tokens by both tokenisers; without a local one its count is 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    pub o200k: u64,
    pub local: u64,
}

impl AddAssign for Counts {
    fn add_assign(&mut self, other: Self) {
        self.o200k += other.o200k;
        self.local += other.local;
    }
}

/// Texts whose counts are remembered. System messages and roles are the same in most rows of a file.
const REMEMBERED: usize = 16;

/// Counts the messages of many examples.
pub(super) struct Meter<'a> {
    local: Option<&'a Local>,
    seen: Vec<(String, Counts)>,
}

impl<'a> Meter<'a> {
    pub fn new(local: Option<&'a Local>) -> Self {
        Self { local, seen: Vec::new() }
    }

    /// What frames an example.
    pub fn example(&self) -> Counts {
        Counts { o200k: PER_EXAMPLE as u64, local: 0 }
    }

    /// A message of a role, with whatever else it says.
    pub fn message(&mut self, role: &str, text: &str, more: &str) -> Counts {
        let frame = Counts {
            o200k: PER_MESSAGE as u64,
            local: if self.local.is_some() { PER_LOCAL_MESSAGE as u64 } else { 0 },
        };
        let mut counts = frame;
        counts += self.remembered(role);
        counts +=
            if role == "system" || role == "developer" { self.remembered(text) } else { self.text(text) };
        counts += self.text(more);
        counts
    }

    pub fn text(&self, text: &str) -> Counts {
        if text.is_empty() {
            return Counts::default();
        }
        let local = self.local.map_or(0, |local| (local.counter)(text));
        Counts { o200k: text_tokens(text) as u64, local: local as u64 }
    }

    fn remembered(&mut self, text: &str) -> Counts {
        if let Some((_, counts)) = self.seen.iter().find(|(seen, _)| seen == text) {
            return *counts;
        }
        let counts = self.text(text);
        if self.seen.len() < REMEMBERED {
            self.seen.push((text.to_owned(), counts));
        }
        counts
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_counts() {
        assert_eq!(text_tokens(""), 0);
        assert_eq!(text_tokens("tiktoken is great!"), 6);
        assert_eq!(text_tokens("<|endoftext|>"), 7);
        assert_eq!(chat_tokens(&[]), 3);
        // 3 for the reply, per message 3 + role 1, "hello" and "world" 1 each.
        assert_eq!(chat_tokens(&[Message::user("hello"), Message::assistant("world")]), 3 + 2 * (3 + 1 + 1));
    }

    #[test]
    fn tuned_models_have_the_names_of_their_bases() {
        let names = ["gpt-4.1", "ft:gpt-4.1-2025-04-14:org::1", "ft:o4-mini-2025-04-16:org:a:1"].map(base_of);
        assert_eq!(names, ["gpt-4.1", "gpt-4.1-2025-04-14", "o4-mini-2025-04-16"]);
    }

    #[test]
    fn what_is_remembered_counts_the_same() {
        let local = Local { counter: Arc::new(str::len), context: 9 };
        let mut meter = Meter::new(Some(&local));
        let first = meter.message("system", "Answer with an app.", "");
        assert_eq!(first, meter.message("system", "Answer with an app.", ""));
        assert_eq!(first, Counts { o200k: 3 + 1 + 5, local: 4 + 6 + 19 });
        assert_eq!(Meter::new(None).message("user", "hello", "name"), Counts { o200k: 6, local: 0 });
    }
}
