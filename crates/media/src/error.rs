//! Why a file could not become model input.

/// What is wrong with a picture, a sound or a video.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No bytes at all.
    #[error("the {what} is empty: expected a file of {expected}")]
    Empty {
        /// `picture`, `sound` or `video`.
        what: &'static str,
        /// The formats that can be read.
        expected: &'static str,
    },
    /// The first bytes are those of no known format. Names of files don't count.
    #[error("not a {what} that can be read: it starts with {found}; expected {expected}")]
    Unknown {
        /// `picture`, `sound` or `video`.
        what: &'static str,
        /// The first bytes, or the format they belong to.
        found: String,
        /// The formats that can be read.
        expected: &'static str,
    },
    /// A known format, or a kind of one, that can't be decoded.
    #[error("{what} can't be decoded: {why}")]
    Unsupported {
        /// The format or codec.
        what: String,
        /// What is missing, and what to do instead.
        why: String,
    },
    /// A video that takes another program to decode.
    #[error(
        "{what} is not decoded here: install ffmpeg, or convert it with `ffmpeg -i VIDEO -pix_fmt yuv420p OUT.mp4`"
    )]
    Elsewhere {
        /// The codec and the container, or what of a codec is missing.
        what: String,
    },
    /// The bytes contradict themselves, or end too early.
    #[error("the {format} file is damaged: {why}")]
    Damaged {
        /// The format.
        format: &'static str,
        /// What was found.
        why: String,
    },
    /// More than this program takes at once.
    #[error("the {what} has {found} {unit}; at most {limit} are taken: {remedy}")]
    TooLarge {
        /// `picture`, `sound` or `video`.
        what: &'static str,
        /// How much there is, or is claimed to be.
        found: u64,
        /// Of what.
        unit: &'static str,
        /// The limit, from [`limits`](crate::limits).
        limit: u64,
        /// What to do.
        remedy: &'static str,
    },
    /// Too little to make one row of model input.
    #[error("the sound has {found} samples at 16 kHz; at least {least} are needed for one frame")]
    TooShort {
        /// How many samples there are.
        found: usize,
        /// How many it takes.
        least: usize,
    },
    /// A number of soft tokens that no model was trained with.
    #[error("a picture can't take {found} tokens; expected one of 70, 140, 280, 560, 1120")]
    Budget {
        /// What was asked for.
        found: u32,
    },
}

impl Error {
    /// [`Error::TooLarge`] if `found` is more than `limit`.
    pub(crate) fn within(
        what: &'static str,
        (found, unit): (u64, &'static str),
        limit: u64,
        remedy: &'static str,
    ) -> Result<(), Error> {
        if found <= limit { Ok(()) } else { Err(Error::TooLarge { what, found, unit, limit, remedy }) }
    }
}

/// The first bytes of a file that nobody knows, for a message.
pub(crate) fn first_bytes(bytes: &[u8]) -> String {
    let hex: Vec<String> = bytes.iter().take(8).map(|byte| format!("{byte:02x}")).collect();
    hex.join(" ")
}
