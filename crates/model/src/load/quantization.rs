//! `quantization_config` of a Hugging Face checkpoint: what can be read, and the facts that shapes don't give.
//!
//! Shapes say how codes and scales lie, so a config whose groups differ from layer to layer needs no care. What it
//! must be asked is whether the weights were changed in ways that can't be seen in them, such as a rotation.
//!
//! Sources: compressed-tensors `quantization/quant_config.py`, transformers `utils/quantization_config.py`.

use serde_json::Value;

use crate::ModelError;
use crate::config::wrong;

const KEY: &str = "quantization_config";
const METHODS: [&str; 3] = ["compressed-tensors", "fp8", "modelopt"];
const FORMATS: [&str; 8] = [
    "dense",
    "pack-quantized",
    "int-quantized",
    "float-quantized",
    "naive-quantized",
    "nvfp4-pack-quantized",
    "mxfp4-pack-quantized",
    "mixed-precision",
];

/// What the config says.
#[derive(Debug, Default)]
pub(super) struct Quantization {
    /// Rows and columns that share a scale, where scales are for blocks.
    block: Option<[usize; 2]>,
    /// Bits and group length of every scheme.
    schemes: Vec<(usize, Option<usize>)>,
}

impl Quantization {
    /// Reads the config of a checkpoint, which may have none.
    ///
    /// # Errors
    /// If it names a method or a transformation that isn't known here.
    pub fn read(config: &Value) -> Result<Self, ModelError> {
        let inner = config.get("text_config").and_then(|text| text.get(KEY));
        let Some(q) = config.get(KEY).or(inner).filter(|q| !q.is_null()) else { return Ok(Quantization::default()) };
        let text = |key: &str| q.get(key).and_then(Value::as_str);
        let method = text("quant_method").unwrap_or("absent");
        if !METHODS.contains(&method) {
            return Err(wrong(&format!("{KEY}.quant_method"), method, format!("one of {}", METHODS.join(", "))));
        }
        if method == "compressed-tensors"
            && let Some(format) = text("format").filter(|format| !FORMATS.contains(format))
        {
            return Err(wrong(&format!("{KEY}.format"), format, format!("one of {}", FORMATS.join(", "))));
        }
        let is_empty = |v: &Value| v.is_null() || v.as_object().is_some_and(serde_json::Map::is_empty);
        if let Some(transform) = q.get("transform_config").filter(|t| !is_empty(t)) {
            let found = transform.to_string().chars().take(60).collect::<String>();
            return Err(wrong(&format!("{KEY}.transform_config"), found, "none: rotated weights are not read"));
        }
        if let Some(sparse) = q.pointer("/sparsity_config/format").and_then(Value::as_str).filter(|f| *f != "dense") {
            return Err(wrong(&format!("{KEY}.sparsity_config.format"), sparse, "dense"));
        }
        let groups = q.get("config_groups").and_then(Value::as_object);
        let weights = || groups.into_iter().flat_map(|g| g.values()).filter_map(|g| g.get("weights"));
        let count = |v: Option<&Value>| v.and_then(Value::as_u64).and_then(|v| usize::try_from(v).ok());
        Ok(Quantization {
            block: pair(q.get("weight_block_size")).or_else(|| weights().find_map(|w| pair(w.get("block_structure")))),
            schemes: weights().filter_map(|w| Some((count(w.get("num_bits"))?, count(w.get("group_size"))))).collect(),
        })
    }

    /// Rows and columns of a matrix that share each of a grid of scales; `None` where they can't be told.
    pub fn steps(&self, matrix: [usize; 2], scales: [usize; 2]) -> Option<[usize; 2]> {
        let blocks = |i: usize| self.block.map(|b| b[i]).filter(|b| *b > 0 && matrix[i].div_ceil(*b) == scales[i]);
        let rows = match scales[0] {
            1 => matrix[0],
            n if n == matrix[0] => 1,
            _ => blocks(0)?,
        };
        let cols = match scales[1] {
            0 => return None,
            1 => matrix[1],
            n => blocks(1).or_else(|| matrix[1].is_multiple_of(n).then(|| matrix[1] / n))?,
        };
        Some([rows, cols])
    }

    /// Packed integers of `bits` with a scale for every `group` of a row of `cols` must be one of the config's schemes.
    pub fn check_group(&self, name: &str, bits: usize, group: usize, cols: usize) -> Result<(), ModelError> {
        // Schemes write the group of a whole row as nothing, 0 or -1, which isn't a count.
        let length = |group: Option<usize>| group.filter(|g| (1..cols).contains(g)).unwrap_or(cols);
        if self.schemes.is_empty() || self.schemes.iter().any(|s| s.0 == bits && length(s.1) == group) {
            return Ok(());
        }
        let text = |bits: usize, group: usize| format!("{bits} bits in groups of {group}");
        let schemes: Vec<_> = self.schemes.iter().map(|s| text(s.0, length(s.1))).collect();
        Err(ModelError::Layout {
            name: name.into(),
            found: text(bits, group),
            expected: format!("{}, as `{KEY}` says", schemes.join(" or ")),
        })
    }
}

/// Two counts, as a list or as `RxC`.
fn pair(value: Option<&Value>) -> Option<[usize; 2]> {
    let value = value?;
    let counts: Vec<usize> = match (value.as_array(), value.as_str()) {
        (Some(list), _) => list.iter().filter_map(|v| v.as_u64().and_then(|v| usize::try_from(v).ok())).collect(),
        (_, Some(text)) => text.split('x').filter_map(|n| n.trim().parse().ok()).collect(),
        _ => return None,
    };
    counts.try_into().ok()
}
