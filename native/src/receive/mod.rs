//! The OTLP/gRPC receiver: requests in, gathers for the log out. Python (`ingest/rust.py`) takes gathers, appends them, and says so.
//!
//! A request's way: `server` and `connection` (HTTP/2 with its limits), `call` (one request, an `export`), `room` (what may be held of it), `message` and
//! `inflate` (its bytes), `work` (read with `crate::otlp::split`, where and when; `queue` has the large ones), `pending` (what is gathered, by the
//! rules of `ingest/pending.py`), `answer`. `foreign` turns other protocols away. `hub` is what all of them share, `guard` and `notes` keep panics and log them, `python` is the door.

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
mod export;
#[cfg(feature = "receive")]
mod foreign;
#[cfg(feature = "receive")]
mod guard;
#[cfg(feature = "receive")]
mod health;
#[cfg(feature = "receive")]
mod hub;
#[cfg(feature = "receive")]
mod inflate;
#[cfg(feature = "receive")]
mod notes;
#[cfg(feature = "python")]
pub mod python;
#[cfg(feature = "receive")]
mod queue;
#[cfg(feature = "receive")]
mod room;
#[cfg(feature = "receive")]
mod server;
#[cfg(feature = "receive")]
mod socket;
#[cfg(feature = "receive")]
mod tls;
#[cfg(feature = "receive")]
mod until;
#[cfg(feature = "receive")]
mod work;
