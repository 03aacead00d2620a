//! Runs jobs: checks their files, then trains one after the other, each in a child process.
//!
//! The child holds a lock in the job's folder. A server that finds it held by a child that another server started waits
//! for it as for its own; a child that dies without having ended its job is started again, twice at most.

use std::{
    collections::VecDeque,
    ffi::OsString,
    fs::File,
    io::{BufRead, BufReader},
    path::Path,
    process::Stdio,
    sync::Arc,
    time::Duration,
};

use hone::{
    cancel::Cancel,
    model::wire::{JobStatus, Level, MIN_EXAMPLES},
    store::{LockError, StoreError},
};
use rustix::process::{Pid, Signal, kill_process};
use tokio::{
    process::Command,
    sync::{Mutex, Notify, oneshot, watch},
};

use super::{
    data::{self, Format},
    plan,
};
use crate::{
    config::ServerConfig,
    disk::{Files, JobFolder, JobRecord, Jobs},
};

/// Children that may die under our eyes before the job fails.
const DEATHS: u32 = 2;
/// Lines of a dead child's stderr that the job's error quotes.
const LAST_WORDS: usize = 5;
/// Looks at a lock before it counts as held, and the time between two.
const LOCK_LOOKS: u32 = 5;
const LOCK_PAUSE: Duration = Duration::from_millis(20);
/// How long a cancelled job's child has to stop by itself, which it does between two steps. A child that loads its model,
/// or is in a step that takes longer, loses nothing that a cancelled job needs.
const GRACE: Duration = Duration::from_secs(2);
/// For the system to end a process that was killed.
const END_WAIT: Duration = Duration::from_secs(10);
/// Before looking again at a disk that failed.
const TROUBLE_WAIT: Duration = Duration::from_secs(5);

/// Watches over jobs. Cheap to clone.
#[derive(Clone)]
pub struct Supervisor {
    inner: Arc<Inner>,
}

struct Inner {
    jobs: Jobs,
    files: Files,
    trainer: Vec<OsString>,
    hidden: Vec<String>,
    /// The job that has a child. Held while anyone but a child writes a `job.json`.
    active: Mutex<Option<String>>,
    /// Something may be there to check.
    check: Notify,
    /// Something may be there to train.
    train: Notify,
    /// Counts jobs that ended or came to rest, for those who wait for one.
    left: watch::Sender<u64>,
    /// The job whose child is not waited for any longer. It was cancelled, so that it never has another one.
    ending: watch::Sender<Option<String>>,
}

/// How a child was left.
enum Left {
    /// It has exited; how, when that is known.
    Gone(Option<std::process::ExitStatus>),
    /// It did not stop when it was asked to, and was killed.
    Killed,
    /// We are told to go; it goes on.
    Running,
}

/// The job error's code for a file of the request.
pub fn data_code(param: &str) -> &'static str {
    if param == "validation_file" { "invalid_validation_file" } else { "invalid_training_file" }
}

impl Supervisor {
    pub fn new(config: &ServerConfig) -> Self {
        let inner = Inner {
            jobs: Jobs::new(&config.root),
            files: Files::new(&config.root),
            trainer: config.trainer.clone(),
            hidden: config.hidden.clone(),
            active: Mutex::default(),
            check: Notify::new(),
            train: Notify::new(),
            left: watch::Sender::new(0),
            ending: watch::Sender::new(None),
        };
        Self { inner: Arc::new(inner) }
    }

    /// Works until `stop`; children go on without us.
    pub async fn run(&self, stop: &Cancel) {
        tokio::join!(self.check_jobs(stop), self.train_jobs(stop));
    }

    /// Tells that there is a new job.
    pub fn look(&self) {
        self.inner.check.notify_one();
        self.inner.train.notify_one();
    }

    /// Stops a job: at once when no child has it; otherwise its child may do so within [`GRACE`], and is killed then.
    pub async fn cancel(&self, folder: &JobFolder) -> Result<(), StoreError> {
        let mut left = self.inner.left.subscribe();
        folder.ask_to_cancel()?;
        if self.end_if_idle(folder, JobFolder::cancelled).await? {
            return Ok(());
        }
        let over = || folder.read().is_ok_and(|record| record.job.status.is_terminal());
        if !in_time(&mut left, GRACE, over).await {
            self.inner.ending.send_replace(Some(folder.read()?.job.id));
            // Whoever asked sees in the answer whether it was in time.
            in_time(&mut left, END_WAIT, over).await;
        }
        Ok(())
    }

