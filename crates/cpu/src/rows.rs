//! Operations on single rows: norms, RoPE, tables.

use carat_tensor::backend::UNBOUNDED;

use crate::kernels::Kernels;

/// `out = x · (mean(x²) + eps)^(-1/2) ⊙ weight`; Gemma 4 multiplies by the weight itself.
pub fn rms_norm(k: &Kernels, out: &mut [f32], x: &[f32], weight: &[f32], eps: f32) {
    let scale = rms_scale(k, x, eps);
    for ((out, &x), &w) in out.iter_mut().zip(x).zip(weight) {
        *out = x * scale * w;
    }
}

/// `out = (x − mean) · (variance + eps)^(-1/2) ⊙ weight + bias`, mean and variance in f64: rows of thousands of pixels are
/// normed about a mean that is far from zero.
pub fn layer_norm(out: &mut [f32], x: &[f32], weight: &[f32], bias: &[f32], eps: f32) {
    let n = x.len() as f64;
    let mean = x.iter().map(|&x| f64::from(x)).sum::<f64>() / n;
    let variance = x.iter().map(|&x| (f64::from(x) - mean).powi(2)).sum::<f64>() / n;
    let scale = (variance + f64::from(eps)).sqrt().recip();
    for (((out, &x), &w), &b) in out.iter_mut().zip(x).zip(weight).zip(bias) {
        *out = ((f64::from(x) - mean) * scale) as f32 * w + b;
    }
}

/// `(mean(x²) + eps)^(-1/2)`.
pub fn rms_scale(k: &Kernels, x: &[f32], eps: f32) -> f32 {
    ((k.sum_squares)(x) / x.len() as f32 + eps).sqrt().recip()
}

/// `x = (x + rms(h within bounds)) · scale`; of the norm weight and epsilon.
pub fn add_rms_norm(k: &Kernels, x: &mut [f32], h: &[f32], bounds: [f32; 2], (weight, eps): (&[f32], f32), scale: f32) {
    let rms = bounded_rms_scale(k, h, bounds, eps);
    let [low, high] = bounds;
    for ((x, &h), &w) in x.iter_mut().zip(h).zip(weight) {
        *x = (*x + h.clamp(low, high) * rms * w) * scale;
    }
}

/// [`rms_scale`] of values brought within bounds.
fn bounded_rms_scale(k: &Kernels, x: &[f32], bounds: [f32; 2], eps: f32) -> f32 {
    if bounds == UNBOUNDED {
        return rms_scale(k, x, eps);
    }
    let mut part = [0.0; 256];
    let squares = x.chunks(part.len()).map(|x| {
        let part = &mut part[..x.len()];
        part.copy_from_slice(x);
        clamp(part, bounds);
        (k.sum_squares)(part)
    });
    (squares.sum::<f32>() / x.len() as f32 + eps).sqrt().recip()
}

/// Norms one head in place and turns its parts: `x · cos + rotate_half(x) · sin`. `rope` is a table and the number of parts;
/// the table holds the cosines of a part, half as many as it has dimensions, then as many sines.
pub fn norm_head(k: &Kernels, x: &mut [f32], weight: Option<&[f32]>, eps: f32, rope: Option<(&[f32], usize)>) {
    let scale = rms_scale(k, x, eps);
    match weight {
        Some(weight) => x.iter_mut().zip(weight).for_each(|(x, &w)| *x = *x * scale * w),
        None => x.iter_mut().for_each(|x| *x *= scale),
    }
    let Some((table, parts)) = rope else { return };
    let part = x.len() / parts;
    for (x, table) in x.chunks_exact_mut(part).zip(table.chunks_exact(part)) {
        let (cos, sin) = table.split_at(part / 2);
        let (a, b) = x.split_at_mut(part / 2);
        for (((a, b), &c), &s) in a.iter_mut().zip(b).zip(cos).zip(sin) {
            (*a, *b) = (*a * c - *b * s, *b * c + *a * s);
        }
    }
}

/// `out = factor · Σ rows of x`, `d` values each.
pub fn sum_rows(out: &mut [f32], x: &[f32], rows: &[usize], factor: f32) {
    let d = out.len();
    out.fill(0.0);
    for &row in rows {
        out.iter_mut().zip(&x[row * d..(row + 1) * d]).for_each(|(out, x)| *out += x);
    }
    out.iter_mut().for_each(|out| *out *= factor);
}

/// `x = min(max(x, low), high)`.
pub fn clamp(x: &mut [f32], [low, high]: [f32; 2]) {
    if low > f32::NEG_INFINITY || high < f32::INFINITY {
        // Not `max` and `min`, which drop what is no number.
        x.iter_mut().for_each(|x| *x = x.clamp(low, high));
    }
}

/// `x = x · σ(x)`.
pub fn silu(k: &Kernels, x: &mut [f32]) {
    let mut values = [0.0; 64];
    for x in x.chunks_mut(values.len()) {
        let values = &mut values[..x.len()];
        values.copy_from_slice(x);
        (k.sigmoid_mul)(x, values, values);
    }
}

/// Cosines and sines of `position · f`, angles in f32.
pub fn rope_row(out: &mut [f32], inv_freq: &[f32], position: usize) {
    let (cos, sin) = out.split_at_mut(inv_freq.len());
    for ((c, s), &f) in cos.iter_mut().zip(sin).zip(inv_freq) {
        let angle = position as f32 * f;
        (*s, *c) = angle.sin_cos();
    }
}
