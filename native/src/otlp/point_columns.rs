//! The columns of a PointBatch (`schemas/points.py`).

use crate::Error;
use crate::arrow::column::{Bits, Buffer};
use crate::arrow::maps::{Limits, Maps};
use crate::otlp::ids;
use crate::otlp::point_fields::{Lists, Point, double};
use crate::otlp::span_columns::{clamped, push_each};
use crate::otlp::value::{key_value, unique_attributes};
use crate::otlp::wire::{Reader, deeper};

const MICROSECONDS_BELOW: u64 = 10_000_000_000_000_000; // `schemas/points.py`

/// POINT_SCHEMA's columns, in groups of one type.
#[derive(Default)]
pub struct Points {
    pub places: [Vec<u32>; 4], // record, resource, scope, attributes
    pub series: Vec<u64>,
    pub codes: [Vec<u32>; 3], // name, description, unit
    pub kind: Vec<u8>,
    pub temporality: Vec<i32>,
    pub monotonic: Bits,
    pub flags: Vec<u32>,
    pub times: [Vec<i64>; 2], // start, time
    pub value: Vec<f64>,
    pub identities: [Vec<u64>; 2], // high, low
}

impl Points {
    /// How many there are.
    pub fn len(&self) -> usize {
        self.kind.len()
    }

    /// A point's numbers.
    pub fn push_numbers(&mut self, point: &Point) {
        push_each(&mut self.times, [start(point), clamped(point.time)]);
        self.flags.push(point.flags);
        self.value.push(point.value);
    }

    /// The buffers in the order of POINT_SCHEMA.
    pub fn finish(self) -> Vec<Buffer> {
        let mut buffers: Vec<Buffer> = self.places.into_iter().map(Buffer::U32).collect();
        buffers.push(Buffer::U64(self.series));
        buffers.extend(self.codes.into_iter().map(Buffer::U32));
        buffers.extend([Buffer::U8(self.kind), Buffer::I32(self.temporality), self.monotonic.finish(), Buffer::U32(self.flags)]);
        buffers.extend(self.times.into_iter().map(Buffer::I64));
        buffers.push(Buffer::F64(self.value));
        buffers.extend(self.identities.into_iter().map(Buffer::U64));
        buffers
    }
}

/// Envoy's stat sink writes the start in microseconds.
fn start(point: &Point) -> i64 {
    match point.start.checked_mul(1000) {
        Some(start) if point.start < MICROSECONDS_BELOW && start <= point.time => clamped(start),
        _ => clamped(point.start),
    }
}

/// DISTRIBUTION_SCHEMA's columns.
#[derive(Default)]
pub struct Distributions {
    point: Vec<u32>,
    counts: [Vec<u64>; 2],  // count, zero count
    sums: [Vec<f64>; 3],    // sum, min, max
    offsets: [Vec<i32>; 3], // scale, positive, negative
    pub lists: Lists,
}

impl Distributions {
    /// The distribution of a row of the points; its lists are there already.
    pub fn push(&mut self, row: usize, point: &Point) -> Result<(), Error> {
        self.point.push(row as u32);
        push_each(&mut self.counts, [point.count, point.zero_count]);
        push_each(&mut self.sums, [point.sum, point.min, point.max]);
        push_each(&mut self.offsets, [point.scale, point.positive_offset, point.negative_offset]);
        self.lists.close()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.point.len()
    }

    /// The buffers in the order of DISTRIBUTION_SCHEMA.
    pub fn finish(self) -> Vec<Buffer> {
        let lists = self.lists;
        let mut buffers = vec![Buffer::U32(self.point)];
        buffers.extend(self.counts.into_iter().map(Buffer::U64));
        buffers.extend(self.sums.into_iter().map(Buffer::F64));
        buffers.extend(self.offsets.into_iter().map(Buffer::I32));
        buffers.extend([lists.count_offsets.finish(), Buffer::U64(lists.counts)]);
        buffers.extend([lists.negative_offsets.finish(), Buffer::U64(lists.negative_counts)]);
        buffers.extend([lists.bound_offsets.finish(), Buffer::F64(lists.bounds)]);
        let quantiles = lists.quantile_offsets.shared();
        buffers.extend([quantiles, Buffer::F64(lists.quantiles), lists.quantile_offsets.finish(), Buffer::F64(lists.quantile_values)]);
        buffers
    }
}

/// EXEMPLAR_SCHEMA's columns.
pub struct Exemplars {
    point: Vec<u32>,
    time_ns: Vec<i64>,
    value: Vec<f64>,
    ids: [Vec<u64>; 3], // trace (high, low), span
    attributes: Maps,
}

impl Exemplars {
    /// None yet.
    pub fn new(limits: Limits) -> Self {
        Self { point: Vec::new(), time_ns: Vec::new(), value: Vec::new(), ids: Default::default(), attributes: Maps::new(limits) }
    }

    /// Reads an exemplar of a row of the points.
    pub fn read(&mut self, row: usize, body: &[u8], depth: u32) -> Result<(), Error> {
        let (mut time, mut value) = (0, 0.0);
        let [mut trace_id, mut span_id] = [&b""[..]; 2];
        let mut attributes = Vec::new();
        let mut reader = Reader(body);
        while !reader.is_empty() {
            match reader.tag()? {
                0x11 => time = reader.fixed64()?,
                0x19 => value = double(&mut reader)?,
                0x22 => span_id = reader.bytes()?,
                0x2a => trace_id = reader.bytes()?,
                0x31 => value = reader.fixed64()? as i64 as f64,
                0x3a => attributes.push(key_value(reader.bytes()?, deeper(depth)?)?),
                tag => reader.skip(tag, depth)?,
            }
        }
        let (trace_hi, trace_lo) = ids::trace_id(trace_id).unwrap_or((0, 0));
        self.point.push(row as u32);
        self.time_ns.push(clamped(time));
        self.value.push(value);
        push_each(&mut self.ids, [trace_hi, trace_lo, ids::span_id(span_id)]);
        self.attributes.push(&unique_attributes(attributes))
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.point.len()
    }

    /// How many attribute sets are not whole.
    pub fn cut(&self) -> u64 {
        self.attributes.cut()
    }

    /// The buffers in the order of EXEMPLAR_SCHEMA.
    pub fn finish(self) -> Vec<Buffer> {
        let mut buffers = vec![Buffer::U32(self.point), Buffer::I64(self.time_ns), Buffer::F64(self.value)];
        buffers.extend(self.ids.into_iter().map(Buffer::U64));
        buffers.extend(self.attributes.finish());
        buffers
    }
}
