//! The innermost loops of matrix products: tiles of the result that stay in registers while the sum is made.
//!
//! A tile is up to [`ROWS`] x [`COLS`]. With AVX-512 that is 24 of the 32 vector registers; each step of the sum loads two
//! vectors of the right matrix and broadcasts one element of each row of the left one. The bf16 tile sums pairs of
//! products (`vdpbf16ps`, f32 accumulation), which doubles the rate of f32; where there is AMX, larger blocks go to it. A run says which [`Unit`] it uses. Every
//! element is summed in the order of its index, whatever tile it falls into, so results depend neither on threads nor on
//! neighbours.

#[cfg(target_arch = "x86_64")]
use std::sync::LazyLock;

#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
use super::amx;
#[cfg(all(test, target_os = "linux", target_arch = "x86_64"))]
use crate::amx::model::Model;
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
use crate::amx::{self as tiles, WHOLE_TILES};
use crate::kernel::Level;

/// Rows of a tile.
pub const ROWS: usize = 12;
/// Columns of a tile.
pub const COLS: usize = 32;

/// A cache line of bf16 pairs: one pair (elements `2t` and `2t + 1` of a sum, the first in the low half) of 16 columns.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C, align(64))]
pub struct Line(pub [u32; 16]);

/// Rows of pairs on the left, a panel of [`COLS`] columns on the right: one of the products that a bf16 tile sums.
#[derive(Clone, Copy)]
pub struct Part<'a> {
    /// `[rows, stride]`; the first `pairs` of each row count.
    pub left: &'a [u32],
    pub stride: usize,
    /// `[pairs, 2]`
    pub right: &'a [Line],
}

impl Part<'_> {
    fn pairs(&self) -> usize {
        self.right.len() / 2
    }

    /// The part without its first rows.
    fn below(self, rows: usize) -> Self {
        Self { left: self.left.get(rows * self.stride..).unwrap_or_default(), ..self }
    }
}

/// Where a tile goes: `rows x cols` elements from `start` on, one row `stride` after the other.
pub struct Target {
    pub start: *mut f32,
    pub stride: usize,
    pub rows: usize,
    pub cols: usize,
    /// Add to what is there.
    pub add: bool,
}

/// What multiplies pairs of bf16. A value is only made where the machine has it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Unit {
    /// Loops over f32, slower than products in f32 are.
    #[default]
    Portable,
    #[cfg(target_arch = "x86_64")]
    Avx512,
    #[cfg(all(target_os = "linux", target_arch = "x86_64"))]
    Amx,
    /// A model of AMX's tiles.
    #[cfg(all(test, target_os = "linux", target_arch = "x86_64"))]
    Model,
}

impl Unit {
    /// The best that a level allows.
    pub fn of(level: Level) -> Self {
        #[cfg(all(target_os = "linux", target_arch = "x86_64"))]
        if level.has_amx() {
            return Self::Amx;
        }
        #[cfg(target_arch = "x86_64")]
        if level.has_avx512() && has_fast_bf16() {
            return Self::Avx512;
        }
        let _ = level;
        Self::Portable
    }

    /// Rows that one call of [`bf16_tile`] should get, and the number of pairs that rows and panels are best padded to.
    pub fn shape(self) -> (usize, usize) {
        match self {
            Self::Portable => (ROWS, 1),
            #[cfg(target_arch = "x86_64")]
            Self::Avx512 => (ROWS, 1),
            #[cfg(all(target_os = "linux", target_arch = "x86_64"))]
            Self::Amx => (amx::SIDE, amx::PAIRS),
            #[cfg(all(test, target_os = "linux", target_arch = "x86_64"))]
            Self::Model => (amx::SIDE, amx::PAIRS),
        }
    }

