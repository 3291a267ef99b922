//! The samples of files cut into fragments (ISO/IEC 14496-12, 8.8).

use super::{Sample, check_count};
use crate::Error;
use crate::boxes::{Box, Fields, boxes, find};

/// What holds for samples that don't say.
#[derive(Clone, Copy, Default)]
struct Defaults {
    duration: u32,
    len: u32,
}

/// The samples of a track in all fragments of a file, of which the first begins at `decoded`, in the track's units, unless it says
/// otherwise.
pub(super) fn samples<'a>(
    file: &'a [u8],
    moov: &[u8],
    track: u32,
    mut decoded: i64,
) -> Result<impl Iterator<Item = Result<Sample, Error>> + use<'a>, Error> {
    let mvex = find(moov, b"mvex").unwrap_or_default();
    let mut defaults = Defaults::default();
    for found in boxes(mvex).filter(|found| found.kind == *b"trex") {
        let mut fields = Fields::new("trex", found.body);
        fields.version_and_flags()?;
        if fields.u32()? == track {
            fields.u32()?;
            defaults = Defaults { duration: fields.u32()?, len: fields.u32()? };
        }
    }
    Ok(boxes(file).filter(|found| found.kind == *b"moof").flat_map(move |moof| {
        let mut samples = Vec::new();
        let mut trafs = boxes(moof.body).filter(|found| found.kind == *b"traf");
        let all = trafs.try_for_each(|traf| append_of(traf.body, moof, track, defaults, (&mut decoded, &mut samples)));
        samples.into_iter().map(Ok).chain(all.err().map(Err))
    }))
}

/// Adds the samples of a `traf` box, if it is the track's.
fn append_of(
    traf: &[u8],
    moof: Box<'_>,
    track: u32,
    mut defaults: Defaults,
    (decoded, samples): (&mut i64, &mut Vec<Sample>),
) -> Result<(), Error> {
    let Some(tfhd) = find(traf, b"tfhd") else { return Ok(()) };
    let mut fields = Fields::new("tfhd", tfhd);
    let (_, flags) = fields.version_and_flags()?;
    if fields.u32()? != track {
        return Ok(());
    }
    let mut base = moof.start as u64;
    if flags & 0x1 != 0 {
        base = fields.u64()?;
    }
    if flags & 0x2 != 0 {
        fields.u32()?;
    }
    if flags & 0x8 != 0 {
        defaults.duration = fields.u32()?;
    }
    if flags & 0x10 != 0 {
        defaults.len = fields.u32()?;
    }
    if let Some(tfdt) = find(traf, b"tfdt") {
        let mut fields = Fields::new("tfdt", tfdt);
        let (version, _) = fields.version_and_flags()?;
        *decoded = i64::try_from(fields.time(version)?).map_err(|_| fields.damaged("is beyond all times"))?;
    }
    let mut start = base;
    for trun in boxes(traf).filter(|found| found.kind == *b"trun") {
        let mut fields = Fields::new("trun", trun.body);
        let (_, flags) = fields.version_and_flags()?;
        let n = fields.u32()? as usize;
        check_count(samples.len().saturating_add(n))?;
        if flags & 0x1 != 0 {
            start = base.saturating_add_signed(fields.i32()?.into());
        }
        if flags & 0x4 != 0 {
            fields.u32()?;
        }
        for _ in 0..n {
            let duration = if flags & 0x100 != 0 { fields.u32()? } else { defaults.duration };
            let len = if flags & 0x200 != 0 { fields.u32()? } else { defaults.len };
            if flags & 0x400 != 0 {
                fields.u32()?;
            }
            let offset = if flags & 0x800 != 0 { fields.i32()? } else { 0 };
            samples.push(Sample { start, len, shown: decoded.saturating_add(offset.into()), duration });
            start = start.saturating_add(len.into());
            *decoded = decoded.saturating_add(duration.into());
        }
    }
    Ok(())
}
