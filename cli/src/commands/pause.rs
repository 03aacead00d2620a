use clap::Args;

use crate::{commands::status, context::Context, error::Result};

/// Let a running fine-tuning job rest; `hone resume` goes on with it
#[derive(Debug, Args)]
pub struct Pause {
    /// The job; the last one of this workspace when left out
    job: Option<String>,
}

pub async fn run(args: &Pause, context: &Context) -> Result {
    status::with_job(args.job.as_deref(), context, async |trainer, id| Ok(trainer.pause(&id).await?)).await
}
