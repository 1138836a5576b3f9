"""SQL on the store in this process: chdb (schemas.sql.Engine)."""

import json
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from schemas.sql import Answer, Limits, Query
from storage import damage, embedded
from storage.client import open_client
from storage.settings import ChdbStore
from storage.sql import read_guard, write_guard
from storage.sql.answers import BoundedPipe
from storage.sql.judge import Judge
from storage.sql.query_settings import failure, limit_settings, own_settings, too_large
from storage.sql.read_guard import Verdict
from storage.sql.sessions import Sessions

_DATABASE = "default"
_WRITING = (
    "'Insert', 'Create', 'Alter', 'Drop', 'Rename', 'Optimize', 'Delete', 'Update', 'System', 'KillQuery'"
)


class ChdbEngine:
    """chdb on a data folder that this process has open, or opens. Each query has a connection of its own: its
    settings end with it.
    """

    def __init__(self, path: str, *, writable: bool = False) -> None:
        """Take the folder; ``writable`` lets statements change it.

        Raises SinkUnavailable: another process has it, or this one has another folder open. Raises
        SinkUnusable: the engine has not the access rules that SQL of strangers needs.
        """
        self._path = path
        self._role = embedded.CHANGER if writable else embedded.READER
        self._judge = Judge(writable=writable, database=_DATABASE)
        self._sessions = Sessions(self._connect) if writable else None
        self._client = open_client(
            ChdbStore(Path(path))
        )  # mends what a kill may have left, before the engine reads it
        self._connection = embedded.connect(path)  # keeps the engine open between queries

    def execute(self, query: Query, limits: Limits) -> Answer:
        """See schemas.sql.Engine.execute."""
        connection = self._connect()
        try:
            return self._execute(connection, query, limits)
        except embedded.ERRORS as error:
            raise failure(damage.with_advice(embedded.text_of(error), self._path)) from error
        finally:
            connection.close()

    def _connect(self) -> Any:
        """A connection with the rights that strangers' SQL has."""
        return embedded.connect_as(self._path, self._role)

    def _execute(self, connection: Any, query: Query, limits: Limits) -> Answer:
        if query.database:
            _use(connection, query.database)
        # Guarded before the query's own settings are applied: they could change how SQL is read.
        limiting = limit_settings(query, limits)
        _set(connection, limiting)
        sql, verdict = self._judge.decide(partial(_ask, connection), query, limits)
        writes = verdict.readonly == 0
        chosen = own_settings(query.settings, writes=writes)
        if self._sessions and query.session:
            bounded = chosen if writes else {**chosen, **limiting}
            with (
                self._sessions.borrow(query.session, time.monotonic()) as kept,
                _settings(kept, bounded, sql),
            ):
                if query.database:
                    _use(kept, query.database)
                return _write(kept, sql, query) if writes else _read(kept, sql, query, verdict, limits)
        if writes:
            connection.query(f"SET {', '.join(f'{name} = DEFAULT' for name in limiting)}")
            _set(connection, chosen)
            return _write(connection, sql, query)
        _set(connection, chosen)
        connection.query(f"SET readonly = {verdict.readonly}")
        return _read(connection, sql, query, verdict, limits)

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


def _ask(connection: Any, sql: str, parameters: Mapping[str, str]) -> str:
    result = connection.query(sql, "TSVRaw", params=dict(parameters))
    return (result.bytes() or b"").decode(errors="replace").removesuffix("\n")


def _read(connection: Any, sql: str, query: Query, verdict: Verdict, limits: Limits) -> Answer:
    """Run a statement that only reads; its answer is bounded while the engine writes it."""
    parameters = dict(query.parameters)
    if sql.startswith("EXPLAIN "):
        return _explain(connection, sql, query, verdict, limits)
    pipe = BoundedPipe(limits.result_bytes)
    failed = True
    try:
        to_pipe = read_guard.with_outfile(sql, _quote_text(pipe.path))
        result = connection.query(to_pipe, query.default_format, params=parameters)
        failed = False
    finally:
        body = pipe.finish()
        if failed and pipe.overflowed:
            raise too_large(limits.result_bytes)
    if pipe.overflowed:
        raise too_large(limits.result_bytes)
    output_format = verdict.format or query.default_format
    if not body and output_format == "Native":
        body = _empty_native(connection, sql, parameters)
    return Answer(body, output_format, result.storage_rows_read(), result.storage_bytes_read())


def _explain(connection: Any, sql: str, query: Query, verdict: Verdict, limits: Limits) -> Answer:
    """An EXPLAIN's answer, which is about as long as its statement: INTO OUTFILE would be of the statement
    that is explained.
    """
    result = connection.query(sql, query.default_format, params=dict(query.parameters))
    body = result.bytes() or b""
    if len(body) > limits.result_bytes:
        raise too_large(limits.result_bytes)
    return Answer(
        body, verdict.format or query.default_format, result.storage_rows_read(), result.storage_bytes_read()
    )


def _write(connection: Any, sql: str, query: Query) -> Answer:
    """Run a statement that changes something. An INSERT's rows are read from their file by the engine
    (inline, it misreads binary ones).
    """
    if query.data is not None:
        sql = write_guard.with_infile(sql, _quote_text(str(query.data)))
    result = connection.query(sql, query.default_format, params=dict(query.parameters))
    read = (result.storage_rows_read(), result.storage_bytes_read())
    return Answer(
        result.bytes() or b"", query.default_format, *read, result.rows_written(), result.bytes_written()
    )


@contextmanager
def _settings(connection: Any, chosen: Mapping[str, str], sql: str) -> Iterator[None]:
    """In a connection that stays: the query's settings end with it, those of its SET do not (``readonly``
    could never be taken back).
    """
    if sql.startswith("SET "):
        yield
        return
    former = _settings_now(connection, chosen)
    try:
        _set(connection, chosen)
        yield
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
    inner = read_guard.without_format(sql)
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
