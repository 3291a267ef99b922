//! Recordings of any length to text: what was said, or its translation.
//!
//! A model hears 30 s at once. A recording is cut into clips where nothing is said ([`sound::Clips`]), each is a question of
//! its own, and the answers are stitched together: where no pause was found two clips share a second, and the words of it
//! stand once. Answers are greedy, thoughts are no part of them, and no clip may take longer than its length allows.

mod prompt;
mod seam;
mod stitch;
pub mod subtitles;
mod words;

use std::ops::ControlFlow;

use carat_chat::message::{Conversation, Message, Part as MessagePart};
use carat_media::sound::{self, Clip};

use crate::session::{Event as AnswerEvent, GenerateOptions};
use crate::{Error, FinishReason, Medium, Session};
pub use prompt::Task;
use prompt::{Part, Parts};
use stitch::{Clip as Place, Ending, Piece, Stitcher};

/// The most tokens per second of sound: fast speech has five words in that, and some languages four tokens in a word.
pub const TOKENS_PER_SECOND: usize = 20;
/// The most tokens beside those: an empty thought, the end, the name of a language.
pub const TOKENS_BESIDE: usize = 32;

/// A stretch of a recording and what is said in it.
#[derive(Clone, Debug, PartialEq)]
pub struct Segment {
    /// Its beginning in seconds; with `end` the bounds of a clip, and the middle of what two clips share.
    pub start: f64,
    /// Its end in seconds.
    pub end: f64,
    /// What was said, or its translation; nothing where nothing was heard.
    pub text: String,
    /// What was said, where `text` is its translation.
    pub said: Option<String>,
    /// Why its text was ended by force, if it was.
    pub notice: Option<FinishReason>,
}

/// What happens while a recording is heard.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// A token was drawn or a part of a prompt done; nothing to show.
    Step,
    /// The sound is done up to here, in seconds.
    Heard(f64),
    /// More of the whole text, certain now, with the space before it.
    Text(String),
    /// A segment that changes no more.
    Segment(Segment),
}

/// How far a recording was heard.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Outcome {
    /// To its end.
    Whole,
    /// To here, in seconds, where whoever asked for it stopped it.
    Stopped(f64),
}

type OnEvent<'a> = &'a mut dyn FnMut(Event) -> ControlFlow<()>;

/// Writes down a recording, `name` in messages, that comes in `clips`, of which two are held. `on_event` sees it come and may stop it
/// by breaking; what was heard by then, or before an error, is passed on all the same.
///
/// # Errors
/// If the recording is silent, too short or damaged, or the model can't hear or can't answer.
pub fn transcribe(
    session: &mut Session,
    name: &str,
    clips: impl Iterator<Item = Result<Clip, carat_media::Error>>,
    task: &Task,
    on_event: OnEvent<'_>,
) -> Result<Outcome, Error> {
    let mut loud = Loud { clips, name, end: 0 };
    let Some(mut clip) = loud.next()? else {
        return Err(Error::Silent { name: name.into(), seconds: seconds(loud.end) });
    };
    let mut writer = Writer::new(task.translate_to.is_some());
    let mut before = 0;
    loop {
        let next = loud.next();
        let after = next.as_ref().ok().and_then(Option::as_ref).map_or(0, |next| clip.end().saturating_sub(next.start));
        let (shared_before, shared_after) = (seconds(before), seconds(after));
        let bounds = (seconds(clip.start + before / 2), seconds(clip.end() - after / 2));
        let place = Place { seconds: seconds(clip.samples.len()), shared_before, shared_after };
        writer.begin(place, bounds.0, bounds.1);
        let (start, end) = (clip.start, clip.end());
        let finish = match answer(session, name, clip.samples, task, &mut writer, on_event) {
            Ok(finish) => finish,
            Err(error) => {
                writer.give_up(on_event);
                return Err(error);
            }
        };
        let heard = seconds(if finish == FinishReason::Cancelled { start } else { end });
        let stopped = writer.pass_on(on_event).is_break() || on_event(Event::Heard(heard)).is_break();
        if finish == FinishReason::Cancelled || stopped {
            writer.give_up(on_event);
            return Ok(Outcome::Stopped(heard));
        }
        match next {
            Ok(Some(next)) => (clip, before) = (next, after),
            end => {
                writer.finish(on_event);
                return end.map(|_| Outcome::Whole);
            }
        }
    }
}

/// The clips of a recording in which something is heard.
struct Loud<'a, I> {
    clips: I,
    name: &'a str,
    /// Where the last of all clips so far ends.
    end: usize,
}

impl<I: Iterator<Item = Result<Clip, carat_media::Error>>> Loud<'_, I> {
    fn next(&mut self) -> Result<Option<Clip>, Error> {
        for clip in self.clips.by_ref() {
            let clip = clip.map_err(|reason| Error::Medium { name: self.name.into(), reason })?;
            self.end = clip.end();
            if !sound::is_silent(&clip.samples) {
                return Ok(Some(clip));
            }
        }
        Ok(None)
    }
}

fn seconds(samples: usize) -> f64 {
    samples as f64 / f64::from(sound::RATE)
}

