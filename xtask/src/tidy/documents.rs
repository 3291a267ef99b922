//! Documents agree with the tree: the code map names every crate, paths and links exist.

use std::path::Path;

use super::{crates, files, read, relative};

/// Top-level places that paths in ARCHITECTURE.md may start with.
const PLACES: &[&str] = &["crates/", "fixtures/", "nano/", "scripts/"];

/// ARCHITECTURE.md names every crate, and no path that isn't there.
pub fn check_code_map(root: &Path) -> Vec<String> {
    let names: Vec<String> = crates(root).iter().map(|dir| relative(root, dir)).collect();
    check_map(&read(&root.join("ARCHITECTURE.md")), &names, |path| root.join(path).exists())
}

fn check_map(map: &str, crates: &[String], exists: impl Fn(&str) -> bool) -> Vec<String> {
    let named: Vec<&str> = map.split('`').skip(1).step_by(2).collect();
    let missing = crates.iter().filter(|dir| !named.contains(&dir.as_str()));
    let missing = missing.map(|dir| format!("ARCHITECTURE.md: the code map lacks `{dir}`"));
    let paths = named.iter().filter(|name| PLACES.iter().any(|place| name.starts_with(place)));
    let dead = paths.filter(|path| !exists(path)).map(|path| format!("ARCHITECTURE.md: `{path}` is not in the tree"));
    missing.chain(dead).collect()
}

/// Relative links of every Markdown file lead to a file.
pub fn check_links(root: &Path) -> Vec<String> {
    let mut problems = Vec::new();
    for path in files(root, ".md") {
        let dir = path.parent().unwrap_or(root);
        for link in relative_links(&read(&path)) {
            if !dir.join(&link).exists() {
                problems.push(format!("{}: the link `{link}` leads nowhere", relative(root, &path)));
            }
        }
    }
    problems
}

/// Targets of `[…](target)` outside code, without anchors.
fn relative_links(text: &str) -> Vec<String> {
    let mut links = Vec::new();
    let mut fenced = false;
    for line in text.lines() {
        if line.trim_start().starts_with("```") {
            fenced = !fenced;
        }
        if fenced {
            continue;
        }
        let prose: String = line.split('`').step_by(2).collect::<Vec<_>>().join("code");
        for part in prose.split("](").skip(1) {
            let target = part.split([')', '#', ' ']).next().unwrap_or_default();
            if !target.is_empty() && !target.contains(':') {
                links.push(target.to_owned());
            }
        }
    }
    links
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_map_must_name_each_crate_and_only_what_exists() {
        let crates = ["crates/a".to_owned(), "crates/b".to_owned()];
        let problems = check_map("| `crates/a` | `crates/a/gone.rs` |", &crates, |path| path == "crates/a");
        assert_eq!(
            problems,
            [
                "ARCHITECTURE.md: the code map lacks `crates/b`",
                "ARCHITECTURE.md: `crates/a/gone.rs` is not in the tree"
            ]
        );
    }

    #[test]
    fn links_are_found_outside_code() {
        let text = "[a](A.md#x) and [`b`](b/c.rs), [web](https://x.org), [here](#y)\n```\n[d](d)\n```\n`[e](e)`";
        assert_eq!(relative_links(text), ["A.md", "b/c.rs"]);
    }
}
