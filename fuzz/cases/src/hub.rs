//! What a hub says.

use carat_hub::parse_listing;

/// The description of a repository: no path or commit of it leads out of a directory.
pub fn hub_listing(data: &[u8]) -> bool {
    let Ok(listing) = parse_listing("input", data) else { return false };
    assert!(listing.commit.len() == 40 && listing.commit.chars().all(|c| c.is_ascii_hexdigit()));
    for file in &listing.files {
        assert!(!file.starts_with('/') && !file.contains(['\\', ':', '\0']), "`{file}` is no path below a directory");
        assert!(file.split('/').all(|part| !part.is_empty() && part != "." && part != ".."), "`{file}` leads out");
    }
    true
}
