//! Unpacking 16 rows into a tile: bytes per row, then a 16 × 8 transpose of dwords.
//!
//! Q4_0 and Q8_0 go straight from the block to registers; the other formats are unpacked by their definition first,
//! whose cost the columns of the product share.

use std::arch::x86_64::*;

use carat_tensor::DType;

use super::{half, load, store};
use crate::kernels::{PackedTile, TILE};
use crate::scalar::TINY;
use crate::unpack::{Unpacked, form, unpack};
use crate::words::BLOCK;

/// See [`crate::scalar::pack`].
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi,avx512vnni")]
pub fn pack(dtype: DType, rows: &[u8], cols: usize, tile: &mut PackedTile) {
    let form = form(dtype).expect("only quantised types reach the integer kernels");
    let row_bytes = dtype.row_bytes(cols).expect("the matrix was made with whole blocks");
    let count = rows.len() / row_bytes;
    tile.reset(form, cols);
    match dtype {
        DType::Q4_0 => blocks32(rows, row_bytes, count, 18, tile, |block| {
            // SAFETY: a Q4_0 block has 18 bytes, the last 16 are read.
            let v = unsafe { _mm_loadu_si128(block.as_ptr().add(2).cast()) };
            let low = _mm256_castsi128_si256(v);
            let both = _mm256_inserti128_si256::<1>(low, _mm_srli_epi16::<4>(v));
            _mm256_and_si256(both, _mm256_set1_epi8(15))
        }),
        DType::Q8_0 => blocks32(rows, row_bytes, count, 34, tile, |block| {
            // SAFETY: a Q8_0 block has 34 bytes, the last 32 are read.
            let v = unsafe { _mm256_loadu_si256(block.as_ptr().add(2).cast()) };
            _mm256_xor_si256(v, _mm256_set1_epi8(-128))
        }),
        _ => any(dtype, rows, row_bytes, tile),
    }
}

/// Formats of 32 weights that begin with their scale.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi,avx512vnni")]
fn blocks32(
    rows: &[u8],
    row_bytes: usize,
    count: usize,
    bytes: usize,
    tile: &mut PackedTile,
    read: impl Fn(&[u8]) -> __m256i,
) {
    let blocks = row_bytes / bytes;
    for b in 0..blocks {
        let mut quads = [_mm256_setzero_si256(); TILE];
        for (r, quad) in quads.iter_mut().enumerate().take(count) {
            let block = &rows[r * row_bytes + b * bytes..r * row_bytes + (b + 1) * bytes];
            *quad = read(block);
            tile.scale[b * TILE + r] = half([block[0], block[1]]);
        }
        store_all(transpose(&quads), &mut tile.q[b * 32 * TILE..(b + 1) * 32 * TILE]);
    }
}

/// See [`crate::scalar::pack_floats`].
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi,avx512vnni")]
pub fn pack_floats(rows: &[[f32; BLOCK]; TILE], q: &mut [u8], scale: &mut [f32]) {
    let steps = _mm512_set1_ps(127.0);
    for (g, (q, scale)) in q.chunks_exact_mut(32 * TILE).zip(scale.chunks_exact_mut(TILE)).enumerate() {
        let part = |r: usize, i: usize| load(&rows[r][32 * g + 16 * i..]);
        // As integers, in whose order NaN comes last: the maximum of floats may drop it.
        let magnitude = |v| _mm512_castps_si512(_mm512_abs_ps(v));
        let largest =
            largest_of_each(std::array::from_fn(|r| _mm512_max_epi32(magnitude(part(r, 0)), magnitude(part(r, 1)))));
        let largest = _mm512_castsi512_ps(largest);
        let is_finite = _mm512_cmp_ps_mask::<_CMP_LT_OQ>(largest, _mm512_set1_ps(f32::INFINITY));
        let is_some = _mm512_mask_cmp_ps_mask::<_CMP_GE_OQ>(is_finite, largest, _mm512_set1_ps(TINY));
        let d = _mm512_maskz_div_ps(is_some, largest, steps);
        store(scale, _mm512_mask_mov_ps(_mm512_set1_ps(f32::NAN), is_finite, d));
        let mut inverse = [0.0; TILE];
        store(&mut inverse, _mm512_maskz_div_ps(is_some, steps, largest));
        let quads = std::array::from_fn(|r| {
            let steps = |i: usize| {
                let x = _mm512_mul_ps(part(r, i), _mm512_set1_ps(inverse[r]));
                _mm512_cvtepi32_epi8(_mm512_cvtps_epi32(x))
            };
            _mm256_xor_si256(_mm256_set_m128i(steps(1), steps(0)), _mm256_set1_epi8(-128))
        });
        store_all(transpose(&quads), q);
    }
}

