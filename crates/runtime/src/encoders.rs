//! What a model sees and hears with, loaded when it is first needed, and the soft tokens it made.
//!
//! Soft tokens are kept by what they were made of, the hash of a file and the room it was given, so that a picture is encoded
//! once however often a conversation is read again, as long as its media have no more of them than is kept.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;

use carat_media::picture::{self, Budget, Fitted, Patching, Picture};
use carat_media::sound;
use carat_model::{
    Decoder, ModelError, PictureConfig, PictureEncoder, SoftKind, SoundEncoder, audio, encoders, vision,
};
use sha2::{Digest, Sha256};

use crate::device::Device;
use crate::media::{Ears, ImageTokens, Medium, Scene, scenes};
use crate::{Error, LoadOptions, ModelFiles, mmproj};

/// Values of soft tokens that are kept at most: 64 MiB, some 40 pictures of 280 tokens at the width of E2B.
const MOST_VALUES: usize = 16 << 20;

/// Values of soft tokens that are kept for a context of `ctx` tokens of `d_model` values: no more than fit in it.
pub(crate) fn most_values(ctx: usize, d_model: usize) -> usize {
    MOST_VALUES.min(ctx * d_model)
}

/// The soft tokens of a picture, a frame or a sound.
#[derive(Debug, PartialEq)]
pub struct SoftTokens {
    /// Equal numbers are equal rows.
    pub id: u64,
    /// Of what.
    pub kind: SoftKind,
    /// How many.
    pub n: usize,
    /// `[n, d_model]`.
    pub rows: Vec<f32>,
}

/// What soft tokens were made of.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Source {
    /// SHA-256 of the file, or of the samples.
    content: [u8; 32],
    kind: SoftKind,
    /// The most soft tokens of a picture; 0 for a sound.
    budget: usize,
}

/// Eyes and ears of a model.
pub struct Encoders {
    files: ModelFiles,
    /// What pictures may take; `None` where no room was planned for any.
    image_tokens: Option<ImageTokens>,
    /// Whether room was planned for sounds.
    hears: bool,
    /// Values of soft tokens that are kept.
    most_values: usize,
    pictures: Option<PictureEncoder<Device>>,
    sounds: Option<SoundEncoder<Device>>,
    made: HashMap<Source, Arc<SoftTokens>>,
    /// Numbers of all there have been: what is made again is known again.
    ids: HashMap<Source, u64>,
    /// Whether encoders in another file have been looked for.
    looked: bool,
}

impl Encoders {
    /// Those of the model in `files` that was loaded as `decoder`; nothing is loaded yet.
    pub fn new(files: ModelFiles, options: &LoadOptions, decoder: &Decoder<Device>) -> Self {
        Encoders {
            files,
            image_tokens: options.image_tokens,
            hears: options.sounds,
            most_values: most_values(decoder.options().ctx, decoder.config().d_model),
            pictures: None,
            sounds: None,
            made: HashMap::new(),
            ids: HashMap::new(),
            looked: false,
        }
    }

    /// Whether the model hears.
    ///
    /// # Errors
    /// If the files of its encoders can't be read.
    pub(crate) fn ears(&mut self) -> Result<Ears, Error> {
        self.look_apart()?;
        Ok(if self.files.hear()? { Ears::Hears } else { Ears::Deaf })
    }

    /// Refuses a medium of a kind that the model can't take at all.
    ///
    /// # Errors
    /// With what is there instead, or if the files of the encoders can't be read.
    pub(crate) fn check(&mut self, medium: &Medium) -> Result<(), Error> {
        self.look_apart()?;
        self.check_kind(medium.kind())
    }

    /// As [`Encoders::check`], in the files that were found.
    fn check_kind(&self, kind: SoftKind) -> Result<(), Error> {
        let files = self.files.checkpoint();
        let found = match kind {
            SoftKind::Audio => encoders::hears(files),
            SoftKind::Image | SoftKind::Video => PictureConfig::of(files).map(|config| config.is_some()),
        };
        let taken = match (found, kind) {
            (Ok(true), _) => Ok(()),
            // These say what is there instead.
            (Ok(false), SoftKind::Audio) => audio::config(files).map(drop),
            (Ok(false), SoftKind::Image | SoftKind::Video) => vision::config(files).map(drop),
            (Err(reason), _) => Err(reason),
        };
        taken.map_err(|reason| self.cannot(kind, reason))
    }

    /// Refuses files that have changed since they were opened.
    pub(crate) fn check_files(&self) -> Result<(), Error> {
        Ok(self.files.checkpoint().tensors().files().iter().try_for_each(|file| file.check())?)
    }

    /// Takes the encoders in another file, the first time.
    fn look_apart(&mut self) -> Result<(), Error> {
        if !self.looked {
            if let Some(apart) = mmproj::open_apart(&self.files)? {
                self.files = apart;
            }
            self.looked = true;
        }
        Ok(())
    }

