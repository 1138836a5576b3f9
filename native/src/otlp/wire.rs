//! Protobuf's wire format, as strict and as lenient as upb (protobuf's C parser, which Python's protobuf uses).
//!
//! <https://protobuf.dev/programming-guides/encoding/>. Tags and lengths are varints of at most 5 bytes and 32 bits, other varints of at
//! most 10 bytes whose bits beyond 64 are dropped; a known field of another wire type is an unknown field; groups are skipped.

/// The bytes are not well-formed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed;

/// What parsing gives.
pub type Result<T> = std::result::Result<T, Malformed>;

/// How deep messages and groups may nest below the outermost one (upb's limit).
pub const MAX_DEPTH: u32 = 100;

/// A length-delimited field's tag.
pub const fn tag_of(number: u32) -> u32 {
    number << 3 | 2
}

/// The budget left one level further down.
#[inline]
pub fn deeper(depth: u32) -> Result<u32> {
    depth.checked_sub(1).ok_or(Malformed)
}

/// The rest of a message's body.
#[derive(Clone, Copy)]
pub struct Reader<'a>(pub &'a [u8]);

impl<'a> Reader<'a> {
    /// Whether the body has been read to its end.
    #[inline]
    pub fn is_empty(self) -> bool {
        self.0.is_empty()
    }

    /// Field number and wire type, as on the wire (`number << 3 | type`).
    #[inline]
    pub fn tag(&mut self) -> Result<u32> {
        self.varint32()
    }

    /// A varint; bits beyond 64 are dropped.
    #[inline]
    pub fn varint(&mut self) -> Result<u64> {
        match self.0 {
            [byte, rest @ ..] if *byte < 0x80 => {
                self.0 = rest;
                Ok(u64::from(*byte))
            }
            _ => self.long_varint(10),
        }
    }

    /// A length-delimited value.
    #[inline]
    pub fn bytes(&mut self) -> Result<&'a [u8]> {
        let length = self.varint32()? as usize;
        let (value, rest) = self.0.split_at_checked(length).ok_or(Malformed)?;
        self.0 = rest;
        Ok(value)
    }

    /// A length-delimited value that must be UTF-8.
    #[inline]
    pub fn text(&mut self) -> Result<&'a [u8]> {
        let value = self.bytes()?;
        if is_text(value) { Ok(value) } else { Err(Malformed) }
    }

    /// A 64-bit value.
    #[inline]
    pub fn fixed64(&mut self) -> Result<u64> {
        let (value, rest) = self.0.split_first_chunk().ok_or(Malformed)?;
        self.0 = rest;
        Ok(u64::from_le_bytes(*value))
    }

    /// A 32-bit value.
    #[inline]
    pub fn fixed32(&mut self) -> Result<u32> {
        let (value, rest) = self.0.split_first_chunk().ok_or(Malformed)?;
        self.0 = rest;
        Ok(u32::from_le_bytes(*value))
    }

    /// Leaves out the value of an unknown field.
    #[inline]
    pub fn skip(&mut self, tag: u32, depth: u32) -> Result<()> {
        if tag >> 3 == 0 {
            return Err(Malformed);
        }
        self.skip_value(tag, depth)
    }

    fn skip_value(&mut self, tag: u32, depth: u32) -> Result<()> {
        match tag & 7 {
            0 => self.varint().map(drop),
            1 => self.fixed64().map(drop),
            2 => self.bytes().map(drop),
            3 => self.skip_group(tag >> 3, deeper(depth)?),
            5 => self.fixed32().map(drop),
            _ => Err(Malformed),
        }
    }

    /// To the group's own end tag. (upb lets field number 0 pass within groups.)
    fn skip_group(&mut self, number: u32, depth: u32) -> Result<()> {
        loop {
            let tag = self.tag()?;
            if tag & 7 == 4 {
                return if tag >> 3 == number { Ok(()) } else { Err(Malformed) };
            }
            self.skip_value(tag, depth)?;
        }
    }

    #[inline]
    fn varint32(&mut self) -> Result<u32> {
        match self.0 {
            [byte, rest @ ..] if *byte < 0x80 => {
                self.0 = rest;
                Ok(u32::from(*byte))
            }
            _ => self.long_varint(5)?.try_into().map_err(|_| Malformed),
        }
    }

    fn long_varint(&mut self, most: usize) -> Result<u64> {
        let mut value = 0u64;
        for (index, byte) in self.0.iter().take(most).enumerate() {
            value |= u64::from(byte & 0x7f) << (7 * index);
            if *byte < 0x80 {
                self.0 = &self.0[index + 1..];
                return Ok(value);
            }
        }
        Err(Malformed)
    }
}