    /// Pauses a running job at its next step; waits for that for a while.
    pub async fn pause(&self, folder: &JobFolder, patience: Duration) -> Result<(), StoreError> {
        let mut left = self.inner.left.subscribe();
        folder.ask_to_pause()?;
        if self.end_if_idle(folder, |folder| folder.paused(None)).await? {
            return Ok(());
        }
        // As above: the answer says `pausing` when it was not.
        let rests = || folder.read().is_ok_and(|record| !record.job.status.is_trained());
        in_time(&mut left, patience, rests).await;
        Ok(())
    }

    /// Puts a paused job back into the queue; says whether it was paused.
    pub async fn resume(&self, folder: &JobFolder) -> Result<bool, StoreError> {
        let _active = self.inner.active.lock().await;
        if folder.read()?.job.status != JobStatus::Paused {
            return Ok(false);
        }
        folder.resume()?;
        self.inner.train.notify_one();
        Ok(true)
    }

    /// Ends or pauses a job that no child has; says whether that was so.
    async fn end_if_idle(
        &self,
        folder: &JobFolder,
        end: impl FnOnce(&JobFolder) -> Result<(), StoreError>,
    ) -> Result<bool, StoreError> {
        let active = self.inner.active.lock().await;
        let record = folder.read()?;
        if active.as_ref() == Some(&record.job.id) || is_held(folder).await {
            return Ok(false);
        }
        if !record.job.status.is_terminal() {
            end(folder)?;
        }
        Ok(true)
    }

    async fn check_jobs(&self, stop: &Cancel) {
        loop {
            match self.next(|status| *status == JobStatus::ValidatingFiles) {
                Some(record) => {
                    if let Err(error) = self.check(&record).await {
                        tracing::error!(%error, job = record.job.id, "a job's files cannot be checked");
                        pause(TROUBLE_WAIT, stop).await;
                    }
                    self.inner.train.notify_one();
                }
                None => until(&self.inner.check, stop).await,
            }
            if stop.is_cancelled() {
                return;
            }
        }
    }

    async fn train_jobs(&self, stop: &Cancel) {
        loop {
            match self.next(JobStatus::is_trained) {
                Some(record) => {
                    if let Err(error) = self.train(&record.job.id, stop).await {
                        tracing::error!(%error, job = record.job.id, "a job cannot be trained");
                        pause(TROUBLE_WAIT, stop).await;
                    }
                }
                None => until(&self.inner.train, stop).await,
            }
            if stop.is_cancelled() {
                return;
            }
        }
    }

    /// The oldest job in such a state.
    fn next(&self, wanted: impl Fn(&JobStatus) -> bool) -> Option<JobRecord> {
        let jobs = self.inner.jobs.list().unwrap_or_else(|error| {
            tracing::error!(%error, "jobs cannot be listed");
            Vec::new()
        });
        jobs.into_iter().rev().find(|record| wanted(&record.job.status))
    }

    /// Looks at a new job's files: it is queued, or it has failed.
    async fn check(&self, record: &JobRecord) -> Result<(), StoreError> {
        let Some(folder) = self.inner.jobs.get(&record.job.id) else { return Ok(()) };
        let job = &record.job;
        let with =
            job.validation_file.as_ref().map(|id| format!(" and validation file: {id}")).unwrap_or_default();
        folder.event_once(Level::Info, &format!("Validating training file: {}{with}", job.training_file))?;
        let training = self.check_file(&job.training_file, Format::of(job)).await;
        let validation = match &job.validation_file {
            Some(id) => Some(self.check_file(id, Format::of(job)).await),
            None => None,
        };
        let _active = self.inner.active.lock().await;
        if folder.read()?.job.status.is_terminal() {
            return Ok(());
        }
        let examples = match verdict(&folder, training, validation) {
            Ok(examples) => examples,
            Err(Failure { code, message, param }) => {
                folder.fail(code, &message, Some(param))?;
                self.tell_of_a_leave();
                return Ok(());
            }
        };
        folder.event_once(Level::Info, "Files validated, moving job to queued state")?;
        folder.update(|record| {
            plan::settle(&mut record.job, examples);
            record.job.status = JobStatus::Queued;
        })?;
        Ok(())
    }

    async fn check_file(&self, id: &str, format: Format) -> std::io::Result<data::Report> {
        let path = self.inner.files.content(id);
        tokio::task::spawn_blocking(move || data::check(&path, format))
            .await
            .map_err(std::io::Error::other)?
    }

    /// Sees a job through to its end, or leaves its child running when told to go.
    async fn train(&self, id: &str, stop: &Cancel) -> Result<(), StoreError> {
        let Some(folder) = self.inner.jobs.get(id) else { return Ok(()) };
        {
            let mut active = self.inner.active.lock().await;
            if !folder.read()?.job.status.is_trained() {
                return Ok(());
            }
            if (folder.is_cancel_asked() || folder.is_pause_asked()) && !is_held(&folder).await {
                stop_as_asked(&folder)?;
                self.tell_of_a_leave();
                return Ok(());
            }
            *active = Some(id.to_owned());
        }
        let result = self.watch(&folder, stop).await;
        *self.inner.active.lock().await = None;
        self.tell_of_a_leave();
        result
    }

