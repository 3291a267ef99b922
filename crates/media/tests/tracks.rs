//! Sounds in MP4 and QuickTime files that are made box by box.

use std::fs;
use std::path::Path;

use carat_media::limits::MAX_VIDEO_FRAMES;
use carat_media::sound::{Stream, decode};

fn boxed(kind: &str, parts: &[&[u8]]) -> Vec<u8> {
    let body = parts.concat();
    [&(body.len() as u32 + 8).to_be_bytes(), kind.as_bytes(), &body].concat()
}

fn words(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_be_bytes()).collect()
}

/// How samples are coded, and with what after that.
type Entry<'a> = (&'a str, u16, &'a [u8]);

const U8: Entry<'_> = ("raw ", 8, &[]);

/// A sound track of one channel and 16 kHz; `tables` say where the samples lie.
fn trak(id: u32, (codec, bits, more): Entry<'_>, edits: &[u8], tables: &[u8]) -> Vec<u8> {
    let tkhd = [words(&[7, 0, 0, id, 0, 0, 0, 0, 0, 0]), words(&[1 << 16, 0, 0, 0, 1 << 16, 0, 0, 0, 1 << 30, 0, 0])];
    let mdhd = boxed("mdhd", &[&words(&[0, 0, 0, 16_000, 0, 0])]);
    let hdlr = boxed("hdlr", &[&words(&[0, 0]), b"soun", &[0; 13]]);
    let channels_and_bits = words(&[1 << 16 | u32::from(bits)]);
    let fields = [&words(&[0, 1, 0, 0])[..], &channels_and_bits, &words(&[0, 16_000 << 16])].concat();
    let stsd = boxed("stsd", &[&words(&[0, 1]), &boxed(codec, &[&fields, more])]);
    let minf = boxed("minf", &[&boxed("smhd", &[&[0; 8]]), &boxed("stbl", &[&stsd, tables])]);
    boxed("trak", &[&boxed("tkhd", &[&tkhd.concat()]), edits, &boxed("mdia", &[&mdhd, &hdlr, &minf])])
}

fn moov(parts: &[&[u8]]) -> Vec<u8> {
    let mut mvhd = vec![0; 100];
    mvhd[12..16].copy_from_slice(&words(&[16_000]));
    boxed("moov", &[&boxed("mvhd", &[&mvhd]), &parts.concat()])
}

/// Tables of `n` samples of `len` bytes, so many of them from each place on.
fn tables(n: u32, len: u32, places: &[u32], per_place: u32) -> Vec<u8> {
    let tables = [
        boxed("stts", &[&words(&[0, 1, n, 1])]),
        boxed("stsc", &[&words(&[0, 1, 1, per_place, 1])]),
        boxed("stsz", &[&words(&[0, len, n])]),
        boxed("stco", &[&words(&[0, places.len() as u32]), &words(places)]),
    ];
    tables.concat()
}

const FTYP: &[u8] = b"\0\0\0\x14ftypqt  \0\0\0\0qt  ";

/// A file that begins with `first`, of samples that follow each other.
fn film(first: &[u8], entry: Entry<'_>, edits: &[u8], data: &[u8]) -> Vec<u8> {
    let len = u32::from(entry.1 / 8);
    let n = data.len() as u32 / len;
    let moov = moov(&[&trak(1, entry, edits, &tables(n, len, &[first.len() as u32 + 8], n))]);
    [first, &boxed("mdat", &[data]), &moov].concat()
}

#[test]
fn numbers_of_quicktime_begin_with_the_byte_that_it_says() {
    let samples: Vec<f32> = (0..99).map(|i| (i - 50) as f32 / 64.0).collect();
    let integers: Vec<i32> = samples.iter().map(|sample| (sample * 2f32.powi(31)) as i32).collect();
    let big = boxed("wave", &[&boxed("enda", &[&[0, 0]])]);
    let little = boxed("wave", &[&boxed("frma", &[b"in24"]), &boxed("enda", &[&[0, 1]])]);
    for (codec, bits, from_highest) in [
        ("in24", 24, integers.iter().map(|value| value.to_be_bytes()[..3].to_vec()).collect::<Vec<_>>()),
        ("in32", 32, integers.iter().map(|value| value.to_be_bytes().to_vec()).collect()),
        ("fl32", 32, samples.iter().map(|value| value.to_be_bytes().to_vec()).collect()),
        ("fl64", 64, samples.iter().map(|value| f64::from(*value).to_be_bytes().to_vec()).collect()),
    ] {
        let from_lowest: Vec<u8> = from_highest.iter().flat_map(|value| value.iter().rev().copied()).collect();
        for (more, data) in [(&[][..], from_highest.concat()), (&big, from_highest.concat()), (&little, from_lowest)] {
            let wave = decode(&film(FTYP, (codec, bits, more), &[], &data)).expect("a sound");
            assert!(wave.rate == 16_000 && wave.samples == samples, "{codec}, {more:?}: {:?}", wave.samples);
        }
    }
}

