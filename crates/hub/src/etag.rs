//! A file's identity on the hub, which is the hash of its bytes and names its blob in the cache.
//!
//! Large files: SHA-256. Small ones: the id that git gives a blob, SHA-1 of `blob SIZE\0` and the bytes (Pro Git,
//! chapter 10.2). A mirror may say something else; then only the size can be checked.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use sha1::Sha1;
use sha2::{Digest, Sha256};

/// Bytes hashed at a time.
const BUFFER_BYTES: usize = 1 << 20;
/// The longest that is taken for a file name.
const LONGEST: usize = 128;

/// An ETag that is fit to be a file name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Etag(String);

impl Etag {
    /// From an HTTP header: quotes and the mark of weak tags are not part of it. `None` if it could be a path.
    pub fn from_header(value: &str) -> Option<Self> {
        let value = value.trim();
        let tag = value.strip_prefix("W/").unwrap_or(value).trim_matches('"');
        let plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        let fits = !tag.is_empty() && tag.len() <= LONGEST && !tag.starts_with('.') && tag.chars().all(plain);
        fits.then(|| Etag(tag.to_owned()))
    }

    /// The blob's name.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Hashes the file at `path` of `size` bytes; `Some` is the wrong hash that was found.
    pub fn mismatch(&self, path: &Path, size: u64) -> io::Result<Option<String>> {
        let found = if self.is_hex(64) {
            hash::<Sha256>(Sha256::new(), path)?
        } else if self.is_hex(40) {
            hash::<Sha1>(Sha1::new_with_prefix(format!("blob {size}\0")), path)?
        } else {
            return Ok(None);
        };
        Ok((!found.eq_ignore_ascii_case(&self.0)).then_some(found))
    }

    fn is_hex(&self, len: usize) -> bool {
        self.0.len() == len && self.0.chars().all(|c| c.is_ascii_hexdigit())
    }
}

fn hash<D: Digest>(mut digest: D, path: &Path) -> io::Result<String> {
    let mut file = File::open(path)?;
    let mut buffer = vec![0; BUFFER_BYTES];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(digest.finalize().iter().map(|byte| format!("{byte:02x}")).collect()),
            n => digest.update(&buffer[..n]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_are_unwrapped_and_paths_refused() {
        for header in ["\"abc\"", "W/\"abc\"", " abc "] {
            assert_eq!(Etag::from_header(header).unwrap().as_str(), "abc");
        }
        for header in ["", "\"\"", "\"../x\"", "a/b", "..", "a\\b", &"a".repeat(200)] {
            assert_eq!(Etag::from_header(header), None, "{header}");
        }
    }

    #[test]
    fn hashes_are_those_of_git_and_sha256sum() {
        let path = std::env::temp_dir().join(format!("carat-etag-{}", std::process::id()));
        std::fs::write(&path, "what is up, doc?").unwrap();
        // Pro Git, chapter 10.2: the blob id of this text. The other is what `sha256sum` says.
        let git = Etag::from_header("bd9dbf5aae1a3862dd1526723246b20206e5fc37").unwrap();
        let sha = Etag::from_header("0000000000000000000000000000000000000000000000000000000000000000").unwrap();
        let found = sha.mismatch(&path, 16).unwrap();
        assert_eq!(git.mismatch(&path, 16).unwrap(), None);
        assert_eq!(git.mismatch(&path, 17).unwrap().map(|hash| hash.len()), Some(40));
        assert_eq!(Etag::from_header("opaque").unwrap().mismatch(&path, 16).unwrap(), None);
        std::fs::remove_file(&path).unwrap();
        assert_eq!(found.unwrap(), "af4e812d13b4eae6da91024f15f7679dae49d40aee3fb4c7216b56d04193f46c");
    }
}
