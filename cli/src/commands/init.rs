use clap::Args;
use hone::{brief, error::Kind, store};

use crate::{
    context::Context,
    error::{CommandError, Result},
};

/// Start a workspace with the shipped briefs
#[derive(Debug, Args)]
pub struct Init {
    /// Replace the briefs and settings that are there
    #[arg(long)]
    force: bool,
}

const SETTINGS: &str =
    "# Settings of this workspace. `hone config` shows every one, its value and where it came from.\n";

pub fn run(args: &Init, context: &Context) -> Result {
    let written = create(context, args.force)?;
    if written.is_empty() {
        let message = format!("`{}` is a workspace already", context.workspace.root().display());
        return Err(CommandError::new(Kind::Input, message)
            .hint("`hone init --force` replaces its briefs and settings"));
    }
    let value = serde_json::json!({ "workspace": context.workspace.root(), "written": written });
    context.answer(&value, || format!("workspace ready: wrote {}", written.join(", ")))
}

/// Writes what is missing (everything with `force`); the names of what was written.
pub fn create(context: &Context, force: bool) -> Result<Vec<String>> {
    let workspace = &context.workspace;
    let files = [
        (workspace.settings(), SETTINGS),
        (workspace.train_briefs(), brief::TRAIN_JSONL),
        (workspace.heldout_briefs(), brief::HELDOUT_JSONL),
    ];
    let mut written = Vec::new();
    for (path, text) in files {
        if force || !path.exists() {
            store::write_atomic(&path, text.as_bytes())?;
            let name = path.strip_prefix(workspace.root()).unwrap_or(&path);
            written.push(format!("`{}`", name.display()));
        }
    }
    Ok(written)
}
