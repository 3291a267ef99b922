//! `carat encode` against what the reference computed (`fixtures/make_towers.py`), and what it refuses.
#![allow(clippy::unwrap_used, reason = "a panic is a failed test")]

mod files;
mod program;
#[path = "../../media/tests/waves/mod.rs"]
mod waves;

use std::path::Path;

use files::{assert_close, bmp, floats, relative_error, rolled_bmp, tensors, wav};
use program::{Scratch, carat, done};
use waves::wave;

const HEARING: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../fixtures/audio/clipped");
const TOWER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../fixtures/vision/clipped");

#[test]
fn a_picture_s_soft_tokens_are_the_reference_s() {
    let (image, out) = (Scratch::new("encode.bmp"), Scratch::new("encode.safetensors"));
    std::fs::write(&image.0, bmp(500, 200)).unwrap();
    let expected = tensors(&Path::new(TOWER).join("expected.safetensors"));
    // 100,000 pixels: the smallest number of tokens shows them all.
    for tokens in ["70", "auto"] {
        let args = ["encode", TOWER, "--image", image.arg(), "--out", out.arg(), "--image-tokens", tokens];
        assert!(done(carat(&args).output().unwrap()).is_empty());
        let found = tensors(&out.0);
        let names: Vec<&str> = found.names().collect();
        let stages = ["hidden.0", "hidden.1", "hidden.2", "hidden.3"];
        assert_eq!(names, [&["pixel_values", "positions"][..], &stages, &["soft_tokens"]].concat());
        assert_eq!(found.get("pixel_values").unwrap().shape, [585, 768]);
        let positions = found.get("positions").unwrap().data.as_chunks::<8>().0.iter();
        let positions: Vec<u8> = positions.map(|b| i64::from_le_bytes(*b) as u8).collect();
        assert_eq!(positions, expected.get("0.positions").unwrap().data[..]);
        let rows = expected.get("0.rows").unwrap().data.as_chunks::<4>().0.iter();
        let rows: Vec<usize> = rows.map(|b| u32::from_le_bytes(*b) as usize).collect();
        for stage in stages {
            let all = floats(&found.get(stage).unwrap().data);
            let recorded: Vec<f32> = rows.iter().flat_map(|r| all[r * 16..(r + 1) * 16].to_vec()).collect();
            assert_close(&recorded, &floats(&expected.get(&format!("0.{stage}")).unwrap().data), stage);
        }
        let soft = found.get("soft_tokens").unwrap();
        assert_eq!(soft.shape, [65, 20]);
        let last = floats(&expected.get("0.soft_tokens").unwrap().data);
        let soft = floats(&soft.data);
        assert_close(&soft[soft.len() - last.len()..], &last, "soft_tokens");
    }
}

/// The first frame is the picture that the reference saw.
#[test]
fn a_video_s_frames_are_stacked() {
    let (dir, out) = (Scratch::new("encode-film"), Scratch::new("encode-film.safetensors"));
    std::fs::create_dir(&dir.0).unwrap();
    (0..3).for_each(|i| std::fs::write(dir.0.join(format!("{i}.bmp")), rolled_bmp(500, 200, 9 * i)).unwrap());
    let args = ["encode", TOWER, "--video", dir.arg(), "--out", out.arg()];
    assert!(done(carat(&args).output().unwrap()).is_empty());
    let film = tensors(&out.0);
    for (name, shape) in [("pixel_values", 768), ("positions", 2), ("hidden.0", 16), ("hidden.3", 16)] {
        assert_eq!(film.get(name).unwrap().shape, [3, 585, shape], "{name}");
    }
    assert_eq!(film.get("soft_tokens").unwrap().shape, [195, 20]);
    let expected = floats(&tensors(&Path::new(TOWER).join("expected.safetensors")).get("0.soft_tokens").unwrap().data);
    let soft = floats(&film.get("soft_tokens").unwrap().data);
    assert_close(&soft[65 * 20 - expected.len()..65 * 20], &expected, "the first frame");
    // The last frame is what the picture alone is.
    let last = dir.0.join("2.bmp");
    // Files stay mapped while they are compared.
    let other = Scratch::new("encode-frame.safetensors");
    let alone = ["encode", TOWER, "--image", last.to_str().unwrap(), "--out", other.arg(), "--image-tokens", "70"];
    done(carat(&alone).output().unwrap());
    let alone = tensors(&other.0);
    for name in alone.names() {
        let (film, alone) = (&film.get(name).unwrap().data, &alone.get(name).unwrap().data);
        assert!(film.ends_with(alone), "{name}");
    }
    std::fs::write(dir.0.join("3.bmp"), bmp(200, 500)).unwrap();
    refused(&args[1..], 1, &["frame 4", "(240, 624)", "(624, 240)"]);
    std::fs::remove_dir_all(&dir.0).unwrap();
}

