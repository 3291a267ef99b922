//! One layer's keys and values: rings of rows in f32, f16 or 8-bit blocks.
//!
//! Rows lie head by head, so that a head's keys are one stream: `[n_kv_heads, capacity, dim]`. In the
//! `ValueAndRotated` form the key store holds the rotated dimensions alone and a key is put together from both
//! stores.

use std::ops::Range;

use carat_tensor::DType;
use carat_tensor::backend::{KvForm, KvSpec, KvType};
use half::f16;
use half::slice::HalfFloatSliceExt;

use crate::kernels::Kernels;
use crate::pages::{LARGE, large_pages};
use crate::scalar;

/// Largest head: a key is put together on the stack.
pub const MAX_HEAD_DIM: usize = 1024;

/// Keys and values of one layer.
pub struct Kv {
    spec: KvSpec,
    /// Stored per key: `head_dim` or `2 · pairs`.
    key_dim: usize,
    keys: Vec<u8>,
    values: Vec<u8>,
}

impl Kv {
    /// An empty cache, or the bytes that could not be had.
    pub fn new(spec: KvSpec) -> Result<Self, usize> {
        let key_dim = match spec.form {
            KvForm::Pair => spec.head_dim,
            KvForm::ValueAndRotated { pairs } => 2 * pairs,
        };
        let zeroed = |dim: usize| {
            let len = spec.dtype.bytes(dim) * spec.capacity * spec.n_kv_heads;
            Vec::<u8>::new().try_reserve_exact(len).map_err(|_| len)?;
            // Zeroed by the allocator: pages of a long context are touched when they are written, not before.
            Ok::<_, usize>(vec![0; len])
        };
        Ok(Kv { spec, key_dim, keys: zeroed(key_dim)?, values: zeroed(spec.head_dim)? })
    }

    /// Its shape.
    pub fn spec(&self) -> &KvSpec {
        &self.spec
    }

    fn at(&self, dim: usize, head: usize, position: usize) -> Range<usize> {
        let bytes = self.spec.dtype.bytes(dim);
        let slot = head * self.spec.capacity + position % self.spec.capacity;
        slot * bytes..(slot + 1) * bytes
    }

    /// Stores the key and value `[head_dim]` of one head and position.
    pub fn write(&mut self, head: usize, position: usize, key: &[f32], value: &[f32]) {
        let dtype = self.spec.dtype;
        let (k, v) = (self.at(self.key_dim, head, position), self.at(self.spec.head_dim, head, position));
        large_page_from(&self.keys, &k);
        large_page_from(&self.values, &v);
        encode(dtype, value, &mut self.values[v]);
        match self.spec.form {
            KvForm::Pair => encode(dtype, key, &mut self.keys[k]),
            KvForm::ValueAndRotated { pairs } => {
                let half = self.spec.head_dim / 2;
                // Both halves as one row: a block may span them.
                let mut rotated = [0.0; MAX_HEAD_DIM];
                let rotated = &mut rotated[..2 * pairs];
                rotated[..pairs].copy_from_slice(&key[..pairs]);
                rotated[pairs..].copy_from_slice(&key[half..half + pairs]);
                encode(dtype, rotated, &mut self.keys[k]);
            }
        }
    }

    /// Whether it holds less than f32.
    pub fn is_rounded(&self) -> bool {
        self.spec.dtype != KvType::F32
    }

    /// Whether [`Self::halves`] can give what is stored: in f16, and of as many values as kernels take at once.
    pub fn has_halves(&self) -> bool {
        self.spec.dtype == KvType::F16 && self.key_dim.is_multiple_of(16) && self.spec.head_dim.is_multiple_of(16)
    }

