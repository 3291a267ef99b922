//! Files to named tensors: mapping, safetensors, GGUF.
//!
//! [`open`] looks at a path and reads a Hugging Face directory or a GGUF file into [`Weights`], named
//! tensors that stay in the mapped file, plus whatever describes them. Reading is strict: sizes are checked
//! arithmetic, tensors may neither overlap nor reach past the file, names are unique UTF-8, and every error
//! names the file, the thing, what was found and what was expected. Nothing here knows a model.
#![deny(unsafe_code)]

pub mod checkpoint;
pub mod error;
mod foreign;
pub mod gguf;
pub mod hf;
pub mod imatrix;
#[allow(unsafe_code, reason = "mapping a file and handling its signal are unsafe; nothing else here is")]
mod mmap;
pub mod safetensors;
pub mod tensors;

pub use checkpoint::{Checkpoint, open};
pub use error::WeightsError;
pub use gguf::GgufFile;
pub use gguf::array::{Array, Strings, ValueType};
pub use gguf::metadata::{Metadata, Value};
pub use gguf::writer::{GgufData, GgufWriter};
pub use hf::HfDir;
pub use imatrix::Importance;
pub use mmap::{MappedFile, exit_on_lost_pages, map_file, release};
pub use tensors::{StoredType, TensorInfo, Weights};
