//! Files to samples, within limits.

use std::io::{Cursor, ErrorKind};

use symphonia::core::codecs::audio::{AudioCodecParameters, AudioDecoder, AudioDecoderOptions};
use symphonia::core::errors::Error as Failure;
use symphonia::core::formats::{FormatOptions, FormatReader, Track, TrackType};
use symphonia::core::io::MediaSourceStream;
use symphonia::core::packet::Packet;
use symphonia::default::formats::{AdtsReader, AiffReader, FlacReader, IsoMp4Reader, MpaReader, OggReader, WavReader};

use super::Wave;
use super::kind::{self, Container};
use crate::limits::{MAX_BAD_PACKETS, MAX_SAMPLES, MAX_SECONDS, MAX_SOUND_BYTES, RATES};
use crate::{Error, guard};

/// The sound in a WAV, AIFF, FLAC, MP3, OGG/Vorbis, M4A or AAC file, told apart by content: the mean of its channels at the
/// file's own rate, without what an encoder added before and after.
///
/// An MP3, AAC or OGG stream that was cut off is heard up to there; the others say how long they are and are held to it.
pub fn decode(bytes: &[u8]) -> Result<Wave, Error> {
    let (container, body) = kind::of(bytes)?;
    check("bytes", bytes.len() as u64, MAX_SOUND_BYTES as u64)?;
    guard::guarded(container.name(), || read(container, body))
}

fn read(container: Container, body: &[u8]) -> Result<Wave, Error> {
    let mut format = open(container, body).map_err(|failure| explain(failure, container))?;
    let track = format.default_track(TrackType::Audio).ok_or_else(|| no_track(container, body))?.clone();
    let mut decoder = decoder(&track, container, body)?;
    let mut sound = Gathered { container, rate: None, interleaved: Vec::new(), samples: Vec::new() };
    let mut refused = 0;
    while let Some(packet) = next_packet(format.as_mut(), container, &track)? {
        if packet.track_id != track.id {
            continue;
        }
        match decoder.decode(&packet) {
            Ok(buffer) => {
                refused = 0;
                let spec = buffer.spec();
                let (rate, channels) = (spec.rate(), spec.channels().count());
                sound.interleaved.clear();
                buffer.copy_to_vec_interleaved(&mut sound.interleaved);
                sound.add(rate, channels)?;
            }
            // Encoders start streams in the middle; a few packets may be lost.
            Err(Failure::DecodeError(why)) => {
                refused += 1;
                if refused > MAX_BAD_PACKETS {
                    return Err(damaged(container, format!("{refused} packets in a row can't be decoded: {why}")));
                }
            }
            Err(failure) => return Err(explain(failure, container)),
        }
    }
    sound.finish(&track)
}

fn open(container: Container, body: &[u8]) -> Result<Box<dyn FormatReader + '_>, Failure> {
    let stream = MediaSourceStream::new(Box::new(Cursor::new(body)), Default::default());
    let options = FormatOptions::default();
    Ok(match container {
        Container::Wav => Box::new(WavReader::try_new(stream, options)?),
        Container::Aiff => Box::new(AiffReader::try_new(stream, options)?),
        Container::Flac => Box::new(FlacReader::try_new(stream, options)?),
        Container::Ogg => Box::new(OggReader::try_new(stream, options)?),
        Container::Mp4 => Box::new(IsoMp4Reader::try_new(stream, options)?),
        Container::Mp3 => Box::new(MpaReader::try_new(stream, options)?),
        Container::Adts => Box::new(AdtsReader::try_new(stream, options)?),
    })
}

fn decoder(track: &Track, container: Container, body: &[u8]) -> Result<Box<dyn AudioDecoder>, Error> {
    let params = track.codec_params.as_ref().and_then(|params| params.audio());
    let params: &AudioCodecParameters = params.ok_or_else(|| no_track(container, body))?;
    if let (Some(rate), Some(frames)) = (params.sample_rate, track.num_frames) {
        check_length(frames, rate)?;
    }
    let codecs = symphonia::default::get_codecs();
    codecs.make_audio_decoder(params, &AudioDecoderOptions::default()).map_err(|_| no_track(container, body))
}

fn next_packet(format: &mut dyn FormatReader, container: Container, track: &Track) -> Result<Option<Packet>, Error> {
    let streamed = matches!(container, Container::Mp3 | Container::Adts) || track.num_frames.is_none();
    match format.next_packet() {
        Ok(packet) => Ok(packet),
        Err(Failure::IoError(error)) if streamed && error.kind() == ErrorKind::UnexpectedEof => Ok(None),
        // Another stream is chained to the first: what comes is another sound.
        Err(Failure::ResetRequired) => Ok(None),
        Err(failure) => Err(explain(failure, container)),
    }
}

/// What has been decoded so far.
struct Gathered {
    container: Container,
    rate: Option<u32>,
    /// Of the last packet, all channels.
    interleaved: Vec<f32>,
    samples: Vec<f32>,
}

impl Gathered {
    /// Takes the mean of the channels in `interleaved`.
    fn add(&mut self, rate: u32, channels: usize) -> Result<(), Error> {
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
        check_length((self.samples.len() + self.interleaved.len() / channels) as u64, rate)?;
        let mean = |frame: &[f32]| frame.iter().sum::<f32>() / channels as f32;
        self.samples.extend(self.interleaved.chunks_exact(channels).map(mean));
        Ok(())
    }

    fn finish(self, track: &Track) -> Result<Wave, Error> {
        let Gathered { container, rate, samples, .. } = self;
        let found = samples.len() as u64;
        let Some(rate) = rate.filter(|_| found > 0) else {
            return Err(damaged(container, "it has no samples".to_owned()));
        };
        // Those that count frames do it exactly; the others leave it to their packets.
        let counted = matches!(container, Container::Wav | Container::Aiff | Container::Flac);
        if let Some(announced) = track.num_frames.filter(|&announced| counted && announced > found) {
            return Err(damaged(container, format!("it ends after {found} of {announced} samples")));
        }
        match samples.iter().position(|sample| !sample.is_finite()) {
            Some(at) => Err(damaged(container, format!("sample {at} is {}", samples[at]))),
            None => Ok(Wave { rate, samples }),
        }
    }
}

fn check_length(frames: u64, rate: u32) -> Result<(), Error> {
    check("samples", frames, MAX_SAMPLES)?;
    check("seconds", frames / u64::from(rate.max(1)), MAX_SECONDS)
}

fn check(unit: &'static str, found: u64, limit: u64) -> Result<(), Error> {
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
        Container::Ogg if has(b"OpusHead") => "Opus",
        Container::Ogg if has(b"Speex   ") => "Speex",
        Container::Ogg if has(b"\x7fFLAC") => "FLAC in OGG",
        Container::Mp4 if has(b"Opus") => "Opus",
        Container::Mp4 if has(b"alac") => "ALAC",
        Container::Mp4 if has(b"ac-3") => "AC-3",
        Container::Mp4 if has(b"ec-3") => "E-AC-3",
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
        Failure::Unsupported(feature) => Error::Unsupported {
            what: format!("this kind of {}", container.name()),
            why: format!("{feature}; convert it to 16-bit WAV"),
        },
        failure => damaged(container, failure.to_string()),
    }
}
