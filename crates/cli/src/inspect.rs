//! `carat inspect`: what a model is and what it will take, without loading it.

mod check;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::Write;
use std::path::PathBuf;

use carat_chat::template::{ChatTemplate, Variant};
use carat_chat::tokenizer::Tokenizer;
use carat_model::config::PRESETS;
use carat_model::plan::{FfnPlan, KvSource, Span, ValueSource, plan};
use carat_model::{LayerPlan, MemoryPlan, ModelConfig};
use carat_runtime::{ChatFormat, Error, GenerationDefaults, LoadOptions, ModelFiles, host, loading, mmproj, work};
use carat_weights::Checkpoint;
use serde_json::{Value, json};

use crate::args::{self, EncoderArgs, EngineArgs};
use crate::output;

/// Show a model's architecture, layers, tensors, tokenizer, template and memory
#[derive(clap::Args)]
pub struct Args {
    /// Directory with config.json, or .gguf file; left out: the embedded model
    model: Option<PathBuf>,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
    /// Read all weights, and fail if some are not finite; takes as long as reading the files
    #[arg(long)]
    check: bool,
    #[command(flatten)]
    encoders: EncoderArgs,
    #[command(flatten)]
    engine: EngineArgs,
}

/// Everything that is shown.
struct Facts {
    model: String,
    format: &'static str,
    config: ModelConfig,
    layers: Vec<LayerPlan>,
    /// By type: tensors and bytes.
    tensors: BTreeMap<String, (usize, u64)>,
    tokenizer: Option<Tokenizer>,
    template: TemplateFacts,
    generation: Option<GenerationDefaults>,
    memory: MemoryPlan,
    /// What `--memory` allows, in bytes.
    allowed: Option<u64>,
    /// The longest context that fits in what is free and allowed.
    longest: Option<usize>,
    kv: &'static str,
}

/// Which template prompts are made with.
#[derive(Debug, PartialEq)]
struct TemplateFacts {
    name: &'static str,
    why: String,
    /// Length of the template the files bring, in bytes.
    bytes: Option<usize>,
}

/// Runs the subcommand.
pub fn run(args: &Args) -> anyhow::Result<()> {
    let files = args.encoders.open(&args::source(args.model.as_ref())?)?;
    let facts = gather(&files, args)?;
    let mut out = output::stdout();
    if args.json {
        output::json_line(&mut out, &as_json(&facts))?;
    } else {
        out.write_all(as_text(&facts)?.as_bytes())?;
    }
    if args.check {
        let mut silent = std::io::sink();
        let report: &mut dyn Write = if args.json { &mut silent } else { &mut out };
        let encoders = mmproj::open_apart(&files).unwrap_or_else(|error| {
            output::note(&format!("note: encoders are not checked: {error}"));
            None
        });
        check::run([&files].into_iter().chain(&encoders).map(|files| files.checkpoint().tensors()), report)?;
    }
    Ok(out.flush()?)
}

fn gather(files: &ModelFiles, args: &Args) -> anyhow::Result<Facts> {
    let options = options(files, args);
    let config = files.config()?;
    let tokenizer = match files.tokenizer() {
        Ok(tokenizer) => Some(tokenizer),
        Err(Error::NoTokenizer { .. }) => None,
        Err(other) => return Err(other.into()),
    };
    Ok(Facts {
        model: files.source().to_string(),
        format: match files.checkpoint() {
            Checkpoint::HfDir(_) => "Hugging Face directory",
            Checkpoint::Gguf(_) => "GGUF",
        },
        layers: plan(&config),
        tensors: tensors_by_type(files),
        template: template(files, &config)?,
        generation: tokenizer.as_ref().map(|t| files.generation(t)).transpose()?,
        memory: loading::plan(files, &options)?,
        allowed: options.memory,
        longest: loading::longest_context(files, &options)?,
        kv: carat_model::kv::type_name(options.resolve(&config).kv),
        tokenizer,
        config,
    })
}

