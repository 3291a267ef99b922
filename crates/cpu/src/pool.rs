//! Fork-join over a fixed set of threads.
//!
//! A run has numbered tasks, of which every thread (the caller among them) has a share of its own: it claims these in order and
//! then what is left of the others' shares, so a slowed core delays a run by at most one task. Tasks are numbered by rows
//! first, so a thread mostly finds in its own caches what it made of the same rows in the run before: where cores share none,
//! that is the difference between reading a cache and asking another one across the chip. Workers spin for a bounded time
//! and then park: a machine with other work to do must not lose its cores to waiting.
//!
//! A share is an atomic word that holds `end | next`. A claim is one `fetch_add`; it is valid if `next < end`, and a valid
//! claim keeps the run open until it is counted as done, so the job pointer read after it can't dangle.
//!
//! [`Pool::tiles`] gives each task a rectangle of an output matrix that no other task has.
#![allow(unsafe_code, reason = "tasks borrow the caller's stack and write disjoint rectangles of one slice")]

use std::any::Any;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU64, AtomicUsize, Ordering::*};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;

const NEXT_BITS: u32 = 32;
/// Most tasks of a run; far below the field's size, so failed claims can't overflow it.
const MAX_TASKS: usize = 1 << 24;
/// Spins before a worker parks: some tens of microseconds, longer than the gaps between the joins of a token.
const SPINS: u32 = 3000;

/// Values below which rows are worked on by the caller alone.
const SMALL: usize = 16 << 10;

type Call = unsafe fn(*const (), usize, usize);

struct Shared {
    /// Which run is open, or was last.
    run: AtomicU64,
    /// Of each thread.
    shares: Box<[Share]>,
    /// The closure of the present run and the function that calls it.
    data: AtomicPtr<()>,
    call: AtomicPtr<()>,
    done: AtomicUsize,
    sleepers: AtomicUsize,
    stop: AtomicBool,
    panic: Mutex<Option<Box<dyn Any + Send>>>,
    lock: Mutex<()>,
    wake: Condvar,
}

/// Tasks that one thread claims first; alone in its cache lines, which come in pairs.
#[derive(Default)]
#[repr(align(128))]
struct Share(AtomicU64);

impl Share {
    fn set(&self, tasks: Range<usize>) {
        self.0.store((tasks.end as u64) << NEXT_BITS | tasks.start as u64, Release);
    }

    fn claim(&self) -> Option<usize> {
        let next = |word: u64| {
            let (next, end) = (word & ((1 << NEXT_BITS) - 1), word >> NEXT_BITS);
            (next < end).then_some(next as usize)
        };
        // Between the two the share may have become one of the next run: its task is as good.
        next(self.0.load(Acquire)).and_then(|_| next(self.0.fetch_add(1, AcqRel)))
    }
}

impl Shared {
    /// Claims and does tasks of the present run until none is left, those of the own share first.
    fn work(&self, worker: usize) {
        let (before, from) = self.shares.split_at(worker);
        for share in from.iter().chain(before) {
            while let Some(task) = share.claim() {
                self.perform(worker, task);
            }
        }
    }

    /// Does a task that was claimed.
    fn perform(&self, worker: usize, task: usize) {
        let (data, call) = (self.data.load(Acquire), self.call.load(Acquire));
        // SAFETY: only `run` stores to `call`, always a `Call`; the task was claimed, so a run is open and `data` and
        // `call` are its own.
        let result = catch_unwind(AssertUnwindSafe(|| unsafe {
            let call: Call = std::mem::transmute::<*mut (), Call>(call);
            call(data, worker, task);
        }));
        if let Err(payload) = result {
            *self.panic.lock().unwrap_or_else(PoisonError::into_inner) = Some(payload);
        }
        self.done.fetch_add(1, Release);
    }

