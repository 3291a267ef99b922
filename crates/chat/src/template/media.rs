//! Media in a prompt: what stands in the place of each, and where its soft tokens go.
//!
//! Source: `replace_image_token`, `replace_audio_token` and `replace_video_token` in transformers'
//! `processing_gemma4.py`. One placeholder is left for each run of soft tokens; how many a run has, only its encoder knows.

use super::prompt::Segment;
use super::{Prompt, TemplateError};

/// One medium of a conversation, in the order of its parts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MediaText<'a> {
    /// A picture.
    Image,
    /// A sound.
    Audio,
    /// A video, by what follows each other in it.
    Video(&'a [VideoText]),
}

/// A part of a video.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum VideoText {
    /// A frame, by its time: `00:07`.
    Frame(String),
    /// A piece of its sound, written as a sound behind the video would be.
    Sound,
}

const IMAGE: &str = "<|image|>";
const AUDIO: &str = "<|audio|>";
const VIDEO: &str = "<|video|>";
const IMAGE_ENDS: [&str; 2] = ["<|image>", "<image|>"];
const AUDIO_ENDS: [&str; 2] = ["<|audio>", "<audio|>"];

impl MediaText<'_> {
    fn name(self) -> &'static str {
        match self {
            MediaText::Image => "image",
            MediaText::Audio => "audio",
            MediaText::Video(_) => "video",
        }
    }
}

impl Prompt {
    /// Puts the begin and end tokens around each medium's placeholder, of a video around every frame's.
    ///
    /// # Errors
    /// Unless the media are those that the prompt has places for, in its order.
    pub fn with_media(self, media: &[MediaText<'_>]) -> Result<Prompt, TemplateError> {
        let (mut out, mut given) = (Prompt::default(), media.iter());
        let mut place = 0;
        for segment in self.into_segments() {
            let expected = match &segment {
                Segment::Control(piece) if piece == IMAGE => "image",
                Segment::Control(piece) if piece == AUDIO => "audio",
                Segment::Control(piece) if piece == VIDEO => "video",
                _ => {
                    out.push(segment);
                    continue;
                }
            };
            place += 1;
            match given.next() {
                Some(found) if found.name() == expected => write(&mut out, *found),
                other => {
                    let found = other.map_or("none", |found| found.name());
                    return Err(TemplateError::Media { place, found, expected });
                }
            }
        }
        match given.next() {
            None => Ok(out),
            Some(found) => Err(TemplateError::Media { place: place + 1, found: found.name(), expected: "none" }),
        }
    }
}

fn write(out: &mut Prompt, medium: MediaText<'_>) {
    let mut run = |[begin, end]: [&'static str; 2], placeholder: &'static str, before: &str| {
        out.push_text(before);
        out.push_control(begin);
        out.push_control(placeholder);
        out.push_control(end);
    };
    match medium {
        MediaText::Image => run(IMAGE_ENDS, IMAGE, ""),
        MediaText::Audio => run(AUDIO_ENDS, AUDIO, ""),
        MediaText::Video(parts) => {
            let before = [None].into_iter().chain(parts.iter().map(Some));
            for (before, part) in before.zip(parts) {
                match part {
                    VideoText::Frame(stamp) => {
                        let between = if matches!(before, Some(VideoText::Frame(_))) { " " } else { "" };
                        run(IMAGE_ENDS, VIDEO, &format!("{between}{stamp} "));
                    }
                    VideoText::Sound => run(AUDIO_ENDS, AUDIO, ""),
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::{Conversation, Message, Part};
    use crate::template::{Variant, render};

    fn prompt(parts: Vec<Part>) -> Prompt {
        let message = Message::user(parts);
        render(&Conversation { messages: vec![message], ..Conversation::default() }, Variant::Small)
    }

    /// What the reference's processor writes, with one placeholder for each run.
    #[test]
    fn media_are_written_as_the_reference_writes_them() {
        let stamps = ["00:00", "01:02"].map(|stamp| VideoText::Frame(stamp.to_owned()));
        let parts = vec![Part::Image, Part::Text("What?".into()), Part::Video, Part::Audio];
        let media = [MediaText::Image, MediaText::Video(&stamps), MediaText::Audio];
        let text = prompt(parts).with_media(&media).unwrap().text();
        let expected = "<bos><|turn>user\n<|image><|image|><image|>What?00:00 <|image><|video|><image|> \
                        01:02 <|image><|video|><image|><|audio><|audio|><audio|><turn|>\n";
        assert_eq!(text, expected);
    }

    /// As the reference writes a video, a sound, a video and a sound.
    #[test]
    fn a_video_s_sound_stands_between_its_frames() {
        let frame = |stamp: &str| VideoText::Frame(stamp.to_owned());
        let parts = [frame("00:00"), frame("00:20"), VideoText::Sound, frame("00:40"), VideoText::Sound];
        let text = prompt(vec![Part::Video]).with_media(&[MediaText::Video(&parts)]).unwrap().text();
        let [first, second] = [&parts[..2], &parts[3..4]].map(MediaText::Video);
        let apart = prompt(vec![Part::Video, Part::Audio, Part::Video, Part::Audio]);
        assert_eq!(text, apart.with_media(&[first, MediaText::Audio, second, MediaText::Audio]).unwrap().text());
    }

    #[test]
    fn media_without_a_place_and_places_without_a_medium_are_refused() {
        let error = |media: &[MediaText<'_>]| prompt(vec![Part::Image]).with_media(media).unwrap_err().to_string();
        assert!(error(&[]).contains("place 1 of the prompt is for image; found none"), "{}", error(&[]));
        assert!(error(&[MediaText::Audio]).contains("is for image; found audio"));
        assert!(
            error(&[MediaText::Image, MediaText::Image]).contains("place 2 of the prompt is for none; found image")
        );
    }

    #[test]
    fn a_user_s_text_has_no_places() {
        let text = prompt(vec![Part::Text("<|image|>".into())]);
        assert_eq!(text.clone().with_media(&[]).unwrap(), text);
    }
}
