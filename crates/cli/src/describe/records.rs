//! Descriptions as lines of JSON or CSV, and a file of them that can be gone on with.
//!
//! A line is written whole, by one write behind the end of the file. What a program that was killed left of its last line is
//! taken away by the next one. CSV is that of RFC 4180 with the lines' ends of Unix; a description may have several lines there.

use std::collections::HashSet;
use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::path::Path;

use anyhow::{Context, bail};
use serde_json::{Value, json};

use crate::args::UsageError;
use crate::{output, pending};

/// The most bytes of a file that is gone on with.
const MAX_BYTES: u64 = 1 << 30;

const COLUMNS: [&str; 6] = ["file", "width", "height", "description", "notice", "error"];

/// `--format`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// One JSON object per line.
    Jsonl,
    /// A table with a header.
    Csv,
}

impl Format {
    /// As the name of a file asks for.
    pub fn of(out: Option<&Path>) -> Self {
        let extension = out.and_then(Path::extension);
        if extension.is_some_and(|e| e.eq_ignore_ascii_case("csv")) { Format::Csv } else { Format::Jsonl }
    }
}

/// A picture and what became of it.
#[derive(Debug, PartialEq)]
pub struct Record {
    /// As it was given.
    pub file: String,
    /// What became of it.
    pub outcome: Outcome,
}

/// What became of a picture.
#[derive(Debug, PartialEq)]
pub enum Outcome {
    /// It was described.
    Described {
        /// In pixels.
        width: usize,
        /// In pixels.
        height: usize,
        /// What was said.
        description: String,
        /// Why it ended, if the model didn't end it.
        notice: Option<&'static str>,
    },
    /// It could not be.
    Failed {
        /// Why.
        error: String,
    },
}

impl Record {
    fn line(&self, format: Format) -> String {
        match format {
            Format::Jsonl => format!("{}\n", self.json()),
            Format::Csv => row(&self.fields()),
        }
    }

    fn json(&self) -> Value {
        match &self.outcome {
            Outcome::Failed { error } => json!({"file": self.file, "error": error}),
            Outcome::Described { width, height, description, notice } => {
                let mut value =
                    json!({"file": self.file, "width": width, "height": height, "description": description});
                if let Some(notice) = notice {
                    value["notice"] = (*notice).into();
                }
                value
            }
        }
    }

    fn fields(&self) -> [String; COLUMNS.len()] {
        let file = self.file.clone();
        match &self.outcome {
            Outcome::Failed { error } => [file, "".into(), "".into(), "".into(), "".into(), error.clone()],
            Outcome::Described { width, height, description, notice } => {
                let notice = notice.unwrap_or_default().to_owned();
                [file, width.to_string(), height.to_string(), description.clone(), notice, "".into()]
            }
        }
    }
}

/// A row of CSV.
fn row(fields: &[impl AsRef<str>]) -> String {
    let quoted = fields.iter().map(AsRef::as_ref).map(|field| match field.contains(['"', ',', '\n', '\r']) {
        true => format!("\"{}\"", field.replace('"', "\"\"")),
        false => field.to_owned(),
    });
    format!("{}\n", quoted.collect::<Vec<_>>().join(","))
}

/// Where records go.
pub struct Output {
    format: Format,
    /// `None` is standard output.
    file: Option<(String, File)>,
    /// Pictures that are described there.
    described: HashSet<String>,
    /// Whether a header is still to be written.
    bare: bool,
}

