//! What came of the requests.

use std::time::Duration;

use crate::load::Request;

pub struct Report {
    pub refused: u64,
    pub broken: u64,
    spans: u64,
    requests: u64,
    rejected: u64,
    bytes: u64,
    wall_s: f64,
    latencies_us: Vec<u32>,
    by_connection: Vec<u32>,
}

impl Report {
    pub fn new(connections: usize) -> Self {
        Self {
            refused: 0,
            broken: 0,
            spans: 0,
            requests: 0,
            rejected: 0,
            bytes: 0,
            wall_s: 0.0,
            latencies_us: Vec::new(),
            by_connection: vec![0; connections],
        }
    }

    pub fn taken(&mut self, connection: usize, request: &Request, rejected: u64, latency: Duration) {
        self.spans += u64::from(request.spans);
        self.requests += 1;
        self.rejected += rejected;
        self.bytes += request.message.len() as u64;
        self.latencies_us.push(u32::try_from(latency.as_micros()).unwrap_or(u32::MAX));
        self.by_connection[connection] += 1;
    }

    pub fn finish(&mut self, wall: Duration) {
        self.wall_s = wall.as_secs_f64();
        self.latencies_us.sort_unstable();
    }

    pub fn to_json(&self) -> String {
        format!(
            concat!(
                r#"{{"spans": {}, "requests": {}, "rejected": {}, "refused": {}, "broken": {}, "bytes": {}, "wall_s": {:.6}, "#,
                r#""p50_ms": {:.3}, "p99_ms": {:.3}, "max_ms": {:.3}, "fewest_on_a_connection": {}, "most_on_a_connection": {}}}"#
            ),
            self.spans,
            self.requests,
            self.rejected,
            self.refused,
            self.broken,
            self.bytes,
            self.wall_s,
            self.latency_ms(0.5),
            self.latency_ms(0.99),
            self.latency_ms(1.0),
            self.by_connection.iter().min().unwrap_or(&0),
            self.by_connection.iter().max().unwrap_or(&0),
        )
    }

    fn latency_ms(&self, share: f64) -> f64 {
        let last = self.latencies_us.len().saturating_sub(1);
        self.latencies_us.get((last as f64 * share) as usize).map_or(0.0, |us| f64::from(*us) / 1000.0)
    }
}
