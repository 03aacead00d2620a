//! The tile instructions as the manual defines them, one element after the other. What it cannot do (shapes that disagree, one
//! tile in two roles) is a fault of the processor too.

use super::{Shapes, Tiles};

pub(crate) struct Model {
    shapes: Shapes,
    tiles: [[[u8; 64]; 16]; 8],
    /// Takes signed bytes for unsigned ones: a unit that is broken.
    pub(crate) unsigned: bool,
}

impl Model {
    /// `ldtilecfg`
    pub(crate) fn new(shapes: &Shapes) -> Self {
        assert_eq!((shapes.palette, shapes.start_row, shapes.reserved), (1, 0, [0; 14]));
        for tile in 0..16 {
            let (rows, bytes) = (shapes.rows[tile], shapes.bytes[tile]);
            assert!(rows <= 16 && bytes <= 64 && (rows == 0) == (bytes == 0), "tile {tile}");
            assert!(tile < 8 || rows == 0, "there are eight tiles");
        }
        Self { shapes: *shapes, tiles: [[[0xee; 64]; 16]; 8], unsigned: false }
    }

    /// Rows and bytes of a row.
    fn shape(&self, tile: usize) -> (usize, usize) {
        let (rows, bytes) = (usize::from(self.shapes.rows[tile]), usize::from(self.shapes.bytes[tile]));
        assert!(rows > 0 && bytes.is_multiple_of(4), "tile {tile} has no shape, or half elements");
        (rows, bytes)
    }

    /// Rows, columns and groups of four bytes of a product.
    fn product(&self, sum: usize, left: usize, right: usize) -> (usize, usize, usize) {
        assert!(sum != left && sum != right && left != right, "one tile in two roles");
        let [(rows, width), (left_rows, left_width), (right_rows, right_width)] =
            [sum, left, right].map(|tile| self.shape(tile));
        assert_eq!((rows, width, left_width / 4), (left_rows, right_width, right_rows), "shapes disagree");
        (rows, width / 4, right_rows)
    }

    fn group(&self, tile: usize, row: usize, index: usize) -> [u8; 4] {
        std::array::from_fn(|i| self.tiles[tile][row][4 * index + i])
    }

    /// Writes a tile's elements; what lies outside its shape becomes zero.
    fn write(&mut self, tile: usize, element: impl Fn(&Self, usize, usize) -> [u8; 4]) {
        let (rows, bytes) = self.shape(tile);
        let mut new = [[0; 64]; 16];
        for (row, column) in (0..rows).flat_map(|row| (0..bytes / 4).map(move |column| (row, column))) {
            new[row][4 * column..4 * column + 4].copy_from_slice(&element(self, row, column));
        }
        self.tiles[tile] = new;
    }
}

/// As `tdpbf16ps` reads inputs and writes sums: numbers below the normal ones are zeros.
fn flushed(number: f32) -> f32 {
    if number.is_subnormal() { 0.0_f32.copysign(number) } else { number }
}

fn halves([a, b, c, d]: [u8; 4]) -> [f32; 2] {
    [[a, b], [c, d]].map(|half| flushed(f32::from_bits(u32::from(u16::from_le_bytes(half)) << 16)))
}

impl Tiles for Model {
    fn zero<const TILE: usize>(&mut self) {
        self.write(TILE, |_, _, _| [0; 4]);
    }

    unsafe fn load<const TILE: usize>(&mut self, from: *const u8, stride: usize) {
        // SAFETY: the rows are readable, by contract.
        self.write(TILE, |_, row, column| unsafe {
            from.add(row * stride + 4 * column).cast::<[u8; 4]>().read()
        });
    }

    unsafe fn store<const TILE: usize>(&mut self, to: *mut u8, stride: usize) {
        let (rows, bytes) = self.shape(TILE);
        for (row, data) in self.tiles[TILE].iter().take(rows).enumerate() {
            // SAFETY: the rows are writable, by contract.
            unsafe { to.add(row * stride).copy_from(data.as_ptr(), bytes) };
        }
    }

