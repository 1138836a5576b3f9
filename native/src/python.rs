//! The Python face: `schemas/_native.pyi`. Bytes come in borrowed, the GIL is released while they are read, buffers go out without a copy.

use std::collections::HashMap;
use std::ffi::{c_int, c_void};

use pyo3::buffer::PyBuffer;
use pyo3::exceptions::{PyBufferError, PyOverflowError, PyValueError};
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::pybacked::PyBackedBytes;
use pyo3::types::{PyBytes, PyType};

use crate::Error;
use crate::arrow::column::Buffer;
use crate::arrow::maps::Limits;
use crate::lookup;
use crate::otlp::descriptor::{self, Kind};
use crate::otlp::identity::RESOURCE_FIELDS;
use crate::otlp::resources::Table;
use crate::otlp::span_fields::SPAN_FIELDS;
use crate::otlp::split::Signal;
use crate::otlp::{contexts, details, log_batch, mend, point_batch, spans, split, weight};

/// Rows and buffers.
type Batch = (usize, Vec<ArrowBuffer>);

/// Memory that Arrow arrays are made of, by Python's buffer protocol.
#[pyclass(frozen)]
struct ArrowBuffer(Buffer);

#[pymethods]
impl ArrowBuffer {
    /// Lends the memory, read-only.
    #[allow(unsafe_code, clippy::needless_pass_by_value)]
    unsafe fn __getbuffer__(slf: Bound<'_, Self>, view: *mut ffi::Py_buffer, flags: c_int) -> PyResult<()> {
        if view.is_null() {
            return Err(PyBufferError::new_err("no view to fill"));
        }
        let bytes = slf.get().0.bytes();
        let length = bytes.len().try_into().map_err(|_| PyBufferError::new_err("too large"))?;
        let start = bytes.as_ptr().cast::<c_void>().cast_mut();
        // SAFETY: `view` points to a Py_buffer, as the protocol says, and takes a reference to `slf`, which is frozen: the memory neither
        // moves nor changes while the view lives. PyBuffer_FillInfo refuses writers.
        let status = unsafe { ffi::PyBuffer_FillInfo(view, slf.as_ptr(), start, length, 1, flags) };
        if status == 0 { Ok(()) } else { Err(PyErr::fetch(slf.py())) }
    }
}

/// Decodes and splits as the tables of `schemas` say.
#[pyclass(frozen)]
struct Decoder {
    table: Table,
    malformed: Py<PyType>,
    over_limit: Py<PyType>,
}

#[pymethods]
impl Decoder {
    #[new]
    fn new(
        mut span_keys: HashMap<String, Vec<String>>,
        mut resource_keys: HashMap<String, Vec<String>>,
        unknown_service: String,
        no_flags: String,
        upper_ns: Vec<u64>,
        malformed: Py<PyType>,
        over_limit: Py<PyType>,
    ) -> PyResult<Self> {
        let table = Table {
            span_keys: in_order(&mut span_keys, &SPAN_FIELDS)?,
            resource_keys: in_order(&mut resource_keys, &RESOURCE_FIELDS)?,
            unknown_service,
            no_flags,
            upper_ns,
        };
        if table.upper_ns.len() <= 63 * 16 || (0..63).any(|octave| table.upper_ns[16 * octave] != 1 << octave) {
            return Err(PyValueError::new_err("bucket bounds must be those of base 2^(1/16), from 1 to 2^63"));
        }
        Ok(Self { table, malformed, over_limit })
    }

    fn decode_spans(
        &self,
        payloads: &Bound<'_, PyAny>,
        extra_keys: Vec<String>,
        clusters: Vec<String>,
        limits: [usize; 5],
    ) -> PyResult<(Batch, Batch, Batch, Vec<ArrowBuffer>, u64)> {
        let mut decoder = spans::Decoder::new(&self.table, &extra_keys, limits_of(limits));
        self.each(payloads, &clusters, |payload, cluster| decoder.payload(payload, cluster))?;
        let batch = decoder.finish();
        Ok((
            (batch.span_count, arrow(batch.spans)),
            (batch.resource_count, arrow(batch.resources)),
            (batch.scope_count, arrow(batch.scopes)),
            arrow(batch.strings),
            batch.cut,
        ))
    }

    fn decode_points(
        &self,
        payloads: &Bound<'_, PyAny>,
        clusters: Vec<String>,
        limits: [usize; 5],
    ) -> PyResult<(Batch, Batch, Batch, ContextTables)> {
        let mut decoder = point_batch::Decoder::new(&self.table, limits_of(limits));
        self.each(payloads, &clusters, |payload, cluster| decoder.payload(payload, cluster))?;
        let batch = decoder.finish();
        Ok((table(batch.points), table(batch.distributions), table(batch.exemplars), context_tables(batch.tables)))
    }

