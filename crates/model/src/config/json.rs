//! Typed reading of a JSON object whose errors name key, found and expected.

use serde_json::{Map, Value};

use crate::ModelError;
use crate::config::wrong;

/// An object and the path that leads to it.
pub(super) struct Reader<'a> {
    object: &'a Map<String, Value>,
    path: String,
}

impl<'a> Reader<'a> {
    /// Of the root, `path` empty, or of the value at `path`.
    pub fn new(value: &'a Value, path: &str) -> Result<Self, ModelError> {
        let object = value.as_object().ok_or_else(|| wrong(path, short(value), "an object"))?;
        Ok(Reader { object, path: path.into() })
    }

    /// The full name of a key, for messages.
    pub fn name(&self, key: &str) -> String {
        if self.path.is_empty() { key.into() } else { format!("{}.{key}", self.path) }
    }

    /// An error at `key`.
    pub fn wrong(&self, key: &str, expected: &str) -> ModelError {
        let found = self.object.get(key).map_or("absent".into(), short);
        wrong(&self.name(key), found, expected)
    }

    /// The value at `key`; `None` where it is absent or null.
    pub fn get(&self, key: &str) -> Option<&'a Value> {
        self.object.get(key).filter(|v| !v.is_null())
    }

    /// Whether the key is there, null included.
    pub fn contains(&self, key: &str) -> bool {
        self.object.contains_key(key)
    }

    /// Keys and values.
    pub fn entries(&self) -> impl Iterator<Item = (&'a String, &'a Value)> {
        self.object.iter()
    }

    /// The object at `key`.
    pub fn object(&self, key: &str) -> Result<Option<Reader<'a>>, ModelError> {
        self.get(key).map(|v| Reader::new(v, &self.name(key))).transpose()
    }

    /// A count.
    pub fn opt_usize(&self, key: &str) -> Result<Option<usize>, ModelError> {
        let count = |v: &Value| v.as_u64().and_then(|v| usize::try_from(v).ok());
        self.get(key).map(|v| count(v).ok_or_else(|| self.wrong(key, "a count"))).transpose()
    }

    /// A count that must be there.
    pub fn usize(&self, key: &str) -> Result<usize, ModelError> {
        self.opt_usize(key)?.ok_or_else(|| self.wrong(key, "a count"))
    }

    /// A positive number.
    pub fn opt_f32(&self, key: &str) -> Result<Option<f32>, ModelError> {
        let number = |v: &Value| v.as_f64().map(|v| v as f32).filter(|v| v.is_finite() && *v > 0.0);
        self.get(key).map(|v| number(v).ok_or_else(|| self.wrong(key, "a positive number"))).transpose()
    }

    /// A truth value, false where absent.
    pub fn bool(&self, key: &str) -> Result<bool, ModelError> {
        self.get(key).map_or(Ok(false), |v| v.as_bool().ok_or_else(|| self.wrong(key, "true or false")))
    }

    /// A string.
    pub fn opt_str(&self, key: &str) -> Result<Option<&'a str>, ModelError> {
        self.get(key).map(|v| v.as_str().ok_or_else(|| self.wrong(key, "a string"))).transpose()
    }
}

/// A value as it reads in a message.
fn short(value: &Value) -> String {
    let text = value.to_string();
    match text.char_indices().nth(60) {
        Some((at, _)) => format!("{}…", &text[..at]),
        None => text,
    }
}
