//! The tokenizer against the reference library, on a small vocabulary of Gemma 4's form
//! (`data/tokenizer.json`, made by `data/tokenizer_make.py`) and on random ones.
//!
//! `examples/tokenizer_oracle.rs` runs the same comparison on a real vocabulary.

mod tokenizer_oracle;

use std::collections::HashSet;

use carat_chat::tokenizer::{Specials, StreamDecoder, TokenKind, Tokenizer, VocabParts};
use carat_tensor::TokenId;
use serde_json::{Value, json};
use tokenizer_oracle::{Oracle, Rng, differences, text};

const JSON: &[u8] = include_bytes!("data/tokenizer.json");

fn tokenizer() -> Tokenizer {
    Tokenizer::from_json(JSON).expect("the test vocabulary loads")
}

/// The vocabulary file with `change` made to it.
fn changed(change: impl FnOnce(&mut Value)) -> Result<Tokenizer, String> {
    let mut file: Value = serde_json::from_slice(JSON).expect("the file is JSON");
    change(&mut file);
    Tokenizer::from_json(file.to_string().as_bytes()).map_err(|e| e.to_string())
}

#[track_caller]
fn check_error(result: Result<Tokenizer, String>, expected: &str) {
    let error = result.expect_err("the vocabulary should be refused");
    assert!(error.contains(expected), "`{error}` should contain `{expected}`");
}

#[track_caller]
fn check_equal(tokenizer: &Tokenizer, oracle: &Oracle, text: &str) {
    let found = differences(tokenizer, oracle, text);
    assert!(found.is_empty(), "{}", found.join("\n"));
}

#[test]
fn every_text_is_tokenised_as_the_reference_does() {
    let (tokenizer, oracle) = (tokenizer(), Oracle::new(JSON));
    let mut rng = Rng(1);
    for _ in 0..20_000 {
        let text = text(&mut rng, &tokenizer);
        check_equal(&tokenizer, &oracle, &text);
    }
}

#[test]
fn a_megabyte_without_a_space_or_newline_is_tokenised_as_the_reference_does() {
    let (tokenizer, oracle) = (tokenizer(), Oracle::new(JSON));
    let mut rng = Rng(2);
    let letters: String = (0..1 << 20).map(|_| *rng.pick(&['a', 'e', 'n', 't', 'h', 'r'])).collect();
    let han: String = (0..1 << 18).map(|_| *rng.pick(&['的', '一', '是', '不', '了', '𠀀'])).collect();
    for text in [letters, han, "a".repeat(1 << 20), " ".repeat(1 << 20), "\n".repeat(1 << 20), "<|".repeat(1 << 19)] {
        assert!(tokenizer.encode(&text) == oracle.encode(&text), "{:?}…", text.chars().take(20).collect::<String>());
    }
}

/// A vocabulary over few characters with merges of any kind: across spaces, across lines, into the same piece in
/// several ways. `bytes` is how many byte tokens there are.
fn random_vocabulary(rng: &mut Rng, bytes: usize) -> Vec<u8> {
    let mut pieces: Vec<String> = ["a", "b", "c", "\n", "▁", "é", "的"].map(str::to_owned).to_vec();
    let mut seen: HashSet<String> = pieces.iter().cloned().collect();
    for _ in 0..60 {
        let piece = rng.pick(&pieces).clone() + rng.pick::<String>(&pieces);
        if piece.chars().count() <= 9 && seen.insert(piece.clone()) {
            pieces.push(piece);
        }
    }
    let mut merges: Vec<(&str, &str)> = Vec::new();
    for piece in &pieces {
        for (at, _) in piece.char_indices().skip(1) {
            let (left, right) = piece.split_at(at);
            if seen.contains(left) && seen.contains(right) && rng.below(4) > 0 {
                merges.insert(rng.below(merges.len() + 1), (left, right));
            }
        }
    }
    let all =
        (0..bytes).map(|byte| format!("<0x{byte:02X}>")).chain(["<unk>".to_owned()]).chain(pieces.iter().cloned());
    let vocab: serde_json::Map<String, Value> = all.enumerate().map(|(id, piece)| (piece, id.into())).collect();
    let fuse = rng.below(2) == 0;
    let file = json!({
        "normalizer": {"type": "Replace", "pattern": {"String": " "}, "content": "▁"},
        "added_tokens": [{"id": bytes, "content": "<unk>", "single_word": false, "lstrip": false, "rstrip": false,
            "normalized": false, "special": true}],
        "decoder": {"type": "Sequence", "decoders": [
            {"type": "Replace", "pattern": {"String": "▁"}, "content": " "}, {"type": "ByteFallback"}, {"type": "Fuse"}]},
        "model": {"type": "BPE", "unk_token": "<unk>", "fuse_unk": fuse, "byte_fallback": true, "ignore_merges": false,
            "vocab": vocab, "merges": merges},
    });
    file.to_string().into_bytes()
}

