//! What people have in place of a model's file: half of a download, or a page about it.

/// Bytes that are enough to tell.
pub(crate) const START: usize = 64;

/// What a file is that begins like this, where that is known, and what to do.
pub(crate) fn known(start: &[u8]) -> Option<&'static str> {
    let text = start.trim_ascii_start().to_ascii_lowercase();
    let begins = |with: &str| text.starts_with(with.as_bytes());
    match () {
        () if start.is_empty() => Some("an empty file"),
        () if begins("version https://git-lfs") => {
            Some("a Git LFS pointer in place of the file, which `git lfs pull` or `carat pull` brings")
        }
        () if begins("<!doctype html") || begins("<html") => {
            Some("a web page in place of the file: download the file itself")
        }
        () if start.starts_with(b"PK\x03\x04") => Some("a zip archive, as PyTorch's weights are"),
        () => None,
    }
}

/// What a file is that begins like this.
pub(crate) fn describe(start: &[u8]) -> String {
    let first = &start[..start.len().min(4)];
    known(start).map_or_else(|| format!("a file that starts with `{}`", first.escape_ascii()), str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_stands_for_a_file_is_named() {
        for (start, says) in [
            (&b""[..], "empty"),
            (b"version https://git-lfs.github.com/spec/v1\noid", "git lfs pull"),
            (b"\n<!DOCTYPE html><html>", "web page"),
            (b"PK\x03\x04...", "PyTorch"),
            (b"impo", "starts with `impo`"),
        ] {
            assert!(describe(start).contains(says), "{}", describe(start));
        }
    }
}
