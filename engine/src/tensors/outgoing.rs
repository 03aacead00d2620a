//! The way back: weights as named tensors, in the order of rows and the encoding that a file wants.

use half::{bf16, f16};

use super::Names;
use crate::{
    lora::Projection,
    weights::{Config, Matrix, RopeLayout, Weights},
};

/// How numbers are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoding {
    F32,
    F16,
    Bf16,
    /// ggml's blocks of 32 signed bytes with one scale: GGUF files only.
    Q8_0,
}

/// Numbers in a block of Q8_0.
const BLOCK: usize = 32;

impl Encoding {
    /// Its number in ggml's `ggml_type`.
    pub(crate) fn kind(self) -> u32 {
        match self {
            Self::F32 => 0,
            Self::F16 => 1,
            Self::Bf16 => 30,
            Self::Q8_0 => 8,
        }
    }

    /// Bytes that `elements` numbers take; whole blocks of them.
    pub(crate) fn size(self, elements: usize) -> usize {
        match self {
            Self::F32 => 4 * elements,
            Self::F16 | Self::Bf16 => 2 * elements,
            Self::Q8_0 => elements / BLOCK * (BLOCK + 2),
        }
    }

    /// This encoding, or the nearest that takes rows of `cols` numbers.
    pub(crate) fn for_rows(self, cols: usize) -> Self {
        if self == Self::Q8_0 && !cols.is_multiple_of(BLOCK) { Self::F16 } else { self }
    }

    /// Appends the encoded numbers.
    pub(crate) fn encode(self, numbers: &[f32], bytes: &mut Vec<u8>) {
        match self {
            Self::F32 => bytes.extend(numbers.iter().flat_map(|x| x.to_le_bytes())),
            Self::F16 => bytes.extend(numbers.iter().flat_map(|x| f16::from_f32(*x).to_le_bytes())),
            Self::Bf16 => bytes.extend(numbers.iter().flat_map(|x| bf16::from_f32(*x).to_le_bytes())),
            Self::Q8_0 => numbers.chunks_exact(BLOCK).for_each(|block| q8_0(block, bytes)),
        }
    }
}

/// The scale is the largest magnitude over 127, as in ggml's reference.
fn q8_0(block: &[f32], bytes: &mut Vec<u8>) {
    let scale = block.iter().fold(0.0_f32, |max, x| max.max(x.abs())) / 127.0;
    let inverse = if scale > 0.0 { 1.0 / scale } else { 0.0 };
    bytes.extend(f16::from_f32(scale).to_le_bytes());
    bytes.extend(block.iter().map(|x| (x * inverse).round() as i8 as u8));
}

/// A tensor as runs of numbers to be written one after the other. `shape` has the fastest dimension first.
pub(crate) struct Outgoing<'a> {
    pub name: String,
    pub shape: Vec<usize>,
    pub rows: Vec<&'a [f32]>,
}

impl Outgoing<'_> {
    pub(crate) fn elements(&self) -> usize {
        self.shape.iter().product()
    }
}

/// Every tensor of a model, named so, with query and key rows in the order of `layout`.
pub(crate) fn outgoing(weights: &Weights, names: Names, layout: RopeLayout) -> Vec<Outgoing<'_>> {
    use Projection::{Down, Gate, Key, Output, Query, Up, Value};
    let config = &weights.config;
    let all = |rows: usize| (0..rows).collect();
    let mut tensors = vec![
        matrix(names.embedding().to_owned(), &weights.embedding, all(config.vocab)),
        vector(names.norm().to_owned(), &weights.norm, all(config.hidden)),
    ];
    tensors.extend(weights.head.iter().map(|head| matrix(names.head().to_owned(), head, all(config.vocab))));
    for (index, layer) in weights.layers.iter().enumerate() {
        let name = |projection| names.weight(index, projection);
        let rows = |projection| rows(config, projection, layout);
        tensors.extend([
            vector(names.attn_norm(index), &layer.attn_norm, all(config.hidden)),
            matrix(name(Query), &layer.qkv, rows(Query)),
            matrix(name(Key), &layer.qkv, rows(Key)),
            matrix(name(Value), &layer.qkv, rows(Value)),
            matrix(name(Output), &layer.out, rows(Output)),
            vector(names.ffn_norm(index), &layer.ffn_norm, all(config.hidden)),
            matrix(name(Gate), &layer.gate_up, rows(Gate)),
            matrix(name(Up), &layer.gate_up, rows(Up)),
            matrix(name(Down), &layer.down, rows(Down)),
        ]);
        if let Some(bias) = &layer.qkv_bias {
            let biases = [Query, Key, Value];
            tensors.extend(biases.map(|part| vector(names.bias(index, part), bias, rows(part))));
        }
    }
    tensors
}

