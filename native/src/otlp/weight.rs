//! What payloads take as rows, known without making them: items, and what items have many of. `schemas/otlp/limits.py` has the same.

use crate::otlp::framing::each;
use crate::otlp::point_fields::{EXPONENTIAL_KIND, HISTOGRAM_KIND, SUMMARY_KIND, read_metric};
use crate::otlp::split::Signal;
use crate::otlp::wire::{MAX_DEPTH, Reader, Result};

/// A row, with its copies within the stages.
pub const ITEM_BYTES: usize = 256;
/// An event, a link, an exemplar.
pub const DETAIL_BYTES: usize = 64;
/// A number of a distribution.
pub const NUMBER_BYTES: usize = 8;

/// What a payload has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Weight {
    /// Spans, data points, log records.
    pub items: usize,
    /// Events and links of spans, exemplars of points.
    pub details: usize,
    /// Numbers of distributions.
    pub numbers: usize,
}

impl Weight {
    /// What the rows take, about; the bytes that the payload has itself are not among them.
    pub fn bytes(self) -> usize {
        self.items * ITEM_BYTES + self.details * DETAIL_BYTES + self.numbers * NUMBER_BYTES
    }
}

/// The weight of a payload. Reads framing only: an error says that it is not well-formed, none does not say that it is.
pub fn weigh(signal: Signal, payload: &[u8]) -> Result<Weight> {
    let mut weight = Weight::default();
    let mut points = Vec::new();
    each(payload, 0x0a, |container| {
        each(container, 0x12, |scope| {
            each(scope, 0x12, |item| {
                match signal {
                    Signal::Spans => {
                        weight.items += 1;
                        weight.details += count(item, &[0x5a, 0x6a])?;
                    }
                    Signal::Logs => weight.items += 1,
                    Signal::Metrics => {
                        let kind = read_metric(item, &mut points, MAX_DEPTH)?.kind;
                        weight.items += points.len();
                        for point in &points {
                            weight.point(kind, point)?;
                        }
                    }
                }
                Ok(())
            })
        })
    })?;
    Ok(weight)
}

impl Weight {
    fn point(&mut self, kind: usize, body: &[u8]) -> Result<()> {
        let mut reader = Reader(body);
        while !reader.is_empty() {
            match (kind, reader.tag()?) {
                (HISTOGRAM_KIND, 0x31 | 0x39) => {
                    self.numbers += 1;
                    reader.fixed64()?;
                }
                (HISTOGRAM_KIND, 0x32 | 0x3a) => self.numbers += reader.bytes()?.len() / 8,
                (EXPONENTIAL_KIND, 0x42 | 0x4a) => self.numbers += buckets(reader.bytes()?)?,
                (SUMMARY_KIND, 0x32) => {
                    self.numbers += 2;
                    reader.bytes()?;
                }
                (HISTOGRAM_KIND, 0x42) | (EXPONENTIAL_KIND, 0x5a) | (0 | 1, 0x2a) => {
                    self.details += 1;
                    reader.bytes()?;
                }
                (_, tag) => reader.skip(tag, MAX_DEPTH)?,
            }
        }
        Ok(())
    }
}

/// How many counts an exponential histogram's Buckets have.
fn buckets(body: &[u8]) -> Result<usize> {
    let mut counts = 0;
    let mut reader = Reader(body);
    while !reader.is_empty() {
        match reader.tag()? {
            0x10 => {
                counts += 1;
                reader.varint()?;
            }
            0x12 => counts += reader.bytes()?.iter().filter(|byte| **byte < 0x80).count(),
            tag => reader.skip(tag, MAX_DEPTH)?,
        }
    }
    Ok(counts)
}

/// How many fields have one of these tags.
fn count(body: &[u8], tags: &[u32]) -> Result<usize> {
    let mut found = 0;
    let mut reader = Reader(body);
    while !reader.is_empty() {
        let tag = reader.tag()?;
        found += usize::from(tags.contains(&tag));
        reader.skip(tag, MAX_DEPTH)?;
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn empty_items_weigh_as_much_as_others() {
        let payload = b"\x0a\x06\x12\x04\x12\x00\x12\x00";
        assert_eq!(weigh(Signal::Logs, payload), Ok(Weight { items: 2, ..Weight::default() }));
        assert_eq!(weigh(Signal::Logs, payload).unwrap().bytes(), 2 * ITEM_BYTES);
        let span = b"\x0a\x08\x12\x06\x12\x04\x5a\x00\x6a\x00";
        assert_eq!(weigh(Signal::Spans, span), Ok(Weight { items: 1, details: 2, numbers: 0 }));
        assert!(weigh(Signal::Spans, b"\x0a\x09").is_err());
    }
}
