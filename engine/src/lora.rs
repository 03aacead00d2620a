//! Low-rank adapters (LoRA): each adapted matrix `W` acts as `W + alpha / rank * B A`.
//!
//! Inside the engine the pairs that read the same input are kept together, as the weights are: their `A` matrices are
//! stacked, so that one product serves query, key and value. On disk an adapter is what PEFT writes (see [`Adapter::save`]),
//! so that other servers and trainers can load it.

mod peft;

use rand::{RngExt, SeedableRng, rngs::ChaCha8Rng};
use serde::{Deserialize, Serialize};

pub use peft::{AdapterCard, AdapterError};
pub(crate) use peft::{bytes, read_floats};

use crate::weights::{Config, Layer, Matrix, Weights};

/// A linear map of a decoder block that can carry a pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Projection {
    Query,
    Key,
    Value,
    Output,
    Gate,
    Up,
    Down,
}

impl Projection {
    /// Every linear map of a block, in the order that the engine keeps them.
    pub const ALL: [Self; 7] =
        [Self::Query, Self::Key, Self::Value, Self::Output, Self::Gate, Self::Up, Self::Down];

    /// The hub's and PEFT's name of it.
    pub fn peft_name(self) -> &'static str {
        match self {
            Self::Query => "q_proj",
            Self::Key => "k_proj",
            Self::Value => "v_proj",
            Self::Output => "o_proj",
            Self::Gate => "gate_proj",
            Self::Up => "up_proj",
            Self::Down => "down_proj",
        }
    }

    /// The projection of that name.
    pub fn from_peft(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|projection| projection.peft_name() == name)
    }

    /// The fused matrix that holds this projection's rows.
    pub fn site(self) -> Site {
        match self {
            Self::Query | Self::Key | Self::Value => Site::Qkv,
            Self::Output => Site::Out,
            Self::Gate | Self::Up => Site::GateUp,
            Self::Down => Site::Down,
        }
    }

    /// Number of inputs.
    pub fn inputs(self, config: &Config) -> usize {
        match self.site() {
            Site::Qkv | Site::GateUp => config.hidden,
            Site::Out => config.q_dim(),
            Site::Down => config.ffn,
        }
    }

    /// Number of outputs.
    pub fn outputs(self, config: &Config) -> usize {
        match self {
            Self::Query => config.q_dim(),
            Self::Key | Self::Value => config.kv_dim(),
            Self::Output | Self::Down => config.hidden,
            Self::Gate | Self::Up => config.ffn,
        }
    }

    /// First row of this projection in its fused matrix.
    pub(crate) fn first_row(self, config: &Config) -> usize {
        match self {
            Self::Key => config.q_dim(),
            Self::Value => config.q_dim() + config.kv_dim(),
            Self::Up => config.ffn,
            Self::Query | Self::Output | Self::Gate | Self::Down => 0,
        }
    }
}

/// A matrix of [`Layer`]: projections that read the same input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Site {
    Qkv,
    Out,
    GateUp,
    Down,
}

impl Site {
    pub const ALL: [Self; 4] = [Self::Qkv, Self::Out, Self::GateUp, Self::Down];

    /// The frozen matrix of this site.
    pub fn matrix(self, layer: &Layer) -> &Matrix {
        match self {
            Self::Qkv => &layer.qkv,
            Self::Out => &layer.out,
            Self::GateUp => &layer.gate_up,
            Self::Down => &layer.down,
        }
    }

    fn matrix_mut(self, layer: &mut Layer) -> &mut Matrix {
        match self {
            Self::Qkv => &mut layer.qkv,
            Self::Out => &mut layer.out,
            Self::GateUp => &mut layer.gate_up,
            Self::Down => &mut layer.down,
        }
    }
}

/// What to adapt, and how strongly.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LoraConfig {
    /// Width of the bottleneck, at least 1.
    pub rank: usize,
    /// The product `B A` is scaled by `alpha / rank`.
    pub alpha: f32,
    /// Projections that get a pair.
    pub targets: Vec<Projection>,
    /// Adapt only this many layers, counted from the output; `None` adapts all.
    pub top_layers: Option<usize>,
    /// Seed of the initial `A` matrices.
    pub seed: u64,
}

impl Default for LoraConfig {
    fn default() -> Self {
        Self { rank: 8, alpha: 16.0, targets: Projection::ALL.to_vec(), top_layers: None, seed: 0 }
    }
}

