//! The vocabulary, from `tokenizer.json` to the `tokenizer.ggml` keys of GGUF and back.
//!
//! Sources: llama.cpp `conversion/gemma.py` (`Gemma4Model.set_vocab`), gguf-py `vocab.py`.

use std::collections::HashMap;

use anyhow::{Context, anyhow, bail};
use carat_weights::{GgufWriter, HfDir, Metadata};
use serde_json::{Map, Value, json};

/// Kinds of tokens (llama.cpp `llama_token_type`).
mod kind {
    pub const NORMAL: i32 = 1;
    pub const CONTROL: i32 = 3;
    pub const USER_DEFINED: i32 = 4;
    pub const BYTE: i32 = 6;
}
/// Control tokens that programs must see in the text to parse it, so they are not hidden as control tokens are.
const VISIBLE: [&str; 7] =
    ["<|channel>", "<channel|>", "<|tool_call>", "<tool_call|>", "<|tool_response>", "<tool_response|>", "<|\"|>"];
/// Special tokens: the key in GGUF files, in `tokenizer_config.json`, and as the family spells them.
const SPECIAL: [(&str, &str, &str); 5] = [
    ("bos_token_id", "bos_token", "<bos>"),
    ("eos_token_id", "eos_token", "<eos>"),
    ("unknown_token_id", "unk_token", "<unk>"),
    ("padding_token_id", "pad_token", "<pad>"),
    ("mask_token_id", "mask_token", "<mask>"),
];
/// Merges don't matter by score; converters write this one.
const SCORE: f32 = -1000.0;
/// Largest vocabulary accepted.
const MAX_VOCAB: u64 = 1 << 24;

/// Writes the keys of a directory's tokenizer; says whether it has one.
pub fn write_gguf(writer: &mut GgufWriter, dir: &HfDir) -> anyhow::Result<bool> {
    let Some(json) = &dir.tokenizer_json else { return Ok(false) };
    let json: Value = serde_json::from_slice(json).context("tokenizer.json is not valid JSON")?;
    let vocabulary = Vocabulary::read(&json).context("tokenizer.json")?;
    writer.str("tokenizer.ggml.model", "gemma4");
    writer.strings("tokenizer.ggml.tokens", &vocabulary.tokens);
    writer.f32s("tokenizer.ggml.scores", &vec![SCORE; vocabulary.tokens.len()]);
    writer.i32s("tokenizer.ggml.token_type", &vocabulary.kinds);
    writer.strings("tokenizer.ggml.merges", &vocabulary.merges);
    let ids: HashMap<&str, u32> = (0..).zip(&vocabulary.tokens).map(|(id, token)| (token.as_str(), id)).collect();
    for (key, in_config, usual) in SPECIAL {
        let named = dir.tokenizer_config.as_ref().and_then(|c| c.get(in_config));
        // Either the text, or an object with it.
        let text = named.and_then(|t| t.as_str().or_else(|| t.get("content")?.as_str())).unwrap_or(usual);
        if let Some(&id) = ids.get(text) {
            writer.u32(&format!("tokenizer.ggml.{key}"), id);
        }
    }
    if let Some(template) = &dir.chat_template {
        writer.str("tokenizer.chat_template", template);
    }
    writer.bool("tokenizer.ggml.add_space_prefix", false).bool("tokenizer.ggml.add_bos_token", true);
    Ok(true)
}

/// A `tokenizer.json` as GGUF has it.
struct Vocabulary {
    tokens: Vec<String>,
    kinds: Vec<i32>,
    merges: Vec<String>,
}

impl Vocabulary {
    fn read(json: &Value) -> anyhow::Result<Self> {
        let vocab = json.pointer("/model/vocab").and_then(Value::as_object).context("no object `model.vocab`")?;
        let added = json.get("added_tokens").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
        let id_of = |v: &Value| v.as_u64().filter(|id| *id < MAX_VOCAB).map(|id| id as usize).context("a bad token id");
        let mut tokens: Vec<Option<(String, i32)>> = Vec::new();
        let mut place = |id: usize, text: &str, kind: i32| {
            if tokens.len() <= id {
                tokens.resize(id + 1, None);
            }
            tokens[id] = Some((text.to_owned(), kind));
        };
        for (text, id) in vocab {
            place(id_of(id)?, text, if is_byte(text) { kind::BYTE } else { kind::NORMAL });
        }
        for token in added {
            let text = token.get("content").and_then(Value::as_str).context("an added token without `content`")?;
            let id = id_of(token.get("id").context("an added token without `id`")?)?;
            let special = token.get("special").and_then(Value::as_bool).unwrap_or(false);
            let kind = match special {
                _ if VISIBLE.contains(&text) => kind::USER_DEFINED,
                true => kind::CONTROL,
                false if vocab.contains_key(text) => kind::NORMAL,
                false => kind::USER_DEFINED,
            };
            place(id, text, kind);
        }
        let missing = tokens.iter().position(Option::is_none);
        if let Some(id) = missing {
            bail!("no token has id {id}, though there are {}", tokens.len());
        }
        let (tokens, kinds) = tokens.into_iter().flatten().unzip();
        let merges = json.pointer("/model/merges").and_then(Value::as_array).context("no list `model.merges`")?;
        let merges = merges.iter().map(|m| merge_text(m).with_context(|| format!("a bad merge {m}")));
        Ok(Vocabulary { tokens, kinds, merges: merges.collect::<anyhow::Result<_>>()? })
    }
}

