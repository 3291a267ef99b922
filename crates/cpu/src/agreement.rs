//! Every instruction set's kernels against the scalar definitions, over widths from nothing to a model's.
//!
//! Integer dots are exact on both sides, so quantised products may differ only by the rounding of f32 sums: at most
//! `(groups + 8) · ε · Σ|terms|`. Plain products: `(cols + 8) · ε · Σ|w · x|` for the worst order of summation.

use carat_tensor::DType;
use carat_tensor::backend::Rounding;

use crate::acts::Acts;
use crate::e4m7;
use crate::interleaved::{GROUP, PANEL, Tiles, has_layout, interleave};
use crate::ints::quantise_row;
use crate::kernels::{Ahead, Isa, Kernels, PackedTile, TILE, available, table};
use crate::pool::{Pool, Tile};
use crate::scalar;
use crate::unpack::{Unpacked, form, unpack};
use crate::words::BLOCK;

/// xorshift, so that tests need nothing.
struct Random(u64);

impl Random {
    fn bits(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn value(&mut self) -> f32 {
        (self.bits() >> 40) as f32 / (1 << 23) as f32 - 1.0
    }

    fn values(&mut self, len: usize) -> Vec<f32> {
        (0..len).map(|_| self.value()).collect()
    }

    /// Values whose blocks of 32 are of many sizes.
    fn ranging(&mut self, len: usize) -> Vec<f32> {
        let mut values = self.values(len);
        values.chunks_mut(32).for_each(|block| {
            let size = 2f32.powi(-((self.bits() % 34) as i32));
            block.iter_mut().for_each(|v| *v *= size);
        });
        values
    }

    /// Bytes of rows of a type, with moderate scales.
    fn weights(&mut self, dtype: DType, rows: usize, cols: usize) -> Vec<u8> {
        let mut bytes: Vec<u8> = (0..rows * dtype.row_bytes(cols).unwrap()).map(|_| self.bits() as u8).collect();
        let halves: &[usize] = match dtype {
            DType::F32 => {
                let values = self.values(rows * cols);
                return values.iter().flat_map(|v| v.to_le_bytes()).collect();
            }
            DType::F16 | DType::BF16 => {
                for b in bytes.chunks_exact_mut(2) {
                    let v = self.value();
                    let half = if dtype == DType::F16 {
                        half::f16::from_f32(v).to_le_bytes()
                    } else {
                        half::bf16::from_f32(v).to_le_bytes()
                    };
                    b.copy_from_slice(&half);
                }
                return bytes;
            }
            DType::Q4_0 | DType::Q5_0 | DType::Q8_0 | DType::Iq4Nl | DType::Iq4Xs => &[0],
            DType::Iq2Xxs | DType::Iq2Xs | DType::Iq2S | DType::Iq3Xxs | DType::Iq3S | DType::Iq1S => &[0],
            DType::Q4_1 | DType::Q5_1 | DType::Q4K | DType::Q5K => &[0, 2],
            DType::Q2K => &[80, 82],
            DType::Q3K => &[108],
            DType::Q6K => &[208],
            DType::Mxfp4 | DType::Nvfp4 | DType::Iq1M | DType::F4F32 | DType::I8F32 | DType::F8F32 => &[],
        };
        for block in bytes.chunks_exact_mut(dtype.block_bytes()) {
            for &at in halves {
                block[at..at + 2].copy_from_slice(&half::f16::from_f32(self.value() * 0.1).to_le_bytes());
            }
            match dtype {
                // 2^-7 to 1.
                DType::Mxfp4 => block[0] = 120 + (self.bits() % 8) as u8,
                // The highest nibble of its f16: 2^-7 to 2^-4, of either sign.
                DType::Iq1M => block[55] = (block[55] & 0x8f) | 0x20,
                DType::Nvfp4 => block[..4].iter_mut().for_each(|scale| *scale &= 0x3f),
                DType::F4F32 | DType::I8F32 | DType::F8F32 => {
                    let scales = if dtype == DType::F4F32 { 2 } else { 1 };
                    let (heads, codes) = block.split_at_mut(4 * scales);
                    heads.as_chunks_mut().0.iter_mut().for_each(|d| *d = (self.value() * 0.1).to_le_bytes());
                    // Two codes of 8-bit floats are not numbers.
                    codes.iter_mut().filter(|q| **q & 0x7f == 0x7f).for_each(|q| *q ^= 1);
                }
                _ => {}
            }
        }
        bytes
    }
}

const ROUNDINGS: [Rounding; 3] = [Rounding::Finest, Rounding::Fine, Rounding::Coarse];

/// Every fast table, or that of `CARAT_TEST_ISA`; prints which, since a skipped table passes silently.
fn tables() -> Vec<&'static Kernels> {
    let mut isas = available();
    if let Ok(only) = std::env::var("CARAT_TEST_ISA") {
        isas.retain(|isa| isa.name() == only);
        assert!(!isas.is_empty(), "this machine lacks {only}: {:?}", available());
    }
    eprintln!("instruction sets: {isas:?}");
    isas.into_iter().map(|isa| table(isa).unwrap()).collect()
}

