//! Loading is strict: every tensor is used, knowingly ignored, or an error that names it.
//!
//! Each test changes the tensors or the config of a golden fixture's checkpoint and says what must come of it.
#![allow(clippy::unwrap_used, reason = "a panic is a failed test")]

mod fixture;

use carat_cpu::{CpuBackend, CpuOptions, Precision};
use carat_model::config::LayerType;
use carat_model::load::{FileBytes, IgnoredTensor, ModelTensors};
use carat_model::{Decoder, DecoderOptions, LoadReport, LogitRows, ModelConfig, ModelError, Piece, Step};
use carat_tensor::backend::KvType;
use carat_tensor::{Bytes, DType, TokenId};
use carat_weights::{Checkpoint, GgufFile, GgufWriter, HfDir, StoredType, TensorInfo, Weights};
use fixture::{Fixture, fixtures};
use serde_json::{Value, json};

const PREFIX: &str = "model.language_model.";

/// A checkpoint to change.
struct Parts {
    config: Value,
    tensors: Vec<TensorInfo>,
}

impl Parts {
    fn of(fixture: &Fixture) -> Self {
        let dir = HfDir::open(&fixture.dir).unwrap();
        Parts { config: dir.config, tensors: dir.tensors.iter().cloned().collect() }
    }

    fn tensor(&mut self, name: &str) -> &mut TensorInfo {
        self.tensors.iter_mut().find(|t| t.name == format!("{PREFIX}{name}")).unwrap()
    }

    fn add(&mut self, name: &str, shape: &[usize]) {
        let data = Bytes::from_vec(vec![0; 2 * shape.iter().product::<usize>()]);
        let dtype = StoredType::Known(DType::BF16);
        self.tensors.push(TensorInfo { name: name.into(), dtype, shape: shape.to_vec(), data });
    }

    fn checkpoint(self) -> Checkpoint {
        Checkpoint::HfDir(HfDir {
            config: self.config,
            generation_config: None,
            tokenizer_json: None,
            tokenizer_config: None,
            chat_template: None,
            tensors: Weights::new("changed".into(), self.tensors).unwrap(),
        })
    }

    fn load(self) -> Result<(Decoder<CpuBackend>, LoadReport), ModelError> {
        load(self.checkpoint())
    }
}

fn load(mut checkpoint: Checkpoint) -> Result<(Decoder<CpuBackend>, LoadReport), ModelError> {
    let options = CpuOptions { threads: Some(1), precision: Precision::Reference, isa: None };
    let options_of_decoder = DecoderOptions { ctx: 64, kv: KvType::F32, chunk: 32, ..DecoderOptions::default() };
    Decoder::load(CpuBackend::new(options).unwrap(), &mut checkpoint, options_of_decoder)
}

fn logits(decoder: &mut Decoder<CpuBackend>) -> Vec<f32> {
    let tokens: Vec<_> = (100..120).map(TokenId).collect();
    decoder.forward(Step { pieces: &[Piece::Tokens(&tokens)], logits: LogitRows::Last }).unwrap().to_vec()
}

fn named(name: &str) -> Fixture {
    let dir = concat!(env!("CARGO_MANIFEST_DIR"), "/../../fixtures/");
    Fixture::open(std::path::Path::new(&format!("{dir}{name}")))
}

/// Loads the changed e2b checkpoint; the error must contain every text.
#[track_caller]
fn refuses(change: impl FnOnce(&mut Parts), texts: &[&str]) {
    let mut parts = Parts::of(&named("e2b"));
    change(&mut parts);
    let error = parts.load().err().expect("an error").to_string();
    for text in texts {
        assert!(error.contains(text), "`{text}` is not in: {error}");
    }
}

/// Loads the changed checkpoint, which must compute what the unchanged one does.
#[track_caller]
fn changes_nothing(name: &str, change: impl FnOnce(&mut Parts)) -> LoadReport {
    let (mut plain, _) = Parts::of(&named(name)).load().unwrap();
    let mut parts = Parts::of(&named(name));
    change(&mut parts);
    let (mut changed, report) = parts.load().unwrap();
    assert_eq!(logits(&mut changed), logits(&mut plain));
    report
}

