//! The engine from outside: against the numbers of independent implementations, with the real weights.
//!
//! Tests that need the weights read their path from `HONE_TEST_GGUF` and say so loudly when it is not set.

#![expect(clippy::unwrap_used, reason = "a test that fails by a panic says where")]

mod folders;
mod precision;
mod reference;

use std::sync::LazyLock;

use hone_engine::{
    infer::{Decoder, Precision},
    model::Model,
};

/// The shipped model as training reads it.
fn trainable_model() -> Option<&'static Model> {
    static MODEL: LazyLock<Option<Model>> = LazyLock::new(|| {
        let path = std::env::var_os("HONE_TEST_GGUF")?;
        Some(Model::load(path.as_ref()).unwrap_or_else(|error| panic!("{}: {error}", path.display())))
    });
    shout(&MODEL)
}

/// The shipped model as answers are written with it, loaded once; none when `HONE_TEST_GGUF` is not set.
fn real_model() -> Option<&'static Model<Decoder>> {
    static MODEL: LazyLock<Option<Model<Decoder>>> = LazyLock::new(|| open(Precision::Fast));
    shout(&MODEL)
}

/// The same in f32.
fn exact_model() -> Option<&'static Model<Decoder>> {
    static MODEL: LazyLock<Option<Model<Decoder>>> = LazyLock::new(|| open(Precision::F32));
    shout(&MODEL)
}

fn open(precision: Precision) -> Option<Model<Decoder>> {
    let path = std::env::var_os("HONE_TEST_GGUF")?;
    Some(Model::open(path.as_ref(), precision).unwrap_or_else(|error| panic!("{}: {error}", path.display())))
}

fn shout<W>(model: &'static Option<Model<W>>) -> Option<&'static Model<W>> {
    if model.is_none() {
        eprintln!(
            "SKIPPED, NOT PASSED: set HONE_TEST_GGUF to SmolLM2-135M-Instruct.Q4_1.gguf to run this test"
        );
    }
    model.as_ref()
}
