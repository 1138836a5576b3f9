"""Blocks into tables: one block, one insert, one token (design: invariant 3; figures in docs/adr/0012).

An insert is one block of the engine as well, whatever its size: one part in each partition of the table that
it touches, each remembered under the token. So a repetition drops what is there and adds what is not, also
when a kill came between two parts.
"""

import re
import threading
from collections.abc import Callable, Mapping
from typing import Any

import pyarrow as pa
from clickhouse_connect.driver.client import Client
from clickhouse_connect.driver.exceptions import DatabaseError

from schemas import self_metrics
from schemas.errors import SinkRejected, SinkUnavailable, SinkUnusable
from schemas.sink import Sink
from schemas.tables import SCHEMAS, Block
from storage import embedded, shards
from storage.client import classify, errors, open_client
from storage.settings import ChdbStore, ClickHouseStore

_UNLIMITED = 1 << 40
ONE_BLOCK = {
    "max_block_size": 1 << 20,
    "max_insert_block_size": _UNLIMITED,
    "max_insert_threads": 1,
    "max_threads": 1,
    "min_insert_block_size_bytes": _UNLIMITED,
    "min_insert_block_size_rows": _UNLIMITED,
    "async_insert": 0,
    "insert_deduplicate": 1,
    "materialize_skip_indexes_on_insert": 0,
}
"""Settings with which the engine squashes all rows of an INSERT into one block, in the order in which they
are read. Skip indexes are made by the first merge, not also before it."""

ASYNC = {"async_insert": 1, "wait_for_async_insert": 1, "async_insert_deduplicate": 1}
"""With which a server gathers blocks of several tokens into one part, and answers when it is written
(docs/adr/0018).
"""

_SMALL_BYTES = 4 << 20

_CODE = re.compile(r"Code: (\d+)\.")


def open_sink(place: ChdbStore | ClickHouseStore) -> Sink:
    """The sink of a store whose tables are migrated. Raises SinkUnavailable."""
    return _open_server_sink(place) if isinstance(place, ClickHouseStore) else ChdbSink(place)


def _open_server_sink(place: ClickHouseStore) -> Sink:
    client = open_client(place)
    if not place.options.async_insert:
        return ClickHouseSink(client)
    try:
        return ClickHouseSink(client, ASYNC, shards.gathering_suffix(client, place))
    except BaseException:
        client.close()
        raise


class ClickHouseSink:
    """Arrow over HTTP."""

    def __init__(self, client: Client, more: Mapping[str, Any] | None = None, suffix: str = "") -> None:
        """Takes the client over: closing the sink closes it. ``more``: settings of every insert; ``suffix``:
        of every table's name.
        """
        self._client = client
        self._more = more or {}
        self._suffix = suffix

    def write(self, block: Block) -> None:
        """See schemas.sink.Sink.write."""
        rows = _checked(block)
        if rows.num_rows:
            _insert_arrow(self._client, block, rows, self._more, self._suffix)
        _count(block)

    def close(self) -> None:
        """See schemas.sink.Sink.close."""
        self._client.close()


class ChdbSink:
    """Big blocks go to the engine as Arrow buffers (its ``Python`` table function), small ones, for less, as
    Arrow files.
    """

    def __init__(self, place: ChdbStore) -> None:
        """Raises SinkUnavailable: the folder is in use by another process."""
        self._client = open_client(place)  # keeps the engine open, and opens it the careful way
        self._connection = embedded.connect_again(place.directory)
        self._guard = threading.Lock()

    def write(self, block: Block) -> None:
        """See schemas.sink.Sink.write."""
        rows = _checked(block)
        if rows.num_rows:
            with self._guard:
                if rows.nbytes < _SMALL_BYTES:
                    _insert_arrow(self._client, block, rows)
                else:
                    self._insert(block, rows)
        _count(block)

    def close(self) -> None:
        """See schemas.sink.Sink.close."""
        with self._guard:
            self._connection.close()
            self._client.close()

    def _insert(self, block: Block, meshflow_rows: pa.Table) -> None:
        # The engine finds meshflow_rows by its name, among the variables of the calling function.
        columns = ", ".join(f"`{name}`" for name in meshflow_rows.schema.names)
        try:
            self._connection.query(
                f"INSERT INTO `{block.table}` ({columns}) SELECT {columns} FROM Python(meshflow_rows) {insert_settings(block.token)}",
                "TabSeparated",
            )
        except embedded.ERRORS as error:
            raise engine_error(embedded.text_of(error), f"insert of {block.token}") from error


class RetryingSink:
    """Writes again and again, with a growing pause, while the database is away; the caller waits and so reads
    no further.
    """

    def __init__(
        self,
        sink: Sink,
        *,
        first_delay_s: float = 0.1,
        longest_delay_s: float = 10.0,
        wait: Callable[[float], bool] | None = None,
        on_retry: Callable[[Exception, float], None] | None = None,
    ) -> None:
        """``wait(seconds)`` pauses and says whether to give up (default: the event set by :meth:`stop`);
        ``on_retry`` is told why.
        """
        self._sink = sink
        self._delays_s = (first_delay_s, longest_delay_s)
        self._stop = threading.Event()
        self._wait = wait or self._stop.wait
        self._on_retry = on_retry

    def write(self, block: Block) -> None:
        """See schemas.sink.Sink.write; SinkUnavailable only when stopped, or told to give up."""
        delay_s, longest_s = self._delays_s
        while True:
            try:
                self._sink.write(block)
            except SinkUnavailable as error:
                self_metrics.RETRIES.inc()
                if self._on_retry:
                    self._on_retry(error, delay_s)
                if self._wait(delay_s):
                    raise
                delay_s = min(delay_s * 2, longest_s)
            else:
                return

    def stop(self) -> None:
        """End waiting: a write that fails from now on, or is between two tries, raises."""
        self._stop.set()

    def close(self) -> None:
        """See schemas.sink.Sink.close."""
        self._sink.close()


def insert_settings(token: str) -> str:
    """SETTINGS clause of an INSERT ... SELECT that is one block of this name."""
    one_block = ", ".join(f"{name} = {value}" for name, value in ONE_BLOCK.items())
    return f"SETTINGS insert_deduplication_token = '{_escape(token)}', {one_block}"


def engine_error(text: str, doing: str) -> SinkRejected | SinkUnavailable | SinkUnusable:
    """What an error of chdb's own connection means to the writer of a block."""
    code = _CODE.search(text)
    return classify(DatabaseError(text, code=int(code[1]) if code else None), doing)


def _insert_arrow(
    client: Client, block: Block, rows: pa.Table, more: Mapping[str, Any] | None = None, suffix: str = ""
) -> None:
    settings = {**ONE_BLOCK, **(more or {}), "insert_deduplication_token": block.token}
    with errors(f"insert of {block.token}"):
        client.insert_arrow(f"{block.table}{suffix}", rows, settings=settings)


def _checked(block: Block) -> pa.Table:
    wanted = SCHEMAS.get(block.table)
    if wanted is None:
        raise SinkUnusable(f"{block.token}: there is no table {block.table}")
    if not block.rows.schema.equals(wanted):
        raise SinkUnusable(
            f"{block.token}: the rows are not of the table's schema:\n{block.rows.schema}\ninstead of\n{wanted}"
        )
    return block.rows


def _count(block: Block) -> None:
    self_metrics.BLOCKS.labels(block.table).inc()
    self_metrics.ROWS.labels(block.table).inc(block.rows.num_rows)


def _escape(text: str) -> str:
    return text.replace("\\", "\\\\").replace("'", "\\'")
