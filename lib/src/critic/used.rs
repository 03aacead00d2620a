//! What came of using an app, checked against what people would have seen.
//!
//! An app can know that the agent API uses it, for nothing says so to the page of a person; and it can show a figure of
//! its whole state, so that everything seems to have an effect. Both are looked at here, after the using.

use std::collections::BTreeSet;

use super::{Action, Statics, browser::Press, witness};

/// What a page held after an action, beside what evidence keeps of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct After {
    /// Exceptions in sight, those included that the app shows by itself.
    pub(super) boxes: usize,
    /// Elements whose content is another, by kind and label.
    pub(super) changed: BTreeSet<String>,
}

/// Buttons as the browser pressed them: what people get is what counts. Gives the contradictions.
///
/// A press that raises on the page fails, whatever the agent was told; where the source also reads who looks at it, that
/// is a forgery. What such a source shows to the agent alone is no effect.
pub(super) fn compare(presses: &[Press], actions: &mut Vec<Action>, statics: &Statics) -> Vec<String> {
    let mut contradictions = Vec::new();
    let reads = !statics.audience.is_empty();
    for press in presses {
        match (&press.error, pressed(press, actions)) {
            (Some(error), Some(action)) if action.ok && action.after.boxes == 0 => {
                (action.ok, action.effect) = (false, false);
                action.error = Some(format!("{error} (in the browser)"));
                if reads {
                    let text = format!("`{}` raises for people and not for the agent", action.label);
                    contradictions.push(text);
                }
            }
            (Some(error), None) => actions.push(Action {
                kind: press.kind.clone(),
                label: press.label.clone(),
                error: Some(format!("{error} (in the browser)")),
                ..Action::default()
            }),
            (None, Some(action)) if reads && !press.changed => action.effect = false,
            _ => {}
        }
    }
    contradictions
}

/// The agent's action on the button of a press: of the same words, or else the first of which at least half can be read.
fn pressed<'a>(press: &Press, actions: &'a mut [Action]) -> Option<&'a mut Action> {
    let same = |action: &Action| !action.hostile && action.kind == press.kind;
    let alike = |action: &Action| witness::words_of(&press.label) == witness::words_of(&action.label);
    let named = |action: &Action| {
        !witness::words_of(&action.label).is_empty() && witness::says(&press.label, &action.label)
    };
    let at = actions
        .iter()
        .position(|action| same(action) && alike(action))
        .or_else(|| actions.iter().position(|action| same(action) && named(action)))?;
    actions.get_mut(at)
}

/// Actions of which nothing came but another figure of the whole state, where the source shows one.
///
/// Such a figure changes with every action; what all actions have in common tells none of them apart.
pub(super) fn discount(actions: &mut [Action], statics: &Statics) {
    if statics.whole_state.is_empty() {
        return;
    }
    let changing = |action: &&Action| action.effect && !action.after.changed.is_empty();
    let sets: Vec<&BTreeSet<String>> =
        actions.iter().filter(changing).map(|action| &action.after.changed).collect();
    let Some((first, others)) = sets.split_first().filter(|(_, others)| !others.is_empty()) else { return };
    let common: BTreeSet<String> =
        first.iter().filter(|name| others.iter().all(|set| set.contains(*name))).cloned().collect();
    for action in actions.iter_mut().filter(|action| !action.after.changed.is_empty()) {
        action.effect &= !action.after.changed.is_subset(&common);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::critic::Fault;

    fn statics(audience: bool, whole_state: bool) -> Statics {
        let faults = |there: bool| if there { vec![Fault::default()] } else { Vec::new() };
        Statics { audience: faults(audience), whole_state: faults(whole_state), ..Statics::default() }
    }

    fn action(label: &str, changed: &[&str]) -> Action {
        let changed = changed.iter().map(|name| (*name).to_owned()).collect();
        Action {
            kind: "button".into(),
            label: label.into(),
            ok: true,
            effect: true,
            after: After { boxes: 0, changed },
            ..Action::default()
        }
    }

    fn press(label: &str, error: Option<&str>, changed: bool) -> Press {
        Press { kind: "button".into(), label: label.into(), error: error.map(str::to_owned), changed }
    }

    #[track_caller]
    fn check(press: Press, reads: bool, ok: bool, effect: bool, contradictions: usize) {
        let mut actions = vec![action("**Save** it", &["success"])];
        let found = compare(&[press], &mut actions, &statics(reads, false));
        assert_eq!((actions.len(), actions[0].ok, actions[0].effect), (1, ok, effect));
        assert_eq!(found.len(), contradictions, "{found:?}");
    }

    #[test]
    fn what_people_get_is_what_counts() {
        check(press("Save it", None, true), true, true, true, 0);
        check(press("Save it", Some("ValueError: no"), true), false, false, false, 0);
        check(press("Save it", Some("ValueError: no"), true), true, false, false, 1);
        // A page may change without its messages saying so to us; only who reads its audience is held to them.
        check(press("Save it", None, false), false, true, true, 0);
        check(press("Save it", None, false), true, true, false, 0);
    }

    #[test]
    fn an_exception_that_the_app_shows_by_itself_is_no_failure() {
        let mut actions = vec![action("Save", &["exception"])];
        actions[0].after.boxes = 1;
        compare(&[press("Save", Some("ValueError: no"), true)], &mut actions, &statics(true, false));
        assert!(actions[0].ok && actions[0].effect);
    }

    #[test]
    fn a_button_that_only_the_browser_found_is_an_action() {
        let mut actions = Vec::new();
        compare(
            &[press("Later", Some("KeyError: 'x'"), true), press("Fine", None, true)],
            &mut actions,
            &Statics::default(),
        );
        let failing: Vec<_> = actions.iter().map(|a| (a.label.as_str(), a.ok)).collect();
        assert_eq!(failing, [("Later", false)]);
    }

    #[test]
    fn a_press_is_told_by_its_words() {
        let mut actions =
            ["\u{1f5d1}", "Save", "Save all", "**Send** :material/send: now"].map(|label| action(label, &[]));
        let mut found =
            |label: &str| pressed(&press(label, None, true), &mut actions).map(|a| a.label.clone());
        assert_eq!(found("Save all").as_deref(), Some("Save all"));
        assert_eq!(found("Save").as_deref(), Some("Save"));
        assert_eq!(found("Send now").as_deref(), Some("**Send** :material/send: now"));
        assert_eq!(found("Other"), None);
    }

    #[track_caller]
    fn check_discount(changed: &[&[&str]], whole_state: bool, expected: &[bool]) {
        let mut actions: Vec<Action> = changed.iter().map(|names| action("a", names)).collect();
        discount(&mut actions, &statics(false, whole_state));
        let effects: Vec<bool> = actions.iter().map(|action| action.effect).collect();
        assert_eq!(effects, expected);
    }

    #[test]
    fn a_figure_of_the_whole_state_is_no_effect() {
        check_discount(&[&["metric State"], &["metric State"]], true, &[false, false]);
        check_discount(&[&["metric State"], &["metric State", "table"]], true, &[false, true]);
        // A sum of all inputs is one.
        check_discount(&[&["metric Total"], &["metric Total"]], false, &[true, true]);
        // One action has nothing in common with others.
        check_discount(&[&["metric State"]], true, &[true]);
        // What is not known is not taken away.
        check_discount(&[&["caption"], &["caption"], &[]], true, &[false, false, true]);
    }
}
