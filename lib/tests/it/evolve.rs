//! Searches that models drive, against a provider whose replies are given.

use std::time::Duration;

use hone::{
    agent::Agent,
    brief::Brief,
    cancel::Cancel,
    critic::{Critic, CriticOptions, GuidelineStore},
    event::Events,
    evolve::{EvolutionLog, Evolver, Options, Summary, Teacher},
    model::{
        client::{Client, Endpoint, Retry},
        journal::Journal,
    },
    store::Workspace,
};
use serde_json::json;
use wiremock::{
    Mock, MockServer, Respond, ResponseTemplate,
    matchers::{body_partial_json, method},
};

use crate::critic::{brief, runtime};

/// An answer of a chat model: its text and how it ended.
fn answer(content: &str, finish: &str) -> ResponseTemplate {
    ResponseTemplate::new(200).set_body_json(json!({
        "id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": "m",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": content}, "finish_reason": finish}],
        "usage": {"prompt_tokens": 9, "completion_tokens": 1, "total_tokens": 10}}))
}

fn app(lines: &str) -> String {
    format!("```python\n# app.py\nimport streamlit as st\n{lines}\n```")
}

/// A provider, a workspace, and a critic that looks at source alone.
struct World {
    provider: MockServer,
    folder: tempfile::TempDir,
    critic: Critic,
}

impl World {
    async fn new(test: &str) -> Option<Self> {
        let options = CriticOptions { static_only: true, ..CriticOptions::default() };
        let critic = Critic::open(runtime(test)?, options, &Cancel::new()).await.unwrap();
        Some(Self { provider: MockServer::start().await, folder: tempfile::tempdir().unwrap(), critic })
    }

    async fn answers(&self, model: &str, with: impl Respond + 'static) {
        let asked = body_partial_json(json!({ "model": model }));
        Mock::given(method("POST")).and(asked).respond_with(with).mount(&self.provider).await;
    }

    fn model(&self, name: &str) -> Agent {
        let retry = Retry { retries: 1, first_wait: Duration::from_millis(1), ..Retry::default() };
        let endpoint = Endpoint { retry, ..Endpoint::new("fake", format!("{}/v1", self.provider.uri())) };
        Agent {
            client: Client::new(endpoint).unwrap(),
            model: name.into(),
            temperature: 0.0,
            max_tokens: 100,
            journal: Journal::open(self.folder.path().join("journal")),
        }
    }

    async fn evolve(&self, briefs: &[Brief], options: Options) -> Summary {
        let (agent, teacher) = (self.model("agent"), Teacher::Model(Box::new(self.model("teacher"))));
        let (workspace, cancel) = (Workspace::new(self.folder.path()), Cancel::new());
        let evolver = Evolver {
            workspace: &workspace,
            agent: &agent,
            teacher: &teacher,
            critic: &self.critic,
            guidelines: &GuidelineStore::Embedded,
            options,
            concurrency: 4,
            events: &Events::none(),
            cancel: &cancel,
        };
        evolver.run(briefs).await.unwrap()
    }

    fn log(&self, brief: &str) -> EvolutionLog {
        let path = Workspace::new(self.folder.path()).log(brief, 1);
        serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
    }
}

fn options() -> Options {
    Options { target_score: 10.0, max_iterations: 2, max_evaluations: 6, drafts: 1, seed: 1, round: 1 }
}

#[tokio::test]
async fn replies_that_are_no_whole_answers_are_recorded_and_end_nothing() {
    let test = "replies_that_are_no_whole_answers_are_recorded_and_end_nothing";
    let Some(world) = World::new(test).await else { return };
    // The agent declines, in words that look like an app; the teacher's reply is cut.
    let declined = answer(&app("st.title('No')"), "content_filter");
    world.answers("agent", declined).await;
    world.answers("teacher", answer(&app("st.title('Hours')\nst.text_input('Ho"), "length")).await;
    let summary = world.evolve(&[brief("a form to note working hours")], options()).await;
    assert_eq!(summary.evolutions, 1);
    let history = world.log("b").evolution_history;
    let finish = |at: usize| history[at].finish_reason.as_deref();
    assert_eq!((finish(0), history[0].files.len()), (Some("content_filter"), 0));
    assert_eq!((finish(1), history[1].files.len()), (Some("length"), 1));

    // A teacher that declines proposes nothing; the draft stays the best there is.
    let Some(world) = World::new(test).await else { return };
    world.answers("agent", answer(&app("st.title('Hours')"), "stop")).await;
    world.answers("teacher", answer("I cannot help with that", "refusal")).await;
    world.evolve(&[brief("a form to note working hours")], options()).await;
    let log = world.log("b");
    assert_eq!((log.evolution_history.len(), log.best_iteration), (1, 1));
    assert_eq!(log.evolution_history[0].finish_reason, None);
}
