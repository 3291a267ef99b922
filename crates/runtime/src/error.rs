//! What can go wrong between a model's files and its answer.

use carat_chat::template::TemplateError;
use carat_chat::tokenizer::TokenizerError;
use carat_cpu::CpuError;
use carat_model::ModelError;
use carat_tensor::TokenId;
use carat_tensor::backend::KvType;
use carat_weights::WeightsError;

use crate::loading::MemoryLimit;
use crate::stop::StopError;
use crate::{ModelSource, SamplingError};

/// Why a model could not be loaded or could not answer.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The files.
    #[error(transparent)]
    Weights(#[from] WeightsError),
    /// The model's config, tensors or a step.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// What is in a model's files, where the reason doesn't name one of them.
    #[error("{model}: {reason}")]
    Files {
        /// The model.
        model: String,
        /// What is wrong.
        reason: Box<ModelError>,
    },
    /// A directory whose files were to be looked through.
    #[error("{dir}: {source}")]
    Directory {
        /// Which.
        dir: String,
        /// Why not.
        source: std::io::Error,
    },
    /// Files of encoders that nothing tells apart.
    #[error("several files beside {model} may hold its encoders: {found}; say which with --mmproj")]
    SeveralEncoders {
        /// The model.
        model: String,
        /// Their names.
        found: String,
    },
    /// The vocabulary.
    #[error("{model}: {reason}")]
    Tokenizer {
        /// The model.
        model: String,
        /// What is wrong.
        reason: TokenizerError,
    },
    /// Text would become tokens that the model has no embedding for.
    #[error(
        "{model}: the tokenizer has {entries} entries, and token {token} of them is text; the embedding has {rows} rows: \
         tokenizer and weights are of different models"
    )]
    Vocabulary {
        /// The model.
        model: String,
        /// Entries of the tokenizer.
        entries: usize,
        /// Rows of the embedding.
        rows: usize,
        /// The first text token without a row.
        token: TokenId,
    },
    /// The sampling options in the files.
    #[error("{model}: generation config: {reason}")]
    Generation {
        /// The model.
        model: String,
        /// What is wrong.
        reason: SamplingError,
    },
    /// The chat template in the files.
    #[error("{model}: {reason}")]
    ChatTemplate {
        /// The model.
        model: String,
        /// What is wrong.
        reason: TemplateError,
    },
    /// The model's own chat template failed, or a conversation that the model's format can't say.
    #[error(transparent)]
    Template(#[from] TemplateError),
    /// A sampling option, or logits that leave no choice.
    #[error(transparent)]
    Sampling(#[from] SamplingError),
    /// A stop string.
    #[error(transparent)]
    Stop(#[from] StopError),
    /// Text is needed, and the files have no tokenizer.
    #[error(
        "{model} has no tokenizer: expected tokenizer.json beside config.json, or tokenizer metadata in the GGUF file"
    )]
    NoTokenizer {
        /// The model.
        model: String,
    },
    /// A text of the vocabulary that isn't.
    #[error("entry {index} of `{key}` is not UTF-8")]
    NotText {
        /// The metadata key.
        key: String,
        /// Which entry.
        index: usize,
    },
    /// The backend could not start.
    #[error(transparent)]
    Device(#[from] CpuError),
    /// A longer context than the model was made for.
    #[error("a context of {found} tokens was asked for; the model was made for at most {most}")]
    Context {
        /// What was asked for.
        found: usize,
        /// The model's limit.
        most: usize,
    },
    /// A prompt that leaves no room for an answer, or none at all.
    #[error("the prompt has {found} tokens; expected 1 to {} in a context of {context}", context - 1)]
    PromptLength {
        /// Its tokens.
        found: usize,
        /// Tokens the context holds.
        context: usize,
    },
    /// A kind of medium that the model can't take.
    #[error("{model} can't take {}: {reason}", many(kind))]
    Cannot {
        /// The model.
        model: String,
        /// `image`, `audio` or `video`.
        kind: &'static str,
        /// What it lacks.
        reason: Box<ModelError>,
    },
    /// The model was loaded without room for pictures, or for sounds.
    #[error("no room was planned for {} when the model was loaded: set `LoadOptions::{option}`", many(kind))]
    NoRoom {
        /// `image`, `audio` or `video`.
        kind: &'static str,
        /// What makes room.
        option: &'static str,
    },
    /// A file that is no medium that can be read.
    #[error("{name}: {reason}")]
    Medium {
        /// The file.
        name: String,
        /// What is wrong.
        reason: carat_media::Error,
    },
    /// A recording in which there is nothing to hear.
    #[error(
        "{name} is silent: in {seconds:.1} s nothing is louder than {} dB below full scale",
        carat_media::sound::SILENCE_DB
    )]
    Silent {
        /// The file.
        name: String,
        /// Its length.
        seconds: f64,
    },
    /// A video that `ffmpeg` was asked to decode.
    #[error("{name}: ffmpeg can't decode it: {reason}")]
    Ffmpeg {
        /// The file.
        name: String,
        /// What it said.
        reason: String,
    },
    /// A video whose pictures can be decoded, and whose sound can't.
    #[error("{name}: its sound can't be heard: {reason}")]
    VideoSound {
        /// The file.
        name: String,
        /// What is wrong.
        reason: String,
    },
    /// A sound that is longer than a model hears at once.
    #[error(
        "{name} takes {seconds:.1} s; a model hears at most 30 s at once: cut it into parts, or let `carat transcribe` do it"
    )]
    LongSound {
        /// The file.
        name: String,
        /// Its length.
        seconds: f64,
    },
    /// More memory than is free or allowed.
    #[error("{}\n{table}", memory(*needed, *limit, *longest, *kv))]
    Memory {
        /// Bytes that count against the limit.
        needed: u64,
        /// The limit that is not held.
        limit: MemoryLimit,
        /// The longest context that would fit.
        longest: Option<usize>,
        /// As what keys and values would be kept.
        kv: KvType,
        /// What takes how much.
        table: String,
    },
}