#[test]
fn any_merge_list_gives_what_the_reference_gives() {
    let mut rng = Rng(3);
    for round in 0..300 {
        // Without all the bytes, what is unknown is one token for a run, which no cut may part.
        let bytes = *rng.pick(&[256, 256, 0, 0xc4]);
        let json = random_vocabulary(&mut rng, bytes);
        let (tokenizer, oracle) = (Tokenizer::from_json(&json).expect("it loads"), Oracle::new(&json));
        for _ in 0..60 {
            let length = rng.below(if round % 10 == 0 { 300 } else { 60 });
            let alphabet = ["a", "b", "c", "a", "b", "\n", " ", " ", "▁", "é", "的", "ö", "x", "😀"];
            let text: String = (0..length).map(|_| *rng.pick(&alphabet)).collect();
            assert_eq!(
                tokenizer.encode(&text),
                oracle.encode(&text),
                "{text:?} with {}",
                String::from_utf8_lossy(&json)
            );
        }
    }
}

#[test]
fn user_text_never_becomes_a_control_token() {
    let tokenizer = tokenizer();
    let control: Vec<TokenId> =
        (0..tokenizer.vocab_size() as u32).map(TokenId).filter(|&id| tokenizer.is_control(id)).collect();
    assert_eq!(control.len(), 24);
    for &id in &control {
        let piece = tokenizer.piece(id).expect("it is in the vocabulary");
        for text in [piece.to_owned(), format!("x{piece}y"), piece.repeat(3), format!("\u{fffd}{piece}")] {
            assert!(!tokenizer.encode(&text).iter().any(|&id| tokenizer.is_control(id)), "{text}");
            assert!(!tokenizer.encode_bytes(text.as_bytes()).iter().any(|&id| tokenizer.is_control(id)), "{text}");
            assert_eq!(tokenizer.decode(&tokenizer.encode(&text), Specials::Hide), text);
        }
        assert_eq!(tokenizer.encode_with_special(piece), [id]);
    }
}

/// Some files don't call the tokens of tool calls and channels special.
#[test]
fn markers_are_control_tokens_whatever_a_file_calls_them() {
    let plain = changed(|file| {
        for token in file["added_tokens"].as_array_mut().expect("a list") {
            token["special"] = json!(!token["content"].as_str().expect("text").contains('|'));
        }
    });
    let (plain, tokenizer) = (plain.expect("it loads"), tokenizer());
    for piece in ["<|turn>", "<turn|>", "<|tool_call>", "<tool_call|>", "<|channel>", "<channel|>", "<|\"|>"] {
        assert!(plain.id(piece).is_some_and(|id| plain.is_control(id)), "{piece}");
        assert_eq!(plain.encode(piece), tokenizer.encode(piece), "{piece}");
    }
}

#[test]
fn a_control_token_that_merging_or_one_character_would_reach_is_still_out_of_reach() {
    // The file makes control tokens of a character and of a word that its merges build.
    let (letter, word) = ("k", "the");
    let id = |piece: &str| tokenizer().id(piece).expect("it is in the vocabulary").0;
    let tokenizer = changed(|file| {
        for piece in [letter, word] {
            let token = json!({"id": id(piece), "content": piece, "special": true, "normalized": false});
            file["added_tokens"].as_array_mut().expect("a list").push(token);
        }
    })
    .expect("it loads");
    for text in ["the", "the k", "other kinds of the", "kkkk"] {
        let ids = tokenizer.encode(text);
        assert!(!ids.iter().any(|&id| tokenizer.is_control(id)), "{text}");
        assert_eq!(tokenizer.decode(&ids, Specials::Hide), text);
    }
    assert_eq!(tokenizer.encode_with_special("the"), [TokenId(id("the"))]);
}

