//! The tensors of a model file, by name: found and checked here, read when they are needed.
//!
//! Both kinds of file come through here: GGUF, and safetensors as the hub stores them. A tensor is a view into the mapped
//! file; [`locate`] puts every one in its place or says which is missing, left over or of another shape, before any
//! memory is spent on it. [`Located::read`] then makes [`Weights`]; whoever keeps weights in another form reads the
//! [`Rows`] itself, matrix by matrix.

mod format;
mod names;
mod outgoing;

use std::collections::BTreeMap;

use rayon::prelude::*;

pub use self::outgoing::Encoding;
pub(crate) use self::{
    format::Format,
    names::Names,
    outgoing::{Outgoing, outgoing, place_in_head},
};
use crate::{
    lora::Projection,
    model::LoadError,
    weights::{Config, Layer, Matrix, Weights},
};

/// Numbers that one task dequantises: a multiple of every block size.
const TASK_ELEMENTS: usize = 1 << 14;

/// Where a tensor's data lies. `shape` has the fastest dimension first.
#[derive(Clone, Debug)]
pub(crate) struct Tensor<'a> {
    pub shape: Vec<usize>,
    pub format: Format,
    /// As many bytes as the shape takes in this format.
    pub data: &'a [u8],
}

/// By name, in alphabetical order.
pub(crate) type Tensors<'a> = BTreeMap<String, Tensor<'a>>;

/// One matrix: tensors of `cols` columns, one below the other.
#[derive(Clone, Debug)]
pub(crate) struct Rows<'a> {
    pub parts: Vec<Tensor<'a>>,
    pub rows: usize,
    pub cols: usize,
}

impl Rows<'_> {
    /// All numbers in f32.
    pub(crate) fn read(&self) -> Matrix {
        let mut matrix = Matrix::zeros(self.rows, self.cols);
        let mut rest = &mut matrix.data[..];
        for part in &self.parts {
            let (numbers, tail) = rest.split_at_mut(part.shape.iter().product());
            part.read_into(numbers);
            rest = tail;
        }
        matrix
    }
}

impl Tensor<'_> {
    /// Decodes everything into `numbers`, as many as the shape has.
    pub(crate) fn read_into(&self, numbers: &mut [f32]) {
        let bytes = TASK_ELEMENTS / self.format.elements * self.format.bytes;
        let tasks = self.data.par_chunks(bytes).zip(numbers.par_chunks_mut(TASK_ELEMENTS));
        tasks.for_each(|(data, numbers)| self.format.decode(data, numbers));
    }
}

/// A decoder block whose matrices are still in the file.
#[derive(Clone, Debug)]
pub(crate) struct LocatedLayer<'a> {
    pub attn_norm: Vec<f32>,
    pub qkv: Rows<'a>,
    pub qkv_bias: Option<Vec<f32>>,
    pub out: Rows<'a>,
    pub ffn_norm: Vec<f32>,
    pub gate_up: Rows<'a>,
    pub down: Rows<'a>,
}

/// A model whose matrices are still in the file.
#[derive(Clone, Debug)]
pub(crate) struct Located<'a> {
    pub config: Config,
    pub embedding: Rows<'a>,
    pub layers: Vec<LocatedLayer<'a>>,
    pub norm: Vec<f32>,
    pub head: Option<Rows<'a>>,
}

impl Located<'_> {
    /// The whole model in f32.
    pub(crate) fn read(&self) -> Weights {
        let layer = |layer: &LocatedLayer| Layer {
            attn_norm: layer.attn_norm.clone(),
            qkv: layer.qkv.read(),
            qkv_bias: layer.qkv_bias.clone(),
            out: layer.out.read(),
            ffn_norm: layer.ffn_norm.clone(),
            gate_up: layer.gate_up.read(),
            down: layer.down.read(),
        };
        Weights {
            config: self.config.clone(),
            embedding: self.embedding.read(),
            layers: self.layers.iter().map(layer).collect(),
            norm: self.norm.clone(),
            head: self.head.as_ref().map(Rows::read),
        }
    }
}

