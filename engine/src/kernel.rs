//! The arithmetic of a forward pass: dot products, softmax, RMS norm, SwiGLU.
//!
//! **Invariant:** every output element is summed in an order that depends only on the length of its own sum, never on
//! how many rows, sequences or threads share the call. That is what makes a batched answer equal to a lone one bit by
//! bit. A general matrix product picks its blocking by shape and so cannot promise this; hence the small kernel here.
//! In f32 the order does differ between instruction sets (AVX-512, AVX2, NEON, ...), which are chosen at run time. Products of
//! quantised matrices are the same to the bit in all of them: sums of whole numbers are exact, and each block is then added by two
//! fused operations in the order of the blocks. So a level may take different ways for few rows and for many.

use std::{marker::PhantomData, ops::Range};

pub(crate) use self::{
    inputs::{InputWriter, Inputs, Wanted},
    linear::{Linear, products},
    packed::{BLOCK, Block, Format, KEPT_PANELS, PANEL, Sums, TILE},
};
use self::{
    level::Kind,
    packed::{InputBlock, InputPart, Panel},
};
pub use self::{
    level::{Level, UnknownLevel},
    limits::Limits,
};
use half::f16;
use pulp::{Arch, Simd, WithSimd};

/// Repeats a block for each literal as the constant `$i`, where the condition holds. Sums must be named by
/// constants to stay in registers: left to itself the compiler unrolls too late and keeps them on the stack, at
/// half the speed.
macro_rules! unroll {
    ($i:ident in [$($value:literal)*] if $condition:expr, $body:block) => {$(
        {
            const $i: usize = $value;
            if $condition $body
        }
    )*};
}

#[cfg(target_arch = "aarch64")]
mod arm;
mod inputs;
mod level;
mod limits;
mod linear;
mod packed;
mod scalar;
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod tiles;
#[cfg(target_arch = "x86_64")]
mod x86;

/// A row-major `[rows, width]` output of which several tasks write disjoint blocks at once.
pub(crate) struct Output<'a> {
    start: *mut f32,
    rows: usize,
    width: usize,
    borrow: PhantomData<&'a mut [f32]>,
}

// SAFETY: the pointer is only dereferenced in `block`, whose contract forbids overlap.
unsafe impl Sync for Output<'_> {}

impl<'a> Output<'a> {
    pub(crate) fn new(data: &'a mut [f32], width: usize) -> Self {
        let rows = data.len().checked_div(width).unwrap_or(0);
        Self { start: data.as_mut_ptr(), rows, width, borrow: PhantomData }
    }

    /// Columns `columns` of row `row`.
    ///
    /// # Safety
    /// While the slice lives nobody else may hold one that overlaps it.
    #[expect(clippy::mut_from_ref, reason = "disjointness is the caller's promise")]
    pub(crate) unsafe fn block(&self, row: usize, columns: Range<usize>) -> &mut [f32] {
        assert!(row < self.rows && columns.start <= columns.end && columns.end <= self.width);
        // SAFETY: inside the borrowed slice by the assertion, not aliased by the contract.
        unsafe {
            let start = self.start.add(row * self.width + columns.start);
            std::slice::from_raw_parts_mut(start, columns.len())
        }
    }
}

/// All dot products of the rows of `x` `[.., k]` with the rows of `w` `[.., k]`, handed to `put(x row, w row, dot)`.
struct Dots<'a, P> {
    x: &'a [f32],
    w: &'a [f32],
    k: usize,
    put: P,
}

impl<P: FnMut(usize, usize, f32)> WithSimd for Dots<'_, P> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(mut self, simd: S) {
        let rows = self.x.len() / self.k;
        // 24 sums and their operands fill 32 registers; 8 sums fill 16.
        let tallest = if S::REGISTER_COUNT >= 32 { 6 } else { 2 };
        let mut row = 0;
        while row < rows {
            let left = rows - row;
            // 8 rows go as 4 and 4: strips of 6 and 2 would be slower.
            let even = if left < 2 * tallest { left.div_ceil(2) } else { tallest };
            let height = if left <= tallest { left } else { even };
            match height {
                1 => self.strip::<S, 1, 8>(simd, row),
                2 if tallest == 2 => self.strip::<S, 2, 4>(simd, row),
                2 => self.strip::<S, 2, 8>(simd, row),
                3 => self.strip::<S, 3, 8>(simd, row),
                4 => self.strip::<S, 4, 4>(simd, row),
                5 => self.strip::<S, 5, 4>(simd, row),
                _ => self.strip::<S, 6, 4>(simd, row),
            }
            row += height;
        }
    }
}

