//! Quantised matrices as the fast kernels read them, and the 8-bit inputs that they are multiplied with.
//!
//! Rows are cut into blocks of 32 numbers that share a scale, as in ggml's formats. Sixteen rows form a panel: a
//! kernel keeps one output of each in a register of sixteen lanes and walks along their blocks. Within a block the
//! numbers lie in the order in which 8-bit dot products want them: four numbers of the first row, four of the
//! second, and so on, then the next four of each. Panels follow one another, so that a product is one walk through
//! memory.

use std::alloc::{Layout, handle_alloc_error};

use bytemuck::{Pod, Zeroable};
use half::f16;
use memmap2::MmapMut;
use rayon::prelude::*;

use super::level::Level;

/// Rows of a panel.
pub(crate) const PANEL: usize = 16;
/// Numbers that share a scale.
pub(crate) const BLOCK: usize = 32;
/// Input rows that a kernel takes at once.
pub(crate) const TILE: usize = 8;
/// Neighbouring panels that may stay unpacked while tiles of inputs pass.
pub(crate) const KEPT_PANELS: usize = 4;
/// Products of a panel with a tile of inputs.
pub(crate) type Sums = [[f32; PANEL]; TILE];

/// How the numbers of a matrix are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    /// 4 bits from 0 up, times a scale, plus a minimum: ggml's Q4_1, and Q4_0 with minimum `-8 scale`.
    Four,
    /// 8 bits around 128, times a scale: ggml's Q8_0.
    Eight,
}

impl Format {
    /// The quant that stands for zero times the scale.
    pub(super) const fn zero(self) -> i32 {
        match self {
            Self::Four => 0,
            Self::Eight => 128,
        }
    }

    /// Bytes of the numbers of a panel's block.
    pub(super) const fn quants(self) -> usize {
        match self {
            Self::Four => PANEL * BLOCK / 2,
            Self::Eight => PANEL * BLOCK,
        }
    }

    /// Bytes of the scales, and minima, of a panel's block.
    pub(super) const fn scales(self) -> usize {
        match self {
            Self::Four => PANEL * 4,
            Self::Eight => PANEL * 2,
        }
    }
}

/// A block of one row, on its way into or out of a panel.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Block {
    pub scale: f16,
    /// Zero in format [`Format::Eight`].
    pub least: f16,
    /// 0 to 15, or 0 to 255 where 128 stands for zero.
    pub quants: [u8; BLOCK],
}

impl Block {
    /// A block of zeros.
    fn zero(format: Format) -> Self {
        Self { quants: [format.zero() as u8; BLOCK], ..Self::default() }
    }

    /// The nearest block of 8 bits to at most 32 numbers, with zeros for those that are missing.
    pub(crate) fn nearest(numbers: &[f32]) -> Self {
        let highest = numbers.iter().fold(0.0_f32, |a, b| a.max(b.abs()));
        let scale = f16::from_f32(highest / 127.0);
        let mut block = Self { scale, ..Self::zero(Format::Eight) };
        let inverse = if scale.to_f32() > 0.0 { 1.0 / scale.to_f32() } else { 0.0 };
        for (quant, number) in block.quants.iter_mut().zip(numbers) {
            *quant = ((number * inverse).round().clamp(-127.0, 127.0) + 128.0) as u8;
        }
        block
    }
}

/// Zeroed memory that starts at a page, with large pages where the system has such: a walk through a model then needs
/// few address translations.
fn memory(bytes: usize) -> MmapMut {
    let Ok(data) = MmapMut::map_anon(bytes.max(1)) else {
        // As every other allocation that fails.
        handle_alloc_error(Layout::array::<u8>(bytes).unwrap_or(Layout::new::<u8>()))
    };
    // Small pages do as well.
    #[cfg(target_os = "linux")]
    let _ = data.advise(memmap2::Advice::HugePage);
    data
}

/// A quantised matrix `[rows = outputs, cols = inputs]`.
#[derive(Debug)]
pub(crate) struct Packed {
    format: Format,
    rows: usize,
    /// Blocks per row.
    blocks: usize,
    /// Bytes per panel.
    stride: usize,
    data: MmapMut,
}

