//! The `carat` command line: one file per subcommand, errors and exit codes here.
//!
//! Exit codes are part of the interface: 0 done, 1 it failed, 2 the command line is wrong, 130 Ctrl-C. Errors are one line
//! on standard error, `error: …`. A reader that closes the pipe ends the program quietly with 0.
#![forbid(unsafe_code)]

mod args;
mod ask;
mod batch;
mod bench;
mod convert;
mod describe;
mod doctor;
mod encode;
mod export;
mod inspect;
mod interrupt;
mod list;
mod logits;
mod media;
mod output;
mod pack;
mod pending;
mod perplexity;
mod pull;
mod quantize;
mod render;
mod rm;
mod run;
mod safetensors;
mod shown;
mod tokenize;
mod transcribe;

use std::io::Write;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Run Gemma 4 models.
#[derive(Parser)]
#[command(name = "carat", version, propagate_version = true, max_term_width = 110)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Run(run::Args),
    Transcribe(transcribe::Args),
    Describe(describe::Args),
    Pull(pull::Args),
    List(list::Args),
    Rm(rm::Args),
    Inspect(inspect::Args),
    Tokenize(tokenize::Args),
    Render(render::Args),
    Logits(logits::Args),
    Encode(encode::Args),
    Perplexity(perplexity::Args),
    Bench(bench::Args),
    Doctor(doctor::Args),
    Pack(pack::Args),
    Quantize(quantize::Args),
    Convert(convert::Args),
}

fn main() -> ExitCode {
    carat_weights::exit_on_lost_pages();
    let result = match Cli::parse().command {
        Command::Run(args) => run::run(&args),
        Command::Transcribe(args) => transcribe::run(&args),
        Command::Describe(args) => describe::run(&args),
        Command::Pull(args) => pull::run(&args),
        Command::List(args) => list::run(&args),
        Command::Rm(args) => rm::run(&args),
        Command::Inspect(args) => inspect::run(&args),
        Command::Tokenize(args) => tokenize::run(&args),
        Command::Render(args) => render::run(&args),
        Command::Logits(args) => logits::run(&args),
        Command::Encode(args) => encode::run(&args),
        Command::Perplexity(args) => perplexity::run(&args),
        Command::Bench(args) => bench::run(&args),
        Command::Doctor(args) => doctor::run(&args),
        Command::Pack(args) => pack::run(&args),
        Command::Quantize(args) => quantize::run(&args),
        Command::Convert(args) => convert::run(&args),
    };
    let Err(error) = result else { return ExitCode::SUCCESS };
    if output::is_closed_pipe(&error) {
        return ExitCode::SUCCESS;
    }
    if error.is::<args::Interrupted>() {
        return ExitCode::from(interrupt::EXIT_CODE);
    }
    // Standard error may be closed as well; then there is nobody to tell.
    let _ = writeln!(std::io::stderr(), "error: {}", output::chain(&error));
    if is_of_the_command_line(&error) { ExitCode::from(2) } else { ExitCode::FAILURE }
}

/// Whether an option asks for what there is not, as far as the library says so.
fn is_of_the_command_line(error: &anyhow::Error) -> bool {
    use carat_cpu::CpuError;
    use carat_runtime::Error;
    let refused = |error: &Error| matches!(error, Error::Context { .. } | Error::Device(CpuError::Threads { .. }));
    error.is::<args::UsageError>()
        || error.downcast_ref().is_some_and(refused)
        || matches!(error.downcast_ref(), Some(CpuError::Threads { .. }))
}
