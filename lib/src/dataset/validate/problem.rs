//! What can be wrong with a fine-tuning file: codes, how bad each is, and what mends it.
//!
//! Codes are those of OpenAI's cookbook where it has one (`data_type`, `missing_messages_list`, `message_missing_key`,
//! `message_unrecognized_key`, `unrecognized_role`, `missing_content`, `example_missing_assistant_message`).

use std::fmt;

use serde::{Deserialize, Serialize};

/// Whether a problem stops a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    Error,
    Warning,
}

/// One sort of problem.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Code {
    // The file and its lines.
    NotUtf8,
    ByteOrderMark,
    BlankLine,
    LineTooLong,
    NotJson,
    DataType,
    MixedFormats,
    WrongMethod,
    CompletionsFormat,
    UnrecognizedKey,
    RepeatedKey,
    TooFewExamples,
    Duplicate,
    // Messages.
    MissingMessagesList,
    MessageMissingKey,
    MessageUnrecognizedKey,
    UnrecognizedRole,
    MissingContent,
    Weight,
    SpecialToken,
    ExampleMissingAssistantMessage,
    NoTrainedMessage,
    LastNotAssistant,
    NotTrainedLocally,
    // Tools.
    ToolShape,
    MissingTools,
    ToolUnknown,
    ToolArguments,
    ToolCallId,
    // Pictures.
    ImageRole,
    ImageType,
    ImageLimit,
    // Preference pairs and tasks.
    InputEndsWithAssistant,
    IdenticalOutputs,
    RftLastRole,
    MixedItems,
    // What training makes of it.
    OverLong,
    NothingLeftToTrain,
    CodeDoesNotParse,
    ConfigFirst,
    TeachesUnwantedHabit,
    DoesNotRun,
}

impl Code {
    /// What a provider refuses, or trains into the wrong thing, is an error.
    pub fn severity(self) -> Severity {
        match self {
            Self::ByteOrderMark
            | Self::BlankLine
            | Self::UnrecognizedKey
            | Self::Duplicate
            | Self::LastNotAssistant
            | Self::IdenticalOutputs
            | Self::MixedItems
            | Self::OverLong
            | Self::NothingLeftToTrain
            | Self::CodeDoesNotParse
            | Self::ConfigFirst
            | Self::DoesNotRun => Severity::Warning,
            _ => Severity::Error,
        }
    }

    /// What to do about it.
    pub fn remedy(self) -> &'static str {
        match self {
            Self::NotUtf8 => "save the file as UTF-8",
            Self::ByteOrderMark => "save the file without a byte-order mark; `--fix` removes it",
            Self::BlankLine => "remove the line; `--fix` does",
            Self::LineTooLong => "an example is a line of at most 64 MiB: split it, or link pictures",
            Self::NotJson => "write one whole JSON object a line, with a JSON library",
            Self::DataType => "write it as the format asks for",
            Self::MixedFormats => "put chat rows and preference rows into files of their own",
            Self::WrongMethod => {
                "choose the method that reads this format, or write the format that the method reads"
            }
            Self::CompletionsFormat => "write it as `messages`; models that took completions are gone",
            Self::UnrecognizedKey => "remove the key; `--fix` does",
            Self::RepeatedKey => "keep one of them: some readers take the first, some the last",
            Self::TooFewExamples => "add examples that differ: gains usually begin at 50 to 100",
            Self::Duplicate => "keep one of them; `--fix` does",
            Self::MissingMessagesList => "give the example a list `messages` with at least one message",
            Self::MessageMissingKey => "give each message a `role` and a `content`, a function's its `name`",
            Self::MessageUnrecognizedKey => "remove the key; `--fix` does",
            Self::UnrecognizedRole => "use system, developer, user, assistant or tool",
            Self::MissingContent => "write the text that the message is to hold, or leave the example out",
            Self::Weight => "`weight` is 0 or 1, on assistant messages alone; `--fix` removes it elsewhere",
            Self::SpecialToken => {
                "write control tokens apart or leave them out: providers refuse them in texts"
            }
            Self::ExampleMissingAssistantMessage => "add the answer that is to be learnt",
            Self::NoTrainedMessage => "give at least one assistant message weight 1",
            Self::LastNotAssistant => "end the example with the answer; what follows it is not learnt",
            Self::NotTrainedLocally => {
                "write it as texts that end with the answer, or leave the example out (`--fix` does); `--model` names a hosted model, which takes more"
            }
            Self::ToolShape => {
                "a tool is `{\"type\": \"function\", \"function\": {\"name\": ..}}`, listed once; a call has `id`, `type` and `function` too, in an assistant message"
            }
            Self::MissingTools => "list the tools that the example calls under `tools`",
            Self::ToolUnknown => "list the tool under `tools`, or call one that is listed",
            Self::ToolArguments => "write the arguments as a JSON object in a string",
            Self::ToolCallId => {
                "give each call an `id` of its own, and answer it by that `id` in the tool messages that follow at once"
            }
            Self::ImageRole => "only user messages may hold pictures",
            Self::ImageType => "give an https address, or JPEG, PNG or WEBP as a data address in base64",
            Self::ImageLimit => "at most 10 pictures an example, each at most 10 MB",
            Self::InputEndsWithAssistant => "end `input.messages` with the user: both outputs answer it",
            Self::IdenticalOutputs => "leave the pair out: two equal answers show no preference",
            Self::RftLastRole => "end `messages` with the user: the model's own answer is graded",
            Self::MixedItems => {
                "give every row the same extra keys with values of one type: what a grader's `{{item.key}}` does not find fails its answers"
            }
            Self::OverLong => "shorten the example, or split the conversation",
            Self::NothingLeftToTrain => {
                "shorten what comes before the answer: it fills all that training reads"
            }
            Self::CodeDoesNotParse => "mend the code, or leave the example out",
            Self::ConfigFirst => "put the user interface first; `--fix` moves configuration behind it",
            Self::TeachesUnwantedHabit => {
                "mend or remove these examples (`--fix` does what needs no new text); a tuned model does what its examples do"
            }
            Self::DoesNotRun => "run the app and mend it, or leave the example out",
        }
    }
}

impl fmt::Display for Code {
    /// As JSON has it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.serialize(f)
    }
}

/// One thing that is wrong with a file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// 1-based; null when it is about the file as a whole.
    pub line: Option<u64>,
    pub code: Code,
    pub severity: Severity,
    pub message: String,
    /// Where in the line, as in `messages[2].weight`; null when it is about the whole line.
    pub field: Option<String>,
    pub remedy: String,
}

impl Problem {
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        let (severity, remedy) = (code.severity(), code.remedy().to_owned());
        Self { line: None, code, severity, message: message.into(), field: None, remedy }
    }

    pub fn at(self, field: impl Into<String>) -> Self {
        Self { field: Some(field.into()), ..self }
    }

    pub fn on(self, line: u64) -> Self {
        Self { line: Some(line), ..self }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(line) = self.line {
            write!(f, "line {line}: ")?;
        }
        if let Some(field) = &self.field {
            write!(f, "`{field}`: ")?;
        }
        write!(f, "{} ({})", self.message, self.code)
    }
}
