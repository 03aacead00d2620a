use clap::Args;
use hone::{
    error::Kind,
    registry::{Deployment, Entry, TrialResult},
    trial,
};

use crate::{
    context::Context,
    error::{CommandError, Result},
    models::Models,
};

/// Let the agent use a tuned model from now on
///
/// Refused when its trial did not end with "promote", unless `--force` is given, which is recorded.
#[derive(Clone, Debug, Default, Args)]
pub struct Deploy {
    /// The model; the tuned one of the last trial when left out
    pub model: Option<String>,
    /// Deploy against the verdict; the registry records it
    #[arg(long)]
    pub force: bool,
    /// Why, in your words; the registry records it
    #[arg(long, value_name = "TEXT", default_value = "")]
    pub reason: String,
}

pub async fn run(args: &Deploy, context: &Context) -> Result {
    let settings = context.settings(&[])?;
    let mut models = Models::new(context, &settings);
    let known = match &args.model {
        Some(model) => models.known(model).await,
        None => Ok(()),
    };
    let entry = known.and_then(|()| execute(args, context, &models));
    models.close().await;
    let entry = entry?;
    context.answer(&entry, || sentence(&entry))
}

/// What a deployment says of itself.
pub fn sentence(entry: &Entry) -> String {
    match &entry.model {
        Some(model) => format!("`ui-agent` is now `{model}`; `hone rollback` takes it back"),
        None => "`ui-agent` is now the base model".to_owned(),
    }
}

/// Writes the deployment down, if the model's trial supports it.
pub fn execute(args: &Deploy, context: &Context, models: &Models<'_>) -> Result<Entry> {
    let tested = trial::last_summary(&context.workspace.trials(), args.model.as_deref());
    let Some(model) = args.model.clone().or_else(|| tested.as_ref().map(|s| s.arms.tuned.model.clone()))
    else {
        return Err(CommandError::new(Kind::Input, "no trial names a model to deploy")
            .hint("run `hone test`, or name a model: `hone deploy MODEL --force`"));
    };
    let origin = hone::finetune::origin(&context.workspace, &model);
    let (job, dataset_sha256) = origin.unzip();
    let deployment = Deployment {
        model: Some(model).filter(|model| *model != models.base()),
        trial: tested.as_ref().map(TrialResult::from),
        dataset_sha256,
        job,
        force: args.force,
        reason: args.reason.clone(),
    };
    let mut registry = context.registry()?;
    Ok(registry.deploy(deployment, jiff::Timestamp::now())?)
}
