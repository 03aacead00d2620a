use clap::{Args, builder::RangedU64ValueParser};
use hone::{
    agent::Prompts,
    brief,
    config::Settings,
    dataset::{self, Inputs, Logs, PrepareOptions, Prepared, Refresh, Shape, Votes},
    error::Kind,
    rating,
};

use crate::{commands::evolve, context::Context, error::Result};

/// Turn evolution logs into a fine-tuning dataset in OpenAI's JSONL, with a manifest
///
/// Replaces prepare_openai_finetuning.py.
#[derive(Clone, Debug, Default, Args)]
pub struct Prepare {
    /// Lowest score (0-10) of a positive example
    #[arg(long, value_name = "SCORE", value_parser = |text: &str| from_0_to(10.0, text))]
    pub min_score: Option<f64>,
    /// Largest number of rows
    #[arg(long, value_name = "N", value_parser = RangedU64ValueParser::<usize>::new().range(1..))]
    pub max_rows: Option<usize>,
    /// Leave out preference pairs of two different writers
    #[arg(long)]
    pub on_policy: bool,
    /// Similarity (above 0, up to 1) from which two apps are too alike for both to be taught [default: 0.75]
    #[arg(long, value_name = "X", value_parser = above_0_up_to_1)]
    pub similarity: Option<f64>,
    /// Share (0 to 1) of rows at most that show an app, its faults and the better app [default: 0.3]
    #[arg(long, value_name = "X", value_parser = |text: &str| from_0_to(1.0, text))]
    pub improvement_share: Option<f64>,
    /// Write the rows in another shape too, into data/export: chat, dpo, trl-dpo, sharegpt, alpaca, prompt-completion, kto or rft;
    /// may be given several times
    #[arg(long, value_name = "SHAPE", value_parser = shape)]
    pub format: Vec<Shape>,
    /// Run nothing: leave out what nobody looked at twice, and all logs of the original workflow
    #[arg(long)]
    pub no_run: bool,
}

pub async fn run(args: &Prepare, context: &Context) -> Result {
    let settings = context.settings(&[])?;
    let prepared = execute(args, context, &settings).await?;
    context.answer(&prepared.summary, || prepared.summary.text())
}

pub async fn execute(args: &Prepare, context: &Context, settings: &Settings) -> Result<Prepared> {
    let defaults = PrepareOptions::default();
    let options = PrepareOptions {
        min_score: args.min_score.unwrap_or(defaults.min_score),
        max_rows: args.max_rows,
        on_policy: args.on_policy,
        similarity: args.similarity.unwrap_or(defaults.similarity),
        improvement_share: args.improvement_share.unwrap_or(defaults.improvement_share),
        seed: context.global.seed,
        prompts: Prompts::load(&context.workspace.prompts())?,
        ..defaults
    };
    let workspace = &context.workspace;
    // Rows are counted as soon as the logs are there.
    hone::text::load_tokens();
    let mut logs = dataset::read_logs(&workspace.logs())?;
    if !args.no_run {
        refresh(&mut logs, &options, context, settings).await?;
    }
    let heldout = brief::kept_apart(workspace)?;
    let votes = Votes::of(&rating::read(&workspace.ratings())?);
    let inputs = Inputs { heldout: &heldout, votes };
    let mut prepared = dataset::prepare(workspace, &logs, &inputs, &options, &context.events)?;
    prepared.write_exports(workspace, &args.format)?;
    Ok(prepared)
}

/// Has a critic look at what nobody looked at twice. Where none can, the rest goes on without.
async fn refresh(
    logs: &mut Logs,
    options: &PrepareOptions,
    context: &Context,
    settings: &Settings,
) -> Result<()> {
    let wanting = dataset::wanting(logs, options);
    if wanting == 0 {
        return Ok(());
    }
    context.events.note(format!("looking at {wanting} candidates again"));
    let critic = match evolve::open_critic(context, evolve::critic_options(context, settings)?).await {
        Ok(critic) => critic,
        Err(error) if error.kind == Kind::Environment => {
            let text = format!("left out {wanting} candidates that nobody looked at twice: {error}");
            context.events.warn(text, Some("`hone doctor` says what is missing".into()));
            return Ok(());
        }
        Err(error) => return Err(error),
    };
    let refresh = Refresh {
        critic: &critic,
        folder: &context.workspace.re_evaluated(),
        options,
        events: &context.events,
        cancel: &context.cancel,
    };
    let looked = refresh.run(logs).await;
    critic.close().await;
    looked?;
    Ok(())
}

fn shape(name: &str) -> std::result::Result<Shape, String> {
    Shape::parse(name).ok_or_else(|| {
        let names: Vec<&str> = Shape::ALL.into_iter().map(Shape::name).collect();
        format!("not one of {}", names.join(", "))
    })
}

fn from_0_to(most: f64, text: &str) -> std::result::Result<f64, String> {
    let number: f64 = text.parse().map_err(|_| "not a number".to_owned())?;
    if (0.0..=most).contains(&number) { Ok(number) } else { Err(format!("not between 0 and {most}")) }
}

fn above_0_up_to_1(text: &str) -> std::result::Result<f64, String> {
    from_0_to(1.0, text)
        .and_then(|number| if number > 0.0 { Ok(number) } else { Err("not above 0".to_owned()) })
}
