//! Blocks of a bf16 product on the tiles of AMX.
//!
//! A block is 32 x 32: four tiles of sums, two of each factor. The packed layout of `bf16` is what the unit wants as it is: a
//! [`Line`](super::tile::Line) is a row of a right tile.

use super::tile::Part;
use crate::amx::Tiles;

/// Rows and columns of a block.
pub const SIDE: usize = 32;
/// Pairs that one instruction sums; those of a part must be a multiple.
pub const PAIRS: usize = 16;

/// Bytes of a row of pairs of a tile; of a panel, which two tiles share; and of a row of a block.
const ROW: usize = 64;
const PANEL_ROW: usize = 2 * ROW;
const BLOCK_ROW: usize = 4 * SIDE;

/// Sums of one block, row-major.
#[repr(C, align(64))]
pub struct Block(pub [f32; SIDE * SIDE]);

/// Whether a part can be read in whole tiles.
pub fn fits(part: &Part) -> bool {
    let pairs = part.right.len() / 2;
    pairs == 0
        || (pairs.is_multiple_of(PAIRS)
            && part.left.len() >= (SIDE - 1) * part.stride + pairs
            && part.stride > 0)
}

/// Writes the sum of the parts' products.
///
/// # Safety
/// The tiles must have the shapes [`crate::amx::WHOLE_TILES`]; [`fits`] must hold for both parts.
#[inline(always)]
pub unsafe fn block(tiles: &mut impl Tiles, sums: &mut Block, parts: [Part; 2]) {
    tiles.zero::<0>();
    tiles.zero::<1>();
    tiles.zero::<2>();
    tiles.zero::<3>();
    for part in parts.iter().filter(|part| !part.right.is_empty()) {
        let (upper, right) = (part.left.as_ptr().cast::<u8>(), part.right.as_ptr().cast::<u8>());
        let stride = 4 * part.stride;
        let lower = upper.wrapping_add(16 * stride);
        for step in 0..part.right.len() / 2 / PAIRS {
            let (pairs, rows) = (step * ROW, step * PAIRS * PANEL_ROW);
            // SAFETY: of the left, 32 rows of `pairs` pairs are read, 16 at a time; of the right, `pairs` rows of two lines.
            unsafe {
                tiles.load::<4>(upper.add(pairs), stride);
                tiles.load::<6>(right.add(rows), PANEL_ROW);
                tiles.load::<5>(lower.add(pairs), stride);
                tiles.load::<7>(right.add(rows + ROW), PANEL_ROW);
            }
            tiles.add_bf16::<0, 4, 6>();
            tiles.add_bf16::<1, 4, 7>();
            tiles.add_bf16::<2, 5, 6>();
            tiles.add_bf16::<3, 5, 7>();
        }
    }
    let out = sums.0.as_mut_ptr().cast::<u8>();
    // SAFETY: four tiles of 16 x 16 values fill the block.
    unsafe {
        tiles.store::<0>(out, BLOCK_ROW);
        tiles.store::<1>(out.add(ROW), BLOCK_ROW);
        tiles.store::<2>(out.add(16 * BLOCK_ROW), BLOCK_ROW);
        tiles.store::<3>(out.add(16 * BLOCK_ROW + ROW), BLOCK_ROW);
    }
}
