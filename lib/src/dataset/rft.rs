//! Items of reinforcement fine-tuning, and the grader that rewards answers to them.

use std::collections::HashMap;

use serde_json::{Value, json};

use super::{
    ChatRow, Prepared,
    export::plain,
    manifest::{RowKind, Split},
};

/// An item for each brief: what asks, without an answer, and the best answer that is known as what to compare with.
pub(super) fn items(prepared: &Prepared, split: Split) -> Vec<Value> {
    let rows = if split == Split::Train { &prepared.train } else { &prepared.validation };
    let records = prepared.manifest.rows.iter().filter(|record| record.split == split);
    let mut best: Vec<(&str, f64, &ChatRow)> = Vec::new();
    let mut places: HashMap<&str, usize> = HashMap::new();
    for (record, row) in records.zip(rows).filter(|(record, _)| record.row == RowKind::Positive) {
        let place = *places.entry(&record.brief).or_insert(best.len());
        let this = (record.brief.as_str(), record.source.score, row);
        match best.get_mut(place) {
            Some(known) if known.1 < this.1 => *known = this,
            Some(_) => {}
            None => best.push(this),
        }
    }
    let item = |(brief, _, row): &(&str, f64, &ChatRow)| {
        let (answer, prompt) = row.messages.split_last()?;
        Some(json!({ "messages": plain(prompt), "brief": brief, "reference": answer.content }))
    };
    best.iter().filter_map(item).collect()
}

/// Half for an interface, half for being like the best answer that is known, which begins with it. A grader runs nothing and sees
/// no order of files, so this is a weak reward beside the critic's: it does not tell an app that does not start.
pub fn grader() -> Value {
    json!({
        "type": "multi",
        "name": "interface_and_like_the_reference",
        "graders": {
            "interface": {
                "type": "string_check",
                "name": "interface",
                "operation": "like",
                "input": "{{sample.output_text}}",
                "reference": "import streamlit",
            },
            "reference": {
                "type": "text_similarity",
                "name": "reference",
                "evaluation_metric": "fuzzy_match",
                "input": "{{sample.output_text}}",
                "reference": "{{item.reference}}",
            },
        },
        "calculate_output": "0.5 * interface + 0.5 * reference",
    })
}