    fn decode_logs(&self, payloads: &Bound<'_, PyAny>, clusters: Vec<String>, limits: [usize; 5]) -> PyResult<(Batch, ContextTables)> {
        let mut decoder = log_batch::Decoder::new(&self.table, limits_of(limits));
        self.each(payloads, &clusters, |payload, cluster| decoder.payload(payload, cluster))?;
        let batch = decoder.finish();
        Ok((table(batch.logs), context_tables(batch.tables)))
    }

    fn decode_details(
        &self,
        py: Python<'_>,
        payloads: Vec<PyBackedBytes>,
        positions: [PyBuffer<u32>; 3],
        limits: [usize; 5],
    ) -> PyResult<Vec<ArrowBuffer>> {
        let limits = limits_of(limits);
        let payloads: Vec<&[u8]> = payloads.iter().map(|payload| &**payload).collect();
        let [records, offsets, lengths] = positions.map(|column| column.to_vec(py));
        let (records, offsets, lengths) = (records?, offsets?, lengths?);
        let positions: Vec<details::Position> =
            records.into_iter().zip(offsets).zip(lengths).map(|((record, offset), length)| (record, offset, length)).collect();
        let is_inside = |&(record, offset, length): &details::Position| {
            payloads.get(record as usize).is_some_and(|payload| u64::from(offset) + u64::from(length) <= payload.len() as u64)
        };
        if !positions.iter().all(is_inside) {
            return Err(PyValueError::new_err("a span's position lies outside of its payload"));
        }
        py.detach(|| details::decode(&payloads, &positions, limits)).map(arrow).map_err(|error| self.raise(py, error))
    }

    /// Items of a payload, and what its rows take.
    fn weigh(&self, signal: usize, payload: &Bound<'_, PyBytes>) -> PyResult<(usize, usize)> {
        let (py, bytes) = (payload.py(), payload.as_bytes());
        let signal = *[Signal::Spans, Signal::Metrics, Signal::Logs].get(signal).ok_or_else(|| PyValueError::new_err("no such signal"))?;
        let weight = py.detach(|| weight::weigh(signal, bytes)).map_err(|error| self.raise(py, error.into()))?;
        Ok((weight.items, weight.bytes()))
    }

    /// The request mended, texts repaired and values cut, items left out. `topic` is an index of `schemas.topics.TOPICS`.
    fn mend<'py>(&self, topic: usize, request: &Bound<'py, PyBytes>) -> PyResult<(Bound<'py, PyBytes>, u64, u64)> {
        let (py, bytes) = (request.py(), request.as_bytes());
        let Some(signal) = [Signal::Spans, Signal::Metrics, Signal::Logs].into_iter().nth(topic) else {
            return Err(PyValueError::new_err("no such topic"));
        };
        let mended = py.detach(|| mend::mend(signal, bytes)).map_err(|error| self.raise(py, error.into()))?;
        Ok((PyBytes::new(py, &mended.body), mended.repaired, mended.dropped))
    }

    fn split_spans<'py>(&self, request: &Bound<'py, PyBytes>, partitions: u32, most_bytes: usize) -> PyResult<Parts<'py>> {
        self.split(Signal::Spans, request, partitions, most_bytes)
    }

    fn split_metrics<'py>(&self, request: &Bound<'py, PyBytes>, partitions: u32, most_bytes: usize) -> PyResult<Parts<'py>> {
        self.split(Signal::Metrics, request, partitions, most_bytes)
    }

    fn split_logs<'py>(&self, request: &Bound<'py, PyBytes>, partitions: u32, most_bytes: usize) -> PyResult<Parts<'py>> {
        self.split(Signal::Logs, request, partitions, most_bytes)
    }
}

/// Parts by partition (None where they would take more than they may), items, spans with a bad trace id, spans with a bad span id, what the
/// parts take, what a record must.
type Parts<'py> = (Option<HashMap<u32, Bound<'py, PyBytes>>>, u64, u64, u64, usize, usize);

impl Decoder {
    /// Decodes payloads one by one, each with its cluster ("" where there are none); a payload is dropped once it is decoded: all at once
    /// they are too large.
    fn each(
        &self,
        payloads: &Bound<'_, PyAny>,
        clusters: &[String],
        mut decode: impl FnMut(&[u8], &str) -> Result<(), Error> + Send,
    ) -> PyResult<()> {
        let py = payloads.py();
        for (record, payload) in payloads.try_iter()?.enumerate() {
            let payload: PyBackedBytes = payload?.extract()?;
            let cluster = clusters.get(record).map_or("", String::as_str);
            py.detach(|| decode(&payload, cluster)).map_err(|error| self.raise(py, error))?;
        }
        Ok(())
    }

