//! From scores to what they say about the critic.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{CLEAN, Grade, degrade::CLASSES};
use crate::{critic::Level, trial::stats};

/// The score of an app as it is, or with a fault.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Score {
    pub app: String,
    /// None for the app as it is.
    pub class: Option<String>,
    /// 0-10.
    pub score: f64,
    pub lines: usize,
    pub characters: usize,
}

/// What a calibration found.
#[derive(Clone, Debug, Serialize)]
pub struct Calibration {
    pub format: &'static str,
    pub version: u32,
    pub critic: String,
    pub level: Level,
    /// Apps that are good enough to be spoiled.
    pub apps: usize,
    /// Those that are not: their own score is below 7.
    pub left_out: Vec<String>,
    pub classes: Vec<ClassReport>,
    pub noise: Noise,
    pub length: Length,
    pub targets: Vec<Target>,
    /// Spoiled apps that miss the target of their class.
    pub misses: Vec<Miss>,
}

/// One sort of fault over all apps.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ClassReport {
    pub class: String,
    pub grade: Grade,
    pub n: usize,
    /// Share of pairs in which the spoiled app scores lower, ties counting half, with its 95% Wilson interval.
    pub accuracy: f64,
    pub interval: Option<(f64, f64)>,
    pub lower: usize,
    /// At least one point lower.
    pub by_one: usize,
    pub higher: usize,
    pub mean_drop: f64,
    /// The highest score of a spoiled app.
    pub highest: f64,
}

/// Looks at the same app again and again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Noise {
    pub apps: usize,
    pub looks: usize,
    /// Standard deviations of an app's scores: the mean over apps and the largest.
    pub mean_sd: Option<f64>,
    pub largest_sd: Option<f64>,
}

/// Spearman's correlation of score and length.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Length {
    /// Over the apps as they are.
    pub clean_lines: Option<f64>,
    pub clean_characters: Option<f64>,
    /// Over the spoiled ones too.
    pub all_lines: Option<f64>,
    pub all_characters: Option<f64>,
}

/// What was asked of the critic.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Target {
    pub target: String,
    pub reached: bool,
    pub found: String,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Miss {
    pub class: String,
    pub app: String,
    pub clean: f64,
    pub spoiled: f64,
}

/// What a spoiled app may score at most where its page is gone, and where it ends in an exception.
const FATAL: f64 = 2.0;
const LATER: f64 = 4.5;
/// Two scores that are no further apart are the same.
const SAME: f64 = 0.005;

/// A spoiled app beside the one that it was.
struct Spoiled {
    class: &'static str,
    app: String,
    grade: Grade,
    score: f64,
    clean: f64,
}

impl Spoiled {
    fn lower(&self) -> bool {
        self.score < self.clean - SAME
    }

    fn higher(&self) -> bool {
        self.score > self.clean + SAME
    }

    fn by_one(&self) -> bool {
        self.score <= self.clean - 1.0 + SAME
    }

    /// As its grade asks for.
    fn as_it_should(&self) -> bool {
        match self.grade {
            Grade::Fatal => self.score <= FATAL,
            Grade::LaterCrash => self.score < LATER && self.by_one(),
            Grade::Major => self.by_one(),
            Grade::Minor => self.lower(),
            Grade::Neutral => !self.higher(),
        }
    }
}

/// Sums scores up. The order of the scores does not matter.
pub fn summarise(critic: &str, level: Level, mut scores: Vec<Score>) -> Calibration {
    scores.sort_by(|a, b| (&a.app, &a.class).cmp(&(&b.app, &b.class)).then(a.score.total_cmp(&b.score)));
    let mut looks: BTreeMap<&str, Vec<f64>> = BTreeMap::new();
    for score in scores.iter().filter(|score| score.class.is_none()) {
        looks.entry(&score.app).or_default().push(score.score);
    }
    let means: BTreeMap<&str, f64> =
        looks.iter().filter_map(|(app, scores)| Some((*app, stats::mean(scores.iter().copied())?))).collect();
    let (good, poor): (Vec<&str>, Vec<&str>) = means.keys().copied().partition(|app| means[app] >= CLEAN);
    let pairs: Vec<Spoiled> = scores
        .iter()
        .filter(|score| good.contains(&score.app.as_str()))
        .filter_map(|score| {
            let class = CLASSES.iter().find(|class| Some(class.name) == score.class.as_deref())?;
            Some(Spoiled {
                class: class.name,
                app: score.app.clone(),
                grade: class.grade,
                score: score.score,
                clean: means[score.app.as_str()],
            })
        })
        .collect();
    let noise = noise(&looks);
    let missed = pairs.iter().filter(|pair| !pair.as_it_should()).map(|pair| Miss {
        class: pair.class.to_owned(),
        app: pair.app.clone(),
        clean: pair.clean,
        spoiled: pair.score,
    });
    Calibration {
        format: "hone.calibration",
        version: 1,
        critic: critic.to_owned(),
        level,
        apps: good.len(),
        left_out: poor.into_iter().map(str::to_owned).collect(),
        classes: CLASSES.iter().filter_map(|class| of_class(class.name, class.grade, &pairs)).collect(),
        noise,
        length: lengths(&scores),
        targets: targets(&pairs, noise),
        misses: missed.collect(),
    }
}

