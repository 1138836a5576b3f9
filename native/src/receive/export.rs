//! An Export request on its way: where it came in, what it holds, and its answer when it is refused.

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use h2::server::SendResponse;
use tokio::sync::watch;

use super::answer::fail;
use super::hub::Hub;
use super::inflate::Encoding;
use super::queue::Large;
use super::room::{Peer, Room};
use super::status::{Code, Status};

pub const TASK_BYTES: usize = 2 << 10; // what a request costs that is not read yet, besides its bytes

/// What a connection's requests have in common.
#[derive(Clone)]
pub struct Place {
    /// See `hub`.
    pub hub: Arc<Hub>,
    /// The index of the worker.
    pub worker: usize,
    /// The worker's threads for large requests.
    pub large: Arc<Large>,
    /// What the connection holds.
    pub peer: Arc<Peer>,
    /// Becomes true when the receiver stops.
    pub stopping: watch::Receiver<bool>,
}

impl Place {
    /// Room for a request that is not read yet and has so many bytes of memory.
    pub fn reserve(&self, bytes: usize) -> Option<Room> {
        Room::reserve(&self.hub, &self.peer, TASK_BYTES + bytes)
    }
}

/// A request whose message is still to come, or to be read.
pub struct Export {
    /// Of its signal.
    pub topic: usize,
    /// What compressed messages are compressed with.
    pub encoding: Encoding,
    /// Where the answer goes.
    pub respond: SendResponse<Bytes>,
    /// When it is given up.
    pub deadline: Instant,
}

impl Export {
    /// Answers with an error.
    pub fn refuse(mut self, hub: &Hub, status: &Status) {
        refuse(hub, self.topic, &mut self.respond, status);
    }

    /// The same, for want of room.
    pub fn turn_away(self, hub: &Hub) {
        hub.counters.unread(self.topic);
        self.refuse(hub, &too_many(hub));
    }
}

/// Answers an Export request with an error.
pub fn refuse(hub: &Hub, topic: usize, respond: &mut SendResponse<Bytes>, status: &Status) {
    hub.counters.answered(topic, status.code);
    fail(respond, status);
}

/// For want of room.
pub fn too_many(hub: &Hub) -> Status {
    Status::retry(Code::ResourceExhausted, "too much is being received at once (max_receiving)", hub.settings.retry_ns)
}