/// Pictures and sounds of a model without towers, as `fixtures/make_media_models.py` showed them.
#[test]
fn blocks_and_frames_of_sound_are_the_reference_s() {
    const UNIFIED: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../fixtures/multimodal/12b");
    let (file, out) = (Scratch::new("encode-unified"), Scratch::new("encode-unified.safetensors"));
    let expected = tensors(&Path::new(UNIFIED).join("expected.safetensors"));
    let last_rows = |medium: usize| {
        let soft = floats(&tensors(&out.0).get("soft_tokens").unwrap().data);
        let expected = floats(&expected.get(&format!("soft.{medium}")).unwrap().data);
        assert_close(&soft[soft.len() - expected.len()..], &expected, "soft_tokens");
    };
    std::fs::write(&file.0, bmp(300, 200)).unwrap();
    let to = ["--out", out.arg()];
    let see = ["encode", UNIFIED, "--image", file.arg(), to[0], to[1], "--image-tokens", "70"];
    done(carat(&see).output().unwrap());
    let seen = tensors(&out.0);
    assert_eq!(seen.names().collect::<Vec<_>>(), ["pixel_values", "positions", "hidden.0", "soft_tokens"]);
    assert_eq!(seen.get("pixel_values").unwrap().shape[1], 6912);
    last_rows(2);
    let i = (0..640 * 5 + 77).map(f64::from);
    std::fs::write(
        &file.0,
        wav(&i.map(|i| (0.5 * (i / 7.0).sin() + 0.25 * (i / 3.1).sin()) as f32).collect::<Vec<_>>()),
    )
    .unwrap();
    done(carat(&["encode", UNIFIED, "--audio", file.arg(), to[0], to[1]]).output().unwrap());
    let heard = tensors(&out.0);
    assert_eq!(heard.names().collect::<Vec<_>>(), ["frames", "soft_tokens"]);
    assert_eq!(heard.get("frames").unwrap().shape, [6, 640]);
    last_rows(5);
}

#[test]
fn a_sound_s_soft_tokens_are_the_reference_s() {
    let (audio, out) = (Scratch::new("encode.wav"), Scratch::new("encode-audio.safetensors"));
    let expected = tensors(&Path::new(HEARING).join("expected.safetensors"));
    // Of the second the last frame is half filled up: it has features, and they are zeros.
    for (index, kind, n, frames, valid) in [(1, "mixed", 3000, 19, 18), (3, "mixed", 14_400, 90, 89)] {
        std::fs::write(&audio.0, wav(&wave(kind, n))).unwrap();
        let args = ["encode", HEARING, "--audio", audio.arg(), "--out", out.arg(), "--threads", "1"];
        assert!(done(carat(&args).output().unwrap()).is_empty());
        let found = tensors(&out.0);
        let names: Vec<&str> = found.names().collect();
        let stages = ["hidden.0", "hidden.1", "hidden.2", "soft_tokens"];
        assert_eq!(names, [&["mel"][..], &stages].concat());
        let mel = found.get("mel").unwrap();
        assert_eq!(mel.shape, [frames, 128]);
        let values = floats(&mel.data);
        assert!(values[valid * 128..].iter().all(|v| *v == 0.0) && values[(valid - 1) * 128] != 0.0);
        let first = floats(&expected.get(&format!("{index}.mel")).unwrap().data);
        assert_close(&values[..first.len()], &first, "mel");
        for stage in stages {
            let (found, expected) = (found.get(stage).unwrap(), expected.get(&format!("{index}.{stage}")).unwrap());
            assert_eq!(found.shape, expected.shape, "{stage}");
            assert_close(&floats(&found.data), &floats(&expected.data), stage);
        }
    }
}

/// Largest relative error of soft tokens that products of 8-bit integers made.
const COARSE_BOUND: f64 = 3e-2;

/// Whether products of 16-bit integers are as fast as those of 8: where a processor adds beside multiplying.
fn has_no_use_for_bytes() -> bool {
    #[cfg(target_arch = "x86_64")]
    {
        let vendor = std::arch::x86_64::__cpuid(0);
        let is_amd = [vendor.ebx, vendor.edx, vendor.ecx] == [0x6874_7541, 0x6974_6e65, 0x444d_4163];
        is_amd && std::arch::is_x86_feature_detected!("avx512vnni")
    }
    #[cfg(not(target_arch = "x86_64"))]
    false
}

