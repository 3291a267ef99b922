//! `carat pack`: weights in the order in which this machine's kernels read them.

use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::path::PathBuf;

use anyhow::Context;
use carat_runtime::device::{self, DeviceOptions};
use carat_runtime::tiles::{self, Packing};
use carat_runtime::{ModelFiles, ModelSource};

use crate::args::Interrupted;
use crate::export::progress;
use crate::pending::{self, Pending};
use crate::{args, interrupt, output};

/// Make a model faster on this machine: write its weights once more beside it, in the order kernels like
///
/// The file, MODEL with `.tiles` after its name or `model.tiles` in its directory, takes as much room as the weights that products
/// read, of BF16 three quarters. Every command finds it; results stay the same to rounding. It may be removed at any time, and is
/// made anew when the model's files change.
#[derive(clap::Args)]
pub struct Args {
    /// A .gguf file, a directory with config.json, or the name of a pulled model
    model: PathBuf,
    /// Compare what was written with the model, byte by byte
    #[arg(long, conflicts_with = "remove")]
    check: bool,
    /// Remove what was written
    #[arg(long)]
    remove: bool,
}

/// Bytes written at a time: many large pages, of which the system's cache is made only as large as writes come.
const AT_ONCE: usize = 32 << 20;

/// Runs the subcommand.
pub fn run(args: &Args) -> anyhow::Result<()> {
    let files = args::open(Some(&args.model))?;
    if args.remove {
        return remove(&files);
    }
    interrupt::listen();
    let device = device::open(DeviceOptions::default())?;
    let Some(packing) = Packing::new(&files, &device)? else {
        let model = files.source();
        let why = format!("this machine's kernels ({}) read it fastest as it is", device.isa());
        return Ok(output::say(&format!("{model}: nothing to do: {why}"))?);
    };
    if args.check {
        return check(&packing);
    }
    make(&packing)?;
    Ok(output::say(&format!("{}: {}", packing.path().display(), output::bytes(packing.bytes())))?)
}

/// Makes the file, anew if there is one.
pub fn make(packing: &Packing) -> anyhow::Result<()> {
    let (path, bytes) = (packing.path(), packing.bytes());
    let pending = Pending::replacing(path, None, std::iter::empty())?;
    let mut file = BufWriter::with_capacity(AT_ONCE, pending.create_file()?);
    write(packing, &mut file).map_err(|error| pending::explain(error, path, bytes))?;
    drop(file);
    pending.commit()
}

/// Writes what is to be written, with progress.
fn write(packing: &Packing, out: &mut dyn Write) -> io::Result<()> {
    let bar = progress(packing.bytes());
    let mut wrote = |name: &str, n: usize| {
        pending::go_on()?;
        bar.set_message(name.to_owned());
        bar.inc(n as u64);
        Ok(())
    };
    packing.write(out, &mut wrote)?;
    bar.finish_and_clear();
    Ok(())
}

fn check(packing: &Packing) -> anyhow::Result<()> {
    let path = packing.path();
    let file = File::open(path).with_context(|| format!("cannot read `{}`", path.display()))?;
    let len = file.metadata()?.len();
    let mut same = Same { file: BufReader::with_capacity(1 << 20, file), found: Vec::new(), at: 0 };
    write(packing, &mut same).map_err(|error| match error.kind() {
        io::ErrorKind::Interrupted => Interrupted.into(),
        _ => anyhow::Error::from(error).context(format!("`{}` is not what the model gives", path.display())),
    })?;
    anyhow::ensure!(same.at == len, "`{}`: expected {} bytes, found {len}", path.display(), same.at);
    Ok(output::say(&format!("{}: {} as the model gives them", path.display(), output::bytes(len)))?)
}

/// Takes what would be written, and fails at the first byte that a file has not.
struct Same<R> {
    file: R,
    found: Vec<u8>,
    at: u64,
}

impl<R: Read> Write for Same<R> {
    fn write(&mut self, expected: &[u8]) -> io::Result<usize> {
        self.found.resize(expected.len(), 0);
        self.file.read_exact(&mut self.found).map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => io::Error::other("it ends too early"),
            _ => error,
        })?;
        if let Some(i) = self.found.iter().zip(expected).position(|(found, expected)| found != expected) {
            let (at, found, expected) = (self.at + i as u64, self.found[i], expected[i]);
            return Err(io::Error::other(format!("byte {at} is {found:#04x}, expected {expected:#04x}")));
        }
        self.at += expected.len() as u64;
        Ok(expected.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn remove(files: &ModelFiles) -> anyhow::Result<()> {
    let ModelSource::Path(model) = files.source() else { return Ok(()) };
    let path = tiles::path(model);
    match std::fs::remove_file(&path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            Ok(output::say(&format!("{}: it is not there", path.display()))?)
        }
        result => result.with_context(|| format!("cannot remove `{}`", path.display())),
    }
}
