use std::{collections::BTreeMap, path::Path};

use futures::future::join_all;
use hone_fake::{Batching, Fake, Options as FakeOptions};

use super::*;
use crate::{
    config::{ModelRow, Price},
    error::{Explain, Kind},
    model::{
        client::{Endpoint, Retry},
        journal::{Journal, Ledger, Options, Ready},
        price::{Payer, Usd},
        provider::{Access, provider},
        wire::Message as Said,
    },
};

fn pace() -> Pace {
    let ms = Duration::from_millis;
    Pace { idle: ms(300), first_look: ms(5), longest_look: ms(20), ..Pace::default() }
}

fn fake(batching: Batching) -> Fake {
    Fake::start(FakeOptions { batching, ..FakeOptions::default() }).unwrap()
}

fn client(fake: &Fake) -> Client {
    client_of(&fake.url, Access::to(provider("openai").unwrap()))
}

/// A client of Anthropic's batches.
fn messages(fake: &Fake) -> Client {
    client_of(&fake.url, Access::to(provider("anthropic").unwrap()))
}

fn client_of(url: &str, access: Access) -> Client {
    let retry = Retry { retries: 1, first_wait: Duration::from_millis(1), ..Retry::default() };
    Client::new(Endpoint { retry, ..Endpoint::new("paid", url).with_access(access) }).unwrap()
}

/// The prices of the fake.
fn payer() -> Payer {
    let price = Price { input: 3.75, output: 15.0, training: None, as_of: "2026-01-31".into() };
    let row =
        ModelRow { provider: "openai".into(), model: "m".into(), price: Some(price), ..ModelRow::default() };
    Payer::new("paid", &row)
}

fn journal_at(folder: &Path, pace: Pace, cap: Option<f64>) -> Journal {
    let options = Options { cap: cap.and_then(Usd::cap), run: "r".into(), pace, ..Options::default() };
    Journal::with(folder, options).for_row(payer()).in_batches(true)
}

fn journal(folder: &Path) -> Journal {
    journal_at(folder, pace(), None)
}

fn request(n: usize) -> ChatRequest {
    let said = vec![Said::user(format!("a form for number {n}"))];
    ChatRequest { max_completion_tokens: Some(400), ..ChatRequest::new("m", said) }
}

/// Texts or errors of calls that are asked at once.
async fn ask(
    journal: &Journal,
    client: &Client,
    calls: std::ops::Range<usize>,
) -> Vec<Result<String, ModelError>> {
    let one = async |n: usize| {
        let answer = journal.chat(client, &request(n), "").await?;
        Ok(answer.reply.text().to_owned())
    };
    join_all(calls.map(one)).await
}

fn ledger(folder: &Path) -> Ledger {
    Ledger::read(folder, None).unwrap()
}

/// What the ledger says is what the provider has billed, nothing is held, and no batch is left on disk.
async fn check_books(journal: &Journal, folder: &Path, fake: &Fake) {
    journal.drain(Duration::ZERO).await;
    let ledger = ledger(folder);
    let nanos = |usd: f64| (usd * 1e9).round() as u64;
    let of = |kind: &str| format!("{kind}: {ledger:?}");
    assert_eq!(nanos(ledger.spent_usd), fake.meter().billed, "{}", of("spent"));
    assert_eq!((ledger.held_usd, ledger.lost_usd), (0.0, 0.0), "{}", of("held and lost"));
    assert_eq!(left(folder), Vec::<String>::new());
}

fn left(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder.join("batches")).into_iter().flatten().flatten();
    entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}

