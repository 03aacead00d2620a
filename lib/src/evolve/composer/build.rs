//! From what was read to a plan: which sections a shape of page has, and what goes into each.

use std::collections::BTreeSet;

use super::{
    bank::{self, Cell, Dice},
    lexicon::{self, Entry, Role},
    plan::{Board, Chat, Field, Form, Plan, Quiz, Section, Steps, Upload},
    read::{Item, Reading, Shape},
    text,
};
use crate::brief::Brief;

impl Plan {
    /// Reads a brief into a plan. The seed chooses sample content, never what the page is.
    pub fn read(brief: &Brief, seed: u64) -> Self {
        let mut builder = Builder { reading: Reading::of(brief), dice: Dice::new(seed, &brief.description) };
        builder.plan().settled()
    }
}

pub(super) struct Builder {
    pub reading: Reading,
    pub dice: Dice,
}

impl Builder {
    fn plan(&mut self) -> Plan {
        let (caption, mut sections) = match self.reading.shape {
            Shape::Form => {
                ("Fill in the form and submit it.", self.form("Submit", "Thank you, it was sent."))
            }
            Shape::Survey => (
                "Answer the questions and send them.",
                self.form("Send answers", "Thank you for your answers."),
            ),
            Shape::Settings => {
                ("Change the settings and save them.", self.form("Save", "The settings are saved."))
            }
            Shape::Dashboard => ("See the figures at a glance.", self.dashboard()),
            Shape::Records => ("Search and filter the list.", self.records_page()),
            Shape::Ledger => ("Add entries and see them in the list.", self.ledger()),
            Shape::Wizard => ("Go through the steps and check the summary.", self.wizard()),
            Shape::Chat => ("Choose a topic or type a message.", self.chat()),
            Shape::Board => ("Add cards and see them by stage.", self.board()),
            Shape::Upload => ("Upload a file and check what is in it.", self.upload()),
            Shape::Calculator => ("Enter the values and read the result.", self.calculator_page()),
            Shape::Converter => ("Choose a conversion and enter a value.", self.converter()),
            Shape::Quiz => ("Answer the questions and check your score.", self.quiz()),
        };
        sections.extend(self.buttons());
        Plan { title: self.reading.title.clone(), caption: caption.to_owned(), sections }
    }

    /// Items that may be entered, in order: those said to be, and those of no role.
    fn inputs(&self) -> Vec<Item> {
        let wanted =
            |item: &&Item| matches!(item.role, None | Some(Role::Input | Role::Column | Role::Metric));
        let items = self.reading.items.iter().filter(wanted).cloned().collect::<Vec<_>>();
        let said: Vec<Item> =
            items.iter().filter(|i| matches!(i.role, Some(Role::Input) | None)).cloned().collect();
        if said.len() >= 2 { said } else { items }
    }

    pub fn field(&self, item: &Item) -> Field {
        let several = [
            "pick many",
            "one or more",
            "several",
            "clubs",
            "which of",
            "all that",
            "select many",
            "multiple",
        ];
        let entry = match (item.options.is_empty(), several.iter().any(|cue| item.hint.contains(cue))) {
            (false, true) => Entry::Several(item.options.clone()),
            (false, false) => Entry::Choice(item.options.clone()),
            _ => lexicon::entry(&item.label, &item.hint),
        };
        Field { label: item.label.clone(), entry }
    }

    fn fields(&self, most: usize) -> Vec<Field> {
        let mut seen = BTreeSet::new();
        let fields = self.inputs().iter().map(|item| self.field(item)).collect::<Vec<_>>();
        fields.into_iter().filter(|field| seen.insert(field.label.to_lowercase())).take(most).collect()
    }

