//! When a failed request is worth another try, and after how long. Pure: the client brings clock and chance.
//!
//! The rules are those of OpenAI's own SDK, so that servers see the behaviour they are tuned for: 408, 409, 429, 5xx and
//! broken connections are retried, `Retry-After` is obeyed up to two minutes, `x-should-retry` overrides the status.
//! On top of them: a request that no waiting can mend is not repeated, whatever its status.

use std::time::Duration;

use jiff::{Timestamp, fmt::rfc2822};
use reqwest::header::HeaderMap;

/// Codes that say "no" rather than "not now".
const PERMANENT: [&str; 3] = ["insufficient_quota", "credit_balance_exhausted", "training_not_available"];

/// How patient a client is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Retry {
    /// Tries after the first.
    pub retries: u32,
    /// Wait before the first retry; doubles each time.
    pub first_wait: Duration,
    /// Most that the doubling reaches.
    pub longest_wait: Duration,
    /// A server that asks for more than this is not waited for.
    pub longest_ask: Duration,
    /// Most time spent waiting on one request in all.
    pub longest_total: Duration,
}

impl Default for Retry {
    fn default() -> Self {
        Self {
            retries: 4,
            first_wait: Duration::from_millis(500),
            longest_wait: Duration::from_secs(8),
            longest_ask: Duration::from_secs(120),
            longest_total: Duration::from_secs(300),
        }
    }
}

/// What a failed try tells about the next.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Failure {
    /// None when no answer came at all.
    pub status: Option<u16>,
    pub code: Option<String>,
    pub should_retry: Option<bool>,
    pub retry_after: Option<Duration>,
}

/// What to do now.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Next {
    Wait(Duration),
    GiveUp,
    /// The server asked for a longer wait than anyone wants.
    TooLong(Duration),
}

impl Retry {
    /// Decides after `done` retries and `waited` in all; `jitter` is uniform in 0..1.
    pub fn next(&self, failure: &Failure, done: u32, waited: Duration, jitter: f64) -> Next {
        if !failure.is_worth_retrying() {
            return Next::GiveUp;
        }
        if let Some(ask) = failure.retry_after.filter(|ask| *ask > self.longest_ask) {
            return Next::TooLong(ask);
        }
        let wait = match failure.retry_after {
            Some(ask) if !ask.is_zero() => ask,
            _ => self.backoff(done, jitter),
        };
        let spent = done >= self.retries || waited + wait > self.longest_total;
        if spent { Next::GiveUp } else { Next::Wait(wait) }
    }

    fn backoff(&self, done: u32, jitter: f64) -> Duration {
        let doubled = self.first_wait.saturating_mul(2u32.saturating_pow(done));
        doubled.min(self.longest_wait).mul_f64(1.0 - 0.25 * jitter)
    }
}

impl Failure {
    fn is_worth_retrying(&self) -> bool {
        if self.code.as_deref().is_some_and(|code| PERMANENT.contains(&code)) {
            return false;
        }
        self.should_retry.unwrap_or(match self.status {
            None => true,
            Some(status) => matches!(status, 408 | 409 | 429) || status >= 500,
        })
    }
}

/// The wait that a server asks for: `retry-after-ms`, or `retry-after` in seconds or as a date.
pub fn retry_after(headers: &HeaderMap, now: Timestamp) -> Option<Duration> {
    let text = |name: &str| headers.get(name)?.to_str().ok();
    let seconds = |value: f64| Duration::try_from_secs_f64(value).ok();
    if let Some(wait) = text("retry-after-ms").and_then(|ms| seconds(ms.trim().parse::<f64>().ok()? / 1000.0))
    {
        return Some(wait);
    }
    let asked = text("retry-after")?.trim();
    match asked.parse::<f64>() {
        Ok(value) => seconds(value),
        Err(_) => until(asked, now),
    }
}

/// Time from `now` to an HTTP date; zero when it has passed.
fn until(date: &str, now: Timestamp) -> Option<Duration> {
    let then = rfc2822::DateTimeParser::new().parse_timestamp(date).ok()?;
    Some(Duration::try_from(then.duration_since(now)).unwrap_or_default())
}

