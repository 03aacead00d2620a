//! The prompts as templates: the shipped ones, each of which a file in the workspace's `prompts/` replaces.
//!
//! `agent.system.jinja` and `agent.user.jinja` make the conversation that asks for a brief's app: in production, in
//! evolution, in training rows and in trials. `improve.jinja` makes the user message that asks a teacher for a better app.
//! docs/evolve.md lists what each may use. A name that is not there is an error, never an empty text, and a template that
//! does not end is stopped.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use minijinja::{AutoEscape, Environment, UndefinedBehavior, value::Serde};
use serde::Serialize;
use sha2::{Digest, Sha256};

use crate::{
    brief::Brief,
    error::{Explain, Kind},
    model::wire::Message,
    store::{self, StoreError},
};

const SYSTEM_FILE: &str = "agent.system.jinja";
const USER_FILE: &str = "agent.user.jinja";
const IMPROVE_FILE: &str = "improve.jinja";

/// Name and shipped text of each template.
const SHIPPED: [(&str, &str); 3] = [
    (SYSTEM_FILE, include_str!("prompts/agent.system.jinja")),
    (USER_FILE, include_str!("prompts/agent.user.jinja")),
    (IMPROVE_FILE, include_str!("prompts/improve.jinja")),
];

/// The shipped system message. It names the habit; a base model does not follow it, a tuned one does.
pub const SYSTEM: &str = SHIPPED[0].1.trim_ascii();

/// Steps that a template may take; the shipped ones take some hundred.
const FUEL: u64 = 200_000;

/// A set of prompt templates that are known to work. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Prompts {
    /// Knows the templates by name, and compiles each once.
    reader: Arc<Environment<'static>>,
    sha256: Option<String>,
}

/// The shipped ones.
impl Default for Prompts {
    fn default() -> Self {
        Self::of(SHIPPED.map(|(name, text)| (name, text.to_owned())), None)
    }
}

/// Sets of the same texts are equal.
impl PartialEq for Prompts {
    fn eq(&self, other: &Self) -> bool {
        self.sha256 == other.sha256
    }
}

/// Why a template cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum PromptError {
    #[error("prompt template `{name}`{} cannot be used: {why}", line.map(|line| format!(", line {line},")).unwrap_or_default())]
    Template { name: String, line: Option<usize>, why: String },
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Explain for PromptError {
    fn kind(&self) -> Kind {
        match self {
            Self::Template { .. } => Kind::Input,
            Self::Store(e) => e.kind(),
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::Template { .. } => Some(
                "docs/evolve.md lists what a template may use; without the file in `prompts/` the shipped one is used"
                    .into(),
            ),
            Self::Store(e) => e.hint(),
        }
    }
}

/// What a teacher's prompt is made of, beside the brief. Never weights, thresholds or the number of the iteration.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Improvement {
    /// Best first; none when a fresh app is asked for.
    pub apps: Vec<ShownApp>,
    pub guidelines: Vec<ShownGuideline>,
    /// `restart`, `repair`, `revise`, `restyle` or `merge`.
    pub operator: &'static str,
}

/// An app that is to be improved.
#[derive(Clone, Debug, Serialize)]
pub struct ShownApp {
    /// As a reply would hold it.
    pub reply: String,
    /// What is wrong with it, the worst first.
    pub issues: Vec<ShownIssue>,
}

#[derive(Clone, Debug, Serialize)]
pub struct ShownIssue {
    pub severity: &'static str,
    pub message: String,
    /// File, line and column.
    pub at: Option<String>,
    /// The id of the guideline behind it, when that is shown too.
    pub guideline: Option<String>,
}

#[derive(Clone, Debug, Serialize)]
pub struct ShownGuideline {
    pub id: String,
    pub fact: String,
    pub source: String,
}

#[derive(Serialize)]
struct BriefContext<'a> {
    id: &'a str,
    kind: &'a str,
    family: &'a str,
    description: &'a str,
    framework: &'a str,
    requirements: &'a [String],
}

#[derive(Serialize)]
struct Context<'a> {
    brief: BriefContext<'a>,
    /// What the agent is asked; in `improve.jinja` alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    request: Option<&'a str>,
    #[serde(flatten)]
    improvement: Option<&'a Improvement>,
}

impl Prompts {
    /// The shipped templates, each replaced by the file of its name in a folder, which need not exist.
    ///
    /// # Errors
    /// A file that cannot be read, or a template that does not render a brief or an improvement.
    pub fn load(folder: &Path) -> Result<Self, PromptError> {
        let mut texts = SHIPPED.map(|(name, text)| (name, text.to_owned()));
        for (name, text) in &mut texts {
            let file: PathBuf = folder.join(*name);
            if file.exists() {
                *text = store::read_text(&file)?;
            }
        }
        let own = texts.iter().zip(SHIPPED).any(|((_, text), (_, shipped))| text != shipped);
        let sha256 = own.then(|| {
            let all = texts.iter().fold(Sha256::new(), |hash, (name, text)| {
                hash.chain_update((name.len() + text.len()).to_le_bytes())
                    .chain_update(name)
                    .chain_update(text)
            });
            crate::text::hex(&all.finalize())
        });
        let prompts = Self::of(texts, sha256);
        prompts.try_out()?;
        Ok(prompts)
    }

