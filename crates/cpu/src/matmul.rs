//! Matrix products: which kernel, which tiles.
//!
//! Few activation rows: each weight row is read where it is mapped and multiplied with each of them (decode; bound
//! by memory). Many: 16 weight rows at a time are unpacked into a tile that stays in the cache, two tiles at once, and
//! multiplied with all activation rows (prefill; bound by arithmetic). Kernels that read interleaved weights as fast need
//! no unpacking for many either. Weight rows are split over threads, never the sum.

use std::ops::Range;

use carat_tensor::backend::Rounding;
use carat_tensor::{Bytes, DType};

use crate::acts::{Acts, grow};
use crate::e4m7;
use crate::interleaved::{GROUP_ROWS, Tiles, tile_bytes};
use crate::kernels::{Kernels, MAX_TILES, PackedTile, TILE};
use crate::pool::{Output, Tile};
use crate::unpack::{Form, form};
use crate::words::{BLOCK, WordKernels};

/// A weight matrix, used where its file is mapped.
#[derive(Clone, Debug)]
pub struct Matrix {
    pub(crate) data: Bytes,
    pub(crate) dtype: DType,
    pub(crate) rows: usize,
    pub(crate) cols: usize,
    pub(crate) row_bytes: usize,
    /// The same rows in tiles ([`crate::interleaved`]), where products read them there.
    pub(crate) tiles: Option<Bytes>,
}

impl Matrix {
    /// Element type.
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// `(rows, columns)`.
    pub fn shape(&self) -> (usize, usize) {
        (self.rows, self.cols)
    }

    pub(crate) fn row_bytes(&self, rows: Range<usize>) -> &[u8] {
        &self.data[rows.start * self.row_bytes..rows.end * self.row_bytes]
    }

    /// Decodes up to [`BLOCK`] columns, from a multiple of that on, of up to 16 rows, and asks for the columns that follow.
    pub(crate) fn decode(&self, k: &Kernels, rows: Range<usize>, cols: Range<usize>, out: &mut [[f32; BLOCK]; TILE]) {
        if let (DType::BF16, Some(tile)) = (self.dtype, self.tiles(rows.clone())) {
            return e4m7::widen_block(tile, cols.start, k.widen_e4m7, out);
        }
        for (bytes, out) in self.blocks(k, rows, cols.clone()).zip(out) {
            (k.decode)(self.dtype, bytes, &mut out[..cols.len()]);
        }
    }

    /// The bytes of up to [`BLOCK`] columns, from a multiple of that on, of some rows; asks for the columns that follow.
    pub(crate) fn blocks(&self, k: &Kernels, rows: Range<usize>, cols: Range<usize>) -> impl Iterator<Item = &[u8]> {
        let size = |cols: usize| self.dtype.row_bytes(cols).expect("blocks here are whole ones of the type");
        let bytes = size(cols.start)..size(cols.end);
        let next = bytes.end..size((cols.end + BLOCK).min(self.cols));
        self.row_bytes(rows).chunks_exact(self.row_bytes).map(move |row| {
            (k.prefetch)(&row[next.clone()]);
            &row[bytes.clone()]
        })
    }

    /// Rounds up to 16 rows of weights in 16 bits to a tile of 8.
    fn round(&self, k: &Kernels, rows: Range<usize>, tile: &mut PackedTile) {
        tile.reset(ROUNDED, self.cols);
        let mut decoded = [[0.0; BLOCK]; TILE];
        for start in (0..self.cols).step_by(BLOCK) {
            let cols = start..(start + BLOCK).min(self.cols);
            self.decode(k, rows.clone(), cols.clone(), &mut decoded);
            let groups = cols.start / ROUNDED.group * TILE..cols.end / ROUNDED.group * TILE;
            (k.pack_floats)(&decoded, &mut tile.q[cols.start * TILE..cols.end * TILE], &mut tile.scale[groups]);
        }
    }

