//! Matrix products in bf16 with f32 sums.
//!
//! The right matrix is packed once: panels of [`COLS`] columns, in each of them pairs of rows side by side, so that the
//! innermost loop reads it in a straight line. A frozen weight is packed in both orientations (2 bytes each, as much as
//! one f32), since forward and backward sum over different sides. The left matrix is rows of pairs, as activations
//! lie in memory anyway.

use std::ops::Range;

use rayon::prelude::*;

use super::matmul::{Store, View};
use super::tile::{self, COLS, Line, Part, Session, Target, Unit};

/// Pairs that one tile sums before it is written: a panel of so many stays in a core's second-level cache.
const PAIRS_PER_TILE: usize = 768;
/// Tiles of a task, one below the other, which take turns with one panel.
const TILES_PER_TASK: usize = 10;
/// The same for products of few columns, which would leave threads without work.
const TILES_PER_NARROW_TASK: usize = 3;
/// Panels up to which a product has few columns.
const NARROW: usize = 2;

/// A right matrix, `[inner, cols]`, packed.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Packed {
    pub cols: usize,
    /// What multiplies with it.
    pub unit: Unit,
    /// Pairs of one panel: half of `inner`, rounded up and padded with zeros as the unit wants it.
    pairs: usize,
    /// `[panels, pairs, 2]`
    lines: Vec<Line>,
}

impl Packed {
    pub fn new(matrix: View, unit: Unit) -> Self {
        let mut packed = Self::default();
        packed.fill(unit, matrix);
        packed
    }

    /// Packs another matrix into the memory of this one, for products on `unit`.
    pub fn fill(&mut self, unit: Unit, matrix: View) {
        let (inner, cols) = (matrix.rows(), matrix.cols());
        (self.unit, self.cols) = (unit, cols);
        self.pairs = pairs_of(inner, self.unit);
        self.lines.clear();
        self.lines.resize(cols.div_ceil(COLS) * self.pairs * 2, Line::default());
        let pairs = self.pairs;
        self.lines.par_chunks_exact_mut((2 * pairs).max(1)).enumerate().for_each_init(
            Vec::new,
            |column, (panel, lines)| {
                let first = panel * COLS;
                let width = COLS.min(cols - first);
                if matrix.row(0).is_some() {
                    pack_rows(lines, matrix, first..first + width);
                } else {
                    column.resize(pairs, 0);
                    (0..width).for_each(|lane| pack_column(lines, matrix, first + lane, lane, column));
                }
            },
        );
    }

    /// Column `col`, unpacked into `out`.
    pub fn column(&self, col: usize, out: &mut [f32]) {
        let panel = self.panel(col / COLS);
        let lane = col % COLS;
        for (pair, out) in panel.as_chunks::<2>().0.iter().zip(out.chunks_mut(2)) {
            let (first, second) = tile::unpack(pair[lane / 16].0[lane % 16]);
            out[0] = first;
            if let Some(out) = out.get_mut(1) {
                *out = second;
            }
        }
    }

    fn panel(&self, index: usize) -> &[Line] {
        &self.lines[index * self.pairs * 2..][..self.pairs * 2]
    }

    fn panels(&self) -> usize {
        self.cols.div_ceil(COLS)
    }
}

/// Packs columns of a matrix whose rows are contiguous.
fn pack_rows(lines: &mut [Line], matrix: View, columns: Range<usize>) {
    super::ops::vectorised(|| {
        for (pair, lines) in lines.as_chunks_mut::<2>().0.iter_mut().enumerate() {
            let row = |index: usize| matrix.row(index).map(|row| &row[columns.clone()]);
            let Some(first) = row(2 * pair) else { return };
            let second = row(2 * pair + 1);
            let lanes = lines.iter_mut().flat_map(|line| &mut line.0);
            match second {
                Some(second) => {
                    lanes.zip(first.iter().zip(second)).for_each(|(to, (a, b))| *to = tile::pack(*a, *b));
                }
                None => lanes.zip(first).for_each(|(to, a)| *to = tile::pack(*a, 0.0)),
            }
        }
    });
}

