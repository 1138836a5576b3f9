//! Arrow buffers. <https://arrow.apache.org/docs/format/Columnar.html>

use crate::Error;
use crate::otlp::value::Any;

/// One buffer of an Arrow array.
#[derive(Debug)]
pub enum Buffer {
    /// Bytes, text, or a bitmap.
    U8(Vec<u8>),
    /// 2-byte numbers.
    U16(Vec<u16>),
    /// 2-byte signed numbers.
    I16(Vec<i16>),
    /// 4-byte numbers.
    U32(Vec<u32>),
    /// 4-byte signed numbers (offsets).
    I32(Vec<i32>),
    /// 8-byte numbers.
    U64(Vec<u64>),
    /// 8-byte signed numbers.
    I64(Vec<i64>),
}

impl Buffer {
    /// The memory, as Arrow wants it (little-endian on all machines this is built for).
    pub fn bytes(&self) -> &[u8] {
        match self {
            Self::U8(values) => values,
            Self::U16(values) => bytemuck::cast_slice(values),
            Self::I16(values) => bytemuck::cast_slice(values),
            Self::U32(values) => bytemuck::cast_slice(values),
            Self::I32(values) => bytemuck::cast_slice(values),
            Self::U64(values) => bytemuck::cast_slice(values),
            Self::I64(values) => bytemuck::cast_slice(values),
        }
    }
}

/// A bitmap: booleans, or which values are there.
#[derive(Default)]
pub struct Bits {
    bytes: Vec<u8>,
    length: usize,
}

impl Bits {
    /// Appends one.
    pub fn push(&mut self, bit: bool) {
        if self.length.is_multiple_of(8) {
            self.bytes.push(0);
        }
        if bit {
            self.bytes[self.length / 8] |= 1 << (self.length % 8);
        }
        self.length += 1;
    }

    /// The buffer.
    pub fn finish(self) -> Buffer {
        Buffer::U8(self.bytes)
    }
}

/// Arrow's 32-bit offset of `length`.
pub fn offset(length: usize) -> Result<i32, Error> {
    i32::try_from(length).map_err(|_| Error::TooLarge)
}

/// Strings.
pub struct Texts {
    offsets: Vec<i32>,
    data: Vec<u8>,
}

impl Default for Texts {
    fn default() -> Self {
        Self { offsets: vec![0], data: Vec::new() }
    }
}

impl Texts {
    /// Appends one.
    pub fn push(&mut self, text: &[u8]) -> Result<(), Error> {
        self.data.extend_from_slice(text);
        self.close()
    }

    /// Appends a value's text.
    pub fn push_value(&mut self, value: &Any<'_>) -> Result<(), Error> {
        value.write_text(&mut self.data);
        self.close()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.offsets.len() - 1
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// One of them.
    pub fn get(&self, index: usize) -> &[u8] {
        &self.data[self.offsets[index] as usize..self.offsets[index + 1] as usize]
    }

    /// Offsets and text.
    pub fn finish(self) -> [Buffer; 2] {
        [Buffer::I32(self.offsets), Buffer::U8(self.data)]
    }

    fn close(&mut self) -> Result<(), Error> {
        self.offsets.push(offset(self.data.len())?);
        Ok(())
    }
}

/// Maps of strings to strings.
pub struct Maps {
    offsets: Vec<i32>,
    keys: Texts,
    values: Texts,
}

impl Default for Maps {
    fn default() -> Self {
        Self { offsets: vec![0], keys: Texts::default(), values: Texts::default() }
    }
}

impl Maps {
    /// Appends a map; the keys differ from one another.
    pub fn push<'a>(&mut self, pairs: &[(&[u8], Any<'a>)]) -> Result<(), Error> {
        for (key, value) in pairs {
            self.keys.push(key)?;
            self.values.push_value(value)?;
        }
        self.offsets.push(offset(self.keys.len())?);
        Ok(())
    }

    /// Offsets, then those and the text of keys, then of values.
    pub fn finish(self) -> impl Iterator<Item = Buffer> {
        [Buffer::I32(self.offsets)].into_iter().chain(self.keys.finish()).chain(self.values.finish())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_are_packed_from_the_lowest() {
        let mut bits = Bits::default();
        for index in 0..10 {
            bits.push(index % 3 == 0);
        }
        assert_eq!(bits.finish().bytes(), [0b0100_1001, 0b0000_0010]);
    }

    #[test]
    fn offsets_do_not_wrap() {
        assert_eq!(offset(7).unwrap(), 7);
        assert!(matches!(offset(1 << 31), Err(Error::TooLarge)));
    }
}
