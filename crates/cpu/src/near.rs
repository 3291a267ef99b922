//! Attention to the row itself and a few rows before it, with keys that change by distance.
//!
//! There are too few keys to share between queries: a task takes some rows of one head, and each meets the keys it sees and
//! those of their distances.

use crate::kernels::Kernels;
use crate::pool::{Output, Pool};

/// Rows of a task.
const ROWS: usize = 16;

/// What is attended with.
pub struct Near<'a> {
    /// Heads.
    pub n_heads: usize,
    /// Values per head.
    pub d: usize,
    /// Keys that a row sees at most.
    pub reach: usize,
    /// `[d]`.
    pub scale: &'a [f32],
    /// `[reach, n_heads, d]`.
    pub relative: &'a [f32],
    /// Of the scores.
    pub softcap: f32,
}

/// See `Backend::attend_near`; queries, keys and values.
pub fn attend(k: &Kernels, pool: &mut Pool, out: &mut [f32], qkv: [&[f32]; 3], near: &Near<'_>, n: usize) {
    let (d, width) = (near.d, near.n_heads * near.d);
    let [q, keys, values] = qkv;
    pool.tiles(&mut [Output::new(out, n, width, ROWS, d)], |_, _, mut tile| {
        let head = tile.cols().start;
        let at = |row: usize| width * row + head;
        let (mut query, mut scores, mut by_distance) = (vec![0.0; d], vec![0.0; near.reach], vec![0.0; near.reach]);
        // What any of the rows sees, one after another, and the distances' keys, the furthest first.
        let start = (tile.rows().start + 1).saturating_sub(near.reach);
        let [seen_keys, seen_values] = [keys, values].map(|of| together(of, (start..tile.rows().end).map(at), d));
        let distant = together(near.relative, (0..near.reach).rev().map(at), d);
        for i in tile.rows() {
            let first = (i + 1).saturating_sub(near.reach);
            let seen = i + 1 - first;
            for (q, (from, scale)) in query.iter_mut().zip(q[at(i)..].iter().zip(near.scale)) {
                *q = from * scale;
            }
            let seen_at = (first - start) * d..(i + 1 - start) * d;
            let (scores, by_distance) = (&mut scores[..seen], &mut by_distance[..seen]);
            (k.scores)(&query, &seen_keys[seen_at.clone()], d, scores);
            (k.scores)(&query, &distant[(near.reach - seen) * d..], d, by_distance);
            scores.iter_mut().zip(by_distance).for_each(|(score, more)| *score += *more);
            (k.softcap)(scores, near.softcap);
            let max = scores.iter().fold(f32::NEG_INFINITY, |max, &v| max.max(v));
            let sum = (k.exp_sum)(scores, max);
            scores.iter_mut().for_each(|p| *p /= sum);
            let out = tile.row(i);
            out.fill(0.0);
            (k.weighted_sum)(scores, &seen_values[seen_at], d, out);
        }
    });
}

/// Rows of `d` values that begin at these places, one after another.
fn together(of: &[f32], starts: impl Iterator<Item = usize>, d: usize) -> Vec<f32> {
    starts.map(|start| &of[start..start + d]).collect::<Vec<_>>().concat()
}
