//! What a run will take, before anything is sent: calls, tokens, dollars and hours of each phase, what runs by itself and what
//! needs a person. Every figure stands on an assumption that is named; what cannot be known is unknown, not guessed.

use serde::{Deserialize, Serialize};

use crate::{
    agent::{self, PromptError},
    brief::Brief,
    dataset::{self, tokens},
    evolve::{EvolutionLog, Operator, Options, composer::Composer},
    finetune,
    model::{
        journal::Measured,
        price::{self, Tariff, Training, Usd},
        wire::JobStatus,
    },
    store::{self, Workspace},
};

const MILLION: u64 = 1_000_000;
/// Candidates of a model that logs must hold before their means are worth more than the limit on tokens.
const ENOUGH_SEEN: usize = 5;
/// Proposals of a teacher in one round.
const PROPOSALS: u32 = 2;
/// Issues and guidelines that a teacher is shown with an app, in tokens.
const SHOWN_TOKENS: u64 = 500;
/// What a judge is shown of an app beside its source, and what it answers, in tokens.
const JUDGE_INPUT: u64 = 800;
const JUDGE_OUTPUT: u64 = 300;
/// Orders of the pairs between which a judge chooses at the end of a search, at most.
const JUDGE_CHOICES: u64 = 4;
/// Briefs whose apps are written to see how long apps are.
const WRITTEN: usize = 12;

/// Tokens that a hosted model writes in a second, where none was asked from here yet.
const HOSTED_TOKENS_PER_S: f64 = 50.0;
/// Running an app and looking at it, in seconds, where no logs say how long it takes here.
const LOOK_S: f64 = 5.0;
/// Answers of a trial that are asked for at once.
const TRIAL_AT_ONCE: usize = 32;
/// What providers promise for a batch.
const BATCH_HOURS: f64 = 24.0;
const MS_PER_HOUR: f64 = 3_600_000.0;

/// A run, phase by phase.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    pub phases: Vec<PlannedPhase>,
    /// Over all phases; null as soon as one is unknown.
    pub calls: u64,
    pub usd: Option<f64>,
    pub hours: Option<f64>,
}

/// One phase. Calls and tokens are upper bounds under its assumptions.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct PlannedPhase {
    pub phase: String,
    pub calls: u64,
    pub input_tokens: u64,
    pub output_tokens: u64,
    /// Null when a price is unknown.
    pub usd: Option<f64>,
    /// Null when nothing of the sort was measured here, nor can be assumed.
    pub hours: Option<f64>,
    /// Batches that a provider answers one after another, each within a day.
    #[serde(default)]
    pub batches: u64,
    /// It needs nobody until it is done.
    pub unattended: bool,
    /// When a person is needed, and for what.
    pub needs_you: Option<String>,
    pub assumptions: Vec<String>,
}

/// What is known of a model before it is asked.
#[derive(Clone, Debug, PartialEq)]
pub struct Known {
    /// What it is called in the settings.
    pub name: String,
    /// What its calls cost, in batches where they go through those.
    pub tariff: Tariff,
    pub training: Training,
    /// Longest reply.
    pub max_tokens: u32,
    /// From logs that are there.
    pub seen: Option<Seen>,
    /// From the journal's calls.
    pub measured: Option<Measured>,
    /// Its calls go through its provider's batches.
    pub in_batches: bool,
    /// It answers on this machine, one call at a time as far as speed goes.
    pub is_here: bool,
}

/// Means over a model's candidates in the logs.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Seen {
    pub candidates: usize,
    pub output_tokens: f64,
    /// From the question to the score, while others were worked on too.
    pub took_ms: f64,
}

/// Who does what in a search.
#[derive(Clone, Debug)]
pub struct Cast {
    pub agent: Known,
    /// None for the composer.
    pub teacher: Option<Known>,
    pub judge: Option<(Known, u32)>,
}

