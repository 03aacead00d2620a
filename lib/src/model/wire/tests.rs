//! The golden objects pass the official SDK's strict mode; ours must be the same, key for key.

use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Value, json};

use super::*;
use crate::auto::Auto;

fn golden(name: &str) -> Value {
    let all: Value = serde_json::from_str(include_str!("golden.json")).unwrap();
    all[name].clone()
}

/// Reading and writing a golden object gives it back.
fn check_round_trip<T: Serialize + DeserializeOwned>(name: &str) {
    let expected = golden(name);
    let value: T = serde_json::from_value(expected.clone()).unwrap();
    assert_eq!(serde_json::to_value(value).unwrap(), expected, "{name}");
}

/// An object of ours has the golden object's keys and the same kind of value under each.
fn check_shape(name: &str, ours: &impl Serialize) {
    fn kinds(value: &Value) -> Value {
        match value {
            Value::Object(map) => map.iter().map(|(key, value)| (key.clone(), kinds(value))).collect(),
            Value::Array(items) => items.iter().map(kinds).collect(),
            Value::String(_) => json!("text"),
            Value::Number(_) => json!("number"),
            other => other.clone(),
        }
    }
    assert_eq!(kinds(&serde_json::to_value(ours).unwrap()), kinds(&golden(name)), "{name}");
}

#[test]
fn golden_objects_survive_a_round_trip() {
    check_round_trip::<File>("file");
    check_round_trip::<Job>("job");
    check_round_trip::<JobEvent>("event");
    check_round_trip::<Checkpoint>("ckpt");
    check_round_trip::<ModelCard>("model");
    check_round_trip::<ChatReply>("chat");
    check_round_trip::<Upload>("upload");
    check_round_trip::<UploadPart>("part");
    check_round_trip::<Batch>("batch");
    check_round_trip::<GraderRun>("grader_run");
}

#[test]
fn constructors_give_the_golden_shapes() {
    check_shape("file", &File::new("file-1", "a.jsonl", "fine-tune", 3, 1));
    check_shape("model", &ModelCard::new("m", 1, "org-local"));
    check_shape("upload", &Upload::new("upload_1", &UploadRequest::default(), 1, 3600));
    check_shape("part", &UploadPart::new("part_1", "upload_1", 1));
    let mut chat = ChatReply::new("chatcmpl-1", 1, "m");
    chat.choices.push(ChatChoice::new(0, "hi", "stop"));
    chat.usage = Some(Usage::new(9, 1));
    check_shape("chat", &chat);
    let hyperparameters = Hyperparameters {
        batch_size: Auto::Fixed(1),
        learning_rate_multiplier: Auto::Fixed(1.8),
        n_epochs: Auto::Fixed(3),
        ..Hyperparameters::default()
    };
    let request = JobRequest { hyperparameters: Some(hyperparameters), ..JobRequest::default() };
    check_shape("job", &Job::new("ftjob-1", &request, 1, 42));
    let metrics = CheckpointMetrics {
        step: Some(10),
        train_loss: Some(1.1),
        train_mean_token_accuracy: Some(0.5),
        ..Default::default()
    };
    check_shape("ckpt", &Checkpoint::new("ftckpt_1", 1, "ft:m", "ftjob-1", metrics));
}

#[test]
fn a_new_batch_has_every_key_of_a_finished_one() {
    let batch = Batch::new("batch_1", &BatchRequest::default(), 1, 86_400);
    let keys = |value: &Value| value.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
    assert_eq!(keys(&serde_json::to_value(&batch).unwrap()), keys(&golden("batch")));
    assert_eq!((batch.expires_at, batch.status.is_terminal()), (Some(86_401), false));
    for over in ["failed", "completed", "expired", "cancelled"] {
        let status: BatchStatus = serde_json::from_value(json!(over)).unwrap();
        assert!(status.is_terminal() && status.to_string() == over);
    }
}

#[test]
fn a_page_carries_the_ids_of_its_ends() {
    let page = Page::new(vec![ModelCard::new("a", 1, "o"), ModelCard::new("b", 1, "o")], true);
    assert_eq!((page.first_id.as_deref(), page.last_id.as_deref()), (Some("a"), Some("b")));
    let empty = serde_json::to_value(Page::<File>::new(Vec::new(), false)).unwrap();
    assert_eq!(
        empty,
        json!({"object": "list", "data": [], "first_id": null, "last_id": null, "has_more": false})
    );
}

#[test]
fn a_page_without_has_more_may_have_more() {
    let page: Page<File> = serde_json::from_value(json!({"data": []})).unwrap();
    assert!(page.has_more);
}

#[test]
fn content_is_text_parts_or_null() {
    let read = |content: Value| {
        serde_json::from_value::<Message>(json!({"role": "user", "content": content})).map(|m| m.content)
    };
    assert_eq!(read(json!("a")).unwrap(), "a");
    assert_eq!(read(json!([{"type": "text", "text": "a"}, {"type": "text", "text": "b"}])).unwrap(), "ab");
    assert_eq!(read(Value::Null).unwrap(), "");
    let error = read(json!([{"type": "image_url", "image_url": {}}])).unwrap_err().to_string();
    assert!(error.contains("image_url"), "{error}");
    assert!(read(json!(3)).is_err());
}

