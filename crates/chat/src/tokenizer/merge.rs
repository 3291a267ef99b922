//! Merging the symbols of a piece: of all neighbouring pairs the one of lowest rank, leftmost first, until none is
//! left.
//!
//! A few symbols are merged by scanning their ranks, more of them with a heap, and many in windows, so that ranks
//! and heap stay in the processor's cache. Windows overlap, and the second takes over from the first at a token that
//! both begin at the same place. That is exact: tokens are what a text becomes if every token is what its own text
//! becomes and every two neighbours are what theirs become. (In the merging of the whole, the first merge across a
//! place between two tokens would be the first across it in the merging of these two as well, since merges beside
//! them don't change which of theirs comes first.) Neighbours in a window are of that kind, and each two neighbours
//! of the result were neighbours in a window.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::merges::{Merges, NO_RANK, RANK_BITS};

/// Up to this many symbols scanning beats a heap.
const SHORT: usize = 40;
/// Symbols of a window: its ranks and heap take 20 KiB.
const WINDOW: usize = 512;
/// Symbols that a window repeats of the one before, about: longer than tokens are.
const OVERLAP: usize = 64;

/// Leads nowhere.
const END: usize = usize::MAX;
/// Four terabytes of text.
const POSITION_BITS: u32 = 64 - RANK_BITS;

/// Orders by rank, then by position.
#[inline]
fn heap_entry(rank: u32, at: usize) -> Reverse<u64> {
    Reverse(u64::from(rank) << POSITION_BITS | at as u64)
}

/// A token of a piece and the symbol it begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Placed {
    start: usize,
    id: u32,
}

/// Scratch of the ways to merge.
#[derive(Default)]
pub(super) struct MergeWork {
    /// `ranks[i]` is the rank of symbol `i` with its right neighbour.
    ranks: Vec<u32>,
    next: Vec<usize>,
    previous: Vec<usize>,
    /// [`heap_entry`] of each pair, lowest first; entries whose pair has changed since are skipped.
    heap: BinaryHeap<Reverse<u64>>,
    windows: Windows,
}

/// Scratch of merging in windows.
#[derive(Default)]
struct Windows {
    symbols: Vec<u32>,
    tokens: Vec<Placed>,
    /// Tokens of the window before that are not certain yet.
    held: Vec<Placed>,
    certain: Vec<u32>,
}

impl MergeWork {
    /// Merges until no pair is left that merges.
    pub(super) fn merge(&mut self, merges: &Merges, ids: &mut Vec<u32>) {
        if ids.len() <= SHORT {
            self.merge_short(merges, ids);
        } else if ids.len() <= WINDOW || !self.merge_in_windows(merges, ids, WINDOW, OVERLAP) {
            self.merge_long(merges, ids);
        }
    }

    /// O(n): windows of `window` symbols that repeat about the last `overlap` of the one before. False, and nothing
    /// done, where two windows have no token in common.
    fn merge_in_windows(&mut self, merges: &Merges, ids: &mut Vec<u32>, window: usize, overlap: usize) -> bool {
        let mut work = std::mem::take(&mut self.windows);
        let met = self.windows(merges, ids, (window, overlap), &mut work).is_some();
        if met {
            std::mem::swap(ids, &mut work.certain);
        }
        self.windows = work;
        met
    }

    /// [`Self::merge_in_windows`] into `certain`.
    fn windows(
        &mut self,
        merges: &Merges,
        ids: &[u32],
        (window, overlap): (usize, usize),
        work: &mut Windows,
    ) -> Option<()> {
        let Windows { symbols, tokens, held, certain } = work;
        certain.clear();
        held.clear();
        // Where the window begins, and the token of the one before that begins there.
        let (mut from, mut first) = (0, 0);
        loop {
            let end = (from + window).min(ids.len());
            symbols.clear();
            symbols.extend_from_slice(&ids[from..end]);
            self.merge_linked(merges, symbols);
            tokens.clear();
            self.each_token(|at| tokens.push(Placed { start: from + at, id: symbols[at] }));
            let (kept, skipped) = if from == 0 { (0, 0) } else { meeting(held, tokens, first)? };
            certain.extend(held[..kept].iter().map(|token| token.id));
            tokens.drain(..skipped);
            std::mem::swap(held, tokens);
            if end == ids.len() {
                certain.extend(held.iter().map(|token| token.id));
                return Some(());
            }
            first = held.iter().rposition(|token| token.start + overlap <= end)?;
            let next = held[first].start;
            // Tokens about as long as windows would make this slow.
            if next < from + window / 4 {
                return None;
            }
            from = next;
        }
    }

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

