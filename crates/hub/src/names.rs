//! What people call models: `ORG/NAME`, `ORG/NAME:QUANT`, and short names for the published sizes.
//!
//! The short names stand for repositories: the published checkpoints and their Q4_0 files (`google`), and other
//! quantisations of the same weights by the authors of GGUF (`ggml-org`).

use std::fmt;
use std::str::FromStr;

use crate::Error;

/// The short names, and the size as the repositories spell it.
const SHORT: [(&str, &str); 5] = [("e2b", "E2B"), ("e4b", "E4B"), ("12b", "12B"), ("26b", "26B-A4B"), ("31b", "31B")];

/// A repository's name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct RepoId(String);

impl RepoId {
    /// `ORG/NAME`.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Its directory in the cache.
    pub(crate) fn directory(&self) -> String {
        format!("models--{}", self.0.replace('/', "--"))
    }

    /// The repository of a directory in the cache; `None` for everything else that is there.
    pub(crate) fn of_directory(name: &str) -> Option<Self> {
        let (org, model) = name.strip_prefix("models--")?.split_once("--")?;
        format!("{org}/{model}").parse().ok()
    }

    /// The repository of the drafter that belongs to this one. `None` if none is published for it.
    pub fn drafter(&self) -> Option<RepoId> {
        let name = self.0.strip_prefix("google/gemma-4-")?;
        let (size, rest) = name.split_once("-it")?;
        let known = SHORT.iter().any(|(_, known)| *known == size);
        let target = match rest {
            "" => "",
            "-qat-q4_0-gguf" | "-qat-q4_0-unquantized" => "-qat-q4_0-unquantized",
            _ => return None,
        };
        known.then(|| RepoId(format!("google/gemma-4-{size}-it{target}-assistant")))
    }
}

impl fmt::Display for RepoId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for RepoId {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let wrong = |why: &str| Error::Name { found: text.into(), why: why.into() };
        let (org, name) = text.split_once('/').ok_or_else(|| wrong("expected ORG/NAME, or one of the short names"))?;
        let is_plain = |part: &str| {
            // `--` separates the parts in the cache's directories; dots alone would leave them.
            !part.is_empty()
                && part.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c))
                && !part.starts_with(['.', '-'])
                && !part.contains("--")
                && !part.contains("..")
        };
        if is_plain(org) && is_plain(name) {
            Ok(RepoId(text.to_owned()))
        } else {
            Err(wrong("expected ORG/NAME of letters, digits, `-`, `_` and `.`"))
        }
    }
}

/// A model of a repository.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModelName {
    /// Where it is.
    pub repo: RepoId,
    /// Which of its GGUF files; `None` is the safetensors, or the usual quantisation where there are only GGUF files.
    pub quant: Option<String>,
}

impl ModelName {
    /// Whether `text` is one of the short names, with or without a quantisation.
    pub fn is_short(text: &str) -> bool {
        short(text).is_some()
    }
}

impl fmt::Display for ModelName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.quant {
            None => self.repo.fmt(f),
            Some(quant) => write!(f, "{}:{quant}", self.repo),
        }
    }
}

impl FromStr for ModelName {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        if let Some(name) = short(text) {
            return Ok(name);
        }
        let (repo, quant) = split_quant(text);
        if quant == Some("") {
            return Err(Error::Name { found: text.into(), why: "expected a quantisation after the colon".into() });
        }
        if !repo.contains('/') {
            let names = SHORT.map(|(short, _)| short).join(", ");
            let why = format!("expected ORG/NAME, ORG/NAME:QUANT, or one of {names}, also with :QUANT (e2b:q4_0)");
            return Err(Error::Name { found: text.into(), why });
        }
        Ok(ModelName { repo: repo.parse()?, quant: quant.map(str::to_owned) })
    }
}

fn split_quant(text: &str) -> (&str, Option<&str>) {
    text.split_once(':').map_or((text, None), |(repo, quant)| (repo, Some(quant)))
}

fn short(text: &str) -> Option<ModelName> {
    let (name, quant) = split_quant(text);
    let (_, size) = SHORT.iter().find(|(short, _)| name.eq_ignore_ascii_case(short))?;
    let (repo, quant) = match quant {
        Some("") => return None,
        None => (format!("google/gemma-4-{size}-it"), None),
        Some(q) if q.eq_ignore_ascii_case("q4_0") => {
            (format!("google/gemma-4-{size}-it-qat-q4_0-gguf"), Some("Q4_0".to_owned()))
        }
        Some(q) => (format!("ggml-org/gemma-4-{size}-it-GGUF"), Some(q.to_ascii_uppercase())),
    };
    Some(ModelName { repo: RepoId(repo), quant })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, expected: &str) {
        assert_eq!(text.parse::<ModelName>().unwrap().to_string(), expected);
    }

    #[track_caller]
    fn refused(text: &str, says: &str) {
        let error = text.parse::<ModelName>().unwrap_err().to_string();
        assert!(error.contains(says), "{error}");
    }

    #[test]
    fn short_names_are_the_published_repositories() {
        check("e2b", "google/gemma-4-E2B-it");
        check("E4B", "google/gemma-4-E4B-it");
        check("26b", "google/gemma-4-26B-A4B-it");
        check("31b:q4_0", "google/gemma-4-31B-it-qat-q4_0-gguf:Q4_0");
        check("12b:q8_0", "ggml-org/gemma-4-12B-it-GGUF:Q8_0");
        assert!(ModelName::is_short("e2b:Q4_0") && !ModelName::is_short("hello") && !ModelName::is_short("a/b"));
    }

    #[test]
    fn repositories_are_taken_as_they_are() {
        check("google/gemma-4-E2B-it", "google/gemma-4-E2B-it");
        check("some_org/x.y-GGUF:q4_K_m", "some_org/x.y-GGUF:q4_K_m");
    }

    #[test]
    fn what_could_leave_the_cache_is_no_name() {
        refused("7b", "one of e2b, e4b, 12b, 26b, 31b");
        refused("e2b:", "after the colon");
        refused("a/b:", "after the colon");
        for text in ["../x", "a/..", "a/b/c", "a/", "/b", "a/.b", "a--b/c", "a/b c", "a/b\\c", "https://x/y"] {
            assert!(text.parse::<RepoId>().is_err(), "{text}");
        }
    }

    #[test]
    fn directories_of_the_cache_and_names_are_one_to_one() {
        let repo: RepoId = "google/gemma-4-E2B-it".parse().unwrap();
        assert_eq!(repo.directory(), "models--google--gemma-4-E2B-it");
        assert_eq!(RepoId::of_directory(&repo.directory()), Some(repo));
        for other in ["datasets--a--b", "models--gpt2", "version.txt", ".locks"] {
            assert_eq!(RepoId::of_directory(other), None, "{other}");
        }
    }

    #[test]
    fn drafters_are_those_of_the_same_weights() {
        let drafter = |text: &str| text.parse::<ModelName>().unwrap().repo.drafter().map(|repo| repo.to_string());
        assert_eq!(drafter("e2b").as_deref(), Some("google/gemma-4-E2B-it-assistant"));
        assert_eq!(drafter("26b:q4_0").as_deref(), Some("google/gemma-4-26B-A4B-it-qat-q4_0-unquantized-assistant"));
        assert_eq!(drafter("e2b:q8_0"), None);
        assert_eq!(drafter("google/gemma-4-E2B"), None);
        assert_eq!(drafter("google/gemma-4-E2B-it-assistant"), None);
        assert_eq!(drafter("someone/gemma-4-E2B-it"), None);
    }
}
