//! Videos that are given as pictures: a folder of them, or a list of their files with times.
//!
//! | | |
//! | --- | --- |
//! | `times.json`, `*.json` | `[{"file": "a.png", "seconds": 0.5}, …]`, or files alone: `["a.png", …]` |
//! | `times.txt`, `*.txt` | a line for each: `0.5 a.png` or `01:02.5 a.png`, or files alone; `#` begins a comment |
//!
//! A folder with a `times.json` or `times.txt` is what that says; it may also be times alone, `[0, 0.5, …]`, of the
//! folder's pictures in order. In any other folder the pictures are ordered by name, numbers in names by value. Files are
//! looked for beside the list. Without times, pictures follow each other at `--video-fps`.

use std::cmp::Ordering;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail, ensure};
use carat_media::limits::{MAX_PICTURE_BYTES, MAX_VIDEO_FRAMES};
use carat_media::picture;
use carat_media::video::{self, FALLBACK_FPS, Shot};
use serde_json::Value;

use crate::shown::Kind;

/// Bytes of a list.
const MAX_LIST_BYTES: usize = 16 << 20;

/// A picture of a list.
#[derive(Debug, PartialEq)]
struct Entry {
    /// As the list says; empty where it has times alone.
    file: String,
    /// When it is shown, if the list says.
    seconds: Option<f64>,
}

/// Whether a file is a list, by its name.
pub fn is_list(path: &Path) -> bool {
    path.extension().is_some_and(|e| e.eq_ignore_ascii_case("json") || e.eq_ignore_ascii_case("txt"))
}

/// What is seen of the pictures in a folder.
pub fn of_folder(dir: &Path, fps: Option<f64>) -> anyhow::Result<Vec<Shot>> {
    let list = ["times.json", "times.txt"].map(|name| dir.join(name)).into_iter().find(|path| path.is_file());
    let listed = list.as_deref().map(read).transpose()?;
    let entries = match listed {
        Some(entries) if entries.iter().any(|entry| !entry.file.is_empty()) => entries,
        times => {
            let files = sorted(dir)?;
            let found = files.len();
            let seconds = times.map(|times| times.into_iter().map(|time| time.seconds).collect::<Vec<_>>());
            let seconds = seconds.unwrap_or(vec![None; found]);
            let name = list.unwrap_or_default();
            ensure!(seconds.len() == found, "{}: found {} times for {found} pictures", name.display(), seconds.len());
            files.into_iter().zip(seconds).map(|(file, seconds)| Entry { file, seconds }).collect()
        }
    };
    ensure!(
        !entries.is_empty(),
        "{}: found no pictures; expected files that end in {}",
        dir.display(),
        Kind::Image.extensions().join(", ")
    );
    shots(entries, dir, fps).with_context(|| dir.display().to_string())
}

/// What is seen of the pictures of a list.
pub fn of_list(path: &Path, fps: Option<f64>) -> anyhow::Result<Vec<Shot>> {
    let entries = read(path)?;
    let files = entries.iter().all(|entry| !entry.file.is_empty());
    ensure!(files && !entries.is_empty(), "{}: the list has no files of pictures", path.display());
    shots(entries, path.parent().unwrap_or(Path::new("")), fps).with_context(|| path.display().to_string())
}

fn shots(entries: Vec<Entry>, dir: &Path, fps: Option<f64>) -> anyhow::Result<Vec<Shot>> {
    let seconds = times(&entries, fps)?;
    let shot = |index: usize| {
        let path = dir.join(&entries[index].file);
        let (name, bytes) = super::read(&path, MAX_PICTURE_BYTES)?;
        Ok(Shot::new(seconds[index], &picture::decode(&bytes).with_context(|| name)?))
    };
    video::indices(entries.len()).map(shot).collect()
}