    fn form(&mut self, submit: &str, done: &str) -> Vec<Section> {
        let mut fields = self.fields(8);
        let survey = self.reading.shape == Shape::Survey;
        if survey {
            let rated = |field: &mut Field| {
                let words = text::words(&field.label);
                let asked = lexicon::says(
                    &words,
                    "best worst which why what who where name email source reason sessions crops topic",
                );
                if field.entry == Entry::Text && words.len() <= 3 && !asked {
                    field.entry = Entry::Slider(1, 5)
                }
            };
            fields.retain(|field| {
                !lexicon::says(
                    &text::words(&field.label),
                    "afterwards average mean replies results farms split",
                )
            });
            fields.iter_mut().for_each(rated);
        }
        let spare: &[(&str, Entry)] = match self.reading.shape {
            Shape::Survey => &[
                ("Overall rating", Entry::Slider(1, 5)),
                ("What did you like", Entry::Long),
                ("May we contact you", Entry::YesNo),
            ],
            Shape::Settings => {
                &[("Enabled", Entry::YesNo), ("Level", Entry::Slider(0, 100)), ("Notes", Entry::Text)]
            }
            _ => &[("Name", Entry::Text), ("Email", Entry::Text), ("Notes", Entry::Long)],
        };
        for (label, entry) in spare {
            if fields.len() < 3 {
                fields.push(Field { label: (*label).to_owned(), entry: entry.clone() });
            }
        }
        let required = self.reading.says("required empty mandatory missing")
            && !self.reading.says("optional optionally skipped");
        let header = text::capital(&match self.reading.shape {
            Shape::Survey => "Your answers".to_owned(),
            Shape::Settings => "Settings".to_owned(),
            _ => "Details".to_owned(),
        });
        let submit = self.submit_label().unwrap_or_else(|| submit.to_owned());
        vec![Section::Form(Form { header, fields, submit, done: done.to_owned(), required })]
    }

    /// The label that the brief itself gives the main button.
    fn submit_label(&self) -> Option<String> {
        let actions = self.action_labels();
        let main = ["save", "submit", "send", "apply", "book", "create", "join", "confirm", "register"];
        actions
            .into_iter()
            .find(|label| text::words(label).first().is_some_and(|word| main.contains(&word.as_str())))
    }

    /// Labels of the buttons that the brief asks for.
    fn action_labels(&self) -> Vec<String> {
        let of_items = self.reading.of_role(Some(Role::Action)).into_iter().map(|item| {
            let label = item.label.replace(" buttons", "").replace(" button", "");
            let mut words = label.split(' ');
            let verb = words.next().unwrap_or_default().to_owned();
            let object: Vec<&str> = words
                .take_while(|word| {
                    !lexicon::says(&[word.to_lowercase()], "show shows what and as to for it gives brings")
                })
                .take(2)
                .collect();
            if object.is_empty() { verb } else { format!("{verb} {}", object.join(" ")) }
        });
        let mut labels: Vec<String> = of_items.collect();
        for (cue, label) in [
            ("save", "Save"),
            ("reset", "Reset"),
            ("restore", "Restore defaults"),
            ("refresh", "Refresh"),
            ("retry", "Retry"),
            ("undo", "Undo last entry"),
            ("acknowledge", "Acknowledge alert"),
            ("approve", "Approve"),
            ("print", "Print"),
            ("merge", "Merge"),
            ("apply", "Apply"),
            ("cancel", "Cancel"),
            ("load", "Load"),
            ("confirm", "Confirm"),
        ] {
            let named = labels.iter().any(|have| have.to_lowercase().contains(cue));
            if self.reading.says(cue) && !named {
                labels.push(label.to_owned());
            }
        }
        let names_nothing = |label: &String| {
            lexicon::says(&text::words(label), "button buttons next back question")
                && label.split(' ').count() <= 2
        };
        labels.retain(|label| label.split_whitespace().count() <= 3 && !names_nothing(label));
        labels
    }

