//! What prefill computes, counted: a backend that does no arithmetic adds up the multiply-adds it is asked for.
//!
//! The expected counts are written out from the shapes, apart from the plan and the forward pass.
#![allow(clippy::unwrap_used, reason = "a panic is a failed test")]

use std::ops::Range;
use std::path::Path;

use carat_model::{Decoder, DecoderOptions, LogitRows, Piece, Step};
use carat_tensor::backend::{
    Attention, BackendError, ClippedProjection, EncoderWork, Experts, KvSpec, KvType, LayerNorm, Near, Norm, Pooling,
    Projection, Rope, Rounding, Router, Stack, Subsampling, Work,
};
use carat_tensor::{Backend, Tensor, TokenId};

/// Counts products with weights; `Matrix` is `(rows, cols)`.
#[derive(Default)]
struct Counter {
    multiply_adds: std::cell::Cell<usize>,
}

impl Counter {
    fn count(&self, &(rows, cols): &(usize, usize), n: usize) {
        self.multiply_adds.set(self.multiply_adds.get() + rows * cols * n);
    }
}

#[rustfmt::skip]
impl Backend for Counter {
    type Buffer = ();
    type Matrix = (usize, usize);
    type Vector = ();
    type Kv = ();
    type Routes = ();

    fn name(&self) -> String { "counter".into() }
    fn workspace(&self, _: &Work, _: &[&EncoderWork]) -> usize { 0 }
    fn set_rounding(&mut self, _: Rounding) {}
    fn buffer(&mut self, _: usize) -> Result<(), BackendError> { Ok(()) }
    fn matrix(&mut self, tensor: &Tensor) -> Result<(usize, usize), BackendError> { Ok((tensor.rows(), tensor.cols())) }
    fn rows(&self, matrix: &(usize, usize), rows: Range<usize>) -> (usize, usize) { (rows.len(), matrix.1) }
    fn vector(&mut self, _: &[f32]) -> Result<(), BackendError> { Ok(()) }
    fn kv(&mut self, _: KvSpec) -> Result<(), BackendError> { Ok(()) }
    fn upload_at(&mut self, _: &mut (), _: usize, _: &[f32]) {}
    fn download(&mut self, _: &(), _: usize, _: &mut [f32]) {}
    fn copy(&mut self, _: &mut (), _: &(), _: usize, _: usize) {}
    fn gather(&mut self, _: &mut (), _: &(usize, usize), _: &[TokenId], _: Range<usize>, _: f32) {}
    fn rope_table(&mut self, _: &mut (), _: &[f32], _: usize, _: usize) {}
    fn combine_per_layer(&mut self, _: &mut (), _: &(), _: f32, _: Norm<'_, ()>, _: usize) {}
    fn rms_norm(&mut self, _: &mut (), _: &(), _: [f32; 2], _: Norm<'_, ()>, _: usize) {}
    fn project(&mut self, outs: &mut [Projection<'_, (usize, usize), ()>], _: &(), _: Option<Norm<'_, ()>>, n: usize) {
        outs.iter().for_each(|p| self.count(p.matrix, n));
    }
    fn gated_project(&mut self, _: &mut (), gate: &(usize, usize), up: &(usize, usize), _: &(), _: Norm<'_, ()>, n: usize) {
        self.count(gate, n);
        self.count(up, n);
    }
    fn gated_input(&mut self, _: &mut (), m: &(usize, usize), _: &(), _: &(), _: usize, _: usize, n: usize) { self.count(m, n); }
    fn add_rms_norm(&mut self, _: &mut (), _: &(), _: [f32; 2], _: Norm<'_, ()>, _: f32, _: usize) {}
    fn sum_rms_norms(&mut self, _: &mut (), _: &(), _: Norm<'_, ()>, _: &(), _: Norm<'_, ()>, _: usize) {}
    fn norm_heads(&mut self, _: &mut (), _: Option<&()>, _: f32, _: Option<Rope<'_, ()>>, _: usize, _: usize, _: usize) {}
    fn kv_write(&mut self, _: &mut (), _: &(), _: &(), _: usize, _: usize) {}
    fn attention(&mut self, _: &mut (), _: &(), _: &(), _: Attention<'_>) {}
    fn route(&mut self, _: &mut (), _: &(), router: Router<'_, (usize, usize), ()>, n: usize) { self.count(router.proj, n); }
    fn experts(&mut self, _: &mut (), _: &(), _: Norm<'_, ()>, e: Experts<'_, (usize, usize)>, (): &(), n: usize) {
        let one = |s: &Stack<'_, (usize, usize)>| (s.rows, s.matrix.1);
        [&e.gate, &e.up, &e.down].iter().for_each(|s| self.count(&one(s), n));
    }
    fn clipped_project(&mut self, outs: &mut [ClippedProjection<'_, (usize, usize), ()>], _: &(), n: usize) {
        outs.iter().for_each(|out| self.count(out.projection.matrix, n));
    }
    fn gate(&mut self, _: &mut (), _: &(), _: usize) {}
    fn layer_norm(&mut self, _: &mut (), _: &(), _: LayerNorm<'_, ()>, _: usize) {}
    fn add(&mut self, _: &mut (), _: &(), _: usize) {}
    fn attend_all(&mut self, _: &mut (), _: &(), _: &(), _: &(), _: usize, _: usize, _: usize) {}
    fn pool(&mut self, _: &mut (), _: &(), _: Pooling<'_, ()>) {}
    fn subsample(&mut self, _: &mut (), _: &(), _: &(), _: Norm<'_, ()>, _: Subsampling) {}
    fn add_bias(&mut self, _: &mut (), _: &(), _: usize) {}
    fn silu(&mut self, _: &mut (), _: usize) {}
    fn glu(&mut self, _: &mut (), _: &(), _: usize, _: usize) {}
    fn causal_conv(&mut self, _: &mut (), _: &(), _: &(), _: usize, _: usize) {}
    fn attend_near(&mut self, _: &mut (), _: &(), _: &(), _: &(), _: Near<'_, ()>, _: usize) {}
    fn logits(&mut self, _: &mut (), matrix: &(usize, usize), _: &(), _: Norm<'_, ()>, _: Option<f32>, n: usize) { self.count(matrix, n); }
}

/// Multiply-adds of one step of 50 tokens on the e2b fixture.
fn work(logits: LogitRows) -> usize {
    let dir = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../fixtures/e2b"));
    let mut checkpoint = carat_weights::open(dir).unwrap();
    let options = DecoderOptions { ctx: 64, kv: KvType::F32, chunk: 64, ..DecoderOptions::default() };
    let (mut decoder, _) = Decoder::load(Counter::default(), &mut checkpoint, options).unwrap();
    decoder.forward(Step { pieces: &[Piece::Tokens(&[TokenId(20); 50])], logits }).unwrap();
    decoder.backend().multiply_adds.get()
}

/// The fixture: width 64, 4 heads of 16 (full: 32), one key head, feed-forward 64 (shared layers 128), per-layer
/// inputs of 16, 10 layers of which 4 and 9 are full and 5 to 9 are shared, 288 tokens.
const QO: [usize; 2] = [2 * 64 * 64, 2 * 128 * 64];
const KV: [usize; 2] = [2 * 16 * 64, 2 * 32 * 64];
const INPUT: usize = 2 * 16 * 64;
const CONTEXT: usize = 16 * 64;
/// What a row costs in the four sliding layers below the last one with keys of its own.
const FILL: usize = 4 * (QO[0] + KV[0] + 3 * 64 * 64 + INPUT + CONTEXT);
/// The rest of that layer, and the shared ones.
const REST: usize = (QO[1] + 3 * 64 * 64 + INPUT + CONTEXT)
    + 4 * (QO[0] + 3 * 128 * 64 + INPUT + CONTEXT)
    + (QO[1] + 3 * 128 * 64 + INPUT + CONTEXT);
const HEAD: usize = 288 * 64;

#[test]
fn all_rows_pass_all_layers_when_all_logits_are_wanted() {
    assert_eq!(work(LogitRows::All), 50 * (FILL + KV[1] + REST + HEAD));
}

#[test]
fn one_row_passes_the_layers_that_nobody_reads() {
    assert_eq!(work(LogitRows::Last), 50 * (FILL + KV[1]) + REST + HEAD);
}

#[test]
fn no_row_passes_them_when_the_cache_is_filled() {
    assert_eq!(work(LogitRows::None), 50 * (FILL + KV[1]));
}
