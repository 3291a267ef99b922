//! The items of an AVIF file, and what is said of them.
//!
//! A picture is an item: coded itself, or a grid of items that are. Items have properties, and refer to others: another one
//! holds how opaque the picture is. Source: ISO/IEC 14496-12, 8.11, ISO/IEC 23008-12 (HEIF), 6 and 9, and AV1 Image File
//! Format, 2 to 4.

use std::ops::Range;

use crate::Error;
use crate::av1::Meaning;
use crate::boxes::{Box, Fields, boxes, find};

/// The most items, parts of them and references between them: a grid of 256 × 256, and another of its transparency, have
/// 131,074.
const MAX_ITEMS: usize = 1 << 18;

/// Properties that change nothing of what is decoded, or say what the coded data say again. Of cropping (`clap`) and of the
/// shape of pixels Pillow takes no note.
const HARMLESS: &[&[u8; 4]] =
    &[b"av1C", b"pixi", b"clap", b"pasp", b"a1lx", b"clli", b"mdcv", b"cclv", b"amve", b"lsel", b"a1op"];

/// What transparency is called.
const ALPHA: &[&[u8]] = &[b"urn:mpeg:mpegB:cicp:systems:auxiliary:alpha\0", b"urn:mpeg:hevc:2015:auxid:1\0"];

/// A file's items.
pub(super) struct Heif<'a> {
    file: &'a [u8],
    /// What items have in a box of their own, beside what they have in the file.
    idat: &'a [u8],
    primary: u32,
    items: Vec<Item>,
    /// Kind, from, to.
    references: Vec<([u8; 4], u32, u32)>,
}

/// A picture or what belongs to it.
#[derive(Clone, Debug, Default)]
pub(super) struct Item {
    id: u32,
    kind: [u8; 4],
    /// Places in the file, or in `idat`.
    extents: Vec<Range<u64>>,
    in_idat: bool,
    /// In pixels, as announced.
    pub size: Option<(u32, u32)>,
    pub meaning: Option<Meaning>,
    /// Quarter turns to the left.
    pub angle: u8,
    /// After that, whether left and right (`Some(1)`) or top and bottom change places.
    pub mirror: Option<u8>,
    is_alpha: bool,
    /// A property that must be understood, and isn't.
    strange: Option<[u8; 4]>,
}

