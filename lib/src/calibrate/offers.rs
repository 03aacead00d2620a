//! Pairs of apps for people to choose between, and what their choices say.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::pairs::{Agreement, Choices, Pair, Scores, Sides, compared, kappas, key};
use crate::{
    agent::Candidate,
    brief::Brief,
    evolve::{EvolutionLog, LogEntry, logs},
    rating::{self, PairId, Rating, Side, Source, Which},
    store::{Workspace, parse_lines, read_text},
    trial::{Arm, Row, TrialSpec, stats},
};

/// Scores no further apart than this are near equals: where the critic needs a person most.
const NEAR: f64 = 0.5;

/// Two apps for one brief. Which is which, only the record knows.
#[derive(Clone, Debug, PartialEq)]
pub struct Offer {
    pub source: Source,
    pub brief: Brief,
    pub a: Side,
    pub b: Side,
    /// Which of them is shown first: drawn by seed and rater.
    pub first: Which,
    /// Pictures of `a` and of `b`, where there are any.
    pub pictures: [Option<PathBuf>; 2],
}

impl Offer {
    /// The two as they are shown, with their pictures.
    pub fn shown(&self) -> [(&Side, Option<&PathBuf>); 2] {
        let [a, b] = [(&self.a, self.pictures[0].as_ref()), (&self.b, self.pictures[1].as_ref())];
        if self.first == Which::A { [a, b] } else { [b, a] }
    }

    /// The rating that an answer makes of it; `prefers` is about the two as they were shown.
    pub fn rated(self, prefers: rating::Choice, rater: &str, at: jiff::Timestamp) -> Rating {
        let prefers = if self.first == Which::A { prefers } else { prefers.turned() };
        Rating {
            format: rating::FORMAT.into(),
            version: rating::FORMAT_VERSION,
            at: at.to_string(),
            rater: rater.into(),
            source: self.source,
            brief: self.brief,
            a: self.a,
            b: self.b,
            prefers,
            shown_first: self.first,
        }
    }
}

/// What a person has still to compare, in an order of their own: pairs of evolution logs (the first draft against the best, and two
/// near equals), or a trial's tuned model against the one that it has to beat.
pub fn offers(
    workspace: &Workspace,
    trial: Option<&str>,
    rater: &str,
    seed: u64,
    rated: &[Rating],
) -> Vec<Offer> {
    let all = match trial {
        Some(id) => of_trial(workspace, id),
        None => of_logs(workspace),
    };
    let done: BTreeSet<[u8; 32]> = rated
        .iter()
        .filter(|rating| rating.rater == rater)
        .map(|rating| place(seed, "", &rating.source, &rating.brief, &rating.a, &rating.b))
        .collect();
    let place =
        |offer: &Offer, rater: &str| place(seed, rater, &offer.source, &offer.brief, &offer.a, &offer.b);
    let mut left: Vec<Offer> = all.into_iter().filter(|offer| !done.contains(&place(offer, ""))).collect();
    for offer in &mut left {
        offer.first = if place(offer, rater)[0] % 2 == 0 { Which::A } else { Which::B };
    }
    left.sort_by_cached_key(|offer| place(offer, rater));
    left
}

/// Where a pair stands in the order of a rater.
fn place(seed: u64, rater: &str, source: &Source, brief: &Brief, a: &Side, b: &Side) -> [u8; 32] {
    let side = |side: &Side| {
        let Side { arm, sample, log, iteration, model, .. } = side;
        serde_json::json!([arm, sample, log, iteration, model])
    };
    let what = serde_json::json!([seed, rater, source, brief.id.as_str(), side(a), side(b)]);
    Sha256::digest(what.to_string()).into()
}

fn of_logs(workspace: &Workspace) -> Vec<Offer> {
    let offers = logs(&workspace.logs()).flat_map(|(file, log)| {
        let side = |entry: &LogEntry| Side {
            model: entry.model.clone(),
            arm: None,
            sample: None,
            log: Some(file.clone()),
            iteration: Some(entry.iteration),
            score: Some(entry.critique.overall_score),
            files: entry.files.clone(),
        };
        let Some(brief) = brief_of(&log) else { return Vec::new() };
        let pair = |(a, b): (&LogEntry, &LogEntry)| Offer {
            source: Source::Logs,
            brief: brief.clone(),
            a: side(a),
            b: side(b),
            first: Which::A,
            pictures: [None, None],
        };
        pairs_of(&log).into_iter().map(pair).collect()
    });
    offers.collect()
}

