//! The dispatch table: one function pointer per kernel and one static table per instruction set.
//!
//! A table is handed out only after the CPU reported what it needs; that is the proof behind every `unsafe` here.
//! Kernels work on slices and one thread; tiling and threading are above.

#![allow(unsafe_code, reason = "a table's entries call functions whose features its hand-out proves")]

use carat_tensor::DType;

use crate::e4m7::{self, Widen};
use crate::interleaved::{self, Tiles};
use crate::ints::{IntRows, Sums};
use crate::pool::Tile;
use crate::scalar::{self, RowScale};
use crate::unpack::Form;
use crate::words::{self, BLOCK, WordKernels};

/// An instruction set with kernels of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Isa {
    /// Plain Rust: the definition.
    Scalar,
    /// AVX2, FMA, F16C.
    Avx2,
    /// The same with the integer dot products of AVX-VNNI, or of AVX-512 VNNI and VL.
    Vnni,
    /// AVX-512 F, BW, VL, DQ, VBMI, VNNI, and GFNI.
    Avx512,
    /// ARMv8 Advanced SIMD, with integer dot products.
    Neon,
    /// The same with integer matrix products.
    I8mm,
}

impl Isa {
    /// Lower-case name.
    pub const fn name(self) -> &'static str {
        match self {
            Isa::Scalar => "scalar",
            Isa::Avx2 => "avx2",
            Isa::Vnni => "vnni",
            Isa::Avx512 => "avx512",
            Isa::Neon => "neon",
            Isa::I8mm => "i8mm",
        }
    }
}

impl std::fmt::Display for Isa {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// Weight rows of a packed tile.
pub const TILE: usize = 16;

/// Most tiles that a blocked product takes at once.
pub const MAX_TILES: usize = 8;

/// Up to 16 weight rows unpacked for the blocked product, rows interleaved four weights at a time: the order of
/// `vpdpbusd` with one row per 32-bit lane. Rows that aren't there are zero.
pub struct PackedTile {
    /// How the integers are to be read.
    pub form: Form,
    /// `[cols / 4, 16, 4]`, until they are arranged ([`Kernels::arrange`]).
    pub q: Vec<u8>,
    /// `[cols / group, 16]`.
    pub scale: Vec<f32>,
    /// `[cols / group, 16]`; empty where the format has no minima.
    pub min: Vec<f32>,
}

impl PackedTile {
    /// An empty tile.
    pub const fn new() -> Self {
        let form = Form { group: 32, offset: 0, has_min: false, most: 255 };
        PackedTile { form, q: Vec::new(), scale: Vec::new(), min: Vec::new() }
    }

