//! The vocabulary: id → text, text → id, id → decoded bytes.
//!
//! 262,144 entries load in a few milliseconds because nothing is allocated per entry: texts lie end to end in
//! one arena with offsets, and the text → id table is open addressing over ids with 32 bits of hash beside each.

use super::hash::hash_bytes;
use super::{TokenKind, TokenizerError};

/// What Gemma writes for a space inside a piece.
pub(super) const SPACE_MARK: char = '\u{2581}';

/// Ids take 21 bits in a merge key ([`super::merges::Merges`]).
pub(super) const MAX_VOCAB: usize = 1 << 21;

/// Id → text and bytes, text → id.
pub(super) struct Vocab {
    text: String,
    /// Token `i` is `text[text_ends[i] .. text_ends[i + 1]]`.
    text_ends: Vec<u32>,
    bytes: Vec<u8>,
    bytes_ends: Vec<u32>,
    kinds: Vec<TokenKind>,
    table: PieceTable,
}

impl Vocab {
    /// `pieces[id]` with its kind; an empty piece is a gap in the numbering.
    pub(super) fn new(pieces: &[&str], kinds: Vec<TokenKind>) -> Result<Self, TokenizerError> {
        if pieces.is_empty() || pieces.len() > MAX_VOCAB {
            return Err(TokenizerError::Size { what: "tokens", found: pieces.len(), limit: MAX_VOCAB });
        }
        let total: usize = pieces.iter().map(|piece| piece.len()).sum();
        if u32::try_from(total).is_err() {
            return Err(TokenizerError::Size { what: "bytes of text", found: total, limit: u32::MAX as usize });
        }
        let table = PieceTable::new(pieces)?;
        let mut vocab = Vocab {
            text: String::with_capacity(total),
            text_ends: Vec::with_capacity(pieces.len() + 1),
            bytes: Vec::with_capacity(total),
            bytes_ends: Vec::with_capacity(pieces.len() + 1),
            kinds,
            table,
        };
        vocab.text_ends.push(0);
        vocab.bytes_ends.push(0);
        for (id, piece) in pieces.iter().enumerate() {
            vocab.text.push_str(piece);
            vocab.text_ends.push(vocab.text.len() as u32);
            match vocab.kinds[id] {
                TokenKind::Byte => {
                    let byte = parse_byte(piece)
                        .ok_or_else(|| TokenizerError::ByteToken { id, piece: (*piece).to_owned() })?;
                    vocab.bytes.push(byte);
                }
                TokenKind::Control => vocab.bytes.extend_from_slice(piece.as_bytes()),
                _ => push_decoded(piece, &mut vocab.bytes),
            }
            vocab.bytes_ends.push(vocab.bytes.len() as u32);
        }
        Ok(vocab)
    }

    pub(super) fn len(&self) -> usize {
        self.kinds.len()
    }

    pub(super) fn piece(&self, id: u32) -> Option<&str> {
        let id = id as usize;
        let (start, end) = (*self.text_ends.get(id)?, *self.text_ends.get(id + 1)?);
        Some(&self.text[start as usize..end as usize])
    }

    /// Empty for an id that isn't in the vocabulary.
    pub(super) fn bytes(&self, id: u32) -> &[u8] {
        let id = id as usize;
        match (self.bytes_ends.get(id), self.bytes_ends.get(id + 1)) {
            (Some(&start), Some(&end)) => &self.bytes[start as usize..end as usize],
            _ => &[],
        }
    }

    pub(super) fn kind(&self, id: u32) -> TokenKind {
        self.kinds.get(id as usize).copied().unwrap_or(TokenKind::Unused)
    }

    pub(super) fn id(&self, piece: &str) -> Option<u32> {
        self.table.probe(piece.as_bytes(), |id| self.text_bytes(id)).ok()
    }

    /// [`Self::id`] of many pieces at once, in half the time: each step does its memory accesses for all
    /// pieces before the next step needs one, so that the cache misses overlap.
    pub(super) fn ids<const N: usize>(&self, pieces: &[&str; N]) -> [Option<u32>; N] {
        let hashes = pieces.map(|piece| hash_bytes(piece.as_bytes()));
        let entries = hashes.map(|hash| self.table.slots[hash as usize & self.table.mask]);
        // For a free slot this is the first text, which is as good as any to compare with.
        let texts = entries.map(|entry| self.text_bytes((entry as u32).saturating_sub(1)));
        std::array::from_fn(|i| {
            let direct = entries[i] != 0 && texts[i] == pieces[i].as_bytes();
            if direct { Some(entries[i] as u32 - 1) } else { self.id(pieces[i]) }
        })
    }

    #[inline]
    fn text_bytes(&self, id: u32) -> &[u8] {
        let (start, end) = (self.text_ends[id as usize], self.text_ends[id as usize + 1]);
        &self.text.as_bytes()[start as usize..end as usize]
    }
}

/// `<0x41>` → 0x41. Upper-case digits only, as the reference library writes them.
pub(super) fn parse_byte(piece: &str) -> Option<u8> {
    let digits = piece.strip_prefix("<0x")?.strip_suffix('>')?;
    let well_formed = digits.len() == 2 && digits.bytes().all(|b| matches!(b, b'0'..=b'9' | b'A'..=b'F'));
    if well_formed { u8::from_str_radix(digits, 16).ok() } else { None }
}

fn push_decoded(piece: &str, out: &mut Vec<u8>) {
    let mut parts = piece.split(SPACE_MARK);
    if let Some(first) = parts.next() {
        out.extend_from_slice(first.as_bytes());
    }
    for part in parts {
        out.push(b' ');
        out.extend_from_slice(part.as_bytes());
    }
}

/// Text → id. A slot is 0 when free, else the upper half of the hash and `id + 1`.
struct PieceTable {
    slots: Vec<u64>,
    mask: usize,
}

impl PieceTable {
    fn new(pieces: &[&str]) -> Result<Self, TokenizerError> {
        let size = (pieces.len() * 2).next_power_of_two();
        let mut table = PieceTable { slots: vec![0; size], mask: size - 1 };
        for (id, piece) in pieces.iter().enumerate().filter(|(_, piece)| !piece.is_empty()) {
            match table.probe(piece.as_bytes(), |id| pieces[id as usize].as_bytes()) {
                Ok(first) => {
                    let (id, piece) = (id as u32, (*piece).to_owned());
                    return Err(TokenizerError::DuplicatePiece { id, first, piece });
                }
                Err((slot, tag)) => table.slots[slot] = tag | (id as u64 + 1),
            }
        }
        Ok(table)
    }

    /// The id of `piece`, or the free slot where it would go with the tag it would carry.
    #[inline]
    fn probe<'a>(&self, piece: &[u8], text: impl Fn(u32) -> &'a [u8]) -> Result<u32, (usize, u64)> {
        let hash = hash_bytes(piece);
        let tag = hash & !u64::from(u32::MAX);
        let mut slot = hash as usize & self.mask;
        loop {
            let entry = self.slots[slot];
            if entry == 0 {
                return Err((slot, tag));
            }
            let id = entry as u32 - 1;
            if entry & !u64::from(u32::MAX) == tag && text(id) == piece {
                return Ok(id);
            }
            slot = (slot + 1) & self.mask;
        }
    }
}
