//! What the receiver counts; Python asks for all of it at once.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};

use super::pending::TOPICS;
use super::status::CODES;

/// Totals since the start.
#[derive(Default)]
pub struct Counters {
    requests: [[AtomicU64; CODES]; TOPICS],
    refused: [AtomicU64; TOPICS],
    unread: [AtomicU64; TOPICS],
    unauthenticated: [AtomicU64; 3],
    /// Connections that are open.
    pub connections: AtomicUsize,
    /// Connections that were turned away.
    pub connections_refused: AtomicU64,
    /// Connections that could not be accepted.
    pub accept_errors: AtomicU64,
    /// Bytes of requests that have not come to their end, or wait to be read.
    pub receiving_bytes: AtomicUsize,
}

impl Counters {
    /// An Export request was answered.
    pub fn answered(&self, topic: usize, code: u8) {
        self.requests[topic][usize::from(code).min(CODES - 1)].fetch_add(1, Relaxed);
    }

    /// Items were turned away for want of room.
    pub fn refused(&self, topic: usize, items: u64) {
        self.refused[topic].fetch_add(items, Relaxed);
    }

    /// A request was turned away before it was read, as too much was being received.
    pub fn unread(&self, topic: usize) {
        self.unread[topic].fetch_add(1, Relaxed);
    }

    /// A request without a token that holds; `reason` as `auth` numbers them.
    pub fn unauthenticated(&self, reason: usize) {
        self.unauthenticated[reason].fetch_add(1, Relaxed);
    }

    /// Topic, code and count of the requests that were answered.
    pub fn requests(&self) -> Vec<(usize, usize, u64)> {
        let by_topic = self.requests.iter().enumerate();
        let all = by_topic.flat_map(|(topic, codes)| codes.iter().enumerate().map(move |(code, count)| (topic, code, count.load(Relaxed))));
        all.filter(|(_, _, count)| *count > 0).collect()
    }

    /// Items refused, by topic.
    pub fn refused_items(&self) -> [u64; TOPICS] {
        self.refused.each_ref().map(|count| count.load(Relaxed))
    }

    /// Requests turned away unread, by topic.
    pub fn unread_requests(&self) -> [u64; TOPICS] {
        self.unread.each_ref().map(|count| count.load(Relaxed))
    }

    /// Requests refused, by reason.
    pub fn unauthenticated_requests(&self) -> [u64; 3] {
        self.unauthenticated.each_ref().map(|count| count.load(Relaxed))
    }
}
