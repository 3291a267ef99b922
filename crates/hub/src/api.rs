//! What the hub says about a repository and its files.
//!
//! Source: the paths and headers of `huggingface_hub/hf_api.py` (`model_info`) and `file_download.py`
//! (`get_hf_file_metadata`), 2.4.0.

use serde_json::Value;

use crate::etag::Etag;
use crate::http::{Client, escaped, header};
use crate::retry::Failure;
use crate::{Error, RepoId, Revision};

/// The most bytes of a repository's description.
const MOST_LISTING_BYTES: u64 = 64 << 20;

/// A repository at one commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listing {
    /// The commit.
    pub commit: String,
    /// Paths of its files.
    pub files: Vec<String>,
}

/// One file of a repository.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Metadata {
    /// Its path in the repository.
    pub file: String,
    /// Its bytes.
    pub size: u64,
    /// The hash that names it.
    pub etag: Etag,
}

/// The files of `repo` at `revision`.
pub fn listing(client: &Client, repo: &RepoId, revision: &Revision) -> Result<Listing, Failure> {
    // A slash of the name is none of the path.
    let name = escaped(revision.as_str()).replace('/', "%2F");
    let url = format!("{}/api/models/{repo}/revision/{name}", client.endpoint());
    let mut reply = client.get(&url, None)?;
    if reply.status() != 200 {
        return Err(client.refusal(repo, &revision.of(repo), reply));
    }
    let body = reply.response.body_mut().with_config().limit(MOST_LISTING_BYTES).read_to_vec();
    let body = body.map_err(|error| Failure::again(&url, error.to_string()))?;
    Ok(parse_listing(&url, &body)?)
}

/// What the hub answered at `url`, the description of a repository.
///
/// # Errors
/// If it is not JSON, or its commit or one of its paths could lead out of the cache.
pub fn parse_listing(url: &str, body: &[u8]) -> Result<Listing, Error> {
    let answer = |why: String| Error::Answer { url: url.into(), why };
    let json: Value = serde_json::from_slice(body).map_err(|error| {
        answer(format!("expected JSON that describes a model, found {} bytes: {error}", body.len()))
    })?;
    let commit = json["sha"].as_str().unwrap_or_default();
    if commit.len() != 40 || !commit.chars().all(|c| c.is_ascii_hexdigit()) {
        return Err(answer(format!("expected a commit as `sha`, found `{}`", json["sha"])));
    }
    let siblings =
        json["siblings"].as_array().ok_or_else(|| answer("expected a list of files as `siblings`".into()))?;
    let mut files = Vec::with_capacity(siblings.len());
    for sibling in siblings {
        let file = sibling["rfilename"].as_str().unwrap_or_default();
        if !is_inside(file) {
            return Err(answer(format!("expected the path of a file, found `{}`", sibling["rfilename"])));
        }
        files.push(file.to_owned());
    }
    Ok(Listing { commit: commit.to_owned(), files })
}

/// Whether a path stays below the directory it starts in, on every system.
pub fn is_inside(path: &str) -> bool {
    let plain = |part: &str| !part.is_empty() && part != "." && part != ".." && !part.contains(['\\', ':', '\0']);
    path.split('/').all(plain)
}

/// Where a file's bytes are.
pub fn file_url(client: &Client, repo: &RepoId, commit: &str, file: &str) -> String {
    format!("{}/{repo}/resolve/{commit}/{}", client.endpoint(), escaped(file))
}

/// Size and hash of a file.
pub fn metadata(client: &Client, repo: &RepoId, commit: &str, file: &str) -> Result<Metadata, Failure> {
    let url = file_url(client, repo, commit, file);
    let (reply, headers) = client.head(&url)?;
    if !(200..400).contains(&reply.status()) {
        return Err(client.refusal(repo, &format!("{file} of {repo}"), reply));
    }
    // Where the bytes are elsewhere (`x-linked-…`), the other two describe the answer and not the file.
    let first = |name: &str| headers.iter().find_map(|headers| header(headers, name));
    let last = |name: &str| headers.iter().rev().find_map(|headers| header(headers, name));
    let size = first("x-linked-size").or_else(|| last("content-length"));
    let etag = first("x-linked-etag").or_else(|| last("etag"));
    let lacks = |what: &str| Error::Answer { url: url.clone(), why: format!("expected {what} among its headers") };
    let size = size.and_then(|size| size.parse().ok()).ok_or_else(|| lacks("a file's size"))?;
    let etag = etag.and_then(Etag::from_header).ok_or_else(|| lacks("a file's hash as ETag"))?;
    Ok(Metadata { file: file.to_owned(), size, etag })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn parse_listing(url: &str, json: &Value) -> Result<Listing, Error> {
        super::parse_listing(url, json.to_string().as_bytes())
    }

    const SHA: &str = "0123456789abcdef0123456789abcdef01234567";

    #[test]
    fn a_listing_is_commit_and_paths() {
        let listing = parse_listing("u", &json!({"sha": SHA, "siblings": [{"rfilename": "a/b.json"}]})).unwrap();
        assert_eq!(listing, Listing { commit: SHA.into(), files: vec!["a/b.json".into()] });
    }

    #[test]
    fn paths_and_commits_that_leave_the_cache_are_refused() {
        for path in ["../x", "a/../../x", "/etc/passwd", "a//b", "", "a\\b", "c:x", "./a"] {
            let error = parse_listing("u", &json!({"sha": SHA, "siblings": [{"rfilename": path}]})).unwrap_err();
            assert!(error.to_string().contains("expected the path of a file"), "{path}");
        }
        for sha in [json!("../../../x"), json!(null), json!("abc")] {
            assert!(parse_listing("u", &json!({"sha": sha, "siblings": []})).is_err(), "{sha}");
        }
        assert!(parse_listing("u", &json!({"sha": SHA})).is_err());
    }
}
