//! The cases, by kind of operation, and what they share: buffers longer than needed whose tail must stay as
//! it was, and comparison of rows.

pub mod attention;
pub mod encoders;
pub mod experts;
pub mod products;
pub mod rows;
pub mod sounds;

use carat_tensor::backend::Rounding;
use carat_tensor::{Backend, DType};

use crate::Exactness;
use crate::bounds::{Approx, Inputs};
use crate::cases::{Matrix, f32s};
use crate::report::Report;

/// Values after the last row, to see that nobody writes there.
const TAIL: usize = 7;
/// What they hold.
const SENTINEL: f32 = 12345.0;
/// Epsilon of every norm of the family.
const EPS: f32 = 1e-6;

/// A backend under test.
pub struct Harness<'r, B: Backend> {
    pub backend: B,
    pub exactness: Exactness,
    pub report: &'r mut Report,
}

impl<B: Backend> Harness<'_, B> {
    /// A buffer that starts with `values`, and is longer.
    fn buffer(&mut self, values: &[f64]) -> B::Buffer {
        let mut all = f32s(values);
        all.resize(values.len() + TAIL, SENTINEL);
        let mut buffer = self.backend.buffer(all.len()).expect("conformance: memory for a small buffer");
        self.backend.upload(&mut buffer, &all);
        buffer
    }

    /// A buffer for `len` values that holds something else yet.
    fn output(&mut self, len: usize) -> B::Buffer {
        self.buffer(&vec![f64::from(SENTINEL); len])
    }

    fn vector(&mut self, values: &[f64]) -> B::Vector {
        self.backend.vector(&f32s(values)).expect("conformance: memory for a small vector")
    }

    fn matrix(&mut self, matrix: &Matrix) -> B::Matrix {
        match self.backend.matrix(&matrix.tensor) {
            Ok(matrix) => matrix,
            Err(error) => panic!("conformance: every type must be computed with: {error}"),
        }
    }

    /// Compares the buffer's first values, and its tail with what it was.
    fn compare(&mut self, found: &B::Buffer, expected: &Approx) {
        let len = expected.exact.len();
        let mut values = vec![0.0; len + TAIL];
        self.backend.download(found, 0, &mut values);
        self.report.compare(&values[..len], expected);
        self.report.untouched(&values[len..], SENTINEL);
    }

    /// How a product with weights of this type may round its inputs.
    fn inputs(&self, dtype: DType) -> Inputs {
        match (self.exactness, dtype) {
            (Exactness::Reference, _) | (_, DType::F32) => Inputs::Kept,
            (Exactness::Fast(Rounding::Finest), _) if dtype.is_quantised() => Inputs::Rounded(127 * 128 * 128),
            (Exactness::Fast(Rounding::Fine), _) if dtype.is_quantised() => Inputs::Rounded(127 * 128),
            (Exactness::Fast(_), _) => Inputs::Rounded(127),
        }
    }
}

/// One row after another.
fn stack(rows: impl IntoIterator<Item = Approx>) -> Approx {
    let mut all = Approx::default();
    for row in rows {
        all.append(row);
    }
    all
}
