//! Opus packets to samples: what a container says of the stream, then packet by packet.
//!
//! A stream begins with samples that are there for the decoder to settle, and are not heard, and asks for a gain. Source:
//! RFC 7845, section 5.1, and, for MP4, "Encapsulation of Opus in ISO Base Media File Format", section 4.3.2. Samples are
//! those of libopus to 1e-6, in all modes, at 48 kHz.

use rusty_opus::OpusDecoder;

/// Opus is decoded at this rate, whatever was recorded.
pub(super) const RATE: u32 = 48_000;

/// Samples of the longest packet, 120 ms, of one channel.
const LONGEST: usize = 5760;

/// A channel that nothing is heard of.
const SILENT: u8 = 255;

/// How the numbers in a header are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Header {
    /// Ogg's, and Matroska's: least byte first.
    Ogg,
    /// MP4's: greatest byte first.
    Mp4,
}

/// Where what is heard of a packet ends, in samples of each channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// So many before its own end.
    Before(u64),
    /// So many after its beginning, if it has as many.
    After(u64),
}

/// A sound that is being decoded.
pub(super) struct Opus {
    /// Of each packet there is one part for each. Those of two channels come first.
    streams: Vec<Stream>,
    /// Of each channel, which of those in the streams it is, or [`SILENT`].
    mapping: Vec<u8>,
    /// Samples of each channel that are yet to be left out.
    skip: usize,
    gain: f32,
}

struct Stream {
    decoder: OpusDecoder,
    channels: usize,
    /// Samples of one packet, all channels.
    room: Vec<f32>,
}

impl Opus {
    /// For a stream with this header; the error says what is wrong with it.
    pub fn new(head: &[u8], header: Header) -> Result<Self, String> {
        let short = || format!("its Opus header has {} bytes, at least 19 are needed", head.len());
        let (fields, table) = head.split_first_chunk::<19>().ok_or_else(short)?;
        let u16_at = |at: usize| {
            let bytes = [fields[at], fields[at + 1]];
            if header == Header::Mp4 { u16::from_be_bytes(bytes) } else { u16::from_le_bytes(bytes) }
        };
        let channels = usize::from(fields[9]);
        let (streams, coupled, mapping) = match (fields[18], table) {
            (0, _) if channels == 1 || channels == 2 => (1, channels - 1, vec![0, 1]),
            (1 | 255, [streams, coupled, mapping @ ..]) => (*streams, usize::from(*coupled), mapping.to_vec()),
            (family, _) => return Err(format!("its Opus has {channels} channels of the mapping family {family}")),
        };
        let streams = usize::from(streams);
        let decoded = streams + coupled;
        let held = |&from: &u8| from == SILENT || usize::from(from) < decoded;
        let whole = channels > 0 && streams > 0 && coupled <= streams;
        let mapping = mapping.get(..channels).filter(|mapping| whole && mapping.iter().all(held));
        let Some(mapping) = mapping else {
            return Err(format!("its Opus has {channels} channels in {streams} streams that don't hold them"));
        };
        let stream = |index: usize| {
            let channels = if index < coupled { 2 } else { 1 };
            let decoder = OpusDecoder::new(RATE as i32, channels).map_err(|error| error.to_string())?;
            Ok::<_, String>(Stream { decoder, channels, room: vec![0.0; LONGEST * channels] })
        };
        // In decibels, over 256 (RFC 7845, 5.1: it is not left to taste).
        let gain = 10f32.powf(f32::from(u16_at(16) as i16) / (20.0 * 256.0));
        let streams = (0..streams).map(stream).collect::<Result<_, _>>()?;
        Ok(Opus { streams, mapping: mapping.to_vec(), skip: usize::from(u16_at(10)), gain })
    }

    /// How many channels are heard.
    pub fn channels(&self) -> usize {
        self.mapping.len()
    }

