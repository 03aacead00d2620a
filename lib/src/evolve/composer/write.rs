//! A plan as an app, in the one idiom that every app of the composer is written in.
//!
//! What the idiom is and why is in docs/design/composer.md. In short: literal values, the same lines for the same jobs, no
//! reference that a slip in a label could break.

use super::{
    bank::Cell,
    lexicon::Entry,
    plan::{
        Board, Calculator, Chat, Converter, Display, Field, Form, Plan, Quiz, Records, Section, Steps, Trend,
        Upload,
    },
};
use crate::agent::Candidate;

/// Lines with their depth.
#[derive(Default)]
struct Lines(String);

impl Lines {
    fn add(&mut self, depth: usize, line: impl AsRef<str>) {
        let text = line.as_ref();
        if !text.is_empty() {
            self.0.push_str(&"    ".repeat(depth));
            self.0.push_str(text);
        }
        self.0.push('\n');
    }
}

impl Plan {
    /// The app as one file, `app.py`.
    pub fn write(&self) -> Candidate {
        let mut lines = Lines::default();
        lines.add(0, "import streamlit as st");
        lines.add(0, "");
        lines.add(0, format!("st.title({})", quoted(&self.title)));
        lines.add(0, format!("st.caption({})", quoted(&self.caption)));
        for section in &self.sections {
            lines.add(0, "");
            section.write(&mut lines);
        }
        Candidate::single("app.py", lines.0)
    }
}

impl Section {
    fn write(&self, lines: &mut Lines) {
        match self {
            Section::Metrics(metrics) => write_metrics(metrics, lines),
            Section::Note(text) => lines.add(0, format!("st.info({})", quoted(text))),
            Section::Records(records) => records.write(lines),
            Section::Trend(trend) => trend.write(lines),
            Section::Bars(bars) => {
                header(&bars.header, lines);
                let pairs = bars.bars.iter().map(|(name, n)| format!("{}: {n}", quoted(name)));
                lines.add(0, format!("st.bar_chart({{{}}})", joined(pairs)));
            }
            Section::Form(form) => {
                header(&form.header, lines);
                form.write(&["st.table(entry)"], lines);
            }
            Section::Steps(steps) => steps.write(lines),
            Section::Calculator(calculator) => calculator.write(lines),
            Section::Converter(converter) => converter.write(lines),
            Section::Quiz(quiz) => quiz.write(lines),
            Section::Chat(chat) => chat.write(lines),
            Section::Board(board) => board.write(lines),
            Section::Upload(upload) => upload.write(lines),
            Section::Button { label, done } => {
                lines.add(0, format!("if st.button({}):", quoted(label)));
                lines.add(1, format!("st.success({})", quoted(done)));
            }
        }
    }
}

fn header(text: &str, lines: &mut Lines) {
    lines.add(0, format!("st.header({})", quoted(text)));
}

fn write_metrics(metrics: &[(String, Cell)], lines: &mut Lines) {
    lines.add(0, "with st.container(horizontal=True):");
    for (label, value) in metrics {
        lines.add(1, format!("st.metric({}, {})", quoted(label), literal(value)));
    }
}

impl Form {
    /// The form; `effects` are the lines that follow a good submit.
    fn write(&self, effects: &[&str], lines: &mut Lines) {
        lines.add(0, "with st.form(\"form\"):");
        lines.add(1, "entry = {}");
        for field in &self.fields {
            lines.add(1, field.assignment());
        }
        lines.add(1, format!("if st.form_submit_button({}):", quoted(&self.submit)));
        let depth = if self.required {
            lines.add(2, "if \"\" in entry.values():");
            lines.add(3, "st.error(\"Please fill in every field.\")");
            lines.add(2, "else:");
            3
        } else {
            2
        };
        lines.add(depth, format!("st.success({})", quoted(&self.done)));
        for effect in effects {
            lines.add(depth, effect);
        }
    }
}

impl Field {
    fn assignment(&self) -> String {
        format!("entry[{}] = {}", quoted(&self.label), self.call())
    }

    fn call(&self) -> String {
        let label = quoted(&self.label);
        match &self.entry {
            Entry::Text => format!("st.text_input({label})"),
            Entry::Long => format!("st.text_area({label})"),
            Entry::Secret => format!("st.text_input({label}, type=\"password\")"),
            Entry::Number(value) => format!("st.number_input({label}, value={value})"),
            Entry::Slider(low, high) => format!("st.slider({label}, {low}, {high})"),
            Entry::Choice(options) => format!("st.selectbox({label}, {})", list(options)),
            Entry::Radio(options) => format!("st.radio({label}, {})", list(options)),
            Entry::Several(options) => format!("st.multiselect({label}, {})", list(options)),
            Entry::YesNo => format!("st.checkbox({label})"),
            Entry::Date => format!("st.date_input({label})"),
            Entry::Time => format!("st.time_input({label})"),
            Entry::File => format!("st.file_uploader({label})"),
        }
    }
}

