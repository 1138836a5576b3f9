"""Columns of the tables of counters (docs/adr/0047), but for ``slot``: keys, and values by how merges
add them up. Part of schemas.tables.
"""

from collections.abc import Mapping
from typing import NamedTuple

import pyarrow as pa

from schemas.spans import ATTRIBUTES

_TEXT, _COUNT, _NUMBER = pa.string(), pa.uint64(), pa.float64()
_HISTOGRAM = pa.map_(pa.int16(), pa.uint64())
_OWN = ("cluster", "namespace", "service", "version")
_PEER = tuple(f"peer_{name}" for name in _OWN)
_INSTANCE = (*_OWN, "instance", "pod")

UNSAID = 2**64 - 1
"""A smallest value that nobody said: the smallest of several rows is right."""


class Counters(NamedTuple):
    """The columns of one table."""

    keys: tuple[str, ...]
    sums: tuple[str, ...] = ()
    """Counts."""
    totals: tuple[str, ...] = ()
    """Sums of numbers with fractions."""
    last: tuple[str, ...] = ()
    """A gauge's value."""
    histograms: tuple[str, ...] = ()
    largest: tuple[str, ...] = ()
    smallest: tuple[str, ...] = ()
    """UNSAID where nobody says it."""

    @property
    def columns(self) -> Mapping[str, pa.DataType]:
        """Column -> type, in the tables' order."""
        counts = dict.fromkeys((*self.largest, *self.smallest), _COUNT)
        return {
            **{name: ATTRIBUTES if name == "labels" else _TEXT for name in self.keys},
            "late": pa.uint8(),
            **dict.fromkeys(self.sums, _COUNT),
            **dict.fromkeys((*self.totals, *self.last), _NUMBER),
            **dict.fromkeys(self.histograms, _HISTOGRAM),
            **counts,
        }


COUNTERS: Mapping[str, Counters] = {
    # side: client | server; source: envoy | istio; security: mutual_tls | none | unknown; bytes: of bodies
    "traffic": Counters(
        keys=(*_OWN, "side", "source", *_PEER, "protocol", "response_code", "response_flags", "security"),
        sums=(
            "requests",
            "errors",
            "request_bytes",
            "response_bytes",
            "tcp_opened",
            "tcp_closed",
            "tls_opened",
            "tcp_sent_bytes",
            "tcp_received_bytes",
        ),
        histograms=("duration_histogram",),
    ),
    # upstream: an Envoy cluster as it was sent
    "upstreams": Counters(
        keys=(*_OWN, "upstream", *_PEER),
        sums=(
            "attempts",
            "retries",
            "retry_success",
            "retry_overflow",
            "retry_limit_exceeded",
            "timeouts",
            "per_try_timeouts",
            "pending_overflow",
            "request_overflow",
            "connection_overflow",
            "connect_failures",
            "resets_received",
            "resets_sent",
            "ejections",
            "health_check_failures",
            "panic",
            "tls_handshakes",
            "tls_sessions_reused",
            "tls_errors",
        ),
        histograms=("connect_time_histogram",),
        largest=("active_connections", "active_requests", "pending_requests", "ejections_active", "hosts"),
        smallest=(
            "healthy_hosts",
            "remaining_connections",
            "remaining_requests",
            "remaining_pending",
            "remaining_retries",
        ),
    ),
    # kind: sidecar | router | waypoint | ztunnel | empty
    "proxies": Counters(
        keys=(*_INSTANCE, "kind"),
        sums=(
            "restarts",
            "updates_rejected",
            "spans_sent",
            "spans_dropped",
            "downstream_requests",
            "random_sampling",
        ),
        totals=("cpu_s",),
        largest=(
            "uptime_s",
            "live",
            "connections",
            "memory_allocated_bytes",
            "memory_heap_bytes",
            "memory_physical_bytes",
            "memory_working_set_bytes",
            "version_number",
            "cds_version",
            "lds_version",
        ),
        smallest=("xds_connected",),
    ),
    # kind: increment | value | histogram, the column that says it
    "control_plane": Counters(
        keys=("cluster", "namespace", "service", "instance", "metric", "labels", "kind"),
        totals=("increment",),
        last=("value",),
        histograms=("histogram",),
    ),
}
"""By table; each has three levels."""
