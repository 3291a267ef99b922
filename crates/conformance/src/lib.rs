//! Development only: what every backend must meet.
//!
//! [`check_backend`] runs each operation of `carat_tensor::Backend` over many cases, compares with plain f64
//! maths ([`definitions`]) and allows what [`bounds`] derive. A backend's own tests call it once for every
//! way it can run. A new operation starts here, with its definition and its cases.
#![forbid(unsafe_code)]

pub mod bounds;
pub mod cases;
mod checks;
pub mod definitions;
pub mod report;

use carat_tensor::Backend;
use carat_tensor::backend::Rounding;

use report::{Report, Summary};

/// What a backend promises about rounding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exactness {
    /// Stored weights times f32 activations, sums in f32.
    Reference,
    /// Activations may be rounded to integers before a product with quantised weights, to 15 or 8 bits as the rounding
    /// set allows; to 8 bits, bf16 or f16 before one with f16 or bf16 weights; and queries to what the cache stores. In encoders
    /// both sides of products between bounds with such weights, and of attention, to 16 bits in blocks; where rounding is coarse,
    /// of the products to 8.
    Fast(Rounding),
}

/// Runs every case on backends that `make` makes.
///
/// # Panics
/// If the backend disagrees with a definition by more than the bound; the text lists operation, case, found,
/// expected and bound.
pub fn check_backend<B: Backend>(make: &mut dyn FnMut() -> B, exactness: Exactness) -> Summary {
    let mut report = Report::new(format!("{} ({exactness:?})", make().name()));
    let checks = [
        checks::rows::check,
        checks::products::check,
        checks::attention::check,
        checks::experts::check,
        checks::encoders::check,
        checks::sounds::check,
    ];
    for check in checks {
        let mut backend = make();
        if let Exactness::Fast(rounding) = exactness {
            backend.set_rounding(rounding);
        }
        check(&mut checks::Harness { backend, exactness, report: &mut report });
    }
    report.finish()
}
