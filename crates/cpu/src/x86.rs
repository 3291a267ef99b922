//! What every x86-64 has.

use std::arch::x86_64::{_MM_HINT_T1, _mm_prefetch};

/// Asks for the lines of `bytes`, into L2.
#[target_feature(enable = "sse")]
pub fn prefetch(bytes: &[u8]) {
    for line in bytes.chunks(64) {
        _mm_prefetch::<_MM_HINT_T1>(line.as_ptr().cast());
    }
}
