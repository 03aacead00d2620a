//! Briefs: what people ask a UI agent for, and the 240 that Hone ships.
//!
//! A brief is one natural-language description of a UI. Its *kind* is a sort of UI (form, board, log viewer), its
//! *family* groups the variants of one UI, so that a trial can draw its bootstrap over families and a variant of a
//! training brief is never mistaken for a new one. The shipped set is 120 briefs to learn from, 60 held-out ones that
//! trials draw from, and 60 sealed ones that only a release trial opens: what is looked at in every round is sooner or
//! later chosen for. 24 of the held-out briefs are of four kinds that training never sees, so that "learnt the habit" and
//! "learnt these kinds" can be told apart; 24 of the sealed ones are of these four and of four more that no other
//! file has.
//!
//! Reading order: [`id`] (safe names), this file (the brief itself), [`error`], [`load`] (files), [`draw`] (seeded
//! subsets), [`near`] (texts that are too alike).

pub mod draw;
pub mod error;
pub mod id;
pub mod load;
pub mod near;

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

pub use draw::{heldout_sample, is_seen, sample};
pub use error::{BriefError, Fault, Problem};
pub use id::BriefId;
pub use load::{kept_apart, load, load_heldout, load_sealed, parse};

/// The longest brief, in bytes: description and requirements together (32 kB).
///
/// Far above what people write (the shipped ones stay under 1 kB). A model's context may hold less, the embedded model's
/// does: its provider then refuses the call with `context_length_exceeded`, which says to shorten the brief.
pub const MAX_BRIEF_BYTES: usize = 32 * 1024;

/// The shipped training briefs as JSON lines, for `hone init` to write out unchanged.
pub const TRAIN_JSONL: &str = include_str!("train.jsonl");

/// The shipped held-out briefs as JSON lines, for `hone init` to write out unchanged.
pub const HELDOUT_JSONL: &str = include_str!("heldout.jsonl");

/// The shipped sealed briefs as JSON lines. `hone init` does not write them out: what lies open gets looked at.
pub const SEALED_JSONL: &str = include_str!("sealed.jsonl");

/// One UI description, with what is known about it.
///
/// As JSON: `{"id","kind","family","description","framework"?,"requirements"?}`. Reading one validates it: it has a
/// safe id, its description is not empty, and it stays within [`MAX_BRIEF_BYTES`]. Unknown keys are ignored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "RawBrief")]
pub struct Brief {
    /// Name of the brief and of its files. Made from the description when a file gives none.
    pub id: BriefId,
    /// Sort of UI, such as `form`; empty when unknown.
    pub kind: String,
    /// Group of variants of one UI; the id when a file gives none, so that the brief is a family of its own.
    pub family: String,
    /// What was asked for, trimmed, never empty.
    pub description: String,
    /// What the UI is to be written with, such as `Streamlit`. Whether it is supported is the agent's business.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub framework: Option<String>,
    /// Points that the UI has to meet, each a trimmed line of text.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub requirements: Vec<String>,
}

impl Brief {
    /// A brief from a bare description, with an id made from its first words and a hash of all of it.
    ///
    /// # Errors
    /// [`BriefError::Description`] when the description is empty or longer than [`MAX_BRIEF_BYTES`].
    pub fn from_description(description: &str) -> Result<Self, BriefError> {
        let raw = RawBrief { description: Some(description.to_owned()), ..RawBrief::default() };
        Self::try_from(raw).map_err(BriefError::Description)
    }
}

/// A brief as files have it, before it is checked.
#[derive(Debug, Default, Deserialize)]
#[serde(expecting = "a brief, an object with \"description\" and usually \"id\", \"kind\" and \"family\"")]
struct RawBrief {
    id: Option<String>,
    kind: Option<String>,
    family: Option<String>,
    description: Option<String>,
    framework: Option<String>,
    requirements: Option<Vec<String>>,
}

impl TryFrom<RawBrief> for Brief {
    type Error = Fault;

    fn try_from(raw: RawBrief) -> Result<Self, Fault> {
        let description = trimmed(raw.description.ok_or(Fault::NoDescription)?);
        if description.is_empty() {
            return Err(Fault::EmptyDescription);
        }
        let requirements = non_empty(raw.requirements.unwrap_or_default());
        let bytes = description.len() + requirements.iter().map(String::len).sum::<usize>();
        if bytes > MAX_BRIEF_BYTES {
            return Err(Fault::TooLong { bytes });
        }
        let id = match raw.id {
            Some(id) => BriefId::new(id)?,
            None => BriefId::from_description(&description),
        };
        let family = raw.family.map(trimmed).filter(|family| !family.is_empty());
        Ok(Self {
            family: family.unwrap_or_else(|| id.to_string()),
            id,
            kind: raw.kind.map(trimmed).unwrap_or_default(),
            description,
            framework: supported(raw.framework.map(trimmed).filter(|framework| !framework.is_empty()))?,
            requirements,
        })
    }
}

/// The framework as we spell it; anything but Streamlit cannot be run yet.
fn supported(framework: Option<String>) -> Result<Option<String>, Fault> {
    match framework {
        Some(name) if !name.eq_ignore_ascii_case("streamlit") => Err(Fault::Framework { framework: name }),
        named => Ok(named.map(|_| "Streamlit".to_owned())),
    }
}

fn trimmed(text: String) -> String {
    let inner = text.trim();
    if inner.len() == text.len() { text } else { inner.to_owned() }
}

fn non_empty(lines: Vec<String>) -> Vec<String> {
    lines.into_iter().map(trimmed).filter(|line| !line.is_empty()).collect()
}

/// The 120 shipped briefs that training may see.
pub fn shipped_train() -> Vec<Brief> {
    shipped("train.jsonl", TRAIN_JSONL)
}

/// The 60 shipped briefs that training must never see.
pub fn shipped_heldout() -> Vec<Brief> {
    shipped("heldout.jsonl", HELDOUT_JSONL)
}

/// The 60 shipped briefs that neither training nor any trial but that of a release may see.
pub fn shipped_sealed() -> Vec<Brief> {
    shipped("sealed.jsonl", SEALED_JSONL)
}

#[expect(clippy::expect_used, reason = "the text is part of the program, and the tests load all of it")]
fn shipped(name: &str, text: &str) -> Vec<Brief> {
    parse(name.as_ref(), text.as_bytes()).expect("the shipped briefs are valid")
}

/// The kinds that occur in `briefs`; briefs of unknown kind add none.
pub fn kinds(briefs: &[Brief]) -> BTreeSet<String> {
    briefs.iter().map(|brief| &brief.kind).filter(|kind| !kind.is_empty()).cloned().collect()
}

#[cfg(test)]
mod tests;
