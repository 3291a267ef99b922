//! What can go wrong between a name and a model on the disk.

use std::path::{Path, PathBuf};
use std::time::Duration;

/// Why a model could not be found, fetched or removed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A text that names no model.
    #[error("`{found}` names no model: {why}")]
    Name {
        /// The text.
        found: String,
        /// What is wrong with it.
        why: String,
    },
    /// The hub wants to know who asks, or didn't accept the token.
    #[error("{repo}: the hub answered 401: {}", unauthorized(*with_token, page))]
    Unauthorized {
        /// The repository.
        repo: String,
        /// Whether a token was sent.
        with_token: bool,
        /// The repository's page.
        page: String,
    },
    /// The token's owner may not read it.
    #[error(
        "{repo}: the hub answered 403: {message}; accept its licence at {page}, and check that the token may read it"
    )]
    Forbidden {
        /// The repository.
        repo: String,
        /// What the hub said.
        message: String,
        /// The repository's page.
        page: String,
    },
    /// Nothing by that name.
    #[error("{what}: the hub has nothing by that name ({url} answered 404)")]
    NotFound {
        /// The repository or file.
        what: String,
        /// What was asked for.
        url: String,
    },
    /// Another answer that trying again would not change.
    #[error("{url} answered {status}: {message}")]
    Status {
        /// What was asked for.
        url: String,
        /// The HTTP status.
        status: u16,
        /// What the server said.
        message: String,
    },
    /// An answer that makes no sense.
    #[error("{url}: {why}")]
    Answer {
        /// What was asked for.
        url: String,
        /// What was found, and what was expected.
        why: String,
    },
    /// The hub wants to be left alone for longer than is worth waiting.
    #[error("{url} answered {status} and asks to wait {} s: try again then; what has arrived is kept", wait.as_secs())]
    Limited {
        /// What was asked for.
        url: String,
        /// The HTTP status.
        status: u16,
        /// How long.
        wait: Duration,
    },
    /// No luck in several tries.
    #[error("{url}: {reason}; gave up after {attempts} tries. The same command goes on from what has arrived")]
    Network {
        /// What was asked for.
        url: String,
        /// Of the last try.
        reason: String,
        /// How many in a row brought nothing.
        attempts: u32,
    },
    /// The encrypted connection could not be agreed on.
    #[error(
        "{url}: no secure connection: {why}; if a proxy or mirror has certificates of its own, let SSL_CERT_FILE name them"
    )]
    Insecure {
        /// What was asked for.
        url: String,
        /// What is wrong.
        why: String,
    },
    /// The bytes are not those that the hub announced.
    #[error("{file}: expected the hash {expected}, found {found}, twice; nothing of it is kept")]
    Checksum {
        /// The file's name in its repository.
        file: String,
        /// The hub's.
        expected: String,
        /// That of what arrived.
        found: String,
    },
    /// The repository has no such quantisation.
    #[error("{repo} has no `{quant}`; it has: {}", there.join(", "))]
    Quant {
        /// The repository.
        repo: String,
        /// What was asked for.
        quant: String,
        /// What there is.
        there: Vec<String>,
    },
    /// Several quantisations, and none is the usual one.
    #[error("{repo} has several quantisations: name one of {} as {repo}:QUANT", there.join(", "))]
    WhichQuant {
        /// The repository.
        repo: String,
        /// What there is.
        there: Vec<String>,
    },
    /// A repository without weights that can be read.
    #[error("{repo} has no model that carat reads: expected model.safetensors, model.safetensors.index.json, or .gguf")]
    NoWeights {
        /// The repository.
        repo: String,
    },
    /// Part of the weights is missing from the repository.
    #[error("{repo} lacks `{file}`, which its other files need")]
    Incomplete {
        /// The repository.
        repo: String,
        /// The missing file.
        file: String,
    },
    /// Too little room.
    #[error(
        "{}: {} MiB are free and {} MiB are needed; free some, or let HF_HUB_CACHE name a directory on another disk",
        dir.display(), available >> 20, needed.div_ceil(1 << 20)
    )]
    Space {
        /// The cache.
        dir: PathBuf,
        /// Bytes still to be written.
        needed: u64,
        /// Bytes that are free.
        available: u64,
    },
    /// A file or directory of the cache.
    #[error("{}: {source}", path.display())]
    Io {
        /// Which.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The network may not be used, and the model isn't here.
    #[error("{name} is not on this machine, and the network may not be used (--offline or HF_HUB_OFFLINE)")]
    Offline {
        /// The model.
        name: String,
    },
    /// No branch, tag or commit.
    #[error(
        "`{found}` can't be a revision: expected the name of a branch, tag or commit, such as main, v1.0 or refs/pr/1"
    )]
    Revision {
        /// What was asked for.
        found: String,
    },
    /// Nothing by that name in the cache.
    #[error("{name} is not on this machine; `carat list` shows what is")]
    NotHere {
        /// The model.
        name: String,
    },
    /// Somebody is writing what should be removed.
    #[error("{repo} is being pulled by another process: stop it first")]
    Busy {
        /// The repository.
        repo: String,
    },
    /// A token that no request can carry.
    #[error("{origin}: expected a token of visible ASCII characters, found {found:?} in it")]
    Token {
        /// The variable or file it is from.
        origin: String,
        /// A character that it can't have.
        found: char,
    },
    /// A certificate file that can't be used.
    #[error("{}: expected certificates in PEM: {why}", path.display())]
    Certificates {
        /// The file that `SSL_CERT_FILE` names.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
}

impl Error {
    /// For `map_err` on file operations.
    pub(crate) fn io(path: &Path) -> impl FnOnce(std::io::Error) -> Error {
        move |source| Error::Io { path: path.into(), source }
    }
}

fn unauthorized(with_token: bool, page: &str) -> String {
    if with_token {
        format!("the token was not accepted, or there is no {page}")
    } else {
        format!(
            "it is private or gated, or isn't there; accept its licence at {page}, then set HF_TOKEN or log in with \
             `hf auth login`"
        )
    }
}
