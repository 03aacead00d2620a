//! Tiles of AMX, the matrix unit of some x86 processors: 16 rows of 64 bytes each, `tdpbf16ps` multiplies two of them.
//!
//! A block is 32 x 32: four tiles of sums, two of each factor. The packed layout of `bf16` is what the unit wants as it is: a
//! [`Line`] is a row of a right tile.
//!
//! The unit is trusted only after it has computed a known product, in a process made for that: whatever it does there
//! (a fault because the kernel or a hypervisor withholds it, a wrong sum) costs nothing but the speed.

use std::arch::asm;
use std::sync::LazyLock;

use super::tile::{Line, Part, pack, unpack};

/// Rows and columns of a block.
pub const SIDE: usize = 32;
/// Pairs that one instruction sums; those of a part must be a multiple.
pub const PAIRS: usize = 16;

/// Whether blocks can be computed here. Asks the kernel for permission the first time.
pub fn is_usable() -> bool {
    static USABLE: LazyLock<bool> =
        LazyLock::new(|| is_there() && survives(|| is_permitted() && is_right()) && is_permitted());
    *USABLE
}

/// Whether the processor has the unit and the kernel saves its registers.
fn is_there() -> bool {
    use std::arch::x86_64::{__cpuid, __cpuid_count, _xgetbv};
    const TILE_AND_BF16: u32 = 1 << 24 | 1 << 22;
    const TILE_STATE: u64 = 1 << 17 | 1 << 18;
    const OSXSAVE: u32 = 1 << 27;
    if __cpuid(0).eax < 7 || __cpuid(1).ecx & OSXSAVE == 0 {
        return false;
    }
    // SAFETY: the system has switched the instruction on.
    let saved = unsafe { _xgetbv(0) };
    __cpuid_count(7, 0).edx & TILE_AND_BF16 == TILE_AND_BF16 && saved & TILE_STATE == TILE_STATE
}

/// Without the kernel's permission the first instruction of the unit faults.
fn is_permitted() -> bool {
    const ARCH_REQ_XCOMP_PERM: libc::c_long = 0x1023;
    const TILE_DATA: libc::c_long = 18;
    // SAFETY: the call changes nothing but this process's permission.
    unsafe { libc::syscall(libc::SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, TILE_DATA) == 0 }
}

/// Whether a child process comes through a trial, and the trial says yes. It may not allocate.
fn survives(trial: fn() -> bool) -> bool {
    // SAFETY: the child makes system calls and works on its own stack, as a child of a process with threads must, and exits.
    let child = unsafe { libc::fork() };
    match child {
        -1 => false,
        0 => {
            // SAFETY: neither call returns to code that could notice the missing threads.
            unsafe {
                libc::prctl(libc::PR_SET_DUMPABLE, 0);
                libc::_exit(i32::from(!trial()))
            }
        }
        child => {
            let mut status = 0;
            loop {
                // SAFETY: `status` outlives the call.
                let waited = unsafe { libc::waitpid(child, &mut status, 0) };
                let interrupted = std::io::Error::last_os_error().kind() == std::io::ErrorKind::Interrupted;
                if waited == child || !interrupted {
                    return waited == child && libc::WIFEXITED(status) && libc::WEXITSTATUS(status) == 0;
                }
            }
        }
    }
}

/// Small whole numbers, of which both ways of summing are exact. Allocates nothing.
fn is_right() -> bool {
    const STRIDE: usize = 2 * PAIRS;
    let small = |i: usize| ((i * 7) % 11) as f32 - 5.0;
    let mut left = [0u32; SIDE * STRIDE];
    left.iter_mut().enumerate().for_each(|(i, pair)| *pair = pack(small(i), small(i + 3)));
    let mut right = [Line([0; 16]); 2 * STRIDE];
    for (i, line) in right.iter_mut().enumerate() {
        line.0.iter_mut().enumerate().for_each(|(j, pair)| *pair = pack(small(i * 16 + j), small(i * 5 + j)));
    }
    let (first, second) = right.split_at(2 * PAIRS);
    let parts = [
        Part { left: &left, stride: STRIDE, right: first },
        Part { left: &left[PAIRS..], stride: STRIDE, right: second },
    ];
    let mut sums = Block([0.0; SIDE * SIDE]);
    let session = Session::start();
    // SAFETY: permission was asked for, the session is open, and each part has 32 rows of 16 pairs.
    unsafe { block(&mut sums, parts) };
    drop(session);
    sums.0.iter().enumerate().all(|(at, sum)| {
        let (row, col) = (at / SIDE, at % SIDE);
        let products = (0..STRIDE).map(|t| {
            let (a, b) = unpack(left[row * STRIDE + t]);
            let (x, y) = unpack(right[2 * t + col / 16].0[col % 16]);
            a * x + b * y
        });
        products.sum::<f32>() == *sum
    })
}

