//! Writes the inputs that the targets begin with: `seeds FOLDER`. What is written is small, valid, and the same every time.

use std::{collections::BTreeSet, fs, path::Path};

use hone_engine::{
    hub,
    lora::{Adapter, LoraConfig},
    model::Model,
    tensors::Encoding,
};
use hone_fuzz::{narrow, scratch};
// What counts coverage in the code that is called here.
use libfuzzer_sys as _;
use serde_json::{Value, json};

/// Shortest and longest words of a dictionary.
const WORDS: std::ops::RangeInclusive<usize> = 4..=40;

fn main() -> std::io::Result<()> {
    let Some(folder) = std::env::args_os().nth(1) else {
        eprintln!("usage: seeds FOLDER");
        std::process::exit(2);
    };
    let folder = Path::new(&folder);
    for (target, seeds) in [
        ("gguf", gguf()?),
        ("safetensors", safetensors()?),
        ("multipart", multipart()),
        ("requests", requests()),
        ("jsonl", lines()),
    ] {
        let (inside, mut words) = (folder.join(target), BTreeSet::new());
        fs::create_dir_all(&inside)?;
        for (name, bytes) in seeds {
            words.extend(words_of(&bytes));
            fs::write(inside.join(name), bytes)?;
        }
        let words: String = words.into_iter().map(|word| format!("\"{word}\"\n")).collect();
        fs::write(folder.join(format!("{target}.dict")), words)?;
    }
    Ok(())
}

type Seeds = Vec<(String, Vec<u8>)>;

/// What looks like a word: the fuzzer sees numbers that are compared, but no texts. Bytes of the vocabulary are no words.
fn words_of(bytes: &[u8]) -> impl Iterator<Item = String> {
    let part = |b: &u8| !(b.is_ascii_alphanumeric() || b"_-./:".contains(b));
    let words = bytes.split(part).filter(|word| WORDS.contains(&word.len()) && !word.starts_with(b"0x"));
    words.map(|word| String::from_utf8_lossy(word).into_owned())
}

/// Both architectures in both widths.
fn gguf() -> std::io::Result<Seeds> {
    let mut seeds = Seeds::new();
    for (name, model) in
        [("llama", Model::random_tiny as fn(u64) -> Model), ("qwen2", Model::random_tiny_qwen2)]
    {
        // Blocks of Q8_0 have 32 numbers.
        for (form, encoding, hidden) in [("f32", Encoding::F32, 8), ("q8_0", Encoding::Q8_0, 32)] {
            let path = scratch().join("seed.gguf");
            hone_engine::gguf::save(&narrow(model(1), hidden), &path, encoding)?;
            seeds.push((format!("{name}-{form}"), fs::read(&path)?));
        }
    }
    Ok(seeds)
}

fn safetensors() -> std::io::Result<Seeds> {
    let (model, folder) = (narrow(Model::random_tiny(1), 8), scratch().join("seed"));
    fs::create_dir_all(&folder)?;
    hub::save(&model, &folder, &hub::Export { encoding: Encoding::Bf16, texts: None })?;
    let adapter = Adapter::new(&model.weights.config, &LoraConfig::default());
    adapter.save(&folder, &model.weights.config, "tiny").map_err(std::io::Error::other)?;
    let index =
        json!({"metadata": {}, "weight_map": {"model.norm.weight": "model-00001-of-00001.safetensors"}});
    fs::write(folder.join("model.safetensors.index.json"), index.to_string())?;
    let files = [
        "model.safetensors",
        "model.safetensors.index.json",
        "config.json",
        "tokenizer.json",
        "adapter_model.safetensors",
        "adapter_config.json",
    ];
    let with_kind = |(kind, name): (u8, &str)| {
        let bytes = fs::read(folder.join(name))?;
        Ok((name.to_owned(), [&[kind], &bytes[..]].concat()))
    };
    (0..).zip(files).map(with_kind).collect()
}

fn multipart() -> Seeds {
    let part = |head: &str, content: &str| {
        format!("--b\r\nContent-Disposition: form-data; {head}\r\n\r\n{content}\r\n")
    };
    let row = r#"{"messages":[{"role":"user","content":"a"},{"role":"assistant","content":"b"}]}"#;
    let file = part("name=\"file\"; filename=\"../a.jsonl\"\r\nContent-Type: application/jsonl", row);
    let purpose = part("name=\"purpose\"", "fine-tune");
    let expiry = part("name=\"expires_after[anchor]\"", "created_at")
        + &part("name=\"expires_after[seconds]\"", "3600");
    [
        ("file-first", format!("\x01{file}{purpose}--b--\r\n")),
        ("purpose-first", format!("\x01{purpose}{file}--b--\r\n")),
        ("with-expiry", format!("\x01{purpose}{expiry}{file}--b--\r\n")),
        ("part-of-an-upload", format!("\0{}--b--\r\n", part("name=\"data\"; filename=\"p\"", "123456789"))),
        ("file-twice", format!("\x03{purpose}{file}--b--\r\n")),
        ("part-twice", format!("\x02{}--b--\r\n", part("name=\"data\"; filename=\"p\"", "1"))),
        ("breaks-off", format!("\x01{purpose}--b\r\n")),
    ]
    .map(|(name, body)| (name.to_owned(), body.into_bytes()))
    .into()
}

