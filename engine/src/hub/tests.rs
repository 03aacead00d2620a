use std::fs;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::{
    infer::{Decoder, Precision, Sequence, step},
    model::Model,
    tensors::Encoding,
    weights::RopeLayout,
};

const F32: Export = Export { encoding: Encoding::F32, texts: None };

/// A folder with a tiny model of each architecture.
fn folder(model: &Model) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    save(model, folder.path(), &F32).unwrap();
    folder
}

fn edit(folder: &Path, name: &str, change: impl FnOnce(&mut Value)) {
    let path = folder.join(name);
    let mut value: Value = serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
    change(&mut value);
    fs::write(path, value.to_string()).unwrap();
}

fn error(folder: &Path) -> String {
    Model::load(folder).unwrap_err().to_string()
}

fn logits(model: &Model) -> Vec<f32> {
    let ids = model.tokenizer.encode("rotate the vectors, please");
    let decoder = Decoder::new(&model.weights, Precision::F32);
    let mut sequence = Sequence::new(&decoder, &ids);
    step(&decoder, &mut [&mut sequence]).row(0).unwrap().to_vec()
}

#[test]
fn a_model_survives_the_folder() {
    for model in [Model::random_tiny(4), Model::random_tiny_qwen2(4)] {
        let folder = folder(&model);
        let loaded = Model::load(folder.path()).unwrap();
        assert_eq!(loaded.weights.config.rope, RopeLayout::Halves);
        for (a, b) in logits(&loaded).iter().zip(logits(&model)) {
            assert!((a - b).abs() < 1e-4, "{a} {b}");
        }
        assert_eq!(loaded.tokenizer.vocabulary(), &with_end(&model));
        assert_eq!(loaded.template.source(), model.template.source());
        assert_eq!(loaded.weights.head.is_some(), model.weights.head.is_some());
        // And to a folder again, with the same texts.
        let second = tempfile::tempdir().unwrap();
        save(&loaded, second.path(), &Export { texts: Some(folder.path()), ..F32 }).unwrap();
        let again = Model::load(second.path()).unwrap();
        assert_eq!((&again.sha256, logits(&again)), (&loaded.sha256, logits(&loaded)));
    }
}

/// What a folder says twice: the end token stands in two files.
fn with_end(model: &Model) -> crate::tokenizer::Vocabulary {
    let vocabulary = model.tokenizer.vocabulary().clone();
    crate::tokenizer::Vocabulary { more_ends: vocabulary.eos.into_iter().collect(), ..vocabulary }
}

#[test]
fn a_folder_becomes_a_gguf_and_back() {
    for model in [Model::random_tiny(4), Model::random_tiny_qwen2(4)] {
        let folder = folder(&model);
        let path = folder.path().join("m.gguf");
        Model::load(folder.path()).unwrap().save(&path).unwrap();
        let loaded = Model::load(&path).unwrap();
        for (a, b) in logits(&loaded).iter().zip(logits(&model)) {
            assert!((a - b).abs() < 1e-4, "{a} {b}");
        }
        let ids = |model: &Model| model.tokenizer.encode("So 123 it is, isn't it?\n\n  yes");
        assert_eq!(ids(&loaded), ids(&model));
    }
}

#[test]
fn half_precision_is_read_and_told() {
    let model = Model::random_tiny_qwen2(4);
    for (encoding, name) in [(Encoding::F16, "F16"), (Encoding::Bf16, "BF16")] {
        let folder = tempfile::tempdir().unwrap();
        save(&model, folder.path(), &Export { encoding, texts: None }).unwrap();
        let card = Model::card(folder.path()).unwrap();
        assert_eq!((card.stored_as, card.architecture), (name, "qwen2"));
        assert!(card.parameters > 20_000 && card.bytes == 2 * card.parameters);
        for (a, b) in logits(&Model::load(folder.path()).unwrap()).iter().zip(logits(&model)) {
            assert!((a - b).abs() < 0.1, "{a} {b}");
        }
    }
    let refused = save(&model, Path::new("/"), &Export { encoding: Encoding::Q8_0, texts: None });
    assert!(refused.unwrap_err().to_string().contains("not quantised"));
}

/// Splits the one file of a folder into two with an index.
fn shard(folder: &Path) {
    let bytes = fs::read(folder.join("model.safetensors")).unwrap();
    let tensors = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let mut map = serde_json::Map::new();
    for (at, name) in
        ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"].iter().enumerate()
    {
        let part: Vec<_> =
            tensors.iter().enumerate().filter(|(i, _)| i % 2 == at).map(|(_, pair)| pair).collect();
        map.extend(part.iter().map(|(tensor, _)| ((*tensor).to_owned(), json!(name))));
        safetensors::serialize_to_file(part, None, &folder.join(name)).unwrap();
    }
    fs::write(folder.join("model.safetensors.index.json"), json!({ "weight_map": map }).to_string()).unwrap();
    fs::remove_file(folder.join("model.safetensors")).unwrap();
}

