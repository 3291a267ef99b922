//! The files of `fixtures/media`, whole, cut short and damaged, against the laws.
//!
//! `CARAT_DAMAGE=N` adds N rounds of heavier damage to each.

mod laws;

use std::fs;
use std::path::Path;

fn check(folder: &str, law: fn(&[u8])) {
    let rounds = std::env::var("CARAT_DAMAGE").map_or(10, |rounds| rounds.parse().expect("a number of rounds"));
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/media").join(folder);
    for entry in fs::read_dir(dir).expect("the fixtures") {
        let path = entry.expect("a file").path();
        // Printed where the test fails.
        println!("{}", path.display());
        let whole = fs::read(&path).expect("a file");
        law(&whole);
        let step = (whole.len() / 40).max(1);
        for at in (0..whole.len()).step_by(step) {
            law(&whole[..at]);
            let mut damaged = whole.clone();
            damaged[at] ^= 1 << (at % 8);
            law(&damaged);
            damaged[at] = 0xff;
            law(&damaged);
        }
        let mut dice = Dice(whole.len() as u64);
        for _ in 0..rounds {
            law(&dice.damage(&whole));
        }
    }
}

/// A linear congruential generator (Knuth's MMIX).
struct Dice(u64);

impl Dice {
    fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % n
    }

    /// A few bytes changed, most of them near the start, where the sizes are; now and then a piece doubled or lost.
    fn damage(&mut self, whole: &[u8]) -> Vec<u8> {
        let mut bytes = whole.to_vec();
        for _ in 0..1 + self.below(6) {
            let reach = if self.below(3) > 0 { bytes.len().min(120) } else { bytes.len() };
            let at = self.below(reach);
            bytes[at] = [0, 1, 0x7f, 0x80, 0xff, self.below(256) as u8][self.below(6)];
        }
        let (at, len) = (self.below(bytes.len()), self.below(64));
        let piece = at..(at + len).min(bytes.len());
        match self.below(4) {
            0 => drop(bytes.drain(piece)),
            1 => {
                let copy = bytes[piece].to_vec();
                bytes.splice(at..at, copy);
            }
            _ => {}
        }
        bytes
    }
}

#[test]
fn damaged_pictures_keep_the_laws() {
    check("pictures", laws::picture);
}

#[test]
fn damaged_sounds_keep_the_laws() {
    check("sounds", laws::sound);
}