#[test]
fn quicktime_need_not_say_what_it_is() {
    let data: Vec<u8> = (0..200).collect();
    let named = decode(&film(FTYP, U8, &[], &data)).expect("a sound");
    for first in [&[][..], b"\0\0\0\x08wide", b"\0\0\0\x09free-"] {
        assert_eq!(decode(&film(first, U8, &[], &data)).expect("a sound"), named);
    }
    let error = decode(&boxed("mdat", &[&data])).unwrap_err().to_string();
    assert!(error.contains("the M4A file is damaged: missing box `moov`"), "{error}");
}

/// Of which each takes a packet of its own.
#[test]
fn samples_of_pcm_are_decoded_together_as_far_as_they_are_heard() {
    let data: Vec<u8> = (0..30_000u32).map(|i| (i % 251) as u8).collect();
    let whole = decode(&film(FTYP, U8, &[], &data)).expect("a sound").samples;
    assert_eq!(whole.len(), data.len());
    let file = film(FTYP, U8, &[], &data);
    assert!(Stream::new(&file).expect("a sound").count() < 10);
    let elst = words(&[0, 2, 7_000, 20_000, 1 << 16, 5_001, 100, 1 << 16]);
    let edits = boxed("edts", &[&boxed("elst", &[&elst])]);
    let heard = decode(&film(FTYP, U8, &edits, &data)).expect("a sound").samples;
    assert!(heard == [&whole[100..5101], &whole[20_000..27_000]].concat(), "{} samples", heard.len());
}

#[test]
fn packets_that_lie_upon_each_other_are_refused() {
    let data = [128; 1001];
    let file = [FTYP, &boxed("mdat", &[&data]), &moov(&[&trak(1, U8, &[], &tables(10, 1000, &[28, 29].repeat(5), 1))])]
        .concat();
    let error = decode(&file).unwrap_err().to_string();
    assert!(error.contains("its packets lie upon each other"), "{error}");
}

/// A file of one fragment, of which track 2 has the first three bytes and track 1 the others.
fn fragment(data: &[u8], flags: u32) -> Vec<u8> {
    let traks = [1, 2].map(|id| trak(id, U8, &[], &tables(0, 0, &[], 1)));
    let mvex =
        boxed("mvex", &[1, 2].map(|id| boxed("trex", &[&words(&[0, id, 1, 1, 1, 0])])).each_ref().map(|b| &b[..]));
    let file = [FTYP, &moov(&[&traks.concat(), &mvex])].concat();
    let traf = |track: u32, n: usize, offset: &[u32]| {
        let tfhd = boxed("tfhd", &[&words(&[flags, track])]);
        let from = if offset.is_empty() { 0 } else { 1 };
        boxed("traf", &[&tfhd, &boxed("trun", &[&words(&[from, n as u32]), &words(offset)])])
    };
    let moof = |behind: u32| {
        let second = if flags == 0 { vec![] } else { vec![behind + 3] };
        boxed("moof", &[&boxed("mfhd", &[&words(&[0, 1])]), &traf(2, 3, &[behind]), &traf(1, data.len() - 3, &second)])
    };
    let behind = moof(0).len() as u32 + 8;
    [file, moof(behind), boxed("mdat", &[data])].concat()
}

#[test]
fn fragments_begin_where_the_data_of_other_tracks_end() {
    let data: Vec<u8> = (0..200).collect();
    let expected = decode(&film(FTYP, U8, &[], &data[3..])).expect("a sound").samples;
    for flags in [0, 0x2_0000] {
        assert_eq!(decode(&fragment(&data, flags)).expect("a sound").samples, expected, "{flags:#x}");
    }
}

#[test]
fn a_fragment_has_more_packets_of_sound_than_a_video_has_frames() {
    let data = vec![128; MAX_VIDEO_FRAMES as usize + 10];
    assert_eq!(decode(&fragment(&data, 0)).expect("a sound").samples.len(), data.len() - 3);
    let mut many = fragment(&data[..10], 0);
    let trun = many.windows(4).rposition(|window| window == b"trun").expect("there is one");
    many[trun + 8..trun + 12].fill(0xff);
    let error = decode(&many).unwrap_err().to_string();
    assert!(error.contains("the M4A file is damaged"), "{error}");
    // Each says its length, which none of them can.
    many[trun + 6] = 2;
    let error = decode(&many).unwrap_err().to_string();
    assert!(error.contains("`trun` claims 4294967295 samples in 0 bytes"), "{error}");
}

#[test]
fn aac_that_others_decode_says_which_it_is() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/media/sounds");
    let file = fs::read(folder.join("aac.m4a")).expect("a fixture");
    // Tag and length before the codec's setup: five bits of its kind, four of the rate, four of the channels.
    let setup = file.windows(5).position(|window| window == b"\x05\x80\x80\x80\x05").expect("there is one") + 5;
    let with = |at: usize, mask: u8, bits: u8| {
        let mut changed = file.clone();
        changed[setup + at] = changed[setup + at] & !mask | bits;
        decode(&changed).unwrap_err().to_string()
    };
    let expected = "can't be decoded: expected AAC-LC of one or two channels; convert it to 16-bit WAV";
    for (error, kind) in
        [(with(1, 0x78, 6 << 3), "AAC of 6 channels"), (with(0, 0xf8, 1 << 3), "AAC other than AAC-LC")]
    {
        assert!(error.contains(&format!("{kind} (in M4A) {expected}")), "{error}");
    }
}
