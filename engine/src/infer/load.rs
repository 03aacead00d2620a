//! Matrices straight from a file's bytes to the order of the kernels: at no time is more than a row of one in f32.

use half::f16;

use super::{
    Options, Precision,
    decoder::{self, Decoder, Parts, order, rows},
};
use crate::{
    kernel::{BLOCK, Block, Format, Linear},
    lora::Site,
    tensors::{self, Located, LocatedLayer},
};

/// How rows are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Coding {
    /// ggml's blocks that the kernels take as they are.
    Q4_0,
    Q4_1,
    Q8_0,
    /// Anything else is rounded to 8 bits.
    Other,
}

impl Coding {
    fn of(format: tensors::Format) -> Self {
        match format.kind {
            2 => Self::Q4_0,
            3 => Self::Q4_1,
            8 => Self::Q8_0,
            _ => Self::Other,
        }
    }

    /// Bytes of a block and the kernels' format, unless rows are rounded.
    fn block(self) -> Option<(usize, Format)> {
        match self {
            Self::Q4_0 => Some((18, Format::Four)),
            Self::Q4_1 => Some((20, Format::Four)),
            Self::Q8_0 => Some((34, Format::Eight)),
            Self::Other => None,
        }
    }

    fn read(self, bytes: &[u8]) -> Block {
        let half_at = |at: usize| f16::from_le_bytes([bytes[at], bytes[at + 1]]);
        let scale = half_at(0);
        // Low half bytes are the first half of a block.
        let nibbles = |from: usize| {
            std::array::from_fn(|i| bytes[from + i % (BLOCK / 2)] >> (i / (BLOCK / 2) * 4) & 15)
        };
        match self {
            // A power of two times a number of half precision is one, but for those whose products overflow anyway.
            Self::Q4_0 => Block { scale, least: f16::from_f32(-8.0 * scale.to_f32()), quants: nibbles(2) },
            Self::Q4_1 => Block { scale, least: half_at(2), quants: nibbles(4) },
            Self::Q8_0 | Self::Other => {
                Block { scale, least: f16::ZERO, quants: std::array::from_fn(|i| bytes[2 + i] ^ 0x80) }
            }
        }
    }
}

/// Turns bytes into numbers.
pub(crate) type Decode<'a> = Box<dyn Fn(&[u8], &mut [f32]) + Sync + 'a>;

/// Rows of a matrix as a file holds them.
pub(crate) struct StoredRows<'a> {
    pub rows: usize,
    /// As many bytes for each row.
    pub data: &'a [u8],
    pub coding: Coding,
    /// Turns the bytes of a row into numbers.
    pub decode: Decode<'a>,
}

impl StoredRows<'_> {
    fn row(&self, index: usize) -> &[u8] {
        let bytes = self.data.len() / self.rows;
        &self.data[index * bytes..][..bytes]
    }
}

impl Decoder {
    /// Reads a model matrix by matrix.
    pub(crate) fn read(located: &Located, options: Options) -> Self {
        let config = &located.config;
        let linear = |matrix: &tensors::Rows, order: &[Option<usize>]| {
            let parts: Vec<StoredRows> = matrix.parts.iter().map(stored).collect();
            linear(options.precision, matrix.cols, order, &parts)
        };
        let orders = Site::ALL.map(|site| order(config, site));
        let [qkv, out, gate_up, down] = &orders;
        let block = |layer: &LocatedLayer| decoder::Block {
            attn_norm: layer.attn_norm.clone(),
            qkv: linear(&layer.qkv, qkv),
            qkv_bias: layer.qkv_bias.clone(),
            out: linear(&layer.out, out),
            ffn_norm: layer.ffn_norm.clone(),
            gate_up: linear(&layer.gate_up, gate_up),
            down: linear(&layer.down, down),
        };
        let vocab = rows(config.vocab);
        let parts = Parts {
            embedding: linear(&located.embedding, &vocab),
            layers: located.layers.iter().map(block).collect(),
            norm: located.norm.clone(),
            head: located.head.as_ref().map(|head| linear(head, &vocab)),
        };
        Self::assemble(config.clone(), options, parts)
    }
}

