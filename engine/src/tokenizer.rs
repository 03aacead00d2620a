//! Byte-level BPE as GGUF files and `tokenizer.json` carry it: text to token ids and back.
//!
//! Text never becomes a control token: those are kept out of the BPE vocabulary, and only [`Tokenizer::special`] names
//! them. Decoding is done here, on bytes, because a token may hold a part of a character.

mod count;
mod json;
mod split;

use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, LazyLock},
};

use tokenizers::{
    AddedToken,
    models::bpe::{BPE, Vocab},
};

use self::count::Remembered;
pub use self::split::{Cut, PreTokenizer};

/// Control tokens that end an answer in the model families that use ChatML or its kin, besides the file's own `eos`.
const END_TOKENS: [&str; 6] =
    ["<|im_end|>", "<|endoftext|>", "<|im_start|>", "<|eot_id|>", "<|end|>", "</s>"];

/// What a model file says about its tokeniser.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Vocabulary {
    /// By id, in GPT-2's printable alphabet for bytes.
    pub tokens: Vec<String>,
    /// ggml's token type of each: [`Vocabulary::NORMAL`] and its kin; others count as normal.
    pub kinds: Vec<i64>,
    /// `"left right"`, best first.
    pub merges: Vec<String>,
    /// How text is split before merging.
    pub pre: PreTokenizer,
    pub eos: Option<u32>,
    pub bos: Option<u32>,
    /// Tokens besides `eos` that end an answer.
    pub more_ends: Vec<u32>,
    /// Whether `bos` comes before every text. Conversations do not ask: their template says it.
    pub add_bos: bool,
}

impl Vocabulary {
    /// ggml's type of a text token.
    pub const NORMAL: i64 = 1;
    /// ggml's type of a control token.
    pub const CONTROL: i64 = 3;
    /// ggml's type of a token that is taken out of text before anything else is done with it.
    pub const USER_DEFINED: i64 = 4;
    /// ggml's type of an id that is no token.
    pub const UNUSED: i64 = 5;

    /// A vocabulary of ChatML's control tokens (ids as in SmolLM2: 0 to 2) and the 256 bytes, without merges.
    pub fn bytes() -> Self {
        let control = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"].map(str::to_owned);
        let bytes = (0..=u8::MAX).map(|byte| byte_char(byte).to_string());
        let tokens: Vec<String> = control.into_iter().chain(bytes).collect();
        let kinds = (0..tokens.len()).map(|id| if id < 3 { Self::CONTROL } else { Self::NORMAL }).collect();
        let pre = PreTokenizer { nfc: false, cuts: vec![Cut::Digits, Cut::Gpt2], ignore_merges: false };
        let (eos, bos, more_ends) = (Some(2), Some(1), Vec::new());
        Self { tokens, kinds, merges: Vec::new(), pre, eos, bos, more_ends, add_bos: false }
    }
}

/// Why a vocabulary is not usable.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TokenizerError {
    #[error("its kind is `{0}`, only byte-level BPE is supported")]
    Model(String),
    #[error("pre-tokeniser `{0}` is not supported (those of SmolLM, Llama 3, Qwen2 and GPT-2 are)")]
    Pre(String),
    #[error("`tokenizer.json` cannot be understood: {0}")]
    Json(String),
    #[error("`tokenizer.json` asks for {0}, which is not supported")]
    Unsupported(String),
    #[error("it has {tokens} tokens but {kinds} token types")]
    Kinds { tokens: usize, kinds: usize },
    #[error("it has no tokens")]
    Empty,
    #[error("merge {0} is not a pair")]
    Merge(usize),
    #[error(transparent)]
    Bpe(Box<dyn std::error::Error + Send + Sync>),
}

impl TokenizerError {
    /// What the user can do about it.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Model(_) | Self::Pre(_) | Self::Unsupported(_) => {
                "use a model with a tokeniser like those of SmolLM2, Llama 3 or Qwen2.5"
            }
            _ => "the file is damaged or incomplete: fetch it again",
        }
    }
}

/// A tokeniser. Cloning is cheap; clones share everything.
#[derive(Clone)]
pub struct Tokenizer(Arc<Inner>);

struct Inner {
    vocabulary: Vocabulary,
    bpe: tokenizers::Tokenizer,
    /// Bytes of each token; none for control tokens.
    bytes: Vec<Vec<u8>>,
    special: HashMap<String, u32>,
    ends: Vec<u32>,
    /// Counts of pieces; none where the vocabulary may join what lies on both sides of a cut.
    counts: Option<Remembered>,
}

impl fmt::Debug for Tokenizer {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "Tokenizer({} tokens, {:?})", self.len(), self.0.vocabulary.pre)
    }
}

