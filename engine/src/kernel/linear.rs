//! A matrix of the model, quantised or exact, as panels of sixteen outputs.

use super::{
    Dots,
    inputs::Inputs,
    level::Level,
    packed::{self, BLOCK, Block, Format, PANEL, Packed, Sums},
};
use crate::weights::Matrix;
use pulp::Arch;

/// A matrix `[rows = outputs, cols = inputs]`.
#[derive(Debug)]
pub(crate) enum Linear {
    Quantised(Packed),
    /// In f32, with zero rows up to whole panels and zero columns up to whole blocks; the numbers of columns without.
    Exact(Matrix, usize),
}

impl Linear {
    /// In f32. Row `i` is row `order[i]` of what `read` gives, or zeros.
    pub(crate) fn exact(cols: usize, order: &[Option<usize>], read: impl Fn(usize, &mut [f32])) -> Self {
        let mut matrix = Matrix::zeros(order.len().next_multiple_of(PANEL), cols.next_multiple_of(BLOCK));
        for (row, source) in matrix.data.chunks_exact_mut(matrix.cols).zip(order) {
            if let Some(source) = source {
                read(*source, &mut row[..cols]);
            }
        }
        Self::Exact(matrix, cols)
    }

    /// In 8 bits, rounded; as [`Linear::exact`] otherwise.
    pub(crate) fn rounded(
        cols: usize,
        order: &[Option<usize>],
        read: impl Fn(usize, &mut [f32]) + Sync,
    ) -> Self {
        Self::Quantised(Packed::nearest(cols, order, read))
    }

    /// From blocks that are quantised already.
    pub(crate) fn quantised(
        format: Format,
        cols: usize,
        order: &[Option<usize>],
        fill: impl Fn(usize, &mut [Block]) + Sync,
    ) -> Self {
        Self::Quantised(Packed::new(format, cols, order, fill))
    }

    pub(crate) fn panels(&self) -> usize {
        match self {
            Self::Quantised(packed) => packed.panels(),
            Self::Exact(matrix, _) => matrix.rows / PANEL,
        }
    }

    /// Bytes of a panel.
    pub(crate) fn panel_bytes(&self) -> usize {
        match self {
            Self::Quantised(packed) => packed.panel_bytes(),
            Self::Exact(matrix, _) => size_of::<f32>() * PANEL * matrix.cols,
        }
    }

    /// Writes the numbers of row `row`.
    pub(crate) fn read_row(&self, row: usize, numbers: &mut [f32]) {
        match self {
            Self::Quantised(packed) => packed.read_row(row, numbers),
            Self::Exact(matrix, cols) => numbers.copy_from_slice(&matrix.row(row)[..*cols]),
        }
    }

    /// Sets the matrix to work on the current thread.
    pub(crate) fn multiplier<'a>(&'a self, level: Level, inputs: &'a Inputs) -> Multiplier<'a> {
        let matrix = match self {
            // Of all tiles the first has the most rows.
            Self::Quantised(packed) => Working::Quantised(
                packed.work(level, if inputs.tiles() == 0 { 0 } else { inputs.rows_of(0) }),
            ),
            Self::Exact(matrix, _) => Working::Exact(level.arch(), matrix),
        };
        Multiplier { matrix, inputs }
    }
}

/// A matrix and the rows that it multiplies, at work on one thread.
pub(crate) struct Multiplier<'a> {
    matrix: Working<'a>,
    inputs: &'a Inputs,
}

enum Working<'a> {
    Quantised(packed::Working<'a>),
    Exact(Arch, &'a Matrix),
}

impl Multiplier<'_> {
    /// Products of panel `panel` with the rows of tile `tile`.
    pub(crate) fn product(&mut self, panel: usize, tile: usize, sums: &mut Sums) {
        let rows = self.inputs.rows_of(tile);
        match &mut self.matrix {
            Working::Quantised(working) => working.product(panel, self.inputs.quantised(tile), rows, sums),
            Working::Exact(arch, matrix) => {
                let x = self.inputs.exact(tile * super::TILE, rows);
                let w = &matrix.data[panel * PANEL * matrix.cols..][..PANEL * matrix.cols];
                products(*arch, x, w, matrix.cols, |row, column, dot| sums[row][column] = dot);
            }
        }
    }
}

/// All dot products of the rows of `x` with the rows of `w`, both `k` long, handed to `put(x row, w row, dot)`.
pub(crate) fn products(arch: Arch, x: &[f32], w: &[f32], k: usize, put: impl FnMut(usize, usize, f32)) {
    arch.dispatch(Dots { x, w, k, put });
}
