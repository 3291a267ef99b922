//! Logits to a token.
//!
//! The order is that of transformers' `GenerationMixin`: bias, penalties and suppression change the logits;
//! then temperature, top-k, top-p and min-p narrow the candidates; then one is drawn. Selection over the
//! whole vocabulary (262,144 logits) is partial: only as many candidates are sorted as can be chosen. All
//! memory is taken when the sampler is made.
//!
//! Log-probabilities are those of the model, before any of this.

use carat_tensor::TokenId;

use crate::rng::{Rng, fresh_seed};

/// The most alternatives that log-probabilities can be asked for.
pub const MAX_LOGPROBS: usize = 64;

/// How the next token is chosen.
#[derive(Clone, Debug, PartialEq)]
pub struct SamplingOptions {
    /// Divides the logits; 0 takes the most likely token.
    pub temperature: f32,
    /// Only this many most likely tokens; 0 for all.
    pub top_k: usize,
    /// Only the most likely tokens that together reach this probability; 1 for all.
    pub top_p: f32,
    /// Only tokens at least this fraction as likely as the most likely one; 0 for all.
    pub min_p: f32,
    /// Logits of tokens in prompt or answer: divided by this if positive, else multiplied; 1 is off.
    pub repetition_penalty: f32,
    /// Taken once from logits of tokens in the answer.
    pub presence_penalty: f32,
    /// Taken from logits of tokens in the answer, times their count.
    pub frequency_penalty: f32,
    /// Added to single logits.
    pub logit_bias: Vec<(TokenId, f32)>,
    /// Tokens that are never chosen.
    pub suppress: Vec<TokenId>,
    /// Equal seeds give equal answers; `None` draws a new one.
    pub seed: Option<u64>,
    /// Report log-probabilities: of the chosen token, and of this many most likely ones.
    pub logprobs: Option<usize>,
}

impl Default for SamplingOptions {
    /// The most likely token, nothing changed.
    fn default() -> Self {
        SamplingOptions {
            temperature: 0.0,
            top_k: 0,
            top_p: 1.0,
            min_p: 0.0,
            repetition_penalty: 1.0,
            presence_penalty: 0.0,
            frequency_penalty: 0.0,
            logit_bias: Vec::new(),
            suppress: Vec::new(),
            seed: None,
            logprobs: None,
        }
    }
}

/// A sampling option or logits that can't be used.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum SamplingError {
    /// An option is outside its range.
    #[error("{option} is {found}, expected {expected}")]
    OutOfRange {
        /// The option's name.
        option: &'static str,
        /// What was given.
        found: String,
        /// What can be used.
        expected: String,
    },
    /// The model computed something that is no number.
    #[error("{count} of {vocab_size} logits are not finite (token {token}: {found}): {}", carat_model::BROKEN_WEIGHTS)]
    NotFinite {
        /// How many are not.
        count: usize,
        /// Of how many.
        vocab_size: usize,
        /// The first token whose logit is not.
        token: TokenId,
        /// Its logit.
        found: f32,
    },
    /// No token can be chosen: the model gave no finite logit, or all tokens are suppressed.
    #[error("no token can be chosen: none of {vocab_size} logits is finite after bias and suppression")]
    NoCandidate {
        /// How many logits there were.
        vocab_size: usize,
    },
}