/// When each picture is shown.
fn times(entries: &[Entry], fps: Option<f64>) -> anyhow::Result<Vec<f64>> {
    let timed = entries.iter().filter(|entry| entry.seconds.is_some()).count();
    if timed == 0 {
        let fps = fps.unwrap_or(FALLBACK_FPS);
        return Ok((0..entries.len()).map(|index| index as f64 / fps).collect());
    }
    ensure!(fps.is_none(), "--video-fps: the pictures have times of their own");
    let mut before = 0.0;
    let each = entries.iter().enumerate().map(|(index, Entry { file, seconds })| {
        let place = || format!("picture {} {file}", index + 1);
        let Some(seconds) = *seconds else { bail!("{} has no time, and others have", place()) };
        let ascends = seconds.is_finite() && seconds >= before;
        ensure!(ascends, "{}: found {seconds} seconds; expected {before} or more", place());
        before = seconds;
        Ok(seconds)
    });
    each.collect()
}

/// A list's entries.
fn read(path: &Path) -> anyhow::Result<Vec<Entry>> {
    let (name, bytes) = super::read(path, MAX_LIST_BYTES)?;
    ensure!(bytes.len() <= MAX_LIST_BYTES, "{name}: the list has more than {MAX_LIST_BYTES} bytes");
    let json = path.extension().is_some_and(|e| e.eq_ignore_ascii_case("json"));
    let entries = if json { of_json(&bytes) } else { of_text(&bytes) }.with_context(|| name.clone())?;
    let found = entries.len();
    ensure!(found as u64 <= MAX_VIDEO_FRAMES, "{name}: found {found} pictures; at most {MAX_VIDEO_FRAMES} are taken");
    Ok(entries)
}

fn of_json(bytes: &[u8]) -> anyhow::Result<Vec<Entry>> {
    let list: Vec<Value> = serde_json::from_slice(bytes)?;
    let entry = |(index, value): (usize, &Value)| {
        let entry = match value {
            Value::String(file) => Some(Entry { file: file.clone(), seconds: None }),
            Value::Number(seconds) => seconds.as_f64().map(|s| Entry { file: String::new(), seconds: Some(s) }),
            other => other.get("file").and_then(Value::as_str).map(str::to_owned).and_then(|file| {
                let seconds = match other.get("seconds") {
                    None => None,
                    Some(seconds) => Some(seconds.as_f64()?),
                };
                Some(Entry { file, seconds })
            }),
        };
        let expected = "expected a file, {\"file\": …, \"seconds\": …}, or seconds";
        entry.with_context(|| format!("entry {}: found {value}; {expected}", index + 1))
    };
    list.iter().enumerate().map(entry).collect()
}

fn of_text(bytes: &[u8]) -> anyhow::Result<Vec<Entry>> {
    let text = std::str::from_utf8(bytes).context("expected UTF-8")?;
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    let entry = |line: &str| match line.split_once(char::is_whitespace) {
        None if seconds(line).is_some() => Entry { file: String::new(), seconds: seconds(line) },
        Some((time, file)) if seconds(time).is_some() => {
            Entry { file: file.trim_start().to_owned(), seconds: seconds(time) }
        }
        _ => Entry { file: line.to_owned(), seconds: None },
    };
    Ok(lines.map(entry).collect())
}

/// `1.5`, `01:02.5` or `1:01:02`, in seconds.
fn seconds(text: &str) -> Option<f64> {
    let digits = |part: &str| part.bytes().all(|b| b.is_ascii_digit() || b == b'.');
    let parts: Vec<f64> = text.split(':').map(|p| p.parse().ok().filter(|_| digits(p))).collect::<Option<_>>()?;
    (parts.len() <= 3).then(|| parts.iter().fold(0.0, |sum, part| sum * 60.0 + part))
}

/// The names of a folder's pictures, in order.
fn sorted(dir: &Path) -> anyhow::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(dir).with_context(|| dir.display().to_string())? {
        let path: PathBuf = entry.with_context(|| dir.display().to_string())?.path();
        let Some(name) = path.file_name().and_then(|name| name.to_str()) else { continue };
        if Kind::of(&path) == Some(Kind::Image) && !name.starts_with('.') && path.is_file() {
            names.push(name.to_owned());
        }
        ensure!(names.len() as u64 <= MAX_VIDEO_FRAMES, "{}: more than {MAX_VIDEO_FRAMES} pictures", dir.display());
    }
    names.sort_by(|a, b| by_name(a, b));
    Ok(names)
}

