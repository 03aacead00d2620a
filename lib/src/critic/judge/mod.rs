//! A judge: a chat model that answers a checklist about a candidate, and says which of two is better.
//!
//! It never writes a score. Its answers go through [`judged`], which can only lower what execution allows; what a
//! candidate says is shown to it as data ([`material`]). A judge that does not answer changes nothing, and that it did not
//! is recorded. Without one, nothing here runs.

mod answers;
mod checklist;
mod material;
mod pair;
mod prompt;
mod reply;

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use base64::prelude::{BASE64_STANDARD, Engine as _};
use futures::future::join_all;
use rand::{SeedableRng, rngs::ChaCha8Rng, seq::SliceRandom};
use serde::{Deserialize, Serialize};
use serde_json::json;
use sha2::{Digest, Sha256};
use tokio::sync::OnceCell;

pub use pair::{Choice, Contender, Decided, Preference};

use self::{
    answers::Sample,
    checklist::{Checklist, Item},
    material::Material,
    prompt::Kind,
};
use super::{Cap, Critic, CriticError, Critique, Evidence, Rubric, score::judged};
use crate::{
    agent::{Agent, Candidate},
    brief::Brief,
    model::{
        client::ModelError,
        journal::Journal,
        wire::{ChatRequest, Finish, Message},
    },
    store,
};

/// Above 0, so that samples of one question can differ.
const TEMPERATURE: f64 = 0.5;
/// Longest answer, in tokens of the model.
const MAX_TOKENS: u32 = 2000;
/// Pictures beyond this size are not sent, in bytes.
const MOST_PICTURE: usize = 4 * 1024 * 1024;
/// What execution caps at this or less shows almost nothing, or is not believed: there is nothing to ask about.
const NOTHING_TO_ASK: f64 = 2.0;

/// What a judge is made of.
#[derive(Clone, Debug)]
pub struct JudgeOptions {
    /// Its name in the settings.
    pub row: String,
    /// Its model; the decoding is the judge's own.
    pub agent: Agent,
    /// The model takes pictures.
    pub vision: bool,
    /// The endpoint holds answers to a JSON schema.
    pub json_schema: bool,
    /// Answers per question, at least 1.
    pub samples: u32,
    /// Where checklists are kept.
    pub folder: PathBuf,
}

/// A judge. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Judge {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    options: JudgeOptions,
    checklists: Mutex<HashMap<PathBuf, Arc<OnceCell<Derived>>>>,
    tally: Mutex<Tally>,
}

/// A checklist, or why there is none: one failure holds for all candidates of the brief, so that they stay comparable.
type Derived = Result<Arc<Checklist>, String>;

/// What a judge did in this run.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Tally {
    /// Its name in the settings.
    pub row: String,
    /// Calls that were sent; those answered by the journal are not.
    pub calls: u64,
    pub usage: Usage,
    /// Null when the price is unknown.
    pub usd: Option<f64>,
    /// Candidates that it judged.
    pub judged: u64,
    /// Candidates that keep their executed score because it gave no usable answer.
    pub absent: u64,
    /// Pairs that it was asked about; of them, those on which its two answers differ, and those without an answer.
    pub pairs: u64,
    pub inconsistent: u64,
    pub pairs_absent: u64,
    /// Share of the answered pairs on which the order decided and not the apps; null without any.
    pub position_bias: Option<f64>,
    /// Why it was absent the last time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_absence: Option<String>,
}

/// Tokens by the provider's count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    pub input_tokens: u64,
    pub output_tokens: u64,
}

/// What a judge said of one candidate.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Judged {
    /// Its name in the settings, and its model.
    pub row: String,
    pub model: String,
    /// Fingerprint of the checklist; empty without one.
    #[serde(default)]
    pub checklist: String,
    /// Samples that were asked for, and those that gave an answer.
    pub samples: u32,
    pub answered: u32,
    pub items: Vec<JudgedItem>,
    /// Mean of the answers, 0-1; null when too few items were answered.
    pub share: Option<f64>,
    /// 0-10, by evidence alone.
    pub executed_score: f64,
    /// What it took away.
    pub lowered_by: f64,
    /// The bound that its answers set, if they did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cap: Option<Cap>,
    /// Why the answers count nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub absent: Option<String>,
    /// It was not asked: execution leaves nothing to ask about.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub spared: bool,
}

