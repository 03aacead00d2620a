//! The search for one brief: drafts by the agent, improvements by the teacher, the best of the archive as result.

use std::{collections::BTreeSet, time::Instant};

use super::{
    composer::{Composer, Operator, Parent},
    log::{LogEntry, LogUsage, Pair},
    run::EvolveError,
    teach,
};
use crate::{
    agent::{self, Agent, Candidate, Reply},
    brief::Brief,
    critic::{Choice, Contender, Critic, GuidelineStore, Issue, Level, Retrieved},
    model::wire::Finish,
};

/// What the log calls the agent's own replies.
const DRAFT: &str = "draft";
/// Two gains in a row below this end a search: repeated evaluations of one app differ by less.
const REPEAT_NOISE: f64 = 0.1;
/// From this score on a candidate may become a training example, so it is looked at as closely as the critic can.
const WORTH_A_LOOK: f64 = 7.0;
/// Scores that differ by no more than this say little about which app is better; a judge is asked then.
const NEAR: f64 = 0.3;
/// Candidates that a judge chooses between at most.
const NEAR_MOST: usize = 3;
/// Candidates that the teacher proposes in one round, each by an operator of its own.
const PROPOSALS: usize = 2;

/// What improves candidates.
pub enum Teacher {
    /// The embedded expert system.
    Composer(Composer),
    /// A chat model that is given the critique.
    Model(Box<Agent>),
}

impl Teacher {
    pub fn name(&self) -> &str {
        match self {
            Self::Composer(_) => "composer",
            Self::Model(agent) => &agent.model,
        }
    }
}

/// How a search is run.
#[derive(Clone, Debug, PartialEq)]
pub struct Options {
    /// Score (0-10) at which a search stops, when a fresh evaluation confirms it.
    pub target_score: f64,
    /// Improvement rounds after the drafts.
    pub max_iterations: u32,
    /// Candidates scored.
    pub max_evaluations: u32,
    pub drafts: u32,
    pub seed: u64,
    pub round: u32,
}

/// What a search found.
pub struct Found {
    pub history: Vec<LogEntry>,
    /// `iteration` of the best.
    pub best: u32,
    /// Its score on a fresh and full look.
    pub score: f64,
    pub target_reached: bool,
    /// Choices of the judge.
    pub pairs: Vec<Pair>,
}

/// One search under way.
pub struct Search<'a> {
    brief: &'a Brief,
    agent: &'a Agent,
    teacher: &'a Teacher,
    critic: &'a Critic,
    guidelines: &'a GuidelineStore,
    options: &'a Options,
    history: Vec<LogEntry>,
    /// Iterations whose scores are those of a second, fresh and full look.
    shown: BTreeSet<u32>,
}

impl<'a> Search<'a> {
    pub fn new(
        brief: &'a Brief,
        agent: &'a Agent,
        teacher: &'a Teacher,
        critic: &'a Critic,
        guidelines: &'a GuidelineStore,
        options: &'a Options,
    ) -> Self {
        let (history, shown) = (Vec::new(), BTreeSet::new());
        Self { brief, agent, teacher, critic, guidelines, options, history, shown }
    }

    /// Drafts, then rounds of proposals until the target holds on a fresh evaluation, gains dry up, or the limits are
    /// reached.
    pub async fn run(mut self) -> Result<Found, EvolveError> {
        for draft in 0..self.options.drafts {
            self.draft(draft).await?;
        }
        let mut small_gains = 0;
        for round in 0..self.options.max_iterations {
            let before = self.best_score();
            for operator in self.operators(round) {
                if self.history.len() as u32 >= self.options.max_evaluations {
                    break;
                }
                self.propose(operator).await?;
            }
            if self.confirmed().await? {
                break;
            }
            small_gains = if self.best_score() - before < REPEAT_NOISE { small_gains + 1 } else { 0 };
            if small_gains == 2 || self.history.len() as u32 >= self.options.max_evaluations {
                break;
            }
        }
        self.show().await?;
        let (pairs, best) = self.choose().await?;
        let best = self.history.iter().find(|entry| Some(entry.iteration) == best);
        let (best, score) = best.map_or((0, 0.0), |entry| (entry.iteration, entry.critique.overall_score));
        let target_reached = score >= self.options.target_score;
        Ok(Found { history: self.history, best, score, target_reached, pairs })
    }