/// A merge is a text with one space, or a list of two texts.
fn merge_text(merge: &Value) -> Option<String> {
    if let Some(text) = merge.as_str() {
        return Some(text.into());
    }
    let [left, right] = merge.as_array()?.as_slice() else { return None };
    // A space within a part can't be told from the one between them: GGUF writes it 256 further on.
    let part = |v: &Value| v.as_str().map(|text| text.replace(' ', "\u{120}"));
    Some(format!("{} {}", part(left)?, part(right)?))
}

/// `<0x00>` to `<0xFF>`.
fn is_byte(text: &str) -> bool {
    let digits = text.strip_prefix("<0x").and_then(|t| t.strip_suffix('>'));
    digits.is_some_and(|d| d.len() == 2 && d.bytes().all(|b| b.is_ascii_hexdigit()))
}

/// `tokenizer.json` and `tokenizer_config.json` of a GGUF file's vocabulary, if it has one.
///
/// # Errors
/// If the vocabulary isn't one of byte pairs, or isn't text.
pub fn read_gguf(metadata: &Metadata) -> anyhow::Result<Option<(Value, Value)>> {
    let key = |name: &str| format!("tokenizer.ggml.{name}");
    if !metadata.contains(&key("merges")) {
        if metadata.contains(&key("tokens")) && metadata.contains(&key("model")) {
            bail!("the vocabulary has no merges: `tokenizer.json` can't be made of it");
        }
        return Ok(None);
    }
    let texts = |name: &str| -> anyhow::Result<Vec<&str>> {
        let texts = metadata.strings(&key(name))?.map(std::str::from_utf8);
        texts.collect::<Result<_, _>>().map_err(|_| anyhow!("`{}` holds what is no text", key(name)))
    };
    let tokens = texts("tokens")?;
    let kinds = metadata.i32s(&key("token_type"))?;
    if kinds.len() != tokens.len() {
        bail!("{} tokens have {} kinds", tokens.len(), kinds.len());
    }
    let merges = texts("merges")?.into_iter().map(|merge| {
        let (left, right) = merge.split_once(' ').with_context(|| format!("merge `{merge}` has no two parts"))?;
        Ok(json!([left.replace('\u{120}', " "), right.replace('\u{120}', " ")]))
    });
    let merges = merges.collect::<anyhow::Result<Vec<_>>>()?;
    let special = |id: usize| matches!(kinds[id], kind::CONTROL | kind::USER_DEFINED);
    let added = tokens.iter().enumerate().filter(|(id, _)| special(*id)).map(|(id, text)| {
        let special = kinds[id] == kind::CONTROL || VISIBLE.contains(text);
        json!({"id": id, "content": text, "single_word": false, "lstrip": false, "rstrip": false,
            "normalized": false, "special": special})
    });
    let mut config = Map::new();
    config.insert("tokenizer_class".into(), json!("GemmaTokenizer"));
    let mut unknown = Value::Null;
    for (name, in_config, _) in SPECIAL {
        if let Some(text) = metadata.opt_u32(&key(name))?.and_then(|id| tokens.get(id as usize)) {
            config.insert(in_config.into(), json!(text));
            if in_config == "unk_token" {
                unknown = json!(text);
            }
        }
    }
    let vocab: Map<String, Value> = tokens.iter().enumerate().map(|(id, text)| ((*text).into(), json!(id))).collect();
    if vocab.len() != tokens.len() {
        bail!("{} of {} tokens are spelt like others", tokens.len() - vocab.len(), tokens.len());
    }
    let tokenizer = json!({
        "version": "1.0",
        "truncation": null,
        "padding": null,
        "added_tokens": added.collect::<Vec<_>>(),
        "normalizer": {"type": "Replace", "pattern": {"String": " "}, "content": "\u{2581}"},
        "pre_tokenizer": {"type": "Split", "pattern": {"String": " "}, "behavior": "MergedWithPrevious", "invert": false},
        "post_processor": null,
        "decoder": {"type": "Sequence", "decoders": [
            {"type": "Replace", "pattern": {"String": "\u{2581}"}, "content": " "},
            {"type": "ByteFallback"},
            {"type": "Fuse"},
        ]},
        "model": {"type": "BPE", "dropout": null, "unk_token": unknown, "continuing_subword_prefix": null,
            "end_of_word_suffix": null, "fuse_unk": true, "byte_fallback": true, "ignore_merges": false,
            "vocab": vocab, "merges": merges},
    });
    Ok(Some((tokenizer, Value::Object(config))))
}