    /// For logs.
    pub fn name(self) -> &'static str {
        match self {
            Self::Portable => "no instructions of its own",
            #[cfg(target_arch = "x86_64")]
            Self::Avx512 => "avx512-bf16",
            #[cfg(all(target_os = "linux", target_arch = "x86_64"))]
            Self::Amx => "amx",
            #[cfg(all(test, target_os = "linux", target_arch = "x86_64"))]
            Self::Model => "a model of amx",
        }
    }

    /// All that this machine has, and the model.
    #[cfg(test)]
    pub fn tested() -> Vec<Self> {
        let mut units = vec![Self::Portable];
        units.extend(Level::available().into_iter().map(Self::of));
        #[cfg(all(target_os = "linux", target_arch = "x86_64"))]
        units.push(Self::Model);
        units.dedup();
        units
    }
}

/// Whether this machine multiplies bf16 faster than f32, and has instructions to round to it.
#[cfg(target_arch = "x86_64")]
fn has_fast_bf16() -> bool {
    static FOUND: LazyLock<bool> =
        LazyLock::new(|| is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512bf16"));
    *FOUND
}

/// Whether [`f32_tile`] has its vectors.
pub fn has_f32_tile() -> bool {
    #[cfg(target_arch = "x86_64")]
    {
        static FOUND: LazyLock<bool> = LazyLock::new(|| is_x86_feature_detected!("avx512f"));
        *FOUND
    }
    #[cfg(not(target_arch = "x86_64"))]
    false
}

/// What the current thread needs to have open while it calls [`bf16_tile`].
pub enum Session {
    Portable,
    #[cfg(target_arch = "x86_64")]
    Avx512,
    #[cfg(all(target_os = "linux", target_arch = "x86_64"))]
    Amx(tiles::Unit),
    #[cfg(all(test, target_os = "linux", target_arch = "x86_64"))]
    Model(Box<Model>),
}

impl Session {
    pub fn start(unit: Unit) -> Self {
        match unit {
            Unit::Portable => Self::Portable,
            #[cfg(target_arch = "x86_64")]
            Unit::Avx512 => Self::Avx512,
            #[cfg(all(target_os = "linux", target_arch = "x86_64"))]
            Unit::Amx => Self::Amx(tiles::Unit::start(&WHOLE_TILES)),
            #[cfg(all(test, target_os = "linux", target_arch = "x86_64"))]
            Unit::Model => Self::Model(Model::new(&WHOLE_TILES).into()),
        }
    }
}

/// Writes `sum over parts of left right` to a target of at most 32 x [`COLS`].
///
/// # Safety
/// The target must be writable, and nobody else may touch it meanwhile.
pub unsafe fn bf16_tile(session: &mut Session, target: &Target, parts: [Part; 2]) {
    assert!(target.cols <= COLS);
    for part in &parts {
        let needed = (target.rows.max(1) - 1) * part.stride + part.pairs();
        assert!(part.pairs() == 0 || needed <= part.left.len(), "rows of pairs end early");
    }
    #[cfg(all(target_os = "linux", target_arch = "x86_64"))]
    if target.rows <= amx::SIDE && parts.iter().all(amx::fits) {
        // SAFETY: the parts are in whole tiles, of which the session has set the shapes; the target is as the caller promises.
        match session {
            Session::Amx(unit) => return unsafe { on_tiles(unit, target, parts) },
            #[cfg(test)]
            Session::Model(model) => return unsafe { on_tiles(&mut **model, target, parts) },
            Session::Portable | Session::Avx512 => {}
        }
    }
    for first in (0..target.rows).step_by(ROWS) {
        let target = Target {
            start: target.start.wrapping_add(first * target.stride),
            rows: ROWS.min(target.rows - first),
            ..*target
        };
        let parts = parts.map(|part| part.below(first));
        match session {
            // SAFETY: as promised by the caller.
            Session::Portable => unsafe { portable_bf16(&target, parts) },
            // SAFETY: where the unit is, are the instructions; the reads were checked above, the writes are promised.
            #[cfg(target_arch = "x86_64")]
            _ if has_fast_bf16() => unsafe { avx512::bf16(&target, parts) },
            // SAFETY: as promised by the caller.
            #[cfg(target_arch = "x86_64")]
            _ => unsafe { portable_bf16(&target, parts) },
        }
    }
}

/// One block on tiles.
///
/// # Safety
/// As for [`bf16_tile`] and [`amx::block`].
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
unsafe fn on_tiles(tiles: &mut impl crate::amx::Tiles, target: &Target, parts: [Part; 2]) {
    let mut block = amx::Block([0.0; amx::SIDE * amx::SIDE]);
    // SAFETY: passed on from the caller.
    unsafe {
        amx::block(tiles, &mut block, parts);
        write(target, &block.0, amx::SIDE);
    }
}

/// Copies sums, `width` to a row, to a target.
///
/// # Safety
/// As for [`bf16_tile`].
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
unsafe fn write(target: &Target, sums: &[f32], width: usize) {
    for (row, sums) in sums.chunks_exact(width).take(target.rows).enumerate() {
        // SAFETY: inside the target, which the caller owns.
        let out =
            unsafe { std::slice::from_raw_parts_mut(target.start.add(row * target.stride), target.cols) };
        for (out, sum) in out.iter_mut().zip(sums) {
            *out = if target.add { *out + sum } else { *sum };
        }
    }
}

/// [`bf16_tile`] for machines without the instruction.
///
/// # Safety
/// As for [`bf16_tile`].
unsafe fn portable_bf16(target: &Target, parts: [Part; 2]) {
    for row in 0..target.rows {
        let mut sums = [0.0f32; COLS];
        super::ops::vectorised(|| {
            for part in &parts {
                let left = &part.left[row * part.stride..];
                for (left, lines) in left.iter().zip(part.right.as_chunks::<2>().0) {
                    let (first, second) = unpack(*left);
                    for (sums, line) in sums.as_chunks_mut::<16>().0.iter_mut().zip(lines) {
                        for (sum, right) in sums.iter_mut().zip(&line.0) {
                            let (a, b) = unpack(*right);
                            *sum += first * a + second * b;
                        }
                    }
                }
            }
        });
        // SAFETY: inside the target, which the caller owns.
        let out =
            unsafe { std::slice::from_raw_parts_mut(target.start.add(row * target.stride), target.cols) };
        for (out, sum) in out.iter_mut().zip(&sums) {
            *out = if target.add { *out + sum } else { *sum };
        }
    }
}

/// Both values of a pair.
#[inline(always)]
pub fn unpack(pair: u32) -> (f32, f32) {
    (f32::from_bits(pair << 16), f32::from_bits(pair & 0xffff_0000))
}

/// A pair of values, each rounded to the nearest bf16, ties to even.
#[inline(always)]
pub fn pack(first: f32, second: f32) -> u32 {
    u32::from(round(first)) | u32::from(round(second)) << 16
}

#[inline(always)]
fn round(value: f32) -> u16 {
    let bits = value.to_bits();
    // Adding would turn a NaN with low bits alone into an infinity.
    let rounded =
        if value.is_nan() { bits | 0x40_0000 } else { bits.wrapping_add(0x7fff + ((bits >> 16) & 1)) };
    (rounded >> 16) as u16
}

/// Rounds `scale * values` into a row of pairs; an odd last value is paired with 0, and so is what is left of the row.
pub fn round_row(pairs: &mut [u32], values: &[f32], scale: f32) {
    let (pairs, padding) = pairs.split_at_mut(values.len().div_ceil(2));
    padding.fill(0);
    #[cfg(target_arch = "x86_64")]
    if has_fast_bf16() {
        // SAFETY: the instructions are there.
        return unsafe { avx512::round_row(pairs, values, scale) };
    }
    round_row_tail(pairs, values, scale);
}

#[inline(always)]
fn round_row_tail(pairs: &mut [u32], values: &[f32], scale: f32) {
    for (pair, values) in pairs.iter_mut().zip(values.chunks(2)) {
        *pair = pack(scale * values[0], values.get(1).map_or(0.0, |second| scale * second));
    }
}

/// Writes out what a row of pairs holds.
pub fn read_row(values: &mut [f32], pairs: &[u32]) {
    #[cfg(target_arch = "x86_64")]
    if has_f32_tile() {
        // SAFETY: the instructions are there.
        let done = unsafe { avx512::read_row(values, pairs) };
        return read_row_tail(&mut values[done..], &pairs[done / 2..]);
    }
    read_row_tail(values, pairs);
}

fn read_row_tail(values: &mut [f32], pairs: &[u32]) {
    super::ops::vectorised(|| {
        for (values, pair) in values.chunks_mut(2).zip(pairs) {
            let (first, second) = unpack(*pair);
            values[0] = first;
            if let Some(value) = values.get_mut(1) {
                *value = second;
            }
        }
    });
}

/// A left matrix of an f32 tile: element `(i, j)` is `data[i * row_stride + j * col_stride]`.
#[derive(Clone, Copy)]
pub struct Left<'a> {
    pub data: &'a [f32],
    pub row_stride: usize,
    pub col_stride: usize,
}

