//! A key goes out in one header and turns up nowhere else: no file, no output, no log at any level, no command line.

use std::{
    collections::BTreeMap,
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

use crate::harness::{DATASET, Ran, World, cache, dataset};

const KEY: &str = "sk-canary/K3y+7Qx9Zr2Wv5Tn8Lm1Jp4Hs6Gd0Fb";
/// So many letters of a key in a row are no chance.
const TELLING: usize = 12;

/// Every way to see a part of a key.
fn traces(key: &str) -> Vec<String> {
    let forms = [key.to_owned(), percent(key), STANDARD.encode(key), key.chars().rev().collect()];
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

/// Command lines of processes of ours, as long as it runs.
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
            while !stopped.load(Ordering::SeqCst) {
                for entry in std::fs::read_dir("/proc").unwrap().flatten() {
                    let is_ours = entry.metadata().is_ok_and(|meta| meta.uid() == me);
                    let Ok(line) = std::fs::read(entry.path().join("cmdline")) else { continue };
                    if let Some(trace) = traces_in(&line, &traces).filter(|_| is_ours) {
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

struct Flow<'a> {
    world: &'a World,
    traces: Vec<String>,
    said: Vec<(String, String)>,
}

impl Flow<'_> {
    /// Runs a command with trace logging and the key in its environment, and looks at what it prints.
    fn run(&mut self, arguments: &[&str], code: i32) {
        let mut command = self.world.command(arguments);
        let temporary = self.world.folder.path().join("tmp");
        std::fs::create_dir_all(&temporary).unwrap();
        command
            .env("CANARY_KEY", KEY)
            .env("HONE_LOG", "trace")
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
        row("plain", "openai-compatible", "m", "").replace("plain", "hidden").replace(&fake.url, &hidden),
    ];
    for fault in [Fault::BadKey, Fault::EchoKey, Fault::HtmlKey, Fault::ResetMid, Fault::Quota] {
        let name = Fault::names().find(|name| name.parse() == Ok(fault)).unwrap();
        rows.push(row(name, "openai-compatible", &format!("fault-{name}"), ""));
    }
    format!("[finetune]\nmodel = \"plain\"\n\n{}", rows.concat())
}

#[test]
fn a_key_is_in_no_file_and_no_output() {
    let fake = Fake::start(Options::default()).unwrap();
    let world = World::bare();
    world.write("hone.toml", settings(&fake));
    world.write(DATASET, dataset(12));
    let traces = traces(KEY);
    let watch = Watch::start(traces.clone());
    let mut flow = Flow { world: &world, traces, said: Vec::new() };

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
    let mut flow = Flow { world: &world, traces: traces(KEY), said: Vec::new() };
    flow.run(&["evolve", "--static-only", "--agent", "plain", "--drafts", "1", "--json"], 0);
    said.append(&mut flow.said);
    assert_eq!(on_disk(&world), [""; 0], "files of an evolution");
}

/// Files with a trace of the key, the settings apart, in which the user put it.
fn on_disk(world: &World) -> Vec<String> {
    let mut found = Vec::new();
    files(world.folder.path(), &mut found);
    let traces = traces(KEY);
    let with = found.into_iter().filter(|path| !path.ends_with("hone.toml"));
    with.filter(|path| traces_in(&std::fs::read(path).unwrap(), &traces).is_some())
        .map(|path| path.display().to_string())
        .collect()
}

/// The test above can fail.
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
}
