//! A critique for people: scores, then every issue with the lines that it is about.

use annotate_snippets::{AnnotationKind, Level as Mark, Renderer, Snippet};
use hone::{
    agent::{Candidate, SourceFile},
    critic::{Critique, Guidelines, Issue, Judged, JudgedItem, Severity},
};

/// How wide the report is at most, in columns: longer lines of source are cut around what is pointed at.
const WIDTH: usize = 120;

/// One app's report. `name` is how the user called it; `colour` is for terminals.
pub fn report(name: &str, files: &Candidate, critique: &Critique, colour: bool) -> String {
    let renderer = if colour { Renderer::styled() } else { Renderer::plain() }.term_width(WIDTH);
    let mut parts = vec![head(name, critique)];
    let mut issues: Vec<(&Issue, Place)> =
        critique.issues.iter().map(|issue| (issue, Place::of(issue))).collect();
    let order = |place: &Place| {
        let file = files.files.iter().position(|file| file.path == place.path).unwrap_or(usize::MAX);
        (file, place.line, place.column)
    };
    issues.sort_by_key(|(_, place)| order(place));
    parts.extend(issues.iter().map(|(issue, place)| framed(issue, place, files, &renderer)));
    parts.extend(cited(critique));
    parts.push(count(critique));
    parts.join("\n\n")
}

fn head(name: &str, critique: &Critique) -> String {
    let scores = &critique.scores;
    let parts = [
        ("behaviour", scores.behaviour),
        ("executes", scores.executes),
        ("accessibility", scores.accessibility),
        ("visual", scores.visual),
        ("match", scores.match_),
        ("code", scores.code),
    ];
    let parts: Vec<String> =
        parts.iter().filter_map(|(name, part)| part.map(|part| format!("{name} {part:.1}"))).collect();
    let level = format!("{:?}", critique.level).to_lowercase();
    let mut lines = vec![
        format!("{name}  {:.1} of 10  (critic {}, level {level})", critique.overall_score, critique.critic),
        format!("  {}", parts.join("  ")),
    ];
    lines
        .extend(critique.caps.iter().map(|cap| format!("  at most {:.1}: {}", cap.value, visible(&cap.why))));
    lines.extend(critique.judge.iter().flat_map(judge_lines));
    lines.join("\n")
}

/// Where an issue is, 1-based; all zero where it is about no place.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    pub path: String,
    pub line: usize,
    pub column: usize,
}

impl Place {
    pub fn of(issue: &Issue) -> Self {
        let parts = issue.at.as_deref().and_then(|at| {
            let (rest, column) = at.rsplit_once(':')?;
            let (path, line) = rest.rsplit_once(':')?;
            Some((path.to_owned(), line.parse().ok()?, column.parse().ok()?))
        });
        let (path, line, column) = parts.unwrap_or_default();
        Self { path, line, column }
    }

    /// Bytes of the source that the place points at: a name or a number, or else the rest of the line.
    pub fn span(&self, source: &str) -> Option<std::ops::Range<usize>> {
        let lines = source.split_inclusive('\n');
        let start: usize = lines.clone().take(self.line.checked_sub(1)?).map(str::len).sum();
        let line = source[start..].split('\n').next()?.trim_end_matches('\r');
        if line.trim().is_empty() && self.line > lines.count() {
            return None;
        }
        let skipped: usize = line.chars().take(self.column.saturating_sub(1)).map(char::len_utf8).sum();
        let rest = &line[skipped..];
        let blank = rest.len() - rest.trim_start().len();
        let rest = rest.trim_start();
        let word = rest.find(|c: char| !c.is_alphanumeric() && c != '_' && c != '.').unwrap_or(rest.len());
        let length = if word == 0 { rest.trim_end().len().max(1) } else { word };
        let from = start + skipped + blank;
        Some(from..(from + length).min(source.len()))
    }
}

fn framed(issue: &Issue, place: &Place, files: &Candidate, renderer: &Renderer) -> String {
    let mark = match issue.severity {
        Severity::Critical => Mark::ERROR.with_name("critical"),
        Severity::Major => Mark::WARNING.with_name("major"),
        Severity::Minor => Mark::NOTE.with_name("minor"),
    };
    let message = visible(&issue.message);
    let mut title = mark.primary_title(message.as_str());
    if let Some(guideline) = &issue.guideline {
        title = title.id(guideline.as_str());
    }
    let file = files.files.iter().find(|file| file.path == place.path);
    // What is about the page as a whole stands at its first line; that line says nothing.
    let frame = file.filter(|_| (place.line, place.column) != (1, 1)).and_then(|file| snippet(file, place));
    let report = match frame {
        Some((source, snippet)) => [title.element(
            Snippet::source(source).path(&place.path).annotation(AnnotationKind::Primary.span(snippet)),
        )],
        None if place.path.is_empty() => [annotate_snippets::Group::with_title(title)],
        None => [title.element(annotate_snippets::Origin::path(&place.path))],
    };
    renderer.render(&report)
}

