//! One pass over a packed batch: forward to the loss, and back to the gradients of the adapter.
//!
//! Derivatives are written by hand. Only what they need is kept: per layer the residual stream before attention and
//! before the feed-forward part, the rotated `qkv`, attention's output, and `gate_up`; norms and activations are cheap to
//! rebuild. Of a batch that is longer than what memory is meant for, only the stream before each layer is kept, and the
//! layer is run again on the way back. Layers below the first adapted one keep nothing, and no gradient is carried into
//! them.

use super::adapt::{self, Backward, Linear, PackedAdapter};
use super::attention;
use super::batch::Packed;
use super::bf16::Rows;
use super::frozen::{Frozen, FrozenLayer, Precision};
use super::head::Head;
use super::matmul::Store;
use super::ops::{self, RopeTable, RowLoss, Turn};
use super::sized;
use super::tile::Unit;
use crate::lora::{Adapter, Site};

/// Values that the backward pass reads again, as f32 or rounded to bf16.
///
/// Whoever keeps rounded values goes on with them too, so that both passes see the same.
#[derive(Default)]
struct Kept {
    whole: Vec<f32>,
    half: Rows,
}

impl Kept {
    fn with_room(values: usize, precision: Precision) -> Self {
        let room = if precision == Precision::Bf16 { 0 } else { values };
        Self { whole: Vec::with_capacity(room), half: Rows::with_room(values - room) }
    }

    /// Keeps rows of `width`; rounds the values themselves when they are kept rounded.
    fn store(&mut self, values: &mut [f32], width: usize, precision: Precision) {
        if precision == Precision::Bf16 {
            // Only read back, never multiplied as they are.
            self.half.fill(Unit::Portable, values, width, 1.0);
            self.half.read(values, width);
        } else {
            sized(&mut self.whole, values.len()).copy_from_slice(values);
        }
    }

    fn read(&self, values: &mut [f32], width: usize, precision: Precision) {
        if precision == Precision::Bf16 {
            self.half.read(values, width);
        } else {
            values.copy_from_slice(&self.whole[..values.len()]);
        }
    }
}

/// What the backward pass of one layer reads; row-major, one row per token.
struct Activations {
    /// `[rows, qkv_dim]`, rotated
    qkv: Kept,
    /// `[rows * heads]`, in attention's order
    log_sums: Vec<f32>,
    /// `[rows, q_dim]`
    attention: Kept,
    /// Residual stream before the feed-forward part, `[rows, hidden]`
    middle: Vec<f32>,
    /// `[rows, 2 * ffn]`
    gate_up: Kept,
    /// `A x` of each site, `[rows, members * rank]`
    bottlenecks: [adapt::Bottleneck; 4],
}

impl Activations {
    /// Empty, with room for `rows` tokens.
    ///
    /// Room matters: buffers that grow from batch to batch leave holes that the allocator cannot give back.
    fn with_room(rows: usize, frozen: &Frozen) -> Self {
        let (config, precision) = (&frozen.config, frozen.precision());
        Self {
            qkv: Kept::with_room(rows * config.qkv_dim(), precision),
            log_sums: Vec::with_capacity(rows * config.heads),
            attention: Kept::with_room(rows * config.q_dim(), precision),
            middle: Vec::with_capacity(rows * config.hidden),
            gate_up: Kept::with_room(rows * 2 * config.ffn, precision),
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
    gate_up: Vec<f32>,
    act: Vec<f32>,
    d_act: Vec<f32>,
    qkv: Vec<f32>,
    d_qkv: Vec<f32>,
    attended: Vec<f32>,
    d_attended: Vec<f32>,
    attention: attention::Scratch,
    adapt: adapt::Scratch,
}

/// Tokens of a batch whose activations are all kept: 0.7 MB each in f32, 0.4 MB in bf16, for a 135M model.
fn kept_tokens(precision: Precision) -> usize {
    if precision == Precision::Bf16 { 768 } else { 640 }
}

/// A model with the buffers of training. Results depend on the inputs alone, not on what ran before or on threads.
pub struct Pass<'w> {
    frozen: &'w Frozen,
    /// Tokens of the largest batch expected; larger ones only cost memory.
    rows: usize,
    /// Tokens above which layers are run again on the way back.
    kept_tokens: usize,
    rope: RopeTable,
    /// Residual stream before each layer that a gradient passes, `[rows, hidden]`
    inputs: Vec<Vec<f32>>,
    /// Of each of these layers, or of the one at hand when they are run again.
    kept: Vec<Activations>,
    packed: PackedAdapter,
    scratch: Scratch,
    head: Head,
}

/// What the gradient of each target's loss is multiplied by.
pub enum Scales<'a> {
    /// By the same for all.
    All(f32),
    /// By what the losses of all targets say.
    By(&'a dyn Fn(&[RowLoss]) -> Vec<f32>),
}

/// Where a pass starts: at the tokens, or at a layer whose input is known.
#[derive(Clone, Debug, Default)]
pub struct Start {
    /// 0: at the tokens
    pub layer: usize,
    /// Residual stream before that layer, `[rows, hidden]`; not looked at for layer 0.
    pub stream: Vec<f32>,
}

/// A layer and the adapter's part of it.
struct Block<'a> {
    index: usize,
    layer: &'a FrozenLayer,
    adapter: Option<&'a Adapter>,
}

