//! Files of JSON lines: what an upload, a job and a batch make of them.
#![no_main]

use hone_fuzz::{scratch, write};
use hone_server::fuzzing::{Door, look_at_lines};
use libfuzzer_sys::fuzz_target;

thread_local! {
    static DOOR: Door = Door::open(scratch());
}

fuzz_target!(|data: &[u8]| {
    let path = scratch().join("lines.jsonl");
    write(&path, data);
    look_at_lines(&path);
    let part = |head: &str, content: &[u8]| {
        let head = format!("--b\r\ncontent-disposition: form-data; {head}\r\n\r\n");
        [head.as_bytes(), content, b"\r\n"].concat()
    };
    let purpose = part("name=\"purpose\"", b"fine-tune");
    let file = part("name=\"file\"; filename=\"a.jsonl\"", data);
    let body = [&purpose[..], &file, b"--b--\r\n"].concat();
    DOOR.with(|door| door.post("/v1/files", "multipart/form-data; boundary=b", &body));
});