#[test]
fn a_missing_tensor_is_named_with_its_shape() {
    for fixture in fixtures() {
        let names: Vec<_> = Parts::of(&fixture).tensors.into_iter().map(|t| t.name).collect();
        for name in names {
            let mut parts = Parts::of(&fixture);
            parts.tensors.retain(|t| t.name != name);
            let error = parts.load().err().unwrap_or_else(|| panic!("{name} is not needed")).to_string();
            let own = name.trim_start_matches(PREFIX).trim_start_matches("model.");
            assert!(error.contains("missing") && error.contains(own), "{name}: {error}");
        }
    }
}

#[test]
fn a_wrong_shape_is_named_with_both_shapes() {
    let shape = |parts: &mut Parts| parts.tensor("layers.3.mlp.up_proj.weight").shape = vec![32, 128];
    refuses(shape, &["model.language_model.layers.3.mlp.up_proj.weight", "[32, 128]", "[64, 64]"]);
    let turned = |parts: &mut Parts| parts.tensor("per_layer_model_projection.weight").shape.reverse();
    refuses(turned, &["per_layer_model_projection", "[64, 160]", "[160, 64]"]);
}

#[test]
fn a_tensor_without_a_place_is_an_error() {
    let name = "model.language_model.layers.0.self_attn.q_proj.bias";
    refuses(|parts| parts.add(name, &[64]), &["1 tensors", name]);
    refuses(|parts| parts.add("model.language_model.layers.10.layer_scalar", &[1]), &["layers.10.layer_scalar"]);
}

#[test]
fn a_norm_in_blocks_is_refused() {
    let change = |parts: &mut Parts| {
        let norm = parts.tensor("norm.weight");
        norm.dtype = StoredType::Known(DType::Q8_0);
        norm.data = Bytes::from_vec(vec![0; 68]);
    };
    refuses(change, &["norm.weight", "Q8_0", "F32, F16 or BF16"]);
}

#[test]
fn a_parameter_that_is_no_number_is_named() {
    for (bits, says) in [(0x7fc0_u16, "value 3 is NaN"), (0xff80, "value 3 is -inf")] {
        let change = |parts: &mut Parts| {
            let scale = parts.tensor("layers.2.post_feedforward_layernorm.weight");
            let mut data = scale.data.to_vec();
            data[6..8].copy_from_slice(&bits.to_le_bytes());
            scale.data = Bytes::from_vec(data);
        };
        refuses(change, &["layers.2.post_feedforward_layernorm.weight", says, "finite"]);
    }
}

/// What is computed from the first broken weight on says so, whatever the rows that are asked for.
#[test]
fn a_matrix_that_holds_no_numbers_gives_no_logits() {
    let mut parts = Parts::of(&named("e2b"));
    let matrix = parts.tensor("layers.0.self_attn.v_proj.weight");
    let mut data = matrix.data.to_vec();
    data[..2].copy_from_slice(&0x7fc0_u16.to_le_bytes());
    matrix.data = Bytes::from_vec(data);
    let (mut decoder, _) = parts.load().unwrap();
    let tokens: Vec<_> = (100..120).map(TokenId).collect();
    for logits in [LogitRows::Last, LogitRows::All] {
        decoder.reset();
        let error = decoder.forward(Step { pieces: &[Piece::Tokens(&tokens)], logits }).unwrap_err().to_string();
        assert!(error.contains("(NaN, in the tokens up to 19 of the context)"), "{error}");
        assert!(error.contains("carat inspect MODEL --check"), "{error}");
    }
    decoder.reset();
    assert!(
        decoder.forward(Step { pieces: &[Piece::Tokens(&tokens)], logits: LogitRows::None }).is_ok(),
        "nothing is read"
    );
}

#[test]
fn encoders_are_ignored_by_name() {
    let names = [
        "model.vision_tower.patch_embedder.input_proj.weight",
        "model.embed_vision.embedding_projection.weight",
        "model.vision_embedder.patch_dense.weight",
        "model.audio_tower.layers.0.norm_out.weight",
        "model.embed_audio.embedding_projection.weight",
    ];
    let report = changes_nothing("e2b", |parts| names.iter().for_each(|name| parts.add(name, &[4, 4])));
    let ignored: Vec<_> = report.ignored.iter().map(|t| t.name.as_str()).collect();
    assert_eq!(ignored, names);
    assert_eq!(report.ignored[4].reason, "sound encoder");
}

