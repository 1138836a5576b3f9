//! AnyValue, and its text: what `schemas/otlp/text.py` says, which see.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hashbrown::HashMap;

use crate::otlp::descriptor::{ARRAY_VALUE, KEY_VALUE_LIST, Message, validate};
use crate::otlp::wire::{MAX_DEPTH, Reader, Result, deeper};

/// A value, borrowed from the payload. Strings are known to be UTF-8, arrays and maps to be well-formed; these stay bytes until they are
/// written, so that what a sender nests costs no more memory than it sent.
#[derive(Debug, PartialEq)]
pub enum Any<'a> {
    /// None of the cases below is set (or one that is for profiles only).
    Empty,
    /// A string.
    Text(&'a [u8]),
    /// A boolean.
    Bool(bool),
    /// An integer.
    Int(i64),
    /// A double.
    Double(f64),
    /// Bytes.
    Bytes(&'a [u8]),
    /// Bodies of ArrayValue messages, which are one when joined.
    Array(Vec<&'a [u8]>),
    /// Bodies of KeyValueList messages, which are one when joined.
    Map(Vec<&'a [u8]>),
}

/// What is known of bytes that are read.
#[derive(Clone, Copy)]
enum Known {
    /// They are well-formed.
    Valid,
    /// Nothing; this many levels may follow below them.
    Nothing(u32),
}

impl Known {
    fn deeper(self) -> Result<Self> {
        match self {
            Self::Valid => Ok(Self::Valid),
            Self::Nothing(depth) => deeper(depth).map(Self::Nothing),
        }
    }

    fn check(self, message: &Message, body: &[u8]) -> Result<()> {
        match self {
            Self::Valid => Ok(()),
            Self::Nothing(depth) => validate(message, body, deeper(depth)?),
        }
    }

    fn depth(self) -> u32 {
        match self {
            Self::Valid => MAX_DEPTH,
            Self::Nothing(depth) => depth,
        }
    }
}

impl<'a> Any<'a> {
    /// Reads the body of an AnyValue, of which nothing is known, on top of what is there.
    pub fn read(&mut self, body: &'a [u8], depth: u32) -> Result<()> {
        self.merge(body, Known::Nothing(depth))
    }

    /// Reads `body` on top of what is there: of the cases the last one counts, and equal message cases in a row are merged.
    fn merge(&mut self, body: &'a [u8], known: Known) -> Result<()> {
        let mut reader = Reader(body);
        while !reader.is_empty() {
            match reader.tag()? {
                0x0a => *self = Self::Text(reader.text()?),
                0x10 => *self = Self::Bool(reader.varint()? != 0),
                0x18 => *self = Self::Int(reader.varint()? as i64),
                0x21 => *self = Self::Double(f64::from_bits(reader.fixed64()?)),
                0x2a => {
                    let piece = reader.bytes()?;
                    known.check(&ARRAY_VALUE, piece)?;
                    match self {
                        Self::Array(pieces) => pieces.push(piece),
                        _ => *self = Self::Array(vec![piece]),
                    }
                }
                0x32 => {
                    let piece = reader.bytes()?;
                    known.check(&KEY_VALUE_LIST, piece)?;
                    match self {
                        Self::Map(pieces) => pieces.push(piece),
                        _ => *self = Self::Map(vec![piece]),
                    }
                }
                0x3a => *self = Self::Bytes(reader.bytes()?),
                0x40 => {
                    reader.varint()?;
                    *self = Self::Empty;
                }
                tag => reader.skip(tag, known.depth())?,
            }
        }
        Ok(())
    }

    /// Appends the value as text.
    pub fn write_text(&self, out: &mut Vec<u8>) {
        match self {
            Self::Empty => {}
            Self::Text(text) => out.extend_from_slice(text),
            Self::Double(number) => write_double(*number, out),
            Self::Bytes(bytes) => out.extend_from_slice(STANDARD.encode(bytes).as_bytes()),
            _ => self.write_json(out),
        }
    }

    fn write_json(&self, out: &mut Vec<u8>) {
        match self {
            Self::Empty => out.extend_from_slice(b"null"),
            Self::Bool(value) => out.extend_from_slice(if *value { b"true" } else { b"false" }),
            Self::Int(number) => out.extend_from_slice(number.to_string().as_bytes()),
            Self::Double(number) if number.is_finite() => write_double(*number, out),
            Self::Text(text) => write_quoted(text, out),
            Self::Array(pieces) => write_listed(b"[]", elements(pieces), out, |body, out| {
                let mut value = Any::Empty;
                value.merge(body, Known::Valid).expect("checked before");
                value.write_json(out);
            }),
            Self::Map(pieces) => {
                let pairs = elements(pieces).map(|body| read_key_value(body, Known::Valid).expect("checked before"));
                let mut last = unique(pairs, elements(pieces).count());
                last.sort_unstable_by_key(|(key, _)| *key);
                write_listed(b"{}", last.into_iter(), out, |(key, value), out| {
                    write_quoted(key, out);
                    out.push(b':');
                    value.write_json(out);
                });
            }
            Self::Double(_) | Self::Bytes(_) => {
                out.push(b'"'); // nothing in these texts needs an escape
                self.write_text(out);
                out.push(b'"');
            }
        }
    }
}

/// Key and value of a KeyValue's body.
pub fn key_value(body: &[u8], depth: u32) -> Result<(&[u8], Any<'_>)> {
    read_key_value(body, Known::Nothing(depth))
}

fn read_key_value(body: &[u8], known: Known) -> Result<(&[u8], Any<'_>)> {
    let (mut key, mut value) = (&b""[..], Any::Empty);
    let mut reader = Reader(body);
    while !reader.is_empty() {
        match reader.tag()? {
            0x0a => key = reader.text()?,
            0x12 => value.merge(reader.bytes()?, known.deeper()?)?,
            tag => reader.skip(tag, known.depth())?,
        }
    }
    Ok((key, value))
}

/// The elements (field 1) of an ArrayValue or KeyValueList that has been checked.
fn elements<'a>(pieces: &[&'a [u8]]) -> impl Iterator<Item = &'a [u8]> {
    pieces.iter().flat_map(|piece| {
        let mut reader = Reader(piece);
        std::iter::from_fn(move || {
            while !reader.is_empty() {
                match reader.tag().expect("checked before") {
                    0x0a => return Some(reader.bytes().expect("checked before")),
                    tag => reader.skip(tag, MAX_DEPTH).expect("checked before"),
                }
            }
            None
        })
    })
}

