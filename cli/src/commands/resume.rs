use clap::Args;
use hone::finetune::{self, Following};

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
    status::with_job(args.job.as_deref(), context, async |trainer, id| {
        let job = trainer.resume(&id).await?;
        if args.detach {
            return Ok(job);
        }
        let (events, cancel) = (&context.events, &context.cancel);
        Ok(finetune::follow(
            &trainer,
            &context.workspace,
            &id,
            Following { patient: true, ..Following::default() },
            events,
            cancel,
        )
        .await?)
    })
    .await
}
