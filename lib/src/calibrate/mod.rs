//! How far the critic's scores can be trusted, measured: apps without fault are spoiled in known ways, and the scores
//! have to fall accordingly; and where people compared apps, whether the critic agrees with them.

mod anchors;
mod degrade;
mod offers;
mod page;
mod pairs;
mod report;
mod source;

use std::collections::BTreeMap;

use futures::{StreamExt, TryStreamExt, stream};
use rand::{SeedableRng, rngs::ChaCha8Rng, seq::SliceRandom};
use sha2::{Digest, Sha256};

pub use self::{
    anchors::{Anchor, Looks, anchors},
    degrade::Grade,
    offers::{Offer, Ratings, Wins, offers, ratings},
    page::{page, terminal},
    pairs::{Agreement, Pair, PairsError, Rater, read_pairs},
    report::{Calibration, ClassReport, Length, Noise, Score, Target, summarise},
};
use self::{degrade::Change, source::Source};
use crate::{
    agent::{Candidate, SourceFile},
    brief::Brief,
    cancel::Cancel,
    critic::{Critic, CriticError, on_deep_stack},
    event::{Event, Events, Phase},
};

/// Apps with a lower score are not without fault: a fall from there says little.
const CLEAN: f64 = 7.0;

/// An app that is taken to be good.
#[derive(Clone, Debug)]
pub struct App {
    pub name: String,
    pub brief: Brief,
    pub candidate: Candidate,
}

/// How much is measured.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    pub seed: u64,
    /// Looks at each clean app.
    pub repeats: u32,
}

/// One look to take.
struct Unit {
    app: usize,
    /// None: the app as it is.
    class: Option<usize>,
    candidate: Candidate,
}

/// Spoils the apps in every way that applies, and scores them all.
///
/// # Errors
/// The critic cannot look, or was told to stop.
pub async fn calibrate(
    critic: &Critic,
    apps: &[App],
    options: Options,
    events: &Events,
    cancel: &Cancel,
) -> Result<Calibration, CriticError> {
    let units = on_deep_stack(|| plan(apps, options))
        .map_err(|e| CriticError::Internal(format!("cannot start a thread: {e}")))?;
    let total = units.len() as u64;
    events.emit(Event::Begin { phase: Phase::Calibrate, total: Some(total) });
    let mut looks = stream::iter(units)
        .map(|unit| async move {
            let (_, critique) = critic.critique(&apps[unit.app].brief, &unit.candidate).await?;
            Ok::<_, CriticError>(score_of(apps, &unit, critique.overall_score))
        })
        .buffer_unordered(critic.workers());
    let mut scores: Vec<Score> = Vec::new();
    loop {
        let next = tokio::select! {
            () = cancel.cancelled() => return Err(CriticError::Cancelled),
            next = looks.try_next() => next?,
        };
        let Some(score) = next else { break };
        let note =
            format!("{} {} {:.1}", score.app, score.class.as_deref().unwrap_or("as it is"), score.score);
        scores.push(score);
        events.emit(Event::Progress {
            phase: Phase::Calibrate,
            done: scores.len() as u64,
            total: Some(total),
            note,
        });
    }
    let summary = summarise(critic.version(), critic.level(), scores);
    events.emit(Event::End { phase: Phase::Calibrate, summary: summary.sentence() });
    Ok(summary)
}

fn score_of(apps: &[App], unit: &Unit, score: f64) -> Score {
    let entry = &unit.candidate.files.first().map(|file| file.content.as_str()).unwrap_or_default();
    Score {
        app: apps[unit.app].name.clone(),
        class: unit.class.map(|class| degrade::CLASSES[class].name.to_owned()),
        score,
        lines: entry.lines().count(),
        characters: entry.chars().count(),
    }
}

