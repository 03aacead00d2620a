//! What to try on a page: each control once, with a value that a person might give.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value, json};

use super::page::{CONTROLS, Node, Snapshot};

/// Most controls tried on one page when there is a hurry.
pub(super) const SOME: usize = 10;
/// Most controls tried on one page at all; what is left of the time decides before that.
pub(super) const MOST: usize = 40;

/// One thing to try.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Step {
    pub kind: String,
    pub label: String,
    /// Values by key.
    pub values: Map<String, Value>,
    /// What is fired, as the API takes it.
    pub trigger: Option<Value>,
    /// It saves a file, which no page shows.
    pub download: bool,
}

/// What to try, in order, and how many controls are left out.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Plan {
    pub steps: Vec<Step>,
    pub untried: u32,
    /// Forms that have no button to send them.
    pub forms_without_submit: u32,
    /// Rounds of values that nobody expects: all inputs at once, then what there is to press.
    pub hostile: Vec<Vec<Step>>,
}

impl Step {
    pub fn is_value(&self) -> bool {
        self.trigger.is_none()
    }

    /// The controls that it sets.
    pub fn keys(&self) -> BTreeSet<String> {
        self.values.keys().cloned().collect()
    }

    /// What was sent, for the record: the value alone when there is one.
    pub fn sent(&self) -> Value {
        let payload = self.trigger.as_ref().map_or(Value::Null, |trigger| trigger["value"].clone());
        match self.values.len() {
            0 => payload,
            1 => self.values.values().next().cloned().unwrap_or_default(),
            _ => Value::Array(self.values.values().cloned().collect()),
        }
    }
}

/// What to try, at most `most` controls.
///
/// Buttons first, because what they give with the page's own defaults is compared with what they give later; then
/// inputs, then forms.
pub(super) fn plan(snapshot: &Snapshot, most: usize) -> Plan {
    let offers = snapshot.offers();
    let nodes = snapshot.nodes();
    let usable = |node: &&&Node| node.key.as_deref().is_some_and(|key| offers.contains(key));
    let mut seen = BTreeSet::new();
    let controls: Vec<&Node> = nodes
        .iter()
        .filter(|node| CONTROLS.contains(&node.kind.as_str()))
        .filter(usable)
        .filter(|node| node.form_id.is_some() || seen.insert((node.kind.clone(), node.label())))
        .copied()
        .collect();
    let present = nodes.iter().filter(|node| CONTROLS.contains(&node.kind.as_str())).count();
    let buttons: Vec<Step> =
        controls.iter().filter(|n| n.form_id.is_none()).filter_map(|n| press(n)).collect();
    let inputs: Vec<Step> = controls.iter().filter(|n| n.form_id.is_none()).filter_map(|n| set(n)).collect();
    let forms = forms(&controls);
    let in_forms = controls.iter().filter(|node| node.form_id.is_some()).count();
    let alone = buttons.len() + inputs.len();
    let hostile = hostile(&controls, &buttons, &forms);
    let steps = choose(buttons, inputs, forms, most);
    let taken = steps.iter().filter(|step| step.kind != "form_submit_button").count();
    let names: BTreeSet<_> =
        controls.iter().filter(|n| n.kind == "form_submit_button").map(|n| &n.form_id).collect();
    let without = nodes.iter().filter(|n| n.kind == "form" && !names.contains(&n.key));
    Plan {
        untried: u32::try_from(alone - taken + present.saturating_sub(alone + in_forms)).unwrap_or(u32::MAX),
        forms_without_submit: u32::try_from(without.count()).unwrap_or(u32::MAX),
        steps,
        hostile,
    }
}

/// Buttons and forms pressed in a hostile round.
const MOST_PRESSED: usize = 3;

