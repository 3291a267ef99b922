//! Rust text without what isn't code: comments and the insides of literals become spaces, lines stay.
//!
//! Just enough of the lexer for rules that look for words: nested comments, raw strings, and lifetimes told
//! from characters.

/// `text` with comments and literals blanked, line by line as long as before.
pub fn code_of(text: &str) -> String {
    let chars: Vec<char> = text.chars().collect();
    let mut out = String::with_capacity(text.len());
    let mut at = 0;
    while at < chars.len() {
        let end = skip(&chars, at);
        if end == at {
            out.push(chars[at]);
            at += 1;
        } else {
            out.extend(chars[at..end].iter().map(|&c| if c == '\n' { '\n' } else { ' ' }));
            at = end;
        }
    }
    out
}

/// End of the comment or literal that starts at `at`; `at` if none does.
fn skip(chars: &[char], at: usize) -> usize {
    let rest = &chars[at..];
    let word_before = at > 0 && (chars[at - 1].is_alphanumeric() || chars[at - 1] == '_');
    match rest {
        ['/', '/', ..] => at + rest.iter().position(|&c| c == '\n').unwrap_or(rest.len()),
        ['/', '*', ..] => at + block_comment(rest),
        ['"', ..] => at + quoted(rest, '"'),
        ['r', '"' | '#', ..] if !word_before => at + raw_string(rest),
        ['\'', '\\', ..] => at + quoted(rest, '\''),
        ['\'', _, '\'', ..] => at + 3,
        _ => at,
    }
}

fn block_comment(rest: &[char]) -> usize {
    let (mut depth, mut i) = (0, 0);
    while i < rest.len() {
        match rest[i..] {
            ['/', '*', ..] => (depth, i) = (depth + 1, i + 2),
            ['*', '/', ..] => (depth, i) = (depth - 1, i + 2),
            _ => i += 1,
        }
        if depth == 0 {
            return i;
        }
    }
    rest.len()
}

fn quoted(rest: &[char], quote: char) -> usize {
    let mut i = 1;
    while i < rest.len() {
        match rest[i] {
            '\\' => i += 2,
            c if c == quote => return i + 1,
            _ => i += 1,
        }
    }
    rest.len()
}

/// `r"…"`, `r#"…"#`; a raw identifier (`r#type`) is code.
fn raw_string(rest: &[char]) -> usize {
    let hashes = rest[1..].iter().take_while(|&&c| c == '#').count();
    if rest.get(1 + hashes) != Some(&'"') {
        return 0;
    }
    let mut end = vec!['"'];
    end.resize(1 + hashes, '#');
    let inside = &rest[2 + hashes..];
    inside.windows(end.len()).position(|w| w == end).map_or(rest.len(), |i| 2 + hashes + i + end.len())
}

/// Whether `code` has `word` as a word of its own.
pub fn has_word(code: &str, word: &str) -> bool {
    code.split(|c: char| !c.is_alphanumeric() && c != '_').any(|w| w == word)
}

/// `code` up to the unit tests at its foot.
pub fn before_tests(code: &str) -> &str {
    code.split("#[cfg(test)]").next().unwrap_or(code)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, expected: &str) {
        assert_eq!(code_of(text), expected);
    }

    #[test]
    fn comments_are_blanked_and_lines_stay() {
        check("a // b\nc /* d /* e */\n */ f", "a     \nc             \n    f");
    }

    #[test]
    fn strings_are_blanked() {
        check(r#"f("\"a", b)"#, "f(     , b)");
        check("f(r#\"a\" b\"#, c)", "f(         , c)");
        check("r#type", "r#type");
    }

    #[test]
    fn characters_are_told_from_lifetimes() {
        check("f::<'a>('a', '\\'', '\"')", "f::<'a>(   ,     ,    )");
    }

    #[test]
    fn words_are_whole() {
        assert!(has_word("unsafe { x }", "unsafe"));
        assert!(!has_word("deny(unsafe_code)", "unsafe"));
    }
}
