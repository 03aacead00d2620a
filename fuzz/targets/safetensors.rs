//! A folder of safetensors as the hub stores it, and an adapter as PEFT does; the first byte says which file is hostile.
#![no_main]

use std::{
    path::{Path, PathBuf},
    sync::LazyLock,
};

use hone_engine::{
    hub,
    lora::{Adapter, AdapterCard, LoraConfig},
    model::Model,
    tensors::Encoding,
    weights::Config,
};
use hone_fuzz::{narrow, scratch, write};
use libfuzzer_sys::fuzz_target;

const WEIGHTS: &str = "model.safetensors";
const FILES: [&str; 6] = [
    WEIGHTS,
    "model.safetensors.index.json",
    "config.json",
    "tokenizer.json",
    "adapter_model.safetensors",
    "adapter_config.json",
];

struct Good {
    model: PathBuf,
    adapter: PathBuf,
    config: Config,
}

/// A good folder of each kind.
static GOOD: LazyLock<Good> = LazyLock::new(|| {
    let (model, adapter) = (scratch().join("model"), scratch().join("adapter"));
    std::fs::create_dir_all(&model).expect("a scratch folder");
    let tiny = narrow(Model::random_tiny(1), 8);
    hub::save(&tiny, &model, &hub::Export { encoding: Encoding::Bf16, texts: None }).expect("a good folder");
    let config = tiny.weights.config.clone();
    let some = Adapter::new(&config, &LoraConfig::default());
    some.save(&adapter, &config, "tiny").expect("a good adapter");
    Good { model, adapter, config }
});

/// Puts `data` in the place of a file while `look` is at it.
fn with(path: &Path, data: &[u8], look: impl FnOnce()) {
    let kept = std::fs::read(path).ok();
    write(path, data);
    look();
    match kept {
        Some(kept) => write(path, &kept),
        None => std::fs::remove_file(path).expect("a scratch file"),
    }
}

fn look_at_model(folder: &Path) {
    let _ = Model::card(folder);
    let _ = Model::texts(folder);
    if Model::check(folder).is_ok() {
        let _ = Model::load(folder);
    }
}

fuzz_target!(|data: &[u8]| {
    let Some((first, data)) = data.split_first() else { return };
    let name = FILES[usize::from(*first) % FILES.len()];
    let Good { model, adapter, config } = &*GOOD;
    match name {
        "adapter_model.safetensors" | "adapter_config.json" => with(&adapter.join(name), data, || {
            let _ = AdapterCard::read(adapter);
            let _ = Adapter::load(adapter, config);
        }),
        // An index only counts where there is no single file.
        "model.safetensors.index.json" => {
            let away = scratch().join("away");
            std::fs::rename(model.join(WEIGHTS), &away).expect("a scratch file");
            with(&model.join(name), data, || look_at_model(model));
            std::fs::rename(&away, model.join(WEIGHTS)).expect("a scratch file");
        }
        _ => with(&model.join(name), data, || look_at_model(model)),
    }
});
