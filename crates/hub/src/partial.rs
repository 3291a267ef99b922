//! A file on its way: its bytes at their places, and a journal of the ranges that are whole.
//!
//! `HASH.carat.incomplete` has the file's full size from the start. A line of `HASH.carat-ranges.incomplete` is written
//! after a range's bytes have reached the disk, so that whatever ends the program costs at most the ranges then under
//! way. Both names end as other tools expect of what may be thrown away.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Seek, SeekFrom, Write};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use fs4::FileExt;

use crate::Error;

/// A file that is not whole yet.
#[derive(Debug)]
pub struct Partial {
    data: PathBuf,
    journal: PathBuf,
    lines: Mutex<File>,
    size: u64,
    range_bytes: u64,
    whole: Vec<bool>,
}

impl Partial {
    /// Goes on with what is there for `blob`, if it was cut into ranges of the same size; else starts anew.
    pub fn open(blob: &Path, size: u64, range_bytes: u64) -> Result<Self, Error> {
        let (data, journal) = names(blob);
        let header = format!("carat-ranges 1 {size} {range_bytes}\n");
        let count = size.div_ceil(range_bytes) as usize;
        let is_full_size = fs::metadata(&data).is_ok_and(|data| data.len() == size);
        let known = fs::read_to_string(&journal).ok().filter(|_| is_full_size);
        let whole = known.and_then(|text| parse(&text, &header, count));
        if whole.is_none() {
            // The journal goes first: alone, the bytes count for nothing.
            let made = remove(&journal).and_then(|()| preallocate(&data, size));
            made.map_err(|error| {
                let _ = fs::remove_file(&data);
                Error::io(&data)(error)
            })?;
        }
        let whole = whole.unwrap_or_else(|| vec![false; count]);
        let lines = start_journal(&journal, &header, &whole).map_err(Error::io(&journal))?;
        Ok(Partial { data, journal, lines: Mutex::new(lines), size, range_bytes, whole })
    }

    /// Where the bytes are.
    pub fn path(&self) -> &Path {
        &self.data
    }

    /// The ranges that were missing when it was opened.
    pub fn missing(&self) -> Vec<Range<u64>> {
        let ranges = (0..self.whole.len()).filter(|&index| !self.whole[index]).map(|index| self.range(index));
        ranges.collect()
    }

    /// Bytes that were there when it was opened.
    pub fn present(&self) -> u64 {
        self.size - self.missing().iter().map(|range| range.end - range.start).sum::<u64>()
    }

    /// The file, to write from byte `at` on.
    pub fn writer(&self, at: u64) -> Result<File, Error> {
        let open = || {
            let mut file = OpenOptions::new().write(true).open(&self.data)?;
            file.seek(SeekFrom::Start(at))?;
            Ok(file)
        };
        open().map_err(Error::io(&self.data))
    }

    /// Notes that `range` has been written through `file`.
    pub fn finish(&self, range: &Range<u64>, file: &File) -> Result<(), Error> {
        file.sync_data().map_err(Error::io(&self.data))?;
        let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        let line = format!("{}\n", range.start / self.range_bytes);
        lines.write_all(line.as_bytes()).map_err(Error::io(&self.journal))
    }

    /// Gives the whole file its name.
    pub fn keep(self, blob: &Path) -> Result<(), Error> {
        let sync = || OpenOptions::new().write(true).open(&self.data)?.sync_all();
        sync().and_then(|()| fs::rename(&self.data, blob)).map_err(Error::io(blob))?;
        remove(&self.journal).map_err(Error::io(&self.journal))
    }

    /// Throws everything away.
    pub fn discard(self) -> Result<(), Error> {
        remove(&self.journal).and_then(|()| remove(&self.data)).map_err(Error::io(&self.data))
    }

    fn range(&self, index: usize) -> Range<u64> {
        let start = index as u64 * self.range_bytes;
        start..(start + self.range_bytes).min(self.size)
    }
}

/// Bytes of the disk that `blob` takes already, though it is not whole.
pub fn allocated(blob: &Path) -> u64 {
    File::open(names(blob).0).and_then(|file| file.allocated_size()).unwrap_or(0)
}

fn names(blob: &Path) -> (PathBuf, PathBuf) {
    let with = |ending: &str| {
        let mut name = blob.file_name().unwrap_or_default().to_owned();
        name.push(ending);
        blob.with_file_name(name)
    };
    (with(".carat.incomplete"), with(".carat-ranges.incomplete"))
}

/// The ranges that a journal says are whole. `None` if it is about another size or other ranges.
fn parse(text: &str, header: &str, count: usize) -> Option<Vec<bool>> {
    let mut whole = vec![false; count];
    // A line without an end was being written when the program ended.
    for line in text.strip_prefix(header)?.split_inclusive('\n').filter_map(|line| line.strip_suffix('\n')) {
        *whole.get_mut(line.parse::<usize>().ok()?)? = true;
    }
    Some(whole)
}

