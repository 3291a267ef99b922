//! `carat run`: one answer, or a chat.

mod attach;
mod chat;
mod options;
mod printer;

use std::io::{IsTerminal, Read, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow};
use carat_chat::message::{Conversation, Message, Part, Role};
use carat_model::MemoryPlan;
use carat_runtime::session::GenerateOptions;
use carat_runtime::video::SoundTrack;
use carat_runtime::{Error, FinishReason, ImageTokens, LoadOptions, Medium, ModelFiles, ModelSource, Session, host};
use serde_json::json;

use crate::args::{self, EncoderArgs, EngineArgs, Interrupted, UsageError};
use crate::shown::{self, Kind, ShownArgs};
use crate::{interrupt, media, output, pull};
use options::SamplingArgs;
use printer::{Printer, Style};

/// Answer a prompt, or chat
///
/// Without PROMPT, standard input is the prompt if it is not a terminal; in a terminal a chat begins. With both, standard
/// input is appended to PROMPT. Pictures, sounds and videos come before PROMPT, in the order of their flags. A single
/// argument that is a path or a short name (e2b, e4b, 12b, 26b, 31b, also with :QUANT) is MODEL, otherwise PROMPT.
#[derive(clap::Args)]
pub struct Args {
    /// Directory with config.json, .gguf or .safetensors file, or a name (e2b, ORG/NAME); left out: the embedded model
    #[arg(value_name = "MODEL")]
    first: Option<String>,
    /// What to answer
    #[arg(value_name = "PROMPT")]
    second: Option<String>,
    /// Instructions that open the conversation
    #[arg(long, value_name = "TEXT")]
    system: Option<String>,
    #[command(flatten)]
    shown: ShownArgs,
    #[command(flatten)]
    videos: media::VideoArgs,
    /// The most soft tokens of a picture: 70, 140, 280, 560 or 1120; auto: as few as show all its pixels; left out: what the
    /// model names, 280 where it names none
    #[arg(long, value_name = "N", value_parser = media::image_tokens)]
    image_tokens: Option<ImageTokens>,
    /// Let the model think before it answers
    #[arg(long)]
    think: bool,
    /// Most tokens of thought, after which the answer must come
    #[arg(long, value_name = "N", value_parser = args::whole::<usize>)]
    think_budget: Option<usize>,
    /// Tools the model may call: a JSON list in the OpenAI shape
    #[arg(long, value_name = "FILE")]
    tools: Option<PathBuf>,
    /// Print one JSON object per event
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    sampling: SamplingArgs,
    #[command(flatten)]
    encoders: EncoderArgs,
    #[command(flatten)]
    engine: EngineArgs,
}

/// Runs the subcommand.
pub fn run(args: &Args) -> anyhow::Result<()> {
    let (model, prompt) = model_and_prompt(args.first.as_deref(), args.second.as_deref());
    let source = args::source(model.as_ref())?;
    args::present(&source)?;
    let media = media(&source, args)?;
    let prompt = if args.shown.takes_stdin() { prompt } else { whole_prompt(prompt)? };
    if prompt.is_none() && !media.is_empty() {
        return Err(UsageError("--image, --audio and --video: expected a PROMPT to go with them".into()).into());
    }
    if prompt.is_none() && args.json {
        return Err(UsageError("--json: expected a PROMPT or standard input".into()).into());
    }
    let conversation = conversation(args)?;
    let mut out = output::stdout();
    let mut session = load(&source, args, prompt.is_none(), &mut out)?;
    let mut options = GenerateOptions::from_defaults(session.defaults());
    args.sampling.apply(&mut options);
    options.think_budget = args.think_budget;
    options.sampling.check(session.decoder().config().vocab_size).map_err(|e| UsageError(e.to_string()))?;
    match prompt {
        Some(prompt) => answer(&mut session, conversation, (prompt, &media), &options, args, &mut out),
        None => chat::run(&mut session, &source, conversation, &options, &args.videos),
    }
}

/// Which argument is what.
fn model_and_prompt(first: Option<&str>, second: Option<&str>) -> (Option<PathBuf>, Option<String>) {
    let Some(first) = first else { return (None, None) };
    let path = Path::new(first);
    let is_model_file = path.extension().is_some_and(|e| e == "gguf" || e == "safetensors");
    let is_model = path.is_dir() || (is_model_file && path.is_file());
    let like_a_path = !first.contains(char::is_whitespace) && (first.contains('/') || is_model_file);
    if second.is_some() || is_model || like_a_path || pull::looks_like_a_name(first) {
        return (Some(path.into()), second.map(str::to_owned));
    }
    (None, Some(first.to_owned()))
}

