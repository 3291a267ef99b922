//! A product between bounds, as encoders have them. Source: transformers `modeling_gemma4.Gemma4ClippableLinear`.

use carat_tensor::Backend;
use carat_tensor::backend::{Clip, ClippedProjection, Projection};

/// A matrix and the bounds around its product.
pub(crate) struct Linear<B: Backend> {
    pub matrix: B::Matrix,
    pub clip: Clip,
}

impl<B: Backend> Linear<B> {
    /// `out` of `n` rows of `x`.
    pub fn run(&self, backend: &mut B, out: &mut B::Buffer, x: &B::Buffer, n: usize) {
        backend.clipped_project(&mut [self.to(out)], x, n);
    }

    /// One of several products of the same rows.
    pub fn to<'a>(&'a self, out: &'a mut B::Buffer) -> ClippedProjection<'a, B::Matrix, B::Buffer> {
        ClippedProjection { projection: Projection { matrix: &self.matrix, out }, clip: self.clip }
    }
}
