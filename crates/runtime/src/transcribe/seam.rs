//! Where the text of a clip goes on with that of the next, when the two clips share some sound.
//!
//! Both texts hold the words of what is shared: the end of the first and the beginning of the second are aligned, word by
//! word, and joined at the last pair that agrees. Behind it the first clip was about to be cut off; before it the second
//! had just begun, perhaps in the middle of a word. So one word at either edge may be a fragment, and few may be wrong.

use super::words::Word;

/// What two equal words are worth,
const EQUAL: i32 = 3;
/// and two that are nearly so.
const ALIKE: i32 = 2;
/// What two different words cost that stand in the same place: one was misheard.
const MISHEARD: i32 = -1;
/// What a word costs that only one side has. Much, as otherwise a phrase that is said twice would be found across whatever lies
/// between,
const MISSING: i32 = -6;
/// but for the fragment of a word at the edge of its clip.
const FRAGMENT: i32 = -1;

/// Letters of a word that may be off by one; those of twice as many letters may be off by two.
const LETTERS: usize = 4;

/// How two texts are joined: `before[..kept]`, `joint`, `after[from..]`.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Seam {
    /// Words of the first text that stay.
    pub kept: usize,
    /// The word both have.
    pub joint: Word,
    /// The first word of the second text that stays.
    pub from: usize,
}

/// The seam of two texts of which `before` ends and `after` begins with no more words than may be shared; `None` where they
/// don't share any.
pub(super) fn seam(before: &[Word], after: &[Word]) -> Option<Seam> {
    let (n, m) = (before.len(), after.len());
    if n == 0 || m == 0 {
        return None;
    }
    // `best[i][j]`: the best alignment of an end of `before[..i]` with the whole of `after[..j]`.
    let mut best = vec![vec![Cell::default(); m + 1]; n + 1];
    for i in 0..=n {
        for j in 1..=m {
            let start = if j == 1 { FRAGMENT } else { i32::MIN / 2 };
            let mut cell = Cell { score: start.max(best[i][j - 1].score + missing(&after[j - 1])), ..best[i][j - 1] };
            if start == cell.score {
                cell.last = None;
            }
            if i > 0 {
                let skipped = best[i - 1][j].score + missing(&before[i - 1]);
                if skipped > cell.score {
                    cell = Cell { score: skipped, ..best[i - 1][j] };
                }
                let pair = likeness(before, after, i - 1, j - 1);
                let paired = best[i - 1][j - 1].score + pair;
                if paired >= cell.score {
                    let last = if pair > 0 { Some((i - 1, j - 1)) } else { best[i - 1][j - 1].last };
                    cell = Cell { score: paired, last };
                }
            }
            best[i][j] = cell;
        }
    }
    // The last word of `before` may be a fragment that `after` has not.
    let ends = (1..=m).flat_map(|j| [best[n][j], Cell { score: best[n - 1][j].score + FRAGMENT, ..best[n - 1][j] }]);
    let end = ends.max_by_key(|cell| cell.score).filter(|cell| cell.score > 0)?;
    let (i, j) = end.last?;
    let mut joint = if prefers_after(before, after, i, j) { after[j].clone() } else { before[i].ending_as(&after[j]) };
    joint.spaced = before[i].spaced;
    Some(Seam { kept: i, joint, from: j + 1 })
}

/// The best alignment up to some place.
#[derive(Clone, Copy, Default)]
struct Cell {
    score: i32,
    /// The last pair of it that agrees.
    last: Option<(usize, usize)>,
}

/// What a word costs that the other side doesn't have; a dash alone is none.
fn missing(word: &Word) -> i32 {
    if word.key.is_empty() { 0 } else { MISSING }
}