impl Seen {
    /// Over the logs of a workspace; none when they hold too little of a model.
    pub fn of(workspace: &Workspace, model: &str) -> Option<Self> {
        let logs = dataset::read_logs(&workspace.logs()).ok()?;
        let entries = logs.logs.iter().flat_map(|source| &source.entries);
        let of: Vec<_> =
            entries.filter(|entry| entry.model == model && entry.usage.output_tokens > 0).collect();
        let mean = |values: Vec<f64>| values.iter().sum::<f64>() / of.len() as f64;
        (of.len() >= ENOUGH_SEEN).then(|| Self {
            candidates: of.len(),
            output_tokens: mean(of.iter().map(|entry| entry.usage.output_tokens as f64).collect()),
            took_ms: mean(of.iter().map(|entry| entry.took_ms as f64).collect()),
        })
    }
}

/// How fast jobs of a row have trained, over those that this workspace has seen end: tokens a second, and how many.
pub fn trained(workspace: &Workspace, row: &str) -> Option<(f64, usize)> {
    let records = finetune::records(workspace);
    let of_row = records.iter().filter(|record| record.row == row).map(|record| &record.last);
    let speeds: Vec<f64> = of_row
        .filter(|job| job.status == JobStatus::Succeeded)
        .filter_map(|job| {
            let seconds = job.finished_at? - job.created_at;
            (seconds > 0).then(|| job.trained_tokens.map(|tokens| tokens as f64 / seconds as f64))?
        })
        .collect();
    let mean = speeds.iter().sum::<f64>() / speeds.len() as f64;
    (mean > 0.0).then_some((mean, speeds.len()))
}

impl Known {
    /// Milliseconds from the question to the score when so many are worked on at once, and on what that stands; none where
    /// nobody can say.
    fn candidate(&self, at_once: usize) -> (Option<f64>, String) {
        let (name, look) = (&self.name, format!("{LOOK_S} s to run and look at an app"));
        let at_once = at_once.max(1) as f64;
        let written = self.output_tokens() as f64;
        match (self.seen, self.measured) {
            (Some(seen), _) => {
                let text = format!(
                    "a candidate of `{name}` takes as long as those in the logs did, {at_once} briefs at once"
                );
                (Some(seen.took_ms / at_once), text)
            }
            (None, Some(measured)) => {
                let text = format!(
                    "`{name}` writes {:.0} tokens a second, the median of {} calls in the journal, and it takes {look}",
                    1000.0 / measured.ms_per_token,
                    measured.calls
                );
                // What one machine computes is not done sooner by doing it at once.
                let calls_at_once = if self.is_here { 1.0 } else { at_once };
                (Some(written * measured.ms_per_token / calls_at_once + LOOK_S * 1000.0 / at_once), text)
            }
            (None, None) if self.is_here => {
                let text = format!(
                    "how fast `{name}` answers on this machine was never measured, so how long it takes is unknown"
                );
                (None, text)
            }
            (None, None) => {
                let text = format!(
                    "`{name}` was never asked from here: {HOSTED_TOKENS_PER_S} tokens a second are assumed, and {look}; \
                     {at_once} at once"
                );
                (Some((written * 1000.0 / HOSTED_TOKENS_PER_S + LOOK_S * 1000.0) / at_once), text)
            }
        }
    }

    fn output_tokens(&self) -> u64 {
        self.seen.map_or(u64::from(self.max_tokens), |seen| seen.output_tokens.ceil() as u64)
    }

    fn length(&self) -> String {
        match self.seen {
            Some(seen) => format!(
                "`{}` writes {} tokens, its mean over {} candidates here",
                self.name,
                self.output_tokens(),
                seen.candidates
            ),
            None => format!("`{}` writes all of its {} tokens", self.name, self.max_tokens),
        }
    }
}

