//! A question on the terminal, and whether there is anybody to ask.

use std::io::{self, BufRead, IsTerminal, Write};

/// Whether a person can see a question and answer it.
pub fn can_ask() -> bool {
    io::stdin().is_terminal() && io::stderr().is_terminal()
}

/// Asks; anything but a yes is a no.
pub fn yes(question: &str) -> io::Result<bool> {
    let mut err = io::stderr().lock();
    write!(err, "{question} [y/N] ")?;
    err.flush()?;
    answer(&mut io::stdin().lock())
}

fn answer(input: &mut impl BufRead) -> io::Result<bool> {
    let mut line = String::new();
    input.read_line(&mut line)?;
    Ok(["y", "yes"].iter().any(|yes| line.trim().eq_ignore_ascii_case(yes)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_yes_is_a_yes() {
        for (line, expected) in [("y\n", true), (" YES \n", true), ("\n", false), ("", false), ("yeah\n", false)] {
            assert_eq!(answer(&mut line.as_bytes()).unwrap(), expected, "{line:?}");
        }
    }
}
