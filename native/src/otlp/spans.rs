//! TracesData payloads into the columns of a SpanBatch (`schemas/spans.py`), in one pass over the bytes.

use std::sync::Arc;

use hashbrown::{Equivalent, HashMap};

use crate::Error;
use crate::arrow::column::{Buffer, Texts, within};
use crate::arrow::maps::{Limits, Maps};
use crate::arrow::strings::Strings;
use crate::otlp::containers::{attributes, each_child, read_container};
use crate::otlp::descriptor::{RESOURCE, SCOPE, validate};
use crate::otlp::digest::frame;
use crate::otlp::identity::{Identities, ResourceTexts, Rows, SDK, TAGS, identity, resource_texts};
use crate::otlp::promoted::{Keys, Promoted};
use crate::otlp::resources::{Table, text_of};
use crate::otlp::semantics::{bytes, grpc_status, is_code_error, messaging_role, number};
use crate::otlp::span_columns::{Columns, Span, known, push_each, read_span};
use crate::otlp::span_fields::{
    COMPONENT, ERROR, GRPC_STATUS, HTTP_STATUS, MESSAGING_OPERATION, PEER, REQUEST_BYTES, RESPONSE_BYTES, RESPONSE_FLAGS, RETRY_COUNT,
    ROUTE, SPAN_FIELDS, TAG, UPSTREAM_CLUSTER, is_mirrored, peer, protocol,
};
use crate::otlp::value::unique_attributes;
use crate::otlp::weight::{DETAIL_BYTES, ITEM_BYTES};
use crate::otlp::wire::{MAX_DEPTH, Malformed, Reader};

const CLIENT: i32 = 3;
const STATUS_ERROR: i32 = 2;

/// The buffers of a SpanBatch's parts, in the order of their schemas.
pub struct SpanBatch {
    /// Rows of `spans`.
    pub span_count: usize,
    /// One buffer a column; then codes and validity of each extra key.
    pub spans: Vec<Buffer>,
    /// Rows of `resources`.
    pub resource_count: usize,
    /// One buffer a column; then those of the attributes.
    pub resources: Vec<Buffer>,
    /// Rows of `scopes`.
    pub scope_count: usize,
    /// Two buffers a column.
    pub scopes: Vec<Buffer>,
    /// Offsets and text.
    pub strings: Vec<Buffer>,
    /// Attribute sets, and texts of resources and scopes, that are not whole.
    pub cut: u64,
}

struct Resource {
    is_proxy: bool,
    texts: ResourceTexts,
    cluster: String,
    /// The row that has its attributes, once there is one.
    row: Option<u32>,
    /// Per extra key what the resource has of it.
    extras: Vec<Option<Extra>>,
}

/// A text, and its code once a span has needed it (so that strings are interned in the order of use, and long ones hashed once).
struct Extra {
    text: Vec<u8>,
    code: Option<u32>,
}

impl Extra {
    fn code(&mut self, strings: &mut Strings) -> Result<u32, Error> {
        let code = self.code.map_or_else(|| strings.code(&self.text), Ok)?;
        self.code = Some(code);
        Ok(code)
    }
}

/// The bytes of a Resource message, its schema URL, and the cluster of resources that name none.
#[derive(PartialEq, Eq, Hash)]
struct ResourceBytes<'p>(&'p [u8], &'p [u8], &'p str);

type OwnedResourceBytes = (Vec<u8>, Vec<u8>, String);

impl Equivalent<OwnedResourceBytes> for ResourceBytes<'_> {
    fn equivalent(&self, (body, schema_url, cluster): &OwnedResourceBytes) -> bool {
        self.0 == body && self.1 == schema_url && self.2 == cluster
    }
}

/// Decodes payloads one by one; none is needed any more once it is decoded. Extra keys differ from one another.
pub struct Decoder<'t> {
    table: &'t Table,
    extra_keys: &'t [String],
    keys: Arc<Keys>,
    limits: Limits,
    payloads: u32,
    details: usize, // events and links of all spans
    strings: Strings,
    resources: HashMap<OwnedResourceBytes, usize>,
    known_resources: Vec<Resource>,
    tags: Vec<u8>,
    rows: Rows,
    row_fields: Identities,
    row_gateways: Vec<u8>,
    row_bases: Vec<u32>,
    resource_attributes: Maps,
    scopes: HashMap<Vec<u8>, u32>,
    scope_texts: [Texts; 2],
    columns: Columns,
}

impl<'t> Decoder<'t> {
    /// Nothing decoded yet.
    pub fn new(table: &'t Table, extra_keys: &'t [String], limits: Limits) -> Self {
        let fields = [table.span_keys.clone(), extra_keys.iter().map(|key| vec![key.clone()]).collect()].concat();
        let extras = extra_keys.iter().map(|_| Default::default()).collect();
        Self {
            table,
            extra_keys,
            keys: Arc::new(Keys::new(&fields)),
            limits,
            payloads: 0,
            details: 0,
            strings: Strings::default(),
            resources: HashMap::new(),
            known_resources: Vec::new(),
            tags: Vec::new(),
            rows: Rows::default(),
            row_fields: Identities::default(),
            row_gateways: Vec::new(),
            row_bases: Vec::new(),
            resource_attributes: Maps::new(limits),
            scopes: HashMap::new(),
            scope_texts: Default::default(),
            columns: Columns { extras, ..Columns::default() },
        }
    }

