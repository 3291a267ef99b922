//! Byte-pair encoding: of all neighbouring pairs, merge the one of lowest rank, leftmost first, until none is
//! left. The result is that of the reference library on the whole text (`tokenizers`, `models/bpe/word.rs`,
//! `Word::merge_all`), in O(n log n) for any text.
//!
//! Three things make it fast and change nothing: text is cut where no merge can reach across
//! ([`super::boundary`]), a repeated piece copies the ids of its last occurrence, and a short piece is merged by
//! scanning a few ranks where a long one needs a heap.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use carat_tensor::TokenId;

use super::boundary::Boundaries;
use super::hash::hash_bytes;
use super::merges::{Merges, NO_RANK, RANK_BITS};
use super::vocab::SPACE_MARK;

/// Up to this many symbols scanning beats a heap.
const SHORT: usize = 40;
/// Longer pieces rarely repeat.
const CACHED_BYTES: usize = 64;
/// 16 bytes each: 128 KiB stays in the second-level cache.
const MAX_CACHE_SLOTS: usize = 1 << 13;

/// Everything that encoding reads.
pub(super) struct Bpe {
    pub(super) merges: Merges,
    pub(super) boundaries: Boundaries,
    /// Id of a one-character piece, plus one, by code point; 0 for none. Zero pages that are never touched cost
    /// no memory.
    pub(super) char_ids: Vec<u32>,
    /// Id of each byte's token.
    pub(super) byte_ids: Box<[Option<u32>; 256]>,
    /// Stands for what has neither character nor byte tokens.
    pub(super) unknown: Option<u32>,
    /// One unknown token for a run of unknown characters.
    pub(super) fuse_unknown: bool,
}

impl Bpe {
    /// Ids of single characters and, for a character without, of its bytes.
    fn symbols(&self, piece: &str, ids: &mut Vec<u32>) {
        ids.clear();
        let mut pending_unknown = None;
        for c in piece.chars() {
            let c = if c == ' ' { SPACE_MARK } else { c };
            let id = self.char_ids[c as usize];
            if id != 0 {
                ids.extend(pending_unknown.take());
                ids.push(id - 1);
                continue;
            }
            let mut utf8 = [0; 4];
            let utf8 = c.encode_utf8(&mut utf8).as_bytes();
            if utf8.iter().all(|&byte| self.byte_ids[usize::from(byte)].is_some()) {
                ids.extend(utf8.iter().filter_map(|&byte| self.byte_ids[usize::from(byte)]));
            } else if let Some(unknown) = self.unknown {
                if !self.fuse_unknown {
                    ids.extend(pending_unknown);
                }
                pending_unknown = Some(unknown);
            }
        }
        ids.extend(pending_unknown);
    }
}

/// Four terabytes of text.
const POSITION_BITS: u32 = 64 - RANK_BITS;

/// Orders by rank, then by position.
#[inline]
fn heap_entry(rank: u32, at: usize) -> Reverse<u64> {
    Reverse(u64::from(rank) << POSITION_BITS | at as u64)
}

#[derive(Clone, Copy, Default)]
struct CacheSlot {
    /// Where the piece was last seen in the text.
    start: u32,
    len: u32,
    /// Where its ids are in the output.
    ids_start: u32,
    /// 0 in a free slot.
    ids_len: u32,
}

/// One run over one text.
pub(super) struct Encoder<'a> {
    bpe: &'a Bpe,
    text: &'a [u8],
    cache: Vec<CacheSlot>,
    ids: Vec<u32>,
    work: MergeWork,
}

impl<'a> Encoder<'a> {
    pub(super) fn new(bpe: &'a Bpe, text: &'a [u8]) -> Self {
        // Positions are kept in 32 bits; a text past 4 GiB goes without the cache.
        let slots = if u32::try_from(text.len()).is_ok() {
            (text.len() / 16).next_power_of_two().min(MAX_CACHE_SLOTS)
        } else {
            0
        };
        Encoder { bpe, text, cache: vec![CacheSlot::default(); slots], ids: Vec::new(), work: MergeWork::default() }
    }

    /// Appends the ids of `span`, which lies at byte `offset` of the encoder's text.
    pub(super) fn span(&mut self, span: &str, offset: usize, out: &mut Vec<TokenId>) {
        let mut start = 0;
        while start < span.len() {
            let end = start + self.bpe.boundaries.first_piece(&span[start..]);
            self.piece(&span[start..end], offset + start, out);
            start = end;
        }
    }

