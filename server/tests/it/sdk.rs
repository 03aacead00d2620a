//! Official clients as the judge, each against a server process of its own: see `tests/sdk/README.md`.

use std::path::{Path, PathBuf};

use std::sync::Arc;

use hone::registry::{Current, Deployment, Registry};
use hone_server::ServerConfig;

use crate::harness::{BASE, Process, Settings, World};

const KEY: &str = "sk-guarded";

/// The folder with the installed clients, or a loud skip.
fn clients(test: &str) -> Option<PathBuf> {
    match std::env::var_os("HONE_TEST_SDK") {
        Some(folder) => Some(folder.into()),
        None => {
            assert!(std::env::var_os("HONE_TEST_REQUIRE").is_none(), "HONE_TEST_SDK is not set");
            eprintln!("SKIPPED {test}: set HONE_TEST_SDK to the folder that `script/clients` prints");
            None
        }
    }
}

fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/sdk").join(name)
}

/// Runs a session and expects it to find nothing wrong.
async fn session(program: PathBuf, arguments: &[String]) {
    let mut command = tokio::process::Command::new(&program);
    // Not the settings of whoever runs the tests, and no compiled files beside the sources.
    command.args(arguments).env_remove("OPENAI_BASE_URL").env("NO_PROXY", "127.0.0.1");
    command.env("PYTHONDONTWRITEBYTECODE", "1");
    let output = command.output().await.unwrap_or_else(|e| panic!("{}: {e}", program.display()));
    let said = String::from_utf8_lossy(&output.stdout);
    println!("{said}");
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}\n{complaint}");
}

async fn python_sdk(test: &str, version: &str, strict: bool) {
    let Some(clients) = clients(test) else { return };
    let world = World::spawn(Settings::default()).await;
    let guarded = tempfile::tempdir().unwrap();
    // Room for one answer and one that waits.
    let tight =
        Settings { api_key: Some(KEY.into()), max_queue: Some(2), max_batch: Some(1), ..Settings::default() };
    let tight = Process::start(guarded.path(), &tight).await;
    let pid = world.server.id().to_string();
    let script = script("python/conformance.py");
    let mut arguments = vec![script.to_str().unwrap(), &world.server.base_url, BASE, "--pid", &pid];
    arguments.extend(["--guarded", &tight.base_url, KEY]);
    arguments.extend(strict.then_some("--strict"));
    let arguments: Vec<String> = arguments.into_iter().map(Into::into).collect();
    session(clients.join(version).join("bin/python"), &arguments).await;
}

#[tokio::test]
async fn openai_3_54_strict() {
    python_sdk("openai_3_54_strict", "openai-3.54.0", true).await;
}

#[tokio::test]
async fn openai_3_54() {
    python_sdk("openai_3_54", "openai-3.54.0", false).await;
}

#[tokio::test]
async fn openai_2_54_strict() {
    python_sdk("openai_2_54_strict", "openai-2.54.0", true).await;
}

#[tokio::test]
async fn openai_2_54() {
    python_sdk("openai_2_54", "openai-2.54.0", false).await;
}

#[tokio::test]
async fn openai_command_line() {
    let Some(clients) = clients("openai_command_line") else { return };
    let world = World::spawn(Settings::default()).await;
    let script = script("python/command_line.py").to_str().unwrap().to_owned();
    let arguments = [script, world.server.base_url.clone(), BASE.into()];
    session(clients.join("openai-2.33.0/bin/python"), &arguments).await;
}

#[tokio::test]
async fn openai_node() {
    let Some(clients) = clients("openai_node") else { return };
    let world = World::spawn(Settings::default()).await;
    // Modules are looked for beside the script, wherever it is run from.
    let beside = clients.join("node/conformance.mjs");
    std::fs::copy(script("node/conformance.mjs"), &beside).unwrap();
    let arguments = [beside.to_str().unwrap().to_owned(), world.server.base_url.clone(), BASE.into()];
    session(clients.join("node/node_modules/.bin/node"), &arguments).await;
}

/// The program in a language that docs/deploy.md shows.
fn documented(language: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/deploy.md");
    let text = std::fs::read_to_string(path).unwrap();
    let (_, rest) = text.split_once(&format!("```{language}\n")).expect("the document has the program");
    rest.split_once("```").unwrap().0.to_owned()
}

/// Runs an application; the model that it was answered by.
async fn application(program: &Path, script: &Path, base_url: &str) -> String {
    let mut command = tokio::process::Command::new(program);
    command.arg(script).env("OPENAI_BASE_URL", base_url).env("OPENAI_API_KEY", "sk-any");
    command.env("NO_PROXY", "127.0.0.1").env("PYTHONDONTWRITEBYTECODE", "1");
    let output = command.output().await.unwrap_or_else(|e| panic!("{}: {e}", program.display()));
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let said = String::from_utf8(output.stdout).unwrap();
    said.lines().next().unwrap_or_default().to_owned()
}

#[tokio::test]
async fn an_application_changes_nothing_when_a_model_is_deployed() {
    let Some(clients) = clients("an_application_changes_nothing_when_a_model_is_deployed") else { return };
    let folder = tempfile::tempdir().unwrap();
    let registry = folder.path().join("registry.jsonl");
    let current = Current::new(registry.clone());
    let world =
        World::with(|config| ServerConfig { route: Arc::new(move || current.office()), ..config }).await;
    let job = world.job(10, 1).await;
    let tuned = world.end(&job.id).await.fine_tuned_model.unwrap();
    let python = folder.path().join("app.py");
    std::fs::write(&python, documented("python")).unwrap();
    // Modules are looked for beside the script.
    let typescript = clients.join("node/documented.mts");
    std::fs::write(&typescript, documented("typescript")).unwrap();
    let programs = [
        (clients.join("openai-3.54.0/bin/python"), python),
        (clients.join("node/node_modules/.bin/node"), typescript),
    ];
    let mut registry = Registry::open(&registry).unwrap();
    let check = async |expected: &str| {
        for (program, script) in &programs {
            assert_eq!(application(program, script, &world.server.base_url).await, expected, "{script:?}");
        }
    };
    check(BASE).await;
    let deployment = Deployment { model: Some(tuned.clone()), force: true, ..Deployment::default() };
    registry.deploy(deployment, jiff::Timestamp::now()).unwrap();
    check(&tuned).await;
    registry.rollback("", jiff::Timestamp::now()).unwrap();
    check(BASE).await;
}
