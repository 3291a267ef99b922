//! Where the encoders of a model in a GGUF file are: in a second file, usually beside the first. Repositories that keep each
//! quantisation in a folder of its own, `BF16/NAME-BF16.gguf`, have it beside the folder.
//!
//! Names in circulation: `mmproj.gguf`, `mmproj-BF16.gguf`, `mmproj-NAME-f16.gguf`, `NAME-mmproj.gguf`,
//! `NAME.mmproj-Q8_0.gguf`.

use std::path::{Path, PathBuf};

use carat_weights::Checkpoint;

use crate::{Error, ModelFiles, ModelSource};

/// What marks such files' names.
const MARK: &str = "mmproj";
/// Types as they are spelt in names, the preferred ones first: the type of published weights, then finer, then coarser ones.
const TYPES: [&str; 4] = ["bf16", "f32", "f16", "q8_0"];
/// The most names that an error lists.
const NAMES_SHOWN: usize = 8;

/// The file of encoders beside the GGUF file of a model, or beside the folder of its quantisation, if there is one. Of several the
/// one whose name starts with more of the model's is taken, then the one of the preferred type.
///
/// # Errors
/// If a directory can't be read, or neither tells several files apart.
pub fn beside(model: &Path) -> Result<Option<PathBuf>, Error> {
    let dir = folder_of(model);
    if let Some(found) = best_in(dir, model)? {
        return Ok(Some(found));
    }
    // `.` and `..` are no names.
    let dir = match dir.file_name() {
        Some(_) => dir.to_owned(),
        None => dir.canonicalize().map_err(unreadable(dir))?,
    };
    if is_of_quantisation(&dir, model) { best_in(folder_of(&dir), model) } else { Ok(None) }
}

/// The folder that `path` lies in.
fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

fn unreadable(dir: &Path) -> impl Fn(std::io::Error) -> Error {
    move |source| Error::Directory { dir: dir.display().to_string(), source }
}

/// Whether a model's folder is named after its quantisation: `BF16`, `UD-Q4_K_XL`. Then the model is, too.
fn is_of_quantisation(dir: &Path, model: &Path) -> bool {
    let dir = name_of(dir);
    dir.chars().any(|c| c.is_ascii_digit()) && name_of(model).contains(&dir)
}

/// The file of encoders in `dir` that goes with the model best.
fn best_in(dir: &Path, model: &Path) -> Result<Option<PathBuf>, Error> {
    let own = name_of(model);
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).map_err(unreadable(dir))? {
        let path = entry.map_err(unreadable(dir))?.path();
        let name = name_of(&path);
        if name.contains(MARK) && name.ends_with(".gguf") && name != own && path.is_file() {
            found.push((rank(&own, &name), path));
        }
    }
    found.sort();
    match found.as_slice() {
        [(first, _), (second, _), ..] if first == second => {
            let mut names: Vec<String> = found.iter().map(|(_, path)| path.display().to_string()).collect();
            names.truncate(NAMES_SHOWN);
            Err(Error::SeveralEncoders { model: model.display().to_string(), found: names.join(", ") })
        }
        all => Ok(all.first().map(|(_, path)| path.clone())),
    }
}

/// The encoders of the model in `files`, where they are in another file: the one that was said to hold them, or one beside a GGUF
/// file.
///
/// # Errors
/// As [`beside`], or if that file can't be read.
pub fn open_apart(files: &ModelFiles) -> Result<Option<ModelFiles>, Error> {
    if let Some(path) = files.encoders() {
        return ModelFiles::open_encoders(&ModelSource::Path(path.into())).map(Some);
    }
    let (Checkpoint::Gguf(_), ModelSource::Path(path)) = (files.checkpoint(), files.source()) else { return Ok(None) };
    beside(path)?.map(|path| ModelFiles::open_encoders(&ModelSource::Path(path))).transpose()
}

/// In lower case.
fn name_of(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().to_lowercase()
}