impl Packed {
    /// A matrix of the given rows: `fill(row, blocks)` writes a row's blocks over those of zeros. Row `i` is the
    /// source's row `order[i]`, or zeros.
    pub(crate) fn new(
        format: Format,
        cols: usize,
        order: &[Option<usize>],
        fill: impl Fn(usize, &mut [Block]) + Sync,
    ) -> Self {
        let blocks = cols.div_ceil(BLOCK);
        let stride = (blocks * (format.quants() + format.scales())).next_multiple_of(64);
        let mut data = memory(order.len().div_ceil(PANEL) * stride);
        let panels = data.par_chunks_exact_mut(stride).zip(order.par_chunks(PANEL));
        panels.for_each(|(panel, order)| {
            let mut panel = PanelMut { format, blocks, panel };
            let mut row = vec![Block::zero(format); blocks];
            for lane in 0..PANEL {
                row.fill(Block::zero(format));
                if let Some(source) = order.get(lane).copied().flatten() {
                    fill(source, &mut row);
                }
                row.iter().enumerate().for_each(|(index, block)| panel.put(lane, index, block));
            }
        });
        Self { format, rows: order.len(), blocks, stride, data }
    }

    /// As [`Packed::new`] from rows of numbers, rounded to 8 bits.
    pub(crate) fn nearest(
        cols: usize,
        order: &[Option<usize>],
        read: impl Fn(usize, &mut [f32]) + Sync,
    ) -> Self {
        Self::new(Format::Eight, cols, order, |row, blocks| {
            let mut numbers = vec![0.0; cols];
            read(row, &mut numbers);
            for (block, numbers) in blocks.iter_mut().zip(numbers.chunks(BLOCK)) {
                *block = Block::nearest(numbers);
            }
        })
    }

    /// Bytes of a panel.
    pub(super) fn panel_bytes(&self) -> usize {
        self.stride
    }

    pub(crate) fn panels(&self) -> usize {
        self.rows.div_ceil(PANEL)
    }

    /// A panel's part of the matrix.
    pub(super) fn panel(&self, index: usize) -> Panel<'_> {
        let panel = &self.data[index * self.stride..][..self.stride];
        let (quants, scales) = panel.split_at(self.blocks * self.format.quants());
        let scales = &scales[..self.blocks * self.format.scales()];
        Panel { format: self.format, quants, scales, next: self.stride }
    }

    /// Sets the matrix to work on the current thread, with `rows` rows of inputs in a tile at most.
    pub(super) fn work(&self, level: Level, rows: usize) -> Working<'_> {
        let _ = rows;
        Working {
            packed: self,
            level,
            #[cfg(all(target_os = "linux", target_arch = "x86_64"))]
            tiles: super::tiles::Open::start(level, rows),
        }
    }

    /// Writes the numbers of row `row`.
    pub(crate) fn read_row(&self, row: usize, numbers: &mut [f32]) {
        let panel = self.panel(row / PANEL);
        for (index, numbers) in numbers.chunks_mut(BLOCK).enumerate() {
            let Block { scale, least, quants } = panel.block(row % PANEL, index);
            let (scale, least) = (scale.to_f32(), least.to_f32());
            let zero = self.format.zero();
            for (number, quant) in numbers.iter_mut().zip(quants) {
                *number = scale * (i32::from(quant) - zero) as f32 + least;
            }
        }
    }
}

/// A quantised matrix at work on one thread.
pub(super) struct Working<'a> {
    packed: &'a Packed,
    level: Level,
    #[cfg(all(target_os = "linux", target_arch = "x86_64"))]
    tiles: Option<super::tiles::Open>,
}

impl Working<'_> {
    /// Sums of the first `rows` rows of `inputs`, a tile, with panel `panel`.
    pub(super) fn product(&mut self, panel: usize, inputs: &[InputBlock], rows: usize, sums: &mut Sums) {
        assert!(rows <= TILE && inputs.len() == self.packed.blocks);
        let part = self.packed.panel(panel);
        #[cfg(all(target_os = "linux", target_arch = "x86_64"))]
        if let Some(tiles) = &mut self.tiles {
            return tiles.product(panel, part, inputs, sums);
        }
        super::quantised_product(self.level, part, inputs, rows, sums);
    }
}

