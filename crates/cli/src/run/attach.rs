//! What a chat shows: media that wait for the next message, those that were shown, and paths that were dropped into the
//! terminal.
//!
//! Terminals write the path of a file that is dropped on them, in quotes, with backslashes before spaces, or as a `file://` URL.
//! A word that is the whole absolute path of a picture, a sound or a video that is there is taken as one; all others are text.

use std::fs::File;
use std::io::Read;
use std::ops::Range;
use std::path::{Path, PathBuf};

use carat_chat::message::{Content, Conversation, Part};
use carat_media::{picture, sound};
use carat_runtime::video::SoundTrack;
use carat_runtime::{Medium, Session};
use serde_json::Value;

use crate::media::VideoArgs;
use crate::pending::go_on;
use crate::shown::Kind;

/// The packets that a transport stream is made of begin with this byte, and have so many.
const SYNC: u8 = 0x47;
const PACKET: usize = 188;

/// Media of a chat.
#[derive(Default)]
pub struct Attached {
    /// Those of the conversation, in order, and behind them those of the next message.
    media: Vec<Medium>,
    /// Where each came from.
    paths: Vec<PathBuf>,
    /// How many belong to the conversation.
    shown: usize,
}

impl Attached {
    /// Attaches a file to the next message and lets the model look at it; what to say about it.
    ///
    /// # Errors
    /// If the model can't take it, or Ctrl-C came; then nothing is attached.
    pub fn attach(
        &mut self,
        session: &mut Session,
        kind: Kind,
        path: &Path,
        videos: &VideoArgs,
    ) -> anyhow::Result<String> {
        let listens = kind == Kind::Video && !videos.mute;
        let track = if listens { session.sound_track()? } else { SoundTrack::Left };
        let medium = kind.read(path, videos, track).map_err(super::without_sound)?;
        go_on()?;
        let size = size(&medium)?;
        let tokens = session.soft_tokens(&medium)?;
        go_on()?;
        self.media.push(medium);
        self.paths.push(path.to_owned());
        let what = match kind {
            Kind::Image => "picture",
            Kind::Audio => "sound",
            Kind::Video => "video",
        };
        Ok(format!("({what}: {}, {size}, {tokens} soft tokens; it goes with the next message)", path.display()))
    }

    /// How many wait for the next message.
    pub fn waiting(&self) -> usize {
        self.media.len() - self.shown
    }

    /// Forgets all that wait for the next message but the first `n`.
    pub fn leave_waiting(&mut self, n: usize) {
        self.media.truncate(self.shown + n);
        self.paths.truncate(self.shown + n);
    }

    /// Gives what waits to the message that is said now; those media.
    pub fn say(&mut self) -> &[Medium] {
        let before = std::mem::replace(&mut self.shown, self.media.len());
        &self.media[before..]
    }

    /// All media of the conversation.
    pub fn media(&self) -> &[Medium] {
        &self.media[..self.shown]
    }

    /// Forgets all but the media that `conversation` shows.
    pub fn keep(&mut self, conversation: &Conversation) {
        self.shown = conversation.messages.iter().map(|message| media_in(&message.content)).sum();
        self.media.truncate(self.shown);
        self.paths.truncate(self.shown);
    }

    /// Puts the paths of media where messages in the OpenAI shape show them.
    pub fn note_paths(&self, messages: &mut [Value]) {
        let parts = messages.iter_mut().filter_map(|message| message["content"].as_array_mut()).flatten();
        let places = parts.filter(|part| part["type"] != "text");
        for (place, path) in places.zip(&self.paths) {
            place["path"] = path.display().to_string().into();
        }
    }
}

fn media_in(content: &Content) -> usize {
    match content {
        Content::Parts(parts) => parts.iter().filter(|part| !matches!(part, Part::Text(_))).count(),
        Content::Empty | Content::Text(_) | Content::Object(_) => 0,
    }
}

/// How large a medium is, for people.
fn size(medium: &Medium) -> anyhow::Result<String> {
    let seconds = |n: usize, rate: u32| format!("{:.1} s", n as f64 / f64::from(rate));
    let name = |name: &str| name.to_owned();
    Ok(match medium {
        Medium::Image { name: file, bytes } => {
            let picture = picture::decode(bytes).map_err(|error| anyhow::Error::from(error).context(name(file)))?;
            format!("{}x{} pixels", picture.width, picture.height)
        }
        Medium::Audio { name: file, bytes } => {
            let wave = sound::decode(bytes).map_err(|error| anyhow::Error::from(error).context(name(file)))?;
            seconds(wave.samples.len(), wave.rate)
        }
        Medium::Samples { samples, .. } => seconds(samples.len(), sound::RATE),
        Medium::Video { shots, sound } if sound.is_empty() => format!("{} frames", shots.len()),
        Medium::Video { shots, sound } => {
            format!("{} frames, {} of sound", shots.len(), seconds(sound.len(), sound::RATE))
        }
    })
}

/// The media whose paths were dropped into `text`, and the text without them.
pub fn dropped(text: &str) -> (Vec<(Kind, PathBuf)>, String) {
    let (mut found, mut rest, mut at) = (Vec::new(), String::new(), 0);
    for word in words(text) {
        if let Some(medium) = medium_at(&text[word.clone()]) {
            found.push(medium);
            rest.push_str(&text[at..word.start]);
            // The space behind it goes with it.
            at = word.end + text[word.end..].chars().next().filter(|c| *c == ' ').map_or(0, char::len_utf8);
        }
    }
    rest.push_str(&text[at..]);
    let rest = if found.is_empty() { rest } else { rest.trim().to_owned() };
    (found, rest)
}

