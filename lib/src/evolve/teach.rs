//! What a chat model is asked when it is the teacher. It sees the app and what is wrong with it; never the score's
//! weights, the thresholds or the number of the iteration.

use super::{composer::Operator, log::LogEntry};
use crate::{
    agent::{self, Candidate},
    brief::Brief,
    model::wire::Message,
};

/// Issues shown of one app.
const SHOWN_ISSUES: usize = 8;

/// The conversation that asks for a better app.
pub fn messages(brief: &Brief, operator: Operator, parents: &[&LogEntry]) -> Vec<Message> {
    let mut messages = agent::messages(brief);
    let Some(last) = messages.last_mut() else { return messages };
    for (index, parent) in parents.iter().enumerate() {
        let app = agent::reply_of(&Candidate { files: parent.files.clone() });
        last.content.push_str(&format!("\n\nApp {} so far:\n{app}\n", index + 1));
        let issues: Vec<String> = parent.critique.issues.iter().take(SHOWN_ISSUES).map(issue_line).collect();
        if !issues.is_empty() {
            last.content.push_str(&format!("What is wrong with it:\n{}\n", issues.join("\n")));
        }
    }
    last.content.push_str(task(operator));
    messages
}

/// The conversation that asks for a better version of one app, as training rows have it.
pub fn improvement_messages(brief: &Brief, parent: &LogEntry) -> Vec<Message> {
    messages(brief, Operator::Revise, &[parent])
}

fn issue_line(issue: &crate::critic::Issue) -> String {
    let at = issue.at.as_ref().map(|at| format!(" ({at})")).unwrap_or_default();
    format!("- {}{at}", issue.message)
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
