//! `hone loop`: every phase in turn, each picking up what an earlier run left.

use std::collections::BTreeSet;

use clap::{Args, builder::RangedU64ValueParser};
use hone::{
    brief,
    calibrate::{Looks, anchors},
    config::Settings,
    critic::{CriticError, CriticOptions},
    dataset::{Prepared, RowKind},
    error::Kind,
    event::{Event, Phase},
    rounds::{self, Anchored, Diversity, Moment, Round, RoundResult, State, Stop, drawn_before},
    store,
    trial::{self, Summary, Verdict},
};
use serde_json::json;

pub use hone::rounds::Size;

use crate::{
    commands::{deploy, evolve, finetune, init, plan, prepare, test},
    context::{Context, print_line, to_json},
    error::{CommandError, Exit, Result},
    models::Models,
};

/// Evolve, prepare, finetune, test, deploy: the whole way, as often as asked
///
/// Each round evolves briefs that none had before and trains the base on the logs of all rounds. Killed anywhere and run
/// again, it goes on. Ends with 0 when the last round's model was promoted, 4 otherwise.
#[derive(Clone, Debug, Args)]
pub struct Loop {
    /// Turns of the loop; each starts with the model that the one before deployed
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// A short turn: 60 briefs with one draft each, at most 150 rows, 2 epochs, 24 held-out briefs with one answer each,
    /// base against tuned
    #[arg(long)]
    quick: bool,
    /// Briefs per round at most, drawn by seed; the rounds share what is there
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
    /// Go on after two rounds without a gain, a roll back, or a loss of variety
    #[arg(long)]
    keep_going: bool,
    /// Print what it will take (calls, tokens, dollars, hours) and on what assumptions; nothing is sent
    #[arg(long)]
    dry_run: bool,
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
    let turns = Turns { args, context, settings: &settings, state: State::read(&context.workspace)? };
    let exit = turns.run(&mut models).await;
    models.close().await;
    exit
}

/// The turns of one run.
struct Turns<'a> {
    args: &'a Loop,
    context: &'a Context,
    settings: &'a Settings,
    state: State,
}

/// How a round ended: with a result, or before it had one.
enum Turn {
    Over(Box<Summary>, String),
    Stopped(Stop),
}

