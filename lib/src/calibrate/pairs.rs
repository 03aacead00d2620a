//! Pairs of apps that people compared.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::{
    agent::{Candidate, SourceFile},
    brief::Brief,
    error::{Explain, Kind},
    rating::Choice,
    store::{self, StoreError},
    trial::stats,
};

/// Two apps for one brief, and which a person preferred.
#[derive(Clone, Debug)]
pub struct Pair {
    pub brief: Brief,
    pub a: Candidate,
    pub b: Candidate,
    pub prefers: Choice,
    /// Who compared them; empty when the file does not say.
    pub rater: String,
}

/// A line of the file: `{"brief", "a": {path: content}, "b": {...}, "prefers": "a"|"b"|"tie", "rater"?}`.
#[derive(Deserialize)]
#[serde(expecting = "a pair, an object with \"brief\", \"a\", \"b\" and \"prefers\"")]
struct Line {
    brief: String,
    a: BTreeMap<String, String>,
    b: BTreeMap<String, String>,
    prefers: Choice,
    #[serde(default)]
    rater: String,
}

/// The file of pairs cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum PairsError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("`{}`:{line}: {why}", path.display())]
    Line { path: PathBuf, line: usize, why: String },
    #[error("`{}` has no pair", path.display())]
    Empty { path: PathBuf },
}

impl Explain for PairsError {
    fn kind(&self) -> Kind {
        match self {
            Self::Store(e) => e.kind(),
            Self::Line { .. } | Self::Empty { .. } => Kind::Input,
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::Store(e) => e.hint(),
            Self::Line { .. } | Self::Empty { .. } => {
                Some("each line is {\"brief\", \"a\": {path: content}, \"b\": {...}, \"prefers\": \"a\", \"b\" or \"tie\", \"rater\"?}".into())
            }
        }
    }
}

/// Reads a file of pairs, whole or not at all.
///
/// # Errors
/// It cannot be read, a line is no pair, or there is none.
pub fn read_pairs(path: &Path) -> Result<Vec<Pair>, PairsError> {
    let (lines, errors) = store::parse_lines::<Line>(&store::read_text(path)?);
    let broken = |line: usize, why: String| PairsError::Line { path: path.to_owned(), line, why };
    if let Some(error) = errors.into_iter().next() {
        return Err(broken(error.number, error.why));
    }
    let pair = |(number, line): (usize, Line)| {
        let brief = Brief::from_description(&line.brief).map_err(|e| broken(number, e.to_string()))?;
        if line.a.is_empty() || line.b.is_empty() {
            return Err(broken(number, "an app without a file".to_owned()));
        }
        Ok(Pair {
            brief,
            a: candidate(line.a),
            b: candidate(line.b),
            prefers: line.prefers,
            rater: line.rater,
        })
    };
    let pairs: Vec<Pair> =
        lines.into_iter().map(|line| pair((line.number, line.value))).collect::<Result<_, _>>()?;
    if pairs.is_empty() {
        return Err(PairsError::Empty { path: path.to_owned() });
    }
    Ok(pairs)
}

fn candidate(files: BTreeMap<String, String>) -> Candidate {
    Candidate { files: files.into_iter().map(|(path, content)| SourceFile { path, content }).collect() }
}

/// What makes an app for a brief the same as another.
pub(super) fn key(brief: &Brief, app: &Candidate) -> (String, [u8; 32]) {
    let mut hash = Sha256::new();
    for file in &app.files {
        hash.update(format!("{}\0{}\0{}\0", file.path, file.content.len(), file.content));
    }
    (brief.id.to_string(), hash.finalize().into())
}

/// How the critic's order compares with people's.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Agreement {
    /// Of people, on pairs of which the critic scored both apps; and the briefs that they are about.
    pub opinions: usize,
    pub briefs: usize,
    /// Opinions that decide.
    pub decided: usize,
    /// Of these, those that the critic decided in the same way.
    pub agreed: usize,
    /// Of these, those that the critic did not tell apart: they count half.
    pub undecided: usize,
    /// Share of the decided ones, with its 95% Wilson interval; all opinions on one brief count as one.
    pub share: Option<f64>,
    pub interval: Option<(f64, f64)>,
    /// Of those that people call equal, how many the critic calls equal too.
    pub ties: usize,
    pub ties_agreed: usize,
    pub raters: Vec<Rater>,
    /// Cohen's kappa of each two raters over the pairs that both compared.
    pub kappa: Vec<Kappa>,
}

