//! The client against a provider that fails as hosted ones fail: every row of the table, every fault, the gate, the circuit.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use futures::future::join_all;
use hone::{
    cancel::Cancel,
    error::{Explain, Kind},
    event::{Event, Events},
    model::{
        client::{Client, Endpoint, ModelError, Outage, Retry, Secret},
        price::Usd,
        provider::{Access, TABLE, provider},
        wire::{ChatRequest, Finish, Message},
    },
};
use hone_fake::{Fake, Fault, Faults, Options};
use serde_json::{Value, json};

const KEY: &str = "sk-canary-0123456789abcdef";

fn fake(faults: Faults) -> Fake {
    Fake::start(Options { faults, record: true, ..Options::default() }).unwrap()
}

/// An endpoint that asks again at once.
fn endpoint(fake: &Fake, provider_name: &str) -> Endpoint {
    let retry = Retry { first_wait: Duration::from_millis(1), ..Retry::default() };
    let access = Access::to(provider(provider_name).unwrap());
    let usual = Endpoint::new("fake", &fake.url).with_access(access).with_key(Some(Secret::new(KEY)));
    Endpoint { retry, ..usual }
}

/// One that does not wait for providers that fall silent.
fn impatient(fake: &Fake, provider_name: &str) -> Endpoint {
    let short = Duration::from_millis(400);
    Endpoint { timeout: short, silence: short, ..endpoint(fake, provider_name) }
}

fn client(fake: &Fake, provider_name: &str) -> Client {
    Client::new(endpoint(fake, provider_name)).unwrap()
}

fn request(text: &str) -> ChatRequest {
    ChatRequest {
        temperature: Some(0.5),
        max_completion_tokens: Some(900),
        seed: Some(1),
        ..ChatRequest::new("m", vec![Message::system("You write apps."), Message::user(text)])
    }
}

#[tokio::test]
async fn every_row_of_the_table_is_asked_in_its_own_way() {
    for row in TABLE {
        let fake = fake(Faults::none());
        let reply = client(&fake, row.name).chat(&request("a form")).await.unwrap();
        assert!(reply.text().contains("import streamlit"), "{}: {reply:?}", row.name);
        assert_eq!((reply.finish(), reply.model.as_str()), (Finish::Complete, "m"), "{}", row.name);
        assert!(reply.usage.unwrap().completion_tokens > 0);
        let sent = fake.requests().pop().unwrap();
        assert_eq!(sent.key(), KEY, "{}", row.name);
        let body: Value = serde_json::from_slice(&sent.body).unwrap();
        let (path, header) = match row.name {
            "anthropic" => ("/v1/messages", "x-api-key"),
            "azure" => ("/v1/openai/v1/chat/completions", "api-key"),
            _ => ("/v1/chat/completions", "authorization"),
        };
        assert_eq!(sent.path, path, "{}", row.name);
        assert!(sent.header(header).is_some(), "{} sends its key elsewhere", row.name);
        match row.name {
            "anthropic" => {
                assert_eq!(sent.header("anthropic-version"), Some("2023-06-01"));
                assert_eq!((&body["system"], &body["max_tokens"]), (&json!("You write apps."), &json!(900)));
                assert!(body.get("temperature").is_none() && body.get("seed").is_none(), "{body}");
            }
            _ => assert_eq!(body["messages"][0]["role"], "system", "{}", row.name),
        }
    }
}

#[tokio::test]
async fn azure_has_deployments_too() {
    let fake = fake(Faults::none());
    let access = Access {
        api_version: Some("2025-04-01-preview".into()),
        deployment: Some("mine".into()),
        ..Access::to(provider("azure").unwrap())
    };
    Client::new(endpoint(&fake, "azure").with_access(access)).unwrap().chat(&request("a")).await.unwrap();
    let sent = fake.requests().pop().unwrap();
    assert_eq!(sent.path, "/v1/openai/deployments/mine/chat/completions");
    assert_eq!(sent.query, "api-version=2025-04-01-preview");
}

/// What a fault comes to: the tries, those of them that may have been billed in vain, and words of the error if it is one.
async fn check(fault: Fault, stream: bool, tries: u64, unknown: u32, expected: Result<Finish, &str>) {
    let fake = fake(Faults::always(fault));
    check_at(&fake, stream, fault, tries, unknown, expected).await;
}

