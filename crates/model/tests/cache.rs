//! The cache's life: taking tokens back, starting over, running full; and steps that are refused leave it alone.
#![allow(clippy::unwrap_used, reason = "a panic is a failed test")]

mod fixture;

use carat_cpu::Precision;
use carat_model::{LogitRows, ModelError, Piece, Step};
use carat_tensor::TokenId;
use carat_tensor::backend::KvType;
use fixture::{decoder, fixtures, reference, relative_error};

#[test]
fn taking_tokens_back_leaves_no_trace() {
    for fixture in fixtures() {
        let mut straight = reference(&fixture.dir);
        let expected = straight
            .forward(Step { pieces: &[Piece::Tokens(&fixture.ids)], logits: LogitRows::Last })
            .unwrap()
            .to_vec();

        let mut wandering = decoder(&fixture.dir, Precision::Reference, KvType::F32, 256, 20);
        wandering.forward(Step { pieces: &[Piece::Tokens(&fixture.ids[..90])], logits: LogitRows::None }).unwrap();
        assert!(wandering.truncate(75));
        wandering.forward(Step { pieces: &[Piece::Tokens(&[TokenId(40); 3])], logits: LogitRows::None }).unwrap();
        assert!(wandering.truncate(75));
        assert_eq!(wandering.position(), 75);
        let again = Step { pieces: &[Piece::Tokens(&fixture.ids[75..])], logits: LogitRows::Last };
        let error = relative_error(wandering.forward(again).unwrap(), &expected);
        assert!(error < 1e-5, "{}: off by {error:e}", fixture.name);
    }
}

#[test]
fn taking_back_more_than_the_rings_hold_is_refused() {
    for fixture in fixtures() {
        // Window 16 and chunks of 20: rings of 64 positions, of which 15 must remain.
        let mut decoder = decoder(&fixture.dir, Precision::Reference, KvType::F32, 256, 20);
        decoder.forward(Step { pieces: &[Piece::Tokens(&fixture.ids)], logits: LogitRows::None }).unwrap();
        assert!(!decoder.truncate(50), "{}", fixture.name);
        assert_eq!(decoder.position(), 100);
        assert!(decoder.truncate(51));
        assert!(!decoder.truncate(50), "what was overwritten stays lost");
        assert!(decoder.truncate(0) && decoder.position() == 0);
    }
}

#[test]
fn a_reset_sequence_starts_anew() {
    for fixture in fixtures() {
        let mut decoder = reference(&fixture.dir);
        let step = Step { pieces: &[Piece::Tokens(&fixture.ids[..20])], logits: LogitRows::All };
        let first = decoder.forward(step).unwrap().to_vec();
        decoder.reset();
        assert_eq!(decoder.forward(step).unwrap(), first);
    }
}

#[test]
fn impossible_steps_are_refused_and_change_nothing() {
    let fixture = &fixtures()[0];
    let mut decoder = decoder(&fixture.dir, Precision::Reference, KvType::F32, 32, 8);
    decoder.forward(Step { pieces: &[Piece::Tokens(&fixture.ids[..30])], logits: LogitRows::None }).unwrap();

    let too_many =
        decoder.forward(Step { pieces: &[Piece::Tokens(&fixture.ids[30..33])], logits: LogitRows::Last }).unwrap_err();
    assert!(matches!(too_many, ModelError::ContextFull { ctx: 32, position: 30, tokens: 3 }), "{too_many}");
    assert!(too_many.to_string().contains("32") && too_many.to_string().contains("position 30"));

    let vocab_size = decoder.config().vocab_size;
    let unknown = TokenId(vocab_size as u32);
    let error = decoder.forward(Step { pieces: &[Piece::Tokens(&[unknown])], logits: LogitRows::Last }).unwrap_err();
    assert!(matches!(error, ModelError::UnknownToken { id, .. } if id == unknown), "{error}");

    let empty = decoder.forward(Step { pieces: &[Piece::Tokens(&[])], logits: LogitRows::Last }).unwrap_err();
    assert!(matches!(empty, ModelError::EmptyStep), "{empty}");
    assert!(decoder.forward(Step { pieces: &[Piece::Tokens(&[])], logits: LogitRows::None }).unwrap().is_empty());

    assert_eq!(decoder.position(), 30);
    decoder.reset();
    let rows =
        decoder.forward(Step { pieces: &[Piece::Tokens(&fixture.ids[..9])], logits: LogitRows::All }).unwrap_err();
    assert!(matches!(rows, ModelError::TooManyRows { tokens: 9, chunk: 8 }), "{rows}");
}
