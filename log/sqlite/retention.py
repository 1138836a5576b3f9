"""What the embedded log lets go of: by age and by size, oldest first, in small transactions between appends.

By age only what every reader has committed past goes. By size the oldest goes whether it was read or not, and
the reader learns it as OffsetGone. The newest record of a partition always stays: it says where the partition
ends.
"""

import sqlite3
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta

from log.sqlite import schema as file_format
from schemas.units import to_ns

_BATCH_RECORDS = 32
_VACUUM_PAGES = 1024
_SLACK_BYTES = 64 << 20  # free pages that are kept for the next appends rather than given back to the disk


@dataclass(frozen=True, slots=True)
class Limits:
    """How long and how much the log keeps."""

    age: timedelta
    max_bytes: int
    """Of the file's pages in use."""


def shrink(
    connection: sqlite3.Connection,
    partition_ids: Sequence[int],
    limits: Limits,
    now_ns: int,
    has_time: Callable[[], bool] = lambda: True,
) -> int:
    """Delete what the limits let go, give some of the disk back, and return how many records went.

    Appends wait meanwhile: once ``has_time`` says no, what is left is left to the next call.
    """
    deleted = 0
    horizon_ns = now_ns - to_ns(limits.age)
    for number in partition_ids:
        while has_time() and (batch := _delete_expired(connection, number, horizon_ns)):
            deleted += batch
    while (
        has_time()
        and used_bytes(connection) > limits.max_bytes
        and (batch := _delete_oldest(connection, partition_ids))
    ):
        deleted += batch
    _give_back(connection)
    return deleted


def used_bytes(connection: sqlite3.Connection) -> int:
    """Bytes of the file's pages that hold something."""
    return (
        _pragma(connection, "page_count") - _pragma(connection, "freelist_count")
    ) * file_format.PAGE_BYTES


def _delete_expired(connection: sqlite3.Connection, number: int, horizon_ns: int) -> int:
    committed = connection.execute(
        "SELECT committed_offset FROM partitions WHERE id = ?", (number,)
    ).fetchone()[0]
    if committed is None:
        return 0
    newest = file_format.newest(connection, number)[0] - 1
    needed = file_format.position(number, min(committed, newest))
    return connection.execute(
        "DELETE FROM records WHERE position IN ("
        " SELECT position FROM records WHERE position >= ? AND position < ? AND append_time_ns < ? ORDER BY position LIMIT ?)",
        (file_format.position(number, 0), needed, horizon_ns, _BATCH_RECORDS),
    ).rowcount


def _delete_oldest(connection: sqlite3.Connection, partition_ids: Sequence[int]) -> int:
    """Delete some records of the partition whose first record is the oldest."""
    firsts = []
    for number in partition_ids:
        first = connection.execute(
            "SELECT append_time_ns, position FROM records WHERE position >= ? AND position < ? ORDER BY position LIMIT 1",
            (file_format.position(number, 0), file_format.position(number + 1, 0)),
        ).fetchone()
        newest = file_format.position(number, file_format.newest(connection, number)[0] - 1)
        if first and first[1] < newest:
            firsts.append((*first, newest))
    if not firsts:
        return 0
    _, position, newest = min(firsts)
    return connection.execute(
        "DELETE FROM records WHERE position >= ? AND position < ?",
        (position, min(position + _BATCH_RECORDS, newest)),
    ).rowcount


def _give_back(connection: sqlite3.Connection) -> None:
    surplus = _pragma(connection, "freelist_count") - _SLACK_BYTES // file_format.PAGE_BYTES
    if surplus > 0:
        # executescript, as execute() takes one step of the statement and each step frees one page
        connection.executescript(f"PRAGMA incremental_vacuum({min(surplus, _VACUUM_PAGES)})")


def _pragma(connection: sqlite3.Connection, name: str) -> int:
    return int(connection.execute(f"PRAGMA {name}").fetchone()[0])
