//! Files to samples, within limits.

use std::io::{Cursor, ErrorKind};

use symphonia::core::codecs::CodecParameters;
use symphonia::core::codecs::audio::well_known::{
    CODEC_ID_AAC, CODEC_ID_OPUS, CODEC_ID_PCM_F32BE, CODEC_ID_PCM_F32LE, CODEC_ID_PCM_F64BE, CODEC_ID_PCM_F64LE,
    CODEC_ID_PCM_S24BE, CODEC_ID_PCM_S24LE, CODEC_ID_PCM_S32BE, CODEC_ID_PCM_S32LE,
};
use symphonia::core::codecs::audio::{AudioCodecParameters, AudioDecoder, AudioDecoderOptions};
use symphonia::core::errors::Error as Failure;
use symphonia::core::formats::{FormatOptions, FormatReader, Track, TrackType};
use symphonia::core::io::MediaSourceStream;
use symphonia::core::packet::Packet;
use symphonia::default::formats::{
    AdtsReader, AiffReader, FlacReader, IsoMp4Reader, MkvReader, MpaReader, OggReader, WavReader,
};

use super::Wave;
use super::kind::{self, Container};
use super::mp4::Mp4;
use super::opus::{self, Opus};
use crate::limits::{MAX_BAD_PACKETS, MAX_SAMPLES, MAX_SECONDS, MAX_SOUND_BYTES, MAX_VIDEO_BYTES, RATES};
use crate::{Error, guard, mp4};

/// The sound in a WAV, AIFF, FLAC, MP3, OGG, M4A, Matroska or AAC file, told apart by content: the mean of its channels at the
/// file's own rate, without what an encoder added before and after. (In Matroska, and behind the sound in M4A, up to a packet of that
/// is left.) Of M4A and films it is what their edit lists choose, of OGG all streams that follow each other.
///
/// An MP3, AAC or OGG stream that was cut off is heard up to there; the others say how long they are and are held to it.
pub fn decode(bytes: &[u8]) -> Result<Wave, Error> {
    whole(bytes, MAX_SOUND_BYTES)
}

/// The sound beside a video's pictures, as [`decode()`] has it.
pub fn decode_of_video(bytes: &[u8]) -> Result<Wave, Error> {
    whole(bytes, MAX_VIDEO_BYTES)
}

fn whole(bytes: &[u8], most: usize) -> Result<Wave, Error> {
    let (container, body) = kind::of(bytes)?;
    check("bytes", bytes.len() as u64, most as u64)?;
    guard::guarded(container.name(), || {
        let mut packets = Packets::open(container, body, Longest { samples: MAX_SAMPLES, seconds: MAX_SECONDS })?;
        let mut samples = Vec::new();
        while let Some(more) = packets.next()? {
            samples.extend_from_slice(more);
        }
        Ok(Wave { rate: packets.rate()?, samples })
    })
}

/// How long a sound may be.
#[derive(Clone, Copy)]
pub(super) struct Longest {
    /// At the file's rate.
    pub samples: u64,
    pub seconds: u64,
}

impl Longest {
    fn check(self, frames: u64, rate: u32) -> Result<(), Error> {
        check("samples", frames, self.samples)?;
        check("seconds", frames / u64::from(rate.max(1)), self.seconds)
    }
}

/// A sound packet by packet.
pub(super) struct Packets<'a> {
    container: Container,
    body: &'a [u8],
    source: Source<'a>,
    track: Track,
    decoder: Decoder,
    longest: Longest,
    rate: Option<u32>,
    /// Of the last packet, all channels.
    interleaved: Vec<f32>,
    /// Of the last packet, the mean of its channels.
    mean: Vec<f32>,
    /// Samples so far.
    found: u64,
    /// Packets in a row that could not be decoded.
    refused: usize,
}

