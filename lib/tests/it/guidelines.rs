//! Guidelines from a service, and in the prompts of a teacher.

use std::time::Duration;

use hone::{
    agent::Agent,
    brief::Brief,
    cancel::Cancel,
    critic::{Critic, CriticOptions, GuidelineStore, Guidelines, Issue, Severity},
    error::{Explain, Kind},
    event::{Event, Events},
    evolve::{EvolutionLog, EvolveError, Evolver, Options, Summary, Teacher},
    model::{
        client::{Client, Endpoint, Retry},
        journal::Journal,
    },
    store::Workspace,
};
use serde_json::{Value, json};
use wiremock::{
    Mock, MockServer, ResponseTemplate,
    matchers::{body_partial_json, method, path},
};

use crate::critic::{brief, runtime};

/// A service whose answer is always the same.
async fn service(template: ResponseTemplate) -> MockServer {
    let server = MockServer::start().await;
    Mock::given(method("POST")).and(path("/find")).respond_with(template).mount(&server).await;
    server
}

fn client(name: &str, address: String) -> Client {
    let retry = Retry { retries: 1, first_wait: Duration::from_millis(1), ..Retry::default() };
    Client::new(Endpoint { retry, ..Endpoint::new(name, address) }).unwrap()
}

fn store(server: &MockServer) -> GuidelineStore {
    GuidelineStore::Service(Box::new(client("the guideline store", format!("{}/find", server.uri()))))
}

fn ids(list: &[&str]) -> ResponseTemplate {
    ResponseTemplate::new(200).set_body_json(json!({ "ids": list }))
}

async fn bodies(server: &MockServer) -> Vec<Value> {
    let requests = server.received_requests().await.unwrap();
    requests.iter().map(|request| request.body_json().unwrap()).collect()
}

/// What a service's ids come to: those kept, and how many were unknown.
async fn check(answer: &[&str], expected: &[&str], unknown: u32) {
    let server = service(ids(answer)).await;
    let found = store(&server).retrieve("a label for the field", 3).await.unwrap();
    let kept: Vec<&str> = found.guidelines.iter().map(|row| row.id.as_str()).collect();
    assert_eq!((kept.as_slice(), found.unknown), (expected, unknown));
    assert_eq!(bodies(&server).await, [json!({"query": "a label for the field", "k": 3})]);
}

#[tokio::test]
async fn a_service_ranks_what_the_table_holds() {
    check(&["g010", "g009"], &["g010", "g009"], 0).await;
    check(&["g999", "g010", "", "g010"], &["g010"], 2).await;
    check(&["g001", "g002", "g003", "g004"], &["g001", "g002", "g003"], 0).await;
    check(&[], &[], 0).await;
}

/// A store that gives no answer says why and what to do.
async fn check_failure(store: GuidelineStore, words: &str) {
    let error = store.retrieve("x", 3).await.unwrap_err();
    assert!(error.to_string().contains(words), "{error}");
    assert_eq!(error.kind(), Kind::Provider);
    assert!(error.hint().unwrap().contains("`[guidelines]`"), "{:?}", error.hint());
}

#[tokio::test]
async fn a_service_that_fails_is_an_error_and_no_way_back() {
    check_failure(store(&service(ResponseTemplate::new(403)).await), "HTTP 403").await;
    check_failure(store(&service(ResponseTemplate::new(500)).await), "HTTP 500").await;
    let other = ResponseTemplate::new(200).set_body_json(json!({"matches": []}));
    check_failure(store(&service(other).await), "missing field `ids`").await;
    // Nobody listens on a port that was just given back.
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let nobody = client("the guideline store", format!("http://127.0.0.1:{port}/find"));
    check_failure(GuidelineStore::Service(Box::new(nobody)), "cannot reach the guideline store").await;
}

