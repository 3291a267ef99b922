//! Sessions on the embedded model: reuse of the cache, cancellation, errors that leave the session usable.

use std::ops::ControlFlow;

use carat::session::{Answer, Event, GenerateOptions};
use carat::{Error, FinishReason, LoadOptions, ModelSource, SamplingOptions, Session};
use carat_chat::message::{Conversation, Message, Role};

fn session() -> Session {
    Session::load(&ModelSource::Embedded, &LoadOptions::default(), &mut |_| {}).expect("the embedded model loads")
}

fn conversation(texts: &[&str]) -> Conversation {
    let roles = [Role::User, Role::Assistant].into_iter().cycle();
    Conversation {
        messages: texts.iter().zip(roles).map(|(text, role)| Message::text(role, *text)).collect(),
        add_generation_prompt: true,
        ..Conversation::default()
    }
}

fn greedy(session: &Session, max_tokens: usize) -> GenerateOptions {
    let sampling =
        SamplingOptions { suppress: session.defaults().sampling.suppress.clone(), ..SamplingOptions::default() };
    GenerateOptions { sampling, max_tokens: Some(max_tokens), ..GenerateOptions::from_defaults(session.defaults()) }
}

fn answer(session: &mut Session, conversation: &Conversation, max_tokens: usize) -> Answer {
    let options = greedy(session, max_tokens);
    session.generate(conversation, &options, &mut |_| ControlFlow::Continue(())).expect("short prompts are answered")
}

#[test]
fn a_longer_conversation_reuses_the_cache_and_answers_the_same() {
    let mut warm = session();
    let first = answer(&mut warm, &conversation(&["Who are you?"]), 20);
    assert_eq!(first.usage.cached, 0);
    let longer = conversation(&["Who are you?", "I am carat.", "Spell apple."]);
    let reused = answer(&mut warm, &longer, 20);
    let fresh = answer(&mut session(), &longer, 20);
    assert!(reused.usage.cached > 5, "{:?}", reused.usage);
    assert_eq!(fresh.usage.cached, 0);
    assert_eq!(reused.message, fresh.message);
}

#[test]
fn an_answer_has_a_place_in_every_conversation_that_asks_for_one() {
    let mut session = session();
    let asked = conversation(&["What is 3 * 4?"]);
    let without = Conversation { add_generation_prompt: false, ..asked.clone() };
    assert_eq!(answer(&mut session, &without, 24).message, answer(&mut session, &asked, 24).message);
}

#[test]
fn the_same_prompt_again_is_all_but_one_token_cached() {
    let mut session = session();
    let prompt = conversation(&["Who are you?"]);
    let first = answer(&mut session, &prompt, 5);
    let second = answer(&mut session, &prompt, 5);
    assert_eq!(second.usage.cached, second.usage.prompt - 1);
    assert_eq!(first.message, second.message);
}

#[test]
fn breaking_cancels_the_answer_and_the_session_goes_on() {
    let mut session = session();
    let (prompt, options) = (conversation(&["Who are you?"]), greedy(&session, 20));
    let mut tokens = 0;
    let cancelled = session.generate(&prompt, &options, &mut |event| {
        tokens += usize::from(matches!(event, Event::Token(_)));
        if tokens == 2 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    let cancelled = cancelled.unwrap();
    assert_eq!((cancelled.finish, cancelled.usage.answer), (FinishReason::Cancelled, 2));
    assert_eq!(answer(&mut session, &prompt, 20).message, answer(&mut self::session(), &prompt, 20).message);
}

#[test]
fn a_prompt_beyond_the_context_is_refused_and_a_full_context_ends_the_answer() {
    let options = LoadOptions { context: Some(40), ..LoadOptions::default() };
    let mut session = Session::load(&ModelSource::Embedded, &options, &mut |_| {}).unwrap();
    let generate = greedy(&session, 1_000);
    let long = conversation(&[&"word ".repeat(100)]);
    let error = session.generate(&long, &generate, &mut |_| ControlFlow::Continue(())).unwrap_err();
    assert!(matches!(error, Error::PromptLength { context: 40, .. }), "{error}");

    let endless = GenerateOptions { stop_tokens: Vec::new(), looping: carat::session::Looping::Allowed, ..generate };
    // Only the letter e may be drawn, so nothing but the context can end it.
    let letter = session.tokenizer().encode("e")[0];
    let sampling = SamplingOptions { logit_bias: vec![(letter, 1e6)], ..endless.sampling.clone() };
    let full = session
        .generate(&conversation(&["Hi"]), &GenerateOptions { sampling, ..endless }, &mut |_| ControlFlow::Continue(()))
        .unwrap();
    assert_eq!(full.finish, FinishReason::Context);
    assert_eq!(full.usage.prompt + full.usage.answer, 41, "the last token drawn needs no place");
}

#[test]
fn memory_is_announced_before_it_is_taken() {
    let mut announced = 0;
    let options = LoadOptions { context: Some(64), ..LoadOptions::default() };
    let session = Session::load(&ModelSource::Embedded, &options, &mut |plan| announced = plan.kv_bytes()).unwrap();
    assert_eq!(announced, session.decoder().memory().kv_bytes());
    assert!(announced > 0);
}

/// A model on disk may be replaced while it is in use, as downloads do, but not be written to.
#[test]
fn files_that_change_under_a_session_end_it_with_an_error() {
    let dir = std::env::temp_dir().join(format!("carat-session-{}", std::process::id()));
    std::fs::create_dir_all(&dir).unwrap();
    let nano = concat!(env!("CARGO_MANIFEST_DIR"), "/../../nano/checkpoint");
    for file in ["config.json", "tokenizer.json", "model.safetensors"] {
        std::fs::copy(format!("{nano}/{file}"), dir.join(file)).unwrap();
    }
    let weights = dir.join("model.safetensors");
    let options = LoadOptions { context: Some(256), ..LoadOptions::default() };
    let mut session = Session::load(&ModelSource::Path(dir.clone()), &options, &mut |_| {}).unwrap();
    let generate = GenerateOptions { max_tokens: Some(1), ..GenerateOptions::from_defaults(session.defaults()) };
    let mut answer = || session.generate(&conversation(&["Hi"]), &generate, &mut |_| ControlFlow::Continue(()));
    answer().unwrap();
    let other = dir.join("other");
    std::fs::copy(&weights, &other).unwrap();
    let old = std::fs::OpenOptions::new().write(true).open(&weights).unwrap();
    std::fs::rename(&other, &weights).unwrap();
    answer().expect("the mapped file is still the old one");
    old.set_len(1000).unwrap();
    let error = answer().unwrap_err().to_string();
    std::fs::remove_dir_all(&dir).unwrap();
    for text in ["model.safetensors", "was changed while it was in use", "found 1000 bytes", "load the model again"] {
        assert!(error.contains(text), "`{text}` is not in: {error}");
    }
}