    /// Puts the samples of a packet up to `end` into `interleaved`, all channels, but for those at the beginning of the stream
    /// that are not to be heard: how many of each channel those are.
    pub fn decode(&mut self, packet: &[u8], end: End, interleaved: &mut Vec<f32>) -> Result<usize, String> {
        interleaved.clear();
        let mut rest = packet;
        let mut frames = None;
        let last = self.streams.len() - 1;
        for (index, stream) in self.streams.iter_mut().enumerate() {
            let packet = if index == last {
                rest.to_vec()
            } else {
                let (packet, behind) = undelimited(rest).ok_or("a stream in it is cut off")?;
                rest = behind;
                packet
            };
            // Nothing at all stands for a packet that was lost, which no file has.
            if packet.is_empty() {
                return Err("it is empty".to_owned());
            }
            let found = stream.decoder.decode(&packet, LONGEST, &mut stream.room).map_err(|error| error.to_string())?;
            if *frames.get_or_insert(found) != found {
                return Err("its streams are of several lengths".to_owned());
            }
        }
        let frames = frames.unwrap_or(0).min(LONGEST);
        let start = self.skip.min(frames);
        self.skip -= start;
        let end = match end {
            End::Before(n) => frames.saturating_sub(usize::try_from(n).unwrap_or(usize::MAX)),
            End::After(n) => frames.min(usize::try_from(n).unwrap_or(usize::MAX)),
        };
        let coupled = self.streams.iter().filter(|stream| stream.channels == 2).count();
        for frame in start..end {
            interleaved.extend(self.mapping.iter().map(|&from| match usize::from(from) {
                _ if from == SILENT => 0.0,
                from if from < 2 * coupled => self.gain * self.streams[from / 2].room[2 * frame + from % 2],
                from => self.gain * self.streams[from - coupled].room[frame],
            }));
        }
        Ok(start)
    }
}

