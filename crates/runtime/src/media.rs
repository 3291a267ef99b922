//! What a conversation shows: pictures and sounds as the bytes of their files, videos as the few pictures that are seen.
//!
//! Nothing is decoded here; a [`Session`](crate::Session) does that when it first needs a medium's soft tokens, and keeps them.

use std::str::FromStr;

use carat_chat::template::{MediaText, VideoText};
use carat_media::picture::{Budget, Picture};
use carat_media::sound;
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
    /// A sound as samples, of which a file may hold more than a model hears at once.
    Samples {
        /// What it is called in messages.
        name: String,
        /// At 16 kHz.
        samples: Vec<f32>,
    },
    /// A video, by the pictures of it that are seen.
    Video {
        /// In order.
        shots: Vec<Shot>,
        /// What is heard, at 16 kHz; empty where there is nothing. Models that don't hear go without.
        sound: Vec<f32>,
    },
}

impl Medium {
    /// Of which kind.
    pub fn kind(&self) -> SoftKind {
        match self {
            Medium::Image { .. } => SoftKind::Image,
            Medium::Audio { .. } | Medium::Samples { .. } => SoftKind::Audio,
            Medium::Video { .. } => SoftKind::Video,
        }
    }

    /// What follows each other in a video, as the model reads it.
    pub(crate) fn parts(&self, ears: Ears) -> Vec<VideoText> {
        let Medium::Video { shots, sound } = self else { return Vec::new() };
        let part = |scene| match scene {
            Scene::Shot(shot) => VideoText::Frame(video::stamp(shot.seconds)),
            Scene::Sound(_) => VideoText::Sound,
        };
        scenes(shots, sound, ears).into_iter().map(part).collect()
    }

    /// As the prompt shows it, a video by its [`parts`](Medium::parts).
    pub(crate) fn text<'a>(&self, parts: &'a [VideoText]) -> MediaText<'a> {
        match self {
            Medium::Image { .. } => MediaText::Image,
            Medium::Audio { .. } | Medium::Samples { .. } => MediaText::Audio,
            Medium::Video { .. } => MediaText::Video(parts),
        }
    }
}

/// Whether a model hears.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ears {
    /// It does.
    Hears,
    /// It doesn't.
    Deaf,
}

/// A part of a video.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Scene<'a> {
    Shot(&'a Shot),
    /// At 16 kHz, not more than is heard at once.
    Sound(&'a [f32]),
}

/// A piece of sound that is too short to hear anything in it: 0.1 s at 16 kHz.
const SHORTEST_SOUND: usize = 1600;

/// What follows each other in a video: the shots that are shown while a piece of its sound is heard, then that piece. A sound of up
/// to 30 s follows all shots, as the reference has it (`load_audio_from_video` in transformers' `processing_utils.py`); longer
/// ones, of which it drops the rest, are cut up.
pub(crate) fn scenes<'a>(shots: &'a [Shot], sound: &'a [f32], ears: Ears) -> Vec<Scene<'a>> {
    let sound = if ears == Ears::Hears { sound } else { &[] };
    let (mut scenes, mut left) = (Vec::new(), shots);
    let clips = sound::clips(sound, sound::MAX_CLIP);
    for (index, clip) in clips.iter().enumerate() {
        let end = if index + 1 == clips.len() { f64::INFINITY } else { clip.end as f64 / f64::from(sound::RATE) };
        let (during, after) = left.split_at(left.partition_point(|shot| shot.seconds < end));
        left = after;
        scenes.extend(during.iter().map(Scene::Shot));
        if clip.len() >= SHORTEST_SOUND {
            scenes.push(Scene::Sound(&sound[clip.clone()]));
        }
    }
    scenes.extend(left.iter().map(Scene::Shot));
    scenes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sound_follows_what_is_shown_while_it_is_heard() {
        let black = Picture { width: 48, height: 48, rgb: vec![0; 48 * 48 * 3] };
        let shots: Vec<Shot> = [0.0, 10.0, 29.0, 31.0, 50.0, 99.0].map(|s| Shot::new(s, &black)).into();
        let order = |seconds: f64, ears| {
            let sound = vec![0.0; (seconds * 16_000.0) as usize];
            let name = |scene: &Scene<'_>| match scene {
                Scene::Shot(shot) => format!("{}", shot.seconds),
                Scene::Sound(sound) => format!("{:.1}s", sound.len() as f64 / 16_000.0),
            };
            scenes(&shots, &sound, ears).iter().map(name).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(order(30.0, Ears::Hears), "0 10 29 31 50 99 30.0s");
        // Silence is cut where a clip may end at the earliest.
        assert_eq!(order(60.0, Ears::Hears), "0 10 20.1s 29 31 20.1s 50 99 19.8s");
        assert_eq!(order(60.0, Ears::Deaf), "0 10 29 31 50 99");
        assert_eq!(order(0.05, Ears::Hears), "0 10 29 31 50 99");
        assert_eq!(order(0.0, Ears::Hears), "0 10 29 31 50 99");
    }

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