impl Records {
    fn write(&self, lines: &mut Lines) {
        header(&self.header, lines);
        let rows = self.rows.iter().map(|row| dict(&self.columns, row));
        if self.form.is_some() {
            lines.add(0, "rows = st.session_state.setdefault(\"rows\", [");
        } else {
            lines.add(0, "rows = [");
        }
        rows.for_each(|row| lines.add(1, format!("{row},")));
        lines.add(0, if self.form.is_some() { "])" } else { "]" });
        if let Some(form) = &self.form {
            form.write(&["rows.append(entry)"], lines);
        }
        self.write_shown(lines);
    }

    /// Filters, then the rows that pass, then what sums them up.
    fn write_shown(&self, lines: &mut Lines) {
        let mut from = "rows";
        for (label, options) in &self.filters {
            let all: Vec<String> = std::iter::once("All".to_owned()).chain(options.iter().cloned()).collect();
            lines.add(0, format!("choice = st.selectbox({}, {})", quoted(label), list(&all)));
            lines.add(
                0,
                format!("shown = [row for row in {from} if choice == \"All\" or choice in row.values()]"),
            );
            from = "shown";
        }
        if let Some(search) = &self.search {
            lines.add(0, format!("search = st.text_input({})", quoted(search)));
            lines.add(0, format!("shown = [row for row in {from} if search.lower() in str(row).lower()]"));
            from = "shown";
        }
        match self.display {
            Display::Table => lines.add(0, format!("st.dataframe({from})")),
            Display::Cards => {
                lines.add(0, format!("for column, row in zip(st.columns(3), {from}):"));
                lines.add(1, "column.table(row)");
            }
        }
        if let Some(count) = &self.count {
            lines.add(0, format!("st.metric({}, len({from}))", quoted(count)));
        }
        if let Some((label, column)) = &self.total {
            lines.add(
                0,
                format!(
                    "st.metric({}, sum(row.get({}, 0) for row in {from}))",
                    quoted(label),
                    quoted(column)
                ),
            );
        }
        if let Some(label) = &self.download {
            let values = "\",\".join(map(str, row.values()))";
            let text = format!("\"\\n\".join({values} for row in {from})");
            lines.add(0, format!("st.download_button({}, {text}, \"rows.csv\")", quoted(label)));
        }
    }
}

impl Trend {
    fn write(&self, lines: &mut Lines) {
        header(&self.header, lines);
        lines.add(0, "data = {");
        for (name, numbers) in &self.series {
            let numbers = joined(numbers.iter().map(i64::to_string));
            lines.add(1, format!("{}: [{numbers}],", quoted(name)));
        }
        lines.add(0, "}");
        lines.add(0, format!("choice = st.selectbox({}, data)", quoted(&self.choice)));
        lines.add(0, if self.bars { "st.bar_chart(data[choice])" } else { "st.line_chart(data[choice])" });
        if let Some(total) = &self.total {
            lines.add(0, format!("st.metric({}, sum(data[choice]))", quoted(total)));
        }
    }
}

impl Steps {
    fn write(&self, lines: &mut Lines) {
        lines.add(0, "entry = {}");
        for (at, (name, fields)) in self.steps.iter().enumerate() {
            let title = quoted(&format!("Step {}: {name}", at + 1));
            lines.add(0, format!("with st.expander({title}, expanded=True):"));
            fields.iter().for_each(|field| lines.add(1, field.assignment()));
        }
        lines.add(0, "");
        header(&self.last, lines);
        if self.progress {
            lines.add(0, "filled = [value for value in entry.values() if value]");
            lines.add(0, "st.progress(len(filled) / len(entry))");
        }
        lines.add(0, "st.table(entry)");
        lines.add(0, format!("if st.button({}):", quoted(&self.submit)));
        lines.add(1, format!("st.success({})", quoted(&self.done)));
    }
}

impl Calculator {
    fn write(&self, lines: &mut Lines) {
        for (label, name, value) in &self.inputs {
            lines.add(0, format!("{name} = st.number_input({}, value={value})", quoted(label)));
        }
        lines.add(0, "");
        header("Result", lines);
        for (at, (label, expression)) in self.outputs.iter().enumerate() {
            if at == 0 {
                lines.add(0, format!("result = {expression}"));
                lines.add(0, format!("st.metric({}, round(result, 2))", quoted(label)));
            } else {
                lines.add(0, format!("st.metric({}, round({expression}, 2))", quoted(label)));
            }
        }
        if let Some(warning) = &self.warning {
            lines.add(0, "if result <= 0:");
            lines.add(1, format!("st.warning({})", quoted(warning)));
        }
        if let Some(chart) = &self.chart {
            lines.add(0, "");
            header(chart, lines);
            lines.add(0, "st.line_chart([result * step for step in range(1, 11)])");
        }
    }
}

impl Converter {
    fn write(&self, lines: &mut Lines) {
        lines.add(0, "data = {");
        for (name, by) in &self.factors {
            lines.add(1, format!("{}: {by},", quoted(name)));
        }
        lines.add(0, "}");
        lines.add(0, "choice = st.selectbox(\"Conversion\", data)");
        lines.add(0, format!("value = st.number_input({}, value=10)", quoted(&self.label)));
        lines.add(0, "result = value * data[choice]");
        lines.add(0, "st.metric(\"Result\", round(result, 2))");
    }
}