/// Lets the model answer for one clip.
fn answer(
    session: &mut Session,
    name: &str,
    samples: Vec<f32>,
    task: &Task,
    writer: &mut Writer,
    on_event: OnEvent<'_>,
) -> Result<FinishReason, Error> {
    let parts = vec![MessagePart::Audio, MessagePart::Text(task.prompt())];
    let conversation =
        Conversation { messages: vec![Message::user(parts)], add_generation_prompt: true, ..Conversation::default() };
    let answers = 1 + usize::from(task.translate_to.is_some());
    let most = TOKENS_BESIDE + answers * TOKENS_PER_SECOND * samples.len().div_ceil(sound::RATE as usize);
    let options = GenerateOptions::plain(session.defaults(), most);
    let medium = Medium::Samples { name: name.into(), samples };
    let mut parts = Parts::of(task);
    let answer = session.generate_with(&conversation, &[medium], &options, &mut |event| {
        match event {
            AnswerEvent::Text(text) => parts.push(&text).into_iter().for_each(|part| writer.push(part)),
            _ => return on_event(Event::Step),
        }
        writer.pass_on(on_event)
    })?;
    parts.finish().into_iter().for_each(|part| writer.push(part));
    writer.end(answer.finish);
    Ok(answer.finish)
}

/// Gathers what was said in each clip.
struct Writer {
    said: Stitcher,
    /// Where there is to be a translation.
    translated: Option<Stitcher>,
    segments: Vec<Segment>,
    clip: Place,
    /// Text that nobody has seen.
    fresh: String,
    /// Segments that change no more,
    certain: usize,
    /// and those that were passed on.
    passed_on: usize,
}

impl Writer {
    fn new(translates: bool) -> Self {
        Writer {
            said: Stitcher::default(),
            translated: translates.then(Stitcher::default),
            segments: Vec::new(),
            clip: Place::default(),
            fresh: String::new(),
            certain: 0,
            passed_on: 0,
        }
    }

    /// Begins the clip that is the segment from `start` to `end`.
    fn begin(&mut self, clip: Place, start: f64, end: f64) {
        let said = self.translated.is_some().then(String::new);
        self.segments.push(Segment { start, end, text: String::new(), said, notice: None });
        self.clip = clip;
        self.said.begin(clip);
        if let Some(translated) = &mut self.translated {
            translated.begin(clip);
        }
    }

    fn push(&mut self, part: Part) {
        match (part, &mut self.translated) {
            (Part::Said(text), _) => {
                let pieces = self.said.push(&text);
                self.say(pieces);
            }
            (Part::Translated(text), Some(translated)) => {
                let pieces = translated.push(&text);
                self.translate(pieces);
            }
            (Part::Translated(_), None) => {}
        }
    }

    /// Ends the clip.
    fn end(&mut self, finish: FinishReason) {
        let ending = match finish {
            FinishReason::Stop | FinishReason::ToolCalls | FinishReason::Cancelled => Ending::Whole,
            FinishReason::Length | FinishReason::Context | FinishReason::Loop(_) => Ending::Forced,
        };
        let pieces = self.said.end(ending);
        self.say(pieces);
        if let Some(pieces) = self.translated.as_mut().map(|translated| translated.end(ending)) {
            self.translate(pieces);
        }
        let is_broken_off = ending == Ending::Forced || finish == FinishReason::Cancelled;
        if let Some(segment) = self.segments.last_mut().filter(|_| is_broken_off) {
            segment.notice = Some(finish);
        }
        self.certain = self.segments.len() - usize::from(self.clip.shared_after > 0.0);
    }

    /// Ends the recording before its end: of the last clip there is what was said by then, if anything.
    fn give_up(&mut self, on_event: OnEvent<'_>) {
        let is_empty =
            |segment: &mut Segment| segment.text.is_empty() && segment.said.as_ref().is_none_or(String::is_empty);
        self.finish_text();
        self.segments.pop_if(is_empty);
        self.pass_on_all(on_event);
    }

    /// Ends the recording.
    fn finish(&mut self, on_event: OnEvent<'_>) {
        self.finish_text();
        self.pass_on_all(on_event);
    }

    fn finish_text(&mut self) {
        let pieces = self.said.finish();
        self.say(pieces);
        if let Some(pieces) = self.translated.as_mut().map(Stitcher::finish) {
            self.translate(pieces);
        }
    }

    fn pass_on_all(&mut self, on_event: OnEvent<'_>) {
        self.certain = self.segments.len();
        // Nothing is left to be stopped by a break.
        while self.pass_on(on_event).is_break() {}
    }

    fn say(&mut self, pieces: Vec<Piece>) {
        for piece in pieces {
            let segment = &mut self.segments[piece.clip];
            match &mut segment.said {
                Some(said) => said.push_str(&piece.text),
                None => {
                    segment.text.push_str(&piece.text);
                    self.fresh.push_str(&piece.text);
                }
            }
        }
    }

    fn translate(&mut self, pieces: Vec<Piece>) {
        for piece in pieces {
            self.segments[piece.clip].text.push_str(&piece.text);
            self.fresh.push_str(&piece.text);
        }
    }

    /// Shows what is certain and was not shown; each thing once, even where that is answered by breaking.
    fn pass_on(&mut self, on_event: OnEvent<'_>) -> ControlFlow<()> {
        if !self.fresh.is_empty() {
            on_event(Event::Text(std::mem::take(&mut self.fresh)))?;
        }
        while self.passed_on < self.certain {
            let mut segment = self.segments[self.passed_on].clone();
            self.passed_on += 1;
            segment.text = segment.text.trim().to_owned();
            segment.said = segment.said.map(|said| said.trim().to_owned());
            on_event(Event::Segment(segment))?;
        }
        ControlFlow::Continue(())
    }
}
