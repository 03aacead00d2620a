use std::path::PathBuf;

use clap::{Args, Subcommand};
use hone::{
    agent::Prompts,
    brief::{self, Brief},
    config::Settings,
    critic::{Critic, CriticOptions, CriticRuntime, GuidelineStore, Habit, Level, Rubric, Standards, Tally},
    error::Kind,
    event::{Event, Events},
    evolve::{Evolver, Imports, Options, Summary, Teacher, composer::Composer},
    store,
};

use tokio::sync::mpsc::UnboundedReceiver;

use crate::{
    commands::{compare, plan},
    context::{Context, print_line, to_json},
    error::{CommandError, Result},
    models::Models,
};

/// Run the agent on briefs, criticise what it wrote, and improve it: one log per brief
///
/// Finished logs of the same brief, agent, teacher, seed and critic are kept. Replaces generate_training_dataset.py.
#[derive(Clone, Debug, Default, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct Evolve {
    #[command(subcommand)]
    pub beside: Option<Beside>,
    /// A description, instead of the workspace's training briefs
    pub description: Option<String>,
    /// JSON lines, or a text file with a description per line
    #[arg(long, value_name = "FILE", conflicts_with = "description")]
    pub briefs: Option<PathBuf>,
    /// Evolve this many briefs, drawn by seed and spread over the kinds
    #[arg(long, value_name = "N")]
    pub limit: Option<usize>,
    /// Model whose habit is to be changed: `ui-agent`, a model id, or a name under `[models]`
    #[arg(long, value_name = "ROW")]
    pub agent: Option<String>,
    /// What improves its drafts: `composer`, or a name under `[models]`
    #[arg(long, value_name = "ROW")]
    pub teacher: Option<String>,
    /// Model that answers a checklist about each app, which can only lower scores: `none`, or a name under `[models]`
    #[arg(long, value_name = "ROW")]
    pub judge: Option<String>,
    /// Drafts of the agent per brief
    #[arg(long, value_name = "N")]
    pub drafts: Option<u32>,
    /// Round of the loop that the logs belong to [default: one more than there are deployments]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub round: Option<u32>,
    /// These of the workspace's briefs, drawn earlier
    #[arg(skip)]
    pub drawn: Option<Vec<String>>,
    /// Score without running anything, where there is no sandbox; such scores never mix with others
    #[arg(long)]
    pub static_only: bool,
    /// Ask models through their providers' batches: at half the price, within a day
    #[arg(long)]
    pub batch: bool,
    /// Print what it will take (calls, tokens, dollars, hours) and on what assumptions; nothing is sent
    #[arg(long)]
    pub dry_run: bool,
}

/// What stands beside evolving.
#[derive(Clone, Debug, Subcommand)]
pub enum Beside {
    Compare(compare::Compare),
}

impl Evolve {
    /// Flags that override settings.
    fn flags(&self) -> Vec<(&'static str, String)> {
        let mut flags = Vec::new();
        flags.extend(self.agent.clone().map(|row| ("agent.model", row)));
        flags.extend(self.teacher.clone().map(|row| ("teacher.model", row)));
        flags.extend(judge_flag(&self.judge));
        flags.extend(self.drafts.map(|n| ("evolve.drafts", n.to_string())));
        flags
    }

    /// Each deployed model starts a round of its own, so that the logs of the model before it stay.
    pub fn round(&self, context: &Context) -> Result<u32> {
        Ok(match self.round {
            Some(round) => round,
            None => context.registry()?.deployments() as u32 + 1,
        })
    }

    pub fn read_briefs(&self, context: &Context) -> Result<Vec<Brief>> {
        let briefs = match (&self.description, &self.briefs) {
            (Some(text), _) => vec![Brief::from_description(text)?],
            (None, Some(file)) => brief::load(file)?,
            (None, None) => brief::load(&context.workspace.train_briefs())?,
        };
        Ok(match (&self.drawn, self.limit) {
            (Some(ids), _) => drawn(ids, &briefs)?,
            (None, Some(n)) => brief::sample(&briefs, n, context.global.seed),
            (None, None) => briefs,
        })
    }
}

