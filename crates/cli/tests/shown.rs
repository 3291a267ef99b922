//! Pictures and sounds that are shown to `carat run`, once or in a chat, on tiny models of random weights.
#![allow(clippy::unwrap_used, reason = "a panic is a failed test")]

mod files;
mod program;
#[cfg(unix)]
mod terminal;
#[path = "../../runtime/tests/tiny/mod.rs"]
mod tiny;

use files::{bmp, floats, tensors, wav};
use program::{Scratch, carat, done, fed};
use serde_json::{Value, json};
use tiny::{CONTROL, Tiny};

const PROMPT: &str = "what is it";
/// Entries of the vocabulary.
const VOCAB: usize = 96;

fn text(bytes: Vec<u8>) -> String {
    String::from_utf8(bytes).unwrap()
}

fn file(name: &str, bytes: Vec<u8>) -> Scratch {
    let file = Scratch::new(name);
    std::fs::write(&file.0, bytes).unwrap();
    file
}

fn wave() -> Vec<f32> {
    (0..9_000).map(|i| (i as f32 / 7.0).sin() / 2.0).collect()
}

/// How many soft tokens a medium takes.
fn soft_tokens(model: &Tiny, flag: &str, path: &Scratch) -> usize {
    let out = Scratch::new("soft.safetensors");
    let args = ["encode", model.arg(), flag, path.arg(), "--out", out.arg(), "--image-tokens", "70"];
    done(carat(&args).output().unwrap());
    tensors(&out.0).get("soft_tokens").unwrap().shape[0]
}

/// The logarithm of the probability of the most likely token, and the token.
fn most_likely(logits: &[f32]) -> (usize, f64) {
    let largest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let sum: f64 = logits.iter().map(|logit| f64::from(logit - largest).exp()).sum();
    (logits.iter().position(|logit| *logit == largest).unwrap(), -sum.ln())
}

/// The first token of an answer is that of `carat logits` on the sequence in which the media stand in the order of their flags.
#[test]
fn media_stand_in_the_order_of_their_flags() {
    let model = Tiny::new("e2b");
    let (a, b, c) = (file("a.bmp", bmp(60, 40)), file("b.wav", wav(&wave())), file("c.bmp", bmp(33, 77)));
    let orders =
        [[("--image", &a), ("--audio", &b), ("--image", &c)], [("--audio", &b), ("--image", &c), ("--image", &a)]];
    let mut seen = Vec::new();
    for order in orders {
        let flags: Vec<&str> = order.iter().flat_map(|(flag, path)| [*flag, path.arg()]).collect();
        let fixed = ["--image-tokens", "70", "--precision", "f32"];
        let run = ["run", model.arg(), PROMPT, "--json", "--logprobs", "0", "--temperature", "0", "--max-tokens", "1"];
        let events = text(done(carat(&[&run[..], &fixed, &flags].concat()).output().unwrap()));
        let events: Vec<Value> = events.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let kinds: Vec<&str> = events.iter().map(|event| event["event"].as_str().unwrap()).collect();
        assert_eq!((kinds[0], kinds[kinds.len() - 1]), ("memory", "done"));
        let token = events.iter().find(|event| event["event"] == "token").unwrap();

        let parts: Vec<Value> = order
            .iter()
            .map(|(flag, _)| json!({"type": &flag[2..]}))
            .chain([json!({"type": "text", "text": PROMPT})])
            .collect();
        let conversation =
            file("order.json", json!({"messages": [{"role": "user", "content": parts}]}).to_string().into());
        let rendered = done(carat(&["render", model.arg(), conversation.arg(), "--ids"]).output().unwrap());
        let rendered: Value = serde_json::from_slice(&rendered).unwrap();
        let mut counts = order.iter().map(|(flag, path)| soft_tokens(&model, flag, path));
        // A medium's place is one token there; `<|image>` and `<image|>` or their like stand around its soft tokens.
        let mut sequence = Vec::new();
        for id in rendered["ids"].as_array().unwrap().iter().map(|id| id.as_u64().unwrap()) {
            let marks = match CONTROL.get(id as usize) {
                Some(&"<|image|>") => [12, 13],
                Some(&"<|audio|>") => [14, 15],
                _ => {
                    sequence.push(id);
                    continue;
                }
            };
            sequence.push(marks[0]);
            sequence.extend(std::iter::repeat_n(id, counts.next().unwrap()));
            sequence.push(marks[1]);
        }
        let ids = sequence.iter().map(u64::to_string).collect::<Vec<_>>().join(",");
        let out = Scratch::new("order.safetensors");
        let logits = ["logits", model.arg(), "--tokens", &ids, "--out", out.arg()];
        done(carat(&[&logits[..], &fixed, &flags].concat()).output().unwrap());
        let logits = floats(&tensors(&out.0).get("logits").unwrap().data);
        let (id, logprob) = most_likely(&logits[logits.len() - VOCAB..]);
        assert_eq!(token["id"], id);
        assert!((token["logprob"].as_f64().unwrap() - logprob).abs() < 1e-3, "{token}: {logprob}");
        assert_eq!(events[events.len() - 1]["usage"]["prompt_tokens"], sequence.len());
        seen.push(logprob);
    }
    assert!((seen[0] - seen[1]).abs() > 1e-3, "another order is another prompt");
}