/// The `B` matrix of one projection.
#[derive(Clone, Debug, PartialEq)]
pub struct Member {
    pub projection: Projection,
    /// First output row inside the fused matrix.
    pub first_row: usize,
    /// `[outputs, rank]`
    pub b: Matrix,
}

/// The pairs of one fused matrix.
#[derive(Clone, Debug, PartialEq)]
pub struct Group {
    pub site: Site,
    /// `[members * rank, inputs]`: the `A` matrices of the members, stacked in their order.
    pub a: Matrix,
    pub members: Vec<Member>,
}

impl Group {
    fn zeros(site: Site, targets: &[Projection], rank: usize, config: &Config) -> Option<Self> {
        let member = |projection: Projection| Member {
            projection,
            first_row: projection.first_row(config),
            b: Matrix::zeros(projection.outputs(config), rank),
        };
        let wanted = |p: &Projection| p.site() == site && targets.contains(p);
        let members: Vec<_> = Projection::ALL.into_iter().filter(wanted).map(member).collect();
        let inputs = members.first()?.projection.inputs(config);
        Some(Self { site, a: Matrix::zeros(members.len() * rank, inputs), members })
    }

    /// Each member with its rows of `A`, `[rank, inputs]`.
    pub fn pairs(&self) -> impl Iterator<Item = (&Member, &[f32])> {
        let block = self.a.data.len() / self.members.len();
        self.members.iter().zip(self.a.data.chunks_exact(block))
    }

    fn pairs_mut(&mut self) -> impl Iterator<Item = (&mut Member, &mut [f32])> {
        let block = self.a.data.len() / self.members.len();
        self.members.iter_mut().zip(self.a.data.chunks_exact_mut(block))
    }
}

/// The groups of one decoder block; none for a block that is not adapted.
pub type LayerGroups = Vec<Group>;

/// A trained (or fresh) set of pairs for one model.
#[derive(Clone, Debug, PartialEq)]
pub struct Adapter {
    pub rank: usize,
    pub alpha: f32,
    /// One entry per layer of the model, groups in the order of [`Site::ALL`].
    pub layers: Vec<LayerGroups>,
}

impl Adapter {
    /// A fresh adapter: `A` uniform in `+-1/sqrt(inputs)` (PEFT's Kaiming initialisation), `B` zero, so that it changes
    /// nothing yet. Same configuration, same bytes.
    pub fn new(config: &Config, lora: &LoraConfig) -> Self {
        let mut adapter = Self::zeros(config, lora);
        let mut rng = ChaCha8Rng::seed_from_u64(lora.seed);
        for group in adapter.layers.iter_mut().flatten() {
            let bound = 1.0 / (group.a.cols as f32).sqrt();
            group.a.data.fill_with(|| rng.random_range(-bound..bound));
        }
        adapter
    }

    fn zeros(config: &Config, lora: &LoraConfig) -> Self {
        let first = config.layers - lora.top_layers.unwrap_or(config.layers).min(config.layers);
        let groups = |layer: usize| -> LayerGroups {
            let sites = Site::ALL.into_iter().filter(|_| layer >= first);
            sites.filter_map(|site| Group::zeros(site, &lora.targets, lora.rank, config)).collect()
        };
        Self { rank: lora.rank, alpha: lora.alpha, layers: (0..config.layers).map(groups).collect() }
    }

    /// An adapter of the same shape, all zeros: the container of gradients and of optimiser moments.
    pub fn zeros_like(&self) -> Self {
        let mut zeros = self.clone();
        zeros.tensors_mut().for_each(|tensor| tensor.fill(0.0));
        zeros
    }

    /// The factor on `B A`.
    pub fn scale(&self) -> f32 {
        self.alpha / self.rank as f32
    }

    /// The group of a fused matrix, if it is adapted.
    pub fn group(&self, layer: usize, site: Site) -> Option<&Group> {
        self.layers[layer].iter().find(|group| group.site == site)
    }

    /// As [`Adapter::group`], to write.
    pub fn group_mut(&mut self, layer: usize, site: Site) -> Option<&mut Group> {
        self.layers[layer].iter_mut().find(|group| group.site == site)
    }

