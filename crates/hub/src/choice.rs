//! Which files of a repository make up a model.
//!
//! Safetensors come with their config, tokenizer and template. A GGUF file holds those itself; beside it there may be
//! an encoder of images and sound (`mmproj` in its name) and a drafter (`mtp-…` or `…-assistant…`).

use crate::Error;
use crate::names::ModelName;

/// The index of weights in several files.
pub const INDEX: &str = "model.safetensors.index.json";
/// Weights in one file.
pub const SINGLE: &str = "model.safetensors";

/// What is beside safetensors, where the repository has it.
const BESIDE: [&str; 12] = [
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "tokenizer.model",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
    "chat_template.json",
    "processor_config.json",
    "preprocessor_config.json",
    "video_preprocessor_config.json",
];

/// Taken where several quantisations are there and none is named, best first.
const USUAL: [&str; 3] = ["Q4_K_M", "Q4_0", "Q8_0"];
/// Encoders are small and lose most by quantisation.
const ENCODERS: [&str; 4] = ["BF16", "F16", "F32", "Q8_0"];
/// Drafters only need to be fast.
const DRAFTERS: [&str; 4] = ["Q8_0", "BF16", "F16", "F32"];

/// A model's weights in a list of files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Weights {
    /// `model.safetensors`.
    Single,
    /// [`INDEX`] and the files it names.
    Indexed,
    /// The parts of one GGUF model, in order.
    Gguf(Gguf),
}

/// One model among GGUF files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gguf {
    /// The quantisation as the file name spells it, in capitals; without one, the file's stem.
    pub quant: String,
    /// Its files, in order.
    pub parts: Vec<String>,
}

/// The files of one model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Choice {
    /// The weights.
    pub weights: Weights,
    /// What belongs to them: config, tokenizer, template.
    pub beside: Vec<String>,
    /// The encoder of images and sound of a GGUF model.
    pub encoder: Option<String>,
    /// The drafter of a GGUF model, in the same repository.
    pub drafter: Option<Gguf>,
}

/// Chooses the files of `name` from those of its repository.
pub fn choose(name: &ModelName, files: &[String]) -> Result<Choice, Error> {
    let has = |file: &str| files.iter().any(|f| f == file);
    if name.quant.is_none() && (has(SINGLE) || has(INDEX)) {
        let weights = if has(SINGLE) { Weights::Single } else { Weights::Indexed };
        let beside = BESIDE.into_iter().filter(|file| has(file)).map(str::to_owned).collect();
        return Ok(Choice { weights, beside, encoder: None, drafter: None });
    }
    let models = gguf_models(files);
    let repo = || name.repo.to_string();
    let chosen = pick(&models, name)?;
    check_parts(&repo(), &chosen.parts)?;
    let others = groups(files);
    Ok(Choice {
        weights: Weights::Gguf(chosen.clone()),
        beside: Vec::new(),
        encoder: prefer(others.iter().filter(|g| is_encoder(&g.parts[0])), &ENCODERS).map(|g| g.parts[0].clone()),
        drafter: prefer(others.iter().filter(|g| is_drafter(&g.parts[0])), &DRAFTERS)
            .filter(|g| g.parts != chosen.parts)
            .cloned(),
    })
}

/// The safetensors files that an index names, in order.
pub fn shards(index: &serde_json::Value) -> Option<Vec<String>> {
    let map = index.get("weight_map")?.as_object()?;
    let mut names: Vec<String> = map
        .values()
        .map(|v| v.as_str().map(str::to_owned))
        .collect::<Option<_>>()
        .filter(|n: &Vec<_>| !n.is_empty())?;
    names.sort();
    names.dedup();
    Some(names)
}

/// The models among GGUF files: neither encoders nor, beside other models, drafters.
pub fn gguf_models(files: &[String]) -> Vec<Gguf> {
    let models: Vec<Gguf> = groups(files).into_iter().filter(|g| !is_encoder(&g.parts[0])).collect();
    let (drafters, targets): (Vec<_>, Vec<_>) = models.into_iter().partition(|g| is_drafter(&g.parts[0]));
    if targets.is_empty() { drafters } else { targets }
}

fn pick<'a>(models: &'a [Gguf], name: &ModelName) -> Result<&'a Gguf, Error> {
    let repo = || name.repo.to_string();
    let there = || {
        let mut quants: Vec<String> = models.iter().map(|g| g.quant.clone()).collect();
        quants.sort();
        quants.dedup();
        quants
    };
    if models.is_empty() {
        return Err(Error::NoWeights { repo: repo() });
    }
    // Of several with one name the shortest path: copies are in directories.
    let named = |quant: &str| {
        let fits = |g: &&Gguf| g.quant.eq_ignore_ascii_case(quant) || stem(&g.parts[0]).eq_ignore_ascii_case(quant);
        models.iter().filter(fits).min_by_key(|g| g.parts[0].len())
    };
    match &name.quant {
        Some(quant) => {
            let quant = quant.strip_suffix(".gguf").unwrap_or(quant);
            named(quant).ok_or_else(|| Error::Quant { repo: repo(), quant: quant.to_owned(), there: there() })
        }
        None if models.len() == 1 => Ok(&models[0]),
        None => USUAL
            .iter()
            .find_map(|quant| named(quant))
            .ok_or_else(|| Error::WhichQuant { repo: repo(), there: there() }),
    }
}

