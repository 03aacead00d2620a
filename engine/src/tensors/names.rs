//! What files call the tensors of a decoder.

use crate::lora::Projection;

/// A convention of names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Names {
    /// llama.cpp's: `blk.0.attn_q.weight`.
    Gguf,
    /// transformers': `model.layers.0.self_attn.q_proj.weight`.
    Hub,
}

impl Names {
    pub(crate) fn embedding(self) -> &'static str {
        match self {
            Self::Gguf => "token_embd.weight",
            Self::Hub => "model.embed_tokens.weight",
        }
    }

    /// The norm before the head.
    pub(crate) fn norm(self) -> &'static str {
        match self {
            Self::Gguf => "output_norm.weight",
            Self::Hub => "model.norm.weight",
        }
    }

    pub(crate) fn head(self) -> &'static str {
        match self {
            Self::Gguf => "output.weight",
            Self::Hub => "lm_head.weight",
        }
    }

    pub(crate) fn attn_norm(self, layer: usize) -> String {
        match self {
            Self::Gguf => format!("blk.{layer}.attn_norm.weight"),
            Self::Hub => format!("model.layers.{layer}.input_layernorm.weight"),
        }
    }

    pub(crate) fn ffn_norm(self, layer: usize) -> String {
        match self {
            Self::Gguf => format!("blk.{layer}.ffn_norm.weight"),
            Self::Hub => format!("model.layers.{layer}.post_attention_layernorm.weight"),
        }
    }

    pub(crate) fn weight(self, layer: usize, projection: Projection) -> String {
        self.projection(layer, projection) + ".weight"
    }

    pub(crate) fn bias(self, layer: usize, projection: Projection) -> String {
        self.projection(layer, projection) + ".bias"
    }

    /// The linear map itself: `model.layers.0.self_attn.q_proj`.
    pub(crate) fn projection(self, layer: usize, projection: Projection) -> String {
        use Projection::{Down, Gate, Key, Output, Query, Up, Value};
        match self {
            Self::Gguf => {
                let part = match projection {
                    Query => "attn_q",
                    Key => "attn_k",
                    Value => "attn_v",
                    Output => "attn_output",
                    Gate => "ffn_gate",
                    Up => "ffn_up",
                    Down => "ffn_down",
                };
                format!("blk.{layer}.{part}")
            }
            Self::Hub => {
                let block = if matches!(projection, Gate | Up | Down) { "mlp" } else { "self_attn" };
                format!("model.layers.{layer}.{block}.{}", projection.peft_name())
            }
        }
    }
}
