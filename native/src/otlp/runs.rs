//! Where a container's items go, in little memory, and how much each partition gets.

/// Items in a row that have the same destination. This is all that is kept of items between reading and writing, and less than they take
/// themselves: of two neighbours with different destinations one has a trace id of 16 bytes.
#[derive(Clone, Copy)]
pub struct Run {
    partition: u32, // or LEFT_OUT
    count: u32,
}

/// The destination of an item that is left out; no partition has this number.
pub const LEFT_OUT: u32 = u32::MAX;

/// Adds an item's destination.
#[inline]
pub fn push(runs: &mut Vec<Run>, partition: u32) {
    match runs.last_mut() {
        Some(run) if run.partition == partition => run.count += 1,
        _ => runs.push(Run { partition, count: 1 }),
    }
}

/// Reads destinations again, item by item.
#[derive(Clone, Copy, Default)]
pub struct Cursor {
    run: usize,
    taken: u32,
}

impl Cursor {
    #[inline]
    /// The next item's.
    pub fn next(&mut self, runs: &[Run]) -> u32 {
        let run = runs[self.run];
        self.taken += 1;
        if self.taken == run.count {
            *self = Self { run: self.run + 1, taken: 0 };
        }
        run.partition
    }
}

/// Bytes by partition, and which partitions have any.
pub struct Lengths {
    by_partition: Vec<usize>,
    touched: Vec<u32>,
}

impl Lengths {
    /// None have any.
    pub fn new(partitions: usize) -> Self {
        Self { by_partition: vec![0; partitions], touched: Vec::new() }
    }

    /// A partition gets more.
    #[inline]
    pub fn add(&mut self, partition: u32, bytes: usize) {
        let length = &mut self.by_partition[partition as usize];
        if *length == 0 {
            self.touched.push(partition);
        }
        *length += bytes;
    }

    /// The bytes of each partition that has any.
    pub fn iter(&self) -> impl Iterator<Item = usize> {
        self.touched.iter().map(|partition| self.by_partition[*partition as usize])
    }

    /// Calls `act` with each partition and its bytes, and forgets them.
    pub fn drain(&mut self, mut act: impl FnMut(u32, usize)) {
        for partition in self.touched.drain(..) {
            act(partition, std::mem::take(&mut self.by_partition[partition as usize]));
        }
    }
}
