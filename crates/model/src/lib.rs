//! The Gemma 4 model, once: configuration, layer plan, loading, the transformer block, KV cache, memory plan.
//!
//! [`config`] reads what a checkpoint says, [`plan`] resolves every difference between layers, [`load`] finds
//! every tensor, [`decoder`] runs it through a [`carat_tensor::Backend`]; [`encoders`], among them [`vision`] and [`audio`],
//! make soft tokens of pictures and sounds, which [`input`] puts between tokens. Sizes are data: nothing after the plan
//! knows which member of the family it runs. No backend, no text, no sampling here.
#![forbid(unsafe_code)]

pub mod audio;
pub mod config;
pub mod decoder;
pub mod encoders;
pub mod error;
pub mod input;
pub mod kv;
mod layer;
mod linear;
pub mod load;
pub mod memory;
mod moe;
pub mod plan;
mod scratch;
pub mod unified;
pub mod vision;

pub use audio::{AudioTap, AudioTower};
pub use config::{AudioConfig, ModelConfig, VisionConfig};
pub use decoder::{Decoder, DecoderOptions, LogitRows, Step, Tap};
pub use encoders::{PictureConfig, PictureEncoder, SoundEncoder};
pub use error::{BROKEN_WEIGHTS, ModelError};
pub use input::{Piece, SoftKind};
pub use load::LoadReport;
pub use memory::{EncoderPlan, MemoryPlan, memory_plan};
pub use plan::{LayerId, LayerPlan};
pub use vision::{VisionTap, VisionTower};
