//! What a training step leaves behind: its event, its row of the result file.

use base64::{Engine, prelude::BASE64_STANDARD};
use hone::model::wire::{CheckpointMetrics, JobEvent, Level};
use hone_engine::train::Step;
use serde_json::{Value, json};

use crate::ids;

const HEADER: &str = "step,train_loss,train_accuracy,valid_loss,valid_mean_token_accuracy";

/// A step's numbers in the protocol's names.
pub fn metrics(step: &Step) -> CheckpointMetrics {
    CheckpointMetrics {
        step: Some(step.step as u64),
        train_loss: Some(rounded(step.train.loss)),
        train_mean_token_accuracy: Some(rounded(step.train.token_accuracy)),
        valid_loss: step.valid.map(|m| rounded(m.loss)),
        valid_mean_token_accuracy: step.valid.map(|m| rounded(m.token_accuracy)),
        full_valid_loss: step.full_valid.map(|m| rounded(m.loss)),
        full_valid_mean_token_accuracy: step.full_valid.map(|m| rounded(m.token_accuracy)),
    }
}

/// Five places: more is noise, and JSON numbers stay short.
fn rounded(value: f64) -> f64 {
    (value * 1e5).round() / 1e5
}

/// The metrics event of a step. `trained_tokens` is so far, by our tokenizer.
pub fn event(step: &Step) -> JobEvent {
    let mut data = serde_json::to_value(metrics(step)).unwrap_or(Value::Null);
    data["total_steps"] = json!(step.total_steps);
    data["trained_tokens"] = json!(step.tokens_trained);
    data["learning_rate"] = json!(step.learning_rate);
    JobEvent::new(ids::random("ftevent-"), ids::now(), Level::Info, message(step)).with_metrics(data)
}

fn message(step: &Step) -> String {
    let valid = step.valid.map(|m| format!(", validation loss={:.2}", m.loss)).unwrap_or_default();
    let full = step.full_valid.map(|m| format!(", full validation loss={:.2}", m.loss)).unwrap_or_default();
    format!("Step {}/{}: training loss={:.2}{valid}{full}", step.step, step.total_steps, step.train.loss)
}

/// The step of a metrics event.
pub fn step_of(event: &JobEvent) -> Option<u64> {
    event.data.as_ref()?.get("step")?.as_u64()
}

/// The result file: base64 of a CSV with a row per step, as OpenAI serves it.
pub fn result_file(events: &[JobEvent]) -> String {
    let mut csv = String::from(HEADER);
    for event in events.iter().filter(|event| step_of(event).is_some()) {
        let cell = |key: &str| event.number(key).map(|value| value.to_string()).unwrap_or_default();
        let keys =
            ["step", "train_loss", "train_mean_token_accuracy", "valid_loss", "valid_mean_token_accuracy"];
        csv.push('\n');
        csv.push_str(&keys.map(cell).join(","));
    }
    csv.push('\n');
    BASE64_STANDARD.encode(csv)
}

#[cfg(test)]
mod tests {
    use hone_engine::train::Metrics;

    use super::*;

    fn step() -> Step {
        Step {
            step: 2,
            total_steps: 30,
            epoch: 1,
            train: Metrics { loss: 1.523_456_7, token_accuracy: 0.5, targets: 3 },
            valid: None,
            full_valid: Some(Metrics { loss: 1.6, token_accuracy: 0.25, targets: 3 }),
            tokens_trained: 77,
            learning_rate: 1e-3,
            gradient_norm: 1.0,
            checkpoint: None,
        }
    }

    #[test]
    fn an_event_says_what_was_measured() {
        let event = event(&step());
        assert_eq!(event.message, "Step 2/30: training loss=1.52, full validation loss=1.60");
        assert_eq!(event.r#type.as_deref(), Some("metrics"));
        let data = event.data.clone().unwrap();
        assert_eq!(data["train_loss"], 1.52346);
        assert_eq!(data["full_valid_mean_token_accuracy"], 0.25);
        assert_eq!(data["trained_tokens"], 77);
        assert_eq!(data.get("valid_loss"), None);
        assert_eq!(step_of(&event), Some(2));
    }

    #[test]
    fn the_result_file_is_a_csv_in_base64() {
        let other = JobEvent::new("e", 1, Level::Info, "hello");
        let text = BASE64_STANDARD.decode(result_file(&[other, event(&step())])).unwrap();
        assert_eq!(String::from_utf8(text).unwrap(), format!("{HEADER}\n2,1.52346,0.5,,\n"));
    }
}