#[test]
fn superfluous_keys_and_values_of_shared_layers_are_ignored_by_name() {
    let k = "model.language_model.layers.7.self_attn.k_proj.weight";
    let report = changes_nothing("e2b", |parts| parts.add(k, &[16, 64]));
    let reason = "the layer reads another layer's keys and values";
    assert_eq!(report.ignored, [IgnoredTensor { name: k.into(), reason }]);
}

/// Whatever they are stored as: transformers leaves out all that is named like these projections and norms. None of it is counted
/// as read.
#[test]
fn quantised_matrices_that_nobody_needs_are_ignored_with_all_that_lies_beside_them() {
    let at = "model.language_model.layers.7.self_attn";
    let codes =
        [(format!("{at}.k_proj.weight"), 16), (format!("{at}.v_proj.weight"), 16), ("lm_head.weight".into(), 288)];
    let add = |parts: &mut Parts| {
        for (name, rows) in &codes {
            parts.add(&format!("{name}_packed"), &[*rows, 32]);
            let packed = parts.tensors.last_mut().unwrap();
            (packed.dtype, packed.shape) = (StoredType::Other("I32"), vec![*rows, 16]);
            parts.add(&format!("{name}_scale"), &[*rows, 1]);
            parts.add(&format!("{name}_scale_2"), &[]);
        }
        parts.add(&format!("{at}.v_norm.weight"), &[16]);
    };
    let report = changes_nothing("e2b", add);
    assert_eq!(report.ignored.len(), 10);
    let bytes = |parts: Parts| carat_model::load::file_bytes(&parts.checkpoint()).unwrap();
    let (plain, mut parts) = (bytes(Parts::of(&named("e2b"))), Parts::of(&named("e2b")));
    add(&mut parts);
    let added = codes.iter().map(|(_, rows)| rows * 66 + 2).sum::<usize>() + 32;
    assert_eq!(bytes(parts), FileBytes { ignored: plain.ignored + added, ..plain });
}

#[test]
fn second_scales_of_superfluous_keys_in_a_gguf_file_are_ignored() {
    let GgufFile { metadata, tensors } = GgufFile::open(&named("e2b").dir.join("bf16.gguf")).unwrap();
    let mut tensors: Vec<_> = tensors.iter().cloned().collect();
    let names = ["blk.7.attn_k.weight", "blk.7.attn_k.scale", "blk.7.attn_v.weight", "blk.7.attn_v.scale"];
    for name in names {
        let (dtype, data) = (StoredType::Known(DType::F32), Bytes::from_vec(vec![0; 4]));
        tensors.push(TensorInfo { name: name.into(), dtype, shape: vec![1], data });
    }
    let file = GgufFile { metadata, tensors: Weights::new("changed".into(), tensors).unwrap() };
    let (_, report) = load(Checkpoint::Gguf(file)).unwrap();
    let ignored: Vec<_> = report.ignored.iter().map(|t| t.name.as_str()).collect();
    assert_eq!(ignored, names);
}

/// A per-layer table may have more rows than there are tokens.
#[test]
fn the_per_layer_table_has_rows_of_its_own() {
    let grow = |tensor: &mut TensorInfo| {
        let row = tensor.data.len() / tensor.shape[0];
        tensor.shape[0] = 300;
        let mut data = tensor.data.to_vec();
        data.resize(300 * row, 0);
        tensor.data = Bytes::from_vec(data);
    };
    let with_rows = |parts: &mut Parts| {
        grow(parts.tensor("embed_tokens_per_layer.weight"));
        parts.config["text_config"]["vocab_size_per_layer_input"] = json!(300);
    };
    changes_nothing("e2b", with_rows);
    let mut parts = Parts::of(&named("e2b"));
    with_rows(&mut parts);
    let checkpoint = parts.checkpoint();
    let list = ModelTensors::new(&checkpoint).unwrap();
    list.iter().for_each(|tensor| drop(list.read(tensor).unwrap()));
    assert_eq!(list.finish().unwrap(), []);

    let GgufFile { metadata, tensors } = GgufFile::open(&named("e2b").dir.join("bf16.gguf")).unwrap();
    let mut tensors: Vec<_> = tensors.iter().cloned().collect();
    grow(tensors.iter_mut().find(|t| t.name == "per_layer_token_embd.weight").unwrap());
    let file = GgufFile { metadata, tensors: Weights::new("changed".into(), tensors).unwrap() };
    assert_eq!(load(Checkpoint::Gguf(file)).unwrap().0.config().per_layer.unwrap().vocab_size, 300);
}