/// Waits for something that is under way, and fails where it never comes.
async fn until(mut is_so: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !is_so() {
        assert!(begun.elapsed() < Duration::from_secs(120), "it never came");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

#[tokio::test]
async fn calls_go_together_and_cost_half() {
    let (fake, folder) = (fake(Batching::Answers), tempfile::tempdir().unwrap());
    let (journal, client) = (journal(folder.path()), client(&fake));
    let texts: Vec<String> = ask(&journal, &client, 0..40).await.into_iter().map(Result::unwrap).collect();
    let meter = fake.meter();
    assert_eq!((meter.batches, meter.requests, meter.batched.len()), (1, 0, 40));
    check_books(&journal, folder.path(), &fake).await;
    let row = ledger(folder.path()).rows.remove(0);
    assert_eq!((row.calls, row.batched, row.lost), (40, 40, 0));
    assert_eq!(journal.sent().calls, 40);
    // Asked again, nothing is sent; asked live, the same answers cost twice as much.
    let again: Vec<String> = ask(&journal, &client, 0..40).await.into_iter().map(Result::unwrap).collect();
    assert_eq!((again, fake.meter().batches), (texts.clone(), 1));
    let (live, other) = (self::fake(Batching::Answers), tempfile::tempdir().unwrap());
    let journal = self::journal(other.path()).in_batches(false);
    let asked = ask(&journal, &self::client(&live), 0..40).await;
    assert_eq!(asked.into_iter().map(Result::unwrap).collect::<Vec<_>>(), texts);
    let rounded = 2 * meter.billed - live.meter().billed;
    assert!(rounded <= 40, "{} in a batch, {} live", meter.billed, live.meter().billed);
}

#[tokio::test]
async fn a_batch_holds_no_more_than_it_may() {
    let (fake, folder) = (fake(Batching::Answers), tempfile::tempdir().unwrap());
    let journal = journal_at(folder.path(), Pace { most_calls: 8, ..pace() }, None);
    let answers = ask(&journal, &client(&fake), 0..20).await;
    assert!(answers.iter().all(Result::is_ok));
    assert_eq!((fake.meter().batches, fake.meter().batched.len()), (3, 20));
    check_books(&journal, folder.path(), &fake).await;
}

/// How batches go, with how many of 12 calls are refused, how many are asked live, and how many batches there are.
async fn check_trouble(batching: Batching, refused: usize, live: u64, batches: u64) {
    check_trouble_of(client, batching, refused, live, batches).await;
}

async fn check_trouble_of(
    of: fn(&Fake) -> Client,
    batching: Batching,
    refused: usize,
    live: u64,
    batches: u64,
) {
    let (fake, folder) = (fake(batching), tempfile::tempdir().unwrap());
    let (journal, client) = (journal(folder.path()), of(&fake));
    let answers = ask(&journal, &client, 0..12).await;
    let errors: Vec<&ModelError> = answers.iter().filter_map(|answer| answer.as_ref().err()).collect();
    assert_eq!(errors.len(), refused, "{batching:?}: {errors:?}");
    assert!(errors.iter().all(|error| error.status() == Some(400)), "{errors:?}");
    let meter = fake.meter();
    assert_eq!((meter.requests, meter.batches), (live, batches), "{batching:?}");
    assert!(meter.batched.values().all(|times| *times == 1), "{batching:?}");
    check_books(&journal, folder.path(), &fake).await;
}

#[tokio::test]
async fn what_a_batch_does_not_answer_is_asked_for_alone() {
    check_trouble(Batching::PartlyFails, 4, 4, 1).await;
    check_trouble(Batching::Expires, 0, 6, 1).await;
    check_trouble(Batching::Cancelled, 0, 6, 1).await;
    check_trouble(Batching::Fails, 0, 12, 1).await;
    check_trouble(Batching::Missing, 0, 12, 0).await;
}

#[tokio::test]
async fn no_creation_in_doubt_makes_two_batches() {
    for of in [client, messages] {
        check_trouble_of(of, Batching::AnswerLost(1), 0, 0, 1).await;
        check_trouble_of(of, Batching::AnswerFails(1), 0, 0, 1).await;
    }
}

#[tokio::test]
async fn batches_of_messages_go_the_same_ways() {
    check_trouble_of(messages, Batching::Answers, 0, 0, 1).await;
    check_trouble_of(messages, Batching::PartlyFails, 4, 4, 1).await;
    check_trouble_of(messages, Batching::Expires, 0, 6, 1).await;
    check_trouble_of(messages, Batching::Cancelled, 0, 6, 1).await;
    check_trouble_of(messages, Batching::Fails, 0, 12, 1).await;
    check_trouble_of(messages, Batching::Missing, 0, 12, 0).await;
}

/// Nothing in a batch of messages says whose it is: one of as many calls that somebody else makes meanwhile is not ours.
#[tokio::test]
async fn another_batch_of_messages_is_not_taken_for_ours() {
    let fake = fake(Batching::AnswerLost(2));
    let (mine, theirs) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let [mine_too, theirs_too] = [&mine, &theirs].map(|folder| journal(folder.path()));
    let client = messages(&fake);
    let (ours, others) = futures::join!(ask(&mine_too, &client, 0..5), ask(&theirs_too, &client, 20..25));
    assert!(ours.iter().chain(&others).all(Result::is_ok), "{ours:?} {others:?}");
    let meter = fake.meter();
    assert_eq!((meter.batches, meter.requests, meter.batched.len()), (2, 0, 10));
    assert!(meter.batched.values().all(|times| *times == 1));
    // Each has paid for its own.
    let spent: f64 = [&mine, &theirs].map(|folder| ledger(folder.path()).spent_usd).iter().sum();
    assert_eq!((spent * 1e9).round() as u64, meter.billed);
}

/// Azure's files are read before they can be used, its deployments stand in the calls, and its version in every address.
#[tokio::test]
async fn azures_batches_go_the_whole_way() {
    for version in [Some("2025-04-01-preview"), None] {
        let record = FakeOptions { record: true, ..FakeOptions::default() };
        let (fake, folder) = (Fake::start(record).unwrap(), tempfile::tempdir().unwrap());
        let access = Access {
            api_version: version.map(Into::into),
            deployment: Some("mine".into()),
            ..Access::to(provider("azure").unwrap())
        };
        let client = client_of(fake.url.trim_end_matches("/v1"), access);
        let journal = journal(folder.path());
        assert!(ask(&journal, &client, 0..6).await.iter().all(Result::is_ok), "{version:?}");
        assert_eq!((fake.meter().batches, fake.meter().requests, fake.meter().batched.len()), (1, 0, 6));
        check_books(&journal, folder.path(), &fake).await;
        let root = if version.is_some() { "/openai" } else { "/openai/v1" };
        let requests = fake.requests();
        let posted = |end: &str| {
            requests.iter().find(|r| r.method == "POST" && r.path == format!("{root}/{end}")).unwrap()
        };
        let input = String::from_utf8_lossy(&posted("files").body).into_owned();
        assert!(input.contains("name=\"purpose\"\r\n\r\nbatch"), "{input}");
        assert_eq!(input.matches(r#""url":"/chat/completions""#).count(), 6);
        assert_eq!(input.matches(r#""model":"mine""#).count(), 6);
        let body: serde_json::Value = serde_json::from_slice(&posted("batches").body).unwrap();
        assert_eq!([&body["endpoint"], &body["completion_window"]], ["/chat/completions", "24h"]);
        let said = |query: &str| query.contains("api-version=2025-04-01-preview");
        assert!(requests.iter().all(|request| said(&request.query) == version.is_some()), "{requests:?}");
    }
}

#[tokio::test]
async fn a_call_that_is_refused_in_a_batch_is_refused_and_nothing_is_held_for_it() {
    let (fake, folder) = (fake(Batching::PartlyFails), tempfile::tempdir().unwrap());
    let (journal, client) = (journal(folder.path()), client(&fake));
    ask(&journal, &client, 0..3).await;
    // It is in no batch any more, so the next run asks for it again and hears the same.
    fake.set_batching(Batching::Answers);
    assert!(ask(&journal, &client, 0..3).await.iter().all(Result::is_ok));
    assert_eq!(fake.meter().batches, 2);
    check_books(&journal, folder.path(), &fake).await;
}

#[tokio::test]
async fn a_budget_holds_with_batches() {
    let (fake, folder) = (fake(Batching::Answers), tempfile::tempdir().unwrap());
    let client = client(&fake);
    let worst = journal(folder.path()).asked(&client, &request(10), "", 50).unwrap().worst.unwrap().dollars();
    // What is held in the first batch comes back with its answers and lets others in, until too little is left.
    let cap = 6.5 * worst;
    let journal = journal_at(folder.path(), pace(), Some(cap));
    let answers = ask(&journal, &client, 10..70).await;
    let (good, bad): (Vec<_>, Vec<_>) = answers.into_iter().partition(Result::is_ok);
    assert!(good.len() > 6 && !bad.is_empty(), "{} answered, {} refused", good.len(), bad.len());
    assert!(bad.iter().all(|answer| answer.as_ref().is_err_and(|error| error.kind() == Kind::Budget)));
    assert!(fake.meter().billed as f64 / 1e9 <= cap);
    check_books(&journal, folder.path(), &fake).await;
}

/// A process of its own, as far as a journal can tell, which dies when it is dropped.
struct Process {
    runtime: Option<tokio::runtime::Runtime>,
}

impl Process {
    fn asks(folder: &Path, fake: &Fake, pace: Pace, calls: std::ops::Range<usize>) -> Self {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let (journal, client) = (journal_at(folder, pace, None), client(fake));
        runtime.spawn(async move { ask(&journal, &client, calls).await });
        Self { runtime: Some(runtime) }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_after_a_killed_one_pays_nothing_twice() {
    for in_batches in [true, false] {
        let (fake, folder) = (fake(Batching::Never), tempfile::tempdir().unwrap());
        let killed = Process::asks(folder.path(), &fake, pace(), 0..10);
        let is_noted = || {
            left(folder.path()).iter().any(|name| {
                name.ends_with(".json")
                    && std::fs::read_to_string(folder.path().join("batches").join(name))
                        .unwrap_or_default()
                        .contains("created")
            })
        };
        until(is_noted).await;
        drop(killed);
        let held = ledger(folder.path());
        assert!(held.held_usd > 0.0 && held.spent_usd == 0.0, "{held:?}");
        fake.set_batching(Batching::Answers);
        let (journal, client) = (journal(folder.path()).in_batches(in_batches), client(&fake));
        assert!(ask(&journal, &client, 0..12).await.iter().all(Result::is_ok));
        let meter = fake.meter();
        let expected = if in_batches { (2, 0, 12) } else { (1, 2, 10) };
        assert_eq!((meter.batches, meter.requests, meter.batched.len()), expected);
        assert!(meter.batched.values().all(|times| *times == 1));
        until(|| left(folder.path()).is_empty()).await;
        check_books(&journal, folder.path(), &fake).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_that_was_made_before_it_was_noted_is_found() {
    let (fake, folder) = (fake(Batching::AnswerLost(1)), tempfile::tempdir().unwrap());
    let patient = Pace { first_look: Duration::from_secs(3600), ..pace() };
    let killed = Process::asks(folder.path(), &fake, patient, 0..5);
    until(|| fake.meter().batches == 1).await;
    drop(killed);
    let (journal, client) = (journal(folder.path()), client(&fake));
    assert!(ask(&journal, &client, 0..5).await.iter().all(Result::is_ok));
    assert_eq!((fake.meter().batches, fake.meter().requests), (1, 0));
    until(|| left(folder.path()).is_empty()).await;
    check_books(&journal, folder.path(), &fake).await;
}

/// Calls as they wait for a batch.
async fn claimed(journal: &Journal, client: &Client, calls: std::ops::Range<usize>) -> Vec<Call> {
    let one = async |n: usize| {
        let (asked, ready) = journal.claim(client, &request(n), "", 50).await.unwrap();
        let Ready::Ours(ticket) = ready else { panic!("{n} is known") };
        let (waiter, _) = oneshot::channel();
        Call { line: client.batch_line(&request(n), &asked.key).unwrap(), asked, ticket, waiter }
    };
    join_all(calls.map(one)).await
}

#[tokio::test]
async fn a_batch_that_was_never_sent_is_sent_once_and_one_without_a_record_is_none() {
    for is_recorded in [true, false] {
        let (fake, folder) = (fake(Batching::Answers), tempfile::tempdir().unwrap());
        let client = client(&fake);
        {
            let killed = journal(folder.path());
            let calls = claimed(&killed, &client, 0..5).await;
            let batch = open(&killed.shared, &client, &calls).await.unwrap();
            calls.into_iter().for_each(|call| call.ticket.hand_over());
            if !is_recorded {
                std::fs::remove_file(folder.path().join(format!("batches/{}.json", batch.record.id)))
                    .unwrap();
            }
        }
        let journal = journal(folder.path());
        assert!(ask(&journal, &client, 0..5).await.iter().all(Result::is_ok));
        assert_eq!((fake.meter().batches, fake.meter().requests), (1, 0), "recorded: {is_recorded}");
        until(|| left(folder.path()).is_empty()).await;
        check_books(&journal, folder.path(), &fake).await;
    }
}

#[tokio::test]
async fn nothing_stays_of_a_batch_that_was_never_recorded() {
    let (fake, folder) = (fake(Batching::Answers), tempfile::tempdir().unwrap());
    let (journal, client) = (journal(folder.path()), client(&fake));
    let calls = claimed(&journal, &client, 0..2).await;
    let batch = open(&journal.shared, &client, &calls).await.unwrap();
    let id = batch.record.id.clone();
    drop(batch);
    // What whoever finds its owner dead removes.
    for end in ["json", "lock"] {
        std::fs::remove_file(folder.path().join(format!("batches/{id}.{end}"))).unwrap();
    }
    assert_eq!(left(folder.path()).len(), 2);
    assert!(Open::orphans(folder.path(), &client.endpoint().identity).is_empty());
    assert_eq!(left(folder.path()), Vec::<String>::new());
}

#[tokio::test]
async fn a_batch_that_is_settled_twice_is_paid_once() {
    let (fake, folder) = (fake(Batching::Answers), tempfile::tempdir().unwrap());
    let (journal, client) = (journal(folder.path()), client(&fake));
    let calls = claimed(&journal, &client, 0..5).await;
    let batch = open(&journal.shared, &client, &calls).await.unwrap();
    let kept: BTreeMap<String, Vec<u8>> = left(folder.path())
        .into_iter()
        .map(|name| (name.clone(), std::fs::read(folder.path().join("batches").join(name)).unwrap()))
        .collect();
    calls.into_iter().for_each(|call| call.ticket.hand_over());
    follow::follow(&Arc::downgrade(&journal.shared), &client, batch).await;
    // As if the process had been killed before it could remove them.
    for (name, bytes) in kept {
        std::fs::write(folder.path().join("batches").join(name), bytes).unwrap();
    }
    let orphan = Open::orphans(folder.path(), &client.endpoint().identity).remove(0);
    follow::follow(&Arc::downgrade(&journal.shared), &client, orphan).await;
    journal.drain(Duration::ZERO).await;
    let ledger = ledger(folder.path());
    assert_eq!((ledger.rows[0].calls, ledger.held_usd, ledger.lost_usd), (5, 0.0, 0.0));
}

#[tokio::test(flavor = "multi_thread")]
async fn who_may_send_nothing_waits_for_no_batch() {
    let (fake, folder) = (fake(Batching::Never), tempfile::tempdir().unwrap());
    let killed = Process::asks(folder.path(), &fake, pace(), 0..2);
    until(|| fake.meter().batches == 1).await;
    drop(killed);
    let options = Options { offline: true, ..Options::default() };
    let offline = Journal::with(folder.path(), options).for_row(payer()).in_batches(true);
    let answers = ask(&offline, &client(&fake), 0..2).await;
    assert!(
        answers.iter().all(|answer| matches!(answer, Err(ModelError::NotInJournal { .. }))),
        "{answers:?}"
    );
}

#[tokio::test]
async fn a_cancelled_run_leaves_its_batch_to_the_next() {
    let (fake, folder) = (fake(Batching::Never), tempfile::tempdir().unwrap());
    let cancel = crate::cancel::Cancel::new();
    let (journal, cancelled) = (journal(folder.path()), client(&fake).cancelled_by(cancel.clone()));
    let stop = async {
        until(|| fake.meter().batches == 1).await;
        cancel.cancel();
    };
    let (answers, ()) = futures::join!(ask(&journal, &cancelled, 0..3), stop);
    assert!(answers.iter().all(|answer| matches!(answer, Err(ModelError::Cancelled))), "{answers:?}");
    drop(journal);
    fake.set_batching(Batching::Answers);
    let journal = self::journal(folder.path());
    assert!(ask(&journal, &client(&fake), 0..3).await.iter().all(Result::is_ok));
    assert_eq!((fake.meter().batches, fake.meter().requests), (1, 0));
}
