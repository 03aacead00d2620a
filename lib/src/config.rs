//! Settings: shipped defaults, `hone.toml`, environment (`HONE_*`), flags; each value knows where it came from.

use std::{collections::BTreeMap, fmt, path::Path};

use serde::{Deserialize, Serialize};
use toml::{Table, Value};

use crate::{
    auto::{self, Auto},
    error::{Explain, Kind},
    store::{self, StoreError},
};

/// Every setting, with its value in force.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Settings {
    pub agent: Agent,
    pub teacher: Teacher,
    pub judge: Judge,
    pub critic: Critic,
    pub evolve: Evolve,
    pub budget: Budget,
    pub batch: Batch,
    pub finetune: Finetune,
    pub test: Test,
    pub deploy: Deploy,
    pub guidelines: Guidelines,
    pub hub: Hub,
    /// Models that the user added, by name.
    #[serde(default)]
    pub models: BTreeMap<String, ModelRow>,
}

/// What turns briefs into candidates.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Agent {
    /// `ui-agent` (the champion), the local base model, a tuned model's id, or a name under `[models]`.
    pub model: String,
    pub framework: String,
    pub temperature: f64,
    /// Longest reply, in tokens of the model.
    pub max_tokens: u32,
}

/// What improves candidates.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Teacher {
    /// `composer`, or a name under `[models]`.
    pub model: String,
}

/// What adds to the critique.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Judge {
    /// `none`, or a name under `[models]`.
    pub model: String,
    /// Answers per question, whose mean counts.
    pub samples: u32,
}

/// What candidates are held to.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Critic {
    /// A file with weights and caps of one's own, from the workspace on; empty for the shipped ones.
    pub rubric: String,
    /// Habits that have to hold: `ui-first`, or files.
    pub habits: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Evolve {
    /// Score (0-10) at which a search may stop.
    pub target_score: f64,
    /// Improvement rounds after the drafts.
    pub max_iterations: u32,
    /// Candidates scored per brief.
    pub max_evaluations: u32,
    /// First drafts per brief.
    pub drafts: u32,
    /// Briefs worked on at once.
    pub concurrency: Auto<usize>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Budget {
    /// US dollars; 0 = no paid call at all.
    pub usd: f64,
}

/// How calls go into the batches of providers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Batch {
    /// A batch is sent when no further call has come for so many seconds.
    pub idle_s: f64,
    /// Seconds between the first looks at a batch; they grow to a minute.
    pub look_s: f64,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Finetune {
    /// `local`, or a name under `[models]`.
    pub model: String,
    pub base_model: String,
    pub suffix: String,
    pub n_epochs: Auto<u32>,
    /// Width of the low-rank update; of the local trainer alone.
    pub lora_rank: Auto<u32>,
    /// Epochs without a lower validation loss after which training ends; `auto` never ends early. Of the local trainer
    /// alone.
    pub early_stopping_patience: Auto<u32>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Test {
    /// Replies per model and brief.
    pub samples: u32,
}

/// How a tested model takes over.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Deploy {
    /// Share of the requests that it answers on trial first, 0 for none: then it is the champion at once.
    pub canary: f64,
    /// Judged calls of each side after which their run rates are compared.
    pub canary_calls: u32,
    /// How much lower the canary's may be, 0 to 1.
    pub canary_drop: f64,
}

/// What ranks guidelines for a teacher's prompts.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Guidelines {
    /// `embedded`, or the address of a service (docs/design/guidelines.md).
    pub store: String,
}

/// Where weights are downloaded from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Hub {
    /// Address of the hub, or of a mirror of it.
    pub url: String,
}

