//! GGUF metadata: typed values by key.
//!
//! Scalars are read when the file is opened; arrays stay in the file ([`Array`]). Getters convert between
//! integer widths where the value fits, because writers differ in the width they choose, and their errors name
//! the key, what was found and what was expected.

use std::collections::HashMap;

use carat_tensor::Bytes;

use super::array::{self, Array, Strings, ValueType};
use super::reader::Reader;
use crate::WeightsError;

/// Longest key, as the format defines it.
pub const MAX_KEY_BYTES: u64 = 65_535;
/// Longest single string value; chat templates are some 20 KB.
pub const MAX_STRING_BYTES: u64 = 16 << 20;

/// One value.
#[derive(Clone, Debug)]
pub enum Value {
    /// An integer of any width, with the type it was stored as.
    Int(ValueType, i128),
    /// `f32` or `f64`, with the type it was stored as. An `f32` converts back exactly.
    Float(ValueType, f64),
    /// A truth value.
    Bool(bool),
    /// UTF-8 text.
    Str(String),
    /// Values of one type, still in the file.
    Array(Array),
}

impl Value {
    /// Type, and value where it is short, for messages.
    fn describe(&self) -> String {
        match self {
            Value::Int(ty, v) => format!("{} {v}", ty.name()),
            Value::Float(ValueType::F32, v) => format!("f32 {}", *v as f32),
            Value::Float(ty, v) => format!("{} {v}", ty.name()),
            Value::Bool(v) => format!("bool {v}"),
            Value::Str(v) if v.len() <= 80 => format!("string {v:?}"),
            Value::Str(v) => format!("a string of {} bytes", v.len()),
            Value::Array(a) => format!("an array of {} {}", a.len(), a.element().name()),
        }
    }
}

/// All values of a file, in its order.
#[derive(Clone, Debug)]
pub struct Metadata {
    file: String,
    entries: Vec<(String, Value)>,
    by_key: HashMap<String, usize>,
}

impl Metadata {
    /// Reads `count` entries at the reader's position. `bytes` are the reader's, shared.
    pub(crate) fn read(r: &mut Reader<'_>, bytes: &Bytes, count: u64) -> Result<Self, WeightsError> {
        let mut this = Metadata { file: r.file.into(), entries: Vec::new(), by_key: HashMap::new() };
        for index in 0..count {
            let key = r.string(MAX_KEY_BYTES, &|| format!("metadata key {index}"))?;
            let ty = array::value_type(r, key)?;
            let value = value(r, bytes, key, ty)?;
            if this.by_key.insert(key.into(), this.entries.len()).is_some() {
                return Err(WeightsError::Malformed {
                    file: r.file.into(),
                    what: format!("metadata key `{key}`"),
                    found: "it twice".into(),
                    expected: "unique keys".into(),
                });
            }
            this.entries.push((key.into(), value));
        }
        Ok(this)
    }

    /// The value of `key`.
    pub fn get(&self, key: &str) -> Option<&Value> {
        self.by_key.get(key).map(|&index| &self.entries[index].1)
    }

    /// Whether `key` exists.
    pub fn contains(&self, key: &str) -> bool {
        self.by_key.contains_key(key)
    }

