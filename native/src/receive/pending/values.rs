//! What `Pending` takes, and what it gives.

use super::TOPICS;

/// Items by topic.
pub type Counts = [u64; TOPICS];

/// The settings.
#[derive(Clone, Copy)]
pub struct Limits {
    /// How long requests are gathered.
    pub window_ns: u64,
    /// A record is full at this size.
    pub record_bytes: usize,
    /// The most that may be held.
    pub limit_bytes: usize,
    /// When counts whose append failed are tried again.
    pub retry_ns: u64,
}

/// Why a request was not taken.
#[derive(Debug, PartialEq, Eq)]
pub enum Refused {
    /// There never will be room for it.
    TooLarge {
        /// What it takes.
        needed: usize,
    },
    /// There is no room now.
    Full {
        /// What is held.
        held: usize,
    },
    /// The receiver has stopped.
    Closed,
}

/// A request's counts.
#[derive(Clone, Copy)]
pub struct Size {
    /// Accepted items.
    pub items: u64,
    /// Items left out as invalid.
    pub rejected: u64,
    /// Texts and values that were mended.
    pub repaired: u64,
    /// Bytes as received.
    pub bytes: usize,
}

/// What one append writes to one partition.
#[derive(Debug, PartialEq, Eq)]
pub struct Append {
    /// Index of the topic.
    pub topic: usize,
    /// Its partition.
    pub partition: u32,
    /// OTLP, empty for counts only.
    pub value: Vec<u8>,
    /// Items rejected by requests that begin here.
    pub rejected: u64,
    /// Items refused since the topic's last record.
    pub refused: u64,
    /// Texts and values mended by requests that begin here.
    pub repaired: u64,
}

/// What a finished append settled.
pub struct Outcome<R> {
    /// Whom to answer: true for accepted.
    pub answers: Vec<(R, bool)>,
    /// Items accepted, left out, and refused.
    pub accepted: Counts,
    /// See `accepted`.
    pub rejected: Counts,
    /// See `accepted`.
    pub refused: Counts,
}