impl<P: FnMut(usize, usize, f32)> Dots<'_, P> {
    /// `M` rows of `x` from `row` against every row of `w`, `N` at a time.
    #[inline(always)]
    fn strip<S: Simd, const M: usize, const N: usize>(&mut self, simd: S, row: usize) {
        let (k, columns) = (self.k, self.w.len() / self.k);
        let x: [&[f32]; M] = std::array::from_fn(|m| &self.x[(row + m) * k..][..k]);
        let mut column = 0;
        while column + N <= columns {
            let w: [&[f32]; N] = std::array::from_fn(|n| &self.w[(column + n) * k..][..k]);
            self.tile::<S, M, N>(simd, row, column, x, w);
            column += N;
        }
        while column < columns {
            self.tile::<S, M, 1>(simd, row, column, x, [&self.w[column * k..][..k]]);
            column += 1;
        }
    }

    #[inline(always)]
    fn tile<S: Simd, const M: usize, const N: usize>(
        &mut self,
        simd: S,
        row: usize,
        column: usize,
        x: [&[f32]; M],
        w: [&[f32]; N],
    ) {
        let lanes = self.k / S::F32_LANES;
        let (xs, ws) = (x.map(|x| &S::as_simd_f32s(x).0[..lanes]), w.map(|w| &S::as_simd_f32s(w).0[..lanes]));
        let mut sums = [[simd.splat_f32s(0.0); N]; M];
        for i in 0..lanes {
            let mut w = [simd.splat_f32s(0.0); N];
            unroll!(COLUMN in [0 1 2 3 4 5 6 7] if COLUMN < N, { w[COLUMN] = ws[COLUMN][i]; });
            unroll!(ROW in [0 1 2 3 4 5] if ROW < M, {
                let x = xs[ROW][i];
                unroll!(COLUMN in [0 1 2 3 4 5 6 7] if COLUMN < N, {
                    sums[ROW][COLUMN] = simd.mul_add_e_f32s(x, w[COLUMN], sums[ROW][COLUMN]);
                });
            });
        }
        let mut dots = [[0.0; N]; M];
        unroll!(ROW in [0 1 2 3 4 5] if ROW < M, {
            unroll!(COLUMN in [0 1 2 3 4 5 6 7] if COLUMN < N, {
                dots[ROW][COLUMN] = simd.reduce_sum_f32s(sums[ROW][COLUMN]);
            });
        });
        for (m, dots) in dots.iter_mut().enumerate() {
            for (n, dot) in dots.iter_mut().enumerate() {
                for i in lanes * S::F32_LANES..self.k {
                    *dot += x[m][i] * w[n][i];
                }
                (self.put)(row + m, column + n, *dot);
            }
        }
    }
}

/// [`InputPart::nearest`], by the level's instructions.
fn nearest(level: Level, numbers: &[f32; BLOCK]) -> InputPart {
    match level.kind {
        // SAFETY: a level exists only where its instructions do.
        #[cfg(target_arch = "x86_64")]
        Kind::Avx512 => unsafe { x86::nearest_512(numbers) },
        // SAFETY: as above.
        #[cfg(target_arch = "x86_64")]
        Kind::Avx2 | Kind::AvxVnni => unsafe { x86::nearest_256(numbers) },
        _ => InputPart::nearest(numbers),
    }
}

