//! The real weights through the command: they answer, learn, and answer otherwise.

use crate::harness::{DATASET, World, cache, dataset};

#[test]
fn real_weights_answer_and_learn() {
    let Some(cache) = cache("real_weights_answer_and_learn") else { return };
    let world = World::real(cache);
    world.write("hone.toml", "[agent]\nmax_tokens = 24\ntemperature = 0.0\n");
    let ask = || world.json(&["generate", "form number 3"]);
    let base = ask();
    assert_eq!(base["model"], "smollm2-135m-instruct");
    assert_eq!(base["reply"], ask()["reply"], "the same seed, the same answer");
    world.write(DATASET, dataset(12));
    let job = world.json(&["finetune", "--n-epochs", "3"]);
    assert_eq!(job["status"], "succeeded", "{job}");
    let tuned = job["fine_tuned_model"].as_str().unwrap();
    assert!(tuned.starts_with("ft:smollm2-135m-instruct:local:ui-agent-v1:"), "{tuned}");
    let made = world.json(&["generate", "form number 3", "--agent", tuned]);
    let reply = made["reply"].as_str().unwrap();
    assert!(reply.starts_with("import streamlit as st\nst.title('Form"), "not learnt: {reply}");
    assert_ne!(made["reply"], base["reply"]);
}