fn prefer<'a>(groups: impl Iterator<Item = &'a Gguf>, order: &[&str]) -> Option<&'a Gguf> {
    groups.min_by_key(|g| (order.iter().position(|q| *q == g.quant).unwrap_or(order.len()), g.parts[0].len()))
}

/// Every part of a model in parts is there.
fn check_parts(repo: &str, parts: &[String]) -> Result<(), Error> {
    let Some((base, _, count)) = part_of(&parts[0]) else { return Ok(()) };
    for number in 1..=count {
        let file = format!("{base}-{number:05}-of-{count:05}.gguf");
        if !parts.contains(&file) {
            return Err(Error::Incomplete { repo: repo.into(), file });
        }
    }
    Ok(())
}

/// GGUF files, parts of one model together.
fn groups(files: &[String]) -> Vec<Gguf> {
    let mut groups: Vec<Gguf> = Vec::new();
    let mut files: Vec<&String> = files.iter().filter(|file| file.ends_with(".gguf")).collect();
    files.sort();
    let key = |file: &str| part_of(file).map(|(base, _, count)| (base.to_owned(), count));
    for file in files {
        let same = |g: &&mut Gguf| key(&g.parts[0]).is_some() && key(&g.parts[0]) == key(file);
        match groups.iter_mut().find(same) {
            Some(group) => group.parts.push(file.clone()),
            None => groups.push(Gguf { quant: quant_of(file), parts: vec![file.clone()] }),
        }
    }
    groups
}

/// `base-00002-of-00003.gguf`, as llama.cpp's gguf-split names parts: base, number, count.
fn part_of(file: &str) -> Option<(&str, u32, u32)> {
    let (rest, count) = file.strip_suffix(".gguf")?.rsplit_once("-of-")?;
    let (base, number) = rest.rsplit_once('-')?;
    let parse = |text: &str| (text.len() == 5).then(|| text.parse::<u32>().ok()).flatten();
    let (number, count) = (parse(number)?, parse(count)?);
    (number >= 1 && number <= count).then_some((base, number, count))
}

/// A file's name without its directory, ending and part number.
fn stem(file: &str) -> &str {
    let base = part_of(file).map_or(file.strip_suffix(".gguf").unwrap_or(file), |(base, _, _)| base);
    base.rsplit_once('/').map_or(base, |(_, name)| name)
}

fn is_encoder(file: &str) -> bool {
    stem(file).to_ascii_lowercase().contains("mmproj")
}

/// Whether a file only drafts for another model, by its name.
pub fn is_drafter(file: &str) -> bool {
    let stem = stem(file).to_ascii_lowercase();
    !is_encoder(file) && (stem.starts_with("mtp-") || stem.contains("-assistant") || stem.contains("drafter"))
}

/// The quantisation in a file's name: `Q4_0`, `UD-Q4_K_XL`, `IQ4_XS`, `BF16`, `MXFP4_MOE` and the like.
fn quant_of(file: &str) -> String {
    let stem = stem(file).to_ascii_uppercase();
    // `gemma-4-E2B_q4_0-it`: words end at `-`, `.` or `_`, and quantisations contain `_`.
    let starts = std::iter::once(0).chain(stem.match_indices(['-', '_', '.']).map(|(at, _)| at + 1));
    let label = starts.filter_map(|at| label(&stem[at..]).map(|len| (at, len))).next_back();
    match label {
        None => stem,
        Some((at, len)) if stem[..at].ends_with("UD-") => stem[at - 3..at + len].to_owned(),
        Some((at, len)) => stem[at..at + len].to_owned(),
    }
}

/// Length of the quantisation that `text` starts with.
fn label(text: &str) -> Option<usize> {
    let len = text.find(['-', '.']).unwrap_or(text.len());
    let (kind, rest) = text[..len].split_once('_').map_or((&text[..len], None), |(kind, rest)| (kind, Some(rest)));
    let digits = |prefix: &str| {
        kind.strip_prefix(prefix).is_some_and(|n| !n.is_empty() && n.chars().all(|c| c.is_ascii_digit()))
    };
    match kind {
        "BF16" | "F16" | "F32" => Some(kind.len()),
        "MXFP4" | "NVFP4" => Some(len),
        // `Q4` alone is also a word; the types of GGUF have a second part.
        _ if digits("Q") || digits("IQ") || digits("TQ") => rest.map(|_| len),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
