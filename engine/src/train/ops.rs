//! Row-wise operations and their derivatives: RMS norm, rotary positions, SwiGLU, softmax cross-entropy.
//!
//! Each works on whole rows, in parallel over rows, with the machine's widest vectors (`pulp` compiles a loop once per
//! instruction set and picks at run time). Sums use a fixed number of lanes, so their order never depends on threads.

use std::f32::consts::LOG2_E;

use rayon::prelude::*;

use crate::weights::{Config, RopeLayout};

/// Lanes of a sum: one AVX512 register, two of AVX2, four of NEON.
const LANES: usize = 16;
/// Rows that one parallel task takes: enough work to outweigh the scheduling.
const ROWS_PER_TASK: usize = 16;

/// Runs `work` compiled for the widest vectors of this machine.
#[inline(always)]
pub fn vectorised<R>(work: impl FnOnce() -> R) -> R {
    pulp::Arch::new().dispatch(work)
}

/// `e^x` to about 2 units in the last place, in a form that compilers turn into vector code (Cephes' polynomial).
/// Saturates outside `[-87, 88]`.
#[inline(always)]
pub fn exp(x: f32) -> f32 {
    const ROUND: f32 = 12_582_912.0; // 1.5 * 2^23: adding it leaves the nearest integer in the low bits
    const LN2_HIGH: f32 = 0.693_359_4;
    const LN2_LOW: f32 = -2.121_944_4e-4;
    let x = x.clamp(-87.0, 88.0);
    let shifted = x * LOG2_E + ROUND;
    let n = shifted - ROUND;
    let r = x - n * LN2_HIGH - n * LN2_LOW;
    let mut p = 1.987_569_1e-4;
    for c in [1.398_199_9e-3, 8.333_452e-3, 4.166_579_6e-2, 1.666_666_5e-1, 0.5] {
        p = p * r + c;
    }
    let power_of_two = f32::from_bits(shifted.to_bits().wrapping_add(127) << 23);
    (p * r * r + r + 1.0) * power_of_two
}

/// Sum of `f(i)` over `0..len` in [`LANES`] partial sums.
#[inline(always)]
fn lane_sum(len: usize, f: impl Fn(usize) -> f32) -> f32 {
    let mut lanes = [0.0f32; LANES];
    let whole = len / LANES * LANES;
    for start in (0..whole).step_by(LANES) {
        for (lane, sum) in lanes.iter_mut().enumerate() {
            *sum += f(start + lane);
        }
    }
    let rest: f32 = (whole..len).map(&f).sum();
    lanes.iter().sum::<f32>() + rest
}

/// Dot product of two slices of the same length.
#[inline(always)]
pub fn dot(a: &[f32], b: &[f32]) -> f32 {
    let b = &b[..a.len()];
    lane_sum(a.len(), |i| a[i] * b[i])
}

/// Sum of a slice.
#[inline(always)]
pub fn sum(values: &[f32]) -> f32 {
    lane_sum(values.len(), |i| values[i])
}

#[inline(always)]
fn inverse_rms(row: &[f32], eps: f32) -> f32 {
    1.0 / (dot(row, row) / row.len() as f32 + eps).sqrt()
}

/// Adds `bias` to each row of `x: [rows, bias.len()]`.
pub fn add_to_rows(x: &mut [f32], bias: &[f32]) {
    x.par_chunks_mut(bias.len() * ROWS_PER_TASK).for_each(|rows| {
        vectorised(|| {
            for row in rows.chunks_exact_mut(bias.len()) {
                row.iter_mut().zip(bias).for_each(|(x, b)| *x += b);
            }
        });
    });
}

/// `out = x / rms(x) * weight` for each row of `x: [rows, weight.len()]`.
pub fn rms_norm(out: &mut [f32], x: &[f32], weight: &[f32], eps: f32) {
    let width = weight.len();
    let task = width * ROWS_PER_TASK;
    out.par_chunks_mut(task).zip(x.par_chunks(task)).for_each(|(out, x)| {
        vectorised(|| {
            for (out, x) in out.chunks_exact_mut(width).zip(x.chunks_exact(width)) {
                let scale = inverse_rms(x, eps);
                for ((out, x), weight) in out.iter_mut().zip(x).zip(weight) {
                    *out = x * scale * weight;
                }
            }
        });
    });
}

