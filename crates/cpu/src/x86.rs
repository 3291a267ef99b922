//! What every x86-64 has, and what its kernels of rows as stored have in common.
#![allow(unsafe_code, reason = "a read that must not be left out")]

use std::arch::x86_64::{_MM_HINT_T1, _mm_prefetch};

use carat_tensor::DType;

use crate::acts::grow;

/// Bytes of a line of the cache.
pub const LINE: usize = 64;

/// Weights of a round of a row as stored.
pub const ROUND: usize = 256;

// Types by number: what a closure does would not be part of a loop for certain.
pub const Q4_0: usize = DType::Q4_0 as usize;
pub const Q8_0: usize = DType::Q8_0 as usize;
pub const Q4_K: usize = DType::Q4K as usize;
pub const Q5_K: usize = DType::Q5K as usize;
pub const Q6_K: usize = DType::Q6K as usize;

/// Bytes of a round.
pub const fn round_bytes<const TYPE: usize>() -> usize {
    match TYPE {
        Q4_0 => 8 * DType::Q4_0.block_bytes(),
        Q8_0 => 8 * DType::Q8_0.block_bytes(),
        Q4_K => DType::Q4K.block_bytes(),
        Q5_K => DType::Q5K.block_bytes(),
        _ => DType::Q6K.block_bytes(),
    }
}

/// Room for the activations of `count` rounds, as `N` vectors each; from a line of the cache on, as a vector across two is read
/// twice.
pub fn rounds<const LANES: usize, const N: usize>(scratch: &mut Vec<f32>, count: usize) -> &mut [[[f32; LANES]; N]] {
    grow(scratch, count * N * LANES + LINE / size_of::<f32>());
    let start = scratch.as_ptr().align_offset(LINE);
    &mut scratch[start..].as_chunks_mut().0.as_chunks_mut().0[..count]
}

/// The first column of round `c` of a row, and how many blocks of 32 from there on earlier rounds had: the last one of a row that
/// isn't whole rounds has its last 256 columns.
pub fn round_at(cols: usize, c: usize) -> (usize, usize) {
    let at = (c * ROUND).min(cols - ROUND);
    (at, (c * ROUND - at) / 32)
}

/// Asks for the lines of `bytes`, into L2.
#[target_feature(enable = "sse")]
pub fn prefetch(bytes: &[u8]) {
    for line in bytes.chunks(LINE) {
        _mm_prefetch::<_MM_HINT_T1>(line.as_ptr().cast());
    }
}

/// Columns whose activations stay in the first cache while rows of weights go by. Of more, some rows share a pass over them.
pub const NARROW: usize = 3072;

/// The plain type that `TYPE` numbers: what is not inlined knows it, too.
pub const fn plain_type<const TYPE: usize>() -> DType {
    const F32: usize = DType::F32 as usize;
    const F16: usize = DType::F16 as usize;
    match TYPE {
        F32 => DType::F32,
        F16 => DType::F16,
        _ => DType::BF16,
    }
}

