//! Products of interleaved rows with one activation row: 16 rows at once, in two halves of 8 lanes.
//!
//! Weights of 4 and 6 bits: `vpmaddubsw` of unsigned weights with broadcast activations sums pairs in 16 bits. A group's sum
//! starts from what its offset takes away, and so ends within 16 bits (`8 · 2 · 15 · 127`, `16 · 8 · 127` and
//! `8 · 32 · 127` are below 2¹⁵) whether or not it wrapped on the way: `vpmaddwd` is needed once per group and plane. It also
//! weighs the planes: by 128 and 1. Q8_0's weights become 16-bit, by two shifts, and meet the activations' 15 bits at once.

use std::arch::x86_64::*;

use carat_tensor::DType;

use super::{high_nibbles, load, load32, low_nibbles, store};
use crate::interleaved::{
    self, Piece, Q4_0_BYTES, Q4_K_BYTES, Q6_K_BYTES, Q6_K_SCALES, Q8_0_BYTES, ROWS, Tiles, q6_k_sixteen,
};
use crate::ints::{Block, IntRows};
use crate::kernels::{PackedTile, TILE};
use crate::pool::Tile;
use crate::scalar;
use crate::words::BLOCK;

/// How far ahead weights are asked for, in bytes.
const AHEAD: usize = 4 << 10;

/// See [`interleaved::pack_tile`].
#[target_feature(enable = "avx2,fma,f16c")]
pub fn pack_tile(tile: Tiles<'_>, packed: &mut PackedTile) {
    interleaved::pack_tile(tile, packed);
}

/// See [`scalar::pack_floats`].
#[target_feature(enable = "avx2,fma,f16c")]
pub fn pack_floats(rows: &[[f32; BLOCK]; TILE], q: &mut [u8], scale: &mut [f32]) {
    scalar::pack_floats(rows, q, scale);
}

/// See [`crate::scalar::matvec_tiles`]. Each piece of a tile stays in the first cache while all rows meet it.
#[target_feature(enable = "avx2,fma,f16c")]
pub fn matvec_tiles(tiles: Tiles<'_>, x: IntRows<'_>, rest: Option<IntRows<'_>>, out: &mut Tile<'_>) {
    assert!(out.rows() == (0..x.q.len() / x.cols) && out.cols().len() == tiles.count() * ROWS && tiles.cols == x.cols);
    out.rows().for_each(|i| out.row(i).fill(0.0));
    for piece in tiles.pieces() {
        for i in out.rows() {
            let out = &mut out.row(i)[ROWS * piece.tile..][..ROWS];
            one_row(tiles.dtype, &piece, (x, rest), i, out);
        }
    }
}

/// Adds the products of one piece and row `i`.
#[target_feature(enable = "avx2,fma,f16c")]
fn one_row(dtype: DType, piece: &Piece<'_>, (x, rest): (IntRows<'_>, Option<IntRows<'_>>), i: usize, out: &mut [f32]) {
    let planes = Planes::new(x, rest, i);
    let (low, high) = out.split_at_mut(8);
    let sums = [load(low), load(high)];
    let sums = match (dtype, planes.count) {
        (DType::Q4_0, 1) => q4_0::<1>(piece, planes, sums),
        (DType::Q4_0, 2) => q4_0::<2>(piece, planes, sums),
        (DType::Q4_0, _) => q4_0::<3>(piece, planes, sums),
        (DType::Q4K, 1) => q4_k::<1>(piece, planes, sums),
        (DType::Q4K, 2) => q4_k::<2>(piece, planes, sums),
        (DType::Q4K, _) => q4_k::<3>(piece, planes, sums),
        (DType::Q6K, 1) => q6_k::<1>(piece, planes, sums),
        (DType::Q6K, 2) => q6_k::<2>(piece, planes, sums),
        (DType::Q6K, _) => q6_k::<3>(piece, planes, sums),
        (DType::Q8_0, _) => q8_0(piece, x, rest, i, sums),
        _ => unreachable!("{dtype} has no layout in tiles"),
    };
    store(low, sums[0]);
    store(high, sums[1]);
}