    /// Buttons besides the main one: at most two.
    fn buttons(&self) -> Vec<Section> {
        let entered = matches!(
            self.reading.shape,
            Shape::Form | Shape::Survey | Shape::Settings | Shape::Wizard | Shape::Quiz | Shape::Ledger
        );
        let main = self.submit_label();
        let other = |label: &String| {
            let words = text::words(label);
            let saves = lexicon::says(&words, "save submit send apply confirm clear load");
            let kept = self.reading.shape == Shape::Board && lexicon::says(&words, "delete")
                || self.reading.shape == Shape::Chat;
            !kept
                && !lexicon::says(&words, "download export csv next back")
                && !(entered && (saves || Some(label) == main.as_ref()))
        };
        let labels = self.action_labels().into_iter().filter(other).take(2);
        labels.map(|label| Section::Button { done: lexicon::done(&label), label }).collect()
    }

    pub(super) fn metrics(&mut self, most: usize) -> Vec<(String, Cell)> {
        let of =
            |role| self.reading.of_role(role).into_iter().map(|item| item.label.clone()).collect::<Vec<_>>();
        let mut labels = of(Some(Role::Metric));
        if labels.len() < 2 {
            labels.extend(of(None));
        }
        let few = labels.len() < 2;
        if few {
            let plural = plural(&self.reading.entity);
            labels.extend([text::capital(&plural), format!("Open {plural}"), "Change this week".to_owned()]);
        }
        let mut seen = BTreeSet::new();
        labels.retain(|label| seen.insert(label.to_lowercase()));
        labels.truncate(most);
        labels
            .into_iter()
            .map(|label| {
                let figure = bank::figure(&label, &mut self.dice);
                (label, figure)
            })
            .collect()
    }

    fn dashboard(&mut self) -> Vec<Section> {
        self.states_to_columns();
        let columns = self.reading.of_role(Some(Role::Column)).len();
        let listed = columns >= 2 || self.list_item().is_some();
        let mut sections = vec![Section::Metrics(self.metrics(4))];
        if self.wants_chart() || self.reading.says("line history hours selecting week month") || !listed {
            sections.push(self.trend());
        }
        if listed {
            if let Some((noun, options)) = self.list_item().filter(|_| columns < 2) {
                let column = |label: &str, options| Item {
                    label: label.to_owned(),
                    hint: String::new(),
                    options,
                    role: Some(Role::Column),
                    list: 99,
                };
                self.reading.items.push(column(&text::capital(&noun), Vec::new()));
                self.reading.items.push(column("Status", options));
                self.reading.entity = noun;
            }
            let mut records = self.records(false);
            records.count = None;
            sections.push(Section::Records(Box::new(records)));
        }
        sections
    }

    /// Things that have a state, or figures that are asked for as a table, are rows of a table rather than metrics.
    fn states_to_columns(&mut self) {
        let stateful = |item: &&Item| {
            item.options.len() >= 2 && lexicon::says(&text::words(&item.label), "status state condition")
        };
        let of_states =
            self.reading.items.iter().find(stateful).map(|item| (item.list, item.options.clone()));
        let (list, options) = match of_states {
            Some(found) => found,
            None if self.reading.says("table") && self.reading.of_role(Some(Role::Column)).is_empty() => {
                let plain = |item: &&Item| matches!(item.role, None | Some(Role::Metric));
                let Some(list) = self.reading.items.iter().find(plain).map(|item| item.list) else { return };
                (list, Vec::new())
            }
            None => return,
        };
        let plain = |item: &&mut Item| item.list == list && matches!(item.role, None | Some(Role::Metric));
        if self.reading.items.iter().filter(|item| item.list == list).count() < 3 {
            return;
        }
        self.reading.items.iter_mut().filter(plain).for_each(|item| item.role = Some(Role::Column));
        // What the table lists is counted on top, by state.
        let metric = |label: String| Item {
            label,
            hint: String::new(),
            options: Vec::new(),
            role: Some(Role::Metric),
            list: 98,
        };
        self.reading.items.extend(options.into_iter().take(4).map(metric));
    }