/// As [`mix`] with half-precision values, to the bit. Of each row of `weights` `[n, stride]` the first numbers count, one
/// for each row of `values`; those after them must be zero. `wide` is scratch.
pub(crate) fn mix_half(
    level: Level,
    weights: &[f32],
    stride: usize,
    values: &[f16],
    width: usize,
    mixed: &mut [f32],
    wide: &mut Vec<f32>,
) {
    #[cfg(target_arch = "x86_64")]
    if level.kind == Kind::Avx512 && width.is_multiple_of(PANEL) {
        // SAFETY: the level exists only where its instructions do.
        unsafe { x86::mix_half(weights, stride, values, width, mixed) };
        return;
    }
    wide.resize(stride * width, 0.0);
    let (seen, rest) = wide.split_at_mut(values.len());
    widen(level, values, seen);
    rest.fill(0.0);
    mix(level.arch(), weights, wide, width, mixed);
}

/// Half-precision numbers in full, as many as both have.
pub(crate) fn widen(level: Level, halves: &[f16], numbers: &mut [f32]) {
    match level.kind {
        // SAFETY: a level exists only where its instructions do; all of these have half precision.
        #[cfg(target_arch = "x86_64")]
        Kind::Avx2 | Kind::AvxVnni | Kind::Avx512 => unsafe { x86::widen(halves, numbers) },
        _ => halves.iter().zip(numbers).for_each(|(half, number)| *number = half.to_f32()),
    }
}

/// The nearest half-precision numbers, as many as both have.
pub(crate) fn narrow(level: Level, numbers: &[f32], halves: &mut [f16]) {
    match level.kind {
        // SAFETY: as in `widen`.
        #[cfg(target_arch = "x86_64")]
        Kind::Avx2 | Kind::AvxVnni | Kind::Avx512 => unsafe { x86::narrow(numbers, halves) },
        _ => numbers.iter().zip(halves).for_each(|(number, half)| *half = f16::from_f32(*number)),
    }
}

/// Products of a panel with `rows` rows of inputs, by the level's kernel.
fn quantised_product(level: Level, panel: Panel, inputs: &[InputBlock], rows: usize, sums: &mut Sums) {
    match level.kind {
        Kind::Scalar => scalar::product(panel, inputs, rows, sums),
        // SAFETY: a level exists only where its instructions do.
        #[cfg(target_arch = "x86_64")]
        Kind::Avx2 => unsafe { x86::avx2(panel, inputs, rows, sums) },
        // SAFETY: as above.
        #[cfg(target_arch = "x86_64")]
        Kind::AvxVnni => unsafe { x86::avx_vnni(panel, inputs, rows, sums) },
        // SAFETY: as above.
        #[cfg(target_arch = "x86_64")]
        Kind::Avx512 => unsafe { x86::avx512(panel, inputs, rows, sums) },
        // SAFETY: as above.
        #[cfg(target_arch = "aarch64")]
        Kind::Neon => unsafe { arm::neon(panel, inputs, rows, sums) },
        // SAFETY: as above.
        #[cfg(target_arch = "aarch64")]
        Kind::NeonDot => unsafe { arm::neon_dot(panel, inputs, rows, sums) },
    }
}

/// `mixed[i] = Σ_p weights[i][p] values[p]`: `weights` is `[n, p]`, `values` `[p, width]`, `mixed` `[n, width]`.
pub(crate) fn mix(arch: Arch, weights: &[f32], values: &[f32], width: usize, mixed: &mut [f32]) {
    arch.dispatch(Mix { weights, values, width, mixed });
}

struct Mix<'a> {
    weights: &'a [f32],
    values: &'a [f32],
    width: usize,
    mixed: &'a mut [f32],
}

impl WithSimd for Mix<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        weighted_sums(simd, self.weights, self.values, self.width, self.mixed);
    }
}

/// Turns the first `visible` of `scores` (at least one) into `e^(scale * (score - greatest))`, the others into zeros.
/// Returns the greatest, scaled, and the sum.
pub(crate) fn exponentials(arch: Arch, scores: &mut [f32], visible: usize, scale: f32) -> (f32, f32) {
    arch.dispatch(Exponentials { scores, visible, scale })
}

struct Exponentials<'a> {
    scores: &'a mut [f32],
    visible: usize,
    scale: f32,
}

