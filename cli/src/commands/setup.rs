use clap::Args;

use crate::{context::Context, error::Result};

/// Make the runtime in the shared cache: Python with Streamlit, the base model's weights
///
/// What is there already is left alone, and then nothing is asked of the network.
#[derive(Debug, Args)]
pub struct Setup {}

pub async fn run(_: &Setup, context: &Context) -> Result {
    hone::runtime::setup(&context.machine, &context.events, &context.cancel).await?;
    let runtime = context.machine.runtime();
    let value = serde_json::json!({
        "ok": true, "cache": context.machine.cache, "python": runtime.python(), "weights": runtime.gguf,
        "sandbox": context.machine.bubblewrap(), "browser": context.machine.chromium(),
    });
    if context.machine.bubblewrap().is_none() {
        let hint =
            "`apt-get install bubblewrap`; without it candidates can only be scored with `--static-only`";
        context.events.warn("bubblewrap was not found", Some(hint.into()));
    }
    context.answer(&value, || format!("ready: `{}`", context.machine.cache.display()))
}
