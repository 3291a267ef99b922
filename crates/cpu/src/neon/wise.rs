//! Element-wise kernels: integer activations, exponentials, GELU, softcap.
//!
//! `exp` is `2^n · p(r)`, `n = round(x / ln 2)`, `r = x − n · ln 2` in two parts, `p` the Taylor polynomial of degree 7
//! (its remainder at `|r| ≤ ln 2 / 2` is 5e-9). Rows that aren't whole vectors end in a padded one.

use std::arch::aarch64::*;

use super::{load, store};
use crate::scalar::RowScale;

/// See [`crate::scalar::largest`].
pub fn largest(x: &[f32]) -> f32 {
    let (whole, rest) = x.as_chunks::<32>();
    let largest = |v: &[f32; 32]| largest_of(&std::array::from_fn(|i| load(&v[4 * i..])));
    let bits = |max: f32| max.abs().to_bits();
    whole
        .iter()
        .map(largest)
        .chain([crate::scalar::largest(rest)])
        .fold(0.0, |a, b| f32::from_bits(bits(a).max(bits(b))))
}

/// The largest magnitude; NaN where one is: the maximum of that and a number is NaN here.
#[inline]
fn largest_of(v: &[float32x4_t; 8]) -> f32 {
    // SAFETY: NEON is part of every 64-bit Arm; registers only.
    unsafe { vmaxvq_f32(v.iter().fold(vdupq_n_f32(0.0), |max, &v| vmaxq_f32(max, vabsq_f32(v)))) }
}

/// See [`crate::scalar::quantise`].
pub fn quantise(x: &[f32], scale: RowScale, q: &mut [i8], low: &mut [i8], d: &mut [f32], sum: &mut [i32]) {
    let mut low = low.chunks_exact_mut(32);
    for (((x, q), d), sum) in x.chunks_exact(32).zip(q.chunks_exact_mut(32)).zip(d).zip(sum.chunks_exact_mut(2)) {
        // SAFETY: NEON is part of every 64-bit Arm; `q` has 32 bytes, of which 16 are written at 0 and at 16.
        unsafe {
            let v: [float32x4_t; 8] = std::array::from_fn(|i| load(&x[4 * i..]));
            let inverse;
            (*d, inverse) = scale.of_block(largest_of(&v));
            let values = v.map(|v| vcvtnq_s32_f32(vmulq_n_f32(v, inverse)));
            for (sum, v) in sum.iter_mut().zip(values.chunks_exact(4)) {
                *sum = vaddvq_s32(vaddq_s32(vaddq_s32(v[0], v[1]), vaddq_s32(v[2], v[3])));
            }
            let Some(low) = low.next() else {
                store_bytes(q, values);
                continue;
            };
            let high = values.map(|v| vshrq_n_s32::<7>(vaddq_s32(v, vdupq_n_s32(64))));
            store_bytes(q, high);
            store_bytes(low, std::array::from_fn(|i| vsubq_s32(values[i], vshlq_n_s32::<7>(high[i]))));
        }
    }
}

/// Stores the low bytes of 32 integers.
#[inline]
fn store_bytes(out: &mut [i8], v: [int32x4_t; 8]) {
    assert!(out.len() >= 32);
    // SAFETY: NEON is part of every 64-bit Arm; 32 bytes are writable, just checked.
    unsafe {
        for (half, v) in v.chunks_exact(4).enumerate() {
            let first = vcombine_s16(vmovn_s32(v[0]), vmovn_s32(v[1]));
            let second = vcombine_s16(vmovn_s32(v[2]), vmovn_s32(v[3]));
            vst1q_s8(out.as_mut_ptr().add(16 * half), vcombine_s8(vmovn_s16(first), vmovn_s16(second)));
        }
    }
}

/// `e^x`; 0 below the least subnormal's logarithm, infinity above the largest value's.
#[inline]
fn exp(x: float32x4_t) -> float32x4_t {
    // SAFETY: NEON is part of every 64-bit Arm; registers only.
    unsafe {
        let x = vmaxq_f32(vminq_f32(x, vdupq_n_f32(89.0)), vdupq_n_f32(-104.5));
        let n = vrndnq_f32(vmulq_n_f32(x, std::f32::consts::LOG2_E));
        // ln 2 = 0.693359375 (exact in 10 bits) − 2.1219444e-4.
        let r = vfmsq_n_f32(x, n, 0.693_359_4);
        let r = vfmaq_n_f32(r, n, 2.121_944_4e-4);
        let mut p = vdupq_n_f32(1.0 / 5040.0);
        for c in [1.0 / 720.0, 1.0 / 120.0, 1.0 / 24.0, 1.0 / 6.0, 0.5, 1.0, 1.0] {
            p = vfmaq_f32(vdupq_n_f32(c), p, r);
        }
        // Two factors, as 2^n itself may be out of range: n lies in −151 ..= 128.
        let n = vcvtq_s32_f32(n);
        let half = vshrq_n_s32::<1>(n);
        let power = |n| vreinterpretq_f32_s32(vshlq_n_s32::<23>(vaddq_s32(n, vdupq_n_s32(127))));
        vmulq_f32(vmulq_f32(p, power(half)), power(vsubq_s32(n, half)))
    }
}

