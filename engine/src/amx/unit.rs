//! The unit itself: whether it may be used, and its instructions, for which stable Rust has no intrinsics.

use std::{arch::asm, marker::PhantomData, sync::LazyLock};

use super::{Absence, Shapes, Tiles, WHOLE_TILES, is_right};

/// Whether the unit can be used here. Asks the kernel for permission, and tries the unit, the first time.
pub(crate) fn found() -> Result<(), Absence> {
    static FOUND: LazyLock<Result<(), Absence>> = LazyLock::new(|| {
        is_there()?;
        if !survives(is_permitted) {
            return Err(Absence::Refused);
        }
        // The child has the permission to ask for: a process that never uses the unit need not have it.
        if !survives(|| is_permitted() && is_right(&mut Unit::start(&WHOLE_TILES))) {
            return Err(Absence::Wrong);
        }
        if is_permitted() { Ok(()) } else { Err(Absence::Refused) }
    });
    *FOUND
}

/// Whether the processor has the unit and the kernel saves its registers.
fn is_there() -> Result<(), Absence> {
    use std::arch::x86_64::{__cpuid, __cpuid_count, _xgetbv};
    const BF16_TILES_AND_BYTES: u32 = 1 << 22 | 1 << 24 | 1 << 25;
    const TILE_STATE: u64 = 1 << 17 | 1 << 18;
    const OSXSAVE: u32 = 1 << 27;
    if __cpuid(0).eax < 7 || __cpuid_count(7, 0).edx & BF16_TILES_AND_BYTES != BF16_TILES_AND_BYTES {
        return Err(Absence::Processor);
    }
    if __cpuid(1).ecx & OSXSAVE == 0 {
        return Err(Absence::System);
    }
    // SAFETY: the system has switched the instruction on.
    let saved = unsafe { _xgetbv(0) };
    if saved & TILE_STATE == TILE_STATE { Ok(()) } else { Err(Absence::System) }
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

/// The unit set up on the current thread; it must not move to another one.
pub(crate) struct Unit {
    _here: PhantomData<*const ()>,
}

impl Unit {
    /// Needs [`found`], or its permission.
    pub(crate) fn start(shapes: &'static Shapes) -> Self {
        // SAFETY: the static lives for ever; tile registers belong to nobody else on this thread.
        unsafe { asm!("ldtilecfg [{}]", in(reg) &raw const *shapes, options(nostack)) };
        Self { _here: PhantomData }
    }
}

impl Drop for Unit {
    fn drop(&mut self) {
        // SAFETY: gives the registers up, so that the kernel need not save them any longer.
        unsafe { asm!("tilerelease", options(nostack, nomem)) };
    }
}

// The compiler knows the tile registers but never uses them itself, so what one block of assembly leaves in them is there for
// the next.
impl Tiles for Unit {
    #[inline(always)]
    fn zero<const TILE: usize>(&mut self) {
        // SAFETY: the tile has a shape since `start`.
        unsafe { asm!("tilezero tmm{tile}", tile = const TILE, options(nostack, nomem, preserves_flags)) };
    }

    #[inline(always)]
    unsafe fn load<const TILE: usize>(&mut self, from: *const u8, stride: usize) {
        // SAFETY: the rows are readable, by contract.
        unsafe {
            asm!(
                "tileloadd tmm{tile}, [{from} + {stride}*1]",
                tile = const TILE,
                from = in(reg) from,
                stride = in(reg) stride,
                options(nostack, readonly, preserves_flags),
            );
        }
    }

    #[inline(always)]
    unsafe fn store<const TILE: usize>(&mut self, to: *mut u8, stride: usize) {
        // SAFETY: the rows are writable, by contract.
        unsafe {
            asm!(
                "tilestored [{to} + {stride}*1], tmm{tile}",
                tile = const TILE,
                to = in(reg) to,
                stride = in(reg) stride,
                options(nostack, preserves_flags),
            );
        }
    }

    #[inline(always)]
    fn add_bf16<const SUM: usize, const LEFT: usize, const RIGHT: usize>(&mut self) {
        // SAFETY: touches nothing but tiles.
        unsafe {
            asm!(
                "tdpbf16ps tmm{sum}, tmm{left}, tmm{right}",
                sum = const SUM,
                left = const LEFT,
                right = const RIGHT,
                options(nostack, nomem, preserves_flags),
            );
        }
    }

    #[inline(always)]
    fn add_bytes<const SUM: usize, const LEFT: usize, const RIGHT: usize>(&mut self) {
        // SAFETY: touches nothing but tiles.
        unsafe {
            asm!(
                "tdpbsud tmm{sum}, tmm{left}, tmm{right}",
                sum = const SUM,
                left = const LEFT,
                right = const RIGHT,
                options(nostack, nomem, preserves_flags),
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Only an emulator or such a processor can say that the unit works: see `script/check-amx`.
    fn is_here() -> bool {
        let found = found();
        if let Err(why) = found {
            assert!(std::env::var_os("HONE_TEST_AMX").is_none(), "{why}");
            eprintln!("SKIPPED, NOT PASSED: {why}");
        }
        found.is_ok()
    }

    #[test]
    fn the_unit_is_right_wherever_it_is_used() {
        if is_here() {
            assert!(is_right(&mut Unit::start(&WHOLE_TILES)));
        }
    }

    /// All eight tiles of 16 rows.
    type Everything = [[[u8; 64]; 16]; 8];

    fn load_all(unit: &mut Unit, from: &Everything) {
        let at = |tile: usize| from[tile].as_ptr().cast();
        // SAFETY: 16 rows of 64 bytes are read at each place.
        unsafe {
            unit.load::<0>(at(0), 64);
            unit.load::<1>(at(1), 64);
            unit.load::<2>(at(2), 64);
            unit.load::<3>(at(3), 64);
            unit.load::<4>(at(4), 64);
            unit.load::<5>(at(5), 64);
            unit.load::<6>(at(6), 64);
            unit.load::<7>(at(7), 64);
        }
    }

    fn store_all(unit: &mut Unit) -> Everything {
        let mut all = [[[0; 64]; 16]; 8];
        let mut at = |tile: usize| all[tile].as_mut_ptr().cast();
        // SAFETY: 16 rows of 64 bytes are written at each place.
        unsafe {
            unit.store::<0>(at(0), 64);
            unit.store::<1>(at(1), 64);
            unit.store::<2>(at(2), 64);
            unit.store::<3>(at(3), 64);
            unit.store::<4>(at(4), 64);
            unit.store::<5>(at(5), 64);
            unit.store::<6>(at(6), 64);
            unit.store::<7>(at(7), 64);
        }
        all
    }

    /// The system takes the registers away in the midst of a product, and has to give all of them back.
    #[test]
    fn every_row_outlives_another_thread_that_uses_tiles() {
        if !is_here() {
            return;
        }
        let marked = |mark: u8| -> Everything {
            std::array::from_fn(|tile| std::array::from_fn(|row| [mark + (16 * tile + row) as u8; 64]))
        };
        let (mine, theirs) = (marked(128), marked(0));
        let mut unit = Unit::start(&WHOLE_TILES);
        load_all(&mut unit, &mine);
        let read = std::thread::spawn(move || {
            let mut unit = Unit::start(&WHOLE_TILES);
            load_all(&mut unit, &theirs);
            store_all(&mut unit)
        });
        assert_eq!(read.join().unwrap(), theirs);
        assert_eq!(store_all(&mut unit), mine);
    }

    #[test]
    fn a_trial_that_faults_is_a_no_and_nothing_else() {
        assert!(survives(|| true));
        assert!(!survives(|| false));
        if is_there().is_err() {
            assert!(!survives(|| is_right(&mut Unit::start(&WHOLE_TILES))), "the instructions are not there");
        }
    }

    // What the assembler makes of the instructions; with one address, index and tile each as the loops use them.
    std::arch::global_asm!(
        ".pushsection .text.hone_amx_bytes, \"ax\"",
        ".globl hone_amx_bytes",
        ".globl hone_amx_bytes_end",
        "hone_amx_bytes:",
        "ldtilecfg [rax]",
        "tilezero tmm3",
        "tileloadd tmm4, [rsi + rcx*1]",
        "tilestored [rdi + rdx*1], tmm2",
        "tdpbf16ps tmm3, tmm5, tmm7",
        "tdpbsud tmm0, tmm4, tmm6",
        "tilerelease",
        "hone_amx_bytes_end:",
        ".popsection",
    );

    unsafe extern "C" {
        static hone_amx_bytes: u8;
        static hone_amx_bytes_end: u8;
    }

    /// The manual's encodings: VEX prefix of three bytes (`c4`; inverted register bits and opcode map 2; width, inverted second
    /// source, length and mandatory prefix), opcode, operands.
    #[test]
    fn instructions_are_encoded_as_the_manual_says() {
        // (mandatory prefix: none 0, `66` 1, `f3` 2, `f2` 3; second source; opcode; operands)
        let vex = |prefix: u8, source: u8, opcode: u8, operands: &[u8]| -> Vec<u8> {
            [&[0xc4, 0xe2, (!source & 15) << 3 | prefix, opcode], operands].concat()
        };
        let registers = |reg: u8, rm: u8| 3 << 6 | reg << 3 | rm;
        let expected = [
            // Operands: the address in rax.
            vex(0, 0, 0x49, &[0x00]),
            vex(3, 0, 0x49, &[registers(3, 0)]),
            // Operands: a base and an index follow (`100`): index rcx, base rsi; index rdx, base rdi.
            vex(3, 0, 0x4b, &[4 << 3 | 4, 1 << 3 | 6]),
            vex(2, 0, 0x4b, &[2 << 3 | 4, 2 << 3 | 7]),
            vex(2, 7, 0x5c, &[registers(3, 5)]),
            vex(2, 6, 0x5e, &[registers(0, 4)]),
            vex(0, 0, 0x49, &[registers(0, 0)]),
        ]
        .concat();
        // SAFETY: both symbols bound the bytes above, in one section.
        let bytes = unsafe {
            let (start, end) = (&raw const hone_amx_bytes, &raw const hone_amx_bytes_end);
            std::slice::from_raw_parts(start, end.offset_from_unsigned(start))
        };
        assert_eq!(bytes, expected);
    }
}
