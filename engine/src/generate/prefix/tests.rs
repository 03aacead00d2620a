use proptest::prelude::*;

use super::*;
use crate::{
    infer::{self, Precision},
    lora::{Adapter, LoraConfig},
    model::Model,
    train::testing::with_random_b,
};

fn source(seed: u64) -> Source {
    Source { decoder: Decoder::new(&Model::random_tiny(seed).weights, Precision::Fast).into(), delta: None }
}

fn tuned(source: &Source, seed: u64) -> Source {
    let config = &source.decoder.config;
    let adapter = with_random_b(Adapter::new(config, &LoraConfig { seed, ..Default::default() }), seed);
    Source { delta: Some(Delta::new(config, &[adapter]).into()), ..source.clone() }
}

/// Logits after all tokens.
fn read(source: &Source, sequence: &mut Sequence) -> Vec<f32> {
    let take = sequence.pending();
    let chunk = infer::Chunk { sequence, take, delta: source.delta.as_deref() };
    infer::forward(&source.decoder, &mut [chunk]).row(0).unwrap().to_vec()
}

/// Reads with the cache's help and keeps it there: logits, and how many tokens the help was.
fn ask(cache: &mut PrefixCache, source: &Source, ids: &[u32]) -> (Vec<f32>, usize) {
    let mut sequence = cache.start(source, ids, ids.len() - 1);
    assert_eq!(sequence.ids(), ids);
    let helped = sequence.cached();
    let logits = read(source, &mut sequence);
    cache.keep(source, &sequence);
    (logits, helped)
}

/// Bytes of a page, which holds 64 tokens.
fn page(source: &Source) -> usize {
    let mut sequence = Sequence::new(&source.decoder, &[1]);
    read(source, &mut sequence);
    sequence.bytes()
}

#[test]
fn the_longest_known_beginning_is_taken_over() {
    let base = source(1);
    let mut cache = PrefixCache::new(1 << 20);
    let mut check = |ids: &[u32], helped: usize| assert_eq!(ask(&mut cache, &base, ids).1, helped, "{ids:?}");
    check(&[1, 2, 3, 4], 0);
    check(&[1, 2, 3, 4], 3);
    check(&[1, 2, 9, 9, 9], 2);
    check(&[1, 2, 9, 9, 8], 4);
    check(&[1, 2, 3, 4, 5, 6], 4);
    check(&[1, 2, 3, 4, 5, 6, 7], 6);
    check(&[1, 2, 3], 2);
    check(&[2], 0);
    check(&[2, 1], 1);
}

#[test]
fn what_conversations_share_is_kept_once() {
    let base = source(1);
    let mut cache = PrefixCache::new(1 << 30);
    let system = vec![5; 130];
    for tail in 10..20 {
        ask(&mut cache, &base, &[&system[..], &[tail, 1, 2]].concat());
    }
    // Two whole pages of the system prompt, and for each what starts in its third page.
    assert_eq!(cache.bytes(), page(&base) * (2 + 10));
    // The next turn takes the place of the one before.
    ask(&mut cache, &base, &[&system[..], &[19, 1, 2, 3, 4]].concat());
    assert_eq!((cache.entries.len(), cache.bytes()), (10, page(&base) * (2 + 10)));
}

#[test]
fn models_do_not_share() {
    let base = source(1);
    let sources = [base.clone(), tuned(&base, 1), tuned(&base, 2), source(1)];
    let mut cache = PrefixCache::new(1 << 20);
    for source in &sources {
        assert_eq!(ask(&mut cache, source, &[1, 2, 3]).1, 0);
    }
    for source in &sources {
        assert_eq!(ask(&mut cache, source, &[1, 2, 3]).1, 2);
    }
    let [first, second, ..] = sources;
    drop(second);
    assert_eq!(cache.entries.len(), 4);
    ask(&mut cache, &first, &[7, 7]);
    assert_eq!(cache.entries.len(), 4, "a model that is gone makes room");
}

#[test]
fn what_was_not_of_use_for_longest_leaves_first() {
    let base = source(1);
    let mut cache = PrefixCache::new(2 * page(&base));
    let mut ask = |ids: &[u32]| ask(&mut cache, &base, ids).1;
    ask(&[1, 1, 1, 1]);
    ask(&[2, 2, 2, 2]);
    assert_eq!(ask(&[1, 1, 1, 1]), 3);
    ask(&[3, 3, 3, 3]);
    assert_eq!([ask(&[1, 1, 1]), ask(&[3, 3, 3])], [2, 2]);
    assert_eq!(ask(&[2, 2, 2]), 0);
}

#[test]
fn a_conversation_larger_than_the_cache_leaves_its_beginning() {
    let base = source(1);
    let mut cache = PrefixCache::new(2 * page(&base) + 1);
    let long: Vec<u32> = (3..203).collect();
    ask(&mut cache, &base, &long);
    assert_eq!((ask(&mut cache, &base, &long).1, cache.bytes()), (128, 2 * page(&base)));
    let mut none = PrefixCache::new(0);
    ask(&mut none, &base, &[1, 2]);
    assert_eq!((ask(&mut none, &base, &[1, 2]).1, none.bytes()), (0, 0));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    /// With or without the cache, however small it is: the same bits.
    #[test]
    fn nothing_changes_but_the_work(
        prompts in prop::collection::vec((0..2_usize, 0..3_usize, prop::collection::vec(1..4_u32, 1..12)), 1..20),
        pages in 0..8_usize,
    ) {
        let base = source(2);
        let sources = [base.clone(), tuned(&base, 1)];
        let budget = pages * page(&base);
        let mut cache = PrefixCache::new(budget);
        for (source, common, tail) in prompts {
            let source = &sources[source];
            let ids = [vec![7; common * 50], tail].concat();
            let alone = read(source, &mut Sequence::new(&source.decoder, &ids));
            prop_assert_eq!(ask(&mut cache, source, &ids).0, alone);
            prop_assert!(cache.bytes() <= budget);
        }
    }
}
