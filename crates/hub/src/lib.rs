//! Models of a Hugging Face-compatible hub: names, downloads, and the cache on this machine.
//!
//! [`Hub::pull`] brings a model's files into the cache that other tools share; [`installed`] finds, lists and removes
//! what is there, whoever brought it. A file gets its name in the cache only when it is whole and its hash is right,
//! so that an interrupted pull leaves nothing a reader could mistake for a model.
//!
//! Blocking and without tensors: what a model is, `carat-weights` knows.
#![forbid(unsafe_code)]

mod api;
pub mod cache;
mod choice;
mod download;
mod error;
mod etag;
mod http;
pub mod installed;
pub mod names;
mod partial;
mod pull;
mod retry;
mod revision;
pub mod settings;

pub use api::{Listing, parse_listing};
pub use cache::Cache;
pub use download::Ranges;
pub use error::Error;
pub use names::{ModelName, RepoId};
pub use pull::{Event, Extras, Hub, Observer, Pulled};
pub use retry::Patience;
pub use revision::Revision;
pub use settings::Settings;
