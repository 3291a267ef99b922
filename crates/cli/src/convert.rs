//! `carat convert`: the same weights in the other kind of container.

use std::io::Write;
use std::path::PathBuf;

use anyhow::Context;
use carat_model::load::{ModelTensor, ModelTensors};
use carat_tensor::{DType, Tensor};

use crate::export::tensors::Encoder;
use crate::export::{self, gguf, hf, open, progress};
use crate::pending::{self, Kind, Pending};
use crate::safetensors::{Entry, Writer};
use crate::{args, interrupt, output};

/// Convert a model between a Hugging Face directory and a GGUF file, either way
///
/// An OUT that ends in .gguf becomes a file, any other a directory. Weights keep their type where the container has it
/// and are rounded to bf16 where it hasn't, which is then said. OUT is written under another name and renamed when it
/// is whole. Only the text model is written.
#[derive(clap::Args)]
pub struct Args {
    /// Directory with config.json, or .gguf file
    #[arg(value_name = "IN")]
    input: PathBuf,
    /// What to write: FILE.gguf, or a directory
    #[arg(value_name = "OUT")]
    output: PathBuf,
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
    let to_gguf = args.output.extension().is_some_and(|e| e == "gguf");
    let kind = if to_gguf { Kind::File } else { Kind::Directory };
    let pending = Pending::new(kind, &args.output, &args.input, args.force)?;
    let checkpoint = open(&args.input)?;
    let of_input = export::of_input(&args.input);
    let tensors = ModelTensors::new(&checkpoint).map_err(&of_input)?;
    let list: Vec<_> = tensors.iter().cloned().collect();
    let encoder = Encoder { threads: args.threads.unwrap_or_else(export::threads), measure: false };
    // Types are those of what is read, which for rearranged weights isn't what the file says.
    let mut rounded = Vec::new();
    let mut types = Vec::new();
    for tensor in &list {
        let read = tensors.read(tensor).map_err(&of_input)?;
        let to = if to_gguf { in_gguf(tensor, &read) } else { hf::stored_type(&read) };
        if to == DType::BF16 && !matches!(read.dtype, DType::BF16 | DType::F32) {
            rounded.push(read.dtype);
        }
        types.push(to);
    }
    let job = Job { args, tensors: &tensors, list: &list, types: &types, encoder };
    let (bytes, has_vocabulary) = if to_gguf {
        let head = gguf::head(&checkpoint, &args.input, tensors.config(), (&list, &types), file_type(&list, &types))?;
        (job.write_gguf(&head, &pending)?, head.has_vocabulary)
    } else {
        let dir = pending.create_dir()?;
        hf::write_files(&checkpoint, tensors.config(), dir)?;
        (job.write_safetensors(dir)?, dir.join("tokenizer.json").exists())
    };
    let ignored = tensors.finish().map_err(of_input)?;
    pending.commit()?;

    let mut out = output::stdout();
    writeln!(out, "{}: {} tensors, {}", args.output.display(), list.len(), output::bytes(bytes))?;
    out.flush()?;
    if !has_vocabulary {
        output::note("note: the model has no tokenizer, so the copy has none");
    }
    if !rounded.is_empty() {
        rounded.sort();
        let n = rounded.len();
        rounded.dedup();
        let types = rounded.iter().map(|t| t.name()).collect::<Vec<_>>().join(", ");
        output::note(&format!(
            "note: {n} tensors in {types} were rounded to bf16, which the container has in their place"
        ));
    }
    if !ignored.is_empty() {
        output::note(&format!("note: {} tensors that are no part of the text model were left out", ignored.len()));
    }
    Ok(())
}

/// The type in a GGUF file: vectors and what chooses experts in f32, as its readers expect; types that exist in memory
/// only in bf16.
fn in_gguf(tensor: &ModelTensor, read: &Tensor) -> DType {
    use carat_model::load::Role;
    match (tensor.role, read.dtype) {
        (Role::Vector | Role::Router, _) => DType::F32,
        (_, dtype) if dtype.ggml_id().is_some() => dtype,
        _ => DType::BF16,
    }
}

