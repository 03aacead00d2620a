//! A small language model on the CPU: load, tokenise, generate, LoRA-train.
//!
//! Knows nothing of Hone, of HTTP or of jobs. One call of each public function is a pure piece of work on values that
//! the caller owns; progress goes to callbacks, nothing is printed. Training spreads its work over rayon's global
//! pool, a decoder over threads of its own.
//!
//! Reading order: `weights` (the shapes), `tensors` with `gguf` and `hub` (files), `tokenizer` and `chat` (text to tokens), `infer` (the
//! forward pass, quantised) on `kernel` and `rope`, `sample`, `stop` and `constrain` (from logits to text), `generate`
//! (many requests at once); `lora` and `train`; `model` ties a file's parts together.

#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod amx;
pub mod chat;
pub mod constrain;
pub mod generate;
pub mod gguf;
pub mod hub;
pub mod infer;
mod kernel;
pub mod lora;
pub mod model;
mod rope;
pub mod sample;
pub mod stop;
pub mod tensors;
pub mod tokenizer;
pub mod train;
pub mod weights;
