//! What a Metric message and its data points say, field by field.

use crate::Error;
use crate::arrow::column::Offsets;
use crate::otlp::descriptor::{EXPONENTIAL_HISTOGRAM, GAUGE, HISTOGRAM, METRIC, Message, SUM, SUMMARY, validate, validate_field};
use crate::otlp::wire::{Malformed, Reader, Result, deeper};

/// A kind of data by its place: gauge, sum, histogram, exponential histogram, summary.
pub const KINDS: [(u32, &Message); 5] =
    [(0x2a, &GAUGE), (0x3a, &SUM), (0x4a, &HISTOGRAM), (0x52, &EXPONENTIAL_HISTOGRAM), (0x5a, &SUMMARY)];
/// The place of a histogram.
pub const HISTOGRAM_KIND: usize = 2;
/// The place of an exponential histogram.
pub const EXPONENTIAL_KIND: usize = 3;
/// The place of a summary.
pub const SUMMARY_KIND: usize = 4;

/// A Metric, but for its points, which go to the scratch.
#[derive(Default)]
pub struct Metric<'a> {
    pub name: &'a [u8],
    pub description: &'a [u8],
    pub unit: &'a [u8],
    /// Place in KINDS; without meaning when there are no points.
    pub kind: usize,
    pub temporality: i32,
    pub monotonic: bool,
}

/// Reads a Metric; the bodies of its points go to `points`. Of different kinds of data the last one counts, equal ones in a row are merged.
pub fn read_metric<'a>(body: &'a [u8], points: &mut Vec<&'a [u8]>, depth: u32) -> Result<Metric<'a>> {
    let mut metric = Metric::default();
    points.clear();
    let mut reader = Reader(body);
    while !reader.is_empty() {
        let mut field = reader;
        match reader.tag()? {
            0x0a => metric.name = reader.text()?,
            0x12 => metric.description = reader.text()?,
            0x1a => metric.unit = reader.text()?,
            tag => match KINDS.iter().position(|(known, _)| *known == tag) {
                Some(kind) => {
                    if kind != metric.kind {
                        for point in points.drain(..) {
                            validate_point(metric.kind, point, depth)?;
                        }
                        metric = Metric { kind, temporality: 0, monotonic: false, ..metric };
                    }
                    metric.read_data(reader.bytes()?, points, deeper(depth)?)?;
                }
                None => {
                    field.tag()?;
                    validate_field(&METRIC, tag, &mut field, depth)?;
                    reader = field;
                }
            },
        }
    }
    Ok(metric)
}

/// Points that do not count must be well-formed nevertheless. `depth` is their metric's.
fn validate_point(kind: usize, body: &[u8], depth: u32) -> Result<()> {
    let (_, message) = KINDS[kind];
    match message.kind(1) {
        crate::otlp::descriptor::Kind::Message(point) => validate(point, body, depth.checked_sub(2).ok_or(Malformed)?),
        _ => Err(Malformed),
    }
}

impl<'a> Metric<'a> {
    fn read_data(&mut self, body: &'a [u8], points: &mut Vec<&'a [u8]>, depth: u32) -> Result<()> {
        let has_temporality = (1..=EXPONENTIAL_KIND).contains(&self.kind);
        let mut reader = Reader(body);
        while !reader.is_empty() {
            match reader.tag()? {
                0x0a => points.push(reader.bytes()?),
                0x10 if has_temporality => self.temporality = reader.varint()? as i32,
                0x18 if self.kind == 1 => self.monotonic = reader.varint()? != 0,
                tag => reader.skip(tag, depth)?,
            }
        }
        Ok(())
    }
}

/// A data point's own numbers, absent ones at 0.
#[derive(Default)]
pub struct Point {
    pub start: u64,
    pub time: u64,
    pub flags: u32,
    pub value: f64,
    pub count: u64,
    pub sum: f64,
    pub min: f64,
    pub max: f64,
    pub scale: i32,
    pub zero_count: u64,
    pub positive_offset: i32,
    pub negative_offset: i32,
}

/// Lists of a batch's distributions, all points' end to end.
#[derive(Default)]
pub struct Lists {
    pub counts: Vec<u64>,
    pub count_offsets: Offsets,
    pub negative_counts: Vec<u64>,
    pub negative_offsets: Offsets,
    pub bounds: Vec<f64>,
    pub bound_offsets: Offsets,
    pub quantiles: Vec<f64>,
    pub quantile_values: Vec<f64>,
    pub quantile_offsets: Offsets,
}

