//! The memory plan is true: what a process takes when it runs a model is what was announced, within 5 %.
//!
//! A plan counts a full context, and pages of a cache are taken when they are first written. So the measured prompt is
//! longer than a window and a chunk, which fills the rings of sliding layers, and of the caches of full layers the
//! expected share is what the tokens fill.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "a panic is a failed test")]

mod apart;
mod files;
#[path = "../../model/tests/mmproj_file/mod.rs"]
mod mmproj_file;
mod program;
mod synthetic;

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::Stdio;

use apart::Layout;
use carat_model::LogitRows;
use carat_runtime::device::{self, DeviceOptions, Precision};
use carat_runtime::loading;
use carat_runtime::{LoadOptions, ModelFiles, ModelSource};
use carat_tensor::DType;
use carat_tensor::backend::{KvSpec, KvType};
use carat_weights::Checkpoint;
use files::{bmp, wav};
use program::{Scratch, carat};
use serde_json::{Value, json};

const THREADS: usize = 2;
/// How far a measured size may be from the planned one.
const TOLERANCE: f64 = 0.05;

/// What a process has resident, in bytes.
#[derive(Clone, Copy, Debug, Default)]
struct Resident {
    anonymous: usize,
    file: usize,
    /// Of `file`, pages of the program itself and its libraries, unoptimised as tests are built. No part of the plan.
    code: usize,
    peak: usize,
}

impl Resident {
    /// Of a process that lives; a finished one has no such lines.
    fn of(pid: u32) -> Option<Self> {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name))?;
            line.trim().strip_suffix(" kB")?.parse::<usize>().ok().map(|kib| kib << 10)
        };
        let (anonymous, file, peak) = (field("RssAnon:")?, field("RssFile:")?, field("VmHWM:")?);
        Some(Resident { anonymous, file, code: Self::code(pid)?, peak })
    }

    fn code(pid: u32) -> Option<usize> {
        let maps = std::fs::read_to_string(format!("/proc/{pid}/smaps")).ok()?;
        let (mut of_code, mut kib) = (false, 0);
        for line in maps.lines() {
            let number = |name: &str| line.strip_prefix(name)?.trim().strip_suffix(" kB")?.parse::<usize>().ok();
            if let Some(resident) = number("Rss:").filter(|_| of_code) {
                kib += resident;
            } else if let Some(copied) = number("Anonymous:").filter(|_| of_code) {
                kib -= copied;
            } else if line.contains('-') && line.contains(" r") || line.contains(" ---p ") {
                let path = line.split_whitespace().nth(5).unwrap_or_default();
                of_code = path == env!("CARGO_BIN_EXE_carat") || path.contains(".so");
            }
        }
        Some(kib << 10)
    }

    /// The most of each that was seen.
    fn raise(&mut self, now: Self) {
        self.anonymous = self.anonymous.max(now.anonymous);
        self.file = self.file.max(now.file);
        self.code = self.code.max(now.code);
        self.peak = self.peak.max(now.peak);
    }
}

/// Answers a prompt of `words` words and returns the most that was resident, and the tokens in the cache.
fn measure(model: &Path, ctx: usize, kv: &str, words: usize) -> (Resident, usize) {
    let (ctx, threads) = (ctx.to_string(), THREADS.to_string());
    let mut child = carat(&["run", model.to_str().unwrap(), "--json", "--max-tokens", "40", "--seed", "7"])
        .args(["--ctx", &ctx, "--kv", kv, "--threads", &threads])
        // Any token, so that answers are long and choose all experts.
        .args(["--temperature", "100", "--top-k", "0", "--top-p", "1"])
        // Large blocks come from the system: of those from the heap, pages nobody has written may be resident.
        .env("MALLOC_MMAP_THRESHOLD_", "131072")
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(prompt(words).as_bytes()).unwrap();
    let (mut most, mut tokens) = (Resident::default(), 0);
    for line in BufReader::new(child.stdout.take().unwrap()).lines() {
        let event: Value = serde_json::from_str(&line.unwrap()).unwrap();
        let Some(now) = Resident::of(child.id()) else { continue };
        if event["event"] == "prompt" {
            tokens = event["total"].as_u64().unwrap() as usize;
        }
        most.raise(now);
    }
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    (most, tokens)
}

