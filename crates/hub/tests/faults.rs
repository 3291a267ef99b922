//! What a hub and a network can do wrong, and what comes of it.
#![allow(clippy::unwrap_used, reason = "a panic is a failed test")]

mod scratch;
mod stand_in;

use std::fs;
use std::io::{Read, Write};
use std::time::{Duration, Instant};

use carat_hub::{Error, Event, Extras, Ranges};
use scratch::{RANGE, Scratch, pull};
use stand_in::{Fault, StandIn, git_blob, noise, sha256};

const REPO: &str = "org/model";
const SIZE: usize = 10 * RANGE + 123;

/// A hub with one model of two small files and a large one.
fn server() -> StandIn {
    let server = StandIn::new();
    server.add(REPO, "config.json", "{}").add(REPO, "tokenizer.json", "[]").add(REPO, "model.safetensors", noise(SIZE));
    server
}

/// The model is there and right, and nothing else is.
#[track_caller]
fn check_whole(scratch: &Scratch) {
    let dir = "models--org--model";
    let expected = [
        format!("{dir}/blobs/{}", git_blob(b"[]")),
        format!("{dir}/blobs/{}", git_blob(b"{}")),
        format!("{dir}/blobs/{}", sha256(&noise(SIZE))),
        format!("{dir}/refs/main"),
        format!("{dir}/snapshots/{}/config.json", stand_in::COMMIT),
        format!("{dir}/snapshots/{}/model.safetensors", stand_in::COMMIT),
        format!("{dir}/snapshots/{}/tokenizer.json", stand_in::COMMIT),
    ];
    let mut found = scratch.files();
    let mut expected: Vec<String> = expected.into();
    found.sort();
    expected.sort();
    assert_eq!(found, expected);
    let weights = scratch.0.join(format!("{dir}/snapshots/{}/model.safetensors", stand_in::COMMIT));
    assert!(fs::read(weights).unwrap() == noise(SIZE), "other bytes");
}

/// Faults that come and go: the pull succeeds.
#[track_caller]
fn survives(fits: &str, times: usize, fault: Fault) -> StandIn {
    let (server, scratch) = (server(), Scratch::new());
    server.fail(fits, times, fault);
    scratch.pull(&server, REPO).unwrap();
    check_whole(&scratch);
    server
}

/// Faults that stay: the pull fails and says this, no file has its name, and once all is well the pull succeeds.
#[track_caller]
fn gives_up(fits: &str, fault: Fault, says: &str) -> StandIn {
    let (server, scratch) = (server(), Scratch::new());
    server.fail(fits, usize::MAX, fault);
    let error = scratch.pull(&server, REPO).unwrap_err().to_string();
    assert!(error.contains(says), "`{says}` is not in: {error}");
    assert!(!error.contains("s3cret"), "signed addresses are secret: {error}");
    let weights = [format!("blobs/{}", sha256(&noise(SIZE))), "model.safetensors".into(), "refs/main".into()];
    let named: Vec<String> = scratch.files().into_iter().filter(|f| weights.iter().any(|w| f.ends_with(w))).collect();
    assert!(named.is_empty(), "{named:?}");
    let seen = server.clone();
    let log = seen.requests("");
    server.reset();
    scratch.pull(&server, REPO).unwrap();
    check_whole(&scratch);
    assert!(!log.is_empty());
    server
}

const BYTES: &str = "GET /bytes/model.safetensors";
const LISTING: &str = "GET /api/models";
const HEAD: &str = "HEAD /org/model/resolve";
const SMALL: &str = "GET /org/model/resolve/0123456789abcdef0123456789abcdef01234567/config.json";

fn status(status: u16) -> Fault {
    Fault::Status(status, Vec::new())
}

