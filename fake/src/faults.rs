//! What can go wrong with a call, and who decides when it does.

use std::{fmt, str::FromStr, sync::Arc};

use sha2::{Digest, Sha256};

/// One way to fail a chat call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// None at all.
    None,
    /// 429 with `retry-after` in whole seconds.
    LimitSeconds,
    /// 429 with `retry-after-ms`.
    LimitMillis,
    /// 429 with `retry-after` as a date that has just passed.
    LimitDate,
    /// 429 that asks for 121 s: longer than any client of OpenAI's waits.
    LimitLong,
    /// 429 with `x-should-retry: false`.
    LimitFinal,
    /// 429 without a word about when, but with `x-ratelimit-*` headers that say it.
    LimitHeaders,
    /// 429 `insufficient_quota`.
    Quota,
    Status(u16),
    /// 401 whose message repeats the key that came.
    BadKey,
    /// 403 for this region.
    Forbidden,
    /// 404 `model_not_found`.
    NoModel,
    /// The connection is reset as soon as the head is read; nothing is billed.
    ResetBefore,
    /// The connection is reset when the answer is ready.
    ResetReady,
    /// The connection is reset in the middle of the body.
    ResetMid,
    /// No byte ever comes.
    Stall,
    /// Half of the body comes, then nothing.
    StallMid,
    /// The body is shorter than its `Content-Length`.
    Short,
    /// JSON that breaks off, in a whole body.
    CutJson,
    /// A sign-in page with status 200.
    Html,
    /// The same, with the key that came across the 200th byte.
    HtmlKey,
    /// 200 without a byte.
    Empty,
    /// `{}`
    EmptyObject,
    /// `choices: []`
    NoChoices,
    /// `content: null` without a refusal.
    NullContent,
    /// The model declines.
    Refusal,
    /// The provider holds the answer back.
    Filtered,
    /// The limit on tokens cuts the answer.
    Length,
    /// A good answer that repeats the key that came.
    EchoKey,
    /// A stream that is reset before it ends.
    StreamReset,
    /// A stream that ends in order, but before the answer does.
    StreamCut,
    /// A stream with a line that is no JSON.
    StreamBadJson,
    /// A stream with an error in it.
    StreamError,
}

/// Every fault with its name.
const NAMES: [(&str, Fault); 38] = [
    ("none", Fault::None),
    ("limit-seconds", Fault::LimitSeconds),
    ("limit-millis", Fault::LimitMillis),
    ("limit-date", Fault::LimitDate),
    ("limit-long", Fault::LimitLong),
    ("limit-final", Fault::LimitFinal),
    ("limit-headers", Fault::LimitHeaders),
    ("quota", Fault::Quota),
    ("408", Fault::Status(408)),
    ("409", Fault::Status(409)),
    ("500", Fault::Status(500)),
    ("502", Fault::Status(502)),
    ("503", Fault::Status(503)),
    ("529", Fault::Status(529)),
    ("400", Fault::Status(400)),
    ("bad-key", Fault::BadKey),
    ("forbidden", Fault::Forbidden),
    ("no-model", Fault::NoModel),
    ("reset-before", Fault::ResetBefore),
    ("reset-ready", Fault::ResetReady),
    ("reset-mid", Fault::ResetMid),
    ("stall", Fault::Stall),
    ("stall-mid", Fault::StallMid),
    ("short", Fault::Short),
    ("cut-json", Fault::CutJson),
    ("html", Fault::Html),
    ("html-key", Fault::HtmlKey),
    ("empty", Fault::Empty),
    ("empty-object", Fault::EmptyObject),
    ("no-choices", Fault::NoChoices),
    ("null-content", Fault::NullContent),
    ("refusal", Fault::Refusal),
    ("filtered", Fault::Filtered),
    ("length", Fault::Length),
    ("echo-key", Fault::EchoKey),
    ("stream-reset", Fault::StreamReset),
    ("stream-cut", Fault::StreamCut),
    ("stream-bad-json", Fault::StreamBadJson),
];

/// Faults that another try may be spared, and that cost no test a long wait.
const PASSING: [Fault; 17] = [
    Fault::LimitMillis,
    Fault::LimitDate,
    Fault::Status(408),
    Fault::Status(409),
    Fault::Status(500),
    Fault::Status(502),
    Fault::Status(503),
    Fault::Status(529),
    Fault::ResetBefore,
    Fault::ResetReady,
    Fault::ResetMid,
    Fault::Short,
    Fault::CutJson,
    Fault::Html,
    Fault::Empty,
    Fault::NoChoices,
    Fault::NullContent,
];