/// Headers that count what is left of a limit, and say when it is full again: OpenAI's spelling, then Anthropic's.
const LEFT: [(&str, &str); 6] = [
    ("x-ratelimit-remaining-requests", "x-ratelimit-reset-requests"),
    ("x-ratelimit-remaining-tokens", "x-ratelimit-reset-tokens"),
    ("anthropic-ratelimit-requests-remaining", "anthropic-ratelimit-requests-reset"),
    ("anthropic-ratelimit-tokens-remaining", "anthropic-ratelimit-tokens-reset"),
    ("anthropic-ratelimit-input-tokens-remaining", "anthropic-ratelimit-input-tokens-reset"),
    ("anthropic-ratelimit-output-tokens-remaining", "anthropic-ratelimit-output-tokens-reset"),
];
/// A limit that takes longer to fill is tried again before it is full.
const LONGEST_RESET: Duration = Duration::from_secs(60);

/// The wait until a limit is full again of which nothing is left.
pub fn until_reset(headers: &HeaderMap, now: Timestamp) -> Option<Duration> {
    let text = |name: &str| headers.get(name)?.to_str().ok().map(str::trim);
    let used_up = LEFT.iter().filter(|(left, _)| text(left) == Some("0"));
    let waits = used_up.filter_map(|(_, reset)| reset_in(text(reset)?, now));
    waits.max().map(|wait| wait.min(LONGEST_RESET))
}

/// `6m0s`, `17ms`, seconds, or a time.
fn reset_in(text: &str, now: Timestamp) -> Option<Duration> {
    if let Ok(seconds) = text.parse::<f64>() {
        return Duration::try_from_secs_f64(seconds).ok();
    }
    if let Ok(then) = text.parse::<Timestamp>() {
        return Some(Duration::try_from(then.duration_since(now)).unwrap_or_default());
    }
    let (mut total, mut rest) = (0.0, text);
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let unit = rest[digits..].find(|c: char| c.is_ascii_digit()).map_or(rest.len(), |end| digits + end);
        let seconds = match &rest[digits..unit] {
            "h" => 3600.0,
            "m" => 60.0,
            "s" => 1.0,
            "ms" => 1e-3,
            "us" | "\u{b5}s" => 1e-6,
            "ns" => 1e-9,
            _ => return None,
        };
        total += rest[..digits].parse::<f64>().ok()? * seconds;
        rest = &rest[unit..];
    }
    Duration::try_from_secs_f64(total).ok()
}

