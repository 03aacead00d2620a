//! The quantised product in plain Rust: for machines without better, and the measure of the others, which give the same to the
//! bit.

use super::packed::{BLOCK, Format, InputBlock, PANEL, Panel, Sums};

pub(super) fn product(panel: Panel, inputs: &[InputBlock], rows: usize, sums: &mut Sums) {
    sums[..rows].fill([0.0; PANEL]);
    for (index, input) in inputs.iter().enumerate() {
        for lane in 0..PANEL {
            let block = panel.block(lane, index);
            let zero = panel.format.zero();
            let weights: [i32; BLOCK] = block.quants.map(|quant| i32::from(quant) - zero);
            for (row, sums) in sums[..rows].iter_mut().enumerate() {
                let products = weights.iter().zip(&input.quants[row]).map(|(w, x)| w * i32::from(*x));
                let factor = block.scale.to_f32() * input.scales[row];
                sums[lane] = (products.sum::<i32>() as f32).mul_add(factor, sums[lane]);
                if panel.format == Format::Four {
                    sums[lane] = block.least.to_f32().mul_add(input.sums[row], sums[lane]);
                }
            }
        }
    }
}
