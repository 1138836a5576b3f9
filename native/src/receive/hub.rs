//! What connections and Python share: the requests that wait, limits, tokens, counters.

use std::sync::atomic::{AtomicBool, AtomicUsize};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, RwLock};
use std::time::{Duration, Instant};

use bytes::Bytes;
use h2::server::SendResponse;
use tokio::sync::mpsc::UnboundedSender;
use tokio_rustls::TlsAcceptor;

use super::auth::Tokens;
use super::bell::Bell;
use super::counters::Counters;
use super::notes::Notes;
use super::pending::{Outcome, Pending, Refused, Size, TOPICS};
use super::status::{Code, Status, grouped};

/// What Python sets.
#[derive(Clone)]
pub struct Settings {
    /// How many each topic has.
    pub partitions: u32,
    /// How long refused senders wait (RetryInfo).
    pub retry_ns: u64,
    /// The whole buffer.
    pub limit_bytes: usize,
    /// Largest message, also unpacked.
    pub max_message: usize,
    /// Most bytes of requests that have not come to their end, or wait to be read.
    pub max_receiving: usize,
    /// Most requests at once on one.
    pub max_streams: u32,
    /// Asked to reconnect then.
    pub max_age: Duration,
    /// And cut off so long after.
    pub age_grace: Duration,
    /// Silence after which a connection is pinged.
    pub keepalive_time: Duration,
    /// Wait for the answer; also for TLS and HTTP/2 to begin.
    pub keepalive_timeout: Duration,
    /// How long a request's body may take.
    pub body_timeout: Duration,
}

/// Whom to answer.
pub enum Reply {
    /// A gRPC call.
    Call(Box<Call>),
    /// A request that Python took, by its number.
    Python(u64),
    /// Nobody: only counts are gathered.
    Nobody,
}

/// A gRPC call that waits for its answer.
pub struct Call {
    /// Of the topic.
    pub topic: usize,
    /// Index of the worker that has its connection.
    pub worker: usize,
    /// Where the answer goes.
    pub respond: SendResponse<Bytes>,
    /// The frame of a partial success.
    pub partial: Option<Bytes>,
}

/// A call and its error: None for success.
pub type Answer = (Box<Call>, Option<Arc<Status>>);

struct Waiting {
    pending: Pending<Reply>,
    announced_ns: u64, // when Python is going to look; u64::MAX for not at all
}

/// See the module.
pub struct Hub {
    /// As Python gave them.
    pub settings: Settings,
    /// Totals.
    pub counters: Counters,
    /// For the log of the process.
    pub notes: Notes,
    /// Wakes Python; there once Python listens.
    pub bell: OnceLock<Bell>,
    /// None asks for none.
    pub tokens: RwLock<Option<Tokens>>,
    /// None listens in plain text.
    pub tls: RwLock<Option<TlsAcceptor>>,
    /// Where each worker takes its answers.
    pub answers: OnceLock<Vec<UnboundedSender<Vec<Answer>>>>,
    /// How many bytes a record of each topic may have.
    pub max_record: [AtomicUsize; TOPICS],
    /// Whether every worker has ended.
    pub has_stopped: AtomicBool,
    waiting: Mutex<Waiting>,
    began: Instant,
    began_ns: u64,
}

impl Hub {
    /// `began_ns` is Python's monotonic clock now.
    pub fn new(settings: Settings, pending: Pending<Reply>, began_ns: u64) -> Self {
        Self {
            settings,
            counters: Counters::default(),
            notes: Notes::default(),
            bell: OnceLock::new(),
            tokens: RwLock::default(),
            tls: RwLock::default(),
            answers: OnceLock::new(),
            max_record: [const { AtomicUsize::new(usize::MAX) }; TOPICS],
            has_stopped: AtomicBool::new(false),
            waiting: Mutex::new(Waiting { pending, announced_ns: u64::MAX }),
            began: Instant::now(),
            began_ns,
        }
    }

    /// On Python's monotonic clock.
    pub fn now_ns(&self) -> u64 {
        self.began_ns + self.began.elapsed().as_nanos() as u64
    }

