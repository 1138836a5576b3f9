//! The fields that a span's attributes are promoted to, and the rules of `schemas/otlp/semantics.py` that read several of them.

use crate::Error;
use crate::arrow::strings::Strings;
use crate::otlp::identity::TAGS;
use crate::otlp::peers::{authority_of, host_of};
use crate::otlp::promoted::Promoted;
use crate::otlp::semantics::is_shadow;

/// The fields of `semantics.SPAN_KEYS`, then those of `semantics.SPAN_PARTS`; their places here are what the constants below say.
pub const SPAN_FIELDS: [&str; 28] = [
    "response_flags",
    "upstream_cluster",
    "peer",
    "db_system",
    "db_name",
    "messaging_system",
    "messaging_destination",
    "http_status",
    "retry_count",
    "error",
    "component",
    "route",
    "messaging_operation",
    "grpc_status",
    "url",
    "peer_address",
    "istio_service",
    "istio_version",
    "istio_namespace",
    "istio_cluster",
    "istio_mesh",
    "node_id",
    "host",
    "rpc_system",
    "grpc",
    "http",
    "request_bytes",
    "response_bytes",
];
pub const RESPONSE_FLAGS: usize = 0;
/// From here to HTTP_STATUS: fields that become codes as they are.
pub const UPSTREAM_CLUSTER: usize = 1;
pub const PEER: usize = 2;
pub const HTTP_STATUS: usize = 7;
pub const RETRY_COUNT: usize = 8;
pub const ERROR: usize = 9;
pub const COMPONENT: usize = 10;
pub const ROUTE: usize = 11;
pub const MESSAGING_OPERATION: usize = 12;
pub const GRPC_STATUS: usize = 13;
pub const URL: usize = 14;
const PEER_ADDRESS: usize = 15;
/// From here to HOST: what says who made a span.
pub const TAG: usize = 16;
const HOST: usize = TAG + TAGS;
const RPC_SYSTEM: usize = HOST + 1;
const GRPC: usize = HOST + 2;
const HTTP: usize = HOST + 3;
pub const REQUEST_BYTES: usize = HOST + 4;
pub const RESPONSE_BYTES: usize = HOST + 5;

/// `semantics.PEER_RULE`.
pub fn peer(strings: &mut Strings, promoted: &mut Promoted<'_>, is_client: bool) -> Result<u32, Error> {
    match strings.code(promoted.text(PEER))? {
        0 if is_client => match strings.code(host_of(promoted.text(URL)))? {
            0 => strings.code(promoted.text(PEER_ADDRESS)),
            code => Ok(code),
        },
        code => Ok(code),
    }
}

/// `semantics.PROTOCOL_RULE`.
pub fn protocol(promoted: &mut Promoted<'_>) -> u8 {
    let is_grpc = promoted.text(RPC_SYSTEM) == b"grpc" || !promoted.text(GRPC).is_empty();
    let is_http = is_grpc || [HTTP, HTTP_STATUS, URL].into_iter().any(|field| !promoted.text(field).is_empty());
    u8::from(is_http) + u8::from(is_grpc)
}

/// `semantics.MIRROR_RULE`.
pub fn is_mirrored(promoted: &mut Promoted<'_>, is_mirror: bool) -> bool {
    is_mirror || is_shadow(authority_of(promoted.text(URL))) || promoted.any_string(HOST, is_shadow)
}
