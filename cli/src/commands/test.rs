use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
};

use clap::Args;
use hone::{
    agent::{self, Agent, Prompts},
    brief::{self, Brief},
    config::Settings,
    critic::{CriticOptions, Judge},
    dataset,
    error::Kind,
    finetune,
    model::wire::{JobEvent, Message},
    store,
    trial::{self, Arm, Extras, Generation, Judgement, LossPoint, Summary, Trial, TrialSpec, Verdict},
};

use crate::{
    commands::{evolve, plan},
    context::Context,
    error::{CommandError, Exit, Result},
    models::Models,
};

/// Compare the tuned model with the base on held-out briefs, and say whether it should be deployed
///
/// Ends with exit code 0 when the verdict is "promote", 4 otherwise. Replaces test_finetuned_model.py.
#[derive(Clone, Debug, Default, Args)]
pub struct Test {
    /// The tuned model; the last one of this workspace when left out
    pub model: Option<String>,
    /// Held-out briefs, instead of the workspace's
    #[arg(long, value_name = "FILE")]
    pub briefs: Option<PathBuf>,
    /// Use this many of them, drawn by seed, a third of kinds that training never saw
    #[arg(long, value_name = "N")]
    pub limit: Option<usize>,
    /// Answers per model and brief
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub samples: Option<u32>,
    /// Model that answers a checklist about each app; its figures stand beside the executed scores: `none`, or a name under
    /// `[models]`
    #[arg(long, value_name = "ROW")]
    pub judge: Option<String>,
    /// These of them, drawn earlier
    #[arg(skip)]
    pub drawn: Option<Vec<String>>,
    /// The champion to compare with; today's when left out
    #[arg(skip)]
    pub champion: Option<String>,
    /// How probable a promotion of a model that is no better may be
    #[arg(skip)]
    pub alpha: Option<f64>,
    /// Score without running anything
    #[arg(long)]
    pub static_only: bool,
    /// Ask models through their providers' batches: at half the price, within a day
    #[arg(long)]
    pub batch: bool,
    /// Print what it will take (calls, tokens, dollars, hours) and on what assumptions; nothing is sent
    #[arg(long)]
    pub dry_run: bool,
}

/// Answers at once where they come in batches: a batch takes no more.
const MOST: usize = 50_000;

/// Answers shown side by side before the table.
const SHOWN: usize = 3;
const WIDTH: usize = 110;

pub async fn run(args: &Test, context: &Context) -> Result {
    let settings = context.settings(evolve::judge_flag(&args.judge).as_slice())?;
    if args.dry_run {
        return plan::test(args, context, &settings);
    }
    let mut models = Models::new(context, &settings);
    models.in_batches(args.batch);
    let outcome = execute(args, context, &settings, &mut models).await;
    models.close().await;
    let outcome = outcome?;
    context.answer(&outcome.summary, || outcome.text())?;
    Ok(outcome.exit())
}

/// What a trial ended with.
pub struct Outcome {
    pub trial: String,
    pub summary: Summary,
    pub side_by_side: String,
}

impl Outcome {
    pub fn text(&self) -> String {
        format!("{}\n{}", self.side_by_side, trial::table(&self.summary))
    }

    pub fn exit(&self) -> Exit {
        if self.summary.verdict == Verdict::Promote { Exit::Ok } else { Exit::Verdict }
    }
}

