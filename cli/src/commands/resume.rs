use clap::Args;
use hone::finetune;

use crate::{commands::status, context::Context, error::Result};

/// Go on with a paused fine-tuning job, and follow it to its end
#[derive(Debug, Args)]
pub struct Resume {
    /// The job; the last one of this workspace when left out
    job: Option<String>,
    /// Resume the job and leave
    #[arg(long)]
    detach: bool,
}

pub async fn run(args: &Resume, context: &Context) -> Result {
    status::with_job(args.job.as_deref(), context, async |client, id| {
        let job = client.resume_job(&id).await?;
        if args.detach {
            return Ok(job);
        }
        Ok(finetune::follow(&client, &context.workspace, &id, &context.events, &context.cancel).await?)
    })
    .await
}
