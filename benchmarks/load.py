"""Envoy-like spans in bulk, and a program that sends them over OTLP gRPC.

Traces have five spans over three services (as Envoy exports them without ``spawn_upstream_span``): A's
ingress, A's egress to B, B's ingress, B's egress to C, C's ingress. One trace in a hundred fails; in one of
two hundred the call to C is refused at B by an overflowing circuit breaker (UO) and A tries B again. Each
service calls four others. Spans have 21 attributes and about 930 bytes.

Every span is one row of a numpy byte matrix: a serialised template whose ids, times and names are overwritten
in place, which makes about a million spans in a few seconds, with one byte layout and no protobuf encoder in
the way.
"""

import argparse
import asyncio
import json
import resource
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar

import grpc
import numpy as np
import numpy.typing as npt
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, InstrumentationScope, KeyValue
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from schemas.units import NS_PER_S

EXPORT = "/opentelemetry.proto.collector.trace.v1.TraceService/Export"
SPANS_PER_TRACE = 5
FLUSH_S = 5
"""Seconds of traffic that are shuffled together: a sidecar gathers this long before it exports (Envoy's
default flush).
"""

Bytes = npt.NDArray[np.uint8]
Integers = npt.NDArray[np.int64]

_HEX = np.frombuffer(b"0123456789abcdef", np.uint8)
_PARENT = np.array([-1, 0, 1, 2, 3])
_CLIENT = np.array([False, True, False, True, False])
_CALLER = np.array([0, 0, 1, 1, 2])  # which of the trace's three services made the span
_CALLEE = np.array([0, 1, 1, 2, 2])  # whom it is about: the same one, or the one that is called
_ROOT, _SERVER, _CALL = 0, 1, 2
_OK, _FAILED, _OVERFLOW = 0, 1, 2


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
    templates = _Templates()
    resources = [_resource(service) for service in range(services)]
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
                _resource_spans(resources[of[a]], rows[start + a : start + b].tobytes()) for a, b in groups
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
    outcome = np.where(failed[:, None], _FAILED, _OK) + np.zeros(shape, np.int64)
    outcome[overflow, 2], outcome[overflow, 3] = _FAILED, _OVERFLOW
    layout = np.where(_CLIENT, _CALL, _SERVER) + np.zeros(shape, np.int64)
    layout[:, 0] = _ROOT

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


class _Templates:
    """Nine spans (layout x outcome) of one length, each with its ScopeSpans field header, and where what is
    to be overwritten lies.

    ``rows``: (9, length) bytes. ``offsets``: name -> int64 per template, -1 where the template has no such
    place.
    """

    _MARKS: ClassVar[dict[str, bytes]] = {
        "trace_id": b"T" * 16,
        "span_id": b"S" * 8,
        "parent_id": b"P" * 8,
        "start": b"B" * 8,
        "end": b"E" * 8,
        "service": b"{svc}",
        "target": b"{tgt}",
        "url": b"{url}",
        "cluster": b"{clu}",
        "cluster_name": b"{cln}",
        "route": b"{rt}",
        "path": b"{pt}",
        "item": b"{item}",
        "request_id": b"{requestid-}",
        "request_size": b"{rq}",
        "response_size": b"{rs}",
        "peer": b"{p}",
    }

    def __init__(self) -> None:
        plain = [
            _template(layout, outcome, 0)
            for layout in (_ROOT, _SERVER, _CALL)
            for outcome in (_OK, _FAILED, _OVERFLOW)
        ]
        longest = max(map(len, plain))
        padded = [
            _template(layout, outcome, longest - len(plain[layout * 3 + outcome]))
            for layout in (_ROOT, _SERVER, _CALL)
            for outcome in (_OK, _FAILED, _OVERFLOW)
        ]
        framed = [_field(2, body) for body in padded]
        self.rows: Bytes = np.stack([np.frombuffer(row, np.uint8) for row in framed])
        self.offsets = {
            name: np.array([row.find(mark) for row in framed]) for name, mark in self._MARKS.items()
        }

    def fill(self, kind: Integers, values: dict[str, Bytes]) -> Bytes:
        """A row for each of ``kind`` (template numbers, length n) with ``values`` (name -> n x width bytes)
        written over its marks.
        """
        rows = self.rows[kind]
        for name, value in values.items():
            offsets = self.offsets[name][kind]
            chosen = np.flatnonzero(offsets >= 0)
            rows[chosen[:, None], offsets[chosen, None] + np.arange(value.shape[1])] = value[chosen]
        return rows


