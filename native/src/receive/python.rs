//! The receiver's Python face: `schemas/_native.pyi`. The GIL is held to hand gathers over, never while requests are read.

use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::atomic::Ordering::{Acquire, Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use pyo3::exceptions::{PyOSError, PyRuntimeError, PyValueError};
use pyo3::prelude::*;
use pyo3::pybacked::PyBackedBytes;
use pyo3::types::PyBytes;

use super::auth::Tokens;
use super::bell::Bell;
use super::hub::{Hub, Reply, Settings};
use super::pending::{Limits, Pending, Refused, Size, TOPICS};
use super::server::{self, Server};
use super::status::Status;
use super::tls;

/// Topic, partition, value, rejected and refused items, repaired texts and values.
type Append<'py> = (usize, u32, Bound<'py, PyBytes>, u64, u64, u64);
/// Accepted, rejected and refused items by topic; Python's own requests and whether they were accepted.
type Outcome = ([u64; TOPICS], [u64; TOPICS], [u64; TOPICS], Vec<(u64, bool)>);
/// Requests by topic and code, items refused and requests turned away unread by topic, requests refused for their token by reason;
/// connections open, refused, and not accepted for an error.
type Totals = (Vec<(usize, usize, u64)>, [u64; TOPICS], [u64; TOPICS], [u64; 3], usize, u64, u64);

/// A receiver and what waits for the log.
#[pyclass(frozen)]
pub struct Receiver {
    hub: Arc<Hub>,
    server: Mutex<Option<Server>>,
}

