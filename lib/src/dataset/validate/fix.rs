//! A corrected copy of a file: what can be mended without inventing text is mended, the rest is left out.
//!
//! Mended are a byte-order mark, blank lines, keys that nobody reads, weights where they may not be, duplicates, and answers
//! that begin with configuration. Rows that need no change keep their bytes.

use std::{
    collections::{BTreeMap, HashSet},
    io::{self, BufRead, Write},
};

use foldhash::fast::FixedState;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{
    Options,
    lines::{self, Ended},
    problem::{Code, Problem},
    read_code,
    row::{self, Format},
    rules, without_mark,
};
use crate::{
    agent::{self, Candidate},
    cancel::Cancel,
    critic::{Nature, glance, on_deep_stack},
};

/// What became of a file's rows.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fixed {
    /// Rows of the copy.
    pub rows: u64,
    /// Of them: those that were changed.
    pub changed: u64,
    /// Lines that are not in the copy.
    pub left_out: u64,
    /// Why they are not.
    pub reasons: BTreeMap<Code, u64>,
}

/// What becomes of one line.
#[derive(Debug, PartialEq)]
enum Mended {
    Same,
    Changed(String),
    Out(Code),
}

/// Writes the corrected copy, and as a unified diff without context what was changed.
///
/// Rows of another format than the asked one are left out: ask for what [`super::validate`] found the file to be.
///
/// # Errors
/// The file cannot be read, or one of the two not be written; or the user stopped it.
pub fn fix(
    source: impl BufRead + Send,
    copy: impl Write + Send,
    diff: impl Write + Send,
    options: &Options,
    cancel: &Cancel,
) -> io::Result<Fixed> {
    on_deep_stack(|| {
        let mut fixer = Fixer { copy, diff, options, seen: HashSet::default(), fixed: Fixed::default() };
        fixer.all(source, cancel)?;
        Ok(fixer.fixed)
    })?
}

struct Fixer<'o, C, D> {
    copy: C,
    diff: D,
    options: &'o Options,
    seen: HashSet<u64, FixedState>,
    fixed: Fixed,
}

impl<C: Write, D: Write> Fixer<'_, C, D> {
    fn all(&mut self, mut source: impl BufRead, cancel: &Cancel) -> io::Result<()> {
        writeln!(self.diff, "--- original\n+++ fixed")?;
        let (mut line, mut number) = (Vec::new(), 0);
        while let Some(ended) = lines::read_line(&mut source, &mut line)? {
            if cancel.is_cancelled() {
                return Err(io::ErrorKind::Interrupted.into());
            }
            number += 1;
            if ended == Ended::TooLong {
                self.leave_out(number, Code::LineTooLong)?;
                self.diff.write_all(b"-")?;
                self.diff.write_all(&line)?;
                lines::pass_on(&mut source, |part| self.diff.write_all(part))?;
                self.diff.write_all(b"\n")?;
            } else {
                self.line(number, &line, ended == Ended::File)?;
            }
        }
        self.copy.flush()?;
        self.diff.flush()
    }

    /// Deals with a line, which may be the last without a newline.
    fn line(&mut self, number: u64, line: &[u8], is_open: bool) -> io::Result<()> {
        let body = if number == 1 { without_mark(line) } else { line };
        let mended = match std::str::from_utf8(body) {
            Err(_) => Mended::Out(Code::NotUtf8),
            Ok(text) if text.trim().is_empty() => Mended::Out(Code::BlankLine),
            Ok(text) => self.mend(text),
        };
        let new = match &mended {
            Mended::Same => body,
            Mended::Changed(text) => text.as_bytes(),
            Mended::Out(code) => {
                self.leave_out(number, *code)?;
                return self.write_old(line, is_open);
            }
        };
        self.fixed.rows += 1;
        write_line(&mut self.copy, b"", new)?;
        self.fixed.changed += u64::from(line != new);
        if line != new || is_open {
            writeln!(self.diff, "@@ -{number},1 +{},1 @@", self.fixed.rows)?;
            self.write_old(line, is_open)?;
            write_line(&mut self.diff, b"+", new)?;
        }
        Ok(())
    }

    /// Counts a line that is not in the copy, and begins its part of the diff.
    fn leave_out(&mut self, number: u64, why: Code) -> io::Result<()> {
        *self.fixed.reasons.entry(why).or_default() += 1;
        self.fixed.left_out += 1;
        writeln!(self.diff, "@@ -{number},1 +{},0 @@", self.fixed.rows)
    }

    fn write_old(&mut self, line: &[u8], is_open: bool) -> io::Result<()> {
        write_line(&mut self.diff, b"-", line)?;
        if is_open { writeln!(self.diff, "\\ No newline at end of file") } else { Ok(()) }
    }

    fn mend(&mut self, text: &str) -> Mended {
        let mended = mend(text, self.options);
        let new = match &mended {
            Mended::Same => text,
            Mended::Changed(new) => new,
            Mended::Out(_) => return mended,
        };
        match row::read(new, format_of(self.options), self.options.place).print {
            Some(print) if !self.seen.insert(print) => Mended::Out(Code::Duplicate),
            _ => mended,
        }
    }
}

