//! What waits for the log, and what is due: `ingest/pending.py` in Rust, step by step (that file says why). Time is passed in.

use std::collections::{HashMap, VecDeque};

use slab::Slab;

pub use self::values::{Append, Counts, Limits, Outcome, Refused, Size};

mod values;

/// Spans, metrics, logs: the order of `schemas.topics.TOPICS`.
pub const TOPICS: usize = 3;
/// What a waiting call costs besides its bytes.
pub const REQUEST_OVERHEAD_BYTES: usize = 16 << 10;
/// How many full records of one partition an append takes.
pub const RECORDS_PER_APPEND: usize = 4;

const SMALLEST_RECORD_BYTES: usize = 4 << 10;
const SPARE_RECORDS: usize = 64; // as many buffers are used again: fresh memory costs more than what is written to it

struct Request<R> {
    topic: usize,
    items: u64,
    rejected: u64,
    held_bytes: usize,
    records: u32,
    reply: Option<R>, // None once it is answered
}

struct Record {
    since_ns: u64,
    value: Vec<u8>,
    rejected: u64,
    repaired: u64,
    requests: Vec<usize>,
}

#[derive(Default)]
struct Slot {
    open: Option<Record>,
    full: VecDeque<Record>,
    is_busy: bool,
    last_bytes: usize,
}

struct Batch {
    slots: Vec<usize>,
    requests: Vec<usize>,
    refused: Counts,
}

/// The requests that wait for the log; `R` is whom to answer.
pub struct Pending<R> {
    limits: Limits,
    partitions: usize,
    held_bytes: usize,
    is_draining: bool,
    is_closed: bool,
    slots: Vec<Slot>, // topic * partitions + partition
    open: Vec<usize>,
    full: Vec<usize>,
    spare: Vec<Vec<u8>>,
    requests: Slab<Request<R>>,
    batches: HashMap<u64, Batch>,
    batch_count: u64,
    refused: Counts,
    refused_due_ns: [Option<u64>; TOPICS],
}

impl<R> Pending<R> {
    /// Nothing waits.
    pub fn new(limits: Limits, partitions: u32) -> Self {
        let partitions = partitions as usize;
        Self {
            limits,
            partitions,
            held_bytes: 0,
            is_draining: false,
            is_closed: false,
            slots: (0..TOPICS * partitions).map(|_| Slot::default()).collect(),
            open: Vec::new(),
            full: Vec::new(),
            spare: Vec::new(),
            requests: Slab::new(),
            batches: HashMap::new(),
            batch_count: 0,
            refused: [0; TOPICS],
            refused_due_ns: [None; TOPICS],
        }
    }

    /// Bytes held for requests that are not settled.
    pub fn held_bytes(&self) -> usize {
        self.held_bytes
    }

    /// Refused items that are not in the log yet.
    pub fn refused(&self) -> Counts {
        self.refused
    }

    /// Whether no request waits.
    pub fn is_idle(&self) -> bool {
        self.open.is_empty() && self.full.is_empty() && self.slots.iter().all(|slot| !slot.is_busy)
    }

    /// Holds bytes while a request is being read into parts, if there is room.
    pub fn reserve(&mut self, bytes: usize) -> bool {
        let has_room = self.held_bytes.saturating_add(bytes) <= self.limits.limit_bytes;
        if has_room {
            self.held_bytes += bytes;
        }
        has_room
    }

    /// Gives back what `reserve` held.
    pub fn release(&mut self, bytes: usize) {
        self.held_bytes = self.held_bytes.saturating_sub(bytes);
    }

    /// Takes the values of a batch back, to be written to again.
    pub fn reuse(&mut self, values: impl Iterator<Item = Vec<u8>>) {
        for mut value in values {
            if self.spare.len() < SPARE_RECORDS && (1..=self.limits.record_bytes).contains(&value.capacity()) {
                value.clear();
                self.spare.push(value);
            }
        }
    }

    /// From now on nothing is taken.
    pub fn close(&mut self) {
        self.is_closed = true;
    }