#[test]
fn a_setting_names_a_store() {
    let open = |setting: &str| GuidelineStore::open(setting, &Cancel::new());
    assert!(matches!(open("embedded"), Ok(GuidelineStore::Embedded)));
    assert!(matches!(open("http://127.0.0.1:1/find"), Ok(GuidelineStore::Service(_))));
    let error = open("somewhere").unwrap_err();
    assert_eq!(error.kind(), Kind::Input);
    assert!(error.hint().unwrap().contains("`[guidelines]`"));
}

fn issue(message: &str, guideline: Option<&str>) -> Issue {
    let guideline = guideline.map(str::to_owned);
    Issue { severity: Severity::Major, message: message.into(), at: None, guideline }
}

#[tokio::test]
async fn a_prompt_gets_what_issues_cite_and_what_speaks_of_them() {
    let issues = [issue("the page has no title", Some("g128")), issue("a table without a heading", None)];
    let issues: Vec<&Issue> = issues.iter().collect();
    let brief = brief("a chat with an assistant");
    let found = GuidelineStore::Embedded.for_prompt(&brief, &issues, 6).await.unwrap().guidelines;
    assert_eq!((found.len(), found[0].id.as_str()), (6, "g128"));
    let of = |words: &str| found.iter().any(|row| row.fact.contains(words));
    assert!(found[1].category == "streamlit/chat" && of("table has a caption or heading"), "{found:#?}");

    // However much the issues cite, a third is left to the search.
    let cited: Vec<Issue> = (1..=9).map(|n| issue("x", Some(&format!("g00{n}")))).collect();
    let cited: Vec<&Issue> = cited.iter().collect();
    let server = service(ids(&["g256", "g255", "g254"])).await;
    let found = store(&server).for_prompt(&brief, &cited, 6).await.unwrap().guidelines;
    let kept: Vec<&str> = found.iter().map(|row| row.id.as_str()).collect();
    assert_eq!(kept, ["g001", "g002", "g003", "g004", "g256", "g255"]);
    assert_eq!(bodies(&server).await, [json!({"query": "a chat with an assistant", "k": 6})]);
}

fn reply(app: &str) -> ResponseTemplate {
    let content = format!("```python\n# app.py\n{app}\n```");
    crate::evolve::answer(&content, "stop")
}

/// Two chat models on one provider, and a critic that looks at source alone.
struct World {
    provider: MockServer,
    folder: tempfile::TempDir,
    critic: Critic,
}

impl World {
    async fn new(test: &str) -> Option<Self> {
        let options = CriticOptions { static_only: true, ..CriticOptions::default() };
        let critic = Critic::open(runtime(test)?, options, &Cancel::new()).await.unwrap();
        let provider = MockServer::start().await;
        let apps = [
            ("agent", "import streamlit as st\nst.title('Hours')\nst.text_input('')\nprint(undefined)"),
            ("teacher", "import streamlit as st\nst.title('Hours')\nst.text_input('Hours')"),
        ];
        for (model, app) in apps {
            let asked = body_partial_json(json!({ "model": model }));
            Mock::given(method("POST")).and(asked).respond_with(reply(app)).mount(&provider).await;
        }
        Some(Self { provider, folder: tempfile::tempdir().unwrap(), critic })
    }

    fn model(&self, name: &str) -> Agent {
        Agent {
            client: client("fake", format!("{}/v1", self.provider.uri())),
            model: name.into(),
            temperature: 0.0,
            max_tokens: 100,
            journal: Journal::open(self.folder.path().join("journal")),
        }
    }

    async fn evolve(&self, guidelines: &GuidelineStore, events: &Events) -> Result<Summary, EvolveError> {
        let (agent, teacher) =
            (self.model("agent").into(), Teacher::Model(Box::new(self.model("teacher").into())));
        let options = Options {
            target_score: 10.0,
            max_iterations: 4,
            max_evaluations: 6,
            drafts: 1,
            ..Options::default()
        };
        let (workspace, cancel) = (Workspace::new(self.folder.path()), Cancel::new());
        let evolver = Evolver {
            workspace: &workspace,
            agent: &agent,
            teacher: &teacher,
            critic: &self.critic,
            guidelines,
            options,
            concurrency: 1,
            events,
            cancel: &cancel,
        };
        let briefs: Vec<Brief> = vec![brief("a form to note working hours")];
        evolver.run(&briefs).await
    }