/// `PROMPT` and standard input where that isn't a terminal; `None` for a chat.
fn whole_prompt(argument: Option<String>) -> anyhow::Result<Option<String>> {
    if std::io::stdin().is_terminal() {
        return match argument {
            Some(prompt) if prompt.trim().is_empty() => Err(UsageError("PROMPT is empty".into()).into()),
            other => Ok(other),
        };
    }
    let mut piped = Vec::new();
    std::io::stdin().lock().read_to_end(&mut piped).context("reading standard input")?;
    let piped = String::from_utf8(piped).context("standard input: expected UTF-8")?;
    let parts = [argument.as_deref().unwrap_or_default(), piped.trim_end_matches(['\r', '\n'])];
    let prompt = parts.into_iter().filter(|part| !part.trim().is_empty()).collect::<Vec<_>>().join("\n\n");
    if prompt.is_empty() {
        return Err(
            UsageError("no prompt: expected PROMPT, text on standard input, or a terminal to chat in".into()).into()
        );
    }
    Ok(Some(prompt))
}

/// What there is before the first prompt.
fn conversation(args: &Args) -> anyhow::Result<Conversation> {
    let tools = match &args.tools {
        None => json!([]),
        Some(path) => {
            let name = || path.display().to_string();
            let text = std::fs::read_to_string(path).with_context(name)?;
            serde_json::from_str(&text)
                .map_err(|error| anyhow!("{}: not JSON: {error}; expected a list of tools", path.display()))?
        }
    };
    let place = || args.tools.as_ref().map_or(String::new(), |path| path.display().to_string());
    let mut conversation = Conversation::from_openai(&json!({ "messages": [], "tools": tools })).with_context(place)?;
    conversation.enable_thinking = args.think;
    if let Some(system) = &args.system {
        conversation.messages.push(Message::text(Role::System, system));
    }
    Ok(conversation)
}

/// The media of the command line, in its order.
fn media(source: &ModelSource, args: &Args) -> anyhow::Result<Vec<Medium>> {
    let files = &args.shown.files;
    args::one_stdin(files.iter().map(|(_, path)| path))?;
    let listens = args.shown.has(Kind::Video) && !args.videos.mute;
    let track = if listens { SoundTrack::of(&args.encoders.open(source)?)? } else { SoundTrack::Left };
    let read = |(kind, path): &(Kind, PathBuf)| kind.read(path, &args.videos, track).map_err(without_sound);
    files.iter().map(read).collect()
}

/// What can be done about a video whose sound can't be heard.
fn without_sound(error: anyhow::Error) -> anyhow::Error {
    match error.downcast_ref() {
        Some(Error::VideoSound { .. }) => anyhow!("{error}; --mute watches it without"),
        _ => error,
    }
}

/// Says of a prompt that doesn't fit what there is to say of a full context.
fn too_long(error: Error, longer: &str) -> anyhow::Error {
    match error {
        Error::PromptLength { .. } => anyhow!("{error}; {longer}"),
        _ => error.into(),
    }
}

/// What the user says, with the media before the text, as the models were trained.
fn question(prompt: String, media: &[Medium]) -> Message {
    if media.is_empty() {
        return Message::text(Role::User, prompt);
    }
    let parts = media.iter().map(shown::part).chain([Part::Text(prompt)]).collect();
    Message::user(parts)
}

/// Loads the model with room for the pictures and sounds that are shown, or may be in a chat. Where that fails for what nobody has
/// shown yet, for want of memory or of a sound encoder file, the chat goes without.
fn load(source: &ModelSource, args: &Args, is_chat: bool, out: &mut impl Write) -> anyhow::Result<Session> {
    let mut options = args.engine.load_options();
    let files = args.encoders.open(source)?;
    let tokens = args.image_tokens.unwrap_or_else(|| files.image_tokens());
    let videos = args.shown.has(Kind::Video);
    options.image_tokens = media::room(is_chat || args.shown.has(Kind::Image), videos, tokens);
    options.sounds = is_chat || args.shown.has(Kind::Audio) || videos && !args.videos.mute;
    let error = match load_with(files, &options, args.json, out)? {
        Err(error) if is_chat => error,
        loaded => return Ok(loaded?),
    };
    (options.image_tokens, options.sounds) = (None, false);
    let session = load_with(args.encoders.open(source)?, &options, args.json, out)??;
    let text = error.to_string();
    let _ = writeln!(
        std::io::stderr(),
        "note: no pictures or sounds in this chat: {}",
        text.lines().next().unwrap_or_default()
    );
    Ok(session)
}