/// `▁` written by a user comes back as a space, as from the reference library.
fn with_spaces(bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut rest = bytes;
    while let [first, tail @ ..] = rest {
        match rest.strip_prefix("▁".as_bytes()) {
            Some(tail) => {
                out.push(b' ');
                rest = tail;
            }
            None => {
                out.push(*first);
                rest = tail;
            }
        }
    }
    out
}

#[test]
fn bytes_that_are_no_character_become_byte_tokens() {
    let (tokenizer, oracle) = (tokenizer(), Oracle::new(JSON));
    let mut rng = Rng(4);
    let byte = |b: u8| tokenizer.id(&format!("<0x{b:02X}>")).expect("all bytes are there");
    for _ in 0..3_000 {
        let mut bytes = text(&mut rng, &tokenizer).into_bytes();
        for _ in 0..rng.below(6) {
            let at = rng.below(bytes.len() + 1);
            match rng.below(3) {
                0 => bytes.truncate(at),
                1 => bytes.insert(at, rng.next() as u8),
                _ => bytes.splice(at..at, [0xed, 0xa0, 0x80]).for_each(drop),
            }
        }
        let mut expected = Vec::new();
        for chunk in bytes.utf8_chunks() {
            expected.extend(oracle.encode(chunk.valid()));
            expected.extend(chunk.invalid().iter().map(|&b| byte(b)));
        }
        let ids = tokenizer.encode_bytes(&bytes);
        assert_eq!(ids, expected, "{bytes:?}");
        let decoded: Vec<u8> = ids.iter().flat_map(|&id| tokenizer.bytes(id)).copied().collect();
        assert_eq!(decoded, with_spaces(&bytes), "{bytes:?}");
    }
}

#[test]
fn streaming_shows_whole_characters_and_in_all_the_same_text() {
    let tokenizer = tokenizer();
    let bytes: Vec<TokenId> = (0..=255).filter_map(|b: u8| tokenizer.id(&format!("<0x{b:02X}>"))).collect();
    assert_eq!(bytes.len(), 256);
    let mut rng = Rng(5);
    for _ in 0..20_000 {
        let mut ids = Vec::new();
        for _ in 0..1 + rng.below(12) {
            match rng.below(4) {
                0 => ids.push(TokenId(rng.below(tokenizer.vocab_size() + 2) as u32)),
                1 => ids.push(*rng.pick(&bytes)),
                // A character in bytes, often cut short.
                _ => {
                    let c = char::from_u32(rng.below(0x11_0000) as u32).unwrap_or('é');
                    let utf8 = c.to_string().into_bytes();
                    ids.extend(utf8[..1 + rng.below(utf8.len())].iter().map(|&b| bytes[usize::from(b)]));
                }
            }
        }
        for specials in [Specials::Show, Specials::Hide] {
            let mut decoder = StreamDecoder::new(specials);
            let mut streamed: String = ids.iter().map(|&id| decoder.push(&tokenizer, id).to_owned()).collect();
            streamed.push_str(decoder.finish());
            assert_eq!(streamed, tokenizer.decode(&ids, specials), "{ids:?}");
        }
    }
}

#[test]
fn a_character_in_bytes_appears_with_its_last_byte() {
    let tokenizer = tokenizer();
    let mut decoder = StreamDecoder::new(Specials::Show);
    let ids: Vec<TokenId> = "€".bytes().filter_map(|b| tokenizer.id(&format!("<0x{b:02X}>"))).collect();
    let shown: Vec<String> = ids.iter().map(|&id| decoder.push(&tokenizer, id).to_owned()).collect();
    assert_eq!(shown, ["", "", "€"]);
    assert_eq!(decoder.finish(), "");
    decoder.push(&tokenizer, ids[0]);
    assert_eq!(decoder.finish(), "\u{fffd}");
    assert_eq!(decoder.finish(), "");
}

#[test]
fn appending_leaves_what_was_there() {
    let tokenizer = tokenizer();
    let text = "the and the and the and the. ".repeat(8);
    let mut ids = vec![TokenId(2); 5];
    tokenizer.encode_into(&text, &mut ids);
    assert_eq!(ids[..5], [TokenId(2); 5]);
    assert_eq!(ids[5..], tokenizer.encode(&text));
}

