//! An Export request cut into one message per partition; the bytes of what is passed on stay as they are.

use crate::descriptor::{LOG_RECORD, METRIC, Message, RESOURCE, SCOPE, SPAN, validate, validate_field};
use crate::ids::{attribute_hash, resource_partition, span_id, trace_id, trace_partition};
use crate::wire::{MAX_DEPTH, Malformed, Reader, Result, deeper, is_text, varint_length, write_head};

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
}

/// Splits and validates a request.
pub fn split(signal: Signal, request: &[u8], partitions: u32) -> Result<Split> {
    if request.len() > i32::MAX as usize {
        return Err(Malformed); // as protobuf has it
    }
    if partitions == 1 {
        let counted = run(signal, Splitter::counting(request))?;
        if counted.bad_trace_ids + counted.bad_span_ids == 0 {
            return Ok(counted);
        }
    }
    run(signal, Splitter::new(request, partitions))
}

fn run(signal: Signal, mut splitter: Splitter<'_>) -> Result<Split> {
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

/// An accepted span or log record: where its whole field lies in the request. (Small: a request may hold very many.)
struct Item {
    partition: u32,
    begin: u32,
    length: u32,
}

/// The part of one ScopeSpans that goes to one partition.
struct ScopePart {
    partition: u32,
    length: usize,
}

#[derive(Default)]
struct Scope {
    rest: Vec<u8>,
    item_count: usize,
    part_count: usize,
}

/// Buffers are kept from container to container.
struct Splitter<'a> {
    request: &'a [u8],
    partitions: u32,
    is_counting: bool,
    split: Split,
    items: Vec<Item>,
    scopes: Vec<Scope>,
    scope_parts: Vec<ScopePart>,
    scope_lengths: Vec<usize>,
    container_lengths: Vec<usize>,
    touched: Vec<u32>,
}

/// What an item's fields say of where it goes.
#[derive(Default)]
struct Ids<'a> {
    trace_id: &'a [u8],
    span_id: &'a [u8],
}

impl<'a> Splitter<'a> {
    fn new(request: &'a [u8], partitions: u32) -> Self {
        let count = partitions as usize;
        Self {
            request,
            partitions,
            is_counting: false,
            split: Split { parts: vec![None; count], ..Split::default() },
            items: Vec::new(),
            scopes: Vec::new(),
            scope_parts: Vec::new(),
            scope_lengths: vec![0; count],
            container_lengths: vec![0; count],
            touched: Vec::new(),
        }
    }

    /// Validates and counts, and makes no parts.
    fn counting(request: &'a [u8]) -> Self {
        Self { partitions: 1, is_counting: true, ..Self::new(request, 0) }
    }

