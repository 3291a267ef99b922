//! Products of quantised rows with one activation row: 32 weights per step, signed bytes on both sides.
//!
//! Q4_0 and Q8_0, whose blocks are 32 weights with one scale; the other formats take the definition.

use std::arch::x86_64::*;

use carat_tensor::DType;

use super::{dot_signed, half, sum};
use crate::acts::IntRows;
use crate::scalar;

/// See [`crate::scalar::matvec`].
#[target_feature(enable = "avx2,fma,f16c")]
pub fn matvec(dtype: DType, rows: &[u8], x: IntRows<'_>, out: &mut [f32]) {
    match dtype {
        DType::Q4_0 => each::<18>(rows, x, out, |block| {
            // SAFETY: a Q4_0 block has 18 bytes, the last 16 are read.
            let v = unsafe { _mm_loadu_si128(block.as_ptr().add(2).cast()) };
            let both = _mm256_inserti128_si256::<1>(_mm256_castsi128_si256(v), _mm_srli_epi16::<4>(v));
            _mm256_sub_epi8(_mm256_and_si256(both, _mm256_set1_epi8(15)), _mm256_set1_epi8(8))
        }),
        // SAFETY: a Q8_0 block has 34 bytes, the last 32 are read.
        DType::Q8_0 => each::<34>(rows, x, out, |block| unsafe { _mm256_loadu_si256(block.as_ptr().add(2).cast()) }),
        _ => scalar::matvec(dtype, rows, x, out),
    }
}

/// Rows of blocks of `B` bytes that begin with their scale.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn each<const B: usize>(rows: &[u8], x: IntRows<'_>, out: &mut [f32], read: impl Fn(&[u8; B]) -> __m256i) {
    let blocks = x.cols / 32;
    for (out, row) in out.iter_mut().zip(rows.chunks_exact(blocks * B)) {
        let mut acc = _mm256_setzero_ps();
        let mut low = x.low.as_chunks::<32>().0.iter();
        for ((block, q), &d) in row.as_chunks::<B>().0.iter().zip(x.q.as_chunks::<32>().0).zip(x.d) {
            let w = read(block);
            // SAFETY: 32 bytes.
            let load = |bytes: &[i8; 32]| unsafe { _mm256_loadu_si256(bytes.as_ptr().cast()) };
            let mut dot = dot_signed(w, load(q));
            if let Some(low) = low.next() {
                dot = _mm256_add_epi32(_mm256_slli_epi32::<7>(dot), dot_signed(w, load(low)));
            }
            let scale = _mm256_set1_ps(half([block[0], block[1]]) * d);
            acc = _mm256_fmadd_ps(_mm256_cvtepi32_ps(dot), scale, acc);
        }
        *out = sum(acc);
    }
}
