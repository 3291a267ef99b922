//! Where the text of each recording goes: standard output, one file, or a file of its own in a directory.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io::{self, BufWriter, StdoutLock, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use carat_runtime::ModelFiles;

use crate::args::UsageError;
use crate::output;
use crate::pending::Pending;

/// What the text of standard input is called in a directory.
const STDIN_STEM: &str = "standard-input";

/// The file for each of `inputs`; `None` is standard output. A directory that is not there is made.
pub fn outputs(out: Option<&Path>, inputs: &[PathBuf], extension: &str) -> anyhow::Result<Vec<Option<PathBuf>>> {
    let Some(out) = out else { return Ok(vec![None; inputs.len()]) };
    let as_directory = out.is_dir() || out.as_os_str().as_encoded_bytes().ends_with(b"/");
    if inputs.len() == 1 && !as_directory {
        return Ok(vec![Some(out.to_owned())]);
    }
    if out.is_file() {
        bail!(UsageError(format!("--out {}: expected a directory for {} files", out.display(), inputs.len())));
    }
    let stem = |input: &Path| match input.as_os_str() == "-" {
        true => STDIN_STEM.into(),
        false => input.file_stem().unwrap_or_default().to_owned(),
    };
    let mut names = HashSet::new();
    let mut paths = Vec::new();
    for input in inputs {
        // a.wav and a.mp3 become a.wav.txt and a.mp3.txt.
        let shared = inputs.iter().filter(|other| stem(other) == stem(input)).count() > 1;
        let mut name = if shared { input.file_name().unwrap_or_default().to_owned() } else { stem(input) };
        name.push(format!(".{extension}"));
        if !names.insert(name.clone()) {
            bail!(UsageError(format!("two files would be written to {}", out.join(name).display())));
        }
        paths.push(Some(out.join(name)));
    }
    fs::create_dir_all(out).with_context(|| out.display().to_string())?;
    Ok(paths)
}

/// Standard output, or a file: a new one grows in its place, and one that takes the place of another does so when all that it is
/// to hold is written.
pub enum Place {
    /// Standard output.
    Stdout,
    /// A file.
    File(Pending),
}

impl Place {
    /// The place at `path`; `None` is standard output. What is there may be replaced, but not what is read: the model or `inputs`.
    pub fn new(path: Option<&Path>, model: &ModelFiles, inputs: &[PathBuf]) -> anyhow::Result<Self> {
        Ok(match path {
            None => Place::Stdout,
            Some(path) => Place::File(Pending::replacing(path, Some(model), inputs.iter())?.growing()),
        })
    }

    /// To write to; once.
    pub fn open(&self) -> anyhow::Result<Out> {
        Ok(match self {
            Place::Stdout => Out::Stdout(output::stdout()),
            Place::File(pending) => Out::File(pending.target().display().to_string(), pending.create_file()?),
        })
    }

    /// Keeps what is written. Without that a file is left as it was.
    pub fn keep(self) -> anyhow::Result<()> {
        match self {
            Place::Stdout => Ok(()),
            Place::File(pending) => pending.commit(),
        }
    }
}

/// What writes to a [`Place`].
pub enum Out {
    /// Standard output.
    Stdout(BufWriter<StdoutLock<'static>>),
    /// A file, and what it is called.
    File(String, BufWriter<File>),
}

impl Out {
    fn with<T>(&mut self, write: impl FnOnce(&mut dyn Write) -> io::Result<T>) -> io::Result<T> {
        match self {
            Out::Stdout(out) => write(out),
            Out::File(name, file) => {
                write(file).map_err(|error| io::Error::new(error.kind(), format!("{name}: {error}")))
            }
        }
    }
}

impl Write for Out {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.with(|out| out.write(bytes))
    }

    fn flush(&mut self) -> io::Result<()> {
        self.with(|out| out.flush())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(out: &Path, inputs: &[&str]) -> anyhow::Result<Vec<String>> {
        let inputs: Vec<PathBuf> = inputs.iter().map(PathBuf::from).collect();
        let paths = outputs(Some(out), &inputs, "srt")?;
        Ok(paths
            .into_iter()
            .flatten()
            .map(|path| path.strip_prefix(out).unwrap_or(&path).display().to_string())
            .collect())
    }

    #[test]
    fn one_file_is_named_and_many_go_to_a_directory() {
        let dir = std::env::temp_dir().join(format!("carat-places-{}", std::process::id()));
        let file = dir.join("x.srt");
        assert_eq!(outputs(Some(&file), &["a.wav".into()], "srt").unwrap(), [Some(file.clone())]);
        assert!(!dir.exists());
        assert_eq!(names(&dir, &["a.wav", "b/c.d.mp3", "-"]).unwrap(), ["a.srt", "c.d.srt", "standard-input.srt"]);
        assert!(dir.is_dir());
        assert_eq!(names(&dir, &["a.wav"]).unwrap(), ["a.srt"], "it is a directory now");
        assert_eq!(names(&dir, &["a.wav", "a.mp3", "b.wav"]).unwrap(), ["a.wav.srt", "a.mp3.srt", "b.srt"]);
        let error = names(&dir, &["x/a.wav", "y/a.wav"]).unwrap_err().to_string();
        assert!(error.contains("two files would be written to") && error.contains("a.wav.srt"), "{error}");
        fs::write(&file, "").unwrap();
        assert!(
            names(&file, &["a.wav", "b.wav"]).unwrap_err().to_string().contains("expected a directory for 2 files")
        );
        fs::remove_dir_all(&dir).unwrap();
    }
}
