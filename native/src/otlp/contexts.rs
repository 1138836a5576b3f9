//! What items refer to, each once in a batch: resources, scopes, attribute sets, strings. And the identities of items and series.

use std::borrow::Cow;
use std::hash::BuildHasher;

use hashbrown::{DefaultHashBuilder, HashMap};

use crate::Error;
use crate::arrow::column::{Buffer, Texts};
use crate::arrow::maps::{Left, Limits, Maps};
use crate::arrow::strings::Strings;
use crate::otlp::containers::attributes;
use crate::otlp::descriptor::{RESOURCE, SCOPE, validate};
use crate::otlp::digest::{digest, frame};
use crate::otlp::identity::{CLUSTER, Identities, NODE, SERVICE, TAGS, identity, resource_texts};
use crate::otlp::resources::{Table, text_of};
use crate::otlp::value::{Any, key_value, unique_attributes};
use crate::otlp::wire::{Malformed, Reader};

/// The resource and scope around items.
#[derive(Clone, Copy)]
pub struct Place {
    /// Row of the resources.
    pub resource: u32,
    /// Row of the scopes.
    pub scope: u32,
    /// By the resource's attributes (and cluster), the scope's name and version.
    pub source: [u8; 16],
}

/// A row, and the digests of what it holds: of its bytes, of its meaning.
#[derive(Clone, Copy)]
pub struct Known {
    row: u32,
    bytes: u128,
    meaning: u128,
}

/// An attribute set.
#[derive(Clone, Copy)]
pub struct Set {
    /// Row of the attribute sets.
    pub row: u32,
    /// Digest of what it says, whatever the order.
    pub meaning: [u8; 16],
}

/// Sets that were asked for of late, by their bytes: most are asked for again, and a digest costs more than a look.
#[derive(Default)]
struct Recent {
    hasher: DefaultHashBuilder,
    slots: Vec<Option<(Vec<u8>, Set)>>,
}

impl Recent {
    const SLOTS: usize = 1 << 12;
    const MOST_BYTES: usize = 512;

    fn slot(&self, bytes: &[u8]) -> usize {
        if bytes.len() <= Self::MOST_BYTES { self.hasher.hash_one(bytes) as usize % Self::SLOTS } else { 0 }
    }

    fn get(&self, slot: usize, bytes: &[u8]) -> Option<Set> {
        let (known, set) = self.slots.get(slot)?.as_ref()?;
        (known == bytes).then_some(*set)
    }

    fn put(&mut self, slot: usize, bytes: &[u8], set: Set) {
        if bytes.len() > Self::MOST_BYTES {
            return;
        }
        self.slots.resize(Self::SLOTS, None);
        let (known, held) = self.slots[slot].get_or_insert_with(|| (Vec::new(), set));
        known.clear();
        known.extend_from_slice(bytes);
        *held = set;
    }
}

/// Tables of a batch besides its items'.
pub struct Contexts<'t> {
    table: &'t Table,
    /// The batch's strings.
    pub strings: Strings,
    resources: HashMap<(u128, u32), Known>,
    resource_fields: Identities,
    service_names: Vec<u32>,
    resource_urls: Vec<u32>,
    identities: Vec<u64>,
    resource_attributes: Maps,
    scopes: HashMap<u128, Known>,
    scope_texts: [Texts; 3],
    scope_dropped: Vec<u32>,
    scope_attributes: Maps,
    sets: HashMap<u128, Set>,
    recent: Recent,
    set_attributes: Maps,
    parts: HashMap<u128, u64>,
    next: u128,
    scratch: Vec<u8>,
}

/// The buffers of the tables, in the order of their schemas.
pub struct Tables {
    /// Rows and buffers of the resources.
    pub resources: (usize, Vec<Buffer>),
    /// Of the scopes.
    pub scopes: (usize, Vec<Buffer>),
    /// Of the attribute sets.
    pub attributes: (usize, Vec<Buffer>),
    /// Offsets and text.
    pub strings: Vec<Buffer>,
    /// Attribute sets, and texts of resources and scopes, that are not whole.
    pub cut: u64,
}

