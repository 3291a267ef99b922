//! The sound encoder: log-mel features to soft tokens, rows that a text model takes in place of embeddings.
//!
//! ```text
//! x = W_i · subsample(subsample(mel))                         a row of 4 frames, 40 ms
//! x += ½ · rms(ffn(rms(x)))
//! x += rms(W_o · attention(rms(x)))                           a row sees the reach of rows before it, itself among them
//! x += W_e · silu(rms(taps ∗ glu(W_s · rms(x))))              each channel by itself, over rows before
//! x += ½ · rms(ffn(rms(x)))      x = rms(x)                   each layer, ffn(x) = W_d · silu(W_u · x)
//! soft = W_t · rms(W · x + bias)
//! ```
//!
//! Around each product of the layers lie bounds, and what enters norms is bounded too. Every step looks at earlier rows
//! alone, so what follows the sound has no part in it: the reference, which fills its batches up and masks, computes the
//! same. Source: transformers `modeling_gemma4.Gemma4AudioModel`, `Gemma4MultimodalEmbedder`. How sounds become features is
//! not here.

use carat_tensor::Backend;
use carat_tensor::backend::{BackendError, ClippedFeedForward, Near, Norm, Projection, Subsampling, UNBOUNDED, halved};
use carat_weights::Checkpoint;

use crate::config::{AudioConfig, BANDS, LAYER_NORM_EPS};
use crate::linear::Linear;
use crate::{ModelError, load};

/// One of the two layers that halve times and frequencies.
pub(crate) struct Subsampler<B: Backend> {
    /// `[filters, channels, 3, 3]`.
    pub filters: B::Vector,
    /// `[filters]`.
    pub norm: B::Vector,
}

/// A feed-forward, `d` the width of the stream.
pub(crate) struct FeedForward<B: Backend> {
    pub norm: B::Vector,
    /// `[4d, d]`.
    pub up: Linear<B>,
    /// `[d, 4d]`.
    pub down: Linear<B>,
    /// With the residual's weight folded in.
    pub post_norm: B::Vector,
}

/// A layer's weights; matrices are `[d, d]` where nothing is said, norms `[d]`.
pub(crate) struct AudioLayer<B: Backend> {
    pub ffns: [FeedForward<B>; 2],
    pub attention_norm: B::Vector,
    pub q: Linear<B>,
    pub k: Linear<B>,
    pub v: Linear<B>,
    pub o: Linear<B>,
    /// `[head_dim]`, with all factors of scores folded in.
    pub query_scale: B::Vector,
    /// Added to keys by distance, `[reach, d]`.
    pub distances: B::Vector,
    pub post_attention_norm: B::Vector,
    pub conv_norm: B::Vector,
    /// `[2d, d]`.
    pub conv_start: Linear<B>,
    /// `[d, taps]`.
    pub taps: B::Vector,
    pub taps_norm: B::Vector,
    pub conv_end: Linear<B>,
    pub out_norm: B::Vector,
}

/// All weights of the encoder.
pub(crate) struct AudioWeights<B: Backend> {
    pub subsamplers: [Subsampler<B>; 2],
    /// `[d, 32 · filters]`.
    pub subsampled: B::Matrix,
    pub layers: Vec<AudioLayer<B>>,
    /// `[d_out, d]`.
    pub out: B::Matrix,
    /// `[d_out]`.
    pub out_bias: B::Vector,
    /// The weight of the last norm, which has none: `[d_out]`.
    pub ones: B::Vector,
    /// `[d_text, d_out]`.
    pub soft_tokens: B::Matrix,
}

