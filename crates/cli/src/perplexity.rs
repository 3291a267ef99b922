//! `carat perplexity`: how well the model predicts a text.
//!
//! The text is cut into windows of `--ctx` tokens, `<bos>` before each. Sliding ones begin `--stride` tokens after
//! the last and count only the tokens that no earlier one counted, so a smaller stride gives every token more context.
//! Windows apart follow each other, and count the second half of their tokens. Sources: the sliding-window evaluation of
//! transformers' documentation ("Perplexity of fixed-length models"); llama.cpp `tools/perplexity`.

use std::io::{IsTerminal, Write};
use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Context, bail};
use carat_model::{Decoder, LogitRows, Piece, Step};
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
    /// How the text is cut
    #[arg(long, value_enum, default_value_t = Windows::Sliding)]
    windows: Windows,
    /// Tokens from the start of one sliding window to the start of the next [default: half of --ctx]
    #[arg(long, value_name = "M", value_parser = args::at_least_one)]
    stride: Option<usize>,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    engine: EngineArgs,
}

/// `--windows`.
#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Windows {
    /// Each begins --stride tokens after the last and counts what none before it counted: every token counts once
    Sliding,
    /// Each of --ctx tokens, a bos token the first of them, begins where the last ended and counts its second half; the rest
    /// of the text is left out. The figure is that of `llama-perplexity -c` with the same number
    Apart,
}

impl Windows {
    fn name(self) -> &'static str {
        match self {
            Windows::Sliding => "sliding",
            Windows::Apart => "apart",
        }
    }
}

/// Runs the subcommand.
pub fn run(args: &Args) -> anyhow::Result<()> {
    let text = std::fs::read_to_string(&args.file).with_context(|| args.file.display().to_string())?;
    let mut files = args::open(args.model.as_ref())?;
    let tokenizer = files.tokenizer()?;
    let ctx = args.engine.ctx.unwrap_or(DEFAULT_CTX.min(files.config()?.max_context));
    let stride = args.stride.unwrap_or((ctx / 2).max(1));
    if args.windows == Windows::Apart && args.stride.is_some() {
        return Err(UsageError("--stride is for sliding windows, and --windows apart asks for others".into()).into());
    }
    if args.windows == Windows::Apart && ctx < 3 {
        return Err(
            UsageError(format!("--ctx {ctx}: expected at least 3: of windows apart the second half counts")).into()
        );
    }
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
    let windows = match args.windows {
        Windows::Sliding => sliding(tokens.len(), ctx - 1, stride),
        Windows::Apart => apart(tokens.len(), ctx),
    };
    if windows.is_empty() {
        bail!("{} has {} tokens; windows of {ctx} need at least {}", args.file.display(), tokens.len(), ctx - 1);
    }
    let counted: Vec<TokenId> = windows.iter().flat_map(|w| &tokens[w.counted..w.end]).copied().collect();
    let bytes: usize = counted.iter().map(|&id| tokenizer.bytes(id).len()).sum();
    let mut options = args.engine.load_options();
    (options.context, options.chunk, options.logits) = (Some(ctx), CHUNK, LogitRows::All);
    let mut decoder = loading::load(&mut files, &options, &mut |_| {})?.decoder;

    let bar = progress(tokens.len());
    let started = Instant::now();
    let mut nll = 0.0;
    for window in &windows {
        let mut sequence = vec![bos];
        sequence.extend_from_slice(&tokens[window.start..window.end]);
        nll += window_nll(&mut decoder, &sequence, window.counted - window.start)?;
        bar.set_position(window.end as u64);
    }
    bar.finish_and_clear();

    let mean = nll / counted.len() as f64;
    let bits_per_byte = nll / std::f64::consts::LN_2 / bytes as f64;
    let seconds = started.elapsed().as_secs_f64();
    let mut out = output::stdout();
    if args.json {
        let report = json!({
            "perplexity": mean.exp(), "nll": mean, "bits_per_byte": bits_per_byte, "tokens": counted.len(),
            "windows": args.windows.name(), "ctx": ctx, "stride": if args.windows == Windows::Apart { ctx } else { stride },
            "seconds": seconds,
        });
        output::json_line(&mut out, &report)?;
    } else {
        writeln!(out, "perplexity {:.4}, {bits_per_byte:.4} bits per byte", mean.exp())?;
        match args.windows {
            Windows::Sliding => write!(out, "{} tokens, windows of {ctx} every {stride}", counted.len())?,
            Windows::Apart => {
                write!(out, "{} tokens in the second halves of {} windows of {ctx}", counted.len(), windows.len())?
            }
        }
        writeln!(out, ", {seconds:.1} s")?;
    }
    Ok(out.flush()?)
}

/// Tokens `start..end`, of which those from `counted` on are counted.
#[derive(Debug, PartialEq)]
struct Window {
    start: usize,
    counted: usize,
    end: usize,
}

/// Windows of at most `len` of `n` tokens, `stride` apart, up to the one that reaches the end.
fn sliding(n: usize, len: usize, stride: usize) -> Vec<Window> {
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

/// Whole windows of `ctx` of `n` tokens and the `<bos>` before them, which also takes the place of the first token of
/// all but the first window.
fn apart(n: usize, ctx: usize) -> Vec<Window> {
    let starts = (0..(n + 1) / ctx).map(|i| i * ctx);
    let window = |start| Window { start, counted: start + ctx / 2, end: start + ctx - 1 };
    starts.map(window).filter(|w| w.counted < w.end).collect()
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
            decoder.forward(Step { pieces: &[Piece::Tokens(chunk)], logits: LogitRows::None })?;
            continue;
        }
        let logits = decoder.forward(Step { pieces: &[Piece::Tokens(chunk)], logits: LogitRows::All })?;
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
            for w in sliding(n, len, stride) {
                assert!(w.start <= w.counted && w.counted < w.end && w.end - w.start <= len);
                assert_eq!(w.counted, counted);
                counted = w.end;
            }
            assert_eq!(counted, n);
        }
    }

    /// Of 11 tokens and `<bos>`, windows of 4 are three: each predicts its last token from three.
    #[test]
    fn windows_apart_count_their_second_half() {
        let window = |start| Window { start, counted: start + 2, end: start + 3 };
        assert_eq!(apart(11, 4), [window(0), window(4), window(8)]);
        assert_eq!(apart(10, 4), [window(0), window(4)]);
        assert_eq!(apart(511, 512), [Window { start: 0, counted: 256, end: 511 }]);
        assert_eq!(apart(510, 512), []);
        assert_eq!(apart(9, 2), [], "nothing is in the second half of two");
    }
}