/// A right matrix of an f32 tile, `[inner, ..]`, one row `stride` after the other.
#[derive(Clone, Copy)]
pub struct Right<'a> {
    pub data: &'a [f32],
    pub stride: usize,
}

/// Writes `scale * left right` to a target of at most [`ROWS`] x [`COLS`], summing over `inner`.
///
/// # Safety
/// The target must be writable, nobody else may touch it meanwhile, and [`has_f32_tile`] must hold.
pub unsafe fn f32_tile(target: &Target, left: Left, right: Right, inner: usize, scale: f32) {
    assert!(target.rows <= ROWS && target.cols <= COLS);
    if target.rows == 0 || target.cols == 0 || inner == 0 {
        return;
    }
    let last_left = (target.rows - 1) * left.row_stride + (inner - 1) * left.col_stride;
    let last_right = (inner - 1) * right.stride + target.cols - 1;
    assert!(last_left < left.data.len() && last_right < right.data.len(), "a factor ends early");
    #[cfg(target_arch = "x86_64")]
    // SAFETY: the instructions are there by contract, the reads were checked above, the writes are the caller's promise.
    unsafe {
        avx512::f32(target, left, right, inner, scale);
    }
    #[cfg(not(target_arch = "x86_64"))]
    {
        let _ = scale;
        unreachable!("`has_f32_tile` is false here");
    }
}