/// The embedded model's towers, whose widths are whole blocks.
#[test]
fn int8_errs_as_products_of_eight_bits_do() {
    const NANO: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../nano/checkpoint");
    let (file, out) = (Scratch::new("encode-int8"), Scratch::new("encode-int8.safetensors"));
    let media = [("--image", bmp(500, 200)), ("--audio", wav(&wave("mixed", 14_400)))];
    for (kind, bytes) in media {
        std::fs::write(&file.0, bytes).unwrap();
        let [exact, fine, coarse] = ["f32", "fast", "int8"].map(|precision| {
            let shape = ["--image-tokens", "70", "--precision", precision, "--out", out.arg()];
            done(carat(&[&["encode", NANO, kind, file.arg()], &shape[..]].concat()).output().unwrap());
            floats(&tensors(&out.0).get("soft_tokens").unwrap().data)
        });
        let (finer, error) = (relative_error(&fine, &exact), relative_error(&coarse, &exact));
        println!("{kind}: {finer:.1e}, in 8 bits {error:.1e}");
        if has_no_use_for_bytes() {
            assert_eq!(coarse, fine, "{kind}: what is no slower is as fine");
        } else {
            assert!(error < COARSE_BOUND && error > 4.0 * finer, "{kind}: off by {error:e}, else {finer:e}");
        }
    }
}

/// The command fails with this code and says all of this.
#[track_caller]
fn refused(args: &[&str], code: i32, says: &[&str]) {
    let output = carat(&[&["encode"], args].concat()).output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{stderr}");
    for text in says {
        assert!(stderr.contains(text), "`{text}` is not in: {stderr}");
    }
}

#[test]
fn what_fails_names_the_thing() {
    let (image, out) = (Scratch::new("refused.bmp"), Scratch::new("refused.safetensors"));
    std::fs::write(&image.0, bmp(500, 200)).unwrap();
    let (image, to) = (image.arg(), ["--out", out.arg()]);
    let gguf = concat!(env!("CARGO_MANIFEST_DIR"), "/../../fixtures/g3/bf16.gguf");
    refused(&[gguf, "--image", image, to[0], to[1]], 1, &["bf16.gguf", "no picture encoder", "GGUF"]);
    refused(&[TOWER, "--image", "no/such.png", to[0], to[1]], 1, &["no/such.png", "No such file"]);
    refused(&[TOWER, "--image", gguf, to[0], to[1]], 1, &["bf16.gguf", "not a picture", "JPEG"]);
    refused(&[TOWER, "--image", image, "--out", "no/such/dir/file"], 1, &["no/such/dir/file"]);
    assert!(!out.0.exists(), "nothing is written before there is something to write");
    let tokens = |n| [TOWER, "--image", image, to[0], to[1], "--image-tokens", n];
    refused(&tokens("256"), 2, &["256", "one of 70, 140, 280, 560, 1120"]);
    refused(&tokens("many"), 2, &["70, 140, 280, 560, 1120 or auto"]);
    // This tower knows 64 columns; the picture would have 78 with four times the tokens.
    refused(&tokens("280"), 1, &["column 64", "0 to 63"]);
    refused(&[TOWER, to[0], to[1]], 2, &["--image", "--audio"]);
    refused(&[TOWER, "--image", image, "--audio", image, to[0], to[1]], 2, &["cannot be used with"]);
    refused(&[TOWER, "--image", image, "--out", image], 2, &["refused.bmp", "is read here"]);
    assert_eq!(std::fs::read(image).unwrap(), bmp(500, 200));
}

