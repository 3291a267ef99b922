//! Subcommands that do the same with each of many files: which argument is what, and going on after a file that fails.

use std::io::{self, IsTerminal};
use std::path::{Path, PathBuf};

use anyhow::bail;
use carat_runtime::ModelSource;
use indicatif::{ProgressBar, ProgressStyle};

use crate::args;
use crate::{output, pull};

/// The model and the files. `model` is what `--model` says; without it the first of several arguments is the model where it is
/// one: a directory with config.json, a .gguf or .safetensors file, or a name of which there is no file.
pub fn model_and_files(model: Option<&PathBuf>, given: &[PathBuf]) -> anyhow::Result<(ModelSource, Vec<PathBuf>)> {
    let (model, files) = match (model, given) {
        (None, [first, rest @ ..]) if !rest.is_empty() && is_model(first) => (Some(first), rest),
        _ => (model, given),
    };
    args::one_stdin(files)?;
    let source = args::source(model)?;
    args::present(&source)?;
    Ok((source, files.to_vec()))
}

fn is_model(path: &Path) -> bool {
    if path.is_dir() {
        return path.join("config.json").is_file();
    }
    let is_weights = path.extension().is_some_and(|e| e == "gguf" || e == "safetensors");
    is_weights || !path.exists() && path.to_str().is_some_and(pull::looks_like_a_name)
}

/// Counts files that fail, and says why each did.
#[derive(Default)]
pub struct Failures {
    count: usize,
}

impl Failures {
    /// A file failed; the others go on.
    pub fn add(&mut self, error: &anyhow::Error) {
        self.count += 1;
        output::note(&format!("error: {}", output::chain(error)));
    }

    /// How many failed.
    pub fn count(&self) -> usize {
        self.count
    }

    /// An error if any of `total` files failed, `what` being what was wanted of them.
    pub fn result(self, total: usize, what: &str) -> anyhow::Result<()> {
        match self.count {
            0 => Ok(()),
            failed => bail!("{failed} of {total} could not be {what}"),
        }
    }
}

/// How much of `len` is done, `of` what. Where text is shown in the same terminal as it comes, that says enough.
pub fn progress(len: u64, of: &str, text_on_stdout: bool) -> ProgressBar {
    if !io::stderr().is_terminal() || text_on_stdout && io::stdout().is_terminal() {
        return ProgressBar::hidden();
    }
    let template = format!("{{bar:30}} {{pos}}/{{len}} {of}, {{eta}} left  {{msg}}");
    let style = ProgressStyle::with_template(&template).expect("the template is well-formed");
    ProgressBar::new(len).with_style(style)
}

/// Minutes and seconds.
pub fn time(seconds: f64) -> String {
    let whole = seconds.floor() as u64;
    format!("{}:{:02}", whole / 60, whole % 60)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::UsageError;

    #[test]
    fn the_first_of_several_arguments_may_be_the_model() {
        let paths = |texts: &[&str]| texts.iter().map(PathBuf::from).collect::<Vec<_>>();
        let nano = concat!(env!("CARGO_MANIFEST_DIR"), "/../../nano/checkpoint");
        let sources = concat!(env!("CARGO_MANIFEST_DIR"), "/src");
        let (source, files) = model_and_files(None, &paths(&[nano, "a.wav"])).unwrap();
        assert!(matches!(source, ModelSource::Path(path) if path.ends_with("checkpoint")));
        assert_eq!(files, paths(&["a.wav"]));
        // A directory without a model in it is one of the files, and so is what stands alone.
        for given in [&["a.wav", "b.wav"][..], &[sources, "a.wav"], &[nano], &["-", "a.wav"]] {
            let (source, files) = model_and_files(None, &paths(given)).unwrap();
            assert!(matches!(source, ModelSource::Embedded), "{given:?}");
            assert_eq!(files, paths(given));
        }
        let (_, files) = model_and_files(Some(&nano.into()), &paths(&[nano, "a.wav"])).unwrap();
        assert_eq!(files.len(), 2);
        let error = model_and_files(None, &paths(&["no/such.gguf", "a.wav"])).unwrap_err().to_string();
        assert!(error.contains("no/such.gguf: there is no such model"), "{error}");
        assert!(model_and_files(None, &paths(&["-", "-"])).unwrap_err().is::<UsageError>());
    }

    #[test]
    fn times_are_minutes_and_seconds() {
        assert_eq!([time(0.0), time(59.99), time(3725.0)], ["0:00", "0:59", "62:05"]);
    }
}