    /// A ResourceSpans or ResourceLogs.
    fn container(&mut self, signal: Signal, body: &'a [u8], depth: u32) -> Result<()> {
        self.items.clear();
        self.scopes.clear();
        let mut rest = Vec::new();
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
            rest.extend_from_slice(before(field, reader));
        }
        if !self.is_counting {
            self.write(&rest);
        }
        Ok(())
    }

    /// A ScopeSpans or ScopeLogs within the container `outer`.
    fn scope(&mut self, signal: Signal, body: &'a [u8], outer: &[u8], fallback: &mut Option<u32>, depth: u32) -> Result<()> {
        let mut scope = Scope::default();
        let mut reader = Reader(body);
        while !reader.is_empty() {
            let field = reader.0;
            let tag = reader.tag()?;
            if tag != 0x12 {
                own_field(tag, &mut reader, &SCOPE, depth)?;
                scope.rest.extend_from_slice(before(field, reader));
                continue;
            }
            let ids = read_item(signal, reader.bytes()?, deeper(depth)?)?;
            if let Some(partition) = self.choose(signal, &ids, outer, fallback)? {
                self.split.items += 1;
                if !self.is_counting {
                    let begin = field.as_ptr() as usize - self.request.as_ptr() as usize;
                    self.items.push(Item { partition, begin: begin as u32, length: before(field, reader).len() as u32 });
                    scope.item_count += 1;
                }
            }
        }
        if scope.item_count > 0 {
            self.scopes.push(scope);
        }
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
    fn write(&mut self, rest: &[u8]) {
        self.measure();
        for partition in self.touched.drain(..) {
            let index = partition as usize;
            let part = self.split.parts[index].get_or_insert_default();
            part.reserve(rest.len() + self.container_lengths[index] + MAX_HEAD);
            write_head(part, 1, rest.len() + self.container_lengths[index]);
            part.extend_from_slice(rest);
            self.container_lengths[index] = 0;
        }
        let (mut items, mut scope_parts) = (self.items.iter(), self.scope_parts.iter());
        for scope in &self.scopes {
            for ScopePart { partition, length } in scope_parts.by_ref().take(scope.part_count) {
                let part = self.split.parts[*partition as usize].get_or_insert_default();
                write_head(part, 2, *length);
                part.extend_from_slice(&scope.rest);
            }
            for Item { partition, begin, length } in items.by_ref().take(scope.item_count) {
                let field = &self.request[*begin as usize..][..*length as usize];
                self.split.parts[*partition as usize].get_or_insert_default().extend_from_slice(field);
            }
        }
    }

    /// How long each scope's part is, and what each partition gets of the container (on the wire lengths come first).
    fn measure(&mut self) {
        self.scope_parts.clear();
        let mut items = self.items.iter();
        for scope in &mut self.scopes {
            let first = self.scope_parts.len();
            for Item { partition, length: field, .. } in items.by_ref().take(scope.item_count) {
                let length = &mut self.scope_lengths[*partition as usize];
                if *length == 0 {
                    self.scope_parts.push(ScopePart { partition: *partition, length: 0 });
                }
                *length += *field as usize;
            }
            scope.part_count = self.scope_parts.len() - first;
            for ScopePart { partition, length } in &mut self.scope_parts[first..] {
                let index = *partition as usize;
                *length = scope.rest.len() + std::mem::take(&mut self.scope_lengths[index]);
                if self.container_lengths[index] == 0 {
                    self.touched.push(*partition);
                }
                self.container_lengths[index] += 1 + varint_length(*length) + *length;
            }
        }
    }

    /// A ResourceMetrics, which stays whole.
    fn resource_metrics(&mut self, field: &[u8], body: &[u8], depth: u32) -> Result<()> {
        let mut points = 0;
        let mut reader = Reader(body);
        while !reader.is_empty() {
            match reader.tag()? {
                0x12 => points += scope_points(reader.bytes()?, deeper(depth)?)?,
                tag => own_field(tag, &mut reader, &RESOURCE, depth)?,
            }
        }
        self.split.items += points;
        if points > 0 && !self.is_counting {
            let partition = partition_by_resource(body, self.partitions)?;
            self.split.parts[partition as usize].get_or_insert_default().extend_from_slice(field);
        }
        Ok(())
    }
}

/// The bytes from `field` to where the reader stands.
#[inline]
fn before<'a>(field: &'a [u8], reader: Reader<'a>) -> &'a [u8] {
    &field[..field.len() - reader.0.len()]
}

/// Checks a container's field other than its repeated items: resource or scope (1), schema URL (3), or an unknown one.
fn own_field(tag: u32, reader: &mut Reader<'_>, own: &Message, depth: u32) -> Result<()> {
    match tag {
        0x0a => validate(own, reader.bytes()?, deeper(depth)?),
        0x1a => is_text(reader.bytes()?).then_some(()).ok_or(Malformed),
        tag => reader.skip(tag, depth),
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

/// Checks a ScopeMetrics, and counts its data points.
fn scope_points(body: &[u8], depth: u32) -> Result<u64> {
    let mut points = 0;
    let mut reader = Reader(body);
    while !reader.is_empty() {
        match reader.tag()? {
            0x12 => points += metric_points(reader.bytes()?, deeper(depth)?)?,
            tag => own_field(tag, &mut reader, &SCOPE, depth)?,
        }
    }
    Ok(points)
}

/// Checks a Metric, and counts its data points: of different kinds of data the last one counts, equal ones in a row are merged.
fn metric_points(body: &[u8], depth: u32) -> Result<u64> {
    const DATA: [u32; 5] = [0x2a, 0x3a, 0x4a, 0x52, 0x5a];
    let (mut kind, mut points) = (0, 0);
    let mut reader = Reader(body);
    while !reader.is_empty() {
        let mut data = reader;
        let tag = reader.tag()?;
        validate_field(&METRIC, tag, &mut reader, depth)?;
        if DATA.contains(&tag) {
            if tag != kind {
                (kind, points) = (tag, 0);
            }
            data.tag()?;
            each(data.bytes()?, 0x0a, |_| {
                points += 1;
                Ok(())
            })?;
        }
    }
    Ok(points)
}

/// Calls `visit` for the length-delimited fields with this tag.
fn each<'a>(body: &'a [u8], wanted: u32, mut visit: impl FnMut(&'a [u8]) -> Result<()>) -> Result<()> {
    let mut reader = Reader(body);
    while !reader.is_empty() {
        let tag = reader.tag()?;
        if tag == wanted {
            visit(reader.bytes()?)?;
        } else {
            reader.skip(tag, MAX_DEPTH)?;
        }
    }
    Ok(())
}
