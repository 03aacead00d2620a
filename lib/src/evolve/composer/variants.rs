//! Plans near a plan: the composer's search.
//!
//! A variant keeps what the page is for and changes how it is laid out. Variant 0 is the plan itself; a number always means
//! the same edits.

use super::{
    bank::{Cell, Dice},
    build::Builder,
    lexicon::Entry,
    plan::{Bars, Display, Field, Form, Plan, Records, Section},
    read::Reading,
    text,
};
use crate::{brief::Brief, critic::Critique};

impl Plan {
    /// At most `most` plans that differ from each other in layout or sections, the plan itself first.
    pub fn variants(&self, seed: u64, most: usize) -> Vec<Plan> {
        let mut plans: Vec<Plan> = Vec::new();
        for number in 0..u32::try_from(4 * most).unwrap_or(u32::MAX) {
            let variant = self.variant(seed, number);
            if plans.len() < most && !plans.contains(&variant) {
                plans.push(variant);
            }
        }
        plans
    }

    /// The `number`th plan near this one.
    pub fn variant(&self, seed: u64, number: u32) -> Plan {
        let mut plan = self.clone();
        if number == 0 {
            return plan;
        }
        let mut dice = Dice::new(seed ^ u64::from(number), &self.title);
        match number % 4 {
            1 => plan.summarise(),
            2 => plan.restyle(),
            3 => {
                plan.restyle();
                plan.summarise();
            }
            _ => {}
        }
        if number > 3 {
            plan.shuffle(&mut dice);
        }
        let mut plan = plan.settled();
        if plan == *self {
            plan.summarise();
        }
        plan.settled()
    }

    /// Adds what sums the page up, or takes it away where there is one.
    fn summarise(&mut self) {
        let before = self.sections.len();
        let optional = |section: &Section| matches!(section, Section::Bars(_) | Section::Note(_));
        self.sections.retain(|section| !optional(section));
        if self.sections.len() < before {
            return;
        }
        let added = self.sections.iter().find_map(|section| match section {
            Section::Records(records) => records.bars(),
            _ => None,
        });
        match added {
            Some(bars) => self.sections.push(Section::Bars(bars)),
            None => self.sections.push(Section::Note(self.hint())),
        }
    }

    /// What to do on the page, in words.
    fn hint(&self) -> String {
        let about = text::small(&self.title);
        match self
            .sections
            .iter()
            .find(|section| !matches!(section, Section::Metrics(_) | Section::Button { .. }))
        {
            Some(Section::Form(_)) => format!("This page is the {about}. It takes about two minutes."),
            Some(Section::Steps(_)) => format!("The {about} has a few steps. You can go back at any time."),
            Some(Section::Calculator(_) | Section::Converter(_)) => {
                format!("The {about} works while you type.")
            }
            Some(Section::Quiz(_)) => format!("The {about} shows your score at the end."),
            Some(Section::Chat(_)) => format!("The {about} answers from a short list."),
            Some(Section::Board(_)) => format!("The {about} keeps new cards until you close it."),
            _ => format!("The {about} shows sample data."),
        }
    }

    /// The same content with other widgets and another layout.
    fn restyle(&mut self) {
        for section in &mut self.sections {
            match section {
                Section::Form(form) => form.restyle(),
                Section::Records(records) => {
                    records.display = match records.display {
                        Display::Table if records.form.is_none() => Display::Cards,
                        _ => Display::Table,
                    };
                    if records.form.is_some() {
                        records.count = None;
                        records.rows.reverse();
                    }
                }
                Section::Trend(trend) => trend.bars = !trend.bars,
                Section::Board(board) => board.moves = !board.moves,
                Section::Metrics(metrics) => metrics.reverse(),
                Section::Chat(chat) => chat.answers.reverse(),
                Section::Quiz(quiz) => quiz.questions.reverse(),
                Section::Steps(steps) => steps.last = "Review".to_owned(),
                _ => {}
            }
        }
    }

    /// Other rows first, other bars first: the content in another order.
    fn shuffle(&mut self, dice: &mut Dice) {
        for section in &mut self.sections {
            match section {
                Section::Records(records) => rotate(&mut records.rows, dice),
                Section::Trend(trend) => rotate(&mut trend.series, dice),
                Section::Metrics(metrics) => rotate(metrics, dice),
                Section::Quiz(quiz) => rotate(&mut quiz.questions, dice),
                Section::Chat(chat) => rotate(&mut chat.answers, dice),
                _ => {}
            }
        }
    }

    /// This plan with the parts of another that it has none of, at most one.
    pub fn grafted(&self, other: &Plan) -> Plan {
        let mut plan = self.clone();
        let missing = other.sections.iter().find(|theirs| {
            let light = matches!(
                theirs,
                Section::Metrics(_) | Section::Bars(_) | Section::Note(_) | Section::Trend(_)
            );
            light && !plan.sections.iter().any(|ours| ours.rank() == theirs.rank())
        });
        match missing {
            Some(section) => plan.sections.push(section.clone()),
            // Nothing to take over as a whole: their rows for ours.
            None => plan.sections.clone_from(&other.sections),
        }
        plan.settled()
    }

    /// This plan with a chart when a critique says that there is too little to see or do. Words of the brief that the page
    /// lacks are not added by name: that would please the critic and nobody else.
    pub fn revised(&self, brief: &Brief, critique: &Critique) -> Plan {
        let mut plan = self.clone();
        let low = |score: Option<f64>| score.is_some_and(|score| score < 8.0);
        if low(critique.scores.behaviour) {
            let mut builder = Builder { reading: Reading::of(brief), dice: Dice::new(1, &brief.description) };
            let has = |plan: &Plan, rank: u8| plan.sections.iter().any(|section| section.rank() == rank);
            if !has(&plan, 6) && builder.wants_chart() {
                let trend = builder.trend();
                plan.sections.push(trend);
            } else if !has(&plan, 7) {
                plan.sections.extend(builder.bars_of(&plan.sections));
            }
        }
        plan.settled()
    }
}

impl Form {
    /// Few options in sight at once, what is ticked after what is typed, and empty texts refused or not.
    fn restyle(&mut self) {
        for field in &mut self.fields {
            field.entry = match field.entry.clone() {
                Entry::Choice(options) if options.len() <= 3 => Entry::Radio(options),
                entry => entry,
            };
        }
        self.fields.sort_by_key(|field| matches!(field.entry, Entry::YesNo | Entry::File | Entry::Long));
        let optional = |field: &Field| field.label.to_lowercase().contains("optional");
        self.required = !self.required && !self.fields.iter().any(optional);
    }
}

impl Records {
    /// A bar for each row, of the first column of numbers.
    fn bars(&self) -> Option<Bars> {
        let numeric = |at: &usize| self.rows.iter().all(|row| matches!(row.get(*at), Some(Cell::Number(_))));
        let column = (1..self.columns.len()).find(numeric)?;
        let bar = |row: &Vec<Cell>| match (row.first(), row.get(column)) {
            (Some(Cell::Text(name)), Some(Cell::Number(number))) => Some((name.clone(), *number)),
            _ => None,
        };
        let header = format!("{} by {}", self.columns[column], text::small(&self.columns[0]));
        Some(Bars { header, bars: self.rows.iter().filter_map(bar).collect() })
            .filter(|bars| !bars.bars.is_empty())
    }
}

fn rotate<T>(list: &mut [T], dice: &mut Dice) {
    if list.len() > 1 {
        let by = 1 + dice.below(list.len() - 1);
        list.rotate_left(by);
    }
}
