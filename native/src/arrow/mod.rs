//! Arrow buffers, and texts that are stored once.

pub mod column;
pub mod strings;
