//! What calls cost: amounts that lose no fraction, prices as dated data, and the most that a call can cost.
//!
//! An unknown price stays unknown. It is never guessed, and no budget can be kept with it.

use std::{collections::BTreeMap, fmt, iter::Sum, ops::Add, path::Path};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{
    config::{self, ModelRow},
    error::{Explain, Kind},
    store::{self, StoreError},
};

/// US dollars, in billionths: a token of the cheapest models costs fifty of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Usd(i64);

const NANOS: f64 = 1e9;

impl Usd {
    pub const ZERO: Self = Self(0);

    pub fn from_nanos(nanos: i64) -> Self {
        Self(nanos)
    }

    pub fn nanos(self) -> i64 {
        self.0
    }

    /// A cap as people write it; `inf` is none.
    pub fn cap(dollars: f64) -> Option<Self> {
        dollars.is_finite().then(|| Self::of(dollars))
    }

    pub fn dollars(self) -> f64 {
        self.0 as f64 / NANOS
    }

    pub fn times(self, n: u32) -> Self {
        Self(self.0.saturating_mul(i64::from(n)))
    }

    /// An amount that somebody else has worked out.
    pub fn of(dollars: f64) -> Self {
        Self((dollars * NANOS).round() as i64)
    }
}

impl Add for Usd {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }
}

impl Sum for Usd {
    fn sum<I: Iterator<Item = Self>>(amounts: I) -> Self {
        amounts.fold(Self::ZERO, Add::add)
    }
}

/// As people read it: cents, hundredths of a cent below the first, and below those that there is something at all. Nothing
/// but this puts money into words.
impl fmt::Display for Usd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = match self.0 {
            0 => "$0.00".into(),
            1..100_000 => "<$0.0001".into(),
            // What would round to a whole cent is one.
            100_000..9_950_000 => format!("${:.4}", self.dollars()),
            _ => format!("${:.2}", self.dollars()),
        };
        f.pad(&text)
    }
}

/// An amount of which the price may not be known, in words.
pub fn said(usd: Option<f64>) -> String {
    usd.map_or_else(|| "unknown".into(), |usd| Usd::of(usd).to_string())
}

/// What tokens of one model cost: billionths of a dollar per million tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rates {
    input: u64,
    output: u64,
    /// How much of that is charged.
    percent: u32,
}

impl Rates {
    /// From US dollars per million tokens.
    pub fn per_million(input: f64, output: f64) -> Self {
        let nanos = |dollars: f64| (dollars * NANOS).round() as u64;
        Self { input: nanos(input), output: nanos(output), percent: 100 }
    }

    /// A share of these prices.
    pub fn at(self, percent: u32) -> Self {
        Self { percent, ..self }
    }

    /// Rounded up.
    pub fn cost(self, input: u64, output: u64) -> Usd {
        let sum = u128::from(input) * u128::from(self.input) + u128::from(output) * u128::from(self.output);
        let charged = sum.saturating_mul(self.percent.into());
        Usd(i64::try_from(charged.div_ceil(100_000_000)).unwrap_or(i64::MAX))
    }
}

/// What calls of a model cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Tariff {
    /// It runs on this machine.
    Free,
    Known(Rates),
    Unknown,
}

impl Tariff {
    /// A share of it.
    pub fn at(self, percent: u32) -> Self {
        match self {
            Self::Known(rates) => Self::Known(rates.at(percent)),
            other => other,
        }
    }

    pub fn cost(self, input: u64, output: u64) -> Option<Usd> {
        match self {
            Self::Free => Some(Usd::ZERO),
            Self::Known(rates) => Some(rates.cost(input, output)),
            Self::Unknown => None,
        }
    }
}

/// What training a model costs.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Training {
    /// It runs on this machine.
    Free,
    /// US dollars per million trained tokens.
    Known(f64),
    Unknown,
}

impl Training {
    /// Rounded up.
    pub fn cost(self, tokens: u64) -> Option<Usd> {
        match self {
            Self::Free => Some(Usd::ZERO),
            Self::Known(price) => Some(Rates::per_million(price, 0.0).cost(tokens, 0)),
            Self::Unknown => None,
        }
    }
}

/// Whose price a call has: a row of the settings.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Payer {
    /// The row's name.
    pub row: String,
    provider: String,
    model: String,
    price: Option<config::Price>,
}

impl Payer {
    pub fn new(name: &str, row: &ModelRow) -> Self {
        let ModelRow { provider, model, price, .. } = row.clone();
        Self { row: name.into(), provider, model, price }
    }