#[test]
fn every_published_prefix_is_read() {
    for prefix in ["language_model.model.", "model.", ""] {
        changes_nothing("a4b", |parts| {
            for tensor in &mut parts.tensors {
                tensor.name = tensor.name.replace(PREFIX, prefix);
            }
        });
    }
}

#[test]
fn a_bare_text_config_is_the_same_model() {
    changes_nothing("e2b", |parts| parts.config = parts.config["text_config"].clone());
}

#[test]
fn a_head_of_its_own_is_used_when_the_config_says_so() {
    let copy = |parts: &mut Parts| {
        let mut head = parts.tensor("embed_tokens.weight").clone();
        head.name = "lm_head.weight".into();
        parts.tensors.push(head);
    };
    let report = changes_nothing("12b", copy);
    assert_eq!(report.ignored[0].name, "lm_head.weight");

    let untie = |parts: &mut Parts| parts.config["tie_word_embeddings"] = json!(false);
    let report = changes_nothing("12b", |parts| {
        copy(parts);
        untie(parts);
    });
    assert!(report.ignored.is_empty());
    refuses(untie, &["lm_head.weight", "missing"]);
}

#[test]
fn a_zero_head_gives_zero_logits() {
    let mut parts = Parts::of(&named("12b"));
    parts.add("lm_head.weight", &[288, 64]);
    parts.config["tie_word_embeddings"] = json!(false);
    let (mut decoder, _) = parts.load().unwrap();
    assert!(logits(&mut decoder).iter().all(|l| *l == 0.0));
}

/// Bytes of 128 are zeros in integers of 8 bits.
#[test]
fn a_packed_head_is_found_by_every_name() {
    let mut parts = Parts::of(&named("12b"));
    let (name, data) = ("language_model.lm_head.weight_packed".into(), Bytes::from_vec(vec![128; 288 * 64]));
    parts.tensors.push(TensorInfo { name, dtype: StoredType::Other("I32"), shape: vec![288, 16], data });
    parts.add("language_model.lm_head.weight_scale", &[288, 1]);
    parts.config["tie_word_embeddings"] = json!(false);
    let (mut decoder, _) = parts.load().unwrap();
    assert!(logits(&mut decoder).iter().all(|l| *l == 0.0));
}

/// Keys twice as long and queries half as long score the same, in layers that read another's keys and values, too.
#[test]
fn layers_that_share_values_as_keys_score_as_their_owner_does() {
    let run = |key: u16, query: u16| {
        let mut parts = Parts::of(&named("12b"));
        let config = &mut parts.config["text_config"];
        let kinds = config["layer_types"].as_array().unwrap().clone();
        assert_eq!((kinds.len(), &kinds[5]), (6, &json!("full_attention")));
        config["layer_types"] = [kinds.clone(), kinds].concat().into();
        config["num_hidden_layers"] = json!(12);
        config["per_layer_config"]["11"] = config["per_layer_config"]["5"].clone();
        config["num_kv_shared_layers"] = json!(6);
        for mut tensor in parts.tensors.clone() {
            let of_layer = |l: usize| format!("{PREFIX}layers.{l}.");
            if let Some(l) = (0..6).find(|l| tensor.name.starts_with(&of_layer(*l))) {
                tensor.name = tensor.name.replace(&of_layer(l), &of_layer(l + 6));
                parts.tensors.push(tensor);
            }
        }
        for (name, value) in
            [("5.self_attn.k_norm", key), ("5.self_attn.q_norm", query), ("11.self_attn.q_norm", query)]
        {
            let norm = parts.tensor(&format!("layers.{name}.weight"));
            assert_eq!(norm.dtype, StoredType::Known(DType::BF16));
            norm.data = Bytes::from_vec(value.to_le_bytes().repeat(norm.shape[0]));
        }
        logits(&mut parts.load().unwrap().0)
    };
    let [half, one, two] = [0x3f00, 0x3f80, 0x4000];
    assert_eq!(run(two, half), run(one, one));
    assert_ne!(run(two, one), run(one, one));
}