    fn piece(&mut self, piece: &str, start: usize, out: &mut Vec<TokenId>) {
        if piece.len() > CACHED_BYTES || self.cache.is_empty() {
            return self.merge(piece, out);
        }
        let index = hash_bytes(piece.as_bytes()) as usize & (self.cache.len() - 1);
        let slot = self.cache[index];
        let seen = slot.start as usize..slot.start as usize + slot.len as usize;
        let ids_start = out.len();
        if slot.ids_len != 0 && &self.text[seen] == piece.as_bytes() {
            out.extend_from_within(slot.ids_start as usize..slot.ids_start as usize + slot.ids_len as usize);
        } else {
            self.merge(piece, out);
        }
        // A hit is noted as well: the newest place is the likeliest to be in the processor's cache.
        if let (Ok(ids_start), Ok(ids_len)) = (u32::try_from(ids_start), u32::try_from(out.len() - ids_start)) {
            self.cache[index] = CacheSlot { start: start as u32, len: piece.len() as u32, ids_start, ids_len };
        }
    }

    fn merge(&mut self, piece: &str, out: &mut Vec<TokenId>) {
        self.bpe.symbols(piece, &mut self.ids);
        if self.ids.len() <= SHORT {
            self.work.merge_short(&self.bpe.merges, &mut self.ids);
        } else {
            self.work.merge_long(&self.bpe.merges, &mut self.ids);
        }
        out.extend(self.ids.iter().map(|&id| TokenId(id)));
    }
}

/// Scratch of the two ways to merge.
#[derive(Default)]
struct MergeWork {
    /// `ranks[i]` is the rank of symbol `i` with its right neighbour.
    ranks: Vec<u32>,
    next: Vec<usize>,
    previous: Vec<usize>,
    /// [`heap_entry`] of each pair, lowest first; entries whose pair has changed since are skipped.
    heap: BinaryHeap<Reverse<u64>>,
}

impl MergeWork {
    /// O(n²) with a tiny constant.
    fn merge_short(&mut self, merges: &Merges, ids: &mut Vec<u32>) {
        let ranks = &mut self.ranks;
        ranks.clear();
        ranks.extend(ids.windows(2).map(|pair| merges.rank(pair[0], pair[1])));
        loop {
            let mut best = NO_RANK;
            let mut at = 0;
            for (i, &rank) in ranks.iter().enumerate() {
                if rank < best {
                    (best, at) = (rank, i);
                }
            }
            if best == NO_RANK {
                return;
            }
            ids[at] = merges.result(best);
            ids.remove(at + 1);
            ranks.remove(at);
            if at > 0 {
                ranks[at - 1] = merges.rank(ids[at - 1], ids[at]);
            }
            if at < ranks.len() {
                ranks[at] = merges.rank(ids[at], ids[at + 1]);
            }
        }
    }

    /// O(n log n): a heap of pairs over a linked list of symbols.
    fn merge_long(&mut self, merges: &Merges, ids: &mut Vec<u32>) {
        const END: usize = usize::MAX;
        let n = ids.len();
        let (ranks, next, previous) = (&mut self.ranks, &mut self.next, &mut self.previous);
        ranks.clear();
        ranks.extend(ids.windows(2).map(|pair| merges.rank(pair[0], pair[1])));
        ranks.push(NO_RANK);
        next.clear();
        next.extend((1..n).chain([END]));
        previous.clear();
        previous.extend([END].into_iter().chain(0..n - 1));
        let mut entries = std::mem::take(&mut self.heap).into_vec();
        entries.clear();
        let pairs = ranks.iter().enumerate().filter(|(_, rank)| **rank != NO_RANK);
        entries.extend(pairs.map(|(at, &rank)| heap_entry(rank, at)));
        let mut heap = BinaryHeap::from(entries);
        while let Some(Reverse(entry)) = heap.pop() {
            let (rank, at) = ((entry >> POSITION_BITS) as u32, entry as usize & ((1 << POSITION_BITS) - 1));
            // A symbol that was merged away has NO_RANK, and a changed pair another rank.
            if ranks[at] != rank {
                continue;
            }
            let gone = next[at];
            let after = next[gone];
            ids[at] = merges.result(rank);
            ranks[gone] = NO_RANK;
            next[at] = after;
            if after != END {
                previous[after] = at;
            }
            for left in [at, previous[at]] {
                if left == END {
                    continue;
                }
                let right = next[left];
                ranks[left] = if right == END { NO_RANK } else { merges.rank(ids[left], ids[right]) };
                if ranks[left] != NO_RANK {
                    heap.push(heap_entry(ranks[left], left));
                }
            }
        }
        self.heap = heap;
        let mut at = 0;
        let mut kept = 0;
        while at != END {
            ids[kept] = ids[at];
            kept += 1;
            at = next[at];
        }
        ids.truncate(kept);
    }
}
