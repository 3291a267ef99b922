//! Reading `tokenizer.json`.
//!
//! Gemma 4's is 32 MB, nearly all of it a vocabulary map and a merge list. Both are read straight into arenas by
//! visitors, without a tree of values. What else the file says (normaliser, pre-tokeniser, decoder, options) is
//! checked against the one pipeline this tokenizer has, and refused by name when it differs.

use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Value, json};

use super::merges::{MergeTexts, resolve, split_joined};
use super::special::is_marker;
use super::vocab::{MAX_VOCAB, Vocab, parse_byte};
use super::{Model, TokenKind, Tokenizer, TokenizerError};

#[derive(Deserialize)]
struct File {
    #[serde(default)]
    added_tokens: Vec<AddedToken>,
    #[serde(default)]
    normalizer: Value,
    #[serde(default)]
    pre_tokenizer: Value,
    #[serde(default)]
    decoder: Value,
    model: BpeModel,
}

#[derive(Deserialize)]
struct AddedToken {
    id: u32,
    content: String,
    #[serde(default)]
    single_word: bool,
    #[serde(default)]
    lstrip: bool,
    #[serde(default)]
    rstrip: bool,
    #[serde(default)]
    special: bool,
}

#[derive(Deserialize)]
struct BpeModel {
    #[serde(default, rename = "type")]
    kind: Option<String>,
    #[serde(default)]
    dropout: Option<f32>,
    #[serde(default)]
    unk_token: Option<String>,
    #[serde(default)]
    continuing_subword_prefix: Option<String>,
    #[serde(default)]
    end_of_word_suffix: Option<String>,
    #[serde(default)]
    fuse_unk: bool,
    #[serde(default)]
    byte_fallback: bool,
    #[serde(default)]
    ignore_merges: bool,
    vocab: VocabMap,
    merges: MergeList,
}

impl Tokenizer {
    /// Builds a tokenizer from the contents of a `tokenizer.json`.
    pub fn from_json(bytes: &[u8]) -> Result<Self, TokenizerError> {
        let file: File = match std::str::from_utf8(bytes) {
            // Checked once here, the strings inside aren't checked again.
            Ok(text) => serde_json::from_str(text)?,
            Err(_) => serde_json::from_slice(bytes)?,
        };
        check_pipeline(&file)?;
        let model = &file.model;
        let mut pieces = model.vocab.by_id()?;
        for token in &file.added_tokens {
            place(&mut pieces, token.id, &token.content)?;
        }
        let mut kinds: Vec<TokenKind> = pieces
            .iter()
            .map(|piece| match piece {
                _ if piece.is_empty() => TokenKind::Unused,
                _ if model.byte_fallback && parse_byte(piece).is_some() => TokenKind::Byte,
                _ => TokenKind::Normal,
            })
            .collect();
        for token in &file.added_tokens {
            // As in GGUF files, the tokens of tool calls and channels may be marked so that they are printed.
            let kind =
                if token.special || is_marker(&token.content) { TokenKind::Control } else { TokenKind::UserDefined };
            kinds[token.id as usize] = kind;
        }
        let vocab = Vocab::new(&pieces, kinds)?;
        let unknown = model.unk_token.as_deref().and_then(|piece| vocab.id(piece));
        let merges = resolve(&vocab, &model.merges.0)?;
        let (byte_fallback, fuse_unknown) = (model.byte_fallback, model.fuse_unk);
        Ok(Tokenizer::assemble(Model { vocab, merges, byte_fallback, unknown, fuse_unknown }))
    }
}

/// Refuses what would tokenise differently from the one pipeline there is.
fn check_pipeline(file: &File) -> Result<(), TokenizerError> {
    let check = |ok: bool, field, found: &dyn fmt::Display, expected| {
        if ok { Ok(()) } else { Err(TokenizerError::Unsupported { field, found: found.to_string(), expected }) }
    };
    let mark = json!({"type": "Replace", "pattern": {"String": " "}, "content": "\u{2581}"});
    let normalizer = match steps(&file.normalizer, "normalizers") {
        [only] => only,
        _ => &file.normalizer,
    };
    check(*normalizer == mark, "normalizer", &file.normalizer, "replacing ` ` with `\u{2581}`")?;
    // After that replacement there's no space to split at.
    let splitter = &file.pre_tokenizer;
    let inert = splitter.is_null() || splitter["type"] == "Split" && splitter["pattern"]["String"] == " ";
    check(inert, "pre_tokenizer", splitter, "none, or a split at ` `")?;
    let known = |step: &Value| {
        step.is_null()
            || step["type"] == "ByteFallback"
            || step["type"] == "Fuse"
            || step["type"] == "Replace" && step["pattern"]["String"] == "\u{2581}" && step["content"] == " "
    };
    let decodes = steps(&file.decoder, "decoders").iter().all(known);
    check(decodes, "decoder", &file.decoder, "replacing `\u{2581}` with ` `, byte fallback and fusing")?;
    let model = &file.model;
    let kind = model.kind.as_deref().unwrap_or("BPE");
    check(kind == "BPE", "model type", &kind, "BPE")?;
    let dropout = model.dropout.unwrap_or(0.0);
    check(dropout == 0.0, "dropout", &dropout, "0")?;
    let prefix = model.continuing_subword_prefix.as_deref().unwrap_or("");
    check(prefix.is_empty(), "continuing_subword_prefix", &prefix, "none")?;
    let suffix = model.end_of_word_suffix.as_deref().unwrap_or("");
    check(suffix.is_empty(), "end_of_word_suffix", &suffix, "none")?;
    check(!model.ignore_merges, "ignore_merges", &true, "false")?;
    for token in &file.added_tokens {
        let plain = !(token.single_word || token.lstrip || token.rstrip);
        check(plain, "added token", &token.content, "a token without single_word, lstrip and rstrip")?;
    }
    Ok(())
}

