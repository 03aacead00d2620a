//! A frozen matrix with its LoRA pairs: `y = W x + s B A x`, and the gradients of `A`, `B` and `x`.
//!
//! In bf16 the pairs ride along with the frozen product: `A` is a panel more of it, and `B` a few pairs more of every sum,
//! so that no result is read and written again for them.

use super::bf16::{self, Factors, Packed, Rows};
use super::frozen::{Bf16Matrix, FrozenMatrix};
use super::matmul::{Store, Threads, View, ViewMut, matmul};
use super::sized;
use super::tile::Unit;
use crate::lora::{Adapter, Group, Member, Site};
use crate::weights::Matrix;

/// A fused matrix, the pairs on it and their scale `alpha / rank`.
#[derive(Clone, Copy)]
pub struct Linear<'a> {
    pub matrix: &'a FrozenMatrix,
    pub group: Option<&'a Group>,
    /// The group in bf16; there when both are needed.
    pub packed: Option<&'a PackedGroup>,
    pub scale: f32,
}

/// A group rounded to bf16, for both directions. The `B` of all members are one matrix `[outputs, width]`, with zeros where
/// a member has no part.
#[derive(Clone, Debug, Default)]
pub struct PackedGroup {
    /// `A^T`: `[inputs, width]`
    narrow: Packed,
    /// `B^T`: `[width, outputs]`
    widen: Packed,
    /// `B`: `[outputs, width]`
    narrow_back: Packed,
    /// `A`: `[width, inputs]`
    widen_back: Packed,
    /// `B` as one matrix
    whole: Vec<f32>,
}

impl PackedGroup {
    /// Takes the group's values over, after each update.
    pub fn fill(&mut self, unit: Unit, group: &Group, outputs: usize) {
        let width = group.a.rows;
        self.whole.clear();
        self.whole.resize(outputs * width, 0.0);
        for (index, member) in group.members.iter().enumerate() {
            let rank = member.b.cols;
            let rows = self.whole[member.first_row * width..].chunks_exact_mut(width);
            for (row, b) in rows.zip(member.b.data.chunks_exact(rank)) {
                row[index * rank..][..rank].copy_from_slice(b);
            }
        }
        let b = View::new(&self.whole, outputs, width);
        let a = View::from(&group.a);
        self.narrow.fill(unit, a.t());
        self.widen.fill(unit, b.t());
        self.narrow_back.fill(unit, b);
        self.widen_back.fill(unit, a);
    }
}

/// The groups of every layer in bf16, in the order of [`Site::ALL`]; nothing for what is not adapted.
#[derive(Default)]
pub struct PackedAdapter {
    layers: Vec<[Option<PackedGroup>; 4]>,
}

impl PackedAdapter {
    /// Takes an adapter's values over, for products on `unit`.
    pub fn fill(&mut self, unit: Unit, adapter: &Adapter, outputs: impl Fn(usize, Site) -> usize) {
        self.layers.resize_with(adapter.layers.len(), Default::default);
        for (index, sites) in self.layers.iter_mut().enumerate() {
            for (site, packed) in Site::ALL.into_iter().zip(sites) {
                match adapter.group(index, site) {
                    Some(group) => packed.get_or_insert_default().fill(unit, group, outputs(index, site)),
                    None => *packed = None,
                }
            }
        }
    }

    pub fn group(&self, layer: usize, site: Site) -> Option<&PackedGroup> {
        self.layers.get(layer)?[site as usize].as_ref()
    }
}

/// What the forward pass leaves for the gradients of the pairs: `A x`, `[rows, members * rank]`.
pub type Bottleneck = Vec<f32>;

