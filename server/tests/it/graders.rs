//! Graders and checkpoint permissions over HTTP; what graders compute is tested where it is computed.

use serde_json::{Value, json};

use crate::harness::World;

fn check() -> Value {
    json!({"type": "string_check", "name": "c", "input": "{{sample.output_text}}", "reference": "{{item.want}}",
        "operation": "eq"})
}

#[tokio::test]
async fn graders_run_and_are_checked() {
    let world = World::new().await;
    let body = json!({"grader": check(), "model_sample": "yes", "item": {"want": "yes"}});
    let (status, run) = world.post("/fine_tuning/alpha/graders/run", &body).await;
    assert_eq!((status, &run["reward"]), (200, &json!(1.0)), "{run}");
    assert_eq!(run["metadata"]["errors"].as_object().unwrap().len(), 14);
    let (status, same) = world.post("/fine_tuning/alpha/graders/validate", &json!({"grader": check()})).await;
    assert_eq!((status, &same["grader"]), (200, &check()));
    for grader in
        [json!({"type": "python", "name": "p", "source": "1"}), json!({"type": "score_model", "name": "s"})]
    {
        let (status, error) =
            world.post("/fine_tuning/alpha/graders/validate", &json!({"grader": grader})).await;
        assert_eq!((status, &error["error"]["param"]), (400, &json!("grader")));
        assert!(error["error"]["message"].as_str().unwrap().contains("not supported"), "{error}");
    }
    let (status, error) = world.post("/fine_tuning/alpha/graders/run", &json!({"grader": check()})).await;
    assert_eq!((status, &error["error"]["param"]), (400, &json!("model_sample")));
}

#[tokio::test]
async fn checkpoints_have_no_permissions_to_give() {
    let world = World::new().await;
    let job = world.job(10, 1).await;
    let model = world.end(&job.id).await.fine_tuned_model.unwrap();
    let path = |model: &str| format!("/fine_tuning/checkpoints/{model}/permissions");
    for model in [model.clone(), model.replace(':', "%3A")] {
        let (status, error) = world.get(&path(&model)).await;
        assert_eq!((status, &error["error"]["code"]), (403, &json!("not_supported")), "{error}");
        assert_eq!(world.post(&path(&model), &json!({"project_ids": ["p"]})).await.0, 403);
    }
    assert_eq!(world.get(&path("ft:tiny:local::aaaaaaaa")).await.1["error"]["code"], "model_not_found");
    let one = world.url(&format!("{}/cp_1", path(&model)));
    assert_eq!(reqwest::Client::new().delete(one).send().await.unwrap().status().as_u16(), 403);
    for path in ["/completions", "/embeddings"] {
        let (status, error) = world.post(path, &json!({})).await;
        assert_eq!((status, &error["error"]["code"]), (404, &json!("unsupported_endpoint")), "{path}");
    }
}
