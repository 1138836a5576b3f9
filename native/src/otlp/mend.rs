//! A request that is not well-formed, mended item by item. `schemas/otlp/reference_mend.py` is the slow twin.
//!
//! Requests that are well-formed never come here. A text that is not UTF-8 keeps what is, and gets U+FFFD for each maximal subpart of an
//! ill-formed sequence (the WHATWG Encoding Standard's rule, which Rust's `from_utf8_lossy` and Python's `errors="replace"` follow).
//! Attribute values that nest deeper than protobuf's parsers read are replaced by a mark. Of what can't be mended the smallest part whose
//! ends are known is left out: an item, else the metric, scope or resource around it.

use crate::otlp::descriptor::{ANY_VALUE, KEY_VALUE, Kind, LOGS_DATA, METRICS_DATA, Message, TRACES_DATA, validate, validate_varints};
use crate::otlp::framing::before;
use crate::otlp::split::Signal;
use crate::otlp::wire::{MAX_DEPTH, Malformed, Reader, Result, deeper, is_text, varint_length, write_head, write_varint};

const MARK: &[u8] = b"meshflow.cut"; // the text in place of what nests too deep
const FFFD: &[u8] = "\u{fffd}".as_bytes();
/// How many levels an array or a map of a plain value takes below its AnyValue.
const NESTED: u32 = 4;
/// So much longer a request may become (a bad byte becomes three, a short array a mark); items beyond are left out.
const MAX_GROWTH: usize = 1 << 20;

/// Tags of the fields that lead from a request to its items.
type Path = &'static [&'static [u32]];
const ITEMS: Path = &[&[0x0a], &[0x12], &[0x12]];
const POINTS: Path = &[&[0x0a], &[0x12], &[0x12], &[0x2a, 0x3a, 0x4a, 0x52, 0x5a], &[0x0a]];

/// A request that is well-formed.
#[derive(Debug, PartialEq, Eq)]
pub struct Mended {
    /// The request.
    pub body: Vec<u8>,
    /// Texts with U+FFFD, and values that were cut.
    pub repaired: u64,
    /// Items left out, as far as they could be counted.
    pub dropped: u64,
}

/// Mends a request; an error where its outermost message is not well-formed. What is well-formed comes back as it is.
pub fn mend(signal: Signal, request: &[u8]) -> Result<Mended> {
    if request.len() > i32::MAX as usize {
        return Err(Malformed); // as protobuf has it
    }
    let (message, path) = match signal {
        Signal::Spans => (&TRACES_DATA, ITEMS),
        Signal::Metrics => (&METRICS_DATA, POINTS),
        Signal::Logs => (&LOGS_DATA, ITEMS),
    };
    let mut mender = Mender { out: Vec::with_capacity(request.len() + request.len() / 64), counts: Counts::default() };
    mender.holder(message, request, MAX_DEPTH, path)?;
    Ok(Mended { body: mender.out, repaired: mender.counts.repaired, dropped: mender.counts.dropped })
}

#[derive(Clone, Copy, Default)]
struct Counts {
    repaired: u64,
    dropped: u64,
    grown: usize,
}

struct Mender {
    out: Vec<u8>,
    counts: Counts,
}

impl Mender {
    /// A message that holds others on the way to items.
    fn holder(&mut self, message: &'static Message, body: &[u8], depth: u32, path: Path) -> Result<()> {
        let Some((tags, rest)) = path.split_first() else { return self.message(message, body, depth) };
        let mut reader = Reader(body);
        while !reader.is_empty() {
            let field = reader.0;
            let tag = reader.tag()?;
            match message.kind(tag >> 3) {
                Kind::Message(inner) if tags.contains(&tag) => {
                    let value = reader.bytes()?;
                    self.part(tag, before(field, reader), inner, value, deeper(depth)?, rest);
                }
                _ => self.field(message, tag, field, &mut reader, depth)?,
            }
        }
        Ok(())
    }

