//! Runs the program in a pseudo-terminal, as a person does.
//!
//! Output is taken only while a test waits for it: a program that writes more than the terminal and one read hold
//! (about 20 kB) stands still until the test goes on. What happens in the middle of an answer is so the same on
//! any machine, however slow.

use std::io::{Read, Write};
use std::path::Path;
use std::process::Child;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::time::{Duration, Instant};

use pty_process::blocking::{Command, Pty, open};

/// How long a machine with other things to do may take for anything a test waits for.
const DEADLINE: Duration = Duration::from_secs(180);

/// The program and the terminal it is in.
pub struct Terminal {
    child: Child,
    pty: Arc<Pty>,
    output: Receiver<Vec<u8>>,
    /// What came out so far.
    seen: String,
    /// Up to where [`Terminal::wait_for`] found what it was asked for.
    passed: usize,
}

impl Terminal {
    /// Starts the program; it leaves no history and sees no wish for plain output.
    pub fn run(args: &[&str]) -> Self {
        Terminal::with_history(args, None)
    }

    /// The same with a directory for a history.
    pub fn with_history(args: &[&str], state: Option<&Path>) -> Self {
        let (pty, slave) = open().expect("the system has pseudo-terminals");
        let mut command = Command::new(env!("CARGO_BIN_EXE_carat")).args(args).env("TERM", "xterm");
        for name in ["NO_COLOR", "HOME", "XDG_STATE_HOME"] {
            command = command.env_remove(name);
        }
        if let Some(state) = state {
            command = command.env("XDG_STATE_HOME", state);
        }
        let child = command.spawn(slave).expect("the program starts");
        let pty = Arc::new(pty);
        Terminal { child, output: reads(Arc::clone(&pty)), pty, seen: String::new(), passed: 0 }
    }

    /// Types `keys`.
    pub fn send(&mut self, keys: &str) {
        self.send_bytes(keys.as_bytes());
    }

    /// Sends what no keys may be.
    pub fn send_bytes(&mut self, bytes: &[u8]) {
        (&*self.pty).write_all(bytes).expect("the terminal takes input");
    }

    /// Waits for `text` behind what was waited for before.
    #[track_caller]
    pub fn wait_for(&mut self, text: &str) {
        let end = Instant::now() + DEADLINE;
        let found = loop {
            if let Some(found) = self.seen[self.passed..].find(text) {
                break self.passed + found;
            }
            match self.output.recv_timeout(end.saturating_duration_since(Instant::now())) {
                Ok(bytes) => self.seen.push_str(&String::from_utf8_lossy(&bytes)),
                Err(error) => panic!("`{text}` did not come ({error}) after: {}", self.last()),
            }
        };
        self.passed = found + text.len();
    }

    /// The last that came, for failures.
    fn last(&self) -> &str {
        let start = self.seen.len().saturating_sub(400);
        &self.seen[self.seen.ceil_char_boundary(start)..]
    }

    /// Waits until the program has ended; gives its exit code.
    #[track_caller]
    pub fn end(mut self) -> Option<i32> {
        let end = Instant::now() + DEADLINE;
        loop {
            match self.output.recv_timeout(end.saturating_duration_since(Instant::now())) {
                Ok(bytes) => self.seen.push_str(&String::from_utf8_lossy(&bytes)),
                Err(RecvTimeoutError::Disconnected) => {
                    break self.child.wait().expect("a child can be waited for").code();
                }
                Err(RecvTimeoutError::Timeout) => panic!("the program goes on after: {}", self.last()),
            }
        }
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // Nothing is left to end where a test passed.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What the program writes, read by read; each waits until it is taken. Disconnected when the program has ended.
fn reads(pty: Arc<Pty>) -> Receiver<Vec<u8>> {
    let (sender, receiver) = sync_channel(0);
    std::thread::spawn(move || {
        let mut buffer = [0; 4096];
        // The terminal of a program that has ended gives an error on Linux and nothing elsewhere.
        while let Ok(n @ 1..) = (&*pty).read(&mut buffer) {
            if sender.send(buffer[..n].to_vec()).is_err() {
                break;
            }
        }
    });
    receiver
}
