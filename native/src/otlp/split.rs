//! An Export request cut into one message per partition; the bytes of what is passed on stay as they are.

use crate::otlp::descriptor::{LOG_RECORD, RESOURCE, SCOPE, SPAN, validate_field};
use crate::otlp::framing::{Largest, before, each, own_field};
use crate::otlp::ids::{attribute_hash, resource_partition, span_id, trace_id, trace_partition};
use crate::otlp::points::scope_points;
use crate::otlp::runs::{self, Cursor, LEFT_OUT, Lengths, Run};
use crate::otlp::wire::{MAX_DEPTH, Malformed, Reader, Result, deeper, varint_length, write_head};

const MAX_HEAD: usize = 6; // tag and length of a container

/// What a request holds.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Signal {
    /// TracesData.
    Spans,
    /// MetricsData.
    Metrics,
    /// LogsData.
    Logs,
}

/// The parts, and what was counted.
#[derive(Default)]
pub struct Split {
    /// Per partition, None for no items. Empty when the request as a whole is the only part.
    pub parts: Vec<Option<Vec<u8>>>,
    /// Spans, log records or data points in the parts.
    pub items: u64,
    /// Spans left out for their trace id.
    pub bad_trace_ids: u64,
    /// Spans left out for their span id only.
    pub bad_span_ids: u64,
    /// The parts had no room: there are none, only counts.
    pub is_over: bool,
    /// What the parts take (a few bytes more), made or not.
    pub bytes: usize,
    /// How large a record must be to hold any of the items within its resource and scope, or these twice: so much is left for other items.
    pub record_bytes: usize,
}

/// Splits and validates a request.
pub fn split(signal: Signal, request: &[u8], partitions: u32) -> Result<Split> {
    split_within(signal, request, partitions, &mut |_| true)
}

/// The same, asking for room before parts grow by so many bytes; once there is none, it lets go of them and goes on to count and to measure.
/// (A container's own fields are copied to each partition that has one of its items, so parts can be many times the request.)
pub fn split_within(signal: Signal, request: &[u8], partitions: u32, has_room: &mut dyn FnMut(usize) -> bool) -> Result<Split> {
    if request.len() > i32::MAX as usize {
        return Err(Malformed); // as protobuf has it
    }
    if partitions == 1 {
        let mut counted = run(signal, Splitter::counting(request, has_room))?;
        if counted.bad_trace_ids + counted.bad_span_ids == 0 {
            counted.bytes = if counted.items > 0 { request.len() } else { 0 };
            return Ok(counted);
        }
    }
    run(signal, Splitter::new(request, partitions, has_room))
}

fn run(signal: Signal, mut splitter: Splitter<'_, '_>) -> Result<Split> {
    let mut reader = Reader(splitter.request);
    while !reader.is_empty() {
        let field = reader.0;
        match reader.tag()? {
            0x0a => {
                let body = reader.bytes()?;
                let field = before(field, reader);
                match signal {
                    Signal::Metrics => splitter.resource_metrics(field, body, MAX_DEPTH - 1)?,
                    _ => splitter.container(signal, body, MAX_DEPTH - 1)?,
                }
            }
            tag => reader.skip(tag, MAX_DEPTH)?,
        }
    }
    Ok(splitter.split)
}

/// Reads each container once to check it, to see where its items go and to measure its parts (on the wire lengths come first), then its framing
/// alone to write them. Buffers are kept from container to container.
struct Splitter<'a, 'b> {
    request: &'a [u8],
    partitions: u32,
    measures: bool,
    makes: bool, // parts; not without measuring them
    split: Split,
    has_room: &'b mut dyn FnMut(usize) -> bool,
    runs: Vec<Run>,
    rest: Vec<u8>,
    scope: Lengths,
    container: Lengths,
    largest: Largest,
}

/// What an item's fields say of where it goes.
#[derive(Default)]
struct Ids<'a> {
    trace_id: &'a [u8],
    span_id: &'a [u8],
}

impl<'a, 'b> Splitter<'a, 'b> {
    fn new(request: &'a [u8], partitions: u32, has_room: &'b mut dyn FnMut(usize) -> bool) -> Self {
        let count = partitions as usize;
        Self {
            request,
            partitions,
            measures: true,
            makes: true,
            split: Split { parts: vec![None; count], ..Split::default() },
            has_room,
            runs: Vec::new(),
            rest: Vec::new(),
            scope: Lengths::new(count),
            container: Lengths::new(count),
            largest: Largest::default(),
        }
    }

    /// Validates and counts, and makes no parts.
    fn counting(request: &'a [u8], has_room: &'b mut dyn FnMut(usize) -> bool) -> Self {
        Self { partitions: 1, measures: false, makes: false, ..Self::new(request, 0, has_room) }
    }

    /// Whether parts may grow by so much; where they may not, there are none any more.
    fn may_grow(&mut self, bytes: usize) -> bool {
        self.split.bytes += bytes;
        if self.makes && !(self.has_room)(bytes) {
            self.makes = false;
            self.split.is_over = true;
            self.split.parts = Vec::new();
            self.runs = Vec::new();
        }
        self.makes
    }

