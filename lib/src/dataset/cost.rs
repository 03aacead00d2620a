//! What training on a file costs, before anything is spent.

use serde::{Deserialize, Serialize};

use super::{
    tokens::Counts,
    validate::{Report, TokenCounts},
};
use crate::{
    model::{
        price::{Listed, Prices, said},
        provider::{Tuning, provider},
    },
    text::thousands,
};

/// What training costs at one provider.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TrainingPrice {
    pub provider: String,
    pub model: String,
    /// Passes over the data: those that were asked for, or what this provider's `auto` is.
    pub epochs: u32,
    /// US dollars for all of them; null when the price is not known.
    pub usd: Option<f64>,
    /// US dollars per million tokens trained.
    pub per_million: Option<f64>,
    /// The day on which the price was read; empty for a price of the settings.
    pub as_of: Option<String>,
}

/// What answers cost before and after, in US dollars per million tokens; null where it is not known.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct InferencePrice {
    pub provider: String,
    pub model: String,
    pub input: Option<f64>,
    pub output: Option<f64>,
    pub tuned_input: Option<f64>,
    pub tuned_output: Option<f64>,
    pub as_of: Option<String>,
}

/// What training takes on the embedded engine.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct LocalCost {
    pub model: String,
    /// Tokens of all epochs by the local tokeniser.
    pub billable_tokens: Option<u64>,
    /// Null while no speed is known.
    pub seconds: Option<f64>,
    #[serde(flatten)]
    pub speed: Option<Speed>,
}

/// How fast the embedded engine trains here.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Speed {
    pub tokens_per_second: f64,
    pub measured: Measured,
}

/// When a speed was measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Measured {
    /// In the last job that this workspace has trained.
    LastJob,
    /// Just now.
    Now,
}

/// What training on a file costs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Cost {
    pub file: String,
    pub examples: u64,
    /// Those that were asked for, or what OpenAI's rule makes of `auto`; the local engine follows it.
    pub epochs: u32,
    /// Of one epoch.
    pub tokens: TokenCounts,
    /// What OpenAI bills: each example no longer than training reads it, times the epochs.
    pub billable_tokens: u64,
    pub prices: Vec<TrainingPrice>,
    pub inference: Vec<InferencePrice>,
    pub local: LocalCost,
}

/// Of the machine and of the settings, beside what is in the file.
#[derive(Clone, Debug, Default)]
pub struct Around {
    pub file: String,
    /// As each trainer does when none are given.
    pub epochs: Option<u32>,
    /// Only this model's prices: its provider and its name.
    pub only: Option<(Option<String>, String)>,
    pub local_model: String,
    pub speed: Option<Speed>,
}

/// The cost of what [`super::validate`] has counted.
pub fn cost(report: &Report, prices: &Prices, around: Around) -> Cost {
    let examples = usize::try_from(report.examples).unwrap_or(usize::MAX);
    let passes = |shape: Tuning| around.epochs.unwrap_or_else(|| shape.auto_epochs(examples));
    let epochs = passes(Tuning::OpenAi);
    let Counts { o200k, local } = report.read;
    let billable_tokens = o200k * u64::from(epochs);
    let trainable = trainable(prices, around.only.as_ref());
    let local_tokens = report.token_counts.local.map(|_| local * u64::from(epochs));
    let took = |(tokens, speed): (u64, &Speed)| tokens as f64 / speed.tokens_per_second;
    let seconds = local_tokens.zip(around.speed.as_ref()).map(took);
    Cost {
        file: around.file,
        examples: report.examples,
        epochs,
        tokens: report.token_counts.clone(),
        billable_tokens,
        prices: trainable.iter().map(|listed| training(listed, o200k, passes(shape_of(listed)))).collect(),
        inference: trainable.iter().map(|listed| inference(listed, prices)).collect(),
        local: LocalCost {
            model: around.local_model,
            billable_tokens: local_tokens,
            seconds,
            speed: around.speed,
        },
    }
}

