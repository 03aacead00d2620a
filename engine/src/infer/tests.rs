use proptest::prelude::*;

use super::*;
use crate::{
    lora::{Adapter, LoraConfig, Projection, merge},
    train::testing::with_random_b,
    weights::{Config, Matrix, RopeLayout, Weights},
};

fn config(rope: RopeLayout, heads: usize, kv_heads: usize, head_dim: usize) -> Config {
    Config {
        hidden: 24,
        layers: 2,
        heads,
        kv_heads,
        head_dim,
        ffn: 20,
        vocab: 50,
        context: 128,
        rope_theta: 1000.0,
        rope,
        rope_scaling: None,
        norm_eps: 1e-5,
    }
}

fn tiny() -> Weights {
    Weights::random(config(RopeLayout::Interleaved, 6, 2, 10), 3)
}

fn fast() -> Decoder {
    Decoder::new(&tiny(), Precision::Fast)
}

fn exact(weights: &Weights) -> Decoder {
    Decoder::new(weights, Precision::F32)
}

fn prompt(len: usize, seed: u32) -> Vec<u32> {
    (0..len as u32).map(|i| (i * i * 7 + i * seed + seed) % 50).collect()
}

/// The textbook's decoder, one token and one number at a time in f64: logits after the last token.
fn naive(weights: &Weights, ids: &[u32]) -> Vec<f64> {
    let c = &weights.config;
    let product = |w: &Matrix, x: &[f64]| -> Vec<f64> {
        (0..w.rows).map(|r| w.row(r).iter().zip(x).map(|(&w, x)| f64::from(w) * x).sum()).collect()
    };
    let norm = |x: &[f64], gain: &[f32]| -> Vec<f64> {
        let square = x.iter().map(|x| x * x).sum::<f64>() / x.len() as f64;
        x.iter().zip(gain).map(|(x, &g)| x / (square + f64::from(c.norm_eps)).sqrt() * f64::from(g)).collect()
    };
    let rotate = |x: &mut [f64], position: usize| {
        let half = c.head_dim / 2;
        for i in 0..half {
            let angle = position as f64 * f64::from(c.rope_theta).powf(-((2 * i) as f64) / c.head_dim as f64);
            let (a, b) = if c.rope == RopeLayout::Interleaved { (2 * i, 2 * i + 1) } else { (i, i + half) };
            (x[a], x[b]) = (x[a] * angle.cos() - x[b] * angle.sin(), x[a] * angle.sin() + x[b] * angle.cos());
        }
    };
    let mut xs: Vec<Vec<f64>> = ids
        .iter()
        .map(|&id| weights.embedding.row(id as usize).iter().map(|&x| x.into()).collect())
        .collect();
    for layer in &weights.layers {
        let mut qkv: Vec<Vec<f64>> =
            xs.iter().map(|x| product(&layer.qkv, &norm(x, &layer.attn_norm))).collect();
        if let Some(bias) = &layer.qkv_bias {
            let rows = qkv.iter_mut().flat_map(|row| row.iter_mut().zip(bias));
            rows.for_each(|(x, &b)| *x += f64::from(b));
        }
        for (position, qkv) in qkv.iter_mut().enumerate() {
            qkv[..c.q_dim() + c.kv_dim()].chunks_mut(c.head_dim).for_each(|head| rotate(head, position));
        }
        for (t, x) in xs.iter_mut().enumerate() {
            let mut mixed = Vec::new();
            for head in 0..c.heads {
                let shared = head / (c.heads / c.kv_heads);
                let part = |t: usize, start: usize| &qkv[t][start..][..c.head_dim];
                let key = |p| part(p, c.q_dim() + shared * c.head_dim);
                let value = |p| part(p, c.q_dim() + c.kv_dim() + shared * c.head_dim);
                let dot = |p| part(t, head * c.head_dim).iter().zip(key(p)).map(|(a, b)| a * b).sum::<f64>();
                let weights: Vec<f64> =
                    (0..=t).map(|p| (dot(p) / (c.head_dim as f64).sqrt()).exp()).collect();
                let total: f64 = weights.iter().sum();
                mixed.extend(
                    (0..c.head_dim).map(|d| (0..=t).map(|p| weights[p] / total * value(p)[d]).sum::<f64>()),
                );
            }
            x.iter_mut().zip(product(&layer.out, &mixed)).for_each(|(x, y)| *x += y);
            let gate_up = product(&layer.gate_up, &norm(x, &layer.ffn_norm));
            let (gate, up) = gate_up.split_at(c.ffn);
            let inner: Vec<f64> = gate.iter().zip(up).map(|(g, u)| g / (1.0 + (-g).exp()) * u).collect();
            x.iter_mut().zip(product(&layer.down, &inner)).for_each(|(x, y)| *x += y);
        }
    }
    product(weights.output_head(), &norm(&xs[xs.len() - 1], &weights.norm))
}

fn full(decoder: &Decoder, ids: &[u32]) -> Vec<f32> {
    tuned(decoder, None, ids)
}