/// Runs a command and returns the most that was resident. Asks again and again, as it
/// prints nothing on the way.
fn watch(args: &[&str]) -> Resident {
    let mut child = carat(args).env("MALLOC_MMAP_THRESHOLD_", "131072").spawn().unwrap();
    let mut most = Resident::default();
    while child.try_wait().unwrap().is_none() {
        if let Some(now) = Resident::of(child.id()) {
            most.raise(now);
        }
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    most
}

/// Words of one token each, and of many kinds: so that all experts are chosen.
fn prompt(words: usize) -> String {
    let letters = ('a'..='z').chain('A'..='Z');
    letters.cycle().take(words).flat_map(|letter| [letter, ' ']).collect()
}

/// The plan's parts as they are after `tokens` tokens.
struct Expected {
    anonymous: usize,
    weights: usize,
    /// Pages that may be resident too: of the per-layer table, as the system maps the neighbours of a page that is read, and
    /// of what was copied.
    table: usize,
}

fn expected(model: &Path, ctx: usize, kv: KvType, tokens: usize) -> Expected {
    expected_under(model, LoadOptions { context: Some(ctx), kv: Some(kv), ..LoadOptions::default() }, tokens)
}

fn expected_under(model: &Path, options: LoadOptions, tokens: usize) -> Expected {
    expected_beside(model, None, options, tokens)
}

/// With encoders in another file.
fn expected_beside(model: &Path, encoders: Option<&Scratch>, mut options: LoadOptions, tokens: usize) -> Expected {
    options.device.threads = Some(THREADS);
    let files = ModelFiles::open(&ModelSource::Path(model.into())).unwrap();
    let files = files.with_encoders(encoders.map(|file| file.0.clone()));
    let mut plan = loading::plan(&files, &options).unwrap();
    // Attention rounds the positions that are there.
    plan.work.positions = tokens.min(plan.work.positions);
    let plan = plan.on(&device::open(options.device).unwrap());
    // A page that two tensors share stays when what is in them has been copied.
    let shared = 4096 * files.checkpoint().tensors().len();
    let filled = |spec: &KvSpec| spec.bytes() / spec.capacity * tokens.min(spec.capacity);
    let cache: usize = plan.kv.iter().map(|layer| filled(&layer.spec)).sum();
    Expected {
        anonymous: plan.taken() - plan.kv_bytes() + cache,
        weights: plan.file.weights + plan.encoder_weights(),
        table: plan.file.per_layer_table + if plan.file.rearranged > 0 { shared } else { 0 },
    }
}

/// `found` is at most 5 % above or below the range.
#[track_caller]
fn assert_near(what: &str, found: usize, expected: std::ops::RangeInclusive<usize>) {
    let (low, high) = (*expected.start() as f64 * (1.0 - TOLERANCE), *expected.end() as f64 * (1.0 + TOLERANCE));
    println!("{what}: {found} of {expected:?}, {:+.1} %", 100.0 * (found as f64 / *expected.end() as f64 - 1.0));
    assert!((low..=high).contains(&(found as f64)), "{what}: {found} bytes, planned {expected:?}");
}

/// Runs `model` and holds what it took to the plan.
fn check(model: &Path, ctx: usize, kv: (&str, KvType), words: usize) {
    let what = |part: &str| format!("{}, {ctx} tokens in {}, {part}", model.file_name().unwrap().display(), kv.0);
    let (most, tokens) = measure(model, ctx, kv.0, words);
    assert!(tokens > words && tokens < ctx, "{tokens} tokens");
    compare(what, most, &expected(model, ctx, kv.1, tokens));
}

fn compare(what: impl Fn(&str) -> String, most: Resident, plan: &Expected) {
    assert_near(&what("allocated"), most.anonymous, plan.anonymous..=plan.anonymous);
    let file = plan.weights + most.code;
    assert_near(&what("files"), most.file, file..=file + plan.table);
    // Nothing that is given back on the way takes more.
    let all = plan.anonymous + file;
    assert_near(&what("peak"), most.peak, all..=all + plan.table);
}

const F16: (&str, KvType) = ("f16", KvType::F16);
const Q8_0: (&str, KvType) = ("q8_0", KvType::Q8_0);

/// A model of `n` layers, every third of them full, in a file of its own.
fn model(name: &str, dtype: DType, n: usize, more: &[(&'static str, Value)]) -> Scratch {
    let mut changes = vec![
        ("num_hidden_layers", json!(n)),
        ("layer_types", synthetic::layer_types(n)),
        ("max_position_embeddings", json!(131_072)),
    ];
    changes.extend_from_slice(more);
    let file = Scratch::new(&format!("{name}.gguf"));
    synthetic::write_gguf(&file.0, synthetic::config(&changes), dtype);
    file
}

/// As E2B is: per-layer inputs, and layers that read the keys and values of others.
#[test]
fn the_plan_of_a_model_with_per_layer_inputs_is_true() {
    let file = model("per-layer", DType::Q8_0, 15, &per_layer_inputs());
    for (ctx, kv) in [(2048, F16), (16_384, Q8_0), (65_536, F16)] {
        check(&file.0, ctx, kv, 540);
    }
}

fn per_layer_inputs() -> Vec<(&'static str, Value)> {
    vec![
        ("hidden_size", json!(512)),
        ("intermediate_size", json!(2560)),
        ("head_dim", json!(128)),
        ("num_attention_heads", json!(8)),
        ("num_kv_shared_layers", json!(9)),
        ("hidden_size_per_layer_input", json!(256)),
        ("per_layer_config", json!({"full_attention": {"head_dim": 256}})),
        ("use_double_wide_mlp", json!(false)),
    ]
}

/// As 26B-A4B is: experts, and full layers whose values are their keys.
#[test]
fn the_plan_of_a_model_with_experts_is_true() {
    let file = model("experts", DType::Q4_0, 6, &experts());
    // The last context is full.
    for (ctx, kv, words) in [(16_384, F16, 540), (65_536, Q8_0, 540), (1024, F16, 825)] {
        check(&file.0, ctx, kv, words);
    }
}

fn experts() -> Vec<(&'static str, Value)> {
    vec![
        ("hidden_size", json!(512)),
        ("intermediate_size", json!(1024)),
        ("head_dim", json!(128)),
        ("num_attention_heads", json!(8)),
        ("num_key_value_heads", json!(2)),
        ("num_kv_shared_layers", json!(0)),
        ("hidden_size_per_layer_input", json!(0)),
        ("per_layer_config", json!({"full_attention": {"head_dim": 256, "num_key_value_heads": 1}})),
        ("attention_k_eq_v", json!(true)),
        ("enable_moe_block", json!(true)),
        // So that all are chosen in the last layer too, which only rows with logits pass.
        ("num_experts", json!(8)),
        ("top_k_experts", json!(7)),
        ("moe_intermediate_size", json!(1536)),
    ]
}

/// Weights that kernels can't use where they are mapped: experts one by one, and packed integers with scales apart.
#[test]
fn the_plan_of_rearranged_weights_is_true() {
    let file = model("apart", DType::Q8_0, 6, &experts());
    for layout in [Layout::OneByOne, Layout::Packed] {
        let dir = Scratch::new(layout.name());
        apart::write(&file.0, &dir.0, layout);
        check(&dir.0, 4096, F16, 540);
    }
}

/// `carat logits` and `carat perplexity` want the logits of all rows of a pass.
#[test]
fn the_plan_counts_the_logits_of_all_rows() {
    for (name, dtype, n, shape) in
        [("logits", DType::Q8_0, 15, per_layer_inputs()), ("logits-experts", DType::Q4_0, 6, experts())]
    {
        let file = model(name, dtype, n, &shape);
        let under = |ctx, kv, chunk| LoadOptions {
            context: Some(ctx),
            kv: Some(kv),
            chunk,
            logits: LogitRows::All,
            ..LoadOptions::default()
        };
        let (tokens, out) = (840, Scratch::new(&format!("{name}.safetensors")));
        let ids: Vec<String> = (0..tokens).map(|i| (300 + i % 900).to_string()).collect();
        let most = watch(&[
            "logits",
            file.arg(),
            "--tokens",
            &ids.join(","),
            "--out",
            out.arg(),
            "--threads",
            "2",
            "--chunk",
            "512",
        ]);
        let what = |part: &str| format!("{name}, chunks of 512, {part}");
        compare(what, most, &expected_under(&file.0, under(tokens, KvType::F32, 512), tokens));

        let text = Scratch::new(&format!("{name}.txt"));
        std::fs::write(&text.0, prompt(900)).unwrap();
        let most = watch(&["perplexity", file.arg(), text.arg(), "--ctx", "1024", "--threads", "2"]);
        let what = |part: &str| format!("{name}, perplexity, {part}");
        compare(what, most, &expected_under(&file.0, under(1024, KvType::F16, 128), 900));
    }
}

/// Of models whose weights are small, so that nearly all is what encoding takes.
const NANO: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../nano/checkpoint");
const BLOCKS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../fixtures/multimodal/12b");

/// Two pictures of the largest budget, enlarged to 35 x 32 soft tokens, and a sound of 30 s.
fn media() -> [Scratch; 3] {
    let samples: Vec<f32> = (0..480_000).map(|i| (i as f32 / 7.0).sin() / 2.0).collect();
    [("1.bmp", bmp(140, 128)), ("2.bmp", bmp(280, 256)), ("30.wav", wav(&samples))].map(|(name, bytes)| {
        let file = Scratch::new(name);
        std::fs::write(&file.0, bytes).unwrap();
        file
    })
}

/// The encoders of a checkpoint's directory in a file of their own.
fn encoders(checkpoint: &str, matrices: DType) -> Scratch {
    let Checkpoint::HfDir(dir) = carat_weights::open(Path::new(checkpoint)).unwrap() else { panic!("a file") };
    let file = Scratch::new(&format!("{matrices}-mmproj.gguf"));
    std::fs::write(&file.0, mmproj_file::write(&dir, matrices)).unwrap();
    file
}

/// Options of a command that is shown these media, and those of its plan.
fn shown<'a>(media: &[&'a str], ctx: usize, precision: Precision) -> (Vec<&'a str>, LoadOptions) {
    let precise = match precision {
        Precision::Fast => "fast",
        Precision::Coarse => "int8",
        Precision::Reference => "f32",
    };
    let args = [media, &["--image-tokens", "1120", "--threads", "2", "--precision", precise]].concat();
    let options = LoadOptions {
        device: DeviceOptions { precision, ..DeviceOptions::default() },
        context: Some(ctx),
        image_tokens: media.contains(&"--image").then(|| "1120".parse().unwrap()),
        sounds: media.contains(&"--audio"),
        ..LoadOptions::default()
    };
    (args, options)
}

#[test]
fn the_plan_counts_what_towers_see_and_hear_with() {
    let [first, second, sound] = &media();
    let quantised = encoders(NANO, DType::Q8_0);
    let check = |what: &str, media: &[&str], ctx: usize, precision, encoders: Option<&Scratch>| {
        let (args, options) = shown(media, ctx, precision);
        let ctx_arg = ctx.to_string();
        // Any token, so that the answer is long enough to be seen.
        let answer = ["--max-tokens", "120", "--seed", "7", "--temperature", "100", "--top-k", "0", "--top-p", "1"];
        let encoders_arg = encoders.map_or(vec![], |file| vec!["--mmproj", file.arg()]);
        let most = watch(&[&["run", NANO, "What?", "--ctx", &ctx_arg], &answer[..], &encoders_arg, &args].concat());
        compare(|part| format!("{what}, {part}"), most, &expected_beside(Path::new(NANO), encoders, options, ctx));
    };
    // The second is encoded when the buffers are full.
    check("pictures", &["--image", first.arg(), "--image", second.arg()], 2400, Precision::Fast, None);
    check("a sound", &["--audio", sound.arg()], 900, Precision::Fast, None);
    // Most is taken for a picture when the buffers for sounds are there.
    let both = ["--audio", sound.arg(), "--image", first.arg()];
    check("both", &both, 2000, Precision::Fast, None);
    check("both in int8", &both, 2000, Precision::Coarse, None);
    check("both in f32", &both, 2000, Precision::Reference, None);
    check("both with Q8_0", &both, 2000, Precision::Fast, Some(&quantised));
}

/// As 12B sees, from a directory and from a GGUF file, whose blocks have another order.
#[test]
fn the_plan_counts_what_blocks_are_seen_with() {
    let [first, second, _] = &media();
    let apart = encoders(BLOCKS, DType::BF16);
    let picture = vec!["7"; 1120].join(",");
    let ids = format!("2,{picture},30,{picture},31");
    let out = Scratch::new("blocks.safetensors");
    for encoders in [None, Some(&apart)] {
        let tokens = ids.split(',').count();
        let (args, options) = shown(&["--image", first.arg(), "--image", second.arg()], tokens, Precision::Fast);
        let fixed = ["logits", BLOCKS, "--tokens", &ids, "--out", out.arg(), "--kv", "f16"];
        let encoders_arg = encoders.map_or(vec![], |file| vec!["--mmproj", file.arg()]);
        let most = watch(&[&fixed[..], &encoders_arg, &args].concat());
        let options = LoadOptions { chunk: 128, logits: LogitRows::All, ..options };
        let what = |part: &str| format!("blocks, encoders apart: {}, {part}", encoders.is_some());
        compare(what, most, &expected_beside(Path::new(BLOCKS), encoders, options, tokens));
    }
}
