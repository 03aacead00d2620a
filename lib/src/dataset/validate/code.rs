//! The code inside the answers: does it parse, and is the user interface what comes first.

use std::ops::AddAssign;

use serde::{Deserialize, Serialize};

use super::{
    problem::{Code, Problem},
    typed,
};
use crate::{
    agent::{self, SourceFile},
    critic::{Glance, Nature, glance},
};

/// Faulty answers beyond this share of those with code, and the file is refused: a model learns what is frequent.
pub const TOLERATED: f64 = 0.05;
/// Share of configuration that `ui-first` allows.
const CONFIG_ALLOWED: f64 = 0.25;

/// What was found in the answers of a file.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct CodeTally {
    /// Answers that are trained on and hold files.
    pub answers: u64,
    /// Of them: with Python that does not parse.
    pub does_not_parse: u64,
    /// Of them: beginning with configuration, or with too much of it.
    pub config_first: u64,
    /// Of them: beginning with a user interface.
    pub ui_first: u64,
    /// Of them: with a file that is too large to be read.
    pub unread: u64,
    /// Of them: with either fault.
    pub faulty: u64,
    /// `faulty` of `answers`, 0-1.
    pub share: f64,
    /// A name that answers begin with in place of the user interface.
    #[serde(skip)]
    pub(super) example: Option<String>,
}

impl AddAssign for CodeTally {
    fn add_assign(&mut self, other: Self) {
        self.answers += other.answers;
        self.does_not_parse += other.does_not_parse;
        self.config_first += other.config_first;
        self.ui_first += other.ui_first;
        self.unread += other.unread;
        self.faulty += other.faulty;
        self.share = self.faulty as f64 / self.answers.max(1) as f64;
        self.example = self.example.take().or(other.example);
    }
}

impl CodeTally {
    /// The file as a whole, when it would teach what it is meant to cure.
    pub(super) fn verdict(&self) -> Option<Problem> {
        if self.share <= TOLERATED {
            return None;
        }
        let percent = |n: u64| (100.0 * n as f64 / self.answers.max(1) as f64).round();
        let of = |n: u64, what: &str| {
            (n > 0).then(|| format!("{n} of {} answers with code {what} ({}%)", self.answers, percent(n)))
        };
        let begin = match &self.example {
            Some(name) => format!("begin with configuration such as `{name}`"),
            None => "are mostly configuration".to_owned(),
        };
        let shares: Vec<String> =
            [of(self.config_first, &begin), of(self.does_not_parse, "hold Python that does not parse")]
                .into_iter()
                .flatten()
                .collect();
        let message = format!("this file teaches the habit you want to remove: {}", shares.join("; "));
        Some(Problem::new(Code::TeachesUnwantedHabit, message))
    }
}

/// Looks at one answer. To be called with a deep stack.
pub(super) fn look(answer: &str, ui_first: bool) -> (CodeTally, Vec<Problem>) {
    let mut tally = CodeTally::default();
    let mut problems = Vec::new();
    let (files, seen) = seen_in(answer);
    let Some(first) = files.first() else { return (tally, problems) };
    tally.answers = 1;
    tally.unread = u64::from(seen.unread);
    tally.ui_first = u64::from(begins_with_ui(&seen));
    if let Some((place, why)) = &seen.broken {
        tally.does_not_parse = 1;
        problems.push(Problem::new(Code::CodeDoesNotParse, format!("`{place}` does not parse: {why}")));
    }
    if ui_first && let Some(message) = config_first(&seen, &first.path) {
        tally.config_first = 1;
        tally.example = (seen.natures[0] != Nature::Ui).then(|| first.path.clone());
        problems.push(Problem::new(Code::ConfigFirst, message));
    }
    tally.faulty = u64::from(!problems.is_empty());
    (tally, problems)
}