/// Where packets come from.
enum Source<'a> {
    Reader(Box<dyn FormatReader + 'a>),
    Mp4(Mp4<'a>),
}

impl<'a> Packets<'a> {
    /// Looks at what comes before the first packet.
    pub fn open(container: Container, body: &'a [u8], longest: Longest) -> Result<Self, Error> {
        let format = open(container, body).map_err(|failure| explain(failure, container))?;
        let mut track = format.default_track(TrackType::Audio).ok_or_else(|| no_track(container, body))?.clone();
        let source = match container {
            Container::Mp4 => {
                let mut mp4 = Mp4::new(body, track.id)?;
                if let Some(CodecParameters::Audio(params)) = &mut track.codec_params {
                    as_in_mp4(params, &mut mp4);
                }
                track.num_frames = track.num_frames.map(|total| mp4.heard(total));
                Source::Mp4(mp4)
            }
            _ => Source::Reader(format),
        };
        let decoder = decoder(&track, container, body, longest)?;
        let (interleaved, mean) = (Vec::new(), Vec::new());
        let (rate, found, refused) = (None, 0, 0);
        Ok(Packets { container, body, source, track, decoder, longest, rate, interleaved, mean, found, refused })
    }

    /// The samples of the next packet that has some, one channel; `None` at the end.
    pub fn next(&mut self) -> Result<Option<&[f32]>, Error> {
        while let Some(packet) = self.next_packet()? {
            if packet.track_id != self.track.id {
                continue;
            }
            match self.decoder.decode(&packet, &mut self.interleaved) {
                Ok(decoded) => {
                    self.refused = 0;
                    self.mix(&packet, decoded)?;
                    if !self.mean.is_empty() {
                        return Ok(Some(&self.mean));
                    }
                }
                // Encoders start streams in the middle; a few packets may be lost.
                Err(Failure::DecodeError(why)) => {
                    self.refused += 1;
                    if self.refused > MAX_BAD_PACKETS {
                        let why = format!("{} packets in a row can't be decoded: {why}", self.refused);
                        return Err(damaged(self.container, why));
                    }
                }
                Err(failure) => return Err(explain(failure, self.container)),
            }
        }
        self.check_whole()?;
        Ok(None)
    }

    /// Samples per second of what has come.
    pub fn rate(&self) -> Result<u32, Error> {
        self.rate.filter(|_| self.found > 0).ok_or_else(|| damaged(self.container, "it has no samples".to_owned()))
    }

    /// Samples that have come.
    pub fn found(&self) -> u64 {
        self.found
    }

    fn next_packet(&mut self) -> Result<Option<Packet>, Error> {
        let format = match &mut self.source {
            Source::Mp4(mp4) => return mp4.next(),
            Source::Reader(format) => format,
        };
        let streamed = matches!(self.container, Container::Mp3 | Container::Adts) || self.track.num_frames.is_none();
        loop {
            match format.next_packet() {
                Ok(packet) => return Ok(packet),
                Err(Failure::IoError(error)) if streamed && error.kind() == ErrorKind::UnexpectedEof => {
                    return Ok(None);
                }
                // Another stream is chained to the first, with a track of its own.
                Err(Failure::ResetRequired) => {
                    let track = format.default_track(TrackType::Audio);
                    self.track = track.ok_or_else(|| no_track(self.container, self.body))?.clone();
                    self.decoder = decoder(&self.track, self.container, self.body, self.longest)?;
                }
                Err(failure) => return Err(explain(failure, self.container)),
            }
        }
    }

    /// Takes the mean of the channels of a packet, as far as it is heard.
    fn mix(&mut self, packet: &Packet, Decoded { rate, channels, left_out }: Decoded) -> Result<(), Error> {
        if *self.rate.get_or_insert(rate) != rate {
            return Err(damaged(self.container, format!("its sample rate changes to {rate} Hz on the way")));
        }
        if !RATES.contains(&rate) {
            let why = format!("expected a rate of {} to {} Hz", RATES.start(), RATES.end());
            return Err(Error::Unsupported { what: format!("a sound of {rate} samples per second"), why });
        }
        if channels == 0 {
            return Err(damaged(self.container, "it has no channels".to_owned()));
        }
        let n = self.interleaved.len() / channels;
        let unheard = match &self.source {
            Source::Mp4(mp4) => mp4.unheard(packet, rate, left_out, n),
            Source::Reader(_) => 0,
        };
        self.longest.check(self.found + (n - unheard) as u64, rate)?;
        let mean = |frame: &[f32]| frame.iter().sum::<f32>() / channels as f32;
        self.mean.clear();
        self.mean.extend(self.interleaved.chunks_exact(channels).skip(unheard).map(mean));
        if let Some(at) = self.mean.iter().position(|sample| !sample.is_finite()) {
            let why = format!("sample {} is {}", self.found + at as u64, self.mean[at]);
            return Err(damaged(self.container, why));
        }
        self.found += self.mean.len() as u64;
        Ok(())
    }

    /// An error if less has come than was announced, or nothing.
    fn check_whole(&self) -> Result<(), Error> {
        self.rate()?;
        // Those that count frames do it exactly; the others leave it to their packets.
        let counted = matches!(self.container, Container::Wav | Container::Aiff | Container::Flac);
        match self.track.num_frames.filter(|&announced| counted && announced > self.found) {
            None => Ok(()),
            Some(announced) => {
                Err(damaged(self.container, format!("it ends after {} of {announced} samples", self.found)))
            }
        }
    }
}

/// PCM as MP4 and QuickTime have it: Symphonia takes all of more than 16 bits for little-endian, and each sample for a packet.
fn as_in_mp4(params: &mut AudioCodecParameters, mp4: &mut Mp4<'_>) {
    if mp4.big_endian {
        params.codec = match params.codec {
            CODEC_ID_PCM_S24LE => CODEC_ID_PCM_S24BE,
            CODEC_ID_PCM_S32LE => CODEC_ID_PCM_S32BE,
            CODEC_ID_PCM_F32LE => CODEC_ID_PCM_F32BE,
            CODEC_ID_PCM_F64LE => CODEC_ID_PCM_F64BE,
            other => other,
        };
    }
    // Said of PCM alone.
    if params.max_frames_per_packet == Some(1) {
        mp4.join();
    }
}

/// Symphonia's reader of a file.
fn open(container: Container, body: &[u8]) -> Result<Box<dyn FormatReader + '_>, Failure> {
    // QuickTime files need not say that they are some. Of MP4 it is only asked how the sound is coded.
    if container == Container::Mp4 && body.get(4..8) != Some(b"ftyp") {
        let moov = mp4::moov(body).map_err(|_| Failure::Unsupported("missing box `moov`"))?;
        let head = b"\0\0\0\x14ftypqt  \0\0\0\0qt  \0\0\0\x01moov";
        let file = [&head[..], &(moov.len() as u64 + 16).to_be_bytes(), moov].concat();
        let stream = MediaSourceStream::new(Box::new(Cursor::new(file)), Default::default());
        return Ok(Box::new(IsoMp4Reader::try_new(stream, FormatOptions::default())?));
    }
    let stream = MediaSourceStream::new(Box::new(Cursor::new(body)), Default::default());
    let options = FormatOptions::default();
    Ok(match container {
        Container::Wav => Box::new(WavReader::try_new(stream, options)?),
        Container::Aiff => Box::new(AiffReader::try_new(stream, options)?),
        Container::Flac => Box::new(FlacReader::try_new(stream, options)?),
        Container::Ogg => Box::new(OggReader::try_new(stream, options)?),
        Container::Mp4 => Box::new(IsoMp4Reader::try_new(stream, options)?),
        Container::Matroska => Box::new(MkvReader::try_new(stream, options)?),
        Container::Mp3 => Box::new(MpaReader::try_new(stream, options)?),
        Container::Adts => Box::new(AdtsReader::try_new(stream, options)?),
    })
}

