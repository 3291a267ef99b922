//! What a step appends to a sequence: tokens, and soft tokens that stand in the place of their embeddings.
//!
//! Models whose pictures see themselves both ways need each whole in one pass: [`blocks`] finds them and [`pass_end`] cuts a
//! step so that none is parted. Source: transformers `modeling_gemma4.get_block_sequence_ids_for_mask`.

use std::ops::Range;

use carat_tensor::TokenId;

/// What soft tokens are of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum SoftKind {
    /// A picture.
    Image,
    /// A sound.
    Audio,
    /// A frame of a video.
    Video,
}

impl SoftKind {
    /// All of them.
    pub const ALL: [SoftKind; 3] = [SoftKind::Image, SoftKind::Audio, SoftKind::Video];

    /// As options and messages call it.
    pub fn name(self) -> &'static str {
        match self {
            SoftKind::Image => "image",
            SoftKind::Audio => "audio",
            SoftKind::Video => "video",
        }
    }

    /// Whether it is seen: pictures and frames may see themselves both ways, sounds never do.
    fn is_seen(self) -> bool {
        self != SoftKind::Audio
    }
}

/// A run of a step's rows.
#[derive(Clone, Copy, Debug)]
pub enum Piece<'a> {
    /// Ids, looked up in the embedding. A placeholder id without a soft token gets the padding's row.
    Tokens(&'a [TokenId]),
    /// Rows `[n, d_model]` as an encoder made them, taken as they are.
    Soft {
        /// Of what.
        kind: SoftKind,
        /// How many.
        n: usize,
        /// `[n, d_model]`.
        rows: &'a [f32],
    },
}

impl<'a> Piece<'a> {
    /// Rows of the sequence.
    pub fn n_rows(&self) -> usize {
        match self {
            Piece::Tokens(tokens) => tokens.len(),
            Piece::Soft { n, .. } => *n,
        }
    }

    /// Some of its rows.
    fn part(self, range: Range<usize>) -> Piece<'a> {
        match self {
            Piece::Tokens(tokens) => Piece::Tokens(&tokens[range]),
            Piece::Soft { kind, n, rows } => {
                let width = rows.len() / n.max(1);
                Piece::Soft { kind, n: range.len(), rows: &rows[range.start * width..range.end * width] }
            }
        }
    }
}

/// Rows of all pieces.
pub fn n_rows(pieces: &[Piece<'_>]) -> usize {
    pieces.iter().map(Piece::n_rows).sum()
}

/// Rows `range` of the pieces, as pieces.
pub fn parts<'a>(pieces: &'a [Piece<'a>], range: Range<usize>) -> impl Iterator<Item = Piece<'a>> {
    let mut at = 0;
    pieces.iter().filter_map(move |piece| {
        let here = at..at + piece.n_rows();
        at = here.end;
        let (from, to) = (range.start.clamp(here.start, here.end), range.end.clamp(here.start, here.end));
        (from < to).then(|| piece.part(from - here.start..to - here.start))
    })
}

/// Runs of rows that are seen, counted from the first row: neighbours without a token between them are one.
pub fn blocks(pieces: &[Piece<'_>], out: &mut Vec<Range<usize>>) {
    out.clear();
    let mut at = 0;
    for piece in pieces {
        let here = at..at + piece.n_rows();
        at = here.end;
        match (piece, out.last_mut()) {
            (Piece::Soft { kind, n: 1.., .. }, last) if kind.is_seen() => match last {
                Some(last) if last.end == here.start => last.end = here.end,
                _ => out.push(here),
            },
            _ => {}
        }
    }
}

/// Where a pass of up to `chunk` rows from `start` ends, of `total` rows: before a block that it would part, behind one
/// that it begins with, however long.
pub fn pass_end(start: usize, total: usize, chunk: usize, blocks: &[Range<usize>]) -> usize {
    let end = total.min(start + chunk);
    match blocks.iter().find(|block| block.start < end && end < block.end) {
        None => end,
        Some(block) if block.start > start => block.start,
        Some(block) => block.end,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROWS: [f32; 40] = [0.0; 40];

    fn soft(kind: SoftKind, n: usize) -> Piece<'static> {
        Piece::Soft { kind, n, rows: &ROWS[..2 * n] }
    }

    #[test]
    fn blocks_are_runs_of_what_is_seen() {
        let word = Piece::Tokens(&[TokenId(1); 2]);
        let pieces = [
            soft(SoftKind::Image, 3),
            word,
            soft(SoftKind::Audio, 4),
            soft(SoftKind::Video, 2),
            soft(SoftKind::Image, 1),
            Piece::Tokens(&[]),
            soft(SoftKind::Image, 5),
            word,
        ];
        let mut found = Vec::new();
        blocks(&pieces, &mut found);
        assert_eq!(found, [0..3, 9..17]);
    }

    #[track_caller]
    fn cuts(total: usize, chunk: usize, blocks: &[Range<usize>], expected: &[usize]) {
        let mut ends = vec![];
        while ends.last().copied().unwrap_or(0) < total {
            ends.push(pass_end(ends.last().copied().unwrap_or(0), total, chunk, blocks));
        }
        assert_eq!(ends, expected);
    }

    #[test]
    fn no_block_is_parted() {
        cuts(10, 4, &[], &[4, 8, 10]);
        cuts(10, 4, &[2..4, 4..8], &[4, 8, 10]);
        cuts(10, 4, std::slice::from_ref(&(3..5)), &[3, 7, 10]);
        cuts(12, 4, std::slice::from_ref(&(1..9)), &[1, 9, 12]);
        cuts(9, 4, std::slice::from_ref(&(0..9)), &[9]);
        cuts(9, 1, &[2..4, 4..6], &[1, 2, 4, 6, 7, 8, 9]);
    }

    #[test]
    fn parts_are_cut_out_of_pieces() {
        let ids = [1, 2, 3].map(TokenId);
        let rows: Vec<f32> = (0..8).map(|v| v as f32).collect();
        let pieces = [Piece::Tokens(&ids), Piece::Soft { kind: SoftKind::Image, n: 4, rows: &rows }];
        assert_eq!(n_rows(&pieces), 7);
        let cut: Vec<Piece<'_>> = parts(&pieces, 2..5).collect();
        assert!(matches!(cut[0], Piece::Tokens([TokenId(3)])));
        assert!(matches!(cut[1], Piece::Soft { n: 2, rows: [0.0, 1.0, 2.0, 3.0], .. }));
        assert_eq!(parts(&pieces, 3..3).count(), 0);
    }
}
