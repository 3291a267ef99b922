//! Where a model comes from, and what its files say beside the tensors: tokenizer, chat template, defaults.
//!
//! A Hugging Face directory and a GGUF file keep these in different places; above this file they are one.

use std::path::{Path, PathBuf};

use carat_chat::tokenizer::{Tokenizer, TokenizerError, VocabParts};
use carat_media::picture::Budget;
use carat_model::ModelConfig;
use carat_tensor::TokenId;
use carat_weights::{Checkpoint, GgufFile, HfDir};

use crate::{Error, GenerationDefaults, ImageTokens};

/// Which model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ModelSource {
    /// The demonstration model that is part of the program.
    Embedded,
    /// A directory with `config.json` and safetensors, one such file, or a GGUF file.
    Path(PathBuf),
}

impl std::fmt::Display for ModelSource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            ModelSource::Embedded => f.write_str("carat-nano (embedded)"),
            ModelSource::Path(path) => path.display().fmt(f),
        }
    }
}

/// A model's files, open; its tensors are mapped and not yet read.
#[derive(Debug)]
pub struct ModelFiles {
    source: ModelSource,
    checkpoint: Checkpoint,
    /// The file that was said to hold the encoders.
    encoders: Option<PathBuf>,
}

impl ModelFiles {
    /// Opens the files of `source`.
    pub fn open(source: &ModelSource) -> Result<Self, Error> {
        let files = ModelFiles::open_encoders(source)?;
        carat_model::load::check_family(&files.checkpoint).map_err(|error| Error::of_files(source, error))?;
        Ok(files)
    }

    /// Opens files that may hold nothing but encoders, as mmproj files do.
    pub fn open_encoders(source: &ModelSource) -> Result<Self, Error> {
        let checkpoint = match source {
            ModelSource::Embedded => Checkpoint::HfDir(embedded()?),
            ModelSource::Path(path) => carat_weights::open(path)?,
        };
        Ok(ModelFiles { source: source.clone(), checkpoint, encoders: None })
    }

    /// The same with the encoders in another file, which is opened when they are needed: an mmproj GGUF file, or anything else
    /// that holds encoders. Without it they are the model's own, or those of what lies beside a GGUF file.
    #[must_use]
    pub fn with_encoders(self, path: Option<PathBuf>) -> Self {
        ModelFiles { encoders: path, ..self }
    }

    /// The file that was said to hold the encoders.
    pub fn encoders(&self) -> Option<&Path> {
        self.encoders.as_deref()
    }

    /// Where they come from.
    pub fn source(&self) -> &ModelSource {
        &self.source
    }

    /// Config and tensors.
    pub fn checkpoint(&self) -> &Checkpoint {
        &self.checkpoint
    }

    /// Config and tensors, for loading.
    pub fn checkpoint_mut(&mut self) -> &mut Checkpoint {
        &mut self.checkpoint
    }

    /// Whether these files hold what a model hears with.
    pub(crate) fn hear(&self) -> Result<bool, Error> {
        carat_model::encoders::hears(&self.checkpoint).map_err(|error| Error::of_files(&self.source, error))
    }

    /// The model's config.
    pub fn config(&self) -> Result<ModelConfig, Error> {
        carat_model::load::config(&self.checkpoint).map_err(|error| Error::of_files(&self.source, error))
    }

    /// The tokenizer. An error if the files have none: tensors alone are enough for logits.
    pub fn tokenizer(&self) -> Result<Tokenizer, Error> {
        let wrong = |reason| Error::Tokenizer { model: self.source.to_string(), reason };
        let none = || Error::NoTokenizer { model: self.source.to_string() };
        match &self.checkpoint {
            Checkpoint::HfDir(dir) => {
                let json = dir.tokenizer_json.as_ref().ok_or_else(none)?;
                Tokenizer::from_json(json).map_err(wrong)
            }
            Checkpoint::Gguf(file) if !file.metadata.contains("tokenizer.ggml.tokens") => Err(none()),
            Checkpoint::Gguf(file) => gguf_tokenizer(file, wrong),
        }
    }

    /// Refuses a tokenizer that makes tokens of text for which the model has no embedding. Files in circulation have
    /// control tokens beyond it, and rows beyond the tokenizer.
    pub fn check_vocabulary(&self, tokenizer: &Tokenizer) -> Result<(), Error> {
        let (entries, rows) = (tokenizer.vocab_size(), self.config()?.vocab_size);
        let mut beyond = (rows..entries).filter_map(|id| u32::try_from(id).ok()).map(TokenId);
        match beyond.find(|&id| !tokenizer.is_control(id)) {
            None => Ok(()),
            Some(token) => Err(Error::Vocabulary { model: self.source.to_string(), entries, rows, token }),
        }
    }

