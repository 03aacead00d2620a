//! From what models really write to files.
//!
//! A reply goes through four steps, each in its own file: [`clean`] takes away what transport and chat templates add,
//! [`fence`] finds the blocks ([`unfenced`] the code, when there are none; [`json`] a list of files), [`marker`] finds
//! names and splits blocks that hold several files, and [`assemble`] gives every part a safe and unique path.
//!
//! Decisions that callers rely on:
//! - The order of the files is that of the reply: the habit looks at the first one.
//! - When a path comes twice, the later version replaces the earlier in the earlier's place, unless it is less than half
//!   as long: then it is an excerpt, and is left out.
//! - Prose alone, shell commands, program output and folder trees are not files, unless the reply names them.
//! - A file's content has no blank lines at its start and ends with exactly one newline. Empty files are left out.
//! - Everything is linear in the reply's length, and nothing past [`MAX_REPLY`] bytes is read.

mod assemble;
mod clean;
mod fence;
mod json;
mod language;
mod marker;
mod path;
mod strings;
mod unfenced;

#[cfg(test)]
mod tests;

use super::Candidate;
use fence::{Block, Segment};
pub(super) use language::tag_of_path;
use language::{Language, of_content, of_path};

/// Bytes of a reply that are read; a model that writes more is repeating itself.
pub const MAX_REPLY: usize = 1 << 20;

/// A piece of a reply that may become a file.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Part {
    /// As the reply wrote it; not yet safe.
    path: Option<String>,
    language: Language,
    content: String,
}

/// The files of a reply, in its order; none when it is prose alone. Never fails: see the module for what is decided how.
pub fn parse_reply(reply: &str) -> Candidate {
    let text = clean::clean(reply);
    if let Some(parts) = json::files_in_reply(&text) {
        return assemble::assemble(parts);
    }
    let segments = fence::segments(&text);
    let mut parts = fenced_parts(&segments);
    if !parts.iter().any(|p| p.language == Language::Python) {
        parts = with_loose_code(&segments, parts);
    }
    assemble::assemble(parts)
}

/// Whether a reply may hold files, without taking it apart: most prose is known by a look at how its lines begin. Never
/// false where [`parse_reply`] finds one.
pub(crate) fn may_hold_files(reply: &str) -> bool {
    let has = |mark: &str| memchr::memmem::find(reply.as_bytes(), mark.as_bytes()).is_some();
    // Fences, and what lists of files and escaped thoughts have.
    ["```", "~~~", "{", "<"].into_iter().any(has)
        || clean::plain(reply).split('\n').any(unfenced::begins_file)
}

fn fenced_parts(segments: &[Segment<'_>]) -> Vec<Part> {
    let mut parts = Vec::new();
    let mut before: &[&str] = &[];
    for segment in segments {
        match segment {
            Segment::Text(lines) => before = lines,
            Segment::Block(block) => {
                block_parts(block, before, &mut parts);
                before = &[];
            }
        }
    }
    parts
}

/// Replies that open no fence, or close one that they never opened: the code stands between the fences.
fn with_loose_code(segments: &[Segment<'_>], fenced: Vec<Part>) -> Vec<Part> {
    let mut parts: Vec<Part> = segments
        .iter()
        .filter_map(|segment| match segment {
            Segment::Text(lines) => Some(unfenced::parts(lines)),
            Segment::Block(_) => None,
        })
        .flatten()
        .collect();
    parts.extend(fenced);
    parts
}

fn block_parts(block: &Block<'_>, before: &[&str], parts: &mut Vec<Part>) {
    if let Some(title) = &block.info.title {
        // A quoted title says that the block is this one file, as it stands.
        let content = block.lines.join("\n");
        parts.push(Part { path: Some(title.clone()), language: of_path(title), content });
        return;
    }
    let tag = block.info.language.unwrap_or(Language::Unknown);
    let name = block.info.path.clone().or_else(|| marker::name_before(before, tag));
    let language = name.as_deref().map_or(tag, of_path);
    for section in marker::split(&block.lines, name, language) {
        section_parts(section, tag, parts);
    }
}

fn section_parts(section: marker::Section<'_>, tag: Language, parts: &mut Vec<Part>) {
    let content = section.lines.join("\n");
    if let Some(path) = section.path {
        let language = of_path(&path);
        let content = if language == Language::Python { clean::unescape(content) } else { content };
        parts.push(Part { path: Some(path), language, content });
        return;
    }
    if matches!(tag, Language::Json | Language::Unknown)
        && let Some(files) = json::files(&content)
    {
        parts.extend(files);
        return;
    }
    let content =
        if matches!(tag, Language::Python | Language::Unknown) { clean::unescape(content) } else { content };
    let language = if tag == Language::Unknown { of_content(&content) } else { tag };
    if language.is_a_file() {
        parts.push(Part { path: None, language, content });
    }
}