/// The briefs of an earlier draw, in its order.
fn drawn(ids: &[String], briefs: &[Brief]) -> Result<Vec<Brief>> {
    let find = |id: &String| {
        briefs.iter().find(|brief| brief.id.as_str() == id).cloned().ok_or_else(|| {
            let message =
                format!("brief `{id}` was drawn for this round and is not in the workspace any more");
            CommandError::new(Kind::Input, message)
                .hint("put it back into `briefs/train.jsonl`, or start a new workspace with `-C DIR`")
        })
    };
    ids.iter().map(find).collect()
}

/// `--judge ROW` as the setting that it overrides.
pub fn judge_flag(row: &Option<String>) -> Option<(&'static str, String)> {
    row.clone().map(|row| ("judge.model", row))
}

pub async fn run(args: &Evolve, context: &Context) -> Result {
    if let Some(Beside::Compare(args)) = &args.beside {
        return compare::run(args, context).await;
    }
    let settings = context.settings(&args.flags())?;
    if args.dry_run {
        return plan::evolve(args, context, &settings);
    }
    let mut models = Models::new(context, &settings);
    models.in_batches(args.batch);
    let (events, heard) = Events::channel();
    let lines = tokio::spawn(pass_on(heard, context.events.clone(), context.global.json));
    let summary = evolve(args, context, &settings, &mut models, &events).await;
    models.close().await;
    drop(events);
    // It ends with its last sender; the summary comes after every evolution's line.
    let _ = lines.await;
    let summary = summary?;
    context.answer(&summary, || text(&summary, context))
}

/// Hands events to the display; with `--json` a line on stdout for each finished evolution too.
async fn pass_on(mut heard: UnboundedReceiver<Event>, display: Events, json: bool) {
    while let Some(event) = heard.recv().await {
        if json && matches!(event, Event::Evolved { .. }) {
            print_line(&to_json(&event));
        }
        display.emit(event);
    }
}

/// Evolves; the summary over finished and new logs.
pub async fn execute(
    args: &Evolve,
    context: &Context,
    settings: &Settings,
    models: &mut Models<'_>,
) -> Result<Summary> {
    evolve(args, context, settings, models, &context.events).await
}

async fn evolve(
    args: &Evolve,
    context: &Context,
    settings: &Settings,
    models: &mut Models<'_>,
    events: &Events,
) -> Result<Summary> {
    let briefs = args.read_briefs(context)?;
    let judge = models.at("evolve").judge().await?;
    let agent = models.writer(&settings.agent.model).await?;
    let teacher = teacher(settings, context, models).await?;
    if let Some(judge) = judge.as_ref().filter(|j| [agent.model(), teacher.name()].contains(&j.model())) {
        let text =
            format!("the judge `{}` is the model that writes: models favour what they wrote", judge.row());
        context.events.warn(text, Some("choose a model of another family with `--judge ROW`".into()));
    }
    let guidelines = GuidelineStore::open(&settings.guidelines.store, &context.cancel)?;
    let standards = critic_options(context, settings)?;
    let options = CriticOptions { static_only: args.static_only, judge, ..standards };
    let critic = open_critic(context, options).await?;
    let evolver = Evolver {
        workspace: &context.workspace,
        agent: &agent,
        teacher: &teacher,
        critic: &critic,
        guidelines: &guidelines,
        options: Options {
            round: args.round(context)?,
            imports: Imports::load(&context.workspace)?,
            ..options_of(settings, context)?
        },
        concurrency: match agent.batches() {
            // A batch of a few calls takes as long as one of all.
            true => briefs.len(),
            false => settings.evolve.concurrency.fixed().unwrap_or(BRIEFS_AT_ONCE),
        },
        events,
        cancel: &context.cancel,
    };
    let summary = evolver.run(&briefs).await;
    critic.close().await;
    Ok(summary?)
}

/// What improves drafts, by its name in the settings.
pub async fn teacher(settings: &Settings, context: &Context, models: &mut Models<'_>) -> Result<Teacher> {
    Ok(match settings.teacher.model.as_str() {
        "composer" => Teacher::Composer(Composer::new(context.global.seed)),
        row => Teacher::Model(Box::new(models.writer(row).await?.by("teacher"))),
    })
}