    /// The best by score; of those that are nearly as good and reach the target if it does, the one that the judge prefers,
    /// where there is a judge.
    async fn choose(&self) -> Result<(Vec<Pair>, Option<u32>), EvolveError> {
        let Some(top) = self.best_shown() else { return Ok((Vec::new(), None)) };
        let reaches = |entry: &LogEntry| entry.critique.overall_score >= self.options.target_score;
        let near = |entry: &&LogEntry| {
            self.shown.contains(&entry.iteration)
                && self.compares(entry)
                && reaches(entry) == reaches(top)
                && top.critique.overall_score - entry.critique.overall_score <= NEAR
        };
        let (mut best, mut pairs) = (top, Vec::new());
        let Some(judge) = self.critic.judge().filter(|_| self.compares(top)) else {
            return Ok((pairs, Some(top.iteration)));
        };
        let others = self.ranked().into_iter().filter(near).filter(|entry| entry.iteration != top.iteration);
        for other in others.take(NEAR_MOST - 1) {
            let apps = [best, other].map(|entry| Candidate { files: entry.files.clone() });
            let preference =
                judge.prefer(self.brief, contender(best, &apps[0]), contender(other, &apps[1])).await?;
            pairs.push(Pair { first: best.iteration, second: other.iteration, preference });
            if preference.better == Choice::Second {
                best = other;
            }
        }
        Ok((pairs, Some(best.iteration)))
    }

    /// Its score is one of this critic. That of a candidate on which the judge was absent is not, so it comes after all that are.
    fn compares(&self, entry: &LogEntry) -> bool {
        entry.critique.critic == self.critic.version()
    }

    /// One honest reply of the agent, scored.
    async fn draft(&mut self, draft: u32) -> Result<(), EvolveError> {
        let started = Instant::now();
        let seed = self.call_seed(draft);
        let reply = self.agent.reply(&agent::messages(self.brief), seed).await?;
        let usage = LogUsage::of(reply.usage, reply.usd);
        let candidate = candidate_of(&reply);
        let (model, operator) = (self.agent.model.clone(), DRAFT);
        let (shown, finish) = (Retrieved::default(), reply.finish);
        self.judge(Made { candidate, operator, parents: vec![], model, usage, shown, finish, started }).await
    }

    /// Operators of a round. The first round writes two different apps from the brief, after mending a draft that is
    /// worth mending; later rounds work on what the archive has.
    fn operators(&self, round: u32) -> Vec<Operator> {
        if round > 0 {
            let pairs = [[Operator::Revise, Operator::Merge], [Operator::Restart, Operator::Restyle]];
            return pairs[(round as usize - 1) % pairs.len()].into();
        }
        let worth_mending =
            self.ranked().first().is_some_and(|entry| entry.evidence.ui_first() && !entry.evidence.runs());
        let repair = worth_mending.then_some(Operator::Repair);
        let fresh = [Operator::Restart, Operator::Restyle];
        debug_assert_eq!(fresh.len(), PROPOSALS);
        repair.into_iter().chain(fresh).collect()
    }