impl Turns<'_> {
    async fn run(mut self, models: &mut Models<'_>) -> Result {
        let mut exit = Exit::Verdict;
        for number in 1..=self.args.rounds {
            let finished = self.state.finished().find(|(round, _)| round.round == number);
            let finished = finished.map(|(round, result)| (round.clone(), result.clone()));
            let (summary, text) = match finished {
                Some((round, result)) => {
                    self.same_size(&round)?;
                    exit = if result.verdict == Verdict::Promote { Exit::Ok } else { Exit::Verdict };
                    self.again(number, &result)
                }
                None => match self.turn(number, models).await? {
                    Turn::Stopped(stop) => return self.end(stop, exit),
                    Turn::Over(summary, text) => {
                        exit = if summary.verdict == Verdict::Promote { Exit::Ok } else { Exit::Verdict };
                        (Some(summary), text)
                    }
                },
            };
            let stop = self.ended(number);
            self.show(number, summary.as_deref(), &text, stop.as_ref());
            if let Some(stop) = stop {
                self.keep(stop)?;
                break;
            }
        }
        Ok(exit)
    }

    /// Whether the loop is over after a round that is; later rounds of an earlier run say nothing about it.
    fn ended(&self, number: u32) -> Option<Stop> {
        let begun_later = self.state.rounds.iter().any(|round| round.round > number);
        let keep_going = self.args.keep_going || begun_later;
        let so_far: Vec<Round> =
            self.state.rounds.iter().filter(|round| round.round <= number).cloned().collect();
        rounds::look(&so_far, number, self.args.rounds, keep_going, &Moment::Ended)
    }

    fn at(&self, number: u32, moment: &Moment) -> Option<Stop> {
        rounds::look(&self.state.rounds, number, self.args.rounds, self.args.keep_going, moment)
    }

    /// One round, phase after phase.
    async fn turn(&mut self, number: u32, models: &mut Models<'_>) -> Result<Turn> {
        let mut round = match self.open(number, models)? {
            Ok(round) => round,
            Err(stop) => return Ok(Turn::Stopped(stop)),
        };
        let settings = &self.settings_of(&round);
        if let Some(stop) = self.anchor(&mut round, settings, models).await? {
            return Ok(Turn::Stopped(stop));
        }
        if let Some(stop) = self.gather(&mut round, settings, models).await? {
            return Ok(Turn::Stopped(stop));
        }
        let outcome = self.teach(&round, settings, models).await?;
        act(&outcome.summary, &round, self.context, models)?;
        let workspace = &self.context.workspace;
        round.taught = Diversity::taught(workspace, &round);
        round.answered = Diversity::answered(workspace, &outcome.trial);
        round.result = Some(RoundResult {
            model: outcome.summary.arms.tuned.model.clone(),
            trial: outcome.trial.clone(),
            verdict: outcome.summary.verdict,
        });
        self.save(&round)?;
        let text = outcome.text();
        Ok(Turn::Over(Box::new(outcome.summary), text))
    }

    /// Evolves the round's briefs and makes the dataset of all rounds.
    async fn gather(
        &mut self,
        round: &mut Round,
        settings: &Settings,
        models: &mut Models<'_>,
    ) -> Result<Option<Stop>> {
        let evolve = evolve::Evolve {
            drawn: Some(round.briefs.clone()),
            drafts: round.size.drafts,
            agent: Some(round.agent.clone()),
            round: Some(round.round),
            ..Default::default()
        };
        evolve::execute(&evolve, self.context, settings, models).await?;
        // What a round may add is limited, not what all may have.
        let max_rows = round.size.max_rows.map(|rows| rows * round.round as usize);
        let prepare = prepare::Prepare { max_rows, ..Default::default() };
        let prepared = prepare::execute(&prepare, self.context, settings).await?;
        let new_rows = new_rows(&prepared, round, self.context);
        round.new_rows = Some(new_rows);
        self.save(round)?;
        Ok(self.at(round.round, &Moment::Prepared { new_rows }))
    }

    /// Trains the base on the dataset and compares what comes of it.
    async fn teach(
        &self,
        round: &Round,
        settings: &Settings,
        models: &mut Models<'_>,
    ) -> Result<test::Outcome> {
        let context = self.context;
        let finetune = finetune::Finetune { n_epochs: round.size.n_epochs, ..Default::default() };
        let job = finetune::execute(&finetune, context, settings, models).await?;
        let model = job.fine_tuned_model.clone().unwrap_or_default();
        context.events.emit(Event::End { phase: Phase::Finetune, summary: format!("`{model}`") });
        let test = test::Test {
            model: Some(model),
            drawn: Some(round.heldout.clone()),
            champion: Some(round.champion.clone()),
            samples: round.size.samples,
            alpha: round.alpha,
            no_prompt_arm: true,
            ..Default::default()
        };
        test::execute(&test, context, settings, models).await
    }

    /// The round as it was begun, or begun now; a reason to stop when there is nothing to begin it with. A round of another size
    /// or seed is another question: once there are logs it needs a workspace of its own, or the finished work of this one
    /// would be mixed into it.
    fn open(&mut self, number: u32, models: &Models<'_>) -> Result<std::result::Result<Round, Stop>> {
        let context = self.context;
        if let Some(round) = self.state.rounds.iter().find(|round| round.round == number) {
            let same = self.same_size(round);
            match same {
                Ok(()) if !round.briefs.is_empty() => return Ok(Ok(round.clone())),
                Err(other) if has_logs(number, context)? => return Err(other),
                // Nothing was made with the other flags, which may have been a mistake; or an older version drew no briefs.
                _ => self.state.rounds.retain(|round| round.round != number),
            }
        }
        let (seed, size) = (context.global.seed, self.args.size());
        let champion = models.champion()?;
        let agent = match self.settings.agent.model.as_str() {
            hone_server::ALIAS => champion.clone(),
            other => other.to_owned(),
        };
        let train = brief::load(&context.workspace.train_briefs())?;
        let used = drawn_before(&context.workspace, &self.state.rounds, number);
        let left = self.args.rounds.saturating_sub(number) + 1;
        let briefs = rounds::fresh(&train, used, size.limit, left, seed);
        if let Some(stop) = self.at(number, &Moment::Opening { fresh: briefs.len() }) {
            return Ok(Err(stop));
        }
        let seen = train.into_iter().map(|brief| brief.kind).collect();
        let heldout = test::heldout(None, size.heldout, context, &seen)?;
        let round = Round {
            round: number,
            seed,
            size,
            agent,
            champion,
            briefs: briefs.into_iter().map(|brief| brief.id.to_string()).collect(),
            heldout: heldout.into_iter().map(|brief| brief.id.to_string()).collect(),
            alpha: Some(rounds::alpha(number)),
            anchors: None,
            new_rows: None,
            taught: None,
            answered: None,
            result: None,
        };
        self.save(&round)?;
        Ok(Ok(round))
    }

    fn same_size(&self, round: &Round) -> Result<()> {
        if (round.seed, &round.size) == (self.context.global.seed, &self.args.size()) {
            return Ok(());
        }
        let message =
            format!("round {} of this workspace was begun with another seed or another size", round.round);
        Err(CommandError::new(Kind::Input, message)
            .hint("run it with the same flags, or start a new workspace with `-C DIR`"))
    }

    /// The settings with the round's agent, and as many drafts as it takes.
    fn settings_of(&self, round: &Round) -> Settings {
        let settings = self.settings;
        Settings {
            agent: hone::config::Agent { model: round.agent.clone(), ..settings.agent.clone() },
            evolve: hone::config::Evolve {
                drafts: round.size.drafts.unwrap_or(settings.evolve.drafts),
                ..settings.evolve.clone()
            },
            ..settings.clone()
        }
    }

    /// Scores the anchors, unless that is done: the critic has to be the one that scored the first round.
    async fn anchor(
        &mut self,
        round: &mut Round,
        settings: &Settings,
        models: &mut Models<'_>,
    ) -> Result<Option<Stop>> {
        // One round alone drifts from nothing.
        if round.anchors.is_some() || self.args.rounds <= 1 {
            return Ok(None);
        }
        let context = self.context;
        let looks = looks(context, settings, models).await?;
        let first = self.state.rounds.iter().find_map(|round| round.anchors.as_ref());
        let change = first.map_or(Ok(0.0), |first| looks.change(&first.looks));
        if let Some(stop) = self.at(round.round, &Moment::Anchored(change.clone())) {
            return Ok(Some(stop));
        }
        round.anchors = Some(Anchored { looks, change: change.unwrap_or_default() });
        self.save(round)?;
        Ok(None)
    }

    fn save(&mut self, round: &Round) -> Result<()> {
        self.state.keep(round.clone());
        Ok(self.state.write(&self.context.workspace)?)
    }

    /// What a finished round ended with. Nothing of it is looked at again: later rounds have added logs and models since.
    fn again(&self, number: u32, result: &RoundResult) -> (Option<Box<Summary>>, String) {
        let verdict = result.verdict.as_str();
        self.context.events.note(format!("round {number} is finished: `{}`, {verdict}", result.model));
        let summary = trial::summary(&self.context.workspace.trials(), &result.trial);
        let text = summary.as_ref().map(trial::table).unwrap_or_default();
        (summary.map(Box::new), text)
    }

    /// A loop that ends before a round had a result.
    fn end(&mut self, stop: Stop, exit: Exit) -> Result {
        self.show(stop.round, None, "", Some(&stop));
        self.keep(stop)?;
        Ok(exit)
    }

    fn keep(&mut self, stop: Stop) -> Result<()> {
        if self.state.stopped.as_ref() == Some(&stop) {
            return Ok(());
        }
        self.state.stopped = Some(stop);
        Ok(self.state.write(&self.context.workspace)?)
    }

    /// A line or a table for each round; the last one says why there is no other.
    fn show(&self, number: u32, summary: Option<&Summary>, text: &str, stop: Option<&Stop>) {
        if self.context.global.json {
            let mut line = summary.map_or_else(|| json!({}), |summary| json!(summary));
            line["round"] = json!(number);
            if let Some(stop) = stop {
                line["stopped"] = json!(stop);
            }
            return print_line(&to_json(&line));
        }
        if !text.is_empty() {
            print_line(text);
        }
        if let Some(stop) = stop {
            print_line(&format!("\n{}\nnext: {}", stop.sentence(), stop.hint(&self.state.rounds)));
        }
    }
}