#[test]
fn weights_in_several_files_are_put_together() {
    let model = Model::random_tiny(4);
    let folder = folder(&model);
    shard(folder.path());
    for (a, b) in logits(&Model::load(folder.path()).unwrap()).iter().zip(logits(&model)) {
        assert!((a - b).abs() < 1e-4, "{a} {b}");
    }
    let index = "model.safetensors.index.json";
    let first = "model-00001-of-00002.safetensors";
    edit(folder.path(), index, |i| i["weight_map"]["model.norm.weight"] = json!("../../etc/passwd"));
    assert_eq!(
        error(folder.path()),
        "the index names `../../etc/passwd`, which is not a safetensors file of the folder"
    );
    for name in ["/etc/x.safetensors", "a/b.safetensors", "..", "", "config.json"] {
        edit(folder.path(), index, |i| i["weight_map"]["model.norm.weight"] = json!(name));
        assert!(error(folder.path()).contains("not a safetensors file of the folder"), "{name}");
    }
    edit(folder.path(), index, |i| i["weight_map"]["model.norm.weight"] = json!("pytorch_model-1.bin"));
    assert!(error(folder.path()).contains("`pytorch_model-1.bin` is a Python pickle"));
    edit(folder.path(), index, |i| i["weight_map"]["model.norm.weight"] = json!("gone.safetensors"));
    assert!(error(folder.path()).contains("gone.safetensors"), "{}", error(folder.path()));
    let folder = self::folder(&model);
    shard(folder.path());
    fs::remove_file(folder.path().join("model-00002-of-00002.safetensors")).unwrap();
    edit(folder.path(), index, |i| {
        i["weight_map"].as_object_mut().unwrap().retain(|_, file| file.as_str() == Some(first));
    });
    assert!(error(folder.path()).contains("is missing"), "{}", error(folder.path()));
}

#[test]
fn errors_name_the_cause() {
    let model = Model::random_tiny(1);
    let check = |change: fn(&mut Value), expected: &str| {
        let folder = folder(&model);
        edit(folder.path(), CONFIG, change);
        let message = error(folder.path());
        assert!(message.contains(expected), "{message}");
    };
    check(
        |c| c["architectures"] = json!(["GPT2LMHeadModel"]),
        "architecture `GPT2LMHeadModel` is not supported",
    );
    check(|c| c["num_hidden_layers"] = json!(3), "tensor `model.layers.2.input_layernorm.weight` is missing");
    check(|c| c["num_hidden_layers"] = json!(1), "has no place in a decoder");
    check(|c| c["hidden_size"] = json!(1_u64 << 40), "`hidden_size` in `config.json` is 1099511627776");
    check(|c| c["hidden_size"] = json!(-1), "`config.json` cannot be understood");
    check(|c| c["num_key_value_heads"] = json!(3), "an impossible shape");
    check(|c| c["num_attention_heads"] = json!(0), "`num_attention_heads` in `config.json` is 0");
    check(|c| c["rms_norm_eps"] = json!(-1.0), "not a positive number");
    check(|c| c["rope_theta"] = json!(1e300), "`rope_theta` in `config.json`");
    check(|c| c["rope_scaling"] = json!({ "type": "yarn" }), "rope scaling `yarn`, which is not supported");
    check(|c| c["hidden_act"] = json!("gelu"), "the activation `gelu`");
    check(|c| c["attention_bias"] = json!(true), "biases on every attention matrix");
    check(|c| c["quantization_config"] = json!({ "bits": 4 }), "quantised safetensors");
    check(|c| c["tie_word_embeddings"] = json!(false), "tensor `lm_head.weight` is missing");
    check(|c| c["vocab_size"] = json!(260), "has shape [32, 259], expected [32, 260]");
}

#[test]
fn what_is_missing_or_pickled_is_named_with_a_way_out() {
    let folder = folder(&Model::random_tiny(1));
    fs::rename(folder.path().join("model.safetensors"), folder.path().join("pytorch_model.bin")).unwrap();
    let pickled = Model::load(folder.path()).unwrap_err();
    assert_eq!(
        pickled.to_string(),
        "`pytorch_model.bin` is a Python pickle, which can run code when it is read"
    );
    assert!(pickled.hint().unwrap().contains("safetensors"));
    let alone = Model::load(&folder.path().join("pytorch_model.bin")).unwrap_err();
    assert!(matches!(alone, LoadError::Pickle(_)), "{alone}");
    fs::remove_file(folder.path().join("pytorch_model.bin")).unwrap();
    assert!(error(folder.path()).starts_with("the folder has no weights"));
    fs::remove_file(folder.path().join(CONFIG)).unwrap();
    let bare = Model::load(folder.path()).unwrap_err();
    assert!(
        bare.to_string().contains("config.json") && bare.hint().unwrap().contains("tokenizer.json"),
        "{bare}"
    );
}