fn brief_of(log: &EvolutionLog) -> Option<Brief> {
    let mut brief = Brief::from_description(&log.description).ok()?;
    brief.id = crate::brief::BriefId::new(log.id.clone()).ok()?;
    brief.kind.clone_from(&log.kind);
    brief.family.clone_from(&log.family);
    brief.requirements.clone_from(&log.requirements);
    Some(brief)
}

/// The first draft and the best; and the two near equals whose scores are closest.
fn pairs_of(log: &EvolutionLog) -> Vec<(&LogEntry, &LogEntry)> {
    let apps: Vec<&LogEntry> = log.evolution_history.iter().filter(|entry| !entry.files.is_empty()).collect();
    let best = apps.iter().find(|entry| entry.iteration == log.best_iteration);
    let draft = apps.iter().find(|entry| entry.operator == "draft");
    let mut pairs = Vec::new();
    if let (Some(draft), Some(best)) = (draft, best)
        && draft.files != best.files
    {
        pairs.push((*draft, *best));
    }
    let gap = |(a, b): &(&LogEntry, &LogEntry)| (a.critique.overall_score - b.critique.overall_score).abs();
    let all = apps.iter().enumerate().flat_map(|(at, a)| apps[at + 1..].iter().map(move |b| (*a, *b)));
    let near = all
        .filter(|pair| {
            gap(pair) <= NEAR && pair.0.files != pair.1.files && pair.0.critique.overall_score > 0.0
        })
        .filter(|(a, b)| !pairs.iter().any(|(c, d)| (c.iteration, d.iteration) == (a.iteration, b.iteration)))
        .min_by(|a, b| gap(a).total_cmp(&gap(b)));
    pairs.extend(near);
    pairs
}

#[derive(Deserialize)]
struct SpecFile {
    spec: TrialSpec,
}

/// Tuned against its reference, for each answer that both gave; nothing when there is no such trial.
fn of_trial(workspace: &Workspace, id: &str) -> Vec<Offer> {
    let folder = workspace.trials().join(id);
    let spec = read_text(&folder.join("spec.json")).ok();
    let Some(SpecFile { spec }) = spec.and_then(|text| serde_json::from_str(&text).ok()) else {
        return Vec::new();
    };
    let (lines, _) = parse_lines::<Row>(&read_text(&folder.join("results.jsonl")).unwrap_or_default());
    let rows: BTreeMap<(String, u32, String), Row> = lines
        .into_iter()
        .map(|line| ((line.value.brief.clone(), line.value.sample, line.value.arm.clone()), line.value))
        .collect();
    let side = |row: &Row| Side {
        model: row.model.clone(),
        arm: Some(row.arm.clone()),
        sample: Some(row.sample),
        log: None,
        iteration: None,
        score: Some(row.score),
        files: row.files.clone(),
    };
    let picture = |row: &Row| Some(folder.join("screenshots").join(row.picture()?));
    let mut offers = Vec::new();
    for brief in &spec.briefs {
        for sample in 0..spec.samples {
            let row = |arm: &str| rows.get(&(brief.id.to_string(), sample, arm.to_owned()));
            let (Some(a), Some(b)) = (row(spec.reference()), row(Arm::TUNED)) else { continue };
            if a.files == b.files {
                continue;
            }
            offers.push(Offer {
                source: Source::Trial(id.to_owned()),
                brief: brief.clone(),
                a: side(a),
                b: side(b),
                first: Which::A,
                pictures: [picture(a), picture(b)],
            });
        }
    }
    offers
}

/// What people's choices say, over all of them.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Ratings {
    pub n: usize,
    /// How often the later one wins: the best app over the first draft or a near equal, the tuned model over its reference.
    pub wins: Vec<Wins>,
    /// With the scores that the critic gave.
    pub critic: Agreement,
}

