//! The quantised product on tiles of AMX.
//!
//! One instruction multiplies a block of a panel with the same block of eight rows of inputs: 8 x 32 signed bytes on the left, 32 x
//! 16 unsigned ones on the right, which lie in format [`Format::Eight`] as the unit reads them and are unpacked into that from
//! [`Format::Four`]. Every block has scales of its own, so sums do not stay in their tile: whole numbers leave it and are
//! scaled and added in vector registers, as the other kernels do it. That is why the result is theirs to the bit.
//!
//! bf16 would need no scaling by blocks, and is twice as wide to unpack: it gains on prompts alone, and an answer
//! would depend on how many rows came together.

use std::{arch::x86_64::*, cell::RefCell};

use super::{
    level::{Kind, Level, Tiled},
    packed::{BLOCK, Format, InputBlock, KEPT_PANELS, PANEL, Panel, Sums, TILE},
};
#[cfg(test)]
use crate::amx::model::Model;
use crate::amx::{Shapes, Tiles, Unit};

/// Rows from which on tiles are taken. For 8 rows a block costs vectors some 54 cycles (108 instructions, two at a time), and tiles
/// some 22 (the loads of factors, sums and scales), which hardly grow less with the rows.
const LEAST_ROWS: usize = 4;
/// Panels that stay unpacked.
const SLOTS: usize = KEPT_PANELS;
/// Blocks whose sums are on their way at the same time, each in a tile of its own.
const GROUP: usize = 4;

/// Four tiles of sums, two left factors and two right ones.
static SHAPES: Shapes = {
    let sums = (TILE as u8, 4 * PANEL as u16);
    let (left, right) = ((TILE as u8, BLOCK as u16), (BLOCK as u8 / 4, 4 * PANEL as u16));
    Shapes::new([sums, sums, sums, sums, left, left, right, right])
};

/// A block of a panel as a right factor.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct Right([u8; RIGHT]);

const RIGHT: usize = PANEL * BLOCK;
/// Bytes of a row of a right factor, and of one of sums.
const ROW: usize = 4 * PANEL;

/// Products of a block before they are scaled.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct Totals([[i32; PANEL]; TILE]);

const NONE: [Totals; GROUP] = [Totals([[0; PANEL]; TILE]); GROUP];

thread_local! {
    /// Where panels are unpacked; kept, since a thread has work for it a hundred times per token.
    static RIGHTS: RefCell<Vec<Right>> = const { RefCell::new(Vec::new()) };
}

enum Session {
    Amx(Unit),
    #[cfg(test)]
    Model(Box<Model>),
}

/// The tiles, set up on the current thread for products with one matrix.
pub(super) struct Open {
    session: Session,
    kind: Kind,
    rights: Vec<Right>,
    /// Which panel each part of `rights` holds.
    unpacked: [Option<usize>; SLOTS],
}

impl Drop for Open {
    fn drop(&mut self) {
        RIGHTS.set(std::mem::take(&mut self.rights));
    }
}

impl Open {
    /// None where vectors are better for `rows` rows of inputs, or all there is.
    pub(super) fn start(level: Level, rows: usize) -> Option<Self> {
        if rows < LEAST_ROWS {
            return None;
        }
        let session = match level.tiles {
            Tiled::No => return None,
            Tiled::Amx => Session::Amx(Unit::start(&SHAPES)),
            #[cfg(test)]
            Tiled::Model => Session::Model(Model::new(&SHAPES).into()),
        };
        Some(Self { session, kind: level.kind, rights: RIGHTS.take(), unpacked: [None; SLOTS] })
    }