/// Where RoPE turns so little of a head that it turns nothing, a cache of values alone would hold no keys.
#[test]
fn full_layers_may_turn_nothing() {
    let mut parts = Parts::of(&named("31b"));
    parts.config["text_config"]["rope_parameters"]["full_attention"]["partial_rotary_factor"] = json!(0.01);
    let backend = CpuBackend::new(CpuOptions { threads: Some(1), ..CpuOptions::default() }).unwrap();
    let options = DecoderOptions { ctx: 64, kv: KvType::F16, ..DecoderOptions::default() };
    let (mut decoder, _) = Decoder::load(backend, &mut parts.checkpoint(), options).unwrap();
    assert!(logits(&mut decoder).iter().all(|l| l.is_finite()));
}

/// Some GGUF files store the experts' gates and ups apart.
#[test]
fn split_experts_compute_the_same() {
    let open = || GgufFile::open(&named("a4b").dir.join("bf16.gguf")).unwrap();
    let mut tensors = Vec::new();
    for tensor in open().tensors.iter() {
        let Some(layer) = tensor.name.strip_suffix("ffn_gate_up_exps.weight") else {
            tensors.push(tensor.clone());
            continue;
        };
        let [experts, rows, cols] = tensor.shape[..] else { panic!("{:?}", tensor.shape) };
        let half = tensor.data.len() / experts / 2;
        for (part, name) in ["ffn_gate_exps.weight", "ffn_up_exps.weight"].into_iter().enumerate() {
            let data = tensor.data.chunks_exact(half).skip(part).step_by(2).flatten().copied().collect();
            tensors.push(TensorInfo {
                name: format!("{layer}{name}"),
                dtype: tensor.dtype,
                shape: vec![experts, rows / 2, cols],
                data: Bytes::from_vec(data),
            });
        }
    }
    let split = GgufFile { metadata: open().metadata, tensors: Weights::new("split".into(), tensors).unwrap() };
    let (mut joined, _) = load(Checkpoint::Gguf(open())).unwrap();
    let (mut split, _) = load(Checkpoint::Gguf(split)).unwrap();
    assert_eq!(logits(&mut split), logits(&mut joined));
}

/// Some GGUF files store queries, keys and values as one matrix; layers that share keys hold some nobody reads.
#[test]
fn joined_projections_compute_the_same() {
    let open = || GgufFile::open(&named("e2b").dir.join("bf16.gguf")).unwrap();
    let mut tensors: Vec<TensorInfo> = open().tensors.iter().cloned().collect();
    for layer in 0..10 {
        let mut take = |part: &str| {
            let name = format!("blk.{layer}.attn_{part}.weight");
            tensors.iter().position(|t| t.name == name).map(|at| tensors.remove(at))
        };
        let (q, k, v) = (take("q").unwrap(), take("k"), take("v"));
        let kv_rows = if (layer + 1) % 5 == 0 { 32 } else { 16 };
        let unread = || vec![0x3f; 2 * 64 * kv_rows];
        let part = |t: Option<TensorInfo>| t.map_or_else(unread, |t| t.data.to_vec());
        let data = [q.data.to_vec(), part(k), part(v)].concat();
        tensors.push(TensorInfo {
            name: format!("blk.{layer}.attn_qkv.weight"),
            dtype: q.dtype,
            shape: vec![q.shape[0] + 2 * kv_rows, 64],
            data: Bytes::from_vec(data),
        });
    }
    let joined = GgufFile { metadata: open().metadata, tensors: Weights::new("joined".into(), tensors).unwrap() };
    let (mut apart, _) = load(Checkpoint::Gguf(open())).unwrap();
    let (mut joined, _) = load(Checkpoint::Gguf(joined)).unwrap();
    assert_eq!(logits(&mut joined), logits(&mut apart));
}

/// The metadata of a fixture's GGUF file, one key written otherwise.
#[track_caller]
fn config_with(key: &str, write: impl Fn(&mut GgufWriter)) -> Result<ModelConfig, ModelError> {
    let GgufFile { metadata, tensors } = GgufFile::open(&named("a4b").dir.join("bf16.gguf")).unwrap();
    assert!(metadata.contains(key), "{key}");
    let mut writer = GgufWriter::new();
    for (name, value) in metadata.iter().filter(|(name, _)| *name != key) {
        writer.value(name, value);
    }
    write(&mut writer);
    let GgufFile { metadata, .. } =
        GgufFile::from_bytes("changed", Bytes::from_vec(writer.to_bytes::<Vec<u8>>(&[]))).unwrap();
    carat_model::load::config(&Checkpoint::Gguf(GgufFile { metadata, tensors }))
}

