//! OTLP bytes to columns, and to parts.

mod containers;
pub mod contexts;
pub mod descriptor;
pub mod details;
mod digest;
mod framing;
pub mod identity;
pub mod ids;
pub mod log_batch;
pub mod mend;
mod peers;
pub mod point_batch;
mod point_columns;
mod point_fields;
mod points;
pub mod promoted;
pub mod resources;
mod runs;
pub mod semantics;
mod span_columns;
pub(crate) mod span_fields;
pub mod spans;
pub mod split;
pub mod value;
pub mod weight;
pub mod wire;