/// How well a file's name goes with a model's, the best lowest: how many characters of the model's name it lacks, then the
/// place of its type.
fn rank(model: &str, name: &str) -> (usize, usize) {
    // Without what only one of both has, and whatever lies between the words.
    let words = |name: &str| -> Vec<String> {
        let name = name.trim_end_matches(".gguf").replace(MARK, "");
        name.split(['-', '_', '.']).filter(|word| !word.is_empty()).map(str::to_owned).collect()
    };
    let (model, other) = (words(model), words(name));
    let shared = model.iter().zip(&other).take_while(|(a, b)| a == b).map(|(word, _)| word.len()).sum::<usize>();
    let all = model.iter().map(String::len).sum::<usize>();
    let kind = TYPES.iter().position(|kind| name.trim_end_matches(".gguf").ends_with(kind)).unwrap_or(TYPES.len());
    (all - shared, kind)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A directory with these files that is gone after the test.
    struct Dir(PathBuf);

    impl Dir {
        fn new(name: &str, files: &[&str]) -> Self {
            let dir = std::env::temp_dir().join(format!("carat-mmproj-{name}-{}", std::process::id()));
            std::fs::create_dir_all(&dir).unwrap();
            files.iter().for_each(|file| std::fs::write(dir.join(file), b"").unwrap());
            Dir(dir)
        }

        fn beside(&self, model: &str) -> Result<Option<String>, Error> {
            Ok(beside(&self.0.join(model))?.map(|path| path.file_name().unwrap().to_string_lossy().into_owned()))
        }
    }

    impl Drop for Dir {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    #[track_caller]
    fn check(name: &str, files: &[&str], model: &str, expected: Option<&str>) {
        let dir = Dir::new(name, files);
        assert_eq!(dir.beside(model).unwrap().as_deref(), expected);
    }

    #[test]
    fn the_usual_names_are_found() {
        for (i, name) in
            ["mmproj.gguf", "mmproj-F16.gguf", "m-mmproj.gguf", "m.mmproj-Q8_0.gguf"].into_iter().enumerate()
        {
            check(&format!("usual-{i}"), &["m-q4_0.gguf", name, "mmproj.txt", "other.gguf"], "m-q4_0.gguf", Some(name));
        }
    }

    #[test]
    fn a_model_alone_has_none() {
        check("alone", &["m.gguf", "n.gguf"], "m.gguf", None);
        check("itself", &["mmproj-m.gguf"], "mmproj-m.gguf", None);
    }

    #[test]
    fn of_several_the_model_s_own_is_taken_then_the_type() {
        let files = ["gemma-4-e2b-it-q4_0.gguf", "mmproj-gemma-4-e2b-it-q8_0.gguf", "mmproj-gemma-4-e4b-it-bf16.gguf"];
        check("own", &files, files[0], Some(files[1]));
        check("type", &["m.gguf", "mmproj-F16.gguf", "mmproj-BF16.gguf"], "m.gguf", Some("mmproj-BF16.gguf"));
    }

    #[test]
    fn beside_a_quantisation_s_folder_is_looked_too() {
        let dir = Dir::new("folder", &["mmproj-F16.gguf"]);
        for (folder, expected) in [("BF16", Some("mmproj-F16.gguf")), ("other", None), ("Q8_0", None)] {
            std::fs::create_dir(dir.0.join(folder)).unwrap();
            std::fs::write(dir.0.join(folder).join("m-bf16.gguf"), b"").unwrap();
            assert_eq!(dir.beside(&format!("{folder}/m-bf16.gguf")).unwrap().as_deref(), expected, "{folder}");
        }
        // From within the folder, as `.` has no name either.
        std::fs::create_dir(dir.0.join("BF16/sub")).unwrap();
        assert_eq!(dir.beside("BF16/sub/../m-bf16.gguf").unwrap().as_deref(), Some("mmproj-F16.gguf"));
        std::fs::write(dir.0.join("BF16/mmproj-m.gguf"), b"").unwrap();
        assert_eq!(dir.beside("BF16/m-bf16.gguf").unwrap().as_deref(), Some("mmproj-m.gguf"));
    }

    #[test]
    fn every_path_has_a_folder() {
        for (path, folder) in [("BF16/m.gguf", "BF16"), ("BF16", "."), ("m.gguf", "."), ("/m.gguf", "/"), ("/", ".")] {
            assert_eq!(folder_of(Path::new(path)), Path::new(folder), "{path}");
        }
    }

    #[test]
    fn files_that_nothing_tells_apart_are_an_error() {
        let dir = Dir::new("several", &["m.gguf", "mmproj-a.gguf", "mmproj-b.gguf"]);
        let error = dir.beside("m.gguf").unwrap_err().to_string();
        assert!(["mmproj-a.gguf", "mmproj-b.gguf", "--mmproj"].iter().all(|text| error.contains(text)), "{error}");
    }
}