    /// Keys and values, in the file's order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&str, &Value)> {
        self.entries.iter().map(|(key, value)| (key.as_str(), value))
    }

    /// The file's name, for messages.
    pub fn file(&self) -> &str {
        &self.file
    }

    /// What `pick` makes of `key`'s value, or the error that it isn't `expected`; `None` without the key.
    fn optional<'a, T>(
        &'a self,
        key: &str,
        expected: &str,
        pick: impl FnOnce(&'a Value) -> Option<T>,
    ) -> Result<Option<T>, WeightsError> {
        let Some(value) = self.get(key) else { return Ok(None) };
        pick(value).map(Some).ok_or_else(|| self.wrong(key, value, expected))
    }

    fn wrong(&self, key: &str, value: &Value, expected: &str) -> WeightsError {
        WeightsError::WrongValue {
            file: self.file.clone(),
            key: key.into(),
            found: value.describe(),
            expected: expected.into(),
        }
    }

    /// `value`, or the error that `key` is missing.
    fn required<T>(&self, key: &str, expected: &str, value: Option<T>) -> Result<T, WeightsError> {
        value.ok_or_else(|| WeightsError::MissingKey {
            file: self.file.clone(),
            key: key.into(),
            expected: expected.into(),
        })
    }

    /// The string at `key`.
    pub fn str(&self, key: &str) -> Result<&str, WeightsError> {
        self.required(key, "a string", self.opt_str(key)?)
    }

    /// The string at `key`, if there.
    pub fn opt_str(&self, key: &str) -> Result<Option<&str>, WeightsError> {
        self.optional(key, "a string", |v| if let Value::Str(s) = v { Some(s.as_str()) } else { None })
    }

    /// The integer at `key`, of any stored width.
    pub fn u32(&self, key: &str) -> Result<u32, WeightsError> {
        self.required(key, "a u32", self.opt_u32(key)?)
    }

    /// The integer at `key`, if there.
    pub fn opt_u32(&self, key: &str) -> Result<Option<u32>, WeightsError> {
        self.optional(key, "a u32", as_u32)
    }

    /// The integer at `key`, of any stored width, if it is there.
    pub fn opt_i64(&self, key: &str) -> Result<Option<i64>, WeightsError> {
        self.optional(key, "an integer", |v| if let Value::Int(_, i) = v { i64::try_from(*i).ok() } else { None })
    }

    /// The float at `key`.
    pub fn f32(&self, key: &str) -> Result<f32, WeightsError> {
        self.required(key, "an f32", self.opt_f32(key)?)
    }

    /// The float at `key`, if there.
    pub fn opt_f32(&self, key: &str) -> Result<Option<f32>, WeightsError> {
        self.optional(key, "an f32", |v| if let Value::Float(_, f) = v { Some(*f as f32) } else { None })
    }

    /// The truth value at `key`.
    pub fn bool(&self, key: &str) -> Result<bool, WeightsError> {
        self.required(key, "a bool", self.opt_bool(key)?)
    }

    /// The truth value at `key`, if there.
    pub fn opt_bool(&self, key: &str) -> Result<Option<bool>, WeightsError> {
        self.optional(key, "a bool", |v| if let Value::Bool(b) = v { Some(*b) } else { None })
    }

    /// The array at `key`.
    pub fn array(&self, key: &str) -> Result<&Array, WeightsError> {
        self.required(key, "an array", self.opt_array(key)?)
    }

    /// The array at `key`, if there.
    pub fn opt_array(&self, key: &str) -> Result<Option<&Array>, WeightsError> {
        self.optional(key, "an array", |v| if let Value::Array(a) = v { Some(a) } else { None })
    }

    /// The strings of the array at `key`, as bytes in the file: not checked to be UTF-8.
    pub fn strings(&self, key: &str) -> Result<Strings<'_>, WeightsError> {
        let strings = self.optional(key, "an array of strings", |v| match v {
            Value::Array(a) if a.element() == ValueType::Str => Some(a.strings()),
            _ => None,
        })?;
        self.required(key, "an array of strings", strings)
    }

    /// The integers of the array at `key`.
    pub fn u32s(&self, key: &str) -> Result<Vec<u32>, WeightsError> {
        self.required(key, "an array of u32", self.opt_u32s(key)?)
    }

    /// The integers of the array at `key`, if there.
    pub fn opt_u32s(&self, key: &str) -> Result<Option<Vec<u32>>, WeightsError> {
        self.optional(key, "an array of u32", |v| match v {
            Value::Array(a) => a.ints()?.map(|i| u32::try_from(i).ok()).collect(),
            _ => None,
        })
    }

    /// The integers of the array at `key`.
    pub fn i32s(&self, key: &str) -> Result<Vec<i32>, WeightsError> {
        let ints = self.optional(key, "an array of i32", |v| match v {
            Value::Array(a) => a.ints()?.map(|i| i32::try_from(i).ok()).collect(),
            _ => None,
        })?;
        self.required(key, "an array of i32", ints)
    }

    /// The floats of the array at `key`.
    pub fn f32s(&self, key: &str) -> Result<Vec<f32>, WeightsError> {
        let floats = self.optional(key, "an array of f32", |v| match v {
            Value::Array(a) => Some(a.floats()?.map(|f| f as f32).collect()),
            _ => None,
        })?;
        self.required(key, "an array of f32", floats)
    }

    /// The truth values of the array at `key`.
    pub fn bools(&self, key: &str) -> Result<Vec<bool>, WeightsError> {
        let bools = self.optional(key, "an array of bool", |v| match v {
            Value::Array(a) => Some(a.bools()?.collect()),
            _ => None,
        })?;
        self.required(key, "an array of bool", bools)
    }

    /// `n` integers: an array of exactly `n`, or one integer that holds for all.
    pub fn u32_each(&self, key: &str, n: usize) -> Result<Vec<u32>, WeightsError> {
        let expected = format!("a u32 or an array of {n}");
        let values = self.optional(key, &expected, |v| match v {
            Value::Array(a) if a.len() == n => a.ints()?.map(|i| u32::try_from(i).ok()).collect(),
            Value::Array(_) => None,
            one => as_u32(one).map(|one| vec![one; n]),
        })?;
        self.required(key, &expected, values)
    }
}

/// An integer value that fits.
fn as_u32(value: &Value) -> Option<u32> {
    if let Value::Int(_, i) = value { u32::try_from(*i).ok() } else { None }
}

/// Reads `key`'s value of type `ty`.
fn value(r: &mut Reader<'_>, bytes: &Bytes, key: &str, ty: ValueType) -> Result<Value, WeightsError> {
    let what = || format!("the value of metadata key `{key}`");
    Ok(match (ty, ty.size()) {
        (ValueType::Str, _) => Value::Str(r.string(MAX_STRING_BYTES, &what)?.into()),
        (ValueType::Array, _) => Value::Array(array::read(r, bytes, key)?),
        (ValueType::Bool, _) => match r.array::<1>(&what)? {
            [0] => Value::Bool(false),
            [1] => Value::Bool(true),
            [other] => {
                return Err(WeightsError::WrongValue {
                    file: r.file.into(),
                    key: key.into(),
                    found: format!("byte {other}"),
                    expected: "a bool, 0 or 1".into(),
                });
            }
        },
        (ValueType::F32 | ValueType::F64, size) => {
            Value::Float(ty, array::float(ty, r.take(size.unwrap_or(0), &what)?))
        }
        (_, size) => Value::Int(ty, array::int(ty, r.take(size.unwrap_or(0), &what)?)),
    })
}