    /// A ResourceSpans or ResourceLogs.
    fn container(&mut self, signal: Signal, body: &'a [u8], depth: u32) -> Result<()> {
        self.runs.clear();
        self.largest = Largest::default();
        let (mut rest, mut rest_bytes) = (Vec::new(), 0);
        let mut reader = Reader(body);
        let mut fallback = None; // the resource's partition, found when it is first needed
        while !reader.is_empty() {
            let field = reader.0;
            let tag = reader.tag()?;
            if tag == 0x12 {
                let scope = reader.bytes()?;
                self.scope(signal, scope, body, &mut fallback, deeper(depth)?)?;
                continue;
            }
            own_field(tag, &mut reader, &RESOURCE, depth)?;
            let own = before(field, reader);
            rest_bytes += own.len();
            if self.makes {
                rest.extend_from_slice(own);
            }
        }
        self.split.record_bytes = self.split.record_bytes.max(self.largest.record_bytes(rest_bytes));
        if self.measures { self.write(body, rest_bytes, &rest) } else { Ok(()) }
    }

    /// A ScopeSpans or ScopeLogs within the container `outer`.
    fn scope(&mut self, signal: Signal, body: &'a [u8], outer: &[u8], fallback: &mut Option<u32>, depth: u32) -> Result<()> {
        let (mut rest, mut largest) = (0, 0);
        let mut reader = Reader(body);
        while !reader.is_empty() {
            let field = reader.0;
            let tag = reader.tag()?;
            if tag != 0x12 {
                own_field(tag, &mut reader, &SCOPE, depth)?;
                rest += before(field, reader).len();
                continue;
            }
            let ids = read_item(signal, reader.bytes()?, deeper(depth)?)?;
            let partition = self.choose(signal, &ids, outer, fallback)?;
            if let Some(partition) = partition {
                let length = before(field, reader).len();
                self.split.items += 1;
                largest = largest.max(length);
                if self.measures {
                    self.scope.add(partition, length);
                }
            }
            if self.makes {
                runs::push(&mut self.runs, partition.unwrap_or(LEFT_OUT));
            }
        }
        self.largest.add(rest, largest);
        let container = &mut self.container;
        self.scope.drain(|partition, items| {
            let length = rest + items;
            container.add(partition, 1 + varint_length(length) + length);
        });
        Ok(())
    }

    /// An item's partition, None when it is left out.
    fn choose(&mut self, signal: Signal, ids: &Ids<'_>, outer: &[u8], fallback: &mut Option<u32>) -> Result<Option<u32>> {
        let trace = trace_id(ids.trace_id);
        if signal == Signal::Spans && trace.is_none() {
            self.split.bad_trace_ids += 1;
            return Ok(None);
        }
        if signal == Signal::Spans && span_id(ids.span_id) == 0 {
            self.split.bad_span_ids += 1;
            return Ok(None);
        }
        match (trace, *fallback) {
            (Some(trace), _) => Ok(Some(trace_partition(trace, self.partitions))),
            (None, Some(partition)) => Ok(Some(partition)),
            (None, None) => {
                *fallback = Some(partition_by_resource(outer, self.partitions)?);
                Ok(*fallback)
            }
        }
    }

    /// Writes the container's items to their parts, each within copies of its container and scope.
    fn write(&mut self, body: &'a [u8], rest_bytes: usize, rest: &[u8]) -> Result<()> {
        let bytes = self.container.iter().map(|length| MAX_HEAD + rest_bytes + length).sum();
        if bytes == 0 {
            return Ok(());
        }
        if !self.may_grow(bytes) {
            self.container.drain(|_, _| {});
            return Ok(());
        }
        let parts = &mut self.split.parts;
        self.container.drain(|partition, scopes| {
            let part = parts[partition as usize].get_or_insert_default();
            part.reserve(MAX_HEAD + rest.len() + scopes);
            write_head(part, 1, rest.len() + scopes);
            part.extend_from_slice(rest);
        });
        let mut cursor = Cursor::default();
        each(body, 0x12, |scope| self.write_scope(scope, &mut cursor))
    }

    /// The same for one scope, whose items begin at the cursor.
    fn write_scope(&mut self, body: &[u8], cursor: &mut Cursor) -> Result<()> {
        self.rest.clear();
        let mut again = *cursor;
        let mut reader = Reader(body);
        while !reader.is_empty() {
            let field = reader.0;
            let tag = reader.tag()?;
            reader.skip(tag, MAX_DEPTH)?;
            let field = before(field, reader);
            if tag != 0x12 {
                self.rest.extend_from_slice(field);
                continue;
            }
            let partition = cursor.next(&self.runs);
            if partition != LEFT_OUT {
                self.scope.add(partition, field.len());
            }
        }
        let (rest, parts) = (&self.rest, &mut self.split.parts);
        self.scope.drain(|partition, items| {
            let part = parts[partition as usize].get_or_insert_default();
            write_head(part, 2, rest.len() + items);
            part.extend_from_slice(rest);
        });
        let mut reader = Reader(body);
        while !reader.is_empty() {
            let field = reader.0;
            let tag = reader.tag()?;
            reader.skip(tag, MAX_DEPTH)?;
            if tag != 0x12 {
                continue;
            }
            let partition = again.next(&self.runs);
            if partition != LEFT_OUT {
                parts[partition as usize].get_or_insert_default().extend_from_slice(before(field, reader));
            }
        }
        Ok(())
    }