fn acts(k: &Kernels, rounding: Rounding, x: Vec<f32>, n: usize, cols: usize) -> Acts {
    let mut acts = Acts::default();
    (acts.n, acts.cols, acts.x) = (n, cols, x);
    acts.quantise(k, &mut Pool::new(1).unwrap(), rounding);
    acts
}

#[track_caller]
fn assert_close(found: &[f32], expected: &[f32], bound: impl Fn(usize) -> f32, what: &str) {
    assert_eq!(found.len(), expected.len());
    for (i, (f, e)) in found.iter().zip(expected).enumerate() {
        assert!((f - e).abs() <= bound(i), "{what}: value {i} is {f}, defined as {e}, bound {}", bound(i));
    }
}

fn widths(dtype: DType) -> Vec<usize> {
    let block = dtype.block_len();
    if block == 1 { vec![1, 15, 16, 17, 63, 65, 256, 1536, 4161] } else { [1, 2, 3, 6, 22].map(|b| b * block).to_vec() }
}

/// `Σ |w · x|` bounds every partial sum's magnitude.
fn magnitude(dtype: DType, row: &[u8], x: &[f32]) -> f32 {
    let mut w = vec![0.0; x.len()];
    scalar::decode(dtype, row, &mut w);
    let offset = form(dtype).map_or(0.0, |_| 1.0);
    w.iter().zip(x).map(|(w, x)| (w.abs() + offset) * x.abs()).sum::<f32>() + 1e-20
}

/// What a row's minima may add where activations' sums are rounded to 16 bits ([`crate::ints::Eight`]): half a unit each, of which
/// a block's largest sum has `2^14` at least.
fn sums_in_16_bits(tile: &PackedTile, r: usize, dsum32: &[f32]) -> f32 {
    let minima = tile.min.chunks_exact(TILE).map(|min| min[r]).collect::<Vec<_>>();
    let blocks = minima.chunks_exact(8).zip(dsum32.chunks_exact(8));
    blocks
        .map(|(minima, sums)| {
            minima.iter().map(|min| min.abs()).sum::<f32>() * scalar::largest(sums) / (1 << 15) as f32
        })
        .sum()
}

/// Bound of the product of activation row `i` with row `r` of a tile, whose 16 rows and what they unpack to are given.
fn tile_bound(dtype: DType, rows: &[u8], packed: &PackedTile, x: &Acts, (i, r): (usize, usize)) -> f32 {
    let row_bytes = rows.len() / TILE;
    let row = &rows[r * row_bytes..(r + 1) * row_bytes];
    let of_minima = match x.rest_rows(i..i + 1) {
        None => sums_in_16_bits(packed, r, x.int_rows(i..i + 1).dsum32),
        Some(_) => 0.0,
    };
    (x.cols as f32 / 16.0 + 8.0) * f32::EPSILON * magnitude(dtype, row, x.row(i)) + of_minima
}

