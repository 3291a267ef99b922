//! Loops that do nothing but reach a limit: reading memory, `vpdpbusd` on registers.

use std::arch::x86_64::*;

use crate::x86::again;

/// How far ahead is asked for, in bytes: some hundreds of nanoseconds of one core's bandwidth.
const AHEAD: usize = 8 << 10;

/// Reads all but what is left after whole rounds, front to back; what it returns means nothing. It reads asking ahead, without which a core of a Zen 5 reads a tenth less, or each line [`again`], without
/// which a core of a Zen 4 does.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi,avx512vnni")]
pub fn read_all(x: &[u64], ahead: bool) -> u64 {
    let mut acc = [_mm512_setzero_si512(); 4];
    for x in x.as_chunks::<32>().0 {
        let lines = x.as_chunks::<8>().0;
        for line in lines.iter().filter(|_| ahead) {
            // Past the end nothing is read.
            _mm_prefetch::<_MM_HINT_T0>(line.as_ptr().wrapping_byte_add(AHEAD).cast());
        }
        for (line, acc) in lines.iter().zip(&mut acc) {
            // SAFETY: the line's eight values.
            *acc = _mm512_xor_si512(*acc, unsafe { _mm512_loadu_si512(line.as_ptr().cast()) });
        }
        lines.iter().filter(|_| !ahead).for_each(|[.., last]| again(last));
    }
    _mm512_reduce_add_epi64(_mm512_xor_si512(_mm512_xor_si512(acc[0], acc[1]), _mm512_xor_si512(acc[2], acc[3]))) as u64
}

/// Independent sums of one round, more than the instruction's latency needs.
pub const SUMS: usize = 12;

/// `rounds` times one `vpdpbusd` on each sum.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi,avx512vnni")]
pub fn dot_rounds(rounds: usize) -> i32 {
    let (a, b) = (std::hint::black_box(_mm512_set1_epi8(3)), std::hint::black_box(_mm512_set1_epi8(1)));
    let mut acc = [std::hint::black_box(_mm512_setzero_si512()); SUMS];
    for _ in 0..rounds {
        for acc in &mut acc {
            *acc = _mm512_dpbusd_epi32(*acc, a, b);
        }
    }
    acc.into_iter().map(|acc| _mm512_reduce_add_epi32(acc)).fold(0, i32::wrapping_add)
}
