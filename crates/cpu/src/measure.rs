//! What this machine can do at most: the limits that speeds are reported against.
//!
//! Bandwidth is one sequential stream per thread over more than the last-level cache, in large pages, read in the faster of two ways;
//! the integer peak is the best dot instruction on registers alone.

use std::time::{Duration, Instant};

use crate::kernels;
use crate::pages::large_pages;

/// Per thread; more than any last-level cache's share.
const STREAM_BYTES: usize = 192 << 20;
/// Reads of it per pass: some tens of milliseconds.
const READS: usize = 8;
/// The best of so many passes counts: a limit is what was reached.
const PASSES: usize = 3;

/// Bytes per second read by `threads` threads, each from memory of its own.
pub fn read_bandwidth(threads: usize) -> f64 {
    let buffers: Vec<Vec<u64>> = (0..threads).map(stream).collect();
    let k = kernels::best();
    let seconds = [false, true].map(|ahead| {
        best(threads, |t| {
            for _ in 0..READS {
                std::hint::black_box((k.read_all)(std::hint::black_box(&buffers[t]), ahead));
            }
        })
    });
    (threads * READS * STREAM_BYTES) as f64 / seconds[0].min(seconds[1])
}

/// What a thread reads, in large pages: the limit is the memory's.
fn stream(thread: usize) -> Vec<u64> {
    let mut values = Vec::with_capacity(STREAM_BYTES / 8);
    // Before the first touch, which is what takes pages.
    large_pages(values.spare_capacity_mut());
    values.resize(STREAM_BYTES / 8, thread as u64 + 1);
    values
}

/// 8-bit operations per second (two per multiply-add) of `threads` threads.
pub fn int8_peak(threads: usize) -> f64 {
    const ROUNDS: usize = 24_000_000;
    let (rounds, per_round) = kernels::best().dot_rounds;
    let seconds = best(threads, |_| {
        std::hint::black_box(rounds(ROUNDS));
    });
    (threads * ROUNDS * per_round) as f64 / seconds
}

/// Measures the calling thread's time on a CPU, so that other work on the machine does not spoil a figure; wall time
/// where the system does not tell.
pub struct Stopwatch {
    wall: Instant,
    on_cpu: Option<Duration>,
}

impl Stopwatch {
    /// Starts now.
    pub fn start() -> Self {
        Stopwatch { wall: Instant::now(), on_cpu: on_cpu() }
    }

    /// Time since the start.
    pub fn elapsed(&self) -> Duration {
        match (self.on_cpu, on_cpu()) {
            (Some(start), Some(end)) if end > start => end - start,
            _ => self.wall.elapsed(),
        }
    }
}

/// What this thread has run so far.
fn on_cpu() -> Option<Duration> {
    #[cfg(target_os = "linux")]
    {
        use rustix::time::{ClockId, clock_gettime};
        clock_gettime(ClockId::ThreadCPUTime).try_into().ok()
    }
    #[cfg(not(target_os = "linux"))]
    None
}

/// Seconds of the fastest pass of `f(thread)` on all threads at once.
fn best(threads: usize, f: impl Fn(usize) + Sync) -> f64 {
    let mut best = f64::INFINITY;
    for _ in 0..PASSES {
        let barrier = std::sync::Barrier::new(threads + 1);
        let seconds = std::thread::scope(|scope| {
            let workers: Vec<_> = (0..threads)
                .map(|t| {
                    let (f, barrier) = (&f, &barrier);
                    scope.spawn(move || {
                        barrier.wait();
                        let watch = Stopwatch::start();
                        f(t);
                        watch.elapsed().as_secs_f64()
                    })
                })
                .collect();
            barrier.wait();
            // A worker only panics with `f`, which does not.
            workers.into_iter().map(|w| w.join().unwrap_or(f64::INFINITY)).fold(0.0, f64::max)
        });
        best = best.min(seconds);
    }
    best
}
