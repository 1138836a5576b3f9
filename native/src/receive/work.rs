//! Reading a request that has come: unpacked, split, gathered. What is small is read at once, the rest waits for one of few threads.

use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use bytes::Bytes;
use tokio::time::timeout_at;

use super::answer::succeed;
use super::export::{Export, Place, refuse};
use super::guard::{guard, guarded};
use super::hub::{Call, Hub};
use super::inflate::{self, Encoding, announced, inflate};
use super::message::{Received, framed};
use super::pending::{REQUEST_OVERHEAD_BYTES, Size};
use super::queue::Job;
use super::room::Room;
use super::status::{Code, Status, grouped, partial_success, reason};
use super::until::until;
use crate::otlp::mend::mend;
use crate::otlp::split::{Signal, Split, split_within};
use crate::otlp::wire::Malformed;

const INLINE_BYTES: usize = 1 << 20; // what is larger, unpacked, is split on a thread of its own
const INLINE_PACKED_BYTES: usize = 128 << 10;
const SHARED_BYTES: usize = 16 << 10; // a message of one DATA frame shares its memory with what came before and after
const MAX_COPIES: usize = 16; // so many times its size a request may take as parts (ingest/admission.py has the same)

/// Reads a request, now or later; its bytes have `room` unless they came at once.
pub fn begin(place: &Place, export: Export, received: Received, room: Option<Room>) {
    let hub = &place.hub;
    match attempt(hub, || unpack_small(hub, export.encoding, &received)) {
        Ok(Some(body)) => return finish(place, export, body),
        Ok(None) => {}
        Err(status) => return export.refuse(hub, &status),
    }
    let room = room.or_else(|| place.reserve(received.body.len()));
    let (Some(room), Some(job)) = (room, Job::new(&place.large, &place.peer)) else { return export.turn_away(hub) };
    let (hub, place) = (Arc::clone(hub), place.clone());
    tokio::spawn(async move { guard(&hub.notes, wait(place, export, received, room, job)).await });
}

/// Waits for a thread. A request that its sender gives up is forgotten at once.
async fn wait(place: Place, mut export: Export, mut received: Received, room: Room, job: Job) {
    if received.body.len() <= SHARED_BYTES {
        received.body = Bytes::copy_from_slice(&received.body);
    }
    let thread = {
        let given_up = poll_fn(|context| export.respond.poll_reset(context));
        let threads = Arc::clone(&place.large.threads);
        timeout_at(export.deadline.into(), until(given_up, threads.acquire_owned())).await
    };
    match thread {
        Ok(Some(Ok(thread))) => {
            tokio::task::spawn_blocking(move || {
                let hub = &place.hub;
                match attempt(hub, || unpack(hub, export.encoding, received)) {
                    Ok(body) => finish(&place, export, body),
                    Err(status) => export.refuse(hub, &status),
                }
                drop((room, job, thread));
            });
        }
        Ok(_) => {}
        Err(_) => export.refuse(&place.hub, &Status::new(Code::DeadlineExceeded, "the request waited too long to be read")),
    }
}

/// A panic is the request's alone.
fn attempt<T>(hub: &Hub, work: impl FnOnce() -> Result<T, Status>) -> Result<T, Status> {
    guarded(&hub.notes, work).unwrap_or_else(|| Err(Status::new(Code::Internal, "an internal error; the receiver's log has the details")))
}

/// The message unpacked, None where that takes long.
fn unpack_small(hub: &Hub, encoding: Encoding, received: &Received) -> Result<Option<Bytes>, Status> {
    let (packed, limit) = (received.body.len(), INLINE_BYTES.min(hub.settings.max_message));
    if !received.is_compressed {
        return Ok((packed <= INLINE_BYTES).then(|| received.body.clone()));
    }
    if packed > INLINE_PACKED_BYTES || announced(encoding, &received.body) > limit {
        return Ok(None);
    }
    match inflate(named(encoding)?, &received.body, limit) {
        Ok(body) => Ok(Some(Bytes::from(body))),
        Err(inflate::Fault::TooLarge) => Ok(None), // it may be no larger than it may be: that is seen elsewhere
        Err(inflate::Fault::Corrupt) => Err(corrupt()),
    }
}

/// The message unpacked.
fn unpack(hub: &Hub, encoding: Encoding, received: Received) -> Result<Bytes, Status> {
    if !received.is_compressed {
        return Ok(received.body);
    }
    let limit = hub.settings.max_message;
    inflate(named(encoding)?, &received.body, limit).map(Bytes::from).map_err(|fault| match fault {
        inflate::Fault::TooLarge => {
            Status::new(Code::ResourceExhausted, format!("the request unpacks to more than {} bytes (max_message)", grouped(limit)))
        }
        inflate::Fault::Corrupt => corrupt(),
    })
}

/// The encoding of a compressed message.
fn named(encoding: Encoding) -> Result<Encoding, Status> {
    match encoding {
        Encoding::Identity => Err(Status::new(Code::Internal, "a compressed message without grpc-encoding")),
        encoding => Ok(encoding),
    }
}

fn corrupt() -> Status {
    Status::new(Code::Internal, "the message is not compressed as grpc-encoding says")
}

