//! The text of one tool call: `call:NAME{key:value,…}`.
//!
//! A value is a string between quote tokens (anything inside is literal), a number, `true`, `false`, `null`,
//! `{…}`, `[…]`, or, outside the grammar, bare text, which becomes a string. What models get wrong is repaired and
//! said: a missing `call:`, missing braces, brackets, commas or colons, JSON strings, a whole JSON object instead of
//! a call. The reader always moves on, so any input ends.

use std::collections::BTreeSet;

use serde_json::{Map, Number, Value};

/// Values nested deeper are kept as text.
const MAX_DEPTH: usize = 64;

/// A character of a call, or the token that quotes strings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Symbol {
    Quote,
    Char(char),
}

pub(super) struct Parsed {
    pub name: String,
    pub arguments: Map<String, Value>,
    /// What was wrong; each thing once.
    pub repairs: Vec<&'static str>,
}

/// Reads a call. `None` if it has no name.
pub(super) fn parse(symbols: &[Symbol]) -> Option<Parsed> {
    let mut reader = Reader { symbols, at: 0, depth: 0, arrays: 0, repairs: BTreeSet::new() };
    let (name, braced) = reader.name()?;
    let mut arguments = reader.object(braced);
    reader.skip_white();
    if reader.peek().is_some() {
        reader.repairs.insert("ignored text after its end");
    }
    let mut name = name;
    if name.is_empty() {
        reader.repairs.insert("a JSON object instead of a call");
        (name, arguments) = from_json(arguments)?;
    }
    Some(Parsed { name, arguments, repairs: reader.repairs.into_iter().collect() })
}

/// The symbols as a person would type them.
pub(super) fn as_text(symbols: &[Symbol]) -> String {
    symbols.iter().map(|symbol| if let Symbol::Char(c) = symbol { *c } else { '"' }).collect()
}

/// `{"name": …, "arguments": {…}}`, as other models call.
fn from_json(mut fields: Map<String, Value>) -> Option<(String, Map<String, Value>)> {
    let Some(Value::String(name)) = fields.shift_remove("name") else { return None };
    let arguments = fields.shift_remove("arguments").or_else(|| fields.shift_remove("parameters"));
    match arguments {
        Some(Value::Object(arguments)) => Some((name, arguments)),
        Some(Value::String(text)) => Some((name, serde_json::from_str(&text).ok()?)),
        Some(_) => None,
        None => Some((name, Map::new())),
    }
    .filter(|(name, _)| !name.is_empty())
}

struct Reader<'a> {
    symbols: &'a [Symbol],
    at: usize,
    depth: usize,
    /// Arrays around the current place.
    arrays: usize,
    repairs: BTreeSet<&'static str>,
}

