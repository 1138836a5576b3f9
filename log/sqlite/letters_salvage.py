"""A damaged file of dead letters: all letters that can be read go into a new one, the old one is set aside
(log.sqlite.rescue).
"""

import logging
import shutil
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from log.sqlite import dead_letters as letters_format
from log.sqlite import rescue
from log.sqlite import schema as file_format
from schemas.dead_letters import LEFT_OUT, WHOLE
from schemas.errors import LogDamaged, LogUnavailable

_LOGGER = logging.getLogger(__name__)

_COLUMNS = "number, topic, partition, offset, append_time_ns, reason, size, extent, key, labels, replayed, asked, codec, payload"
_KINDS = (int, str, int, int, int, str, int, str, bytes, str, str, int, str, bytes)
_MOST_NUMBER = 1 << 62
_LETTERS = f"SELECT {_COLUMNS} FROM letters WHERE number >= ? ORDER BY number"
_FORGOTTEN = "SELECT topic, partition, append_time_ns, offset, letters FROM forgotten"


@dataclass(slots=True)
class SalvagedLetters:
    """What became of a damaged file of dead letters."""

    aside: Path
    """Where the damaged file is now."""
    letters: int = 0
    lost: int = 0
    """Numbers between the first and the last letter that was read, without a letter; those after it are
    unknown.
    """


def save_letters(directory: Path) -> SalvagedLetters | None:
    """Where the dead letters of a log folder cannot be read, save those that can; None: nothing is damaged.

    The caller holds the log's lock, and nobody has the file open. Raises LogUnavailable: there is no room for
    the copy (then all is as it was), or the folder cannot be written.
    """
    if not (directory / letters_format.FILE).exists() or _is_sound(directory / letters_format.FILE):
        return None
    return salvage(directory)


def salvage(directory: Path) -> SalvagedLetters:
    """As :func:`save_letters`, whatever the file is."""
    file = directory / letters_format.FILE
    stamp = time.strftime("%Y%m%d-%H%M%S", time.gmtime())
    result = SalvagedLetters(rescue.free_name(directory / f"{letters_format.FILE}.damaged-{stamp}"))
    fresh = directory / f"salvage-letters-{stamp}"
    shutil.rmtree(fresh, ignore_errors=True)
    try:
        fresh.mkdir()
        work = fresh / "damaged.sqlite"
        rescue.copy_damaged(file, work)
        with closing(letters_format.connect(fresh / letters_format.FILE)) as new:
            _fill(work, new, result)
            new.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        rescue.replace(file, result.aside, fresh / letters_format.FILE)
    except (OSError, sqlite3.Error, LogUnavailable) as error:
        raise LogUnavailable(
            f"{file} is damaged, and the letters that can be read could not be saved beside it ({error}): there must be"
            f" room for the file twice more; or remove {file}, then the letters are lost and the log is not"
        ) from error
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
    _LOGGER.error(
        "%s was damaged: %d dead letters were saved into a new file, %d or more are lost; the damaged file is %s and may"
        " be removed",
        file,
        result.letters,
        result.lost,
        result.aside,
    )
    return result


def _is_sound(file: Path) -> bool:
    """Whether SQLite finds nothing wrong: it reads all of the file, which is bounded
    (storage.dead_letters_max_bytes).
    """
    try:
        with closing(letters_format.connect(file)) as connection:
            found = connection.execute("PRAGMA quick_check(1)").fetchone()
            return found is not None and found[0] == "ok" and _has_columns(connection)
    except LogDamaged:
        return False
    except sqlite3.DatabaseError as error:
        if file_format.is_damage(error):
            return False
        raise file_format.unavailable(file, error) from error


def _has_columns(connection: sqlite3.Connection) -> bool:
    """Whether the tables are those that meshflow makes: damage to their definitions leaves a sound file."""
    try:
        connection.execute(f"{_LETTERS} LIMIT 1", (0,)).fetchone()
        connection.execute(f"{_FORGOTTEN} LIMIT 1").fetchone()
    except sqlite3.OperationalError:
        return False
    return True


def _fill(work: Path, new: sqlite3.Connection, result: SalvagedLetters) -> None:
    with closing(_open(work, new)) as old:
        new.execute("BEGIN IMMEDIATE")
        first, last = None, -1
        for row in rescue.readable_rows(old, _LETTERS, 0, _MOST_NUMBER):
            if not _is_letter(row):
                continue
            first, last = row[0] if first is None else first, row[0]
            marks = ", ".join("?" * len(row))
            result.letters += new.execute(
                f"INSERT OR IGNORE INTO letters ({_COLUMNS}) VALUES ({marks})", row
            ).rowcount
        for row in _forgotten(old):
            new.execute("INSERT OR REPLACE INTO forgotten VALUES (?, ?, ?, ?, ?)", row)
        new.execute("COMMIT")
        result.lost = 0 if first is None else last + 1 - first - result.letters


def _open(work: Path, new: sqlite3.Connection) -> sqlite3.Connection:
    """The damaged file; with another first page where SQLite does not know it."""
    connection = _connect(work)
    try:
        connection.execute(f"{_LETTERS} LIMIT 1", (0,)).fetchone()
    except sqlite3.DatabaseError as error:
        if getattr(error, "sqlite_errorname", "") == "SQLITE_CORRUPT" and _names_tables(connection):
            return connection
        connection.close()
        page_bytes = new.execute("PRAGMA page_size").fetchone()[0]
        rescue.mend_first_page(work, new, page_bytes)
        return _connect(work)
    return connection


def _connect(work: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(work, isolation_level=None)
    connection.text_factory = file_format.text
    return connection


def _names_tables(connection: sqlite3.Connection) -> bool:
    try:
        found = connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table'").fetchall()
    except sqlite3.DatabaseError:
        return False
    return {"letters", "forgotten"} <= {name for (name,) in found}


def _is_letter(row: tuple[Any, ...]) -> bool:
    """Whether a row can be what meshflow wrote; damage may leave any value of any type."""
    if not all(isinstance(value, kind) for value, kind in zip(row, _KINDS, strict=True)):
        return False
    extent, labels, codec = row[7], row[9], row[12]
    if extent not in (WHOLE, LEFT_OUT) or codec not in file_format.CODECS or min(row[2:5]) < 0:
        return False
    try:
        found = orjson.loads(labels)
    except ValueError:
        return False
    return isinstance(found, dict) and all(isinstance(value, str) for value in found.values())


def _forgotten(old: sqlite3.Connection) -> Iterator[tuple[Any, ...]]:
    with suppress(sqlite3.DatabaseError):
        for row in old.execute(_FORGOTTEN):
            if isinstance(row[0], str) and all(isinstance(value, int) for value in row[1:]):
                yield row