#[cfg(target_arch = "x86_64")]
mod avx512 {
    use std::arch::x86_64::*;

    use super::{Left, Part, Right, Target};

    /// Calls `$tile::<rows>` for the number of rows at run time.
    macro_rules! by_rows {
        ($rows:expr, $tile:ident($($argument:expr),*)) => {
            match $rows {
                12 => $tile::<12>($($argument),*),
                11 => $tile::<11>($($argument),*),
                10 => $tile::<10>($($argument),*),
                9 => $tile::<9>($($argument),*),
                8 => $tile::<8>($($argument),*),
                7 => $tile::<7>($($argument),*),
                6 => $tile::<6>($($argument),*),
                5 => $tile::<5>($($argument),*),
                4 => $tile::<4>($($argument),*),
                3 => $tile::<3>($($argument),*),
                2 => $tile::<2>($($argument),*),
                1 => $tile::<1>($($argument),*),
                _ => {}
            }
        };
    }

    /// # Safety
    /// AVX512F and AVX512_BF16 must be there, and reads and writes inside their slices.
    #[target_feature(enable = "avx512f,avx512bf16")]
    pub unsafe fn bf16(target: &Target, parts: [Part; 2]) {
        // SAFETY: passed on from the caller.
        unsafe { by_rows!(target.rows, bf16_rows(target, parts)) }
    }

