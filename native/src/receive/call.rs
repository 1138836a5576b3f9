//! One request: routed, and received within its limits. What can be done at once is done without a task of its own.

use std::sync::{Arc, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use bytes::Bytes;
use h2::RecvStream;
use h2::server::SendResponse;
use http::header::{AUTHORIZATION, CONTENT_TYPE};
use http::{Method, Request, StatusCode};

use super::answer::{self, fail};
use super::export::{Export, Place, TASK_BYTES, refuse, too_many};
use super::guard::guard;
use super::hub::Hub;
use super::inflate::{ACCEPTED, Encoding};
use super::message::{Fault, Message, Received};
use super::room::Room;
use super::status::{Code, Status, grouped};
use super::{health, timeout, work};

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
            let Some(room) = place.reserve(0) else { return fail(&mut respond, &too_many(&place.hub)) };
            tokio::spawn(guarded(Arc::clone(&place.hub), health::answer(method, place.stopping.clone(), body, respond, time, room)));
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
            &Status::new(Code::Unimplemented, format!("grpc-encoding is not read here; send one of {ACCEPTED}")),
        );
    };
    begin(place, Export { topic, encoding, respond, deadline: Instant::now() + time }, body);
}

/// A task's panic ends it alone.
async fn guarded(hub: Arc<Hub>, task: impl Future<Output = ()>) {
    guard(&hub.notes, task).await;
}

/// Not gRPC-Web, whose name begins alike.
fn is_grpc(kind: &[u8]) -> bool {
    kind.strip_prefix(b"application/grpc").is_some_and(|rest| matches!(rest.first(), None | Some(b'+' | b';')))
}

/// Takes what has come; if that is not all, a task takes the rest.
fn begin(place: &Place, export: Export, mut body: RecvStream) {
    let mut message = Message::new(place.hub.settings.max_message);
    let mut now = Context::from_waker(Waker::noop());
    loop {
        match body.poll_data(&mut now) {
            Poll::Ready(Some(Ok(piece))) => {
                if let Err(status) = take(&place.hub, &mut body, &mut message, piece) {
                    return export.refuse(&place.hub, &status);
                }
            }
            Poll::Ready(Some(Err(_))) => return, // reset, or the connection is gone
            Poll::Ready(None) => match message.finish() {
                Ok(received) => return work::begin(place, export, received, None),
                Err(fault) => return export.refuse(&place.hub, &status_of(&place.hub, &fault)),
            },
            Poll::Pending => {
                message.own();
                let Some(room) = place.reserve(message.held_bytes()) else { return export.turn_away(&place.hub) };
                tokio::spawn(guarded(Arc::clone(&place.hub), finish(place.clone(), export, body, message, room)));
                return;
            }
        }
    }
}

/// Puts a piece to the message, and lets the sender send as much again.
fn take(hub: &Hub, body: &mut RecvStream, message: &mut Message, piece: Bytes) -> Result<(), Status> {
    let length = piece.len();
    let pushed = message.push(piece).map_err(|fault| status_of(hub, &fault));
    let _gone = body.flow_control().release_capacity(length);
    pushed
}

enum Unfinished {
    Wrong(Status),
    NoRoom,
    Gone, // the sender
}

async fn finish(place: Place, export: Export, body: RecvStream, message: Message, mut room: Room) {
    let hub = &place.hub;
    match tokio::time::timeout_at(export.deadline.into(), receive(hub, body, message, &mut room)).await {
        Ok(Ok(received)) => work::begin(&place, export, received, Some(room)),
        Ok(Err(Unfinished::Wrong(status))) => export.refuse(hub, &status),
        Ok(Err(Unfinished::NoRoom)) => export.turn_away(hub),
        Ok(Err(Unfinished::Gone)) => {}
        Err(_) => export.refuse(hub, &Status::new(Code::DeadlineExceeded, "the request's body did not come in time")),
    }
}

/// The rest of a message.
async fn receive(hub: &Hub, mut body: RecvStream, mut message: Message, room: &mut Room) -> Result<Received, Unfinished> {
    while let Some(piece) = body.data().await {
        take(hub, &mut body, &mut message, piece.map_err(|_| Unfinished::Gone)?).map_err(Unfinished::Wrong)?;
        message.own();
        if !room.grow(TASK_BYTES + message.held_bytes()) {
            return Err(Unfinished::NoRoom);
        }
    }
    message.finish().map_err(|fault| Unfinished::Wrong(status_of(hub, &fault)))
}

fn status_of(hub: &Hub, fault: &Fault) -> Status {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_sounds_like_grpc_is_not_grpc() {
        for good in ["application/grpc", "application/grpc+proto", "application/grpc; charset=utf-8"] {
            assert!(is_grpc(good.as_bytes()), "{good}");
        }
        for bad in ["application/grpc-web", "application/json", "application/grpcx", ""] {
            assert!(!is_grpc(bad.as_bytes()), "{bad}");
        }
    }
}
