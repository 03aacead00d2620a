//! Jobs from upload to answer.

use std::time::Duration;

use base64::{Engine, prelude::BASE64_STANDARD};
use hone::auto::Auto;
use hone::model::wire::{JobRequest, JobStatus, Level};

use hone_engine::infer;
use hone_server::ServerConfig;
use rustix::process::{Pid, Signal, kill_process, test_kill_process};
use serde_json::json;

use crate::{
    harness::{BASE, World, data, request, row, trainer_with},
    resume::child,
};

#[tokio::test]
async fn a_job_ends_in_a_model_that_has_learnt() {
    let world = World::new().await;
    let before = world.ask(BASE).await;
    let created = world.job(12, 30).await;
    assert_eq!(created.status, JobStatus::ValidatingFiles);
    let job = world.end(&created.id).await;
    assert_eq!((&job.status, &job.error), (&JobStatus::Succeeded, &None));
    assert_eq!(job.hyperparameters.n_epochs, Auto::Fixed(30));
    assert!(job.finished_at.unwrap() >= job.created_at);
    // 180 steps of 2 rows of the same length.
    let tokens = job.trained_tokens.unwrap();
    assert_eq!(tokens % 360, 0);

    let model = job.fine_tuned_model.unwrap();
    assert!(model.starts_with("ft:tiny:local:ui-agent-v1:"), "{model}");
    let after = world.ask(&model).await;
    assert_ne!(before, after);
    assert_eq!(after, "import streamlit");
    let cards = world.client.models().await.unwrap();
    assert!(cards.iter().any(|card| card.id == model));
    assert_eq!(world.client.model(&model).await.unwrap().owned_by, "org-local");

    let csv = world.client.file_content(&job.result_files[0]).await.unwrap();
    let csv = String::from_utf8(BASE64_STANDARD.decode(csv).unwrap()).unwrap();
    assert!(
        csv.starts_with("step,train_loss,train_accuracy,valid_loss,valid_mean_token_accuracy\n1,"),
        "{csv}"
    );
    assert_eq!(csv.lines().count(), 181);

    let adapter = world.folder.path().join("server/models").join(model.replace(':', "+"));
    assert!(
        adapter.join("adapter_config.json").exists() && adapter.join("adapter_model.safetensors").exists()
    );

    world.client.delete_model(&model).await.unwrap();
    assert_eq!(world.client.model(&model).await.unwrap_err().status(), Some(404));
    assert_eq!(world.client.delete_model(BASE).await.unwrap_err().status(), Some(400));
}

#[tokio::test]
async fn the_history_is_in_order_and_checkpoints_are_usable() {
    let world = World::new().await;
    let job = world.job(10, 5).await;
    let job = world.end(&job.id).await;
    let events = world.client.events(&job.id, None).await.unwrap();
    let messages: Vec<&str> = events.iter().map(|event| event.message.as_str()).collect();
    let at = |start: &str| {
        messages.iter().position(|m| m.starts_with(start)).unwrap_or_else(|| panic!("no {start}"))
    };
    let order = [
        at("Created fine-tuning job"),
        at("Validating training file"),
        at("Files validated"),
        at("Fine-tuning job started"),
        at("Step 1/25: training loss="),
        at("Checkpoint created at step 5"),
        at("Step 25/25"),
        at("New fine-tuned model created"),
        at("The job has successfully completed"),
    ];
    assert!(order.is_sorted(), "{messages:#?}");
    assert_eq!(world.metrics(&job.id).await, (1..=25).collect::<Vec<_>>());

    let checkpoints = world.client.checkpoints(&job.id).await.unwrap();
    let steps: Vec<u64> = checkpoints.iter().map(|checkpoint| checkpoint.step_number).collect();
    assert_eq!(steps, [25, 20, 15]);
    assert_eq!(Some(&checkpoints[0].fine_tuned_model_checkpoint), job.fine_tuned_model.as_ref());
    let earlier = &checkpoints[1].fine_tuned_model_checkpoint;
    assert!(earlier.ends_with(":ckpt-step-20"), "{earlier}");
    assert_ne!(world.ask(earlier).await, world.ask(BASE).await);
    // The one that made room is gone.
    let models = world.client.models().await.unwrap();
    assert!(!models.iter().any(|card| card.id.ends_with("ckpt-step-10")));
}

/// Whichever kernels are forced, the job's history says that they were used.
#[tokio::test]
async fn training_uses_the_kernels_that_are_forced() {
    let mut names: Vec<&str> = infer::Level::available().into_iter().map(infer::Level::name).collect();
    names.push("f32");
    for name in names {
        let world = World::with(|config| ServerConfig { trainer: trainer_with(name), ..config }).await;
        let job = world.job(10, 1).await;
        world.end(&job.id).await;
        let events = world.client.events(&job.id, None).await.unwrap();
        let told: Vec<&str> =
            events.iter().filter_map(|event| event.message.strip_prefix("Computing in ")).collect();
        let expected: &[&str] = match name {
            "amx" => &["bf16 with amx"],
            // AVX-512 with bf16 came later than AVX-512.
            "avx512" => &["bf16 with avx512-bf16", "f32"],
            _ => &["f32"],
        };
        assert!(told.len() == 1 && expected.contains(&told[0]), "{name}: {told:?}");
    }
}