    /// Decodes the next payload, whose resources are of `cluster` unless they name theirs. After an error the decoder is of no use any more.
    pub fn payload(&mut self, payload: &[u8], cluster: &str) -> Result<(), Error> {
        let record = self.payloads;
        self.payloads += 1;
        self.record(record, payload, cluster).map_err(|error| error.of_record(record as usize))
    }

    fn record(&mut self, record: u32, payload: &[u8], cluster: &str) -> Result<(), Error> {
        let mut promoted = Promoted::new(Arc::clone(&self.keys));
        let mut reader = Reader(payload);
        if payload.len() > i32::MAX as usize {
            return Err(Malformed.into()); // as protobuf has it; so positions fit their columns
        }
        while !reader.is_empty() {
            match reader.tag()? {
                0x0a => self.resource_spans(&mut promoted, (record, payload, cluster), reader.bytes()?, MAX_DEPTH - 1)?,
                tag => reader.skip(tag, MAX_DEPTH)?,
            }
        }
        Ok(())
    }

    fn resource_spans<'p>(
        &mut self,
        promoted: &mut Promoted<'p>,
        (record, payload, cluster): (u32, &'p [u8], &str),
        body: &'p [u8],
        depth: u32,
    ) -> Result<(), Error> {
        let (own, schema_url) = read_container(body, &RESOURCE, depth)?;
        let resource = self.resource(&own, schema_url, cluster, depth - 1)?;
        each_child(body, |scope_spans| {
            let depth = depth - 1;
            let (of_scope, _) = read_container(scope_spans, &SCOPE, depth)?;
            let scope = self.scope(&of_scope, depth - 1)?;
            each_child(scope_spans, |body| {
                let offset = body.as_ptr() as usize - payload.as_ptr() as usize;
                self.columns.push_position([record, offset as u32, body.len() as u32]);
                promoted.begin_span();
                let span = read_span(promoted, body, depth - 1)?;
                let row = self.row(promoted, resource, &own)?;
                self.push_span(promoted, &span, (resource, row), scope)?;
                self.details += span.details;
                self.limits.check(self.columns.bucket.len() * ITEM_BYTES + self.details * DETAIL_BYTES)
            })
        })
    }

    /// The number of a resource.
    fn resource(&mut self, body: &[u8], schema_url: &[u8], cluster: &str, depth: u32) -> Result<usize, Error> {
        if let Some(number) = self.resources.get(&ResourceBytes(body, schema_url, cluster)) {
            return Ok(*number);
        }
        validate(&RESOURCE, body, depth)?;
        let attributes = unique_attributes(attributes(body, 1, depth)?);
        let texts = resource_texts(&self.table.resource_keys, &attributes);
        let extras = self.extra_keys.iter().map(|key| text_of(&attributes, key).map(|text| Extra { text, code: None })).collect();
        self.known_resources.push(Resource { is_proxy: texts[SDK] == b"envoy", texts, cluster: cluster.to_owned(), row: None, extras });
        let number = self.resources.len();
        self.resources.insert((body.to_vec(), schema_url.to_vec(), cluster.to_owned()), number);
        Ok(number)
    }

    /// The row of a resource, whose message is `body`, with the tags of a span.
    #[inline]
    fn row(&mut self, promoted: &mut Promoted<'_>, resource: usize, body: &[u8]) -> Result<u32, Error> {
        self.tags.clear();
        for field in TAG..TAG + TAGS {
            frame(&mut self.tags, promoted.text(field));
        }
        match self.rows.get(resource, &self.tags) {
            Some(row) => Ok(row),
            None => self.new_row(resource, body),
        }
    }

    fn new_row(&mut self, resource: usize, body: &[u8]) -> Result<u32, Error> {
        let row = self.rows.add(resource, &self.tags);
        let of = &mut self.known_resources[resource];
        let own = identity(&of.texts, unframed(&self.tags), of.cluster.as_bytes(), self.table.unknown_service.as_bytes());
        self.row_fields.push(&own, &mut self.strings, &mut self.resource_attributes)?;
        self.row_gateways.push(own.is_gateway.into());
        self.row_bases.push(of.row.unwrap_or(row));
        match of.row {
            Some(_) => self.resource_attributes.push(&[])?,
            None => self.resource_attributes.push(&unique_attributes(attributes(body, 1, MAX_DEPTH)?))?,
        }
        of.row.get_or_insert(row);
        Ok(row)
    }

