//! ggml's block formats, back to f32. Layouts and formulas: `ggml-common.h` and `ggml-quants.c` of llama.cpp.

use half::{bf16, f16};

/// A storage format: blocks of `elements` numbers in `bytes` bytes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Format {
    pub elements: usize,
    pub bytes: usize,
    /// Decodes one block of exactly `bytes` into exactly `elements` numbers.
    decode: fn(&[u8], &mut [f32]),
}

impl Format {
    /// The format with this number in ggml's `ggml_type`.
    pub(super) fn of(kind: u32) -> Option<Self> {
        let format = |elements, bytes, decode| Some(Self { elements, bytes, decode });
        match kind {
            0 => format(1, 4, |b, y| y[0] = f32::from_le_bytes([b[0], b[1], b[2], b[3]])),
            1 => format(1, 2, |b, y| y[0] = half_at(b, 0)),
            30 => format(1, 2, |b, y| y[0] = bf16::from_le_bytes([b[0], b[1]]).to_f32()),
            2 => format(32, 18, q4_0),
            3 => format(32, 20, q4_1),
            6 => format(32, 22, q5_0),
            7 => format(32, 24, q5_1),
            8 => format(32, 34, q8_0),
            12 => format(256, 144, q4_k),
            14 => format(256, 210, q6_k),
            _ => None,
        }
    }

    /// Bytes that `elements` numbers take; none unless they fill whole blocks.
    pub(super) fn size(self, elements: usize) -> Option<usize> {
        elements.is_multiple_of(self.elements).then(|| (elements / self.elements).checked_mul(self.bytes))?
    }

    /// Decodes `data` into `output`, whose lengths match by [`Format::size`].
    pub(super) fn dequantise(self, data: &[u8], output: &mut [f32]) {
        let blocks = data.chunks_exact(self.bytes).zip(output.chunks_exact_mut(self.elements));
        blocks.for_each(|(block, output)| (self.decode)(block, output));
    }
}

fn half_at(block: &[u8], at: usize) -> f32 {
    f16::from_le_bytes([block[at], block[at + 1]]).to_f32()
}

/// Low nibbles are the first half of the block, high nibbles the second.
fn nibbles(bytes: &[u8], y: &mut [f32], number: impl Fn(u8, usize) -> f32) {
    let half = bytes.len();
    for (i, byte) in bytes.iter().enumerate() {
        y[i] = number(byte & 15, i);
        y[i + half] = number(byte >> 4, i + half);
    }
}

fn q4_0(block: &[u8], y: &mut [f32]) {
    let scale = half_at(block, 0);
    nibbles(&block[2..18], y, |q, _| scale * (f32::from(q) - 8.0));
}

fn q4_1(block: &[u8], y: &mut [f32]) {
    let (scale, least) = (half_at(block, 0), half_at(block, 2));
    nibbles(&block[4..20], y, |q, _| scale * f32::from(q) + least);
}

/// The fifth bits of a block, one per number, moved to bit 4.
fn fifth_bit(block: &[u8], at: usize) -> impl Fn(usize) -> u8 {
    let bits = u32::from_le_bytes([block[at], block[at + 1], block[at + 2], block[at + 3]]);
    move |i| ((bits >> i & 1) << 4) as u8
}

fn q5_0(block: &[u8], y: &mut [f32]) {
    let (scale, high) = (half_at(block, 0), fifth_bit(block, 2));
    nibbles(&block[6..22], y, |q, i| scale * (f32::from(q | high(i)) - 16.0));
}

fn q5_1(block: &[u8], y: &mut [f32]) {
    let (scale, least, high) = (half_at(block, 0), half_at(block, 2), fifth_bit(block, 4));
    nibbles(&block[8..24], y, |q, i| scale * f32::from(q | high(i)) + least);
}

fn q8_0(block: &[u8], y: &mut [f32]) {
    let scale = half_at(block, 0);
    y.iter_mut().zip(&block[2..34]).for_each(|(y, &q)| *y = scale * f32::from(q as i8));
}

/// 8 sub-blocks of 32 numbers; their 6-bit scales and minima share 12 bytes.
fn q4_k(block: &[u8], y: &mut [f32]) {
    let (scale, least, packed) = (half_at(block, 0), half_at(block, 2), &block[4..16]);
    let pair = |j: usize| match j {
        0..4 => (packed[j] & 63, packed[j + 4] & 63),
        _ => (packed[j + 4] & 15 | packed[j - 4] >> 6 << 4, packed[j + 4] >> 4 | packed[j] >> 6 << 4),
    };
    for (j, (quants, y)) in block[16..144].chunks_exact(32).zip(y.chunks_exact_mut(64)).enumerate() {
        let pairs = [pair(2 * j), pair(2 * j + 1)];
        nibbles(quants, y, |q, i| {
            let (s, m) = pairs[i / 32];
            scale * f32::from(s) * f32::from(q) - least * f32::from(m)
        });
    }
}

/// 16 sub-blocks of 16 numbers with 8-bit scales; 4 low bits and 2 high bits of each number lie apart.
fn q6_k(block: &[u8], y: &mut [f32]) {
    let (low, high, scales, scale) = (&block[..128], &block[128..192], &block[192..208], half_at(block, 208));
    for (i, y) in y.iter_mut().enumerate() {
        let (half, quarter, lane) = (i / 128, i % 128 / 32, i % 32);
        let nibble = low[half * 64 + quarter % 2 * 32 + lane] >> (quarter / 2 * 4) & 15;
        let top = high[half * 32 + lane] >> (quarter * 2) & 3;
        let quant = i32::from(nibble | top << 4) - 32;
        *y = scale * f32::from(scales[i / 16] as i8) * quant as f32;
    }
}