/// How often people prefer the later app, or the tuned model; ties count half.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Wins {
    /// `logs`, or the id of a trial.
    pub of: String,
    pub ratings: usize,
    /// Pairs that these are about, and their briefs.
    pub pairs: usize,
    pub briefs: usize,
    /// Ratings that prefer neither.
    pub ties: usize,
    /// Of the briefs: all ratings of one count as one, as in a trial's gate.
    pub rate: Option<f64>,
    /// 95%, Wilson.
    pub interval: Option<(f64, f64)>,
}

/// Sums opinions up, of which a person has one on a pair.
pub fn ratings(all: &[Rating]) -> Ratings {
    let mut groups: BTreeMap<String, Vec<&Rating>> = BTreeMap::new();
    for rating in all {
        let of = match &rating.source {
            Source::Logs => "logs".to_owned(),
            Source::Trial(id) => format!("trial {id}"),
        };
        groups.entry(of).or_default().push(rating);
    }
    let pairs: Vec<Pair> = all.iter().map(pair).collect();
    let scores: Scores = all
        .iter()
        .flat_map(|rating| [(rating, &rating.a), (rating, &rating.b)])
        .filter_map(|(rating, side)| Some((key(&rating.brief, &candidate(side)), side.score?)))
        .collect();
    let (mut wins, mut kappa) = (Vec::new(), Vec::new());
    for (of, ratings) in groups {
        let mut choices: Choices<'_, PairId> = Choices::new();
        for rating in &ratings {
            choices.entry(rating.pair()).or_default().insert(&rating.rater, rating.choice());
        }
        kappa.extend(kappas(Some(&of), &choices, Sides::Roles));
        wins.push(wins_of(of, &ratings, choices.len()));
    }
    Ratings { n: all.len(), wins, critic: Agreement { kappa, ..compared(&pairs, &scores) } }
}

fn wins_of(of: String, ratings: &[&Rating], pairs: usize) -> Wins {
    let share = stats::share_of_briefs(ratings.iter().map(|r| (r.brief.id.as_str(), r.choice().for_b())));
    Wins {
        of,
        ratings: ratings.len(),
        pairs,
        briefs: share.n,
        ties: ratings.iter().filter(|rating| rating.prefers == rating::Choice::Tie).count(),
        rate: share.rate,
        interval: share.interval,
    }
}

fn candidate(side: &Side) -> Candidate {
    Candidate { files: side.files.clone() }
}

fn pair(rating: &Rating) -> Pair {
    Pair {
        brief: rating.brief.clone(),
        a: candidate(&rating.a),
        b: candidate(&rating.b),
        prefers: rating.prefers,
        rater: rating.rater.clone(),
    }
}

impl Ratings {
    /// As plain text.
    pub fn text(&self) -> String {
        if self.n == 0 {
            return "no ratings".into();
        }
        let mut lines: Vec<String> = self.wins.iter().map(Wins::text).collect();
        lines.push(self.critic.text());
        lines.join("\n")
    }
}