/// A chat model, or a program that answers briefs, that the user added.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelRow {
    pub provider: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base_url: Option<String>,
    /// The provider's name for it. Programs have none.
    #[serde(default)]
    pub model: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub api_key_env: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub price: Option<Price>,
    /// The model takes pictures.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub vision: bool,
    /// The endpoint holds answers to a JSON schema; by default where the provider is known to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub json_schema: Option<bool>,
    /// Of providers whose addresses carry one, such as Azure.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub api_version: Option<String>,
    /// Azure's name for where the model runs; the model's own when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deployment: Option<String>,
    /// The account that jobs belong to, where addresses carry it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub account: Option<String>,
    /// Azure's kinds of training, which differ in price and place: `standard`, `globalStandard`, `developerTier`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub training_type: Option<String>,
    /// Anthropic's header of the same name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub anthropic_version: Option<String>,
    /// Whether temperature and seed are sent; by default where the provider takes them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sampling: Option<bool>,
    /// In place of the agent's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub temperature: Option<f64>,
    /// Longest reply, in tokens of the model; in place of the agent's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_tokens: Option<u32>,
    /// Answers come piece by piece, which finds a dead connection sooner.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stream: Option<bool>,
    /// Calls at once at most.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub concurrency: Option<usize>,
    /// Longest wait for an answer, in seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_s: Option<u64>,
    /// How long a provider that is down is waited for, in seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub patience_s: Option<u64>,
    /// Sent with every call; a value `env:NAME` is read from the environment or `.env`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub headers: BTreeMap<String, String>,
    /// Calls go through the provider's batches: cheaper, and answered within a day.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub batch: bool,
    /// Of `provider = "command"`: the program and its arguments.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub command: Vec<String>,
    /// The program's environment, beside `PATH`, `HOME` and `LANG`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, String>,
    /// Variables that the program is handed as they are.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub pass_env: Vec<String>,
}

/// Providers that are the user's own agent, not a chat model with a name.
pub const OWN_AGENTS: [&str; 2] = ["command", "http"];

/// US dollars per million tokens, with the day they were true.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Price {
    pub input: f64,
    pub output: f64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub training: Option<f64>,
    pub as_of: String,
}

/// The shipped defaults, in the form of the file that overrides them.
pub const DEFAULTS: &str = r#"[agent]
model = "ui-agent"
framework = "Streamlit"
temperature = 0.7
max_tokens = 640

[teacher]
model = "composer"

[judge]
model = "none"
samples = 2

[critic]
rubric = ""
habits = ["ui-first"]

[evolve]
target_score = 8.0
max_iterations = 4
max_evaluations = 12
drafts = 2
concurrency = "auto"

[budget]
usd = 5.0

[batch]
idle_s = 3.0
look_s = 5.0

[finetune]
model = "local"
base_model = "smollm2-135m-instruct"
suffix = "ui-agent-v1"
n_epochs = "auto"
lora_rank = "auto"
early_stopping_patience = "auto"

[test]
samples = 2

[deploy]
canary = 0.0
canary_calls = 50
canary_drop = 0.1

[guidelines]
store = "embedded"

[hub]
url = "https://huggingface.co"
"#;

/// Where a value came from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Origin {
    Default,
    File,
    /// The environment variable's name.
    Env(String),
    Flag,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File => f.write_str("hone.toml"),
            Self::Env(name) => f.write_str(name),
            Self::Flag => f.write_str("flag"),
        }
    }
}

/// Settings as they were put together.
#[derive(Clone, Debug)]
pub struct Loaded {
    pub settings: Settings,
    /// Dotted key, value as TOML, origin; in the order of the defaults.
    pub origins: Vec<(String, String, Origin)>,
    /// Unknown keys, each with the nearest known name.
    pub warnings: Vec<String>,
}

/// Why settings are not usable.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("`{file}` is not valid TOML: {why}")]
    Syntax { file: String, why: String },
    #[error("setting `{key}` ({origin}) cannot be `{value}`: {why}")]
    Value { key: String, value: String, origin: Origin, why: String },
    #[error("setting `models.{name}` is not complete: {why}")]
    Row { name: String, why: String },
    #[error("setting `models.{name}` holds a key: settings are shared and shown, keys are not")]
    KeyInSettings { name: String },
    #[error("no model named `{name}`{}", nearest.as_ref().map(|n| format!("; did you mean `{n}`?")).unwrap_or_default())]
    NoModel { name: String, nearest: Option<String> },
    #[error("framework `{0}` is not supported yet")]
    Framework(String),
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Explain for ConfigError {
    fn kind(&self) -> Kind {
        match self {
            Self::Store(e) => e.kind(),
            _ => Kind::Input,
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::Store(e) => e.hint(),
            Self::Framework(_) => Some("use `Streamlit`; others come later".into()),
            Self::NoModel { .. } => Some(
                "`hone models` lists what is known; add a row under `[models.NAME]` in `hone.toml`".into(),
            ),
            Self::KeyInSettings { .. } => Some(
                "put it into `.env` or the environment, name the variable in `api_key_env`, and remove `api_key`; a key \
                 that was committed should be revoked; see docs/troubleshooting/key-in-settings.md"
                    .into(),
            ),
            Self::Row { .. } => Some("a row needs `provider` and `model`".into()),
            _ => Some("`hone config` shows every setting, its value and where it came from".into()),
        }
    }
}

