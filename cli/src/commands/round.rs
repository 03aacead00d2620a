//! `hone loop`: every phase in turn, each picking up what an earlier run left.

use clap::{Args, builder::RangedU64ValueParser};
use hone::{
    brief,
    config::Settings,
    error::Kind,
    event::{Event, Phase},
    store,
    trial::{self, Verdict},
};
use serde::{Deserialize, Serialize};

use crate::{
    commands::{deploy, evolve, finetune, init, plan, prepare, test},
    context::{Context, print_line, to_json},
    error::{CommandError, Exit, Result},
    models::Models,
};

/// Evolve, prepare, finetune, test, deploy: the whole way, as often as asked
///
/// Killed anywhere and run again, it goes on. Ends with 0 when the last round's model was promoted, 4 otherwise.
#[derive(Clone, Debug, Args)]
pub struct Loop {
    /// Turns of the loop; each starts with the model that the one before deployed
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// A short turn: 60 briefs with one draft each, at most 150 rows, 2 epochs, 24 held-out briefs with one answer each,
    /// base against tuned
    #[arg(long)]
    quick: bool,
    /// Briefs per round, drawn by seed
    #[arg(long, value_name = "N", value_parser = RangedU64ValueParser::<usize>::new().range(1..))]
    limit: Option<usize>,
    /// Held-out briefs of the test, drawn by seed
    #[arg(long, value_name = "N", value_parser = RangedU64ValueParser::<usize>::new().range(1..))]
    heldout: Option<usize>,
    /// Passes over the data
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=50))]
    n_epochs: Option<u32>,
    /// Model that answers a checklist about each app, which can only lower scores: `none`, or a name under `[models]`
    #[arg(long, value_name = "ROW")]
    judge: Option<String>,
    /// Ask models through their providers' batches: at half the price, within a day
    #[arg(long)]
    batch: bool,
    /// Print what it will take (calls, tokens, dollars, hours) and on what assumptions; nothing is sent
    #[arg(long)]
    dry_run: bool,
}

/// How large a turn is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Size {
    pub limit: Option<usize>,
    pub drafts: Option<u32>,
    pub max_rows: Option<usize>,
    pub n_epochs: Option<u32>,
    pub heldout: Option<usize>,
    pub samples: Option<u32>,
}

impl Loop {
    fn size(&self) -> Size {
        let quick = |n: usize| self.quick.then_some(n);
        Size {
            limit: self.limit.or(quick(60)),
            drafts: self.quick.then_some(1),
            max_rows: quick(150),
            n_epochs: self.n_epochs.or(self.quick.then_some(2)),
            heldout: self.heldout.or(quick(24)),
            samples: self.quick.then_some(1),
        }
    }
}

impl Size {
    /// What was limited, in a sentence.
    fn describe(&self) -> String {
        let each =
            |n: Option<u32>, what: &str| n.map(|n| format!(" with {n} {what} each")).unwrap_or_default();
        let parts = [
            self.limit.map(|n| format!("at most {n} briefs{}", each(self.drafts, "draft"))),
            self.max_rows.map(|n| format!("at most {n} rows")),
            self.n_epochs.map(|n| format!("{n} epochs")),
            self.heldout.map(|n| format!("at most {n} held-out briefs{}", each(self.samples, "answer"))),
        ];
        format!("{}, base against tuned", parts.into_iter().flatten().collect::<Vec<_>>().join(", "))
    }
}

