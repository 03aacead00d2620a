use clap::Args;
use hone::{
    error::Kind,
    registry::{Deployment, Entry, Registry, TrialResult},
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
    if let Some(model) = &args.model {
        let settings = context.settings(&[])?;
        let mut models = Models::new(context, &settings);
        let known = models.known(model).await;
        models.close().await;
        known?;
    }
    let entry = execute(args, context)?;
    context.answer(&entry, || sentence(&entry))
}

/// What a deployment says of itself.
pub fn sentence(entry: &Entry) -> String {
    let model = entry.model.as_deref().unwrap_or("the base model");
    format!("`ui-agent` is now `{model}`; `hone rollback` takes it back")
}

pub fn execute(args: &Deploy, context: &Context) -> Result<Entry> {
    let tested = trial::last_summary(&context.workspace.trials(), args.model.as_deref());
    let Some(model) = args.model.clone().or_else(|| tested.as_ref().map(|s| s.arms.tuned.model.clone()))
    else {
        return Err(CommandError::new(Kind::Input, "no trial names a model to deploy")
            .hint("run `hone test`, or name a model: `hone deploy MODEL --force`"));
    };
    let settings = context.settings(&[])?;
    let base = Models::new(context, &settings).base();
    let deployment = Deployment {
        model: Some(model).filter(|model| *model != base),
        trial: tested.as_ref().map(TrialResult::from),
        dataset_sha256: None,
        job: hone::finetune::last_job(&context.workspace),
        force: args.force,
        reason: args.reason.clone(),
    };
    let mut registry = Registry::open(&context.workspace.registry())?;
    Ok(registry.deploy(deployment, jiff::Timestamp::now())?)
}
