//! Options of `carat run` that say how tokens are chosen and when an answer ends.

use carat_runtime::session::{GenerateOptions, Looping};
use carat_runtime::stop::StopStrings;
use carat_tensor::TokenId;

use crate::args;

/// How tokens are chosen; what is left out is as the model's own files say.
#[derive(clap::Args)]
#[command(next_help_heading = "Sampling (default: the model's own)")]
pub struct SamplingArgs {
    /// Divides the logits; 0 takes the most likely token
    #[arg(long, value_name = "T", allow_negative_numbers = true, value_parser = args::number)]
    temperature: Option<f32>,
    /// Only this many most likely tokens; 0 for all
    #[arg(long, value_name = "K", value_parser = args::whole::<usize>)]
    top_k: Option<usize>,
    /// Only the most likely tokens that together reach this probability
    #[arg(long, value_name = "P", allow_negative_numbers = true, value_parser = args::number)]
    top_p: Option<f32>,
    /// Only tokens at least this fraction as likely as the most likely one
    #[arg(long, value_name = "P", allow_negative_numbers = true, value_parser = args::number)]
    min_p: Option<f32>,
    /// Divides logits of tokens that occurred, 1 for none
    #[arg(long, value_name = "X", allow_negative_numbers = true, value_parser = args::number)]
    repeat_penalty: Option<f32>,
    /// Taken from logits of tokens that occurred in the answer
    #[arg(long, value_name = "X", allow_negative_numbers = true, value_parser = args::number)]
    presence_penalty: Option<f32>,
    /// Taken from logits of tokens for each time they occurred in the answer
    #[arg(long, value_name = "X", allow_negative_numbers = true, value_parser = args::number)]
    frequency_penalty: Option<f32>,
    /// Adds V to the logit of token ID; may be repeated
    #[arg(long, value_name = "ID=V", value_parser = bias)]
    logit_bias: Vec<(TokenId, f32)>,
    /// Equal seeds give equal answers
    #[arg(long, value_name = "N", value_parser = args::whole::<u64>)]
    seed: Option<u64>,
    /// Ends the answer before this text; may be repeated
    #[arg(long, value_name = "TEXT", value_parser = stop)]
    stop: Vec<String>,
    /// Most tokens of the answer, thoughts included
    #[arg(long, value_name = "N", value_parser = args::at_least_one)]
    max_tokens: Option<usize>,
    /// Let the answer repeat itself for ever
    #[arg(long)]
    no_loop_guard: bool,
    /// Report each token with its log-probability and those of the N most likely
    #[arg(long, value_name = "N", requires = "json", value_parser = args::whole::<usize>)]
    logprobs: Option<usize>,
}

impl SamplingArgs {
    /// Puts what was asked for in the place of the model's own.
    pub fn apply(&self, options: &mut GenerateOptions) {
        let s = &mut options.sampling;
        s.temperature = self.temperature.unwrap_or(s.temperature);
        s.top_k = self.top_k.unwrap_or(s.top_k);
        s.top_p = self.top_p.unwrap_or(s.top_p);
        s.min_p = self.min_p.unwrap_or(s.min_p);
        s.repetition_penalty = self.repeat_penalty.unwrap_or(s.repetition_penalty);
        s.presence_penalty = self.presence_penalty.unwrap_or(s.presence_penalty);
        s.frequency_penalty = self.frequency_penalty.unwrap_or(s.frequency_penalty);
        s.logit_bias = self.logit_bias.clone();
        s.seed = self.seed;
        s.logprobs = self.logprobs;
        options.stop = self.stop.clone();
        options.max_tokens = self.max_tokens;
        if self.no_loop_guard {
            options.looping = Looping::Allowed;
        }
    }
}

/// `--stop`.
fn stop(text: &str) -> Result<String, String> {
    let text = text.to_owned();
    StopStrings::new(std::slice::from_ref(&text)).map_err(|error| error.to_string())?;
    Ok(text)
}

fn bias(text: &str) -> Result<(TokenId, f32), String> {
    let parsed = text
        .split_once('=')
        .and_then(|(id, value)| Some((TokenId(id.trim().parse().ok()?), value.trim().parse().ok()?)));
    parsed.ok_or_else(|| "expected a token id, `=` and a number".into())
}