fn of_class(name: &str, grade: Grade, pairs: &[Spoiled]) -> Option<ClassReport> {
    let own: Vec<&Spoiled> = pairs.iter().filter(|pair| pair.class == name).collect();
    let count = |holds: fn(&Spoiled) -> bool| own.iter().filter(|pair| holds(pair)).count();
    let (lower, higher) = (count(Spoiled::lower), count(Spoiled::higher));
    let right = lower as f64 + (own.len() - lower - higher) as f64 / 2.0;
    Some(ClassReport {
        class: name.to_owned(),
        grade,
        n: own.len(),
        accuracy: right / own.len() as f64,
        interval: stats::wilson(right, own.len()),
        lower,
        by_one: count(Spoiled::by_one),
        higher,
        mean_drop: stats::mean(own.iter().map(|pair| pair.clean - pair.score))?,
        highest: own.iter().map(|pair| pair.score).fold(0.0, f64::max),
    })
}

fn noise(looks: &BTreeMap<&str, Vec<f64>>) -> Noise {
    let deviation = |scores: &Vec<f64>| {
        let mean = stats::mean(scores.iter().copied()).filter(|_| scores.len() >= 2)?;
        let squares: f64 = scores.iter().map(|score| (score - mean).powi(2)).sum();
        Some((squares / (scores.len() - 1) as f64).sqrt())
    };
    let deviations: Vec<f64> = looks.values().filter_map(deviation).collect();
    Noise {
        apps: deviations.len(),
        looks: looks.values().map(Vec::len).sum(),
        mean_sd: stats::mean(deviations.iter().copied()),
        largest_sd: deviations.into_iter().reduce(f64::max),
    }
}

fn lengths(scores: &[Score]) -> Length {
    let clean: Vec<&Score> = scores.iter().filter(|score| score.class.is_none()).collect();
    let all: Vec<&Score> = scores.iter().collect();
    let of = |scores: &[&Score], length: fn(&Score) -> usize| {
        spearman(&scores.iter().map(|score| (length(score) as f64, score.score)).collect::<Vec<_>>())
    };
    Length {
        clean_lines: of(&clean, |score| score.lines),
        clean_characters: of(&clean, |score| score.characters),
        all_lines: of(&all, |score| score.lines),
        all_characters: of(&all, |score| score.characters),
    }
}

/// Spearman's rank correlation; none where one side does not vary.
pub(super) fn spearman(points: &[(f64, f64)]) -> Option<f64> {
    let x = ranks(points.iter().map(|point| point.0));
    let y = ranks(points.iter().map(|point| point.1));
    let (mean_x, mean_y) = (stats::mean(x.iter().copied())?, stats::mean(y.iter().copied())?);
    let sum =
        |f: &dyn Fn(f64, f64) -> f64| x.iter().zip(&y).map(|(x, y)| f(x - mean_x, y - mean_y)).sum::<f64>();
    let spread = (sum(&|x, _| x * x) * sum(&|_, y| y * y)).sqrt();
    (spread > 0.0).then(|| sum(&|x, y| x * y) / spread)
}

/// Ranks from 1; equal values share the mean of theirs.
fn ranks(values: impl Iterator<Item = f64>) -> Vec<f64> {
    let values: Vec<f64> = values.collect();
    let rank = |value: f64| {
        let below = values.iter().filter(|other| **other < value).count() as f64;
        let same = values.iter().filter(|other| **other == value).count() as f64;
        below + f64::midpoint(1.0, same)
    };
    values.iter().map(|value| rank(*value)).collect()
}