    /// Wakes Python.
    pub fn ring(&self) {
        if let Some(bell) = self.bell.get() {
            bell.ring();
        }
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// For Python, who looks by itself at what is due afterwards.
    pub fn pending<T>(&self, act: impl FnOnce(&mut Pending<Reply>) -> T) -> T {
        act(&mut self.lock().pending)
    }

    /// When something will be due; Python is going to look then.
    pub fn due_ns(&self) -> Option<u64> {
        let mut waiting = self.lock();
        let due_ns = waiting.pending.due_ns();
        waiting.announced_ns = due_ns.unwrap_or(u64::MAX);
        due_ns
    }

    /// Takes a request that came over gRPC; gives the call back with its error where it does not.
    pub fn gather<P: AsRef<[u8]>>(&self, parts: &[(u32, P)], size: Size, call: Box<Call>) -> Result<(), (Box<Call>, Status)> {
        let (topic, now_ns) = (call.topic, self.now_ns());
        let mut waiting = self.lock();
        let added = waiting.pending.add(topic, parts, size, now_ns, Reply::Call(call));
        self.announce(waiting);
        match added {
            Ok(()) => Ok(()),
            Err((_, Reply::Python(_) | Reply::Nobody)) => Ok(()), // it was a call that went in
            Err((refused, Reply::Call(call))) => {
                match refused {
                    Refused::Full { .. } => self.counters.refused(topic, size.items + size.rejected),
                    Refused::TooLarge { .. } => self.reject(topic, size.items + size.rejected),
                    Refused::Closed => {}
                }
                Err((call, self.status_of(&refused)))
            }
        }
    }

    /// Wakes Python where something is due before it looks by itself.
    fn announce(&self, mut waiting: MutexGuard<'_, Waiting>) {
        let due_ns = waiting.pending.due_ns().unwrap_or(u64::MAX);
        let is_sooner = due_ns < waiting.announced_ns;
        if is_sooner {
            waiting.announced_ns = due_ns;
        }
        drop(waiting);
        if is_sooner {
            self.ring();
        }
    }

    /// Counts the items of a request that is refused for good; the count goes to the log as a request of its own.
    pub fn reject(&self, topic: usize, items: u64) {
        let size = Size { items: 0, rejected: items, repaired: 0, bytes: 0 };
        let mut waiting = self.lock();
        let parts: &[(u32, &[u8])] = &[];
        let added = if items > 0 { waiting.pending.add(topic, parts, size, self.now_ns(), Reply::Nobody) } else { Ok(()) };
        self.announce(waiting);
        if let Err((Refused::Full { .. }, _)) = added {
            self.counters.refused(topic, items);
        }
    }

    /// Refuses a request whose parts have no room; it takes `needed` bytes.
    pub fn refuse(&self, topic: usize, items: u64, needed: usize) -> Status {
        if needed > self.settings.limit_bytes {
            self.reject(topic, items);
            return self.status_of(&Refused::TooLarge { needed });
        }
        let mut waiting = self.lock();
        let held = waiting.pending.held_bytes();
        waiting.pending.refuse(topic, items, self.now_ns());
        self.announce(waiting);
        self.counters.refused(topic, items);
        self.status_of(&Refused::Full { held })
    }

    fn status_of(&self, refused: &Refused) -> Status {
        let (limit, retry_ns) = (grouped(self.settings.limit_bytes), self.settings.retry_ns);
        match refused {
            Refused::TooLarge { needed } => Status::new(
                Code::ResourceExhausted,
                format!("the request takes {} bytes to hold; the whole buffer has {limit} (buffer_size)", grouped(*needed)),
            ),
            Refused::Full { held } => Status::retry(
                Code::ResourceExhausted,
                format!("the buffer in front of the log is full ({} of {limit} bytes are held)", grouped(*held)),
                retry_ns,
            ),
            Refused::Closed => Status::retry(Code::Unavailable, "the receiver stopped before the log took the request", retry_ns),
        }
    }

    /// Settles an append; answers go to the workers that have the calls, those of Python are given back.
    pub fn finish(&self, number: u64, failure: Option<Status>, now_ns: u64) -> Outcome<u64> {
        let outcome = self.pending(|pending| pending.finish(number, failure.is_some(), now_ns));
        let failure = failure.map(Arc::new);
        let workers = self.answers.get().map_or(&[][..], Vec::as_slice);
        let mut calls: Vec<Vec<Answer>> = workers.iter().map(|_| Vec::new()).collect();
        let mut answers = Vec::new();
        for (reply, is_accepted) in outcome.answers {
            match reply {
                Reply::Nobody => {}
                Reply::Python(number) => answers.push((number, is_accepted)),
                Reply::Call(call) => {
                    let error = if is_accepted { None } else { failure.clone() };
                    if let Some(calls) = calls.get_mut(call.worker) {
                        calls.push((call, error));
                    }
                }
            }
        }
        for (worker, calls) in workers.iter().zip(calls) {
            if !calls.is_empty() {
                let _stopped = worker.send(calls);
            }
        }
        Outcome { answers, accepted: outcome.accepted, rejected: outcome.rejected, refused: outcome.refused }
    }
}