    fn tell_of_a_leave(&self) {
        self.inner.left.send_modify(|count| *count += 1);
    }

    async fn watch(&self, folder: &JobFolder, stop: &Cancel) -> Result<(), StoreError> {
        loop {
            let left = if is_held(folder).await {
                self.adopt(folder, stop).await
            } else {
                self.spawn(folder, stop).await
            };
            let record = folder.read()?;
            let status = match left {
                Left::Running => return Ok(()),
                _ if !record.job.status.is_trained() => return Ok(()),
                Left::Gone(status) => status,
                Left::Killed => {
                    folder.event_once(Level::Warn, KILLED)?;
                    return stop_as_asked(folder);
                }
            };
            if folder.is_cancel_asked() || folder.is_pause_asked() {
                return stop_as_asked(folder);
            }
            let why = death(folder, status);
            if record.deaths >= DEATHS {
                let message =
                    format!("training stopped {} times without an end, the last time {why}", DEATHS + 1);
                return folder.fail("server_error", &message, None);
            }
            folder.update(|record| record.deaths += 1)?;
            folder.event(Level::Warn, format!("Training stopped unexpectedly ({why}), resuming"))?;
        }
    }

    /// Starts a child and waits for it.
    async fn spawn(&self, folder: &JobFolder, stop: &Cancel) -> Left {
        let mut child = match start(&self.inner.trainer, &self.inner.hidden, folder) {
            Ok(child) => child,
            Err(error) => {
                tracing::error!(%error, "the trainer cannot be started");
                // The log is where the reason of a death is looked for.
                let _ =
                    std::fs::write(folder.log_path(), format!("the trainer cannot be started: {error}\n"));
                return Left::Gone(None);
            }
        };
        tokio::select! {
            () = stop.cancelled() => return Left::Running,
            status = child.wait() => return Left::Gone(status.ok()),
            () = self.is_to_end(folder) => {}
        }
        // It may be another process that trains, where the trainer is a program that starts it.
        kill_holder(folder);
        if let Err(error) = child.kill().await {
            tracing::warn!(%error, "a cancelled job's child cannot be killed");
        }
        Left::Killed
    }

    /// Waits for a child that another server started. Its parent being someone else, the lock is what tells.
    async fn adopt(&self, folder: &JobFolder, stop: &Cancel) -> Left {
        let (sender, mut released) = oneshot::channel();
        let path = folder.lock_path();
        let wait = move || {
            if let Ok(file) = File::open(path) {
                // The kernel wakes us when the child is gone; an error is looked into by the next look at the job.
                let _ = file.lock();
            }
            let _ = sender.send(());
        };
        if std::thread::Builder::new().name("adopted job".into()).spawn(wait).is_err() {
            pause(TROUBLE_WAIT, stop).await;
            return Left::Gone(None);
        }
        tokio::select! {
            () = stop.cancelled() => return Left::Running,
            _ = &mut released => return Left::Gone(None),
            () = self.is_to_end(folder) => kill_holder(folder),
        }
        tokio::select! {
            () = stop.cancelled() => Left::Running,
            _ = released => Left::Killed,
        }
    }

    /// Returns once the job's child is not waited for any longer.
    async fn is_to_end(&self, folder: &JobFolder) {
        if folder.is_cancel_asked() {
            // Of a server before this one: nobody waits for the answer any more, but the next job waits for its turn.
            tokio::time::sleep(GRACE).await;
            return;
        }
        let mut ending = self.inner.ending.subscribe();
        let name = folder.path().file_name().and_then(|name| name.to_str());
        let asked = ending.wait_for(|id| id.is_some() && id.as_deref() == name).await.is_ok();
        if !asked {
            std::future::pending::<()>().await;
        }
    }
}

/// What the history says of a cancelled job whose child was killed.
const KILLED: &str = "Training did not stop soon after it was cancelled, so its process was ended";

/// Kills the process that holds a job's lock.
fn kill_holder(folder: &JobFolder) {
    let Err(LockError::Busy { owner, .. }) = folder.lock() else { return };
    // A look at the lock of our own leaves our id there until a child writes its own.
    let ours = std::process::id().to_string();
    let holder = (owner != ours).then(|| owner.parse().ok().and_then(Pid::from_raw)).flatten();
    let Some(holder) = holder else { return };
    if let Err(error) = kill_process(holder, Signal::KILL) {
        tracing::warn!(%error, "a cancelled job's child cannot be killed");
    }
}