/// Defines `matvec_f32`, products of rows with f32 activations, for an instruction set that has `decode` and `dot`, and for plain types
/// `add_run` and `total`, with sums that begin as `$zero`.
macro_rules! plain_rows {
    ($features:literal, $zero:expr) => {
        /// See [`crate::scalar::matvec_f32`].
        #[target_feature(enable = $features)]
        pub fn matvec_f32(dtype: DType, rows: &[u8], x: &[f32], scratch: &mut Vec<f32>, out: &mut [f32]) {
            match dtype {
                DType::F32 => plain::<{ DType::F32 as usize }>(rows, x, out),
                DType::F16 => plain::<{ DType::F16 as usize }>(rows, x, out),
                DType::BF16 => plain::<{ DType::BF16 as usize }>(rows, x, out),
                _ => {
                    let row_bytes = dtype.row_bytes(x.len()).expect("the matrix was made with whole blocks");
                    grow(scratch, x.len());
                    for (out, row) in out.iter_mut().zip(rows.chunks_exact(row_bytes)) {
                        decode(dtype, row, &mut scratch[..x.len()]);
                        *out = dot(&scratch[..x.len()], x);
                    }
                }
            }
        }

        /// Rows of a plain type, widened on the way.
        #[inline]
        #[target_feature(enable = $features)]
        fn plain<const TYPE: usize>(rows: &[u8], x: &[f32], out: &mut [f32]) {
            let done = match x.len() {
                ..=$crate::x86::NARROW => 0,
                // Rows in F32, twice as long, are read faster by fours.
                _ if TYPE == DType::F32 as usize => side_by_side::<TYPE, 4>(rows, x, out),
                _ => side_by_side::<TYPE, 2>(rows, x, out),
            };
            let row_bytes = $crate::x86::plain_type::<TYPE>().block_bytes() * x.len();
            side_by_side::<TYPE, 1>(&rows[done * row_bytes..], x, &mut out[done..]);
        }

        /// As many of the rows as are a multiple of `R`; says how many.
        #[inline]
        #[target_feature(enable = $features)]
        fn side_by_side<const TYPE: usize, const R: usize>(rows: &[u8], x: &[f32], out: &mut [f32]) -> usize {
            let row_bytes = $crate::x86::plain_type::<TYPE>().block_bytes() * x.len();
            let some = out.as_chunks_mut::<R>().0;
            for (out, rows) in some.iter_mut().zip(rows.chunks_exact(R * row_bytes)) {
                *out = plain_dots::<TYPE, R>(std::array::from_fn(|r| &rows[r * row_bytes..(r + 1) * row_bytes]), x);
            }
            R * some.len()
        }

        /// Each of some rows and `x`. Of one row the processor fetches ahead by itself if every place of this code goes through it
        /// line by line and what was read is read [`again`](crate::x86::again); to ask for it would fill the places where lines wait
        /// that are on their way. Of rows side by side it doesn't, and the next ones are asked for in the order of memory.
        #[inline]
        #[target_feature(enable = $features)]
        fn plain_dots<const TYPE: usize, const R: usize>(rows: [&[u8]; R], x: &[f32]) -> [f32; R] {
            use $crate::x86::LINE;
            const RUN: usize = 32;
            let dtype = $crate::x86::plain_type::<TYPE>();
            let size = dtype.block_bytes();
            let mut acc = [[$zero; 2]; R];
            let (runs, rest) = x.as_chunks::<RUN>();
            let mut whole = rows.map(|row| row.chunks_exact(RUN * size));
            let mut next = rows[0].as_ptr().wrapping_add(R * rows[0].len());
            for x in runs {
                if R > 1 {
                    for line in 0..R * RUN * size / LINE {
                        _mm_prefetch::<_MM_HINT_T1>(next.wrapping_add(LINE * line).cast());
                    }
                    next = next.wrapping_add(R * RUN * size);
                }
                for (row, acc) in whole.iter_mut().zip(&mut acc) {
                    let row = row.next().expect("rows are as long as the activations");
                    add_run(dtype, row, x, acc, if R > 1 { 8 * size } else { 16 * size });
                }
            }
            std::array::from_fn(|r| total(dtype, acc[r], &rows[r][runs.len() * RUN * size..], rest))
        }
    };
}

pub(crate) use plain_rows;