#[test]
fn broken_connections_are_taken_up_where_they_broke() {
    let server = survives(BYTES, 3, Fault::Drop(1000));
    // What had arrived was not asked for again: each of three breaks costs one request more, for 1000 bytes less than the
    // one that broke, and which range is hit by how many of them is up to the threads.
    assert_eq!(server.requests(BYTES).len(), 11 + 3);
    let asked = server.asked("model.safetensors") - SIZE;
    assert!((3 * RANGE - 6000..=3 * RANGE - 3000).contains(&asked), "{asked} bytes were asked for again");
    survives(SMALL, 2, Fault::Drop(1));
    survives(LISTING, 2, Fault::Drop(5));
    survives(HEAD, 1, Fault::Status(502, vec![]));
}

#[test]
fn a_connection_that_always_breaks_is_given_up() {
    gives_up(BYTES, Fault::Drop(0), "after 0 of");
    gives_up(BYTES, Fault::Drop(0), "gave up after 4 tries. The same command goes on from what has arrived");
}

#[test]
fn breaks_are_forgiven_if_enough_arrives_between_them() {
    // Ten bytes are not enough.
    gives_up(BYTES, Fault::Drop(10), "gave up after 4 tries");
    let (server, scratch) = (server(), Scratch::new());
    server.fail(BYTES, usize::MAX, Fault::Drop(70_000));
    let hub = scratch::hub_with(&scratch.settings(&server), Ranges { workers: 1, bytes: 1 << 20 });
    pull(&hub, REPO).unwrap();
    check_whole(&scratch);
    assert_eq!(server.requests(BYTES).len(), SIZE.div_ceil(70_000));
}

#[test]
fn silence_is_a_broken_connection() {
    let started = Instant::now();
    survives(BYTES, 1, Fault::Stall(1000));
    assert!(started.elapsed() < Duration::from_secs(4), "{:?}", started.elapsed());
    gives_up(BYTES, Fault::Stall(0), "timeout");
}

#[test]
fn wrong_bytes_are_noticed_and_fetched_again() {
    let server = survives(BYTES, 1, Fault::WrongByte);
    assert_eq!(server.asked("model.safetensors"), 2 * SIZE);
    survives(SMALL, 1, Fault::WrongByte);
}

#[test]
fn bytes_that_stay_wrong_leave_nothing() {
    let (server, scratch) = (server(), Scratch::new());
    server.fail(BYTES, usize::MAX, Fault::WrongByte);
    let error = scratch.pull(&server, REPO).unwrap_err();
    let expected = format!("model.safetensors: expected the hash {}, found ", sha256(&noise(SIZE)));
    assert!(error.to_string().starts_with(&expected), "{error}");
    let left: Vec<String> = scratch.files().into_iter().filter(|file| file.contains("incomplete")).collect();
    assert!(left.is_empty(), "{left:?}");
    gives_up(SMALL, Fault::WrongByte, "config.json: expected the hash");
}

#[test]
fn a_host_that_tells_of_another_size_is_not_believed() {
    survives(BYTES, 1, Fault::WrongSize(77));
    gives_up(BYTES, Fault::WrongSize(77), "the hub says that model.safetensors has 327803 bytes, its host says 77");
}

#[test]
fn a_host_that_sends_other_bytes_than_asked_for_is_not_believed() {
    let other = Fault::Headers(vec![("Content-Range", "bytes 7-8/327803".into())]);
    gives_up(BYTES, other, "was sent 7-8");
    gives_up(BYTES, Fault::Headers(vec![("Content-Range", "bytes".into())]), "expected Content-Range of a part");
}

#[test]
fn who_may_not_read_is_told_what_to_do() {
    gives_up(LISTING, status(401), "org/model: the hub answered 401: the token was not accepted");
    gives_up(LISTING, status(403), "accept its licence at http://127.0.0.1");
    gives_up(HEAD, status(403), "check that the token may read it");
    let said = vec![("X-Error-Message", "Access to model org/model is restricted".to_owned())];
    gives_up(LISTING, Fault::Status(403, said), "answered 403: Access to model org/model is restricted");
    let (server, scratch) = (server(), Scratch::new());
    server.fail(LISTING, 1, status(401));
    let hub = scratch::hub(&carat_hub::Settings { token: None, ..scratch.settings(&server) });
    let error = pull(&hub, REPO).unwrap_err().to_string();
    assert!(error.contains("then set HF_TOKEN or log in with `hf auth login`"), "{error}");
}

