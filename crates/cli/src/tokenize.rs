//! `carat tokenize`: standard input to token ids, and back.

use std::io::{Read, Write};
use std::path::PathBuf;

use anyhow::{Context, bail};
use carat_chat::tokenizer::Tokenizer;
use carat_tensor::TokenId;
use serde_json::json;

use crate::{args, output};

/// Turn text on standard input into token ids, or ids into text
#[derive(clap::Args)]
pub struct Args {
    /// Directory with config.json, or .gguf file; left out: the embedded model
    model: Option<PathBuf>,
    /// Print {"ids":[…],"pieces":[…]}, with --decode {"text":"…"}
    #[arg(long)]
    json: bool,
    /// Take control tokens in the text for text, as for what a user wrote (the default)
    #[arg(long, conflicts_with = "special")]
    raw: bool,
    /// Take control tokens in the text for control tokens, as in a template
    #[arg(long, conflicts_with = "decode")]
    special: bool,
    /// Read ids, separated by commas or white space, and print their text
    #[arg(long, conflicts_with = "raw")]
    decode: bool,
}

/// Runs the subcommand.
pub fn run(args: &Args) -> anyhow::Result<()> {
    let tokenizer = args::open(args.model.as_ref())?.tokenizer()?;
    let mut input = Vec::new();
    std::io::stdin().lock().read_to_end(&mut input).context("reading standard input")?;
    let mut out = output::stdout();
    if args.decode {
        decode(&tokenizer, input, args.json, &mut out)?;
    } else {
        encode(&tokenizer, input, args, &mut out)?;
    }
    Ok(out.flush()?)
}

fn encode(tokenizer: &Tokenizer, input: Vec<u8>, args: &Args, out: &mut impl Write) -> anyhow::Result<()> {
    let ids = if args.special {
        let text = String::from_utf8(input).context("standard input: --special expects UTF-8")?;
        tokenizer.encode_with_special(&text)
    } else {
        tokenizer.encode_bytes(&input)
    };
    if args.json {
        let pieces: Vec<&str> = ids.iter().map(|&id| tokenizer.piece(id).unwrap_or_default()).collect();
        let ids: Vec<u32> = ids.iter().map(|id| id.0).collect();
        output::json_line(out, &json!({ "ids": ids, "pieces": pieces }))?;
    } else {
        writeln!(out, "{}", joined(&ids))?;
    }
    Ok(())
}

fn decode(tokenizer: &Tokenizer, input: Vec<u8>, as_json: bool, out: &mut impl Write) -> anyhow::Result<()> {
    let input = String::from_utf8(input).context("standard input: ids are not UTF-8")?;
    let ids = args::ids(&input).map_err(anyhow::Error::msg).context("standard input")?;
    if let Some(id) = ids.iter().find(|id| id.index() >= tokenizer.vocab_size()) {
        bail!("token id {id} is not in the vocabulary of {}", tokenizer.vocab_size());
    }
    // Bytes, not text: what was encoded need not have been UTF-8.
    let bytes: Vec<u8> = ids.iter().flat_map(|&id| tokenizer.bytes(id)).copied().collect();
    if as_json {
        output::json_line(out, &json!({ "text": String::from_utf8_lossy(&bytes) }))?;
    } else {
        out.write_all(&bytes)?;
    }
    Ok(())
}

/// Ids as `carat logits --tokens` takes them.
fn joined(ids: &[TokenId]) -> String {
    ids.iter().map(TokenId::to_string).collect::<Vec<_>>().join(",")
}