    /// The embedded engine, or an endpoint without a row.
    pub fn named(name: &str) -> Self {
        Self { row: name.into(), ..Self::default() }
    }
}

#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
struct Priced {
    provider: String,
    model: String,
    input: Option<f64>,
    output: Option<f64>,
    training: Option<f64>,
    /// The day on which it was true: an old price is still the best guess there is.
    as_of: String,
}

/// A row of the tables, for whoever shows it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Listed {
    pub provider: String,
    /// A name, or the beginning of one that ends in `*`.
    pub model: String,
    /// US dollars per million tokens, like the other two.
    pub input: Option<f64>,
    pub output: Option<f64>,
    pub training: Option<f64>,
    pub as_of: Option<String>,
}

impl Priced {
    fn listed(&self) -> Listed {
        let Self { provider, model, input, output, training, as_of } = self.clone();
        Listed { provider, model, input, output, training, as_of: Some(as_of) }
    }

    fn fits(&self, provider: &str, model: &str) -> bool {
        self.provider == provider
            && match self.model.strip_suffix('*') {
                Some(beginning) => model.starts_with(beginning),
                None => model == self.model,
            }
    }
}

/// Why a table of prices cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum PriceError {
    #[error("`{file}` is not a table of prices: {why}")]
    Syntax { file: String, why: String },
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Explain for PriceError {
    fn kind(&self) -> Kind {
        match self {
            Self::Syntax { .. } => Kind::Input,
            Self::Store(e) => e.kind(),
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::Syntax { .. } => Some("docs/calls.md shows what `prices.toml` holds".into()),
            Self::Store(e) => e.hint(),
        }
    }
}

/// Prices by provider and model: the user's own before the shipped ones.
#[derive(Clone, Debug, PartialEq)]
pub struct Prices {
    own: Vec<Priced>,
    shipped: Vec<Priced>,
}

const SHIPPED: &str = include_str!("prices.toml");

impl Default for Prices {
    fn default() -> Self {
        // A test holds the shipped table to its form.
        Self { own: Vec::new(), shipped: parse("prices.toml", SHIPPED).unwrap_or_default() }
    }
}

impl Prices {
    /// The shipped ones, after those of a file where it is there.
    pub fn load(file: &Path) -> Result<Self, PriceError> {
        let own = if file.exists() {
            parse(&file.display().to_string(), &store::read_text(file)?)?
        } else {
            Vec::new()
        };
        Ok(Self { own, ..Self::default() })
    }

    /// What calls of a model through a row cost. The row's price is that of its own model; it stands for others, tuned ones
    /// for example, where no table knows them.
    pub fn tariff(&self, payer: &Payer, model: &str, on_this_machine: bool) -> Tariff {
        match self.known(payer, model) {
            Some((rates, _)) => Tariff::Known(rates),
            None if on_this_machine => Tariff::Free,
            None => Tariff::Unknown,
        }
    }

    /// Every model of which it is known what training costs; of two rows for one the user's own.
    pub fn trained(&self) -> Vec<Listed> {
        let mut found: Vec<Listed> = Vec::new();
        for priced in self.own.iter().chain(&self.shipped).filter(|priced| priced.training.is_some()) {
            if !found.iter().any(|row| row.provider == priced.provider && row.model == priced.model) {
                found.push(priced.listed());
            }
        }
        found
    }

    /// The row that says what calls of a model cost.
    pub fn listed(&self, provider: &str, model: &str) -> Option<Listed> {
        let row =
            |priced: &Priced| (priced.input.is_some() || priced.output.is_some()).then(|| priced.listed());
        self.find(provider, model, row)
    }

    /// The day, as it was written down, on which what a model costs was true; none where no price is known.
    pub fn as_of(&self, payer: &Payer, model: &str) -> Option<String> {
        self.known(payer, model).map(|(_, day)| day)
    }

    fn known(&self, payer: &Payer, model: &str) -> Option<(Rates, String)> {
        let known =
            |priced: &Priced| Some((Rates::per_million(priced.input?, priced.output?), priced.as_of.clone()));
        let row = payer
            .price
            .as_ref()
            .map(|price| (Rates::per_million(price.input, price.output), price.as_of.clone()));
        let of_row = row.clone().filter(|_| payer.model == model);
        of_row.or_else(|| self.find(&payer.provider, model, known)).or(row)
    }

    /// What the user's own table says, else the shipped one.
    fn find<T>(&self, provider: &str, model: &str, of: impl Fn(&Priced) -> Option<T>) -> Option<T> {
        find(&self.own, provider, model, &of).or_else(|| find(&self.shipped, provider, model, &of))
    }

