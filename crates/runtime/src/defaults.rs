//! What a model says about how to sample from it: `generation_config.json` and the ids in `config.json`, or the
//! `general.sampling.*` keys and `eos_token_id` of a GGUF file.
//!
//! Where a checkpoint says nothing, the family's published values hold: temperature 1, top-k 64, top-p 0.95. A file that is there and doesn't ask for sampling means the most likely
//! token, as in transformers' `GenerationConfig`.

use carat_tensor::TokenId;
use carat_weights::{Metadata, WeightsError};
use serde_json::Value;

use crate::SamplingOptions;

/// `config.json` keys of tokens that stand for media in a prompt and must never be drawn (both spellings of
/// the end of audio are in circulation).
const MEDIA_KEYS: [&str; 8] = [
    "boi_token_id",
    "eoi_token_id",
    "image_token_id",
    "boa_token_id",
    "eoa_token_id",
    "eoa_token_index",
    "audio_token_id",
    "video_token_id",
];

/// A model's own way of generating.
#[derive(Clone, Debug, PartialEq)]
pub struct GenerationDefaults {
    /// Temperature, top-k, top-p and the like; `suppress` holds the tokens that are never drawn.
    pub sampling: SamplingOptions,
    /// Tokens that end an answer.
    pub stop_tokens: Vec<TokenId>,
}

impl GenerationDefaults {
    /// The family's published values: `google/gemma-4-*-it` `generation_config.json`.
    pub fn family() -> Self {
        let sampling = SamplingOptions { temperature: 1.0, top_k: 64, top_p: 0.95, ..SamplingOptions::default() };
        GenerationDefaults { sampling, stop_tokens: Vec::new() }
    }

    /// From `generation_config.json` and `config.json`; values of another type than expected count as absent.
    pub fn from_json(generation: Option<&Value>, config: &Value) -> Self {
        let mut defaults = generation.map_or_else(Self::family, from_generation_config);
        let media = MEDIA_KEYS.iter().filter_map(|key| id_of(config.get(key)?));
        defaults.sampling.suppress.extend(media);
        for config in [Some(config), config.get("text_config")].into_iter().flatten() {
            defaults.stop_tokens.extend(ids_of(config.get("eos_token_id")));
        }
        defaults.tidy();
        defaults
    }

    /// From a GGUF file's metadata.
    pub fn from_gguf(metadata: &Metadata) -> Result<Self, WeightsError> {
        let key = |name: &str| format!("general.sampling.{name}");
        let number = |name: &str| metadata.opt_f32(&key(name));
        let mut defaults = Self::family();
        let sampling = &mut defaults.sampling;
        sampling.temperature = number("temp")?.unwrap_or(sampling.temperature);
        // Programs write -1 as well as 0 for "all of them".
        sampling.top_k = metadata.opt_i64(&key("top_k"))?.map_or(sampling.top_k, |k| usize::try_from(k).unwrap_or(0));
        sampling.top_p = number("top_p")?.unwrap_or(sampling.top_p);
        sampling.min_p = number("min_p")?.unwrap_or(sampling.min_p);
        sampling.repetition_penalty = number("penalty_repeat")?.unwrap_or(sampling.repetition_penalty);
        let suppressed = metadata.opt_u32s("tokenizer.ggml.suppress_tokens")?.unwrap_or_default();
        sampling.suppress.extend(suppressed.into_iter().map(TokenId));
        defaults.stop_tokens.extend(metadata.opt_u32("tokenizer.ggml.eos_token_id")?.map(TokenId));
        Ok(defaults)
    }

    /// Sorts the lists of tokens and leaves each token in once.
    pub fn tidy(&mut self) {
        for ids in [&mut self.sampling.suppress, &mut self.stop_tokens] {
            ids.sort_unstable();
            ids.dedup();
        }
    }
}