    fn log(&self) -> EvolutionLog {
        let path = Workspace::new(self.folder.path()).log("b", 1);
        serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
    }

    /// The last message of each prompt that the teacher got.
    async fn prompts(&self) -> Vec<String> {
        let asked = bodies(&self.provider).await.into_iter().filter(|body| body["model"] == "teacher");
        asked
            .map(|body| {
                body["messages"].as_array().unwrap().last().unwrap()["content"].as_str().unwrap().into()
            })
            .collect()
    }
}

#[tokio::test]
async fn a_teacher_is_shown_guidelines_with_ids_and_the_log_keeps_them() {
    let Some(world) = World::new("a_teacher_is_shown_guidelines_with_ids_and_the_log_keeps_them").await
    else {
        return;
    };
    // Its app is the same whatever it is asked, so changes bring nothing after the first and it is asked for a fresh one.
    world.evolve(&GuidelineStore::Embedded, &Events::none()).await.unwrap();
    let prompts = world.prompts().await;
    let (improve, fresh): (Vec<&String>, Vec<&String>) =
        prompts.iter().partition(|text| text.contains("so far:"));
    assert!(!improve.is_empty() && !fresh.is_empty(), "{prompts:#?}");
    assert!(fresh.iter().all(|text| !text.contains("Guidelines")), "{fresh:#?}");
    for text in improve {
        let (_, shown) = text.split_once("Guidelines that apply:\n").unwrap();
        let lines: Vec<&str> = shown.lines().take_while(|line| line.starts_with("- g")).collect();
        assert_eq!(lines.len(), 6, "{text}");
        for line in lines {
            let id = &line[2..6];
            let row = Guidelines::embedded().get(id).unwrap();
            assert_eq!(line, format!("- {id}: {} ({})", row.fact, row.source));
        }
    }
}

#[tokio::test]
async fn ids_that_a_service_invents_are_left_out_and_told() {
    let Some(world) = World::new("ids_that_a_service_invents_are_left_out_and_told").await else { return };
    // Another app for those who are shown guidelines, so that it has an entry of its own in the log.
    let better = "import streamlit as st\nst.title('Hours')\nst.number_input('Hours')";
    let shown = wiremock::matchers::body_string_contains("Guidelines that apply");
    Mock::given(method("POST"))
        .and(shown)
        .respond_with(reply(better))
        .with_priority(1)
        .mount(&world.provider)
        .await;
    let server = service(ids(&["g246", "g777"])).await;
    let (events, mut heard) = Events::channel();
    world.evolve(&store(&server), &events).await.unwrap();
    drop(events);
    let mut warnings = Vec::new();
    while let Some(event) = heard.recv().await {
        if let Event::Warning { text, .. } = event {
            warnings.push(text);
        }
    }
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    assert!(warnings[0].contains("named 1 guidelines that do not exist"), "{warnings:?}");
    let log = world.log();
    let entry = log.evolution_history.iter().find(|entry| !entry.guidelines.is_empty()).unwrap();
    assert_eq!((entry.guidelines.last().map(String::as_str), entry.guidelines_unknown), (Some("g246"), 1));
    assert!(log.evolution_history.iter().all(|entry| entry.critique.citations_dropped == 0));
}

#[tokio::test]
async fn a_service_out_of_reach_ends_the_run() {
    let Some(world) = World::new("a_service_out_of_reach_ends_the_run").await else { return };
    let server = service(ResponseTemplate::new(404)).await;
    let error = world.evolve(&store(&server), &Events::none()).await.unwrap_err();
    assert!(matches!(error, EvolveError::Guidelines(_)), "{error}");
    assert_eq!(error.kind(), Kind::Provider);
    assert!(error.hint().unwrap().contains("`embedded`"));
}