fn tuned(decoder: &Decoder, delta: Option<&Delta>, ids: &[u32]) -> Vec<f32> {
    let mut sequence = Sequence::new(decoder, ids);
    let chunk = Chunk { sequence: &mut sequence, take: ids.len(), delta };
    forward(decoder, &mut [chunk]).row(0).unwrap().to_vec()
}

#[test]
fn logits_match_the_textbook() {
    for rope in [RopeLayout::Interleaved, RopeLayout::Halves] {
        for (heads, kv_heads, head_dim) in [(6, 2, 10), (4, 4, 16), (3, 1, 34)] {
            let weights = Weights::random(config(rope, heads, kv_heads, head_dim), 5);
            for len in [1, 2, 40] {
                let ids = prompt(len, 3);
                for (got, want) in full(&exact(&weights), &ids).iter().zip(naive(&weights, &ids)) {
                    assert!((f64::from(*got) - want).abs() < 1e-4, "{rope:?} {heads} {len}: {got} {want}");
                }
            }
        }
    }
}

#[test]
fn biases_and_an_output_head_of_its_own_count() {
    let plain = Weights::random(config(RopeLayout::Halves, 6, 2, 10), 5);
    let biased = plain.clone().with_random_biases(6);
    let untied = biased.clone().with_random_head(7);
    let ids = prompt(40, 3);
    for (weights, other) in [(&biased, &plain), (&untied, &biased)] {
        let logits = full(&exact(weights), &ids);
        assert_ne!(logits, full(&exact(other), &ids));
        for (got, want) in logits.iter().zip(naive(weights, &ids)) {
            assert!((f64::from(*got) - want).abs() < 1e-4, "{got} {want}");
        }
    }
}

#[test]
fn the_rotation_is_relative_and_layouts_differ() {
    let ids = prompt(9, 1);
    let [a, b] = [RopeLayout::Interleaved, RopeLayout::Halves]
        .map(|rope| full(&exact(&Weights::random(config(rope, 4, 2, 8), 1)), &ids));
    assert_ne!(a, b);
}

/// Bit-equality, not closeness: see the invariant of `kernel`.
#[test]
fn a_prompt_longer_than_a_pass_is_the_same_in_pieces() {
    let (decoder, ids) = (fast(), prompt(PREFILL_ROWS + 77, 5));
    let mut sequence = Sequence::new(&decoder, &[]);
    let mut last = None;
    for &id in &ids {
        sequence.push(id);
        last = step(&decoder, &mut [&mut sequence]).row(0).map(<[f32]>::to_vec);
    }
    let mut whole = Sequence::new(&decoder, &ids);
    assert_eq!(last.unwrap(), step(&decoder, &mut [&mut whole]).row(0).unwrap());
}

#[test]
fn a_sequence_with_nothing_pending_has_no_logits() {
    let decoder = fast();
    let (mut done, mut todo) = (Sequence::new(&decoder, &[1, 2]), Sequence::new(&decoder, &[3]));
    step(&decoder, &mut [&mut done]);
    let logits = step(&decoder, &mut [&mut done, &mut todo]);
    assert!(logits.row(0).is_none() && logits.row(1).is_some() && logits.row(2).is_none());
    assert!(step(&decoder, &mut []).row(0).is_none());
}

#[test]
fn a_fork_goes_on_as_if_it_had_read_the_prefix_itself() {
    let (decoder, ids) = (fast(), prompt(150, 5));
    let mut parent = Sequence::new(&decoder, &ids);
    step(&decoder, &mut [&mut parent]);
    parent.push(7);
    for kept in [0, 1, 63, 64, 65, 128, 150, 151] {
        let mut fork = parent.fork(kept);
        assert_eq!((fork.ids(), fork.cached()), (&parent.ids()[..kept], kept.min(150)));
        let tail = prompt(9, kept as u32 + 1);
        tail.iter().for_each(|&id| fork.push(id));
        let whole = [&parent.ids()[..kept], &tail].concat();
        assert_eq!(step(&decoder, &mut [&mut fork]).row(0).unwrap(), full(&decoder, &whole), "{kept}");
    }
    let whole: Vec<u32> = ids.iter().copied().chain([7]).collect();
    assert_eq!(step(&decoder, &mut [&mut parent]).row(0).unwrap(), full(&decoder, &whole), "the parent");
}

fn adapter(config: &Config, seed: u64, targets: &[Projection]) -> Adapter {
    let lora = LoraConfig { rank: 3, seed, targets: targets.to_vec(), ..LoraConfig::default() };
    with_random_b(Adapter::new(config, &lora), seed)
}

