//! The arithmetic of a forward pass: dot products, softmax, RMS norm, SwiGLU.
//!
//! **Invariant:** every output element is summed in an order that depends only on the length of its own sum, never on
//! how many rows, sequences or threads share the call. That is what makes a batched answer equal to a lone one bit by
//! bit. A general matrix product picks its blocking by shape and so cannot promise this; hence the small kernel here.
//! The order does differ between instruction sets (AVX-512, AVX2, NEON, ...), which are chosen at run time.

use std::{marker::PhantomData, ops::Range};

use pulp::{Arch, Simd, WithSimd};
use rayon::prelude::*;

use crate::weights::Matrix;

/// Least weight rows for one parallel task: below this the hand-over costs more than it brings.
const MIN_TASK_ROWS: usize = 16;
/// Most weight rows for one task: 64 rows of 576 inputs stay in a core's second-level cache while all inputs pass.
const MAX_TASK_ROWS: usize = 64;
/// Rows from which element-wise work is spread over threads.
const PARALLEL_ROWS: usize = 8;

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

/// `x Wᵀ`: `x` is `[rows, w.cols]`, the result `[rows, w.rows]`.
pub(crate) fn matmul(x: &[f32], w: &Matrix) -> Vec<f32> {
    let rows = x.len() / w.cols;
    let mut y = vec![0.0; rows * w.rows];
    let output = Output::new(&mut y, w.rows);
    let per_task = w.rows.div_ceil(4 * rayon::current_num_threads()).clamp(MIN_TASK_ROWS, MAX_TASK_ROWS);
    (0..w.rows.div_ceil(per_task)).into_par_iter().for_each(|task| {
        let columns = task * per_task..((task + 1) * per_task).min(w.rows);
        let block = &w.data[columns.start * w.cols..columns.end * w.cols];
        let put = |row: usize, column: usize, dot: f32| {
            let column = columns.start + column;
            // SAFETY: each task writes its own columns.
            let slot = unsafe { output.block(row, column..column + 1) };
            slot[0] = dot;
        };
        Arch::new().dispatch(Dots { x, w: block, k: w.cols, put });
    });
    y
}

/// Repeats a block for each literal as the constant `$i`, where the condition holds. Sums must be named by constants to
/// stay in registers: left to itself the compiler unrolls too late and keeps them on the stack, at half the speed.
macro_rules! unroll {
    ($i:ident in [$($value:literal)*] if $condition:expr, $body:block) => {$(
        {
            const $i: usize = $value;
            if $condition $body
        }
    )*};
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

/// Attention of `queries` `[n, head_dim]` over one key/value head.
///
/// `keys` and `values` are `[positions, head_dim]`; query `i` sees the first `visible[i]` of them (ascending, at least
/// one each). Writes `[n, head_dim]` to `mixed`; `scores` is scratch.
pub(crate) struct Attend<'a> {
    pub queries: &'a [f32],
    pub keys: &'a [f32],
    pub values: &'a [f32],
    pub head_dim: usize,
    pub visible: &'a [usize],
    pub scores: &'a mut Vec<f32>,
    pub mixed: &'a mut [f32],
}

impl Attend<'_> {
    pub(crate) fn run(self) {
        Arch::new().dispatch(self);
    }
}

impl WithSimd for Attend<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { queries, keys, values, head_dim, visible, scores, mixed } = self;
        let longest = visible.last().copied().unwrap_or(0);
        scores.clear();
        scores.resize(visible.len() * longest, 0.0);
        let put = |row: usize, position: usize, dot: f32| scores[row * longest + position] = dot;
        Dots { x: queries, w: &keys[..longest * head_dim], k: head_dim, put }.with_simd(simd);
        let scale = 1.0 / (head_dim as f32).sqrt();
        for (scores, &visible) in scores.chunks_exact_mut(longest).zip(visible) {
            let (seen, future) = scores.split_at_mut(visible);
            softmax(simd, seen, scale);
            future.fill(0.0);
        }
        weighted_sums(simd, scores, &values[..longest * head_dim], head_dim, mixed);
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

/// Softmax of `scale * scores` in place.
#[inline(always)]
fn softmax<S: Simd>(simd: S, scores: &mut [f32], scale: f32) {
    let highest = scores.iter().fold(f32::NEG_INFINITY, |a, &b| if b > a { b } else { a });
    for score in scores.iter_mut() {
        *score = exp((*score - highest) * scale);
    }
    let (heads, tail) = S::as_simd_f32s(scores);
    let mut sums = simd.splat_f32s(0.0);
    for &head in heads {
        sums = simd.add_f32s(sums, head);
    }
    let scale = 1.0 / (simd.reduce_sum_f32s(sums) + tail.iter().sum::<f32>());
    for score in scores.iter_mut() {
        *score *= scale;
    }
}

/// `e^x` to about one unit in the last place: Cephes' `expf` without branches, so that loops over it vectorise and every
/// machine computes the same. Below -87.3 the result is the smallest normal number rather than zero.
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

/// Applies `work` to each row of `output` (`width` wide), with its index, in parallel when there are enough rows.
pub(crate) fn for_each_row(output: &mut [f32], width: usize, work: impl Fn(usize, &mut [f32]) + Sync) {
    if output.len() / width >= PARALLEL_ROWS {
        output.par_chunks_exact_mut(width).enumerate().for_each(|(i, row)| work(i, row));
    } else {
        output.chunks_exact_mut(width).enumerate().for_each(|(i, row)| work(i, row));
    }
}