/// Splits a request and gathers it.
fn finish(place: &Place, export: Export, body: Bytes) {
    let Export { topic, mut respond, .. } = export;
    let hub = &place.hub;
    let Read { split, body, dropped, repaired } = match attempt(hub, || read(hub, topic, body)) {
        Ok(read) => read,
        Err(status) => return refuse(hub, topic, &mut respond, &status),
    };
    let rejected = split.bad_trace_ids + split.bad_span_ids + dropped;
    if let Some(status) = too_large(hub, topic, &split, body.len()) {
        hub.reject(topic, split.items + rejected);
        return refuse(hub, topic, &mut respond, &status);
    }
    if split.is_over {
        let status = hub.refuse(topic, split.items + rejected, body.len() + split.bytes + REQUEST_OVERHEAD_BYTES);
        return refuse(hub, topic, &mut respond, &status);
    }
    if split.items + rejected == 0 {
        hub.counters.answered(topic, Code::Ok as u8);
        return succeed(&mut respond, None);
    }
    let partial =
        (rejected > 0).then(|| framed(&partial_success(rejected, &reason(topic, split.bad_trace_ids, split.bad_span_ids, dropped))));
    let size = Size { items: split.items, rejected, repaired, bytes: body.len() };
    let call = Box::new(Call { topic, worker: place.worker, respond, partial });
    let added = if split.parts.is_empty() && split.items > 0 {
        hub.gather(&[(0, &body[..])], size, call)
    } else {
        let parts: Vec<(u32, Vec<u8>)> = (0..).zip(split.parts).filter_map(|(partition, part)| Some((partition, part?))).collect();
        hub.gather(&parts, size, call)
    };
    if let Err((mut call, status)) = added {
        refuse(hub, topic, &mut call.respond, &status);
    }
}

/// Why a request is refused for good: a record can't hold one of its items, or its parts are too many times its size.
fn too_large(hub: &Hub, topic: usize, split: &Split, bytes: usize) -> Option<Status> {
    let record_bytes = hub.max_record[topic].load(Relaxed);
    let message = if split.record_bytes > record_bytes {
        format!(
            "an item with its resource and scope, or these twice, takes {} bytes of a record; the log's records have {}",
            grouped(split.record_bytes),
            grouped(record_bytes)
        )
    } else if split.bytes > max_parts(bytes) {
        format!(
            "the request has {} bytes and takes {} as parts by partition, more than {MAX_COPIES} times as many: its resources are too large for its items",
            grouped(bytes),
            grouped(split.bytes)
        )
    } else {
        return None;
    };
    Some(Status::new(Code::ResourceExhausted, message))
}

/// The most that the parts of a request may take.
fn max_parts(bytes: usize) -> usize {
    (MAX_COPIES * bytes).max(INLINE_BYTES)
}

/// A request that was read.
struct Read {
    split: Split,
    /// As it was split.
    body: Bytes,
    /// Items that were not well-formed.
    dropped: u64,
    /// Texts and values that were mended.
    repaired: u64,
}

/// Splits a request, mended where it is not well-formed.
fn read(hub: &Hub, topic: usize, body: Bytes) -> Result<Read, Status> {
    let malformed = |_| Status::new(Code::InvalidArgument, "not a well-formed OTLP message");
    let signal = [Signal::Spans, Signal::Metrics, Signal::Logs][topic];
    if let Ok(split) = split(hub, signal, &body) {
        return Ok(Read { split, body, dropped: 0, repaired: 0 });
    }
    let mended = mend(signal, &body).map_err(malformed)?;
    let body = Bytes::from(mended.body);
    let split = split(hub, signal, &body).map_err(malformed)?;
    Ok(Read { split, body, dropped: mended.dropped, repaired: mended.repaired })
}

/// Parts beyond what is small are held in the buffer as they are made; where it has no room, or they are too many times the request, the
/// items are only counted. What takes far more than the request is measured before it is copied.
fn split(hub: &Hub, signal: Signal, body: &[u8]) -> Result<Split, Malformed> {
    let mut held = Held { hub, bytes: 0 };
    let mut parts_bytes = 0;
    let (partitions, most) = (hub.settings.partitions, max_parts(body.len()));
    let at_once = most.min(body.len() + INLINE_BYTES);
    let mut has_room = |more: usize| {
        parts_bytes += more;
        parts_bytes <= INLINE_BYTES || parts_bytes <= at_once && held.grow(parts_bytes)
    };
    let measured = split_within(signal, body, partitions, &mut has_room)?;
    if measured.is_over && measured.bytes <= most && held.grow(measured.bytes) {
        return split_within(signal, body, partitions, &mut |_| true);
    }
    Ok(measured)
}

/// Bytes of the buffer; given back when dropped.
struct Held<'a> {
    hub: &'a Hub,
    bytes: usize,
}

impl Held<'_> {
    fn grow(&mut self, bytes: usize) -> bool {
        let may = self.hub.pending(|pending| pending.reserve(bytes - self.bytes));
        if may {
            self.bytes = bytes;
        }
        may
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        if self.bytes > 0 {
            self.hub.pending(|pending| pending.release(self.bytes));
        }
    }
}