impl Reader<'_> {
    fn peek(&self) -> Option<Symbol> {
        self.symbols.get(self.at).copied()
    }

    fn peek_char(&self) -> Option<char> {
        if let Some(Symbol::Char(c)) = self.peek() { Some(c) } else { None }
    }

    fn skip_white(&mut self) {
        while self.peek_char().is_some_and(char::is_whitespace) {
            self.at += 1;
        }
    }

    fn skip_commas(&mut self) {
        while self.peek_char().is_some_and(|c| c.is_whitespace() || c == ',') {
            self.at += 1;
        }
    }

    /// The characters up to a quote, the end, or one that `stops`.
    fn until(&mut self, stops: impl Fn(char) -> bool) -> String {
        let mut text = String::new();
        while let Some(c) = self.peek_char().filter(|&c| !stops(c)) {
            text.push(c);
            self.at += 1;
        }
        text
    }

    /// Reads the name and the brace after it, if there is one. An empty name with a brace is a JSON object.
    fn name(&mut self) -> Option<(String, bool)> {
        self.skip_white();
        let prefix = self.symbols[self.at..].iter().zip("call:".chars()).take_while(|(a, b)| **a == Symbol::Char(*b));
        match prefix.count() {
            5 => self.at += 5,
            _ => {
                self.repairs.insert("missing `call:`");
            }
        }
        let start = self.at;
        let text = self.until(|c| c == '{');
        let name = text.trim();
        // `f a:{b:1}` has lost its outer braces; `my tool{…}` has an odd name.
        let pairs_before_brace = name.split_once(char::is_whitespace).is_some_and(|(_, rest)| rest.contains(':'));
        if self.peek_char() == Some('{') && !pairs_before_brace {
            self.at += 1;
            return Some((name.to_owned(), true));
        }
        self.repairs.insert("missing braces");
        let cut = name.find(char::is_whitespace).or_else(|| name.find(':')).unwrap_or(name.len());
        let name = &name[..cut];
        if name.is_empty() {
            return None;
        }
        let white = text.len() - text.trim_start().len();
        self.at = start + text[..white].chars().count() + name.chars().count();
        if self.peek_char().is_some_and(|c| c == ':') {
            self.at += 1;
        }
        Some((name.to_owned(), false))
    }

    /// Reads pairs up to the closing brace, or to the end if there is no opening one.
    fn object(&mut self, braced: bool) -> Map<String, Value> {
        let mut fields = Map::new();
        loop {
            self.skip_commas();
            match self.peek_char() {
                Some('}') => {
                    self.at += 1;
                    if braced {
                        return fields;
                    }
                    continue;
                }
                Some(']') => {
                    self.repairs.insert("misplaced `]`");
                    if self.arrays > 0 {
                        return fields;
                    }
                    self.at += 1;
                    continue;
                }
                None if self.peek().is_none() => {
                    if braced {
                        self.repairs.insert("missing `}`");
                    }
                    return fields;
                }
                _ => {}
            }
            let key = self.key();
            self.skip_white();
            let value = match self.peek_char() {
                Some(':') => {
                    self.at += 1;
                    self.value()
                }
                Some('{' | '[') => {
                    self.repairs.insert("missing `:`");
                    self.value()
                }
                None if self.peek() == Some(Symbol::Quote) => {
                    self.repairs.insert("missing `:`");
                    self.value()
                }
                _ => {
                    self.repairs.insert("a key without a value");
                    Value::Null
                }
            };
            fields.insert(key, value);
            self.separator();
        }
    }

    fn array(&mut self) -> Vec<Value> {
        let mut items = Vec::new();
        loop {
            self.skip_commas();
            match self.peek() {
                Some(Symbol::Char(']')) => {
                    self.at += 1;
                    return items;
                }
                None | Some(Symbol::Char('}')) => {
                    self.repairs.insert("missing `]`");
                    return items;
                }
                _ => {}
            }
            items.push(self.value());
            self.separator();
        }
    }

    fn separator(&mut self) {
        self.skip_white();
        if !matches!(self.peek(), None | Some(Symbol::Char(',' | '}' | ']'))) {
            self.repairs.insert("missing `,`");
        }
    }

    fn key(&mut self) -> String {
        if self.peek() == Some(Symbol::Quote) {
            return self.quoted();
        }
        match self.json_string() {
            Some(key) => key,
            None => self.until(|c| matches!(c, ':' | ',' | '{' | '}' | '[' | ']')).trim().to_owned(),
        }
    }

    fn value(&mut self) -> Value {
        self.skip_white();
        match self.peek() {
            Some(Symbol::Quote) => Value::String(self.quoted()),
            None | Some(Symbol::Char(',' | '}' | ']')) => {
                self.repairs.insert("a missing value");
                Value::Null
            }
            Some(Symbol::Char(open @ ('{' | '['))) if self.depth < MAX_DEPTH => {
                self.at += 1;
                self.depth += 1;
                let value = if open == '{' {
                    Value::Object(self.object(true))
                } else {
                    self.arrays += 1;
                    let items = self.array();
                    self.arrays -= 1;
                    Value::Array(items)
                };
                self.depth -= 1;
                value
            }
            Some(Symbol::Char(_)) => match self.json_string() {
                Some(text) => Value::String(text),
                None => self.bare(),
            },
        }
    }

    /// A string between quote tokens.
    fn quoted(&mut self) -> String {
        self.at += 1;
        let text = self.until(|_| false);
        match self.peek() {
            Some(_) => self.at += 1,
            None => {
                self.repairs.insert("a string without an end");
            }
        }
        text
    }

    /// A JSON string, if there is one here and nothing but a delimiter follows it.
    fn json_string(&mut self) -> Option<String> {
        if self.peek_char() != Some('"') {
            return None;
        }
        let start = self.at;
        let mut json = String::from('"');
        loop {
            self.at += 1;
            match self.peek_char() {
                Some('\\') => {
                    json.push('\\');
                    self.at += 1;
                    let Some(c) = self.peek_char() else { break };
                    json.push(c);
                }
                Some('"') => {
                    json.push('"');
                    self.at += 1;
                    break;
                }
                Some(c) if c < ' ' => json.push_str(&format!("\\u{:04x}", c as u32)),
                Some(c) => json.push(c),
                None => break,
            }
        }
        let rest = self.symbols[self.at..].iter().find(|s| !matches!(s, Symbol::Char(c) if c.is_whitespace()));
        let delimited = matches!(rest, None | Some(Symbol::Char(',' | ':' | '}' | ']')));
        match serde_json::from_str(&json) {
            Ok(text) if delimited => {
                self.repairs.insert("JSON strings");
                Some(text)
            }
            _ => {
                self.at = start;
                None
            }
        }
    }

    /// Text without quotes up to a delimiter outside any bracket of its own.
    fn bare(&mut self) -> Value {
        let mut text = String::new();
        let mut open = 0_usize;
        while let Some(c) = self.peek_char() {
            match c {
                ',' | '}' | ']' if open == 0 => break,
                '{' | '[' => open += 1,
                '}' | ']' => open -= 1,
                _ => {}
            }
            text.push(c);
            self.at += 1;
        }
        match text.trim() {
            "true" => Value::Bool(true),
            "false" => Value::Bool(false),
            "null" => Value::Null,
            text => match serde_json::from_str::<Number>(text) {
                Ok(number) => Value::Number(number),
                Err(_) => {
                    self.repairs.insert("text without quotes");
                    Value::String(text.to_owned())
                }
            },
        }
    }
}