/// A row in one, two or three planes of bytes, each 128 times as fine as the one before.
#[derive(Clone, Copy)]
struct Planes<'a> {
    count: usize,
    x: &'a [Block],
    rest: &'a [Block],
}

impl<'a> Planes<'a> {
    /// Row `i`.
    fn new(x: IntRows<'a>, rest: Option<IntRows<'a>>, i: usize) -> Self {
        let count = 1 + usize::from(x.is_fine()) + usize::from(rest.is_some());
        let row = i * x.cols / 32..(i + 1) * x.cols / 32;
        Planes { count, x: &x.blocks[row.clone()], rest: &rest.unwrap_or(x).blocks[row] }
    }

    /// Block `g` of a plane, and which of its planes that is.
    #[inline]
    fn block(&self, plane: usize, g: usize) -> (&Block, usize) {
        debug_assert!(g < self.x.len());
        // SAFETY: both have a block for every 32 columns (`new`), and callers stay within: every tile has
        // `cols / block` blocks, and a block's columns lie within its row.
        unsafe { if plane == 2 { (self.rest.get_unchecked(g), 0) } else { (self.x.get_unchecked(g), plane) } }
    }

    /// Four values of block `g` of a plane from `at` on, in every lane.
    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    fn quad(&self, plane: usize, g: usize, at: usize) -> __m256i {
        let (block, plane) = self.block(plane, g);
        debug_assert!(at + 4 <= 32);
        // SAFETY: four of a plane's 32 bytes.
        _mm256_set1_epi32(unsafe { block.planes[plane].as_ptr().add(at).cast::<i32>().read_unaligned() })
    }

    /// The last plane's scale of block `g`.
    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    fn d<const P: usize>(&self, g: usize) -> __m256 {
        _mm256_set1_ps(self.block(P - 1, g).0.d)
    }

    /// `d · Σ v` of block `g`.
    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    fn weighted<const P: usize>(&self, g: usize) -> __m256 {
        let x = self.block(0, g).0.dsum32;
        _mm256_set1_ps(if P == 3 { x + self.block(2, g).0.dsum32 } else { x })
    }
}

/// Eight signed bytes from `at` on.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
pub fn signed_bytes(block: &[u8], at: usize) -> __m256i {
    assert!(block.len() >= at + 8);
    // SAFETY: 8 bytes from `at` on are readable, just checked.
    _mm256_cvtepi8_epi32(unsafe { _mm_loadl_epi64(block.as_ptr().add(at).cast()) })
}

/// Eight halves from `at` on.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
pub fn halves(block: &[u8], at: usize) -> __m256 {
    assert!(block.len() >= at + 16);
    // SAFETY: 16 bytes from `at` on are readable, just checked.
    _mm256_cvtph_ps(unsafe { _mm_loadu_si128(block.as_ptr().add(at).cast()) })
}

/// Asks for what comes `AHEAD` bytes after `values`. Past the end nothing is read. A few lines at a time: more at
/// once than a core waits for, and the rest is forgotten.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
pub fn prefetch<T>(values: &[T]) {
    for line in 0..size_of_val(values).div_ceil(64) {
        _mm_prefetch::<_MM_HINT_T0>(values.as_ptr().wrapping_byte_add(AHEAD + 64 * line).cast());
    }
}

/// Two 16-bit values, in every lane.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) fn pair([a, b]: [i16; 2]) -> __m256i {
    _mm256_set1_epi32(i32::from(a) & 0xffff | i32::from(b) << 16)
}

/// What 16-bit sums over a block, or over one `part` of it where groups have 16, start from; an offset of 64 doesn't fit.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) fn start<const QUADS: usize, const OFFSET: i32>(x: &Block, plane: usize, part: usize) -> __m256i {
    let eight = pair(if QUADS == 8 { x.start32[plane] } else { x.start16[plane][part] });
    match OFFSET {
        4 => _mm256_srai_epi16::<1>(eight),
        8 => eight,
        16 => _mm256_slli_epi16::<1>(eight),
        32 => _mm256_slli_epi16::<2>(eight),
        _ => _mm256_setzero_si256(),
    }
}

