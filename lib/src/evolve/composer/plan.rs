//! A plan: what a page shows, in order, before a line of it is written.

use std::collections::BTreeSet;

use super::{bank::Cell, lexicon::Entry};

/// What a page holds.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    pub(super) title: String,
    pub(super) caption: String,
    pub(super) sections: Vec<Section>,
}

/// A part of a page. Each stands alone: none reads what another defines, so that parts can be moved, dropped and grafted.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Section {
    Metrics(Vec<(String, Cell)>),
    Note(String),
    Records(Box<Records>),
    Trend(Trend),
    Bars(Bars),
    Form(Form),
    Steps(Steps),
    Calculator(Calculator),
    Converter(Converter),
    Quiz(Quiz),
    Chat(Chat),
    Board(Board),
    Upload(Upload),
    Button { label: String, done: String },
}

/// Something that a person enters.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Field {
    pub label: String,
    pub entry: Entry,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) struct Form {
    pub header: String,
    pub fields: Vec<Field>,
    pub submit: String,
    pub done: String,
    /// An empty text is an error.
    pub required: bool,
}

/// How rows are shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Display {
    Table,
    /// A column each, three of them.
    Cards,
}

/// A table of rows with what narrows it, adds to it and sums it up.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Records {
    pub header: String,
    pub columns: Vec<String>,
    /// As many cells each as there are columns.
    pub rows: Vec<Vec<Cell>>,
    /// Adds a row.
    pub form: Option<Form>,
    pub search: Option<String>,
    /// Label and options of each select box.
    pub filters: Vec<(String, Vec<String>)>,
    pub display: Display,
    /// Label of the number of rows shown.
    pub count: Option<String>,
    /// Label and column of a sum.
    pub total: Option<(String, String)>,
    pub download: Option<String>,
}

/// Numbers by a choice, as a chart.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Trend {
    pub header: String,
    pub choice: String,
    pub series: Vec<(String, Vec<i64>)>,
    pub bars: bool,
    /// Label of the sum of what is chosen.
    pub total: Option<String>,
}

/// Named numbers as a bar chart.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Bars {
    pub header: String,
    pub bars: Vec<(String, i64)>,
}

/// A guided flow: an open expander a step, then what was entered and the button that sends it.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Steps {
    pub steps: Vec<(String, Vec<Field>)>,
    /// A bar of how much is filled in.
    pub progress: bool,
    pub last: String,
    pub submit: String,
    pub done: String,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) struct Calculator {
    /// Label, Python name, value.
    pub inputs: Vec<(String, String, i64)>,
    /// Label and expression.
    pub outputs: Vec<(String, String)>,
    pub warning: Option<String>,
    pub chart: Option<String>,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) struct Converter {
    pub label: String,
    pub factors: Vec<(String, String)>,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) struct Quiz {
    /// Question, options, right answer.
    pub questions: Vec<(String, Vec<String>, String)>,
    pub done: String,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) struct Chat {
    pub hello: String,
    pub choice: String,
    /// Topic and what is said about it.
    pub answers: Vec<(String, String)>,
    pub prompt: String,
    pub clear: String,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) struct Board {
    pub header: String,
    /// Stage and its cards, each with a text for every field.
    pub stages: Vec<(String, Vec<Vec<Cell>>)>,
    pub fields: Vec<Field>,
    pub submit: String,
    pub moves: bool,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) struct Upload {
    pub label: String,
    pub done: String,
}

