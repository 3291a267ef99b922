//! Element-wise kernels: integer activations, exponentials, GELU, softcap. The arithmetic is that of the AVX-512 versions.

use std::arch::x86_64::*;

use super::{load, store, sum};
use crate::scalar::RowScale;

/// See [`crate::scalar::largest`].
#[target_feature(enable = "avx2,fma,f16c")]
pub fn largest(x: &[f32]) -> f32 {
    let (whole, rest) = x.as_chunks::<32>();
    let mut max = [_mm256_setzero_ps(); 4];
    for x in whole {
        for (i, max) in max.iter_mut().enumerate() {
            *max = larger(*max, load(&x[8 * i..]));
        }
    }
    f32::from_bits(largest_of(&max).to_bits().max(crate::scalar::largest(rest).to_bits()))
}

/// The larger magnitudes. They are compared as integers, in which order NaN comes last: the maximum of floats may drop it.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn larger(a: __m256, b: __m256) -> __m256 {
    let magnitude = |v| _mm256_castps_si256(_mm256_andnot_ps(_mm256_set1_ps(-0.0), v));
    _mm256_castsi256_ps(_mm256_max_epi32(magnitude(a), magnitude(b)))
}

#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn largest_of(v: &[__m256; 4]) -> f32 {
    let max = _mm256_castps_si256(larger(larger(v[0], v[1]), larger(v[2], v[3])));
    f32::from_bits(ints(max).into_iter().fold(0, i32::max).cast_unsigned())
}

/// See [`crate::scalar::quantise`].
#[target_feature(enable = "avx2,fma,f16c")]
pub fn quantise(x: &[f32], scale: RowScale, q: &mut [i8], low: &mut [i8], d: &mut [f32], sum: &mut [i32]) {
    let mut low = low.chunks_exact_mut(32);
    for (((x, q), d), sum) in x.chunks_exact(32).zip(q.chunks_exact_mut(32)).zip(d).zip(sum.chunks_exact_mut(2)) {
        let v: [__m256; 4] = std::array::from_fn(|i| load(&x[8 * i..]));
        let inverse;
        (*d, inverse) = scale.of_block(largest_of(&v));
        let inverse = _mm256_set1_ps(inverse);
        let values: [__m256i; 4] = std::array::from_fn(|i| _mm256_cvtps_epi32(_mm256_mul_ps(v[i], inverse)));
        for (sum, v) in sum.iter_mut().zip(values.chunks_exact(2)) {
            *sum = ints(_mm256_add_epi32(v[0], v[1])).into_iter().sum();
        }
        let Some(low) = low.next() else {
            store_bytes(q, values);
            continue;
        };
        let high = std::array::from_fn(|i| _mm256_srai_epi32::<7>(_mm256_add_epi32(values[i], _mm256_set1_epi32(64))));
        store_bytes(q, high);
        store_bytes(low, std::array::from_fn(|i| _mm256_sub_epi32(values[i], _mm256_slli_epi32::<7>(high[i]))));
    }
}

#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn lanes(v: __m256) -> [f32; 8] {
    let mut lanes = [0.0; 8];
    store(&mut lanes, v);
    lanes
}

#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn ints(v: __m256i) -> [i32; 8] {
    lanes(_mm256_castsi256_ps(v)).map(|lane| lane.to_bits() as i32)
}

/// Stores 32 integers as bytes, which they fit.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn store_bytes(out: &mut [i8], v: [__m256i; 4]) {
    assert!(out.len() >= 32);
    let bytes = _mm256_packs_epi16(_mm256_packs_epi32(v[0], v[1]), _mm256_packs_epi32(v[2], v[3]));
    // Packing works within 128-bit halves: dwords come out in the order 0, 2, 4, 6, 1, 3, 5, 7.
    let bytes = _mm256_permutevar8x32_epi32(bytes, _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7));
    // SAFETY: 32 bytes are writable, just checked.
    unsafe { _mm256_storeu_si256(out.as_mut_ptr().cast(), bytes) }
}