/// `x-should-retry`, which overrides what the status says.
pub fn should_retry(headers: &HeaderMap) -> Option<bool> {
    match headers.get("x-should-retry")?.to_str().ok()? {
        "true" => Some(true),
        "false" => Some(false),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(value: u64) -> Duration {
        Duration::from_millis(value)
    }

    fn status(status: u16) -> Failure {
        Failure { status: Some(status), ..Failure::default() }
    }

    fn check(failure: Failure, done: u32, expected: Next) {
        assert_eq!(Retry::default().next(&failure, done, Duration::ZERO, 0.0), expected, "{failure:?}");
    }

    #[test]
    fn what_may_pass_is_tried_again() {
        for code in [408, 409, 429, 500, 503, 529] {
            check(status(code), 0, Next::Wait(ms(500)));
        }
        check(Failure::default(), 0, Next::Wait(ms(500)));
        for code in [400, 401, 403, 404, 413, 422] {
            check(status(code), 0, Next::GiveUp);
        }
    }

    #[test]
    fn waits_double_up_to_eight_seconds() {
        let retry = Retry { retries: 9, ..Retry::default() };
        let waits: Vec<_> = (0..6).map(|done| retry.next(&status(500), done, Duration::ZERO, 0.0)).collect();
        let expected = [500, 1000, 2000, 4000, 8000, 8000].map(|wait| Next::Wait(ms(wait)));
        assert_eq!(waits, expected);
        assert_eq!(retry.next(&status(500), 0, Duration::ZERO, 1.0), Next::Wait(ms(375)));
    }

    #[test]
    fn tries_and_waiting_are_bounded() {
        check(status(500), 4, Next::GiveUp);
        let waited = Duration::from_secs(299);
        let asked = Failure { retry_after: Some(Duration::from_secs(60)), ..status(429) };
        assert_eq!(Retry::default().next(&asked, 1, waited, 0.0), Next::GiveUp);
        // The doubling never overflows.
        assert_eq!(Retry::default().backoff(u32::MAX, 0.0), Duration::from_secs(8));
    }

    #[test]
    fn the_server_has_the_last_word() {
        let asked = |wait| Failure { retry_after: Some(wait), ..status(429) };
        check(asked(ms(10)), 3, Next::Wait(ms(10)));
        check(asked(Duration::ZERO), 0, Next::Wait(ms(500)));
        check(asked(Duration::from_secs(121)), 0, Next::TooLong(Duration::from_secs(121)));
        check(Failure { should_retry: Some(false), ..status(429) }, 0, Next::GiveUp);
        check(Failure { should_retry: Some(true), ..status(400) }, 0, Next::Wait(ms(500)));
    }

    #[test]
    fn no_waiting_mends_a_quota() {
        for code in PERMANENT {
            let failure = Failure { code: Some(code.into()), should_retry: Some(true), ..status(429) };
            check(failure, 0, Next::GiveUp);
        }
    }

    fn check_retry_after(name: &'static str, value: &str, expected: Option<Duration>) {
        let headers = HeaderMap::from_iter([(name.parse().unwrap(), value.parse().unwrap())]);
        let now: Timestamp = "2026-11-22T10:00:00Z".parse().unwrap();
        assert_eq!(retry_after(&headers, now), expected, "{name}: {value}");
    }

    #[test]
    fn the_forms_of_retry_after() {
        check_retry_after("retry-after", "2", Some(ms(2000)));
        check_retry_after("retry-after", " 0.5 ", Some(ms(500)));
        check_retry_after("retry-after-ms", "10", Some(ms(10)));
        check_retry_after("retry-after", "Sun, 22 Nov 2026 10:00:30 GMT", Some(Duration::from_secs(30)));
        check_retry_after("retry-after", "Sun, 22 Nov 2026 09:00:00 GMT", Some(Duration::ZERO));
        for bad in ["-1", "NaN", "inf", "1e300", "soon", ""] {
            check_retry_after("retry-after", bad, None);
        }
    }

    #[test]
    fn a_limit_that_is_used_up_says_when_it_is_full() {
        let now: Timestamp = "2026-11-22T10:00:00Z".parse().unwrap();
        let check =
            |reset: &str, expected: Option<Duration>| assert_eq!(reset_in(reset, now), expected, "{reset}");
        check("17ms", Some(ms(17)));
        check("1m2.5s", Some(ms(62_500)));
        check("6m0s", Some(ms(360_000)));
        check("1h2m", Some(ms(3_720_000)));
        check("3", Some(ms(3000)));
        check("2026-11-22T10:00:07Z", Some(ms(7000)));
        check("2026-11-22T09:00:00Z", Some(ms(0)));
        for bad in ["", "s", "4x", "-1", "soon", "1.2.3s"] {
            let read = reset_in(bad, now);
            assert!(read.is_none_or(|wait| wait.is_zero()), "{bad}: {read:?}");
        }
        let headers = |left: &'static str| {
            HeaderMap::from_iter([
                ("x-ratelimit-remaining-requests".parse().unwrap(), left.parse().unwrap()),
                ("x-ratelimit-reset-requests".parse().unwrap(), "20ms".parse().unwrap()),
                ("anthropic-ratelimit-tokens-remaining".parse().unwrap(), left.parse().unwrap()),
                (
                    "anthropic-ratelimit-tokens-reset".parse().unwrap(),
                    "2026-11-22T11:00:00Z".parse().unwrap(),
                ),
            ])
        };
        assert_eq!(until_reset(&headers("0"), now), Some(LONGEST_RESET));
        assert_eq!(until_reset(&headers("1"), now), None);
    }
}
