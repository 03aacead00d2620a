use clap::Args;

use crate::{context::Context, error::Result};

/// Take the last step back: a canary goes, or else the agent uses the model before the champion from now on
#[derive(Debug, Args)]
pub struct Rollback {
    /// Why, in your words; the registry records it
    #[arg(long, value_name = "TEXT", default_value = "")]
    reason: String,
}

pub fn run(args: &Rollback, context: &Context) -> Result {
    let mut registry = context.registry()?;
    let entry = registry.rollback(&args.reason, jiff::Timestamp::now())?;
    let base = context.settings(&[])?.finetune.base_model;
    let model = entry.model.as_deref().unwrap_or(&base);
    context.answer(&entry, || match &entry.canary {
        Some(canary) => format!("`{canary}` answers nothing any more; `ui-agent` is `{model}`"),
        None => format!("`ui-agent` is `{model}` again"),
    })
}
