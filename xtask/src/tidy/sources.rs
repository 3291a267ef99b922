//! What Rust files may say: a module doc first, `unsafe` where it lives, `unwrap` in tests.

use std::path::Path;

use super::{crates, files, read, relative};
use crate::source::{before_tests, code_of, has_word};

/// Where `unsafe` may be: files, or directories with a slash at the end.
const UNSAFE: &[&str] = &[
    "crates/weights/src/mmap.rs",
    "crates/weights/src/mmap/",
    "crates/cpu/src/kernels.rs",
    "crates/cpu/src/pages.rs",
    "crates/cpu/src/pool.rs",
    "crates/cpu/src/avx2.rs",
    "crates/cpu/src/avx2/",
    "crates/cpu/src/avx512.rs",
    "crates/cpu/src/avx512/",
    "crates/cpu/src/planes.rs",
    "crates/cpu/src/vnni/",
    "crates/cpu/src/x86.rs",
    "crates/cpu/src/neon.rs",
    "crates/cpu/src/neon/",
];

/// Crates that deny `unsafe` and allow it by module; all others forbid it.
const DENYING: &[&str] = &["crates/weights", "crates/cpu"];

/// All rules on all files.
pub fn check(root: &Path) -> Vec<String> {
    let mut problems = Vec::new();
    for dir in crates(root) {
        problems.extend(check_root(root, &dir));
        let sources: Vec<_> = files(&dir, ".rs").into_iter().map(|path| (read(&path), path)).collect();
        for (text, path) in &sources {
            // `#[cfg(test)] mod name;`: the whole file is tests.
            let name = path.file_stem().unwrap_or_default().to_string_lossy();
            let declaration = format!("#[cfg(test)]\nmod {name};");
            if !sources.iter().any(|(text, _)| text.contains(&declaration)) {
                problems.extend(check_file(&relative(root, path), text));
            }
        }
    }
    problems
}

/// A crate's root says that `unsafe` is forbidden, or denied where modules may allow it.
fn check_root(root: &Path, dir: &Path) -> Option<String> {
    let files = ["src/lib.rs", "src/main.rs"].map(|file| dir.join(file));
    let file = files.into_iter().find(|file| file.is_file())?;
    let level = if DENYING.contains(&relative(root, dir).as_str()) { "deny" } else { "forbid" };
    let attribute = format!("#![{level}(unsafe_code)]");
    let missing = !code_of(&read(&file)).contains(&attribute);
    missing.then(|| format!("{}: a crate root says `{attribute}`", relative(root, &file)))
}

fn check_file(path: &str, text: &str) -> Vec<String> {
    let mut problems = Vec::new();
    let code = code_of(text);
    if !text.trim_start().starts_with("//!") {
        problems.push(format!("{path}: a file opens with `//!`: what it is for, and the one idea needed to read it"));
    }
    // Integration tests may count allocations, which takes an unsafe trait.
    let in_tests = path.contains("/tests/") || path.ends_with("/tests.rs") || path.contains("/benches/");
    let allowed = UNSAFE.iter().any(|place| path == *place || place.ends_with('/') && path.starts_with(place));
    if !in_tests && !allowed && has_word(&code, "unsafe") {
        problems.push(format!("{path}: `unsafe` lives in the file mapping and the CPU kernels only"));
    }
    if !in_tests {
        for (number, line) in before_tests(&code).lines().enumerate() {
            if line.contains(".unwrap()") {
                let line = number + 1;
                problems.push(format!("{path}:{line}: return the error, or `expect(\"why this cannot fail\")`"));
            }
        }
    }
    problems
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(path: &str, text: &str, expected: &str) {
        let problems = check_file(path, text).join("\n");
        assert!(problems.contains(expected) && problems.is_empty() == expected.is_empty(), "{problems}");
    }

    #[test]
    fn a_documented_safe_file_passes() {
        check("crates/chat/src/a.rs", "//! Doc.\nfn f() {} // .unwrap() is not unsafe\n", "");
    }

    #[test]
    fn unsafe_has_its_places() {
        let code = "//! Doc.\nfn f() { unsafe { g() } }\n";
        check("crates/cpu/src/avx2/dot.rs", code, "");
        check("crates/cpu/src/pool.rs", code, "");
        check("crates/cpu/src/matmul.rs", code, "lives in the file mapping");
    }

    #[test]
    fn unwrap_is_for_tests() {
        check("crates/chat/src/a.rs", "//! Doc.\nlet a = b.unwrap();\n", "a.rs:2:");
        check("crates/chat/src/a.rs", "//! Doc.\n#[cfg(test)]\nmod tests { b.unwrap(); }\n", "");
        check("crates/chat/tests/a.rs", "//! Doc.\nlet a = b.unwrap();\n", "");
    }

    #[test]
    fn a_file_opens_with_its_doc() {
        check("crates/chat/src/a.rs", "use std::fs;\n", "opens with `//!`");
    }
}
