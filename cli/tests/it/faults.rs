//! Runs against a provider that fails: each ends complete or says how to go on, and what it leaves is what a run without a
//! fault leaves.

use std::{collections::BTreeMap, path::Path};

use hone_fake::{Fake, Fault, Faults, Options};
use serde_json::Value;

use crate::{
    harness::{Ran, World, cache},
    storm::logs,
};

const BRIEFS: usize = 8;
/// Runs of one command at most until it is through: what passes is tried again by itself, and seldom fails four times.
const RUNS: usize = 8;

fn world(cache: &Path, fake: &Fake) -> World {
    let world = World::with_runtime(cache.to_owned());
    world.briefs(BRIEFS, 1);
    aim(&world, fake);
    world
}

/// Lets the row lead to a provider. The journal knows one on this machine without its port.
fn aim(world: &World, fake: &Fake) {
    let row = format!(
        "[budget]\nusd = inf\n[models.fake]\nprovider = \"openai-compatible\"\nbase_url = \"{}\"\nmodel = \"m\"\n",
        fake.url
    );
    world.write("hone.toml", row);
}

fn evolve(world: &World) -> Ran {
    Ran::from(world.command(&["evolve", "--static-only", "--agent", "fake", "--teacher", "fake"]))
}

fn provider(faults: Faults) -> Fake {
    Fake::start(Options { faults, ..Options::default() }).unwrap()
}

fn without_faults(cache: &Path) -> BTreeMap<String, Value> {
    let fake = provider(Faults::none());
    let world = world(cache, &fake);
    assert_eq!(evolve(&world).code, 0);
    let left = logs(&world);
    assert_eq!(left.len(), BRIEFS);
    left
}

#[test]
fn faults_that_pass_change_nothing_that_is_left() {
    let Some(cache) = cache("faults_that_pass_change_nothing_that_is_left") else { return };
    let calm = without_faults(&cache);
    for seed in 1..=3 {
        let fake = provider(Faults::passing(0.3, seed));
        let world = world(&cache, &fake);
        let runs = (0..RUNS).take_while(|_| {
            let ran = evolve(&world);
            if ran.code != 0 {
                assert!(ran.code == 6 && ran.stderr.contains("hint:"), "{ran:?}");
            }
            ran.code != 0
        });
        assert!(runs.count() < RUNS, "seed {seed}");
        assert_eq!(logs(&world), calm, "seed {seed}");
    }
}

#[test]
fn faults_that_stay_stop_the_run_and_nothing_is_lost() {
    let Some(cache) = cache("faults_that_stay_stop_the_run_and_nothing_is_lost") else { return };
    let calm = without_faults(&cache);
    // One brief in three meets them.
    let some = |fault: Fault| {
        Faults::by(move |asked| if asked.sha.as_bytes()[0] % 3 == 0 { fault } else { Fault::None })
    };
    for (fault, says) in [
        (Fault::LimitLong, "asks to wait 121 s"),
        (Fault::LimitFinal, "HTTP 429"),
        (Fault::Quota, "insufficient_quota"),
        (Fault::BadKey, "HTTP 401"),
        (Fault::Forbidden, "HTTP 403"),
        (Fault::NoModel, "HTTP 404"),
    ] {
        let faulty = provider(some(fault));
        let world = world(&cache, &faulty);
        let ran = evolve(&world);
        assert!(
            ran.code == 6 && ran.stderr.contains(says) && ran.stderr.contains("hint:"),
            "{fault:?}: {ran:?}"
        );
        let asked = faulty.meter().requests;
        let mended = provider(Faults::none());
        aim(&world, &mended);
        assert_eq!(evolve(&world).code, 0, "{fault:?}");
        assert_eq!(logs(&world), calm, "{fault:?} after {asked} requests");
    }
}
