//! One pass over a packed batch: forward to the loss, and back to the gradients of the adapter.
//!
//! Derivatives are written by hand. Only what they need is kept: per layer the residual stream before attention and
//! before the feed-forward part, the rotated `qkv`, attention's output, and `gate_up`; norms and activations are cheap to
//! rebuild. Layers below the first adapted one keep nothing, and no gradient is carried into them.

use super::adapt::{self, Backward, Linear};
use super::attention;
use super::batch::Packed;
use super::head::Head;
use super::matmul::Store;
use super::ops::{self, RopeTable, Turn};
use super::{Totals, sized};
use crate::lora::{Adapter, Site};
use crate::weights::{Config, Layer, Weights};

/// What the backward pass of one layer reads; row-major, one row per token.
struct Activations {
    /// Residual stream before attention, `[rows, hidden]`
    input: Vec<f32>,
    /// `[rows, qkv_dim]`, rotated
    qkv: Vec<f32>,
    /// `[rows * heads]`, in attention's order
    log_sums: Vec<f32>,
    /// `[rows, q_dim]`
    attention: Vec<f32>,
    /// Residual stream before the feed-forward part, `[rows, hidden]`
    middle: Vec<f32>,
    /// `[rows, 2 * ffn]`; replaced by its gradient on the way back
    gate_up: Vec<f32>,
    /// `A x` of each site, `[rows, members * rank]`
    bottlenecks: [Vec<f32>; 4],
}

impl Activations {
    /// Empty, with room for `rows` tokens.
    ///
    /// Room matters: buffers that grow from batch to batch leave holes that the allocator cannot give back.
    fn with_room(rows: usize, config: &Config) -> Self {
        let room = |width: usize| Vec::with_capacity(rows * width);
        Self {
            input: room(config.hidden),
            qkv: room(config.qkv_dim()),
            log_sums: room(config.heads),
            attention: room(config.q_dim()),
            middle: room(config.hidden),
            gate_up: room(2 * config.ffn),
            bottlenecks: Default::default(),
        }
    }
}

/// Buffers that every layer uses in turn.
#[derive(Default)]
struct Scratch {
    /// Residual stream, then its gradient, `[rows, hidden]`
    stream: Vec<f32>,
    d_stream: Vec<f32>,
    normed: Vec<f32>,
    d_normed: Vec<f32>,
    act: Vec<f32>,
    d_act: Vec<f32>,
    d_attention: Vec<f32>,
    d_qkv: Vec<f32>,
    attention: attention::Scratch,
    adapt: adapt::Scratch,
}

/// A model with the buffers of training. Results depend on the inputs alone, not on what ran before or on threads.
pub struct Pass<'w> {
    weights: &'w Weights,
    /// Tokens of the largest batch expected; larger ones only cost memory.
    rows: usize,
    rope: RopeTable,
    kept: Vec<Activations>,
    scratch: Scratch,
    head: Head,
}

/// A layer and the adapter's part of it.
struct Block<'a> {
    index: usize,
    layer: &'a Layer,
    adapter: Option<&'a Adapter>,
}

impl<'a> Block<'a> {
    fn linear(&self, site: Site) -> Linear<'a> {
        Linear {
            matrix: site.matrix(self.layer),
            group: self.adapter.and_then(|adapter| adapter.group(self.index, site)),
            scale: self.adapter.map_or(0.0, Adapter::scale),
        }
    }
}

impl<'w> Pass<'w> {
    /// `rows`: tokens of the largest batch expected.
    pub fn new(weights: &'w Weights, rows: usize) -> Self {
        Self {
            weights,
            rows,
            rope: RopeTable::new(&weights.config, 0),
            kept: Vec::new(),
            scratch: Scratch::default(),
            head: Head::default(),
        }
    }

    /// Loss of a batch, without gradients and without keeping activations.
    pub fn loss(&mut self, adapter: Option<&Adapter>, batch: &Packed) -> Totals {
        self.forward(adapter, batch, self.weights.config.layers);
        let stream = &self.scratch.stream[..batch.rows() * self.weights.config.hidden];
        self.head.loss(self.weights, stream, batch)
    }

