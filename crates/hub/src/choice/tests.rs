//! File lists as they are published, and what is taken from them.

use super::*;

fn files(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

fn chosen(name: &str, names: &[&str]) -> Result<Choice, Error> {
    choose(&name.parse().unwrap(), &files(names))
}

/// The GGUF files chosen: weights, then encoder, then drafter.
#[track_caller]
fn check(name: &str, names: &[&str], expected: &[&str]) {
    let choice = chosen(name, names).unwrap();
    let Weights::Gguf(gguf) = choice.weights else { panic!("expected GGUF") };
    let drafter = choice.drafter.map(|g| g.parts).unwrap_or_default();
    let found: Vec<String> = gguf.parts.into_iter().chain(choice.encoder).chain(drafter).collect();
    assert_eq!(found, expected);
}

#[track_caller]
fn refused(name: &str, names: &[&str], says: &str) {
    let error = chosen(name, names).unwrap_err().to_string();
    assert!(error.contains(says), "{error}");
}

#[test]
fn quantisations_are_read_from_file_names() {
    for (file, expected) in [
        ("gemma-4-E2B_q4_0-it.gguf", "Q4_0"),
        ("gemma-4-12b-it-qat-q4_0.gguf", "Q4_0"),
        ("gemma-4-E2B-it-Q4_K_M.gguf", "Q4_K_M"),
        ("gemma-4-26B-A4B-it-UD-Q4_K_XL.gguf", "UD-Q4_K_XL"),
        ("gemma-4-E2B-it-IQ4_XS.gguf", "IQ4_XS"),
        ("BF16/gemma-4-31B-it-BF16-00001-of-00002.gguf", "BF16"),
        ("google_gemma-4-E2B-it-bf16.gguf", "BF16"),
        ("model.Q8_0.gguf", "Q8_0"),
        ("gemma-4-26B-A4B-it-MXFP4_MOE.gguf", "MXFP4_MOE"),
        ("gemma4-e2b-it.gguf", "GEMMA4-E2B-IT"),
    ] {
        assert_eq!(quant_of(file), expected, "{file}");
    }
}

#[test]
fn safetensors_come_with_what_is_needed_to_use_them() {
    let names = [
        ".gitattributes",
        "README.md",
        "chat_template.jinja",
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "processor_config.json",
        "tokenizer.json",
        "tokenizer_config.json",
    ];
    let choice = chosen("e2b", &names).unwrap();
    assert_eq!(choice.weights, Weights::Single);
    let expected = [
        "config.json",
        "generation_config.json",
        "tokenizer.json",
        "tokenizer_config.json",
        "chat_template.jinja",
        "processor_config.json",
    ];
    assert_eq!(choice.beside, expected);
    let names = ["config.json", INDEX, "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"];
    assert_eq!(chosen("31b", &names).unwrap().weights, Weights::Indexed);
}

#[test]
fn an_index_names_its_files_once() {
    let index = serde_json::json!({"weight_map": {"a": "2.safetensors", "b": "1.safetensors", "c": "2.safetensors"}});
    assert_eq!(shards(&index), Some(files(&["1.safetensors", "2.safetensors"])));
    for broken in ["{}", r#"{"weight_map":{}}"#, r#"{"weight_map":{"a":1}}"#] {
        assert_eq!(shards(&serde_json::from_str(broken).unwrap()), None, "{broken}");
    }
}

#[test]
fn the_published_q4_0_brings_its_encoder() {
    let names = ["README.md", "gemma-4-E2B-it-mmproj.gguf", "gemma-4-E2B_q4_0-it.gguf"];
    check("e2b:q4_0", &names, &["gemma-4-E2B_q4_0-it.gguf", "gemma-4-E2B-it-mmproj.gguf"]);
    let names = ["gemma-4-12b-it-qat-q4_0.gguf", "mmproj-gemma-4-12b-it-qat-q4_0.gguf"];
    check("12b:q4_0", &names, &names);
}

/// As large repositories of quantisations look.
const MANY: [&str; 9] = [
    "gemma-4-E4B-it-Q4_0.gguf",
    "gemma-4-E4B-it-Q4_K_M.gguf",
    "gemma-4-E4B-it-Q8_0.gguf",
    "gemma-4-E4B-it-UD-Q4_K_XL.gguf",
    "MTP/mtp-gemma-4-E4B-it-Q8_0.gguf",
    "mmproj-F32.gguf",
    "mmproj-F16.gguf",
    "mmproj-BF16.gguf",
    "mtp-gemma-4-E4B-it.gguf",
];

#[test]
fn of_many_the_named_or_the_usual_one_is_taken() {
    let with = |model| [model, "mmproj-BF16.gguf", "MTP/mtp-gemma-4-E4B-it-Q8_0.gguf"];
    check("a/b:q8_0", &MANY, &with("gemma-4-E4B-it-Q8_0.gguf"));
    check("a/b:ud-q4_k_xl", &MANY, &with("gemma-4-E4B-it-UD-Q4_K_XL.gguf"));
    check("a/b", &MANY, &with("gemma-4-E4B-it-Q4_K_M.gguf"));
    check("a/b:gemma-4-E4B-it-Q4_0.gguf", &MANY, &with("gemma-4-E4B-it-Q4_0.gguf"));
}

#[test]
fn a_quantisation_that_is_not_there_is_refused_with_those_that_are() {
    refused("a/b:q5_1", &MANY, "a/b has no `q5_1`; it has: Q4_0, Q4_K_M, Q8_0, UD-Q4_K_XL");
    refused("a/b", &["x-Q5_1.gguf", "x-Q6_K.gguf"], "name one of Q5_1, Q6_K as a/b:QUANT");
    refused("a/b", &["README.md", "pytorch_model.bin"], "no model that carat reads");
    refused("a/b:q4_0", &["model.safetensors"], "no model that carat reads");
}

#[test]
fn parts_are_one_model() {
    let parts =
        ["Q8_0/m-Q8_0-00001-of-00003.gguf", "Q8_0/m-Q8_0-00002-of-00003.gguf", "Q8_0/m-Q8_0-00003-of-00003.gguf"];
    check("a/b", &parts, &parts);
    refused("a/b:q8_0", &[parts[0], parts[2]], "a/b lacks `Q8_0/m-Q8_0-00002-of-00003.gguf`");
}

#[test]
fn drafters_alone_are_models() {
    check("a/b", &["gemma-4-E2B-it-assistant-Q8_0.gguf"], &["gemma-4-E2B-it-assistant-Q8_0.gguf"]);
}
