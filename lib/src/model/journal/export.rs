//! A journal as a file that others can replay: JSON lines, a head and then an entry each, in the order of their keys.
//!
//! When, how fast and through which row a call was made is left out, so that journals of the same calls give the same bytes.

use std::{
    io::{BufRead, BufReader, BufWriter, Write},
    path::Path,
};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{
    canonical,
    db::{Db, Entry},
    file, key,
};
use crate::{
    error::{Explain, Kind},
    model::{price::Usd, wire::ChatReply},
    store::StoreError,
};

const FORMAT: &str = "hone.calls";
const VERSION: u32 = 1;

#[derive(Serialize, Deserialize)]
struct Head {
    format: String,
    version: u32,
}

#[derive(Serialize, Deserialize)]
struct Line {
    key: String,
    identity: String,
    sample: String,
    /// What it cost; null when no price was known.
    nano_usd: Option<i64>,
    request: Value,
    reply: Value,
}

/// Why a file of calls cannot be taken in.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    #[error("`{file}` is not an export of calls: {why}")]
    Format { file: String, why: String },
    #[error("`{file}` line {line}: {why}")]
    Line { file: String, line: usize, why: String },
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Explain for ExportError {
    fn kind(&self) -> Kind {
        match self {
            Self::Format { .. } | Self::Line { .. } => Kind::Input,
            Self::Store(e) => e.kind(),
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::Format { .. } => Some("`hone calls export FILE` writes one".into()),
            Self::Line { .. } => Some("export it again where it came from; nothing was taken in".into()),
            Self::Store(e) => e.hint(),
        }
    }
}

/// What an import did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Imported {
    pub imported: u64,
    /// They were there already.
    pub known: u64,
}

/// Writes every call of a journal's folder into a file; how many there are.
pub fn export(folder: &Path, to: &Path) -> Result<u64, StoreError> {
    let failed = |e| StoreError::new("write", to, e);
    let beside = to.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let temporary = tempfile::NamedTempFile::new_in(beside).map_err(failed)?;
    let mut out = BufWriter::new(temporary);
    write_line(&mut out, &Head { format: FORMAT.into(), version: VERSION }).map_err(failed)?;
    let mut count = 0;
    if file(folder).exists() {
        let db = Db::open(folder)?;
        let written = db.each(|entry| {
            count += 1;
            let Entry { key, identity, sample, request, reply, usd } = entry;
            let [request, reply] = [request, reply].map(|text| serde_json::from_str(&text));
            let (nano_usd, request, reply) = (usd.map(Usd::nanos), request?, reply?);
            write_line(&mut out, &Line { key, identity, sample, nano_usd, request, reply })
        });
        written.map_err(|e| db.broken("read", &e))?.map_err(failed)?;
    }
    let temporary = out.into_inner().map_err(|e| failed(e.into_error()))?;
    temporary.as_file().sync_all().map_err(failed)?;
    temporary.persist(to).map_err(|e| failed(e.error))?;
    Ok(count)
}

fn write_line(out: &mut impl Write, value: &impl Serialize) -> std::io::Result<()> {
    serde_json::to_writer(&mut *out, value)?;
    out.write_all(b"\n")
}

/// Takes the calls of a file into a journal, all or none. They cost nothing: they are replayed.
pub fn import(folder: &Path, from: &Path) -> Result<Imported, ExportError> {
    let opened = std::fs::File::open(from).map_err(|e| StoreError::new("read", from, e))?;
    let name = || from.display().to_string();
    let mut lines = BufReader::new(opened).lines().enumerate();
    let head =
        lines.next().map(|(_, line)| line).transpose().map_err(|e| StoreError::new("read", from, e))?;
    let head: Head = serde_json::from_str(head.as_deref().unwrap_or_default())
        .map_err(|e| ExportError::Format { file: name(), why: e.to_string() })?;
    if head.format != FORMAT || head.version != VERSION {
        let why = format!("it says `{}` {}, and `{FORMAT}` {VERSION} can be read", head.format, head.version);
        return Err(ExportError::Format { file: name(), why });
    }
    let db = Db::open(folder)?;
    let broken = |e| ExportError::Store(db.broken("write", &e));
    db.begin().map_err(broken)?;
    let mut done = Imported::default();
    let taken = lines.try_for_each(|(index, line)| {
        let refuse = |why: String| ExportError::Line { file: name(), line: index + 1, why };
        let line = line.map_err(|e| StoreError::new("read", from, e))?;
        let entry = entry(&line).map_err(refuse)?;
        match db.take_in(&entry).map_err(broken)? {
            true => done.imported += 1,
            false => done.known += 1,
        }
        Ok(())
    });
    match taken {
        Ok(()) => db.end(Ok(done)).map_err(broken),
        Err(error) => {
            // Taken back: the first error is the one to tell.
            let _ = db.end(Err::<(), _>(rusqlite::Error::QueryReturnedNoRows));
            Err(error)
        }
    }
}

/// A line whose key is that of what it says was asked.
fn entry(line: &str) -> Result<Entry, String> {
    let Line { key: named, identity, sample, nano_usd, request, reply } =
        serde_json::from_str(line).map_err(|e| e.to_string())?;
    let request = canonical(&request).to_string();
    if named != key(&identity, &request, &sample) {
        return Err("its key is not that of its request".into());
    }
    let reply: ChatReply = serde_json::from_value(reply).map_err(|e| format!("its reply: {e}"))?;
    let reply = serde_json::to_string(&reply).map_err(|e| e.to_string())?;
    let usd = nano_usd.map(Usd::from_nanos);
    Ok(Entry { key: named, identity, sample, request, reply, usd })
}
