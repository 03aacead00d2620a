//! `tokenizer.json`, as the `tokenizers` library writes it: read into a [`Vocabulary`], and written from one.
//!
//! The file can describe much more than byte-level BPE. It is not handed to the library, whose loader trusts it; what is
//! read here is only what models of our families use, and everything that would change a token is either understood or
//! refused.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::{Value, json};

use super::{Cut, PreTokenizer, TokenizerError, Vocabulary};

/// More ids without a token than any vocabulary has: a corrupt id must not size an allocation.
const MAX_HOLES: usize = 1 << 16;

#[derive(Deserialize)]
struct File {
    #[serde(default)]
    added_tokens: Vec<Added>,
    #[serde(default)]
    normalizer: Option<Value>,
    #[serde(default)]
    pre_tokenizer: Option<Value>,
    #[serde(default)]
    post_processor: Option<Value>,
    model: Bpe,
}

#[derive(Deserialize)]
struct Added {
    id: u32,
    content: String,
    #[serde(default)]
    single_word: bool,
    #[serde(default)]
    lstrip: bool,
    #[serde(default)]
    rstrip: bool,
    #[serde(default)]
    special: bool,
}

#[derive(Deserialize)]
struct Bpe {
    #[serde(rename = "type")]
    kind: Option<String>,
    #[serde(default)]
    dropout: Option<f32>,
    #[serde(default)]
    continuing_subword_prefix: Option<String>,
    #[serde(default)]
    end_of_word_suffix: Option<String>,
    #[serde(default)]
    byte_fallback: bool,
    #[serde(default)]
    ignore_merges: bool,
    vocab: BTreeMap<String, u32>,
    #[serde(default)]
    merges: Vec<Merge>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Merge {
    Text(String),
    Pair(String, String),
}

impl Merge {
    fn text(self) -> String {
        match self {
            Self::Text(text) => text,
            Self::Pair(left, right) => format!("{left} {right}"),
        }
    }
}

fn unsupported(what: impl Into<String>) -> TokenizerError {
    TokenizerError::Unsupported(what.into())
}

impl Vocabulary {
    /// Reads the text of a `tokenizer.json`. Which tokens begin and end a text is not in it: that is `tokenizer_config.json`'s
    /// matter.
    ///
    /// # Errors
    /// When it is not JSON of that form, or describes more than byte-level BPE.
    pub fn from_json(text: &str) -> Result<Self, TokenizerError> {
        let file: File = serde_json::from_str(text).map_err(|e| TokenizerError::Json(e.to_string()))?;
        let model = &file.model;
        check(model, &file.added_tokens)?;
        let pre = PreTokenizer {
            nfc: nfc(file.normalizer.as_ref())?,
            cuts: cuts(file.pre_tokenizer.as_ref())?,
            ignore_merges: model.ignore_merges,
        };
        let (tokens, kinds) = tokens(&file.model.vocab, &file.added_tokens)?;
        Ok(Self {
            tokens,
            kinds,
            merges: file.model.merges.into_iter().map(Merge::text).collect(),
            pre,
            eos: None,
            bos: None,
            more_ends: Vec::new(),
            add_bos: file.post_processor.as_ref().is_some_and(begins_with_a_token),
        })
    }

    /// The `tokenizer.json` of this vocabulary.
    pub fn to_json(&self) -> String {
        let texts = self.tokens.iter().zip(&self.kinds).zip(0_u32..);
        let vocab = texts.filter(|((_, kind), _)| **kind != Self::UNUSED);
        let vocab: serde_json::Map<String, Value> =
            vocab.map(|((token, _), id)| (token.clone(), id.into())).collect();
        let merges: Vec<Vec<&str>> = self.merges.iter().map(|merge| merge.splitn(2, ' ').collect()).collect();
        json!({
            "version": "1.0",
            "truncation": null,
            "padding": null,
            "added_tokens": self.added(),
            "normalizer": self.pre.nfc.then(|| json!({ "type": "NFC" })),
            "pre_tokenizer": pre_tokenizer_json(&self.pre),
            "post_processor": self.post_processor(),
            "decoder": byte_level(true),
            "model": {
                "type": "BPE",
                "dropout": null,
                "unk_token": null,
                "continuing_subword_prefix": null,
                "end_of_word_suffix": null,
                "fuse_unk": false,
                "byte_fallback": false,
                "ignore_merges": self.pre.ignore_merges,
                "vocab": vocab,
                "merges": merges,
            },
        })
        .to_string()
    }