fn start_journal(path: &Path, header: &str, whole: &[bool]) -> io::Result<File> {
    let mut text = header.to_owned();
    for (index, _) in whole.iter().enumerate().filter(|(_, whole)| **whole) {
        text += &format!("{index}\n");
    }
    let new = path.with_extension("new.incomplete");
    fs::write(&new, text)?;
    fs::rename(&new, path)?;
    OpenOptions::new().append(true).open(path)
}

/// Takes the room on the disk at once, so that a full disk is known before the download.
fn preallocate(path: &Path, size: u64) -> io::Result<()> {
    let file = OpenOptions::new().write(true).create(true).truncate(true).open(path)?;
    if size > 0 {
        match FileExt::allocate(&file, size) {
            Err(error) if error.kind() != io::ErrorKind::Unsupported => return Err(error),
            _ => {}
        }
    }
    file.set_len(size)
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Scratch(PathBuf);

    impl Scratch {
        fn new(name: &str) -> Self {
            let dir = std::env::temp_dir().join(format!("carat-partial-{name}-{}", std::process::id()));
            fs::create_dir_all(&dir).unwrap();
            Scratch(dir)
        }

        fn blob(&self) -> PathBuf {
            self.0.join("hash")
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    fn write(partial: &Partial, range: Range<u64>) {
        let mut file = partial.writer(range.start).unwrap();
        file.write_all(&vec![b'x'; (range.end - range.start) as usize]).unwrap();
        partial.finish(&range, &file).unwrap();
    }

    #[test]
    fn whole_ranges_are_found_again() {
        let scratch = Scratch::new("again");
        let partial = Partial::open(&scratch.blob(), 25, 10).unwrap();
        assert_eq!(partial.missing(), [0..10, 10..20, 20..25]);
        write(&partial, 20..25);
        write(&partial, 0..10);
        drop(partial);
        let partial = Partial::open(&scratch.blob(), 25, 10).unwrap();
        assert_eq!((partial.missing().first(), partial.missing().len(), partial.present()), (Some(&(10..20)), 1, 15));
        assert!(allocated(&scratch.blob()) > 0);
        write(&partial, 10..20);
        partial.keep(&scratch.blob()).unwrap();
        assert_eq!(fs::read(scratch.blob()).unwrap(), [b'x'; 25]);
        assert_eq!(fs::read_dir(&scratch.0).unwrap().count(), 1);
    }

    #[test]
    fn a_torn_line_is_a_range_that_is_not_whole() {
        let header = "carat-ranges 1 200 10\n";
        let whole = parse(&format!("{header}3\n1"), header, 20).unwrap();
        assert_eq!(whole.iter().filter(|whole| **whole).count(), 1);
        assert!(whole[3]);
        for text in ["", "carat-ranges 1 200 20\n", "carat-ranges 1 200 10\n20\n", "carat-ranges 1 200 10\nx\n"] {
            assert_eq!(parse(text, header, 20), None, "{text}");
        }
    }

    #[test]
    fn other_ranges_or_lost_bytes_start_anew() {
        let scratch = Scratch::new("anew");
        let partial = Partial::open(&scratch.blob(), 25, 10).unwrap();
        write(&partial, 0..10);
        drop(partial);
        let partial = Partial::open(&scratch.blob(), 25, 5).unwrap();
        assert_eq!(partial.present(), 0);
        write(&partial, 0..5);
        fs::remove_file(partial.path()).unwrap();
        drop(partial);
        assert_eq!(Partial::open(&scratch.blob(), 25, 5).unwrap().present(), 0);
    }

    #[test]
    fn an_empty_file_is_whole_at_once() {
        let scratch = Scratch::new("empty");
        let partial = Partial::open(&scratch.blob(), 0, 10).unwrap();
        assert!(partial.missing().is_empty());
        partial.keep(&scratch.blob()).unwrap();
        assert!(fs::read(scratch.blob()).unwrap().is_empty());
    }

    #[test]
    fn what_is_discarded_leaves_nothing() {
        let scratch = Scratch::new("discard");
        Partial::open(&scratch.blob(), 25, 10).unwrap().discard().unwrap();
        assert_eq!(fs::read_dir(&scratch.0).unwrap().count(), 0);
    }

    #[test]
    fn a_disk_that_is_too_small_leaves_nothing() {
        let scratch = Scratch::new("small");
        // No file system holds that much.
        let error = Partial::open(&scratch.blob(), 1 << 62, 1 << 60).unwrap_err();
        assert!(error.to_string().contains("hash.carat.incomplete"), "{error}");
        assert_eq!(fs::read_dir(&scratch.0).unwrap().count(), 0);
    }
}
