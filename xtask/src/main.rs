//! Development tasks: `cargo run -p xtask` prints what the tidy rules find, `cargo test` fails on it.
#![forbid(unsafe_code)]

mod source;
mod tidy;

use std::process::ExitCode;

fn main() -> ExitCode {
    let problems = tidy::check_all(&tidy::root());
    for problem in &problems {
        eprintln!("{problem}");
    }
    if problems.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