#[test]
fn pieces_ids_and_bytes_agree() {
    let tokenizer = tokenizer();
    for id in (0..tokenizer.vocab_size() as u32).map(TokenId) {
        let piece = tokenizer.piece(id).expect("ids run to the end");
        assert_eq!(tokenizer.id(piece), Some(id));
        match tokenizer.kind(id) {
            TokenKind::Byte => assert_eq!(piece, format!("<0x{:02X}>", tokenizer.bytes(id)[0])),
            _ => assert_eq!(tokenizer.bytes(id), piece.replace('▁', " ").as_bytes()),
        }
    }
    let past = TokenId(tokenizer.vocab_size() as u32);
    assert_eq!((tokenizer.piece(past), tokenizer.bytes(past)), (None, &[][..]));
    assert_eq!(tokenizer.id("no such piece"), None);
    let special = tokenizer.special();
    assert_eq!(special.turn_open, tokenizer.id("<|turn>"));
    assert_eq!(special.quote, tokenizer.id("<|\"|>"));
    assert_eq!(special.audio_close, tokenizer.id("<audio|>"));
    assert!(tokenizer.is_control(special.channel_close.expect("it is there")));
}

/// The test vocabulary as GGUF metadata would hold it.
struct Parts {
    tokens: Vec<String>,
    types: Vec<i32>,
    merges: Vec<String>,
}

impl Parts {
    fn new() -> Self {
        let file: Value = serde_json::from_slice(JSON).expect("the file is JSON");
        let vocab = file["model"]["vocab"].as_object().expect("a map");
        let mut tokens = vec![String::new(); vocab.len()];
        for (piece, id) in vocab {
            tokens[id.as_u64().expect("an id") as usize] = piece.clone();
        }
        let merges = file["model"]["merges"].as_array().expect("a list").iter();
        let merges =
            merges.map(|pair| format!("{} {}", pair[0].as_str().expect("text"), pair[1].as_str().expect("text")));
        // Markers of tool calls and channels are "user defined" in published files.
        let kind = |piece: &String| match piece.as_str() {
            "<|tool_call>" | "<tool_call|>" | "<|channel>" | "<channel|>" | "<|\"|>" => 4,
            "<pad>" | "<eos>" | "<bos>" | "<unk>" | "<mask>" => 3,
            _ if piece.starts_with("<|") && piece.len() > 3 || piece.ends_with("|>") && piece.len() > 3 => 3,
            _ if piece.starts_with("<0x") && piece.len() == 6 => 6,
            _ => 1,
        };
        Parts { types: tokens.iter().map(kind).collect(), merges: merges.collect(), tokens }
    }

    fn get(&self) -> VocabParts<'_> {
        VocabParts {
            tokens: self.tokens.iter().map(String::as_str).collect(),
            token_types: &self.types,
            merges: self.merges.iter().map(String::as_str).collect(),
            scores: &[],
            bos: Some(TokenId(2)),
            eos: Some(TokenId(1)),
            unk: Some(TokenId(3)),
            pad: Some(TokenId(0)),
        }
    }
}

fn from_parts(parts: VocabParts<'_>) -> Result<Tokenizer, String> {
    Tokenizer::from_parts(parts).map_err(|e| e.to_string())
}

#[test]
fn metadata_and_json_make_the_same_tokenizer() {
    let (json, parts) = (tokenizer(), Parts::new());
    let typed = from_parts(parts.get()).expect("it loads");
    let untyped = from_parts(VocabParts { token_types: &[], ..parts.get() }).expect("it loads");
    let mut rng = Rng(6);
    for other in [&typed, &untyped] {
        assert_eq!(other.special().turn_open, json.special().turn_open);
        assert_eq!(other.special().eos, Some(TokenId(1)));
        for _ in 0..2_000 {
            let text = text(&mut rng, &json);
            assert_eq!(other.encode(&text), json.encode(&text));
            assert_eq!(other.encode_with_special(&text), json.encode_with_special(&text));
        }
        for id in (0..json.vocab_size() as u32).map(TokenId) {
            assert_eq!((other.bytes(id), other.is_control(id)), (json.bytes(id), json.is_control(id)), "{id}");
        }
    }
}

/// Published files name `<turn|>` as the end.
#[test]
fn the_end_of_a_document_is_found_by_its_name() {
    let (json, parts) = (tokenizer(), Parts::new());
    let turn_close = json.special().turn_close;
    for types in [parts.types.as_slice(), &[]] {
        let other = from_parts(VocabParts { token_types: types, eos: turn_close, ..parts.get() }).expect("it loads");
        assert_eq!((other.special().eos, other.special().turn_close), (Some(TokenId(1)), turn_close));
        assert!(other.is_control(TokenId(1)));
    }
    let mut tokens = parts.get().tokens;
    tokens[1] = "<end>";
    let other = from_parts(VocabParts { tokens, eos: Some(TokenId(1)), ..parts.get() }).expect("it loads");
    assert_eq!(other.special().eos, Some(TokenId(1)));
}