/// Good bodies for every path of `hone_server::fuzzing::{ANSWERED, MADE}`, in that order, those of things that are made a second
/// time for what comes twice; then paths to ask for and to remove.
fn requests() -> Seeds {
    let answered = [chats().to_vec(), responses().to_vec(), grader_runs().to_vec(), graders().to_vec()];
    let made = [jobs().to_vec(), uploads().to_vec(), completions().to_vec(), batches().to_vec()];
    let paths = [GET.map(str::to_owned).to_vec(), DELETE.map(str::to_owned).to_vec()];
    let text = |bodies: Vec<Value>| bodies.iter().map(Value::to_string).collect();
    let kinds = answered.into_iter().chain(made.clone()).chain(made).map(text).chain(paths);
    let seed = |(kind, rests): (u8, Vec<String>)| {
        let one = move |(number, rest): (usize, String)| {
            (format!("{kind:02}-{number}"), [&[kind], rest.as_bytes()].concat())
        };
        rests.into_iter().enumerate().map(one)
    };
    (0..).zip(kinds).flat_map(seed).collect()
}

const GET: [&str; 15] = [
    "/v1/models",
    "/v1/models/ft:tiny:local:a:abcdefgh",
    "/v1/files?purpose=fine-tune&limit=1&order=asc",
    "/v1/files?after=file-1",
    "/v1/files/file-1",
    "/v1/files/file-2/content",
    "/v1/fine_tuning/jobs?limit=1&metadata[k]=v",
    "/v1/fine_tuning/jobs?metadata=null",
    "/v1/fine_tuning/jobs/ftjob-1",
    "/v1/fine_tuning/jobs/ftjob-1/events?limit=2",
    "/v1/fine_tuning/jobs/ftjob-1/checkpoints",
    "/v1/batches?after=batch_1",
    "/v1/batches/batch_1",
    "/v1/responses/resp_1",
    "/v1/fine_tuning/checkpoints/ft:tiny:local:a:abcdefgh/permissions",
];
const DELETE: [&str; 4] = [
    "/v1/files/file-2",
    "/v1/models/ft:tiny:local:a:abcdefgh",
    "/v1/responses/resp_1",
    "/v1/files/%2e%2e%2f..%2fa",
];

fn user() -> Value {
    json!({"role": "user", "content": "x"})
}

fn schema() -> Value {
    json!({"type": "object", "properties": {
        "a": {"type": "integer", "minimum": 1}, "b": {"type": ["string", "null"], "maxLength": 3},
        "c": {"enum": ["x", 1, null]}, "d": {"type": "array", "items": {"$ref": "#/$defs/e"}, "maxItems": 2}},
        "required": ["a", "b", "c", "d"], "additionalProperties": false,
        "$defs": {"e": {"anyOf": [{"type": "boolean"}, {"const": "y"}]}}})
}

fn chats() -> [Value; 5] {
    let talk = json!([{"role": "system", "content": "s"}, {"role": "user", "content": [{"type": "text", "text": "x"}]},
        {"role": "assistant", "content": "y"}, {"role": "tool", "content": "z", "tool_call_id": "1"}]);
    let format =
        json!({"type": "json_schema", "json_schema": {"name": "n", "strict": true, "schema": schema()}});
    [
        json!({"model": "tiny", "messages": [user()], "max_tokens": 1, "n": 2, "temperature": 0.5, "top_p": 0.9,
            "stop": ["a"], "seed": 1, "stream": true, "stream_options": {"include_usage": true}}),
        json!({"model": "tiny", "messages": [user()], "max_completion_tokens": 9, "response_format": format}),
        json!({"model": "ui-agent", "messages": talk, "max_tokens": 2, "logprobs": true, "top_logprobs": 2,
            "presence_penalty": 1, "frequency_penalty": -1, "logit_bias": {"65": 100}, "stop": "b"}),
        json!({"model": "ft:tiny:local:a:abcdefgh", "messages": [user()], "max_tokens": 2, "user": "u",
            "response_format": {"type": "json_object"}}),
        json!({"model": "tiny", "messages": [user()], "max_tokens": 1, "tools": [], "tool_choice": "none",
            "modalities": ["text"], "safety_identifier": "s", "response_format": {"type": "text"}}),
    ]
}

