//! Sessions with pictures and sounds, on tiny models: what is encoded once, and what of the cache may be used again.

#[path = "../../media/tests/drawing/mod.rs"]
mod drawing;
mod tiny;

use std::ops::ControlFlow;

use carat::session::{Answer, GenerateOptions};
use carat::video::{SoundTrack, VideoFile};
use carat::{Error, ImageTokens, LoadOptions, Medium, ModelFiles, ModelSource, SamplingOptions, Session};
use carat_chat::message::{Content, Conversation, Message, Part, Role};
use carat_media::video::Shot;
use tiny::Tiny;

fn session(model: &Tiny) -> Session {
    let image_tokens = Some("70".parse::<ImageTokens>().expect("a budget"));
    let options = LoadOptions { context: Some(2048), image_tokens, sounds: true, ..LoadOptions::default() };
    Session::load(&ModelSource::Path(model.0.clone()), &options, &mut |_| {}).expect("a tiny model loads")
}

/// The drawing of `pattern`, its colours changed by `by`, as a BMP file.
fn picture(width: usize, height: usize, by: u8) -> Medium {
    let rgb = drawing::pattern(width, height).rgb;
    let row_bytes = (width * 3).next_multiple_of(4);
    let mut bytes = b"BM".to_vec();
    for word in [54 + row_bytes * height, 0, 54, 40, width, height, 1 | 24 << 16, 0, 0, 0, 0, 0, 0] {
        bytes.extend((word as u32).to_le_bytes());
    }
    for row in rgb.chunks_exact(width * 3).rev() {
        bytes.extend(row.chunks_exact(3).flat_map(|pixel| [pixel[2], pixel[1], pixel[0]]).map(|value| value ^ by));
        bytes.extend(std::iter::repeat_n(0, row_bytes - width * 3));
    }
    Medium::Image { name: format!("{width}x{height}"), bytes }
}

fn wave(n: usize) -> Vec<f32> {
    (0..n).map(|i| (i as f32 / 7.0).sin() / 2.0).collect()
}

fn shown(part: Part, text: &str) -> Message {
    Message::user(vec![part, Part::Text(text.into())])
}

fn conversation(messages: &[Message]) -> Conversation {
    Conversation { messages: messages.to_vec(), add_generation_prompt: true, ..Conversation::default() }
}

fn answer(session: &mut Session, messages: &[Message], media: &[Medium]) -> Answer {
    let options = GenerateOptions {
        sampling: SamplingOptions::default(),
        max_tokens: Some(6),
        ..GenerateOptions::from_defaults(session.defaults())
    };
    let conversation = conversation(messages);
    session.generate_with(&conversation, media, &options, &mut |_| ControlFlow::Continue(())).expect("it answers")
}

/// Rows of a prompt before those of its first medium: `<bos>`, `<|turn>`, `user` and the end of its line, letter by letter,
/// and the mark before the medium.
const BEFORE: usize = 1 + 1 + 5 + 1;

/// A question, of as many tokens as letters.
const ASKED: &str = "what is it";

/// Two turns about `first` begin where the first ended; with `other` in its place nothing of it is used again.
#[track_caller]
fn check(model: &str, part: &Part, first: Medium, other: Medium) {
    let model = Tiny::new(model);
    let mut warm = session(&model);
    let asked = shown(part.clone(), ASKED);
    let said = answer(&mut warm, std::slice::from_ref(&asked), std::slice::from_ref(&first));
    assert_eq!(said.usage.cached, 0);
    let turns = [asked, said.message.clone(), Message::text(Role::User, "and how many")];
    let next = answer(&mut warm, &turns, std::slice::from_ref(&first));
    // Were it encoded again, its rows would count as others. An empty thought that opens an answer is no part of its turn.
    let known = BEFORE + warm.soft_tokens(&first).expect("it is known") + ASKED.len();
    assert!(next.usage.cached >= known, "{:?} after {:?}", next.usage, said.usage);
    assert_eq!(next.message, answer(&mut session(&model), &turns, std::slice::from_ref(&first)).message);
    let swapped = answer(&mut warm, &turns, std::slice::from_ref(&other));
    assert_eq!((swapped.usage.prompt, swapped.usage.cached), (next.usage.prompt, BEFORE));
    assert_eq!(swapped.message, answer(&mut session(&model), &turns, std::slice::from_ref(&other)).message);
    let back = answer(&mut warm, &turns, &[first]);
    assert_eq!((back.usage.cached, back.message), (BEFORE, next.message), "it is still known, and its rows are not");
}

#[test]
fn a_picture_is_encoded_once_and_one_in_its_place_is_seen() {
    for model in ["e2b", "31b", "12b"] {
        check(model, &Part::Image, picture(300, 200, 0), picture(300, 200, 255));
    }
}