    /// The lowest layer that has a pair; `None` when nothing is adapted.
    pub fn first_layer(&self) -> Option<usize> {
        self.layers.iter().position(|groups| !groups.is_empty())
    }

    /// Number of trained values.
    pub fn parameters(&self) -> usize {
        self.tensors().map(<[f32]>::len).sum()
    }

    /// All values, tensor by tensor, in a fixed order: layer, site, `A`, then each `B`.
    pub fn tensors(&self) -> impl Iterator<Item = &[f32]> {
        self.layers.iter().flatten().flat_map(|group| {
            let b = group.members.iter().map(|member| member.b.data.as_slice());
            std::iter::once(group.a.data.as_slice()).chain(b)
        })
    }

    /// As [`Adapter::tensors`], to write.
    pub fn tensors_mut(&mut self) -> impl Iterator<Item = &mut [f32]> {
        self.layers.iter_mut().flatten().flat_map(|group| {
            let b = group.members.iter_mut().map(|member| member.b.data.as_mut_slice());
            std::iter::once(group.a.data.as_mut_slice()).chain(b)
        })
    }

    /// One adapter that acts as all of `chain` together, or none of none: the sum of the products is the product of the
    /// stacked matrices.
    pub fn stacked(config: &Config, chain: &[Self]) -> Option<Self> {
        if let [] | [_] = chain {
            return chain.first().cloned();
        }
        let rank = chain.iter().map(|adapter| adapter.rank).sum();
        let targets = |layer: usize| {
            let groups = chain.iter().filter_map(|adapter| adapter.layers.get(layer)).flatten();
            groups.flat_map(|group| &group.members).map(|member| member.projection).collect()
        };
        let layer = |layer: usize| {
            let one = Config { layers: 1, ..config.clone() };
            let lora = LoraConfig { rank, alpha: rank as f32, targets: targets(layer), ..Default::default() };
            Self::zeros(&one, &lora).layers.into_iter().flatten().collect()
        };
        // The scale of the whole is 1; each part's is multiplied into its `B`.
        let mut stack = Self { rank, alpha: rank as f32, layers: (0..config.layers).map(layer).collect() };
        let mut first = 0;
        for adapter in chain {
            stack.put(adapter, first);
            first += adapter.rank;
        }
        Some(stack)
    }

    /// Copies `part` into the ranks from `first` on, its scale multiplied into `B`.
    fn put(&mut self, part: &Self, first: usize) {
        let (rank, scale) = (self.rank, part.scale());
        for (groups, theirs) in self.layers.iter_mut().zip(&part.layers) {
            for group in groups {
                let Some(from) = theirs.iter().find(|other| other.site == group.site) else { continue };
                let cols = group.a.cols;
                for (member, a) in group.pairs_mut() {
                    let pair = from.pairs().find(|(other, _)| other.projection == member.projection);
                    let Some((other, from_a)) = pair else { continue };
                    a[first * cols..][..from_a.len()].copy_from_slice(from_a);
                    let rows = member.b.data.chunks_exact_mut(rank).zip(other.b.data.chunks_exact(part.rank));
                    for (row, values) in rows {
                        row[first..][..part.rank].iter_mut().zip(values).for_each(|(b, v)| *b = scale * v);
                    }
                }
            }
        }
    }

    /// Adds `alpha / rank * B A` to the weights that it adapts.
    ///
    /// # Panics
    /// When the adapter was made for another shape of model.
    pub fn merge_into(&self, weights: &mut Weights) {
        let scale = self.scale();
        for (layer, groups) in weights.layers.iter_mut().zip(&self.layers) {
            for group in groups {
                let matrix = group.site.matrix_mut(layer);
                for (member, a) in group.pairs() {
                    add_product(matrix, member, a, scale);
                }
            }
        }
    }
}

/// `matrix[first_row..] += scale * B A`
fn add_product(matrix: &mut Matrix, member: &Member, a: &[f32], scale: f32) {
    let cols = matrix.cols;
    let rows = matrix.data[member.first_row * cols..].chunks_exact_mut(cols);
    for (row, b) in rows.zip(member.b.data.chunks_exact(member.b.cols)) {
        for (b, a) in b.iter().zip(a.chunks_exact(cols)) {
            let factor = scale * b;
            row.iter_mut().zip(a).for_each(|(w, a)| *w += factor * a);
        }
    }
}

