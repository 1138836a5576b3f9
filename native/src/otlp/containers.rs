//! ResourceSpans, ScopeSpans and their kin: what stands around items.

use std::borrow::Cow;

use crate::Error;
use crate::otlp::descriptor::{Message, validate};
use crate::otlp::value::{Any, key_value};
use crate::otlp::wire::{self, MAX_DEPTH, Reader, deeper};

/// The attributes of a message, as they come; `number` is their field's.
pub fn attributes(body: &[u8], number: u32, depth: u32) -> wire::Result<Vec<(&[u8], Any<'_>)>> {
    let mut found = Vec::new();
    let mut reader = Reader(body);
    while !reader.is_empty() {
        let tag = reader.tag()?;
        if tag == wire::tag_of(number) {
            found.push(key_value(reader.bytes()?, deeper(depth)?)?);
        } else {
            reader.skip(tag, depth)?;
        }
    }
    Ok(found)
}

/// Field 1 and the schema URL (field 3) of a ResourceSpans or ScopeSpans. Of several occurrences of field 1, which protobuf merges, the bytes end
/// to end; they are checked here, since what is well-formed together may not be so apart. A single one is not checked.
pub fn read_container<'a>(body: &'a [u8], own: &Message, depth: u32) -> wire::Result<(Cow<'a, [u8]>, &'a [u8])> {
    let mut found: Option<Cow<'a, [u8]>> = None;
    let mut schema_url = &b""[..];
    let mut reader = Reader(body);
    while !reader.is_empty() {
        match reader.tag()? {
            0x0a => {
                let piece = reader.bytes()?;
                match &mut found {
                    None => found = Some(Cow::Borrowed(piece)),
                    Some(before) => {
                        if let Cow::Borrowed(first) = before {
                            validate(own, first, deeper(depth)?)?;
                        }
                        validate(own, piece, deeper(depth)?)?;
                        before.to_mut().extend_from_slice(piece);
                    }
                }
            }
            0x1a => schema_url = reader.text()?,
            tag => reader.skip(tag, depth)?,
        }
    }
    Ok((found.unwrap_or_default(), schema_url))
}

/// Calls `visit` for the bodies of field 2, in a message that [`read_container`] has read.
pub fn each_child<'a>(body: &'a [u8], mut visit: impl FnMut(&'a [u8]) -> Result<(), Error>) -> Result<(), Error> {
    let mut reader = Reader(body);
    while !reader.is_empty() {
        match reader.tag()? {
            0x12 => visit(reader.bytes()?)?,
            tag => reader.skip(tag, MAX_DEPTH)?,
        }
    }
    Ok(())
}
