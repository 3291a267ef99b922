//! What follows from where patches are: which of them become one soft token, and by how much heads turn.
//!
//! Source: transformers `modeling_gemma4.Gemma4VisionPooler`, `Gemma4VisionRotaryEmbedding`.

use crate::ModelError;
use crate::config::{PATCHES_PER_TOKEN, POOL_SIDE, RopeConfig};

/// Indices of the patches of each soft token, nine after nine, soft tokens row by row.
///
/// # Errors
/// Unless every soft token has its nine patches and every place is below `n_positions`.
pub(super) fn cells(positions: &[[i32; 2]], n_positions: usize) -> Result<Vec<usize>, ModelError> {
    let wrong = |found: String, expected: &str| ModelError::Patches { found, expected: expected.into() };
    let n = positions.len();
    if n == 0 || !n.is_multiple_of(PATCHES_PER_TOKEN) {
        return Err(wrong(format!("{n} patches"), "whole blocks of 3×3, at least one"));
    }
    let within = 0..n_positions as i64;
    if let Some([x, y]) = positions.iter().find(|p| p.iter().any(|&c| !within.contains(&i64::from(c)))) {
        return Err(wrong(format!("a patch at column {x}, row {y}"), &format!("both from 0 to {}", n_positions - 1)));
    }
    let width = positions.iter().map(|p| p[0]).max().unwrap_or(0) as usize + 1;
    let (columns, n_cells) = (width / POOL_SIDE, n / PATCHES_PER_TOKEN);
    let (mut cells, mut filled) = (vec![0; n], vec![0; n_cells]);
    for (patch, [x, y]) in positions.iter().enumerate() {
        let cell = *x as usize / POOL_SIDE + columns * (*y as usize / POOL_SIDE);
        match filled.get_mut(cell) {
            Some(count) if *count < PATCHES_PER_TOKEN && width.is_multiple_of(POOL_SIDE) => {
                cells[cell * PATCHES_PER_TOKEN + *count] = patch;
                *count += 1;
            }
            _ => {
                let found = format!("a patch at column {x}, row {y} among {n} that are up to {width} side by side");
                return Err(wrong(found, "a full rectangle whose sides are multiples of 3"));
            }
        }
    }
    Ok(cells)
}

/// `[n, 2, 2, head_dim / 4]`: of each patch the cosines and sines by its column, then by its row. Angles are in f32, as the
/// reference has them.
pub(super) fn rope_table(positions: &[[i32; 2]], head_dim: usize, theta: f32) -> Vec<f32> {
    let frequencies = RopeConfig::new(theta).inv_freq(head_dim / 2);
    let mut table = Vec::with_capacity(positions.len() * head_dim);
    for coordinate in positions.iter().flatten() {
        let angles = || frequencies.iter().map(|f| *coordinate as f32 * f);
        table.extend(angles().map(f32::cos));
        table.extend(angles().map(f32::sin));
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rectangle(columns: i32, rows: i32) -> Vec<[i32; 2]> {
        (0..rows).flat_map(|y| (0..columns).map(move |x| [x, y])).collect()
    }

    #[test]
    fn soft_tokens_go_row_by_row() {
        let cells = cells(&rectangle(6, 6), 64).unwrap();
        assert_eq!(cells[..9], [0, 1, 2, 6, 7, 8, 12, 13, 14]);
        assert_eq!(cells[9..12], [3, 4, 5]);
        assert_eq!(cells[18..21], [18, 19, 20]);
    }

    #[track_caller]
    fn refuses(positions: &[[i32; 2]], words: &[&str]) {
        let error = cells(positions, 64).unwrap_err().to_string();
        assert!(words.iter().all(|word| error.contains(word)), "{error}");
    }

    #[test]
    fn what_is_no_rectangle_is_refused() {
        refuses(&[], &["0 patches"]);
        refuses(&rectangle(3, 2), &["6 patches"]);
        refuses(&rectangle(9, 1), &["9 that are up to 9 side by side"]);
        refuses(&[[0, 0]; 18], &["column 0, row 0", "multiples of 3"]);
        refuses(&[[-1, -1]; 9], &["column -1, row -1", "0 to 63"]);
        let mut far = rectangle(3, 3);
        far[8] = [2, 64];
        refuses(&far, &["row 64"]);
    }
}
