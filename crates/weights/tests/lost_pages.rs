//! A mapped file that is cut short while it is read: the process ends with a line that names the file.
//!
//! The reading is done by this test's own program, run again with the file's name in its environment.
#![cfg(unix)]
#![allow(clippy::unwrap_used, reason = "a failing helper fails its test")]

use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use carat_weights::{MappedFile, exit_on_lost_pages};

const FILE: &str = "CARAT_TEST_LOST_FILE";
const HANDLED: &str = "CARAT_TEST_LOST_HANDLED";
const SIGBUS: i32 = 7;

/// What the other process does: nothing when it is run as one of these tests.
#[test]
fn child() {
    let Some(path) = std::env::var_os(FILE).map(PathBuf::from) else { return };
    if std::env::var_os(HANDLED).is_some() {
        exit_on_lost_pages();
        exit_on_lost_pages();
    }
    // Others before and after it on the list, some of them gone.
    let other = |name: &str| {
        let path = path.with_extension(name);
        fs::write(&path, "other").unwrap();
        MappedFile::open(&path).unwrap()
    };
    let (first, gone) = (other("1"), other("2"));
    drop(gone);
    let mapped = MappedFile::open(&path).unwrap();
    let last = other("3");
    fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(10).unwrap();
    // On a thread, as the kernels read.
    std::thread::scope(|s| {
        s.spawn(|| println!("read {}", mapped.bytes()[100_000]));
    });
    println!("{} {}", first.bytes().len(), last.bytes().len());
}

fn run(name: &str, handled: bool) -> (Output, PathBuf) {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    fs::write(&path, vec![1; 200_000]).unwrap();
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "child", "--nocapture"]).env(FILE, &path);
    if handled {
        command.env(HANDLED, "1");
    }
    (command.output().unwrap(), path)
}

#[test]
fn the_file_is_named_and_the_exit_code_is_1() {
    let (output, path) = run("lost", true);
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert!(stderr.contains(&format!("error: `{}` was cut short", path.display())), "{stderr}");
    assert!(stderr.contains("load the model again"), "{stderr}");
}

/// A library leaves signals alone.
#[test]
fn nothing_is_handled_unless_it_is_asked_for() {
    let (output, _) = run("lost-unhandled", false);
    #[cfg(target_os = "linux")]
    assert_eq!(output.status.signal(), Some(SIGBUS));
    assert_ne!(output.status.code(), Some(0));
}