impl Error {
    /// An error of what is in a model's files, with the model's name where the error names no file.
    pub fn of_files(model: &ModelSource, error: ModelError) -> Self {
        match error {
            ModelError::Weights(error) => Error::Weights(error),
            other @ (ModelError::Backend(_) | ModelError::Option { .. }) => Error::Model(other),
            other => Error::Files { model: model.to_string(), reason: Box::new(other) },
        }
    }
}

/// Media of a kind, in words.
fn many(kind: &str) -> &str {
    match kind {
        "image" => "pictures",
        "audio" => "sounds",
        "video" => "videos",
        other => other,
    }
}

fn memory(needed: u64, limit: MemoryLimit, longest: Option<usize>, kv: KvType) -> String {
    let mib = |bytes: u64| format!("{:.1} MiB", bytes as f64 / (1 << 20) as f64);
    let what = match limit {
        MemoryLimit::Free(free) => format!("the model needs {} of memory and {} are free", mib(needed), mib(free)),
        MemoryLimit::Allowed(most) => {
            format!("the model takes {} of memory with its weights and {} are allowed", mib(needed), mib(most))
        }
    };
    match longest {
        Some(ctx) => {
            let smaller = if kv == KvType::Q8_0 { "" } else { ", and --kv q8_0 takes less" };
            format!("{what}; --ctx {ctx} is the longest that fits{smaller}")
        }
        None => format!("{what}; no context fits"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_smaller_cache_is_offered_where_there_is_one() {
        let text = |kv| memory(3 << 20, MemoryLimit::Free(1 << 20), Some(512), kv);
        assert_eq!(
            text(KvType::F16),
            "the model needs 3.0 MiB of memory and 1.0 MiB are free; --ctx 512 is the longest that fits, and --kv q8_0 takes less"
        );
        assert!(text(KvType::Q8_0).ends_with("--ctx 512 is the longest that fits"), "{}", text(KvType::Q8_0));
    }
}
