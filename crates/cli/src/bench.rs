//! `carat bench`: tokens per second, and what share of this machine's limits that is.
//!
//! The prompt is bound by multiplications and reported against the integer-dot peak, the answer by the bytes it
//! reads and reported against memory bandwidth. Both limits are measured just before, on as many threads. A model
//! that fits in the caches can read faster than memory.

use std::io::Write;
use std::path::PathBuf;
use std::time::Instant;

use carat_cpu::measure;
use carat_model::load::is_of_experts;
use carat_model::{Decoder, LogitRows, MemoryPlan, ModelConfig, Piece, Step};
use carat_runtime::device::{self, Device, DeviceOptions};
use carat_runtime::loading::{self, Loaded};
use carat_runtime::rng::Rng;
use carat_runtime::tiles::Tiles;
use carat_runtime::{ModelFiles, host, work};
use carat_tensor::{Backend, TokenId};
use serde_json::{Value, json};

use crate::args::{self, EngineArgs, KvArg, PrecisionArg};
use crate::output;

/// Measure tokens per second against this machine's limits
#[derive(clap::Args)]
pub struct Args {
    /// Directory with config.json, or .gguf file; left out: the embedded model
    model: Option<PathBuf>,
    /// Tokens of the prompts; 0 for none
    #[arg(short = 'p', long = "prompt", value_name = "N,…", value_delimiter = ',', default_value = "512", value_parser = args::whole::<usize>)]
    prompts: Vec<usize>,
    /// Tokens of the answers; 0 for none
    #[arg(short = 'n', long = "answer", value_name = "N,…", value_delimiter = ',', default_value = "128", value_parser = args::whole::<usize>)]
    answers: Vec<usize>,
    /// Tokens already in the context
    #[arg(short = 'd', long = "depth", value_name = "N,…", value_delimiter = ',', default_value = "0", value_parser = args::whole::<usize>)]
    depths: Vec<usize>,
    /// Threads that compute [default: one per core this process may use]
    #[arg(short = 't', long = "threads", value_name = "N,…", value_delimiter = ',', value_parser = args::at_least_one)]
    threads: Vec<usize>,
    /// Repetitions of each measurement
    #[arg(short = 'r', long = "repeat", value_name = "N", default_value = "5", value_parser = args::at_least_one)]
    repeat: usize,
    /// How keys and values are stored [default: f16, with --precision f32: f32]
    #[arg(long, value_enum, value_name = "TYPE")]
    kv: Option<KvArg>,
    /// fast: integer products of the stored weights; int8: the same, long prompts rounded to 8 bits throughout, as other
    /// programs do; f32: the slow path that defines the result
    #[arg(long, value_enum, value_name = "PATH", default_value_t = PrecisionArg::Fast)]
    precision: PrecisionArg,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// What is measured.
#[derive(Clone, Copy, PartialEq)]
enum Test {
    /// So many tokens at once.
    Prompt(usize),
    /// So many tokens one by one.
    Answer(usize),
}

impl Test {
    fn tokens(self) -> usize {
        let (Test::Prompt(n) | Test::Answer(n)) = self;
        n
    }
}

/// The runs with one number of threads.
struct Bench<'a> {
    decoder: &'a mut Decoder<Device>,
    tokens: Vec<TokenId>,
    weights: WeightBytes,
    /// Bytes per second.
    bandwidth: f64,
    /// Operations per second, two a multiply-add.
    int8_peak: f64,
}

/// One line of the report.
struct Line {
    test: Test,
    depth: usize,
    /// Tokens per second, ascending.
    speeds: Vec<f64>,
    /// Of the limit, at the median speed.
    share: f64,
}

/// Runs the subcommand.
pub fn run(args: &Args) -> anyhow::Result<()> {
    let threads: Vec<Option<usize>> =
        if args.threads.is_empty() { vec![None] } else { args.threads.iter().copied().map(Some).collect() };
    let mut out = output::stdout();
    let mut reports = Vec::new();
    for &threads in &threads {
        let report = measure_with(args, threads, &mut out)?;
        reports.push(report);
    }
    if args.json {
        output::json_line(
            &mut out,
            &json!({ "model": args::source(args.model.as_ref())?.to_string(), "results": reports }),
        )?;
    }
    Ok(out.flush()?)
}

/// Below this share of weights in large pages there is something to be gained.
const FEW_LARGE_PAGES: f64 = 0.5;

