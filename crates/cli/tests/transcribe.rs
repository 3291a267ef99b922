//! `carat transcribe` on tiny models of random weights: their words are nonsense, what is made of them is not.
#![allow(clippy::unwrap_used, reason = "a panic is a failed test")]

mod files;
mod program;
#[cfg(unix)]
mod terminal;
#[path = "../../runtime/tests/tiny/mod.rs"]
mod tiny;

use std::path::Path;
use std::process::Output;

use files::wav;
use program::{Scratch, carat, done, fed};
use serde_json::Value;
use tiny::Tiny;

const RATE: usize = 16_000;

/// `seconds` of changing tones, silent for 0.4 s before every fifth second.
fn tones(seconds: usize) -> Vec<f32> {
    let sample = |i: usize| {
        let t = i as f64 / RATE as f64;
        let pitch = 200.0 + 40.0 * ((t * 1.7).floor() % 17.0);
        let loud = if t % 5.0 >= 4.6 { 0.0 } else { 0.4 };
        (loud * (t * pitch * std::f64::consts::TAU).sin()) as f32
    };
    (0..seconds * RATE).map(sample).collect()
}

/// A file with a sound in it.
fn sound(name: &str, seconds: usize) -> Scratch {
    let file = Scratch::new(name);
    std::fs::write(&file.0, wav(&tones(seconds))).unwrap();
    file
}

fn text(bytes: Vec<u8>) -> String {
    String::from_utf8(bytes).unwrap()
}

fn transcribe(model: &Tiny, args: &[&str]) -> Output {
    carat(&[&["transcribe", model.arg()], args].concat()).output().unwrap()
}

/// A cue of subtitles: its number, its times in seconds, its text.
type Cue = (usize, [f64; 2], String);

/// Reads SubRip: number, times, one line of text, an empty line, over and over.
fn cues(text: &str, point: char) -> Vec<Cue> {
    let time = |text: &str| {
        let (clock, ms) = text.split_once(point).unwrap();
        assert_eq!(ms.len(), 3);
        let parts: Vec<f64> = clock.split(':').map(|part| part.parse().unwrap()).collect();
        assert_eq!((parts.len(), clock.len()), (3, 8), "{text}");
        (parts[0] * 60.0 + parts[1]) * 60.0 + parts[2] + ms.parse::<f64>().unwrap() / 1e3
    };
    assert!(text.is_empty() || text.ends_with("\n\n"), "{text:?}");
    let cue = |block: &str| {
        let lines: Vec<&str> = block.split('\n').collect();
        let (number, lines) = match point {
            ',' => (lines[0].parse().unwrap(), &lines[1..]),
            _ => (0, &lines[..]),
        };
        let [times, said] = lines else { panic!("{block:?}") };
        let (start, end) = times.split_once(" --> ").unwrap();
        (number, [time(start), time(end)], (*said).to_owned())
    };
    text.split_terminator("\n\n").map(cue).collect()
}

#[test]
fn every_format_says_the_same() {
    for name in ["e2b", "12b"] {
        let (model, file) = (Tiny::new(name), sound(&format!("formats-{name}.wav"), 15));
        let run = |format: &str| {
            text(done(transcribe(&model, &[file.arg(), "--language", "en", "--clip", "6", "--format", format])))
        };
        let plain = run("text");
        assert!(plain.ends_with('\n') && plain.lines().count() == 1, "{plain:?}");

        let json: Value = serde_json::from_str(&run("json")).unwrap();
        assert_eq!((&json["file"], &json["language"]), (&file.arg().into(), &"English".into()));
        assert_eq!((&json["seconds"], &json["complete"]), (&15.0.into(), &true.into()));
        assert_eq!(json["text"].as_str().unwrap(), plain.trim_end());
        let segments = json["segments"].as_array().unwrap();
        assert!(segments.len() >= 3, "{json}");
        assert_eq!((&segments[0]["start"], &segments[segments.len() - 1]["end"]), (&0.0.into(), &15.0.into()));
        let said: Vec<Cue> = segments
            .iter()
            .filter(|segment| segment["text"] != "")
            .enumerate()
            .map(|(i, segment)| {
                let seconds = |key: &str| segment[key].as_f64().unwrap();
                (i + 1, [seconds("start"), seconds("end")], segment["text"].as_str().unwrap().to_owned())
            })
            .collect();
        assert_eq!(said.iter().map(|cue| cue.2.as_str()).collect::<Vec<_>>().join(" "), plain.trim_end());

        assert_eq!(cues(&run("srt"), ','), said);
        let vtt = run("vtt");
        let body = vtt.strip_prefix("WEBVTT\n\n").unwrap();
        let unnumbered: Vec<Cue> = said.into_iter().map(|(_, times, text)| (0, times, text)).collect();
        assert_eq!(cues(body, '.'), unnumbered);
    }
}