impl Fault {
    /// All names that [`Fault::from_str`] knows.
    pub fn names() -> impl Iterator<Item = &'static str> {
        NAMES.iter().map(|(name, _)| *name).chain(["stream-error"])
    }

    /// Whether the provider's meter runs: it has begun to work on the answer.
    pub(crate) fn is_billed(self) -> bool {
        !matches!(
            self,
            Self::LimitSeconds
                | Self::LimitMillis
                | Self::LimitDate
                | Self::LimitLong
                | Self::LimitFinal
                | Self::LimitHeaders
                | Self::Quota
                | Self::Status(_)
                | Self::BadKey
                | Self::Forbidden
                | Self::NoModel
                | Self::ResetBefore
                | Self::Html
                | Self::HtmlKey
        )
    }
}

impl FromStr for Fault {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        if name == "stream-error" {
            return Ok(Self::StreamError);
        }
        let known = NAMES.iter().find(|(known, _)| *known == name);
        known.map(|(_, fault)| *fault).ok_or_else(|| format!("no fault is called `{name}`"))
    }
}

/// A chat call, as far as faults depend on it.
#[derive(Clone, Copy, Debug)]
pub struct Asked<'a> {
    /// SHA-256 of the request's body, in hex; `stream` does not count.
    pub sha: &'a str,
    /// How often this body came before.
    pub earlier: u32,
    pub model: &'a str,
}

/// Decides about each call.
#[derive(Clone)]
pub struct Faults(Arc<dyn Fn(Asked<'_>) -> Fault + Send + Sync>);

impl Faults {
    /// By any rule.
    pub fn by(rule: impl Fn(Asked<'_>) -> Fault + Send + Sync + 'static) -> Self {
        Self(Arc::new(rule))
    }

    /// Never one.
    pub fn none() -> Self {
        Self::by(|_| Fault::None)
    }

    /// These in turn for each body, then none.
    pub fn first(faults: impl Into<Vec<Fault>>) -> Self {
        let faults = faults.into();
        Self::by(move |asked| faults.get(asked.earlier as usize).copied().unwrap_or(Fault::None))
    }

    /// Every call fails in the same way.
    pub fn always(fault: Fault) -> Self {
        Self::by(move |_| fault)
    }

    /// A share of the calls fails in ways that pass, by the seed, the body and how often it came.
    pub fn passing(rate: f64, seed: u64) -> Self {
        Self::by(move |asked| {
            let [chance, which] = draws(&format!("{seed}/{}/{}", asked.sha, asked.earlier));
            let hit = (chance as f64) < rate * u64::MAX as f64;
            if hit { PASSING[(which % PASSING.len() as u64) as usize] } else { Fault::None }
        })
    }

    /// A model called `fault-NAME` fails in that way always, `fault-NAME-N` for the first N calls of a body; others as the
    /// rule says.
    pub(crate) fn decide(&self, asked: Asked<'_>) -> Fault {
        let Some(name) = asked.model.strip_prefix("fault-") else { return (self.0)(asked) };
        if let Ok(fault) = name.parse() {
            return fault;
        }
        let Some((name, times)) = name.rsplit_once('-') else { return Fault::None };
        match (name.parse(), times.parse::<u32>()) {
            (Ok(fault), Ok(times)) if asked.earlier < times => fault,
            _ => Fault::None,
        }
    }
}

impl Default for Faults {
    fn default() -> Self {
        Self::none()
    }
}

impl fmt::Debug for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Faults")
    }
}

/// Two numbers that depend on a text alone.
pub(crate) fn draws(text: &str) -> [u64; 2] {
    let hash = Sha256::digest(text);
    [0, 8].map(|from| hash[from..from + 8].iter().fold(0, |number, byte| (number << 8) | u64::from(*byte)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decided(model: &str, earlier: u32) -> Fault {
        Faults::none().decide(Asked { sha: "", earlier, model })
    }

    #[test]
    fn a_model_may_name_its_fault() {
        assert_eq!(decided("fault-html", 7), Fault::Html);
        assert_eq!(decided("fault-reset-mid-2", 1), Fault::ResetMid);
        assert_eq!(decided("fault-reset-mid-2", 2), Fault::None);
        assert_eq!(decided("fault-503", 0), Fault::Status(503));
        assert_eq!(decided("gpt", 0), Fault::None);
        for name in Fault::names() {
            assert!(name.parse::<Fault>().is_ok(), "{name}");
        }
    }

    #[test]
    fn a_share_of_the_calls_fails_and_always_the_same() {
        let faults = Faults::passing(0.3, 1);
        let of = |n: u32| faults.decide(Asked { sha: &n.to_string(), earlier: 0, model: "m" });
        let hit = (0..1000).filter(|n| of(*n) != Fault::None).count();
        assert!((250..350).contains(&hit), "{hit}");
        assert!((0..1000).all(|n| of(n) == of(n)));
    }
}
