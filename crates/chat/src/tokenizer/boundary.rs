//! Where text can be cut before merging without changing the result.
//!
//! A merge joins text across the place between two characters `ab` only if its result has `ab` in it. So where
//! no merge result has them side by side, the text on both sides is tokenised independently, exactly. Gemma 4's
//! 236 thousand results have 34 thousand such pairs, and but for `>▁</` none with a space after a letter: the
//! pieces are words, without a pattern that would have to agree with the vocabulary.
//!
//! A pair outside ASCII is one bit of a hashed filter. A false positive keeps two pieces together, which costs
//! time and is still exact.

use super::hash::mix;
use super::merges::Merge;
use super::vocab::{SPACE_MARK, Vocab};

/// 2^20 bits: 34 thousand pairs leave 3 % false positives in 128 KiB.
const FILTER_BITS: usize = 1 << 20;

/// Which pairs of characters may be joined by a merge.
pub(super) struct Boundaries {
    /// Bit `b` of `ascii[a]`; a space stands for [`SPACE_MARK`].
    ascii: [u128; 128],
    filter: Vec<u64>,
}

impl Boundaries {
    /// Every pair that occurs in a merge result.
    pub(super) fn new(vocab: &Vocab, merges: &[Merge]) -> Self {
        let mut boundaries = Boundaries { ascii: [0; 128], filter: vec![0; FILTER_BITS / 64] };
        let mut previous = None;
        for merge in merges {
            if previous.replace(merge.result) == Some(merge.result) {
                continue;
            }
            let mut chars = vocab.piece(merge.result).unwrap_or("").chars().map(fold_space);
            let Some(mut a) = chars.next() else { continue };
            for b in chars {
                boundaries.insert(a, b);
                a = b;
            }
        }
        boundaries
    }

    /// Never a place to cut: for a vocabulary in which neighbours matter beyond merges.
    pub(super) fn none() -> Self {
        Boundaries { ascii: [u128::MAX; 128], filter: vec![u64::MAX; FILTER_BITS / 64] }
    }

    fn insert(&mut self, a: char, b: char) {
        if a.is_ascii() && b.is_ascii() {
            self.ascii[a as usize] |= 1 << b as u32;
        } else {
            let bit = filter_bit(a, b);
            self.filter[bit / 64] |= 1 << (bit % 64);
        }
    }

    /// Whether a merge may reach across the place between `a` and `b`.
    #[inline]
    fn joined(&self, a: char, b: char) -> bool {
        let bit = filter_bit(fold_space(a), fold_space(b));
        self.filter[bit / 64] >> (bit % 64) & 1 == 1
    }

    #[inline]
    fn joined_ascii(&self, a: u8, b: u8) -> bool {
        self.ascii[usize::from(a)] >> b & 1 == 1
    }

    /// Length in bytes of the first piece of `text`, which is not empty.
    #[inline]
    pub(super) fn first_piece(&self, text: &str) -> usize {
        let bytes = text.as_bytes();
        let mut end = 0;
        loop {
            // Both sides ASCII: one bit test per byte.
            while let [a, b, ..] = bytes[end..]
                && a.is_ascii()
                && b.is_ascii()
            {
                end += 1;
                if !self.joined_ascii(a, b) {
                    return end;
                }
            }
            let mut chars = text[end..].chars();
            let Some(a) = chars.next() else { return end };
            end += a.len_utf8();
            let Some(b) = chars.next() else { return end };
            let joined = match (u8::try_from(a), u8::try_from(b)) {
                (Ok(a), Ok(b)) if a.is_ascii() && b.is_ascii() => self.joined_ascii(a, b),
                _ if a == SPACE_MARK && b.is_ascii() => self.joined_ascii(b' ', b as u8),
                _ if b == SPACE_MARK && a.is_ascii() => self.joined_ascii(a as u8, b' '),
                _ if a == SPACE_MARK && b == SPACE_MARK => self.joined_ascii(b' ', b' '),
                _ => self.joined(a, b),
            };
            if !joined {
                return end;
            }
        }
    }
}

/// A space and its mark are one character to the vocabulary.
#[inline]
fn fold_space(c: char) -> char {
    if c == SPACE_MARK { ' ' } else { c }
}

#[inline]
fn filter_bit(a: char, b: char) -> usize {
    mix(u64::from(a as u32) << 32 | u64::from(b as u32)) as usize % FILTER_BITS
}
