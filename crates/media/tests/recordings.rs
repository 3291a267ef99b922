//! Long sounds, heard bit by bit: the same samples as of the whole, whose length costs no memory.

use std::fs;
use std::path::Path;

use carat_media::limits::MAX_RECORDING_SECONDS;
use carat_media::sound::{Clips, MAX_CLIP, RATE, Stream, decode};

/// What is in memory of a long sound at most: a clip that is taken, one that is held, and the decoder with a filter.
const MOST_BYTES: u64 = 3 * 4 * MAX_CLIP as u64 + (2 << 20);

#[test]
fn a_sound_bit_by_bit_is_the_whole() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/media/sounds");
    let mut heard = 0;
    for entry in fs::read_dir(folder).expect("there are fixtures") {
        let path = entry.expect("a file").path();
        let bytes = fs::read(&path).expect("it is readable");
        let pieces: Result<Vec<Vec<f32>>, _> = Stream::new(&bytes).and_then(Iterator::collect);
        let count = Stream::new(&bytes).and_then(Stream::length);
        match decode(&bytes).map(|wave| wave.at_16_khz()) {
            Ok(whole) => {
                assert_eq!(count.expect("it is whole"), whole.len() as u64, "{}", path.display());
                assert!(pieces.expect("it is whole").concat() == whole, "{}", path.display());
                heard += 1;
            }
            Err(error) => {
                let error = error.to_string();
                assert_eq!(pieces.expect_err("it isn't").to_string(), error, "{}", path.display());
                assert_eq!(count.expect_err("it isn't").to_string(), error, "{}", path.display());
            }
        }
    }
    assert!(heard >= 20, "{heard} fixtures");
}

/// Seconds of the recordings: more than is taken of a sound at once.
const LONG: usize = 40 * 60;

/// Hears a recording of [`LONG`] seconds that is loud but for the first fifth of each tenth second.
#[track_caller]
fn check(bytes: &[u8]) {
    assert!(decode(bytes).expect_err("too long for the memory").to_string().contains("2400 seconds"));
    let (mut clips, mut covered) = (0, 0);
    let used = allocation_counter::measure(|| {
        let stream = Stream::new(bytes).expect("a sound");
        for clip in Clips::new(stream, MAX_CLIP) {
            let clip = clip.expect("it is whole");
            assert_eq!(clip.start, covered, "cuts lie in pauses");
            covered = clip.end();
            clips += 1;
        }
    });
    assert_eq!(covered, LONG * RATE as usize);
    // The last pause of a clip's last third, in every 30 s.
    assert!((LONG / 30..=LONG / 20).contains(&clips), "{clips} clips");
    assert!(used.bytes_max < MOST_BYTES, "{} bytes", used.bytes_max);
    let counted = allocation_counter::measure(|| {
        let count = Stream::new(bytes).and_then(Stream::length).expect("it is whole");
        assert_eq!(count, (LONG * RATE as usize) as u64);
    });
    assert!(counted.bytes_max < 2 << 20, "{} bytes", counted.bytes_max);
}

fn is_loud(at: usize, rate: usize) -> bool {
    at % (10 * rate) >= 2 * rate
}

/// A WAV header for samples of 8 bits.
fn wav_head(rate: u32, samples: u32) -> Vec<u8> {
    let mut bytes = b"RIFF".to_vec();
    bytes.extend((36 + samples).to_le_bytes());
    bytes.extend(b"WAVEfmt \x10\0\0\0\x01\0\x01\0");
    [rate, rate].iter().for_each(|word| bytes.extend(word.to_le_bytes()));
    bytes.extend(b"\x01\0\x08\0data");
    bytes.extend(samples.to_le_bytes());
    bytes
}

#[test]
fn a_long_wav_file_takes_no_more_memory_than_a_short_one() {
    let rate = 8_000;
    let mut bytes = wav_head(rate as u32, (LONG * rate) as u32);
    let sample = |at: usize| if !is_loud(at, rate) || at % 16 < 8 { 128 } else { 228 };
    bytes.extend((0..LONG * rate).map(sample));
    check(&bytes);
}

/// Remainder of a division by a polynomial of `bits` bits, as FLAC has them: from the highest bit, from zero.
fn crc(bytes: &[u8], polynomial: u32, bits: u32) -> u32 {
    let top = 1 << (bits - 1);
    let step = |crc: u32| if crc & top != 0 { crc << 1 ^ polynomial } else { crc << 1 };
    bytes.iter().fold(0, |crc, byte| {
        let mixed = crc ^ u32::from(*byte) << (bits - 8);
        (0..8).fold(mixed, |crc, _| step(crc)) & ((1 << bits) - 1)
    })
}

/// FLAC of one channel, 16 bits, 16 kHz, in blocks of one value each (RFC 9639, sections 8.2 and 9).
fn flac(blocks: impl ExactSizeIterator<Item = i16>, block: u16) -> Vec<u8> {
    let total = blocks.len() as u64 * u64::from(block);
    let mut bytes = b"fLaC\x80\0\0\x22".to_vec();
    [block, block].iter().for_each(|size| bytes.extend(size.to_be_bytes()));
    bytes.extend([0; 6]);
    // Rate, channels less one, bits less one, samples.
    bytes.extend((u64::from(RATE) << 44 | 15 << 36 | total).to_be_bytes());
    bytes.extend([0; 16]);
    for (number, value) in blocks.enumerate() {
        let mut frame = vec![0xff, 0xf8, 0x70, 0x08];
        // The number is spelt as UTF-8 spells characters.
        let number = char::from_u32(number as u32).expect("no surrogates among the first numbers");
        frame.extend(number.encode_utf8(&mut [0; 4]).bytes());
        frame.extend((block - 1).to_be_bytes());
        frame.push(crc(&frame, 0x07, 8) as u8);
        frame.push(0);
        frame.extend(value.to_be_bytes());
        frame.extend((crc(&frame, 0x8005, 16) as u16).to_be_bytes());
        bytes.extend(frame);
    }
    bytes
}

#[test]
fn a_long_flac_file_takes_no_more_memory_than_a_short_one() {
    let block = RATE as usize / 10;
    let value = |i: usize| if !is_loud(i * block, RATE as usize) { 0 } else { 3000 - 6000 * (i as i16 % 2) };
    check(&flac((0..LONG * 10).map(value), block as u16));
}

#[test]
fn a_recording_of_more_than_a_day_is_refused_by_its_header() {
    let seconds = MAX_RECORDING_SECONDS as u32 + 1;
    let error = Stream::new(&wav_head(1_000, seconds * 1_000)).err().expect("too long").to_string();
    assert!(error.contains("the sound has 86401 seconds; at most 86400 are taken"), "{error}");
}

#[test]
fn after_an_error_nothing_comes() {
    let mut bytes = flac((0..100).map(|i| i * 50), 1600);
    bytes.truncate(bytes.len() * 2 / 3);
    let mut stream = Stream::new(&bytes).expect("its beginning is whole");
    assert_eq!(stream.by_ref().filter(Result::is_err).count(), 1);
    assert!(stream.next().is_none());
}