    /// An item, or a message that holds items: as it is, mended, or left out.
    fn part(&mut self, tag: u32, whole: &[u8], message: &'static Message, body: &[u8], depth: u32, path: Path) {
        if validate(message, body, depth).is_ok() {
            return self.out.extend_from_slice(whole);
        }
        let (begin, counts) = (self.out.len(), self.counts);
        if self.framed(tag, body.len(), |mender| mender.holder(message, body, depth, path)).is_err() {
            self.out.truncate(begin);
            self.counts = counts;
            self.counts.dropped += count(body, path).max(1);
        }
    }

    /// Any other message.
    fn message(&mut self, message: &'static Message, body: &[u8], depth: u32) -> Result<()> {
        let mut reader = Reader(body);
        while !reader.is_empty() {
            let field = reader.0;
            let tag = reader.tag()?;
            self.field(message, tag, field, &mut reader, depth)?;
        }
        Ok(())
    }

    /// One of its fields, which begins at `field` and whose tag has been read.
    fn field(&mut self, message: &'static Message, tag: u32, field: &[u8], reader: &mut Reader<'_>, depth: u32) -> Result<()> {
        let kind = if tag & 7 == 2 { message.kind(tag >> 3) } else { Kind::Bytes };
        let inner = match kind {
            Kind::Message(_) if std::ptr::eq(message, &ANY_VALUE) && depth < NESTED => {
                let length = reader.bytes()?.len();
                return self.mark(length);
            }
            Kind::Message(inner) => inner,
            Kind::Attribute => &KEY_VALUE,
            _ => {
                let mut value = *reader;
                reader.skip(tag, depth)?;
                let is_whole = match kind {
                    Kind::Text => {
                        let text = value.bytes()?;
                        if !is_text(text) {
                            return self.text(tag, text);
                        }
                        true
                    }
                    Kind::PackedFixed64 => value.bytes()?.len().is_multiple_of(8),
                    Kind::PackedVarint => validate_varints(value.bytes()?).is_ok(),
                    _ => true,
                };
                self.out.extend_from_slice(before(field, *reader));
                return if is_whole { Ok(()) } else { Err(Malformed) };
            }
        };
        let (value, depth) = (reader.bytes()?, deeper(depth)?);
        self.framed(tag, value.len(), |mender| mender.message(inner, value, depth))
    }

    /// A text that is not UTF-8.
    fn text(&mut self, tag: u32, text: &[u8]) -> Result<()> {
        self.counts.repaired += 1;
        self.framed(tag, text.len(), |mender| {
            for chunk in text.utf8_chunks() {
                mender.out.extend_from_slice(chunk.valid().as_bytes());
                if !chunk.invalid().is_empty() {
                    mender.grow(FFFD.len() - chunk.invalid().len())?; // a maximal subpart has one to three bytes
                    mender.out.extend_from_slice(FFFD);
                }
            }
            Ok(())
        })
    }

    /// The mark, a string, in place of an array or a map whose body has `length` bytes.
    fn mark(&mut self, length: usize) -> Result<()> {
        self.counts.repaired += 1;
        self.grow(MARK.len().saturating_sub(length))?;
        write_head(&mut self.out, 1, MARK.len());
        self.out.extend_from_slice(MARK);
        Ok(())
    }

    fn grow(&mut self, bytes: usize) -> Result<()> {
        self.counts.grown += bytes;
        if self.counts.grown > MAX_GROWTH { Err(Malformed) } else { Ok(()) }
    }

    /// A length-delimited field whose body had `length` bytes, and is now what `write` appends.
    fn framed(&mut self, tag: u32, length: usize, write: impl FnOnce(&mut Self) -> Result<()>) -> Result<()> {
        write_varint(&mut self.out, tag as usize);
        let head = self.out.len();
        let room = varint_length(length); // nearly always what the new length takes too
        self.out.resize(head + room, 0);
        let begin = self.out.len();
        write(self)?;
        let mut varint = Vec::with_capacity(5);
        write_varint(&mut varint, self.out.len() - begin);
        drop(self.out.splice(head..begin, varint));
        Ok(())
    }
}

