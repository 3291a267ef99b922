//! Encoders of Q4_K and Q6_K.
//!
//! Each sub-block is fitted by itself ([`super::fit`]). The block's scales then bind the sub-blocks' to integers of
//! few bits: for given block scales every sub-block takes the integers near its own fit that leave the least error,
//! for given integers the block scales are the least-squares solution, and the two alternate.
//!
//! With importance weights `w` per column, `Σ w · (x̂ − x)²` is made small; without, every column weighs the same.

use half::f16;

use super::fit::{self, Sums, nearest};
use super::k::{BlockQ4K, BlockQ6K, pack_k4_scales};

/// Rounds of alternation.
const ROUNDS: usize = 3;
/// Largest six-bit integer.
const SIX_BITS: f32 = 63.0;

/// The f16 that a block scale is stored as, as f32.
fn half(v: f32) -> f32 {
    // Infinite scales would make zeros not a number.
    f16::from_f32(v.clamp(-65504.0, 65504.0)).to_f32()
}

/// One encoding of a Q4_K block under trial.
#[derive(Clone)]
struct Trial4 {
    d: f32,
    dmin: f32,
    scale: [f32; 8],
    min: [f32; 8],
    q: [f32; 256],
    error: f32,
}

impl BlockQ4K {
    /// The block for 256 values, weighted by `w`.
    pub fn encode(x: &[f32; 256], w: &[f32; 256]) -> Self {
        let (xs, ws) = (x.as_chunks::<32>().0, w.as_chunks::<32>().0);
        let fits: [(f32, f32); 8] = std::array::from_fn(|s| fit::affine(&xs[s], &ws[s], 15.0));
        let largest = |of: fn(&(f32, f32)) -> f32| fits.iter().map(of).fold(0.0, f32::max);
        let (d, dmin) = (half(largest(|f| f.0) / SIX_BITS), half(largest(|f| f.1) / SIX_BITS));
        let mut best = Trial4::choose(xs, ws, &fits, d, dmin);
        for _ in 0..ROUNDS {
            let (d, dmin) = best.solve(xs, ws);
            let trial = Trial4::choose(xs, ws, &fits, half(d), half(dmin));
            if trial.error >= best.error {
                break;
            }
            best = trial;
        }
        let mut qs = [0; 128];
        for (pair, out) in best.q.as_chunks::<64>().0.iter().zip(qs.as_chunks_mut::<32>().0) {
            for (l, out) in out.iter_mut().enumerate() {
                *out = pair[l] as u8 | ((pair[32 + l] as u8) << 4);
            }
        }
        let bytes = |v: [f32; 8]| v.map(|v| v as u8);
        BlockQ4K {
            d: f16::from_f32(best.d),
            dmin: f16::from_f32(best.dmin),
            scales: pack_k4_scales(&bytes(best.scale), &bytes(best.min)),
            qs,
        }
    }
}

impl Trial4 {
    /// The best integers for these block scales.
    fn choose(xs: &[[f32; 32]], ws: &[[f32; 32]], fits: &[(f32, f32); 8], d: f32, dmin: f32) -> Self {
        let mut this = Trial4 { d, dmin, scale: [0.0; 8], min: [0.0; 8], q: [0.0; 256], error: 0.0 };
        let near = |v: f32, unit: f32| {
            let at = if unit > 0.0 { nearest(v / unit, 0.0, SIX_BITS) } else { 0.0 };
            [at, (at - 1.0).max(0.0), (at + 1.0).min(SIX_BITS)]
        };
        let mut q = [0.0; 32];
        for (s, (x, w)) in xs.iter().zip(ws).enumerate() {
            let mut best = f32::INFINITY;
            for scale in near(fits[s].0, d) {
                for min in near(fits[s].1, dmin) {
                    let (unit, low) = (d * scale, dmin * min);
                    fit::round_affine(x, unit, low, 15.0, &mut q);
                    let error = fit::error(x, w, &q, unit, low);
                    if error < best {
                        (best, this.scale[s], this.min[s]) = (error, scale, min);
                        this.q[32 * s..32 * s + 32].copy_from_slice(&q);
                    }
                }
            }
            this.error += best;
        }
        this
    }