    fn of(templates: [(&'static str, String); 3], sha256: Option<String>) -> Self {
        let mut reader = Environment::new();
        reader.set_undefined_behavior(UndefinedBehavior::Strict);
        reader.set_auto_escape_callback(|_| AutoEscape::None);
        reader.set_fuel(Some(FUEL));
        reader.set_loader(move |name| {
            Ok(templates.iter().find(|(other, _)| *other == name).map(|(_, text)| text.clone()))
        });
        Self { reader: Arc::new(reader), sha256 }
    }

    /// First letters of the hash of templates that are not the shipped ones; none for the shipped ones.
    pub fn name(&self) -> Option<&str> {
        self.sha256.as_deref().and_then(|sha256| sha256.get(..8))
    }

    /// The conversation that asks for a brief's app.
    pub fn ask(&self, brief: &Brief) -> Result<Vec<Message>, PromptError> {
        let user = self.render(USER_FILE, &context(brief, None, None))?;
        self.conversation(brief, user)
    }

    /// What the agent is asked, with a placeholder for the brief.
    pub fn asked(&self) -> Result<Vec<Message>, PromptError> {
        let brief = Brief::from_description("{description}")
            .map(|b| Brief { requirements: vec!["{requirement}".into()], ..b });
        brief.map(|brief| self.ask(&brief)).unwrap_or_else(|_| Ok(Vec::new()))
    }

    /// SHA-256 of what the agent is asked, with a placeholder for the brief: as one line of JSON. Tells whether a model was
    /// trained with the prompt that it is asked with.
    pub fn asked_sha256(&self) -> Result<String, PromptError> {
        let messages = self.asked()?;
        // Messages are strings, which always become JSON.
        let line = serde_json::to_string(&messages).unwrap_or_default() + "\n";
        Ok(crate::text::hex(&Sha256::digest(line)))
    }

    /// The conversation that asks for a better app.
    pub fn improve(&self, brief: &Brief, improvement: &Improvement) -> Result<Vec<Message>, PromptError> {
        let request = self.render(USER_FILE, &context(brief, None, None))?;
        let user = self.render(IMPROVE_FILE, &context(brief, Some(&request), Some(improvement)))?;
        self.conversation(brief, user)
    }

    /// An empty system template means a conversation without a system message.
    fn conversation(&self, brief: &Brief, user: String) -> Result<Vec<Message>, PromptError> {
        let system = self.render(SYSTEM_FILE, &context(brief, None, None))?;
        let system = (!system.is_empty()).then(|| Message::system(system));
        Ok(system.into_iter().chain([Message::user(user)]).collect())
    }

    fn render(&self, name: &str, context: &Context<'_>) -> Result<String, PromptError> {
        let rendered = self.reader.get_template(name).and_then(|template| template.render(Serde(context)));
        rendered.map_err(|e| fault(name, &e))
    }

    /// Renders each template in all its cases, so that a fault shows before the first call and not in the middle of a night.
    fn try_out(&self) -> Result<(), PromptError> {
        let Ok(brief) = Brief::from_description("A form to note working hours") else { return Ok(()) };
        let wishes = Brief { requirements: vec!["a total".into()], ..brief.clone() };
        let issue = |at: Option<&str>| ShownIssue {
            severity: "major",
            message: "it has no title".into(),
            at: at.map(str::to_owned),
            guideline: at.map(|_| "g001".to_owned()),
        };
        let app = ShownApp { reply: "app".into(), issues: vec![issue(None), issue(Some("app.py:1:1"))] };
        let guideline =
            ShownGuideline { id: "g001".into(), fact: "titles help".into(), source: "a book".into() };
        for operator in ["restart", "repair", "revise", "restyle", "merge"] {
            let apps = vec![app.clone(), ShownApp { issues: vec![], ..app.clone() }];
            let full = Improvement { apps, guidelines: vec![guideline.clone()], operator };
            self.improve(&brief, &full)?;
            self.improve(&wishes, &Improvement { operator, ..Improvement::default() })?;
        }
        if self.ask(&wishes)?.last().is_some_and(|user| user.content.contains(&wishes.description)) {
            return Ok(());
        }
        let why = "the brief's description does not occur in what it renders".into();
        Err(PromptError::Template { name: USER_FILE.into(), line: None, why })
    }
}

fn context<'a>(
    brief: &'a Brief,
    request: Option<&'a str>,
    improvement: Option<&'a Improvement>,
) -> Context<'a> {
    let brief = BriefContext {
        id: brief.id.as_str(),
        kind: &brief.kind,
        family: &brief.family,
        description: &brief.description,
        framework: brief.framework.as_deref().unwrap_or("Streamlit"),
        requirements: &brief.requirements,
    };
    Context { brief, request, improvement }
}

