//! Who may import whom. Imports point down; what only tests need is listed apart.

use std::path::Path;

use super::{crates, read};

/// A crate's place in the house.
struct Layer {
    name: &'static str,
    /// What it may be built on.
    imports: &'static [&'static str],
    /// What its tests may use besides.
    tests: &'static [&'static str],
}

/// Lowest first. `conformance`, `cases` and `xtask` are for development: nothing is built on them.
const LAYERS: &[Layer] = &[
    Layer { name: "tensor", imports: &[], tests: &[] },
    Layer { name: "weights", imports: &["tensor"], tests: &[] },
    Layer { name: "cpu", imports: &["tensor"], tests: &["conformance"] },
    // Files to plain arrays; knows no backend.
    Layer { name: "media", imports: &["tensor"], tests: &[] },
    // Its tests read a vocabulary from a GGUF file.
    Layer { name: "chat", imports: &["tensor"], tests: &["weights"] },
    // Generic over the backend; its tests need one, and pictures.
    Layer { name: "model", imports: &["tensor", "weights"], tests: &["cpu", "media", "conformance"] },
    Layer {
        name: "runtime",
        imports: &["tensor", "weights", "cpu", "chat", "media", "model"],
        tests: &["conformance"],
    },
    // Speaks HTTP and knows files only; the library stays without a network.
    Layer { name: "hub", imports: &[], tests: &[] },
    Layer {
        name: "cli",
        imports: &["tensor", "weights", "cpu", "chat", "media", "model", "runtime", "hub"],
        tests: &["conformance"],
    },
    Layer { name: "conformance", imports: &["tensor"], tests: &[] },
    // `fuzz/cases`: the laws of every parser.
    Layer { name: "cases", imports: &["tensor", "weights", "hub", "chat", "media", "model"], tests: &[] },
    Layer { name: "xtask", imports: &[], tests: &[] },
];

/// Every import is in the table, and every crate too.
pub fn check(root: &Path) -> Vec<String> {
    let mut problems = Vec::new();
    for dir in crates(root) {
        let name = dir.file_name().unwrap_or_default().to_string_lossy().into_owned();
        match LAYERS.iter().find(|layer| layer.name == name) {
            Some(layer) => problems.extend(check_manifest(layer, &read(&dir.join("Cargo.toml")))),
            None => problems.push(format!("`{name}` has no layer; add it to the table in xtask/src/tidy/layers.rs")),
        }
    }
    problems
}

fn check_manifest(layer: &Layer, manifest: &str) -> Vec<String> {
    let mut problems = Vec::new();
    for (import, for_tests) in imports(manifest) {
        let allowed = layer.imports.contains(&import) || for_tests && layer.tests.contains(&import);
        if !allowed {
            let where_ = if for_tests { " in tests" } else { "" };
            problems.push(format!("`{}` may not import `{import}`{where_}; see ARCHITECTURE.md", layer.name));
        }
    }
    problems
}

/// Workspace crates a manifest names, and whether for tests only.
fn imports(manifest: &str) -> Vec<(&str, bool)> {
    let mut found = Vec::new();
    let mut section = "";
    for line in manifest.lines().map(str::trim) {
        if let Some(header) = line.strip_prefix('[') {
            section = header.trim_end_matches(']');
            // `[dependencies.carat-tensor]`
            if let Some((table, name)) = section.rsplit_once('.')
                && table.ends_with("dependencies")
            {
                found.extend(workspace_crate(name).map(|name| (name, table.ends_with("dev-dependencies"))));
            }
        } else if section.ends_with("dependencies") {
            let name = line.split(['.', '=', ' ']).next().unwrap_or_default();
            found.extend(workspace_crate(name).map(|name| (name, section.ends_with("dev-dependencies"))));
        }
    }
    found
}

fn workspace_crate(name: &str) -> Option<&str> {
    match name.trim_matches('"') {
        "carat" => Some("runtime"),
        "xtask" => Some("xtask"),
        name => name.strip_prefix("carat-"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(manifest: &str, expected: &[&str]) {
        let model = LAYERS.iter().find(|layer| layer.name == "model").unwrap();
        assert_eq!(check_manifest(model, manifest), expected);
    }

    #[test]
    fn lower_layers_and_other_crates_pass() {
        check("[dependencies]\ncarat-tensor.workspace = true\nserde = \"1\"\n", &[]);
    }

    #[test]
    fn a_sibling_is_allowed_in_tests_only() {
        check("[dev-dependencies]\ncarat-cpu.workspace = true\n", &[]);
        let breach = "`model` may not import `cpu`; see ARCHITECTURE.md";
        check("[dependencies]\ncarat-cpu = { path = \"../cpu\" }\n", &[breach]);
        check("[target.'cfg(unix)'.dependencies]\ncarat-cpu.workspace = true\n", &[breach]);
        check("[dependencies.carat-cpu]\nworkspace = true\n", &[breach]);
        check("[build-dependencies]\ncarat-cpu.workspace = true\n", &[breach]);
    }

    #[test]
    fn higher_layers_are_refused_in_tests_as_well() {
        check(
            "[dev-dependencies]\ncarat-runtime.workspace = true\n",
            &["`model` may not import `runtime` in tests; see ARCHITECTURE.md"],
        );
    }
}
