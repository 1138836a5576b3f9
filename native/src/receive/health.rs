//! grpc.health.v1: Check and Watch. While the receiver stops it is NOT_SERVING, and watches end.

use std::time::Duration;

use bytes::Bytes;
use h2::RecvStream;
use h2::server::SendResponse;
use tokio::sync::watch;

use super::answer::{fail, head, succeed, trailers};
use super::message::{Message, framed};
use super::room::Room;
use super::status::{Code, Status};
use super::until::until;
use crate::otlp::wire::Reader;

const LONGEST_REQUEST: usize = 4096;
const SERVING: u8 = 1;
const NOT_SERVING: u8 = 2;
const SERVICE_UNKNOWN: u8 = 3;

/// Those of the service.
#[derive(Clone, Copy)]
pub enum Method {
    /// Asks once.
    Check,
    /// Gets each change.
    Watch,
}

impl Method {
    /// By its path.
    pub fn of(path: &str) -> Option<Self> {
        match path {
            "/grpc.health.v1.Health/Check" => Some(Self::Check),
            "/grpc.health.v1.Health/Watch" => Some(Self::Watch),
            _ => None,
        }
    }
}

/// Whether the service of a HealthCheckRequest is one of the receiver's ("" is the whole of it). None: not well-formed.
fn is_known(request: &[u8]) -> Option<bool> {
    let mut service: &[u8] = b"";
    let mut reader = Reader(request);
    while !reader.is_empty() {
        match reader.tag().ok()? {
            0x0a => service = reader.bytes().ok()?,
            tag => reader.skip(tag, 1).ok()?,
        }
    }
    Some(matches!(
        service,
        b"" | b"opentelemetry.proto.collector.trace.v1.TraceService"
            | b"opentelemetry.proto.collector.metrics.v1.MetricsService"
            | b"opentelemetry.proto.collector.logs.v1.LogsService"
            | b"grpc.health.v1.Health"
    ))
}

/// Answers a request; a watch lasts until either side ends it, and takes its room for as long.
pub async fn answer(
    method: Method,
    mut stopping: watch::Receiver<bool>,
    body: RecvStream,
    mut respond: SendResponse<Bytes>,
    time: Duration,
    _room: Room,
) {
    let Ok(Some(request)) = tokio::time::timeout(time, receive(body)).await else {
        return fail(&mut respond, &Status::new(Code::Internal, "not a unary request"));
    };
    let Some(is_known) = is_known(&request) else {
        return fail(&mut respond, &Status::new(Code::InvalidArgument, "not a HealthCheckRequest"));
    };
    let state = |is_stopping: bool| if is_stopping { NOT_SERVING } else { SERVING };
    match method {
        Method::Check if is_known => succeed(&mut respond, Some(framed(&[0x08, state(*stopping.borrow())]))),
        Method::Check => fail(&mut respond, &Status::new(Code::NotFound, "no such service")),
        Method::Watch => {
            let Ok(mut stream) = respond.send_response(head(), false) else { return };
            let first = if is_known { state(*stopping.borrow()) } else { SERVICE_UNKNOWN };
            let _gone = stream.send_data(framed(&[0x08, first]), false);
            let gone = std::future::poll_fn(|context| stream.poll_reset(context));
            if first != NOT_SERVING && until(gone, stopping.wait_for(|is_stopping| *is_stopping)).await.is_none() {
                return; // the sender has gone
            }
            if first == SERVING {
                let _gone = stream.send_data(framed(&[0x08, NOT_SERVING]), false);
            }
            let _gone = stream.send_trailers(trailers());
        }
    }
}

async fn receive(mut body: RecvStream) -> Option<Bytes> {
    let mut message = Message::new(LONGEST_REQUEST);
    while let Some(piece) = body.data().await {
        let piece = piece.ok()?;
        let _gone = body.flow_control().release_capacity(piece.len());
        message.push(piece).ok()?;
        message.own();
    }
    let received = message.finish().ok()?;
    (!received.is_compressed).then_some(received.body)
}
