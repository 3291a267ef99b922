//! Run Gemma 4 models: sessions, sampling, the engine.
#![forbid(unsafe_code)]