/// The same for one person.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Rater {
    pub rater: String,
    pub decided: usize,
    pub share: Option<f64>,
    pub interval: Option<(f64, f64)>,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Kappa {
    /// The trial or the logs that the pairs are of, where they are of one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub of: Option<String>,
    pub raters: (String, String),
    /// Pairs that both compared.
    pub n: usize,
    pub kappa: Option<f64>,
}

/// What tells the two sides of all pairs apart, which is what people could agree about by chance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sides {
    /// `a` is the reference or the earlier app in every pair, `b` the tuned model's or the later one.
    Roles,
    /// Nothing: each could as well be called `a`.
    Exchangeable,
}

/// What people chose, by pair and rater.
pub(super) type Choices<'a, K> = BTreeMap<K, BTreeMap<&'a str, Choice>>;

/// Scores no further apart than this are no preference: twice what one look may differ from the next.
const NO_PREFERENCE: f64 = 0.2;

pub(super) type Scores = BTreeMap<(String, [u8; 32]), f64>;

/// Compares; pairs whose apps have no score are left out.
pub(super) fn agreement(pairs: &[Pair], scores: &Scores) -> Agreement {
    Agreement { kappa: kappas(None, &choices(pairs), Sides::Exchangeable), ..compared(pairs, scores) }
}

/// The same without what people say of each other's choices.
pub(super) fn compared(pairs: &[Pair], scores: &Scores) -> Agreement {
    let verdict = |pair: &Pair| {
        let gap = scores.get(&key(&pair.brief, &pair.a))? - scores.get(&key(&pair.brief, &pair.b))?;
        Some(match gap {
            gap if gap > NO_PREFERENCE => Choice::A,
            gap if gap < -NO_PREFERENCE => Choice::B,
            _ => Choice::Tie,
        })
    };
    let judged: Vec<(&Pair, Choice)> = pairs.iter().filter_map(|pair| Some((pair, verdict(pair)?))).collect();
    let names: BTreeSet<&str> =
        pairs.iter().map(|pair| pair.rater.as_str()).filter(|rater| !rater.is_empty()).collect();
    let raters = names.iter().map(|name| {
        let own: Vec<_> = judged.iter().copied().filter(|(pair, _)| pair.rater == **name).collect();
        let own = count(&own);
        Rater { rater: (*name).to_owned(), decided: own.decided, share: own.share, interval: own.interval }
    });
    Agreement { raters: raters.collect(), ..count(&judged) }
}

fn count(judged: &[(&Pair, Choice)]) -> Agreement {
    let briefs: BTreeSet<&str> = judged.iter().map(|(pair, _)| pair.brief.id.as_str()).collect();
    let mut sum = Agreement { opinions: judged.len(), briefs: briefs.len(), ..Agreement::default() };
    let mut right = Vec::new();
    for (pair, critic) in judged {
        if pair.prefers == Choice::Tie {
            sum.ties += 1;
            sum.ties_agreed += usize::from(*critic == Choice::Tie);
            continue;
        }
        let (agreed, undecided) = (*critic == pair.prefers, *critic == Choice::Tie);
        sum.decided += 1;
        sum.agreed += usize::from(agreed);
        sum.undecided += usize::from(undecided);
        let share = f64::from(u8::from(agreed)) + f64::from(u8::from(undecided)) / 2.0;
        right.push((pair.brief.id.as_str(), share));
    }
    let share = stats::share_of_briefs(right);
    (sum.share, sum.interval) = (share.rate, share.interval);
    sum
}

/// The same two apps the other way round are the same pair.
fn choices(pairs: &[Pair]) -> Choices<'_, [(String, [u8; 32]); 2]> {
    let mut choices = Choices::new();
    for pair in pairs {
        let (a, b) = (key(&pair.brief, &pair.a), key(&pair.brief, &pair.b));
        let (shown, choice) = if a <= b { ([a, b], pair.prefers) } else { ([b, a], pair.prefers.turned()) };
        choices.entry(shown).or_default().insert(pair.rater.as_str(), choice);
    }
    choices
}

