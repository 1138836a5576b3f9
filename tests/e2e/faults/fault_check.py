"""What must hold after faults: the tables are those of an undisturbed reading of the same topics, each
acknowledged span counted once.
"""

import asyncio
import json
import subprocess
import time
import urllib.request
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from meshflow.settings import Settings, load
from processors.readers.partition import watermark_of
from processors.spans.sampling.threshold import NEVER, threshold_of
from schemas.records import Commit, TopicPartition
from schemas.tables import Block
from schemas.topics import SPANS
from tests.e2e.faults.fault_load import SpanIds, span_ids
from tests.e2e.test_kafka_e2e import FINGERPRINTS, fill
from tests.support.kafka.core import undisturbed
from tests.support.kafka.place import KafkaPlace
from tests.support.up import MESHFLOW, ROOT

if TYPE_CHECKING:
    from tests.e2e.faults.fault_fleet import FaultedFleet

LONG_S = 240.0
_ROUNDS = 5
_READ_BYTES = 32 << 20
_LEDGER = ("received", "rejected", "duplicate", "kept", "dropped", "stored", "lost")


async def compare(fleet: "FaultedFleet", acknowledged: SpanIds) -> str:
    """Wait until all is stored, and compare; what there was, in words. Raises AssertionError."""
    in_log = await _settle(fleet, acknowledged)
    settings = load(fleet.folder / "meshflow.toml", {}, {}).settings
    expected = await undisturbed(fleet.place, settings.processing, settings.sampling)
    await _all_is_committed(fleet.place, expected.commits)
    counts = await asyncio.to_thread(_assert_counted_once, fleet, in_log, acknowledged, settings)
    await fleet.stop_watching()
    for command in (*fleet.workers, fleet.store):
        await fleet.ask_to_end(command, cleanly=True)
    fill(fleet.folder / "undisturbed", _by_table(expected.blocks.values()), settings.storage)
    wanted, stored = (
        _fingerprints(folder, fleet.folder / "meshflow.toml")
        for folder in (fleet.folder / "undisturbed", fleet.folder)
    )
    differing = {
        fact: (stored.get(fact), wanted.get(fact))
        for fact in {*stored, *wanted}
        if stored.get(fact) != wanted.get(fact)
    }
    assert not differing, f"tables differ from those of an undisturbed reading (stored, wanted): {differing}"
    return counts


def _by_table(blocks: Iterable[Block]) -> list[Block]:
    """One block for each table: thousands of inserts would take minutes."""
    tables: dict[str, list[pa.Table]] = {}
    for block in blocks:
        tables.setdefault(block.table, []).append(block.rows)
    return [
        Block(table, TopicPartition("all", 0), 0, pa.concat_tables(rows)) for table, rows in tables.items()
    ]


async def _settle(fleet: "FaultedFleet", acknowledged: SpanIds) -> SpanIds:
    """End the receivers in a moment when all spans of the log are decided; the ids of those spans.

    Receivers are started anew, without clients, until nothing more comes out of them: then they write ticks
    only, and panes close.
    """
    log, wanted = _SpansOfLog(fleet.place), _keys(acknowledged)
    await log.open()
    try:
        for _ in range(_ROUNDS):
            await fleet.restart_ingests()
            progress = _Progress()
            while (missing := await log.missing(wanted)) or (ledger := _ledger(fleet.store_url))[
                "received"
            ] < len(log.ids()):
                state = (
                    f"{missing} acknowledged spans are not in the log;"
                    f" of the {len(log.ids())} in it is stored: {_ledger(fleet.store_url)}"
                )
                progress.look(state)
                await asyncio.sleep(0.5)
            fleet.report(f"all is stored: {ledger}")
            await fleet.end_ingests()
            decided = len(log.ids())
            if await log.read() == 0:
                assert ledger["received"] == decided, f"{ledger} of {decided} spans in the log"
                return log.ids()
            fleet.report(f"{len(log.ids()) - decided} spans came while the receivers ended")
    finally:
        await log.close()
    raise AssertionError(f"receivers without clients wrote more spans each of {_ROUNDS} times")


class _Progress:
    """Fails when what is looked at does not change for long: how long all of it takes is the machine's
    affair.
    """

    def __init__(self) -> None:
        self._state = ""
        self._since_s = time.monotonic()

    def look(self, state: str) -> None:
        if state != self._state:
            self._state, self._since_s = state, time.monotonic()
        assert time.monotonic() < self._since_s + LONG_S, f"nothing changed for {LONG_S} s: {state}"


async def _all_is_committed(place: KafkaPlace, commits: dict[TopicPartition, Commit]) -> None:
    """Wait until the workers' group is as far as the log is."""
    reader = await place.open_reader("meshflow")
    progress = _Progress()
    try:
        while True:
            known = {tp: await reader.committed(tp) for tp in commits}
            behind = [tp for tp, commit in commits.items() if _decided(known[tp]) < _decided(commit)]
            if not behind:
                return
            progress.look(f"not committed: {behind}; {known}")
            await asyncio.sleep(0.2)
    finally:
        await reader.close()


