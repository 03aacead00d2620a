//! Models that come from elsewhere and go elsewhere: added while the server runs, trained, given out, taken in again.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
};

use hone::{
    error::{Explain, Kind},
    model::wire::{JobRequest, JobStatus},
};
use hone_engine::{
    hub,
    lora::{Adapter, LoraConfig},
    model::Model,
    tensors::Encoding,
};
use hone_server::{
    BaseModel, ExchangeError, Export, Exported, Form, ServerConfig, add_adapter, export, tuned_cards,
};

use crate::harness::{BASE, World, config, data, request};

const QWEN: &str = "qwen";

/// A folder as the hub stores it, with a tiny model of the other architecture.
fn qwen(parent: &Path) -> BaseModel {
    let path = parent.join("qwen");
    std::fs::create_dir_all(&path).unwrap();
    let model = Model::random_tiny_qwen2(3);
    hub::save(&model, &path, &hub::Export { encoding: Encoding::F32, texts: None }).unwrap();
    BaseModel { id: QWEN.into(), path }
}

struct Shelf {
    root: PathBuf,
    models: Vec<BaseModel>,
}

impl Shelf {
    fn export(&self, model: &str, form: Form, out: &Path) -> Result<Exported, ExchangeError> {
        let (root, models) = (&self.root, &self.models[..]);
        export(&Export { root, models, model, form, out, base_name: "some/base" })
    }
}

#[tokio::test]
async fn a_model_added_while_the_server_runs_is_served_trained_and_given_out() {
    let scratch = tempfile::tempdir().unwrap();
    let added = Arc::new(Mutex::new(Vec::new()));
    let seen = added.clone();
    let more = move || -> Vec<BaseModel> { seen.lock().unwrap().clone() };
    let world = World::with(|config| ServerConfig { more_models: Arc::new(more), ..config }).await;
    let ids = async || -> Vec<String> {
        world.client.models().await.unwrap().into_iter().map(|model| model.id).collect()
    };
    assert!(!ids().await.contains(&QWEN.to_owned()));
    added.lock().unwrap().push(qwen(scratch.path()));
    assert!(ids().await.contains(&QWEN.to_owned()));
    let before = world.ask(QWEN).await;

    let file = world.upload(&data(10)).await;
    let order = JobRequest { model: QWEN.into(), ..request(&file, 4) };
    let job = world.client.create_job(&order, "qwen").await.unwrap();
    let job = world.end(&job.id).await;
    assert_eq!(job.status, JobStatus::Succeeded, "{:?}", job.error);
    let tuned = job.fine_tuned_model.unwrap();
    assert!(tuned.starts_with("ft:qwen:local:"), "{tuned}");
    let after = world.ask(&tuned).await;
    assert_ne!(after, before);

    let mut models = config(world.folder.path()).models;
    models.extend(added.lock().unwrap().clone());
    let shelf = Shelf { root: world.folder.path().join("server"), models };
    let cards = tuned_cards(&shelf.root).unwrap();
    assert!(cards.iter().any(|card| card.id == tuned && card.base == QWEN && card.bytes > 1000));
    given_out(&shelf, &tuned, scratch.path());

    // Taken in again, it is the same model; twice is once.
    let adapter = scratch.path().join("adapter");
    let base = shelf.models.iter().find(|model| model.id == QWEN).unwrap();
    let again = add_adapter(&shelf.root, base, &adapter, "back").unwrap();
    assert_eq!(add_adapter(&shelf.root, base, &adapter, "back").unwrap(), again);
    assert_eq!(world.ask(&again).await, after);
}

/// Every form of a tuned model computes what the server computes.
fn given_out(shelf: &Shelf, tuned: &str, scratch: &Path) {
    let forms = [
        ("adapter", Form::Adapter),
        ("folder", Form::Safetensors(Encoding::F32)),
        ("gguf", Form::Gguf(Encoding::F32)),
        ("half", Form::Safetensors(Encoding::Bf16)),
        ("small", Form::Gguf(Encoding::Q8_0)),
    ];
    let written: Vec<Exported> =
        forms.iter().map(|(name, form)| shelf.export(tuned, *form, &scratch.join(name)).unwrap()).collect();
    assert!(written.iter().all(|written| written.bytes > 1000 && written.base == QWEN));
    let base = Model::load(&shelf.models.iter().find(|model| model.id == QWEN).unwrap().path).unwrap();
    let adapter = Adapter::load(&written[0].path, &base.weights.config).unwrap();
    let merged = hone_engine::lora::merge(&base.weights, &adapter);
    for (written, tolerance) in written[1..].iter().zip([1e-5, 1e-5, 1e-2, 1e-2]) {
        let loaded = Model::load(&written.path).unwrap();
        for (got, want) in loaded.weights.layers.iter().zip(&merged.layers) {
            let pairs =
                got.qkv.data.iter().zip(&want.qkv.data).chain(got.down.data.iter().zip(&want.down.data));
            pairs.for_each(|(a, b)| assert!((a - b).abs() < tolerance, "{a} {b}"));
            assert_eq!(got.qkv_bias.is_some(), want.qkv_bias.is_some());
        }
    }
    let settings = std::fs::read_to_string(written[0].path.join("adapter_config.json")).unwrap();
    assert!(settings.contains("\"some/base\""), "{settings}");
    let taken = shelf.export(tuned, Form::Adapter, &scratch.join("adapter")).unwrap_err();
    assert!(matches!(taken, ExchangeError::Taken(_)), "{taken}");
}

#[test]
fn what_cannot_be_given_out_or_taken_in_says_why() {
    let scratch = tempfile::tempdir().unwrap();
    let models = config(scratch.path()).models;
    let shelf = Shelf { root: scratch.path().join("server"), models };
    let check = |error: ExchangeError, words: &str, kind: Kind| {
        assert!(error.to_string().contains(words), "{error}");
        assert_eq!(error.kind(), kind, "{error}");
        assert!(error.hint().is_some(), "{error}");
    };
    let out = scratch.path().join("out");
    check(shelf.export(BASE, Form::Adapter, &out).unwrap_err(), "has no adapter", Kind::Input);
    check(shelf.export("ft:none", Form::Adapter, &out).unwrap_err(), "no model `ft:none`", Kind::Input);
    assert!(!out.exists());
    let whole = shelf.export(BASE, Form::Safetensors(Encoding::F16), &out).unwrap();
    assert_eq!(whole.path, out);
    Model::load(&out).unwrap();
    let names = std::fs::read_dir(scratch.path()).unwrap().map(|entry| entry.unwrap().file_name());
    assert!(names.into_iter().all(|name| !name.to_string_lossy().starts_with(".export-")));

    // An adapter of another shape of model.
    let base = qwen(scratch.path());
    let other = Model::random_tiny(1).weights.config.clone();
    let wider = hone_engine::weights::Config { hidden: 48, ..other };
    let folder = scratch.path().join("foreign");
    Adapter::new(&wider, &LoraConfig::default()).save(&folder, &wider, "x").unwrap();
    check(
        add_adapter(&shelf.root, &base, &folder, "x").unwrap_err(),
        "does not fit the base model",
        Kind::Input,
    );
    let nothing = scratch.path().join("nothing");
    check(add_adapter(&shelf.root, &base, &nothing, "x").unwrap_err(), "cannot access", Kind::Input);
    assert_eq!(tuned_cards(&shelf.root).unwrap(), []);
}
