//! Speed of attention over a cache: GB/s of keys and values against the measured read bandwidth, and GFLOPS.
//!
//! `cargo run --release -p carat-cpu --example attend -- [threads] [f16|q8_0|f32] [depths] [queries] [HEADSxKVHEADSxDIM] [pairs] [isa]`,
//! e.g. `2 f16 4096,32768 1,512 8x1x512`, a full layer of E2B's, or `2 f16 4096 1 16x2x512 64`, one of 26B-A4B's, whose keys are values
//! but for so many pairs of dimensions.

use std::time::Instant;

use carat_cpu::{CpuBackend, CpuOptions, Precision, available, measure};
use carat_tensor::Backend;
use carat_tensor::backend::{Attention, KvForm, KvSpec, KvType};

/// Caches together are larger than the processor's.
const BYTES: usize = 256 << 20;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let mut arg = |or: &str| args.next().unwrap_or_else(|| or.to_owned());
    let threads: usize = arg("2").parse()?;
    let dtype = match arg("f16").as_str() {
        "f16" => KvType::F16,
        "q8_0" => KvType::Q8_0,
        "f32" => KvType::F32,
        other => return Err(format!("type `{other}`: expected f16, q8_0 or f32").into()),
    };
    let list = |text: String, by: char| text.split(by).map(str::parse).collect::<Result<Vec<usize>, _>>();
    let (depths, queries) = (list(arg("4096"), ',')?, list(arg("1"), ',')?);
    let [n_heads, n_kv_heads, head_dim] = list(arg("8x1x512"), 'x')?[..] else {
        return Err("a shape like 8x1x512".into());
    };

    let pairs: usize = arg("0").parse()?;
    let form = if pairs == 0 { KvForm::Pair } else { KvForm::ValueAndRotated { pairs } };

    let isa =
        args.next().map(|name| available().into_iter().find(|isa| isa.name() == name).ok_or("no such kernels here"));
    let isa = isa.transpose()?;

    let mut backend = CpuBackend::new(CpuOptions { threads: Some(threads), precision: Precision::Fast, isa })?;
    let bandwidth = measure::read_bandwidth(threads, None)?;
    println!("{}, {threads} threads: read {:.1} GB/s", backend.name(), bandwidth / 1e9);
    for depth in depths {
        let spec = KvSpec { n_kv_heads, head_dim, capacity: depth, form, dtype };
        let mut caches = Vec::new();
        for c in 0..BYTES.div_ceil(spec.bytes()) {
            let mut kv = backend.kv(spec)?;
            let width = n_kv_heads * head_dim;
            let mut row = backend.buffer(width)?;
            for position in 0..depth {
                let values: Vec<f32> =
                    (0..width).map(|i| ((i * 7 + position * 13 + c) % 61) as f32 / 61.0 - 0.5).collect();
                backend.upload(&mut row, &values);
                backend.kv_write(&mut kv, &row, &row, position, 1);
            }
            caches.push(kv);
        }
        for &n in queries.iter().filter(|&&n| n <= depth) {
            let mut q = backend.buffer(n * n_heads * head_dim)?;
            let values: Vec<f32> = (0..n * n_heads * head_dim).map(|i| (i as f32 * 0.37).sin() * 0.1).collect();
            backend.upload(&mut q, &values);
            let mut out = backend.buffer(n * n_heads * head_dim)?;
            let shape = Attention { n, first: depth - n, n_heads, window: None, blocks: &[] };
            let rounds = if n == 1 { 4 } else { 1 };
            let seconds = (0..5)
                .map(|_| {
                    let (wall, on_cpu) = (Instant::now(), measure::Stopwatch::start());
                    for kv in (0..rounds).flat_map(|_| &caches) {
                        backend.attention(&mut out, &q, kv, shape);
                    }
                    let time = if threads == 1 { on_cpu.elapsed() } else { wall.elapsed() };
                    time.as_secs_f64() / (rounds * caches.len()) as f64
                })
                .fold(f64::INFINITY, f64::min);
            let read = spec.bytes() as f64 / seconds;
            let flops = 4.0 * (n * n_heads * head_dim) as f64 * (depth - (n - 1) / 2) as f64 / seconds;
            println!(
                " {:>5} {depth:>6} x {head_dim:<4} n={n:<4} {:>8.1} us  {:>5.1} GB/s ({:>3.0} %)  {:>5.1} GFLOPS",
                format!("{dtype:?}"),
                seconds * 1e6,
                read / 1e9,
                100.0 * read / bandwidth,
                flops / 1e9
            );
        }
    }
    Ok(())
}
