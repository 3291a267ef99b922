//! Recordings written down by tiny models of random weights: what they say is nonsense, and how it is put together is not.

mod tiny;

use std::ops::ControlFlow;

use carat::session::GenerateOptions;
use carat::transcribe::{Event, Outcome, Segment, TOKENS_BESIDE, TOKENS_PER_SECOND, Task, transcribe};
use carat::{Error, FinishReason, LoadOptions, Medium, ModelSource, SamplingOptions, Session};
use carat_chat::message::{Content, Conversation, Message, Part};
use carat_media::sound::{Clip, Clips, MAX_CLIP, MIN_CLIP, RATE};
use tiny::Tiny;

const PROMPT: &str = "Transcribe the following speech segment in English into English text.\n\n\
    Follow these specific instructions for formatting the answer:\n\
    * Only output the transcription, with no newlines.\n\
    * When transcribing numbers, write the digits, i.e. write 1.7 and not one point seven, and write 3 instead of three.";

fn session(model: &Tiny) -> Session {
    let options = LoadOptions { context: Some(4096), sounds: true, ..LoadOptions::default() };
    Session::load(&ModelSource::Path(model.0.clone()), &options, &mut |_| {}).expect("a tiny model loads")
}

fn english() -> Task {
    Task { language: Some("English".into()), translate_to: None }
}

/// `seconds` of changing tones, silent where `pauses` say.
fn tones(seconds: f64, pauses: &[[f64; 2]]) -> Vec<f32> {
    let sample = |i: usize| {
        let t = i as f64 / f64::from(RATE);
        if pauses.iter().any(|[start, end]| (*start..*end).contains(&t)) {
            return 0.0;
        }
        let pitch = 200.0 + 40.0 * (t * 1.7).floor() % 17.0;
        (0.4 * (t * pitch * std::f64::consts::TAU).sin() + 0.1 * (t * 3.1 * pitch).sin()) as f32
    };
    (0..(seconds * f64::from(RATE)) as usize).map(sample).collect()
}

/// As they come from a file, in pieces.
fn clips(samples: &[f32], longest: usize) -> impl Iterator<Item = Result<Clip, carat_media::Error>> {
    let pieces: Vec<_> = samples.chunks(10_000).map(|piece| Ok(piece.to_vec())).collect();
    Clips::new(pieces, longest)
}

struct Heard {
    outcome: Outcome,
    /// As it came.
    text: String,
    segments: Vec<Segment>,
    steps: usize,
}

fn heard(session: &mut Session, samples: &[f32], task: &Task, longest: usize) -> Heard {
    let mut heard = Heard { outcome: Outcome::Whole, text: String::new(), segments: Vec::new(), steps: 0 };
    let outcome = transcribe(session, "tones", clips(samples, longest), task, &mut |event| {
        match event {
            Event::Text(text) => heard.text += &text,
            Event::Segment(segment) => heard.segments.push(segment),
            Event::Step => heard.steps += 1,
            Event::Heard(_) => {}
        }
        ControlFlow::Continue(())
    });
    heard.outcome = outcome.expect("it is heard");
    heard
}

/// What the model says about one clip when it is asked without any of this.
fn said(session: &mut Session, samples: &[f32]) -> (String, FinishReason) {
    let parts = vec![Part::Audio, Part::Text(PROMPT.into())];
    let conversation =
        Conversation { messages: vec![Message::user(parts)], add_generation_prompt: true, ..Conversation::default() };
    let most = TOKENS_BESIDE + TOKENS_PER_SECOND * samples.len().div_ceil(RATE as usize);
    let options = GenerateOptions {
        sampling: SamplingOptions {
            suppress: session.defaults().sampling.suppress.clone(),
            ..SamplingOptions::default()
        },
        max_tokens: Some(most),
        ..GenerateOptions::from_defaults(session.defaults())
    };
    let medium = Medium::Samples { name: "clip".into(), samples: samples.to_vec() };
    let answer = session
        .generate_with(&conversation, &[medium], &options, &mut |_| ControlFlow::Continue(()))
        .expect("an answer");
    let text = match answer.message.content {
        Content::Text(text) => text.split_whitespace().collect::<Vec<_>>().join(" "),
        _ => String::new(),
    };
    (text, answer.finish)
}

