//! Model folders that transformers wrote, against what transformers says about them. The script lies beside the folders.

use std::path::{Path, PathBuf};

use hone_engine::{
    chat::ChatMessage,
    hub::{Export, save},
    infer::{Decoder, Precision, Sequence, step},
    model::Model,
    sample::argmax,
    tensors::Encoding,
};
use serde::Deserialize;

#[derive(Deserialize)]
struct Expected {
    models: std::collections::BTreeMap<String, Said>,
}

#[derive(Deserialize)]
struct Said {
    texts: Vec<Text>,
    chat: Vec<u32>,
    prompt: Vec<u32>,
    argmax: Vec<u32>,
    last: Vec<f32>,
}

#[derive(Deserialize)]
struct Text {
    text: String,
    ids: Vec<u32>,
}

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/hub").join(name)
}

fn each(check: impl Fn(&Path, &Model, &Said)) {
    let expected: Expected = serde_json::from_str(include_str!("../fixtures/hub/expected.json")).unwrap();
    assert_eq!(expected.models.len(), 2);
    for (name, said) in &expected.models {
        let folder = folder(name);
        let model = Model::load(&folder).unwrap_or_else(|error| panic!("{name}: {error}"));
        check(&folder, &model, said);
    }
}

fn check_logits(model: &Model, said: &Said, tolerance: f32) {
    check_decoder(&Decoder::new(&model.weights, Precision::F32), said, tolerance);
}

fn check_decoder(decoder: &Decoder, said: &Said, tolerance: f32) {
    let mut sequence = Sequence::new(decoder, &[]);
    let mut last = Vec::new();
    for (at, &id) in said.prompt.iter().enumerate() {
        sequence.push(id);
        last = step(decoder, &mut [&mut sequence]).row(0).unwrap().to_vec();
        if tolerance < 1e-3 {
            assert_eq!(argmax(&last), said.argmax[at], "position {at}");
        }
    }
    assert_eq!(last.len(), said.last.len());
    for (got, want) in last.iter().zip(&said.last) {
        assert!((got - want).abs() < tolerance, "{got} {want}");
    }
}

#[test]
fn logits_are_those_of_transformers() {
    each(|folder, model, said| {
        check_logits(model, said, 2e-4);
        let opened = Model::open(folder, Precision::F32).unwrap();
        check_decoder(&opened.weights, said, 2e-4);
        let fast = Model::open(folder, Precision::Fast).unwrap();
        check_decoder(&fast.weights, said, 0.2);
    });
}

#[test]
fn token_ids_are_those_of_transformers() {
    each(|_, model, said| {
        for Text { text, ids } in &said.texts {
            assert_eq!(&model.tokenizer.encode(text), ids, "{text:?}");
        }
    });
}

#[test]
fn conversations_are_those_of_transformers() {
    let messages = [
        ChatMessage::user("A form, please"),
        ChatMessage::assistant("st.form(\"f\")"),
        ChatMessage::user("And a total of 12345?"),
    ];
    each(|_, model, said| {
        assert_eq!(model.render(&messages, true).unwrap(), said.chat);
        let end = *said.chat.iter().rfind(|id| model.tokenizer.is_end(**id)).unwrap();
        assert_eq!(model.tokenizer.bytes(end), b"");
    });
}

#[test]
fn what_is_exported_says_the_same() {
    each(|folder, model, said| {
        let out = tempfile::tempdir().unwrap();
        let gguf = out.path().join("m.gguf");
        model.save(&gguf).unwrap();
        let loaded = Model::load(&gguf).unwrap();
        check_logits(&loaded, said, 2e-4);
        for Text { text, ids } in &said.texts {
            assert_eq!(&loaded.tokenizer.encode(text), ids, "{text:?}");
        }
        // The texts copied, and the texts written anew from the GGUF.
        for (model, texts, encoding, tolerance) in
            [(model, Some(folder), Encoding::F32, 2e-4), (&loaded, None, Encoding::F16, 0.03)]
        {
            let out = tempfile::tempdir().unwrap();
            save(model, out.path(), &Export { encoding, texts }).unwrap();
            let again = Model::load(out.path()).unwrap();
            check_logits(&again, said, tolerance);
            for Text { text, ids } in &said.texts {
                assert_eq!(&again.tokenizer.encode(text), ids, "{text:?}");
            }
        }
    });
}

#[test]
fn cards_tell_what_the_heads_say() {
    each(|folder, model, _| {
        let card = Model::card(folder).unwrap();
        let (name, stored) = if model.weights.head.is_some() { ("qwen2", "F32") } else { ("llama", "BF16") };
        assert_eq!((card.architecture, card.stored_as), (name, stored));
        assert_eq!(card.name, folder.file_name().unwrap().to_str().unwrap());
        assert_eq!(model.sha256, Model::checksum(folder).unwrap());
    });
}