def _template(layout: int, outcome: int, padding: int) -> bytes:
    client = layout == _CALL
    status, flags, details = [
        ("200", "-", "via_upstream"),
        ("503", "URX", "via_upstream"),
        ("503", "UO", "upstream_reset_before_response_started{overflow}"),
    ][outcome]
    attributes: dict[str, str | int] = {
        "node_id": "sidecar~10.12.3.4~service-{svc}-0.shop~shop.svc.cluster.local",
        "zone": "eu-central-1a",
        "guid:x-request-id": "8f2c5a7e-{requestid-}-9b1d-4c3e6f70",
        "http.url": "http://service-{url}.shop.svc.cluster.local/api/v1/resource-{pt}/{item}",
        "http.method": "GET",
        "downstream_cluster": "-"
        + "x"
        * max(0, padding - 40),  # in two pieces: neither may reach 128 bytes, where its length takes one more
        "user_agent": "okhttp/4.12.0 (linux; amd64)" + "x" * min(padding, 40),
        "http.protocol": "HTTP/2",
        "peer.address": "10.12.17.{p}",
        "request_size": "{rq}",
        "response_size": "{rs}",
        "component": "proxy",
        "upstream_cluster": "outbound|8080||service-{clu}.shop.svc.cluster.local"
        if client
        else "inbound|8080||{clu}",
        "upstream_cluster.name": "service-{cln}_v1" if client else "local_app_{cln}",
        "http.status_code": status,
        "response_flags": flags,
        "envoy.route": "GET /api/v1/resource-{rt}/*",
        "response.details": details,
        "mesh.version": "v1",
        "http.response.attempts": 1,
        **({"istio.mesh_id": "mesh1"} if outcome == _OK else {"error": "true"}),
    }
    span = Span(
        trace_id=b"T" * 16,
        span_id=b"S" * 8,
        parent_span_id=b"" if layout == _ROOT else b"P" * 8,
        name="egress service-{tgt}.shop" if client else "ingress",
        kind=Span.SPAN_KIND_CLIENT if client else Span.SPAN_KIND_SERVER,
        start_time_unix_nano=int.from_bytes(b"B" * 8, "little"),
        end_time_unix_nano=int.from_bytes(b"E" * 8, "little"),
        attributes=[_attribute(key, value) for key, value in attributes.items()],
        status=Status() if outcome == _OK else Status(code=Status.STATUS_CODE_ERROR),
        flags=0x101 if layout == _ROOT else 0x301,
    )
    return span.SerializeToString()


def _attribute(key: str, value: str | int) -> KeyValue:
    return KeyValue(
        key=key, value=AnyValue(string_value=value) if isinstance(value, str) else AnyValue(int_value=value)
    )


def _resource(service: int) -> bytes:
    attributes = {
        "service.name": f"service-{service:05d}",
        "service.namespace": "shop",
        "service.version": "v1",
        "service.instance.id": f"service-{service:05d}-7d9f8b6c5-x2k4q",
        "k8s.cluster.name": "prod-eu-1",
        "deployment.environment.name": "production",
        "telemetry.sdk.language": "cpp",
        "telemetry.sdk.name": "envoy",
        "telemetry.sdk.version": "8f2ce4e/1.40.0/Clean/RELEASE/BoringSSL",
    }
    resource_bytes: bytes = Resource(
        attributes=[_attribute(key, value) for key, value in attributes.items()]
    ).SerializeToString()
    return resource_bytes


_SCOPE = InstrumentationScope(name="envoy", version="1.40.0").SerializeToString()


def _resource_spans(resource_bytes: bytes, framed_spans: bytes) -> bytes:
    """Field 1 of a request: a ResourceSpans with one ScopeSpans."""
    return _field(1, _field(1, resource_bytes) + _field(2, _field(1, _SCOPE) + framed_spans))


