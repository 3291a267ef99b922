//! The chat in a terminal: line editing, commands, answers as they come.
//!
//! A line that ends in a backslash goes on; `"""` opens and closes a block of lines. Ctrl-C stops an answer or the taking of a
//! file, never the program; Ctrl-D at an empty line leaves.

use std::fs::File;
use std::io::{self, BufReader, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};
use carat_chat::message::{Content, Conversation, Message, Role, ToolSpec};
use carat_runtime::session::GenerateOptions;
use carat_runtime::{FinishReason, ModelSource, Session};
use rustyline::DefaultEditor;
use rustyline::error::ReadlineError;
use serde_json::{Value, json};

use super::attach::{self, Attached};
use super::printer::{Printer, Style};
use crate::media::VideoArgs;
use crate::pending::Pending;
use crate::shown::Kind;
use crate::{args, interrupt, output};

const PROMPT: &str = "> ";
const CONTINUED: &str = ". ";
const BLOCK: &str = "\"\"\"";
/// Entries of the history that are kept.
const MAX_HISTORY: usize = 1000;

const HELP: &str = "\
/help           this list
/think on|off   let the model think before it answers, or not
/image FILE     show a picture with the next message; dropping a file into the terminal does the same
/audio FILE     let it hear a sound with the next message
/video PATH     let it watch a video, or the pictures in a folder, with the next message
/system TEXT    instructions that open the conversation; without TEXT: none
/reset          forget what was said
/save FILE      write the conversation as JSON, as `carat render` reads it; of pictures and sounds their paths
/quit           leave, as does Ctrl-D
A line ending in \\ goes on; \"\"\" opens and closes a block of lines. // sends a line that begins with /.
Ctrl-C stops an answer or the taking of a file.";

