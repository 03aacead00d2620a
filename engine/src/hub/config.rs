//! `config.json`: the shape of a model, in transformers' names.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{
    model::{LoadError, malformed},
    weights::{Config, RopeLayout, RopeScaling, Weights},
};

/// Families that compute alike but for a bias.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Architecture {
    Llama,
    Qwen2,
}

impl Architecture {
    /// As GGUF files and people call it.
    pub(crate) fn gguf_name(self) -> &'static str {
        match self {
            Self::Llama => "llama",
            Self::Qwen2 => "qwen2",
        }
    }
}

/// The settings that decide how a model computes; others are left alone.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct HubConfig {
    #[serde(default)]
    architectures: Vec<String>,
    #[serde(default)]
    model_type: String,
    #[serde(default, rename = "_name_or_path")]
    name: Option<String>,
    hidden_size: usize,
    num_hidden_layers: usize,
    num_attention_heads: usize,
    #[serde(default)]
    num_key_value_heads: Option<usize>,
    #[serde(default)]
    head_dim: Option<usize>,
    intermediate_size: usize,
    pub vocab_size: usize,
    max_position_embeddings: usize,
    #[serde(default)]
    rope_theta: Option<f64>,
    rms_norm_eps: f64,
    #[serde(default = "silu")]
    hidden_act: String,
    #[serde(default)]
    tie_word_embeddings: bool,
    #[serde(default)]
    rope_scaling: Option<Rope>,
    /// Where transformers 5 keeps both `rope_theta` and the scaling.
    #[serde(default)]
    rope_parameters: Option<Rope>,
    #[serde(default)]
    attention_bias: bool,
    #[serde(default)]
    mlp_bias: bool,
    #[serde(default)]
    use_sliding_window: Option<bool>,
    #[serde(default)]
    sliding_window: Option<usize>,
    #[serde(default)]
    partial_rotary_factor: Option<f64>,
    #[serde(default)]
    quantization_config: Option<Value>,
}

fn silu() -> String {
    "silu".to_owned()
}

#[derive(Clone, Debug, Deserialize)]
struct Rope {
    #[serde(default, alias = "type")]
    rope_type: Option<String>,
    #[serde(default)]
    rope_theta: Option<f64>,
    #[serde(default)]
    factor: Option<f64>,
    #[serde(default)]
    low_freq_factor: Option<f64>,
    #[serde(default)]
    high_freq_factor: Option<f64>,
    #[serde(default)]
    original_max_position_embeddings: Option<f64>,
}

impl HubConfig {
    /// # Errors
    /// When it is none that we can run.
    pub(super) fn architecture(&self) -> Result<Architecture, LoadError> {
        let class = self.architectures.first().map(String::as_str);
        match (class, self.model_type.as_str()) {
            (Some("LlamaForCausalLM" | "MistralForCausalLM"), _) | (None, "llama" | "mistral") => {
                Ok(Architecture::Llama)
            }
            (Some("Qwen2ForCausalLM"), _) | (None, "qwen2") => Ok(Architecture::Qwen2),
            (class, kind) => Err(LoadError::Architecture(class.unwrap_or(kind).to_owned())),
        }
    }

    /// The name that the file gives the model, unless it is somebody's folder.
    pub(super) fn name(&self) -> Option<String> {
        let name = self.name.as_deref()?;
        (!name.is_empty() && !name.starts_with(['/', '.'])).then(|| name.to_owned())
    }

    /// Whether the embedding serves as the output head.
    pub(super) fn is_tied(&self) -> bool {
        self.tie_word_embeddings
    }

    /// # Errors
    /// When a size makes no sense, or the settings ask for what we do not compute.
    pub(super) fn shape(&self) -> Result<Config, LoadError> {
        if let Some(what) = self.unsupported()? {
            return Err(LoadError::Unsupported(what));
        }
        let (hidden, heads) = (self.hidden_size, self.num_attention_heads);
        let kv_heads = self.num_key_value_heads.unwrap_or(heads);
        let head_dim = self.head_dim.or_else(|| hidden.checked_div(heads)).unwrap_or(0);
        let sizes = [
            ("hidden_size", hidden),
            ("num_hidden_layers", self.num_hidden_layers),
            ("num_attention_heads", heads),
            ("num_key_value_heads", kv_heads),
            ("head_dim", head_dim),
            ("intermediate_size", self.intermediate_size),
            ("vocab_size", self.vocab_size),
            ("max_position_embeddings", self.max_position_embeddings),
        ];
        // No real model comes near 2^24 in any size; the bound keeps products of sizes from overflowing.
        if let Some((key, size)) = sizes.iter().find(|(_, size)| !(1..1 << 24).contains(size)) {
            return Err(malformed(format!("`{key}` in `config.json` is {size}, which is no size")));
        }
        if heads % kv_heads != 0 || !head_dim.is_multiple_of(2) {
            let heads = format!("{heads} heads of {head_dim}, {kv_heads} key/value heads");
            return Err(malformed(format!("`config.json` asks for an impossible shape: {heads}")));
        }
        Ok(Config {
            hidden,
            layers: self.num_hidden_layers,
            heads,
            kv_heads,
            head_dim,
            ffn: self.intermediate_size,
            vocab: self.vocab_size,
            context: self.max_position_embeddings,
            rope_theta: positive("rope_theta", self.rope_theta().unwrap_or(10_000.0))?,
            rope: RopeLayout::Halves,
            rope_scaling: self.rope().map_or(Ok(None), Rope::scaling)?,
            norm_eps: positive("rms_norm_eps", self.rms_norm_eps)?,
        })
    }