#[test]
fn what_is_not_there_is_named() {
    let (server, scratch) = (server(), Scratch::new());
    let error = scratch.pull(&server, "org/nothing").unwrap_err().to_string();
    assert!(error.starts_with("org/nothing: the hub has nothing by that name"), "{error}");
    assert!(scratch.files().is_empty());
    gives_up(HEAD, status(404), "config.json of org/model: the hub has nothing by that name");
    // One try each: trying again would not help.
    assert_eq!(server.requests("org/nothing").len(), 1);
}

#[test]
fn a_signed_address_that_runs_out_is_asked_for_again() {
    for code in [401, 403, 404, 410] {
        let (server, scratch) = (server(), Scratch::new());
        server.fail_after(BYTES, 5, 2, status(code));
        scratch.pull(&server, REPO).unwrap();
        check_whole(&scratch);
    }
    gives_up(BYTES, status(403), "answered 403");
}

#[test]
fn ranges_that_do_not_exist_are_asked_for_again() {
    survives(BYTES, 2, status(416));
    gives_up(BYTES, status(416), "answered 416");
}

#[test]
fn busy_servers_say_when_to_come_back() {
    let wait = |seconds: u32| Fault::Status(429, vec![("Retry-After", seconds.to_string())]);
    for place in [LISTING, HEAD, BYTES, SMALL] {
        let started = Instant::now();
        survives(place, 1, wait(1));
        assert!(started.elapsed() >= Duration::from_secs(1), "{place}: {:?}", started.elapsed());
    }
    gives_up(BYTES, wait(7200), "answered 429 and asks to wait 7200 s: try again then; what has arrived is kept");
    gives_up(LISTING, status(429), "answered 429: Too Many Requests; gave up after 4 tries");
}

#[test]
fn broken_servers_get_some_time() {
    for code in [500, 502, 503, 504] {
        survives(LISTING, 3, status(code));
        survives(BYTES, 3, status(code));
    }
    gives_up(HEAD, status(503), "answered 503: Service Unavailable; gave up after 4 tries");
}

#[test]
fn nobody_listens() {
    let scratch = Scratch::new();
    let mut server = server();
    server.url = "http://127.0.0.1:9".into();
    let error = scratch.pull(&server, REPO).unwrap_err().to_string();
    assert!(error.contains("refused") && error.contains("after 4 tries"), "{error}");
    server.url = "not an address".into();
    let error = scratch.pull(&server, REPO).unwrap_err().to_string();
    assert!(error.starts_with("not an address/api/models"), "{error}");
}

#[test]
fn a_connection_that_is_not_secure_is_not_tried_again() {
    let (mut server, scratch) = (server(), Scratch::new());
    // A server that answers in the clear where TLS is expected.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    server.url = format!("https://{}", listener.local_addr().unwrap());
    let answering = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let hello = stream.read(&mut [0; 4096]).unwrap();
        stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").unwrap();
        hello
    });
    let error = scratch.pull(&server, REPO).unwrap_err();
    assert!(matches!(error, Error::Insecure { .. }), "{error}");
    assert!(error.to_string().contains("let SSL_CERT_FILE name them"), "{error}");
    assert!(answering.join().unwrap() > 0);
}

#[test]
fn a_host_without_ranges_sends_everything_at_once() {
    let server = survives(BYTES, usize::MAX, Fault::NoRanges);
    assert!(server.requests(BYTES).iter().any(|request| request.range == Some((0, SIZE))));
    let (server, scratch) = (self::server(), Scratch::new());
    // The whole answer breaks off, and the next starts from the beginning.
    server.fail(BYTES, 4, Fault::NoRanges).fail(BYTES, 1, Fault::Drop(5000)).fail(BYTES, usize::MAX, Fault::NoRanges);
    scratch.pull(&server, REPO).unwrap();
    check_whole(&scratch);
}