/// Intermediates of all rows.
struct Scratch<B: Backend> {
    /// `[n_frames, 128]`.
    mel: B::Buffer,
    /// The residual, `[n, d]`.
    x: B::Buffer,
    /// Input or output of a sub-layer, `[n, d]`, as the next five.
    h: B::Buffer,
    t: B::Buffer,
    q: B::Buffer,
    k: B::Buffer,
    v: B::Buffer,
    /// Subsampled once, then inside each feed-forward, the convolution and the output: the widest of them.
    wide: B::Buffer,
    /// Subsampled twice: `[n, 32 · filters]`.
    subsampled: B::Buffer,
    /// `[n, d_text]`.
    soft_tokens: B::Buffer,
}

/// Looks at what passes through the encoder.
pub trait AudioTap {
    /// Rows `[n_soft_tokens, d_model]`: stage 0 is the subsampled features, `l + 1` the output of layer `l`.
    fn hidden(&mut self, stage: usize, rows: &[f32]);
    /// Rows `[n_soft_tokens, d_out]`: what the encoder says, before it is brought to the text model's width.
    fn output(&mut self, rows: &[f32]) {
        let _ = rows;
    }
}

/// The sound encoder of a checkpoint, with room for sounds up to a length.
pub struct AudioTower<B: Backend> {
    config: AudioConfig,
    weights: AudioWeights<B>,
    scratch: Scratch<B>,
    max_frames: usize,
    /// Rows read back for a tap.
    seen: Vec<f32>,
}

impl<B: Backend> AudioTower<B> {
    /// Finds the weights and takes memory for sounds of up to `max_frames` frames: [`bytes`] says how much.
    ///
    /// # Errors
    /// If the checkpoint has no sound encoder, another kind of one, or a tensor is missing, misshapen or unknown.
    pub fn load(backend: &mut B, checkpoint: &Checkpoint, max_frames: usize) -> Result<Self, ModelError> {
        let config = config(checkpoint)?;
        Ok(AudioTower {
            weights: load::audio::load(backend, checkpoint, &config)?,
            scratch: Scratch::new(backend, &config, max_frames)?,
            config,
            max_frames,
            seen: Vec::new(),
        })
    }

    /// What the checkpoint says.
    pub fn config(&self) -> &AudioConfig {
        &self.config
    }

    /// Soft tokens `[ceil(n_frames / 4), d_text]` of one sound, row by row.
    ///
    /// `mel` are the features of its frames, `[n_frames, 128]`: those that hold nothing but sound, without the frames that
    /// a batch is filled up with.
    ///
    /// # Errors
    /// If there are no frames, or more than there is room for.
    pub fn encode(
        &mut self,
        backend: &mut B,
        mel: &[f32],
        tap: Option<&mut dyn AudioTap>,
    ) -> Result<Vec<f32>, ModelError> {
        let n_frames = mel.len() / BANDS;
        if !(1..=self.max_frames).contains(&n_frames) || !mel.len().is_multiple_of(BANDS) {
            let expected = format!("1 to {} frames of {BANDS} features each", self.max_frames);
            return Err(ModelError::Features { found: format!("{} features", mel.len()), expected });
        }
        let (mut tap, n) = (tap, rows(n_frames));
        self.subsample(backend, mel);
        self.show(backend, &mut tap, 0, n);
        for l in 0..self.config.n_layers {
            self.feed_forward(backend, l, 0, n);
            self.attend(backend, l, n);
            self.convolve(backend, l, n);
            self.feed_forward(backend, l, 1, n);
            self.norm(backend, |w| &w.layers[l].out_norm, n);
            std::mem::swap(&mut self.scratch.x, &mut self.scratch.h);
            self.show(backend, &mut tap, l + 1, n);
        }
        Ok(self.project(backend, tap, n))
    }