/// A round with the least and one with the most that the inputs take.
fn hostile(controls: &[&Node], buttons: &[Step], forms: &[Step]) -> Vec<Vec<Step>> {
    let round = |most: bool| {
        let value = |node: &&Node| Some((node.key.clone()?, extreme(node, most)?));
        let alone: Map<String, Value> =
            controls.iter().filter(|node| node.form_id.is_none()).filter_map(value).collect();
        let set = Step { kind: "inputs".to_owned(), values: alone.clone(), ..Step::default() };
        let presses = buttons.iter().filter(|step| step.kind == "button").take(MOST_PRESSED).cloned();
        let says = buttons.iter().filter(|step| step.kind == "chat_input").map(|step| {
            let mut step = step.clone();
            if let Some(trigger) = &mut step.trigger {
                trigger["value"] = json!(if most { far_too_much(2000) } else { " ".to_owned() });
            }
            step
        });
        let sends = forms.iter().take(MOST_PRESSED).map(|form| {
            let known = controls
                .iter()
                .filter(|node| node.key.as_ref().is_some_and(|key| form.values.contains_key(key)));
            Step { values: known.filter_map(value).collect(), ..form.clone() }
        });
        let steps: Vec<Step> = Some(set)
            .filter(|step| !step.values.is_empty())
            .into_iter()
            .chain(presses)
            .chain(says)
            .chain(sends)
            .collect();
        // Buttons alone were pressed already.
        if alone.is_empty() && steps.iter().all(|step| step.values.is_empty()) { Vec::new() } else { steps }
    };
    [round(false), round(true)].into_iter().filter(|steps| !steps.is_empty()).collect()
}

/// Markup, code and digits, as long as it may be.
fn far_too_much(limit: usize) -> String {
    let text = format!("<b>'\"; DROP TABLE x; --</b> {{{{7*7}}}} %s \u{1f600} {}", "9".repeat(3000));
    text.chars().take(limit).collect()
}

/// The least or the most that an input takes: nothing at all, or markup and far too much of it.
fn extreme(node: &Node, most: bool) -> Option<Value> {
    let number = |name: &str, otherwise: f64| numeral(node, bound(node, name).unwrap_or(otherwise));
    match node.kind.as_str() {
        "text_input" | "text_area" if most => {
            let limit = node.props.get("max_chars").and_then(Value::as_u64).unwrap_or(2000);
            Some(json!(far_too_much(usize::try_from(limit).unwrap_or(2000))))
        }
        "text_input" | "text_area" => Some(json!("")),
        "number_input" if most => Some(number("max_value", 1e9)),
        "number_input" => Some(number("min_value", 0.0)),
        "slider" if !node.value.is_array() => {
            Some(if most { number("max_value", 100.0) } else { number("min_value", 0.0) })
        }
        "multiselect" => Some(if most { node.props.get("options")?.clone() } else { json!([]) }),
        "selectbox" | "radio" | "select_slider" if !node.value.is_array() => {
            let options = node.props.get("options")?.as_array()?;
            (if most { options.last() } else { options.first() }).cloned()
        }
        "checkbox" | "toggle" => Some(json!(most)),
        "pills" | "segmented_control" if node.value_schema["type"] == "array" => {
            Some(if most { node.props.get("options")?.clone() } else { json!([]) })
        }
        "pills" | "segmented_control" => {
            let options = node.props.get("options")?.as_array()?;
            (if most { options.last() } else { options.first() }).cloned()
        }
        "date_input" if !node.value.is_array() => {
            let (name, otherwise) =
                if most { ("max_value", "2100-12-31") } else { ("min_value", "1900-01-01") };
            let text = node.prop(name);
            Some(json!(if text.is_empty() { otherwise } else { text }))
        }
        "time_input" => Some(json!(if most { "23:59" } else { "00:00" })),
        "color_picker" => Some(json!(if most { "#ffffff" } else { "#000000" })),
        "feedback" => Some(json!(if most { 4 } else { 0 })),
        _ => None,
    }
}

/// At most `most`: forms and buttons first, six tenths of them when there are others; then inputs, one of each kind before
/// a second.
fn choose(mut buttons: Vec<Step>, inputs: Vec<Step>, mut forms: Vec<Step>, most: usize) -> Vec<Step> {
    let room = if inputs.is_empty() { most } else { most / 10 * 6 + most % 10 * 6 / 10 };
    forms.truncate(room);
    buttons.truncate(room - forms.len());
    let room = most - forms.len() - buttons.len();
    let chosen = varied(&inputs, room);
    let inputs = inputs.into_iter().enumerate().filter(|(i, _)| chosen.contains(i)).map(|(_, step)| step);
    buttons.into_iter().chain(inputs).chain(forms).collect()
}