impl Wins {
    fn text(&self) -> String {
        let Self { of, ratings, pairs, briefs, ties, rate, interval } = self;
        let (low, high) = interval.unwrap_or((0.0, 1.0));
        let what = if of == "logs" { "the later app" } else { "the tuned model" };
        format!(
            "{of}: {what} is preferred in {:.0}% [{:.0}%, {:.0}%] of {briefs} briefs ({pairs} pairs, {ratings} ratings, {ties} of them ties)",
            100.0 * rate.unwrap_or(0.5),
            100.0 * low,
            100.0 * high,
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::SourceFile;

    fn side(model: &str, iteration: u32, score: f64) -> Side {
        Side {
            model: model.into(),
            arm: None,
            sample: None,
            log: Some("form.json".into()),
            iteration: Some(iteration),
            score: Some(score),
            files: vec![SourceFile { path: "app.py".into(), content: format!("A = {iteration}\n") }],
        }
    }

    fn offer(first: Which) -> Offer {
        Offer {
            source: Source::Logs,
            brief: Brief::from_description("a form").unwrap(),
            a: side("base", 1, 2.0),
            b: side("composer", 3, 8.0),
            first,
            pictures: [Some("a.webp".into()), None],
        }
    }

    #[test]
    fn an_answer_is_about_what_was_shown_and_is_kept_by_side() {
        use rating::Choice::{A, B, Tie};
        let check = |first, answer, expected| {
            let rating = offer(first).rated(answer, "r", jiff::Timestamp::UNIX_EPOCH);
            assert_eq!((rating.prefers, rating.shown_first), (expected, first), "{answer:?}");
        };
        check(Which::A, A, A);
        check(Which::A, B, B);
        check(Which::B, A, B);
        check(Which::B, B, A);
        check(Which::B, Tie, Tie);
        let turned = offer(Which::B);
        let [(first, picture), (second, other)] = turned.shown();
        assert_eq!((first.model.as_str(), picture, second.model.as_str()), ("composer", None, "base"));
        assert_eq!(other, Some(&PathBuf::from("a.webp")));
    }

    #[test]
    fn choices_become_win_rates_agreement_and_kappa() {
        use rating::Choice::{A, B, Tie};
        let rated =
            |rater: &str, first, answer| offer(first).rated(answer, rater, jiff::Timestamp::UNIX_EPOCH);
        let all = [
            rated("x", Which::A, B),
            rated("y", Which::B, A),
            rated("z", Which::A, Tie),
            rated("w", Which::A, A),
        ];
        let sum = ratings(&all);
        let wins = &sum.wins[0];
        assert_eq!((sum.n, wins.ratings, wins.pairs, wins.briefs), (4, 4, 1, 1));
        assert_eq!((wins.ties, wins.rate), (1, Some(0.625)));
        assert_eq!((sum.critic.decided, sum.critic.agreed), (3, 2), "the critic scored the later one higher");
        assert_eq!(sum.critic.kappa.len(), 6, "each two raters saw the same pair");
        assert!(sum.text().starts_with("logs: the later app is preferred in 62% ["), "{}", sum.text());
        assert_eq!(ratings(&[]).text(), "no ratings");
    }

    /// Two people who each prefer the tuned model in 93 of 103 pairs of 59 briefs, and never object together.
    fn of_a_trial() -> Vec<Rating> {
        let side = |arm: &str, n: u32| Side {
            model: arm.into(),
            arm: Some(arm.into()),
            sample: Some(n / 59),
            log: None,
            iteration: None,
            score: Some(5.0),
            files: vec![SourceFile { path: "app.py".into(), content: format!("A = '{arm}-{n}'\n") }],
        };
        let rated = |n: u32, rater: &str, likes: bool| {
            let brief = Brief::from_description(&format!("a form of {}", n % 59)).unwrap();
            let (first, source) = (Which::A, Source::Trial("t-1".into()));
            let (a, b) = (side("base", n), side("tuned", n));
            let offer = Offer { source, brief, a, b, first, pictures: [None, None] };
            let choice = if likes { rating::Choice::B } else { rating::Choice::A };
            offer.rated(choice, rater, jiff::Timestamp::UNIX_EPOCH)
        };
        let two = |n| [rated(n, "x", n >= 10), rated(n, "y", !(10..20).contains(&n))];
        (0..103).flat_map(two).collect()
    }

    #[test]
    fn kappa_of_a_trial_is_about_the_models_not_about_sides() {
        let mut all = of_a_trial();
        let expected = {
            let (same, one) = (83.0 / 103.0, 93.0 / 103.0_f64);
            let chance = one.powi(2) + (1.0 - one).powi(2);
            (same - chance) / (1.0 - chance)
        };
        for turned in [false, true] {
            if turned {
                // Some of the lines name the tuned model first, as a file from elsewhere may.
                for rating in all.iter_mut().step_by(3) {
                    std::mem::swap(&mut rating.a, &mut rating.b);
                    rating.prefers = rating.prefers.turned();
                }
            }
            let sum = ratings(&all);
            let [kappa] = &sum.critic.kappa[..] else { panic!("one of two people") };
            assert_eq!((kappa.n, kappa.of.as_deref()), (103, Some("trial t-1")));
            assert!((kappa.kappa.unwrap() - expected).abs() < 1e-12 && expected < 0.0, "{kappa:?}");
        }
    }

    #[test]
    fn win_rates_are_of_briefs_however_many_opinions_there_are() {
        let all = of_a_trial();
        let wins = &ratings(&all).wins[0];
        assert_eq!((wins.ratings, wins.pairs, wins.briefs, wins.ties), (206, 103, 59, 0));
        let rate = wins.rate.unwrap();
        assert_eq!(wins.interval, stats::wilson(rate * 59.0, 59));
        let said = ratings(&all).text();
        assert!(said.contains("of 59 briefs (103 pairs, 206 ratings, 0 of them ties)"), "{said}");
        let one: Vec<Rating> = all.into_iter().filter(|rating| rating.rater == "x").collect();
        assert_eq!(ratings(&one).wins[0].briefs, 59);
    }

    fn entry(iteration: u32, operator: &str, score: f64) -> LogEntry {
        let files = vec![SourceFile { path: "app.py".into(), content: format!("A = {iteration}\n") }];
        let evidence = crate::critic::Evidence::default();
        let mut critique = crate::critic::score(&evidence);
        critique.overall_score = score;
        LogEntry {
            iteration,
            operator: operator.into(),
            parents: Vec::new(),
            model: "m".into(),
            files,
            ui_code: String::new(),
            critique,
            evidence,
            fresh: false,
            usage: crate::evolve::LogUsage::default(),
            guidelines: Vec::new(),
            guidelines_unknown: 0,
            finish_reason: None,
            took_ms: 0,
        }
    }

    /// A draft, and two good apps that are nearly equal.
    fn log(id: &str) -> EvolutionLog {
        EvolutionLog {
            format: crate::evolve::FORMAT.into(),
            version: crate::evolve::FORMAT_VERSION,
            id: id.into(),
            kind: "form".into(),
            family: id.into(),
            description: format!("a form of {id}"),
            requirements: Vec::new(),
            framework: "Streamlit".into(),
            target_score: 8.0,
            max_iterations: 4,
            seed: 1,
            critic: "3".into(),
            agent: "m".into(),
            teacher: "composer".into(),
            round: 1,
            evolution_history: vec![
                entry(1, "draft", 2.0),
                entry(2, "restart", 7.9),
                entry(3, "restyle", 8.0),
            ],
            initial_score: 2.0,
            final_score: 8.0,
            best_iteration: 3,
            improvement: 6.0,
            target_reached: true,
            total_iterations: 2,
            prompts: None,
            pairs: Vec::new(),
        }
    }

    #[test]
    fn what_a_rater_has_compared_is_not_offered_again_and_each_has_an_order() {
        let folder = tempfile::tempdir().unwrap();
        let workspace = Workspace::new(folder.path());
        for n in 0..12 {
            let id = format!("form-{n}");
            crate::store::write_json(&workspace.log(&id, 1), &log(&id)).unwrap();
        }
        let of = |rater: &str, rated: &[Rating]| offers(&workspace, None, rater, 1, rated);
        let all = of("x", &[]);
        assert_eq!(all.len(), 24, "draft against best, and the two near equals");
        assert_eq!(all, of("x", &[]), "a killed session goes on where it was");
        let order = |offers: &[Offer]| {
            offers.iter().map(|o| (o.brief.id.to_string(), o.a.iteration)).collect::<Vec<_>>()
        };
        assert_ne!(order(&all), order(&of("y", &[])), "another rater, another order");
        let firsts = all.iter().filter(|offer| offer.first == Which::A).count();
        assert!((4..=20).contains(&firsts), "{firsts} of 24 show `a` first");
        let rated: Vec<Rating> = all[..5]
            .iter()
            .map(|offer| offer.clone().rated(rating::Choice::A, "x", jiff::Timestamp::UNIX_EPOCH))
            .collect();
        assert_eq!(of("x", &rated), all[5..]);
        assert_eq!(of("y", &rated).len(), 24);
        assert_eq!(offers(&workspace, Some("t-none"), "x", 1, &[]), []);
    }
}