impl Linear<'_> {
    /// `y = [y +] (W + s B A) x` for `x: [rows, inputs]`, `y: [rows, outputs]`; keeps `A x` in `bottleneck`.
    pub fn forward(
        &self,
        y: &mut [f32],
        store: Store,
        x: &[f32],
        rows: usize,
        bottleneck: &mut Bottleneck,
        scratch: &mut Scratch,
    ) {
        match self.matrix {
            FrozenMatrix::F32(matrix) => self.forward_f32(matrix, y, store, x, rows, bottleneck),
            FrozenMatrix::Bf16(matrix) => {
                scratch.wide.fill(matrix.forward.unit, x, self.matrix.inputs(), 1.0);
                let main = Factors { left: &scratch.wide, right: &matrix.forward };
                let Some(packed) = self.packed else { return bf16::product(y, store, rows, main, None) };
                let width = packed.narrow.cols;
                let narrow = sized(bottleneck, rows * width);
                let factors = Factors { left: &scratch.wide, right: &packed.narrow };
                bf16::product(narrow, Store::Set, rows, factors, None);
                scratch.narrow.fill(matrix.forward.unit, narrow, width, self.scale);
                let more = Factors { left: &scratch.narrow, right: &packed.widen };
                bf16::product(y, store, rows, main, Some(more));
            }
        }
    }

    fn forward_f32(
        &self,
        matrix: &Matrix,
        y: &mut [f32],
        store: Store,
        x: &[f32],
        rows: usize,
        bottleneck: &mut Bottleneck,
    ) {
        let (inputs, outputs) = (matrix.cols, matrix.rows);
        let x = View::new(x, rows, inputs);
        matmul(ViewMut::new(y, rows, outputs), store, 1.0, x, View::from(matrix).t(), Threads::Pool);
        let Some(group) = self.group else { return };
        let width = group.a.rows;
        let narrow = sized(bottleneck, rows * width);
        let a = View::from(&group.a).t();
        matmul(ViewMut::new(narrow, rows, width), Store::Set, 1.0, x, a, Threads::Pool);
        for (index, member) in group.members.iter().enumerate() {
            let columns = ViewMut::strided(&mut y[member.first_row..], rows, member.b.rows, outputs);
            let narrow = columns_of(narrow, rows, width, index, member);
            matmul(columns, Store::Add, self.scale, narrow, View::from(&member.b).t(), Threads::Pool);
        }
    }

    /// Takes the gradient of the output, `dy: [rows, outputs]`, for the three methods below. Leaves `s B^T dy`, the
    /// gradient of the bottleneck, in the scratch.
    pub fn take_gradient(&self, dy: &[f32], rows: usize, scratch: &mut Scratch) {
        match self.matrix {
            FrozenMatrix::F32(_) => self.narrow_gradient_f32(dy, rows, scratch),
            FrozenMatrix::Bf16(Bf16Matrix { backward, .. }) => {
                scratch.wide.fill(backward.unit, dy, self.matrix.outputs(), 1.0);
                let Some(packed) = self.packed else { return };
                let width = packed.narrow.cols;
                let d_narrow = sized(&mut scratch.d_narrow, rows * width);
                let factors = Factors { left: &scratch.wide, right: &packed.narrow_back };
                bf16::product(d_narrow, Store::Set, rows, factors, None);
                d_narrow.iter_mut().for_each(|value| *value *= self.scale);
                scratch.narrow.fill(backward.unit, d_narrow, width, 1.0);
            }
        }
    }

    fn narrow_gradient_f32(&self, dy: &[f32], rows: usize, scratch: &mut Scratch) {
        let Some(group) = self.group else { return };
        let (width, outputs) = (group.a.rows, self.matrix.outputs());
        let d_narrow = sized(&mut scratch.d_narrow, rows * width);
        for (index, member) in group.members.iter().enumerate() {
            let dy = View::strided(&dy[member.first_row..], rows, member.b.rows, outputs);
            let rank = member.b.cols;
            let d_columns = ViewMut::strided(&mut d_narrow[index * rank..], rows, rank, width);
            matmul(d_columns, Store::Set, self.scale, dy, (&member.b).into(), Threads::Pool);
        }
    }

    /// `dx = (W + s B A)^T dy`. Needs [`Linear::take_gradient`] of the same `dy` before.
    pub fn input_gradient(&self, dx: &mut [f32], dy: &[f32], rows: usize, scratch: &Scratch) {
        match self.matrix {
            FrozenMatrix::F32(matrix) => self.input_gradient_f32(matrix, dx, dy, rows, scratch),
            FrozenMatrix::Bf16(Bf16Matrix { backward, .. }) => {
                let main = Factors { left: &scratch.wide, right: backward };
                let more =
                    self.packed.map(|packed| Factors { left: &scratch.narrow, right: &packed.widen_back });
                bf16::product(dx, Store::Set, rows, main, more);
            }
        }
    }

    fn input_gradient_f32(
        &self,
        matrix: &Matrix,
        dx: &mut [f32],
        dy: &[f32],
        rows: usize,
        scratch: &Scratch,
    ) {
        let (inputs, outputs) = (matrix.cols, matrix.rows);
        let frozen = ViewMut::new(dx, rows, inputs);
        matmul(frozen, Store::Set, 1.0, View::new(dy, rows, outputs), matrix.into(), Threads::Pool);
        if let Some(group) = self.group {
            let narrow = View::new(&scratch.d_narrow, rows, group.a.rows);
            let adapted = ViewMut::new(dx, rows, inputs);
            matmul(adapted, Store::Add, 1.0, narrow, (&group.a).into(), Threads::Pool);
        }
    }

    /// Adds the gradients of the pairs: `dB_i += s dy_i^T (A_i x)`, `dA += (s B^T dy)^T x`. Needs
    /// [`Linear::take_gradient`] of the same `dy` before. `gradients` exist when the group does.
    pub fn pair_gradients(&self, gradients: Option<&mut Group>, io: &Backward, scratch: &mut Scratch) {
        let (Some(group), Some(gradients)) = (self.group, gradients) else { return };
        let (rows, width, outputs) = (io.rows, group.a.rows, self.matrix.outputs());
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
            (View::new(&scratch.d_narrow, rows, width), View::new(io.x, rows, self.matrix.inputs()));
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

/// Scratch memory of a [`Linear`], reused between calls.
#[derive(Default)]
pub struct Scratch {
    /// `[rows, members * rank]`
    d_narrow: Vec<f32>,
    /// `[rank, outputs]`
    d_b: Vec<f32>,
    /// Input, or gradient of the output, in bf16
    wide: Rows,
    /// Bottleneck, or its gradient, in bf16
    narrow: Rows,
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