/// What it is worth to pair two words.
fn likeness(before: &[Word], after: &[Word], i: usize, j: usize) -> i32 {
    let (a, b) = (&before[i].key, &after[j].key);
    if a.is_empty() || b.is_empty() {
        return if a == b { 0 } else { MISHEARD };
    }
    if a == b {
        return EQUAL;
    }
    let cut_off = i + 1 == before.len() && b.starts_with(a.as_str());
    let cut_in = j == 0 && a.ends_with(b.as_str());
    let shorter = a.chars().count().min(b.chars().count());
    if cut_off || cut_in || distance(a, b) <= shorter / LETTERS { ALIKE } else { MISHEARD }
}

/// Whether the second text has the better version of a word that both have: the first one's may be cut off.
fn prefers_after(before: &[Word], after: &[Word], i: usize, j: usize) -> bool {
    let (a, b) = (&before[i].key, &after[j].key);
    a != b
        && match (i + 1 == before.len(), j == 0) {
            (true, true) => b.len() > a.len(),
            (cut_off, _) => cut_off,
        }
}

/// Letters to change, add or leave out to make one word of the other.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, y) in b.iter().enumerate() {
            let changed = diagonal + usize::from(x != *y);
            diagonal = row[j + 1];
            row[j + 1] = changed.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::super::words::words;
    use super::*;

    /// Joins two texts; `|` stands where the second goes on.
    #[track_caller]
    fn check(before: &str, after: &str, expected: &str) {
        let (before, after) = (words(before), words(after));
        let write = |words: &[Word]| words.iter().map(|w| w.text.as_str()).collect::<Vec<_>>().join(" ");
        let found = match seam(&before, &after) {
            None => format!("{} || {}", write(&before), write(&after)),
            Some(Seam { kept, joint, from }) => {
                format!("{} | {}", write(&[&before[..kept], &[joint]].concat()), write(&after[from..]))
            }
        };
        assert_eq!(found, expected);
    }

    #[test]
    fn shared_words_stand_once() {
        check("we went to the sea", "to the sea and swam", "we went to the sea | and swam");
        check("the sea", "sea shells", "the sea | shells");
        check("one two three", "one two three", "one two three | ");
    }

    #[test]
    fn words_that_nothing_shares_stay() {
        check("we went home", "and then slept", "we went home || and then slept");
        check("", "alone", " || alone");
        check("alone", "", "alone || ");
    }

    #[test]
    fn fragments_at_the_edges_give_way_to_whole_words() {
        check("a long conver", "conversation began", "a long conversation | began");
        check("a long conversation be", "sation began at", "a long conversation began | at");
        check("we saw the moun", "aw the mountains there", "we saw the mountains | there");
        // Cut in two, each side has a part that the other has not.
        check("we saw the big moo", "uh the big moon rise", "we saw the big moon | rise");
    }

    #[test]
    fn a_misheard_word_between_equal_ones_is_taken_from_the_first() {
        check("I bought four new chairs", "for new chairs today", "I bought four new chairs | today");
        check("the color of it", "the colour of it is", "the color of it | is");
    }

    #[test]
    fn the_end_of_a_clip_is_no_end_of_a_sentence() {
        check("I saw the cat.", "The cat sat down.", "I saw the cat | sat down.");
        check("I saw the cat", "The cat. It sat.", "I saw the cat. | It sat.");
        check("he said — yes", "Yes, — he did", "he said — yes, | — he did");
    }

    #[test]
    fn what_is_said_twice_is_dropped_once() {
        check("thank you very much", "very much thank you very much", "thank you very much | thank you very much");
        check("no no no", "no no yes", "no no no | yes");
    }

    #[test]
    fn scripts_without_spaces_are_joined_by_letters() {
        check("我 们 去 海", "去 海 边 吧", "我 们 去 海 | 边 吧");
    }

    #[test]
    fn distances_are_those_of_levenshtein() {
        for (a, b, expected) in [("kitten", "sitting", 3), ("", "abc", 3), ("abc", "abc", 0), ("flaw", "lawn", 2)] {
            assert_eq!((distance(a, b), distance(b, a)), (expected, expected));
        }
    }
}
