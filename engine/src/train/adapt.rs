//! A frozen matrix with its LoRA pairs: `y = W x + s B A x`, and the gradients of `A`, `B` and `x`.

use super::matmul::{Store, Threads, View, ViewMut, matmul};
use super::sized;
use crate::lora::{Group, Member};
use crate::weights::Matrix;

/// A fused matrix, the pairs on it and their scale `alpha / rank`.
#[derive(Clone, Copy)]
pub struct Linear<'a> {
    pub matrix: &'a Matrix,
    pub group: Option<&'a Group>,
    pub scale: f32,
}

impl Linear<'_> {
    /// `y = [y +] (W + s B A) x` for `x: [rows, inputs]`, `y: [rows, outputs]`; keeps `A x` in `bottleneck`.
    pub fn forward(&self, y: &mut [f32], store: Store, x: &[f32], rows: usize, bottleneck: &mut Vec<f32>) {
        let (inputs, outputs) = (self.matrix.cols, self.matrix.rows);
        let x = View::new(x, rows, inputs);
        matmul(ViewMut::new(y, rows, outputs), store, 1.0, x, View::from(self.matrix).t(), Threads::Pool);
        let Some(group) = self.group else { return };
        let width = group.a.rows;
        let narrow = sized(bottleneck, rows * width);
        matmul(
            ViewMut::new(narrow, rows, width),
            Store::Set,
            1.0,
            x,
            View::from(&group.a).t(),
            Threads::Pool,
        );
        for (index, member) in group.members.iter().enumerate() {
            let columns = ViewMut::strided(&mut y[member.first_row..], rows, member.b.rows, outputs);
            let narrow = columns_of(narrow, rows, width, index, member);
            matmul(columns, Store::Add, self.scale, narrow, View::from(&member.b).t(), Threads::Pool);
        }
    }

    /// `dx = (W + s B A)^T dy` for `dy: [rows, outputs]`. Needs [`Linear::narrow_gradient`] of the same `dy` before.
    pub fn input_gradient(&self, dx: &mut [f32], dy: &[f32], rows: usize, scratch: &Scratch) {
        let (inputs, outputs) = (self.matrix.cols, self.matrix.rows);
        let frozen = ViewMut::new(dx, rows, inputs);
        matmul(frozen, Store::Set, 1.0, View::new(dy, rows, outputs), self.matrix.into(), Threads::Pool);
        if let Some(group) = self.group {
            let narrow = View::new(&scratch.d_narrow, rows, group.a.rows);
            let adapted = ViewMut::new(dx, rows, inputs);
            matmul(adapted, Store::Add, 1.0, narrow, (&group.a).into(), Threads::Pool);
        }
    }

    /// Leaves `s B^T dy`, the gradient of the bottleneck, in the scratch.
    pub fn narrow_gradient(&self, dy: &[f32], rows: usize, scratch: &mut Scratch) {
        let Some(group) = self.group else { return };
        let (width, outputs) = (group.a.rows, self.matrix.rows);
        let d_narrow = sized(&mut scratch.d_narrow, rows * width);
        for (index, member) in group.members.iter().enumerate() {
            let dy = View::strided(&dy[member.first_row..], rows, member.b.rows, outputs);
            let rank = member.b.cols;
            let d_columns = ViewMut::strided(&mut d_narrow[index * rank..], rows, rank, width);
            matmul(d_columns, Store::Set, self.scale, dy, (&member.b).into(), Threads::Pool);
        }
    }

    /// Adds the gradients of the pairs: `dB_i += s dy_i^T (A_i x)`, `dA += (s B^T dy)^T x`. Needs
    /// [`Linear::narrow_gradient`] of the same `dy` before. `gradients` exist when the group does.
    pub fn pair_gradients(&self, gradients: Option<&mut Group>, io: &Backward, scratch: &mut Scratch) {
        let (Some(group), Some(gradients)) = (self.group, gradients) else { return };
        let (rows, width, outputs) = (io.rows, group.a.rows, self.matrix.rows);
        for (index, member) in group.members.iter().enumerate() {
            let dy = View::strided(&io.dy[member.first_row..], rows, member.b.rows, outputs);
            let narrow = columns_of(io.bottleneck, rows, width, index, member);
            // The product is made transposed: long contiguous rows suit the kernel, columns of length `rank` do not.
            let transposed = sized(&mut scratch.d_b, member.b.data.len());
            let product = ViewMut::new(transposed, member.b.cols, member.b.rows);
            matmul(product, Store::Set, self.scale, narrow.t(), dy, Threads::Pool);
            add_transposed(&mut gradients.members[index].b, transposed);
        }
        let (d_narrow, x) =
            (View::new(&scratch.d_narrow, rows, width), View::new(io.x, rows, self.matrix.cols));
        matmul((&mut gradients.a).into(), Store::Add, 1.0, d_narrow.t(), x, Threads::Pool);
    }
}

/// What the gradients of a [`Linear`]'s pairs are made from.
pub struct Backward<'a> {
    /// Gradient of the output, `[rows, outputs]`
    pub dy: &'a [f32],
    /// Input of the forward pass, `[rows, inputs]`
    pub x: &'a [f32],
    pub rows: usize,
    /// `A x`, as the forward pass left it
    pub bottleneck: &'a [f32],
}

/// Scratch memory of the gradients of a [`Linear`], reused between calls.
#[derive(Default)]
pub struct Scratch {
    /// `[rows, members * rank]`
    d_narrow: Vec<f32>,
    /// `[rank, outputs]`
    d_b: Vec<f32>,
}

/// The columns of one member in `[rows, width]`.
fn columns_of<'a>(narrow: &'a [f32], rows: usize, width: usize, index: usize, member: &Member) -> View<'a> {
    let rank = member.b.cols;
    View::strided(&narrow[index * rank..], rows, rank, width)
}

/// `dst += src^T` for `src: [dst.cols, dst.rows]`.
fn add_transposed(dst: &mut Matrix, src: &[f32]) {
    let (rows, cols) = (dst.rows, dst.cols);
    for (i, row) in dst.data.chunks_exact_mut(cols).enumerate() {
        for (j, value) in row.iter_mut().enumerate() {
            *value += src[j * rows + i];
        }
    }
}
