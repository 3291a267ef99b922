//! A product between bounds, as encoders have them. Source: transformers `modeling_gemma4.Gemma4ClippableLinear`.

use carat_tensor::Backend;
use carat_tensor::backend::{Clip, Projection};

/// A matrix and the bounds around its product.
pub(crate) struct Linear<B: Backend> {
    pub matrix: B::Matrix,
    pub clip: Clip,
}

impl<B: Backend> Linear<B> {
    /// `out` of `n` rows of `x`.
    pub fn run(&self, backend: &mut B, out: &mut B::Buffer, x: &B::Buffer, n: usize) {
        backend.clipped_project(Projection { matrix: &self.matrix, out }, x, self.clip, n);
    }
}
