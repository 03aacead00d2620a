//! Every answer of a model, on disk before anyone uses it, so that a second run asks nothing twice.
//!
//! An entry's name is a hash of what was asked: the endpoint's name, the request in canonical JSON, and what else tells
//! two askings apart (the number of a sample). One file per entry, so that any number of processes can share a journal and
//! a killed one leaves no half of an entry.

use std::{
    path::{Path, PathBuf},
    time::Instant,
};

use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::{
    client::{Client, ModelError},
    wire::{ChatReply, ChatRequest},
};
use crate::store;

const FORMAT: &str = "hone.call";
const VERSION: u32 = 1;

/// A folder of answers.
#[derive(Clone, Debug)]
pub struct Journal {
    folder: PathBuf,
}

/// An answer and where it came from.
#[derive(Clone, Debug, PartialEq)]
pub struct Answer {
    pub reply: ChatReply,
    /// True when it was read from the journal: nothing was sent, nothing was paid.
    pub replayed: bool,
    /// What it cost in US dollars, now or when it was first asked for; none when no price is known.
    pub usd: Option<f64>,
    /// How long the provider took, now or when it was first asked.
    pub took_ms: u64,
}

#[derive(Serialize, Deserialize)]
struct Entry {
    format: String,
    version: u32,
    endpoint: String,
    sample: String,
    request: Value,
    reply: ChatReply,
    took_ms: u64,
}

impl Journal {
    /// A journal in a folder, which is made when the first answer comes.
    pub fn open(folder: impl Into<PathBuf>) -> Self {
        Self { folder: folder.into() }
    }

    /// Answers from the journal or asks the client; a new answer is on disk when this returns.
    ///
    /// `sample` tells apart askings of the same request that want answers of their own. An alias whose meaning changes
    /// must not be asked for here: resolve it to the model first, or the old model's answers come back.
    pub async fn chat(
        &self,
        client: &Client,
        request: &ChatRequest,
        sample: &str,
    ) -> Result<Answer, ModelError> {
        let asked = serde_json::to_value(request)
            .map_err(|e| ModelError::Endpoint(format!("the request cannot be written: {e}")))?;
        let usd = client.is_local().then_some(0.0);
        let answer =
            self.keep(&client.endpoint().name, &asked, sample, async || client.chat(request).await).await?;
        Ok(Answer { usd, ..answer })
    }

    /// The same for what is no chat model: `who` tells its answers from those of others. What it costs is not known.
    pub async fn keep(
        &self,
        who: &str,
        asked: &Value,
        sample: &str,
        ask: impl AsyncFnOnce() -> Result<ChatReply, ModelError>,
    ) -> Result<Answer, ModelError> {
        let usd = None;
        let path = self.path(&key(who, asked, sample));
        if let Some(entry) = read(&path) {
            return Ok(Answer { reply: entry.reply, replayed: true, usd, took_ms: entry.took_ms });
        }
        let started = Instant::now();
        let reply = ask().await?;
        let took_ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
        let entry = Entry {
            format: FORMAT.into(),
            version: VERSION,
            endpoint: who.into(),
            sample: sample.into(),
            request: asked.clone(),
            reply,
            took_ms,
        };
        store::write_json(&path, &entry)?;
        Ok(Answer { reply: entry.reply, replayed: false, usd, took_ms })
    }

    /// Two letters of the key make the folder, so that none grows too large to list.
    fn path(&self, key: &str) -> PathBuf {
        self.folder.join(&key[..2]).join(format!("{}.json", &key[2..]))
    }
}

/// An entry that cannot be read counts as not there: it is asked for again and replaced.
fn read(path: &Path) -> Option<Entry> {
    let text = std::fs::read_to_string(path).ok()?;
    match serde_json::from_str::<Entry>(&text) {
        Ok(entry) if entry.format == FORMAT && entry.version == VERSION => Some(entry),
        Ok(entry) => {
            tracing::warn!(path = %path.display(), entry.version, "journal entry of another version, asking again");
            None
        }
        Err(error) => {
            tracing::warn!(path = %path.display(), %error, "unreadable journal entry, asking again");
            None
        }
    }
}

fn key(endpoint: &str, request: &Value, sample: &str) -> String {
    let asked = serde_json::json!([endpoint, canonical(request), sample]).to_string();
    crate::text::hex(&Sha256::digest(asked))
}

/// The value with every object's keys in order.
fn canonical(value: &Value) -> Value {
    match value {
        Value::Object(map) => {
            let mut pairs: Vec<_> = map.iter().map(|(key, value)| (key.clone(), canonical(value))).collect();
            pairs.sort_by(|a, b| a.0.cmp(&b.0));
            Value::Object(pairs.into_iter().collect())
        }
        Value::Array(items) => items.iter().map(canonical).collect(),
        other => other.clone(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[test]
    fn the_key_depends_on_all_that_was_asked() {
        let base = key("a", &json!({"model": "m", "seed": 1}), "0");
        assert_eq!(base.len(), 64);
        assert_eq!(base, key("a", &json!({"seed": 1, "model": "m"}), "0"));
        for other in [
            key("b", &json!({"model": "m", "seed": 1}), "0"),
            key("a", &json!({"model": "m", "seed": 2}), "0"),
            key("a", &json!({"model": "m", "seed": 1}), "1"),
        ] {
            assert_ne!(base, other);
        }
    }

    proptest! {
        #[test]
        fn the_order_of_keys_does_not_matter(pairs in prop::collection::btree_map("[a-z]{1,4}", 0i64..9, 0..6)) {
            let forward: Value = pairs.iter().map(|(k, v)| (k.clone(), json!(v))).collect();
            let backward: Value = pairs.iter().rev().map(|(k, v)| (k.clone(), json!(v))).collect();
            prop_assert_eq!(key("e", &forward, ""), key("e", &backward, ""));
        }
    }
}
