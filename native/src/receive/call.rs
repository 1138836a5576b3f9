//! One request: routed, received within its limits, split, gathered. What can be done at once is done without a task of its own.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use h2::RecvStream;
use h2::server::SendResponse;
use http::header::{AUTHORIZATION, CONTENT_TYPE};
use http::{Method, Request, StatusCode};
use tokio::sync::watch;

use super::answer::{self, fail, succeed};
use super::hub::{Call, Hub, Room};
use super::inflate::{self, Encoding, inflate};
use super::message::{Fault, Message, Received, framed};
use super::pending::Size;
use super::status::{Code, Status, grouped, partial_success, reason};
use super::{health, timeout};
use crate::split::{Signal, Split, split};

const INLINE_BYTES: usize = 1 << 20; // larger requests are split on a thread of their own
const INLINE_PACKED_BYTES: usize = 128 << 10;
const TASK_BYTES: usize = 2 << 10; // what a request costs that has not come to its end, besides its bytes

/// What a connection's requests have in common.
#[derive(Clone)]
pub struct Place {
    /// See `hub`.
    pub hub: Arc<Hub>,
    /// The index of the worker.
    pub worker: usize,
    /// Becomes true when the receiver stops.
    pub stopping: watch::Receiver<bool>,
}

struct Export {
    topic: usize,
    encoding: Encoding,
    respond: SendResponse<Bytes>,
}

/// Takes a request.
pub fn accept(place: &Place, request: Request<RecvStream>, mut respond: SendResponse<Bytes>) {
    let (head, body) = request.into_parts();
    if head.method != Method::POST {
        return answer::refuse_http(&mut respond, StatusCode::METHOD_NOT_ALLOWED);
    }
    if !head.headers.get(CONTENT_TYPE).is_some_and(|kind| is_grpc(kind.as_bytes())) {
        return answer::refuse_http(&mut respond, StatusCode::UNSUPPORTED_MEDIA_TYPE);
    }
    let limit = head.headers.get("grpc-timeout").and_then(|value| timeout::parse(value.as_bytes()));
    let time = place.hub.settings.body_timeout.min(limit.unwrap_or(Duration::MAX));
    let topic = match head.uri.path() {
        "/opentelemetry.proto.collector.trace.v1.TraceService/Export" => 0,
        "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export" => 1,
        "/opentelemetry.proto.collector.logs.v1.LogsService/Export" => 2,
        path => {
            let Some(method) = health::Method::of(path) else {
                return fail(&mut respond, &Status::new(Code::Unimplemented, "no such method; this receiver takes OTLP and health checks"));
            };
            let Some(room) = place.hub.reserve(TASK_BYTES) else { return fail(&mut respond, &too_many(&place.hub)) };
            tokio::spawn(health::answer(method, place.stopping.clone(), body, respond, time, room));
            return;
        }
    };
    let tokens = place.hub.tokens.read().unwrap_or_else(PoisonError::into_inner);
    let shown = head.headers.get(AUTHORIZATION).map(|value| value.as_bytes());
    if let Some(reason) = tokens.as_ref().and_then(|tokens| tokens.authorize(shown).err()) {
        place.hub.counters.unauthenticated(reason as usize);
        return refuse(&place.hub, topic, &mut respond, &Status::new(Code::Unauthenticated, reason.message()));
    }
    drop(tokens);
    let Some(encoding) = Encoding::of(head.headers.get("grpc-encoding").map_or(b"", |name| name.as_bytes())) else {
        return refuse(
            &place.hub,
            topic,
            &mut respond,
            &Status::new(Code::Unimplemented, "grpc-encoding is not read here; send gzip or none"),
        );
    };
    begin(place, Export { topic, encoding, respond }, body, time);
}

/// Not gRPC-Web, whose name begins alike.
fn is_grpc(kind: &[u8]) -> bool {
    kind.strip_prefix(b"application/grpc").is_some_and(|rest| matches!(rest.first(), None | Some(b'+' | b';')))
}

