//! `hone models`: what is added, listed, given out and taken out, and what is refused.

use hone_engine::{hub, model::Model, tensors::Encoding};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use wiremock::{Mock, MockServer, ResponseTemplate, matchers::path};

use crate::harness::{Ran, World};

/// A tiny model of the qwen2 family as a folder of the workspace.
fn qwen(world: &World, name: &str) -> String {
    let folder = world.path(name);
    std::fs::create_dir_all(&folder).unwrap();
    let export = hub::Export { encoding: Encoding::Bf16, texts: None };
    hub::save(&Model::random_tiny_qwen2(5), &folder, &export).unwrap();
    std::fs::write(folder.join("README.md"), "---\nlicense: mit\n---\n").unwrap();
    folder.to_str().unwrap().to_owned()
}

#[test]
fn a_folder_is_added_listed_used_given_out_and_taken_out() {
    let world = World::bare();
    let folder = qwen(&world, "Some_Qwen");
    let added = world.json(&["models", "add", &folder]);
    assert_eq!((&added["name"], &added["architecture"]), (&json!("some-qwen"), &json!("qwen2")));
    assert_eq!((&added["stored_as"], &added["licence"]), (&json!("BF16"), &json!("mit")));
    assert_eq!(added["sha256"].as_str().unwrap().len(), 64);
    world.ok(&["models", "add", &folder]);
    let listed = world.json(&["models"]);
    let find =
        |id: &str| listed["models"].as_array().unwrap().iter().find(|m| m["id"] == id).cloned().unwrap();
    let line = find("some-qwen");
    assert_eq!((&line["kind"], &line["licence"]), (&json!("base"), &json!("mit")));
    assert!(line["bytes"].as_u64().unwrap() > 10_000);
    assert_eq!(find("smollm2-135m-instruct")["kind"], "base");
    let served = listed["local"].as_array().unwrap();
    assert!(served.iter().any(|model| model["id"] == "some-qwen"), "{served:?}");
    let text = world.ok(&["models"]);
    assert!(text.contains("some-qwen") && text.contains("qwen2 BF16") && text.contains("mit"), "{text}");

    let out = world.path("out");
    let given = world.json(&[
        "models",
        "export",
        "some-qwen",
        "--format",
        "gguf",
        "--type",
        "q8_0",
        "--out",
        out.to_str().unwrap(),
    ]);
    let gguf = given["path"].as_str().unwrap().to_owned();
    assert_eq!(Model::card(gguf.as_ref()).unwrap().stored_as, "Q8_0");
    assert_eq!(world.json(&["models", "add", &gguf, "--name", "again"])["name"], "again");
    world.fails(
        &["models", "export", "some-qwen", "--format", "gguf", "--out", out.to_str().unwrap()],
        3,
        "not empty",
        "--out",
    );
    world.fails(
        &["models", "export", "some-qwen", "--format", "adapter", "--out", "x"],
        3,
        "no adapter",
        "--format safetensors",
    );
    world.fails(
        &["models", "export", "some-qwen", "--format", "safetensors", "--type", "q8_0", "--out", "x"],
        2,
        "not quantised",
        "--type",
    );
    world.fails(
        &["models", "export", "ft:x", "--format", "adapter", "--out", "x"],
        3,
        "no model",
        "hone models",
    );

    // The settings may train it: then it is what an untuned `ui-agent` means, and the shipped weights are not asked for.
    world.write("hone.toml", "[finetune]\nbase_model = \"some-qwen\"\n");
    assert_eq!(world.json(&["models"])["champion"], "some-qwen");
    assert_eq!(world.json(&["models", "remove", "again"])["removed"], "again");
    assert!(std::path::Path::new(&gguf).exists(), "what was here before stays");
    std::fs::remove_dir_all(&folder).unwrap();
    world.fails(&["generate", "a form"], 3, "is not at", "hone models remove some-qwen");
}

#[test]
fn an_adapter_becomes_a_tuned_model_over_its_base() {
    use hone_engine::lora::{Adapter, LoraConfig};
    let world = World::bare();
    let folder = qwen(&world, "base");
    let config = Model::shape(folder.as_ref()).unwrap();
    let adapter = world.path("Their_Adapter");
    Adapter::new(&config, &LoraConfig::default()).save(&adapter, &config, "owner/base").unwrap();
    let adapter = adapter.to_str().unwrap().to_owned();
    world.fails(&["models", "add", &adapter], 3, "`owner/base` of the adapter is not here", "--base");
    world.ok(&["models", "add", &folder]);
    let added = world.json(&["models", "add", &adapter]);
    let id = added["id"].as_str().unwrap();
    assert!(id.starts_with("ft:base:local:their-adapter:"), "{id}");
    let listed = world.json(&["models"]);
    let tuned = listed["models"].as_array().unwrap().iter().find(|model| model["id"] == id).unwrap().clone();
    assert_eq!((&tuned["kind"], &tuned["base"]), (&json!("tuned"), &json!("base")));
    let out = world.path("adapter-out");
    world.ok(&["models", "export", id, "--format", "adapter", "--out", out.to_str().unwrap()]);
    assert!(out.join("adapter_model.safetensors").exists());
}