/// As a chat has them: with room for what may be shown, unless that is unknown to this program or leaves none for words.
fn options(files: &ModelFiles, args: &Args) -> LoadOptions {
    let text = args.engine.load_options();
    let all = LoadOptions { image_tokens: Some(files.image_tokens()), sounds: true, ..text };
    let why = match loading::longest_context(files, &all) {
        Ok(Some(_)) => return all,
        Ok(None) => "no context fits beside them".to_owned(),
        Err(error) => error.to_string(),
    };
    if let Ok(Some(_)) = loading::longest_context(files, &text) {
        output::note(&format!("note: memory is planned without encoders: {why}"));
    }
    text
}

fn template(files: &ModelFiles, config: &ModelConfig) -> anyhow::Result<TemplateFacts> {
    let bytes = files.chat_template()?.map(str::len);
    let (name, why) = match (ChatFormat::of(files), bytes) {
        (Err(Error::ChatTemplate { reason, .. }), _) => ("none", format!("prompts can't be made: {reason}")),
        (Err(other), _) => return Err(other.into()),
        (Ok(format), bytes) => match (format.template(), bytes) {
            (ChatTemplate::Jinja(_), _) => {
                ("its own", "the files' template differs from the official ones and is rendered as written".to_owned())
            }
            (ChatTemplate::Gemma3, None) => (GEMMA3, "the files bring none".to_owned()),
            (ChatTemplate::Gemma3, Some(_)) => (GEMMA3, SAME.to_owned()),
            (ChatTemplate::Official(variant), Some(_)) => (official(*variant), SAME.to_owned()),
            (ChatTemplate::Official(variant), None) => {
                let has = if config.per_layer.is_some() { "has" } else { "has no" };
                (official(*variant), format!("the files bring none, and the model {has} per-layer inputs"))
            }
        },
    };
    Ok(TemplateFacts { name, why, bytes })
}

const GEMMA3: &str = "official, Gemma 3";
const SAME: &str = "the files' template prints what the official one does";

fn official(variant: Variant) -> &'static str {
    match variant {
        Variant::Large => "official, large",
        Variant::Small => "official, small",
    }
}

fn tensors_by_type(files: &ModelFiles) -> BTreeMap<String, (usize, u64)> {
    let mut types = BTreeMap::new();
    for tensor in files.checkpoint().tensors().iter() {
        let entry: &mut (usize, u64) = types.entry(tensor.dtype.to_string()).or_default();
        entry.0 += 1;
        entry.1 += tensor.data.len() as u64;
    }
    types
}

/// The published size with these dimensions.
fn size_of(config: &ModelConfig) -> Option<&'static str> {
    PRESETS.into_iter().find(|name| {
        ModelConfig::preset(name)
            .is_some_and(|p| p.d_model == config.d_model && p.layers == config.layers && p.n_heads == config.n_heads)
    })
}

