"""Spans of one partition: records in, blocks out. ``_close`` and ``_decide`` are the list of stages, one line
each.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import overload

import numpy as np
import polars as pl
import pyarrow as pa

from processors import panes
from processors.ledger import Fates, ledger
from processors.limits import Labels
from processors.panes import Emit, Pane, PaneClock, Panes, Step, surplus_letters
from processors.settings import ProcessorSettings
from processors.slots import PaneTime
from processors.spans.deduplicate import drop_copies, first_copies, with_keys
from processors.spans.edges.calls import Calls, Window, calls_of
from processors.spans.edges.edges import edges
from processors.spans.red import red
from processors.spans.sampling.sampler import Sampler
from processors.spans.sampling.settings import SamplingSettings
from processors.spans.traces import limit_traces, write_traces
from schemas import otlp
from schemas.errors import MalformedOtlp
from schemas.records import Commit, DeadLetter, Record, TopicPartition
from schemas.spans import SpanBatch
from schemas.tables import Block
from schemas.units import NS_PER_S, to_ns


@dataclass(slots=True)
class _Undecided:
    """What a closed pane needs until it is decided."""

    pane: Pane
    batch: SpanBatch
    labels: Labels
    spans: pl.DataFrame
    """SPAN_SCHEMA, ``key``, ``parent_key``; each span once."""
    first: pl.Series
    """Which of ``spans`` are in no earlier pane of the lookback."""
    rejected: int
    late: int
    dead_letters: list[DeadLetter]


@dataclass(slots=True)
class _Seen:
    """What later panes look up in a pane."""

    calls: Calls
    summary: pl.DataFrame


class SpanProcessor:
    """RED, edges, kept traces and ledger of one partition of ``otlp_spans``.

    Feed it every record from :attr:`offset` on (None: from the log's beginning), in any portions; write the
    blocks of each Emit, then commit. Not safe for use by two threads at once.
    """

    def __init__(
        self,
        tp: TopicPartition,
        settings: ProcessorSettings,
        sampling: SamplingSettings,
        commit: Commit | None = None,
    ) -> None:
        self.tp = tp
        self._settings = settings
        self._clock = PaneClock.of(tp, settings.partitions, settings.pane_ns)
        self._panes = Panes(
            self._clock,
            settings.wait,
            settings.lookback_panes,
            settings.pane_bytes,
            commit,
            count=count_spans,
        )
        self._sampler = Sampler(sampling, settings.pane_ns, settings.partitions)
        self._undecided: dict[int, _Undecided] = {}
        self._seen: dict[int, _Seen] = {}

    @property
    def offset(self) -> int | None:
        """Where to begin reading; None: at the log's beginning."""
        return self._panes.offset

    def gap(self, wanted: int, beginning: int) -> None:
        """The log no longer has [wanted, beginning) (OffsetGone): count what was not processed as lost, go on
        from ``beginning``.
        """
        self._panes.gap(wanted, beginning)

    def feed(self, records: Sequence[Record]) -> list[Emit]:
        """Take the next records in; what there is to store and commit after them. Raises ValueError for a
        commit that is not ours.
        """
        steps = (self._panes.add(record) for record in records)
        return [self._take(step) for step in steps if step]

    def _take(self, step: Step) -> Emit:
        closed, tables = self._close(step)
        blocks = [*self._blocks(step.closed.number, tables)] if step.emit_closed else []
        if step.emit_closed:
            self._undecided[step.closed.number] = closed
        for number in step.decided:
            blocks += self._blocks(number, self._decide(self._undecided.pop(number)))
        self._seen = {number: seen for number, seen in self._seen.items() if number >= step.keep_from}
        return Emit(blocks, step.commit, closed.dead_letters if step.emit_closed else [])

    def _close(self, step: Step) -> tuple[_Undecided, dict[str, pa.Table]]:
        """The stages of a pane that ends: what it is by itself, and what later panes look up in it."""
        pane = step.closed
        batch, rejected, dead_letters = decode(pane, self._sampler.attribute_keys)
        labels = Labels.of(batch, self._settings.labels.label_length)
        spans = drop_copies(with_keys(pl.DataFrame(batch.spans)))
        first = first_copies(
            spans["key"], (seen.calls.spans["key"] for seen in self._window(pane.number).values())
        )
        time = self._time(pane)
        slots = time.slots(spans["end_ns"].to_numpy())
        if spans.height:
            calls, summary = (
                calls_of(pane.number, spans, batch, labels, first=first, slots=slots),
                self._sampler.summarize(batch, spans, pane.number),
            )
            self._seen[pane.number] = _Seen(calls, summary)
        late = int((first.to_numpy() & time.late(slots)).sum())
        uncounted = first & _after(step.closed_until, pane, spans)
        tables = red(spans.filter(uncounted), batch, labels, time, self._settings.labels)
        return _Undecided(pane, batch, labels, spans, first, rejected, late, dead_letters), tables

    def _decide(self, closed: _Undecided) -> dict[str, pa.Table]:
        """The stages of a pane whose window is complete."""
        pane, spans, first = closed.pane, closed.spans, closed.first
        fates = Fates(
            rejected=closed.rejected, duplicate=len(closed.batch) - int(first.sum()), late=closed.late
        )
        if spans.is_empty():
            return {"ledger": ledger(self.tp, pane, fates)}
        window = self._window(pane.number)
        decisions = self._sampler.decide([seen.summary for seen in window.values()], pane.number)
        kept = spans.filter(first).join(
            decisions.rename({"error": "trace_error"}), on=["trace_hi", "trace_lo"]
        )
        kept = limit_traces(kept, self._sampler.settings.trace_spans)
        traces = write_traces(closed.batch, kept, Payloads(pane.records), pane.start_ns // NS_PER_S)
        calls = Window.of(
            pane.number,
            self._settings.wait,
            self._time(pane),
            {number: seen.calls for number, seen in window.items()},
        )
        tables = edges(spans, first, closed.labels, calls, self._settings.labels)
        fates = replace(
            fates, kept=len(kept), dropped=int(first.sum()) - len(kept), stored=traces["otel_traces"].num_rows
        )
        return {**tables, **traces, "ledger": ledger(self.tp, pane, fates)}

    def _window(self, pane: int) -> dict[int, _Seen]:
        first, last = pane - self._settings.lookback_panes, pane + self._settings.wait
        return {number: seen for number, seen in self._seen.items() if first <= number <= last}

    def _time(self, pane: Pane) -> PaneTime:
        return PaneTime(pane.start_ns, self._settings.pane_ns, to_ns(self._settings.rollup_grace))

    def _blocks(self, pane: int, tables: Mapping[str, pa.Table]) -> Iterator[Block]:
        return (
            Block(table, self.tp, pane, rows, self._clock.name)
            for table, rows in tables.items()
            if rows.num_rows
        )


def _after(offset: int, pane: Pane, spans: pl.DataFrame) -> pl.Series:
    """Which spans are of records from ``offset`` on."""
    if offset <= pane.first_offset:
        return pl.repeat(value=True, n=spans.height, dtype=pl.Boolean, eager=True)
    fresh = np.fromiter((record.offset >= offset for record in pane.records), np.bool_, len(pane.records))
    return pl.Series(fresh[spans["record"].to_numpy()], dtype=pl.Boolean)


def decode(pane: Pane, attribute_keys: Sequence[str]) -> tuple[SpanBatch, int, list[DeadLetter]]:
    """A pane's spans, how many items were rejected, and the records set aside: malformed ones (one item each)
    and those over the limit.

    Rejected too are spans without a valid trace id or span id, which only foreign writers append (ingest
    refuses them).
    """
    letters: list[DeadLetter] = []
    try:
        batch = otlp.decode_spans(Payloads(pane.records), attribute_keys)
    except MalformedOtlp:
        payloads, letters = _well_formed(pane.records)
        batch = otlp.decode_spans(payloads, attribute_keys)
    identified = with_ids(batch)
    rejected = len(letters) + pane.surplus_items + len(batch) - len(identified)
    return identified, rejected, letters + surplus_letters(pane)


def _well_formed(records: Sequence[Record]) -> tuple[list[bytes], list[DeadLetter]]:
    """The payloads, b"" in place of malformed ones, and these as dead letters."""
    payloads, letters = panes.unpack(records)
    for number, record in enumerate(records):
        try:
            otlp.decode_spans(payloads[number : number + 1])
        except MalformedOtlp as error:
            letters.append(DeadLetter(record, str(error)))
            payloads[number] = b""
    return payloads, letters


def with_ids(batch: SpanBatch) -> SpanBatch:
    """The spans that have a trace id and a span id; one of a wrong length, or zero, is none."""
    trace_hi, trace_lo, span_id = (
        batch.spans[name].to_numpy() for name in ("trace_hi", "trace_lo", "span_id")
    )
    valid = (trace_hi | trace_lo).astype(np.bool_) & span_id.astype(np.bool_)
    return batch if valid.all() else replace(batch, spans=batch.spans.filter(pa.array(valid)))


class Payloads(Sequence[bytes]):
    """The payloads of records, each unpacked when it is asked for: all of a pane at once are up to
    ``pane_bytes``.
    """

    def __init__(self, records: Sequence[Record]) -> None:
        self._records = records

    def __len__(self) -> int:
        return len(self._records)

    @overload
    def __getitem__(self, number: int) -> bytes: ...
    @overload
    def __getitem__(self, number: slice) -> list[bytes]: ...
    def __getitem__(self, number: int | slice) -> bytes | list[bytes]:
        """Raises MalformedOtlp (Record.unpack)."""
        return (
            [record.unpack() for record in self._records[number]]
            if isinstance(number, slice)
            else self._records[number].unpack()
        )


def count_spans(payload: bytes) -> int:
    """Spans of a payload; a malformed one counts as one."""
    try:
        return len(otlp.decode_spans([payload]))
    except MalformedOtlp:
        return 1
