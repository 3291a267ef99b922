//! Pictures against what the reference sees and makes of them (`fixtures/media/make_pictures.py`,
//! `make_avif.py`).

mod drawing;

use std::fs;
use std::path::{Path, PathBuf};

use carat_media::picture::{Budget, Patches, Patching, decode, patches};
use drawing::pattern;
use serde_json::Value;
use sha2::{Digest, Sha256};

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/media")
}

fn sha(bytes: impl Iterator<Item = u8>) -> String {
    let digest = Sha256::digest(bytes.collect::<Vec<_>>());
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn check_patches(case: &Value, got: &Patches, values: &str, positions: &str) {
    assert_eq!(got.soft_tokens as u64, case["soft_tokens"], "{case}");
    assert_eq!(sha(got.positions.iter().flatten().flat_map(|p| p.to_le_bytes())), case[positions], "{case}");
    assert_eq!(sha(got.values.iter().flat_map(|v| v.to_le_bytes())), case[values], "{case}");
}

#[test]
fn patches_are_the_reference_s_bit_for_bit() {
    let cases: Vec<Value> = serde_json::from_slice(&fs::read(fixtures().join("patches.json")).unwrap()).unwrap();
    for case in cases {
        let number = |name: &str| case[name].as_u64().unwrap() as usize;
        let picture = pattern(number("width"), number("height"));
        let budget = Budget::new(number("budget") as u32).unwrap();
        let grid = budget.fit(picture.width, picture.height);
        assert_eq!([grid.columns * 3, grid.rows * 3], [number("columns"), number("rows")], "{case}");
        let tower = patches(&picture, budget, Patching::Tower);
        check_samples(&case, &tower, number("columns"));
        check_patches(&case, &tower.padded(budget), "values", "positions");
        let blocks = patches(&picture, budget, Patching::Blocks).padded(budget);
        check_patches(&case, &blocks, "blocks", "block_positions");
    }
}

/// A few pixels, to say by how much they differ where the hash only says that they do.
fn check_samples(case: &Value, tower: &Patches, columns: usize) {
    let width = columns * 16;
    let pixel = |at: usize| {
        let (x, y, c) = (at / 3 % width, at / 3 / width, at % 3);
        let patch = y / 16 * columns + x / 16;
        (tower.values[patch * 768 + (y % 16 * 16 + x % 16) * 3 + c] * 255.0).round() as i64
    };
    let step = (tower.values.len() / 60) | 1;
    let got: Vec<i64> = (0..tower.values.len()).step_by(step).map(pixel).collect();
    let expected: Vec<i64> =
        case["samples"].as_array().expect("a list").iter().map(|v| v.as_i64().expect("a byte")).collect();
    assert_eq!(got, expected, "{case}");
}

/// By how much a decoder may differ from libjpeg: luma and chroma by one step each, since ITU-T T.83 lets inverse
/// transforms round either way. Blue is luma and 1.772 times chroma. libavif's equations are in f32, ours in f64, and what it
/// takes back of a multiplication was rounded before.
fn bound(name: &str) -> u8 {
    match name {
        "jpeg_grey.jpg" | "jpeg_cmyk.jpg" => 1,
        name if name.contains("jpeg") => 3,
        "avif_matrix_4_full.avif" | "avif_matrix_8_full.avif" | "avif_premultiplied.avif" => 1,
        _ => 0,
    }
}

#[test]
fn files_show_what_the_reference_sees() {
    let seen = fs::read_dir(fixtures().join("pictures")).unwrap().map(|entry| entry.unwrap().path());
    let mut checked = 0;
    for seen_path in seen.filter(|path| path.extension().unwrap() == "rgb") {
        let path = sibling(&seen_path);
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        let seen = fs::read(&seen_path).unwrap();
        let side = |at: usize| u32::from_le_bytes(seen[at..at + 4].try_into().unwrap()) as usize;
        let picture = decode(&fs::read(&path).unwrap()).unwrap_or_else(|e| panic!("{name}: {e}"));
        assert_eq!((picture.width, picture.height), (side(0), side(4)), "{name}");
        let most = picture.rgb.iter().zip(&seen[8..]).map(|(a, b)| a.abs_diff(*b)).max().unwrap();
        if std::env::var_os("SHOW").is_some() {
            println!("{name}: {most}");
            checked += 1;
            continue;
        }
        assert!(most <= bound(&name), "{name}: {most} steps");
        checked += 1;
    }
    assert_eq!(checked, 103);
}

/// The file whose pixels are in `path`.
fn sibling(path: &Path) -> PathBuf {
    let extensions =
        ["jpg", "png", "gif", "webp", "avif", "bmp", "tiff"].map(|extension| path.with_extension(extension));
    extensions.into_iter().find(|path| path.is_file()).unwrap_or_else(|| panic!("{} has no file", path.display()))
}
