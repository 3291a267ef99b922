//! Run Gemma 4 models: the library that programs depend on.
//!
//! From logits to an answer: sampling, stop rules, the guard against endless repetition.
#![forbid(unsafe_code)]

pub mod defaults;
pub mod host;
pub mod loop_guard;
pub mod rng;
pub mod sampler;
pub mod stop;
pub mod thinking;

pub use defaults::GenerationDefaults;
pub use sampler::{Sampler, SamplingError, SamplingOptions};
