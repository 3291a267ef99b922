//! `carat quantize`: a smaller copy of a model, as one GGUF file.

use std::io::Write;
use std::path::PathBuf;

use anyhow::Context;
use carat_model::ModelError;
use carat_model::load::{ModelTensor, ModelTensors};
use carat_tensor::DType;
use carat_weights::{GgufData, Importance};
use indicatif::ProgressBar;

use crate::export::mix::Mix;
use crate::export::tensors::{Encoder, Squares};
use crate::export::{self, gguf, open, progress};
use crate::pending::{self, Kind, Pending};
use crate::{args, interrupt, output};

/// Write a smaller copy of a model as a GGUF file, which llama.cpp runs too
///
/// Reads a tensor at a time, so memory stays small whatever the model's size. OUT is written under another name
/// and renamed when it is whole. Only the text model is written: encoders of pictures and sound stay behind.
#[derive(clap::Args)]
pub struct Args {
    /// Directory with config.json, or .gguf file
    #[arg(value_name = "IN")]
    input: PathBuf,
    /// The GGUF file to write
    #[arg(value_name = "OUT")]
    output: PathBuf,
    /// What to quantise to
    #[arg(long = "type", value_enum, value_name = "TYPE")]
    mix: Mix,
    /// Importance matrix of llama.cpp's llama-imatrix (GGUF or .dat): errors weigh by how much a column is used
    #[arg(long, value_name = "FILE")]
    imatrix: Option<PathBuf>,
    /// Print each tensor's type, size and relative error
    #[arg(long)]
    report: bool,
    /// Replace OUT if it is there
    #[arg(long)]
    force: bool,
    /// Threads that compute [default: one per core this process may use]
    #[arg(long, value_name = "N", value_parser = args::at_least_one)]
    threads: Option<usize>,
}

/// Runs the subcommand.
pub fn run(args: &Args) -> anyhow::Result<()> {
    interrupt::listen();
    let pending = Pending::new(Kind::File, &args.output, &args.input, args.force)?;
    let importance = args.imatrix.as_deref().map(Importance::open).transpose()?;
    let checkpoint = open(&args.input)?;
    let of_input = export::of_input(&args.input);
    let tensors = ModelTensors::new(&checkpoint).map_err(&of_input)?;
    let list: Vec<_> = tensors.iter().cloned().collect();
    let stored = |tensor: &ModelTensor| match checkpoint.tensors().get(&tensor.gguf).map(|t| t.dtype) {
        Some(carat_weights::StoredType::Known(dtype)) if dtype.ggml_id().is_some() => dtype,
        _ => DType::BF16,
    };
    let types = args.mix.types(&list, tensors.config().layers.len(), stored);
    let config = tensors.config();
    let head = gguf::head(&checkpoint, &args.input, config, (&list, &types), args.mix.file_type())?;
    let bytes = head.writer.file_bytes();
    let explain = |e| pending::explain(e, &args.output, bytes);
    let threads = args.threads.unwrap_or_else(export::threads);
    let mut job = Job {
        encoder: Encoder { threads, measure: args.report },
        importance: importance.as_ref(),
        bar: progress(bytes),
        data: head.writer.begin(pending.create_file()?).map_err(explain)?,
    };
    let divisors: Vec<u8> = head.divisors.iter().flat_map(|d| d.to_le_bytes()).collect();
    job.data.write(&divisors).map_err(explain)?;

    let mut lines = Vec::new();
    for (tensor, &to) in list.iter().zip(&types) {
        lines.push(job.tensor(&tensors, tensor, to).map_err(|e| explain_chain(e, explain, &of_input))?);
    }
    job.data.finish().map_err(explain)?;
    let ignored = tensors.finish().map_err(of_input)?;
    pending.commit()?;
    job.bar.finish_and_clear();

    let mut out = output::stdout();
    if args.report {
        report(&mut out, &lines)?;
    }
    let before: usize = checkpoint.tensors().iter().map(|t| t.data.len()).sum();
    writeln!(out, "{}: {}, from {}", args.output.display(), output::bytes(bytes), output::bytes(before as u64))?;
    out.flush()?;
    if !head.has_vocabulary {
        output::note("note: the model has no tokenizer, so the file has none: it gives logits, not text");
    }
    if !ignored.is_empty() {
        output::note(&format!("note: {} tensors that are no part of the text model were left out", ignored.len()));
    }
    let again = lines.iter().filter(|line| line.from.block_len() > 1 && line.from != line.to).count();
    if again > 0 {
        output::note(&format!(
            "note: {again} tensors were quantised before: what that lost can't come back, and now adds up"
        ));
    }
    if let Some(importance) = &importance {
        let used = lines.iter().filter(|line| line.weighted).count();
        output::note(&format!("note: {used} of the importance matrix's {} entries were used", importance.len()));
    }
    Ok(())
}

/// A write error explained, an error of the model with its name; others as they are.
fn explain_chain(
    error: anyhow::Error,
    explain: impl Fn(std::io::Error) -> anyhow::Error,
    of_input: impl Fn(ModelError) -> carat_runtime::Error,
) -> anyhow::Error {
    let error = match error.downcast::<std::io::Error>() {
        Ok(io) => return explain(io),
        Err(other) => other,
    };
    error.downcast::<ModelError>().map_or_else(|other| other, |error| of_input(error).into())
}

/// One line of the report.
struct Line {
    name: String,
    shape: Vec<usize>,
    from: DType,
    to: DType,
    squares: Squares,
    weighted: bool,
}

/// The work on one file.
struct Job<'a, W: Write> {
    encoder: Encoder,
    importance: Option<&'a Importance>,
    bar: ProgressBar,
    data: GgufData<W>,
}

impl<W: Write> Job<'_, W> {
    fn tensor(&mut self, tensors: &ModelTensors<'_>, tensor: &ModelTensor, to: DType) -> anyhow::Result<Line> {
        self.bar.set_message(tensor.gguf.clone());
        let read = tensors.read(tensor)?;
        let experts: usize = read.shape.iter().rev().skip(2).product();
        let weights = match self.importance {
            Some(importance) if to.is_quantised() => importance.of(&tensor.gguf, read.cols(), experts)?,
            _ => None,
        };
        let (data, bar) = (&mut self.data, &self.bar);
        let squares = self.encoder.encode(&read, to, weights, |bytes| {
            pending::go_on()?;
            bar.inc(bytes.len() as u64);
            data.write(bytes)
        })?;
        let (name, shape, from) = (tensor.gguf.clone(), read.shape.clone(), read.dtype);
        Ok(Line { name, shape, from, to, squares, weighted: weights.is_some() })
    }
}

/// Prints the report: relative errors are `‖x' − x‖ / ‖x‖`, of the stored weights against those of the input.
fn report(out: &mut impl Write, lines: &[Line]) -> anyhow::Result<()> {
    let width = lines.iter().map(|line| line.name.len()).max().unwrap_or(0);
    writeln!(out, "{:width$}  {:>20}  {:>13}    {:6}  {:>9}", "tensor", "shape", "from", "to", "rel. err.")?;
    let mut all = Squares::default();
    for Line { name, shape, from, to, squares, .. } in lines {
        let shape = shape.iter().map(ToString::to_string).collect::<Vec<_>>().join(" x ");
        let error = squares.relative_error();
        writeln!(out, "{name:width$}  {shape:>20}  {:>13} -> {:6}  {error:9.2e}", from.name(), to.name())?;
        all.add(*squares);
    }
    writeln!(out, "relative error of all that was changed: {:.3e}", all.relative_error()).context("the report")
}
