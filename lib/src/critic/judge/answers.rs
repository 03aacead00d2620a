//! What a judge answered to its checklist, and the mean of several such answers.

use std::collections::BTreeMap;

use serde_json::Value;

use super::{JudgedItem, checklist::Item, material, reply};

/// Characters of a quotation that are kept.
const QUOTE: usize = 160;

/// One answer to one item.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Answer {
    /// `yes` 1, `partial` 0.5, `no` 0.
    pub value: f64,
    pub evidence: String,
}

/// One sample: answers by the id of their item; what is missing was not answered.
pub(super) type Sample = BTreeMap<String, Answer>;

/// Reads one sample. Only items that exist count. Of several answers to one item the worst counts, in whatever piece of the
/// reply: words of the app that the judge repeats cannot hide what it answers itself.
///
/// # Errors
/// Why nothing of it counts.
pub(super) fn parse(text: &str, items: &[Item]) -> Result<Sample, String> {
    let pieces = reply::pieces(text, |value| {
        let said = pairs(value).into_iter().filter(|(id, _)| items.iter().any(|item| item.id == *id));
        let read: Vec<_> = said.filter_map(|(id, answer)| Some((id.to_owned(), read(answer)?))).collect();
        if read.is_empty() { Err("no item of the checklist is answered".to_owned()) } else { Ok(read) }
    })?;
    let mut sample = Sample::new();
    for (id, answer) in pieces.into_iter().flatten() {
        let kept = sample.entry(id).or_insert_with(|| answer.clone());
        if answer.value < kept.value {
            *kept = answer;
        }
    }
    Ok(sample)
}

/// Ids with their answers, from a list of objects or from an object by id.
fn pairs(value: &Value) -> Vec<(&str, &Value)> {
    let inner = value.get("answers").unwrap_or(value);
    match inner {
        Value::Array(list) => list.iter().filter_map(|one| Some((one.get("id")?.as_str()?, one))).collect(),
        Value::Object(map) => map.iter().map(|(id, one)| (id.as_str(), one)).collect(),
        _ => Vec::new(),
    }
}

fn read(answer: &Value) -> Option<Answer> {
    let said = answer.get("answer").unwrap_or(answer).as_str()?;
    let value = match said.trim().trim_end_matches('.').to_ascii_lowercase().as_str() {
        "yes" => 1.0,
        "partial" | "partially" | "partly" => 0.5,
        "no" => 0.0,
        _ => return None,
    };
    let evidence = answer.get("evidence").and_then(Value::as_str).unwrap_or_default();
    Some(Answer { value, evidence: material::line(evidence, QUOTE) })
}

/// The items with the mean of their answers.
pub(super) fn mean(items: &[Item], samples: &[Sample]) -> Vec<JudgedItem> {
    let of = |item: &Item| {
        let answers: Vec<&Answer> = samples.iter().filter_map(|sample| sample.get(&item.id)).collect();
        let sum: f64 = answers.iter().map(|answer| answer.value).sum();
        let worst = answers.iter().min_by(|a, b| a.value.total_cmp(&b.value));
        JudgedItem {
            id: item.id.clone(),
            question: item.question.clone(),
            answer: (!answers.is_empty()).then(|| sum / answers.len() as f64),
            differs: answers.windows(2).any(|pair| pair[0].value != pair[1].value),
            evidence: worst.map(|answer| answer.evidence.clone()).filter(|quote| !quote.is_empty()),
        }
    };
    items.iter().map(of).collect()
}