    fn added(&self) -> Vec<Value> {
        let tokens = self.tokens.iter().zip(&self.kinds).zip(0_u32..);
        let added = tokens.filter(|((_, kind), _)| matches!(**kind, Self::CONTROL | Self::USER_DEFINED));
        added
            .map(|((content, kind), id)| {
                json!({
                    "id": id,
                    "content": content,
                    "single_word": false,
                    "lstrip": false,
                    "rstrip": false,
                    "normalized": false,
                    "special": *kind == Self::CONTROL,
                })
            })
            .collect()
    }

    /// Puts the first token before every text, where the model wants that.
    fn post_processor(&self) -> Value {
        let Some(bos) = self.bos.filter(|_| self.add_bos) else { return byte_level(false) };
        let Some(name) = self.tokens.get(bos as usize) else { return byte_level(false) };
        let special = json!({ "SpecialToken": { "id": name, "type_id": 0 } });
        let text = |id: &str, type_id: u32| json!({ "Sequence": { "id": id, "type_id": type_id } });
        json!({
            "type": "TemplateProcessing",
            "single": [special, text("A", 0)],
            "pair": [special, text("A", 0), { "SpecialToken": { "id": name, "type_id": 1 } }, text("B", 1)],
            "special_tokens": { name: { "id": name, "ids": [bos], "tokens": [name] } },
        })
    }
}

fn byte_level(use_regex: bool) -> Value {
    json!({ "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": use_regex })
}

fn pre_tokenizer_json(pre: &PreTokenizer) -> Value {
    let mut steps: Vec<Value> = Vec::new();
    for cut in &pre.cuts {
        steps.push(match cut {
            Cut::Digits => json!({ "type": "Digits", "individual_digits": true }),
            Cut::Gpt2 => byte_level(true),
            Cut::Pattern(pattern) => json!({
                "type": "Split", "pattern": { "Regex": pattern }, "behavior": "Isolated", "invert": false,
            }),
        });
    }
    if pre.cuts.last() != Some(&Cut::Gpt2) {
        steps.push(byte_level(false));
    }
    json!({ "type": "Sequence", "pretokenizers": steps })
}

/// Refuses what byte-level BPE does not have.
fn check(model: &Bpe, added: &[Added]) -> Result<(), TokenizerError> {
    let kind = model.kind.as_deref().unwrap_or("BPE");
    if kind != "BPE" || model.byte_fallback {
        let kind = if model.byte_fallback { "SentencePiece" } else { kind };
        return Err(TokenizerError::Model(kind.to_owned()));
    }
    let marked = [&model.continuing_subword_prefix, &model.end_of_word_suffix];
    if marked.iter().any(|mark| mark.as_deref().is_some_and(|mark| !mark.is_empty())) {
        return Err(unsupported("marks at the ends of words"));
    }
    if model.dropout.is_some_and(|dropout| dropout > 0.0) {
        return Err(unsupported("merges that are left to chance"));
    }
    match added.iter().find(|token| token.lstrip || token.rstrip || token.single_word) {
        Some(token) => {
            Err(unsupported(format!("a token that swallows its surroundings (`{}`)", token.content)))
        }
        None => Ok(()),
    }
}

/// Whether the normaliser composes characters; none does nothing.
fn nfc(normalizer: Option<&Value>) -> Result<bool, TokenizerError> {
    let Some(normalizer) = normalizer.filter(|value| !value.is_null()) else { return Ok(false) };
    let inner = normalizer["normalizers"].as_array().map(Vec::as_slice);
    match (normalizer["type"].as_str(), inner) {
        (Some("NFC"), _) => Ok(true),
        (Some("Sequence"), Some([])) => Ok(false),
        (Some("Sequence"), Some([one])) => nfc(Some(one)),
        (kind, _) => Err(unsupported(format!("the normaliser `{}`", kind.unwrap_or("?")))),
    }
}

/// The cuts before the step that turns bytes into characters, which has to be there.
fn cuts(pre_tokenizer: Option<&Value>) -> Result<Vec<Cut>, TokenizerError> {
    let Some(value) = pre_tokenizer.filter(|value| !value.is_null()) else {
        return Err(TokenizerError::Model("SentencePiece".to_owned()));
    };
    let steps = match (value["type"].as_str(), value["pretokenizers"].as_array()) {
        (Some("Sequence"), Some(steps)) => steps.as_slice(),
        _ => std::slice::from_ref(value),
    };
    let Some((last, before)) = steps.split_last() else { return Err(unsupported("no pre-tokeniser")) };
    let mut cuts = before.iter().map(cut).collect::<Result<Vec<_>, _>>()?;
    if last["type"] != "ByteLevel" || last["add_prefix_space"] == true {
        let kind = last["type"].as_str().unwrap_or("?");
        return Err(unsupported(format!("the pre-tokeniser `{kind}` with these options as the last step")));
    }
    if last["use_regex"] != false {
        cuts.push(Cut::Gpt2);
    }
    Ok(cuts)
}

fn cut(step: &Value) -> Result<Cut, TokenizerError> {
    let kind = step["type"].as_str().unwrap_or("?");
    match kind {
        "Digits" if step["individual_digits"] == true => Ok(Cut::Digits),
        "Split" if step["behavior"] == "Isolated" && step["invert"] != true => {
            let pattern = step["pattern"]["Regex"].as_str();
            pattern.map(|p| Cut::Pattern(p.to_owned())).ok_or_else(|| unsupported("a split at a fixed text"))
        }
        _ => Err(unsupported(format!("the pre-tokeniser `{kind}` with these options"))),
    }
}

/// Whether the post-processor puts a token before every text.
fn begins_with_a_token(post_processor: &Value) -> bool {
    let template = |value: &Value| value["single"][0]["SpecialToken"].is_object();
    template(post_processor)
        || post_processor["processors"].as_array().is_some_and(|list| list.iter().any(template))
}

/// Tokens by id, with ggml's kinds.
fn tokens(vocab: &BTreeMap<String, u32>, added: &[Added]) -> Result<(Vec<String>, Vec<i64>), TokenizerError> {
    let ids = vocab.values().chain(added.iter().map(|token| &token.id));
    let size = ids.max().map_or(0, |id| *id as usize + 1);
    if size > vocab.len() + added.len() + MAX_HOLES {
        return Err(TokenizerError::Json(format!(
            "it has a token of id {}, but not nearly as many",
            size - 1
        )));
    }
    let mut tokens = vec![String::new(); size];
    let mut kinds = vec![Vocabulary::UNUSED; size];
    for (token, id) in vocab {
        let id = *id as usize;
        if kinds[id] != Vocabulary::UNUSED {
            return Err(TokenizerError::Json(format!(
                "`{}` and `{token}` have the same id {id}",
                tokens[id]
            )));
        }
        tokens[id].clone_from(token);
        kinds[id] = Vocabulary::NORMAL;
    }
    for token in added {
        let id = token.id as usize;
        if kinds[id] != Vocabulary::UNUSED && tokens[id] != token.content {
            return Err(TokenizerError::Json(format!(
                "`{}` and `{}` have the same id {id}",
                tokens[id], token.content
            )));
        }
        if vocab.get(&token.content).is_some_and(|other| *other != token.id) {
            return Err(TokenizerError::Json(format!("`{}` has two ids", token.content)));
        }
        tokens[id].clone_from(&token.content);
        kinds[id] = if token.special { Vocabulary::CONTROL } else { Vocabulary::USER_DEFINED };
    }
    Ok((tokens, kinds))
}
