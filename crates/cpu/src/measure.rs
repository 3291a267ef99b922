//! What this machine can do at most: the limits that speeds are reported against.
//!
//! Bandwidth is one sequential stream per thread over more than the last-level cache, in large pages, read in the faster of two ways;
//! the integer peak is the best dot instruction on registers alone.

use std::time::{Duration, Instant};

use carat_tensor::backend::BackendError;

use crate::kernels;
use crate::pages::large_pages;

/// Per thread; more than any last-level cache's share.
const STREAM_BYTES: usize = 192 << 20;
/// The same where memory is short; more than most caches' share.
const LEAST_STREAM_BYTES: usize = 16 << 20;
/// Reads of it per pass: some tens of milliseconds.
const READS: usize = 8;
/// The best of so many passes counts: a limit is what was reached.
const PASSES: usize = 3;

/// Bytes per second read by `threads` threads, each from memory of its own: all together of a quarter of the free `memory`,
/// if that is enough.
///
/// # Errors
/// If that memory could not be had.
pub fn read_bandwidth(threads: usize, memory: Option<u64>) -> Result<f64, BackendError> {
    let threads = at_once(threads);
    let bytes = stream_bytes(threads, memory);
    let buffers = (0..threads).map(|thread| stream(thread, bytes)).collect::<Result<Vec<_>, _>>()?;
    let k = kernels::best();
    let seconds = [false, true].map(|ahead| {
        best(threads, |t| {
            for _ in 0..READS {
                std::hint::black_box((k.read_all)(std::hint::black_box(&buffers[t]), ahead));
            }
        })
    });
    Ok((threads * READS * bytes) as f64 / seconds[0].min(seconds[1]))
}

/// How many of these threads can run at once. Each is timed while it runs: more would seem to add what they take turns at.
fn at_once(threads: usize) -> usize {
    threads.min(std::thread::available_parallelism().map_or(threads, usize::from)).max(1)
}

/// What each of these threads reads.
fn stream_bytes(threads: usize, memory: Option<u64>) -> usize {
    let share = memory.map_or(u64::MAX, |memory| memory / 4 / threads as u64);
    usize::try_from(share).unwrap_or(usize::MAX).clamp(LEAST_STREAM_BYTES, STREAM_BYTES) / 8 * 8
}

/// What a thread reads, in large pages: the limit is the memory's.
fn stream(thread: usize, bytes: usize) -> Result<Vec<u64>, BackendError> {
    let mut values = Vec::new();
    values.try_reserve_exact(bytes / 8).map_err(|_| BackendError::OutOfMemory {
        what: "a measurement of bandwidth".to_owned(),
        bytes,
        backend: "cpu".to_owned(),
    })?;
    // Before the first touch, which is what takes pages.
    large_pages(values.spare_capacity_mut());
    values.resize(bytes / 8, thread as u64 + 1);
    Ok(values)
}

/// 8-bit operations per second (two per multiply-add) of `threads` threads.
pub fn int8_peak(threads: usize) -> f64 {
    const ROUNDS: usize = 24_000_000;
    let threads = at_once(threads);
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_take_a_quarter_of_free_memory_or_the_least_there_is() {
        assert_eq!(stream_bytes(2, None), STREAM_BYTES);
        assert_eq!(stream_bytes(2, Some(64 << 30)), STREAM_BYTES);
        assert_eq!(stream_bytes(64, Some(16 << 30)), 64 << 20);
        assert_eq!(stream_bytes(64, Some(1 << 30)), LEAST_STREAM_BYTES);
    }

    #[test]
    fn no_more_threads_are_measured_than_run_at_once() {
        let processors = std::thread::available_parallelism().unwrap().get();
        assert_eq!(at_once(processors + 1), processors);
        assert_eq!(at_once(1), 1);
    }
}