#[test]
fn settings_may_be_spelt_in_every_way_writers_do() {
    let expected = config_with("gemma4.context_length", |w| _ = w.u32("gemma4.context_length", 4096)).unwrap();
    assert_eq!(expected.layers.iter().filter(|l| l.layer_type == LayerType::Full).count(), 1);
    let pattern = "gemma4.attention.sliding_window_pattern";
    type Write<'a> = &'a dyn Fn(&mut GgufWriter);
    let spellings: [(&str, Write<'_>); 5] = [
        (pattern, &|w| _ = w.u32(pattern, 6)),
        (pattern, &|w| _ = w.i32s(pattern, &[1, 1, 1, 1, 1, 0])),
        ("gemma4.feed_forward_length", &|w| _ = w.u32("gemma4.feed_forward_length", 64)),
        ("gemma4.attention.head_count", &|w| _ = w.i32s("gemma4.attention.head_count", &[4; 6])),
        ("gemma4.expert_feed_forward_length", &|w| _ = w.i32s("gemma4.expert_feed_forward_length", &[32; 6])),
    ];
    for (key, write) in spellings {
        assert_eq!(config_with(key, write).unwrap(), expected, "{key}");
    }
    let refuses = |key: &'static str, ints: &'static [i32], says: &str| {
        let error = config_with(key, |w| _ = w.i32s(key, ints)).unwrap_err().to_string();
        assert!(error.contains(key) && error.contains(says), "{error}");
    };
    refuses(pattern, &[1, 1, 1, 1, 1, 2], "0 or 1");
    refuses(pattern, &[1, 0], "one per layer, 6");
    refuses("gemma4.attention.head_count", &[4, 4, 4, 4, 4, 8], "4 on every layer");
}

#[test]
fn a_bound_of_0_is_none() {
    let key = "gemma4.final_logit_softcapping";
    let with = |bound: f32| config_with(key, |w| _ = w.f32(key, bound));
    assert_eq!(with(0.0).unwrap().softcap, None);
    assert_eq!(with(30.0).unwrap().softcap, Some(30.0));
    for bound in [-1.0, f32::NAN, f32::INFINITY] {
        let error = with(bound).unwrap_err().to_string();
        assert!(error.contains(key) && error.contains("a positive number"), "{error}");
    }
}

#[test]
fn a_gguf_file_without_embeddings_says_so() {
    let GgufFile { metadata, tensors } = GgufFile::open(&named("e2b").dir.join("bf16.gguf")).unwrap();
    let tensors = tensors.iter().filter(|t| t.name != "token_embd.weight").cloned().collect();
    let file = GgufFile { metadata, tensors: Weights::new("changed".into(), tensors).unwrap() };
    let error = load(Checkpoint::Gguf(file)).err().unwrap().to_string();
    assert!(error.contains("`token_embd.weight`: found none") && error.contains("the vocabulary"), "{error}");
}

/// A GGUF file has no key for keys as values, placeholders or the vocabulary; all follow from its contents. Norms are
/// stored as they are multiplied with.
#[test]
fn a_gguf_file_gives_the_config_of_its_directory() {
    for fixture in fixtures() {
        for path in fixture.gguf(&["bf16", "q8_0", "q4_0"]) {
            let of = |path| carat_model::load::config(&carat_weights::open(path).unwrap()).unwrap();
            let (gguf, mut hf) = (of(&path), of(&fixture.dir));
            assert_eq!(gguf.rope_full.inv_freq(32), hf.rope_full.inv_freq(32));
            hf.rope_full = gguf.rope_full.clone();
            hf.norm_offset = 0.0;
            assert_eq!(gguf, hf, "{}", path.display());
        }
    }
}

#[test]
fn rope_divisors_of_another_length_are_refused() {
    let GgufFile { metadata, tensors } = GgufFile::open(&named("e2b").dir.join("bf16.gguf")).unwrap();
    let mut tensors: Vec<_> = tensors.iter().cloned().collect();
    let divisors = tensors.iter_mut().find(|t| t.name == "rope_freqs.weight").unwrap();
    (divisors.shape, divisors.data) = (vec![8], divisors.data.slice(0..32));
    let file = GgufFile { metadata, tensors: Weights::new("changed".into(), tensors).unwrap() };
    let error = load(Checkpoint::Gguf(file)).err().unwrap().to_string();
    assert!(error.contains("rope_freqs.weight") && error.contains("[8]") && error.contains("[16]"), "{error}");
}
