//! `hone evolve compare`.

use std::path::PathBuf;

use clap::{Args, ValueEnum, builder::RangedU64ValueParser};
use hone::{
    config::Settings,
    critic::{CriticOptions, GuidelineStore},
    evolve::{Bandit, Means, Strategy},
    trial::{Comparison, StrategyTable},
};

use crate::{
    commands::evolve::{self, Evolve},
    context::Context,
    error::Result,
    models::Models,
};

/// Show what the search buys: strategies with the same number of calls on the same briefs
///
/// `last` improves one draft over and over and takes the last; `keep-best` takes the best of the same chain; `best-of`
/// only drafts; `default` is the search of `hone evolve`. Finished results are kept, and answered calls are not paid again.
#[derive(Clone, Debug, Args)]
pub struct Compare {
    /// Which, the plainest first
    #[arg(long, value_name = "NAMES", value_delimiter = ',', default_value = "last,keep-best,default")]
    strategies: Vec<Named>,
    /// Replies of agent and teacher that each strategy gets for each brief; proposals of the composer count too
    #[arg(long, value_name = "N", default_value_t = 12, value_parser = RangedU64ValueParser::<u32>::new().range(1..=200))]
    budget_calls: u32,
    /// JSON lines, or a text file with a description per line
    #[arg(long, value_name = "FILE")]
    briefs: Option<PathBuf>,
    /// Use this many briefs, drawn by seed and spread over the kinds
    #[arg(long, value_name = "N")]
    limit: Option<usize>,
    /// Model that drafts: `ui-agent`, a model id, or a name under `[models]`
    #[arg(long, value_name = "ROW")]
    agent: Option<String>,
    /// What improves drafts: `composer`, or a name under `[models]`
    #[arg(long, value_name = "ROW")]
    teacher: Option<String>,
    /// Score without running anything, where there is no sandbox
    #[arg(long)]
    static_only: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Named {
    Last,
    KeepBest,
    BestOf,
    Default,
}

impl From<Named> for Strategy {
    fn from(named: Named) -> Self {
        match named {
            Named::Last => Self::Last,
            Named::KeepBest => Self::KeepBest,
            Named::BestOf => Self::BestOf,
            Named::Default => Self::Default,
        }
    }
}

pub async fn run(args: &Compare, context: &Context) -> Result {
    let mut flags = Vec::new();
    flags.extend(args.agent.clone().map(|row| ("agent.model", row)));
    flags.extend(args.teacher.clone().map(|row| ("teacher.model", row)));
    let settings = context.settings(&flags)?;
    let mut models = Models::new(context, &settings);
    let table = compare(args, context, &settings, &mut models).await;
    models.close().await;
    let table = table?;
    context.answer(&table, || table.text())
}

async fn compare(
    args: &Compare,
    context: &Context,
    settings: &Settings,
    models: &mut Models<'_>,
) -> Result<StrategyTable> {
    let briefs = Evolve { briefs: args.briefs.clone(), limit: args.limit, ..Evolve::default() };
    let briefs = briefs.read_briefs(context)?;
    let agent = models.at("compare").writer(&settings.agent.model).await?;
    let teacher = evolve::teacher(settings, context, models).await?;
    let guidelines = GuidelineStore::open(&settings.guidelines.store, &context.cancel)?;
    let options = evolve::options_of(settings, context)?;
    let standards = evolve::critic_options(context, settings)?;
    let critic = CriticOptions { static_only: args.static_only, ..standards };
    let critic = evolve::open_critic(context, critic).await?;
    let (agent, teacher, guidelines) = (&agent, &teacher, &guidelines);
    let comparison = Comparison {
        workspace: &context.workspace,
        means: Means {
            agent,
            teacher,
            critic: &critic,
            guidelines,
            options: &options,
            learnt: &Bandit::default(),
        },
        strategies: unique(&args.strategies),
        calls: args.budget_calls,
        concurrency: settings.evolve.concurrency.fixed().unwrap_or(evolve::BRIEFS_AT_ONCE),
        events: &context.events,
        cancel: &context.cancel,
    };
    let table = comparison.run(&briefs).await;
    critic.close().await;
    Ok(table?)
}

/// Each once, in the order given.
fn unique(named: &[Named]) -> Vec<Strategy> {
    let mut strategies: Vec<Strategy> = Vec::new();
    for strategy in named.iter().copied().map(Strategy::from) {
        if !strategies.contains(&strategy) {
            strategies.push(strategy);
        }
    }
    strategies
}
