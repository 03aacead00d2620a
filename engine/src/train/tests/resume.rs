//! Interrupted runs end as uninterrupted ones.

use std::path::Path;
use std::time::Duration;

use crate::lora::{Adapter, LoraConfig};
use crate::train::testing::{random_examples, tiny_config};
use crate::train::{
    Control, Data, EarlyStop, Example, Frozen, Options, Outcome, Precision, Step, TrainError, Trained,
    evaluate, run,
};
use crate::weights::{RopeLayout, Weights};

fn options() -> Options {
    Options {
        epochs: 3,
        batch_size: 2,
        learning_rate: 1e-2,
        lora: LoraConfig { rank: 2, ..Default::default() },
        valid_every: 2,
        save_every: Duration::from_secs(3600),
        ..Default::default()
    }
}

fn weights() -> Weights {
    Weights::random(tiny_config(RopeLayout::Interleaved), 1)
}

fn frozen() -> Frozen {
    Frozen::new(weights(), Precision::F32)
}

fn data() -> Vec<Example> {
    random_examples(&[12, 9, 17, 8, 11], 37, 2)
}

fn chat<'a>(train: &'a [Example], valid: &'a [Example]) -> Data<'a> {
    Data::Supervised { train, valid }
}

fn adapter(trained: &Trained) -> Adapter {
    Adapter::load(&trained.checkpoint, &tiny_config(RopeLayout::Interleaved)).unwrap()
}

fn finish(dir: &Path, options: &Options, on_step: &mut dyn FnMut(Step) -> Control) -> Trained {
    match run(&frozen(), &chat(&data(), &data()[..3]), options, dir, on_step).unwrap() {
        Outcome::Finished(trained) => trained,
        stopped => panic!("{stopped:?}"),
    }
}

fn file_bytes(trained: &Trained) -> Vec<u8> {
    std::fs::read(trained.checkpoint.join("adapter_model.safetensors")).unwrap()
}

#[test]
fn a_run_learns_reports_and_leaves_a_checkpoint_per_epoch() {
    let dir = tempfile::tempdir().unwrap();
    let mut steps = Vec::new();
    let options = Options { epochs: 8, ..options() };
    let trained = finish(dir.path(), &options, &mut |step| {
        steps.push(step);
        Control::Continue
    });
    assert_eq!((steps.len(), trained.steps), (24, 24));
    assert!(steps.iter().enumerate().all(|(i, step)| step.step == i + 1 && step.epoch == i / 3 + 1));
    assert!(steps.iter().all(|step| step.valid.is_some() == step.step.is_multiple_of(2)));
    assert!(steps.iter().all(|step| step.full_valid.is_some() == step.step.is_multiple_of(3)));
    assert_eq!(steps.iter().filter(|step| step.checkpoint.is_some()).count(), 8);
    assert_eq!(trained.tokens_trained, 8 * (12 + 9 + 17 + 8 + 11));
    assert!(steps.iter().all(|step| step.is_last == (step.step == 24) && step.result.is_none()));
    let before = evaluate(&frozen(), None, &data()).unwrap();
    let after = evaluate(&frozen(), Some(&adapter(&trained)), &data()).unwrap();
    assert!(after.loss < before.loss - 0.3, "{before:?} {after:?}");
    let last = steps.last().unwrap().full_valid.unwrap();
    assert_eq!(last, evaluate(&frozen(), Some(&adapter(&trained)), &data()[..3]).unwrap());
}

#[test]
fn merged_weights_give_the_adapters_loss() {
    let dir = tempfile::tempdir().unwrap();
    let trained = finish(dir.path(), &options(), &mut |_| Control::Continue);
    let merged = crate::lora::merge(&weights(), &adapter(&trained));
    let with_adapter = evaluate(&frozen(), Some(&adapter(&trained)), &data()).unwrap();
    let with_merged = evaluate(&Frozen::new(merged, Precision::F32), None, &data()).unwrap();
    assert!((with_adapter.loss - with_merged.loss).abs() < 1e-5, "{with_adapter:?} {with_merged:?}");
}