#[test]
fn integer_products_agree_with_the_definition_for_every_format() {
    let mut random = Random(0x5eed);
    for k in tables() {
        for dtype in DType::ALL.into_iter().filter(|t| t.is_quantised()) {
            for cols in widths(dtype) {
                let shapes = [(1, 1), (5, 2), (16, 3), (13, 9), (16, 21)].into_iter();
                for ((rows, n), rounding) in shapes.flat_map(|shape| ROUNDINGS.map(|rounding| (shape, rounding))) {
                    let what = format!("{} {dtype} {rounding:?} {rows}x{cols} n={n}", k.isa);
                    let weights = random.weights(dtype, rows, cols);
                    let x = acts(k, rounding, random.ranging(n * cols), n, cols);
                    let row_bytes = dtype.row_bytes(cols).unwrap();
                    let (mut fast, mut slow) = (vec![0.0; rows], vec![0.0; rows]);
                    let mut expected = vec![0.0; n * rows];
                    for i in 0..n {
                        let (row, rest) = (x.int_rows(i..i + 1), x.rest_rows(i..i + 1));
                        let bound = |r: usize| {
                            let weights = &weights[r * row_bytes..(r + 1) * row_bytes];
                            (cols as f32 / 16.0 + 8.0) * f32::EPSILON * magnitude(dtype, weights, x.row(i))
                        };
                        let mut scratch = Vec::new();
                        for rest in [rest, None] {
                            (k.matvec)(dtype, &weights, row, rest, &mut scratch, &mut fast);
                            scalar::matvec(dtype, &weights, row, rest, &mut scratch, &mut slow);
                            assert_close(
                                &fast,
                                &slow,
                                bound,
                                &format!("{what} matvec, with a rest: {}", rest.is_some()),
                            );
                        }
                        expected[i * rows..(i + 1) * rows].copy_from_slice(&slow);
                    }
                    if rows == TILE && has_layout(dtype) {
                        let mut tiles = Vec::new();
                        interleave(dtype, &weights, row_bytes, &mut tiles);
                        let (x_rows, rest) = (x.int_rows(0..n), x.rest_rows(0..n));
                        let (mut fast, mut slow) = (vec![0.0; n * TILE], vec![0.0; n * TILE]);
                        let tiles = Tiles::new(dtype, cols, &tiles, 0..TILE);
                        (k.matvec_tiles)(tiles, x_rows, rest, &mut Tile::of(&mut fast, TILE));
                        scalar::matvec_tiles(tiles, x_rows, rest, &mut Tile::of(&mut slow, TILE));
                        let (mut packed, mut expected) = (PackedTile::new(), PackedTile::new());
                        (k.pack_tile)(tiles, &mut packed);
                        scalar::pack(dtype, &weights, cols, &mut expected);
                        let bound = |at: usize| tile_bound(dtype, &weights, &expected, &x, (at / TILE, at % TILE));
                        assert_close(&fast, &slow, bound, &format!("{what} matvec_tiles"));
                        assert!(packed.q == expected.q && packed.scale == expected.scale, "{what} pack_tile");
                        assert_eq!(packed.min, expected.min, "{what} pack_tile");
                    }
                    // One tile alone, and three of which the middle one holds the last rows only.
                    for starts in [&[0][..], &[0, rows / 2, 0]] {
                        let tiles: Vec<_> = starts
                            .iter()
                            .map(|start| {
                                let mut tile = PackedTile::new();
                                (k.pack)(dtype, &weights[start * row_bytes..], cols, &mut tile);
                                (k.arrange)(&mut tile);
                                tile
                            })
                            .collect();
                        let mut out = vec![f32::NAN; starts.len() * n * TILE];
                        (k.gemm)(&tiles, &x.int_rows(0..n), &mut out);
                        for (at, found) in out.chunks_exact(TILE).enumerate() {
                            let (start, i) = (starts[at / n], at % n);
                            let bound = |r: usize| {
                                let r = start + r;
                                let weights = &weights[r * row_bytes..(r + 1) * row_bytes];
                                (cols as f32 / 16.0 + 8.0) * f32::EPSILON * magnitude(dtype, weights, x.row(i))
                            };
                            let expected = &expected[i * rows + start..(i + 1) * rows];
                            assert_close(&found[..rows - start], expected, bound, &format!("{what} gemm"));
                        }
                    }
                }
            }
        }
    }
}

#[test]
fn weights_are_rounded_to_tiles_as_defined() {
    let mut random = Random(0x8b17);
    for k in tables() {
        for groups in 1..=4 {
            let mut rows: [[f32; BLOCK]; TILE] = std::array::from_fn(|_| random.ranging(BLOCK).try_into().unwrap());
            // A group of zeros, one that is too small, and two with what is no number.
            rows[3][..32].fill(0.0);
            rows[5][..32].fill(1e-30);
            (rows[8][7], rows[15][31]) = (f32::NAN, f32::NEG_INFINITY);
            let pack = |k: &Kernels| {
                let (mut q, mut scale) = (vec![7; groups * 32 * TILE], vec![7.0; groups * TILE]);
                (k.pack_floats)(&rows, &mut q, &mut scale);
                (q, scale)
            };
            let ((q, scale), (expected, scales)) = (pack(k), pack(table(Isa::Scalar).unwrap()));
            for (g, r) in (0..groups).flat_map(|g| (0..TILE).map(move |r| (g, r))) {
                let what = format!("{}, group {g} of row {r}", k.isa);
                let (found, d) = (scale[g * TILE + r], scales[g * TILE + r]);
                assert!(found == d || found.is_nan() && d.is_nan(), "{what}: {found}, defined as {d}");
                let x = &rows[r][32 * g..32 * (g + 1)];
                assert_eq!(d.is_nan(), x.iter().any(|x| !x.is_finite()), "{what}");
                for (c, x) in x.iter().enumerate().filter(|_| !d.is_nan()) {
                    let at = (32 * g + c) / 4 * 4 * TILE + 4 * r + c % 4;
                    assert_eq!(q[at], expected[at], "{what}, column {c}");
                    let error = (d * (f32::from(q[at]) - 128.0) - x).abs();
                    assert!(error <= 0.5001 * d + crate::scalar::TINY, "{what}: {x} is off by {error}, steps of {d}");
                }
            }
        }
    }
}

