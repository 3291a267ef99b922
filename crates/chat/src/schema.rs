//! The part of JSON Schema that tool declarations can say, and how the rest is brought into it.
//!
//! The official template prints some legal schemas badly: a list of types as a Python list, a schema without a type
//! with its braces unbalanced, `anyOf` and `$ref` not at all. [`normalised`] rewrites those and only those, so a
//! schema that the template prints well comes out as the template prints it.

use serde_json::{Map, Value};

/// How many bytes of names and texts references may add to one set of parameters, and one for each value: what they
/// refer to may refer to other things twice, and those again. No prompt has room for as much.
const MAX_COPIED: usize = 1 << 20;

/// How deep in a schema references are followed.
const MAX_DEPTH: usize = 32;

/// The schema of a tool's parameters, rewritten where the official template would print it badly.
///
/// - no `type`: `object` at the top; elsewhere what `properties`, `items` or `enum` imply;
/// - a list of types: the first that isn't `null`, and `nullable` if `null` is among them;
/// - `anyOf`, `oneOf`, `allOf` in a schema without a type: the first alternative that isn't `null`, likewise;
/// - `$ref` into the same schema: what it refers to; inside itself, an object without its properties.
pub fn normalised(parameters: &Value) -> Value {
    let Value::Object(fields) = parameters else { return parameters.clone() };
    let mut out = Flattener { root: parameters, open: vec![fields], left: MAX_COPIED, depth: 0 }.schema(fields);
    if out.get("type").and_then(Value::as_str).unwrap_or_default().is_empty() {
        out.insert("type".into(), "object".into());
    }
    Value::Object(out)
}

/// Rewrites the schemas of one set of parameters.
struct Flattener<'a> {
    root: &'a Value,
    /// What the schema being rewritten and those around it refer to.
    open: Vec<&'a Map<String, Value>>,
    /// What references may still add.
    left: usize,
    /// Schemas around the one being rewritten.
    depth: usize,
}

impl<'a> Flattener<'a> {
    fn schema(&mut self, fields: &Map<String, Value>) -> Map<String, Value> {
        let mut out = fields.clone();
        let open = self.open.len();
        while self.expand(&mut out) {}
        if let Some(Value::Array(kinds)) = out.get("type") {
            let first = kinds.iter().find(|kind| kind.as_str() != Some("null")).or(kinds.first()).cloned();
            let nullable = kinds.len() > 1 && kinds.iter().any(|kind| kind.as_str() == Some("null"));
            out.insert("type".into(), first.unwrap_or_else(|| "string".into()));
            if nullable {
                out.insert("nullable".into(), true.into());
            }
        }
        if let Some(implied) = implied(&out) {
            out.entry("type").or_insert_with(|| implied.into());
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
        self.open.truncate(open);
        out
    }

    /// Replaces one reference or list of alternatives by what it stands for; whether there was one.
    fn expand(&mut self, out: &mut Map<String, Value>) -> bool {
        let target = out.get("$ref").and_then(Value::as_str).and_then(|path| resolve(self.root, path));
        if let Some(target) = target {
            out.shift_remove("$ref");
            self.follow(target, out);
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

    /// Adds what a reference stands for, or only of what type it is: inside itself, very deep, or where it's too much.
    fn follow(&mut self, target: &'a Map<String, Value>, out: &mut Map<String, Value>) {
        let is_open = self.open.iter().any(|open| std::ptr::eq(*open, target));
        let may_follow = !is_open && self.depth < MAX_DEPTH;
        match may_follow.then(|| left_after_fields(target, self.left)).flatten() {
            Some(left) => {
                self.left = left;
                self.open.push(target);
                fill(out, target);
            }
            None => {
                if let Some(kind) = target.get("type").cloned().or_else(|| implied(target).map(Value::from)) {
                    out.entry("type").or_insert(kind);
                }
                if target.contains_key("properties") {
                    out.entry("properties").or_insert_with(|| Map::new().into());
                }
            }
        }
    }
}

/// The type that the other fields imply.
fn implied(fields: &Map<String, Value>) -> Option<&'static str> {
    let strings = |choices: &Value| choices.as_array().is_some_and(|all| all.iter().all(Value::is_string));
    match fields {
        _ if fields.contains_key("properties") => Some("object"),
        _ if fields.contains_key("items") => Some("array"),
        _ if fields.get("enum").is_some_and(strings) => Some("string"),
        _ => None,
    }
}

/// What a copy of the value leaves of `left`, if there's that much.
fn left_after(value: &Value, left: usize) -> Option<usize> {
    match value {
        Value::String(text) => left.checked_sub(1 + text.len()),
        Value::Array(items) => items.iter().try_fold(left.checked_sub(1)?, |left, item| left_after(item, left)),
        Value::Object(fields) => left_after_fields(fields, left),
        Value::Null | Value::Bool(_) | Value::Number(_) => left.checked_sub(1),
    }
}

fn left_after_fields(fields: &Map<String, Value>, left: usize) -> Option<usize> {
    let field = |left: usize, (key, value): (&String, &Value)| left_after(value, left.checked_sub(key.len())?);
    fields.iter().try_fold(left.checked_sub(1)?, field)
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
    fn a_reference_inside_itself_is_an_object_without_its_properties() {
        let parameters = json!({"type": "object", "properties": {"a": {"$ref": "#"}}});
        assert_eq!(normalised(&parameters)["properties"]["a"], json!({"type": "object", "properties": {}}));
        check(
            json!({"$ref": "#/$defs/loop"}),
            json!({"properties": {"again": {"type": "object", "properties": {}}}, "type": "object"}),
        );
        let parameters = json!({"properties": {"a": {"$ref": "#/properties/b"}, "b": {"$ref": "#/properties/a"}}});
        assert_eq!(normalised(&parameters)["properties"], json!({"a": {}, "b": {}}));
    }

    #[test]
    fn every_property_is_flattened_however_many_there_are() {
        let optional = json!({"anyOf": [{"$ref": "#/$defs/d"}, {"type": "null"}]});
        let mut properties = Map::from_iter([("p".to_owned(), json!({"$ref": "#/$defs/tree"}))]);
        properties.extend((0..200).map(|i| (format!("p{i}"), optional.clone())));
        let tree = json!({"properties": {"left": {"$ref": "#/$defs/tree"}, "right": {"$ref": "#/$defs/tree"}}});
        let parameters = json!({"properties": properties, "$defs": {"tree": tree, "d": {"enum": ["a"]}}});
        let flat = normalised(&parameters);
        for i in 0..200 {
            let expected = json!({"enum": ["a"], "nullable": true, "type": "string"});
            assert_eq!(flat["properties"][format!("p{i}")], expected, "p{i}");
        }
    }

    /// Each definition holds the next one twice.
    #[test]
    fn references_that_double_are_followed_only_so_far() {
        let mut parameters = json!({"properties": {"p": {"$ref": "#/$defs/0"}, "q": {"$ref": "#/$defs/40"}}});
        for i in 0..40 {
            let next = json!({"$ref": format!("#/$defs/{}", i + 1)});
            parameters["$defs"][i.to_string()] = json!({"properties": {"a": next, "b": next}});
        }
        parameters["$defs"]["40"] = json!({"type": "integer", "title": "t".repeat(MAX_COPIED)});
        let flat = normalised(&parameters);
        assert!(flat.to_string().len() < 4 * MAX_COPIED);
        assert_eq!(flat["properties"]["q"], json!({"type": "integer"}), "the type is always told");
    }
}
