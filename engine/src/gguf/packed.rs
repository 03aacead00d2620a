//! The tensors of a `llama` GGUF as a [`Decoder`], never all in f32.

use std::collections::BTreeMap;

use super::{
    LoadError,
    container::{Container, Tensor},
    decoder::{self, take, vector},
};
use crate::{
    infer::{self, Block, Coding, Decoder, Options, Parts, StoredRows, order, rows},
    kernel::Linear,
    lora::Site,
    weights::Config,
};

/// Reads the weights; `tokens` is the size of the tokeniser's vocabulary.
pub(super) fn decoder(container: &Container, tokens: usize, options: Options) -> Result<Decoder, LoadError> {
    let config = decoder::config(container, tokens)?;
    let mut shelf = Shelf { tensors: container.tensors.clone(), options };
    let vocab = rows(config.vocab);
    let embedding =
        shelf.linear(&["token_embd.weight".to_owned()], &[config.vocab], config.hidden, &vocab)?;
    let norm = vector(&mut shelf.tensors, "output_norm.weight", config.hidden)?;
    let orders = Site::ALL.map(|site| order(&config, site));
    let layers = (0..config.layers).map(|i| shelf.block(i, &config, &orders)).collect::<Result<_, _>>()?;
    match shelf.tensors.into_keys().next() {
        Some(name) => Err(LoadError::UnexpectedTensor(name)),
        None => Ok(Decoder::assemble(config, options, Parts { embedding, layers, norm, head: None })),
    }
}

/// Tensors that have no place yet.
struct Shelf<'a> {
    tensors: BTreeMap<String, Tensor<'a>>,
    options: Options,
}

impl Shelf<'_> {
    fn block(
        &mut self,
        index: usize,
        config: &Config,
        [qkv, out, gate_up, down]: &[Vec<Option<usize>>; 4],
    ) -> Result<Block, LoadError> {
        let Config { hidden, ffn, .. } = *config;
        let name = |part: &str| format!("blk.{index}.{part}.weight");
        let (q, kv) = (config.q_dim(), config.kv_dim());
        Ok(Block {
            attn_norm: vector(&mut self.tensors, &name("attn_norm"), hidden)?,
            qkv: self.linear(&["attn_q", "attn_k", "attn_v"].map(name), &[q, kv, kv], hidden, qkv)?,
            qkv_bias: None,
            out: self.linear(&[name("attn_output")], &[hidden], q, out)?,
            ffn_norm: vector(&mut self.tensors, &name("ffn_norm"), hidden)?,
            gate_up: self.linear(&["ffn_gate", "ffn_up"].map(name), &[ffn, ffn], hidden, gate_up)?,
            down: self.linear(&[name("ffn_down")], &[hidden], ffn, down)?,
        })
    }

    /// The named tensors, `rows[i]` rows each, as one matrix.
    fn linear(
        &mut self,
        names: &[String],
        rows: &[usize],
        cols: usize,
        order: &[Option<usize>],
    ) -> Result<Linear, LoadError> {
        let parts = names.iter().zip(rows).map(|(name, &rows)| take(&mut self.tensors, name, &[cols, rows]));
        let parts = parts.collect::<Result<Vec<_>, _>>()?;
        let parts: Vec<StoredRows> = parts
            .iter()
            .zip(rows)
            .map(|((tensor, format), &rows)| StoredRows {
                rows,
                data: tensor.data,
                coding: coding(tensor.kind),
                decode: Box::new(|bytes, numbers| format.dequantise(bytes, numbers)),
            })
            .collect();
        Ok(infer::linear(self.options.precision, cols, order, &parts))
    }
}

fn coding(kind: u32) -> Coding {
    match kind {
        2 => Coding::Q4_0,
        3 => Coding::Q4_1,
        8 => Coding::Q8_0,
        _ => Coding::Other,
    }
}