/// Cohen's kappa of each two raters who have a name.
pub(super) fn kappas<K>(of: Option<&str>, choices: &Choices<'_, K>, sides: Sides) -> Vec<Kappa> {
    let raters: BTreeSet<&str> =
        choices.values().flat_map(BTreeMap::keys).copied().filter(|rater| !rater.is_empty()).collect();
    let raters: Vec<&str> = raters.into_iter().collect();
    let mut all = Vec::new();
    for (at, one) in raters.iter().enumerate() {
        for other in &raters[at + 1..] {
            let both: Vec<(Choice, Choice)> =
                choices.values().filter_map(|by| Some((*by.get(one)?, *by.get(other)?))).collect();
            if !both.is_empty() {
                all.push(Kappa {
                    of: of.map(str::to_owned),
                    raters: ((*one).to_owned(), (*other).to_owned()),
                    n: both.len(),
                    kappa: kappa(&both, sides),
                });
            }
        }
    }
    all
}

/// Agreement beyond chance; none where chance alone would give all of it.
///
/// Chance is what two people would agree on who choose independently, each as often as they do. Where the sides are
/// exchangeable no one can prefer `a` as such: each pair is counted in both orders, so that the figure does not depend on
/// which side is called `a`.
fn kappa(both: &[(Choice, Choice)], sides: Sides) -> Option<f64> {
    let mut both = both.to_vec();
    if sides == Sides::Exchangeable {
        let turned: Vec<_> = both.iter().map(|(one, other)| (one.turned(), other.turned())).collect();
        both.extend(turned);
    }
    let n = both.len() as f64;
    let same = both.iter().filter(|(one, other)| one == other).count() as f64 / n;
    let chance: f64 = [Choice::A, Choice::B, Choice::Tie]
        .iter()
        .map(|choice| {
            let one = both.iter().filter(|(first, _)| first == choice).count() as f64;
            let other = both.iter().filter(|(_, second)| second == choice).count() as f64;
            one * other / (n * n)
        })
        .sum();
    (chance < 1.0).then(|| (same - chance) / (1.0 - chance))
}

