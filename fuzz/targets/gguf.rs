//! A GGUF file: its head, its texts, and the whole of it as training and as answering read it.
#![no_main]

use std::num::NonZeroUsize;

use hone_engine::{
    infer::{Decoder, Options},
    model::Model,
};
use hone_fuzz::{scratch, write};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let path = scratch().join("model.gguf");
    write(&path, data);
    let _ = Model::card(&path);
    if let Ok((tokenizer, _)) = Model::texts(&path) {
        let ids = tokenizer.encode("def main():\n    st.title('x')<|im_end|>");
        let _ = tokenizer.decode(&ids);
    }
    if Model::check(&path).is_ok() {
        let _ = Model::load(&path);
        // Threads that wait for work would only take time.
        let options = Options { threads: NonZeroUsize::MIN, ..Options::default() };
        let _ = Model::<Decoder>::open(&path, options);
    }
});
