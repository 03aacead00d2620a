//! Habits: behaviour wanted of the agent, as checks over evidence. They are data: users write their own in a TOML file.
//!
//! A check is an expression in minijinja's language over [`View`]. A habit holds when all its checks do.

use std::{collections::BTreeSet, sync::LazyLock};

use minijinja::{Environment, ErrorKind, UndefinedBehavior, Value, value::Serde};
use serde::{Deserialize, Serialize};

use super::{Action, Call, Element, Evidence, Exception, FileFacts, Heading, Level, Rendered, RunStatus};

const UI_FIRST: &str = include_str!("habit/ui-first.toml");

/// A habit as its file says it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Habit {
    pub name: String,
    pub description: String,
    #[serde(rename = "check")]
    pub checks: Vec<Check>,
}

/// One condition of a habit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Check {
    /// An expression; the check holds when it is true.
    pub that: String,
    /// What to do when it is not.
    pub message: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub guideline: Option<String>,
}

/// Whether a habit holds for a candidate.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Kept {
    pub name: String,
    pub holds: bool,
    /// Messages of the checks that do not.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub missed: Vec<String>,
}

static SHIPPED: LazyLock<Habit> = LazyLock::new(|| match Habit::parse(UI_FIRST) {
    Ok(habit) => habit,
    // The shipped file is tested; a build that has another one is no build of ours.
    Err(why) => unreachable!("ui-first.toml: {why}"),
});

/// What checks may ask about, by these names.
#[derive(Serialize)]
struct View<'a> {
    level: Level,
    /// Files of the reply in its order; `first` is the first, or none.
    files: &'a [FileFacts],
    first: Option<&'a FileFacts>,
    lines: u32,
    config_share: f64,
    imports: &'a [String],
    /// Live calls of Streamlit; those in blocks that can never run are left out.
    calls: Vec<&'a Call>,
    other_calls: &'a BTreeSet<String>,
    functions: u32,
    page_title: bool,
    status: RunStatus,
    exceptions: &'a [Exception],
    /// What a user sees without opening anything.
    elements: Vec<&'a Element>,
    /// How many that are; at level `static`, live calls stand in.
    visible: usize,
    /// Of all charts among them.
    marks: BTreeSet<&'a str>,
    containers: Vec<&'a str>,
    headings: &'a [Heading],
    /// Controls that were used.
    actions: Vec<&'a Action>,
    browser: Option<&'a Rendered>,
}

impl<'a> View<'a> {
    fn of(evidence: &'a Evidence) -> Self {
        let statics = &evidence.statics;
        let run = evidence.run.as_ref();
        let calls: Vec<&Call> = statics.calls.iter().filter(|call| !call.dead).collect();
        let elements: Vec<&Element> =
            run.iter().flat_map(|run| &run.elements).filter(|e| !e.tucked && !e.unseen).collect();
        Self {
            level: evidence.level,
            files: &statics.files,
            first: statics.files.first(),
            lines: statics.lines(),
            config_share: statics.config_share(),
            imports: &statics.imports,
            other_calls: &statics.other_calls,
            functions: statics.functions,
            page_title: statics.page_title,
            status: run.map_or(RunStatus::Skipped, |run| run.status),
            exceptions: run.map_or(&[], |run| &run.exceptions),
            marks: elements.iter().flat_map(|element| &element.marks).map(String::as_str).collect(),
            elements,
            visible: match run {
                Some(run) => run.visible(),
                None if evidence.level == Level::Static => calls.len(),
                None => 0,
            },
            containers: run.iter().flat_map(|run| &run.containers).map(String::as_str).collect(),
            headings: run.map_or(&[], |run| &run.headings),
            actions: evidence.tried().collect(),
            browser: evidence.browser.as_ref(),
            calls,
        }
    }
}

