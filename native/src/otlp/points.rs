//! Counting data points.

use crate::otlp::descriptor::{METRIC, SCOPE, validate_field};
use crate::otlp::framing::{Largest, before, each, own_field};
use crate::otlp::wire::{Reader, Result, deeper};

/// Checks a ScopeMetrics, counts its data points, and measures its metrics.
pub fn scope_points(body: &[u8], largest: &mut Largest, depth: u32) -> Result<u64> {
    let (mut points, mut rest, mut metric) = (0, 0, 0);
    let mut reader = Reader(body);
    while !reader.is_empty() {
        let field = reader.0;
        let tag = reader.tag()?;
        if tag == 0x12 {
            points += metric_points(reader.bytes()?, deeper(depth)?)?;
            metric = metric.max(before(field, reader).len());
        } else {
            own_field(tag, &mut reader, &SCOPE, depth)?;
            rest += before(field, reader).len();
        }
    }
    largest.add(rest, metric);
    Ok(points)
}

/// Checks a Metric, and counts its data points: of different kinds of data the last one counts, equal ones in a row are merged.
fn metric_points(body: &[u8], depth: u32) -> Result<u64> {
    const DATA: [u32; 5] = [0x2a, 0x3a, 0x4a, 0x52, 0x5a];
    let (mut kind, mut points) = (0, 0);
    let mut reader = Reader(body);
    while !reader.is_empty() {
        let mut data = reader;
        let tag = reader.tag()?;
        validate_field(&METRIC, tag, &mut reader, depth)?;
        if DATA.contains(&tag) {
            if tag != kind {
                (kind, points) = (tag, 0);
            }
            data.tag()?;
            each(data.bytes()?, 0x0a, |_| {
                points += 1;
                Ok(())
            })?;
        }
    }
    Ok(points)
}