    /// The chat template that the files bring along.
    pub fn chat_template(&self) -> Result<Option<&str>, Error> {
        match &self.checkpoint {
            Checkpoint::HfDir(dir) => Ok(dir.chat_template.as_deref()),
            Checkpoint::Gguf(file) => Ok(file.metadata.opt_str("tokenizer.chat_template")?),
        }
    }

    /// The most soft tokens of a picture where no number is asked for: what the files name, or 280.
    pub fn image_tokens(&self) -> ImageTokens {
        let named = match &self.checkpoint {
            Checkpoint::HfDir(dir) => dir.config["vision_soft_tokens_per_image"].as_u64(),
            Checkpoint::Gguf(_) => None,
        };
        let budget = named.and_then(|n| u32::try_from(n).ok()).and_then(|n| Budget::new(n).ok());
        budget.map_or_else(ImageTokens::default, ImageTokens::Most)
    }

    /// How the model wants to be sampled, and which tokens end its answers and are never drawn.
    pub fn generation(&self, tokenizer: &Tokenizer) -> Result<GenerationDefaults, Error> {
        let mut defaults = match &self.checkpoint {
            Checkpoint::HfDir(dir) => GenerationDefaults::from_json(dir.generation_config.as_ref(), &dir.config),
            Checkpoint::Gguf(file) => GenerationDefaults::from_gguf(&file.metadata)?,
        };
        let s = tokenizer.special();
        // Files in circulation leave out some of the tokens that end an answer, and let some media markers through.
        let media = [s.image, s.image_open, s.image_close, s.audio, s.audio_open, s.audio_close, s.video];
        defaults.sampling.suppress.extend(media.into_iter().flatten());
        defaults.stop_tokens.extend([s.eos, s.turn_close, s.tool_response_open].into_iter().flatten());
        defaults.tidy();
        let wrong = |reason| Error::Generation { model: self.source.to_string(), reason };
        defaults.sampling.check(self.config()?.vocab_size).map_err(wrong)?;
        Ok(defaults)
    }
}

fn gguf_tokenizer(file: &GgufFile, wrong: impl Fn(TokenizerError) -> Error) -> Result<Tokenizer, Error> {
    let metadata = &file.metadata;
    let key = |name: &str| format!("tokenizer.ggml.{name}");
    let id = |name: &str| metadata.opt_u32(&key(name)).map(|id| id.map(TokenId));
    let types = if metadata.contains(&key("token_type")) { metadata.i32s(&key("token_type"))? } else { Vec::new() };
    let texts = |name: &str| -> Result<Vec<&str>, Error> {
        let key = key(name);
        let checked = metadata
            .strings(&key)?
            .enumerate()
            .map(|(index, bytes)| std::str::from_utf8(bytes).map_err(|_| Error::NotText { key: key.clone(), index }));
        checked.collect()
    };
    let merges = if metadata.contains(&key("merges")) { texts("merges")? } else { Vec::new() };
    let scores: Vec<f32> =
        match metadata.opt_array(&key("scores"))?.and_then(|a| a.floats().map(|f| f.map(|f| f as f32).collect())) {
            Some(scores) if merges.is_empty() => scores,
            _ => Vec::new(),
        };
    let parts = VocabParts {
        tokens: texts("tokens")?,
        token_types: &types,
        merges,
        scores: &scores,
        bos: id("bos_token_id")?,
        eos: id("eos_token_id")?,
        unk: id("unknown_token_id")?,
        pad: id("padding_token_id")?,
    };
    Tokenizer::from_parts(parts).map_err(wrong)
}

/// The files of the embedded model, made by the recipe in `nano/`.
fn embedded() -> Result<HfDir, Error> {
    Ok(HfDir::from_parts(
        include_bytes!("../../../nano/checkpoint/config.json"),
        include_bytes!("../../../nano/checkpoint/tokenizer.json"),
        include_bytes!("../../../nano/checkpoint/model.safetensors"),
        Some(include_bytes!("../../../nano/checkpoint/generation_config.json")),
    )?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use carat_tensor::{Bytes, DType};
    use carat_weights::GgufWriter;

    #[test]
    fn tensors_alone_have_no_tokenizer() {
        let mut file = GgufWriter::new();
        file.str("general.architecture", "gemma4").tensor("a", DType::F32, &[1]);
        let file = GgufFile::from_bytes("m.gguf", Bytes::from_vec(file.to_bytes(&[[0; 4]]))).unwrap();
        let source = ModelSource::Path("m.gguf".into());
        let files = ModelFiles { source, checkpoint: Checkpoint::Gguf(file), encoders: None };
        let error = files.tokenizer().map(drop).unwrap_err();
        assert!(matches!(error, Error::NoTokenizer { .. }), "{error}");
    }
}