/// Loads the model and says what memory it takes; the outer error is that of saying so.
fn load_with(
    files: ModelFiles,
    options: &LoadOptions,
    json: bool,
    out: &mut impl Write,
) -> anyhow::Result<Result<Session, Error>> {
    let mut written = Ok(());
    let session = Session::of(files, options, &mut |plan| {
        if json {
            written = output::json_line(out, &memory_json(plan));
        } else {
            let _ = writeln!(std::io::stderr(), "{}", memory_line(plan));
        }
    });
    written?;
    Ok(session)
}

fn memory_line(plan: &MemoryPlan) -> String {
    let size = |n: usize| output::bytes(n as u64);
    let mut line = format!(
        "memory: {} weights (mapped), {} cache for {} tokens, {} for computing and the program",
        size(plan.file.weights + plan.encoder_weights()),
        size(plan.kv_bytes()),
        plan.ctx,
        size(plan.taken() - plan.kv_bytes())
    );
    if let Some(free) = host::available_memory() {
        line += &format!("; {} free", output::bytes(free));
        if plan.working_set() as u64 > free {
            line += ", less than it takes to keep the weights in memory: expect it to be slow";
        }
    }
    line
}

fn memory_json(plan: &MemoryPlan) -> serde_json::Value {
    json!({
        "event": "memory", "ctx": plan.ctx, "weights": plan.file.weights, "kv_bytes": plan.kv_bytes(),
        "intermediates": plan.scratch, "workspace": plan.workspace, "program": plan.program, "rearranged": plan.file.rearranged,
        "per_layer_table": plan.file.per_layer_table, "encoders": plan.encoders().map(|encoder| encoder.buffers).sum::<usize>(),
        "encoder_weights": plan.encoder_weights(), "soft_tokens": plan.soft_tokens(), "free": host::available_memory(),
    })
}

/// One answer to one prompt.
fn answer(
    session: &mut Session,
    mut conversation: Conversation,
    (prompt, media): (String, &[Medium]),
    options: &GenerateOptions,
    args: &Args,
    out: &mut impl Write,
) -> anyhow::Result<()> {
    interrupt::listen();
    conversation.messages.push(question(prompt, media));
    conversation.add_generation_prompt = true;
    let tokenizer = session.tokenizer().clone();
    let style = if args.json { Style::Json } else { Style::of_stdout() };
    let shown = options.sampling.logprobs.is_some().then_some(&*tokenizer);
    let mut printer = Printer::new(out, style, shown);
    let longer = args::longer_context(session);
    let answer = session
        .generate_with(&conversation, media, options, &mut |event| printer.event(&event))
        .map_err(|error| too_long(error, longer))?;
    printer.finish(&answer, longer)?;
    if answer.finish == FinishReason::Cancelled { Err(Interrupted.into()) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_video_that_can_t_be_heard_may_be_watched_without_sound() {
        let error = without_sound(Error::VideoSound { name: "a.mp4".into(), reason: "it hums".into() }.into());
        assert_eq!(error.to_string(), "a.mp4: its sound can't be heard: it hums; --mute watches it without");
        assert_eq!(without_sound(anyhow!("else")).to_string(), "else");
    }

    #[test]
    fn one_argument_is_a_model_if_it_is_a_path_or_a_name_and_else_a_prompt() {
        assert_eq!(model_and_prompt(None, None), (None, None));
        for text in ["hello", "What is 12/4?", "What is 12 * 7?", "no/such thing", "e2b please"] {
            assert_eq!(model_and_prompt(Some(text), None), (None, Some(text.to_owned())));
        }
        let here = env!("CARGO_MANIFEST_DIR");
        for text in [here, "no/such", "missing.gguf", "./x.safetensors", "e2b", "E2B:q4_0"] {
            assert_eq!(model_and_prompt(Some(text), None), (Some(text.into()), None));
        }
        assert_eq!(model_and_prompt(Some("any"), Some("hi")), (Some("any".into()), Some("hi".into())));
    }
}