/// The largest lane of each of 16 vectors: neighbours are merged with half as many lanes of each, until one is left.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi,avx512vnni")]
fn largest_of_each(v: [__m512i; TILE]) -> __m512i {
    let by_1 = |a, b| _mm512_max_epi32(_mm512_unpacklo_epi32(a, b), _mm512_unpackhi_epi32(a, b));
    let by_2 = |a, b| _mm512_max_epi32(_mm512_unpacklo_epi64(a, b), _mm512_unpackhi_epi64(a, b));
    // Four rows, of each of which every 128 bits hold one.
    let four = |i: usize| by_2(by_1(v[i], v[i + 1]), by_1(v[i + 2], v[i + 3]));
    let low_high = |a, b| {
        let (low, high) = (_mm512_shuffle_i32x4::<0x44>(a, b), _mm512_shuffle_i32x4::<0xee>(a, b));
        _mm512_max_epi32(low, high)
    };
    let (a, b) = (low_high(four(0), four(4)), low_high(four(8), four(12)));
    _mm512_max_epi32(_mm512_shuffle_i32x4::<0x88>(a, b), _mm512_shuffle_i32x4::<0xdd>(a, b))
}

/// Any format, by its definition.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi,avx512vnni")]
fn any(dtype: DType, rows: &[u8], row_bytes: usize, tile: &mut PackedTile) {
    let (len, bytes) = (dtype.block_len(), dtype.block_bytes());
    let groups = len / tile.form.group;
    let mut blocks = [const { Unpacked::new() }; TILE];
    for b in 0..row_bytes / bytes {
        for (r, (row, block)) in rows.chunks_exact(row_bytes).zip(&mut blocks).enumerate() {
            unpack(dtype, &row[b * bytes..(b + 1) * bytes], block);
            for g in 0..groups {
                tile.scale[(b * groups + g) * TILE + r] = block.scale[g];
                if tile.form.has_min {
                    tile.min[(b * groups + g) * TILE + r] = block.min[g];
                }
            }
        }
        for c in 0..len / 32 {
            let mut quads = [_mm256_setzero_si256(); TILE];
            for (quad, block) in quads.iter_mut().zip(&blocks) {
                let q = &block.q[32 * c..32 * (c + 1)];
                // SAFETY: 32 bytes were sliced just now.
                *quad = unsafe { _mm256_loadu_si256(q.as_ptr().cast()) };
            }
            let at = (b * len + 32 * c) * TILE;
            store_all(transpose(&quads), &mut tile.q[at..at + 32 * TILE]);
        }
    }
}

/// Stores vectors one after another.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi,avx512vnni")]
fn store_all(vectors: [__m512i; 8], out: &mut [u8]) {
    assert_eq!(out.len(), 32 * TILE);
    for (vector, out) in vectors.into_iter().zip(out.as_chunks_mut::<{ 4 * TILE }>().0) {
        // SAFETY: 64 bytes.
        unsafe { _mm512_storeu_si512(out.as_mut_ptr().cast(), vector) }
    }
}

/// 16 rows of 8 dwords as 8 rows of 16 dwords.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi,avx512vnni")]
pub fn transpose(rows: &[__m256i; TILE]) -> [__m512i; 8] {
    let z: [__m512i; 8] =
        std::array::from_fn(|i| _mm512_inserti64x4::<1>(_mm512_castsi256_si512(rows[i]), rows[i + 8]));
    // Per 128-bit lane, rows i..i+4 of one column; lanes are (rows i, columns k), (i, k + 4), (i + 8, k), (i + 8, k + 4).
    let four = |i: usize| {
        let (low01, high01) = (_mm512_unpacklo_epi32(z[i], z[i + 1]), _mm512_unpackhi_epi32(z[i], z[i + 1]));
        let (low23, high23) = (_mm512_unpacklo_epi32(z[i + 2], z[i + 3]), _mm512_unpackhi_epi32(z[i + 2], z[i + 3]));
        [
            _mm512_unpacklo_epi64(low01, low23),
            _mm512_unpackhi_epi64(low01, low23),
            _mm512_unpacklo_epi64(high01, high23),
            _mm512_unpackhi_epi64(high01, high23),
        ]
    };
    let (a, b) = (four(0), four(4));
    let first = _mm512_setr_epi64(0, 1, 8, 9, 4, 5, 12, 13);
    let second = _mm512_setr_epi64(2, 3, 10, 11, 6, 7, 14, 15);
    let mut out = [_mm512_setzero_si512(); 8];
    for k in 0..4 {
        out[k] = _mm512_permutex2var_epi64(a[k], first, b[k]);
        out[k + 4] = _mm512_permutex2var_epi64(a[k], second, b[k]);
    }
    out
}