impl Settings {
    /// The agent's and the teacher's model in a sentence.
    pub fn describe(&self) -> String {
        format!(
            "agent `{}`, teacher `{}`, training on `{}`",
            self.agent.model, self.teacher.model, self.finetune.model
        )
    }
}

/// Puts the layers together. `env` are the variables that start with `HONE_`; `flags` are dotted keys with values.
pub fn load(file: &Path, env: &[(String, String)], flags: &[(&str, String)]) -> Result<Loaded, ConfigError> {
    let text = match store::read_text(file) {
        Ok(text) => text,
        Err(e) if e.source.kind() == std::io::ErrorKind::NotFound => String::new(),
        Err(e) => return Err(e.into()),
    };
    layer(&text, &file.display().to_string(), env, flags)
}

fn layer(
    text: &str,
    file: &str,
    env: &[(String, String)],
    flags: &[(&str, String)],
) -> Result<Loaded, ConfigError> {
    let defaults = parse(DEFAULTS, "defaults")?;
    let mut merged = defaults.clone();
    let known: Vec<String> = leaves(&merged).into_iter().map(|(key, _)| key).collect();
    let mut origins: BTreeMap<String, Origin> = BTreeMap::new();
    let mut warnings = Vec::new();

    let mut user = parse(text, file)?;
    let rows = user.remove("models");
    for (key, value) in leaves(&user) {
        if known.contains(&key) {
            set(&mut merged, &key, value, Origin::File, &mut origins)?;
        } else {
            warnings.push(unknown(&key, &known, file));
        }
    }
    for (name, value) in env {
        // Other HONE_ variables (the cache, the weights) are not settings.
        if let Some(key) = known.iter().find(|key| env_name(key) == *name) {
            let value = typed(&defaults, key, value, &Origin::Env(name.clone()))?;
            set(&mut merged, key, value, Origin::Env(name.clone()), &mut origins)?;
        }
    }
    for (key, value) in flags {
        let value = typed(&defaults, key, value, &Origin::Flag)?;
        set(&mut merged, key, value, Origin::Flag, &mut origins)?;
    }
    let listed = known
        .iter()
        .map(|key| {
            let value = get(&merged, key).map(ToString::to_string).unwrap_or_default();
            (key.clone(), value, origins.get(key).cloned().unwrap_or(Origin::Default))
        })
        .collect();
    let mut settings: Settings = Value::Table(merged)
        .try_into()
        .map_err(|e: toml::de::Error| ConfigError::Syntax { file: file.into(), why: e.message().into() })?;
    settings.models = models(rows)?;
    check(&settings, &origins)?;
    Ok(Loaded { settings, origins: listed, warnings })
}

fn parse(text: &str, file: &str) -> Result<Table, ConfigError> {
    text.parse::<Table>().map_err(|e| {
        let line = e.span().map(|span| text[..span.start.min(text.len())].lines().count().max(1));
        let at = line.map(|n| format!("line {n}: ")).unwrap_or_default();
        ConfigError::Syntax { file: file.into(), why: format!("{at}{}", e.message()) }
    })
}

fn leaves(table: &Table) -> Vec<(String, Value)> {
    let mut found = Vec::new();
    for (section, value) in table {
        match value {
            Value::Table(inner) => {
                found.extend(inner.iter().map(|(key, value)| (format!("{section}.{key}"), value.clone())));
            }
            other => found.push((section.clone(), other.clone())),
        }
    }
    found
}

