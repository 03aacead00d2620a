use std::path::PathBuf;

use clap::Args;
use hone::{
    agent::{self, Prompts},
    brief::Brief,
    error::Kind,
    model::wire::Finish,
    store,
};

use crate::{
    context::Context,
    error::{CommandError, Result},
    models::Models,
};

/// Ask the UI agent for a UI, with the model that is deployed
#[derive(Debug, Args)]
pub struct Generate {
    /// What the UI is to be
    description: String,
    /// Write the files of the answer into this folder
    #[arg(long, short, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Model to ask instead of the deployed one
    #[arg(long, value_name = "ROW")]
    agent: Option<String>,
}

pub async fn run(args: &Generate, context: &Context) -> Result {
    let flags: Vec<_> = args.agent.clone().map(|row| ("agent.model", row)).into_iter().collect();
    let settings = context.settings(&flags)?;
    let brief = Brief::from_description(&args.description)?;
    let mut models = Models::new(context, &settings);
    let reply = ask(&brief, context, &settings.agent.model, &mut models).await;
    models.close().await;
    let (model, reply) = reply?;
    whole(&model, &reply.finish, context)?;
    let candidate = agent::parse_reply(&reply.text);
    if let Some(folder) = &args.out {
        for file in &candidate.files {
            store::write_atomic(&folder.join(&file.path), file.content.as_bytes())?;
        }
        context.events.note(format!("wrote {} files into `{}`", candidate.files.len(), folder.display()));
    }
    let value = serde_json::json!({
        "model": model, "files": candidate.files, "reply": reply.text, "finish_reason": reply.finish.as_str(),
        "usage": reply.usage,
    });
    context.answer(&value, || reply.text.clone())
}

/// Says how an answer ended that is no whole one.
fn whole(model: &str, finish: &Finish, context: &Context) -> Result<()> {
    let declined = |message: String, hint: &str| {
        Err(CommandError::new(Kind::Provider, message)
            .hint(format!("{hint}; see docs/troubleshooting/declined-by-the-model.md")))
    };
    match finish {
        Finish::Complete => Ok(()),
        Finish::Refused(words) => declined(
            format!("`{model}` declines to answer{}{words}", if words.is_empty() { "" } else { ": " }),
            "say otherwise what you want, or ask another model with `--agent ROW`",
        ),
        Finish::Filtered => declined(
            format!("the provider of `{model}` holds its answer back"),
            "say otherwise what you want, or see the content filter in the provider's settings",
        ),
        Finish::Length => {
            let hint = "raise `max_tokens` in the model's row or under `[agent]`; see docs/troubleshooting/cut-off.md";
            context.events.warn("the answer is cut: it reached the limit on its length", Some(hint.into()));
            Ok(())
        }
    }
}

async fn ask(
    brief: &Brief,
    context: &Context,
    name: &str,
    models: &mut Models<'_>,
) -> Result<(String, agent::Reply)> {
    let messages = Prompts::load(&context.workspace.prompts())?.ask(brief)?;
    let writer = models.at("generate").writer(name).await?;
    let reply = writer.reply(brief, &messages, context.global.seed).await?;
    Ok((writer.model().to_owned(), reply))
}