impl Lists {
    /// How many numbers there are.
    pub fn numbers(&self) -> usize {
        self.counts.len() + self.negative_counts.len() + self.bounds.len() + 2 * self.quantiles.len()
    }

    /// Ends the lists of a point.
    pub fn close(&mut self) -> std::result::Result<(), Error> {
        self.count_offsets.close(self.counts.len())?;
        self.negative_offsets.close(self.negative_counts.len())?;
        self.bound_offsets.close(self.bounds.len())?;
        self.quantile_offsets.close(self.quantiles.len())
    }
}

/// Bodies of a point's submessages, kept from point to point for their memory.
#[derive(Default)]
pub struct Bodies<'a> {
    pub attributes: Vec<&'a [u8]>,
    pub exemplars: Vec<&'a [u8]>,
}

/// Reads a point of this kind: numbers are returned, lists appended, submessages left in `bodies`.
pub fn read_point<'a>(kind: usize, body: &'a [u8], bodies: &mut Bodies<'a>, lists: &mut Lists, depth: u32) -> Result<Point> {
    bodies.attributes.clear();
    bodies.exemplars.clear();
    let mut point = Point::default();
    let mut reader = Reader(body);
    while !reader.is_empty() {
        match reader.tag()? {
            0x11 => point.start = reader.fixed64()?,
            0x19 => point.time = reader.fixed64()?,
            tag => match kind {
                HISTOGRAM_KIND => point.histogram_field(tag, &mut reader, bodies, lists, depth)?,
                EXPONENTIAL_KIND => point.exponential_field(tag, &mut reader, bodies, lists, depth)?,
                SUMMARY_KIND => point.summary_field(tag, &mut reader, bodies, lists, depth)?,
                _ => point.number_field(tag, &mut reader, bodies, depth)?,
            },
        }
    }
    point.unrecord(kind);
    Ok(point)
}

/// OTLP DataPointFlags: the point says that there is no value, not that it is 0.
const NO_RECORDED_VALUE: u32 = 1;

impl Point {
    /// Makes numbers NaN that are 0 as the point has none.
    fn unrecord(&mut self, kind: usize) {
        if self.flags & NO_RECORDED_VALUE == 0 {
            return;
        }
        let numbers = if kind < HISTOGRAM_KIND { vec![&mut self.value] } else { vec![&mut self.sum, &mut self.min, &mut self.max] };
        for number in numbers {
            if *number == 0.0 {
                *number = f64::NAN;
            }
        }
    }

    fn number_field<'a>(&mut self, tag: u32, reader: &mut Reader<'a>, bodies: &mut Bodies<'a>, depth: u32) -> Result<()> {
        match tag {
            0x21 => self.value = double(reader)?,
            0x31 => self.value = reader.fixed64()? as i64 as f64,
            0x2a => bodies.exemplars.push(reader.bytes()?),
            0x3a => bodies.attributes.push(reader.bytes()?),
            0x40 => self.flags = reader.varint()? as u32,
            tag => reader.skip(tag, depth)?,
        }
        Ok(())
    }

    fn histogram_field<'a>(
        &mut self,
        tag: u32,
        reader: &mut Reader<'a>,
        bodies: &mut Bodies<'a>,
        lists: &mut Lists,
        depth: u32,
    ) -> Result<()> {
        match tag {
            0x21 => self.count = reader.fixed64()?,
            0x29 => self.sum = double(reader)?,
            0x31 => lists.counts.push(reader.fixed64()?),
            0x32 => packed(reader.bytes()?, |bits| lists.counts.push(bits))?,
            0x39 => lists.bounds.push(double(reader)?),
            0x3a => packed(reader.bytes()?, |bits| lists.bounds.push(f64::from_bits(bits)))?,
            0x42 => bodies.exemplars.push(reader.bytes()?),
            0x4a => bodies.attributes.push(reader.bytes()?),
            0x50 => self.flags = reader.varint()? as u32,
            0x59 => self.min = double(reader)?,
            0x61 => self.max = double(reader)?,
            tag => reader.skip(tag, depth)?,
        }
        Ok(())
    }

    fn exponential_field<'a>(
        &mut self,
        tag: u32,
        reader: &mut Reader<'a>,
        bodies: &mut Bodies<'a>,
        lists: &mut Lists,
        depth: u32,
    ) -> Result<()> {
        match tag {
            0x0a => bodies.attributes.push(reader.bytes()?),
            0x21 => self.count = reader.fixed64()?,
            0x29 => self.sum = double(reader)?,
            0x30 => self.scale = zigzag(reader)?,
            0x39 => self.zero_count = reader.fixed64()?,
            0x42 => buckets(reader.bytes()?, &mut self.positive_offset, &mut lists.counts, deeper(depth)?)?,
            0x4a => buckets(reader.bytes()?, &mut self.negative_offset, &mut lists.negative_counts, deeper(depth)?)?,
            0x50 => self.flags = reader.varint()? as u32,
            0x5a => bodies.exemplars.push(reader.bytes()?),
            0x61 => self.min = double(reader)?,
            0x69 => self.max = double(reader)?,
            tag => reader.skip(tag, depth)?,
        }
        Ok(())
    }

    fn summary_field<'a>(
        &mut self,
        tag: u32,
        reader: &mut Reader<'a>,
        bodies: &mut Bodies<'a>,
        lists: &mut Lists,
        depth: u32,
    ) -> Result<()> {
        match tag {
            0x21 => self.count = reader.fixed64()?,
            0x29 => self.sum = double(reader)?,
            0x32 => quantile(reader.bytes()?, lists, deeper(depth)?)?,
            0x3a => bodies.attributes.push(reader.bytes()?),
            0x40 => self.flags = reader.varint()? as u32,
            tag => reader.skip(tag, depth)?,
        }
        Ok(())
    }
}