impl SamplingOptions {
    /// Whether every value is in its range, for a vocabulary of this size.
    pub fn check(&self, vocab_size: usize) -> Result<(), SamplingError> {
        let range = |ok: bool, option: &'static str, found: f32, expected: &str| {
            if ok {
                return Ok(());
            }
            Err(SamplingError::OutOfRange { option, found: found.to_string(), expected: expected.into() })
        };
        let t = self.temperature;
        range((0.0..=100.0).contains(&t), "temperature", t, "0 to 100")?;
        range(self.top_p > 0.0 && self.top_p <= 1.0, "top-p", self.top_p, "more than 0, at most 1")?;
        range((0.0..=1.0).contains(&self.min_p), "min-p", self.min_p, "0 to 1")?;
        let r = self.repetition_penalty;
        range(r > 0.0 && r <= 10.0, "repeat-penalty", r, "more than 0, at most 10")?;
        range(self.presence_penalty.abs() <= 10.0, "presence-penalty", self.presence_penalty, "-10 to 10")?;
        range(self.frequency_penalty.abs() <= 10.0, "frequency-penalty", self.frequency_penalty, "-10 to 10")?;
        for &(id, bias) in &self.logit_bias {
            range(bias < f32::INFINITY, "logit-bias", bias, "a number below infinity")?;
            if id.index() >= vocab_size {
                return Err(SamplingError::OutOfRange {
                    option: "logit-bias",
                    found: format!("token {id}"),
                    expected: format!("a token below {vocab_size}"),
                });
            }
        }
        match self.logprobs {
            Some(n) if n > MAX_LOGPROBS => Err(SamplingError::OutOfRange {
                option: "logprobs",
                found: n.to_string(),
                expected: format!("at most {MAX_LOGPROBS}"),
            }),
            _ => Ok(()),
        }
    }
}

/// Refuses logits of which one is NaN or infinite: what is drawn from them would mean nothing.
pub fn check_finite(logits: &[f32]) -> Result<(), SamplingError> {
    const EXPONENT: u32 = 0x7f80_0000;
    // A count, not a search: it has no branches, which on a whole vocabulary is several times faster.
    let count = logits.iter().map(|l| u32::from(l.to_bits() & EXPONENT == EXPONENT)).sum::<u32>() as usize;
    if count == 0 {
        return Ok(());
    }
    let (vocab_size, first) = (logits.len(), logits.iter().position(|l| !l.is_finite()).unwrap_or(0));
    Err(SamplingError::NotFinite { count, vocab_size, token: TokenId(first as u32), found: logits[first] })
}

/// Natural logarithms of the model's own probabilities at one position.
#[derive(Clone, Debug, PartialEq)]
pub struct Logprobs {
    /// Of the chosen token.
    pub chosen: f32,
    /// The most likely tokens, best first.
    pub top: Vec<(TokenId, f32)>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
struct Candidate {
    id: u32,
    logit: f32,
}

impl Candidate {
    /// Larger logit first; equal ones by lower id.
    fn before(self, other: Candidate) -> bool {
        self.logit > other.logit || (self.logit == other.logit && self.id < other.id)
    }
}

/// Chooses the tokens of one answer.
pub struct Sampler {
    options: SamplingOptions,
    rng: Rng,
    seed: u64,
    /// Logits after bias, penalties and suppression, `[vocab_size]`.
    logits: Vec<f32>,
    /// Times each token occurs in the answer, `[vocab_size]`; empty where no penalty needs it.
    counts: Vec<u32>,
    /// Whether a token is in prompt or answer, `[vocab_size]`; empty likewise.
    seen: Vec<bool>,
    /// The tokens `seen`, each once.
    distinct: Vec<u32>,
    candidates: Vec<Candidate>,
}

impl Sampler {
    /// A sampler for `vocab_size` logits.
    pub fn new(options: SamplingOptions, vocab_size: usize) -> Result<Self, SamplingError> {
        options.check(vocab_size)?;
        let seed = options.seed.unwrap_or_else(fresh_seed);
        let penalised =
            options.repetition_penalty != 1.0 || options.presence_penalty != 0.0 || options.frequency_penalty != 0.0;
        let tracked = if penalised { vocab_size } else { 0 };
        Ok(Sampler {
            rng: Rng::from_seed(seed),
            seed,
            logits: vec![0.0; vocab_size],
            counts: vec![0; tracked],
            seen: vec![false; tracked],
            distinct: Vec::with_capacity(tracked),
            candidates: Vec::with_capacity(vocab_size),
            options,
        })
    }

    /// The seed in use.
    pub fn seed(&self) -> u64 {
        self.seed
    }

