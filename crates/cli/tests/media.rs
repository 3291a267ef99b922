//! Pictures and sounds shown to a model from the command line, against what the reference computed
//! (`fixtures/make_media_models.py`).
#![allow(clippy::unwrap_used, reason = "a panic is a failed test")]

mod files;
mod program;

use std::path::PathBuf;

use files::{assert_close, bmp, floats, rolled_bmp, tensors, wav};
use program::{Scratch, carat, done};

/// Placeholders of pictures, sounds and frames.
const PLACES: [u32; 3] = [7, 10, 11];

fn model(name: &str) -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../fixtures/multimodal")).join(name)
}

/// The integers of a tensor of a fixture's expectations.
fn integers(name: &str, tensor: &str) -> Vec<u32> {
    integers_of(name, "expected.safetensors", tensor)
}

fn integers_of(name: &str, file: &str, tensor: &str) -> Vec<u32> {
    let data = tensors(&model(name).join(file)).get(tensor).unwrap().data.clone();
    data.as_chunks::<4>().0.iter().map(|b| u32::from_le_bytes(*b)).collect()
}

fn joined(ids: &[u32]) -> String {
    ids.iter().map(u32::to_string).collect::<Vec<_>>().join(",")
}

/// The error of a command that must fail as a wrong command line.
#[track_caller]
fn refused(args: &[&str], words: &[&str]) {
    let output = carat(args).output().unwrap();
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(2), "{error}");
    assert!(words.iter().all(|word| error.contains(word)), "{error}");
}

/// Up to the first frame of a video, which is seen only after the pictures.
#[test]
fn logits_after_pictures_are_the_reference_s() {
    for name in ["e2b", "31b", "12b"] {
        let (ids, out) = (integers(name, "ids"), Scratch::new(&format!("media-{name}.safetensors")));
        let end = ids.iter().position(|id| *id == PLACES[2]).unwrap();
        let pictures: Vec<Scratch> = integers(name, "media")
            .as_chunks::<4>()
            .0
            .iter()
            .filter(|[kind, ..]| *kind == 1)
            .map(|&[_, width, height, _]| {
                let file = Scratch::new(&format!("media-{name}-{width}.bmp"));
                std::fs::write(&file.0, bmp(width as usize, height as usize)).unwrap();
                file
            })
            .collect();
        let (dir, tokens) = (model(name), joined(&ids[..end]));
        let fixed = ["logits", dir.to_str().unwrap(), "--tokens", &tokens, "--out", out.arg(), "--precision", "f32"];
        let shown: Vec<&str> = pictures.iter().flat_map(|file| ["--image", file.arg()]).collect();
        let small = ["--image-tokens", "70", "--chunk", "50"];
        done(carat(&[&fixed[..], &small, &shown].concat()).output().unwrap());
        let expected = tensors(&dir.join("expected.safetensors")).get("logits").unwrap().clone();
        let found = tensors(&out.0).get("logits").unwrap().clone();
        let (all, vocab) = (floats(&found.data), found.shape[1]);
        let rows: Vec<usize> = integers(name, "positions").iter().map(|p| *p as usize).filter(|p| *p < end).collect();
        let found: Vec<f32> = rows.iter().flat_map(|row| all[row * vocab..(row + 1) * vocab].to_vec()).collect();
        assert_close(&found, &floats(&expected.data)[..rows.len() * vocab], name);
        // The last picture is left out.
        refused(&[&fixed[..], &small, &shown[..shown.len() - 2]].concat(), &["run 3", "expected another --image"]);
    }
}

/// A folder of the pictures of the video in `fixtures/make_video_models.py`, numbered without zeros.
fn film(name: &str) -> Scratch {
    let dir = Scratch::new(name);
    std::fs::create_dir(&dir.0).unwrap();
    for i in 0..45 {
        std::fs::write(dir.0.join(format!("frame{i}.bmp")), rolled_bmp(200, 8, 3 * i)).unwrap();
    }
    dir
}