fn get<'a>(table: &'a Table, key: &str) -> Option<&'a Value> {
    let (section, name) = key.split_once('.')?;
    table.get(section)?.get(name)
}

/// Puts a value in its place after trying it alone, so that a fault names its own key.
fn set(
    merged: &mut Table,
    key: &str,
    value: Value,
    origin: Origin,
    origins: &mut BTreeMap<String, Origin>,
) -> Result<(), ConfigError> {
    let Some((section, name)) = key.split_once('.') else { return Ok(()) };
    let value = match (get(merged, key), value) {
        (Some(Value::Float(_)), Value::Integer(whole)) => Value::Float(whole as f64),
        (_, value) => value,
    };
    let mut trial = merged.clone();
    if let Some(Value::Table(inner)) = trial.get_mut(section) {
        inner.insert(name.to_owned(), value.clone());
    }
    let fits: Result<Settings, toml::de::Error> = Value::Table(trial.clone()).try_into();
    if let Err(e) = fits {
        let why = e.message().lines().next().unwrap_or_default().to_owned();
        return Err(ConfigError::Value { key: key.into(), value: value.to_string(), origin, why });
    }
    *merged = trial;
    origins.insert(key.to_owned(), origin);
    Ok(())
}

/// A string from the environment or a flag as the type that the setting's default has: a value of another layer may be of
/// another one, as numbers and `auto` are.
fn typed(defaults: &Table, key: &str, text: &str, origin: &Origin) -> Result<Value, ConfigError> {
    let fail = |why: &str| ConfigError::Value {
        key: key.into(),
        value: text.into(),
        origin: origin.clone(),
        why: why.into(),
    };
    match get(defaults, key) {
        Some(Value::Float(_)) => text.parse().map(Value::Float).map_err(|_| fail("expected a number")),
        Some(Value::Integer(_)) => {
            text.parse().map(Value::Integer).map_err(|_| fail("expected a whole number"))
        }
        Some(Value::String(default)) if default == auto::AUTO => {
            Ok(text.parse().map_or_else(|_| Value::String(text.into()), Value::Integer))
        }
        Some(Value::Array(_)) => {
            let items = text.split(',').map(str::trim).filter(|item| !item.is_empty());
            Ok(Value::Array(items.map(|item| Value::String(item.into())).collect()))
        }
        _ => Ok(Value::String(text.into())),
    }
}

fn env_name(key: &str) -> String {
    format!("HONE_{}", key.replace('.', "_").to_uppercase())
}

fn unknown(key: &str, known: &[String], file: &str) -> String {
    let near = nearest(key, known.iter().map(String::as_str));
    let advice = near.map(|n| format!("; did you mean `{n}`?")).unwrap_or_default();
    format!("unknown setting `{key}` in `{file}`{advice}")
}

/// The known name most like the given one, if any is like it.
pub fn nearest<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> Option<String> {
    known
        .map(|candidate| (strsim::jaro_winkler(name, candidate), candidate))
        .filter(|(likeness, _)| *likeness > 0.8)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, candidate)| candidate.to_owned())
}

fn models(rows: Option<Value>) -> Result<BTreeMap<String, ModelRow>, ConfigError> {
    let Some(Value::Table(rows)) = rows else { return Ok(BTreeMap::new()) };
    rows.into_iter()
        .map(|(name, row)| {
            if row.get("api_key").is_some() {
                return Err(ConfigError::KeyInSettings { name });
            }
            let fail = |why: &str| ConfigError::Row { name: name.clone(), why: why.into() };
            let parsed = row.try_into::<ModelRow>().map_err(|e| fail(e.message()))?;
            if parsed.model.is_empty() && !OWN_AGENTS.contains(&parsed.provider.as_str()) {
                return Err(fail("missing field `model`"));
            }
            Ok((name, parsed))
        })
        .collect()
}

