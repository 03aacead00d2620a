use clap::Args;
use hone::finetune;

use crate::{commands::status, context::Context, error::Result};

/// Stop a fine-tuning job
#[derive(Debug, Args)]
pub struct Cancel {
    /// The job; the last one of this workspace when left out
    job: Option<String>,
}

pub async fn run(args: &Cancel, context: &Context) -> Result {
    status::with_job(args.job.as_deref(), context, async |trainer, id| {
        Ok(finetune::cancel(&trainer, &context.workspace, &id).await?)
    })
    .await
}
