//! Answers that are JSON of a given schema: at every step, which tokens can still lead to a whole document.
//!
//! The grammar work is `llguidance`'s; here it meets the tokeniser. Nothing is approximated: a schema with a keyword that
//! the compiler does not enforce is refused, not followed loosely.

use std::{fmt, sync::Arc};

use llguidance::{
    Matcher, ParserFactory,
    api::TopLevelGrammar,
    toktrie::{SimpleVob, TokEnv, TokRxInfo, TokTrie, TokenizerEnv},
};
use serde_json::{Value, json};

use crate::tokenizer::Tokenizer;

/// White space between two parts of a document: enough for indentation, not enough for a small model to lose itself in.
const WHITESPACE: &str = r"[\x20\x0A\x0D\x09]{1,16}";
/// The key under which the compiler takes its options. It would let a schema switch exactness off.
const OPTIONS_KEY: &str = "x-guidance";

/// Tokens longer than this take no part: the grammar's tree is as deep as its longest token, and files can be hostile.
const LONGEST_TOKEN: usize = 256;

/// Why there is no constraint.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ConstraintError {
    #[error("a schema is a JSON object")]
    NotAnObject,
    #[error("the schema cannot be followed: {0}")]
    Schema(String),
    #[error("the model has no token that ends an answer")]
    Endless,
}

/// What turns schemas into constraints on one tokeniser's tokens. Making one takes a moment, using it little.
pub struct Grammars {
    factory: ParserFactory,
}

impl fmt::Debug for Grammars {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "Grammars({} tokens)", self.factory.tok_env().tok_trie().vocab_size())
    }
}

impl Grammars {
    /// # Errors
    /// When the tokeniser has no token that ends an answer.
    pub fn new(tokenizer: &Tokenizer) -> Result<Self, ConstraintError> {
        let trie = trie(tokenizer).ok_or(ConstraintError::Endless)?;
        let env: TokEnv = Arc::new(Env { trie, tokenizer: tokenizer.clone() });
        let mut factory = ParserFactory::new_simple(&env).map_err(|e| ConstraintError::Schema(plain(&e)))?;
        factory.quiet().limits_mut().verbose_errors = false;
        Ok(Self { factory })
    }

    /// Any JSON object.
    ///
    /// # Errors
    /// None that the schema could cause.
    pub fn json_object(&self) -> Result<Constraint, ConstraintError> {
        self.json_schema(&json!({"type": "object"}))
    }

    /// JSON of the given schema.
    ///
    /// # Errors
    /// When the schema is none, cannot be satisfied, or says something that cannot be enforced.
    pub fn json_schema(&self, schema: &Value) -> Result<Constraint, ConstraintError> {
        let mut schema = schema.as_object().cloned().ok_or(ConstraintError::NotAnObject)?;
        schema.insert(OPTIONS_KEY.into(), json!({"whitespace_pattern": WHITESPACE}));
        let grammar = TopLevelGrammar::from_json_schema(schema.into());
        let parser = self.factory.create_parser(grammar).map_err(|e| ConstraintError::Schema(plain(&e)))?;
        Ok(Constraint { matcher: Matcher::new(Ok(parser)), closed: false })
    }
}

/// The compiler's reason in one line. A panic in it comes with a backtrace, which is nobody's business.
fn plain(error: &impl fmt::Display) -> String {
    let text = format!("{error:#}");
    let text = text.split("<backtrace>").next().unwrap_or_default();
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Where an answer is in its document.
pub struct Constraint {
    matcher: Matcher,
    /// The last byte that is not white space closed a value.
    closed: bool,
}

impl Clone for Constraint {
    /// The copy shares nothing: answers are written in parallel.
    fn clone(&self) -> Self {
        Self { matcher: self.matcher.deep_clone(), closed: self.closed }
    }
}

impl fmt::Debug for Constraint {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "Constraint({})", self.matcher.stop_reason())
    }
}

/// The tokens that may come next; never empty.
#[derive(Debug)]
pub struct Allowed(SimpleVob);

impl Allowed {
    /// Ids beyond the tokeniser's vocabulary, which padded models have logits for, are not allowed.
    pub fn contains(&self, id: u32) -> bool {
        (id as usize) < self.0.len() && self.0.is_allowed(id)
    }

    /// The lowest of them.
    pub fn first(&self) -> u32 {
        self.0.first_bit_set().map_or(0, |id| id as u32)
    }
}

impl Constraint {
    /// What may come next; none when the grammar gives up, which its limits on work make it do.
    pub fn allowed(&mut self) -> Option<Allowed> {
        let mask = self.matcher.compute_mask_or_eos().ok()?;
        mask.first_bit_set().map(|_| Allowed(mask))
    }

    /// Takes an allowed token that does not end the answer; false when the grammar gives up.
    pub fn push(&mut self, tokenizer: &Tokenizer, id: u32) -> bool {
        if let Some(last) = tokenizer.bytes(id).trim_ascii_end().last() {
            self.closed = matches!(last, b'}' | b']' | b'"');
        }
        self.matcher.consume_token(id).is_ok()
    }

    /// Whether the document is whole and only white space could follow.
    pub fn is_whole(&mut self) -> bool {
        self.matcher.is_stopped() || (self.closed && self.matcher.is_accepting().unwrap_or(false))
    }
}

/// The tokeniser as the grammar sees it.
struct Env {
    trie: TokTrie,
    tokenizer: Tokenizer,
}

impl TokenizerEnv for Env {
    fn tok_trie(&self) -> &TokTrie {
        &self.trie
    }

    fn tokenize_bytes(&self, bytes: &[u8]) -> Vec<u32> {
        let encoded = std::str::from_utf8(bytes).ok().map(|text| self.tokenizer.encode(text));
        let whole = |ids: &Vec<u32>| ids.iter().flat_map(|&id| self.tokenizer.bytes(id)).eq(bytes);
        encoded.filter(whole).unwrap_or_else(|| self.trie.greedy_tokenize(bytes))
    }
}

/// All tokens by their bytes; none when no token ends an answer.
fn trie(tokenizer: &Tokenizer) -> Option<TokTrie> {
    let size = tokenizer.len() as u32;
    let ends: Vec<u32> = (0..size).filter(|&id| tokenizer.is_end(id)).collect();
    let marked = |id: u32| {
        let name = tokenizer.control_name(id)?;
        Some([&[TokTrie::SPECIAL_TOKEN_MARKER][..], name.as_bytes()].concat())
    };
    // A token that starts like the mark of a control token cannot be text: no UTF-8 has that byte.
    let text = |id: u32| {
        let bytes = tokenizer.bytes(id);
        if bytes.first() == Some(&TokTrie::SPECIAL_TOKEN_MARKER) { Vec::new() } else { bytes.to_vec() }
    };
    let word =
        |id: u32| Some(marked(id).unwrap_or_else(|| text(id))).filter(|word| word.len() <= LONGEST_TOKEN);
    let words: Vec<Vec<u8>> = (0..size).map(|id| word(id).unwrap_or_default()).collect();
    let first = *ends.first()?;
    Some(TokTrie::from(&TokRxInfo::new(size, first), &words).with_eos_tokens(&ends))
}

#[cfg(test)]
mod tests;
