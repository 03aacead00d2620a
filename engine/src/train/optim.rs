//! AdamW without weight decay (Loshchilov and Hutter, 2019), gradient clipping, and the learning-rate schedule.

use rayon::prelude::*;

use crate::lora::Adapter;

const BETA1: f64 = 0.9;
const BETA2: f64 = 0.999;
const EPSILON: f64 = 1e-8;
/// Values that one parallel task updates.
const TASK: usize = 16_384;

/// First and second moments of every trained value.
#[derive(Clone, Debug, PartialEq)]
pub struct Moments {
    pub first: Adapter,
    pub second: Adapter,
    /// Updates made so far.
    pub updates: usize,
}

impl Moments {
    pub fn new(adapter: &Adapter) -> Self {
        Self { first: adapter.zeros_like(), second: adapter.zeros_like(), updates: 0 }
    }

    /// One update of the adapter: `theta -= lr * m_hat / (sqrt(v_hat) + eps)`, with bias-corrected moments.
    pub fn update(&mut self, adapter: &mut Adapter, gradients: &Adapter, learning_rate: f64) {
        self.updates += 1;
        let correction1 = 1.0 - BETA1.powi(self.updates as i32);
        let correction2 = 1.0 - BETA2.powi(self.updates as i32);
        let step = (learning_rate / correction1) as f32;
        let inverse_root = (1.0 / correction2.sqrt()) as f32;
        let tensors = adapter.tensors_mut().zip(gradients.tensors());
        let moments = self.first.tensors_mut().zip(self.second.tensors_mut());
        for ((theta, g), (m, v)) in tensors.zip(moments) {
            let tasks = theta.par_chunks_mut(TASK).zip(g.par_chunks(TASK));
            let tasks = tasks.zip(m.par_chunks_mut(TASK).zip(v.par_chunks_mut(TASK)));
            tasks.for_each(|((theta, g), (m, v))| {
                for (((theta, g), m), v) in theta.iter_mut().zip(g).zip(m).zip(v) {
                    *m += (1.0 - BETA1) as f32 * (g - *m);
                    *v += (1.0 - BETA2) as f32 * (g * g - *v);
                    *theta -= step * *m / (v.sqrt() * inverse_root + EPSILON as f32);
                }
            });
        }
    }
}

/// Scales the gradients down to a norm of `limit` when it is larger; returns the norm before.
pub fn clip(gradients: &mut Adapter, limit: f32) -> f32 {
    let squares = |tensor: &[f32]| tensor.iter().map(|g| f64::from(*g).powi(2)).sum::<f64>();
    let norm = gradients.tensors().map(squares).sum::<f64>().sqrt() as f32;
    if norm > limit {
        // As PyTorch's `clip_grad_norm_`, which adds 1e-6 to the norm.
        let factor = limit / (norm + 1e-6);
        gradients.tensors_mut().flatten().for_each(|g| *g *= factor);
    }
    norm
}

/// Learning rate of step `step` (from 0) of `total`: a linear rise over `warmup` steps, then half a cosine towards 0.
pub fn learning_rate(peak: f64, step: usize, warmup: usize, total: usize) -> f64 {
    if step < warmup {
        return peak * (step + 1) as f64 / (warmup + 1) as f64;
    }
    let progress = (step - warmup) as f64 / total.saturating_sub(warmup).max(1) as f64;
    peak * 0.5 * (1.0 + (std::f64::consts::PI * progress).cos())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lora::LoraConfig;
    use crate::train::testing::tiny_config;
    use crate::weights::RopeLayout;

    #[test]
    fn the_rate_rises_then_falls_and_never_reaches_zero() {
        let rates: Vec<f64> = (0..20).map(|step| learning_rate(1e-3, step, 3, 20)).collect();
        assert!((rates[0] - 2.5e-4).abs() < 1e-12 && (rates[3] - 1e-3).abs() < 1e-12);
        assert!(rates[..4].windows(2).all(|w| w[0] < w[1]));
        assert!(rates[3..].windows(2).all(|w| w[0] > w[1]));
        assert!(rates[19] > 0.0 && rates[19] < 2e-5);
        assert!(learning_rate(1e-3, 0, 3, 1) > 0.0, "a run shorter than its warm-up");
    }

    #[test]
    fn clipping_keeps_direction_and_leaves_small_gradients_alone() {
        let mut gradients = Adapter::new(&tiny_config(RopeLayout::Halves), &LoraConfig::default());
        let before = gradients.clone();
        let norm = clip(&mut gradients, f32::MAX);
        assert_eq!(gradients, before);
        assert!((clip(&mut gradients, norm / 4.0) - norm).abs() < 1e-6);
        assert!((clip(&mut gradients, f32::MAX) - norm / 4.0).abs() < norm * 1e-5);
    }

    #[test]
    fn the_first_update_moves_each_value_by_the_learning_rate() {
        // With bias correction m_hat = g and v_hat = g^2, so the step is lr * sign(g) wherever g is not tiny.
        let mut adapter = Adapter::new(&tiny_config(RopeLayout::Halves), &LoraConfig::default());
        let (before, gradients) = (adapter.clone(), adapter.clone());
        Moments::new(&adapter).update(&mut adapter, &gradients, 1e-3);
        for (before, after) in before.tensors().flatten().zip(adapter.tensors().flatten()) {
            if before.abs() > 1e-3 {
                assert!((before - after - 1e-3 * before.signum()).abs() < 2e-6, "{before} {after}");
            }
        }
    }
}
