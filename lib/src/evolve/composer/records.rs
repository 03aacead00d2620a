//! Tables and charts of a plan: columns and rows from what was read, what narrows them, what sums them up.

use std::collections::BTreeSet;

use super::{
    bank::{self, Cell},
    build::{Builder, plural},
    lexicon::{self, Entry, Role},
    plan::{Bars, Display, Field, Form, Records, Section, Trend},
    read::{Item, Shape},
    text,
};

/// A label, and the options where there are some.
type Column = (String, Vec<String>);

impl Builder {
    /// Columns of the page's table, with options where the brief gave them.
    pub(super) fn columns(&self) -> Vec<Column> {
        let of = |roles: &[Option<Role>]| {
            let items = self.reading.items.iter().filter(|item| roles.contains(&item.role));
            items.map(|item| (column_label(&item.label), item.options.clone())).collect::<Vec<_>>()
        };
        let mut columns = of(&[Some(Role::Column)]);
        for role in [Some(Role::Stage), None, Some(Role::Metric), Some(Role::Input)] {
            if columns.len() < 3 && self.reading.shape != Shape::Dashboard {
                columns.extend(of(&[role]));
            }
        }
        let mut seen = BTreeSet::new();
        columns.retain(|(label, _)| seen.insert(label.to_lowercase()));
        columns.truncate(9);
        columns.retain(|(label, _)| !lexicon::says(&text::words(label), "total average subtotals"));
        columns
    }

    pub(super) fn entity_label(&self) -> String {
        text::capital(&self.reading.entity)
    }

    pub(super) fn is_name(label: &str) -> bool {
        lexicon::says(
            &text::words(label),
            "name title item id no number code test sku barcode asset station tag",
        )
    }

    /// A table of the brief's columns, with a form that adds to it where one is wanted.
    pub(super) fn records(&mut self, form: bool) -> Records {
        let (search, wanted) = self.narrowing();
        let columns = self.table_columns(&wanted, if form { 4 } else { 5 });
        let entity = self.reading.entity.clone();
        let mut cells: Vec<Vec<Cell>> = columns
            .iter()
            .map(|(label, options)| bank::column(label, options, &entity, &mut self.dice))
            .collect();
        // Neighbours in a row differ from row to row, so that two filters narrow more than one.
        cells.iter_mut().enumerate().for_each(|(at, column)| column.rotate_left(at % 3));
        // The form adds to them, so fewer will do there.
        let rows = (0..if form { 2 } else { 3 })
            .map(|row| cells.iter().map(|column| column[row].clone()).collect())
            .collect();
        let (search, filters) = self.narrowed(search, &wanted, &columns, &cells);
        let plural = plural(&entity);
        Records {
            header: text::capital(&plural),
            columns: columns.iter().map(|(label, _)| label.clone()).collect(),
            rows,
            form: form.then(|| self.entry_form(&columns, &cells)),
            search,
            filters,
            display: Display::Table,
            count: (!form).then(|| format!("{} shown", text::capital(&plural))),
            total: self.total(&columns, &cells),
            download: self.downloads().then(|| "Download CSV".to_owned()),
        }
    }

    /// What the brief names and filters by; a name in front and usual ones behind where it names too little.
    fn table_columns(&self, wanted: &[Column], most: usize) -> Vec<Column> {
        let mut columns = self.columns();
        let named = columns
            .iter()
            .take(2)
            .any(|(label, _)| Self::is_name(label) || label.to_lowercase().contains(&self.reading.entity));
        if !named && (self.reading.entity != "entry" || columns.len() < 2) {
            columns.insert(0, (self.entity_label(), Vec::new()));
        }
        for (label, options) in wanted {
            let have = columns.iter_mut().find(|(column, _)| same(column, label));
            match have {
                Some((_, known)) if known.is_empty() => known.clone_from(options),
                Some(_) => {}
                None => columns.push((label.clone(), options.clone())),
            }
        }
        let spares = if self.reading.shape == Shape::Dashboard {
            ["Status", "Last update", "Owner"]
        } else {
            ["Status", "Price", "Rating"]
        };
        for spare in spares {
            if columns.len() < 3 && !columns.iter().any(|(column, _)| same(column, spare)) {
                columns.push((spare.to_owned(), Vec::new()));
            }
        }
        // What is filtered by stays, however many columns there are.
        while columns.len() > most {
            let spare =
                columns.iter().rposition(|(label, _)| !wanted.iter().any(|(filter, _)| same(label, filter)));
            columns.remove(spare.unwrap_or(columns.len() - 1));
        }
        columns
    }