impl PlannedPhase {
    /// Adds the time of so many candidates; a phase of which a part is unknown is unknown.
    fn takes(&mut self, who: &Known, candidates: u64, at_once: usize) {
        if candidates == 0 || who.in_batches {
            return;
        }
        let (took_ms, assumption) = who.candidate(at_once);
        let hours = took_ms.map(|ms| candidates as f64 * ms / MS_PER_HOUR);
        self.hours = self.hours.zip(hours).map(|(sum, hours)| sum + hours);
        self.assumptions.push(assumption);
    }

    /// Counts batches that are answered one after another.
    fn waits(&mut self, batches: u64) {
        if batches == 0 {
            return;
        }
        self.batches += batches;
        self.hours = self.hours.map(|hours| hours + batches as f64 * BATCH_HOURS);
        self.assumptions.push(format!(
            "{batches} batches one after another, each answered within {BATCH_HOURS} hours and often much sooner; the command \
             may be closed meanwhile"
        ));
    }

    fn ask(&mut self, who: &Known, calls: u64, input: u64, output: u64) {
        self.calls += calls;
        self.input_tokens += input;
        self.output_tokens += output;
        if calls == 0 {
            return;
        }
        let usd = who.tariff.cost(input, output).map(Usd::dollars);
        self.usd = self.usd.zip(usd).map(|(sum, usd)| sum + usd);
        match who.tariff {
            Tariff::Free => {}
            Tariff::Unknown => self.assumptions.push(format!(
                "what `{}` costs is unknown: neither its row nor a table of prices says it",
                who.name
            )),
            Tariff::Known(rates) => {
                let [input, output] =
                    [(MILLION, 0), (0, MILLION)].map(|(input, output)| rates.cost(input, output));
                let batched = if who.in_batches { " in batches" } else { "" };
                self.assumptions.push(format!(
                    "`{}` costs {input} and {output} per million tokens in and out{batched}",
                    who.name
                ));
            }
        }
    }

    fn judged(&mut self, judge: Option<&(Known, u32)>, briefs: u64, looks: u64, choices: u64, app: u64) {
        let Some((judge, samples)) = judge else { return };
        let calls = briefs + looks * u64::from(*samples) + briefs * choices;
        self.ask(judge, calls, calls * (app + JUDGE_INPUT), calls * JUDGE_OUTPUT);
        self.assumptions.push(format!(
            "the judge is asked {samples} times at each look, about {JUDGE_INPUT} tokens and the app each"
        ));
    }
}

/// The logs that a search would find finished, as far as can be told without opening the critic.
pub fn finished(
    workspace: &Workspace,
    briefs: &[Brief],
    agent: &str,
    teacher: &str,
    options: &Options,
) -> usize {
    let there = |brief: &&Brief| {
        let path = workspace.log(brief.id.as_str(), options.round);
        let log =
            store::read_text(&path).ok().and_then(|text| serde_json::from_str::<EvolutionLog>(&text).ok());
        log.is_some_and(|log| {
            log.description == brief.description
                && (log.agent.as_str(), log.teacher.as_str()) == (agent, teacher)
                && log.seed == options.seed
                && log.prompts.as_deref() == options.prompts.name()
        })
    };
    briefs.iter().filter(there).count()
}