/// What a kernel reads in several pieces, of whole groups and of parts of them.
#[test]
fn tiles_agree_with_the_rows_they_were_made_of() {
    let mut random = Random(0x7175);
    let (tiles, cols) = (GROUP + 2, 2 * PANEL + 256);
    for k in tables() {
        for dtype in DType::ALL.into_iter().filter(|&t| t.is_quantised() && has_layout(t)) {
            let row_bytes = dtype.row_bytes(cols).unwrap();
            let weights = random.weights(dtype, tiles * TILE, cols);
            let mut interleaved = Vec::new();
            interleave(dtype, &weights, row_bytes, &mut interleaved);
            for ((some, n), rounding) in
                [(0..tiles, 1), (1..GROUP + 1, 9)].into_iter().flat_map(|what| ROUNDINGS.map(|r| (what.clone(), r)))
            {
                let what = format!("{} {dtype} {rounding:?} tiles {some:?} n={n}", k.isa);
                let x = acts(k, rounding, random.ranging(n * cols), n, cols);
                let (x_rows, rest) = (x.int_rows(0..n), x.rest_rows(0..n));
                let rows = some.start * TILE..some.end * TILE;
                let mut found = vec![f32::NAN; n * rows.len()];
                let of_rows = Tiles::new(dtype, cols, &interleaved, rows.clone());
                (k.matvec_tiles)(of_rows, x_rows, rest, &mut Tile::of(&mut found, rows.len()));
                for (i, found) in found.chunks_exact(rows.len()).enumerate() {
                    for (found, tile) in found.chunks_exact(TILE).zip(some.clone()) {
                        let weights = &weights[tile * TILE * row_bytes..(tile + 1) * TILE * row_bytes];
                        let mut expected = vec![0.0; TILE];
                        let rest = rest.map(|rest| rest.row(i));
                        scalar::matvec(dtype, weights, x_rows.row(i), rest, &mut Vec::new(), &mut expected);
                        let mut packed = PackedTile::new();
                        scalar::pack(dtype, weights, cols, &mut packed);
                        assert_close(found, &expected, |r| tile_bound(dtype, weights, &packed, &x, (i, r)), &what);
                    }
                }
            }
        }
    }
}

/// BF16 in 12 bits, in pieces, for rows that share a reading and for those that don't.
#[test]
fn products_with_interleaved_bf16_agree_with_the_definition() {
    let mut random = Random(0xbf16);
    for k in tables() {
        for (tiles, cols) in [(1, 64), (1, 192), (2, PANEL), (GROUP + 2, 2 * PANEL + 128)] {
            let weights = random.weights(DType::BF16, tiles * TILE, cols);
            let mut interleaved = Vec::new();
            interleave(DType::BF16, &weights, 2 * cols, &mut interleaved);
            for (some, n) in [(0..tiles, 1), (tiles / 2..tiles, 2), (0..tiles, 3), (tiles - 1..tiles, 9)] {
                let what = format!("{} tiles {some:?} of {cols} columns, n={n}", k.isa);
                let (x, rows) = (random.ranging(n * cols), some.start * TILE..some.end * TILE);
                let tiles = Tiles::new(DType::BF16, cols, &interleaved, rows.clone());
                let (mut found, mut expected) = (vec![f32::NAN; n * rows.len()], vec![f32::NAN; n * rows.len()]);
                (k.matvec_e4m7)(tiles, &x, &mut Vec::new(), &mut Tile::of(&mut found, rows.len()));
                e4m7::matvec(tiles, &x, &mut Vec::new(), &mut Tile::of(&mut expected, rows.len()));
                let bound = |at: usize| {
                    let row = (rows.start + at % rows.len()) * 2 * cols;
                    let x = &x[at / rows.len() * cols..][..cols];
                    (cols as f32 + 8.0) * f32::EPSILON * magnitude(DType::BF16, &weights[row..row + 2 * cols], x)
                };
                assert_close(&found, &expected, bound, &what);
                let (mut rows, mut at) = (Vec::new(), Vec::new());
                e4m7::for_units(tiles, k.widen_e4m7, |row, col, weights| {
                    at.push((row, col));
                    rows.extend_from_slice(weights);
                });
                let mut same = rows.chunks_exact(e4m7::COLS).zip(at).zip(e4m7_rows(tiles));
                assert!(
                    same.all(|((found, at), (place, expected))| at == place && found == expected),
                    "{what} widened"
                );
            }
        }
    }
}

/// Units as the definition widens them, with their places.
fn e4m7_rows(tiles: Tiles<'_>) -> Vec<((usize, usize), Vec<f32>)> {
    let mut units = Vec::new();
    e4m7::for_units(tiles, e4m7::widen, |row, col, weights| units.push(((row, col), weights.to_vec())));
    units
}

