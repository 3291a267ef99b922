//! Element-wise kernels: exponentials, GELU, softcap.
//!
//! `exp` is `2^n · p(r)`, `n = round(x / ln 2)`, `r = x − n · ln 2` in two parts, `p` the Taylor polynomial of degree 7
//! (its remainder at `|r| ≤ ln 2 / 2` is 5e-9).

use std::arch::x86_64::*;

use super::{load_some, mask, store_some};

/// `e^x`; 0 below the smallest subnormal's logarithm; what is no number stays none.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi,avx512vnni")]
fn exp(x: __m512) -> __m512 {
    let set = |v: f32| _mm512_set1_ps(v);
    let alive = _mm512_cmp_ps_mask::<_CMP_NLE_UQ>(x, set(-103.9));
    // The second operand is what these give where there is NaN.
    let x = _mm512_max_ps(set(-104.0), _mm512_min_ps(set(89.0), x));
    let n = _mm512_roundscale_ps::<0>(_mm512_mul_ps(x, set(std::f32::consts::LOG2_E)));
    // ln 2 = 0.693359375 (exact in 10 bits) − 2.1219444e-4.
    let r = _mm512_fnmadd_ps(n, set(0.693_359_4), x);
    let r = _mm512_fmadd_ps(n, set(2.121_944_4e-4), r);
    let mut p = set(1.0 / 5040.0);
    for c in [1.0 / 720.0, 1.0 / 120.0, 1.0 / 24.0, 1.0 / 6.0, 0.5, 1.0, 1.0] {
        p = _mm512_fmadd_ps(p, r, set(c));
    }
    _mm512_maskz_scalef_ps(alive, p, n)
}

/// See [`crate::scalar::exp_sum`].
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi,avx512vnni")]
pub fn exp_sum(s: &mut [f32], max: f32) -> f32 {
    let max = _mm512_set1_ps(max);
    let mut total = _mm512_setzero_ps();
    for s in s.chunks_mut(16) {
        let e = _mm512_maskz_mov_ps(mask(s.len()), exp(_mm512_sub_ps(load_some(s), max)));
        total = _mm512_add_ps(total, e);
        store_some(s, e);
    }
    _mm512_reduce_add_ps(total)
}

/// See [`crate::scalar::gelu_mul`]; `0.5 · (1 + tanh u) = 1 / (1 + e^(−2u))`, which does not cancel.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi,avx512vnni")]
pub fn gelu_mul(gate: &mut [f32], up: &[f32]) {
    let one = _mm512_set1_ps(1.0);
    for (gate, up) in gate.chunks_mut(16).zip(up.chunks(16)) {
        let x = load_some(gate);
        let cubic = _mm512_fmadd_ps(_mm512_mul_ps(x, x), _mm512_set1_ps(0.044_715), one);
        let u = _mm512_mul_ps(_mm512_mul_ps(x, cubic), _mm512_set1_ps(-2.0 * 0.797_884_6));
        let gelu = _mm512_div_ps(x, _mm512_add_ps(one, exp(u)));
        store_some(gate, _mm512_mul_ps(gelu, load_some(up)));
    }
}

/// See [`crate::scalar::sigmoid_mul`].
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi,avx512vnni")]
pub fn sigmoid_mul(out: &mut [f32], x: &[f32], gate: &[f32]) {
    let one = _mm512_set1_ps(1.0);
    for ((out, x), gate) in out.chunks_mut(16).zip(x.chunks(16)).zip(gate.chunks(16)) {
        let power = exp(_mm512_sub_ps(_mm512_setzero_ps(), load_some(gate)));
        store_some(out, _mm512_div_ps(load_some(x), _mm512_add_ps(one, power)));
    }
}

/// See [`crate::scalar::softcap`]; near zero the odd series of tanh, elsewhere `1 − 2 / (e^(2y) + 1)`.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi,avx512vnni")]
pub fn softcap(x: &mut [f32], cap: f32) {
    let set = |v: f32| _mm512_set1_ps(v);
    for x in x.chunks_mut(16) {
        let y = _mm512_div_ps(load_some(x), set(cap));
        let far = _mm512_fnmadd_ps(
            set(2.0),
            _mm512_div_ps(set(1.0), _mm512_add_ps(exp(_mm512_add_ps(y, y)), set(1.0))),
            set(1.0),
        );
        let y2 = _mm512_mul_ps(y, y);
        let mut near = set(62.0 / 2835.0);
        for c in [-17.0 / 315.0, 2.0 / 15.0, -1.0 / 3.0, 1.0] {
            near = _mm512_fmadd_ps(near, y2, set(c));
        }
        let is_near = _mm512_cmp_ps_mask::<_CMP_LT_OQ>(_mm512_abs_ps(y), set(0.25));
        let tanh = _mm512_mask_mul_ps(far, is_near, near, y);
        store_some(x, _mm512_mul_ps(tanh, set(cap)));
    }
}
