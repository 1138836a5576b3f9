//! The columns of a SpanBatch's spans, and a span's own fields, read from its bytes.

use crate::arrow::column::{Bits, Buffer};
use crate::otlp::descriptor::{EVENT, LINK, validate};
use crate::otlp::ids;
use crate::otlp::promoted::Promoted;
use crate::otlp::semantics::bucket;
use crate::otlp::wire::{Reader, Result, deeper};

/// A Span's own fields, absent ones at their defaults.
#[derive(Default)]
pub struct Span<'a> {
    pub trace_id: &'a [u8],
    pub span_id: &'a [u8],
    pub parent_id: &'a [u8],
    pub trace_state: &'a [u8],
    pub name: &'a [u8],
    pub kind: i32,
    pub start: u64,
    pub end: u64,
    pub flags: u32,
    pub status_code: i32,
    pub status_message: &'a [u8],
    /// Events and links.
    pub details: usize,
}

impl<'a> Span<'a> {
    /// A status on top of what is there.
    pub fn read_status(&mut self, body: &'a [u8], depth: u32) -> Result<()> {
        let mut reader = Reader(body);
        while !reader.is_empty() {
            match reader.tag()? {
                0x12 => self.status_message = reader.text()?,
                0x18 => self.status_code = reader.varint()? as i32,
                tag => reader.skip(tag, depth)?,
            }
        }
        Ok(())
    }
}

/// Reads all of a span: its own fields are returned, attributes go to their slots.
pub fn read_span<'p>(promoted: &mut Promoted<'p>, body: &'p [u8], depth: u32) -> Result<Span<'p>> {
    let mut span = Span::default();
    let mut reader = Reader(body);
    while !reader.is_empty() {
        match reader.tag()? {
            0x4a => promoted.attribute(reader.bytes()?, deeper(depth)?)?,
            0x0a => span.trace_id = reader.bytes()?,
            0x12 => span.span_id = reader.bytes()?,
            0x1a => span.trace_state = reader.text()?,
            0x22 => span.parent_id = reader.bytes()?,
            0x2a => span.name = reader.text()?,
            0x30 => span.kind = reader.varint()? as i32,
            0x39 => span.start = reader.fixed64()?,
            0x41 => span.end = reader.fixed64()?,
            0x85 => span.flags = reader.fixed32()?,
            0x5a => {
                validate(&EVENT, reader.bytes()?, deeper(depth)?)?;
                span.details += 1;
            }
            0x6a => {
                validate(&LINK, reader.bytes()?, deeper(depth)?)?;
                span.details += 1;
            }
            0x7a => span.read_status(reader.bytes()?, deeper(depth)?)?,
            tag => reader.skip(tag, depth)?,
        }
    }
    Ok(span)
}

/// SPAN_SCHEMA's columns, in groups of one type.
#[derive(Default)]
pub struct Columns {
    pub ids: [Vec<u64>; 4],   // trace (high, low), span, parent
    pub times: [Vec<i64>; 3], // start, end, duration
    pub bucket: Vec<i16>,
    pub kind: Vec<u8>,
    pub status: Vec<u8>,
    pub places: [Vec<u32>; 3], // flags, resource, scope
    pub codes: [Vec<u32>; 11], // from name to messaging_destination
    pub http_status: Vec<u16>,
    pub retry_count: Vec<u16>,
    pub messaging_role: Vec<u8>,
    pub protocol: Vec<u8>,
    pub sizes: [Vec<u64>; 2], // bytes of request and response
    pub error: Bits,
    pub code_error: Bits,
    pub proxy: Bits,
    pub mirrored: Bits,
    pub positions: [Vec<u32>; 3],      // record, offset, length
    pub extras: Vec<(Vec<u32>, Bits)>, // code and validity
}

impl Columns {
    pub fn push_ids(&mut self, span: &Span<'_>) {
        let (high, low) = ids::halves(span.trace_id).unwrap_or((0, 0));
        push_each(&mut self.ids, [high, low, ids::span_id(span.span_id), ids::span_id(span.parent_id)]);
    }

    pub fn push_times(&mut self, span: &Span<'_>, upper_ns: &[u64]) {
        let (start, end) = (clamped(span.start), clamped(span.end));
        let duration = (end - start).max(0);
        push_each(&mut self.times, [start, end, duration]);
        self.bucket.push(bucket(upper_ns, duration));
    }

    pub fn push_position(&mut self, position: [u32; 3]) {
        push_each(&mut self.positions, position);
    }

    /// The buffers in the order of SPAN_SCHEMA; then codes and validity of each extra key.
    pub fn finish(self) -> Vec<Buffer> {
        let mut buffers: Vec<Buffer> = self.ids.into_iter().map(Buffer::U64).collect();
        buffers.extend(self.times.into_iter().map(Buffer::I64));
        buffers.extend([Buffer::I16(self.bucket), Buffer::U8(self.kind), Buffer::U8(self.status)]);
        buffers.extend(self.places.into_iter().chain(self.codes).map(Buffer::U32));
        buffers.extend([Buffer::U16(self.http_status), Buffer::U16(self.retry_count), Buffer::U8(self.messaging_role)]);
        buffers.push(Buffer::U8(self.protocol));
        buffers.extend(self.sizes.into_iter().map(Buffer::U64));
        buffers.extend([self.error, self.code_error, self.proxy, self.mirrored].map(Bits::finish));
        buffers.extend(self.positions.into_iter().map(Buffer::U32));
        buffers.extend(self.extras.into_iter().flat_map(|(codes, validity)| [Buffer::U32(codes), validity.finish()]));
        buffers
    }
}

/// Nanoseconds as int64.
pub fn clamped(time_ns: u64) -> i64 {
    i64::try_from(time_ns).unwrap_or(i64::MAX)
}

/// An enum's number, 0 when OTLP does not know it.
pub fn known(number: i32, largest: i32) -> u8 {
    if (0..=largest).contains(&number) { number as u8 } else { 0 }
}

/// One value to each column.
#[inline]
pub fn push_each<T, const N: usize>(columns: &mut [Vec<T>; N], values: [T; N]) {
    for (column, value) in columns.iter_mut().zip(values) {
        column.push(value);
    }
}
