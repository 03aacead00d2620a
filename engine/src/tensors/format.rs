//! ggml's block formats, back to f32. Layouts and formulas: `ggml-common.h` and `ggml-quants.c` of llama.cpp. Safetensors
//! know three of them (F32, F16, BF16).

use half::{bf16, f16};

/// A storage format: blocks of `elements` numbers in `bytes` bytes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Format {
    /// Its number in ggml's `ggml_type`.
    pub kind: u32,
    pub name: &'static str,
    pub elements: usize,
    pub bytes: usize,
    /// Decodes one block of exactly `bytes` into exactly `elements` numbers.
    block: fn(&[u8], &mut [f32]),
}

impl Format {
    pub(crate) const F32: Self =
        Self::new(0, "F32", 1, 4, |b, y| y[0] = f32::from_le_bytes([b[0], b[1], b[2], b[3]]));
    pub(crate) const F16: Self = Self::new(1, "F16", 1, 2, |b, y| y[0] = half_at(b, 0));
    pub(crate) const BF16: Self =
        Self::new(30, "BF16", 1, 2, |b, y| y[0] = bf16::from_le_bytes([b[0], b[1]]).to_f32());

    /// Every format that can be read.
    pub(crate) const ALL: [Self; 15] = [
        Self::F32,
        Self::F16,
        Self::BF16,
        Self::new(2, "Q4_0", 32, 18, q4_0),
        Self::new(3, "Q4_1", 32, 20, q4_1),
        Self::new(6, "Q5_0", 32, 22, q5_0),
        Self::new(7, "Q5_1", 32, 24, q5_1),
        Self::new(8, "Q8_0", 32, 34, q8_0),
        Self::new(10, "Q2_K", 256, 84, q2_k),
        Self::new(11, "Q3_K", 256, 110, q3_k),
        Self::new(12, "Q4_K", 256, 144, q4_k),
        Self::new(13, "Q5_K", 256, 176, q5_k),
        Self::new(14, "Q6_K", 256, 210, q6_k),
        Self::new(20, "IQ4_NL", 32, 18, iq4_nl),
        Self::new(23, "IQ4_XS", 256, 136, iq4_xs),
    ];

    const fn new(
        kind: u32,
        name: &'static str,
        elements: usize,
        bytes: usize,
        block: fn(&[u8], &mut [f32]),
    ) -> Self {
        Self { kind, name, elements, bytes, block }
    }

    /// The format with this number in ggml's `ggml_type`.
    pub(crate) fn of(kind: u32) -> Option<Self> {
        Self::ALL.into_iter().find(|format| format.kind == kind)
    }

    /// Bytes that `elements` numbers take; none unless they fill whole blocks.
    pub(crate) fn size(self, elements: usize) -> Option<usize> {
        elements.is_multiple_of(self.elements).then(|| (elements / self.elements).checked_mul(self.bytes))?
    }

