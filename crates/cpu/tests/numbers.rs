//! What is no number stays none through attention, with every instruction set this machine has: a maximum or an exponential
//! must not lose it.
#![allow(clippy::unwrap_used, reason = "a panic is a failed test")]

use carat_cpu::{Buffer, CpuBackend, CpuOptions, Precision, available};
use carat_tensor::Backend;
use carat_tensor::backend::{Attention, KvForm, KvSpec, KvType, Near};

const D: usize = 32;
const HEADS: usize = 2;
const WIDTH: usize = HEADS * D;

/// Calls `f` with a backend of two threads for every instruction set and precision.
fn with_backends(f: impl Fn(&mut CpuBackend, &str)) {
    for isa in available() {
        for precision in [Precision::Fast, Precision::Reference] {
            let options = CpuOptions { threads: Some(2), precision, isa: Some(isa) };
            f(&mut CpuBackend::new(options).unwrap(), &format!("{isa} {precision:?}"));
        }
    }
}

fn buffer(backend: &mut CpuBackend, values: &[f32]) -> Buffer {
    let mut buffer = backend.buffer(values.len()).unwrap();
    backend.upload(&mut buffer, values);
    buffer
}

/// `[n, HEADS, D]`.
fn rows(n: usize) -> Vec<f32> {
    (0..n * WIDTH).map(|i| ((i * 37) % 101) as f32 / 101.0 - 0.5).collect()
}

/// Which heads of which rows are no numbers; none is in part.
fn bad_heads(out: &Buffer, what: &str) -> Vec<usize> {
    let heads = out.as_slice().chunks_exact(D).enumerate();
    heads
        .filter(|(head, values)| {
            let bad = values.iter().filter(|v| v.is_nan()).count();
            assert!(bad == 0 || bad == D, "{what}: {bad} of head {head}");
            bad > 0
        })
        .map(|(head, _)| head)
        .collect()
}

#[test]
fn attention_to_a_cache_keeps_it() {
    const POSITIONS: usize = 300;
    with_backends(|backend, of| {
        for dtype in [KvType::F32, KvType::F16] {
            // One row, whose keys are shared among threads; a few; and as many as are attended to in 16-bit integers.
            for n in [1, 5, 70] {
                // A query's, and a key's that all see.
                for (query, key) in [(Some(0), None), (None, Some(7)), (None, Some(POSITIONS - n))] {
                    let what = format!("{of} {dtype:?} n={n} query={query:?} key={key:?}");
                    let spec =
                        KvSpec { n_kv_heads: HEADS, head_dim: D, capacity: POSITIONS, form: KvForm::Pair, dtype };
                    let mut kv = backend.kv(spec).unwrap();
                    let (mut q, mut k) = (rows(n), rows(POSITIONS));
                    if let Some(row) = query {
                        q[row * WIDTH + 3] = f32::NAN;
                    }
                    if let Some(position) = key {
                        k[position * WIDTH + 3] = f32::NAN;
                    }
                    let (q, k, v) = (buffer(backend, &q), buffer(backend, &k), buffer(backend, &rows(POSITIONS)));
                    backend.kv_write(&mut kv, &k, &v, 0, POSITIONS);
                    let mut out = backend.buffer(n * WIDTH).unwrap();
                    let shape = Attention { n, first: POSITIONS - n, n_heads: HEADS, window: None, blocks: &[] };
                    backend.attention(&mut out, &q, &kv, shape);
                    let expected: Vec<usize> = match query {
                        Some(row) => vec![row * HEADS],
                        None => (0..n).map(|row| row * HEADS).collect(),
                    };
                    assert_eq!(bad_heads(&out, &what), expected, "{what}");
                }
            }
        }
    });
}

#[test]
fn attention_to_near_rows_keeps_it() {
    let (n, reach) = (20, 4);
    with_backends(|backend, of| {
        for (query, key, expected) in [(Some(6), None, vec![12]), (None, Some(6), vec![12, 14, 16, 18])] {
            let (mut q, mut k) = (rows(n), rows(n));
            if let Some(row) = query {
                q[row * WIDTH + 3] = f32::NAN;
            }
            if let Some(row) = key {
                k[row * WIDTH + 3] = f32::NAN;
            }
            let (q, k, v) = (buffer(backend, &q), buffer(backend, &k), buffer(backend, &rows(n)));
            let (scale, relative) = (backend.vector(&[1.0; D]).unwrap(), backend.vector(&rows(reach)).unwrap());
            let near = Near { n_heads: HEADS, head_dim: D, reach, scale: &scale, relative: &relative, softcap: 50.0 };
            let mut out = backend.buffer(n * WIDTH).unwrap();
            backend.attend_near(&mut out, &q, &k, &v, near, n);
            let what = format!("{of} query={query:?} key={key:?}");
            assert_eq!(bad_heads(&out, &what), expected, "{what}");
        }
    });
}