/// The members of a `Sequence`, or the one step there is.
fn steps<'a>(step: &'a Value, members: &str) -> &'a [Value] {
    match step[members].as_array() {
        Some(members) if step["type"] == "Sequence" => members,
        _ => std::slice::from_ref(step),
    }
}

/// Puts a piece at its id, growing the table.
fn place<'a>(pieces: &mut Vec<&'a str>, id: u32, piece: &'a str) -> Result<(), TokenizerError> {
    let index = id as usize;
    if index >= MAX_VOCAB {
        return Err(TokenizerError::Size { what: "tokens", found: index + 1, limit: MAX_VOCAB });
    }
    if index >= pieces.len() {
        pieces.resize(index + 1, "");
    }
    if !pieces[index].is_empty() && pieces[index] != piece {
        let (first, second) = (pieces[index].to_owned(), piece.to_owned());
        return Err(TokenizerError::DuplicateId { id, first, second });
    }
    pieces[index] = piece;
    Ok(())
}

/// `{"piece": id}`, pieces end to end.
struct VocabMap {
    text: String,
    /// End of the piece in `text`, and its id.
    entries: Vec<(u32, u32)>,
}

impl VocabMap {
    fn by_id(&self) -> Result<Vec<&str>, TokenizerError> {
        let mut pieces = Vec::with_capacity(self.entries.len());
        let mut start = 0;
        for &(end, id) in &self.entries {
            place(&mut pieces, id, &self.text[start as usize..end as usize])?;
            start = end;
        }
        Ok(pieces)
    }
}

impl<'de> Deserialize<'de> for VocabMap {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct MapVisitor;
        impl<'de> Visitor<'de> for MapVisitor {
            type Value = VocabMap;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a map from piece to id")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<VocabMap, A::Error> {
                let mut vocab = VocabMap { text: String::new(), entries: Vec::new() };
                while map.next_key_seed(Append(&mut vocab.text))?.is_some() {
                    let id = map.next_value()?;
                    vocab.entries.push((end_of(&vocab.text)?, id));
                }
                Ok(vocab)
            }
        }
        deserializer.deserialize_map(MapVisitor)
    }
}

/// `[["left", "right"]]` or `["left right"]`.
struct MergeList(MergeTexts<'static>);

impl<'de> Deserialize<'de> for MergeList {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ListVisitor;
        impl<'de> Visitor<'de> for ListVisitor {
            type Value = MergeList;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list of merges")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<MergeList, A::Error> {
                let (mut text, mut ends) = (String::new(), Vec::new());
                while let Some(merge) = list.next_element_seed(OneMerge(&mut text))? {
                    ends.push(merge);
                }
                Ok(MergeList(MergeTexts::Apart { text, ends }))
            }
        }
        deserializer.deserialize_seq(ListVisitor)
    }
}

/// Appends both pieces of a merge and returns their ends.
struct OneMerge<'a>(&'a mut String);

impl<'de> serde::de::DeserializeSeed<'de> for OneMerge<'_> {
    type Value = (u32, u32);

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for OneMerge<'_> {
    type Value = (u32, u32);

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a merge: two pieces, or one text with a space between them")
    }

    fn visit_str<E: Error>(self, merge: &str) -> Result<Self::Value, E> {
        // Without a space the right piece is empty, which is reported with its rank when it's looked up.
        let (left, right) = split_joined(merge).unwrap_or((merge, ""));
        self.0.push_str(left);
        let middle = end_of(self.0)?;
        self.0.push_str(right);
        Ok((middle, end_of(self.0)?))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut pair: A) -> Result<Self::Value, A::Error> {
        pair.next_element_seed(Append(self.0))?.ok_or_else(|| Error::invalid_length(0, &self))?;
        let middle = end_of(self.0)?;
        pair.next_element_seed(Append(self.0))?.ok_or_else(|| Error::invalid_length(1, &"two pieces"))?;
        if pair.next_element::<serde::de::IgnoredAny>()?.is_some() {
            return Err(Error::invalid_length(3, &"two pieces"));
        }
        Ok((middle, end_of(self.0)?))
    }
}

fn end_of<E: Error>(text: &str) -> Result<u32, E> {
    u32::try_from(text.len()).map_err(|_| E::custom("more than 4 GiB of text"))
}

/// Appends a string to an arena.
struct Append<'a>(&'a mut String);

impl<'de> serde::de::DeserializeSeed<'de> for Append<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl<'de> Visitor<'de> for Append<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a piece of text")
    }

    fn visit_str<E: Error>(self, piece: &str) -> Result<(), E> {
        self.0.push_str(piece);
        Ok(())
    }
}