    /// Decodes `data` into `output`, whose lengths match by [`Format::size`].
    pub(crate) fn decode(self, data: &[u8], output: &mut [f32]) {
        let blocks = data.chunks_exact(self.bytes).zip(output.chunks_exact_mut(self.elements));
        blocks.for_each(|(block, output)| (self.block)(block, output));
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

/// Two bits of each number, as the formats of 2, 3 and 6 bits lay them out: `bytes` hold 128 numbers in each 32, a pair
/// of bits per quarter.
fn two_bits(bytes: &[u8], i: usize) -> u8 {
    bytes[i / 128 * 32 + i % 32] >> (i % 128 / 32 * 2) & 3
}

/// 16 sub-blocks of 16 numbers; scale and minimum of each are the nibbles of a byte.
fn q2_k(block: &[u8], y: &mut [f32]) {
    let (pairs, quants) = (&block[..16], &block[16..80]);
    let (scale, least) = (half_at(block, 80), half_at(block, 82));
    for (i, y) in y.iter_mut().enumerate() {
        let pair = pairs[i / 16];
        *y = scale * f32::from(pair & 15) * f32::from(two_bits(quants, i)) - least * f32::from(pair >> 4);
    }
}

/// 16 sub-blocks of 16 numbers with 6-bit scales that share 12 bytes; the third bit of each number lies apart.
fn q3_k(block: &[u8], y: &mut [f32]) {
    let (high, low, packed, scale) = (&block[..32], &block[32..96], &block[96..108], half_at(block, 108));
    let sub_scale = |j: usize| {
        let nibble = packed[j % 8] >> (j / 8 * 4) & 15;
        let top = packed[8 + j % 4] >> (j / 4 * 2) & 3;
        f32::from(nibble | top << 4) - 32.0
    };
    for (i, y) in y.iter_mut().enumerate() {
        let missing = if high[i % 32] >> (i / 32) & 1 == 0 { 4.0 } else { 0.0 };
        *y = scale * sub_scale(i / 16) * (f32::from(two_bits(low, i)) - missing);
    }
}

/// Scale and minimum of sub-block `j` of 8, of 6 bits each, from the 12 bytes that they share.
fn scale_and_least(packed: &[u8], j: usize) -> (f32, f32) {
    let (scale, least) = match j {
        0..4 => (packed[j] & 63, packed[j + 4] & 63),
        _ => (packed[j + 4] & 15 | packed[j - 4] >> 6 << 4, packed[j + 4] >> 4 | packed[j] >> 6 << 4),
    };
    (scale.into(), least.into())
}

/// 8 sub-blocks of 32 numbers; their 6-bit scales and minima share 12 bytes.
fn q4_k(block: &[u8], y: &mut [f32]) {
    let (scale, least, packed) = (half_at(block, 0), half_at(block, 2), &block[4..16]);
    for (j, (quants, y)) in block[16..144].chunks_exact(32).zip(y.chunks_exact_mut(64)).enumerate() {
        let pairs = [2 * j, 2 * j + 1].map(|sub| scale_and_least(packed, sub));
        nibbles(quants, y, |q, i| {
            let (s, m) = pairs[i / 32];
            scale * s * f32::from(q) - least * m
        });
    }
}

/// As [`q4_k`], with the fifth bit of each number apart: bit `j` of a byte belongs to sub-block `j`.
fn q5_k(block: &[u8], y: &mut [f32]) {
    let (scale, least, packed, high) = (half_at(block, 0), half_at(block, 2), &block[4..16], &block[16..48]);
    for (j, (quants, y)) in block[48..176].chunks_exact(32).zip(y.chunks_exact_mut(64)).enumerate() {
        let pairs = [2 * j, 2 * j + 1].map(|sub| scale_and_least(packed, sub));
        nibbles(quants, y, |q, i| {
            let (s, m) = pairs[i / 32];
            let fifth = (high[i % 32] >> (2 * j + i / 32) & 1) << 4;
            scale * s * f32::from(q | fifth) - least * m
        });
    }
}

/// 16 sub-blocks of 16 numbers with 8-bit scales; 4 low bits and 2 high bits of each number lie apart.
fn q6_k(block: &[u8], y: &mut [f32]) {
    let (low, high, scales, scale) = (&block[..128], &block[128..192], &block[192..208], half_at(block, 208));
    for (i, y) in y.iter_mut().enumerate() {
        let (half, quarter, lane) = (i / 128, i % 128 / 32, i % 32);
        let nibble = low[half * 64 + quarter % 2 * 32 + lane] >> (quarter / 2 * 4) & 15;
        let quant = i32::from(nibble | two_bits(high, i) << 4) - 32;
        *y = scale * f32::from(scales[i / 16] as i8) * quant as f32;
    }
}

/// The 16 levels of the non-linear formats.
const LEVELS: [i8; 16] = [-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113];

fn iq4_nl(block: &[u8], y: &mut [f32]) {
    let scale = half_at(block, 0);
    nibbles(&block[2..18], y, |q, _| scale * f32::from(LEVELS[usize::from(q)]));
}

/// 8 sub-blocks of 32 numbers; the 6-bit scale of each has its low bits in a nibble and its high bits in a pair.
fn iq4_xs(block: &[u8], y: &mut [f32]) {
    let scale = half_at(block, 0);
    let (high, low) = (u16::from_le_bytes([block[2], block[3]]), &block[4..8]);
    for (j, (quants, y)) in block[8..136].chunks_exact(16).zip(y.chunks_exact_mut(32)).enumerate() {
        let nibble = low[j / 2] >> (j % 2 * 4) & 15;
        let sub_scale = i32::from(nibble) | i32::from(high >> (2 * j) & 3) << 4;
        let scale = scale * (sub_scale - 32) as f32;
        nibbles(quants, y, |q, _| scale * f32::from(LEVELS[usize::from(q)]));
    }
}