    /// # Safety
    /// As for [`bf16`]; `target.rows == R`.
    #[target_feature(enable = "avx512f,avx512bf16")]
    unsafe fn bf16_rows<const R: usize>(target: &Target, parts: [Part; 2]) {
        let mut sums = [[_mm512_setzero_ps(); 2]; R];
        for part in parts {
            let (left, right) = (part.left.as_ptr(), part.right.as_ptr());
            for t in 0..part.pairs() {
                // SAFETY: `t` is below the number of pairs of each row and of the panel; lines are aligned.
                unsafe {
                    let first = bf16_pairs(_mm512_load_si512(right.add(2 * t).cast()));
                    let second = bf16_pairs(_mm512_load_si512(right.add(2 * t + 1).cast()));
                    for (r, sums) in sums.iter_mut().enumerate() {
                        let pair = bf16_pairs(_mm512_set1_epi32(*left.add(r * part.stride + t) as i32));
                        sums[0] = _mm512_dpbf16_ps(sums[0], pair, first);
                        sums[1] = _mm512_dpbf16_ps(sums[1], pair, second);
                    }
                }
            }
        }
        // SAFETY: inside the target by contract.
        unsafe { store(target, &sums) }
    }

    /// # Safety
    /// AVX512F and AVX512_BF16 must be there; `pairs` is half as long as `values`.
    #[target_feature(enable = "avx512f,avx512bf16")]
    pub unsafe fn round_row(pairs: &mut [u32], values: &[f32], scale: f32) {
        let factor = _mm512_set1_ps(scale);
        let (blocks, values_left) = values.as_chunks::<32>();
        let (whole, pairs_left) = pairs.split_at_mut(16 * blocks.len());
        for (line, block) in whole.as_chunks_mut::<16>().0.iter_mut().zip(blocks) {
            // SAFETY: 32 values are read, 64 bytes are written, each inside its array.
            unsafe {
                let low = _mm512_mul_ps(factor, _mm512_loadu_ps(block.as_ptr()));
                let high = _mm512_mul_ps(factor, _mm512_loadu_ps(block.as_ptr().add(16)));
                let rounded: __m512i = std::mem::transmute(_mm512_cvtne2ps_pbh(high, low));
                _mm512_storeu_si512(line.as_mut_ptr().cast(), rounded);
            }
        }
        super::round_row_tail(pairs_left, values_left, scale);
    }

    /// Writes out whole blocks of 16 values; their number is returned.
    ///
    /// # Safety
    /// AVX512F must be there.
    #[target_feature(enable = "avx512f")]
    pub unsafe fn read_row(values: &mut [f32], pairs: &[u32]) -> usize {
        let blocks = values.as_chunks_mut::<16>().0;
        let done = 16 * blocks.len().min(pairs.len() / 8);
        for (block, pairs) in blocks.iter_mut().zip(pairs.as_chunks::<8>().0) {
            // SAFETY: 32 bytes are read, 64 are written, each inside its array. A bf16 is the upper half of an f32.
            unsafe {
                let halves = _mm512_cvtepu16_epi32(_mm256_loadu_si256(pairs.as_ptr().cast()));
                _mm512_storeu_ps(block.as_mut_ptr(), _mm512_castsi512_ps(_mm512_slli_epi32(halves, 16)));
            }
        }
        done
    }

    #[target_feature(enable = "avx512f,avx512bf16")]
    fn bf16_pairs(bits: __m512i) -> __m512bh {
        // SAFETY: both are 64 bytes of plain data.
        unsafe { std::mem::transmute(bits) }
    }

