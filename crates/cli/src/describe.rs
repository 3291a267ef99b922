//! `carat describe`: pictures to a table of descriptions.

mod records;
mod walk;

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use anyhow::bail;
use carat_chat::message::{Content, Conversation, Message, Part};
use carat_media::picture;
use carat_runtime::session::GenerateOptions;
use carat_runtime::{Error, FinishReason, ImageTokens, Medium, Session};

use crate::args::{self, EncoderArgs, EngineArgs, Interrupted, UsageError};
use crate::batch::{self, Failures};
use crate::{interrupt, media, output};
use records::{Format, Outcome, Record};

/// What the model is asked about each picture.
const PROMPT: &str =
    "Describe this picture in a few sentences: what it shows, how it is arranged, and what can be read in it.";

/// Describe pictures, one line of JSON or CSV for each
///
/// A folder stands for the pictures in it and in its folders, told by their names (.jpg, .jpeg, .png, .webp, .avif, .gif, .bmp,
/// .tif, .tiff). A picture that fails has an `error` instead of a description, the others go on, and the exit code is 1. Ctrl-C
/// keeps what is done.
#[derive(clap::Args)]
#[command(override_usage = "carat describe [OPTIONS] [MODEL] <FILE|DIR>...")]
pub struct Args {
    /// Pictures and folders, `-` is standard input; before them, the model, if it isn't the embedded one
    #[arg(value_name = "FILE|DIR", required = true)]
    files: Vec<PathBuf>,
    /// The model, said explicitly: a directory with config.json, .gguf or .safetensors file, or a name
    #[arg(long, value_name = "MODEL")]
    model: Option<PathBuf>,
    /// What to ask about each picture
    #[arg(long, value_name = "TEXT", default_value = PROMPT)]
    prompt: String,
    /// The most soft tokens of a picture: 70, 140, 280, 560 or 1120; auto: as few as show all its pixels; left out: what the
    /// model names, 280 where it names none
    #[arg(long, value_name = "N", value_parser = media::image_tokens)]
    image_tokens: Option<ImageTokens>,
    /// Most tokens of a description
    #[arg(long, value_name = "N", default_value_t = 512, value_parser = args::at_least_one)]
    max_tokens: usize,
    /// What to write [default: jsonl, or csv where --out ends in .csv]
    #[arg(long, value_enum)]
    format: Option<Format>,
    /// The file to write to, line by line
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Go on with --out: pictures that are described there are left out, those that failed are tried again
    #[arg(long, requires = "out")]
    resume: bool,
    #[command(flatten)]
    encoders: EncoderArgs,
    #[command(flatten)]
    engine: EngineArgs,
}

/// Runs the subcommand.
pub fn run(args: &Args) -> anyhow::Result<()> {
    let (source, given) = batch::model_and_files(args.model.as_ref(), &args.files)?;
    if args.prompt.trim().is_empty() {
        bail!(UsageError("--prompt is empty".into()));
    }
    let format = args.format.unwrap_or_else(|| Format::of(args.out.as_deref()));
    let mut failures = Failures::default();
    let mut pictures = Vec::new();
    for path in &given {
        match walk::pictures(path) {
            Ok((found, failed)) => {
                pictures.extend(found);
                failed.iter().for_each(|error| failures.add(error));
            }
            Err(error) => failures.add(&error),
        }
    }
    let total = pictures.len() + failures.count();
    let mut out = records::Output::open(args.out.as_deref(), format, args.resume)?;
    let before = pictures.len();
    pictures.retain(|path| !out.has(&media::name(path)));
    if before > pictures.len() {
        output::note(&format!("{} of {before} are described in {} already", before - pictures.len(), out.name()));
    }
    if pictures.is_empty() {
        return failures.result(total, "described");
    }
    interrupt::listen();
    let mut options = args.engine.load_options();
    let files = args.encoders.open(&source)?;
    options.image_tokens = Some(args.image_tokens.unwrap_or_else(|| files.image_tokens()));
    let mut session = Session::of(files, &options, &mut |_| {})?;
    let bar = batch::progress(pictures.len() as u64, "pictures", args.out.is_none());
    for (i, path) in pictures.iter().enumerate() {
        bar.set_message(path.display().to_string());
        let record = if interrupt::asked() { None } else { describe(&mut session, path, args)? };
        let Some(record) = record else {
            bar.finish_and_clear();
            output::note(&format!("[stopped: {i} of {} are described]", pictures.len()));
            return Err(Interrupted.into());
        };
        if let Outcome::Failed { error } = &record.outcome {
            bar.suspend(|| failures.add(&anyhow::anyhow!("{error}")));
        }
        bar.suspend(|| out.write(&record))?;
        bar.inc(1);
    }
    bar.finish_and_clear();
    failures.result(total, "described")
}

/// What is to be said about one picture; `None` if Ctrl-C came before its end. An error is one that other pictures would have
/// as well.
fn describe(session: &mut Session, path: &Path, args: &Args) -> anyhow::Result<Option<Record>> {
    let file = media::name(path);
    let failed = |error: String| Ok(Some(Record { file: file.clone(), outcome: Outcome::Failed { error } }));
    let bytes = match media::picture_file(path) {
        Ok((_, bytes)) => bytes,
        Err(error) => return failed(output::chain(&error)),
    };
    // The session says what is wrong with a picture that can't be decoded.
    let size = picture::decode(&bytes).map(|picture| (picture.width, picture.height));
    let parts = vec![Part::Image, Part::Text(args.prompt.clone())];
    let conversation =
        Conversation { messages: vec![Message::user(parts)], add_generation_prompt: true, ..Conversation::default() };
    let options = GenerateOptions::plain(session.defaults(), args.max_tokens);
    let medium = Medium::Image { name: file.clone(), bytes };
    let answer = session.generate_with(&conversation, &[medium], &options, &mut |_| match interrupt::asked() {
        true => ControlFlow::Break(()),
        false => ControlFlow::Continue(()),
    });
    let answer = match answer {
        Ok(answer) => answer,
        Err(error @ Error::Medium { .. }) => return failed(error.to_string()),
        Err(error) => return Err(error.into()),
    };
    if answer.finish == FinishReason::Cancelled {
        return Ok(None);
    }
    let Content::Text(text) = answer.message.content else {
        return failed(format!("{file}: the model said nothing"));
    };
    let (width, height) = size.unwrap_or_default();
    let notice = (answer.finish != FinishReason::Stop).then(|| answer.finish.name());
    let description = text.trim().to_owned();
    Ok(Some(Record { file, outcome: Outcome::Described { width, height, description, notice } }))
}
