//! What a search buys: strategies side by side on the same briefs, with the same number of calls each.
//!
//! A unit of work is one strategy on one brief; its result is on disk before it counts, so that a killed comparison goes on
//! where it was. Strategies that ask the same get the same answer out of the journal, which pairs them as closely as can
//! be: `last` and `keep-best` differ in nothing but what they hand out. Scores are those of the executed evidence on a
//! fresh look at what the strategy would hand out.

use std::{
    cell::Cell,
    path::{Path, PathBuf},
};

use futures::{StreamExt, stream};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::stats::{Diff, score_difference};
use crate::{
    brief::Brief,
    cancel::Cancel,
    event::{Event, Events, Phase},
    evolve::{Bandit, EvolveError, Fixed, Found, Means, Operator, Options, Search, Strategy, waves},
    model::price,
    store::{self, Workspace},
};

const FORMAT: &str = "hone.strategy";
const VERSION: u32 = 1;

/// What is compared, and with what. Of `means`, the options say everything but the strategy, and nothing is learnt yet.
pub struct Comparison<'a> {
    pub workspace: &'a Workspace,
    pub means: Means<'a>,
    pub strategies: Vec<Strategy>,
    /// Calls of each strategy on each brief.
    pub calls: u32,
    /// Briefs worked on at once.
    pub concurrency: usize,
    pub events: &'a Events,
    pub cancel: &'a Cancel,
}

/// What briefs that are worked on at once tell each other.
struct Progress {
    done: Cell<u64>,
    total: u64,
    failed: Cell<bool>,
}

/// One strategy on one brief.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Unit {
    format: String,
    version: u32,
    brief: String,
    /// What scores are clustered by.
    family: String,
    strategy: Strategy,
    /// Of what it hands out, on a fresh look.
    score: f64,
    calls: u32,
    /// Candidates that came of them.
    candidates: usize,
    usd: Option<f64>,
    tried: Vec<Tried>,
}

/// One operator's try and what it gained.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Tried {
    operator: String,
    gain: f64,
}

/// Strategies beside each other.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StrategyTable {
    pub budget_calls: u32,
    pub briefs: usize,
    pub agent: String,
    pub teacher: String,
    pub critic: String,
    pub strategies: Vec<StrategyRow>,
    /// Of each strategy over each that was named before it.
    pub differences: Vec<StrategyDifference>,
    /// Where the results of single briefs are.
    pub folder: PathBuf,
}

/// One strategy over all briefs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StrategyRow {
    pub name: String,
    /// Mean score of what it hands out.
    pub mean: f64,
    pub calls: u64,
    /// Null when a price is unknown. Calls that another strategy had made already are counted all the same.
    pub usd: Option<f64>,
}

/// How much higher `a` scores than `b`, paired by brief: mean, 95% interval over families, two-sided p.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StrategyDifference {
    pub a: String,
    pub b: String,
    pub mean: Option<f64>,
    pub low: Option<f64>,
    pub high: Option<f64>,
    pub p: Option<f64>,
}