/// What a line of input asks for.
#[derive(Debug, PartialEq)]
enum Input<'a> {
    Nothing,
    Say(&'a str),
    Help,
    Think(bool),
    Attach(Kind, PathBuf),
    System(&'a str),
    Reset,
    Save(PathBuf),
    Quit,
    /// With what to tell about it.
    Wrong(String),
}

/// Chats until the user leaves.
pub fn run(
    session: &mut Session,
    source: &ModelSource,
    mut conversation: Conversation,
    options: &GenerateOptions,
    videos: &VideoArgs,
) -> anyhow::Result<()> {
    let mut out = output::stdout();
    writeln!(out, "{source}: a chat; /help lists the commands")?;
    if session.tiles().are_wanted() {
        writeln!(out, "(weights are read as stored; `carat pack {source}` makes answers faster)")?;
    }
    out.flush()?;
    conversation.add_generation_prompt = true;
    let mut editor = editor()?;
    // After the editor, which takes Ctrl-C for itself when it is made, and needs it only as a key.
    interrupt::listen_in_chat();
    let mut chat = Chat { conversation, attached: Attached::default(), videos };
    let history = history_file();
    if let Some(path) = &history {
        // No history yet is no error.
        let _ = editor.load_history(path);
    }
    let ended = chat.until_left(session, &mut editor, options, &mut out);
    if let Some(path) = &history {
        save_history(&mut editor, path);
    }
    ended
}

fn editor() -> anyhow::Result<DefaultEditor> {
    let config = rustyline::Config::builder().max_history_size(MAX_HISTORY)?.auto_add_history(false).build();
    Ok(DefaultEditor::with_config(config)?)
}

/// `carat/history` in the state directory of the XDG base directory specification.
fn history_file() -> Option<PathBuf> {
    let set = |name: &str| std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
    let state = set("XDG_STATE_HOME").or_else(|| Some(set("HOME")?.join(".local/state")))?;
    Some(state.join("carat/history"))
}

/// Adds what was typed here; another chat may have added to it meanwhile.
fn save_history(editor: &mut DefaultEditor, path: &Path) {
    let saved = path
        .parent()
        .map_or(Ok(()), std::fs::create_dir_all)
        .map_err(ReadlineError::from)
        .and_then(|()| editor.append_history(path));
    if let Err(error) = saved {
        let _ = writeln!(std::io::stderr(), "note: {}: {error}", path.display());
    }
}

/// A whole message; `None` at the end of input.
fn read(editor: &mut DefaultEditor) -> anyhow::Result<Option<String>> {
    let mut message = Lines::default();
    loop {
        match editor.readline(if message.is_empty() { PROMPT } else { CONTINUED }) {
            Ok(line) => {
                if let Some(text) = message.push(&line) {
                    if !text.trim().is_empty() {
                        editor.add_history_entry(text.as_str())?;
                    }
                    return Ok(Some(text));
                }
            }
            // Ctrl-C at the prompt drops what was typed.
            Err(ReadlineError::Interrupted) => {
                message = Lines::default();
                let _ = writeln!(std::io::stderr(), "(/quit or Ctrl-D leaves)");
            }
            Err(ReadlineError::Io(error)) if error.kind() == io::ErrorKind::InvalidData => {
                message = Lines::default();
                let _ = writeln!(io::stderr(), "what was typed isn't UTF-8; it was dropped");
            }
            Err(ReadlineError::Eof) => return Ok(None),
            Err(error) => return Err(error).context("reading the terminal"),
        }
    }
}

/// Lines that make one message.
#[derive(Default)]
struct Lines {
    text: String,
    in_block: bool,
    begun: bool,
}

impl Lines {
    fn is_empty(&self) -> bool {
        !self.begun
    }

    /// Takes a line; the message, if it is complete.
    fn push(&mut self, line: &str) -> Option<String> {
        if self.in_block {
            let (rest, closed) = line.trim_end().strip_suffix(BLOCK).map_or((line, false), |rest| (rest, true));
            if !closed || !rest.is_empty() {
                self.line(rest);
            }
            return closed.then(|| std::mem::take(&mut self.text));
        }
        if let (true, Some(rest)) = (self.is_empty(), line.trim_start().strip_prefix(BLOCK)) {
            if let Some(whole) = rest.trim_end().strip_suffix(BLOCK) {
                return Some(whole.to_owned());
            }
            self.in_block = true;
            match rest.is_empty() {
                true => self.begun = true,
                false => self.line(rest),
            }
            return None;
        }
        if let Some(begun) = line.strip_suffix('\\') {
            self.line(begun);
            return None;
        }
        self.line(line);
        Some(std::mem::take(&mut self.text))
    }

    fn line(&mut self, line: &str) {
        if self.begun && !(self.in_block && self.text.is_empty()) {
            self.text.push('\n');
        }
        self.begun = true;
        self.text.push_str(line);
    }
}

/// Names of commands.
const COMMANDS: [&str; 10] = ["help", "think", "image", "audio", "video", "system", "reset", "save", "quit", "exit"];

/// Whether a line is a command, whose paths are its own and were not dropped.
fn is_command(text: &str) -> bool {
    let name = text.trim_start().strip_prefix('/').and_then(|command| command.split_whitespace().next());
    name.is_some_and(|name| COMMANDS.contains(&name))
}

fn parse(text: &str) -> Input<'_> {
    if text.trim().is_empty() {
        return Input::Nothing;
    }
    let Some(command) = text.trim_start().strip_prefix('/') else { return Input::Say(text) };
    if command.starts_with('/') {
        return Input::Say(command);
    }
    let (name, rest) = command.split_once(char::is_whitespace).unwrap_or((command.trim_end(), ""));
    let rest = rest.trim();
    match (name, rest) {
        ("help", "") => Input::Help,
        ("think", "on") => Input::Think(true),
        ("think", "off") => Input::Think(false),
        ("think", _) => Input::Wrong("/think: expected on or off".into()),
        ("image" | "audio" | "video", "") => Input::Wrong(format!("/{name}: expected a file")),
        ("image", path) => named(name, path, |path| Input::Attach(Kind::Image, path)),
        ("audio", path) => named(name, path, |path| Input::Attach(Kind::Audio, path)),
        ("video", path) => named(name, path, |path| Input::Attach(Kind::Video, path)),
        ("system", text) => Input::System(text),
        ("reset", "") => Input::Reset,
        ("save", "") => Input::Wrong("/save: expected a file".into()),
        ("save", path) => named(name, path, Input::Save),
        ("quit" | "exit", "") => Input::Quit,
        ("help" | "reset" | "quit" | "exit", _) => Input::Wrong(format!("/{name} takes nothing after it")),
        _ => Input::Wrong(format!("there is no command /{name}; /help lists them, // sends a line that begins with /")),
    }
}