    fn subsample(&mut self, backend: &mut B, mel: &[f32]) {
        let AudioConfig { filters, norm_eps: eps, .. } = self.config;
        let (w, s) = (&self.weights, &mut self.scratch);
        backend.upload(&mut s.mel, mel);
        let first = Subsampling { n: mel.len() / BANDS, bands: BANDS, channels: 1, filters: filters[0] };
        let norm = |i: usize| Norm { weight: &w.subsamplers[i].norm, eps };
        backend.subsample(&mut s.wide, &s.mel, &w.subsamplers[0].filters, norm(0), first);
        let (n, bands) = (halved(first.n), halved(first.bands));
        let second = Subsampling { n, bands, channels: filters[0], filters: filters[1] };
        backend.subsample(&mut s.subsampled, &s.wide, &w.subsamplers[1].filters, norm(1), second);
        let out = Projection { matrix: &w.subsampled, out: &mut s.x };
        backend.project(&mut [out], &s.subsampled, None, halved(n));
    }

    /// `h = rms(bounded x)`.
    fn norm(&mut self, backend: &mut B, weight: impl Fn(&AudioWeights<B>) -> &B::Vector, n: usize) {
        let (bounds, norm) =
            (magnitude(self.config.bound), Norm { weight: weight(&self.weights), eps: LAYER_NORM_EPS });
        backend.rms_norm(&mut self.scratch.h, &self.scratch.x, bounds, norm, n);
    }

    /// `x += rms(bounded h)`.
    fn add(&mut self, backend: &mut B, weight: impl Fn(&AudioWeights<B>) -> &B::Vector, n: usize) {
        let (bounds, norm) =
            (magnitude(self.config.bound), Norm { weight: weight(&self.weights), eps: LAYER_NORM_EPS });
        backend.add_rms_norm(&mut self.scratch.x, &self.scratch.h, bounds, norm, 1.0, n);
    }

    fn feed_forward(&mut self, backend: &mut B, l: usize, i: usize, n: usize) {
        self.norm(backend, |w| &w.layers[l].ffns[i].norm, n);
        let (w, s) = (&self.weights.layers[l].ffns[i], &mut self.scratch);
        let (width, up, down) = (self.config.ffn_width(), w.up.to(&mut s.wide), w.down.to(&mut s.t));
        backend.clipped_feed_forward(ClippedFeedForward { width, gate: None, up, down }, &s.h, n);
        std::mem::swap(&mut s.h, &mut s.t);
        self.add(backend, |w| &w.layers[l].ffns[i].post_norm, n);
    }

    fn attend(&mut self, backend: &mut B, l: usize, n: usize) {
        let AudioConfig { n_heads, reach, softcap, .. } = self.config;
        self.norm(backend, |w| &w.layers[l].attention_norm, n);
        let (w, s) = (&self.weights.layers[l], &mut self.scratch);
        backend.clipped_project(&mut [w.q.to(&mut s.q), w.k.to(&mut s.k), w.v.to(&mut s.v)], &s.h, n);
        let (scale, relative, head_dim) = (&w.query_scale, &w.distances, self.config.head_dim());
        let near = Near { n_heads, head_dim, reach, scale, relative, softcap };
        backend.attend_near(&mut s.t, &s.q, &s.k, &s.v, near, n);
        w.o.run(backend, &mut s.h, &s.t, n);
        self.add(backend, |w| &w.layers[l].post_attention_norm, n);
    }

    fn convolve(&mut self, backend: &mut B, l: usize, n: usize) {
        let AudioConfig { d_model: d, norm_eps: eps, .. } = self.config;
        let (w, s) = (&self.weights.layers[l], &mut self.scratch);
        backend.rms_norm(&mut s.h, &s.x, UNBOUNDED, Norm { weight: &w.conv_norm, eps }, n);
        w.conv_start.run(backend, &mut s.wide, &s.h, n);
        backend.glu(&mut s.h, &s.wide, d, n);
        backend.causal_conv(&mut s.t, &s.h, &w.taps, d, n);
        backend.rms_norm(&mut s.h, &s.t, magnitude(self.config.bound), Norm { weight: &w.taps_norm, eps }, n);
        backend.silu(&mut s.h, n * d);
        w.conv_end.run(backend, &mut s.t, &s.h, n);
        backend.add(&mut s.x, &s.t, n * d);
    }

