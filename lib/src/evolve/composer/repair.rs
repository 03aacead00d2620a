//! Findings mended mechanically, as a linter's autofix does: no plan, no model, only the candidate's own text.
//!
//! Each fix is a function from files and findings to whether it changed something. They run in an order in which a later
//! one may rely on an earlier one: first which files there are, then what the linter names, then what a user sees.

use crate::{
    agent::{Candidate, SourceFile},
    critic::{Critique, Evidence},
};

/// What Streamlit's calls are called now, by what old or invented code calls them.
const RENAMED: &[(&str, &str)] = &[
    ("st.experimental_rerun(", "st.rerun("),
    ("st.experimental_memo", "st.cache_data"),
    ("st.experimental_singleton", "st.cache_resource"),
    ("@st.cache\n", "@st.cache_data\n"),
    ("@st.cache(", "@st.cache_data("),
    ("st.beta_columns(", "st.columns("),
    ("st.beta_container(", "st.container("),
    ("st.beta_expander(", "st.expander("),
    ("st.beta_set_page_config(", "st.set_page_config("),
    ("st.column(", "st.columns("),
    ("st.select(", "st.selectbox("),
    ("st.sidebar.select(", "st.sidebar.selectbox("),
    ("st.dropdown(", "st.selectbox("),
    ("st.textbox(", "st.text_input("),
    ("st.input(", "st.text_input("),
    ("st.textarea(", "st.text_area("),
    ("st.number(", "st.number_input("),
    ("st.date(", "st.date_input("),
    ("st.heading(", "st.header("),
    ("st.file_upload(", "st.file_uploader("),
    ("st.submit_button(", "st.form_submit_button("),
];

/// Modules that code uses by these names without importing them.
const IMPORTS: &[(&str, &str)] = &[
    ("st", "import streamlit as st"),
    ("pd", "import pandas as pd"),
    ("np", "import numpy as np"),
    ("alt", "import altair as alt"),
    ("datetime", "import datetime"),
    ("date", "from datetime import date"),
    ("random", "import random"),
    ("time", "import time"),
    ("math", "import math"),
    ("re", "import re"),
    ("json", "import json"),
];

/// The candidate with its findings mended; none when nothing here mends any of them.
pub fn repair(candidate: &Candidate, critique: &Critique, evidence: &Evidence) -> Option<Candidate> {
    let mut files = candidate.files.clone();
    let mut changed = ui_first(&mut files, candidate);
    let main = candidate.main().map(|file| file.path.clone())?;
    let file = files.iter_mut().find(|file| file.path == main)?;
    let before = file.content.clone();
    file.content = rename_calls(&file.content);
    file.content = drop_lines(&file.content, &unused_imports(evidence, &main));
    file.content = drop_lines(&file.content, &raising_lines(&file.content, evidence, &main));
    file.content = add_imports(&file.content, evidence);
    file.content = label_controls(&file.content);
    file.content = answer_buttons(&file.content);
    file.content = submit_forms(&file.content, critique);
    file.content = order_headings(&file.content, critique);
    file.content = name_page(&file.content, critique);
    changed |= file.content != before;
    changed.then_some(Candidate { files })
}

/// Puts the user interface first and leaves configuration out, if there is a user interface.
fn ui_first(files: &mut Vec<SourceFile>, candidate: &Candidate) -> bool {
    let Some(main) =
        candidate.main().filter(|file| file.path.ends_with(".py") && file.content.contains("streamlit"))
    else {
        return false;
    };
    let before = files.len();
    let imported = |file: &SourceFile| {
        let module = file.path.trim_end_matches(".py").rsplit('/').next().unwrap_or_default().to_owned();
        file.path.ends_with(".py")
            && (main.content.contains(&format!("import {module}"))
                || main.content.contains(&format!("from {module}")))
    };
    let first = files.first().map(|file| file.path.clone());
    files.retain(|file| file.path == main.path || imported(file));
    files.sort_by_key(|file| file.path != main.path);
    files.len() != before || first.as_deref() != Some(main.path.as_str())
}

fn rename_calls(source: &str) -> String {
    RENAMED.iter().fold(source.to_owned(), |source, (old, new)| source.replace(old, new))
}

/// 1-based line of a place such as `app.py:3:1`, when it is in this file.
fn line_of(at: Option<&String>, path: &str) -> Option<usize> {
    at?.strip_prefix(path)?.strip_prefix(':')?.split(':').next()?.parse().ok()
}

fn unused_imports(evidence: &Evidence, path: &str) -> Vec<usize> {
    let unused = evidence.statics.lint.iter().filter(|lint| lint.code == "F401");
    unused.filter_map(|lint| line_of(Some(&lint.at), path)).collect()
}