impl Habit {
    /// The built-in one.
    pub fn ui_first() -> &'static Self {
        &SHIPPED
    }

    /// Reads a habit's file, and tries its checks.
    ///
    /// # Errors
    /// What is wrong with it, in a sentence.
    pub fn parse(text: &str) -> Result<Self, String> {
        let habit: Self = toml::from_str(text).map_err(|e| e.message().to_owned())?;
        let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        if habit.name.is_empty() || !habit.name.chars().all(plain) {
            return Err(format!("name `{}`: small letters, digits and `-` make a name", habit.name));
        }
        if habit.checks.is_empty() {
            return Err("it has no `[[check]]`".to_owned());
        }
        let nothing = Evidence::default();
        let view = Value::from(Serde(View::of(&nothing)));
        for check in &habit.checks {
            // Names that do not exist show with any evidence; what an expression does with values does not.
            check.names(&view)?;
        }
        Ok(habit)
    }

    /// Asks every check.
    pub fn kept(&self, evidence: &Evidence) -> Kept {
        self.ask(&Value::from(Serde(View::of(evidence))))
    }

    fn ask(&self, view: &Value) -> Kept {
        let missed: Vec<String> =
            self.checks.iter().filter_map(|check| check.missed(view).map(|why| why.to_owned())).collect();
        Kept { name: self.name.clone(), holds: missed.is_empty(), missed }
    }
}

/// Whether each habit holds.
pub(super) fn kept(habits: &[Habit], evidence: &Evidence) -> Vec<Kept> {
    let view = Value::from(Serde(View::of(evidence)));
    habits.iter().map(|habit| habit.ask(&view)).collect()
}

/// Faults of an expression, whatever it is asked about.
const UNKNOWN: &[ErrorKind] =
    &[ErrorKind::UnknownFilter, ErrorKind::UnknownTest, ErrorKind::UnknownFunction, ErrorKind::UnknownMethod];

impl Check {
    fn names(&self, view: &Value) -> Result<(), String> {
        let environment = environment();
        let expression = environment.compile_expression(&self.that);
        let expression = expression.map_err(|e| format!("`{}`: {}", self.that, detail(&e)))?;
        for name in expression.undeclared_variables(false) {
            if view.get_attr(&name).is_ok_and(|value| value.is_undefined()) {
                return Err(format!("`{}`: there is no `{name}` to ask about", self.that));
            }
        }
        match expression.eval(view) {
            Err(e) if UNKNOWN.contains(&e.kind()) => Err(format!("`{}`: {}", self.that, detail(&e))),
            _ => Ok(()),
        }
    }

    /// The message when the check does not hold. What cannot be asked (an item of an empty list) does not hold.
    fn missed(&self, view: &Value) -> Option<&str> {
        let environment = environment();
        let holds = environment
            .compile_expression(&self.that)
            .and_then(|expression| expression.eval(view))
            .is_ok_and(|value| value.is_true());
        (!holds).then_some(&self.message)
    }
}

fn environment() -> Environment<'static> {
    let mut environment = Environment::new();
    environment.set_undefined_behavior(UndefinedBehavior::Strict);
    environment
}

