use proptest::prelude::*;

use super::*;
use crate::{
    infer::{Decoder, Precision, Sequence, step},
    model::Model,
    tensors::{Encoding, Format},
    weights::{Config, RopeLayout, RopeScaling, Weights},
};

fn file(model: &Model) -> Vec<u8> {
    encoded(model, Encoding::F32)
}

fn encoded(model: &Model, encoding: Encoding) -> Vec<u8> {
    let mut bytes = Vec::new();
    write::write(model, encoding, &mut bytes).unwrap();
    bytes
}

fn tiny() -> Vec<u8> {
    file(&Model::random_tiny(1))
}

/// Replaces the only occurrence of `from` by `to` of the same length.
fn patch(bytes: &[u8], from: &[u8], to: &[u8]) -> Vec<u8> {
    let mut places = bytes.windows(from.len()).enumerate().filter(|(_, w)| *w == from).map(|(i, _)| i);
    let at = places.next().unwrap();
    let mut bytes = bytes.to_vec();
    bytes[at..at + from.len()].copy_from_slice(to);
    bytes
}

fn error(bytes: &[u8]) -> String {
    parse(bytes).unwrap_err().to_string()
}

#[test]
fn a_model_survives_the_file() {
    for model in [Model::random_tiny(4), Model::random_tiny_qwen2(4)] {
        survives(&model);
    }
}

fn survives(model: &Model) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tiny.gguf");
    model.save(&path).unwrap();
    let loaded = Model::load(&path).unwrap();
    assert_eq!(loaded.weights.config, model.weights.config);
    assert_eq!(flat(&loaded.weights), flat(&model.weights));
    assert_eq!(loaded.tokenizer.vocabulary(), model.tokenizer.vocabulary());
    assert_eq!((loaded.template.source(), &loaded.name), (model.template.source(), &model.name));
    assert_eq!(loaded.sha256, hex(&<sha2::Sha256 as sha2::Digest>::digest(std::fs::read(&path).unwrap())));
    let names: Vec<_> = folder.path().read_dir().unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names, ["tiny.gguf"], "no temporary file is left");
    let mode = std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&path).unwrap().permissions());
    assert_eq!(mode & 0o777, 0o644, "others may read it");
}

fn flat(weights: &Weights) -> Vec<f32> {
    let layers = weights
        .layers
        .iter()
        .flat_map(|l| [&l.attn_norm, &l.qkv.data, &l.out.data, &l.ffn_norm, &l.gate_up.data, &l.down.data])
        .chain(weights.layers.iter().filter_map(|l| l.qkv_bias.as_ref()));
    let ends = [&weights.embedding.data, &weights.norm].into_iter();
    ends.chain(weights.head.iter().map(|head| &head.data)).chain(layers).flatten().copied().collect()
}

#[test]
fn half_and_quantised_files_hold_nearly_the_same() {
    for model in [Model::random_tiny(4), Model::random_tiny_qwen2(4)] {
        for (encoding, tolerance) in [(Encoding::F16, 1e-3), (Encoding::Bf16, 5e-3), (Encoding::Q8_0, 5e-3)] {
            let loaded = parse(&encoded(&model, encoding)).unwrap();
            let (got, want) = (flat(&loaded.weights), flat(&model.weights));
            assert_eq!(got.len(), want.len());
            assert!(got.iter().zip(&want).all(|(a, b)| (a - b).abs() <= tolerance), "{encoding:?}");
            assert_ne!(got, want);
        }
    }
}

#[test]
fn rope_scaling_survives_the_file() {
    let scalings = [
        RopeScaling::Linear { factor: 4.0 },
        RopeScaling::Llama3 { factor: 8.0, low: 1.0, high: 4.0, original_context: 8192.0 },
        RopeScaling::Divisors(vec![1.0, 2.0, 3.0, 5.0]),
    ];
    for scaling in scalings {
        let mut model = Model::random_tiny(4);
        let mut weights = (*model.weights).clone();
        weights.config.rope_scaling = Some(scaling);
        model.weights = weights.into();
        // Under which name it comes back depends on how much of it the pairs of so small a head show.
        let loaded = parse(&file(&model)).unwrap();
        let frequencies = loaded.weights.config.rope_frequencies();
        for (got, want) in frequencies.iter().zip(model.weights.config.rope_frequencies()) {
            assert!((got / want - 1.0).abs() < 1e-6, "{got} {want}");
        }
    }
}

#[test]
fn missing_rows_of_the_vocabulary_are_filled_up() {
    let mut model = Model::random_tiny(4);
    let config = Config { vocab: 300, ..model.weights.config.clone() };
    model.weights = Weights::random(config, 1).into();
    let loaded = parse(&file(&model)).unwrap();
    let vocabulary = loaded.tokenizer.vocabulary();
    assert_eq!((vocabulary.tokens.len(), &vocabulary.tokens[299][..]), (300, "[PAD299]"));
    assert_eq!(loaded.tokenizer.bytes(299), b"");
    assert_eq!(loaded.tokenizer.encode("[PAD299]"), model.tokenizer.encode("[PAD299]"));
}

#[test]
fn weights_in_hub_order_are_saved_in_the_files_order() {
    let mut model = Model::random_tiny(4);
    let mut weights = (*model.weights).clone();
    weights.config.rope = RopeLayout::Halves;
    model.weights = weights.into();
    let logits = |model: &Model| {
        let ids = model.tokenizer.encode("rotate");
        let decoder = Decoder::new(&model.weights, Precision::F32);
        let mut sequence = Sequence::new(&decoder, &ids);
        step(&decoder, &mut [&mut sequence]).row(0).unwrap().to_vec()
    };
    let loaded = parse(&file(&model)).unwrap();
    assert_eq!(loaded.weights.config.rope, RopeLayout::Interleaved);
    for (a, b) in logits(&loaded).iter().zip(logits(&model)) {
        assert!((a - b).abs() < 1e-4, "{a} {b}");
    }
}