    /// Loss of a batch; adds to `gradients` those of `scale` times the sum of the losses.
    pub fn loss_and_gradients(
        &mut self,
        adapter: &Adapter,
        batch: &Packed,
        scale: f32,
        gradients: &mut Adapter,
    ) -> Totals {
        let first = adapter.first_layer().unwrap_or(self.weights.config.layers);
        self.forward(Some(adapter), batch, first);
        let size = batch.rows() * self.weights.config.hidden;
        let d_stream = sized(&mut self.scratch.d_stream, size);
        let stream = &self.scratch.stream[..size];
        let totals = self.head.loss_and_gradient(self.weights, stream, batch, scale, d_stream);
        for index in (first..self.weights.config.layers).rev() {
            let block = Block { index, layer: &self.weights.layers[index], adapter: Some(adapter) };
            self.feed_forward_backward(&block, batch.rows(), index - first, gradients);
            self.attention_backward(&block, batch, index - first, gradients, index == first);
        }
        totals
    }

    /// Leaves the residual stream after the last layer in the scratch; keeps activations from layer `first` on.
    fn forward(&mut self, adapter: Option<&Adapter>, batch: &Packed, first: usize) {
        let config = &self.weights.config;
        let longest = batch.spans.iter().map(|span| span.len()).max().unwrap_or(0);
        if self.rope.positions() < longest {
            self.rope = RopeTable::new(config, longest.next_power_of_two());
        }
        let stream = sized(&mut self.scratch.stream, batch.rows() * config.hidden);
        for (row, id) in stream.chunks_exact_mut(config.hidden).zip(&batch.ids) {
            row.copy_from_slice(self.weights.embedding.row(*id as usize));
        }
        let slots = (config.layers - first).max(1);
        let room = self.rows;
        self.kept.resize_with(self.kept.len().max(slots), || Activations::with_room(room, config));
        for (index, layer) in self.weights.layers.iter().enumerate() {
            let block = Block { index, layer, adapter };
            self.layer_forward(&block, batch, index.saturating_sub(first));
        }
    }

    fn layer_forward(&mut self, block: &Block, batch: &Packed, slot: usize) {
        let (config, rows) = (&self.weights.config, batch.rows());
        let (kept, s) = (&mut self.kept[slot], &mut self.scratch);
        let [at_qkv, at_out, at_gate_up, at_down] = &mut kept.bottlenecks;
        let stream = sized(&mut s.stream, rows * config.hidden);
        let normed = sized(&mut s.normed, rows * config.hidden);

        sized(&mut kept.input, stream.len()).copy_from_slice(stream);
        ops::rms_norm(normed, stream, &block.layer.attn_norm, config.norm_eps);
        let qkv = sized(&mut kept.qkv, rows * config.qkv_dim());
        block.linear(Site::Qkv).forward(qkv, Store::Set, normed, rows, at_qkv);
        if let Some(bias) = &block.layer.qkv_bias {
            ops::add_to_rows(qkv, bias);
        }
        self.rope.turn_rows(qkv, &batch.positions, config, Turn::Forward);
        let attended = sized(&mut kept.attention, rows * config.q_dim());
        let log_sums = sized(&mut kept.log_sums, rows * config.heads);
        attention::forward(attended, log_sums, qkv, &batch.spans, config, &mut s.attention);
        block.linear(Site::Out).forward(stream, Store::Add, attended, rows, at_out);

        sized(&mut kept.middle, stream.len()).copy_from_slice(stream);
        ops::rms_norm(normed, stream, &block.layer.ffn_norm, config.norm_eps);
        let gate_up = sized(&mut kept.gate_up, rows * 2 * config.ffn);
        block.linear(Site::GateUp).forward(gate_up, Store::Set, normed, rows, at_gate_up);
        let act = sized(&mut s.act, rows * config.ffn);
        ops::swiglu(act, gate_up, config.ffn);
        block.linear(Site::Down).forward(stream, Store::Add, act, rows, at_down);
    }