#[test]
fn the_token_stays_with_the_hub() {
    let (server, scratch) = (server(), Scratch::new());
    scratch.pull(&server, REPO).unwrap();
    for request in server.requests("") {
        let expected = (!request.path.starts_with("/bytes/")).then(|| "Bearer hf_secret".to_owned());
        assert_eq!(request.authorization, expected, "{}", request.path);
    }
    // Asked for once, not for each range.
    assert!(server.requests("GET /org/model/resolve").len() <= 2 + 4);
}

#[test]
fn redirects_within_the_hub_are_followed_and_loops_are_not() {
    let (server, scratch) = (server(), Scratch::new());
    let moved = |to: &str| Fault::Status(307, vec![("Location", to.to_owned())]);
    server.fail(LISTING, 1, moved("/api/models/org/model/revision/main"));
    server.fail(SMALL, 1, moved(&format!("/{REPO}/resolve/{}/config.json", stand_in::COMMIT)));
    scratch.pull(&server, REPO).unwrap();
    check_whole(&scratch);
    gives_up(LISTING, moved("/api/models/org/model/revision/main"), "more than 5 redirects");
    gives_up(LISTING, status(302), "a redirect (302) without Location");
}

#[test]
fn a_mirror_may_redirect_everything_to_the_hub_it_mirrors() {
    let (server, scratch) = (server(), Scratch::new());
    let base = format!("/{REPO}/resolve/{}", stand_in::COMMIT);
    for file in ["config.json", "tokenizer.json", "model.safetensors"] {
        let there = format!("{}{base}/{file}", server.bytes_url);
        server.fail(&format!("{base}/{file}"), 1, Fault::Status(308, vec![("Location", there.clone())]));
        server.fail_after(&format!("GET {base}/{file}"), 0, 1, Fault::Status(308, vec![("Location", there)]));
    }
    scratch.pull(&server, REPO).unwrap();
    check_whole(&scratch);
}

#[test]
fn answers_without_sense_are_refused() {
    let (server, scratch) = (server(), Scratch::new());
    server.add("org/other", "README.md", "x");
    let error = scratch.pull(&server, "org/other").unwrap_err().to_string();
    assert!(error.contains("org/other has no model that carat reads"), "{error}");
    let linked = |name: &'static str, value: &str| Fault::Headers(vec![(name, value.to_owned())]);
    gives_up(HEAD, linked("X-Linked-Etag", "\"../../x\""), "expected a file's hash as ETag");
    gives_up(HEAD, linked("X-Linked-Size", "many"), "expected a file's size");
    gives_up(LISTING, status(200), "expected JSON that describes a model, found 0 bytes");
}

#[test]
fn paths_that_leave_the_cache_are_refused() {
    let (server, scratch) = (server(), Scratch::new());
    server.add("org/evil", "../../../evil", "x").add("org/evil", "model.safetensors", "x");
    let error = scratch.pull(&server, "org/evil").unwrap_err().to_string();
    assert!(error.contains("expected the path of a file, found `\"../../../evil\"`"), "{error}");
    assert!(scratch.files().is_empty());
}

#[test]
fn a_pull_that_broke_goes_on_where_it_was() {
    let (server, scratch) = (server(), Scratch::new());
    server.fail_after(BYTES, 6, usize::MAX, status(500));
    scratch.pull(&server, REPO).unwrap_err();
    let incomplete = scratch.files().into_iter().filter(|file| file.ends_with(".incomplete")).count();
    assert_eq!(incomplete, 2, "{:?}", scratch.files());
    server.reset();
    scratch.pull(&server, REPO).unwrap();
    check_whole(&scratch);
    let asked = server.asked("model.safetensors");
    assert!(asked <= SIZE - 5 * RANGE, "{asked} of {SIZE} bytes were asked for again");
}

