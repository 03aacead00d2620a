//! OpenAI's own SDK as the judge, when a Python that has it is named: see `tests/sdk/README.md`.

use crate::harness::{BASE, World};

async fn run(script: &str) {
    let Some(python) = std::env::var_os("HONE_SDK_PYTHON") else { return };
    let world = World::new().await;
    let script = format!("{}/tests/sdk/{script}", env!("CARGO_MANIFEST_DIR"));
    let mut command = tokio::process::Command::new(python);
    let status = command.arg(script).arg(&world.server.base_url).arg(BASE).status().await.unwrap();
    assert!(status.success());
}

#[tokio::test]
async fn the_official_sdk_finds_nothing_wrong() {
    run("conformance.py").await;
}

#[tokio::test]
async fn nor_with_chats_and_responses() {
    run("inference.py").await;
}
