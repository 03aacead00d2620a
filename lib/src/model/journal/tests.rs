use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use futures::future::join_all;
use proptest::prelude::*;
use serde_json::json;
use wiremock::{Mock, MockServer, Request, ResponseTemplate, matchers::any};

use super::{
    db::{Db, Owner},
    *,
};
use crate::{
    config::{ModelRow, Price},
    error::{Explain, Kind},
    model::{
        client::{Endpoint, Header, Retry, Secret},
        provider::Access,
        wire::Message as Said,
    },
};

/// A provider that numbers its answers, and says that each took 10 tokens to read and 20 to write.
async fn provider(latency_ms: u64) -> MockServer {
    let server = MockServer::start().await;
    let count = AtomicU64::new(0);
    let answer = move |_: &Request| {
        let text = count.fetch_add(1, Ordering::SeqCst).to_string();
        let body = json!({
            "choices": [{"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}],
            "usage": {"prompt_tokens": 10, "completion_tokens": 20, "total_tokens": 30}
        });
        ResponseTemplate::new(200).set_body_json(body).set_delay(Duration::from_millis(latency_ms))
    };
    Mock::given(any()).respond_with(answer).mount(&server).await;
    server
}

async fn calls(server: &MockServer) -> usize {
    server.received_requests().await.unwrap().len()
}

fn client(server: &MockServer) -> Client {
    named("paid", server)
}

fn named(name: &str, server: &MockServer) -> Client {
    let retry = Retry { retries: 2, first_wait: Duration::from_millis(1), ..Retry::default() };
    Client::new(Endpoint { retry, ..Endpoint::new(name, format!("{}/v1", server.uri())) }).unwrap()
}

fn request(text: &str) -> ChatRequest {
    ChatRequest { max_tokens: Some(100), ..ChatRequest::new("m", vec![Said::user(text)]) }
}

/// One dollar for a thousand tokens.
fn payer() -> Payer {
    let price = Price { input: 1000.0, output: 1000.0, training: None, as_of: "2026-01-31".into() };
    let row = ModelRow { provider: "p".into(), model: "m".into(), price: Some(price), ..ModelRow::default() };
    Payer::new("paid", &row)
}

fn capped(folder: &Path, cap: f64) -> Journal {
    Journal::with(folder, Options { cap: Usd::cap(cap), run: "r1".into(), ..Options::default() })
        .for_row(payer())
}

fn text(answer: &Answer) -> (&str, bool) {
    (answer.reply.text(), answer.replayed)
}

#[test]
fn the_key_depends_on_all_that_was_asked_and_on_nothing_else() {
    let of = |identity: &str, request: Value, sample: &str| {
        key(identity, &canonical(&request).to_string(), sample)
    };
    let base = of("a", json!({"model": "m", "seed": 1}), "0");
    assert_eq!(base, of("a", json!({"seed": 1, "model": "m"}), "0"));
    for other in [
        of("b", json!({"model": "m", "seed": 1}), "0"),
        of("a", json!({"model": "m", "seed": 2}), "0"),
        of("a", json!({"model": "m", "seed": 1}), "1"),
    ] {
        assert_ne!(base, other);
    }
}

/// Journals of embedded models were written with these keys: a change would run every loop under way from the start.
#[test]
fn the_keys_of_the_embedded_model_stay() {
    let client = Client::new(Endpoint::local("http://127.0.0.1:4711/v1")).unwrap();
    let request = ChatRequest {
        temperature: Some(0.7),
        max_completion_tokens: Some(640),
        seed: Some(7),
        ..ChatRequest::new("smollm2-135m-instruct", vec![Said::system("s"), Said::user("a \"form\"")])
    };
    let asked = Journal::open("/nowhere").asked(&client, &request, "", 100).unwrap();
    let value = serde_json::to_value(&request).unwrap();
    let first_form = serde_json::json!(["local", canonical(&value), ""]).to_string();
    assert_eq!(asked.key, crate::text::hex(&Sha256::digest(first_form)));
    expect_test::expect!["d3a3061f42849f28d49643c02e4d110cc5895e4373a7668e76984ca191daa4f3"]
        .assert_eq(&asked.key);
}

proptest! {
    #[test]
    fn the_order_of_keys_does_not_matter(pairs in prop::collection::btree_map("[a-z]{1,4}", 0i64..9, 0..6)) {
        let forward: Value = pairs.iter().map(|(k, v)| (k.clone(), json!(v))).collect();
        let backward: Value = pairs.iter().rev().map(|(k, v)| (k.clone(), json!(v))).collect();
        prop_assert_eq!(canonical(&forward).to_string(), canonical(&backward).to_string());
    }
}

#[tokio::test]
async fn an_answer_is_asked_for_once_and_each_sample_is_its_own() {
    let (server, folder) = (provider(0).await, tempfile::tempdir().unwrap());
    let (journal, client) = (capped(folder.path(), 5.0), client(&server));
    let ask = async |sample: &str| journal.chat(&client, &request("a"), sample).await.unwrap();
    let first = ask("0").await;
    assert_eq!((text(&first), first.usd), (("0", false), Some(0.03)));
    let again = ask("0").await;
    assert_eq!((text(&again), again.usd, again.took_ms), (("0", true), Some(0.03), first.took_ms));
    assert_eq!(text(&ask("1").await), ("1", false));
    assert_eq!(journal.sent(), Sent { calls: 2, usd: Some(0.06) });
    journal.drain(Duration::ZERO).await;
    let ledger = Ledger::read(folder.path(), Usd::cap(5.0)).unwrap();
    let row = &ledger.rows[0];
    assert_eq!((ledger.rows.len(), row.calls, row.replayed, row.input_tokens), (1, 2, 1, 20));
    assert_eq!((row.run.as_str(), row.row.as_str(), row.role.as_str()), ("r1", "paid", "agent"));
    assert_eq!((ledger.spent_usd, ledger.held_usd, ledger.cap_usd), (0.06, 0.0, Some(5.0)));
    // What cannot be read is asked for again and replaced.
    let database = rusqlite::Connection::open(folder.path().join(db::FILE)).unwrap();
    database.execute("UPDATE calls SET reply = '{'", []).unwrap();
    assert_eq!(text(&ask("0").await), ("2", false));
    assert_eq!(text(&ask("0").await), ("2", true));
}

/// Two journals on one folder stand for two processes: they share nothing but its files.
#[tokio::test(flavor = "multi_thread")]
async fn the_same_call_is_paid_once_by_however_many() {
    let (server, folder) = (provider(20).await, tempfile::tempdir().unwrap());
    let (journals, client) = ([(); 2].map(|()| capped(folder.path(), 100.0)), client(&server));
    let askers = (0..200).map(|n| {
        let (journal, client) = (&journals[n % 2], &client);
        async move { journal.chat(client, &request(&format!("{}", n / 4)), "").await.unwrap() }
    });
    let answers = join_all(askers).await;
    assert_eq!(calls(&server).await, 50);
    assert_eq!(answers.iter().filter(|answer| !answer.replayed).count(), 50);
    for four in answers.chunks(4) {
        assert!(four.iter().all(|answer| answer.reply == four[0].reply));
    }
    let sent = journals[0].sent() + journals[1].sent();
    assert_eq!(sent.calls, 50);
}

/// A claim is as good as its owner's life; what the dead may have been billed counts at its worst.
#[tokio::test]
async fn a_dead_owners_call_is_asked_again_and_its_hold_is_lost() {
    let (server, folder) = (provider(0).await, tempfile::tempdir().unwrap());
    let (journal, client) = (capped(folder.path(), 5.0), client(&server));
    let asked = journal.asked(&client, &request("a"), "", 100).unwrap();
    let (db, owner) = (Db::open(folder.path()).unwrap(), Owner::new(folder.path()).unwrap());
    db.claim(&asked.key, &owner.id).unwrap();
    db.hold(&owner.id, asked.worst, &asked.label).unwrap();
    let ask = request("a");
    let mut asking = Box::pin(journal.chat(&client, &ask, ""));
    let waited = tokio::time::timeout(Duration::from_millis(300), &mut asking).await;
    assert!(waited.is_err() && calls(&server).await == 0, "the owner lives");
    drop(owner);
    assert_eq!(text(&asking.await.unwrap()), ("0", false));
    let ledger = Ledger::read(folder.path(), None).unwrap();
    let worst = asked.worst.unwrap().dollars();
    assert!(worst > 0.1, "100 tokens of output: {worst}");
    assert_eq!((ledger.lost_usd, ledger.held_usd, ledger.rows[0].lost), (worst, 0.0, 1));
    assert!((ledger.spent_usd - worst - 0.03).abs() < 1e-9);
}

#[tokio::test]
async fn a_cap_ends_the_calls_and_a_higher_one_goes_on() {
    let (server, folder) = (provider(0).await, tempfile::tempdir().unwrap());
    let client = client(&server);
    let ask = async |cap: f64, n: u32| {
        let journal = capped(folder.path(), cap);
        let answer = journal.chat(&client, &request(&n.to_string()), "").await;
        journal.drain(Duration::ZERO).await;
        answer
    };
    let mut paid = 0;
    let error = loop {
        match ask(0.5, paid).await {
            Ok(_) => paid += 1,
            Err(error) => break error,
        }
    };
    let worst = capped(folder.path(), 1.0).asked(&client, &request("0"), "", 100).unwrap().worst.unwrap();
    let room = (0.5 - worst.dollars()) / 0.03;
    assert_eq!((paid, calls(&server).await), (room as u32 + 1, paid as usize));
    assert_eq!((error.kind(), error.hint().unwrap().contains("--budget")), (Kind::Budget, true), "{error}");
    // What is there costs nothing, whatever the cap.
    assert!(ask(0.0, 0).await.unwrap().replayed);
    assert!(!ask(5.0, paid).await.unwrap().replayed);
}

/// Whoever finds all money held waits for what comes back of it.
#[tokio::test(flavor = "multi_thread")]
async fn calls_wait_for_money_that_others_hold() {
    let (server, folder) = (provider(5).await, tempfile::tempdir().unwrap());
    let (journals, client) = ([(); 2].map(|()| capped(folder.path(), 1.0)), client(&server));
    // 24 calls cost 0.72, and hold a good 0.2 each.
    let askers = (0..24).map(|n| {
        let (journal, client) = (&journals[n % 2], &client);
        async move { journal.chat(client, &request(&n.to_string()), "").await.map(|_| ()) }
    });
    let answers = join_all(askers).await;
    assert!(answers.iter().all(Result::is_ok), "{answers:?}");
    let ledger = Ledger::read(folder.path(), None).unwrap();
    assert!((ledger.spent_usd - 0.72).abs() < 1e-9, "{}", ledger.spent_usd);
}

#[tokio::test]
async fn without_a_price_no_budget_is_kept() {
    let folder = tempfile::tempdir().unwrap();
    let client = Client::new(Endpoint::new("far", "http://192.0.2.1/v1")).unwrap();
    let journal = |cap| {
        let options = Options { cap, ..Options::default() };
        Journal::with(folder.path(), options).for_row(Payer::named("far"))
    };
    let error = journal(Usd::cap(5.0)).chat(&client, &request("a"), "").await.unwrap_err();
    assert!(matches!(&error, ModelError::NoPrice { row } if row == "far"), "{error}");
    assert!(matches!(journal(Usd::cap(5.0)).afford(&client, "m"), Err(ModelError::NoPrice { .. })));
    assert!(journal(None).afford(&client, "m").is_ok());
    // Without a limit on the answer there is no worst case either.
    let endless = ChatRequest { max_tokens: None, ..request("a") };
    let error = capped(folder.path(), 5.0).chat(&client, &endless, "").await.unwrap_err();
    assert!(error.to_string().contains("limit"), "{error}");
}

#[tokio::test]
async fn what_is_paid_for_is_kept_when_nobody_waits_any_more() {
    let (server, folder) = (provider(2000).await, tempfile::tempdir().unwrap());
    let (journal, client) = (capped(folder.path(), 5.0), client(&server));
    let ask = request("a");
    let mut asking = Box::pin(journal.chat(&client, &ask, ""));
    while calls(&server).await == 0 {
        assert!(tokio::time::timeout(Duration::from_millis(5), &mut asking).await.is_err());
    }
    drop(asking);
    assert_eq!(journal.open_calls(), 1);
    assert_eq!(journal.drain(Duration::from_secs(30)).await, 0);
    let offline = Journal::with(folder.path(), Options { offline: true, ..Options::default() });
    assert_eq!(text(&offline.chat(&client, &ask, "").await.unwrap()), ("0", true));
    assert_eq!(calls(&server).await, 1);
}

#[tokio::test]
async fn an_exported_journal_replays_elsewhere() {
    let (server, folder) = (provider(0).await, tempfile::tempdir().unwrap());
    let client = client(&server);
    let (here, there) = (folder.path().join("here"), folder.path().join("there"));
    let [first, second] = ["first.jsonl", "second.jsonl"].map(|name| folder.path().join(name));
    let journal = capped(&here, 5.0);
    for n in 0..5 {
        journal.chat(&client, &request(&n.to_string()), "").await.unwrap();
    }
    assert_eq!(export(&here, &first).unwrap(), 5);
    assert_eq!(import(&there, &first).unwrap(), Imported { imported: 5, known: 0 });
    assert_eq!(import(&there, &first).unwrap(), Imported { imported: 0, known: 5 });
    export(&there, &second).unwrap();
    assert_eq!(std::fs::read(&first).unwrap(), std::fs::read(&second).unwrap());
    let offline = Journal::with(&there, Options { offline: true, ..Options::default() });
    let answer = offline.chat(&client, &request("3"), "").await.unwrap();
    assert_eq!((text(&answer), answer.usd), (("3", true), Some(0.03)));
    let error = offline.chat(&client, &request("5"), "").await.unwrap_err();
    assert!(matches!(&error, ModelError::NotInJournal { model, .. } if model == "m"), "{error}");
    assert_eq!(Ledger::read(&there, None).unwrap().spent_usd, 0.0, "what others paid is not spent here");

    let text = std::fs::read_to_string(&first).unwrap();
    let third = folder.path().join("third");
    for (spoilt, want) in [
        (text.replace("\"model\":\"m\"", "\"model\":\"n\""), "line 2: its key is not that of its request"),
        (text.replace("\"choices\"", "\"choice\""), "line 2: its reply"),
        (text.replace("\"version\":1", "\"version\":2"), "2, and `hone.calls` 1 can be read"),
        (String::new(), "is not an export of calls"),
        (format!("{text}{{\n"), "line 7: "),
    ] {
        std::fs::write(&second, spoilt).unwrap();
        let error = import(&third, &second).unwrap_err();
        assert!(error.to_string().contains(want), "{error}");
        assert_eq!((error.kind(), error.hint().is_some()), (Kind::Input, true));
    }
    assert_eq!(export(&third, &second).unwrap(), 0, "all or none");
}

/// Before there was a database, each entry was a file named by its key.
#[tokio::test]
async fn entries_of_the_first_form_are_taken_over() {
    let (server, folder) = (provider(0).await, tempfile::tempdir().unwrap());
    let client = named("mine", &server);
    let value = serde_json::to_value(request("a")).unwrap();
    let first_form = serde_json::json!(["mine", canonical(&value), "judge 1"]).to_string();
    let key = crate::text::hex(&Sha256::digest(first_form));
    let write = |text: String| {
        let path = folder.path().join(&key[..2]).join(format!("{}.json", &key[2..]));
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    };
    let reply = json!({"choices": [{"index": 0, "message": {"role": "assistant", "content": "old"}}]});
    let entry = |version: u32| {
        json!({"format": "hone.call", "version": version, "endpoint": "mine", "sample": "judge 1", "request": value,
            "reply": reply, "took_ms": 12})
        .to_string()
    };
    let ask = async || Journal::open(folder.path()).chat(&client, &request("a"), "judge 1").await.unwrap();
    write(entry(1));
    let answer = ask().await;
    assert_eq!((text(&answer), answer.usd, answer.took_ms), (("old", true), Some(0.0), 12));
    // From now on the database has it.
    write("{".into());
    assert_eq!(text(&ask().await), ("old", true));
    let other = tempfile::tempdir().unwrap();
    std::fs::rename(folder.path().join(&key[..2]), other.path().join(&key[..2])).unwrap();
    let journal = Journal::open(other.path());
    let asked = journal.chat(&client, &request("a"), "judge 1").await.unwrap();
    assert_eq!(text(&asked), ("0", false), "a spoilt entry counts as not there");
}

/// An agent that is no chat model is asked once, too, and holds no money.
#[tokio::test]
async fn what_programs_answer_is_kept() {
    let folder = tempfile::tempdir().unwrap();
    let journal = capped(folder.path(), 0.0);
    let ask = async |who: &str, text: &str| {
        let reply = || {
            let choices = json!([{"index": 0, "message": {"role": "assistant", "content": text}}]);
            serde_json::from_value(json!({ "choices": choices })).unwrap()
        };
        let answer = journal.keep(who, &json!({"brief": "a"}), "", async || Ok(reply())).await.unwrap();
        (answer.reply.text().to_owned(), answer.replayed)
    };
    assert_eq!(ask("program 1", "first").await, ("first".into(), false));
    assert_eq!(ask("program 1", "second").await, ("first".into(), true));
    assert_eq!(ask("program 2", "third").await, ("third".into(), false));
    let failed = async || Err(ModelError::Endpoint("no".into()));
    let error = journal.keep("program 3", &json!({}), "", failed).await.unwrap_err();
    assert_eq!(error.to_string(), "no");
    assert!(!ask("program 3", "after a failure").await.1);
}

#[tokio::test]
async fn a_database_of_a_later_version_is_left_alone() {
    let (server, folder) = (provider(0).await, tempfile::tempdir().unwrap());
    drop(Db::open(folder.path()).unwrap());
    let database = rusqlite::Connection::open(folder.path().join(db::FILE)).unwrap();
    database.pragma_update(None, "user_version", 99).unwrap();
    let journal = Journal::open(folder.path());
    for _ in 0..2 {
        let error = journal.chat(&client(&server), &request("a"), "").await.unwrap_err();
        assert!(error.to_string().contains("version 99"), "{error}");
    }
    assert_eq!(calls(&server).await, 0);
}

#[tokio::test]
async fn a_row_that_is_asked_otherwise_is_asked_anew() {
    let (server, folder) = (provider(0).await, tempfile::tempdir().unwrap());
    let journal = Journal::open(folder.path());
    let with = |sampling: Option<bool>, value: Option<&str>, is_key: bool| {
        let header = |value| Header { name: "x-mode".into(), value: Secret::new(value), is_key };
        let usual = Endpoint::new("paid", format!("{}/v1", server.uri()));
        let endpoint = Endpoint {
            headers: value.map(header).into_iter().collect(),
            ..usual.with_access(Access { sampling, ..Access::default() })
        };
        Client::new(endpoint).unwrap()
    };
    let ask = async |client: Client| {
        let warm = ChatRequest { temperature: Some(0.7), ..request("a form") };
        journal.chat(&client, &warm, "").await.unwrap().reply.text().to_owned()
    };
    let first = ask(with(None, None, false)).await;
    // Without its temperature it is another question, and so it is in another mode.
    let (cold, mode) = (ask(with(Some(false), None, false)).await, ask(with(None, Some("a"), false)).await);
    let other = ask(with(None, Some("b"), false)).await;
    assert_eq!([&first, &cold, &mode, &other], ["0", "1", "2", "3"]);
    // What the provider does anyway, and who asks, make no difference; and each is found again.
    assert_eq!(ask(with(Some(true), None, false)).await, first);
    assert_eq!(ask(with(None, Some("my key"), true)).await, first);
    assert_eq!(ask(with(Some(false), None, false)).await, cold);
    assert_eq!((ask(with(None, Some("b"), false)).await, calls(&server).await), (other, 4));
    // Exported and imported, all of them are.
    journal.drain(Duration::ZERO).await;
    let (file, elsewhere) = (folder.path().join("calls.jsonl"), tempfile::tempdir().unwrap());
    assert_eq!(export(folder.path(), &file).unwrap(), 4);
    assert_eq!(import(elsewhere.path(), &file).unwrap().imported, 4);
    assert!(!std::fs::read_to_string(&file).unwrap().contains("my key"));
}

#[tokio::test]
async fn entries_of_the_first_form_answer_rows_without_options_of_their_own() {
    let (server, folder) = (provider(0).await, tempfile::tempdir().unwrap());
    let asked = canonical(&serde_json::to_value(request("old")).unwrap()).to_string();
    let key = key("paid", &asked, "");
    let entry = json!({
        "format": "hone.call", "version": 1, "took_ms": 5,
        "reply": {"choices": [{"index": 0, "message": {"role": "assistant", "content": "kept"}, "finish_reason": "stop"}]},
    });
    let path = folder.path().join(&key[..2]).join(format!("{}.json", &key[2..]));
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(&path, entry.to_string()).unwrap();
    let journal = Journal::open(folder.path());
    let own = Endpoint::new("paid", format!("{}/v1", server.uri()))
        .with_access(Access { sampling: Some(false), ..Access::default() });
    let said = async |client: Client| {
        journal.chat(&client, &request("old"), "").await.unwrap().reply.text().to_owned()
    };
    assert_eq!(said(Client::new(own).unwrap()).await, "0");
    assert_eq!(said(client(&server)).await, "kept");
}

/// A journal with a cap of one dollar.
fn of_one_dollar(folder: &Path) -> Journal {
    let options = Options { cap: Usd::cap(1.0), run: "r".into(), ..Options::default() };
    Journal::with(folder, options).for_row(payer()).by("trainer").at("finetune")
}

#[tokio::test]
async fn a_job_is_held_for_and_booked_once() {
    let (server, folder) = (provider(0).await, tempfile::tempdir().unwrap());
    let (journal, client) = (of_one_dollar(folder.path()), client(&server));
    assert_eq!(journal.held().unwrap(), Vec::<String>::new());
    let hold = |name: &str, usd: f64| journal.hold(&client, name, "m", Some(Usd::of(usd)));
    hold("a", 0.75).unwrap();
    // Asked again it is the same hold; another does not fit beside it.
    hold("a", 0.75).unwrap();
    let refused = hold("b", 0.5).unwrap_err();
    assert!(matches!(refused, ModelError::Budget { held, .. } if held == Usd::of(0.75)), "{refused}");
    assert!(journal.has_room_for(Usd::of(0.25)).is_ok() && journal.has_room_for(Usd::of(0.26)).is_err());
    // Another process neither buries it nor waits for it.
    let later = of_one_dollar(folder.path());
    let call = later.chat(&client, &ChatRequest { max_tokens: Some(300), ..request("a") }, "").await;
    assert!(matches!(call, Err(ModelError::Budget { .. })), "{call:?}");
    assert_eq!(later.held().unwrap(), ["a"]);
    let paid = Settled::Paid { usd: Some(Usd::of(0.5)), tokens: 40 };
    assert_eq!([later.settle("a", paid).unwrap(), journal.settle("a", paid).unwrap()], [true, false]);
    let ledger = Ledger::read(folder.path(), None).unwrap();
    assert_eq!((ledger.spent_usd, ledger.held_usd, ledger.rows.len()), (0.5, 0.0, 1));
    let row = &ledger.rows[0];
    assert_eq!(
        (row.role.as_str(), row.phase.as_str(), row.calls, row.input_tokens),
        ("trainer", "finetune", 1, 40)
    );
}

#[test]
fn a_job_may_cost_nothing_what_was_held_or_nobody_knows_what() {
    let folder = tempfile::tempdir().unwrap();
    let client = Client::new(Endpoint::new("paid", "http://h/v1")).unwrap();
    let journal = Journal::with(folder.path(), Options::default()).at("finetune");
    let check = |usd: Option<f64>, settled: Settled, spent: f64, lost: f64, known: bool| {
        let name = format!("{usd:?} {settled:?}");
        journal.hold(&client, &name, &name, usd.map(Usd::of)).unwrap();
        assert!(journal.settle(&name, settled).unwrap());
        let ledger = Ledger::read(folder.path(), None).unwrap();
        let row = ledger.rows.iter().find(|row| row.model == name);
        assert_eq!((ledger.spent_usd, ledger.lost_usd), (spent, lost), "{name}");
        assert_eq!(row.is_none_or(|row| row.usd.is_some()), known, "{name}");
    };
    check(Some(1.0), Settled::Nothing, 0.0, 0.0, true);
    check(Some(1.0), Settled::AsHeld { tokens: 9 }, 1.0, 0.0, true);
    check(Some(2.0), Settled::Lost, 3.0, 2.0, true);
    check(None, Settled::AsHeld { tokens: 9 }, 3.0, 2.0, false);
    check(None, Settled::Lost, 3.0, 2.0, false);
}