/// Models whose training has a price, or the one that is asked for, with a price or without.
fn trainable(prices: &Prices, only: Option<&(Option<String>, String)>) -> Vec<Listed> {
    let mut all = prices.trained();
    let Some((provider, model)) = only else { return all };
    all.retain(|listed| {
        provider.as_ref().is_none_or(|provider| *provider == listed.provider)
            && listed.model.strip_prefix(model.as_str()).is_some_and(is_day)
    });
    if all.is_empty() {
        let provider = provider.clone().unwrap_or_else(|| "unknown".into());
        all.push(Listed { provider, model: model.clone(), ..Listed::default() });
    }
    all
}

/// What may follow a model's name: nothing, or the day of its version.
fn is_day(rest: &str) -> bool {
    rest.is_empty()
        || rest.strip_prefix("-").is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
}

/// Whose rules hold; a provider that is not known speaks OpenAI's protocol.
fn shape_of(listed: &Listed) -> Tuning {
    provider(&listed.provider).and_then(|provider| provider.tuning).unwrap_or(Tuning::OpenAi)
}

fn training(listed: &Listed, tokens: u64, epochs: u32) -> TrainingPrice {
    TrainingPrice {
        provider: listed.provider.clone(),
        model: listed.model.clone(),
        epochs,
        usd: listed.training.map(|price| (tokens * u64::from(epochs)) as f64 * price / 1e6),
        per_million: listed.training,
        as_of: listed.as_of.clone(),
    }
}

fn inference(listed: &Listed, prices: &Prices) -> InferencePrice {
    let tuned = prices.listed(&listed.provider, &format!("ft:{}:", listed.model));
    let of = |price: fn(&Listed) -> Option<f64>| tuned.as_ref().and_then(price);
    InferencePrice {
        provider: listed.provider.clone(),
        model: listed.model.clone(),
        input: listed.input,
        output: listed.output,
        tuned_input: of(|tuned| tuned.input),
        tuned_output: of(|tuned| tuned.output),
        as_of: listed.as_of.clone(),
    }
}

impl TrainingPrice {
    fn name(&self) -> String {
        format!("{} {}", self.provider, self.model)
    }
}

impl Cost {
    /// For people.
    pub fn text(&self) -> String {
        let mut lines = vec![
            format!(
                "`{}`: {} examples, {} tokens by o200k_base",
                self.file,
                thousands(self.examples),
                thousands(self.tokens.o200k_base)
            ),
            format!("{} epochs, {} tokens billed", self.epochs, thousands(self.billable_tokens)),
            String::new(),
        ];
        let width =
            self.prices.iter().map(|price| price.name().len()).max().unwrap_or(0).max("training".len());
        lines.push(format!(
            "{:<width$} {:>12}   answers per million tokens: base -> tuned",
            "training", "in all"
        ));
        let rows = self.prices.iter().zip(&self.inference);
        lines.extend(rows.map(|(price, inference)| self.line(price, inference, width)));
        lines.push(String::new());
        lines.push(self.local_text());
        lines.join("\n")
    }

    fn line(&self, price: &TrainingPrice, inference: &InferencePrice, width: usize) -> String {
        let InferencePrice { input, output, tuned_input, tuned_output, .. } = inference;
        let pair =
            |input: &Option<f64>, output: &Option<f64>| format!("{} in, {} out", said(*input), said(*output));
        let as_of = price.as_of.as_ref().map(|day| format!(" ({day})")).unwrap_or_default();
        let own_epochs = match price.epochs {
            epochs if epochs == self.epochs => String::new(),
            1 => "; 1 epoch, which is its `auto`".to_owned(),
            epochs => format!("; {epochs} epochs, which is its `auto`"),
        };
        format!(
            "{:<width$} {:>12}   {} -> {}{as_of}{own_epochs}",
            price.name(),
            said(price.usd),
            pair(input, output),
            pair(tuned_input, tuned_output)
        )
    }

    fn local_text(&self) -> String {
        let LocalCost { model, billable_tokens, seconds, speed } = &self.local;
        let free = format!("`{model}` on this machine costs nothing");
        match (billable_tokens, seconds, speed) {
            (None, ..) => format!("{free}; `hone setup` fetches it, and its tokens are counted then"),
            (Some(tokens), Some(seconds), Some(speed)) => format!(
                "{free}: {} tokens of its own, about {} at the {:.0} tokens a second {}",
                thousands(*tokens),
                duration(*seconds),
                speed.tokens_per_second,
                match speed.measured {
                    Measured::LastJob => "of the last job",
                    Measured::Now => "that were measured now",
                }
            ),
            (Some(tokens), ..) => format!(
                "{free}: {} tokens of its own; how long it takes is known after the first job, or with `--measure`",
                thousands(*tokens)
            ),
        }
    }
}

