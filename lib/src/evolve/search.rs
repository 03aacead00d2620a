//! The search for one brief: drafts by the agent, improvements by the teacher, the best of the archive as result.

use std::{collections::BTreeSet, time::Instant};

use super::{
    bandit::{self, Bandit},
    composer::{Composer, Operator, Parent},
    import::Imports,
    log::{LogEntry, LogUsage, Pair},
    run::EvolveError,
    strategy::Fixed,
    teach,
};
use crate::{
    agent::{self, Candidate, Prompts, Reply, Writer},
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
/// After two proposals that gained less than this each, a fresh app may do better than another change.
const STUCK: f64 = 0.3;
/// Where seeds of teachers' calls and of the bandit's choices begin, so that they are not those of drafts.
const TEACHER_SEEDS: u32 = 1000;
const CHOICE_SEEDS: u32 = 1_000_000;

/// What improves candidates.
pub enum Teacher {
    /// The embedded expert system.
    Composer(Composer),
    /// A chat model, or the user's own program, that is given the critique.
    Model(Box<Writer>),
}

impl Teacher {
    pub fn name(&self) -> &str {
        match self {
            Self::Composer(_) => "composer",
            Self::Model(writer) => writer.model(),
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
    /// What agent and teacher are asked with.
    pub prompts: Prompts,
    /// Replies that take the place of drafts.
    pub imports: Imports,
    /// Another way to search, for so many calls; none for the search that this module is about.
    pub fixed: Option<Fixed>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            target_score: 8.0,
            max_iterations: 4,
            max_evaluations: 12,
            drafts: 2,
            seed: 1,
            round: 1,
            prompts: Prompts::default(),
            imports: Imports::default(),
            fixed: None,
        }
    }
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
    /// Replies of the agent and proposals of the teacher.
    pub calls: u32,
    /// What the teacher was asked for, and what each brought.
    pub tried: Vec<(Operator, f64)>,
    /// Times that the teacher declined.
    pub declined: u32,
}

/// One search under way.
pub struct Search<'a> {
    pub(super) brief: &'a Brief,
    agent: &'a Writer,
    teacher: &'a Teacher,
    pub(super) critic: &'a Critic,
    guidelines: &'a GuidelineStore,
    options: &'a Options,
    /// What earlier searches taught about operators; used when the teacher is a model.
    learnt: &'a Bandit,
    pub(super) history: Vec<LogEntry>,
    /// Iterations whose scores are those of a second, fresh and full look.
    shown: BTreeSet<u32>,
    /// What the teacher was asked for here, and what each brought. A reply that was refused or a copy brought nothing.
    tried: Vec<(Operator, f64)>,
    /// Replies of the agent and proposals of the teacher, with or without a candidate in them.
    calls: u32,
    declined: u32,
}

/// Everything that a search needs beside its brief.
#[derive(Clone, Copy)]
pub struct Means<'a> {
    pub agent: &'a Writer,
    pub teacher: &'a Teacher,
    pub critic: &'a Critic,
    pub guidelines: &'a GuidelineStore,
    pub options: &'a Options,
    pub learnt: &'a Bandit,
}

impl<'a> Search<'a> {
    pub fn new(brief: &'a Brief, means: Means<'a>) -> Self {
        let Means { agent, teacher, critic, guidelines, options, learnt } = means;
        let (history, shown, tried) = (Vec::new(), BTreeSet::new(), Vec::new());
        Self {
            brief,
            agent,
            teacher,
            critic,
            guidelines,
            options,
            learnt,
            history,
            shown,
            tried,
            calls: 0,
            declined: 0,
        }
    }

    /// Drafts, then rounds of proposals until the target holds on a fresh evaluation, gains dry up, or the limits are
    /// reached; or another strategy, where the options say so.
    pub async fn run(mut self) -> Result<Found, EvolveError> {
        if let Some(fixed) = self.options.fixed {
            return self.run_fixed(fixed).await;
        }
        self.tree().await?;
        self.show().await?;
        let (pairs, best) = self.choose().await?;
        Ok(self.found(best.unwrap_or(0), pairs))
    }

    pub(super) fn found(self, best: u32, pairs: Vec<Pair>) -> Found {
        let entry = self.history.iter().find(|entry| entry.iteration == best);
        let (best, score) = entry.map_or((0, 0.0), |entry| (entry.iteration, entry.critique.overall_score));
        let target_reached = score >= self.options.target_score;
        let Self { history, tried, calls, declined, .. } = self;
        Found { history, best, score, target_reached, pairs, calls, tried, declined }
    }

