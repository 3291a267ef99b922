//! A prompt with its media in place: tokens and soft tokens in order, and what each row of it is, to find again in the
//! cache.

use std::sync::Arc;

use carat_chat::tokenizer::Tokenizer;
use carat_model::{Piece, SoftKind};
use carat_tensor::TokenId;

use crate::encoders::SoftTokens;

/// What a row of a sequence is. Rows with equal beginnings have equal keys and values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Row {
    /// A token.
    Token(TokenId),
    /// Of soft tokens the one with this index: media are compared by what they hold, never by their placeholders.
    Soft(u64, usize),
}

/// A run of rows.
#[derive(Debug)]
enum Span {
    Tokens(Vec<TokenId>),
    Soft(Arc<SoftTokens>),
}

/// All rows of a prompt.
#[derive(Debug)]
pub(crate) struct PromptRows {
    spans: Vec<Span>,
}

impl PromptRows {
    /// The prompt `ids`, in which one placeholder stands for each of `media`, in order.
    pub fn new(tokenizer: &Tokenizer, ids: &[TokenId], media: Vec<Arc<SoftTokens>>) -> Self {
        let special = tokenizer.special();
        let of_kind = |kind| match kind {
            SoftKind::Image => special.image,
            SoftKind::Audio => special.audio,
            SoftKind::Video => special.video,
        };
        let (mut spans, mut tokens, mut media) = (Vec::new(), Vec::new(), media.into_iter().peekable());
        for &id in ids {
            match media.next_if(|soft| of_kind(soft.kind) == Some(id)) {
                Some(soft) => {
                    spans.push(Span::Tokens(std::mem::take(&mut tokens)));
                    spans.push(Span::Soft(soft));
                }
                None => tokens.push(id),
            }
        }
        spans.push(Span::Tokens(tokens));
        PromptRows { spans }
    }

    /// What each row is.
    pub fn rows(&self) -> Vec<Row> {
        let mut rows = Vec::new();
        for span in &self.spans {
            match span {
                Span::Tokens(tokens) => rows.extend(tokens.iter().copied().map(Row::Token)),
                Span::Soft(soft) => rows.extend((0..soft.n).map(|index| Row::Soft(soft.id, index))),
            }
        }
        rows
    }

    /// As a decoder takes them.
    pub fn pieces(&self) -> Vec<Piece<'_>> {
        let pieces = self.spans.iter().map(|span| match span {
            Span::Tokens(tokens) => Piece::Tokens(tokens),
            Span::Soft(soft) => Piece::Soft { kind: soft.kind, n: soft.n, rows: &soft.rows },
        });
        pieces.collect()
    }
}

/// How many rows of `prompt` the rows in the cache begin with; of soft tokens all or none, as those of a picture may see each
/// other. The last row is never among them, since its logits are needed.
pub(crate) fn common(held: &[Row], prompt: &[Row]) -> usize {
    let before_last = &prompt[..prompt.len().saturating_sub(1)];
    let mut common = held.iter().zip(before_last).take_while(|(a, b)| a == b).count();
    // Back to the beginning of soft tokens that would be parted.
    if let Some(Row::Soft(_, index @ 1..)) = prompt.get(common) {
        common -= index;
    }
    common
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(id: u32) -> Row {
        Row::Token(TokenId(id))
    }

    #[test]
    fn media_are_compared_by_what_they_hold() {
        let with = |id: u64, n: usize| {
            let soft = (0..n).map(move |index| Row::Soft(id, index));
            [token(1)].into_iter().chain(soft).chain([token(2), token(3)]).collect::<Vec<Row>>()
        };
        assert_eq!(common(&with(7, 3), &with(7, 3)), 5);
        assert_eq!(common(&with(7, 3), &with(8, 3)), 1);
        assert_eq!(common(&with(7, 3)[..3], &with(7, 3)), 1, "a picture is not parted");
        assert_eq!(common(&with(7, 3), &with(7, 3)[..4]), 1, "its last row must be computed, and so must the others");
        assert_eq!(common(&[], &with(7, 3)), 0);
    }
}