async fn check_at(
    fake: &Fake,
    stream: bool,
    fault: Fault,
    tries: u64,
    unknown: u32,
    expected: Result<Finish, &str>,
) {
    for provider_name in ["openai", "anthropic"] {
        let before = fake.meter().requests;
        let falls_silent = matches!(fault, Fault::Stall | Fault::StallMid);
        let usual = if falls_silent { impatient } else { endpoint }(fake, provider_name);
        let access = Access { stream: Some(stream), ..usual.access.clone() };
        let retry = Retry { retries: 1, ..usual.retry };
        let client = Client::new(Endpoint { retry, ..usual }.with_access(access)).unwrap();
        let admitted = Arc::new(AtomicU32::new(0));
        let count = Arc::clone(&admitted);
        let admit = move |_| -> futures::future::BoxFuture<'static, Result<(), ModelError>> {
            count.fetch_add(1, Ordering::SeqCst);
            Box::pin(async { Ok(()) })
        };
        let exchange = client.chat_with(&request("a form"), &admit).await;
        let context = format!("{provider_name}, {fault:?}, streamed {stream}: {:?}", exchange.result);
        match (&exchange.result, &expected) {
            (Ok(reply), Ok(finish)) => {
                let both_are_refusals =
                    matches!((reply.finish(), finish), (Finish::Refused(_), Finish::Refused(_)));
                assert!(both_are_refusals || reply.finish() == *finish, "{context}");
            }
            (Err(error), Err(words)) => {
                assert!(error.to_string().contains(words), "{context}");
                assert_eq!(error.kind(), Kind::Provider, "{context}");
                assert!(error.hint().is_some() || error.status() == Some(400), "{context}");
                assert!(!format!("{error} {error:?}").contains(&KEY[..12]), "{context}");
            }
            _ => panic!("expected {expected:?}: {context}"),
        }
        assert_eq!(fake.meter().requests - before, tries, "{context}");
        assert_eq!(
            (exchange.unknown, u64::from(admitted.load(Ordering::SeqCst))),
            (unknown, tries),
            "{context}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn refusals_are_told_and_never_in_doubt() {
    check(Fault::LimitMillis, false, 2, 0, Err("HTTP 429")).await;
    check(Fault::LimitDate, false, 2, 0, Err("HTTP 429")).await;
    check(Fault::LimitHeaders, false, 2, 0, Err("HTTP 429")).await;
    check(Fault::LimitLong, false, 1, 0, Err("asks to wait 121 s")).await;
    check(Fault::LimitFinal, false, 1, 0, Err("HTTP 429")).await;
    check(Fault::Quota, false, 1, 0, Err("insufficient_quota")).await;
    for status in [408, 409, 500, 502, 503, 529] {
        check(Fault::Status(status), false, 2, 0, Err(&format!("HTTP {status}"))).await;
    }
    check(Fault::Status(400), false, 1, 0, Err("HTTP 400")).await;
    check(Fault::BadKey, false, 1, 0, Err("incorrect API key provided: [key]")).await;
    check(Fault::Forbidden, false, 1, 0, Err("HTTP 403")).await;
    check(Fault::NoModel, false, 1, 0, Err("model_not_found")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn broken_answers_are_in_doubt() {
    for fault in [Fault::ResetReady, Fault::ResetMid, Fault::Short] {
        check(fault, false, 2, 2, Err("cannot reach fake")).await;
    }
    check(Fault::Stall, false, 2, 2, Err("no answer in time")).await;
    check(Fault::StallMid, false, 2, 2, Err("stops in the middle")).await;
    for (fault, words) in [
        (Fault::CutJson, "breaks off"),
        (Fault::Html, "a web page, not JSON: <html>"),
        (Fault::HtmlKey, "[key]"),
        (Fault::Empty, "it is empty"),
        (Fault::EmptyObject, ""),
        (Fault::NoChoices, "no"),
        (Fault::NullContent, "has no text"),
    ] {
        check(fault, false, 2, 2, Err(words)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_that_break_are_no_answers() {
    check(Fault::StreamReset, true, 2, 2, Err("cannot reach fake")).await;
    check(Fault::StallMid, true, 2, 2, Err("stops in the middle")).await;
    check(Fault::StreamCut, true, 2, 2, Err("ends before the answer does")).await;
    check(Fault::StreamBadJson, true, 2, 2, Err("cannot be used")).await;
    check(Fault::StreamError, true, 2, 2, Err("it broke")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_say_how_they_ended() {
    for stream in [false, true] {
        check(Fault::None, stream, 1, 0, Ok(Finish::Complete)).await;
        check(Fault::Refusal, stream, 1, 0, Ok(Finish::Refused(String::new()))).await;
        check(Fault::Length, stream, 1, 0, Ok(Finish::Length)).await;
    }
    let fake = fake(Faults::always(Fault::Filtered));
    assert_eq!(client(&fake, "openai").chat(&request("a")).await.unwrap().finish(), Finish::Filtered);
}

#[tokio::test]
async fn a_streamed_answer_is_the_same_answer() {
    let fake = fake(Faults::none());
    for name in ["openai", "anthropic"] {
        let whole = client(&fake, name).chat(&request("a form")).await.unwrap();
        let usual = endpoint(&fake, name);
        let access = Access { stream: Some(true), ..usual.access.clone() };
        let streamed =
            Client::new(usual.with_access(access)).unwrap().chat(&request("a form")).await.unwrap();
        let of = |reply: &hone::model::wire::ChatReply| {
            (reply.text().to_owned(), reply.finish(), reply.usage.map(|usage| usage.total_tokens))
        };
        assert_eq!(of(&whole), of(&streamed), "{name}");
    }
}

#[tokio::test]
async fn no_key_comes_back_in_an_answer() {
    let fake = fake(Faults::always(Fault::EchoKey));
    for stream in [false, true] {
        let usual = endpoint(&fake, "openai");
        let access = Access { stream: Some(stream), ..usual.access.clone() };
        let reply = Client::new(usual.with_access(access)).unwrap().chat(&request("a")).await.unwrap();
        assert_eq!(reply.text(), "your key is [key]");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn faults_that_pass_change_no_answer() {
    let (clean, faulty) = (fake(Faults::none()), fake(Faults::passing(0.3, 7)));
    let ask = async |fake: &Fake| {
        let client = client(fake, "openai");
        let asked =
            (0..60).map(|n| {
                let client = client.clone();
                async move {
                    client.chat(&request(&format!("app {n}"))).await.map(|reply| reply.text().to_owned())
                }
            });
        join_all(asked).await.into_iter().collect::<Result<Vec<_>, _>>()
    };
    let expected = ask(&clean).await.unwrap();
    // Three unusable answers in a row end a call: it is asked again, as a second run would.
    let mut got = ask(&faulty).await;
    for _ in 0..3 {
        if got.is_err() {
            got = ask(&faulty).await;
        }
    }
    assert_eq!(got.unwrap(), expected);
    assert!(faulty.meter().requests > 60);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_admission_ends_a_call() {
    let fake = fake(Faults::always(Fault::ResetMid));
    let admit = |in_doubt| -> futures::future::BoxFuture<'static, Result<(), ModelError>> {
        let (held, cap) = (Usd::ZERO, Usd::from_nanos(1_000_000_000));
        let broke = ModelError::Budget { spent: cap, held, next: cap, cap };
        Box::pin(std::future::ready(if in_doubt < 2 { Ok(()) } else { Err(broke) }))
    };
    let exchange = client(&fake, "openai").chat_with(&request("a"), &admit).await;
    assert!(matches!(exchange.result, Err(ModelError::Budget { .. })));
    assert_eq!((exchange.unknown, fake.meter().requests), (2, 2));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_paid_comes_in_after_a_cancel() {
    let fake = Fake::start(Options { latency: Duration::from_millis(200), ..Options::default() }).unwrap();
    let cancel = Cancel::new();
    let client = client(&fake, "openai").cancelled_by(cancel.clone());
    let other = client.clone();
    let call = tokio::spawn(async move { client.chat(&request("a")).await });
    while fake.meter().in_flight == 0 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    cancel.cancel();
    assert!(call.await.unwrap().is_ok());
    assert!(matches!(other.chat(&request("b")).await, Err(ModelError::Cancelled)));
    assert_eq!(fake.meter().requests, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn no_more_calls_are_under_way_than_are_allowed() {
    let fake = Fake::start(Options { latency: Duration::from_millis(20), ..Options::default() }).unwrap();
    let client = Client::new(Endpoint { most_in_flight: Some(3), ..endpoint(&fake, "openai") }).unwrap();
    let beside = Client::new(endpoint(&fake, "openai")).unwrap().beside(&client);
    let asked = (0..24).map(|n| {
        let client = if n % 2 == 0 { &client } else { &beside };
        async move { client.chat(&request(&n.to_string())).await }
    });
    assert!(join_all(asked).await.iter().all(Result::is_ok));
    assert_eq!((fake.meter().requests, fake.meter().most_in_flight), (24, 3));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_limited_provider_is_not_stormed() {
    let fake = Fake::start(Options { rate: Some(100.0), ..Options::default() }).unwrap();
    let client = client(&fake, "openai");
    let text = |n: u32| request(&n.to_string());
    let asked = (0..200).map(|n| {
        let (client, request) = (&client, text(n));
        async move { client.chat(&request).await }
    });
    let failed = join_all(asked).await.iter().filter(|result| result.is_err()).count();
    let meter = fake.meter();
    assert_eq!(failed, 0, "{} of {} were limited", meter.limited, meter.requests);
    assert!(meter.limited * 4 < meter.requests, "{} of {} were limited", meter.limited, meter.requests);
}

/// A provider that answered and then fails is down: nothing is sent but probes, and the run goes on when it is back.
#[tokio::test(flavor = "multi_thread")]
async fn a_provider_that_is_down_is_waited_for() {
    let fake = fake(Faults::none());
    let ms = Duration::from_millis;
    let outage = Outage { first: ms(150), longest: ms(150), patience: Duration::from_secs(60) };
    let (events, mut heard) = Events::channel();
    let client = Client::new(Endpoint { outage, ..endpoint(&fake, "openai") }).unwrap().telling(events);
    client.chat(&request("first")).await.unwrap();
    fake.set_faults(Faults::always(Fault::Status(503)));
    let calls: Vec<_> = (0..20)
        .map(|n| {
            let client = client.clone();
            tokio::spawn(async move { client.chat(&request(&format!("app {n}"))).await })
        })
        .collect();
    let warned = loop {
        match heard.recv().await.unwrap() {
            Event::Warning { text, .. } => break text,
            _ => continue,
        }
    };
    assert!(warned.contains("fake is down since") && warned.contains("503"), "{warned}");
    let at_opening = fake.meter().requests;
    let since = std::time::Instant::now();
    // Those that were under way may still come in; after that there are only probes.
    tokio::time::sleep(ms(500)).await;
    let asked = fake.meter().requests - at_opening;
    let probes = since.elapsed().as_millis() as u64 / 150 + 2;
    assert!(asked <= 8 + probes, "{asked} requests while it was down");
    fake.set_faults(Faults::none());
    for call in calls {
        assert!(call.await.unwrap().is_ok());
    }
    let mut notes = Vec::new();
    while let Ok(event) = heard.try_recv() {
        notes.push(event);
    }
    assert!(
        notes.iter().any(|event| matches!(event, Event::Note { text } if text.contains("answers again"))),
        "{notes:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_provider_that_stays_down_ends_the_run_with_a_hint() {
    let fake = fake(Faults::none());
    let ms = Duration::from_millis;
    let outage = Outage { first: ms(20), longest: ms(20), patience: ms(200) };
    let client = Client::new(Endpoint { outage, ..endpoint(&fake, "openai") }).unwrap();
    client.chat(&request("first")).await.unwrap();
    fake.set_faults(Faults::always(Fault::ResetReady));
    let error = client.chat(&request("second")).await.unwrap_err();
    assert!(matches!(&error, ModelError::Down { .. }), "{error}");
    assert!(error.hint().unwrap().contains("finished calls are kept"));
    assert_eq!(error.kind(), Kind::Provider);
}