impl<'t> Contexts<'t> {
    /// Empty tables.
    pub fn new(table: &'t Table, limits: Limits) -> Self {
        Self {
            table,
            strings: Strings::default(),
            resources: HashMap::new(),
            resource_fields: Identities::default(),
            service_names: Vec::new(),
            resource_urls: Vec::new(),
            identities: Vec::new(),
            resource_attributes: Maps::new(limits),
            scopes: HashMap::new(),
            scope_texts: Default::default(),
            scope_dropped: Vec::new(),
            scope_attributes: Maps::new(limits),
            sets: HashMap::new(),
            recent: Recent::default(),
            set_attributes: Maps::new(limits),
            parts: HashMap::new(),
            next: 0,
            scratch: Vec::new(),
        }
    }

    /// Begins a payload: equal parts differ within it by their count.
    pub fn begin_payload(&mut self) {
        if self.parts.capacity() > 1 << 12 {
            self.parts = HashMap::new(); // clearing costs what it can hold
        } else {
            self.parts.clear();
        }
    }

    /// Begins a part of the payload: a resource and its items. `body` is the bytes of both.
    pub fn begin_part(&mut self, resource: Known, body: &[u8]) {
        let own = digest(&[&resource.bytes.to_be_bytes(), body]);
        let count = self.parts.entry(own).and_modify(|count| *count += 1).or_insert(1);
        self.next = if *count == 1 { own } else { digest(&[&own.to_be_bytes(), &count.to_be_bytes()]) };
    }

    /// The place of items in a scope's container, which begins here; the scope's body is as [`super::containers::read_container`] gave it.
    pub fn begin(&mut self, resource: Known, scope: &[u8], scope_url: &[u8], depth: u32) -> Result<Place, Error> {
        let scope = self.scope(scope, scope_url, depth)?;
        Ok(Place {
            resource: resource.row,
            scope: scope.row,
            source: digest(&[&resource.meaning.to_be_bytes(), &scope.meaning.to_be_bytes()]).to_be_bytes(),
        })
    }

    /// The identity of the next item: its part, and its place in it.
    pub fn identity(&mut self) -> (u64, u64) {
        let identity = self.next;
        self.next = identity.wrapping_add(1);
        ((identity >> 64) as u64, identity as u64)
    }

    /// The set of the attributes whose KeyValue bodies these are. Where something else of their item was left out the row is one of its own.
    pub fn attributes(&mut self, bodies: &[&[u8]], left: Left, depth: u32) -> Result<Set, Error> {
        if !left.is_empty() {
            return self.marked(bodies, left, depth);
        }
        self.scratch.clear();
        for body in bodies {
            frame(&mut self.scratch, body);
        }
        let slot = self.recent.slot(&self.scratch);
        if let Some(set) = self.recent.get(slot, &self.scratch) {
            return Ok(set);
        }
        let bytes = digest(&[&self.scratch]);
        if let Some(set) = self.sets.get(&bytes) {
            self.recent.put(slot, &self.scratch, *set);
            return Ok(*set);
        }
        let pairs = unique_attributes(bodies.iter().map(|body| key_value(body, depth)).collect::<Result<Vec<_>, Malformed>>()?);
        let meaning = self.meaning(&pairs, b"").to_be_bytes();
        self.set_attributes.push(&pairs)?;
        let set = Set { row: self.set_attributes.len() as u32 - 1, meaning };
        self.sets.insert(bytes, set);
        Ok(set)
    }

    fn marked(&mut self, bodies: &[&[u8]], left: Left, depth: u32) -> Result<Set, Error> {
        let pairs = unique_attributes(bodies.iter().map(|body| key_value(body, depth)).collect::<Result<Vec<_>, Malformed>>()?);
        let meaning = self.meaning(&pairs, b"").to_be_bytes();
        self.set_attributes.push_marked(&pairs, left)?;
        Ok(Set { row: self.set_attributes.len() as u32 - 1, meaning })
    }