/// Whether bytes are UTF-8. Most are ASCII and short, which is tested eight at a time.
#[inline]
pub fn is_text(bytes: &[u8]) -> bool {
    is_ascii(bytes) || simdutf8::basic::from_utf8(bytes).is_ok()
}

/// Whether no byte is above 0x7f.
#[inline]
pub fn is_ascii(bytes: &[u8]) -> bool {
    const HIGH: u64 = 0x8080_8080_8080_8080;
    let (chunks, rest) = bytes.as_chunks::<8>();
    if let Some(last) = bytes.last_chunk::<8>() {
        // The last eight bytes overlap the chunks: no loop over what is left.
        let high = chunks.iter().fold(u64::from_le_bytes(*last), |high, chunk| high | u64::from_le_bytes(*chunk));
        high & HIGH == 0
    } else {
        rest.iter().fold(0, |high, byte| high | byte) < 0x80
    }
}

/// How many bytes a varint takes.
pub fn varint_length(value: usize) -> usize {
    let bits = usize::BITS - (value | 1).leading_zeros();
    bits.div_ceil(7) as usize
}

/// Writes a length-delimited field's head: tag (of a field number below 16) and length.
pub fn write_head(out: &mut Vec<u8>, number: u8, length: usize) {
    out.push(number << 3 | 2);
    write_varint(out, length);
}

/// Writes a varint.
pub fn write_varint(out: &mut Vec<u8>, mut value: usize) {
    while value > 0x7f {
        out.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn skipped(bytes: &[u8]) -> Result<usize> {
        let mut reader = Reader(bytes);
        let tag = reader.tag()?;
        reader.skip(tag, MAX_DEPTH)?;
        Ok(reader.0.len())
    }

    #[test]
    fn varints_end_after_ten_bytes() {
        assert_eq!(Reader(&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f]).varint(), Ok(u64::MAX));
        assert_eq!(Reader(&[0x80; 11]).varint(), Err(Malformed));
        assert_eq!(Reader(&[0x80]).varint(), Err(Malformed));
        assert_eq!(Reader(&[]).varint(), Err(Malformed));
    }

    #[test]
    fn tags_and_lengths_have_32_bits() {
        assert_eq!(Reader(&[0xfa, 0xff, 0xff, 0xff, 0x0f]).tag(), Ok(0xffff_fffa));
        assert_eq!(Reader(&[0xfa, 0xff, 0xff, 0xff, 0x1f]).tag(), Err(Malformed));
        assert_eq!(Reader(&[0x80, 0x80, 0x80, 0x80, 0x80, 0x00]).tag(), Err(Malformed));
        assert_eq!(Reader(&[0xff, 0xff, 0xff, 0xff, 0x0f, 1, 2, 3]).bytes(), Err(Malformed));
    }

    #[test]
    fn groups_are_skipped_to_their_own_end() {
        assert_eq!(skipped(&[0x0b, 0x13, 0x14, 0x0c, 9]), Ok(1));
        assert_eq!(skipped(&[0x0b, 0x14]), Err(Malformed));
        assert_eq!(skipped(&[0x0b]), Err(Malformed));
        assert_eq!(skipped(&[0x0c]), Err(Malformed));
        assert_eq!(skipped(&[vec![0x0b; 100], vec![0x0c; 100]].concat()), Ok(0));
        assert_eq!(skipped(&[vec![0x0b; 101], vec![0x0c; 101]].concat()), Err(Malformed));
    }

    #[test]
    fn utf8_is_checked_at_every_length() {
        for length in 0..40 {
            let mut bytes = vec![b'a'; length];
            assert!(is_text(&bytes));
            for at in 0..length {
                bytes[at] = 0xff;
                assert!(!is_text(&bytes));
                bytes[at] = b'a';
            }
        }
        assert!(is_text("größe".as_bytes()));
        assert!(!is_text(b"\xed\xa0\x80"));
    }

    #[test]
    fn heads_are_read_back() {
        for length in [0, 1, 127, 128, 16_383, 16_384, 1 << 21, 1 << 28] {
            let mut out = Vec::new();
            write_head(&mut out, 2, length);
            assert_eq!(out.len(), 1 + varint_length(length));
            assert_eq!(Reader(&out[1..]).varint(), Ok(length as u64));
        }
    }
}