    fn worker(&self, id: usize) {
        let mut last = 0;
        let is_new = |last| self.run.load(SeqCst) != last;
        while !self.stop.load(Acquire) {
            let mut spins = 0;
            while !is_new(last) && spins < SPINS {
                std::hint::spin_loop();
                spins += 1;
            }
            if is_new(last) {
                last = self.run.load(SeqCst);
                self.work(id);
                continue;
            }
            let mut guard = self.lock.lock().unwrap_or_else(PoisonError::into_inner);
            self.sleepers.fetch_add(1, SeqCst);
            while !is_new(last) && !self.stop.load(Acquire) {
                guard = self.wake.wait(guard).unwrap_or_else(PoisonError::into_inner);
            }
            self.sleepers.fetch_sub(1, SeqCst);
        }
    }
}

/// Worker threads.
pub struct Pool {
    shared: Arc<Shared>,
    workers: Vec<JoinHandle<()>>,
}

impl Pool {
    /// A pool in which `threads` threads work, the caller among them.
    pub fn new(threads: usize) -> std::io::Result<Self> {
        let threads = threads.max(1);
        let shared = Arc::new(Shared {
            run: AtomicU64::new(0),
            shares: std::iter::repeat_with(Share::default).take(threads).collect(),
            data: AtomicPtr::default(),
            call: AtomicPtr::default(),
            done: AtomicUsize::new(0),
            sleepers: AtomicUsize::new(0),
            stop: AtomicBool::new(false),
            panic: Mutex::new(None),
            lock: Mutex::new(()),
            wake: Condvar::new(),
        });
        let mut pool = Pool { shared: shared.clone(), workers: Vec::new() };
        for id in 1..threads {
            let shared = shared.clone();
            let worker =
                std::thread::Builder::new().name(format!("carat-cpu-{id}")).spawn(move || shared.worker(id))?;
            pool.workers.push(worker);
        }
        Ok(pool)
    }

    /// Threads that work, the caller among them.
    pub fn threads(&self) -> usize {
        self.workers.len() + 1
    }

    /// Does tasks `0..tasks`, `f(worker, task)` each, and returns when all are done. `worker < threads()`; no two
    /// tasks run at once under the same worker number.
    ///
    /// # Panics
    /// If a task panics, after the others are done.
    pub fn run<F: Fn(usize, usize) + Sync>(&mut self, tasks: usize, f: F) {
        assert!(tasks <= MAX_TASKS, "{tasks} tasks in one run");
        if tasks <= 1 || self.workers.is_empty() {
            (0..tasks).for_each(|task| f(0, task));
            return;
        }
        /// # Safety
        /// `data` points to a live `F`.
        unsafe fn call<F: Fn(usize, usize) + Sync>(data: *const (), worker: usize, task: usize) {
            // SAFETY: the caller's promise.
            unsafe { (*data.cast::<F>())(worker, task) }
        }
        let shared = &*self.shared;
        // No claim is open here, so nobody reads these until a share is stored.
        shared.data.store((&raw const f).cast_mut().cast(), Relaxed);
        shared.call.store(call::<F> as Call as *mut (), Relaxed);
        shared.done.store(0, Relaxed);
        let threads = shared.shares.len();
        for (i, share) in shared.shares.iter().enumerate() {
            share.set(tasks * i / threads..tasks * (i + 1) / threads);
        }
        shared.run.fetch_add(1, SeqCst);
        if shared.sleepers.load(SeqCst) > 0 {
            let _guard = shared.lock.lock().unwrap_or_else(PoisonError::into_inner);
            shared.wake.notify_all();
        }
        shared.work(0);
        let mut spins = 0;
        while shared.done.load(Acquire) < tasks {
            if spins < SPINS {
                std::hint::spin_loop();
                spins += 1;
            } else {
                // A worker lost its core in the middle of a task: offer it this one.
                std::thread::yield_now();
            }
        }
        let panic = shared.panic.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(payload) = panic {
            resume_unwind(payload);
        }
    }