/// The phase of searches.
///
/// # Errors
/// A prompt template that does not render.
pub fn evolve(
    briefs: &[Brief],
    finished: usize,
    cast: &Cast,
    options: &Options,
    concurrency: usize,
) -> Result<PlannedPhase, PromptError> {
    let open = briefs.len().saturating_sub(finished) as u64;
    let drafts = options.drafts.min(options.max_evaluations);
    let rounds = PROPOSALS * options.max_iterations;
    let proposals = rounds.min(options.max_evaluations.saturating_sub(drafts));
    let question = mean_question(briefs, options)?;
    let app = app_tokens(briefs, options.seed);
    let mut phase =
        PlannedPhase { usd: Some(0.0), hours: Some(0.0), unattended: true, ..PlannedPhase::named("evolve") };
    let (asked, improved) = (open * u64::from(drafts), open * u64::from(proposals));
    phase.assumptions.push(format!(
        "{open} of {} briefs have no finished log; no search reaches its target early; no reply is refused or a copy",
        briefs.len()
    ));
    phase.ask(&cast.agent, asked, asked * question, asked * cast.agent.output_tokens());
    phase.assumptions.push(cast.agent.length());
    if let Some(teacher) = &cast.teacher {
        let input = question + app + SHOWN_TOKENS;
        phase.ask(teacher, improved, improved * input, improved * teacher.output_tokens());
        phase.assumptions.push(teacher.length());
        phase.assumptions.push(format!(
            "an app to be improved has {app} tokens, the mean of the composer's, and {SHOWN_TOKENS} of issues and guidelines"
        ));
    }
    // Each candidate is looked at once, and at the end again where it may be taught.
    phase.judged(cast.judge.as_ref(), open, 2 * (asked + improved), JUDGE_CHOICES, app);
    // Candidates of the composer are scored like others, and as quickly as the agent's.
    match &cast.teacher {
        Some(teacher) => {
            phase.takes(&cast.agent, asked, concurrency);
            phase.takes(teacher, improved, concurrency);
        }
        None => phase.takes(&cast.agent, asked + improved, concurrency),
    }
    if open > 0 {
        phase.waits(turns(cast, drafts.into(), proposals.into()));
    }
    Ok(phase)
}

/// Batches that a brief takes one after another: all briefs are worked on at once, and a search asks in turns.
fn turns(cast: &Cast, drafts: u64, proposals: u64) -> u64 {
    let in_batches =
        |who: Option<&Known>, turns| if who.is_some_and(|who| who.in_batches) { turns } else { 0 };
    let judge = cast.judge.as_ref().map(|(judge, _)| judge);
    in_batches(Some(&cast.agent), drafts)
        + in_batches(cast.teacher.as_ref(), proposals)
        + in_batches(judge, 1 + 2 * (drafts + proposals) + JUDGE_CHOICES)
}

fn mean_question(briefs: &[Brief], options: &Options) -> Result<u64, PromptError> {
    let mut sum = 0;
    for brief in briefs {
        sum += tokens::chat_tokens(&options.prompts.ask(brief)?);
    }
    Ok(sum.div_ceil(briefs.len().max(1)) as u64)
}

/// How long apps are: the composer's, for some of the briefs.
fn app_tokens(briefs: &[Brief], seed: u64) -> u64 {
    let composer = Composer::new(seed);
    let step = briefs.len().div_ceil(WRITTEN).max(1);
    let apps = briefs.iter().step_by(step).map(|brief| composer.propose(brief, Operator::Restart, 0, &[]));
    let lengths: Vec<usize> = apps.map(|app| tokens::text_tokens(&agent::reply_of(&app))).collect();
    lengths.iter().sum::<usize>().div_ceil(lengths.len().max(1)) as u64
}

/// The phase that makes the dataset: seconds, and nobody is asked.
pub fn prepare() -> PlannedPhase {
    PlannedPhase {
        usd: Some(0.0),
        hours: Some(0.0),
        unattended: true,
        assumptions: vec!["nothing is sent; it takes seconds".into()],
        ..PlannedPhase::named("prepare")
    }
}

/// What is to be trained on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rows {
    /// A dataset that is there.
    Counted { rows: u64, tokens: u64 },
    /// So many rows at most, of one app each.
    Expected { rows: u64, tokens_each: u64 },
}

impl Rows {
    /// Rows that searches over these briefs give: the best app of each, as long as the composer's.
    ///
    /// # Errors
    /// A prompt template that does not render.
    pub fn expected(briefs: &[Brief], most: Option<usize>, options: &Options) -> Result<Self, PromptError> {
        let rows = briefs.len().min(most.unwrap_or(usize::MAX)) as u64;
        let tokens_each = mean_question(briefs, options)? + app_tokens(briefs, options.seed);
        Ok(Self::Expected { rows, tokens_each })
    }
}

