"""RED: requests, errors, durations of all spans, by the keys of ``red_10s``. One sort on integers; text only
for the rows that come out.

RED is counted when a pane is decided, as whether a request enters a node with a span is known by its parent
(``processors.spans.edges.entries``). A first copy is a request, also one that came unfinished. Its end, which
is in a later pane, adds the duration, the bytes and a failure that was not counted before, under its own
keys; where it comes within the wait, the unfinished span's own duration and bytes are not counted.
"""

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa

from processors.grouping import NO_BUCKET, U64, Flags, Groups, pack
from processors.limits import Codes, Identities, Labels, PastNames, SeenServices, identities, name_spans
from processors.settings import LabelLimits, ProcessorSettings
from processors.slots import LEVELS, PaneTime
from processors.spans.apart import APART, apart_of
from processors.spans.deduplicate import PaneSpans, Stored
from processors.spans.dimensions import NO_DIMENSIONS, Dimensions, SpanDimensions
from processors.spans.edges.entries import Entries
from processors.spans.sampling.sampler import Sampler
from processors.stage import PaneView, Tables, Window
from schemas.hexadecimal import hex_trace_ids
from schemas.otlp.semantics import PROTOCOLS
from schemas.spans import SpanBatch
from schemas.tables import SCHEMAS

KINDS = pa.array(["Unspecified", "Internal", "Server", "Client", "Producer", "Consumer"])
"""Names of OTLP's SpanKind, as OpenTelemetry's ClickHouse exporter writes them."""

_ENTERED, _INNER = 1, 2
_CLASSES = pa.array(["ok", "1xx", "2xx", "3xx", "4xx", "5xx", "error"])
_ERROR_CLASS = 6
_CLASS_ONLY = 1 << 16
"""A status from here on is a class without an HTTP status."""


@dataclass(frozen=True, slots=True)
class _Known:
    """A pane's own note."""

    identities: Identities


@dataclass(frozen=True, slots=True)
class Counted:
    """Spans to count."""

    spans: pl.DataFrame
    """SPAN_SCHEMA's columns, ``parent_key``, ``weight``; unknown durations in NO_BUCKET. ``dimensions``
    (row of Dimensions.maps) where such are configured.
    """
    entered: Flags
    """With which of them a request entered a node."""
    new: Flags | None = None
    """Which of them are requests, the others being ends of such as were counted unfinished, and ``error`` a
    failure of theirs that was not counted. None: all.
    """

    @classmethod
    def of(cls, spans: PaneSpans, stored: Stored, entries: Entries) -> "Counted":
        """A decided pane's first copies and ends."""
        frame, entered, ends = spans.frame, entries.rows, spans.ends
        if len(stored.superseded):
            frame = _unfinished(frame, stored.superseded)
        if not len(ends.rows):
            if spans.first.all():
                return cls(frame, entered)
            return cls(frame.filter(spans.first), entered[spans.first.to_numpy()])
        counted, new = spans.first.to_numpy().copy(), np.ones(frame.height, np.bool_)
        counted[ends.rows], new[ends.rows] = True, False
        reported = np.zeros(frame.height, np.bool_)
        reported[ends.rows] = ends.failed
        frame = frame.with_columns(error=frame["error"] & pl.Series(~reported))
        return cls(frame.filter(counted), entered[counted], new[counted])

    def filter(self, rows: Flags) -> "Counted":
        """Some of them."""
        new = None if self.new is None else self.new[rows]
        return Counted(self.spans.filter(rows), self.entered[rows], new)


def _unfinished(frame: pl.DataFrame, rows: npt.NDArray[np.int64]) -> pl.DataFrame:
    """The spans without duration and bytes of some."""
    ended = np.zeros(frame.height, np.bool_)
    ended[rows] = True
    nothing = {"duration_ns": 0, "bucket": NO_BUCKET, "request_bytes": 0, "response_bytes": 0}
    return frame.with_columns(
        pl.when(pl.Series(ended)).then(pl.lit(value, frame.schema[name])).otherwise(name).alias(name)
        for name, value in nothing.items()
    )


