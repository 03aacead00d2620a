//! What a forward pass works with, kept from one to the next: threads and buffers.

use std::{
    num::NonZeroUsize,
    sync::{Arc, Mutex},
};

use super::team::Team;
use crate::kernel::Inputs;

#[derive(Debug)]
pub(super) struct Workspace {
    pub team: Team,
    pub buffers: Buffers,
}

/// Buffers of a pass; rows are the tokens of all its sequences.
#[derive(Debug, Default)]
pub(super) struct Buffers {
    /// The residual stream, `[rows, hidden]`.
    pub stream: Vec<f32>,
    /// What the projections of a block read: the normed stream.
    pub normed: Inputs,
    /// Queries, keys and values, `[rows, qkv_dim]`.
    pub qkv: Vec<f32>,
    /// What attention brings, `[rows, q_dim]`.
    pub mixed: Vec<f32>,
    /// The same as inputs.
    pub attended: Inputs,
    /// Gated activations.
    pub gated: Inputs,
    /// `A x` of the low-rank updates, `[rows, ranks]`.
    pub narrow: Vec<f32>,
    /// Where logits go when nobody reads them any more.
    pub logits: Arc<Mutex<Vec<f32>>>,
}

impl Workspace {
    pub(super) fn new(threads: NonZeroUsize) -> Self {
        Self { team: Team::new(threads.get()), buffers: Buffers::default() }
    }
}