/// The files of an answer, and what they are.
fn seen_in(answer: &str) -> (Vec<SourceFile>, Glance) {
    if !agent::may_hold_files(answer) {
        return Default::default();
    }
    let mut files = agent::parse_reply(answer).files;
    if is_prose(answer, &files) {
        return Default::default();
    }
    let mut seen = glance(&files);
    // What is typed into an interpreter or a notebook parses only when that is taken away, which is rarely needed.
    if seen.broken.is_some() {
        files = files.into_iter().filter_map(typed::without_typing).collect();
        seen = glance(&files);
    }
    // Reading a reply takes them out, so nobody else sees them.
    if seen.broken.is_none()
        && let Some(file) = files.iter().find(|file| file.path.ends_with(".py"))
        && memchr::memchr(b'\0', answer.as_bytes()).is_some()
    {
        seen.broken =
            Some((file.path.clone(), "the answer holds NUL characters, which no source may".into()));
    }
    (files, seen)
}

/// Prose with a sum on a line of its own (`Total = 3 apples`, `class sizes are:`) looks like loose code; without a fence, a
/// name and a statement that only Python has, it is none.
fn is_prose(answer: &str, files: &[SourceFile]) -> bool {
    let [only] = files else { return false };
    let is_unnamed = matches!(only.path.as_str(), "app.py" | "script.py");
    let called = ["```", "~~~", only.path.as_str()].iter().any(|mark| answer.contains(mark));
    is_unnamed && !called && !only.content.lines().map(str::trim_start).any(is_statement)
}

fn is_statement(line: &str) -> bool {
    ["import ", "def ", "st.", "with st.", "@st."].iter().any(|word| line.starts_with(word))
        || (line.starts_with("from ") && line.contains(" import "))
}

fn begins_with_ui(seen: &Glance) -> bool {
    seen.natures.first() == Some(&Nature::Ui) && seen.config_share <= CONFIG_ALLOWED
}

