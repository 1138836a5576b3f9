//! Large requests wait here for one of few threads, so many of a worker and of a connection.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use tokio::sync::Semaphore;

use super::room::Peer;

/// How many large requests each worker unpacks and splits at once.
pub const THREADS: usize = 2;

const MAX_JOBS: usize = 128; // large requests that wait for a thread, of one worker
const MAX_PEER_JOBS: usize = 16; // and of one connection

/// A worker's threads for large requests, and how many requests wait for them or are read.
pub struct Large {
    /// Permits of them.
    pub threads: Arc<Semaphore>,
    jobs: AtomicUsize,
}

impl Default for Large {
    fn default() -> Self {
        Self { threads: Arc::new(Semaphore::new(THREADS)), jobs: AtomicUsize::new(0) }
    }
}

/// A place in the queue.
pub struct Job {
    large: Arc<Large>,
    peer: Arc<Peer>,
}

impl Job {
    /// None where too many wait, of the worker or of the connection.
    pub fn new(large: &Arc<Large>, peer: &Arc<Peer>) -> Option<Self> {
        let job = Self { large: Arc::clone(large), peer: Arc::clone(peer) };
        let jobs = job.large.jobs.fetch_add(1, Relaxed);
        let of_peer = job.peer.jobs.fetch_add(1, Relaxed);
        (jobs < MAX_JOBS && of_peer < MAX_PEER_JOBS).then_some(job)
    }
}

impl Drop for Job {
    fn drop(&mut self) {
        self.large.jobs.fetch_sub(1, Relaxed);
        self.peer.jobs.fetch_sub(1, Relaxed);
    }
}
