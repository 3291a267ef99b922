//! A checkpoint as Hugging Face publishes it: a directory of JSON files and safetensors.
//!
//! Only `config.json` and the tensors must be there. The tokenizer stays unparsed: whoever needs it has its
//! own, faster reader than a JSON tree.

use std::io::Read;
use std::path::Path;

use carat_tensor::Bytes;
use serde_json::Value;

use crate::mmap::{is_there, open_regular};
use crate::{Weights, WeightsError, map_file, safetensors};

/// Largest JSON or template file that is read whole.
pub const MAX_JSON_BYTES: u64 = 16 << 20;

const CONFIG: &str = "config.json";
const SINGLE: &str = "model.safetensors";
const INDEX: &str = "model.safetensors.index.json";

/// The contents of a Hugging Face directory.
#[derive(Debug)]
pub struct HfDir {
    /// `config.json`, an object.
    pub config: Value,
    /// `generation_config.json`.
    pub generation_config: Option<Value>,
    /// `tokenizer.json`, unparsed.
    pub tokenizer_json: Option<Bytes>,
    /// `tokenizer_config.json`.
    pub tokenizer_config: Option<Value>,
    /// The chat template: `chat_template.jinja`, else from `chat_template.json` or `tokenizer_config.json`.
    pub chat_template: Option<String>,
    /// The tensors of `model.safetensors`, or of the shards its index names.
    pub tensors: Weights,
}

impl HfDir {
    /// Reads the directory `dir`.
    ///
    /// # Errors
    /// If `config.json` or the tensors are missing, or any of the known files can't be read.
    pub fn open(dir: &Path) -> Result<Self, WeightsError> {
        let tensors = if is_there(&dir.join(SINGLE)) {
            safetensors::open_file(&dir.join(SINGLE))?
        } else if is_there(&dir.join(INDEX)) {
            safetensors::open_sharded(&dir.join(INDEX))?
        } else {
            return Err(WeightsError::NotACheckpoint {
                file: dir.display().to_string(),
                found: "a directory without weights".into(),
                expected: format!("`{SINGLE}`, or shards and `{INDEX}`, beside `{CONFIG}`"),
            });
        };
        Self::with_tensors(dir, tensors)
    }

    /// Reads the directory of the safetensors file `path`, with the weights of that file; a shard stands for
    /// the whole sharded checkpoint.
    pub fn open_beside(path: &Path) -> Result<Self, WeightsError> {
        let dir = path.parent().unwrap_or(Path::new(""));
        if is_there(&dir.join(INDEX)) && !is_there(&dir.join(SINGLE)) {
            return Self::open(dir);
        }
        Self::with_tensors(dir, safetensors::open_file(path)?)
    }

    fn with_tensors(dir: &Path, tensors: Weights) -> Result<Self, WeightsError> {
        let Some(config) = read_json(&dir.join(CONFIG))? else {
            return Err(WeightsError::NotACheckpoint {
                file: dir.display().to_string(),
                found: format!("weights without `{CONFIG}`"),
                expected: format!("`{CONFIG}` beside them"),
            });
        };
        let tokenizer_path = dir.join("tokenizer.json");
        let tokenizer_config = read_json(&dir.join("tokenizer_config.json"))?;
        let chat_template = match read_text(&dir.join("chat_template.jinja"))? {
            Some(template) => Some(template),
            None => {
                let own = read_json(&dir.join("chat_template.json"))?;
                own.as_ref().and_then(template_of).or_else(|| tokenizer_config.as_ref().and_then(template_of))
            }
        };
        Ok(HfDir {
            config,
            generation_config: read_json(&dir.join("generation_config.json"))?,
            tokenizer_json: is_there(&tokenizer_path).then(|| map_file(&tokenizer_path)).transpose()?,
            tokenizer_config,
            chat_template,
            tensors,
        })
    }

    /// A checkpoint whose files are part of the program.
    ///
    /// # Errors
    /// As for files on disk; they are named `embedded config.json` and so on.
    pub fn from_parts(
        config: &'static [u8],
        tokenizer: &'static [u8],
        safetensors: &'static [u8],
        generation_config: Option<&'static [u8]>,
    ) -> Result<Self, WeightsError> {
        let file = "embedded model.safetensors";
        let tensors = safetensors::read(file, &Bytes::from_static(safetensors))?;
        let generation = generation_config.map(|json| parse("embedded generation_config.json", json));
        Ok(HfDir {
            config: parse("embedded config.json", config)?,
            generation_config: generation.transpose()?,
            tokenizer_json: Some(Bytes::from_static(tokenizer)),
            tokenizer_config: None,
            chat_template: None,
            tensors: Weights::new(file.into(), tensors)?,
        })
    }
}

/// `chat_template` of a JSON file: a string, or a list of named ones of which `default` counts.
fn template_of(json: &Value) -> Option<String> {
    let template = match json.get("chat_template")? {
        Value::Array(named) => named.iter().find(|t| t.get("name").is_some_and(|n| n == "default"))?.get("template")?,
        other => other,
    };
    template.as_str().map(str::to_owned)
}

/// The JSON object in the file at `path`, `None` without the file.
fn read_json(path: &Path) -> Result<Option<Value>, WeightsError> {
    read_small(path)?.map(|bytes| parse(&path.display().to_string(), &bytes)).transpose()
}

/// The text in the file at `path`, `None` without the file.
fn read_text(path: &Path) -> Result<Option<String>, WeightsError> {
    let Some(bytes) = read_small(path)? else { return Ok(None) };
    String::from_utf8(bytes).map(Some).map_err(|e| WeightsError::Malformed {
        file: path.display().to_string(),
        what: "the text".into(),
        found: format!("a broken character at byte {}", e.utf8_error().valid_up_to()),
        expected: "UTF-8".into(),
    })
}

fn read_small(path: &Path) -> Result<Option<Vec<u8>>, WeightsError> {
    let file = || path.display().to_string();
    let io = |source| WeightsError::Io { file: file(), source };
    if !is_there(path) {
        return Ok(None);
    }
    let (opened, facts) = open_regular(path)?;
    let mut bytes = Vec::new();
    // The length may be a lie, as that of files under /proc.
    opened.take(MAX_JSON_BYTES + 1).read_to_end(&mut bytes).map_err(io)?;
    let found = facts.len().max(bytes.len() as u64);
    if found > MAX_JSON_BYTES {
        return Err(WeightsError::Limit { file: file(), what: "bytes".into(), found, limit: MAX_JSON_BYTES });
    }
    Ok(Some(bytes))
}

fn parse(file: &str, bytes: &[u8]) -> Result<Value, WeightsError> {
    let json = |reason: String| WeightsError::Json { file: file.into(), what: "the content", reason };
    let value: Value = serde_json::from_slice(bytes).map_err(|e| json(e.to_string()))?;
    if !value.is_object() {
        return Err(json("it is not an object".into()));
    }
    Ok(value)
}
