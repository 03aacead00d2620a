//! Facts from the source alone, by ruff's parser.
//!
//! Parsing, visiting and dropping a deep tree recurse; on a thread's usual 2 MiB stack 64,000 nested operators abort the
//! process. So sources are capped at [`SOURCE_CAP`], everything happens on a thread with [`STACK`], and the visitor stops
//! at [`visit::DEPTH`].

mod config;
mod glance;
mod secrets;
mod visit;

use std::collections::BTreeSet;

use ruff_python_ast::token::TokenKind;
use ruff_python_parser::{Mode, ParseOptions, Parsed, parse_unchecked};
use ruff_source_file::LineIndex;
use ruff_text_size::{Ranged, TextSize};

pub(crate) use self::glance::{Glance, Nature, glance};
use self::visit::Facts;
use super::{Call, Fault, FileFacts, Statics, error::CriticError};
use crate::agent::{Candidate, SourceFile};

/// Larger files are not read, in bytes.
pub(crate) const SOURCE_CAP: usize = 64 * 1024;
/// Stack of the thread that parses, in bytes; memory is taken only as deep as the source is.
pub(crate) const STACK: usize = 256 * 1024 * 1024;
/// Files beyond this number are not read.
const MOST_FILES: usize = 200;
/// Facts of one sort that evidence keeps.
const MOST_FACTS: usize = 400;
/// Syntax errors beyond this number say nothing new.
const MOST_ERRORS: usize = 5;

/// Reads a candidate's files as data; never fails on what they contain.
pub(super) async fn analyse(candidate: &Candidate) -> Result<Statics, CriticError> {
    let files = candidate.files.clone();
    let (sender, receiver) = tokio::sync::oneshot::channel();
    std::thread::Builder::new()
        .name("critic-parse".to_owned())
        .stack_size(STACK)
        .spawn(move || {
            // The receiver is gone only when nobody wants the answer any more.
            let _ = sender.send(read(&files));
        })
        .map_err(|e| CriticError::Internal(format!("cannot start a thread: {e}")))?;
    receiver.await.map_err(|_| CriticError::Internal("the parsing thread ended early".to_owned()))
}

/// Does something that parses sources of up to [`SOURCE_CAP`], on a thread whose stack none of them exhausts.
///
/// # Errors
/// The thread cannot be started.
pub(crate) fn on_deep_stack<T: Send>(work: impl FnOnce() -> T + Send) -> std::io::Result<T> {
    std::thread::scope(|scope| {
        let builder = std::thread::Builder::new().name("parse".to_owned()).stack_size(STACK);
        let ended = builder.spawn_scoped(scope, work)?.join();
        Ok(ended.unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
    })
}

/// The facts of all files. To be called with a large stack.
fn read(files: &[SourceFile]) -> Statics {
    let mut statics = Statics::default();
    let sources: Vec<Source> = files.iter().take(MOST_FILES).map(Source::of).collect();
    let used: BTreeSet<String> = sources.iter().flat_map(Source::names_used).collect();
    for source in &sources {
        source.report(&used, &mut statics);
    }
    let mut seen = BTreeSet::new();
    statics.imports.retain(|module| seen.insert(module.clone()));
    statics.imports.truncate(MOST_FACTS);
    statics.calls.truncate(MOST_FACTS);
    let Statics { tamper, secrets, removed, audience, whole_state, empty_labels, dead, .. } = &mut statics;
    for faults in [tamper, secrets, removed, audience, whole_state, empty_labels, dead] {
        faults.truncate(MOST_FACTS / 10);
    }
    statics
}

/// One file, parsed when it is Python.
struct Source<'a> {
    file: &'a SourceFile,
    lines: LineIndex,
    /// Lines of code: those with anything on them but comments and docstrings (0-based).
    code: BTreeSet<usize>,
    parsed: Option<Parsed<ruff_python_ast::Mod>>,
}

impl<'a> Source<'a> {
    fn of(file: &'a SourceFile) -> Self {
        Self::with(file, parse(file))
    }

    fn with(file: &'a SourceFile, parsed: Option<Parsed<ruff_python_ast::Mod>>) -> Self {
        let lines = LineIndex::from_source_text(&file.content);
        let code = match &parsed {
            Some(parsed) => lines_of_code(&file.content, &lines, parsed),
            None => file
                .content
                .lines()
                .enumerate()
                .filter(|(_, line)| !line.trim().is_empty())
                .map(|(n, _)| n)
                .collect(),
        };
        Self { file, lines, code, parsed }
    }

    /// Lines of code in a range (0-based).
    fn filled(&self, range: std::ops::Range<usize>) -> u32 {
        u32::try_from(self.code.range(range).count()).unwrap_or(u32::MAX)
    }

    fn body(&self) -> &[ruff_python_ast::Stmt] {
        self.parsed.as_ref().map_or(&[], body)
    }

    fn parses(&self) -> bool {
        self.parsed.as_ref().is_some_and(|parsed| parsed.has_valid_syntax())
    }

    fn names_used(&self) -> BTreeSet<String> {
        visit::names_used(self.body())
    }

