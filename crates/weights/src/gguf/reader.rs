//! A cursor over the head of a GGUF file: bounds-checked little-endian reads.
//!
//! Every read says what it is reading, so that a file cut at any byte is reported by the thing that is cut.

use crate::WeightsError;
use crate::error::text;

/// Position in the bytes of a GGUF file.
pub(crate) struct Reader<'a> {
    pub file: &'a str,
    pub bytes: &'a [u8],
    pub pos: usize,
}

impl<'a> Reader<'a> {
    /// The next `n` bytes, which hold `what`.
    pub fn take(&mut self, n: u64, what: &dyn Fn() -> String) -> Result<&'a [u8], WeightsError> {
        let end = usize::try_from(n).ok().and_then(|n| self.pos.checked_add(n));
        match end.and_then(|end| self.bytes.get(self.pos..end)) {
            Some(taken) => {
                self.pos += taken.len();
                Ok(taken)
            }
            None => Err(WeightsError::Truncated {
                file: self.file.into(),
                what: what(),
                found: self.bytes.len() as u64,
                expected: (self.pos as u64).saturating_add(n),
            }),
        }
    }

    /// The next `N` bytes.
    pub fn array<const N: usize>(&mut self, what: &dyn Fn() -> String) -> Result<[u8; N], WeightsError> {
        let taken = self.take(N as u64, what)?;
        let mut out = [0; N];
        out.copy_from_slice(taken);
        Ok(out)
    }

    /// The next little-endian `u32`.
    pub fn u32(&mut self, what: &dyn Fn() -> String) -> Result<u32, WeightsError> {
        self.array(what).map(u32::from_le_bytes)
    }

    /// The next little-endian `u64`.
    pub fn u64(&mut self, what: &dyn Fn() -> String) -> Result<u64, WeightsError> {
        self.array(what).map(u64::from_le_bytes)
    }

    /// The next string (`u64` length, bytes) of at most `limit` bytes, which must be UTF-8.
    pub fn string(&mut self, limit: u64, what: &dyn Fn() -> String) -> Result<&'a str, WeightsError> {
        let len = self.u64(&|| format!("the length of {}", what()))?;
        if len > limit {
            return Err(WeightsError::Limit {
                file: self.file.into(),
                what: format!("bytes of {}", what()),
                found: len,
                limit,
            });
        }
        let bytes = self.take(len, what)?;
        text(bytes).map_err(|found| WeightsError::Malformed {
            file: self.file.into(),
            what: what(),
            found,
            expected: "UTF-8".into(),
        })
    }
}