fn check(settings: &Settings, origins: &BTreeMap<String, Origin>) -> Result<(), ConfigError> {
    let value = |key: &str, value: String, why: &str| {
        let origin = origins.get(key).cloned().unwrap_or(Origin::Default);
        Err(ConfigError::Value { key: key.into(), value, origin, why: why.into() })
    };
    let Settings { agent, judge, evolve, budget, batch, test, deploy, guidelines, hub, .. } = settings;
    if !agent.framework.eq_ignore_ascii_case("streamlit") {
        return Err(ConfigError::Framework(agent.framework.clone()));
    }
    if !(0.0..=2.0).contains(&agent.temperature) {
        return value("agent.temperature", agent.temperature.to_string(), "it lies between 0 and 2");
    }
    if !(0.0..=10.0).contains(&evolve.target_score) {
        return value("evolve.target_score", evolve.target_score.to_string(), "scores lie between 0 and 10");
    }
    if !(1..=12).contains(&evolve.max_evaluations) {
        return value(
            "evolve.max_evaluations",
            evolve.max_evaluations.to_string(),
            "it lies between 1 and 12",
        );
    }
    if evolve.drafts == 0 || evolve.drafts > evolve.max_evaluations {
        return value("evolve.drafts", evolve.drafts.to_string(), "it lies between 1 and `max_evaluations`");
    }
    for (key, seconds) in [("batch.idle_s", batch.idle_s), ("batch.look_s", batch.look_s)] {
        if !(0.01..=3600.0).contains(&seconds) {
            return value(key, seconds.to_string(), "it lies between 0.01 and 3600");
        }
    }
    if budget.usd < 0.0 || budget.usd.is_nan() {
        return value("budget.usd", budget.usd.to_string(), "it is 0 or more");
    }
    if !(1..=5).contains(&judge.samples) {
        return value("judge.samples", judge.samples.to_string(), "it lies between 1 and 5");
    }
    if test.samples == 0 {
        return value("test.samples", "0".into(), "at least one reply is needed");
    }
    if !(0.0..1.0).contains(&deploy.canary) {
        return value("deploy.canary", deploy.canary.to_string(), "it is a share: at least 0 and below 1");
    }
    if deploy.canary_calls == 0 {
        return value("deploy.canary_calls", "0".into(), "at least one call is needed");
    }
    if !(0.0..=1.0).contains(&deploy.canary_drop) {
        return value("deploy.canary_drop", deploy.canary_drop.to_string(), "it lies between 0 and 1");
    }
    if !is_address(&hub.url) {
        return value("hub.url", hub.url.clone(), "it is no http:// or https:// address");
    }
    if guidelines.store != "embedded" && !is_address(&guidelines.store) {
        let why = "it is `embedded`, or an address that starts with http:// or https://";
        return value("guidelines.store", guidelines.store.clone(), why);
    }
    Ok(())
}