#[test]
fn bad_files_are_named_and_the_others_are_written_down() {
    let (model, first, last) = (Tiny::new("12b"), sound("good-1.wav", 3), sound("good-2.wav", 6));
    let (silent, empty, notes) = (Scratch::new("silent.wav"), Scratch::new("empty.wav"), Scratch::new("notes.wav"));
    std::fs::write(&silent.0, wav(&vec![0.0; 40_000])).unwrap();
    std::fs::write(&empty.0, "").unwrap();
    std::fs::write(&notes.0, "not a sound at all").unwrap();
    let alone = |file: &Scratch| text(done(transcribe(&model, &[file.arg()])));
    let files = [first.arg(), silent.arg(), "no/such.wav", empty.arg(), notes.arg(), last.arg()];
    let output = transcribe(&model, &files);
    let errors = text(output.stderr);
    assert_eq!(output.status.code(), Some(1), "{errors}");
    for (name, why) in [
        (silent.arg(), "is silent"),
        ("no/such.wav", "No such file"),
        (empty.arg(), "empty"),
        (notes.arg(), "not a sound"),
        ("error: 4 of 6", "could not be transcribed"),
    ] {
        assert!(errors.lines().any(|line| line.contains(name) && line.contains(why)), "{name}, {why}: {errors}");
    }
    let expected = format!("==> {} <==\n{}\n==> {} <==\n{}", first.arg(), alone(&first), last.arg(), alone(&last));
    assert_eq!(text(output.stdout), expected);

    // One file each in a directory, and none for those that failed.
    let dir = Scratch::new("transcripts");
    let output = transcribe(&model, &[&files[..], &["--out", dir.arg(), "--format", "srt"]].concat());
    assert_eq!((output.status.code(), output.stdout.len()), (Some(1), 0));
    let mut names: Vec<String> =
        std::fs::read_dir(&dir.0).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    let stem = |file: &Scratch| format!("{}.srt", file.0.file_stem().unwrap().display());
    assert_eq!(names, [stem(&first), stem(&last)]);
    let srt = std::fs::read_to_string(dir.0.join(stem(&last))).unwrap();
    assert_eq!(cues(&srt, ',').iter().map(|cue| cue.2.as_str()).collect::<Vec<_>>().join(" "), alone(&last).trim_end());
}

#[test]
fn standard_input_is_a_recording_and_json_has_a_line_per_file() {
    let (model, file) = (Tiny::new("12b"), sound("piped.wav", 4));
    let bytes = std::fs::read(&file.0).unwrap();
    let args = ["transcribe", "--model", model.arg(), "-", file.arg(), "--format", "json", "--translate-to", "de"];
    let lines = text(done(fed(&args, &bytes)));
    let [piped, named] = lines.lines().collect::<Vec<_>>()[..] else { panic!("{lines}") };
    let [piped, named]: [Value; 2] = [piped, named].map(|line| serde_json::from_str(line).unwrap());
    assert_eq!((&piped["file"], &named["file"]), (&"standard input".into(), &file.arg().into()));
    assert_eq!((&piped["translated_to"], &piped["language"]), (&"German".into(), &Value::Null));
    assert_eq!(piped["segments"], named["segments"]);
    assert!(piped["segments"][0]["said"].is_string() && !piped["text"].as_str().unwrap().is_empty(), "{piped}");
}

#[test]
fn an_output_file_is_written_and_an_input_is_not_replaced() {
    let (model, file, out) = (Tiny::new("12b"), sound("to-file.wav", 3), Scratch::new("to-file.txt"));
    let plain = done(transcribe(&model, &[file.arg()]));
    assert!(done(transcribe(&model, &[file.arg(), "--out", out.arg()])).is_empty());
    assert_eq!(std::fs::read(&out.0).unwrap(), plain);
    let [weights, config] = ["model.safetensors", "config.json"].map(|name| Path::new(model.arg()).join(name));
    for read in [&file.0, &weights, &config] {
        let before = std::fs::read(read).unwrap();
        refused(&[model.arg(), file.arg(), "--out", read.to_str().unwrap()], 2, &["is read here"]);
        assert_eq!(std::fs::read(read).unwrap(), before);
    }
    // What was there before stays where nothing is heard.
    let silent = Scratch::new("silent-to-file.wav");
    std::fs::write(&silent.0, wav(&vec![0.0; 40_000])).unwrap();
    refused(&[model.arg(), silent.arg(), "--out", out.arg()], 1, &["is silent"]);
    assert_eq!(std::fs::read(&out.0).unwrap(), plain);
    // A place that can't be written to is told before anything is heard.
    refused(
        &[model.arg(), silent.arg(), "--out", "no/such/dir/a.txt"],
        1,
        &["cannot write beside `no/such/dir/a.txt`"],
    );
}

