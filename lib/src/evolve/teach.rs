//! What a chat model is asked when it is the teacher. It sees the app, what is wrong with it and the guidelines that apply;
//! never the score's weights, the thresholds or the number of the iteration.

use super::{composer::Operator, log::LogEntry};
use crate::{
    agent::{
        self, Candidate, Improvement, PromptError, Prompts, ShownApp, ShownGuideline, ShownIssue, SourceFile,
    },
    brief::Brief,
    critic::{Guideline, Guidelines, Issue, Severity},
    model::wire::Message,
};

/// Issues shown of one app.
const SHOWN_ISSUES: usize = 8;
/// Guidelines shown at most: each is a sentence with its source.
pub(super) const SHOWN_GUIDELINES: usize = 6;

/// The conversation that asks for a better app.
pub fn messages(
    prompts: &Prompts,
    brief: &Brief,
    operator: Operator,
    parents: &[&LogEntry],
    guidelines: &[&Guideline],
) -> Result<Vec<Message>, PromptError> {
    let apps: Vec<Shown<'_>> = parents
        .iter()
        .map(|parent| Shown { files: &parent.files, issues: &parent.critique.issues })
        .collect();
    ask(prompts, brief, operator, &apps, guidelines)
}

/// An app that a teacher is shown, and what is wrong with it.
#[derive(Clone, Copy, Debug)]
pub struct Shown<'a> {
    pub files: &'a [SourceFile],
    pub issues: &'a [Issue],
}

fn ask(
    prompts: &Prompts,
    brief: &Brief,
    operator: Operator,
    apps: &[Shown<'_>],
    guidelines: &[&Guideline],
) -> Result<Vec<Message>, PromptError> {
    let guideline = |row: &&Guideline| ShownGuideline {
        id: row.id.clone(),
        fact: row.fact.clone(),
        source: row.source.clone(),
    };
    let improvement = Improvement {
        apps: apps.iter().map(|app| shown(app, guidelines)).collect(),
        guidelines: guidelines.iter().map(guideline).collect(),
        operator: operator.as_str(),
    };
    prompts.improve(brief, &improvement)
}

fn shown(app: &Shown<'_>, guidelines: &[&Guideline]) -> ShownApp {
    let issue = |issue: &Issue| ShownIssue {
        severity: severity(issue.severity),
        message: issue.message.clone(),
        at: issue.at.clone(),
        guideline: issue.guideline.clone().filter(|id| guidelines.iter().any(|row| row.id == *id)),
    };
    ShownApp {
        reply: agent::reply_of(&Candidate { files: app.files.to_vec() }),
        issues: app.issues.iter().take(SHOWN_ISSUES).map(issue).collect(),
    }
}

fn severity(severity: Severity) -> &'static str {
    match severity {
        Severity::Minor => "minor",
        Severity::Major => "major",
        Severity::Critical => "critical",
    }
}

/// The issues of an app that its teacher is shown.
pub(super) fn shown_issues(parent: &LogEntry) -> impl Iterator<Item = &Issue> {
    parent.critique.issues.iter().take(SHOWN_ISSUES)
}

