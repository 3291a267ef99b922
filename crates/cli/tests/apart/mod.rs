//! Hugging Face directories whose weights lie in the file in ways that kernels can't use.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;

use carat_tensor::Bytes;
use carat_weights::safetensors;
use serde_json::{Map, Value, json};

use crate::program::{carat, done};

/// How.
#[derive(Clone, Copy)]
pub enum Layout {
    /// Each expert's matrices by themselves, in BF16.
    OneByOne,
    /// Besides, all of a layer's matrices as integers of 4 bits with a scale for 32 (compressed-tensors).
    Packed,
}

impl Layout {
    pub fn name(self) -> &'static str {
        match self {
            Layout::OneByOne => "experts-one-by-one",
            Layout::Packed => "packed",
        }
    }
}

struct Entry {
    name: String,
    dtype: &'static str,
    shape: Vec<usize>,
    data: Bytes,
}

/// Writes the model in `gguf` to the directory `dir`.
pub fn write(gguf: &Path, dir: &Path, layout: Layout) {
    let arg = |path: &Path| path.to_str().expect("temporary paths are UTF-8").to_owned();
    done(carat(&["convert", &arg(gguf), &arg(dir)]).output().expect("the program starts"));
    let path = dir.join("model.safetensors");
    let mut entries = Vec::new();
    for tensor in safetensors::open_file(&path).expect("the program writes what it reads").iter() {
        let dtype = match tensor.dtype.to_string().as_str() {
            "BF16" => "BF16",
            "F32" => "F32",
            other => panic!("`{}` is {other}", tensor.name),
        };
        entries.extend(one_by_one(Entry {
            name: tensor.name.clone(),
            dtype,
            shape: tensor.shape.clone(),
            data: tensor.data.clone(),
        }));
    }
    if matches!(layout, Layout::Packed) {
        entries = entries.into_iter().flat_map(packed).collect();
        let config = dir.join("config.json");
        let mut value: Value = serde_json::from_slice(&std::fs::read(&config).expect("a config")).expect("JSON");
        value["quantization_config"] = json!({
            "quant_method": "compressed-tensors", "format": "pack-quantized",
            "config_groups": {"group_0": {"weights": {"num_bits": 4, "group_size": 32}}},
        });
        std::fs::write(&config, value.to_string()).expect("disk space");
    }
    let part = dir.join("new");
    save(&part, &entries).expect("disk space");
    std::fs::rename(&part, &path).expect("a writable directory");
}

/// The matrices of each expert, where the entry is those of all experts.
fn one_by_one(entry: Entry) -> Vec<Entry> {
    let Some(stem) = entry.name.strip_suffix("gate_up_proj").or(entry.name.strip_suffix("down_proj")) else {
        return vec![entry];
    };
    let [n, rows, cols] = entry.shape[..] else { return vec![entry] };
    let parts = if entry.name.ends_with("gate_up_proj") { vec!["gate_proj", "up_proj"] } else { vec!["down_proj"] };
    let len = entry.data.len() / n / parts.len();
    let part = |i: usize| Entry {
        name: format!("{stem}{}.{}.weight", i / parts.len(), parts[i % parts.len()]),
        dtype: entry.dtype,
        shape: vec![rows / parts.len(), cols],
        data: entry.data.slice(i * len..(i + 1) * len),
    };
    (0..n * parts.len()).map(part).collect()
}

/// A layer's matrix as any codes with like scales; other tensors as they are.
fn packed(entry: Entry) -> Vec<Entry> {
    let Some(stem) =
        entry.name.strip_suffix(".weight").filter(|stem| stem.ends_with("_proj") && entry.shape.len() == 2)
    else {
        return vec![entry];
    };
    let [rows, cols] = entry.shape[..] else { return vec![entry] };
    if stem.contains("per_layer") || stem.contains("router") {
        return vec![entry];
    }
    let part = |end: &str, dtype, shape: &[usize], data| Entry {
        name: format!("{stem}.weight_{end}"),
        dtype,
        shape: shape.to_vec(),
        data: Bytes::from_vec(data),
    };
    // The bits of numbers are as good as any.
    let codes = entry.data.iter().copied().take(rows * cols / 2).collect();
    // 2^-6 in BF16.
    let scale = 0x3c80_u16.to_le_bytes();
    let noted = [rows as i64, cols as i64].iter().flat_map(|n| n.to_le_bytes()).collect();
    vec![
        part("packed", "I32", &[rows, cols / 8], codes),
        part("scale", "BF16", &[rows, cols / 32], scale.repeat(rows * cols / 32)),
        part("shape", "I64", &[2], noted),
    ]
}

fn save(path: &Path, entries: &[Entry]) -> std::io::Result<()> {
    let (mut header, mut at) = (Map::new(), 0);
    for Entry { name, dtype, shape, data } in entries {
        let range = [at, at + data.len()];
        header.insert(name.clone(), json!({"dtype": dtype, "shape": shape, "data_offsets": range}));
        at += data.len();
    }
    let header = Value::Object(header).to_string();
    let mut file = BufWriter::new(File::create(path)?);
    file.write_all(&(header.len() as u64).to_le_bytes())?;
    file.write_all(header.as_bytes())?;
    entries.iter().try_for_each(|entry| file.write_all(&entry.data))?;
    file.flush()
}
