//! From a row of the settings to a client: the provider it names, its address, key and headers.

use std::time::Duration;

use hone::{
    config::{self, ModelRow},
    error::Kind,
    model::{
        client::{Client, Endpoint, Header, Outage, Secret},
        provider::{self, Access, Provider},
    },
};

use crate::{
    context::Context,
    error::{CommandError, Result},
};

/// In a header's value: the rest names a variable.
const FROM_ENVIRONMENT: &str = "env:";

/// The provider that a row names.
pub fn provider_of(name: &str, row: &ModelRow) -> Result<&'static Provider> {
    provider::provider(&row.provider).ok_or_else(|| {
        let known = provider::TABLE.iter().map(|provider| provider.name).chain(config::OWN_AGENTS);
        let near = config::nearest(&row.provider, known);
        let near = near.map(|near| format!("did you mean `{near}`? ")).unwrap_or_default();
        let message = format!("`models.{name}` names a provider that is not known: `{}`", row.provider);
        CommandError::new(Kind::Input, message).hint(format!(
            "{near}docs/providers.md lists them; anything that speaks OpenAI's protocol is `openai-compatible`"
        ))
    })
}

/// A row's client, which nothing is sent with yet.
pub fn client(name: &str, row: &ModelRow, context: &Context) -> Result<Client> {
    let client = Client::new(endpoint(name, row, context)?)?;
    Ok(client.cancelled_by(context.cancel.clone()).telling(context.events.clone()))
}

/// Where a row's provider is and how it is spoken to.
pub fn endpoint(name: &str, row: &ModelRow, context: &Context) -> Result<Endpoint> {
    let provider = provider_of(name, row)?;
    let Some(base_url) = row.base_url.as_deref().or(provider.base_url) else {
        let message = format!("`models.{name}` does not say where it is");
        return Err(
            CommandError::new(Kind::Input, message).hint("add `base_url = \"http://...\"` to the row")
        );
    };
    let access = Access {
        api_version: row.api_version.clone(),
        deployment: row.deployment.clone(),
        anthropic_version: row.anthropic_version.clone(),
        sampling: row.sampling,
        stream: row.stream,
        ..Access::to(provider)
    };
    let key = match key_variable(row) {
        Some(variable) => Some(Secret::new(secret(name, &variable, context)?)),
        None => None,
    };
    let usual = Endpoint::new(name, base_url).with_access(access).with_key(key);
    let timeout = row.timeout_s.map_or(usual.timeout, Duration::from_secs);
    Ok(Endpoint {
        timeout,
        total: if row.timeout_s.is_some() { timeout } else { usual.total },
        most_in_flight: row.concurrency,
        outage: row
            .patience_s
            .map_or(usual.outage, |s| Outage { patience: Duration::from_secs(s), ..usual.outage }),
        headers: headers(name, row, context)?,
        ..usual
    })
}

/// Whether a row's address is this machine's own.
pub fn is_on_this_machine(row: &ModelRow) -> bool {
    let home = || provider::provider(&row.provider)?.base_url;
    let address = row.base_url.as_deref().or_else(home);
    address.is_some_and(|url| Endpoint::new("", url).is_local())
}

/// The variable that holds a row's key. A provider's usual one is meant for the provider's own address: a row that points
/// elsewhere names its variable, or the key would go to whoever is there.
pub fn key_variable(row: &ModelRow) -> Option<String> {
    let usual = || {
        let provider = provider::provider(&row.provider)?;
        let is_home = match (&row.base_url, provider.base_url) {
            (Some(base_url), Some(home)) => same_host(base_url, home),
            // Azure's users all have addresses of their own.
            _ => true,
        };
        provider.key_env.filter(|_| is_home).map(str::to_owned)
    };
    row.api_key_env.clone().or_else(usual)
}

/// Every variable that holds a key: of the table and of the rows. What runs others' code is not handed them.
pub fn key_variables<'a>(rows: impl Iterator<Item = &'a ModelRow>) -> Vec<String> {
    let usual = provider::TABLE.iter().filter_map(|provider| provider.key_env).map(str::to_owned);
    let own = rows.flat_map(|row| {
        let headers = row.headers.values().filter_map(|value| value.strip_prefix(FROM_ENVIRONMENT));
        row.api_key_env.iter().map(String::as_str).chain(headers).map(str::to_owned)
    });
    usual.chain(own).collect()
}