fn medium_at(word: &str) -> Option<(Kind, PathBuf)> {
    let path = path_of(word)?;
    let kind = Kind::of(&path)?;
    (path.is_absolute() && path.is_file() && !is_typescript(&path)).then_some((kind, path))
}

/// Whether a file is called as transport streams are, and is none: programs are called so, too.
fn is_typescript(path: &Path) -> bool {
    path.extension().is_some_and(|end| end.eq_ignore_ascii_case("ts")) && !is_transport_stream(path)
}

fn is_transport_stream(path: &Path) -> bool {
    let mut start = [0; PACKET + 1];
    let read = File::open(path).and_then(|mut file| file.read_exact(&mut start));
    read.is_ok() && start[0] == SYNC && start[PACKET] == SYNC
}

/// Words of a line as a shell has them: quotes and backslashes keep spaces.
fn words(text: &str) -> Vec<Range<usize>> {
    let (mut words, mut start, mut quote, mut escaped) = (Vec::new(), None, None, false);
    for (at, c) in text.char_indices() {
        if c.is_whitespace() && quote.is_none() && !escaped {
            words.extend(start.take().map(|start| start..at));
            continue;
        }
        // An apostrophe within a word is no quote.
        let begins = start.is_none();
        start.get_or_insert(at);
        match (quote, c) {
            _ if escaped => escaped = false,
            (None, '\\') => escaped = true,
            (None, '\'' | '"') if begins => quote = Some(c),
            (Some(open), c) if c == open => quote = None,
            _ => {}
        }
    }
    words.extend(start.map(|start| start..text.len()));
    words
}

/// The path that a word stands for: quotes, backslashes and `file://` as terminals write them are taken off.
pub fn path_of(word: &str) -> Option<PathBuf> {
    let quoted = |quote: char| word.strip_prefix(quote).and_then(|word| word.strip_suffix(quote));
    let plain = match quoted('\'').or_else(|| quoted('"')) {
        Some(inner) => inner.to_owned(),
        None => unescaped(word),
    };
    match plain.strip_prefix("file://") {
        // A host may stand before the path; only this machine's files are meant.
        Some(url) => Some(PathBuf::from(percent_decoded(url.strip_prefix("localhost").unwrap_or(url))?)),
        None => Some(PathBuf::from(plain)),
    }
}

#[cfg(not(windows))]
fn unescaped(word: &str) -> String {
    let (mut out, mut chars) = (String::new(), word.chars());
    while let Some(c) = chars.next() {
        out.extend(if c == '\\' { chars.next() } else { Some(c) });
    }
    out
}

/// Backslashes part folders there.
#[cfg(windows)]
fn unescaped(word: &str) -> String {
    word.to_owned()
}

/// `%20` and its like as what they stand for; `None` if that is no text.
fn percent_decoded(text: &str) -> Option<String> {
    let (mut bytes, mut rest) = (Vec::new(), text.as_bytes());
    while let [first, tail @ ..] = rest {
        let code = tail.get(..2).filter(|_| *first == b'%').and_then(|hex| std::str::from_utf8(hex).ok());
        match code.map(|hex| u8::from_str_radix(hex, 16)) {
            Some(Ok(byte)) => {
                bytes.push(byte);
                rest = &tail[2..];
            }
            _ => {
                bytes.push(*first);
                rest = tail;
            }
        }
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dropped_paths_are_taken_out_of_the_text() {
        let dir = std::env::temp_dir().join(format!("carat-dropped-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let (picture, spaced) = (dir.join("a.png"), dir.join("my song é.mp3"));
        for file in [&picture, &spaced, &dir.join("notes.txt")] {
            std::fs::write(file, "").unwrap();
        }
        let film = dir.join("film.TS");
        std::fs::write(&film, [0x47; 2 * PACKET]).unwrap();
        std::fs::write(dir.join("code.ts"), "Got it.\n".repeat(PACKET)).unwrap();
        let d = dir.to_str().unwrap();
        let (image, audio, video) = ((Kind::Image, picture), (Kind::Audio, spaced), (Kind::Video, film));
        let check = |text: &str, found: &[&(Kind, PathBuf)], rest: &str| {
            let (media, text_left) = dropped(text);
            assert_eq!((media.iter().collect::<Vec<_>>(), text_left.as_str()), (found.to_vec(), rest), "{text}");
        };
        check(&format!("{d}/a.png"), &[&image], "");
        check(&format!("{d}/a.png what is this?"), &[&image], "what is this?");
        check(&format!("What's here: '{d}/my song é.mp3' and {d}/a.png ?"), &[&audio, &image], "What's here: and ?");
        check(&format!("\"{d}/my song é.mp3\" "), &[&audio], "");
        check(&format!("{d}/my\\ song\\ é.mp3  it's"), &[&audio], "it's");
        check(&format!("file://{d}/my%20song%20%C3%A9.mp3"), &[&audio], "");
        check(&format!("file://localhost{d}/a.png\n"), &[&image], "");
        check(&format!("{d}/film.TS"), &[&video], "");
        for text in [
            format!("{d}/notes.txt stays"),
            format!("{d}/code.ts stays"),
            format!("{d}/missing.png stays"),
            format!("see{d}/a.png"),
            format!("{d}/a.png, stays"),
            "a.png stays".into(),
            "it's 5 o'clock  \"so".into(),
            "  spaces   stay ".into(),
        ] {
            check(&text, &[], &text);
        }
        std::fs::remove_dir_all(&dir).unwrap();
    }

    #[test]
    fn percent_signs_that_stand_for_nothing_stay() {
        assert_eq!(percent_decoded("100%/%zz%2").as_deref(), Some("100%/%zz%2"));
        assert_eq!(percent_decoded("%ff"), None);
    }
}