    /// `agents table with status (on call, break)`, `list of the inverters`: what is listed, and the states named with it.
    fn list_item(&self) -> Option<(String, Vec<String>)> {
        self.reading.items.iter().find_map(|item| {
            let words = text::words(&item.hint);
            let at = words.iter().position(|word| ["table", "list"].contains(&word.as_str()))?;
            let after = words[at + 1..].iter().find(|word| !text::is_glue(word));
            let before =
                at.checked_sub(1).and_then(|before| words.get(before)).filter(|word| !text::is_glue(word));
            let noun = before.or(after)?;
            noun.chars().all(char::is_alphabetic).then(|| (text::singular(noun), item.options.clone()))
        })
    }

    fn wizard(&mut self) -> Vec<Section> {
        let ends = "review summary confirm submit check result everything finally send final";
        let candidates: Vec<Item> = self
            .reading
            .items
            .iter()
            .filter(|item| item.role != Some(Role::Action) && item.role != Some(Role::Filter))
            .cloned()
            .collect();
        let mut steps: Vec<(String, Vec<Field>)> = Vec::new();
        let grouped = self.grouped();
        for item in candidates {
            if lexicon::says(&text::words(&item.label), ends) {
                continue;
            }
            let fields =
                grouped.iter().find(|(group, _)| item.label.to_lowercase().starts_with(group.as_str()));
            match fields {
                Some((group, fields)) if !steps.iter().any(|(name, _)| name.to_lowercase() == *group) => {
                    steps.push((text::capital(group), fields.clone()));
                }
                Some(_) => {}
                None => steps.push((item.label.clone(), self.step_fields(&item))),
            }
        }
        let spare = ["Your details", "Your choice", "More notes"];
        for name in spare {
            if steps.len() < 3 {
                let item = Item {
                    label: name.to_owned(),
                    hint: String::new(),
                    options: Vec::new(),
                    role: None,
                    list: 0,
                };
                steps.push((name.to_owned(), self.step_fields(&item)));
            }
        }
        let submit = self.submit_label().unwrap_or_else(|| "Submit".to_owned());
        let progress = self.reading.says("progress left remaining");
        vec![Section::Steps(Steps {
            steps,
            progress,
            last: "Summary".to_owned(),
            submit,
            done: "Everything is sent, thank you.".to_owned(),
        })]
    }

    /// Fields that came in one bracket, by the word they share.
    fn grouped(&self) -> Vec<(String, Vec<Field>)> {
        let mut groups: Vec<(String, Vec<Field>)> = Vec::new();
        for pair in self.reading.items.windows(2) {
            let first = |item: &Item| item.label.split(' ').next().unwrap_or_default().to_lowercase();
            let (one, two) = (first(&pair[0]), first(&pair[1]));
            if one == two && pair[0].list == pair[1].list && pair[0].label.contains(' ') {
                match groups.iter_mut().find(|(name, _)| *name == one) {
                    Some((_, fields)) => fields.push(self.field(&pair[1])),
                    None => groups.push((one, vec![self.field(&pair[0]), self.field(&pair[1])])),
                }
            }
        }
        groups
    }

    fn step_fields(&self, item: &Item) -> Vec<Field> {
        let known: &[(&str, &[&str])] = &[
            ("personal details you yourself guardians guardian parents", &["Name", "Phone"]),
            ("child pupil", &["Child name", "Birth date"]),
            ("income employer employment", &["Employer", "Monthly income"]),
            ("amount loan", &["Amount", "Term in months"]),
            ("household", &["Adults", "Children"]),
            ("property house", &["Property price", "Location"]),
            ("when where happened", &["Date", "Place"]),
            ("connection", &["Host", "User name", "Password"]),
            ("address", &["Street", "City"]),
            ("party plate insurer", &["Plate", "Insurer"]),
            ("damaged damage", &["Damaged part", "Description"]),
            ("choice", &["Your choice", "Quantity"]),
            ("photos", &["Photo"]),
        ];
        let words = text::words(&item.label);
        let labels = known.iter().find(|(cues, _)| lexicon::says(&words, cues)).map(|(_, labels)| *labels);
        if let Some(labels) = labels.filter(|_| item.options.is_empty()) {
            let field = |label: &&str| Field { label: (*label).to_owned(), entry: lexicon::entry(label, "") };
            return labels.iter().map(field).collect();
        }
        vec![self.field(item)]
    }

