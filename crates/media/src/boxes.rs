//! The boxes that MP4, QuickTime and AVIF files consist of, and the numbers in them (ISO/IEC 14496-12, 4.2).

use crate::Error;

/// A box: four letters and what it holds.
#[derive(Clone, Copy)]
pub(crate) struct Box<'a> {
    pub kind: [u8; 4],
    pub body: &'a [u8],
    /// Where the box begins in what it is part of.
    pub start: usize,
}

/// The boxes in `bytes`, one after another. The last one may be cut off: then its body is what is there. What follows a box
/// that makes no sense is left out.
pub(crate) fn boxes(bytes: &[u8]) -> impl Iterator<Item = Box<'_>> {
    let mut at = 0;
    std::iter::from_fn(move || {
        let rest = &bytes[at..];
        let size = u64::from(u32::from_be_bytes(*rest.first_chunk()?));
        let kind = *rest.get(4..)?.first_chunk()?;
        let (header, size) = match size {
            // To the end of the file.
            0 => (8, rest.len() as u64),
            1 => (16, u64::from_be_bytes(*rest.get(8..)?.first_chunk()?)),
            size => (8, size),
        };
        let end = usize::try_from(size).unwrap_or(usize::MAX).min(rest.len());
        let start = at;
        let body = rest.get(header..end)?;
        at += end;
        Some(Box { kind, body, start })
    })
}

/// The first box of a kind in `bytes`.
pub(crate) fn find<'a>(bytes: &'a [u8], kind: &[u8; 4]) -> Option<&'a [u8]> {
    boxes(bytes).find(|found| found.kind == *kind).map(|found| found.body)
}

/// The numbers of a box, one after another.
pub(crate) struct Fields<'a> {
    format: &'static str,
    name: &'static str,
    rest: &'a [u8],
}

impl<'a> Fields<'a> {
    /// Those of the box called `name` in an MP4 file.
    pub fn new(name: &'static str, body: &'a [u8]) -> Self {
        Fields::of("MP4", name, body)
    }

    /// Those of the box called `name` in a file of another format.
    pub fn of(format: &'static str, name: &'static str, body: &'a [u8]) -> Self {
        Fields { format, name, rest: body }
    }

    /// What has not been read yet.
    pub fn rest(&self) -> &'a [u8] {
        self.rest
    }

    /// So many bytes.
    pub fn bytes(&mut self, n: usize) -> Result<&'a [u8], Error> {
        let Some((bytes, rest)) = self.rest.split_at_checked(n) else {
            return Err(self.damaged(format!("ends {} bytes too early", n - self.rest.len())));
        };
        self.rest = rest;
        Ok(bytes)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Error> {
        let bytes = self.bytes(N)?;
        Ok(*bytes.first_chunk().expect("so many bytes were taken"))
    }

    pub fn u8(&mut self) -> Result<u8, Error> {
        Ok(self.array::<1>()?[0])
    }

    pub fn u16(&mut self) -> Result<u16, Error> {
        Ok(u16::from_be_bytes(self.array()?))
    }

    pub fn u32(&mut self) -> Result<u32, Error> {
        Ok(u32::from_be_bytes(self.array()?))
    }

    pub fn i32(&mut self) -> Result<i32, Error> {
        Ok(i32::from_be_bytes(self.array()?))
    }

    pub fn u64(&mut self) -> Result<u64, Error> {
        Ok(u64::from_be_bytes(self.array()?))
    }

    /// Version and flags of a full box (4.2.2).
    pub fn version_and_flags(&mut self) -> Result<(u8, u32), Error> {
        let word = self.u32()?;
        Ok(((word >> 24) as u8, word & 0xff_ffff))
    }

    /// A time, of 64 bits from version 1 on.
    pub fn time(&mut self, version: u8) -> Result<u64, Error> {
        if version == 0 { Ok(self.u32()?.into()) } else { self.u64() }
    }

    /// A count of entries of at least `bytes` each, which must all be there.
    pub fn count(&mut self, bytes: usize) -> Result<usize, Error> {
        let n = self.u32()? as usize;
        if n.saturating_mul(bytes) > self.rest.len() {
            return Err(self.damaged(format!("claims {n} entries in {} bytes", self.rest.len())));
        }
        Ok(n)
    }

    /// An error of this box.
    pub fn damaged(&self, what: impl std::fmt::Display) -> Error {
        Error::Damaged { format: self.format, why: format!("its box `{}` {what}", self.name) }
    }
}
