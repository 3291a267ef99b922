//! What a model sees and hears with, whichever kind it has: pictures and sounds to soft tokens.

use carat_tensor::Backend;
use carat_tensor::backend::Rounding;
use carat_weights::Checkpoint;

use crate::audio::AudioTower;
use crate::config::{BLOCK_SIDE, BlocksConfig, FramesConfig, PATCH_SIDE, PATCHES_PER_TOKEN};
use crate::unified::{BlockEmbedder, FrameEmbedder};
use crate::vision::{VisionTap, VisionTower};
use crate::{AudioConfig, ModelError, VisionConfig};

/// How a model sees.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum PictureConfig {
    /// With a tower over patches.
    Tower(VisionConfig),
    /// Blocks of pixels are projected.
    Blocks(BlocksConfig),
}

impl PictureConfig {
    /// How the model of a checkpoint sees; `None` where it doesn't.
    ///
    /// # Errors
    /// If it sees in a way that isn't known here.
    pub fn of(checkpoint: &Checkpoint) -> Result<Option<Self>, ModelError> {
        let blocks = match checkpoint {
            Checkpoint::HfDir(dir) => BlocksConfig::from_json(&dir.config)?,
            Checkpoint::Gguf(file) => BlocksConfig::from_gguf(file)?,
        };
        if let Some(config) = blocks {
            return Ok(Some(PictureConfig::Blocks(config)));
        }
        let tower = match checkpoint {
            Checkpoint::HfDir(dir) => VisionConfig::from_json(&dir.config)?,
            Checkpoint::Gguf(file) => VisionConfig::from_gguf(file)?,
        };
        Ok(tower.map(PictureConfig::Tower))
    }

    /// Width and height in pixels of the squares that a picture is cut into.
    pub fn patch_side(&self) -> usize {
        match self {
            PictureConfig::Tower(_) => PATCH_SIDE,
            PictureConfig::Blocks(_) => BLOCK_SIDE,
        }
    }

    /// Width of the rows that a [`VisionTap`] sees, and how many stages it sees.
    pub fn stages(&self) -> (usize, usize) {
        match self {
            PictureConfig::Tower(config) => (config.d_model, config.n_layers + 1),
            PictureConfig::Blocks(config) => (config.d_model, 1),
        }
    }

    /// Width of soft tokens.
    pub fn d_text(&self) -> usize {
        match self {
            PictureConfig::Tower(config) => config.d_text,
            PictureConfig::Blocks(config) => config.d_text,
        }
    }
}

/// What a model sees with.
pub enum PictureEncoder<B: Backend> {
    /// A tower over patches.
    Tower(Box<VisionTower<B>>),
    /// Blocks of pixels are projected.
    Blocks(Box<BlockEmbedder<B>>),
}

impl<B: Backend> PictureEncoder<B> {
    /// Finds the weights and takes memory for pictures of up to `max_tokens` soft tokens.
    ///
    /// # Errors
    /// If the model can't see, or a tensor is missing, misshapen or unknown.
    pub fn load(backend: &mut B, checkpoint: &Checkpoint, max_tokens: usize) -> Result<Self, ModelError> {
        match PictureConfig::of(checkpoint)? {
            Some(PictureConfig::Blocks(config)) => {
                Ok(Self::Blocks(Box::new(BlockEmbedder::load(backend, checkpoint, config, max_tokens)?)))
            }
            // A model without a tower is refused with what it has instead.
            Some(PictureConfig::Tower(_)) | None => {
                Ok(Self::Tower(Box::new(VisionTower::load(backend, checkpoint, max_tokens * PATCHES_PER_TOKEN)?)))
            }
        }
    }

    /// How it sees.
    pub fn config(&self) -> PictureConfig {
        match self {
            PictureEncoder::Tower(tower) => PictureConfig::Tower(*tower.config()),
            PictureEncoder::Blocks(blocks) => PictureConfig::Blocks(*blocks.config()),
        }
    }

    /// Width and height in pixels of the squares that a picture is cut into.
    pub fn patch_side(&self) -> usize {
        self.config().patch_side()
    }

    /// Soft tokens `[n, d_text]` of a picture's squares, see [`VisionTower::encode`] and [`BlockEmbedder::encode`].
    ///
    /// # Errors
    /// As these.
    pub fn encode(
        &mut self,
        backend: &mut B,
        values: &[f32],
        positions: &[[i32; 2]],
        tap: Option<&mut dyn VisionTap>,
    ) -> Result<Vec<f32>, ModelError> {
        // A decoder may have left it coarse.
        backend.set_rounding(Rounding::Fine);
        match self {
            PictureEncoder::Tower(tower) => tower.encode(backend, values, positions, tap),
            PictureEncoder::Blocks(blocks) => blocks.encode(backend, values, positions, tap),
        }
    }
}

/// What a model hears with.
pub enum SoundEncoder<B: Backend> {
    /// A tower over features.
    Tower(Box<AudioTower<B>>),
    /// Frames of sound are projected.
    Frames(Box<FrameEmbedder<B>>),
}

impl<B: Backend> SoundEncoder<B> {
    /// Finds the weights, and for a tower takes memory for sounds of up to `max_frames` frames of features.
    ///
    /// # Errors
    /// If the model can't hear, or a tensor is missing, misshapen or unknown.
    pub fn load(backend: &mut B, checkpoint: &Checkpoint, max_frames: usize) -> Result<Self, ModelError> {
        if let Some(config) = frames(checkpoint)? {
            return Ok(Self::Frames(Box::new(FrameEmbedder::load(backend, checkpoint, config)?)));
        }
        // A model without a tower is refused with what it has instead.
        Ok(Self::Tower(Box::new(AudioTower::load(backend, checkpoint, max_frames)?)))
    }

    /// Width of soft tokens.
    pub fn d_text(&self) -> usize {
        match self {
            SoundEncoder::Tower(tower) => tower.config().d_text,
            SoundEncoder::Frames(frames) => frames.config().d_text,
        }
    }

    /// Soft tokens `[n, d_text]` of features or frames, see [`AudioTower::encode`] and [`FrameEmbedder::encode`].
    ///
    /// # Errors
    /// As these.
    pub fn encode(&mut self, backend: &mut B, input: &[f32]) -> Result<Vec<f32>, ModelError> {
        // A decoder may have left it coarse.
        backend.set_rounding(Rounding::Fine);
        match self {
            SoundEncoder::Tower(tower) => tower.encode(backend, input, None),
            SoundEncoder::Frames(frames) => frames.encode(backend, input),
        }
    }
}

/// Whether the model of a checkpoint hears.
///
/// # Errors
/// If it hears in a way that isn't known here.
pub fn hears(checkpoint: &Checkpoint) -> Result<bool, ModelError> {
    Ok(frames(checkpoint)?.is_some() || tower(checkpoint)?.is_some())
}

/// How the model of a checkpoint hears with a tower; `None` where it doesn't.
pub(crate) fn tower(checkpoint: &Checkpoint) -> Result<Option<AudioConfig>, ModelError> {
    match checkpoint {
        Checkpoint::HfDir(dir) => AudioConfig::from_json(&dir.config),
        Checkpoint::Gguf(file) => AudioConfig::from_gguf(file),
    }
}

/// How the model of a checkpoint hears frames; `None` where it doesn't.
pub(crate) fn frames(checkpoint: &Checkpoint) -> Result<Option<FramesConfig>, ModelError> {
    match checkpoint {
        Checkpoint::HfDir(dir) => FramesConfig::from_json(&dir.config),
        Checkpoint::Gguf(file) => FramesConfig::from_gguf(file),
    }
}