fn responses() -> [Value; 3] {
    let format = json!({"type": "json_schema", "name": "n", "schema": schema()});
    let parts = json!([{"type": "input_text", "text": "x"}, {"type": "refusal", "refusal": "y"}]);
    [
        json!({"model": "tiny", "input": "x", "instructions": "y", "max_output_tokens": 2, "stream": true,
            "text": {"format": {"type": "json_object"}}, "store": false}),
        json!({"model": "tiny", "input": [{"type": "message", "role": "user", "content": parts}],
            "max_output_tokens": 9, "text": {"format": format}, "metadata": {"k": "v"}}),
        json!({"model": "tiny", "input": [user()], "previous_response_id": "resp_1", "top_logprobs": 1,
            "include": ["message.output_text.logprobs"], "background": false, "max_output_tokens": 1}),
    ]
}

fn jobs() -> [Value; 2] {
    let values = json!({"beta": 0.1, "n_epochs": 1, "batch_size": "auto", "learning_rate_multiplier": 2.5,
        "lora_rank": 4, "lora_alpha": 8, "lora_targets": ["q_proj"]});
    [
        json!({"model": "tiny", "training_file": "file-1", "validation_file": "file-1", "suffix": "s", "seed": 1,
            "method": {"type": "dpo", "dpo": {"hyperparameters": values}}, "metadata": {"k": "v"}, "integrations": []}),
        json!({"model": "ft:tiny:local:a:abcdefgh", "training_file": "file-1", "hyperparameters": {"n_epochs": 2},
            "method": {"type": "supervised", "supervised": {"hyperparameters": {"n_epochs": "auto"}}}}),
    ]
}

fn similar(metric: &str) -> Value {
    json!({"type": "text_similarity", "name": "s", "input": "{{ sample.output_json.a[0] }}", "reference": "b c d",
        "evaluation_metric": metric})
}

fn multi() -> Value {
    let check = json!({"type": "string_check", "name": "c", "input": "{{sample.output_text}}",
        "reference": "{{item.a}}", "operation": "ilike"});
    json!({"type": "multi", "name": "m", "graders": {"c": check, "s": similar("bleu")},
        "calculate_output": "max(1 - c * 2, s ^ 2, exp(-1), floor(.5)) / 3"})
}

fn grader_runs() -> [Value; 5] {
    let run =
        |grader: Value| json!({"grader": grader, "model_sample": "{\"a\": [\"b c\"]}", "item": {"a": "b"}});
    [
        run(multi()),
        run(similar("rouge_l")),
        run(similar("meteor")),
        run(similar("fuzzy_match")),
        run(similar("gleu")),
    ]
}

fn graders() -> [Value; 1] {
    [json!({"grader": multi()})]
}

fn uploads() -> [Value; 1] {
    [
        json!({"bytes": 1, "filename": "a", "mime_type": "text/plain", "purpose": "user_data", "expires_after": expiry()}),
    ]
}

fn completions() -> [Value; 1] {
    [json!({"part_ids": ["part_1"], "md5": "25f9e794323b453885f5181f1b624d0b"})]
}

fn batches() -> [Value; 1] {
    [json!({"input_file_id": "file-2", "endpoint": "/v1/chat/completions", "completion_window": "24h",
        "metadata": {"k": "v"}, "output_expires_after": expiry()})]
}

fn expiry() -> Value {
    json!({"anchor": "created_at", "seconds": 3600})
}

fn lines() -> Seeds {
    let user = json!({"role": "user", "content": "a"});
    let answer = json!({"role": "assistant", "content": "b", "weight": 1});
    let chat = json!({"messages": [{"role": "system", "content": "s"}, user, answer]});
    let pair = json!({"input": {"messages": [user]}, "preferred_output": [answer],
        "non_preferred_output": [{"role": "assistant", "content": "c"}]});
    let request = json!({"custom_id": "1", "method": "POST", "url": "/v1/chat/completions",
        "body": {"model": "tiny", "messages": [user]}});
    [
        ("chat", format!("{chat}\n\n{chat}\r\n")),
        ("pairs", format!("\u{feff}{pair}\n{pair}")),
        ("batch", format!("{request}\n")),
        ("mixed", format!("{chat}\n{pair}\n[]\n{{}}\n")),
    ]
    .map(|(name, text)| (name.to_owned(), text.into_bytes()))
    .into()
}
