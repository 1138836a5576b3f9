//! MetricsData payloads into the columns of a PointBatch (`schemas/points.py`), in one pass over the bytes.

use hashbrown::HashMap;

use crate::Error;
use crate::arrow::column::Buffer;
use crate::arrow::maps::{Left, Limits};
use crate::otlp::containers::{each_child, read_container};
use crate::otlp::contexts::{Contexts, Place, Tables};
use crate::otlp::descriptor::{EXEMPLAR, RESOURCE, SCOPE, validate};
use crate::otlp::digest::{digest, frame};
use crate::otlp::point_columns::{Distributions, Exemplars, Points};
use crate::otlp::point_fields::{Bodies, HISTOGRAM_KIND, Metric, read_metric, read_point};
use crate::otlp::resources::Table;
use crate::otlp::span_columns::push_each;
use crate::otlp::weight::{DETAIL_BYTES, ITEM_BYTES, NUMBER_BYTES};
use crate::otlp::wire::{MAX_DEPTH, Malformed, Reader, deeper};

/// The buffers of a PointBatch's parts, in the order of their schemas.
pub struct PointBatch {
    /// Rows and buffers of `points`.
    pub points: (usize, Vec<Buffer>),
    /// Of `distributions`.
    pub distributions: (usize, Vec<Buffer>),
    /// Of `exemplars`.
    pub exemplars: (usize, Vec<Buffer>),
    /// The other parts.
    pub tables: Tables,
}

/// What points of a metric have in common.
#[derive(Clone, Copy)]
struct Head {
    codes: [u32; 3], // name, description, unit
    kind: u8,
    temporality: i32,
    monotonic: bool,
    digest: [u8; 16],
    left: Left,
}

/// Name, unit, kind, temporality, monotonic.
type HeadKey = (u32, u32, u8, i32, bool);

/// Buffers of one payload's bodies.
#[derive(Default)]
struct Scratch<'p> {
    points: Vec<&'p [u8]>,
    bodies: Bodies<'p>,
}

/// Decodes payloads one by one; none is needed any more once it is decoded.
pub struct Decoder<'t> {
    contexts: Contexts<'t>,
    limits: Limits,
    payloads: u32,
    heads: HashMap<HeadKey, [u8; 16]>,
    points: Points,
    distributions: Distributions,
    exemplars: Exemplars,
}

impl<'t> Decoder<'t> {
    /// Nothing decoded yet.
    pub fn new(table: &'t Table, limits: Limits) -> Self {
        Self {
            contexts: Contexts::new(table, limits),
            limits,
            payloads: 0,
            heads: HashMap::new(),
            points: Points::default(),
            distributions: Distributions::default(),
            exemplars: Exemplars::new(limits),
        }
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
        let mut scratch = Scratch::default();
        self.contexts.begin_payload();
        let mut reader = Reader(payload);
        while !reader.is_empty() {
            match reader.tag()? {
                0x0a => self.resource_metrics(&mut scratch, record, reader.bytes()?, cluster, MAX_DEPTH - 1)?,
                tag => reader.skip(tag, MAX_DEPTH)?,
            }
        }
        Ok(())
    }

    fn resource_metrics<'p>(
        &mut self,
        scratch: &mut Scratch<'p>,
        record: u32,
        body: &'p [u8],
        cluster: &str,
        depth: u32,
    ) -> Result<(), Error> {
        let (resource, resource_url) = read_container(body, &RESOURCE, depth)?;
        let resource = self.contexts.resource(&resource, resource_url, cluster, depth - 1)?;
        self.contexts.begin_part(resource, body);
        each_child(body, |scope_metrics| {
            let (scope, scope_url) = read_container(scope_metrics, &SCOPE, depth - 1)?;
            let place = self.contexts.begin(resource, &scope, scope_url, depth - 2)?;
            each_child(scope_metrics, |body| self.metric(scratch, record, place, body, depth - 2))
        })
    }

    fn metric<'p>(&mut self, scratch: &mut Scratch<'p>, record: u32, place: Place, body: &'p [u8], depth: u32) -> Result<(), Error> {
        let metric = read_metric(body, &mut scratch.points, depth)?;
        if scratch.points.is_empty() {
            return Ok(());
        }
        let head = self.head(&metric)?;
        let depth = depth.checked_sub(2).ok_or(Malformed)?;
        for body in &scratch.points {
            self.point(&mut scratch.bodies, record, place, head, body, depth)?;
        }
        Ok(())
    }

    fn head(&mut self, metric: &Metric<'_>) -> Result<Head, Error> {
        let mut left = Left::default();
        let mut code = |text: &[u8]| self.contexts.strings.code(self.limits.within(text, &mut left));
        let [name, description, unit] = [code(metric.name)?, code(metric.description)?, code(metric.unit)?];
        let (kind, temporality, monotonic) = (metric.kind as u8, metric.temporality, metric.monotonic);
        let digest = *self.heads.entry((name, unit, kind, temporality, monotonic)).or_insert_with(|| {
            let mut framed = Vec::new();
            frame(&mut framed, self.contexts.strings.text(name));
            frame(&mut framed, self.contexts.strings.text(unit));
            digest(&[&framed, &[kind, u8::from(monotonic)], &temporality.to_be_bytes()]).to_be_bytes()
        });
        Ok(Head { codes: [name, description, unit], kind, temporality, monotonic, digest, left })
    }

    fn point<'p>(
        &mut self,
        bodies: &mut Bodies<'p>,
        record: u32,
        place: Place,
        head: Head,
        body: &'p [u8],
        depth: u32,
    ) -> Result<(), Error> {
        let kind = usize::from(head.kind);
        let point = read_point(kind, body, bodies, &mut self.distributions.lists, depth)?;
        let row = self.points.len();
        let few = bodies.exemplars.len().min(self.limits.list_entries);
        for exemplar in &bodies.exemplars[..few] {
            self.exemplars.read(row, exemplar, deeper(depth)?)?;
        }
        for exemplar in &bodies.exemplars[few..] {
            validate(&EXEMPLAR, exemplar, deeper(depth)?)?;
        }
        let left = Left { exemplars: bodies.exemplars.len() - few, ..head.left };
        let set = self.contexts.attributes(&bodies.attributes, left, deeper(depth)?)?;
        let (identity_hi, identity_lo) = self.contexts.identity();
        let series = digest(&[&place.source, &head.digest, &set.meaning]);
        let points = &mut self.points;
        push_each(&mut points.places, [record, place.resource, place.scope, set.row]);
        points.series.push((series >> 64) as u64);
        push_each(&mut points.codes, head.codes);
        points.kind.push(head.kind);
        points.temporality.push(head.temporality);
        points.monotonic.push(head.monotonic);
        points.push_numbers(&point);
        push_each(&mut points.identities, [identity_hi, identity_lo]);
        if kind >= HISTOGRAM_KIND {
            self.distributions.push(row, &point)?;
        }
        let numbers = self.distributions.lists.numbers() * NUMBER_BYTES;
        self.limits.check(self.points.len() * ITEM_BYTES + self.exemplars.len() * DETAIL_BYTES + numbers)
    }

    /// What was decoded.
    pub fn finish(self) -> PointBatch {
        let mut tables = self.contexts.finish();
        tables.cut += self.exemplars.cut();
        PointBatch {
            points: (self.points.len(), self.points.finish()),
            distributions: (self.distributions.len(), self.distributions.finish()),
            exemplars: (self.exemplars.len(), self.exemplars.finish()),
            tables,
        }
    }
}