    /// # Safety
    /// AVX512F must be there, and reads and writes inside their slices.
    #[target_feature(enable = "avx512f")]
    pub unsafe fn f32(target: &Target, left: Left, right: Right, inner: usize, scale: f32) {
        // SAFETY: passed on from the caller.
        unsafe { by_rows!(target.rows, f32_rows(target, left, right, inner, scale)) }
    }

    /// # Safety
    /// As for [`f32`]; `target.rows == R`.
    #[target_feature(enable = "avx512f")]
    unsafe fn f32_rows<const R: usize>(target: &Target, left: Left, right: Right, inner: usize, scale: f32) {
        let [low, high] = masks(target.cols);
        let mut sums = [[_mm512_setzero_ps(); 2]; R];
        let (a, b) = (left.data.as_ptr(), right.data.as_ptr());
        for k in 0..inner {
            // SAFETY: `k` is below `inner` and rows below `R`, for which the caller checked; masked lanes are not read.
            unsafe {
                let b = b.add(k * right.stride);
                let first = _mm512_maskz_loadu_ps(low, b);
                let second = _mm512_maskz_loadu_ps(high, b.wrapping_add(16));
                for (r, sums) in sums.iter_mut().enumerate() {
                    let a = _mm512_set1_ps(*a.add(r * left.row_stride + k * left.col_stride));
                    sums[0] = _mm512_fmadd_ps(a, first, sums[0]);
                    sums[1] = _mm512_fmadd_ps(a, second, sums[1]);
                }
            }
        }
        let scale = _mm512_set1_ps(scale);
        for sums in &mut sums {
            *sums = [_mm512_mul_ps(sums[0], scale), _mm512_mul_ps(sums[1], scale)];
        }
        // SAFETY: inside the target by contract.
        unsafe { store(target, &sums) }
    }

    /// Lanes of two vectors that `cols` columns fill.
    fn masks(cols: usize) -> [__mmask16; 2] {
        let mask = |cols: usize| if cols >= 16 { u16::MAX } else { (1 << cols) - 1 };
        [mask(cols), mask(cols.saturating_sub(16))]
    }