fn is_address(text: &str) -> bool {
    reqwest::Url::parse(text).is_ok_and(|url| matches!(url.scheme(), "http" | "https"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn loaded(text: &str, env: &[(&str, &str)], flags: &[(&str, &str)]) -> Result<Loaded, ConfigError> {
        let env: Vec<_> = env.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        let flags: Vec<_> = flags.iter().map(|(k, v)| (*k, (*v).to_owned())).collect();
        layer(text, "hone.toml", &env, &flags)
    }

    #[test]
    fn later_layers_win_and_say_so() {
        let text = "[evolve]\ntarget_score = 7\nmax_iterations = 2\n[finetune]\nn_epochs = 3\n";
        let loaded = loaded(
            text,
            &[("HONE_EVOLVE_TARGET_SCORE", "6.5"), ("HONE_CACHE", "/x")],
            &[("evolve.max_iterations", "1")],
        )
        .unwrap();
        assert_eq!(loaded.settings.evolve.target_score, 6.5);
        assert_eq!(loaded.settings.evolve.max_iterations, 1);
        assert_eq!(loaded.settings.finetune.n_epochs, Auto::Fixed(3));
        let origin = |key: &str| loaded.origins.iter().find(|o| o.0 == key).unwrap().2.clone();
        assert_eq!(origin("evolve.target_score"), Origin::Env("HONE_EVOLVE_TARGET_SCORE".into()));
        assert_eq!(origin("evolve.max_iterations"), Origin::Flag);
        assert_eq!(origin("finetune.n_epochs"), Origin::File);
        assert_eq!(origin("agent.model"), Origin::Default);
    }

    #[test]
    fn an_unknown_key_warns_with_the_nearest() {
        let loaded = loaded("[evolve]\ntarget_scor = 7.0\n", &[], &[]).unwrap();
        assert_eq!(
            loaded.warnings,
            ["unknown setting `evolve.target_scor` in `hone.toml`; did you mean `evolve.target_score`?"]
        );
    }

    #[test]
    fn a_fault_names_its_key_and_origin() {
        for (text, env, want) in [
            ("[evolve]\ndrafts = \"many\"", None, "evolve.drafts"),
            ("[evolve\n", None, "line 1"),
            ("", Some(("HONE_BUDGET_USD", "lots")), "HONE_BUDGET_USD"),
            ("[agent]\nframework = \"React\"", None, "React"),
            ("[agent]\ntemperature = 9.0", None, "agent.temperature"),
            ("[finetune]\nn_epochs = \"some\"", None, "finetune.n_epochs"),
            ("[models.gpt]\nprovider = \"openai\"", None, "models.gpt"),
        ] {
            let error = loaded(text, env.as_slice(), &[]).unwrap_err();
            assert!(error.to_string().contains(want), "{error}");
            assert_eq!(error.kind(), Kind::Input);
            assert!(error.hint().is_some());
        }
    }

    #[test]
    fn a_text_has_the_type_of_the_default() {
        let file = "[finetune]\nn_epochs = 3\n[evolve]\nconcurrency = 4\n";
        let env = [("HONE_FINETUNE_SUFFIX", "2024"), ("HONE_EVOLVE_CONCURRENCY", "auto")];
        let flags = [("finetune.n_epochs", "auto"), ("agent.model", "7"), ("budget.usd", "2")];
        let settings = loaded(file, &env, &flags).unwrap().settings;
        assert_eq!((settings.finetune.suffix.as_str(), settings.agent.model.as_str()), ("2024", "7"));
        assert_eq!((settings.finetune.n_epochs, settings.evolve.concurrency), (Auto::Auto, Auto::Auto));
        assert_eq!(settings.budget.usd, 2.0);
        let settings = loaded("", &[], &[("finetune.n_epochs", "5")]).unwrap().settings;
        assert_eq!(settings.finetune.n_epochs, Auto::Fixed(5));
        let error = loaded(file, &[], &[("finetune.n_epochs", "some")]).unwrap_err();
        assert!(error.to_string().contains("`finetune.n_epochs` (flag)"), "{error}");
    }

    #[test]
    fn a_value_out_of_range_is_blamed_on_who_gave_it() {
        let text = "[agent]\ntemperature = 0.5\n";
        let error = loaded(text, &[("HONE_AGENT_TEMPERATURE", "9")], &[]).unwrap_err();
        expect_test::expect![
            "setting `agent.temperature` (HONE_AGENT_TEMPERATURE) cannot be `9`: it lies between 0 and 2"
        ]
        .assert_eq(&error.to_string());
        let error = loaded(text, &[], &[("agent.temperature", "9")]).unwrap_err();
        assert!(error.to_string().contains("(flag)"), "{error}");
        let error = loaded("[agent]\ntemperature = 9\n", &[], &[]).unwrap_err();
        assert!(error.to_string().contains("(hone.toml)"), "{error}");
        assert!(loaded("", &[], &[("budget.usd", "nan")]).is_err());
        for (store, fits) in [
            ("embedded", true),
            ("http://127.0.0.1:6333/guidelines", true),
            ("https://search.example", true),
            ("embeded", false),
            ("localhost:6333", false),
            ("", false),
        ] {
            assert_eq!(loaded("", &[], &[("guidelines.store", store)]).is_ok(), fits, "{store}");
        }
    }

    #[test]
    fn a_row_is_read_with_its_price() {
        let text = "[models.gpt]\nprovider = \"openai\"\nmodel = \"gpt-4o\"\nprice = { input = 3.75, output = 15.0, as_of = \"2024-10-01\" }";
        let row = &loaded(text, &[], &[]).unwrap().settings.models["gpt"];
        assert_eq!(row.price.as_ref().unwrap().output, 15.0);
    }
}
