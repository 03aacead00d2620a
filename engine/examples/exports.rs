//! Writes a model with a random adapter in every form that other programs load, and what we say about it: for
//! `script/check-exports`, which asks those programs the same.
//!
//!     cargo run --release -p hone-engine --example exports -- MODEL OUT

use std::{error::Error, fs, path::Path};

use hone_engine::{
    chat::ChatMessage,
    gguf, hub,
    infer::{Decoder, Precision, Sequence, step},
    lora::{Adapter, LoraConfig, merge},
    model::Model,
    sample::argmax,
    tensors::Encoding,
    weights::Weights,
};
use serde::Serialize;

const GREEDY: usize = 32;

/// What a model says about the prompt.
#[derive(Serialize)]
struct Said {
    /// Logits after the prompt.
    logits: Vec<f32>,
    /// The most likely tokens from there.
    greedy: Vec<u32>,
}

#[derive(Serialize)]
struct Ours {
    prompt: Vec<u32>,
    text: String,
    text_ids: Vec<u32>,
    base: Said,
    tuned: Said,
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let (Some(model), Some(out)) = (arguments.next(), arguments.next()) else {
        return Err("give a model and a folder to write".into());
    };
    let (path, out) = (Path::new(&model), Path::new(&out));
    let base = Model::load(path)?;
    let adapter = random_adapter(&base.weights);
    let tuned = Model { weights: merge(&base.weights, &adapter).into(), ..base.clone() };
    let texts = path.is_dir().then_some(path);
    for (name, model) in [("base", &base), ("merged", &tuned)] {
        let folder = out.join(name);
        fs::create_dir_all(&folder)?;
        hub::save(model, &folder, &hub::Export { encoding: Encoding::F32, texts })?;
    }
    adapter.save(&out.join("adapter"), &base.weights.config, "base")?;
    gguf::save(&tuned, &out.join("merged-f16.gguf"), Encoding::F16)?;
    gguf::save(&tuned, &out.join("merged-q8_0.gguf"), Encoding::Q8_0)?;
    let messages = [ChatMessage::user("Make a form with a name and an e-mail address.")];
    let prompt = base.render(&messages, true)?;
    let text =
        "def total(rows):\n    return sum(r['n'] for r in rows)  # isn't 12345 enough?\n\n\n  Caf\u{e9}"
            .to_owned();
    let ours = Ours {
        base: said(&base.weights, &prompt),
        tuned: said(&tuned.weights, &prompt),
        text_ids: base.tokenizer.encode(&text),
        prompt,
        text,
    };
    fs::write(out.join("ours.json"), serde_json::to_string(&ours)?)?;
    Ok(())
}

/// Small but plain to see in every logit.
fn random_adapter(weights: &Weights) -> Adapter {
    let mut adapter =
        Adapter::new(&weights.config, &LoraConfig { rank: 4, alpha: 8.0, ..LoraConfig::default() });
    let mut state = 1_u32;
    for member in adapter.layers.iter_mut().flatten().flat_map(|group| &mut group.members) {
        for value in &mut member.b.data {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            *value = (state >> 8) as f32 / (1 << 24) as f32 * 0.02 - 0.01;
        }
    }
    adapter
}

fn said(weights: &Weights, prompt: &[u32]) -> Said {
    let decoder = Decoder::new(weights, Precision::F32);
    let mut sequence = Sequence::new(&decoder, prompt);
    let (mut logits, mut greedy) = (Vec::new(), Vec::new());
    while greedy.len() < GREEDY {
        let answer = step(&decoder, &mut [&mut sequence]);
        let row = answer.row(0).unwrap_or_default();
        if logits.is_empty() {
            logits = row.to_vec();
        }
        greedy.push(argmax(row));
        sequence.push(greedy[greedy.len() - 1]);
    }
    Said { logits, greedy }
}
