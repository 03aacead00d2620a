//! What a folder says about text: tokeniser, ends, chat template, licence.

use std::path::Path;

use serde::Deserialize;
use serde_json::Value;

use super::{read_json_if, read_text};
use crate::{model::LoadError, tokenizer::Vocabulary};

/// Larger than any tokeniser.
const MOST_TOKENIZER: u64 = 256 << 20;
/// The head of a README, where the hub's metadata stands.
const MOST_README: u64 = 4 << 20;

/// The vocabulary, with what the folder's other files say about it.
pub(super) struct Texts {
    pub vocabulary: Vocabulary,
}

#[derive(Default, Deserialize)]
struct TokenizerConfig {
    #[serde(default)]
    bos_token: Option<Named>,
    #[serde(default)]
    eos_token: Option<Named>,
    #[serde(default)]
    add_bos_token: Option<bool>,
    #[serde(default)]
    chat_template: Option<Templates>,
}

/// A token, as text or as an object.
#[derive(Deserialize)]
#[serde(untagged)]
enum Named {
    Text(String),
    Object { content: String },
}

impl Named {
    fn text(&self) -> &str {
        match self {
            Self::Text(text) | Self::Object { content: text } => text,
        }
    }
}

/// One template, or several by name.
#[derive(Deserialize)]
#[serde(untagged)]
enum Templates {
    One(String),
    Several(Vec<Template>),
}

#[derive(Deserialize)]
struct Template {
    name: String,
    template: String,
}

#[derive(Default, Deserialize)]
struct GenerationConfig {
    #[serde(default)]
    eos_token_id: Value,
}

impl Texts {
    pub(super) fn read(folder: &Path) -> Result<Self, LoadError> {
        const NAME: &str = "tokenizer.json";
        let text = read_text(folder, NAME, MOST_TOKENIZER)?.ok_or_else(|| LoadError::File {
            file: folder.join(NAME).display().to_string(),
            source: std::io::ErrorKind::NotFound.into(),
        })?;
        let mut vocabulary = Vocabulary::from_json(&text)?;
        let config: TokenizerConfig = read_json_if(folder, "tokenizer_config.json")?.unwrap_or_default();
        let generation: GenerationConfig =
            read_json_if(folder, "generation_config.json")?.unwrap_or_default();
        let id = |named: &Option<Named>| {
            let name = named.as_ref()?.text();
            let at = vocabulary.tokens.iter().position(|token| token == name)?;
            u32::try_from(at).ok()
        };
        let (bos, eos) = (id(&config.bos_token), id(&config.eos_token));
        vocabulary.more_ends = ids(&generation.eos_token_id);
        vocabulary.eos = eos.or_else(|| vocabulary.more_ends.first().copied());
        vocabulary.bos = bos;
        vocabulary.add_bos = config.add_bos_token.unwrap_or(vocabulary.add_bos) && bos.is_some();
        Ok(Self { vocabulary })
    }
}

/// One id, or a list of them.
fn ids(value: &Value) -> Vec<u32> {
    let id = |value: &Value| value.as_u64().and_then(|id| u32::try_from(id).ok());
    match value {
        Value::Array(values) => values.iter().filter_map(id).collect(),
        value => id(value).into_iter().collect(),
    }
}

/// The chat template: a file of its own, or a part of `tokenizer_config.json`.
pub(super) fn template(folder: &Path) -> Result<Option<String>, LoadError> {
    if let Some(text) = read_text(folder, "chat_template.jinja", super::MOST_JSON)? {
        return Ok(Some(text));
    }
    let config: TokenizerConfig = read_json_if(folder, "tokenizer_config.json")?.unwrap_or_default();
    Ok(match config.chat_template {
        Some(Templates::One(text)) => Some(text),
        Some(Templates::Several(mut list)) => {
            let default = list.iter().position(|template| template.name == "default").unwrap_or(0);
            (default < list.len()).then(|| list.swap_remove(default).template)
        }
        None => None,
    })
}

/// The licence that the README's head names.
pub(super) fn licence(folder: &Path) -> Option<String> {
    let text = read_text(folder, "README.md", MOST_README).ok().flatten()?;
    let head = text.strip_prefix("---")?.split("\n---").next()?;
    let line = head.lines().find_map(|line| line.strip_prefix("license:"))?;
    let name = line.trim().trim_matches(['"', '\'']);
    (!name.is_empty()).then(|| name.to_owned())
}