/// Every app as often as it is repeated, and once with each fault, in an order that spreads what drifts meanwhile.
fn plan(apps: &[App], options: Options) -> Vec<Unit> {
    let mut units = Vec::new();
    for (at, app) in apps.iter().enumerate() {
        for _ in 0..options.repeats.max(1) {
            units.push(Unit { app: at, class: None, candidate: app.candidate.clone() });
        }
        for (class, candidate) in degraded(apps, at, options.seed) {
            units.push(Unit { app: at, class: Some(class), candidate });
        }
    }
    units.shuffle(&mut ChaCha8Rng::seed_from_u64(options.seed));
    units
}

/// The app with each fault that can be put into it.
fn degraded(apps: &[App], at: usize, seed: u64) -> Vec<(usize, Candidate)> {
    let app = &apps[at];
    let entry = app.candidate.files.iter().position(|file| file.path.ends_with(".py"));
    let Some((place, file)) = entry.map(|place| (place, &app.candidate.files[place])) else {
        return Vec::new();
    };
    let Some(source) = Source::parse(&file.content) else { return Vec::new() };
    let spoil = |(class, fault): (usize, &degrade::Class)| {
        let mut draw = ChaCha8Rng::from_seed(seed_of(seed, &app.name, fault.name));
        let files = match fault.change {
            Change::Source(change) => {
                let content = change(&source, &mut draw).filter(|content| *content != file.content)?;
                let mut files = app.candidate.files.clone();
                files[place] = SourceFile { path: file.path.clone(), content };
                files
            }
            Change::Files(make) => make(),
            Change::OtherApp => other(apps, at)?.candidate.files.clone(),
        };
        Some((class, Candidate { files }))
    };
    degrade::CLASSES.iter().enumerate().filter_map(spoil).collect()
}

/// The next app that was asked to be of another kind.
fn other(apps: &[App], at: usize) -> Option<&App> {
    let brief = &apps[at].brief;
    let following = (1..apps.len()).map(|step| &apps[(at + step) % apps.len()]);
    let differs = |app: &&App| app.brief.kind != brief.kind || brief.kind.is_empty();
    following.filter(differs).find(|app| app.brief.family != brief.family)
}

fn seed_of(seed: u64, app: &str, fault: &str) -> [u8; 32] {
    Sha256::digest(format!("{seed}/{app}/{fault}")).into()
}

/// Scores both apps of every pair.
///
/// # Errors
/// The critic cannot look, or was told to stop.
pub async fn compare(
    critic: &Critic,
    pairs: &[Pair],
    events: &Events,
    cancel: &Cancel,
) -> Result<Agreement, CriticError> {
    let mut wanted: BTreeMap<(String, [u8; 32]), (&Brief, Candidate)> = BTreeMap::new();
    for pair in pairs {
        for side in [&pair.a, &pair.b] {
            wanted.entry(pairs::key(&pair.brief, side)).or_insert_with(|| (&pair.brief, side.clone()));
        }
    }
    let total = wanted.len() as u64;
    events.emit(Event::Begin { phase: Phase::Calibrate, total: Some(total) });
    let mut looks = stream::iter(wanted)
        .map(|(key, (brief, candidate))| async move {
            let (_, critique) = critic.critique(brief, &candidate).await?;
            Ok::<_, CriticError>((key, critique.overall_score))
        })
        .buffer_unordered(critic.workers());
    let mut scores = BTreeMap::new();
    loop {
        let next = tokio::select! {
            () = cancel.cancelled() => return Err(CriticError::Cancelled),
            next = looks.try_next() => next?,
        };
        let Some((key, score)) = next else { break };
        scores.insert(key, score);
        let done = scores.len() as u64;
        let note = format!("{score:.1}");
        events.emit(Event::Progress { phase: Phase::Calibrate, done, total: Some(total), note });
    }
    let agreement = pairs::agreement(pairs, &scores);
    let summary = format!("{} of {} pairs are decided as people did", agreement.agreed, agreement.decided);
    events.emit(Event::End { phase: Phase::Calibrate, summary });
    Ok(agreement)
}

#[cfg(test)]
mod tests;