/// Runs what is missing of the trial and sums it up.
pub async fn execute(
    args: &Test,
    context: &Context,
    settings: &Settings,
    models: &mut Models<'_>,
) -> Result<Outcome> {
    let tuned = tuned_model(args, context)?;
    let judge_model = models.at("test").judge().await?;
    let mut spec = spec(args, context, settings, models, tuned)?;
    spec.judge = judge_model.as_ref().map(|judge| judge.version(hone::critic::VERSION));
    refuse_trained(&spec.briefs, context)?;
    let prompts = Prompts::load(&context.workspace.prompts())?;
    spec.prompts = prompts.name().map(str::to_owned);
    let asked = asked(&spec.briefs, &prompts)?;
    let opened = Trial::open(&context.workspace.trials(), &spec)?;
    // Every arm is asked where the tuned model was trained: the base, too, is the one that training started from.
    let mut agents: Vec<Agent> = Vec::new();
    for arm in &spec.arms {
        agents.push(Agent { model: arm.model.clone(), ..models.agent(&settings.finetune.model).await? });
    }
    let judge_batches = judge_model.as_ref().is_some_and(Judge::batches);
    let screenshots = Some(opened.trial.folder().join("screenshots"));
    let standards = evolve::critic_options(context, settings)?;
    let options =
        CriticOptions { static_only: args.static_only, screenshots, judge: judge_model, ..standards };
    let critic = evolve::open_critic(context, options).await?;
    // A batch of a few calls takes as long as one of all; the critic limits its own work.
    let limits = trial::Limits {
        generate: if agents.iter().any(|agent| agent.journal.batches(&agent.client)) { MOST } else { 32 },
        judge: if judge_batches { MOST } else { critic.workers() },
    };
    let generate = async |arm: &Arm, brief: &Brief, sample: u32| {
        let index = spec.arms.iter().position(|a| a.name == arm.name).unwrap_or_default();
        let mut messages = asked.get(brief.id.as_str()).cloned().unwrap_or_default();
        if let (Some(system), Some(first)) = (&arm.system, messages.first_mut()) {
            first.content.clone_from(system);
        }
        let reply = agents[index].reply(&messages, spec.sampling_seed(brief, sample)).await?;
        Ok::<_, hone::model::client::ModelError>(Generation {
            reply: reply.text,
            usage: reply.usage,
            took_ms: reply.took_ms,
            finish_reason: Some(reply.finish.as_str().to_owned()),
        })
    };
    let judge = async |brief: &Brief, candidate: &agent::Candidate| {
        critic.critique(brief, candidate).await.map(Judgement::from)
    };
    let run = trial::run(opened, limits, generate, judge, &context.events, &context.cancel).await;
    if let Some(text) = critic.judge().and_then(|judge| judge.tally().complaint()) {
        context.events.warn(text, Some("the executed scores, which decide, are complete".into()));
    }
    critic.close().await;
    let (trial, rows) = run?;
    let mut summary = trial::summarise(trial.spec(), &rows);
    let extras = Extras {
        loss: loss_curve(&spec, context, models).await,
        made_at: jiff::Zoned::now().strftime("%Y-%m-%d %H:%M %Z").to_string(),
        ..Extras::default()
    };
    trial::write_report(&trial, &rows, &mut summary, &extras)?;
    Ok(Outcome {
        trial: trial.id().to_owned(),
        side_by_side: trial::side_by_side(&rows, SHOWN, WIDTH),
        summary,
    })
}

fn tuned_model(args: &Test, context: &Context) -> Result<String> {
    if let Some(model) = &args.model {
        return Ok(model.clone());
    }
    let path = context.workspace.tuned_model_id();
    let text = store::read_text(&path).map_err(|_| {
        CommandError::new(Kind::Input, format!("there is no tuned model: `{}` is missing", path.display()))
            .hint("`hone finetune` makes one, or name one: `hone test MODEL`")
    })?;
    Ok(text.trim().to_owned())
}

fn spec(
    args: &Test,
    context: &Context,
    settings: &Settings,
    models: &Models<'_>,
    tuned: String,
) -> Result<TrialSpec> {
    let seen_kinds = seen_kinds(context)?;
    let base = models.base();
    let champion = match &args.champion {
        Some(model) => model.clone(),
        None => models.champion()?,
    };
    let mut arms = vec![Arm::new(Arm::BASE, &base), Arm::new(Arm::TUNED, &tuned)];
    if champion != base && champion != tuned {
        arms.push(Arm::new(Arm::CHAMPION, &champion));
    }
    Ok(TrialSpec {
        id: String::new(),
        briefs: match &args.drawn {
            Some(ids) => drawn(ids, context)?,
            None => heldout(args.briefs.as_deref(), args.limit, context, &seen_kinds)?,
        },
        arms,
        samples: args.samples.unwrap_or(settings.test.samples),
        seed: context.global.seed,
        temperature: settings.agent.temperature,
        max_tokens: settings.agent.max_tokens,
        seen_kinds,
        deployed: (champion != base).then_some(champion),
        judge: None,
        prompts: None,
        alpha: args.alpha.unwrap_or(trial::ALPHA),
        training: None,
    })
}