impl<'a> Block<'a> {
    fn linear(&self, site: Site, packed: &'a PackedAdapter) -> Linear<'a> {
        let group = self.adapter.and_then(|adapter| adapter.group(self.index, site));
        Linear {
            matrix: self.layer.matrix(site),
            group,
            packed: group.and_then(|_| packed.group(self.index, site)),
            scale: self.adapter.map_or(0.0, Adapter::scale),
        }
    }
}

impl<'w> Pass<'w> {
    /// `rows`: tokens of the largest batch expected.
    pub fn new(frozen: &'w Frozen, rows: usize) -> Self {
        Self {
            frozen,
            rows,
            kept_tokens: kept_tokens(frozen.precision()),
            rope: RopeTable::new(&frozen.config, 0),
            inputs: Vec::new(),
            kept: Vec::new(),
            packed: PackedAdapter::default(),
            scratch: Scratch::default(),
            head: Head::default(),
        }
    }

    /// Runs layers again for batches of more tokens than this.
    #[cfg(test)]
    pub fn keeping(self, kept_tokens: usize) -> Self {
        Self { kept_tokens, ..self }
    }

    /// The residual stream of a batch before layer `layer`, `[rows, hidden]`; nothing below may be adapted.
    pub fn stream_before(&mut self, layer: usize, batch: &Packed) -> &[f32] {
        self.forward(None, batch, &Start::default(), self.frozen.config.layers, layer);
        &self.scratch.stream[..batch.rows() * self.frozen.config.hidden]
    }

    /// Loss of every target of a batch, without gradients and without keeping activations.
    pub fn losses(&mut self, adapter: Option<&Adapter>, batch: &Packed, start: &Start) -> Vec<RowLoss> {
        let layers = self.frozen.config.layers;
        self.forward(adapter, batch, start, layers, layers);
        let stream = &self.scratch.stream[..batch.rows() * self.frozen.config.hidden];
        self.head.losses(self.frozen, stream, batch)
    }

    /// Loss of every target of a batch; adds to `gradients` those of the sum of the losses, each times its scale.
    pub fn losses_and_gradients(
        &mut self,
        adapter: &Adapter,
        batch: &Packed,
        start: &Start,
        scales: Scales,
        gradients: &mut Adapter,
    ) -> Vec<RowLoss> {
        let layers = self.frozen.config.layers;
        let first = adapter.first_layer().unwrap_or(layers);
        self.forward(Some(adapter), batch, start, first, layers);
        let size = batch.rows() * self.frozen.config.hidden;
        let stream = &self.scratch.stream[..size];
        let scales = match scales {
            Scales::All(scale) => vec![scale; batch.targets.len()],
            Scales::By(scales) => scales(&self.head.losses(self.frozen, stream, batch)),
        };
        let d_stream = sized(&mut self.scratch.d_stream, size);
        let rows = self.head.losses_and_gradient(self.frozen, stream, batch, &scales, d_stream);
        for index in (first..layers).rev() {
            let block = Block { index, layer: &self.frozen.layers[index], adapter: Some(adapter) };
            let mut slot = index - first;
            if self.runs_again(batch) {
                slot = 0;
                let input = &self.inputs[index - first][..size];
                self.scratch.stream[..size].copy_from_slice(input);
                self.layer_forward(&block, batch, slot);
            }
            self.feed_forward_backward(&block, batch.rows(), slot, gradients);
            self.attention_backward(&block, batch, (slot, index - first), gradients);
        }
        rows
    }

    fn runs_again(&self, batch: &Packed) -> bool {
        batch.rows() > self.kept_tokens
    }