#[test]
fn the_tokenisers_garbage_is_named() {
    let check = |change: fn(&mut Value), expected: &str| {
        let folder = folder(&Model::random_tiny(1));
        edit(folder.path(), "tokenizer.json", change);
        let message = error(folder.path());
        assert!(message.contains(expected), "{message}");
    };
    check(|t| t["model"] = json!({}), "`tokenizer.json` cannot be understood");
    check(
        |t| t["model"]["vocab"]["x"] = json!(4_000_000_000_u32),
        "a token of id 4000000000, but not nearly as many",
    );
    check(|t| t["model"]["vocab"]["x"] = json!(7), "have the same id 7");
    check(|t| t["model"]["byte_fallback"] = json!(true), "`SentencePiece`, only byte-level BPE");
    check(|t| t["model"]["type"] = json!("Unigram"), "`Unigram`, only byte-level BPE");
    check(|t| t["normalizer"] = json!({ "type": "Lowercase" }), "the normaliser `Lowercase`");
    check(
        |t| t["pre_tokenizer"]["pretokenizers"][0]["type"] = json!("Metaspace"),
        "the pre-tokeniser `Metaspace`",
    );
    check(|t| t["added_tokens"][0]["lstrip"] = json!(true), "swallows its surroundings (`<|endoftext|>`)");
    check(|t| t["model"]["merges"] = json!(["nopair"]), "merge 0 is not a pair");
    check(|t| t["model"]["vocab"]["\u{e9}\u{e8}x"] = json!(300), "301 tokens but only 259 embeddings");
    let folder = folder(&Model::random_tiny(1));
    fs::write(folder.path().join("tokenizer_config.json"), "[1").unwrap();
    assert!(error(folder.path()).contains("`tokenizer_config.json` cannot be understood"));
}

#[test]
fn ends_and_templates_come_from_where_the_hub_puts_them() {
    let folder = folder(&Model::random_tiny(1));
    edit(folder.path(), "generation_config.json", |g| g["eos_token_id"] = json!([0, 2]));
    edit(folder.path(), "tokenizer_config.json", |t| {
        t["eos_token"] = json!({ "content": "<|im_end|>", "lstrip": false });
        t["chat_template"] = json!([
            { "name": "tool_use", "template": "tools" },
            { "name": "default", "template": "{{ messages[0].content }}" },
        ]);
    });
    let model = Model::load(folder.path()).unwrap();
    let vocabulary = model.tokenizer.vocabulary();
    assert_eq!((vocabulary.eos, &vocabulary.more_ends[..]), (Some(2), &[0, 2][..]));
    assert_eq!(model.template.source(), "{{ messages[0].content }}");
    fs::write(folder.path().join("chat_template.jinja"), "{{ 'jinja' }}").unwrap();
    assert_eq!(Model::load(folder.path()).unwrap().template.source(), "{{ 'jinja' }}");
    fs::write(folder.path().join("README.md"), "---\nlanguage: en\nlicense: apache-2.0\n---\n# A model\n")
        .unwrap();
    assert_eq!(Model::card(folder.path()).unwrap().licence.as_deref(), Some("apache-2.0"));
}

const NAMES: [&str; 5] =
    [CONFIG, "model.safetensors", "tokenizer.json", "tokenizer_config.json", "generation_config.json"];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(250))]

    #[test]
    fn damaged_folders_never_panic(
        which in 0..NAMES.len(),
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
        cut in prop::option::of(any::<prop::sample::Index>()),
        early in any::<bool>(),
    ) {
        let folder = folder(&Model::random_tiny_qwen2(1));
        let path = folder.path().join(NAMES[which]);
        let mut bytes = fs::read(&path).unwrap();
        // Most of the safetensors file is numbers; its head is where damage tells.
        let reach = if early { bytes.len().min(2500) } else { bytes.len() };
        damage.into_iter().for_each(|(at, byte)| bytes[at.index(reach)] = byte);
        if let Some(cut) = cut {
            bytes.truncate(cut.index(bytes.len()));
        }
        fs::write(&path, bytes).unwrap();
        if let Ok(model) = Model::load(folder.path()) {
            let _ = model.tokenizer.encode("what was damaged 123 still splits");
        }
    }

    #[test]
    fn noise_for_files_never_panics(which in 0..NAMES.len(), noise in prop::collection::vec(any::<u8>(), 0..300)) {
        let folder = folder(&Model::random_tiny(1));
        fs::write(folder.path().join(NAMES[which]), noise).unwrap();
        let _ = Model::load(folder.path());
    }

    /// Whatever stands in a pattern or a list, splitting ends.
    #[test]
    fn any_pattern_splits_or_is_refused(pattern in "[a-z(){}\\[\\]*+?|.^$\\\\0-9!=:<]{0,24}", text in "[a-z0-9 ]{0,60}") {
        let folder = folder(&Model::random_tiny(1));
        edit(folder.path(), "tokenizer.json", |t| {
            t["pre_tokenizer"]["pretokenizers"][0] =
                json!({ "type": "Split", "pattern": { "Regex": pattern }, "behavior": "Isolated", "invert": false });
        });
        if let Ok(model) = Model::load(folder.path()) {
            prop_assert_eq!(model.tokenizer.decode(&model.tokenizer.encode(&text)), text);
        }
    }
}
