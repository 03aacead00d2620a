//! Where guidelines are searched: the shipped table, or a service that the settings name.
//!
//! A service only ranks: it answers with ids of the shipped table, so that whatever is shown or cited has a source that can
//! be read here. docs/design/guidelines.md has the exchange.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Guideline, Guidelines};
use crate::{
    brief::Brief,
    cancel::Cancel,
    critic::Issue,
    error::{Explain, Kind},
    model::client::{Client, Endpoint, ModelError, Retry},
};

/// The setting for the shipped table.
pub const EMBEDDED: &str = "embedded";

/// Patience with a service: it ranks a few hundred rows.
const TIMEOUT: Duration = Duration::from_secs(30);
const RETRIES: u32 = 2;

/// What ranks the guidelines.
#[derive(Clone, Debug)]
pub enum GuidelineStore {
    Embedded,
    /// One POST for each query.
    Service(Box<Client>),
}

/// What a search gave, best first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Retrieved {
    pub guidelines: Vec<&'static Guideline>,
    /// Ids in the answer that are not in the table.
    pub unknown: u32,
}

/// Why a search gave nothing.
#[derive(Debug, thiserror::Error)]
pub enum GuidelineError {
    #[error("the guideline store gives no answer: {0}")]
    Service(#[source] ModelError),
}

impl Explain for GuidelineError {
    fn kind(&self) -> Kind {
        let Self::Service(e) = self;
        e.kind()
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::Service(ModelError::Cancelled) => None,
            Self::Service(_) => Some(format!(
                "check `store` under `[guidelines]` in `hone.toml`, or set it to `{EMBEDDED}` to search the shipped table"
            )),
        }
    }
}

#[derive(Serialize)]
struct Query<'a> {
    query: &'a str,
    k: usize,
}

#[derive(Deserialize)]
struct Answer {
    ids: Vec<String>,
}

impl GuidelineStore {
    /// The store that a setting names: `embedded`, or the address of a service.
    ///
    /// # Errors
    /// The address is none.
    pub fn open(setting: &str, cancel: &Cancel) -> Result<Self, GuidelineError> {
        if setting == EMBEDDED {
            return Ok(Self::Embedded);
        }
        let retry = Retry { retries: RETRIES, ..Retry::default() };
        let endpoint = Endpoint { timeout: TIMEOUT, retry, ..Endpoint::new("the guideline store", setting) };
        let client = Client::new(endpoint).map_err(GuidelineError::Service)?;
        Ok(Self::Service(Box::new(client.cancelled_by(cancel.clone()))))
    }

    /// At most `k` guidelines that speak of what the query speaks of, best first.
    pub async fn retrieve(&self, query: &str, k: usize) -> Result<Retrieved, GuidelineError> {
        let table = Guidelines::embedded();
        match self {
            Self::Embedded => Ok(Retrieved { guidelines: table.retrieve(query, k), unknown: 0 }),
            Self::Service(client) => {
                let answer: Answer =
                    client.post(&Query { query, k }).await.map_err(GuidelineError::Service)?;
                Ok(known(&answer.ids, k))
            }
        }
    }

    /// At most `k` guidelines for whoever is asked to improve an app: those that its issues cite, in their order, and for a
    /// third of the places at least those that speak of the other issues and of the brief, in turn.
    pub async fn for_prompt(
        &self,
        brief: &Brief,
        issues: &[&Issue],
        k: usize,
    ) -> Result<Retrieved, GuidelineError> {
        let table = Guidelines::embedded();
        let behind = |issue: &Issue| issue.guideline.as_deref().and_then(|id| table.get(id));
        let mut all = Retrieved::default();
        for guideline in issues.iter().filter_map(|issue| behind(issue)) {
            add(&mut all.guidelines, guideline);
        }
        all.guidelines.truncate(k - k / 3);
        // A search of its own for each: the many words of issues would drown those of the brief.
        let other = issues.iter().filter(|issue| behind(issue).is_none());
        let of_issues = self.search(other.map(|issue| issue.message.as_str()), k).await?;
        let wanted = brief.requirements.iter().map(String::as_str);
        let of_brief = self.search(std::iter::once(brief.description.as_str()).chain(wanted), k).await?;
        all.unknown = of_issues.unknown + of_brief.unknown;
        for place in 0..k {
            for guideline in
                [&of_brief, &of_issues].into_iter().filter_map(|found| found.guidelines.get(place))
            {
                add(&mut all.guidelines, guideline);
            }
        }
        all.guidelines.truncate(k);
        Ok(all)
    }

    /// Asks with all texts at once, unless there is none.
    async fn search<'a>(
        &self,
        texts: impl Iterator<Item = &'a str>,
        k: usize,
    ) -> Result<Retrieved, GuidelineError> {
        let query = texts.collect::<Vec<_>>().join("\n");
        if query.is_empty() { Ok(Retrieved::default()) } else { self.retrieve(&query, k).await }
    }
}

/// The rows behind a service's ids.
fn known(ids: &[String], k: usize) -> Retrieved {
    let table = Guidelines::embedded();
    let mut retrieved = Retrieved::default();
    for id in ids {
        match table.get(id) {
            Some(guideline) => add(&mut retrieved.guidelines, guideline),
            None => retrieved.unknown += 1,
        }
    }
    retrieved.guidelines.truncate(k);
    retrieved
}

fn add(guidelines: &mut Vec<&'static Guideline>, guideline: &'static Guideline) {
    if !guidelines.iter().any(|present| present.id == guideline.id) {
        guidelines.push(guideline);
    }
}
