//! JSON values as Gemma's chat format writes them: strings between `<|"|>`, keys bare or quoted, objects sorted,
//! numbers as Python prints them.

use serde_json::{Map, Number, Value};

use crate::template::Prompt;

/// How the keys of objects are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Keys {
    /// In calls and responses.
    Bare,
    /// In declarations.
    Quoted,
}

/// Appends a value.
pub(crate) fn write_value(out: &mut Prompt, value: &Value, keys: Keys) {
    match value {
        Value::Null => out.push_text("null"),
        Value::Bool(b) => out.push_text(if *b { "true" } else { "false" }),
        Value::Number(n) => out.push_text(&number(n)),
        Value::String(s) => write_quoted(out, s),
        Value::Array(items) => {
            out.push_text("[");
            for (i, item) in items.iter().enumerate() {
                if i > 0 {
                    out.push_text(",");
                }
                write_value(out, item, keys);
            }
            out.push_text("]");
        }
        Value::Object(fields) => {
            out.push_text("{");
            write_fields(out, fields, keys);
            out.push_text("}");
        }
    }
}

/// Appends `k:v,k:v`, sorted, without braces.
pub(crate) fn write_fields(out: &mut Prompt, fields: &Map<String, Value>, keys: Keys) {
    for (i, (key, value)) in sorted(fields).into_iter().enumerate() {
        if i > 0 {
            out.push_text(",");
        }
        match keys {
            Keys::Bare => out.push_text(key),
            Keys::Quoted => write_quoted(out, key),
        }
        out.push_text(":");
        write_value(out, value, keys);
    }
}

/// Appends a string between quote tokens; nothing is escaped.
pub(crate) fn write_quoted(out: &mut Prompt, text: &str) {
    out.push_control("<|\"|>");
    out.push_text(text);
    out.push_control("<|\"|>");
}

/// The fields as Jinja's `dictsort` orders them: by lower-cased key, equal ones in the order given.
pub(crate) fn sorted(fields: &Map<String, Value>) -> Vec<(&String, &Value)> {
    let mut fields: Vec<_> = fields.iter().map(|(key, value)| (key.to_lowercase(), key, value)).collect();
    fields.sort_by(|a, b| a.0.cmp(&b.0));
    fields.into_iter().map(|(_, key, value)| (key, value)).collect()
}

/// Whether Python would take the value for true.
pub(crate) fn truthy(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Bool(b) => *b,
        Value::Number(n) => n.as_f64() != Some(0.0),
        Value::String(s) => !s.is_empty(),
        Value::Array(items) => !items.is_empty(),
        Value::Object(fields) => !fields.is_empty(),
    }
}

/// A number as Python prints it. A whole number beyond 64 bits has already become a float when it was read.
pub(crate) fn number(n: &Number) -> String {
    match n.as_f64() {
        Some(x) if n.is_f64() => float(x),
        _ => n.to_string(),
    }
}

/// A float as Python's `repr`: the fewest digits that read back equal, an exponent below 1e-4 and from 1e16 on.
pub(crate) fn float(x: f64) -> String {
    if !x.is_finite() {
        return if x.is_nan() {
            "nan"
        } else if x > 0.0 {
            "inf"
        } else {
            "-inf"
        }
        .to_owned();
    }
    let scientific = format!("{x:e}");
    let Some((digits, exponent)) = scientific.split_once('e') else { return scientific };
    match exponent.parse::<i32>() {
        Ok(exponent) if !(-4..16).contains(&exponent) => {
            let sign = if exponent < 0 { '-' } else { '+' };
            format!("{digits}e{sign}{:02}", exponent.unsigned_abs())
        }
        _ => format!("{x:?}"),
    }
}

/// Python's `str.strip`: Unicode white space and the four separators U+001C to U+001F.
pub(crate) fn strip(text: &str) -> &str {
    text.trim_matches(|c: char| c.is_whitespace() || ('\u{1c}'..='\u{1f}').contains(&c))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn floats_print_as_in_python() {
        // Printed by CPython's `repr`.
        for (x, expected) in [
            (0.0, "0.0"),
            (-0.0, "-0.0"),
            (1.0, "1.0"),
            (0.1, "0.1"),
            (1.5, "1.5"),
            (-2.25, "-2.25"),
            (1e-4, "0.0001"),
            (1e-5, "1e-05"),
            (1.5e-5, "1.5e-05"),
            (1e15, "1000000000000000.0"),
            (123456789012345680.0, "1.2345678901234568e+17"),
            (1e16, "1e+16"),
            (9007199254740993.0, "9007199254740992.0"),
            (1e22, "1e+22"),
            (1e100, "1e+100"),
            (5e-324, "5e-324"),
            (f64::MAX, "1.7976931348623157e+308"),
            (0.1 + 0.2, "0.30000000000000004"),
        ] {
            assert_eq!(float(x), expected);
        }
    }

    #[test]
    fn keys_are_sorted_without_regard_to_case_and_ties_stay() {
        let fields: Map<String, Value> = serde_json::from_str(r#"{"b":0,"A":1,"a":2,"_":3,"Ä":4,"B":5}"#).unwrap();
        let keys: Vec<_> = sorted(&fields).into_iter().map(|(key, _)| key.as_str()).collect();
        assert_eq!(keys, ["_", "A", "a", "b", "B", "Ä"]);
    }
}
