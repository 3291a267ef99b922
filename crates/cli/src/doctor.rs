//! `carat doctor`: what this machine offers, what carat makes of it, and what would make it faster.

mod advice;
mod machine;

use std::io::Write;
use std::path::PathBuf;

use carat_cpu::measure;
use carat_hub::installed::{self, Installed};
use carat_hub::{Cache, Settings};
use carat_runtime::device::{self, Device, DeviceOptions};
use carat_runtime::{LoadOptions, ModelFiles, ModelSource, host, loading, tiles};
use serde_json::{Value, json};

use crate::bench::WeightBytes;
use crate::output;
use machine::Machine;

/// Show what this machine offers and what would make models faster on it
#[derive(clap::Args)]
pub struct Args {
    /// Don't measure memory bandwidth and the integer peak, which takes some seconds
    #[arg(long)]
    no_measure: bool,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// Everything that is shown.
struct Report {
    machine: Machine,
    /// Instruction sets that this machine runs, best first; the first is used.
    isas: Vec<&'static str>,
    threads: usize,
    available_memory: Option<u64>,
    limits: Option<Limits>,
    cache: PathBuf,
    free_disk: Option<u64>,
    models: Vec<Model>,
    release: bool,
}

/// A model that is here.
struct Model {
    installed: Installed,
    /// Whether `carat pack` would make it faster.
    is_packable: bool,
    /// The most tokens per second that the measured bandwidth allows; `None` if it isn't known or the model can't be read.
    most_tokens: Option<f64>,
}

/// What the machine reached just now.
#[derive(Clone, Copy)]
struct Limits {
    /// Bytes per second.
    bandwidth: f64,
    /// Operations per second, two a multiply-add.
    int8_peak: f64,
}

/// Runs the subcommand.
pub fn run(args: &Args) -> anyhow::Result<()> {
    let report = gather(args)?;
    let advice = advice::of(&report);
    let mut out = output::stdout();
    if args.json {
        output::json_line(&mut out, &as_json(&report, &advice))?;
    } else {
        as_text(&mut out, &report, &advice)?;
    }
    Ok(out.flush()?)
}

fn gather(args: &Args) -> anyhow::Result<Report> {
    let device = device::open(DeviceOptions::default())?;
    let threads = device.threads();
    let cache = Cache::new(Settings::from_env()?.cache);
    // Before the measurement, which takes memory of its own.
    let available_memory = host::available_memory();
    let limits = match args.no_measure {
        true => None,
        false => Some(Limits {
            bandwidth: measure::read_bandwidth(threads, available_memory)?,
            int8_peak: measure::int8_peak(threads),
        }),
    };
    Ok(Report {
        machine: Machine::look(),
        isas: carat_cpu::available().into_iter().map(carat_cpu::Isa::name).collect(),
        threads,
        available_memory,
        limits,
        free_disk: cache.free_space(),
        models: installed::list(&cache)?.into_iter().map(|installed| Model::look(installed, &device, limits)).collect(),
        cache: cache.root().into(),
        release: !cfg!(debug_assertions),
    })
}

fn as_text(out: &mut impl Write, report: &Report, advice: &[String]) -> std::io::Result<()> {
    let m = &report.machine;
    let unknown = || "unknown".to_owned();
    let size = |bytes: Option<u64>| bytes.map_or_else(unknown, output::bytes);
    writeln!(out, "CPU          {}", m.cpu.clone().unwrap_or_else(unknown))?;
    writeln!(out, "threads      {} of {} processors", report.threads, m.processors)?;
    writeln!(out, "kernels      {} (this machine has {})", report.isas[0], report.isas.join(", "))?;
    writeln!(out, "memory       {}, {} free", size(m.memory), size(report.available_memory))?;
    if let Some(limit) = m.cgroup_memory {
        writeln!(out, "             the control group allows {}", output::bytes(limit))?;
    }
    if let Some(quota) = m.cgroup_cpus {
        writeln!(out, "quota        the control group allows {quota:.1} processors")?;
    }
    writeln!(out, "huge pages   {}", m.huge_pages.clone().unwrap_or_else(unknown))?;
    if let Some(limits) = report.limits {
        let (bandwidth, peak) = (limits.bandwidth / 1e9, limits.int8_peak / 1e9);
        writeln!(out, "measured     {bandwidth:.1} GB/s read, {peak:.0} int8 GOP/s")?;
    }
    writeln!(out, "cache        {}, {} free", report.cache.display(), size(report.free_disk))?;
    for model in &report.models {
        let Model { installed, most_tokens, .. } = model;
        let most = most_tokens.map_or_else(String::new, |n| format!("; memory allows at most {n:.1} tokens/s"));
        writeln!(out, "model        {}, {}{most}", installed.name, output::bytes(installed.bytes))?;
    }
    for line in advice {
        writeln!(out, "advice       {line}")?;
    }
    Ok(())
}

impl Model {
    fn look(installed: Installed, device: &Device, limits: Option<Limits>) -> Self {
        let open = || {
            let files = ModelFiles::open(&ModelSource::Path(installed.path.clone()))?;
            Ok::<_, carat_runtime::Error>((tiles::find(&files, device)?, files))
        };
        let found = (!installed.is_drafter).then(open).and_then(Result::ok);
        let is_packable = found.as_ref().is_some_and(|(tiles, _)| tiles.are_wanted());
        let most_tokens = found.zip(limits).and_then(|((tiles, files), limits)| {
            let memory = loading::plan_on(device, &files, &tiles, &LoadOptions::default()).ok()?;
            let bytes = WeightBytes::of(&files, &tiles).per_token(&files.config().ok()?, &memory, 0);
            Some(limits.bandwidth / bytes as f64)
        });
        Model { installed, is_packable, most_tokens }
    }
}

fn as_json(report: &Report, advice: &[String]) -> Value {
    let m = &report.machine;
    let models = report.models.iter().map(|Model { installed, is_packable, most_tokens }| {
        json!({
            "name": installed.name.to_string(), "bytes": installed.bytes, "packable": is_packable,
            "most_tokens_per_second": most_tokens,
        })
    });
    json!({
        "version": env!("CARGO_PKG_VERSION"), "release": report.release,
        "cpu": m.cpu, "processors": m.processors, "threads": report.threads, "kernels": report.isas,
        "memory": m.memory, "available_memory": report.available_memory,
        "cgroup": { "memory": m.cgroup_memory, "cpus": m.cgroup_cpus },
        "huge_pages": m.huge_pages, "governor": m.governor, "load": m.load,
        "bandwidth": report.limits.map(|l| l.bandwidth), "int8_peak": report.limits.map(|l| l.int8_peak),
        "cache": report.cache, "free_disk": report.free_disk,
        "models": models.collect::<Vec<_>>(), "advice": advice,
    })
}