fn write_line(to: &mut impl Write, mark: &[u8], line: &[u8]) -> io::Result<()> {
    to.write_all(mark)?;
    to.write_all(line)?;
    to.write_all(b"\n")
}

/// The problems of a line that a copy may not have.
fn problems(text: &str, options: &Options) -> Vec<Problem> {
    let mut row = row::read(text, format_of(options), options.place);
    let (_, in_code) = read_code(&row, options.ui_first);
    row.problems.extend(in_code);
    // What follows the last answer is not learnt, and harms nobody.
    row.problems.retain(|problem| problem.code != Code::LastNotAssistant);
    row.problems
}

fn format_of(options: &Options) -> Format {
    options.format.unwrap_or_default()
}

fn mend(text: &str, options: &Options) -> Mended {
    let before = problems(text, options);
    let Some(first) = before.first() else { return Mended::Same };
    // Which of two was meant is not ours to say.
    if before.iter().any(|problem| problem.code == Code::RepeatedKey) {
        return Mended::Out(Code::RepeatedKey);
    }
    let Ok(Value::Object(mut fields)) = serde_json::from_str::<Value>(text) else {
        return Mended::Out(first.code);
    };
    prune(&mut fields, format_of(options));
    if before.iter().any(|problem| problem.code == Code::ConfigFirst) {
        each_taught(&mut fields, ui_to_the_front);
    }
    let new = Value::Object(fields).to_string();
    match problems(&new, options).first() {
        None => Mended::Changed(new),
        Some(left) => Mended::Out(left.code),
    }
}

/// Takes out keys that nobody reads, and weights where they may not be.
fn prune(fields: &mut Map<String, Value>, format: Format) {
    let (known, of_messages) = rules::known_keys(format);
    if let Some(known) = known {
        fields.retain(|key, _| known.contains(key.as_str()));
    }
    each_list(fields, |messages| {
        for message in messages.iter_mut().filter_map(Value::as_object_mut) {
            message.retain(|key, _| of_messages.contains(&key.as_str()));
            let is_answer = rules::role_of(message) == Some("assistant");
            match message.get("weight").map(weight) {
                Some(Weight::Plain(weight)) if is_answer => {
                    drop(message.insert("weight".into(), weight.into()))
                }
                Some(Weight::Unclear) if is_answer => {}
                _ => drop(message.remove("weight")),
            }
        }
    });
}

/// What a weight means to say.
enum Weight {
    /// Whether the answer is trained on, in whatever way that was written.
    Plain(u64),
    /// More than trained on, which there is not, or nothing.
    Usual,
    /// Whoever takes it away decides what is trained on.
    Unclear,
}

fn weight(value: &Value) -> Weight {
    let number = match value {
        Value::Null => return Weight::Usual,
        Value::Bool(trained) => f64::from(u8::from(*trained)),
        Value::String(text) => text.trim().parse().unwrap_or(f64::NAN),
        other => other.as_f64().unwrap_or(f64::NAN),
    };
    match number {
        0.0 => Weight::Plain(0),
        1.0 => Weight::Plain(1),
        more if more > 1.0 => Weight::Usual,
        _ => Weight::Unclear,
    }
}

