//! The hash behind the tokenizer's open-addressing tables: a multiply-and-fold over eight bytes at a time.
//!
//! The tables hold one fixed vocabulary and the caches are direct-mapped, so a chosen collision costs a probe
//! and never correctness; that is why a keyed hash isn't needed here.

const MULTIPLIER: u64 = 0x9e37_79b9_7f4a_7c15;
const SEED: u64 = 0x2545_f491_4f6c_dd1d;

/// Mixes 64 bits so that every output bit depends on every input bit (the 128-bit product, folded).
#[inline]
pub(super) fn mix(x: u64) -> u64 {
    let product = u128::from(x ^ SEED) * u128::from(MULTIPLIER);
    (product as u64) ^ ((product >> 64) as u64)
}

/// Hash of a byte string.
#[inline]
pub(super) fn hash_bytes(bytes: &[u8]) -> u64 {
    let mut state = bytes.len() as u64;
    let (words, tail) = bytes.as_chunks::<8>();
    for word in words {
        state = mix(state ^ u64::from_le_bytes(*word)).rotate_left(5);
    }
    // What is left, read as at most two overlapping parts instead of byte by byte.
    let last = match *tail {
        [] => 0,
        [a] => u64::from(a),
        [a, .., b] if tail.len() < 4 => u64::from(a) | u64::from(tail[tail.len() / 2]) << 8 | u64::from(b) << 16,
        _ => {
            let half = |part: &[u8]| part.first_chunk().map_or(0, |word| u64::from(u32::from_le_bytes(*word)));
            half(tail) | half(&tail[tail.len() - 4..]) << 32
        }
    };
    mix(mix(state ^ last))
}