/// Kernels that sum in 16 bits have no room to spare.
#[test]
fn the_largest_weights_and_activations_are_summed_right() {
    let mut random = Random(22);
    let signs: [fn(usize) -> f32; 3] = [|_| 1.0, |_| -1.0, |i| if i % 2 == 0 { 1.0 } else { -1.0 }];
    for k in tables() {
        for dtype in DType::ALL.into_iter().filter(|t| t.is_quantised()) {
            let (form, cols) = (form(dtype).unwrap(), 2 * dtype.block_len().max(32));
            for ((sign, rounding), byte) in
                signs.into_iter().flat_map(|sign| ROUNDINGS.map(|r| (sign, r))).flat_map(|s| [(s, 0), (s, 0xff)])
            {
                let what = format!("{} {dtype} {rounding:?} of bytes {byte:#x}", k.isa);
                let x = acts(k, rounding, (0..7 * cols).map(sign).collect(), 7, cols);
                let mut tile = PackedTile::new();
                tile.reset(form, cols);
                tile.q.fill(byte & form.most);
                tile.scale.fill(1.0);
                let (mut fast, mut slow) = (vec![0.0; 7 * TILE], vec![0.0; 7 * TILE]);
                scalar::gemm(std::slice::from_ref(&tile), &x.int_rows(0..7), &mut slow);
                (k.arrange)(&mut tile);
                (k.gemm)(std::slice::from_ref(&tile), &x.int_rows(0..7), &mut fast);
                let bound = (cols as f32 / 16.0 + 8.0) * f32::EPSILON * 256.0 * cols as f32;
                assert_close(&fast, &slow, |_| bound, &format!("{what} gemm"));
                if has_layout(dtype) {
                    let mut weights = vec![byte; TILE * dtype.row_bytes(cols).unwrap()];
                    let halves: &[usize] = match dtype {
                        DType::Q4K => &[0, 2],
                        DType::Q6K => &[208],
                        _ => &[0],
                    };
                    for block in weights.chunks_exact_mut(dtype.block_bytes()) {
                        for &at in halves {
                            block[at..at + 2].copy_from_slice(&half::f16::from_f32(random.value()).to_le_bytes());
                        }
                        if dtype == DType::Q6K {
                            block[192..208].fill(i8::MIN.cast_unsigned());
                        }
                    }
                    let mut tiles = Vec::new();
                    interleave(dtype, &weights, weights.len() / TILE, &mut tiles);
                    let tiles = Tiles::new(dtype, cols, &tiles, 0..TILE);
                    (k.matvec_tiles)(tiles, x.int_rows(0..7), x.rest_rows(0..7), &mut Tile::of(&mut fast, TILE));
                    scalar::matvec_tiles(tiles, x.int_rows(0..7), x.rest_rows(0..7), &mut Tile::of(&mut slow, TILE));
                    // A block's scales are up to 128 times its own, of weights below 64, or 64 times.
                    assert_close(&fast, &slow, |_| 128.0 * bound, &format!("{what} matvec_tiles"));
                }
            }
        }
    }
}

#[test]
fn no_weight_is_above_what_its_form_says() {
    let mut random = Random(21);
    for dtype in DType::ALL.into_iter().filter(|t| t.is_quantised()) {
        let (len, most) = (dtype.block_len(), form(dtype).unwrap().most);
        let mut block = Unpacked::new();
        let mut largest = 0;
        for weights in random.weights(dtype, 400, len).chunks_exact(dtype.block_bytes()) {
            unpack(dtype, weights, &mut block);
            largest = block.q[..len].iter().fold(largest, |largest, &q| q.max(largest));
        }
        assert!(largest <= most, "{dtype}: {largest} of {most}");
    }
}

#[test]
fn integer_products_approach_the_decoded_weights() {
    // Independent of the kernels' common form: weights decoded, activations of exactly 8 bits.
    let mut random = Random(7);
    for dtype in DType::ALL.into_iter().filter(|t| t.is_quantised()) {
        let cols = 2 * dtype.block_len().max(64);
        let weights = random.weights(dtype, 1, cols);
        let x: Vec<f32> =
            (0..cols).map(|i| if i % 32 == 0 { 127.0 } else { (random.bits() % 255) as f32 - 127.0 }).collect();
        let mut w = vec![0.0; cols];
        scalar::decode(dtype, &weights, &mut w);
        let exact: f64 = w.iter().zip(&x).map(|(&w, &x)| f64::from(w) * f64::from(x)).sum();
        for rounding in ROUNDINGS {
            let x = acts(table(crate::Isa::Scalar).unwrap(), rounding, x.clone(), 1, cols);
            let mut out = [0.0];
            scalar::matvec(dtype, &weights, x.int_rows(0..1), None, &mut Vec::new(), &mut out);
            let bound = f64::from(cols as f32 * f32::EPSILON * magnitude(dtype, &weights, x.row(0)));
            assert!((f64::from(out[0]) - exact).abs() <= bound, "{dtype} {rounding:?}: {} against {exact}", out[0]);
        }
    }
}

