//! `carat describe` on tiny models of random weights.
#![allow(clippy::unwrap_used, reason = "a panic is a failed test")]

mod files;
mod program;
#[cfg(unix)]
mod terminal;
#[path = "../../runtime/tests/tiny/mod.rs"]
mod tiny;

use std::process::Output;

use files::bmp;
use program::{Scratch, carat, done, fed};
use serde_json::Value;
use tiny::Tiny;

const SMALL: [&str; 4] = ["--image-tokens", "70", "--max-tokens", "12"];

fn text(bytes: Vec<u8>) -> String {
    String::from_utf8(bytes).unwrap()
}

fn describe(model: &Tiny, args: &[&str]) -> Output {
    carat(&[&["describe", model.arg()], args, &SMALL].concat()).output().unwrap()
}

/// A folder with two pictures, one in a folder of its own, a picture that is none, and a text.
fn folder(name: &str) -> Scratch {
    let dir = Scratch::new(name);
    std::fs::create_dir_all(dir.0.join("more, \"much\" more")).unwrap();
    std::fs::write(dir.0.join("a.bmp"), bmp(60, 40)).unwrap();
    std::fs::write(dir.0.join("broken.png"), b"\x89PNG\r\n\x1a\nand no more").unwrap();
    std::fs::write(dir.0.join("more, \"much\" more/c.bmp"), bmp(33, 77)).unwrap();
    std::fs::write(dir.0.join("notes.txt"), "not looked at").unwrap();
    dir
}

fn names(dir: &Scratch) -> [String; 3] {
    ["a.bmp", "broken.png", "more, \"much\" more/c.bmp"].map(|name| dir.0.join(name).display().to_string())
}