/// Adds to `dx` the gradient of [`rms_norm`] at `x` for the output gradient `dy`; all `[rows, weight.len()]`.
///
/// With `s = 1/rms(x)`: `dx_i = s w_i dy_i - s^3 x_i / n * sum_j(w_j dy_j x_j)`.
pub fn rms_norm_backward(dx: &mut [f32], dy: &[f32], x: &[f32], weight: &[f32], eps: f32) {
    let width = weight.len();
    let task = width * ROWS_PER_TASK;
    dx.par_chunks_mut(task).zip(dy.par_chunks(task)).zip(x.par_chunks(task)).for_each(|((dx, dy), x)| {
        vectorised(|| {
            let rows = dx.chunks_exact_mut(width).zip(dy.chunks_exact(width)).zip(x.chunks_exact(width));
            for ((dx, dy), x) in rows {
                let scale = inverse_rms(x, eps);
                let projected = lane_sum(width, |i| weight[i] * dy[i] * x[i]);
                let along_x = scale * scale * scale * projected / width as f32;
                for i in 0..width {
                    dx[i] += scale * weight[i] * dy[i] - along_x * x[i];
                }
            }
        });
    });
}

/// Cosines and sines of the rotary angles, `[positions, head_dim / 2]` each.
pub struct RopeTable {
    cos: Vec<f32>,
    sin: Vec<f32>,
    half: usize,
    layout: RopeLayout,
}

/// Whether rows are turned by their position's angle or back, as a gradient is.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Turn {
    Forward,
    Back,
}

impl RopeTable {
    pub fn new(config: &Config, positions: usize) -> Self {
        let half = config.head_dim / 2;
        let frequencies = config.rope_frequencies();
        let angle = |index: usize| (index / half) as f64 * frequencies[index % half];
        let table = |f: fn(f64) -> f64| (0..positions * half).map(|i| f(angle(i)) as f32).collect();
        Self { cos: table(f64::cos), sin: table(f64::sin), half, layout: config.rope }
    }

    /// Positions that the table covers.
    pub fn positions(&self) -> usize {
        self.cos.len() / self.half.max(1)
    }

    /// Turns every head of `row: [heads * head_dim]` in place.
    #[inline(always)]
    pub fn turn(&self, row: &mut [f32], position: usize, turn: Turn) {
        let half = self.half;
        let cos = &self.cos[position * half..][..half];
        let sin = &self.sin[position * half..][..half];
        let sign = if turn == Turn::Forward { 1.0 } else { -1.0 };
        for head in row.chunks_exact_mut(2 * half) {
            match self.layout {
                RopeLayout::Interleaved => {
                    for ((pair, cos), sin) in head.chunks_exact_mut(2).zip(cos).zip(sin) {
                        let (x, y, sin) = (pair[0], pair[1], sign * sin);
                        pair[0] = x * cos - y * sin;
                        pair[1] = x * sin + y * cos;
                    }
                }
                RopeLayout::Halves => {
                    let (low, high) = head.split_at_mut(half);
                    for (((low, high), cos), sin) in low.iter_mut().zip(high).zip(cos).zip(sin) {
                        let (x, y, sin) = (*low, *high, sign * sin);
                        *low = x * cos - y * sin;
                        *high = x * sin + y * cos;
                    }
                }
            }
        }
    }

    /// Turns the query and key columns of `qkv: [tokens, qkv_dim]` in place; `positions[i]` is the position of row `i`.
    pub fn turn_rows(&self, qkv: &mut [f32], positions: &[u32], config: &Config, turn: Turn) {
        let (width, turned) = (config.qkv_dim(), config.q_dim() + config.kv_dim());
        let task = width * ROWS_PER_TASK;
        qkv.par_chunks_mut(task).zip(positions.par_chunks(ROWS_PER_TASK)).for_each(|(rows, positions)| {
            vectorised(|| {
                for (row, position) in rows.chunks_exact_mut(width).zip(positions) {
                    self.turn(&mut row[..turned], *position as usize, turn);
                }
            });
        });
    }
}

