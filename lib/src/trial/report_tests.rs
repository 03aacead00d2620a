use super::*;
use crate::trial::{
    fixtures::{GOOD, POOR, Quality, rows, spec, wobble},
    summarise,
};

/// A trial with something of everything: three arms, two groups, failures, cut-off and hostile answers.
fn sample() -> (TrialSpec, Vec<Row>, Summary, Extras) {
    let mut spec = spec(
        24,
        1,
        &[
            ("base", "smollm2-135m-instruct"),
            ("tuned", "ft:smollm2:local:ui:ab12"),
            ("prompted", "smollm2-135m-instruct"),
        ],
    );
    spec.samples = 2;
    let quality = |brief: &crate::brief::Brief, arm: &str| match arm {
        "tuned" if wobble(brief.id.as_str(), "luck", 0) > 0.6 => Quality { score: 3.0, runs: false, ..GOOD },
        "tuned" => Quality { score: 7.0 + 1.5 * wobble(brief.id.as_str(), "more", 0), ..GOOD },
        "prompted" => Quality { score: 2.2, ..POOR },
        _ => POOR,
    };
    let mut rows = rows(&spec, quality);
    rows[0].reply = "</pre><script>alert(1)</script> & \"quotes\"".into();
    rows[1].finish_reason = Some("length".into());
    rows[2].reply = String::new();
    rows[1].caps = vec![crate::critic::Cap { value: 3.0, why: "it does not run".into() }];
    let summary = summarise(&spec, &rows);
    let loss = |step: u64| LossPoint {
        step,
        train: 0.35 + 1.5 * (-(step as f64) / 25.0).exp() + 0.04 * wobble("loss", "", step as u32),
        valid: step.is_multiple_of(30).then(|| 0.42 + 1.4 * (-(step as f64) / 26.0).exp()),
    };
    let extras = Extras {
        loss: (1..=90).map(loss).collect(),
        facts: vec![("Dataset SHA-256".into(), "c0ffee".repeat(10))],
        made_at: "2026-11-22 21:00 UTC".into(),
    };
    (spec, rows, summary, extras)
}

#[test]
fn the_report_stands_alone_and_escapes_what_models_wrote() {
    let (spec, rows, summary, extras) = sample();
    let html = html(&spec, &rows, &summary, &extras, &Pictures::default()).unwrap();
    let links = html.replace("http://www.w3.org/2000/svg", "");
    for outside in ["http:", "https:", "<script", "<link", "<img", "@import", "url("] {
        assert!(!links.contains(outside), "{outside}");
    }
    assert!(html.contains("&lt;&#x2f;pre&gt;&lt;script&gt;alert(1)"));
    assert!(html.contains("A form with &lt;b&gt;0&lt;&#x2f;b&gt; sections &amp; filters"));
    // One for each brief, one by kind, one by family.
    assert_eq!(html.matches("<details>").count(), 24 + 2);
    assert_eq!(html.matches("role=\"img\" aria-label=").count(), 3);
    assert_eq!(html.matches("<pre ").count(), 24 * 3 * 2);
    for needle in [
        "(empty answer)",
        "cut off",
        "at most 3.0: it does not run",
        &spec.sha256(),
        "c0ffee",
        "Dataset SHA-256",
    ] {
        assert!(html.contains(needle), "{needle}");
    }
}

#[test]
fn a_trial_without_answers_has_a_report_too() {
    let spec = spec(3, 1, &crate::trial::fixtures::BASE_TUNED);
    let html = html(&spec, &[], &summarise(&spec, &[]), &Extras::default(), &Pictures::default()).unwrap();
    assert!(html.contains("No loss curve is known") && html.contains("No brief of this group took part"));
    assert!(!html.contains("NaN") && !html.contains("none</"));
}

#[test]
fn a_budget_that_an_earlier_trial_set_is_told() {
    let (spec, rows, _, extras) = sample();
    let spec = TrialSpec { alpha: 0.003_377, alpha_from: Some("t-round".into()), ..spec };
    let summary = summarise(&spec, &rows);
    let html = html(&spec, &rows, &summary, &extras, &Pictures::default()).unwrap();
    let told = "0.0034, as in trial `t-round` of this model";
    assert!(html.contains(told) && table::table(&summary).contains(told));
    assert_eq!(serde_json::to_value(&summary).unwrap()["alpha_from"], "t-round");
    let usual = TrialSpec { alpha: spec.alpha, alpha_from: None, ..spec.clone() };
    assert_eq!(usual.sha256(), spec.sha256(), "whose budget it is changes no result");
}

