"""A worker as a process of its own that stores each block as a file: ``python -m
tests.support.kafka.block_worker BOOTSTRAP PREFIX FOLDER [PANE]``.

A folder is a store that several processes can share, and whose names say who wrote what.
"""

import asyncio
import itertools
import os
import signal
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import pyarrow as pa

from log.kafka.brokers import Brokers
from processors.readers.worker import Worker
from processors.settings import ProcessorSettings
from schemas.records import DeadLetter, TopicPartition
from schemas.tables import Block
from tests.support.kafka.core import make_processor
from tests.support.kafka.workers import SETTINGS

SESSION_TIMEOUT = "5s"
"""Tests wait for the sessions of those that were killed to end."""


class FolderStore:
    """A sink; a file's name says its block and who wrote it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._numbers = itertools.count()

    def write(self, block: Block) -> None:
        name = f"{block.token}:{os.getpid()}:{next(self._numbers)}"
        unfinished = self._folder / f".{name}"
        with pa.ipc.new_file(unfinished, block.rows.schema) as file:
            file.write_table(block.rows)
        unfinished.rename(self._folder / name)

    def close(self) -> None:
        """Nothing to let go of."""


def read_blocks(folder: Path) -> list[tuple[int, Block]]:
    """Each block that was stored, with the process that did it."""
    blocks = []
    for path in folder.iterdir():
        if path.name.startswith("."):
            continue
        table, topic, partition, pane, clock, pid, _ = path.name.split(":")
        with pa.ipc.open_file(path) as file:
            blocks.append(
                (
                    int(pid),
                    Block(table, TopicPartition(topic, int(partition)), int(pane), file.read_all(), clock),
                )
            )
    return blocks


async def _fail(tp: TopicPartition, letters: Sequence[DeadLetter]) -> None:
    raise AssertionError((tp, letters))


async def main(bootstrap: str, prefix: str, folder: str, pane: str = "") -> None:
    """Until SIGTERM; ``pane``: its length, where it is not that of SETTINGS."""
    panes = {"pane": pane, "lookback": pane} if pane else {}
    kafka = {**SETTINGS.kafka.model_dump(), "session_timeout": SESSION_TIMEOUT}
    settings = ProcessorSettings.model_validate({**SETTINGS.model_dump(), **panes, "kafka": kafka})
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    brokers = Brokers(tuple(bootstrap.split(",")))
    worker = Worker(
        brokers,
        prefix,
        settings,
        partial(make_processor, settings),
        sink=FolderStore(Path(folder)),
        set_aside=_fail,
    )
    assert await worker.serve(stop)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
