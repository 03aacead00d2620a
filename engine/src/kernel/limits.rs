//! What this machine could do at most: the measure that speeds are told in.
//!
//! Loops whose operands are in registers or tiles do nothing but multiply, on all threads at once; a walk through memory does
//! nothing but read. No product gets faster than the one, and no answer, each token of which reads all weights, than the other.

use std::{hint::black_box, sync::Barrier, thread, time::Instant};

use super::level::Level;

/// Rates of all threads together.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Limits {
    /// Bytes/s, read from as much memory as was asked for.
    pub reading: f64,
    /// Operations/s (a product and its addition are two) in 8-bit products, as answers are computed; where it is known.
    pub bytes: Option<f64>,
    /// The same in bf16 and f32, as training is.
    pub bf16: Option<f64>,
    pub f32: Option<f64>,
}

impl Limits {
    /// Takes a second or so. `size` is that of the memory which is read again and again; instructions are those of `level`.
    #[must_use]
    pub fn measure(level: Level, threads: usize, size: usize) -> Self {
        let loops = loops(level);
        let rate = |work: Option<Work>| work.map(|work| operations(threads, work));
        Self {
            reading: reading(threads, size),
            bytes: rate(loops.bytes),
            bf16: rate(loops.bf16),
            f32: rate(loops.f32),
        }
    }
}

/// Does something so many times and says how many operations that was.
type Work = fn(rounds: usize) -> usize;

#[derive(Default)]
struct Loops {
    bytes: Option<Work>,
    bf16: Option<Work>,
    f32: Option<Work>,
}

/// Loops of a level's instructions; none for levels that no comparison runs on.
fn loops(level: Level) -> Loops {
    #[cfg(target_arch = "x86_64")]
    if level.has_avx512() {
        let halves: Work = x86::bf16_512;
        let vectors = Loops {
            bytes: Some(x86::bytes_512),
            bf16: is_x86_feature_detected!("avx512bf16").then_some(halves),
            f32: Some(x86::f32_512),
        };
        #[cfg(target_os = "linux")]
        if level.has_amx() {
            return Loops { bytes: Some(tiles::bytes), bf16: Some(tiles::bf16), ..vectors };
        }
        return vectors;
    }
    let _ = level;
    Loops::default()
}

/// The best of a few times that all threads do it at once.
fn at_once(threads: usize, work: impl Fn(usize) -> usize + Sync) -> f64 {
    const TIMES: usize = 5;
    let once = || {
        let start = Barrier::new(threads);
        thread::scope(|scope| {
            let one = |index: usize| {
                let (start, work) = (&start, &work);
                scope.spawn(move || {
                    start.wait();
                    let began = Instant::now();
                    let done = work(index);
                    done as f64 / began.elapsed().as_secs_f64()
                })
            };
            let threads: Vec<_> = (0..threads).map(one).collect();
            threads.into_iter().filter_map(|thread| thread.join().ok()).sum::<f64>()
        })
    };
    (0..TIMES).map(|_| once()).fold(0.0, f64::max)
}

fn operations(threads: usize, work: Work) -> f64 {
    /// Some tens of milliseconds at any rate.
    const ROUNDS: usize = 2_000_000;
    at_once(threads, |_| work(ROUNDS))
}

/// Each thread reads a part of its own.
fn reading(threads: usize, size: usize) -> f64 {
    let data = vec![1_u64; (size / size_of::<u64>()).max(threads)];
    let part = data.len().div_ceil(threads);
    at_once(threads, |index| {
        let part = data.chunks(part).nth(index).unwrap_or_default();
        black_box(pulp::Arch::new().dispatch(|| part.iter().fold(0, |a, b| a | b)));
        size_of_val(part)
    })
}

