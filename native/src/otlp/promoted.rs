//! The attributes of a span that become columns; which they are comes from `schemas/otlp/semantics.py`.

use std::sync::Arc;

use crate::otlp::descriptor::{KEY_VALUE, is_plain_text, split_attribute, validate};
use crate::otlp::value::{Any, key_value};
use crate::otlp::wire::{Result, is_ascii, is_text};

/// Attribute keys, and per field those it may come from, in order of preference.
pub struct Keys {
    /// By slot.
    names: Vec<Vec<u8>>,
    /// By length (the last for all longer ones) and last byte, modulo 64: a slot of such a key, and one more; 0 for none, where most
    /// attributes stop. Dearer hashes of whole keys are not needed: few of these share a place.
    first: Box<[[u16; 64]; LENGTHS]>,
    /// By slot: the next one of its place, and one more; 0 for none.
    next: Vec<u16>,
    fields: Vec<Vec<usize>>,
    /// By field: the bits of its slots.
    bits: Vec<u128>,
}

const LENGTHS: usize = 64;

impl Keys {
    /// From the keys of each field.
    pub fn new(fields: &[Vec<String>]) -> Self {
        let first = Box::new([[0; 64]; LENGTHS]);
        let mut keys = Self { names: Vec::new(), first, next: Vec::new(), fields: Vec::new(), bits: Vec::new() };
        for names in fields {
            let slots: Vec<usize> = names.iter().map(|name| keys.add(name.as_bytes())).collect();
            keys.bits.push(slots.iter().fold(0, |bits, slot| bits | Self::bit(*slot)));
            keys.fields.push(slots);
        }
        keys
    }

    /// The slot of an attribute key, None when no field wants it.
    #[inline]
    pub fn slot(&self, key: &[u8]) -> Option<usize> {
        let (length, last) = Self::place_of(key);
        let mut place = self.first[length][last];
        while place != 0 {
            let slot = usize::from(place) - 1;
            if self.names[slot] == key {
                return Some(slot);
            }
            place = self.next[slot];
        }
        None
    }

    /// How many slots there are.
    pub fn slot_count(&self) -> usize {
        self.names.len()
    }

    /// The slots of a field, by preference.
    #[inline]
    pub fn of_field(&self, field: usize) -> &[usize] {
        &self.fields[field]
    }

    /// What stands for a slot where spans say which they have; the slots behind the last bit share it.
    #[inline]
    fn bit(slot: usize) -> u128 {
        1 << slot.min(127)
    }

    fn add(&mut self, key: &[u8]) -> usize {
        if let Some(slot) = self.slot(key) {
            return slot;
        }
        let (length, last) = Self::place_of(key);
        let first = &mut self.first[length][last];
        self.names.push(key.to_vec());
        self.next.push(*first);
        *first = u16::try_from(self.names.len()).expect("settings ask for fewer keys");
        self.names.len() - 1
    }

    #[inline]
    fn place_of(key: &[u8]) -> (usize, usize) {
        (key.len().min(LENGTHS - 1), usize::from(key.last().copied().unwrap_or(0) & 63))
    }
}

/// The value of an attribute key that some field wants; old when the generation is not the current span's.
struct Slot<'a> {
    generation: u64,
    value: Any<'a>,
}

/// What one span has of the promoted attributes.
pub struct Promoted<'a> {
    keys: Arc<Keys>,
    slots: Vec<Slot<'a>>,
    generation: u64,
    /// The bits of the slots that the span has. Most fields have none, and are done with one look at this.
    has: u128,
    scratch: Vec<u8>,
}

impl<'a> Promoted<'a> {
    /// For these keys.
    pub fn new(keys: Arc<Keys>) -> Self {
        let slots = (0..keys.slot_count()).map(|_| Slot { generation: 0, value: Any::Empty }).collect();
        Self { keys, slots, generation: 0, has: 0, scratch: Vec::new() }
    }

    /// Forgets the span before.
    pub fn begin_span(&mut self) {
        self.generation += 1;
        self.has = 0;
    }