#[test]
fn errors_name_the_cause() {
    let bytes = tiny();
    assert_eq!(error(b"PK\x03\x04"), "not a GGUF file: it starts with [50, 4b, 03, 04]");
    assert_eq!(error(b""), "not a GGUF file: it starts with []");
    assert_eq!(
        error(&patch(&bytes, b"GGUF\x03", b"GGUF\x01")),
        "GGUF version 1 is not supported (2 and 3 are)"
    );
    assert_eq!(
        error(&patch(&bytes, b"\x05\0\0\0\0\0\0\0llama", b"\x05\0\0\0\0\0\0\0qwen9")),
        "architecture `qwen9` is not supported (`llama` and `qwen2` are)"
    );
    assert_eq!(
        error(&patch(&bytes, b"blk.1.ffn_down", b"blk.1.ffn_gone")),
        "tensor `blk.1.ffn_down.weight` is missing"
    );
    assert_eq!(
        error(&patch(&bytes, b"llama.block_count", b"llama.block_cou__")),
        "metadata key `llama.block_cou__` is missing".replace("__", "nt")
    );
    assert_eq!(
        error(&patch(&bytes, b"smollm", b"tekken")),
        "the tokeniser cannot be built: pre-tokeniser `tekken` is not supported (those of SmolLM, Llama 3, Qwen2 and \
         GPT-2 are)"
    );
    let short = &bytes[..bytes.len() - 5000];
    assert_eq!(error(short), "the file ends inside tensor `blk.1.ffn_down.weight`");
    assert!(parse(short).unwrap_err().hint().unwrap().contains("incomplete"));
}

#[test]
fn a_tensor_without_a_place_is_an_error() {
    let mut model = Model::random_tiny(1);
    let mut weights = (*model.weights).clone();
    weights.layers.push(weights.layers[0].clone());
    model.weights = weights.into();
    assert_eq!(
        error(&file(&model)),
        "tensor `blk.2.attn_k.weight` has no place in a decoder of the llama or qwen2 family"
    );
}

#[test]
fn sizes_that_lie_cost_nothing() {
    let bytes = tiny();
    // Tensor count, metadata count, and the length of the token list.
    let tokens = bytes.windows(21).position(|w| w == b"tokenizer.ggml.tokens").unwrap() + 21 + 4 + 4;
    for at in [8, 16, tokens] {
        for count in [1 << 20, 1 << 40, u64::MAX] {
            let mut bytes = bytes.clone();
            bytes[at..at + 8].copy_from_slice(&count.to_le_bytes());
            assert!(parse(&bytes).is_err());
        }
    }
}

#[test]
fn a_file_cut_anywhere_is_an_error() {
    let bytes = tiny();
    for cut in (0..bytes.len()).step_by(97).chain(bytes.len() - 40..bytes.len()) {
        assert!(parse(&bytes[..cut]).is_err(), "cut at {cut}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn damaged_files_never_panic(damage in prop::collection::vec((0..9000_usize, any::<u8>()), 1..8)) {
        let mut bytes = tiny();
        damage.into_iter().for_each(|(at, byte)| bytes[at] = byte);
        let _ = parse(&bytes);
    }

    #[test]
    fn noise_never_panics(mut bytes in prop::collection::vec(any::<u8>(), 0..300), version in 2_u8..=3) {
        let _ = parse(&bytes);
        let head = [b'G', b'G', b'U', b'F', version, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0];
        bytes.splice(0..0, head);
        let _ = parse(&bytes);
    }

    #[test]
    fn blocks_of_any_bytes_decode(format in prop::sample::select(Format::ALL.to_vec()), seed in any::<[u8; 32]>()) {
        let block: Vec<u8> = seed.iter().copied().cycle().take(format.bytes).collect();
        let mut numbers = vec![f32::MAX; format.elements];
        format.decode(&block, &mut numbers);
        prop_assert!(numbers.iter().all(|x| *x != f32::MAX));
    }
}

/// Blocks with known contents, as llama.cpp's `gguf` package decodes them: see `tests/fixtures/dequant.py`.
#[test]
fn blocks_decode_as_the_reference_does() {
    #[derive(serde::Deserialize)]
    struct Case {
        kind: u32,
        bytes: Vec<u8>,
        numbers: Vec<f32>,
    }
    let cases: Vec<Case> = serde_json::from_str(include_str!("../../tests/fixtures/dequant.json")).unwrap();
    assert_eq!(cases.len(), Format::ALL.len());
    for case in cases {
        let mut numbers = vec![0.0; case.numbers.len()];
        let format = Format::of(case.kind).unwrap();
        assert_eq!(format.size(numbers.len()), Some(case.bytes.len()));
        format.decode(&case.bytes, &mut numbers);
        for (got, want) in numbers.iter().zip(&case.numbers) {
            assert!((got - want).abs() <= 1e-6 * want.abs(), "type {}: {got} {want}", case.kind);
        }
    }
}

#[test]
fn half_blocks_are_refused() {
    assert_eq!(Format::of(8).unwrap().size(33), None);
    assert_eq!(Format::of(8).unwrap().size(usize::MAX - 31), None);
}
