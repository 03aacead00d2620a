//! An adapter on disk, as PEFT writes it: `adapter_config.json` and `adapter_model.safetensors`.
//!
//! Keys are `base_model.model.model.layers.N.self_attn.q_proj.lora_A.weight` (`[rank, inputs]`) and `..lora_B.weight`
//! (`[outputs, rank]`), for a checkpoint as the hub stores it; written in f32, read in f32, f16 or bf16. GGUF files of the
//! `llama` architecture keep the rows of the query and key matrices in another order (see [`place_in_head`]); the rows of
//! their `lora_B` are put into the hub's order on export and back on load, so that the same folder serves both kinds of
//! base model.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

use safetensors::tensor::{Dtype, SafeTensors, TensorView};
use serde::{Deserialize, Serialize};

use super::{Adapter, LoraConfig, Projection};
use crate::hub::is_pickle;
use crate::tensors::{Format, Names, place_in_head};
use crate::train::atomic_write;
use crate::weights::{Config, Matrix, RopeLayout};

const CONFIG_FILE: &str = "adapter_config.json";
const TENSOR_FILE: &str = "adapter_model.safetensors";
/// A corrupt rank must end in an error before it sizes an allocation.
const MAX_RANK: usize = 4096;

/// Why an adapter folder could not be written or read.
#[derive(Debug, thiserror::Error)]
pub enum AdapterError {
    #[error("cannot access `{}`: {source}", path.display())]
    Io { path: PathBuf, source: std::io::Error },
    #[error("`{}` is not a LoRA adapter that this engine can apply: {why}", path.display())]
    Unsupported { path: PathBuf, why: String },
    #[error("`{}` does not fit the base model: {why}", path.display())]
    WrongModel { path: PathBuf, why: String },
    #[error("`{}` is a Python pickle, which can run code when it is read", path.display())]
    Pickle { path: PathBuf },
}

impl AdapterError {
    /// What the user can do about it.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Io { .. } => {
                "check that the folder exists, is readable or writable, and that the disk has room"
            }
            Self::Unsupported { .. } => {
                "plain LoRA on the linear layers is supported, without DoRA, biases or extra modules"
            }
            Self::WrongModel { .. } => "load it together with the base model that it was trained on",
            Self::Pickle { .. } => {
                "save the adapter as safetensors: PEFT's `save_pretrained` does by default"
            }
        }
    }
}

/// The part of `adapter_config.json` that decides how an adapter acts, under PEFT's names.
#[derive(Serialize, Deserialize)]
struct PeftConfig {
    peft_type: String,
    #[serde(default)]
    task_type: Option<String>,
    #[serde(default)]
    base_model_name_or_path: Option<String>,
    r: usize,
    lora_alpha: serde_json::Number,
    #[serde(default)]
    lora_dropout: f32,
    #[serde(default)]
    target_modules: serde_json::Value,
    #[serde(default)]
    layers_to_transform: Option<Vec<usize>>,
    #[serde(default = "no_bias")]
    bias: String,
    #[serde(default)]
    fan_in_fan_out: bool,
    #[serde(default)]
    use_rslora: bool,
    #[serde(default)]
    use_dora: bool,
    #[serde(default)]
    modules_to_save: Option<Vec<String>>,
    #[serde(default)]
    rank_pattern: serde_json::Map<String, serde_json::Value>,
    #[serde(default)]
    alpha_pattern: serde_json::Map<String, serde_json::Value>,
    #[serde(default)]
    inference_mode: bool,
}

fn no_bias() -> String {
    "none".to_owned()
}

impl PeftConfig {
    fn describing(adapter: &Adapter, base_model: &str) -> Self {
        let adapted: Vec<usize> =
            (0..adapter.layers.len()).filter(|layer| !adapter.layers[*layer].is_empty()).collect();
        let all = adapted.len() == adapter.layers.len();
        Self {
            peft_type: "LORA".to_owned(),
            task_type: Some("CAUSAL_LM".to_owned()),
            base_model_name_or_path: Some(base_model.to_owned()),
            r: adapter.rank,
            lora_alpha: alpha_number(adapter.alpha),
            lora_dropout: 0.0,
            target_modules: projections(adapter).map(Projection::peft_name).collect(),
            layers_to_transform: (!all).then_some(adapted),
            bias: no_bias(),
            fan_in_fan_out: false,
            use_rslora: false,
            use_dora: false,
            modules_to_save: None,
            rank_pattern: Default::default(),
            alpha_pattern: Default::default(),
            inference_mode: true,
        }
    }

