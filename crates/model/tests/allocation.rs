//! A decode step allocates nothing: everything was made at load.
#![allow(clippy::unwrap_used, reason = "a panic is a failed test")]

mod fixture;

use carat_cpu::Precision;
use carat_model::{LogitRows, Piece, Step};
use carat_tensor::backend::KvType;
use fixture::{decoder, fixtures};

#[test]
fn a_decode_step_allocates_nothing() {
    for fixture in fixtures() {
        for precision in [Precision::Reference, Precision::Fast] {
            let mut decoder = decoder(&fixture.dir, precision, KvType::F16, 256, 64);
            decoder.forward(Step { pieces: &[Piece::Tokens(&fixture.ids[..40])], logits: LogitRows::Last }).unwrap();
            // A backend may size its scratch by the first step of a kind.
            decoder.forward(Step { pieces: &[Piece::Tokens(&fixture.ids[40..41])], logits: LogitRows::Last }).unwrap();
            let mut decode = || {
                for token in &fixture.ids[41..] {
                    decoder.forward(Step { pieces: &[Piece::Tokens(&[*token])], logits: LogitRows::Last }).unwrap();
                }
            };
            let allocations = allocation_counter::measure(&mut decode);
            assert_eq!(allocations.count_total, 0, "{} {precision:?}", fixture.name);
        }
    }
}