    async fn propose(&mut self, operator: Operator) -> Result<(), EvolveError> {
        let started = Instant::now();
        let ranked = self.ranked();
        let parents: Vec<&LogEntry> = match operator {
            Operator::Restart => vec![],
            Operator::Merge => ranked.into_iter().take(2).collect(),
            Operator::Repair | Operator::Revise | Operator::Restyle => ranked.into_iter().take(1).collect(),
        };
        let numbers = parents.iter().map(|entry| entry.iteration).collect();
        let candidates: Vec<Candidate> =
            parents.iter().map(|entry| Candidate { files: entry.files.clone() }).collect();
        let (candidate, usage, shown, finish) = match self.teacher {
            Teacher::Composer(composer) => {
                let parents: Vec<Parent<'_>> = parents
                    .iter()
                    .zip(&candidates)
                    .map(|(entry, candidate)| Parent {
                        candidate,
                        critique: &entry.critique,
                        evidence: &entry.evidence,
                    })
                    .collect();
                let candidate = composer.propose(self.brief, operator, self.attempt(), &parents);
                (candidate, LogUsage::default(), Retrieved::default(), Finish::Complete)
            }
            Teacher::Model(model) => {
                let shown = self.guidelines_for(&parents).await?;
                let messages = teach::messages(self.brief, operator, &parents, &shown.guidelines);
                let seed = self.call_seed(1000 + self.history.len() as u32);
                let reply = model.reply(&messages, seed).await?;
                if is_refused(&reply.finish) {
                    // There is nothing to look at, and asking again would be answered the same.
                    return Ok(());
                }
                (candidate_of(&reply), LogUsage::of(reply.usage, reply.usd), shown, reply.finish)
            }
        };
        if self.history.iter().any(|entry| entry.files == candidate.files) {
            return Ok(());
        }
        let model = self.teacher.name().to_owned();
        let operator = operator.as_str();
        self.judge(Made { candidate, operator, parents: numbers, model, usage, shown, finish, started }).await
    }

    /// What a teacher who improves these apps is shown of the guidelines; a fresh app is asked for as the agent is.
    async fn guidelines_for(&self, parents: &[&LogEntry]) -> Result<Retrieved, EvolveError> {
        if parents.is_empty() {
            return Ok(Retrieved::default());
        }
        let issues: Vec<&Issue> = parents.iter().flat_map(|parent| teach::shown_issues(parent)).collect();
        Ok(self.guidelines.for_prompt(self.brief, &issues, teach::SHOWN_GUIDELINES).await?)
    }

    /// Proposals of the teacher so far: each asks the composer for another plan. A round goes on one past
    /// what the one before it can have used, which also shifts the composer's four layouts.
    fn attempt(&self) -> u32 {
        let earlier = self.options.round.saturating_sub(1) * (self.options.max_evaluations + 1);
        earlier + self.history.iter().filter(|entry| entry.operator != DRAFT).count() as u32
    }

    fn call_seed(&self, call: u32) -> u64 {
        draft_seed(self.options.seed, self.brief.id.as_str(), call, self.options.round)
    }

    /// Scores a candidate without the browser: most of a search's candidates are not worth its time.
    async fn judge(&mut self, made: Made) -> Result<(), EvolveError> {
        let (evidence, critique) = self.critic.critique_to(self.brief, &made.candidate, Level::Run).await?;
        let ui_code = made.candidate.main().map(|file| file.content.clone()).unwrap_or_default();
        self.history.push(LogEntry {
            iteration: self.history.len() as u32 + 1,
            operator: made.operator.into(),
            parents: made.parents,
            model: made.model,
            files: made.candidate.files,
            ui_code,
            critique,
            evidence,
            usage: made.usage,
            guidelines: made.shown.guidelines.iter().map(|guideline| guideline.id.clone()).collect(),
            guidelines_unknown: made.shown.unknown,
            finish_reason: (made.finish != Finish::Complete).then(|| made.finish.as_str().to_owned()),
            took_ms: made.started.elapsed().as_millis() as u64,
        });
        Ok(())
    }

    /// Whether the target is met, and still is on a fresh and full look.
    async fn confirmed(&mut self) -> Result<bool, EvolveError> {
        if self.best_score() < self.options.target_score {
            return Ok(false);
        }
        self.show().await?;
        Ok(self.best_shown().is_some_and(|best| best.critique.overall_score >= self.options.target_score))
    }