    /// Takes a request as its parts by partition (none: only its counts); gives its reply back where it does not.
    pub fn add<P: AsRef<[u8]>>(&mut self, topic: usize, parts: &[(u32, P)], size: Size, now_ns: u64, reply: R) -> Result<(), (Refused, R)> {
        if self.is_closed {
            return Err((Refused::Closed, reply));
        }
        let part_bytes: usize = parts.iter().map(|(_, part)| part.as_ref().len()).sum();
        let held_bytes = size.bytes + part_bytes + REQUEST_OVERHEAD_BYTES;
        if held_bytes > self.limits.limit_bytes {
            return Err((Refused::TooLarge { needed: held_bytes }, reply));
        }
        if self.held_bytes + held_bytes > self.limits.limit_bytes {
            self.refuse(topic, size.items + size.rejected, now_ns);
            return Err((Refused::Full { held: self.held_bytes }, reply));
        }
        self.held_bytes += held_bytes;
        let request = Request {
            topic,
            items: size.items,
            rejected: size.rejected,
            held_bytes,
            records: parts.len().max(1) as u32,
            reply: Some(reply),
        };
        let request = self.requests.insert(request);
        let mut counts = (size.rejected, size.repaired); // travel with the first part
        for (partition, part) in parts {
            self.add_part(topic, *partition, part.as_ref(), request, std::mem::take(&mut counts), now_ns);
        }
        if parts.is_empty() {
            self.add_part(topic, 0, b"", request, counts, now_ns);
        }
        Ok(())
    }

    fn add_part(&mut self, topic: usize, partition: u32, part: &[u8], request: usize, counts: (u64, u64), now_ns: u64) {
        let index = topic * self.partitions + partition as usize;
        let slot = &mut self.slots[index];
        if let Some(record) = slot.open.take_if(|record| record.value.len() + part.len() > self.limits.record_bytes) {
            self.open.retain(|other| *other != index);
            fill(slot, record, index, &mut self.full);
        }
        let record = slot.open.get_or_insert_with(|| {
            self.open.push(index);
            let mut value = self.spare.pop().unwrap_or_default();
            value.reserve(slot.last_bytes.max(part.len()).max(SMALLEST_RECORD_BYTES));
            Record { since_ns: now_ns, value, rejected: 0, repaired: 0, requests: Vec::new() }
        });
        record.value.extend_from_slice(part);
        record.requests.push(request);
        record.rejected += counts.0;
        record.repaired += counts.1;
        if let Some(record) = slot.open.take_if(|record| record.value.len() >= self.limits.record_bytes) {
            self.open.retain(|other| *other != index);
            fill(slot, record, index, &mut self.full);
        }
    }

    /// Counts items that were turned away.
    pub fn refuse(&mut self, topic: usize, items: u64, now_ns: u64) {
        if items > 0 {
            self.refused[topic] += items;
            self.refused_due_ns[topic].get_or_insert(now_ns + self.limits.window_ns);
        }
    }

    /// From now on everything is due at once.
    pub fn hurry(&mut self, now_ns: u64) {
        self.is_draining = true;
        for due_ns in self.refused_due_ns.iter_mut().flatten() {
            *due_ns = now_ns;
        }
    }

    /// Whether a full record could be taken now.
    pub fn has_full(&self) -> bool {
        self.full.iter().any(|index| !self.slots[*index].is_busy)
    }

    /// When `take` will have something (0: at once).
    pub fn due_ns(&self) -> Option<u64> {
        if self.has_full() { Some(0) } else { self.window_end_ns() }
    }

    fn window_end_ns(&self) -> Option<u64> {
        let window_ns = if self.is_draining { 0 } else { self.limits.window_ns };
        let open = self.open.iter().map(|index| &self.slots[*index]).filter(|slot| !slot.is_busy);
        let open_ns = open.filter_map(|slot| slot.open.as_ref()).map(|record| record.since_ns + window_ns);
        let refused = self.refused_due_ns.iter().enumerate().filter(|(topic, _)| !self.slots[topic * self.partitions].is_busy);
        open_ns.chain(refused.filter_map(|(_, due_ns)| *due_ns)).min()
    }