    /// # Safety
    /// The first `R` rows of the target must be writable.
    #[target_feature(enable = "avx512f")]
    unsafe fn store<const R: usize>(target: &Target, sums: &[[__m512; 2]; R]) {
        let masks = masks(target.cols);
        for (r, sums) in sums.iter().enumerate() {
            for (half, (sum, mask)) in sums.iter().zip(masks).enumerate() {
                // SAFETY: masked lanes are neither read nor written.
                unsafe {
                    let at = target.start.wrapping_add(r * target.stride + 16 * half);
                    let sum =
                        if target.add { _mm512_add_ps(_mm512_maskz_loadu_ps(mask, at), *sum) } else { *sum };
                    _mm512_mask_storeu_ps(at, mask, sum);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounding_is_to_the_nearest_even() {
        let check = |value: f32, bits: u32| assert_eq!(pack(value, 0.0), bits, "{value}");
        check(1.0, 0x3f80);
        check(f32::from_bits(0x3f80_8000), 0x3f80);
        check(f32::from_bits(0x3f81_8000), 0x3f82);
        check(f32::from_bits(0x3f80_8001), 0x3f81);
        check(f32::INFINITY, 0x7f80);
        check(-f32::MAX, 0xff80);
        assert!(unpack(pack(f32::from_bits(0x7f80_0001), 2.0)).0.is_nan());
        assert_eq!(unpack(pack(-2.5, 3.0)), (-2.5, 3.0));
    }

    /// Small whole numbers, whose products are exact in bf16 and f32 alike.
    fn small(i: usize) -> f32 {
        ((i * 7) % 11) as f32 - 5.0
    }

    /// Blocks of whole tiles, which AMX takes, and of fewer rows and columns than that.
    #[test]
    fn blocks_are_exact_on_whole_numbers() {
        let (stride, pairs) = (48, 32);
        let left: Vec<u32> = (0..32 * stride).map(|i| pack(small(i), small(i + 3))).collect();
        let line = |i: usize| Line(std::array::from_fn(|j| pack(small(i * 16 + j), small(i * 5 + j))));
        let right: Vec<Line> = (0..2 * pairs).map(line).collect();
        let (first, second) = right.split_at(pairs);
        let parts =
            [Part { left: &left, stride, right: first }, Part { left: &left[16..], stride, right: second }];
        for (unit, rows, cols) in Unit::tested()
            .into_iter()
            .flat_map(|unit| [(unit, 32, 32), (unit, 32, 1), (unit, 17, 20), (unit, 1, 32)])
        {
            let mut out = vec![1.0f32; 32 * 40];
            let target = Target { start: out.as_mut_ptr(), stride: 40, rows, cols, add: true };
            // SAFETY: `out` has room for the whole tile.
            unsafe { bf16_tile(&mut Session::start(unit), &target, parts) };
            for (at, got) in out.iter().enumerate() {
                let (r, c) = (at / 40, at % 40);
                let products = (0..pairs).map(|t| {
                    let (a, b) = unpack(left[r * stride + t]);
                    let (x, y) = unpack(right[2 * t + c.min(31) / 16].0[c % 16]);
                    a * x + b * y
                });
                let sum = if r < rows && c < cols { products.sum::<f32>() } else { 0.0 };
                assert_eq!(*got, 1.0 + sum, "{unit:?} {rows} x {cols}: {r} {c}");
            }
        }
    }

    #[test]
    fn a_level_uses_no_more_than_it_says() {
        for level in Level::available() {
            let unit = Unit::of(level);
            match level.name() {
                "amx" => assert_eq!(unit.name(), "amx"),
                "avx512" => assert!(["avx512-bf16", "no instructions of its own"].contains(&unit.name())),
                _ => assert_eq!(unit, Unit::Portable),
            }
        }
    }

    /// Every size of a tile, from one part and from two, against the definition; on every unit.
    #[test]
    fn bf16_tiles_of_every_size_are_exact_on_whole_numbers() {
        let (stride, pairs) = (9, 7);
        let left: Vec<u32> = (0..ROWS * stride).map(|i| pack(small(i), small(i + 3))).collect();
        let line = |i: usize| Line(std::array::from_fn(|j| pack(small(i * 16 + j), small(i * 5 + j))));
        let right: Vec<Line> = (0..2 * pairs).map(line).collect();
        let whole = Part { left: &left, stride, right: &right };
        let none = Part { left: &[], stride: 0, right: &[] };
        let split =
            [Part { right: &right[..6], ..whole }, Part { left: &left[3..], stride, right: &right[6..] }];
        for rows in 1..=ROWS {
            for cols in [1, 15, 16, 17, COLS] {
                for add in [false, true] {
                    let mut expected = vec![1.0f32; ROWS * 40];
                    for (r, c) in (0..rows).flat_map(|r| (0..cols).map(move |c| (r, c))) {
                        let products = (0..pairs).map(|t| {
                            let (a, b) = unpack(left[r * stride + t]);
                            let (x, y) = unpack(right[2 * t + c / 16].0[c % 16]);
                            a * x + b * y
                        });
                        let sum: f32 = products.sum();
                        expected[r * 40 + c] = if add { 1.0 + sum } else { sum };
                    }
                    let ways =
                        Unit::tested().into_iter().flat_map(|unit| [(unit, [whole, none]), (unit, split)]);
                    for (unit, parts) in ways {
                        let mut out = vec![1.0f32; ROWS * 40];
                        let target = Target { start: out.as_mut_ptr(), stride: 40, rows, cols, add };
                        // SAFETY: `out` has room for the whole tile.
                        unsafe { bf16_tile(&mut Session::start(unit), &target, parts) };
                        assert_eq!(out, expected, "{rows} x {cols}, add {add}, {unit:?}");
                    }
                }
            }
        }
    }
}
