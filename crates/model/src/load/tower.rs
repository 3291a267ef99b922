//! What loading any encoder shares: where its names are, matrices between bounds.
//!
//! An encoder lies beside the text model in a Hugging Face directory, or in a GGUF file of its own (`mmproj`). A checkpoint
//! without its text model is enough, and the text model's loader leaves these tensors alone.

use carat_tensor::backend::Clip;
use carat_tensor::{Backend, Tensor};
use carat_weights::Checkpoint;

use super::names::{BOUNDED_MATRIX, BOUNDS, Name, TOWER_PREFIXES};
use super::source::{Source, numbers, values};
use crate::ModelError;
use crate::linear::Linear;

/// An encoder's tensors, in either kind of file.
pub(super) struct TowerSource<'a, B: Backend> {
    pub backend: &'a mut B,
    source: Source<'a>,
    /// Of Hugging Face names; `None` for a GGUF file.
    prefix: Option<&'static str>,
    /// Whether matrices of layers have bounds.
    clipped: bool,
}

impl<'a, B: Backend> TowerSource<'a, B> {
    /// `first` is a tensor that every such encoder has.
    pub fn new(backend: &'a mut B, checkpoint: &'a Checkpoint, first: Name, clipped: bool) -> Result<Self, ModelError> {
        let tensors = checkpoint.tensors();
        let has = |prefix: &&str| tensors.contains(&format!("{prefix}{}", first.hf));
        let prefix = match checkpoint {
            Checkpoint::HfDir(_) => Some(TOWER_PREFIXES.into_iter().find(has).unwrap_or(TOWER_PREFIXES[0])),
            Checkpoint::Gguf(_) => None,
        };
        Ok(TowerSource { backend, source: Source::new(checkpoint)?, prefix, clipped })
    }

    /// Whether the file is a GGUF file, some of whose tensors are laid out otherwise.
    pub fn is_gguf(&self) -> bool {
        self.prefix.is_none()
    }

    fn spell(&self, name: Name) -> String {
        match self.prefix {
            Some(prefix) => format!("{prefix}{}", name.hf),
            None => name.gguf.into(),
        }
    }

    /// How names of layer `l` start, `{}` in `layers` standing for it.
    pub fn layer(&self, layers: Name, l: usize) -> Layer {
        Layer(self.spell(layers).replace("{}", &l.to_string()))
    }

    /// In layer or without.
    fn full(&self, layer: Option<&Layer>, name: Name) -> String {
        match (layer, self.is_gguf()) {
            (None, _) => self.spell(name),
            (Some(layer), false) => format!("{}{}", layer.0, name.hf),
            (Some(layer), true) => format!("{}{}", layer.0, name.gguf),
        }
    }

    /// The tensor, which must have this shape.
    pub fn take(&self, layer: Option<&Layer>, name: Name, shape: &[usize]) -> Result<Tensor, ModelError> {
        self.source.take_named(&self.full(layer, name), shape)
    }

    /// A matrix, all dimensions but the last its rows.
    pub fn matrix(&mut self, layer: Option<&Layer>, name: Name, shape: &[usize]) -> Result<B::Matrix, ModelError> {
        let tensor = self.take(layer, name, shape)?;
        Ok(self.backend.matrix(&tensor)?)
    }

    /// A parameter's values, of any shape.
    pub fn values(&self, layer: Option<&Layer>, name: Name, shape: &[usize]) -> Result<Vec<f32>, ModelError> {
        values(&self.take(layer, name, shape)?)
    }

    /// A parameter, of any shape.
    pub fn vector(&mut self, layer: Option<&Layer>, name: Name, shape: &[usize]) -> Result<B::Vector, ModelError> {
        let values = self.values(layer, name, shape)?;
        Ok(self.backend.vector(&values)?)
    }

    /// A matrix of a layer with its bounds.
    pub fn linear(&mut self, layer: &Layer, name: Name, shape: &[usize]) -> Result<Linear<B>, ModelError> {
        let stem = self.full(Some(layer), name);
        let end = if self.is_gguf() { BOUNDED_MATRIX.gguf } else { BOUNDED_MATRIX.hf };
        let tensor = self.source.take_named(&format!("{stem}{end}"), shape)?;
        let matrix = self.backend.matrix(&tensor)?;
        if !self.clipped {
            return Ok(Linear { matrix, clip: Clip::NONE });
        }
        let [a, b, c, d] = BOUNDS.map(|end| format!("{stem}{end}"));
        let (input, output) = (self.bounds(&a, &b)?, self.bounds(&c, &d)?);
        Ok(Linear { matrix, clip: Clip { input, output } })
    }

    /// A lower and an upper bound; what the file leaves out is infinite, as in the reference.
    fn bounds(&self, low: &str, high: &str) -> Result<[f32; 2], ModelError> {
        let bound = |name: &str, absent: f32| match self.source.take_optional(name)? {
            None => Ok(absent),
            Some(tensor) if tensor.len() == 1 => Ok(numbers(&tensor)?[0]),
            Some(tensor) => {
                let (name, found) = (tensor.name, tensor.shape);
                Err(ModelError::WrongShape { name, found, expected: Vec::new() })
            }
        };
        let bounds = [bound(low, f32::NEG_INFINITY)?, bound(high, f32::INFINITY)?];
        if bounds[0] <= bounds[1] {
            return Ok(bounds);
        }
        Err(ModelError::Bound { name: high.into(), found: bounds[1], expected: format!("not below {}", bounds[0]) })
    }

    /// Refuses tensors of the encoder that nobody has taken; `others` are parts of other encoders whose names start alike.
    pub fn finish(&self, parts: &[Name], others: &[Name]) -> Result<(), ModelError> {
        let spelt = |names: &[Name]| -> Vec<String> { names.iter().map(|name| self.spell(*name)).collect() };
        // What follows `mm.` in a GGUF file may be of either encoder.
        let others = if self.is_gguf() { spelt(others) } else { Vec::new() };
        self.source.finish_parts(&spelt(parts), &others)
    }
}

/// How the names of a layer start.
pub(super) struct Layer(String);