    /// The settings in the folder `dir`, when they ask for nothing that we do not compute.
    fn read(dir: &Path) -> Result<Self, AdapterError> {
        let path = dir.join(CONFIG_FILE);
        let text = read(&path)?;
        let unsupported = |why: String| AdapterError::Unsupported { path: path.clone(), why };
        let peft: Self = serde_json::from_slice(&text).map_err(|e| unsupported(e.to_string()))?;
        match peft.unsupported() {
            Some(why) => Err(unsupported(why)),
            None => Ok(peft),
        }
    }

    /// `alpha` for the scale `alpha / rank`, whichever way PEFT would compute it.
    fn alpha(&self) -> f32 {
        let alpha = self.lora_alpha.as_f64().unwrap_or_default();
        // Rank-stabilised LoRA scales by `alpha / sqrt(rank)`.
        let alpha = if self.use_rslora { alpha * (self.r as f64).sqrt() } else { alpha };
        alpha as f32
    }

    /// Why this configuration asks for more than `W + alpha / r * B A`, if it does.
    fn unsupported(&self) -> Option<String> {
        let extras = [
            (self.peft_type != "LORA", "its type is not LORA"),
            (self.r == 0 || self.r > MAX_RANK, "its rank is 0 or absurdly large"),
            (self.use_dora, "it uses DoRA"),
            (self.bias != "none", "it trains biases"),
            (self.modules_to_save.as_ref().is_some_and(|m| !m.is_empty()), "it replaces whole modules"),
            (!self.rank_pattern.is_empty() || !self.alpha_pattern.is_empty(), "its rank differs by layer"),
        ];
        extras.iter().find(|(present, _)| *present).map(|(_, why)| (*why).to_owned())
    }
}

/// An integer when it is one: tools that read the file expect `16`, not `16.0`.
fn alpha_number(alpha: f32) -> serde_json::Number {
    if alpha.fract() == 0.0 && alpha.abs() < 1e9 {
        return serde_json::Number::from(alpha as i64);
    }
    serde_json::Number::from_f64(f64::from(alpha)).unwrap_or_else(|| 0.into())
}

/// Projections that carry a pair anywhere.
fn projections(adapter: &Adapter) -> impl Iterator<Item = Projection> {
    let present: Vec<Projection> =
        adapter.layers.iter().flatten().flat_map(|g| &g.members).map(|m| m.projection).collect();
    Projection::ALL.into_iter().filter(move |projection| present.contains(projection))
}

fn key(layer: usize, projection: Projection, part: &str) -> String {
    format!("base_model.model.{}.lora_{part}.weight", Names::Hub.projection(layer, projection))
}

/// Whether the rows of this projection stand in another order than the hub's.
fn is_permuted(projection: Projection, config: &Config) -> bool {
    config.rope == RopeLayout::Interleaved && matches!(projection, Projection::Query | Projection::Key)
}

/// The rows of `b` in layout `to`, when they are in layout `from`.
fn reordered(b: &Matrix, head_dim: usize, from: RopeLayout, to: RopeLayout) -> Matrix {
    let place = |row: usize| row / head_dim * head_dim + place_in_head(row % head_dim, head_dim, from, to);
    let rows = (0..b.rows).flat_map(|row| b.row(place(row)));
    Matrix { rows: b.rows, cols: b.cols, data: rows.copied().collect() }
}

impl Adapter {
    /// Writes the adapter into the folder `dir` (created when missing) as PEFT does, for the hub's layout of the base
    /// model. Each file appears whole or not at all; the tensors come last, so that their presence means "complete".
    ///
    /// `config` is the base model's; `base_model` is only recorded.
    ///
    /// # Errors
    /// [`AdapterError::Io`].
    pub fn save(&self, dir: &Path, config: &Config, base_model: &str) -> Result<(), AdapterError> {
        let io = |path: &Path| {
            let path = path.to_owned();
            move |source| AdapterError::Io { path, source }
        };
        fs::create_dir_all(dir).map_err(io(dir))?;
        let settings = serde_json::to_vec_pretty(&PeftConfig::describing(self, base_model));
        let settings = settings.map_err(|e| io(dir)(e.into()))?;
        let path = dir.join(CONFIG_FILE);
        atomic_write(&path, &settings).map_err(io(&path))?;
        let path = dir.join(TENSOR_FILE);
        let tensors = self.to_safetensors(config).map_err(|e| io(&path)(std::io::Error::other(e)))?;
        atomic_write(&path, &tensors).map_err(io(&path))
    }