impl Output {
    /// Opens the file at `path`, to go on with it or as a new one; `None` is standard output.
    ///
    /// # Errors
    /// If there is something there already and `resume` isn't given, what is there isn't such a file, or another process writes it.
    pub fn open(path: Option<&Path>, format: Format, resume: bool) -> anyhow::Result<Self> {
        let bare = format == Format::Csv;
        let Some(path) = path else { return Ok(Output { format, file: None, described: HashSet::new(), bare }) };
        let name = path.display().to_string();
        let mut file =
            OpenOptions::new().read(true).append(true).create(true).open(path).with_context(|| name.clone())?;
        if !file.metadata().with_context(|| name.clone())?.is_file() {
            return Ok(Output { format, file: Some((name, file)), described: HashSet::new(), bare });
        }
        pending::lock(&file, &name)?;
        let mut bytes = Vec::new();
        (&mut file).take(MAX_BYTES + 1).read_to_end(&mut bytes).with_context(|| name.clone())?;
        if !bytes.is_empty() && !resume {
            bail!(UsageError(format!("{name} is there already; --resume goes on with it")));
        }
        if bytes.len() as u64 > MAX_BYTES {
            bail!("{name} has more than {MAX_BYTES} bytes");
        }
        let (described, whole) = match format {
            Format::Jsonl => described_in_json(&bytes),
            Format::Csv => described_in_csv(&bytes),
        }
        .map_err(|(line, why)| anyhow::anyhow!("{name}, line {line}: {why}; expected what `carat describe` writes"))?;
        if whole < bytes.len() {
            // What was being written when the program was killed goes; anything else is somebody's.
            let (rest, begins) = (&bytes[whole..], begins(format, whole == 0));
            if rest.iter().zip(begins.bytes()).any(|(found, expected)| *found != expected) {
                bail!(
                    "{name}: no whole line, and what is there isn't the start of one; expected what `carat describe` writes"
                );
            }
            file.set_len(whole as u64).with_context(|| name.clone())?;
        }
        Ok(Output { format, file: Some((name, file)), described, bare: bare && whole == 0 })
    }

    /// Whether a picture is described there.
    pub fn has(&self, file: &str) -> bool {
        self.described.contains(file)
    }

    /// What it is called.
    pub fn name(&self) -> &str {
        self.file.as_ref().map_or("standard output", |(name, _)| name)
    }

    /// Writes a record.
    pub fn write(&mut self, record: &Record) -> anyhow::Result<()> {
        let header = if std::mem::take(&mut self.bare) { row(&COLUMNS) } else { String::new() };
        let text = header + &record.line(self.format);
        match &mut self.file {
            Some((name, file)) => file.write_all(text.as_bytes()).with_context(|| name.clone()),
            None => {
                let mut out = output::stdout();
                out.write_all(text.as_bytes())?;
                Ok(out.flush()?)
            }
        }
    }
}

/// What lines start with, and the first one.
fn begins(format: Format, first: bool) -> String {
    match format {
        Format::Jsonl => "{\"file\":\"".into(),
        Format::Csv if first => row(&COLUMNS),
        Format::Csv => String::new(),
    }
}

/// The pictures that are described in a file, and how many of its bytes are whole lines; or a line that is none, and why.
type Described = Result<(HashSet<String>, usize), (usize, String)>;

fn described_in_json(bytes: &[u8]) -> Described {
    let whole = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
    let mut described = HashSet::new();
    for (i, line) in bytes[..whole].split(|byte| *byte == b'\n').enumerate().filter(|(_, line)| !line.is_empty()) {
        let value: Value = serde_json::from_slice(line).map_err(|error| (i + 1, error.to_string()))?;
        let Some(file) = value["file"].as_str() else { return Err((i + 1, "no `file`".into())) };
        if value.get("description").is_some() {
            described.insert(file.to_owned());
        }
    }
    Ok((described, whole))
}

fn described_in_csv(bytes: &[u8]) -> Described {
    let (mut described, mut whole, mut line) = (HashSet::new(), 0, 1);
    while let Some((fields, end)) = next_row(&bytes[whole..]) {
        let wrong = |why: &str| Err((line, why.to_owned()));
        let Ok(fields) = fields.into_iter().map(String::from_utf8).collect::<Result<Vec<_>, _>>() else {
            return wrong("not UTF-8");
        };
        match fields.as_slice() {
            header if whole == 0 && header != COLUMNS => return wrong("another header"),
            _ if whole == 0 => {}
            [file, _, _, _, _, error] if error.is_empty() => drop(described.insert(file.clone())),
            [_, _, _, _, _, _] => {}
            other => return wrong(&format!("{} fields", other.len())),
        }
        line += bytes[whole..whole + end].iter().filter(|byte| **byte == b'\n').count();
        whole += end;
    }
    Ok((described, whole))
}

