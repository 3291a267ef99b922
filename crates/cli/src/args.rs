//! Arguments that several subcommands share, and what they stand for.

use std::path::PathBuf;

use carat_runtime::{ModelFiles, ModelSource};
use carat_tensor::TokenId;

/// The command line can't be followed; exit code 2.
#[derive(Debug)]
pub struct UsageError(pub String);

impl std::fmt::Display for UsageError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for UsageError {}

/// The model that `MODEL` names; left out, the embedded one.
pub fn source(model: Option<&PathBuf>) -> ModelSource {
    model.map_or(ModelSource::Embedded, |path| ModelSource::Path(path.clone()))
}

/// Opens the files of `MODEL`.
pub fn open(model: Option<&PathBuf>) -> anyhow::Result<ModelFiles> {
    Ok(ModelFiles::open(&source(model))?)
}

/// Ids separated by commas or white space, with or without brackets around them.
pub fn ids(text: &str) -> Result<Vec<TokenId>, String> {
    let inner = text.trim();
    let inner = inner.strip_prefix('[').and_then(|t| t.strip_suffix(']')).unwrap_or(inner);
    let words = inner.split(|c: char| c == ',' || c.is_whitespace()).filter(|word| !word.is_empty());
    words.map(|word| word.parse().map(TokenId).map_err(|_| format!("`{word}` is not a token id"))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_may_be_separated_in_every_usual_way() {
        let expected = Ok(vec![TokenId(1), TokenId(20), TokenId(3)]);
        for text in ["1,20,3", "1 20\n3\n", "[1, 20, 3]", " 1,\t20 ,3,"] {
            assert_eq!(ids(text), expected, "{text}");
        }
        assert_eq!(ids(""), Ok(vec![]));
        assert_eq!(ids("1,x"), Err("`x` is not a token id".into()));
        assert_eq!(ids("-1"), Err("`-1` is not a token id".into()));
    }
}