/// Why an answer shows the habit. An answer with neither user interface nor configuration says nothing about it.
fn config_first(seen: &Glance, first: &str) -> Option<String> {
    let shows = seen.natures.iter().any(|nature| *nature != Nature::Other);
    if !shows || begins_with_ui(seen) {
        return None;
    }
    Some(match seen.natures.first() {
        Some(Nature::Ui) => {
            let percent = (100.0 * seen.config_share).round();
            format!("{percent}% of the answer's lines are configuration, 25% is the most")
        }
        Some(Nature::Config) => format!("the answer begins with configuration: `{first}`"),
        _ => format!("the answer begins with `{first}`, not with the user interface"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::critic::on_deep_stack;

    const APP: &str = "import streamlit as st\nst.title(\"A\")\nst.button(\"b\")\n";

    #[track_caller]
    fn check(answer: &str, codes: &[Code], ui_first: u64) {
        let (tally, problems) = on_deep_stack(|| look(answer, true)).unwrap();
        let found: Vec<Code> = problems.iter().map(|problem| problem.code).collect();
        assert_eq!((found.as_slice(), tally.ui_first), (codes, ui_first), "{answer}: {problems:?}");
        assert_eq!(tally.faulty, u64::from(!codes.is_empty()));
    }

    fn block(tag: &str, name: &str, content: &str) -> String {
        format!("```{tag}\n# {name}\n{content}\n```\n")
    }

    #[test]
    fn answers_are_read() {
        let app = block("python", "app.py", APP);
        check("The capital of France is Paris.", &[], 0);
        check(&app, &[], 1);
        check(&format!("{app}\n{}", block("text", "requirements.txt", "streamlit")), &[], 1);
        check(
            &format!("{}\n{app}", block("text", "requirements.txt", "streamlit\npandas")),
            &[Code::ConfigFirst],
            0,
        );
        check(&format!("{}\n{app}", block("python", "config.py", "DEBUG = True")), &[Code::ConfigFirst], 0);
        check(
            &format!("{}\n{app}", block("python", "helpers.py", "def f():\n    return 1")),
            &[Code::ConfigFirst],
            0,
        );
        check(
            &block("python", "app.py", "import streamlit as st\nst.title(\"A\"\n"),
            &[Code::CodeDoesNotParse],
            1,
        );
        check(&block("python", "sort.py", "def sort(a):\n    return sorted(a)"), &[], 0);
        let constants: String = (0..9).map(|n| format!("LIMIT_{n} = {n}\n")).collect();
        check(&block("python", "app.py", &format!("{constants}{APP}")), &[Code::ConfigFirst], 0);
    }

    #[test]
    fn the_habit_is_seen_without_fences() {
        check("# requirements.txt\nstreamlit==1.38\npandas>=2\n", &[Code::ConfigFirst], 0);
        check(&format!("requirements.txt:\nstreamlit==1.38\n\napp.py:\n\n{APP}"), &[Code::ConfigFirst], 0);
        check("# .streamlit/config.toml\n[theme]\nprimaryColor = \"#fff\"\n", &[Code::ConfigFirst], 0);
        check("# config.py\nDEBUG = True\nPORT = 8501\n", &[Code::ConfigFirst], 0);
        check(APP, &[], 1);
        check("st.title('A'\nst.button(", &[Code::CodeDoesNotParse], 0);
        check("import os\nprint('A'", &[Code::CodeDoesNotParse], 0);
    }

    #[test]
    fn prose_that_looks_like_code_is_none() {
        for prose in [
            "X = 5",
            "Total = 3 apples + 4",
            "x = 3 or x = -2",
            "N = 2 of the cost.",
            "Then\n\nA = (1 + 2)\n\nso it is 3.",
            "class sizes are as follows:",
            "print(x) shows the value",
        ] {
            check(prose, &[], 0);
            assert_eq!(on_deep_stack(|| look(prose, true)).unwrap().0.answers, 0, "{prose}");
        }
    }

    #[test]
    fn what_is_typed_is_no_code_that_does_not_parse() {
        let session = ">>> 1 + 1\n2\n>>> for n in range(2):\n...     print(n)\n0\n1";
        for tag in ["python", "pycon", ""] {
            check(&format!("```{tag}\n{session}\n```"), &[], 0);
        }
        check(&format!("```python\ndef f():\n    return 2\n\n{session}\n```"), &[], 0);
        check("```python\n!pip install pandas\n%matplotlib inline\nimport pandas as pd\n```", &[], 0);
        check(&block("python", "app.py", &format!("%pip install streamlit\n{APP}")), &[], 1);
        check(&format!("{}```python\n{session}\n```", block("python", "app.py", APP)), &[], 1);
        let broken = "def f(:\n    return 2\n";
        check(&format!("```python\n{broken}\n{session}\n```"), &[Code::CodeDoesNotParse], 0);
        check(&format!("```python\n!pip install pandas\n{broken}```"), &[Code::CodeDoesNotParse], 0);
    }

    #[test]
    fn a_nul_in_python_is_told_of() {
        check("```python\nx = '\0'\n```", &[Code::CodeDoesNotParse], 0);
        check("The character \0 ends a text in C.", &[], 0);
    }

    #[test]
    fn a_habit_that_is_not_asked_for_is_no_fault() {
        let answer = block("text", "requirements.txt", "streamlit");
        assert_eq!(on_deep_stack(|| look(&answer, false)).unwrap().1, []);
    }

    #[test]
    fn the_share_decides() {
        let with = |faulty, answers| {
            let mut tally = CodeTally::default();
            tally += CodeTally { answers, faulty, config_first: faulty, ..CodeTally::default() };
            tally.verdict()
        };
        assert_eq!((with(0, 0), with(5, 100)), (None, None));
        let message = with(6, 100).unwrap().message;
        assert!(
            message.ends_with("remove: 6 of 100 answers with code are mostly configuration (6%)"),
            "{message}"
        );
    }
}