impl Plan {
    /// Makes the plan safe to write: labels of controls differ, at most one section of a kind, none is empty.
    pub(super) fn settled(mut self) -> Self {
        let mut kinds = BTreeSet::new();
        let mut form = false;
        self.sections.retain(|section| {
            let second = section.has_form() && form;
            form |= section.has_form();
            !second
                && !section.is_empty()
                && (matches!(section, Section::Button { .. }) || kinds.insert(section.rank()))
        });
        self.sections.sort_by_key(Section::rank);
        // Buttons of the same verb do the same: the first stays.
        let mut verbs = BTreeSet::new();
        self.sections.retain(|section| match section {
            Section::Button { label, .. } => {
                verbs.insert(label.split(' ').next().unwrap_or_default().to_lowercase())
            }
            _ => true,
        });
        self.sections.iter_mut().for_each(Section::settle);
        self.sections.retain(|section| !section.is_empty());
        self
    }
}

impl Section {
    /// Place on the page: the same order in every app.
    pub(super) fn rank(&self) -> u8 {
        match self {
            Section::Note(_) => 0,
            Section::Metrics(_) => 1,
            Section::Upload(_) => 2,
            Section::Form(_) | Section::Steps(_) | Section::Calculator(_) | Section::Converter(_) => 3,
            Section::Quiz(_) | Section::Chat(_) | Section::Board(_) => 4,
            Section::Records(_) => 5,
            Section::Trend(_) => 6,
            Section::Bars(_) => 7,
            Section::Button { .. } => 8,
        }
    }

    fn has_form(&self) -> bool {
        match self {
            Section::Form(_) | Section::Quiz(_) | Section::Board(_) => true,
            Section::Records(records) => records.form.is_some(),
            _ => false,
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        match self {
            Section::Metrics(metrics) => metrics.is_empty(),
            Section::Records(records) => records.columns.len() < 2,
            Section::Trend(trend) => trend.series.is_empty(),
            Section::Bars(bars) => bars.bars.is_empty(),
            Section::Form(form) => form.fields.is_empty(),
            Section::Steps(steps) => steps.steps.is_empty(),
            Section::Calculator(calculator) => calculator.inputs.is_empty() || calculator.outputs.is_empty(),
            Section::Quiz(quiz) => quiz.questions.is_empty(),
            Section::Board(board) => board.stages.is_empty() || board.fields.is_empty(),
            _ => false,
        }
    }

    fn settle(&mut self) {
        match self {
            Section::Metrics(metrics) => distinct(metrics, |(label, _)| label.clone()),
            Section::Form(form) => form.settle(),
            Section::Steps(steps) => {
                let mut labels = BTreeSet::new();
                for (_, fields) in &mut steps.steps {
                    fields.retain(|field| labels.insert(field.label.to_lowercase()));
                    fields.truncate(3);
                }
                steps.steps.retain(|(_, fields)| !fields.is_empty());
                steps.steps.truncate(4);
            }
            Section::Records(records) => records.settle(),
            Section::Calculator(calculator) => distinct(&mut calculator.inputs, |(_, name, _)| name.clone()),
            Section::Board(board) => distinct(&mut board.fields, |field| field.label.to_lowercase()),
            _ => {}
        }
    }
}

impl Form {
    fn settle(&mut self) {
        distinct(&mut self.fields, |field| field.label.to_lowercase());
        self.fields.truncate(8);
    }
}

impl Records {
    fn settle(&mut self) {
        let mut seen = BTreeSet::new();
        let keep: Vec<bool> = self.columns.iter().map(|column| seen.insert(column.to_lowercase())).collect();
        let kept = |i: usize| keep.get(i).copied().unwrap_or(false);
        self.columns =
            self.columns.iter().enumerate().filter(|(i, _)| kept(*i)).map(|(_, c)| c.clone()).collect();
        for row in &mut self.rows {
            *row = row.iter().enumerate().filter(|(i, _)| kept(*i)).map(|(_, c)| c.clone()).collect();
        }
        distinct(&mut self.filters, |(label, _)| label.to_lowercase());
        if let Some(form) = &mut self.form {
            form.settle();
        }
    }
}

fn distinct<T>(list: &mut Vec<T>, name: impl Fn(&T) -> String) {
    let mut seen = BTreeSet::new();
    list.retain(|one| seen.insert(name(one)));
}
