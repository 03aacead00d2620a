//! The rows that a product takes: in 8 bits for quantised matrices, in f32 for exact ones and for low-rank updates.

use std::marker::PhantomData;

use super::{
    level::Level,
    packed::{BLOCK, InputBlock, InputPart, TILE},
};

/// Rows of inputs, `[rows, cols]`, with zeros up to whole blocks.
#[derive(Debug, Default)]
pub(crate) struct Inputs {
    rows: usize,
    /// Blocks per row.
    blocks: usize,
    /// `[rows / 8, blocks]`; empty when nobody wants them.
    quantised: Vec<InputBlock>,
    /// `[rows, 32 * blocks]`; empty when nobody wants them.
    exact: Vec<f32>,
}

/// Which forms of the inputs are wanted.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wanted {
    pub quantised: bool,
    pub exact: bool,
}

impl Inputs {
    /// Makes room for `rows` rows of `cols` numbers, whose contents are then up to the writer.
    pub(crate) fn prepare(
        &mut self,
        level: Level,
        rows: usize,
        cols: usize,
        wanted: Wanted,
    ) -> InputWriter<'_> {
        let blocks = cols.div_ceil(BLOCK);
        (self.rows, self.blocks) = (rows, blocks);
        let quantised = if wanted.quantised { rows.div_ceil(TILE) * blocks } else { 0 };
        self.quantised.resize(quantised, bytemuck::Zeroable::zeroed());
        self.exact.resize(if wanted.exact { rows * blocks * BLOCK } else { 0 }, 0.0);
        InputWriter {
            level,
            quantised: if wanted.quantised { self.quantised.as_mut_ptr() } else { std::ptr::null_mut() },
            exact: if wanted.exact { self.exact.as_mut_ptr() } else { std::ptr::null_mut() },
            rows,
            blocks,
            borrow: PhantomData,
        }
    }

    /// Tiles of rows.
    pub(crate) fn tiles(&self) -> usize {
        self.rows.div_ceil(TILE)
    }

    /// Rows of tile `tile`.
    pub(crate) fn rows_of(&self, tile: usize) -> usize {
        TILE.min(self.rows - tile * TILE)
    }

    pub(super) fn quantised(&self, tile: usize) -> &[InputBlock] {
        &self.quantised[tile * self.blocks..][..self.blocks]
    }

    /// `count` rows from row `first`, each as long as [`Inputs::width`].
    pub(crate) fn exact(&self, first: usize, count: usize) -> &[f32] {
        let width = self.width();
        &self.exact[first * width..][..count * width]
    }

    /// Numbers per row, zeros at the end included.
    pub(crate) fn width(&self) -> usize {
        self.blocks * BLOCK
    }
}

/// Writes inputs from several threads.
pub(crate) struct InputWriter<'a> {
    level: Level,
    quantised: *mut InputBlock,
    exact: *mut f32,
    rows: usize,
    blocks: usize,
    borrow: PhantomData<&'a mut Inputs>,
}

// SAFETY: the pointers are only dereferenced in `put`, whose contract forbids overlap.
unsafe impl Sync for InputWriter<'_> {}

impl InputWriter<'_> {
    /// Writes block `block` of row `row`.
    ///
    /// # Safety
    /// Nobody else may be writing the same block of the same row.
    pub(crate) unsafe fn put(&self, row: usize, block: usize, numbers: &[f32; BLOCK]) {
        assert!(row < self.rows && block < self.blocks);
        if !self.exact.is_null() {
            // SAFETY: inside the buffer by the assertion, not aliased by the contract.
            let exact = unsafe { self.exact.add((row * self.blocks + block) * BLOCK) };
            // SAFETY: as above; 32 numbers lie there.
            unsafe { exact.cast::<[f32; BLOCK]>().write(*numbers) };
        }
        if !self.quantised.is_null() {
            let InputPart { quants, scale, total } = super::nearest(self.level, numbers);
            let slot = row % TILE;
            // SAFETY: inside the buffer by the assertion. Only fields of this row are written, one by one, so that
            // other rows of the tile may be written meanwhile.
            unsafe {
                let tile = self.quantised.add(row / TILE * self.blocks + block);
                (&raw mut (*tile).quants[slot]).write(quants);
                (&raw mut (*tile).scales[slot]).write(scale);
                (&raw mut (*tile).sums[slot]).write(scale * total as f32);
                (&raw mut (*tile).offsets[slot]).write(-128 * total);
            }
        }
    }

    /// Writes all of row `row` from at most as many numbers.
    ///
    /// # Safety
    /// Nobody else may be writing the same row.
    pub(crate) unsafe fn put_row(&self, row: usize, numbers: &[f32]) {
        let (whole, rest) = numbers.as_chunks::<BLOCK>();
        for (block, numbers) in whole.iter().enumerate() {
            // SAFETY: by the contract.
            unsafe { self.put(row, block, numbers) };
        }
        if !rest.is_empty() {
            let mut numbers = [0.0; BLOCK];
            numbers[..rest.len()].copy_from_slice(rest);
            // SAFETY: by the contract.
            unsafe { self.put(row, whole.len(), &numbers) };
        }
    }
}
