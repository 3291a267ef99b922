//! `carat pull`: a model from a hub, into the cache that other tools share.

mod progress;
mod resolve;

use std::io::Write;
use std::path::Path;

use carat_hub::{Event, Extras, Hub, ModelName, Patience, Pulled, Ranges, Revision, Settings};
use carat_runtime::device::{self, DeviceOptions};
use carat_runtime::tiles::{self, Packing};
use carat_runtime::{ModelFiles, ModelSource};
use serde_json::json;

use crate::args::UsageError;
use crate::{interrupt, output, pack};
use progress::Progress;
pub use resolve::{located, looks_like_a_name};

/// Get a model from a Hugging Face-compatible hub
///
/// MODEL is a repository (ORG/NAME), one quantisation of it (ORG/NAME:Q4_0), or a short name: e2b, e4b, 12b, 26b and 31b
/// are the published checkpoints, e2b:q4_0 the published 4-bit files, e2b:q8_0 and others come from ggml-org. What an
/// earlier pull left unfinished is taken up. HF_ENDPOINT, HF_TOKEN, HF_HOME and HF_HUB_CACHE are honoured.
#[derive(clap::Args)]
pub struct Args {
    /// Repository, quantisation of a repository, or short name
    #[arg(value_name = "MODEL")]
    name: String,
    /// Branch, tag or commit; other tools find it under that name too [default: main]
    #[arg(long, value_name = "REV")]
    revision: Option<String>,
    /// Leave out the encoder of images and sound that GGUF models have as a file of its own
    #[arg(long)]
    no_mmproj: bool,
    /// Leave out the drafter
    #[arg(long)]
    no_drafter: bool,
    /// Then write the weights once more, in the order this machine's kernels like, as `carat pack` does
    #[arg(long)]
    pack: bool,
    /// Don't use the network: only say whether the model is here
    #[arg(long)]
    offline: bool,
    /// Print one JSON object per event
    #[arg(long)]
    json: bool,
}

/// Runs the subcommand.
pub fn run(args: &Args) -> anyhow::Result<()> {
    let name: ModelName = args.name.parse().map_err(|error: carat_hub::Error| UsageError(error.to_string()))?;
    let revision = args.revision.as_deref().map(str::parse::<Revision>).transpose();
    let revision = revision.map_err(|error| UsageError(error.to_string()))?;
    let what = What { name: &name, revision: revision.as_ref() };
    let mut settings = Settings::from_env()?;
    settings.offline |= args.offline;
    let extras = Extras { encoder: !args.no_mmproj, drafter: !args.no_drafter };
    let pulled = if args.json {
        pull(&settings, what, extras, &|event| json_event(&event))?
    } else {
        let progress = Progress::new();
        let pulled = pull(&settings, what, extras, &|event| progress.event(&event))?;
        progress.finish();
        pulled
    };
    let mut out = output::stdout();
    if args.json {
        let line = json!({ "event": "pulled", "name": name.to_string(), "path": pulled.path, "bytes": pulled.bytes });
        output::json_line(&mut out, &line)?;
    } else {
        writeln!(out, "{name}: {} in {}", output::bytes(pulled.bytes), pulled.path.display())?;
    }
    out.flush()?;
    if args.pack {
        if let Some(packing) = packing(&pulled.path)? {
            interrupt::listen();
            pack::make(&packing)?;
            let (path, bytes) = (packing.path(), packing.bytes());
            if args.json {
                output::json_line(&mut out, &json!({ "event": "packed", "path": path, "bytes": bytes }))?;
            } else {
                writeln!(out, "{}: {}", path.display(), output::bytes(bytes))?;
            }
        }
    } else if !args.json
        && let Ok(Some(packing)) = packing(&pulled.path)
    {
        let bytes = output::bytes(packing.bytes());
        output::note(&format!(
            "`carat pack {name}` would make answers faster: it writes the weights once more, {bytes}, as kernels like them"
        ));
    }
    Ok(out.flush()?)
}

/// What `carat pack` would write for a model; `None` where it has nothing to do.
fn packing(model: &Path) -> anyhow::Result<Option<Packing>> {
    let files = ModelFiles::open(&ModelSource::Path(model.to_owned()))?;
    let device = device::open(DeviceOptions::default())?;
    if tiles::find(&files, &device)?.are_wanted() { Ok(Packing::new(&files, &device)?) } else { Ok(None) }
}

/// What is asked for.
#[derive(Clone, Copy)]
struct What<'a> {
    name: &'a ModelName,
    /// `None` is the main branch, and offline whatever is here.
    revision: Option<&'a Revision>,
}

fn pull(settings: &Settings, what: What<'_>, extras: Extras, on: carat_hub::Observer<'_>) -> anyhow::Result<Pulled> {
    let hub = Hub::new(settings, Patience::default(), Ranges::default())?;
    Ok(match what.revision {
        None => hub.pull(what.name, extras, on)?,
        Some(revision) => hub.pull_at(what.name, revision, extras, on)?,
    })
}

/// What happens, as lines for programs; bytes are not among it, since there are too many of them.
fn json_event(event: &Event<'_>) {
    let line = match event {
        Event::Plan { repo, files, bytes } => {
            json!({ "event": "plan", "repo": repo.as_str(), "files": files, "bytes": bytes })
        }
        Event::File { file, size } => json!({ "event": "file", "file": file, "bytes": size }),
        Event::Retry { reason, wait } => {
            json!({ "event": "retry", "reason": reason, "wait_ms": wait.as_millis() as u64 })
        }
        Event::Waiting { file } => json!({ "event": "waiting", "file": file }),
        Event::Skipped { repo, error } => {
            json!({ "event": "skipped", "repo": repo.as_str(), "reason": error.to_string() })
        }
        Event::Checking { .. } | Event::Bytes(_) | Event::Lost(_) => return,
    };
    // A reader that left is noticed by the last line.
    let mut out = output::stdout();
    let _ = output::json_line(&mut out, &line).and_then(|()| out.flush());
}