#[inline(always)]
fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + exp(-x))
}

/// `act = silu(gate) * up` for rows `[gate | up]` of `gate_up: [rows, 2 * ffn]`.
pub fn swiglu(act: &mut [f32], gate_up: &[f32], ffn: usize) {
    let tasks = act.par_chunks_mut(ffn * ROWS_PER_TASK).zip(gate_up.par_chunks(2 * ffn * ROWS_PER_TASK));
    tasks.for_each(|(act, gate_up)| {
        vectorised(|| {
            for (act, gate_up) in act.chunks_exact_mut(ffn).zip(gate_up.chunks_exact(2 * ffn)) {
                let (gate, up) = gate_up.split_at(ffn);
                for ((act, gate), up) in act.iter_mut().zip(gate).zip(up) {
                    *act = gate * sigmoid(*gate) * up;
                }
            }
        });
    });
}

/// Rebuilds `act` as [`swiglu`] made it and replaces `gate_up` by its gradient, given that of `act`.
pub fn swiglu_backward(gate_up: &mut [f32], act: &mut [f32], d_act: &[f32], ffn: usize) {
    let task = ffn * ROWS_PER_TASK;
    let inputs = act.par_chunks_mut(task).zip(d_act.par_chunks(task));
    gate_up.par_chunks_mut(2 * task).zip(inputs).for_each(|(gate_up, (act, d_act))| {
        vectorised(|| {
            let rows = act.chunks_exact_mut(ffn).zip(d_act.chunks_exact(ffn));
            for (gate_up, (act, d_act)) in gate_up.chunks_exact_mut(2 * ffn).zip(rows) {
                let (gate, up) = gate_up.split_at_mut(ffn);
                swiglu_row_backward(gate, up, act, d_act);
            }
        });
    });
}

/// One row of [`swiglu_backward`], in blocks of [`LANES`], which compilers turn into vector code where they give up on
/// four slices of unknown length.
#[inline(always)]
fn swiglu_row_backward(gate: &mut [f32], up: &mut [f32], act: &mut [f32], d_act: &[f32]) {
    let (gates, gate_rest) = gate.as_chunks_mut::<LANES>();
    let (ups, up_rest) = up.as_chunks_mut::<LANES>();
    let (acts, act_rest) = act.as_chunks_mut::<LANES>();
    let (ds, d_rest) = d_act.as_chunks::<LANES>();
    for (((gate, up), act), d) in gates.iter_mut().zip(ups).zip(acts).zip(ds) {
        let (g, u) = (*gate, *up);
        for i in 0..LANES {
            (act[i], gate[i], up[i]) = swiglu_derivatives(g[i], u[i], d[i]);
        }
    }
    for (((gate, up), act), d) in gate_rest.iter_mut().zip(up_rest).zip(act_rest).zip(d_rest) {
        (*act, *gate, *up) = swiglu_derivatives(*gate, *up, *d);
    }
}

/// `silu(gate) * up`, and the gradients of gate and up for the output gradient `d`.
#[inline(always)]
fn swiglu_derivatives(gate: f32, up: f32, d: f32) -> (f32, f32, f32) {
    let s = sigmoid(gate);
    let silu = gate * s;
    (silu * up, d * up * (s + silu * (1.0 - s)), d * silu)
}

/// What one row of logits said about its target.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct RowLoss {
    /// `-ln p(target)`
    pub loss: f32,
    /// The target had the largest logit.
    pub hit: bool,
}

