//! Videos from their files: what is decoded here, and what an installed `ffmpeg` decodes.

use std::path::Path;

use carat_media::Error as Reason;
use carat_media::sound;
use carat_media::video::{self, Shot};

use crate::Error;
use crate::ffmpeg::{Ffmpeg, Input};

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

impl VideoFile<'_> {
    /// Decodes what is seen and heard.
    ///
    /// # Errors
    /// If it is no video, is damaged or too large, or takes `ffmpeg` to decode, and there is none or it fails.
    pub fn decode(&self, track: SoundTrack) -> Result<Video, Error> {
        let unreadable = |reason| Error::Medium { name: self.name.into(), reason };
        let shots = match video::decode(self.bytes) {
            Err(reason @ Reason::Elsewhere { .. }) => {
                let ffmpeg = Ffmpeg::find().ok_or_else(|| unreadable(reason))?;
                let shots = ffmpeg.shots(self.input()).map_err(|reason| self.failed(reason))?;
                let sound = match track {
                    SoundTrack::Heard => self.sound_by(&ffmpeg)?.map_err(unreadable)?,
                    SoundTrack::Left => Vec::new(),
                };
                return Ok(Video { shots, sound });
            }
            shots => shots.map_err(unreadable)?,
        };
        let wanted = track == SoundTrack::Heard && video::has_sound(self.bytes);
        let sound = if wanted { self.sound()? } else { Vec::new() };
        Ok(Video { shots, sound })
    }

    /// The sound beside pictures that are decoded here.
    fn sound(&self) -> Result<Vec<f32>, Error> {
        let reason = match sound::decode(self.bytes) {
            Ok(wave) => return Ok(wave.at_16_khz()),
            Err(reason) => reason,
        };
        let unreadable = |reason| Error::Medium { name: format!("{}, its sound", self.name), reason };
        let Some(ffmpeg) = Ffmpeg::find().filter(|_| !matches!(reason, Reason::TooLarge { .. })) else {
            return Err(unreadable(reason));
        };
        self.sound_by(&ffmpeg)?.map_err(unreadable)
    }

    /// The sound that `ffmpeg` decodes, nothing where there is none; the inner error is that of reading what it wrote.
    fn sound_by(&self, ffmpeg: &Ffmpeg) -> Result<Result<Vec<f32>, Reason>, Error> {
        let flac = ffmpeg.sound(self.input()).map_err(|reason| self.failed(reason))?;
        Ok(flac.map_or(Ok(Vec::new()), |flac| Ok(sound::decode(&flac)?.at_16_khz())))
    }

    fn input(&self) -> Input<'_> {
        self.path.map_or(Input::Bytes(self.bytes), Input::Path)
    }

    fn failed(&self, reason: String) -> Error {
        Error::Ffmpeg { name: self.name.into(), reason }
    }
}