    /// Tells the penalties of a prompt token.
    pub fn observe_prompt(&mut self, token: TokenId) {
        if let Some(seen) = self.seen.get_mut(token.index())
            && !std::mem::replace(seen, true)
        {
            self.distinct.push(token.0);
        }
    }

    /// Tells the penalties of a token of the answer, drawn here or forced.
    pub fn observe(&mut self, token: TokenId) {
        self.observe_prompt(token);
        if let Some(count) = self.counts.get_mut(token.index()) {
            *count += 1;
        }
    }

    /// Chooses a token by `logits`, `[vocab_size]`. Does not [`Sampler::observe`] it.
    ///
    /// # Panics
    /// If the number of logits is not the vocabulary's size.
    pub fn sample(&mut self, logits: &[f32]) -> Result<TokenId, SamplingError> {
        assert_eq!(logits.len(), self.logits.len(), "logits of another vocabulary");
        self.logits.copy_from_slice(logits);
        self.adjust();
        if self.options.temperature == 0.0 {
            return self.best().map(|c| TokenId(c.id));
        }
        self.narrow()?;
        Ok(self.draw())
    }

    /// Log-probabilities of `chosen` by `logits`, `[vocab_size]`, if they were asked for.
    pub fn logprobs(&mut self, logits: &[f32], chosen: TokenId) -> Option<Logprobs> {
        let n = self.options.logprobs?;
        let log_sum = log_sum_exp(logits);
        top_into(&mut self.candidates, logits, n);
        let top = self.candidates.iter().map(|c| (TokenId(c.id), c.logit - log_sum)).collect();
        Some(Logprobs { chosen: logits[chosen.index()] - log_sum, top })
    }

    /// Bias, penalties, suppression.
    fn adjust(&mut self) {
        let o = &self.options;
        for &(id, bias) in &o.logit_bias {
            self.logits[id.index()] += bias;
        }
        for &id in &self.distinct {
            let logit = &mut self.logits[id as usize];
            if *logit > 0.0 {
                *logit /= o.repetition_penalty;
            } else {
                *logit *= o.repetition_penalty;
            }
            let count = self.counts[id as usize];
            if count > 0 {
                *logit -= o.presence_penalty + o.frequency_penalty * count as f32;
            }
        }
        for &id in &o.suppress {
            if let Some(logit) = self.logits.get_mut(id.index()) {
                *logit = f32::NEG_INFINITY;
            }
        }
    }

    fn best(&self) -> Result<Candidate, SamplingError> {
        let mut best = Candidate { id: 0, logit: f32::NEG_INFINITY };
        for (id, &logit) in self.logits.iter().enumerate() {
            if logit > best.logit {
                best = Candidate { id: id as u32, logit };
            }
        }
        if best.logit.is_finite() {
            Ok(best)
        } else {
            Err(SamplingError::NoCandidate { vocab_size: self.logits.len() })
        }
    }

    /// Fills `candidates` with those that temperature, top-k, top-p and min-p leave.
    fn narrow(&mut self) -> Result<(), SamplingError> {
        let max = self.best()?.logit;
        let (temperature, top_p) = (self.options.temperature, self.options.top_p);
        let weight = |logit: f32| ((logit - max) / temperature).exp();
        let n = self.logits.len();

        if self.options.top_k == 0 && top_p == 1.0 {
            // Everything stays, so nothing needs an order.
            self.candidates.clear();
            let all = self.logits.iter().enumerate().map(|(id, &logit)| Candidate { id: id as u32, logit });
            self.candidates.extend(all.filter(|c| c.logit > f32::NEG_INFINITY));
        } else if self.options.top_k > 0 {
            top_into(&mut self.candidates, &self.logits, self.options.top_k.min(n));
            let total = self.candidates.iter().map(|c| weight(c.logit)).sum();
            keep_mass(&mut self.candidates, top_p, total, weight);
        } else {
            // The nucleus is usually small: sort a few, and more only where they don't reach the mass.
            let total: f32 = self.logits.iter().map(|&l| if l.is_nan() { 0.0 } else { weight(l) }).sum();
            let mut k = 256.min(n);
            loop {
                top_into(&mut self.candidates, &self.logits, k);
                if keep_mass(&mut self.candidates, top_p, total, weight) || k == n {
                    break;
                }
                k = (k * 16).min(n);
            }
        }

        let least = self.options.min_p;
        if least > 0.0 {
            self.candidates.retain(|c| weight(c.logit) >= least);
        }
        for c in &mut self.candidates {
            c.logit = weight(c.logit);
        }
        Ok(())
    }

