//! What recipes and tests play alike.

/// The wave of `wave` in `fixtures/media/make_waves.py`.
pub fn wave(kind: &str, n: usize) -> Vec<f32> {
    let noise = |i: i64| {
        let mixed = (i * 2_654_435_761) & 0xffff_ffff;
        ((((mixed ^ (mixed >> 15)) as u64).wrapping_mul(2_246_822_519) as u32) >> 16) as i64 - 32_768
    };
    let sweep = |i: i64| ((i * (i % 65_536) / 64) % 4096 - 2048).abs() * 16 - 16_384;
    let value = |i: i64| match kind {
        "silence" => 0,
        "sine" => (32_767.0 * (i as f64 * 0.448).sin()).round_ties_even() as i64,
        "noise" => noise(i),
        "sweep" => sweep(i),
        "square" => [32_767, -32_767][(i / 20 % 2) as usize],
        _ => (noise(i).div_euclid(8) * (i / 4000 % 3)).div_euclid(2) + (sweep(i) * (i / 2500 % 4)).div_euclid(4),
    };
    (0..n as i64).map(|i| value(i) as f32 / 32_768.0).collect()
}
