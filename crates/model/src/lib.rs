//! The Gemma 4 model, once: config, layer plan, loading, forward pass, KV cache.
#![forbid(unsafe_code)]
