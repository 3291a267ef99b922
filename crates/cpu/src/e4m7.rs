//! BF16 in 12 bits: the form in which interleaved weights of that type lie.
//!
//! Of the 8 bits of a BF16's exponent a row needs few: next to its largest weight those of less than 2^-13 of it hardly count.
//! So a weight is a sign, 4 bits of exponent and 7 of significand, and its row has a power of two: of a row's columns in a panel,
//! all weights down to 2^-13 of the largest are kept as they are. Smaller ones are multiples of 2^-20 of the largest, at most,
//! like a float's subnormals, and err by half of that: less than sums in f32 do. A quarter less is read.
//!
//! Two rows lie together, in units of 64 columns: a line of the lower bytes (the last bit of the exponent, and the significand)
//! of each row, and one of their upper four bits (sign, and three of the exponent): the first row's where an f32 has them in its
//! highest byte, the second's together between them. Twelve such bits are the upper ones of an f32 with the exponent's other bits
//! zero, subnormals included: they are only put together, and what is made of them is multiplied with the row's power once.
//!
//! A unit's columns lie so that bytes of both kinds, interleaved within 16 and then with zeros, give neighbours: at
//! `16 · k + 4 · v + i` stands column `16 · v + 4 · k + i`.

use carat_tensor::DType;
use half::bf16;

use crate::interleaved::{PANEL, Piece, ROWS, Tiles};
use crate::pool::Tile;

/// Columns of a unit.
pub const COLS: usize = 64;
/// Of two rows.
pub type Unit = [u8; 3 * COLS];
/// Before a piece's units: the rows' powers of two.
const HEAD: usize = ROWS * size_of::<f32>();
/// Activations are multiplied with it, so that no product with so small numbers is subnormal.
pub const LARGE: f32 = (1u128 << 64) as f32;
/// The first row's bits of a byte of upper ones.
pub const FIRST: u8 = 0x87;
/// How far up those of the second row are.
pub const SECOND: u32 = 3;
/// Upper four bits as they stand in an f32's highest byte.
pub const HIGH: [u8; 16] = {
    let (mut high, mut n) = ([0; 16], 0);
    while n < high.len() {
        high[n] = ((n & 8) << 4 | n & 7) as u8;
        n += 1;
    }
    high
};

/// Bytes of so many columns of a tile.
pub const fn piece_bytes(cols: usize) -> usize {
    HEAD + ROWS / 2 * (cols / COLS) * size_of::<Unit>()
}

/// Two rows of a piece.
#[derive(Clone, Copy)]
pub struct Pair<'a> {
    /// Roots of their powers of two, which alone can be beyond what an f32 holds; no numbers where a weight is none.
    pub roots: [f32; 2],
    /// Their columns.
    pub units: &'a [Unit],
}

impl Pair<'_> {
    /// What a sum is of products of row `r` and activations that were multiplied with [`LARGE`].
    #[inline(always)]
    pub fn sum(&self, r: usize, sum: f32) -> f32 {
        sum * self.roots[r] * (self.roots[r] / LARGE)
    }
}

/// Pairs of rows of a piece.
#[inline(always)]
pub fn pairs(piece: &[u8]) -> impl Iterator<Item = Pair<'_>> {
    let (roots, units) = piece.split_at(HEAD);
    let units = units.as_chunks().0;
    let roots = roots.as_chunks::<8>().0.iter().map(|both| {
        let (a, b) = both.split_at(4);
        [a, b].map(|root| f32::from_le_bytes(root.try_into().expect("half of eight bytes")))
    });
    roots.zip(units.chunks_exact(units.len() / (ROWS / 2))).map(|(roots, units)| Pair { roots, units })
}

/// Where a column stands in a unit's lines.
const fn place(col: usize) -> usize {
    let (v, k, i) = (col / 16, col / 4 % 4, col % 4);
    16 * k + 4 * v + i
}

/// Brings some columns of 16 rows in BF16, each row's bytes given, to a piece.
pub fn compress<'a>(rows: impl Iterator<Item = &'a [u8]>, piece: &mut [u8]) {
    let (roots, units) = piece.split_at_mut(HEAD);
    let units = units.as_chunks_mut::<{ size_of::<Unit>() }>().0;
    let of_pair = units.len() / (ROWS / 2);
    for ((r, row), root) in rows.enumerate().zip(roots.as_chunks_mut::<4>().0) {
        let weights = row.as_chunks::<2>().0;
        let largest = weights.iter().map(|&w| exponent(u16::from_le_bytes(w))).max().unwrap_or(0);
        let shift = (largest / 2).saturating_sub(7) * 2;
        *root = if largest == 255 { f32::NAN } else { f32::from_bits((127 + shift / 2) << 23) }.to_le_bytes();
        let units = &mut units[r / 2 * of_pair..][..of_pair];
        for (unit, weights) in units.iter_mut().zip(weights.chunks_exact(COLS)) {
            for (col, &weight) in weights.iter().enumerate() {
                let (low, high) = twelve_bits(u16::from_le_bytes(weight), shift);
                let at = place(col);
                unit[r % 2 * COLS + at] = low;
                let both = &mut unit[2 * COLS + at];
                *both = if r % 2 == 0 { HIGH[usize::from(high)] } else { *both | high << SECOND };
            }
        }
    }
}

