//! Files of JSON lines: what an upload, a job and a batch make of them.
#![no_main]

use hone_fuzz::{scratch, write};
use hone_server::fuzzing::{Door, look_at_lines};
use libfuzzer_sys::fuzz_target;
use serde_json::Value;

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
    let accepted = DOOR.with(|door| door.post("/v1/files", "multipart/form-data; boundary=b", &body));
    let cut = data.windows(3).any(|bytes| bytes == b"--b");
    assert!(accepted || cut || !is_objects(data), "a file of objects is refused");
});

/// Whether every line is blank or a JSON object, and one is.
fn is_objects(data: &[u8]) -> bool {
    let lines = data.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii).filter(|line| !line.is_empty());
    let mut objects =
        lines.map(|line| serde_json::from_slice::<Value>(line).is_ok_and(|value| value.is_object()));
    objects.clone().next().is_some() && objects.all(|object| object)
}