fn targets(pairs: &[Spoiled], noise: Noise) -> Vec<Target> {
    let share = |grade: Grade, target: &str, least: f64| {
        let own: Vec<&Spoiled> = pairs.iter().filter(|pair| pair.grade == grade).collect();
        let right = own.iter().filter(|pair| pair.as_it_should()).count();
        Target {
            target: target.to_owned(),
            // Without a pair nothing was shown.
            reached: !own.is_empty() && right as f64 >= least * own.len() as f64,
            found: format!("{right} of {}", own.len()),
        }
    };
    vec![
        share(Grade::Fatal, "fatal faults score 2.0 at most, all of them", 1.0),
        share(
            Grade::LaterCrash,
            "later crashes score below 4.5 and at least a point lower, all of them",
            1.0,
        ),
        share(Grade::Major, "major faults score at least a point lower, 95% of them", 0.95),
        share(Grade::Minor, "minor faults score lower, 85% of them", 0.85),
        share(Grade::Neutral, "what is no merit never scores higher", 1.0),
        Target {
            target: "looks at one app differ by a standard deviation of 0.1 at most".to_owned(),
            reached: noise.largest_sd.is_none_or(|sd| sd <= 0.1),
            found: noise.largest_sd.map_or_else(|| "looked once".to_owned(), |sd| format!("{sd:.3}")),
        },
    ]
}

impl Calibration {
    pub fn reached(&self) -> bool {
        self.targets.iter().all(|target| target.reached)
    }

    pub(super) fn sentence(&self) -> String {
        let reached = self.targets.iter().filter(|target| target.reached).count();
        format!("{reached} of {} targets reached", self.targets.len())
    }

    /// The whole of it as plain text.
    pub fn text(&self) -> String {
        let mut lines = vec![format!(
            "critic {} at level {}, {} apps",
            self.critic,
            format!("{:?}", self.level).to_lowercase(),
            self.apps
        )];
        if !self.left_out.is_empty() {
            lines.push(format!(
                "left out, because they score below {CLEAN:.0} as they are: {}",
                self.left_out.join(", ")
            ));
        }
        lines.push(String::new());
        let head = ["fault", "grade", "n", "lower", "by a point", "accuracy [95%]", "mean drop", "highest"];
        let mut rows = vec![head.map(str::to_owned).to_vec()];
        rows.extend(self.classes.iter().map(ClassReport::cells));
        lines.extend(aligned(&rows));
        lines.push(String::new());
        let of =
            |x: Option<f64>, places: usize| x.map_or_else(|| "-".to_owned(), |x| format!("{x:+.places$}"));
        let sd = |x: Option<f64>| x.map_or_else(|| "-".to_owned(), |x| format!("{x:.3}"));
        lines.push(format!(
            "repeated looks: {} at {} apps, standard deviation {} in the mean, {} at most",
            self.noise.looks,
            self.noise.apps,
            sd(self.noise.mean_sd),
            sd(self.noise.largest_sd)
        ));
        lines.push(format!(
            "score and length (Spearman): {} by lines, {} by characters; with the spoiled ones {}, {}",
            of(self.length.clean_lines, 2),
            of(self.length.clean_characters, 2),
            of(self.length.all_lines, 2),
            of(self.length.all_characters, 2)
        ));
        lines.push(String::new());
        for target in &self.targets {
            let mark = if target.reached { "reached" } else { "MISSED " };
            lines.push(format!("  {mark}  {}: {}", target.target, target.found));
        }
        if !self.misses.is_empty() {
            lines.push(String::new());
            lines.extend(self.misses.iter().take(40).map(|miss| {
                format!(
                    "  {}: {} scores {:.2}, as it was {:.2}",
                    miss.class, miss.app, miss.spoiled, miss.clean
                )
            }));
        }
        lines.join("\n")
    }
}

impl ClassReport {
    fn cells(&self) -> Vec<String> {
        let grade = match self.grade {
            Grade::Fatal => "fatal",
            Grade::LaterCrash => "later crash",
            Grade::Major => "major",
            Grade::Minor => "minor",
            Grade::Neutral => "neutral",
        };
        let interval = self.interval.map(|(low, high)| format!(" [{low:.2}, {high:.2}]")).unwrap_or_default();
        vec![
            self.class.clone(),
            grade.to_owned(),
            self.n.to_string(),
            self.lower.to_string(),
            self.by_one.to_string(),
            format!("{:.2}{interval}", self.accuracy),
            format!("{:.2}", self.mean_drop),
            format!("{:.2}", self.highest),
        ]
    }
}

fn aligned(rows: &[Vec<String>]) -> Vec<String> {
    let columns = rows.first().map_or(0, Vec::len);
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let line = |row: &Vec<String>| {
        let cells = row.iter().zip(&widths).enumerate().map(|(at, (cell, width))| match at {
            0 | 1 => format!("{cell:<width$}"),
            _ => format!("{cell:>width$}"),
        });
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    };
    rows.iter().map(line).collect()
}