/// The conversation that each brief is asked with.
fn asked(briefs: &[Brief], prompts: &Prompts) -> Result<BTreeMap<String, Vec<Message>>> {
    briefs.iter().map(|brief| Ok((brief.id.to_string(), prompts.ask(brief)?))).collect()
}

pub fn seen_kinds(context: &Context) -> Result<BTreeSet<String>> {
    let path = context.workspace.train_briefs();
    let briefs = if path.exists() { brief::load(&path)? } else { brief::shipped_train() };
    Ok(briefs.into_iter().map(|brief| brief.kind).collect())
}

/// A model that is asked what it was taught proves nothing. Sealed briefs count whether they are asked or not: a model that
/// was taught them could not be released.
fn refuse_trained(briefs: &[Brief], context: &Context) -> Result<()> {
    let sealed =
        brief::load_sealed(&context.workspace)?.into_iter().filter(|sealed| !briefs.contains(sealed));
    let apart: Vec<Brief> = briefs.iter().cloned().chain(sealed).collect();
    let trained = dataset::trained_on(&context.workspace, &apart)?;
    let Some(first) = trained.first() else { return Ok(()) };
    let message = format!(
        "{} of {} held-out and sealed briefs were trained on, `{}` among them",
        trained.len(),
        apart.len(),
        first.id
    );
    Err(CommandError::new(Kind::Input, message).hint(
        "test on briefs of other families than those of the dataset, or run `hone prepare` to drop its rows",
    ))
}

/// The held-out briefs, or a draw of them of which a third is of unseen kinds.
pub fn heldout(
    file: Option<&std::path::Path>,
    limit: Option<usize>,
    context: &Context,
    seen_kinds: &BTreeSet<String>,
) -> Result<Vec<Brief>> {
    let path = file.map_or_else(|| context.workspace.heldout_briefs(), std::path::Path::to_owned);
    let briefs = brief::load(&path)?;
    Ok(match limit {
        Some(n) => brief::heldout_sample(&briefs, seen_kinds, n, n / 3, context.global.seed),
        None => briefs,
    })
}

/// The briefs of an earlier draw.
fn drawn(ids: &[String], context: &Context) -> Result<Vec<Brief>> {
    let path = context.workspace.heldout_briefs();
    let briefs = brief::load(&path)?;
    let find = |id: &String| briefs.iter().find(|brief| brief.id.as_str() == id).cloned();
    ids.iter()
        .map(|id| {
            find(id).ok_or_else(|| {
                let message = format!(
                    "held-out brief `{id}` was drawn for this round and is not in `{}` any more",
                    path.display()
                );
                CommandError::new(Kind::Input, message)
                    .hint("put it back, or start a new workspace with `-C DIR`")
            })
        })
        .collect()
}

/// Loss by step of the job that made the tuned model; empty when it cannot be had: a report without a curve is still a report.
async fn loss_curve(spec: &TrialSpec, context: &Context, models: &mut Models<'_>) -> Vec<LossPoint> {
    let model = spec.arm(Arm::TUNED).map(|arm| arm.model.as_str()).unwrap_or_default();
    let Some((job, _)) = finetune::origin(&context.workspace, model) else { return Vec::new() };
    let Ok((client, _)) = models.trainer().await else { return Vec::new() };
    let Ok(events) = client.events(&job, None).await else { return Vec::new() };
    let mut points: Vec<LossPoint> = events.iter().filter_map(loss_point).collect();
    points.sort_by_key(|point| point.step);
    points
}

fn loss_point(event: &JobEvent) -> Option<LossPoint> {
    Some(LossPoint {
        step: event.number("step")? as u64,
        train: event.number("train_loss")?,
        valid: event.number("full_valid_loss").or_else(|| event.number("valid_loss")),
    })
}
