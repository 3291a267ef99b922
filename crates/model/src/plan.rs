//! `ModelConfig → Vec<LayerPlan>`: every difference between layers, resolved once.
//!
//! The block in `layer.rs` matches on a plan and knows neither the config nor the other layers.

use crate::ModelConfig;
use crate::config::LayerType;

/// A layer, from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LayerId(pub usize);

/// Which keys a query sees; also selects RoPE and head size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Span {
    /// The last `window` positions, the query's own included.
    Sliding {
        /// Number of positions.
        window: usize,
    },
    /// All positions up to the query's own.
    Full,
}

impl Span {
    /// The window, where there is one.
    pub fn window(self) -> Option<usize> {
        match self {
            Span::Sliding { window } => Some(window),
            Span::Full => None,
        }
    }
}

/// Whose keys and values a layer reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KvSource {
    /// Its own.
    Own,
    /// Those of the last layer of the same type that has its own.
    SharedWith(LayerId),
}

/// What a layer's values are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ValueSource {
    /// A projection of their own.
    Projected,
    /// The key projection before norm and RoPE.
    SameAsKey,
}

/// The feed-forward of a layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FfnPlan {
    /// One gated network.
    Dense {
        /// Its width.
        width: usize,
    },
    /// A gated network and routed experts read the same residual; their outputs are summed.
    DenseAndExperts {
        /// Width of the dense network.
        width: usize,
        /// Experts of the layer.
        n_experts: usize,
        /// Experts per row.
        top_k: usize,
        /// Width of each expert.
        expert_width: usize,
    },
}

impl FfnPlan {
    /// Width of the dense network.
    pub fn width(self) -> usize {
        match self {
            FfnPlan::Dense { width } | FfnPlan::DenseAndExperts { width, .. } => width,
        }
    }
}

/// One layer's shape.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LayerPlan {
    /// Query heads.
    pub n_heads: usize,
    /// Heads of keys and values; query head `i` reads `i / (n_heads / n_kv_heads)`.
    pub n_kv_heads: usize,
    /// Values per head.
    pub head_dim: usize,
    /// Pairs of each head that RoPE turns.
    pub rotated_pairs: usize,
    /// Window or all.
    pub span: Span,
    /// Own or another layer's keys and values.
    pub kv: KvSource,
    /// Projected or equal to the key.
    pub value: ValueSource,
    /// Whether values are normed, without a weight.
    pub normed_value: bool,
    /// Multiplies the scores; the queries' norm takes it up.
    pub attention_scale: f32,
    /// Whether a number of the layer's own multiplies the residual at its end.
    pub scaled: bool,
    /// Dense, or dense and experts.
    pub ffn: FfnPlan,
}

impl LayerPlan {
    /// Width of all query heads.
    pub fn q_width(&self) -> usize {
        self.n_heads * self.head_dim
    }

    /// Width of all key heads.
    pub fn kv_width(&self) -> usize {
        self.n_kv_heads * self.head_dim
    }
}

/// The plan of every layer. The config has been checked.
pub fn plan(config: &ModelConfig) -> Vec<LayerPlan> {
    let first_shared = config.first_shared();
    let donor = |layer_type: LayerType| {
        let own = &config.layers[..first_shared];
        let index = own.iter().rposition(|l| l.layer_type == layer_type);
        LayerId(index.expect("ModelConfig::check found a donor for every shared layer"))
    };
    let layer = |(i, layer): (usize, &crate::config::LayerConfig)| {
        let full = layer.layer_type == LayerType::Full;
        let inv_freq = config.rope(layer.layer_type).inv_freq(layer.head_dim);
        let width = layer.ffn_width;
        LayerPlan {
            n_heads: config.n_heads,
            n_kv_heads: layer.n_kv_heads,
            head_dim: layer.head_dim,
            rotated_pairs: inv_freq.iter().rposition(|&f| f != 0.0).map_or(0, |last| last + 1),
            span: if full { Span::Full } else { Span::Sliding { window: config.window } },
            kv: if i < first_shared { KvSource::Own } else { KvSource::SharedWith(donor(layer.layer_type)) },
            value: if full && config.full_value_is_key { ValueSource::SameAsKey } else { ValueSource::Projected },
            normed_value: config.normed_values,
            attention_scale: config.attention_scale,
            scaled: config.layer_scales,
            ffn: match config.experts {
                None => FfnPlan::Dense { width },
                Some(e) => {
                    FfnPlan::DenseAndExperts { width, n_experts: e.n_experts, top_k: e.top_k, expert_width: e.width }
                }
            },
        }
    };
    config.layers.iter().enumerate().map(layer).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(name: &str) -> Vec<LayerPlan> {
        plan(&ModelConfig::preset(name).unwrap())
    }

    /// The table of donors in the family's description: the last layer of the same type that has its own.
    #[test]
    fn shared_layers_read_the_last_own_layer_of_their_type() {
        for (name, first, sliding, full) in [("E2B", 15, 13, 14), ("E4B", 24, 22, 23)] {
            for (i, layer) in of(name).iter().enumerate() {
                let donor = if layer.span == Span::Full { full } else { sliding };
                let expected = if i < first { KvSource::Own } else { KvSource::SharedWith(LayerId(donor)) };
                assert_eq!(layer.kv, expected, "{name} layer {i}");
            }
        }
    }

    #[test]
    fn the_wide_feed_forward_is_on_shared_layers_only() {
        let widths: Vec<_> = of("E2B").iter().map(|l| l.ffn.width()).collect();
        assert_eq!(widths, [vec![6144; 15], vec![12288; 20]].concat());
    }

    #[test]
    fn full_layers_of_the_large_sizes_take_their_key_for_value() {
        for layer in of("31B") {
            let full = layer.span == Span::Full;
            assert_eq!(layer.value == ValueSource::SameAsKey, full);
            assert_eq!(layer.rotated_pairs, if full { 64 } else { 128 });
            assert_eq!((layer.q_width(), layer.kv_width()), if full { (16384, 2048) } else { (8192, 4096) });
        }
    }
}