    /// Leaves the residual stream before layer `end` in the scratch; keeps what the way back to layer `first` needs.
    fn forward(
        &mut self,
        adapter: Option<&Adapter>,
        batch: &Packed,
        start: &Start,
        first: usize,
        end: usize,
    ) {
        let frozen = self.frozen;
        let config = &frozen.config;
        let longest = batch.spans.iter().map(|span| span.len()).max().unwrap_or(0);
        if self.rope.positions() < longest {
            self.rope = RopeTable::new(config, longest.next_power_of_two());
        }
        if let Some(adapter) = adapter.filter(|_| frozen.precision() == Precision::Bf16) {
            self.packed
                .fill(frozen.unit(), adapter, |index, site| frozen.layers[index].matrix(site).outputs());
        }
        let stream = sized(&mut self.scratch.stream, batch.rows() * config.hidden);
        if start.layer > 0 {
            stream.copy_from_slice(&start.stream);
        } else {
            for (row, id) in stream.chunks_exact_mut(config.hidden).zip(&batch.ids) {
                frozen.embedding.row(*id as usize, row);
            }
        }
        let backwards = config.layers - first;
        let slots = if self.runs_again(batch) { 1 } else { backwards.max(1) };
        let room = self.rows.min(self.kept_tokens).max(if slots == 1 { self.rows } else { 0 });
        self.kept.resize_with(self.kept.len().max(slots), || Activations::with_room(room, frozen));
        self.inputs.resize_with(self.inputs.len().max(backwards), Vec::new);
        for (index, layer) in frozen.layers.iter().enumerate().take(end).skip(start.layer) {
            let block = Block { index, layer, adapter };
            let size = batch.rows() * config.hidden;
            if let Some(at) = index.checked_sub(first) {
                let (input, stream) = (&mut self.inputs[at], &self.scratch.stream[..size]);
                input.clear();
                input.reserve_exact(self.rows.max(batch.rows()) * config.hidden);
                input.extend_from_slice(stream);
            }
            self.layer_forward(&block, batch, index.saturating_sub(first).min(slots - 1));
        }
    }

    fn layer_forward(&mut self, block: &Block, batch: &Packed, slot: usize) {
        let (config, precision, rows) = (&self.frozen.config, self.frozen.precision(), batch.rows());
        let (kept, s) = (&mut self.kept[slot], &mut self.scratch);
        let [at_qkv, at_out, at_gate_up, at_down] = &mut kept.bottlenecks;
        let linear = |site| block.linear(site, &self.packed);
        let stream = sized(&mut s.stream, rows * config.hidden);
        let normed = sized(&mut s.normed, rows * config.hidden);

        ops::rms_norm(normed, stream, &block.layer.attn_norm, config.norm_eps);
        let qkv = sized(&mut s.qkv, rows * config.qkv_dim());
        linear(Site::Qkv).forward(qkv, Store::Set, normed, rows, at_qkv, &mut s.adapt);
        if let Some(bias) = &block.layer.qkv_bias {
            ops::add_to_rows(qkv, bias);
        }
        self.rope.turn_rows(qkv, &batch.positions, config, Turn::Forward);
        kept.qkv.store(qkv, config.qkv_dim(), precision);
        let attended = sized(&mut s.attended, rows * config.q_dim());
        let log_sums = sized(&mut kept.log_sums, rows * config.heads);
        attention::forward(attended, log_sums, qkv, &batch.spans, config, &mut s.attention);
        kept.attention.store(attended, config.q_dim(), precision);
        linear(Site::Out).forward(stream, Store::Add, attended, rows, at_out, &mut s.adapt);

        sized(&mut kept.middle, stream.len()).copy_from_slice(stream);
        ops::rms_norm(normed, stream, &block.layer.ffn_norm, config.norm_eps);
        let gate_up = sized(&mut s.gate_up, rows * 2 * config.ffn);
        linear(Site::GateUp).forward(gate_up, Store::Set, normed, rows, at_gate_up, &mut s.adapt);
        kept.gate_up.store(gate_up, 2 * config.ffn, precision);
        let act = sized(&mut s.act, rows * config.ffn);
        ops::swiglu(act, gate_up, config.ffn);
        linear(Site::Down).forward(stream, Store::Add, act, rows, at_down, &mut s.adapt);
    }

