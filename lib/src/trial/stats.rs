//! Statistics of paired comparisons: intervals, p-values and what a trial could have detected at all.
//!
//! Everything here is a pure function; randomness comes from a seed, and the order of the input never matters. Nothing
//! returns NaN or infinity: what cannot be computed is `None`.
//!
//! Pairs come in clusters (families of briefs), because variants of one UI are not independent observations: the
//! bootstrap, the permutation test and standard errors take whole clusters (Miller, "Adding Error Bars to Evals", 2024).

use std::collections::BTreeMap;

use rand::{RngExt, SeedableRng, rngs::ChaCha8Rng};
use serde::{Deserialize, Serialize};
use statrs::distribution::{Binomial, ContinuousCDF, Discrete, DiscreteCDF, Normal, StudentsT};

/// Resamples of a bootstrap and draws of a permutation test.
pub const RESAMPLES: usize = 10_000;

/// Up to this many clusters the permutation test enumerates every sign: 2^13 is below [`RESAMPLES`].
const EXACT_CLUSTERS: usize = 13;

/// Level of two-sided intervals and tests.
const TWO_SIDED: f64 = 0.05;

const Z_POWER_80: f64 = 0.841_621_233_572_914_2;
const Z_TWO_SIDED_95: f64 = 1.959_963_984_540_054;

/// How often a one-sided bound may be wrong, and what the drawing of lots takes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Precision {
    /// Of the one-sided bounds; two-sided intervals are those of 95%.
    pub alpha: f64,
    /// Resamples of a bootstrap and draws of a permutation test.
    pub resamples: usize,
    pub seed: u64,
}

impl Precision {
    /// One-sided bounds of 95%, [`RESAMPLES`] draws.
    pub fn usual(seed: u64) -> Self {
        Self { alpha: 0.05, resamples: RESAMPLES, seed }
    }
}

/// The difference that one brief shows between two arms, and the cluster it belongs to.
#[derive(Clone, Debug, PartialEq)]
pub struct Diff {
    pub cluster: String,
    pub value: f64,
}

impl Diff {
    pub fn new(cluster: impl Into<String>, value: f64) -> Self {
        Self { cluster: cluster.into(), value }
    }
}

/// A mean paired difference with its 95% interval.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Estimate {
    /// Mean over pairs; none without pairs.
    pub mean: Option<f64>,
    /// Two-sided 95% interval; none below two clusters.
    pub low: Option<f64>,
    pub high: Option<f64>,
    /// Two-sided p-value of "no difference".
    pub p: Option<f64>,
    /// The same, adjusted by Holm for the metrics it is reported with.
    #[serde(default)]
    pub p_holm: Option<f64>,
    /// One-sided bounds, of 95% unless the trial has another share of the error budget: a gate asks whether the truth
    /// lies above `lower`, or below `upper`.
    pub lower: Option<f64>,
    pub upper: Option<f64>,
    /// One-sided p-value of "not above zero"; of scores alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub p_above: Option<f64>,
    /// Pairs and clusters behind the figures.
    pub n: usize,
    pub clusters: usize,
}

/// The mean difference of a score, with a cluster-bootstrap interval and permutation p-values.
///
/// Where the permutation test cannot tell the difference from none (mid-p above 5%), the interval holds zero: of a few
/// differences among many ties a bootstrap makes too much.
pub fn score_difference(diffs: &[Diff], precision: &Precision) -> Estimate {
    let clusters = Clusters::of(diffs);
    let flips = sign_flips(&clusters, precision);
    let bounds = bootstrap(&clusters, precision).map(|bounds| match flips {
        Some(flips) if flips.middle > TWO_SIDED => bounds.holding_zero(),
        _ => bounds,
    });
    Estimate {
        p_above: flips.map(|flips| flips.above),
        ..estimate(&clusters, bounds, flips.map(|flips| flips.two_sided))
    }
}

/// The mean difference of a pass rate (each value in -1..=1), with an interval and McNemar's mid-p over pairs.
///
/// A bootstrap of a rate that no pair changes has width zero however few the pairs. So the interval is Bonett and
/// Price's (2012) for paired proportions, one pseudo-pair added in each direction, with the standard error taken over
/// clusters. The p-value counts pairs that differ, by direction; with several samples per pair that is the sign test on
/// the pairs' rates.
pub fn rate_difference(diffs: &[Diff], alpha: f64) -> Estimate {
    let clusters = Clusters::of(diffs);
    let bounds = rate_bounds(&clusters, alpha);
    let wins = diffs.iter().filter(|d| d.value > 0.0).count() as u64;
    let losses = diffs.iter().filter(|d| d.value < 0.0).count() as u64;
    let p = (!diffs.is_empty()).then(|| mcnemar_mid_p(wins, losses));
    estimate(&clusters, bounds, p)
}