    /// The soft tokens of a medium, one after another those of a video's frames and, if the model hears, of the pieces of its
    /// sound.
    ///
    /// # Errors
    /// If the model can't take this kind of medium, no room was planned for it, or the file can't be decoded.
    pub fn encode(&mut self, device: &mut Device, medium: &Medium) -> Result<Vec<Arc<SoftTokens>>, Error> {
        self.look_apart()?;
        match medium {
            Medium::Image { name, bytes } => Ok(vec![self.picture(device, name, bytes)?]),
            Medium::Audio { name, bytes } => Ok(vec![self.sound(device, name, Sound::File(bytes))?]),
            Medium::Samples { name, samples } => Ok(vec![self.sound(device, name, Sound::Samples(samples))?]),
            Medium::Video { shots, sound } => {
                let ears = if sound.is_empty() { Ears::Deaf } else { self.ears()? };
                let encode = |scene| match scene {
                    Scene::Shot(shot) => self.frame(device, &shot.picture),
                    Scene::Sound(samples) => self.sound(device, "the video's sound", Sound::Samples(samples)),
                };
                scenes(shots, sound, ears).into_iter().map(encode).collect()
            }
        }
    }

    fn picture(&mut self, device: &mut Device, name: &str, bytes: &[u8]) -> Result<Arc<SoftTokens>, Error> {
        let kind = SoftKind::Image;
        let room = self.image_tokens.unwrap_or_default();
        let content: [u8; 32] = Sha256::digest(bytes).into();
        let source = |budget: Budget| Source { content, kind, budget: budget.tokens() };
        // By the picture itself only where it takes the picture to know.
        let known = match room {
            ImageTokens::Most(budget) => Some(budget),
            ImageTokens::Auto => None,
        };
        if let Some(made) = known.and_then(|budget| self.made.get(&source(budget))) {
            return Ok(made.clone());
        }
        // Whether the model sees at all comes before what is wrong with the file.
        self.eyes(device, kind)?;
        let picture = picture::decode(bytes).map_err(|reason| Error::Medium { name: name.into(), reason })?;
        let budget = known.unwrap_or_else(|| room.budget(&picture));
        if let Some(made) = self.made.get(&source(budget)) {
            return Ok(made.clone());
        }
        let fitted = Fitted::new(&picture, budget);
        drop(picture);
        let (n, rows) = see(self.eyes(device, kind)?, device, &fitted)?;
        Ok(self.keep(source(budget), kind, n, rows))
    }

    fn frame(&mut self, device: &mut Device, picture: &Fitted) -> Result<Arc<SoftTokens>, Error> {
        let kind = SoftKind::Video;
        let Picture { width, height, rgb } = picture.picture();
        let mut hasher = Sha256::new_with_prefix(format!("{width}x{height}:"));
        hasher.update(rgb);
        let source = Source { content: hasher.finalize().into(), kind, budget: Budget::FRAME.tokens() };
        if let Some(made) = self.made.get(&source) {
            return Ok(made.clone());
        }
        let (n, rows) = see(self.eyes(device, kind)?, device, picture)?;
        Ok(self.keep(source, kind, n, rows))
    }

    /// What the model sees with, loaded when it is first needed.
    fn eyes(&mut self, device: &mut Device, kind: SoftKind) -> Result<&mut PictureEncoder<Device>, Error> {
        let no_room = || Error::NoRoom { kind: kind.name(), option: "image_tokens" };
        if self.pictures.is_none() {
            // The model's own reason comes before that for the missing room.
            self.check_kind(kind)?;
            let largest = self.image_tokens.ok_or_else(no_room)?.largest().tokens();
            let encoder = PictureEncoder::load(device, self.files.checkpoint(), largest);
            self.pictures = Some(encoder.map_err(|reason| self.cannot(kind, reason))?);
        }
        self.pictures.as_mut().ok_or_else(no_room)
    }

    fn sound(&mut self, device: &mut Device, name: &str, sound: Sound<'_>) -> Result<Arc<SoftTokens>, Error> {
        let kind = SoftKind::Audio;
        let source = Source { content: sound.digest(), kind, budget: 0 };
        if let Some(made) = self.made.get(&source) {
            return Ok(made.clone());
        }
        let no_room = || Error::NoRoom { kind: kind.name(), option: "sounds" };
        if self.sounds.is_none() {
            // As in `eyes`.
            self.check_kind(kind)?;
            if !self.hears {
                return Err(no_room());
            }
            let encoder = SoundEncoder::load(device, self.files.checkpoint(), sound::MAX_FRAMES);
            self.sounds = Some(encoder.map_err(|reason| self.cannot(kind, reason))?);
        }
        let encoder = self.sounds.as_mut().ok_or_else(no_room)?;
        let unreadable = |reason| Error::Medium { name: name.into(), reason };
        let samples = sound.samples().map_err(unreadable)?;
        if samples.len() > sound::MAX_CLIP {
            let seconds = samples.len() as f64 / f64::from(sound::RATE);
            return Err(Error::LongSound { name: name.into(), seconds });
        }
        let rows = hear(encoder, device, &samples, name)?;
        let width = encoder.d_text();
        Ok(self.keep(source, kind, rows.len() / width, rows))
    }

