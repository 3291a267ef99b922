//! The merge table: (left id, right id) → rank and result.
//!
//! A slot packs left (21 bits), right (21) and rank (22) into eight bytes, so half a million merges take 8 MiB
//! and a lookup touches one cache line; the result is fetched by rank only for the pair that wins.

use std::ops::Range;

use super::hash::mix;
use super::vocab::Vocab;
use super::{TokenKind, TokenizerError};

/// Width of a rank in packed entries.
pub(super) const RANK_BITS: u32 = 22;
const ID_BITS: u32 = 21;
/// All ones in the rank field marks a free slot, so that rank can't be used.
const MAX_MERGES: usize = (1 << RANK_BITS) - 1;
const FREE: u64 = u64::MAX;
/// Below this many merges a second thread costs more than it saves.
const MERGES_PER_THREAD: usize = 32_768;
/// Merges looked up together.
const BATCH: usize = 16;
const MAX_THREADS: usize = 4;

/// The rank of a pair that doesn't merge: greater than every rank.
pub(super) const NO_RANK: u32 = u32::MAX;

/// A merge list as it lies in a file, in rank order.
pub(super) enum MergeTexts<'a> {
    /// `"left right"`, as in GGUF.
    Joined(&'a [&'a str]),
    /// Pieces end to end; merge `i` ends its left piece at `ends[i].0` and its right one at `ends[i].1`.
    Apart {
        /// All pieces.
        text: String,
        /// Ends of left and right.
        ends: Vec<(u32, u32)>,
    },
}

impl MergeTexts<'_> {
    pub(super) fn len(&self) -> usize {
        match self {
            MergeTexts::Joined(list) => list.len(),
            MergeTexts::Apart { ends, .. } => ends.len(),
        }
    }

    fn get(&self, rank: usize) -> Result<(&str, &str), TokenizerError> {
        let (left, right) = match self {
            MergeTexts::Joined(list) => split_joined(list[rank]).unwrap_or((list[rank], "")),
            MergeTexts::Apart { text, ends } => {
                let start = if rank == 0 { 0 } else { ends[rank - 1].1 as usize };
                let (middle, end) = (ends[rank].0 as usize, ends[rank].1 as usize);
                (&text[start..middle], &text[middle..end])
            }
        };
        if left.is_empty() || right.is_empty() {
            return Err(TokenizerError::MergeText { rank, text: format!("{left}{right}") });
        }
        Ok((left, right))
    }
}

/// `"a b"` → `("a", "b")`. A space in first place belongs to the left piece.
pub(super) fn split_joined(text: &str) -> Option<(&str, &str)> {
    let first = text.chars().next()?.len_utf8();
    let space = first + text[first..].find(' ')?;
    Some((&text[..space], &text[space + 1..]))
}

/// One merge in ids.
#[derive(Clone, Copy)]
pub(super) struct Merge {
    pub(super) left: u32,
    pub(super) right: u32,
    pub(super) result: u32,
}

/// Refuses more merges than ranks.
pub(super) fn check_count(found: usize) -> Result<(), TokenizerError> {
    match found {
        0..=MAX_MERGES => Ok(()),
        _ => Err(TokenizerError::Size { what: "merges", found, limit: MAX_MERGES }),
    }
}

/// Looks every piece of a merge list up, on as many threads as pay.
pub(super) fn resolve(vocab: &Vocab, texts: &MergeTexts<'_>) -> Result<Vec<Merge>, TokenizerError> {
    check_count(texts.len())?;
    let cores = std::thread::available_parallelism().map_or(1, |n| n.get());
    let threads = (texts.len() / MERGES_PER_THREAD).clamp(1, cores.min(MAX_THREADS));
    let share = texts.len().div_ceil(threads);
    let ranges = (0..threads).map(|i| i * share..((i + 1) * share).min(texts.len()));
    std::thread::scope(|scope| {
        let mut workers: Vec<_> =
            ranges.skip(1).map(|range| scope.spawn(move || resolve_range(vocab, texts, range))).collect();
        let mut merges = resolve_range(vocab, texts, 0..share)?;
        merges.reserve(texts.len() - merges.len());
        for worker in workers.drain(..) {
            let part = worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
            merges.extend_from_slice(&part);
        }
        Ok(merges)
    })
}

