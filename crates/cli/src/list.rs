//! `carat list`: the models on this machine, whichever tool brought them.

use std::collections::BTreeMap;
use std::io::Write;
use std::time::{Duration, SystemTime};

use carat_hub::installed::{self, Installed};
use carat_hub::{Cache, Settings};
use serde_json::{Value, json};

use crate::output;

/// Show the models on this machine
///
/// Those in the cache that `carat pull` and other tools share (HF_HOME, HF_HUB_CACHE).
#[derive(clap::Args)]
pub struct Args {
    /// Print one JSON object per model
    #[arg(long)]
    json: bool,
}

/// Runs the subcommand.
pub fn run(args: &Args) -> anyhow::Result<()> {
    let cache = Cache::new(Settings::from_env()?.cache);
    let mut models = installed::list(&cache)?;
    for model in &mut models {
        model.dtype = model.dtype.take().or_else(|| stored_type(model));
    }
    let mut out = output::stdout();
    if args.json {
        for model in &models {
            output::json_line(&mut out, &as_json(model))?;
        }
    } else if models.is_empty() {
        writeln!(out, "no models in {}; `carat pull e2b` gets one", cache.root().display())?;
    } else {
        table(&mut out, &models)?;
    }
    Ok(out.flush()?)
}

/// The type of most of a model's bytes.
fn stored_type(model: &Installed) -> Option<String> {
    let checkpoint = carat_weights::open(&model.path).ok()?;
    let mut bytes: BTreeMap<String, usize> = BTreeMap::new();
    for tensor in checkpoint.tensors().iter() {
        *bytes.entry(tensor.dtype.to_string()).or_default() += tensor.data.len();
    }
    bytes.into_iter().max_by_key(|(_, bytes)| *bytes).map(|(dtype, _)| dtype)
}

fn table(out: &mut impl Write, models: &[Installed]) -> std::io::Result<()> {
    let width = models.iter().map(|model| model.name.to_string().len()).max().unwrap_or(0).max("name".len());
    writeln!(out, "{:width$}  {:>10}  {:14}  last used", "name", "size", "type")?;
    for model in models {
        let (name, size, kind) = (model.name.to_string(), output::bytes(model.bytes), kind(model));
        writeln!(out, "{name:width$}  {size:>10}  {kind:14}  {}", ago(model.last_used))?;
    }
    Ok(())
}

fn kind(model: &Installed) -> String {
    let dtype = model.dtype.as_deref().unwrap_or("?");
    if model.is_drafter { format!("{dtype} drafter") } else { dtype.to_owned() }
}

fn as_json(model: &Installed) -> Value {
    let seconds = model.last_used.and_then(|time| time.duration_since(SystemTime::UNIX_EPOCH).ok());
    json!({
        "name": model.name.to_string(), "path": model.path, "type": model.dtype, "drafter": model.is_drafter,
        "bytes": model.bytes, "last_used": seconds.map(|time| time.as_secs()),
    })
}

/// How long ago, in the largest fitting unit.
fn ago(time: Option<SystemTime>) -> String {
    let Some(time) = time else { return "?".into() };
    let seconds = SystemTime::now().duration_since(time).unwrap_or(Duration::ZERO).as_secs();
    let (count, unit) = match seconds {
        0..3600 => (seconds / 60, "minute"),
        3600..86_400 => (seconds / 3600, "hour"),
        _ => (seconds / 86_400, "day"),
    };
    match count {
        0 => "just now".into(),
        1 => format!("1 {unit} ago"),
        _ => format!("{count} {unit}s ago"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_told_in_words() {
        let before = |seconds| ago(Some(SystemTime::now() - Duration::from_secs(seconds)));
        for (seconds, expected) in
            [(5, "just now"), (61, "1 minute ago"), (7199, "1 hour ago"), (2 * 86_400 + 5, "2 days ago")]
        {
            assert_eq!(before(seconds), expected);
        }
        assert_eq!(ago(None), "?");
        assert_eq!(ago(Some(SystemTime::now() + Duration::from_secs(60))), "just now");
    }
}
