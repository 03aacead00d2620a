//! Bodies of every POST that reads JSON, and paths to ask for; the first byte says which.
#![no_main]

use hone_fuzz::scratch;
use hone_server::fuzzing::{ANSWERED, Door, MADE};
use libfuzzer_sys::fuzz_target;

/// The order in which `targets/seeds.rs` numbers them.
const ONCE: usize = ANSWERED.len();
const TWICE: usize = ONCE + MADE.len();
const READ: usize = TWICE + MADE.len();
const REMOVED: usize = READ + 1;

thread_local! {
    static DOOR: Door = Door::open(scratch());
}

fuzz_target!(|data: &[u8]| {
    let Some((first, rest)) = data.split_first() else { return };
    let (kind, json) = (usize::from(*first) % (REMOVED + 1), "application/json");
    DOOR.with(|door| match kind {
        0..ONCE => {
            door.post(ANSWERED[kind], json, rest);
        }
        ONCE..TWICE => {
            door.post(MADE[kind - ONCE], json, rest);
        }
        TWICE..READ => door.post_twice(MADE[kind - TWICE], json, rest),
        _ => {
            if let Ok(path) = std::str::from_utf8(rest) {
                door.visit(kind == REMOVED, path);
            }
        }
    });
});