/// How often training goes through the rows.
#[derive(Clone, Copy, Debug)]
pub enum Passes {
    Fixed(u32),
    /// What `auto` is where jobs have this shape.
    Auto(finetune::Shape),
}

/// The phase of training. `speed` is that of earlier jobs there: tokens a second, and of how many jobs.
pub fn finetune(
    trainer: &Known,
    rows: Rows,
    passes: Passes,
    speed: Option<(f64, usize)>,
    missing: Option<String>,
) -> PlannedPhase {
    let (examples, tokens, assumed) = match rows {
        Rows::Counted { rows, tokens } => {
            (rows, tokens, format!("the dataset has {tokens} tokens (o200k_base)"))
        }
        Rows::Expected { rows, tokens_each } => {
            (rows, rows * tokens_each, format!("{rows} rows of {tokens_each} tokens: one app for each brief"))
        }
    };
    let (epochs, by_rule) = match passes {
        Passes::Fixed(epochs) => (epochs, ""),
        Passes::Auto(shape) => {
            let epochs = shape.auto_epochs(usize::try_from(examples).unwrap_or(usize::MAX));
            (
                epochs,
                if shape == finetune::Shape::OpenAi {
                    ", by the published rule for `auto`"
                } else {
                    ", which is its `auto`"
                },
            )
        }
    };
    let trained = tokens * u64::from(epochs);
    let mut assumptions = vec![assumed, format!("{epochs} epochs{by_rule}")];
    match trainer.training {
        Training::Unknown => assumptions.push(format!("what training `{}` costs is unknown", trainer.name)),
        Training::Known(price) => assumptions.push(format!("{} per million tokens trained", Usd::of(price))),
        Training::Free => {}
    }
    assumptions.push(match speed {
        Some((speed, jobs)) => format!("{speed:.0} tokens a second, the mean of {jobs} earlier jobs there"),
        None => "no earlier job there tells how long the trainer takes, so it is unknown".into(),
    });
    assumptions.push("training goes on when this terminal is closed".into());
    PlannedPhase {
        input_tokens: trained,
        usd: trainer.training.cost(trained).map(Usd::dollars),
        hours: speed.map(|(speed, _)| trained as f64 / speed / 3600.0),
        unattended: missing.is_none(),
        needs_you: missing,
        assumptions,
        ..PlannedPhase::named("finetune")
    }
}

/// The phase of the trial: every arm answers every brief so often.
///
/// # Errors
/// A prompt template that does not render.
pub fn test(
    heldout: &[Brief],
    arms: u64,
    samples: u32,
    tuned: &Known,
    judge: Option<&(Known, u32)>,
    options: &Options,
) -> Result<PlannedPhase, PromptError> {
    let calls = heldout.len() as u64 * arms * u64::from(samples);
    let mut phase =
        PlannedPhase { usd: Some(0.0), hours: Some(0.0), unattended: true, ..PlannedPhase::named("test") };
    phase.ask(tuned, calls, calls * mean_question(heldout, options)?, calls * tuned.output_tokens());
    phase
        .assumptions
        .push(format!("{arms} models, {} held-out briefs, {samples} answers each", heldout.len()));
    phase.assumptions.push(tuned.length());
    phase.judged(judge, heldout.len() as u64, calls, 0, app_tokens(heldout, options.seed));
    phase.takes(tuned, calls, TRIAL_AT_ONCE);
    // All answers are one batch; a checklist and what is judged by it are two.
    let judged = judge.is_some_and(|(judge, _)| judge.in_batches);
    phase.waits(u64::from(tuned.in_batches) + 2 * u64::from(judged));
    phase.needs_you = Some("when the verdict is `hold`: read the report".into());
    Ok(phase)
}

/// The phase that puts a better model into use.
pub fn deploy() -> PlannedPhase {
    PlannedPhase {
        usd: Some(0.0),
        hours: Some(0.0),
        unattended: true,
        needs_you: Some("only to take it back: `hone rollback`".into()),
        assumptions: vec!["only a model with the verdict `promote` is deployed".into()],
        ..PlannedPhase::named("deploy")
    }
}

