//! Answers onto the wire: HTTP/2 headers and trailers of gRPC (gRPC over HTTP/2, "Responses").

use bytes::Bytes;
use h2::server::SendResponse;
use http::header::{CONTENT_TYPE, HeaderName, HeaderValue};
use http::{HeaderMap, Response, StatusCode};

use super::hub::{Answer, Hub};
use super::inflate::ACCEPTED;
use super::status::{Code, Status};

const GRPC: HeaderValue = HeaderValue::from_static("application/grpc");
const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
const GRPC_MESSAGE: HeaderName = HeaderName::from_static("grpc-message");
const GRPC_DETAILS: HeaderName = HeaderName::from_static("grpc-status-details-bin");
const GRPC_ACCEPT: HeaderName = HeaderName::from_static("grpc-accept-encoding");
const EMPTY_FRAME: Bytes = Bytes::from_static(&[0; 5]);

/// The head of a response that has a body.
pub fn head() -> Response<()> {
    let mut response = Response::new(());
    response.headers_mut().insert(CONTENT_TYPE, GRPC);
    response
}

/// Trailers of a success.
pub fn trailers() -> HeaderMap {
    let mut trailers = HeaderMap::with_capacity(1);
    trailers.insert(GRPC_STATUS, HeaderValue::from_static("0"));
    trailers
}

/// A response of one message, None for the empty one. A sender that has gone is no error.
pub fn succeed(respond: &mut SendResponse<Bytes>, frame: Option<Bytes>) {
    if let Ok(mut stream) = respond.send_response(head(), false) {
        let _gone = stream.send_data(frame.unwrap_or(EMPTY_FRAME), false).and_then(|()| stream.send_trailers(trailers()));
    }
}

/// An error: headers alone.
pub fn fail(respond: &mut SendResponse<Bytes>, status: &Status) {
    let mut response = head();
    let headers = response.headers_mut();
    headers.insert(GRPC_STATUS, HeaderValue::from(u16::from(status.code)));
    for (name, value) in [(GRPC_MESSAGE, status.encoded_message()), (GRPC_DETAILS, status.details())] {
        if let Ok(value) = HeaderValue::from_maybe_shared(value) {
            headers.insert(name, value);
        }
    }
    if status.code == Code::Unimplemented as u8 {
        headers.insert(GRPC_ACCEPT, HeaderValue::from_static(ACCEPTED));
    }
    let _gone = respond.send_response(response, true);
}

/// An answer to what is not gRPC.
pub fn refuse_http(respond: &mut SendResponse<Bytes>, status: StatusCode) {
    let mut response = Response::new(());
    *response.status_mut() = status;
    let _gone = respond.send_response(response, true);
}

/// Answers a call that has waited for the log.
pub fn settle(hub: &Hub, (mut call, failure): Answer) {
    match failure {
        None => {
            hub.counters.answered(call.topic, Code::Ok as u8);
            succeed(&mut call.respond, call.partial.take());
        }
        Some(status) => {
            hub.counters.answered(call.topic, status.code);
            fail(&mut call.respond, &status);
        }
    }
}
