//! Whole-model checks: gradients against finite differences and against an independent implementation.

mod bf16;
mod gradients;
mod peft;
mod preference;
mod resume;
