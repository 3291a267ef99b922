//! One file: ranges in parallel, each tried again from where it broke off, then the hash of the whole.
//!
//! The hub sends large files from another host, by an address that is signed for a while. It is asked for once and
//! used until it stops working. A server that doesn't serve ranges gets one request for everything, and an
//! interruption starts that anew.

use std::collections::VecDeque;
use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom, Write};
use std::ops::{ControlFlow, Range};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crate::api::{self, Metadata};
use crate::cache::RepoCache;
use crate::http::{Client, Reply, header};
use crate::partial::Partial;
use crate::pull::{Event, Observer};
use crate::retry::{Attempts, Failure};
use crate::{Error, RepoId};

/// Bytes taken from a connection at a time.
const BUFFER_BYTES: usize = 256 << 10;
/// Bytes after which a try counts as having brought something.
const PROGRESS_BYTES: u64 = 64 << 10;
/// How often a waiting thread looks whether another has failed for good.
const TICK: Duration = Duration::from_millis(20);

/// How a file is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ranges {
    /// Connections at a time.
    pub workers: usize,
    /// Bytes of a range.
    pub bytes: u64,
}

impl Default for Ranges {
    fn default() -> Self {
        Ranges { workers: 4, bytes: 16 << 20 }
    }
}

/// Everything about one download.
pub struct Download<'a> {
    /// Speaks to the hub.
    pub client: &'a Client,
    /// Where the blob goes.
    pub cache: &'a RepoCache,
    /// The commit.
    pub commit: &'a str,
    /// The file.
    pub file: &'a Metadata,
    /// How it is cut.
    pub ranges: Ranges,
    /// Hears what happens.
    pub on: Observer<'a>,
}

/// Why a range is not there.
enum Miss {
    Failure(Failure),
    /// The server sends everything or nothing.
    NoRanges,
}

impl From<Failure> for Miss {
    fn from(failure: Failure) -> Self {
        Miss::Failure(failure)
    }
}

impl From<Error> for Miss {
    fn from(error: Error) -> Self {
        Miss::Failure(Failure::Final(error))
    }
}

/// Why the ranges are not all there.
enum Stop {
    Error(Error),
    NoRanges,
}

impl From<Error> for Stop {
    fn from(error: Error) -> Self {
        Stop::Error(error)
    }
}

impl Download<'_> {
    /// Brings the file's blob into the cache, if it isn't there. A damaged one stays until another takes its place.
    pub fn run(&self) -> Result<(), Error> {
        let hash = self.file.etag.as_str();
        let blob = self.cache.blob(hash);
        let _lock = self.cache.lock(hash, || (self.on)(Event::Waiting { file: &self.file.file }))?;
        if self.cache.has(hash, self.file.size) {
            (self.on)(Event::Bytes(self.file.size));
            return Ok(());
        }
        let dir = blob.parent().unwrap_or(&blob);
        fs::create_dir_all(dir).map_err(Error::io(dir))?;
        let mut found = String::new();
        for _ in 0..2 {
            let partial = self.fill()?;
            (self.on)(Event::Checking { file: &self.file.file });
            let mismatch = self.file.etag.mismatch(partial.path(), self.file.size);
            match mismatch.map_err(Error::io(partial.path()))? {
                None => return partial.keep(&blob),
                Some(wrong) => found = wrong,
            }
            partial.discard()?;
            (self.on)(Event::Lost(self.file.size));
        }
        Err(Error::Checksum { file: self.file.file.clone(), expected: hash.to_owned(), found })
    }

    /// All bytes of the file, not yet checked.
    fn fill(&self) -> Result<Partial, Error> {
        match self.fill_by(self.ranges) {
            Ok(partial) => Ok(partial),
            Err(Stop::Error(error)) => Err(error),
            Err(Stop::NoRanges) => match self.fill_by(Ranges { workers: 1, bytes: self.file.size }) {
                Ok(partial) => Ok(partial),
                Err(Stop::Error(error)) => Err(error),
                Err(Stop::NoRanges) => unreachable!("a range of everything is never too small for a server"),
            },
        }
    }

    fn fill_by(&self, ranges: Ranges) -> Result<Partial, Stop> {
        let size = self.file.size;
        let partial = Partial::open(&self.cache.blob(self.file.etag.as_str()), size, ranges.bytes.max(1))?;
        let present = partial.present();
        (self.on)(Event::Bytes(present));
        let workers = Workers {
            download: self,
            partial: &partial,
            source: Source::new(self),
            todo: Mutex::new(partial.missing().into()),
            stop: AtomicBool::new(false),
            arrived: Mutex::new(present),
        };
        let mut stops = Vec::new();
        thread::scope(|scope| {
            let threads: Vec<_> = (0..ranges.workers.max(1)).map(|_| scope.spawn(|| workers.work())).collect();
            for thread in threads {
                match thread.join() {
                    Ok(Ok(())) => {}
                    Ok(Err(stop)) => stops.push(stop),
                    Err(panic) => std::panic::resume_unwind(panic),
                }
            }
        });
        match stops.into_iter().next() {
            None => Ok(partial),
            Some(stop) => {
                if let Stop::NoRanges = stop {
                    let arrived = *lock(&workers.arrived);
                    (self.on)(Event::Lost(arrived));
                }
                Err(stop)
            }
        }
    }
}

