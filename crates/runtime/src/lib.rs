//! Run Gemma 4 models: the library that programs depend on.
//!
//! [`Session`] is the way in: messages go in, events come out. [`ModelSource`] says which model, [`loading`] makes a
//! decoder of it after counting the memory, and the rest turns logits into an answer: sampling, stop rules, a limit
//! on thinking, a guard against endless repetition.
//! No network and no async here.
//!
//! ```
//! use std::ops::ControlFlow;
//!
//! use carat::{Content, Conversation, Event, GenerateOptions, LoadOptions, Message, ModelSource, Role, Session};
//!
//! // The embedded model; `ModelSource::Path` names files.
//! let mut session = Session::load(&ModelSource::Embedded, &LoadOptions::default(), &mut |_| {})?;
//! let messages = vec![Message::text(Role::User, "What is 3 * 4?")];
//! let conversation = Conversation { messages, ..Conversation::default() };
//! let options = GenerateOptions::plain(session.defaults(), 64);
//! let mut as_it_came = String::new();
//! let answer = session.generate(&conversation, &options, &mut |event| {
//!     if let Event::Text(text) = event {
//!         as_it_came += &text;
//!     }
//!     ControlFlow::Continue(())
//! })?;
//! assert_eq!(as_it_came, "3 * 4 = 12");
//! assert_eq!(answer.message.content, Content::Text(as_it_came));
//! # Ok::<(), carat::Error>(())
//! ```
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

// What the types here are made of.
pub use carat_chat as chat;
pub use carat_chat::message::{Content, Conversation, Message, Part, Role, ToolCall};
pub use carat_media::picture::Budget;
pub use carat_media::video::Shot;
pub use carat_model::{Decoder, LogitRows, MemoryPlan};
pub use carat_tensor::TokenId;
pub use carat_tensor::backend::KvType;

pub use defaults::GenerationDefaults;
pub use error::Error;
pub use format::ChatFormat;
pub use loading::LoadOptions;
pub use media::{ImageTokens, Medium};
pub use sampler::{Logprobs, SamplingError, SamplingOptions, check_finite, log_sum_exp};
pub use sequence::FinishReason;
pub use session::{Answer, Event, GenerateOptions, Session, Usage};
pub use source::{ModelFiles, ModelSource};