/// Where a number of a block lies among the bytes of its panel's block, in format [`Format::Eight`].
fn place(lane: usize, column: usize) -> usize {
    column / 4 * (4 * PANEL) + lane * 4 + column % 4
}

/// As [`place`] in format [`Format::Four`], with the shift to the number's bits: the low half bytes hold four
/// columns, the high ones the next four.
fn place_of_four(lane: usize, column: usize) -> (usize, u32) {
    (column / 8 * (4 * PANEL) + lane * 4 + column % 4, column as u32 / 4 % 2 * 4)
}

#[derive(Clone, Copy)]
pub(super) struct Panel<'a> {
    pub format: Format,
    /// [`Format::quants`] bytes per block.
    pub quants: &'a [u8],
    /// [`Format::scales`] bytes per block: sixteen scales, then in format [`Format::Four`] sixteen minima.
    pub scales: &'a [u8],
    /// Bytes from here to the same place of the next panel.
    #[cfg_attr(not(target_arch = "x86_64"), expect(dead_code, reason = "no stable way to ask ahead there"))]
    pub next: usize,
}

impl Panel<'_> {
    pub(super) fn block(&self, lane: usize, index: usize) -> Block {
        let quants = &self.quants[index * self.format.quants()..][..self.format.quants()];
        let scales = &self.scales[index * self.format.scales()..][..self.format.scales()];
        let number = |at: usize| f16::from_le_bytes([scales[2 * at], scales[2 * at + 1]]);
        match self.format {
            Format::Four => {
                let quant = |column| {
                    let (at, shift) = place_of_four(lane, column);
                    quants[at] >> shift & 15
                };
                let (scale, least) = (number(lane), number(PANEL + lane));
                Block { scale, least, quants: std::array::from_fn(quant) }
            }
            Format::Eight => {
                let quants = std::array::from_fn(|column| quants[place(lane, column)]);
                Block { scale: number(lane), least: f16::ZERO, quants }
            }
        }
    }
}

struct PanelMut<'a> {
    format: Format,
    blocks: usize,
    /// All bytes of the panel, zero before anything is put.
    panel: &'a mut [u8],
}

impl PanelMut<'_> {
    fn put(&mut self, lane: usize, index: usize, block: &Block) {
        let (quants, scales) = self.panel.split_at_mut(self.blocks * self.format.quants());
        let quants = &mut quants[index * self.format.quants()..][..self.format.quants()];
        let scales = &mut scales[index * self.format.scales()..][..self.format.scales()];
        scales[2 * lane..2 * lane + 2].copy_from_slice(&block.scale.to_le_bytes());
        match self.format {
            Format::Four => {
                let least = 2 * (PANEL + lane);
                scales[least..least + 2].copy_from_slice(&block.least.to_le_bytes());
                for (column, quant) in block.quants.iter().enumerate() {
                    let (at, shift) = place_of_four(lane, column);
                    quants[at] |= quant << shift;
                }
            }
            Format::Eight => {
                for (column, quant) in block.quants.iter().enumerate() {
                    quants[place(lane, column)] = *quant;
                }
            }
        }
    }
}

/// A block of the inputs of eight rows. Everything that kernels broadcast lies at fixed distances from one address.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C, align(64))]
pub(crate) struct InputBlock {
    pub quants: [[i8; BLOCK]; TILE],
    pub scales: [f32; TILE],
    /// Scale times sum of the quants.
    pub sums: [f32; TILE],
    /// -128 times sum of the quants: what a product with quants around 128 starts from.
    pub offsets: [i32; TILE],
    pub unused: [i32; TILE],
}

/// One row of a block of inputs, on its way there.
#[derive(Debug, PartialEq)]
pub(crate) struct InputPart {
    pub quants: [i8; BLOCK],
    pub scale: f32,
    pub total: i32,
}

