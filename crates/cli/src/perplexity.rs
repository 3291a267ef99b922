//! `carat perplexity`: how well the model predicts a text.
//!
//! The text is cut into windows of `--ctx` tokens, `<bos>` before each; every window begins `--stride` tokens
//! after the last and counts only the tokens that no earlier one counted, so a smaller stride gives every token
//! more context. Source: the sliding-window evaluation of transformers' documentation ("Perplexity of
//! fixed-length models").

use std::io::{IsTerminal, Write};
use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Context, bail};
use carat_model::{Decoder, LogitRows, Step};
use carat_runtime::device::Device;
use carat_runtime::{check_finite, loading, log_sum_exp};
use carat_tensor::TokenId;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;

use crate::args::{self, EngineArgs, UsageError};
use crate::output;

/// Tokens per window where `--ctx` doesn't say.
const DEFAULT_CTX: usize = 2048;
/// Tokens per pass: logits of all of them are in memory at once.
const CHUNK: usize = 128;

/// Measure how well the model predicts a text
#[derive(clap::Args)]
#[command(allow_missing_positional = true)]
pub struct Args {
    /// Directory with config.json, or .gguf file; left out: the embedded model
    model: Option<PathBuf>,
    /// The text, UTF-8
    file: PathBuf,
    /// Tokens from the start of one window to the start of the next [default: half of --ctx]
    #[arg(long, value_name = "M", value_parser = args::at_least_one)]
    stride: Option<usize>,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    engine: EngineArgs,
}

/// Runs the subcommand.
pub fn run(args: &Args) -> anyhow::Result<()> {
    let text = std::fs::read_to_string(&args.file).with_context(|| args.file.display().to_string())?;
    let mut files = args::open(args.model.as_ref())?;
    let tokenizer = files.tokenizer()?;
    let ctx = args.engine.ctx.unwrap_or(DEFAULT_CTX.min(files.config()?.max_context));
    let stride = args.stride.unwrap_or((ctx / 2).max(1));
    if ctx < 2 || stride > ctx - 1 {
        return Err(
            UsageError(format!("--stride {stride} with --ctx {ctx}: expected a stride below the context")).into()
        );
    }
    let tokens = tokenizer.encode(&text);
    let Some(bos) = tokenizer.special().bos else { bail!("the tokenizer has no <bos>") };
    if tokens.is_empty() {
        bail!("{} is empty", args.file.display());
    }
    let mut options = args.engine.load_options();
    (options.context, options.chunk) = (Some(ctx), CHUNK);
    let (mut decoder, _) = loading::load(&mut files, &options, &mut |_| {})?;

    let bar = progress(tokens.len());
    let started = Instant::now();
    let mut nll = 0.0;
    for window in windows(tokens.len(), ctx - 1, stride) {
        let mut sequence = vec![bos];
        sequence.extend_from_slice(&tokens[window.start..window.end]);
        nll += window_nll(&mut decoder, &sequence, window.counted - window.start)?;
        bar.set_position(window.end as u64);
    }
    bar.finish_and_clear();

    let mean = nll / tokens.len() as f64;
    let bits_per_byte = nll / std::f64::consts::LN_2 / text.len() as f64;
    let seconds = started.elapsed().as_secs_f64();
    let mut out = output::stdout();
    if args.json {
        let report = json!({
            "perplexity": mean.exp(), "nll": mean, "bits_per_byte": bits_per_byte, "tokens": tokens.len(),
            "ctx": ctx, "stride": stride, "seconds": seconds,
        });
        output::json_line(&mut out, &report)?;
    } else {
        writeln!(out, "perplexity {:.4}, {bits_per_byte:.4} bits per byte", mean.exp())?;
        writeln!(out, "{} tokens, windows of {ctx} every {stride}, {seconds:.1} s", tokens.len())?;
    }
    Ok(out.flush()?)
}

/// Tokens `start..end`, of which those from `counted` on have not been counted before.
#[derive(Debug, PartialEq)]
struct Window {
    start: usize,
    counted: usize,
    end: usize,
}

/// Windows of at most `len` of `n` tokens, `stride` apart, up to the one that reaches the end.
fn windows(n: usize, len: usize, stride: usize) -> Vec<Window> {
    let mut windows: Vec<Window> = Vec::new();
    for start in (0..n).step_by(stride) {
        let counted = windows.last().map_or(0, |w| w.end);
        windows.push(Window { start, counted, end: (start + len).min(n) });
        if start + len >= n {
            break;
        }
    }
    windows
}

/// `−Σ log p` over `sequence[1 + skip..]`, each given all tokens before it.
fn window_nll(decoder: &mut Decoder<Device>, sequence: &[TokenId], skip: usize) -> anyhow::Result<f64> {
    decoder.reset();
    let (vocab, chunk_len) = (decoder.config().vocab_size, decoder.options().chunk);
    let inputs = &sequence[..sequence.len() - 1];
    let mut nll = 0.0;
    for (index, chunk) in inputs.chunks(chunk_len).enumerate() {
        let first = index * chunk_len;
        if first + chunk.len() <= skip {
            decoder.forward(Step { tokens: chunk, logits: LogitRows::None })?;
            continue;
        }
        let logits = decoder.forward(Step { tokens: chunk, logits: LogitRows::All })?;
        for (row, logits) in logits.chunks(vocab).enumerate().filter(|(row, _)| first + row >= skip) {
            check_finite(logits)?;
            let target = sequence[first + row + 1];
            nll += f64::from(log_sum_exp(logits) - logits[target.index()]);
        }
    }
    Ok(nll)
}

fn progress(tokens: usize) -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template("{bar:40} {pos}/{len} tokens, {eta} left");
    ProgressBar::new(tokens as u64).with_style(style.expect("the template is well-formed"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_count_every_token_once() {
        for (n, len, stride) in [(10, 4, 2), (10, 4, 4), (3, 8, 2), (8, 8, 3), (9, 8, 3), (1, 1, 1), (100, 7, 3)] {
            let mut counted = 0;
            for w in windows(n, len, stride) {
                assert!(w.start <= w.counted && w.counted < w.end && w.end - w.start <= len);
                assert_eq!(w.counted, counted);
                counted = w.end;
            }
            assert_eq!(counted, n);
        }
    }
}