/// `2.png` comes before `10.png`.
fn by_name(a: &str, b: &str) -> Ordering {
    let (mut x, mut y) = (a, b);
    loop {
        let number = |text: &str| text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
        let order = match (number(x), number(y)) {
            (m @ 1.., n @ 1..) => {
                let (p, q) = (x[..m].trim_start_matches('0'), y[..n].trim_start_matches('0'));
                (x, y) = (&x[m..], &y[n..]);
                p.len().cmp(&q.len()).then(p.cmp(q))
            }
            _ => {
                let (p, q) = (x.chars().next(), y.chars().next());
                if p.is_none() && q.is_none() {
                    // Names differ, by zeros before numbers at least.
                    return a.cmp(b);
                }
                x = &x[p.map_or(0, char::len_utf8)..];
                y = &y[q.map_or(0, char::len_utf8)..];
                p.cmp(&q)
            }
        };
        if order.is_ne() {
            return order;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(file: &str, seconds: Option<f64>) -> Entry {
        Entry { file: file.into(), seconds }
    }

    #[test]
    fn names_are_ordered_by_their_numbers() {
        let mut names = ["b", "a10.png", "a9.png", "a010.png", "10.png", "9.png", "a", "a1b2", "a1b10"];
        names.sort_by(|a, b| by_name(a, b));
        assert_eq!(names, ["9.png", "10.png", "a", "a1b2", "a1b10", "a9.png", "a010.png", "a10.png", "b"]);
    }

    #[test]
    fn lists_say_files_and_times() {
        let text = "# a comment\n0 a.png\n\n 01:02.5  b c.png \n1:00:00 d.png\n";
        let expected = [entry("a.png", Some(0.0)), entry("b c.png", Some(62.5)), entry("d.png", Some(3600.0))];
        assert_eq!(of_text(text.as_bytes()).unwrap(), expected);
        assert_eq!(of_text(b"a b.png\n1.png").unwrap(), [entry("a b.png", None), entry("1.png", None)]);
        let json = br#"[{"file": "a", "seconds": 1}, {"file": "b"}, "c", 2.5]"#;
        let expected = [entry("a", Some(1.0)), entry("b", None), entry("c", None), entry("", Some(2.5))];
        assert_eq!(of_json(json).unwrap(), expected);
        for wrong in ["{}", "[[]]", "[{\"seconds\": 1}]", "[{\"file\": \"a\", \"seconds\": \"1\"}]", "["] {
            assert!(of_json(wrong.as_bytes()).is_err(), "{wrong}");
        }
    }

    #[test]
    fn times_ascend_or_follow_from_the_rate() {
        let timed = |times: &[f64]| times.iter().map(|t| entry("a", Some(*t))).collect::<Vec<_>>();
        let bare = [entry("a", None), entry("b", None)];
        assert_eq!(times(&timed(&[0.0, 0.0, 7.5]), None).unwrap(), [0.0, 0.0, 7.5]);
        assert_eq!(times(&bare, Some(2.0)).unwrap(), [0.0, 0.5]);
        assert_eq!(times(&bare, None).unwrap(), [0.0, 1.0 / 24.0]);
        let error = |entries: &[Entry], fps| times(entries, fps).unwrap_err().to_string();
        assert_eq!(error(&timed(&[1.0, 0.5]), None), "picture 2 a: found 0.5 seconds; expected 1 or more");
        assert!(error(&timed(&[f64::NAN]), None).contains("NaN"));
        assert!(error(&timed(&[1.0]), Some(1.0)).contains("--video-fps"));
        assert!(error(&[entry("a", Some(1.0)), entry("b", None)], None).contains("picture 2 b has no time"));
    }
}