    /// Whole tiles of these rows, where there are some.
    pub(crate) fn tiles(&self, rows: Range<usize>) -> Option<Tiles<'_>> {
        let whole = rows.start.is_multiple_of(TILE) && rows.end.is_multiple_of(TILE);
        let tiles = self.tiles.as_ref().filter(|_| whole)?;
        Some(Tiles::new(self.dtype, self.cols, tiles, rows))
    }

    /// A view of some rows.
    pub(crate) fn view(&self, rows: Range<usize>) -> Self {
        let bytes = rows.start * self.row_bytes..rows.end * self.row_bytes;
        let ends = |row: usize| row.is_multiple_of(GROUP_ROWS) || row == self.rows;
        let tiles = self.tiles.as_ref().filter(|_| ends(rows.start) && ends(rows.end)).map(|tiles| {
            let tile_bytes = tile_bytes(self.dtype, self.cols);
            tiles.slice(rows.start / TILE * tile_bytes..rows.end / TILE * tile_bytes)
        });
        Matrix { data: self.data.slice(bytes), tiles, rows: rows.len(), ..*self }
    }
}

/// Up to this many activation rows are multiplied without unpacking.
const MATVEC_ROWS: usize = 2;

/// The same of weights in plain types, which need none.
pub const PLAIN_ROWS: usize = 8;

/// Up to this many activation rows tasks are as large as reading likes them; with more they share the cache with the rows.
const BOUND_BY_MEMORY: usize = 32;

/// Bytes of weights a decode task reads: some tens of microseconds. At each start nothing is on its way from memory yet,
/// so larger tasks read faster, and smaller ones wait less for each other at the end; on two threads this is the best.
const TASK_BYTES: usize = 512 << 10;

/// Activation rows of a thread's own, at least: with fewer, reading weights for each thread would take as long as using them.
const SHARE_ROWS: usize = 128;

/// Activation rows whose products are finished together, while the first cache has them.
const PART: usize = 32;

/// How weights of 16 bits that are rounded to 8 are to be read: as those of Q8_0.
const ROUNDED: Form = form(DType::Q8_0).expect("the type is quantised");

/// Whether a product between bounds with such weights may be of 8-bit integers, where that was asked for: not of a few rows,
/// nor with weights of 16 bits where `words` are as fast, and in whole blocks.
pub fn rounds(words: Option<&WordKernels>, dtype: DType, cols: usize, n: usize) -> bool {
    let is_half = matches!(dtype, DType::F16 | DType::BF16) && cols.is_multiple_of(ROUNDED.group);
    let is_half = is_half && !words.is_some_and(|words| words.outrun_bytes);
    (dtype.is_quantised() || is_half) && n > PLAIN_ROWS
}

/// Which weights meet the activations' integer form.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Integers {
    /// None.
    Never,
    /// Quantised ones.
    Quantised,
    /// Those of 16 bits too, rounded to 8 on the way ([`rounds`]).
    Rounded,
}

impl Integers {
    /// Where activations are rounded at all, so that quantised weights meet integers.
    pub fn by(rounding: Option<Rounding>) -> Self {
        if rounding.is_some() { Integers::Quantised } else { Integers::Never }
    }
}

/// Memory of one worker.
#[derive(Default)]
pub struct Scratch {
    tiles: [PackedTile; MAX_TILES],
    row: Vec<f32>,
    tile_f32: Vec<f32>,
    out: Vec<f32>,
}

impl Scratch {
    /// Room for a decoded row.
    pub fn decoded(&mut self, len: usize) -> &mut [f32] {
        grow(&mut self.row, len);
        &mut self.row[..len]
    }
}

/// What a product needs besides its operands.
#[derive(Clone, Copy)]
pub struct Product<'a> {
    /// Kernels.
    pub kernels: &'static Kernels,
    /// Which weights are multiplied with the activations' integer form.
    pub integers: Integers,
    /// Activations; with their integer form where that is used.
    pub acts: &'a Acts,
}