fn detail(error: &minijinja::Error) -> String {
    error.detail().map_or_else(|| error.kind().to_string(), str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::critic::Guidelines;

    const FORMS: &str = r#"
name = "inputs-in-forms"
description = "Inputs live in a form"
[[check]]
that = "elements | selectattr('control') | rejectattr('in_form') | rejectattr('type', 'in', ['button', 'download_button']) | list | length == 0"
message = "put the inputs into `st.form`"
"#;

    fn sample(change: impl FnOnce(&mut Evidence)) -> Evidence {
        let mut evidence = Evidence::sample();
        change(&mut evidence);
        evidence
    }

    #[test]
    fn a_habit_of_ones_own_is_data() {
        let habit = Habit::parse(FORMS).unwrap();
        let alone = sample(|e| {
            let elements = &mut e.run.as_mut().unwrap().elements;
            elements.push(Element {
                kind: "text_input".into(),
                label: "Name".into(),
                control: true,
                ..Element::default()
            });
        });
        assert_eq!(habit.kept(&alone).missed, ["put the inputs into `st.form`"]);
        let inside = sample(|e| {
            for element in &mut e.run.as_mut().unwrap().elements {
                element.in_form = true;
            }
        });
        assert!(habit.kept(&inside).holds, "{:?}", habit.kept(&inside));
    }

    #[track_caller]
    fn check_expression(that: &str, evidence: &Evidence, expected: bool) {
        let text = format!("name = 'a'\ndescription = ''\n[[check]]\nthat = \"{that}\"\nmessage = 'm'");
        assert_eq!(Habit::parse(&text).unwrap().kept(evidence).holds, expected, "{that}");
    }

    #[test]
    fn checks_see_calls_elements_and_marks() {
        let evidence = sample(|e| {
            let elements = &mut e.run.as_mut().unwrap().elements;
            let chart =
                Element { kind: "altair_chart".into(), marks: vec!["arc".into()], ..Element::default() };
            elements.push(chart);
        });
        check_expression("'arc' not in marks", &evidence, false);
        check_expression("'bar' not in marks", &evidence, true);
        check_expression("visible >= 3 and status == 'ready'", &Evidence::sample(), true);
        check_expression("browser is none", &Evidence::sample(), true);
        check_expression("files[7].python", &Evidence::sample(), false);
    }

    #[track_caller]
    fn check_refused(text: &str, why: &str) {
        let said = Habit::parse(text).unwrap_err();
        assert!(said.contains(why), "{said}");
    }

    #[test]
    fn what_is_no_habit_is_refused() {
        let with =
            |that: &str| format!("name = 'a'\ndescription = ''\n[[check]]\nthat = '{that}'\nmessage = 'm'");
        check_refused("name = 'a'\ndescription = ''\ncheck = []", "no `[[check]]`");
        check_refused("name = 'A b'\ndescription = ''\n[[check]]\nthat = 'true'\nmessage = ''", "A b");
        check_refused(&with("elemens | length > 3"), "elemens");
        check_refused(&with("visible >"), "visible >");
        check_refused(&with("visible | sparkle"), "sparkle");
        check_refused("nothing", "");
    }

    /// The examples of the guide, by the names of their files.
    fn examples() -> Vec<(String, String)> {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/habits");
        let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
        let read = |path: std::path::PathBuf| {
            let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
            (name, std::fs::read_to_string(path).unwrap())
        };
        entries.map(read).collect()
    }

    #[test]
    fn the_examples_of_the_guide_are_habits() {
        let guide = include_str!("../../../docs/habits.md");
        let block = guide.split("```toml\n").nth(1).unwrap().split("```").next().unwrap();
        let examples = examples();
        assert!(examples.len() >= 5, "{examples:?}");
        for (file, text) in &examples {
            assert_eq!(&Habit::parse(text).unwrap().name, file);
            assert!(guide.contains(&format!("(habits/{file}.toml)")), "the guide does not name {file}");
        }
        assert!(examples.iter().any(|(_, text)| text == block), "the guide shows a file as it is");
    }

    #[test]
    fn every_check_that_is_shipped_cites_a_guideline() {
        let examples = examples().into_iter().map(|(_, text)| Habit::parse(&text).unwrap());
        for habit in examples.chain([Habit::ui_first().clone()]) {
            for check in &habit.checks {
                let guideline = check.guideline.as_deref().and_then(|id| Guidelines::embedded().get(id));
                assert!(guideline.is_some(), "{}: `{}`", habit.name, check.that);
            }
        }
    }

    #[test]
    fn ui_first_is_what_the_design_says() {
        let holds = |change: fn(&mut Evidence)| sample(change).ui_first();
        assert!(holds(|_| {}));
        assert!(!holds(|e| e.statics.files[0].ui = false));
        assert!(!holds(|e| e.statics.files[0].parses = false));
        assert!(!holds(|e| e.statics.files.clear()));
        assert!(!holds(|e| e.run.as_mut().unwrap().elements.clear()));
        assert!(!holds(|e| e.statics.files[0].config_lines = e.statics.files[0].lines));
        assert!(holds(|e| e.run.as_mut().unwrap().status = RunStatus::Error), "an exception may follow");
    }
}