/// Of equal keys the last value, at the place of the first.
pub fn unique_attributes<'a>(attributes: Vec<(&'a [u8], Any<'a>)>) -> Vec<(&'a [u8], Any<'a>)> {
    let count = attributes.len();
    unique(attributes.into_iter(), count)
}

/// The same for any pairs, of which there are `count`.
fn unique<'a, V>(pairs: impl Iterator<Item = (&'a [u8], V)>, count: usize) -> Vec<(&'a [u8], V)> {
    const FEW: usize = 32; // up to here comparing with all is quicker than hashing
    let mut kept: Vec<(&[u8], V)> = Vec::with_capacity(count.min(FEW));
    let mut places: HashMap<&[u8], usize> = HashMap::new();
    for (key, value) in pairs {
        let place = if count <= FEW {
            kept.iter().position(|(known, _)| *known == key).unwrap_or(kept.len())
        } else {
            *places.entry(key).or_insert(kept.len())
        };
        match kept.get_mut(place) {
            Some(known) => known.1 = value,
            None => kept.push((key, value)),
        }
    }
    kept
}

fn write_listed<T>(brackets: &[u8; 2], items: impl Iterator<Item = T>, out: &mut Vec<u8>, write: impl Fn(T, &mut Vec<u8>)) {
    out.push(brackets[0]);
    for (index, item) in items.enumerate() {
        if index > 0 {
            out.push(b',');
        }
        write(item, out);
    }
    out.push(brackets[1]);
}