fn fault(name: &str, error: &minijinja::Error) -> PromptError {
    let name = error.name().unwrap_or(name).to_owned();
    let why = error.detail().map_or_else(|| error.kind().to_string(), str::to_owned);
    PromptError::Template { name, line: error.line(), why }
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};

    use super::*;
    use crate::brief;

    /// What the agent was asked before prompts were templates: logs, journals and tuned models hang on these bytes.
    fn plain(brief: &Brief) -> Vec<Message> {
        let mut text = format!("Create a Streamlit UI: {}", brief.description);
        for requirement in &brief.requirements {
            text.push_str("\n- ");
            text.push_str(requirement);
        }
        vec![Message::system(SYSTEM), Message::user(text)]
    }

    #[test]
    fn the_shipped_templates_ask_what_was_always_asked() {
        let prompts = Prompts::default();
        let briefs: Vec<Brief> =
            [brief::shipped_train(), brief::shipped_heldout(), brief::shipped_sealed()].concat();
        assert!(briefs.iter().any(|brief| !brief.requirements.is_empty()));
        for brief in &briefs {
            assert_eq!(prompts.ask(brief).unwrap(), plain(brief));
            let fresh = Improvement { operator: "restart", ..Improvement::default() };
            assert_eq!(prompts.improve(brief, &fresh).unwrap(), plain(brief));
        }
        let odd = Brief::from_description("{{ 7 * 7 }} <b>\"x\"</b> & {% raw %}").unwrap();
        assert_eq!(prompts.ask(&odd).unwrap(), plain(&odd));
        assert!(SYSTEM.ends_with("user interface."), "{SYSTEM}");
    }

    fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in files {
            std::fs::write(folder.path().join(name), text).unwrap();
        }
        folder
    }

    #[test]
    fn a_file_takes_the_place_of_a_shipped_template() {
        let brief = Brief::from_description("A map").unwrap();
        assert_eq!(Prompts::load(Path::new("/nowhere")).unwrap(), Prompts::default());
        let same = folder(&[(USER_FILE, SHIPPED[1].1)]);
        assert_eq!(Prompts::load(same.path()).unwrap().name(), None);
        let own = folder(&[
            (SYSTEM_FILE, ""),
            (USER_FILE, "{{ brief.kind }}Draw: {{ brief.description | upper }} {{ brief.description }}"),
        ]);
        let own = Prompts::load(own.path()).unwrap();
        assert_eq!(own.ask(&brief).unwrap(), [Message::user("Draw: A MAP A map")]);
        let around = folder(&[(IMPROVE_FILE, "Again: {% include 'agent.user.jinja' %}")]);
        let around = Prompts::load(around.path()).unwrap();
        let asked = around.improve(&brief, &Improvement::default()).unwrap();
        assert_eq!(asked[1], Message::user("Again: Create a Streamlit UI: A map"));
        assert_eq!(own.name().map(str::len), Some(8));
        assert_ne!(own, Prompts::default());
    }

    fn check(file: &str, text: &str, expected: Expect) {
        let error = Prompts::load(folder(&[(file, text)]).path()).unwrap_err();
        assert_eq!(error.kind(), Kind::Input);
        expected.assert_eq(&error.to_string());
    }

    #[test]
    fn a_faulty_template_is_told_with_its_line_before_anything_is_asked() {
        check(
            USER_FILE,
            "{{ brief.description }}\n{{ brief.size }}",
            expect!["prompt template `agent.user.jinja`, line 2, cannot be used: `brief.size` is undefined"],
        );
        check(
            USER_FILE,
            "{% for x in %}",
            expect!["prompt template `agent.user.jinja`, line 1, cannot be used: unexpected end of block"],
        );
        check(
            USER_FILE,
            "Draw something",
            expect![
                "prompt template `agent.user.jinja` cannot be used: the brief's description does not occur in what it renders"
            ],
        );
        check(
            IMPROVE_FILE,
            "{{ request }}\n\n{{ apps[7].reply }}",
            expect!["prompt template `improve.jinja`, line 3, cannot be used: `apps[7]` is undefined"],
        );
        check(
            SYSTEM_FILE,
            "{% for x in range(9000) %}{% for y in range(9000) %}.{% endfor %}{% endfor %}",
            expect!["prompt template `agent.system.jinja`, line 1, cannot be used: engine ran out of fuel"],
        );
        check(
            IMPROVE_FILE,
            "{% include '/etc/passwd' %}",
            expect![
                "prompt template `improve.jinja`, line 1, cannot be used: tried to include non-existing template '/etc/passwd'"
            ],
        );
    }
}
