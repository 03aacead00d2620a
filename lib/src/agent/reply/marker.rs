//! Names of files: in comments inside a block, on lines of their own, in the sentence before a block.

use super::{language, language::Language, path, strings::Strings};

/// Lines of one file inside a block.
#[derive(Debug)]
pub(super) struct Section<'a> {
    pub path: Option<String>,
    pub lines: Vec<&'a str>,
}

/// Non-empty lines above a block in which its name is looked for.
const LOOK_BACK: usize = 3;

/// The name that the text before a block gives it: a heading close above it, or the only file that the last line names.
pub(super) fn name_before(before: &[&str], tag: Language) -> Option<String> {
    let mut above = before.iter().rev().map(|l| l.trim()).filter(|l| !l.is_empty());
    let last = above.next()?;
    let fits = |path: &String| tag != Language::Shell || language::of_path(path) == Language::Shell;
    let mut lines = std::iter::once(last).chain(above).take(LOOK_BACK + 1).peekable();
    while let Some(line) = lines.next() {
        if let Some(path) = heading_path(line) {
            // Names one below the other are a table of contents.
            let listed = lines.peek().and_then(|l| heading_path(l)).is_some_and(|other| other != path);
            return (!listed).then_some(path).filter(fits);
        }
    }
    only_name_in(last).filter(|path| {
        let named = language::of_path(path);
        named == tag || (tag == Language::Unknown && named != Language::Unknown)
    })
}

/// The file that a sentence names, if it names just one and is about writing it rather than running it.
fn only_name_in(line: &str) -> Option<String> {
    let edges = |c: char| !(c.is_alphanumeric() || matches!(c, '.' | '_' | '/' | '\\' | '~'));
    let mut names = line.split(|c: char| c.is_whitespace() || "`*\"'()".contains(c)).filter_map(|word| {
        let word = word.trim_matches(edges).trim_end_matches('.');
        path::is_file_name(word).then_some(word)
    });
    let name = names.next()?;
    let runs = line.contains("streamlit run") || line.contains("python ");
    (!runs && names.all(|other| other == name)).then(|| name.to_owned())
}

/// Whether a line is the name of a file and nothing else.
pub(super) fn is_heading(line: &str) -> bool {
    heading_path(line).is_some()
}

/// The path on a line of its own: `app.py`, `**app.py**`, `### 1. app.py - the app`, `File: app.py`, `<file path="app.py">`.
pub(super) fn heading_path(line: &str) -> Option<String> {
    let line = line.trim();
    if let Some(tag) = line.strip_prefix("<file ") {
        return tag.split('"').nth(1).filter(|p| path::is_file_name(p)).map(str::to_owned);
    }
    let bullet = line.starts_with("- ") || line.starts_with("* ");
    named(line, !bullet).map(str::to_owned)
}

/// The path in a comment that is alone on its line: `# app.py`, `# FILE: app.py`, `// app.js`, `<!-- a.html -->`.
///
/// `loose` also takes one with a description after it, as models write it on a file's first line.
pub(super) fn comment_path(line: &str, loose: bool) -> Option<&str> {
    let body = ["#", "//", "<!--", "/*", "--", ";"].iter().find_map(|mark| line.strip_prefix(mark))?;
    named(body.trim_end().trim_end_matches("-->").trim_end_matches("*/"), loose)
}

const DECORATION: [char; 12] = ['#', '*', '`', '>', '=', '-', '[', ']', '(', '"', '\'', '~'];

fn named(text: &str, loose: bool) -> Option<&str> {
    let text = undecorated(without_keyword(undecorated(without_number(undecorated(text)))));
    let end = text.find(char::is_whitespace).unwrap_or(text.len());
    let (word, rest) = text.split_at(end);
    let name = word.trim_end_matches(|c: char| DECORATION.contains(&c) || matches!(c, ':' | ')' | ','));
    if !path::is_file_name(name) {
        return None;
    }
    let rest = rest.trim();
    let described = rest.starts_with(['-', '–', '—', ':', '(', '|']) || word.ends_with(':');
    let decorated =
        rest.trim_matches(|c: char| DECORATION.contains(&c) || matches!(c, ':' | ')')).trim().is_empty();
    (decorated || (loose && described)).then_some(name)
}

fn undecorated(text: &str) -> &str {
    text.trim_start_matches(|c: char| c.is_whitespace() || DECORATION.contains(&c))
}

/// `1. app.py`, `2) app.py`.
fn without_number(text: &str) -> &str {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    match text[digits..].strip_prefix(['.', ')', ':']) {
        Some(rest) if (1..=2).contains(&digits) && rest.starts_with([' ', '*']) => rest,
        _ => text,
    }
}