impl WithSimd for Exponentials<'_> {
    type Output = (f32, f32);

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) -> (f32, f32) {
        let Self { scores, visible, scale } = self;
        scores[visible..].fill(f32::NEG_INFINITY);
        let (heads, tail) = S::as_simd_f32s(scores);
        let lanes = heads.iter().fold(simd.splat_f32s(f32::NEG_INFINITY), |a, b| simd.max_f32s(a, *b));
        let highest = tail.iter().fold(simd.reduce_max_f32s(lanes), |a, b| if *b > a { *b } else { a });
        for score in scores.iter_mut() {
            *score = exp((*score - highest) * scale);
        }
        scores[visible..].fill(0.0);
        let (heads, tail) = S::as_simd_f32s(scores);
        let mut sums = simd.splat_f32s(0.0);
        for &head in heads {
            sums = simd.add_f32s(sums, head);
        }
        (highest * scale, simd.reduce_sum_f32s(sums) + tail.iter().sum::<f32>())
    }
}

/// `mixed[i] = Σ_p probabilities[i][p] values[p]`, positions in ascending order.
#[inline(always)]
fn weighted_sums<S: Simd>(
    simd: S,
    probabilities: &[f32],
    values: &[f32],
    head_dim: usize,
    mixed: &mut [f32],
) {
    let positions = values.len() / head_dim;
    // As many rows as share one reading of the values: 4 vectors of each fit the registers.
    let tallest = if S::REGISTER_COUNT >= 32 { 6 } else { 2 };
    let strips = probabilities.chunks(tallest * positions).zip(mixed.chunks_mut(tallest * head_dim));
    for (probabilities, mixed) in strips {
        let sums = WeightedSums { probabilities, values, head_dim, mixed };
        match probabilities.len() / positions {
            1 => sums.strip::<S, 1>(simd),
            2 => sums.strip::<S, 2>(simd),
            3 => sums.strip::<S, 3>(simd),
            4 => sums.strip::<S, 4>(simd),
            5 => sums.strip::<S, 5>(simd),
            _ => sums.strip::<S, 6>(simd),
        }
    }
}

struct WeightedSums<'a> {
    probabilities: &'a [f32],
    values: &'a [f32],
    head_dim: usize,
    mixed: &'a mut [f32],
}

impl WeightedSums<'_> {
    /// `M` rows, all columns.
    #[inline(always)]
    fn strip<S: Simd, const M: usize>(mut self, simd: S) {
        let vectors = self.head_dim / S::F32_LANES;
        let mut first = 0;
        while first + 4 <= vectors {
            self.tile::<S, M, 4>(simd, first);
            first += 4;
        }
        while first < vectors {
            self.tile::<S, M, 1>(simd, first);
            first += 1;
        }
        self.tail::<M>(vectors * S::F32_LANES);
    }

    /// `M` rows, `N` vectors of columns from vector `first`.
    #[inline(always)]
    fn tile<S: Simd, const M: usize, const N: usize>(&mut self, simd: S, first: usize) {
        let positions = self.values.len() / self.head_dim;
        let probabilities: [&[f32]; M] =
            std::array::from_fn(|m| &self.probabilities[m * positions..][..positions]);
        let mut sums = [[simd.splat_f32s(0.0); N]; M];
        for (p, value) in self.values.chunks_exact(self.head_dim).enumerate() {
            let value = &S::as_simd_f32s(value).0[first..first + N];
            unroll!(ROW in [0 1 2 3 4 5] if ROW < M, {
                let weight = simd.splat_f32s(probabilities[ROW][p]);
                unroll!(COLUMN in [0 1 2 3] if COLUMN < N, {
                    sums[ROW][COLUMN] = simd.mul_add_e_f32s(weight, value[COLUMN], sums[ROW][COLUMN]);
                });
            });
        }
        unroll!(ROW in [0 1 2 3 4 5] if ROW < M, {
            let row = &mut self.mixed[ROW * self.head_dim..][..self.head_dim];
            let row = &mut S::as_mut_simd_f32s(row).0[first..first + N];
            unroll!(COLUMN in [0 1 2 3] if COLUMN < N, { row[COLUMN] = sums[ROW][COLUMN]; });
        });
    }

    /// `M` rows, the columns from `first` that fill no vector.
    #[inline(always)]
    fn tail<const M: usize>(&mut self, first: usize) {
        let positions = self.values.len() / self.head_dim;
        for m in 0..M {
            let probabilities = &self.probabilities[m * positions..][..positions];
            for column in first..self.head_dim {
                let values = self.values.iter().skip(column).step_by(self.head_dim);
                self.mixed[m * self.head_dim + column] =
                    probabilities.iter().zip(values).map(|(p, v)| p * v).sum();
            }
        }
    }
}

