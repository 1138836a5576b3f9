"""Envoy-like spans in bulk.

Traces have five spans over three services (as Envoy exports them without ``spawn_upstream_span``): A's
ingress, A's egress to B, B's ingress, B's egress to C, C's ingress. One trace in a hundred fails; in one of
two hundred the call to C is refused at B by an overflowing circuit breaker (UO) and A tries B again. Each
service calls four others. Spans have 21 attributes and about 930 bytes.

Every span is one row of a numpy byte matrix: a serialised template whose ids, times and names are overwritten
in place, which makes about a million spans in a few seconds, with one byte layout and no protobuf encoder in
the way.
"""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from benchmarks.span_templates import (
    CALL,
    FAILED,
    OK,
    OVERFLOW,
    ROOT,
    SERVER,
    Bytes,
    Integers,
    Templates,
    resource_of,
    resource_spans,
)
from schemas.units import NS_PER_S

EXPORT = "/opentelemetry.proto.collector.trace.v1.TraceService/Export"
SPANS_PER_TRACE = 5
FLUSH_S = 5
"""Seconds of traffic that are shuffled together: a sidecar gathers this long before it exports (Envoy's
default flush).
"""


_HEX = np.frombuffer(b"0123456789abcdef", np.uint8)
_PARENT = np.array([-1, 0, 1, 2, 3])
_CLIENT = np.array([False, True, False, True, False])
_CALLER = np.array([0, 0, 1, 1, 2])  # which of the trace's three services made the span
_CALLEE = np.array([0, 1, 1, 2, 2])  # whom it is about: the same one, or the one that is called


def make_requests(
    spans: int,
    services: int,
    operations: int,
    spans_per_request: int,
    seed: int,
    *,
    now_ns: int | None = None,
    spans_per_s: int = 50_000,
) -> list[bytes]:
    """``ExportTraceServiceRequest`` messages of ``spans`` spans (rounded up to whole traces), ready to be
    sent; equal for equal arguments.

    The traffic begins at ``now_ns`` (default: now) and goes on at ``spans_per_s``. Spans of five seconds are
    sorted by service, as sidecars export them, and cut into requests of ``spans_per_request``: with few
    services a request has one resource, with 10,000 about eight. Services and a service's operations are
    evenly spread; of ten operations six are served and four called.
    """
    return list(
        generate_requests(
            spans, services, operations, spans_per_request, seed, now_ns=now_ns, spans_per_s=spans_per_s
        )
    )


def generate_requests(
    spans: int,
    services: int,
    operations: int,
    spans_per_request: int,
    seed: int,
    *,
    now_ns: int | None = None,
    spans_per_s: int = 50_000,
) -> Iterator[bytes]:
    """:func:`make_requests`, five seconds of traffic in memory at a time."""
    counted = generate_counted_requests(
        spans, services, operations, spans_per_request, seed, now_ns=now_ns, spans_per_s=spans_per_s
    )
    return (request for _, request in counted)