#[test]
fn plain_products_and_decoding_agree_with_the_definition() {
    let mut random = Random(99);
    for k in tables() {
        for dtype in DType::ALL {
            for cols in widths(dtype) {
                let what = format!("{} {dtype} {cols}", k.isa);
                let (rows, n) = (5, 9);
                let weights = random.weights(dtype, rows, cols);
                let x = random.values(n * cols);
                let row_bytes = dtype.row_bytes(cols).unwrap();
                let (mut fast, mut slow) = (vec![0.0; cols], vec![0.0; cols]);
                (k.decode)(dtype, &weights[..row_bytes], &mut fast);
                scalar::decode(dtype, &weights[..row_bytes], &mut slow);
                assert_eq!(fast, slow, "{what} decode");
                let (mut fast, mut slow) = (vec![0.0; rows], vec![0.0; rows]);
                (k.matvec_f32)(dtype, &weights, &x[..cols], &mut Vec::new(), &mut fast);
                scalar::matvec_f32(dtype, &weights, &x[..cols], &mut Vec::new(), &mut slow);
                let bound = |r: usize| {
                    let weights = &weights[r * row_bytes..(r + 1) * row_bytes];
                    (cols as f32 + 8.0) * f32::EPSILON * magnitude(dtype, weights, &x[..cols])
                };
                assert_close(&fast, &slow, bound, &format!("{what} matvec_f32"));
                let tile = random.values(cols * TILE);
                let (mut fast, mut slow) = (vec![0.0; n * TILE], vec![0.0; n * TILE]);
                (k.gemm_f32)(&tile, &x, cols, &mut fast);
                scalar::gemm_f32(&tile, &x, cols, &mut slow);
                let bound = (cols as f32 + 8.0) * f32::EPSILON * cols as f32;
                assert_close(&fast, &slow, |_| bound, &format!("{what} gemm_f32"));
            }
        }
    }
}

/// Wherever it stands, a value that is no number makes all scales of its row NaN, and its unit.
#[test]
fn what_is_no_number_stays_none() {
    for k in tables() {
        for (at, value) in [(0, f32::NAN), (15, f32::INFINITY), (16, -f32::NAN), (31, f32::NEG_INFINITY)] {
            let mut x = Random(9).values(96);
            x[32 + at] = value;
            for rounding in ROUNDINGS {
                let mut low = vec![1; if rounding == Rounding::Coarse { 0 } else { 96 }];
                let (mut q, mut d, mut sum) = ([1; 96], [1.0; 3], [1; 6]);
                quantise_row(k, &x, &mut q, &mut low, &mut d, &mut sum);
                assert!(d.iter().all(|d| d.is_nan()), "{} {value} at {at}: {d:?}", k.isa);
                assert!(q.iter().chain(&low).all(|q| *q == 0) && sum == [0; 6], "{} {value} at {at}", k.isa);
                assert!(acts(k, rounding, x.clone(), 1, 96).int_rows(0..1).unit(0).is_nan(), "{} {value}", k.isa);
            }
        }
    }
}

/// With 150 rows of 224 parts are of 74 rows, and the last of two.
#[test]
fn activations_are_quantised_alike_on_many_threads() {
    let (n, cols) = (150, 224);
    let values = Random(4).values(n * cols);
    for (k, rounding) in tables().into_iter().flat_map(|k| ROUNDINGS.map(|rounding| (k, rounding))) {
        let alone = acts(k, rounding, values.clone(), n, cols);
        let mut shared = acts(k, rounding, vec![0.0; n * cols], n, cols);
        shared.x.clone_from(&values);
        shared.quantise(k, &mut Pool::new(3).unwrap(), rounding);
        assert!(shared.int_rows(0..n) == alone.int_rows(0..n), "{} {rounding:?}", k.isa);
        assert!(shared.rest_rows(0..n) == alone.rest_rows(0..n), "{} {rounding:?}, the rest", k.isa);
    }
}

