//! How far a pull is: a bar on a terminal, a line per file elsewhere.

use std::io::{self, IsTerminal, Write};

use carat_hub::Event;
use indicatif::{ProgressBar, ProgressStyle};

use crate::output;

/// Shows a pull on standard error.
pub struct Progress {
    /// Hidden where there is no terminal.
    bar: ProgressBar,
}

impl Progress {
    /// Nothing to show yet.
    pub fn new() -> Self {
        if !io::stderr().is_terminal() {
            return Progress { bar: ProgressBar::hidden() };
        }
        let template = "{bar:30} {bytes}/{total_bytes} {bytes_per_sec}, {eta} left  {msg}";
        let style = ProgressStyle::with_template(template).expect("the template is well-formed");
        Progress { bar: ProgressBar::new(0).with_style(style) }
    }

    /// Shows one event.
    pub fn event(&self, event: &Event<'_>) {
        match event {
            Event::Plan { repo, files, bytes } => {
                self.say(&format!("{repo}: {files} files, {}", output::bytes(*bytes)));
                self.bar.set_length(*bytes);
                self.bar.set_position(0);
                self.bar.reset_eta();
            }
            Event::File { file, size } => {
                self.bar.set_message((*file).to_owned());
                if self.bar.is_hidden() {
                    self.say(&format!("{file} ({})", output::bytes(*size)));
                }
            }
            Event::Bytes(n) => self.bar.inc(*n),
            Event::Lost(n) => self.bar.set_position(self.bar.position().saturating_sub(*n)),
            Event::Waiting { file } => self.say(&format!("{file}: another process is fetching it; waiting")),
            Event::Checking { file } => self.bar.set_message(format!("checking {file}")),
            Event::Retry { reason, wait } => {
                self.say(&format!("{reason}; trying again in {:.1} s", wait.as_secs_f64()));
            }
            Event::Skipped { repo, error } => self.say(&format!("without {repo}: {error}")),
        }
    }

    /// Takes the bar away.
    pub fn finish(&self) {
        self.bar.finish_and_clear();
    }

    /// A line above the bar, if there is one yet.
    fn say(&self, line: &str) {
        // Standard error may be closed; then there is nobody to tell.
        let write = || drop(writeln!(io::stderr(), "{line}"));
        if self.bar.length() == Some(0) { write() } else { self.bar.suspend(write) }
    }
}
