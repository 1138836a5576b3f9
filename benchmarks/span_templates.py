"""Serialised spans and resources as Envoy sends them, with marks where a load writes its own bytes."""

from typing import ClassVar

import numpy as np
import numpy.typing as npt
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, InstrumentationScope, KeyValue
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

Bytes = npt.NDArray[np.uint8]
Integers = npt.NDArray[np.int64]

ROOT, SERVER, CALL = 0, 1, 2
"""Layouts: a root span, the span of a server, the span of a call."""
OK, FAILED, OVERFLOW = 0, 1, 2
"""Outcomes."""


class Templates:
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
            for layout in (ROOT, SERVER, CALL)
            for outcome in (OK, FAILED, OVERFLOW)
        ]
        longest = max(map(len, plain))
        padded = [
            _template(layout, outcome, longest - len(plain[layout * 3 + outcome]))
            for layout in (ROOT, SERVER, CALL)
            for outcome in (OK, FAILED, OVERFLOW)
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
    client = layout == CALL
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
        **({"istio.mesh_id": "mesh1"} if outcome == OK else {"error": "true"}),
    }
    span = Span(
        trace_id=b"T" * 16,
        span_id=b"S" * 8,
        parent_span_id=b"" if layout == ROOT else b"P" * 8,
        name="egress service-{tgt}.shop" if client else "ingress",
        kind=Span.SPAN_KIND_CLIENT if client else Span.SPAN_KIND_SERVER,
        start_time_unix_nano=int.from_bytes(b"B" * 8, "little"),
        end_time_unix_nano=int.from_bytes(b"E" * 8, "little"),
        attributes=[_attribute(key, value) for key, value in attributes.items()],
        status=Status() if outcome == OK else Status(code=Status.STATUS_CODE_ERROR),
        flags=0x101 if layout == ROOT else 0x301,
    )
    return span.SerializeToString()


def _attribute(key: str, value: str | int) -> KeyValue:
    return KeyValue(
        key=key, value=AnyValue(string_value=value) if isinstance(value, str) else AnyValue(int_value=value)
    )


def resource_of(service: int) -> bytes:
    """The serialised resource of a service, by its number."""
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


def resource_spans(resource_bytes: bytes, framed_spans: bytes) -> bytes:
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
