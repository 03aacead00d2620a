//! Uploads: a file in a multipart body, or a part of one that comes in parts, once or twice.
#![no_main]

use hone_fuzz::scratch;
use hone_server::fuzzing::{Door, PARTS};
use libfuzzer_sys::fuzz_target;

thread_local! {
    static DOOR: Door = Door::open(scratch());
}

fuzz_target!(|data: &[u8]| {
    let Some((first, body)) = data.split_first() else { return };
    let path = if first & 1 == 0 { PARTS } else { "/v1/files" };
    let kind = "multipart/form-data; boundary=b";
    DOOR.with(|door| {
        if first & 2 == 0 {
            door.post(path, kind, body);
        } else {
            door.post_twice(path, kind, body);
        }
    });
});