fn refuse(hub: &Hub, topic: usize, respond: &mut SendResponse<Bytes>, status: &Status) {
    hub.counters.answered(topic, status.code);
    fail(respond, status);
}

/// Reads what has come; if that is not all, a task reads the rest.
fn begin(place: &Place, mut export: Export, mut body: RecvStream, time: Duration) {
    let mut message = Message::new(place.hub.settings.max_message);
    let mut now = Context::from_waker(Waker::noop());
    loop {
        match body.poll_data(&mut now) {
            Poll::Ready(Some(Ok(piece))) => {
                if let Err(status) = take(&place.hub, &mut body, &mut message, piece) {
                    return refuse(&place.hub, export.topic, &mut export.respond, &status);
                }
            }
            Poll::Ready(Some(Err(_))) => return, // reset, or the connection is gone
            Poll::Ready(None) => match message.finish() {
                Ok(received) if is_quick(&received) => return process(place, export, received),
                Ok(received) => {
                    let place = place.clone();
                    tokio::task::spawn_blocking(move || process(&place, export, received));
                    return;
                }
                Err(fault) => return refuse(&place.hub, export.topic, &mut export.respond, &told(&place.hub, &fault)),
            },
            Poll::Pending => {
                message.own();
                tokio::spawn(finish(place.clone(), export, body, message, time));
                return;
            }
        }
    }
}

fn is_quick(received: &Received) -> bool {
    received.body.len() <= if received.is_compressed { INLINE_PACKED_BYTES } else { INLINE_BYTES }
}

/// Puts a piece to the message, and lets the sender send as much again.
fn take(hub: &Hub, body: &mut RecvStream, message: &mut Message, piece: Bytes) -> Result<(), Status> {
    let length = piece.len();
    let pushed = message.push(piece).map_err(|fault| told(hub, &fault));
    let _gone = body.flow_control().release_capacity(length);
    pushed
}

async fn finish(place: Place, mut export: Export, body: RecvStream, message: Message, time: Duration) {
    let received = match tokio::time::timeout(time, receive(&place.hub, body, message)).await {
        Ok(received) => received,
        Err(_) => Err(Some(Status::new(Code::DeadlineExceeded, "the request's body did not come in time"))),
    };
    match received {
        Ok((received, room)) if is_quick(&received) => {
            process(&place, export, received);
            drop(room);
        }
        Ok((received, room)) => {
            tokio::task::spawn_blocking(move || {
                process(&place, export, received);
                drop(room);
            });
        }
        Err(Some(status)) => refuse(&place.hub, export.topic, &mut export.respond, &status),
        Err(None) => {}
    }
}

/// The rest of a message. The error is None where the sender has gone.
async fn receive(hub: &Arc<Hub>, mut body: RecvStream, mut message: Message) -> Result<(Received, Room), Option<Status>> {
    let mut room = hub.reserve(TASK_BYTES + message.held_bytes()).ok_or_else(|| too_many(hub))?;
    while let Some(piece) = body.data().await {
        take(hub, &mut body, &mut message, piece.map_err(|_| None)?)?;
        message.own();
        if !room.grow(TASK_BYTES + message.held_bytes()) {
            return Err(Some(too_many(hub)));
        }
    }
    Ok((message.finish().map_err(|fault| told(hub, &fault))?, room))
}

fn too_many(hub: &Hub) -> Status {
    Status::retry(Code::ResourceExhausted, "too much is being received at once (max_receiving)", hub.settings.retry_ns)
}

