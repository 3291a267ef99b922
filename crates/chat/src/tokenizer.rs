//! Text ↔ token ids, exactly as Gemma 4's tokenizer defines it, and Gemma 3's, which differs in names only.
//!
//! A space is written `▁`; then byte-pair encoding runs over the whole text between control tokens; a character
//! the vocabulary lacks becomes its UTF-8 bytes `<0xHH>`. There is no pre-tokenisation, no prefix space and no
//! Unicode normalisation. The authority is the reference library (`tokenizers`) with Gemma's `tokenizer.json`;
//! programs that cut at newlines first differ from it.
//!
//! Text that a user wrote is encoded with [`Tokenizer::encode`], which has no way to produce a control token;
//! [`Tokenizer::encode_with_special`] is for text that a template made. No `<bos>` is ever added.

mod boundary;
mod bpe;
mod error;
mod hash;
mod json;
mod merge;
mod merges;
mod parts;
mod special;
mod stream;
mod vocab;

use carat_tensor::TokenId;

pub use error::TokenizerError;
pub use parts::VocabParts;
pub use special::SpecialIds;
pub use stream::StreamDecoder;

use boundary::Boundaries;
use bpe::{Bpe, Encoder};
use merges::{Merge, Merges};
use special::Matcher;
use vocab::{Vocab, parse_byte};

/// What a vocabulary entry is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenKind {
    /// Text.
    Normal,
    /// A token with a meaning of its own, which user text never becomes. Gemma 4's markers (`<|x>`, `<x|>`,
    /// `<|x|>`) always are, whatever a file calls them.
    Control,
    /// Text that is always one token, taken out before merging.
    UserDefined,
    /// Stands for what can't be written otherwise.
    Unknown,
    /// One byte, `<0xHH>`.
    Byte,
    /// A gap in the numbering, or an entry marked as unused.
    Unused,
}

/// What decoding does with control tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Specials {
    /// Writes their text.
    Show,
    /// Leaves them out.
    Hide,
}

/// A vocabulary ready to encode and decode. Immutable, so one serves all threads.
pub struct Tokenizer {
    vocab: Vocab,
    bpe: Bpe,
    special: SpecialIds,
    /// User-defined tokens.
    always: Matcher,
    /// User-defined and control tokens.
    added: Matcher,
}

/// What the file formats are read into.
struct Model {
    vocab: Vocab,
    /// In rank order.
    merges: Vec<Merge>,
    byte_fallback: bool,
    unknown: Option<u32>,
    fuse_unknown: bool,
}

