"""SQL on the store in this process: chdb (schemas.sql.Engine)."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import chdb

from schemas.sql import Answer, Limits, Query
from storage import sql_guard, write_guard
from storage.client import open_client
from storage.query_settings import escape, failure, limit_settings, own_settings, valid
from storage.settings import ChdbStore

_WRITING = "'Insert', 'Create', 'Alter', 'Drop', 'Rename', 'Optimize', 'Delete', 'Update', 'System', 'KillQuery'"


class ChdbEngine:
    """chdb on a data folder that this process has open, or opens. Each query has a connection of its own: its settings end with it."""

    def __init__(self, path: str, *, writable: bool = False) -> None:
        """Take the folder; ``writable`` lets statements change it.

        Raises SinkUnavailable: another process has it, or this one has another folder open.
        """
        self._path = path
        self._check = write_guard.check if writable else sql_guard.check
        self._client = open_client(ChdbStore(Path(path)))  # mends what a kill may have left, before the engine reads it
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
        parameters = dict(query.parameters)
        if query.database:
            connection.query(f"USE {_quote_name(query.database)}")
        # Guarded before the query's own settings are applied: they could change how SQL is read (``dialect``).
        limiting = limit_settings(query, limits)
        _set(connection, limiting)
        formatted = connection.query(
            "SELECT formatQuerySingleLine({meshflow_sql:String})", "TSVRaw", params={"meshflow_sql": escape(query.sql)}
        )
        sql = formatted.bytes().decode().removesuffix("\n")
        tree = connection.query(f"EXPLAIN AST {sql}", "TSVRaw", params=parameters).bytes().decode()
        check = sql_guard.check if query.settings.get("readonly", "0") != "0" else self._check
        verdict = check(sql, tree)
        if verdict.readonly == 0:
            connection.query(f"SET {', '.join(f'{name} = DEFAULT' for name in limiting)}")
            return _write(connection, sql, query)
        _set(connection, own_settings(query.settings))
        connection.query(f"SET readonly = {verdict.readonly}")
        return _read(connection, sql, query, verdict)

    def interrupt(self) -> None:
        """See schemas.sql.Engine.interrupt. What runs in this process but reads only is ended: inserts and migrations go on."""
        self._connection.query(f"KILL QUERY WHERE query_kind NOT IN ({_WRITING}) SYNC", "Null")

    def close(self) -> None:
        """See schemas.sql.Engine.close."""
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
    """Run a statement that changes something. An INSERT's rows are read from their file by the engine (inline, it misreads binary ones)."""
    settings = dict(query.settings)
    write_guard.refuse_settings(settings)
    _set(connection, valid(settings))
    if query.data is not None:
        sql = sql_guard.with_infile(sql, _quote_text(str(query.data)))
    result = connection.query(sql, query.default_format, params=dict(query.parameters))
    read = (result.storage_rows_read(), result.storage_bytes_read())
    return Answer(result.bytes() or b"", query.default_format, *read, result.rows_written(), result.bytes_written())


def _set(connection: Any, settings: Mapping[str, str]) -> None:
    if settings:  # in one statement: each costs 0.3 ms of CPU
        connection.query(f"SET {', '.join(f'{name} = {_quote_text(value)}' for name, value in settings.items())}")


def _empty_native(connection: Any, sql: str, parameters: dict[str, str]) -> bytes:
    """The block without rows by which a server names the columns of an empty answer in Native; chdb leaves it out."""
    if not sql.startswith(("SELECT ", "WITH ", "(")):
        return b""
    inner = sql_guard.without_format(sql)
    columns = connection.query(f"DESCRIBE TABLE ({inner})", "JSONCompactEachRow", params=parameters).bytes() or b""
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
