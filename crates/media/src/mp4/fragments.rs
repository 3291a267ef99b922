//! The samples of files cut into fragments (ISO/IEC 14496-12, 8.8).

use super::Sample;
use crate::Error;
use crate::boxes::{Box, Fields, boxes, find};

/// What holds for samples that don't say.
#[derive(Clone, Copy, Default)]
struct Defaults {
    duration: u32,
    len: u32,
}

/// Samples that lie next to each other: those of a `trun` box.
struct Run<'a> {
    n: u32,
    /// What each of them says for itself.
    flags: u32,
    entries: &'a [u8],
    defaults: Defaults,
    /// Where the first begins in the file, and when.
    start: u64,
    decoded: i64,
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
    let mut defaults = Vec::new();
    for found in boxes(mvex).filter(|found| found.kind == *b"trex") {
        let mut fields = Fields::new("trex", found.body);
        fields.version_and_flags()?;
        let track = fields.u32()?;
        fields.u32()?;
        defaults.push((track, Defaults { duration: fields.u32()?, len: fields.u32()? }));
    }
    Ok(boxes(file).filter(|found| found.kind == *b"moof").flat_map(move |moof| {
        let (mut runs, mut end) = (Vec::new(), moof.start as u64);
        let mut trafs = boxes(moof.body).filter(|found| found.kind == *b"traf");
        let all = trafs.try_for_each(|traf| {
            let of_traf = runs_of(traf.body, moof, &defaults, (end, decoded))?;
            if let Some(last) = of_traf.runs.last() {
                end = last.end().0;
            }
            if of_traf.track == track {
                decoded = of_traf.decoded;
                runs.extend(of_traf.runs);
            }
            Ok(())
        });
        runs.into_iter().flat_map(|run| run.samples()).map(Ok).chain(all.err().map(Err))
    }))
}

/// What a `traf` box says.
struct Traf<'a> {
    track: u32,
    runs: Vec<Run<'a>>,
    /// When the samples behind it begin.
    decoded: i64,
}

/// The runs of a `traf` box, which begins at `decoded` and, unless it says otherwise, where the data of the one before it in the
/// fragment ends (8.8.7.1).
fn runs_of<'a>(
    traf: &'a [u8],
    moof: Box<'_>,
    defaults: &[(u32, Defaults)],
    (end, mut decoded): (u64, i64),
) -> Result<Traf<'a>, Error> {
    let tfhd = find(traf, b"tfhd").ok_or_else(|| super::damaged("a fragment has no box `tfhd`"))?;
    let mut fields = Fields::new("tfhd", tfhd);
    let (_, flags) = fields.version_and_flags()?;
    let track = fields.u32()?;
    let mut defaults = defaults.iter().rfind(|(of, _)| *of == track).map(|(_, defaults)| *defaults).unwrap_or_default();
    let base = match flags {
        _ if flags & 0x1 != 0 => fields.u64()?,
        _ if flags & 0x2_0000 != 0 => moof.start as u64,
        _ => end,
    };
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
        decoded = i64::try_from(fields.time(version)?).map_err(|_| fields.damaged("is beyond all times"))?;
    }
    let (mut start, mut runs) = (base, Vec::new());
    for trun in boxes(traf).filter(|found| found.kind == *b"trun") {
        let mut fields = Fields::new("trun", trun.body);
        let (_, flags) = fields.version_and_flags()?;
        let n = fields.u32()?;
        if flags & 0x1 != 0 {
            start = base.saturating_add_signed(fields.i32()?.into());
        }
        if flags & 0x4 != 0 {
            fields.u32()?;
        }
        let len = (n as usize).saturating_mul(width(flags));
        if len > fields.rest().len() {
            return Err(fields.damaged(format!("claims {n} samples in {} bytes", fields.rest().len())));
        }
        let run = Run { n, flags, entries: fields.bytes(len)?, defaults, start, decoded };
        (start, decoded) = run.end();
        runs.push(run);
    }
    Ok(Traf { track, runs, decoded })
}

/// Bytes that each sample takes of a `trun` box (8.8.8.2): four for each of duration, length, flags and offset in time.
fn width(flags: u32) -> usize {
    4 * (flags & 0xf00).count_ones() as usize
}

impl<'a> Run<'a> {
    fn samples(&self) -> impl Iterator<Item = Sample> + use<'a> {
        let &Run { n, flags, entries, defaults, mut start, mut decoded } = self;
        let width = width(flags);
        (0..n as usize).map(move |index| {
            let mut words = entries[width * index..][..width].chunks_exact(4).map(super::word);
            let mut word = |flag: u32| if flags & flag != 0 { words.next() } else { None };
            let duration = word(0x100).unwrap_or(defaults.duration);
            let len = word(0x200).unwrap_or(defaults.len);
            word(0x400);
            // Signed, as in tables.
            let offset = word(0x800).unwrap_or(0) as i32;
            let sample = Sample { start, len, shown: decoded.saturating_add(offset.into()), duration };
            start = start.saturating_add(len.into());
            decoded = decoded.saturating_add(duration.into());
            sample
        })
    }

    /// Where its data ends in the file, and when.
    fn end(&self) -> (u64, i64) {
        if self.flags & 0x300 == 0 {
            // However many are claimed, they are alike.
            let [len, duration] =
                [self.defaults.len, self.defaults.duration].map(|each| u64::from(self.n) * u64::from(each));
            return (self.start.saturating_add(len), self.decoded.saturating_add_unsigned(duration));
        }
        let add = |(start, decoded): (u64, i64), sample: Sample| {
            (start.saturating_add(sample.len.into()), decoded.saturating_add(sample.duration.into()))
        };
        self.samples().fold((self.start, self.decoded), add)
    }
}
