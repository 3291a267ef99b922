//! Attention over keys and values in f16: what every instruction set's kernels share, see [`crate::kernels::HalfKernels`].

/// Defines `scores_f16` and `weighted_sum_f16` of an instruction set by its `some_keys` and `some_columns`. Query rows are taken in powers
/// of two, and for each number of them as many keys, or vectors of columns, as leave their sums in registers. `$lanes` values are
/// what a vector of columns has, and what `d` is a multiple of.
macro_rules! kernels_of_halves {
    ($(#[$features:meta])* $lanes:literal, most_rows: $most:literal, keys: [$($m:literal => $keys:literal),+],
     columns: [$($n:literal => $columns:literal),+]) => {
        /// See [`crate::kernels::HalfKernels`].
        $(#[$features])*
        pub fn scores_f16(q: &[f32], k: &[u8], d: usize, mut ahead: Ahead<'_>, scores: &mut [f32]) {
            let (m, b) = (q.len() / d, k.len() / (2 * d));
            assert!(d.is_multiple_of($lanes) && scores.len() >= m * b);
            let mut i = 0;
            while i < m {
                let taken = (1 << (m - i).ilog2()).min($most);
                let (q, scores) = (&q[i * d..(i + taken) * d], &mut scores[i * b..(i + taken) * b]);
                match taken {
                    $($m => all_keys::<$m, $keys>(q, k, d, &mut ahead, scores),)+
                    _ => unreachable!("{taken} rows at once"),
                }
                i += taken;
            }
        }

        /// Scores of `M` rows, `C` keys at a time.
        $(#[$features])*
        fn all_keys<const M: usize, const C: usize>(
            q: &[f32],
            k: &[u8],
            d: usize,
            ahead: &mut Ahead<'_>,
            scores: &mut [f32],
        ) {
            let b = k.len() / (2 * d);
            let mut j = 0;
            while j + C <= b {
                let sums = some_keys::<M, C>(q, &k[2 * d * j..2 * d * (j + C)], d, ahead);
                for (scores, sums) in scores.chunks_exact_mut(b).zip(sums) {
                    scores[j..j + C].copy_from_slice(&sums);
                }
                j += C;
            }
            for j in j..b {
                let sums = some_keys::<M, 1>(q, &k[2 * d * j..2 * d * (j + 1)], d, ahead);
                for (scores, [sum]) in scores.chunks_exact_mut(b).zip(sums) {
                    scores[j] = sum;
                }
            }
        }

        /// See [`crate::kernels::HalfKernels`].
        $(#[$features])*
        pub fn weighted_sum_f16(p: &[f32], v: &[u8], d: usize, mut ahead: Ahead<'_>, out: &mut [f32]) {
            let (m, b) = (out.len() / d, v.len() / (2 * d));
            assert!(d.is_multiple_of($lanes) && p.len() >= m * b);
            let mut i = 0;
            while i < m {
                let taken = (1 << (m - i).ilog2()).min($most);
                let (p, out) = (&p[i * b..(i + taken) * b], &mut out[i * d..(i + taken) * d]);
                match taken {
                    $($n => all_columns::<$n, $columns>(p, v, d, &mut ahead, out),)+
                    _ => unreachable!("{taken} rows at once"),
                }
                i += taken;
            }
        }

        /// `M` rows, `C` vectors of columns at a time.
        $(#[$features])*
        fn all_columns<const M: usize, const C: usize>(
            p: &[f32],
            v: &[u8],
            d: usize,
            ahead: &mut Ahead<'_>,
            out: &mut [f32],
        ) {
            let mut at = 0;
            while at + $lanes * C <= d {
                some_columns::<M, C>(p, v, d, at, ahead, out);
                at += $lanes * C;
            }
            while at < d {
                some_columns::<M, 1>(p, v, d, at, ahead, out);
                at += $lanes;
            }
        }
    };
}

pub(crate) use kernels_of_halves;
