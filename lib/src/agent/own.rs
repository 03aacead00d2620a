//! Whoever answers briefs: a chat model, or the user's own agent, which is a program or a service.
//!
//! An own agent is asked with one JSON object, `{"brief", "messages", "seed"}`: it may use the brief and prompt as it likes,
//! or pass the messages on. What it answers is read as a model's reply is, and kept in the journal like one.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::{
    chat::{Agent, Reply},
    program::{self, Program},
    reply::MAX_REPLY,
};
use crate::{
    brief::Brief,
    model::{
        client::{Client, ModelError},
        journal::Journal,
        wire::{Finish, Message},
    },
};

/// What answers briefs.
#[derive(Clone, Debug)]
pub enum Writer {
    /// A chat model.
    Chat(Box<Agent>),
    /// The user's own agent.
    Own(Box<Own>),
}

/// An agent that is no chat model.
#[derive(Clone, Debug)]
pub struct Own {
    model: String,
    /// What tells its answers from those of others in the journal.
    identity: String,
    how: How,
    journal: Journal,
}

#[derive(Clone, Debug)]
enum How {
    Program(Program),
    Service(Box<Client>),
}

impl Writer {
    /// Who wrote, for logs: the chat model's name; of a program its row and a hash of what it consists of, because another
    /// program under the same name is another agent.
    pub fn model(&self) -> &str {
        match self {
            Self::Chat(agent) => &agent.model,
            Self::Own(own) => &own.model,
        }
    }

    /// The same, whose calls stand under another role in the ledger.
    pub fn by(self, role: &'static str) -> Self {
        match self {
            Self::Chat(agent) => Self::Chat(Box::new(Agent { journal: agent.journal.by(role), ..*agent })),
            Self::Own(own) => Self::Own(Box::new(Own { journal: own.journal.by(role), ..*own })),
        }
    }

    /// Where its replies are kept.
    pub fn journal(&self) -> &Journal {
        match self {
            Self::Chat(agent) => &agent.journal,
            Self::Own(own) => &own.journal,
        }
    }

    /// Whether its calls go through batches, where many are better than few.
    pub fn batches(&self) -> bool {
        matches!(self, Self::Chat(agent) if agent.journal.batches(&agent.client))
    }

    /// One reply to a brief; the messages are how it is asked for. On disk before this returns.
    pub async fn reply(&self, brief: &Brief, messages: &[Message], seed: u64) -> Result<Reply, ModelError> {
        match self {
            Self::Chat(agent) => agent.reply(messages, seed).await,
            Self::Own(own) => own.reply(brief, messages, seed).await,
        }
    }
}

impl From<Agent> for Writer {
    fn from(agent: Agent) -> Self {
        Self::Chat(Box::new(agent))
    }
}

impl Own {
    /// A program: it is what its arguments are, those that name files with their contents, and its settings.
    pub fn program(row: &str, program: Program, journal: Journal) -> Self {
        let hash = program_sha256(&program);
        let model = format!("{row}@{}", &hash[..8]);
        Self { model, identity: format!("program {hash}"), how: How::Program(program), journal }
    }

    /// A service: it is where it answers. What stands behind the address nobody can see.
    pub fn service(row: &str, client: Client, journal: Journal) -> Self {
        let identity = format!("service {}", client.address());
        Self { model: row.to_owned(), identity, how: How::Service(Box::new(client)), journal }
    }

    async fn reply(&self, brief: &Brief, messages: &[Message], seed: u64) -> Result<Reply, ModelError> {
        let asked = json!({ "brief": brief, "messages": messages, "seed": seed });
        let ask = async || match &self.how {
            How::Program(program) => program.answer(&asked).await,
            How::Service(client) => {
                let value: Value = client.post(&asked).await?;
                let mut text = text_of(value);
                let finish = if text.len() > MAX_REPLY { Finish::Length } else { Finish::Complete };
                text.truncate(text.floor_char_boundary(MAX_REPLY));
                Ok(program::reply_of(&self.model, text, &finish))
            }
        };
        let answer = self.journal.keep(&self.identity, &asked, "", ask).await?;
        Ok(Reply {
            finish: answer.reply.finish(),
            text: answer.reply.text().to_owned(),
            usage: answer.reply.usage.unwrap_or_default(),
            // Whatever it spends, it spends itself.
            usd: None,
            replayed: answer.replayed,
            took_ms: answer.took_ms,
        })
    }
}

/// A service's answer as a model would have written it: `{"reply": "..."}`, a text, or files as JSON.
fn text_of(value: Value) -> String {
    match value {
        Value::String(text) => text,
        Value::Object(object) if object.get("reply").is_some_and(Value::is_string) => {
            object["reply"].as_str().unwrap_or_default().to_owned()
        }
        other => other.to_string(),
    }
}

fn program_sha256(program: &Program) -> String {
    let mut hash = Sha256::new();
    let mut add = |bytes: &[u8]| {
        hash.update((bytes.len() as u64).to_le_bytes());
        hash.update(bytes);
    };
    for argument in &program.command {
        add(argument.as_bytes());
        if let Some(content) = file_of(&program.folder, argument) {
            add(&content);
        }
    }
    for (name, value) in &program.settings {
        add(name.as_bytes());
        add(value.as_bytes());
    }
    crate::text::hex(&hash.finalize())
}

/// The content of the file that an argument names, up to a size that programs have.
fn file_of(folder: &Path, argument: &str) -> Option<Vec<u8>> {
    const MOST: u64 = 64 << 20;
    let path: PathBuf = folder.join(argument);
    let meta = std::fs::metadata(&path).ok()?;
    if !meta.is_file() || meta.len() > MOST {
        return None;
    }
    std::fs::read(path).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_may_answer_in_several_forms() {
        let check = |value: Value, expected: &str| assert_eq!(text_of(value), expected);
        check(json!("a reply"), "a reply");
        check(json!({"reply": "a reply", "took": 3}), "a reply");
        check(json!([{"path": "app.py", "content": "x"}]), r#"[{"path":"app.py","content":"x"}]"#);
        check(json!({"files": []}), r#"{"files":[]}"#);
    }

    #[test]
    fn another_program_is_another_agent() {
        let folder = tempfile::tempdir().unwrap();
        let name = |script: &str, argument: &str, setting: &str| {
            std::fs::write(folder.path().join("agent.py"), script).unwrap();
            let program = Program {
                command: vec!["python3".into(), "agent.py".into(), argument.into()],
                settings: vec![("MODE".into(), setting.into())],
                ..Program::new("mine", folder.path())
            };
            Own::program("mine", program, Journal::open(folder.path())).model
        };
        let first = name("print(1)", "-x", "a");
        assert!(first.starts_with("mine@") && first.len() == 13, "{first}");
        assert_eq!(first, name("print(1)", "-x", "a"));
        for other in [name("print(2)", "-x", "a"), name("print(1)", "-y", "a"), name("print(1)", "-x", "b")] {
            assert_ne!(first, other);
        }
    }
}
