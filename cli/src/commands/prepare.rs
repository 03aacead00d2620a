use clap::Args;
use hone::{
    agent::Prompts,
    brief,
    dataset::{self, PrepareOptions, Prepared},
};

use crate::{context::Context, error::Result};

/// Turn evolution logs into a fine-tuning dataset in OpenAI's JSONL, with a manifest
///
/// Replaces prepare_openai_finetuning.py.
#[derive(Clone, Debug, Default, Args)]
pub struct Prepare {
    /// Lowest score (0-10) of a positive example
    #[arg(long, value_name = "SCORE")]
    pub min_score: Option<f64>,
    /// Largest number of rows
    #[arg(long, value_name = "N")]
    pub max_rows: Option<usize>,
    /// Leave out preference pairs of two different writers
    #[arg(long)]
    pub on_policy: bool,
}

pub fn run(args: &Prepare, context: &Context) -> Result {
    let prepared = execute(args, context)?;
    context.answer(&prepared.summary, || prepared.summary.text())
}

pub fn execute(args: &Prepare, context: &Context) -> Result<Prepared> {
    let defaults = PrepareOptions::default();
    let options = PrepareOptions {
        min_score: args.min_score.unwrap_or(defaults.min_score),
        max_rows: args.max_rows,
        on_policy: args.on_policy,
        seed: context.global.seed,
        prompts: Prompts::load(&context.workspace.prompts())?,
        ..defaults
    };
    let heldout = match context.workspace.heldout_briefs() {
        path if path.exists() => brief::load(&path)?,
        _ => brief::shipped_heldout(),
    };
    Ok(dataset::prepare(&context.workspace, &heldout, &options, &context.events)?)
}