    fn to_safetensors(&self, config: &Config) -> Result<Vec<u8>, safetensors::SafeTensorError> {
        let mut named: Vec<(String, Vec<usize>, Vec<u8>)> = Vec::new();
        for (layer, group) in self.layers.iter().enumerate().flat_map(|(i, g)| g.iter().map(move |g| (i, g)))
        {
            for (member, a) in group.pairs() {
                let projection = member.projection;
                named.push((key(layer, projection, "A"), vec![self.rank, group.a.cols], bytes(a)));
                let shape = vec![member.b.rows, self.rank];
                let b = if is_permuted(projection, config) {
                    bytes(&reordered(&member.b, config.head_dim, config.rope, RopeLayout::Halves).data)
                } else {
                    bytes(&member.b.data)
                };
                named.push((key(layer, projection, "B"), shape, b));
            }
        }
        let views: Vec<(&str, TensorView)> = named
            .iter()
            .map(|(name, shape, data)| {
                TensorView::new(Dtype::F32, shape.clone(), data).map(|v| (name.as_str(), v))
            })
            .collect::<Result<_, _>>()?;
        safetensors::serialize(views, Some(HashMap::from([("format".to_owned(), "pt".to_owned())])))
    }

    /// Reads a folder that [`Adapter::save`] or PEFT wrote, for a base model of this shape and layout.
    ///
    /// # Errors
    /// [`AdapterError::Io`] when a file is missing or unreadable, [`AdapterError::Pickle`] when its tensors are pickled,
    /// [`AdapterError::Unsupported`] when it is more than plain LoRA, [`AdapterError::WrongModel`] when tensors are missing,
    /// left over or of another shape.
    pub fn load(dir: &Path, config: &Config) -> Result<Self, AdapterError> {
        let peft = PeftConfig::read(dir)?;
        let path = dir.join(TENSOR_FILE);
        let buffer = match read(&path) {
            Err(AdapterError::Io { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {
                return Err(without_tensors(dir, source));
            }
            buffer => buffer?,
        };
        let tensors = SafeTensors::deserialize(&buffer)
            .map_err(|e| AdapterError::Unsupported { path: path.clone(), why: e.to_string() })?;
        from_tensors(&peft, &tensors, config).map_err(|problem| match problem {
            Problem::Unsupported(why) => AdapterError::Unsupported { path, why },
            Problem::WrongModel(why) => AdapterError::WrongModel { path, why },
        })
    }
}

/// What an adapter folder says about itself, before its base model is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AdapterCard {
    /// `base_model_name_or_path`: a hub id, or a folder on the machine that trained it.
    pub base_model: Option<String>,
    pub rank: usize,
    /// Of the tensors' file, in bytes.
    pub bytes: u64,
}

impl AdapterCard {
    /// Whether the folder is an adapter's.
    pub fn is_in(dir: &Path) -> bool {
        dir.join(CONFIG_FILE).is_file()
    }

