//! Where the text of each recording goes: standard output, one file, or a file of its own in a directory.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io::{self, BufWriter, StdoutLock, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};

use crate::args::UsageError;
use crate::output;

/// What the text of standard input is called in a directory.
const STDIN_STEM: &str = "standard-input";

/// The file for each of `inputs`; `None` is standard output. A directory that is not there is made.
pub fn outputs(out: Option<&Path>, inputs: &[PathBuf], extension: &str) -> anyhow::Result<Vec<Option<PathBuf>>> {
    let Some(out) = out else { return Ok(vec![None; inputs.len()]) };
    let as_directory = out.is_dir() || out.as_os_str().as_encoded_bytes().ends_with(b"/");
    if inputs.len() == 1 && !as_directory {
        refuse_input(out, inputs)?;
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
    paths.iter().flatten().try_for_each(|path| refuse_input(path, inputs))?;
    fs::create_dir_all(out).with_context(|| out.display().to_string())?;
    Ok(paths)
}

fn refuse_input(path: &Path, inputs: &[PathBuf]) -> anyhow::Result<()> {
    let Ok(found) = path.canonicalize() else { return Ok(()) };
    match inputs.iter().find(|input| input.canonicalize().is_ok_and(|input| input == found)) {
        Some(input) => bail!(UsageError(format!("--out would replace {}", input.display()))),
        None => Ok(()),
    }
}

/// A file or standard output; a file is made when something is first written or flushed to it, so that what fails leaves none.
pub enum Place {
    /// Standard output.
    Stdout(BufWriter<StdoutLock<'static>>),
    /// A file.
    File(PathBuf, Option<BufWriter<File>>),
}

impl Place {
    /// The place at `path`; `None` is standard output.
    pub fn new(path: Option<PathBuf>) -> Self {
        match path {
            None => Place::Stdout(output::stdout()),
            Some(path) => Place::File(path, None),
        }
    }

    fn out(&mut self) -> io::Result<&mut dyn Write> {
        match self {
            Place::Stdout(out) => Ok(out),
            Place::File(_, Some(file)) => Ok(file),
            Place::File(path, file) => {
                let created = File::create(&*path).map_err(|error| named(path, error))?;
                Ok(file.insert(BufWriter::new(created)))
            }
        }
    }
}

impl Place {
    /// The error with the file's name before it.
    fn named(&self, error: io::Error) -> io::Error {
        match self {
            Place::File(path, _) => named(path, error),
            Place::Stdout(_) => error,
        }
    }
}

impl Write for Place {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let wrote = self.out()?.write(bytes);
        wrote.map_err(|error| self.named(error))
    }

    fn flush(&mut self) -> io::Result<()> {
        let flushed = self.out()?.flush();
        flushed.map_err(|error| self.named(error))
    }
}

fn named(path: &Path, error: io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
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
        assert!(names(&file, &[file.to_str().unwrap()]).unwrap_err().to_string().contains("would replace"));
        fs::remove_dir_all(&dir).unwrap();
    }
}