/// One question and the mean of its answers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct JudgedItem {
    pub id: String,
    pub question: String,
    /// `yes` 1, `partial` 0.5, `no` 0; null when no sample answered.
    pub answer: Option<f64>,
    /// The samples differ.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub differs: bool,
    /// Quoted for the lowest of the answers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub evidence: Option<String>,
}

/// Why there is no answer.
#[derive(Debug)]
enum Missing {
    /// Everything stops.
    Stop(CriticError),
    /// The judge is absent.
    No(String),
}

impl Tally {
    /// That it was absent, how often and why; nothing when it never was.
    pub fn complaint(&self) -> Option<String> {
        let of = self.judged + self.absent;
        let why = self.last_absence.as_ref().map(|why| format!(": {why}")).unwrap_or_default();
        (self.absent > 0).then(|| {
            format!(
                "the judge `{}` gave no usable answer on {} of {of} candidates{why}",
                self.row, self.absent
            )
        })
    }
}

impl From<ModelError> for Missing {
    fn from(error: ModelError) -> Self {
        match error {
            ModelError::Cancelled => Self::Stop(CriticError::Cancelled),
            ModelError::Store(error) => Self::Stop(error.into()),
            // A score without a judge because money ran out would be another score than that of a run with more of it.
            stop @ (ModelError::Budget { .. }
            | ModelError::NoPrice { .. }
            | ModelError::Down { .. }
            | ModelError::NotInJournal { .. }) => Self::Stop(CriticError::Model(stop)),
            other => Self::No(other.to_string()),
        }
    }
}

impl Judge {
    pub fn new(options: JudgeOptions) -> Self {
        let journal = options.agent.journal.by("judge");
        let agent = Agent { temperature: TEMPERATURE, max_tokens: MAX_TOKENS, journal, ..options.agent };
        let tally = Tally { row: options.row.clone(), usd: Some(0.0), ..Tally::default() };
        let options = JudgeOptions { agent, samples: options.samples.max(1), ..options };
        let shared = Shared { options, checklists: Mutex::default(), tally: Mutex::new(tally) };
        Self { shared: Arc::new(shared) }
    }

    /// The critic's version with this judge: scores with and without it, or with another, never compare.
    pub fn version(&self, critic: &str) -> String {
        let JudgeOptions { row, agent, vision, samples, .. } = &self.shared.options;
        let asked =
            json!([prompt::VERSION, agent.client.endpoint().name, agent.model, vision, samples, TEMPERATURE]);
        format!("{critic}+judge:{row}.{:.8}", crate::text::hex(&Sha256::digest(asked.to_string())))
    }

    /// Through which its calls go.
    pub fn journal(&self) -> &Journal {
        &self.shared.options.agent.journal
    }

    /// Its name in the settings.
    pub fn row(&self) -> &str {
        &self.shared.options.row
    }

    /// The model that answers.
    pub fn model(&self) -> &str {
        &self.shared.options.agent.model
    }

    /// Where the critic keeps pictures for it, when it looks at any.
    pub fn pictures(&self) -> Option<PathBuf> {
        self.shared.options.vision.then(|| self.shared.options.folder.join("screenshots"))
    }

    /// What it did so far.
    pub fn tally(&self) -> Tally {
        let tally = self.shared.tally.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let answered = tally.pairs - tally.pairs_absent;
        let position_bias = (answered > 0).then(|| tally.inconsistent as f64 / answered as f64);
        Tally { position_bias, ..tally }
    }

