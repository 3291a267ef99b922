//! The dispatch table: one function pointer per kernel and one static table per instruction set.
//!
//! A table is handed out only after the CPU reported what it needs; that is the proof behind every `unsafe` here.
//! Kernels work on slices and one thread; tiling and threading are above.

use carat_tensor::DType;

use crate::acts::{Row8, Rows8};
use crate::scalar;
use crate::unpack::Form;

/// An instruction set with kernels of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Isa {
    /// Plain Rust: the definition.
    Scalar,
    /// AVX2, FMA, F16C.
    Avx2,
    /// AVX-512 F, BW, VL, DQ, VBMI, VNNI.
    Avx512,
    /// ARMv8 Advanced SIMD.
    Neon,
}

impl Isa {
    /// Lower-case name.
    pub const fn name(self) -> &'static str {
        match self {
            Isa::Scalar => "scalar",
            Isa::Avx2 => "avx2",
            Isa::Avx512 => "avx512",
            Isa::Neon => "neon",
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

/// Up to 16 weight rows unpacked for the blocked product, rows interleaved four weights at a time: the order of
/// `vpdpbusd` with one row per 32-bit lane. Rows that aren't there are zero.
pub struct PackedTile {
    /// How the integers are to be read.
    pub form: Form,
    /// `[cols / 4, 16, 4]`.
    pub q: Vec<u8>,
    /// `[cols / group, 16]`.
    pub scale: Vec<f32>,
    /// `[cols / group, 16]`; empty where the format has no minima.
    pub min: Vec<f32>,
}

impl PackedTile {
    /// An empty tile.
    pub const fn new() -> Self {
        let form = Form { group: 32, offset: 0, has_min: false };
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
pub struct Kernels {
    pub isa: Isa,
    pub quantise: fn(x: &[f32], q: &mut [i8], d: &mut [f32], sum: &mut [i32]),
    pub matvec: fn(DType, rows: &[u8], x: Row8<'_>, out: &mut [f32]),
    pub pack: fn(DType, rows: &[u8], cols: usize, tile: &mut PackedTile),
    pub gemm: fn(&PackedTile, x: &Rows8<'_>, out: &mut [f32]),
    pub decode: fn(DType, row: &[u8], out: &mut [f32]),
    pub matvec_f32: fn(DType, rows: &[u8], x: &[f32], scratch: &mut Vec<f32>, out: &mut [f32]),
    pub gemm_f32: fn(tile: &[f32], x: &[f32], cols: usize, out: &mut [f32]),
    pub scores: fn(q: &[f32], k: &[f32], d: usize, scores: &mut [f32]),
    pub weighted_sum: fn(p: &[f32], v: &[f32], d: usize, out: &mut [f32]),
    pub exp_sum: fn(s: &mut [f32], max: f32) -> f32,
    pub gelu_mul: fn(gate: &mut [f32], up: &[f32]),
    pub softcap: fn(x: &mut [f32], cap: f32),
    pub sum_squares: fn(x: &[f32]) -> f32,
}

static SCALAR: Kernels = Kernels {
    isa: Isa::Scalar,
    quantise: scalar::quantise,
    matvec: scalar::matvec,
    pack: scalar::pack,
    gemm: scalar::gemm,
    decode: scalar::decode,
    matvec_f32: scalar::matvec_f32,
    gemm_f32: scalar::gemm_f32,
    scores: scalar::scores,
    weighted_sum: scalar::weighted_sum,
    exp_sum: scalar::exp_sum,
    gelu_mul: scalar::gelu_mul,
    softcap: scalar::softcap,
    sum_squares: scalar::sum_squares,
};

/// The table of an instruction set, if this machine has it.
pub fn table(isa: Isa) -> Option<&'static Kernels> {
    match isa {
        Isa::Scalar => Some(&SCALAR),
        _ => None,
    }
}

/// Instruction sets this machine can run, best first; the scalar one is always there.
pub fn available() -> Vec<Isa> {
    [Isa::Avx512, Isa::Avx2, Isa::Neon, Isa::Scalar].into_iter().filter(|&isa| table(isa).is_some()).collect()
}
