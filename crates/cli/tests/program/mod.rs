//! Runs the program as a user or a script does.
#![allow(dead_code, reason = "each test file uses a part")]

use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

/// A command with these arguments and nothing of the environment that changes output.
pub fn carat(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_carat"));
    command.args(args).env_remove("NO_COLOR").stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// What it prints when `input` is piped in.
pub fn fed(args: &[&str], input: &[u8]) -> Output {
    let mut child = carat(args).stdin(Stdio::piped()).spawn().expect("the program starts");
    let mut stdin = child.stdin.take().expect("its input is a pipe");
    let input = input.to_vec();
    // The program may refuse its arguments without reading.
    let writer = std::thread::spawn(move || drop(stdin.write_all(&input)));
    let output = child.wait_with_output().expect("the program ends");
    writer.join().expect("the writer does not panic");
    output
}

/// Standard output of a command that must succeed.
#[track_caller]
pub fn done(output: Output) -> Vec<u8> {
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

/// A file or directory of its own for a test, removed with the value.
pub struct Scratch(pub PathBuf);

impl Scratch {
    /// An unused path.
    pub fn new(name: &str) -> Self {
        Scratch(std::env::temp_dir().join(format!("carat-{}-{name}", std::process::id())))
    }

    /// The path as an argument.
    pub fn arg(&self) -> &str {
        self.0.to_str().expect("temporary paths are UTF-8")
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = if self.0.is_dir() { std::fs::remove_dir_all(&self.0) } else { std::fs::remove_file(&self.0) };
    }
}