#[test]
fn a_run_stopped_anywhere_resumes_to_the_same_bytes() {
    let whole = tempfile::tempdir().unwrap();
    let mut reported = Vec::new();
    let expected = finish(whole.path(), &options(), &mut |step| {
        reported.push(step);
        Control::Continue
    });
    for stop_at in [1, 3, 5, 8] {
        let dir = tempfile::tempdir().unwrap();
        let mut steps = Vec::new();
        let stopped = run(&frozen(), &chat(&data(), &data()[..3]), &options(), dir.path(), &mut |step| {
            let control = if step.step == stop_at { Control::Stop } else { Control::Continue };
            steps.push(step);
            control
        });
        assert_eq!(stopped.unwrap(), Outcome::Stopped { step: stop_at, total_steps: 9 });
        let trained = finish(dir.path(), &options(), &mut |step| {
            steps.push(step);
            Control::Continue
        });
        assert_eq!(file_bytes(&trained), file_bytes(&expected), "stopped at {stop_at}");
        let strip = |steps: &[Step]| -> Vec<Step> {
            steps.iter().map(|step| Step { checkpoint: None, ..step.clone() }).collect()
        };
        assert_eq!(strip(&steps), strip(&reported), "stopped at {stop_at}");
    }
}

#[test]
fn a_killed_run_repeats_the_steps_since_its_last_state() {
    let whole = tempfile::tempdir().unwrap();
    let expected = finish(whole.path(), &options(), &mut |_| Control::Continue);
    let dir = tempfile::tempdir().unwrap();
    let every_two = Options { save_every_steps: 2, ..options() };
    let killed = std::panic::catch_unwind(|| {
        finish(dir.path(), &every_two, &mut |step| {
            assert!(step.step < 6, "killed here");
            Control::Continue
        })
    });
    assert!(killed.is_err());
    let mut first = None;
    let trained = finish(dir.path(), &every_two, &mut |step| {
        first.get_or_insert(step.step);
        Control::Continue
    });
    assert_eq!(first, Some(5), "the state of step 4 was the last on disk");
    assert_eq!(file_bytes(&trained), file_bytes(&expected));
    let again = finish(dir.path(), &options(), &mut |step| panic!("step {} of a finished run", step.step));
    assert_eq!(again, trained);
}

#[test]
fn the_state_of_a_run_with_other_options_or_data_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    finish(dir.path(), &options(), &mut |_| Control::Continue);
    let other = Options { learning_rate: 2e-2, ..options() };
    let refused = |data: &[Example], options: &Options| {
        let result = run(&frozen(), &chat(data, &[]), options, dir.path(), &mut |_| Control::Continue);
        matches!(result, Err(TrainError::OtherRun { .. }))
    };
    assert!(refused(&data(), &other));
    assert!(refused(&data()[1..], &options()));
    assert!(!refused(&data(), &options()));
}

#[test]
fn a_batch_worked_through_in_parts_gives_the_same_adapter() {
    let trained = |pass_tokens| {
        let dir = tempfile::tempdir().unwrap();
        adapter(&finish(dir.path(), &Options { pass_tokens, ..options() }, &mut |_| Control::Continue))
    };
    let (whole, parts) = (trained(1000), trained(1));
    for (a, b) in whole.tensors().flatten().zip(parts.tensors().flatten()) {
        assert!((a - b).abs() < 1e-3, "{a} {b}");
    }
}

#[test]
fn nonsense_is_refused_before_anything_is_written() {
    let dir = tempfile::tempdir().unwrap();
    let inside = dir.path().join("run");
    let mut never = |_: Step| panic!("a step");
    let no_epoch = Options { epochs: 0, ..options() };
    let error = run(&frozen(), &chat(&data(), &[]), &no_epoch, &inside, &mut never).unwrap_err();
    assert_eq!(error.to_string(), "these training options make no sense: no epoch");
    let untrained = vec![Example { ids: vec![1, 2], trained: vec![true, false] }];
    let error = run(&frozen(), &chat(&untrained, &[]), &options(), &inside, &mut never).unwrap_err();
    assert!(error.to_string().starts_with("there is nothing to learn"), "{error}");
    assert!(!inside.exists());
}

#[test]
fn a_run_that_diverges_says_so_and_keeps_its_last_good_state() {
    let dir = tempfile::tempdir().unwrap();
    let mut broken = weights();
    broken.layers[0].down.data.fill(f32::NAN);
    let error =
        run(&Frozen::new(broken, Precision::F32), &chat(&data(), &[]), &options(), dir.path(), &mut |_| {
            Control::Continue
        })
        .unwrap_err();
    assert_eq!(error.to_string(), "the loss of step 1 is not a number: training diverged");
    assert!(!dir.path().join("state.safetensors").exists());
}

#[test]
fn a_folder_that_cannot_be_written_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let occupied = dir.path().join("file");
    std::fs::write(&occupied, "in the way").unwrap();
    let error =
        run(&frozen(), &chat(&data(), &[]), &options(), &occupied, &mut |_| Control::Continue).unwrap_err();
    assert!(error.to_string().contains("file`"), "{error}");
    assert!(matches!(error, TrainError::Io { .. }));
}