    /// A resource, as [`super::containers::read_container`] gave it, of `cluster` unless it names its own.
    pub fn resource(&mut self, body: &[u8], url: &[u8], cluster: &str, depth: u32) -> Result<Known, Error> {
        let bytes = framed(&mut self.scratch, &[body, url]);
        let default = self.strings.code(cluster.as_bytes())?;
        if let Some(known) = self.resources.get(&(bytes, default)) {
            return Ok(*known);
        }
        validate(&RESOURCE, body, depth)?;
        let pairs = unique_attributes(attributes(body, 1, depth)?);
        let texts = resource_texts(&self.table.resource_keys, &pairs);
        let own = identity(&texts, [b""; TAGS], cluster.as_bytes(), self.table.unknown_service.as_bytes());
        self.resource_fields.push(&own, &mut self.strings, &mut self.resource_attributes)?;
        let used = if texts[CLUSTER].is_empty() { cluster } else { "" };
        let meaning = self.meaning(&pairs, used.as_bytes());
        let service = match text_of(&pairs, "service.name").unwrap_or_default() {
            name if name.is_empty() && !texts[NODE].is_empty() => own.texts[SERVICE].to_vec(),
            name => name,
        };
        self.service_names.push(self.strings.code(self.resource_attributes.within(&service))?);
        self.resource_urls.push(self.strings.code(self.resource_attributes.within(url))?);
        self.identities.push((meaning >> 64) as u64);
        self.resource_attributes.push(&pairs)?;
        let row = self.resources.len() as u32;
        let known = Known { row, bytes: framed(&mut self.scratch, &[body, url, used.as_bytes()]), meaning };
        self.resources.insert((bytes, default), known);
        Ok(known)
    }

    fn scope(&mut self, body: &[u8], url: &[u8], depth: u32) -> Result<Known, Error> {
        let bytes = framed(&mut self.scratch, &[body, url]);
        if let Some(known) = self.scopes.get(&bytes) {
            return Ok(*known);
        }
        validate(&SCOPE, body, depth)?;
        let (mut texts, mut dropped) = ([&b""[..], b"", url], 0); // name, version, schema URL
        let mut reader = Reader(body);
        while !reader.is_empty() {
            match reader.tag()? {
                0x0a => texts[0] = reader.bytes()?,
                0x12 => texts[1] = reader.bytes()?,
                0x20 => dropped = reader.varint()? as u32,
                tag => reader.skip(tag, depth)?,
            }
        }
        for (column, text) in self.scope_texts.iter_mut().zip(texts) {
            column.push(self.scope_attributes.within(text))?;
        }
        self.scope_dropped.push(dropped);
        self.scope_attributes.push(&unique_attributes(attributes(body, 3, depth)?))?;
        let row = self.scopes.len() as u32;
        let known = Known { row, bytes, meaning: framed(&mut self.scratch, &texts[..2]) };
        self.scopes.insert(bytes, known);
        Ok(known)
    }

    /// The digest of attributes, whatever their order, and of one more text.
    fn meaning(&mut self, pairs: &[(&[u8], Any<'_>)], more: &[u8]) -> u128 {
        let mut sorted: Vec<&(&[u8], Any<'_>)> = pairs.iter().collect();
        sorted.sort_unstable_by_key(|(key, _)| *key);
        self.scratch.clear();
        frame(&mut self.scratch, more);
        for (key, value) in sorted {
            frame(&mut self.scratch, key);
            let text = match value {
                Any::Text(text) => Cow::Borrowed(*text),
                _ => {
                    let mut text = Vec::new();
                    value.write_text(&mut text);
                    Cow::Owned(text)
                }
            };
            frame(&mut self.scratch, &text);
        }
        digest(&[&self.scratch])
    }

    /// The tables.
    pub fn finish(self) -> Tables {
        let cut = self.resource_attributes.cut() + self.scope_attributes.cut() + self.set_attributes.cut();
        let codes = [self.service_names, self.resource_urls].map(Buffer::U32);
        let resources = self.resource_fields.finish().chain(codes).chain([Buffer::U64(self.identities)]);
        let scopes = self.scope_texts.into_iter().flat_map(Texts::finish).chain([Buffer::U32(self.scope_dropped)]);
        Tables {
            resources: (self.resources.len(), resources.chain(self.resource_attributes.finish()).collect()),
            scopes: (self.scopes.len(), scopes.chain(self.scope_attributes.finish()).collect()),
            attributes: (self.set_attributes.len(), self.set_attributes.finish().collect()),
            strings: self.strings.finish().into(),
            cut,
        }
    }
}

fn framed(scratch: &mut Vec<u8>, parts: &[&[u8]]) -> u128 {
    scratch.clear();
    for part in parts {
        frame(scratch, part);
    }
    digest(&[scratch])
}