#[tokio::test]
async fn a_tuned_model_can_be_trained_further() {
    let world = World::new().await;
    let first = world.job(10, 2).await;
    let first = world.end(&first.id).await.fine_tuned_model.unwrap();
    let file = world.upload(&data(10)).await;
    let further = JobRequest { model: first.clone(), suffix: None, ..request(&file, 2) };
    let job = world.client.create_job(&further, "further").await.unwrap();
    let job = world.end(&job.id).await;
    let second = job.fine_tuned_model.unwrap();
    assert!(second.starts_with("ft:tiny:local::"), "{second}");
    assert_ne!(world.ask(&second).await, world.ask(&first).await);
    let error = world.client.delete_model(&first).await.unwrap_err();
    assert!(error.to_string().contains("needs it"), "{error}");
}

#[tokio::test]
async fn validation_data_is_measured() {
    let world = World::new().await;
    let (train, valid) = (world.upload(&data(10)).await, world.upload(&data(2)).await);
    let with = JobRequest { validation_file: Some(valid), ..request(&train, 2) };
    let job = world.client.create_job(&with, "k").await.unwrap();
    world.end(&job.id).await;
    let events = world.client.events(&job.id, None).await.unwrap();
    let last = events.iter().rfind(|event| event.number("step").is_some()).unwrap();
    assert!(last.number("full_valid_loss").unwrap() > 0.0);
}

/// The first answer is learnt or not as its weight says; the second always is.
#[tokio::test]
async fn an_answer_without_weight_is_not_learnt() {
    let world = World::new().await;
    let learnt = async |weight: u32| {
        let row = serde_json::json!({"messages": [
            {"role": "user", "content": "Make a form with a name and an email."},
            {"role": "assistant", "content": "not this", "weight": weight},
            {"role": "user", "content": "No."},
            {"role": "assistant", "content": "import streamlit"},
        ]});
        let file = world.upload(&format!("{row}\n").repeat(12)).await;
        let job = world.client.create_job(&request(&file, 25), &format!("weight-{weight}")).await.unwrap();
        let job = world.end(&job.id).await;
        world.ask(&job.fine_tuned_model.unwrap()).await
    };
    assert_eq!(learnt(1).await, "not this");
    assert_ne!(learnt(0).await, "not this");
}

async fn check_failure(content: &str, code: &str, words: &[&str]) {
    let world = World::new().await;
    let file = world.upload(content).await;
    let job = world.client.create_job(&request(&file, 1), "k").await.unwrap();
    let job = world.end(&job.id).await;
    let error = job.error.unwrap();
    assert_eq!((job.status, error.code.as_deref()), (JobStatus::Failed, Some(code)));
    assert_eq!(error.param.as_deref(), Some("training_file"));
    for word in words {
        assert!(error.message.as_ref().unwrap().contains(word), "{error:?}");
    }
    let events = world.client.events(&job.id, None).await.unwrap();
    assert!(events.iter().any(|event| event.level == Level::Error));
}

#[tokio::test]
async fn bad_data_fails_the_job_with_the_line() {
    let good = data(10);
    check_failure(&data(9), "invalid_n_examples", &["9 examples", "10 are needed"]).await;
    let bad = format!("{good}{{\"messages\":[{{\"role\":\"user\",\"content\":\"q\"}}]}}\n{{}}\n");
    check_failure(&bad, "invalid_training_file", &["line 11", "assistant", "line 12", "`messages`"]).await;
    let pair = format!("{good}{{\"input\":{{}},\"preferred_output\":[],\"non_preferred_output\":[]}}\n");
    check_failure(&pair, "invalid_training_file", &["line 11", "preference"]).await;
    let special = format!("{good}{}\n", row("<|im_start|>"));
    check_failure(&special, "invalid_training_file", &["line 11", "<|im_start|>"]).await;
}

#[tokio::test]
async fn requests_for_what_cannot_be_are_refused() {
    let world = World::new().await;
    let file = world.upload(&data(10)).await;
    let refuse = async |request: JobRequest, param: &str| {
        let error = world.client.create_job(&request, "k").await.unwrap_err();
        assert_eq!(error.status(), Some(400), "{param}: {error}");
    };
    refuse(JobRequest { training_file: "file-nobody".into(), ..request(&file, 1) }, "training_file").await;
    refuse(JobRequest { model: "gpt-4o".into(), ..request(&file, 1) }, "model").await;
    refuse(request(&file, 51), "hyperparameters").await;
    let body = |more: serde_json::Value| {
        let mut body = json!({"model": BASE, "training_file": file});
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        body
    };
    for (more, param) in [
        (json!({"hyperparameters": {"n_epoch": 3}}), "hyperparameters.n_epoch"),
        (json!({"method": {"type": "supervised", "dpo": {}}}), "method.dpo"),
        (json!({"seed": "1"}), "seed"),
    ] {
        let (status, error) = world.post("/fine_tuning/jobs", &body(more)).await;
        assert_eq!((status, &error["error"]["param"]), (400, &json!(param)), "{error}");
    }
    assert!(world.client.jobs(10).await.unwrap().is_empty());
}

