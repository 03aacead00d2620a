//! The quantised product for AVX-512 and AVX2, with and without 8-bit dot products (VNNI).
//!
//! All compute `rows` sums at once, so that what is read and unpacked of the weights serves all rows of a tile. A sum
//! adds its blocks in their order, whatever the other rows: that is the invariant of `kernel`.

use std::arch::x86_64::*;

use half::f16;

use super::packed::{BLOCK, Format, InputBlock, InputPart, PANEL, Panel, Sums};

/// Bytes of a register of 16 lanes.
const LINE: usize = 64;

/// Calls `$function::<N>(..)` with `N` the value of `$rows`, 1 to 8: each number of rows has its own code, with all
/// its sums in registers.
macro_rules! by_rows {
    ($rows:expr, $function:ident $arguments:tt) => {
        match $rows {
            0 => {}
            1 => $function::<1> $arguments,
            2 => $function::<2> $arguments,
            3 => $function::<3> $arguments,
            4 => $function::<4> $arguments,
            5 => $function::<5> $arguments,
            6 => $function::<6> $arguments,
            7 => $function::<7> $arguments,
            _ => $function::<8> $arguments,
        }
    };
}

/// As [`by_rows`], 1 to 6, of a function with another constant.
macro_rules! by_mixed_rows {
    ($rows:expr, $function:ident <$vectors:literal> $arguments:tt) => {
        match $rows {
            0 => {}
            1 => $function::<1, $vectors> $arguments,
            2 => $function::<2, $vectors> $arguments,
            3 => $function::<3, $vectors> $arguments,
            4 => $function::<4, $vectors> $arguments,
            5 => $function::<5, $vectors> $arguments,
            _ => $function::<6, $vectors> $arguments,
        }
    };
}

#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
pub(super) fn avx512(panel: Panel, inputs: &[InputBlock], rows: usize, sums: &mut Sums) {
    match panel.format {
        Format::Four => by_rows!(rows, four_512(panel, inputs, sums)),
        Format::Eight => by_rows!(rows, eight_512(panel, inputs, sums)),
    }
}

/// Four neighbouring inputs of each of `M` rows in every lane of a register, added to `totals` by their dot products
/// with `weights`.
#[inline]
#[target_feature(enable = "avx512f,avx512vnni")]
fn add_dots_512<const M: usize>(
    totals: &mut [__m512i; M],
    weights: __m512i,
    input: &InputBlock,
    column: usize,
) {
    unroll!(ROW in [0 1 2 3 4 5 6 7] if ROW < M, {
        totals[ROW] = _mm512_dpbusd_epi32(totals[ROW], weights, _mm512_set1_epi32(four_at(input, ROW, column)));
    });
}

/// Four neighbouring inputs as one number.
#[inline(always)]
fn four_at(input: &InputBlock, row: usize, column: usize) -> i32 {
    let quants = &input.quants[row];
    i32::from_ne_bytes(std::array::from_fn(|i| quants[column + i] as u8))
}

#[inline]
#[target_feature(enable = "avx512f")]
fn line_512(bytes: &[u8], at: usize) -> __m512i {
    let line = &bytes[at..at + LINE];
    // SAFETY: the slice has as many bytes; the load needs no alignment.
    unsafe { _mm512_loadu_si512(line.as_ptr().cast()) }
}

/// Sixteen half-precision numbers.
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn halves_512(bytes: &[u8], at: usize) -> __m512 {
    let halves = &bytes[at..at + LINE / 2];
    // SAFETY: the slice has as many bytes; the load needs no alignment.
    _mm512_cvtph_ps(unsafe { _mm256_loadu_si256(halves.as_ptr().cast()) })
}

/// Asks for what lies `distance` bytes on: the same place of the next panel, mostly. Between two loads from memory
/// lie so many products that the processor does not look far enough ahead by itself.
#[inline]
#[target_feature(enable = "sse")]
fn ask_ahead<const LINES: usize>(bytes: &[u8], distance: usize) {
    unroll!(AT in [0 1 2 3 4 5 6 7] if AT < LINES, {
        _mm_prefetch::<_MM_HINT_T0>(bytes.as_ptr().wrapping_add(distance + AT * LINE).cast());
    });
}

#[inline]
#[target_feature(enable = "avx512f")]
fn store_512(sums: &mut [f32; PANEL], lanes: __m512) {
    // SAFETY: sixteen floats, no alignment needed.
    unsafe { _mm512_storeu_ps(sums.as_mut_ptr(), lanes) }
}