#[test]
fn a_delta_does_what_merging_its_chain_does() {
    let (weights, ids) = (tiny(), prompt(30, 2));
    let some = [Projection::Value, Projection::Up, Projection::Down];
    let chain = [adapter(&weights.config, 1, &Projection::ALL), adapter(&weights.config, 2, &some)];
    let merged = merge(&merge(&weights, &chain[0]), &chain[1]);
    let delta = Delta::new(&weights.config, &chain);
    let base = exact(&weights);
    let got = tuned(&base, Some(&delta), &ids);
    assert_ne!(got, full(&base, &ids));
    for (got, want) in got.iter().zip(full(&exact(&merged), &ids)) {
        assert!((got - want).abs() < 2e-4, "{got} {want}");
    }
}

/// Root of the mean square of the differences, in parts of that of the numbers.
fn distance(got: &[f32], want: &[f32]) -> f64 {
    let square = |numbers: &mut dyn Iterator<Item = f32>| numbers.map(|n| f64::from(n).powi(2)).sum::<f64>();
    (square(&mut got.iter().zip(want).map(|(a, b)| a - b)) / square(&mut want.iter().copied())).sqrt()
}

/// Rounding to 8 bits costs about 1% of a logit's size in a random model of two layers, with any kernels.
#[test]
fn fast_is_close_to_exact_at_every_level() {
    let weights = Weights::random(Config { hidden: 96, ffn: 160, ..config(RopeLayout::Halves, 6, 2, 16) }, 4)
        .with_random_biases(6)
        .with_random_head(7);
    let chain = [adapter(&weights.config, 1, &Projection::ALL)];
    let delta = Delta::new(&weights.config, &chain);
    let base = exact(&weights);
    for level in Level::tested() {
        let decoder = Decoder::new(&weights, Options { level, ..Options::default() });
        for (delta, len) in [(None, 3), (None, 90), (Some(&delta), 40)] {
            let ids = prompt(len, 3);
            let distance = distance(&tuned(&decoder, delta, &ids), &tuned(&base, delta, &ids));
            assert!(distance < 0.02, "{} {len}: {distance}", level.name());
        }
        let exact =
            Decoder::new(&weights, Options { level, precision: Precision::F32, ..Options::default() });
        let ids = prompt(40, 3);
        for (got, want) in full(&exact, &ids).iter().zip(naive(&weights, &ids)) {
            assert!((f64::from(*got) - want).abs() < 1e-4, "{}: {got} {want}", level.name());
        }
    }
}

#[test]
fn mapping_visits_every_item_in_its_place() {
    let decoder = fast();
    let mut items: Vec<usize> = (0..50).collect();
    let results = decoder.map(&mut items, |index, item| {
        *item += 1;
        index * 2
    });
    assert!(items.iter().enumerate().all(|(i, item)| *item == i + 1));
    assert!(results.iter().enumerate().all(|(i, result)| *result == 2 * i) && results.len() == 50);
    assert!(decoder.map(&mut Vec::<u8>::new(), |_, _| ()).is_empty());
}

#[test]
fn any_number_of_threads_gives_the_same() {
    let (weights, ids) = (tiny(), prompt(150, 5));
    let with = |threads: usize| {
        let threads = std::num::NonZeroUsize::new(threads).unwrap();
        full(&Decoder::new(&weights, Options { threads, ..Options::default() }), &ids)
    };
    let alone = with(1);
    assert!([2, 3, 5].into_iter().all(|threads| with(threads) == alone));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    /// Sequences of any length, advanced by any amounts, in any company: the logits of each are those it gets alone.
    #[test]
    fn company_and_cuts_do_not_matter(
        lengths in prop::collection::vec(1..40_usize, 1..5),
        cuts in prop::collection::vec(0..9_usize, 1..7),
    ) {
        let decoder = fast();
        let chain = [adapter(&decoder.config, 1, &Projection::ALL)];
        let delta = Delta::new(&decoder.config, &chain);
        let prompts: Vec<Vec<u32>> = lengths.iter().zip(1..).map(|(&len, seed)| prompt(len, seed)).collect();
        let mut sequences: Vec<Sequence> =
            prompts.iter().map(|ids| Sequence::new(&decoder, ids)).collect();
        let mut results = vec![None; prompts.len()];
        let mut cuts = cuts.into_iter().cycle();
        let mut round = 0;
        while sequences.iter().any(|s| s.pending() > 0) {
            let mut chunks: Vec<Chunk> = sequences
                .iter_mut()
                .enumerate()
                .map(|(i, sequence)| {
                    let take = cuts.next().unwrap().max(round % 2).min(sequence.pending());
                    Chunk { take, sequence, delta: (i % 2 == 1).then_some(&delta) }
                })
                .collect();
            // Some of every second round, so that all zeros end too.
            round += 1;
            let logits = forward(&decoder, &mut chunks);
            for (i, result) in results.iter_mut().enumerate() {
                *result = result.take().or(logits.row(i).map(<[f32]>::to_vec));
            }
        }
        for (i, (result, ids)) in results.into_iter().zip(&prompts).enumerate() {
            let delta = (i % 2 == 1).then_some(&delta);
            prop_assert_eq!(result.unwrap(), tuned(&decoder, delta, ids));
        }
    }
}