fn duration(seconds: f64) -> String {
    match seconds.ceil() as u64 {
        seconds @ 0..120 => format!("{seconds} s"),
        seconds @ 120..7200 => format!("{} min", seconds.div_ceil(60)),
        seconds => format!("{:.1} h", seconds as f64 / 3600.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> Report {
        let read = Counts { o200k: 1_000_000, local: 1_200_000 };
        let token_counts = TokenCounts { o200k_base: 1_100_000, local: Some(1_250_000) };
        Report { examples: 1_000, read, token_counts, ..Report::default() }
    }

    #[test]
    fn each_provider_has_its_price_and_its_day() {
        let speed = Speed { tokens_per_second: 1_000.0, measured: Measured::LastJob };
        let around = Around { speed: Some(speed), file: "a.jsonl".into(), ..Around::default() };
        let cost = cost(&report(), &Prices::default(), around);
        assert_eq!((cost.epochs, cost.billable_tokens), (3, 3_000_000));
        let of = |model: &str| cost.prices.iter().find(|price| price.model == model).unwrap();
        assert_eq!(of("gpt-4.1-2025-04-14").usd, Some(75.0));
        assert_eq!(of("gpt-4.1-nano-2025-04-14").usd, Some(4.5));
        assert!(
            cost.prices.iter().all(|price| price.as_of.as_deref().is_some_and(|day| day.starts_with("202")))
        );
        let answers = cost.inference.iter().find(|price| price.model == "gpt-4.1-2025-04-14").unwrap();
        assert_eq!((answers.tuned_input, answers.tuned_output), (Some(3.0), Some(12.0)));
        assert_eq!((cost.local.billable_tokens, cost.local.seconds), (Some(3_600_000), Some(3_600.0)));
        let text = cost.text();
        assert!(
            text.contains("$75.00") && text.contains("about 60 min") && text.contains("(2025-10-31)"),
            "{text}"
        );
    }

    #[test]
    fn each_trainer_has_its_own_auto() {
        let of = |epochs| {
            let around = Around { epochs, ..Around::default() };
            let cost = cost(&report(), &Prices::default(), around);
            let price = cost.prices.iter().find(|price| price.provider == "together").unwrap().clone();
            (price.epochs, price.usd, cost.text().contains("1 epoch, which is its `auto`"))
        };
        // A million tokens in one pass, or in three.
        assert_eq!(of(None), (1, Some(0.48), true));
        let (epochs, usd, said) = of(Some(3));
        assert_eq!((epochs, said), (3, false));
        assert!((usd.unwrap() - 1.44).abs() < 1e-9);
    }

    #[test]
    fn prices_stand_below_each_other_whatever_their_models_are_called() {
        let text = cost(&report(), &Prices::default(), Around::default()).text();
        let mut rows = text.lines().filter(|line| line.contains(" -> "));
        let end = rows.next().unwrap().find("in all").unwrap() + "in all".len();
        let is_below =
            |row: &str| row[..end].ends_with(|c: char| c.is_ascii_digit()) && row[end..].starts_with("   ");
        assert!(rows.all(is_below), "{text}");
    }

    #[test]
    fn what_is_not_known_is_not_guessed() {
        let only = Some((Some("openai".to_owned()), "gpt-9".to_owned()));
        let report =
            Report { token_counts: TokenCounts { local: None, ..report().token_counts }, ..report() };
        let around = Around { only, epochs: Some(1), ..Around::default() };
        let cost = cost(&report, &Prices::default(), around);
        assert_eq!((cost.prices.len(), cost.prices[0].usd, cost.local.seconds), (1, None, None));
        assert!(cost.text().contains("unknown"), "{}", cost.text());
    }

    #[test]
    fn a_model_is_found_without_its_day() {
        let only = Some((None, "gpt-4.1".to_owned()));
        let cost = cost(&report(), &Prices::default(), Around { only, ..Around::default() });
        let names: Vec<_> = cost.prices.iter().map(|price| price.model.as_str()).collect();
        assert_eq!(names, ["gpt-4.1-2025-04-14"]);
    }
}