#[test]
fn a_sound_is_encoded_once_and_one_in_its_place_is_heard() {
    let samples = |by: f32| {
        let samples = wave(9_000).into_iter().map(|sample| sample * by).collect();
        Medium::Samples { name: "samples".into(), samples }
    };
    for model in ["e2b", "12b"] {
        check(model, &Part::Audio, samples(1.0), samples(-0.5));
    }
}

/// A WAV file of floats at 16 kHz.
fn wav(samples: &[f32]) -> Vec<u8> {
    let data = 4 * samples.len() as u32;
    let mut file = [b"RIFF", &(36 + data).to_le_bytes()[..], b"WAVEfmt ", &16u32.to_le_bytes()].concat();
    for (word, bytes) in [(3u32, 2), (1, 2), (16_000, 4), (64_000, 4), (4, 2), (32, 2)] {
        file.extend(&word.to_le_bytes()[..bytes]);
    }
    file.extend([b"data", &data.to_le_bytes()[..]].concat());
    file.extend(samples.iter().flat_map(|sample| sample.to_le_bytes()));
    file
}

#[test]
fn samples_are_heard_as_the_file_that_holds_them() {
    let (model, asked) = (Tiny::new("e2b"), [shown(Part::Audio, "what is it")]);
    let mut session = session(&model);
    let file = Medium::Audio { name: "file".into(), bytes: wav(&wave(9_000)) };
    let samples = Medium::Samples { name: "samples".into(), samples: wave(9_000) };
    let of_file = answer(&mut session, &asked, &[file]);
    let of_samples = answer(&mut session, &asked, &[samples]);
    assert_eq!((of_samples.usage.prompt, of_samples.message), (of_file.usage.prompt, of_file.message));
}

/// Three pictures, and so many samples of sound.
fn film(samples: usize, by: usize) -> Medium {
    let shot = |i: usize| {
        let mut picture = drawing::pattern(200, 8);
        picture.rgb.rotate_left(3 * (7 * i + by));
        Shot::new(20.0 * i as f64, &picture)
    };
    Medium::Video { shots: (0..3).map(shot).collect(), sound: wave(samples) }
}

/// As the reference has it, a video's sound is a sound behind it; one of more than 30 s is heard in pieces between the pictures.
#[test]
fn a_video_s_sound_is_heard_where_it_belongs() {
    for model in ["e2b", "12b"] {
        let model = Tiny::new(model);
        let mut session = session(&model);
        let together = answer(&mut session, &[shown(Part::Video, ASKED)], &[film(9_000, 0)]);
        let parts = Content::Parts(vec![Part::Video, Part::Audio, Part::Text(ASKED.into())]);
        let apart = [Message { content: parts, ..Message::text(Role::User, "") }];
        let samples = Medium::Samples { name: "samples".into(), samples: wave(9_000) };
        let apart = answer(&mut session, &apart, &[film(0, 0), samples]);
        assert_eq!(together.message, apart.message);
        // All but what every prompt computes again is known: the rows are the same.
        assert_eq!((apart.usage.prompt, apart.usage.cached), (together.usage.prompt, together.usage.prompt - 1));
        let silent = answer(&mut session, &[shown(Part::Video, ASKED)], &[film(0, 0)]);
        // The soft tokens of the sound stand between two marks.
        let samples = Medium::Samples { name: "samples".into(), samples: wave(9_000) };
        let heard = session.soft_tokens(&samples).expect("it is known") + 2;
        assert_eq!(silent.usage.prompt, together.usage.prompt - heard);
    }
    let deaf = Tiny::new("31b");
    let asked = [shown(Part::Video, ASKED)];
    let [silent, sounding] = [0, 9_000].map(|samples| answer(&mut session(&deaf), &asked, &[film(samples, 0)]));
    assert_eq!((silent.usage, silent.message), (sounding.usage, sounding.message));
}

#[test]
fn a_video_is_encoded_once_and_one_in_its_place_is_seen() {
    for model in ["e2b", "31b", "12b"] {
        let model = Tiny::new(model);
        let mut warm = session(&model);
        let asked = [shown(Part::Video, ASKED)];
        let first = answer(&mut warm, &asked, &[film(4_000, 0)]);
        let other = answer(&mut warm, &asked, &[film(4_000, 1)]);
        assert_eq!(other.message, answer(&mut session(&model), &asked, &[film(4_000, 1)]).message);
        assert!(other.usage.cached < 40, "{:?}", other.usage);
        assert_eq!(answer(&mut warm, &asked, &[film(4_000, 0)]).message, first.message);
    }
}

