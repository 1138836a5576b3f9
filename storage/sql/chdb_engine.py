"""SQL on the store in this process: chdb (schemas.sql.Engine)."""

import json
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import chdb

from schemas.sql import Answer, Limits, Query
from storage.client import open_client
from storage.settings import ChdbStore
from storage.sql import read_guard as sql_guard
from storage.sql import write_guard
from storage.sql.query_settings import escape, failure, limit_settings, own_settings, valid
from storage.sql.sessions import Sessions

_WRITING = (
    "'Insert', 'Create', 'Alter', 'Drop', 'Rename', 'Optimize', 'Delete', 'Update', 'System', 'KillQuery'"
)


class ChdbEngine:
    """chdb on a data folder that this process has open, or opens. Each query has a connection of its own: its
    settings end with it.
    """

    def __init__(self, path: str, *, writable: bool = False) -> None:
        """Take the folder; ``writable`` lets statements change it.

        Raises SinkUnavailable: another process has it, or this one has another folder open.
        """
        self._path = path
        self._check = write_guard.check if writable else sql_guard.check
        self._sessions = Sessions(lambda: chdb.connect(path)) if writable else None
        self._client = open_client(
            ChdbStore(Path(path))
        )  # mends what a kill may have left, before the engine reads it
        self._connection = chdb.connect(path)  # keeps the engine open between queries

    def execute(self, query: Query, limits: Limits) -> Answer:
        """See schemas.sql.Engine.execute."""
        connection = chdb.connect(self._path)
        try:
            return self._execute(connection, query, limits)
        except RuntimeError as error:
            raise failure(str(error)) from error
        finally:
            connection.close()

    def _execute(self, connection: Any, query: Query, limits: Limits) -> Answer:
        if query.database:
            _use(connection, query.database)
        # Guarded before the query's own settings are applied: they could change how SQL is read
        # (``dialect``).
        limiting = limit_settings(query, limits)
        _set(connection, limiting)
        sql, verdict = self._judge(connection, query)
        if self._sessions and query.session and verdict.readonly != 1:
            with self._sessions.borrow(query.session, time.monotonic()) as kept:
                return _run_in_session(kept, sql, query, verdict, limiting)
        if verdict.readonly == 0:
            connection.query(f"SET {', '.join(f'{name} = DEFAULT' for name in limiting)}")
            _set(connection, _settings_of_write(query))
            return _write(connection, sql, query)
        _set(connection, own_settings(query.settings))
        connection.query(f"SET readonly = {verdict.readonly}")
        return _read(connection, sql, query, verdict)

    def _judge(self, connection: Any, query: Query) -> tuple[str, sql_guard.Verdict]:
        """The statement as the engine formats it, and what it may do."""
        formatted = connection.query(
            "SELECT formatQuerySingleLine({meshflow_sql:String})",
            "TSVRaw",
            params={"meshflow_sql": escape(query.sql)},
        )
        sql: str = formatted.bytes().decode().removesuffix("\n")
        tree = (
            connection.query(f"EXPLAIN AST {sql}", "TSVRaw", params=dict(query.parameters)).bytes().decode()
        )
        check = sql_guard.check if query.settings.get("readonly", "0") != "0" else self._check
        return sql, check(sql, tree)

    def interrupt(self) -> None:
        """See schemas.sql.Engine.interrupt. What runs in this process but reads only is ended: inserts and
        migrations go on.
        """
        self._connection.query(f"KILL QUERY WHERE query_kind NOT IN ({_WRITING}) SYNC", "Null")

    def close(self) -> None:
        """See schemas.sql.Engine.close."""
        if self._sessions:
            self._sessions.close()
        self._connection.close()
        self._client.close()


def _read(connection: Any, sql: str, query: Query, verdict: sql_guard.Verdict) -> Answer:
    parameters = dict(query.parameters)
    result = connection.query(sql, query.default_format, params=parameters)
    output_format = verdict.format or query.default_format
    body = result.bytes() or b""
    if not body and output_format == "Native":
        body = _empty_native(connection, sql, parameters)
    return Answer(body, output_format, result.storage_rows_read(), result.storage_bytes_read())


def _write(connection: Any, sql: str, query: Query) -> Answer:
    """Run a statement that changes something. An INSERT's rows are read from their file by the engine
    (inline, it misreads binary ones).
    """
    if query.data is not None:
        sql = sql_guard.with_infile(sql, _quote_text(str(query.data)))
    result = connection.query(sql, query.default_format, params=dict(query.parameters))
    read = (result.storage_rows_read(), result.storage_bytes_read())
    return Answer(
        result.bytes() or b"", query.default_format, *read, result.rows_written(), result.bytes_written()
    )


def _settings_of_write(query: Query) -> Mapping[str, str]:
    write_guard.refuse_settings(query.settings)
    return valid(query.settings)


def _run_in_session(
    connection: Any, sql: str, query: Query, verdict: sql_guard.Verdict, limiting: Mapping[str, str]
) -> Answer:
    """In a connection that stays: the query's settings end with it, those of its SET do not (``readonly``
    could never be taken back).
    """
    if query.database:
        _use(connection, query.database)
    if sql.startswith("SET "):
        return _write(connection, sql, query)
    wanted = (
        _settings_of_write(query) if verdict.readonly == 0 else {**own_settings(query.settings), **limiting}
    )
    former = _settings_now(connection, wanted)
    try:
        _set(connection, wanted)
        return (
            _write(connection, sql, query)
            if verdict.readonly == 0
            else _read(connection, sql, query, verdict)
        )
    finally:
        if former:
            connection.query(f"SET {', '.join(f'{name} = {value}' for name, value in former.items())}")


def _settings_now(connection: Any, names: Iterable[str]) -> dict[str, str]:
    """What SET has to be given to have these settings as they are."""
    if not names:
        return {}
    wanted = ", ".join(_quote_text(name) for name in names)
    result = connection.query(
        f"SELECT name, value, changed FROM system.settings WHERE name IN ({wanted})", "JSONCompactEachRow"
    )
    rows = [json.loads(line) for line in (result.bytes() or b"").splitlines()]
    return {name: _quote_text(value) if changed else "DEFAULT" for name, value, changed in rows}


def _use(connection: Any, database: str) -> None:
    connection.query(f"USE {_quote_name(database)}")


def _set(connection: Any, settings: Mapping[str, str]) -> None:
    if settings:  # in one statement: each costs 0.3 ms of CPU
        connection.query(
            f"SET {', '.join(f'{name} = {_quote_text(value)}' for name, value in settings.items())}"
        )


def _empty_native(connection: Any, sql: str, parameters: dict[str, str]) -> bytes:
    """The block without rows by which a server names the columns of an empty answer in Native; chdb leaves it
    out.
    """
    if not sql.startswith(("SELECT ", "WITH ", "(")):
        return b""
    inner = sql_guard.without_format(sql)
    columns = (
        connection.query(f"DESCRIBE TABLE ({inner})", "JSONCompactEachRow", params=parameters).bytes() or b""
    )
    named = [json.loads(line)[:2] for line in columns.splitlines()]
    return _varint(len(named)) + b"\0" + b"".join(_text(part) for column in named for part in column)


def _text(text: str) -> bytes:
    return _varint(len(text.encode())) + text.encode()


def _varint(number: int) -> bytes:
    return bytes([number]) if number < 128 else bytes([number & 127 | 128]) + _varint(number >> 7)


def _quote_text(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"


def _quote_name(name: str) -> str:
    escaped = name.replace("\\", "\\\\").replace("`", "\\`")
    return f"`{escaped}`"