/// The shapes of all eight tiles, as `ldtilecfg` reads them.
#[repr(C, align(64))]
struct Shapes {
    palette: u8,
    start_row: u8,
    reserved: [u8; 14],
    bytes: [u16; 16],
    rows: [u8; 16],
}

static SHAPES: Shapes = {
    let mut shapes = Shapes { palette: 1, start_row: 0, reserved: [0; 14], bytes: [0; 16], rows: [0; 16] };
    let mut tile = 0;
    while tile < 8 {
        shapes.bytes[tile] = 64;
        shapes.rows[tile] = 16;
        tile += 1;
    }
    shapes
};

/// The unit set up on the current thread; it must not move to another one.
pub struct Session {
    _here: std::marker::PhantomData<*const ()>,
}

impl Session {
    /// Needs [`is_usable`], or its permission.
    pub fn start() -> Self {
        // SAFETY: the static lives for ever; tile registers belong to nobody else on this thread.
        unsafe { asm!("ldtilecfg [{}]", in(reg) &raw const SHAPES, options(nostack)) };
        Self { _here: std::marker::PhantomData }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        // SAFETY: gives the registers up, so that the kernel need not save them any longer.
        unsafe { asm!("tilerelease", options(nostack, nomem)) };
    }
}

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
/// The unit must be permitted and a [`Session`] open on this thread; [`fits`] must hold for both parts.
pub unsafe fn block(sums: &mut Block, parts: [Part; 2]) {
    // SAFETY: the session has given the eight tiles their shapes.
    unsafe {
        asm!("tilezero tmm0", "tilezero tmm1", "tilezero tmm2", "tilezero tmm3", options(nostack, nomem));
    }
    for part in parts.iter().filter(|part| !part.right.is_empty()) {
        let left = part.left.as_ptr();
        let right = part.right.as_ptr().cast::<u8>();
        // SAFETY: of the left, 32 rows of `pairs` pairs are read, 16 at a time; of the right, `pairs` rows of two lines.
        unsafe {
            asm!(
                "2:",
                "tileloadd tmm4, [{upper} + {left_stride}*1]",
                "tileloadd tmm6, [{first} + {right_stride}*1]",
                "tileloadd tmm5, [{lower} + {left_stride}*1]",
                "tileloadd tmm7, [{second} + {right_stride}*1]",
                "tdpbf16ps tmm0, tmm4, tmm6",
                "tdpbf16ps tmm1, tmm4, tmm7",
                "tdpbf16ps tmm2, tmm5, tmm6",
                "tdpbf16ps tmm3, tmm5, tmm7",
                "add {upper}, 64",
                "add {lower}, 64",
                "add {first}, 2048",
                "add {second}, 2048",
                "dec {count}",
                "jnz 2b",
                upper = inout(reg) left => _,
                lower = inout(reg) left.wrapping_add(16 * part.stride) => _,
                first = inout(reg) right => _,
                second = inout(reg) right.wrapping_add(64) => _,
                left_stride = in(reg) 4 * part.stride,
                right_stride = in(reg) 128usize,
                count = inout(reg) part.right.len() / 2 / PAIRS => _,
                options(nostack, readonly),
            );
        }
    }
    let out = sums.0.as_mut_ptr().cast::<u8>();
    // SAFETY: four tiles of 16 x 16 values fill the block, whose rows are 128 bytes.
    unsafe {
        asm!(
            "tilestored [{upper} + {stride}*1], tmm0",
            "tilestored [{upper_right} + {stride}*1], tmm1",
            "tilestored [{lower} + {stride}*1], tmm2",
            "tilestored [{lower_right} + {stride}*1], tmm3",
            upper = in(reg) out,
            upper_right = in(reg) out.wrapping_add(64),
            lower = in(reg) out.wrapping_add(16 * 128),
            lower_right = in(reg) out.wrapping_add(16 * 128 + 64),
            stride = in(reg) 128usize,
            options(nostack),
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_unit_is_right_wherever_it_is_used() {
        if is_usable() {
            assert!(is_right());
        } else {
            eprintln!("SKIPPED, NOT PASSED: this machine has no AMX that works");
        }
    }

    #[test]
    fn a_trial_that_faults_is_a_no_and_nothing_else() {
        assert!(survives(|| true));
        assert!(!survives(|| false));
        if !is_there() {
            assert!(!survives(is_right), "the instructions are not there");
        }
    }

    #[test]
    fn the_shapes_lie_as_the_instruction_reads_them() {
        assert_eq!(size_of::<Shapes>(), 64);
        assert_eq!((std::mem::offset_of!(Shapes, bytes), std::mem::offset_of!(Shapes, rows)), (16, 48));
    }
}