fn varied(steps: &[Step], most: usize) -> BTreeSet<usize> {
    let mut rank: BTreeMap<&str, usize> = BTreeMap::new();
    let mut order: Vec<(usize, usize)> = Vec::new();
    for (index, step) in steps.iter().enumerate() {
        let nth = rank.entry(&step.kind).or_default();
        order.push((*nth, index));
        *nth += 1;
    }
    order.sort_unstable();
    order.into_iter().take(most).map(|(_, index)| index).collect()
}

fn press(node: &Node) -> Option<Step> {
    let key = node.key.clone()?;
    let trigger = match node.kind.as_str() {
        "button" | "download_button" => json!({ "key": key }),
        "chat_input" => json!({ "key": key, "value": "Hello, what can you do?" }),
        "menu_button" => json!({ "key": key, "value": node.props.get("options")?.as_array()?.first()? }),
        _ => return None,
    };
    Some(Step {
        kind: node.kind.clone(),
        label: node.label(),
        trigger: Some(trigger),
        download: node.kind == "download_button" && !node.prop("url").is_empty(),
        ..Step::default()
    })
}

fn set(node: &Node) -> Option<Step> {
    let value = plausible(node)?;
    let values = Map::from_iter([(node.key.clone()?, value)]);
    Some(Step { kind: node.kind.clone(), label: node.label(), values, ..Step::default() })
}

/// A form is one thing to try: all its fields and its first button; further buttons are tried alone.
fn forms(controls: &[&Node]) -> Vec<Step> {
    let mut seen = BTreeSet::new();
    let submits = controls.iter().filter(|node| node.kind == "form_submit_button");
    submits
        .filter_map(|submit| {
            let form = submit.form_id.clone()?;
            let first = seen.insert(form.clone());
            let fields = controls.iter().filter(|n| first && n.form_id.as_ref() == Some(&form));
            let values = fields.filter_map(|n| Some((n.key.clone()?, plausible(n)?))).collect();
            Some(Step {
                kind: submit.kind.clone(),
                label: submit.label(),
                values,
                trigger: Some(json!({ "key": submit.key.clone()? })),
                download: false,
            })
        })
        .collect()
}

/// A value other than the present one that a person might give; none for what takes none.
fn plausible(node: &Node) -> Option<Value> {
    match node.kind.as_str() {
        "text_input" | "text_area" => Some(json!(words_for(node))),
        "checkbox" | "toggle" => Some(json!(!node.value.as_bool().unwrap_or(false))),
        "number_input" => number(node),
        "selectbox" | "radio" | "segmented_control" | "pills" | "multiselect" | "select_slider" => {
            option(node)
        }
        "slider" => slider(node),
        "date_input" => date(node),
        "time_input" => Some(json!(if node.value == "10:30" { "11:45" } else { "10:30" })),
        "datetime_input" => Some(json!("2026-01-15T10:30")),
        "color_picker" => Some(json!(if node.value == "#1f77b4" { "#2ca02c" } else { "#1f77b4" })),
        "feedback" => Some(json!(i64::from(node.value != 1))),
        "pagination" => Some(json!(2)),
        _ => None,
    }
}

/// Text of the same form as the present one, or else one that fits the label, so that a check of it passes.
fn words_for(node: &Node) -> String {
    let most = node.props.get("max_chars").and_then(Value::as_u64).unwrap_or(200);
    let text = node.value.as_str().and_then(alike).unwrap_or_else(|| labelled(node).to_owned());
    text.chars().take(usize::try_from(most).unwrap_or(200)).collect()
}

/// Another text of the same form, where the form is plain: a number, a list of them, a date.
fn alike(text: &str) -> Option<String> {
    if text.parse::<jiff::civil::Date>().is_ok() {
        return Some(if text == "2026-01-15" { "2026-01-16" } else { "2026-01-15" }.to_owned());
    }
    let next = |part: &str| {
        let whole = part.trim().parse::<i64>().ok().and_then(|n| n.checked_add(1)).map(|n| n.to_string());
        whole.or_else(|| {
            part.trim().parse::<f64>().ok().filter(|n| n.is_finite()).map(|n| (n + 1.5).to_string())
        })
    };
    let parts: Option<Vec<String>> = text.split(',').map(next).collect();
    parts.map(|parts| parts.join(if text.contains(", ") { ", " } else { "," }))
}