/// Sums of pairs in 16 bits, of each plane.
#[derive(Clone, Copy)]
struct Pairs<const P: usize>([__m256i; P]);

impl<const P: usize> Pairs<P> {
    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    fn new() -> Self {
        Pairs([_mm256_setzero_si256(); P])
    }

    /// What an offset takes away of block `g` ([`start`]).
    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    fn less<const QUADS: usize, const OFFSET: i32>(x: Planes<'_>, g: usize, part: usize) -> Self {
        let mut pairs = Pairs::new();
        for (plane, pairs) in pairs.0.iter_mut().enumerate() {
            let (block, plane) = x.block(plane, g);
            *pairs = start::<QUADS, OFFSET>(block, plane, part);
        }
        pairs
    }

    /// Adds the products of four columns of block `g` from `at` on.
    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    fn add(&mut self, w: __m256i, x: Planes<'_>, g: usize, at: usize) {
        for plane in 0..P {
            self.0[plane] = _mm256_add_epi16(self.0[plane], _mm256_maddubs_epi16(w, x.quad(plane, g, at)));
        }
    }

    /// The sum over planes, one row per lane.
    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    fn total(&self) -> __m256i {
        let one = _mm256_set1_epi16(1);
        if P == 1 {
            return _mm256_madd_epi16(self.0[0], one);
        }
        let high = _mm256_madd_epi16(self.0[0], _mm256_set1_epi16(128));
        let total = _mm256_add_epi32(high, _mm256_madd_epi16(self.0[1], one));
        if P == 2 { total } else { _mm256_add_epi32(_mm256_slli_epi32::<7>(total), _mm256_madd_epi16(self.0[2], one)) }
    }
}

#[target_feature(enable = "avx2,fma,f16c")]
fn q4_0<const P: usize>(piece: &Piece<'_>, x: Planes<'_>, mut acc: [__m256; 2]) -> [__m256; 2] {
    for (g, block) in (piece.col / 32..).zip(piece.bytes.as_chunks::<Q4_0_BYTES>().0) {
        prefetch(block);
        let mut pairs = [Pairs::<P>::less::<8, 8>(x, g, 0); 2];
        for k in 0..4 {
            for (half, pairs) in pairs.iter_mut().enumerate() {
                let w = load32(block, 32 + 64 * k + 32 * half);
                pairs.add(low_nibbles(w), x, g, 4 * k);
                pairs.add(high_nibbles(w), x, g, 16 + 4 * k);
            }
        }
        let d = x.d::<P>(g);
        for (half, acc) in acc.iter_mut().enumerate() {
            let scale = _mm256_mul_ps(halves(block, 16 * half), d);
            *acc = _mm256_fmadd_ps(_mm256_cvtepi32_ps(pairs[half].total()), scale, *acc);
        }
    }
    acc
}

/// Low or high halves of eight dwords, as f32.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn halves_of_dwords(v: __m256i) -> __m256 {
    let words = _mm256_packus_epi32(v, v);
    _mm256_cvtph_ps(_mm256_castsi256_si128(_mm256_permute4x64_epi64::<0b1000>(words)))
}

