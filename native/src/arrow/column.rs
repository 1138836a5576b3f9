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
    /// Doubles.
    F64(Vec<f64>),
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
            Self::F64(values) => bytemuck::cast_slice(values),
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

/// As much of a UTF-8 text as fits into `limit` bytes and ends between two characters.
pub fn within(text: &[u8], limit: usize) -> &[u8] {
    if text.len() <= limit {
        return text;
    }
    let is_inside = |at: &usize| text[*at] & 0xc0 == 0x80;
    let end = (0..=limit).rev().find(|at| !is_inside(at)).unwrap_or(0);
    &text[..end]
}

/// Where the lists of a list column begin and end.
pub struct Offsets(Vec<i32>);

impl Default for Offsets {
    fn default() -> Self {
        Self(vec![0])
    }
}

impl Offsets {
    /// How many lists there are.
    pub fn len(&self) -> usize {
        self.0.len() - 1
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Ends a list; `length` is that of all lists so far.
    pub fn close(&mut self, length: usize) -> Result<(), Error> {
        self.0.push(offset(length)?);
        Ok(())
    }

    /// The buffer.
    pub fn finish(self) -> Buffer {
        Buffer::I32(self.0)
    }

    /// The same for one of several columns of lists that are equally long.
    pub fn shared(&self) -> Buffer {
        Buffer::I32(self.0.clone())
    }
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

    /// Appends at most `limit` bytes of a value's text; how many bytes were left out.
    pub fn push_value_within(&mut self, value: &Any<'_>, limit: usize) -> Result<usize, Error> {
        let begin = self.data.len();
        value.write_text(&mut self.data);
        let length = self.data.len() - begin;
        let kept = within(&self.data[begin..], limit).len();
        self.data.truncate(begin + kept);
        self.close()?;
        Ok(length - kept)
    }

    /// Bytes of all texts.
    pub fn size(&self) -> usize {
        self.data.len()
    }

    /// Takes the last one back.
    pub fn pop(&mut self) {
        self.offsets.pop();
        self.data.truncate(self.offsets[self.offsets.len() - 1] as usize);
    }

    fn close(&mut self) -> Result<(), Error> {
        self.offsets.push(offset(self.data.len())?);
        Ok(())
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
    fn texts_are_cut_between_characters() {
        let text = "aé日".as_bytes(); // 1 + 2 + 3 bytes
        let kept: Vec<usize> = (0..8).map(|limit| within(text, limit).len()).collect();
        assert_eq!(kept, [0, 1, 1, 3, 3, 3, 6, 6]);
    }

    #[test]
    fn offsets_do_not_wrap() {
        assert_eq!(offset(7).unwrap(), 7);
        assert!(matches!(offset(1 << 31), Err(Error::TooLarge)));
    }
}