#[test]
fn a_video_s_sound_is_taken_in_where_the_model_hears_alone() {
    for (model, track) in [("e2b", SoundTrack::Heard), ("31b", SoundTrack::Left)] {
        let tiny = Tiny::new(model);
        let source = ModelSource::Path(tiny.0.clone());
        assert_eq!(SoundTrack::of(&ModelFiles::open(&source).unwrap()).unwrap(), track, "{model}");
        assert_eq!(session(&tiny).sound_track().unwrap(), track, "{model}");
    }
    let film = concat!(env!("CARGO_MANIFEST_DIR"), "/../../fixtures/media/videos/main.mp4");
    let mut bytes = std::fs::read(film).unwrap();
    let decoded = |bytes: &[u8], track| VideoFile { name: "film", path: None, bytes }.decode(track);
    assert!(decoded(&bytes, SoundTrack::Heard).unwrap().sound.len() > 30_000);
    // Each packet takes a minute, and no edits limit what is heard.
    while let Some(edits) = bytes.windows(4).position(|window| window == b"edts") {
        bytes[edits..edits + 4].copy_from_slice(b"free");
    }
    let times = bytes.windows(4).rposition(|window| window == b"stts").unwrap();
    bytes[times + 16..times + 20].copy_from_slice(&960_000u32.to_be_bytes());
    let error = decoded(&bytes, SoundTrack::Heard).unwrap_err();
    assert!(matches!(error, Error::VideoSound { .. }), "{error}");
    assert!(error.to_string().starts_with("film: its sound can't be heard: the sound has "), "{error}");
    assert!(decoded(&bytes, SoundTrack::Left).unwrap().sound.is_empty());
}

#[test]
fn a_place_without_its_medium_is_refused() {
    let mut session = session(&Tiny::new("e2b"));
    let options = GenerateOptions::from_defaults(session.defaults());
    let error =
        session.generate(&conversation(&[shown(Part::Image, ASKED)]), &options, &mut |_| ControlFlow::Continue(()));
    let error = error.unwrap_err().to_string();
    assert!(error.contains("place 1") && error.contains("found none"), "{error}");
}

/// The options are looked at first, and media are encoded no longer than the context lasts.
#[test]
fn what_can_t_be_answered_is_refused_before_its_media_are_encoded() {
    let mut session = session(&Tiny::new("e2b"));
    let options = GenerateOptions::from_defaults(session.defaults());
    let asked: Vec<_> = (0..60).map(|_| Part::Image).collect();
    let pictures: Vec<_> = (0..60).map(|by| picture(300, 200, by)).collect();
    let mut refused = |options: &GenerateOptions| {
        let conversation = conversation(&[Message::user(asked.clone())]);
        session.generate_with(&conversation, &pictures, options, &mut |_| ControlFlow::Continue(())).unwrap_err()
    };
    let error = refused(&GenerateOptions { stop: vec![String::new()], ..options.clone() }).to_string();
    assert!(error.contains("stop"), "{error}");
    match refused(&options) {
        Error::PromptLength { found, context: 2048 } => assert!((2048..2200).contains(&found), "{found}"),
        other => panic!("{other}"),
    }
}

#[test]
fn what_a_model_can_t_take_is_named() {
    let refused = |session: &mut Session, part: Part, medium: Medium| {
        let options = GenerateOptions::from_defaults(session.defaults());
        let conversation = conversation(&[shown(part, "what is it")]);
        session.generate_with(&conversation, &[medium], &options, &mut |_| ControlFlow::Continue(())).unwrap_err()
    };
    let samples = |n| Medium::Samples { name: "long".into(), samples: wave(n) };
    let error = refused(&mut session(&Tiny::new("31b")), Part::Audio, samples(9_000));
    assert!(matches!(error, Error::Cannot { kind: "audio", .. }), "{error}");
    let tiny = Tiny::new("e2b");
    let error = refused(&mut session(&tiny), Part::Audio, samples(480_001));
    assert!(matches!(&error, Error::LongSound { name, .. } if name == "long"), "{error}");
    let blind = LoadOptions { context: Some(2048), ..LoadOptions::default() };
    let mut blind = Session::load(&ModelSource::Path(tiny.0.clone()), &blind, &mut |_| {}).unwrap();
    let error = refused(&mut blind, Part::Image, picture(30, 20, 0));
    assert!(matches!(error, Error::NoRoom { kind: "image", option: "image_tokens" }), "{error}");
    let error = refused(&mut blind, Part::Audio, samples(9_000));
    assert!(matches!(error, Error::NoRoom { kind: "audio", option: "sounds" }), "{error}");
}