impl Tokenizer {
    /// # Errors
    /// When the vocabulary contradicts itself or splits text in a way that is not supported.
    pub fn new(vocabulary: Vocabulary) -> Result<Self, TokenizerError> {
        let (tokens, kinds) = (vocabulary.tokens.len(), vocabulary.kinds.len());
        if tokens == 0 {
            return Err(TokenizerError::Empty);
        }
        if tokens != kinds {
            return Err(TokenizerError::Kinds { tokens, kinds });
        }
        let special = special(&vocabulary);
        let mut ends: Vec<u32> = END_TOKENS.iter().filter_map(|name| special.get(*name).copied()).collect();
        let said = vocabulary.eos.iter().chain(&vocabulary.more_ends).copied();
        ends.extend(said.filter(|id| (*id as usize) < tokens));
        let bytes = vocabulary.tokens.iter().zip(&vocabulary.kinds).map(|(token, &kind)| match kind {
            Vocabulary::CONTROL | Vocabulary::UNUSED => vec![],
            Vocabulary::USER_DEFINED => token.clone().into_bytes(),
            _ => token_bytes(token),
        });
        Ok(Self(Arc::new(Inner {
            bpe: bpe(&vocabulary)?,
            bytes: bytes.collect(),
            special,
            ends,
            counts: can_be_cut(&vocabulary).then(Remembered::new),
            vocabulary,
        })))
    }

    /// Token ids of `text`, none of them a control token whatever the text says. Bytes that the vocabulary does not
    /// have are left out, as in the reference implementations.
    pub fn encode(&self, text: &str) -> Vec<u32> {
        match self.0.bpe.encode_fast(text, false) {
            Ok(encoding) => encoding.get_ids().to_vec(),
            // Neither step of the pipeline can fail on text; were one to, no tokens is the only honest answer.
            Err(error) => {
                debug_assert!(false, "{error}");
                Vec::new()
            }
        }
    }

    /// How many ids [`Tokenizer::encode`] gives, many times as quickly where texts resemble each other.
    pub fn count(&self, text: &str) -> usize {
        let count = |piece: &str| self.encode(piece).len();
        match &self.0.counts {
            Some(counts) => counts.count(text, count),
            None => count(text),
        }
    }

    /// The text of `ids`. Control tokens are invisible; bytes that are not UTF-8 become U+FFFD.
    pub fn decode(&self, ids: &[u32]) -> String {
        let bytes: Vec<u8> = ids.iter().flat_map(|&id| self.bytes(id)).copied().collect();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// The bytes of one token: empty for control tokens and unknown ids.
    pub fn bytes(&self, id: u32) -> &[u8] {
        self.0.bytes.get(id as usize).map_or(&[], Vec::as_slice)
    }

    /// The id of a control token such as `<|im_end|>`.
    pub fn special(&self, name: &str) -> Option<u32> {
        self.0.special.get(name).copied()
    }

    /// The name of a control token; none for text.
    pub fn control_name(&self, id: u32) -> Option<&str> {
        let kind = self.0.vocabulary.kinds.get(id as usize)?;
        (*kind == Vocabulary::CONTROL).then(|| self.0.vocabulary.tokens[id as usize].as_str())
    }

    /// Whether a model that produces this token has finished its answer.
    pub fn is_end(&self, id: u32) -> bool {
        self.0.ends.contains(&id)
    }

    /// Size of the vocabulary, control tokens included.
    #[expect(clippy::len_without_is_empty, reason = "an empty vocabulary is refused")]
    pub fn len(&self) -> usize {
        self.0.vocabulary.tokens.len()
    }

    /// What the tokeniser was built from.
    pub fn vocabulary(&self) -> &Vocabulary {
        &self.0.vocabulary
    }

    /// Cuts `text` at the control tokens written in it: `Err(id)` for each of those, `Ok(text)` between.
    pub(crate) fn split_special<'t>(&self, text: &'t str) -> Vec<Result<&'t str, u32>> {
        let mut parts = Vec::new();
        let mut rest = text;
        let next = |rest: &str| {
            let found = self
                .0
                .special
                .iter()
                .filter_map(|(name, &id)| Some((rest.find(name.as_str())?, name.len(), id)));
            found.min_by_key(|&(at, len, _)| (at, usize::MAX - len))
        };
        while let Some((at, len, id)) = next(rest) {
            parts.extend([Ok(&rest[..at]), Err(id)]);
            rest = &rest[at + len..];
        }
        parts.push(Ok(rest));
        parts.retain(|part| *part != Ok(""));
        parts
    }
}

