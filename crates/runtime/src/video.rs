//! Videos from their files: what is decoded here, and what an installed `ffmpeg` decodes.

use std::path::Path;

use carat_media::Error as Reason;
use carat_media::sound::{self, Wave};
use carat_media::video::{self, Shot};

use crate::ffmpeg::{Ffmpeg, Input};
use crate::{Error, ModelFiles, mmproj};

/// Whether a video's sound is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SoundTrack {
    /// It is.
    Heard,
    /// It isn't.
    Left,
}

/// A video's file.
#[derive(Clone, Copy, Debug)]
pub struct VideoFile<'a> {
    /// What it is called in messages.
    pub name: &'a str,
    /// Where it is, if it is a file.
    pub path: Option<&'a Path>,
    /// What is in it.
    pub bytes: &'a [u8],
}

/// What is taken in of a video.
#[derive(Clone, Debug, PartialEq)]
pub struct Video {
    /// The pictures that are seen, in order.
    pub shots: Vec<Shot>,
    /// All of its sound at 16 kHz; empty where it has none, or none is wanted.
    pub sound: Vec<f32>,
}

impl SoundTrack {
    /// What the model in `files` takes of it.
    ///
    /// # Errors
    /// If the files of its encoders can't be read.
    pub fn of(files: &ModelFiles) -> Result<Self, Error> {
        let apart = mmproj::open_apart(files)?;
        Ok(if apart.as_ref().unwrap_or(files).hear()? { SoundTrack::Heard } else { SoundTrack::Left })
    }
}

impl VideoFile<'_> {
    /// Decodes what is seen and heard.
    ///
    /// # Errors
    /// If it is no video, is damaged or too large, or takes `ffmpeg` to decode, and there is none or it fails;
    /// [`Error::VideoSound`] if all that is wrong is its sound.
    pub fn decode(&self, track: SoundTrack) -> Result<Video, Error> {
        let unreadable = |reason| Error::Medium { name: self.name.into(), reason };
        let wanted = track == SoundTrack::Heard;
        let (shots, sound) = match video::decode(self.bytes) {
            Err(reason @ Reason::Elsewhere { .. }) => {
                let ffmpeg = Ffmpeg::find().ok_or_else(|| unreadable(reason))?;
                let shots = ffmpeg.shots(self.input());
                let shots = shots.map_err(|reason| Error::Ffmpeg { name: self.name.into(), reason })?;
                (shots, if wanted { self.sound_by(&ffmpeg) } else { Ok(Vec::new()) })
            }
            shots => {
                let wanted = wanted && video::has_sound(self.bytes);
                (shots.map_err(unreadable)?, if wanted { self.sound() } else { Ok(Vec::new()) })
            }
        };
        let sound = sound.map_err(|reason| Error::VideoSound { name: self.name.into(), reason })?;
        Ok(Video { shots, sound })
    }

    /// The sound beside pictures that are decoded here; the error says why there is none.
    fn sound(&self) -> Result<Vec<f32>, String> {
        let reason = match sound::decode_of_video(self.bytes) {
            Ok(wave) => return Ok(wave.at_16_khz()),
            Err(reason) => reason,
        };
        match Ffmpeg::find().filter(|_| !matches!(reason, Reason::TooLarge { .. })) {
            Some(ffmpeg) => self.sound_by(&ffmpeg),
            None => Err(reason.to_string()),
        }
    }

    /// The sound that `ffmpeg` decodes, nothing where there is none.
    fn sound_by(&self, ffmpeg: &Ffmpeg) -> Result<Vec<f32>, String> {
        let flac = ffmpeg.sound(self.input()).map_err(|reason| format!("ffmpeg can't decode it: {reason}"))?;
        let wave = flac.map(|flac| sound::decode(&flac).map_err(|reason| reason.to_string())).transpose()?;
        Ok(wave.map_or(Vec::new(), Wave::at_16_khz))
    }

    fn input(&self) -> Input<'_> {
        self.path.map_or(Input::Bytes(self.bytes), Input::Path)
    }
}