impl Tokenizer {
    fn assemble(model: Model) -> Self {
        let Model { vocab, merges, byte_fallback, unknown, fuse_unknown } = model;
        let mut byte_ids = Box::new([None; 256]);
        let mut char_ids = vec![0; char::MAX as usize + 1];
        for id in 0..vocab.len() as u32 {
            let piece = vocab.piece(id).unwrap_or("");
            match vocab.kind(id) {
                TokenKind::Control => {}
                TokenKind::Byte if byte_fallback => {
                    if let Some(byte) = parse_byte(piece) {
                        byte_ids[usize::from(byte)] = Some(id);
                    }
                }
                _ => {
                    let mut chars = piece.chars();
                    if let (Some(c), None) = (chars.next(), chars.next()) {
                        char_ids[c as usize] = id + 1;
                    }
                }
            }
        }
        // Without all bytes, unknown characters are fused with unknown neighbours: they can't be cut apart.
        let all_bytes = byte_ids.iter().all(Option::is_some);
        let cut = || if all_bytes { Boundaries::new(&vocab, &merges) } else { Boundaries::none() };
        let of_kind = |kinds: &[TokenKind]| {
            let ids = (0..vocab.len() as u32).filter(|&id| kinds.contains(&vocab.kind(id)));
            Matcher::new(ids.filter_map(|id| Some((id, vocab.piece(id)?))))
        };
        let always = of_kind(&[TokenKind::UserDefined]);
        let added = of_kind(&[TokenKind::UserDefined, TokenKind::Control]);
        let (merges, boundaries) = std::thread::scope(|scope| {
            let boundaries = scope.spawn(cut);
            let merges = Merges::new(&vocab, &merges);
            (merges, boundaries.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
        });
        let special = SpecialIds::new(&vocab);
        let bpe = Bpe { merges, boundaries, char_ids, byte_ids, unknown, fuse_unknown };
        Tokenizer { vocab, bpe, special, always, added }
    }

    /// Number of ids, gaps included.
    pub fn vocab_size(&self) -> usize {
        self.vocab.len()
    }

    /// Ids of text that a user wrote: control tokens in it are text like any other.
    pub fn encode(&self, text: &str) -> Vec<TokenId> {
        let mut ids = Vec::new();
        self.encode_into(text, &mut ids);
        ids
    }

    /// [`Self::encode`], appending to `out`.
    pub fn encode_into(&self, text: &str, out: &mut Vec<TokenId>) {
        self.run(text.as_bytes(), &self.always, out);
    }

    /// [`Self::encode`] of bytes that may not be UTF-8: a byte that isn't part of a character becomes its byte
    /// token.
    pub fn encode_bytes(&self, text: &[u8]) -> Vec<TokenId> {
        let mut ids = Vec::new();
        self.run(text, &self.always, &mut ids);
        ids
    }

    /// Ids of text that a template made: control tokens in it become their ids, leftmost first and of those
    /// starting at the same place the longest.
    pub fn encode_with_special(&self, text: &str) -> Vec<TokenId> {
        let mut ids = Vec::new();
        self.run(text.as_bytes(), &self.added, &mut ids);
        ids
    }

    fn run(&self, text: &[u8], matcher: &Matcher, out: &mut Vec<TokenId>) {
        let mut encoder = Encoder::new(&self.bpe, text);
        let mut offset = 0;
        for chunk in text.utf8_chunks() {
            let valid = chunk.valid();
            let mut start = 0;
            while let Some((found, end, id)) = matcher.find(valid.as_bytes(), start) {
                encoder.span(&valid[start..found], offset + start, out);
                out.push(TokenId(id));
                start = end;
            }
            encoder.span(&valid[start..], offset + start, out);
            let bytes = chunk.invalid().iter();
            out.extend(bytes.filter_map(|&b| self.bpe.byte_ids[usize::from(b)].or(self.bpe.unknown)).map(TokenId));
            offset += valid.len() + chunk.invalid().len();
        }
    }

    /// The id of a vocabulary entry, spelt as in the vocabulary.
    pub fn id(&self, piece: &str) -> Option<TokenId> {
        self.vocab.id(piece).map(TokenId)
    }

    /// The entry as the vocabulary spells it, a space as `▁`. Empty for a gap, `None` past the end.
    pub fn piece(&self, id: TokenId) -> Option<&str> {
        self.vocab.piece(id.0)
    }

    /// What the token stands for in text: `▁` is a space, `<0xHH>` a byte, a control token its own name. Empty
    /// for an id that isn't in the vocabulary.
    pub fn bytes(&self, id: TokenId) -> &[u8] {
        self.vocab.bytes(id.0)
    }

    /// What the entry is for.
    pub fn kind(&self, id: TokenId) -> TokenKind {
        self.vocab.kind(id.0)
    }

    /// Whether the token has a meaning of its own, and so is never part of what a user wrote.
    pub fn is_control(&self, id: TokenId) -> bool {
        self.kind(id) == TokenKind::Control
    }

    /// Text of ids; bytes that aren't UTF-8 become U+FFFD.
    pub fn decode(&self, ids: &[TokenId], specials: Specials) -> String {
        let shown = ids.iter().filter(|&&id| specials == Specials::Show || !self.is_control(id));
        let bytes: Vec<u8> = shown.flat_map(|&id| self.bytes(id)).copied().collect();
        match String::from_utf8(bytes) {
            Ok(text) => text,
            Err(e) => String::from_utf8_lossy(e.as_bytes()).into_owned(),
        }
    }

    /// Ids of the tokens with a meaning.
    pub fn special(&self) -> &SpecialIds {
        &self.special
    }
}

impl std::fmt::Debug for Tokenizer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tokenizer").field("vocab_size", &self.vocab_size()).finish_non_exhaustive()
    }
}