/// The conversation that asks for a better version of one app, as training rows have it: with the guidelines (by id) that
/// the teacher of the better version was shown.
pub fn improvement_messages(
    prompts: &Prompts,
    brief: &Brief,
    app: Shown<'_>,
    guidelines: &[String],
) -> Result<Vec<Message>, PromptError> {
    let table = Guidelines::embedded();
    let guidelines: Vec<&Guideline> = guidelines.iter().filter_map(|id| table.get(id)).collect();
    ask(prompts, brief, Operator::Revise, &[app], &guidelines)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        brief,
        critic::{self, Evidence},
        evolve::LogUsage,
    };

    fn entry(code: &str, issues: Vec<Issue>) -> LogEntry {
        let evidence = Evidence::sample();
        let critique = critic::Critique { issues, ..critic::score(&evidence) };
        LogEntry {
            fresh: false,
            iteration: 1,
            operator: "draft".into(),
            parents: vec![],
            model: "m".into(),
            files: vec![SourceFile { path: "app.py".into(), content: code.into() }],
            ui_code: code.into(),
            critique,
            evidence,
            usage: LogUsage::default(),
            guidelines: vec![],
            guidelines_unknown: 0,
            finish_reason: None,
            took_ms: 0,
        }
    }

    /// What a teacher was asked before prompts were templates: journals, logs and training rows hang on these bytes.
    fn plain(brief: &Brief, operator: Operator, parents: &[&LogEntry], guidelines: &[&Guideline]) -> String {
        let mut text = format!("Create a Streamlit UI: {}", brief.description);
        brief.requirements.iter().for_each(|requirement| text.push_str(&format!("\n- {requirement}")));
        for (index, parent) in parents.iter().enumerate() {
            let app = agent::reply_of(&Candidate { files: parent.files.clone() });
            text.push_str(&format!("\n\nApp {} so far:\n{app}\n", index + 1));
            let line = |issue: &Issue| {
                let at = issue.at.as_ref().map(|at| format!(" ({at})")).unwrap_or_default();
                let behind = guidelines.iter().find(|row| Some(&row.id) == issue.guideline.as_ref());
                let id = behind.map(|row| format!(" [{}]", row.id)).unwrap_or_default();
                format!("- {}{at}{id}", issue.message)
            };
            let issues: Vec<String> = parent.critique.issues.iter().take(8).map(line).collect();
            if !issues.is_empty() {
                text.push_str(&format!("What is wrong with it:\n{}\n", issues.join("\n")));
            }
        }
        if !guidelines.is_empty() {
            let lines: Vec<String> =
                guidelines.iter().map(|row| format!("- {}: {} ({})", row.id, row.fact, row.source)).collect();
            text.push_str(&format!("\nGuidelines that apply:\n{}\n", lines.join("\n")));
        }
        text + match operator {
            Operator::Restart => "",
            Operator::Repair => "\nMend the error and keep the rest. Answer with the whole app.",
            Operator::Revise => "\nMend what is wrong and keep what is right. Answer with the whole app.",
            Operator::Restyle => {
                "\nKeep what it does and give it a clearer layout. Answer with the whole app."
            }
            Operator::Merge => "\nJoin the best parts of these apps into one. Answer with the whole app.",
        }
    }

    #[test]
    fn the_shipped_template_asks_teachers_what_was_always_asked() {
        let issue = |message: &str, at: Option<&str>, guideline: Option<&str>| Issue {
            severity: Severity::Major,
            message: message.into(),
            at: at.map(Into::into),
            guideline: guideline.map(Into::into),
        };
        let many = (0..10).map(|n| issue(&format!("fault {n} of <b>&"), Some("app.py:1:1"), None)).collect();
        let cited =
            vec![issue("no title", None, Some("g001")), issue("no label", Some("app.py:2:1"), Some("g002"))];
        let entries = [
            entry("import streamlit as st\n", many),
            entry("x = '{{ y }}'\n", cited),
            entry("z = 1\n", vec![]),
        ];
        let table = Guidelines::embedded();
        let first: Vec<&Guideline> = ["g001", "g003"].iter().filter_map(|id| table.get(id)).collect();
        assert_eq!(first.len(), 2);
        let prompts = Prompts::default();
        for brief in brief::shipped_train().iter().step_by(7) {
            for operator in Operator::ALL {
                for parents in [vec![], vec![&entries[0]], vec![&entries[1]], vec![&entries[2], &entries[1]]]
                {
                    for guidelines in [&first[..], &[]] {
                        let messages = messages(&prompts, brief, operator, &parents, guidelines).unwrap();
                        let expected = plain(brief, operator, &parents, guidelines);
                        assert_eq!(
                            messages.last().map(|message| message.content.as_str()),
                            Some(expected.as_str())
                        );
                        assert_eq!(messages[0], Message::system(agent::SYSTEM));
                    }
                }
            }
        }
    }
}
