//! Every instruction set this machine has, in both precisions, against the definitions of `carat_conformance`.
//!
//! The list of what ran is printed and asserted: a table that is skipped passes silently. `CARAT_TEST_ISA=avx512` keeps to
//! one instruction set, on two and three threads, for emulated machines, which need minutes for each.

use carat_conformance::{Exactness, check_backend};
use carat_cpu::{CpuBackend, CpuOptions, Isa, Precision, available, interleave};
use carat_tensor::Bytes;
use carat_tensor::backend::Rounding;

/// What this machine can run, asked apart from the backend.
fn expected() -> Vec<Isa> {
    let mut expected = vec![Isa::Scalar];
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("avx512vbmi")
        && is_x86_feature_detected!("avx512vnni")
        && is_x86_feature_detected!("gfni")
    {
        expected.push(Isa::Avx512);
    }
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("avxvnni") || is_x86_feature_detected!("avx512vnni") {
        expected.push(Isa::Vnni);
    }
    #[cfg(target_arch = "aarch64")]
    if std::arch::is_aarch64_feature_detected!("dotprod") {
        expected.push(Isa::Neon);
        if std::arch::is_aarch64_feature_detected!("i8mm") {
            expected.push(Isa::I8mm);
        }
    }
    expected
}

/// Checks every available instruction set on three threads, so that work is cut in uneven parts, and the best one alone and with
/// interleaved weights.
#[track_caller]
fn check(precision: Precision, exactness: Exactness) {
    let exercised = available();
    println!("instruction sets: {exercised:?}");
    for isa in expected() {
        assert!(exercised.contains(&isa), "this machine has {isa}, which was not exercised: {exercised:?}");
    }
    let best = [(exercised[0], 1, false), (exercised[0], 2, true)];
    let only = std::env::var("CARAT_TEST_ISA").ok();
    let wanted = |isa: Isa| only.as_ref().is_none_or(|only| isa.name() == only);
    assert!(exercised.iter().any(|&isa| wanted(isa)), "this machine lacks {only:?}: {exercised:?}");
    for (isa, threads, interleaved) in exercised.into_iter().map(|isa| (isa, 3, false)).chain(best) {
        // How work is cut among threads is left to real machines: see above.
        if !wanted(isa) || (only.is_some() && threads == 1) {
            continue;
        }
        let options = CpuOptions { threads: Some(threads), precision, isa: Some(isa) };
        let mut make = || {
            let mut backend = CpuBackend::new(options).expect("an available instruction set");
            if interleaved {
                backend.set_tiles(|tensor| {
                    let mut tiles = Vec::new();
                    interleave(tensor.dtype, &tensor.data, tensor.data.len() / tensor.rows(), &mut tiles);
                    Some(Bytes::from_vec(tiles))
                });
            }
            backend
        };
        let summary = check_backend(&mut make, exactness);
        println!("{isa}, {threads} threads, {precision:?}: {} cases, {} values", summary.cases, summary.values);
    }
}

#[test]
fn the_reference_path_computes_what_the_definitions_say() {
    check(Precision::Reference, Exactness::Reference);
}

#[test]
fn finest_rounding_errs_no_more_than_22_bit_activations_do() {
    check(Precision::Fast, Exactness::Fast(Rounding::Finest));
}

#[test]
fn the_fast_path_errs_no_more_than_fifteen_bit_activations_do() {
    check(Precision::Fast, Exactness::Fast(Rounding::Fine));
}

#[test]
fn coarse_rounding_errs_no_more_than_eight_bit_activations_do() {
    check(Precision::Coarse, Exactness::Fast(Rounding::Coarse));
}
