//! What a conversation shows: pictures and sounds as the bytes of their files, videos as the few pictures that are seen.
//!
//! Nothing is decoded here; a [`Session`](crate::Session) does that when it first needs a medium's soft tokens, and keeps them.

use std::str::FromStr;

use carat_chat::template::MediaText;
use carat_media::picture::{Budget, Picture};
use carat_media::video::{self, Shot};
use carat_model::SoftKind;

/// The most soft tokens that a picture may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ImageTokens {
    /// As few as show all pixels of a picture: the smallest budget that doesn't shrink it, or the largest one.
    Auto,
    /// So many for every picture.
    Most(Budget),
}

impl ImageTokens {
    /// The budget of a picture.
    pub fn budget(self, picture: &Picture) -> Budget {
        match self {
            ImageTokens::Auto => Budget::auto(picture),
            ImageTokens::Most(budget) => budget,
        }
    }

    /// The largest that any picture gets.
    pub fn largest(self) -> Budget {
        match self {
            ImageTokens::Auto => Budget::ALL[Budget::ALL.len() - 1],
            ImageTokens::Most(budget) => budget,
        }
    }
}

impl Default for ImageTokens {
    fn default() -> Self {
        ImageTokens::Most(Budget::DEFAULT)
    }
}

impl FromStr for ImageTokens {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "auto" {
            return Ok(ImageTokens::Auto);
        }
        let tokens = text.parse().map_err(|_| "expected 70, 140, 280, 560, 1120 or auto".to_owned())?;
        Budget::new(tokens).map(ImageTokens::Most).map_err(|error| error.to_string())
    }
}

/// A medium of a conversation.
#[derive(Clone, Debug, PartialEq)]
pub enum Medium {
    /// A picture.
    Image {
        /// What it is called in messages.
        name: String,
        /// Its file.
        bytes: Vec<u8>,
    },
    /// A sound.
    Audio {
        /// What it is called in messages.
        name: String,
        /// Its file.
        bytes: Vec<u8>,
    },
    /// A video, by the pictures of it that are seen.
    Video {
        /// In order.
        shots: Vec<Shot>,
    },
}

impl Medium {
    /// Of which kind.
    pub fn kind(&self) -> SoftKind {
        match self {
            Medium::Image { .. } => SoftKind::Image,
            Medium::Audio { .. } => SoftKind::Audio,
            Medium::Video { .. } => SoftKind::Video,
        }
    }

    /// The times of a video's frames as the model reads them.
    pub(crate) fn stamps(&self) -> Vec<String> {
        match self {
            Medium::Video { shots } => shots.iter().map(|shot| video::stamp(shot.seconds)).collect(),
            Medium::Image { .. } | Medium::Audio { .. } => Vec::new(),
        }
    }

    /// As the prompt shows it.
    pub(crate) fn text<'a>(&self, stamps: &'a [String]) -> MediaText<'a> {
        match self {
            Medium::Image { .. } => MediaText::Image,
            Medium::Audio { .. } => MediaText::Audio,
            Medium::Video { .. } => MediaText::Video(stamps),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn image_tokens_are_one_of_five_or_auto() {
        assert_eq!("auto".parse(), Ok(ImageTokens::Auto));
        assert_eq!("280".parse(), Ok(ImageTokens::default()));
        assert_eq!(ImageTokens::Auto.largest().tokens(), 1120);
        for wrong in ["", "281", "-70", "many"] {
            assert!(wrong.parse::<ImageTokens>().is_err(), "{wrong}");
        }
    }
}