fn told(hub: &Hub, fault: &Fault) -> Status {
    match fault {
        Fault::TooLarge(length) => {
            let limit = grouped(hub.settings.max_message);
            Status::new(Code::ResourceExhausted, format!("the request has {} bytes, more than {limit} (max_message)", grouped(*length)))
        }
        Fault::Short => Status::new(Code::Internal, "the stream ended before its message did"),
        Fault::Long => Status::new(Code::Internal, "more than one message in a unary request"),
        Fault::Flag(flag) => Status::new(Code::Internal, format!("a gRPC frame begins with 0 or 1, not {flag}")),
    }
}

/// Splits and gathers a request that has come.
fn process(place: &Place, export: Export, received: Received) {
    let Export { topic, encoding, mut respond } = export;
    let hub = &place.hub;
    let (body, split) = match guarded(|| read(hub, topic, encoding, received)) {
        Ok(split) => split,
        Err(status) => return refuse(hub, topic, &mut respond, &status),
    };
    let rejected = split.bad_trace_ids + split.bad_span_ids;
    if split.items + rejected == 0 {
        hub.counters.answered(topic, Code::Ok as u8);
        return succeed(&mut respond, None);
    }
    let partial = (rejected > 0).then(|| framed(&partial_success(rejected, &reason(split.bad_trace_ids, split.bad_span_ids))));
    let size = Size { items: split.items, rejected, bytes: body.len() };
    let call = Box::new(Call { topic, worker: place.worker, respond, partial });
    let added = if split.parts.is_empty() {
        hub.gather(&[(0, &body[..])], size, call)
    } else {
        let parts: Vec<(u32, Vec<u8>)> = (0..).zip(split.parts).filter_map(|(partition, part)| Some((partition, part?))).collect();
        hub.gather(&parts, size, call)
    };
    if let Err((mut call, status)) = added {
        refuse(hub, topic, &mut call.respond, &status);
    }
}

/// A panic is the request's alone. (What panics beyond this ends its connection: tokio catches it at the task.)
fn guarded<T>(work: impl FnOnce() -> Result<T, Status>) -> Result<T, Status> {
    catch_unwind(AssertUnwindSafe(work))
        .unwrap_or_else(|_panic| Err(Status::new(Code::Internal, "an internal error; the receiver's log has the details")))
}

fn read(hub: &Hub, topic: usize, encoding: Encoding, received: Received) -> Result<(Bytes, Split), Status> {
    let limit = hub.settings.max_message;
    let body = match (received.is_compressed, encoding) {
        (false, _) => received.body,
        (true, Encoding::Identity) => return Err(Status::new(Code::Internal, "a compressed message without grpc-encoding")),
        (true, encoding) => inflate(encoding, &received.body, limit).map(Bytes::from).map_err(|fault| match fault {
            inflate::Fault::TooLarge => {
                Status::new(Code::ResourceExhausted, format!("the request unpacks to more than {} bytes (max_message)", grouped(limit)))
            }
            inflate::Fault::Corrupt => Status::new(Code::Internal, "the message is not compressed as grpc-encoding says"),
        })?,
    };
    let signal = [Signal::Spans, Signal::Metrics, Signal::Logs][topic];
    let split =
        split(signal, &body, hub.settings.partitions).map_err(|_| Status::new(Code::InvalidArgument, "not a well-formed OTLP message"))?;
    Ok((body, split))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_one_requests_internal_error() {
        let none = [0_u8; 0];
        let status = guarded(|| Ok::<u8, Status>(none[std::hint::black_box(1)])).expect_err("it panics");
        assert_eq!(status.code, Code::Internal as u8);
        assert_eq!(guarded(|| Ok::<u8, Status>(7)).ok(), Some(7));
    }

    #[test]
    fn grpc_is_told_from_what_sounds_like_it() {
        for good in ["application/grpc", "application/grpc+proto", "application/grpc; charset=utf-8"] {
            assert!(is_grpc(good.as_bytes()), "{good}");
        }
        for bad in ["application/grpc-web", "application/json", "application/grpcx", ""] {
            assert!(!is_grpc(bad.as_bytes()), "{bad}");
        }
    }
}