fn as_text(facts: &Facts) -> Result<String, std::fmt::Error> {
    let Facts { config, memory, .. } = facts;
    let mut text = String::new();
    let w = &mut text;
    writeln!(w, "model       {}", facts.model)?;
    writeln!(w, "format      {}", facts.format)?;
    if let Some(size) = size_of(config) {
        writeln!(w, "size        Gemma 4 {size}")?;
    }
    writeln!(w, "parameters  {:.2} million (text)", config.parameters() as f64 / 1e6)?;
    writeln!(w, "shape       d_model {}, vocabulary {}, {} heads", config.d_model, config.vocab_size, config.n_heads)?;
    writeln!(w, "context     {} tokens, window {}", config.max_context, config.window)?;
    if let Some(p) = config.per_layer {
        writeln!(w, "per layer   inputs of {} values", p.width)?;
    }
    if let Some(e) = config.experts {
        writeln!(w, "experts     {} of {} per token, width {}", e.top_k, e.n_experts, e.width)?;
    }
    let work = work::prompt_work(config);
    let share = 100.0 * work.done as f64 / work.all_layers as f64;
    writeln!(w, "prompt      {:.1} million multiply-adds a token, {share:.0} % of all layers", work.done as f64 / 1e6)?;

    writeln!(w, "\nlayers      {}", facts.layers.len())?;
    let groups = groups(&facts.layers);
    let width = groups.iter().map(|(ranges, _)| ranges.len()).max().unwrap_or(0);
    for (ranges, what) in groups {
        writeln!(w, "  {ranges:width$}  {what}")?;
    }
    writeln!(w, "\ntensors     {}", facts.tensors.values().map(|(n, _)| n).sum::<usize>())?;
    for (dtype, (n, bytes)) in &facts.tensors {
        writeln!(w, "  {dtype:8} {n:>6} {:>12}", output::bytes(*bytes))?;
    }
    match &facts.tokenizer {
        Some(t) => {
            writeln!(w, "\ntokenizer   {} entries, {} of them control tokens", t.vocab_size(), control_tokens(t))?
        }
        None => writeln!(w, "\ntokenizer   none")?,
    }
    let TemplateFacts { name, why, bytes } = &facts.template;
    let bytes = bytes.map_or(String::new(), |n| format!(" ({n} bytes)"));
    writeln!(w, "template    {name}: {why}{bytes}")?;
    if let Some(g) = &facts.generation {
        let s = &g.sampling;
        writeln!(w, "sampling    temperature {}, top-k {}, top-p {}", s.temperature, s.top_k, s.top_p)?;
        writeln!(w, "ends with   {:?}; never drawn: {:?}", numbers(&g.stop_tokens), numbers(&s.suppress))?;
    }
    writeln!(w, "\nmemory for {} tokens, {} cache", memory.ctx, facts.kv)?;
    for line in memory.to_string().lines() {
        writeln!(w, "  {line}")?;
    }
    let mut line = |what: &str, value: String| writeln!(w, "  {what:<64} {value:>12}");
    if let Some(free) = host::available_memory() {
        line("free on this machine", output::bytes(free))?;
    }
    if let Some(allowed) = facts.allowed {
        line("allowed, weights included", output::bytes(allowed))?;
    }
    line("longest context that fits, in tokens", facts.longest.map_or("none".into(), |ctx| ctx.to_string()))?;
    Ok(text)
}

fn as_json(facts: &Facts) -> Value {
    let Facts { config, memory, .. } = facts;
    let layers: Vec<Value> = facts
        .layers
        .iter()
        .zip(&config.layers)
        .map(|(plan, layer)| layer_json(plan, layer.layer_type.name()))
        .collect();
    let tensors: serde_json::Map<String, Value> = facts
        .tensors
        .iter()
        .map(|(dtype, (n, bytes))| (dtype.clone(), json!({"tensors": n, "bytes": bytes})))
        .collect();
    let work = work::prompt_work(config);
    json!({
        "model": facts.model,
        "format": facts.format,
        "size": size_of(config),
        "parameters": config.parameters(),
        "d_model": config.d_model,
        "vocab_size": config.vocab_size,
        "n_heads": config.n_heads,
        "max_context": config.max_context,
        "window": config.window,
        "softcap": config.softcap,
        "per_layer_input": config.per_layer.map(|p| p.width),
        "experts": config.experts.map(|e| json!({"n": e.n_experts, "top_k": e.top_k, "width": e.width})),
        "prompt_multiply_adds": {"all_layers": work.all_layers, "done": work.done},
        "layers": layers,
        "tensors": tensors,
        "tokenizer": facts.tokenizer.as_ref().map(|t| json!({"vocab_size": t.vocab_size(), "control_tokens": control_tokens(t)})),
        "template": facts.template.name,
        "template_why": facts.template.why,
        "template_bytes": facts.template.bytes,
        "generation": facts.generation.as_ref().map(|g| json!({
            "temperature": g.sampling.temperature, "top_k": g.sampling.top_k, "top_p": g.sampling.top_p,
            "stop_tokens": numbers(&g.stop_tokens), "suppress_tokens": numbers(&g.sampling.suppress),
        })),
        "memory": {
            "ctx": memory.ctx, "kv_type": facts.kv, "kv_bytes": memory.kv_bytes(), "intermediates": memory.scratch, "workspace": memory.workspace,
            "picture_encoder": memory.pictures.as_ref().map(|e| e.buffers), "sound_encoder": memory.sounds.as_ref().map(|e| e.buffers),
            "encoder_weights": memory.encoder_weights(), "soft_tokens": memory.soft_tokens(),
            "program": memory.program,
            "allocated": memory.taken(), "weights": memory.file.weights, "per_layer_table": memory.file.per_layer_table,
            "rearranged": memory.file.rearranged, "ignored": memory.file.ignored, "free": host::available_memory(),
            "allowed": facts.allowed, "longest_ctx": facts.longest,
        },
    })
}