    /// What training a model through a row costs.
    pub fn training(&self, payer: &Payer, model: &str, on_this_machine: bool) -> Training {
        let row = payer.price.as_ref().and_then(|price| price.training);
        let trained = |priced: &Priced| priced.training;
        match row.or_else(|| self.find(&payer.provider, model, trained)) {
            Some(price) => Training::Known(price),
            None if on_this_machine => Training::Free,
            None => Training::Unknown,
        }
    }
}

fn parse(file: &str, text: &str) -> Result<Vec<Priced>, PriceError> {
    let refuse = |why: String| PriceError::Syntax { file: file.into(), why };
    let mut tables: BTreeMap<String, Vec<Priced>> =
        toml::from_str(text).map_err(|e| refuse(e.message().to_owned()))?;
    let prices = tables.remove("prices").unwrap_or_default();
    if let Some(other) = tables.keys().next() {
        return Err(refuse(format!("`[[{other}]]` is not known, `[[prices]]` is")));
    }
    let wrong = |amount: &Option<f64>| amount.is_some_and(|amount| !(0.0..=1e6).contains(&amount));
    match prices.iter().find(|p| [&p.input, &p.output, &p.training].into_iter().any(wrong)) {
        Some(priced) => Err(refuse(format!("a price of `{}` is not between 0 and 1,000,000", priced.model))),
        None => Ok(prices),
    }
}

/// What the longest name that fits says.
fn find<T>(prices: &[Priced], provider: &str, model: &str, of: impl Fn(&Priced) -> Option<T>) -> Option<T> {
    let fitting = prices.iter().filter(|priced| priced.fits(provider, model));
    let known = fitting.filter_map(|priced| Some((priced.model.len(), of(priced)?)));
    known.max_by_key(|(length, _)| *length).map(|(_, found)| found)
}

/// Tokens that chat templates put around a message, and around a conversation.
const AROUND_MESSAGE: u64 = 16;
const AROUND_ALL: u64 = 64;
/// A picture is billed by its size in pixels, not by its bytes: 48,169 tokens are the most that a price page shows, for a
/// small model of OpenAI.
const PICTURE: u64 = 50_000;

/// A bound on the tokens of a request: a token of a byte-level vocabulary is at least a byte. Counting with one vocabulary
/// would be closer, and wrong for every other.
pub fn most_input(request: &Value) -> u64 {
    let messages = request["messages"].as_array().map_or(0, Vec::len) as u64;
    AROUND_ALL + AROUND_MESSAGE * messages + bytes(request)
}