/// What the threads of one download share.
struct Workers<'a> {
    download: &'a Download<'a>,
    partial: &'a Partial,
    source: Source<'a>,
    todo: Mutex<VecDeque<Range<u64>>>,
    /// One of them has failed for good.
    stop: AtomicBool,
    /// Bytes, those from earlier included.
    arrived: Mutex<u64>,
}

impl Workers<'_> {
    fn work(&self) -> Result<(), Stop> {
        let result = self.take_ranges();
        if result.is_err() {
            self.stop.store(true, Ordering::Relaxed);
        }
        result
    }

    fn take_ranges(&self) -> Result<(), Stop> {
        let next = || lock(&self.todo).pop_front().filter(|_| !self.stopped());
        while let Some(range) = next() {
            if self.fetch(&range)?.is_break() {
                break;
            }
        }
        Ok(())
    }

    /// One range, in as many tries as it takes. `Break` if another thread has failed.
    fn fetch(&self, range: &Range<u64>) -> Result<ControlFlow<()>, Stop> {
        let mut file = self.partial.writer(range.start)?;
        let mut attempts = Attempts::new(self.download.client.patience());
        let mut at = range.start;
        while at < range.end {
            let before = at;
            let missed = self.read(&mut file, range, &mut at);
            if self.stopped() {
                return Ok(ControlFlow::Break(()));
            }
            match missed {
                Ok(()) => {}
                Err(Miss::NoRanges) => return Err(Stop::NoRanges),
                Err(Miss::Failure(failure)) => {
                    if at.saturating_sub(before) >= PROGRESS_BYTES {
                        attempts.progress();
                    }
                    let pause = attempts.failed(failure)?;
                    (self.download.on)(Event::Retry { reason: &pause.reason, wait: pause.wait });
                    self.sleep(pause.wait);
                }
            }
        }
        self.partial.finish(range, &file)?;
        Ok(ControlFlow::Continue(()))
    }

    /// One request for what is left of `range`; `at` moves with what is written.
    fn read(&self, file: &mut File, range: &Range<u64>, at: &mut u64) -> Result<(), Miss> {
        let rest = *at..range.end;
        let reply = self.source.open(&rest)?;
        if reply.status() == 200 {
            self.accept_whole(&reply, file, range, at)?;
        } else {
            self.check_range(&reply, &rest)?;
        }
        let mut body = reply.response.into_body().into_reader();
        let mut buffer = vec![0; BUFFER_BYTES];
        while *at < range.end && !self.stopped() {
            let most = (range.end - *at).min(BUFFER_BYTES as u64) as usize;
            let n = body.read(&mut buffer[..most]).map_err(|error| self.broken_off(&error.to_string(), range, *at))?;
            if n == 0 {
                return Err(self.broken_off("the answer ended", range, *at).into());
            }
            file.write_all(&buffer[..n]).map_err(Error::io(self.partial.path()))?;
            *at += n as u64;
            *lock(&self.arrived) += n as u64;
            (self.download.on)(Event::Bytes(n as u64));
        }
        if *at == range.end {
            // The end must be seen for the connection to serve the next range; if it isn't there, a new one will.
            let _ = body.read(&mut [0]);
        }
        Ok(())
    }

    /// The server sends everything: fine if everything is what was asked for.
    fn accept_whole(&self, reply: &Reply, file: &mut File, range: &Range<u64>, at: &mut u64) -> Result<(), Miss> {
        let size = self.download.file.size;
        if *range != (0..size) {
            return Err(Miss::NoRanges);
        }
        if let Some(length) = header(reply.response.headers(), "content-length")
            && length.parse() != Ok(size)
        {
            return Err(self.wrong_size(&reply.url, length).into());
        }
        if *at > 0 {
            (self.download.on)(Event::Lost(*at));
            *lock(&self.arrived) -= *at;
            *at = 0;
            file.seek(SeekFrom::Start(0)).map_err(Error::io(self.partial.path()))?;
        }
        Ok(())
    }

    /// `Content-Range: bytes START-END/SIZE` is what was asked for.
    fn check_range(&self, reply: &Reply, rest: &Range<u64>) -> Result<(), Failure> {
        let found = header(reply.response.headers(), "content-range").unwrap_or("none");
        let parsed = found.strip_prefix("bytes ").and_then(|text| text.split_once('/'));
        let Some((span, size)) = parsed else {
            let reason = format!("expected Content-Range of a part, found `{found}`");
            return Err(Failure::again(&self.source.hub, reason));
        };
        if size != "*" && size.parse() != Ok(self.download.file.size) {
            return Err(self.wrong_size(&reply.url, size));
        }
        let starts = span.split_once('-').is_some_and(|(start, _)| start.parse() == Ok(rest.start));
        if !starts {
            let reason = format!("asked for bytes from {} on, was sent {span}", rest.start);
            return Err(Failure::again(&self.source.hub, reason));
        }
        Ok(())
    }

    fn wrong_size(&self, url: &str, found: &str) -> Failure {
        let Metadata { file, size, .. } = self.download.file;
        self.source.forget(url);
        Failure::again(&self.source.hub, format!("the hub says that {file} has {size} bytes, its host says {found}"))
    }

    fn broken_off(&self, reason: &str, range: &Range<u64>, at: u64) -> Failure {
        let (got, all) = (at - range.start, range.end - range.start);
        Failure::again(&self.source.hub, format!("{reason} after {got} of {all} bytes"))
    }

    fn stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    fn sleep(&self, wait: Duration) {
        let until = Instant::now() + wait;
        while !self.stopped() {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            thread::sleep(left.min(TICK));
        }
    }
}