    fn project(&mut self, backend: &mut B, tap: Option<&mut dyn AudioTap>, n: usize) -> Vec<f32> {
        let AudioConfig { d_out, d_text, norm_eps: eps, .. } = self.config;
        let (w, s) = (&self.weights, &mut self.scratch);
        backend.project(&mut [Projection { matrix: &w.out, out: &mut s.wide }], &s.x, None, n);
        backend.add_bias(&mut s.wide, &w.out_bias, n);
        if let Some(tap) = tap {
            self.seen.resize(n * d_out, 0.0);
            backend.download(&s.wide, 0, &mut self.seen);
            tap.output(&self.seen);
        }
        let out = Projection { matrix: &w.soft_tokens, out: &mut s.soft_tokens };
        backend.project(&mut [out], &s.wide, Some(Norm { weight: &w.ones, eps }), n);
        let mut soft_tokens = vec![0.0; n * d_text];
        backend.download(&s.soft_tokens, 0, &mut soft_tokens);
        soft_tokens
    }

    fn show(&mut self, backend: &mut B, tap: &mut Option<&mut dyn AudioTap>, stage: usize, n: usize) {
        if let Some(tap) = tap {
            self.seen.resize(n * self.config.d_model, 0.0);
            backend.download(&self.scratch.x, 0, &mut self.seen);
            tap.hidden(stage, &self.seen);
        }
    }
}

/// Rows of so many frames: they are halved twice.
pub fn rows(n_frames: usize) -> usize {
    halved(halved(n_frames))
}

/// From minus to plus.
fn magnitude(bound: f32) -> [f32; 2] {
    [-bound, bound]
}

/// The config of a checkpoint's sound encoder.
///
/// # Errors
/// If it has none, or one that works otherwise.
pub fn config(checkpoint: &Checkpoint) -> Result<AudioConfig, ModelError> {
    let none = |found: &str, expected| ModelError::NoEncoder { part: "sound", found: found.into(), expected };
    match checkpoint {
        Checkpoint::HfDir(dir) => {
            let config = AudioConfig::from_json(&dir.config)?;
            config.ok_or_else(|| none("its config.json has no audio_config", "E2B or E4B"))
        }
        Checkpoint::Gguf(file) => AudioConfig::from_gguf(file)?.ok_or_else(|| {
            none("its GGUF file holds none", "an mmproj GGUF file that does, or a directory with config.json")
        }),
    }
}

/// Values of each of the buffers that sounds of up to `n_frames` frames take, in the order of [`Scratch`].
fn lengths(config: &AudioConfig, n_frames: usize) -> [usize; 10] {
    let (n, d) = (rows(n_frames), config.d_model);
    let once = halved(n_frames) * halved(BANDS) * config.filters[0];
    let wide = once.max(n * config.ffn_width()).max(n * config.d_out);
    [n_frames * BANDS, n * d, n * d, n * d, n * d, n * d, n * d, wide, n * config.subsampled(), n * config.d_text]
}

/// Bytes of the buffers that an encoder for sounds of up to `n_frames` frames takes, beside its weights.
pub fn bytes(config: &AudioConfig, n_frames: usize) -> usize {
    4 * lengths(config, n_frames).iter().sum::<usize>()
}

impl<B: Backend> Scratch<B> {
    fn new(backend: &mut B, config: &AudioConfig, n_frames: usize) -> Result<Self, BackendError> {
        let [mel, x, h, t, q, k, v, wide, subsampled, soft_tokens] = lengths(config, n_frames);
        let mut buffer = |len: usize| backend.buffer(len);
        Ok(Scratch {
            mel: buffer(mel)?,
            x: buffer(x)?,
            h: buffer(h)?,
            t: buffer(t)?,
            q: buffer(q)?,
            k: buffer(k)?,
            v: buffer(v)?,
            wide: buffer(wide)?,
            subsampled: buffer(subsampled)?,
            soft_tokens: buffer(soft_tokens)?,
        })
    }
}
