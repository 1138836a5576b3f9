"""RED: requests, errors, durations of all spans, by the keys of ``red_10s``. One sort on integers; text only
for the rows that come out.
"""

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa

from processors.grouping import NO_BUCKET, U64, Flags, Groups, pack
from processors.limits import Codes, Identities, PastNames, SeenServices, identities, name_spans
from processors.rows import no_dimensions
from processors.settings import LabelLimits, ProcessorSettings
from processors.slots import LEVELS, PaneTime
from processors.spans.deduplicate import PaneSpans
from processors.spans.sampling.sampler import Sampler
from processors.stage import PaneView, Tables, Window
from schemas.hexadecimal import hex_trace_ids
from schemas.spans import SpanBatch
from schemas.tables import SCHEMAS

KINDS = pa.array(["Unspecified", "Internal", "Server", "Client", "Producer", "Consumer"])
"""Names of OTLP's SpanKind, as OpenTelemetry's ClickHouse exporter writes them."""

_CLASSES = pa.array(["ok", "1xx", "2xx", "3xx", "4xx", "5xx", "error"])
_ERROR_CLASS = 6


class Red:
    """Counts a pane's first copies as soon as it closes."""

    def __init__(self, settings: ProcessorSettings, sampler: Sampler) -> None:  # noqa: ARG002 - as every stage
        self._limits = settings.labels
        self._lookback_panes = settings.lookback_panes

    def close(self, pane: PaneView[SpanBatch]) -> Tables:
        """See processors.stage.Stage."""
        spans = pane.own[PaneSpans]
        known = identities(pane.batch, spans.labels)
        met = pane.met(SeenServices, self._lookback_panes // 2)
        if spans.frame.height:
            of_span = known.of_resource[spans.frame["resource"].to_numpy()]
            pane.seen.leave(SeenServices.of(of_span, known, self._limits.services))
        past = None if met is None else PastNames.of(met, self._lookback_panes, self._limits)
        fresh, again = spans.fresh(pane)
        return red(fresh, known, pane.time, self._limits, past, again=again)

    def decide(self, pane: PaneView[SpanBatch], window: Window) -> Tables:  # noqa: ARG002 - nothing to decide
        """See processors.stage.Stage."""
        return {}


@dataclass(frozen=True, slots=True)
class _Keys:
    """Key columns of spans, as integers."""

    slot: Codes
    identity: Codes
    operation: Codes
    kind: npt.NDArray[np.uint8]
    status_class: npt.NDArray[np.uint8]
    http_status: npt.NDArray[np.uint16]
    flags: Codes

    def take(self, rows: npt.NDArray[np.generic]) -> "_Keys":
        return _Keys(*(getattr(self, name)[rows] for name in self.__slots__))


def red(
    spans: pl.DataFrame,
    known: Identities,
    time: PaneTime,
    limits: LabelLimits,
    past: PastNames | None = None,
    *,
    again: Flags | None = None,
) -> dict[str, pa.Table]:
    """Rows of ``red_10s`` for a pane's first copies; late ones also as rows of ``red_1m`` and ``red_1h``.
    Tables without rows are left out.

    ``spans``: SPAN_SCHEMA's columns, unknown durations in NO_BUCKET; ``past``: see name_spans; ``again``:
    which of ``spans`` are no new requests, but ends of those that were counted unfinished. A row's exemplar
    is the trace of its slowest failed span, else of its slowest; ties by trace id. ``requests`` less the
    histogram's total are those of unknown duration.
    """
    if spans.is_empty():
        return {}
    labels = known.labels
    identity, operation, known = name_spans(spans, known, limits, past)
    error = spans["error"].to_numpy()
    http_status = spans["http_status"].to_numpy()
    hundreds = http_status // 100
    keys = _Keys(
        slot=time.slots(spans["end_ns"].to_numpy()),
        identity=identity,
        operation=operation,
        kind=spans["kind"].to_numpy(),
        status_class=np.where((hundreds >= 1) & (hundreds <= 5), hundreds, error * _ERROR_CLASS).astype(
            np.uint8
        ),
        http_status=http_status,
        flags=labels.codes(spans["response_flags"]),
    )
    new = np.ones(spans.height, np.bool_) if again is None else ~again
    tables = {"red_10s": _rows(spans, keys, known, time, limit=limits.series, new=new)}
    late = time.late(keys.slot)
    if late.any():
        late_spans, late_keys = spans.filter(late), keys.take(late)
        for level in ("1m", "1h"):
            coarse = replace(late_keys, slot=late_keys.slot // LEVELS[level] * LEVELS[level])
            tables[f"red_{level}"] = _rows(
                late_spans, coarse, known, time, limit=limits.series, new=new[late]
            )
    return tables


def _rows(
    spans: pl.DataFrame, keys: _Keys, known: Identities, time: PaneTime, *, limit: int, new: Flags
) -> pa.Table:
    labels = known.labels
    groups = Groups.by(_packed(keys))
    if len(groups) > limit:
        keys = _folded(keys, groups.outside_largest(limit), labels.other, time)
        groups = Groups.by(_packed(keys))
    error, duration = spans["error"].to_numpy(), spans["duration_ns"].to_numpy().astype(np.uint64)
    bucket = spans["bucket"].to_numpy()
    hi, lo = spans["trace_hi"].to_numpy(), spans["trace_lo"].to_numpy()
    exemplar = groups.best(duration | error.astype(np.uint64) << np.uint64(63), hi, lo)
    key = keys.take(groups.first)
    requests, errors = groups.sizes() if new.all() else groups.sum(new), groups.sum(error)
    identity = {name: labels.text(codes[key.identity]) for name, codes in known.columns.items()}
    columns = {
        "slot": key.slot,
        **identity,
        "operation": labels.text(key.operation),
        "kind": KINDS.take(pa.array(key.kind)),
        "status_class": _CLASSES.take(pa.array(key.status_class)),
        "http_status": key.http_status,
        "response_flags": labels.text(key.flags),
        "late": time.late(key.slot).astype(np.uint8),
        "entered": np.zeros(len(groups), np.uint8),
        "apart": pa.repeat("", len(groups)),
        "protocol": pa.repeat("", len(groups)),
        "dimensions": no_dimensions(len(groups)),
        "requests": requests,
        "errors": errors,
        "duration_ns_sum": groups.sum(duration),
        "duration_ns_max": groups.max(duration),
        "duration_histogram": groups.histogram(bucket, bucket > NO_BUCKET),
        "exemplar_trace_id": hex_trace_ids(hi[exemplar], lo[exemplar]),
        "requests_estimated": requests.astype(np.float64),
        "errors_estimated": errors.astype(np.float64),
        "request_bytes": np.zeros(len(groups), np.uint64),
        "response_bytes": np.zeros(len(groups), np.uint64),
        "roots": groups.sum(new & (spans["parent_key"].to_numpy() == 0)),
    }
    schema = SCHEMAS["red_10s"]
    return pa.Table.from_arrays([pa.array(columns[name]) for name in schema.names], schema=schema)


def _packed(keys: _Keys) -> U64:
    return pack([
        keys.identity, _dense(keys.operation), keys.kind, keys.status_class, keys.http_status, _dense(keys.flags),
        (keys.slot - keys.slot.min()) // LEVELS["10s"],
    ])  # fmt: skip


def _dense(codes: Codes) -> Codes:
    """Codes renumbered without holes, in their order."""
    used = np.zeros(int(codes.max(initial=0)) + 1, np.bool_)
    used[codes] = True
    rank: Codes = (np.cumsum(used) - 1).astype(np.uint32)
    return rank[codes]


def _folded(keys: _Keys, over: npt.NDArray[np.bool_], other: int, time: PaneTime) -> _Keys:
    """Keys with those of the rows that are over the limit made ``other``."""
    return replace(
        keys,
        slot=np.where(over, time.few(keys.slot), keys.slot),
        identity=np.where(over, 0, keys.identity).astype(np.uint32),
        operation=np.where(over, other, keys.operation).astype(np.uint32),
        http_status=np.where(over, 0, keys.http_status).astype(np.uint16),
        flags=np.where(over, 0, keys.flags).astype(np.uint32),
    )
