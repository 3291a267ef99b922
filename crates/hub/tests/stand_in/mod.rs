//! A hub for tests: two HTTP servers on this machine that answer as the real one and the host of its large files do,
//! and fail as told.
//!
//! The shape of the answers is that of huggingface.co as `huggingface_hub` 2.4.0 reads it (`file_download.py`,
//! `hf_api.py`): a listing with `sha` and `siblings`, small files from the hub with a git blob id as ETag, large ones by
//! a redirect to another host with `X-Linked-Etag` (SHA-256) and `X-Linked-Size`.

#![allow(dead_code, reason = "each test program uses a part of it")]

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::ops::Range;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use sha1::Sha1;
use sha2::{Digest, Sha256};

/// The commit of every repository's main branch.
pub const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";
/// The commit of another revision, whose files are added to `REPO@REVISION`.
pub fn commit_of(repo: &str) -> String {
    if repo.contains('@') { git_blob(repo.as_bytes()) } else { COMMIT.into() }
}

/// Files from this size on are on the other host.
pub const LARGE: usize = 1000;

/// What one answer does instead of going well.
#[derive(Clone, Debug)]
pub enum Fault {
    /// This status and these headers, no body.
    Status(u16, Vec<(&'static str, String)>),
    /// The connection ends after so many bytes of the body.
    Drop(usize),
    /// After so many bytes of the body nothing comes any more.
    Stall(usize),
    /// A byte of the body is another one.
    WrongByte,
    /// Everything is sent, whatever was asked for.
    NoRanges,
    /// `Content-Range` tells of another size, and `Content-Length` where everything is sent.
    WrongSize(u64),
    /// The body is sent slowly: so many bytes, a pause of so many milliseconds, and so on.
    Slow(usize, u64),
    /// Headers that replace those of the right answer.
    Headers(Vec<(&'static str, String)>),
}

/// Which requests fail, and how often.
#[derive(Clone, Debug)]
struct Rule {
    /// Part of `METHOD PATH`, e.g. `HEAD /a/b/resolve`; files on the other host are `GET /bytes/NAME`.
    fits: String,
    /// Requests that fit and go well before.
    skip: usize,
    /// How many fail after that.
    times: usize,
    fault: Fault,
}

/// A request that came.
#[derive(Clone, Debug)]
pub struct Request {
    pub method: String,
    pub path: String,
    pub range: Option<(usize, usize)>,
    pub authorization: Option<String>,
}

/// A file, and the hash that names it.
struct Stored {
    bytes: Arc<Vec<u8>>,
    hash: String,
}

#[derive(Default)]
struct World {
    repos: BTreeMap<String, BTreeMap<String, Stored>>,
    rules: Vec<Rule>,
    log: Vec<Request>,
    /// The only token that opens repositories whose names contain `gated`.
    token: Option<String>,
}

/// The servers; they live as long as the test program.
#[derive(Clone)]
pub struct StandIn {
    world: Arc<Mutex<World>>,
    /// The hub's address.
    pub url: String,
    /// The address of the host of large files.
    pub bytes_url: String,
}

impl StandIn {
    pub fn new() -> Self {
        let listen = || TcpListener::bind("127.0.0.1:0").unwrap();
        let (hub, bytes) = (listen(), listen());
        let url = |listener: &TcpListener| format!("http://{}", listener.local_addr().unwrap());
        let it = StandIn { world: Arc::default(), url: url(&hub), bytes_url: url(&bytes) };
        for listener in [hub, bytes] {
            let it = it.clone();
            thread::spawn(move || {
                for stream in listener.incoming() {
                    let it = it.clone();
                    // Clients leave when they like.
                    thread::spawn(move || it.serve(stream.unwrap()));
                }
            });
        }
        it
    }

    pub fn add(&self, repo: &str, file: &str, bytes: impl Into<Vec<u8>>) -> &Self {
        let bytes = bytes.into();
        let hash = if bytes.len() < LARGE { git_blob(&bytes) } else { sha256(&bytes) };
        let stored = Stored { bytes: Arc::new(bytes), hash };
        self.world.lock().unwrap().repos.entry(repo.into()).or_default().insert(file.into(), stored);
        self
    }

    pub fn gate(&self, token: &str) {
        self.world.lock().unwrap().token = Some(token.into());
    }

    /// The next `times` requests that contain `fits` fail.
    pub fn fail(&self, fits: &str, times: usize, fault: Fault) -> &Self {
        self.fail_after(fits, 0, times, fault)
    }

    /// After `skip` of them went well.
    pub fn fail_after(&self, fits: &str, skip: usize, times: usize, fault: Fault) -> &Self {
        self.world.lock().unwrap().rules.push(Rule { fits: fits.into(), skip, times, fault });
        self
    }

    /// All is well from now on, and what came is forgotten.
    pub fn reset(&self) {
        let mut world = self.world.lock().unwrap();
        world.rules.clear();
        world.log.clear();
    }

    /// The requests that contain `fits`.
    pub fn requests(&self, fits: &str) -> Vec<Request> {
        let world = self.world.lock().unwrap();
        world.log.iter().filter(|r| format!("{} {}", r.method, r.path).contains(fits)).cloned().collect()
    }

    /// Bytes asked for of the large file of this name.
    pub fn asked(&self, file: &str) -> usize {
        let requests = self.requests(&format!("GET /bytes/{file}"));
        requests.iter().map(|r| r.range.map_or(0, |(start, end)| end - start)).sum()
    }

    fn serve(&self, stream: TcpStream) -> Option<()> {
        let mut reader = BufReader::new(stream.try_clone().ok()?);
        let request = read_request(&mut reader)?;
        let (answer, fault) = {
            let mut world = self.world.lock().unwrap();
            world.log.push(request.clone());
            let line = format!("{} {}", request.method, request.path);
            (self.answer(&world, &request), take_fault(&mut world.rules, &line))
        };
        send(stream, &request, answer, fault).ok()
    }

    fn answer(&self, world: &World, request: &Request) -> Answer {
        let path = request.path.split('?').next().unwrap_or_default();
        if let Some(file) = path.strip_prefix("/bytes/") {
            let repo = request.path.rsplit_once("&repo=").map_or("", |(_, repo)| repo);
            let found = world.repos.get(repo).and_then(|files| files.get(&unescaped(file)));
            return found.map_or(Answer::status(404), |file| Answer::bytes(&file.bytes, request.range));
        }
        let (api, rest) = path.strip_prefix("/api/models").map_or((false, path), |rest| (true, rest));
        let mut parts = rest.trim_start_matches('/').splitn(5, '/');
        let mut next = || parts.next().unwrap_or_default();
        let repo = format!("{}/{}", next(), next());
        let (verb, commit, file) = (next(), next(), next());
        let expected = world.token.as_ref().map(|token| format!("Bearer {token}"));
        if repo.contains("gated") && (expected.is_none() || request.authorization != expected) {
            return Answer::status(401);
        }
        let revision = unescaped(commit);
        let named = if revision == "main" { repo.clone() } else { format!("{repo}@{revision}") };
        let of_repo = |key: &&String| key.split('@').next() == Some(&repo);
        let of_commit = world.repos.keys().filter(of_repo).find(|key| commit_of(key) == revision);
        let repo = if world.repos.contains_key(&named) { named } else { of_commit.cloned().unwrap_or_default() };
        match (api, world.repos.get(&repo)) {
            (_, None) => Answer::status(404),
            (true, Some(files)) if verb == "revision" => Answer::listing(files, &commit_of(&repo)),
            (false, Some(files)) if verb == "resolve" => match files.get(&unescaped(file)) {
                None => Answer::status(404),
                Some(stored) if stored.bytes.len() < LARGE => Answer::small(stored, request.range),
                Some(stored) => self.linked(&repo, file, stored),
            },
            _ => Answer::status(404),
        }
    }

    /// A large file: its bytes are elsewhere.
    fn linked(&self, repo: &str, file: &str, stored: &Stored) -> Answer {
        Answer::status(302).with(vec![
            ("Location", format!("{}/bytes/{file}?signature=s3cret&repo={repo}", self.bytes_url)),
            ("X-Linked-Etag", format!("\"{}\"", stored.hash)),
            ("X-Linked-Size", stored.bytes.len().to_string()),
            ("X-Repo-Commit", COMMIT.into()),
            ("ETag", "\"of-the-redirect\"".into()),
        ])
    }
}

struct Answer {
    status: u16,
    headers: Vec<(&'static str, String)>,
    whole: Arc<Vec<u8>>,
    /// What is sent of it.
    part: Range<usize>,
}

impl Answer {
    fn of(status: u16, whole: Arc<Vec<u8>>, part: Range<usize>) -> Self {
        Answer { status, headers: Vec::new(), whole, part }
    }

    fn status(status: u16) -> Self {
        Answer::of(status, Arc::default(), 0..0)
    }

    fn with(mut self, headers: Vec<(&'static str, String)>) -> Self {
        for (name, value) in headers {
            self.headers.retain(|(other, _)| !other.eq_ignore_ascii_case(name));
            self.headers.push((name, value));
        }
        self
    }

    fn listing(files: &BTreeMap<String, Stored>, commit: &str) -> Self {
        let siblings: Vec<_> = files.keys().map(|file| serde_json::json!({ "rfilename": file })).collect();
        let body = serde_json::json!({ "id": "x", "sha": commit, "siblings": siblings }).to_string().into_bytes();
        Answer::bytes(&Arc::new(body), None)
    }

    fn small(stored: &Stored, range: Option<(usize, usize)>) -> Self {
        let headers = vec![("ETag", format!("\"{}\"", stored.hash)), ("X-Repo-Commit", COMMIT.into())];
        Answer::bytes(&stored.bytes, range).with(headers)
    }

    fn bytes(bytes: &Arc<Vec<u8>>, range: Option<(usize, usize)>) -> Self {
        let size = bytes.len();
        match range {
            None => Answer::of(200, bytes.clone(), 0..size),
            Some((start, _)) if start >= size => {
                Answer::status(416).with(vec![("Content-Range", format!("bytes */{size}"))])
            }
            Some((start, end)) => {
                let end = end.min(size);
                let found = format!("bytes {start}-{}/{size}", end - 1);
                Answer::of(206, bytes.clone(), start..end).with(vec![("Content-Range", found)])
            }
        }
    }
}

fn take_fault(rules: &mut [Rule], line: &str) -> Option<Fault> {
    for rule in rules.iter_mut().filter(|rule| line.contains(&rule.fits) && rule.times > 0) {
        if rule.skip > 0 {
            rule.skip -= 1;
        } else {
            rule.times -= 1;
            return Some(rule.fault.clone());
        }
    }
    None
}

fn send(mut stream: TcpStream, request: &Request, mut answer: Answer, fault: Option<Fault>) -> std::io::Result<()> {
    let (mut pace, mut ends, mut stalls) = (None, None, false);
    let mut length = None;
    match fault {
        None => {}
        Some(Fault::Status(status, headers)) => answer = Answer::status(status).with(headers),
        Some(Fault::Drop(after)) => ends = Some(after),
        Some(Fault::Stall(after)) => (ends, stalls) = (Some(after), true),
        Some(Fault::WrongByte) => {
            let mut bytes = answer.whole[answer.part.clone()].to_vec();
            bytes[0] ^= 1;
            answer.part = 0..bytes.len();
            answer.whole = Arc::new(bytes);
        }
        Some(Fault::NoRanges) => answer = Answer::bytes(&answer.whole, None),
        Some(Fault::WrongSize(size)) if answer.status == 206 => {
            let (start, end) = request.range.unwrap();
            answer.headers = vec![("Content-Range", format!("bytes {start}-{}/{size}", end - 1))];
        }
        Some(Fault::WrongSize(size)) => length = Some(size as usize),
        Some(Fault::Slow(bytes, millis)) => pace = Some((bytes, millis)),
        Some(Fault::Headers(headers)) => answer = answer.with(headers),
    }
    let length = length.unwrap_or(answer.part.len());
    let mut head = format!("HTTP/1.1 {} X\r\nConnection: close\r\nContent-Length: {length}\r\n", answer.status);
    for (name, value) in &answer.headers {
        head += &format!("{name}: {value}\r\n");
    }
    stream.write_all(format!("{head}\r\n").as_bytes())?;
    if request.method == "HEAD" {
        return Ok(());
    }
    let body = &answer.whole[answer.part.clone()];
    let body = &body[..ends.unwrap_or(body.len()).min(body.len())];
    let (step, millis) = pace.unwrap_or((body.len().max(1), 0));
    for part in body.chunks(step) {
        stream.write_all(part)?;
        stream.flush()?;
        thread::sleep(Duration::from_millis(millis));
    }
    if stalls {
        thread::sleep(Duration::from_secs(5));
    }
    stream.shutdown(Shutdown::Both)
}

fn read_request(reader: &mut impl BufRead) -> Option<Request> {
    let mut line = String::new();
    reader.read_line(&mut line).ok()?;
    let mut words = line.split(' ');
    let mut request =
        Request { method: words.next()?.into(), path: words.next()?.into(), range: None, authorization: None };
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        let Some((name, value)) = line.trim_end().split_once(": ") else { return Some(request) };
        match name.to_ascii_lowercase().as_str() {
            "authorization" => request.authorization = Some(value.into()),
            "range" => {
                let (start, last) = value.strip_prefix("bytes=")?.split_once('-')?;
                request.range = Some((start.parse().ok()?, last.parse::<usize>().ok()? + 1));
            }
            _ => {}
        }
    }
}

fn unescaped(path: &str) -> String {
    path.replace("%20", " ").replace("%2F", "/")
}

/// The hash that names a large file.
pub fn sha256(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

/// The hash that names a small file.
pub fn git_blob(bytes: &[u8]) -> String {
    hex(&Sha1::new_with_prefix(format!("blob {}\0", bytes.len())).chain_update(bytes).finalize())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Bytes without a pattern that a mistake in offsets could hide in.
pub fn noise(size: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_u32;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        state as u8
    };
    (0..size).map(|_| next()).collect()
}
