//! Products of quantised rows with one activation row: 64 weights per step, scales widened to lanes.
//!
//! The activation row comes with `wide` (the block scale of every four values) and `lane` (`−8 · Σ` of every four
//! values), so that a step is: load, spread the nibbles, `vpdpbusd` from the offset's share (and a second one for the lower
//! bits), convert, one fused multiply-add with `scale · d`. Rows are read once, front to back; several share each load of activations.

use std::arch::x86_64::*;

use carat_tensor::DType;

use super::half;
use super::plain::reduce4;
use crate::acts::IntRows;
use crate::scalar;

/// See [`crate::scalar::matvec`].
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi,avx512vnni")]
pub fn matvec(dtype: DType, rows: &[u8], x: IntRows<'_>, out: &mut [f32]) {
    if x.is_fine() { by_type::<true>(dtype, rows, x, out) } else { by_type::<false>(dtype, rows, x, out) }
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi,avx512vnni")]
fn by_type<const FINE: bool>(dtype: DType, rows: &[u8], x: IntRows<'_>, out: &mut [f32]) {
    let row_bytes = dtype.row_bytes(x.cols).expect("the matrix was made with whole blocks");
    assert!(rows.len() >= out.len() * row_bytes && x.q.len() == x.cols && (!FINE || x.low.len() == x.cols));
    assert!(x.wide.len() * 4 >= x.cols && x.lane.len() * 4 >= x.cols && x.dsum32.len() * 32 >= x.cols);
    match dtype {
        DType::Q4_0 => several(rows, row_bytes, out, |rows| q4_0::<FINE, _>(rows, x), |row| q4_0::<FINE, _>(row, x)),
        DType::Q8_0 => several(rows, row_bytes, out, |rows| q8_0::<FINE, _>(rows, x), |row| q8_0::<FINE, _>(row, x)),
        DType::Q4K => one_by_one(rows, row_bytes, out, |row| q4_q5_k::<FINE, false>(row, x)),
        DType::Q5K => one_by_one(rows, row_bytes, out, |row| q4_q5_k::<FINE, true>(row, x)),
        DType::Q6K => one_by_one(rows, row_bytes, out, |row| q6_k::<FINE>(row, x)),
        _ => scalar::matvec(dtype, rows, x, out),
    }
}

/// Rows that share each load of activations.
const ROWS: usize = 4;

/// Sums of rows: `many` takes the bytes from four rows' first on, `one` from one row's.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi,avx512vnni")]
fn several(
    rows: &[u8],
    row_bytes: usize,
    out: &mut [f32],
    many: impl Fn(&[u8]) -> [__m512; ROWS],
    one: impl Fn(&[u8]) -> [__m512; 1],
) {
    let (groups, rest) = out.as_chunks_mut::<ROWS>();
    for (g, out) in groups.iter_mut().enumerate() {
        let sums = reduce4(many(&rows[g * ROWS * row_bytes..]));
        // SAFETY: four values.
        unsafe { _mm_storeu_ps(out.as_mut_ptr(), sums) }
    }
    let done = groups.len() * ROWS;
    for (r, out) in rest.iter_mut().enumerate() {
        let [sum] = one(&rows[(done + r) * row_bytes..]);
        *out = _mm512_reduce_add_ps(sum);
    }
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi,avx512vnni")]
fn one_by_one(rows: &[u8], row_bytes: usize, out: &mut [f32], dot: impl Fn(&[u8]) -> f32) {
    for (out, row) in out.iter_mut().zip(rows.chunks_exact(row_bytes)) {
        *out = dot(row);
    }
}

/// Two blocks of activations, or one and zeros.
struct Pair<const FINE: bool> {
    q: __m512i,
    low: __m512i,
    wide: __m512,
    lane: __m512i,
}

impl<const FINE: bool> Pair<FINE> {
    /// `start + Σ w · v` of every four values.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi,avx512vnni")]
    fn dot(&self, start: __m512i, w: __m512i) -> __m512i {
        if !FINE {
            return _mm512_dpbusd_epi32(start, w, self.q);
        }
        let high = _mm512_slli_epi32::<7>(_mm512_dpbusd_epi32(_mm512_setzero_si512(), w, self.q));
        _mm512_add_epi32(high, _mm512_dpbusd_epi32(start, w, self.low))
    }
}

/// Blocks `2p` and `2p + 1` of `x`, which has them.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi,avx512vnni")]
fn pair<const FINE: bool>(x: IntRows<'_>, p: usize) -> Pair<FINE> {
    debug_assert!(64 * (p + 1) <= x.cols);
    // SAFETY: all callers' `p` is below half the blocks; `wide` and `lane` have one value per four, and `low` as many as
    // `q` where it is read (asserted by `by_type`).
    unsafe {
        let q = _mm512_loadu_si512(x.q.as_ptr().add(64 * p).cast());
        Pair {
            q,
            low: if FINE { _mm512_loadu_si512(x.low.as_ptr().add(64 * p).cast()) } else { q },
            wide: _mm512_loadu_ps(x.wide.as_ptr().add(16 * p)),
            lane: _mm512_loadu_si512(x.lane.as_ptr().add(16 * p).cast()),
        }
    }
}

/// The last block of an odd number, and zeros.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi,avx512vnni")]
fn odd_pair<const FINE: bool>(x: IntRows<'_>) -> Pair<FINE> {
    let at = x.cols - 32;
    // SAFETY: the masks name 32 bytes and 8 values, the last of the row; lengths as in `pair`.
    unsafe {
        let q = _mm512_maskz_loadu_epi8(0xffff_ffff, x.q.as_ptr().add(at));
        Pair {
            q,
            low: if FINE { _mm512_maskz_loadu_epi8(0xffff_ffff, x.low.as_ptr().add(at)) } else { q },
            wide: _mm512_maskz_loadu_ps(0xff, x.wide.as_ptr().add(at / 4)),
            lane: _mm512_maskz_loadu_epi32(0xff, x.lane.as_ptr().add(at / 4)),
        }
    }
}

/// Two blocks of 18 bytes: scale, 16 bytes of nibbles.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi,avx512vnni")]
fn q4_0<const FINE: bool, const R: usize>(rows: &[u8], x: IntRows<'_>) -> [__m512; R] {
    const LOW: i64 = 0x0f0f_0f0f_0f0f_0f0f;
    const HIGH: i64 = LOW << 4;
    let blocks = x.cols / 32;
    let row_bytes = blocks * 18;
    assert!(rows.len() >= R * row_bytes);
    let ahead = AHEAD.max(R * row_bytes);
    // Bytes 2..18 twice, then 20..36 twice. The second copies keep their high nibbles in place: sixteen times the
    // weight, which the activations' scales and the offset's share make up for once for all rows.
    let spread = _mm512_set_epi64(
        0x2322_2120_1f1e_1d1c,
        0x1b1a_1918_1716_1514,
        0x2322_2120_1f1e_1d1c,
        0x1b1a_1918_1716_1514,
        0x1110_0f0e_0d0c_0b0a,
        0x0908_0706_0504_0302,
        0x1110_0f0e_0d0c_0b0a,
        0x0908_0706_0504_0302,
    );
    let nibbles = _mm512_set_epi64(HIGH, HIGH, LOW, LOW, HIGH, HIGH, LOW, LOW);
    let bits = _mm512_set_epi32(4, 4, 4, 4, 0, 0, 0, 0, 4, 4, 4, 4, 0, 0, 0, 0);
    let shares =
        _mm512_castsi512_ps(_mm512_sub_epi32(_mm512_set1_epi32(1f32.to_bits() as i32), _mm512_slli_epi32::<23>(bits)));
    let placed =
        |x: Pair<FINE>| Pair { wide: _mm512_mul_ps(x.wide, shares), lane: _mm512_sllv_epi32(x.lane, bits), ..x };
    // Words 0 and 9 are the scales.
    let scales = _mm256_set_epi16(9, 9, 9, 9, 9, 9, 9, 9, 0, 0, 0, 0, 0, 0, 0, 0);
    let step = |v: __m512i, x: &Pair<FINE>, acc: __m512| {
        let w = _mm512_and_si512(_mm512_permutexvar_epi8(spread, v), nibbles);
        let dot = _mm512_cvtepi32_ps(x.dot(x.lane, w));
        let d = _mm512_cvtph_ps(_mm256_permutexvar_epi16(scales, _mm512_castsi512_si256(v)));
        _mm512_fmadd_ps(dot, _mm512_mul_ps(d, x.wide), acc)
    };
    let mut acc = [_mm512_setzero_ps(); R];
    // Whole loads of 64 bytes for 36: as long as none reaches past the slice.
    let whole = ((rows.len() - (R - 1) * row_bytes).saturating_sub(28) / 36).min(blocks / 2);
    for p in 0..whole {
        let x = placed(pair(x, p));
        for (r, acc) in acc.iter_mut().enumerate() {
            // SAFETY: row `R − 1`'s load ends at most at `36 · (p + 1) + 28` of what follows its start, within the slice
            // by the choice of `whole`.
            let v = unsafe {
                let at = rows.as_ptr().add(r * row_bytes + 36 * p);
                prefetch(rows.as_ptr().wrapping_add(ahead + 36 * (R * p + r)));
                _mm512_loadu_si512(at.cast())
            };
            *acc = step(v, &x, *acc);
        }
    }
    for p in whole..blocks.div_ceil(2) {
        let odd = 2 * p + 1 == blocks;
        let x = placed(if odd { odd_pair(x) } else { pair(x, p) });
        let bytes = if odd { (1 << 18) - 1 } else { (1 << 36) - 1 };
        for (r, acc) in acc.iter_mut().enumerate() {
            // SAFETY: the mask names the bytes of blocks the row has.
            let v = unsafe { _mm512_maskz_loadu_epi8(bytes, rows.as_ptr().add(r * row_bytes + 36 * p).cast()) };
            *acc = step(v, &x, *acc);
        }
    }
    acc
}

/// Two blocks of 34 bytes: scale, 32 signed bytes.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi,avx512vnni")]
fn q8_0<const FINE: bool, const R: usize>(rows: &[u8], x: IntRows<'_>) -> [__m512; R] {
    let blocks = x.cols / 32;
    let row_bytes = blocks * 34;
    assert!(rows.len() >= R * row_bytes);
    let ahead = AHEAD.max(R * row_bytes);
    let sign = _mm512_set1_epi8(-128);
    let step = |first: *const u8, second: *const u8, x: &Pair<FINE>, acc: __m512| {
        // SAFETY: both point to blocks of 34 bytes, of which 32 are read from the third on.
        let (a, b, da, db) = unsafe {
            (
                _mm256_loadu_si256(first.add(2).cast()),
                _mm256_loadu_si256(second.add(2).cast()),
                _mm_set1_epi16(first.cast::<i16>().read_unaligned()),
                _mm_set1_epi16(second.cast::<i16>().read_unaligned()),
            )
        };
        let w = _mm512_xor_si512(_mm512_inserti64x4::<1>(_mm512_castsi256_si512(a), b), sign);
        let dot = _mm512_cvtepi32_ps(x.dot(_mm512_slli_epi32::<4>(x.lane), w));
        let d = _mm512_cvtph_ps(_mm256_inserti128_si256::<1>(_mm256_castsi128_si256(da), db));
        _mm512_fmadd_ps(dot, _mm512_mul_ps(d, x.wide), acc)
    };
    let mut acc = [_mm512_setzero_ps(); R];
    for p in 0..blocks / 2 {
        let x = pair(x, p);
        for (r, acc) in acc.iter_mut().enumerate() {
            let at = rows.as_ptr().wrapping_add(r * row_bytes + 68 * p);
            prefetch(rows.as_ptr().wrapping_add(ahead + 68 * (R * p + r)));
            *acc = step(at, at.wrapping_add(34), &x, *acc);
        }
    }
    if !blocks.is_multiple_of(2) {
        let x = odd_pair(x);
        for (r, acc) in acc.iter_mut().enumerate() {
            let at = rows.as_ptr().wrapping_add((r + 1) * row_bytes - 34);
            *acc = step(at, [0u8; 34].as_ptr(), &x, *acc);
        }
    }
    acc
}

/// Least distance of prefetches: some hundreds of nanoseconds of one core's bandwidth.
const AHEAD: usize = 12 << 10;

/// Fetches into L2 what will be wanted later. The rows after the present ones are fetched front to back while these
/// are read side by side: memory then sees one stream, which on the measured machine is half as fast again as four.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi,avx512vnni")]
fn prefetch(at: *const u8) {
    _mm_prefetch::<_MM_HINT_T1>(at.cast());
}

/// Lanes `8 · 0` and `8 · 1` of pair `k`'s scales among eight.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi,avx512vnni")]
fn pair_lanes(k: i32) -> __m512i {
    let (a, b) = (2 * k, 2 * k + 1);
    _mm512_set_epi32(b, b, b, b, b, b, b, b, a, a, a, a, a, a, a, a)
}

/// 256 weights in 8 sub-blocks with 6-bit scales and minima; `FIVE` adds the fifth bits.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi,avx512vnni")]
fn q4_q5_k<const FINE: bool, const FIVE: bool>(row: &[u8], x: IntRows<'_>) -> f32 {
    let size = if FIVE { 176 } else { 144 };
    let high = _mm512_set_epi64(4, 4, 4, 4, 0, 0, 0, 0);
    let low = _mm512_set1_epi8(15);
    let (mut acc, mut minima) = (_mm512_setzero_ps(), _mm256_setzero_ps());
    for (s, block) in row.chunks_exact(size).enumerate() {
        let d = half([block[0], block[1]]);
        let dmin = half([block[2], block[3]]);
        let u = |at: usize| u32::from_le_bytes([block[at], block[at + 1], block[at + 2], block[at + 3]]);
        let (u0, u1, u2) = (u(4), u(8), u(12));
        let scale_high = (u2 & 0x0f0f_0f0f) | (((u0 >> 6) & 0x0303_0303) << 4);
        let min_high = ((u2 >> 4) & 0x0f0f_0f0f) | (((u1 >> 6) & 0x0303_0303) << 4);
        let eight = |low: u32, high: u32, d: f32| {
            let bytes = _mm_cvtsi64_si128((u64::from(low) | u64::from(high) << 32) as i64);
            _mm256_mul_ps(_mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(bytes)), _mm256_set1_ps(d))
        };
        let scales = _mm512_castps256_ps512(eight(u0 & 0x3f3f_3f3f, scale_high, d));
        let mins = eight(u1 & 0x3f3f_3f3f, min_high, dmin);
        let qs = &block[if FIVE { 48 } else { 16 }..];
        let sums = &x.dsum32[8 * s..8 * s + 8];
        // SAFETY: eight sums were sliced; a block has 32 bytes of fifth bits at 16.
        let (sums, fifth) = unsafe {
            (_mm256_loadu_ps(sums.as_ptr()), _mm512_broadcast_i64x4(_mm256_loadu_si256(block.as_ptr().add(16).cast())))
        };
        minima = _mm256_fmadd_ps(mins, sums, minima);
        for (k, qs) in qs.chunks_exact(32).enumerate() {
            // SAFETY: 32 bytes were sliced.
            let v = unsafe { _mm512_broadcast_i64x4(_mm256_loadu_si256(qs.as_ptr().cast())) };
            let mut w = _mm512_and_si512(_mm512_srlv_epi64(v, high), low);
            if FIVE {
                let (a, b) = ((1u8 << (2 * k)) as i8, (2u8 << (2 * k)) as i8);
                let bits = _mm512_inserti64x4::<1>(_mm512_set1_epi8(a), _mm256_set1_epi8(b));
                let set = _mm512_test_epi8_mask(fifth, bits);
                w = add_fifth(w, set);
            }
            let x = pair::<FINE>(x, 4 * s + k);
            let dot = _mm512_cvtepi32_ps(x.dot(_mm512_setzero_si512(), w));
            let scale = _mm512_permutexvar_ps(pair_lanes(k as i32), scales);
            acc = _mm512_fmadd_ps(dot, _mm512_mul_ps(scale, x.wide), acc);
        }
    }
    let minima = _mm512_castps256_ps512(minima);
    _mm512_reduce_add_ps(acc) - _mm512_mask_reduce_add_ps(0xff, minima)
}

/// Adds 16 to the bytes named by `set`, whose fifth bit is clear.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi,avx512vnni")]
fn add_fifth(w: __m512i, set: u64) -> __m512i {
    _mm512_mask_add_epi8(w, set, w, _mm512_set1_epi8(16))
}

/// 256 weights in 16 sub-blocks with 8-bit scales.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi,avx512vnni")]
fn q6_k<const FINE: bool>(row: &[u8], x: IntRows<'_>) -> f32 {
    let low = _mm512_set1_epi8(15);
    let two = _mm512_set1_epi8(0x30);
    let left = _mm512_set_epi64(2, 2, 2, 2, 4, 4, 4, 4);
    let right = _mm512_set_epi64(2, 2, 2, 2, 0, 0, 0, 0);
    let first = _mm512_set_epi32(3, 3, 3, 3, 2, 2, 2, 2, 1, 1, 1, 1, 0, 0, 0, 0);
    let mut acc = _mm512_setzero_ps();
    for (s, block) in row.as_chunks::<210>().0.iter().enumerate() {
        let d = half([block[208], block[209]]);
        // SAFETY: the 16 scales are bytes 192..208.
        let scales = unsafe { _mm_loadu_si128(block.as_ptr().add(192).cast()) };
        let scales = _mm512_mul_ps(_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(scales)), _mm512_set1_ps(d));
        for half in 0..2 {
            // SAFETY: low nibbles are bytes 0..128, high bits 128..192, half of each per half.
            let (ql, qh) = unsafe {
                (
                    _mm512_loadu_si512(block.as_ptr().add(64 * half).cast()),
                    _mm512_broadcast_i64x4(_mm256_loadu_si256(block.as_ptr().add(128 + 32 * half).cast())),
                )
            };
            let a = _mm512_or_si512(_mm512_and_si512(ql, low), _mm512_and_si512(_mm512_sllv_epi64(qh, left), two));
            let b = _mm512_or_si512(
                _mm512_and_si512(_mm512_srli_epi16::<4>(ql), low),
                _mm512_and_si512(_mm512_srlv_epi64(qh, right), two),
            );
            for (part, w) in [a, b].into_iter().enumerate() {
                let chunk = 2 * half + part;
                let x = pair::<FINE>(x, 4 * s + chunk);
                let dot = x.dot(_mm512_slli_epi32::<2>(x.lane), w);
                let lanes = _mm512_add_epi32(first, _mm512_set1_epi32(4 * chunk as i32));
                let scale = _mm512_mul_ps(_mm512_permutexvar_ps(lanes, scales), x.wide);
                acc = _mm512_fmadd_ps(_mm512_cvtepi32_ps(dot), scale, acc);
            }
        }
    }
    _mm512_reduce_add_ps(acc)
}
