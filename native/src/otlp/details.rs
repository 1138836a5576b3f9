//! Attributes, events and links of chosen spans: DETAIL_SCHEMA of `schemas/spans.py`.

use crate::Error;
use crate::arrow::column::{Buffer, Offsets, Texts};
use crate::arrow::maps::{Left, Limits, Maps};
use crate::otlp::descriptor::{EVENT, LINK, SPAN, validate, validate_field};
use crate::otlp::ids;
use crate::otlp::span_columns::{Span, clamped};
use crate::otlp::value::{Any, key_value, unique_attributes};
use crate::otlp::wire::{MAX_DEPTH, Reader, deeper};

/// Where a Span message lies: payload, first byte, length.
pub type Position = (u32, u32, u32);

struct Columns {
    limits: Limits,
    attributes: Maps,
    event_offsets: Offsets,
    event_times: Vec<i64>,
    event_names: Texts,
    event_attributes: Maps,
    link_offsets: Offsets,
    link_trace_ids: Texts,
    link_span_ids: Texts,
    link_trace_states: Texts,
    link_attributes: Maps,
}

type Attributes<'a> = Vec<(&'a [u8], Any<'a>)>;

/// The buffers of DETAIL_SCHEMA's columns, each column's own and then its children's. Positions lie within their payloads.
pub fn decode(payloads: &[&[u8]], positions: &[Position], limits: Limits) -> Result<Vec<Buffer>, Error> {
    let mut columns = Columns::new(limits);
    for (record, offset, length) in positions {
        let begin = *offset as usize;
        let body = &payloads[*record as usize][begin..begin + *length as usize];
        columns.span(body).map_err(|error| error.of_record(*record as usize))?;
    }
    Ok(columns.finish())
}

impl Columns {
    fn new(limits: Limits) -> Self {
        Self {
            limits,
            attributes: Maps::new(limits),
            event_offsets: Offsets::default(),
            event_times: Vec::new(),
            event_names: Texts::default(),
            event_attributes: Maps::new(limits),
            link_offsets: Offsets::default(),
            link_trace_ids: Texts::default(),
            link_span_ids: Texts::default(),
            link_trace_states: Texts::default(),
            link_attributes: Maps::new(limits),
        }
    }

    fn span(&mut self, body: &[u8]) -> Result<(), Error> {
        let depth = MAX_DEPTH;
        let (mut own, mut attributes, mut left) = (Span::default(), Attributes::new(), Left::default());
        let [events, links] = [self.event_times.len(), self.link_trace_ids.len()].map(|before| before + self.limits.list_entries);
        let mut reader = Reader(body);
        while !reader.is_empty() {
            match reader.tag()? {
                0x4a => attributes.push(key_value(reader.bytes()?, deeper(depth)?)?),
                0x5a if self.event_times.len() == events => {
                    validate(&EVENT, reader.bytes()?, deeper(depth)?)?;
                    left.events += 1;
                }
                0x5a => self.event(reader.bytes()?, deeper(depth)?)?,
                0x6a if self.link_trace_ids.len() == links => {
                    validate(&LINK, reader.bytes()?, deeper(depth)?)?;
                    left.links += 1;
                }
                0x6a => self.link(reader.bytes()?, deeper(depth)?)?,
                0x1a => own.trace_state = reader.text()?,
                0x2a => own.name = reader.text()?,
                0x7a => own.read_status(reader.bytes()?, deeper(depth)?)?,
                tag => validate_field(&SPAN, tag, &mut reader, depth)?,
            }
        }
        for text in [own.trace_state, own.name, own.status_message] {
            self.limits.within(text, &mut left); // spans.rs keeps as much
        }
        self.attributes.push_marked(&unique_attributes(attributes), left)?;
        self.event_offsets.close(self.event_times.len())?;
        self.link_offsets.close(self.link_trace_ids.len())
    }

    fn event(&mut self, body: &[u8], depth: u32) -> Result<(), Error> {
        let (mut time, mut name, mut attributes) = (0, &b""[..], Attributes::new());
        let mut reader = Reader(body);
        while !reader.is_empty() {
            match reader.tag()? {
                0x09 => time = reader.fixed64()?,
                0x12 => name = reader.text()?,
                0x1a => attributes.push(key_value(reader.bytes()?, deeper(depth)?)?),
                tag => reader.skip(tag, depth)?,
            }
        }
        let mut left = Left::default();
        self.event_times.push(clamped(time));
        self.event_names.push(self.limits.within(name, &mut left))?;
        self.event_attributes.push_marked(&unique_attributes(attributes), left)
    }

    fn link(&mut self, body: &[u8], depth: u32) -> Result<(), Error> {
        let [mut trace_id, mut span_id, mut trace_state] = [&b""[..]; 3];
        let mut attributes = Attributes::new();
        let mut reader = Reader(body);
        while !reader.is_empty() {
            match reader.tag()? {
                0x0a => trace_id = reader.bytes()?,
                0x12 => span_id = reader.bytes()?,
                0x1a => trace_state = reader.text()?,
                0x22 => attributes.push(key_value(reader.bytes()?, deeper(depth)?)?),
                tag => reader.skip(tag, depth)?,
            }
        }
        let trace_id = ids::trace_id(trace_id).map(|(high, low)| format!("{high:016x}{low:016x}"));
        let span_id = Some(ids::span_id(span_id)).filter(|id| *id != 0).map(|id| format!("{id:016x}"));
        self.link_trace_ids.push(trace_id.unwrap_or_default().as_bytes())?;
        self.link_span_ids.push(span_id.unwrap_or_default().as_bytes())?;
        let mut left = Left::default();
        self.link_trace_states.push(self.limits.within(trace_state, &mut left))?;
        self.link_attributes.push_marked(&unique_attributes(attributes), left)
    }

    fn finish(self) -> Vec<Buffer> {
        let events = || self.event_offsets.shared();
        let links = || self.link_offsets.shared();
        let mut buffers: Vec<Buffer> = self.attributes.finish().collect();
        buffers.extend([events(), Buffer::I64(self.event_times), events()]);
        buffers.extend(self.event_names.finish());
        buffers.push(events());
        buffers.extend(self.event_attributes.finish());
        for texts in [self.link_trace_ids, self.link_span_ids, self.link_trace_states] {
            buffers.push(links());
            buffers.extend(texts.finish());
        }
        buffers.push(links());
        buffers.extend(self.link_attributes.finish());
        buffers
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_span_has_empty_lists() {
        let limits = Limits { value_bytes: 9, set_bytes: 9, set_entries: 9, list_entries: 9, batch_bytes: 9 };
        let buffers = decode(&[b""], &[(0, 0, 0)], limits).unwrap();
        assert_eq!(buffers[0].bytes(), [0; 8]); // one map of no pairs
        assert!(matches!(decode(&[b"\x4a\x09"], &[(0, 0, 2)], limits), Err(Error::Malformed(Some(0)))));
    }
}
