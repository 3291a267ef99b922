//! Text as words that can be compared: what a clip's text is cut up into before it is stitched to its neighbours.
//!
//! Where a script writes no spaces between words, each of its letters and vowel signs is a word here. Punctuation goes with the word it
//! stands at.

use std::ops::Range;

/// A word with the punctuation around it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Word {
    /// Whether white space stands before it.
    pub spaced: bool,
    /// As it is written.
    pub text: String,
    /// What is compared: letters and digits in lower case. Empty for a dash that stands alone.
    pub key: String,
    /// Bytes of `text` up to the end of its last letter; the rest is punctuation.
    end: usize,
}

impl Word {
    fn new(spaced: bool, text: &str) -> Self {
        let key = text.chars().filter(|c| c.is_alphanumeric()).flat_map(char::to_lowercase).collect();
        let last = text.char_indices().rev().find(|(_, c)| is_letter(*c));
        let end = last.map_or(0, |(at, c)| at + c.len_utf8());
        Word { spaced, text: text.to_owned(), key, end }
    }

    /// This word with the punctuation that follows `other`.
    pub fn ending_as(&self, other: &Word) -> Word {
        let text = format!("{}{}", &self.text[..self.end], &other.text[other.end..]);
        Word { text, ..self.clone() }
    }

    /// Whether it may stand directly behind a word that ends so.
    pub fn joins(&self, last: char) -> bool {
        let wide = |c| is_spaceless(c) || matches!(u32::from(c), 0x3000..=0x303f | 0xff00..=0xffef);
        self.text.chars().next().is_some_and(wide) && wide(last)
    }
}

/// Cuts text that comes in pieces into words.
#[derive(Debug, Default)]
pub(super) struct Splitter {
    /// The last word with the space before it, which may go on.
    pending: String,
}

impl Splitter {
    /// Takes more text; the words that are complete.
    pub fn push(&mut self, text: &str) -> Vec<Word> {
        self.pending.push_str(text);
        let words = split(&self.pending);
        let rest = match words.last() {
            Some(last) if last.end == self.pending.len() => self.pending[..last.start].trim_end().len(),
            Some(last) => last.end,
            None => return Vec::new(),
        };
        let complete = words.into_iter().filter(|word| word.end <= rest).map(|word| self.word(word)).collect();
        self.pending.drain(..rest);
        complete
    }

    /// Ends the text; its last word.
    pub fn finish(&mut self) -> Option<Word> {
        let last = split(&self.pending).pop().map(|word| self.word(word));
        self.pending.clear();
        last
    }

    fn word(&self, Range { start, end }: Range<usize>) -> Word {
        let spaced = self.pending[..start].ends_with(char::is_whitespace);
        Word::new(spaced, &self.pending[start..end])
    }
}

/// Places of words in `text`.
fn split(text: &str) -> Vec<Range<usize>> {
    let mut words = Vec::new();
    let mut start = None;
    // The last letter of the word that has begun.
    let mut letter: Option<char> = None;
    for (at, c) in text.char_indices() {
        let ends = c.is_whitespace()
            || letter.is_some_and(|last| c.is_alphanumeric() && (is_spaceless(c) || is_spaceless(last)));
        if ends && let Some(start) = start.take() {
            words.push(start..at);
            letter = None;
        }
        if !c.is_whitespace() {
            start.get_or_insert(at);
            if is_letter(c) {
                letter = Some(c);
            }
        }
    }
    words.extend(start.map(|start| start..text.len()));
    words
}

/// Letters, digits, and whatever else scripts without spaces are made of.
fn is_letter(c: char) -> bool {
    c.is_alphanumeric() || is_spaceless(c)
}

/// Whether `c` is of a script that writes no spaces between words: Thai, Lao, Burmese, Khmer, Chinese, Japanese.
fn is_spaceless(c: char) -> bool {
    matches!(u32::from(c), 0x0e00..=0x0eff | 0x1000..=0x109f | 0x1780..=0x17ff | 0x3040..=0x30ff | 0x3400..=0x4dbf
        | 0x4e00..=0x9fff | 0xf900..=0xfaff | 0x20000..=0x3ffff)
}

/// The words of a whole text.
#[cfg(test)]
pub(super) fn words(text: &str) -> Vec<Word> {
    let mut splitter = Splitter::default();
    let mut words = splitter.push(text);
    words.extend(splitter.finish());
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Feeds `text` in pieces of every size; words are written with `_` where a space stands before them.
    #[track_caller]
    fn check(text: &str, expected: &[&str], keys: &[&str]) {
        let chars: Vec<char> = text.chars().collect();
        for size in 1..=chars.len() {
            let mut splitter = Splitter::default();
            let mut words = Vec::new();
            for piece in chars.chunks(size) {
                words.extend(splitter.push(&piece.iter().collect::<String>()));
            }
            words.extend(splitter.finish());
            let written: Vec<String> =
                words.iter().map(|w| format!("{}{}", if w.spaced { "_" } else { "" }, w.text)).collect();
            assert_eq!(written, expected, "pieces of {size}");
            assert_eq!(words.iter().map(|w| w.key.as_str()).collect::<Vec<_>>(), keys);
        }
    }

    #[test]
    fn words_keep_their_punctuation_and_are_compared_without() {
        check(
            "Well, it's 1.7 — “Yes!”\n",
            &["Well,", "_it's", "_1.7", "_—", "_“Yes!”"],
            &["well", "its", "17", "", "yes"],
        );
        check("  a", &["_a"], &["a"]);
    }

    #[test]
    fn letters_of_scripts_without_spaces_are_words() {
        check("我们，OK吗？", &["我", "们，", "OK", "吗？"], &["我", "们", "ok", "吗"]);
        check("ที่นี่", &["ท", "ี่", "น", "ี่"], &["ท", "ี", "น", "ี"]);
        check("안녕 하세요", &["안녕", "_하세요"], &["안녕", "하세요"]);
    }

    #[test]
    fn the_end_of_a_word_is_that_of_another() {
        let words = words("\"Cat. cat, then");
        assert_eq!(words[0].ending_as(&words[1]).text, "\"Cat,");
        assert_eq!(words[0].ending_as(&words[2]).text, "\"Cat");
    }
}