#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
fn four_512<const M: usize>(panel: Panel, inputs: &[InputBlock], sums: &mut Sums) {
    let low_half = _mm512_set1_epi8(15);
    let mut lanes = [_mm512_setzero_ps(); M];
    let quants = panel.quants.chunks_exact(4 * LINE);
    let scales = panel.scales.chunks_exact(LINE);
    for ((quants, scales), input) in quants.zip(scales).zip(inputs) {
        ask_ahead::<4>(quants, panel.next);
        ask_ahead::<1>(scales, panel.next);
        let mut totals = [_mm512_setzero_si512(); M];
        unroll!(PART in [0 1 2 3] if true, {
            let line = line_512(quants, PART * LINE);
            add_dots_512(&mut totals, _mm512_and_si512(line, low_half), input, 8 * PART);
            let high = _mm512_and_si512(_mm512_srli_epi16::<4>(line), low_half);
            add_dots_512(&mut totals, high, input, 8 * PART + 4);
        });
        let (scale, least) = (halves_512(scales, 0), halves_512(scales, LINE / 2));
        unroll!(ROW in [0 1 2 3 4 5 6 7] if ROW < M, {
            let factor = _mm512_mul_ps(scale, _mm512_set1_ps(input.scales[ROW]));
            lanes[ROW] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(totals[ROW]), factor, lanes[ROW]);
            lanes[ROW] = _mm512_fmadd_ps(least, _mm512_set1_ps(input.sums[ROW]), lanes[ROW]);
        });
    }
    unroll!(ROW in [0 1 2 3 4 5 6 7] if ROW < M, { store_512(&mut sums[ROW], lanes[ROW]); });
}

#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
fn eight_512<const M: usize>(panel: Panel, inputs: &[InputBlock], sums: &mut Sums) {
    let mut lanes = [_mm512_setzero_ps(); M];
    let quants = panel.quants.chunks_exact(8 * LINE);
    let scales = panel.scales.chunks_exact(LINE / 2);
    for ((quants, scales), input) in quants.zip(scales).zip(inputs) {
        ask_ahead::<8>(quants, panel.next);
        ask_ahead::<1>(scales, panel.next);
        let mut totals = [_mm512_setzero_si512(); M];
        unroll!(ROW in [0 1 2 3 4 5 6 7] if ROW < M, { totals[ROW] = _mm512_set1_epi32(input.offsets[ROW]); });
        unroll!(PART in [0 1 2 3 4 5 6 7] if true, {
            add_dots_512(&mut totals, line_512(quants, PART * LINE), input, 4 * PART);
        });
        let scale = halves_512(scales, 0);
        unroll!(ROW in [0 1 2 3 4 5 6 7] if ROW < M, {
            let factor = _mm512_mul_ps(scale, _mm512_set1_ps(input.scales[ROW]));
            lanes[ROW] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(totals[ROW]), factor, lanes[ROW]);
        });
    }
    unroll!(ROW in [0 1 2 3 4 5 6 7] if ROW < M, { store_512(&mut sums[ROW], lanes[ROW]); });
}

/// [`InputPart::nearest`] in a few instructions; the same numbers.
#[target_feature(enable = "avx512f")]
pub(super) fn nearest_512(numbers: &[f32; BLOCK]) -> InputPart {
    // SAFETY: 32 floats, no alignment needed.
    let (a, b) = unsafe { (_mm512_loadu_ps(numbers.as_ptr()), _mm512_loadu_ps(numbers[16..].as_ptr())) };
    let highest = _mm512_reduce_max_ps(_mm512_max_ps(_mm512_abs_ps(a), _mm512_abs_ps(b)));
    let inverse = _mm512_set1_ps(InputPart::inverse(highest));
    let (a, b) =
        (_mm512_cvtps_epi32(_mm512_mul_ps(a, inverse)), _mm512_cvtps_epi32(_mm512_mul_ps(b, inverse)));
    let mut quants = [0_i8; BLOCK];
    // SAFETY: 32 bytes, no alignment needed.
    unsafe {
        _mm_storeu_si128(quants.as_mut_ptr().cast(), _mm512_cvtepi32_epi8(a));
        _mm_storeu_si128(quants[16..].as_mut_ptr().cast(), _mm512_cvtepi32_epi8(b));
    }
    InputPart { quants, scale: highest / 127.0, total: _mm512_reduce_add_epi32(_mm512_add_epi32(a, b)) }
}

