//! Jobs that rest and go on.

use hone::model::wire::JobStatus;
use rustix::process::{Pid, Signal, kill_process};

use crate::harness::World;

#[tokio::test]
async fn a_paused_job_goes_on_where_it_was() {
    let world = World::new().await;
    let job = world.job(20, 30).await;
    world.steps(&job.id, 5).await;
    let paused = world.client.pause_job(&job.id).await.unwrap();
    assert_eq!(paused.status, JobStatus::Paused);
    let done = world.metrics(&job.id).await.len();
    assert!(done < 300, "it is not over");

    // Its place in the queue is free, and it survives the server.
    let other = world.job(10, 1).await;
    assert_eq!(world.end(&other.id).await.status, JobStatus::Succeeded);
    let world = world.restart().await;
    let other = world.job(10, 1).await;
    assert_eq!(world.end(&other.id).await.status, JobStatus::Succeeded);
    assert_eq!(world.client.job(&job.id).await.unwrap().status, JobStatus::Paused);
    assert_eq!(world.metrics(&job.id).await.len(), done);
    assert!(world.client.delete_file(&job.training_file).await.is_err(), "its data is still needed");

    let resumed = world.client.resume_job(&job.id).await.unwrap();
    assert!(matches!(resumed.status, JobStatus::Queued | JobStatus::Running), "{}", resumed.status);
    let job = world.end(&job.id).await;
    assert_eq!(job.status, JobStatus::Succeeded);
    assert_eq!(world.metrics(&job.id).await, (1..=300).collect::<Vec<_>>());
    let events = world.client.events(&job.id, None).await.unwrap();
    let at = |words: &str| events.iter().position(|event| event.message.contains(words)).unwrap();
    assert!(at("is paused after step") < at("is resumed") && at("is resumed") < at("successfully completed"));
}

#[tokio::test]
async fn only_running_jobs_pause_and_only_paused_jobs_resume() {
    let world = World::new().await;
    let (running, waiting) = (world.job(20, 50).await, world.job(10, 1).await);
    world.steps(&running.id, 1).await;
    let refused = async |result: Result<_, hone::model::client::ModelError>, words: &str| {
        let error = result.unwrap_err();
        assert_eq!(error.status(), Some(400));
        assert!(error.to_string().contains(words), "{error}");
    };
    world.until(&waiting.id, |job| job.status == JobStatus::Queued).await;
    refused(world.client.pause_job(&waiting.id).await, "`queued`").await;
    refused(world.client.resume_job(&running.id).await, "`running`").await;
    world.client.pause_job(&running.id).await.unwrap();
    refused(world.client.pause_job(&running.id).await, "`paused`").await;
    assert_eq!(world.client.cancel_job(&running.id).await.unwrap().status, JobStatus::Cancelled);
    refused(world.client.pause_job(&running.id).await, "cancelled").await;
    refused(world.client.resume_job(&running.id).await, "cancelled").await;
    assert_eq!(world.client.pause_job("ftjob-nobody").await.unwrap_err().status(), Some(404));
    assert_eq!(world.end(&waiting.id).await.status, JobStatus::Succeeded);
}

/// A child that dies instead of pausing has been paused all the same: its last state is on disk.
#[tokio::test]
async fn a_job_whose_child_dies_while_pausing_is_paused() {
    let world = World::new().await;
    let job = world.job(20, 50).await;
    world.steps(&job.id, 3).await;
    let pid = std::fs::read_to_string(world.job_folder(&job.id).join("child.lock")).unwrap();
    let pid = Pid::from_raw(pid.trim().parse().unwrap()).unwrap();
    // Stopped, it cannot see that it is asked to pause.
    kill_process(pid, Signal::STOP).unwrap();
    std::fs::write(world.job_folder(&job.id).join("pause"), b"").unwrap();
    assert_eq!(world.client.job(&job.id).await.unwrap().status, JobStatus::Pausing);
    let listed = world.client.jobs(10).await.unwrap();
    assert_eq!(listed[0].status, JobStatus::Pausing);
    kill_process(pid, Signal::KILL).unwrap();
    world.until(&job.id, |job| job.status == JobStatus::Paused).await;
    world.client.resume_job(&job.id).await.unwrap();
    assert_eq!(world.end(&job.id).await.status, JobStatus::Succeeded);
    assert_eq!(world.metrics(&job.id).await, (1..=500).collect::<Vec<_>>());
}