    fn chat(&mut self) -> Vec<Section> {
        let with_options = self.reading.items.iter().find(|item| item.options.len() >= 2).cloned();
        let labels: Vec<String> = self
            .reading
            .items
            .iter()
            .filter(|item| !matches!(item.role, Some(Role::Action | Role::Filter)))
            .filter(|item| {
                item.label.split_whitespace().count() <= 3
                    && !lexicon::says(
                        &text::words(&item.label),
                        "history input clear conversation messages message",
                    )
            })
            .map(|item| item.label.clone())
            .take(4)
            .collect();
        let (choice, mut topics) = with_options
            .filter(|item| item.options.len() >= 3)
            .map_or(("Topic".to_owned(), labels), |item| (item.label, item.options));
        let mut seen = BTreeSet::new();
        topics.retain(|topic| seen.insert(topic.to_lowercase()));
        for spare in ["General help", "Opening hours", "Talk to a person"] {
            if topics.len() < 3 {
                topics.push(spare.to_owned());
            }
        }
        topics.truncate(3);
        let answers = topics.iter().map(|topic| (topic.clone(), self.answer(topic))).collect();
        vec![Section::Chat(Chat {
            hello: format!("Hello, ask me about {}.", text::small(&topics[0])),
            choice,
            answers,
            prompt: "Type a message".to_owned(),
            clear: "Clear conversation".to_owned(),
        })]
    }

    fn answer(&mut self, topic: &str) -> String {
        let topic = text::small(topic);
        let forms = [
            format!("Here is what we know about {topic}."),
            format!("For {topic}, please give me a few details."),
            format!("Our guide to {topic} has three steps."),
            format!("Most people ask about {topic} first."),
        ];
        forms[self.dice.below(forms.len())].clone()
    }

    fn board(&mut self) -> Vec<Section> {
        let stage_list = self.reading.of_role(Some(Role::Stage)).first().map(|item| item.list);
        let stages = self.stages(stage_list);
        let fields = self.card_fields(stage_list);
        let entity = self.reading.entity.clone();
        let known = bank::things(&entity).is_some() || bank::is_person(&entity);
        let noun = if known { entity.clone() } else { "task".to_owned() };
        let cells = |field: &Field, dice: &mut Dice| match &field.entry {
            Entry::Choice(options) => bank::column(&field.label, options, &noun, dice),
            _ => bank::column(&field.label, &[], &noun, dice),
        };
        let columns: Vec<Vec<Cell>> = fields.iter().map(|field| cells(field, &mut self.dice)).collect();
        let card = |at: usize| columns.iter().map(|cells| cells[at % cells.len()].clone()).collect();
        let stages = stages.into_iter().enumerate();
        let stages = stages.map(|(at, stage)| (stage, if at < 3 { vec![card(at)] } else { Vec::new() }));
        vec![Section::Board(Board {
            header: text::capital(&plural(&entity)),
            stages: stages.collect(),
            fields,
            submit: format!("Add {noun}"),
            moves: self.reading.says("move moves moved tap goes"),
        })]
    }

    /// Columns of a board: the list of stages, the first long choice, or the usual three.
    fn stages(&self, list: Option<usize>) -> Vec<String> {
        let stage = |item: &&Item| {
            Some(item.list) == list
                && item.role == Some(Role::Stage)
                && item.label.split_whitespace().count() <= 4
        };
        let mut stages: Vec<String> =
            self.reading.items.iter().filter(stage).map(|item| item.label.clone()).collect();
        if stages.len() < 2 {
            let choice = self.reading.items.iter().find(|item| item.options.len() >= 3);
            stages = choice.map_or_else(Vec::new, |item| item.options.clone());
        }
        if stages.len() < 2 {
            stages = ["To do", "Doing", "Done"].map(str::to_owned).to_vec();
        }
        stages.truncate(5);
        stages
    }

