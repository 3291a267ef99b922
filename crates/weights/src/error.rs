//! What can be wrong with a checkpoint.
//!
//! One enum for the crate. Every variant names the file and the thing in it, what was found and what was
//! expected, so that the text alone tells what to do.

/// Bytes that an error shows on either side of the place where text is broken.
const SHOWN: usize = 16;

/// `bytes` as text, or where and how they break UTF-8: a few of them, since texts may have megabytes.
pub(crate) fn text(bytes: &[u8]) -> Result<&str, String> {
    std::str::from_utf8(bytes).map_err(|error| {
        let at = error.valid_up_to();
        let around = &bytes[at.saturating_sub(SHOWN)..bytes.len().min(at + SHOWN)];
        format!("`{}`, broken at byte {at} of {}", around.escape_ascii(), bytes.len())
    })
}

/// Why a checkpoint could not be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WeightsError {
    /// The operating system refused.
    #[error("cannot read `{file}`: {source}")]
    Io {
        /// Path as given.
        file: String,
        /// The system's reason.
        source: std::io::Error,
    },
    /// The path leads to something that isn't a checkpoint.
    #[error("`{file}` is not a checkpoint: found {found}; expected {expected}")]
    NotACheckpoint {
        /// Path as given.
        file: String,
        /// What lies there.
        found: String,
        /// What is readable.
        expected: String,
    },
    /// The file ends too early.
    #[error("`{file}` is truncated: {what} reaches to byte {expected}, the file ends at byte {found}: get it again")]
    Truncated {
        /// The file.
        file: String,
        /// The thing that is cut off.
        what: String,
        /// Length of the file.
        found: u64,
        /// Length the file must have at least; saturated where it doesn't fit.
        expected: u64,
    },
    /// A part of the file breaks its format.
    #[error("`{file}`: {what}: found {found}, expected {expected}")]
    Malformed {
        /// The file.
        file: String,
        /// The broken part.
        what: String,
        /// What it holds.
        found: String,
        /// What the format asks for.
        expected: String,
    },
    /// A JSON file or header can't be parsed.
    #[error("`{file}`: {what} is not valid JSON: {reason}")]
    Json {
        /// The file.
        file: String,
        /// Which part of it.
        what: &'static str,
        /// The parser's message, with line and column.
        reason: String,
    },
    /// A tensor's entry or data is wrong.
    #[error("`{file}`: tensor `{name}`: found {found}, expected {expected}")]
    BadTensor {
        /// The file.
        file: String,
        /// The tensor.
        name: String,
        /// What it has.
        found: String,
        /// What it must have.
        expected: String,
    },
    /// A count or size is beyond what this reader accepts.
    #[error("`{file}`: {what}: found {found}, the limit is {limit}")]
    Limit {
        /// The file.
        file: String,
        /// The counted thing.
        what: String,
        /// The count.
        found: u64,
        /// The limit.
        limit: u64,
    },
    /// A mapped file isn't what it was when it was opened.
    #[error("`{file}` was changed while it was in use: found {found}, expected {expected}; load the model again")]
    Changed {
        /// The file.
        file: String,
        /// As it is.
        found: String,
        /// As it was.
        expected: String,
    },
    /// A tensor that was asked for doesn't exist.
    #[error("tensor `{name}` is not in `{file}`")]
    MissingTensor {
        /// The checkpoint.
        file: String,
        /// The tensor.
        name: String,
    },
    /// A metadata key that was asked for doesn't exist.
    #[error("`{file}`: metadata key `{key}` is missing, expected {expected}")]
    MissingKey {
        /// The file.
        file: String,
        /// The key.
        key: String,
        /// The type asked for.
        expected: String,
    },
    /// A metadata value has another type or range.
    #[error("`{file}`: metadata key `{key}`: found {found}, expected {expected}")]
    WrongValue {
        /// The file.
        file: String,
        /// The key.
        key: String,
        /// Type, and value where short.
        found: String,
        /// The type asked for.
        expected: String,
    },
}
