//! Tokens by OpenAI's o200k_base and the cookbook's counting rule.
//!
//! The table is part of the program and is loaded at the first count. A local model counts by its own tokeniser: these
//! numbers are for comparing and for prices, not for its context.

use crate::model::wire::Message;

/// What frames each message: its start, the end of its role, its end.
const PER_MESSAGE: usize = 3;
/// What primes the reply, once per example.
const PER_EXAMPLE: usize = 3;

/// Tokens of a text; special tokens in it count as plain text.
pub fn text_tokens(text: &str) -> usize {
    tiktoken_rs::o200k_base_singleton().count_ordinary(text)
}

/// Tokens of one example: the training tokens of one epoch.
pub fn chat_tokens(messages: &[Message]) -> usize {
    let of = |m: &Message| PER_MESSAGE + text_tokens(&m.role) + text_tokens(&m.content);
    PER_EXAMPLE + messages.iter().map(of).sum::<usize>()
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
}