    fn rope(&self) -> Option<&Rope> {
        self.rope_scaling.as_ref().or(self.rope_parameters.as_ref())
    }

    fn rope_theta(&self) -> Option<f64> {
        self.rope_theta.or_else(|| self.rope_parameters.as_ref()?.rope_theta)
    }

    fn unsupported(&self) -> Result<Option<String>, LoadError> {
        let is_llama = self.architecture()? == Architecture::Llama;
        let slides = self.sliding_window.is_some_and(|window| window < self.max_position_embeddings);
        let slides = slides && self.use_sliding_window.unwrap_or(is_llama);
        let faults = [
            (self.hidden_act != "silu", format!("the activation `{}`", self.hidden_act)),
            (is_llama && self.attention_bias, "biases on every attention matrix".to_owned()),
            (self.mlp_bias, "biases on the feed-forward matrices".to_owned()),
            (slides, "a sliding window of attention".to_owned()),
            (self.partial_rotary_factor.is_some_and(|f| f != 1.0), "rotation of parts of heads".to_owned()),
            (
                self.quantization_config.as_ref().is_some_and(|value| !value.is_null()),
                "quantised safetensors (a GGUF of the model can be used)".to_owned(),
            ),
        ];
        Ok(faults.into_iter().find(|(present, _)| *present).map(|(_, what)| what))
    }
}

impl Rope {
    fn scaling(&self) -> Result<Option<RopeScaling>, LoadError> {
        let factor = || positive("factor", self.factor.unwrap_or(0.0));
        match self.rope_type.as_deref().unwrap_or("default") {
            "default" => Ok(None),
            "linear" => Ok(Some(RopeScaling::Linear { factor: factor()? })),
            "llama3" => {
                let low = positive("low_freq_factor", self.low_freq_factor.unwrap_or(0.0))?;
                let high = positive("high_freq_factor", self.high_freq_factor.unwrap_or(0.0))?;
                let original = self.original_max_position_embeddings.unwrap_or(0.0);
                let original_context = positive("original_max_position_embeddings", original)?;
                if high <= low {
                    return Err(malformed(
                        "`high_freq_factor` in `config.json` is not above `low_freq_factor`",
                    ));
                }
                Ok(Some(RopeScaling::Llama3 { factor: factor()?, low, high, original_context }))
            }
            other => Err(LoadError::Unsupported(format!("rope scaling `{other}`"))),
        }
    }
}

/// A number as the engine computes with it.
fn positive(key: &str, value: f64) -> Result<f32, LoadError> {
    let number = value as f32;
    match number.is_finite() && number > 0.0 {
        true => Ok(number),
        false => Err(malformed(format!("`{key}` in `config.json` is {value}, not a positive number"))),
    }
}

/// What is written for transformers to read.
#[derive(Serialize)]
pub(super) struct Written {
    architectures: [&'static str; 1],
    model_type: &'static str,
    torch_dtype: &'static str,
    hidden_size: usize,
    num_hidden_layers: usize,
    num_attention_heads: usize,
    num_key_value_heads: usize,
    head_dim: usize,
    intermediate_size: usize,
    vocab_size: usize,
    max_position_embeddings: usize,
    rope_theta: f64,
    rope_scaling: Option<Value>,
    rms_norm_eps: f64,
    hidden_act: &'static str,
    tie_word_embeddings: bool,
    attention_bias: bool,
    attention_dropout: f32,
    use_cache: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    bos_token_id: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    eos_token_id: Option<u32>,
}

impl Written {
    /// None when the rope scaling has no name among transformers'.
    pub(super) fn of(
        weights: &Weights,
        dtype: &'static str,
        bos: Option<u32>,
        eos: Option<u32>,
    ) -> Option<Self> {
        let config = &weights.config;
        let biased = weights.layers.iter().any(|layer| layer.qkv_bias.is_some());
        let (class, model_type) =
            if biased { ("Qwen2ForCausalLM", "qwen2") } else { ("LlamaForCausalLM", "llama") };
        let rope_scaling = match &config.rope_scaling {
            None => None,
            Some(RopeScaling::Linear { factor }) => {
                Some(serde_json::json!({ "rope_type": "linear", "factor": decimal(*factor) }))
            }
            Some(RopeScaling::Llama3 { factor, low, high, original_context }) => Some(serde_json::json!({
                "rope_type": "llama3",
                "factor": decimal(*factor),
                "low_freq_factor": decimal(*low),
                "high_freq_factor": decimal(*high),
                "original_max_position_embeddings": *original_context as u64,
            })),
            Some(RopeScaling::Divisors(_)) => return None,
        };
        Some(Self {
            architectures: [class],
            model_type,
            torch_dtype: dtype,
            hidden_size: config.hidden,
            num_hidden_layers: config.layers,
            num_attention_heads: config.heads,
            num_key_value_heads: config.kv_heads,
            head_dim: config.head_dim,
            intermediate_size: config.ffn,
            vocab_size: config.vocab,
            max_position_embeddings: config.context,
            rope_theta: decimal(config.rope_theta),
            rope_scaling,
            rms_norm_eps: decimal(config.norm_eps),
            hidden_act: "silu",
            tie_word_embeddings: weights.head.is_none(),
            attention_bias: biased,
            attention_dropout: 0.0,
            use_cache: true,
            bos_token_id: bos,
            eos_token_id: eos,
        })
    }
}

/// The number that people would write for this f32: 1e-5, not 9.999999747378752e-6.
fn decimal(number: f32) -> f64 {
    number.to_string().parse().unwrap_or_else(|_| f64::from(number))
}