/// What turns packets into samples.
enum Decoder {
    Opus(Opus, Ends),
    Others(Box<dyn AudioDecoder>),
}

/// Who says where what is heard of an Opus packet ends.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Ends {
    /// Ogg, by the last page's position.
    Trimmed,
    /// MP4, by the packet's duration.
    Lasting,
    /// Nobody, or in units that are too coarse.
    Unsaid,
}

/// What a packet was decoded to.
struct Decoded {
    rate: u32,
    channels: usize,
    /// Samples of each channel that were left out at its beginning.
    left_out: usize,
}

impl Decoder {
    /// Puts the samples of a packet into `interleaved`, all channels.
    fn decode(&mut self, packet: &Packet, interleaved: &mut Vec<f32>) -> Result<Decoded, Failure> {
        match self {
            Decoder::Opus(opus, ends) => {
                let end = match ends {
                    Ends::Trimmed => opus::End::Before(packet.trim_end.get()),
                    Ends::Lasting => opus::End::After(packet.dur.get()),
                    Ends::Unsaid => opus::End::Before(0),
                };
                let decoded = opus.decode(&packet.data, end, interleaved);
                let left_out = decoded.map_err(|_| Failure::DecodeError("an Opus packet contradicts itself"))?;
                Ok(Decoded { rate: opus::RATE, channels: opus.channels(), left_out })
            }
            Decoder::Others(decoder) => {
                let buffer = decoder.decode(packet)?;
                let spec = buffer.spec();
                interleaved.clear();
                buffer.copy_to_vec_interleaved(interleaved);
                Ok(Decoded { rate: spec.rate(), channels: spec.channels().count(), left_out: 0 })
            }
        }
    }
}

