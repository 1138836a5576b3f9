//! Arrow buffers, texts that are stored once, and attributes within limits.

pub mod column;
pub mod maps;
pub mod strings;
