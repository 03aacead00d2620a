//! What a chat model is asked when it is the teacher. It sees the app, what is wrong with it and the guidelines that apply;
//! never the score's weights, the thresholds or the number of the iteration.

use super::{composer::Operator, log::LogEntry};
use crate::{
    agent::{self, Candidate},
    brief::Brief,
    critic::{Guideline, Guidelines, Issue},
    model::wire::Message,
};

/// Issues shown of one app.
const SHOWN_ISSUES: usize = 8;
/// Guidelines shown at most: each is a sentence with its source.
pub(super) const SHOWN_GUIDELINES: usize = 6;

/// The conversation that asks for a better app.
pub fn messages(
    brief: &Brief,
    operator: Operator,
    parents: &[&LogEntry],
    guidelines: &[&Guideline],
) -> Vec<Message> {
    let mut messages = agent::messages(brief);
    let Some(last) = messages.last_mut() else { return messages };
    for (index, parent) in parents.iter().enumerate() {
        let app = agent::reply_of(&Candidate { files: parent.files.clone() });
        last.content.push_str(&format!("\n\nApp {} so far:\n{app}\n", index + 1));
        let issues: Vec<String> = shown_issues(parent).map(|issue| issue_line(issue, guidelines)).collect();
        if !issues.is_empty() {
            last.content.push_str(&format!("What is wrong with it:\n{}\n", issues.join("\n")));
        }
    }
    if !guidelines.is_empty() {
        let lines: Vec<String> = guidelines.iter().map(|guideline| guideline_line(guideline)).collect();
        last.content.push_str(&format!("\nGuidelines that apply:\n{}\n", lines.join("\n")));
    }
    last.content.push_str(task(operator));
    messages
}

/// The issues of an app that its teacher is shown.
pub(super) fn shown_issues(parent: &LogEntry) -> impl Iterator<Item = &Issue> {
    parent.critique.issues.iter().take(SHOWN_ISSUES)
}

/// The conversation that asks for a better version of one app, as training rows have it: with the guidelines that the
/// teacher of the better version was shown.
pub fn improvement_messages(brief: &Brief, parent: &LogEntry, better: &LogEntry) -> Vec<Message> {
    let table = Guidelines::embedded();
    let guidelines: Vec<&Guideline> = better.guidelines.iter().filter_map(|id| table.get(id)).collect();
    messages(brief, Operator::Revise, &[parent], &guidelines)
}

/// A fault with its place, and the guideline behind it where that is shown too.
fn issue_line(issue: &Issue, guidelines: &[&Guideline]) -> String {
    let at = issue.at.as_ref().map(|at| format!(" ({at})")).unwrap_or_default();
    let behind = guidelines.iter().find(|guideline| Some(&guideline.id) == issue.guideline.as_ref());
    let id = behind.map(|guideline| format!(" [{}]", guideline.id)).unwrap_or_default();
    format!("- {}{at}{id}", issue.message)
}

fn guideline_line(guideline: &Guideline) -> String {
    format!("- {}: {} ({})", guideline.id, guideline.fact, guideline.source)
}

fn task(operator: Operator) -> &'static str {
    match operator {
        Operator::Restart => "",
        Operator::Repair => "\nMend the error and keep the rest. Answer with the whole app.",
        Operator::Revise => "\nMend what is wrong and keep what is right. Answer with the whole app.",
        Operator::Restyle => "\nKeep what it does and give it a clearer layout. Answer with the whole app.",
        Operator::Merge => "\nJoin the best parts of these apps into one. Answer with the whole app.",
    }
}