/// `f` of every four values of `x` and `y`; the last ones padded with zeros.
#[inline]
fn map(x: &mut [f32], y: &[f32], f: impl Fn(float32x4_t, float32x4_t) -> float32x4_t) {
    let (x4, x_rest) = x.as_chunks_mut::<4>();
    let (y4, y_rest) = y.as_chunks::<4>();
    for (x, y) in x4.iter_mut().zip(y4) {
        let v = f(load(x), load(y));
        store(x, v);
    }
    let (mut last, mut last_y) = ([0.0; 4], [0.0; 4]);
    last[..x_rest.len()].copy_from_slice(x_rest);
    last_y[..y_rest.len()].copy_from_slice(y_rest);
    let v = f(load(&last), load(&last_y));
    store(&mut last, v);
    x_rest.copy_from_slice(&last[..x_rest.len()]);
}

/// See [`crate::scalar::exp_sum`].
pub fn exp_sum(s: &mut [f32], max: f32) -> f32 {
    let (s4, rest) = s.as_chunks_mut::<4>();
    // SAFETY: NEON is part of every 64-bit Arm; memory is touched by the checked loads and stores alone.
    let sum = unsafe {
        let mut sum = vdupq_n_f32(0.0);
        for s in s4 {
            let e = exp(vsubq_f32(load(s), vdupq_n_f32(max)));
            sum = vaddq_f32(sum, e);
            store(s, e);
        }
        vaddvq_f32(sum)
    };
    sum + crate::scalar::exp_sum(rest, max)
}

/// See [`crate::scalar::gelu_mul`]; `0.5 · (1 + tanh u) = 1 / (1 + e^(−2u))`, which does not cancel.
pub fn gelu_mul(gate: &mut [f32], up: &[f32]) {
    // SAFETY: NEON is part of every 64-bit Arm; registers only.
    map(gate, up, |x, up| unsafe {
        let one = vdupq_n_f32(1.0);
        let cubic = vfmaq_n_f32(one, vmulq_f32(x, x), 0.044_715);
        let u = vmulq_n_f32(vmulq_f32(x, cubic), -2.0 * 0.797_884_6);
        vmulq_f32(vdivq_f32(x, vaddq_f32(one, exp(u))), up)
    });
}

/// See [`crate::scalar::sigmoid_mul`].
pub fn sigmoid_mul(out: &mut [f32], x: &[f32], gate: &[f32]) {
    out.copy_from_slice(x);
    // SAFETY: NEON is part of every 64-bit Arm; registers only.
    map(out, gate, |x, gate| unsafe { vdivq_f32(x, vaddq_f32(vdupq_n_f32(1.0), exp(vnegq_f32(gate)))) });
}

/// See [`crate::scalar::softcap`]; near zero the odd series of tanh, elsewhere `1 − 2 / (e^(2y) + 1)`.
pub fn softcap(x: &mut [f32], cap: f32) {
    let tanh = |y: float32x4_t| {
        // SAFETY: NEON is part of every 64-bit Arm; registers only.
        unsafe {
            let one = vdupq_n_f32(1.0);
            let far = vfmsq_n_f32(one, vdivq_f32(one, vaddq_f32(exp(vaddq_f32(y, y)), one)), 2.0);
            let y2 = vmulq_f32(y, y);
            let mut near = vdupq_n_f32(62.0 / 2835.0);
            for c in [-17.0 / 315.0, 2.0 / 15.0, -1.0 / 3.0, 1.0] {
                near = vfmaq_f32(vdupq_n_f32(c), near, y2);
            }
            vbslq_f32(vcltq_f32(vabsq_f32(y), vdupq_n_f32(0.25)), vmulq_f32(near, y), far)
        }
    };
    // SAFETY: NEON is part of every 64-bit Arm; registers only.
    let one = |x: float32x4_t| unsafe { vmulq_n_f32(tanh(vdivq_f32(x, vdupq_n_f32(cap))), cap) };
    let (x4, rest) = x.as_chunks_mut::<4>();
    for x in x4 {
        let v = one(load(x));
        store(x, v);
    }
    let mut last = [0.0; 4];
    last[..rest.len()].copy_from_slice(rest);
    let v = one(load(&last));
    store(&mut last, v);
    rest.copy_from_slice(&last[..rest.len()]);
}