impl PlannedPhase {
    fn named(phase: &str) -> Self {
        Self { phase: phase.into(), ..Self::default() }
    }

    /// "overnight" where nobody is needed, "needs you" where nothing goes on without.
    fn when(&self) -> &'static str {
        if self.unattended { "overnight" } else { "needs you" }
    }
}

impl Plan {
    pub fn of(phases: Vec<PlannedPhase>) -> Self {
        Self {
            calls: phases.iter().map(|phase| phase.calls).sum(),
            usd: phases.iter().map(|phase| phase.usd).sum(),
            hours: phases.iter().map(|phase| phase.hours).sum(),
            phases,
        }
    }

    /// For people: a table, what needs them, and what it all stands on.
    pub fn text(&self) -> String {
        let tokens = |n: u64| crate::text::thousands(n);
        let line = |name: &str,
                    calls: u64,
                    input: String,
                    output: String,
                    usd: Option<f64>,
                    hours: Option<f64>,
                    when: &str| {
            let usd = price::said(usd);
            let hours = hours.map_or("unknown".into(), |hours| format!("{hours:.1}"));
            let line = format!("{name:<10}{calls:>8}{input:>14}{output:>14}{usd:>10}{hours:>9}  {when}");
            format!("{}\n", line.trim_end())
        };
        let mut text = format!(
            "{:<10}{:>8}{:>14}{:>14}{:>10}{:>9}\n",
            "phase", "calls", "tokens in", "tokens out", "cost", "hours"
        );
        for phase in &self.phases {
            let (input, output) = (tokens(phase.input_tokens), tokens(phase.output_tokens));
            text.push_str(&line(
                &phase.phase,
                phase.calls,
                input,
                output,
                phase.usd,
                phase.hours,
                phase.when(),
            ));
        }
        if self.phases.len() > 1 {
            text.push_str(&line(
                "in all",
                self.calls,
                String::new(),
                String::new(),
                self.usd,
                self.hours,
                "",
            ));
        }
        for phase in &self.phases {
            if let Some(what) = &phase.needs_you {
                text.push_str(&format!("\n{} needs you {what}", phase.phase));
            }
        }
        text.push_str("\n\nat most, if\n");
        for phase in &self.phases {
            let assumptions = phase.assumptions.iter().map(|what| format!("  {}: {what}\n", phase.phase));
            text.extend(assumptions);
        }
        text + "nothing was sent"
    }
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;
    use crate::{brief, model::price::Rates};

    const BY_RULE: Passes = Passes::Auto(finetune::Shape::OpenAi);

    fn known(name: &str, price: Option<(f64, f64)>) -> Known {
        let tariff = match price {
            None => Tariff::Unknown,
            Some((0.0, 0.0)) => Tariff::Free,
            Some((input, output)) => Tariff::Known(Rates::per_million(input, output)),
        };
        let training = if tariff == Tariff::Free { Training::Free } else { Training::Unknown };
        let (seen, measured) = (None, None);
        let is_here = tariff == Tariff::Free;
        let name = name.into();
        Known { name, tariff, training, max_tokens: 1000, seen, measured, in_batches: false, is_here }
    }

    fn cast(teacher: Option<Known>, judge: Option<Known>) -> Cast {
        Cast { agent: known("agent", Some((0.0, 0.0))), teacher, judge: judge.map(|judge| (judge, 2)) }
    }

