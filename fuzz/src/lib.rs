//! What the targets share: a limit on allocations, and a scratch folder.

use std::{
    alloc::{GlobalAlloc, Layout, System},
    path::Path,
    sync::LazyLock,
};

use hone_engine::{
    model::Model,
    weights::{Config, Weights},
};
use tempfile::TempDir;

/// Bytes that no single allocation needs for inputs of 64 KiB: whoever asks for more believed a number in the input.
const MOST: usize = 32 << 20;

/// The system's allocator, but a large request is a find.
struct Limited;

// SAFETY: every call goes to the system's allocator as it came.
unsafe impl GlobalAlloc for Limited {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        check(layout.size());
        // SAFETY: by the caller's contract.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        check(layout.size());
        // SAFETY: by the caller's contract.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        check(size);
        // SAFETY: by the caller's contract.
        unsafe { System.realloc(at, layout, size) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        // SAFETY: by the caller's contract.
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Limited = Limited;

fn check(size: usize) {
    if size > MOST {
        eprintln!("allocation bomb: {size} bytes at once");
        // The fuzzer keeps the input and prints where we are.
        std::process::abort();
    }
}

/// Never dropped: `script/fuzz` removes it with everything else of a run.
static SCRATCH: LazyLock<TempDir> =
    LazyLock::new(|| TempDir::new().unwrap_or_else(|error| panic!("no scratch folder: {error}")));

/// A folder of this process.
pub fn scratch() -> &'static Path {
    SCRATCH.path()
}

/// Writes a file of the scratch folder.
pub fn write(path: &Path, bytes: &[u8]) {
    if let Err(error) = std::fs::write(path, bytes) {
        panic!("`{}` cannot be written: {error}", path.display());
    }
}

/// A tiny model of one narrow layer, so that most bytes of its file are structure and few are weights.
#[must_use]
pub fn narrow(model: Model, hidden: usize) -> Model {
    let shape = Config {
        hidden,
        layers: 1,
        heads: 2,
        kv_heads: 1,
        head_dim: hidden / 2,
        ffn: hidden,
        ..model.weights.config.clone()
    };
    let weights = Weights::random(shape, 1);
    let weights = match model.weights.head {
        Some(_) => weights.with_random_biases(2).with_random_head(3),
        None => weights,
    };
    Model { weights: weights.into(), ..model }
}
