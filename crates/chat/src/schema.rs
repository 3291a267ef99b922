//! The part of JSON Schema that tool declarations can say, and how the rest is brought into it.
//!
//! The official template prints some legal schemas badly: a list of types as a Python list, a schema without a type
//! with its braces unbalanced, `anyOf` and `$ref` not at all. [`normalised`] rewrites those and only those, so a
//! schema that the template prints well comes out as the template prints it.

use serde_json::{Map, Value};

/// How many references and alternatives are followed in one schema: they may run in circles, and through several
/// properties at once.
const MAX_EXPANSIONS: usize = 32;

/// How deep in a schema they are followed: what a reference stands for may contain it again, further down each time.
const MAX_EXPANDED_DEPTH: usize = 32;

/// The schema of a tool's parameters, rewritten where the official template would print it badly.
///
/// - no `type`: `object` at the top; elsewhere what `properties`, `items` or `enum` imply;
/// - a list of types: the first that isn't `null`, and `nullable` if `null` is among them;
/// - `anyOf`, `oneOf`, `allOf` in a schema without a type: the first alternative that isn't `null`, likewise;
/// - `$ref` into the same schema: what it refers to.
pub fn normalised(parameters: &Value) -> Value {
    let Value::Object(fields) = parameters else { return parameters.clone() };
    let mut out = Flattener { root: parameters, left: MAX_EXPANSIONS, depth: 0 }.schema(fields);
    if out.get("type").and_then(Value::as_str).unwrap_or_default().is_empty() {
        out.insert("type".into(), "object".into());
    }
    Value::Object(out)
}

/// Rewrites the schemas of one set of parameters.
struct Flattener<'a> {
    root: &'a Value,
    /// Expansions that may still be made.
    left: usize,
    /// Schemas around the one being rewritten.
    depth: usize,
}

impl Flattener<'_> {
    fn schema(&mut self, fields: &Map<String, Value>) -> Map<String, Value> {
        let mut out = fields.clone();
        while self.left > 0 && self.depth < MAX_EXPANDED_DEPTH && self.expand(&mut out) {
            self.left -= 1;
        }
        if let Some(Value::Array(kinds)) = out.get("type") {
            let first = kinds.iter().find(|kind| kind.as_str() != Some("null")).or(kinds.first()).cloned();
            let nullable = kinds.len() > 1 && kinds.iter().any(|kind| kind.as_str() == Some("null"));
            out.insert("type".into(), first.unwrap_or_else(|| "string".into()));
            if nullable {
                out.insert("nullable".into(), true.into());
            }
        }
        if !out.contains_key("type") {
            let strings = |choices: &Value| choices.as_array().is_some_and(|all| all.iter().all(Value::is_string));
            let implied = if out.contains_key("properties") {
                Some("object")
            } else if out.contains_key("items") {
                Some("array")
            } else if out.get("enum").is_some_and(strings) {
                Some("string")
            } else {
                None
            };
            if let Some(implied) = implied {
                out.insert("type".into(), implied.into());
            }
        }
        self.depth += 1;
        if let Some(Value::Object(properties)) = out.get_mut("properties") {
            for value in properties.values_mut() {
                if let Value::Object(fields) = value {
                    *value = Value::Object(self.schema(fields));
                }
            }
        }
        if let Some(Value::Object(items)) = out.get_mut("items") {
            // The template prints a list of types well here.
            let kind = items.get("type").filter(|kind| kind.is_array()).cloned();
            let had_nullable = items.contains_key("nullable");
            let mut fixed = self.schema(items);
            if let Some(kind) = kind {
                fixed.insert("type".into(), kind);
                if !had_nullable {
                    fixed.shift_remove("nullable");
                }
            }
            *items = fixed;
        }
        self.depth -= 1;
        out
    }

    /// Replaces one reference or list of alternatives by what it stands for; whether there was one.
    fn expand(&self, out: &mut Map<String, Value>) -> bool {
        let target = out.get("$ref").and_then(Value::as_str).and_then(|path| resolve(self.root, path));
        if let Some(target) = target {
            out.shift_remove("$ref");
            fill(out, target);
            return true;
        }
        if out.contains_key("type") {
            return false;
        }
        let is_null = |value: &&Value| value.get("type").and_then(Value::as_str) == Some("null");
        for key in ["anyOf", "oneOf", "allOf"] {
            let Some(alternatives) = out.get(key).and_then(Value::as_array) else { continue };
            let nullable = alternatives.iter().any(|value| is_null(&value));
            let first = alternatives.iter().find(|value| !is_null(value)).and_then(Value::as_object).cloned();
            if let Some(first) = first {
                out.shift_remove(key);
                fill(out, &first);
                if nullable {
                    out.insert("nullable".into(), true.into());
                }
                return true;
            }
        }
        false
    }
}

/// Adds the fields of `from` that `out` lacks.
fn fill(out: &mut Map<String, Value>, from: &Map<String, Value>) {
    for (key, value) in from {
        out.entry(key.as_str()).or_insert_with(|| value.clone());
    }
}

fn resolve<'a>(root: &'a Value, path: &str) -> Option<&'a Map<String, Value>> {
    root.pointer(path.strip_prefix('#')?)?.as_object()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[track_caller]
    fn check(property: Value, expected: Value) {
        let parameters = json!({"type": "object", "properties": {"p": property},
            "$defs": {"d": {"type": "integer"}, "loop": {"properties": {"again": {"$ref": "#/$defs/loop"}}}}});
        assert_eq!(normalised(&parameters)["properties"]["p"], expected);
    }

    #[test]
    fn a_schema_that_prints_well_is_left_alone() {
        let fine = json!({"type": "object", "properties": {"a": {"type": "array", "items": {"type": ["string", "null"]}},
            "b": {"type": "object", "additionalProperties": false}}, "required": ["a"]});
        assert_eq!(normalised(&fine), fine);
    }

    #[test]
    fn a_missing_type_is_object_at_the_top_and_implied_below() {
        assert_eq!(normalised(&json!({"properties": {}}))["type"], "object");
        check(json!({"enum": ["a"]}), json!({"enum": ["a"], "type": "string"}));
        check(json!({"items": {}}), json!({"items": {}, "type": "array"}));
        check(json!({"description": "d"}), json!({"description": "d"}));
    }

    #[test]
    fn a_list_of_types_becomes_one_type_that_may_be_null() {
        check(json!({"type": ["string", "null"]}), json!({"type": "string", "nullable": true}));
        check(json!({"type": ["integer", "string"]}), json!({"type": "integer"}));
        check(json!({"type": ["null"]}), json!({"type": "null"}));
    }

    #[test]
    fn alternatives_and_references_are_flattened() {
        check(json!({"anyOf": [{"type": "null"}, {"type": "string"}]}), json!({"type": "string", "nullable": true}));
        check(json!({"$ref": "#/$defs/d"}), json!({"type": "integer"}));
        check(json!({"$ref": "#/nowhere"}), json!({"$ref": "#/nowhere"}));
    }

    #[test]
    fn a_schema_that_refers_to_itself_ends() {
        let parameters = json!({"type": "object", "properties": {"a": {"$ref": "#"}, "b": {"$ref": "#"}}});
        assert_eq!(normalised(&parameters)["properties"]["a"]["type"], "object");
    }
}