    #[test]
    fn calls_are_those_of_the_search_and_what_is_finished_is_not_asked_again() {
        let briefs = &brief::shipped_train()[..10];
        let options = Options::default();
        let calls = |cast: &Cast, finished| evolve(briefs, finished, cast, &options, 4).unwrap().calls;
        assert_eq!(calls(&cast(None, None), 0), 20);
        assert_eq!(calls(&cast(Some(known("t", None)), None), 0), 20 + 80);
        assert_eq!(calls(&cast(Some(known("t", None)), None), 4), 12 + 48);
        assert_eq!(calls(&cast(None, None), 99), 0);
        // One list of questions, two answers at each of two looks at ten candidates, four choices.
        let judged = cast(Some(known("t", None)), Some(known("j", None)));
        assert_eq!(calls(&judged, 9), 10 + 1 + 2 * 20 + 4);
        let few = Options { max_evaluations: 3, ..options };
        assert_eq!(evolve(briefs, 0, &cast(Some(known("t", None)), None), &few, 4).unwrap().calls, 30);
    }

    #[test]
    fn what_is_unknown_stays_unknown() {
        let briefs = &brief::shipped_train()[..2];
        let options = Options::default();
        let phase = |teacher| evolve(briefs, 0, &cast(teacher, None), &options, 4).unwrap();
        assert_eq!(phase(None).usd, Some(0.0));
        assert_eq!(phase(Some(known("t", None))).usd, None);
        // The agent answers here, and nobody has seen how fast.
        assert_eq!(phase(Some(known("t", None))).hours, None);
        let paid = phase(Some(known("t", Some((1.0, 10.0)))));
        // 16 replies of 1,000 tokens at 10 dollars a million, and what they were asked with.
        assert!(paid.usd.is_some_and(|usd| (0.16..0.2).contains(&usd)), "{paid:?}");
        let seen = Seen { candidates: 9, output_tokens: 200.0, took_ms: 36_000.0 };
        let agent = Known { seen: Some(seen), ..known("a", Some((0.0, 0.0))) };
        let measured = evolve(briefs, 0, &Cast { agent, teacher: None, judge: None }, &options, 4).unwrap();
        // 4 drafts and 16 proposals of 36 s, four at once.
        assert_eq!((measured.hours, measured.output_tokens), (Some(0.05), 800));
        let rows = Rows::Counted { rows: 10, tokens: 9 };
        assert_eq!(finetune(&known("t", Some((1.0, 1.0))), rows, BY_RULE, None, None).usd, None);
        let plan = Plan::of(vec![paid, finetune(&known("t", None), rows, Passes::Fixed(2), None, None)]);
        assert_eq!((plan.usd, plan.hours), (None, None));
        // Ten examples have ten epochs by the rule, at the speed of an earlier job.
        let trainer = Known { training: Training::Known(25.0), ..known("t", None) };
        let rows = Rows::Counted { rows: 10, tokens: 40_000 };
        let known = finetune(&trainer, rows, BY_RULE, Some((400_000.0 / 7200.0, 1)), None);
        assert_eq!((known.usd, known.hours.map(|hours| (hours * 1e6).round())), (Some(10.0), Some(2e6)));
        let once = finetune(&trainer, rows, Passes::Auto(finetune::Shape::Together), None, None);
        assert_eq!(once.usd, Some(1.0));
    }

    #[test]
    fn time_is_measured_or_assumed_and_both_are_said() {
        let briefs = &brief::shipped_train()[..2];
        let options = Options::default();
        let phase = |agent: Known| {
            evolve(briefs, 0, &Cast { agent, teacher: None, judge: None }, &options, 4).unwrap()
        };
        let check = |agent: Known, hours: Option<f64>, said: &str| {
            let phase = phase(agent);
            let rounded = phase.hours.map(|hours| (hours * 3600.0).round());
            assert_eq!(rounded, hours, "{said}");
            assert!(
                phase.assumptions.iter().any(|what| what.contains(said)),
                "{said}: {:?}",
                phase.assumptions
            );
        };
        let hosted = known("far", Some((1.0, 1.0)));
        // 20 candidates of 1,000 tokens at 50 a second and 5 s each, four at once.
        check(hosted.clone(), Some(125.0), "50 tokens a second are assumed");
        let measured = Some(Measured { calls: 7, ms_per_token: 10.0 });
        check(Known { measured, ..hosted.clone() }, Some(75.0), "100 tokens a second, the median of 7 calls");
        // On this machine four at once take as long as four.
        let here = known("near", Some((0.0, 0.0)));
        check(Known { measured, ..here.clone() }, Some(225.0), "100 tokens a second");
        check(here, None, "never measured");
    }