#[test]
fn more_merges_than_ranks_and_long_pieces_are_refused() {
    let of = |tokens: &[String]| {
        let scores: Vec<f32> = (0..tokens.len()).map(|i| -(i as f32)).collect();
        let tokens = tokens.iter().map(String::as_str).collect();
        from_parts(VocabParts { tokens, scores: &scores, ..VocabParts::default() })
    };
    // 128 runs of a character make 8128 merges.
    let runs = |n: u32| -> Vec<String> {
        let letters = (0x100..0x100 + n).filter_map(char::from_u32);
        letters.flat_map(|c| (1..=128).map(move |n| String::from(c).repeat(n))).collect()
    };
    assert!(of(&runs(2)).is_ok());
    check_error(of(&runs(517)), "merges; supported are 1 to 4194303");
    check_error(of(&["a".to_owned(), "b".repeat(257)]), "token 1 has 257 bytes");
}

#[test]
fn scores_stand_in_for_merges() {
    let pieces = ["<unk>", "a", "b", "▁", "ab", "ba", "▁a", "aba", "abab", "▁ab", "aa", "bb"];
    let mut rng = Rng(7);
    for _ in 0..200 {
        let scores: Vec<f32> = pieces.iter().map(|_| -(rng.below(1000) as f32)).collect();
        let mut types = vec![1; pieces.len()];
        types[0] = 2;
        let parts = VocabParts {
            tokens: pieces.to_vec(),
            token_types: &types,
            scores: &scores,
            unk: Some(TokenId(0)),
            ..VocabParts::default()
        };
        let tokenizer = from_parts(parts).expect("it loads");
        for _ in 0..50 {
            let text: String = (0..rng.below(60)).map(|_| *rng.pick(&['a', 'b', ' '])).collect();
            let found: Vec<&str> = tokenizer.encode(&text).iter().filter_map(|&id| tokenizer.piece(id)).collect();
            assert_eq!(found, merged_by_score(&text, &pieces, &scores), "{text:?} {scores:?}");
        }
    }
}

/// The definition: the neighbours whose join has the best score, then the lower ids, then leftmost.
fn merged_by_score(text: &str, pieces: &[&str], scores: &[f32]) -> Vec<String> {
    let id = |piece: &str| pieces.iter().position(|p| *p == piece);
    let mut parts: Vec<String> = text.chars().map(|c| if c == ' ' { "▁".to_owned() } else { c.to_string() }).collect();
    loop {
        let candidates = parts.windows(2).enumerate().filter_map(|(at, pair)| {
            let result = id(&(pair[0].clone() + &pair[1]))?;
            // Of two pieces with the same score, the one earlier in the vocabulary comes first.
            Some(((-scores[result]) as u32, result, id(&pair[0])?, id(&pair[1])?, at))
        });
        let Some((.., at)) = candidates.min() else { return parts };
        let right = parts.remove(at + 1);
        parts[at].push_str(&right);
    }
}

#[test]
fn a_user_defined_token_is_one_token_in_any_text() {
    let mut parts = Parts::new();
    let id = parts.tokens.iter().position(|piece| piece == "the").expect("it is there");
    parts.types[id] = 4;
    let tokenizer = from_parts(parts.get()).expect("it loads");
    assert!(!tokenizer.is_control(TokenId(id as u32)));
    assert!(tokenizer.encode("xxthexx").contains(&TokenId(id as u32)));
    assert!(tokenizer.encode_bytes(b"\xfftheyy").contains(&TokenId(id as u32)));
}

