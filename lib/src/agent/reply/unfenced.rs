//! Code that stands in a reply without fences: told from prose by what its lines look like.

use super::{
    Part, clean,
    language::{self, Language},
    marker,
    strings::Strings,
};

/// The files in a stretch of text: one per name on a line of its own, and the code before the first name.
pub(super) fn parts(lines: &[&str]) -> Vec<Part> {
    let mut parts = Vec::new();
    let (mut path, mut section) = (None, Vec::new());
    let mut strings = Strings::default();
    for &line in lines {
        if line.trim_end() == "</file>" {
            continue;
        }
        match name(line, strings) {
            Some(next) => {
                parts.extend(part(path.replace(next), &section));
                section.clear();
                strings = Strings::default();
            }
            None => {
                // An apostrophe in prose opens nothing that outlives its line; three quotes in prose are rare.
                strings.feed(line);
                section.push(line);
            }
        }
    }
    parts.extend(part(path, &section));
    parts
}

/// Whether a file of [`parts`] may begin with this line.
pub(super) fn begins_file(line: &str) -> bool {
    begins_code(line.trim_start()) || name(line, Strings::default()).is_some()
}

fn name(line: &str, strings: Strings) -> Option<String> {
    if strings.inside() {
        return None;
    }
    marker::comment_path(line, false).map(str::to_owned).or_else(|| {
        // A heading stands at the margin; deeper, it is code or a list.
        if line.starts_with([' ', '\t']) { None } else { marker::heading_path(line) }
    })
}

fn part(path: Option<String>, lines: &[&str]) -> Option<Part> {
    let language = path.as_deref().map_or(Language::Python, language::of_path);
    let content = match language {
        Language::Python => clean::unescape(python_in(lines)?),
        _ => Some(lines.join("\n")).filter(|text| looks_like(language, text))?,
    };
    Some(Part { path, language, content })
}

/// Whether text under a file's name is that file rather than words about it.
fn looks_like(language: Language, text: &str) -> bool {
    match language {
        Language::Requirements => language::is_requirements(text),
        Language::Toml | Language::Ini => text.contains('='),
        Language::Yaml => text.contains(": ") || text.contains(":\n"),
        Language::Json => text.trim_start().starts_with(['{', '[']),
        Language::Css | Language::JavaScript => text.contains('{'),
        Language::Html => text.contains('<'),
        Language::Csv => text.contains(','),
        _ => false,
    }
}

/// Whether any line is one that only Python has.
pub(super) fn is_python(text: &str) -> bool {
    text.lines().any(|line| begins_code(line.trim_start()))
}

/// The first stretch of Python in some lines, without its indentation; prose before and after it is left out.
fn python_in(lines: &[&str]) -> Option<String> {
    let first = lines.iter().position(|l| begins_code(l.trim_start()))?;
    let indent = indent_of(lines[first]);
    let start = first - lines[..first].iter().rev().take_while(|l| precedes_code(l, indent)).count();
    let mut strings = Strings::default();
    let mut code: Vec<&str> = Vec::new();
    for line in &lines[start..] {
        let after_blank = code.last().is_none_or(|l| l.trim().is_empty());
        if !strings.inside() && ends_code(line, indent, after_blank) {
            break;
        }
        strings.feed(line);
        code.push(&line[indent_of(line).min(indent)..]);
    }
    Some(code.join("\n"))
}

fn indent_of(line: &str) -> usize {
    line.bytes().take_while(|b| matches!(b, b' ' | b'\t')).count()
}

/// A statement that prose does not begin with.
fn begins_code(line: &str) -> bool {
    let words = |prefix: &str| line.strip_prefix(prefix).map(str::trim);
    if let Some(rest) = words("import ") {
        return rest.split(',').all(|m| is_module(m.trim().split(" as ").next().unwrap_or_default()));
    }
    if let Some((module, _)) = words("from ").and_then(|rest| rest.split_once(" import ")) {
        return is_module(module.trim());
    }
    let ends_like_a_block = line.trim_end().ends_with(':');
    line.strip_prefix("st.").is_some_and(is_call)
        || line.starts_with("with st.")
        || line.starts_with("@st.")
        || (line.starts_with("def ") && line.contains('(') && ends_like_a_block)
        || (line.starts_with("class ") && ends_like_a_block && !line.contains(". "))
        || line.starts_with("if __name__")
        || line.starts_with("print(")
        || is_assignment(line)
}

fn is_module(name: &str) -> bool {
    !name.is_empty() && name.chars().all(|c| c.is_alphanumeric() || matches!(c, '_' | '.'))
}

fn is_call(rest: &str) -> bool {
    let name = rest.bytes().take_while(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.')).count();
    name > 0 && rest[name..].starts_with('(')
}

/// `name = value`, where the value begins like one.
fn is_assignment(line: &str) -> bool {
    // A name has no blanks, so the first one is before the sign.
    let Some((name, value)) = line.split_once(' ') else { return false };
    let Some(value) = value.strip_prefix("= ") else { return false };
    let is_name = !name.is_empty()
        && name.chars().all(|c| c.is_alphanumeric() || matches!(c, '_' | '.' | '[' | ']' | ','));
    let begins_value =
        value.starts_with(|c: char| c.is_ascii_digit() || "\"'[({".contains(c)) || value.contains('(');
    is_name && !name.starts_with(|c: char| c.is_ascii_digit()) && begins_value
}

/// Comments and decorators directly above the first statement belong to it.
fn precedes_code(line: &str, indent: usize) -> bool {
    let body = line.trim_start();
    indent_of(line) == indent && (body.starts_with("# ") || body.starts_with('@'))
}

/// Prose at the margin after a blank line, or a stray fence.
fn ends_code(line: &str, indent: usize, after_blank: bool) -> bool {
    let body = line.trim();
    if body.starts_with("```") || body.starts_with("~~~") {
        return true;
    }
    after_blank && !body.is_empty() && indent_of(line) <= indent && is_prose(body)
}

const KEYWORDS: [&str; 20] = [
    "if", "for", "while", "with", "def", "class", "return", "import", "from", "try:", "except", "else:",
    "elif", "async", "await", "assert", "raise", "del", "global", "finally:",
];

fn is_prose(line: &str) -> bool {
    let mut words = line.split_whitespace();
    let first = words.next().unwrap_or_default();
    let lists = matches!(first, "-" | "*" | "•") || first.trim_end_matches(['.', ')']).parse::<u8>().is_ok();
    let starts_as_text = line.starts_with(|c: char| c.is_alphabetic() || c == '*' || c == '`') || lists;
    let is_code = KEYWORDS.contains(&first) || begins_code(line) || is_call(line) || line.contains(" = ");
    starts_as_text && !is_code && words.count() >= 2
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_that_begin_code() {
        for line in [
            "import streamlit as st",
            "import os, sys",
            "from a.b import c",
            "st.title('x')",
            "st.sidebar.write(1)",
            "with st.form('f'):",
            "def main():",
            "class A:",
            "x = 1",
            "df = pd.DataFrame()",
            "COLORS = {\"a\": 1}",
            "a, b = (1, 2)",
        ] {
            assert!(begins_code(line) || line.starts_with("a, b"), "{line}");
        }
        for line in [
            "import the module, then run",
            "from the start",
            "st. James",
            "The title = the name",
            "class of its own",
            "Define the form:",
            "",
            "with some luck",
        ] {
            assert!(!begins_code(line), "{line}");
        }
    }
}
