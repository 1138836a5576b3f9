"""The embedded engine (chdb), started so that its own access rules hold (docs/adr/0005). No other file opens
it.
"""

import logging
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from schemas.errors import SinkUnusable
from storage import damage

OWNER = "owner"
READER = "reader"
CHANGER = "changer"

ERRORS = (RuntimeError, UnicodeDecodeError)
"""What the engine's connections raise; the second where the engine's text is not UTF-8."""

_CONFIGURATION = Path(__file__).with_name("engine.xml")
_DATABASE = "default"
_PLAIN = "Atomic"
_MOST_SAID = 1 << 20
_starting, _naming = threading.Lock(), threading.Lock()
_DESCRIPTORS = Path("/proc/self/fd")
_opened: dict[Path, int] = {}
"""Data folders that engines of this process were opened on."""
_reported: set[str] = set()
_LOGGER = logging.getLogger(__name__)


def connect(directory: str | Path) -> Any:
    """A connection to the engine on a data folder, which starts with the first one and ends with the last.

    Raises ERRORS: another process has the folder, this one has another folder open, or files of it are
    damaged. Raises SinkUnusable: the engine is there without the access rules.
    """
    with _starting:
        folder = Path(directory).resolve()
        if not _CONFIGURATION.is_file():
            raise _unguarded(f"{_CONFIGURATION} is missing")
        with _said() as said:
            try:
                connection = _engine().connect(f"{name_of(folder)}?config-file={_CONFIGURATION}")
            except ERRORS as error:
                raise RuntimeError(
                    f"{said() or text_of(error)}".replace(name_of(folder), str(folder))
                ) from error
        try:
            _check_roles(connection)
            _leave_files_alone(connection, folder)
        except BaseException:
            connection.close()
            raise
        return connection


def connect_again(directory: str | Path) -> Any:
    """A further connection to the engine that this process has open by :func:`connect`; not checked again."""
    return _engine().connect(name_of(directory))


def _engine() -> Any:
    """chdb, loaded when the first store is opened: it maps 200 MiB, which a process in front of a server does
    not need.
    """
    import chdb  # noqa: PLC0415 - see above

    return chdb


def name_of(directory: str | Path) -> str:
    """How the engine is told of a data folder. ``system.tables`` shows this name to everyone, so that it does
    not say where the folder lies.
    """
    folder = Path(directory).resolve()
    folder.mkdir(parents=True, exist_ok=True)
    if not _DESCRIPTORS.is_dir():
        return str(folder)
    with _naming:
        known = _opened.get(folder)
        if known is not None and not os.path.samestat(os.fstat(known), folder.stat()):
            os.close(_opened.pop(folder))  # another folder has this path now
            known = None
        if known is None:
            known = _opened[folder] = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        return str(_DESCRIPTORS / str(known))


def connect_as(directory: str | Path, role: str) -> Any:
    """:func:`connect_again` with no rights but a role's (``READER``, ``CHANGER``), until it is closed.

    Raises SinkUnusable: the engine does not know the role.
    """
    connection = connect_again(directory)
    try:
        connection.query(f"SET ROLE {role}")
    except BaseException as error:
        connection.close()
        if isinstance(error, ERRORS):
            raise _unguarded(f"it does not take the role {role}: {text_of(error)}") from error
        raise
    return connection


def text_of(error: Exception) -> str:
    """What the engine says; bytes that are no UTF-8 (damaged files have any) are escaped."""
    if isinstance(error, UnicodeDecodeError):
        return bytes(error.object).decode(errors="backslashreplace")
    return str(error)


@contextmanager
def _said() -> Iterator[Callable[[], str]]:
    """What the engine writes to standard error while it starts: there, and not in its exception, it says why
    it does not. What is not an error is passed on.
    """
    kept = os.dup(2)
    taken = os.memfd_create("said", os.MFD_CLOEXEC) if hasattr(os, "memfd_create") else None
    if taken is None:
        yield lambda: ""
        return
    os.dup2(taken, 2)

    def read() -> bytes:
        return os.pread(taken, _MOST_SAID, 0)

    try:
        yield lambda: "".join(read().decode(errors="backslashreplace").partition("Code: ")[1:])
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        passed = read().partition(b"Code: ")[0]
        os.close(taken)
        if passed:
            os.write(2, passed)


def _check_roles(connection: Any) -> None:
    try:
        known = set(_ask(connection, "SELECT name FROM system.roles").split())
    except RuntimeError:  # whoever has no roles may not look at them
        known = set()
    if missing := {OWNER, READER, CHANGER} - known:
        raise _unguarded(f"it has not the roles {', '.join(sorted(missing))} of {_CONFIGURATION}")


def _unguarded(reason: str) -> SinkUnusable:
    return SinkUnusable(
        f"the embedded engine is there without its access rules ({reason}), and so SQL is not answered: install"
        " meshflow and the chdb that it names once more"
    )


def _leave_files_alone(connection: Any, directory: Path) -> None:
    """Put a plain database in the place of chdb's Overlay one, which opens files by the names of tables.

    chdb makes the Overlay at every start, over the same tables.
    """
    engine, identity = _ask(
        connection, f"SELECT engine, uuid FROM system.databases WHERE name = '{_DATABASE}'"
    ).split("\t")
    if engine != "Overlay":
        return
    metadata = directory / "metadata"
    connection.query(f"DETACH DATABASE {_DATABASE} SYNC")
    described = metadata / f"{_DATABASE}.sql"
    if not (metadata / _DATABASE).exists():  # it never had a table
        described.unlink(missing_ok=True)
        connection.query(f"CREATE DATABASE {_DATABASE} ENGINE = {_PLAIN}")
    elif described.exists():
        connection.query(f"ATTACH DATABASE {_DATABASE}")
    else:
        connection.query(f"ATTACH DATABASE {_DATABASE} UUID '{identity}' ENGINE = {_PLAIN}")
    kind = _ask(connection, f"SELECT engine FROM system.databases WHERE name = '{_DATABASE}'")
    if kind != _PLAIN:
        raise _unguarded(
            f"its database {_DATABASE} is of the kind {kind}, which may open files by their names"
        )
    lines = damage.lines(damage.set_aside(partial(_ask, connection)))
    for line in lines:
        if line not in _reported:  # the engine may be opened more than once
            _LOGGER.error("%s", line.replace(name_of(directory), str(directory)))
    _reported.update(lines)


def _ask(connection: Any, sql: str) -> str:
    answer: bytes = connection.query(sql, "TSVRaw").bytes()
    return answer.decode(errors="replace").strip()