/// Every answer of a row that is trained on: of a pair, the preferred one. A worse one keeps its faults.
fn each_taught(fields: &mut Map<String, Value>, mut with: impl FnMut(&mut Value)) {
    for key in ["messages", "preferred_output"] {
        let messages = fields.get_mut(key).and_then(Value::as_array_mut).into_iter().flatten();
        let is_taught = |message: &&mut Value| message.get("weight").and_then(Value::as_u64) != Some(0);
        messages.filter(is_taught).for_each(&mut with);
    }
}

/// Every list of messages of a row.
fn each_list(fields: &mut Map<String, Value>, mut with: impl FnMut(&mut Vec<Value>)) {
    for key in ["messages", "preferred_output", "non_preferred_output"] {
        fields.get_mut(key).and_then(Value::as_array_mut).into_iter().for_each(&mut with);
    }
    let input = fields.get_mut("input").and_then(|input| input.get_mut("messages"));
    input.and_then(Value::as_array_mut).into_iter().for_each(with);
}

/// Puts the user interface of an answer before its other files and configuration after them.
fn ui_to_the_front(message: &mut Value) {
    if !rules::is_assistant(message) {
        return;
    }
    let Some(answer) = message.get("content").and_then(Value::as_str) else { return };
    let files = agent::parse_reply(answer).files;
    let natures = glance(&files).natures;
    let rank = |nature: &Nature| match nature {
        Nature::Ui => 0,
        Nature::Other => 1,
        Nature::Config => 2,
    };
    if natures.is_sorted_by_key(rank) {
        return;
    }
    let mut ranked: Vec<_> = natures.iter().map(rank).zip(files).collect();
    ranked.sort_by_key(|(rank, _)| *rank);
    let files = ranked.into_iter().map(|(_, file)| file).collect();
    message["content"] = agent::reply_of(&Candidate { files }).into();
}

#[cfg(test)]
mod tests {
    use super::{super::Place, *};

    const APP: &str = "```python\n# app.py\nimport streamlit as st\nst.title(\"A\")\nst.button(\"b\")\n```";

    fn row(answer: &str, more: &str) -> String {
        let answer = serde_json::to_string(answer).unwrap();
        format!(
            r#"{{"messages":[{{"role":"user","content":"a"}},{{"role":"assistant","content":{answer}{more}}}]}}"#
        )
    }

    #[track_caller]
    fn check(line: &str, expected: Mended) {
        check_at(Place::Hosted, line, expected);
    }

    #[track_caller]
    fn check_at(place: Place, line: &str, expected: Mended) {
        let options = Options { place, ..Options::default() };
        let mended = on_deep_stack(|| mend(line, &options)).unwrap();
        assert_eq!(mended, expected, "{line}");
    }