/// The first packet of several in one, as it would be alone, and those behind it: all but the last say how long they are. Source:
/// RFC 6716, section 3.2 and appendix B.
fn undelimited(data: &[u8]) -> Option<(Vec<u8>, &[u8])> {
    let length = |at: &mut usize| {
        let first = usize::from(*data.get(*at)?);
        *at += 1;
        if first < 252 {
            return Some(first);
        }
        let second = usize::from(*data.get(*at)?);
        *at += 1;
        Some(4 * second + first)
    };
    let mut at = 1;
    // What comes before the length that would not be there, and how long frames and padding are, given that length.
    let (before, len) = match data.first()? & 3 {
        0 => (at, length(&mut at)?),
        1 => (at, 2 * length(&mut at)?),
        2 => {
            let first = length(&mut at)?;
            (at, first + length(&mut at)?)
        }
        _ => {
            let kind = *data.get(1)?;
            at = 2;
            let mut padding = 0;
            // 255 stands for 254 bytes and another length.
            let mut padded = kind & 0x40 != 0;
            while padded {
                let byte = data.get(at)?;
                at += 1;
                padding += usize::from(*byte).min(254);
                padded = *byte == 255;
            }
            let n = usize::from(kind & 63);
            if kind & 0x80 == 0 {
                (at, n * length(&mut at)? + padding)
            } else {
                let mut sum = padding;
                for _ in 1..n {
                    sum += length(&mut at)?;
                }
                (at, sum + length(&mut at)?)
            }
        }
    };
    let (frames, behind) = data.get(at..)?.split_at_checked(len)?;
    Some(([&data[..before], frames].concat(), behind))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(channels: u8, skip: u16, gain: i16, rest: &[u8]) -> Vec<u8> {
        let numbers = [&skip.to_le_bytes()[..], &48_000u32.to_le_bytes(), &gain.to_le_bytes()].concat();
        [b"OpusHead\x01", &[channels][..], &numbers, rest].concat()
    }

    /// A packet of 20 ms in which nothing is coded.
    const SILENCE: [u8; 3] = [0xf8, 0xff, 0xfe];

    #[test]
    fn what_is_not_to_be_heard_is_left_out_at_both_ends() {
        let mut opus = Opus::new(&head(1, 1000, 0, &[0]), Header::Ogg).unwrap();
        let mut heard = Vec::new();
        for (end, expected) in [
            (End::Before(0), 0),
            (End::Before(0), 920),
            (End::Before(60), 900),
            (End::Before(5000), 0),
            (End::After(960), 960),
            (End::After(100), 100),
            (End::After(5000), 960),
        ] {
            opus.decode(&SILENCE, end, &mut heard).unwrap();
            assert_eq!(heard.len(), expected, "{end:?}");
        }
        assert!(opus.decode(&[], End::Before(0), &mut heard).is_err());
        assert!(opus.decode(&[0x03], End::Before(0), &mut heard).is_err());
    }

    #[test]
    fn headers_are_read_in_either_order_of_bytes() {
        let mut bytes = head(2, 0x1234, -512, &[0]);
        let opus = Opus::new(&bytes, Header::Ogg).unwrap();
        assert_eq!((opus.channels(), opus.skip), (2, 0x1234));
        assert!((opus.gain - 10f32.powf(-0.1)).abs() < 1e-6);
        bytes[10..12].reverse();
        bytes[16..18].reverse();
        let mp4 = Opus::new(&bytes, Header::Mp4).unwrap();
        assert_eq!((mp4.skip, mp4.gain), (opus.skip, opus.gain));
    }

    #[test]
    fn channels_that_nobody_can_place_are_refused() {
        for (bytes, why) in [
            (b"OpusHead".to_vec(), "8 bytes"),
            (head(0, 0, 0, &[0]), "0 channels of the mapping family 0"),
            (head(3, 0, 0, &[0]), "3 channels of the mapping family 0"),
            (head(4, 0, 0, &[2, 4, 0, 0, 1, 2, 3]), "4 channels of the mapping family 2"),
            (head(3, 0, 0, &[1, 2, 1, 0, 3, 1]), "3 channels in 2 streams that don't hold them"),
            (head(3, 0, 0, &[1, 2, 1, 0, 2]), "3 channels in 2 streams that don't hold them"),
            (head(3, 0, 0, &[1, 1, 2, 0, 2, 1]), "3 channels in 1 streams that don't hold them"),
            (head(1, 0, 0, &[1, 0, 0, 255]), "1 channels in 0 streams that don't hold them"),
            (head(3, 0, 0, &[1]), "3 channels of the mapping family 1"),
        ] {
            let error = Opus::new(&bytes, Header::Ogg).err().expect("no such stream");
            assert!(error.contains(why), "{error}");
        }
        assert_eq!(Opus::new(&head(3, 0, 0, &[1, 2, 1, 0, 2, 1]), Header::Ogg).unwrap().channels(), 3);
        assert_eq!(Opus::new(&head(2, 0, 0, &[255, 1, 0, 0, 255]), Header::Ogg).unwrap().channels(), 2);
    }

    #[test]
    fn packets_that_say_how_long_they_are_become_ordinary_ones() {
        #[track_caller]
        fn check(delimited: &[u8], expected: &[u8]) {
            let with_more = [delimited, b"more"].concat();
            let (packet, behind) = undelimited(&with_more).unwrap();
            assert_eq!((packet.as_slice(), behind), (expected, &b"more"[..]));
            for end in 0..delimited.len() {
                assert_eq!(undelimited(&delimited[..end]), None, "{end}");
            }
        }
        check(b"\x00\x03abc", b"\x00abc");
        check(b"\x01\x02abcd", b"\x01abcd");
        check(b"\x02\x01\x02abc", b"\x02\x01abc");
        // Three frames of one length with two bytes of padding, and of three lengths.
        check(b"\x03\x43\x02\x01abcpp", b"\x03\x43\x02abcpp");
        check(b"\x03\x83\x01\x00\x02abb", b"\x03\x83\x01\x00abb");
        let long = [&[0x00, 252, 1][..], &[7; 256]].concat();
        check(&long, &[&[0x00][..], &[7; 256]].concat());
    }
}
