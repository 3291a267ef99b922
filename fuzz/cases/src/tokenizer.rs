//! The tokenizer: any vocabulary file with any text, and the round trip of any text.
//!
//! The round trip is checked with the test vocabulary of `carat-chat`, which has all 256 byte tokens, so that
//! every text has ids. Only `▁`, which the vocabulary writes for a space, comes back as one.

use std::sync::OnceLock;

use carat_chat::tokenizer::{Specials, StreamDecoder, Tokenizer};
use carat_tensor::TokenId;

/// The small vocabulary of Gemma 4's form.
pub(crate) fn test_tokenizer() -> &'static Tokenizer {
    static TOKENIZER: OnceLock<Tokenizer> = OnceLock::new();
    let json = include_bytes!("../../../crates/chat/tests/data/tokenizer.json");
    TOKENIZER.get_or_init(|| Tokenizer::from_json(json).expect("the test vocabulary loads"))
}

/// A `tokenizer.json`, up to the first NUL byte, and a text, from there on.
pub fn tokenizer_json(data: &[u8]) -> bool {
    let (json, text) = match data.iter().position(|&b| b == 0) {
        Some(nul) => (&data[..nul], &data[nul + 1..]),
        None => (data, data),
    };
    let Ok(tokenizer) = Tokenizer::from_json(json) else { return false };
    encodes(&tokenizer, text);
    true
}

/// A text, which need not be UTF-8.
pub fn tokenizer_text(data: &[u8]) -> bool {
    let tokenizer = test_tokenizer();
    let ids = encodes(tokenizer, data);
    let bytes: Vec<u8> = ids.iter().flat_map(|&id| tokenizer.bytes(id)).copied().collect();
    let spaces = with_spaces(data);
    assert!(bytes == spaces, "{:?} came back as {:?}", data.escape_ascii(), bytes.escape_ascii());
    let Ok(text) = std::str::from_utf8(data) else { return true };
    assert_eq!(tokenizer.encode(text), ids);
    assert_eq!(tokenizer.decode(&ids, Specials::Hide).as_bytes(), spaces);
    let special = tokenizer.encode_with_special(text);
    assert_eq!(tokenizer.decode(&special, Specials::Show).as_bytes(), spaces);
    if !special.iter().any(|&id| tokenizer.is_control(id)) {
        assert_eq!(special, ids);
    }
    true
}

/// Laws of every vocabulary: ids are in it, text makes no control token, and a stream shows what decoding all at
/// once does. Returns the ids.
pub(crate) fn encodes(tokenizer: &Tokenizer, text: &[u8]) -> Vec<TokenId> {
    let ids = tokenizer.encode_bytes(text);
    let unknown = tokenizer.special().unk;
    for &id in &ids {
        assert!(id.index() < tokenizer.vocab_size(), "{id:?} of {}", tokenizer.vocab_size());
        assert!(!tokenizer.is_control(id) || Some(id) == unknown, "text became {:?}", tokenizer.piece(id));
    }
    let special = tokenizer.encode_with_special(&String::from_utf8_lossy(text));
    for specials in [Specials::Show, Specials::Hide] {
        for ids in [&ids, &special] {
            let mut stream = StreamDecoder::new(specials);
            let mut shown: String = ids.iter().map(|&id| stream.push(tokenizer, id).to_owned()).collect();
            shown.push_str(stream.finish());
            assert_eq!(shown, tokenizer.decode(ids, specials));
        }
    }
    ids
}

/// `text` with a space for each `▁`.
fn with_spaces(text: &[u8]) -> Vec<u8> {
    let mark = "\u{2581}".as_bytes();
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((&first, tail)) = rest.split_first() {
        (rest, _) = match rest.strip_prefix(mark) {
            Some(tail) => (tail, out.push(b' ')),
            None => (tail, out.push(first)),
        };
    }
    out
}
