//! What a backend says it takes for encoders is what it takes, with every instruction set this machine has.
#![allow(clippy::unwrap_used, reason = "a panic is a failed test")]

use carat_cpu::{CpuBackend, CpuOptions, Precision, available};
use carat_tensor::backend::{
    AttentionWork, Clip, ClippedFeedForward, ClippedProjection, EncoderWork, ProductWork, Projection, Work,
};
use carat_tensor::{Backend, Bytes, DType, Tensor};

const ROWS: usize = 2000;
const COLS: usize = 256;
const OUT: usize = 128;
/// Of what is inside a feed-forward.
const WIDE: usize = 1024;
const HEAD_DIM: usize = 64;
/// What may be planned and not taken: a text model's, though next to none, and panels that a small matrix has no use for.
const SLACK: usize = 512 << 10;

/// Next to none.
const TEXT: Work = Work {
    rows: 1,
    cols: 32,
    fine_cols: 32,
    plain_cols: 32,
    half_cols: 0,
    finest_rows: 0,
    head_dim: 32,
    group: 1,
    positions: 1,
    kv_is_rounded: false,
    quantised: false,
    experts: None,
};

/// Planned bytes of `work`, and those that are kept when `run` has done it.
fn check(what: &str, backend: &mut CpuBackend, work: &EncoderWork, run: impl FnOnce(&mut CpuBackend)) {
    let planned = backend.workspace(&TEXT, &[work]);
    let kept = allocation_counter::measure(|| run(backend)).bytes_current as usize;
    println!("{what}: {kept} of {planned}");
    assert!(kept <= planned && planned <= kept + kept / 20 + SLACK, "{what}: {kept} bytes, planned {planned}");
}

#[test]
fn encoders_take_what_is_planned() {
    for isa in available() {
        for precision in [Precision::Fast, Precision::Coarse, Precision::Reference] {
            // Allocations are counted on the caller's thread.
            let options = CpuOptions { threads: Some(1), precision, isa: Some(isa) };
            for (dtype, bounded) in [
                (DType::BF16, true),
                (DType::BF16, false),
                (DType::F16, true),
                (DType::F32, true),
                (DType::Q8_0, true),
                (DType::Q8_0, false),
            ] {
                let mut backend = CpuBackend::new(options).unwrap();
                let data = Bytes::from_vec(vec![0; OUT * dtype.row_bytes(COLS).unwrap()]);
                let tensor = Tensor { name: "weights".into(), dtype, shape: vec![OUT, COLS], data };
                let matrix = backend.matrix(&tensor).unwrap();
                let [x, mut out] = [COLS, OUT].map(|width| backend.buffer(ROWS * width).unwrap());
                let product = ProductWork { rows: ROWS, cols: COLS, width: OUT, dtype, bounded };
                let work = EncoderWork { products: vec![product], attention: None };
                check(&format!("{isa} {precision:?} {dtype} {bounded}"), &mut backend, &work, |backend| {
                    let projection = Projection { matrix: &matrix, out: &mut out };
                    if bounded {
                        backend.clipped_project(&mut [ClippedProjection { projection, clip: Clip::NONE }], &x, ROWS);
                    } else {
                        backend.project(&mut [projection], &x, None, ROWS);
                    }
                });
            }
            for (dtype, gated) in [(DType::BF16, true), (DType::BF16, false), (DType::Q8_0, true), (DType::F32, true)] {
                let mut backend = CpuBackend::new(options).unwrap();
                let [gate, up, down] = [(WIDE, COLS), (WIDE, COLS), (COLS, WIDE)].map(|(rows, cols)| {
                    let data = Bytes::from_vec(vec![0; rows * dtype.row_bytes(cols).unwrap()]);
                    backend.matrix(&Tensor { name: "weights".into(), dtype, shape: vec![rows, cols], data }).unwrap()
                });
                let [x, mut out, mut inner, mut gated_inner] =
                    [COLS, COLS, WIDE, WIDE].map(|width| backend.buffer(ROWS * width).unwrap());
                let product = |(cols, width)| ProductWork { rows: ROWS, cols, width, dtype, bounded: true };
                let work =
                    EncoderWork { products: [(COLS, WIDE), (WIDE, COLS)].map(product).to_vec(), attention: None };
                check(&format!("{isa} {precision:?} {dtype} {gated}"), &mut backend, &work, |backend| {
                    let clip = Clip::NONE;
                    let part = |matrix, out| ClippedProjection { projection: Projection { matrix, out }, clip };
                    let ffn = ClippedFeedForward {
                        width: WIDE,
                        gate: gated.then(|| part(&gate, &mut gated_inner)),
                        up: part(&up, &mut inner),
                        down: part(&down, &mut out),
                    };
                    backend.clipped_feed_forward(ffn, &x, ROWS);
                });
            }
            let mut backend = CpuBackend::new(options).unwrap();
            let [q, k, v, mut out] = [0; 4].map(|_| backend.buffer(ROWS * HEAD_DIM).unwrap());
            let attention = Some(AttentionWork { rows: ROWS, head_dim: HEAD_DIM });
            let work = EncoderWork { products: Vec::new(), attention };
            check(&format!("{isa} {precision:?} attention"), &mut backend, &work, |backend| {
                backend.attend_all(&mut out, &q, &k, &v, 1, HEAD_DIM, ROWS);
            });
        }
    }
}