/// Puts the tensors of a file in their places. None may be left over: a model that has more than we compute would give
/// wrong answers.
///
/// # Errors
/// When one is missing, left over, or of another shape than `config` asks for.
pub(crate) fn locate<'a>(
    mut tensors: Tensors<'a>,
    names: Names,
    config: Config,
) -> Result<Located<'a>, LoadError> {
    let (hidden, vocab) = (config.hidden, config.vocab);
    let mut shelf = Shelf { tensors: &mut tensors, names };
    let embedding = shelf.rows(&[names.embedding().to_owned()], &[vocab], hidden)?;
    let norm = shelf.vector(names.norm(), hidden)?;
    let head = match shelf.tensors.contains_key(names.head()) {
        true => Some(shelf.rows(&[names.head().to_owned()], &[vocab], hidden)?),
        false => None,
    };
    let layers = (0..config.layers).map(|index| shelf.layer(index, &config)).collect::<Result<_, _>>()?;
    match tensors.into_keys().next() {
        Some(name) => Err(LoadError::UnexpectedTensor(name)),
        None => Ok(Located { config, embedding, layers, norm, head }),
    }
}

/// Tensors that have no place yet.
struct Shelf<'s, 'a> {
    tensors: &'s mut Tensors<'a>,
    names: Names,
}

impl<'a> Shelf<'_, 'a> {
    fn layer(&mut self, index: usize, config: &Config) -> Result<LocatedLayer<'a>, LoadError> {
        use Projection::{Down, Gate, Key, Output, Query, Up, Value};
        let (hidden, ffn, q, kv) = (config.hidden, config.ffn, config.q_dim(), config.kv_dim());
        let names = self.names;
        let weight = |projection| names.weight(index, projection);
        Ok(LocatedLayer {
            attn_norm: self.vector(&names.attn_norm(index), hidden)?,
            qkv: self.rows(&[Query, Key, Value].map(weight), &[q, kv, kv], hidden)?,
            qkv_bias: self.bias(index, config)?,
            out: self.rows(&[weight(Output)], &[hidden], q)?,
            ffn_norm: self.vector(&names.ffn_norm(index), hidden)?,
            gate_up: self.rows(&[Gate, Up].map(weight), &[ffn, ffn], hidden)?,
            down: self.rows(&[weight(Down)], &[hidden], ffn)?,
        })
    }

    /// The fused bias of query, key and value: of all three or of none.
    fn bias(&mut self, layer: usize, config: &Config) -> Result<Option<Vec<f32>>, LoadError> {
        let parts = [Projection::Query, Projection::Key, Projection::Value];
        if !self.tensors.contains_key(&self.names.bias(layer, parts[0])) {
            return Ok(None);
        }
        let mut bias = Vec::with_capacity(config.qkv_dim());
        for part in parts {
            bias.extend(self.vector(&self.names.bias(layer, part), part.outputs(config))?);
        }
        Ok(Some(bias))
    }

    /// The named tensors, `rows[i]` rows each. Shapes are checked, so what the bytes do not back never gets memory.
    fn rows(&mut self, names: &[String], rows: &[usize], cols: usize) -> Result<Rows<'a>, LoadError> {
        let parts = names.iter().zip(rows).map(|(name, &rows)| self.take(name, &[cols, rows]));
        Ok(Rows { parts: parts.collect::<Result<_, _>>()?, rows: rows.iter().sum(), cols })
    }

    fn vector(&mut self, name: &str, len: usize) -> Result<Vec<f32>, LoadError> {
        let tensor = self.take(name, &[len])?;
        let mut numbers = vec![0.0; len];
        tensor.read_into(&mut numbers);
        Ok(numbers)
    }

    fn take(&mut self, name: &str, shape: &[usize]) -> Result<Tensor<'a>, LoadError> {
        take(self.tensors, name, shape)
    }
}

/// Takes a tensor that has to be there, in this shape.
pub(crate) fn take<'a>(
    tensors: &mut Tensors<'a>,
    name: &str,
    shape: &[usize],
) -> Result<Tensor<'a>, LoadError> {
    let tensor = tensors.remove(name).ok_or_else(|| LoadError::MissingTensor(name.to_owned()))?;
    if tensor.shape != shape {
        let (name, expected) = (name.to_owned(), shape.to_vec());
        return Err(LoadError::Shape { name, found: tensor.shape, expected });
    }
    Ok(tensor)
}