fn resolve_range(vocab: &Vocab, texts: &MergeTexts<'_>, ranks: Range<usize>) -> Result<Vec<Merge>, TokenizerError> {
    let mut merges = Vec::with_capacity(ranks.len());
    let mut guess = 0;
    let mut joined = String::new();
    for first in ranks.clone().step_by(BATCH) {
        let batch = first..(first + BATCH).min(ranks.end);
        let (mut lefts, mut rights) = ([""; BATCH], [""; BATCH]);
        for (i, rank) in batch.clone().enumerate() {
            (lefts[i], rights[i]) = texts.get(rank)?;
        }
        let (left_ids, right_ids) = (vocab.ids(&lefts), vocab.ids(&rights));
        for (i, rank) in batch.enumerate() {
            let (left, right) = (lefts[i], rights[i]);
            let missing = |missing: &str| TokenizerError::MergePiece {
                rank,
                left: left.to_owned(),
                right: right.to_owned(),
                missing: missing.to_owned(),
            };
            let left_id = left_ids[i].ok_or_else(|| missing(left))?;
            let right_id = right_ids[i].ok_or_else(|| missing(right))?;
            let inert = |id| matches!(vocab.kind(id), TokenKind::Byte | TokenKind::Unknown);
            if inert(left_id) || inert(right_id) {
                return Err(TokenizerError::MergeOperand { rank, left: left.to_owned(), right: right.to_owned() });
            }
            // Lists made from scores name the result of the merge before or the next id in 514 of Gemma's 515
            // thousand merges, which saves a third of the lookups.
            let result = match [guess, guess + 1].into_iter().find(|&id| is_joined(vocab, id, left, right)) {
                Some(id) => id,
                None => {
                    joined.clear();
                    joined.push_str(left);
                    joined.push_str(right);
                    vocab.id(&joined).ok_or_else(|| missing(&joined))?
                }
            };
            guess = result;
            merges.push(Merge { left: left_id, right: right_id, result });
        }
    }
    Ok(merges)
}

fn is_joined(vocab: &Vocab, id: u32, left: &str, right: &str) -> bool {
    vocab.piece(id).is_some_and(|piece| {
        piece.len() == left.len() + right.len() && piece.starts_with(left) && piece.ends_with(right)
    })
}

/// (left id, right id) → rank; rank → result.
pub(super) struct Merges {
    slots: Vec<u64>,
    mask: usize,
    results: Vec<u32>,
}

impl Merges {
    /// `merges[rank]`; of a pair given twice the later counts, as in the reference library. A merge into a
    /// control token is left out: text could become that token.
    pub(super) fn new(vocab: &Vocab, merges: &[Merge]) -> Self {
        let size = (merges.len() * 2).next_power_of_two().max(2);
        let mut table = Merges {
            slots: vec![FREE; size],
            mask: size - 1,
            results: merges.iter().map(|merge| merge.result).collect(),
        };
        for (rank, merge) in merges.iter().enumerate() {
            if vocab.kind(merge.result) == TokenKind::Control {
                continue;
            }
            let key = key(merge.left, merge.right);
            let mut slot = mix(key) as usize & table.mask;
            while table.slots[slot] != FREE && table.slots[slot] >> RANK_BITS != key {
                slot = (slot + 1) & table.mask;
            }
            table.slots[slot] = key << RANK_BITS | rank as u64;
        }
        table
    }

    /// Rank of the pair, lower is earlier; [`NO_RANK`] where it doesn't merge.
    #[inline]
    pub(super) fn rank(&self, left: u32, right: u32) -> u32 {
        let key = key(left, right);
        let mut slot = mix(key) as usize & self.mask;
        loop {
            let entry = self.slots[slot];
            if entry >> RANK_BITS == key && entry != FREE {
                return (entry & MAX_MERGES as u64) as u32;
            }
            if entry == FREE {
                return NO_RANK;
            }
            slot = (slot + 1) & self.mask;
        }
    }

    /// What the merge of that rank makes.
    #[inline]
    pub(super) fn result(&self, rank: u32) -> u32 {
        self.results[rank as usize]
    }
}

#[inline]
fn key(left: u32, right: u32) -> u64 {
    u64::from(left) << ID_BITS | u64::from(right)
}