fn buckets(body: &[u8], offset: &mut i32, counts: &mut Vec<u64>, depth: u32) -> Result<()> {
    let mut reader = Reader(body);
    while !reader.is_empty() {
        match reader.tag()? {
            0x08 => *offset = zigzag(&mut reader)?,
            0x10 => counts.push(reader.varint()?),
            0x12 => {
                let mut varints = Reader(reader.bytes()?);
                while !varints.is_empty() {
                    counts.push(varints.varint()?);
                }
            }
            tag => reader.skip(tag, depth)?,
        }
    }
    Ok(())
}

fn quantile(body: &[u8], lists: &mut Lists, depth: u32) -> Result<()> {
    let (mut quantile, mut value) = (0.0, 0.0);
    let mut reader = Reader(body);
    while !reader.is_empty() {
        match reader.tag()? {
            0x09 => quantile = double(&mut reader)?,
            0x11 => value = double(&mut reader)?,
            tag => reader.skip(tag, depth)?,
        }
    }
    lists.quantiles.push(quantile);
    lists.quantile_values.push(value);
    Ok(())
}

/// A double.
pub fn double(reader: &mut Reader<'_>) -> Result<f64> {
    reader.fixed64().map(f64::from_bits)
}

fn zigzag(reader: &mut Reader<'_>) -> Result<i32> {
    let value = reader.varint()? as u32;
    Ok((value >> 1) as i32 ^ -((value & 1) as i32))
}

fn packed(body: &[u8], mut push: impl FnMut(u64)) -> Result<()> {
    let (chunks, rest) = body.as_chunks::<8>();
    if !rest.is_empty() {
        return Err(Malformed);
    }
    chunks.iter().for_each(|chunk| push(u64::from_le_bytes(*chunk)));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zigzag_has_32_bits() {
        for (bytes, expected) in [(&[0u8][..], 0), (&[1], -1), (&[2], 1), (&[0xff, 0xff, 0xff, 0xff, 0x0f], i32::MIN)] {
            assert_eq!(zigzag(&mut Reader(bytes)), Ok(expected));
        }
    }

    #[test]
    fn the_last_kind_of_data_counts_and_what_went_before_must_be_well_formed() {
        let mut points = Vec::new();
        let metric = read_metric(b"\x2a\x02\x0a\x00\x3a\x04\x0a\x00\x10\x02\x3a\x02\x0a\x00", &mut points, 9).unwrap();
        assert_eq!((metric.kind, metric.temporality, points.len()), (1, 2, 2));
        assert_eq!(read_metric(b"\x2a\x03\x0a\x01\x3a\x3a\x00", &mut Vec::new(), 9).err(), Some(Malformed));
    }
}
