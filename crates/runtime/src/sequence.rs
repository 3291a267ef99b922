//! One answer in the making: what is drawn next, and when it ends.
//!
//! Joins the sampler, the thinking budget and the loop guard with the rules that end an answer. Knows tokens
//! only; text and events are [`crate::session`]'s.

use carat_tensor::TokenId;

use crate::loop_guard::{Loop, LoopGuard};
use crate::sampler::{Logprobs, Sampler, SamplingError, check_finite};
use crate::thinking::ThinkingBudget;

/// Why an answer ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FinishReason {
    /// The model ended it, or a stop string did.
    Stop,
    /// It reached the number of tokens allowed.
    Length,
    /// The model wants tools to be called.
    ToolCalls,
    /// It repeated itself without end.
    Loop(Loop),
    /// Whoever asked for it stopped it.
    Cancelled,
    /// The context is full.
    Context,
}

impl FinishReason {
    /// One word, as programs read it.
    pub const fn name(self) -> &'static str {
        match self {
            FinishReason::Stop => "stop",
            FinishReason::Length => "length",
            FinishReason::ToolCalls => "tool_calls",
            FinishReason::Loop(_) => "loop",
            FinishReason::Cancelled => "cancelled",
            FinishReason::Context => "context",
        }
    }
}

/// A token of the answer.
#[derive(Clone, Debug, PartialEq)]
pub struct Drawn {
    /// Its id.
    pub token: TokenId,
    /// The model's log-probabilities here, if asked for.
    pub logprobs: Option<Logprobs>,
}

/// The rules and the state of one answer.
pub struct Sequence {
    /// Chooses tokens.
    pub sampler: Sampler,
    /// Follows thoughts; `None` where the vocabulary has no thought channel.
    pub thinking: Option<ThinkingBudget>,
    /// Watches for loops; `None` lets them be.
    pub guard: Option<LoopGuard>,
    /// Tokens that end the answer.
    pub stop_tokens: Vec<TokenId>,
    /// Most tokens of the answer, the ending one included.
    pub max_tokens: usize,
    generated: usize,
}

impl Sequence {
    /// An answer that has not begun.
    pub fn new(
        sampler: Sampler,
        thinking: Option<ThinkingBudget>,
        guard: Option<LoopGuard>,
        stop_tokens: Vec<TokenId>,
        max_tokens: usize,
    ) -> Self {
        Sequence { sampler, thinking, guard, stop_tokens, max_tokens, generated: 0 }
    }

    /// Tokens so far, the ending one included.
    pub fn generated(&self) -> usize {
        self.generated
    }

    /// The next token by `logits`, `[vocab_size]`: a forced one where the thinking budget is spent, else a drawn one.
    ///
    /// # Errors
    /// If a logit is no number, or no token can be drawn.
    pub fn draw(&mut self, logits: &[f32]) -> Result<Drawn, SamplingError> {
        check_finite(logits)?;
        let token = match self.thinking.as_ref().and_then(ThinkingBudget::forced) {
            Some(token) => token,
            None => self.sampler.sample(logits)?,
        };
        Ok(Drawn { token, logprobs: self.sampler.logprobs(logits, token) })
    }

    /// Takes `token`, which stands for `bytes`, into the answer; why the answer ends with it, if it does.
    pub fn accept(&mut self, token: TokenId, bytes: &[u8]) -> Option<FinishReason> {
        self.generated += 1;
        self.sampler.observe(token);
        if let Some(thinking) = &mut self.thinking {
            thinking.observe(token, bytes);
        }
        if self.stop_tokens.contains(&token) {
            return Some(FinishReason::Stop);
        }
        if let Some(found) = self.guard.as_mut().and_then(|guard| guard.push(token)) {
            return Some(FinishReason::Loop(found));
        }
        (self.generated >= self.max_tokens).then_some(FinishReason::Length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::SamplingOptions;

    fn sequence(max_tokens: usize, guard: Option<LoopGuard>) -> Sequence {
        let sampler = Sampler::new(SamplingOptions::default(), 4).unwrap();
        Sequence::new(sampler, None, guard, vec![TokenId(3)], max_tokens)
    }

    #[test]
    fn an_ending_token_ends_the_answer_before_its_length_does() {
        let mut s = sequence(2, None);
        assert_eq!(s.accept(TokenId(1), b"a"), None);
        assert_eq!(s.accept(TokenId(3), b""), Some(FinishReason::Stop));
        assert_eq!(s.generated(), 2);
    }

    #[test]
    fn nothing_is_drawn_from_what_is_no_number() {
        for broken in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let error = sequence(2, None).draw(&[1.0, broken, broken, 0.0]).unwrap_err();
            assert_eq!(error.to_string().split(" are not").next(), Some("2 of 4 logits"));
            assert!(error.to_string().contains(&format!("(token 1: {broken})")), "{error}");
        }
        assert_eq!(sequence(2, None).draw(&[1.0, 2.0, -3e38, 0.0]).unwrap().token, TokenId(1));
    }

    #[test]
    fn length_and_loops_end_it_too() {
        let mut s = sequence(1_000, Some(LoopGuard::default()));
        let end = (0..).find_map(|_| s.accept(TokenId(1), b"a"));
        assert!(matches!(end, Some(FinishReason::Loop(Loop { period: 1, .. }))));
        let mut s = sequence(1_000, None);
        let end = (0..).find_map(|_| s.accept(TokenId(1), b"a"));
        assert_eq!((end, s.generated()), (Some(FinishReason::Length), 1_000));
    }
}