impl Quiz {
    fn write(&self, lines: &mut Lines) {
        lines.add(
            0,
            format!("right = {}", list(&self.questions.iter().map(|q| q.2.clone()).collect::<Vec<_>>())),
        );
        lines.add(0, "with st.form(\"form\"):");
        lines.add(1, "answers = []");
        for (question, options, _) in &self.questions {
            lines.add(1, format!("answers.append(st.radio({}, {}))", quoted(question), list(options)));
        }
        lines.add(1, "if st.form_submit_button(\"Check answers\"):");
        lines.add(2, "score = sum(answer in right for answer in answers)");
        lines.add(2, "st.metric(\"Score\", score)");
        lines.add(2, "st.progress(score / len(answers))");
        lines.add(2, format!("st.success({})", quoted(&self.done)));
    }
}

impl Chat {
    fn write(&self, lines: &mut Lines) {
        lines.add(0, "data = {");
        for (topic, answer) in &self.answers {
            lines.add(1, format!("{}: {},", quoted(topic), quoted(answer)));
        }
        lines.add(0, "}");
        lines.add(0, format!("choice = st.selectbox({}, data)", quoted(&self.choice)));
        lines.add(0, "st.info(data[choice])");
        lines.add(0, "");
        header("Conversation", lines);
        lines.add(
            0,
            format!(
                "messages = st.session_state.setdefault(\"messages\", [[\"assistant\", {}]])",
                quoted(&self.hello)
            ),
        );
        lines.add(0, format!("text = st.chat_input({})", quoted(&self.prompt)));
        lines.add(0, "if text:");
        lines.add(1, "messages.append([\"user\", text])");
        lines.add(1, "messages.append([\"assistant\", data[choice]])");
        lines.add(0, format!("if st.button({}):", quoted(&self.clear)));
        lines.add(1, "messages.clear()");
        lines.add(1, "st.success(\"The conversation is cleared\")");
        lines.add(0, "for role, message in messages:");
        lines.add(1, "st.chat_message(role).write(message)");
    }
}

impl Board {
    fn write(&self, lines: &mut Lines) {
        let names: Vec<String> = self.fields.iter().map(|field| field.label.clone()).collect();
        lines.add(0, "board = st.session_state.setdefault(\"board\", {");
        for (stage, cards) in &self.stages {
            let cards = joined(cards.iter().map(|card| dict(&names, card)));
            lines.add(1, format!("{}: [{cards}],", quoted(stage)));
        }
        lines.add(0, "})");
        lines.add(0, "with st.form(\"form\"):");
        lines.add(1, "entry = {}");
        self.fields.iter().for_each(|field| lines.add(1, field.assignment()));
        lines.add(1, "stage = st.selectbox(\"Stage\", board)");
        lines.add(1, format!("if st.form_submit_button({}):", quoted(&self.submit)));
        lines.add(2, "board[stage].append(entry)");
        lines.add(2, "st.success(\"Added\")");
        if self.moves {
            lines.add(0, "with st.form(\"move\"):");
            lines.add(1, "old = st.selectbox(\"Move from\", board)");
            lines.add(1, "new = st.selectbox(\"Move to\", board)");
            lines.add(1, "if st.form_submit_button(\"Move\"):");
            lines.add(2, "board[new] += board[old][:1]");
            lines.add(2, "del board[old][:1]");
            lines.add(2, "st.success(\"Moved\")");
        }
        lines.add(0, "");
        header(&self.header, lines);
        lines.add(0, "for column, stage in zip(st.columns(len(board)), board):");
        lines.add(1, "column.metric(stage, len(board[stage]))");
        lines.add(1, "column.table(board[stage])");
    }
}

impl Upload {
    fn write(&self, lines: &mut Lines) {
        lines.add(0, format!("file = st.file_uploader({})", quoted(&self.label)));
        lines.add(0, "if file:");
        lines.add(1, format!("st.success({})", quoted(&self.done)));
    }
}

fn dict(keys: &[String], cells: &[Cell]) -> String {
    let pairs = keys.iter().zip(cells).map(|(key, cell)| format!("{}: {}", quoted(key), literal(cell)));
    format!("{{{}}}", joined(pairs))
}

fn list(texts: &[String]) -> String {
    format!("[{}]", joined(texts.iter().map(|text| quoted(text))))
}

fn joined(parts: impl Iterator<Item = String>) -> String {
    parts.collect::<Vec<_>>().join(", ")
}

fn literal(cell: &Cell) -> String {
    match cell {
        Cell::Text(text) => quoted(text),
        Cell::Number(number) => number.to_string(),
    }
}

/// A Python string: nothing in it needs an escape, because what would is left out.
pub(super) fn quoted(text: &str) -> String {
    let clean: String = text.chars().filter(|c| !c.is_control() && !"\"\\".contains(*c)).collect();
    format!("\"{}\"", clean.trim())
}
