//! What the sequence parameter set of an H.264 stream says of size and colours (ITU-T H.264, 7.3.2.1.1 and E.1.1).

use super::colour::Colour;

/// The profiles whose sets say how colours are sampled.
const HIGH: &[u32] = &[100, 110, 122, 244, 44, 83, 86, 118, 128, 138, 139, 134, 135];

/// Of a sequence parameter set.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Sps {
    /// Pixels of a coded picture: a multiple of 256.
    pub pixels: u64,
    /// How colours are to be read, if it says.
    pub colour: Option<Colour>,
}

impl Sps {
    /// Of a NAL unit; `None` where it ends too early or makes no sense.
    pub fn read(nal: &[u8]) -> Option<Sps> {
        let mut bits = Bits::new(nal.get(1..)?);
        let profile = bits.bits(8)?;
        bits.bits(16)?;
        bits.ue()?;
        if HIGH.contains(&profile) {
            let chroma = bits.ue()?;
            if chroma == 3 {
                bits.bits(1)?;
            }
            bits.ue()?;
            bits.ue()?;
            bits.bits(1)?;
            if bits.flag()? {
                for list in 0..if chroma == 3 { 12 } else { 8 } {
                    if bits.flag()? {
                        skip_scaling_list(&mut bits, if list < 6 { 16 } else { 64 })?;
                    }
                }
            }
        }
        bits.ue()?;
        match bits.ue()? {
            0 => _ = bits.ue()?,
            1 => {
                bits.bits(1)?;
                bits.ue()?;
                bits.ue()?;
                let n = bits.ue()?;
                for _ in 0..n.min(256) {
                    bits.ue()?;
                }
            }
            _ => {}
        }
        bits.ue()?;
        bits.bits(1)?;
        let columns = u64::from(bits.ue()?) + 1;
        let rows = u64::from(bits.ue()?) + 1;
        let frames_only = bits.flag()?;
        if !frames_only {
            bits.bits(1)?;
        }
        bits.bits(1)?;
        if bits.flag()? {
            for _ in 0..4 {
                bits.ue()?;
            }
        }
        let pixels = columns.saturating_mul(rows).saturating_mul(if frames_only { 256 } else { 512 });
        let colour = if bits.flag()? { colour(&mut bits) } else { None };
        Some(Sps { pixels, colour })
    }
}

fn skip_scaling_list(bits: &mut Bits<'_>, n: usize) -> Option<()> {
    let (mut last, mut next) = (8i64, 8i64);
    for _ in 0..n {
        if next != 0 {
            let code = i64::from(bits.ue()?);
            let delta = if code % 2 == 0 { -(code / 2) } else { (code + 1) / 2 };
            next = (last + delta + 256).rem_euclid(256);
        }
        if next != 0 {
            last = next;
        }
    }
    Some(())
}

/// Of the usability information.
fn colour(bits: &mut Bits<'_>) -> Option<Colour> {
    // The shape of pixels; 255 says it with two numbers.
    if bits.flag()? && bits.bits(8)? == 255 {
        bits.bits(32)?;
    }
    if bits.flag()? {
        bits.bits(1)?;
    }
    if !bits.flag()? {
        return None;
    }
    bits.bits(3)?;
    let full_range = bits.flag()?;
    let described = bits.flag()?;
    let matrix = if described {
        bits.bits(16)?;
        bits.bits(8)? as u16
    } else {
        Colour::UNSPECIFIED.matrix
    };
    Some(Colour { matrix, full_range })
}

/// The bits of a NAL unit, without the bytes that keep it from looking like a start code.
struct Bits<'a> {
    bytes: &'a [u8],
    /// Zero bytes in a row before `bytes`.
    zeros: usize,
    byte: u8,
    left: u32,
}

impl<'a> Bits<'a> {
    fn new(bytes: &'a [u8]) -> Self {
        Bits { bytes, zeros: 0, byte: 0, left: 0 }
    }

    fn bit(&mut self) -> Option<u32> {
        if self.left == 0 {
            if self.zeros >= 2 && self.bytes.first() == Some(&3) {
                self.bytes = &self.bytes[1..];
                self.zeros = 0;
            }
            (self.byte, self.bytes) = self.bytes.split_first().map(|(byte, rest)| (*byte, rest))?;
            self.zeros = if self.byte == 0 { self.zeros + 1 } else { 0 };
            self.left = 8;
        }
        self.left -= 1;
        Some(u32::from(self.byte >> self.left & 1))
    }

    fn bits(&mut self, n: u32) -> Option<u32> {
        (0..n).try_fold(0, |value, _| Some(value << 1 | self.bit()?))
    }

    fn flag(&mut self) -> Option<bool> {
        Some(self.bit()? == 1)
    }

    /// An Exp-Golomb code (9.1).
    fn ue(&mut self) -> Option<u32> {
        let mut zeros = 0;
        while self.bit()? == 0 {
            zeros += 1;
            if zeros > 31 {
                return None;
            }
        }
        Some((1u32 << zeros) - 1 + self.bits(zeros)?)
    }
}
