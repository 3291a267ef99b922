//! Which state of a repository is meant: a branch, a tag, or a commit.

use std::fmt;
use std::str::FromStr;

use crate::Error;
use crate::api::is_inside;

/// The most bytes of a revision's name.
const MOST_BYTES: usize = 200;

/// The name of a branch or tag (`main`, `v1.0`, `refs/pr/1`), or a commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Revision(String);

impl Revision {
    /// The branch that is meant where none is named.
    pub fn main() -> Self {
        Revision("main".to_owned())
    }

    /// As it was written.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// What `what`, a model or repository, is called at this revision.
    pub(crate) fn of(&self, what: impl fmt::Display) -> String {
        if *self == Revision::main() { what.to_string() } else { format!("revision {self} of {what}") }
    }

    /// Whether it is the full name of a commit, which always means the same files.
    pub fn is_commit(&self) -> bool {
        self.0.len() == 40 && self.0.chars().all(|c| c.is_ascii_hexdigit())
    }
}

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for Revision {
    type Err = Error;

    /// Refuses what is no name of a revision (`git-check-ref-format(1)`), or would lead out of the cache.
    fn from_str(text: &str) -> Result<Self, Error> {
        let plain = |c: char| c.is_ascii_alphanumeric() || "-_./+@".contains(c);
        let hidden = text.split('/').any(|part| part.starts_with('.') || part.ends_with(".lock"));
        let is_name = text.chars().all(plain) && !text.contains("..") && !text.starts_with('-') && !hidden;
        if is_name && is_inside(text) && text.len() <= MOST_BYTES {
            return Ok(Revision(text.to_owned()));
        }
        Err(Error::Revision { found: text.into() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn branches_tags_and_commits_are_revisions() {
        let commit = "0123456789abcdef0123456789abcdef01234567";
        for text in ["main", "v1.0", "refs/pr/1", "feature/x+y", "0123abc", commit] {
            let revision: Revision = text.parse().unwrap();
            assert_eq!((revision.as_str(), revision.is_commit()), (text, text == commit));
        }
    }

    #[test]
    fn what_leads_elsewhere_is_refused() {
        let long = "a".repeat(MOST_BYTES + 1);
        for text in
            ["", "..", "../x", "a/../b", "/x", "x/", "a//b", ".hidden", "-x", "a b", "a\\b", "c:x", "a.lock", &long]
        {
            let error = text.parse::<Revision>().unwrap_err().to_string();
            assert!(error.contains("branch, tag or commit"), "{error}");
        }
    }
}