    /// Why the model can't take a kind of medium.
    fn cannot(&self, kind: SoftKind, reason: ModelError) -> Error {
        Error::Cannot { model: self.files.source().to_string(), kind: kind.name(), reason: Box::new(reason) }
    }

    /// Keeps soft tokens. When there are too many, it forgets all but those that somebody holds, as a prompt does that is being read.
    fn keep(&mut self, source: Source, kind: SoftKind, n: usize, rows: Vec<f32>) -> Arc<SoftTokens> {
        let held: usize = self.made.values().map(|made| made.rows.len()).sum();
        if held + rows.len() > self.most_values {
            self.made.retain(|_, made| Arc::strong_count(made) > 1);
        }
        let next = self.ids.len() as u64;
        let id = *self.ids.entry(source).or_insert(next);
        let made = Arc::new(SoftTokens { id, kind, n, rows });
        self.made.insert(source, made.clone());
        made
    }
}

/// A sound as it is given.
#[derive(Clone, Copy)]
enum Sound<'a> {
    /// The bytes of a file.
    File(&'a [u8]),
    /// At 16 kHz.
    Samples(&'a [f32]),
}

impl<'a> Sound<'a> {
    /// SHA-256 of what it is made of.
    fn digest(self) -> [u8; 32] {
        match self {
            Sound::File(bytes) => Sha256::digest(bytes).into(),
            Sound::Samples(samples) => {
                // No file begins so: samples are never taken for the file with the same bytes.
                let mut hasher = Sha256::new_with_prefix(b"samples at 16 kHz");
                samples.iter().for_each(|sample| hasher.update(sample.to_le_bytes()));
                hasher.finalize().into()
            }
        }
    }

    fn samples(self) -> Result<Cow<'a, [f32]>, carat_media::Error> {
        Ok(match self {
            Sound::File(bytes) => Cow::Owned(sound::decode(bytes)?.at_16_khz()),
            Sound::Samples(samples) => Cow::Borrowed(samples),
        })
    }
}

/// How many soft tokens a picture has, and which.
fn see(
    encoder: &mut PictureEncoder<Device>,
    device: &mut Device,
    picture: &Fitted,
) -> Result<(usize, Vec<f32>), Error> {
    let patches = picture.patches(Patching::of_side(encoder.patch_side()));
    Ok((patches.soft_tokens, encoder.encode(device, &patches.values, &patches.positions, None)?))
}

/// The soft tokens of samples at 16 kHz: what each kind of ears is given is decided here.
fn hear(
    encoder: &mut SoundEncoder<Device>,
    device: &mut Device,
    samples: &[f32],
    name: &str,
) -> Result<Vec<f32>, Error> {
    let unreadable = |reason| Error::Medium { name: name.into(), reason };
    let input = match encoder {
        SoundEncoder::Tower(_) => {
            let mut mel = sound::log_mel(samples).map_err(unreadable)?;
            mel.values.truncate(mel.valid * sound::BANDS);
            mel.values
        }
        SoundEncoder::Frames(_) => sound::raw_frames(samples).map_err(unreadable)?.values,
    };
    Ok(encoder.encode(device, &input)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ModelSource;
    use crate::loading::{self, Loaded};

    #[test]
    fn what_a_prompt_holds_is_kept_and_what_is_made_again_is_known() {
        let options = LoadOptions { context: Some(512), sounds: true, ..LoadOptions::default() };
        let mut files = ModelFiles::open(&ModelSource::Embedded).unwrap();
        let Loaded { mut decoder, .. } = loading::load(&mut files, &options, &mut |_| {}).unwrap();
        let mut encoders = Encoders::new(files, &options, &decoder);
        let mut encode = |encoders: &mut Encoders, pitch: f32| {
            let samples = (0..8000).map(|i| (i as f32 * pitch).sin()).collect();
            let medium = Medium::Samples { name: "a tone".into(), samples };
            encoders.encode(decoder.backend_mut(), &medium).unwrap().remove(0)
        };
        let first = encode(&mut encoders, 0.1);
        encoders.most_values = first.rows.len();
        let second = encode(&mut encoders, 0.2);
        assert!(Arc::ptr_eq(&first, &encode(&mut encoders, 0.1)), "it is held");
        let id = first.id;
        drop((first, second));
        let third = encode(&mut encoders, 0.3);
        assert_eq!(encoders.made.len(), 1);
        assert_eq!(encode(&mut encoders, 0.1).id, id);
        assert_ne!(third.id, id);
    }
}