    /// Keys and values of some positions of a head as they are stored, where no seam of the ring is between them.
    pub fn halves(&self, head: usize, positions: Range<usize>) -> Option<(&[u8], &[u8])> {
        let first = positions.start % self.spec.capacity;
        if !self.has_halves() || positions.is_empty() || first + positions.len() > self.spec.capacity {
            return None;
        }
        let bytes = |dim: usize| self.at(dim, head, positions.start).start..self.at(dim, head, positions.end - 1).end;
        Some((&self.keys[bytes(self.key_dim)], &self.values[bytes(self.spec.head_dim)]))
    }

    /// Decodes the keys and values of some positions of a head: `[positions, head_dim]` each. On the way asks for as
    /// many of those that follow, up to position `end`.
    pub fn read(
        &self,
        k: &Kernels,
        head: usize,
        positions: Range<usize>,
        end: usize,
        keys: &mut [f32],
        values: &mut [f32],
    ) {
        let (d, n) = (self.spec.head_dim, positions.len());
        for (i, p) in positions.enumerate() {
            if p + n < end {
                (k.prefetch)(&self.keys[self.at(self.key_dim, head, p + n)]);
                (k.prefetch)(&self.values[self.at(d, head, p + n)]);
            }
            let (key, value) = (&mut keys[i * d..(i + 1) * d], &mut values[i * d..(i + 1) * d]);
            let stored = &self.keys[self.at(self.key_dim, head, p)];
            self.decode(k, &self.values[self.at(d, head, p)], value);
            match self.spec.form {
                KvForm::Pair => self.decode(k, stored, key),
                KvForm::ValueAndRotated { pairs } => {
                    let mut rotated = [0.0; MAX_HEAD_DIM];
                    let rotated = &mut rotated[..2 * pairs];
                    self.decode(k, stored, rotated);
                    key.copy_from_slice(value);
                    key[..pairs].copy_from_slice(&rotated[..pairs]);
                    key[d / 2..d / 2 + pairs].copy_from_slice(&rotated[pairs..]);
                }
            }
        }
    }

    fn decode(&self, k: &Kernels, bytes: &[u8], out: &mut [f32]) {
        let dtype = match self.spec.dtype {
            KvType::F32 => DType::F32,
            KvType::F16 => DType::F16,
            KvType::Q8_0 => DType::Q8_0,
        };
        (k.decode)(dtype, bytes, out);
    }
}

/// Where a row begins a large page, asks for it as a whole: a head's rows are one stream, which will fill it. Before as much is stored
/// pages stay small, so that short conversations take no more than they need.
fn large_page_from(stored: &[u8], row: &Range<usize>) {
    let start = stored.as_ptr() as usize;
    let page = (start + row.end - 1) / LARGE * LARGE;
    if page > start + row.start
        && page >= start + LARGE
        && let Some(page) = stored.get(page - start..page - start + LARGE)
    {
        large_pages(page);
    }
}

/// Values that become halves together.
const HALVES: usize = 128;

fn encode(dtype: KvType, x: &[f32], out: &mut [u8]) {
    match dtype {
        KvType::F32 => {
            for (out, x) in out.as_chunks_mut::<4>().0.iter_mut().zip(x) {
                *out = x.to_le_bytes();
            }
        }
        KvType::F16 => {
            // Many at once: one by one each would ask what the CPU can do.
            for (out, x) in out.chunks_mut(2 * HALVES).zip(x.chunks(HALVES)) {
                let mut halves = [f16::ZERO; HALVES];
                halves[..x.len()].convert_from_f32_slice(x);
                for (out, half) in out.as_chunks_mut::<2>().0.iter_mut().zip(halves) {
                    *out = half.to_le_bytes();
                }
            }
        }
        KvType::Q8_0 => {
            for (out, x) in out.chunks_exact_mut(34).zip(x.chunks_exact(32)) {
                let max = scalar::largest(x);
                let inverse = if max < scalar::TINY { 0.0 } else { 127.0 / max };
                out[..2].copy_from_slice(&f16::from_f32(max / 127.0).to_le_bytes());
                for (out, &x) in out[2..].iter_mut().zip(x) {
                    *out = (x * inverse).round_ties_even() as i8 as u8;
                }
            }
        }
    }
}