fn measure_with(args: &Args, threads: Option<usize>, out: &mut impl Write) -> anyhow::Result<Value> {
    let tests: Vec<Test> = args
        .prompts
        .iter()
        .map(|&n| Test::Prompt(n))
        .chain(args.answers.iter().map(|&n| Test::Answer(n)))
        .filter(|t| t.tokens() > 0)
        .collect();
    let longest = tests.iter().map(|t| t.tokens()).max().unwrap_or(1) + args.depths.iter().max().copied().unwrap_or(0);
    let threads = match threads {
        Some(threads) => threads,
        None => device::open(DeviceOptions::default())?.threads(),
    };
    let (bandwidth, int8_peak) =
        (measure::read_bandwidth(threads, host::available_memory())?, measure::int8_peak(threads));
    // The measurement of bandwidth takes more memory than most models' caches.
    host::reset_peak_memory();
    let (kv, precision) = (args.kv, args.precision);
    let engine = EngineArgs { threads: Some(threads), ctx: Some(longest), memory: None, kv, precision };
    let started = Instant::now();
    let mut files = args::open(args.model.as_ref())?;
    let Loaded { mut decoder, tiles, .. } = loading::load(&mut files, &engine.load_options(), &mut |_| {})?;
    let load_ms = started.elapsed().as_secs_f64() * 1e3;

    let vocab = decoder.config().vocab_size as u64;
    let mut rng = Rng::from_seed(1);
    let mut bench = Bench {
        tokens: (0..longest).map(|_| TokenId((rng.next_u64() % vocab) as u32)).collect(),
        weights: WeightBytes::of(&files, &tiles),
        bandwidth,
        int8_peak,
        decoder: &mut decoder,
    };
    let (backend, work) = (bench.decoder.backend().name(), work::prompt_work(bench.decoder.config()));
    if !args.json {
        writeln!(out, "{}: {backend}, {threads} threads, loaded in {load_ms:.0} ms", files.source())?;
        if let Some(said) = say(&tiles, &files) {
            writeln!(out, "{said}")?;
        }
        writeln!(out, "limits: {:.1} GB/s, {:.0} int8 GOP/s", bench.bandwidth / 1e9, bench.int8_peak / 1e9)?;
        writeln!(
            out,
            "prompts: {:.0} million multiply-adds per token, {:.0} % of all layers'",
            work.done as f64 / 1e6,
            100.0 * work.done as f64 / work.all_layers as f64
        )?;
        writeln!(
            out,
            "{:16} {:>8} {:>10} {:>10} {:>10}   share of the limit",
            "tok/s", "depth", "min", "median", "max"
        )?;
        out.flush()?;
    }
    bench.run(Test::Prompt(longest.min(16)), 0)?;
    let mut lines = Vec::new();
    for &depth in &args.depths {
        for &test in &tests {
            let line = bench.measure(test, depth, args.repeat)?;
            if !args.json {
                line.print(out)?;
                out.flush()?;
            }
            lines.push(line.json());
        }
    }
    let (peak_memory, large_pages) = (host::peak_memory(), host::share_in_large_pages());
    if let (Some(peak), false) = (peak_memory, args.json) {
        writeln!(out, "peak memory {}", output::bytes(peak))?;
        if let Some(share) = large_pages {
            writeln!(out, "of mapped weights {:.0} % in large pages", 100.0 * share)?;
            if share < FEW_LARGE_PAGES {
                writeln!(
                    out,
                    "small pages make answers slower: while no program has the model's files open, `dd if=FILE iflag=nocache \
                     count=0` for each lets the system read them anew, into large ones"
                )?;
            }
        }
        writeln!(out)?;
    }
    Ok(json!({
        "backend": backend, "threads": threads, "load_ms": load_ms, "interleaved": matches!(*tiles, Tiles::Found(_)),
        "bandwidth": bench.bandwidth, "int8_peak": bench.int8_peak, "tests": lines, "peak_memory": peak_memory,
        "in_large_pages": large_pages,
        "prompt_multiply_adds": {"done": work.done, "all_layers": work.all_layers},
    }))
}

