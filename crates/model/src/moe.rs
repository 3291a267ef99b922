//! Experts beside a dense feed-forward: both read the residual after attention, each through its own norm.
//!
//! ```text
//! h = rms(mlp(rms(x)))  +  rms(Σ_j g_j · expert_j(rms(x)))       g = top-k softmax of the router, on x itself
//! ```
//!
//! Source: transformers `modeling_gemma4.Gemma4TextDecoderLayer.forward`, `Gemma4TextRouter`, `Gemma4TextExperts`.

use carat_tensor::Backend;
use carat_tensor::backend::{Experts, Norm, Router, Stack};

use crate::layer::Mlp;
use crate::scratch::{ExpertScratch, Scratch, Stream};

/// Matrices of experts, as the file stacks them.
pub(crate) enum ExpertMatrices<B: Backend> {
    /// Per expert `2 · width` rows, the gate's first.
    Joined {
        /// `[n_experts · 2 · width, d]`.
        gate_up: B::Matrix,
    },
    /// In two tensors.
    Split {
        /// `[n_experts · width, d]`.
        gate: B::Matrix,
        /// As `gate`.
        up: B::Matrix,
    },
}

/// Router, experts and the norms around them.
pub(crate) struct Moe<B: Backend> {
    /// `[n_experts, d]`.
    pub router: B::Matrix,
    /// `[d]`, with `d^(-1/2)` folded in.
    pub router_scale: B::Vector,
    pub per_expert_scale: B::Vector,
    pub matrices: ExpertMatrices<B>,
    /// `[n_experts · d, width]`.
    pub down: B::Matrix,
    /// Before the experts.
    pub norm: B::Vector,
    /// After the dense network.
    pub post_dense_norm: B::Vector,
    /// After the experts.
    pub post_experts_norm: B::Vector,
    pub top_k: usize,
    /// Width of each expert.
    pub width: usize,
    pub d_model: usize,
}

impl<B: Backend> Moe<B> {
    /// Leaves the sum of both branches in `scratch.h`.
    pub fn run(&self, backend: &mut B, mlp: &Mlp<B>, scratch: &mut Scratch<B>, rows: &Stream<B>, eps: f32) {
        let Scratch { h, ffn, experts, .. } = scratch;
        let Some(ExpertScratch { dense, routed, routes }) = experts else { return };
        mlp.run(backend, dense, ffn, rows, eps);
        let router = Router {
            proj: &self.router,
            scale: &self.router_scale,
            per_expert_scale: &self.per_expert_scale,
            top_k: self.top_k,
            eps,
        };
        backend.route(routes, &rows.x, router, rows.n);
        backend.experts(routed, &rows.x, Norm { weight: &self.norm, eps }, self.experts(), routes, rows.n);
        let dense_norm = Norm { weight: &self.post_dense_norm, eps };
        let experts_norm = Norm { weight: &self.post_experts_norm, eps };
        backend.sum_rms_norms(h, dense, dense_norm, routed, experts_norm, rows.n);
    }

    fn experts(&self) -> Experts<'_, B::Matrix> {
        let rows = self.width;
        let (gate, up) = match &self.matrices {
            ExpertMatrices::Joined { gate_up } => (
                Stack { matrix: gate_up, first: 0, stride: 2 * rows, rows },
                Stack { matrix: gate_up, first: rows, stride: 2 * rows, rows },
            ),
            ExpertMatrices::Split { gate, up } => (
                Stack { matrix: gate, first: 0, stride: rows, rows },
                Stack { matrix: up, first: 0, stride: rows, rows },
            ),
        };
        let down = Stack { matrix: &self.down, first: 0, stride: self.d_model, rows: self.d_model };
        Experts { gate, up, down }
    }
}