impl InputPart {
    /// The nearest 8-bit numbers, of which the greatest is 127 from zero; halves go to even numbers.
    pub(super) fn nearest(numbers: &[f32; BLOCK]) -> Self {
        let highest = numbers.iter().fold(0.0_f32, |a, b| a.max(b.abs()));
        let inverse = Self::inverse(highest);
        let whole = numbers.map(|number| (number * inverse).round_ties_even() as i32);
        Self { quants: whole.map(|n| n as i8), scale: highest / 127.0, total: whole.iter().sum() }
    }

    /// What turns numbers of which `highest` is the greatest into quants.
    #[inline(always)]
    pub(super) fn inverse(highest: f32) -> f32 {
        // Of numbers so small that the quotient overflows, nothing is left.
        if highest > f32::MIN_POSITIVE { 127.0 / highest } else { 0.0 }
    }
}

#[cfg(test)]
mod tests {
    use rand::{RngExt, SeedableRng, rngs::ChaCha8Rng};

    use super::*;
    use crate::kernel::{Inputs, Wanted};

    /// Random blocks whose quants cover everything up to the extremes.
    fn blocks(format: Format, rows: usize, blocks: usize, seed: u64) -> Vec<Block> {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let highest = if format == Format::Four { 15 } else { 255 };
        let mut block = || {
            let extreme = rng.random_range(0..4);
            let mut quant = || match extreme {
                0 => highest,
                1 => 0,
                _ => rng.random_range(0..=highest),
            };
            let quants = std::array::from_fn(|_| quant());
            let least = if format == Format::Four { rng.random_range(-1.0..1.0) } else { 0.0 };
            let (scale, least) = (f16::from_f32(rng.random_range(0.0..0.1)), f16::from_f32(least));
            Block { scale, least, quants }
        };
        (0..rows * blocks).map(|_| block()).collect()
    }

    fn packed(format: Format, rows: usize, per_row: usize, seed: u64) -> (Packed, Vec<Block>) {
        let blocks = blocks(format, rows, per_row, seed);
        let order: Vec<Option<usize>> = (0..rows).map(Some).collect();
        let fill = |row: usize, row_blocks: &mut [Block]| {
            row_blocks.copy_from_slice(&blocks[row * per_row..][..per_row]);
        };
        (Packed::new(format, per_row * BLOCK, &order, fill), blocks)
    }

    fn inputs(rows: usize, cols: usize, seed: u64) -> Inputs {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let mut inputs = Inputs::default();
        let writer = inputs.prepare(Level::best(), rows, cols, Wanted { quantised: true, exact: false });
        for row in 0..rows {
            // Blocks of one sign at full height come too.
            let numbers: Vec<f32> =
                (0..cols).map(|_| if row % 3 == 0 { -1.0 } else { rng.random_range(-2.0..2.0) }).collect();
            // SAFETY: no other thread.
            unsafe { writer.put_row(row, &numbers) };
        }
        inputs
    }

    /// Products in f64 of the numbers that the quants stand for.
    fn expected(block: &Block, zero: i32, input: &InputBlock, row: usize) -> f64 {
        let terms = block.quants.iter().zip(&input.quants[row]).map(|(w, x)| {
            let weight = block.scale.to_f64() * f64::from(i32::from(*w) - zero) + block.least.to_f64();
            weight * f64::from(*x) * f64::from(input.scales[row])
        });
        terms.sum()
    }

    const SCALAR: Level = Level::vectors(crate::kernel::level::Kind::Scalar);

    /// Against the numbers that the quants stand for, and against the plain kernel to the bit.
    #[test]
    fn every_level_multiplies_both_formats_right() {
        for level in Level::tested() {
            for format in [Format::Four, Format::Eight] {
                for (rows, per_row) in [(16, 1), (33, 3), (48, 4), (40, 18), (90, 5)] {
                    check(level, format, rows, per_row);
                }
            }
        }
    }