/// Learns one answer by heart and is measured on another, so that validation gets worse soon.
fn overfit(dir: &Path, options: &Options) -> (Trained, Vec<Step>) {
    let (train, valid) = (random_examples(&[12, 12], 37, 4), random_examples(&[30, 30], 37, 5));
    let mut steps = Vec::new();
    let outcome = run(&frozen(), &chat(&train, &valid), options, dir, &mut |step| {
        steps.push(step);
        Control::Continue
    });
    match outcome.unwrap() {
        Outcome::Finished(trained) => (trained, steps),
        stopped => panic!("{stopped:?}"),
    }
}

#[test]
fn a_run_ends_when_validation_no_longer_falls_and_gives_its_best_epoch() {
    let dir = tempfile::tempdir().unwrap();
    let early_stop = Some(EarlyStop { patience: 2 });
    let options = Options { epochs: 40, learning_rate: 5e-2, early_stop, ..options() };
    let (trained, steps) = overfit(dir.path(), &options);
    let losses: Vec<f64> = steps.iter().map(|step| step.full_valid.unwrap().loss).collect();
    let best = (0..losses.len()).min_by(|a, b| losses[*a].total_cmp(&losses[*b])).unwrap();
    assert!(losses.len() < 40 && best + 3 == losses.len(), "{losses:?}");
    let last = steps.last().unwrap();
    assert!(last.is_last && last.result.unwrap().step == best + 1);
    assert_eq!((trained.steps, steps[best].checkpoint.as_ref()), (losses.len(), Some(&trained.checkpoint)));
    let (again, none) = overfit(dir.path(), &options);
    assert_eq!((again, none.len()), (trained, 0), "a run that ended early is over");
}

#[test]
fn a_run_that_outlasts_its_epochs_gives_its_best_one_too() {
    let dir = tempfile::tempdir().unwrap();
    let early_stop = Some(EarlyStop { patience: 30 });
    let options = Options { epochs: 12, learning_rate: 5e-2, early_stop, ..options() };
    let (trained, steps) = overfit(dir.path(), &options);
    let best = steps.last().unwrap().result.unwrap();
    assert!((1..12).contains(&best.step) && steps.len() == 12, "{best:?}");
    assert_eq!(steps[best.step - 1].checkpoint.as_ref(), Some(&trained.checkpoint));
}

#[test]
fn patience_survives_an_interruption() {
    let options =
        Options { epochs: 40, learning_rate: 5e-2, early_stop: Some(EarlyStop { patience: 2 }), ..options() };
    let whole = tempfile::tempdir().unwrap();
    let (expected, steps) = overfit(whole.path(), &options);
    let dir = tempfile::tempdir().unwrap();
    let (train, valid) = (random_examples(&[12, 12], 37, 4), random_examples(&[30, 30], 37, 5));
    for stop_at in 1..steps.len() {
        let stopped = run(&frozen(), &chat(&train, &valid), &options, dir.path(), &mut |_| Control::Stop);
        assert!(matches!(stopped.unwrap(), Outcome::Stopped { step, .. } if step == stop_at));
    }
    let (trained, _) = overfit(dir.path(), &options);
    assert_eq!((trained.steps, file_bytes(&trained)), (expected.steps, file_bytes(&expected)));
}

/// Layers below the adapted ones are computed once per example and remembered; a resumed run computes them anew.
#[test]
fn what_frozen_layers_say_is_remembered_without_a_trace() {
    let mut adapters = Vec::new();
    for batch_size in [1, 2] {
        let lora = LoraConfig { rank: 2, top_layers: Some(1), ..Default::default() };
        let options = Options { batch_size, lora, ..options() };
        let whole = tempfile::tempdir().unwrap();
        let expected = finish(whole.path(), &options, &mut |_| Control::Continue);
        let dir = tempfile::tempdir().unwrap();
        let mut stopped = 0;
        while let Outcome::Stopped { .. } =
            run(&frozen(), &chat(&data(), &data()[..3]), &options, dir.path(), &mut |_| Control::Stop)
                .unwrap()
        {
            stopped += 1;
        }
        let resumed = finish(dir.path(), &options, &mut |_| Control::Continue);
        assert!(stopped > 5);
        assert_eq!(file_bytes(&resumed), file_bytes(&expected));
        adapters.push(adapter(&resumed));
    }
    assert_ne!(adapters[0], adapters[1]);
}
