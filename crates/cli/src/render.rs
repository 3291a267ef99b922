//! `carat render`: conversations to the exact prompts that the model is given.

use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow, bail};
use carat_chat::message::Conversation;
use carat_chat::template::Variant;
use carat_runtime::{ChatFormat, ModelFiles};
use serde_json::{Value, json};

use crate::{args, media, output};

/// Turn conversations into prompts
#[derive(clap::Args)]
#[command(allow_missing_positional = true)]
pub struct Args {
    /// Directory with config.json, or .gguf file; left out: the embedded model
    model: Option<PathBuf>,
    /// {"messages", "tools", "enable_thinking", "preserve_thinking", "add_generation_prompt"} in the OpenAI shape, one
    /// object or one per line; - is standard input
    file: PathBuf,
    /// Add the prompt's token ids
    #[arg(long)]
    ids: bool,
    /// Use the official template of this kind of model instead of the model's own
    #[arg(long, value_enum)]
    variant: Option<VariantArg>,
}

/// `--variant`.
#[derive(Clone, Copy, clap::ValueEnum)]
enum VariantArg {
    /// 12B, 26B-A4B, 31B.
    Large,
    /// E2B, E4B.
    Small,
    /// Gemma 3.
    Gemma3,
}

/// Runs the subcommand.
pub fn run(args: &Args) -> anyhow::Result<()> {
    let conversations = read(&args.file)?;
    // With a variant given and no ids asked for, nothing of the model is needed.
    let files = (args.ids || args.variant.is_none()).then(|| args::open(args.model.as_ref())).transpose()?;
    let format = match (args.variant, &files) {
        (Some(VariantArg::Large), _) => ChatFormat::official(Variant::Large),
        (Some(VariantArg::Small), _) => ChatFormat::official(Variant::Small),
        (Some(VariantArg::Gemma3), _) => ChatFormat::gemma3(),
        (None, Some(files)) => ChatFormat::of(files)?,
        (None, None) => unreachable!("files are opened where no variant is given"),
    };
    let tokenizer = args.ids.then(|| files.as_ref().map(ModelFiles::tokenizer)).flatten().transpose()?;
    let mut out = output::stdout();
    for (index, value) in conversations.iter().enumerate() {
        let place = || format!("{}: conversation {}", media::name(&args.file), index + 1);
        let conversation = Conversation::from_openai(value).with_context(place)?;
        let prompt = format.prompt(&conversation).with_context(place)?;
        let mut line = json!({ "prompt": prompt.text() });
        if let Some(tokenizer) = &tokenizer {
            line["ids"] = prompt.encode(tokenizer).iter().map(|id| id.0).collect();
        }
        output::json_line(&mut out, &line)?;
    }
    Ok(out.flush()?)
}

/// The JSON values of a file, one after the other; a list counts as its elements.
fn read(path: &Path) -> anyhow::Result<Vec<Value>> {
    let name = || media::name(path);
    let text = if path == Path::new("-") {
        let mut text = String::new();
        std::io::stdin().lock().read_to_string(&mut text).context("reading standard input")?;
        text
    } else {
        std::fs::read_to_string(path).with_context(name)?
    };
    let mut conversations = Vec::new();
    for value in serde_json::Deserializer::from_str(&text).into_iter::<Value>() {
        let value = value.map_err(|error| anyhow!("{}: not JSON: {error}; expected conversations", name()))?;
        match value {
            Value::Array(list) => conversations.extend(list),
            one => conversations.push(one),
        }
    }
    if conversations.is_empty() {
        bail!("{} holds no conversation", name());
    }
    Ok(conversations)
}