/// Lines that raised, where taking one away leaves a program: a call that stands alone at the left edge.
fn raising_lines(source: &str, evidence: &Evidence, path: &str) -> Vec<usize> {
    let lines: Vec<&str> = source.lines().collect();
    let raised = evidence.run.iter().flat_map(|run| &run.exceptions);
    let places = raised.filter_map(|exception| line_of(exception.at.as_ref(), path));
    let alone = |line: &usize| {
        lines.get(line.wrapping_sub(1)).is_some_and(|text| {
            text.starts_with("st.")
                && text.ends_with(')')
                && text.matches('(').count() == text.matches(')').count()
        })
    };
    places.filter(alone).collect()
}

fn drop_lines(source: &str, drop: &[usize]) -> String {
    let whole = |line: &str| {
        line.starts_with("import ") && !line.contains(',')
            || line.starts_with("from ") && !line.contains(['(', ','])
            || line.starts_with("st.")
    };
    let kept = source
        .lines()
        .enumerate()
        .filter(|(at, line)| !(drop.contains(&(at + 1)) && whole(line)))
        .map(|(_, line)| line);
    with_end(kept.collect::<Vec<_>>().join("\n"))
}

fn with_end(source: String) -> String {
    if source.is_empty() || source.ends_with('\n') { source } else { source + "\n" }
}

fn add_imports(source: &str, evidence: &Evidence) -> String {
    let undefined = |name: &str| {
        let quoted = format!("`{name}`");
        evidence.statics.lint.iter().any(|lint| lint.code == "F821" && lint.message.contains(&quoted))
    };
    let missing = IMPORTS
        .iter()
        .filter(|(name, line)| undefined(name) && !source.contains(line))
        .map(|(_, line)| *line);
    let missing: Vec<&str> = missing.collect();
    if missing.is_empty() { source.to_owned() } else { format!("{}\n{source}", missing.join("\n")) }
}

/// Empty labels get a name, hidden ones are shown.
fn label_controls(source: &str) -> String {
    let hidden = [
        ", label_visibility=\"collapsed\"",
        ", label_visibility='collapsed'",
        ", label_visibility=\"hidden\"",
        ", label_visibility='hidden'",
    ];
    let mut source = hidden.iter().fold(source.to_owned(), |source, hidden| source.replace(hidden, ""));
    let names = [
        ("text_input", "Text"),
        ("text_area", "Details"),
        ("number_input", "Number"),
        ("selectbox", "Choice"),
        ("multiselect", "Choices"),
        ("radio", "Choice"),
        ("slider", "Level"),
        ("checkbox", "Yes"),
        ("date_input", "Date"),
        ("time_input", "Time"),
        ("file_uploader", "File"),
    ];
    for (call, name) in names {
        for empty in ["\"\"", "''", "\" \"", "' '"] {
            source = source.replace(&format!("{call}({empty}"), &format!("{call}(\"{name}\""));
        }
    }
    source
}

/// `st.button("X")` that nothing looks at says that it was pressed.
fn answer_buttons(source: &str) -> String {
    let mut lines = Vec::new();
    for line in source.lines() {
        let indent = &line[..line.len() - line.trim_start().len()];
        let call = line.trim_start().strip_prefix("st.button(\"").and_then(|rest| rest.strip_suffix("\")"));
        match call.filter(|label| !label.contains('"')) {
            Some(label) => {
                lines.push(format!("{indent}if st.button(\"{label}\"):"));
                lines.push(format!("{indent}    st.success(\"{}\")", super::lexicon::done(label)));
            }
            None => lines.push(line.to_owned()),
        }
    }
    with_end(lines.join("\n"))
}

/// A form without a way to send it gets one, at its end.
fn submit_forms(source: &str, critique: &Critique) -> String {
    let missing = critique
        .issues
        .iter()
        .any(|issue| issue.message.contains("form") && issue.message.contains("submit"));
    if !missing || source.contains("form_submit_button") {
        return source.to_owned();
    }
    let lines: Vec<&str> = source.lines().collect();
    let Some(start) = lines.iter().position(|line| line.trim_start().starts_with("with st.form(")) else {
        return source.to_owned();
    };
    let depth = |line: &str| line.len() - line.trim_start().len();
    let inside = |line: &&&str| line.trim().is_empty() || depth(line) > depth(lines[start]);
    let body = lines[start + 1..].iter().take_while(inside).count();
    let last = lines[start + 1..=start + body].iter().rposition(|line| !line.trim().is_empty());
    let Some(last) = last else { return source.to_owned() };
    let end = start + 2 + last;
    let indent = " ".repeat(depth(lines[start]) + 4);
    let mut all: Vec<String> = lines.iter().map(|line| (*line).to_owned()).collect();
    all.insert(end, format!("{indent}if st.form_submit_button(\"Submit\"):"));
    all.insert(end + 1, format!("{indent}    st.success(\"Submitted, thank you\")"));
    with_end(all.join("\n"))
}