/// How a picture is put together.
pub(super) enum Content<'a> {
    Coded(&'a Item),
    Grid { columns: usize, rows: usize, size: (u32, u32), cells: Vec<&'a Item> },
}

impl<'a> Heif<'a> {
    /// The items of a file.
    pub fn read(file: &'a [u8]) -> Result<Self, Error> {
        let meta = find(file, b"meta").and_then(|meta| meta.get(4..));
        let meta = meta.ok_or_else(|| damaged("it has no box `meta`: it was cut off, or has no still picture"))?;
        let within = |name: &'static str, kind: &[u8; 4]| {
            let body = find(meta, kind).ok_or_else(|| damaged(&format!("it has no box `{name}`")))?;
            Ok::<_, Error>(Fields::of("AVIF", name, body))
        };
        let mut items = infos(within("iinf", b"iinf")?)?;
        locations(within("iloc", b"iloc")?, &mut items)?;
        let iprp = find(meta, b"iprp").ok_or_else(|| damaged("it has no box `iprp`"))?;
        let all: Vec<_> = boxes(find(iprp, b"ipco").unwrap_or_default()).collect();
        for ipma in boxes(iprp).filter(|found| found.kind == *b"ipma") {
            properties(&all, Fields::of("AVIF", "ipma", ipma.body), &mut items)?;
        }
        let mut pitm = within("pitm", b"pitm")?;
        let (version, _) = pitm.version_and_flags()?;
        let primary = id(&mut pitm, version)?;
        let references = find(meta, b"iref").map_or(Ok(Vec::new()), references)?;
        Ok(Heif { file, idat: find(meta, b"idat").unwrap_or_default(), primary, items, references })
    }

    /// The picture that is shown.
    pub fn primary(&self) -> Result<&Item, Error> {
        self.item(self.primary)
    }

    /// How opaque it is, if that is said.
    pub fn alpha(&self) -> Option<&Item> {
        let mut to_primary = self.references.iter().filter(|(kind, _, to)| kind == b"auxl" && *to == self.primary);
        to_primary.find_map(|&(_, from, _)| self.item(from).ok().filter(|item| item.is_alpha))
    }

    /// Whether its colours were multiplied by it.
    pub fn premultiplied(&self, alpha: &Item) -> bool {
        self.references.contains(&(*b"prem", self.primary, alpha.id))
    }

    /// How an item is put together.
    pub fn content<'b>(&'b self, item: &'b Item) -> Result<Content<'b>, Error> {
        if let Some(kind) = item.strange {
            return Err(Error::Unsupported {
                what: format!("an AVIF picture with the property `{}`", kind.escape_ascii()),
                why: "it must be understood and isn't; save it as an ordinary PNG or JPEG".to_owned(),
            });
        }
        match &item.kind {
            b"av01" => Ok(Content::Coded(item)),
            b"grid" => self.grid(item),
            kind => Err(Error::Unsupported {
                what: format!("a picture of the kind `{}` in AVIF", kind.escape_ascii()),
                why: "expected AV1 or a grid of it; save it as an ordinary PNG or JPEG".to_owned(),
            }),
        }
    }

    /// HEIF, 6.6.2.3.
    fn grid<'b>(&'b self, item: &Item) -> Result<Content<'b>, Error> {
        let data = self.data(item)?;
        let mut fields = Fields::of("AVIF", "grid", &data);
        fields.u8()?;
        let wide = fields.u8()? & 1 == 1;
        let (rows, columns) = (usize::from(fields.u8()?) + 1, usize::from(fields.u8()?) + 1);
        let mut side = || if wide { fields.u32() } else { fields.u16().map(u32::from) };
        let size = (side()?, side()?);
        let of_grid = self.references.iter().filter(|(kind, from, _)| kind == b"dimg" && *from == item.id);
        let cells = of_grid.map(|&(.., to)| self.item(to)).collect::<Result<Vec<_>, _>>()?;
        if cells.len() != columns * rows || cells.iter().any(|cell| cell.kind != *b"av01") {
            return Err(damaged(&format!("a grid of {columns} × {rows} has {} pictures of AV1", cells.len())));
        }
        Ok(Content::Grid { columns, rows, size, cells })
    }

    /// What an item consists of.
    pub fn data(&self, item: &Item) -> Result<Vec<u8>, Error> {
        let source = if item.in_idat { self.idat } else { self.file };
        let mut data = Vec::new();
        for extent in &item.extents {
            let start = usize::try_from(extent.start).unwrap_or(usize::MAX);
            // Without a length, all that follows.
            let len = usize::try_from(extent.end - extent.start).unwrap_or(usize::MAX);
            let rest = source.get(start..).unwrap_or_default();
            let part = if len == 0 { Some(rest) } else { rest.get(..len) };
            let part = part.filter(|part| data.len() + part.len() <= source.len());
            data.extend(part.ok_or_else(|| {
                damaged(&format!("an item ends at byte {}, and there are {}: it was cut off", extent.end, source.len()))
            })?);
        }
        Ok(data)
    }

    fn item(&self, id: u32) -> Result<&Item, Error> {
        let found = self.items.binary_search_by_key(&id, |item| item.id).ok().and_then(|at| self.items.get(at));
        found.ok_or_else(|| damaged(&format!("there is no item {id}")))
    }
}

fn damaged(why: &str) -> Error {
    Error::Damaged { format: "AVIF", why: why.to_owned() }
}

/// An item's number, of 32 bits from version 1 on.
fn id(fields: &mut Fields<'_>, version: u8) -> Result<u32, Error> {
    if version == 0 { fields.u16().map(u32::from) } else { fields.u32() }
}

/// The items by their numbers, with their kinds (`iinf`, 8.11.6).
fn infos(mut fields: Fields<'_>) -> Result<Vec<Item>, Error> {
    let (version, _) = fields.version_and_flags()?;
    let n = id(&mut fields, version)? as usize;
    if n > MAX_ITEMS {
        return Err(fields.damaged(format!("claims {n} items, at most {MAX_ITEMS} are taken")));
    }
    let mut items = Vec::new();
    for info in boxes(fields.rest()).filter(|info| info.kind == *b"infe").take(n) {
        let mut info = Fields::of("AVIF", "infe", info.body);
        let (version, _) = info.version_and_flags()?;
        // Before version 2 items have no kind.
        if version >= 2 {
            let id = id(&mut info, version - 2)?;
            info.u16()?;
            items.push(Item { id, kind: info.u32()?.to_be_bytes(), ..Item::default() });
        }
    }
    items.sort_by_key(|item| item.id);
    items.dedup_by_key(|item| item.id);
    Ok(items)
}

fn at(items: &mut [Item], id: u32) -> Option<&mut Item> {
    items.binary_search_by_key(&id, |item| item.id).ok().and_then(|at| items.get_mut(at))
}