/// Where a file's bytes come from.
struct Source<'a> {
    client: &'a Client,
    repo: &'a RepoId,
    file: &'a str,
    /// The hub's address of the file.
    hub: String,
    /// Where the hub sent us, while that works.
    direct: Mutex<Option<String>>,
}

impl<'a> Source<'a> {
    fn new(download: &'a Download<'a>) -> Self {
        let (client, repo, file) = (download.client, download.cache.repo(), download.file.file.as_str());
        let hub = api::file_url(client, repo, download.commit, file);
        Source { client, repo, file, hub, direct: Mutex::new(None) }
    }

    /// An answer with bytes: status 200 or 206.
    fn open(&self, range: &Range<u64>) -> Result<Reply, Failure> {
        let direct = lock(&self.direct).clone();
        let reply = self.client.get(direct.as_deref().unwrap_or(&self.hub), Some(range))?;
        let status = reply.status();
        if matches!(status, 200 | 206) {
            if !self.client.is_hub(&reply.url) {
                *lock(&self.direct) = Some(reply.url.clone());
            }
            return Ok(reply);
        }
        let signed = direct.filter(|_| matches!(status, 400 | 401 | 403 | 404 | 410 | 416));
        if let Some(direct) = signed {
            self.forget(&direct);
            let reason = format!("the file's address no longer works ({status})");
            return Err(Failure::Again { url: self.hub.clone(), reason, status: None, wait: Some(Duration::ZERO) });
        }
        Err(self.client.refusal(self.repo, &format!("{} of {}", self.file, self.repo), reply))
    }

    /// The next request asks the hub again.
    fn forget(&self, url: &str) {
        let mut direct = lock(&self.direct);
        if direct.as_deref() == Some(url) {
            *direct = None;
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