/// `e^x` to about one unit in the last place: Cephes' `expf` without branches, so that loops over it vectorise and
/// every machine computes the same. Below -87.3 the result is the smallest normal number rather than zero.
#[inline(always)]
pub(crate) fn exp(x: f32) -> f32 {
    const ROUND: f32 = 12_582_912.0; // 1.5 * 2^23: adding it rounds to an integer, kept in the low bits
    let x = x.clamp(-87.3, 88.3);
    let shifted = x * std::f32::consts::LOG2_E + ROUND;
    let n = shifted - ROUND;
    let r = (x - n * 0.693_359_4) - n * -2.121_944_4e-4;
    let mut p = 1.987_569_1e-4;
    for c in [1.398_199_9e-3, 8.333_452e-3, 4.166_579_6e-2, 1.666_666_5e-1, 0.5] {
        p = p * r + c;
    }
    let p = p * r * r + r + 1.0;
    let exponent = shifted.to_bits().wrapping_sub(ROUND.to_bits()).wrapping_add(127) << 23;
    p * f32::from_bits(exponent)
}

/// Root-mean-square norm of `x`, times `gain` (Zhang and Sennrich 2019), as row `row` of inputs.
///
/// # Safety
/// Nobody else may be writing the same row.
pub(crate) unsafe fn norm_row(
    arch: Arch,
    x: &[f32],
    gain: &[f32],
    eps: f32,
    inputs: &InputWriter,
    row: usize,
) {
    arch.dispatch(NormRow { x, gain, eps, inputs, row });
}

// Closures are not compiled for the instruction set that they are dispatched to; methods that are always inlined are.
struct NormRow<'a> {
    x: &'a [f32],
    gain: &'a [f32],
    eps: f32,
    inputs: &'a InputWriter<'a>,
    row: usize,
}

impl WithSimd for NormRow<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { x, gain, eps, inputs, row } = self;
        let mut square = 0.0;
        Dots { x, w: x, k: x.len(), put: |_, _, dot| square = dot }.with_simd(simd);
        let scale = 1.0 / (square / x.len() as f32 + eps).sqrt();
        for (block, (x, gain)) in x.chunks(BLOCK).zip(gain.chunks(BLOCK)).enumerate() {
            let mut numbers = [0.0; BLOCK];
            for ((number, x), gain) in numbers.iter_mut().zip(x).zip(gain) {
                *number = x * scale * gain;
            }
            // SAFETY: by the contract of `norm_row`.
            unsafe { inputs.put(row, block, &numbers) };
        }
    }
}

/// SwiGLU, `silu(gate) * up` (Shazeer 2020), of two panels of gates and the two of the same outputs' ups, as block
/// `block` of row `row` of inputs.
///
/// # Safety
/// Nobody else may be writing the same block of the same row.
pub(crate) unsafe fn gate_block(
    arch: Arch,
    sums: &[[f32; PANEL]; 4],
    inputs: &InputWriter,
    row: usize,
    block: usize,
) {
    arch.dispatch(GateBlock { sums, inputs, row, block });
}

struct GateBlock<'a> {
    sums: &'a [[f32; PANEL]; 4],
    inputs: &'a InputWriter<'a>,
    row: usize,
    block: usize,
}