    /// A ResourceMetrics, which stays whole.
    fn resource_metrics(&mut self, field: &[u8], body: &[u8], depth: u32) -> Result<()> {
        let (mut points, mut rest, mut largest) = (0, 0, Largest::default());
        let mut reader = Reader(body);
        while !reader.is_empty() {
            let own = reader.0;
            match reader.tag()? {
                0x12 => points += scope_points(reader.bytes()?, &mut largest, deeper(depth)?)?,
                tag => {
                    own_field(tag, &mut reader, &RESOURCE, depth)?;
                    rest += before(own, reader).len();
                }
            }
        }
        if points == 0 {
            return Ok(());
        }
        self.split.items += points;
        self.split.record_bytes = self.split.record_bytes.max(largest.record_bytes(rest));
        if self.measures && self.may_grow(field.len()) {
            let partition = partition_by_resource(body, self.partitions)?;
            self.split.parts[partition as usize].get_or_insert_default().extend_from_slice(field);
        }
        Ok(())
    }
}

/// Checks a Span or LogRecord, and finds its ids.
fn read_item<'a>(signal: Signal, body: &'a [u8], depth: u32) -> Result<Ids<'a>> {
    let (message, trace_tag, span_tag) = if signal == Signal::Spans { (&SPAN, 0x0a, 0x12) } else { (&LOG_RECORD, 0x4a, 0x52) };
    let mut ids = Ids::default();
    let mut reader = Reader(body);
    while !reader.is_empty() {
        let tag = reader.tag()?;
        if tag == trace_tag {
            ids.trace_id = reader.bytes()?;
        } else if tag == span_tag {
            ids.span_id = reader.bytes()?;
        } else {
            validate_field(message, tag, &mut reader, depth)?;
        }
    }
    Ok(ids)
}

/// The partition of the resource in a container, whose occurrences are merged: their attributes add up. Checks no more than it must.
fn partition_by_resource(container: &[u8], partitions: u32) -> Result<u32> {
    let mut sum = 0u64;
    each(container, 0x0a, |resource| {
        each(resource, 0x0a, |attribute| {
            sum = sum.wrapping_add(attribute_hash(attribute));
            Ok(())
        })
    })?;
    Ok(resource_partition(sum, partitions))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn framed(tag: u8, bodies: &[&[u8]]) -> Vec<u8> {
        let body = bodies.concat();
        let mut out = Vec::new();
        write_head(&mut out, tag, body.len());
        out.extend_from_slice(&body);
        out
    }

    fn log_record(trace: u8) -> Vec<u8> {
        framed(2, &[&framed(9, &[&[trace; 16]])])
    }

    #[test]
    fn what_is_kept_of_items_is_less_than_they_are() {
        let alike = framed(1, &[&[0x12, 0x02, 0x12, 0x00].repeat(1000)]);
        let differing = framed(1, &[&framed(2, &[&[log_record(1), vec![0x12, 0x00]].concat().repeat(1000)])]);
        for (request, most) in [(alike, 1), (differing, 2000)] {
            let mut has_room = |_| true;
            let mut splitter = Splitter::new(&request, 1 << 16, &mut has_room);
            let body = &request[request.len() - Reader(&request[1..]).bytes().unwrap().len()..];
            splitter.container(Signal::Logs, body, MAX_DEPTH).unwrap();
            assert!(splitter.runs.len() <= most && 8 * splitter.runs.len() <= request.len());
        }
    }

    #[test]
    fn parts_without_room_are_counted_only() {
        let container = framed(1, &[&framed(1, &[]), &framed(2, &[&log_record(1), &log_record(2)])]);
        let request = [&container[..], &container, &container].concat();
        let mut asked = 0;
        let mut has_room = |more: usize| {
            asked += more;
            asked <= 2 * container.len()
        };
        let over = split_within(Signal::Logs, &request, 7, &mut has_room).unwrap();
        assert!(over.is_over && over.parts.is_empty());
        assert_eq!(over.items, 6);
        assert_eq!(over.bytes, split(Signal::Logs, &request, 7).unwrap().bytes, "measured to the end");
        let whole = split(Signal::Logs, &request, 7).unwrap();
        assert!(!whole.is_over && whole.parts.iter().flatten().map(Vec::len).sum::<usize>() > 0);
        assert_eq!(split_within(Signal::Logs, &[&container[..], b"oops"].concat(), 7, &mut |_| false).err(), Some(Malformed));
    }
}