fn labelled(node: &Node) -> &'static str {
    let label = format!("{} {}", node.prop("label"), node.prop("placeholder")).to_lowercase();
    let known = [
        ("email", "ada@example.com"),
        ("e-mail", "ada@example.com"),
        ("phone", "+1 555 0100"),
        ("url", "https://example.com"),
        ("website", "https://example.com"),
        ("link", "https://example.com"),
        ("password", "Correct-horse-7"),
        ("zip", "10115"),
        ("postal", "10115"),
        ("name", "Ada Example"),
        ("age", "34"),
        ("amount", "120"),
        ("price", "120"),
        ("number", "42"),
        ("city", "Lisbon"),
        ("country", "Portugal"),
        ("date", "2026-01-15"),
    ];
    known.iter().find(|(word, _)| label.contains(word)).map_or("Sample entry", |(_, text)| *text)
}

fn bound(node: &Node, name: &str) -> Option<f64> {
    node.props.get(name).and_then(Value::as_f64)
}

fn is_whole(node: &Node) -> bool {
    let schema = &node.value_schema;
    schema["type"] == "integer" || schema["items"]["type"] == "integer"
}

fn numeral(node: &Node, value: f64) -> Value {
    #[expect(clippy::cast_possible_truncation, reason = "controls hold numbers that a user reads")]
    if is_whole(node) { json!(value.round() as i64) } else { json!(value) }
}

fn number(node: &Node) -> Option<Value> {
    let now = node.value.as_f64().unwrap_or(0.0);
    let step = bound(node, "step").unwrap_or(1.0);
    let value = match (bound(node, "min_value"), bound(node, "max_value")) {
        (_, Some(high)) if now < high => now + ((high - now) / 2.0).max(step).min(high - now),
        (Some(low), Some(high)) if high > low => f64::midpoint(low, high),
        (_, Some(_)) => now - step,
        _ => now * 2.0 + step.max(1.0) * 3.0,
    };
    Some(numeral(node, value))
}

/// Another option; of several, one more, or one less when all are chosen.
fn option(node: &Node) -> Option<Value> {
    let options: Vec<&Value> = node.props.get("options")?.as_array()?.iter().collect();
    let first = *options.first()?;
    let several = node.value_schema["type"] == "array";
    if !several {
        let at = options.iter().position(|option| **option == node.value);
        let next = at.map_or(0, |at| (at + 1) % options.len());
        return Some(options[next].clone());
    }
    let chosen: Vec<&Value> = node.value.as_array().map(|list| list.iter().collect()).unwrap_or_default();
    if node.kind == "select_slider" {
        let last = *chosen.first().unwrap_or(&first);
        return Some(json!([first, last]));
    }
    let next = options.iter().find(|option| !chosen.contains(option));
    let full = node.props.get("max_selections").and_then(Value::as_u64) == Some(chosen.len() as u64);
    match next {
        Some(next) if !full && chosen.is_empty() => Some(json!([next])),
        Some(next) if !full => Some(chosen.iter().copied().chain([*next]).cloned().collect()),
        _ if chosen.len() > 1 => Some(chosen[..chosen.len() - 1].iter().copied().cloned().collect()),
        _ => Some(json!([first])),
    }
}

fn slider(node: &Node) -> Option<Value> {
    let low = node.props.get("min_value")?;
    let high = node.props.get("max_value")?;
    let pair = node.value.as_array();
    let (Some(from), Some(to)) = (low.as_f64(), high.as_f64()) else {
        // Dates and times: their ends are values too.
        return Some(if pair.is_some() { json!([low, low]) } else { other(low, high, &node.value) });
    };
    let middle = numeral(node, f64::midpoint(from, to));
    Some(match pair {
        Some(now) if now.last() == Some(&middle) => json!([low, low]),
        Some(_) => json!([low, middle]),
        None if middle == node.value => other(low, high, &node.value),
        None => middle,
    })
}