/// Defines `matvec_tiles`, products of interleaved rows with activation rows, for an instruction set that has each type's products of
/// a block, `give`, which stores a tile's row, and `by_count`, which calls `by_type` for as many rows as share a pass, `SHARE` at most.
/// Sums of 16 weight rows are a `$sum` and begin as `$zero`; `$encoding` is a parameter that all have, if there is one.
macro_rules! products_of_tiles {
    ($features:literal, $sum:ty, $zero:expr $(, $encoding:ident)?) => {
        /// See [`crate::scalar::matvec_tiles`].
        #[target_feature(enable = $features)]
        pub fn matvec_tiles<$(const $encoding: bool)?>(
            tiles: Tiles<'_>,
            x: IntRows<'_>,
            rest: Option<IntRows<'_>>,
            out: &mut Tile<'_>,
        ) {
            let rows = 0..x.q.len() / x.cols;
            assert!(out.rows() == rows && out.cols().len() == tiles.count() * ROWS && tiles.cols == x.cols);
            match (x.is_fine(), &rest) {
                (false, _) => by_rows::<$($encoding,)? 1>(tiles, (&x, &x), out),
                (true, None) => by_rows::<$($encoding,)? 2>(tiles, (&x, &x), out),
                (true, Some(rest)) => by_rows::<$($encoding,)? 3>(tiles, (&x, rest), out),
            }
        }

        /// As many rows together as share a pass.
        #[target_feature(enable = $features)]
        fn by_rows<$(const $encoding: bool,)? const P: usize>(
            tiles: Tiles<'_>,
            (x, rest): (&IntRows<'_>, &IntRows<'_>),
            out: &mut Tile<'_>,
        ) {
            let n = out.rows().len();
            let planes = Planes::new::<P>(x, rest, n);
            let pieces = tiles.pieces();
            let mut open = [[$zero; SHARE]; GROUP];
            for first in (0..n).step_by(SHARE) {
                let mut out = out.part(first..(first + SHARE).min(n));
                let tiles = AllTiles { dtype: tiles.dtype, pieces: pieces.clone(), open: &mut open };
                by_count::<$($encoding,)? P>(tiles, planes.after(first), &mut out);
            }
        }

        /// What rows that share a pass go through.
        struct AllTiles<'a, 'o> {
            dtype: DType,
            pieces: Pieces<'a>,
            /// Where sums wait, of the tiles of a group, while their panels take turns.
            open: &'o mut [[$sum; SHARE]; GROUP],
        }

        #[target_feature(enable = $features)]
        fn by_type<$(const $encoding: bool,)? const P: usize, const N: usize>(
            tiles: AllTiles<'_, '_>,
            x: Planes<'_>,
            out: &mut Tile<'_>,
        ) {
            let units = std::array::from_fn(|i| x.unit::<P>(i));
            match tiles.dtype {
                DType::Q4_0 => all::<Q4_0_BYTES, 32, N>(tiles, out, units, |block, b, sums| {
                    q4_0::<$($encoding,)? P, N>(block, b, x, sums);
                }),
                DType::Q8_0 => all::<Q8_0_BYTES, 32, N>(tiles, out, units, |block, b, sums| {
                    q8_0::<$($encoding,)? P, N>(block, b, x, sums);
                }),
                DType::Q4K => {
                    // A row of zeros has neither a unit nor sums.
                    let inverses = units.map(|unit| if unit == 0.0 { 0.0 } else { 1.0 / unit });
                    all::<Q4_K_BYTES, 256, N>(tiles, out, units, |block, b, sums| {
                        q4_k::<$($encoding,)? P, N>(block, b, x, &inverses, sums);
                    });
                }
                DType::Q6K => all::<Q6_K_BYTES, 256, N>(tiles, out, units, |block, b, sums| {
                    q6_k::<$($encoding,)? P, N>(block, b, x, sums);
                }),
                dtype => unreachable!("{dtype} has no layout in tiles"),
            }
        }

        /// All tiles: `add` adds block `b` of a tile, `BYTES` for `COLS` columns, to the sums.
        #[inline(never)]
        #[target_feature(enable = $features)]
        fn all<const BYTES: usize, const COLS: usize, const N: usize>(
            tiles: AllTiles<'_, '_>,
            out: &mut Tile<'_>,
            units: [f32; N],
            add: impl Fn(&[u8; BYTES], usize, &mut Sums<N>),
        ) {
            for piece in tiles.pieces {
                let open = tiles.open[piece.tile % GROUP].first_chunk_mut::<N>().expect("no more rows share a pass");
                let mut sums = Sums(if piece.col == 0 { [$zero; N] } else { *open });
                for (b, block) in (piece.col / COLS..).zip(piece.bytes.as_chunks::<BYTES>().0) {
                    add(block, b, &mut sums);
                }
                if !piece.is_last {
                    *open = sums.0;
                    continue;
                }
                for (i, (sum, unit)) in sums.0.into_iter().zip(units).enumerate() {
                    give(&mut out.row(i)[piece.tile * ROWS..], sum, unit);
                }
            }
        }

        /// What a tile's products with `N` rows have come to, in units of each row ([`IntRows::unit`]).
        #[derive(Clone, Copy)]
        struct Sums<const N: usize>([$sum; N]);
    };
}

pub(crate) use products_of_tiles;

/// Reads again what was just read: some processors fetch what follows a line far enough ahead only once they saw it read twice. A
/// core of a Zen 4 reads a tenth more of memory so, and up to twice as much between other reads.
#[inline(always)]
pub fn again<T: Copy>(value: &T) {
    // SAFETY: the reference is one to what can be read.
    unsafe { std::ptr::read_volatile(value) };
}
