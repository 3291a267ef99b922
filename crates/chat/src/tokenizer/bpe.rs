//! Byte-pair encoding of a text: cut into pieces, each piece into symbols, and these merged ([`super::merge`]).
//! The result is that of the reference library on the whole text (`tokenizers`, `models/bpe/word.rs`,
//! `Word::merge_all`), in O(n log n) for any text.
//!
//! Two things make it fast and change nothing: text is cut where no merge can reach across ([`super::boundary`]),
//! and a repeated piece copies the ids of its last occurrence.

use carat_tensor::TokenId;

use super::boundary::Boundaries;
use super::hash::hash_bytes;
use super::merge::MergeWork;
use super::merges::Merges;
use super::vocab::SPACE_MARK;

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
        self.work.merge(&self.bpe.merges, &mut self.ids);
        out.extend(self.ids.iter().map(|&id| TokenId(id)));
    }
}