/// Sums that hide an instruction's latency.
#[cfg(target_arch = "x86_64")]
const SUMS: usize = 12;

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::{arch::x86_64::*, hint::black_box};

    use super::SUMS;

    /// Repeats `$sum = $step` for each of the sums.
    macro_rules! work {
        ($name:ident, $run:ident, $features:literal, $operations:literal, $zero:expr, $operand:expr, $step:ident) => {
            pub fn $name(rounds: usize) -> usize {
                // SAFETY: `loops` names it only where the instructions are.
                unsafe { $run(rounds) }
                rounds * SUMS * $operations
            }

            #[target_feature(enable = $features)]
            fn $run(rounds: usize) {
                let (x, y) = (black_box($operand), black_box($operand));
                let mut sums = [$zero; SUMS];
                for _ in 0..rounds {
                    unroll!(AT in [0 1 2 3 4 5 6 7 8 9 10 11] if true, { sums[AT] = $step(sums[AT], x, y); });
                }
                black_box(sums);
            }
        };
    }

    work!(
        bytes_512,
        run_bytes,
        "avx512f,avx512vnni",
        128,
        _mm512_setzero_si512(),
        _mm512_set1_epi32(3),
        _mm512_dpbusd_epi32
    );
    work!(bf16_512, run_bf16, "avx512f,avx512bf16", 64, _mm512_setzero_ps(), one_bf16(), _mm512_dpbf16_ps);
    work!(f32_512, run_f32, "avx512f", 32, _mm512_setzero_ps(), _mm512_set1_ps(1e-3), add_product);

    #[target_feature(enable = "avx512f")]
    fn add_product(sum: __m512, x: __m512, y: __m512) -> __m512 {
        _mm512_fmadd_ps(x, y, sum)
    }

    #[target_feature(enable = "avx512f,avx512bf16")]
    fn one_bf16() -> __m512bh {
        // SAFETY: both are 64 bytes of plain data.
        unsafe { std::mem::transmute(_mm512_set1_epi32(0x3f80_3f80)) }
    }
}

#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod tiles {
    use crate::amx::{Tiles, Unit, WHOLE_TILES};

    /// Four sums, as many as a block has; `add` makes 16 x 16 sums of 16 groups of four bytes.
    fn rounds(rounds: usize, add: impl Fn(&mut Unit)) {
        let mut unit = Unit::start(&WHOLE_TILES);
        unit.zero::<0>();
        unit.zero::<1>();
        unit.zero::<2>();
        unit.zero::<3>();
        unit.zero::<4>();
        unit.zero::<5>();
        unit.zero::<6>();
        unit.zero::<7>();
        (0..rounds / 16).for_each(|_| add(&mut unit));
    }

    pub fn bytes(count: usize) -> usize {
        rounds(count, |unit| {
            unit.add_bytes::<0, 4, 6>();
            unit.add_bytes::<1, 4, 7>();
            unit.add_bytes::<2, 5, 6>();
            unit.add_bytes::<3, 5, 7>();
        });
        count / 16 * 4 * (16 * 16 * 64 * 2)
    }

    pub fn bf16(count: usize) -> usize {
        rounds(count, |unit| {
            unit.add_bf16::<0, 4, 6>();
            unit.add_bf16::<1, 4, 7>();
            unit.add_bf16::<2, 5, 6>();
            unit.add_bf16::<3, 5, 7>();
        });
        count / 16 * 4 * (16 * 16 * 32 * 2)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_loop_of_every_level_counts_its_operations() {
        for level in Level::available() {
            let Loops { bytes, bf16, f32 } = loops(level);
            let counts = [bytes, bf16, f32].map(|work| work.map(|work| work(160)));
            match level.name() {
                // Ten rounds of four products of 16 x 16 sums of 64 bytes, or 32 halves.
                "amx" => assert_eq!(counts, [Some(40 * 32_768), Some(40 * 16_384), Some(160 * 12 * 32)]),
                "avx512" => {
                    assert_eq!((counts[0], counts[2]), (Some(160 * 12 * 128), Some(160 * 12 * 32)));
                    assert!(counts[1].is_none_or(|count| count == 160 * 12 * 64));
                }
                _ => assert_eq!(counts, [None; 3]),
            }
        }
        assert!(reading(2, 1 << 16) > 0.0);
    }
}