fn rate_bounds(clusters: &Clusters, alpha: f64) -> Option<Bounds> {
    let (mean, adjusted) = (clusters.mean()?, clusters.with_pseudo_pairs());
    let (centre, error) = (adjusted.mean()?, adjusted.standard_error()?);
    let at = |level: f64| (centre + normal_quantile(level) * error).clamp(-1.0, 1.0);
    (clusters.len() >= 2).then(|| Bounds::at(alpha, at).around(mean))
}

fn estimate(clusters: &Clusters, bounds: Option<Bounds>, p: Option<f64>) -> Estimate {
    Estimate {
        mean: clusters.mean(),
        low: bounds.map(|b| b.low),
        high: bounds.map(|b| b.high),
        p,
        p_holm: None,
        lower: bounds.map(|b| b.lower),
        upper: bounds.map(|b| b.upper),
        p_above: None,
        n: clusters.pairs(),
        clusters: clusters.len(),
    }
}

/// Sum and count of each cluster, in an order that depends on the values alone.
struct Clusters(Vec<(f64, f64)>);

impl Clusters {
    /// Values that are not finite are left out.
    fn of(diffs: &[Diff]) -> Self {
        let mut members: BTreeMap<&str, Vec<f64>> = BTreeMap::new();
        for diff in diffs.iter().filter(|d| d.value.is_finite()) {
            members.entry(&diff.cluster).or_default().push(diff.value);
        }
        let sums = members.into_values().map(|mut values| {
            // Addition of floats is not associative: sort, so that input order cannot show.
            values.sort_by(f64::total_cmp);
            (values.iter().sum(), values.len() as f64)
        });
        Self(sums.collect())
    }

    fn with_pseudo_pairs(&self) -> Self {
        Self(self.0.iter().copied().chain([(1.0, 1.0), (-1.0, 1.0)]).collect())
    }

    fn len(&self) -> usize {
        self.0.len()
    }

    fn pairs(&self) -> usize {
        self.0.iter().map(|c| c.1).sum::<f64>() as usize
    }

    fn mean(&self) -> Option<f64> {
        (!self.0.is_empty()).then(|| ratio(self.0.iter()))
    }

    /// Means with each cluster left out in turn.
    fn jackknife(&self) -> Vec<f64> {
        let left_out = |i| self.0.iter().enumerate().filter(move |(j, _)| *j != i).map(|(_, c)| c);
        (0..self.len()).map(|i| ratio(left_out(i))).collect()
    }

    /// Cluster-robust standard error of the mean; with single-pair clusters, sd / sqrt(n).
    fn standard_error(&self) -> Option<f64> {
        let (mean, c) = (self.mean()?, self.len() as f64);
        if self.len() < 2 {
            return None;
        }
        let squares: f64 = self.0.iter().map(|(sum, n)| (sum - n * mean).powi(2)).sum();
        let pairs: f64 = self.0.iter().map(|c| c.1).sum();
        Some((squares * c / (c - 1.0)).sqrt() / pairs)
    }
}

fn ratio<'a>(clusters: impl Iterator<Item = &'a (f64, f64)>) -> f64 {
    let (sum, n) = clusters.fold((0.0, 0.0), |(sum, n), c| (sum + c.0, n + c.1));
    sum / n
}

#[derive(Clone, Copy)]
struct Bounds {
    low: f64,
    high: f64,
    lower: f64,
    upper: f64,
}

impl Bounds {
    /// Read off at the levels that each stands for.
    fn at(alpha: f64, quantile: impl Fn(f64) -> f64) -> Self {
        Self {
            low: quantile(0.025),
            high: quantile(0.975),
            lower: quantile(alpha),
            upper: quantile(1.0 - alpha),
        }
    }

    fn holding_zero(self) -> Self {
        Self { low: self.low.min(0.0), high: self.high.max(0.0), ..self }
    }

    /// Widened where needed so that it holds `mean`.
    fn around(self, mean: f64) -> Self {
        Self {
            low: self.low.min(mean),
            high: self.high.max(mean),
            lower: self.lower.min(mean),
            upper: self.upper.max(mean),
        }
    }
}

