//! What can go wrong between a checkpoint and its logits, in words that name the thing, what was found and what
//! was expected.

use carat_tensor::backend::BackendError;
use carat_tensor::{DType, TokenId};
use carat_weights::WeightsError;

/// Why a model computes what is no number, and what to do.
pub const BROKEN_WEIGHTS: &str = "a weight of its files is broken, or they were changed while in use; `carat inspect \
                                  MODEL --check` reads all weights and names those that are not finite";

/// Why a model could not be loaded or run.
#[derive(Debug, thiserror::Error)]
pub enum ModelError {
    /// A setting is missing or has a value this model can't have.
    #[error("config key `{key}` is {found}; expected {expected}")]
    Config {
        /// Key as the file spells it.
        key: String,
        /// The value, or `absent`.
        found: String,
        /// What would be right.
        expected: String,
    },
    /// A tensor that the config asks for isn't in the file.
    #[error("tensor `{name}` is missing; the config asks for it with shape {expected:?}")]
    MissingTensor {
        /// Name in the file.
        name: String,
        /// Its shape.
        expected: Vec<usize>,
    },
    /// A tensor's shape contradicts the config.
    #[error("tensor `{name}` has shape {found:?}; the config asks for {expected:?}")]
    WrongShape {
        /// Name in the file.
        name: String,
        /// As in the file.
        found: Vec<usize>,
        /// As the config asks.
        expected: Vec<usize>,
    },
    /// A norm weight or scale is stored in blocks.
    #[error("tensor `{name}` is {found}; expected a parameter in F32, F16 or BF16")]
    ParameterType {
        /// Name in the file.
        name: String,
        /// Its type.
        found: DType,
    },
    /// A parameter that isn't a number: everything computed with it would be none.
    #[error(
        "tensor `{name}`: value {index} is {found}; expected finite numbers (the file is damaged, or was written by a \
         failed conversion: get or make it again)"
    )]
    NotFinite {
        /// Name in the file.
        name: String,
        /// Which value.
        index: usize,
        /// The value.
        found: f32,
    },
    /// What the model computed is no number: logits made of it would mean nothing.
    #[error(
        "the model computed values that are not finite ({found}, in the tokens up to {position} of the context): {BROKEN_WEIGHTS}"
    )]
    NoNumbers {
        /// The last token that may have made it, from 0: attention spreads it to some before it, too.
        position: usize,
        /// The first such value.
        found: f32,
    },
    /// A quantised tensor lies in the file in a way that isn't known here.
    #[error("tensor `{name}`: found {found}; expected {expected}")]
    Layout {
        /// Name of the weight the tensor belongs to.
        name: String,
        /// What is there.
        found: String,
        /// What would be readable.
        expected: String,
    },
    /// The file holds tensors that this model has no place for.
    #[error("the file holds {count} tensors this model has no place for: {names}")]
    UnknownTensors {
        /// How many.
        count: usize,
        /// The first of them.
        names: String,
    },
    /// The model can't see or hear.
    #[error("the model has no {part} encoder: {found}; expected {expected}")]
    NoEncoder {
        /// `picture` or `sound`.
        part: &'static str,
        /// What there is.
        found: String,
        /// Where an encoder would be.
        expected: &'static str,
    },
    /// Bounds of a product that no number is between.
    #[error("tensor `{name}` is {found}; expected a number {expected}")]
    Bound {
        /// Name in the file.
        name: String,
        /// The value.
        found: f32,
        /// What would be right.
        expected: String,
    },
    /// Patches that are no picture's.
    #[error("a picture has {found}; expected {expected}")]
    Patches {
        /// What was given.
        found: String,
        /// What the encoder takes.
        expected: String,
    },
    /// Samples that are no frames.
    #[error("a sound has {found} samples; expected {expected}")]
    Frames {
        /// How many were given.
        found: usize,
        /// What the encoder takes.
        expected: String,
    },
    /// Features that are no sound's.
    #[error("a sound has {found}; expected {expected}")]
    Features {
        /// What was given.
        found: String,
        /// What the encoder takes.
        expected: String,
    },
    /// A cache type that needs whole blocks of 32 values.
    #[error("a {dtype} cache needs head sizes in multiples of 32; layer {layer} has {head_dim}")]
    KvBlocks {
        /// Cache type.
        dtype: &'static str,
        /// The layer.
        layer: usize,
        /// Its head size.
        head_dim: usize,
    },
    /// An option with an impossible value.
    #[error("option `{option}` is {found}; expected {expected}")]
    Option {
        /// Its name.
        option: &'static str,
        /// Its value.
        found: usize,
        /// What would be right.
        expected: String,
    },
    /// The cache is full.
    #[error("the context holds {ctx} tokens: {tokens} more don't fit at position {position}")]
    ContextFull {
        /// Capacity.
        ctx: usize,
        /// Tokens in the cache.
        position: usize,
        /// Tokens of the step.
        tokens: usize,
    },
    /// An id beyond the vocabulary.
    #[error("token id {id} is not in the vocabulary of {vocab_size}")]
    UnknownToken {
        /// The id.
        id: TokenId,
        /// Size of the vocabulary.
        vocab_size: usize,
    },
    /// Logits were asked for every row of more rows than one chunk.
    #[error("logits of all of {tokens} tokens were asked for at once; a step holds at most {chunk}")]
    TooManyRows {
        /// Tokens of the step.
        tokens: usize,
        /// The limit.
        chunk: usize,
    },
    /// Soft tokens of another width than the model's rows.
    #[error("{n} soft tokens have {found} values; expected {d_model} for each, the width of the model")]
    SoftTokens {
        /// How many there are.
        n: usize,
        /// Values of all.
        found: usize,
        /// Width of a row.
        d_model: usize,
    },
    /// A picture whose tokens see each other is longer than a pass.
    #[error(
        "{found} soft tokens in a row must be computed together, and there is room for {most}: load the model for larger \
         pictures (--image-tokens), or put text between them"
    )]
    LongBlock {
        /// Its tokens.
        found: usize,
        /// Rows of a pass.
        most: usize,
    },
    /// Logits were asked for without a token.
    #[error("logits were asked for in a step without tokens")]
    EmptyStep,
    /// The file.
    #[error(transparent)]
    Weights(#[from] WeightsError),
    /// The backend.
    #[error(transparent)]
    Backend(#[from] BackendError),
}
