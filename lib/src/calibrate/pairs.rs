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
    pub pairs: usize,
    /// Pairs that people decided.
    pub decided: usize,
    /// Of these, those that the critic decided in the same way.
    pub agreed: usize,
    /// Of these, those that the critic did not tell apart: they count half.
    pub undecided: usize,
    /// Share of the decided ones, with its 95% Wilson interval.
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
    pub raters: (String, String),
    pub n: usize,
    pub kappa: Option<f64>,
}

/// Scores no further apart than this are no preference: twice what one look may differ from the next.
const NO_PREFERENCE: f64 = 0.2;

pub(super) type Scores = BTreeMap<(String, [u8; 32]), f64>;

/// Compares; pairs whose apps have no score are left out.
pub(super) fn agreement(pairs: &[Pair], scores: &Scores) -> Agreement {
    let verdict = |pair: &Pair| {
        let gap = scores.get(&key(&pair.brief, &pair.a))? - scores.get(&key(&pair.brief, &pair.b))?;
        Some(match gap {
            gap if gap > NO_PREFERENCE => Choice::A,
            gap if gap < -NO_PREFERENCE => Choice::B,
            _ => Choice::Tie,
        })
    };
    let judged: Vec<(&Pair, Choice)> = pairs.iter().filter_map(|pair| Some((pair, verdict(pair)?))).collect();
    let all = count(judged.iter().copied());
    let names: BTreeSet<&str> =
        pairs.iter().map(|pair| pair.rater.as_str()).filter(|rater| !rater.is_empty()).collect();
    let raters = names.iter().map(|name| {
        let own = count(judged.iter().copied().filter(|(pair, _)| pair.rater == **name));
        Rater { rater: (*name).to_owned(), decided: own.decided, share: own.share, interval: own.interval }
    });
    let raters = raters.collect();
    Agreement { raters, kappa: kappas(pairs, &names), ..all }
}

fn count<'a>(judged: impl Iterator<Item = (&'a Pair, Choice)>) -> Agreement {
    let mut sum = Agreement::default();
    for (pair, critic) in judged {
        sum.pairs += 1;
        if pair.prefers == Choice::Tie {
            sum.ties += 1;
            sum.ties_agreed += usize::from(critic == Choice::Tie);
            continue;
        }
        sum.decided += 1;
        sum.agreed += usize::from(critic == pair.prefers);
        sum.undecided += usize::from(critic == Choice::Tie);
    }
    let right = sum.agreed as f64 + sum.undecided as f64 / 2.0;
    sum.share = (sum.decided > 0).then(|| right / sum.decided as f64);
    sum.interval = stats::wilson(right, sum.decided);
    sum
}

fn kappas(pairs: &[Pair], raters: &BTreeSet<&str>) -> Vec<Kappa> {
    type Shown = ((String, [u8; 32]), (String, [u8; 32]));
    let mut choices: BTreeMap<Shown, BTreeMap<&str, Choice>> = BTreeMap::new();
    for pair in pairs {
        let (a, b) = (key(&pair.brief, &pair.a), key(&pair.brief, &pair.b));
        // The same two apps the other way round are the same pair.
        let (shown, choice) = if a <= b { ((a, b), pair.prefers) } else { ((b, a), turned(pair.prefers)) };
        choices.entry(shown).or_default().insert(&pair.rater, choice);
    }
    let raters: Vec<&str> = raters.iter().copied().collect();
    let mut all = Vec::new();
    for (at, one) in raters.iter().enumerate() {
        for other in &raters[at + 1..] {
            let both: Vec<(Choice, Choice)> =
                choices.values().filter_map(|by| Some((*by.get(one)?, *by.get(other)?))).collect();
            if !both.is_empty() {
                let raters = ((*one).to_owned(), (*other).to_owned());
                all.push(Kappa { raters, n: both.len(), kappa: kappa(&both) });
            }
        }
    }
    all
}

fn turned(choice: Choice) -> Choice {
    match choice {
        Choice::A => Choice::B,
        Choice::B => Choice::A,
        Choice::Tie => Choice::Tie,
    }
}

/// Agreement beyond chance; none where chance alone would give all of it.
fn kappa(both: &[(Choice, Choice)]) -> Option<f64> {
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
            "{} pairs: the critic agrees on {} of the {} that people decided ({} more it does not tell apart: half each)",
            self.pairs, self.agreed, self.decided, self.undecided
        )];
        lines.push(format!("agreement {} [95% interval]", share(self.share, self.interval)));
        if self.ties > 0 {
            lines.push(format!(
                "of {} that people call equal, the critic calls {} equal",
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
            lines.push(format!("  {one} and {other}: Cohen's kappa {value} over {} pairs", kappa.n));
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
        assert_eq!((found.pairs, found.decided, found.agreed, found.undecided), (4, 3, 1, 1));
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
        assert!((kappa(&both).unwrap() - 0.4).abs() < 1e-12);
        assert_eq!(kappa(&[(A, A), (A, A)]), None, "chance alone");
        assert_eq!(kappa(&[(A, A), (Tie, Tie)]), Some(1.0));
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