#[test]
fn activations_are_quantised_alike() {
    let mut random = Random(3);
    for k in tables() {
        for blocks in [0, 1, 3, 13, 48] {
            let mut x = random.values(blocks * 32);
            if blocks > 1 {
                x = random.ranging(blocks * 32);
                x[..32].fill(0.0);
                x[33] = -1e3;
                x[64..96].fill(1e-38);
            }
            let run = |k: &Kernels, rounding: Rounding| {
                let mut low = vec![0; if rounding == Rounding::Coarse { 0 } else { blocks * 32 }];
                let (mut q, mut d, mut sum) = (vec![0; blocks * 32], vec![0.0; blocks], vec![0; blocks * 2]);
                let largest = (k.largest)(&x);
                quantise_row(k, &x, &mut q, &mut low, &mut d, &mut sum);
                (largest, q, low, d, sum)
            };
            let definition = table(crate::Isa::Scalar).unwrap();
            for rounding in ROUNDINGS {
                assert_eq!(run(k, rounding), run(definition, rounding), "{} {rounding:?} {blocks} blocks", k.isa);
                if blocks == 0 {
                    continue;
                }
                let [found, expected] = [k, definition].map(|k| acts(k, rounding, x.clone(), 1, blocks * 32));
                let sums = |acts: &Acts| {
                    let x = acts.int_rows(0..1);
                    let eights: Vec<_> = x.eights.iter().map(|eight| (eight.sums, eight.exp)).collect();
                    ([x.neg16, x.neg32, x.exps].concat(), [x.dsum16, x.dsum32].concat(), eights)
                };
                assert_eq!(sums(&found), sums(&expected), "{} {rounding:?} {blocks} blocks", k.isa);
            }
        }
    }
}

/// A block's step is at most twice as coarse as one of its own would be, and every value within half a step.
#[test]
fn rows_of_any_range_are_rounded_finely() {
    let mut random = Random(5);
    for (k, rounding) in tables().into_iter().flat_map(|k| ROUNDINGS.map(|rounding| (k, rounding))) {
        let (n, cols) = (7, 1024);
        let acts = acts(k, rounding, random.ranging(n * cols), n, cols);
        let steps = if rounding == Rounding::Coarse { 127.0 } else { 127.0 * 128.0 };
        for i in 0..n {
            let (x, ints) = (acts.row(i), acts.int_rows(i..i + 1));
            let largest = scalar::largest(x) / steps;
            for (b, block) in x.chunks_exact(32).enumerate() {
                let (d, own) = (ints.d[b], scalar::largest(block) / steps);
                assert!(
                    d <= (2.0 * own).clamp(largest / (1 << 24) as f32, largest),
                    "{} {rounding:?}: {d} {own}",
                    k.isa
                );
                let power = f32::from_bits(127 << 23).to_bits().wrapping_add(ints.exps[b].cast_unsigned());
                assert_eq!(f64::from(d), f64::from(ints.unit(0)) * f64::from(f32::from_bits(power)), "{}", k.isa);
                for (j, &x) in block.iter().enumerate() {
                    let v = f64::from(d) * f64::from(ints.value(32 * b + j));
                    assert!((v - f64::from(x)).abs() <= f64::from(d) * 0.501, "{} {rounding:?}: {x} as {v}", k.isa);
                }
            }
        }
    }
}

#[test]
fn attention_products_agree_with_the_definition() {
    let mut random = Random(11);
    for k in tables() {
        for d in [1, 16, 24, 64, 96, 256, 512] {
            for (m, b) in [(1, 1), (4, 4), (8, 32), (7, 13)] {
                let what = format!("{} d={d} m={m} b={b}", k.isa);
                let (q, keys) = (random.values(m * d), random.values(b * d));
                let (mut fast, mut slow) = (vec![0.0; m * b], vec![0.0; m * b]);
                (k.scores)(&q, &keys, d, &mut fast);
                scalar::scores(&q, &keys, d, &mut slow);
                let bound = (d as f32 + 8.0) * f32::EPSILON * d as f32;
                assert_close(&fast, &slow, |_| bound, &format!("{what} scores"));
                let mut fast = random.values(m * d);
                let mut slow = fast.clone();
                (k.weighted_sum)(&q[..m * b.min(d)], &keys[..b.min(d) * d], d, &mut fast);
                scalar::weighted_sum(&q[..m * b.min(d)], &keys[..b.min(d) * d], d, &mut slow);
                let bound = (b as f32 + 8.0) * f32::EPSILON * (b as f32 + 1.0);
                assert_close(&fast, &slow, |_| bound, &format!("{what} weighted_sum"));
            }
        }
    }
}

#[test]
fn attention_products_with_halves_agree_with_those_of_what_they_stand_for() {
    let mut random = Random(12);
    for k in tables() {
        let Some(halves) = &k.halves else { continue };
        for d in [16, 48, 64, 256, 512] {
            for (m, b) in [(1, 1), (2, 9), (3, 4), (4, 6), (8, 32), (15, 13)] {
                let what = format!("{} d={d} m={m} b={b}", k.isa);
                let stored = random.weights(DType::F16, b, d);
                let mut decoded = vec![0.0; b * d];
                scalar::decode(DType::F16, &stored, &mut decoded);
                let (q, p) = (random.values(m * d), random.values(m * b));
                let (mut fast, mut slow) = (vec![f32::NAN; m * b], vec![0.0; m * b]);
                (halves.scores)(&q, &stored, d, Ahead(&stored), &mut fast);
                scalar::scores(&q, &decoded, d, &mut slow);
                let bound = (d as f32 + 8.0) * f32::EPSILON * d as f32;
                assert_close(&fast, &slow, |_| bound, &format!("{what} scores"));
                let mut fast = random.values(m * d);
                let mut slow = fast.clone();
                (halves.weighted_sum)(&p, &stored, d, Ahead(&[]), &mut fast);
                scalar::weighted_sum(&p, &decoded, d, &mut slow);
                let bound = (b as f32 + 8.0) * f32::EPSILON * (b as f32 + 1.0);
                assert_close(&fast, &slow, |_| bound, &format!("{what} weighted sum"));
            }
        }
    }
}