impl WithSimd for GateBlock<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        let (gates, ups) = self.sums.as_flattened().split_at(BLOCK);
        let mut gated = [0.0; BLOCK];
        for ((gated, &gate), &up) in gated.iter_mut().zip(gates).zip(ups) {
            *gated = gate / (1.0 + exp(-gate)) * up;
        }
        // SAFETY: by the contract of `gate_block`.
        unsafe { self.inputs.put(self.row, self.block, &gated) };
    }
}

/// Adds to the outputs of a panel, for each rank, its factor times its sixteen numbers.
pub(crate) fn add_ranks(arch: Arch, ranks: &[[f32; PANEL]], factors: &[f32], outputs: &mut [f32; PANEL]) {
    arch.dispatch(AddRanks { ranks, factors, outputs });
}

struct AddRanks<'a> {
    ranks: &'a [[f32; PANEL]],
    factors: &'a [f32],
    outputs: &'a mut [f32; PANEL],
}

impl WithSimd for AddRanks<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        let mut sums = *self.outputs;
        for (rank, factor) in self.ranks.iter().zip(self.factors) {
            for (sum, number) in sums.iter_mut().zip(rank) {
                *sum += factor * number;
            }
        }
        *self.outputs = sums;
    }
}

/// `a += b`
#[inline(always)]
pub(crate) fn add(a: &mut [f32], b: &[f32]) {
    a.iter_mut().zip(b).for_each(|(a, b)| *a += b);
}

#[cfg(test)]
mod tests {
    use rand::{RngExt, SeedableRng, rngs::ChaCha8Rng};

    use super::*;

    fn random(n: usize, seed: u64) -> Vec<f32> {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        (0..n).map(|_| rng.random_range(-1.0..1.0)).collect()
    }

    /// Every instruction set that this machine can run: the best is one of several.
    fn arches() -> Vec<Arch> {
        #[cfg(target_arch = "x86_64")]
        let narrower = pulp::x86::V3::try_new().map(Arch::V3);
        #[cfg(not(target_arch = "x86_64"))]
        let narrower = None;
        [Arch::Scalar, Arch::new()].into_iter().chain(narrower).collect()
    }

    #[test]
    fn every_instruction_set_sums_every_shape_right() {
        for arch in arches() {
            for (rows, k, columns) in (1..14).flat_map(|rows| [(rows, 37, 11), (rows, 64, 8), (rows, 1, 1)]) {
                let (x, w) = (random(rows * k, 1), random(columns * k, 2));
                let mut seen = vec![0; rows * columns];
                let put = |row: usize, column: usize, dot: f32| {
                    let (x, w) = (&x[row * k..][..k], &w[column * k..][..k]);
                    let want: f32 = x.iter().zip(w).map(|(a, b)| a * b).sum();
                    assert!(
                        (dot - want).abs() < 1e-5,
                        "{rows}x{k}x{columns} at {row}, {column}: {dot} {want}"
                    );
                    seen[row * columns + column] += 1;
                };
                arch.dispatch(Dots { x: &x, w: &w, k, put });
                assert!(seen.iter().all(|n| *n == 1), "{rows}x{k}x{columns}: {seen:?}");
            }
        }
    }

    #[test]
    fn exp_is_close_everywhere() {
        for i in -8000..8000 {
            let x = i as f32 * 0.01091;
            let want = f64::from(x).exp();
            assert!((f64::from(exp(x)) - want).abs() <= 2e-7 * want, "{x}");
        }
        assert!(exp(f32::NEG_INFINITY) < 1e-37);
        assert_eq!(exp(0.0), 1.0);
    }

    #[test]
    fn mixing_matches_a_sum_in_f64() {
        for arch in arches() {
            for (n, positions, width) in [(1, 64, 64), (3, 64, 10), (6, 7, 96), (13, 20, 17), (2, 1, 1)] {
                let (weights, values) = (random(n * positions, 1), random(positions * width, 2));
                let mut mixed = vec![f32::NAN; n * width];
                mix(arch, &weights, &values, width, &mut mixed);
                for (i, mixed) in mixed.iter().enumerate() {
                    let term = |p: usize| {
                        let weight = weights[i / width * positions + p];
                        f64::from(weight) * f64::from(values[p * width + i % width])
                    };
                    let want: f64 = (0..positions).map(term).sum();
                    assert!((f64::from(*mixed) - want).abs() < 1e-5, "{n} {positions} {width} at {i}");
                }
            }
        }
    }