/// The exponent of a BF16 as it is stored.
fn exponent(bits: u16) -> u32 {
    u32::from(bits >> 7 & 0xff)
}

/// Lower byte and upper four bits of a BF16 whose exponent is to be `shift` less.
fn twelve_bits(bits: u16, shift: u32) -> (u8, u8) {
    let (exponent, fraction) = (exponent(bits), bits & 0x7f);
    let magnitude = if exponent > shift {
        ((exponent - shift) as u16) << 7 | fraction
    } else {
        // A multiple of the smallest, rounded to the nearest, of two to the even one.
        let (significand, lost) =
            if exponent > 0 { (fraction | 0x80, shift + 1 - exponent) } else { (fraction, shift) };
        let steps = f32::from(significand) * f32::from_bits(127u32.saturating_sub(lost) << 23);
        steps.round_ties_even() as u16
    };
    (magnitude as u8, (magnitude >> 8) as u8 & 7 | (bits >> 12) as u8 & 8)
}

/// The columns of a unit of each row.
pub fn widen(unit: &Unit, roots: [f32; 2], out: [&mut [f32; COLS]; 2]) {
    let (low, high) = unit.split_at(2 * COLS);
    for (r, (out, low)) in out.into_iter().zip(low.chunks_exact(COLS)).enumerate() {
        for (k, (low, high)) in low.chunks_exact(16).zip(high.chunks_exact(16)).enumerate() {
            for (at, (&low, &high)) in low.iter().zip(high).enumerate() {
                let second = high >> SECOND;
                let high = if r == 0 { high & FIRST } else { (second & 8) << 4 | second & 7 };
                let bits = u32::from(high) << 24 | u32::from(low) << 16;
                out[16 * (at / 4) + 4 * k + at % 4] = f32::from_bits(bits) * roots[r] * roots[r];
            }
        }
    }
}

/// The order in which instruction sets' kernels go through what [`matvec`] is given: `few(piece, n, x, out)` adds the products of a
/// piece and `n` rows, at most `SHARE`, that were multiplied with [`LARGE`].
pub fn by_pieces<const SHARE: usize>(
    tiles: Tiles<'_>,
    x: &[f32],
    scratch: &mut Vec<f32>,
    out: &mut Tile<'_>,
    few: impl Fn(&Piece<'_>, usize, &[f32], &mut Tile<'_>),
) {
    let cols = tiles.cols;
    assert!(out.rows() == (0..x.len() / cols) && out.cols().len() == tiles.count() * ROWS);
    scratch.clear();
    scratch.extend(x.iter().map(|x| x * LARGE));
    out.rows().for_each(|i| out.row(i).fill(0.0));
    for piece in tiles.pieces() {
        for (first, x) in (0..).step_by(SHARE).zip(scratch.chunks(SHARE * cols)) {
            let n = x.len() / cols;
            few(&piece, n, x, &mut out.part(first..first + n));
        }
    }
}

/// `out[i, r] = Σ_c w[r, c] · x[i, c]`; `x` `[n, cols]`, below 2^63, and `out` `[n, rows]`. `scratch` is the kernel's own.
pub fn matvec(tiles: Tiles<'_>, x: &[f32], _scratch: &mut Vec<f32>, out: &mut Tile<'_>) {
    out.rows().for_each(|i| out.row(i).fill(0.0));
    for_units(tiles, widen, |row, col, weights| {
        for (i, x) in x.chunks_exact(tiles.cols).enumerate() {
            out.row(i)[row] += weights.iter().zip(&x[col..]).map(|(w, x)| w * x).sum::<f32>();
        }
    });
}

/// The rows of some tiles as they are read, in BF16.
pub fn rows_of(tiles: Tiles<'_>) -> Vec<u8> {
    let mut rows = vec![0; tiles.count() * ROWS * tiles.cols * DType::BF16.block_bytes()];
    for_units(tiles, widen, |row, col, weights| {
        let places = rows[2 * (row * tiles.cols + col)..].as_chunks_mut().0;
        places.iter_mut().zip(weights).for_each(|(place, &weight)| *place = bf16::from_f32(weight).to_le_bytes());
    });
    rows
}

