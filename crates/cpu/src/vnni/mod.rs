//! Integer products on vectors of 32 bytes with `vpdpbusd`, for processors that have it beside AVX2 and no AVX-512, or not all of it
//! that [`crate::avx512`] wants; for everything else those take the kernels of [`crate::avx2`].
//!
//! The instruction has two encodings: of AVX-VNNI (`EVEX` false) and of AVX-512 VNNI and VL. The kernels are the same, so that one
//! is tested where only the other runs.
#![allow(
    unsafe_code,
    reason = "vector loads and stores by pointer, and instructions that intrinsics have in one encoding"
)]

mod gemm;
mod limit;
mod tiles;

pub use gemm::gemm;
pub use limit::{SUMS, dot_rounds};
pub use tiles::matvec_tiles;

use std::arch::asm;
use std::arch::x86_64::*;

/// A function of the instruction in both encodings.
macro_rules! adding {
    ($(#[$doc:meta])* $name:ident, $instruction:literal) => {
        $(#[$doc])*
        #[inline]
        #[target_feature(enable = "avx2,fma,f16c")]
        fn $name<const EVEX: bool>(mut sum: __m256i, w: __m256i, x: __m256i) -> __m256i {
            // SAFETY: on registers alone; the table is handed out only where the processor has the encoding.
            unsafe {
                if EVEX {
                    asm!(concat!($instruction, " {}, {}, {}"), inout(ymm_reg) sum, in(ymm_reg) w, in(ymm_reg) x, options(pure, nomem, nostack, preserves_flags));
                } else {
                    asm!(concat!("{{vex}} ", $instruction, " {}, {}, {}"), inout(ymm_reg) sum, in(ymm_reg) w, in(ymm_reg) x, options(pure, nomem, nostack, preserves_flags));
                }
            }
            sum
        }
    };
}

adding!(
    /// Adds to each 32-bit lane of `sum` the dot of four unsigned bytes `w` with four signed bytes `x`.
    dot,
    "vpdpbusd"
);
adding!(
    /// The same of two signed words each.
    dot_words,
    "vpdpwssd"
);