#[test]
fn metadata_that_does_not_fit_together_is_refused_by_name() {
    let parts = Parts::new();
    let check = |change: &dyn Fn(&mut VocabParts<'_>), expected| {
        let mut changed = parts.get();
        change(&mut changed);
        check_error(from_parts(changed), expected);
    };
    check(&|p| p.tokens.clear(), "8000 token types for 0 tokens");
    check(&|p| p.token_types = &p.token_types[1..], "7999 token types for 8000 tokens");
    check(&|p| p.token_types = &[9; 8000], "token 0 has type 9");
    check(&|p| p.token_types = &[6; 8000], "token 0 `<pad>` is marked as a byte");
    check(&|p| p.tokens[9] = "<pad>", "token 9 `<pad>` repeats token 0");
    check(&|p| p.merges[3] = "nospace", "merge 3 is `nospace`");
    check(&|p| p.merges[3] = "a ", "merge 3 is `a`");
    check(&|p| p.merges[3] = "a zzqqzz", "needs `zzqqzz`, which is not in the vocabulary");
    check(&|p| p.merges[3] = "<0x41> a", "merge 3 joins `<0x41>` and `a`");
    check(&|p| p.merges.clear(), "neither merges nor distinct scores");
    check(&|p| p.eos = Some(TokenId(8000)), "the eos token is 8000; the vocabulary has 8000 entries");
    let (few, none) = ([1.0, 2.0], VocabParts::default());
    check_error(from_parts(VocabParts { merges: Vec::new(), scores: &few, ..parts.get() }), "2 scores for 8000 tokens");
    check_error(from_parts(none), "0 tokens");
}

#[test]
fn a_file_that_asks_for_another_pipeline_is_refused_by_name() {
    let check = |change: &dyn Fn(&mut Value), expected| check_error(changed(change), expected);
    check(&|f| f["normalizer"] = json!({"type": "NFKC"}), "normalizer is {\"type\":\"NFKC\"}");
    check(&|f| f["normalizer"] = Value::Null, "normalizer is null");
    check(&|f| f["pre_tokenizer"] = json!({"type": "ByteLevel"}), "pre_tokenizer is");
    check(&|f| f["decoder"]["decoders"][1] = json!({"type": "Strip"}), "decoder is");
    check(&|f| f["model"]["type"] = "Unigram".into(), "model type is Unigram");
    check(&|f| f["model"]["ignore_merges"] = true.into(), "ignore_merges is true");
    check(&|f| f["model"]["dropout"] = 0.1.into(), "dropout is 0.1");
    check(&|f| f["model"]["end_of_word_suffix"] = "</w>".into(), "end_of_word_suffix is </w>");
    check(&|f| f["added_tokens"][0]["lstrip"] = true.into(), "added token is <pad>");
    check(&|f| f["added_tokens"][0]["id"] = 1.into(), "token id 1 is used twice");
    check(&|f| f["added_tokens"][0]["id"] = (1 << 21).into(), "2097153 tokens");
    check(&|f| f["model"]["vocab"]["<pad>"] = 77.into(), "is used twice");
    check(&|f| f["model"]["vocab"]["<pad>"] = (-1).into(), "can't be read");
    check(&|f| f["model"]["merges"][5] = json!(["a"]), "can't be read");
    check(&|f| f["model"]["merges"][5] = json!(["a", "b", "c"]), "can't be read");
    check(&|f| f["model"]["merges"][5] = json!(["a", "zzqqzz"]), "merge 5 (`a` + `zzqqzz`)");
    check(&|f| f["model"] = Value::Null, "can't be read");
    assert!(changed(|f| f["decoder"] = Value::Null).is_ok());
    assert!(changed(|f| f["pre_tokenizer"] = Value::Null).is_ok());
    let joined = changed(|f| {
        for merge in f["model"]["merges"].as_array_mut().expect("a list") {
            *merge = format!("{} {}", merge[0].as_str().expect("text"), merge[1].as_str().expect("text")).into();
        }
    });
    assert_eq!(joined.expect("it loads").encode("other things"), tokenizer().encode("other things"));
}

#[test]
fn a_broken_file_is_an_error_and_never_a_panic() {
    let mut rng = Rng(8);
    assert!(Tokenizer::from_json(b"").is_err());
    assert!(Tokenizer::from_json(b"\xff\xfe").is_err());
    for _ in 0..60 {
        let mut file = JSON.to_vec();
        file.truncate(rng.below(file.len() - 2));
        assert!(Tokenizer::from_json(&file).is_err());
    }
    for _ in 0..200 {
        let mut file = JSON.to_vec();
        let at = rng.below(file.len());
        file[at] = rng.next() as u8;
        if let Ok(tokenizer) = Tokenizer::from_json(&file) {
            tokenizer.encode("some text <|turn>");
        }
    }
}

#[test]
fn one_tokenizer_serves_many_threads() {
    let tokenizer = tokenizer();
    let expected = tokenizer.encode("the same text for all");
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| assert_eq!(tokenizer.encode("the same text for all"), expected));
        }
    });
}
