//! Run Gemma 4 models: the library that programs depend on.
//!
//! [`Session`] is the way in: messages go in, events come out. [`ModelSource`] says which model, [`loading`] makes a
//! decoder of it after counting the memory, and the rest turns logits into an answer: sampling, stop rules, a limit
//! on thinking, a guard against endless repetition.
//! No network and no async here.
#![forbid(unsafe_code)]

mod answer;
pub mod defaults;
pub mod device;
pub mod encoders;
mod error;
pub mod ffmpeg;
pub mod format;
pub mod host;
pub mod loading;
pub mod loop_guard;
pub mod media;
pub mod mmproj;
mod prompt;
pub mod rng;
pub mod sampler;
pub mod sequence;
pub mod session;
pub mod source;
pub mod stop;
pub mod thinking;
pub mod tiles;
pub mod transcribe;
pub mod video;
pub mod work;

pub use defaults::GenerationDefaults;
pub use error::Error;
pub use format::ChatFormat;
pub use loading::LoadOptions;
pub use media::{ImageTokens, Medium};
pub use sampler::{Logprobs, SamplingError, SamplingOptions, check_finite, log_sum_exp};
pub use sequence::FinishReason;
pub use session::Session;
pub use source::{ModelFiles, ModelSource};