def generate_counted_requests(
    spans: int,
    services: int,
    operations: int,
    spans_per_request: int,
    seed: int,
    *,
    now_ns: int | None = None,
    spans_per_s: int = 50_000,
) -> Iterator[tuple[int, bytes]]:
    """:func:`generate_requests`, each with the number of its spans."""
    random = np.random.default_rng(seed)
    traffic = _Traffic(services, operations, spans_per_s)
    templates = Templates()
    resources = [resource_of(service) for service in range(services)]
    begin_ns = time.time_ns() if now_ns is None else now_ns
    traces_left = -(-spans // SPANS_PER_TRACE)
    while traces_left > 0:
        traces = min(traces_left, max(1, FLUSH_S * spans_per_s // SPANS_PER_TRACE))
        service, kind, values = _spans(random, traffic, traces, begin_ns)
        rows = templates.fill(kind, values)
        yield from _requests(random, rows, service, resources, spans_per_request)
        begin_ns += FLUSH_S * NS_PER_S
        traces_left -= traces


def _requests(
    random: np.random.Generator, rows: Bytes, service: Integers, resources: Sequence[bytes], size: int
) -> Iterator[tuple[int, bytes]]:
    order = np.argsort(service, kind="stable")
    rows, service = rows[order], service[order]
    starts = np.arange(0, len(rows), size)
    random.shuffle(starts)
    for start in starts.tolist():
        of = service[start : start + size]
        cuts = [0, *(np.flatnonzero(np.diff(of)) + 1).tolist(), len(of)]
        groups = pairwise(cuts)
        yield (
            len(of),
            b"".join(
                resource_spans(resources[of[a]], rows[start + a : start + b].tobytes()) for a, b in groups
            ),
        )


@dataclass(frozen=True, slots=True)
class _Traffic:
    services: int
    operations: int
    spans_per_s: int


def _spans(
    random: np.random.Generator, traffic: _Traffic, traces: int, begin_ns: int
) -> tuple[Integers, Integers, dict[str, Bytes]]:
    """The service, the template and what is written into the template, for each of ``traces * 5`` spans in
    trace order.
    """
    shape = (traces, SPANS_PER_TRACE)
    overflow = random.random(traces) < 0.005
    failed = ~overflow & (random.random(traces) < 0.01)
    made_by, about = _members(random, traffic.services, overflow)
    outcome = np.where(failed[:, None], FAILED, OK) + np.zeros(shape, np.int64)
    outcome[overflow, 2], outcome[overflow, 3] = FAILED, OVERFLOW
    layout = np.where(_CLIENT, CALL, SERVER) + np.zeros(shape, np.int64)
    layout[:, 0] = ROOT

    trace_id = random.integers(256, size=(traces, 1, 16), dtype=np.uint8)
    span_id = random.integers(256, size=(*shape, 8), dtype=np.uint8)
    trace_id[:, :, 0] |= 1  # an id of zeros only is not valid
    span_id[:, :, 0] |= 1
    parent_id = span_id[:, _PARENT]
    parent_id[overflow, 4] = span_id[overflow, 1]
    start_ns, end_ns = _times(random, traces, begin_ns, traffic.spans_per_s)
    served = max(1, round(traffic.operations * 0.6))
    called = max(1, traffic.operations - served)
    operation = (
        np.where(_CLIENT, served + random.integers(called, size=shape), random.integers(served, size=shape))
        % traffic.operations
    )
    target = _digits(about, 5)
    values = {
        "trace_id": trace_id,
        "span_id": span_id,
        "parent_id": parent_id,
        "start": _little_endian(start_ns),
        "end": _little_endian(end_ns),
        "service": _digits(made_by, 5),
        **dict.fromkeys(("target", "url", "cluster", "cluster_name"), target),
        **dict.fromkeys(("route", "path"), _digits(operation, 4)),
        "item": _digits(random.integers(1_000_000, size=(traces, 1)), 6),
        "request_id": _HEX[random.integers(16, size=(traces, 1, 12))],
        "request_size": _digits(random.integers(1_000, 10_000, size=shape), 4),
        "response_size": _digits(random.integers(1_000, 10_000, size=shape), 4),
        "peer": _digits(random.integers(100, 256, size=shape), 3),
    }
    flat = traces * SPANS_PER_TRACE
    values = {
        name: np.broadcast_to(value, (*shape, value.shape[-1])).reshape(flat, -1)
        for name, value in values.items()
    }
    return made_by.reshape(flat), (layout * 3 + outcome).reshape(flat), values


def _members(
    random: np.random.Generator, services: int, overflow: npt.NDArray[np.bool_]
) -> tuple[Integers, Integers]:
    """Which service made each span and which one it is about (``traces x 5`` each)."""
    chain = np.empty((len(overflow), 3), np.int64)
    chain[:, 0] = random.integers(services, size=len(overflow))
    for hop in (1, 2):
        chain[:, hop] = (chain[:, hop - 1] * 3 + 1 + random.integers(4, size=len(overflow))) % services
    made_by, about = chain[:, _CALLER], chain[:, _CALLEE]
    made_by[overflow, 4] = about[overflow, 4] = chain[overflow, 1]  # the retry reaches B
    return made_by, about


def _times(
    random: np.random.Generator, traces: int, begin_ns: int, spans_per_s: int
) -> tuple[Integers, Integers]:
    """Start and end (``traces x 5``, ns): spans nested in their parents, to the microsecond as Envoy's
    are.
    """
    root_us = begin_ns // 1_000 + np.sort(
        random.integers(max(1, traces * SPANS_PER_TRACE * 1_000_000 // spans_per_s), size=traces)
    )
    leaf_us = random.lognormal(8.5, 0.8, size=traces).astype(np.int64) + 200  # about 5 ms in the middle
    edge_us = random.integers(50, 400, size=(traces, 4)).cumsum(axis=1)
    depth = np.concatenate([np.zeros((traces, 1), np.int64), edge_us], axis=1)
    start_us = root_us[:, None] + depth
    end_us = root_us[:, None] + 2 * depth[:, -1:] + leaf_us[:, None] - depth
    return start_us * 1_000, end_us * 1_000


def _digits(values: Integers, width: int) -> Bytes:
    powers = 10 ** np.arange(width - 1, -1, -1)
    digits: Bytes = (values[..., None] // powers % 10 + ord("0")).astype(np.uint8)
    return digits


def _little_endian(values: Integers) -> Bytes:
    return np.ascontiguousarray(values.astype("<u8")).view(np.uint8).reshape(*values.shape, 8)