impl Agreement {
    /// As plain text.
    pub fn text(&self) -> String {
        let share = |share: Option<f64>, interval: Option<(f64, f64)>| match (share, interval) {
            (Some(share), Some((low, high))) => {
                format!("{:.0}% [{:.0}%, {:.0}%]", 100.0 * share, 100.0 * low, 100.0 * high)
            }
            _ => "-".to_owned(),
        };
        let mut lines = vec![format!(
            "{} opinions on apps of {} briefs: the critic agrees with {} of the {} that decide ({} more it does not tell apart: half each)",
            self.opinions, self.briefs, self.agreed, self.decided, self.undecided
        )];
        lines.push(format!("agreement {} [95% interval]", share(self.share, self.interval)));
        if self.ties > 0 {
            lines.push(format!(
                "of {} that call the two equal, the critic calls {} equal",
                self.ties, self.ties_agreed
            ));
        }
        for rater in &self.raters {
            lines.push(format!(
                "  {}: {} of {} decided",
                rater.rater,
                share(rater.share, rater.interval),
                rater.decided
            ));
        }
        for kappa in &self.kappa {
            let (one, other) = &kappa.raters;
            let value = kappa.kappa.map_or_else(|| "-".to_owned(), |kappa| format!("{kappa:.2}"));
            let of = kappa.of.as_ref().map(|of| format!(" of {of}")).unwrap_or_default();
            lines.push(format!("  {one} and {other}: Cohen's kappa {value} over {} pairs{of}", kappa.n));
        }
        lines.join("\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair(a: &str, b: &str, prefers: Choice, rater: &str) -> Pair {
        Pair {
            brief: Brief::from_description("a form").unwrap(),
            a: Candidate::single("app.py", a.to_owned()),
            b: Candidate::single("app.py", b.to_owned()),
            prefers,
            rater: rater.into(),
        }
    }

    fn scores(of: &[(&str, f64)]) -> Scores {
        let brief = Brief::from_description("a form").unwrap();
        of.iter()
            .map(|(app, score)| (key(&brief, &Candidate::single("app.py", (*app).to_owned())), *score))
            .collect()
    }

    #[test]
    fn agreement_counts_ties_apart() {
        let pairs = [
            pair("good", "bad", Choice::A, "x"),
            pair("bad", "good", Choice::A, "x"),
            pair("good", "same", Choice::B, "y"),
            pair("good", "same", Choice::Tie, "y"),
        ];
        let found = agreement(&pairs, &scores(&[("good", 9.0), ("same", 9.1), ("bad", 3.0)]));
        assert_eq!((found.opinions, found.briefs), (4, 1));
        assert_eq!((found.decided, found.agreed, found.undecided), (3, 1, 1));
        assert_eq!(found.interval, stats::wilson(0.5, 1), "opinions on one brief are one");
        assert_eq!((found.ties, found.ties_agreed, found.share), (1, 1, Some(0.5)));
        assert_eq!(
            found.raters.iter().map(|r| (r.decided, r.share)).collect::<Vec<_>>(),
            [(2, Some(0.5)), (1, Some(0.5))]
        );
        assert_eq!(found.kappa, []);
    }

    #[test]
    fn kappa_is_what_the_books_say() {
        use Choice::{A, B, Tie};
        // Two raters, 20 and 15 agreements, 5 and 10 disagreements: (0.7 - 0.5) / 0.5.
        let both = [vec![(A, A); 20], vec![(A, B); 5], vec![(B, A); 10], vec![(B, B); 15]].concat();
        assert!((kappa(&both, Sides::Roles).unwrap() - 0.4).abs() < 1e-12);
        assert_eq!(kappa(&[(A, A), (A, A)], Sides::Roles), None, "chance alone");
        assert_eq!(kappa(&[(A, A), (Tie, Tie)], Sides::Roles), Some(1.0));
        let turned = [
            pair("p", "q", A, "x"),
            pair("q", "p", B, "y"),
            pair("r", "s", Tie, "x"),
            pair("r", "s", Tie, "y"),
        ];
        let found = agreement(&turned, &scores(&[]));
        assert_eq!(
            (found.kappa[0].n, found.kappa[0].kappa),
            (2, Some(1.0)),
            "the other way round is the same pair"
        );
    }

    #[test]
    fn what_both_prefer_by_habit_is_chance_only_where_sides_have_roles() {
        use Choice::{A, B, Tie};
        // Each prefers `b` in 9 of 10, whatever the other says.
        let both = [vec![(B, B); 81], vec![(A, B); 9], vec![(B, A); 9], vec![(A, A)]].concat();
        assert!(kappa(&both, Sides::Roles).unwrap().abs() < 1e-12);
        assert!((kappa(&both, Sides::Exchangeable).unwrap() - 0.64).abs() < 1e-12, "2 * 0.82 - 1");
        let mixed = [vec![(A, B); 3], vec![(B, B); 9], vec![(Tie, A); 2], vec![(Tie, Tie); 4]].concat();
        let every_third: Vec<_> = mixed
            .iter()
            .enumerate()
            .map(|(n, (one, other))| if n % 3 == 0 { (one.turned(), other.turned()) } else { (*one, *other) })
            .collect();
        let [one, other] = [&mixed, &every_third].map(|both| kappa(both, Sides::Exchangeable).unwrap());
        assert!((one - other).abs() < 1e-12, "which side is called `a` does not matter: {one}, {other}");
    }

    #[test]
    fn a_bad_line_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("pairs.jsonl");
        let check = |text: &str, expected: &str| {
            std::fs::write(&path, text).unwrap();
            let said = read_pairs(&path).unwrap_err().to_string();
            assert!(said.contains(expected), "{said}");
        };
        let good = r#"{"brief":"a form","a":{"app.py":"x"},"b":{"app.py":"y"},"prefers":"a"}"#;
        check("", "has no pair");
        check(&format!("{good}\n{{}}"), ":2:");
        check(&good.replace("\"prefers\":\"a\"", "\"prefers\":\"c\""), ":1:");
        check(&good.replace("{\"app.py\":\"x\"}", "{}"), "without a file");
        check(&good.replace("a form", " "), ":1:");
        std::fs::write(&path, good).unwrap();
        assert_eq!(read_pairs(&path).unwrap().len(), 1);
    }
}
