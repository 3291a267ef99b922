//! The pictures in a folder.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};

use crate::shown::Kind;

/// Folders in folders that are looked into.
const MAX_DEPTH: usize = 64;

/// The pictures that `path` stands for: itself, or those in a folder by their names, in order. Hidden ones and linked folders
/// are left out.
pub fn pictures(path: &Path) -> anyhow::Result<Vec<PathBuf>> {
    if !path.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let mut found = Vec::new();
    walk(path, 0, &mut found)?;
    if found.is_empty() {
        bail!(
            "{}: no pictures in it; expected files that end in .{}",
            path.display(),
            Kind::Image.extensions().join(", .")
        );
    }
    Ok(found)
}

fn walk(dir: &Path, depth: usize, found: &mut Vec<PathBuf>) -> anyhow::Result<()> {
    let name = || dir.display().to_string();
    if depth > MAX_DEPTH {
        bail!("{}: more than {MAX_DEPTH} folders in each other", dir.display());
    }
    let mut entries = fs::read_dir(dir).with_context(name)?.collect::<Result<Vec<_>, _>>().with_context(name)?;
    entries.sort_by_key(fs::DirEntry::file_name);
    for entry in entries {
        let path = entry.path();
        if entry.file_name().as_encoded_bytes().starts_with(b".") {
            continue;
        }
        if entry.file_type().with_context(name)?.is_dir() {
            walk(&path, depth + 1, found)?;
        } else if Kind::of(&path) == Some(Kind::Image) && path.is_file() {
            found.push(path);
        }
    }
    Ok(())
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
        let found = pictures(&dir).unwrap();
        let names: Vec<_> = found.iter().map(|path| path.strip_prefix(&dir).unwrap().to_str().unwrap()).collect();
        assert_eq!(names, ["a.JPG", "b/c/x.tiff", "z.png"]);
        let error = pictures(&dir.join(".hidden/../b/c/../../b/c")).map(|found| found.len());
        assert_eq!(error.unwrap(), 1);
        fs::remove_file(dir.join("b/c/x.tiff")).unwrap();
        let error = pictures(&dir.join("b")).unwrap_err().to_string();
        assert!(error.contains("no pictures in it") && error.contains(".tiff"), "{error}");
        assert_eq!(pictures(Path::new("no/such.xyz")).unwrap(), [PathBuf::from("no/such.xyz")], "reading it will tell");
        fs::remove_dir_all(&dir).unwrap();
    }
}
