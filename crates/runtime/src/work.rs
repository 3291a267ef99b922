//! How much a model has to do per token: what speed is measured against.
//!
//! Counted from the shapes. Decoding is bound by the bytes it reads, the prompt by its multiplications; both
//! leave out what is small beside them (norms, the scores of attention).

use carat_model::plan::{FfnPlan, KvSource, ValueSource, plan};
use carat_model::{LayerPlan, MemoryPlan, ModelConfig};

/// Multiply-adds of the matrices for one token of a prompt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PromptWork {
    /// If every token passed every layer.
    pub all_layers: usize,
    /// As it is done: what no later position reads is left out.
    pub done: usize,
}

/// Counts [`PromptWork`]; the head, which only the last token needs, is not in it.
pub fn prompt_work(config: &ModelConfig) -> PromptWork {
    let layers = plan(config);
    let d = config.d_model;
    let per_layer = config.per_layer.map_or(0, |p| p.width);
    let cost = |layer: &LayerPlan| {
        let ffn = match layer.ffn {
            FfnPlan::Dense { width } => 3 * width * d,
            FfnPlan::DenseAndExperts { width, n_experts, top_k, expert_width } => {
                3 * width * d + n_experts * d + 3 * top_k * expert_width * d
            }
        };
        // The projections of the per-layer input: to the layer's part, and in and out of it.
        2 * layer.q_width() * d + kv_cost(layer, d) + ffn + 3 * per_layer * d
    };
    let all_layers = layers.iter().map(cost).sum();
    let last_own = layers.iter().rposition(|l| l.kv == KvSource::Own).unwrap_or(0);
    let done = layers[..last_own].iter().map(cost).sum::<usize>() + kv_cost(&layers[last_own], d);
    PromptWork { all_layers, done }
}

fn kv_cost(layer: &LayerPlan, d: usize) -> usize {
    match (layer.kv, layer.value) {
        (KvSource::SharedWith(_), _) => 0,
        (KvSource::Own, ValueSource::Projected) => 2 * layer.kv_width() * d,
        (KvSource::Own, ValueSource::SameAsKey) => layer.kv_width() * d,
    }
}

/// Bytes that decoding reads for one token after `depth` others: the weights, of experts those of one token,
/// and the keys and values it may see. `expert_bytes` are those of all experts in the file.
pub fn decode_bytes(config: &ModelConfig, memory: &MemoryPlan, expert_bytes: usize, depth: usize) -> usize {
    let idle = config.experts.map_or(0, |e| expert_bytes / e.n_experts * (e.n_experts - e.top_k));
    let layers = plan(config);
    let cache = layers.iter().enumerate().filter_map(|(index, layer)| {
        let donor = match layer.kv {
            KvSource::Own => index,
            KvSource::SharedWith(id) => id.0,
        };
        let spec = memory.kv.iter().find(|kv| kv.layer == donor)?.spec;
        let seen = layer.span.window().map_or(depth + 1, |window| window.min(depth + 1));
        Some(spec.bytes() / spec.capacity * seen)
    });
    memory.file.weights - idle + cache.sum::<usize>()
}

#[cfg(test)]
mod tests {
    use super::*;
    use carat_model::load::FileBytes;
    use carat_model::{DecoderOptions, memory_plan};

    #[test]
    fn prompt_work_is_that_of_the_published_shapes() {
        // Millions of multiply-adds, counted by hand from the published shapes.
        for (name, expected) in [("E2B", 1877), ("E4B", 3973), ("26B-A4B", 3084), ("31B", 29287)] {
            let work = prompt_work(&ModelConfig::preset(name).unwrap());
            assert_eq!((work.all_layers as f64 / 1e6).round() as usize, expected, "{name}");
            assert!(work.done < work.all_layers);
        }
    }

    #[test]
    fn prompts_of_models_that_share_keys_skip_most_layers() {
        // Layers 0 to 13, and keys and values of layer 14.
        assert_eq!(prompt_work(&ModelConfig::preset("E2B").unwrap()).done, 526_123_008 + 2 * 512 * 1536);
    }

    #[test]
    fn decoding_reads_the_chosen_experts_and_the_visible_cache() {
        let config = ModelConfig::preset("26B-A4B").unwrap();
        let file = FileBytes { weights: 1_280_000 + 1000, ..FileBytes::default() };
        let memory = memory_plan(&config, &DecoderOptions::default(), file).unwrap();
        let at = |depth| decode_bytes(&config, &memory, 1_280_000, depth);
        // 25 sliding layers of 8 heads with 2·256 values, 5 full ones of 2 heads with 640, two bytes each.
        assert_eq!(at(0), 80_000 + 1000 + 2 * (25 * 8 * 512 + 5 * 2 * 640));
        assert_eq!(at(4095) - at(1023), 2 * 5 * 2 * 640 * 3072);
    }
}