/// What a verdict asks for: a deployment, or the way back. A re-run finds it done.
fn act(summary: &Summary, round: &Round, context: &Context, models: &Models<'_>) -> Result<()> {
    let model = &summary.arms.tuned.model;
    let champion = models.champion()?;
    let said = match summary.verdict {
        Verdict::Promote if champion != *model => {
            let deploy = deploy::Deploy { model: Some(model.clone()), ..Default::default() };
            deploy::sentence(&deploy::execute(&deploy, context, models)?)
        }
        // Only what was deployed when the round began can have been found worse.
        Verdict::RollBack if champion == round.champion && champion != models.base() => {
            let cause = summary.cause.as_deref().unwrap_or("it is worse than what was there before it");
            let reason = format!("trial `{}`: {cause}", summary.trial);
            let entry = context.registry()?.rollback(&reason, jiff::Timestamp::now())?;
            let back = entry.model.map_or_else(|| "the base model".to_owned(), |model| format!("`{model}`"));
            format!("`ui-agent` is {back} again: {cause}")
        }
        _ => return Ok(()),
    };
    context.events.emit(Event::End { phase: Phase::Deploy, summary: said });
    Ok(())
}

/// The anchors as the critic of the settings, with its judge, scores them now.
async fn looks(context: &Context, settings: &Settings, models: &mut Models<'_>) -> Result<Looks> {
    let judge = models.at("evolve").judge().await?;
    let options = CriticOptions { judge, ..evolve::critic_options(context, settings)? };
    let anchors = anchors(&context.workspace.anchors())?;
    let total = Some(anchors.len() as u64);
    context.events.emit(Event::Begin { phase: Phase::Calibrate, total });
    let critic = evolve::open_critic(context, options).await?;
    let looks = tokio::select! {
        () = context.cancel.cancelled() => Err(CriticError::Cancelled),
        looks = Looks::of(&critic, &anchors) => looks,
    };
    critic.close().await;
    let looks = looks?;
    let mean = looks.scores.values().sum::<f64>() / looks.scores.len().max(1) as f64;
    let summary = format!("{} anchors, mean score {mean:.2}", looks.scores.len());
    context.events.emit(Event::End { phase: Phase::Calibrate, summary });
    Ok(looks)
}