#[test]
fn clips_cut_in_pauses_say_what_they_say_alone() {
    for name in ["e2b", "12b"] {
        let model = Tiny::new(name);
        let mut session = session(&model);
        let samples = tones(14.0, &[[4.3, 4.7], [9.0, 9.4]]);
        let found = heard(&mut session, &samples, &english(), MIN_CLIP);
        assert_eq!(found.outcome, Outcome::Whole);
        let bounds: Vec<[f64; 2]> = found.segments.iter().map(|s| [s.start, s.end]).collect();
        assert_eq!((bounds[0][0], bounds[bounds.len() - 1][1]), (0.0, 14.0));
        let at = |seconds: f64| (seconds * f64::from(RATE)).round() as usize;
        let mut texts = Vec::new();
        for segment in &found.segments {
            let (text, finish) = said(&mut session, &samples[at(segment.start)..at(segment.end)]);
            match finish {
                FinishReason::Stop => assert_eq!((&segment.text, segment.notice), (&text, None)),
                // A repetition is left out, and nothing else.
                other => {
                    assert_eq!(segment.notice, Some(other));
                    assert!(text.starts_with(&segment.text), "{text} / {}", segment.text);
                }
            }
            texts.push(segment.text.as_str());
        }
        let all = texts.into_iter().filter(|text| !text.is_empty()).collect::<Vec<_>>().join(" ");
        assert_eq!(found.text.trim(), all);
    }
}

#[test]
fn clips_without_a_pause_share_a_second_and_make_one_text() {
    let model = Tiny::new("e2b");
    let mut session = session(&model);
    let samples = tones(13.0, &[]);
    let found = heard(&mut session, &samples, &english(), 6 * RATE as usize);
    assert!(found.segments.len() >= 3);
    for pair in found.segments.windows(2) {
        assert_eq!(pair[0].end, pair[1].start);
    }
    let all = found.segments.iter().map(|s| s.text.as_str()).filter(|t| !t.is_empty()).collect::<Vec<_>>().join(" ");
    assert_eq!(found.text.trim(), all);
    // No clip takes longer than its length allows, in steps of tokens and of prompts.
    let most = found.segments.len() * (TOKENS_BESIDE + TOKENS_PER_SECOND * 6 + 8);
    assert!(found.steps <= most, "{} steps", found.steps);
}

#[test]
fn silent_clips_are_not_asked_about_and_silent_recordings_are_refused() {
    let model = Tiny::new("e2b");
    let mut session = session(&model);
    let samples = tones(16.0, &[[4.5, 16.0]]);
    let found = heard(&mut session, &samples, &english(), MIN_CLIP);
    assert_eq!(found.segments.len(), 1, "models make words of silence");
    for samples in [vec![0.0; 50_000], Vec::new(), vec![0.0009; 50_000]] {
        let error = transcribe(&mut session, "quiet.wav", clips(&samples, MAX_CLIP), &english(), &mut |_| {
            panic!("nothing happens")
        });
        let error = error.unwrap_err();
        let length = samples.len() as f64 / f64::from(RATE);
        assert!(
            matches!(&error, Error::Silent { name, seconds } if name == "quiet.wav" && *seconds == length),
            "{error}"
        );
    }
}