/// Whether words end where [`count`] cuts: so it is with every way of splitting that has a name. Tokens that are taken out
/// of text first may reach over a cut.
fn can_be_cut(vocabulary: &Vocabulary) -> bool {
    vocabulary.pre.name().is_some() && !vocabulary.kinds.contains(&Vocabulary::USER_DEFINED)
}

fn special(vocabulary: &Vocabulary) -> HashMap<String, u32> {
    let tokens = vocabulary.tokens.iter().zip(&vocabulary.kinds).zip(0..);
    let control = tokens.filter(|((token, kind), _)| **kind == Vocabulary::CONTROL && !token.is_empty());
    control.map(|((token, _), id)| (token.clone(), id)).collect()
}

fn bpe(vocabulary: &Vocabulary) -> Result<tokenizers::Tokenizer, TokenizerError> {
    let split = vocabulary.merges.iter().enumerate().map(|(i, merge)| {
        let (left, right) = merge.split_once(' ').ok_or(TokenizerError::Merge(i))?;
        Ok((left.to_owned(), right.to_owned()))
    });
    let merges = split.collect::<Result<Vec<_>, TokenizerError>>()?;
    let tokens = || vocabulary.tokens.iter().zip(&vocabulary.kinds).zip(0..);
    let texts = tokens().filter(|((_, kind), _)| !matches!(**kind, Vocabulary::CONTROL | Vocabulary::UNUSED));
    let texts: Vocab = texts.map(|((token, _), id)| (token.clone(), id)).collect();
    let model = BPE::builder().vocab_and_merges(texts, merges).ignore_merges(vocabulary.pre.ignore_merges);
    let mut bpe = tokenizers::Tokenizer::new(model.build().map_err(TokenizerError::Bpe)?);
    bpe.with_normalizer(vocabulary.pre.normalizer());
    bpe.with_pre_tokenizer(Some(vocabulary.pre.build()?));
    let whole = tokens().filter(|((_, kind), _)| **kind == Vocabulary::USER_DEFINED);
    let whole: Vec<AddedToken> =
        whole.map(|((token, _), _)| AddedToken::from(token.as_str(), false).normalized(false)).collect();
    bpe.add_tokens(&whole);
    Ok(bpe)
}

/// GPT-2's printable stand-in for a byte: itself where printable, else a character from U+0100 on.
fn byte_char(byte: u8) -> char {
    let printable = |byte: u8| matches!(byte, b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff);
    if printable(byte) {
        return char::from(byte);
    }
    let rank = (0..byte).filter(|&b| !printable(b)).count();
    char::from_u32(0x100 + rank as u32).unwrap_or(char::REPLACEMENT_CHARACTER)
}

static CHAR_BYTES: LazyLock<HashMap<char, u8>> =
    LazyLock::new(|| (0..=u8::MAX).map(|byte| (byte_char(byte), byte)).collect());

/// The bytes behind a token's text. Characters outside GPT-2's alphabet stand for themselves.
fn token_bytes(token: &str) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(token.len());
    for c in token.chars() {
        match CHAR_BYTES.get(&c) {
            Some(&byte) => bytes.push(byte),
            None => bytes.extend(c.encode_utf8(&mut [0; 4]).as_bytes()),
        }
    }
    bytes
}

/// Turns tokens into text as they arrive, without ever cutting a character in two.
///
/// All pieces together are exactly what [`Tokenizer::decode`] returns for all ids.
#[derive(Clone, Debug, Default)]
pub struct StreamDecoder {
    /// The start of a character whose rest has not arrived: at most 3 bytes.
    partial: Vec<u8>,
}

impl StreamDecoder {
    /// The text that `id` completes.
    pub fn push(&mut self, tokenizer: &Tokenizer, id: u32) -> String {
        self.partial.extend_from_slice(tokenizer.bytes(id));
        let bytes = std::mem::take(&mut self.partial);
        let mut text = String::new();
        let mut at = 0;
        for chunk in bytes.utf8_chunks() {
            text.push_str(chunk.valid());
            at += chunk.valid().len() + chunk.invalid().len();
            if at == bytes.len() && is_incomplete(chunk.invalid()) {
                self.partial = chunk.invalid().to_vec();
            } else if !chunk.invalid().is_empty() {
                text.push(char::REPLACEMENT_CHARACTER);
            }
        }
        text
    }

    /// What is left when no more tokens come: U+FFFD for half a character.
    pub fn finish(&mut self) -> String {
        String::from_utf8_lossy(&std::mem::take(&mut self.partial)).into_owned()
    }
}