/// A row as it may be shown: without the password of its address and the values of its headers.
pub fn without_secrets(row: &ModelRow) -> ModelRow {
    let address = |url: &String| {
        let bare = Client::new(Endpoint::new("", url)).map(|client| client.address());
        bare.map_or_else(|_| "[unusable]".to_owned(), |address| address.trim_end_matches('/').to_owned())
    };
    let value =
        |text: &String| if text.starts_with(FROM_ENVIRONMENT) { text.clone() } else { "[key]".to_owned() };
    ModelRow {
        base_url: row.base_url.as_ref().map(address),
        headers: row.headers.iter().map(|(name, text)| (name.clone(), value(text))).collect(),
        ..row.clone()
    }
}

fn same_host(one: &str, other: &str) -> bool {
    let host = |address: &str| {
        let rest = address.split_once("://")?.1;
        let authority = rest.split(['/', '?', '#']).next()?;
        Some(authority.rsplit('@').next()?.to_ascii_lowercase())
    };
    host(one).is_some() && host(one) == host(other)
}

fn headers(name: &str, row: &ModelRow, context: &Context) -> Result<Vec<Header>> {
    let header = |(header, text): (&String, &String)| {
        let (value, is_key) = match text.strip_prefix(FROM_ENVIRONMENT) {
            Some(variable) => (secret(name, variable, context)?, true),
            None => (text.clone(), false),
        };
        Ok(Header { name: header.clone(), value: Secret::new(value), is_key })
    };
    row.headers.iter().map(header).collect()
}

fn secret(name: &str, variable: &str, context: &Context) -> Result<String> {
    context.secret(variable).ok_or_else(|| {
        let message = format!("`models.{name}` has no key: `{variable}` is not set");
        CommandError::new(Kind::Provider, message).hint(format!(
            "set `{variable}` in the environment or in `.env`; see docs/troubleshooting/api-key-not-found.md"
        ))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(provider: &str, base_url: Option<&str>) -> ModelRow {
        ModelRow { provider: provider.into(), base_url: base_url.map(Into::into), ..ModelRow::default() }
    }

    #[test]
    fn a_usual_key_goes_to_its_provider_alone() {
        let check = |provider, base_url, expected: Option<&str>| {
            assert_eq!(
                key_variable(&row(provider, base_url)).as_deref(),
                expected,
                "{provider} {base_url:?}"
            );
        };
        check("openai", None, Some("OPENAI_API_KEY"));
        check("openai", Some("https://API.openai.com/v1/"), Some("OPENAI_API_KEY"));
        check("openai", Some("https://api.openai.com.example/v1"), None);
        check("openai", Some("https://api.openai.com@evil.example/v1"), None);
        check("openai", Some("http://127.0.0.1:9/v1"), None);
        check("azure", Some("https://r.openai.azure.com"), Some("AZURE_OPENAI_API_KEY"));
        check("ollama", None, None);
        let named =
            ModelRow { api_key_env: Some("MINE".into()), ..row("openai", Some("http://127.0.0.1:9/v1")) };
        assert_eq!(key_variable(&named).as_deref(), Some("MINE"));
    }

    #[test]
    fn an_unknown_provider_is_the_users_error_with_the_nearest() {
        let error = provider_of("x", &row("antropic", None)).unwrap_err();
        assert_eq!(error.kind, Kind::Input);
        assert!(error.hints[0].contains("did you mean `anthropic`?"), "{error:?}");
    }

    #[test]
    fn all_variables_of_keys_are_known() {
        let mine = ModelRow {
            api_key_env: Some("MINE".into()),
            headers: [("x".to_owned(), "env:OTHER".to_owned()), ("y".to_owned(), "plain".to_owned())].into(),
            ..row("openai", None)
        };
        let all = key_variables([&mine].into_iter());
        for name in ["OPENAI_API_KEY", "TOGETHER_API_KEY", "MINE", "OTHER"] {
            assert!(all.iter().any(|known| known == name), "{name}");
        }
        assert!(!all.iter().any(|known| known == "plain"));
    }
}
