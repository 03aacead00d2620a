use clap::Args;

use crate::{commands::status, context::Context, error::Result, models::Models};

/// Stop a fine-tuning job
#[derive(Debug, Args)]
pub struct Cancel {
    /// The job; the last one of this workspace when left out
    job: Option<String>,
}

pub async fn run(args: &Cancel, context: &Context) -> Result {
    let settings = context.settings(&[])?;
    let mut models = Models::new(context, &settings);
    let job = execute(args, context, &mut models).await;
    models.close().await;
    let job = job?;
    context.answer(&job, || status::text(&job))
}

async fn execute(
    args: &Cancel,
    context: &Context,
    models: &mut Models<'_>,
) -> Result<hone::model::wire::Job> {
    let id = status::job_id(args.job.as_deref(), context)?;
    let (client, _) = models.trainer().await?;
    Ok(client.cancel_job(&id).await?)
}
