//! Children and servers that die.

use std::{ffi::OsString, path::Path, time::Duration};

use hone::{
    auto::Auto,
    cancel::Cancel,
    error::{Explain, Kind},
    event::{Event, Events},
    finetune::{self, FinetuneError, Following, Options},
    model::{
        journal::Journal,
        wire::{Hyperparameters, Job, JobStatus},
    },
    store::Workspace,
};
use hone_server::ServerConfig;
use rustix::process::{Pid, Signal, kill_process};

use crate::harness::{BASE, World, data};

/// The process that holds a job's lock.
pub fn child(folder: &Path) -> Pid {
    let pid = std::fs::read_to_string(folder.join("child.lock")).unwrap();
    Pid::from_raw(pid.trim().parse().unwrap()).unwrap()
}

#[tokio::test]
async fn a_killed_child_is_resumed() {
    let world = World::new().await;
    let job = world.job(20, 30).await;
    world.steps(&job.id, 20).await;
    kill_process(child(&world.job_folder(&job.id)), Signal::KILL).unwrap();
    let job = world.end(&job.id).await;
    assert_eq!(job.status, JobStatus::Succeeded);
    // Every step is in the history once, though some were trained twice.
    assert_eq!(world.metrics(&job.id).await, (1..=300).collect::<Vec<_>>());
    let events = world.client.events(&job.id, None).await.unwrap();
    let said = |words: &str| events.iter().filter(|event| event.message.contains(words)).count();
    assert_eq!(
        (said("stopped unexpectedly"), said("job started"), said("successfully completed")),
        (1, 1, 1)
    );
    assert!(events.iter().any(|event| event.message.contains("signal: 9")));
}

#[tokio::test]
async fn a_trainer_that_cannot_train_fails_the_job_with_its_last_words() {
    let broken = ["sh", "-c", "echo no memory >&2; exit 3"].map(OsString::from).to_vec();
    let world = World::with(|config| ServerConfig { trainer: broken, ..config }).await;
    let job = world.job(10, 1).await;
    let job = world.end(&job.id).await;
    let error = job.error.unwrap();
    assert_eq!((job.status, error.code.as_deref()), (JobStatus::Failed, Some("server_error")));
    let message = error.message.unwrap();
    assert!(message.contains("3 times") && message.contains("exit status: 3: no memory"), "{message}");
}

/// The trainer with so little memory that it cannot even load the model; the server and other jobs are none the worse.
#[tokio::test]
async fn a_trainer_without_memory_fails_its_job_and_nothing_else() {
    let limited = |limit: &str| -> Vec<OsString> {
        let shell = ["sh", "-c", &format!("ulimit -v {limit}; exec \"$@\""), "sh"].map(OsString::from);
        shell.into_iter().chain(crate::harness::trainer()).collect()
    };
    let world = World::with(|config| ServerConfig { trainer: limited("40000"), ..config }).await;
    let job = world.job(10, 1).await;
    let job = world.end(&job.id).await;
    assert_eq!((job.status, job.error.unwrap().code.as_deref()), (JobStatus::Failed, Some("server_error")));
    assert!(!world.ask(BASE).await.is_empty(), "the server answers");
    let world = world.restart().await;
    let job = world.job(10, 1).await;
    assert_eq!(world.end(&job.id).await.status, JobStatus::Succeeded);
}

#[tokio::test]
async fn a_trainer_that_is_killed_again_and_again_fails_with_a_guess_at_the_reason() {
    let killed = ["sh", "-c", "kill -9 $$"].map(OsString::from).to_vec();
    let world = World::with(|config| ServerConfig { trainer: killed, ..config }).await;
    let job = world.job(10, 1).await;
    let message = world.end(&job.id).await.error.unwrap().message.unwrap();
    assert!(message.contains("signal: 9") && message.contains("memory runs out"), "{message}");
}

#[tokio::test]
async fn a_trainer_that_is_not_there_is_named() {
    let world =
        World::with(|config| ServerConfig { trainer: vec!["/no/such/program".into()], ..config }).await;
    let job = world.job(10, 1).await;
    let message = world.end(&job.id).await.error.unwrap().message.unwrap();
    assert!(message.contains("cannot be started"), "{message}");
}