    /// The block scales that fit these integers best.
    fn solve(&self, xs: &[[f32; 32]], ws: &[[f32; 32]]) -> (f32, f32) {
        // x ≈ d · (scale · q) − dmin · min: the normal equations of two unknowns.
        let (mut aa, mut ab, mut bb, mut ax, mut bx) = (0.0f64, 0.0f64, 0.0f64, 0.0f64, 0.0f64);
        for (s, q) in self.q.as_chunks::<32>().0.iter().enumerate() {
            let sums = Sums::of(&xs[s], &ws[s], q);
            let (scale, min) = (f64::from(self.scale[s]), f64::from(self.min[s]));
            aa += scale * scale * f64::from(sums.qq);
            ab += scale * min * f64::from(sums.q);
            bb += min * min * f64::from(sums.w);
            ax += scale * f64::from(sums.xq);
            bx += min * f64::from(sums.x);
        }
        let det = aa * bb - ab * ab;
        if det <= 1e-12 * aa * bb {
            let d = if aa > 0.0 { (ax + ab * f64::from(self.dmin)) / aa } else { 0.0 };
            return (d as f32, self.dmin);
        }
        let (d, dmin) = ((ax * bb - bx * ab) / det, (ax * ab - bx * aa) / det);
        (d.max(0.0) as f32, dmin.max(0.0) as f32)
    }
}

/// One encoding of a Q6_K block under trial.
#[derive(Clone)]
struct Trial6 {
    d: f32,
    scale: [f32; 16],
    q: [f32; 256],
    error: f32,
}

impl BlockQ6K {
    /// The block for 256 values, weighted by `w`.
    pub fn encode(x: &[f32; 256], w: &[f32; 256]) -> Self {
        let (xs, ws) = (x.as_chunks::<16>().0, w.as_chunks::<16>().0);
        let mut q = [0.0; 16];
        let fits: [f32; 16] = std::array::from_fn(|s| fit::symmetric(&xs[s], &ws[s], -32.0, 31.0, &mut q));
        let largest = fits.iter().fold(0.0f32, |peak, &v| if v.abs() > peak.abs() { v } else { peak });
        let mut best = Trial6::choose(xs, ws, &fits, half(largest / -128.0));
        for _ in 0..ROUNDS {
            let trial = Trial6::choose(xs, ws, &fits, half(best.solve(xs, ws)));
            if trial.error >= best.error {
                break;
            }
            best = trial;
        }
        best.block()
    }
}

impl Trial6 {
    fn choose(xs: &[[f32; 16]], ws: &[[f32; 16]], fits: &[f32; 16], d: f32) -> Self {
        let mut this = Trial6 { d, scale: [0.0; 16], q: [0.0; 256], error: 0.0 };
        let mut q = [0.0; 16];
        for (s, (x, w)) in xs.iter().zip(ws).enumerate() {
            let at = if d != 0.0 { nearest(fits[s] / d, -128.0, 127.0) } else { 0.0 };
            let mut best = f32::INFINITY;
            for scale in [at, (at - 1.0).max(-128.0), (at + 1.0).min(127.0)] {
                let unit = d * scale;
                let inverse = if unit == 0.0 { 0.0 } else { 1.0 / unit };
                q.iter_mut().zip(x).for_each(|(q, &x)| *q = nearest(x * inverse, -32.0, 31.0));
                let error = fit::error(x, w, &q, unit, 0.0);
                if error < best {
                    (best, this.scale[s]) = (error, scale);
                    this.q[16 * s..16 * s + 16].copy_from_slice(&q);
                }
            }
            this.error += best;
        }
        this
    }

    fn solve(&self, xs: &[[f32; 16]], ws: &[[f32; 16]]) -> f32 {
        let (mut aa, mut ax) = (0.0f64, 0.0f64);
        for (s, q) in self.q.as_chunks::<16>().0.iter().enumerate() {
            let sums = Sums::of(&xs[s], &ws[s], q);
            let scale = f64::from(self.scale[s]);
            aa += scale * scale * f64::from(sums.qq);
            ax += scale * f64::from(sums.xq);
        }
        if aa > 0.0 { (ax / aa) as f32 } else { self.d }
    }

    fn block(&self) -> BlockQ6K {
        let (mut ql, mut qh) = ([0u8; 128], [0u8; 64]);
        for (at, &q) in self.q.iter().enumerate() {
            let (n, j, l) = (at / 128, at / 32 % 4, at % 32);
            let code = (q + 32.0) as u8;
            ql[64 * n + 32 * (j % 2) + l] |= (code & 15) << (4 * (j / 2));
            qh[32 * n + l] |= (code >> 4) << (2 * j);
        }
        BlockQ6K { ql, qh, scales: self.scale.map(|s| s as i8), d: f16::from_f32(self.d) }
    }
}