class Red:
    """Leaves SeenServices; counts a decided pane's first copies."""

    def __init__(self, settings: ProcessorSettings, sampler: Sampler) -> None:  # noqa: ARG002 - as every stage
        self._limits = settings.labels
        self._lookback_panes = settings.lookback_panes

    def close(self, pane: PaneView[SpanBatch]) -> Tables:
        """See processors.stage.Stage."""
        spans = pane.own[PaneSpans]
        if spans.frame.height:
            known = identities(pane.batch, spans.labels)
            pane.seen.leave(SeenServices.of(spans.frame, known, self._limits))
            pane.own.leave(_Known(known))
        return {}

    def decide(self, pane: PaneView[SpanBatch], window: Window) -> Tables:  # noqa: ARG002 - Edges have used it
        """See processors.stage.Stage."""
        spans = pane.own[PaneSpans]
        if spans.frame.is_empty():
            return {}
        met = pane.met(SeenServices, self._lookback_panes // 2)
        own = pane.seen[SeenServices]
        past = None if met is None else PastNames.of(met, self._lookback_panes, self._limits, own)
        maps = NO_DIMENSIONS
        if (dimensions := pane.own.get(Dimensions)) is not None:
            of_span = dimensions.of_row[pane.own[SpanDimensions].of_span]
            spans = replace(spans, frame=spans.frame.with_columns(dimensions=pl.Series(of_span)))
            maps = dimensions.maps
        counted = Counted.of(spans, pane.own[Stored], pane.own[Entries])
        known = pane.own[_Known].identities
        return red(counted, maps, known, pane.time, limits=self._limits, past=past)


@dataclass(frozen=True, slots=True)
class _Keys:
    """Key columns of spans, as integers."""

    slot: Codes
    identity: Codes
    operation: Codes
    status: Codes
    """HTTP's, or _CLASS_ONLY and a class; twice that, and 1 where the span failed and no class says how."""
    flags: Codes
    mode: npt.NDArray[np.uint8]
    """By bits: kind (3), whether it is within a node (1), index of APART (2) and of PROTOCOLS (2)."""
    dimensions: Codes
    """Row of Dimensions.maps."""

    def take(self, rows: npt.NDArray[np.generic]) -> "_Keys":
        return _Keys(*(getattr(self, name)[rows] for name in self.__slots__))


def red(
    counted: Counted,
    maps: pa.MapArray,
    known: Identities,
    time: PaneTime,
    *,
    limits: LabelLimits,
    past: PastNames | None = None,
) -> dict[str, pa.Table]:
    """Rows of ``red_10s`` for a pane; late ones also as rows of ``red_1m`` and ``red_1h``. Tables without
    rows are left out.

    ``maps``: Dimensions.maps; ``past``: see name_spans. A row's exemplar is the trace of its slowest failed
    span, else of its slowest; ties by trace id. ``requests`` less the histogram's total are those of unknown
    duration. Estimates are sums of weights, bytes those of spans that say so.
    """
    spans = counted.spans
    if spans.is_empty():
        return {}
    labels = known.labels
    identity, operation, known = name_spans(spans, known, limits, past)
    http_status = spans["http_status"].to_numpy()
    no_class = (http_status < 100) | (http_status >= 600)
    flags = labels.codes(spans["response_flags"])
    keys = _Keys(
        slot=time.slots(spans["end_ns"].to_numpy()),
        identity=identity,
        operation=operation,
        status=http_status.astype(np.uint32) * np.uint32(2) + (spans["error"].to_numpy() & no_class),
        flags=flags,
        mode=_modes(spans, counted.entered, labels, flags),
        dimensions=spans["dimensions"].to_numpy()
        if "dimensions" in spans.columns
        else np.zeros(len(spans), np.uint32),
    )
    tables = {"red_10s": _rows(counted, keys, maps, known, time, limit=limits.series)}
    late = time.late(keys.slot)
    if late.any():
        late_spans, late_keys = counted.filter(late), keys.take(late)
        for level in ("1m", "1h"):
            coarse = replace(late_keys, slot=late_keys.slot // LEVELS[level] * LEVELS[level])
            tables[f"red_{level}"] = _rows(late_spans, coarse, maps, known, time, limit=limits.series)
    return tables


def _modes(spans: pl.DataFrame, entered: Flags, labels: Labels, flags: Codes) -> npt.NDArray[np.uint8]:
    modes: npt.NDArray[np.uint8] = spans["kind"].to_numpy() | (~entered).astype(np.uint8) << 3
    modes |= spans["protocol"].to_numpy() << 6
    modes |= apart_of(spans, flags, labels) << np.uint8(4)
    return modes


def _rows(
    counted: Counted, keys: _Keys, maps: pa.MapArray, known: Identities, time: PaneTime, *, limit: int
) -> pa.Table:
    labels, spans = known.labels, counted.spans
    groups = Groups.by(_packed(keys))
    if len(groups) > limit:
        keys = _folded(keys, groups.outside_largest(limit), labels.other, len(maps) - 1, time)
        groups = Groups.by(_packed(keys))
    error, duration = spans["error"].to_numpy(), spans["duration_ns"].to_numpy().astype(np.uint64)
    bucket = spans["bucket"].to_numpy()
    hi, lo = spans["trace_hi"].to_numpy(), spans["trace_lo"].to_numpy()
    exemplar = groups.best(duration | error.astype(np.uint64) << np.uint64(63), hi, lo)
    key = keys.take(groups.first)
    root = spans["parent_key"].to_numpy() == 0
    requests, roots = groups.sizes(), root
    if counted.new is not None:
        requests, roots = groups.sum(counted.new), root & counted.new
    errors = groups.sum(error)
    estimated = _estimated(counted, groups)
    http_status, classes = _statuses(key.status)
    identity = {name: labels.text(codes[key.identity]) for name, codes in known.columns.items()}
    columns = {
        "slot": key.slot,
        **identity,
        "operation": labels.text(key.operation),
        "kind": KINDS.take(pa.array(key.mode & 7)),
        "status_class": classes,
        "http_status": http_status,
        "response_flags": labels.text(key.flags),
        "late": time.late(key.slot).astype(np.uint8),
        "entered": np.where(key.mode & 8, np.uint8(_INNER), np.uint8(_ENTERED)),
        "apart": pa.array(APART).take(pa.array(key.mode >> 4 & 3)),
        "protocol": pa.array(PROTOCOLS).take(pa.array(key.mode >> 6)),
        "dimensions": maps.take(pa.array(key.dimensions)),
        "requests": requests,
        "errors": errors,
        "duration_ns_sum": groups.sum(duration),
        "duration_ns_max": groups.max(duration),
        "duration_histogram": groups.histogram(bucket, bucket > NO_BUCKET),
        "exemplar_trace_id": hex_trace_ids(hi[exemplar], lo[exemplar]),
        "requests_estimated": requests.astype(np.float64) if estimated is None else estimated[0],
        "errors_estimated": errors.astype(np.float64) if estimated is None else estimated[1],
        "request_bytes": groups.sum(spans["request_bytes"].to_numpy()),
        "response_bytes": groups.sum(spans["response_bytes"].to_numpy()),
        "roots": groups.sum(roots),
    }
    schema = SCHEMAS["red_10s"]
    return pa.Table.from_arrays([pa.array(columns[name]) for name in schema.names], schema=schema)


def _estimated(
    counted: Counted, groups: Groups
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]] | None:
    """Requests and errors that the spans stand for; None where each stands for itself."""
    weight = counted.spans["weight"].to_numpy()
    if (weight == 1).all():
        return None
    requests = weight if counted.new is None else weight * counted.new
    return groups.total(requests), groups.total(weight * counted.spans["error"].to_numpy())


def _statuses(status: Codes) -> tuple[npt.NDArray[np.uint16], pa.StringArray]:
    """HTTP status and class."""
    code = status >> 1
    hundreds = code // 100
    own = np.where((hundreds >= 1) & (hundreds <= 5), hundreds, (status & 1) * _ERROR_CLASS)
    only = code >= _CLASS_ONLY
    classes = np.where(only, code - _CLASS_ONLY, own)
    return np.where(only, 0, code).astype(np.uint16), _CLASSES.take(pa.array(classes))


def _packed(keys: _Keys) -> U64:
    return pack([
        keys.identity, _dense(keys.operation), keys.status, keys.mode, _dense(keys.flags), keys.dimensions,
        (keys.slot - keys.slot.min()) // LEVELS["10s"],
    ])  # fmt: skip


def _dense(codes: Codes) -> Codes:
    """Codes renumbered without holes, in their order."""
    used = np.zeros(int(codes.max(initial=0)) + 1, np.bool_)
    used[codes] = True
    rank: Codes = (np.cumsum(used) - 1).astype(np.uint32)
    return rank[codes]


def _folded(keys: _Keys, over: Flags, other: int, none: int, time: PaneTime) -> _Keys:
    """Keys with those of the rows that are over the limit made ``other``: of their status the class stays,
    and protocols and dimensions go.
    """
    code = keys.status >> 1
    hundreds = code // 100
    no_class = (hundreds < 1) | (hundreds > 5)
    classes = (_CLASS_ONLY + np.where(no_class, (keys.status & 1) * _ERROR_CLASS, hundreds)) << 1
    return replace(
        keys,
        slot=np.where(over, time.few(keys.slot), keys.slot),
        identity=np.where(over, 0, keys.identity).astype(np.uint32),
        operation=np.where(over, other, keys.operation).astype(np.uint32),
        status=np.where(over, classes, keys.status).astype(np.uint32),
        flags=np.where(over, 0, keys.flags).astype(np.uint32),
        mode=np.where(over, keys.mode & 0x3F, keys.mode).astype(np.uint8),
        dimensions=np.where(over, none, keys.dimensions).astype(np.uint32),
    )
