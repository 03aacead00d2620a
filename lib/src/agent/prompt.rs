//! A candidate written as a reply.

use super::{
    Candidate, SourceFile,
    reply::{parse_reply, tag_of_path},
};

/// A candidate as the reply that a training row teaches: the inverse of [`super::parse_reply`].
///
/// Each file is a block whose first line is a comment with its path. Where that would read back as something else
/// (comments that name files, formats without comments) the path stands in quotes beside the fence's tag.
pub fn reply_of(candidate: &Candidate) -> String {
    let blocks: Vec<String> = candidate.files.iter().map(block_of).collect();
    blocks.join("\n\n")
}

fn block_of(file: &SourceFile) -> String {
    let fence = fence_around(&file.content);
    let (tag, path, content) = (tag_of_path(&file.path), &file.path, file.content.trim_end());
    let plain = format!("{fence}{tag}\n# {path}\n{content}\n{fence}");
    let reads_back = match parse_reply(&plain).files.as_slice() {
        [read] => read.path == file.path && read.content.trim_end() == content,
        _ => false,
    };
    if reads_back {
        return plain;
    }
    format!("{fence}{tag} title=\"{path}\"\n{content}\n{fence}")
}

/// A fence that nothing in the content can close.
fn fence_around(content: &str) -> String {
    let longest = content.split(|c| c != '`').map(str::len).max().unwrap_or(0);
    "`".repeat(longest.max(2) + 1)
}
