"""What a fleet's counters cost: the records of sidecars' flushes to rows of ``traffic``, ``upstreams``,
``proxies`` and ``certificates``, and these into chdb.

The fleet is that of ``benchmarks.points``: each sidecar sends its statistics every 10 s, half of them in each
pane of 5 s, over 4 partitions; requests as receivers split them, packed as the SQLite log does. ``process``:
unpacking, decoding, copies, increments, rows, ledger. ``process and insert``: the same, and each block into a
store of its own. The first two flushes of each sidecar, which gain nothing, are not measured.
"""

import time
from collections import Counter
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory

import pyarrow as pa

from benchmarks.points import PANE_NS, WARM_PANES, Fleet
from benchmarks.report import Case, Measurement, main, measure
from processors.panes import Emit
from processors.points.signal import point_processor
from processors.settings import ProcessorSettings
from schemas import otlp, topics
from schemas.records import Record, TopicPartition
from schemas.sink import Sink
from storage.client import open_client
from storage.migrate import migrate
from storage.settings import StorageSettings
from storage.sink import open_sink

PARTITIONS = 4


def process(sidecars: int, panes: int) -> Measurement:
    """Records to blocks."""
    return _Run(sidecars, panes).measured(None)


def process_and_insert(sidecars: int, panes: int) -> Measurement:
    """Records to rows of a store."""
    with TemporaryDirectory() as folder:
        settings = StorageSettings(data=Path(folder))
        with (
            closing(open_client(settings.store_place)) as client,
            closing(open_sink(settings.store_place)) as sink,
        ):
            migrate(client, settings)
            return _Run(sidecars, panes).measured(sink)


class _Run:
    def __init__(self, sidecars: int, panes: int) -> None:
        settings = ProcessorSettings(partitions=PARTITIONS)
        tps = [TopicPartition(topics.METRICS, number) for number in range(PARTITIONS)]
        self._processors = [point_processor(tp, settings) for tp in tps]
        self._fleet = Fleet(sidecars, (time.time_ns() // PANE_NS) - 720)  # an hour ago: within every TTL
        self._panes = range(WARM_PANES + panes)
        self._offset = 0
        self._rows: Counter[str] = Counter()
        self._points = 0

    def measured(self, sink: Sink | None) -> Measurement:
        """All panes but the first ones."""
        whole = Measurement(0)
        for number in self._panes:
            logs = self._logs(number)
            counted = number > WARM_PANES  # a pane is decided when the next one has begun
            with measure(0) as step:
                for processor, log in zip(self._processors, logs, strict=True):
                    self._take(processor.feed(log), sink, counted=counted)
            if counted:
                whole.cpu_s += step.cpu_s
                whole.wall_s += step.wall_s
                whole.peak_rss_mib = max(whole.peak_rss_mib, step.peak_rss_mib)
        whole.spans = self._points
        whole.note = "rows: " + ", ".join(f"{rows:,} {table}" for table, rows in sorted(self._rows.items()))
        return whole

    def _take(self, emits: list[Emit], sink: Sink | None, *, counted: bool) -> None:
        for emit in emits:
            for block in emit.blocks:
                if sink is not None:
                    sink.write(block)
                if not counted:
                    continue
                if block.table == "ledger":
                    self._points += sum(block.rows["received"].to_pylist())
                else:
                    self._rows[block.table] += block.rows.num_rows

    def _logs(self, number: int) -> list[list[Record]]:
        """One pane's records of each partition."""
        parts: list[list[bytes]] = [[] for _ in range(PARTITIONS)]
        for request in self._fleet.pane(number):
            for partition, part in otlp.split(topics.METRICS, request, PARTITIONS).parts.items():
                parts[partition].append(part)
        logs: list[list[Record]] = []
        time_ns = (self._fleet.first_pane + number) * PANE_NS + 1
        for own in parts:
            gathers = [b"".join(own[begin : begin + 50]) for begin in range(0, len(own), 50)]
            logs.append([self._record(time_ns, gather) for gather in gathers])
        return logs

    def _record(self, time_ns: int, value: bytes) -> Record:
        self._offset += 1
        return Record(self._offset, time_ns, pa.compress(value, codec="lz4", asbytes=True), len(value), "lz4")


_CASES = [
    Case(f"{name}, {sidecars:,} sidecars", "meshflow", run, {"sidecars": sidecars, "panes": panes})
    for sidecars, panes in ((2_000, 8), (10_000, 5))
    for name, run in (("process", process), ("process and insert", process_and_insert))
]

CASES = [case for case in _CASES if case.arguments["sidecars"] == 2_000]
"""Those that are quick."""

if __name__ == "__main__":
    main("A fleet's counters", _CASES)
