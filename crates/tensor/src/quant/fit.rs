//! Scales for groups of values: weighted least squares over integers.
//!
//! For integers held fixed, the scale that fits best is a quotient of sums; for a scale held fixed, the integers that
//! fit best are roundings. Both searches start from many scales, take for each the roundings and then the scale, and
//! keep the best; what they keep is improved the same way until it stays.

/// Values below this are stored as zeros: their reciprocal must be finite.
const TINY: f32 = 1e-30;
/// Starts differ by this share of an integer at the end of the range.
const STEP: f32 = 0.125;
/// Rounds of improvement.
const ROUNDS: usize = 4;

/// The integer nearest to `v`, within `low ..= high`, which are integers below 2^22; ties to even.
pub(super) fn nearest(v: f32, low: f32, high: f32) -> f32 {
    // Beyond this an f32 has no bits after the point. Adding rounds, in one instruction on every machine.
    const WHOLE: f32 = 12_582_912.0;
    (v.max(low).min(high) + WHOLE) - WHOLE
}

/// A scale `s` and integers `q` within `low ..= high` for which `Σ w · (s · q − x)²` is small. The scale may be negative.
pub(super) fn symmetric(x: &[f32], w: &[f32], low: f32, high: f32, q: &mut [f32]) -> f32 {
    let peak = x.iter().fold(0.0f32, |peak, &v| if v.abs() > peak.abs() { v } else { peak });
    if peak.abs() < TINY {
        q.fill(0.0);
        return 0.0;
    }
    // What the sum of squares becomes less by, at the best scale for these integers.
    let sums = |inverse: f32| {
        let (mut xq, mut qq) = (0.0f32, 0.0f32);
        for (&x, &w) in x.iter().zip(w) {
            let q = nearest(x * inverse, low, high);
            xq += w * x * q;
            qq += w * q * q;
        }
        (xq, qq)
    };
    let (mut best, mut inverse) = (0.0f32, low / peak);
    let mut scale = 1.0 / inverse;
    // The peak at either end of the range, or somewhat beyond or short of it.
    for end in [low, high] {
        for step in -8..=8 {
            let start = (end + STEP * step as f32) / peak;
            let (xq, qq) = sums(start);
            if qq > 0.0 && xq * xq > best * qq {
                (best, inverse, scale) = (xq * xq / qq, start, xq / qq);
            }
        }
    }
    for _ in 0..ROUNDS {
        let (xq, qq) = sums(1.0 / scale);
        if qq.is_nan() || qq <= 0.0 || xq * xq <= best * qq {
            break;
        }
        (best, inverse) = (xq * xq / qq, 1.0 / scale);
        scale = xq / qq;
    }
    q.iter_mut().zip(x).for_each(|(q, &x)| *q = nearest(x * inverse, low, high));
    scale
}

/// Sums of one group: `Σ w`, `Σ w q`, `Σ w q²`, `Σ w x`, `Σ w x q`.
#[derive(Clone, Copy, Default)]
pub(super) struct Sums {
    pub w: f32,
    pub q: f32,
    pub qq: f32,
    pub x: f32,
    pub xq: f32,
}

impl Sums {
    pub fn of(x: &[f32], w: &[f32], q: &[f32]) -> Self {
        let mut sums = Sums::default();
        for ((&x, &w), &q) in x.iter().zip(w).zip(q) {
            sums.w += w;
            sums.q += w * q;
            sums.qq += w * q * q;
            sums.x += w * x;
            sums.xq += w * x * q;
        }
        sums
    }

    /// The scale and minimum that fit best, neither negative.
    fn solve(self) -> (f32, f32) {
        let det = self.w * self.qq - self.q * self.q;
        if det > 0.0 {
            let scale = (self.w * self.xq - self.x * self.q) / det;
            let min = (self.q * self.xq - self.qq * self.x) / det;
            if min >= 0.0 {
                return (scale.max(0.0), min);
            }
        }
        (if self.qq > 0.0 { (self.xq / self.qq).max(0.0) } else { 0.0 }, 0.0)
    }
}

/// `Σ w · (scale · q − min − x)²`.
pub(super) fn error(x: &[f32], w: &[f32], q: &[f32], scale: f32, min: f32) -> f32 {
    let terms = x.iter().zip(w).zip(q);
    terms.map(|((&x, &w), &q)| (scale * q - min - x) * (scale * q - min - x) * w).sum()
}

/// The integers from 0 to `high` nearest to `(x + min) / scale`.
pub(super) fn round_affine(x: &[f32], scale: f32, min: f32, high: f32, q: &mut [f32]) {
    let inverse = if scale > TINY { 1.0 / scale } else { 0.0 };
    q.iter_mut().zip(x).for_each(|(q, &x)| *q = nearest((x + min) * inverse, 0.0, high));
}

/// A scale and a minimum, neither negative, for which `Σ w · (scale · q − min − x)²` is small with the best integers
/// `q` from 0 to `high`.
pub(super) fn affine(x: &[f32], w: &[f32], high: f32) -> (f32, f32) {
    let (low, top) = x.iter().fold((0.0f32, 0.0f32), |(low, top), &v| (low.min(v), top.max(v)));
    if top - low < TINY {
        return (0.0, 0.0);
    }
    let mut q = [0.0; 32];
    let q = &mut q[..x.len()];
    let (mut best, mut found) = (f32::INFINITY, (0.0, 0.0));
    for step in -8..=10 {
        let mut at = ((top - low) / (high + 2.0 * STEP * step as f32), -low);
        for _ in 0..2 {
            round_affine(x, at.0, at.1, high, q);
            at = Sums::of(x, w, q).solve();
        }
        let error = error(x, w, q, at.0, at.1);
        if error < best {
            (best, found) = (error, at);
        }
    }
    for _ in 0..ROUNDS {
        round_affine(x, found.0, found.1, high, q);
        let at = Sums::of(x, w, q).solve();
        let error = error(x, w, q, at.0, at.1);
        if error >= best {
            break;
        }
        (best, found) = (error, at);
    }
    found
}