#[test]
fn what_cannot_be_added_says_why() {
    let world = World::bare();
    let check = |source: &str, code: i32, message: &str, hint: &str| {
        world.fails(&["models", "add", source], code, message, hint);
    };
    let write = |name: &str, bytes: &[u8]| world.write(name, bytes).to_str().unwrap().to_owned();
    check("no/such/path", 3, "neither a path nor an id", "owner/name");
    check(&write("cut.gguf", b"GGUF\x03\0\0\0"), 3, "the file ends inside", "fetch the file again");
    check(&write("x.bin", b"pickle"), 3, "`x.bin` is a Python pickle", "safetensors");
    check(&write("notes.txt", b"hello"), 3, "not a GGUF file", ".gguf");
    let folder = qwen(&world, "good");
    let spoil = |name: &str, key: &str, value: Value| {
        let path = world.path("good").join(name);
        let mut json: Value = serde_json::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
        json[key] = value;
        std::fs::write(path, json.to_string()).unwrap();
    };
    world.fails(&["models", "add", &folder, "--name", "Not Plain"], 3, "cannot be the name", "small letters");
    world.fails(&["models", "add", &folder, "--name", "ui-agent"], 3, "means something else", "--name");
    spoil("tokenizer.json", "normalizer", json!({ "type": "Lowercase" }));
    check(&folder, 3, "the normaliser `Lowercase`", "tokeniser like those of");
    spoil("config.json", "architectures", json!(["MixtralForCausalLM"]));
    check(&folder, 3, "architecture `MixtralForCausalLM` is not supported", "llama or qwen2");
    std::fs::remove_file(world.path("good/model.safetensors")).unwrap();
    std::fs::write(world.path("good/pytorch_model.bin"), "x").unwrap();
    spoil("config.json", "architectures", json!(["Qwen2ForCausalLM"]));
    check(&folder, 3, "`pytorch_model.bin` is a Python pickle", "safetensors");
    world.fails(&["models", "remove", "nobody"], 3, "no model `nobody`", "hone models");
}

/// A hub with one GGUF in `owner/model`.
async fn hub(bytes: &[u8]) -> MockServer {
    let server = MockServer::start().await;
    let sum: String = Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    let lfs = json!({ "sha256": sum, "size": bytes.len() });
    let description = json!({
        "sha": "abc123", "cardData": { "license": "apache-2.0" },
        "siblings": [{ "rfilename": "Tiny.gguf", "size": bytes.len(), "lfs": lfs }],
    });
    Mock::given(path("/api/models/owner/model"))
        .respond_with(ResponseTemplate::new(200).set_body_json(description))
        .mount(&server)
        .await;
    Mock::given(path("/owner/model/resolve/abc123/Tiny.gguf"))
        .respond_with(ResponseTemplate::new(200).set_body_bytes(bytes))
        .mount(&server)
        .await;
    let gated = ResponseTemplate::new(403)
        .set_body_string("hf_canary may not")
        .insert_header("x-error-code", "GatedRepo");
    Mock::given(path("/api/models/owner/gated")).respond_with(gated).mount(&server).await;
    server
}

#[tokio::test(flavor = "multi_thread")]
async fn a_model_comes_from_the_hub_that_the_settings_or_the_environment_name() {
    let world = World::bare();
    let file = world.path("tiny.gguf");
    std::fs::create_dir_all(world.root()).unwrap();
    Model::random_tiny(9).save(&file).unwrap();
    let bytes = std::fs::read(&file).unwrap();
    let server = hub(&bytes).await;
    let run = |arguments: &[&str], endpoint: &str| {
        let mut command = world.command(arguments);
        command.env("HF_ENDPOINT", endpoint).env("HF_TOKEN", "hf_canary");
        Ran::from(command)
    };
    let ran = run(&["models", "add", "owner/model", "--name", "far", "--json"], &server.uri());
    assert_eq!(ran.code, 0, "{ran:?}");
    let added: Value = serde_json::from_str(&ran.stdout).unwrap();
    assert_eq!((&added["source"], &added["licence"]), (&json!("owner/model"), &json!("apache-2.0")));
    let sum: String = Sha256::digest(&bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(added["sha256"], json!(sum));
    run(&["models", "add", "owner/gone"], &server.uri()).failed(3, "no model `owner/gone`", "owner/name");
    let gated = run(&["models", "add", "owner/gated"], &server.uri());
    gated.failed(6, "only to those", "HF_TOKEN");
    assert!(!gated.stderr.contains("hf_canary"), "{}", gated.stderr);
    run(&["models", "add", "owner/model:no.gguf"], &server.uri()).failed(
        3,
        "`Tiny.gguf`",
        "owner/model:FILE",
    );
    let nobody = run(&["models", "add", "owner/model", "--name", "other"], "http://127.0.0.1:9");
    nobody.failed(6, "cannot reach the hub", "goes on where it stopped");
    // The settings' address wins over the variable.
    world.write("hone.toml", format!("[hub]\nurl = \"{}\"\n", server.uri()));
    let ran = run(&["models", "add", "owner/model:Tiny.gguf"], "http://127.0.0.1:9");
    assert_eq!(ran.code, 0, "{ran:?}");
    assert!(ran.stdout.contains("added `tiny`") && ran.stdout.contains("sha256"), "{}", ran.stdout);
}