    /// Draws one of `candidates`, whose logits are weights by now.
    fn draw(&mut self) -> TokenId {
        let total: f64 = self.candidates.iter().map(|c| f64::from(c.logit)).sum();
        let mut left = self.rng.next_f64() * total;
        for c in &self.candidates {
            left -= f64::from(c.logit);
            if left < 0.0 {
                return TokenId(c.id);
            }
        }
        // Rounding of the sums can leave a last sliver.
        TokenId(self.candidates.last().expect("narrow leaves at least one candidate").id)
    }
}

/// Truncates `candidates` (best first) to the shortest prefix whose weight reaches `top_p · total`; whether it did.
fn keep_mass(candidates: &mut Vec<Candidate>, top_p: f32, total: f32, weight: impl Fn(f32) -> f32) -> bool {
    if top_p == 1.0 {
        return true;
    }
    let mut mass = 0.0;
    for (i, c) in candidates.iter().enumerate() {
        mass += weight(c.logit);
        if mass >= top_p * total {
            candidates.truncate(i + 1);
            return true;
        }
    }
    false
}

/// The `k` largest logits, best first, NaN and −∞ left out. One pass with a buffer of `2k` that is cut back to `k` when full.
fn top_into(out: &mut Vec<Candidate>, logits: &[f32], k: usize) {
    out.clear();
    if k == 0 {
        return;
    }
    let order = |a: &Candidate, b: &Candidate| b.logit.total_cmp(&a.logit).then(a.id.cmp(&b.id));
    let mut least = Candidate { id: u32::MAX, logit: f32::NEG_INFINITY };
    for (id, &logit) in logits.iter().enumerate() {
        let candidate = Candidate { id: id as u32, logit };
        if logit == f32::NEG_INFINITY || !candidate.before(least) {
            continue;
        }
        out.push(candidate);
        if out.len() >= 2 * k {
            out.select_nth_unstable_by(k - 1, order);
            out.truncate(k);
            least = out[k - 1];
        }
    }
    if out.len() > k {
        out.select_nth_unstable_by(k - 1, order);
        out.truncate(k);
    }
    out.sort_unstable_by(order);
}

/// `log Σ exp(logits)`, summed in f64, NaN left out.
pub fn log_sum_exp(logits: &[f32]) -> f32 {
    let max = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    if max == f32::NEG_INFINITY {
        return max;
    }
    let sum: f64 = logits.iter().filter(|l| !l.is_nan()).map(|&l| f64::from((l - max).exp())).sum();
    max + sum.ln() as f32
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The tokens that 2,000 draws reach, sorted.
    fn support(logits: &[f32], options: SamplingOptions) -> Vec<u32> {
        let mut sampler = Sampler::new(SamplingOptions { seed: Some(7), ..options }, logits.len()).unwrap();
        let mut reached = vec![false; logits.len()];
        for _ in 0..2_000 {
            reached[sampler.sample(logits).unwrap().index()] = true;
        }
        (0..logits.len() as u32).filter(|&i| reached[i as usize]).collect()
    }

    fn warm() -> SamplingOptions {
        SamplingOptions { temperature: 1.0, ..SamplingOptions::default() }
    }

    fn logs(p: &[f32]) -> Vec<f32> {
        p.iter().map(|p| p.ln()).collect()
    }

    #[test]
    fn greedy_takes_the_largest_and_the_lowest_id_of_equals() {
        let mut s = Sampler::new(SamplingOptions::default(), 4).unwrap();
        assert_eq!(s.sample(&[0.0, 3.0, 3.0, -1.0]).unwrap(), TokenId(1));
        assert_eq!(s.sample(&[0.0, f32::NAN, 1.0, -1.0]).unwrap(), TokenId(2));
    }

    #[test]
    fn frequencies_are_the_softmax_of_the_logits_over_the_temperature() {
        let p = [0.5f32, 0.3, 0.2];
        for temperature in [1.0f32, 0.5] {
            let mut s = Sampler::new(SamplingOptions { temperature, seed: Some(1), ..warm() }, 3).unwrap();
            let mut count = [0.0; 3];
            for _ in 0..30_000 {
                count[s.sample(&logs(&p)).unwrap().index()] += 1.0;
            }
            let z: f32 = p.iter().map(|p| p.powf(1.0 / temperature)).sum();
            for (count, p) in count.iter().zip(p) {
                // Five standard deviations of a count of 30,000 are at most 433 = 0.0144.
                assert!((count / 30_000.0 - p.powf(1.0 / temperature) / z).abs() < 0.0144);
            }
        }
    }

    #[test]
    fn top_k_keeps_the_k_largest() {
        assert_eq!(support(&logs(&[0.1, 0.4, 0.2, 0.3]), SamplingOptions { top_k: 2, ..warm() }), [1, 3]);
        assert_eq!(support(&logs(&[0.1, 0.4, 0.2, 0.3]), SamplingOptions { top_k: 9, ..warm() }), [0, 1, 2, 3]);
    }

    #[test]
    fn top_p_keeps_the_shortest_prefix_that_reaches_the_mass() {
        let logits = logs(&[0.1, 0.4, 0.2, 0.3]);
        assert_eq!(support(&logits, SamplingOptions { top_p: 0.69, ..warm() }), [1, 3]);
        assert_eq!(support(&logits, SamplingOptions { top_p: 0.71, ..warm() }), [1, 2, 3]);
        assert_eq!(support(&logits, SamplingOptions { top_p: 0.01, ..warm() }), [1]);
        // After top-k the mass is that of the k: 0.4 of 0.7 is more than half.
        assert_eq!(support(&logits, SamplingOptions { top_k: 2, top_p: 0.5, ..warm() }), [1]);
    }

    #[test]
    fn a_wide_nucleus_is_found_beyond_the_first_candidates() {
        // 5,000 equal tokens: 99 % of the mass is 4,950 of them, the lowest ids.
        let mut s = Sampler::new(SamplingOptions { top_p: 0.99, seed: Some(1), ..warm() }, 5_000).unwrap();
        s.logits.fill(0.0);
        s.narrow().unwrap();
        assert!((4_949..=4_951).contains(&s.candidates.len()), "{}", s.candidates.len());
    }

    #[test]
    fn min_p_is_a_fraction_of_the_most_likely() {
        let logits = logs(&[0.1, 0.4, 0.2, 0.3]);
        assert_eq!(support(&logits, SamplingOptions { min_p: 0.45, ..warm() }), [1, 2, 3]);
        assert_eq!(support(&logits, SamplingOptions { min_p: 1.0, ..warm() }), [1]);
    }

    #[test]
    fn top_into_agrees_with_a_full_sort() {
        let mut rng = Rng::from_seed(3);
        for n in [1usize, 2, 63, 64, 65, 1000] {
            let logits: Vec<f32> = (0..n).map(|_| (rng.next_u64() % 50) as f32).collect();
            let mut sorted: Vec<u32> = (0..n as u32).collect();
            sorted.sort_by(|&a, &b| logits[b as usize].total_cmp(&logits[a as usize]).then(a.cmp(&b)));
            for k in [0, 1, 2, 64, n] {
                let mut out = Vec::new();
                top_into(&mut out, &logits, k);
                let ids: Vec<u32> = out.iter().map(|c| c.id).collect();
                assert_eq!(ids, sorted[..k.min(n)]);
            }
        }
    }

    #[test]
    fn penalties_follow_their_definitions() {
        let mut s = Sampler::new(
            SamplingOptions { repetition_penalty: 2.0, presence_penalty: 0.5, frequency_penalty: 0.25, ..warm() },
            4,
        )
        .unwrap();
        s.observe_prompt(TokenId(0));
        s.observe(TokenId(1));
        s.observe(TokenId(1));
        s.observe(TokenId(2));
        s.logits.copy_from_slice(&[4.0, 4.0, -4.0, 4.0]);
        s.adjust();
        // Prompt tokens know only the repetition penalty; token 1: 4/2 − 0.5 − 2·0.25; token 2: −4·2 − 0.75.
        assert_eq!(s.logits, [2.0, 1.0, -8.75, 4.0]);
    }

    #[test]
    fn bias_and_suppression_decide_over_the_logits() {
        let mut s = Sampler::new(
            SamplingOptions {
                logit_bias: vec![(TokenId(2), 10.0)],
                suppress: vec![TokenId(0), TokenId(99)],
                ..SamplingOptions::default()
            },
            3,
        )
        .unwrap();
        assert_eq!(s.sample(&[20.0, 1.0, 0.0]).unwrap(), TokenId(2));
        let mut none =
            Sampler::new(SamplingOptions { suppress: vec![TokenId(0)], ..SamplingOptions::default() }, 1).unwrap();
        assert_eq!(none.sample(&[1.0]), Err(SamplingError::NoCandidate { vocab_size: 1 }));
    }

    #[test]
    fn equal_seeds_give_equal_answers() {
        let logits: Vec<f32> = (0..100).map(|i| (i % 7) as f32 * 0.3).collect();
        let run = |seed| {
            let mut s = Sampler::new(SamplingOptions { seed: Some(seed), ..warm() }, 100).unwrap();
            (0..50).map(|_| s.sample(&logits).unwrap().0).collect::<Vec<_>>()
        };
        assert_eq!(run(5), run(5));
        assert_ne!(run(5), run(6));
    }

    #[test]
    fn logprobs_are_of_the_unchanged_distribution() {
        let options = SamplingOptions { logprobs: Some(2), suppress: vec![TokenId(1)], ..SamplingOptions::default() };
        let mut s = Sampler::new(options, 3).unwrap();
        let logits = logs(&[0.25, 0.5, 0.25]);
        let chosen = s.sample(&logits).unwrap();
        let found = s.logprobs(&logits, chosen).unwrap();
        assert_eq!(chosen, TokenId(0));
        assert!((found.chosen - 0.25f32.ln()).abs() < 1e-6);
        assert_eq!(found.top[0].0, TokenId(1));
        assert!((found.top[0].1 - 0.5f32.ln()).abs() < 1e-6);
        assert_eq!(found.top[1].0, TokenId(0));
    }

    #[test]
    fn values_out_of_range_are_refused_by_name() {
        let error = Sampler::new(SamplingOptions { top_p: 0.0, ..warm() }, 3).err().unwrap();
        assert_eq!(error.to_string(), "top-p is 0, expected more than 0, at most 1");
        let error = Sampler::new(SamplingOptions { logit_bias: vec![(TokenId(3), 1.0)], ..warm() }, 3).err().unwrap();
        assert_eq!(error.to_string(), "logit-bias is token 3, expected a token below 3");
        let biased = |bias| Sampler::new(SamplingOptions { logit_bias: vec![(TokenId(2), bias)], ..warm() }, 3);
        let error = biased(f32::INFINITY).err().unwrap();
        assert_eq!(error.to_string(), "logit-bias is inf, expected a number below infinity");
        assert!(biased(f32::NAN).is_err() && biased(f32::NEG_INFINITY).is_ok());
        assert!(Sampler::new(SamplingOptions { temperature: f32::NAN, ..warm() }, 3).is_err());
    }
}