/// Bias-corrected and accelerated bootstrap of the mean over clusters (Efron 1987), its levels expanded for small
/// samples by Student's t as Hesterberg (2015) advises: plain percentiles are too narrow below some 30 clusters.
fn bootstrap(clusters: &Clusters, precision: &Precision) -> Option<Bounds> {
    let (mean, count) = (clusters.mean()?, clusters.len());
    if count < 2 {
        return None;
    }
    let mut rng = ChaCha8Rng::seed_from_u64(precision.seed);
    let draw = |rng: &mut ChaCha8Rng| {
        let (mut sum, mut pairs) = (0.0, 0.0);
        for _ in 0..count {
            let cluster = clusters.0[rng.random_range(0..count)];
            sum += cluster.0;
            pairs += cluster.1;
        }
        sum / pairs
    };
    let mut means: Vec<f64> = (0..precision.resamples).map(|_| draw(&mut rng)).collect();
    means.sort_by(f64::total_cmp);
    let (bias, acceleration) = (bias(&means, mean), acceleration(&clusters.jackknife()));
    let at = |level: f64| {
        let z = bias + expanded_z(level, count);
        quantile(&means, normal_cdf(bias + z / (1.0 - acceleration * z)))
    };
    Some(Bounds::at(precision.alpha, at).around(mean))
}

/// How far the bootstrap's median lies from the estimate, in standard normal units; ties count half.
fn bias(sorted: &[f64], mean: f64) -> f64 {
    let tolerance = 1e-12 * (1.0 + mean.abs());
    let below = sorted.partition_point(|m| *m < mean - tolerance);
    let not_above = sorted.partition_point(|m| *m <= mean + tolerance);
    let share = (below + not_above) as f64 / (2.0 * sorted.len() as f64);
    normal_quantile(share.clamp(0.001, 0.999))
}

fn acceleration(jackknife: &[f64]) -> f64 {
    let mean = jackknife.iter().sum::<f64>() / jackknife.len() as f64;
    let (squares, cubes) = jackknife.iter().fold((0.0, 0.0), |(squares, cubes), value| {
        let d: f64 = mean - value;
        (squares + d * d, cubes + d * d * d)
    });
    let scale = 6.0 * squares.powf(1.5);
    if scale > f64::MIN_POSITIVE { cubes / scale } else { 0.0 }
}

/// The normal quantile that stands for `level` once the small sample is allowed for.
fn expanded_z(level: f64, count: usize) -> f64 {
    let n = count as f64;
    (n / (n - 1.0)).sqrt() * t_quantile(level, count)
}

/// Student's t with a degree of freedom less than there are clusters.
fn t_quantile(level: f64, count: usize) -> f64 {
    match StudentsT::new(0.0, 1.0, count as f64 - 1.0) {
        Ok(t) => t.inverse_cdf(level),
        Err(_) => normal_quantile(level),
    }
}

/// Linear interpolation between order statistics; `sorted` is not empty.
fn quantile(sorted: &[f64], level: f64) -> f64 {
    let place = level.clamp(0.0, 1.0) * (sorted.len() - 1) as f64;
    let (below, share) = (place.floor() as usize, place.fract());
    let above = (below + 1).min(sorted.len() - 1);
    sorted[below] + share * (sorted[above] - sorted[below])
}

fn normal_cdf(z: f64) -> f64 {
    Normal::standard().cdf(z)
}

fn normal_quantile(p: f64) -> f64 {
    Normal::standard().inverse_cdf(p)
}

/// p-values of the paired permutation test.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Flips {
    two_sided: f64,
    /// The same with what is exactly as far away counted half.
    middle: f64,
    above: f64,
}

