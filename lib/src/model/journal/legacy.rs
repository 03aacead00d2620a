//! Entries of the journal's first form: a file for each, named by the same key, in folders of two letters.
//!
//! They are taken over one by one, when they are asked for. A call of the embedded model has the same key in both forms; one
//! of a provider was named by its row then and is known by its address now, so it is looked for under the row's name.

use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::Value;

use super::{Asked, db::Kept, key};
use crate::model::{
    price::{Tariff, Usd},
    wire::ChatReply,
};

const FORMAT: &str = "hone.call";
const VERSION: u32 = 1;

/// Where old entries are, if there are any.
pub(super) struct Legacy(Option<PathBuf>);

#[derive(Deserialize)]
struct Entry {
    format: String,
    version: u32,
    reply: Value,
    took_ms: i64,
}

impl Legacy {
    pub fn find(folder: &Path) -> Self {
        let Ok(entries) = std::fs::read_dir(folder) else { return Self(None) };
        let is_old = |name: &str| name.len() == 2 && name.bytes().all(|byte| byte.is_ascii_hexdigit());
        let any = entries.flatten().any(|entry| is_old(&entry.file_name().to_string_lossy()));
        Self(any.then(|| folder.to_owned()))
    }

    /// An old entry that answers what is asked. One that cannot be read counts as not there.
    pub fn take(&self, asked: &Asked) -> Option<Kept> {
        // They do not say with which options of its own a row had asked.
        let folder = self.0.as_ref().filter(|_| !asked.own_options)?;
        let key = key(&asked.provider, &asked.request, &asked.sample);
        let (first, rest) = key.split_at_checked(2)?;
        let text = std::fs::read_to_string(folder.join(first).join(format!("{rest}.json"))).ok()?;
        let entry: Entry = serde_json::from_str(&text).ok()?;
        if entry.format != FORMAT || entry.version != VERSION {
            return None;
        }
        let reply: ChatReply = serde_json::from_value(entry.reply).ok()?;
        let usd = matches!(asked.tariff, Tariff::Free).then_some(Usd::ZERO);
        Some(Kept { reply: serde_json::to_string(&reply).ok()?, usd, took_ms: entry.took_ms })
    }
}
