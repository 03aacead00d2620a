//! Starting a job at a provider that refuses, fails, or is cut off.

use std::{path::PathBuf, time::Duration};

use hone::{
    cancel::Cancel,
    error::{Explain, Kind},
    event::Events,
    finetune::{self, FinetuneError, Following, Options, Started},
    model::{
        client::{Client, Endpoint, Retry},
        journal::Journal,
    },
    store::Workspace,
};
use serde_json::{Value, json};
use wiremock::{
    Mock, MockServer, ResponseTemplate,
    matchers::{method, path},
};

/// The smallest dataset that is taken, in its place.
pub fn ten_rows(workspace: &Workspace) -> PathBuf {
    let path = workspace.dataset();
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(&path, "{}\n".repeat(10)).unwrap();
    path
}

struct World {
    provider: MockServer,
    folder: tempfile::TempDir,
    client: Client,
}

impl World {
    async fn new() -> Self {
        let provider = MockServer::start().await;
        let retry = Retry { retries: 0, first_wait: Duration::from_millis(1), ..Retry::default() };
        let endpoint = Endpoint { retry, ..Endpoint::new("fake", format!("{}/v1", provider.uri())) };
        let world =
            Self { provider, folder: tempfile::tempdir().unwrap(), client: Client::new(endpoint).unwrap() };
        world.answer("POST", "/v1/files", 200, json!({"id": "file-1"})).await;
        world.answer("GET", "/v1/files/file-1", 200, json!({"id": "file-1"})).await;
        world
    }

    async fn answer(&self, verb: &str, at: &str, status: u16, body: Value) {
        let template = ResponseTemplate::new(status).set_body_json(body);
        Mock::given(method(verb)).and(path(at)).respond_with(template).mount(&self.provider).await;
    }

    fn workspace(&self) -> Workspace {
        Workspace::new(self.folder.path())
    }

    fn dataset(&self) -> PathBuf {
        ten_rows(&self.workspace())
    }

    async fn start(&self) -> Result<Started, FinetuneError> {
        let options = Options { model: "gpt-4o".into(), ..Options::default() };
        finetune::start(
            &self.client.clone().into(),
            &self.workspace(),
            &self.dataset(),
            &options,
            &Journal::open(self.workspace().journal()),
            &Events::none(),
        )
        .await
    }

    async fn follow(&self) -> Result<(), FinetuneError> {
        let (trainer, events) = (self.client.clone().into(), Events::none());
        let following = Following::default();
        finetune::follow(&trainer, &self.workspace(), "ftjob-1", following, &events, &Cancel::new())
            .await
            .map(drop)
    }

    /// Values of a header in the requests to a path.
    async fn sent(&self, at: &str, header: &str) -> Vec<String> {
        let requests = self.provider.received_requests().await.unwrap();
        let to =
            requests.iter().filter(|request| request.url.path() == at && request.method.as_str() == "POST");
        to.map(|request| request.headers[header].to_str().unwrap().to_owned()).collect()
    }
}

#[tokio::test]
async fn a_provider_that_trains_no_more_is_explained() {
    let world = World::new().await;
    let closed =
        json!({"error": {"message": "no", "type": "t", "param": null, "code": "training_not_available"}});
    world.answer("POST", "/v1/fine_tuning/jobs", 403, closed).await;
    let error = world.start().await.unwrap_err();
    assert_eq!(error.kind(), Kind::Provider);
    assert!(error.hint().unwrap().contains("local engine"), "{error}");
    // What was uploaded is not uploaded again, and it is the same job that is asked for.
    world.start().await.unwrap_err();
    assert_eq!(world.sent("/v1/files", "idempotency-key").await.len(), 1);
    let keys = world.sent("/v1/fine_tuning/jobs", "idempotency-key").await;
    assert_eq!((keys.len(), &keys[0]), (2, &keys[1]));
}

#[tokio::test]
async fn a_job_that_is_there_is_picked_up() {
    let world = World::new().await;
    let job = json!({"id": "ftjob-1", "status": "running"});
    world.answer("POST", "/v1/fine_tuning/jobs", 200, job.clone()).await;
    world.answer("GET", "/v1/fine_tuning/jobs/ftjob-1", 200, job).await;
    assert!(!world.start().await.unwrap().picked_up);
    assert!(world.start().await.unwrap().picked_up);
    assert_eq!(world.sent("/v1/fine_tuning/jobs", "idempotency-key").await.len(), 1);
}

async fn check_end(job: Value, kind: Kind, words: &str) {
    let world = World::new().await;
    world.answer("GET", "/v1/fine_tuning/jobs/ftjob-1", 200, job).await;
    world.answer("GET", "/v1/fine_tuning/jobs/ftjob-1/events", 200, json!({"data": []})).await;
    let error = world.follow().await.unwrap_err();
    assert_eq!(error.kind(), kind, "{error}");
    assert!(error.to_string().contains(words), "{error}");
    assert!(!world.workspace().tuned_model_id().exists());
}

#[tokio::test]
async fn a_job_that_ends_badly_is_an_error() {
    let failed = |code: &str, param: Value| {
        let error = json!({"code": code, "message": "line 3: no", "param": param});
        json!({"id": "ftjob-1", "status": "failed", "error": error})
    };
    check_end(failed("invalid_training_file", json!("training_file")), Kind::Input, "line 3: no").await;
    check_end(failed("server_error", Value::Null), Kind::Provider, "server_error").await;
    check_end(json!({"id": "ftjob-1", "status": "cancelled"}), Kind::Cancelled, "was cancelled").await;
    check_end(json!({"id": "ftjob-1", "status": "succeeded"}), Kind::Provider, "without a model").await;
}

#[tokio::test]
async fn a_model_is_written_down() {
    let world = World::new().await;
    let job = json!({"id": "ftjob-1", "status": "succeeded", "fine_tuned_model": "ft:m:o::1", "error": {"code": null}});
    world.answer("GET", "/v1/fine_tuning/jobs/ftjob-1", 200, job).await;
    world.answer("GET", "/v1/fine_tuning/jobs/ftjob-1/events", 200, json!({"data": []})).await;
    world.follow().await.unwrap();
    assert_eq!(std::fs::read_to_string(world.workspace().tuned_model_id()).unwrap(), "ft:m:o::1\n");
}