#[test]
fn the_report_and_the_summary_are_written_into_the_trial() {
    let folder = tempfile::tempdir().unwrap();
    let (spec, rows, mut summary, extras) = sample();
    let trial = Trial::open(folder.path(), &spec).unwrap().trial;
    write_report(&trial, &rows, &mut summary, &extras).unwrap();
    let path = trial.report().display().to_string();
    assert_eq!(summary.report.as_deref(), Some(path.as_str()));
    let text = std::fs::read_to_string(trial.summary()).unwrap();
    assert_eq!(serde_json::from_str::<Summary>(&text).unwrap(), summary);
}

#[test]
fn charts_survive_odd_figures() {
    let point = |step, train| LossPoint { step, train, valid: None };
    assert_eq!(chart::loss(&[]).unwrap(), "");
    assert!(chart::loss(&[point(5, 1.0)]).unwrap().starts_with("<svg role"));
    assert!(chart::loss(&[point(1, f64::NAN), point(2, 0.0)]).unwrap().starts_with("<svg role"));
    let pair = chart::Pair {
        brief: "<b>a brief with a very long name</b>".into(),
        seen: false,
        base: 0.0,
        tuned: 10.0,
    };
    let svg = chart::pairs(&[pair]).unwrap();
    assert!(svg.contains("&lt;b&gt;a brief with") && svg.contains("\u{2026} *"), "{svg}");
}

#[test]
fn apps_are_shown_inside_the_one_file() {
    let folder = tempfile::tempdir().unwrap();
    let (spec, mut rows, summary, extras) = sample();
    let trial = Trial::open(folder.path(), &spec).unwrap().trial;
    std::fs::create_dir(trial.screenshots()).unwrap();
    for row in rows.iter_mut().filter(|row| row.arm == Arm::TUNED && row.sample == 0) {
        let name = format!("{}-1280.webp", row.brief);
        std::fs::write(trial.screenshots().join(&name), b"RIFF").unwrap();
        row.evidence = serde_json::json!({
            "versions": {"chromium": "1", "python": "3.11.2"}, "browser": {"screenshots": [name]},
        });
    }
    let pictures = Pictures::load(&spec, &rows, &trial.screenshots());
    let html = html(&spec, &rows, &summary, &extras, &pictures).unwrap();
    assert_eq!(html.matches("<img src=\"data:image/webp;base64,UklGRg==\"").count(), 24);
    assert_eq!(html.matches("<img").count(), 24);
    assert!(html.contains("and to see the apps") && html.contains("chromium 1, python 3.11.2"));
}

#[test]
#[ignore = "writes a report to look at: HONE_REPORT is its folder, HONE_PICTURE a file in WebP"]
fn a_report_to_look_at() {
    let folder = std::path::PathBuf::from(std::env::var_os("HONE_REPORT").unwrap());
    let picture = std::env::var_os("HONE_PICTURE").unwrap();
    let (spec, mut rows, _, extras) = sample();
    let training = super::super::Training {
        job: Some("ftjob-1".into()),
        dataset_sha256: Some("c0ffee".repeat(10)),
        rows: Some(178),
        epochs: Some(2),
        ..Default::default()
    };
    let spec = TrialSpec { training: Some(training), asked_sha256: Some("beef".repeat(16)), ..spec };
    let trial = Trial::open(&folder, &spec).unwrap().trial;
    std::fs::create_dir_all(trial.screenshots()).unwrap();
    std::fs::copy(picture, trial.screenshots().join("a-1280.webp")).unwrap();
    for row in &mut rows {
        let of = |share: f64| Some(10.0 * share * row.score / 10.0 + 1.0);
        row.sub_scores.behaviour = of(0.9);
        row.sub_scores.executes = of(1.0);
        row.sub_scores.accessibility = of(0.5);
        row.sub_scores.match_ = of(0.8);
        row.sub_scores.code = of(0.2);
        row.evidence = serde_json::json!({
            "versions": {"python": "3.11.2", "streamlit": "1.40.0"}, "browser": {"screenshots": ["a-1280.webp"]},
        });
    }
    let pair = |brief: &crate::brief::Brief, by: &str| crate::trial::Pair {
        format: String::new(),
        version: 1,
        brief: brief.id.to_string(),
        sample: 0,
        reference: Arm::BASE.into(),
        better: crate::trial::Better::Tuned,
        decided: None,
        by: by.into(),
    };
    let pairs: Vec<_> = spec.briefs.iter().flat_map(|b| [pair(b, "grader"), pair(b, "people")]).collect();
    let mut summary = crate::trial::summarise_with(trial.spec(), &rows, &pairs);
    write_report(&trial, &rows, &mut summary, &extras).unwrap();
}
