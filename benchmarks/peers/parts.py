"""Parts of meshflow as processes of their own, for cases that peers can do too: ``python -m
benchmarks.peers.parts PART --config FILE``.

``receive``: the receivers in front of a log that forgets: requests are split and gathered as always, and
answered when it has them. ``process``: receivers, durable log and processing as in ``meshflow up``, in front
of a store that forgets.

Both say where OTLP/gRPC listens (a line ``grpc PORT``), and ``process`` how many spans the ledger has
(``received N``, growing).
"""

import argparse
import asyncio
from collections.abc import Sequence
from contextlib import AsyncExitStack
from pathlib import Path

import pyarrow.compute as pc

from ingest.server import IngestServer
from log.sqlite.reader import SqliteLogReader
from log.sqlite.retention import Limits
from log.sqlite.writer import SqliteLogWriter
from meshflow.lifecycle import cancel, stop_on_signals, tick
from meshflow.settings import Settings, load
from meshflow.wiring import make_processor
from processors.readers.in_process import Consumer
from schemas.records import Append, LogWriter
from schemas.tables import Block
from schemas.topics import SPANS
from storage.settings import SqliteLog


class ForgetfulLog:
    """A LogWriter that has everything at once and keeps nothing."""

    async def append(self, appends: Sequence[Append]) -> None:
        """See schemas.records.LogWriter.append."""

    async def tick(self, silent_ns: int) -> None:
        """See schemas.records.LogWriter.tick."""

    async def close(self) -> None:
        """See schemas.records.LogWriter.close."""


class ForgetfulSink:
    """A Sink that counts what the ledger says was received."""

    def __init__(self) -> None:
        self._received = 0

    def write(self, block: Block) -> None:
        """See schemas.sink.Sink.write."""
        if block.table == "ledger" and block.rows["topic"][0].as_py() == SPANS:
            self._received += pc.sum(block.rows["received"]).as_py()
            print(f"received {self._received}", flush=True)

    def close(self) -> None:
        """See schemas.sink.Sink.close."""


async def receive(settings: Settings) -> None:
    """See above."""
    stop = stop_on_signals()
    async with AsyncExitStack() as parts:
        await _listen(settings, ForgetfulLog(), parts)
        await stop.wait()


async def process(settings: Settings) -> None:
    """See above."""
    stop = stop_on_signals()
    place = settings.storage.log_place
    assert isinstance(place, SqliteLog)
    async with AsyncExitStack() as parts:
        limits = Limits(settings.storage.log_retention, settings.storage.log_max_bytes)
        topics = settings.storage.log_topics()
        writer = SqliteLogWriter(
            place.directory, topics, limits, max_pending_bytes=settings.storage.log_max_pending_bytes
        )
        parts.push_async_callback(writer.close)
        reader = SqliteLogReader(place.directory)
        parts.push_async_callback(reader.close)
        consumer = Consumer(reader, ForgetfulSink(), 0.25)
        await consumer.open(lambda tp, commit: make_processor(settings, tp, commit))
        consuming = asyncio.create_task(consumer.run())
        ticking = asyncio.create_task(tick(writer, settings.processing.pane_ns))
        parts.push_async_callback(cancel, ticking)
        await _listen(settings, writer, parts)
        stopped = asyncio.create_task(stop.wait())
        await asyncio.wait({stopped, consuming, ticking}, return_when=asyncio.FIRST_COMPLETED)
        consumer.stop()
        await consuming


async def _listen(settings: Settings, log: LogWriter, parts: AsyncExitStack) -> None:
    ingest = IngestServer(settings.ingest, log, settings.processing.partitions)
    await ingest.start()
    parts.push_async_callback(ingest.stop)
    print(f"grpc {ingest.grpc_port}", flush=True)


def main() -> None:
    """Run a part until SIGINT or SIGTERM."""
    parser = argparse.ArgumentParser(description="A part of meshflow, for benchmarks.")
    parser.add_argument("part", choices=("receive", "process"))
    parser.add_argument("--config", type=Path, required=True)
    options = parser.parse_args()
    settings = load(options.config).settings
    asyncio.run(receive(settings) if options.part == "receive" else process(settings))


if __name__ == "__main__":
    main()
