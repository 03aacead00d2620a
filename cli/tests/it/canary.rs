//! A key goes out in one header and turns up nowhere else: no file, no output, no log at any level, no command line, and in
//! the environment of no program but our own and those that it is passed to.

use std::{
    collections::{BTreeMap, BTreeSet},
    os::unix::{fs::MetadataExt as _, process::CommandExt as _},
    path::Path,
    process::{Command, Stdio},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use hone_fake::{Fake, Fault, Options};
use serde_json::json;
use wiremock::{Mock, MockServer, ResponseTemplate, matchers::any};

use crate::harness::{DATASET, Ran, World, cache, dataset};

const KEY: &str = "sk-canary/K3y+7Qx9Zr2Wv5Tn8Lm1Jp4Hs6Gd0Fb";
/// Another, which a program is passed and so has in its environment, while other tests look at environments.
const PASSED: &str = "sk-passed/8Wq+3Zt5Yb1Nc7Xv9Mk2Lj4Rg6Fd0Sa";
/// So many letters of a key in a row are no chance.
const TELLING: usize = 12;

/// Every way to see a part of a key.
fn traces(key: &str) -> Vec<String> {
    let [second, third] = ["u", "u:"].map(|before| STANDARD.encode(format!("{before}{key}")));
    let forms =
        [key.to_owned(), percent(key), STANDARD.encode(key), second, third, key.chars().rev().collect()];
    let parts = forms.iter().flat_map(|form| {
        let letters: Vec<char> = form.chars().collect();
        letters.windows(TELLING).map(|part| part.iter().collect::<String>()).collect::<Vec<_>>()
    });
    parts.collect()
}

fn percent(key: &str) -> String {
    key.replace('/', "%2F").replace('+', "%2B")
}

fn traces_in(bytes: &[u8], traces: &[String]) -> Option<String> {
    let text = String::from_utf8_lossy(bytes);
    traces.iter().find(|trace| text.contains(trace.as_str())).cloned()
}

/// All files below a folder, but for links and what other programs than ours may hold open.
fn files(folder: &Path, found: &mut Vec<std::path::PathBuf>) {
    let Ok(entries) = std::fs::read_dir(folder) else { return };
    for entry in entries.map(|entry| entry.unwrap()) {
        let kind = entry.file_type().unwrap();
        if kind.is_dir() {
            files(&entry.path(), found);
        } else if kind.is_file() {
            found.push(entry.path());
        }
    }
}

/// Command lines of processes of ours, and environments of those that others wrote, as long as it runs.
struct Watch {
    stop: Arc<AtomicBool>,
    seen: Arc<Mutex<BTreeMap<String, String>>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Watch {
    fn start(traces: Vec<String>) -> Self {
        let (stop, seen) = (Arc::new(AtomicBool::new(false)), Arc::new(Mutex::new(BTreeMap::new())));
        let (stopped, found) = (Arc::clone(&stop), Arc::clone(&seen));
        let me = std::fs::metadata("/proc/self").unwrap().uid();
        let thread = std::thread::spawn(move || {
            let mut looked_at = BTreeSet::new();
            while !stopped.load(Ordering::SeqCst) {
                for entry in std::fs::read_dir("/proc").unwrap().flatten() {
                    if !entry.metadata().is_ok_and(|meta| meta.uid() == me) {
                        continue;
                    }
                    let read = |name: &str| std::fs::read(entry.path().join(name)).unwrap_or_default();
                    let line = read("cmdline");
                    // Another program in the same process has another command line.
                    let process = (entry.file_name(), line.clone());
                    if looked_at.contains(&process) {
                        continue;
                    }
                    let handed = is_handed_the_key(&entry.path(), &line);
                    let environment = if handed { vec![] } else { read("environ") };
                    // One that became another program meanwhile is looked at again: whose environment was it?
                    let after = read("cmdline");
                    if after != line || is_handed_the_key(&entry.path(), &after) != handed {
                        continue;
                    }
                    looked_at.insert(process);
                    if let Some(trace) = traces_in(&[line.clone(), environment].concat(), &traces) {
                        found.lock().unwrap().insert(String::from_utf8_lossy(&line).into_owned(), trace);
                    }
                }
                std::thread::sleep(Duration::from_millis(5));
            }
        });
        Self { stop, seen, thread: Some(thread) }
    }

    fn end(mut self) -> BTreeMap<String, String> {
        self.stop.store(true, Ordering::SeqCst);
        self.thread.take().unwrap().join().unwrap();
        self.seen.lock().unwrap().clone()
    }
}

/// The command itself has the key in its environment; its trainer, the same program in another process, has not.
fn is_handed_the_key(process: &Path, line: &[u8]) -> bool {
    let ours =
        std::fs::read_link(process.join("exe")).is_ok_and(|exe| exe == Path::new(env!("CARGO_BIN_EXE_hone")));
    // Between fork and exec a child still looks like us.
    ours && !line.split(|byte| *byte == 0).any(|argument| argument == b"train-child")
}

struct Flow<'a> {
    world: &'a World,
    key: &'static str,
    traces: Vec<String>,
    said: Vec<(String, String)>,
}

impl<'a> Flow<'a> {
    fn new(world: &'a World, key: &'static str) -> Self {
        Self { world, key, traces: traces(key), said: Vec::new() }
    }

    /// Runs a command with trace logging and the key in its environment, and looks at what it prints.
    fn run(&mut self, arguments: &[&str], code: i32) {
        let mut command = self.world.command(arguments);
        let temporary = self.world.folder.path().join("tmp");
        std::fs::create_dir_all(&temporary).unwrap();
        command
            .env("CANARY_KEY", self.key)
            .env("HONE_LOG", "trace")
            .env("RUST_LOG", "trace")
            .env("TMPDIR", &temporary)
            .stdin(Stdio::null());
        let ran = Ran::from(command);
        assert_eq!(ran.code, code, "{arguments:?}: {}", tail(&ran.stderr));
        assert!(!ran.stderr.contains("panicked"), "{arguments:?}");
        for text in [&ran.stdout, &ran.stderr] {
            if let Some(trace) = traces_in(text.as_bytes(), &self.traces) {
                self.said.push((arguments.join(" "), trace));
            }
        }
    }
}

fn tail(text: &str) -> &str {
    &text[text.floor_char_boundary(text.len().saturating_sub(2000))..]
}

fn settings(fake: &Fake) -> String {
    let row = |name: &str, provider: &str, model: &str, more: &str| {
        format!(
            "[models.{name}]\nprovider = \"{provider}\"\nbase_url = \"{}\"\nmodel = \"{model}\"\napi_key_env = \"CANARY_KEY\"\n{more}\n",
            fake.url
        )
    };
    // An address with a password in it, and a header with the key.
    let hidden = fake.url.replace("http://", &format!("http://user:{}@", percent(KEY)));
    let mut rows = vec![
        row("plain", "openai-compatible", "m", "headers = { x-extra = \"env:CANARY_KEY\" }"),
        row("messages", "anthropic", "m", ""),
        row("azure", "azure", "m", "stream = true"),
        row("batched", "openai", "m", ""),
        row("plain", "openai-compatible", "m", "").replace("plain", "hidden").replace(&fake.url, &hidden),
    ];
    for fault in [Fault::BadKey, Fault::EchoKey, Fault::HtmlKey, Fault::ResetMid, Fault::Quota] {
        let name = Fault::names().find(|name| name.parse() == Ok(fault)).unwrap();
        rows.push(row(name, "openai-compatible", &format!("fault-{name}"), ""));
    }
    format!("[finetune]\nmodel = \"plain\"\n[batch]\nidle_s = 0.2\nlook_s = 0.02\n\n{}", rows.concat())
}

#[test]
fn a_key_is_in_no_file_and_no_output() {
    let fake = Fake::start(Options::default()).unwrap();
    let world = World::bare();
    world.write("hone.toml", settings(&fake));
    world.write(DATASET, dataset(12));
    let watch = Watch::start(traces(KEY));
    let mut flow = Flow::new(&world, KEY);

    for (row, code) in [
        ("plain", 0),
        ("messages", 0),
        ("azure", 0),
        ("hidden", 0),
        ("bad-key", 6),
        ("html-key", 6),
        ("quota", 6),
    ] {
        flow.run(&["models", "check", row], code);
        flow.run(&["models", "check", row, "--json"], code);
    }
    flow.run(&["models", "check", "reset-mid"], 6);
    flow.run(&["generate", "a contact form", "--agent", "plain", "--json"], 0);
    flow.run(&["generate", "a contact form", "--agent", "messages"], 0);
    flow.run(&["generate", "a contact form", "--agent", "bad-key"], 6);
    flow.run(&["generate", "a contact form", "--agent", "html-key"], 6);
    // The answer has no app in it; that it repeats the key is what matters.
    let mut echo = world.command(&["generate", "a contact form", "--agent", "echo-key"]);
    echo.env("CANARY_KEY", KEY).env("HONE_LOG", "trace");
    let echoed = Ran::from(echo);
    assert_eq!(traces_in(format!("{echoed:?}").as_bytes(), &flow.traces), None);
    flow.run(&["config"], 0);
    flow.run(&["config", "--json"], 0);
    flow.run(&["models"], 0);
    flow.run(&["models", "--json"], 0);
    flow.run(&["finetune", "--detach"], 0);
    flow.run(&["status", "--json"], 0);
    // Nothing of a runtime is here, so the doctor finds faults.
    flow.run(&["doctor"], 7);
    flow.run(&["doctor", "--json"], 7);
    flow.run(&["doctor", "--offline"], 7);
    flow.run(&["calls", "--json"], 0);
    let file = world.path("exported.jsonl");
    flow.run(&["calls", "export", file.to_str().unwrap()], 0);
    assert!(std::fs::metadata(file).unwrap().len() > 0);

    if let Some(cache) = cache("a_key_is_in_no_file_and_no_output") {
        evolve(&fake, cache, &mut flow.said);
    }
    assert_eq!(flow.said, [], "what was printed");
    assert_eq!(watch.end(), BTreeMap::new(), "command lines");
    assert_eq!(on_disk(&world), [""; 0], "files");
}

fn evolve(fake: &Fake, cache: std::path::PathBuf, said: &mut Vec<(String, String)>) {
    let world = World::with_runtime(cache);
    world.briefs(2, 1);
    world.write("hone.toml", settings(fake));
    let mut flow = Flow::new(&world, KEY);
    let evolve = ["evolve", "--static-only", "--drafts", "1", "--json", "--agent"];
    flow.run(&[&evolve[..], &["plain"]].concat(), 0);
    flow.run(&[&evolve[..], &["batched", "--teacher", "batched", "--batch"]].concat(), 0);
    assert!(fake.meter().batches > 0);
    flow.run(&["calls", "export", world.path("exported.jsonl").to_str().unwrap()], 0);
    said.append(&mut flow.said);
    assert_eq!(on_disk(&world), [""; 0], "files of an evolution");
}

/// Files with a trace of the key, the settings apart, in which the user put it.
fn on_disk(world: &World) -> Vec<String> {
    let mut found = Vec::new();
    files(world.folder.path(), &mut found);
    let traces = [KEY, PASSED].map(traces).concat();
    let with = found.into_iter().filter(|path| !path.ends_with("hone.toml"));
    with.filter(|path| traces_in(&std::fs::read(path).unwrap(), &traces).is_some())
        .map(|path| path.display().to_string())
        .collect()
}

/// Says all that it knows, in the spellings in which keys are repeated; `$1` says how it ends.
const LEAKS: &str = r#"#!/bin/sh
env
printf 'u:%s' "$CANARY_KEY" | base64 -w0
printf '%s' "$CANARY_KEY" | base64 -w0
printf '%s' "$CANARY_KEY" | sed 's,/,%2F,g; s,+,%2B,g'
case "$1" in
  # Half of the key is within what an error quotes.
  fails) { printf '%s' "$CANARY_KEY"; head -c 580 /dev/zero | tr '\0' x; } >&2; exit 3 ;;
  # Half of the key is within what is kept of a reply.
  long) head -c 1040000 /dev/zero | tr '\0' x; n=0
    while [ $n -lt 900 ]; do printf '%s' "$CANARY_KEY"; n=$((n + 1)); done ;;
