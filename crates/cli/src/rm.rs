//! `carat rm`: models that are no longer wanted.

use std::io::Write;

use carat_hub::{Cache, ModelName, Settings, installed};

use crate::args::UsageError;
use crate::{ask, output};

/// Remove models from this machine
///
/// The names are those of `carat list` and the short names of `carat pull`. Without a quantisation, everything of the
/// repository goes, and the drafter that came along with it. Bytes that another file still refers to stay.
#[derive(clap::Args)]
pub struct Args {
    /// What to remove
    #[arg(value_name = "MODEL", required = true)]
    names: Vec<String>,
    /// Don't ask
    #[arg(short, long)]
    yes: bool,
}

/// Runs the subcommand.
pub fn run(args: &Args) -> anyhow::Result<()> {
    let names = args.names.iter().map(|name| name.parse()).collect::<Result<Vec<ModelName>, carat_hub::Error>>();
    let names = names.map_err(|error| UsageError(error.to_string()))?;
    if !args.yes && !ask::can_ask() {
        return Err(UsageError("there is no terminal to ask in: expected --yes".into()).into());
    }
    let cache = Cache::new(Settings::from_env()?.cache);
    // All are looked up before any goes: a wrong name removes nothing.
    let mut removals = names.iter().map(|name| installed::removal(&cache, name)).collect::<Result<Vec<_>, _>>()?;
    for i in 0..removals.len() {
        let drafter = installed::drafter_of(&cache, &removals[i])?;
        removals.extend(drafter.filter(|drafter| removals.iter().all(|removal| removal.name != drafter.name)));
    }
    let mut out = output::stdout();
    for removal in removals {
        let size = output::bytes(removal.bytes);
        if args.yes || ask::yes(&format!("Remove {} ({size})?", removal.name))? {
            removal.apply()?;
            writeln!(out, "removed {} ({size})", removal.name)?;
        }
    }
    Ok(out.flush()?)
}
