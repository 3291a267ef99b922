//! When an answer ends: stop strings in its text.
//!
//! A stop string may arrive over several pieces, so text that could be its beginning is held back until it is
//! decided. Tokens that end an answer and the limit on its length are [`crate::sequence`]'s.

/// The most stop strings of one request.
pub const MAX_STOP_STRINGS: usize = 16;
/// The most bytes of one of them.
pub const MAX_STOP_BYTES: usize = 1024;

/// A stop string that can't be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StopError {
    /// More than [`MAX_STOP_STRINGS`].
    #[error("{found} stop strings, expected at most {MAX_STOP_STRINGS}")]
    TooMany {
        /// How many were given.
        found: usize,
    },
    /// Empty, or longer than [`MAX_STOP_BYTES`].
    #[error("a stop string of {found} bytes, expected 1 to {MAX_STOP_BYTES}")]
    Length {
        /// Its length in bytes.
        found: usize,
    },
}

/// Looks for stop strings in text that arrives in pieces.
#[derive(Clone, Debug, Default)]
pub struct StopStrings {
    strings: Vec<String>,
    held: String,
    hit: Option<usize>,
}

impl StopStrings {
    /// A matcher for these strings, none allowed.
    pub fn new(strings: &[String]) -> Result<Self, StopError> {
        if strings.len() > MAX_STOP_STRINGS {
            return Err(StopError::TooMany { found: strings.len() });
        }
        if let Some(s) = strings.iter().find(|s| s.is_empty() || s.len() > MAX_STOP_BYTES) {
            return Err(StopError::Length { found: s.len() });
        }
        Ok(StopStrings { strings: strings.to_vec(), ..StopStrings::default() })
    }

    /// Takes more text; returns what is certain to come before any stop string. After a hit, nothing.
    pub fn push(&mut self, text: &str) -> String {
        if self.hit.is_some() {
            return String::new();
        }
        self.held.push_str(text);
        // The earliest one; of two at one place, the longer.
        let first = self
            .strings
            .iter()
            .enumerate()
            .filter_map(|(i, s)| self.held.find(s.as_str()).map(|at| (at, std::cmp::Reverse(s.len()), i)))
            .min();
        if let Some((at, _, i)) = first {
            self.hit = Some(i);
            self.held.truncate(at);
            return std::mem::take(&mut self.held);
        }
        let keep = self.strings.iter().map(|s| overlap(&self.held, s)).max().unwrap_or(0);
        let rest = self.held.split_off(self.held.len() - keep);
        std::mem::replace(&mut self.held, rest)
    }

    /// Ends the text; returns what was held back.
    pub fn finish(&mut self) -> String {
        std::mem::take(&mut self.held)
    }

    /// The stop string found, if any.
    pub fn hit(&self) -> Option<&str> {
        self.hit.map(|i| self.strings[i].as_str())
    }
}

/// Bytes of the longest end of `text` that is a beginning of `s`, `s` itself left out.
fn overlap(text: &str, s: &str) -> usize {
    (1..s.len().min(text.len() + 1)).rev().find(|&n| s.is_char_boundary(n) && text.ends_with(&s[..n])).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Pushes `text` in pieces of every size; the shown text and the hit must be the same for all.
    #[track_caller]
    fn check(stops: &[&str], text: &str, shown: &str, hit: Option<&str>) {
        let stops: Vec<String> = stops.iter().map(|s| s.to_string()).collect();
        let chars: Vec<char> = text.chars().collect();
        for size in 1..=chars.len() {
            let mut matcher = StopStrings::new(&stops).unwrap();
            let mut out = String::new();
            for piece in chars.chunks(size) {
                out += &matcher.push(&piece.iter().collect::<String>());
            }
            out += &matcher.finish();
            assert_eq!((out.as_str(), matcher.hit()), (shown, hit), "pieces of {size}");
        }
    }

    #[test]
    fn text_without_a_stop_string_passes_whole() {
        check(&["END"], "no such thing, EN", "no such thing, EN", None);
        check(&[], "free", "free", None);
    }

    #[test]
    fn text_ends_before_the_stop_string() {
        check(&["END"], "one EEND two", "one E", Some("END"));
        check(&["aab"], "aaaab", "aa", Some("aab"));
        check(&["→é"], "a→→é!", "a→", Some("→é"));
    }

    #[test]
    fn nothing_that_may_be_a_stop_string_is_shown_early() {
        let mut matcher = StopStrings::new(&["\nUser:".into()]).unwrap();
        assert_eq!(matcher.push("hi\nUs"), "hi");
        assert_eq!(matcher.push("ed"), "\nUsed");
        assert_eq!(matcher.push("\nUser: x"), "");
        assert_eq!(matcher.push("more"), "");
        assert_eq!(matcher.finish(), "");
    }

    #[test]
    fn empty_and_too_many_stop_strings_are_refused() {
        assert_eq!(StopStrings::new(&[String::new()]).unwrap_err(), StopError::Length { found: 0 });
        assert_eq!(StopStrings::new(&vec!["x".into(); 17]).unwrap_err(), StopError::TooMany { found: 17 });
    }
}