    /// Sums of all rows of a tile of inputs with a panel, the matrix's `index`th.
    pub(super) fn product(&mut self, index: usize, panel: Panel, inputs: &[InputBlock], sums: &mut Sums) {
        assert_eq!(panel.quants.len(), inputs.len() * panel.format.quants());
        let Self { session, kind, rights, unpacked } = self;
        let rights = match panel.format {
            Format::Eight => panel.quants,
            Format::Four => {
                rights.resize(SLOTS * inputs.len(), Right([0; RIGHT]));
                let slot = index % SLOTS;
                let part = &mut rights[slot * inputs.len()..][..inputs.len()];
                if unpacked[slot] != Some(index) {
                    unpack(*kind, panel.quants, part);
                    unpacked[slot] = Some(index);
                }
                // SAFETY: as many bytes lie there.
                unsafe { std::slice::from_raw_parts(part.as_ptr().cast(), RIGHT * part.len()) }
            }
        };
        match session {
            Session::Amx(unit) => product(unit, *kind, panel, rights, inputs, sums),
            #[cfg(test)]
            Session::Model(model) => product(&mut **model, *kind, panel, rights, inputs, sums),
        }
    }
}

/// Numbers of 4 bits as bytes: the low halves of a line are a row of a right factor, the high ones the next.
fn unpack(kind: Kind, quants: &[u8], rights: &mut [Right]) {
    #[inline(always)]
    fn all(quants: &[u8], rights: &mut [Right]) {
        for (quants, right) in quants.chunks_exact(RIGHT / 2).zip(rights) {
            for (line, rows) in quants.chunks_exact(ROW).zip(right.0.chunks_exact_mut(2 * ROW)) {
                let (low, high) = rows.split_at_mut(ROW);
                low.iter_mut().zip(line).for_each(|(to, byte)| *to = byte & 15);
                high.iter_mut().zip(line).for_each(|(to, byte)| *to = byte >> 4);
            }
        }
    }
    #[target_feature(enable = "avx512f,avx512bw")]
    fn all_512(quants: &[u8], rights: &mut [Right]) {
        all(quants, rights);
    }
    if kind == Kind::Avx512 {
        // SAFETY: a level exists only where its instructions do.
        unsafe { all_512(quants, rights) }
    } else {
        all(quants, rights);
    }
}

fn product(
    tiles: &mut impl Tiles,
    kind: Kind,
    panel: Panel,
    rights: &[u8],
    inputs: &[InputBlock],
    sums: &mut Sums,
) {
    if kind == Kind::Avx512 {
        // SAFETY: a level exists only where its instructions do.
        unsafe { product_512(tiles, panel, rights, inputs, sums) }
    } else {
        product_anywhere(tiles, panel, rights, inputs, sums);
    }
}

/// Products of up to [`GROUP`] blocks.
#[inline(always)]
fn multiply(tiles: &mut impl Tiles, rights: &[u8], inputs: &[InputBlock], totals: &mut [Totals; GROUP]) {
    assert!(rights.len() >= inputs.len() * RIGHT && inputs.len() <= GROUP);
    let right = |slot: usize| rights[slot * RIGHT..].as_ptr();
    let left = |slot: usize| inputs[slot].quants.as_ptr().cast::<u8>();
    // Each step has a tile of sums of its own; every second step may load its factors while the one before multiplies.
    macro_rules! step {
        ($slot:literal, $left:literal, $right:literal) => {
            if $slot < inputs.len() {
                // SAFETY: eight rows of 32 bytes lie on the left, as many of 64 on the right, by the assertion.
                unsafe {
                    tiles.load::<$right>(right($slot), ROW);
                    tiles.load::<$left>(left($slot), BLOCK);
                }
                tiles.zero::<$slot>();
                tiles.add_bytes::<$slot, $left, $right>();
            }
        };
    }
    macro_rules! store {
        ($slot:literal) => {
            if $slot < inputs.len() {
                // SAFETY: eight rows of 64 bytes fill the totals of a block.
                unsafe { tiles.store::<$slot>(totals[$slot].0.as_mut_ptr().cast(), ROW) };
            }
        };
    }
    step!(0, 4, 6);
    step!(1, 5, 7);
    step!(2, 4, 6);
    step!(3, 5, 7);
    store!(0);
    store!(1);
    store!(2);
    store!(3);
}