    /// From the gradient of the stream after a layer's feed-forward part to that before it.
    fn feed_forward_backward(&mut self, block: &Block, rows: usize, slot: usize, gradients: &mut Adapter) {
        let (config, eps) = (&self.weights.config, self.weights.config.norm_eps);
        let (kept, s) = (&mut self.kept[slot], &mut self.scratch);
        let [_, _, at_gate_up, at_down] = &kept.bottlenecks;
        let size = rows * config.hidden;
        let d_stream = &mut s.d_stream[..size];
        let gate_up = &mut kept.gate_up[..rows * 2 * config.ffn];
        let (act, d_act) = (sized(&mut s.act, rows * config.ffn), sized(&mut s.d_act, rows * config.ffn));
        let down = block.linear(Site::Down);
        down.narrow_gradient(d_stream, rows, &mut s.adapt);
        down.input_gradient(d_act, d_stream, rows, &s.adapt);
        ops::swiglu_backward(gate_up, act, d_act, config.ffn);
        let io = Backward { dy: d_stream, x: act, rows, bottleneck: at_down };
        down.pair_gradients(gradients.group_mut(block.index, Site::Down), &io, &mut s.adapt);

        let middle = &kept.middle[..size];
        let (normed, d_normed) = (sized(&mut s.normed, size), sized(&mut s.d_normed, size));
        ops::rms_norm(normed, middle, &block.layer.ffn_norm, eps);
        let linear = block.linear(Site::GateUp);
        linear.narrow_gradient(gate_up, rows, &mut s.adapt);
        linear.input_gradient(d_normed, gate_up, rows, &s.adapt);
        let io = Backward { dy: gate_up, x: normed, rows, bottleneck: at_gate_up };
        linear.pair_gradients(gradients.group_mut(block.index, Site::GateUp), &io, &mut s.adapt);
        ops::rms_norm_backward(d_stream, d_normed, middle, &block.layer.ffn_norm, eps);
    }

    /// From the gradient of the stream after a layer's attention to that before it, unless nothing below is trained.
    fn attention_backward(
        &mut self,
        block: &Block,
        batch: &Packed,
        slot: usize,
        gradients: &mut Adapter,
        lowest: bool,
    ) {
        let (config, rows) = (&self.weights.config, batch.rows());
        let (kept, s) = (&mut self.kept[slot], &mut self.scratch);
        let [at_qkv, at_out, _, _] = &kept.bottlenecks;
        let size = rows * config.hidden;
        let d_stream = &mut s.d_stream[..size];
        let attended = &kept.attention[..rows * config.q_dim()];
        let d_attention = sized(&mut s.d_attention, attended.len());
        let linear = block.linear(Site::Out);
        linear.narrow_gradient(d_stream, rows, &mut s.adapt);
        linear.input_gradient(d_attention, d_stream, rows, &s.adapt);
        let io = Backward { dy: d_stream, x: attended, rows, bottleneck: at_out };
        linear.pair_gradients(gradients.group_mut(block.index, Site::Out), &io, &mut s.adapt);

        let qkv = &kept.qkv[..rows * config.qkv_dim()];
        let d_qkv = sized(&mut s.d_qkv, qkv.len());
        let saved = attention::Saved { qkv, out: attended, log_sums: &kept.log_sums[..rows * config.heads] };
        attention::backward(d_qkv, d_attention, &saved, &batch.spans, config, &mut s.attention);
        self.rope.turn_rows(d_qkv, &batch.positions, config, Turn::Back);

        let (input, norm, eps) = (&kept.input[..size], &block.layer.attn_norm, config.norm_eps);
        let normed = sized(&mut s.normed, size);
        ops::rms_norm(normed, input, norm, eps);
        let linear = block.linear(Site::Qkv);
        linear.narrow_gradient(d_qkv, rows, &mut s.adapt);
        let io = Backward { dy: d_qkv, x: normed, rows, bottleneck: at_qkv };
        linear.pair_gradients(gradients.group_mut(block.index, Site::Qkv), &io, &mut s.adapt);
        if !lowest {
            let d_normed = sized(&mut s.d_normed, size);
            linear.input_gradient(d_normed, d_qkv, rows, &s.adapt);
            ops::rms_norm_backward(d_stream, d_normed, input, norm, eps);
        }
    }
}