fn layer_json(plan: &LayerPlan, layer_type: &str) -> Value {
    let donor = match plan.kv {
        KvSource::Own => None,
        KvSource::SharedWith(donor) => Some(donor.0),
    };
    json!({
        "type": layer_type,
        "window": plan.span.window(),
        "head_dim": plan.head_dim,
        "n_kv_heads": plan.n_kv_heads,
        "reads_kv_of": donor,
        "value_is_key": plan.value == ValueSource::SameAsKey,
        "ffn_width": plan.ffn.width(),
    })
}

fn numbers(ids: &[carat_tensor::TokenId]) -> Vec<u32> {
    ids.iter().map(|id| id.0).collect()
}

fn control_tokens(tokenizer: &Tokenizer) -> usize {
    (0..tokenizer.vocab_size() as u32).filter(|&id| tokenizer.is_control(carat_tensor::TokenId(id))).count()
}

/// Layers that are alike, as ranges, and what they are; in order of their first.
fn groups(layers: &[LayerPlan]) -> Vec<(String, String)> {
    let mut kinds: Vec<(LayerPlan, Vec<usize>)> = Vec::new();
    for (index, layer) in layers.iter().enumerate() {
        match kinds.iter_mut().find(|(kind, _)| kind == layer) {
            Some((_, members)) => members.push(index),
            None => kinds.push((*layer, vec![index])),
        }
    }
    kinds.iter().map(|(kind, members)| (ranges(members), describe(kind))).collect()
}

/// `0-3,5,7-8`.
fn ranges(sorted: &[usize]) -> String {
    let mut runs: Vec<(usize, usize)> = Vec::new();
    for &n in sorted {
        match runs.last_mut() {
            Some((_, last)) if *last + 1 == n => *last = n,
            _ => runs.push((n, n)),
        }
    }
    let texts =
        runs.iter().map(|&(first, last)| if first == last { first.to_string() } else { format!("{first}-{last}") });
    texts.collect::<Vec<_>>().join(",")
}

fn describe(layer: &LayerPlan) -> String {
    let span = match layer.span {
        Span::Sliding { .. } => "sliding",
        Span::Full => "full",
    };
    let values = if layer.value == ValueSource::SameAsKey { ", value = key" } else { "" };
    let kv = match layer.kv {
        KvSource::Own => format!("{} kv{values}", layer.n_kv_heads),
        KvSource::SharedWith(donor) => format!("kv of layer {}", donor.0),
    };
    let experts = match layer.ffn {
        FfnPlan::Dense { .. } => String::new(),
        FfnPlan::DenseAndExperts { n_experts, expert_width, .. } => {
            format!(" and {n_experts} experts of {expert_width}")
        }
    };
    format!(
        "{span:7}  {} heads of {}, {kv}, feed-forward {}{experts}",
        layer.n_heads,
        layer.head_dim,
        layer.ffn.width()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layers_are_grouped_by_what_they_are() {
        let config = ModelConfig::preset("E2B").unwrap();
        let groups = groups(&plan(&config));
        assert_eq!(groups[0].0, "0-3,5-8,10-13");
        assert_eq!(groups[0].1, "sliding  8 heads of 256, 1 kv, feed-forward 6144");
        assert_eq!(groups.last().unwrap().1, "full     8 heads of 512, kv of layer 14, feed-forward 12288");
        assert_eq!(size_of(&config), Some("E2B"));
    }
}
