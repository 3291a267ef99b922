//! Whether a JPEG is all there: its decoder fills up what is missing with grey.
//!
//! Source: ITU-T T.81, annex B: segments have lengths, a scan ends at the next marker that is none of its own, and the
//! picture ends with EOI.

const EOI: u8 = 0xd9;
const SOS: u8 = 0xda;

/// What is missing, if anything.
pub(super) fn missing(bytes: &[u8]) -> Option<&'static str> {
    let mut at = 2;
    loop {
        let Some(marker) = next_marker(bytes, &mut at) else { return Some("it ends before its end marker") };
        match marker {
            EOI => return None,
            // Stand alone: TEM, restarts, another start.
            0x01 | 0xd0..=0xd8 => {}
            _ => {
                let Some(&[high, low]) = bytes.get(at..at + 2) else { return Some("it ends within a segment") };
                at += usize::from(u16::from_be_bytes([high, low]));
                if marker == SOS {
                    skip_scan(bytes, &mut at);
                }
            }
        }
    }
}

/// The next marker and the place after it; whatever lies before it is skipped, as decoders do.
fn next_marker(bytes: &[u8], at: &mut usize) -> Option<u8> {
    loop {
        let pair = bytes.get(*at..*at + 2)?;
        *at += 1;
        if pair[0] == 0xff && !matches!(pair[1], 0x00 | 0xff) {
            *at += 1;
            return Some(pair[1]);
        }
    }
}

/// Moves on to the marker that ends the coded data at `at`.
fn skip_scan(bytes: &[u8], at: &mut usize) {
    while let Some(pair) = bytes.get(*at..*at + 2) {
        if pair[0] == 0xff && !matches!(pair[1], 0x00 | 0xff | 0xd0..=0xd7) {
            return;
        }
        *at += 1;
    }
}