/// Cross-entropy of one row. The logits are replaced by their gradient times `scale`.
pub fn cross_entropy(logits: &mut [f32], target: usize, scale: f32) -> RowLoss {
    vectorised(|| {
        let max = lane_max(logits);
        let at_target = logits[target];
        let mut lanes = [0.0f32; LANES];
        let mut chunks = logits.chunks_exact_mut(LANES);
        for chunk in &mut chunks {
            for (logit, sum) in chunk.iter_mut().zip(&mut lanes) {
                *logit = exp(*logit - max);
                *sum += *logit;
            }
        }
        let mut rest = 0.0;
        for logit in chunks.into_remainder() {
            *logit = exp(*logit - max);
            rest += *logit;
        }
        let sum = lanes.iter().sum::<f32>() + rest;
        let factor = scale / sum;
        for logit in logits.iter_mut() {
            *logit *= factor;
        }
        logits[target] -= scale;
        RowLoss { loss: sum.ln() - (at_target - max), hit: at_target >= max }
    })
}

/// Cross-entropy of one row without its gradient.
pub fn cross_entropy_loss(logits: &[f32], target: usize) -> RowLoss {
    vectorised(|| {
        let max = lane_max(logits);
        let sum = lane_sum(logits.len(), |i| exp(logits[i] - max));
        RowLoss { loss: sum.ln() - (logits[target] - max), hit: logits[target] >= max }
    })
}

/// The largest value of a slice.
#[inline(always)]
pub fn lane_max(values: &[f32]) -> f32 {
    let larger = |a: f32, b: f32| if a > b { a } else { b };
    let mut lanes = [f32::NEG_INFINITY; LANES];
    let chunks = values.chunks_exact(LANES);
    let rest = chunks.remainder().iter().copied().fold(f32::NEG_INFINITY, larger);
    for chunk in chunks {
        for (value, max) in chunk.iter().zip(&mut lanes) {
            *max = larger(*max, *value);
        }
    }
    lanes.into_iter().fold(rest, larger)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exp_is_within_a_few_units_in_the_last_place() {
        for i in -8000..8000 {
            let x = i as f32 * 0.0105;
            let (got, want) = (f64::from(exp(x)), f64::from(x).exp());
            assert!((got / want - 1.0).abs() < 3e-7, "exp({x}) = {got}, not {want}");
        }
        assert_eq!(exp(0.0), 1.0);
        assert!(exp(-1e30) < 1e-37 && exp(-1e30) >= 0.0);
    }

    #[test]
    fn sums_and_maxima_cover_lengths_around_the_lane_count() {
        for len in [1, 15, 16, 17, 40] {
            let values: Vec<f32> = (0..len).map(|i| ((i * 5) % 17) as f32).collect();
            assert_eq!(dot(&values, &values), values.iter().map(|v| v * v).sum::<f32>());
            assert_eq!(lane_max(&values), values.iter().copied().fold(f32::MIN, f32::max));
        }
    }

    #[test]
    fn cross_entropy_of_equal_logits_is_the_log_of_their_number() {
        let mut logits = [3.0; 20];
        let row = cross_entropy(&mut logits, 4, 2.0);
        assert!((row.loss - 20f32.ln()).abs() < 1e-6);
        assert!((logits[4] - 2.0 * (1.0 / 20.0 - 1.0)).abs() < 1e-6);
        assert!((logits[0] - 2.0 / 20.0).abs() < 1e-6);
        assert!((cross_entropy_loss(&[3.0; 20], 4).loss - row.loss).abs() < 1e-6);
    }

    #[test]
    fn turning_forward_and_back_restores_a_row_in_both_layouts() {
        for rope in [RopeLayout::Interleaved, RopeLayout::Halves] {
            let config = Config {
                hidden: 8,
                layers: 1,
                heads: 2,
                kv_heads: 1,
                head_dim: 4,
                ffn: 8,
                vocab: 8,
                context: 16,
                rope_theta: 100.0,
                rope,
                rope_scaling: None,
                norm_eps: 1e-5,
            };
            let table = RopeTable::new(&config, 16);
            let original: Vec<f32> = (0..8).map(|i| i as f32).collect();
            let mut row = original.clone();
            table.turn(&mut row, 5, Turn::Forward);
            assert!(row.iter().zip(&original).any(|(a, b)| (a - b).abs() > 0.1));
            table.turn(&mut row, 5, Turn::Back);
            assert!(row.iter().zip(&original).all(|(a, b)| (a - b).abs() < 1e-5));
        }
    }
}
