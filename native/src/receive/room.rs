//! Who may hold how much of what is being received: all together, and each connection.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use super::hub::{Hub, Settings};

const SHARE: usize = 8; // one connection has at most this part of what all may hold, so that others still have room
const OVERHEAD_BYTES: usize = 64 << 10; // what the largest request takes besides its bytes, and a few small ones beside it

/// One connection's part.
#[derive(Default)]
pub struct Peer {
    /// Large requests that wait for a thread, or have one.
    pub jobs: AtomicUsize,
    receiving_bytes: AtomicUsize,
}

/// Bytes held for a request until it is read; given back when dropped.
pub struct Room {
    hub: Arc<Hub>,
    peer: Arc<Peer>,
    bytes: usize,
}

impl Room {
    /// Holds so many, if there is room.
    pub fn reserve(hub: &Arc<Hub>, peer: &Arc<Peer>, bytes: usize) -> Option<Self> {
        let mut room = Self { hub: Arc::clone(hub), peer: Arc::clone(peer), bytes: 0 };
        room.grow(bytes).then_some(room)
    }

    /// Holds `bytes` in all, if there is room.
    pub fn grow(&mut self, bytes: usize) -> bool {
        let more = bytes.saturating_sub(self.bytes);
        if more == 0 {
            return true;
        }
        let settings = &self.hub.settings;
        if !take(&self.peer.receiving_bytes, more, share(settings)) {
            return false;
        }
        if !take(&self.hub.counters.receiving_bytes, more, settings.max_receiving) {
            self.peer.receiving_bytes.fetch_sub(more, Relaxed);
            return false;
        }
        self.bytes += more;
        true
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        self.peer.receiving_bytes.fetch_sub(self.bytes, Relaxed);
        self.hub.counters.receiving_bytes.fetch_sub(self.bytes, Relaxed);
    }
}

/// What one connection may hold: the largest request at least, where all may.
fn share(settings: &Settings) -> usize {
    (settings.max_receiving / SHARE).max(settings.max_message.saturating_add(OVERHEAD_BYTES))
}

fn take(held: &AtomicUsize, more: usize, limit: usize) -> bool {
    let has_room = held.fetch_add(more, Relaxed).saturating_add(more) <= limit;
    if !has_room {
        held.fetch_sub(more, Relaxed);
    }
    has_room
}
