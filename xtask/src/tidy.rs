//! Rules that a test can hold: layers, what source files may say, documents that agree with the tree.
//!
//! Only what is never right is here; taste is for reviewers. Each rule returns problems that name the file and
//! what to do. No dependencies, so that the rules are built in a second.

mod documents;
mod layers;
mod sources;

use std::fs;
use std::path::{Path, PathBuf};

/// The repository's root.
pub fn root() -> PathBuf {
    let xtask = Path::new(env!("CARGO_MANIFEST_DIR"));
    xtask.parent().expect("xtask is a directory of the repository").to_path_buf()
}

/// Every rule.
pub fn check_all(root: &Path) -> Vec<String> {
    let rules = [layers::check, sources::check, documents::check_code_map, documents::check_links];
    rules.into_iter().flat_map(|rule| rule(root)).collect()
}

/// Directories of the workspace's crates.
fn crates(root: &Path) -> Vec<PathBuf> {
    let mut dirs: Vec<PathBuf> = fs::read_dir(root.join("crates"))
        .expect("the repository has crates")
        .map(|entry| entry.expect("a readable directory").path())
        .filter(|dir| dir.join("Cargo.toml").is_file())
        .collect();
    dirs.extend([root.join("xtask"), root.join("fuzz/cases")]);
    dirs.sort();
    dirs
}

/// Files below `dir` whose names end in `suffix`, build outputs and hidden directories left out.
fn files(dir: &Path, suffix: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).expect("a readable directory") {
        let path = entry.expect("a readable directory").path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if path.is_dir() {
            if !name.starts_with('.') && name != "target" {
                found.extend(files(&path, suffix));
            }
        } else if name.ends_with(suffix) {
            found.push(path);
        }
    }
    found.sort();
    found
}

/// A file's text.
fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// A path as it is written in rules and messages.
fn relative(root: &Path, path: &Path) -> String {
    path.strip_prefix(root).unwrap_or(path).to_string_lossy().replace('\\', "/")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(rule: fn(&Path) -> Vec<String>) {
        let problems = rule(&root());
        assert!(problems.is_empty(), "\n{}", problems.join("\n"));
    }

    #[test]
    fn crates_import_only_lower_layers() {
        check(layers::check);
    }

    #[test]
    fn source_files_keep_the_rules() {
        check(sources::check);
    }

    #[test]
    fn the_code_map_agrees_with_the_tree() {
        check(documents::check_code_map);
    }

    #[test]
    fn relative_links_lead_somewhere() {
        check(documents::check_links);
    }
}