#[test]
fn what_is_here_is_not_fetched_again() {
    let (server, scratch) = (server(), Scratch::new());
    scratch.pull(&server, REPO).unwrap();
    server.reset();
    scratch.pull(&server, REPO).unwrap();
    check_whole(&scratch);
    assert!(server.requests(BYTES).is_empty() && server.requests("GET /org").is_empty());
}

#[test]
fn a_blob_that_was_cut_short_is_fetched_again() {
    let (server, scratch) = (server(), Scratch::new());
    scratch.pull(&server, REPO).unwrap();
    let blob = scratch.0.join(format!("models--org--model/blobs/{}", sha256(&noise(SIZE))));
    for bytes in [SIZE - 1, 0] {
        fs::OpenOptions::new().write(true).open(&blob).unwrap().set_len(bytes as u64).unwrap();
        server.reset();
        scratch.pull(&server, REPO).unwrap();
        check_whole(&scratch);
        assert_eq!(server.asked("model.safetensors"), SIZE);
    }
}

#[test]
fn two_pulls_at_once_fetch_everything_once() {
    let (server, scratch) = (server(), Scratch::new());
    server.fail(BYTES, usize::MAX, Fault::Slow(8192, 5));
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| scratch.pull(&server, REPO).unwrap());
        }
    });
    check_whole(&scratch);
    assert_eq!(server.asked("model.safetensors"), SIZE);
}

#[test]
fn a_file_that_another_program_fetches_is_waited_for() {
    let (server, scratch) = (server(), Scratch::new());
    // As another tool holds it, until it has finished or is gone.
    let cache = scratch.cache().repo(&REPO.parse().unwrap());
    let held = cache.lock(&sha256(&noise(SIZE)), || {}).unwrap();
    let (tell, told) = std::sync::mpsc::channel();
    std::thread::scope(|scope| {
        let (scratch, server, tell) = (&scratch, &server, std::sync::Mutex::new(tell));
        scope.spawn(move || {
            let on = |event: Event<'_>| {
                if let Event::Waiting { file } = event {
                    tell.lock().unwrap().send(file.to_owned()).unwrap();
                }
            };
            let extras = Extras { encoder: true, drafter: true };
            scratch.hub(server).pull(&REPO.parse().unwrap(), extras, &on).unwrap();
        });
        assert_eq!(told.recv().unwrap(), "model.safetensors");
        assert!(server.requests(BYTES).is_empty());
        drop(held);
    });
    check_whole(&scratch);
}

#[test]
fn too_little_room_is_known_before_the_download() {
    let (server, scratch) = (server(), Scratch::new());
    let size = 1_u64 << 60;
    server.fail("HEAD /org/model/resolve/0123456789abcdef0123456789abcdef01234567/model", 1, {
        Fault::Headers(vec![("X-Linked-Size", size.to_string())])
    });
    let error = scratch.pull(&server, REPO).unwrap_err();
    assert!(matches!(error, Error::Space { needed, .. } if needed >= size), "{error}");
    assert!(error.to_string().contains("let HF_HUB_CACHE name a directory on another disk"), "{error}");
    assert!(server.requests("GET /org").is_empty() && scratch.files().is_empty());
}

#[test]
fn every_byte_is_reported_once() {
    let (server, scratch) = (server(), Scratch::new());
    server.fail(BYTES, 1, Fault::WrongByte).fail(BYTES, 2, Fault::Drop(100));
    let count = std::sync::Mutex::new((0, 0));
    let on = |event: Event<'_>| {
        let mut count = count.lock().unwrap();
        match event {
            Event::Plan { bytes, .. } => *count = (0, bytes as i64),
            Event::Bytes(n) => count.0 += n as i64,
            Event::Lost(n) => count.0 -= n as i64,
            _ => {}
        }
    };
    let extras = Extras { encoder: true, drafter: true };
    scratch.hub(&server).pull(&REPO.parse().unwrap(), extras, &on).unwrap();
    let (arrived, planned) = count.into_inner().unwrap();
    assert_eq!((arrived, planned), (SIZE as i64 + 4, SIZE as i64 + 4));
}