/// Where the rows of a projection are in its fused matrix.
fn rows(config: &Config, projection: Projection, layout: RopeLayout) -> Vec<usize> {
    let first = projection.first_row(config);
    let rotated = matches!(projection, Projection::Query | Projection::Key);
    let dim = config.head_dim;
    let place = |row: usize| match rotated {
        true => row / dim * dim + place_in_head(row % dim, dim, config.rope, layout),
        false => row,
    };
    (0..projection.outputs(config)).map(|row| first + place(row)).collect()
}

/// Where row `row` of a head in layout `to` is in layout `from`: both rotate the same pairs by the same angles, but keep
/// the pairs side by side, or half a head apart.
pub(crate) fn place_in_head(row: usize, dim: usize, from: RopeLayout, to: RopeLayout) -> usize {
    use RopeLayout::{Halves, Interleaved};
    match (from, to) {
        (Halves, Interleaved) => row % 2 * (dim / 2) + row / 2,
        (Interleaved, Halves) => row % (dim / 2) * 2 + row / (dim / 2),
        (Halves, Halves) | (Interleaved, Interleaved) => row,
    }
}

fn vector(name: String, data: &[f32], places: Vec<usize>) -> Outgoing<'_> {
    let shape = vec![places.len()];
    Outgoing { name, shape, rows: places.into_iter().map(|at| &data[at..=at]).collect() }
}

fn matrix(name: String, matrix: &Matrix, rows: Vec<usize>) -> Outgoing<'_> {
    let shape = vec![matrix.cols, rows.len()];
    Outgoing { name, shape, rows: rows.into_iter().map(|row| matrix.row(row)).collect() }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::tensors::Format;

    fn round_trip(encoding: Encoding, numbers: &[f32]) -> Vec<f32> {
        let mut bytes = Vec::new();
        encoding.encode(numbers, &mut bytes);
        assert_eq!(bytes.len(), encoding.size(numbers.len()));
        let mut decoded = vec![0.0; numbers.len()];
        Format::of(encoding.kind()).unwrap().decode(&bytes, &mut decoded);
        decoded
    }

    proptest! {
        #[test]
        fn what_was_encoded_is_decoded(numbers in prop::collection::vec(-1e3_f32..1e3, 64)) {
            prop_assert_eq!(&round_trip(Encoding::F32, &numbers), &numbers);
            for (encoding, tolerance) in [(Encoding::F16, 5e-4), (Encoding::Bf16, 4e-3)] {
                for (got, want) in round_trip(encoding, &numbers).iter().zip(&numbers) {
                    prop_assert!((got - want).abs() <= tolerance * want.abs() + 1e-6, "{:?} {} {}", encoding, got, want);
                }
            }
            for (got, want) in round_trip(Encoding::Q8_0, &numbers).chunks(BLOCK).zip(numbers.chunks(BLOCK)) {
                let largest = want.iter().fold(0.0_f32, |max, x| max.max(x.abs()));
                for (got, want) in got.iter().zip(want) {
                    prop_assert!((got - want).abs() <= largest * (0.5 / 127.0 + 1e-3), "{} {}", got, want);
                }
            }
        }

        #[test]
        fn the_orders_of_a_head_undo_each_other(half in 1_usize..40) {
            let dim = 2 * half;
            for row in 0..dim {
                let there = place_in_head(row, dim, RopeLayout::Halves, RopeLayout::Interleaved);
                prop_assert_eq!(place_in_head(there, dim, RopeLayout::Interleaved, RopeLayout::Halves), row);
            }
        }
    }

    #[test]
    fn a_block_of_zeros_is_zeros() {
        assert_eq!(round_trip(Encoding::Q8_0, &[0.0; 32]), [0.0; 32]);
        assert_eq!(Encoding::Q8_0.for_rows(33), Encoding::F16);
    }
}
