//! `tojson` and `indent`, whose indents are bounded; the first as Python's `json.dumps(ensure_ascii=False)` writes it,
//! which is what templates are written for.

use minijinja::value::{Kwargs, StringInput};
use minijinja::{Error, ErrorKind, Value};
use serde_json::Value as Json;

use crate::value::number;

/// Largest indent, in spaces: of a wrong number, a single step could make a prompt that no memory holds.
const MAX_INDENT: usize = 64;

fn check_indent(filter: &str, indent: Option<usize>) -> Result<(), Error> {
    let Some(indent) = indent.filter(|&indent| indent > MAX_INDENT) else { return Ok(()) };
    let detail = format!("{filter}({indent}): expected at most {MAX_INDENT}");
    Err(Error::new(ErrorKind::InvalidOperation, detail))
}

/// The engine's own `text | indent(4)`, bounded.
pub(super) fn indent(
    text: StringInput<'_>,
    width: Option<usize>,
    first_line: Option<bool>,
    blank_lines: Option<bool>,
    kwargs: Kwargs,
) -> Result<Value, Error> {
    let asked = if width.is_some() { width } else { kwargs.get("width")? };
    check_indent("indent", asked)?;
    minijinja::filters::indent(text, width, first_line, blank_lines, kwargs)
}

/// The filter: `value | tojson` or `value | tojson(indent=2)`.
pub(super) fn tojson(value: Value, kwargs: Kwargs) -> Result<Value, Error> {
    let indent: Option<usize> = kwargs.get("indent")?;
    check_indent("tojson", indent)?;
    let json = serde_json::to_value(&value)
        .map_err(|e| Error::new(ErrorKind::BadSerialization, "cannot be written as JSON").with_source(e))?;
    let mut out = String::new();
    write(&mut out, &json, indent, 0);
    Ok(Value::from_safe_string(out))
}

fn write(out: &mut String, json: &Json, indent: Option<usize>, depth: usize) {
    let line = |out: &mut String, depth: usize| {
        if let Some(indent) = indent {
            out.push('\n');
            out.push_str(&" ".repeat(indent * depth));
        }
    };
    // With an indent, Python leaves no space at the end of a line.
    let comma = if indent.is_some() { "," } else { ", " };
    match json {
        Json::Number(n) => out.push_str(&number(n)),
        Json::Array(items) if !items.is_empty() => {
            out.push('[');
            for (i, item) in items.iter().enumerate() {
                out.push_str(if i > 0 { comma } else { "" });
                line(out, depth + 1);
                write(out, item, indent, depth + 1);
            }
            line(out, depth);
            out.push(']');
        }
        Json::Object(fields) if !fields.is_empty() => {
            out.push('{');
            for (i, (key, value)) in fields.iter().enumerate() {
                out.push_str(if i > 0 { comma } else { "" });
                line(out, depth + 1);
                out.push_str(&Json::from(key.as_str()).to_string());
                out.push_str(": ");
                write(out, value, indent, depth + 1);
            }
            line(out, depth);
            out.push('}');
        }
        other => out.push_str(&other.to_string()),
    }
}
