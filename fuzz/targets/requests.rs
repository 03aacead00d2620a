//! Bodies of every POST that reads JSON, and paths to ask for; the first byte says which, its highest bit that a body comes twice.
#![no_main]

use hone_fuzz::scratch;
use hone_server::fuzzing::{Door, JSON_PATHS};
use libfuzzer_sys::fuzz_target;

thread_local! {
    static DOOR: Door = Door::open(scratch());
}

fuzz_target!(|data: &[u8]| {
    let Some((first, rest)) = data.split_first() else { return };
    let (twice, kind) = (first & 0x80 != 0, usize::from(first & 0x7f) % (JSON_PATHS.len() + 2));
    DOOR.with(|door| match (JSON_PATHS.get(kind), std::str::from_utf8(rest)) {
        (Some(path), _) if twice => door.post_twice(path, "application/json", rest),
        (Some(path), _) => door.post(path, "application/json", rest),
        (None, Ok(path)) => door.visit(kind > JSON_PATHS.len(), path),
        (None, Err(_)) => {}
    });
});
