//! The pictures in a folder.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{bail, ensure};

use crate::shown::Kind;

/// Folders in folders that are looked into.
const MAX_DEPTH: usize = 64;

/// The pictures that `path` stands for: itself, or those in a folder by their names, in order, and the folders that can't be
/// looked into. Hidden ones and linked folders are left out.
///
/// # Errors
/// If a folder has no pictures, and all of it could be read.
pub fn pictures(path: &Path) -> anyhow::Result<(Vec<PathBuf>, Vec<anyhow::Error>)> {
    let (mut found, mut failed) = (Vec::new(), Vec::new());
    if !path.is_dir() {
        return Ok((vec![path.to_owned()], failed));
    }
    walk(path, 0, &mut found, &mut failed);
    if found.is_empty() && failed.is_empty() {
        bail!(
            "{}: no pictures in it; expected files that end in .{}",
            path.display(),
            Kind::Image.extensions().join(", .")
        );
    }
    Ok((found, failed))
}

fn walk(dir: &Path, depth: usize, found: &mut Vec<PathBuf>, failed: &mut Vec<anyhow::Error>) {
    let entries = match entries(dir, depth) {
        Ok(entries) => entries,
        Err(error) => return failed.push(error.context(dir.display().to_string())),
    };
    for (path, is_dir) in entries {
        if is_dir {
            walk(&path, depth + 1, found, failed);
        } else if Kind::of(&path) == Some(Kind::Image) && path.is_file() {
            found.push(path);
        }
    }
}

/// What is in a folder and isn't hidden, in order, and whether each is a folder.
fn entries(dir: &Path, depth: usize) -> anyhow::Result<Vec<(PathBuf, bool)>> {
    ensure!(depth <= MAX_DEPTH, "more than {MAX_DEPTH} folders in each other");
    let mut entries = Vec::new();
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        if !entry.file_name().as_encoded_bytes().starts_with(b".") {
            entries.push((entry.path(), entry.file_type()?.is_dir()));
        }
    }
    entries.sort();
    Ok(entries)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_are_walked_in_order_and_other_files_are_left_out() {
        let dir = std::env::temp_dir().join(format!("carat-walk-{}", std::process::id()));
        fs::create_dir_all(dir.join("b/c")).unwrap();
        fs::create_dir_all(dir.join(".hidden")).unwrap();
        for file in ["z.png", "a.JPG", "b/c/x.tiff", "b/notes.txt", ".hidden/x.png", "b/.x.png", "png"] {
            fs::write(dir.join(file), "").unwrap();
        }
        let (found, failed) = pictures(&dir).unwrap();
        assert!(failed.is_empty());
        let names: Vec<_> = found.iter().map(|path| path.strip_prefix(&dir).unwrap().to_str().unwrap()).collect();
        assert_eq!(names, ["a.JPG", "b/c/x.tiff", "z.png"]);
        let error = pictures(&dir.join(".hidden/../b/c/../../b/c")).map(|(found, _)| found.len());
        assert_eq!(error.unwrap(), 1);
        fs::remove_file(dir.join("b/c/x.tiff")).unwrap();
        let error = pictures(&dir.join("b")).unwrap_err().to_string();
        assert!(error.contains("no pictures in it") && error.contains(".tiff"), "{error}");
        assert_eq!(
            pictures(Path::new("no/such.xyz")).unwrap().0,
            [PathBuf::from("no/such.xyz")],
            "reading it will tell"
        );
        fs::remove_dir_all(&dir).unwrap();
    }
}
