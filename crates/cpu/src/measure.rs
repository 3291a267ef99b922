//! What this machine can do at most: the limits that speeds are reported against.
//!
//! Bandwidth is one sequential stream per thread over more than the last-level cache; the integer peak is the best
//! dot instruction on registers alone.

use std::time::Instant;

use crate::kernels;

/// Per thread; more than any last-level cache's share.
const STREAM_BYTES: usize = 192 << 20;
/// The best of so many passes counts: a limit is what was reached.
const PASSES: usize = 5;

/// Bytes per second read by `threads` threads, each from memory of its own.
pub fn read_bandwidth(threads: usize) -> f64 {
    let buffers: Vec<Vec<u64>> = (0..threads).map(|t| vec![t as u64 + 1; STREAM_BYTES / 8]).collect();
    let k = kernels::best();
    let seconds = best(threads, |t| {
        std::hint::black_box((k.read_all)(&buffers[t]));
    });
    (threads * STREAM_BYTES) as f64 / seconds
}

/// 8-bit operations per second (two per multiply-add) of `threads` threads.
pub fn int8_peak(threads: usize) -> f64 {
    const ROUNDS: usize = 4_000_000;
    let (rounds, per_round) = kernels::best().dot_rounds;
    let seconds = best(threads, |_| {
        std::hint::black_box(rounds(ROUNDS));
    });
    (threads * ROUNDS * per_round) as f64 / seconds
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
                        let start = Instant::now();
                        f(t);
                        start.elapsed().as_secs_f64()
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