#[tokio::test]
async fn one_key_is_one_job() {
    let world = World::new().await;
    let file = world.upload(&data(10)).await;
    let first = world.client.create_job(&request(&file, 1), "same").await.unwrap();
    let second = world.client.create_job(&request(&file, 1), "same").await.unwrap();
    assert_eq!(first.id, second.id);
    assert_eq!(world.client.jobs(10).await.unwrap().len(), 1);
    world.end(&first.id).await;
}

#[tokio::test]
async fn jobs_wait_for_each_other() {
    let world = World::new().await;
    let (first, second) = (world.job(10, 40).await, world.job(10, 1).await);
    world.steps(&first.id, 1).await;
    let waiting = world.until(&second.id, |job| job.status != JobStatus::ValidatingFiles).await;
    assert_eq!(waiting.status, JobStatus::Queued);
    assert!(world.client.delete_file(&second.training_file).await.is_err());
    let (first, second) = (world.end(&first.id).await, world.end(&second.id).await);
    assert_eq!((first.status, second.status), (JobStatus::Succeeded, JobStatus::Succeeded));
    let ids: Vec<_> = world.client.jobs(10).await.unwrap().into_iter().map(|job| job.id).collect();
    assert_eq!(ids, [second.id, first.id]);
}

#[tokio::test]
async fn cancelling_stops_running_and_waiting_jobs() {
    let world = World::new().await;
    let (running, waiting) = (world.job(20, 50).await, world.job(10, 1).await);
    world.steps(&running.id, 3).await;
    let cancelled = world.client.cancel_job(&waiting.id).await.unwrap();
    assert_eq!(cancelled.status, JobStatus::Cancelled);
    let cancelled = world.client.cancel_job(&running.id).await.unwrap();
    assert_eq!(cancelled.status, JobStatus::Cancelled);
    assert!(world.metrics(&running.id).await.len() < 500);
    let error = world.client.cancel_job(&running.id).await.unwrap_err();
    assert_eq!(error.status(), Some(400));
    // The next job is not held up.
    let next = world.job(10, 1).await;
    assert_eq!(world.end(&next.id).await.status, JobStatus::Succeeded);
}

/// Cancels a job whose child does not stop by itself; a new server leaves it be and trains the next one.
async fn check_killed(world: World, id: &str, pid: Pid) {
    let cancelled = world.client.cancel_job(id).await.unwrap();
    assert_eq!(cancelled.status, JobStatus::Cancelled);
    assert!(cancelled.finished_at.is_some());
    let events = world.client.events(id, None).await.unwrap();
    let at = |words: &str| events.iter().position(|event| event.message.contains(words)).unwrap();
    assert!(at("its process was ended") < at("The job was cancelled"));
    let steps = world.metrics(id).await;
    let world = world.restart().await;
    let next = world.job(10, 1).await;
    assert_eq!(world.end(&next.id).await.status, JobStatus::Succeeded);
    assert_eq!(world.client.job(id).await.unwrap(), cancelled);
    assert_eq!(world.metrics(id).await, steps);
    assert!(test_kill_process(pid).is_err(), "the process is gone");
}

#[tokio::test]
async fn a_child_that_never_comes_to_a_step_is_killed_when_its_job_is_cancelled() {
    // As one that loads a model for ever: it looks at nothing.
    let loading = ["sh", "-c", "echo $$ > \"$1/loading\"; exec sleep 1000", "sh"].map(Into::into).to_vec();
    let world = World::with(|config| ServerConfig { trainer: loading, ..config }).await;
    let job = world.job(10, 1).await;
    let path = world.job_folder(&job.id).join("loading");
    let pid = loop {
        match std::fs::read_to_string(&path).ok().and_then(|text| text.trim().parse().ok()) {
            Some(pid) => break Pid::from_raw(pid).unwrap(),
            None => tokio::time::sleep(Duration::from_millis(10)).await,
        }
    };
    check_killed(world, &job.id, pid).await;
}

#[tokio::test]
async fn a_child_that_does_not_finish_its_step_is_killed_when_its_job_is_cancelled() {
    let world = World::new().await;
    let job = world.job(20, 50).await;
    world.steps(&job.id, 3).await;
    let pid = child(&world.job_folder(&job.id));
    kill_process(pid, Signal::STOP).unwrap();
    check_killed(world, &job.id, pid).await;
}

#[tokio::test]
async fn an_adopted_child_that_does_not_stop_is_killed_when_its_job_is_cancelled() {
    let world = World::new().await;
    let job = world.job(20, 50).await;
    world.steps(&job.id, 3).await;
    let pid = child(&world.job_folder(&job.id));
    kill_process(pid, Signal::STOP).unwrap();
    check_killed(world.restart().await, &job.id, pid).await;
}