/// A source with what a terminal must not get made visible, and the place in it.
fn snippet(file: &SourceFile, place: &Place) -> Option<(String, std::ops::Range<usize>)> {
    let span = place.span(&file.content)?;
    // Each forbidden character becomes another of the same length, so that places stay.
    let plain = |c: char| if c.is_control() && c != '\n' && c != '\t' && c != '\r' { '?' } else { c };
    let source: String = file.content.chars().map(plain).collect();
    let same = source.len() == file.content.len();
    same.then_some((source, span))
}

/// Control characters of an app's text would reach the terminal.
fn visible(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// What a judge took away and what it does not find, or why it said nothing.
fn judge_lines(said: &Judged) -> Vec<String> {
    if let Some(why) = &said.absent {
        return vec![format!("  judge `{}` gave no usable answer: {}", said.row, visible(why))];
    }
    let Some(share) = said.share else { return Vec::new() };
    let head =
        format!("  judge `{}`: {:.0}% of what it asked, -{:.1}", said.row, 100.0 * share, said.lowered_by);
    let open = said.items.iter().filter(|item| item.answer.is_some_and(|answer| answer < 1.0));
    let line = |item: &JudgedItem| {
        let word = if item.answer.is_some_and(|answer| answer > 0.0) { "in part" } else { "no" };
        format!("    {word}: {}", visible(&item.question))
    };
    std::iter::once(head).chain(open.map(line)).collect()
}

fn cited(critique: &Critique) -> Option<String> {
    let line = |citation: &hone::critic::Citation| {
        let fact = Guidelines::embedded().get(&citation.id).map(|guideline| guideline.fact.as_str());
        format!("  {}  {} ({})", citation.id, fact.unwrap_or_default(), citation.source)
    };
    let lines: Vec<String> = critique.citations.iter().map(line).collect();
    (!lines.is_empty()).then(|| format!("guidelines\n{}", lines.join("\n")))
}

fn count(critique: &Critique) -> String {
    let of = |severity: Severity| critique.issues.iter().filter(|issue| issue.severity == severity).count();
    match (of(Severity::Critical), of(Severity::Major), of(Severity::Minor)) {
        (0, 0, 0) => "nothing to mend".to_owned(),
        (critical, major, minor) => format!("{critical} critical, {major} major, {minor} minor"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(source: &str, line: usize, column: usize, expected: Option<&str>) {
        let place = Place { path: "a.py".into(), line, column };
        assert_eq!(place.span(source).map(|span| &source[span]), expected);
    }

    #[test]
    fn a_place_points_at_a_name_or_at_the_rest_of_its_line() {
        check("x = 1\ny = abc + 2\n", 2, 5, Some("abc"));
        check("x = 1\n    st.title('x')\n", 2, 1, Some("st.title"));
        check("x = (1\r\n", 1, 5, Some("(1"));
        check("\u{e9}t\u{e9} = na\u{ef}ve\n", 1, 7, Some("na\u{ef}ve"));
        check("\tx = 1", 1, 2, Some("x"));
        check("x = 1", 9, 1, None);
        check("x", 1, 99, Some(""));
        check("", 1, 1, None);
        check("x", 0, 0, None);
    }

    #[test]
    fn places_are_read_from_the_end() {
        let issue = |at: &str| Issue {
            severity: Severity::Minor,
            message: String::new(),
            at: Some(at.into()),
            guideline: None,
        };
        assert_eq!(Place::of(&issue("a:b.py:3:4")), Place { path: "a:b.py".into(), line: 3, column: 4 });
        assert_eq!(Place::of(&issue("nowhere")), Place::default());
    }

    #[test]
    fn an_issue_stands_with_its_line() {
        let files = Candidate::single("app.py", "import streamlit as st\n\tst.write(\u{1b}totl)\n");
        let issue = Issue {
            severity: Severity::Critical,
            message: "Undefined name `totl`\u{1b}[31m (F821)".into(),
            at: Some("app.py:2:12".into()),
            guideline: Some("g138".into()),
        };
        let shown = framed(&issue, &Place::of(&issue), &files, &Renderer::plain().term_width(WIDTH));
        assert!(
            shown.starts_with("critical[g138]: Undefined name `totl` [31m (F821)\n --> app.py:2:12"),
            "{shown}"
        );
        assert!(shown.contains("^^^^") && !shown.contains('\u{1b}'), "{shown}");
    }
}
