use std::{sync::Arc, time::Duration};

use clap::Args;
use hone::{
    error::Kind,
    model::client::Secret,
    registry::{Current, Limits},
};
use hone_engine::{infer, model::Model};
use hone_server::{BaseModel, LocalServer, Server, ServerConfig};

use crate::{
    bases, canary,
    context::{Context, print_line, to_json},
    error::{CommandError, Exit, Result},
    rows,
};

/// Serve OpenAI's API on /v1 over the embedded engine
///
/// Answers chat completions with the base and the tuned models, takes files and fine-tuning jobs. The model `ui-agent` is
/// always the deployed one.
#[derive(Debug, Args)]
pub struct Serve {
    #[arg(long, default_value = "127.0.0.1")]
    host: String,
    #[arg(long, default_value_t = 8642)]
    port: u16,
    /// Refuse requests without this key
    #[arg(long, value_name = "KEY", env = API_KEY, hide_env_values = true)]
    api_key: Option<String>,
    /// What answers and training are computed with: `auto` for the fastest, `f32` for exact arithmetic, or an instruction
    /// set such as `amx`, `avx512` (which leaves AMX unused) or `avx2`; to compare with
    #[arg(long, value_name = "NAME", default_value = "auto")]
    kernels: String,
}

/// What to do when there are no kernels of some name.
pub const OTHER_KERNELS: &str = "leave `--kernels` out for the fastest";

/// Variable with the key of the local server, for it and for commands that use it.
pub const API_KEY: &str = "HONE_API_KEY";

pub async fn run(args: &Serve, context: &Context) -> Result {
    let kernels = infer::Options::named(&args.kernels)
        .map_err(|e| CommandError::new(Kind::Input, e.to_string()).hint(OTHER_KERNELS))?;
    prepare_weights(context).await?;
    let address = format!("{}:{}", args.host, args.port);
    let listener = tokio::net::TcpListener::bind(&address).await.map_err(|e| {
        CommandError::new(Kind::Environment, format!("cannot listen on `{address}`: {e}"))
            .hint("choose another port with `--port N`; `--port 0` takes a free one")
    })?;
    let api_key = args.api_key.clone().or_else(|| context.secret(API_KEY)).map(Secret::new);
    let (answered, answers) = canary::channel();
    let mut config = ServerConfig { api_key, kernels, answered, ..config(context)? };
    config.trainer.extend(["--kernels".into(), kernels.name().into()]);
    let models: Vec<String> = config.base_models().into_iter().map(|model| model.id).collect();
    let server = Server::open(config, listener)?;
    let base_url = server.base_url();
    if context.global.json {
        let kernels = kernels.name();
        print_line(&to_json(
            &serde_json::json!({ "base_url": base_url, "models": models, "kernels": kernels }),
        ));
    } else {
        print_line(&format!(
            "serving OpenAI's API on {base_url} with {} kernels  (Ctrl-C stops; training goes on and is picked up)",
            kernels.name()
        ));
    }
    let limits = limits(&context.settings_again()?.deploy);
    let judging = canary::judge(context, limits, answers);
    let (served, ()) = tokio::join!(server.serve(context.cancel.clone()), judging);
    served?;
    Ok(Exit::Ok)
}

fn limits(deploy: &hone::config::Deploy) -> Limits {
    Limits { calls: deploy.canary_calls, drop: deploy.canary_drop }
}

/// The base URL of the workspace's server: the one that runs, or one started in this process.
pub async fn find_or_start(context: &Context) -> Result<(String, Option<LocalServer>)> {
    if let Some(base_url) = hone_server::running(&context.workspace.server()) {
        return Ok((base_url, None));
    }
    prepare_weights(context).await?;
    let server = hone_server::spawn_local(config(context)?).await?;
    Ok((server.base_url.clone(), Some(server)))
}

/// How often a borrowed server is looked at; the client asks again for longer than that.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// Waits until nobody listens at the address of another process's server, then serves there. None when it is no address.
pub async fn take_over(config: ServerConfig, base_url: String) -> Option<LocalServer> {
    let address = base_url.strip_prefix("http://")?.strip_suffix("/v1")?.to_owned();
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        if tokio::net::TcpStream::connect(&address).await.is_ok() {
            continue;
        }
        if let Ok(server) = hone_server::spawn_at(config.clone(), &address).await {
            return Some(server);
        }
    }
}

pub async fn prepare_weights(context: &Context) -> Result<()> {
    if let Some(chosen) = bases::chosen(context, &context.settings_again()?)? {
        return Model::check(&chosen.path).map_err(|e| {
            let message = format!("the model `{}` cannot be used: {e}", chosen.name);
            let hint = e.hint().unwrap_or("add it again with `hone models add`");
            CommandError::new(Kind::Environment, message).hint(hint)
        });
    }
    if !context.machine.runtime().gguf.is_file() {
        hone::runtime::setup(&context.machine, &context.events, &context.cancel).await?;
    }
    let path = context.machine.runtime().gguf;
    Model::check(&path).map_err(|e| {
        let message = format!("the weights `{}` cannot be used: {e}", path.display());
        let hint = match context.machine.weights {
            Some(_) => e.hint().unwrap_or("point `HONE_WEIGHTS` at another model of the llama family"),
            None => "delete the file and run `hone setup`",
        };
        CommandError::new(Kind::Environment, message).hint(hint)
    })?;
    Ok(hone::runtime::same_weights(&context.machine, &context.workspace.weights())?)
}

pub fn config(context: &Context) -> Result<ServerConfig> {
    let program = std::env::current_exe().map_err(|e| CommandError::new(Kind::Environment, e.to_string()))?;
    let settings = context.settings_again()?;
    let models = bases::all(context, &settings)?;
    let catalog = context.machine.catalog();
    // A model that is added while the server runs is served at once.
    let more_models = move || -> Vec<BaseModel> {
        catalog.list().unwrap_or_default().into_iter().map(bases::served).collect()
    };
    let trainer = vec![program.into_os_string(), "train-child".into()];
    let current = Current::new(context.workspace.registry());
    Ok(ServerConfig {
        route: Arc::new(move || current.office()),
        more_models: Arc::new(more_models),
        hidden: rows::key_variables(settings.models.values()),
        ..ServerConfig::new(context.workspace.server(), models, trainer)
    })
}