/// Stamps are text among the ids; which of the 45 pictures are seen, and how, is what is compared.
#[test]
fn logits_after_a_video_are_the_reference_s() {
    let film = film("media-film");
    let list = film.0.join("list.json");
    let entries: Vec<String> = (0..45).map(|i| format!(r#"{{"file": "frame{i}.bmp", "seconds": {i}}}"#)).collect();
    std::fs::write(&list, format!("[{}]", entries.join(", "))).unwrap();
    for (name, video) in [("e2b", film.arg()), ("31b", list.to_str().unwrap()), ("12b", film.arg())] {
        let out = Scratch::new(&format!("media-film-{name}.safetensors"));
        let (dir, ids) = (model(name), joined(&integers_of(name, "video.safetensors", "ids")));
        let args = ["logits", dir.to_str().unwrap(), "--tokens", &ids, "--out", out.arg(), "--precision", "f32"];
        done(carat(&[&args[..], &["--video", video]].concat()).output().unwrap());
        let expected = tensors(&dir.join("video.safetensors")).get("logits").unwrap().clone();
        let found = tensors(&out.0).get("logits").unwrap().clone();
        let (all, vocab) = (floats(&found.data), found.shape[1]);
        let rows = integers_of(name, "video.safetensors", "positions");
        let rows = rows.iter().flat_map(|&row| all[row as usize * vocab..][..vocab].to_vec());
        assert_close(&rows.collect::<Vec<f32>>(), &floats(&expected.data), name);
    }
    std::fs::remove_dir_all(&film.0).unwrap();
}

#[test]
fn sounds_are_heard_and_counted() {
    let file = Scratch::new("media-heard.wav");
    std::fs::write(&file.0, wav(&(0..3277).map(|i| (i as f32 / 7.0).sin() / 2.0).collect::<Vec<_>>())).unwrap();
    // A tower makes 5 soft tokens of it, frames of 40 ms are 6.
    for (name, n) in [("e2b", 5), ("12b", 6)] {
        let out = Scratch::new(&format!("media-heard-{name}.safetensors"));
        let dir = model(name);
        let run = |places: usize, sound: bool| {
            let ids = joined(&[&[2, 14][..], &vec![PLACES[1]; places], &[15, 30]].concat());
            let fixed = ["logits", dir.to_str().unwrap(), "--tokens", &ids, "--out", out.arg()];
            let heard = ["--audio", file.arg()];
            carat(&[&fixed[..], if sound { &heard } else { &[] }].concat()).output().unwrap()
        };
        done(run(n, true));
        let heard = floats(&tensors(&out.0).get("logits").unwrap().data);
        done(run(n, false));
        let not_heard = floats(&tensors(&out.0).get("logits").unwrap().data);
        assert!(heard.iter().all(|v| v.is_finite()) && heard != not_heard, "{name}");
        let error = run(n + 1, true).stderr;
        assert!(String::from_utf8_lossy(&error).contains("expected another --audio"), "{name}");
    }
}

/// The embedded model's text part alone, as `convert` writes it, can't take what `flag` shows it.
#[track_caller]
fn blind_to(flag: &str, shown: &str, kind: &str) {
    let nano = concat!(env!("CARGO_MANIFEST_DIR"), "/../../nano/checkpoint");
    let blind = Scratch::new(&format!("media-blind-{kind}.gguf"));
    done(carat(&["convert", nano, blind.arg()]).output().unwrap());
    let output = carat(&["run", blind.arg(), flag, shown, "What is this?"]).output().unwrap();
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{error}");
    assert!(error.contains(&format!("can't take {kind}")) && error.contains("no picture encoder"), "{error}");
}

#[test]
fn who_can_t_see_or_hear_says_so() {
    let file = Scratch::new("media-unseen.bmp");
    std::fs::write(&file.0, bmp(60, 60)).unwrap();
    blind_to("--image", file.arg(), "pictures");
}

#[test]
fn what_is_no_video_says_so() {
    let dir = Scratch::new("media-no-film");
    std::fs::create_dir(&dir.0).unwrap();
    let file = |name: &str, bytes: &[u8]| {
        std::fs::write(dir.0.join(name), bytes).unwrap();
        dir.0.join(name).to_str().unwrap().to_owned()
    };
    let fails = |video: &str, more: &[&str], words: &[&str]| {
        let output = carat(&[&["run", "--video", video, "What is this?"], more].concat()).output().unwrap();
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{error}");
        assert!(words.iter().all(|word| error.contains(word)), "{error}");
    };
    fails(dir.arg(), &[], &["media-no-film", "found no pictures", "bmp"]);
    fails("no/such.gif", &[], &["no/such.gif", "No such file"]);
    fails(&file("empty.gif", b""), &[], &["empty.gif", "the video is empty"]);
    fails(&file("cut.gif", b"GIF89a\x10\0\x10\0"), &[], &["cut.gif", "GIF file is damaged"]);
    fails(&file("none.bin", b"nothing"), &[], &["none.bin", "not a video", "6e 6f"]);
    fails(&file("a.json", b"[]"), &[], &["a.json", "no files of pictures"]);
    fails(&file("b.json", br#"["gone.png"]"#), &[], &["b.json", "gone.png", "No such file"]);
    fails(&file("c.txt", b"2 a.png\n1 b.png"), &[], &["picture 2 b.png", "found 1 seconds", "expected 2"]);
    fails(&file("d.txt", b"0 a.png"), &["--video-fps", "2"], &["--video-fps", "times of their own"]);
    std::fs::remove_file(dir.0.join("empty.gif")).unwrap();
    std::fs::remove_file(dir.0.join("cut.gif")).unwrap();
    file("a.bmp", &bmp(60, 60));
    blind_to("--video", dir.arg(), "video");
    file("times.json", b"[0, 1]");
    fails(dir.arg(), &[], &["times.json", "found 2 times for 1 pictures"]);
    refused(&["run", "--video", dir.arg(), "--video-fps", "0", "What?"], &["--video-fps", "above 0"]);
    std::fs::remove_dir_all(&dir.0).unwrap();
}

/// A stand-in for `ffmpeg`: two pictures, half a second each, and no sound; what it was told is in the file `told`.
#[cfg(unix)]
const FAKE: &str = r##"#!/bin/sh
for arg in "$@"; do printf '%s\n' "$arg"; done >> "$(dirname "$0")/told"
case "$*" in
    *framecrc*) printf '#tb 0: 1/4\n0, 0, 0, 2, 9, 0xa\n0, 2, 2, 2, 9, 0xb\n' ;;
    *image2pipe*) printf 'P6\n2 1\n255\nabcdefP6\n2 1\n255\nghijkl' ;;
    *) echo "Output file does not contain any stream" >&2; exit 1 ;;
esac
"##;

/// What is decoded by another program is seen as pictures in a folder are, and the program is told nothing but the file.
#[cfg(unix)]
#[test]
fn other_codecs_are_left_to_ffmpeg() {
    use std::os::unix::fs::PermissionsExt;

    let dir = Scratch::new("media-ffmpeg");
    std::fs::create_dir_all(dir.0.join("seen")).unwrap();
    let program = |text: &str| {
        let path = dir.0.join("ffmpeg");
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        path
    };
    let fixture = |name: &str| format!("{}/../../fixtures/media/videos/{name}", env!("CARGO_MANIFEST_DIR"));
    let [a, b] = ["a.safetensors", "b.safetensors"].map(|name| dir.0.join(name).to_str().unwrap().to_owned());
    let encode = |video: &str, out: &str| {
        let args = ["encode", model("12b").to_str().unwrap(), "--video", video, "--out", out].map(str::to_owned);
        let mut command = carat(&args.each_ref().map(String::as_str));
        command.env("CARAT_FFMPEG", dir.0.join("ffmpeg"));
        command
    };
    program(FAKE);
    for name in ["hevc.mp4", "av1_10_bits.mp4", "vp9.webm", "h264.mkv", "interlaced.mp4"] {
        done(encode(&fixture(name), &a).output().unwrap());
        let told = std::fs::read_to_string(dir.0.join("told")).unwrap();
        assert!(told.contains(&format!("\n-i\nfile:{}\n", fixture(name))), "{told}");
        assert!(told.contains("-protocol_whitelist\nfile,pipe\n"), "{told}");
        assert!(told.contains("select=(between(t\\,-0.125\\,0.125)+between(t\\,0.375\\,0.625))*"), "{told}");
        std::fs::remove_file(dir.0.join("told")).unwrap();
    }
    for (i, rgb) in [*b"abcdef", *b"ghijkl"].iter().enumerate() {
        let [r, g, b, r2, g2, b2] = *rgb;
        let mut file = bmp(2, 1);
        let pixels = file.len() - 8;
        file[pixels..].copy_from_slice(&[b, g, r, b2, g2, r2, 0, 0]);
        std::fs::write(dir.0.join(format!("seen/{i}.bmp")), file).unwrap();
    }
    done(encode(dir.0.join("seen").to_str().unwrap(), &b).output().unwrap());
    assert_eq!(std::fs::read(&a).unwrap(), std::fs::read(&b).unwrap());

    let fails = |mut command: std::process::Command, words: &[&str]| {
        let output = command.output().unwrap();
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{error}");
        assert!(words.iter().all(|word| error.contains(word)), "{error}");
    };
    program("#!/bin/sh\necho 'no such codec' >&2; exit 1\n");
    fails(encode(&fixture("hevc.mp4"), &a), &["hevc.mp4: ffmpeg can't decode it: no such codec"]);
    program("#!/bin/sh\nprintf '#tb 0: 1/4\\n0, 0, 0, 2, 9, 0xa\\n'\n");
    fails(encode(&fixture("hevc.mp4"), &a), &["it wrote no picture"]);
    program("#!/bin/sh\nexit 0\n");
    fails(encode(&fixture("vp9.webm"), &a), &["vp9.webm", "it has no pictures"]);
    for (name, codec) in [("hevc.mp4", "H.265 (HEVC) in MP4"), ("vp9.webm", "VP9 in Matroska or WebM")] {
        let mut none = encode(&fixture(name), &a);
        none.env("CARAT_FFMPEG", "");
        fails(none, &[name, codec, "is not decoded here: install ffmpeg"]);
    }
    std::fs::remove_dir_all(&dir.0).unwrap();
}

/// Three packets, of which one holds no picture: there are two.
#[cfg(unix)]
#[test]
fn packets_without_pictures_are_not_counted() {
    use std::os::unix::fs::PermissionsExt;

    let dir = Scratch::new("media-ffmpeg-packets");
    std::fs::create_dir_all(&dir.0).unwrap();
    let program = dir.0.join("ffmpeg");
    let three = FAKE.replace(
        "    *framecrc*)",
        "    *copy*) printf '#tb 0: 1/9\\n0, 0, 0, 1, 9, 0xa\\n0, 1, 1, 1, 9, 0xb\\n0, 2, 2, 1, 9, 0xc\\n' ;;\n    *framecrc*)",
    );
    std::fs::write(&program, three).unwrap();
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
    let film = concat!(env!("CARGO_MANIFEST_DIR"), "/../../fixtures/media/videos/vp9.webm");
    let out = dir.0.join("out.safetensors");
    let args =
        ["encode", model("12b").to_str().unwrap(), "--video", film, "--out", out.to_str().unwrap()].map(str::to_owned);
    done(carat(&args.each_ref().map(String::as_str)).env("CARAT_FFMPEG", &program).output().unwrap());
    let told = std::fs::read_to_string(dir.0.join("told")).unwrap();
    let selected: Vec<_> = told.lines().filter(|line| line.starts_with("select=")).collect();
    assert_eq!(selected.iter().map(|line| line.matches("between").count()).collect::<Vec<_>>(), [3, 2], "{told}");
    // The times of what is decoded, in the units of packets.
    assert!(told.contains("-enc_time_base\n1/9\n") && selected[1].contains("between(t\\,0.375\\,0.625)"), "{told}");
    std::fs::remove_dir_all(&dir.0).unwrap();
}

/// `--audio` takes the sound of a video that `--video` shows.
#[test]
fn a_film_and_its_sound_fill_their_places() {
    let film = concat!(env!("CARGO_MANIFEST_DIR"), "/../../fixtures/media/videos/main.mp4");
    let out = Scratch::new("media-film-sound.safetensors");
    let dir = model("e2b");
    // 32 frames of 10 × 6 blocks, and 2 s at 25 soft tokens a second, with what the coder of the sound adds at both ends.
    let run = |sound: usize| {
        let frame = [&[12][..], &[PLACES[2]; 60], &[13]].concat();
        let ids = joined(&[&[2][..], &frame.repeat(32), &[14], &vec![PLACES[1]; sound], &[15]].concat());
        let fixed = ["logits", dir.to_str().unwrap(), "--tokens", &ids, "--out", out.arg()];
        carat(&[&fixed[..], &["--video", film, "--audio", film]].concat()).output().unwrap()
    };
    let error = String::from_utf8_lossy(&run(1).stderr).into_owned();
    let expected: usize = error.split("expected ").nth(1).unwrap().split(',').next().unwrap().parse().unwrap();
    assert!((50..=53).contains(&expected), "{error}");
    done(run(expected));
}