/// Packs one column, which is contiguous, into its lane of a panel.
fn pack_column(lines: &mut [Line], matrix: View, index: usize, lane: usize, pairs: &mut [u32]) {
    let Some(values) = matrix.t().row(index) else { return };
    tile::round_row(pairs, values, 1.0);
    for (line, pair) in lines[lane / 16..].iter_mut().step_by(2).zip(pairs) {
        line.0[lane % 16] = *pair;
    }
}

/// Pairs that hold `values` of them in a row or a column.
fn pairs_of(values: usize, unit: Unit) -> usize {
    values.div_ceil(2).next_multiple_of(unit.shape().1)
}

/// Rows of bf16 pairs, padded as a unit wants it.
#[derive(Clone, Debug, Default)]
pub struct Rows {
    pairs: Vec<u32>,
    stride: usize,
}

impl Rows {
    /// None yet, with room for `values` of them in rows of even width.
    pub fn with_room(values: usize) -> Self {
        Self { pairs: Vec::with_capacity(values.div_ceil(2)), stride: 0 }
    }

    /// Rounds `scale * values`, rows of `width`, into these, for products on `unit`.
    pub fn fill(&mut self, unit: Unit, values: &[f32], width: usize, scale: f32) {
        self.stride = pairs_of(width, unit);
        let rows = values.len() / width;
        // What is below the last row is read by tiles that reach over it, and changes nothing that is kept.
        self.pairs.resize(rows.next_multiple_of(unit.shape().0) * self.stride, 0);
        let (stride, task) = (self.stride, 16);
        let tasks = self.pairs.par_chunks_mut(stride * task).zip(values.par_chunks(width * task));
        tasks.for_each(|(pairs, values)| {
            for (pairs, values) in pairs.chunks_exact_mut(stride).zip(values.chunks_exact(width)) {
                tile::round_row(pairs, values, scale);
            }
        });
    }

    /// The values, rounded as they are, into `out`.
    pub fn read(&self, out: &mut [f32], width: usize) {
        let (stride, task) = (self.stride, 16);
        out.par_chunks_mut(width * task).zip(self.pairs.par_chunks(stride * task)).for_each(
            |(out, pairs)| {
                for (out, pairs) in out.chunks_exact_mut(width).zip(pairs.chunks_exact(stride)) {
                    tile::read_row(out, pairs);
                }
            },
        );
    }

    fn part<'a>(&'a self, first_row: usize, first_pair: usize, right: &'a [Line]) -> Part<'a> {
        Part { left: &self.pairs[first_row * self.stride + first_pair..], stride: self.stride, right }
    }
}

/// A factor on each side of one of the products that are summed.
#[derive(Clone, Copy)]
pub struct Factors<'a> {
    pub left: &'a Rows,
    pub right: &'a Packed,
}

/// A result that several tasks write, each its own tiles.
struct Shared(*mut f32);

// SAFETY: tasks of one product write tiles that do not overlap.
unsafe impl Sync for Shared {}

impl Shared {
    fn at(&self, offset: usize) -> *mut f32 {
        self.0.wrapping_add(offset)
    }
}