/// How many items a holder has, up to the first fault.
fn count(body: &[u8], path: Path) -> u64 {
    let Some((tags, rest)) = path.split_first() else { return 1 };
    let (mut items, mut reader) = (0, Reader(body));
    while let Ok(tag) = reader.tag() {
        if !tags.contains(&tag) {
            if reader.skip(tag, MAX_DEPTH).is_err() {
                break;
            }
        } else if let Ok(inner) = reader.bytes() {
            items += count(inner, rest);
        } else {
            break;
        }
    }
    items
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::otlp::split::split;

    fn framed(number: u8, bodies: &[&[u8]]) -> Vec<u8> {
        let body = bodies.concat();
        let mut out = Vec::new();
        write_head(&mut out, number, body.len());
        out.extend_from_slice(&body);
        out
    }

    fn request(items: &[&[u8]]) -> Vec<u8> {
        let items: Vec<Vec<u8>> = items.iter().map(|item| framed(2, &[item])).collect();
        let items: Vec<&[u8]> = items.iter().map(Vec::as_slice).collect();
        framed(1, &[&framed(2, &items)])
    }

    fn named(name: &[u8]) -> Vec<u8> {
        [framed(1, &[&[1; 16]]), framed(2, &[&[1; 8]]), framed(5, &[name])].concat()
    }

    #[test]
    fn a_byte_that_is_not_text_costs_itself() {
        let mended = mend(Signal::Spans, &request(&[&named(b"a"), &named(b"b\xffc\xe2\x82")])).unwrap();
        let wanted = request(&[&named(b"a"), &named("b\u{fffd}c\u{fffd}".as_bytes())]);
        assert_eq!(mended, Mended { body: wanted, repaired: 1, dropped: 0 });
        assert_eq!(split(Signal::Spans, &mended.body, 4).unwrap().items, 2);
    }

    #[test]
    fn what_is_no_message_is_left_out_alone() {
        let mended = mend(Signal::Spans, &request(&[&named(b"a"), b"\x0a\xff", &named(b"c")])).unwrap();
        assert_eq!(mended, Mended { body: request(&[&named(b"a"), &named(b"c")]), repaired: 0, dropped: 1 });
        let broken = framed(1, &[&framed(2, &[&framed(2, &[b""]), b"\x12\x05"])]);
        let mended = mend(Signal::Logs, &[broken, request(&[b""])].concat()).unwrap();
        assert_eq!(mended.dropped, 1);
        assert_eq!(split(Signal::Logs, &mended.body, 4).unwrap().items, 1);
        assert_eq!(mend(Signal::Spans, b"\x0a\x05"), Err(Malformed));
    }

    #[test]
    fn values_are_cut_where_they_nest_too_deep() {
        let mut value = framed(1, &[b"deep"]);
        for _ in 0..200 {
            value = framed(5, &[&framed(1, &[&value])]);
        }
        let body = mend(Signal::Logs, &request(&[&framed(5, &[&value])])).unwrap();
        assert_eq!((body.repaired, body.dropped), (1, 0));
        assert!(body.body.ends_with(MARK));
        assert_eq!(split(Signal::Logs, &body.body, 4).unwrap().items, 1);
    }

    #[test]
    fn repairs_do_not_make_a_request_much_longer() {
        let bad = named(&[0xff; 400_000]);
        let mended = mend(Signal::Spans, &request(&[&bad, &bad, &named(b"c")])).unwrap();
        assert_eq!((mended.repaired, mended.dropped), (1, 1));
        assert_eq!(split(Signal::Spans, &mended.body, 4).unwrap().items, 2);
    }
}