    fn split<'py>(&self, signal: Signal, request: &Bound<'py, PyBytes>, partitions: u32, most_bytes: usize) -> PyResult<Parts<'py>> {
        let py = request.py();
        let bytes = request.as_bytes();
        let mut room = most_bytes;
        let mut has_room = |more| room.checked_sub(more).inspect(|left| room = *left).is_some();
        let result =
            py.detach(|| split::split_within(signal, bytes, partitions, &mut has_room)).map_err(|error| self.raise(py, error.into()))?;
        let parts = if result.is_over {
            None
        } else if result.parts.is_empty() && result.items > 0 {
            Some(HashMap::from([(0, request.clone())]))
        } else {
            let parts = (0..).zip(result.parts);
            Some(parts.filter_map(|(partition, part)| Some((partition, PyBytes::new(py, &part?)))).collect())
        };
        Ok((parts, result.items, result.bad_trace_ids, result.bad_span_ids, result.bytes, result.record_bytes))
    }

    fn raise(&self, py: Python<'_>, error: Error) -> PyErr {
        match error {
            Error::Malformed(record) => PyErr::from_type(self.malformed.bind(py).clone(), ("not a well-formed OTLP message", record)),
            Error::OverLimit => PyErr::from_type(self.over_limit.bind(py).clone(), ("the rows of a batch would take more than they may",)),
            Error::TooLarge => PyOverflowError::new_err("more than 2 GiB of distinct strings or attributes in one batch"),
        }
    }
}

/// Resources, scopes, attribute sets, strings; how many of them are not whole.
type ContextTables = (Batch, Batch, Batch, Vec<ArrowBuffer>, u64);

fn context_tables(tables: contexts::Tables) -> ContextTables {
    (table(tables.resources), table(tables.scopes), table(tables.attributes), arrow(tables.strings), tables.cut)
}

fn table((rows, buffers): (usize, Vec<Buffer>)) -> Batch {
    (rows, arrow(buffers))
}

fn limits_of([value_bytes, set_bytes, set_entries, list_entries, batch_bytes]: [usize; 5]) -> Limits {
    Limits { value_bytes, set_bytes, set_entries, list_entries, batch_bytes }
}

fn arrow(buffers: Vec<Buffer>) -> Vec<ArrowBuffer> {
    buffers.into_iter().map(ArrowBuffer).collect()
}

fn in_order(keys: &mut HashMap<String, Vec<String>>, fields: &[&str]) -> PyResult<Vec<Vec<String>>> {
    let ordered: Option<Vec<_>> = fields.iter().map(|field| keys.remove(*field)).collect();
    ordered
        .filter(|_| keys.is_empty())
        .ok_or_else(|| PyValueError::new_err(format!("keys must be given for just these fields: {fields:?}")))
}

/// See `lookup::Index`.
#[pyclass(frozen)]
struct Index(lookup::Index);

#[pymethods]
impl Index {
    #[new]
    #[allow(clippy::needless_pass_by_value)]
    fn new(py: Python<'_>, keys: PyBuffer<u64>) -> PyResult<Self> {
        let keys = keys.to_vec(py)?;
        i32::try_from(keys.len()).map_err(|_| PyOverflowError::new_err("too many keys"))?;
        Ok(Self(py.detach(|| lookup::Index::of(&keys))))
    }

    #[allow(clippy::needless_pass_by_value)]
    fn find(&self, py: Python<'_>, asked: PyBuffer<u64>) -> PyResult<ArrowBuffer> {
        let asked = asked.to_vec(py)?;
        Ok(ArrowBuffer(Buffer::I32(py.detach(|| self.0.find(&asked)))))
    }
}

/// The checked fields of every message: name -> number -> "text", "varints", "fixed64s" or the name of a message.
#[pyfunction]
fn descriptors() -> HashMap<&'static str, HashMap<usize, &'static str>> {
    let name = |kind| match kind {
        Kind::Bytes => "bytes",
        Kind::Text => "text",
        Kind::PackedVarint => "varints",
        Kind::PackedFixed64 => "fixed64s",
        Kind::Attribute => descriptor::KEY_VALUE.name,
        Kind::Message(message) => message.name,
    };
    let fields = |message: &descriptor::Message| message.fields().map(|(number, kind)| (number, name(kind))).collect();
    descriptor::ALL.iter().map(|message| (message.name, fields(message))).collect()
}

#[pymodule]
mod _native {
    #[pymodule_export]
    use super::{Decoder, Index, descriptors};
    #[pymodule_export]
    use crate::receive::python::Receiver;
}
