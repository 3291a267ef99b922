//! Decoding one token at a time without ever showing half a character.
//!
//! A character may be spread over several byte tokens. Bytes wait until they are a character or can't become
//! one any more; then they are shown, as U+FFFD in the second case. What comes out in all is the same as
//! [`Tokenizer::decode`] of all the tokens.

use carat_tensor::TokenId;

use super::{Specials, Tokenizer};

/// Tokens in, whole characters out.
#[derive(Clone, Debug)]
pub struct StreamDecoder {
    specials: Specials,
    /// The start of a character, at most three bytes between calls.
    pending: Vec<u8>,
    /// What the last call completed.
    ready: String,
}

impl StreamDecoder {
    /// A decoder at the start of a text.
    pub fn new(specials: Specials) -> Self {
        StreamDecoder { specials, pending: Vec::new(), ready: String::new() }
    }

    /// Takes a token and returns the text that it completes, often all of its own, sometimes none.
    pub fn push(&mut self, tokenizer: &Tokenizer, id: TokenId) -> &str {
        self.ready.clear();
        if self.specials == Specials::Show || !tokenizer.is_control(id) {
            self.pending.extend_from_slice(tokenizer.bytes(id));
            self.drain();
        }
        &self.ready
    }

    /// Ends the text: the start of a character that never came becomes U+FFFD. The decoder is then as new.
    pub fn finish(&mut self) -> &str {
        self.ready.clear();
        self.ready.push_str(&String::from_utf8_lossy(&self.pending));
        self.pending.clear();
        &self.ready
    }

    fn drain(&mut self) {
        let mut kept = 0;
        for chunk in self.pending.utf8_chunks() {
            self.ready.push_str(chunk.valid());
            kept += chunk.valid().len();
            let rest = &self.pending[kept..];
            let incomplete = std::str::from_utf8(rest).is_err_and(|e| e.valid_up_to() == 0 && e.error_len().is_none());
            if incomplete {
                break;
            }
            kept += chunk.invalid().len();
            if !chunk.invalid().is_empty() {
                self.ready.push(char::REPLACEMENT_CHARACTER);
            }
        }
        self.pending.drain(..kept);
    }
}
