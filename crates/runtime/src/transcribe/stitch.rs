//! Texts of clips, as they come, to one text: words that two clips share stand once, and nothing is shown that may still go.
//!
//! Of a clip that shares sound with the next, the last words wait for the next one's first. Words that repeat what stands
//! before them wait as well: where a model repeats itself without end, the repetition is dropped as a whole.

use super::seam::{Seam, seam};
use super::words::{Splitter, Word};

/// Words of fast speech per second, which is what may be shared at most; in scripts without spaces, letters.
const MOST_WORDS_PER_SECOND: f64 = 8.0;

/// How much faster than the rest of its clip the shared part may be spoken.
const FASTER: f64 = 2.0;

/// Words at the edge of what is shared, which belong to it in part.
const EDGE_WORDS: usize = 1;

/// The longest phrase whose repetition is noticed, in words.
const MAX_PHRASE: usize = 64;

/// The longest word that is believed to be one where its clip ended by force, in letters.
const MAX_WORD: usize = 64;

/// How often in a row a phrase must stand, beside the first time, to be dropped.
const REPEATS: usize = 2;

/// A clip of a recording, as far as its text is concerned.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Clip {
    /// Its length in seconds.
    pub seconds: f64,
    /// Seconds that it shares with the clip before.
    pub shared_before: f64,
    /// Seconds that it shares with the clip after.
    pub shared_after: f64,
}

/// How the text of a clip ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ending {
    /// The model ended it.
    Whole,
    /// It was ended by force: it ran in circles, or was too long.
    Forced,
}

/// More of the text, certain now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Piece {
    /// Of which clip, counted from 0.
    pub clip: usize,
    /// With the space before it.
    pub text: String,
}

/// Makes one text of those of clips.
#[derive(Debug, Default)]
pub(super) struct Stitcher {
    clip: Clip,
    /// Clips begun.
    begun: usize,
    splitter: Splitter,
    /// Words of the last clip that wait for the first ones of this.
    tail: Vec<Word>,
    /// The most words of the tail that may be shared.
    most_shared: usize,
    /// Whether the seam to the last clip is still open.
    open: bool,
    /// Words of this clip that are not certain.
    held: Vec<Word>,
    repeats: Repeats,
    /// The last letter that was shown.
    last: Option<char>,
    /// Whether the next word to be shown is the first of its clip.
    begins: bool,
    pieces: Vec<Piece>,
}

impl Stitcher {
    /// Begins the next clip.
    pub fn begin(&mut self, clip: Clip) {
        self.clip = clip;
        self.begun += 1;
        self.open = true;
        self.repeats = Repeats::default();
    }

    /// Takes more text of the clip; what is certain now.
    pub fn push(&mut self, text: &str) -> Vec<Piece> {
        let words = self.splitter.push(text);
        self.take(words);
        self.settle(false);
        std::mem::take(&mut self.pieces)
    }

    /// Ends the clip's text; what is certain now.
    pub fn end(&mut self, ending: Ending) -> Vec<Piece> {
        let last = self.splitter.finish();
        // The last word of a repetition is cut off, and a word that goes on for ever has no other end.
        let broken = |word: &Word| self.repeats.to_drop() > 0 || word.key.chars().count() > MAX_WORD;
        self.take(last.filter(|word| ending == Ending::Whole || !broken(word)));
        if ending == Ending::Forced {
            let kept = self.held.len().saturating_sub(self.repeats.to_drop());
            self.held.truncate(kept);
        }
        self.settle(true);
        std::mem::take(&mut self.pieces)
    }

    /// Ends the text; what was waiting, of the clip before where one has begun of which nothing is known.
    pub fn finish(&mut self) -> Vec<Piece> {
        let tail = std::mem::take(&mut self.tail);
        self.show(tail, self.begun.saturating_sub(1 + usize::from(self.open)));
        std::mem::take(&mut self.pieces)
    }

    fn take(&mut self, words: impl IntoIterator<Item = Word>) {
        for word in words {
            self.repeats.push(&word.key);
            self.held.push(word);
        }
    }