    /// Looks once more, as closely as the critic can, at what the log will be read for: the drafts, the best, and all that
    /// may be taught. The fresh score replaces the first one, because a best of many is biased upwards.
    async fn show(&mut self) -> Result<(), EvolveError> {
        let best = self.ranked().first().map(|entry| entry.iteration);
        for at in 0..self.history.len() {
            let entry = &self.history[at];
            let due = entry.operator == DRAFT
                || Some(entry.iteration) == best
                || entry.critique.overall_score >= WORTH_A_LOOK;
            if due && !self.shown.contains(&entry.iteration) {
                let candidate = Candidate { files: entry.files.clone() };
                let (evidence, critique) = self.critic.critique(self.brief, &candidate).await?;
                let entry = &mut self.history[at];
                (entry.evidence, entry.critique) = (evidence, critique);
                self.shown.insert(entry.iteration);
            }
        }
        Ok(())
    }

    fn best_shown(&self) -> Option<&LogEntry> {
        self.ranked().into_iter().find(|entry| self.shown.contains(&entry.iteration))
    }

    /// The archive, best first; of equals the earlier.
    fn ranked(&self) -> Vec<&LogEntry> {
        let mut ranked: Vec<&LogEntry> = self.history.iter().collect();
        ranked.sort_by(|a, b| {
            let by_score = || b.critique.overall_score.total_cmp(&a.critique.overall_score);
            let first = self.compares(b).cmp(&self.compares(a));
            first.then_with(by_score).then(a.iteration.cmp(&b.iteration))
        });
        ranked
    }

    fn best_score(&self) -> f64 {
        self.ranked().first().map_or(0.0, |entry| entry.critique.overall_score)
    }
}

fn contender<'a>(entry: &'a LogEntry, candidate: &'a Candidate) -> Contender<'a> {
    Contender { candidate, evidence: &entry.evidence, critique: &entry.critique }
}

/// A candidate on its way to the critic.
struct Made {
    candidate: Candidate,
    operator: &'static str,
    parents: Vec<u32>,
    model: String,
    usage: LogUsage,
    /// What its writer was shown of the guidelines.
    shown: Retrieved,
    finish: Finish,
    started: Instant,
}

/// The model or its provider declined: whatever the text says, it is no app.
fn is_refused(finish: &Finish) -> bool {
    matches!(finish, Finish::Refused(_) | Finish::Filtered)
}

fn candidate_of(reply: &Reply) -> Candidate {
    if is_refused(&reply.finish) { Candidate::default() } else { agent::parse_reply(&reply.text) }
}

/// A seed of its own for every call, the same in every run. Kept below 2^31: protocols promise no more. The round is part
/// of it, so that a round after one that changed nothing still finds something new.
fn draft_seed(seed: u64, brief: &str, draft: u32, round: u32) -> u64 {
    use sha2::{Digest, Sha256};
    // The first round's seeds are those of logs from before rounds counted.
    let round = if round > 1 { format!("\n{round}") } else { String::new() };
    let digest = Sha256::digest(format!("{seed}\n{brief}\n{draft}{round}"));
    digest.iter().take(4).fold(0, |sum, byte| (sum << 8) | u64::from(*byte)) >> 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seeds_differ_by_brief_draft_and_round_and_stay() {
        let seeds = [
            draft_seed(1, "a", 0, 1),
            draft_seed(1, "a", 1, 1),
            draft_seed(1, "b", 0, 1),
            draft_seed(2, "a", 0, 1),
            draft_seed(1, "a", 0, 2),
            draft_seed(1, "a", 0, 3),
            draft_seed(1, "a", 1, 2),
        ];
        for (i, seed) in seeds.iter().enumerate() {
            assert!(*seed < 1 << 31);
            assert!(!seeds[..i].contains(seed));
        }
        // Journals and logs were written with these.
        assert_eq!((draft_seed(1, "a", 0, 1), draft_seed(1, "a", 1, 1)), (1_774_724_002, 2_131_564_167));
    }
}
