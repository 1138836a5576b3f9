//! The fields around items: containers and scopes, read field by field, and how large they are.

use crate::otlp::descriptor::{Message, validate};
use crate::otlp::wire::{MAX_DEPTH, Malformed, Reader, Result, deeper, is_text};

const FRAME: usize = 24; // of the three messages around an item, as schemas/otlp/oversize.py has it

/// Of the scopes of a container that have items.
#[derive(Clone, Copy, Default)]
pub struct Largest {
    /// The most that a scope's own fields take.
    pub scope: usize,
    /// The most that an item takes, its scope's own fields included; 0 where there is no item.
    pub item: usize,
}

impl Largest {
    /// Adds a scope, by its own fields and its largest item (0 for none).
    pub fn add(&mut self, rest: usize, item: usize) {
        if item > 0 {
            self.scope = self.scope.max(rest);
            self.item = self.item.max(rest + item);
        }
    }

    /// See `Split::record_bytes` of `split`; `rest` are the container's own fields.
    pub fn record_bytes(self, rest: usize) -> usize {
        if self.item == 0 { 0 } else { FRAME + (rest + self.item).max(2 * (rest + self.scope)) }
    }
}

/// The bytes from `field` to where the reader stands.
#[inline]
pub(crate) fn before<'a>(field: &'a [u8], reader: Reader<'a>) -> &'a [u8] {
    &field[..field.len() - reader.0.len()]
}

/// Checks a container's field other than its repeated items: resource or scope (1), schema URL (3), or an unknown one.
pub(crate) fn own_field(tag: u32, reader: &mut Reader<'_>, own: &Message, depth: u32) -> Result<()> {
    match tag {
        0x0a => validate(own, reader.bytes()?, deeper(depth)?),
        0x1a => is_text(reader.bytes()?).then_some(()).ok_or(Malformed),
        tag => reader.skip(tag, depth),
    }
}

/// Calls `visit` for the length-delimited fields with this tag.
pub(crate) fn each<'a>(body: &'a [u8], wanted: u32, mut visit: impl FnMut(&'a [u8]) -> Result<()>) -> Result<()> {
    let mut reader = Reader(body);
    while !reader.is_empty() {
        let tag = reader.tag()?;
        if tag == wanted {
            visit(reader.bytes()?)?;
        } else {
            reader.skip(tag, MAX_DEPTH)?;
        }
    }
    Ok(())
}
