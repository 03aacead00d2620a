//! What a training step leaves behind: its event, its row of the result file.

use base64::{Engine, prelude::BASE64_STANDARD};
use hone::model::wire::{CheckpointMetrics, JobEvent, Level};
use hone_engine::train::{Best, Intake, Metrics, Rewards, Step};
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
        train_reward_accuracy: step.train.rewards.map(|r| rounded(r.accuracy)),
        train_reward_margin: step.train.rewards.map(|r| rounded(r.margin())),
        valid_reward_accuracy: rewards(step.valid).map(|r| rounded(r.accuracy)),
        valid_reward_margin: rewards(step.valid).map(|r| rounded(r.margin())),
        full_valid_reward_accuracy: rewards(step.full_valid).map(|r| rounded(r.accuracy)),
        full_valid_reward_margin: rewards(step.full_valid).map(|r| rounded(r.margin())),
    }
}

fn rewards(metrics: Option<Metrics>) -> Option<Rewards> {
    metrics.and_then(|metrics| metrics.rewards)
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

/// That the model is not the last state of the run, and whether the run ended for it.
pub fn best_epoch(step: &Step, best: &Best) -> String {
    let ended = if step.step < step.total_steps { "Stopped early" } else { "Ended" };
    format!(
        "{ended} after step {}/{}: the validation loss was lowest at step {} ({:.2}), whose model is the result",
        step.step, step.total_steps, best.step, best.loss
    )
}

/// Lines that a warning lists before the rest is only counted.
const LISTED: usize = 10;

/// What the length limit does to the examples of a job; `lines` are theirs in the file.
pub fn warnings(intake: &Intake, lines: &[usize]) -> Vec<String> {
    let told = |rows: &[usize], one: &str, many: &str| {
        let (count, told) = if rows.len() == 1 { ("example", one) } else { ("examples", many) };
        let at: Vec<String> =
            rows.iter().take(LISTED).filter_map(|row| Some(lines.get(*row)?.to_string())).collect();
        let line = if rows.len() == 1 { "line" } else { "lines" };
        let more = rows.len().saturating_sub(LISTED);
        let more = if more > 0 { format!(" and {more} more") } else { String::new() };
        (!rows.is_empty()).then(|| format!("{} {count} {told}: {line} {}{more}", rows.len(), at.join(", ")))
    };
    let cut = told(
        &intake.truncated,
        "is longer than the model's limit and loses its end",
        "are longer than the model's limit and lose their end",
    );
    let left_out = told(
        &intake.skipped,
        "is left out, as the limit leaves nothing of it to learn",
        "are left out, as the limit leaves nothing of them to learn",
    );
    cut.into_iter().chain(left_out).collect()
}

/// The step of a metrics event.
pub fn step_of(event: &JobEvent) -> Option<u64> {
    event.data.as_ref()?.get("step")?.as_u64()
}

/// The numbers that the history has of a step.
pub fn metrics_of_step(events: &[JobEvent], step: u64) -> CheckpointMetrics {
    let event = events.iter().find(|event| step_of(event) == Some(step));
    let data = event.and_then(|event| event.data.clone()).unwrap_or_default();
    let known = serde_json::from_value(data).unwrap_or_default();
    CheckpointMetrics { step: Some(step), ..known }
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
    use super::*;

    fn step() -> Step {
        Step {
            step: 2,
            total_steps: 30,
            epoch: 1,
            train: Metrics { loss: 1.523_456_7, token_accuracy: 0.5, targets: 3, rewards: None },
            valid: None,
            full_valid: Some(Metrics { loss: 1.6, token_accuracy: 0.25, targets: 3, rewards: None }),
            tokens_trained: 77,
            learning_rate: 1e-3,
            gradient_norm: 1.0,
            checkpoint: None,
            is_last: false,
            result: None,
        }
    }

    #[test]
    fn preference_steps_say_how_far_apart_the_answers_are() {
        let rewards = Rewards { accuracy: 0.75, preferred: 0.5, non_preferred: -0.25, pairs: 4 };
        let metrics = Metrics { rewards: Some(rewards), ..Metrics::default() };
        let data = event(&Step { train: metrics, ..step() }).data.unwrap();
        assert_eq!(
            (&data["train_reward_accuracy"], &data["train_reward_margin"]),
            (&json!(0.75), &json!(0.75))
        );
        assert_eq!(data.get("full_valid_reward_margin"), None);
    }

    #[test]
    fn what_the_limit_did_is_told_by_line() {
        let lines: Vec<usize> = (1..=30).collect();
        let intake = Intake { truncated: (0..14).collect(), skipped: vec![2] };
        let [cut, left_out] = &warnings(&intake, &lines)[..] else { panic!() };
        assert_eq!(
            cut,
            "14 examples are longer than the model's limit and lose their end: lines 1, 2, 3, 4, 5, 6, 7, 8, 9, 10 and 4 more"
        );
        assert_eq!(left_out, "1 example is left out, as the limit leaves nothing of it to learn: line 3");
        assert_eq!(warnings(&Intake::default(), &lines), Vec::<String>::new());
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
        assert_eq!(metrics_of_step(std::slice::from_ref(&event), 2), metrics(&step()));
        assert_eq!(metrics_of_step(&[event], 3).train_loss, None);
    }

    #[test]
    fn the_result_file_is_a_csv_in_base64() {
        let other = JobEvent::new("e", 1, Level::Info, "hello");
        let text = BASE64_STANDARD.decode(result_file(&[other, event(&step())])).unwrap();
        assert_eq!(String::from_utf8(text).unwrap(), format!("{HEADER}\n2,1.52346,0.5,,\n"));
    }
}