    /// Reads the settings of an adapter folder.
    ///
    /// # Errors
    /// As [`Adapter::load`], for the settings.
    pub fn read(dir: &Path) -> Result<Self, AdapterError> {
        let peft = PeftConfig::read(dir)?;
        let path = dir.join(TENSOR_FILE);
        let bytes = fs::metadata(&path).map_err(|source| without_tensors(dir, source))?.len();
        Ok(Self { base_model: peft.base_model_name_or_path, rank: peft.r, bytes })
    }
}

fn read(path: &Path) -> Result<Vec<u8>, AdapterError> {
    let fail = |source| AdapterError::Io { path: path.to_owned(), source };
    // Opening a pipe would wait for somebody to write.
    if !fs::metadata(path).map_err(fail)?.is_file() {
        return Err(AdapterError::Unsupported { path: path.to_owned(), why: "it is not a file".to_owned() });
    }
    fs::read(path).map_err(fail)
}

/// Why there are no tensors: often because they are pickled.
fn without_tensors(dir: &Path, source: std::io::Error) -> AdapterError {
    let names = fs::read_dir(dir).into_iter().flatten().flatten();
    let mut paths = names.map(|entry| entry.path());
    match paths.find(|path| is_pickle(&path.to_string_lossy())) {
        Some(path) => AdapterError::Pickle { path },
        None => AdapterError::Io { path: dir.join(TENSOR_FILE), source },
    }
}

enum Problem {
    Unsupported(String),
    WrongModel(String),
}

/// Puts tensors into an adapter that has exactly the pairs found in the file.
fn from_tensors(peft: &PeftConfig, tensors: &SafeTensors, config: &Config) -> Result<Adapter, Problem> {
    let alpha = peft.alpha();
    let mut adapter = Adapter { rank: peft.r, alpha, layers: Vec::new() };
    for layer in 0..config.layers {
        let targets = targets(peft, tensors, config, layer)?;
        let lora = LoraConfig { rank: peft.r, alpha, targets, top_layers: None, seed: 0 };
        let one_layer = Config { layers: 1, ..config.clone() };
        adapter.layers.extend(Adapter::zeros(&one_layer, &lora).layers);
    }
    let mut taken = 0;
    for (layer, groups) in adapter.layers.iter_mut().enumerate() {
        for group in groups {
            for (member, a) in group.pairs_mut() {
                let projection = member.projection;
                fill(a, tensors, &key(layer, projection, "A"), &[peft.r, projection.inputs(config)])?;
                let shape = [member.b.rows, peft.r];
                fill(&mut member.b.data, tensors, &key(layer, projection, "B"), &shape)?;
                if is_permuted(projection, config) {
                    member.b = reordered(&member.b, config.head_dim, RopeLayout::Halves, config.rope);
                }
                taken += 2;
            }
        }
    }
    if taken == tensors.len() && taken > 0 {
        return Ok(adapter);
    }
    let found = tensors.len();
    Err(Problem::WrongModel(format!("{taken} of its {found} tensors belong to linear layers of this model")))
}

/// The projections of a layer that have a pair of the right shapes: room is made only for numbers that are there.
fn targets(
    peft: &PeftConfig,
    tensors: &SafeTensors,
    config: &Config,
    layer: usize,
) -> Result<Vec<Projection>, Problem> {
    let mut targets = Vec::new();
    for projection in Projection::ALL {
        let a = key(layer, projection, "A");
        if tensors.tensor(&a).is_ok() {
            find(tensors, &a, &[peft.r, projection.inputs(config)])?;
            find(tensors, &key(layer, projection, "B"), &[projection.outputs(config), peft.r])?;
            targets.push(projection);
        }
    }
    Ok(targets)
}

fn fill(dst: &mut [f32], tensors: &SafeTensors, name: &str, shape: &[usize]) -> Result<(), Problem> {
    let (format, data) = find(tensors, name, shape)?;
    format.decode(data, dst);
    Ok(())
}

/// The bytes of a tensor of this shape, and how to read them.
fn find<'a>(tensors: &'a SafeTensors, name: &str, shape: &[usize]) -> Result<(Format, &'a [u8]), Problem> {
    let tensor =
        tensors.tensor(name).map_err(|_| Problem::WrongModel(format!("tensor `{name}` is missing")))?;
    let format = match tensor.dtype() {
        Dtype::F32 => Format::F32,
        Dtype::F16 => Format::F16,
        Dtype::BF16 => Format::BF16,
        other => return Err(Problem::Unsupported(format!("tensor `{name}` is stored as {other:?}"))),
    };
    if tensor.shape() != shape {
        let found = tensor.shape();
        return Err(Problem::WrongModel(format!("tensor `{name}` has shape {found:?}, expected {shape:?}")));
    }
    Ok((format, tensor.data()))
}