fn from_generation_config(json: &Value) -> GenerationDefaults {
    let number = |key: &str| json.get(key).and_then(Value::as_f64).map(|n| n as f32);
    let mut sampling = SamplingOptions {
        repetition_penalty: number("repetition_penalty").unwrap_or(1.0),
        ..SamplingOptions::default()
    };
    if json.get("do_sample").and_then(Value::as_bool).unwrap_or(false) {
        sampling.temperature = number("temperature").unwrap_or(1.0);
        // 50 is transformers' default where a file asks for sampling and leaves top-k out.
        sampling.top_k = json.get("top_k").map_or(50, |k| k.as_u64().unwrap_or(0) as usize);
        sampling.top_p = number("top_p").unwrap_or(1.0);
        sampling.min_p = number("min_p").unwrap_or(0.0);
    }
    sampling.suppress = ids_of(json.get("suppress_tokens"));
    GenerationDefaults { sampling, stop_tokens: ids_of(json.get("eos_token_id")) }
}

fn id_of(value: &Value) -> Option<TokenId> {
    value.as_u64().and_then(|id| u32::try_from(id).ok()).map(TokenId)
}

/// An id or a list of ids.
fn ids_of(value: Option<&Value>) -> Vec<TokenId> {
    match value {
        Some(Value::Array(ids)) => ids.iter().filter_map(id_of).collect(),
        Some(id) => id_of(id).into_iter().collect(),
        None => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use carat_tensor::Bytes;
    use carat_weights::{GgufFile, GgufWriter, Value as Stored, ValueType};
    use serde_json::json;

    #[test]
    fn a_published_file_gives_the_published_values() {
        let generation = json!({"do_sample": true, "temperature": 1.0, "top_k": 64, "top_p": 0.95,
            "eos_token_id": [1, 106, 50], "suppress_tokens": [258883, 258882]});
        let config = json!({"eoi_token_id": 258882, "boi_token_id": 255999, "audio_token_id": null,
            "text_config": {"eos_token_id": 1}});
        let found = GenerationDefaults::from_json(Some(&generation), &config);
        assert_eq!((found.sampling.temperature, found.sampling.top_k, found.sampling.top_p), (1.0, 64, 0.95));
        assert_eq!(found.stop_tokens, [1, 50, 106].map(TokenId));
        assert_eq!(found.sampling.suppress, [255999, 258882, 258883].map(TokenId));
    }

    #[test]
    fn a_file_that_does_not_ask_for_sampling_is_greedy() {
        let found = GenerationDefaults::from_json(Some(&json!({"eos_token_id": 1, "temperature": 0.7})), &json!({}));
        assert_eq!(found.sampling.temperature, 0.0);
        assert_eq!(found.stop_tokens, [TokenId(1)]);
    }

    #[test]
    fn without_a_file_the_family_s_values_hold() {
        let found = GenerationDefaults::from_json(None, &json!({"eos_token_id": [1, 106]}));
        assert_eq!((found.sampling.temperature, found.sampling.top_k, found.sampling.top_p), (1.0, 64, 0.95));
        assert_eq!(found.stop_tokens, [1, 106].map(TokenId));
    }

    #[test]
    fn a_gguf_file_says_what_differs_from_the_family_s_values() {
        let read = |write: &dyn Fn(&mut GgufWriter)| {
            let mut writer = GgufWriter::new();
            write(&mut writer);
            let file = GgufFile::from_bytes("sampling.gguf", Bytes::from_vec(writer.to_bytes::<&[u8]>(&[]))).unwrap();
            GenerationDefaults::from_gguf(&file.metadata)
        };
        assert_eq!(read(&|_| ()).unwrap(), GenerationDefaults::family());
        let found = read(&|writer| {
            writer.f32("general.sampling.temp", 0.5).f32("general.sampling.min_p", 0.25);
            writer.u32("tokenizer.ggml.eos_token_id", 106);
            writer.value("general.sampling.top_k", &Stored::Int(ValueType::I32, -1));
        });
        let GenerationDefaults { sampling, stop_tokens } = found.unwrap();
        assert_eq!(stop_tokens, [TokenId(106)]);
        assert_eq!((sampling.temperature, sampling.top_k, sampling.top_p, sampling.min_p), (0.5, 0, 0.95, 0.25));
        let error = read(&|writer| {
            writer.str("general.sampling.temp", "hot");
        })
        .unwrap_err()
        .to_string();
        assert!(error.contains("general.sampling.temp") && error.contains("hot"), "{error}");
    }
}