    #[test]
    fn what_needs_no_new_text_is_mended() {
        check(&row("b", ""), Mended::Same);
        check(&row("b", r#","weight":1"#), Mended::Same);
        check(&row("b", r#","weight":2"#), Mended::Changed(row("b", "")));
        for (written, meant) in [("1.0", 1), ("true", 1), ("\"1\"", 1)] {
            let [old, new] = [written, &meant.to_string()].map(|w| row("b", &format!(r#","weight":{w}"#)));
            check(&old, Mended::Changed(new));
        }
        check(&row("b", r#","mood":2"#), Mended::Changed(row("b", "")));
        check(&row("b", "").replacen('{', r#"{"id":7,"#, 1), Mended::Changed(row("b", "")));
        let config = "```text\n# requirements.txt\nstreamlit\n```";
        check(
            &row(&format!("{config}\n\n{APP}"), ""),
            Mended::Changed(row(&format!("{APP}\n\n{config}"), "")),
        );
    }

    /// Rows of the copy, those of them that were changed, and lines that were left out.
    #[track_caller]
    fn kept(text: &str, format: Format) -> (u64, u64, u64) {
        let options = Options { format: Some(format), ..Options::default() };
        let fixed = fix(text.as_bytes(), io::sink(), io::sink(), &options, &Cancel::new()).unwrap();
        (fixed.rows, fixed.changed, fixed.left_out)
    }

    #[test]
    fn rows_of_another_format_are_left_out_wherever_they_are() {
        let answer = |text: &str| format!(r#"[{{"role":"assistant","content":"{text}"}}]"#);
        let pair = format!(
            r#"{{"input":{{"messages":[{{"role":"user","content":"a"}}]}},"preferred_output":{},"non_preferred_output":{}}}"#,
            answer("b"),
            answer("c")
        );
        let chat = row("b", "");
        for text in [format!("{chat}\n{{\n{pair}\n"), format!("{pair}\n{chat}\n{{\n")] {
            assert_eq!(kept(&text, Format::Chat), (1, 0, 2), "{text}");
            assert_eq!(kept(&text, Format::Dpo), (1, 0, 2), "{text}");
        }
    }

    /// Taking the key away would teach what was not to be taught.
    #[test]
    fn an_answer_that_is_not_trained_on_stays_so() {
        let two = |weight: &str| {
            row("good", "").replacen(
                r#"[{"#,
                &format!(r#"[{{"role":"user","content":"x"}},{{"role":"assistant","content":"bad","weight":{weight}}},{{"#),
                1,
            )
        };
        for weight in ["0.0", "-0", "false", "\"0\""] {
            check(&two(weight), Mended::Changed(two("0")));
        }
        for weight in ["0.5", "-1", "\"no\""] {
            check(&two(weight), Mended::Out(Code::Weight));
        }
    }

    #[test]
    fn the_worse_answer_of_a_pair_keeps_its_faults() {
        let config = "```text\n# requirements.txt\nstreamlit\n```";
        let answer = |text: &str| serde_json::json!([{"role": "assistant", "content": text}]);
        let pair = |preferred: &str| {
            serde_json::json!({
                "input": {"messages": [{"role": "user", "content": "a"}]},
                "preferred_output": answer(preferred),
                "non_preferred_output": answer(&format!("{config}\n\n{APP}")),
            })
        };
        let line = pair(&format!("{config}\n\n{APP}")).to_string();
        let dpo = Options { format: Some(Format::Dpo), ..Options::default() };
        let mended = on_deep_stack(|| mend(&line, &dpo)).unwrap();
        let Mended::Changed(new) = mended else { panic!("{mended:?}") };
        let wanted = pair(&format!("{APP}\n\n{config}"));
        assert_eq!(serde_json::from_str::<Value>(&new).unwrap(), wanted);
    }

    #[test]
    fn the_last_line_needs_no_newline_and_the_diff_says_so() {
        let good = row("b", "");
        let fixed = |text: &str| {
            let (mut copy, mut diff) = (Vec::new(), Vec::new());
            let fixed =
                fix(text.as_bytes(), &mut copy, &mut diff, &Options::default(), &Cancel::new()).unwrap();
            (String::from_utf8(copy).unwrap(), String::from_utf8(diff).unwrap(), fixed.changed)
        };
        let head = "--- original\n+++ fixed\n";
        let none = "\\ No newline at end of file\n";
        let same = (format!("{good}\n"), format!("{head}@@ -1,1 +1,1 @@\n-{good}\n{none}+{good}\n"), 0);
        assert_eq!(fixed(&good), same);
        let out = (format!("{good}\n"), format!("{head}@@ -2,1 +1,0 @@\n-{{\n{none}"), 0);
        assert_eq!(fixed(&format!("{good}\n{{")), out);
    }

    #[test]
    fn what_is_not_trained_on_here_is_left_out_of_a_copy_for_here() {
        let refusal = row("b", r#","refusal":"no""#);
        check_at(Place::Hosted, &refusal, Mended::Same);
        check_at(Place::Local, &refusal, Mended::Out(Code::NotTrainedLocally));
        check_at(Place::Local, &row("b", ""), Mended::Same);
    }

    #[test]
    fn what_needs_new_text_is_left_out() {
        check("{", Mended::Out(Code::NotJson));
        check(&row("", ""), Mended::Out(Code::MissingContent));
        check(&row("b", r#","content":"c""#), Mended::Out(Code::RepeatedKey));
        check(&row(&APP.replace("(\"A\")", "("), ""), Mended::Out(Code::CodeDoesNotParse));
        check(&row("```text\n# requirements.txt\nstreamlit\n```", ""), Mended::Out(Code::ConfigFirst));
    }
}