/// `File: app.py`, `FILENAME: app.py`, `File 2: app.py`.
fn without_keyword(text: &str) -> &str {
    let Some(colon) = text.bytes().take(14).position(|b| b == b':') else { return text };
    let keyword = text[..colon].trim().trim_end_matches(|c: char| c.is_ascii_digit() || c.is_whitespace());
    let known = ["file", "filename", "file name", "path", "filepath", "file path", "save as"];
    if known.iter().any(|k| keyword.eq_ignore_ascii_case(k)) { &text[colon + 1..] } else { text }
}

/// Cuts a block at the comments that name files. A name in the block is surer than `name`, which came from outside.
pub(super) fn split<'a>(lines: &[&'a str], name: Option<String>, language: Language) -> Vec<Section<'a>> {
    let mut current = Section { path: name, lines: Vec::new() };
    let mut language = language;
    let (mut sections, mut strings, mut started) = (Vec::new(), Strings::default(), false);
    for &line in lines {
        let at_start = !started && !line.trim().is_empty();
        started |= at_start;
        match marker(line, at_start, language, strings) {
            Some(path) => {
                let path = path.to_owned();
                language = language::of_path(&path);
                strings = Strings::default();
                let next = Section { path: Some(path), lines: preface(&mut current) };
                sections.push(std::mem::replace(&mut current, next));
            }
            None => {
                if matches!(language, Language::Python | Language::Unknown) {
                    strings.feed(line);
                }
                current.lines.push(line);
            }
        }
    }
    sections.push(current);
    sections
}

fn marker(line: &str, at_start: bool, language: Language, strings: Strings) -> Option<&str> {
    if at_start {
        let bare = Some(line.trim()).filter(|l| path::is_file_name(l));
        return comment_path(line, true).or(bare);
    }
    // In Markdown `#` begins a heading, and in a string anything may stand.
    if language == Language::Markdown || strings.inside() { None } else { comment_path(line, false) }
}

/// Comments above the first name (a licence, an encoding) belong to the file that is named below them.
fn preface<'a>(section: &mut Section<'a>) -> Vec<&'a str> {
    let comments = section.lines.iter().all(|l| l.trim().is_empty() || l.starts_with('#'));
    if section.path.is_none() && comments { std::mem::take(&mut section.lines) } else { Vec::new() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headings() {
        for line in [
            "app.py",
            "app.py:",
            "**app.py**",
            "**app.py**:",
            "### app.py",
            "`app.py`:",
            "**`app.py`**",
            "1. app.py",
            "### 1. `app.py`",
            "## 2) app.py",
            "File: app.py",
            "**File: `app.py`**",
            "FILENAME: app.py",
            "--- app.py ---",
            "=== app.py ===",
            "[app.py]",
            "> app.py",
            "### app.py - the main app",
            "**app.py** (main file):",
            "- app.py",
            "File 2: app.py",
            "#### `app.py` — entry point",
            "<file path=\"app.py\">",
            "\"app.py\"",
            "app.py: the app",
        ] {
            assert_eq!(heading_path(line).as_deref(), Some("app.py"), "{line}");
        }
        for line in [
            "",
            "The app",
            "Run app.py now",
            "- app.py: the main app",
            "streamlit",
            "import app.py as x",
            "e.g.",
        ] {
            assert_eq!(heading_path(line), None, "{line}");
        }
    }

    #[test]
    fn comments() {
        for line in [
            "# app.py",
            "#app.py",
            "## app.py",
            "# FILE: app.py",
            "# file: app.py",
            "# Filename: app.py",
            "// app.py",
            "/* app.py */",
            "<!-- app.py -->",
            "# ===== app.py =====",
            "# --- File: app.py ---",
            "-- app.py",
            "# `app.py`",
        ] {
            assert_eq!(comment_path(line, false), Some("app.py"), "{line}");
        }
        for line in [
            "# see app.py",
            "# app.py holds the page",
            "# app",
            "    # app.py",
            "#!/usr/bin/python.py",
            "x = 1 # app.py",
        ] {
            assert_eq!(comment_path(line, false), None, "{line}");
        }
        assert_eq!(comment_path("# app.py - the app", true), Some("app.py"));
        assert_eq!(comment_path("# app.py - the app", false), None);
    }

    #[test]
    fn sentences() {
        assert_eq!(only_name_in("Save this as `app.py`:").as_deref(), Some("app.py"));
        assert_eq!(only_name_in("Here is app.py.").as_deref(), Some("app.py"));
        assert_eq!(only_name_in("Move it from a.py to b.py:"), None);
        assert_eq!(only_name_in("Start it with `streamlit run app.py`:"), None);
    }
}
