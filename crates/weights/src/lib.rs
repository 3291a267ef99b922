//! Files to named tensors: mapping, safetensors, GGUF.
#![deny(unsafe_code)]