    fn check(level: Level, format: Format, outputs: usize, per_row: usize) {
        let (packed, blocks) = packed(format, outputs, per_row, 1);
        for rows in 1..=TILE {
            let inputs = inputs(rows, per_row * BLOCK, 2);
            let tile = inputs.quantised(0);
            let mut working = packed.work(level, rows);
            let plain = &mut packed.work(SCALAR, rows);
            // Twice, since panels may be kept unpacked.
            for panel in (0..packed.panels()).chain(0..packed.panels()) {
                let (mut sums, mut plainly) = ([[f32::NAN; PANEL]; TILE], [[f32::NAN; PANEL]; TILE]);
                working.product(panel, tile, rows, &mut sums);
                plain.product(panel, tile, rows, &mut plainly);
                assert_eq!(sums[..rows], plainly[..rows], "{} {format:?} {rows} {panel}", level.name());
                for (row, lane) in (0..rows).flat_map(|row| (0..PANEL).map(move |lane| (row, lane))) {
                    let Some(weights) = blocks.chunks_exact(per_row).nth(panel * PANEL + lane) else {
                        assert_eq!(sums[row][lane], 0.0);
                        continue;
                    };
                    let pairs = weights.iter().zip(tile);
                    let want: f64 = pairs.map(|(w, x)| expected(w, format.zero(), x, row)).sum();
                    let got = f64::from(sums[row][lane]);
                    let name = level.name();
                    assert!((got - want).abs() < 1e-3, "{name} {format:?} {rows} {row} {lane}: {got} {want}");
                }
            }
        }
    }

    #[test]
    fn a_row_of_a_product_does_not_depend_on_its_neighbours() {
        for level in Level::tested() {
            for format in [Format::Four, Format::Eight] {
                let (packed, _) = packed(format, 16, 18, 3);
                let inputs = inputs(TILE, 18 * BLOCK, 4);
                let sums = |rows: usize| {
                    let mut sums = [[0.0; PANEL]; TILE];
                    packed.work(level, rows).product(0, inputs.quantised(0), rows, &mut sums);
                    sums
                };
                let all = sums(TILE);
                for rows in 1..TILE {
                    assert_eq!(sums(rows)[..rows], all[..rows], "{} {format:?} {rows}", level.name());
                }
            }
        }
    }

    #[test]
    fn rounding_is_to_the_nearest_step() {
        let numbers: Vec<f32> = (0..BLOCK).map(|i| (i as f32 - 11.0) * 0.37).collect();
        let block = Block::nearest(&numbers[..30]);
        let step = block.scale.to_f32();
        for (quant, number) in block.quants.iter().zip(&numbers[..30]) {
            assert!(((f32::from(*quant) - 128.0) * step - number).abs() <= 0.51 * step);
        }
        assert_eq!(block.quants[30..], [128, 128]);
        assert_eq!(Block::nearest(&[0.0; 5]), Block::zero(Format::Eight));

        let part = InputPart::nearest(&std::array::from_fn(|i| numbers[i]));
        for (quant, number) in part.quants.iter().zip(&numbers) {
            assert!((f32::from(*quant) * part.scale - number).abs() <= 0.51 * part.scale);
        }
        assert_eq!(part.total, part.quants.iter().map(|q| i32::from(*q)).sum::<i32>());
        assert_eq!(InputPart::nearest(&[0.0; BLOCK]).quants, [0; BLOCK]);
    }

    #[test]
    fn every_level_rounds_inputs_alike() {
        let mut rng = ChaCha8Rng::seed_from_u64(9);
        let random: [f32; BLOCK] = std::array::from_fn(|_| rng.random_range(-3.0..3.0));
        let steps: [f32; BLOCK] = std::array::from_fn(|i| i as f32 * 8.5 - 127.0);
        for numbers in [random, steps, [0.0; BLOCK], [-1.0; BLOCK], [1e-42; BLOCK], [3e38; BLOCK]] {
            let want = InputPart::nearest(&numbers);
            for level in Level::available() {
                assert_eq!(crate::kernel::nearest(level, &numbers), want, "{}", level.name());
            }
        }
    }
}