/// What nothing tells apart is an error in every command that sees or hears, and the way out that it names is one.
#[test]
fn every_command_that_sees_or_hears_takes_the_file_of_its_encoders() {
    let fixture = |name: &str| format!("{}/../../fixtures/{name}", env!("CARGO_MANIFEST_DIR"));
    let dir = Scratch::new("several-mmproj");
    std::fs::create_dir(&dir.0).unwrap();
    let at = |name: &str| dir.0.join(name).to_str().unwrap().to_owned();
    let (model, sound, picture) = (at("model.gguf"), at("sound.wav"), at("picture.bmp"));
    done(carat(&["convert", &fixture("../nano/checkpoint"), &model]).output().unwrap());
    std::fs::write(&sound, wav(&wave("mixed", 3000))).unwrap();
    std::fs::write(&picture, bmp(60, 60)).unwrap();
    for name in ["mmproj-a.gguf", "mmproj-b.gguf"] {
        std::fs::copy(fixture("mmproj/edge.gguf"), dir.0.join(name)).unwrap();
    }
    let out = at("logits.safetensors");
    let commands: [&[&str]; 4] = [
        &["run", &model, "--image", &picture, "What is this?"],
        &["logits", &model, "--tokens", "2,3", "--image", &picture, "--out", &out],
        &["describe", "--model", &model, &picture],
        &["transcribe", "--model", &model, &sound],
    ];
    for command in commands {
        let fails = |more: &[&str]| {
            let output = carat(&[command, more].concat()).output().unwrap();
            assert_eq!(output.status.code(), Some(1), "{command:?} {more:?}");
            String::from_utf8_lossy(&output.stderr).into_owned()
        };
        let error = fails(&[]);
        assert!(["mmproj-a.gguf", "mmproj-b.gguf", "--mmproj"].iter().all(|word| error.contains(word)), "{error}");
        assert!(fails(&["--mmproj", &at("none.gguf")]).contains("none.gguf: there is no such file"));
        // A text model is no encoder: it is opened in place of both.
        let error = fails(&["--mmproj", &model]);
        assert!(error.contains("model.gguf") && error.contains("encoder") && !error.contains("mmproj-a"), "{error}");
    }
    std::fs::remove_dir_all(&dir.0).unwrap();
}

#[test]
fn encoders_are_found_beside_a_gguf_file_or_where_they_are_said_to_be() {
    let (audio, out) = (Scratch::new("encode-mmproj.wav"), Scratch::new("encode-mmproj.safetensors"));
    std::fs::write(&audio.0, wav(&wave("mixed", 3000))).unwrap();
    let fixture = |name: &str| format!("{}/../../fixtures/{name}", env!("CARGO_MANIFEST_DIR"));
    let dir = Scratch::new("encode-mmproj");
    std::fs::create_dir(&dir.0).unwrap();
    let model = dir.0.join("model-bf16.gguf");
    std::fs::copy(fixture("g3/bf16.gguf"), &model).unwrap();
    let model = model.to_str().unwrap();
    let sound = ["--audio", audio.arg(), "--out", out.arg()];
    refused(&[&[model][..], &sound].concat(), 1, &["no sound encoder", "mmproj"]);
    let heard = || {
        let expected = tensors(&Path::new(HEARING).join("expected.safetensors"));
        let found = floats(&tensors(&out.0).get("soft_tokens").unwrap().data);
        assert_close(&found, &floats(&expected.get("1.soft_tokens").unwrap().data), "soft_tokens");
        std::fs::remove_file(&out.0).unwrap();
    };
    let edge = fixture("mmproj/edge.gguf");
    done(carat(&[&["encode", model, "--mmproj", &edge][..], &sound].concat()).output().unwrap());
    heard();
    std::fs::copy(&edge, dir.0.join("mmproj-BF16.gguf")).unwrap();
    done(carat(&[&["encode", model][..], &sound].concat()).output().unwrap());
    heard();
    let large = fixture("mmproj/large.gguf");
    refused(&[&[model, "--mmproj", &large][..], &sound].concat(), 1, &["large.gguf", "no sound encoder"]);
    std::fs::remove_dir_all(&dir.0).unwrap();
}

#[test]
fn what_can_t_be_heard_names_the_thing() {
    let (audio, out) = (Scratch::new("refused.wav"), Scratch::new("refused-audio.safetensors"));
    let (path, to) = (audio.arg(), ["--out", out.arg()]);
    std::fs::write(&audio.0, wav(&wave("mixed", 3000))).unwrap();
    refused(&[TOWER, "--audio", path, to[0], to[1]], 1, &["vision/clipped", "no sound encoder", "audio_config"]);
    refused(&[HEARING, "--image", path, to[0], to[1]], 1, &["no picture encoder", "vision_config"]);
    refused(&[HEARING, "--audio", "no/such.wav", to[0], to[1]], 1, &["no/such.wav", "No such file"]);
    let config = &format!("{HEARING}/config.json");
    refused(&[HEARING, "--audio", config, to[0], to[1]], 1, &["config.json", "not a sound"]);
    std::fs::write(&audio.0, wav(&wave("mixed", 160))).unwrap();
    refused(&[HEARING, "--audio", path, to[0], to[1]], 1, &["refused.wav", "160", "161"]);
    std::fs::write(&audio.0, wav(&wave("silence", 480_001))).unwrap();
    refused(&[HEARING, "--audio", path, to[0], to[1]], 1, &["480001", "480000", "clips"]);
    assert!(!out.0.exists(), "nothing is written before there is something to write");
}
