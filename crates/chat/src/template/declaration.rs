//! A tool's declaration: `declaration:NAME{description:…,parameters:{…}}`.
//!
//! The order of a property's fields is fixed, absent ones are left out, the type comes last and closes the brace.
//! What the format cannot say (`default`, `minimum`, `format` …) is not written. Schemas that would come out
//! malformed are put right first, by [`crate::schema::normalised`].

use serde_json::{Map, Value};

use super::Prompt;
use crate::message::ToolSpec;
use crate::schema::normalised;
use crate::value::{Keys, sorted, truthy, write_quoted, write_value};

/// Fields of a schema that describe it; in an object without `properties` all others are taken for properties.
const STANDARD_KEYS: [&str; 5] = ["description", "type", "properties", "required", "nullable"];

/// Writes a declaration between its control tokens.
pub(super) fn write(out: &mut Prompt, tool: &ToolSpec) {
    out.push_control("<|tool>");
    out.push_text("declaration:");
    out.push_text(&tool.name);
    out.push_text("{description:");
    write_quoted(out, tool.description.as_deref().unwrap_or_default());
    if truthy(&tool.parameters) {
        write_parameters(out, &normalised(&tool.parameters));
    }
    if let Some(response) = &tool.response {
        out.push_text(",response:{");
        if let Some(description) = response.get("description").filter(|description| truthy(description)) {
            out.push_text("description:");
            write_quoted(out, &plain(description));
            out.push_text(",");
        }
        out.push_text("type:");
        // The template closes the brace for an object only.
        write_quoted(out, "OBJECT");
        out.push_text("}");
    }
    out.push_text("}");
    out.push_control("<tool|>");
}

fn write_parameters(out: &mut Prompt, schema: &Value) {
    out.push_text(",parameters:{");
    if let Some(properties) = schema.get("properties").and_then(Value::as_object).filter(|all| !all.is_empty()) {
        out.push_text("properties:{");
        write_properties(out, properties, |_| true);
        out.push_text("},");
    }
    if let Some(required) = required(schema) {
        write_required(out, required);
        out.push_text(",");
    }
    out.push_text("type:");
    write_quoted(out, &upper(schema.get("type")));
    out.push_text("}");
}

fn write_properties(out: &mut Prompt, properties: &Map<String, Value>, is_property: impl Fn(&str) -> bool) {
    let shown = sorted(properties).into_iter().filter(|(key, _)| is_property(key));
    for (i, (key, schema)) in shown.enumerate() {
        if i > 0 {
            out.push_text(",");
        }
        out.push_text(key);
        out.push_text(":{");
        write_property(out, schema);
        out.push_text("}");
    }
}

fn write_property(out: &mut Prompt, schema: &Value) {
    let kind = upper(schema.get("type"));
    let field = |key| schema.get(key).filter(|value| truthy(value));
    if let Some(description) = field("description") {
        out.push_text("description:");
        write_quoted(out, &plain(description));
        out.push_text(",");
    }
    if let Some(choices) = field("enum").filter(|_| kind == "STRING") {
        out.push_text("enum:");
        write_value(out, choices, Keys::Quoted);
        out.push_text(",");
    }
    if let Some(items) = field("items").and_then(Value::as_object).filter(|_| kind == "ARRAY") {
        out.push_text("items:{");
        write_items(out, items);
        out.push_text("},");
    }
    if field("nullable").is_some() {
        out.push_text("nullable:true,");
    }
    if kind == "OBJECT" {
        out.push_text("properties:{");
        match schema.get("properties").and_then(Value::as_object) {
            Some(properties) => write_properties(out, properties, |_| true),
            None => {
                let fields = schema.as_object();
                fields.into_iter().for_each(|all| write_properties(out, all, |key| !STANDARD_KEYS.contains(&key)));
            }
        }
        out.push_text("},");
        if let Some(required) = required(schema) {
            write_required(out, required);
            out.push_text(",");
        }
    }
    out.push_text("type:");
    write_quoted(out, &kind);
}

fn write_items(out: &mut Prompt, items: &Map<String, Value>) {
    let shown = sorted(items).into_iter().filter(|(_, value)| !value.is_null());
    for (i, (key, value)) in shown.enumerate() {
        if i > 0 {
            out.push_text(",");
        }
        match (key.as_str(), value) {
            ("properties", properties) => {
                out.push_text("properties:{");
                properties.as_object().into_iter().for_each(|all| write_properties(out, all, |_| true));
                out.push_text("}");
            }
            ("required", Value::Array(names)) => write_required(out, names),
            ("type", Value::Array(kinds)) => {
                out.push_text("type:");
                let kinds = kinds.iter().map(|kind| upper(Some(kind)).into()).collect();
                write_value(out, &Value::Array(kinds), Keys::Quoted);
            }
            ("type", kind) => {
                out.push_text("type:");
                write_quoted(out, &upper(Some(kind)));
            }
            (key, value) => {
                out.push_text(key);
                out.push_text(":");
                write_value(out, value, Keys::Quoted);
            }
        }
    }
}

fn required(schema: &Value) -> Option<&Vec<Value>> {
    schema.get("required").and_then(Value::as_array).filter(|names| !names.is_empty())
}

fn write_required(out: &mut Prompt, names: &[Value]) {
    out.push_text("required:[");
    for (i, name) in names.iter().enumerate() {
        if i > 0 {
            out.push_text(",");
        }
        write_quoted(out, &plain(name));
    }
    out.push_text("]");
}

fn upper(kind: Option<&Value>) -> String {
    kind.map(plain).unwrap_or_default().to_uppercase()
}

/// A string's own text; another value as JSON.
fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}