fn other(low: &Value, high: &Value, now: &Value) -> Value {
    if high == now { low.clone() } else { high.clone() }
}

fn date(node: &Node) -> Option<Value> {
    let several = node.value_schema["type"] == "array";
    let now = if several { node.value.get(0)? } else { &node.value };
    let parse = |text: &str| text.get(..10)?.parse::<jiff::civil::Date>().ok();
    let now = now.as_str().and_then(parse).unwrap_or(jiff::civil::date(2026, 1, 15));
    let high = parse(node.prop("max_value"));
    let next = now.tomorrow().ok().filter(|next| high.is_none_or(|high| *next <= high));
    let chosen = next.or_else(|| now.yesterday().ok())?.to_string();
    Some(if several { json!([chosen, chosen]) } else { json!(chosen) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(node: Value, expected: Value) {
        let node: Node = serde_json::from_value(node).unwrap();
        assert_eq!(plausible(&node).unwrap_or_default(), expected);
    }

    #[test]
    fn values_are_plausible_and_differ_from_the_present_one() {
        check(json!({"type":"text_input","props":{"label":"Work email"}}), json!("ada@example.com"));
        check(json!({"type":"text_input","props":{"label":"Code","max_chars":3}}), json!("Sam"));
        check(json!({"type":"text_input","value":"12"}), json!("13"));
        check(json!({"type":"text_input","value":"0.5"}), json!("2"));
        check(json!({"type":"text_area","value":"3, 5, 8"}), json!("4, 6, 9"));
        check(json!({"type":"text_input","value":"2026-01-15"}), json!("2026-01-16"));
        check(json!({"type":"text_input","value":"inf","props":{"label":"City"}}), json!("Lisbon"));
        check(json!({"type":"text_input","value":""}), json!("Sample entry"));
        check(json!({"type":"checkbox","value":true}), json!(false));
        check(json!({"type":"selectbox","props":{"options":["a","b"]},"value":"b"}), json!("a"));
        check(json!({"type":"radio","props":{"options":["a","b"]},"value":null}), json!("a"));
        let several = json!({"type":"array"});
        check(
            json!({"type":"multiselect","props":{"options":["a","b"]},"value":[],"value_schema":several}),
            json!(["a"]),
        );
        check(
            json!({"type":"multiselect","props":{"options":["a","b"]},"value":["a","b"],"value_schema":several}),
            json!(["a"]),
        );
        check(
            json!({"type":"pills","props":{"options":["a","b"]},"value":["a"],"value_schema":several}),
            json!(["a", "b"]),
        );
        check(json!({"type":"date_input","value":"2026-01-31"}), json!("2026-02-01"));
        check(
            json!({"type":"date_input","value":"2026-01-31","props":{"max_value":"2026-01-31"}}),
            json!("2026-01-30"),
        );
        check(json!({"type":"file_uploader"}), Value::Null);
    }

    #[test]
    fn numbers_stay_within_their_bounds() {
        let whole = json!({"type":"integer"});
        check(
            json!({"type":"number_input","value":1,"value_schema":whole,"props":{"min_value":1,"max_value":2,"step":1}}),
            json!(2),
        );
        check(
            json!({"type":"number_input","value":2,"value_schema":whole,"props":{"min_value":1,"max_value":2,"step":1}}),
            json!(2),
        );
        check(
            json!({"type":"number_input","value":10.0,"props":{"min_value":0.0,"max_value":100.0,"step":0.1}}),
            json!(55.0),
        );
        check(json!({"type":"number_input","value":0,"value_schema":whole,"props":{"step":1}}), json!(3));
        check(
            json!({"type":"slider","value":2,"value_schema":whole,"props":{"min_value":0,"max_value":10}}),
            json!(5),
        );
        check(
            json!({"type":"slider","value":5,"value_schema":whole,"props":{"min_value":0,"max_value":10}}),
            json!(10),
        );
        check(
            json!({"type":"slider","value":[2,8],"value_schema":{"items":whole},"props":{"min_value":0,"max_value":10}}),
            json!([0, 5]),
        );
    }
}