fn lines(text: &str) -> Vec<Value> {
    assert!(text.is_empty() || text.ends_with('\n'));
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Reads CSV as RFC 4180 has it.
fn csv(text: &str) -> Vec<Vec<String>> {
    let (mut rows, mut row, mut field) = (Vec::new(), Vec::new(), String::new());
    let mut rest = text.chars().peekable();
    while let Some(c) = rest.next() {
        match c {
            '"' => {
                assert!(field.is_empty(), "quotes open a field");
                loop {
                    match rest.next().unwrap() {
                        '"' if rest.peek() == Some(&'"') => field.extend(rest.next()),
                        '"' => break,
                        other => field.push(other),
                    }
                }
                assert!(matches!(rest.peek(), Some(',' | '\n')), "quotes close a field");
            }
            ',' => row.push(std::mem::take(&mut field)),
            '\n' => {
                row.push(std::mem::take(&mut field));
                rows.push(std::mem::take(&mut row));
            }
            other => field.push(other),
        }
    }
    assert!(row.is_empty() && field.is_empty(), "the last line is whole");
    rows
}

#[test]
fn pictures_of_a_folder_are_described_and_a_broken_one_has_an_error() {
    for name in ["e2b", "31b"] {
        let (model, dir) = (Tiny::new(name), folder(&format!("pictures-{name}")));
        let output = describe(&model, &[&dir.0.display().to_string()]);
        let error = text(output.stderr);
        assert_eq!(output.status.code(), Some(1), "{error}");
        assert!(error.contains("broken.png") && error.contains("1 of 3 could not be described"), "{error}");
        let found = lines(&text(output.stdout));
        let files: Vec<&str> = found.iter().map(|line| line["file"].as_str().unwrap()).collect();
        assert_eq!(files, names(&dir));
        assert!(found[1]["error"].as_str().unwrap().contains("PNG") && found[1].get("description").is_none());
        assert_eq!([&found[0]["width"], &found[2]["height"]], [&Value::from(60), &Value::from(77)]);
        // What is said is what the model says when it is asked for one picture.
        let prompt = "what is it";
        let run = ["run", model.arg(), prompt, "--image", files[0], "--temperature", "0"];
        let said = text(done(carat(&[&run[..], &SMALL].concat()).output().unwrap()));
        let alone = lines(&text(done(describe(&model, &[files[0], "--prompt", prompt]))));
        assert_eq!(alone[0]["description"].as_str().unwrap(), said.trim());

        let table = csv(&text(describe(&model, &[&dir.0.display().to_string(), "--format", "csv"]).stdout));
        assert_eq!(table[0], ["file", "width", "height", "description", "notice", "error"]);
        for (row, line) in table[1..].iter().zip(&found) {
            for (column, field) in table[0].iter().zip(row) {
                let value = match &line[column] {
                    Value::Null => String::new(),
                    Value::String(text) => text.clone(),
                    other => other.to_string(),
                };
                assert_eq!(*field, value, "{column}");
            }
        }
        assert_eq!(table.len(), 4);
    }
}

#[test]
fn what_was_described_is_left_out_when_it_is_gone_on() {
    let (model, dir) = (Tiny::new("12b"), folder("resumed"));
    std::fs::remove_file(dir.0.join("broken.png")).unwrap();
    for format in ["jsonl", "csv"] {
        let out = Scratch::new(&format!("resumed-descriptions.{format}"));
        let whole = ["describe", model.arg(), &dir.0.display().to_string(), "--out", out.arg()].map(str::to_owned);
        let run = |more: &[&str]| {
            let args: Vec<&str> = whole.iter().map(String::as_str).chain(more.iter().copied()).chain(SMALL).collect();
            carat(&args).output().unwrap()
        };
        assert!(done(run(&[])).is_empty(), "it is in the file");
        let bytes = std::fs::read(&out.0).unwrap();
        let refused = run(&[]);
        assert_eq!(refused.status.code(), Some(2));
        assert!(text(refused.stderr).contains("--resume goes on with it"));
        // Killed in the middle of the last line.
        std::fs::write(&out.0, &bytes[..bytes.len() - 5]).unwrap();
        let output = run(&["--resume"]);
        assert!(text(output.stderr.clone()).contains("1 of 2 are described in"), "{format}");
        done(output);
        assert_eq!(std::fs::read(&out.0).unwrap(), bytes);
        // Nothing is left to do, so no model is loaded.
        assert!(!text(run(&["--resume"]).stderr).contains("memory"));
        assert_eq!(std::fs::read(&out.0).unwrap(), bytes);
    }
}

#[test]
fn pictures_come_from_standard_input_and_what_can_t_be_done_is_said() {
    let model = Tiny::new("12b");
    let args = [&["describe", "--model", model.arg(), "-"][..], &SMALL].concat();
    let found = lines(&text(done(fed(&args, &bmp(60, 40)))));
    assert_eq!((&found[0]["file"], &found[0]["width"]), (&"standard input".into(), &60.into()));
    let output = describe(&model, &["no/such.png", "--prompt", " "]);
    assert_eq!(output.status.code(), Some(2), "an empty prompt");
    let empty = Scratch::new("no-pictures");
    std::fs::create_dir(&empty.0).unwrap();
    let output = describe(&model, &[empty.arg(), "no/such.png"]);
    let error = text(output.stderr);
    assert_eq!(output.status.code(), Some(1));
    assert!(error.contains("no pictures in it") && error.contains("2 of 2"), "{error}");
    assert!(lines(&text(output.stdout))[0]["error"].as_str().unwrap().contains("No such file"));
    let blind = carat(&["describe", concat!(env!("CARGO_MANIFEST_DIR"), "/../../fixtures/g3/bf16.gguf"), "-"]).output();
    let blind = blind.unwrap();
    assert_eq!(blind.status.code(), Some(1), "{}", String::from_utf8_lossy(&blind.stderr));
}

#[cfg(unix)]
#[test]
fn ctrl_c_keeps_whole_lines_and_the_rest_can_be_done_later() {
    const PICTURES: usize = 300;
    let (model, dir, out) = (Tiny::new("12b"), Scratch::new("many-pictures"), Scratch::new("many.jsonl"));
    std::fs::create_dir(&dir.0).unwrap();
    (0..PICTURES).for_each(|i| std::fs::write(dir.0.join(format!("{i:03}.bmp")), bmp(20 + i, 40)).unwrap());
    let args = ["describe", model.arg(), dir.arg(), "--out", out.arg(), "--image-tokens", "70", "--max-tokens", "40"];
    let mut program = terminal::Terminal::run(&args);
    // A bar that has moved.
    (0..4).for_each(|_| program.wait_for("/300 pictures"));
    program.send("\x03");
    program.wait_for("[stopped: ");
    assert_eq!(program.end(), Some(130));
    let files = || -> Vec<String> {
        let found = lines(&std::fs::read_to_string(&out.0).unwrap());
        found.iter().map(|line| line["file"].as_str().unwrap().to_owned()).collect()
    };
    assert!((1..PICTURES).contains(&files().len()), "{}", files().len());
    done(carat(&[&args[..], &["--resume"]].concat()).output().unwrap());
    let expected: Vec<String> =
        (0..PICTURES).map(|i| dir.0.join(format!("{i:03}.bmp")).display().to_string()).collect();
    assert_eq!(files(), expected);
}
