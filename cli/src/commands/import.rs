use std::path::PathBuf;

use clap::Args;
use hone::{brief, evolve};

use crate::{context::Context, error::Result};

/// Take in replies that exist already: they become the first candidates of evolutions, and cost nothing
///
/// Reads chat JSONL (the last user message is the brief, the last assistant message the reply), stored completions, and CSV
/// with the columns `prompt` and `reply`.
#[derive(Clone, Debug, Args)]
pub struct Import {
    /// JSON lines, a JSON list, or a table with a head
    file: PathBuf,
}

pub fn run(args: &Import, context: &Context) -> Result {
    let workspace = &context.workspace;
    let known = match workspace.train_briefs() {
        path if path.exists() => brief::load(&path)?,
        _ => Vec::new(),
    };
    let summary = evolve::import(workspace, &args.file, &known, &brief::kept_apart(workspace)?)?;
    context.answer(&summary, || {
        let skipped: Vec<String> = summary.skipped.iter().map(|(why, n)| format!("{n} {why}")).collect();
        let skipped =
            if skipped.is_empty() { String::new() } else { format!("\nleft out: {}", skipped.join(", ")) };
        format!(
            "{} new replies to {} briefs{skipped}\nnext: `hone evolve --briefs {}`",
            summary.imported,
            summary.briefs,
            workspace.imported_briefs().display()
        )
    })
}
