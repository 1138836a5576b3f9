"""How a writer opens a log: damage is saved from, and held against what was last seen of the log
(docs/adr/0036).
"""

import logging
import os
import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from log.sqlite import schema as file_format
from log.sqlite import seen as seen_file
from log.sqlite.salvage import salvage
from log.sqlite.seen import Seen, SeenPartition
from schemas.errors import LogDamaged, LogVanished
from schemas.records import TopicPartition

_LOGGER = logging.getLogger(__name__)


class End(NamedTuple):
    """Offset of a partition's next record, append time of its newest."""

    offset: int
    append_time_ns: int


Ends = dict[TopicPartition, End]


@dataclass(slots=True)
class OpenLog:
    """A log that is open for its writer."""

    directory: Path
    connection: sqlite3.Connection
    ids: dict[TopicPartition, int]
    ends: Ends
    identity: str
    _files: dict[Path, tuple[int, int]]

    def check_files(self) -> None:
        """Raises LogVanished when a file is no longer the one that is open."""
        for file in (self.directory / file_format.FILE, self.directory / f"{file_format.FILE}-wal"):
            try:
                status = os.stat(file)
            except FileNotFoundError:
                found = None
            else:
                found = (status.st_dev, status.st_ino)
            known = self._files.get(file, found)
            if found != known:
                raise LogVanished(
                    f"{file} was removed or replaced while meshflow had it open: nothing more is accepted; start meshflow"
                    " again, which says what is there"
                )
            if known is not None:
                self._files[file] = known

    def save_seen(self, ends: Ends) -> None:
        """Remember how far the log is. Raises OSError, sqlite3.Error."""
        commits = file_format.commits(self.connection)
        partitions = {
            tp: SeenPartition(number, ends[tp].offset, commits.get(number, -1))
            for tp, number in self.ids.items()
        }
        seen_file.save(self.directory, Seen(self.identity, partitions))


def open_log(directory: Path, topics: Mapping[str, int]) -> OpenLog:
    """Open or make the log, with at least ``topics[topic]`` partitions each; the caller holds its lock.

    What can be read of a damaged file is saved first. Raises LogUnavailable.
    """
    try:
        if file_format.marker(directory).exists():
            raise LogDamaged("an earlier run found it so")
        log = _open(directory, topics)
    except LogDamaged as error:
        _LOGGER.error(
            "%s is damaged: what can be read is saved now (%s)", directory / file_format.FILE, error
        )
        salvage(directory, topics)
        log = _open(directory, topics)
    _compare(log, seen_file.load(directory))
    return log


def _open(directory: Path, topics: Mapping[str, int]) -> OpenLog:
    connection = file_format.connect(directory, create=True)
    try:
        file_format.add_partitions(connection, topics)
        ids = file_format.partition_ids(connection)
        ends = {tp: End(*file_format.newest(connection, number)) for tp, number in ids.items()}
        log = OpenLog(directory, connection, ids, ends, file_format.identity(connection), {})
    except (sqlite3.Error, TypeError) as error:
        connection.close()
        if isinstance(error, TypeError):  # an append time that is no number
            raise LogDamaged(str(error)) from error
        raise file_format.unavailable(directory / file_format.FILE, error) from error
    log.check_files()
    return log


def _compare(log: OpenLog, seen: Seen | None) -> None:
    """Report what was seen and is not there. Offsets go on after all that were seen or committed, so that
    readers find a gap, and count it, rather than other records at offsets that they know.
    """
    commits = file_format.commits(log.connection)
    known = seen.partitions if seen and seen.identity == log.identity else {}
    missing = 0
    for tp, end in log.ends.items():
        was = known[tp].end if tp in known else 0
        missing += max(0, was - end.offset)
        log.ends[tp] = End(max(end.offset, was, commits.get(log.ids[tp], 0)), end.append_time_ns)
    if seen and seen.identity != log.identity:
        open_records = sum(was.end - max(was.committed, 0) for was in seen.partitions.values())
        _LOGGER.error(
            "the log in %s is not the one that was here before: its files were removed or replaced; at most %d of its"
            " records had not been processed for good, and are lost with it",
            log.directory,
            open_records,
        )
    elif missing:
        _LOGGER.error(
            "the log in %s went back in time (an older copy, or a lost -wal): %d records that were acknowledged are not in"
            " it; the ledger counts those as lost that were not processed before",
            log.directory,
            missing,
        )
