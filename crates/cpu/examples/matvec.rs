//! Speed of the matrix products at E2B's shapes: decode in GB/s against the measured read bandwidth, prefill in GOPS
//! against the measured integer-dot peak.
//!
//! `cargo run --release -p carat-cpu --example matvec -- [threads] [types] [rows] [interleaved] [coarse|finest] [ISA] [SHAPE]`, e.g.
//! `2 Q4_0,Q8_0 1,512`. With `interleaved` weights are interleaved first, where this machine's kernels like that; with
//! `coarse` activations have 8 bits and not 15, with `finest` 22; with the name of an instruction set it is used and not the
//! best; with a shape like `6144x1536` only that one is measured.

use std::time::Instant;

use carat_cpu::{CpuBackend, CpuOptions, Precision, available, interleave, large_pages, measure};
use carat_tensor::backend::{Projection, Rounding};
use carat_tensor::{Backend, Bytes, DType, Tensor};

/// Together larger than the caches, as a model's weights are.
const WEIGHTS_BYTES: usize = 256 << 20;

/// E2B's.
const SHAPES: [(usize, usize); 4] = [(2048, 1536), (6144, 1536), (1536, 6144), (1536, 12288)];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let threads: usize = args.next().map_or(Ok(2), |s| s.parse())?;
    let types = args.next().unwrap_or_else(|| "Q4_0,Q8_0,Q4_K,Q6_K,BF16".to_owned());
    let rows = args.next().unwrap_or_else(|| "1,8,512".to_owned());
    let rows = rows.split(',').map(str::parse).collect::<Result<Vec<usize>, _>>()?;
    let words: Vec<_> = args.collect();
    let isa = available().into_iter().find(|isa| words.iter().any(|word| word == isa.name()));
    let mut backend = CpuBackend::new(CpuOptions { threads: Some(threads), precision: Precision::Fast, isa })?;
    let interleaved = words.iter().any(|word| word == "interleaved");
    if words.iter().any(|word| word == "finest") {
        backend.set_rounding(Rounding::Finest);
    }
    if words.iter().any(|word| word == "coarse") {
        backend.set_rounding(Rounding::Coarse);
    }
    let (bandwidth, peak) = (measure::read_bandwidth(threads, None)?, measure::int8_peak(threads));
    println!("{}, {threads} threads: read {:.1} GB/s, int8 {:.0} GOPS", backend.name(), bandwidth / 1e9, peak / 1e9);
    let wanted: Vec<(usize, usize)> = words
        .iter()
        .filter(|word| word.starts_with(|c: char| c.is_ascii_digit()))
        .filter_map(|word| word.split_once('x'))
        .map(|(rows, cols)| Ok((rows.parse()?, cols.parse()?)))
        .collect::<Result<_, std::num::ParseIntError>>()?;
    let shapes = if wanted.is_empty() { SHAPES.to_vec() } else { wanted };
    for name in types.split(',') {
        let dtype = DType::ALL.into_iter().find(|t| t.name() == name).ok_or("unknown type")?;
        for &shape in &shapes {
            run(&mut backend, interleaved, dtype, shape, &rows, (bandwidth, peak))?;
        }
    }
    Ok(())
}

fn run(
    backend: &mut CpuBackend,
    interleaved: bool,
    dtype: DType,
    (rows, cols): (usize, usize),
    activation_rows: &[usize],
    (bandwidth, peak): (f64, f64),
) -> Result<(), Box<dyn std::error::Error>> {
    let row_bytes = dtype.row_bytes(cols).ok_or("row length")?;
    let copies = WEIGHTS_BYTES.div_ceil(rows * row_bytes);
    let mut state = 1u64;
    let mut bytes = vec![0; rows * row_bytes * copies];
    large_pages(&bytes);
    bytes.fill_with(|| {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        // Below 0x3c everywhere: no scale is a NaN.
        (state >> 40) as u8 & 0x3b
    });
    if dtype == DType::BF16 {
        // Of sizes as near each other as a model's.
        bytes.iter_mut().skip(1).step_by(2).for_each(|high| *high = *high & 0x83 | 0x3c);
    }
    let shape = vec![rows * copies, cols];
    let tensor = Tensor { name: "w".into(), dtype, shape, data: Bytes::from_vec(bytes) };
    let mut read_bytes = rows * row_bytes;
    if let Some(bytes) = backend.tiles_bytes(&tensor).filter(|_| interleaved) {
        let mut tiles = vec![0; bytes];
        large_pages(&tiles);
        interleave(dtype, &tensor.data, row_bytes, &mut tiles);
        let tiles = Bytes::from_vec(tiles);
        backend.set_tiles(move |_| Some(tiles.clone()));
        read_bytes = bytes / copies;
    }
    let all = backend.matrix(&tensor)?;
    let matrices: Vec<_> = (0..copies).map(|c| backend.rows(&all, c * rows..(c + 1) * rows)).collect();
    for &n in activation_rows {
        let mut x = backend.buffer(n * cols)?;
        backend.upload(&mut x, &(0..n * cols).map(|i| (i as f32 * 0.37).sin()).collect::<Vec<_>>());
        let mut out = backend.buffer(n * rows)?;
        // A pass takes some tens of milliseconds.
        let (used, rounds) = if n == 512 { (3.min(copies), 1) } else { (copies, 8) };
        let seconds = (0..5)
            .map(|_| {
                let (wall, on_cpu) = (Instant::now(), measure::Stopwatch::start());
                for _ in 0..rounds {
                    for matrix in &matrices[..used] {
                        backend.project(&mut [Projection { matrix, out: &mut out }], &x, None, n);
                    }
                }
                // One thread's time on the CPU is the product's own, however busy the machine is.
                let time = if backend.threads() == 1 { on_cpu.elapsed() } else { wall.elapsed() };
                time.as_secs_f64() / (used * rounds) as f64
            })
            .fold(f64::INFINITY, f64::min);
        let (read, ops) = (read_bytes as f64 / seconds, 2.0 * (n * rows * cols) as f64 / seconds);
        println!(
            "{:>5} {rows:>6} x {cols:<6} n={n:<4} {:>8.1} us  {:>5.1} GB/s ({:>3.0} %)  {:>6.0} GOPS ({:>3.0} %)",
            dtype.name(),
            seconds * 1e6,
            read / 1e9,
            100.0 * read / bandwidth,
            ops / 1e9,
            100.0 * ops / peak
        );
    }
    Ok(())
}
