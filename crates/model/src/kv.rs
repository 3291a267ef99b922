//! The KV cache of one sequence: rings for sliding layers, full length for full ones, nothing for shared ones.
//!
//! A ring holds one window and the chunk being written, so that a chunk can be stored before its first row reads,
//! and so that the last tokens can be taken back. Layers whose value is their key store values and the turned
//! part of the keys; the key norm's weight for the rest is folded into the queries ([`fold_key_norm`]).

use carat_tensor::Backend;
use carat_tensor::backend::{BackendError, KvForm, KvSpec, KvType};

use crate::ModelError;
use crate::plan::{KvSource, LayerPlan, ValueSource};

/// Capacities are multiples of this, so that kernels can work on whole tiles of positions.
const CAPACITY_STEP: usize = 32;
/// Values per block of a quantised cache.
const BLOCK: usize = 32;

/// The cache's name in tables and on the command line.
pub fn type_name(dtype: KvType) -> &'static str {
    match dtype {
        KvType::F32 => "f32",
        KvType::F16 => "f16",
        KvType::Q8_0 => "q8_0",
    }
}

/// The cache of layer `layer`, or `None` where it reads another layer's.
///
/// # Errors
/// If `dtype` needs whole blocks and the heads aren't made of them.
pub fn spec(
    plan: &LayerPlan,
    layer: usize,
    ctx: usize,
    chunk: usize,
    dtype: KvType,
) -> Result<Option<KvSpec>, ModelError> {
    if plan.kv != KvSource::Own {
        return Ok(None);
    }
    let whole = |values: usize| dtype != KvType::Q8_0 || values.is_multiple_of(BLOCK);
    if !whole(plan.head_dim) {
        return Err(ModelError::KvBlocks { dtype: type_name(dtype), layer, head_dim: plan.head_dim });
    }
    let pairs = plan.rotated_pairs;
    let form = if plan.value == ValueSource::SameAsKey && pairs > 0 && whole(2 * pairs) {
        KvForm::ValueAndRotated { pairs }
    } else {
        KvForm::Pair
    };
    let positions = plan.span.window().map_or(ctx, |window| ctx.min(window + chunk - 1));
    let capacity = positions.next_multiple_of(CAPACITY_STEP);
    Ok(Some(KvSpec { n_kv_heads: plan.n_kv_heads, head_dim: plan.head_dim, capacity, form, dtype }))
}

/// Multiplies the query norm's weight by the key norm's in the dimensions that RoPE leaves alone: there the cache
/// holds values, `k_d = v_d · k_norm_d`, hence `q_d · k_d = (q_d · k_norm_d) · v_d`.
pub fn fold_key_norm(q_norm: &mut [f32], k_norm: &[f32], pairs: usize) {
    let half = q_norm.len() / 2;
    for (d, (q, k)) in q_norm.iter_mut().zip(k_norm).enumerate() {
        if d % half >= pairs {
            *q *= k;
        }
    }
}

/// Keys and values of all layers that have their own, which are the first ones.
pub(crate) struct Cache<B: Backend> {
    /// By layer.
    pub layers: Vec<B::Kv>,
    /// Window and capacity of the smallest ring relative to its window, where there are rings.
    ring: Option<(usize, usize)>,
    len: usize,
    /// The longest the sequence has been since the last reset: rings have forgotten what lies a capacity before.
    longest: usize,
}

impl<B: Backend> Cache<B> {
    pub fn new(backend: &mut B, plan: &[LayerPlan], specs: &[KvSpec]) -> Result<Self, BackendError> {
        let layers = specs.iter().map(|spec| backend.kv(*spec)).collect::<Result<_, _>>()?;
        let rings = plan.iter().zip(specs).filter_map(|(p, spec)| p.span.window().map(|w| (w, spec.capacity)));
        let ring = rings.min_by_key(|(window, capacity)| *capacity as isize - *window as isize);
        Ok(Cache { layers, ring, len: 0, longest: 0 })
    }

    /// Tokens held.
    pub fn len(&self) -> usize {
        self.len
    }

    /// `n` tokens have been written.
    pub fn advance(&mut self, n: usize) {
        self.len += n;
        self.longest = self.longest.max(self.len);
    }

    pub fn reset(&mut self) {
        (self.len, self.longest) = (0, 0);
    }

    /// Forgets the tokens from `len` on; false, and nothing done, where the rings no longer hold what the next
    /// query would read.
    pub fn truncate(&mut self, len: usize) -> bool {
        if len >= self.len {
            return true;
        }
        if len == 0 {
            self.reset();
            return true;
        }
        let held = self.ring.is_none_or(|(window, capacity)| {
            let needed = (len + 1).saturating_sub(window);
            needed >= self.longest.saturating_sub(capacity)
        });
        if held {
            self.len = len;
        }
        held
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ModelConfig;
    use crate::plan::plan;

    fn bytes(name: &str, ctx: usize, dtype: KvType) -> usize {
        let plan = plan(&ModelConfig::preset(name).unwrap());
        let layers = plan.iter().enumerate();
        layers.filter_map(|(i, p)| spec(p, i, ctx, 512, dtype).unwrap()).map(|s| s.bytes()).sum()
    }

    #[test]
    fn shared_layers_take_no_memory_and_full_ones_grow() {
        // E2B: 12 sliding layers of 2·256 values on 1024 positions, 3 full ones of 2·512 on all.
        assert_eq!(bytes("E2B", 131_072, KvType::F16), 2 * (12 * 512 * 1024 + 3 * 1024 * 131_072));
    }

    #[test]
    fn layers_whose_value_is_their_key_store_640_values_of_1024() {
        // 31B: 50 sliding layers, 16 heads; 10 full ones of 4 heads with 512 + 128 values.
        let sliding = 50 * 16 * 512 * 1536;
        assert_eq!(bytes("31B", 262_144, KvType::F16), 2 * (sliding + 10 * 4 * 640 * 262_144));
    }

    #[test]
    fn quantised_caches_take_34_bytes_for_32_values() {
        assert_eq!(bytes("E4B", 8192, KvType::Q8_0) * 64, bytes("E4B", 8192, KvType::F16) * 34);
    }

    #[test]
    fn keys_of_which_nothing_turns_are_stored_like_any() {
        let mut plan = plan(&ModelConfig::preset("31B").unwrap());
        let full = plan.iter_mut().find(|layer| layer.value == ValueSource::SameAsKey).unwrap();
        full.rotated_pairs = 0;
        assert_eq!(spec(full, 5, 64, 8, KvType::F16).unwrap().unwrap().form, KvForm::Pair);
    }

    #[test]
    fn heads_that_are_not_whole_blocks_are_refused() {
        let mut plan = plan(&ModelConfig::preset("E2B").unwrap());
        plan[0].head_dim = 80;
        let error = spec(&plan[0], 0, 64, 8, KvType::Q8_0).unwrap_err().to_string();
        assert!(error.contains("q8_0") && error.contains("layer 0") && error.contains("80"), "{error}");
    }

    #[test]
    fn the_key_norm_is_folded_where_rope_leaves_the_key_alone() {
        let mut q = vec![1.0; 8];
        fold_key_norm(&mut q, &[2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0], 1);
        assert_eq!(q, [1.0, 3.0, 4.0, 5.0, 1.0, 7.0, 8.0, 9.0]);
    }
}
