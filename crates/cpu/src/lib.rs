//! The CPU backend: scalar reference, SIMD kernels, thread pool.
#![deny(unsafe_code)]