/// Whether something is so before `patience` is at its end; looked at whenever a job ends or comes to rest.
async fn in_time(left: &mut watch::Receiver<u64>, patience: Duration, so: impl Fn() -> bool) -> bool {
    let wait = async { while !so() && left.changed().await.is_ok() {} };
    tokio::time::timeout(patience, wait).await.is_ok()
}

/// Gives a job without a child the status that somebody asked for.
fn stop_as_asked(folder: &JobFolder) -> Result<(), StoreError> {
    if folder.is_cancel_asked() { folder.cancelled() } else { folder.paused(None) }
}

/// A job that its data has failed.
struct Failure {
    code: &'static str,
    message: String,
    param: &'static str,
}

/// The number of training examples, or what is wrong with the files.
fn verdict(
    folder: &JobFolder,
    training: std::io::Result<data::Report>,
    validation: Option<std::io::Result<data::Report>>,
) -> Result<usize, Failure> {
    let examples = file_verdict(folder, training, "training_file")?;
    if examples < MIN_EXAMPLES {
        let message =
            format!("the training file has {examples} examples, at least {} are needed", MIN_EXAMPLES);
        return Err(Failure { code: "invalid_n_examples", message, param: "training_file" });
    }
    if let Some(report) = validation {
        file_verdict(folder, report, "validation_file")?;
    }
    Ok(examples)
}

fn file_verdict(
    folder: &JobFolder,
    report: std::io::Result<data::Report>,
    param: &'static str,
) -> Result<usize, Failure> {
    let failure = |message: String| Failure { code: data_code(param), message, param };
    let report = report.map_err(|e| failure(format!("the file cannot be read: {e}")))?;
    if report.faulty > 0 {
        return Err(failure(format!("invalid file format: {}", report.describe())));
    }
    if let Some(first) = report.first_blank {
        let message = format!("{} blank lines are left out, the first is line {first}", report.blank);
        // A warning that cannot be written is no reason to fail a job.
        let _ = folder.event_once(Level::Warn, &message);
    }
    if let Some(first) = report.first_equal {
        let message = format!(
            "{} pairs prefer an answer to itself and teach nothing, the first is line {first}",
            report.equal
        );
        let _ = folder.event_once(Level::Warn, &message);
    }
    Ok(report.examples)
}

fn start(
    trainer: &[OsString],
    hidden: &[String],
    folder: &JobFolder,
) -> std::io::Result<tokio::process::Child> {
    let (program, arguments) =
        trainer.split_first().ok_or_else(|| std::io::Error::other("no trainer is configured"))?;
    let mut child = Command::new(program);
    for variable in hidden {
        child.env_remove(variable);
    }
    child
        .args(arguments)
        .arg(folder.path())
        // A trace takes memory and a lock. A child that runs out of memory while it takes one waits for itself for ever.
        .env("RUST_BACKTRACE", "0")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(File::create(folder.log_path())?)
        .spawn()
}

/// True while a child trains.
///
/// A process that is being started from this one shares our locks until it runs its own program, so a lock counts as
/// held only when it stays so.
async fn is_held(folder: &JobFolder) -> bool {
    for _ in 0..LOCK_LOOKS {
        if !matches!(folder.lock(), Err(LockError::Busy { .. })) {
            return false;
        }
        tokio::time::sleep(LOCK_PAUSE).await;
    }
    true
}

/// How a child died, with its last words.
fn death(folder: &JobFolder, status: Option<std::process::ExitStatus>) -> String {
    let how = status.map_or_else(|| "it vanished".to_owned(), described);
    let words = last_lines(&folder.log_path());
    if words.is_empty() { how } else { format!("{how}: {words}") }
}

/// A process that cannot say why it went was most likely killed to get memory back.
fn described(status: std::process::ExitStatus) -> String {
    use std::os::unix::process::ExitStatusExt;
    match status.signal() {
        Some(signal) if signal == Signal::KILL.as_raw() => {
            format!("{status}, as the system does when memory runs out")
        }
        _ => status.to_string(),
    }
}

fn last_lines(path: &Path) -> String {
    let Ok(file) = File::open(path) else { return String::new() };
    let mut last = VecDeque::new();
    for line in BufReader::new(file).lines().map_while(Result::ok).filter(|line| !line.trim().is_empty()) {
        if last.len() == LAST_WORDS {
            last.pop_front();
        }
        last.push_back(line.trim().chars().take(300).collect::<String>());
    }
    Vec::from(last).join("; ")
}

async fn until(notify: &Notify, stop: &Cancel) {
    tokio::select! {
        () = stop.cancelled() => {}
        () = notify.notified() => {}
    }
}

async fn pause(wait: Duration, stop: &Cancel) {
    tokio::select! {
        () = stop.cancelled() => {}
        () = tokio::time::sleep(wait) => {}
    }
}