#[pymethods]
impl Receiver {
    #[new]
    #[pyo3(signature = (*, now_ns, partitions, window_ns, record_size, buffer_size, retry_ns, max_message, max_receiving, max_streams,
        max_age_s, age_grace_s, keepalive_time_s, keepalive_timeout_s, body_timeout_s))]
    #[allow(clippy::too_many_arguments)]
    fn new(
        now_ns: u64,
        partitions: u32,
        window_ns: u64,
        record_size: usize,
        buffer_size: usize,
        retry_ns: u64,
        max_message: usize,
        max_receiving: usize,
        max_streams: u32,
        max_age_s: f64,
        age_grace_s: f64,
        keepalive_time_s: f64,
        keepalive_timeout_s: f64,
        body_timeout_s: f64,
    ) -> PyResult<Self> {
        if !(1..=1 << 16).contains(&partitions) {
            return Err(PyValueError::new_err("partitions must be 1 to 65,536"));
        }
        let limits = Limits { window_ns, record_bytes: record_size, limit_bytes: buffer_size, retry_ns };
        let settings = Settings {
            partitions,
            retry_ns,
            limit_bytes: buffer_size,
            max_message,
            max_receiving,
            max_streams,
            max_age: seconds(max_age_s)?,
            age_grace: seconds(age_grace_s)?,
            keepalive_time: seconds(keepalive_time_s)?,
            keepalive_timeout: seconds(keepalive_timeout_s)?,
            body_timeout: seconds(body_timeout_s)?,
        };
        let hub = Arc::new(Hub::new(settings, Pending::new(limits, partitions), now_ns));
        Ok(Self { hub, server: Mutex::default() })
    }

    /// A descriptor of a socket that becomes readable when there is something to do; the caller's to close. Once.
    fn bell(&self) -> PyResult<i32> {
        let (bell, descriptor) = Bell::new()?;
        self.hub.bell.set(bell).map(|()| descriptor).map_err(|_| PyRuntimeError::new_err("there is one bell"))
    }

    fn heard(&self) {
        if let Some(bell) = self.hub.bell.get() {
            bell.heard();
        }
    }

    #[getter]
    fn held_bytes(&self) -> usize {
        self.hub.pending(|pending| pending.held_bytes())
    }

    #[getter]
    fn idle(&self) -> bool {
        self.hub.pending(|pending| pending.is_idle())
    }

    #[getter]
    fn has_full(&self) -> bool {
        self.hub.pending(|pending| pending.has_full())
    }

    #[getter]
    fn refused(&self) -> [u64; TOPICS] {
        self.hub.pending(|pending| pending.refused())
    }

    #[getter]
    fn stopped(&self) -> bool {
        self.hub.has_stopped.load(Acquire)
    }

    fn reserve(&self, size: usize) -> bool {
        self.hub.pending(|pending| pending.reserve(size))
    }

    fn release(&self, size: usize) {
        self.hub.pending(|pending| pending.release(size));
    }

    #[allow(clippy::too_many_arguments)]
    fn add(
        &self,
        py: Python<'_>,
        topic: usize,
        parts: Vec<(u32, PyBackedBytes)>,
        items: u64,
        rejected: u64,
        repaired: u64,
        request_bytes: usize,
        now_ns: u64,
        reply: u64,
    ) -> PyResult<Option<(&'static str, usize)>> {
        if topic >= TOPICS || parts.iter().any(|(partition, _)| *partition >= self.hub.settings.partitions) {
            return Err(PyValueError::new_err("no such topic or partition"));
        }
        let size = Size { items, rejected, repaired, bytes: request_bytes };
        let added = py.detach(|| self.hub.pending(|pending| pending.add(topic, &parts, size, now_ns, Reply::Python(reply))));
        Ok(added.err().map(|(refused, _)| match refused {
            Refused::TooLarge { needed } => ("too_large", needed),
            Refused::Full { held } => ("full", held),
            Refused::Closed => ("closed", 0),
        }))
    }

    fn refuse(&self, topic: usize, items: u64, now_ns: u64) -> PyResult<()> {
        if topic >= TOPICS {
            return Err(PyValueError::new_err("no such topic"));
        }
        self.hub.pending(|pending| pending.refuse(topic, items, now_ns));
        Ok(())
    }

    fn hurry(&self, now_ns: u64) {
        self.hub.pending(|pending| pending.hurry(now_ns));
    }

    fn close(&self) {
        self.hub.pending(Pending::close);
    }

    fn due_ns(&self) -> Option<u64> {
        self.hub.due_ns()
    }

    fn take<'py>(&self, py: Python<'py>, now_ns: u64) -> Option<(u64, Vec<Append<'py>>)> {
        let (number, appends) = py.detach(|| self.hub.pending(|pending| pending.take(now_ns)))?;
        let handed = appends.iter().map(|append| {
            let value = PyBytes::new(py, &append.value);
            (append.topic, append.partition, value, append.rejected, append.refused, append.repaired)
        });
        let handed = handed.collect();
        py.detach(|| self.hub.pending(|pending| pending.reuse(appends.into_iter().map(|append| append.value))));
        Some((number, handed))
    }

    #[pyo3(signature = (number, failure, now_ns))]
    fn finish(&self, py: Python<'_>, number: u64, failure: Option<(u8, String, Option<u64>)>, now_ns: u64) -> Outcome {
        let failure = failure.map(|(code, message, retry_ns)| Status::of_number(code, message, retry_ns));
        let outcome = py.detach(|| self.hub.finish(number, failure, now_ns));
        (outcome.accepted, outcome.rejected, outcome.refused, outcome.answers)
    }

    /// Listens; the port that it got.
    fn start(&self, py: Python<'_>, host: &str, port: u16, workers: usize, reuse_port: bool, max_connections: usize) -> PyResult<u16> {
        let addresses: Vec<SocketAddr> = py.detach(|| (host, port).to_socket_addrs())?.collect();
        if addresses.is_empty() || workers == 0 {
            return Err(PyOSError::new_err(format!("{host} has no address")));
        }
        let mut place = self.server.lock().unwrap_or_else(PoisonError::into_inner);
        if place.is_some() {
            return Err(PyRuntimeError::new_err("a receiver starts once"));
        }
        let server = py.detach(|| server::start(&self.hub, &addresses, workers, reuse_port, max_connections))?;
        Ok(place.insert(server).port)
    }

    /// Begins to stop; `stopped` says when it is done.
    fn stop(&self, grace_s: f64) -> PyResult<()> {
        let grace = seconds(grace_s)?;
        if let Some(server) = &*self.server.lock().unwrap_or_else(PoisonError::into_inner) {
            server.stop(grace);
        }
        Ok(())
    }

    /// Waits for the threads of a receiver that was asked to stop.
    fn join(&self, py: Python<'_>) {
        let server = self.server.lock().unwrap_or_else(PoisonError::into_inner).take();
        py.detach(|| server.into_iter().for_each(Server::join));
    }

    #[pyo3(signature = (tokens))]
    fn set_tokens(&self, tokens: Option<Vec<Vec<u8>>>) {
        *self.hub.tokens.write().unwrap_or_else(PoisonError::into_inner) = tokens.map(|tokens| Tokens::new(&tokens));
    }

    /// How many bytes a record of each topic may have.
    fn set_max_record(&self, most: [usize; TOPICS]) {
        for (limit, bytes) in self.hub.max_record.iter().zip(most) {
            limit.store(bytes, Relaxed);
        }
    }

    /// For new connections.
    fn set_tls(&self, certificate: &[u8], key: &[u8], client_ca: &[u8]) -> PyResult<()> {
        let acceptor = tls::acceptor(certificate, key, client_ca).map_err(PyValueError::new_err)?;
        *self.hub.tls.write().unwrap_or_else(PoisonError::into_inner) = Some(acceptor);
        Ok(())
    }

    /// Totals since the start.
    fn counters(&self) -> Totals {
        let counters = &self.hub.counters;
        let (open, refused) = (counters.connections.load(Relaxed), counters.connections_refused.load(Relaxed));
        let unauthenticated = counters.unauthenticated_requests();
        let errors = counters.accept_errors.load(Relaxed);
        (counters.requests(), counters.refused_items(), counters.unread_requests(), unauthenticated, open, refused, errors)
    }

    /// What the log should hear of and is due (or all of it): kind, how many, the first.
    fn notes(&self, everything: bool) -> Vec<(usize, u64, String)> {
        self.hub.notes.take(everything, Instant::now())
    }
}

fn seconds(seconds: f64) -> PyResult<Duration> {
    Duration::try_from_secs_f64(seconds).map_err(|error| PyValueError::new_err(error.to_string()))
}
