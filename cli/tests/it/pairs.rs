//! `hone finetune --method dpo`: a tuned model goes on from preference pairs.

use serde_json::{Value, json};

use crate::harness::{DATASET, World, dataset};

const PAIRS: &str = "data/ui_agent_openai_finetuning.dpo.jsonl";

fn pairs(count: usize) -> String {
    let message = |role: &str, content: String| json!({ "role": role, "content": content });
    let app = |line: String| format!("```python\n# app.py\nimport streamlit as st\n\n{line}\n```");
    let pair = |n: usize| {
        json!({
            "input": { "messages": [message("user", format!("Create a Streamlit UI: form {n}"))] },
            "preferred_output": [message("assistant", app(format!("st.title('Form {n}')")))],
            "non_preferred_output": [message("assistant", app(format!("st.write('{n}')")))],
        })
    };
    (0..count).map(|n| format!("{}\n", pair(n))).collect()
}

#[test]
fn a_tuned_model_goes_on_from_preference_pairs() {
    let world = World::bare();
    world.write(DATASET, dataset(12));
    let dpo = ["finetune", "--method", "dpo", "--n-epochs", "1"];
    world.fails(&dpo, 3, "dpo.jsonl", "hone prepare");
    world.write(PAIRS, dataset(12));
    world.fails(&dpo, 3, "a chat file, where the method needs a preference file", "invalid-format.md");
    world.write(PAIRS, pairs(9));
    world.fails(&dpo, 3, "9", "10");

    world.write(PAIRS, pairs(12));
    let tuned = world.json(&["finetune", "--n-epochs", "1"])["fine_tuned_model"].as_str().unwrap().to_owned();
    let on = [&dpo[..], &["--beta", "0.2", "--from", &tuned]].concat();
    let job = world.json(&on);
    assert_eq!((&job["status"], &job["model"]), (&json!("succeeded"), &json!(tuned)), "{job}");
    let method = &job["method"];
    assert_eq!((&method["type"], &method["supervised"]), (&json!("dpo"), &Value::Null), "{job}");
    let numbers = &method["dpo"]["hyperparameters"];
    assert_eq!((&numbers["beta"], &numbers["n_epochs"]), (&json!(0.2), &json!(1)), "{job}");
    let model = job["fine_tuned_model"].as_str().unwrap();
    assert_ne!(model, tuned);
    assert_eq!(world.read("data/finetuned_model_id.txt").trim(), model);
    // The same pairs and numbers are the same job.
    assert_eq!(world.json(&on)["id"], job["id"]);
}
