//! Arguments that several subcommands share, and what they stand for.

use std::path::PathBuf;
use std::str::FromStr;

use carat_runtime::device::{DeviceOptions, Precision};
use carat_runtime::{LoadOptions, ModelFiles, ModelSource, Session};
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

/// An error if there is nothing where the model should be.
pub fn present(source: &ModelSource) -> anyhow::Result<()> {
    match source {
        ModelSource::Path(path) if path.symlink_metadata().is_err() => anyhow::bail!(
            "{}: there is no such model; expected a directory with config.json, a .gguf file, or a name from `carat list`",
            path.display()
        ),
        _ => Ok(()),
    }
}

/// An error if several of the files to read are standard input.
pub fn one_stdin<'a>(files: impl IntoIterator<Item = &'a PathBuf>) -> Result<(), UsageError> {
    match files.into_iter().filter(|file| file.as_os_str() == "-").count() {
        0 | 1 => Ok(()),
        _ => Err(UsageError("`-` can be given once: standard input is read to its end".into())),
    }
}

/// Opens the files of `MODEL`.
pub fn open(model: Option<&PathBuf>) -> anyhow::Result<ModelFiles> {
    Ok(ModelFiles::open(&source(model)?)?)
}

/// Where the encoders are.
#[derive(clap::Args, Default)]
pub struct EncoderArgs {
    /// The GGUF file that holds the encoders of pictures and sounds [default: the one beside MODEL whose name says mmproj]
    #[arg(long, value_name = "FILE")]
    pub mmproj: Option<PathBuf>,
}

impl EncoderArgs {
    /// Opens the files of a model that is to see or hear.
    pub fn open(&self, source: &ModelSource) -> anyhow::Result<ModelFiles> {
        if let Some(path) = self.mmproj.as_ref().filter(|path| !path.exists()) {
            anyhow::bail!("--mmproj: {}: there is no such file", path.display());
        }
        Ok(ModelFiles::open(source)?.with_encoders(self.mmproj.clone()))
    }
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
    /// Refuse to take more memory than this, e.g. 8GiB or 500MB, weights included
    #[arg(long, value_name = "SIZE", value_parser = size)]
    pub memory: Option<u64>,
    /// How keys and values are stored [default: f16, with --precision f32: f32]
    #[arg(long, value_enum, value_name = "TYPE")]
    pub kv: Option<KvArg>,
    /// fast: integer products of the stored weights; int8: the same, long prompts rounded to 8 bits throughout, as other
    /// programs do, and pictures and sounds where that is faster; f32: the slow path that defines the result
    #[arg(long, value_enum, value_name = "PATH", default_value_t = PrecisionArg::Fast)]
    pub precision: PrecisionArg,
}

impl EngineArgs {
    /// As the library takes them.
    pub fn load_options(&self) -> LoadOptions {
        let kv = self.kv.map(|kv| match kv {
            KvArg::F16 => KvType::F16,
            KvArg::Q8_0 => KvType::Q8_0,
            KvArg::F32 => KvType::F32,
        });
        LoadOptions {
            device: DeviceOptions { threads: self.threads, precision: self.precision.into() },
            context: self.ctx,
            kv,
            memory: self.memory,
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
    /// The same, with long prompts, pictures and sounds rounded to 8 bits throughout.
    Int8,
    /// The reference path.
    F32,
}

impl From<PrecisionArg> for Precision {
    fn from(arg: PrecisionArg) -> Self {
        match arg {
            PrecisionArg::Fast => Precision::Fast,
            PrecisionArg::Int8 => Precision::Coarse,
            PrecisionArg::F32 => Precision::Reference,
        }
    }
}

/// What there is to say of a context that is full: whether it can be longer.
pub fn longer_context(session: &Session) -> &'static str {
    let (ctx, most) = (session.decoder().options().ctx, session.decoder().config().max_context);
    if ctx < most { "--ctx makes it longer" } else { "this model has none longer" }
}

/// A whole number.
pub fn whole<T: FromStr>(text: &str) -> Result<T, String> {
    text.parse().map_err(|_| "expected a whole number".into())
}

/// A number.
pub fn number(text: &str) -> Result<f32, String> {
    text.parse().map_err(|_| "expected a number".into())
}

/// A whole number from 1 on.
pub fn at_least_one(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(0) => Err("expected at least 1".into()),
        Ok(n) => Ok(n),
        Err(_) => Err("expected a whole number, at least 1".into()),
    }
}

/// A size in bytes: a number, or one with a unit. `G` and `GiB` are 2^30, `GB` is 10^9.
pub fn size(text: &str) -> Result<u64, String> {
    let wrong = || "expected a size such as 8GiB or 500MB".to_owned();
    let (number, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len()));
    let unit = unit.trim().to_ascii_lowercase();
    let (prefix, rest) = unit.split_at(unit.find(|c| !"kmgt".contains(c)).unwrap_or(unit.len()));
    let base: f64 = match (prefix, rest) {
        (_, "b") => 1000.0,
        ("", "") => 1.0,
        (_, "" | "ib") if !prefix.is_empty() => 1024.0,
        _ => return Err(wrong()),
    };
    let power = match prefix {
        "" => 0,
        "k" => 1,
        "m" => 2,
        "g" => 3,
        "t" => 4,
        _ => return Err(wrong()),
    };
    let bytes = number.parse::<f64>().map_err(|_| wrong())? * base.powi(power);
    // Above 2^53 not every number of bytes can be said, nor needs to be.
    if bytes >= 1.0 && bytes < u64::MAX as f64 { Ok(bytes as u64) } else { Err(wrong()) }
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
    fn sizes_have_the_usual_units() {
        for (text, bytes) in [
            ("1", 1),
            ("1000", 1000),
            ("7b", 7),
            ("8GiB", 8 << 30),
            ("8g", 8 << 30),
            ("8GB", 8_000_000_000),
            ("500 MB", 500_000_000),
            ("1.5K", 1536),
            ("0.5kib", 512),
            ("2TiB", 2 << 40),
        ] {
            assert_eq!(size(text), Ok(bytes), "{text}");
        }
        for wrong in ["", "0", "GiB", "-1", "1e3", "nan", "8GG", "8GiBs", "8 apples", "1.2.3", "99999999T", "8ib"] {
            assert!(size(wrong).is_err(), "{wrong}");
        }
    }

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