/// `general.file_type`: that of the type which most matrices have (llama.cpp `llama_ftype`).
fn file_type(list: &[ModelTensor], types: &[DType]) -> u32 {
    let known: &[(DType, u32)] = &[
        (DType::F32, 0),
        (DType::F16, 1),
        (DType::Q4_0, 2),
        (DType::Q4_1, 3),
        (DType::Q8_0, 7),
        (DType::Q5_0, 8),
        (DType::Q5_1, 9),
        (DType::Q2K, 10),
        (DType::Q3K, 12),
        (DType::Q4K, 15),
        (DType::Q5K, 17),
        (DType::Q6K, 18),
        (DType::Iq4Nl, 25),
        (DType::Iq4Xs, 30),
        (DType::BF16, 32),
        (DType::Mxfp4, 38),
        (DType::Nvfp4, 39),
    ];
    let count = |dtype: DType| list.iter().zip(types).filter(|(t, to)| t.shape.len() > 1 && **to == dtype).count();
    known.iter().max_by_key(|(dtype, _)| count(*dtype)).map_or(0, |(_, id)| *id)
}

struct Job<'a> {
    args: &'a Args,
    tensors: &'a ModelTensors<'a>,
    list: &'a [ModelTensor],
    types: &'a [DType],
    encoder: Encoder,
}

impl Job<'_> {
    /// Gives `sink` every tensor's data, in order.
    fn data(&self, bytes: u64, mut sink: impl FnMut(&[u8]) -> std::io::Result<()>) -> anyhow::Result<()> {
        let bar = progress(bytes);
        for (tensor, &to) in self.list.iter().zip(self.types) {
            bar.set_message(tensor.gguf.clone());
            let read = self.tensors.read(tensor).map_err(export::of_input(&self.args.input))?;
            let written = self.encoder.encode(&read, to, None, |piece| {
                pending::go_on()?;
                bar.inc(piece.len() as u64);
                sink(piece)
            });
            written.map_err(|e| pending::explain(e, &self.args.output, bytes))?;
        }
        bar.finish_and_clear();
        Ok(())
    }

    fn write_gguf(&self, head: &gguf::Head, pending: &Pending) -> anyhow::Result<u64> {
        let bytes = head.writer.file_bytes();
        let explain = |e| pending::explain(e, &self.args.output, bytes);
        let mut data = head.writer.begin(pending.create_file()?).map_err(explain)?;
        let divisors: Vec<u8> = head.divisors.iter().flat_map(|d| d.to_le_bytes()).collect();
        data.write(&divisors).map_err(explain)?;
        self.data(bytes, |piece| data.write(piece))?;
        data.finish().map_err(explain)?;
        Ok(bytes)
    }

    fn write_safetensors(&self, dir: &std::path::Path) -> anyhow::Result<u64> {
        let entry = |(tensor, dtype): (&ModelTensor, &DType)| Entry {
            name: tensor.hf.clone(),
            dtype: dtype.name(),
            value_bytes: dtype.block_bytes(),
            shape: tensor.shape.clone(),
        };
        let entries: Vec<_> = self.list.iter().zip(self.types).map(entry).collect();
        let bytes = entries.iter().map(|e| e.bytes() as u64).sum();
        let path = dir.join("model.safetensors");
        let file = std::fs::File::create(&path).with_context(|| format!("cannot write `{}`", path.display()))?;
        let explain = |e| pending::explain(e, &self.args.output, bytes);
        let mut writer = Writer::new(std::io::BufWriter::new(file), &entries).map_err(explain)?;
        self.data(bytes, |piece| writer.bytes(piece))?;
        writer.finish().map_err(explain)?;
        Ok(bytes)
    }
}
