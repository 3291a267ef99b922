//! A limit on how long the model thinks.
//!
//! When the budget is spent, the tokens that close the thought channel are put into the stream as if the
//! model had written them, and it goes on with its answer. Works on token ids; the channel's name, up to the
//! first line break after the opening token, costs nothing.

use carat_tensor::TokenId;

/// Tokens that may pass for the channel's name before they count as thought.
const MAX_HEADER_TOKENS: usize = 8;

/// The tokens that delimit a thought.
#[derive(Clone, Debug)]
pub struct ThoughtTokens {
    /// `<|channel>`.
    pub open: TokenId,
    /// `<channel|>`.
    pub close: TokenId,
    /// `<|tool_call>`, which ends a thought that is open.
    pub call: Option<TokenId>,
    /// A line break, which stands before `close`.
    pub newline: Vec<TokenId>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Outside,
    /// After this many tokens of the channel's name.
    Header(usize),
    Inside,
    /// `newline[at..]`, then `close`, are still to be forced.
    Closing(usize),
}

/// Follows one answer through its thoughts.
#[derive(Clone, Debug)]
pub struct ThinkingBudget {
    tokens: ThoughtTokens,
    /// `None` only counts.
    limit: Option<usize>,
    spent: usize,
    state: State,
}

impl ThinkingBudget {
    /// A budget of `limit` thought tokens, or no limit.
    pub fn new(tokens: ThoughtTokens, limit: Option<usize>) -> Self {
        ThinkingBudget { tokens, limit, spent: 0, state: State::Outside }
    }

    /// Takes the prompt's tail, which may leave a thought open: tokens there cost nothing.
    pub fn observe_prompt<'a>(&mut self, tail: impl IntoIterator<Item = (TokenId, &'a [u8])>) {
        let mut last: &[u8] = b"";
        for (token, bytes) in tail {
            self.step(token, bytes);
            last = bytes;
        }
        self.spent = 0;
        self.close_when_spent(last);
    }

    /// Takes a token of the answer and the bytes it stands for.
    pub fn observe(&mut self, token: TokenId, bytes: &[u8]) {
        self.step(token, bytes);
        self.close_when_spent(bytes);
    }

    fn step(&mut self, token: TokenId, bytes: &[u8]) {
        if token == self.tokens.close || Some(token) == self.tokens.call {
            self.state = State::Outside;
            return;
        }
        if token == self.tokens.open {
            self.state = State::Header(0);
            return;
        }
        match self.state {
            State::Outside => {}
            State::Header(_) if bytes.contains(&b'\n') => self.state = State::Inside,
            State::Header(seen) if seen + 1 < MAX_HEADER_TOKENS => self.state = State::Header(seen + 1),
            State::Header(_) | State::Inside => {
                self.state = State::Inside;
                self.spent += 1;
            }
            State::Closing(at) => self.state = State::Closing((at + 1).min(self.tokens.newline.len())),
        }
    }

    fn close_when_spent(&mut self, last: &[u8]) {
        if self.state == State::Inside && self.limit.is_some_and(|limit| self.spent >= limit) {
            // A thought that just ended its line needs no second break.
            let at = if last.ends_with(b"\n") { self.tokens.newline.len() } else { 0 };
            self.state = State::Closing(at);
        }
    }

    /// The token that must come next whatever the model says, once the budget is spent.
    pub fn forced(&self) -> Option<TokenId> {
        match self.state {
            State::Closing(at) => Some(self.tokens.newline.get(at).copied().unwrap_or(self.tokens.close)),
            _ => None,
        }
    }

    /// Tokens of thought so far.
    pub fn spent(&self) -> usize {
        self.spent
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OPEN: u32 = 100;
    const CLOSE: u32 = 101;
    const CALL: u32 = 102;
    const NEWLINE: u32 = 10;

    fn bytes(token: u32) -> &'static [u8] {
        match token {
            NEWLINE => b"\n",
            OPEN | CLOSE | CALL => b"",
            _ => b"word",
        }
    }

    fn budget(limit: Option<usize>) -> ThinkingBudget {
        let [open, close, call] = [OPEN, CLOSE, CALL].map(TokenId);
        let tokens = ThoughtTokens { open, close, call: Some(call), newline: vec![TokenId(NEWLINE)] };
        ThinkingBudget::new(tokens, limit)
    }

    /// The stream that results when the model would write `model` but `limit` applies.
    #[track_caller]
    fn check(limit: Option<usize>, prompt: &[u32], model: &[u32], expected: &[u32], spent: usize) {
        let mut budget = budget(limit);
        budget.observe_prompt(prompt.iter().map(|&t| (TokenId(t), bytes(t))));
        let mut stream = Vec::new();
        let mut model = model.iter();
        while let Some(next) = budget.forced().or_else(|| model.next().map(|&t| TokenId(t))) {
            budget.observe(next, bytes(next.0));
            stream.push(next.0);
        }
        assert_eq!((stream.as_slice(), budget.spent()), (expected, spent));
    }

    #[test]
    fn a_thought_within_its_budget_is_left_alone() {
        check(
            Some(3),
            &[],
            &[OPEN, 1, NEWLINE, 5, 6, CLOSE, 7, 8, 9, 9],
            &[OPEN, 1, NEWLINE, 5, 6, CLOSE, 7, 8, 9, 9],
            2,
        );
        check(None, &[], &[OPEN, 1, NEWLINE, 5, 6, 5, 6], &[OPEN, 1, NEWLINE, 5, 6, 5, 6], 4);
    }

    #[test]
    fn a_spent_budget_closes_the_channel_on_a_line_of_its_own() {
        check(Some(2), &[], &[OPEN, 1, NEWLINE, 5, 6, 7], &[OPEN, 1, NEWLINE, 5, 6, NEWLINE, CLOSE, 7], 2);
        check(Some(2), &[], &[OPEN, 1, NEWLINE, 5, NEWLINE, 7], &[OPEN, 1, NEWLINE, 5, NEWLINE, CLOSE, 7], 2);
    }

    #[test]
    fn a_budget_of_nothing_leaves_the_empty_thought() {
        check(Some(0), &[], &[OPEN, 1, NEWLINE, 7], &[OPEN, 1, NEWLINE, CLOSE, 7], 0);
    }

    #[test]
    fn a_call_ends_a_thought_and_is_left_alone() {
        check(Some(1), &[], &[OPEN, 1, NEWLINE, CALL, 5, 6, 7], &[OPEN, 1, NEWLINE, CALL, 5, 6, 7], 0);
        check(Some(2), &[OPEN], &[1, NEWLINE, 5, CALL, 6, 7, 8], &[1, NEWLINE, 5, CALL, 6, 7, 8], 1);
    }

    #[test]
    fn a_thought_that_the_prompt_opened_counts_from_the_answer_on() {
        check(Some(1), &[OPEN, 1, NEWLINE], &[5, 6], &[5, NEWLINE, CLOSE, 6], 1);
        check(Some(0), &[OPEN, 1, NEWLINE], &[6], &[CLOSE, 6], 0);
    }
}
