//! The CPU backend: scalar reference, SIMD kernels, thread pool.
//!
//! [`CpuBackend`] implements [`carat_tensor::Backend`]. `scalar` defines every kernel; `avx2`, `vnni`, `avx512`
//! and `neon` hold faster versions of the same functions in a table (`kernels`) that is chosen once, at start.
//! Everything above the table (tiling, threading, attention, experts) is written once.
//!
//! `unsafe` is denied but for the dispatch table, the SIMD modules, the pool and advice on pages.
#![deny(unsafe_code)]

mod acts;
#[cfg(test)]
mod agreement;
mod attention;
#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod backend;
mod conv;
mod e4m7;
mod halves;
mod interleaved;
mod ints;
mod kernels;
mod kv;
mod matmul;
pub mod measure;
mod moe;
mod near;
#[cfg(target_arch = "aarch64")]
mod neon;
mod pages;
#[cfg(target_arch = "x86_64")]
mod planes;
mod pool;
mod rows;
mod scalar;
mod topology;
mod unpack;
#[cfg(target_arch = "x86_64")]
mod vnni;
mod words;
mod workspace;
#[cfg(target_arch = "x86_64")]
mod x86;

pub use backend::{Buffer, CpuBackend, CpuError, CpuOptions, Precision, Vector};
pub use interleaved::{GROUP_ROWS, interleave};
pub use kernels::{Isa, available};
pub use kv::Kv;
pub use matmul::Matrix;
pub use moe::Routes;
pub use pages::large_pages;
