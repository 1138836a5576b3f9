//! What the receiver's log should hear of. Python takes it each second: of each kind the first one and how many there were, at most every
//! ten seconds, so that whoever causes it cannot fill the log.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

const EVERY: Duration = Duration::from_secs(10);

/// Kinds of notes; their order is `ingest.rust._NOTES`.
#[derive(Clone, Copy)]
pub enum Kind {
    /// A bug: where, and what it says.
    Panic,
    /// A connection could not be accepted.
    Accept,
    /// A TLS handshake failed.
    Handshake,
    /// Something else than gRPC was spoken.
    Foreign,
}

const KINDS: usize = 4;

#[derive(Default)]
struct Note {
    count: u64,
    first: String,
    taken: Option<Instant>,
}

/// Those that were not taken yet.
#[derive(Default)]
pub struct Notes([Mutex<Note>; KINDS]);

impl Notes {
    /// Adds one; its text is only made where it is going to be logged.
    pub fn add(&self, kind: Kind, text: impl FnOnce() -> String) {
        let mut note = self.0[kind as usize].lock().unwrap_or_else(PoisonError::into_inner);
        if note.count == 0 {
            note.first = text();
        }
        note.count += 1;
    }

    /// Kind, count and first text of those that are due, or of all.
    pub fn take(&self, all: bool, now: Instant) -> Vec<(usize, u64, String)> {
        let mut taken = Vec::new();
        for (kind, note) in self.0.iter().enumerate() {
            let mut note = note.lock().unwrap_or_else(PoisonError::into_inner);
            if note.count > 0 && (all || note.taken.is_none_or(|at| at + EVERY <= now)) {
                note.taken = Some(now);
                taken.push((kind, std::mem::take(&mut note.count), std::mem::take(&mut note.first)));
            }
        }
        taken
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kind_is_logged_at_once_and_then_now_and_then() {
        let (notes, began) = (Notes::default(), Instant::now());
        assert!(notes.take(true, began).is_empty());
        notes.add(Kind::Accept, || "one".to_owned());
        assert_eq!(notes.take(false, began), [(1, 1, "one".to_owned())]);
        for text in ["two", "three"] {
            notes.add(Kind::Accept, || text.to_owned());
        }
        notes.add(Kind::Panic, || "bug".to_owned());
        assert_eq!(notes.take(false, began + EVERY / 2), [(0, 1, "bug".to_owned())]);
        assert_eq!(notes.take(false, began + EVERY), [(1, 2, "two".to_owned())]);
        notes.add(Kind::Accept, || "four".to_owned());
        assert_eq!(notes.take(true, began + EVERY), [(1, 1, "four".to_owned())]);
    }
}