/// A copy of the weights with the adapter folded in: what generation reads.
pub fn merge(weights: &Weights, adapter: &Adapter) -> Weights {
    let mut merged = weights.clone();
    adapter.merge_into(&mut merged);
    merged
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::train::testing::{tiny_config, with_random_b};
    use crate::weights::RopeLayout;

    #[test]
    fn a_fresh_adapter_changes_nothing() {
        let config = tiny_config(RopeLayout::Halves);
        let weights = Weights::random(config.clone(), 3);
        let adapter = Adapter::new(&config, &LoraConfig::default());
        let merged = merge(&weights, &adapter);
        assert_eq!(merged.layers[0].qkv, weights.layers[0].qkv);
        assert!(adapter.tensors().any(|tensor| tensor.iter().any(|v| *v != 0.0)));
    }

    #[test]
    fn merging_adds_the_scaled_product_at_the_projections_rows() {
        let config = tiny_config(RopeLayout::Halves);
        let weights = Weights::random(config.clone(), 3);
        let lora =
            LoraConfig { rank: 2, targets: vec![Projection::Key, Projection::Up], ..Default::default() };
        let adapter = with_random_b(Adapter::new(&config, &lora), 5);
        let merged = merge(&weights, &adapter);
        let group = adapter.group(1, Site::Qkv).unwrap();
        let key = &group.members[0];
        for (row, col) in [(0, 0), (1, 3), (config.kv_dim() - 1, config.hidden - 1)] {
            let product: f32 = (0..2).map(|r| key.b.row(row)[r] * group.a.row(r)[col]).sum();
            let at = config.q_dim() + row;
            let want = weights.layers[1].qkv.row(at)[col] + 8.0 * product;
            assert!((merged.layers[1].qkv.row(at)[col] - want).abs() < 1e-6);
        }
        let untouched = config.q_dim() * config.hidden;
        assert_eq!(merged.layers[1].qkv.data[..untouched], weights.layers[1].qkv.data[..untouched]);
        assert_eq!(merged.layers[1].down, weights.layers[1].down);
        assert_ne!(merged.layers[1].gate_up, weights.layers[1].gate_up);
    }

    #[test]
    fn a_stack_of_adapters_does_what_they_do_one_after_the_other() {
        let config = tiny_config(RopeLayout::Interleaved);
        let weights = Weights::random(config.clone(), 3);
        let with = |rank, targets: Vec<Projection>, top_layers, seed| {
            let lora = LoraConfig { rank, alpha: 5.0, targets, top_layers, seed };
            with_random_b(Adapter::new(&config, &lora), seed + 1)
        };
        let chain = [
            with(2, Projection::ALL.to_vec(), None, 1),
            with(3, vec![Projection::Value, Projection::Down], Some(1), 2),
            with(1, vec![Projection::Key, Projection::Gate], None, 3),
        ];
        let stack = Adapter::stacked(&config, &chain).unwrap();
        assert_eq!(stack.rank, 6);
        let one_by_one = chain.iter().fold(weights.clone(), |weights, adapter| merge(&weights, adapter));
        let at_once = merge(&weights, &stack);
        for (a, b) in one_by_one.layers.iter().zip(&at_once.layers) {
            for site in Site::ALL {
                let pairs = site.matrix(a).data.iter().zip(&site.matrix(b).data);
                pairs.for_each(|(a, b)| assert!((a - b).abs() < 1e-5, "{a} {b}"));
            }
        }
        assert_eq!(Adapter::stacked(&config, &chain[..1]), Some(chain[0].clone()));
        assert_eq!(Adapter::stacked(&config, &[]), None);
    }

    #[test]
    fn only_the_top_layers_are_adapted_when_asked() {
        let config = tiny_config(RopeLayout::Halves);
        let lora = LoraConfig { top_layers: Some(1), ..Default::default() };
        let adapter = Adapter::new(&config, &lora);
        assert_eq!(adapter.first_layer(), Some(1));
        assert!(adapter.layers[0].is_empty() && adapter.layers[1].len() == 4);
    }

    #[test]
    fn initial_values_follow_the_seed() {
        let config = tiny_config(RopeLayout::Halves);
        let with = |seed| Adapter::new(&config, &LoraConfig { seed, ..Default::default() });
        assert_eq!(with(4), with(4));
        assert_ne!(with(4), with(5));
    }
}
