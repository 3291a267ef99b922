//! Arguments that several subcommands share, and what they stand for.

use std::path::PathBuf;

use carat_runtime::device::{DeviceOptions, Precision};
use carat_runtime::{LoadOptions, ModelFiles, ModelSource};
use carat_tensor::TokenId;
use carat_tensor::backend::KvType;

use crate::pull;

/// The command line can't be followed; exit code 2.
#[derive(Debug)]
pub struct UsageError(pub String);

impl std::fmt::Display for UsageError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for UsageError {}

/// Ctrl-C ended the answer; exit code 130.
#[derive(Debug)]
pub struct Interrupted;

impl std::fmt::Display for Interrupted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("interrupted")
    }
}

impl std::error::Error for Interrupted {}

/// The model that `MODEL` names, a path or a pulled model; left out, the embedded one.
pub fn source(model: Option<&PathBuf>) -> anyhow::Result<ModelSource> {
    Ok(match model {
        None => ModelSource::Embedded,
        Some(text) => ModelSource::Path(pull::located(text)?),
    })
}

/// Opens the files of `MODEL`.
pub fn open(model: Option<&PathBuf>) -> anyhow::Result<ModelFiles> {
    Ok(ModelFiles::open(&source(model)?)?)
}

/// How the model is run.
#[derive(clap::Args)]
#[command(next_help_heading = "Engine")]
pub struct EngineArgs {
    /// Threads that compute [default: one per core this process may use]
    #[arg(long, value_name = "N", value_parser = at_least_one)]
    pub threads: Option<usize>,
    /// Tokens that prompt and answers may take together
    #[arg(long, value_name = "N", value_parser = at_least_one)]
    pub ctx: Option<usize>,
    /// How keys and values are stored [default: f16, with --precision f32: f32]
    #[arg(long, value_enum, value_name = "TYPE")]
    pub kv: Option<KvArg>,
    /// fast: integer products of the stored weights; f32: the slow path that defines the result
    #[arg(long, value_enum, value_name = "PATH", default_value_t = PrecisionArg::Fast)]
    pub precision: PrecisionArg,
}

impl EngineArgs {
    /// As the library takes them.
    pub fn load_options(&self) -> LoadOptions {
        let precision = match self.precision {
            PrecisionArg::Fast => Precision::Fast,
            PrecisionArg::F32 => Precision::Reference,
        };
        let kv = self.kv.map(|kv| match kv {
            KvArg::F16 => KvType::F16,
            KvArg::Q8_0 => KvType::Q8_0,
            KvArg::F32 => KvType::F32,
        });
        LoadOptions {
            device: DeviceOptions { threads: self.threads, precision },
            context: self.ctx,
            kv,
            ..LoadOptions::default()
        }
    }
}

/// `--kv`.
#[derive(Clone, Copy, clap::ValueEnum)]
pub enum KvArg {
    /// Half precision.
    F16,
    /// 8 bits, half of f16.
    #[value(name = "q8_0")]
    Q8_0,
    /// Single precision.
    F32,
}

/// `--precision`.
#[derive(Clone, Copy, clap::ValueEnum)]
pub enum PrecisionArg {
    /// Integer products of the stored weights.
    Fast,
    /// The reference path.
    F32,
}

/// A whole number from 1 on.
pub fn at_least_one(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(0) => Err("expected at least 1".into()),
        Ok(n) => Ok(n),
        Err(_) => Err("expected a whole number, at least 1".into()),
    }
}

/// Ids separated by commas or white space, with or without brackets around them.
pub fn ids(text: &str) -> Result<Vec<TokenId>, String> {
    let inner = text.trim();
    let inner = inner.strip_prefix('[').and_then(|t| t.strip_suffix(']')).unwrap_or(inner);
    let words = inner.split(|c: char| c == ',' || c.is_whitespace()).filter(|word| !word.is_empty());
    words.map(|word| word.parse().map(TokenId).map_err(|_| format!("`{word}` is not a token id"))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_may_be_separated_in_every_usual_way() {
        let expected = Ok(vec![TokenId(1), TokenId(20), TokenId(3)]);
        for text in ["1,20,3", "1 20\n3\n", "[1, 20, 3]", " 1,\t20 ,3,"] {
            assert_eq!(ids(text), expected, "{text}");
        }
        assert_eq!(ids(""), Ok(vec![]));
        assert_eq!(ids("1,x"), Err("`x` is not a token id".into()));
        assert_eq!(ids("-1"), Err("`-1` is not a token id".into()));
    }
}