#[test]
fn functions_agree_with_the_definition_to_a_few_ulp() {
    let mut random = Random(42);
    for k in tables() {
        for len in [0, 1, 7, 15, 16, 17, 100, 5000] {
            let mut x: Vec<f32> = (0..len).map(|_| random.value() * 12.0).collect();
            for (x, special) in x.iter_mut().zip([0.0, -0.0, 1e-30, -90.0, 90.0, 1e-3, 700.0, -700.0]) {
                *x = special;
            }
            let near = |i: usize, v: &[f32]| 16.0 * f32::EPSILON * v[i].abs() + 1e-30;
            let up = random.values(len);
            let (mut fast, mut slow) = (x.clone(), x.clone());
            (k.gelu_mul)(&mut fast, &up);
            // In f64 by the sigmoid: the definition itself cancels where x is very negative.
            for (s, up) in slow.iter_mut().zip(&up) {
                let v = f64::from(*s);
                let u = (2.0 / std::f64::consts::PI).sqrt() * (v + 0.044715 * v * v * v);
                *s = (v / (1.0 + (-2.0 * u).exp()) * f64::from(*up)) as f32;
            }
            if k.isa != crate::Isa::Scalar {
                // e^u of a u with f32 rounding: |u| ε relative.
                let bound =
                    |i: usize| near(i, &slow) + 4.0 * x[i].abs().powi(3).min(100.0) * f32::EPSILON * slow[i].abs();
                assert_close(&fast, &slow, bound, &format!("{} gelu", k.isa));
            }
            let (mut fast, mut slow) = (vec![9.0; len], vec![9.0; len]);
            (k.sigmoid_mul)(&mut fast, &up, &x);
            scalar::sigmoid_mul(&mut slow, &up, &x);
            assert_close(&fast, &slow, |i| near(i, &slow), &format!("{} sigmoid", k.isa));
            let (mut fast, mut slow) = (x.clone(), x.clone());
            (k.softcap)(&mut fast, 30.0);
            scalar::softcap(&mut slow, 30.0);
            assert_close(&fast, &slow, |i| near(i, &slow), &format!("{} softcap", k.isa));
            let (mut fast, mut slow) = (x.clone(), x.clone());
            let max = x.iter().fold(0.0f32, |m, &v| m.max(v));
            let (fast_sum, slow_sum) = ((k.exp_sum)(&mut fast, max), scalar::exp_sum(&mut slow, max));
            assert_close(&fast, &slow, |i| near(i, &slow), &format!("{} exp", k.isa));
            assert!((fast_sum - slow_sum).abs() <= (len as f32 + 8.0) * f32::EPSILON * slow_sum.max(1e-30));
            let (fast, slow) = ((k.sum_squares)(&x), scalar::sum_squares(&x));
            assert!((fast - slow).abs() <= (len as f32 + 8.0) * f32::EPSILON * slow);
        }
    }
}

/// Others are what they are without it.
#[test]
fn single_values_that_are_no_numbers_stay_none() {
    for k in tables() {
        for (len, at) in [(1, 0), (7, 2), (16, 15), (33, 9), (33, 32)] {
            let what = format!("{} [{at}] of {len}", k.isa);
            let with = |value: f32| {
                let mut x = vec![0.5; len];
                x[at] = value;
                x
            };
            let check = |f: &dyn Fn(&mut [f32])| {
                let (mut found, mut without) = (with(f32::NAN), with(0.5));
                f(&mut found);
                f(&mut without);
                assert!(found[at].is_nan(), "{what}: {found:?}");
                found[at] = without[at];
                assert_eq!(found, without, "{what}");
            };
            check(&|x| {
                let sum = (k.exp_sum)(x, 1.0);
                assert_eq!(sum.is_nan(), x[at].is_nan(), "{what}");
            });
            check(&|x| (k.gelu_mul)(x, &vec![1.0; len]));
            check(&|x| {
                let values = x.to_vec();
                (k.sigmoid_mul)(x, &values, &vec![1.0; len]);
            });
            check(&|x| {
                let gate = x.to_vec();
                (k.sigmoid_mul)(x, &vec![1.0; len], &gate);
            });
            check(&|x| (k.softcap)(x, 30.0));
        }
    }
}