fn order_headings(source: &str, critique: &Critique) -> String {
    let skips = critique.issues.iter().any(|issue| issue.message.contains("skip a level"));
    if skips && !source.contains("st.header(") {
        source.replace("st.subheader(", "st.header(")
    } else {
        source.to_owned()
    }
}

/// Gives a page without a heading of the first level its title.
fn name_page(source: &str, critique: &Critique) -> String {
    let untitled = critique.issues.iter().any(|issue| issue.message.contains("has no title"));
    if !untitled || source.contains("st.title(") {
        return source.to_owned();
    }
    if source.matches("st.header(").count() == 1 {
        return source.replace("st.header(", "st.title(");
    }
    let lines: Vec<&str> = source.lines().collect();
    let after = lines.iter().rposition(|line| {
        line.starts_with("import ") || line.starts_with("from ") || line.starts_with("st.set_page_config")
    });
    let at = after.map_or(0, |at| at + 1);
    let mut all: Vec<String> = lines.iter().map(|line| (*line).to_owned()).collect();
    all.insert(at, "\nst.title(\"Overview\")".to_owned());
    with_end(all.join("\n"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::critic::{Exception, Lint, score};

    /// The app's main file after repair, with what `change` adds to the evidence.
    fn repaired(source: &str, change: impl Fn(&mut Evidence)) -> Option<String> {
        let mut evidence = Evidence::sample();
        change(&mut evidence);
        let fixed = repair(&Candidate::single("app.py", source), &score(&evidence), &evidence)?;
        Some(fixed.files[0].content.clone())
    }

    #[track_caller]
    fn check(source: &str, change: impl Fn(&mut Evidence), expected: Option<&str>) {
        assert_eq!(repaired(source, change).as_deref(), expected);
    }

    #[test]
    fn nothing_is_mended_where_nothing_is_wrong() {
        check("import streamlit as st\nst.title(\"A\")\n", |_| {}, None);
    }

    #[test]
    fn missing_imports_are_added_and_unused_ones_go() {
        let lint = |code: &str, at: &str, message: &str| Lint {
            code: code.into(),
            at: at.into(),
            message: message.into(),
        };
        check(
            "import streamlit as st\nst.write(pd.DataFrame())\n",
            |e| {
                e.statics.lint.push(lint("F821", "app.py:2:10", "Undefined name `pd`"));
            },
            Some("import pandas as pd\nimport streamlit as st\nst.write(pd.DataFrame())\n"),
        );
        check(
            "import os\nimport streamlit as st\n",
            |e| {
                e.statics.lint.push(lint("F401", "app.py:1:8", "`os` imported but unused"));
            },
            Some("import streamlit as st\n"),
        );
    }

    #[test]
    fn calls_get_their_present_names_and_labels() {
        check(
            "st.column(2)\nst.text_input(\"\")\nimport streamlit\n",
            |_| {},
            Some("st.columns(2)\nst.text_input(\"Text\")\nimport streamlit\n"),
        );
    }

    #[test]
    fn buttons_answer() {
        check(
            "import streamlit as st\nst.button(\"Refresh\")\n",
            |_| {},
            Some("import streamlit as st\nif st.button(\"Refresh\"):\n    st.success(\"Refreshed\")\n"),
        );
    }

    #[test]
    fn a_call_that_raises_is_taken_away() {
        let raise = |e: &mut Evidence| {
            let run = e.run.as_mut().unwrap();
            run.exceptions.push(Exception {
                kind: "TypeError".into(),
                message: String::new(),
                at: Some("app.py:2:1".into()),
            });
        };
        check(
            "import streamlit as st\nst.metric(1, 2, 3, 4, 5)\nst.title(\"A\")\n",
            raise,
            Some("import streamlit as st\nst.title(\"A\")\n"),
        );
    }

    #[test]
    fn the_user_interface_comes_first() {
        let file = |path: &str, content: &str| SourceFile { path: path.into(), content: content.into() };
        let candidate = Candidate {
            files: vec![
                file("config.py", "A = 1\n"),
                file("app.py", "import streamlit as st\nst.title(\"A\")\n"),
            ],
        };
        let evidence = Evidence::sample();
        let fixed = repair(&candidate, &score(&evidence), &evidence).unwrap();
        assert_eq!(fixed.files.iter().map(|f| f.path.as_str()).collect::<Vec<_>>(), ["app.py"]);
    }

    #[test]
    fn a_page_gets_a_title() {
        check(
            "import streamlit as st\nst.write(1)\n",
            |e| e.run.as_mut().unwrap().headings.clear(),
            Some("import streamlit as st\n\nst.title(\"Overview\")\nst.write(1)\n"),
        );
    }
}