    /// Shows what is certain.
    fn settle(&mut self, ended: bool) {
        if self.open {
            let most = most_words(self.clip.shared_before);
            if !ended && !self.tail.is_empty() && self.held.len() <= most {
                return;
            }
            self.close(self.begun - 1);
        }
        let waiting = if self.clip.shared_after > 0.0 { most_words(self.clip.shared_after) } else { 0 };
        let uncertain = if ended { waiting } else { waiting.max(self.repeats.longest()) };
        let certain = self.held.len().saturating_sub(uncertain);
        let rest = self.held.split_off(certain);
        let shown = std::mem::replace(&mut self.held, rest);
        self.show(shown, self.begun - 1);
        if ended {
            self.tail = std::mem::take(&mut self.held);
            let said = self.repeats.keys.len() as f64 / self.clip.seconds.max(1.0);
            let likely = (said * FASTER * self.clip.shared_after).ceil() as usize + EDGE_WORDS;
            self.most_shared = likely.min(most_words(self.clip.shared_after));
        }
    }

    /// Joins the tail of the last clip with what this one begins with.
    fn close(&mut self, clip: usize) {
        self.open = false;
        let mut tail = std::mem::take(&mut self.tail);
        let at = tail.len().saturating_sub(self.most_shared);
        let head = &self.held[..self.held.len().min(self.most_shared)];
        if let Some(Seam { kept, joint, from }) = seam(&tail[at..], head) {
            tail.truncate(at + kept);
            tail.push(joint);
            self.held.drain(..from);
        }
        self.show(tail, clip.saturating_sub(1));
        self.begins = true;
    }

    fn show(&mut self, words: Vec<Word>, clip: usize) {
        let mut text = String::new();
        for word in words {
            let begins = std::mem::take(&mut self.begins);
            // Between clips there is a space wherever the script has any.
            if self.last.is_some_and(|last| if begins { !word.joins(last) } else { word.spaced }) {
                text.push(' ');
            }
            text.push_str(&word.text);
            self.last = word.text.chars().next_back().or(self.last);
        }
        if !text.is_empty() {
            self.pieces.push(Piece { clip, text });
        }
    }
}

/// The most words that are said in so many seconds.
fn most_words(seconds: f64) -> usize {
    if seconds > 0.0 { (seconds * MOST_WORDS_PER_SECOND).ceil() as usize + EDGE_WORDS } else { 0 }
}

/// Notices words that repeat what stands before them.
#[derive(Debug)]
struct Repeats {
    keys: Vec<String>,
    /// `runs[p - 1]`: words in a row that equal the one `p` before.
    runs: [usize; MAX_PHRASE],
}

impl Default for Repeats {
    fn default() -> Self {
        Repeats { keys: Vec::new(), runs: [0; MAX_PHRASE] }
    }
}

impl Repeats {
    fn push(&mut self, key: &str) {
        for (before, run) in self.keys.iter().rev().zip(&mut self.runs) {
            *run = if before == key { *run + 1 } else { 0 };
        }
        self.keys.push(key.to_owned());
    }

    /// Words at the end that may turn out to be mere repetition.
    fn longest(&self) -> usize {
        self.runs.into_iter().max().unwrap_or(0)
    }

