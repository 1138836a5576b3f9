//! Interning: each distinct string of a batch is stored once, and named by its code.

use std::hash::BuildHasher;

use hashbrown::{DefaultHashBuilder, HashTable};

use crate::Error;
use crate::arrow::column::{Buffer, Texts};

/// Text -> code, in the order of first use; code 0 is the empty string. Hashed with a seed, so that nobody can make texts collide.
pub struct Strings {
    texts: Texts,
    codes: HashTable<(u32, u32)>, // code, the hash's low half
    hasher: DefaultHashBuilder,
}

impl Default for Strings {
    fn default() -> Self {
        let mut texts = Texts::default();
        texts.push(b"").expect("fits");
        Self { texts, codes: HashTable::new(), hasher: DefaultHashBuilder::default() }
    }
}

impl Strings {
    /// The code of a text.
    #[inline]
    pub fn code(&mut self, text: &[u8]) -> Result<u32, Error> {
        if text.is_empty() {
            return Ok(0);
        }
        let hash = self.hasher.hash_one(text);
        let low = hash as u32;
        let is_it = |&(code, known): &(u32, u32)| known == low && self.texts.get(code as usize) == text;
        if let Some((code, _)) = self.codes.find(hash, is_it) {
            return Ok(*code);
        }
        self.insert(text, hash)
    }

    fn insert(&mut self, text: &[u8], hash: u64) -> Result<u32, Error> {
        let code = self.texts.len() as u32; // fits: offsets, of texts that are not empty, are below 2^31
        self.texts.push(text)?;
        let (texts, hasher) = (&self.texts, &self.hasher);
        self.codes.insert_unique(hash, (code, hash as u32), |(code, _)| hasher.hash_one(texts.get(*code as usize)));
        Ok(code)
    }

    /// The text of a code.
    pub fn text(&self, code: u32) -> &[u8] {
        self.texts.get(code as usize)
    }

    /// Offsets and text of all, by code.
    pub fn finish(self) -> [Buffer; 2] {
        self.texts.finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_in_order_of_first_use() {
        let mut strings = Strings::default();
        let codes: Vec<_> = ["b", "", "a", "b", "a"].iter().map(|text| strings.code(text.as_bytes()).unwrap()).collect();
        assert_eq!(codes, [1, 0, 2, 1, 2]);
        for number in 0..1000 {
            assert_eq!(strings.code(number.to_string().as_bytes()).unwrap(), number + 3);
        }
        let [offsets, data] = strings.finish();
        assert_eq!(&data.bytes()[..4], b"ba01");
        assert_eq!(&offsets.bytes()[..12], [0i32, 0, 1].map(i32::to_le_bytes).concat());
    }
}
