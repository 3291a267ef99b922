//! A vocabulary in parts, as GGUF metadata holds it.
//!
//! Files for Gemma 4 list their merges. Older ones (`tokenizer.ggml.model` = `llama`) give a score per token
//! instead; their merges are every split of a token into two others, best score first, which is the list that
//! the reference library's converter writes (transformers `convert_slow_tokenizer.py`, `generate_merges`).

use carat_tensor::TokenId;

use super::merges::{Merge, MergeTexts, check_count, resolve};
use super::special::is_marker;
use super::vocab::{Vocab, parse_byte};
use super::{Model, TokenKind, Tokenizer, TokenizerError};

/// The longest piece whose splits are looked for, in bytes: Gemma's longest are runs of 31 spaces, which take 93.
const MAX_SPLIT: usize = 256;

/// A vocabulary as parallel arrays, named as GGUF's `tokenizer.ggml.*` keys.
#[derive(Clone, Debug, Default)]
pub struct VocabParts<'a> {
    /// `tokens`: text by id.
    pub tokens: Vec<&'a str>,
    /// `token_type`: 1 normal, 2 unknown, 3 control, 4 user defined, 5 unused, 6 byte. Empty: told by the text.
    pub token_types: &'a [i32],
    /// `merges`: `"left right"` in rank order. Empty: made from the scores.
    pub merges: Vec<&'a str>,
    /// `scores`: higher merges earlier. Only read without merges.
    pub scores: &'a [f32],
    /// `bos_token_id`.
    pub bos: Option<TokenId>,
    /// `eos_token_id`, which in files in circulation is what ends a turn: a token called `<eos>` is the one that ends a
    /// document.
    pub eos: Option<TokenId>,
    /// `unknown_token_id`.
    pub unk: Option<TokenId>,
    /// `padding_token_id`.
    pub pad: Option<TokenId>,
}

impl Tokenizer {
    /// Builds a tokenizer from GGUF metadata.
    pub fn from_parts(parts: VocabParts<'_>) -> Result<Self, TokenizerError> {
        let kinds = kinds(&parts)?;
        let vocab = Vocab::new(&parts.tokens, kinds)?;
        for (name, id) in [("bos", parts.bos), ("eos", parts.eos), ("unknown", parts.unk), ("padding", parts.pad)] {
            if let Some(id) = id.filter(|id| id.index() >= vocab.len()) {
                return Err(TokenizerError::SpecialId { name, found: id.0, vocab_size: vocab.len() });
            }
        }
        let merges = if parts.merges.is_empty() {
            merges_from_scores(&vocab, parts.scores)?
        } else {
            resolve(&vocab, &MergeTexts::Joined(&parts.merges))?
        };
        let mut tokenizer = Tokenizer::assemble(Model {
            vocab,
            merges,
            byte_fallback: true,
            unknown: parts.unk.map(|id| id.0),
            fuse_unknown: true,
        });
        let special = &mut tokenizer.special;
        special.bos = parts.bos.or(special.bos);
        special.eos = special.eos.or(parts.eos);
        special.unk = parts.unk.or(special.unk);
        special.pad = parts.pad.or(special.pad);
        Ok(tokenizer)
    }
}

fn kinds(parts: &VocabParts<'_>) -> Result<Vec<TokenKind>, TokenizerError> {
    if parts.token_types.is_empty() {
        let special = [parts.bos, parts.eos, parts.pad, parts.unk];
        let told = parts.tokens.iter().enumerate().map(|(id, piece)| match piece {
            _ if special.contains(&Some(TokenId(id as u32))) => TokenKind::Control,
            _ if is_marker(piece) || ["<eos>", "<mask>"].contains(piece) => TokenKind::Control,
            _ if parse_byte(piece).is_some() => TokenKind::Byte,
            _ => TokenKind::Normal,
        });
        return Ok(told.collect());
    }
    if parts.token_types.len() != parts.tokens.len() {
        let (found, expected) = (parts.token_types.len(), parts.tokens.len());
        return Err(TokenizerError::Length { what: "token types", found, expected });
    }
    let typed = parts.token_types.iter().zip(&parts.tokens).enumerate();
    typed
        .map(|(id, (&found, piece))| match found {
            1 => Ok(TokenKind::Normal),
            2 => Ok(TokenKind::Unknown),
            3 => Ok(TokenKind::Control),
            // Converters mark the tokens of tool calls and channels so, to have them printed.
            4 if is_marker(piece) => Ok(TokenKind::Control),
            4 => Ok(TokenKind::UserDefined),
            5 => Ok(TokenKind::Unused),
            6 => Ok(TokenKind::Byte),
            _ => Err(TokenizerError::TokenType { id, found }),
        })
        .collect()
}

fn merges_from_scores(vocab: &Vocab, scores: &[f32]) -> Result<Vec<Merge>, TokenizerError> {
    if scores.iter().all(|score| *score == scores[0]) {
        return Err(TokenizerError::NoMerges);
    }
    if scores.len() != vocab.len() {
        return Err(TokenizerError::Length { what: "scores", found: scores.len(), expected: vocab.len() });
    }
    let normal = |piece| vocab.id(piece).filter(|&id| vocab.kind(id) == TokenKind::Normal);
    let mut scored: Vec<(f32, Merge)> = Vec::new();
    for result in (0..vocab.len() as u32).filter(|&id| vocab.kind(id) == TokenKind::Normal) {
        let piece = vocab.piece(result).unwrap_or("");
        if piece.len() > MAX_SPLIT {
            return Err(TokenizerError::PieceLength { id: result, found: piece.len(), limit: MAX_SPLIT });
        }
        let start = scored.len();
        for (at, _) in piece.char_indices().skip(1) {
            let (left, right) = piece.split_at(at);
            if let (Some(left), Some(right)) = (normal(left), normal(right)) {
                scored.push((scores[result as usize], Merge { left, right, result }));
            }
        }
        check_count(scored.len())?;
        scored[start..].sort_by_key(|(_, merge)| (merge.left, merge.right));
    }
    scored.sort_by(|(a, _), (b, _)| b.total_cmp(a));
    Ok(scored.into_iter().map(|(_, merge)| merge).collect())
}