/// `dst = [dst +] main [+ more]` for `dst: [rows, main.right.cols]`. All threads of the current rayon pool work on it.
pub fn product(dst: &mut [f32], store: Store, rows: usize, main: Factors, more: Option<Factors>) {
    let cols = main.right.cols;
    assert_eq!(dst.len(), rows * cols, "the destination has another shape");
    assert!(more.is_none_or(|more| more.right.cols == cols), "the two products have other shapes");
    let shared = Shared(dst.as_mut_ptr());
    let unit = main.right.unit;
    let (rows_per_tile, _) = unit.shape();
    let tiles = if main.right.panels() <= NARROW { TILES_PER_NARROW_TASK } else { TILES_PER_TASK };
    let per_task = tiles * rows_per_tile;
    let chunks = rows.div_ceil(per_task);
    (0..main.right.panels() * chunks).into_par_iter().for_each(|task| {
        let mut session = Session::start(unit);
        let (panel, start) = (task / chunks, task % chunks * per_task);
        let end = rows.min(start + per_task);
        let width = COLS.min(cols - panel * COLS);
        let blocks = main.right.panel(panel).chunks(2 * PAIRS_PER_TILE);
        let last = blocks.len().saturating_sub(1);
        for (index, block) in blocks.enumerate() {
            for row in (start..end).step_by(rows_per_tile) {
                let more = more.filter(|_| index == last);
                let none = Part { left: &[], stride: 0, right: &[] };
                let extra = more.map_or(none, |more| more.left.part(row, 0, more.right.panel(panel)));
                let target = Target {
                    start: shared.at(row * cols + panel * COLS),
                    stride: cols,
                    rows: rows_per_tile.min(end - row),
                    cols: width,
                    add: store == Store::Add || index > 0,
                };
                let first_pair = index * PAIRS_PER_TILE;
                // SAFETY: the tile lies inside `dst` by the assertion above, and no other task has its rows and columns.
                unsafe {
                    tile::bf16_tile(&mut session, &target, [main.left.part(row, first_pair, block), extra])
                };
            }
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::weights::Matrix;

    /// Whole numbers that bf16 holds exactly, and whose products and sums f32 does.
    fn counting(rows: usize, cols: usize, step: usize) -> Matrix {
        Matrix { rows, cols, data: (0..rows * cols).map(|i| ((i * step) % 11) as f32 - 5.0).collect() }
    }

    fn rows_of(matrix: &Matrix, unit: Unit) -> Rows {
        let mut rows = Rows::default();
        rows.fill(unit, &matrix.data, matrix.cols, 1.0);
        rows
    }

    fn check(unit: Unit, rows: usize, inner: usize, cols: usize, extra: usize) {
        let (left, right) = (counting(rows, inner, 7), counting(inner, cols, 5));
        let (more_left, more_right) = (counting(rows, extra, 3), counting(extra, cols, 9));
        let expected = |i: usize, j: usize| -> f32 {
            let main: f32 = (0..inner).map(|k| left.row(i)[k] * right.row(k)[j]).sum();
            main + (0..extra).map(|k| more_left.row(i)[k] * more_right.row(k)[j]).sum::<f32>()
        };
        let main = Factors { left: &rows_of(&left, unit), right: &Packed::new((&right).into(), unit) };
        let more =
            Factors { left: &rows_of(&more_left, unit), right: &Packed::new((&more_right).into(), unit) };
        let mut dst = vec![2.0; rows * cols];
        product(&mut dst, Store::Set, rows, main, Some(more));
        product(&mut dst, Store::Add, rows, main, Some(more));
        for (i, j) in (0..rows).flat_map(|i| (0..cols).map(move |j| (i, j))) {
            assert_eq!(
                dst[i * cols + j],
                2.0 * expected(i, j),
                "{unit:?} {rows} {inner} {cols} {extra}: {i} {j}"
            );
        }
    }

    #[test]
    fn products_of_all_shapes_agree_with_the_definition() {
        for (rows, inner, cols, extra) in [
            (1, 2, 1, 2),
            (13, 7, 33, 3),
            (125, 20, 48, 9),
            (24, 1601, 65, 4),
            (37, 64, 20, 1),
            (2, 3200, 31, 24),
        ] {
            Unit::tested().into_iter().for_each(|unit| check(unit, rows, inner, cols, extra));
        }
    }

    #[test]
    fn the_transpose_is_packed_without_being_made() {
        let matrix = counting(9, 5, 7);
        let mut turned = Matrix::zeros(5, 9);
        for (i, j) in (0..9).flat_map(|i| (0..5).map(move |j| (i, j))) {
            turned.data[j * 9 + i] = matrix.row(i)[j];
        }
        let packed = Packed::new(View::from(&matrix).t(), Unit::default());
        assert_eq!(packed, Packed::new((&turned).into(), Unit::default()));
        let mut row = [0.0; 5];
        packed.column(7, &mut row);
        assert_eq!(row, matrix.row(7));
    }

    #[test]
    fn rows_are_read_as_they_were_rounded() {
        let values: Vec<f32> = (0..7 * 35).map(|i| (i as f32).sin()).collect();
        let (mut rows, mut back) = (Rows::default(), vec![0.0; values.len()]);
        rows.fill(Unit::default(), &values, 35, 2.0);
        rows.read(&mut back, 35);
        for (value, back) in values.iter().zip(&back) {
            let (rounded, _) = tile::unpack(tile::pack(2.0 * value, 0.0));
            assert!((rounded - back).abs() <= 1e-30, "{value} {back}");
        }
    }
}
