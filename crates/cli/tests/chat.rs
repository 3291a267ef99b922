//! Ctrl-C in a terminal: it stops an answer, and ends the program only where one answer was all that was asked for.
#![cfg(unix)]

mod program;
mod terminal;

use carat_runtime::{ModelFiles, ModelSource};
use program::Scratch;
use terminal::Terminal;

const CTRL_C: &str = "\x03";
const WORD: &str = " demonstration";
/// Tokens that write more than a terminal holds that nobody reads.
const MANY: &str = "2500";

/// The program, made to say one word over and over until its tokens are spent.
fn endless(args: &[&str]) -> Terminal {
    let files = ModelFiles::open(&ModelSource::Embedded).expect("the model is in the program");
    let tokenizer = files.tokenizer().expect("it has a tokenizer");
    let [word] = tokenizer.encode(WORD)[..] else { panic!("`{WORD}` is one token") };
    let bias = format!("{}=1000", word.0);
    let mut all = vec!["run"];
    all.extend_from_slice(args);
    all.extend_from_slice(&["--logit-bias", &bias, "--max-tokens", MANY, "--no-loop-guard"]);
    Terminal::run(&all)
}

#[test]
fn ctrl_c_stops_an_answer_and_the_chat_goes_on() {
    let mut chat = endless(&[]);
    let twice = WORD.repeat(2);
    chat.wait_for("> ");
    chat.send("Who are you?\r");
    chat.wait_for(&twice);
    // The answer can't have ended: nobody takes the rest of it.
    chat.send(CTRL_C);
    chat.wait_for("[stopped]");
    chat.wait_for("> ");
    chat.send("Spell apple.\r");
    chat.wait_for(&twice);
    chat.wait_for("[stopped: --max-tokens reached]");
    chat.wait_for("> ");
    chat.send(CTRL_C);
    chat.wait_for("(/quit or Ctrl-D leaves)");
    chat.wait_for("> ");
    chat.send("/quit\r");
    assert_eq!(chat.end(), Some(0));
}

#[test]
fn ctrl_d_leaves() {
    let mut chat = Terminal::run(&["run"]);
    chat.wait_for("> ");
    chat.send("\x04");
    assert_eq!(chat.end(), Some(0));
}

#[test]
fn ctrl_c_in_the_only_answer_is_130() {
    let mut answer = endless(&["Who are you?"]);
    answer.wait_for(&WORD.repeat(2));
    answer.send(CTRL_C);
    answer.wait_for("[stopped]");
    assert_eq!(answer.end(), Some(130));
}

#[test]
fn chats_at_once_share_a_history_and_what_is_no_text_ends_none() {
    let state = Scratch::new("state");
    let [mut first, mut second] = [(); 2].map(|()| Terminal::with_history(&["run"], Some(&state.0)));
    for chat in [&mut first, &mut second] {
        chat.wait_for("> ");
        chat.send_bytes(b"caf\xe9 au lait\r");
        chat.wait_for("what was typed isn't UTF-8; it was dropped");
        chat.wait_for("> ");
    }
    for (mut chat, said) in [(first, "/think on"), (second, "/think off")] {
        chat.send(&format!("{said}\r"));
        chat.wait_for("(thinking is ");
        chat.wait_for("> ");
        chat.send("\x04");
        assert_eq!(chat.end(), Some(0));
    }
    let history = std::fs::read_to_string(state.0.join("carat/history")).expect("there is one");
    assert!(history.ends_with("\n/think on\n/think off\n") && !history.contains("lait"), "{history}");
}