    #[test]
    fn batches_are_told_with_their_waits() {
        let briefs = &brief::shipped_train()[..2];
        let options = Options::default();
        let batched = |name: &str| Known { in_batches: true, ..known(name, Some((1.0, 1.0))) };
        let cast = Cast {
            agent: batched("a"),
            teacher: Some(batched("t")),
            judge: Some((known("j", Some((1.0, 1.0))), 2)),
        };
        let phase = evolve(briefs, 0, &cast, &options, 4).unwrap();
        // Two drafts and eight proposals, one after another.
        assert_eq!((phase.batches, phase.hours), (10, Some(240.0)));
        assert!(phase.assumptions.iter().any(|what| what.contains("10 batches")), "{:?}", phase.assumptions);
        assert!(phase.assumptions.iter().any(|what| what.ends_with("in and out in batches")));
        let judge = (batched("j"), 2);
        let trial =
            test(&brief::shipped_heldout()[..3], 2, 2, &batched("m"), Some(&judge), &options).unwrap();
        assert_eq!((trial.batches, trial.hours), (3, Some(72.0)));
        assert_eq!(evolve(briefs, 2, &cast, &options, 4).unwrap().batches, 0, "all is finished");
    }

    #[test]
    fn people_read_a_table_and_what_it_stands_on() {
        let briefs = &brief::shipped_train()[..2];
        let options = Options::default();
        let trainer = known("gpt", Some((3.75, 15.0)));
        let plan = Plan::of(vec![
            evolve(briefs, 1, &cast(None, None), &options, 32).unwrap(),
            prepare(),
            finetune(
                &trainer,
                Rows::Expected { rows: 2, tokens_each: 900 },
                BY_RULE,
                None,
                Some("to set `OPENAI_API_KEY`".into()),
            ),
            test(&brief::shipped_heldout()[..3], 2, 2, &trainer, None, &options).unwrap(),
            deploy(),
        ]);
        expect![[r#"
            phase        calls     tokens in    tokens out      cost    hours
            evolve           2           258         2,000     $0.00  unknown  overnight
            prepare          0             0             0     $0.00      0.0  overnight
            finetune         0        45,000             0   unknown  unknown  needs you
            test            12         1,176        12,000     $0.18      0.0  overnight
            deploy           0             0             0     $0.00      0.0  overnight
            in all          14                               unknown  unknown

            finetune needs you to set `OPENAI_API_KEY`
            test needs you when the verdict is `hold`: read the report
            deploy needs you only to take it back: `hone rollback`

            at most, if
              evolve: 1 of 2 briefs have no finished log; no search reaches its target early; no reply is refused or a copy
              evolve: `agent` writes all of its 1000 tokens
              evolve: how fast `agent` answers on this machine was never measured, so how long it takes is unknown
              prepare: nothing is sent; it takes seconds
              finetune: 2 rows of 900 tokens: one app for each brief
              finetune: 25 epochs, by the published rule for `auto`
              finetune: what training `gpt` costs is unknown
              finetune: no earlier job there tells how long the trainer takes, so it is unknown
              finetune: training goes on when this terminal is closed
              test: `gpt` costs $3.75 and $15.00 per million tokens in and out
              test: 2 models, 3 held-out briefs, 2 answers each
              test: `gpt` writes all of its 1000 tokens
              test: `gpt` was never asked from here: 50 tokens a second are assumed, and 5 s to run and look at an app; 32 at once
              deploy: only a model with the verdict `promote` is deployed
            nothing was sent"#]].assert_eq(&plan.text());
    }
}