impl Product<'_> {
    /// The output of a product of `n` activation rows, cut into tasks. With many rows every thread has some of its own, as it
    /// has in what is done before and after.
    pub fn output<'o>(&self, out: &'o mut [f32], matrix: &Matrix, n: usize, threads: usize) -> Output<'o> {
        let cheap = matrix.tiles.is_some() && matrix.dtype.is_quantised();
        let shares = if cheap { (n / SHARE_ROWS).clamp(1, threads) } else { 1 };
        let rows = n.div_ceil(shares);
        Output::new(out, n, matrix.rows, rows, self.task_rows(matrix, n, threads))
    }

    /// Weight rows per task for `n` activation rows.
    pub fn task_rows(&self, matrix: &Matrix, n: usize, threads: usize) -> usize {
        let share = matrix.rows.div_ceil(2 * threads);
        let few = self.is_few(matrix, n);
        let rows =
            if few && n <= BOUND_BY_MEMORY { TASK_BYTES / matrix.row_bytes.max(1) } else { self.kernels.tiles * TILE };
        // What lies together is best read together.
        let unit = if few && matrix.tiles.is_some() { GROUP_ROWS } else { TILE };
        rows.min(share).next_multiple_of(unit).max(unit)
    }

    /// Whether so many activation rows are few: multiplied with the weights as they lie, without unpacking them first.
    fn is_few(&self, matrix: &Matrix, n: usize) -> bool {
        let most = if !matrix.dtype.is_quantised() {
            PLAIN_ROWS
        } else if matrix.tiles.is_some() {
            self.kernels.tile_rows.max(MATVEC_ROWS)
        } else {
            MATVEC_ROWS
        };
        n <= most
    }

    fn uses_integers(&self, matrix: &Matrix) -> bool {
        match self.integers {
            Integers::Never => false,
            Integers::Quantised => matrix.dtype.is_quantised(),
            Integers::Rounded => true,
        }
    }

    /// Whole tiles of these rows, where there are some and products read them: those of quantised weights meet integers alone.
    fn tiles<'m>(&self, matrix: &'m Matrix, rows: Range<usize>) -> Option<Tiles<'m>> {
        matrix.tiles(rows).filter(|_| matrix.dtype == DType::BF16 || self.uses_integers(matrix))
    }

    /// `out[i, r] = matrix[rows.start + r] · acts[acts.start + i]` for few activation rows; `out` `[acts.len(), rows.len()]`.
    fn few(&self, matrix: &Matrix, rows: Range<usize>, acts: Range<usize>, scratch: &mut Vec<f32>, mut out: Tile<'_>) {
        let (k, dtype) = (self.kernels, matrix.dtype);
        let integers = self.uses_integers(matrix);
        if let Some(tiles) = self.tiles(matrix, rows.clone()) {
            if dtype == DType::BF16 {
                return (k.matvec_e4m7)(tiles, self.acts.rows(acts), scratch, &mut out);
            }
            return (k.matvec_tiles)(tiles, self.acts.int_rows(acts.clone()), self.acts.rest_rows(acts), &mut out);
        }
        let weights = matrix.row_bytes(rows);
        for (at, i) in acts.enumerate() {
            let out = out.row(at);
            if !integers {
                (k.matvec_f32)(dtype, weights, self.acts.row(i), scratch, out);
                continue;
            }
            let (x, rest) = (self.acts.int_rows(i..i + 1), self.acts.rest_rows(i..i + 1));
            (k.matvec)(dtype, weights, x, rest, scratch, out);
        }
    }

    /// `out[s, i, r] = strips[s][r] · acts[acts.start + i]` for as many strips of at most 16 rows as kernels
    /// take at once; `out` `[strips, n, 16]`.
    fn strips(&self, strips: &[Strip<'_>], acts: Range<usize>, packed: &mut Packing<'_>, out: &mut [f32]) {
        let k = self.kernels;
        if !strips.iter().all(|strip| self.uses_integers(strip.matrix)) {
            for (strip, out) in strips.iter().zip(out.chunks_exact_mut(acts.len() * TILE)) {
                if self.uses_integers(strip.matrix) {
                    self.strips(std::slice::from_ref(strip), acts.clone(), packed, out);
                } else {
                    self.strip_f32(strip, acts.clone(), packed, out);
                }
            }
            return;
        }
        for (Strip { matrix: m, rows }, tile) in strips.iter().zip(&mut *packed.tiles) {
            match m.tiles(rows.clone()) {
                _ if !m.dtype.is_quantised() => m.round(k, rows.clone(), tile),
                Some(one) => (k.pack_tile)(one, tile),
                None => (k.pack)(m.dtype, m.row_bytes(rows.clone()), m.cols, tile),
            }
            (k.arrange)(tile);
        }
        let tiles = &packed.tiles[..strips.len()];
        (k.gemm)(tiles, &self.acts.int_rows(acts.clone()), out);
        if let Some(rest) = self.acts.rest_rows(acts) {
            grow(packed.row, out.len());
            let more = &mut packed.row[..out.len()];
            (k.gemm)(tiles, &rest, more);
            out.iter_mut().zip(more).for_each(|(out, more)| *out += *more);
        }
    }

    /// The same in f32, for one.
    fn strip_f32(&self, strip: &Strip<'_>, acts: Range<usize>, packed: &mut Packing<'_>, out: &mut [f32]) {
        let (k, m) = (self.kernels, strip.matrix);
        grow(packed.row, m.cols);
        packed.tile_f32.clear();
        packed.tile_f32.resize(m.cols * TILE, 0.0);
        if let Some(tile) = self.tiles(m, strip.rows.clone()) {
            e4m7::for_units(tile, k.widen_e4m7, |r, col, weights| {
                for (tile, &w) in packed.tile_f32[col * TILE..].chunks_exact_mut(TILE).zip(weights) {
                    tile[r] = w;
                }
            });
        } else {
            for (r, bytes) in m.row_bytes(strip.rows.clone()).chunks_exact(m.row_bytes).enumerate() {
                (k.decode)(m.dtype, bytes, &mut packed.row[..m.cols]);
                for (tile, &w) in packed.tile_f32.chunks_exact_mut(TILE).zip(packed.row.iter()) {
                    tile[r] = w;
                }
            }
        }
        (k.gemm_f32)(packed.tile_f32, self.acts.rows(acts), m.cols, out);
    }

    /// Fills a tile (activation rows × weight rows) with the product, then lets `finish` work on each finished part of
    /// a row: `finish(activation row, columns, values)`.
    pub fn fill(
        &self,
        matrix: &Matrix,
        first: usize,
        tile: &mut Tile<'_>,
        scratch: &mut Scratch,
        finish: impl Fn(usize, Range<usize>, &mut [f32]),
    ) {
        let (acts, cols) = (tile.rows(), tile.cols());
        if self.is_few(matrix, acts.len()) {
            for acts in parts_of(acts) {
                let rows = first + cols.start..first + cols.end;
                self.few(matrix, rows, acts.clone(), &mut scratch.row, tile.part(acts.clone()));
                acts.for_each(|i| finish(i, cols.clone(), tile.row(i)));
            }
            return;
        }
        let Scratch { tiles, row, tile_f32, out, .. } = scratch;
        let mut packing = Packing { tiles, row, tile_f32 };
        let len = acts.len() * TILE;
        let most = self.kernels.tiles;
        grow(out, most * len);
        for r in cols.clone().step_by(most * TILE) {
            let part = r..(r + most * TILE).min(cols.end);
            let strips = &strips_of(matrix, first, &part)[..part.len().div_ceil(TILE)];
            let out = &mut out[..strips.len() * len];
            self.strips(strips, acts.clone(), &mut packing, out);
            for (strip, out) in strips.iter().zip(out.chunks_exact(len)) {
                let part = strip.rows.start - first..strip.rows.end - first;
                for (i, out) in acts.clone().zip(out.chunks_exact(TILE)) {
                    let to = &mut tile.row(i)[part.start - cols.start..part.end - cols.start];
                    copy_strip(to, out);
                    finish(i, part.clone(), to);
                }
            }
        }
    }

    /// Fills a tile with `gelu_tanh(gate · x) ⊙ (up · x)`; the tile's column 0 is row `first.0` of gate and
    /// `first.1` of up.
    pub fn fill_gated(
        &self,
        (gate, up): (&Matrix, &Matrix),
        first: (usize, usize),
        tile: &mut Tile<'_>,
        scratch: &mut Scratch,
    ) {
        let (k, acts, cols) = (self.kernels, tile.rows(), tile.cols());
        if self.is_few(gate, acts.len()) {
            let Scratch { row, out, .. } = scratch;
            let len = cols.len().max(1);
            for acts in parts_of(acts) {
                let rows = |first: usize| first + cols.start..first + cols.end;
                self.few(gate, rows(first.0), acts.clone(), row, tile.part(acts.clone()));
                grow(out, acts.len() * len);
                let out = &mut out[..acts.len() * len];
                self.few(up, rows(first.1), acts.clone(), row, Tile::of(out, len));
                acts.zip(out.chunks_exact(len)).for_each(|(i, up)| (k.gelu_mul)(tile.row(i), up));
            }
            return;
        }
        let len = acts.len() * TILE;
        let Scratch { tiles, row, tile_f32, out, .. } = scratch;
        let mut packing = Packing { tiles, row, tile_f32 };
        let most = k.tiles / 2;
        grow(out, 2 * most * len);
        for r in cols.clone().step_by(most * TILE) {
            let part = r..(r + most * TILE).min(cols.end);
            let count = part.len().div_ceil(TILE);
            let mut strips = strips_of(gate, first.0, &part);
            for (strip, up) in strips[count..2 * count].iter_mut().zip(strips_of(up, first.1, &part)) {
                *strip = up;
            }
            let out = &mut out[..2 * count * len];
            self.strips(&strips[..2 * count], acts.clone(), &mut packing, out);
            let (gate_out, up_out) = out.split_at_mut(count * len);
            (k.gelu_mul)(gate_out, up_out);
            for (strip, out) in strips.iter().zip(gate_out.chunks_exact(len)) {
                let at = strip.rows.start - first.0 - cols.start..strip.rows.end - first.0 - cols.start;
                for (i, out) in acts.clone().zip(out.chunks_exact(TILE)) {
                    copy_strip(&mut tile.row(i)[at.clone()], out);
                }
            }
        }
    }
}

