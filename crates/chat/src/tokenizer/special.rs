//! Control tokens: which they are, and finding them in text that may contain them.
//!
//! Gemma 4 names them by a rule: `<|x>` opens, `<x|>` closes, `<|x|>` stands alone. Some files call a few of
//! them "user defined" so that other programs print them; to text they are all the same, a single id that
//! nothing a user writes may become. Gemma 3's have no such rule and are listed.

use std::collections::HashMap;

use carat_tensor::TokenId;

use super::vocab::Vocab;

/// Ids of the tokens with a meaning, where the vocabulary has them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs, reason = "each field is the token written beside it")]
pub struct SpecialIds {
    /// Starts every prompt: `<bos>`.
    pub bos: Option<TokenId>,
    /// Ends a document: `<eos>`.
    pub eos: Option<TokenId>,
    /// `<pad>`.
    pub pad: Option<TokenId>,
    /// `<unk>`.
    pub unk: Option<TokenId>,
    /// `<mask>`.
    pub mask: Option<TokenId>,
    /// `<|turn>`; in Gemma 3 `<start_of_turn>`.
    pub turn_open: Option<TokenId>,
    /// `<turn|>`, which also ends an answer; in Gemma 3 `<end_of_turn>`.
    pub turn_close: Option<TokenId>,
    /// `<|channel>`.
    pub channel_open: Option<TokenId>,
    /// `<channel|>`.
    pub channel_close: Option<TokenId>,
    /// `<|tool>`.
    pub tool_open: Option<TokenId>,
    /// `<tool|>`.
    pub tool_close: Option<TokenId>,
    /// `<|tool_call>`.
    pub tool_call_open: Option<TokenId>,
    /// `<tool_call|>`.
    pub tool_call_close: Option<TokenId>,
    /// `<|tool_response>`.
    pub tool_response_open: Option<TokenId>,
    /// `<tool_response|>`.
    pub tool_response_close: Option<TokenId>,
    /// `<|"|>`, the quote around strings in tool calls.
    pub quote: Option<TokenId>,
    /// `<|think|>`.
    pub think: Option<TokenId>,
    /// `<|image|>`, the place of one soft token.
    pub image: Option<TokenId>,
    /// `<|image>`.
    pub image_open: Option<TokenId>,
    /// `<image|>`.
    pub image_close: Option<TokenId>,
    /// `<|audio|>`, the place of one soft token.
    pub audio: Option<TokenId>,
    /// `<|audio>`.
    pub audio_open: Option<TokenId>,
    /// `<audio|>`.
    pub audio_close: Option<TokenId>,
    /// `<|video|>`, the place of one soft token.
    pub video: Option<TokenId>,
}

impl SpecialIds {
    pub(super) fn new(vocab: &Vocab) -> Self {
        let id = |piece| vocab.id(piece).map(TokenId);
        SpecialIds {
            bos: id("<bos>"),
            eos: id("<eos>"),
            pad: id("<pad>"),
            unk: id("<unk>"),
            mask: id("<mask>"),
            turn_open: id("<|turn>").or(id("<start_of_turn>")),
            turn_close: id("<turn|>").or(id("<end_of_turn>")),
            channel_open: id("<|channel>"),
            channel_close: id("<channel|>"),
            tool_open: id("<|tool>"),
            tool_close: id("<tool|>"),
            tool_call_open: id("<|tool_call>"),
            tool_call_close: id("<tool_call|>"),
            tool_response_open: id("<|tool_response>"),
            tool_response_close: id("<tool_response|>"),
            quote: id("<|\"|>"),
            think: id("<|think|>"),
            image: id("<|image|>"),
            image_open: id("<|image>"),
            image_close: id("<image|>"),
            audio: id("<|audio|>"),
            audio_open: id("<|audio>"),
            audio_close: id("<audio|>"),
            video: id("<|video|>"),
        }
    }
}

/// Markers of Gemma 3, which files call control tokens or user-defined ones.
const OLDER_MARKERS: [&str; 4] = ["<start_of_turn>", "<end_of_turn>", "<start_of_image>", "<end_of_image>"];

/// Whether a piece is written as Gemma 4 writes its markers, or is one of Gemma 3's.
pub(super) fn is_marker(piece: &str) -> bool {
    let by_rule = piece.len() > 3
        && piece.starts_with('<')
        && piece.ends_with('>')
        && (piece.starts_with("<|") || piece.ends_with("|>"));
    by_rule || OLDER_MARKERS.contains(&piece)
}

/// Finds a set of texts: leftmost, and of those that start there the longest.
pub(super) struct Matcher {
    /// Edges of a trie over bytes; node 0 is the root.
    edges: HashMap<(u32, u8), u32>,
    /// The token that ends at a node.
    ends: Vec<Option<u32>>,
    /// Bytes with an edge from the root.
    first: Vec<bool>,
}

impl Matcher {
    pub(super) fn new<'a>(tokens: impl Iterator<Item = (u32, &'a str)>) -> Self {
        let mut matcher = Matcher { edges: HashMap::new(), ends: vec![None], first: vec![false; 256] };
        for (id, piece) in tokens.filter(|(_, piece)| !piece.is_empty()) {
            let mut node = 0;
            matcher.first[usize::from(piece.as_bytes()[0])] = true;
            for &byte in piece.as_bytes() {
                let fresh = matcher.ends.len() as u32;
                node = *matcher.edges.entry((node, byte)).or_insert(fresh);
                if node == fresh {
                    matcher.ends.push(None);
                }
            }
            matcher.ends[node as usize] = Some(id);
        }
        matcher
    }

    /// The first match at or after `from`: its start, end and token.
    pub(super) fn find(&self, text: &[u8], from: usize) -> Option<(usize, usize, u32)> {
        if self.ends.len() == 1 {
            return None;
        }
        (from..text.len()).filter(|&start| self.first[usize::from(text[start])]).find_map(|start| {
            let mut node = 0;
            let mut found = None;
            for (i, &byte) in text[start..].iter().enumerate() {
                let Some(&child) = self.edges.get(&(node, byte)) else { break };
                node = child;
                if let Some(id) = self.ends[node as usize] {
                    found = Some((start, start + i + 1, id));
                }
            }
            found
        })
    }
}
