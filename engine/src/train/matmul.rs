//! Matrix products in f32 over borrowed slices.
//!
//! Large products go through the `gemm` crate. Its blocking depends on the shapes alone, never on the number of threads,
//! so that a result is the same bytes however many cores worked on it. Products that are small or thin, where packing both
//! factors costs `gemm` more than it saves, go through the tiles of [`tile`], where the machine has their vectors.
//! Frozen weights in bf16 have products of their own: see `bf16`.

use gemm::Parallelism;
use rayon::prelude::*;

use super::tile::{self, COLS, Left, ROWS, Right, Target};
use crate::weights::Matrix;

/// Rows up to which a product of all threads is thin.
const THIN: usize = 64;

/// A matrix that is read: element `(i, j)` is `data[i * row_stride + j * col_stride]`.
#[derive(Clone, Copy)]
pub struct View<'a> {
    data: &'a [f32],
    rows: usize,
    cols: usize,
    row_stride: usize,
    col_stride: usize,
}

impl<'a> View<'a> {
    /// `rows x cols`, row-major and dense.
    pub fn new(data: &'a [f32], rows: usize, cols: usize) -> Self {
        Self::strided(data, rows, cols, cols)
    }

    /// `rows x cols`, where one row starts `row_stride` elements after the one above.
    pub fn strided(data: &'a [f32], rows: usize, cols: usize, row_stride: usize) -> Self {
        check_fits(data.len(), rows, cols, row_stride);
        Self { data, rows, cols, row_stride, col_stride: 1 }
    }

    pub fn rows(&self) -> usize {
        self.rows
    }

    pub fn cols(&self) -> usize {
        self.cols
    }

    /// Row `index`, if there is one and rows are contiguous.
    #[inline(always)]
    pub fn row(&self, index: usize) -> Option<&'a [f32]> {
        let there = index < self.rows && self.col_stride == 1;
        there.then(|| &self.data[index * self.row_stride..][..self.cols])
    }

    /// The transpose, without moving anything.
    pub fn t(self) -> Self {
        Self {
            rows: self.cols,
            cols: self.rows,
            row_stride: self.col_stride,
            col_stride: self.row_stride,
            ..self
        }
    }
}

impl<'a> From<&'a Matrix> for View<'a> {
    fn from(matrix: &'a Matrix) -> Self {
        View::new(&matrix.data, matrix.rows, matrix.cols)
    }
}

/// A matrix that is written, row-major.
pub struct ViewMut<'a> {
    data: &'a mut [f32],
    rows: usize,
    cols: usize,
    row_stride: usize,
}

impl<'a> ViewMut<'a> {
    /// `rows x cols`, dense.
    pub fn new(data: &'a mut [f32], rows: usize, cols: usize) -> Self {
        Self::strided(data, rows, cols, cols)
    }

    /// `rows x cols`, where one row starts `row_stride` elements after the one above.
    pub fn strided(data: &'a mut [f32], rows: usize, cols: usize, row_stride: usize) -> Self {
        check_fits(data.len(), rows, cols, row_stride);
        assert!(cols <= row_stride || rows <= 1, "rows of a written matrix overlap");
        Self { data, rows, cols, row_stride }
    }
}

impl<'a> From<&'a mut Matrix> for ViewMut<'a> {
    fn from(matrix: &'a mut Matrix) -> Self {
        ViewMut::new(&mut matrix.data, matrix.rows, matrix.cols)
    }
}

fn check_fits(len: usize, rows: usize, cols: usize, row_stride: usize) {
    let needed = if rows == 0 || cols == 0 { 0 } else { (rows - 1) * row_stride + cols };
    assert!(
        needed <= len,
        "a {rows} x {cols} matrix of stride {row_stride} needs {needed} of {len} elements"
    );
}

/// What happens to the values that the destination held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Store {
    /// `dst = scale * lhs rhs`
    Set,
    /// `dst += scale * lhs rhs`
    Add,
}

/// Which threads work on one product.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Threads {
    /// All threads of the current rayon pool.
    Pool,
    /// The calling thread: for products inside a parallel loop.
    One,
}