#[target_feature(enable = "avx2,fma,f16c")]
fn q4_k<const P: usize>(piece: &Piece<'_>, x: Planes<'_>, mut acc: [__m256; 2]) -> [__m256; 2] {
    for (s, block) in (piece.col / 256..).zip(piece.bytes.as_chunks::<Q4_K_BYTES>().0) {
        let heads: [Head; 2] = std::array::from_fn(|half| Head::new(block, half));
        for two in 0..4 {
            let (g, step) = (8 * s + 2 * two, Q4_K_BYTES / 4);
            prefetch(&block[step * two..step * (two + 1)]);
            // Of two groups, each half of the rows.
            let (mut low, mut high) = ([Pairs::<P>::new(); 2], [Pairs::<P>::new(); 2]);
            for k in 0..8 {
                for (half, (low, high)) in low.iter_mut().zip(&mut high).enumerate() {
                    let w = load32(block, 64 * (4 + 8 * two + k) + 32 * half);
                    low.add(low_nibbles(w), x, g, 4 * k);
                    high.add(high_nibbles(w), x, g + 1, 4 * k);
                }
            }
            for (j, pairs) in [(2 * two, low), (2 * two + 1, high)] {
                let g = 8 * s + j;
                for ((pairs, head), acc) in pairs.iter().zip(&heads).zip(&mut acc) {
                    let (scale, min) = head.scale_and_min(j);
                    let scale = _mm256_mul_ps(_mm256_mul_ps(_mm256_cvtepi32_ps(scale), head.d), x.d::<P>(g));
                    *acc = _mm256_fmadd_ps(_mm256_cvtepi32_ps(pairs.total()), scale, *acc);
                    let min = _mm256_mul_ps(_mm256_cvtepi32_ps(min), head.d_min);
                    *acc = _mm256_fnmadd_ps(min, x.weighted::<P>(g), *acc);
                }
            }
        }
    }
    acc
}

/// What eight rows of a block of Q4_K begin with.
pub struct Head {
    pub d: __m256,
    pub d_min: __m256,
    /// The 12 bytes of 6-bit scales and minima, by dwords.
    u: [__m256i; 3],
}

impl Head {
    /// Of the first or the second half of the rows.
    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    pub fn new(block: &[u8], half: usize) -> Self {
        let dword = |u: usize| load32(block, 64 * u + 32 * half);
        let both = dword(0);
        let d = halves_of_dwords(_mm256_and_si256(both, _mm256_set1_epi32(0xffff)));
        let d_min = halves_of_dwords(_mm256_srli_epi32::<16>(both));
        Head { d, d_min, u: [dword(1), dword(2), dword(3)] }
    }

    /// Scale and minimum of group `j` ([`carat_tensor::quant::k4_scale_min`]), of 6 bits.
    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    pub fn scale_and_min(&self, j: usize) -> (__m256i, __m256i) {
        let by = |v: __m256i, bits: usize| _mm256_srlv_epi32(v, _mm256_set1_epi32(bits as i32));
        let and = |v: __m256i, mask: i32| _mm256_and_si256(v, _mm256_set1_epi32(mask));
        let [u0, u1, u2] = self.u;
        let at = 8 * (j % 4);
        if j < 4 {
            (and(by(u0, at), 63), and(by(u1, at), 63))
        } else {
            // The two upper bits come from bits 6 and 7, to bits 4 and 5.
            let upper = |v: __m256i| and(by(v, at + 2), 0x30);
            (_mm256_or_si256(and(by(u2, at), 15), upper(u0)), _mm256_or_si256(and(by(u2, at + 4), 15), upper(u1)))
        }
    }
}

#[target_feature(enable = "avx2,fma,f16c")]
fn q6_k<const P: usize>(piece: &Piece<'_>, x: Planes<'_>, mut acc: [__m256; 2]) -> [__m256; 2] {
    for (s, block) in (piece.col / 256..).zip(piece.bytes.as_chunks::<Q6_K_BYTES>().0) {
        for (half, acc) in acc.iter_mut().enumerate() {
            let d = halves(block, 16 * half);
            for g in 0..16 {
                *acc = q6_k_sixteen_columns::<P>(block, half, g, x, 8 * s + g / 2, d, *acc);
            }
        }
    }
    acc
}