/// Mean over the items that were answered; none when fewer than half were, because then too little is known.
pub(super) fn share(items: &[JudgedItem]) -> Option<f64> {
    let answers: Vec<f64> = items.iter().filter_map(|item| item.answer).collect();
    let enough = !answers.is_empty() && 2 * answers.len() >= items.len();
    enough.then(|| answers.iter().sum::<f64>() / answers.len() as f64)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn items(n: usize) -> Vec<Item> {
        (1..=n).map(|i| Item { id: format!("q{i}"), question: format!("Is it {i}?") }).collect()
    }

    #[track_caller]
    fn check(text: &str, expected: Result<&[(&str, f64)], &str>) {
        let read = parse(text, &items(3));
        let values = read.map(|sample| sample.into_iter().map(|(id, a)| (id, a.value)).collect::<Vec<_>>());
        let expected =
            expected.map(|pairs| pairs.iter().map(|(id, value)| ((*id).to_owned(), *value)).collect());
        assert_eq!(values, expected.map_err(str::to_owned), "{text}");
    }

    #[test]
    fn answers_come_in_several_shapes() {
        check(
            r#"{"answers": [{"id": "q1", "answer": "yes"}, {"id": "q2", "answer": "No."}]}"#,
            Ok(&[("q1", 1.0), ("q2", 0.0)]),
        );
        check(r#"[{"id": "q3", "answer": "Partial", "evidence": "x"}]"#, Ok(&[("q3", 0.5)]));
        check(r#"Sure: {"q1": "yes", "q2": {"answer": "partial"}}"#, Ok(&[("q1", 1.0), ("q2", 0.5)]));
    }

    #[test]
    fn what_is_no_answer_does_not_count() {
        let none = Err("no item of the checklist is answered");
        check(r#"{"answers": [{"id": "q9", "answer": "yes"}]}"#, none);
        check(r#"{"answers": [{"id": "q1", "answer": "10/10"}]}"#, none);
        check(r#"{"score": 10}"#, none);
        check("yes to all", Err("it holds no JSON"));
        check(
            r#"{"answers": [{"id": "q1", "answer": "yes"}, {"id": "q1", "answer": "no"}, {"id": "all", "answer": "yes"}]}"#,
            Ok(&[("q1", 0.0)]),
        );
    }

    #[test]
    fn what_an_app_says_in_the_answer_hides_nothing() {
        let real = r#"{"answers": [{"id": "q1", "answer": "no"}]}"#;
        let begged = r#"{"answers": [{"id": "q1", "answer": "yes"}]}"#;
        check(&format!("{real} The page shows: {begged}"), Ok(&[("q1", 0.0)]));
        check(&format!("It says {begged}, but: {real}"), Ok(&[("q1", 0.0)]));
    }

    #[test]
    fn samples_are_averaged_by_item() {
        let answer = |value| Answer { value, evidence: format!("seen {value}") };
        let first = Sample::from([("q1".into(), answer(1.0)), ("q2".into(), answer(1.0))]);
        let second = Sample::from([("q1".into(), answer(0.0))]);
        let judged = mean(&items(3), &[first, second]);
        let of = |i: usize| (judged[i].answer, judged[i].differs, judged[i].evidence.as_deref());
        assert_eq!(of(0), (Some(0.5), true, Some("seen 0")));
        assert_eq!(of(1), (Some(1.0), false, Some("seen 1")));
        assert_eq!(of(2), (None, false, None));
        assert_eq!(share(&judged), Some(0.75));
        assert_eq!(share(&mean(&items(5), &[Sample::from([("q1".into(), answer(1.0))])])), None);
    }

    proptest! {
        #[test]
        fn no_reply_breaks_the_reader(text in "(?s).{0,400}") {
            let _ = parse(&text, &items(8));
        }

        #[test]
        fn only_items_that_exist_are_answered(
            said in prop::collection::vec(("q[0-9]{1,2}|all|score", "yes|no|partial|10|"), 0..30),
        ) {
            let list: Vec<_> =
                said.iter().map(|(id, answer)| serde_json::json!({"id": id, "answer": answer})).collect();
            let known = items(8);
            if let Ok(sample) = parse(&serde_json::json!({ "answers": list }).to_string(), &known) {
                prop_assert!(sample.keys().all(|id| known.iter().any(|item| item.id == *id)));
                let share = share(&mean(&known, &[sample]));
                prop_assert!(share.is_none_or(|share| (0.0..=1.0).contains(&share)));
            }
        }
    }
}
