//! Notices an answer that repeats itself for ever.
//!
//! For each period `p` a counter says how many tokens in a row equalled the token `p` before: one pass of at
//! most [`MAX_PERIOD`] comparisons per token. Lists, tables and rulers repeat too, so a loop needs both many
//! repeats and many tokens.

use carat_tensor::TokenId;

/// Longest period looked for, in tokens.
pub const MAX_PERIOD: usize = 128;
/// A period must occur this often in a row,
pub const MIN_REPEATS: usize = 6;
/// and cover this many tokens.
pub const MIN_TOKENS: usize = 128;

/// A repetition found at the end of the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Loop {
    /// Its length in tokens.
    pub period: usize,
    /// How often it stood there in a row.
    pub repeats: usize,
}

/// Watches the tokens of one answer.
pub struct LoopGuard {
    /// The last tokens, a ring by `seen % MAX_PERIOD`.
    recent: [TokenId; MAX_PERIOD],
    seen: usize,
    /// `runs[p - 1]`: tokens in a row that equalled the one `p` before.
    runs: [usize; MAX_PERIOD],
}

impl Default for LoopGuard {
    fn default() -> Self {
        LoopGuard { recent: [TokenId(0); MAX_PERIOD], seen: 0, runs: [0; MAX_PERIOD] }
    }
}

impl LoopGuard {
    /// Takes the next token; the loop it completes, shortest period first.
    pub fn push(&mut self, token: TokenId) -> Option<Loop> {
        let mut found = None;
        for period in 1..=self.seen.min(MAX_PERIOD) {
            let before = self.recent[(self.seen - period) % MAX_PERIOD];
            let run = &mut self.runs[period - 1];
            *run = if before == token { *run + 1 } else { 0 };
            let covered = *run + period;
            if found.is_none() && covered >= MIN_TOKENS && covered / period >= MIN_REPEATS {
                found = Some(Loop { period, repeats: covered / period });
            }
        }
        self.recent[self.seen % MAX_PERIOD] = token;
        self.seen += 1;
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Tokens until a loop is found in `lead` and then `period` for ever, and the loop.
    fn found_after(lead: &[u32], period: &[u32]) -> Option<(usize, Loop)> {
        let mut guard = LoopGuard::default();
        lead.iter()
            .chain(period.iter().cycle())
            .take(5_000)
            .enumerate()
            .find_map(|(i, &t)| guard.push(TokenId(t)).map(|l| (i + 1 - lead.len(), l)))
    }

    #[test]
    fn short_periods_are_found_when_they_cover_enough() {
        assert_eq!(found_after(&[], &[9]), Some((128, Loop { period: 1, repeats: 128 })));
        assert_eq!(found_after(&[1, 2, 3], &[7, 8, 9]), Some((128, Loop { period: 3, repeats: 42 })));
    }

    #[test]
    fn long_periods_need_their_repeats() {
        let period: Vec<u32> = (0..100).collect();
        assert_eq!(found_after(&[500; 20], &period), Some((600, Loop { period: 100, repeats: 6 })));
    }

    #[test]
    fn periods_beyond_the_limit_and_text_that_counts_are_left_alone() {
        let period: Vec<u32> = (0..MAX_PERIOD as u32 + 1).collect();
        assert_eq!(found_after(&[], &period), None);
        let mut guard = LoopGuard::default();
        // "item 1, item 2, …": alike, never equal.
        assert!((0..5_000).all(|i| guard.push(TokenId(if i % 4 == 3 { 1_000 + i } else { i % 4 })).is_none()));
    }

    #[test]
    fn a_ruler_of_a_hundred_equal_tokens_is_no_loop() {
        let mut guard = LoopGuard::default();
        assert!((0..100).all(|_| guard.push(TokenId(5)).is_none()));
        assert!(guard.push(TokenId(6)).is_none());
    }
}