    fn add_bf16<const SUM: usize, const LEFT: usize, const RIGHT: usize>(&mut self) {
        let (_, _, groups) = self.product(SUM, LEFT, RIGHT);
        self.write(SUM, |tiles, row, column| {
            // Even and odd elements are summed apart, each product fused with its sum.
            let mut sums = [0.0_f32; 2];
            for k in 0..groups {
                let (x, y) = (halves(tiles.group(LEFT, row, k)), halves(tiles.group(RIGHT, k, column)));
                sums = std::array::from_fn(|i| flushed(x[i].mul_add(y[i], sums[i])));
            }
            let before = flushed(f32::from_le_bytes(tiles.group(SUM, row, column)));
            flushed(before + flushed(sums[0] + sums[1])).to_le_bytes()
        });
    }

    fn add_bytes<const SUM: usize, const LEFT: usize, const RIGHT: usize>(&mut self) {
        let (_, _, groups) = self.product(SUM, LEFT, RIGHT);
        self.write(SUM, |tiles, row, column| {
            let signed = |byte: u8| if tiles.unsigned { i32::from(byte) } else { i32::from(byte as i8) };
            let mut sum = i32::from_le_bytes(tiles.group(SUM, row, column));
            for k in 0..groups {
                let (x, y) = (tiles.group(LEFT, row, k), tiles.group(RIGHT, k, column));
                let dot: i32 = x.iter().zip(y).map(|(x, y)| signed(*x) * i32::from(y)).sum();
                sum = sum.wrapping_add(dot);
            }
            sum.to_le_bytes()
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `tdpbsud` of one row and one column, by hand.
    #[test]
    fn bytes_on_the_left_have_a_sign_and_those_on_the_right_have_none() {
        let mut shapes = [(1, 4); 8];
        shapes[1] = (1, 8);
        shapes[2] = (2, 4);
        let mut model = Model::new(&Shapes::new(shapes));
        let (left, right) = ([1_u8, 2, 0xff, 0x80, 3, 0, 0, 0], [10_u8, 20, 200, 255, 7, 9, 9, 9]);
        model.zero::<0>();
        let mut sum = [0_u8; 4];
        // SAFETY: eight bytes are read of each, four written.
        unsafe {
            model.load::<1>(left.as_ptr(), 8);
            model.load::<2>(right.as_ptr(), 4);
            model.add_bytes::<0, 1, 2>();
            model.add_bytes::<0, 1, 2>();
            model.store::<0>(sum.as_mut_ptr(), 4);
        }
        assert_eq!(i32::from_le_bytes(sum), 2 * (10 + 40 - 200 - 128 * 255 + 21));
    }

    #[test]
    fn sums_of_halves_flush_what_is_below_normal() {
        let mut model = Model::new(&Shapes::new([(1, 4); 8]));
        let pair = |a: f32, b: f32| {
            let half = |x: f32| ((x.to_bits() >> 16) as u16).to_le_bytes();
            [half(a), half(b)].concat()
        };
        let small = f32::from_bits(0x0040_0000);
        for (left, right, want) in [
            (pair(1.5, 2.0), pair(4.0, 0.5), 7.0),
            (pair(small, 1.0), pair(f32::MAX, 1.0), 1.0),
            (pair(1e-30, 0.0), pair(1e-10, 0.0), 0.0),
        ] {
            model.zero::<0>();
            let mut sum = [0_u8; 4];
            // SAFETY: four bytes each.
            unsafe {
                model.load::<1>(left.as_ptr(), 4);
                model.load::<2>(right.as_ptr(), 4);
                model.add_bf16::<0, 1, 2>();
                model.store::<0>(sum.as_mut_ptr(), 4);
            }
            assert_eq!(f32::from_le_bytes(sum), want);
        }
    }

    #[test]
    #[should_panic(expected = "shapes disagree")]
    fn shapes_that_disagree_are_a_fault() {
        let mut shapes = [super::super::WHOLE; 8];
        shapes[1] = (8, 64);
        Model::new(&Shapes::new(shapes)).add_bytes::<0, 1, 2>();
    }
}
