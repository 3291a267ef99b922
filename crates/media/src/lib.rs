//! Files to model input: pictures to patches, sounds to log-mel features or raw frames.
//!
//! Bytes go in, plain arrays come out. [`picture`] and [`sound`] decode, bring what they found to the size or the rate
//! that the encoders expect, and cut it up; [`video`] says which pictures of a film are seen. All follow the reference
//! implementation (transformers 5.23), which the tests hold them to. What a file claims about itself is checked against
//! [`limits`] before memory is taken for it.
//!
//! Nothing here knows a network, a model or where its input came from.
#![forbid(unsafe_code)]

mod av1;
mod boxes;
mod error;
mod guard;
pub mod limits;
mod mp4;
pub mod picture;
pub mod sound;
pub mod video;

pub use error::Error;