#[test]
fn what_was_heard_before_it_is_stopped_is_kept() {
    let model = Tiny::new("e2b");
    let mut session = session(&model);
    let samples = tones(14.0, &[[4.3, 4.7], [9.0, 9.4]]);
    let whole = heard(&mut session, &samples, &english(), MIN_CLIP);
    let (mut text, mut segments) = (String::new(), Vec::new());
    let outcome = transcribe(&mut session, "tones", clips(&samples, MIN_CLIP), &english(), &mut |event| {
        match event {
            Event::Text(more) => text += &more,
            Event::Segment(segment) => segments.push(segment),
            Event::Step | Event::Heard(_) => {}
        }
        // In the middle of the second clip.
        if text.len() > whole.segments[0].text.len() + 10 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    assert_eq!(outcome.unwrap(), Outcome::Stopped(whole.segments[0].end));
    assert_eq!((segments.len(), &segments[0]), (2, &whole.segments[0]));
    assert_eq!(segments[1].notice, Some(FinishReason::Cancelled));
    assert!(whole.segments[1].text.starts_with(&segments[1].text) && segments[1].text.len() >= 10, "{segments:?}");
    assert_eq!(text, format!("{} {}", segments[0].text, segments[1].text));
}

/// A recording that turns out to be damaged when some of it was written down.
#[test]
fn what_was_heard_before_an_error_is_kept() {
    let model = Tiny::new("e2b");
    let mut session = session(&model);
    let samples = tones(14.0, &[[4.3, 4.7], [9.0, 9.4]]);
    let whole = heard(&mut session, &samples, &english(), MIN_CLIP);
    let why = || carat_media::Error::Damaged { format: "FLAC", why: "it ends here".into() };
    let damaged = clips(&samples, MIN_CLIP).take(2).chain([Err(why())]);
    let mut segments = Vec::new();
    let error = transcribe(&mut session, "a.flac", damaged, &english(), &mut |event| {
        if let Event::Segment(segment) = event {
            segments.push(segment);
        }
        ControlFlow::Continue(())
    });
    assert_eq!(error.unwrap_err().to_string(), format!("a.flac: {}", why()));
    assert_eq!(segments, whole.segments[..2]);
}

/// Its file is written to after the first clip, which is then the last to be answered.
#[test]
fn what_was_heard_before_the_model_fails_is_kept() {
    let model = Tiny::new("e2b");
    let mut session = session(&model);
    let samples = tones(13.0, &[]);
    let longest = 6 * RATE as usize;
    let whole = heard(&mut session, &samples, &english(), longest);
    let (mut text, mut segments) = (String::new(), Vec::new());
    let error = transcribe(&mut session, "tones", clips(&samples, longest), &english(), &mut |event| {
        match event {
            Event::Text(more) => text += &more,
            Event::Segment(segment) => segments.push(segment),
            Event::Heard(_) => {
                let file = std::fs::File::options().write(true).open(model.0.join("model.safetensors")).unwrap();
                file.set_modified(std::time::SystemTime::UNIX_EPOCH).unwrap();
            }
            Event::Step => {}
        }
        ControlFlow::Continue(())
    });
    let error = error.unwrap_err().to_string();
    assert!(error.contains("was changed while it was in use"), "{error}");
    assert_eq!(segments.len(), 1, "{segments:?} {text:?} {:?}", whole.segments);
    assert_eq!((segments[0].start, segments[0].end), (whole.segments[0].start, whole.segments[0].end));
    assert_eq!(segments[0].text, text.trim());
}

#[test]
fn a_model_without_ears_says_so() {
    let model = Tiny::new("31b");
    let samples = tones(2.0, &[]);
    let error = transcribe(&mut session(&model), "a.wav", clips(&samples, MAX_CLIP), &english(), &mut |_| {
        ControlFlow::Continue(())
    });
    let error = error.unwrap_err();
    assert!(matches!(error, Error::Cannot { kind: "audio", .. }), "{error}");
}

#[test]
fn a_translation_has_what_was_said_beside_it() {
    let model = Tiny::new("12b");
    let task = Task { language: None, translate_to: Some("German".into()) };
    let found = heard(&mut session(&model), &tones(3.0, &[]), &task, MAX_CLIP);
    // A model of random weights follows no instruction: its one line counts as the translation.
    assert_eq!(found.segments[0].said.as_deref(), Some(""));
    assert!(!found.text.is_empty() && found.text.trim() == found.segments[0].text);
}