/// How a kernel widens a unit, see [`widen`].
pub type Widen = fn(&Unit, roots: [f32; 2], out: [&mut [f32; COLS]; 2]);

/// Takes units one after another: row of the tiles, first column, weights.
pub fn for_units(tiles: Tiles<'_>, widen: Widen, mut take: impl FnMut(usize, usize, &[f32; COLS])) {
    let (mut a, mut b) = ([0.0; COLS], [0.0; COLS]);
    for piece in tiles.pieces() {
        for (p, pair) in pairs(piece.bytes).enumerate() {
            for (u, unit) in pair.units.iter().enumerate() {
                widen(unit, pair.roots, [&mut a, &mut b]);
                for (r, weights) in [&a, &b].into_iter().enumerate() {
                    take(piece.tile * ROWS + 2 * p + r, piece.col + u * COLS, weights);
                }
            }
        }
    }
}

/// As many columns from `col` on of a tile's rows as there are, up to 128; both a multiple of that within a panel.
pub fn widen_block(tile: Tiles<'_>, col: usize, widen: Widen, out: &mut [[f32; 2 * COLS]; ROWS]) {
    let piece = tile.pieces().nth(col / PANEL).expect("the column is one of the tile's");
    for ([a, b], pair) in out.as_chunks_mut().0.iter_mut().zip(pairs(piece.bytes)) {
        let places = a.as_chunks_mut().0.iter_mut().zip(b.as_chunks_mut().0);
        for (unit, (a, b)) in pair.units[(col - piece.col) / COLS..].iter().zip(places) {
            widen(unit, pair.roots, [a, b]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::interleaved::interleave;

    /// 16 rows of as many columns as there are values, and how their tile is read.
    fn read(values: &[u16]) -> Vec<u16> {
        let rows: Vec<u8> = (0..ROWS).flat_map(|_| values).flat_map(|bits| bits.to_le_bytes()).collect();
        let mut tile = Vec::new();
        interleave(DType::BF16, &rows, 2 * values.len(), &mut tile);
        let found = rows_of(Tiles::new(DType::BF16, values.len(), &tile, 0..ROWS));
        let rows: Vec<Vec<u16>> = found
            .chunks_exact(2 * values.len())
            .map(|row| row.as_chunks().0.iter().map(|&bits| u16::from_le_bytes(bits)).collect())
            .collect();
        assert!(rows.iter().all(|row| row.iter().zip(&rows[0]).all(|(a, b)| a == b)), "rows alike are read alike");
        rows[0].clone()
    }

    /// `values`, then zeros to the end of a unit.
    fn filled(values: impl IntoIterator<Item = u16>) -> Vec<u16> {
        let mut values: Vec<u16> = values.into_iter().collect();
        values.resize(values.len().next_multiple_of(COLS), 0);
        values
    }

    #[test]
    fn weights_down_to_two_to_the_minus_13_of_the_largest_are_kept() {
        // Exponents of the largest: of the least numbers, of usual weights, even and odd, and of the greatest.
        for largest in [1, 13, 14, 15, 122, 123, 253, 254] {
            let least: u16 = if largest < 14 { 0 } else { largest - 13 };
            let bits = (least..=largest).flat_map(|e| [0, 1, 77, 127].map(|fraction| e << 7 | fraction));
            let values = filled(bits.flat_map(|bits| [bits, bits | 0x8000]));
            assert_eq!(read(&values), values, "largest exponent {largest}");
        }
    }

    #[test]
    fn smaller_ones_are_off_by_half_a_step_at_most() {
        let bits = (0..=122u16).flat_map(|e| [0, 5, 64, 127].map(|fraction| e << 7 | fraction));
        let values = filled(bits);
        // The largest is 2^-5 at least, so steps are 2^-25 at most.
        let half = f64::from(2f32.powi(-26));
        for (found, expected) in read(&values).into_iter().zip(values) {
            let [found, expected] = [found, expected].map(|bits| f64::from(bf16::from_bits(bits).to_f32()));
            assert!((found - expected).abs() <= half, "{found}, expected {expected}");
        }
    }

    #[test]
    fn rows_with_a_weight_that_is_no_number_give_none() {
        for bad in [bf16::NAN, bf16::INFINITY, bf16::NEG_INFINITY] {
            let values = filled([bf16::ONE.to_bits(), bad.to_bits(), bf16::ONE.to_bits()]);
            assert!(read(&values).iter().all(|&bits| bf16::from_bits(bits).is_nan()), "{bad}");
        }
    }
}
