//! Searches that models drive, against a provider whose replies are given.

use std::{collections::BTreeMap, path::Path, time::Duration};

use hone::{
    agent::{Agent, Writer},
    brief::Brief,
    cancel::Cancel,
    critic::{Critic, CriticOptions, GuidelineStore},
    event::Events,
    evolve::{Bandit, EvolutionLog, Evolver, Imports, Means, Options, Strategy, Summary, Teacher},
    model::{
        client::{Client, Endpoint, Retry},
        journal::Journal,
    },
    store::Workspace,
    trial::{Comparison, StrategyTable},
};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use wiremock::{
    Mock, MockServer, Request, Respond, ResponseTemplate,
    matchers::{body_partial_json, method},
};

use crate::critic::{brief, runtime};

/// An answer of a chat model: its text and how it ended.
pub fn answer(content: &str, finish: &str) -> ResponseTemplate {
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
        self.evolve_at(briefs, options, 4).await
    }

    async fn evolve_at(&self, briefs: &[Brief], options: Options, concurrency: usize) -> Summary {
        let (agent, teacher) =
            (self.model("agent").into(), Teacher::Model(Box::new(self.model("teacher").into())));
        let (workspace, cancel) = (Workspace::new(self.folder.path()), Cancel::new());
        let evolver = Evolver {
            workspace: &workspace,
            agent: &agent,
            teacher: &teacher,
            critic: &self.critic,
            guidelines: &GuidelineStore::Embedded,
            options,
            concurrency,
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
    Options { target_score: 10.0, max_iterations: 2, max_evaluations: 6, drafts: 1, ..Options::default() }
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

/// Apps that hang on nothing but what was asked: some are worse and some better than others.
struct Varied;

impl Respond for Varied {
    fn respond(&self, request: &Request) -> ResponseTemplate {
        let digest = Sha256::digest(&request.body);
        let line = |byte: &u8| match byte % 6 {
            0 => format!("st.text_input('Field {byte}')"),
            1 => "st.text_input('')".to_owned(),
            2 => format!("st.title('Hours {byte}')"),
            3 => format!("x{byte} = undefined"),
            4 => format!("st.number_input('Hours {byte}')"),
            _ => "import os".to_owned(),
        };
        let lines: Vec<String> = digest.iter().take(2 + usize::from(digest[31] % 6)).map(line).collect();
        answer(&app(&lines.join("\n")), "stop")
    }
}

fn briefs(count: usize) -> Vec<Brief> {
    let brief = |n| Brief {
        id: format!("b{n:02}").parse().unwrap(),
        family: format!("f{n}"),
        ..brief(&format!("a form of sort {n}"))
    };
    (0..count).map(brief).collect()
}

/// Every log without what may differ between runs.
fn logs(folder: &Path) -> BTreeMap<String, Value> {
    let files = std::fs::read_dir(Workspace::new(folder).logs()).unwrap();
    let read = |path: &Path| {
        let mut log: Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
        for entry in log["evolution_history"].as_array_mut().unwrap() {
            entry.as_object_mut().unwrap().remove("took_ms");
            entry["evidence"].as_object_mut().unwrap().remove("timing");
        }
        log
    };
    files
        .map(|file| file.unwrap().path())
        .map(|path| (path.display().to_string().split('/').next_back().unwrap().to_owned(), read(&path)))
        .collect()
}

#[tokio::test]
async fn operators_are_chosen_alike_at_any_concurrency_and_after_a_kill() {
    let test = "operators_are_chosen_alike_at_any_concurrency_and_after_a_kill";
    let options = || Options { max_iterations: 3, max_evaluations: 7, ..options() };
    let mut seen = Vec::new();
    for concurrency in [1, 8, 32] {
        let Some(world) = World::new(test).await else { return };
        world.answers("agent", Varied).await;
        world.answers("teacher", Varied).await;
        world.evolve_at(&briefs(12), options(), concurrency).await;
        let all = logs(world.folder.path());
        assert_eq!(all.len(), 12);
        // As after a kill: what was not finished is searched again, with what the first wave's logs tell.
        for lost in ["b01", "b09", "b11"] {
            std::fs::remove_file(Workspace::new(world.folder.path()).log(lost, 1)).unwrap();
        }
        let summary = world.evolve_at(&briefs(12), options(), 2).await;
        assert_eq!(summary.reused, 9);
        assert_eq!(logs(world.folder.path()), all);
        seen.push(all);
    }
    assert!(seen.iter().all(|other| *other == seen[0]));
    // And they are chosen: not all briefs take the same way.
    let ways: std::collections::BTreeSet<String> = seen[0]
        .values()
        .map(|log| {
            log["evolution_history"].as_array().unwrap().iter().map(|e| e["operator"].to_string()).collect()
        })
        .collect();
    assert!(ways.len() > 3, "{ways:?}");
}

#[tokio::test]
async fn imported_replies_are_the_first_candidates_and_cost_nothing() {
    let Some(world) = World::new("imported_replies_are_the_first_candidates_and_cost_nothing").await else {
        return;
    };
    world.answers("agent", Varied).await;
    world.answers("teacher", answer("no", "refusal")).await;
    let (workspace, file) = (Workspace::new(world.folder.path()), world.folder.path().join("old.jsonl"));
    let line = json!({"prompt": "a form of sort 0", "reply": app("st.title('Old')"), "model": "their-model"});
    std::fs::write(&file, line.to_string()).unwrap();
    hone::evolve::import(&workspace, &file, &briefs(1), &[]).unwrap();
    let options = |drafts| Options { drafts, imports: Imports::load(&workspace).unwrap(), ..options() };
    let summary = world.evolve(&briefs(1), options(1)).await;
    let log = world.log("b00");
    assert_eq!(log.evolution_history[0].model, "their-model");
    assert_eq!(log.evolution_history[0].ui_code, "import streamlit as st\nst.title('Old')\n");
    assert_eq!((summary.evolutions, summary.reused), (1, 0));
    let asked = |body: &Value| body["model"] == "agent";
    let requests = || async {
        let all = world.provider.received_requests().await.unwrap();
        all.iter().filter(|request| asked(&request.body_json().unwrap())).count()
    };
    assert_eq!(requests().await, 0);
    // The log is kept as long as the import is what it starts from.
    assert_eq!(world.evolve(&briefs(1), options(1)).await.reused, 1);
    let without = Options { imports: Imports::default(), ..options(1) };
    assert_eq!(world.evolve(&briefs(1), without).await.reused, 0);
    // A second draft is the agent's.
    world.evolve(&briefs(1), options(2)).await;
    assert_eq!(world.log("b00").evolution_history[1].model, "agent");
    assert!(requests().await > 0);
}

#[tokio::test]
async fn strategies_get_the_same_calls_and_replay_from_the_journal() {
    let Some(world) = World::new("strategies_get_the_same_calls_and_replay_from_the_journal").await else {
        return;
    };
    world.answers("agent", Varied).await;
    world.answers("teacher", Varied).await;
    let compare = async || -> StrategyTable {
        let (agent, teacher): (Writer, _) =
            (world.model("agent").into(), Teacher::Model(Box::new(world.model("teacher").into())));
        let (workspace, cancel, options) = (Workspace::new(world.folder.path()), Cancel::new(), options());
        let comparison = Comparison {
            workspace: &workspace,
            means: Means {
                agent: &agent,
                teacher: &teacher,
                critic: &world.critic,
                guidelines: &GuidelineStore::Embedded,
                options: &options,
                learnt: &Bandit::default(),
            },
            strategies: vec![Strategy::Last, Strategy::KeepBest, Strategy::BestOf, Strategy::Default],
            calls: 5,
            concurrency: 3,
            events: &Events::none(),
            cancel: &cancel,
        };
        comparison.run(&briefs(10)).await.unwrap()
    };
    let table = compare().await;
    assert!(table.strategies.iter().all(|row| row.calls == 50), "{table:?}");
    let mean = |name: &str| table.strategies.iter().find(|row| row.name == name).unwrap().mean;
    assert!(mean("keep-best") >= mean("last"), "{table:?}");
    assert_eq!(table.differences.len(), 6);
    assert!(table.differences.iter().all(|found| found.low <= found.mean && found.mean <= found.high));

    // The chain is one: what `last` asked, `keep-best` read. Nothing is asked a second time, whatever is lost.
    let asked = world.provider.received_requests().await.unwrap();
    let bodies: std::collections::BTreeSet<Vec<u8>> =
        asked.iter().map(|request| request.body.clone()).collect();
    assert_eq!(bodies.len(), asked.len());
    assert!(asked.len() < 200, "{}", asked.len());
    let bytes = |folder: &Path| std::fs::read(folder.join("table.json")).unwrap();
    let before = bytes(&table.folder);
    std::fs::remove_dir_all(&table.folder).unwrap();
    assert_eq!(compare().await, table);
    assert_eq!(bytes(&table.folder), before);
    assert_eq!(world.provider.received_requests().await.unwrap().len(), asked.len());
}
