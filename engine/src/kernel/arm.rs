//! The quantised product for NEON, with and without 8-bit dot products.

use std::arch::aarch64::*;

use super::packed::{Format, InputBlock, PANEL, Panel, Sums};

/// Bytes of a register: four outputs' numbers of four columns.
const REGISTER: usize = 16;
/// Registers of a panel's outputs.
const QUARTERS: usize = PANEL / 4;
/// Rows of which the sums fit the registers.
const ROWS: usize = 4;

/// The product, given how the dot products of four neighbours are added to each of four totals.
macro_rules! product {
    ($product:ident, $run:ident, $add:ident, $features:literal) => {
        #[target_feature(enable = $features)]
        pub(super) fn $product(panel: Panel, inputs: &[InputBlock], rows: usize, sums: &mut Sums) {
            for first in (0..rows).step_by(ROWS) {
                match rows - first {
                    1 => $run::<1>(panel, inputs, first, sums),
                    2 => $run::<2>(panel, inputs, first, sums),
                    3 => $run::<3>(panel, inputs, first, sums),
                    _ => $run::<4>(panel, inputs, first, sums),
                }
            }
        }

        /// Sums of `M` rows from `first`, four outputs at a time.
        #[target_feature(enable = $features)]
        fn $run<const M: usize>(panel: Panel, inputs: &[InputBlock], first: usize, sums: &mut Sums) {
            let (lines, parts) = if panel.format == Format::Four { (4, 2) } else { (8, 1) };
            for quarter in 0..QUARTERS {
                let at = quarter * REGISTER;
                let mut lanes = [vdupq_n_f32(0.0); M];
                let quants = panel.quants.chunks_exact(lines * QUARTERS * REGISTER);
                let scales = panel.scales.chunks_exact(parts * 2 * PANEL);
                for ((quants, scales), input) in quants.zip(scales).zip(inputs) {
                    let mut totals = [vdupq_n_s32(0); M];
                    for line in 0..lines {
                        let bytes = load(quants, line * QUARTERS * REGISTER + at);
                        if panel.format == Format::Four {
                            let low = vreinterpretq_s8_u8(vandq_u8(bytes, vdupq_n_u8(15)));
                            let high = vreinterpretq_s8_u8(vshrq_n_u8::<4>(bytes));
                            for (row, total) in totals.iter_mut().enumerate() {
                                *total = $add(*total, low, four_at(input, first + row, 8 * line));
                                *total = $add(*total, high, four_at(input, first + row, 8 * line + 4));
                            }
                        } else {
                            // Around zero again: the products are of signed numbers here.
                            let weights = vreinterpretq_s8_u8(veorq_u8(bytes, vdupq_n_u8(128)));
                            for (row, total) in totals.iter_mut().enumerate() {
                                *total = $add(*total, weights, four_at(input, first + row, 4 * line));
                            }
                        }
                    }
                    let scale = halves(scales, at / 2);
                    for (row, (lanes, total)) in lanes.iter_mut().zip(totals).enumerate() {
                        let factor = vmulq_n_f32(scale, input.scales[first + row]);
                        *lanes = vfmaq_f32(*lanes, vcvtq_f32_s32(total), factor);
                        if panel.format == Format::Four {
                            let least = halves(scales, 2 * PANEL + at / 2);
                            *lanes = vfmaq_n_f32(*lanes, least, input.sums[first + row]);
                        }
                    }
                }
                for (sums, lanes) in sums[first..].iter_mut().zip(lanes) {
                    // SAFETY: four floats from a multiple of four.
                    unsafe { vst1q_f32(sums[quarter * 4..quarter * 4 + 4].as_mut_ptr(), lanes) };
                }
            }
        }
    };
}

product!(neon, run_neon, add_wide, "neon");
product!(neon_dot, run_neon_dot, add_dot, "neon,dotprod");

#[inline]
#[target_feature(enable = "neon")]
fn load(bytes: &[u8], at: usize) -> uint8x16_t {
    let register = &bytes[at..at + REGISTER];
    // SAFETY: the slice has as many bytes.
    unsafe { vld1q_u8(register.as_ptr()) }
}

/// Four half-precision numbers in full.
#[inline]
#[target_feature(enable = "neon")]
fn halves(bytes: &[u8], at: usize) -> float32x4_t {
    let bytes = &bytes[at..at + 8];
    let numbers: [f32; 4] =
        std::array::from_fn(|i| half::f16::from_le_bytes([bytes[2 * i], bytes[2 * i + 1]]).to_f32());
    // SAFETY: four floats.
    unsafe { vld1q_f32(numbers.as_ptr()) }
}

/// Four neighbouring inputs, four times.
#[inline]
#[target_feature(enable = "neon")]
fn four_at(input: &InputBlock, row: usize, column: usize) -> int8x16_t {
    let quants = &input.quants[row];
    let four = i32::from_ne_bytes(std::array::from_fn(|i| quants[column + i] as u8));
    vreinterpretq_s8_s32(vdupq_n_s32(four))
}

/// Products of two bytes fit 16 bits, sums of two such products may not: they are widened pair by pair.
#[inline]
#[target_feature(enable = "neon")]
fn add_wide(total: int32x4_t, weights: int8x16_t, x: int8x16_t) -> int32x4_t {
    let low = vpaddlq_s16(vmull_s8(vget_low_s8(weights), vget_low_s8(x)));
    let high = vpaddlq_s16(vmull_s8(vget_high_s8(weights), vget_high_s8(x)));
    vaddq_s32(total, vpaddq_s32(low, high))
}

#[inline]
#[target_feature(enable = "neon,dotprod")]
fn add_dot(mut total: int32x4_t, weights: int8x16_t, x: int8x16_t) -> int32x4_t {
    // The intrinsic is not stable yet.
    // SAFETY: touches nothing but its registers; the feature is enabled here.
    unsafe {
        std::arch::asm!(
            "sdot {total:v}.4s, {weights:v}.16b, {x:v}.16b",
            total = inout(vreg) total,
            weights = in(vreg) weights,
            x = in(vreg) x,
            options(pure, nomem, nostack, preserves_flags)
        );
    }
    total
}