/// How the weights lie, where that could be otherwise.
fn say(tiles: &Tiles, files: &ModelFiles) -> Option<String> {
    let model = files.source();
    match tiles {
        Tiles::NotWanted => None,
        Tiles::Found(_) => Some("weights: interleaved, from the copy that `carat pack` made".to_owned()),
        Tiles::Absent => Some(format!("weights: as stored; `carat pack {model}` would make answers faster")),
        Tiles::Stale => Some(format!(
            "weights: as stored; the interleaved copy is of another file or version, or broken: `carat pack {model}` makes it anew"
        )),
    }
}

impl Bench<'_> {
    fn measure(&mut self, test: Test, depth: usize, repeat: usize) -> anyhow::Result<Line> {
        if matches!(test, Test::Prompt(_)) {
            // Memory that so many rows are worked on in comes with the first ones.
            self.run(test, depth)?;
        }
        let mut speeds = Vec::with_capacity(repeat);
        for _ in 0..repeat {
            speeds.push(test.tokens() as f64 / self.run(test, depth)?);
        }
        speeds.sort_by(f64::total_cmp);
        let median = speeds[speeds.len() / 2];
        let (config, memory) = (self.decoder.config(), self.decoder.memory());
        let share = match test {
            Test::Prompt(_) => 2.0 * work::prompt_work(config).done as f64 * median / self.int8_peak,
            Test::Answer(n) => self.weights.per_token(config, memory, depth + n / 2) as f64 * median / self.bandwidth,
        };
        Ok(Line { test, depth, speeds, share })
    }

    /// Seconds of one test after `depth` tokens.
    fn run(&mut self, test: Test, depth: usize) -> anyhow::Result<f64> {
        if self.decoder.position() < depth || !self.decoder.truncate(depth) {
            self.decoder.reset();
            self.decoder.forward(Step { pieces: &[Piece::Tokens(&self.tokens[..depth])], logits: LogitRows::None })?;
        }
        let tokens = &self.tokens[depth..depth + test.tokens()];
        let started = Instant::now();
        let per_step = if matches!(test, Test::Prompt(_)) { tokens.len() } else { 1 };
        for step in tokens.chunks(per_step) {
            self.decoder.forward(Step { pieces: &[Piece::Tokens(step)], logits: LogitRows::Last })?;
        }
        Ok(started.elapsed().as_secs_f64())
    }
}

impl Line {
    fn min_median_max(&self) -> [f64; 3] {
        [self.speeds[0], self.speeds[self.speeds.len() / 2], self.speeds[self.speeds.len() - 1]]
    }

    fn names(&self) -> (&'static str, &'static str) {
        match self.test {
            Test::Prompt(_) => ("prompt", "int8_peak"),
            Test::Answer(_) => ("answer", "bandwidth"),
        }
    }

    fn print(&self, out: &mut impl Write) -> std::io::Result<()> {
        let ([min, median, max], (test, limit)) = (self.min_median_max(), self.names());
        let test = format!("{test} {}", self.test.tokens());
        let limit = limit.replace('_', " ");
        writeln!(
            out,
            "{test:16} {:>8} {min:>10.2} {median:>10.2} {max:>10.2}   {:.0} % of {limit}",
            self.depth,
            100.0 * self.share
        )
    }

    fn json(&self) -> Value {
        let ([min, median, max], (test, limit)) = (self.min_median_max(), self.names());
        json!({
            "test": test, "tokens": self.test.tokens(), "depth": self.depth,
            "tokens_per_second": {"min": min, "median": median, "max": max}, "share": self.share, "limit": limit,
        })
    }
}

/// What sets the bytes of weights that an answer's token reads apart from those in memory.
pub struct WeightBytes {
    /// Of all experts, as they are read: a token reads some.
    experts: usize,
    /// What products read less than the files have, as packed weights may take less room.
    saved: usize,
}

impl WeightBytes {
    /// Of a model and what is packed of it.
    pub fn of(files: &ModelFiles, tiles: &Tiles) -> Self {
        let experts = files.checkpoint().tensors().iter().filter(|tensor| is_of_experts(&tensor.name));
        WeightBytes {
            experts: experts.map(|tensor| tensor.data.len()).sum::<usize>() - tiles.saved(files, is_of_experts),
            saved: tiles.saved(files, |_| true),
        }
    }

    /// Bytes of weights, keys and values that a token after `depth` others reads.
    pub fn per_token(&self, config: &ModelConfig, memory: &MemoryPlan, depth: usize) -> usize {
        work::decode_bytes(config, memory, self.experts, depth) - self.saved
    }
}