/// A file named after a command: as typed, in quotes, or as a terminal writes one that is dropped on it.
fn named<'a>(command: &str, path: &str, input: impl FnOnce(PathBuf) -> Input<'a>) -> Input<'a> {
    attach::path_of(path).map_or_else(|| Input::Wrong(format!("/{command}: `{path}` is no path")), input)
}

/// What was said and shown.
struct Chat<'a> {
    conversation: Conversation,
    attached: Attached,
    videos: &'a VideoArgs,
}

impl Chat<'_> {
    /// Takes line after line.
    fn until_left(
        &mut self,
        session: &mut Session,
        editor: &mut DefaultEditor,
        options: &GenerateOptions,
        out: &mut impl Write,
    ) -> anyhow::Result<()> {
        while let Some(text) = read(editor)? {
            let (files, text) = if is_command(&text) { (Vec::new(), text) } else { attach::dropped(&text) };
            let (waiting, mut taken) = (self.attached.waiting(), true);
            for (kind, path) in &files {
                taken = taken && self.attach(session, *kind, path, out)?;
            }
            if !taken {
                // A message is nothing without what it shows.
                self.attached.leave_waiting(waiting);
                writeln!(out, "(nothing of this line was taken)")?;
                out.flush()?;
                continue;
            }
            match parse(&text) {
                Input::Nothing => {}
                Input::Quit => break,
                Input::Say(said) => self.say(session, said, options, out)?,
                Input::Attach(kind, path) => {
                    self.attach(session, kind, &path, out)?;
                }
                command => self.command(command, out)?,
            }
            out.flush()?;
        }
        Ok(())
    }

    fn command(&mut self, command: Input<'_>, out: &mut impl Write) -> anyhow::Result<()> {
        let messages = &mut self.conversation.messages;
        match command {
            Input::Help => writeln!(out, "{HELP}")?,
            Input::Think(on) => {
                self.conversation.enable_thinking = on;
                writeln!(out, "(thinking is {})", if on { "on" } else { "off" })?;
            }
            Input::System(text) => {
                let opened = messages.first().is_some_and(|m| m.role == Role::System);
                if opened {
                    messages.remove(0);
                }
                if text.is_empty() {
                    writeln!(out, "(no instructions)")?;
                } else {
                    messages.insert(0, Message::text(Role::System, text));
                    writeln!(out, "(instructions set)")?;
                }
            }
            Input::Reset => {
                messages.retain(|m| m.role == Role::System);
                self.attached.keep(&self.conversation);
                writeln!(out, "(forgotten)")?;
            }
            Input::Save(path) => match self.save(&path) {
                Ok(()) => writeln!(out, "(saved to {})", path.display())?,
                Err(error) => writeln!(std::io::stderr(), "error: {}", output::chain(&error))?,
            },
            Input::Wrong(message) => writeln!(std::io::stderr(), "{message}")?,
            Input::Nothing | Input::Say(_) | Input::Attach(..) | Input::Quit => {}
        }
        Ok(())
    }

    /// Writes the conversation to a file of its own or in the place of an earlier one.
    fn save(&self, path: &Path) -> anyhow::Result<()> {
        ensure!(
            !path.is_file() || is_conversation(path),
            "{} is there already and is no saved conversation; choose another name",
            path.display()
        );
        let pending = Pending::replacing(path, None, std::iter::empty())?;
        let mut messages: Vec<_> = self.conversation.messages.iter().map(Message::to_openai).collect();
        self.attached.note_paths(&mut messages);
        let value = json!({
            "messages": messages,
            "tools": self.conversation.tools.iter().map(ToolSpec::to_openai).collect::<Vec<_>>(),
            "enable_thinking": self.conversation.enable_thinking,
            "add_generation_prompt": false,
        });
        let mut file = pending.create_file()?;
        writeln!(file, "{value:#}").and_then(|()| file.flush()).with_context(|| path.display().to_string())?;
        pending.commit()
    }

    /// Attaches a file to the next message; whether that could be done.
    fn attach(&mut self, session: &mut Session, kind: Kind, path: &Path, out: &mut impl Write) -> anyhow::Result<bool> {
        interrupt::clear();
        let attached = self.attached.attach(session, kind, path, self.videos);
        match &attached {
            Ok(told) => writeln!(out, "{told}")?,
            // Whatever failed then, that is why.
            Err(_) if interrupt::asked() => writeln!(out, "(stopped)")?,
            Err(error) => writeln!(std::io::stderr(), "error: {}", output::chain(error))?,
        }
        Ok(attached.is_ok())
    }

    /// One turn: what the user said, with what waited to be shown, and the answer as it comes.
    fn say(
        &mut self,
        session: &mut Session,
        text: &str,
        options: &GenerateOptions,
        out: &mut impl Write,
    ) -> anyhow::Result<()> {
        self.conversation.messages.push(super::question(text.to_owned(), self.attached.say()));
        interrupt::clear();
        let longer = format!("{}; /reset forgets what was said", args::longer_context(session));
        let mut printer = Printer::new(out, Style::of_stdout(), None);
        let answer = session
            .generate_with(&self.conversation, self.attached.media(), options, &mut |event| printer.event(&event));
        let answer = match answer {
            Ok(answer) => answer,
            Err(error) => {
                // The chat goes on without the message that could not be answered.
                writeln!(std::io::stderr(), "error: {}", super::too_long(error, &longer))?;
                if self.take_back() {
                    writeln!(out, "(what was to be shown with the message is dropped as well)")?;
                }
                return Ok(());
            }
        };
        printer.finish(&answer, &longer)?;
        interrupt::clear();
        if answer.finish == FinishReason::Cancelled && is_empty(&answer.message) {
            self.take_back();
        } else {
            self.conversation.messages.push(answer.message);
        }
        Ok(())
    }

    /// Forgets the last message and what it showed; whether that was anything.
    fn take_back(&mut self) -> bool {
        let before = self.attached.media().len();
        self.conversation.messages.pop();
        self.attached.keep(&self.conversation);
        self.attached.media().len() < before
    }
}

