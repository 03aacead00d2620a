//! What a run will take, before anything is sent: calls, tokens, dollars and hours of each phase, what runs by itself and what
//! needs a person. Every figure stands on an assumption that is named; what cannot be known is unknown, not guessed.

use serde::{Deserialize, Serialize};

use crate::{
    agent::{self, PromptError},
    brief::Brief,
    dataset::{self, tokens},
    evolve::{EvolutionLog, Operator, Options, composer::Composer},
    model::price::{Tariff, Usd},
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
    /// Null when nothing of the sort was measured here.
    pub hours: Option<f64>,
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
    /// What its calls cost.
    pub tariff: Tariff,
    /// US dollars per million tokens trained; none when it is not known.
    pub training: Option<f64>,
    /// Longest reply.
    pub max_tokens: u32,
    /// From logs that are there.
    pub seen: Option<Seen>,
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

impl Known {
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
                self.assumptions
                    .push(format!("`{}` costs {input} and {output} per million tokens in and out", who.name));
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
    let mut phase = PlannedPhase { usd: Some(0.0), unattended: true, ..PlannedPhase::named("evolve") };
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
    phase.hours = hours(cast, asked, improved, concurrency);
    phase.assumptions.push(match phase.hours {
        Some(_) => {
            format!("a candidate takes as long as those in the logs did, {concurrency} briefs at once")
        }
        None => format!(
            "no {ENOUGH_SEEN} candidates of these models are in the logs: how long they take is unknown"
        ),
    });
    Ok(phase)
}

/// Candidates of the composer are scored like others, and as quickly as the agent's.
fn hours(cast: &Cast, asked: u64, improved: u64, concurrency: usize) -> Option<f64> {
    let agent = cast.agent.seen.map(|seen| seen.took_ms);
    let teacher = cast.teacher.as_ref().map_or(agent, |teacher| teacher.seen.map(|seen| seen.took_ms));
    let took = if asked + improved == 0 { 0.0 } else { asked as f64 * agent? + improved as f64 * teacher? };
    Some(took / concurrency.max(1) as f64 / 3_600_000.0)
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
    /// A dataset that is there, in tokens.
    Counted { tokens: u64 },
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

/// The phase of training. `epochs` is none where the trainer chooses; three are counted then, the published rule's usual answer.
pub fn finetune(trainer: &Known, rows: Rows, epochs: Option<u32>, missing: Option<String>) -> PlannedPhase {
    let (tokens, assumed) = match rows {
        Rows::Counted { tokens } => (tokens, format!("the dataset has {tokens} tokens (o200k_base)")),
        Rows::Expected { rows, tokens_each } => {
            (rows * tokens_each, format!("{rows} rows of {tokens_each} tokens: one app for each brief"))
        }
    };
    let passes = u64::from(epochs.unwrap_or(3));
    let price = trainer.training.or((trainer.tariff == Tariff::Free).then_some(0.0));
    let trained = tokens * passes;
    let mut assumptions = vec![
        assumed,
        format!("{passes} epochs{}", if epochs.is_none() { ", chosen by the trainer" } else { "" }),
    ];
    match price {
        None => assumptions.push(format!("what training `{}` costs is unknown", trainer.name)),
        Some(price) if price > 0.0 => assumptions.push(format!("${price} per million tokens trained")),
        Some(_) => {}
    }
    assumptions.push("how long the trainer takes is unknown; it goes on when this terminal is closed".into());
    PlannedPhase {
        input_tokens: trained,
        usd: price.map(|price| trained as f64 * price / 1e6),
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
    let mut phase = PlannedPhase { usd: Some(0.0), unattended: true, ..PlannedPhase::named("test") };
    phase.ask(tuned, calls, calls * mean_question(heldout, options)?, calls * tuned.output_tokens());
    phase
        .assumptions
        .push(format!("{arms} models, {} held-out briefs, {samples} answers each", heldout.len()));
    phase.assumptions.push(tuned.length());
    phase.judged(judge, heldout.len() as u64, calls, 0, app_tokens(heldout, options.seed));
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
            let usd = usd.map_or("unknown".into(), |usd| format!("{usd:.2}"));
            let hours = hours.map_or("unknown".into(), |hours| format!("{hours:.1}"));
            let line = format!("{name:<10}{calls:>8}{input:>14}{output:>14}{usd:>10}{hours:>9}  {when}");
            format!("{}\n", line.trim_end())
        };
        let mut text = format!(
            "{:<10}{:>8}{:>14}{:>14}{:>10}{:>9}\n",
            "phase", "calls", "tokens in", "tokens out", "USD", "hours"
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

    fn known(name: &str, price: Option<(f64, f64)>) -> Known {
        let tariff = match price {
            None => Tariff::Unknown,
            Some((0.0, 0.0)) => Tariff::Free,
            Some((input, output)) => Tariff::Known(Rates::per_million(input, output)),
        };
        Known { name: name.into(), tariff, training: None, max_tokens: 1000, seen: None }
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
        assert_eq!(phase(Some(known("t", None))).hours, None);
        let paid = phase(Some(known("t", Some((1.0, 10.0)))));
        // 16 replies of 1,000 tokens at 10 dollars a million, and what they were asked with.
        assert!(paid.usd.is_some_and(|usd| (0.16..0.2).contains(&usd)), "{paid:?}");
        let seen = Seen { candidates: 9, output_tokens: 200.0, took_ms: 36_000.0 };
        let agent = Known { seen: Some(seen), ..known("a", Some((0.0, 0.0))) };
        let measured = evolve(briefs, 0, &Cast { agent, teacher: None, judge: None }, &options, 4).unwrap();
        // 4 drafts and 16 proposals of 36 s, four at once.
        assert_eq!((measured.hours, measured.output_tokens), (Some(0.05), 800));
        assert_eq!(
            finetune(&known("t", Some((1.0, 1.0))), Rows::Counted { tokens: 9 }, None, None).usd,
            None
        );
        let plan =
            Plan::of(vec![paid, finetune(&known("t", None), Rows::Counted { tokens: 9 }, Some(2), None)]);
        assert_eq!((plan.usd, plan.hours), (None, None));
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
                None,
                Some("to set `OPENAI_API_KEY`".into()),
            ),
            test(&brief::shipped_heldout()[..3], 2, 2, &trainer, None, &options).unwrap(),
            deploy(),
        ]);
        expect![[r#"
            phase        calls     tokens in    tokens out       USD    hours
            evolve           2           258         2,000      0.00  unknown  overnight
            prepare          0             0             0      0.00      0.0  overnight
            finetune         0         5,400             0   unknown  unknown  needs you
            test            12         1,176        12,000      0.18  unknown  overnight
            deploy           0             0             0      0.00      0.0  overnight
            in all          14                               unknown  unknown

            finetune needs you to set `OPENAI_API_KEY`
            test needs you when the verdict is `hold`: read the report
            deploy needs you only to take it back: `hone rollback`

            at most, if
              evolve: 1 of 2 briefs have no finished log; no search reaches its target early; no reply is refused or a copy
              evolve: `agent` writes all of its 1000 tokens
              evolve: no 5 candidates of these models are in the logs: how long they take is unknown
              prepare: nothing is sent; it takes seconds
              finetune: 2 rows of 900 tokens: one app for each brief
              finetune: 3 epochs, chosen by the trainer
              finetune: what training `gpt` costs is unknown
              finetune: how long the trainer takes is unknown; it goes on when this terminal is closed
              test: `gpt` costs $3.75 and $15.00 per million tokens in and out
              test: 2 models, 3 held-out briefs, 2 answers each
              test: `gpt` writes all of its 1000 tokens
              deploy: only a model with the verdict `promote` is deployed
            nothing was sent"#]].assert_eq(&plan.text());
    }
}
