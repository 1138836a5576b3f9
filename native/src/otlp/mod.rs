//! OTLP bytes to columns, and to parts.

pub mod descriptor;
pub mod details;
pub mod ids;
mod points;
pub mod promoted;
mod runs;
pub mod semantics;
mod span_columns;
pub mod spans;
pub mod split;
pub mod value;
pub mod wire;
