//! The OTLP/gRPC receiver: requests in, gathers for the log out. Python (`ingest/native.py`) takes gathers, appends them, and says so.
//!
//! A request's way: `server` and `connection` (HTTP/2 with its limits), `call` (one request), `message` and `inflate` (its bytes), `crate::split`,
//! `pending` (what is gathered, by the rules of `ingest/pending.py`), `answer`. `hub` is what all of them share, `python` the door.

pub mod message;
pub mod pending;
pub mod status;
pub mod timeout;

#[cfg(feature = "receive")]
mod answer;
#[cfg(feature = "receive")]
mod auth;
#[cfg(feature = "receive")]
mod bell;
#[cfg(feature = "receive")]
mod call;
#[cfg(feature = "receive")]
mod connection;
#[cfg(feature = "receive")]
mod counters;
#[cfg(feature = "receive")]
mod health;
#[cfg(feature = "receive")]
mod hub;
#[cfg(feature = "receive")]
mod inflate;
#[cfg(feature = "python")]
pub mod python;
#[cfg(feature = "receive")]
mod server;
#[cfg(feature = "receive")]
mod socket;
#[cfg(feature = "receive")]
mod tls;
