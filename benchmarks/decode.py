"""What decoding and splitting OTLP costs, native and reference.

Spans as ``benchmarks.load`` makes them (21 attributes, about 930 bytes). ``decode``: panes of about 31,000
spans (50,000 spans/s over 8 partitions, 5 s) to a SpanBatch. ``split``: requests of 200 or of 5 (Envoy's
default) spans, to 32 partitions. ``details``: attributes, events and links of 2 % of a pane's spans; per
million of those. ``points``, ``logs``: Envoy's captured metrics (172 bytes a point) and access logs (675
bytes) to a PointBatch and a LogBatch; per million points and log records.
"""

import gzip
import struct
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from benchmarks.load import make_requests
from benchmarks.report import Case, Measurement, main, measure
from schemas import otlp, topics
from schemas.spans import SpanBatch

CAPTURES = Path(__file__).parents[1] / "tests" / "data" / "envoy"
PANE_SPANS = 31_000
PARTITIONS = 32
KEPT = 0.02
REFERENCE_REQUESTS = 20
NATIVE = {
    "spans": 200_000,
    "repeats": 5,
}  # the input is 190 MB, far beyond any cache: passes over it cost the same
REFERENCE = {"spans": 20_000, "repeats": 1}


def decode(system: str, services: int, spans: int, repeats: int) -> Measurement:
    """Payloads to SpanBatches."""
    _, decoder = otlp.load(system)
    panes = list(_panes(spans, services))
    with measure(spans * repeats) as measurement:
        for _ in range(repeats):
            for pane in panes:
                decoder.decode_spans(pane, [])
    return measurement


def split(system: str, spans_per_request: int, spans: int, repeats: int) -> Measurement:
    """Requests to parts."""
    _, decoder = otlp.load(system)
    requests = make_requests(spans, 100, 10, spans_per_request, seed=1)
    with measure(spans * repeats) as measurement:
        for _ in range(repeats):
            for request in requests:
                decoder.split(topics.SPANS, request, PARTITIONS)
    measurement.note = f"{len(requests[0])} bytes in the first request"
    return measurement


def details(system: str, spans: int, repeats: int) -> Measurement:
    """Chosen spans' bytes to DETAIL_SCHEMA."""
    _, decoder = otlp.load(system)
    panes = list(_panes(spans, 100))
    random = np.random.default_rng(1)
    positions = []
    for pane in panes:
        batch = SpanBatch(*decoder.decode_spans(pane, []))
        kept = np.sort(random.choice(len(batch), size=round(len(batch) * KEPT), replace=False))
        positions.append([batch.spans[name].to_numpy()[kept] for name in ("record", "offset", "length")])
    with measure(repeats * sum(len(records) for records, _, _ in positions)) as measurement:
        for _ in range(repeats):
            for pane, position in zip(panes, positions, strict=True):
                decoder.decode_details(pane, *position)
    return measurement


def items(system: str, signal: str, repeats: int) -> Measurement:
    """Captured Export requests to a PointBatch or LogBatch."""
    _, decoder = otlp.load(system)
    decode_items = {"metrics": decoder.decode_points, "logs": decoder.decode_logs}[signal]
    payloads = captured(signal)[: None if system == "native" else REFERENCE_REQUESTS]
    count = len(decode_items(payloads))
    with measure(count * repeats) as measurement:
        for _ in range(repeats):
            decode_items(payloads)
    measurement.note = f"{count:,} items, {sum(map(len, payloads)) // count} bytes each"
    return measurement


def captured(signal: str) -> list[bytes]:
    """Export requests of the captured mesh: ``metrics`` or ``logs``."""
    data = gzip.decompress((CAPTURES / f"{signal}.bin.gz").read_bytes())
    requests, at = [], 0
    while at < len(data):
        (length,) = struct.unpack_from(">I", data, at)
        requests.append(data[at + 4 : at + 4 + length])
        at += 4 + length
    return requests


def _panes(spans: int, services: int) -> Iterator[list[bytes]]:
    requests = make_requests(spans, services, 10, 200, seed=1)
    size = PANE_SPANS // 200
    return (requests[begin : begin + size] for begin in range(0, len(requests), size))


CASES = [
    *(
        Case(
            f"decode, {services:,} services",
            system,
            decode,
            {"system": system, "services": services, **amount},
        )
        for system, amount in (("native", NATIVE), ("reference", REFERENCE))
        for services in (100, 10_000)
    ),
    *(
        Case(
            f"split, requests of {size}",
            system,
            split,
            {"system": system, "spans_per_request": size, **amount},
        )
        for system, amount in (("native", NATIVE), ("reference", REFERENCE))
        for size in (200, 5)
    ),
    *(
        Case(f"{name} of Envoy", system, items, {"system": system, "signal": signal, "repeats": repeats})
        for name, signal, repeats in (("points", "metrics", 20), ("log records", "logs", 200))
        for system, repeats in (("native", repeats), ("reference", 1))
    ),
    Case("details of 2 %", "native", details, {"system": "native", **NATIVE, "repeats": 20}),
    Case("details of 2 %", "reference", details, {"system": "reference", **REFERENCE}),
]

if __name__ == "__main__":
    main("Decode", CASES)
