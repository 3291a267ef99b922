//! `carat pack`: weights in the order in which this machine's kernels read them.

use std::io::Write;
use std::path::PathBuf;

use anyhow::Context;
use carat_runtime::device::{self, DeviceOptions};
use carat_runtime::tiles::{self, Packing};
use carat_runtime::{ModelFiles, ModelSource};

use crate::export::output::{self, Pending};
use crate::export::progress;
use crate::{args, interrupt, output as print};

/// Make a GGUF model faster on this machine: write its weights once more beside it, in the order kernels like
///
/// The file, MODEL with `.tiles` after its name, takes as much room as the weights that products read. Every command finds
/// it; results stay the same to rounding. It may be removed at any time, and is made anew when the model's file changes.
#[derive(clap::Args)]
pub struct Args {
    /// A .gguf file, or the name of a pulled model
    model: PathBuf,
    /// Remove what was written
    #[arg(long)]
    remove: bool,
}

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
        println!("{model}: nothing to do: this machine's kernels ({}) read it fastest as it is", device.isa());
        return Ok(());
    };
    let (path, bytes) = (packing.path(), packing.bytes());
    let explain = |error| output::explain(error, path, bytes);
    let pending = Pending::new(path, &args.model, true)?;
    let (mut file, bar) = (pending.create_file()?, progress(bytes));
    let mut wrote = |name: &str, n: usize| {
        output::go_on()?;
        bar.set_message(name.to_owned());
        bar.inc(n as u64);
        Ok(())
    };
    packing.write(&mut file, &mut wrote).map_err(explain)?;
    drop(file);
    pending.commit()?;
    bar.finish_and_clear();
    let mut out = print::stdout();
    writeln!(out, "{}: {}", path.display(), print::bytes(bytes))?;
    Ok(out.flush()?)
}

fn remove(files: &ModelFiles) -> anyhow::Result<()> {
    let ModelSource::Path(model) = files.source() else { return Ok(()) };
    let path = tiles::path(model);
    match std::fs::remove_file(&path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            println!("{}: it is not there", path.display());
            Ok(())
        }
        result => result.with_context(|| format!("cannot remove `{}`", path.display())),
    }
}