/// `dst = [dst +] scale * lhs rhs` for `lhs: [m, k]`, `rhs: [k, n]`, `dst: [m, n]`.
///
/// # Panics
/// When the shapes do not agree.
pub fn matmul(dst: ViewMut, store: Store, scale: f32, lhs: View, rhs: View, threads: Threads) {
    assert_eq!(
        (dst.rows, dst.cols, lhs.cols),
        (lhs.rows, rhs.cols, rhs.rows),
        "shapes of a product disagree"
    );
    let small = threads == Threads::One || dst.rows <= THIN;
    if small && rhs.col_stride == 1 && lhs.cols > 0 && tile::has_f32_tile() {
        return tiled(dst, store, scale, lhs, rhs, threads);
    }
    let parallelism = match threads {
        Threads::Pool => Parallelism::Rayon(0),
        Threads::One => Parallelism::None,
    };
    // SAFETY: the constructors of both views checked that the last element lies inside its slice, the asserts above that
    // the three shapes agree, and the exclusive borrow in `dst` that nothing written is read through `lhs` or `rhs`.
    unsafe {
        gemm::gemm(
            dst.rows,
            dst.cols,
            lhs.cols,
            dst.data.as_mut_ptr(),
            1,
            dst.row_stride as isize,
            store == Store::Add,
            lhs.data.as_ptr(),
            lhs.col_stride as isize,
            lhs.row_stride as isize,
            rhs.data.as_ptr(),
            rhs.col_stride as isize,
            rhs.row_stride as isize,
            1.0,
            scale,
            false,
            false,
            false,
            parallelism,
        );
    }
}

/// A result that several tasks write, each its own columns.
struct Shared(*mut f32);

// SAFETY: tasks of one product write columns that do not overlap.
unsafe impl Sync for Shared {}

impl Shared {
    fn at(&self, offset: usize) -> *mut f32 {
        self.0.wrapping_add(offset)
    }
}

/// [`matmul`] tile by tile, for a `rhs` whose rows are contiguous. Needs [`tile::has_f32_tile`].
fn tiled(dst: ViewMut, store: Store, scale: f32, lhs: View, rhs: View, threads: Threads) {
    let (rows, cols, stride) = (dst.rows, dst.cols, dst.row_stride);
    let shared = Shared(dst.data.as_mut_ptr());
    let columns = |panel: usize| {
        let first = panel * COLS;
        for row in (0..rows).step_by(ROWS) {
            let target = Target {
                start: shared.at(row * stride + first),
                stride,
                rows: ROWS.min(rows - row),
                cols: COLS.min(cols - first),
                add: store == Store::Add,
            };
            let left = Left {
                data: &lhs.data[row * lhs.row_stride..],
                row_stride: lhs.row_stride,
                col_stride: lhs.col_stride,
            };
            let right = Right { data: &rhs.data[first..], stride: rhs.row_stride };
            // SAFETY: the tile lies inside `dst`, whose shape its constructor checked against its slice; no other task has
            // its columns; and the vectors are there by contract.
            unsafe { tile::f32_tile(&target, left, right, lhs.cols, scale) };
        }
    };
    let panels = cols.div_ceil(COLS);
    match threads {
        Threads::Pool => (0..panels).into_par_iter().for_each(columns),
        Threads::One => (0..panels).for_each(columns),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn naive(lhs: &Matrix, rhs: &Matrix) -> Matrix {
        let mut out = Matrix::zeros(lhs.rows, rhs.cols);
        for i in 0..lhs.rows {
            for j in 0..rhs.cols {
                out.data[i * rhs.cols + j] = (0..lhs.cols).map(|k| lhs.row(i)[k] * rhs.row(k)[j]).sum();
            }
        }
        out
    }

    fn counting(rows: usize, cols: usize) -> Matrix {
        Matrix { rows, cols, data: (0..rows * cols).map(|i| ((i * 7) % 11) as f32 - 5.0).collect() }
    }

    #[test]
    fn products_of_all_orientations_agree_with_the_definition() {
        for (m, k, n) in [(1, 1, 1), (3, 5, 2), (70, 33, 40), (1, 64, 20), (20, 64, 1), (5, 2, 9)] {
            let (lhs, rhs) = (counting(m, k), counting(k, n));
            let mut dst = counting(m, n);
            let expected: Vec<f32> =
                dst.data.iter().zip(naive(&lhs, &rhs).data).map(|(old, new)| old + 2.0 * new).collect();
            matmul((&mut dst).into(), Store::Add, 2.0, (&lhs).into(), (&rhs).into(), Threads::Pool);
            assert_eq!(dst.data, expected, "{m} {k} {n}");
            let mut transposed = Matrix::zeros(n, m);
            let (lhs_t, rhs_t) = (View::from(&lhs).t(), View::from(&rhs).t());
            matmul((&mut transposed).into(), Store::Set, 1.0, rhs_t, lhs_t, Threads::One);
            let back = View::from(&transposed).t();
            for i in 0..m {
                for j in 0..n {
                    assert_eq!(
                        back.data[i * back.row_stride + j * back.col_stride],
                        naive(&lhs, &rhs).row(i)[j]
                    );
                }
            }
        }
    }

    #[test]
    #[should_panic(expected = "needs 12 of 11")]
    fn a_view_past_its_slice_is_refused() {
        View::strided(&[0.0; 11], 3, 2, 5);
    }
}
