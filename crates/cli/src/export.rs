//! Writing models: what `convert` and `quantize` share.

pub mod gguf;
pub mod hf;
pub mod mix;
pub mod tensors;
mod tokenizer;

use std::io::IsTerminal;
use std::path::Path;

use carat_model::ModelError;
use carat_runtime::{Error, ModelSource};
use carat_weights::Checkpoint;
use indicatif::{ProgressBar, ProgressStyle};

/// Opens the model at `path`, which is only read.
pub fn open(path: &Path) -> anyhow::Result<Checkpoint> {
    Ok(carat_weights::open(path)?)
}

/// Gives errors of what is in the model at `path` its name.
pub fn of_input(path: &Path) -> impl Fn(ModelError) -> Error {
    let source = ModelSource::Path(path.into());
    move |error| Error::of_files(&source, error)
}

/// Threads that this process may use.
pub fn threads() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// A bar over the bytes to be written, if somebody is watching.
pub fn progress(bytes: u64) -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let template = "{bar:40} {bytes}/{total_bytes}, {binary_bytes_per_sec}, {eta} left  {msg}";
    ProgressBar::new(bytes).with_style(ProgressStyle::with_template(template).expect("the template is well-formed"))
}