/// The values in the byte order of safetensors files.
pub(crate) fn bytes(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

/// Reads what [`bytes`] wrote; both have the same number of values.
pub(crate) fn read_floats(dst: &mut [f32], data: &[u8]) {
    let (chunks, _) = data.as_chunks::<4>();
    dst.iter_mut().zip(chunks).for_each(|(value, bytes)| *value = f32::from_le_bytes(*bytes));
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::lora::Site;
    use crate::train::testing::{tiny_config, with_random_b};

    fn adapter(config: &Config, lora: &LoraConfig) -> Adapter {
        with_random_b(Adapter::new(config, lora), 11)
    }

    #[test]
    fn what_was_saved_is_loaded_in_both_layouts() {
        for rope in [RopeLayout::Interleaved, RopeLayout::Halves] {
            let config = tiny_config(rope);
            let some = vec![Projection::Query, Projection::Value, Projection::Down];
            for lora in [
                LoraConfig { rank: 3, alpha: 4.5, ..Default::default() },
                LoraConfig { top_layers: Some(1), targets: some, ..Default::default() },
            ] {
                let dir = tempfile::tempdir().unwrap();
                let saved = adapter(&config, &lora);
                saved.save(dir.path(), &config, "base").unwrap();
                assert_eq!(Adapter::load(dir.path(), &config).unwrap(), saved);
            }
        }
    }

    #[test]
    fn an_interleaved_model_exports_query_and_key_rows_in_the_hubs_order() {
        let config = tiny_config(RopeLayout::Interleaved);
        let dir = tempfile::tempdir().unwrap();
        let saved = adapter(&config, &LoraConfig { rank: 2, ..Default::default() });
        saved.save(dir.path(), &config, "base").unwrap();
        // A base model that keeps the hub's order reads the file as it stands.
        let hub = Adapter::load(dir.path(), &tiny_config(RopeLayout::Halves)).unwrap();
        let member = |a: &Adapter, index: usize| a.group(0, Site::Qkv).unwrap().members[index].b.clone();
        let half = config.head_dim / 2;
        for index in [0, 1] {
            let (ours, theirs) = (member(&saved, index), member(&hub, index));
            for head in 0..ours.rows / config.head_dim {
                for pair in 0..half {
                    let at = head * config.head_dim;
                    assert_eq!(ours.row(at + 2 * pair), theirs.row(at + pair));
                    assert_eq!(ours.row(at + 2 * pair + 1), theirs.row(at + half + pair));
                }
            }
        }
        assert_eq!(member(&saved, 2), member(&hub, 2), "value rows stay where they are");
    }

    #[test]
    fn the_configuration_is_what_peft_expects() {
        let config = tiny_config(RopeLayout::Halves);
        let dir = tempfile::tempdir().unwrap();
        adapter(&config, &LoraConfig::default()).save(dir.path(), &config, "some/base").unwrap();
        let text = fs::read_to_string(dir.path().join(CONFIG_FILE)).unwrap();
        let json: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(json["peft_type"], "LORA");
        assert_eq!(json["task_type"], "CAUSAL_LM");
        assert_eq!(json["r"], 8);
        assert_eq!(json["lora_alpha"], 16);
        assert_eq!(json["base_model_name_or_path"], "some/base");
        assert_eq!(json["target_modules"].as_array().unwrap().len(), 7);
        assert_eq!(json["layers_to_transform"], serde_json::Value::Null);
    }

    #[test]
    fn an_adapter_of_another_model_is_refused_with_the_tensor() {
        let config = tiny_config(RopeLayout::Halves);
        let dir = tempfile::tempdir().unwrap();
        adapter(&config, &LoraConfig::default()).save(dir.path(), &config, "base").unwrap();
        let wider = Config { hidden: config.hidden + 8, ..config.clone() };
        let error = Adapter::load(dir.path(), &wider).unwrap_err().to_string();
        assert!(error.contains("q_proj.lora_A") && error.contains("expected [8, "), "{error}");
        let shallower = Config { layers: 1, ..config };
        let error = Adapter::load(dir.path(), &shallower).unwrap_err().to_string();
        assert!(error.contains("14 of its 28 tensors"), "{error}");
    }

    /// A rank is only a number, and a name only a name.
    #[test]
    fn room_is_made_only_for_numbers_that_are_there() {
        let config = tiny_config(RopeLayout::Halves);
        let dir = tempfile::tempdir().unwrap();
        adapter(&config, &LoraConfig::default()).save(dir.path(), &config, "base").unwrap();
        for wider in [Config { hidden: 1 << 60, ..config.clone() }, Config { ffn: 1 << 60, ..config }] {
            let error = Adapter::load(dir.path(), &wider).unwrap_err();
            assert!(matches!(error, AdapterError::WrongModel { .. }), "{error}");
        }
    }

    #[test]
    fn settings_beyond_plain_lora_are_refused() {
        let config = tiny_config(RopeLayout::Halves);
        for (setting, value) in [("use_dora", "true"), ("bias", "\"all\""), ("r", "0")] {
            let dir = tempfile::tempdir().unwrap();
            adapter(&config, &LoraConfig::default()).save(dir.path(), &config, "base").unwrap();
            let path = dir.path().join(CONFIG_FILE);
            let mut json: serde_json::Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
            json[setting] = serde_json::from_str(value).unwrap();
            fs::write(&path, json.to_string()).unwrap();
            let error = Adapter::load(dir.path(), &config).unwrap_err();
            assert!(matches!(error, AdapterError::Unsupported { .. }), "{setting}: {error}");
        }
    }

    #[test]
    fn adapters_of_other_trainers_in_half_precision_are_read() {
        let config = tiny_config(RopeLayout::Interleaved);
        let dir = tempfile::tempdir().unwrap();
        let saved = adapter(&config, &LoraConfig { rank: 4, ..Default::default() });
        saved.save(dir.path(), &config, "base").unwrap();
        let path = dir.path().join(TENSOR_FILE);
        let buffer = fs::read(&path).unwrap();
        let tensors = SafeTensors::deserialize(&buffer).unwrap();
        let halves: Vec<(String, Vec<usize>, Vec<u8>)> = tensors
            .iter()
            .map(|(name, view)| {
                let mut numbers = vec![0.0; view.data().len() / 4];
                read_floats(&mut numbers, view.data());
                let data = numbers.iter().flat_map(|x| half::bf16::from_f32(*x).to_le_bytes()).collect();
                (name.to_owned(), view.shape().to_vec(), data)
            })
            .collect();
        let views = halves
            .iter()
            .map(|(name, shape, data)| (name, TensorView::new(Dtype::BF16, shape.clone(), data).unwrap()));
        safetensors::serialize_to_file(views, None, &path).unwrap();
        let mut settings: serde_json::Value =
            serde_json::from_slice(&fs::read(dir.path().join(CONFIG_FILE)).unwrap()).unwrap();
        settings["use_rslora"] = true.into();
        fs::write(dir.path().join(CONFIG_FILE), settings.to_string()).unwrap();
        let loaded = Adapter::load(dir.path(), &config).unwrap();
        assert_eq!(loaded.scale(), 16.0 / 2.0, "alpha over the root of the rank");
        for (got, want) in loaded.tensors().flatten().zip(saved.tensors().flatten()) {
            assert!((got - want).abs() <= 4e-3 * want.abs(), "{got} {want}");
        }
        let card = AdapterCard::read(dir.path()).unwrap();
        assert_eq!((card.base_model.as_deref(), card.rank), (Some("base"), 4));
    }

    #[test]
    fn a_pickled_adapter_is_refused_by_name() {
        let dir = tempfile::tempdir().unwrap();
        let config = tiny_config(RopeLayout::Halves);
        adapter(&config, &LoraConfig::default()).save(dir.path(), &config, "base").unwrap();
        fs::rename(dir.path().join(TENSOR_FILE), dir.path().join("adapter_model.bin")).unwrap();
        let error = Adapter::load(dir.path(), &config).unwrap_err();
        assert!(error.to_string().contains("adapter_model.bin` is a Python pickle"), "{error}");
        assert!(AdapterCard::read(dir.path()).unwrap_err().hint().contains("safetensors"));
    }

    proptest! {
        #[test]
        fn damaged_files_end_in_an_error_or_an_adapter(
            damage in proptest::collection::vec((0..4000_usize, any::<u8>()), 1..6),
            cut in 0..9000_usize,
        ) {
            let dir = tempfile::tempdir().unwrap();
            let config = tiny_config(RopeLayout::Interleaved);
            adapter(&config, &LoraConfig { rank: 2, ..Default::default() }).save(dir.path(), &config, "b").unwrap();
            for name in [CONFIG_FILE, TENSOR_FILE] {
                let path = dir.path().join(name);
                let mut bytes = fs::read(&path).unwrap();
                damage.iter().for_each(|(at, byte)| if let Some(b) = bytes.get_mut(*at) { *b = *byte });
                bytes.truncate(bytes.len().saturating_sub(cut % 7));
                fs::write(&path, bytes).unwrap();
            }
            if let Ok(adapter) = Adapter::load(dir.path(), &config) {
                prop_assert_eq!(adapter.layers.len(), config.layers);
            }
        }

        #[test]
        fn any_bytes_as_files_end_in_an_error_not_a_panic(
            settings in proptest::collection::vec(any::<u8>(), 0..60),
            tensors in proptest::collection::vec(any::<u8>(), 0..60),
        ) {
            let dir = tempfile::tempdir().unwrap();
            fs::write(dir.path().join(CONFIG_FILE), settings).unwrap();
            fs::write(dir.path().join(TENSOR_FILE), tensors).unwrap();
            prop_assert!(Adapter::load(dir.path(), &tiny_config(RopeLayout::Halves)).is_err());
        }
    }
}
