//! What a transcript looks like: text as it comes, subtitles segment by segment, or one line of JSON at the end.

use std::io::{self, Write};

use carat_runtime::FinishReason;
use carat_runtime::transcribe::{Segment, Task, subtitles};
use serde_json::{Value, json};

use crate::output;

/// `--format`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// The text alone, as it comes.
    Text,
    /// SubRip subtitles.
    Srt,
    /// WebVTT subtitles.
    Vtt,
    /// One JSON object per file, on a line of its own.
    Json,
}

impl Format {
    /// How files of it are called.
    pub fn extension(self) -> &'static str {
        match self {
            Format::Text => "txt",
            Format::Srt => "srt",
            Format::Vtt => "vtt",
            Format::Json => "json",
        }
    }

    /// Whether many may stand in one stream.
    pub fn can_follow(self) -> bool {
        matches!(self, Format::Text | Format::Json)
    }
}

/// A recording that is written down.
pub struct Recording<'a> {
    /// What it is called.
    pub name: &'a str,
    /// Its length.
    pub seconds: f64,
    /// What is made of it.
    pub task: &'a Task,
}

/// Writes one transcript.
pub struct Transcript<'a, W> {
    out: W,
    format: Format,
    recording: Recording<'a>,
    /// What stands before it, until something is written.
    heading: Option<String>,
    segments: Vec<Segment>,
    /// Cues of subtitles so far.
    cues: usize,
    /// Whether text was written.
    begun: bool,
}

impl<'a, W: Write> Transcript<'a, W> {
    /// Nothing is written yet; `heading` comes before the first text.
    pub fn new(out: W, format: Format, recording: Recording<'a>, heading: Option<String>) -> Self {
        Transcript { out, format, recording, heading, segments: Vec::new(), cues: 0, begun: false }
    }

    /// Whether there is anything in it.
    pub fn has_begun(&self) -> bool {
        self.begun || !self.segments.is_empty()
    }

    /// Takes more text.
    pub fn text(&mut self, text: &str) -> io::Result<()> {
        if self.format != Format::Text {
            return Ok(());
        }
        self.head()?;
        self.begun = true;
        self.out.write_all(text.as_bytes())?;
        self.out.flush()
    }

    /// Takes a segment that is done.
    pub fn segment(&mut self, segment: Segment) -> io::Result<()> {
        let said = !segment.text.is_empty();
        if said && matches!(self.format, Format::Srt | Format::Vtt) {
            self.head()?;
            self.cues += 1;
            let cue = match self.format {
                Format::Srt => subtitles::srt(self.cues, &segment),
                _ => subtitles::vtt(&segment),
            };
            self.out.write_all(cue.as_bytes())?;
            self.out.flush()?;
        }
        self.segments.push(segment);
        Ok(())
    }

    /// Ends the transcript of a recording that was heard to its end, or not.
    pub fn finish(mut self, complete: bool) -> io::Result<()> {
        // A recording in which nothing was said has a transcript as well.
        self.head()?;
        match self.format {
            Format::Text if self.begun => self.out.write_all(b"\n")?,
            Format::Json => {
                let line = self.json(complete);
                output::json_line(&mut self.out, &line)?;
            }
            Format::Text | Format::Srt | Format::Vtt => {}
        }
        self.out.flush()
    }

    fn head(&mut self) -> io::Result<()> {
        let Some(heading) = self.heading.take() else { return Ok(()) };
        self.out.write_all(heading.as_bytes())
    }

    fn json(&self, complete: bool) -> Value {
        let texts: Vec<&str> = self.segments.iter().map(|s| s.text.as_str()).filter(|text| !text.is_empty()).collect();
        let segments: Vec<Value> = self.segments.iter().map(segment_json).collect();
        json!({
            "file": self.recording.name,
            "seconds": milliseconds(self.recording.seconds),
            "language": self.recording.task.language,
            "translated_to": self.recording.task.translate_to,
            "complete": complete,
            "text": texts.join(" "),
            "segments": segments,
        })
    }
}

fn segment_json(segment: &Segment) -> Value {
    let (start, end) = (milliseconds(segment.start), milliseconds(segment.end));
    let mut value = json!({"start": start, "end": end, "text": segment.text});
    if let Some(said) = &segment.said {
        value["said"] = said.as_str().into();
    }
    if let Some(notice) = segment.notice {
        value["notice"] = notice.name().into();
    }
    value
}

/// Seconds to the millisecond.
fn milliseconds(seconds: f64) -> f64 {
    (seconds * 1e3).round() / 1e3
}

/// Why the text of a segment was ended by force; `longer` is what there is to say of a full context.
pub fn reason(notice: FinishReason, longer: &str) -> String {
    match notice {
        FinishReason::Loop(_) => "the model repeated itself; the repetition is left out".into(),
        FinishReason::Context => format!("the context was full; {longer}"),
        FinishReason::Cancelled => "it was stopped before its end".into(),
        other => format!("the answer was longer than so much speech can be ({})", other.name()),
    }
}