    /// Sizes the tile for `cols` columns and zeroes its scales and minima, so absent rows give zero.
    pub fn reset(&mut self, form: Form, cols: usize) {
        self.form = form;
        self.q.resize(cols * TILE, 0);
        let groups = cols / form.group * TILE;
        self.scale.clear();
        self.scale.resize(groups, 0.0);
        self.min.clear();
        if form.has_min {
            self.min.resize(groups, 0.0);
        }
    }
}

impl Default for PackedTile {
    fn default() -> Self {
        PackedTile::new()
    }
}

/// One instruction set's kernels; each is defined by the function of the same name in [`scalar`].
#[allow(missing_docs, reason = "the definitions carry the documentation")]
#[allow(clippy::type_complexity, reason = "a table of signatures is what this is")]
pub struct Kernels {
    pub isa: Isa,
    pub largest: fn(x: &[f32]) -> f32,
    pub quantise: fn(x: &[f32], scale: RowScale, q: &mut [i8], low: &mut [i8], d: &mut [f32], sum: &mut [i32]),
    pub sum_up: fn(sum: &[i32], d: &[f32], exps: &[i32], out: Sums<'_>),
    pub matvec:
        fn(DType, rows: &[u8], x: IntRows<'_>, rest: Option<IntRows<'_>>, scratch: &mut Vec<f32>, out: &mut [f32]),
    pub matvec_tiles: fn(Tiles<'_>, x: IntRows<'_>, rest: Option<IntRows<'_>>, out: &mut Tile<'_>),
    /// Up to so many activation rows [`Kernels::matvec_tiles`] is faster than all else, for a type that has a layout; 0
    /// where it never is.
    pub tile_rows: usize,
    /// Whether kernels multiply in pairs, and want [`IntRows::wide`] and what 16-bit sums start from.
    pub in_pairs: bool,
    pub pack: fn(DType, rows: &[u8], cols: usize, tile: &mut PackedTile),
    pub pack_tile: fn(Tiles<'_>, tile: &mut PackedTile),
    pub pack_floats: fn(rows: &[[f32; BLOCK]; TILE], q: &mut [u8], scale: &mut [f32]),
    /// Brings an unpacked tile into the order in which [`Kernels::gemm`] wants it; nothing where that is the common one.
    pub arrange: fn(&mut PackedTile),
    /// How many tiles [`Kernels::gemm`] likes to take at once: an even number of at most [`MAX_TILES`].
    pub tiles: usize,
    pub gemm: fn(&[PackedTile], x: &IntRows<'_>, out: &mut [f32]),
    pub decode: fn(DType, row: &[u8], out: &mut [f32]),
    pub matvec_f32: fn(DType, rows: &[u8], x: &[f32], scratch: &mut Vec<f32>, out: &mut [f32]),
    pub gemm_f32: fn(tile: &[f32], x: &[f32], cols: usize, out: &mut [f32]),
    pub matvec_e4m7: fn(Tiles<'_>, x: &[f32], scratch: &mut Vec<f32>, out: &mut Tile<'_>),
    pub widen_e4m7: Widen,
    pub scores: fn(q: &[f32], k: &[f32], d: usize, scores: &mut [f32]),
    pub weighted_sum: fn(p: &[f32], v: &[f32], d: usize, out: &mut [f32]),
    /// The same two with keys and values in f16, `d` a multiple of 16; where they are faster than decoding first.
    pub halves: Option<HalfKernels>,
    pub exp_sum: fn(s: &mut [f32], max: f32) -> f32,
    pub gelu_mul: fn(gate: &mut [f32], up: &[f32]),
    pub sigmoid_mul: fn(out: &mut [f32], x: &[f32], gate: &[f32]),
    pub softcap: fn(x: &mut [f32], cap: f32),
    pub sum_squares: fn(x: &[f32]) -> f32,
    /// Products of 16-bit integers, where they are faster than those of floats.
    pub words: Option<&'static WordKernels>,
    /// Asks for bytes that will be read some microseconds later; for CPUs that don't fetch ahead by themselves.
    pub prefetch: fn(&[u8]),
    /// Reads everything: the loop behind the bandwidth limit. Asking `ahead` by itself where it can, or in the way in which the
    /// processor best does that.
    pub read_all: fn(x: &[u64], ahead: bool) -> u64,
    /// So many rounds of the best integer dot on registers, and the 8-bit operations of one.
    pub dot_rounds: (fn(rounds: usize) -> i32, usize),
}

/// [`Kernels::scores`] and [`Kernels::weighted_sum`] of keys and values in f16, as they are stored; `ahead` is read after them.
#[derive(Clone, Copy)]
pub struct HalfKernels {
    pub scores: fn(q: &[f32], k: &[u8], d: usize, ahead: Ahead<'_>, scores: &mut [f32]),
    pub weighted_sum: fn(p: &[f32], v: &[u8], d: usize, ahead: Ahead<'_>, out: &mut [f32]),
}

/// Bytes that will be read soon, to be asked for line by line.
pub struct Ahead<'a>(pub &'a [u8]);

impl Ahead<'_> {
    /// Asks for the next lines, if some are left.
    #[inline(always)]
    pub fn lines(&mut self, count: usize, mut ask: impl FnMut(*const u8)) {
        for _ in 0..count {
            if let Some(line) = self.0.first() {
                ask(line);
                self.0 = &self.0[64.min(self.0.len())..];
            }
        }
    }
}

static SCALAR: Kernels = Kernels {
    isa: Isa::Scalar,
    largest: scalar::largest,
    quantise: scalar::quantise,
    sum_up: scalar::sum_up,
    matvec: scalar::matvec,
    matvec_tiles: scalar::matvec_tiles,
    tile_rows: 0,
    in_pairs: false,
    tiles: 2,
    pack: scalar::pack,
    pack_tile: interleaved::pack_tile,
    pack_floats: scalar::pack_floats,
    arrange: |_| (),
    gemm: scalar::gemm,
    decode: scalar::decode,
    matvec_f32: scalar::matvec_f32,
    gemm_f32: scalar::gemm_f32,
    matvec_e4m7: e4m7::matvec,
    widen_e4m7: e4m7::widen,
    scores: scalar::scores,
    weighted_sum: scalar::weighted_sum,
    halves: None,
    exp_sum: scalar::exp_sum,
    gelu_mul: scalar::gelu_mul,
    sigmoid_mul: scalar::sigmoid_mul,
    softcap: scalar::softcap,
    sum_squares: scalar::sum_squares,
    words: Some(&words::SCALAR),
    prefetch: |_| (),
    read_all: |x, _| scalar::read_all(x),
    dot_rounds: (scalar::dot_rounds, 2 * 32),
};

#[cfg(target_arch = "x86_64")]
const AVX2: Kernels = {
    use crate::avx2;
    // SAFETY (all entries): `table` hands this out only after the CPU reported every feature of `avx2`.
    Kernels {
        isa: Isa::Avx2,
        // SAFETY: as above.
        largest: |x| unsafe { avx2::largest(x) },
        // SAFETY: as above.
        quantise: |x, scale, q, low, d, sum| unsafe { avx2::quantise(x, scale, q, low, d, sum) },
        sum_up: scalar::sum_up,
        // SAFETY: as above.
        matvec: |dtype, rows, x, rest, scratch, out| unsafe { avx2::matvec(dtype, rows, x, rest, scratch, out) },
        // SAFETY: as above.
        matvec_tiles: |tiles, x, rest, out| unsafe { avx2::matvec_tiles(tiles, x, rest, out) },
        tile_rows: 8,
        in_pairs: true,
        tiles: 8,
        pack: interleaved::pack,
        // SAFETY: as above.
        pack_tile: |tile, packed| unsafe { avx2::pack_tile(tile, packed) },
        // SAFETY: as above.
        pack_floats: |rows, q, scale| unsafe { avx2::pack_floats(rows, q, scale) },
        arrange: |_| (),
        // SAFETY: as above.
        gemm: |tiles, x, out| unsafe { avx2::gemm(tiles, x, out) },
        // SAFETY: as above.
        decode: |dtype, row, out| unsafe { avx2::decode(dtype, row, out) },
        // SAFETY: as above.
        matvec_f32: |dtype, rows, x, scratch, out| unsafe { avx2::matvec_f32(dtype, rows, x, scratch, out) },
        // SAFETY: as above.
        gemm_f32: |tile, x, cols, out| unsafe { avx2::gemm_f32(tile, x, cols, out) },
        // SAFETY: as above.
        matvec_e4m7: |tiles, x, scratch, out| unsafe { avx2::matvec_e4m7(tiles, x, scratch, out) },
        // SAFETY: as above.
        widen_e4m7: |unit, roots, out| unsafe { avx2::widen_e4m7(unit, roots, out) },
        // SAFETY: as above.
        scores: |q, k, d, scores| unsafe { avx2::scores(q, k, d, scores) },
        // SAFETY: as above.
        weighted_sum: |p, v, d, out| unsafe { avx2::weighted_sum(p, v, d, out) },
        halves: Some(HalfKernels {
            // SAFETY: as above.
            scores: |q, k, d, ahead, scores| unsafe { avx2::scores_f16(q, k, d, ahead, scores) },
            // SAFETY: as above.
            weighted_sum: |p, v, d, ahead, out| unsafe { avx2::weighted_sum_f16(p, v, d, ahead, out) },
        }),
        // SAFETY: as above.
        exp_sum: |s, max| unsafe { avx2::exp_sum(s, max) },
        // SAFETY: as above.
        gelu_mul: |gate, up| unsafe { avx2::gelu_mul(gate, up) },
        // SAFETY: as above.
        sigmoid_mul: |out, x, gate| unsafe { avx2::sigmoid_mul(out, x, gate) },
        // SAFETY: as above.
        softcap: |x, cap| unsafe { avx2::softcap(x, cap) },
        // SAFETY: as above.
        sum_squares: |x| unsafe { avx2::sum_squares(x) },
        words: None,
        // SAFETY: as above.
        prefetch: |bytes| unsafe { crate::x86::prefetch(bytes) },
        // SAFETY: as above.
        read_all: |x, _| unsafe { avx2::read_all(x) },
        // SAFETY: as above.
        dot_rounds: (|rounds| unsafe { avx2::dot_rounds(rounds) }, 2 * 32 * avx2::PRODUCTS),
    }
};

#[cfg(target_arch = "x86_64")]
static AVX_VNNI: Kernels = vnni::<false>();

#[cfg(target_arch = "x86_64")]
static AVX512_VNNI: Kernels = vnni::<true>();

/// With the dot products in one of their encodings.
#[cfg(target_arch = "x86_64")]
const fn vnni<const EVEX: bool>() -> Kernels {
    use crate::vnni;
    // SAFETY (all entries): `table` hands this out only after the CPU reported `avx2`'s features and this encoding.
    Kernels {
        isa: Isa::Vnni,
        // SAFETY: as above.
        matvec_tiles: |tiles, x, rest, out| unsafe { vnni::matvec_tiles::<EVEX>(tiles, x, rest, out) },
        tile_rows: 8,
        in_pairs: false,
        tiles: 4,
        // SAFETY: as above.
        gemm: |tiles, x, out| unsafe { vnni::gemm::<EVEX>(tiles, x, out) },
        // SAFETY: as above.
        dot_rounds: (|rounds| unsafe { vnni::dot_rounds::<EVEX>(rounds) }, 2 * 32 * vnni::SUMS),
        ..AVX2
    }
}

#[cfg(target_arch = "x86_64")]
static AVX512: Kernels = avx512::<false>();

#[cfg(target_arch = "x86_64")]
static AVX512_ASIDE: Kernels = avx512::<true>();

/// `ASIDE` for processors that add beside multiplying.
#[cfg(target_arch = "x86_64")]
const fn avx512<const ASIDE: bool>() -> Kernels {
    use crate::avx512;
    // SAFETY (all entries): `table` hands this out only after the CPU reported every feature of `avx512`.
    Kernels {
        isa: Isa::Avx512,
        // SAFETY: as above.
        largest: |x| unsafe { avx512::largest(x) },
        // SAFETY: as above.
        quantise: |x, scale, q, low, d, sum| unsafe { avx512::quantise(x, scale, q, low, d, sum) },
        // SAFETY: as above.
        sum_up: |sum, d, exps, out| unsafe { avx512::sum_up(sum, d, exps, out) },
        // SAFETY: as above.
        matvec: |dtype, rows, x, rest, scratch, out| unsafe { avx512::matvec(dtype, rows, x, rest, scratch, out) },
        // SAFETY: as above.
        matvec_tiles: |tiles, x, rest, out| unsafe { avx512::matvec_tiles(tiles, x, rest, out) },
        tile_rows: usize::MAX,
        in_pairs: false,
        tiles: 2,
        // SAFETY: as above.
        pack: |dtype, rows, cols, tile| unsafe { avx512::pack(dtype, rows, cols, tile) },
        // SAFETY: as above.
        pack_tile: |tile, packed| unsafe { avx512::pack_tile(tile, packed) },
        // SAFETY: as above.
        pack_floats: |rows, q, scale| unsafe { avx512::pack_floats(rows, q, scale) },
        arrange: |_| (),
        // SAFETY: as above.
        gemm: |tiles, x, out| unsafe { avx512::gemm(tiles, x, out) },
        // SAFETY: as above.
        decode: |dtype, row, out| unsafe { avx512::decode(dtype, row, out) },
        // SAFETY: as above.
        matvec_f32: |dtype, rows, x, scratch, out| unsafe { avx512::matvec_f32(dtype, rows, x, scratch, out) },
        // SAFETY: as above.
        gemm_f32: |tile, x, cols, out| unsafe { avx512::gemm_f32(tile, x, cols, out) },
        // SAFETY: as above.
        matvec_e4m7: |tiles, x, scratch, out| unsafe { avx512::matvec_e4m7(tiles, x, scratch, out) },
        // SAFETY: as above.
        widen_e4m7: |unit, roots, out| unsafe { avx512::widen_e4m7(unit, roots, out) },
        // SAFETY: as above.
        scores: |q, k, d, scores| unsafe { avx512::scores(q, k, d, scores) },
        // SAFETY: as above.
        weighted_sum: |p, v, d, out| unsafe { avx512::weighted_sum(p, v, d, out) },
        halves: Some(HalfKernels {
            // SAFETY: as above.
            scores: |q, k, d, ahead, scores| unsafe { avx512::scores_f16(q, k, d, ahead, scores) },
            // SAFETY: as above.
            weighted_sum: |p, v, d, ahead, out| unsafe { avx512::weighted_sum_f16(p, v, d, ahead, out) },
        }),
        // SAFETY: as above.
        exp_sum: |s, max| unsafe { avx512::exp_sum(s, max) },
        // SAFETY: as above.
        gelu_mul: |gate, up| unsafe { avx512::gelu_mul(gate, up) },
        // SAFETY: as above.
        sigmoid_mul: |out, x, gate| unsafe { avx512::sigmoid_mul(out, x, gate) },
        // SAFETY: as above.
        softcap: |x, cap| unsafe { avx512::softcap(x, cap) },
        // SAFETY: as above.
        sum_squares: |x| unsafe { avx512::sum_squares(x) },
        words: Some(
            &const {
                WordKernels {
                    // SAFETY: as above.
                    round: |x, bounds, steps, q| unsafe { avx512::words::round(x, bounds, steps, q) },
                    // SAFETY: as above.
                    round_halves: |dtype, row, q| unsafe { avx512::words::round_halves(dtype, row, q) },
                    // SAFETY: as above.
                    spread: |rows, len, width, panel| unsafe { avx512::words::spread(rows, len, width, panel) },
                    // SAFETY: as above.
                    gemm: |panel, x, start, bounds, sums, out| unsafe {
                        avx512::words::gemm::<ASIDE>(panel, x, start, bounds, sums, out)
                    },
                    // SAFETY: as above.
                    powers: |scores, len, p, rows| unsafe { avx512::words::powers(scores, len, p, rows) },
                    outrun_bytes: ASIDE,
                }
            },
        ),
        // SAFETY: as above.
        prefetch: |bytes| unsafe { crate::x86::prefetch(bytes) },
        // SAFETY: as above.
        read_all: |x, ahead| unsafe { avx512::read_all(x, ahead) },
        // SAFETY: as above.
        dot_rounds: (|rounds| unsafe { avx512::dot_rounds(rounds) }, 2 * 64 * avx512::SUMS),
    }
}

#[cfg(target_arch = "aarch64")]
static NEON: Kernels = {
    use crate::neon;
    Kernels {
        isa: Isa::Neon,
        largest: neon::largest,
        quantise: neon::quantise,
        sum_up: scalar::sum_up,
        // SAFETY: `table` hands this out only after the CPU reported `dotprod`.
        matvec: |dtype, rows, x, rest, _, out| {
            // SAFETY: as above.
            let part = |dtype, rows: &_, x: IntRows<'_>, out: &mut _| unsafe { neon::matvec(dtype, rows, x, out) };
            scalar::in_parts(part, dtype, rows, x, rest, out);
        },
        // SAFETY: as above.
        matvec_tiles: |tiles, x, rest, out| unsafe { neon::matvec_tiles(tiles, x, rest, out) },
        // More are worth a tile unpacked for all.
        tile_rows: 8,
        pack: interleaved::pack,
        arrange: neon::arrange,
        tiles: 8,
        // SAFETY: as above.
        gemm: |tiles, x, out| unsafe { neon::gemm(tiles, x, out) },
        matvec_f32: neon::matvec_f32,
        gemm_f32: neon::gemm_f32,
        matvec_e4m7: neon::matvec_e4m7,
        scores: neon::scores,
        weighted_sum: neon::weighted_sum,
        halves: Some(HalfKernels { scores: neon::scores_f16, weighted_sum: neon::weighted_sum_f16 }),
        exp_sum: neon::exp_sum,
        gelu_mul: neon::gelu_mul,
        sigmoid_mul: neon::sigmoid_mul,
        softcap: neon::softcap,
        sum_squares: neon::sum_squares,
        // A multiplication makes four products of them, as many as of floats.
        words: None,
        prefetch: neon::prefetch,
        // SAFETY: as above.
        dot_rounds: (|rounds| unsafe { neon::dot_rounds(rounds) }, 2 * 16 * neon::SUMS),
        ..SCALAR
    }
};

#[cfg(target_arch = "aarch64")]
static I8MM: Kernels = {
    use crate::neon::i8mm;
    Kernels {
        isa: Isa::I8mm,
        // As many products in half the instructions, once a tile is unpacked.
        tile_rows: 4,
        // SAFETY: `table` hands this out only after the CPU reported `i8mm`.
        arrange: |tile| unsafe { i8mm::arrange(tile) },
        // SAFETY: as above.
        gemm: |tiles, x, out| unsafe { i8mm::gemm(tiles, x, out) },
        // SAFETY: as above.
        dot_rounds: (|rounds| unsafe { i8mm::dot_rounds(rounds) }, 2 * 32 * crate::neon::SUMS),
        ..NEON
    }
};

/// The table of an instruction set, if this machine has it.
pub fn table(isa: Isa) -> Option<&'static Kernels> {
    match isa {
        Isa::Scalar => Some(&SCALAR),
        #[cfg(target_arch = "x86_64")]
        Isa::Avx2 => has_avx2().then_some(&AVX2),
        #[cfg(target_arch = "x86_64")]
        Isa::Vnni => has_avx2().then(vnni_table).flatten(),
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512 => avx512_tables().map(|[taken, _]| taken),
        #[cfg(target_arch = "aarch64")]
        Isa::Neon => std::arch::is_aarch64_feature_detected!("dotprod").then_some(&NEON),
        #[cfg(target_arch = "aarch64")]
        Isa::I8mm => has_i8mm().then_some(&I8MM),
        _ => None,
    }
}

#[cfg(target_arch = "x86_64")]
fn has_avx2() -> bool {
    is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") && is_x86_feature_detected!("f16c")
}

#[cfg(target_arch = "x86_64")]
fn vnni_table() -> Option<&'static Kernels> {
    let has_evex = || is_x86_feature_detected!("avx512vnni") && is_x86_feature_detected!("avx512vl");
    if is_x86_feature_detected!("avxvnni") { Some(&AVX_VNNI) } else { has_evex().then_some(&AVX512_VNNI) }
}

#[cfg(target_arch = "x86_64")]
fn has_avx512() -> bool {
    is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512bw")
        && is_x86_feature_detected!("avx512vl")
        && is_x86_feature_detected!("avx512dq")
        && is_x86_feature_detected!("avx512vbmi")
        && is_x86_feature_detected!("gfni")
        && is_x86_feature_detected!("avx512vnni")
}

/// The table that this machine takes, and the one that it could.
#[cfg(target_arch = "x86_64")]
fn avx512_tables() -> Option<[&'static Kernels; 2]> {
    has_avx512().then(|| if adds_aside() { [&AVX512_ASIDE, &AVX512] } else { [&AVX512, &AVX512_ASIDE] })
}

/// Whether vectors are added in units beside those that multiply, as in AMD's processors: of Intel's the same units do both.
#[cfg(target_arch = "x86_64")]
fn adds_aside() -> bool {
    let vendor = std::arch::x86_64::__cpuid(0);
    [vendor.ebx, vendor.edx, vendor.ecx].map(u32::to_le_bytes).as_flattened() == b"AuthenticAMD"
}

/// With `dotprod`, which the other kernels of the table need.
#[cfg(target_arch = "aarch64")]
fn has_i8mm() -> bool {
    std::arch::is_aarch64_feature_detected!("dotprod") && std::arch::is_aarch64_feature_detected!("i8mm")
}

/// The AVX-512 table that this machine can run and does not take.
#[cfg(test)]
pub fn other_avx512() -> Option<&'static Kernels> {
    #[cfg(target_arch = "x86_64")]
    return avx512_tables().map(|[_, other]| other);
    #[cfg(not(target_arch = "x86_64"))]
    None
}

/// Instruction sets this machine can run, best first; the scalar one is always there.
pub fn available() -> Vec<Isa> {
    [Isa::Avx512, Isa::Vnni, Isa::Avx2, Isa::I8mm, Isa::Neon, Isa::Scalar]
        .into_iter()
        .filter(|&isa| table(isa).is_some())
        .collect()
}

/// The best table this machine has.
pub fn best() -> &'static Kernels {
    available().into_iter().find_map(table).unwrap_or(&SCALAR)
}