/// Rows `first + part` in strips; of those past the end there are none.
fn strips_of<'a>(matrix: &'a Matrix, first: usize, part: &Range<usize>) -> [Strip<'a>; MAX_TILES] {
    std::array::from_fn(|s| {
        let at = |s: usize| first + (part.start + s * TILE).min(part.end);
        Strip { matrix, rows: at(s)..at(s + 1) }
    })
}

/// Some rows in parts of at most [`PART`].
fn parts_of(rows: Range<usize>) -> impl Iterator<Item = Range<usize>> {
    rows.clone().step_by(PART).map(move |start| start..(start + PART).min(rows.end))
}

/// Copies what a strip gave of one row: a vector's width, but at the matrix's end.
fn copy_strip(to: &mut [f32], out: &[f32]) {
    copy_row(to, &out[..to.len()]);
}

/// Copies a row of a task's tile: mostly one, two or four strips, too little for a call of `memcpy`.
#[inline]
pub fn copy_row(to: &mut [f32], from: &[f32]) {
    fn as_array<const N: usize>(to: &mut [f32], from: &[f32]) -> Option<()> {
        let (to, from): (&mut [f32; N], &[f32; N]) = (to.try_into().ok()?, from.try_into().ok()?);
        *to = *from;
        Some(())
    }
    let copied = as_array::<{ 4 * TILE }>(to, from)
        .or_else(|| as_array::<{ 2 * TILE }>(to, from))
        .or_else(|| as_array::<TILE>(to, from));
    copied.unwrap_or_else(|| to.copy_from_slice(from));
}

/// Up to 16 rows of a matrix.
struct Strip<'a> {
    matrix: &'a Matrix,
    rows: Range<usize>,
}

/// Where strips are unpacked.
struct Packing<'a> {
    tiles: &'a mut [PackedTile; MAX_TILES],
    row: &'a mut Vec<f32>,
    tile_f32: &'a mut Vec<f32>,
}