    /// The next batch and its number. Its partitions take no other one until `finish`.
    pub fn take(&mut self, now_ns: u64) -> Option<(u64, Vec<Append>)> {
        let mut records = self.take_full();
        if self.window_end_ns().is_some_and(|end_ns| end_ns <= now_ns) {
            let slots = &mut self.slots;
            self.open.retain(|index| {
                let slot = &mut slots[*index];
                if slot.is_busy || !slot.full.is_empty() {
                    return true;
                }
                if let Some(record) = slot.open.take() {
                    slot.last_bytes = record.value.len();
                    records.push((*index, record));
                }
                false
            });
        }
        let refused = self.take_refused(&records, now_ns);
        let (appends, requests) = self.appends(records, refused);
        if appends.is_empty() {
            return None;
        }
        let slots: Vec<usize> = appends.iter().map(|append| append.topic * self.partitions + append.partition as usize).collect();
        for index in &slots {
            self.slots[*index].is_busy = true;
        }
        self.batch_count += 1;
        self.batches.insert(self.batch_count, Batch { slots, requests, refused });
        Some((self.batch_count, appends))
    }

    fn take_full(&mut self) -> Vec<(usize, Record)> {
        let mut taken = Vec::new();
        let slots = &mut self.slots;
        self.full.retain(|index| {
            let slot = &mut slots[*index];
            if slot.is_busy {
                return true;
            }
            let count = slot.full.len().min(RECORDS_PER_APPEND);
            taken.extend(slot.full.drain(..count).map(|record| (*index, record)));
            !slot.full.is_empty()
        });
        taken
    }

    fn take_refused(&mut self, records: &[(usize, Record)], now_ns: u64) -> Counts {
        let mut taken = [0; TOPICS];
        for (topic, taken) in taken.iter_mut().enumerate() {
            let goes_along = records.iter().any(|(index, _)| index / self.partitions == topic);
            let is_due = |due_ns: u64| goes_along || due_ns <= now_ns && !self.slots[topic * self.partitions].is_busy;
            if self.refused_due_ns[topic].is_some_and(is_due) {
                self.refused_due_ns[topic] = None;
                *taken = std::mem::take(&mut self.refused[topic]);
            }
        }
        taken
    }

    fn appends(&self, records: Vec<(usize, Record)>, refused: Counts) -> (Vec<Append>, Vec<usize>) {
        let mut untold = refused;
        let mut appends = Vec::with_capacity(records.len());
        let mut requests = Vec::new();
        for (index, mut record) in records {
            let (topic, partition) = (index / self.partitions, (index % self.partitions) as u32);
            requests.append(&mut record.requests);
            let refused = std::mem::take(&mut untold[topic]);
            let Record { value, rejected, repaired, .. } = record;
            appends.push(Append { topic, partition, value, rejected, refused, repaired });
        }
        for (topic, refused) in untold.into_iter().enumerate().filter(|(_, count)| *count > 0) {
            appends.push(Append { topic, partition: 0, value: Vec::new(), rejected: 0, refused, repaired: 0 });
        }
        (appends, requests)
    }

    /// Settles a batch that was appended or (`failed`) was not. An unknown number settles nothing.
    pub fn finish(&mut self, number: u64, failed: bool, now_ns: u64) -> Outcome<R> {
        let mut outcome = Outcome { answers: Vec::new(), accepted: [0; TOPICS], rejected: [0; TOPICS], refused: [0; TOPICS] };
        let Some(batch) = self.batches.remove(&number) else { return outcome };
        for index in batch.slots {
            self.slots[index].is_busy = false;
        }
        outcome.answers.reserve(batch.requests.len());
        for key in batch.requests {
            let request = &mut self.requests[key];
            request.records -= 1;
            if failed && let Some(reply) = request.reply.take() {
                outcome.refused[request.topic] += request.items + request.rejected;
                outcome.answers.push((reply, false));
            }
            if request.records == 0 {
                let request = self.requests.remove(key);
                self.held_bytes -= request.held_bytes;
                if let Some(reply) = request.reply {
                    outcome.accepted[request.topic] += request.items;
                    outcome.rejected[request.topic] += request.rejected;
                    outcome.answers.push((reply, true));
                }
            }
        }
        if failed {
            for topic in 0..TOPICS {
                let untold = batch.refused[topic] + outcome.refused[topic];
                if untold > 0 {
                    self.refused[topic] += untold;
                    self.refused_due_ns[topic] = Some(now_ns + self.limits.retry_ns);
                }
            }
        }
        outcome
    }
}

fn fill(slot: &mut Slot, record: Record, index: usize, full: &mut Vec<usize>) {
    slot.last_bytes = record.value.len();
    if slot.full.is_empty() {
        full.push(index);
    }
    slot.full.push_back(record);
}

#[cfg(test)]
mod tests;
