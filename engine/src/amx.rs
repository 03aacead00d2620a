//! Tiles: the matrix unit of some x86 processors (AMX; Intel's manual, volume 1, chapter 18).
//!
//! Eight registers of up to 16 rows of 64 bytes; one instruction adds to one of them the product of two others. Right factors
//! lie in groups of four bytes: row `k` holds, for each column, what is multiplied with the `k`th four bytes of a left row. The
//! loops over tiles are written against [`Tiles`], so that they run on the unit and, in tests, on a model of it that is written
//! from the manual: `kernel::tiles` multiplies 8-bit numbers, `train::amx` pairs of bf16.
//!
//! The unit is trusted only after it has computed known products in a process made for that: whatever it does there (a fault
//! because the kernel or a hypervisor withholds it, a wrong sum) costs nothing but the speed.

#[cfg(test)]
pub(crate) mod model;
mod unit;

pub(crate) use self::unit::{Unit, found};

/// Why the unit is not used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Absence {
    #[error("the processor has no AMX")]
    Processor,
    #[error("the system does not save AMX's registers")]
    System,
    #[error("the system refuses AMX to this process")]
    Refused,
    #[error("AMX faulted or was wrong in a trial")]
    Wrong,
}

/// The tile registers, once they have their shapes, and the instructions on them.
pub(crate) trait Tiles {
    fn zero<const TILE: usize>(&mut self);

    /// Reads a tile, whose rows lie `stride` bytes apart.
    ///
    /// # Safety
    /// Its rows must be readable.
    unsafe fn load<const TILE: usize>(&mut self, from: *const u8, stride: usize);

    /// Writes a tile in the same way.
    ///
    /// # Safety
    /// Its rows must be writable.
    unsafe fn store<const TILE: usize>(&mut self, to: *mut u8, stride: usize);

    /// Adds products of pairs of bf16 to f32 sums (`tdpbf16ps`).
    fn add_bf16<const SUM: usize, const LEFT: usize, const RIGHT: usize>(&mut self);

    /// Adds products of signed bytes on the left with unsigned ones on the right to 32-bit sums (`tdpbsud`).
    fn add_bytes<const SUM: usize, const LEFT: usize, const RIGHT: usize>(&mut self);
}

/// The shapes of all eight tiles, as `ldtilecfg` reads them.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
pub(crate) struct Shapes {
    palette: u8,
    start_row: u8,
    reserved: [u8; 14],
    bytes: [u16; 16],
    rows: [u8; 16],
}

impl Shapes {
    /// Rows and bytes of a row of each tile.
    pub(crate) const fn new(tiles: [(u8, u16); 8]) -> Self {
        let mut shapes = Self { palette: 1, start_row: 0, reserved: [0; 14], bytes: [0; 16], rows: [0; 16] };
        let mut tile = 0;
        while tile < 8 {
            (shapes.rows[tile], shapes.bytes[tile]) = tiles[tile];
            tile += 1;
        }
        shapes
    }
}

/// Rows and bytes of a whole tile.
pub(crate) const WHOLE: (u8, u16) = (16, 64);
/// All tiles whole: what products of bf16 work with.
pub(crate) static WHOLE_TILES: Shapes = Shapes::new([WHOLE; 8]);

/// Whether both kinds of products are right, of small whole numbers, of which every way of summing is exact. Needs
/// [`WHOLE_TILES`] and allocates nothing.
fn is_right(tiles: &mut impl Tiles) -> bool {
    #[repr(align(64))]
    struct Tile([u8; 1024]);
    let mut factors = [Tile([0; 1024]), Tile([0; 1024])];
    let mut sums = Tile([0; 1024]);
    let mut product = |factors: &[Tile; 2], bytes: bool| {
        tiles.zero::<0>();
        // SAFETY: sixteen rows of 64 bytes lie in each.
        unsafe {
            tiles.load::<4>(factors[0].0.as_ptr(), 64);
            tiles.load::<6>(factors[1].0.as_ptr(), 64);
            if bytes {
                tiles.add_bytes::<0, 4, 6>()
            } else {
                tiles.add_bf16::<0, 4, 6>()
            }
            tiles.store::<0>(sums.0.as_mut_ptr(), 64);
        }
        sums.0.as_chunks::<4>().0.iter().copied().enumerate().all(|(at, sum)| {
            let (row, column) = (at / 16, at % 16);
            let left = |i: usize| factors[0].0[row * 64 + i];
            let right = |i: usize| factors[1].0[i / 4 * 64 + column * 4 + i % 4];
            if bytes {
                let products = (0..64).map(|i| i32::from(left(i) as i8) * i32::from(right(i)));
                return products.sum::<i32>() == i32::from_le_bytes(sum);
            }
            let wide = |bytes: [u8; 2]| f32::from_bits(u32::from(u16::from_le_bytes(bytes)) << 16);
            let products =
                (0..64).step_by(2).map(|i| wide([left(i), left(i + 1)]) * wide([right(i), right(i + 1)]));
            products.sum::<f32>() == f32::from_le_bytes(sum)
        })
    };
    for (factor, step) in factors.iter_mut().zip([37, 91]) {
        factor.0.iter_mut().enumerate().for_each(|(i, byte)| *byte = (i * step % 251) as u8);
    }
    if !product(&factors, true) {
        return false;
    }
    for (factor, step) in factors.iter_mut().zip([7, 5]) {
        for (i, half) in factor.0.as_chunks_mut::<2>().0.iter_mut().enumerate() {
            // Whole numbers up to 5 have no more bits than a bf16.
            let number = (i * step % 11) as f32 - 5.0;
            *half = ((number.to_bits() >> 16) as u16).to_le_bytes();
        }
    }
    product(&factors, false)
}

#[cfg(test)]
mod tests {
    use super::{model::Model, *};

    #[test]
    fn the_shapes_lie_as_the_instruction_reads_them() {
        assert_eq!(size_of::<Shapes>(), 64);
        assert_eq!((std::mem::offset_of!(Shapes, bytes), std::mem::offset_of!(Shapes, rows)), (16, 48));
        let shapes = Shapes::new([(8, 32), WHOLE, WHOLE, WHOLE, WHOLE, WHOLE, WHOLE, (1, 4)]);
        assert_eq!((&shapes.rows[..2], &shapes.bytes[..2]), (&[8, 16][..], &[32, 64][..]));
        assert_eq!((shapes.rows[7], shapes.bytes[7], shapes.rows[8]), (1, 4, 0));
    }

    #[test]
    fn the_trial_tells_a_wrong_unit() {
        assert!(is_right(&mut Model::new(&WHOLE_TILES)));
        let mut broken = Model::new(&WHOLE_TILES);
        broken.unsigned = true;
        assert!(!is_right(&mut broken));
    }
}
