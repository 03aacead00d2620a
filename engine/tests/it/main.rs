//! The engine from outside: against the numbers of independent implementations, with the real weights.
//!
//! Tests that need the weights read their path from `HONE_TEST_GGUF` and say so loudly when it is not set.

mod folders;
mod reference;

use std::sync::LazyLock;

use hone_engine::model::Model;

/// The shipped model, loaded once; none when `HONE_TEST_GGUF` is not set.
fn real_model() -> Option<&'static Model> {
    static MODEL: LazyLock<Option<Model>> = LazyLock::new(|| {
        let path = std::env::var_os("HONE_TEST_GGUF")?;
        Some(Model::load(path.as_ref()).unwrap_or_else(|error| panic!("{}: {error}", path.display())))
    });
    if MODEL.is_none() {
        eprintln!(
            "SKIPPED, NOT PASSED: set HONE_TEST_GGUF to SmolLM2-135M-Instruct.Q4_1.gguf to run this test"
        );
    }
    MODEL.as_ref()
}
