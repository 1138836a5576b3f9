//! OTLP decode and split: the quick twin of `schemas/otlp/reference.py`, which says what each function gives.
//!
//! In `otlp`, `wire` reads protobuf, `descriptor` knows OTLP's messages, `value` makes text of attributes; `spans`, `details` and `split` are
//! the three functions. `arrow` makes Arrow buffers, `lookup` finds rows, `receive` is the gRPC receiver. `python` and `receive::python` alone know Python.

pub mod arrow;
pub mod lookup;
pub mod otlp;
#[cfg_attr(not(feature = "python"), allow(dead_code, unused_imports))] // only Python starts it
pub mod receive;

#[cfg(feature = "python")]
mod python;

/// Why nothing was decoded.
#[derive(Debug)]
pub enum Error {
    /// A payload is not well-formed; its index where that is known.
    Malformed(Option<usize>),
    /// Texts or lists do not fit Arrow's 32-bit offsets.
    TooLarge,
    /// Rows would take more than `Limits::batch_bytes`.
    OverLimit,
}

impl Error {
    /// Says which payload it was.
    fn of_record(self, record: usize) -> Self {
        match self {
            Self::Malformed(_) => Self::Malformed(Some(record)),
            other => other,
        }
    }
}

impl From<otlp::wire::Malformed> for Error {
    fn from(_: otlp::wire::Malformed) -> Self {
        Self::Malformed(None)
    }
}