    /// Checks an attribute, and keeps its value when a field wants it; of equal keys the last one counts.
    #[inline]
    pub fn attribute(&mut self, body: &'a [u8], depth: u32) -> Result<()> {
        if let Some((key, value)) = split_attribute(body) {
            let slot = self.keys.slot(key);
            if is_plain_text(value) && (is_ascii(body) || is_text(key) && is_text(&value[2..])) {
                if let Some(slot) = slot {
                    self.set(slot, Any::Text(&value[2..]));
                }
                return Ok(());
            }
            if slot.is_none() {
                return validate(&KEY_VALUE, body, depth);
            }
        }
        let (key, value) = key_value(body, depth)?;
        if let Some(slot) = self.keys.slot(key) {
            self.set(slot, value);
        }
        Ok(())
    }

    #[inline]
    fn set(&mut self, slot: usize, value: Any<'a>) {
        self.slots[slot] = Slot { generation: self.generation, value };
        self.has |= Keys::bit(slot);
    }

    /// Whether the span may have a key of a field; if not, it has none.
    #[inline]
    fn may_have(&self, field: usize) -> bool {
        self.has & self.keys.bits[field] != 0
    }

    /// The text of a field: that of its first key which has one other than "", else "".
    #[inline]
    pub fn text(&mut self, field: usize) -> &[u8] {
        if !self.may_have(field) {
            return b"";
        }
        self.scratch.clear();
        for slot in self.keys.of_field(field).iter().map(|slot| &self.slots[*slot]) {
            match slot.value {
                _ if slot.generation != self.generation => {}
                Any::Text(b"") => {}
                Any::Text(text) => return text,
                _ => {
                    slot.value.write_text(&mut self.scratch);
                    if !self.scratch.is_empty() {
                        break;
                    }
                }
            }
        }
        &self.scratch
    }

    /// Whether any key of a field has such a text; asked of strings only.
    #[inline]
    pub fn any_string(&self, field: usize, is: impl Fn(&[u8]) -> bool) -> bool {
        let mut slots = self.keys.of_field(field).iter().map(|slot| &self.slots[*slot]);
        self.may_have(field) && slots.any(|slot| slot.generation == self.generation && matches!(slot.value, Any::Text(text) if is(text)))
    }

    /// The text of a field's only key, None when the span does not have it.
    pub fn only_text(&mut self, field: usize) -> Option<&[u8]> {
        let slot = &self.slots[self.keys.of_field(field)[0]];
        if slot.generation != self.generation {
            return None;
        }
        self.scratch.clear();
        slot.value.write_text(&mut self.scratch);
        Some(&self.scratch)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_of_two_fields_has_one_slot() {
        let keys = Keys::new(&[vec!["a".into(), "b".into()], vec!["b".into(), String::new()]]);
        assert_eq!(keys.slot_count(), 3);
        assert_eq!(keys.of_field(0), [0, 1]);
        assert_eq!(keys.of_field(1), [1, 2]);
        assert_eq!(keys.slot(b"b"), Some(1));
        assert_eq!(keys.slot(b""), Some(2));
        assert_eq!(keys.slot(b"c"), None);
        assert_eq!(keys.slot(&[b'b'; 200]), None);
        assert_eq!(keys.slot(b"\xe2"), None); // the place of b"b"
    }

    #[test]
    fn the_first_key_with_a_text_counts_and_of_one_key_the_last_value() {
        let mut promoted = Promoted::new(Arc::new(Keys::new(&[vec!["a".into(), "b".into()]])));
        promoted.begin_span();
        for body in [&b"\x0a\x01a\x12\x02\x0a\x00"[..], b"\x0a\x01b\x12\x03\x0a\x01x", b"\x0a\x01b\x12\x02\x18\x07"] {
            promoted.attribute(body, 9).unwrap();
        }
        assert_eq!(promoted.text(0), b"7");
        promoted.begin_span();
        assert_eq!(promoted.text(0), b"");
        assert_eq!(promoted.only_text(0), None);
        assert!(promoted.attribute(b"\x0a\x01c\x12\x03\x0a\x01\xff", 9).is_err());
    }
}