    /// The search box and at most two filters: those that the brief wants, or else one that the columns offer.
    fn narrowed(
        &self,
        search: Option<String>,
        wanted: &[Column],
        columns: &[Column],
        cells: &[Vec<Cell>],
    ) -> (Option<String>, Vec<Column>) {
        let column_of = |(label, _): &Column| columns.iter().position(|(column, _)| same(column, label));
        let filter = |at: usize| options_of(&columns[at].0, &cells[at]);
        let mut filters: Vec<Column> = wanted.iter().filter_map(column_of).filter_map(filter).collect();
        filters.truncate(2);
        if !filters.is_empty() || search.is_some() {
            return (search, filters);
        }
        let category = columns
            .iter()
            .position(|(label, options)| !options.is_empty() || lexicon::choices(label).is_some());
        match category {
            Some(at) => (None, filter(at).into_iter().collect()),
            None => (Some(format!("Search {}", plural(&self.reading.entity))), Vec::new()),
        }
    }

    pub(super) fn downloads(&self) -> bool {
        let cues = if self.reading.shape == Shape::Upload {
            "download"
        } else {
            "download export csv exporting downloaded downloads"
        };
        self.reading.says(cues)
    }

    /// A field for each column, of the type that its cells have.
    pub(super) fn entry_form(&self, columns: &[Column], cells: &[Vec<Cell>]) -> Form {
        let fields = columns.iter().zip(cells).map(|((label, options), cells)| {
            let entry =
                if options.is_empty() { lexicon::entry(label, "") } else { Entry::Choice(options.clone()) };
            let named = entry == Entry::File
                || label.to_lowercase() == self.reading.entity && !matches!(entry, Entry::Choice(_));
            let counted = entry == Entry::Text && cells.iter().all(|cell| matches!(cell, Cell::Number(_)));
            let entry = if named {
                Entry::Text
            } else if counted {
                Entry::Number(lexicon::usual(label))
            } else {
                entry
            };
            Field { label: label.clone(), entry }
        });
        Form {
            header: String::new(),
            fields: fields.collect(),
            submit: format!("Add {}", self.reading.entity),
            done: format!("The {} is added.", self.reading.entity),
            required: self.reading.says("required empty mandatory missing"),
        }
    }

    /// The search box and the filters that the brief names.
    pub(super) fn narrowing(&self) -> (Option<String>, Vec<Column>) {
        let mut filters = Vec::new();
        let mut search =
            self.reading.says("search searching searchable keyword find type").then(|| "Search".to_owned());
        for item in self.reading.of_role(Some(Role::Filter)) {
            let words = text::words(&item.hint);
            let by = words.iter().position(|word| ["by", "for"].contains(&word.as_str()));
            let label = by.map_or_else(
                || item.label.clone(),
                |at| text::label(&words[at + 1..].join(" "), 3).unwrap_or(item.label.clone()),
            );
            let searched = lexicon::says(&words, "search type keyword text find");
            if searched && search.as_deref().is_none_or(|label| label == "Search") {
                search = Some(format!("Search {}", text::small(&label).replace("search ", "")));
            } else if !lexicon::says(
                &text::words(&label),
                "filter filters sort sortable sorted selector filterable date range",
            ) {
                filters.push((label, item.options.clone()));
            }
        }
        filters.truncate(2);
        (search, filters)
    }

    pub(super) fn total(&self, columns: &[Column], cells: &[Vec<Cell>]) -> Option<(String, String)> {
        let wanted = self.reading.says("total sum totals subtotals");
        let numeric = |at: &usize| cells[*at].iter().all(|cell| matches!(cell, Cell::Number(_)));
        let at = (1..columns.len()).find(numeric).filter(|_| wanted)?;
        let name = text::small(&columns[at].0);
        let label = if name.starts_with("total") { text::capital(&name) } else { format!("Total {name}") };
        Some((label, columns[at].0.clone()))
    }

    pub(super) fn records_page(&mut self) -> Vec<Section> {
        let records = self.records(false);
        let mut sections = vec![Section::Records(Box::new(records))];
        let compares = self.reading.says("compare comparison");
        if self.wants_chart() || compares {
            sections.extend(self.bars_of(&sections));
        }
        sections
    }

    pub(super) fn ledger(&mut self) -> Vec<Section> {
        let records = self.records(true);
        let mut sections = vec![Section::Records(Box::new(records))];
        if self.wants_chart() {
            sections.extend(self.bars_of(&sections));
        }
        let metrics = self.reading.of_role(Some(Role::Metric)).len();
        if metrics >= 2 {
            sections.push(Section::Metrics(self.metrics(3)));
        }
        sections
    }