/// The product where there is AVX-512, which every processor with AMX has.
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
fn product_512(tiles: &mut impl Tiles, panel: Panel, rights: &[u8], inputs: &[InputBlock], sums: &mut Sums) {
    let parts = panel.format.scales();
    let mut lanes = [_mm512_setzero_ps(); TILE];
    // While one group is scaled the next is multiplied.
    let mut totals = [NONE; 2];
    for (turn, group) in inputs.chunks(GROUP).enumerate() {
        let (first, totals) = (turn * GROUP, &mut totals[turn % 2]);
        multiply(tiles, &rights[first * RIGHT..], group, totals);
        let scales = panel.scales[first * parts..].chunks_exact(parts);
        for ((input, scales), totals) in group.iter().zip(scales).zip(&*totals) {
            let scale = super::x86::halves_512(scales, 0);
            unroll!(ROW in [0 1 2 3 4 5 6 7] if true, {
                // SAFETY: sixteen numbers lie there.
                let total = unsafe { _mm512_load_si512(totals.0[ROW].as_ptr().cast()) };
                let factor = _mm512_mul_ps(scale, _mm512_set1_ps(input.scales[ROW]));
                if panel.format == Format::Four {
                    let least = super::x86::halves_512(scales, 2 * PANEL);
                    lanes[ROW] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(total), factor, lanes[ROW]);
                    lanes[ROW] = _mm512_fmadd_ps(least, _mm512_set1_ps(input.sums[ROW]), lanes[ROW]);
                } else {
                    let total = _mm512_add_epi32(total, _mm512_set1_epi32(input.offsets[ROW]));
                    lanes[ROW] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(total), factor, lanes[ROW]);
                }
            });
        }
    }
    for (sums, lanes) in sums.iter_mut().zip(lanes) {
        // SAFETY: sixteen floats, no alignment needed.
        unsafe { _mm512_storeu_ps(sums.as_mut_ptr(), lanes) };
    }
}

/// The same without vectors: where a model of the tiles is tested on another machine.
fn product_anywhere(
    tiles: &mut impl Tiles,
    panel: Panel,
    rights: &[u8],
    inputs: &[InputBlock],
    sums: &mut Sums,
) {
    *sums = [[0.0; PANEL]; TILE];
    let mut totals = NONE;
    for (turn, group) in inputs.chunks(GROUP).enumerate() {
        multiply(tiles, &rights[turn * GROUP * RIGHT..], group, &mut totals);
        for (slot, (input, totals)) in group.iter().zip(&totals).enumerate() {
            for lane in 0..PANEL {
                let block = panel.block(lane, turn * GROUP + slot);
                for (row, sums) in sums.iter_mut().enumerate() {
                    let offset = if panel.format == Format::Four { 0 } else { input.offsets[row] };
                    let total = (totals.0[row][lane] + offset) as f32;
                    sums[lane] = total.mul_add(block.scale.to_f32() * input.scales[row], sums[lane]);
                    if panel.format == Format::Four {
                        sums[lane] = block.least.to_f32().mul_add(input.sums[row], sums[lane]);
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `place_of_four` and `place` of the packed layout, told by the tiles' own words.
    #[test]
    fn halves_of_bytes_become_rows_of_bytes() {
        let quants: Vec<u8> = (0..RIGHT / 2 * 3).map(|i| (i * 37 % 256) as u8).collect();
        for level in Level::available() {
            let mut rights = [Right([0; RIGHT]); 3];
            unpack(level.kind, &quants, &mut rights);
            for (at, byte) in quants.iter().enumerate() {
                let (block, line, column) = (at / (RIGHT / 2), at % (RIGHT / 2) / ROW, at % ROW);
                let right = &rights[block].0;
                assert_eq!(right[2 * line * ROW + column], byte & 15);
                assert_eq!(right[(2 * line + 1) * ROW + column], byte >> 4);
            }
        }
    }

    #[test]
    fn few_rows_are_left_to_vectors() {
        for level in Level::tested() {
            assert!(Open::start(level, LEAST_ROWS - 1).is_none());
            assert_eq!(Open::start(level, LEAST_ROWS).is_some(), level.tiles != Tiled::No);
        }
    }
}