def _field(number: int, body: bytes) -> bytes:
    """A length-delimited protobuf field."""
    head = bytearray([number << 3 | 2])
    length = len(body)
    while length > 0x7F:
        head.append(length & 0x7F | 0x80)
        length >>= 7
    head.append(length)
    return bytes(head) + body


@dataclass(slots=True)
class Sent:
    """What a load run did; CPU is the load program's own."""

    spans: int = 0
    requests: int = 0
    acknowledged: int = 0
    rejected: int = 0
    retried: int = 0
    bytes: int = 0
    wall_s: float = 0.0
    cpu_s: float = 0.0


async def send(
    target: str,
    requests: Sequence[bytes],
    spans: int,
    *,
    connections: int = 4,
    in_flight: int = 32,
    spans_per_s: int = 0,
) -> Sent:
    """Send every request over ``connections`` h2 connections with ``in_flight`` calls under way.

    ``spans_per_s``: no faster than that; 0: as fast as answers allow. A refusal that may be tried again
    (RESOURCE_EXHAUSTED, UNAVAILABLE) is, after 50 ms; any other error is raised.
    """
    sent = Sent(spans=spans, requests=len(requests), bytes=sum(map(len, requests)))
    options = [("grpc.use_local_subchannel_pool", 1), ("grpc.max_send_message_length", -1)]
    channels = [grpc.aio.insecure_channel(target, options=options) for _ in range(connections)]
    queue = enumerate(requests)
    gap_s = spans / len(requests) / spans_per_s if spans_per_s else 0.0

    async def work(channel: grpc.aio.Channel) -> None:
        export = channel.unary_unary(EXPORT)
        for number, request in queue:
            if (early_s := begin_s + number * gap_s - time.perf_counter()) > 0:
                await asyncio.sleep(early_s)
            answer = await _export(export, request, sent)
            sent.acknowledged += 1
            if answer:
                sent.rejected += ExportTraceServiceResponse.FromString(answer).partial_success.rejected_spans

    usage, begin_s = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter()
    await asyncio.gather(*(work(channels[number % connections]) for number in range(in_flight)))
    sent.wall_s = time.perf_counter() - begin_s
    after = resource.getrusage(resource.RUSAGE_SELF)
    sent.cpu_s = after.ru_utime + after.ru_stime - usage.ru_utime - usage.ru_stime
    await asyncio.gather(*(channel.close() for channel in channels))
    return sent


async def _export(export: grpc.aio.UnaryUnaryMultiCallable, request: bytes, sent: Sent) -> bytes:
    while True:
        try:
            answer: bytes = await export(request)
        except grpc.aio.AioRpcError as error:
            if error.code() not in (grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.UNAVAILABLE):
                raise
            sent.retried += 1
            await asyncio.sleep(0.05)
        else:
            return answer


def main(argv: Sequence[str] | None = None) -> None:
    """Command line: make the requests, say ``ready``, send them, print what was sent as a line of JSON."""
    parser = argparse.ArgumentParser(description="Send Envoy-like spans over OTLP gRPC.")
    parser.add_argument("--target", required=True, metavar="HOST:PORT")
    parser.add_argument("--spans", type=int, default=1_000_000)
    parser.add_argument("--services", type=int, default=100)
    parser.add_argument("--operations", type=int, default=10)
    parser.add_argument("--spans-per-request", type=int, default=200)
    parser.add_argument("--connections", type=int, default=4)
    parser.add_argument(
        "--in-flight", type=int, default=32, help="calls under way at a time, over all connections"
    )
    parser.add_argument(
        "--rate",
        type=int,
        default=0,
        metavar="SPANS",
        help="spans a second; 0: as fast as they are acknowledged",
    )
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--wait", action="store_true", help="send only after a line on standard input")
    options = parser.parse_args(argv)
    requests = make_requests(
        options.spans, options.services, options.operations, options.spans_per_request, options.seed
    )
    print("ready", flush=True)
    if options.wait:
        sys.stdin.readline()
    spans = -(-options.spans // SPANS_PER_TRACE) * SPANS_PER_TRACE
    limits = {"connections": options.connections, "in_flight": options.in_flight, "spans_per_s": options.rate}
    sent = asyncio.run(send(options.target, requests, spans, **limits))
    print(json.dumps({name: getattr(sent, name) for name in Sent.__slots__}), flush=True)


if __name__ == "__main__":
    main()