/// Rows that are trained on and come from a round's own briefs.
fn new_rows(prepared: &Prepared, round: &Round, context: &Context) -> usize {
    let logs: BTreeSet<String> = round
        .briefs
        .iter()
        .filter_map(|id| {
            let path = context.workspace.log(id, round.round);
            Some(path.file_name()?.to_string_lossy().into_owned())
        })
        .collect();
    let rows = prepared.manifest.rows.iter().filter(|row| row.row != RowKind::Preference);
    rows.filter(|row| logs.contains(&row.source.log)).count()
}

/// Whether a brief of the workspace was evolved in that round.
fn has_logs(round: u32, context: &Context) -> Result<bool> {
    let train = brief::load(&context.workspace.train_briefs())?;
    Ok(train.iter().any(|brief| context.workspace.log(brief.id.as_str(), round).exists()))
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
            "at most 60 briefs with 1 draft each, at most 150 rows a round, 2 epochs, at most 24 held-out briefs \
             with 1 answer each, base against tuned",
        );
        check(
            &["--limit", "12", "--heldout", "3", "--n-epochs", "8"],
            "at most 12 briefs with 1 draft each, at most 150 rows a round, 8 epochs, at most 3 held-out briefs \
             with 1 answer each, base against tuned",
        );
    }
}
