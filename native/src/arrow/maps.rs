//! Attributes: maps of strings to strings, within limits. `schemas/otlp/limits.py` says which.

use crate::Error;
use crate::arrow::column::{Buffer, Offsets, Texts, within};
use crate::otlp::value::Any;

/// The key of the attribute that says what was left out.
const CUT_KEY: &[u8] = b"meshflow.cut";

/// How much of attributes is taken.
#[derive(Clone, Copy)]
pub struct Limits {
    /// Most bytes of a key, of a value, and of any text that is repeated in rows.
    pub value_bytes: usize,
    /// Most bytes of a set's keys and values.
    pub set_bytes: usize,
    /// Most entries of a set.
    pub set_entries: usize,
    /// Most events, links or exemplars of an item.
    pub list_entries: usize,
    /// Most bytes that the rows of a batch take, by `otlp::weight`.
    pub batch_bytes: usize,
}

impl Limits {
    /// Fails where rows of this weight are over the limit.
    pub fn check(&self, bytes: usize) -> Result<(), Error> {
        if bytes > self.batch_bytes { Err(Error::OverLimit) } else { Ok(()) }
    }

    /// What a text of an item keeps; the rest is counted in `left`.
    pub fn within<'a>(&self, text: &'a [u8], left: &mut Left) -> &'a [u8] {
        let kept = within(text, self.value_bytes);
        left.bytes += text.len() - kept.len();
        kept
    }
}

/// What was left out of an item.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub struct Left {
    /// Bytes of texts.
    pub bytes: usize,
    /// Attributes.
    pub keys: usize,
    /// A span's.
    pub events: usize,
    /// A span's.
    pub links: usize,
    /// A data point's.
    pub exemplars: usize,
}

impl Left {
    /// Nothing.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// As the mark says it.
    fn text(&self) -> String {
        let mut text = format!("{} bytes, {} keys", self.bytes, self.keys);
        for (count, name) in [(self.events, "events"), (self.links, "links"), (self.exemplars, "exemplars")] {
            if count > 0 {
                text += &format!(", {count} {name}");
            }
        }
        text
    }
}

/// Maps of strings to strings.
pub struct Maps {
    limits: Limits,
    offsets: Offsets,
    keys: Texts,
    values: Texts,
    /// How many of the maps are not whole.
    cut: u64,
}

impl Maps {
    /// Without a map.
    pub fn new(limits: Limits) -> Self {
        Self { limits, offsets: Offsets::default(), keys: Texts::default(), values: Texts::default(), cut: 0 }
    }

    /// Appends a map; the keys differ from one another. What is over the limits is left out, and an entry says so.
    pub fn push<'a>(&mut self, pairs: &[(&[u8], Any<'a>)]) -> Result<(), Error> {
        self.push_marked(pairs, Left::default())
    }

    /// The same for the map of an item of which something else was left out.
    pub fn push_marked<'a>(&mut self, pairs: &[(&[u8], Any<'a>)], mut left: Left) -> Result<(), Error> {
        let (mut size, mut entries) = (0, 0);
        let mut senders_mark = None;
        for (key, value) in pairs {
            if *key == CUT_KEY {
                senders_mark = Some(value);
                continue;
            }
            if key.len() > self.limits.value_bytes || entries == self.limits.set_entries {
                left.keys += 1;
                continue;
            }
            let before = self.values.size();
            let left_bytes = self.values.push_value_within(value, self.limits.value_bytes)?;
            let length = key.len() + self.values.size() - before;
            if size + length > self.limits.set_bytes {
                self.values.pop();
                left.keys += 1;
                continue;
            }
            self.keys.push(key)?;
            size += length;
            entries += 1;
            left.bytes += left_bytes;
        }
        if !left.is_empty() {
            self.cut += 1;
            self.keys.push(CUT_KEY)?;
            self.values.push(left.text().as_bytes())?;
        } else if let Some(value) = senders_mark {
            self.keys.push(CUT_KEY)?;
            self.values.push_value_within(value, self.limits.value_bytes)?;
        }
        self.offsets.close(self.keys.len())
    }

    /// A text that is repeated in rows, within the limits.
    pub fn within<'a>(&mut self, text: &'a [u8]) -> &'a [u8] {
        let kept = within(text, self.limits.value_bytes);
        self.cut += u64::from(kept.len() < text.len());
        kept
    }

    /// How many maps there are.
    pub fn len(&self) -> usize {
        self.offsets.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.offsets.is_empty()
    }

    /// How many maps, and texts that [`Self::within`] saw, are not whole.
    pub fn cut(&self) -> u64 {
        self.cut
    }

    /// Offsets, then those and the text of keys, then of values.
    pub fn finish(self) -> impl Iterator<Item = Buffer> {
        [self.offsets.finish()].into_iter().chain(self.keys.finish()).chain(self.values.finish())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(buffers: &[Buffer]) -> Vec<&str> {
        let [Buffer::I32(offsets), Buffer::U8(data)] = buffers else { panic!("not texts") };
        offsets.windows(2).map(|ends| std::str::from_utf8(&data[ends[0] as usize..ends[1] as usize]).unwrap()).collect()
    }

    fn pushed(limits: Limits, pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        let mut maps = Maps::new(limits);
        let pairs: Vec<_> = pairs.iter().map(|(key, value)| (key.as_bytes(), Any::Text(value.as_bytes()))).collect();
        maps.push(&pairs).unwrap();
        let buffers: Vec<Buffer> = maps.finish().collect();
        let (keys, values) = (texts(&buffers[1..3]), texts(&buffers[3..5]));
        keys.into_iter().zip(values).map(|(key, value)| (key.to_owned(), value.to_owned())).collect()
    }

    #[test]
    fn what_is_over_a_limit_is_left_out_and_marked() {
        let limits = Limits { value_bytes: 4, set_bytes: 9, set_entries: 2, list_entries: 1, batch_bytes: 0 };
        let whole = [("a", "1234"), ("b", "123")];
        let owned = |pairs: &[(&str, &str)]| pairs.iter().map(|(key, value)| (key.to_string(), value.to_string())).collect::<Vec<_>>();
        assert_eq!(pushed(limits, &whole), owned(&whole));
        assert_eq!(pushed(limits, &[("a", "123456")]), owned(&[("a", "1234"), ("meshflow.cut", "2 bytes, 0 keys")]));
        let many = [("a", "1"), ("meshflow.cut", "mine"), ("b", ""), ("c", "")];
        assert_eq!(pushed(limits, &many), owned(&[("a", "1"), ("b", ""), ("meshflow.cut", "0 bytes, 1 keys")]));
        assert_eq!(pushed(limits, &many[..3]), owned(&[("a", "1"), ("b", ""), ("meshflow.cut", "mine")]));
        assert_eq!(pushed(limits, &[("a", "1234"), ("b", "1234")])[1].1, "0 bytes, 1 keys");
        assert_eq!(pushed(limits, &[("longer", "")])[0].1, "0 bytes, 1 keys");
    }
}
