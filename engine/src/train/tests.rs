//! Whole-model checks: gradients against finite differences and against an independent implementation.

mod gradients;
mod peft;
mod resume;