#[test]
fn standard_input_may_be_a_picture_or_a_sound() {
    let model = Tiny::new("12b");
    let fixed = ["run", model.arg(), PROMPT, "--temperature", "0", "--max-tokens", "8", "--image-tokens", "70"];
    for (flag, bytes) in [("--image", bmp(60, 40)), ("--audio", wav(&wave()))] {
        let named = file("named", bytes.clone());
        let piped = done(fed(&[&fixed[..], &[flag, "-"]].concat(), &bytes));
        assert!(!piped.is_empty());
        assert_eq!(piped, done(carat(&[&fixed[..], &[flag, named.arg()]].concat()).output().unwrap()), "{flag}");
    }
    let twice = fed(&[&fixed[..], &["--image", "-", "--audio", "-"]].concat(), &bmp(6, 4));
    assert_eq!(twice.status.code(), Some(2), "{}", String::from_utf8_lossy(&twice.stderr));
    // No prompt to go with it.
    let alone = fed(&["run", model.arg(), "--image", "-"], &bmp(6, 4));
    assert_eq!(alone.status.code(), Some(2), "{}", String::from_utf8_lossy(&alone.stderr));
}

#[cfg(unix)]
mod chat {
    use std::io::Write;

    use super::*;
    use terminal::Terminal;

    /// What ends an answer of a model that talks on.
    const ENDED: &str = "[stopped: --max-tokens reached]";

    #[test]
    fn a_chat_is_shown_pictures_and_sounds() {
        let model = Tiny::new("e2b");
        let (picture, sound) = (file("shown in chat.bmp", bmp(60, 40)), file("heard in chat.wav", wav(&wave())));
        let (broken, saved) = (file("broken.png", b"no picture".to_vec()), Scratch::new("saved.json"));
        let tokens = soft_tokens(&model, "--image", &picture);
        let args = ["run", model.arg(), "--temperature", "0", "--max-tokens", "4", "--image-tokens", "70"];
        let mut chat = Terminal::run(&args);
        chat.wait_for("> ");
        chat.send(&format!("/image {}\r", picture.arg()));
        chat.wait_for(&format!("60x40 pixels, {tokens} soft tokens; it goes with the next message)"));
        chat.wait_for("> ");
        chat.send("what is it\r");
        chat.wait_for(ENDED);
        chat.wait_for("> ");
        for wrong in ["/image no/such.png\r", &format!("/image {}\r", broken.arg()), "/audio\r"] {
            chat.send(wrong);
            chat.wait_for(match wrong.starts_with("/audio") {
                true => "/audio: expected a file",
                false => "error: ",
            });
            chat.wait_for("> ");
        }
        // A file that is dropped alone waits, one within a message goes with it.
        chat.send(&format!("'{}'\r", sound.arg()));
        chat.wait_for("(sound: ");
        chat.wait_for("0.6 s, ");
        chat.wait_for("> ");
        chat.send(&format!("and this {} is\r", picture.arg().replace(' ', "\\ ")));
        chat.wait_for("(picture: ");
        chat.wait_for("> ");
        // With a file that can't be shown nothing is sent, nor waits.
        chat.send(&format!("what {} is {}\r", picture.arg().replace(' ', "\\ "), broken.arg()));
        chat.wait_for("error: ");
        chat.wait_for("(nothing of this line was taken)");
        chat.wait_for("> ");
        chat.send(&format!("/save \"{}\"\r", saved.arg()));
        chat.wait_for("(saved to ");
        chat.wait_for("> ");
        chat.send("/quit\r");
        assert_eq!(chat.end(), Some(0));
        let saved_json: Value = serde_json::from_str(&std::fs::read_to_string(&saved.0).unwrap()).unwrap();
        let content = |i: usize| saved_json["messages"][i]["content"].clone();
        let image = json!({"type": "image", "path": picture.arg()});
        let audio = json!({"type": "audio", "path": sound.arg()});
        let said = |text: &str| json!({"type": "text", "text": text});
        assert_eq!(content(0), json!([image, said(PROMPT)]));
        assert_eq!(content(2), json!([audio, image, said("and this is")]));
        assert_eq!(saved_json["messages"].as_array().unwrap().len(), 4, "{saved_json}");
        // It is read again, with the media's places in it.
        let prompt = text(done(carat(&["render", model.arg(), saved.arg()]).output().unwrap()));
        assert_eq!((prompt.matches("<|image|>").count(), prompt.matches("<|audio|>").count()), (2, 1), "{prompt}");
    }