#[tokio::test]
async fn a_new_server_takes_over_a_running_child() {
    let world = World::new().await;
    let job = world.job(20, 50).await;
    world.steps(&job.id, 5).await;
    let before = child(&world.job_folder(&job.id));
    let world = world.restart().await;
    assert_eq!(child(&world.job_folder(&job.id)), before, "the child was not left alone");
    let job = world.end(&job.id).await;
    assert_eq!(job.status, JobStatus::Succeeded);
    assert_eq!(world.metrics(&job.id).await, (1..=500).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_new_server_restarts_what_died_unseen() {
    let world = World::new().await;
    let job = world.job(20, 50).await;
    world.steps(&job.id, 5).await;
    let folder = world.job_folder(&job.id);
    let pid = child(&folder);
    let World { folder: root, server, .. } = world;
    server.stop().await.unwrap();
    kill_process(pid, Signal::KILL).unwrap();
    let server = hone_server::spawn_local(crate::harness::config(root.path())).await.unwrap();
    let client = crate::harness::client(&server);
    let world = World { folder: root, server, client };
    assert_eq!(world.end(&job.id).await.status, JobStatus::Succeeded);
    assert_eq!(world.metrics(&job.id).await, (1..=500).collect::<Vec<_>>());
}

#[tokio::test]
async fn an_adopted_child_can_be_cancelled() {
    let world = World::new().await;
    let job = world.job(20, 50).await;
    world.steps(&job.id, 2).await;
    let world = world.restart().await;
    let cancelled = world.client.cancel_job(&job.id).await.unwrap();
    assert_eq!(cancelled.status, JobStatus::Cancelled);
}

fn options(epochs: u32) -> Options {
    let hyperparameters = Hyperparameters { n_epochs: Auto::Fixed(epochs), ..Hyperparameters::default() };
    Options {
        model: BASE.into(),
        suffix: Some("v1".into()),
        hyperparameters,
        seed: Some(1),
        validation: None,
        ..Options::default()
    }
}

fn dataset(world: &World, rows: usize) -> (Workspace, std::path::PathBuf) {
    let workspace = Workspace::new(world.folder.path().join("workspace"));
    let path = workspace.dataset();
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(&path, data(rows)).unwrap();
    (workspace, path)
}

async fn follow(
    world: &World,
    workspace: &Workspace,
    job: &str,
    events: &Events,
    cancel: &Cancel,
) -> Result<Job, FinetuneError> {
    let trainer = world.client.clone().into();
    finetune::follow(&trainer, workspace, job, Following::default(), events, cancel).await
}

#[tokio::test]
async fn finetuning_is_followed_left_and_picked_up() {
    let world = World::new().await;
    let (workspace, path) = dataset(&world, 20);
    let (events, mut heard) = Events::channel();
    let (trainer, journal) = (world.client.clone().into(), Journal::open(workspace.journal()));
    let start =
        async || finetune::start(&trainer, &workspace, &path, &options(40), &journal, &events).await.unwrap();
    let first = start().await;
    assert!(!first.picked_up);

    let cancel = Cancel::new();
    let leave = cancel.clone();
    let id = first.job.id.clone();
    world.steps(&id, 2).await;
    tokio::spawn(async move {
        tokio::time::sleep(Duration::from_millis(100)).await;
        leave.cancel();
    });
    let left = follow(&world, &workspace, &id, &events, &cancel).await.unwrap_err();
    assert!(matches!(&left, FinetuneError::Detached { job } if *job == id), "{left}");
    assert!(left.hint().unwrap().contains("--follow"));

    let again = start().await;
    assert!(again.picked_up);
    assert_eq!(again.job.id, id);
    let job = follow(&world, &workspace, &id, &events, &Cancel::new()).await.unwrap();
    let written = std::fs::read_to_string(workspace.tuned_model_id()).unwrap();
    assert_eq!(Some(written.trim()), job.fine_tuned_model.as_deref());
    // Over, but still there for the same data and options.
    assert_eq!(start().await.job.id, id);
    world.client.delete_model(written.trim()).await.unwrap();
    assert!(!start().await.picked_up);

    let mut steps = Vec::new();
    while let Ok(event) = heard.try_recv() {
        if let Event::Step { step, total_steps, tokens, .. } = event {
            assert_eq!(total_steps, 800, "one example a step");
            assert!(tokens.unwrap() > 0);
            steps.push(step);
        }
    }
    assert_eq!(steps.last(), Some(&800));
}

#[tokio::test]
async fn a_dataset_that_fails_is_the_users_error() {
    let world = World::new().await;
    let (workspace, path) = dataset(&world, 9);
    let (trainer, journal) = (world.client.clone().into(), Journal::open(workspace.journal()));
    let start =
        async || finetune::start(&trainer, &workspace, &path, &options(1), &journal, &Events::none()).await;
    assert_eq!(start().await.unwrap_err().to_string(), "dataset has 9 examples, at least 10 are needed");
    std::fs::write(&path, data(9) + "{\"messages\":[]}\n").unwrap();
    let job = start().await.unwrap().job;
    let error = follow(&world, &workspace, &job.id, &Events::none(), &Cancel::new()).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Input);
    assert!(error.to_string().contains("line 10"), "{error}");
    assert!(error.hint().unwrap().contains("hone prepare"));
    // A failed job is not picked up.
    assert!(!start().await.unwrap().picked_up);
    std::fs::remove_file(&path).unwrap();
    assert!(start().await.unwrap_err().hint().unwrap().contains("hone prepare"));
}