def _decided(commit: Commit | None) -> int:
    return watermark_of(commit).stored_until_ns


def _fingerprints(folder: Path, config: Path) -> dict[str, str]:
    """Rows of each table and a hash of them, of a store at rest."""
    sql = " UNION ALL ".join(f"SELECT fact, toString(n) FROM ({query})" for query in FINGERPRINTS)
    command = [
        *MESHFLOW,
        "--config",
        str(config),
        "query",
        "--data",
        str(folder / "data"),
        "--format",
        "JSONCompactEachRow",
        sql,
    ]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=2 * LONG_S, check=False)
    assert done.returncode == 0, done.stderr
    return {" ".join(fact): n for fact, n in map(json.loads, done.stdout.splitlines())}


class _SpansOfLog:
    """The ids of spans in the topic, read as it grows."""

    def __init__(self, place: KafkaPlace) -> None:
        self._place = place
        self._offsets: dict[TopicPartition, int] = {}
        self._ids: list[SpanIds] = []
        self._different: set[tuple[int, int, int]] = set()

    async def open(self) -> None:
        self._reader = await self._place.open_reader("counted")
        for tp in await self._reader.partitions():
            if tp.topic == SPANS:
                self._offsets[tp] = await self._reader.beginning(tp)

    async def close(self) -> None:
        await self._reader.close()

    async def read(self) -> int:
        """Read on to the end; how many spans there were."""
        new = 0
        for tp in self._offsets:
            while records := await self._reader.read(tp, self._offsets[tp], _READ_BYTES):
                self._ids.append(span_ids([record.payload for record in records if record.size]))
                self._different |= _keys(self._ids[-1])
                self._offsets[tp] = records[-1].offset + 1
                new += len(self._ids[-1])
        return new

    async def missing(self, wanted: set[tuple[int, int, int]]) -> int:
        """How many of these are not in the log, after reading on."""
        await self.read()
        return len(wanted - self._different)

    def ids(self) -> SpanIds:
        """One row for each span read, copies too."""
        return np.concatenate([*self._ids, np.empty((0, 3), np.uint64)])


def _assert_counted_once(
    fleet: "FaultedFleet", in_log: SpanIds, acknowledged: SpanIds, settings: Settings
) -> str:
    logged, wanted = _keys(in_log), _keys(acknowledged)
    ledger = _ledger(fleet.store_url)
    what = (
        f"{ledger}, {len(in_log)} spans in the log, {len(logged)} different ones, {len(wanted)} acknowledged"
    )
    assert len(wanted) == len(acknowledged), "clients sent a span twice on purpose"
    assert wanted <= logged, what
    assert ledger["received"] == len(in_log), what
    assert ledger["rejected"] == ledger["lost"] == 0, what
    assert ledger["received"] - ledger["duplicate"] == ledger["kept"] + ledger["dropped"] == len(logged), what
    assert int(_sql(fleet.store_url, "SELECT sum(requests) FROM red_10s")[0][0]) == len(logged), what
    rows = _sql(fleet.store_url, "SELECT TraceId, SpanId FROM otel_traces")
    stored = {(int(trace[:16], 16), int(trace[16:], 16), int(span, 16)) for trace, span in rows}
    assert len(rows) == len(stored) == ledger["kept"] == ledger["stored"], (
        f"{len(rows)} rows of {len(stored)} spans are stored: {what}"
    )
    assert stored <= logged, what
    (half,) = (policy for policy in settings.sampling.policies if policy.type == "probabilistic")
    threshold = threshold_of(half.probabilistic.sampling_percentage / 100)
    lost = {key for key in wanted if key[1] & (NEVER - 1) >= threshold} - stored
    assert not lost, f"{len(lost)} acknowledged spans whose traces are kept are not stored: {what}"
    return what


def _keys(ids: SpanIds) -> set[tuple[int, int, int]]:
    return set(map(tuple, ids.tolist()))


def _ledger(store_url: str) -> dict[str, int]:
    sums = ", ".join(f"sum({name})" for name in _LEDGER)
    (row,) = _sql(store_url, f"SELECT {sums} FROM ledger WHERE topic = '{SPANS}'")
    return dict(zip(_LEDGER, map(int, row), strict=True))


def _sql(store_url: str, query: str) -> list[list[Any]]:
    url = (
        store_url.replace("clickhouse://", "http://").rpartition("/")[0]
        + "/?default_format=JSONCompactEachRow"
    )
    with urllib.request.urlopen(url, query.encode(), timeout=LONG_S) as response:
        return [json.loads(line) for line in response.read().splitlines()]