/// As Go's encoding/json writes doubles; Rust's own formats give the shortest digits that read back.
fn write_double(number: f64, out: &mut Vec<u8>) {
    let magnitude = number.abs();
    let text = if number.is_nan() {
        "NaN".into()
    } else if number.is_infinite() {
        if number > 0.0 { "Infinity".into() } else { "-Infinity".into() }
    } else if magnitude >= 1e21 {
        format!("{number:e}").replace('e', "e+")
    } else if magnitude != 0.0 && magnitude < 1e-6 {
        format!("{number:e}")
    } else {
        format!("{number}")
    };
    out.extend_from_slice(text.as_bytes());
}

fn write_quoted(text: &[u8], out: &mut Vec<u8>) {
    const LINE_SEPARATORS: [&[u8]; 2] = ["\u{2028}".as_bytes(), "\u{2029}".as_bytes()];
    out.push(b'"');
    for (index, byte) in text.iter().enumerate() {
        let short = match byte {
            b'"' | b'\\' => *byte,
            8 => b'b',
            9 => b't',
            10 => b'n',
            12 => b'f',
            13 => b'r',
            _ => 0,
        };
        if short != 0 {
            out.extend_from_slice(&[b'\\', short]);
        } else if *byte < 0x20 {
            out.extend_from_slice(format!("\\u{byte:04x}").as_bytes());
        } else {
            out.push(*byte);
            if *byte & 0xfe == 0xa8 && index >= 2 && LINE_SEPARATORS.contains(&&text[index - 2..=index]) {
                out.truncate(out.len() - 3);
                out.extend_from_slice(if *byte == 0xa8 { b"\\u2028" } else { b"\\u2029" });
            }
        }
    }
    out.push(b'"');
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(value: &Any<'_>) -> String {
        let mut out = Vec::new();
        value.write_text(&mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn doubles_are_written_as_go_does() {
        let cases = [
            (0.0, "0"),
            (-0.0, "-0"),
            (100.0, "100"),
            (1e20, "100000000000000000000"),
            (1e21, "1e+21"),
            (1e-6, "0.000001"),
            (-1.5e-7, "-1.5e-7"),
            (f64::INFINITY, "Infinity"),
            (f64::NAN, "NaN"),
        ];
        for (number, expected) in cases {
            assert_eq!(text(&Any::Double(number)), expected);
        }
    }

    fn read(body: &[u8]) -> Any<'_> {
        let mut value = Any::Empty;
        value.merge(body, Known::Nothing(9)).unwrap();
        value
    }

    fn field(number: u8, body: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        crate::otlp::wire::write_head(&mut out, number, body.len());
        out.extend_from_slice(body);
        out
    }

    #[test]
    fn json_has_sorted_keys_the_last_of_equal_ones_and_gos_escapes() {
        let pair = |key: &[u8], value: &[u8]| field(1, &[field(1, key), field(2, value)].concat());
        let array = [field(1, b""), field(1, &field(7, b"\xff")), field(1, &field(1, "\n\u{1}\u{2028}<".as_bytes()))].concat();
        let map = [pair(b"b", b"\x18\x01"), pair(b"a", &field(5, &array)), pair(b"b", b"\x10\x01")].concat();
        assert_eq!(text(&read(&field(6, &map))), r#"{"a":[null,"/w==","\n\u0001\u2028<"],"b":true}"#);
    }

    #[test]
    fn equal_cases_in_a_row_are_merged() {
        let array = |number: u8| field(5, &field(1, &[0x18, number]));
        assert_eq!(text(&read(&[array(1), array(2)].concat())), "[1,2]");
        assert_eq!(text(&read(&[array(1), b"\x18\x07".to_vec(), array(3)].concat())), "[3]");
    }

    #[test]
    fn many_keys_are_made_unique_as_few_are() {
        let names: Vec<String> = (0..100).map(|number| (number % 50).to_string()).collect();
        let kept = unique(names.iter().enumerate().map(|(index, name)| (name.as_bytes(), index)), names.len());
        assert_eq!(kept.len(), 50);
        assert_eq!(kept[7], (&b"7"[..], 57));
    }
}