/// As [`nearest_512`].
#[target_feature(enable = "avx2")]
pub(super) fn nearest_256(numbers: &[f32; BLOCK]) -> InputPart {
    // SAFETY: 32 floats, no alignment needed.
    let parts = [0, 8, 16, 24].map(|at| unsafe { _mm256_loadu_ps(numbers[at..].as_ptr()) });
    let positive = _mm256_castsi256_ps(_mm256_set1_epi32(i32::MAX));
    let [a, b, c, d] = parts.map(|part| _mm256_and_ps(part, positive));
    let mut lanes = [0.0_f32; 8];
    // SAFETY: eight floats, no alignment needed.
    unsafe { _mm256_storeu_ps(lanes.as_mut_ptr(), _mm256_max_ps(_mm256_max_ps(a, b), _mm256_max_ps(c, d))) };
    let highest = lanes.into_iter().fold(0.0_f32, |a, b| if b > a { b } else { a });
    let inverse = _mm256_set1_ps(InputPart::inverse(highest));
    let [a, b, c, d] = parts.map(|part| _mm256_cvtps_epi32(_mm256_mul_ps(part, inverse)));
    let mut totals = [0_i32; 8];
    let sum = _mm256_add_epi32(_mm256_add_epi32(a, b), _mm256_add_epi32(c, d));
    // Packing works within halves of registers, so fours come out of order.
    let packed = _mm256_packs_epi16(_mm256_packs_epi32(a, b), _mm256_packs_epi32(c, d));
    let packed = _mm256_permutevar8x32_epi32(packed, _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7));
    let mut quants = [0_i8; BLOCK];
    // SAFETY: eight numbers and 32 bytes, no alignment needed.
    unsafe {
        _mm256_storeu_si256(totals.as_mut_ptr().cast(), sum);
        _mm256_storeu_si256(quants.as_mut_ptr().cast(), packed);
    }
    InputPart { quants, scale: highest / 127.0, total: totals.iter().sum() }
}

/// Half-precision numbers in full.
#[target_feature(enable = "avx,f16c")]
pub(super) fn widen(halves: &[f16], numbers: &mut [f32]) {
    let (parts, rest) = halves.as_chunks::<8>();
    let (slots, left) = numbers.as_chunks_mut::<8>();
    for (part, slot) in parts.iter().zip(slots) {
        // SAFETY: eight halves and eight floats, no alignment needed.
        unsafe {
            _mm256_storeu_ps(slot.as_mut_ptr(), _mm256_cvtph_ps(_mm_loadu_si128(part.as_ptr().cast())))
        };
    }
    for (half, number) in rest.iter().zip(left) {
        *number = half.to_f32();
    }
}

/// Rows whose sums of four registers each fit the registers, beside what they are made of.
const MIXED_ROWS: usize = 6;

/// [`super::mix`] of half-precision values, with `width` a multiple of 16; the sums are the same to the bit.
///
/// `weights` is `[n, stride]`, of which the first numbers of each row count, one for each row of `values`.
#[target_feature(enable = "avx512f")]
pub(super) fn mix_half(weights: &[f32], stride: usize, values: &[f16], width: usize, mixed: &mut [f32]) {
    let (weights, mixed) = (weights.chunks(MIXED_ROWS * stride), mixed.chunks_mut(MIXED_ROWS * width));
    for (weights, mixed) in weights.zip(mixed) {
        let mut first = 0;
        while first < width {
            let vectors = if first + 4 * PANEL <= width { 4 } else { 1 };
            let rows = mixed.len() / width;
            match vectors {
                4 => by_mixed_rows!(rows, mix_strip<4>(weights, stride, values, width, first, mixed)),
                _ => by_mixed_rows!(rows, mix_strip<1>(weights, stride, values, width, first, mixed)),
            }
            first += vectors * PANEL;
        }
    }
}