    #[test]
    fn a_deaf_model_says_so_when_it_is_given_a_sound_and_goes_on() {
        let (model, sound) = (Tiny::new("31b"), file("unheard.wav", wav(&wave())));
        let mut chat = Terminal::run(&["run", model.arg(), "--temperature", "0", "--max-tokens", "4"]);
        chat.wait_for("> ");
        chat.send(&format!("/audio {}\r", sound.arg()));
        chat.wait_for("can't take sounds");
        chat.wait_for("> ");
        // What was refused does not wait for the next message, which this model could not answer then.
        chat.send("what is it\r");
        chat.wait_for(ENDED);
        chat.wait_for("> ");
        chat.send("\x04");
        assert_eq!(chat.end(), Some(0));
    }

    #[test]
    fn a_message_that_does_not_fit_is_dropped_with_what_it_shows() {
        let (model, picture) = (Tiny::new("12b"), file("too-large.bmp", bmp(60, 40)));
        let args = ["run", model.arg(), "--ctx", "32", "--image-tokens", "70"];
        let mut chat = Terminal::run(&args);
        chat.wait_for("> ");
        chat.send(&format!("{} what is it\r", picture.arg()));
        chat.wait_for("in a context of 32; --ctx makes it longer; /reset forgets what was said");
        chat.wait_for("(what was to be shown with the message is dropped as well)");
        chat.wait_for("> ");
        chat.send("\x04");
        assert_eq!(chat.end(), Some(0));
    }

    #[test]
    fn options_of_videos_hold_in_a_chat() {
        let (model, film) = (Tiny::new("12b"), file("no-film.mp4", b"no film".to_vec()));
        let mut chat = Terminal::run(&["run", model.arg(), "--video-fps", "2"]);
        chat.wait_for("> ");
        chat.send(&format!("/video {}\r", film.arg()));
        chat.wait_for("error: --video-fps: ");
        chat.wait_for("has times of its own");
        chat.wait_for("> ");
        chat.send("\x04");
        assert_eq!(chat.end(), Some(0));
    }

    #[test]
    fn ctrl_c_drops_a_file_that_is_being_read_and_the_chat_goes_on() {
        let (model, pipe) = (Tiny::new("12b"), Scratch::new("slow.bmp"));
        assert!(std::process::Command::new("mkfifo").arg(&pipe.0).status().unwrap().success());
        let mut chat = Terminal::run(&["run", model.arg(), "--image-tokens", "70"]);
        chat.wait_for("> ");
        chat.send(&format!("/image {}\r", pipe.arg()));
        // Opened as soon as the chat reads it.
        let mut slow = std::fs::OpenOptions::new().write(true).open(&pipe.0).unwrap();
        for _ in 0..2 {
            chat.send("\x03");
            chat.wait_for("^C");
        }
        // The signals have come; another thread takes them.
        std::thread::sleep(std::time::Duration::from_secs(1));
        slow.write_all(&bmp(60, 40)).unwrap();
        drop(slow);
        chat.wait_for("(stopped)");
        chat.wait_for("> ");
        chat.send("/quit\r");
        assert_eq!(chat.end(), Some(0));
    }
}