    pub(super) fn wants_chart(&self) -> bool {
        self.reading.says(
            "chart charts plot plots graph trend curve curves bars histogram visual visualise distribution",
        )
    }

    /// A bar chart over the names of the rows.
    pub(super) fn bars_of(&mut self, sections: &[Section]) -> Option<Section> {
        let records = sections.iter().find_map(|section| match section {
            Section::Records(records) => Some(records),
            _ => None,
        })?;
        let numeric = |at: &usize| records.rows.iter().all(|row| matches!(row[*at], Cell::Number(_)));
        let column = (0..records.columns.len()).find(numeric);
        let name = |row: &Vec<Cell>| match row.first() {
            Some(Cell::Text(text)) => text.clone(),
            Some(Cell::Number(n)) => n.to_string(),
            None => "Other".to_owned(),
        };
        let mut value = |row: &Vec<Cell>| match column.map(|at| &row[at]) {
            Some(Cell::Number(n)) => *n,
            _ => bank::run(&mut self.dice, 1)[0],
        };
        let bars = records.rows.iter().map(|row| (name(row), value(row))).collect();
        let by = column.map_or_else(|| "Chart".to_owned(), |at| records.columns[at].clone());
        Some(Section::Bars(Bars { header: format!("{by} by {}", text::small(&records.columns[0])), bars }))
    }

    /// A chart of what a select box chooses: a filter that the brief names, or a period.
    pub(super) fn trend(&mut self) -> Section {
        let chart = self.reading.of_role(Some(Role::Chart)).first().map(|item| item.label.clone());
        let (choice, options) = self.trend_choice();
        let bars = self.reading.says("bar bars histogram");
        let series = options.into_iter().take(3).map(|name| (name, bank::run(&mut self.dice, 4))).collect();
        let header = chart.unwrap_or_else(|| format!("{} trend", self.entity_label()));
        Section::Trend(Trend { header, choice, series, bars, total: Some("Total".to_owned()) })
    }

    pub(super) fn trend_choice(&mut self) -> (String, Vec<String>) {
        let chosen = |item: &&Item| {
            item.options.len() >= 2
                && item.role != Some(Role::Column)
                && !text::words(&item.hint).iter().any(|word| ["table", "list"].contains(&word.as_str()))
        };
        if let Some(item) = self.reading.items.iter().find(chosen) {
            return (item.label.clone(), item.options.clone());
        }
        if let Some((label, options)) = self.narrowing().1.into_iter().next() {
            let known = if options.is_empty() { lexicon::choices(&label) } else { Some(options) };
            let options = known.unwrap_or_else(|| bank::samples(&label, &mut self.dice));
            return (label, options);
        }
        let periods = if self.reading.says("year yearly quarter") {
            ["Quarter 1", "Quarter 2", "Quarter 3"]
        } else if self.reading.says("month monthly months") {
            ["May", "June", "July"]
        } else if self.reading.says("hour hours day daily today") {
            ["Today", "Yesterday", "Last week"]
        } else {
            ["Today", "This week", "This month"]
        };
        ("Period".to_owned(), periods.map(str::to_owned).to_vec())
    }
}

/// `Material for each piece` is a material, `orders with address` an address.
fn column_label(label: &str) -> String {
    let before = [" for ", " from ", " against ", " at ", " per day"]
        .iter()
        .find_map(|cut| label.split_once(cut).map(|(before, _)| before));
    let label = before.unwrap_or(label);
    let after = [" with ", " by "].iter().find_map(|cut| label.split_once(cut).map(|(_, after)| after));
    text::capital(after.unwrap_or(label))
}

/// The same column by another number: `departments` and `Department`.
fn same(column: &str, label: &str) -> bool {
    let key = |text: &str| text::words(text).iter().map(|word| text::singular(word)).collect::<Vec<_>>();
    let (column, label) = (key(column), key(label));
    column == label
        || (!label.is_empty()
            && (column.last() == label.last() || column.first() == label.first() && label.len() == 1))
}

/// A filter over a column: its label and distinct texts.
fn options_of(label: &str, cells: &[Cell]) -> Option<Column> {
    let mut seen = BTreeSet::new();
    let texts = cells.iter().filter_map(|cell| match cell {
        Cell::Text(text) => Some(text.clone()),
        Cell::Number(_) => None,
    });
    let options: Vec<String> = texts.filter(|text| seen.insert(text.clone())).collect();
    (options.len() >= 2).then(|| (label.to_owned(), options))
}
