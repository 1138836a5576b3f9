"""The embedded engine (chdb), started so that its own access rules hold (docs/adr/0005)."""

import logging
import threading
from pathlib import Path
from typing import Any

import chdb

READER = "reader"
CHANGER = "changer"

_CONFIGURATION = Path(__file__).with_name("engine.xml")
_DATABASE = "default"
_log = logging.getLogger(__name__)
_starting = threading.Lock()


def connect(directory: str | Path) -> Any:
    """A connection to the engine on a data folder, which starts with the first one and ends with the last.

    Raises RuntimeError: another process has the folder, or this one has another folder open.
    """
    with _starting:
        folder = Path(directory).resolve()
        connection = chdb.connect(f"{folder}?config-file={_CONFIGURATION}")
        try:
            _leave_files_alone(connection, folder)
        except BaseException:
            connection.close()
            raise
        return connection


def take_role(connection: Any, role: str) -> None:
    """Give up all rights of this connection but a role's (``READER``, ``CHANGER``), until it is closed."""
    try:
        connection.query(f"SET ROLE {role}")
    except RuntimeError as error:
        if "UNKNOWN_ROLE" not in str(error):
            raise
        _log.error("the engine was started without its roles (engine.xml): SQL is guarded by its text alone")


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
        connection.query(f"CREATE DATABASE {_DATABASE} ENGINE = Atomic")
    elif described.exists():
        connection.query(f"ATTACH DATABASE {_DATABASE}")
    else:
        connection.query(f"ATTACH DATABASE {_DATABASE} UUID '{identity}' ENGINE = Atomic")


def _ask(connection: Any, sql: str) -> str:
    answer: bytes = connection.query(sql, "TSVRaw").bytes()
    return answer.decode().strip()