/// The search of the settings, with the prompts of the workspace.
pub fn options_of(settings: &Settings, context: &Context) -> Result<Options> {
    Ok(Options {
        target_score: settings.evolve.target_score,
        max_iterations: settings.evolve.max_iterations,
        max_evaluations: settings.evolve.max_evaluations,
        drafts: settings.evolve.drafts,
        seed: context.global.seed,
        prompts: Prompts::load(&context.workspace.prompts())?,
        ..Options::default()
    })
}

/// Enough to keep the engine's batch full; the critic limits itself.
pub const BRIEFS_AT_ONCE: usize = 32;

/// The critic at the level that the machine allows, or static on explicit request.
pub async fn open_critic(context: &Context, options: CriticOptions) -> Result<Critic> {
    open_critic_with(context, options, None).await
}

/// The same, running apps with another Python than the runtime's.
pub async fn open_critic_with(
    context: &Context,
    options: CriticOptions,
    python: Option<PathBuf>,
) -> Result<Critic> {
    if !options.static_only && !context.machine.runtime().is_ready() {
        hone::runtime::setup(&context.machine, &context.events, &context.cancel).await?;
    }
    let mut runtime = critic_runtime(context);
    if let Some(python) = python {
        runtime.python = std::path::absolute(&python).unwrap_or(python);
    }
    let critic = Critic::open(runtime, options, &context.cancel).await?;
    if critic.level() == Level::Run {
        let hint = "install Chromium (`apt-get install chromium-headless-shell` on Debian); `hone doctor` says whether it is found";
        context
            .events
            .warn("no Chromium: apps are run and used, but nobody looks at them", Some(hint.into()));
    }
    Ok(critic)
}

/// The critic's options with the rubric and the habits of the settings.
pub fn critic_options(context: &Context, settings: &Settings) -> Result<CriticOptions> {
    let read = |name: &str| store::read_text(&context.workspace.root().join(name));
    let refuse = |name: &str, why: String, hint: &str| {
        CommandError::new(Kind::Input, format!("`{name}` cannot be used: {why}")).hint(hint)
    };
    let rubric = match settings.critic.rubric.as_str() {
        "" => Rubric::default(),
        name => Rubric::parse(&read(name)?).map_err(|why| refuse(name, why, RUBRIC_HINT))?,
    };
    let mut habits = Vec::new();
    for name in &settings.critic.habits {
        habits.push(match name.as_str() {
            "ui-first" => Habit::ui_first().clone(),
            name => Habit::parse(&read(name)?).map_err(|why| refuse(name, why, HABIT_HINT))?,
        });
    }
    Ok(CriticOptions { standards: Standards { rubric, habits }, ..Default::default() })
}

const RUBRIC_HINT: &str = "docs/design/critic.md lists weights and caps";
const HABIT_HINT: &str = "docs/habits.md shows what a habit's file holds";

/// What the critic needs of this machine.
pub fn critic_runtime(context: &Context) -> CriticRuntime {
    let runtime = context.machine.runtime();
    CriticRuntime {
        python: runtime.python(),
        ruff: runtime.ruff(),
        bwrap: context.machine.bubblewrap(),
        chromium: context.machine.chromium(),
    }
}

fn text(summary: &Summary, context: &Context) -> String {
    let mut text = format!(
        "{} evolutions in `{}` ({} were there), target reached by {}\nmean score {:.2} -> {:.2}",
        summary.evolutions,
        context.workspace.logs().display(),
        summary.reused,
        summary.target_reached,
        summary.mean_initial,
        summary.mean_final,
    );
    if let Some(tally) = &summary.judge {
        text.push_str(&format!("\n{}", judge_line(tally)));
    }
    text
}

/// What a judge did, in a line.
fn judge_line(tally: &Tally) -> String {
    let bias = match tally.position_bias {
        Some(bias) => {
            format!("; of {} pairs its answer hung on their order in {:.0}%", tally.pairs, 100.0 * bias)
        }
        None => String::new(),
    };
    format!(
        "judge `{}`: {} judged, {} without an answer, {} calls{bias}",
        tally.row, tally.judged, tally.absent, tally.calls
    )
}
