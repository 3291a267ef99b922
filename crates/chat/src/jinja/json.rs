//! `tojson` as Python's `json.dumps(ensure_ascii=False)` writes it, which is what templates are written for.

use minijinja::value::Kwargs;
use minijinja::{Error, ErrorKind, Value};
use serde_json::Value as Json;

use crate::value::number;

/// Largest indent, in spaces: of more, a short template could make a prompt that no memory holds.
const MAX_INDENT: usize = 16;

/// The filter: `value | tojson` or `value | tojson(indent=2)`.
pub(super) fn tojson(value: Value, kwargs: Kwargs) -> Result<Value, Error> {
    let indent: Option<usize> = kwargs.get("indent")?;
    if let Some(indent) = indent.filter(|&indent| indent > MAX_INDENT) {
        let detail = format!("tojson(indent={indent}): expected at most {MAX_INDENT}");
        return Err(Error::new(ErrorKind::InvalidOperation, detail));
    }
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
