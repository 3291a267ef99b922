//! Media that are shown to a model: their kinds, how files of each are called, and the flags that name them, in the order in
//! which they stand on the command line.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use carat_chat::message::Part;
use carat_runtime::Medium;
use carat_runtime::video::SoundTrack;
use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};

use crate::media::{self, VideoArgs};

/// A kind of medium.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A picture.
    Image,
    /// A sound.
    Audio,
    /// A video.
    Video,
}

impl Kind {
    /// All of them.
    pub const ALL: [Kind; 3] = [Kind::Image, Kind::Audio, Kind::Video];

    /// The flag and the command that show one.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Image => "image",
            Kind::Audio => "audio",
            Kind::Video => "video",
        }
    }

    fn help(self) -> &'static str {
        match self {
            Kind::Image => "A picture to look at, before PROMPT; may be repeated, `-` is standard input",
            Kind::Audio => "A sound to listen to, before PROMPT; may be repeated, `-` is standard input",
            Kind::Video => media::VIDEO_HELP,
        }
    }

    /// How files of it are called.
    pub fn extensions(self) -> &'static [&'static str] {
        match self {
            Kind::Image => &["jpg", "jpeg", "png", "webp", "avif", "gif", "bmp", "tif", "tiff"],
            Kind::Audio => &["wav", "mp3", "flac", "ogg", "oga", "opus", "m4a", "aac", "aif", "aiff", "weba", "mka"],
            Kind::Video => &["mp4", "m4v", "mov", "webm", "mkv", "avi", "mpg", "mpeg", "ts", "apng"],
        }
    }

    /// The kind of a file by its name.
    pub fn of(path: &Path) -> Option<Kind> {
        let extension = path.extension().and_then(OsStr::to_str)?;
        Kind::ALL.into_iter().find(|kind| kind.extensions().iter().any(|known| known.eq_ignore_ascii_case(extension)))
    }

    /// The medium in a file, a video with its sound if the model hears; `-` is standard input.
    pub fn read(self, path: &Path, videos: &VideoArgs, track: SoundTrack) -> anyhow::Result<Medium> {
        match self {
            Kind::Image => media::image(path),
            Kind::Audio => media::audio(path),
            Kind::Video => videos.medium(path, track),
        }
    }
}

/// The place of a medium in a message.
pub fn part(medium: &Medium) -> Part {
    match medium {
        Medium::Image { .. } => Part::Image,
        Medium::Audio { .. } | Medium::Samples { .. } => Part::Audio,
        Medium::Video { .. } => Part::Video,
    }
}

/// `--image`, `--audio` and `--video`, in order.
#[derive(Debug, Default, PartialEq)]
pub struct ShownArgs {
    /// What is shown.
    pub files: Vec<(Kind, PathBuf)>,
}

impl ShownArgs {
    /// Whether one of them is standard input.
    pub fn takes_stdin(&self) -> bool {
        self.files.iter().any(|(_, path)| path.as_os_str() == "-")
    }

    /// Whether there is one of a kind.
    pub fn has(&self, kind: Kind) -> bool {
        self.files.iter().any(|(found, _)| *found == kind)
    }
}

// By hand, as the derived code keeps the order within a flag only.
impl clap::Args for ShownArgs {
    fn augment_args(command: Command) -> Command {
        Kind::ALL.into_iter().fold(command, |command, kind| {
            let arg = Arg::new(kind.name())
                .long(kind.name())
                .value_name(if kind == Kind::Video { "PATH" } else { "FILE" })
                .help(kind.help());
            command.arg(arg.action(ArgAction::Append).value_parser(value_parser!(PathBuf)))
        })
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl clap::FromArgMatches for ShownArgs {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let mut found = Vec::new();
        for kind in Kind::ALL {
            let places = matches.indices_of(kind.name()).into_iter().flatten();
            let paths = matches.get_many::<PathBuf>(kind.name()).into_iter().flatten();
            found.extend(places.zip(paths).map(|(place, path)| (place, kind, path.clone())));
        }
        found.sort_by_key(|(place, ..)| *place);
        Ok(ShownArgs { files: found.into_iter().map(|(_, kind, path)| (kind, path)).collect() })
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use clap::{Args, FromArgMatches};

    use super::*;

    #[test]
    fn flags_keep_their_order() {
        let command = ShownArgs::augment_args(Command::new("test")).arg(Arg::new("prompt"));
        let args = ["test", "--image", "a", "--audio=b", "hello", "--image", "c", "--image", "-"];
        let found = ShownArgs::from_arg_matches(&command.get_matches_from(args)).unwrap();
        let expected = [(Kind::Image, "a"), (Kind::Audio, "b"), (Kind::Image, "c"), (Kind::Image, "-")];
        assert_eq!(found.files, expected.map(|(kind, path)| (kind, PathBuf::from(path))));
        assert!(found.takes_stdin() && found.has(Kind::Audio));
    }

    #[test]
    fn kinds_are_told_by_the_end_of_a_name() {
        for (name, kind) in [
            ("a.PNG", Some(Kind::Image)),
            ("a.avif", Some(Kind::Image)),
            ("b/c.d.mp3", Some(Kind::Audio)),
            ("a.opus", Some(Kind::Audio)),
            ("c.MOV", Some(Kind::Video)),
            ("png", None),
            ("a.txt", None),
        ] {
            assert_eq!(Kind::of(Path::new(name)), kind, "{name}");
        }
    }
}