/// The command fails with this code and says all of this.
#[track_caller]
fn refused(args: &[&str], code: i32, says: &[&str]) {
    let output = carat(&[&["transcribe"], args].concat()).output().unwrap();
    let error = text(output.stderr);
    assert_eq!(output.status.code(), Some(code), "{error}");
    assert!(says.iter().all(|say| error.contains(say)), "{error}");
}

#[test]
fn what_can_t_be_done_is_said() {
    let (deaf, file) = (Tiny::new("31b"), sound("unheard.wav", 2));
    // It concerns all files, so it is said once.
    refused(&[deaf.arg(), file.arg(), file.arg()], 1, &["can't take sounds", "no sound encoder"]);
    refused(&[], 2, &["<FILE>"]);
    refused(&["no/such.gguf", file.arg()], 1, &["no/such.gguf", "no such model"]);
    refused(&[file.arg(), "--language", "xx"], 2, &["--language", "German or de", "xx"]);
    refused(&[file.arg(), "--clip", "3"], 2, &["--clip", "expected 5 to 30"]);
    refused(&["a.wav", "b.wav", "--format", "srt"], 2, &["--format srt of 2 files", "--out"]);
    refused(&["-", "-"], 2, &["`-` can be given once"]);
}

/// A model that talks without end, and a recording of ten minutes: more words than a terminal takes that nobody reads.
#[cfg(unix)]
mod interrupted {
    use super::*;
    use terminal::Terminal;

    const CTRL_C: &str = "\x03";

    #[test]
    fn ctrl_c_in_a_terminal_keeps_the_text_that_came() {
        let (model, file) = (Tiny::new("e2b"), sound("long.wav", 600));
        let mut program = Terminal::run(&["transcribe", model.arg(), file.arg(), "--clip", "5"]);
        // The text comes while the recording is heard.
        program.wait_for("brown brown");
        program.send(CTRL_C);
        program.wait_for("[stopped: ");
        program.wait_for(" of 10:00]");
        assert_eq!(program.end(), Some(130));
    }

    #[test]
    fn ctrl_c_keeps_whole_cues_in_a_file() {
        let (model, file, out) = (Tiny::new("e2b"), sound("long-cues.wav", 600), Scratch::new("long.srt"));
        let args = ["transcribe", model.arg(), file.arg(), "--clip", "5", "--format", "srt", "--out", out.arg()];
        let mut program = Terminal::run(&args);
        // A bar that has moved.
        (0..4).for_each(|_| program.wait_for("/600 s of sound"));
        program.send(CTRL_C);
        program.wait_for("[stopped: ");
        assert_eq!(program.end(), Some(130));
        let cues = cues(&std::fs::read_to_string(&out.0).unwrap(), ',');
        assert!((1..120).contains(&cues.len()), "{}", cues.len());
        assert!(cues.windows(2).all(|pair| pair[0].1[1] <= pair[1].1[0] && pair[0].0 + 1 == pair[1].0));
    }

    #[test]
    fn ctrl_c_ends_a_json_transcript_that_is_not_complete() {
        let (model, file, out) = (Tiny::new("e2b"), sound("long-json.wav", 600), Scratch::new("long.json"));
        let args = ["transcribe", model.arg(), file.arg(), "--clip", "5", "--format", "json", "--out", out.arg()];
        let mut program = Terminal::run(&args);
        (0..4).for_each(|_| program.wait_for("/600 s of sound"));
        program.send(CTRL_C);
        program.wait_for("[stopped: ");
        assert_eq!(program.end(), Some(130));
        let json: Value = serde_json::from_str(&std::fs::read_to_string(&out.0).unwrap()).unwrap();
        assert_eq!(json["complete"], false);
        assert!(!json["segments"].as_array().unwrap().is_empty());
    }
}

#[test]
fn the_first_argument_is_the_model_only_where_it_is_one() {
    let file = sound("embedded.wav", 2);
    // Without a model the embedded one is asked, which says what it can't do, or does it.
    let output = carat(&["transcribe", file.arg()]).output().unwrap();
    let error = text(output.stderr);
    assert!(output.status.success() || error.contains("can't take sounds"), "{error}");
    assert!(!error.contains("no such model") && Path::new(file.arg()).exists(), "{error}");
}