    /// Cuts every output into tiles and calls `f(worker, output index, tile)` once for each, in parallel. Tiles of the first
    /// rows of all outputs come first.
    pub fn tiles<F: Fn(usize, usize, Tile<'_>) + Sync>(&mut self, outs: &mut [Output<'_>], f: F) {
        let outs: &[Output<'_>] = outs;
        let tasks = outs.iter().map(Output::tiles).sum();
        self.run(tasks, |worker, task| {
            let (index, tile) = find_tile(outs, task);
            f(worker, index, outs[index].tile(tile));
        });
    }

    /// Cuts two outputs into as many tiles and calls `f(worker, tile, tile)` once for each two in the same place, in parallel.
    ///
    /// # Panics
    /// If one has more tiles than the other.
    pub fn tiles_of_both<T: Send, U: Send, F: Fn(usize, Tile<'_, T>, Tile<'_, U>) + Sync>(
        &mut self,
        (a, b): (Output<'_, T>, Output<'_, U>),
        f: F,
    ) {
        assert_eq!(a.tiles(), b.tiles(), "tiles of two outputs");
        let (a, b) = (&a, &b);
        self.run(a.tiles(), |worker, index| f(worker, a.tile(index), b.tile(index)));
    }

    /// Calls `f(i, row)` for the `n` rows of `cols` values of `out`.
    pub fn for_rows(&mut self, out: &mut [f32], n: usize, cols: usize, f: impl Fn(usize, &mut [f32]) + Sync) {
        let share = if n * cols < SMALL { n } else { n.div_ceil(4 * self.threads()) };
        self.tiles(&mut [Output::new(out, n, cols, share, cols)], |_, _, mut tile| {
            for i in tile.rows() {
                f(i, tile.row(i));
            }
        });
    }

    /// Calls `f(first, values)` for pieces of `out` that make up the whole.
    pub fn for_parts(&mut self, out: &mut [f32], f: impl Fn(usize, &mut [f32]) + Sync) {
        let len = out.len();
        let share = if len < SMALL { len } else { len.div_ceil(4 * self.threads()) };
        self.tiles(&mut [Output::new(out, 1, len, 1, share)], |_, _, mut tile| f(tile.cols().start, tile.row(0)));
    }
}

/// Output and tile of a task.
fn find_tile(outs: &[Output<'_>], task: usize) -> (usize, usize) {
    // Most runs have one, and perhaps many rows of tiles.
    if outs.len() == 1 {
        return (0, task);
    }
    let mut before = 0;
    for row in 0..outs.iter().map(Output::row_tiles).max().unwrap_or(0) {
        for (index, out) in outs.iter().enumerate().filter(|(_, out)| row < out.row_tiles()) {
            let across = out.across();
            if task < before + across {
                return (index, row * across + task - before);
            }
            before += across;
        }
    }
    unreachable!("there are more tasks than tiles")
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.shared.stop.store(true, Release);
        {
            let _guard = self.shared.lock.lock().unwrap_or_else(PoisonError::into_inner);
            self.shared.wake.notify_all();
        }
        for worker in self.workers.drain(..) {
            // A worker catches its tasks' panics, so it ends in order.
            let _ = worker.join();
        }
    }
}

/// A matrix to be written in tiles.
pub struct Output<'a, T = f32> {
    data: *mut T,
    stride: usize,
    cols: usize,
    cuts: Cuts<'a>,
    tile_cols: usize,
    lifetime: std::marker::PhantomData<&'a mut [T]>,
}

/// Where rows are cut.
#[derive(Clone, Copy)]
enum Cuts<'a> {
    Every { tile_rows: usize, rows: usize },
    At(&'a [usize]),
}

// SAFETY: threads reach `data` only through tiles, which are disjoint (`Pool::tiles` and `Pool::tiles_of_both` make each once).
unsafe impl<T: Send> Sync for Output<'_, T> {}

impl<'a, T> Output<'a, T> {
    /// The first `rows · cols` values of `data`, cut into tiles of at most `tile_rows × tile_cols`.
    ///
    /// # Panics
    /// If `data` is shorter.
    pub fn new(data: &'a mut [T], rows: usize, cols: usize, tile_rows: usize, tile_cols: usize) -> Self {
        assert!(data.len() >= rows * cols, "output of {} values for {rows} rows of {cols}", data.len());
        Output::cut(data, cols, Cuts::Every { tile_rows: tile_rows.max(1), rows }, tile_cols)
    }

