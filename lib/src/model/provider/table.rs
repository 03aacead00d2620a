//! The providers that are known by name. Addresses and variables are those of the providers' own documents and SDKs.

use super::{Auth, Batches, Dialect, Limit, Provider, Tuning};

/// Whatever speaks OpenAI's protocol; what all other rows start from.
pub(super) const COMPATIBLE: Provider = Provider {
    name: "openai-compatible",
    base_url: None,
    key_env: None,
    auth: Auth::Bearer,
    dialect: Dialect::Chat,
    limit: Limit::MaxTokens,
    seed: true,
    temperature: true,
    schema: false,
    usage_in_stream: true,
    idempotent: false,
    batch: None,
    batch_percent: 50,
    tuning: Some(Tuning::OpenAi),
    most_in_flight: 256,
};

/// A hosted provider: it has an address and wants a key, and trains nothing for others.
const fn hosted(name: &'static str, base_url: &'static str, key_env: &'static str) -> Provider {
    Provider { name, base_url: Some(base_url), key_env: Some(key_env), tuning: None, ..COMPATIBLE }
}

/// A server on this machine: no key, no training, and no use for many calls at once.
const fn own(name: &'static str, base_url: &'static str) -> Provider {
    Provider { name, base_url: Some(base_url), tuning: None, most_in_flight: 32, ..COMPATIBLE }
}

/// Every provider.
pub const TABLE: &[Provider] = &[
    Provider {
        limit: Limit::MaxCompletionTokens,
        schema: true,
        batch: Some(Batches::OpenAi),
        tuning: Some(Tuning::OpenAi),
        ..hosted("openai", "https://api.openai.com/v1", "OPENAI_API_KEY")
    },
    Provider {
        name: "azure",
        key_env: Some("AZURE_OPENAI_API_KEY"),
        auth: Auth::Header("api-key"),
        dialect: Dialect::Azure,
        limit: Limit::MaxCompletionTokens,
        schema: true,
        batch: Some(Batches::OpenAi),
        ..COMPATIBLE
    },
    // Later versions of the API refuse sampling knobs, and no version has a seed.
    Provider {
        auth: Auth::Header("x-api-key"),
        dialect: Dialect::Messages,
        seed: false,
        temperature: false,
        schema: true,
        batch: Some(Batches::Messages),
        ..hosted("anthropic", "https://api.anthropic.com/v1", "ANTHROPIC_API_KEY")
    },
    Provider {
        tuning: Some(Tuning::Together),
        ..hosted("together", "https://api.together.ai/v1", "TOGETHER_API_KEY")
    },
    Provider {
        tuning: Some(Tuning::Fireworks),
        ..hosted("fireworks", "https://api.fireworks.ai/inference/v1", "FIREWORKS_API_KEY")
    },
    hosted("openrouter", "https://openrouter.ai/api/v1", "OPENROUTER_API_KEY"),
    hosted("groq", "https://api.groq.com/openai/v1", "GROQ_API_KEY"),
    // It calls the seed `random_seed` and refuses requests with names that it does not know.
    Provider {
        seed: false,
        usage_in_stream: false,
        ..hosted("mistral", "https://api.mistral.ai/v1", "MISTRAL_API_KEY")
    },
    Provider { seed: false, ..hosted("deepseek", "https://api.deepseek.com/v1", "DEEPSEEK_API_KEY") },
    // Of OpenAI's protocol, it refuses what it does not have.
    Provider {
        seed: false,
        ..hosted("gemini", "https://generativelanguage.googleapis.com/v1beta/openai", "GEMINI_API_KEY")
    },
    own("ollama", "http://127.0.0.1:11434/v1"),
    own("vllm", "http://127.0.0.1:8000/v1"),
    own("lm-studio", "http://127.0.0.1:1234/v1"),
    own("llama.cpp", "http://127.0.0.1:8080/v1"),
    HONE,
    COMPATIBLE,
];

/// Hone's own server.
pub(in crate::model) const HONE: Provider = Provider {
    limit: Limit::MaxCompletionTokens,
    schema: true,
    idempotent: true,
    batch: Some(Batches::OpenAi),
    tuning: Some(Tuning::OpenAi),
    ..own("hone", "http://127.0.0.1:8642/v1")
};