    /// What a card of a board says: two to four fields, one of them a name, all of them short.
    fn card_fields(&self, stages: Option<usize>) -> Vec<Field> {
        let said = |item: &&Item| {
            matches!(item.role, Some(Role::Input | Role::Column | Role::Metric) | None)
                && Some(item.list) != stages
        };
        let mut fields: Vec<Field> =
            self.reading.items.iter().filter(said).map(|item| self.field(item)).take(3).collect();
        for field in &mut fields {
            if let Entry::File | Entry::Several(_) | Entry::YesNo | Entry::Time | Entry::Date = field.entry {
                field.entry = Entry::Text;
            }
        }
        if !fields.iter().any(|field| Self::is_name(&field.label)) {
            fields.insert(0, Field { label: "Title".to_owned(), entry: Entry::Text });
        }
        if fields.len() < 2 {
            fields.push(Field { label: "Owner".to_owned(), entry: Entry::Text });
        }
        fields
    }

    fn upload(&mut self) -> Vec<Section> {
        let file = if self.reading.says("csv") {
            "CSV file"
        } else if self.reading.says("photos images photo picture thumbnail") {
            "Photos"
        } else if self.reading.says("documents document") {
            "Documents"
        } else {
            "File"
        };
        let mut records = self.records(false);
        records.header = if file == "CSV file" { "Preview".to_owned() } else { records.header };
        let upload = Upload { label: file.to_owned(), done: format!("{file} received") };
        let mut sections = vec![Section::Upload(upload), Section::Records(Box::new(records))];
        if self.wants_chart() {
            sections.push(self.trend());
        }
        if !self.reading.says("submit send load merge") {
            sections.push(Section::Button {
                label: "Check file".to_owned(),
                done: "The file is complete".to_owned(),
            });
        } else {
            let label = if self.reading.says("send") {
                "Send"
            } else if self.reading.says("merge") {
                "Merge"
            } else if self.reading.says("load") {
                "Load"
            } else {
                "Submit all"
            };
            sections.push(Section::Button { label: label.to_owned(), done: lexicon::done(label) });
        }
        sections
    }

    fn quiz(&mut self) -> Vec<Section> {
        let topic = format!("{} {}", self.reading.title, self.reading.words.join(" "));
        let questions = match bank::questions(&topic) {
            None => self.own_questions(),
            Some(known) => {
                known.iter().enumerate().map(|(at, question)| self.question(at, question)).collect()
            }
        };
        vec![Section::Quiz(Quiz { questions, done: "You finished the quiz.".to_owned() })]
    }

    /// A question of the bank, its right answer in another place each time.
    fn question(
        &mut self,
        at: usize,
        (question, right, wrong): &bank::Question,
    ) -> (String, Vec<String>, String) {
        let mut options = wrong.map(str::to_owned).to_vec();
        options.insert((at + self.dice.below(3)) % 3, (*right).to_owned());
        ((*question).to_owned(), options, (*right).to_owned())
    }

    /// Questions on what is not in the bank: about the quiz itself, so that no answer is made up.
    fn own_questions(&mut self) -> Vec<(String, Vec<String>, String)> {
        let topic = self.reading.entity.clone();
        let texts = |list: [&str; 3]| list.map(str::to_owned).to_vec();
        vec![
            (
                format!("How well do you know {topic}?"),
                texts(["Very well", "A little", "Not yet"]),
                "Very well".to_owned(),
            ),
            (
                format!("How often do you practise {topic}?"),
                texts(["Never", "Every week", "Every year"]),
                "Every week".to_owned(),
            ),
            (
                format!("Would you explain {topic} to others?"),
                texts(["No", "Maybe", "Yes"]),
                "Yes".to_owned(),
            ),
        ]
    }
}

pub(super) fn plural(noun: &str) -> String {
    if let Some(stem) = noun.strip_suffix('y').filter(|stem| !stem.ends_with(['a', 'e', 'o', 'u'])) {
        return format!("{stem}ies");
    }
    let hissing = ["s", "x", "ch", "sh"].iter().any(|ending| noun.ends_with(ending));
    if hissing { format!("{noun}es") } else { format!("{noun}s") }
}
