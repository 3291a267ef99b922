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

/// The row, of queries or keys, whose first head is to have a value that is no number.
#[derive(Clone, Copy, Debug)]
enum Bad {
    Query(usize),
    Key(usize),
}

impl Bad {
    fn put(self, q: &mut [f32], k: &mut [f32]) {
        let (values, row) = match self {
            Bad::Query(row) => (q, row),
            Bad::Key(row) => (k, row),
        };
        values[row * WIDTH + 3] = f32::NAN;
    }
}

/// Rows whose first head is no numbers; no head is so in part, and the second of none.
fn bad_rows(out: &Buffer, what: &str) -> Vec<usize> {
    let rows = out.as_slice().chunks_exact(WIDTH).enumerate();
    let is_bad = |(row, values): &(usize, &[f32])| {
        let bad: Vec<usize> = values.chunks_exact(D).map(|head| head.iter().filter(|v| v.is_nan()).count()).collect();
        assert!(bad == [0, 0] || bad == [D, 0], "{what}: {bad:?} of row {row}");
        bad[0] > 0
    };
    rows.filter(is_bad).map(|(row, _)| row).collect()
}

#[test]
fn attention_to_a_cache_keeps_it() {
    const POSITIONS: usize = 300;
    with_backends(|backend, of| {
        for dtype in [KvType::F32, KvType::F16] {
            for (n, window, bad) in [
                // One row, whose keys are shared among threads; a few; and as many as are attended to in 16-bit integers.
                (1, None, Bad::Query(0)),
                (1, None, Bad::Key(7)),
                (5, None, Bad::Query(3)),
                (5, None, Bad::Key(7)),
                (70, None, Bad::Query(69)),
                (70, None, Bad::Key(POSITIONS - 69)),
                // The only key of the first 32 that row 31 sees.
                (40, Some(100), Bad::Key(POSITIONS - 40 - 99 + 31)),
            ] {
                let what = format!("{of} {dtype:?} n={n} window={window:?} {bad:?}");
                let spec = KvSpec { n_kv_heads: HEADS, head_dim: D, capacity: POSITIONS, form: KvForm::Pair, dtype };
                let shape = Attention { n, first: POSITIONS - n, n_heads: HEADS, window, blocks: &[] };
                let mut kv = backend.kv(spec).unwrap();
                let (mut q, mut k) = (rows(n), rows(POSITIONS));
                bad.put(&mut q, &mut k);
                let (q, k, v) = (buffer(backend, &q), buffer(backend, &k), buffer(backend, &rows(POSITIONS)));
                backend.kv_write(&mut kv, &k, &v, 0, POSITIONS);
                let mut out = backend.buffer(n * WIDTH).unwrap();
                backend.attention(&mut out, &q, &kv, shape);
                let is_bad = |row: &usize| match bad {
                    Bad::Query(query) => *row == query,
                    Bad::Key(key) => shape.visible(shape.first + row).contains(&key),
                };
                assert_eq!(bad_rows(&out, &what), (0..n).filter(is_bad).collect::<Vec<_>>(), "{what}");
            }
        }
    });
}

#[test]
fn attention_to_near_rows_keeps_it() {
    let (n, reach) = (20, 4);
    with_backends(|backend, of| {
        for (bad, expected) in [(Bad::Query(6), 6..7), (Bad::Key(6), 6..10)] {
            let (mut q, mut k) = (rows(n), rows(n));
            bad.put(&mut q, &mut k);
            let (q, k, v) = (buffer(backend, &q), buffer(backend, &k), buffer(backend, &rows(n)));
            let (scale, relative) = (backend.vector(&[1.0; D]).unwrap(), backend.vector(&rows(reach)).unwrap());
            let near = Near { n_heads: HEADS, head_dim: D, reach, scale: &scale, relative: &relative, softcap: 50.0 };
            let mut out = backend.buffer(n * WIDTH).unwrap();
            backend.attend_near(&mut out, &q, &k, &v, near, n);
            let what = format!("{of} {bad:?}");
            assert_eq!(bad_rows(&out, &what), expected.collect::<Vec<_>>(), "{what}");
        }
    });
}