/// Whether a file is what `/save` writes, or holds nothing.
fn is_conversation(path: &Path) -> bool {
    let Ok(file) = File::open(path) else { return false };
    let is_empty = file.metadata().is_ok_and(|found| found.len() == 0);
    is_empty || serde_json::from_reader(BufReader::new(file)).is_ok_and(|found: Value| found["messages"].is_array())
}

fn is_empty(message: &Message) -> bool {
    let said = match &message.content {
        Content::Empty => false,
        Content::Text(text) => !text.is_empty(),
        Content::Parts(_) | Content::Object(_) => true,
    };
    !said && message.tool_calls.is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Messages that a sequence of lines makes.
    #[track_caller]
    fn check(lines: &[&str], expected: &[&str]) {
        let mut pending = Lines::default();
        let mut messages = Vec::new();
        for line in lines {
            if let Some(message) = pending.push(line) {
                messages.push(message);
                pending = Lines::default();
            }
        }
        assert_eq!(messages, expected);
    }

    #[test]
    fn a_backslash_goes_on_and_quotes_make_blocks() {
        check(&["one", "two"], &["one", "two"]);
        check(&["one\\", "two\\", "three"], &["one\ntwo\nthree"]);
        check(&["\"\"\"", "one", "", "two\\", "\"\"\"", "next"], &["one\n\ntwo\\", "next"]);
        check(&["\"\"\"one", "two\"\"\""], &["one\ntwo"]);
        check(&["\"\"\"one\"\"\""], &["one"]);
        check(&["\"\"\"open", "still"], &[]);
    }

    #[test]
    fn lines_that_begin_with_a_slash_are_commands() {
        assert_eq!(parse("hello /help"), Input::Say("hello /help"));
        assert_eq!(parse("  "), Input::Nothing);
        assert_eq!(parse("/help"), Input::Help);
        assert_eq!(parse("/think on"), Input::Think(true));
        assert_eq!(parse("/think  off "), Input::Think(false));
        assert_eq!(parse("/system be brief"), Input::System("be brief"));
        for path in ["a file.json", "\"a file.json\"", "'a file.json'", "a\\ file.json"] {
            assert_eq!(parse(&format!("/save {path}")), Input::Save("a file.json".into()), "{path}");
        }
        for (text, kind, path) in [
            ("/image my cat.png", Kind::Image, "my cat.png"),
            ("/image \"my cat.png\"", Kind::Image, "my cat.png"),
            ("/audio '/a b/c.mp3' ", Kind::Audio, "/a b/c.mp3"),
            ("/video /a\\ b/c.gif", Kind::Video, "/a b/c.gif"),
            ("/video file:///a%20b.gif", Kind::Video, "/a b.gif"),
        ] {
            assert!(is_command(text), "{text}");
            assert_eq!(parse(text), Input::Attach(kind, path.into()));
        }
        assert!(!is_command("/tmp/a.png what is this?") && !is_command("/a.png") && !is_command("image a.png"));
        assert_eq!(parse("/quit"), Input::Quit);
        assert_eq!(parse("//etc"), Input::Say("/etc"));
        for wrong in ["/think", "/think maybe", "/save", "/image", "/audio ", "/video", "/nothing", "/reset all"] {
            assert!(matches!(parse(wrong), Input::Wrong(_)), "{wrong}");
        }
    }

    fn chat(conversation: Conversation, videos: &VideoArgs) -> Chat<'_> {
        Chat { conversation, attached: Attached::default(), videos }
    }

    #[test]
    fn what_is_saved_says_all_and_replaces_nothing_else() {
        let dir = std::env::temp_dir().join(format!("carat-saved-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let (file, notes) = (dir.join("a.json"), dir.join("notes.json"));
        let tools = json!([{"type": "function", "function": {"name": "look", "description": "Looks"}}]);
        let value =
            json!({"messages": [{"role": "user", "content": "hi"}], "tools": tools, "add_generation_prompt": false});
        let conversation = Conversation::from_openai(&value).unwrap();
        let videos = VideoArgs::default();
        let chat = chat(conversation.clone(), &videos);
        // The second takes the place of the first.
        for _ in 0..2 {
            chat.save(&file).unwrap();
            let saved: Value = serde_json::from_str(&std::fs::read_to_string(&file).unwrap()).unwrap();
            assert_eq!(Conversation::from_openai(&saved).unwrap(), conversation);
        }
        for text in ["my notes", "{\"model_type\": \"gemma4\"}", "[]"] {
            std::fs::write(&notes, text).unwrap();
            let error = chat.save(&notes).unwrap_err().to_string();
            assert!(error.contains("notes.json is there already and is no saved conversation"), "{error}");
            assert_eq!(std::fs::read_to_string(&notes).unwrap(), text);
        }
        std::fs::write(&notes, "").unwrap();
        chat.save(&notes).unwrap();
        assert!(chat.save(&dir).is_err());
        std::fs::remove_dir_all(&dir).unwrap();
    }

    #[test]
    fn instructions_replace_each_other_and_survive_a_reset() {
        let videos = VideoArgs::default();
        let mut chat = chat(Conversation::default(), &videos);
        let mut out = Vec::new();
        chat.command(Input::System("one"), &mut out).unwrap();
        chat.conversation.messages.push(Message::text(Role::User, "hi"));
        chat.command(Input::System("two"), &mut out).unwrap();
        chat.command(Input::Reset, &mut out).unwrap();
        assert_eq!(chat.conversation.messages, [Message::text(Role::System, "two")]);
        chat.command(Input::System(""), &mut out).unwrap();
        assert!(chat.conversation.messages.is_empty());
    }
}