esac
"#;

#[test]
fn what_a_program_says_of_its_keys_is_kept_nowhere() {
    let world = World::bare();
    world.write("leaks.sh", LEAKS);
    let row = |name: &str, how: &str, passed: &str| {
        format!(
            "[models.{name}]\nprovider = \"command\"\ncommand = [\"sh\", \"leaks.sh\", \"{how}\"]\npass_env = [{passed}]\n"
        )
    };
    let passed = "\"CANARY_KEY\"";
    let rows = [
        row("blind", "ends", ""),
        row("knows", "ends", passed),
        row("fails", "fails", passed),
        row("long", "long", passed),
    ];
    world.write("hone.toml", rows.concat());
    let mut flow = Flow::new(&world, KEY);
    let watch = Watch::start(traces(KEY));
    flow.run(&["generate", "a contact form", "--agent", "blind", "--json"], 0);
    // What it is not passed it does not have.
    assert_eq!(watch.end(), BTreeMap::new(), "environments");
    assert_eq!(flow.said, [], "what was printed");
    let mut flow = Flow::new(&world, PASSED);
    flow.run(&["generate", "a contact form", "--agent", "knows", "--json"], 0);
    flow.run(&["generate", "a contact form", "--agent", "knows"], 0);
    flow.run(&["generate", "a contact form", "--agent", "fails"], 3);
    flow.run(&["generate", "a contact form", "--agent", "long"], 0);
    flow.run(&["doctor"], 7);
    flow.run(&["calls", "export", world.path("exported.jsonl").to_str().unwrap()], 0);
    assert_eq!(flow.said, [], "what was printed");
    assert_eq!(on_disk(&world), [""; 0], "files");
    assert!(world.read("exported.jsonl").contains("[CANARY_KEY]"), "it was said");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_service_says_of_its_key_is_kept_nowhere() {
    let server = MockServer::start().await;
    let says = |request: &wiremock::Request| {
        let header = request.headers.get("authorization").map(|value| value.to_str().unwrap().to_owned());
        let key = header.unwrap_or_default().replace("Bearer ", "");
        assert_eq!(key, KEY);
        let text = format!(
            "{key} {} {} {}",
            STANDARD.encode(format!("u:{key}")),
            percent(&key),
            STANDARD.encode(&key)
        );
        match request.url.path() {
            "/refuses" => ResponseTemplate::new(401).set_body_json(json!({"error": {"message": text}})),
            "/page" => ResponseTemplate::new(200).set_body_string(format!("<html>{}{key}", "x".repeat(185))),
            "/cut" => ResponseTemplate::new(200).set_body_string(format!("{{\"reply\": \"{text}")),
            "/odd" => ResponseTemplate::new(200).set_body_string(format!("{text} is no JSON")),
            _ => ResponseTemplate::new(200).set_body_json(json!({ "reply": text })),
        }
    };
    Mock::given(any()).respond_with(says).mount(&server).await;
    let world = World::bare();
    let row = |name: &&str| {
        let url = format!("{}/{name}", server.uri());
        format!("[models.{name}]\nprovider = \"http\"\nbase_url = \"{url}\"\napi_key_env = \"CANARY_KEY\"\n")
    };
    world
        .write("hone.toml", ["answers", "refuses", "page", "cut", "odd"].iter().map(row).collect::<String>());
    let mut flow = Flow::new(&world, KEY);
    for (name, code) in [("answers", 0), ("refuses", 6), ("page", 6), ("cut", 6), ("odd", 6)] {
        flow.run(&["generate", "a contact form", "--agent", name, "--json"], code);
    }
    flow.run(&["calls", "export", world.path("exported.jsonl").to_str().unwrap()], 0);
    assert_eq!(flow.said, [], "what was printed");
    assert_eq!(on_disk(&world), [""; 0], "files");
    assert!(world.read("exported.jsonl").contains("[key]"), "it was said");
}

/// The trainer on this machine is a process of its own, with no reason to call anybody.
#[test]
fn the_trainer_is_handed_no_key() {
    let world = World::bare();
    world.write(DATASET, dataset(12));
    world.write(
        "hone.toml",
        "[models.far]\nprovider = \"openai\"\nmodel = \"m\"\napi_key_env = \"CANARY_KEY\"\n",
    );
    let mut flow = Flow::new(&world, KEY);
    let watch = Watch::start(traces(KEY));
    flow.run(&["finetune", "--n-epochs", "1", "--json"], 0);
    assert_eq!(watch.end(), BTreeMap::new(), "command lines and environments");
    assert_eq!(flow.said, [], "what was printed");
    assert_eq!(on_disk(&world), [""; 0], "files");
}

/// The tests above can fail.
#[test]
fn traces_are_seen() {
    const OTHER: &str = "another/secret+0123456789abcdefghij";
    let traces = traces(OTHER);
    let seen = |text: &str| traces_in(text.as_bytes(), &traces).is_some();
    assert!(seen(&format!("a {OTHER} b")) && seen(&OTHER[5..20]) && seen(&STANDARD.encode(OTHER)));
    assert!(!seen(&OTHER[..8]) && !seen(KEY));
    let watch = Watch::start(traces.clone());
    let mut shown = Command::new("sleep").arg("60").arg0(OTHER).spawn().unwrap();
    while watch.seen.lock().unwrap().is_empty() {
        std::thread::sleep(Duration::from_millis(5));
    }
    shown.kill().unwrap();
    shown.wait().unwrap();
    assert_eq!(watch.end().len(), 1);
    let watch = Watch::start(traces);
    let mut handed = Command::new("sleep").arg("61").env("OTHER", OTHER).spawn().unwrap();
    while watch.seen.lock().unwrap().is_empty() {
        std::thread::sleep(Duration::from_millis(5));
    }
    handed.kill().unwrap();
    handed.wait().unwrap();
    assert!(watch.end().keys().all(|line| line.contains("sleep")));
}
