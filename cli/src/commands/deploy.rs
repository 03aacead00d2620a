use clap::Args;
use hone::{
    config::Settings,
    error::Kind,
    finetune,
    registry::{self, Action, Deployment, Entry, Source, TrialResult},
    trial::{self, Summary},
};

use crate::{
    commands::test,
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
    /// Let it answer this share of the requests first, above 0 and below 1; `hone serve` takes it back when what it answers runs
    /// less often than the champion's answers. Given again, it changes the share; a deployment without it makes the model the
    /// champion [default: `canary` under `[deploy]`]
    #[arg(long, value_name = "SHARE")]
    pub canary: Option<f64>,
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
    let entry = known(args, &settings, context, &mut models).await;
    models.close().await;
    let entry = entry?;
    context.answer(&entry, || sentence(&entry))
}

/// Deploys a model that answers to its name.
async fn known(
    args: &Deploy,
    settings: &Settings,
    context: &Context,
    models: &mut Models<'_>,
) -> Result<Entry> {
    if let Some(model) = &args.model {
        models.known(model).await?;
    }
    // Read before anything that takes long: whoever changes it meanwhile is noticed when the line is written.
    let mut registry = context.registry()?;
    let deployment = deployment(args, context, models)?;
    if let Some(model) = &deployment.model {
        models.warm(model).await;
    }
    let now = jiff::Timestamp::now();
    let running = registry.canary().is_some_and(|canary| Some(&canary.model) == deployment.model.as_ref());
    Ok(match share(args.canary, settings.deploy.canary, running) {
        Some(share) => registry.try_out(deployment, share, now)?,
        None => registry.deploy(deployment, now)?,
    })
}

/// The share to begin with; none to deploy at once. A canary that is deployed again has done its time, unless another share is
/// asked for.
fn share(asked: Option<f64>, usual: f64, running: bool) -> Option<f64> {
    asked.or(Some(usual).filter(|usual| *usual > 0.0 && !running))
}

/// What a deployment says of itself.
pub fn sentence(entry: &Entry) -> String {
    if let (Action::Canary, Some(model), Some(share)) = (entry.action, &entry.canary, entry.share) {
        let force = if entry.forced { " --force" } else { "" };
        return format!(
            "`{model}` answers {:.0}% of what `ui-agent` is asked, as long as `hone serve` finds no harm; `hone deploy \
             {model}{force}` makes it the champion, `hone rollback` takes it back",
            100.0 * share
        );
    }
    match &entry.model {
        Some(model) => format!("`ui-agent` is now `{model}`; `hone rollback` takes it back"),
        None => "`ui-agent` is now the base model; `hone rollback` takes it back".to_owned(),
    }
}

/// Writes the deployment down, if the model's trial supports it: the model is the champion from now on.
pub fn execute(args: &Deploy, context: &Context, models: &Models<'_>) -> Result<Entry> {
    let deployment = deployment(args, context, models)?;
    Ok(context.registry()?.deploy(deployment, jiff::Timestamp::now())?)
}

fn deployment(args: &Deploy, context: &Context, models: &Models<'_>) -> Result<Deployment> {
    test::warn_of_unreadable_summaries(context);
    let tested = trial::last_summary(&context.workspace.trials(), args.model.as_deref());
    let Some(model) = args.model.clone().or_else(|| tested.as_ref().map(|s| s.arms.tuned.model.clone()))
    else {
        return Err(CommandError::new(Kind::Input, "no trial names a model to deploy")
            .hint("run `hone test`, or name a model: `hone deploy MODEL --force`"));
    };
    Ok(Deployment {
        source: source(&model, tested.as_ref(), context),
        model: Some(model).filter(|model| *model != models.base()),
        trial: tested.as_ref().map(TrialResult::from),
        force: args.force,
        reason: args.reason.clone(),
    })
}

/// What the registry says of a model's making.
fn source(model: &str, tested: Option<&Summary>, context: &Context) -> Source {
    let workspace = &context.workspace;
    let (job, dataset_sha256) = finetune::origin(workspace, model).unzip();
    Source {
        logs_sha256: finetune::origin_of(workspace, model).and_then(|origin| origin.learnt.logs_sha256),
        dataset_sha256,
        job,
        model_sha256: registry::sha256_of(&hone_server::adapter(&workspace.server(), model)),
        trial_sha256: tested.and_then(|summary| registry::trial_sha256(&workspace.trials(), &summary.trial)),
    }
}

#[cfg(test)]
mod tests {
    use super::share;

    #[test]
    fn a_share_that_is_asked_for_never_promotes() {
        for (asked, usual, running, expected) in [
            (None, 0.0, false, None),
            (None, 0.0, true, None),
            (None, 0.2, false, Some(0.2)),
            (None, 0.2, true, None),
            (Some(0.5), 0.0, false, Some(0.5)),
            (Some(0.5), 0.0, true, Some(0.5)),
            (Some(0.5), 0.2, true, Some(0.5)),
            // Refused further on, rather than taken for something else.
            (Some(0.0), 0.2, true, Some(0.0)),
        ] {
            assert_eq!(share(asked, usual, running), expected, "{asked:?} {usual} {running}");
        }
    }
}