    /// From the gradient of the stream after a layer's feed-forward part to that before it.
    fn feed_forward_backward(&mut self, block: &Block, rows: usize, slot: usize, gradients: &mut Adapter) {
        let (config, eps) = (&self.frozen.config, self.frozen.config.norm_eps);
        let (kept, s) = (&self.kept[slot], &mut self.scratch);
        let [_, _, at_gate_up, at_down] = &kept.bottlenecks;
        let size = rows * config.hidden;
        let d_stream = &mut s.d_stream[..size];
        let gate_up = sized(&mut s.gate_up, rows * 2 * config.ffn);
        kept.gate_up.read(gate_up, 2 * config.ffn, self.frozen.precision());
        let (act, d_act) = (sized(&mut s.act, rows * config.ffn), sized(&mut s.d_act, rows * config.ffn));
        let down = block.linear(Site::Down, &self.packed);
        down.take_gradient(d_stream, rows, &mut s.adapt);
        down.input_gradient(d_act, d_stream, rows, &s.adapt);
        ops::swiglu_backward(gate_up, act, d_act, config.ffn);
        let io = Backward { dy: d_stream, x: act, rows, bottleneck: at_down };
        down.pair_gradients(gradients.group_mut(block.index, Site::Down), &io, &mut s.adapt);

        let middle = &kept.middle[..size];
        let (normed, d_normed) = (sized(&mut s.normed, size), sized(&mut s.d_normed, size));
        ops::rms_norm(normed, middle, &block.layer.ffn_norm, eps);
        let linear = block.linear(Site::GateUp, &self.packed);
        linear.take_gradient(gate_up, rows, &mut s.adapt);
        linear.input_gradient(d_normed, gate_up, rows, &s.adapt);
        let io = Backward { dy: gate_up, x: normed, rows, bottleneck: at_gate_up };
        linear.pair_gradients(gradients.group_mut(block.index, Site::GateUp), &io, &mut s.adapt);
        ops::rms_norm_backward(d_stream, d_normed, middle, &block.layer.ffn_norm, eps);
    }

    /// From the gradient of the stream after a layer's attention to that before it, unless nothing below is trained.
    /// `at`: slot of the layer's activations, and of its input.
    fn attention_backward(
        &mut self,
        block: &Block,
        batch: &Packed,
        at: (usize, usize),
        gradients: &mut Adapter,
    ) {
        let (config, precision, rows) = (&self.frozen.config, self.frozen.precision(), batch.rows());
        let (kept, s) = (&self.kept[at.0], &mut self.scratch);
        let [at_qkv, at_out, _, _] = &kept.bottlenecks;
        let size = rows * config.hidden;
        let d_stream = &mut s.d_stream[..size];
        let attended = sized(&mut s.attended, rows * config.q_dim());
        kept.attention.read(attended, config.q_dim(), precision);
        let d_attended = sized(&mut s.d_attended, attended.len());
        let linear = block.linear(Site::Out, &self.packed);
        linear.take_gradient(d_stream, rows, &mut s.adapt);
        linear.input_gradient(d_attended, d_stream, rows, &s.adapt);
        let io = Backward { dy: d_stream, x: attended, rows, bottleneck: at_out };
        linear.pair_gradients(gradients.group_mut(block.index, Site::Out), &io, &mut s.adapt);

        let qkv = sized(&mut s.qkv, rows * config.qkv_dim());
        kept.qkv.read(qkv, config.qkv_dim(), precision);
        let d_qkv = sized(&mut s.d_qkv, qkv.len());
        let saved = attention::Saved { qkv, out: attended, log_sums: &kept.log_sums[..rows * config.heads] };
        attention::backward(d_qkv, d_attended, &saved, &batch.spans, config, &mut s.attention);
        self.rope.turn_rows(d_qkv, &batch.positions, config, Turn::Back);

        let (input, norm, eps) = (&self.inputs[at.1][..size], &block.layer.attn_norm, config.norm_eps);
        let normed = sized(&mut s.normed, size);
        ops::rms_norm(normed, input, norm, eps);
        let linear = block.linear(Site::Qkv, &self.packed);
        linear.take_gradient(d_qkv, rows, &mut s.adapt);
        let io = Backward { dy: d_qkv, x: normed, rows, bottleneck: at_qkv };
        linear.pair_gradients(gradients.group_mut(block.index, Site::Qkv), &io, &mut s.adapt);
        let nothing_below = at.1 == 0;
        if !nothing_below {
            let d_normed = sized(&mut s.d_normed, size);
            linear.input_gradient(d_normed, d_qkv, rows, &s.adapt);
            ops::rms_norm_backward(d_stream, d_normed, input, norm, eps);
        }
    }
}