fn stored<'a>(tensor: &'a tensors::Tensor<'a>) -> StoredRows<'a> {
    let format = tensor.format;
    StoredRows {
        rows: tensor.shape.get(1).copied().unwrap_or(1),
        data: tensor.data,
        coding: Coding::of(format),
        decode: Box::new(move |bytes, numbers| format.decode(bytes, numbers)),
    }
}

/// The matrix whose rows are those of `parts`, one below the other, in the given order.
pub(crate) fn linear(
    precision: Precision,
    cols: usize,
    order: &[Option<usize>],
    parts: &[StoredRows],
) -> Linear {
    let find = |mut row: usize| {
        for part in parts {
            if row < part.rows {
                return (part, part.row(row));
            }
            row -= part.rows;
        }
        unreachable!("an order names rows that exist")
    };
    let read = |row: usize, numbers: &mut [f32]| {
        let (part, bytes) = find(row);
        (part.decode)(bytes, numbers);
    };
    let codings: Vec<Option<(usize, Format)>> = parts.iter().map(|part| part.coding.block()).collect();
    let format =
        codings.iter().map(|coding| coding.map(|(_, format)| format)).reduce(|a, b| a.filter(|_| a == b));
    match (precision, format.flatten()) {
        (Precision::F32, _) => Linear::exact(cols, order, read),
        (Precision::Fast, None) => Linear::rounded(cols, order, read),
        (Precision::Fast, Some(format)) => Linear::quantised(format, cols, order, |row, blocks| {
            let (part, bytes) = find(row);
            let size = bytes.len() / blocks.len();
            for (block, bytes) in blocks.iter_mut().zip(bytes.chunks_exact(size)) {
                *block = part.coding.read(bytes);
            }
        }),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn bytes(coding: Coding, seed: &[u8], blocks: usize) -> Vec<u8> {
        let (size, _) = coding.block().unwrap();
        let mut bytes: Vec<u8> = seed.iter().copied().cycle().take(blocks * size).collect();
        for block in bytes.chunks_exact_mut(size) {
            // Scales that are numbers.
            block[1] &= 0x3f;
            if coding == Coding::Q4_1 {
                block[3] &= 0xbf;
            }
        }
        bytes
    }

    proptest! {
        /// Whatever the bytes: the packed rows hold the very numbers that the file's formula gives.
        #[test]
        fn quantised_rows_are_those_of_the_file(
            seed in any::<[u8; 61]>(),
            coding in prop::sample::select(vec![(Coding::Q4_0, 2), (Coding::Q4_1, 3), (Coding::Q8_0, 8)]),
            count in 1..40_usize,
        ) {
            let (coding, kind) = coding;
            let (blocks, cols) = (3, 3 * BLOCK);
            let data = bytes(coding, &seed, count * blocks);
            let decode = |bytes: &[u8], numbers: &mut [f32]| tensors::Format::of(kind).unwrap().decode(bytes, numbers);
            let part = StoredRows { rows: count, data: &data, coding, decode: Box::new(decode) };
            let mut order = rows(count);
            order.reverse();
            order.push(None);
            let fast = linear(Precision::Fast, cols, &order, std::slice::from_ref(&part));
            let exact = linear(Precision::F32, cols, &order, &[part]);
            let (mut got, mut want) = (vec![0.0; cols], vec![0.0; cols]);
            for row in 0..order.len() {
                fast.read_row(row, &mut got);
                exact.read_row(row, &mut want);
                for (got, want) in got.iter().zip(&want) {
                    prop_assert!((got - want).abs() <= 1e-6 * want.abs(), "{row}: {got} {want}");
                }
            }
            prop_assert!(got.iter().all(|number| *number == 0.0), "rows without a source");
        }
    }
}