    /// Drafts and rounds of proposals.
    pub(super) async fn tree(&mut self) -> Result<(), EvolveError> {
        self.drafts().await?;
        let mut small_gains = 0;
        // At a fixed number of calls these are what ends a search.
        let rounds = if self.options.fixed.is_some() { u32::MAX } else { self.options.max_iterations };
        for round in 0..rounds {
            let before = self.best_score();
            for planned in self.planned(round) {
                if self.is_spent() {
                    break;
                }
                let operator = planned.unwrap_or_else(|| self.pick());
                let parents = self.parents(operator);
                self.propose(operator, parents).await?;
            }
            if self.options.fixed.is_some() {
                if self.is_spent() {
                    break;
                }
                continue;
            }
            if self.confirmed().await? {
                break;
            }
            small_gains = if self.best_score() - before < REPEAT_NOISE { small_gains + 1 } else { 0 };
            if small_gains == 2 || self.is_spent() {
                break;
            }
        }
        Ok(())
    }

    /// Whether a limit forbids another candidate.
    pub(super) fn is_spent(&self) -> bool {
        match self.options.fixed {
            Some(fixed) => self.calls >= fixed.calls,
            None => self.history.len() as u32 >= self.options.max_evaluations,
        }
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

    /// The agent's drafts. One that a limit cut teaches nothing, so another is drawn for it; at a fixed number of calls every
    /// draft counts, and of the second ones too many would be cut.
    async fn drafts(&mut self) -> Result<(), EvolveError> {
        let wanted = self.options.drafts as usize;
        let most = if self.options.fixed.is_some() { wanted } else { 2 * wanted };
        while self.history.len() < most && !self.is_spent() {
            let cut = self.history.iter().filter(|entry| entry.is_cut()).count();
            if self.history.len() - cut >= wanted {
                break;
            }
            self.draft().await?;
        }
        Ok(())
    }

    /// One honest reply of the agent, scored: one that was imported, while there are any, or a new one.
    pub(super) async fn draft(&mut self) -> Result<(), EvolveError> {
        let started = Instant::now();
        let draft = self.history.iter().filter(|entry| entry.operator == DRAFT).count() as u32;
        let drafted = |candidate, model, usage, finish| Made {
            candidate,
            operator: DRAFT,
            parents: vec![],
            model,
            usage,
            shown: Retrieved::default(),
            finish,
            started,
        };
        self.calls += 1;
        if let Some(import) = self.options.imports.reply(&self.brief.id, draft) {
            let candidate = agent::parse_reply(&import.reply);
            let made = drafted(candidate, import.model.clone(), LogUsage::default(), Finish::Complete);
            return self.judge(made).await;
        }
        let messages = self.options.prompts.ask(self.brief)?;
        let reply = self.agent.reply(self.brief, &messages, self.call_seed(draft)).await?;
        let usage = LogUsage::of(reply.usage, reply.usd);
        let made = drafted(candidate_of(&reply), self.agent.model().to_owned(), usage, reply.finish);
        self.judge(made).await
    }

    /// What a round tries, in turn; none where the bandit picks when it comes to it.
    ///
    /// The composer's first round writes two different apps from the brief, after mending a draft that is worth mending;
    /// its later rounds work on what the archive has.
    fn planned(&self, round: u32) -> Vec<Option<Operator>> {
        if let Teacher::Model(_) = self.teacher {
            return vec![None; PROPOSALS];
        }
        if round > 0 {
            let pairs = [[Operator::Revise, Operator::Merge], [Operator::Restart, Operator::Restyle]];
            return pairs[(round as usize - 1) % pairs.len()].map(Some).into();
        }
        let worth_mending =
            self.ranked().first().is_some_and(|entry| entry.evidence.ui_first() && !entry.evidence.runs());
        let repair = worth_mending.then_some(Operator::Repair);
        repair.into_iter().chain([Operator::Restart, Operator::Restyle]).map(Some).collect()
    }

    /// The operator that the bandit picks, from what earlier briefs and this one have shown.
    fn pick(&self) -> Operator {
        let mut bandit = self.learnt.clone();
        for (operator, gain) in &self.tried {
            bandit.learn(*operator, *gain);
        }
        let seed = self.call_seed(CHOICE_SEEDS + self.tried.len() as u32);
        bandit.choose(&self.eligible(), seed).unwrap_or(Operator::Restart)
    }

    /// What can be tried: a repair where there is a crash, a merge of two, and a fresh start where there is no app yet or
    /// changes bring nothing.
    fn eligible(&self) -> Vec<Operator> {
        let apps = self.apps();
        let Some(best) = apps.first() else { return vec![Operator::Restart] };
        let crashes = best.evidence.run.is_some() && !best.evidence.runs();
        let stuck = matches!(self.tried.as_slice(), [.., (_, a), (_, b)] if a.max(*b) < STUCK);
        let can = |operator| match operator {
            Operator::Revise | Operator::Restyle => true,
            Operator::Repair => crashes,
            Operator::Merge => apps.len() >= 2,
            Operator::Restart => stuck,
        };
        Operator::ALL.into_iter().filter(|operator| can(*operator)).collect()
    }

    /// Candidates with something in them, best first. The composer knows what to do with none.
    fn apps(&self) -> Vec<&LogEntry> {
        let needed = matches!(self.teacher, Teacher::Model(_));
        self.ranked().into_iter().filter(|entry| !needed || !entry.files.is_empty()).collect()
    }

    /// What an operator works on: of the archive's best as many as it takes.
    fn parents(&self, operator: Operator) -> Vec<u32> {
        let wanted = match operator {
            Operator::Restart => 0,
            Operator::Merge => 2,
            Operator::Repair | Operator::Revise | Operator::Restyle => 1,
        };
        self.apps().into_iter().take(wanted).map(|entry| entry.iteration).collect()
    }

    /// Asks the teacher once. A copy of what is there, and a refusal, add nothing.
    pub(super) async fn propose(&mut self, operator: Operator, parents: Vec<u32>) -> Result<(), EvolveError> {
        self.calls += 1;
        let known = self.history.len();
        let proposal = self.proposal(operator, parents).await?;
        self.declined += u32::from(proposal.is_none());
        if let Some(made) = proposal
            && !self.history.iter().any(|entry| entry.files == made.candidate.files)
        {
            self.judge(made).await?;
        }
        let gain = match self.history.split_last() {
            Some((new, before)) if before.len() == known => bandit::gain(new, before),
            _ => 0.0,
        };
        self.tried.push((operator, gain));
        Ok(())
    }

    /// What the teacher writes; none when it declines.
    async fn proposal(&self, operator: Operator, numbers: Vec<u32>) -> Result<Option<Made>, EvolveError> {
        let started = Instant::now();
        let of = |number: &u32| self.history.iter().find(|entry| entry.iteration == *number);
        let parents: Vec<&LogEntry> = numbers.iter().filter_map(of).collect();
        let (candidate, usage, shown, finish) = match self.teacher {
            Teacher::Composer(composer) => {
                let candidate = self.compose(composer, operator, &parents);
                (candidate, LogUsage::default(), Retrieved::default(), Finish::Complete)
            }
            Teacher::Model(model) => {
                let shown = self.guidelines_for(&parents).await?;
                let prompts = &self.options.prompts;
                let messages = teach::messages(prompts, self.brief, operator, &parents, &shown.guidelines)?;
                let seed = self.call_seed(TEACHER_SEEDS + self.tried.len() as u32);
                let reply = model.reply(self.brief, &messages, seed).await?;
                if is_refused(&reply.finish) {
                    return Ok(None);
                }
                (candidate_of(&reply), LogUsage::of(reply.usage, reply.usd), shown, reply.finish)
            }
        };
        let (model, operator) = (self.teacher.name().to_owned(), operator.as_str());
        Ok(Some(Made { candidate, operator, parents: numbers, model, usage, shown, finish, started }))
    }

    fn compose(&self, composer: &Composer, operator: Operator, parents: &[&LogEntry]) -> Candidate {
        let candidates: Vec<Candidate> =
            parents.iter().map(|entry| Candidate { files: entry.files.clone() }).collect();
        let parents: Vec<Parent<'_>> = parents
            .iter()
            .zip(&candidates)
            .map(|(entry, candidate)| Parent {
                candidate,
                critique: &entry.critique,
                evidence: &entry.evidence,
            })
            .collect();
        composer.propose(self.brief, operator, self.attempt(), &parents)
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
            fresh: false,
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
                (entry.evidence, entry.critique, entry.fresh) = (evidence, critique, true);
                self.shown.insert(entry.iteration);
            }
        }
        Ok(())
    }

    fn best_shown(&self) -> Option<&LogEntry> {
        self.ranked().into_iter().find(|entry| self.shown.contains(&entry.iteration))
    }

    /// The archive, best first; of equals the earlier.
    pub(super) fn ranked(&self) -> Vec<&LogEntry> {
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