/// What rounds so far were, so that a re-run asks the same questions again and finds them answered.
#[derive(Debug, Default, Serialize, Deserialize)]
struct State {
    format: String,
    version: u32,
    rounds: Vec<Round>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Round {
    round: u32,
    seed: u64,
    size: Size,
    /// The model whose drafts the round starts with.
    agent: String,
    /// The champion when the round began: what its model has to beat, whatever is deployed since.
    champion: String,
    /// Held-out briefs of its test, drawn before anything was trained.
    heldout: Vec<String>,
    /// Model, trial and verdict once the round is over.
    result: Option<RoundResult>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct RoundResult {
    model: String,
    trial: String,
    verdict: Verdict,
}

pub async fn run(args: &Loop, context: &Context) -> Result {
    if args.dry_run {
        let settings = context.settings(evolve::judge_flag(&args.judge).as_slice())?;
        return plan::turns(args.rounds, &args.size(), args.batch, context, &settings);
    }
    let _lock = store::Lock::take(&context.workspace.lock("loop"))?;
    init::create(context, false)?;
    let settings = context.settings(evolve::judge_flag(&args.judge).as_slice())?;
    if args.quick {
        context.events.note(format!("quick: {}", args.size().describe()));
    }
    let mut models = Models::new(context, &settings);
    models.in_batches(args.batch);
    let exit = rounds(args, context, &settings, &mut models).await;
    models.close().await;
    exit
}

async fn rounds(args: &Loop, context: &Context, settings: &Settings, models: &mut Models<'_>) -> Result {
    let mut exit = Exit::Ok;
    for number in 1..=args.rounds {
        let round = open_round(number, args, context, settings, models)?;
        exit = turn(round, context, settings, models).await?;
    }
    Ok(exit)
}

/// The round as it was begun, or begun now. A round of another size or seed is another question: once there are logs it
/// needs a workspace of its own, or the finished work of this one would be mixed into it.
fn open_round(
    number: u32,
    args: &Loop,
    context: &Context,
    settings: &Settings,
    models: &Models<'_>,
) -> Result<Round> {
    let mut state = load(context)?;
    let (seed, size) = (context.global.seed, args.size());
    if let Some(round) = state.rounds.iter().find(|round| round.round == number) {
        if (round.seed, &round.size) == (seed, &size) {
            return Ok(round.clone());
        }
        if round.result.is_some() || has_logs(number, context)? {
            let message =
                format!("round {number} of this workspace was begun with another seed or another size");
            return Err(CommandError::new(Kind::Input, message)
                .hint("run it with the same flags, or start a new workspace with `-C DIR`"));
        }
        // Nothing was made with the other flags: they may have been a mistake.
        state.rounds.retain(|round| round.round != number);
    }
    let champion = models.champion()?;
    let agent = match settings.agent.model.as_str() {
        hone_server::ALIAS => champion.clone(),
        other => other.to_owned(),
    };
    let seen = brief::load(&context.workspace.train_briefs())?.into_iter().map(|b| b.kind).collect();
    let heldout = test::heldout(None, size.heldout, context, &seen)?;
    let heldout = heldout.into_iter().map(|brief| brief.id.to_string()).collect();
    let round = Round { round: number, seed, size, agent, champion, heldout, result: None };
    state.rounds.push(round.clone());
    save(context, &state)?;
    Ok(round)
}

/// Whether a brief of the workspace was evolved in that round.
fn has_logs(round: u32, context: &Context) -> Result<bool> {
    let train = brief::load(&context.workspace.train_briefs())?;
    Ok(train.iter().any(|brief| context.workspace.log(brief.id.as_str(), round).exists()))
}

/// One round, phase after phase.
async fn turn(mut round: Round, context: &Context, settings: &Settings, models: &mut Models<'_>) -> Result {
    if let Some(result) = &round.result {
        return Ok(again(round.round, result, context));
    }
    let size = &round.size;
    let evolve = evolve::Evolve {
        limit: size.limit,
        drafts: size.drafts,
        agent: Some(round.agent.clone()),
        round: Some(round.round),
        ..Default::default()
    };
    let settings = &Settings {
        agent: hone::config::Agent { model: round.agent.clone(), ..settings.agent.clone() },
        evolve: hone::config::Evolve {
            drafts: size.drafts.unwrap_or(settings.evolve.drafts),
            ..settings.evolve.clone()
        },
        ..settings.clone()
    };
    evolve::execute(&evolve, context, settings, models).await?;

    let prepare = prepare::Prepare { max_rows: size.max_rows, ..Default::default() };
    prepare::execute(&prepare, context, settings).await?;

    let finetune = finetune::Finetune { n_epochs: size.n_epochs, ..Default::default() };
    let job = finetune::execute(&finetune, context, settings, models).await?;
    let model = job.fine_tuned_model.clone().unwrap_or_default();
    context.events.emit(Event::End { phase: Phase::Finetune, summary: format!("`{model}`") });

    let test = test::Test {
        model: Some(model.clone()),
        drawn: Some(round.heldout.clone()),
        champion: Some(round.champion.clone()),
        samples: size.samples,
        no_prompt_arm: true,
        ..Default::default()
    };
    let outcome = test::execute(&test, context, settings, models).await?;
    let verdict = outcome.summary.verdict;
    if verdict == Verdict::Promote && models.champion()? != model {
        let deploy = deploy::Deploy { model: Some(model.clone()), ..Default::default() };
        let entry = deploy::execute(&deploy, context, models)?;
        context.events.emit(Event::End { phase: Phase::Deploy, summary: deploy::sentence(&entry) });
    }
    let exit = outcome.exit();
    if context.global.json {
        print_line(&to_json(&outcome.summary));
    } else {
        print_line(&outcome.text());
    }
    round.result = Some(RoundResult { model, trial: outcome.trial, verdict });
    finish(context, round)?;
    Ok(exit)
}

/// What a finished round ended with. Nothing of it is looked at again: later rounds have added logs and models since.
fn again(number: u32, result: &RoundResult, context: &Context) -> Exit {
    let verdict = result.verdict.as_str();
    context.events.note(format!(
        "round {number} is finished: `{}`, {verdict}; `--rounds` goes on from it",
        result.model
    ));
    if let Some(summary) = trial::summary(&context.workspace.trials(), &result.trial) {
        if context.global.json {
            print_line(&to_json(&summary));
        } else {
            print_line(&trial::table(&summary));
        }
    }
    if result.verdict == Verdict::Promote { Exit::Ok } else { Exit::Verdict }
}

fn finish(context: &Context, round: Round) -> Result<()> {
    let mut state = load(context)?;
    if let Some(kept) = state.rounds.iter_mut().find(|kept| kept.round == round.round) {
        *kept = round;
    }
    save(context, &state)
}

fn path(context: &Context) -> std::path::PathBuf {
    context.workspace.state().join("loop.json")
}

fn load(context: &Context) -> Result<State> {
    match store::read_text(&path(context)) {
        Ok(text) => serde_json::from_str(&text).map_err(|e| {
            CommandError::new(Kind::Input, format!("`{}` is not readable: {e}", path(context).display()))
                .hint("delete it: finished work is found without it")
        }),
        Err(_) => Ok(State { format: "hone.loop".into(), version: 1, rounds: Vec::new() }),
    }
}

fn save(context: &Context, state: &State) -> Result<()> {
    Ok(store::write_json(&path(context), state)?)
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Typed {
        #[command(flatten)]
        args: Loop,
    }

    #[test]
    fn a_quick_turn_says_how_large_it_is() {
        let check = |flags: &[&str], expected: &str| {
            let typed = Typed::parse_from([&["loop", "--quick"][..], flags].concat());
            assert_eq!(typed.args.size().describe(), expected);
        };
        check(
            &[],
            "at most 60 briefs with 1 draft each, at most 150 rows, 2 epochs, at most 24 held-out briefs with 1 \
             answer each, base against tuned",
        );
        check(
            &["--limit", "12", "--heldout", "3", "--n-epochs", "8"],
            "at most 12 briefs with 1 draft each, at most 150 rows, 8 epochs, at most 3 held-out briefs with 1 \
             answer each, base against tuned",
        );
    }
}