/// Whether these bytes, not UTF-8 as they are, could still become a character.
fn is_incomplete(bytes: &[u8]) -> bool {
    std::str::from_utf8(bytes).is_err_and(|error| error.error_len().is_none())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn bytes() -> Tokenizer {
        Tokenizer::new(Vocabulary::bytes()).unwrap()
    }

    fn stream(tokenizer: &Tokenizer, ids: &[u32]) -> Vec<String> {
        let mut decoder = StreamDecoder::default();
        let mut pieces: Vec<String> = ids.iter().map(|&id| decoder.push(tokenizer, id)).collect();
        pieces.push(decoder.finish());
        pieces
    }

    #[test]
    fn the_byte_alphabet_is_gpt2s() {
        assert_eq!([b' ', b'\n', b'!', 0xad, 0xff, 0].map(byte_char), ['Ġ', 'Ċ', '!', 'Ń', 'ÿ', 'Ā']);
        assert_eq!(CHAR_BYTES.len(), 256);
    }

    #[test]
    fn control_tokens_are_named_and_invisible() {
        let tokenizer = bytes();
        let end = tokenizer.special("<|im_end|>").unwrap();
        assert!(tokenizer.is_end(end) && tokenizer.special("a").is_none());
        let mut ids = tokenizer.encode("a<|im_end|>");
        assert!(!ids.contains(&end));
        ids.push(end);
        assert_eq!(tokenizer.decode(&ids), "a<|im_end|>");
        assert_eq!(tokenizer.split_special("x<|im_end|><|im_start|>"), [Ok("x"), Err(2), Err(1)]);
    }

    #[test]
    fn a_vocabulary_that_merges_into_a_control_token_is_refused() {
        let mut vocabulary = Vocabulary::bytes();
        vocabulary.tokens.push("ab".to_owned());
        vocabulary.kinds.push(Vocabulary::CONTROL);
        vocabulary.merges.push("a b".to_owned());
        assert!(matches!(Tokenizer::new(vocabulary), Err(TokenizerError::Bpe(_))));
    }

    #[test]
    fn broken_vocabularies_are_refused() {
        let with = |change: fn(&mut Vocabulary)| {
            let mut vocabulary = Vocabulary::bytes();
            change(&mut vocabulary);
            Tokenizer::new(vocabulary).unwrap_err().to_string()
        };
        assert_eq!(with(|v| v.merges.push("ab".into())), "merge 0 is not a pair");
        assert_eq!(with(|v| v.kinds.truncate(5)), "it has 259 tokens but 5 token types");
        assert!(with(|v| v.pre.cuts = vec![Cut::Pattern("(".into())]).contains("is not supported"));
        assert!(with(|v| v.pre.cuts = vec![Cut::Gpt2, Cut::Digits]).contains("before another"));
        assert!(with(|v| v.merges.push("zz y".into())).contains("zz"));
    }

    #[test]
    fn a_character_streams_out_whole() {
        let tokenizer = bytes();
        let pieces = stream(&tokenizer, &tokenizer.encode("é🙂"));
        assert_eq!(pieces, ["", "é", "", "", "", "🙂", ""]);
    }

    proptest! {
        #[test]
        fn text_survives(text in "\\PC*|[\\s<|>a-z0-9]*") {
            let tokenizer = bytes();
            let ids = tokenizer.encode(&text);
            prop_assert!(ids.iter().all(|id| *id > 2));
            prop_assert_eq!(tokenizer.decode(&ids), text);
        }

        #[test]
        fn counting_equals_encoding(text in "(\\PC|[\\s'a-c0-9;(_é\u{338}]){0,40}", name in 0usize..4) {
            let pre = PreTokenizer::named(["gpt2", "smollm", "llama3", "qwen2"][name]).unwrap();
            // Merges across every sort of character that a way of splitting has to keep apart.
            let mut vocabulary = Vocabulary { pre, ..Vocabulary::bytes() };
            for (left, right) in [("Ċ", "Ċ"), ("Ġ", "Ġ"), ("a", "b"), (";", "Ċ"), ("Ġ", "a"), ("1", "2"), ("a", "Ġ"), ("ĠĠ", "a"),
                ("a", "("), ("1", "("), ("(", "a"), ("_", "a"), ("a", "_"), ("1", "_"), ("a", "'"), ("'", "a"), ("1", "a"), ("a", "1")] {
                vocabulary.merges.push(format!("{left} {right}"));
                vocabulary.tokens.push(format!("{left}{right}"));
                vocabulary.kinds.push(Vocabulary::NORMAL);
            }
            let tokenizer = Tokenizer::new(vocabulary).unwrap();
            prop_assert_eq!(tokenizer.count(&text), tokenizer.encode(&text).len(), "{:?}", text);
        }

        #[test]
        fn streaming_equals_decoding(ids in prop::collection::vec(0..260_u32, 0..40)) {
            let tokenizer = bytes();
            prop_assert_eq!(stream(&tokenizer, &ids).concat(), tokenizer.decode(&ids));
        }
    }
}