/// How often random signs of whole clusters give a mean as far from zero as the one observed, and one as far above it.
/// Exact up to 13 clusters; beyond, draws with the observed one counted (never 0).
///
/// Where the two arms are exchangeable the test is exact whatever the differences look like: those of a model that
/// either fails or succeeds have three values, and no bootstrap of a few dozen of them keeps its level.
fn sign_flips(clusters: &Clusters, precision: &Precision) -> Option<Flips> {
    let sums: Vec<f64> = clusters.0.iter().map(|c| c.0).collect();
    if sums.is_empty() {
        return None;
    }
    let scale: f64 = sums.iter().map(|s| s.abs()).sum();
    let (observed, slack) = (sums.iter().sum::<f64>(), 1e-12 * scale);
    let (mut far, mut farther, mut above) = (0usize, 0usize, 0usize);
    let mut count = |sum: f64| {
        far += usize::from(sum.abs() >= observed.abs() - slack);
        farther += usize::from(sum.abs() > observed.abs() + slack);
        above += usize::from(sum >= observed - slack);
    };
    let shares = |far: usize, farther: usize, above: usize, of: usize| Flips {
        two_sided: far as f64 / of as f64,
        middle: (far + farther) as f64 / (2 * of) as f64,
        above: above as f64 / of as f64,
    };
    if sums.len() <= EXACT_CLUSTERS {
        let all = 1usize << sums.len();
        (0..all).for_each(|signs| count(signed_sum(&sums, &[signs as u64])));
        return Some(shares(far, farther, above, all));
    }
    let mut rng = ChaCha8Rng::seed_from_u64(precision.seed ^ 0x5167_6e66_6c69_7021);
    let mut signs = vec![0; sums.len().div_ceil(64)];
    for _ in 0..precision.resamples {
        signs.iter_mut().for_each(|word| *word = rng.random());
        count(signed_sum(&sums, &signs));
    }
    Some(shares(far + 1, farther, above + 1, precision.resamples + 1))
}

/// The sum with the sign of each value turned where its bit is set, 64 to a word.
fn signed_sum(values: &[f64], signs: &[u64]) -> f64 {
    let signed = |(i, value): (usize, &f64)| if signs[i / 64] >> (i % 64) & 1 == 1 { -value } else { *value };
    values.iter().enumerate().map(signed).sum()
}

/// McNemar's mid-p, two-sided, from the pairs that differ in each direction (Fagerland, Lydersen and Laake 2013);
/// 1 when none differs.
pub fn mcnemar_mid_p(wins: u64, losses: u64) -> f64 {
    let (n, fewer) = (wins + losses, wins.min(losses));
    match Binomial::new(0.5, n) {
        Ok(binomial) => (2.0 * binomial.cdf(fewer) - binomial.pmf(fewer)).clamp(0.0, 1.0),
        Err(_) => 1.0,
    }
}

/// Wilson's 95% interval of a rate: `passed` of `n`; none for no trials.
pub fn wilson(passed: f64, n: usize) -> Option<(f64, f64)> {
    if n == 0 {
        return None;
    }
    let (z2, n) = (Z_TWO_SIDED_95.powi(2), n as f64);
    let p = (passed / n).clamp(0.0, 1.0);
    let centre = (p + z2 / (2.0 * n)) / (1.0 + z2 / n);
    let half = Z_TWO_SIDED_95 * (p * (1.0 - p) / n + z2 / (4.0 * n * n)).sqrt() / (1.0 + z2 / n);
    Some(((centre - half).clamp(0.0, p), (centre + half).clamp(p, 1.0)))
}

/// A share of briefs. Opinions on one brief, of one pair or of several, are not independent: together they count as one.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Share {
    /// Briefs.
    pub n: usize,
    /// Mean over briefs of their means, with its 95% Wilson interval; none of nothing.
    pub rate: Option<f64>,
    pub interval: Option<(f64, f64)>,
}

/// The share of opinions of which each is a brief and how much it is for (0 to 1).
pub fn share_of_briefs<'a>(opinions: impl IntoIterator<Item = (&'a str, f64)>) -> Share {
    let mut briefs: BTreeMap<&str, Vec<f64>> = BTreeMap::new();
    for (brief, for_it) in opinions {
        briefs.entry(brief).or_default().push(for_it);
    }
    let n = briefs.len();
    let shares: Vec<f64> = briefs.into_values().filter_map(mean).collect();
    Share { n, rate: mean(shares.iter().copied()), interval: wilson(shares.iter().sum(), n) }
}

/// Holm's step-down adjustment, in the order given: an adjusted p below alpha holds at family-wise level alpha.
pub fn holm(p: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..p.len()).collect();
    order.sort_by(|a, b| p[*a].total_cmp(&p[*b]));
    let (mut adjusted, mut highest) = (vec![1.0; p.len()], 0.0_f64);
    for (rank, index) in order.into_iter().enumerate() {
        highest = highest.max((p[index] * (p.len() - rank) as f64).min(1.0));
        adjusted[index] = highest;
    }
    adjusted
}

/// The smallest mean difference that pairs with this spread show at two-sided 5% with 80% power: as many standard errors
/// as Student's t asks for at 97.5% and at 80%, 2.80 with many clusters. None below two clusters or when every pair
/// agrees, as then the spread is unknown.
pub fn detectable_score(diffs: &[Diff]) -> Option<f64> {
    let clusters = Clusters::of(diffs);
    let (error, count) = (clusters.standard_error()?, clusters.len());
    (error > 1e-12).then(|| (t_quantile(0.975, count) + t_quantile(0.8, count)) * error)
}