fn decoder(track: &Track, container: Container, body: &[u8], longest: Longest) -> Result<Decoder, Error> {
    let params = track.codec_params.as_ref().and_then(|params| params.audio());
    let params: &AudioCodecParameters = params.ok_or_else(|| no_track(container, body))?;
    if let (Some(rate), Some(frames)) = (params.sample_rate, track.num_frames) {
        longest.check(frames, rate)?;
    }
    if params.codec == CODEC_ID_OPUS {
        let in_samples = track.time_base.is_some_and(|base| base.numer.get() == 1 && base.denom.get() == opus::RATE);
        let (header, ends) = match container {
            Container::Mp4 if in_samples => (opus::Header::Mp4, Ends::Lasting),
            Container::Mp4 => (opus::Header::Mp4, Ends::Unsaid),
            Container::Ogg => (opus::Header::Ogg, Ends::Trimmed),
            _ => (opus::Header::Ogg, Ends::Unsaid),
        };
        let opus = Opus::new(params.extra_data.as_deref().unwrap_or_default(), header);
        return opus.map(|opus| Decoder::Opus(opus, ends)).map_err(|why| damaged(container, why));
    }
    let codecs = symphonia::default::get_codecs();
    let decoder = codecs.make_audio_decoder(params, &AudioDecoderOptions::default());
    decoder.map(Decoder::Others).map_err(|_| match params.codec {
        CODEC_ID_AAC => other_aac(params, container),
        _ => no_track(container, body),
    })
}

/// AAC of a kind that isn't decoded here.
fn other_aac(params: &AudioCodecParameters, container: Container) -> Error {
    let channels = params.channels.as_ref().map_or(0, |channels| channels.count());
    let kind = if channels > 2 { format!("AAC of {channels} channels") } else { "AAC other than AAC-LC".to_owned() };
    Error::Unsupported {
        what: format!("{kind} (in {})", container.name()),
        why: "expected AAC-LC of one or two channels; convert it to 16-bit WAV, for instance with ffmpeg".to_owned(),
    }
}

pub(super) fn check(unit: &'static str, found: u64, limit: u64) -> Result<(), Error> {
    Error::within("sound", (found, unit), limit, "cut it first")
}

fn damaged(container: Container, why: String) -> Error {
    Error::Damaged { format: container.name(), why }
}

/// There is a container, but nothing in it that we decode.
fn no_track(container: Container, body: &[u8]) -> Error {
    let start = &body[..body.len().min(1 << 16)];
    let has = |name: &[u8]| start.windows(name.len()).any(|window| window == name);
    let codec = match container {
        Container::Ogg if has(b"Speex   ") => "Speex",
        Container::Ogg if has(b"\x7fFLAC") => "FLAC in OGG",
        Container::Mp4 if has(b"alac") => "ALAC",
        Container::Mp4 if has(b"ac-3") => "AC-3",
        Container::Mp4 if has(b"ec-3") => "E-AC-3",
        Container::Matroska if has(b"A_AC3") => "AC-3",
        Container::Matroska if has(b"A_EAC3") => "E-AC-3",
        Container::Matroska if has(b"A_DTS") => "DTS",
        Container::Matroska if has(b"A_TRUEHD") => "TrueHD",
        Container::Matroska if has(b"A_ALAC") => "ALAC",
        Container::Wav | Container::Aiff => "a codec other than PCM",
        _ => "the codec",
    };
    Error::Unsupported {
        what: format!("{codec} (in {})", container.name()),
        why: format!("expected {}; convert it to one of these, for instance with ffmpeg", kind::EXPECTED),
    }
}

/// What a reader said, as one of our errors.
fn explain(failure: Failure, container: Container) -> Error {
    match failure {
        Failure::IoError(error) if error.kind() == ErrorKind::UnexpectedEof => {
            damaged(container, "it ends too early".to_owned())
        }
        // Said of a file that is shorter than it says.
        Failure::Unsupported(feature) if feature.contains("missing") => damaged(container, feature.to_owned()),
        Failure::Unsupported(feature) => Error::Unsupported {
            what: format!("this kind of {}", container.name()),
            why: format!("{feature}; convert it to 16-bit WAV"),
        },
        failure => damaged(container, failure.to_string()),
    }
}