    fn place(&self, offset: TextSize) -> String {
        let place = self.lines.line_column(offset, &self.file.content);
        format!("{}:{}:{}", self.file.path, place.line, place.column)
    }

    fn report(&self, used: &BTreeSet<String>, statics: &mut Statics) {
        statics.errors.extend(self.errors());
        let facts = visit::facts(self.body(), used);
        let ui = facts.streamlit && facts.calls.iter().any(|call| !call.dead);
        statics.files.push(FileFacts {
            path: self.file.path.clone(),
            lines: self.filled(0..usize::MAX),
            config_lines: self.config_lines(ui),
            python: is_python(self.file),
            parses: self.parses(),
            ui,
        });
        self.take(facts, statics);
        if !is_python(self.file) && self.file.content.len() <= SOURCE_CAP {
            let found = secrets::in_lines(&self.file.content);
            statics.secrets.extend(found.map(|(offset, message)| Fault::new(self.place(offset), message)));
        }
    }

    fn errors(&self) -> Vec<Fault> {
        if is_python(self.file) && self.parsed.is_none() {
            let message = format!("`{}` is larger than 64 KiB and is not read: shorten it", self.file.path);
            return vec![Fault::new(format!("{}:1:1", self.file.path), message)];
        }
        let errors = self.parsed.iter().flat_map(|parsed| parsed.errors());
        let fault = |error: &ruff_python_parser::ParseError| {
            let message = format!("does not compile: {}", error.error);
            Fault::new(self.place(error.location.start()), message)
        };
        errors.take(MOST_ERRORS).map(fault).collect()
    }

    fn config_lines(&self, ui: bool) -> u32 {
        let all = self.filled(0..usize::MAX);
        if !is_python(self.file) {
            return if config::is_config_file(&self.file.path) { all } else { 0 };
        }
        if !self.parses() {
            return 0;
        }
        let of = |offset: TextSize| self.lines.line_index(offset).to_zero_indexed();
        if !ui && config::is_config_module(&self.file.path, self.body()) {
            return all;
        }
        let blocks = config::constants(self.body());
        blocks.map(|range| self.filled(of(range.start())..of(range.end()) + 1)).sum()
    }

    fn take(&self, facts: Facts, statics: &mut Statics) {
        let fault = |(offset, message): (TextSize, String)| Fault::new(self.place(offset), message);
        statics.imports.extend(facts.imports);
        let room = MOST_FACTS.saturating_sub(statics.other_calls.len());
        statics.other_calls.extend(facts.other_calls.into_iter().take(room));
        statics.tamper.extend(facts.tamper.into_iter().map(fault));
        statics.secrets.extend(facts.secrets.into_iter().map(fault));
        statics.removed.extend(facts.removed.into_iter().map(fault));
        statics.audience.extend(facts.audience.into_iter().map(fault));
        statics.whole_state.extend(facts.whole_state.into_iter().map(fault));
        statics.empty_labels.extend(facts.empty_labels.into_iter().map(fault));
        statics.dead.extend(facts.dead.into_iter().map(fault));
        statics.functions += facts.functions;
        statics.page_title |= facts.page_title;
        let call = |call: visit::CallAt| Call {
            path: call.path,
            label: call.label,
            at: self.place(call.offset),
            dead: call.dead,
        };
        statics.calls.extend(facts.calls.into_iter().map(call));
    }
}

/// A Python file that is not too large, as ruff reads it; what does not parse has errors.
fn parse(file: &SourceFile) -> Option<Parsed<ruff_python_ast::Mod>> {
    let readable = is_python(file) && file.content.len() <= SOURCE_CAP;
    readable.then(|| parse_unchecked(&file.content, ParseOptions::from(Mode::Module)))
}

fn body(parsed: &Parsed<ruff_python_ast::Mod>) -> &[ruff_python_ast::Stmt] {
    match parsed.syntax() {
        ruff_python_ast::Mod::Module(module) => &module.body,
        ruff_python_ast::Mod::Expression(_) => &[],
    }
}

/// Python by its name; a file without an extension by its content.
pub(super) fn is_python(file: &SourceFile) -> bool {
    let name = file.path.rsplit('/').next().unwrap_or_default().to_ascii_lowercase();
    name.ends_with(".py") || (!name.contains('.') && file.content.contains("import streamlit"))
}

/// Lines that hold a token of code: padding with comments or with strings that nobody uses changes no share of them.
fn lines_of_code(text: &str, lines: &LineIndex, parsed: &Parsed<ruff_python_ast::Mod>) -> BTreeSet<usize> {
    let line = |offset: TextSize| lines.line_index(offset).to_zero_indexed();
    let unused = visit::unused_strings(body(parsed));
    let mut code = BTreeSet::new();
    for token in parsed.tokens() {
        let range = token.range();
        let blank = text[range].trim().is_empty();
        if token.kind() == TokenKind::Comment
            || blank
            || unused.iter().any(|string| string.contains_range(range))
        {
            continue;
        }
        code.extend(line(range.start())..=line(range.end()));
    }
    code
}

#[cfg(test)]
mod tests;