    /// The row of a scope.
    fn scope(&mut self, body: &[u8], depth: u32) -> Result<u32, Error> {
        if let Some(row) = self.scopes.get(body) {
            return Ok(*row);
        }
        validate(&SCOPE, body, depth)?;
        let mut texts = [&b""[..]; 2]; // name, version
        let mut reader = Reader(body);
        while !reader.is_empty() {
            match reader.tag()? {
                0x0a => texts[0] = reader.bytes()?,
                0x12 => texts[1] = reader.bytes()?,
                tag => reader.skip(tag, depth)?,
            }
        }
        for (column, text) in self.scope_texts.iter_mut().zip(texts) {
            column.push(self.resource_attributes.within(text))?;
        }
        let row = self.scopes.len() as u32;
        self.scopes.insert(body.to_vec(), row);
        Ok(row)
    }

    fn push_span(&mut self, promoted: &mut Promoted<'_>, span: &Span<'_>, (resource, row): (usize, u32), scope: u32) -> Result<(), Error> {
        let resource = &mut self.known_resources[resource];
        let http_status = number(promoted.text(HTTP_STATUS));
        let is_not_found = span.kind == CLIENT && http_status == 404;
        let is_error = promoted.text(ERROR) == b"true" || span.status_code == STATUS_ERROR && !is_not_found;
        let is_unset = known(span.status_code, STATUS_ERROR) == 0;
        let is_code_error = is_unset && is_code_error(span.kind, http_status, || grpc_status(promoted.text(GRPC_STATUS)));
        let is_proxy = resource.is_proxy || promoted.text(COMPONENT) == b"proxy";

        let columns = &mut self.columns;
        columns.push_ids(span);
        columns.push_times(span, &self.table.upper_ns);
        columns.kind.push(known(span.kind, 5));
        columns.status.push(known(span.status_code, 2));
        push_each(&mut columns.places, [span.flags, row, scope]);
        columns.http_status.push(http_status);
        columns.retry_count.push(number(promoted.text(RETRY_COUNT)));
        columns.messaging_role.push(messaging_role(span.kind, promoted.text(MESSAGING_OPERATION)));
        columns.protocol.push(protocol(promoted));
        push_each(&mut columns.sizes, [bytes(promoted.text(REQUEST_BYTES)), bytes(promoted.text(RESPONSE_BYTES))]);
        columns.error.push(is_error);
        columns.code_error.push(is_code_error);
        columns.proxy.push(is_proxy);
        columns.mirrored.push(is_mirrored(promoted, is_proxy && span.kind == CLIENT && span.name == b"mirror"));

        let limit = self.limits.value_bytes; // details.rs marks and counts what is left out
        let name = self.strings.code(within(span.name, limit))?;
        let route = if is_proxy { self.strings.code(promoted.text(ROUTE))? } else { 0 };
        let [names, operations, trace_states, messages, flags, rest @ ..] = &mut columns.codes;
        names.push(name);
        operations.push(if route == 0 { name } else { route });
        trace_states.push(self.strings.code(within(span.trace_state, limit))?);
        messages.push(self.strings.code(within(span.status_message, limit))?);
        let response_flags = promoted.text(RESPONSE_FLAGS);
        let is_none = response_flags == self.table.no_flags.as_bytes();
        flags.push(self.strings.code(if is_none { b"" } else { response_flags })?);
        for (field, codes) in (UPSTREAM_CLUSTER..HTTP_STATUS).zip(rest) {
            codes.push(match field {
                PEER => peer(&mut self.strings, promoted, span.kind == CLIENT)?,
                _ => self.strings.code(promoted.text(field))?,
            });
        }
        for (index, (codes, validity)) in columns.extras.iter_mut().enumerate() {
            let code = match promoted.only_text(SPAN_FIELDS.len() + index) {
                Some(text) => Some(self.strings.code(text)?),
                None => resource.extras[index].as_mut().map(|extra| extra.code(&mut self.strings)).transpose()?,
            };
            codes.push(code.unwrap_or(0));
            validity.push(code.is_some());
        }
        Ok(())
    }

    /// What was decoded.
    pub fn finish(self) -> SpanBatch {
        let [names, versions] = self.scope_texts;
        SpanBatch {
            cut: self.resource_attributes.cut(),
            span_count: self.columns.bucket.len(),
            spans: self.columns.finish(),
            resource_count: self.rows.count(),
            resources: self
                .row_fields
                .finish()
                .chain([Buffer::U8(self.row_gateways), Buffer::U32(self.row_bases)])
                .chain(self.resource_attributes.finish())
                .collect(),
            scope_count: self.scopes.len(),
            scopes: names.finish().into_iter().chain(versions.finish()).collect(),
            strings: self.strings.finish().into(),
        }
    }
}

/// The tags that were framed.
fn unframed(mut framed: &[u8]) -> [&[u8]; TAGS] {
    [(); TAGS].map(|()| {
        let (length, rest) = framed.split_at(size_of::<u64>());
        let (tag, rest) = rest.split_at(u64::from_be_bytes(length.try_into().expect("eight bytes")) as usize);
        framed = rest;
        tag
    })
}