    /// Rows `cuts[t]..cuts[t + 1]` are tiles' rows, for every `t`.
    ///
    /// # Panics
    /// If the cuts don't rise or reach past `data`.
    pub fn with_cuts(data: &'a mut [T], cuts: &'a [usize], cols: usize, tile_cols: usize) -> Self {
        assert!(cuts.is_sorted_by(|a, b| a < b), "cuts must rise");
        let rows = cuts.last().map_or(0, |&last| last);
        assert!(data.len() >= rows * cols, "output of {} values for {rows} rows of {cols}", data.len());
        Output::cut(data, cols, Cuts::At(cuts), tile_cols)
    }

    fn cut(data: &'a mut [T], cols: usize, cuts: Cuts<'a>, tile_cols: usize) -> Self {
        let (data, tile_cols) = (data.as_mut_ptr(), tile_cols.max(1));
        Output { data, stride: cols, cols, cuts, tile_cols, lifetime: std::marker::PhantomData }
    }

    /// Some columns alone.
    ///
    /// # Panics
    /// If there are no such columns.
    pub fn columns(self, columns: Range<usize>) -> Self {
        assert!(columns.start <= columns.end && columns.end <= self.cols, "columns {columns:?} of {}", self.cols);
        Output { data: self.data.wrapping_add(columns.start), cols: columns.len(), ..self }
    }

    /// No tiles.
    pub fn empty() -> Self {
        Output::new(&mut [], 0, 0, 1, 1)
    }

    fn row_tiles(&self) -> usize {
        match self.cuts {
            Cuts::Every { tile_rows, rows } => rows.div_ceil(tile_rows),
            Cuts::At(cuts) => cuts.len().saturating_sub(1),
        }
    }

    /// Tiles beside each other.
    fn across(&self) -> usize {
        self.cols.div_ceil(self.tile_cols)
    }

    /// Number of tiles.
    pub fn tiles(&self) -> usize {
        self.row_tiles() * self.across()
    }

    /// Tile `index`, columns fastest. Private: each may be made once per run only.
    fn tile(&self, index: usize) -> Tile<'_, T> {
        let across = self.across();
        let (t, c) = (index / across, index % across * self.tile_cols);
        let rows = match self.cuts {
            Cuts::Every { tile_rows, rows } => t * tile_rows..((t + 1) * tile_rows).min(rows),
            Cuts::At(cuts) => cuts[t]..cuts[t + 1],
        };
        let cols = c..(c + self.tile_cols).min(self.cols);
        assert!(rows.start < rows.end && cols.start < cols.end);
        Tile { data: self.data, stride: self.stride, rows, cols, lifetime: std::marker::PhantomData }
    }
}

/// A rectangle of an [`Output`] that one task owns.
pub struct Tile<'a, T = f32> {
    data: *mut T,
    stride: usize,
    rows: Range<usize>,
    cols: Range<usize>,
    lifetime: std::marker::PhantomData<&'a mut [T]>,
}

impl<'a, T> Tile<'a, T> {
    /// All of some rows of `len` values that follow one another.
    pub fn of(values: &'a mut [T], len: usize) -> Self {
        let rows = 0..values.len() / len.max(1);
        Tile { data: values.as_mut_ptr(), stride: len, rows, cols: 0..len, lifetime: std::marker::PhantomData }
    }

    /// Rows of the output.
    pub fn rows(&self) -> Range<usize> {
        self.rows.clone()
    }

    /// Columns of the output.
    pub fn cols(&self) -> Range<usize> {
        self.cols.clone()
    }