/// Where items lie (`iloc`, 8.11.3).
fn locations(mut fields: Fields<'_>, items: &mut [Item]) -> Result<(), Error> {
    let (version, _) = fields.version_and_flags()?;
    let sizes = fields.u16()?;
    let nibble = |shift: u16| (sizes >> shift) & 15;
    let (offset_bytes, length_bytes, base_bytes) = (nibble(12), nibble(8), nibble(4));
    let index_bytes = if version == 0 { 0 } else { nibble(0) };
    let number = |fields: &mut Fields<'_>, bytes: u16| {
        let bytes = fields.bytes(usize::from(bytes.min(8)))?;
        Ok::<_, Error>(bytes.iter().fold(0u64, |number, &byte| number << 8 | u64::from(byte)))
    };
    let n = if version < 2 { fields.u16()?.into() } else { fields.u32()? };
    let mut parts = 0;
    for _ in 0..n {
        let id = if version < 2 { fields.u16()?.into() } else { fields.u32()? };
        let method = if version == 0 { 0 } else { fields.u16()? & 15 };
        // Of other files, which nobody may name here.
        let elsewhere = fields.u16()?;
        let base = number(&mut fields, base_bytes)?;
        let mut extents = Vec::new();
        let count = fields.u16()?;
        parts += usize::from(count);
        if parts > MAX_ITEMS {
            return Err(fields.damaged(format!("has items of {parts} parts, at most {MAX_ITEMS} are taken")));
        }
        for _ in 0..count {
            number(&mut fields, index_bytes)?;
            let start = base.saturating_add(number(&mut fields, offset_bytes)?);
            let length = number(&mut fields, length_bytes)?;
            extents.push(start..start.saturating_add(length));
        }
        if method > 1 || elsewhere != 0 {
            return Err(fields.damaged(format!("places item {id} in another item or file, which isn't read")));
        }
        if let Some(item) = at(items, id) {
            (item.extents, item.in_idat) = (extents, method == 1);
        }
    }
    Ok(())
}

/// What is said of items (`ipco` and `ipma`, 8.11.14).
fn properties(all: &[Box<'_>], mut fields: Fields<'_>, items: &mut [Item]) -> Result<(), Error> {
    let (version, flags) = fields.version_and_flags()?;
    let n = fields.count(1)?;
    for _ in 0..n {
        let mut item = at(items, id(&mut fields, version)?);
        for _ in 0..fields.u8()? {
            let (essential, index) = if flags & 1 == 1 {
                let word = fields.u16()?;
                (word >> 15 == 1, usize::from(word & 0x7fff))
            } else {
                let byte = fields.u8()?;
                (byte >> 7 == 1, usize::from(byte & 0x7f))
            };
            // 0 stands for none.
            let Some((item, property)) = item.as_deref_mut().zip(index.checked_sub(1).and_then(|at| all.get(at)))
            else {
                continue;
            };
            if !item.take(property.kind, property.body)? && essential && !HARMLESS.contains(&&property.kind) {
                item.strange = Some(property.kind);
            }
        }
    }
    Ok(())
}

impl Item {
    /// Takes note of a property; whether it is one that is known.
    fn take(&mut self, kind: [u8; 4], body: &[u8]) -> Result<bool, Error> {
        match &kind {
            b"ispe" => {
                let mut fields = Fields::of("AVIF", "ispe", body);
                fields.version_and_flags()?;
                self.size = Some((fields.u32()?, fields.u32()?));
            }
            b"colr" if body.starts_with(b"nclx") => {
                let mut fields = Fields::of("AVIF", "colr", &body[4..]);
                let (primaries, _, matrix) = (fields.u16()?, fields.u16()?, fields.u16()?);
                self.meaning = Some(Meaning { primaries, matrix, full_range: fields.u8()? >> 7 == 1 });
            }
            // A profile, which Pillow doesn't apply either.
            b"colr" => {}
            b"irot" => self.angle = Fields::of("AVIF", "irot", body).u8()? & 3,
            b"imir" => self.mirror = Some(Fields::of("AVIF", "imir", body).u8()? & 1),
            b"auxC" => {
                self.is_alpha = body.get(4..).is_some_and(|urn| ALPHA.iter().any(|alpha| urn.starts_with(alpha)))
            }
            _ => return Ok(false),
        }
        Ok(true)
    }
}

/// Which items refer to which (`iref`, 8.11.12).
fn references(iref: &[u8]) -> Result<Vec<([u8; 4], u32, u32)>, Error> {
    let mut fields = Fields::of("AVIF", "iref", iref);
    let (version, _) = fields.version_and_flags()?;
    let mut references = Vec::new();
    for found in boxes(fields.rest()) {
        let mut fields = Fields::of("AVIF", "iref", found.body);
        let from = id(&mut fields, version)?;
        for _ in 0..fields.u16()? {
            references.push((found.kind, from, id(&mut fields, version)?));
            if references.len() > MAX_ITEMS {
                return Err(fields.damaged(format!("has more than {MAX_ITEMS} references")));
            }
        }
    }
    Ok(references)
}