/// The smallest difference of a pass rate (0-1) that `n` pairs show at two-sided 5% with 80% power (Connor 1987).
///
/// Pairs that differ do so by noise, alike in both directions, or by the effect. The noise is read off the rarer
/// direction of those observed, with one pair added in each, as a few pairs say little about it. None when no difference
/// would show.
pub fn detectable_rate(n: usize, wins: usize, losses: usize) -> Option<f64> {
    let pairs = n as f64;
    let noise = (2.0 * wins.min(losses) as f64 + 2.0) / (pairs + 2.0);
    let seen = |delta: f64| {
        let discordant = (noise + delta).min(1.0);
        let spread = (discordant - delta * delta).max(0.0);
        Z_TWO_SIDED_95 * discordant.sqrt() + Z_POWER_80 * spread.sqrt() <= pairs.sqrt() * delta
    };
    if n == 0 || !seen(1.0) {
        return None;
    }
    let (mut low, mut high) = (0.0, 1.0);
    for _ in 0..50 {
        let middle = (low + high) / 2.0;
        if seen(middle) { high = middle } else { low = middle }
    }
    Some(high)
}

/// How many pairs, at most [`MOST_PAIRS`], a one-sided test of a score at `alpha` takes to see the difference that these
/// show in four trials of five, and a mean of `least` with it. As [`detectable_score`], solved for the number of pairs; the
/// bound's levels are expanded as the bootstrap's are. None where the spread is unknown.
pub fn pairs_for_score(diffs: &[Diff], least: f64, alpha: f64) -> Option<usize> {
    let clusters = Clusters::of(diffs);
    let (mean, error) = (clusters.mean()?, clusters.standard_error()?);
    let (pairs, in_clusters) = (clusters.pairs() as f64, clusters.len() as f64);
    let enough = |n: usize| {
        let more = n as f64 / pairs;
        let count = (in_clusters * more).round().max(2.0) as usize;
        let (error, power) = (error / more.sqrt(), t_quantile(0.8, count));
        mean >= (expanded_z(1.0 - alpha, count) + power) * error && mean - least >= power * error
    };
    Some(fewest(enough))
}

/// The same for a rate whose one-sided bound has to lie above `floor` (negative: a margin). The bound is that of
/// [`rate_difference`], whose two pseudo-pairs weigh less among more pairs.
pub fn pairs_for_rate(diffs: &[Diff], floor: f64, alpha: f64) -> Option<usize> {
    let clusters = Clusters::of(diffs);
    let (mean, error) = (clusters.mean()?, clusters.standard_error()?);
    let variance = error * error * clusters.pairs() as f64;
    let enough = |n: usize| {
        let (n, with_pseudo) = (n as f64, n as f64 + 2.0);
        let bound = (n * mean - normal_quantile(1.0 - alpha) * (n * variance + 2.0).sqrt()) / with_pseudo;
        bound - Z_POWER_80 * (variance / n).sqrt() > floor
    };
    Some(fewest(enough))
}

/// What [`pairs_for_score`] and [`pairs_for_rate`] say of differences that hardly any number shows.
pub const MOST_PAIRS: usize = 10_000;

/// The smallest number from 2 on that is enough, where more always are too.
fn fewest(enough: impl Fn(usize) -> bool) -> usize {
    let (mut low, mut high) = (2, MOST_PAIRS);
    while low < high {
        let middle = low.midpoint(high);
        if enough(middle) { high = middle } else { low = middle + 1 }
    }
    high
}

/// Mean; none of nothing.
pub fn mean(values: impl IntoIterator<Item = f64>) -> Option<f64> {
    let (sum, n) = values.into_iter().fold((0.0, 0usize), |(sum, n), v| (sum + v, n + 1));
    (n > 0).then(|| sum / n as f64)
}

/// The value below which this share (0-1) of them lies; none of nothing.
pub fn quantile_of(values: impl IntoIterator<Item = f64>, level: f64) -> Option<f64> {
    let mut values: Vec<f64> = values.into_iter().collect();
    values.sort_by(f64::total_cmp);
    (!values.is_empty()).then(|| quantile(&values, level))
}

#[cfg(test)]
#[path = "stats_tests.rs"]
mod tests;