    #[test]
    fn mixing_halves_is_mixing_the_same_numbers_in_full() {
        for level in Level::available() {
            for (n, stride, positions, width) in
                [(1, 64, 64, 64), (3, 64, 5, 80), (8, 7, 7, 16), (2, 9, 3, 10)]
            {
                let (mut weights, values) = (random(n * stride, 1), random(stride * width, 2));
                // Positions that are not there have no weight.
                weights.chunks_exact_mut(stride).for_each(|row| row[positions..].fill(0.0));
                let mut halves = vec![f16::ZERO; stride * width];
                narrow(level, &values, &mut halves);
                let full: Vec<f32> = halves.iter().map(|half| half.to_f32()).collect();
                let (mut got, mut want) = (vec![f32::NAN; n * width], vec![f32::NAN; n * width]);
                let seen = &halves[..positions * width];
                mix_half(level, &weights, stride, seen, width, &mut got, &mut Vec::new());
                mix(level.arch(), &weights, &full, width, &mut want);
                assert_eq!(got, want, "{} {n} {positions} {width}", level.name());
            }
        }
    }

    #[test]
    fn exponentials_are_relative_to_the_greatest_and_hide_the_future() {
        for arch in arches() {
            let mut scores = [1.0, 3.0, 2.0, 99.0, -1.0];
            let (greatest, sum) = exponentials(arch, &mut scores, 3, 0.5);
            let want = [(-1.0_f32).exp(), 1.0, (-0.5_f32).exp(), 0.0, 0.0];
            assert_eq!(greatest, 1.5);
            assert!((sum - want.iter().sum::<f32>()).abs() < 1e-6, "{sum}");
            assert!(scores.iter().zip(want).all(|(got, want)| (got - want).abs() < 1e-6), "{scores:?}");
        }
    }

    #[test]
    fn half_precision_goes_there_and_back_at_every_level() {
        let numbers = random(37, 5);
        for level in Level::available() {
            let (mut halves, mut back) = ([f16::ZERO; 37], [0.0; 37]);
            narrow(level, &numbers, &mut halves);
            widen(level, &halves, &mut back);
            for (i, number) in numbers.iter().enumerate() {
                assert_eq!(
                    (halves[i], back[i]),
                    (f16::from_f32(*number), halves[i].to_f32()),
                    "{}",
                    level.name()
                );
            }
        }
    }

    #[test]
    fn norm_and_gate_match_their_definitions() {
        let mut inputs = Inputs::default();
        let writer = inputs.prepare(Level::best(), 1, 2, Wanted { quantised: false, exact: true });
        // SAFETY: no other thread.
        unsafe { norm_row(Arch::Scalar, &[3.0, 4.0], &[1.0, 2.0], 0.0, &writer, 0) };
        let (y, rms) = (inputs.exact(0, 1), 12.5_f32.sqrt());
        assert!((y[0] - 3.0 / rms).abs() < 1e-6 && (y[1] - 8.0 / rms).abs() < 1e-6 && y[2] == 0.0);
        let mut sums = [[0.0; PANEL]; 4];
        (sums[0][3], sums[2][3], sums[1][1], sums[3][1]) = (1.0, 3.0, -2.0, 5.0);
        let writer = inputs.prepare(Level::best(), 1, BLOCK, Wanted { quantised: false, exact: true });
        // SAFETY: no other thread.
        unsafe { gate_block(Arch::Scalar, &sums, &writer, 0, 0) };
        let y = inputs.exact(0, 1);
        let silu = |x: f32| x / (1.0 + (-x).exp());
        assert!((y[3] - silu(1.0) * 3.0).abs() < 1e-6 && (y[17] - silu(-2.0) * 5.0).abs() < 1e-6);
    }
}
