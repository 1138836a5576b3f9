//! LogsData payloads into the columns of a LogBatch (`schemas/logs.py`), in one pass over the bytes.

use crate::Error;
use crate::arrow::column::{Buffer, Texts};
use crate::arrow::maps::{Left, Limits};
use crate::otlp::containers::{each_child, read_container};
use crate::otlp::contexts::{Contexts, Place, Tables};
use crate::otlp::descriptor::{RESOURCE, SCOPE};
use crate::otlp::ids;
use crate::otlp::resources::Table;
use crate::otlp::span_columns::{clamped, push_each};
use crate::otlp::value::Any;
use crate::otlp::weight::ITEM_BYTES;
use crate::otlp::wire::{MAX_DEPTH, Malformed, Reader, deeper};

/// The buffers of a LogBatch's parts, in the order of their schemas.
pub struct LogBatch {
    /// Rows and buffers of `logs`.
    pub logs: (usize, Vec<Buffer>),
    /// The other parts.
    pub tables: Tables,
}

/// LOG_SCHEMA's columns, in groups of one type.
#[derive(Default)]
struct Columns {
    places: [Vec<u32>; 4], // record, resource, scope, attributes
    time_ns: Vec<i64>,
    ids: [Vec<u64>; 3],   // trace (high, low), span
    bytes: [Vec<u8>; 2],  // flags, severity
    codes: [Vec<u32>; 2], // severity text, event name
    bodies: Texts,
    identities: [Vec<u64>; 2], // high, low
}

/// Decodes payloads one by one; none is needed any more once it is decoded.
pub struct Decoder<'t> {
    contexts: Contexts<'t>,
    limits: Limits,
    payloads: u32,
    columns: Columns,
}

impl<'t> Decoder<'t> {
    /// Nothing decoded yet.
    pub fn new(table: &'t Table, limits: Limits) -> Self {
        Self { contexts: Contexts::new(table, limits), limits, payloads: 0, columns: Columns::default() }
    }

    /// Decodes the next payload, whose resources are of `cluster` unless they name theirs. After an error the decoder is of no use any more.
    pub fn payload(&mut self, payload: &[u8], cluster: &str) -> Result<(), Error> {
        let record = self.payloads;
        self.payloads += 1;
        self.record(record, payload, cluster).map_err(|error| error.of_record(record as usize))
    }

    fn record(&mut self, record: u32, payload: &[u8], cluster: &str) -> Result<(), Error> {
        if payload.len() > i32::MAX as usize {
            return Err(Malformed.into()); // as protobuf has it
        }
        let mut attributes = Vec::new();
        self.contexts.begin_payload();
        let mut reader = Reader(payload);
        while !reader.is_empty() {
            match reader.tag()? {
                0x0a => self.resource_logs(&mut attributes, record, reader.bytes()?, cluster, MAX_DEPTH - 1)?,
                tag => reader.skip(tag, MAX_DEPTH)?,
            }
        }
        Ok(())
    }

    fn resource_logs<'p>(
        &mut self,
        attributes: &mut Vec<&'p [u8]>,
        record: u32,
        body: &'p [u8],
        cluster: &str,
        depth: u32,
    ) -> Result<(), Error> {
        let (resource, resource_url) = read_container(body, &RESOURCE, depth)?;
        let resource = self.contexts.resource(&resource, resource_url, cluster, depth - 1)?;
        self.contexts.begin_part(resource, body);
        each_child(body, |scope_logs| {
            let (scope, scope_url) = read_container(scope_logs, &SCOPE, depth - 1)?;
            let place = self.contexts.begin(resource, &scope, scope_url, depth - 2)?;
            each_child(scope_logs, |body| self.log(attributes, record, place, body, depth - 2))
        })
    }

    fn log<'p>(&mut self, attributes: &mut Vec<&'p [u8]>, record: u32, place: Place, body: &'p [u8], depth: u32) -> Result<(), Error> {
        let (mut time, mut observed, mut severity, mut flags) = (0, 0, 0u64, 0u32);
        let [mut severity_text, mut trace_id, mut span_id, mut event_name] = [&b""[..]; 4];
        let mut text = Any::Empty;
        attributes.clear();
        let mut reader = Reader(body);
        while !reader.is_empty() {
            match reader.tag()? {
                0x09 => time = reader.fixed64()?,
                0x10 => severity = reader.varint()?,
                0x1a => severity_text = reader.text()?,
                0x2a => text.read(reader.bytes()?, deeper(depth)?)?,
                0x32 => attributes.push(reader.bytes()?),
                0x45 => flags = reader.fixed32()?,
                0x4a => trace_id = reader.bytes()?,
                0x52 => span_id = reader.bytes()?,
                0x59 => observed = reader.fixed64()?,
                0x62 => event_name = reader.text()?,
                tag => reader.skip(tag, depth)?,
            }
        }
        let mut left = Left::default();
        severity_text = self.limits.within(severity_text, &mut left);
        event_name = self.limits.within(event_name, &mut left);
        left.bytes += self.columns.bodies.push_value_within(&text, self.limits.set_bytes)?;
        let set = self.contexts.attributes(attributes, left, deeper(depth)?)?;
        let (identity_hi, identity_lo) = self.contexts.identity();
        let (trace_hi, trace_lo) = ids::trace_id(trace_id).unwrap_or((0, 0));
        let columns = &mut self.columns;
        push_each(&mut columns.places, [record, place.resource, place.scope, set.row]);
        columns.time_ns.push(clamped(if time == 0 { observed } else { time }));
        push_each(&mut columns.ids, [trace_hi, trace_lo, ids::span_id(span_id)]);
        push_each(&mut columns.bytes, [flags as u8, severity as u8]); // the W3C trace flags are the low byte
        let codes = [self.contexts.strings.code(severity_text)?, self.contexts.strings.code(event_name)?];
        push_each(&mut columns.codes, codes);
        push_each(&mut columns.identities, [identity_hi, identity_lo]);
        self.limits.check(columns.time_ns.len() * ITEM_BYTES)
    }

    /// What was decoded.
    pub fn finish(self) -> LogBatch {
        let columns = self.columns;
        let rows = columns.time_ns.len();
        let mut logs: Vec<Buffer> = columns.places.into_iter().map(Buffer::U32).collect();
        logs.push(Buffer::I64(columns.time_ns));
        logs.extend(columns.ids.into_iter().map(Buffer::U64));
        logs.extend(columns.bytes.into_iter().map(Buffer::U8));
        logs.extend(columns.codes.into_iter().map(Buffer::U32));
        logs.extend(columns.bodies.finish());
        logs.extend(columns.identities.into_iter().map(Buffer::U64));
        LogBatch { logs: (rows, logs), tables: self.contexts.finish() }
    }
}