    /// Some of the tile's rows, numbered from 0 on.
    ///
    /// # Panics
    /// If the tile hasn't all of them.
    pub fn part(&mut self, rows: Range<usize>) -> Tile<'_, T> {
        let here = self.rows.start <= rows.start && rows.end <= self.rows.end;
        assert!(here, "rows {rows:?} of a tile of rows {:?}", self.rows);
        let data = self.data.wrapping_add(rows.start * self.stride);
        Tile { data, rows: 0..rows.len(), cols: self.cols.clone(), ..*self }
    }

    /// Some of the tile's columns.
    ///
    /// # Panics
    /// If the tile hasn't all of them.
    pub fn columns(&mut self, cols: Range<usize>) -> Tile<'_, T> {
        let here = self.cols.start <= cols.start && cols.end <= self.cols.end;
        assert!(here, "columns {cols:?} of a tile of columns {:?}", self.cols);
        Tile { rows: self.rows.clone(), cols, ..*self }
    }

    /// Where the tile's first row begins, and values from row to row.
    pub fn address(&mut self) -> (*mut T, usize) {
        (self.data.wrapping_add(self.rows.start * self.stride + self.cols.start), self.stride)
    }

    /// The tile's part of row `i` of the output.
    ///
    /// # Panics
    /// If the row is not in the tile.
    pub fn row(&mut self, i: usize) -> &mut [T] {
        assert!(self.rows.contains(&i), "row {i} of a tile of rows {:?}", self.rows);
        // SAFETY: the rectangle lies within the output's slice (checked in `Output::new` and `tile`) or is all of one, no
        // other tile overlaps it but one that it is a part of, which is borrowed as long, and `&mut self` makes this the only
        // reference into it.
        unsafe { std::slice::from_raw_parts_mut(self.data.add(i * self.stride + self.cols.start), self.cols.len()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_task_runs_once_over_many_runs() {
        for threads in [1, 2, 5] {
            let mut pool = Pool::new(threads).unwrap();
            for tasks in (0..300).chain([1000]) {
                let counts: Vec<AtomicUsize> = (0..tasks).map(|_| AtomicUsize::new(0)).collect();
                pool.run(tasks, |_, task| {
                    counts[task].fetch_add(1, Relaxed);
                });
                assert!(counts.iter().all(|c| c.load(Relaxed) == 1));
            }
        }
    }

    #[test]
    fn a_part_of_a_tile_is_its_rows_from_nought_on() {
        let mut values = [0.0; 12];
        let mut all = Tile::of(&mut values, 3);
        let mut part = all.part(1..3);
        assert_eq!((part.rows(), part.cols()), (0..2, 0..3));
        part.row(1).fill(1.0);
        part.part(0..1).row(0)[2] = 2.0;
        all.row(3)[0] = 3.0;
        assert_eq!(values, [0.0, 0.0, 0.0, 0.0, 0.0, 2.0, 1.0, 1.0, 1.0, 3.0, 0.0, 0.0]);
        let beyond = catch_unwind(AssertUnwindSafe(|| Tile::of(&mut values, 3).part(3..5).rows.len()));
        assert!(beyond.is_err());
    }

    #[test]
    fn parked_workers_wake_for_the_next_run() {
        let mut pool = Pool::new(3).unwrap();
        for _ in 0..5 {
            std::thread::sleep(std::time::Duration::from_millis(5));
            let sum = AtomicUsize::new(0);
            pool.run(100, |_, task| {
                sum.fetch_add(task, Relaxed);
            });
            assert_eq!(sum.load(Relaxed), 4950);
        }
    }

    #[test]
    fn a_panicking_task_reaches_the_caller_and_the_pool_lives_on() {
        let mut pool = Pool::new(2).unwrap();
        let result = catch_unwind(AssertUnwindSafe(|| pool.run(50, |_, task| assert_ne!(task, 31))));
        assert!(result.is_err());
        let sum = AtomicUsize::new(0);
        pool.run(10, |_, _| {
            sum.fetch_add(1, Relaxed);
        });
        assert_eq!(sum.load(Relaxed), 10);
    }

    #[test]
    fn tiles_cover_every_output_exactly_once() {
        let mut pool = Pool::new(4).unwrap();
        let (mut a, mut b) = (vec![0.0; 7 * 33], vec![0.0; 40]);
        let mut outs = [Output::new(&mut a, 7, 33, 2, 8), Output::new(&mut b, 1, 40, 1, 7)];
        pool.tiles(&mut outs, |_, index, mut tile| {
            for i in tile.rows() {
                tile.row(i).iter_mut().for_each(|v| *v += 1.0 + index as f32);
            }
        });
        assert!(a.iter().all(|&v| v == 1.0) && b.iter().all(|&v| v == 2.0));
    }
}