/// `M` rows, `N` registers of columns from `first`.
#[inline]
#[target_feature(enable = "avx512f")]
fn mix_strip<const M: usize, const N: usize>(
    weights: &[f32],
    stride: usize,
    values: &[f16],
    width: usize,
    first: usize,
    mixed: &mut [f32],
) {
    let count = values.len() / width;
    assert!(count <= stride && weights.len() >= M * stride && mixed.len() >= M * width);
    assert!(first + N * PANEL <= width);
    let mut sums = [[_mm512_setzero_ps(); N]; M];
    for (p, value) in values.chunks_exact(width).enumerate() {
        let mut lanes = [_mm512_setzero_ps(); N];
        // After a page's keys lie its values.
        ask_ahead::<2>(bytemuck::cast_slice(&value[first..]), size_of_val(values));
        unroll!(COLUMN in [0 1 2 3] if COLUMN < N, {
            // SAFETY: sixteen halves lie there by the assertions; no alignment needed.
            let halves = unsafe { _mm256_loadu_si256(value.as_ptr().add(first + COLUMN * PANEL).cast()) };
            lanes[COLUMN] = _mm512_cvtph_ps(halves);
        });
        unroll!(ROW in [0 1 2 3 4 5] if ROW < M, {
            // SAFETY: inside by the assertions.
            let weight = _mm512_set1_ps(unsafe { *weights.get_unchecked(ROW * stride + p) });
            unroll!(COLUMN in [0 1 2 3] if COLUMN < N, {
                sums[ROW][COLUMN] = _mm512_fmadd_ps(weight, lanes[COLUMN], sums[ROW][COLUMN]);
            });
        });
    }
    unroll!(ROW in [0 1 2 3 4 5] if ROW < M, {
        unroll!(COLUMN in [0 1 2 3] if COLUMN < N, {
            // SAFETY: inside by the assertions.
            let slot = unsafe { mixed.as_mut_ptr().add(ROW * width + first + COLUMN * PANEL) };
            // SAFETY: sixteen floats lie there.
            unsafe { _mm512_storeu_ps(slot, sums[ROW][COLUMN]) };
        });
    });
}

/// The nearest half-precision numbers.
#[target_feature(enable = "avx,f16c")]
pub(super) fn narrow(numbers: &[f32], halves: &mut [f16]) {
    let (parts, rest) = numbers.as_chunks::<8>();
    let (slots, left) = halves.as_chunks_mut::<8>();
    for (part, slot) in parts.iter().zip(slots) {
        // SAFETY: eight floats and eight halves, no alignment needed.
        unsafe {
            let rounded = _mm256_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(_mm256_loadu_ps(part.as_ptr()));
            _mm_storeu_si128(slot.as_mut_ptr().cast(), rounded);
        }
    }
    for (number, half) in rest.iter().zip(left) {
        *half = f16::from_f32(*number);
    }
}

/// Bytes of a register of eight lanes.
const HALF_LINE: usize = LINE / 2;
/// Rows of which AVX2's sixteen registers hold the sums.
const ROWS_256: usize = 4;

/// The product for registers of eight lanes, given how bytes are multiplied: `$start` makes the totals of format
/// [`Format::Eight`] to begin with, `$four` and `$eight` add the dot products of four neighbours in each lane.
macro_rules! product_256 {
    ($product:ident, $run:ident, $half:ident, $features:literal, $start:ident, $four:ident, $eight:ident) => {
        #[target_feature(enable = $features)]
        pub(super) fn $product(panel: Panel, inputs: &[InputBlock], rows: usize, sums: &mut Sums) {
            for first in (0..rows).step_by(ROWS_256) {
                match rows - first {
                    1 => $run::<1>(panel, inputs, first, sums),
                    2 => $run::<2>(panel, inputs, first, sums),
                    3 => $run::<3>(panel, inputs, first, sums),
                    _ => $run::<4>(panel, inputs, first, sums),
                }
            }
        }

        #[target_feature(enable = $features)]
        fn $run<const M: usize>(panel: Panel, inputs: &[InputBlock], first: usize, sums: &mut Sums) {
            for half in [0, 1] {
                let lanes = match panel.format {
                    Format::Four => $half::<M, true>(panel, inputs, first, half),
                    Format::Eight => $half::<M, false>(panel, inputs, first, half),
                };
                for (sums, lanes) in sums[first..].iter_mut().zip(lanes) {
                    let sums = &mut sums[half * PANEL / 2..][..PANEL / 2];
                    // SAFETY: eight floats, no alignment needed.
                    unsafe { _mm256_storeu_ps(sums.as_mut_ptr(), lanes) };
                }
            }
        }

        /// Sums of `M` rows from `first` with eight of the panel's rows.
        #[inline]
        #[target_feature(enable = $features)]
        fn $half<const M: usize, const FOUR: bool>(
            panel: Panel,
            inputs: &[InputBlock],
            first: usize,
            half: usize,
        ) -> [__m256; M] {
            let low_half = _mm256_set1_epi8(15);
            let at = half * HALF_LINE;
            let mut lanes = [_mm256_setzero_ps(); M];
            let (lines, parts) = if FOUR { (4, 2) } else { (8, 1) };
            let quants = panel.quants.chunks_exact(lines * LINE);
            let scales = panel.scales.chunks_exact(parts * HALF_LINE);
            for ((quants, scales), input) in quants.zip(scales).zip(inputs) {
                if half == 0 {
                    if FOUR { ask_ahead::<4>(quants, panel.next) } else { ask_ahead::<8>(quants, panel.next) }
                    ask_ahead::<1>(scales, panel.next);
                }
                let mut totals = [_mm256_setzero_si256(); M];
                if FOUR {
                    unroll!(PART in [0 1 2 3] if true, {
                        let line = line_256(quants, PART * LINE + at);
                        let low = _mm256_and_si256(line, low_half);
                        let high = _mm256_and_si256(_mm256_srli_epi16::<4>(line), low_half);
                        unroll!(ROW in [0 1 2 3] if ROW < M, {
                            let x = _mm256_set1_epi32(four_at(input, first + ROW, 8 * PART));
                            totals[ROW] = $four(totals[ROW], low, x);
                            let x = _mm256_set1_epi32(four_at(input, first + ROW, 8 * PART + 4));
                            totals[ROW] = $four(totals[ROW], high, x);
                        });
                    });
                } else {
                    unroll!(ROW in [0 1 2 3] if ROW < M, { totals[ROW] = $start(input, first + ROW); });
                    unroll!(PART in [0 1 2 3 4 5 6 7] if true, {
                        let line = line_256(quants, PART * LINE + at);
                        unroll!(ROW in [0 1 2 3] if ROW < M, {
                            let x = _mm256_set1_epi32(four_at(input, first + ROW, 4 * PART));
                            totals[ROW] = $eight(totals[ROW], line, x);
                        });
                    });
                }
                let scale = halves_256(scales, at / 2);
                unroll!(ROW in [0 1 2 3] if ROW < M, {
                    let factor = _mm256_mul_ps(scale, _mm256_set1_ps(input.scales[first + ROW]));
                    lanes[ROW] = _mm256_fmadd_ps(_mm256_cvtepi32_ps(totals[ROW]), factor, lanes[ROW]);
                    if FOUR {
                        let least = halves_256(scales, HALF_LINE + at / 2);
                        let sum = _mm256_set1_ps(input.sums[first + ROW]);
                        lanes[ROW] = _mm256_fmadd_ps(least, sum, lanes[ROW]);
                    }
                });
            }
            lanes
        }
    };
}