fn bytes(value: &Value) -> u64 {
    match value {
        Value::String(text) if text.starts_with("data:image/") => (text.len() as u64).min(PICTURE),
        Value::String(text) => text.len() as u64,
        Value::Array(items) => items.iter().map(bytes).sum(),
        Value::Object(map) => map.iter().map(|(key, value)| key.len() as u64 + bytes(value)).sum(),
        Value::Null | Value::Bool(_) | Value::Number(_) => 8,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn row(price: Option<(f64, f64)>) -> Payer {
        let price = price.map(|(input, output)| config::Price {
            input,
            output,
            training: None,
            as_of: "2026-01-31".into(),
        });
        let row = ModelRow { provider: "openai".into(), model: "m".into(), price, ..ModelRow::default() };
        Payer::new("mine", &row)
    }

    fn known(input: f64, output: f64) -> Tariff {
        Tariff::Known(Rates::per_million(input, output))
    }

    #[test]
    fn the_shipped_table_can_be_read() {
        let shipped = parse("prices.toml", SHIPPED).unwrap();
        assert_eq!(shipped, Prices::default().shipped);
        assert!(shipped.len() >= 10 && shipped.iter().all(|priced| priced.as_of.starts_with("20")));
    }

    #[test]
    fn a_cost_is_exact_and_rounded_up() {
        assert_eq!(Rates::per_million(3.75, 15.0).cost(1, 0).nanos(), 3_750);
        assert_eq!(Rates::per_million(3.75, 15.0).cost(1_000_000, 1_000_000).dollars(), 18.75);
        assert_eq!(Rates::per_million(0.0375, 0.0).cost(1, 0).nanos(), 38);
        assert_eq!(Usd::cap(5.0).unwrap().nanos(), 5_000_000_000);
        assert_eq!(Usd::cap(f64::INFINITY), None);
    }

    #[test]
    fn money_is_written_as_people_read_it() {
        for (nanos, words) in [
            (0, "$0.00"),
            (1, "<$0.0001"),
            (99_999, "<$0.0001"),
            (100_000, "$0.0001"),
            (4_212_345, "$0.0042"),
            (9_949_999, "$0.0099"),
            (9_950_000, "$0.01"),
            (12_340_000_000, "$12.34"),
        ] {
            assert_eq!(Usd::from_nanos(nanos).to_string(), words, "{nanos}");
        }
        assert_eq!(format!("[{:>8}]", Usd::from_nanos(20_000_000)), "[   $0.02]");
        assert_eq!((said(Some(0.25)), said(None)), ("$0.25".into(), "unknown".into()));
    }

    #[test]
    fn the_nearest_to_the_user_says_the_price() {
        let text = "[[prices]]\nprovider = \"openai\"\nmodel = \"ft:gpt-4o-2024-08-06:*\"\ninput = 1.0\noutput = 2.0\nas_of = \"2026-06-01\"";
        let prices = Prices { own: parse("prices.toml", text).unwrap(), ..Prices::default() };
        let tuned = "ft:gpt-4o-2024-08-06:org::1";
        assert_eq!(prices.tariff(&row(None), tuned, false), known(1.0, 2.0));
        assert_eq!(Prices::default().tariff(&row(None), tuned, false), known(3.75, 15.0));
        assert_eq!(Prices::default().tariff(&row(Some((9.0, 9.0))), tuned, false), known(3.75, 15.0));
        assert_eq!(prices.tariff(&row(Some((9.0, 8.0))), "m", false), known(9.0, 8.0));
        assert_eq!(prices.tariff(&row(Some((9.0, 8.0))), "other", false), known(9.0, 8.0));
        assert_eq!(prices.tariff(&row(None), "m", false), Tariff::Unknown);
        assert_eq!(prices.tariff(&row(None), "m", true), Tariff::Free);
        assert_eq!(prices.tariff(&row(Some((9.0, 8.0))), "m", true), known(9.0, 8.0));
        let day = |prices: &Prices, price, model: &str| prices.as_of(&row(price), model);
        assert_eq!(day(&prices, None, tuned).as_deref(), Some("2026-06-01"));
        assert_eq!(day(&prices, Some((9.0, 8.0)), "m").as_deref(), Some("2026-01-31"));
        assert_eq!(day(&prices, None, "m"), None);
        assert_eq!(prices.training(&row(None), "gpt-4o-2024-08-06", false), Training::Known(25.0));
        assert_eq!(prices.training(&row(None), "m", false), Training::Unknown);
        assert_eq!(prices.training(&row(None), "m", true), Training::Free);
        assert_eq!(Training::Known(25.0).cost(40_000), Some(Usd::of(1.0)));
    }

    #[test]
    fn a_table_with_a_fault_is_refused() {
        for (text, want) in [
            ("[[price]]\nprovider = \"a\"\nmodel = \"b\"\nas_of = \"x\"", "[[price]]"),
            ("[[prices]]\nmodel = \"b\"\nas_of = \"x\"", "provider"),
            ("[[prices]]\nprovider = \"a\"\nmodel = \"b\"\nas_of = \"x\"\ninput = -1.0", "`b`"),
            ("prices", ""),
        ] {
            let error = parse("prices.toml", text).unwrap_err();
            assert!(error.to_string().contains(want), "{error}");
            assert_eq!((error.kind(), error.hint().is_some()), (Kind::Input, true));
        }
    }

    #[test]
    fn a_picture_counts_by_what_can_be_billed_for_it() {
        let picture = format!("data:image/webp;base64,{}", "A".repeat(300_000));
        let request = json!({"messages": [{"role": "user", "content": [{"image_url": {"url": picture}}]}]});
        assert!((PICTURE..PICTURE + 200).contains(&most_input(&request)), "{}", most_input(&request));
    }

    proptest! {
        #[test]
        fn no_text_has_more_tokens_than_are_held(texts in prop::collection::vec("\\PC{0,60}", 1..4)) {
            let counter = tiktoken_rs::o200k_base_singleton();
            let messages: Vec<Value> = texts.iter().map(|t| json!({"role": "user", "content": t})).collect();
            let billed: usize = texts.iter().map(|t| counter.encode_with_special_tokens(t).len() + 4).sum();
            let held = most_input(&json!({ "messages": messages }));
            prop_assert!(held >= billed as u64 + 3, "{held} held, {billed} billed");
        }
    }
}
