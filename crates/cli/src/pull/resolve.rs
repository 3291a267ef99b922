//! From what was typed as MODEL to a path: a file or directory, or the name of a pulled model.
//!
//! What exists as a path is one. A name whose model isn't here leads to a pull, after asking.

use std::path::{Path, PathBuf};

use anyhow::bail;
use carat_hub::{Cache, Error, Extras, ModelName, Settings, installed};

use super::progress::Progress;
use crate::ask;

/// Where the model is that `text` names. A text that is neither a path nor a name is given back: opening it says why.
pub fn located(text: &Path) -> anyhow::Result<PathBuf> {
    let Some(name) = name_in(text) else { return Ok(text.into()) };
    let settings = Settings::from_env()?;
    if let Some(model) = installed::find(&Cache::new(settings.cache.clone()), &name)? {
        return Ok(model.path);
    }
    if settings.offline {
        return Err(Error::Offline { name: name.to_string() }.into());
    }
    let typed = text.display();
    if !ask::can_ask() {
        bail!("{name} is not on this machine, and `{typed}` is no path; get it with `carat pull {typed}`");
    }
    if !ask::yes(&format!("{name} is not on this machine. Pull it?"))? {
        bail!("{name} is not on this machine");
    }
    let progress = Progress::new();
    let extras = Extras { encoder: true, drafter: true };
    let pulled =
        super::pull(&settings, super::What { name: &name, revision: None }, extras, &|event| progress.event(&event))?;
    progress.finish();
    Ok(pulled.path)
}

/// Whether a text that could be a prompt as well is the name of a model.
pub fn looks_like_a_name(text: &str) -> bool {
    ModelName::is_short(text)
}

/// The model's name, if `text` is no path.
fn name_in(text: &Path) -> Option<ModelName> {
    let is_file_name = text.extension().is_some_and(|e| e == "gguf" || e == "safetensors");
    let name = text.to_str().filter(|_| !text.exists() && !is_file_name)?;
    name.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_exists_or_looks_like_a_file_is_a_path() {
        let name = |text: &str| name_in(Path::new(text)).map(|name| name.to_string());
        assert_eq!(name("e2b:q4_0").as_deref(), Some("google/gemma-4-E2B-it-qat-q4_0-gguf:Q4_0"));
        assert_eq!(name("org/name").as_deref(), Some("org/name"));
        for path in [env!("CARGO_MANIFEST_DIR"), "models/x.gguf", "./x", "../x", "/x/y", "a/b/c", "missing", "e2b "] {
            assert_eq!(name(path), None, "{path}");
        }
    }
}
