//! `carat transcribe`: recordings to text.

mod format;
mod language;
mod places;

use std::io::{self, Write};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use carat_media::sound::{self, Clips, Stream};
use carat_runtime::transcribe::{Event, Outcome, Segment, Task, subtitles, transcribe};
use carat_runtime::{Error, LoadOptions, Session};
use carat_tensor::Bytes;
use indicatif::ProgressBar;

use crate::args::{self, EncoderArgs, EngineArgs, Interrupted, UsageError};
use crate::batch::{self, Failures};
use crate::{interrupt, media, output};
use format::{Format, Recording, Transcript};
use places::{Out, Place};

/// Write down what is said in recordings
///
/// A recording, of up to a day, is heard in clips of up to 30 s, cut where nothing is said; where there is no pause, two clips share
/// a second and its words stand once. Times in subtitles and JSON are those of clips. The text is written as it comes; with several
/// files each stands under its name. A file that fails is named, the others go on, and the exit code is 1. Ctrl-C keeps what is done.
#[derive(clap::Args)]
#[command(override_usage = "carat transcribe [OPTIONS] [MODEL] <FILE>...")]
pub struct Args {
    /// Sounds (WAV, AIFF, FLAC, MP3, Vorbis, Opus, AAC, in their own files, Ogg, M4A, Matroska or WebM), `-` is standard input; before
    /// them, the model, if it isn't the embedded one
    #[arg(value_name = "FILE", required = true)]
    files: Vec<PathBuf>,
    /// The model, said explicitly: a directory with config.json, .gguf or .safetensors file, or a name
    #[arg(long, value_name = "MODEL")]
    model: Option<PathBuf>,
    /// The language that is spoken, by its English name or two-letter code [default: the model finds out]
    #[arg(long, value_name = "LANG", value_parser = language::name)]
    language: Option<String>,
    /// Write a translation to this language instead
    #[arg(long, value_name = "LANG", value_parser = language::name)]
    translate_to: Option<String>,
    /// What to write
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
    /// A file to write to, or a directory for one file per recording
    #[arg(long, value_name = "FILE|DIR")]
    out: Option<PathBuf>,
    /// The longest clip, 5 to 30: shorter ones make finer times and know less of what was said before
    #[arg(long, value_name = "SECONDS", default_value_t = 30, value_parser = clip)]
    clip: u32,
    #[command(flatten)]
    encoders: EncoderArgs,
    #[command(flatten)]
    engine: EngineArgs,
}

/// Runs the subcommand.
pub fn run(args: &Args) -> anyhow::Result<()> {
    let (source, files) = batch::model_and_files(args.model.as_ref(), &args.files)?;
    if files.len() > 1 && args.out.is_none() && !args.format.can_follow() {
        let extension = args.format.extension();
        bail!(UsageError(format!("--format {extension} of {} files: expected --out with a directory", files.len())));
    }
    let outputs = places::outputs(args.out.as_deref(), &files, args.format.extension())?;
    interrupt::listen();
    let options = LoadOptions { sounds: true, ..args.engine.load_options() };
    let model = args.encoders.open(&source)?;
    let places = outputs.iter().map(|out| Place::new(out.as_deref(), &model, &files));
    let places = places.collect::<anyhow::Result<Vec<_>>>()?;
    // A place that can't be written to is told before anything is heard.
    let mut first = places.first().map(Place::open).transpose()?;
    let mut session = Session::of(model, &options, &mut |_| {})?;
    let task = Task { language: args.language.clone(), translate_to: args.translate_to.clone() };
    let longer = args::longer_context(&session);
    let mut work = Work { args, task, longer, many: files.len() > 1, begun: 0, failures: Failures::default() };
    for (file, place) in files.iter().zip(places) {
        if interrupt::asked() {
            return Err(Interrupted.into());
        }
        let out = first.take().map_or_else(|| place.open(), Ok)?;
        work.one(&mut session, file, out, place)?;
    }
    work.failures.result(files.len(), "transcribed")
}

/// `--clip`.
fn clip(text: &str) -> Result<u32, String> {
    text.parse().ok().filter(|seconds| (5..=30).contains(seconds)).ok_or_else(|| "expected 5 to 30".into())
}