#[test]
fn hyperparameters_are_numbers_or_auto() {
    let read = |text: &str| serde_json::from_str::<Hyperparameters>(text);
    let some = read(r#"{"n_epochs":3,"batch_size":"auto"}"#).unwrap();
    assert_eq!((some.n_epochs, some.batch_size), (Auto::Fixed(3), Auto::Auto));
    assert_eq!(serde_json::to_value(some).unwrap()["learning_rate_multiplier"], "auto");
    for bad in [r#"{"n_epochs":"many"}"#, r#"{"n_epochs":1.5}"#, r#"{"n_epochs":-1}"#] {
        assert!(read(bad).is_err(), "{bad}");
    }
}

#[test]
fn preference_jobs_carry_beta_beside_the_rest() {
    let request: JobRequest = serde_json::from_value(json!({
        "model": "m", "training_file": "f",
        "method": {"type": "dpo", "dpo": {"hyperparameters": {"beta": 0.2, "n_epochs": 2, "lora_rank": 4}}}
    }))
    .unwrap();
    let job = Job::new("ftjob-1", &request, 1, 1);
    assert!(job.is_dpo());
    assert_eq!(job.method.as_ref().unwrap().beta(), Auto::Fixed(0.2));
    assert_eq!(job.hyperparameters.n_epochs, Auto::Fixed(2));
    let value = serde_json::to_value(&job).unwrap();
    let expected = json!({"beta": 0.2, "batch_size": "auto", "learning_rate_multiplier": "auto", "n_epochs": 2, "lora_rank": 4});
    assert_eq!(value["method"], json!({"type": "dpo", "dpo": {"hyperparameters": expected}}));
    let bare: JobRequest =
        serde_json::from_value(json!({"model": "m", "training_file": "f", "method": {"type": "dpo"}}))
            .unwrap();
    assert_eq!(Job::new("ftjob-1", &bare, 1, 1).method.unwrap().beta(), Auto::Auto);
}

#[test]
fn numbers_of_the_local_trainer_are_written_only_when_asked_for() {
    let written = serde_json::to_value(Hyperparameters::default()).unwrap();
    assert_eq!(written.as_object().unwrap().len(), 3);
    let asked = json!({"lora_targets": ["q_proj"], "early_stopping_patience": 2, "lora_alpha": null});
    let read: Hyperparameters = serde_json::from_value(asked).unwrap();
    assert_eq!((read.early_stopping_patience, read.lora_alpha), (Auto::Fixed(2), Auto::Auto));
    assert_eq!(read.lora_targets.unwrap(), ["q_proj"]);
}

#[test]
fn a_status_that_is_not_known_is_not_the_end() {
    let status: JobStatus = serde_json::from_value(json!("pondering")).unwrap();
    assert_eq!(status, JobStatus::Other("pondering".into()));
    assert!(!status.is_terminal());
    assert_eq!(serde_json::to_value(&status).unwrap(), "pondering");
    assert_eq!(
        serde_json::to_value(JobStatus::ValidatingFiles).unwrap(),
        JobStatus::ValidatingFiles.to_string()
    );
}

#[test]
fn jobs_of_real_servers_are_read() {
    // Null hyperparameters and result files, an error object that holds nothing: all seen in the wild.
    let job: Job = serde_json::from_value(json!({
        "id": "ftjob-1", "status": "running", "hyperparameters": null, "result_files": null,
        "error": {"code": null}, "integrations": null
    }))
    .unwrap();
    assert_eq!(job.error, Some(JobError::default()));
    assert!(!job.status.is_terminal());
}

#[test]
fn options_that_are_not_set_are_not_sent() {
    let request = ChatRequest::new("m", vec![Message::user("hi")]);
    assert_eq!(
        serde_json::to_string(&request).unwrap(),
        r#"{"model":"m","messages":[{"role":"user","content":"hi"}]}"#
    );
}

#[test]
fn chunks_open_speak_and_end() {
    let chat = ChatReply::new("chatcmpl-1", 1, "m");
    let chunk = ChatChunk::of(&chat, vec![ChunkChoice::opening(0)]);
    let value = serde_json::to_value(&chunk).unwrap();
    assert_eq!(value["object"], "chat.completion.chunk");
    assert_eq!(value["choices"][0]["delta"], json!({"role": "assistant", "content": ""}));
    assert_eq!(value["choices"][0]["finish_reason"], Value::Null);
    assert_eq!(value["usage"], Value::Null);
    let end = serde_json::to_value(ChunkChoice::end(0, "stop")).unwrap();
    assert_eq!((end["delta"].clone(), end["finish_reason"].clone()), (json!({}), json!("stop")));
}

#[test]
fn error_codes_may_be_numbers() {
    let body: ErrorEnvelope =
        serde_json::from_value(json!({"error": {"message": "m", "type": null, "code": 429}})).unwrap();
    assert_eq!(body.error.code.as_deref(), Some("429"));
}
