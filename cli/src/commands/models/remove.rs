use clap::Args;

use crate::{context::Context, error::Result};

/// Take an added base model out, with what was downloaded for it
///
/// Files that were on this machine before stay where they are.
#[derive(Debug, Args)]
pub struct Remove {
    /// Name of the model, as `hone models` shows it
    name: String,
}

pub fn run(args: &Remove, context: &Context) -> Result {
    let removed = context.machine.catalog().remove(&args.name)?;
    let value = serde_json::json!({ "removed": removed.name, "source": removed.source });
    context.answer(&value, || format!("removed `{}` (from `{}`)", removed.name, removed.source))
}