/// Root-mean-square norm of each row of `x`, times `gain` (Zhang and Sennrich 2019).
pub(crate) fn rms_norm(x: &[f32], gain: &[f32], eps: f32) -> Vec<f32> {
    let width = gain.len();
    let mut y = vec![0.0; x.len()];
    for_each_row(&mut y, width, |i, y| {
        let x = &x[i * width..][..width];
        let mut square = 0.0;
        Arch::new().dispatch(Dots { x, w: x, k: width, put: |_, _, dot| square = dot });
        let scale = 1.0 / (square / width as f32 + eps).sqrt();
        for ((y, x), gain) in y.iter_mut().zip(x).zip(gain) {
            *y = x * scale * gain;
        }
    });
    y
}

/// SwiGLU of `[rows, 2 * ffn]` (gate columns, then up columns): `silu(gate) * up`, `[rows, ffn]` (Shazeer 2020).
pub(crate) fn swiglu(gate_up: &[f32], ffn: usize) -> Vec<f32> {
    let mut y = vec![0.0; gate_up.len() / 2];
    for_each_row(&mut y, ffn, |i, y| {
        let (gate, up) = gate_up[i * 2 * ffn..][..2 * ffn].split_at(ffn);
        Arch::new().dispatch(|| {
            for ((y, &gate), &up) in y.iter_mut().zip(gate).zip(up) {
                *y = gate / (1.0 + exp(-gate)) * up;
            }
        });
    });
    y
}

/// `a += b`
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

    fn matrix(rows: usize, cols: usize, seed: u64) -> Matrix {
        Matrix { rows, cols, data: random(rows * cols, seed) }
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
    fn matmul_matches_a_sum_in_f64() {
        for (rows, k, columns) in [(1, 576, 33), (2, 7, 1), (3, 64, 100), (5, 31, 17), (13, 40, 9), (6, 1, 4)]
        {
            let (x, w) = (random(rows * k, 1), matrix(columns, k, 2));
            let y = matmul(&x, &w);
            for (i, y) in y.iter().enumerate() {
                let (x, w) = (&x[i / columns * k..][..k], w.row(i % columns));
                let want: f64 = x.iter().zip(w).map(|(&a, &b)| f64::from(a) * f64::from(b)).sum();
                assert!((f64::from(*y) - want).abs() < 1e-5, "{rows}x{k}x{columns} at {i}: {y} {want}");
            }
        }
    }

    #[test]
    fn a_row_of_a_product_does_not_depend_on_its_neighbours() {
        let (k, w) = (147, matrix(70, 147, 2));
        let x = random(11 * k, 1);
        let together = matmul(&x, &w);
        for (row, together) in x.chunks(k).zip(together.chunks(w.rows)) {
            assert_eq!(matmul(row, &w), together);
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
    fn attention_matches_the_textbook_and_ignores_the_future() {
        for arch in arches() {
            for head_dim in [4, 16, 20, 64, 96] {
                for visible in [&[1][..], &[2, 7, 9], &[1, 2, 3, 4, 5, 6, 7, 8]] {
                    check_attention(arch, head_dim, visible);
                }
            }
        }
    }

    fn check_attention(arch: Arch, head_dim: usize, visible: &[usize]) {
        let (n, positions) = (visible.len(), visible[visible.len() - 1]);
        let (q, k, v) =
            (random(n * head_dim, 1), random(positions * head_dim, 2), random(positions * head_dim, 3));
        let (queries, keys, values) = (&q[..], &k[..], &v[..]);
        let (mut scores, mut mixed) = (vec![], vec![0.0; n * head_dim]);
        arch.dispatch(Attend {
            queries,
            keys,
            values,
            head_dim,
            visible,
            scores: &mut scores,
            mixed: &mut mixed,
        });
        for (i, &seen) in visible.iter().enumerate() {
            let dot =
                |p: usize| -> f32 { (0..head_dim).map(|d| q[i * head_dim + d] * k[p * head_dim + d]).sum() };
            let weights: Vec<f32> = (0..seen).map(|p| (dot(p) / (head_dim as f32).sqrt()).exp()).collect();
            let total: f32 = weights.iter().sum();
            for d in 0..head_dim {
                let want: f32 = (0..seen).map(|p| weights[p] / total * v[p * head_dim + d]).sum();
                let got = mixed[i * head_dim + d];
                assert!((got - want).abs() < 1e-5, "{head_dim} {visible:?} at {i}, {d}: {got} {want}");
            }
        }
    }

    #[test]
    fn norm_and_swiglu_match_their_definitions() {
        let y = rms_norm(&[3.0, 4.0], &[1.0, 2.0], 0.0);
        let rms = 12.5_f32.sqrt();
        assert!((y[0] - 3.0 / rms).abs() < 1e-6 && (y[1] - 8.0 / rms).abs() < 1e-6);
        let y = swiglu(&[1.0, -2.0, 3.0, 5.0], 2);
        let silu = |x: f32| x / (1.0 + (-x).exp());
        assert!((y[0] - silu(1.0) * 3.0).abs() < 1e-6 && (y[1] - silu(-2.0) * 5.0).abs() < 1e-6);
    }
}