    fn count(&self, change: impl FnOnce(&mut Tally)) {
        change(&mut self.shared.tally.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// The critique as the judge's answers leave it: never with a higher score. Pictures are looked for in `pictures`.
    ///
    /// # Errors
    /// Only a stop, a full disk and the like; a judge that does not answer leaves the critique with its executed score and
    /// version, and says so in it.
    pub async fn review(
        &self,
        brief: &Brief,
        (candidate, evidence): (&Candidate, &Evidence),
        critique: Critique,
        rubric: &Rubric,
        pictures: Option<&Path>,
    ) -> Result<Critique, CriticError> {
        let version = self.version(&critique.critic);
        let mut said = self.nothing_yet(&critique);
        if critique.caps.iter().any(|cap| cap.value <= NOTHING_TO_ASK) {
            said.spared = true;
            return Ok(Critique { critic: version, judge: Some(said), ..critique });
        }
        match self.answers(brief, candidate, evidence, pictures).await {
            Ok((checklist, samples)) => {
                said.checklist = checklist.fingerprint();
                said.answered = samples.len() as u32;
                said.items = answers::mean(&checklist.items, &samples);
                said.share = answers::share(&said.items);
                if said.share.is_none() {
                    said.absent = Some("fewer than half of the questions were answered".to_owned());
                }
            }
            Err(Missing::No(why)) => said.absent = Some(why),
            Err(Missing::Stop(error)) => return Err(error),
        }
        let absent = said.absent.clone();
        self.count(|tally| {
            *(if absent.is_some() { &mut tally.absent } else { &mut tally.judged }) += 1;
            tally.last_absence = absent.or(tally.last_absence.take());
        });
        Ok(lower(critique, version, said, rubric))
    }

    fn nothing_yet(&self, critique: &Critique) -> Judged {
        let options = &self.shared.options;
        Judged {
            row: options.row.clone(),
            model: options.agent.model.clone(),
            checklist: String::new(),
            samples: options.samples,
            answered: 0,
            items: Vec::new(),
            share: None,
            executed_score: critique.overall_score,
            lowered_by: 0.0,
            cap: None,
            absent: None,
            spared: false,
        }
    }

    /// All samples that can be used; an error when none can.
    async fn answers(
        &self,
        brief: &Brief,
        candidate: &Candidate,
        evidence: &Evidence,
        pictures: Option<&Path>,
    ) -> Result<(Arc<Checklist>, Vec<Sample>), Missing> {
        let checklist = self.checklist(brief).await?.map_err(Missing::No)?;
        let material = Material::of(candidate, evidence).await.map_err(Missing::Stop)?;
        let picture = self.picture(evidence, pictures);
        let sample = async |number: u32| {
            let items = shuffled(&checklist.items, &evidence.source_sha256, number);
            let messages = prompt::answer(brief, &items, &material, picture.clone());
            let text = self.ask(messages, Kind::Answers, number).await?;
            answers::parse(&text, &items)
                .map_err(|why| Missing::No(format!("its answer cannot be used: {why}")))
        };
        let (mut samples, mut last) = (Vec::new(), None);
        for result in join_all((0..self.shared.options.samples).map(sample)).await {
            match result {
                Ok(sample) => samples.push(sample),
                Err(stop @ Missing::Stop(_)) => return Err(stop),
                Err(absent) => last = Some(absent),
            }
        }
        match last {
            Some(absent) if samples.is_empty() => Err(absent),
            _ => Ok((checklist, samples)),
        }
    }

    /// The brief's checklist: from memory, from disk, or derived now and on disk when this returns.
    async fn checklist(&self, brief: &Brief) -> Result<Derived, Missing> {
        let options = &self.shared.options;
        let who = (options.agent.client.endpoint().name.as_str(), options.agent.model.as_str());
        let path = Checklist::path(&options.folder, brief, who);
        let cell = {
            let mut cells = self.shared.checklists.lock().unwrap_or_else(PoisonError::into_inner);
            cells.entry(path.clone()).or_default().clone()
        };
        let derive = async || {
            if let Some(kept) = Checklist::load(&path).map_err(|e| Missing::Stop(e.into()))? {
                return Ok(Ok(Arc::new(kept)));
            }
            let items = match self.derive(brief).await {
                Ok(items) => items,
                Err(Missing::No(why)) => return Ok(Err(format!("there is no checklist: {why}"))),
                Err(stop) => return Err(stop),
            };
            let checklist = Checklist::new(brief, who, items);
            store::write_json(&path, &checklist).map_err(|e| Missing::Stop(e.into()))?;
            Ok(Ok(Arc::new(checklist)))
        };
        cell.get_or_try_init(derive).await.cloned()
    }

    /// Asks for a checklist, and once more with what was wrong with the first.
    async fn derive(&self, brief: &Brief) -> Result<Vec<Item>, Missing> {
        let text = self.ask(prompt::derive(brief), Kind::Checklist, 0).await?;
        let why = match checklist::parse(&text) {
            Ok(items) => return Ok(items),
            Err(why) => why,
        };
        let text = self.ask(prompt::derive_again(brief, &text, &why), Kind::Checklist, 1).await?;
        checklist::parse(&text).map_err(Missing::No)
    }

    /// One call, through the journal.
    async fn ask(&self, messages: Vec<Message>, kind: Kind, sample: u32) -> Result<String, Missing> {
        let JudgeOptions { agent, json_schema, .. } = &self.shared.options;
        let mut request = ChatRequest {
            temperature: Some(agent.temperature),
            max_completion_tokens: Some(agent.max_tokens),
            seed: Some(i64::from(sample)),
            ..ChatRequest::new(&agent.model, messages)
        };
        if *json_schema {
            request.extra.insert("response_format".to_owned(), prompt::schema(kind));
        }
        let answer = agent.journal.chat(&agent.client, &request, &format!("judge {sample}")).await;
        let sent = !matches!(&answer, Ok(answer) if answer.replayed);
        // A call that failed gave nothing to bill.
        let usd = answer.as_ref().map_or(Some(0.0), |answer| answer.usd);
        let used =
            answer.as_ref().ok().filter(|_| sent).and_then(|answer| answer.reply.usage).unwrap_or_default();
        self.count(|tally| {
            tally.calls += u64::from(sent);
            tally.usage.input_tokens += used.prompt_tokens;
            tally.usage.output_tokens += used.completion_tokens;
            if sent {
                tally.usd = tally.usd.zip(usd).map(|(sum, usd)| sum + usd);
            }
        });
        let reply = answer?.reply;
        match reply.finish() {
            Finish::Complete => Ok(reply.text().to_owned()),
            cut => Err(Missing::No(format!("its answer is not whole: it ended with `{}`", cut.as_str()))),
        }
    }

    /// The first picture of a candidate, as an address that carries it.
    fn picture(&self, evidence: &Evidence, folder: Option<&Path>) -> Option<String> {
        let own = self.pictures()?;
        let name = evidence.browser.as_ref()?.screenshots.first()?;
        let bytes =
            std::fs::read(folder.unwrap_or(&own).join(name)).ok().filter(|b| b.len() <= MOST_PICTURE)?;
        Some(format!("data:image/webp;base64,{}", BASE64_STANDARD.encode(bytes)))
    }
}

/// Puts a judge's words into a critique. An absent judge leaves the version of a critic without one.
fn lower(critique: Critique, version: String, mut said: Judged, rubric: &Rubric) -> Critique {
    let Some(share) = said.share.filter(|_| said.absent.is_none()) else {
        return Critique { judge: Some(said), ..critique };
    };
    let (overall_score, cap) = judged(critique.overall_score, &critique.scores, share, rubric);
    said.lowered_by = (100.0 * (critique.overall_score - overall_score)).round() / 100.0;
    said.cap = cap;
    Critique { overall_score, critic: version, judge: Some(said), ..critique }
}

/// The questions in an order of their own for each sample: their order sways answers.
fn shuffled(items: &[Item], candidate: &str, sample: u32) -> Vec<Item> {
    let digest = Sha256::digest(format!("{candidate}\n{sample}"));
    let mut items = items.to_vec();
    items.shuffle(&mut ChaCha8Rng::from_seed(digest.into()));
    items
}

impl Critic {
    /// The judge, where there is one.
    pub fn judge(&self) -> Option<&Judge> {
        self.shared.judge.as_ref()
    }

    /// A critique as the judge leaves it, where there is one.
    pub(super) async fn judged(
        &self,
        brief: &Brief,
        candidate: &Candidate,
        evidence: &Evidence,
        executed: Critique,
    ) -> Result<Critique, CriticError> {
        let Some(judge) = self.judge() else { return Ok(executed) };
        let (rubric, folder) = (&self.shared.standards.rubric, self.shared.screenshots.as_deref());
        judge.review(brief, (candidate, evidence), executed, rubric, folder).await
    }
}