/// `e^x`; 0 below −87, where results would be subnormal; what is no number stays none.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn exp(x: __m256) -> __m256 {
    let set = |v: f32| _mm256_set1_ps(v);
    let alive = _mm256_cmp_ps::<_CMP_NLE_UQ>(x, set(-87.0));
    // The second operand is what these give where there is NaN.
    let x = _mm256_max_ps(set(-87.3), _mm256_min_ps(set(88.3), x));
    let n = _mm256_round_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(_mm256_mul_ps(
        x,
        set(std::f32::consts::LOG2_E),
    ));
    // ln 2 = 0.693359375 (exact in 10 bits) − 2.1219444e-4.
    let r = _mm256_fmadd_ps(n, set(2.121_944_4e-4), _mm256_fnmadd_ps(n, set(0.693_359_4), x));
    let mut p = set(1.0 / 5040.0);
    for c in [1.0 / 720.0, 1.0 / 120.0, 1.0 / 24.0, 1.0 / 6.0, 0.5, 1.0, 1.0] {
        p = _mm256_fmadd_ps(p, r, set(c));
    }
    let exponent = _mm256_slli_epi32::<23>(_mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127)));
    _mm256_and_ps(_mm256_mul_ps(p, _mm256_castsi256_ps(exponent)), alive)
}

/// Applies `f` to eights of `x`, the last of them filled up with zeros.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn map(x: &mut [f32], mut f: impl FnMut(__m256, usize) -> __m256) {
    for (i, x) in x.chunks_mut(8).enumerate() {
        let mut eight = [0.0; 8];
        eight[..x.len()].copy_from_slice(x);
        let v = f(load(&eight), 8 * i);
        store(&mut eight, v);
        x.copy_from_slice(&eight[..x.len()]);
    }
}

/// See [`crate::scalar::exp_sum`].
#[target_feature(enable = "avx2,fma,f16c")]
pub fn exp_sum(s: &mut [f32], max: f32) -> f32 {
    let max = _mm256_set1_ps(max);
    map(s, |v, _| exp(_mm256_sub_ps(v, max)));
    let (eights, rest) = s.as_chunks::<8>();
    let mut total = _mm256_setzero_ps();
    for s in eights {
        total = _mm256_add_ps(total, load(s));
    }
    sum(total) + rest.iter().sum::<f32>()
}

/// See [`crate::scalar::gelu_mul`]; `0.5 · (1 + tanh u) = 1 / (1 + e^(−2u))`, which does not cancel.
#[target_feature(enable = "avx2,fma,f16c")]
pub fn gelu_mul(gate: &mut [f32], up: &[f32]) {
    let one = _mm256_set1_ps(1.0);
    map(gate, |x, at| {
        let cubic = _mm256_fmadd_ps(_mm256_mul_ps(x, x), _mm256_set1_ps(0.044_715), one);
        let u = _mm256_mul_ps(_mm256_mul_ps(x, cubic), _mm256_set1_ps(-2.0 * 0.797_884_6));
        let gelu = _mm256_div_ps(x, _mm256_add_ps(one, exp(u)));
        let mut eight = [0.0; 8];
        let up = &up[at..up.len().min(at + 8)];
        eight[..up.len()].copy_from_slice(up);
        _mm256_mul_ps(gelu, load(&eight))
    });
}

/// See [`crate::scalar::sigmoid_mul`].
#[target_feature(enable = "avx2,fma,f16c")]
pub fn sigmoid_mul(out: &mut [f32], x: &[f32], gate: &[f32]) {
    let one = _mm256_set1_ps(1.0);
    out.copy_from_slice(x);
    map(out, |x, at| {
        let mut eight = [0.0; 8];
        let gate = &gate[at..gate.len().min(at + 8)];
        eight[..gate.len()].copy_from_slice(gate);
        let power = exp(_mm256_sub_ps(_mm256_setzero_ps(), load(&eight)));
        _mm256_div_ps(x, _mm256_add_ps(one, power))
    });
}

/// See [`crate::scalar::softcap`]; near zero the odd series of tanh, elsewhere `1 − 2 / (e^(2y) + 1)`.
#[target_feature(enable = "avx2,fma,f16c")]
pub fn softcap(x: &mut [f32], cap: f32) {
    let set = |v: f32| _mm256_set1_ps(v);
    map(x, |x, _| {
        let y = _mm256_div_ps(x, set(cap));
        let inverse = _mm256_div_ps(set(2.0), _mm256_add_ps(exp(_mm256_add_ps(y, y)), set(1.0)));
        let far = _mm256_sub_ps(set(1.0), inverse);
        let y2 = _mm256_mul_ps(y, y);
        let mut near = set(62.0 / 2835.0);
        for c in [-17.0 / 315.0, 2.0 / 15.0, -1.0 / 3.0, 1.0] {
            near = _mm256_fmadd_ps(near, y2, set(c));
        }
        let magnitude = _mm256_andnot_ps(set(-0.0), y);
        let is_near = _mm256_cmp_ps::<_CMP_LT_OQ>(magnitude, set(0.25));
        _mm256_mul_ps(_mm256_blendv_ps(far, _mm256_mul_ps(near, y), is_near), set(cap))
    });
}