product_256!(avx2, run_avx2, half_avx2, "avx2,f16c,fma", start_at_zero, add_small, add_shifted);
product_256!(avx_vnni, run_vnni, half_vnni, "avx2,avxvnni,f16c,fma", start_at_offset, add_vnni, add_vnni);

#[inline]
#[target_feature(enable = "avx2")]
fn line_256(bytes: &[u8], at: usize) -> __m256i {
    let line = &bytes[at..at + HALF_LINE];
    // SAFETY: the slice has as many bytes; the load needs no alignment.
    unsafe { _mm256_loadu_si256(line.as_ptr().cast()) }
}

/// Eight half-precision numbers.
#[inline]
#[target_feature(enable = "avx2,f16c")]
fn halves_256(bytes: &[u8], at: usize) -> __m256 {
    let halves = &bytes[at..at + HALF_LINE / 2];
    // SAFETY: the slice has as many bytes; the load needs no alignment.
    _mm256_cvtph_ps(unsafe { _mm_loadu_si128(halves.as_ptr().cast()) })
}

#[inline]
#[target_feature(enable = "avx2")]
fn start_at_zero(_: &InputBlock, _: usize) -> __m256i {
    _mm256_setzero_si256()
}

/// What the 128s in the weights will add too much, taken off beforehand.
#[inline]
#[target_feature(enable = "avx2")]
fn start_at_offset(input: &InputBlock, row: usize) -> __m256i {
    _mm256_set1_epi32(input.offsets[row])
}

#[inline]
#[target_feature(enable = "avx2,avxvnni")]
fn add_vnni(totals: __m256i, weights: __m256i, x: __m256i) -> __m256i {
    _mm256_dpbusd_avx_epi32(totals, weights, x)
}

/// Weights up to 15: sums of two products fit 16 bits.
#[inline]
#[target_feature(enable = "avx2")]
fn add_small(totals: __m256i, weights: __m256i, x: __m256i) -> __m256i {
    let pairs = _mm256_maddubs_epi16(weights, x);
    _mm256_add_epi32(totals, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)))
}

/// Weights around 128. Without the shift and with the sign moved to the inputs, two products are at most
/// `2 * 128 * 127`, which fits 16 bits.
#[inline]
#[target_feature(enable = "avx2")]
fn add_shifted(totals: __m256i, weights: __m256i, x: __m256i) -> __m256i {
    let weights = _mm256_xor_si256(weights, _mm256_set1_epi8(-128));
    add_small(totals, _mm256_abs_epi8(weights), _mm256_sign_epi8(x, weights))
}