/// What goes on from file to file.
struct Work<'a> {
    args: &'a Args,
    task: Task,
    /// What there is to say of a context that is full.
    longer: &'static str,
    many: bool,
    /// Transcripts begun.
    begun: usize,
    failures: Failures,
}

impl Work<'_> {
    /// Writes down one file. An error is one that other files would have as well.
    fn one(&mut self, session: &mut Session, file: &Path, out: Out, place: Place) -> anyhow::Result<()> {
        let on_stdout = matches!(place, Place::Stdout);
        let (name, bytes, samples) = match open(file) {
            Ok(opened) => opened,
            Err(error) => {
                self.failures.add(&error);
                return Ok(());
            }
        };
        let seconds = samples as f64 / f64::from(sound::RATE);
        let shown = self.args.format == Format::Text && on_stdout;
        let bar = batch::progress(seconds.ceil() as u64, "s of sound", shown).with_message(name.clone());
        bar.tick();
        let recording = Recording { name: &name, seconds, task: &self.task };
        let heading = self.heading(&name, on_stdout);
        let mut transcript = Transcript::new(out, self.args.format, recording, heading);
        let mut written = Ok(());
        let longest = (self.args.clip * sound::RATE) as usize;
        let stream = Stream::new(&bytes).with_context(|| name.clone())?;
        let outcome = transcribe(session, &name, Clips::new(stream, longest), &self.task, &mut |event| {
            if written.is_ok() {
                written = take(&mut transcript, &name, self.longer, &bar, event);
            }
            if written.is_err() || interrupt::asked() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        bar.finish_and_clear();
        let has_begun = transcript.has_begun();
        if let Err(error) = written {
            drop(transcript);
            // What could be written stays; why no more could is the error to tell.
            let _ = if has_begun { place.keep() } else { Ok(()) };
            return Err(error.into());
        }
        let outcome = match outcome {
            Ok(outcome) => outcome,
            Err(error) => {
                if has_begun {
                    self.begun += 1;
                    transcript.finish(false)?;
                    place.keep()?;
                }
                if !matches!(error, Error::Medium { .. } | Error::Silent { .. }) {
                    return Err(error.into());
                }
                self.failures.add(&error.into());
                return Ok(());
            }
        };
        self.begun += 1;
        transcript.finish(outcome == Outcome::Whole)?;
        place.keep()?;
        let Outcome::Stopped(heard) = outcome else { return Ok(()) };
        output::note(&format!("[stopped: {name} is done up to {} of {}]", batch::time(heard), batch::time(seconds)));
        Err(Interrupted.into())
    }

    /// What stands before a transcript.
    fn heading(&self, name: &str, on_stdout: bool) -> Option<String> {
        match self.args.format {
            Format::Text if self.many && on_stdout => {
                Some(format!("{}==> {name} <==\n", if self.begun == 0 { "" } else { "\n" }))
            }
            Format::Vtt => Some(subtitles::VTT_HEADER.to_owned()),
            Format::Text | Format::Srt | Format::Json => None,
        }
    }
}

/// The name of a recording, its bytes, and its length in samples at 16 kHz. It is decoded once without being kept, so that a
/// damaged one is refused before anything is written.
fn open(file: &Path) -> anyhow::Result<(String, Bytes, u64)> {
    let (name, bytes) = media::recording(file)?;
    let samples = Stream::new(&bytes).and_then(Stream::length).with_context(|| name.clone())?;
    Ok((name, bytes, samples))
}

/// Writes and shows what happened.
fn take<W: Write>(
    transcript: &mut Transcript<'_, W>,
    name: &str,
    longer: &str,
    bar: &ProgressBar,
    event: Event,
) -> io::Result<()> {
    match event {
        Event::Step => Ok(()),
        Event::Heard(seconds) => {
            bar.set_position(seconds as u64);
            Ok(())
        }
        Event::Text(text) => bar.suspend(|| transcript.text(&text)),
        Event::Segment(segment) => bar.suspend(|| {
            note(name, longer, &segment);
            transcript.segment(segment)
        }),
    }
}

/// Says what a segment's text lacks.
fn note(name: &str, longer: &str, segment: &Segment) {
    let Some(notice) = segment.notice else { return };
    let (start, end) = (batch::time(segment.start), batch::time(segment.end));
    output::note(&format!("note: {name}, {start} to {end}: {}", format::reason(notice, longer)));
}
