//! OTLP decode and split: the quick twin of `schemas/otlp/reference.py`, which says what each function gives.
//!
//! `wire` reads protobuf, `descriptor` knows OTLP's messages, `value` makes text of attributes, `strings` and `column` make Arrow buffers;
//! `spans`, `details` and `split` are the three functions; `python` is the only module that knows Python.

pub mod column;
pub mod descriptor;
pub mod details;
pub mod ids;
mod points;
pub mod promoted;
#[cfg_attr(not(feature = "python"), allow(dead_code, unused_imports))] // only Python starts it
pub mod receive;
mod runs;
pub mod semantics;
mod span_columns;
pub mod spans;
pub mod split;
pub mod strings;
pub mod value;
pub mod wire;

#[cfg(feature = "python")]
mod python;

/// Why nothing was decoded.
#[derive(Debug)]
pub enum Error {
    /// A payload is not well-formed; its index where that is known.
    Malformed(Option<usize>),
    /// Texts or lists do not fit Arrow's 32-bit offsets.
    TooLarge,
}

impl Error {
    /// Says which payload it was.
    fn of_record(self, record: usize) -> Self {
        match self {
            Self::Malformed(_) => Self::Malformed(Some(record)),
            Self::TooLarge => Self::TooLarge,
        }
    }
}

impl From<wire::Malformed> for Error {
    fn from(_: wire::Malformed) -> Self {
        Self::Malformed(None)
    }
}