    /// O(n log n) with [`Self::merge_linked`].
    fn merge_long(&mut self, merges: &Merges, ids: &mut Vec<u32>) {
        self.merge_linked(merges, ids);
        let mut kept = 0;
        self.each_token(|at| {
            ids[kept] = ids[at];
            kept += 1;
        });
        ids.truncate(kept);
    }

    /// The places of `ids` that hold a token after [`Self::merge_linked`], in order.
    fn each_token(&self, mut see: impl FnMut(usize)) {
        let mut at = 0;
        while at != END {
            see(at);
            at = self.next[at];
        }
    }

    /// Merges a heap of pairs over a linked list of symbols: each token stands at the place of its first symbol, and
    /// `next` leads from one to the next.
    fn merge_linked(&mut self, merges: &Merges, ids: &mut [u32]) {
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
    }
}

/// How many tokens of a window come before the first that the next window has as well, and how many of that one's do.
/// The next window begins where token `first` does.
fn meeting(window: &[Placed], next: &[Placed], first: usize) -> Option<(usize, usize)> {
    let (mut i, mut j) = (first, 0);
    loop {
        let (a, b) = (window.get(i)?, next.get(j)?);
        if a == b {
            return Some((i, j));
        }
        i += usize::from(a.start <= b.start);
        j += usize::from(b.start <= a.start);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tokenizer::TokenKind;
    use crate::tokenizer::merges::Merge;
    use crate::tokenizer::vocab::Vocab;

    /// splitmix64.
    struct Rng(u64);

    impl Rng {
        fn below(&mut self, n: usize) -> usize {
            self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            ((z ^ (z >> 31)) % n as u64) as usize
        }
    }

    /// Merges of up to three letters' joins in any order: what is made late may be used early.
    fn random_merges(rng: &mut Rng) -> (Merges, usize) {
        let letters = 1 + rng.below(3);
        let mut pieces: Vec<String> = ["a", "b", "c"][..letters].iter().map(|s| (*s).to_owned()).collect();
        let mut merges = Vec::new();
        for _ in 0..1 + rng.below(30) {
            let (left, right) = (rng.below(pieces.len()), rng.below(pieces.len()));
            let joined = format!("{}{}", pieces[left], pieces[right]);
            let result = pieces.iter().position(|piece| *piece == joined).unwrap_or(pieces.len());
            if result == pieces.len() {
                pieces.push(joined);
            }
            let at = rng.below(merges.len() + 1);
            merges.insert(at, Merge { left: left as u32, right: right as u32, result: result as u32 });
        }
        let texts: Vec<&str> = pieces.iter().map(String::as_str).collect();
        let vocab = Vocab::new(&texts, vec![TokenKind::Normal; texts.len()]).unwrap();
        (Merges::new(&vocab, &merges), letters)
    }

    #[test]
    fn every_way_to_merge_gives_the_same() {
        let mut rng = Rng(1);
        let mut work = MergeWork::default();
        let mut in_windows = 0;
        for case in 0..20_000 {
            let (merges, letters) = random_merges(&mut rng);
            let ids: Vec<u32> = (0..1 + rng.below(200)).map(|_| rng.below(letters) as u32).collect();
            let (mut scanned, mut long, mut windows) = (ids.clone(), ids.clone(), ids.clone());
            work.merge_short(&merges, &mut scanned);
            work.merge_long(&merges, &mut long);
            assert_eq!(scanned, long, "case {case}: {ids:?}");
            let (window, overlap) = (8 + rng.below(40), rng.below(8));
            if work.merge_in_windows(&merges, &mut windows, window, overlap) {
                in_windows += 1;
                assert_eq!(windows, long, "case {case}: {ids:?} in windows of {window} with {overlap}");
            } else {
                assert_eq!(windows, ids, "nothing is done");
            }
        }
        assert!(in_windows > 10_000, "{in_windows}");
    }

    #[test]
    fn windows_that_do_not_meet_are_told() {
        let placed = |tokens: &[(usize, u32)]| -> Vec<Placed> {
            tokens.iter().map(|&(start, id)| Placed { start, id }).collect()
        };
        let window = placed(&[(0, 1), (2, 2), (4, 3), (6, 4), (8, 5)]);
        assert_eq!(meeting(&window, &placed(&[(4, 3), (6, 4)]), 2), Some((2, 0)));
        assert_eq!(meeting(&window, &placed(&[(4, 9), (5, 9), (8, 5), (10, 6)]), 2), Some((4, 2)));
        assert_eq!(meeting(&window, &placed(&[(4, 9), (6, 9), (8, 9)]), 2), None, "other tokens at the same places");
        assert_eq!(meeting(&window, &placed(&[(4, 9), (7, 9)]), 2), None);
    }
}