/// The fields of the first row, and where it ends; `None` if it doesn't.
fn next_row(bytes: &[u8]) -> Option<(Vec<Vec<u8>>, usize)> {
    let (mut fields, mut quoted) = (vec![Vec::new()], false);
    for (at, byte) in bytes.iter().enumerate() {
        match byte {
            // A quote within quotes is written twice: it ends them and opens them again.
            b'"' => {
                if !quoted && at > 0 && bytes[at - 1] == b'"' {
                    fields.last_mut()?.push(b'"');
                }
                quoted = !quoted;
            }
            b',' if !quoted => fields.push(Vec::new()),
            b'\n' if !quoted => return Some((fields, at + 1)),
            other => fields.last_mut()?.push(*other),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn described(file: &str, description: &str) -> Record {
        let outcome = Outcome::Described { width: 4, height: 3, description: description.into(), notice: None };
        Record { file: file.into(), outcome }
    }

    fn failed(file: &str) -> Record {
        Record { file: file.into(), outcome: Outcome::Failed { error: "it is \"broken\", all of it".into() } }
    }

    #[test]
    fn rows_are_those_of_rfc_4180() {
        let record = described("a,b.png", "He said \"hi\"\nand left");
        assert_eq!(record.line(Format::Csv), "\"a,b.png\",4,3,\"He said \"\"hi\"\"\nand left\",,\n");
        assert_eq!(failed("x").line(Format::Csv), "x,,,,,\"it is \"\"broken\"\", all of it\"\n");
    }

    /// Whatever is cut off at the end, a file is gone on with so that in the end it is as if nothing had happened.
    #[test]
    fn a_file_cut_anywhere_is_gone_on_with() {
        let records = [
            described("a.png", "one, \"two\"\n\"\" three"),
            failed("b.png"),
            described("c, d.png", "\"\""),
            described("e", "é"),
        ];
        for format in [Format::Jsonl, Format::Csv] {
            let path = std::env::temp_dir().join(format!("carat-records-{}-{format:?}", std::process::id()));
            let mut whole = Output::open(Some(&path), format, false).unwrap();
            records.iter().for_each(|record| whole.write(record).unwrap());
            let other = Output::open(Some(&path), format, true).err().unwrap().to_string();
            assert!(other.contains("is being written by another process"), "{other}");
            drop(whole);
            let bytes = std::fs::read(&path).unwrap();
            for cut in 0..=bytes.len() {
                std::fs::write(&path, &bytes[..cut]).unwrap();
                let mut out = Output::open(Some(&path), format, true).unwrap();
                let left: Vec<_> = records.iter().filter(|record| !out.has(&record.file)).collect();
                assert!(left.iter().any(|record| record.file == "b.png"), "what failed is tried again");
                let has_failed = cut > 0 && out.has("c, d.png");
                left.into_iter().filter(|r| !has_failed || r.file != "b.png").for_each(|r| out.write(r).unwrap());
                let now = std::fs::read(&path).unwrap();
                // A failure that had been written whole stands there twice.
                let failure = records[1].line(format);
                let twice = String::from_utf8(now.clone()).unwrap().matches(&failure).count() == 2;
                assert!(now == bytes || twice && now.len() == bytes.len() + failure.len(), "cut at {cut}");
            }
            assert!(Output::open(Some(&path), format, false).is_err_and(|error| error.is::<UsageError>()));
            std::fs::remove_file(&path).unwrap();
        }
    }

    #[test]
    fn other_files_are_left_alone() {
        let path = std::env::temp_dir().join(format!("carat-records-{}-other", std::process::id()));
        for (format, text, says) in [
            (Format::Jsonl, "{\"file\": \"a\"}\nnotes\n", "line 2"),
            (Format::Jsonl, "{\"name\": 1}\n", "no `file`"),
            (Format::Jsonl, "[{\"file\": \"a\"}]", "no whole line"),
            (Format::Jsonl, "{\"file\":\"a\"}\nmy only notes", "isn't the start of one"),
            (Format::Csv, "my only notes", "no whole line"),
            (Format::Csv, "a,b\n1,2\n", "another header"),
            (Format::Csv, "file,width,height,description,notice,error\n\"a\n\",,,,,\nx,y\n", "line 4"),
        ] {
            std::fs::write(&path, text).unwrap();
            let error = Output::open(Some(&path), format, true).err().unwrap().to_string();
            assert!(error.contains(says) && error.contains("carat describe"), "{error}");
            assert_eq!(std::fs::read_to_string(&path).unwrap(), text);
        }
        std::fs::remove_file(&path).unwrap();
    }
}