    /// Words at the end that are.
    fn to_drop(&self) -> usize {
        let runs = self.runs.into_iter().zip(1..);
        runs.filter(|(run, phrase)| *run >= REPEATS * phrase).map(|(run, _)| run).max().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The text of clips of ten seconds that share one, and what each clip has of it. Text comes in pieces of `size` letters.
    fn stitched(texts: &[(&str, Ending)], shared: f64, size: usize) -> (String, Vec<String>) {
        let mut stitcher = Stitcher::default();
        let mut pieces = Vec::new();
        for (i, (text, ending)) in texts.iter().enumerate() {
            let at = |inside: bool| if inside { shared } else { 0.0 };
            stitcher.begin(Clip { seconds: 10.0, shared_before: at(i > 0), shared_after: at(i + 1 < texts.len()) });
            let letters: Vec<char> = text.chars().collect();
            for piece in letters.chunks(size) {
                pieces.extend(stitcher.push(&piece.iter().collect::<String>()));
            }
            pieces.extend(stitcher.end(*ending));
        }
        pieces.extend(stitcher.finish());
        let mut clips = vec![String::new(); texts.len()];
        pieces.iter().for_each(|piece| clips[piece.clip] += &piece.text);
        (pieces.into_iter().map(|piece| piece.text).collect(), clips)
    }

    #[track_caller]
    fn check(texts: &[&str], shared: f64, expected: &[&str]) {
        let whole: Vec<(&str, Ending)> = texts.iter().map(|text| (*text, Ending::Whole)).collect();
        for size in [1, 2, 5, 1000] {
            let (text, clips) = stitched(&whole, shared, size);
            assert_eq!(clips.iter().map(|clip| clip.trim_start()).collect::<Vec<_>>(), expected, "pieces of {size}");
            assert_eq!(clips.concat(), text, "clips are in order");
        }
    }

    /// Enough words before that a second holds a few.
    const LEAD: &str = "this is what was said here before all of that and more of it and so it went on and on till";

    #[test]
    fn clips_that_share_nothing_stand_one_after_the_other() {
        check(&["One two.", "Two three.", "", "Four."], 0.0, &["One two.", "Two three.", "", "Four."]);
        check(&["我们去海边。", "海边很美。"], 0.0, &["我们去海边。", "海边很美。"]);
        assert_eq!(stitched(&[("One.", Ending::Whole), ("Two.", Ending::Whole)], 0.0, 9).0, "One. Two.");
        assert_eq!(stitched(&[("一。", Ending::Whole), ("二。", Ending::Whole)], 0.0, 9).0, "一。二。");
    }

    #[test]
    fn shared_words_belong_to_the_first_clip() {
        let first = format!("{LEAD} we came to the sea.");
        let joined = format!("{LEAD} we came to the sea");
        check(&[&first, "To the sea and swam far out."], 1.0, &[&joined, "and swam far out."]);
        check(&[&first, ""], 1.0, &[&first, ""]);
        check(&["", "alone"], 1.0, &["", "alone"]);
    }

    #[test]
    fn a_phrase_said_often_is_dropped_no_further_than_clips_share() {
        let first = format!("{LEAD} ha ha ha ha");
        let (text, _) = stitched(&[(&first, Ending::Whole), ("ha ha ha ha ha ha ha ha end", Ending::Whole)], 1.0, 3);
        // Twelve were written; no more than the words of a second, at twice the pace of the clip, may be the same ones.
        let most = (24.0 * FASTER / 10.0).ceil() as usize + EDGE_WORDS;
        let said = text.matches("ha").count();
        assert!((12 - most..12).contains(&said), "{text}");
    }

    #[test]
    fn endless_repetition_is_dropped_and_counting_is_not() {
        let endless = |phrase: &str, n| format!("Well, {}", phrase.repeat(n));
        let cases = [
            (endless("no, ", 40), "Well, no,"),
            (endless("and then he said ", 9), "Well, and then he said"),
            (endless("and then he said ", 9) + "and the", "Well, and then he said"),
            (format!("Well, {}", "a".repeat(300)), "Well,"),
            ("one two one two three".into(), "one two one two three"),
        ];
        for (text, expected) in cases {
            for size in [1, 7] {
                assert_eq!(stitched(&[(&text, Ending::Forced)], 0.0, size).0, expected);
            }
            let whole = stitched(&[(&text, Ending::Whole)], 0.0, 3).0;
            assert_eq!(whole, text.trim_end(), "what the model ended itself is left alone");
        }
    }

    #[test]
    fn words_are_shown_as_soon_as_they_are_certain() {
        let mut stitcher = Stitcher::default();
        stitcher.begin(Clip { seconds: 10.0, ..Clip::default() });
        let mut shown = |text: &str| stitcher.push(text).into_iter().map(|piece| piece.text).collect::<String>();
        assert_eq!([shown("Hel"), shown("lo th"), shown("ere. "), shown("And")], ["", "Hello", " there.", ""]);
        stitcher.end(Ending::Whole);
        stitcher.begin(Clip { seconds: 10.0, shared_before: 0.0, shared_after: 1.0 });
        let mut shown = |text: &str| stitcher.push(text).into_iter().map(|piece| piece.text).collect::<String>();
        assert_eq!(shown("a b c d e f g h i j k l "), " a b c", "nine may be shared with the next clip");
    }

    /// A word that comes once in its text.
    fn word(i: usize) -> String {
        const SYLLABLES: [&str; 16] =
            ["ka", "lo", "mi", "nu", "pe", "ra", "so", "tu", "ve", "wo", "xa", "zi", "bru", "cle", "dro", "fli"];
        let digit = |place: u32| SYLLABLES[i * 7919 % 4096 / 16usize.pow(place) % 16];
        format!("{}{}{}", digit(0), digit(1), digit(2))
    }

    /// What happens to a word at the edge of a clip.
    #[derive(Clone, Copy, Debug)]
    enum Edge {
        Heard,
        Dropped,
        Misheard,
        Cut,
    }

    fn edge() -> impl Strategy<Value = Edge> {
        prop_oneof![Just(Edge::Heard), Just(Edge::Dropped), Just(Edge::Misheard), Just(Edge::Cut)]
    }

    proptest! {
        /// A sequence of words, cut into parts that share some, with the first or last word of a part dropped, misheard or cut,
        /// is whole again.
        #[test]
        fn overlapping_parts_give_the_sequence_back(
            parts in prop::collection::vec((20usize..40, 3usize..5, edge(), edge()), 1..6),
            size in 1usize..12,
        ) {
            let mut said = Vec::new();
            let mut texts: Vec<String> = Vec::new();
            let n = parts.len();
            for (i, &(fresh, shared, first, last)) in parts.iter().enumerate() {
                let shared = if i == 0 { 0 } else { shared };
                let start = said.len() - shared;
                said.extend((said.len()..said.len() + fresh).map(word));
                let mut part: Vec<String> = said[start..].to_vec();
                let (cut, heard) = (part.len() - 1, part[0].clone());
                if i + 1 < n {
                    match last {
                        Edge::Heard => {}
                        Edge::Dropped => drop(part.pop()),
                        Edge::Misheard => part[cut] = "hmm".into(),
                        Edge::Cut => part[cut].truncate(3),
                    }
                }
                if i > 0 {
                    match first {
                        Edge::Heard => {}
                        Edge::Dropped => drop(part.remove(0)),
                        Edge::Misheard => part[0] = "uhm".into(),
                        Edge::Cut => part[0] = heard[heard.len() - 3..].into(),
                    }
                }
                texts.push(part.join(" "));
            }
            let texts: Vec<(&str, Ending)> = texts.iter().map(|text| (text.as_str(), Ending::Whole)).collect();
            let (text, clips) = stitched(&texts, 1.0, size);
            prop_assert_eq!(&text, &said.join(" "));
            prop_assert_eq!(clips.concat(), text);
        }

        /// Whatever clips say, without shared sound nothing of it is lost, and pieces make no difference.
        #[test]
        fn apart_clips_lose_nothing(texts in prop::collection::vec("[a-c ,.我们ก่]{0,30}", 0..5), size in 1usize..9) {
            let whole: Vec<(&str, Ending)> = texts.iter().map(|text| (text.as_str(), Ending::Whole)).collect();
            let (text, clips) = stitched(&whole, 0.0, size);
            let letters = |text: &str| text.chars().filter(|c| !c.is_whitespace()).collect::<String>();
            prop_assert_eq!(letters(&text), letters(&texts.concat()));
            prop_assert_eq!(clips.iter().map(|clip| letters(clip)).collect::<Vec<_>>(), texts.iter().map(|t| letters(t)).collect::<Vec<_>>());
            prop_assert_eq!(stitched(&whole, 1.0, 1), stitched(&whole, 1.0, size));
        }
    }
}