impl Comparison<'_> {
    /// Runs what is missing and sums up.
    ///
    /// # Errors
    /// Those of a search. What is under way then still ends and is kept.
    pub async fn run(&self, briefs: &[Brief]) -> Result<StrategyTable, EvolveError> {
        if briefs.is_empty() {
            return Err(EvolveError::NoBriefs);
        }
        let folder = self.workspace.compare().join(self.name(briefs));
        let total = (briefs.len() * self.strategies.len()) as u64;
        self.events.emit(Event::Begin { phase: Phase::Evolve, total: Some(total) });
        let progress = Progress { done: Cell::new(0), total, failed: Cell::new(false) };
        let (mut learnt, mut units) = (Bandit::default(), Vec::new());
        for wave in waves(briefs.len()) {
            let made = self.wave(&briefs[wave], &learnt, &folder, &progress).await?;
            for unit in made.iter().filter(|unit| unit.strategy == Strategy::Default) {
                unit.teach(&mut learnt);
            }
            units.extend(made);
        }
        let table = self.table(briefs.len(), &units, folder.clone());
        store::write_json(&folder.join("table.json"), &table)?;
        self.events.emit(Event::End { phase: Phase::Evolve, summary: table.sentence() });
        Ok(table)
    }

    /// The units of some briefs, in the order of the briefs. After a failure no unit is begun any more.
    async fn wave(
        &self,
        briefs: &[Brief],
        learnt: &Bandit,
        folder: &Path,
        progress: &Progress,
    ) -> Result<Vec<Unit>, EvolveError> {
        let running = stream::iter(briefs).map(|brief| self.brief(brief, learnt, folder, progress));
        let results: Vec<_> = running.buffered(self.concurrency.max(1)).collect().await;
        let (mut units, mut first) = (Vec::new(), None);
        for result in results {
            match result {
                Ok(made) => units.extend(made),
                // What stopped the others says more than that they were stopped.
                Err(e) if matches!(first, None | Some(EvolveError::Cancelled)) => first = Some(e),
                Err(_) => {}
            }
        }
        first.map_or(Ok(units), Err)
    }

    /// Every strategy on one brief, one after the other: what they have in common is asked once.
    async fn brief(
        &self,
        brief: &Brief,
        learnt: &Bandit,
        folder: &Path,
        progress: &Progress,
    ) -> Result<Vec<Unit>, EvolveError> {
        let mut units = Vec::new();
        for strategy in &self.strategies {
            if self.cancel.is_cancelled() || progress.failed.get() {
                return Err(EvolveError::Cancelled);
            }
            let unit = self.unit(brief, *strategy, learnt, folder).await;
            let unit = unit.inspect_err(|_| progress.failed.set(true))?;
            let done = progress.done.get() + 1;
            progress.done.set(done);
            let note = format!("{} {}  {:.1}", unit.brief, strategy.name(), unit.score);
            let total = Some(progress.total);
            self.events.emit(Event::Progress { phase: Phase::Evolve, done, total, note });
            units.push(unit);
        }
        Ok(units)
    }

    async fn unit(
        &self,
        brief: &Brief,
        strategy: Strategy,
        learnt: &Bandit,
        folder: &Path,
    ) -> Result<Unit, EvolveError> {
        let path = folder.join(format!("{}.{}.json", brief.id, strategy.name()));
        if let Some(unit) = Unit::read(&path) {
            return Ok(unit);
        }
        let fixed = Some(Fixed { strategy, calls: self.calls });
        let options = Options { fixed, ..self.means.options.clone() };
        let search = Search::new(brief, Means { options: &options, learnt, ..self.means });
        let unit = Unit::of(brief, strategy, search.run().await?);
        store::write_json(&path, &unit)?;
        Ok(unit)
    }

    /// A folder for everything that may change a result but the strategies: with another one, the finished ones are kept.
    fn name(&self, briefs: &[Brief]) -> String {
        let Means { agent, teacher, critic, options, .. } = self.means;
        let asked = serde_json::json!([
            VERSION,
            briefs,
            self.calls,
            agent.model(),
            teacher.name(),
            critic.version(),
            critic.level(),
            options.seed,
            options.drafts,
            options.prompts.name()
        ]);
        let hash = crate::text::hex(&Sha256::digest(asked.to_string()));
        hash[..8].to_owned()
    }

    fn table(&self, briefs: usize, units: &[Unit], folder: PathBuf) -> StrategyTable {
        let of = |strategy: Strategy| units.iter().filter(move |unit| unit.strategy == strategy);
        let row = |strategy: &Strategy| StrategyRow {
            name: strategy.name().into(),
            mean: of(*strategy).map(|unit| unit.score).sum::<f64>() / briefs as f64,
            calls: of(*strategy).map(|unit| u64::from(unit.calls)).sum(),
            usd: of(*strategy).map(|unit| unit.usd).sum(),
        };
        let pairs = self
            .strategies
            .iter()
            .enumerate()
            .flat_map(|(at, a)| self.strategies[..at].iter().map(move |b| (*a, *b)));
        let difference = |(a, b): (Strategy, Strategy)| {
            let pair = of(a).zip(of(b));
            let diffs: Vec<Diff> =
                pair.map(|(a, b)| Diff::new(a.family.clone(), a.score - b.score)).collect();
            let found = score_difference(&diffs, self.means.options.seed);
            let (mean, low, high, p) = (found.mean, found.low, found.high, found.p);
            StrategyDifference { a: a.name().into(), b: b.name().into(), mean, low, high, p }
        };
        StrategyTable {
            budget_calls: self.calls,
            briefs,
            agent: self.means.agent.model().to_owned(),
            teacher: self.means.teacher.name().to_owned(),
            critic: self.means.critic.version().to_owned(),
            strategies: self.strategies.iter().map(row).collect(),
            differences: pairs.map(difference).collect(),
            folder,
        }
    }
}

impl Unit {
    fn of(brief: &Brief, strategy: Strategy, found: Found) -> Self {
        let paid = found.history.iter().filter(|entry| entry.usage.output_tokens > 0);
        let tried = found.tried.iter();
        Self {
            format: FORMAT.into(),
            version: VERSION,
            brief: brief.id.to_string(),
            family: brief.family.clone(),
            strategy,
            score: found.score,
            calls: found.calls,
            candidates: found.history.len(),
            usd: paid.map(|entry| entry.usage.usd).sum(),
            tried: tried.map(|(op, gain)| Tried { operator: op.as_str().into(), gain: *gain }).collect(),
        }
    }

    /// A result that is there; one that cannot be read is made again.
    fn read(path: &Path) -> Option<Self> {
        let unit: Self = serde_json::from_str(&store::read_text(path).ok()?).ok()?;
        (unit.format == FORMAT && unit.version == VERSION).then_some(unit)
    }

    fn teach(&self, bandit: &mut Bandit) {
        for tried in &self.tried {
            if let Some(operator) = Operator::ALL.into_iter().find(|op| op.as_str() == tried.operator) {
                bandit.learn(operator, tried.gain);
            }
        }
    }
}

impl StrategyTable {
    fn sentence(&self) -> String {
        let means: Vec<String> =
            self.strategies.iter().map(|row| format!("{} {:.2}", row.name, row.mean)).collect();
        format!("{} calls on {} briefs each: {}", self.budget_calls, self.briefs, means.join(", "))
    }

    /// For people.
    pub fn text(&self) -> String {
        let mut text = format!(
            "{} calls on each of {} briefs; agent `{}`, teacher `{}`\n\n{:<12}{:>7}{:>8}{:>12}\n",
            self.budget_calls, self.briefs, self.agent, self.teacher, "strategy", "score", "calls", "cost"
        );
        for row in &self.strategies {
            text.push_str(&format!(
                "{:<12}{:>7.2}{:>8}{:>12}\n",
                row.name,
                row.mean,
                row.calls,
                price::said(row.usd)
            ));
        }
        for found in &self.differences {
            let (Some(mean), Some(low), Some(high)) = (found.mean, found.low, found.high) else { continue };
            let p = found.p.map(|p| format!(", p = {p:.3}")).unwrap_or_default();
            text.push_str(&format!("\n{} - {}: {mean:+.2} [{low:+.2}, {high:+.2}]{p}", found.a, found.b));
        }
        text
    }
}