/// `acc` and the products of the `g`-th 16 columns of eight rows, half of block `b` of the activations.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn q6_k_sixteen_columns<const P: usize>(
    block: &[u8; Q6_K_BYTES],
    half: usize,
    g: usize,
    x: Planes<'_>,
    b: usize,
    d: __m256,
    acc: __m256,
) -> __m256 {
    let step = Q6_K_BYTES / 32;
    prefetch(&block[step * (16 * half + g)..][..step]);
    let [low, middle, high] = [0, 64, 128].map(|at| load32(block, q6_k_sixteen(g) + at + 32 * half));
    let and = |v: __m256i, bits: i8| _mm256_and_si256(v, _mm256_set1_epi8(bits));
    let last = last_of_sixes(low, middle, high);
    let mut pairs = Pairs::<P>::less::<4, 32>(x, b, g % 2);
    for (k, w) in [and(low, 63), and(middle, 63), and(high, 63), last].into_iter().enumerate() {
        pairs.add(w, x, b, 16 * (g % 2) + 4 * k);
    }
    let scale = _mm256_cvtepi32_ps(signed_bytes(block, Q6_K_SCALES + ROWS * g + 8 * half));
    let scale = _mm256_mul_ps(_mm256_mul_ps(scale, d), x.d::<P>(b));
    _mm256_fmadd_ps(_mm256_cvtepi32_ps(pairs.total()), scale, acc)
}

/// The quad whose bits are the two upper ones of three others.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
pub fn last_of_sixes(low: __m256i, middle: __m256i, high: __m256i) -> __m256i {
    let low = _mm256_and_si256(_mm256_srli_epi16::<6>(low), _mm256_set1_epi8(0x03));
    let middle = _mm256_and_si256(_mm256_srli_epi16::<4>(middle), _mm256_set1_epi8(0x0c));
    let high = _mm256_and_si256(_mm256_srli_epi16::<2>(high), _mm256_set1_epi8(0x30));
    _mm256_or_si256(low, _mm256_or_si256(middle, high))
}

/// Signed bytes against 16-bit activations, whose quads have their even values first: so do words cut from dwords.
#[target_feature(enable = "avx2,fma,f16c")]
fn q8_0(piece: &Piece<'_>, x: IntRows<'_>, rest: Option<IntRows<'_>>, i: usize, mut acc: [__m256; 2]) -> [__m256; 2] {
    let first = i * x.cols;
    for (g, block) in (piece.col / 32..).zip(piece.bytes.as_chunks::<Q8_0_BYTES>().0) {
        prefetch(block);
        for (half, acc) in acc.iter_mut().enumerate() {
            let scale = halves(block, 16 * half);
            let mut add = |x: IntRows<'_>| {
                let mut dot = _mm256_setzero_si256();
                for k in 0..8 {
                    let w = load32(block, 32 + 64 * k + 32 * half);
                    let even = _mm256_srai_epi16::<8>(_mm256_slli_epi16::<8>(w));
                    let odd = _mm256_srai_epi16::<8>(w);
                    let (even_x, odd_x) = wide_quad(x, first + 32 * g + 4 * k);
                    dot = _mm256_add_epi32(dot, _mm256_madd_epi16(even, even_x));
                    dot = _mm256_add_epi32(dot, _mm256_madd_epi16(odd, odd_x));
                }
                let scale = _mm256_mul_ps(scale, _mm256_set1_ps(x.d[first / 32 + g]));
                *acc = _mm256_fmadd_ps(_mm256_cvtepi32_ps(dot), scale, *acc);
            };
            add(x);
            if let Some(rest) = rest {
                add(rest);
            }
        }
    }
    acc
}

/// The even and the odd two of four 16-bit values from `at` on, in every lane.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) fn wide_quad(x: IntRows<'_>, at: usize) -> (__m256i, __m256i) {
    assert!(at + 4 <= x.wide.len());
    // SAFETY: four values from `at` on are readable, just checked.
    unsafe {
        let at = x.wide.as_ptr().add(at).cast::<i32>();
        (_mm256_set1_epi32(at.read_unaligned()), _mm256_set1_epi32(at.add(1).read_unaligned()))
    }
}
