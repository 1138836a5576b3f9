"""A damaged SQLite file: it is copied, read around what cannot be read, and set aside.

SQLite reads a table by its B-tree, so one bad page hides the rows of that page, and those below it. Rows are
read in order; at one that cannot be read, the next readable one is looked for in growing steps, then closer.
A damaged first page (it has the file's header and the tables' roots) is replaced by that of a new file, whose
tables have the same roots.
"""

import os
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from log.sqlite import schema as file_format

_SIDES = ("-wal", "-shm")


def free_name(path: Path) -> Path:
    """A name beside ``path``, which nothing has yet."""
    number = 0
    while path.exists():
        number += 1
        path = path.with_name(f"{path.name.split('~')[0]}~{number}")
    return path


def copy_damaged(file: Path, work: Path) -> None:
    """A copy to read from, since reading may write: SQLite recovers the -wal, and the header is mended."""
    for side in ("", *_SIDES[:1]):
        if Path(f"{file}{side}").exists():
            shutil.copyfile(f"{file}{side}", f"{work}{side}")


def mend_first_page(work: Path, new: sqlite3.Connection, page_bytes: int) -> None:
    """Give the damaged file the first page of a ``new`` one: same header and roots, the file's own length."""
    new.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    file = new.execute("PRAGMA database_list").fetchone()[2]
    with open(file, "rb") as template:
        first = bytearray(template.read(page_bytes))
    pages = max(1, work.stat().st_size // page_bytes)
    first[28:32] = pages.to_bytes(4)  # the file's size in pages (SQLite's file format, 1.3)
    first[32:40] = bytes(8)  # no list of free pages
    with work.open("r+b") as damaged:
        damaged.write(first)
    Path(f"{work}-wal").unlink(missing_ok=True)


def readable_rows(
    connection: sqlite3.Connection, sql: str, begin: int, beyond: int
) -> Iterator[tuple[Any, ...]]:
    """Rows whose first column (ascending, from ``begin`` on) is the query's one parameter."""
    at = begin
    while at < beyond:
        try:
            for row in connection.execute(sql, (at,)):
                if not isinstance(row[0], int) or not at <= row[0] < beyond:
                    break
                yield row
                at = row[0] + 1
            else:
                return
            at += 1
        except (sqlite3.DatabaseError, MemoryError, OverflowError):
            following = file_format.next_readable(connection, sql, at, beyond)
            if following is None:
                return
            at = following


def replace(file: Path, aside: Path, fresh: Path) -> None:
    """Set the damaged file aside, with all that is beside it, and put the ``fresh`` one in its place."""
    for side in ("", *_SIDES):
        with suppress(FileNotFoundError):
            Path(f"{file}{side}").rename(f"{aside}{side}")
    fresh.rename(file)
    descriptor = os.open(file.parent, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
